//! Query strings, read strictly: an unknown or repeated parameter is refused by name.

use std::borrow::Cow;
use std::str::FromStr;

use url::form_urlencoded;

use super::fault::Fault;
use crate::domain::nearest::nearest;

/// The parameters of one call, each at most once.
#[derive(Debug)]
pub(super) struct Query<'a> {
    values: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

fn refused(name: &str, detail: &str) -> Fault {
    Fault::bad_request("invalid_parameter", format!("the parameter `{name}` {detail}"))
}

impl<'a> Query<'a> {
    /// Reads the part behind the question mark.
    pub fn read(query: Option<&'a str>, allowed: &[&str]) -> Result<Self, Fault> {
        let mut values: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::new();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if !allowed.contains(&name.as_ref()) {
                let hint = nearest(&name, allowed.iter().copied()).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
                return Err(Fault::bad_request("unknown_parameter", format!("there is no parameter `{name}` here{hint}")));
            }
            if values.iter().any(|(known, _)| *known == name) {
                return Err(Fault::bad_request("repeated_parameter", format!("the parameter `{name}` is there twice")));
            }
            values.push((name, value));
        }
        Ok(Self { values })
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_ref())
    }

    /// A whole number within bounds.
    pub fn number<T: FromStr + PartialOrd + std::fmt::Display>(&self, name: &str, least: T, most: T) -> Result<Option<T>, Fault> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let digits_only = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse::<T>() {
            Ok(number) if digits_only && number >= least && number <= most => Ok(Some(number)),
            _ => Err(refused(name, &format!("must be a whole number from {least} to {most}"))),
        }
    }

    /// One of a few words.
    pub fn word<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<Option<T>, Fault> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => Ok(Some(*value)),
            None => {
                let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                Err(refused(name, &format!("must be `{}`", words.join("` or `"))))
            }
        }
    }

    /// A value that its own type reads.
    pub fn parsed<T>(&self, name: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<Option<T>, Fault> {
        self.text(name).map(|text| parse(text).map_err(|detail| refused(name, &format!("is wrong: {detail}")))).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(query: &str) -> (&'static str, String) {
        let fault = Query::read(Some(query), &["limit", "cursor"]).unwrap_err();
        (fault.code, fault.detail)
    }

    #[test]
    fn unknown_and_repeated_parameters_are_named() {
        assert_eq!(code("limt=1"), ("unknown_parameter", "there is no parameter `limt` here; did you mean `limit`?".to_owned()));
        assert_eq!(code("limit=1&cursor=a&limit=2"), ("repeated_parameter", "the parameter `limit` is there twice".to_owned()));
    }

    #[test]
    fn numbers_are_digits_within_bounds() {
        let number = |text: &str| Query::read(Some(text), &["n"]).unwrap().number("n", 1_u8, 200);
        assert_eq!(number("n=1"), Ok(Some(1)));
        assert_eq!(number("n=200"), Ok(Some(200)));
        assert_eq!(number(""), Ok(None));
        for wrong in ["n=0", "n=201", "n=", "n=+1", "n=-1", "n=1.0", "n= 1", "n=x"] {
            assert_eq!(number(wrong).unwrap_err().detail, "the parameter `n` must be a whole number from 1 to 200", "{wrong}");
        }
    }

    #[test]
    fn escapes_are_decoded() {
        let query = Query::read(Some("cursor=a%2Bb+c"), &["cursor"]).unwrap();
        assert_eq!(query.text("cursor"), Some("a+b c"));
    }
}
