//! Which types of events a reader wants.

use super::event::{EventVersion, ParseEventVersionError};

/// A filter by type: the empty one takes every event but the daemon's own (`lutine.*`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TypeFilter {
    patterns: Vec<Pattern>,
}

/// One entry of a filter, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Pattern {
    /// The whole type, or with `is_prefix` what a type starts with (`claim.` of `claim.*`).
    text: String,
    is_prefix: bool,
    version: Option<String>,
}

/// A text that is no list of types.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseTypeFilterError {
    /// An entry is not a type, a type with a version, or a prefix with `.*`.
    #[error("`{entry}` is neither a type (claim.created), a type with a version (claim.created@2), nor a prefix (claim.*)")]
    Entry {
        /// The entry as given.
        entry: String,
    },
    /// What follows the `@` is not a version.
    #[error("`{entry}`: {source}")]
    Version {
        /// The entry as given.
        entry: String,
        /// What is wrong with the version.
        source: ParseEventVersionError,
    },
    /// There are more entries than [`TypeFilter::ENTRIES_MAX`].
    #[error("a filter has at most {max} types", max = TypeFilter::ENTRIES_MAX)]
    TooMany,
}

/// What all of the daemon's own types start with.
pub const OWN_PREFIX: &str = "lutine.";

impl TypeFilter {
    /// The most entries that one filter may have.
    pub const ENTRIES_MAX: usize = 100;

    /// Reads a comma-separated list such as `claim.*,policy.bound@2`; entries are compared without case.
    ///
    /// # Errors
    /// Names the first entry that is not understood. An empty text or entry is refused.
    pub fn parse_list(list: &str) -> Result<Self, ParseTypeFilterError> {
        Self::parse_entries(list.split(','))
    }

    /// Reads the entries of a list.
    ///
    /// # Errors
    /// As [`TypeFilter::parse_list`].
    pub fn parse_entries<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, ParseTypeFilterError> {
        let mut patterns = entries.into_iter().map(Pattern::parse).collect::<Result<Vec<_>, _>>()?;
        patterns.sort();
        patterns.dedup();
        if patterns.len() > Self::ENTRIES_MAX { Err(ParseTypeFilterError::TooMany) } else { Ok(Self { patterns }) }
    }

    /// Reads the types that a subscription names. `*` alone says the same as none: a person may prefer to write it.
    ///
    /// # Errors
    /// As [`TypeFilter::parse_list`].
    pub fn parse_types(types: &[String]) -> Result<Self, ParseTypeFilterError> {
        if types == ["*"] { Ok(Self::default()) } else { Self::parse_entries(types.iter().map(String::as_str)) }
    }

    /// Whether the filter takes an event of this type (in lower case) and version.
    #[must_use]
    pub fn matches(&self, folded: &str, version: &str) -> bool {
        if self.patterns.is_empty() {
            return !folded.starts_with(OWN_PREFIX);
        }
        self.patterns.iter().any(|pattern| pattern.matches(folded, version))
    }

    /// Whether the filter takes every type but the daemon's own.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Each entry in lower case, without its version: a whole type, or what a type starts with (then true).
    pub fn entries(&self) -> impl Iterator<Item = (&str, bool)> {
        self.patterns.iter().map(|pattern| (pattern.text.as_str(), pattern.is_prefix))
    }

    /// The filter that takes what both take; none when that is nothing.
    #[must_use]
    pub fn narrowed_to(&self, other: &Self) -> Option<Self> {
        let own = |pattern: &Pattern| pattern.text.starts_with(OWN_PREFIX);
        let mut patterns: Vec<Pattern> = match (self.is_everything(), other.is_everything()) {
            (true, true) => return Some(Self::default()),
            (true, false) => other.patterns.iter().filter(|pattern| !own(pattern)).cloned().collect(),
            (false, true) => self.patterns.iter().filter(|pattern| !own(pattern)).cloned().collect(),
            (false, false) => self.patterns.iter().flat_map(|one| other.patterns.iter().filter_map(|two| one.narrowed_to(two))).collect(),
        };
        patterns.sort();
        patterns.dedup();
        (!patterns.is_empty()).then_some(Self { patterns })
    }

    /// The entries in one canonical order and spelling, joined by commas; equal filters have equal texts.
    #[must_use]
    pub fn canonical(&self) -> String {
        self.patterns.iter().map(Pattern::canonical).collect::<Vec<_>>().join(",")
    }
}

impl Pattern {
    fn parse(entry: &str) -> Result<Self, ParseTypeFilterError> {
        let refused = || ParseTypeFilterError::Entry { entry: entry.to_owned() };
        let trimmed = entry.trim();
        let (name, version) = match trimmed.split_once('@') {
            None => (trimmed, None),
            Some((name, version)) => {
                let version: EventVersion =
                    version.parse().map_err(|source| ParseTypeFilterError::Version { entry: entry.to_owned(), source })?;
                (name, Some(version.as_str().to_owned()))
            }
        };
        let (stem, is_prefix) = match name.strip_suffix(".*") {
            Some(stem) => (stem, true),
            None => (name, false),
        };
        let folded = stem.parse::<super::event::EventType>().map_err(|_| refused())?.folded();
        let text = if is_prefix { folded + "." } else { folded };
        Ok(Self { text, is_prefix, version })
    }

    fn matches(&self, folded: &str, version: &str) -> bool {
        // `lutine.*` events reach only entries that begin with `lutine.` themselves.
        let type_matches = if self.is_prefix { folded.starts_with(&self.text) } else { folded == self.text };
        type_matches && self.version.as_deref().is_none_or(|wanted| wanted == version)
    }

    /// What both take, if there is such a thing.
    fn narrowed_to(&self, other: &Self) -> Option<Self> {
        let (narrow, wide) =
            if (self.text.len(), other.is_prefix) > (other.text.len(), self.is_prefix) { (self, other) } else { (other, self) };
        let is_inside =
            narrow.text == wide.text && narrow.is_prefix == wide.is_prefix || wide.is_prefix && narrow.text.starts_with(&wide.text);
        let version = match (&self.version, &other.version) {
            (Some(one), Some(two)) if one != two => return None,
            (one, two) => one.clone().or_else(|| two.clone()),
        };
        is_inside.then(|| Self { version, ..narrow.clone() })
    }

    fn canonical(&self) -> String {
        let star = if self.is_prefix { "*" } else { "" };
        match &self.version {
            None => format!("{}{star}", self.text),
            Some(version) => format!("{}{star}@{version}", self.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(list: &str) -> TypeFilter {
        TypeFilter::parse_list(list).unwrap()
    }

    #[test]
    fn a_filter_narrowed_to_another_takes_what_both_take() {
        let filters =
            ["", "claim.*", "claim.created", "claim.created@2", "claim.*@2", "claim.note.*", "policy.bound,claim.created", "lutine.*"];
        let types = ["claim.created", "claim.note.added", "claim.closed", "policy.bound", "lutine.delivery.exhausted", "claim"];
        let filter = |list: &str| if list.is_empty() { TypeFilter::default() } else { TypeFilter::parse_list(list).unwrap() };
        for (left, right) in filters.iter().flat_map(|left| filters.map(|right| (filter(left), filter(right)))) {
            let both = left.narrowed_to(&right);
            for (kind, version) in types.iter().flat_map(|kind| ["1", "2"].map(|version| (kind, version))) {
                let takes = |filter: &TypeFilter| filter.matches(kind, version);
                assert_eq!(both.as_ref().is_some_and(takes), takes(&left) && takes(&right), "{left:?} {right:?} {kind}@{version}");
            }
        }
    }

    #[test]
    fn types_are_compared_without_case() {
        assert!(filter("Claim.Created").matches("claim.created", "1"));
        assert!(!filter("claim.created").matches("claim.created.x", "1"));
    }

    #[test]
    fn a_prefix_takes_what_lies_below_it_and_not_itself() {
        let claims = filter("claim.*");
        assert!(claims.matches("claim.created", "1"));
        assert!(!claims.matches("claim", "1"));
        assert!(!claims.matches("claims.created", "1"));
    }

    #[test]
    fn a_version_narrows() {
        let second = filter("claim.created@2,policy.*@1.0.0");
        assert!(second.matches("claim.created", "2"));
        assert!(!second.matches("claim.created", "1"));
        assert!(second.matches("policy.bound", "1.0.0"));
    }

    #[test]
    fn own_events_reach_only_filters_that_name_them() {
        assert!(!TypeFilter::default().matches("lutine.delivery.exhausted", "1"));
        assert!(TypeFilter::default().matches("claim.created", "1"));
        assert!(filter("lutine.*").matches("lutine.delivery.exhausted", "1"));
    }

    #[test]
    fn equal_filters_have_equal_texts() {
        assert_eq!(filter("b,a.*,B").canonical(), filter("A.*,b").canonical());
        assert_ne!(filter("a").canonical(), filter("a.*").canonical());
    }

    #[test]
    fn bad_entries_are_named() {
        for list in ["", "a,,b", "*", "a*", "a b", "a@", "a.*.b", ".*"] {
            assert!(TypeFilter::parse_list(list).is_err(), "{list}");
        }
        let many = (0..=100).map(|number| format!("t{number}")).collect::<Vec<_>>().join(",");
        assert_eq!(TypeFilter::parse_list(&many), Err(ParseTypeFilterError::TooMany));
    }
}
