//! The members of a JSON object in their order, each with its source text.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of an object; names may come twice.
pub(super) struct Members<'a>(pub Vec<(Cow<'a, str>, &'a str)>);

/// A name, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collector;

        impl<'de> Visitor<'de> for Collector {
            type Value = Vec<(Cow<'de, str>, &'de str)>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut members = Vec::new();
                while let Some((Name(name), value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
                    members.push((name, value.get()));
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(Collector).map(Members)
    }
}

impl<'a> Members<'a> {
    /// The members of the object that `text` is; none of anything else.
    pub fn of(text: &'a str) -> Self {
        serde_json::from_str(text).unwrap_or(Self(Vec::new()))
    }

    /// The source text of the last member with this name, unless it is `null`.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| *value).filter(|value| *value != "null")
    }

    /// The member as words: a string's text, or a number as it is written.
    pub fn words(&self, name: &str) -> Option<String> {
        let value = self.get(name)?;
        match serde_json::from_str(value).ok()? {
            serde_json::Value::String(text) => Some(text),
            serde_json::Value::Number(_) => Some(value.to_owned()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_order_their_repeats_and_their_source() {
        let members = Members::of(r#" { "a" : 1.50, "\u0062":{ "x": [] }, "a":null, "c":"\"", "n": 1e3} "#);
        let found: Vec<_> = members.0.iter().map(|(name, value)| (name.as_ref(), *value)).collect();
        assert_eq!(found, [("a", "1.50"), ("b", r#"{ "x": [] }"#), ("a", "null"), ("c", r#""\"""#), ("n", "1e3")]);
        assert_eq!((members.get("a"), members.get("b"), members.get("z")), (None, Some(r#"{ "x": [] }"#), None));
        assert_eq!((members.words("c").as_deref(), members.words("n").as_deref(), members.words("b")), (Some("\""), Some("1e3"), None));
        assert!(Members::of("[1]").0.is_empty() && Members::of("{").0.is_empty());
    }
}
