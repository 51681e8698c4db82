//! An event as it goes out, and the bodies that profiles make of it.

use std::borrow::Cow;

use bytes::Bytes;

use crate::domain::company::CompanyId;
use crate::domain::event::EventId;
use crate::domain::profile::{BodyForm, Knobs, PayloadAs};
use crate::domain::text;
use crate::domain::time::Timestamp;

/// An event on its way to receivers.
#[derive(Debug, Clone)]
pub struct OutgoingEvent {
    /// Its number.
    pub id: EventId,
    /// Whose it is.
    pub company: CompanyId,
    /// The replay that sends it once more; 0 = none.
    pub run: u32,
    /// When it was committed.
    pub created: Timestamp,
    /// Its type, as published.
    pub kind: String,
    /// The version of its payload.
    pub version: String,
    /// Its envelope: the JSON text that the Events API serves.
    pub envelope: Bytes,
    /// Where the escaped payload begins in the envelope, behind its quote.
    pub payload_start: usize,
    /// Bytes of the escaped payload, up to its quote.
    pub payload_length: usize,
}

/// An envelope that is not laid out as the log lays them out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the envelope in the log is not what it was written as")]
pub struct EnvelopeError;

const BEFORE_METADATA: &[u8] = b"\",\"metadata\":\"";
const BEHIND_METADATA: &[u8] = b"\"}";

/// An envelope taken apart; together with the quotes between them the parts are the whole.
struct Parts<'a> {
    /// Up to the payload, without its quote.
    head: &'a [u8],
    payload: &'a [u8],
    metadata: &'a [u8],
}

impl OutgoingEvent {
    /// The body of a webhook under these knobs.
    ///
    /// # Errors
    /// When the envelope has not the layout that the log gives it.
    pub fn body(&self, knobs: &Knobs) -> Result<Bytes, EnvelopeError> {
        match (knobs.body, knobs.payload_as) {
            (BodyForm::Typed, _) => self.typed(),
            (BodyForm::Envelope, PayloadAs::String) => Ok(self.envelope.clone()),
            (BodyForm::Envelope, PayloadAs::Object) => self.opened(),
            _ => Err(EnvelopeError),
        }
    }

    fn parts(&self) -> Result<Parts<'_>, EnvelopeError> {
        let (before, rest) = self.envelope.split_at_checked(self.payload_start).ok_or(EnvelopeError)?;
        let head = before.strip_suffix(b"\"").ok_or(EnvelopeError)?;
        let (payload, rest) = rest.split_at_checked(self.payload_length).ok_or(EnvelopeError)?;
        let rest = rest.strip_prefix(BEFORE_METADATA).ok_or(EnvelopeError)?;
        let metadata = rest.strip_suffix(BEHIND_METADATA).ok_or(EnvelopeError)?;
        Ok(Parts { head, payload, metadata })
    }

    /// `{"type","timestamp","data"}` (Standard Webhooks 1.0.0).
    fn typed(&self) -> Result<Bytes, EnvelopeError> {
        let payload = self.parts()?.payload;
        let mut out = Vec::with_capacity(payload.len() + self.kind.len() + 72);
        out.extend_from_slice(b"{\"type\":\"");
        text::escape_into(&mut out, &self.kind);
        out.extend_from_slice(b"\",\"timestamp\":\"");
        out.extend_from_slice(&self.created.to_text());
        out.extend_from_slice(b"\",\"data\":");
        unescape_into(&mut out, payload)?;
        out.push(b'}');
        Ok(out.into())
    }

    /// The envelope with payload and metadata as JSON instead of strings that hold it.
    fn opened(&self) -> Result<Bytes, EnvelopeError> {
        let parts = self.parts()?;
        let mut out = Vec::with_capacity(self.envelope.len());
        out.extend_from_slice(parts.head);
        unescape_into(&mut out, parts.payload)?;
        out.extend_from_slice(b",\"metadata\":");
        unescape_into(&mut out, parts.metadata)?;
        out.push(b'}');
        Ok(out.into())
    }
}

/// Appends the bytes whose escaped form is `escaped`.
///
/// Takes the escapes of two characters, which are all that the log writes but for rare control characters; the rest is
/// [`text::unescape`]'s.
fn unescape_into(out: &mut Vec<u8>, escaped: &[u8]) -> Result<(), EnvelopeError> {
    let mut rest = escaped;
    while let Some(length) = rest.iter().position(|byte| *byte == b'\\') {
        let (plain, behind) = rest.split_at(length);
        out.extend_from_slice(plain);
        let Some(([_, letter], behind)) = behind.split_first_chunk() else { return Err(EnvelopeError) };
        let byte = match letter {
            b'"' | b'\\' | b'/' => *letter,
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'b' => 0x08,
            b'f' => 0x0c,
            _ => {
                let remaining = rest.get(length..).unwrap_or_default();
                let remaining = std::str::from_utf8(remaining).map_err(|_| EnvelopeError)?;
                let text: Cow<'_, str> = text::unescape(remaining).ok_or(EnvelopeError)?;
                out.extend_from_slice(text.as_bytes());
                return Ok(());
            }
        };
        out.push(byte);
        rest = behind;
    }
    out.extend_from_slice(rest);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::profile::{Overrides, Profile};

    fn event(payload: &str, metadata: &str) -> OutgoingEvent {
        let mut envelope =
            br#"{"id":1042,"companyId":7,"type":"Claim.created","createdUtc":"2026-11-22T10:30:00.123456Z","payload":""#.to_vec();
        let payload_start = envelope.len();
        text::escape_into(&mut envelope, payload);
        let payload_length = envelope.len() - payload_start;
        envelope.extend_from_slice(BEFORE_METADATA);
        text::escape_into(&mut envelope, metadata);
        envelope.extend_from_slice(BEHIND_METADATA);
        OutgoingEvent {
            id: EventId(1042),
            company: CompanyId(7),
            run: 0,
            created: "2026-11-22T10:30:00.123456Z".parse().unwrap(),
            kind: "Claim.created".to_owned(),
            version: "1".to_owned(),
            envelope: envelope.into(),
            payload_start,
            payload_length,
        }
    }

    fn knobs(profile: Profile, payload_as: PayloadAs) -> Knobs {
        profile.knobs(&Overrides { payload_as: Some(payload_as), ..Overrides::default() })
    }

    #[test]
    fn the_typed_body_holds_the_payload_byte_for_byte() {
        let body = event(r#"{ "a": "x\"y\\z", "n": 1.50 }"#, "{}").body(&knobs(Profile::Standard, PayloadAs::String)).unwrap();
        assert_eq!(body, r#"{"type":"Claim.created","timestamp":"2026-11-22T10:30:00.123456Z","data":{ "a": "x\"y\\z", "n": 1.50 }}"#);
    }

    #[test]
    fn the_envelope_goes_out_as_it_lies_in_the_log() {
        let event = event(r#"{"a":"x\"y"}"#, r#"{"m":1}"#);
        let body = event.body(&knobs(Profile::Envelope, PayloadAs::String)).unwrap();
        assert_eq!(body.as_ptr(), event.envelope.as_ptr());
        assert_eq!(body, event.envelope);
    }

    #[test]
    fn the_envelope_with_objects_holds_json_where_the_strings_were() {
        let body = event(r#"{"a":"x\"y"}"#, r#"{"m":[1]}"#).body(&knobs(Profile::Envelope, PayloadAs::Object)).unwrap();
        assert_eq!(
            body,
            r#"{"id":1042,"companyId":7,"type":"Claim.created","createdUtc":"2026-11-22T10:30:00.123456Z","payload":{"a":"x\"y"},"metadata":{"m":[1]}}"#
        );
    }

    #[test]
    fn an_envelope_of_another_layout_is_refused() {
        let good = event("{}", "{}");
        let wrong = [
            OutgoingEvent { payload_start: good.payload_start + 1, ..good.clone() },
            OutgoingEvent { payload_start: 0, ..good.clone() },
            OutgoingEvent { payload_start: usize::MAX, ..good.clone() },
            OutgoingEvent { payload_length: usize::MAX, ..good.clone() },
            OutgoingEvent { payload_length: good.payload_length + 1, ..good.clone() },
            OutgoingEvent { envelope: Bytes::new(), ..good },
        ];
        for event in wrong {
            assert_eq!(event.body(&knobs(Profile::Standard, PayloadAs::String)), Err(EnvelopeError));
            assert_eq!(event.body(&knobs(Profile::Envelope, PayloadAs::Object)), Err(EnvelopeError));
        }
        let mut out = Vec::new();
        assert_eq!(unescape_into(&mut out, br"ends in \"), Err(EnvelopeError));
        assert_eq!(unescape_into(&mut out, br"\x"), Err(EnvelopeError));
    }

    proptest! {
        #[test]
        fn unescaping_is_the_inverse_of_escaping(text in any::<String>()) {
            let (mut escaped, mut back) = (Vec::new(), Vec::new());
            text::escape_into(&mut escaped, &text);
            unescape_into(&mut back, &escaped).unwrap();
            prop_assert_eq!(String::from_utf8(back).unwrap(), text);
        }
    }
}
