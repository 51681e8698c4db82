//! What a subscription changes of its profile, as it is asked for and shown.

use serde_json::{Map, Value};

use super::members::{MASK, check_members, flag, missing, refused, seconds, secret, text, word};
use super::publish::Refusal;
use crate::domain::profile::{
    BodyForm, Handshake, KeepResponse, OnExhausted, Overrides, PayloadAs, PrivateKeyPem, SignatureForm, StatusSet,
};

const OVERRIDES: [&str; 17] = [
    "body",
    "contentType",
    "signature",
    "signatureHeader",
    "successCodes",
    "lenientSuccess",
    "retryScheduleSeconds",
    "timeoutSeconds",
    "handshake",
    "cloudEventsSource",
    "cloudEventsTypePrefix",
    "payloadAs",
    "keepResponse",
    "onExhausted",
    "caBundle",
    "clientCertificate",
    "clientKey",
];

/// The most retries of a schedule.
const RETRIES_MAX: usize = 30;
/// The longest wait before one retry, in seconds.
const RETRY_SECONDS_MAX: f64 = 7.0 * 86_400.0;

/// The longest certificates, in bytes of PEM.
const PEM_BYTES_MAX: usize = 32_768;
/// The longest part of an attribute of CloudEvents, in bytes.
const ATTRIBUTE_BYTES_MAX: usize = 512;

/// Reads the member `overrides`; a masked key keeps the one of `current`.
///
/// # Errors
/// The first thing that is wrong, with its pointer.
pub(super) fn parse_overrides(value: &Value, pointer: &str, current: &Overrides) -> Result<Overrides, Refusal> {
    let object = value.as_object().ok_or_else(|| refused(pointer, "must be an object"))?;
    check_members(object, &OVERRIDES, pointer)?;
    let mut overrides = Overrides::default();
    for (name, value) in object {
        let pointer = format!("{pointer}/{name}");
        match name.as_str() {
            "body" => overrides.body = Some(word(value, &pointer, BodyForm::ALL, BodyForm::as_str)?),
            "contentType" => overrides.content_type = Some(parse_content_type(value, &pointer)?),
            "signature" => overrides.signature = Some(word(value, &pointer, SignatureForm::ALL, SignatureForm::as_str)?),
            "signatureHeader" => overrides.signature_header = Some(text(value, &pointer)?.to_owned()),
            "successCodes" => overrides.success = Some(parse_statuses(value, &pointer)?),
            "lenientSuccess" => overrides.lenient_success = Some(flag(value, &pointer)?),
            "retryScheduleSeconds" => overrides.retry_schedule_ms = Some(parse_schedule(value, &pointer)?),
            "timeoutSeconds" => overrides.timeout_ms = Some(seconds(value, &pointer, 1.0, 60.0)?),
            "payloadAs" => overrides.payload_as = Some(word(value, &pointer, PayloadAs::ALL, PayloadAs::as_str)?),
            "keepResponse" => overrides.keep_response = Some(word(value, &pointer, KeepResponse::ALL, KeepResponse::as_str)?),
            "handshake" => overrides.handshake = Some(word(value, &pointer, Handshake::ALL, Handshake::as_str)?),
            "cloudEventsSource" => overrides.cloud_events_source = Some(parse_attribute(value, &pointer, 1)?),
            "cloudEventsTypePrefix" => overrides.cloud_events_type_prefix = Some(parse_attribute(value, &pointer, 0)?),
            "onExhausted" => overrides.on_exhausted = Some(word(value, &pointer, OnExhausted::ALL, OnExhausted::as_str)?),
            "caBundle" => overrides.ca_bundle = Some(parse_pem(value, &pointer)?),
            "clientCertificate" => overrides.client_certificate = Some(parse_pem(value, &pointer)?),
            "clientKey" => {
                let kept = current.client_key.as_ref().map(|key| &key.0);
                overrides.client_key = Some(PrivateKeyPem(secret(text(value, &pointer)?.to_owned(), kept, &pointer)?));
            }
            _ => {}
        }
    }
    match (&overrides.client_certificate, &overrides.client_key) {
        (Some(_), None) => Err(missing(&format!("{pointer}/clientKey"), "clientKey")),
        (None, Some(_)) => Err(missing(&format!("{pointer}/clientCertificate"), "clientCertificate")),
        _ => Ok(overrides),
    }
}

/// A part of an attribute of CloudEvents, in visible ASCII so that it can stand in a header.
fn parse_attribute(value: &Value, pointer: &str, least: usize) -> Result<String, Refusal> {
    let attribute = text(value, pointer)?;
    let is_right = (least..=ATTRIBUTE_BYTES_MAX).contains(&attribute.len()) && attribute.bytes().all(|byte| byte.is_ascii_graphic());
    let wrong = || refused(pointer, format!("must be {least} to {ATTRIBUTE_BYTES_MAX} characters of visible ASCII without spaces"));
    if is_right { Ok(attribute.to_owned()) } else { Err(wrong()) }
}

fn parse_pem(value: &Value, pointer: &str) -> Result<String, Refusal> {
    let pem = text(value, pointer)?;
    let is_right = pem.contains("-----BEGIN CERTIFICATE-----") && pem.len() <= PEM_BYTES_MAX;
    let wrong = || refused(pointer, format!("must be certificates as PEM, at most {PEM_BYTES_MAX} bytes"));
    if is_right { Ok(pem.to_owned()) } else { Err(wrong()) }
}

fn parse_content_type(value: &Value, pointer: &str) -> Result<String, Refusal> {
    let content_type = text(value, pointer)?;
    let is_right = content_type.contains('/') && content_type.len() <= 200 && content_type.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if is_right { Ok(content_type.to_owned()) } else { Err(refused(pointer, "must be a content type such as application/json")) }
}

fn parse_statuses(value: &Value, pointer: &str) -> Result<StatusSet, Refusal> {
    let wrong = || refused(pointer, "must be a list of statuses and ranges such as [200, \"202-204\"]");
    let entries = value.as_array().filter(|entries| (1..=50).contains(&entries.len())).ok_or_else(wrong)?;
    let texts = entries.iter().map(|entry| match entry {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(wrong()),
    });
    let texts = texts.collect::<Result<Vec<String>, Refusal>>()?;
    StatusSet::parse(texts.iter().map(String::as_str)).map_err(|error| refused(pointer, error.to_string()))
}

fn parse_schedule(value: &Value, pointer: &str) -> Result<Vec<u64>, Refusal> {
    let wrong = || refused(pointer, format!("must be a list of at most {RETRIES_MAX} numbers of seconds"));
    let entries = value.as_array().filter(|entries| entries.len() <= RETRIES_MAX).ok_or_else(wrong)?;
    entries.iter().enumerate().map(|(place, entry)| seconds(entry, &format!("{pointer}/{place}"), 0.0, RETRY_SECONDS_MAX)).collect()
}

fn seconds_shape(milliseconds: u64) -> Value {
    if milliseconds.is_multiple_of(1000) { Value::from(milliseconds / 1000) } else { Value::from(milliseconds as f64 / 1000.0) }
}

/// The member `overrides` without its key.
pub(super) fn overrides_shape(overrides: &Overrides) -> Map<String, Value> {
    let mut shape = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            shape.insert(name.to_owned(), value);
        }
    };
    let statuses = |set: &StatusSet| {
        let entries = set.to_entries().into_iter();
        entries.map(|entry| entry.parse::<u16>().map_or(Value::String(entry), Value::from)).collect::<Vec<Value>>()
    };
    put("body", overrides.body.map(|form| form.as_str().into()));
    put("contentType", overrides.content_type.clone().map(Value::from));
    put("signature", overrides.signature.map(|form| form.as_str().into()));
    put("signatureHeader", overrides.signature_header.clone().map(Value::from));
    put("successCodes", overrides.success.as_ref().map(|set| statuses(set).into()));
    put("lenientSuccess", overrides.lenient_success.map(Value::from));
    put("retryScheduleSeconds", overrides.retry_schedule_ms.as_ref().map(|list| list.iter().copied().map(seconds_shape).collect()));
    put("timeoutSeconds", overrides.timeout_ms.map(seconds_shape));
    put("payloadAs", overrides.payload_as.map(|form| form.as_str().into()));
    put("keepResponse", overrides.keep_response.map(|keep| keep.as_str().into()));
    put("handshake", overrides.handshake.map(|handshake| handshake.as_str().into()));
    put("cloudEventsSource", overrides.cloud_events_source.clone().map(Value::from));
    put("cloudEventsTypePrefix", overrides.cloud_events_type_prefix.clone().map(Value::from));
    put("onExhausted", overrides.on_exhausted.map(|then| then.as_str().into()));
    put("caBundle", overrides.ca_bundle.clone().map(Value::from));
    put("clientCertificate", overrides.client_certificate.clone().map(Value::from));
    put("clientKey", overrides.client_key.as_ref().map(|_| MASK.into()));
    shape
}
