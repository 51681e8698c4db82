//! Reading the members of a JSON object one by one, with refusals that name them.

use serde_json::{Map, Value};

use super::publish::Refusal;
use crate::domain::nearest::nearest;

/// What stands in place of a secret; sent back in a change, it keeps the secret that is there.
pub(super) const MASK: &str = "***";

pub(super) type Object = Map<String, Value>;

pub(super) fn refused(pointer: &str, detail: impl Into<String>) -> Refusal {
    Refusal { code: "invalid_member", pointer: Some(pointer.to_owned()), detail: detail.into(), offset: None }
}

pub(super) fn object(body: &[u8]) -> Result<Object, Refusal> {
    object_of(body, "a subscription")
}

/// The members of a body; `what` says what they describe.
pub(super) fn object_of(body: &[u8], what: &str) -> Result<Object, Refusal> {
    let broken =
        |error: serde_json::Error| Refusal { code: "invalid_json", pointer: None, detail: format!("not JSON: {error}"), offset: None };
    match serde_json::from_slice(body).map_err(broken)? {
        Value::Object(object) => Ok(object),
        _ => Err(Refusal { code: "not_an_object", pointer: None, detail: format!("{what} is a JSON object"), offset: None }),
    }
}

pub(super) fn check_members(object: &Object, allowed: &[&str], pointer: &str) -> Result<(), Refusal> {
    match object.keys().find(|name| !allowed.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => {
            let hint = nearest(name, allowed.iter().copied()).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
            let at = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
            Err(Refusal { code: "unknown_member", pointer: Some(at), detail: format!("there is no member `{name}`{hint}"), offset: None })
        }
    }
}

pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> Result<&'a str, Refusal> {
    value.as_str().ok_or_else(|| refused(pointer, "must be a text"))
}

/// One of a few words.
pub(super) fn word<T: Copy>(value: &Value, pointer: &str, all: &[T], name: fn(T) -> &'static str) -> Result<T, Refusal> {
    let given = text(value, pointer)?;
    match all.iter().find(|known| name(**known) == given) {
        Some(found) => Ok(*found),
        None => {
            let names: Vec<&str> = all.iter().map(|known| name(*known)).collect();
            let hint = nearest(given, names.iter().copied()).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
            Err(refused(pointer, format!("`{given}` is none of {}{hint}", names.join(", "))))
        }
    }
}

pub(super) fn whole(value: &Value, pointer: &str, least: u64, most: u64) -> Result<u64, Refusal> {
    let number = value.as_u64().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| refused(pointer, format!("must be a whole number from {least} to {most}")))
}

pub(super) fn flag(value: &Value, pointer: &str) -> Result<bool, Refusal> {
    value.as_bool().ok_or_else(|| refused(pointer, "must be true or false"))
}

/// Seconds, fractions allowed, as milliseconds.
pub(super) fn seconds(value: &Value, pointer: &str, least: f64, most: f64) -> Result<u64, Refusal> {
    match value.as_f64() {
        Some(seconds) if (least..=most).contains(&seconds) => Ok((seconds * 1000.0).round() as u64),
        _ => Err(refused(pointer, format!("must be a number of seconds from {least} to {most}"))),
    }
}

/// A member that must be there.
pub(super) fn missing(pointer: &str, name: &str) -> Refusal {
    Refusal { code: "missing_member", ..refused(pointer, format!("the member `{name}` is missing")) }
}

/// A secret as it is given; the mask stands for the one that is kept.
pub(super) fn secret(given: String, kept: Option<&String>, pointer: &str) -> Result<String, Refusal> {
    match kept {
        _ if given != MASK => Ok(given),
        Some(kept) => Ok(kept.clone()),
        None => Err(refused(pointer, format!("`{MASK}` stands for the secret that is kept, and there is none of this kind"))),
    }
}
