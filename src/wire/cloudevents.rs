//! CloudEvents 1.0.2 that come in, in the JSON event format (structured and batched) and in HTTP's binary mode.
//!
//! Data must be JSON, and is kept byte for byte. `time` becomes the event's time. `id`, `source`, `subject`, `dataschema`
//! and extensions become members of the metadata, all of them texts, so that an event is the same in every mode.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::json::{Kind, ScanError, ScanErrorKind, Scanner, Value};
use super::publish::{EMPTY_OBJECT, Refusal, elements, pointer_to, scan_refusal, utf8};
use crate::domain::event::{DedupeKey, EventLimits, EventVersion, NewEvent};
use crate::domain::nearest::nearest;
use crate::domain::text::escape_into;

/// The content type of one event in the structured mode.
pub const STRUCTURED: &str = "application/cloudevents+json";
/// The content type of a batch.
pub const BATCHED: &str = "application/cloudevents-batch+json";
/// What the headers of attributes begin with in the binary mode.
pub const HEADER_PREFIX: &str = "ce-";

/// The version of the specification that is understood; patch releases do not change it (Spec 1.0.2, "specversion").
const SPEC_VERSION: &str = "1.0";
/// Attributes that the specification itself defines.
const ATTRIBUTES: [&str; 8] = ["id", "source", "specversion", "type", "datacontenttype", "dataschema", "subject", "time"];
/// Attributes that become members of the metadata, before the extensions.
const KEPT: [&str; 4] = ["id", "source", "subject", "dataschema"];

/// Where attributes stand, for refusals that name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Json,
    Headers,
}

impl Mode {
    fn refuse(self, code: &'static str, name: &str, reason: &str) -> Refusal {
        match self {
            Self::Json => Refusal::of(code, &pointer_to(name), format!("`{name}` {reason}")),
            Self::Headers => Refusal { code, pointer: None, detail: format!("the header `{HEADER_PREFIX}{name}` {reason}"), offset: None },
        }
    }
}

/// Attributes as text, in the canonical form of their types (Spec 1.0.2, "Type System").
type Attributes = BTreeMap<String, String>;

/// Whether a content type says that the data is JSON in UTF-8.
#[must_use]
pub fn is_json(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
    let is_utf8 = parts.filter_map(|parameter| parameter.split_once('=')).all(|(name, value)| {
        let value = value.trim().trim_matches('"');
        !name.trim().eq_ignore_ascii_case("charset") || value.eq_ignore_ascii_case("utf-8") || value.eq_ignore_ascii_case("utf8")
    });
    let subtype = media_type.split_once('/').map(|(_, subtype)| subtype);
    is_utf8 && subtype.is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json"))
}

/// Reads the body of the structured mode.
///
/// # Errors
/// The first thing that is wrong.
pub fn parse_structured(body: &[u8], limits: &EventLimits) -> Result<NewEvent, Refusal> {
    parse_object(utf8(body)?, 0, limits)
}

/// Reads the body of the batched mode: each event for itself.
///
/// # Errors
/// What stops the whole batch: it is not UTF-8, not an array, broken between its events, or has more than `events_max`.
pub fn parse_batch(body: &[u8], limits: &EventLimits, events_max: usize) -> Result<Vec<Result<NewEvent, Refusal>>, Refusal> {
    elements(utf8(body)?, "a batch is a JSON array of CloudEvents", limits, events_max, parse_object)
}

/// Reads the binary mode: `headers` are the names behind the prefix, in lower case, and values; the body is JSON or empty.
///
/// # Errors
/// The first thing that is wrong.
pub fn parse_binary<'a>(
    headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    body: &[u8],
    limits: &EventLimits,
) -> Result<NewEvent, Refusal> {
    let mut attributes = Attributes::new();
    for (name, value) in headers {
        check_name(Mode::Headers, name)?;
        if name == "datacontenttype" {
            return Err(Mode::Headers.refuse("invalid_attribute", name, "is not used; `Content-Type` says what the data is"));
        }
        let text = header_text(value).ok_or_else(|| {
            Mode::Headers.refuse("invalid_attribute", name, "is not percent-encoded UTF-8 (CloudEvents HTTP binding, 3.1.3.2)")
        })?;
        if attributes.insert(name.to_owned(), text).is_some() {
            return Err(Mode::Headers.refuse("repeated_member", name, "is there twice"));
        }
    }
    let text = utf8(body)?;
    let payload = if text.trim_matches([' ', '\t', '\r', '\n']).is_empty() {
        EMPTY_OBJECT
    } else {
        let refused = |error: ScanError| scan_refusal(&error, text, 0, limits.depth_max);
        let mut scanner = Scanner::new(text, limits.depth_max);
        let value = scanner.value(0).map_err(refused)?;
        scanner.end().map_err(refused)?;
        value.source
    };
    build(Mode::Headers, &attributes, payload.to_owned(), None, limits)
}

fn check_name(mode: Mode, name: &str) -> Result<(), Refusal> {
    if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
        return Ok(());
    }
    let known = nearest(name, ATTRIBUTES.into_iter().chain(["data", "data_base64"]));
    let hint = known.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
    Err(mode.refuse("unknown_member", name, &format!("is no attribute: their names are lower-case letters and digits{hint}")))
}

/// The value of a header: quotes are taken off, then percent-encoding is undone once (HTTP binding 1.0.2, 3.1.3.2).
fn header_text(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?.trim();
    let mut unquoted = Vec::with_capacity(text.len());
    match text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) => {
            let mut bytes = inner.bytes();
            while let Some(byte) = bytes.next() {
                unquoted.push(if byte == b'\\' { bytes.next()? } else { byte });
            }
        }
        None => unquoted.extend_from_slice(text.as_bytes()),
    }
    let mut decoded = Vec::with_capacity(unquoted.len());
    let mut rest = unquoted.as_slice();
    while let Some((first, behind)) = rest.split_first() {
        rest = if *first == b'%' {
            let (digits, behind) = behind.split_at_checked(2)?;
            let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
            decoded.push(u8::from_str_radix(digits, 16).ok()?);
            behind
        } else {
            decoded.push(*first);
            behind
        };
    }
    String::from_utf8(decoded).ok()
}

/// One event of the JSON event format; `base` bytes of the body come before it.
fn parse_object(text: &str, base: usize, limits: &EventLimits) -> Result<NewEvent, Refusal> {
    let refused = |error: ScanError| scan_refusal(&error, text, base, limits.depth_max);
    // The attributes around the data are one container more than the data itself.
    let mut scanner = Scanner::new(text, limits.depth_max + 1);
    if !scanner.take(b'{') {
        let scanned = scanner.value(0).map_err(refused)?;
        let detail = "a CloudEvent is a JSON object with `specversion`, `id`, `source` and `type`".to_owned();
        return Err(Refusal { code: "not_an_object", pointer: None, detail, offset: Some(base + scanned.offset) });
    }
    let mut attributes = Attributes::new();
    let (mut data, mut data_base64) = (None, None);
    let mut seen = std::collections::BTreeSet::new();
    let mut has_more = !scanner.take(b'}');
    while has_more {
        let name = scanner.value(1).map_err(refused)?;
        let Some(name_text) = name.text() else {
            return Err(refused(ScanError { kind: ScanErrorKind::Syntax("a member name in double quotes"), offset: name.offset }));
        };
        scanner.require(b':', "`:`").map_err(refused)?;
        let value = scanner.value(1).map_err(refused)?;
        let at = |refusal: Refusal| Refusal { offset: Some(base + name.offset), ..refusal };
        if !seen.insert(name_text.clone()) {
            return Err(at(Mode::Json.refuse("repeated_member", &name_text, "is there twice")));
        }
        // Null stands for an attribute that is not there (JSON event format 1.0.2, 2.2).
        let is_there = value.kind != Kind::Null;
        match name_text.as_ref() {
            "data" => data = Some(value).filter(|_| is_there),
            "data_base64" => data_base64 = Some(value).filter(|_| is_there),
            other => {
                check_name(Mode::Json, other).map_err(at)?;
                if is_there {
                    attributes.insert(other.to_owned(), attribute_text(other, &value).map_err(at)?);
                }
            }
        }
        has_more = scanner.take(b',');
        if !has_more {
            scanner.require(b'}', "`,` or `}`").map_err(refused)?;
        }
    }
    scanner.end().map_err(refused)?;
    let is_of_json = attributes.get("datacontenttype").is_none_or(|content_type| is_json(content_type));
    if !is_of_json && (data.is_some() || data_base64.is_some()) {
        let reason = "says that the data is not JSON in UTF-8, and only such data can be kept";
        return Err(Mode::Json.refuse("unsupported_data_content_type", "datacontenttype", reason));
    }
    let (payload, pointer) = match (data, data_base64) {
        (None, None) => (EMPTY_OBJECT.to_owned(), "/data"),
        (Some(data), None) => (data.source.to_owned(), "/data"),
        (None, Some(encoded)) => (decoded_data(&encoded, limits)?, "/data_base64"),
        (Some(_), Some(_)) => {
            let detail = "an event has `data` or `data_base64`, not both";
            return Err(Refusal::of("invalid_member", "/data_base64", detail));
        }
    };
    build(Mode::Json, &attributes, payload, Some(pointer), limits)
}

/// The canonical text of an attribute's value.
fn attribute_text(name: &str, value: &Value<'_>) -> Result<String, Refusal> {
    if let Some(text) = value.text() {
        return Ok(text.into_owned());
    }
    let is_whole = value.kind == Kind::Number && value.source.parse::<i32>().is_ok();
    if !ATTRIBUTES.contains(&name) && (is_whole || value.kind == Kind::Boolean) {
        return Ok(value.source.to_owned());
    }
    let reason = if ATTRIBUTES.contains(&name) { "must be a text" } else { "must be a text, true, false, or a whole number of 32 bits" };
    Err(Mode::Json.refuse("invalid_attribute", name, reason))
}

/// JSON text that came in base64.
fn decoded_data(encoded: &Value<'_>, limits: &EventLimits) -> Result<String, Refusal> {
    let wrong = |detail: String| Refusal::of("invalid_payload", "/data_base64", detail);
    let text = encoded.text().ok_or_else(|| wrong("`data_base64` must be a text".to_owned()))?;
    let bytes = STANDARD.decode(text.as_bytes()).map_err(|error| wrong(format!("`data_base64` is not base64: {error}")))?;
    let inside = |refusal: Refusal| Refusal {
        pointer: Some("/data_base64".to_owned()),
        detail: format!("the data in `data_base64`: {}", refusal.detail),
        ..refusal
    };
    let text = utf8(&bytes).map_err(inside)?;
    let refused = |error: ScanError| inside(scan_refusal(&error, text, 0, limits.depth_max));
    let mut scanner = Scanner::new(text, limits.depth_max);
    let value = scanner.value(0).map_err(refused)?;
    scanner.end().map_err(refused)?;
    Ok(value.source.to_owned())
}

fn build(
    mode: Mode,
    attributes: &Attributes,
    payload: String,
    payload_pointer: Option<&str>,
    limits: &EventLimits,
) -> Result<NewEvent, Refusal> {
    let required = |name: &'static str| match attributes.get(name).map(String::as_str) {
        None => Err(mode.refuse("missing_member", name, "is missing")),
        Some("") => Err(mode.refuse("invalid_attribute", name, "is empty")),
        Some(text) => Ok(text),
    };
    let spec_version = required("specversion")?;
    if spec_version != SPEC_VERSION {
        return Err(mode.refuse("unsupported_specversion", "specversion", &format!("is `{spec_version}`; `{SPEC_VERSION}` is understood")));
    }
    let (id, source) = (required("id")?, required("source")?);
    if source.chars().any(|letter| letter.is_whitespace() || letter.is_control()) {
        return Err(mode.refuse("invalid_attribute", "source", "is a URI reference, which has no white space"));
    }
    let kind = required("type")?.parse().map_err(|error| mode.refuse("invalid_type", "type", &format!("cannot be kept: {error}")))?;
    let occurred_at = attributes.get("time").map(|time| time.parse()).transpose();
    let occurred_at = occurred_at.map_err(|error| mode.refuse("invalid_occurred_at", "time", &format!("is {error}")))?;
    if payload.len() > limits.payload_bytes_max {
        let detail = format!("the data has {} bytes of text, {} are allowed", payload.len(), limits.payload_bytes_max);
        return Err(Refusal { code: "payload_too_large", pointer: payload_pointer.map(str::to_owned), detail, offset: None });
    }
    let metadata = metadata_of(attributes);
    if metadata.len() > limits.metadata_bytes_max {
        let detail = format!("the attributes have {} bytes as JSON text, {} are allowed", metadata.len(), limits.metadata_bytes_max);
        return Err(Refusal { code: "metadata_too_large", pointer: None, detail, offset: None });
    }
    let dedupe_key = Some(dedupe_key(source, id)?);
    Ok(NewEvent { kind, version: EventVersion::default(), payload, metadata, dedupe_key, references: None, occurred_at })
}

/// The attributes that are kept as a JSON object: those of the specification, then the extensions by name.
fn metadata_of(attributes: &Attributes) -> String {
    let kept = KEPT.into_iter().filter_map(|name| attributes.get(name).map(|value| (name, value)));
    let extensions = attributes.iter().filter(|(name, _)| !ATTRIBUTES.contains(&name.as_str()));
    let mut out = vec![b'{'];
    for (place, (name, value)) in kept.chain(extensions.map(|(name, value)| (name.as_str(), value))).enumerate() {
        out.extend_from_slice(if place == 0 { b"\"" } else { b",\"" });
        escape_into(&mut out, name);
        out.extend_from_slice(b"\":\"");
        escape_into(&mut out, value);
        out.push(b'"');
    }
    out.push(b'}');
    String::from_utf8(out).unwrap_or_default()
}

/// The dedupe key of `source` and `id`, which together name an event (Spec 1.0.2, "id"): joined by a space, which a source
/// has none of. When that is too long, `sha256:` and the digest of it in hexadecimal digits, which has no space.
fn dedupe_key(source: &str, id: &str) -> Result<DedupeKey, Refusal> {
    let joined = format!("{source} {id}");
    let key = if joined.len() <= DedupeKey::BYTES_MAX {
        joined
    } else {
        let digits: String = Sha256::digest(joined.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{digits}")
    };
    key.parse().map_err(|_| Refusal {
        code: "invalid_dedupe_key",
        pointer: None,
        detail: "`source` and `id` name no event".to_owned(),
        offset: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"specversion":"1.0","id":"A-1","source":"/claims","type":"com.acme.claim","time":"2026-11-22T10:30:00.5+01:00","subject":"c/7","traceparent":"00-ab","n":-7,"ok":true,"gone":null,"datacontenttype":"application/json; charset=utf-8","data": { "a" : 1.00 } }"#;

    fn parse(body: &str) -> Result<NewEvent, Refusal> {
        parse_structured(body.as_bytes(), &EventLimits::default())
    }

    fn binary(headers: &[(&str, &str)], body: &str) -> Result<NewEvent, Refusal> {
        parse_binary(headers.iter().map(|(name, value)| (*name, value.as_bytes())), body.as_bytes(), &EventLimits::default())
    }

    fn with(member: &str) -> String {
        format!(r#"{{"specversion":"1.0","id":"1","source":"s","type":"t",{member}}}"#)
    }

    #[test]
    fn an_event_is_the_same_in_every_mode() {
        let structured = parse(EVENT).unwrap();
        assert_eq!(structured.payload, r#"{ "a" : 1.00 }"#);
        assert_eq!(structured.metadata, r#"{"id":"A-1","source":"/claims","subject":"c/7","n":"-7","ok":"true","traceparent":"00-ab"}"#);
        assert_eq!(structured.occurred_at.unwrap().to_string(), "2026-11-22T09:30:00.500000Z");
        assert_eq!((structured.kind.as_str(), structured.version.as_str()), ("com.acme.claim", "1"));
        assert_eq!(structured.dedupe_key.as_ref().unwrap().as_str(), "/claims A-1");
        let headers = [
            ("specversion", "1.0"),
            ("id", "A%2D1"),
            ("source", "/claims"),
            ("type", "com.acme.claim"),
            ("time", "2026-11-22T10:30:00.5+01:00"),
            ("subject", "\"c/7\""),
            ("traceparent", "00-ab"),
            ("n", "-7"),
            ("ok", "true"),
        ];
        assert_eq!(binary(&headers, " { \"a\" : 1.00 }\n"), Ok(structured.clone()));
        let batch = parse_batch(format!("[{EVENT}, 7]").as_bytes(), &EventLimits::default(), 2).unwrap();
        assert_eq!(batch[0], Ok(structured));
        assert_eq!(batch[1].as_ref().unwrap_err().code, "not_an_object");
        let too_many = parse_batch(b"[1,2,3]", &EventLimits::default(), 2).unwrap_err();
        assert_eq!(too_many.code, "batch_too_large");
    }

    #[test]
    fn data_is_json_however_it_comes() {
        let payload = |member: &str| parse(&with(member)).unwrap().payload;
        assert_eq!(payload(r#""data":"text""#), r#""text""#);
        assert_eq!(payload(r#""data":null"#), "{}");
        assert_eq!(payload(r#""n":1"#), "{}");
        assert_eq!(payload(r#""data":[1,{"a":1,"a":2}]"#), r#"[1,{"a":1,"a":2}]"#);
        assert_eq!(payload(r#""data_base64":"eyAiw6UiOiAxIH0=","datacontenttype":"text/json""#), r#"{ "å": 1 }"#);
        assert_eq!(payload(r#""data":1,"datacontenttype":"application/vnd.acme+json""#), "1");
        assert_eq!(payload(r#""datacontenttype":"application/xml""#), "{}");
    }

    #[test]
    fn mistakes_are_named_with_their_pointer_or_their_header() {
        let code = |body: &str| {
            let refusal = parse(body).unwrap_err();
            (refusal.code, refusal.pointer.unwrap_or_default())
        };
        let is = |code, pointer: &str| (code, pointer.to_owned());
        assert_eq!(code("{}"), is("missing_member", "/specversion"));
        assert_eq!(code(r#"{"specversion":"0.3"}"#), is("unsupported_specversion", "/specversion"));
        assert_eq!(code(r#"{"specversion":"1.0","source":"s","type":"t"}"#), is("missing_member", "/id"));
        assert_eq!(code(r#"{"specversion":"1.0","id":"","source":"s","type":"t"}"#), is("invalid_attribute", "/id"));
        assert_eq!(code(r#"{"specversion":"1.0","id":"1","source":"a b","type":"t"}"#), is("invalid_attribute", "/source"));
        assert_eq!(code(r#"{"specversion":"1.0","id":"1","source":"s","type":"a/b"}"#), is("invalid_type", "/type"));
        assert_eq!(code(r#"{"specversion":"1.0","id":7,"source":"s","type":"t"}"#), is("invalid_attribute", "/id"));
        assert_eq!(code(&with(r#""time":"now""#)), is("invalid_occurred_at", "/time"));
        assert_eq!(code(&with(r#""dataContentType":"a""#)), is("unknown_member", "/dataContentType"));
        assert_eq!(code(&with(r#""a/b":"a""#)), is("unknown_member", "/a~1b"));
        assert_eq!(code(&with(r#""id":"2""#)), is("repeated_member", "/id"));
        assert_eq!(code(&with(r#""x":1.5"#)), is("invalid_attribute", "/x"));
        assert_eq!(code(&with(r#""x":3000000000"#)), is("invalid_attribute", "/x"));
        assert_eq!(code(&with(r#""x":{}"#)), is("invalid_attribute", "/x"));
        assert_eq!(code(&with(r#""data":1,"data_base64":"MQ==""#)), is("invalid_member", "/data_base64"));
        assert_eq!(code(&with(r#""data_base64":"!""#)), is("invalid_payload", "/data_base64"));
        assert_eq!(code(&with(r#""data_base64":"ew==""#)), is("invalid_json", "/data_base64"));
        assert_eq!(
            code(&with(r#""data":"<a/>","datacontenttype":"application/xml""#)),
            is("unsupported_data_content_type", "/datacontenttype")
        );
        assert_eq!(code(&with(r#""data":1,"datacontenttype":"application/json; charset=latin1""#)).0, "unsupported_data_content_type");
        assert!(parse(&with(r#""dataContentType":"a""#)).unwrap_err().detail.ends_with("did you mean `datacontenttype`?"));
        let broken = parse("{\"id\":\"1\",\n\"data\": }").unwrap_err();
        assert_eq!((broken.code, broken.offset), ("invalid_json", Some(19)));
        let detail = |headers: &[(&str, &str)]| binary(headers, "1").unwrap_err().detail;
        assert_eq!(detail(&[]), "the header `ce-specversion` is missing");
        assert_eq!(
            detail(&[("specversion", "1.0"), ("id", "%zz")]),
            "the header `ce-id` is not percent-encoded UTF-8 (CloudEvents HTTP binding, 3.1.3.2)"
        );
        assert_eq!(detail(&[("specversion", "1.0"), ("specversion", "1.0")]), "the header `ce-specversion` is there twice");
        assert!(detail(&[("trace-id", "1")]).starts_with("the header `ce-trace-id` is no attribute"));
    }

    #[test]
    fn limits_hold_for_the_data_and_for_the_attributes() {
        let limits = EventLimits { payload_bytes_max: 4, metadata_bytes_max: 40, depth_max: 2, ..EventLimits::default() };
        let code = |member: &str| parse_structured(with(member).as_bytes(), &limits).map(|_| ()).map_err(|refusal| refusal.code);
        assert_eq!(code(r#""data":1234"#), Ok(()));
        assert_eq!(code(r#""data":12345"#), Err("payload_too_large"));
        assert_eq!(code(r#""data":[[]]"#), Ok(()));
        assert_eq!(code(r#""data":[[[]]]"#), Err("too_deep"));
        assert_eq!(code(r#""x":"12345678""#), Ok(()));
        assert_eq!(code(r#""x":"123456789012345678""#), Err("metadata_too_large"));
    }

    #[test]
    fn source_and_id_make_one_key_that_no_other_pair_makes() {
        let key = |source: &str, id: &str| dedupe_key(source, id).unwrap().as_str().to_owned();
        assert_eq!(key("a", "b c"), "a b c");
        assert_ne!(key("a", "bc"), key("ab", "c"));
        let longest = "x".repeat(254);
        assert_eq!(key(&longest, "1"), format!("{longest} 1"));
        let hashed = key(&longest, "12");
        assert!(hashed.starts_with("sha256:") && hashed.len() == 71 && !hashed.contains(' '), "{hashed}");
        assert_ne!(hashed, key(&longest, "13"));
    }
}
