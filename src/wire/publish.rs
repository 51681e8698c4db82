//! Publish requests of the Events API: from bytes to [`NewEvent`], with a refusal that says what is wrong and where.

use super::json::{self, Kind, ScanError, ScanErrorKind, Scanner, Value};
use super::references::parse_references;
use crate::domain::event::{EventLimits, NewEvent};
use crate::domain::nearest::nearest;

/// Why a request, or one event of a batch, is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Refusal {
    /// Stable name of the reason, in `snake_case`.
    pub code: &'static str,
    /// JSON pointer (RFC 6901) to the member that is wrong.
    pub pointer: Option<String>,
    /// A sentence for the caller.
    pub detail: String,
    /// Bytes from the start of the body, where that helps.
    pub offset: Option<usize>,
}

impl Refusal {
    pub(super) fn of(code: &'static str, pointer: &str, detail: impl Into<String>) -> Self {
        Self { code, pointer: Some(pointer.to_owned()), detail: detail.into(), offset: None }
    }
}

/// The forms in which a batch may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchForm {
    /// One JSON array.
    JsonArray,
    /// One event a line (`application/x-ndjson`).
    NdJson,
}

/// Members of a publish request.
const MEMBERS: [&str; 7] = ["type", "payload", "metadata", "dedupeKey", "version", "references", "occurredAt"];
const REFERENCES: &str = "references";
/// Containers around the body of a snapshot, beyond those around a payload: the array, the reference, the snapshot.
const SNAPSHOT_LEVELS: usize = 3;
/// Members of a test request.
const TEST_MEMBERS: [&str; 4] = ["type", "payload", "metadata", "dedupeKey"];

/// What a member that is absent, or null, stands for.
pub(super) const EMPTY_OBJECT: &str = "{}";

pub(super) fn utf8(body: &[u8]) -> Result<&str, Refusal> {
    let bad = |offset: usize, what: &str| Refusal {
        code: "invalid_unicode",
        pointer: None,
        detail: format!("the body has {what} at offset {offset}; it must be UTF-8 without a byte-order mark"),
        offset: Some(offset),
    };
    let text = std::str::from_utf8(body).map_err(|error| bad(error.valid_up_to(), "bytes that are not UTF-8"))?;
    if text.starts_with('\u{feff}') { Err(bad(0, "a byte-order mark")) } else { Ok(text) }
}

/// A refusal of a text that is the body itself; `base` bytes of the body come before it.
pub(super) fn scan_refusal(error: &ScanError, text: &str, base: usize, depth_max: usize) -> Refusal {
    let offset = base + error.offset;
    let before = text.get(..error.offset).unwrap_or_default();
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let (code, detail) = match error.kind {
        ScanErrorKind::Syntax(expected) => {
            ("invalid_json", format!("not JSON: expected {expected} at line {line}, column {column} (offset {offset})"))
        }
        ScanErrorKind::Unicode(what) => ("invalid_unicode", format!("{what} at offset {offset}")),
        ScanErrorKind::Depth => ("too_deep", format!("nested deeper than {depth_max} levels at offset {offset}")),
    };
    Refusal { code, pointer: None, detail, offset: Some(offset) }
}

/// Reads the body of `POST /api/v1/events`.
///
/// # Errors
/// The first thing that is wrong.
pub fn parse_event(body: &[u8], limits: &EventLimits) -> Result<NewEvent, Refusal> {
    parse_text(utf8(body)?, 0, limits)
}

/// Whether a body whose first bytes these are may hold snapshots, which let it be larger than others.
///
/// What lies beside snapshots is limited like every other body, so that the first one begins within those bytes. A name
/// that is written with escapes is not recognised.
#[must_use]
pub fn may_have_snapshots(start: &[u8]) -> bool {
    const NAME: &[u8] = b"\"snapshot\"";
    start.windows(NAME.len()).any(|window| window == NAME)
}

/// As [`parse_event`]; the body may have `rest_bytes_max` beside its snapshots.
///
/// # Errors
/// The first thing that is wrong.
pub fn parse_event_beside_snapshots(body: &[u8], limits: &EventLimits, rest_bytes_max: usize) -> Result<NewEvent, Refusal> {
    let (event, snapshots) = parse_measured(utf8(body)?, 0, limits)?;
    if body.len() - snapshots > rest_bytes_max {
        let detail = format!("the body has more than {rest_bytes_max} bytes beside its snapshots");
        return Err(Refusal { code: "body_too_large", pointer: None, detail, offset: None });
    }
    Ok(event)
}

fn parse_text(text: &str, base: usize, limits: &EventLimits) -> Result<NewEvent, Refusal> {
    parse_measured(text, base, limits).map(|(event, _)| event)
}

/// An event and how many bytes of its text are snapshots.
fn parse_measured(text: &str, base: usize, limits: &EventLimits) -> Result<(NewEvent, usize), Refusal> {
    // The members around a payload are one container more than the payload itself.
    let depth_max = limits.depth_max + 1;
    let mut scanner = Scanner::new(text, depth_max);
    let members = scan_members(&mut scanner, text, base, limits, &MEMBERS)?;
    scanner.end().map_err(|error| scan_refusal(&error, text, base, limits.depth_max))?;
    build(&members, base, limits)
}

/// Reads the body of `POST /api/v1/events/test`: payload and metadata are strings that hold JSON, and are normalized.
///
/// # Errors
/// The first thing that is wrong.
pub fn parse_test_event(body: &[u8], limits: &EventLimits) -> Result<NewEvent, Refusal> {
    let text = utf8(body)?;
    let mut scanner = Scanner::new(text, limits.depth_max + 1);
    let members = scan_members(&mut scanner, text, 0, limits, &TEST_MEMBERS)?;
    scanner.end().map_err(|error| scan_refusal(&error, text, 0, limits.depth_max))?;
    for (value, name) in members.iter().zip(MEMBERS).skip(1).take(2) {
        let is_wrong = value.is_some_and(|value| !matches!(value.kind, Kind::String { .. }));
        if is_wrong {
            let code = if name == "payload" { "invalid_payload" } else { "invalid_metadata" };
            return Err(Refusal::of(code, &format!("/{name}"), format!("`{name}` must be a string that holds JSON")));
        }
    }
    let (event, _) = build(&members, 0, limits)?;
    Ok(NewEvent { payload: json::normalize(&event.payload), metadata: json::normalize(&event.metadata), ..event })
}

/// Reads the body of `POST /api/v1/events/batch`: each event for itself.
///
/// # Errors
/// What stops the whole batch: it is not UTF-8, not an array, broken between its events, or has more than `events_max`.
pub fn parse_batch(
    body: &[u8],
    form: BatchForm,
    limits: &EventLimits,
    events_max: usize,
) -> Result<Vec<Result<NewEvent, Refusal>>, Refusal> {
    const WANTED: &str = "a batch is a JSON array of events, or one event a line with content type application/x-ndjson";
    let text = utf8(body)?;
    if form == BatchForm::JsonArray {
        return elements(text, WANTED, limits, events_max, parse_text);
    }
    let mut events = Vec::new();
    let mut base = 0;
    for line in text.split('\n') {
        let event = line.strip_suffix('\r').unwrap_or(line);
        if !event.trim_matches([' ', '\t']).is_empty() {
            push_event(&mut events, parse_text(event, base, limits), events_max)?;
        }
        base += line.len() + 1;
    }
    Ok(events)
}

fn push_event<T>(events: &mut Vec<T>, event: T, events_max: usize) -> Result<(), Refusal> {
    if events.len() == events_max {
        let detail = format!("a batch has at most {events_max} events");
        return Err(Refusal { code: "batch_too_large", pointer: None, detail, offset: None });
    }
    events.push(event);
    Ok(())
}

/// The elements of a JSON array, each read for itself by `parse`, which is told how many bytes come before it; `wanted`
/// says what there should be when there is no array.
///
/// # Errors
/// What stops the whole batch.
pub(super) fn elements(
    text: &str,
    wanted: &str,
    limits: &EventLimits,
    events_max: usize,
    parse: fn(&str, usize, &EventLimits) -> Result<NewEvent, Refusal>,
) -> Result<Vec<Result<NewEvent, Refusal>>, Refusal> {
    let refused = |error: &ScanError| scan_refusal(error, text, 0, limits.depth_max);
    let mut events = Vec::new();
    let mut scanner = Scanner::new(text, limits.depth_max + 1);
    if !scanner.take(b'[') {
        return Err(Refusal { code: "invalid_json", pointer: None, detail: wanted.to_owned(), offset: Some(scanner.offset()) });
    }
    if !scanner.take(b']') {
        loop {
            scanner.skip_space();
            let start = scanner.offset();
            let element = match scanner.value(0) {
                Ok(element) => element.source,
                Err(error @ ScanError { kind: ScanErrorKind::Syntax(_), .. }) => return Err(refused(&error)),
                // Its brackets still say where it ends: it is refused by itself, as one line would be.
                Err(error) => scanner.pass_over(start).ok_or_else(|| refused(&error))?,
            };
            push_event(&mut events, parse(element, start, limits), events_max)?;
            if !scanner.take(b',') {
                scanner.require(b']', "`,` or `]`").map_err(|error| refused(&error))?;
                break;
            }
        }
    }
    scanner.end().map_err(|error| refused(&error))?;
    Ok(events)
}

/// The values of a request's members, in the order of [`MEMBERS`]; null counts as absent.
fn scan_members<'a>(
    scanner: &mut Scanner<'a>,
    text: &'a str,
    base: usize,
    limits: &EventLimits,
    allowed: &[&str],
) -> Result<[Option<Value<'a>>; MEMBERS.len()], Refusal> {
    let refused = |error: ScanError| scan_refusal(&error, text, base, limits.depth_max);
    if !scanner.take(b'{') {
        let scanned = scanner.value(0).map_err(refused)?;
        return Err(Refusal {
            code: "not_an_object",
            pointer: None,
            detail: "an event is a JSON object with a member `type`".to_owned(),
            offset: Some(base + scanned.offset),
        });
    }
    let mut members = [None; MEMBERS.len()];
    let mut seen = [false; MEMBERS.len()];
    if scanner.take(b'}') {
        return Ok(members);
    }
    loop {
        let name = scanner.value(1).map_err(refused)?;
        let Some(text) = name.text() else {
            let error = ScanError { kind: ScanErrorKind::Syntax("a member name in double quotes"), offset: name.offset };
            return Err(refused(error));
        };
        let place = allowed.iter().position(|allowed| *allowed == text);
        scanner.require(b':', "`:`").map_err(refused)?;
        // A snapshot lies three containers deeper than a payload.
        let value = if text == REFERENCES { scanner.deeper_value(1, SNAPSHOT_LEVELS) } else { scanner.value(1) }.map_err(refused)?;
        let slots = place.and_then(|place| members.get_mut(place).zip(seen.get_mut(place)));
        let Some((member, seen)) = slots else {
            let detail = no_such_member(&text, allowed);
            return Err(Refusal { offset: Some(base + name.offset), ..Refusal::of("unknown_member", &pointer_to(&text), detail) });
        };
        if std::mem::replace(seen, true) {
            let detail = format!("the member `{text}` is there twice");
            return Err(Refusal { offset: Some(base + name.offset), ..Refusal::of("repeated_member", &pointer_to(&text), detail) });
        }
        *member = (value.kind != Kind::Null).then_some(value);
        if !scanner.take(b',') {
            scanner.require(b'}', "`,` or `}`").map_err(refused)?;
            return Ok(members);
        }
    }
}

/// A JSON pointer to a member of the root (RFC 6901, 3).
pub(super) fn pointer_to(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// That a member is unknown, with the nearest one that is known.
pub(super) fn no_such_member(name: &str, allowed: &[&str]) -> String {
    let hint = nearest(name, allowed.iter().copied()).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
    format!("there is no member `{name}`{hint}")
}

fn text_of<'a>(value: &Value<'a>, code: &'static str, name: &str) -> Result<std::borrow::Cow<'a, str>, Refusal> {
    value.text().ok_or_else(|| Refusal::of(code, &format!("/{name}"), format!("`{name}` must be a string")))
}

fn build(members: &[Option<Value<'_>>; MEMBERS.len()], base: usize, limits: &EventLimits) -> Result<(NewEvent, usize), Refusal> {
    let [kind, payload, metadata, dedupe_key, version, references, occurred_at] = members;
    let kind = kind.as_ref().ok_or_else(|| Refusal::of("missing_member", "/type", "the member `type` is missing"))?;
    let kind = text_of(kind, "invalid_type", "type")?.parse();
    let dedupe_key = dedupe_key.as_ref().map(|value| text_of(value, "invalid_dedupe_key", "dedupeKey")).transpose()?;
    let version = version.as_ref().map(|value| text_of(value, "invalid_version", "version")).transpose()?;
    let occurred_at = occurred_at.as_ref().map(|value| text_of(value, "invalid_occurred_at", "occurredAt")).transpose()?;
    let refused = |code, pointer: &str, error: &dyn std::fmt::Display| Refusal::of(code, pointer, error.to_string());
    let references = references.as_ref().map(|value| parse_references(value, base, limits)).transpose()?;
    let (references, snapshots) = references.unzip();
    let event = NewEvent {
        kind: kind.map_err(|error| refused("invalid_type", "/type", &error))?,
        version: version
            .map(|text| text.parse())
            .transpose()
            .map_err(|error| refused("invalid_version", "/version", &error))?
            .unwrap_or_default(),
        payload: json_text(payload.as_ref(), "payload", limits.payload_bytes_max, limits)?,
        metadata: json_text(metadata.as_ref(), "metadata", limits.metadata_bytes_max, limits)?,
        dedupe_key: dedupe_key.map(|text| text.parse()).transpose().map_err(|error| refused("invalid_dedupe_key", "/dedupeKey", &error))?,
        references,
        occurred_at: occurred_at
            .map(|text| text.parse())
            .transpose()
            .map_err(|error| refused("invalid_occurred_at", "/occurredAt", &error))?,
    };
    Ok((event, snapshots.unwrap_or(0)))
}

/// The JSON text that a member holds: the decoded text of a string, or the source of any other value.
fn json_text(value: Option<&Value<'_>>, name: &'static str, bytes_max: usize, limits: &EventLimits) -> Result<String, Refusal> {
    let (too_large, invalid) = match name {
        "payload" => ("payload_too_large", "invalid_payload"),
        _ => ("metadata_too_large", "invalid_metadata"),
    };
    let pointer = format!("/{name}");
    let Some(value) = value else { return Ok(EMPTY_OBJECT.to_owned()) };
    let text = match value.text() {
        Some(text) => text.into_owned(),
        None => value.source.to_owned(),
    };
    if text.len() > bytes_max {
        let detail = format!("`{name}` has {} bytes of text, {bytes_max} are allowed", text.len());
        return Err(Refusal::of(too_large, &pointer, detail));
    }
    // A value that is no string has been checked with the body, and so has its depth.
    if matches!(value.kind, Kind::String { .. }) {
        json::check(&text, limits.depth_max).map_err(|error| {
            let inside = scan_refusal(&error, &text, 0, limits.depth_max);
            let code = if inside.code == "invalid_json" { invalid } else { inside.code };
            Refusal {
                code,
                pointer: Some(pointer.clone()),
                detail: format!("the text of `{name}`: {}", inside.detail),
                offset: inside.offset,
            }
        })?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<NewEvent, Refusal> {
        parse_event(body.as_bytes(), &EventLimits::default())
    }

    fn code(body: &str) -> (&'static str, Option<String>) {
        let refusal = parse(body).unwrap_err();
        (refusal.code, refusal.pointer)
    }

    fn at(pointer: &str) -> Option<String> {
        Some(pointer.to_owned())
    }

    #[test]
    fn a_string_is_decoded_and_another_value_keeps_its_source() {
        let event = parse(r#"{"type":"a.b","payload":"{\"n\": 1.00}","metadata": { "k" : 1e400 } }"#).unwrap();
        assert_eq!((event.payload.as_str(), event.metadata.as_str()), (r#"{"n": 1.00}"#, r#"{ "k" : 1e400 }"#));
        let event = parse(r#"{"type":"a","payload":null,"metadata":[ ],"version":null}"#).unwrap();
        assert_eq!((event.payload.as_str(), event.metadata.as_str(), event.version.as_str()), ("{}", "[ ]", "1"));
        assert_eq!(parse(r#"{"type":"a","payload":{"a":1,"a":2}}"#).unwrap().payload, r#"{"a":1,"a":2}"#);
    }

    #[test]
    fn every_member_is_read() {
        let event = parse(
            r#"{"dedupeKey":"k","version":"1.0.0","occurredAt":"2026-11-22T10:30:00+01:00","references":[{"referenceType":"contract","referenceId":"b","links":[]}],"type":"x"}"#,
        )
        .unwrap();
        assert_eq!(event.dedupe_key.unwrap().as_str(), "k");
        assert_eq!(event.occurred_at.unwrap().to_string(), "2026-11-22T09:30:00.000000Z");
        assert_eq!(event.references.unwrap().text, r#"[{"referenceType":"contract","referenceId":"b","links":[]}]"#);
    }

    #[test]
    fn mistakes_are_named_with_their_pointer() {
        assert_eq!(code("{}"), ("missing_member", at("/type")));
        assert_eq!(code(r#"{"type":7}"#), ("invalid_type", at("/type")));
        assert_eq!(code(r#"{"type":"a b"}"#), ("invalid_type", at("/type")));
        assert_eq!(code(r#"{"type":"a","paylod":1}"#), ("unknown_member", at("/paylod")));
        assert!(parse(r#"{"type":"a","paylod":1}"#).unwrap_err().detail.ends_with("did you mean `payload`?"));
        assert_eq!(code(r#"{"type":"a","type":"a"}"#), ("repeated_member", at("/type")));
        assert_eq!(code(r#"{"type":"a","payload":"{"}"#), ("invalid_payload", at("/payload")));
        assert_eq!(code(r#"{"type":"a","payload":""}"#), ("invalid_payload", at("/payload")));
        assert_eq!(code(r#"{"type":"a","metadata":"x"}"#), ("invalid_metadata", at("/metadata")));
        assert_eq!(code(r#"{"type":"a","dedupeKey":""}"#), ("invalid_dedupe_key", at("/dedupeKey")));
        assert_eq!(code(r#"{"type":"a","version":1}"#), ("invalid_version", at("/version")));
        assert_eq!(code(r#"{"type":"a","occurredAt":"yesterday"}"#), ("invalid_occurred_at", at("/occurredAt")));
        assert_eq!(code("[]"), ("not_an_object", None));
        let broken = parse("{\"type\":\"a\",\n \"payload\": }").unwrap_err();
        assert_eq!((broken.code, broken.offset), ("invalid_json", Some(25)));
        assert!(broken.detail.contains("line 2, column 13"), "{}", broken.detail);
    }

    #[test]
    fn unicode_faults_are_found_at_any_level() {
        assert_eq!(parse_event(b"{\"type\":\"\xff\"}", &EventLimits::default()).unwrap_err().offset, Some(9));
        assert_eq!(code("\u{feff}{}").0, "invalid_unicode");
        assert_eq!(code(r#"{"type":"a","payload":{"x":["\ud800"]}}"#).0, "invalid_unicode");
        assert_eq!(code(r#"{"type":"a","payload":"\"\\ud800\""}"#), ("invalid_unicode", at("/payload")));
        assert_eq!(code("{\"type\":\"a\",\"payload\":\"\u{feff}{}\"}"), ("invalid_unicode", at("/payload")));
    }

    #[test]
    fn limits_hold_at_below_and_above_their_value() {
        let limits = EventLimits { payload_bytes_max: 10, metadata_bytes_max: 4, depth_max: 3, ..EventLimits::default() };
        let parse = |body: &str| parse_event(body.as_bytes(), &limits).map(|_| ()).map_err(|refusal| refusal.code);
        assert_eq!(parse(r#"{"type":"a","payload":"\"12345678\""}"#), Ok(()));
        assert_eq!(parse(r#"{"type":"a","payload":"\"123456789\""}"#), Err("payload_too_large"));
        assert_eq!(parse(r#"{"type":"a","payload":"\"å234567\""}"#), Ok(()));
        assert_eq!(parse(r#"{"type":"a","metadata":1234}"#), Ok(()));
        assert_eq!(parse(r#"{"type":"a","metadata":12345}"#), Err("metadata_too_large"));
        assert_eq!(parse(r#"{"type":"a","payload":[[[]]]}"#), Ok(()));
        assert_eq!(parse(r#"{"type":"a","payload":[[[[]]]]}"#), Err("too_deep"));
        assert_eq!(parse(r#"{"type":"a","payload":"[[[]]]"}"#), Ok(()));
        assert_eq!(parse(r#"{"type":"a","payload":"[[[[]]]]"}"#), Err("too_deep"));
    }

    #[test]
    fn what_lies_beside_snapshots_is_limited_like_every_body() {
        let body = |payload: usize, snapshot: usize| {
            let (payload, snapshot) = ("p".repeat(payload), "s".repeat(snapshot));
            let snapshot = format!(r#"{{"contentType":"text/plain","body":"{snapshot}"}}"#);
            format!(
                r#"{{"type":"a","payload":["{payload}"],"references":[{{"referenceType":"c","referenceId":"1","snapshot":{snapshot}}}]}}"#
            )
        };
        let parse = |payload: usize, snapshot: usize| {
            let rest = body(0, 0).len() - r#"{"contentType":"text/plain","body":""}"#.len();
            let parsed = parse_event_beside_snapshots(body(payload, snapshot).as_bytes(), &EventLimits::default(), rest + 10);
            parsed.map(|_| ()).map_err(|refusal| refusal.code)
        };
        assert_eq!([parse(10, 0), parse(10, 5_000)], [Ok(()), Ok(())]);
        assert_eq!([parse(11, 0), parse(11, 5_000)], [Err("body_too_large"), Err("body_too_large")]);
        assert!(may_have_snapshots(body(10, 0).as_bytes()) && !may_have_snapshots(b"{\"type\":\"snapshots\"}"));
    }

    #[test]
    fn a_test_event_takes_strings_only_and_normalizes_them() {
        let parse = |body: &str| parse_test_event(body.as_bytes(), &EventLimits::default());
        let event = parse(r#"{"type":"a","payload":"{ \"b\" : 1.0,\n \"a\" : \" x \" }"}"#).unwrap();
        assert_eq!(event.payload, r#"{"b":1.0,"a":" x "}"#);
        let refused = parse(r#"{"type":"a","payload":{}}"#).unwrap_err();
        assert_eq!((refused.code, refused.pointer), ("invalid_payload", at("/payload")));
        assert_eq!(parse(r#"{"type":"a","metadata":[]}"#).unwrap_err().pointer, at("/metadata"));
        assert_eq!(parse(r#"{"type":"a","version":"2"}"#).unwrap_err().code, "unknown_member");
    }

    #[test]
    fn one_bad_event_does_not_stop_a_batch() {
        let codes = |body: &str, form| {
            let events = parse_batch(body.as_bytes(), form, &EventLimits::default(), 3)?;
            Ok(events.into_iter().map(|event| event.map_or_else(|refusal| refusal.code, |_| "ok")).collect::<Vec<_>>())
        };
        let lines = "{\"type\":\"a\"}\r\n\n{\"type\"\n{\"type\":\"b\"}";
        assert_eq!(codes(lines, BatchForm::NdJson), Ok(vec!["ok", "invalid_json", "ok"]));
        assert_eq!(codes(r#" [{"type":"a"}, 7, {"type":"b"}] "#, BatchForm::JsonArray), Ok(vec!["ok", "not_an_object", "ok"]));
        assert_eq!(codes("[]", BatchForm::JsonArray), Ok(vec![]));
        let outer = |body: &str, form| codes(body, form).map_err(|refusal: Refusal| refusal.code);
        assert_eq!(outer("[1,2,3,4]", BatchForm::JsonArray), Err("batch_too_large"));
        assert_eq!(outer("{}", BatchForm::JsonArray), Err("invalid_json"));
        assert_eq!(outer(r#"[{"type":"a"},{"type":]"#, BatchForm::JsonArray), Err("invalid_json"));
    }
}
