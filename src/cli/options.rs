//! Readers of option values: each says what is wrong and what is allowed.

use std::io::Read;
use std::str::FromStr;

use clap::Args;

use super::failure::Failure;
use crate::domain::company::Slug;
use crate::domain::filter::{ParseTypeFilterError, TypeFilter};
use crate::domain::key::Bucket;
use crate::domain::time::Timestamp;

/// The option that says for which company a command works.
#[derive(Debug, Args)]
pub struct CompanyOption {
    /// The company, by number or slug; not needed when there is only one, and not taken over the network, where the key decides
    #[arg(long, value_name = "ID-OR-SLUG", value_parser = company_name)]
    pub company: Option<String>,
}

/// The text as it was typed, when it is a `T`.
pub fn checked<T: FromStr>(text: &str) -> Result<String, T::Err> {
    T::from_str(text).map(|_| text.to_owned())
}

/// The number or the slug of a company.
pub fn company_name(text: &str) -> Result<String, String> {
    let is_name = text.parse::<Slug>().is_ok();
    if is_name { Ok(text.to_owned()) } else { Err("a company is named by its number, or by its slug of a-z, 0-9 and -".to_owned()) }
}

/// A filter by types, as the API takes it.
pub fn type_list(text: &str) -> Result<String, ParseTypeFilterError> {
    TypeFilter::parse_list(text).map(|_| text.to_owned())
}

/// The number of an event.
pub fn event_id(text: &str) -> Result<u64, &'static str> {
    text.parse().map_err(|_| "the id of an event is a whole number such as 1042")
}

/// Where a list begins.
pub fn origin(text: &str) -> Result<String, String> {
    if matches!(text, "oldest" | "latest") || text.parse::<Timestamp>().is_ok() {
        return Ok(text.to_owned());
    }
    Err("it is oldest, latest, or an RFC 3339 date-time such as 2026-11-22T10:30:00Z".to_owned())
}

/// A day, which stands for its first moment in UTC, or a date-time.
pub fn expiry(text: &str) -> Result<String, String> {
    let date_time = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    match date_time.parse::<Timestamp>() {
        Ok(_) => Ok(date_time),
        Err(_) => Err("it is a day such as 2027-01-31, or an RFC 3339 date-time such as 2027-01-31T12:00:00Z".to_owned()),
    }
}

/// How many calls of a bucket a key has in a minute.
pub fn rate(text: &str) -> Result<(&'static str, u32), String> {
    const ALLOWED: &str = "it is read=N, write=N or admin=N, with N calls a minute and 0 for no limit";
    let (name, number) = text.split_once('=').ok_or(ALLOWED)?;
    let bucket = [Bucket::Read, Bucket::Write, Bucket::Admin].map(Bucket::as_str).into_iter().find(|bucket| *bucket == name);
    Ok((bucket.ok_or(ALLOWED)?, number.parse().map_err(|_| ALLOWED)?))
}

/// The JSON text that an option gives in place, as `@file`, or as `-` on standard input; white space around it does not count.
///
/// # Errors
/// When it cannot be read or is not JSON.
pub fn json_text(option: &str, value: &str) -> Result<String, Failure> {
    let (name, bytes) = match value.strip_prefix('@') {
        Some(path) => {
            let bytes =
                std::fs::read(path).map_err(|error| Failure::caused(&format!("the file {path} of {option} cannot be read"), &error))?;
            (format!("the file {path} of {option}"), bytes)
        }
        None if value == "-" => {
            let mut bytes = Vec::new();
            let read = std::io::stdin().lock().read_to_end(&mut bytes);
            read.map_err(|error| Failure::caused(&format!("standard input for {option} cannot be read"), &error))?;
            (format!("standard input for {option}"), bytes)
        }
        None => (option.to_owned(), value.as_bytes().to_vec()),
    };
    let text = String::from_utf8(bytes).map_err(|error| Failure::Failed(format!("{name} is not UTF-8: {}", error.utf8_error())))?;
    match serde_json::from_str::<&serde_json::value::RawValue>(&text) {
        Ok(value) => Ok(value.get().to_owned()),
        Err(error) => Err(Failure::Failed(format!("{name} is not JSON: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_expires_with_its_first_moment() {
        assert_eq!(expiry("2027-01-31").unwrap(), "2027-01-31T00:00:00Z");
        assert_eq!(expiry("2027-01-31T12:00:00+01:00").unwrap(), "2027-01-31T12:00:00+01:00");
        for text in ["", "2027-02-30", "31.01.2027", "tomorrow", "2027-01"] {
            assert!(expiry(text).unwrap_err().contains("2027-01-31"), "{text}");
        }
    }

    #[test]
    fn a_rate_names_a_bucket_and_a_number() {
        assert_eq!(rate("write=600"), Ok(("write", 600)));
        assert_eq!(rate("read=0"), Ok(("read", 0)));
        for text in ["", "write", "write=", "write=-1", "wirte=1", "write=1.5"] {
            assert!(rate(text).unwrap_err().contains("read=N"), "{text}");
        }
    }

    #[test]
    fn a_list_begins_at_an_end_or_a_time() {
        for text in ["oldest", "latest", "2026-11-22T10:30:00Z"] {
            assert_eq!(origin(text).unwrap(), text);
        }
        assert!(origin("yesterday").is_err());
    }

    #[test]
    fn json_text_loses_the_space_around_it_and_nothing_else() {
        assert_eq!(json_text("--payload", " { \"a\": 1.50 }\n").unwrap(), "{ \"a\": 1.50 }");
        let Err(Failure::Failed(text)) = json_text("--payload", "{a:1}") else { panic!() };
        assert_eq!(text, "--payload is not JSON: key must be a string at line 1 column 2");
        let Err(Failure::Failed(text)) = json_text("--metadata", "@/nowhere/at/all") else { panic!() };
        assert!(text.starts_with("the file /nowhere/at/all of --metadata cannot be read: "), "{text}");
    }
}
