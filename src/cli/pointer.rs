//! `--set pointer=value`: a JSON pointer (RFC 6901) into a sample, and what is put there.

use std::str::FromStr;

use serde_json::Value;

/// One change of a sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pointer: String,
    value: Value,
}

/// A text that is no change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseChangeError {
    /// There is no `=`.
    #[error("it is a JSON pointer, `=` and a value, such as /claim/amount=1500 or /claim/note=late")]
    NoValue,
    /// It does not start with a pointer.
    #[error("a JSON pointer starts with `/`, such as /claim/amount, or is empty for the whole payload")]
    NoPointer,
}

/// A pointer that leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// A part before the last one is not there.
    #[error("there is nothing at {pointer} in the payload{}", known(.members))]
    NotThere {
        /// As far as the pointer could be followed, and the part that failed.
        pointer: String,
        /// What is there instead.
        members: Vec<String>,
    },
    /// The place is neither an object nor an array.
    #[error("{pointer} in the payload is neither an object nor an array, so nothing can be put below it")]
    NoContainer {
        /// The place.
        pointer: String,
    },
    /// The place is an array, and the part no index of it.
    #[error("{pointer} in the payload is an array of {length}: name an index up to {length}, or - to append")]
    NoIndex {
        /// The place.
        pointer: String,
        /// How many items it has.
        length: usize,
    },
}

fn known(members: &[String]) -> String {
    if members.is_empty() { String::new() } else { format!("; known there: {}", members.join(", ")) }
}

impl FromStr for Change {
    type Err = ParseChangeError;

    /// The value is read as JSON, and as text when it is none.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (pointer, value) = text.split_once('=').ok_or(ParseChangeError::NoValue)?;
        if !pointer.is_empty() && !pointer.starts_with('/') {
            return Err(ParseChangeError::NoPointer);
        }
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        Ok(Self { pointer: pointer.to_owned(), value })
    }
}

impl Change {
    /// Puts the value where the pointer says. A member that an object does not have yet is added.
    ///
    /// # Errors
    /// When the pointer leads nowhere.
    pub fn apply(&self, payload: &mut Value) -> Result<(), ChangeError> {
        let Some((parent, last)) = self.pointer.rsplit_once('/') else {
            *payload = self.value.clone();
            return Ok(());
        };
        let last = last.replace("~1", "/").replace("~0", "~");
        match find(payload, parent)? {
            Value::Object(members) => {
                members.insert(last, self.value.clone());
            }
            Value::Array(items) => {
                let length = items.len();
                let place = if last == "-" { Some(length) } else { last.parse().ok() };
                match place.filter(|place| *place <= length) {
                    Some(place) if place == length => items.push(self.value.clone()),
                    Some(place) => items.iter_mut().skip(place).take(1).for_each(|item| *item = self.value.clone()),
                    None => return Err(ChangeError::NoIndex { pointer: parent.to_owned(), length }),
                }
            }
            _ => return Err(ChangeError::NoContainer { pointer: if parent.is_empty() { "/".to_owned() } else { parent.to_owned() } }),
        }
        Ok(())
    }
}

fn find<'a>(payload: &'a mut Value, pointer: &str) -> Result<&'a mut Value, ChangeError> {
    let mut place = payload;
    let mut followed = String::new();
    for part in pointer.split('/').skip(1) {
        followed = format!("{followed}/{part}");
        let members = match &*place {
            Value::Object(members) => members.keys().map(|name| name.replace('~', "~0").replace('/', "~1")).collect(),
            _ => Vec::new(),
        };
        place = place.pointer_mut(&format!("/{part}")).ok_or(ChangeError::NotThere { pointer: followed.clone(), members })?;
    }
    Ok(place)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn apply(changes: &[&str], mut payload: Value) -> Result<Value, ChangeError> {
        for change in changes {
            change.parse::<Change>().unwrap().apply(&mut payload)?;
        }
        Ok(payload)
    }

    #[test]
    fn values_are_json_and_else_text() {
        let changed = apply(&["/a=1", "/b=late", "/c={\"d\":[true]}", "/e=\"1\"", "/f=", "/g=x=y"], json!({"a": 0})).unwrap();
        assert_eq!(changed, json!({"a": 1, "b": "late", "c": {"d": [true]}, "e": "1", "f": "", "g": "x=y"}));
    }

    #[test]
    fn pointers_lead_into_objects_and_arrays() {
        let changed = apply(&["/a/1/b=2", "/a/-=3", "/x~1y~0z=4"], json!({"a": [0, {"b": 1}]})).unwrap();
        assert_eq!(changed, json!({"a": [0, {"b": 2}, 3], "x/y~z": 4}));
        assert_eq!(apply(&["=[1]"], json!({})).unwrap(), json!([1]));
    }

    #[test]
    fn a_pointer_that_leads_nowhere_says_what_is_there() {
        let sample = json!({"claim": {"id": 1}, "items": [1, 2], "note": "n"});
        let text = |change: &str| apply(&[change], sample.clone()).unwrap_err().to_string();
        assert_eq!(text("/clam/id=2"), "there is nothing at /clam in the payload; known there: claim, items, note");
        assert_eq!(text("/note/a=2"), "/note in the payload is neither an object nor an array, so nothing can be put below it");
        assert_eq!(text("/items/3=2"), "/items in the payload is an array of 2: name an index up to 2, or - to append");
        assert_eq!(text("/items/x=2"), text("/items/3=2"));
    }

    #[test]
    fn what_is_no_change_is_refused() {
        assert_eq!("/claim".parse::<Change>(), Err(ParseChangeError::NoValue));
        assert_eq!("claim=1".parse::<Change>(), Err(ParseChangeError::NoPointer));
    }
}
