//! Companies, the tenants of a daemon.

use std::fmt;
use std::str::FromStr;

use super::time::Timestamp;

/// The number of a company, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CompanyId(pub u32);

impl fmt::Display for CompanyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// The short name of a company in paths: `[a-z0-9-]{1,64}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Slug(String);

/// A text that is not a slug.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a slug is 1 to 64 characters of a-z, 0-9 and -")]
pub struct ParseSlugError;

impl Slug {
    /// The slug as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Slug {
    type Err = ParseSlugError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if (1..=64).contains(&text.len()) && text.bytes().all(allowed) { Ok(Self(text.to_owned())) } else { Err(ParseSlugError) }
    }
}

/// The country of a company: two ASCII letters, kept in lower case (ISO 3166-1 alpha-2 shape).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Country(String);

/// A text that is not a country code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a country is two letters such as dk")]
pub struct ParseCountryError;

impl Country {
    /// The two letters, in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Country {
    type Err = ParseCountryError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(ParseCountryError)
        }
    }
}

/// What somebody asks for who creates a company.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCompany {
    /// Unique among all companies.
    pub slug: Slug,
    /// Where the company works, if it matters to its callers.
    pub country: Option<Country>,
    /// The name for people, at most 200 characters; the slug when none was given.
    pub name: String,
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Company {
    /// Its number, never used again.
    pub id: CompanyId,
    /// Its short name.
    pub slug: Slug,
    /// Its country, if one was given.
    pub country: Option<Country>,
    /// Its name for people.
    pub name: String,
    /// When it was created.
    pub created: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slug_has_one_to_sixty_four_characters() {
        assert!("a".parse::<Slug>().is_ok());
        assert!("a".repeat(64).parse::<Slug>().is_ok());
        for text in ["", "Acme", "a_b", "å", &"a".repeat(65)] {
            assert_eq!(text.parse::<Slug>(), Err(ParseSlugError), "{text}");
        }
    }

    #[test]
    fn a_country_is_kept_in_lower_case() {
        assert_eq!("DK".parse::<Country>().unwrap().as_str(), "dk");
        assert_eq!("DNK".parse::<Country>(), Err(ParseCountryError));
    }
}
