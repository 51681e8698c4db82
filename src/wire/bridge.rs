//! The bridge's shapes: the published object, and what is told about it in the terms of its clients.

use std::borrow::Cow;

use super::json::{Kind, Scanner, Value};
use super::publish::{Refusal, scan_refusal, utf8};
use crate::domain::event::{EventLimits, NewEvent};
use crate::domain::text::{escape_into, unescape};
use crate::domain::time::Timestamp;

/// Members that a published object must have, in the order in which missing ones are named.
const REQUIRED: [&str; 4] = ["eventType", "payloadVersion", "correlationId", "timestamp"];
/// A member that is kept in the metadata: brands share the tenant.
const BRAND: &str = "brand";

/// Reads a published object, which becomes the payload byte for byte. `event_type` is what the header says.
///
/// # Errors
/// What is incorrect, without the words that all refusals of a payload begin with.
pub fn parse_send(body: &[u8], event_type: &str, limits: &EventLimits) -> Result<NewEvent, String> {
    let told = |refusal: Refusal| refusal.detail;
    let text = utf8(body).map_err(told)?;
    let mut scanner = Scanner::new(text, limits.depth_max);
    let root = scanner.value(0).and_then(|root| scanner.end().map(|()| root));
    let root = root.map_err(|error| scan_refusal(&error, text, 0, limits.depth_max).detail)?;
    if root.kind != Kind::Object {
        return Err("not a JSON object".to_owned());
    }
    if root.source.len() > limits.payload_bytes_max {
        return Err(format!("it has {} bytes, {} are allowed", root.source.len(), limits.payload_bytes_max));
    }
    let mut required: [Option<Value<'_>>; REQUIRED.len()] = [None; REQUIRED.len()];
    let mut brand = None;
    for (name, value) in members(root.source) {
        let place = REQUIRED.iter().position(|required| *required == name);
        let slot = match place.and_then(|place| required.get_mut(place)) {
            Some(slot) => slot,
            None if name == BRAND => &mut brand,
            None => continue,
        };
        if slot.replace(value).is_some() {
            return Err(format!("{name} is there twice"));
        }
    }
    let is_missing = |value: &Option<Value<'_>>| value.is_none_or(|value| value.kind == Kind::Null);
    let missing: Vec<&str> = REQUIRED.into_iter().zip(&required).filter(|(_, value)| is_missing(value)).map(|(name, _)| name).collect();
    if !missing.is_empty() {
        return Err(format!("missing [{}]", missing.join(", ")));
    }
    let mut texts = REQUIRED.into_iter().zip(required).map(|(name, value)| {
        let text = value.and_then(|value| value.text()).filter(|text| !text.is_empty());
        text.ok_or_else(|| format!("{name} is not a text, or is empty"))
    });
    let mut next = || texts.next().unwrap_or(Ok(Cow::Borrowed("")));
    let (kind, version, _correlation_id, timestamp) = (next()?, next()?, next()?, next()?);
    if !kind.eq_ignore_ascii_case(event_type) {
        return Err(format!("the header Event-Type says {event_type}, eventType says {kind}"));
    }
    let metadata = match brand.filter(|brand| brand.kind != Kind::Null) {
        Some(brand) => format!(r#"{{"{BRAND}":{}}}"#, brand.source),
        None => "{}".to_owned(),
    };
    if metadata.len() > limits.metadata_bytes_max {
        return Err(format!("{BRAND} has more than {} bytes", limits.metadata_bytes_max));
    }
    Ok(NewEvent {
        kind: kind.parse().map_err(|error| format!("eventType {kind}: {error}"))?,
        version: version.parse().map_err(|error| format!("payloadVersion {version}: {error}"))?,
        payload: root.source.to_owned(),
        metadata,
        dedupe_key: None,
        references: None,
        occurred_at: Some(Timestamp::parse_lenient(&timestamp).map_err(|error| format!("timestamp {timestamp}: {error}"))?),
    })
}

/// The members of an object that has been checked.
fn members(object: &str) -> Vec<(Cow<'_, str>, Value<'_>)> {
    let mut found = Vec::new();
    let mut scanner = Scanner::new(object, usize::MAX);
    if !scanner.take(b'{') || scanner.take(b'}') {
        return found;
    }
    while let Ok(name) = scanner.value(1)
        && scanner.take(b':')
        && let Ok(value) = scanner.value(1)
    {
        found.extend(name.text().map(|name| (name, value)));
        if !scanner.take(b',') {
            break;
        }
    }
    found
}

/// The answer to a publication.
#[must_use]
pub fn sent(id: u64) -> String {
    format!(r#"{{"_id": {id}}}"#)
}

/// A payload that is incorrect.
#[must_use]
pub fn incorrect(message: &str) -> Vec<u8> {
    let mut out = br#"{"message": ""#.to_vec();
    escape_into(&mut out, message);
    out.extend_from_slice(br#"", "valid": false}"#);
    out
}

/// An error of credentials, in the words of OAuth 2.0 (RFC 6750, 3.1, and what Spring Security makes of it).
#[must_use]
pub fn credentials_error(error: &str, description: &str, scope: Option<&str>) -> Vec<u8> {
    let mut out = br#"{"error":""#.to_vec();
    escape_into(&mut out, error);
    out.extend_from_slice(br#"","error_description":""#);
    escape_into(&mut out, description);
    if let Some(scope) = scope {
        out.extend_from_slice(br#"","scope":""#);
        escape_into(&mut out, scope);
    }
    out.extend_from_slice(br#""}"#);
    out
}

/// Any other error, in the shape of Spring's error controller. `reason` is the status in words.
#[must_use]
pub fn error(now: Timestamp, (status, reason): (u16, &str), exception: Option<&str>, message: &str, path: &str) -> Vec<u8> {
    let mut out = format!(r#"{{"timestamp":"{}","status":{status},"error":"{reason}","#, spring_time(now)).into_bytes();
    if let Some(exception) = exception {
        out.extend_from_slice(format!(r#""exception":"{exception}","#).as_bytes());
    }
    out.extend_from_slice(br#""message":""#);
    escape_into(&mut out, message);
    out.extend_from_slice(br#"","path":""#);
    escape_into(&mut out, path);
    out.extend_from_slice(br#""}"#);
    out
}

/// Milliseconds, and an offset without a colon: `2017-05-05T11:32:03.535+0000`.
fn spring_time(now: Timestamp) -> String {
    let text = now.to_text();
    let milliseconds = text.get(..23).unwrap_or_default();
    format!("{}+0000", std::str::from_utf8(milliseconds).unwrap_or_default())
}

/// An event as it is received.
#[derive(Debug, Clone, Copy)]
pub struct ReceivedEvent<'a> {
    /// Its number.
    pub id: u64,
    /// Its type as published.
    pub kind: &'a str,
    /// The time of its commit.
    pub created: Timestamp,
    /// The payload as it stands in the envelope, escaped.
    pub escaped_payload: &'a [u8],
}

/// The answer to a receiver: the link to go on with, and events.
///
/// # Errors
/// The number of an event whose payload is damaged.
pub fn received<'a>(next: &str, events: impl IntoIterator<Item = ReceivedEvent<'a>>) -> Result<Vec<u8>, u64> {
    let mut out = br#"{"links":{"next":""#.to_vec();
    escape_into(&mut out, next);
    out.extend_from_slice(br#""},"meta":{},"data":["#);
    for (place, event) in events.into_iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        let payload = std::str::from_utf8(event.escaped_payload).ok().and_then(unescape).ok_or(event.id)?;
        out.extend_from_slice(format!(r#"{{"id":"_{}","type":""#, event.id).as_bytes());
        escape_into(&mut out, event.kind);
        out.extend_from_slice(format!(r#"","timestamp":"{}","attributes":"#, event.created).as_bytes());
        out.extend_from_slice(payload.as_bytes());
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECT: &str = r#"{ "eventType":"claim_updated", "payloadVersion":"1.0.0","correlationId":"70c6d351", "timestamp":"2018-04-04T15:33:58+0200","brand":{"n" : 1.0},"x":{"timestamp":1} }"#;

    fn parse(body: &str) -> Result<NewEvent, String> {
        parse_send(body.as_bytes(), "claim_updated", &EventLimits::default())
    }

    #[test]
    fn the_object_is_the_payload() {
        let event = parse(&format!(" {OBJECT}\n")).unwrap();
        assert_eq!((event.payload.as_str(), event.metadata.as_str()), (OBJECT, r#"{"brand":{"n" : 1.0}}"#));
        assert_eq!((event.kind.as_str(), event.version.as_str()), ("claim_updated", "1.0.0"));
        assert_eq!(event.occurred_at.unwrap().to_string(), "2018-04-04T13:33:58.000000Z");
        assert_eq!((event.dedupe_key, event.references), (None, None));
        assert_eq!(parse(&OBJECT.replace("brand", "brund")).unwrap().metadata, "{}");
    }

    #[test]
    fn what_is_incorrect_is_said() {
        let told = |body: &str| parse(body).unwrap_err();
        assert_eq!(told("{}"), "missing [eventType, payloadVersion, correlationId, timestamp]");
        assert_eq!(told(&OBJECT.replace(r#""70c6d351""#, "null")), "missing [correlationId]");
        assert_eq!(told(&OBJECT.replace(r#""70c6d351""#, "7")), "correlationId is not a text, or is empty");
        assert_eq!(
            told(&OBJECT.replace("claim_updated", "claim updated")),
            "the header Event-Type says claim_updated, eventType says claim updated"
        );
        assert_eq!(
            told(&OBJECT.replace("2018-04-04T15", "2018-04-04 15")),
            "timestamp 2018-04-04 15:33:58+0200: not an RFC 3339 date-time such as 2026-11-22T10:30:00Z"
        );
        assert_eq!(told(&OBJECT.replace("payloadVersion", "eventType")), "eventType is there twice");
        assert_eq!(told("[]"), "not a JSON object");
        assert_eq!(told("{"), "not JSON: expected a member name in double quotes at line 1, column 2 (offset 1)");
        assert!(told(&OBJECT.replace("1.0.0", "1 0")).starts_with("payloadVersion 1 0: a version is "));
        let limits = EventLimits { payload_bytes_max: 100, ..EventLimits::default() };
        assert_eq!(
            parse_send(OBJECT.as_bytes(), "claim_updated", &limits).unwrap_err(),
            format!("it has {} bytes, 100 are allowed", OBJECT.len())
        );
    }

    #[test]
    fn errors_are_those_of_the_clients_framework() {
        let now = "2017-05-05T11:32:03.535Z".parse().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        assert_eq!(
            text(error(now, (404, "Not Found"), None, "no \"x\"", "/a")),
            r#"{"timestamp":"2017-05-05T11:32:03.535+0000","status":404,"error":"Not Found","message":"no \"x\"","path":"/a"}"#
        );
        assert_eq!(text(incorrect("Incorrect payload, \"")), r#"{"message": "Incorrect payload, \"", "valid": false}"#);
    }
}
