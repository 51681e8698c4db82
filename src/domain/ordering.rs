//! What events of one order have in common: the value at their subscription's ordering key.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use sha2::{Digest, Sha256};

use super::subscription::OrderingKey;

/// Whole numbers up to here are exact in a 64-bit float.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// 128 bits that stand for one value at one ordering key; equal ones are the same order.
///
/// A part of the SHA-256 of pointer and value: two values never meet by accident, nor by anybody's doing, and what was
/// written down means the same after a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderKey(pub u128);

impl OrderKey {
    /// The order that an event with this payload belongs to; none when it has no such value.
    ///
    /// Only a text, a number, true or false is a value. Numbers are equal as numbers (`1` and `1.0`), texts as texts,
    /// however they are escaped; a number and the text of it differ. Of members with the same name the last one counts.
    #[must_use]
    pub fn of(key: &OrderingKey, payload: &str) -> Option<Self> {
        let tokens: Vec<Cow<'_, str>> = key.as_str().split('/').skip(1).map(unescape).collect();
        let mut json = serde_json::Deserializer::from_str(payload);
        let value = At(&tokens).deserialize(&mut json).ok()??;
        let digest = Sha256::new().chain_update(key.as_str()).chain_update([0]).chain_update(value).finalize();
        digest.first_chunk().map(|half| Self(u128::from_be_bytes(*half)))
    }
}

/// A token of a pointer without its escapes (RFC 6901, section 4).
fn unescape(token: &str) -> Cow<'_, str> {
    if token.contains('~') { token.replace("~1", "/").replace("~0", "~").into() } else { token.into() }
}

/// Walks to what the tokens point at, and passes over everything else without keeping it.
struct At<'a>(&'a [Cow<'a, str>]);

impl At<'_> {
    fn scalar<E>(&self, value: impl FnOnce() -> String) -> Result<Option<String>, E> {
        Ok(self.0.is_empty().then(value))
    }
}

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for At<'_> {
    type Value = Option<String>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        self.scalar(|| value.to_string())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        self.scalar(|| value.to_string())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        self.scalar(|| value.to_string())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        let is_whole = value.fract() == 0.0 && value.abs() <= EXACT_MAX;
        self.scalar(|| if is_whole { (value as i64).to_string() } else { format!("{value:?}") })
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        self.scalar(|| format!("\"{value}"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        let Some((token, rest)) = self.0.split_first() else {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(None);
        };
        while let Some(is_named) = map.next_key_seed(Named(token))? {
            if is_named {
                found = map.next_value_seed(At(rest))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let place = self.0.split_first().and_then(|(token, rest)| Some((index(token)?, rest)));
        let mut found = None;
        for at in 0.. {
            let is_there = match place {
                Some((place, rest)) if place == at => list.next_element_seed(At(rest))?.map(|value| found = value).is_some(),
                _ => list.next_element::<IgnoredAny>()?.is_some(),
            };
            if !is_there {
                break;
            }
        }
        Ok(found)
    }
}

/// Whether a member has this name.
struct Named<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Named<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Named<'_> {
    type Value = bool;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the name of a member")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

/// A place in a list: digits without leading zeros (RFC 6901, section 4).
fn index(token: &str) -> Option<usize> {
    let is_number = token.bytes().all(|byte| byte.is_ascii_digit()) && (token == "0" || !token.starts_with('0'));
    token.parse().ok().filter(|_| is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pointer: &str, payload: &str) -> Option<OrderKey> {
        OrderKey::of(&pointer.parse().unwrap(), payload)
    }

    #[test]
    fn equal_values_are_one_order_however_they_are_written() {
        let same = [
            ("/a/b", [r#"{"a":{"b":"x\/1"}}"#, r#"{ "z" : [1], "a" : { "c": {}, "b" : "\u0078/1" } }"#]),
            ("/n", [r#"{"n":1}"#, r#"{"n":1.0}"#]),
            ("/n", [r#"{"n":-0.0}"#, r#"{"n":0}"#]),
            ("/n", [r#"{"n":100}"#, r#"{"n":1e2}"#]),
            ("/x~1y/~0", [r#"{"x/y":{"~":true}}"#, r#"{"x/y":{"~":false},"x/y":{"~":true}}"#]),
            ("/l/1", [r#"{"l":[0,"a"]}"#, r#"{"l":[{},"a",2]}"#]),
            ("/", [r#"{"":7}"#, r#"{"b":1,"":7}"#]),
        ];
        for (pointer, [left, right]) in same {
            assert!(of(pointer, left).is_some(), "{left}");
            assert_eq!(of(pointer, left), of(pointer, right), "{left} {right}");
        }
        let different = [r#"{"n":1}"#, r#"{"n":"1"}"#, r#"{"n":2}"#, r#"{"n":true}"#, r#"{"n":"true"}"#, r#"{"n":1.5}"#];
        let keys: std::collections::HashSet<_> = different.iter().map(|payload| of("/n", payload).unwrap()).collect();
        assert_eq!(keys.len(), different.len());
        assert_ne!(of("/n", r#"{"n":1,"m":1}"#), of("/m", r#"{"n":1,"m":1}"#));
    }

    #[test]
    fn what_is_no_value_is_in_no_order() {
        for payload in ["{}", "[]", "7", r#"{"n":null}"#, r#"{"n":{}}"#, r#"{"n":[1]}"#, r#"{"N":1}"#, r#"{"n":1,"n":{"n":1}}"#] {
            assert_eq!(of("/n", payload), None, "{payload}");
        }
        for (pointer, payload) in
            [("/n/a", r#"{"n":"a"}"#), ("/l/01", r#"{"l":[1,2]}"#), ("/l/-", r#"{"l":[1]}"#), ("/l/2", r#"{"l":[1]}"#)]
        {
            assert_eq!(of(pointer, payload), None, "{pointer} in {payload}");
        }
    }
}
