//! An event as it goes out, and the bodies that profiles make of it: one file for each family.

mod cloud_events;
mod compact;
mod envelope;
mod members;
mod reference;
mod signed_envelope;
mod typed;

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{HeaderName, HeaderValue};

use self::cloud_events::Attributes;
pub(super) use self::compact::compact;
use self::signed_envelope::BodySigner;
use super::origin::Origin;
use super::signature::SigningKey;
use super::target::TargetError;
use crate::domain::company::CompanyId;
use crate::domain::event::EventId;
use crate::domain::profile::{BodyForm, Knobs, PayloadAs, SignatureForm};
use crate::domain::reference::{Reference, notification_address};
use crate::domain::subscription::SubscriptionId;
use crate::domain::text;
use crate::domain::time::Timestamp;
use crate::wire::references::{affected, read_references};

static EVENT_TYPE: HeaderName = HeaderName::from_static("event-type");

/// An event on its way to receivers.
#[derive(Debug, Clone)]
pub struct OutgoingEvent {
    /// Its number.
    pub id: EventId,
    /// Whose it is.
    pub company: CompanyId,
    /// When it was committed.
    pub created: Timestamp,
    /// When it happened, if its publisher has said so.
    pub occurred: Option<Timestamp>,
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
    /// The JSON text of its references as the log holds it; empty when it has none.
    pub references: Bytes,
    /// In which run it is sent: 0 the delivery itself, n the replay with number n.
    pub run: u32,
}

/// An envelope that is not laid out as the log lays them out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the envelope in the log is not what it was written as")]
pub struct EnvelopeError;

/// Why there is no body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The event cannot be read.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The signature inside the body could not be made.
    #[error("the signature of the body could not be made")]
    Signature,
}

/// A body, and the headers that belong to it beside the content type.
#[derive(Debug, Clone)]
pub(super) struct Content {
    pub body: Bytes,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What the signatures are over when it is not the body.
    pub signed: Option<Bytes>,
    /// A wait in the middle of the body.
    pub pause: Option<Duration>,
}

impl Content {
    fn with(body: Bytes, headers: Vec<(HeaderName, HeaderValue)>) -> Self {
        Self { body, headers, signed: None, pause: None }
    }
}

impl From<Bytes> for Content {
    fn from(body: Bytes) -> Self {
        Self::with(body, Vec::new())
    }
}

/// How the bodies of one subscription are made, with all that is the same for each of them.
pub(super) struct Form {
    subscription: SubscriptionId,
    origin: Origin,
    kind: Kind,
}

enum Kind {
    Typed,
    Envelope,
    /// The envelope with JSON where the strings were.
    OpenEnvelope,
    /// None: without a signature of its own.
    SignedEnvelope(Option<BodySigner>),
    Structured(Attributes),
    Binary(Attributes),
    Batch(Attributes),
    Reference,
    Event,
}

impl Form {
    /// The form that the knobs ask for; `key` signs what is signed inside the body by HMAC.
    pub fn new(subscription: SubscriptionId, knobs: &Knobs, key: &SigningKey, origin: Origin) -> Result<Self, TargetError> {
        let kind = match (knobs.body, knobs.payload_as) {
            (BodyForm::Typed, _) => Kind::Typed,
            (BodyForm::Envelope, PayloadAs::String) => Kind::Envelope,
            (BodyForm::Envelope, PayloadAs::Object) => Kind::OpenEnvelope,
            (BodyForm::SignedEnvelope, _) => Kind::SignedEnvelope(match knobs.signature {
                SignatureForm::BodyHmacSha256 => Some(BodySigner::Hmac(key.clone())),
                SignatureForm::BodyRsaSha256 => Some(BodySigner::Rsa(origin.rsa.clone().ok_or(TargetError::RsaKey)?)),
                SignatureForm::Standard | SignatureForm::HeaderHmac | SignatureForm::None => None,
            }),
            (BodyForm::CloudEventsStructured, _) => Kind::Structured(Attributes::of(knobs, &origin)),
            (BodyForm::CloudEventsBinary, _) => Kind::Binary(Attributes::of(knobs, &origin)),
            (BodyForm::CloudEventsBatch, _) => Kind::Batch(Attributes::of(knobs, &origin)),
            (BodyForm::Reference, _) => Kind::Reference,
            (BodyForm::Event, _) => Kind::Event,
        };
        Ok(Self { subscription, origin, kind })
    }

    /// Where the webhooks come from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// What is sent of an event. Waits only for a signature that takes the processor long.
    pub async fn content(&self, event: &OutgoingEvent) -> Result<Content, BodyError> {
        Ok(match &self.kind {
            Kind::Typed => typed::typed(event)?.into(),
            Kind::Envelope => event.envelope.clone().into(),
            Kind::OpenEnvelope => envelope::opened(event)?.into(),
            Kind::SignedEnvelope(signer) => signed_envelope::signed(event, &self.origin, signer.as_ref()).await?.into(),
            Kind::Structured(attributes) => attributes.structured(event)?.into(),
            Kind::Batch(attributes) => attributes.batch(event)?.into(),
            Kind::Binary(attributes) => attributes.binary(event)?,
            Kind::Reference => reference::reference(event, self.subscription, &self.origin)?.into(),
            Kind::Event => {
                // Types are visible ASCII.
                let kind = HeaderValue::from_str(&event.kind).map_err(|_| EnvelopeError)?;
                Content::with(event.payload()?.into(), vec![(EVENT_TYPE.clone(), kind)])
            }
        })
    }
}

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
    /// An event that is in no log: number 0 of its company, to try a receiver with. The payload must be JSON.
    #[must_use]
    pub fn trial(company: CompanyId, kind: &str, payload: &str, created: Timestamp, run: u32) -> Self {
        let mut envelope = format!("{{\"id\":0,\"companyId\":{company},\"type\":\"").into_bytes();
        text::escape_into(&mut envelope, kind);
        envelope.extend_from_slice(b"\",\"createdUtc\":\"");
        envelope.extend_from_slice(&created.to_text());
        envelope.extend_from_slice(b"\",\"payload\":\"");
        let payload_start = envelope.len();
        text::escape_into(&mut envelope, payload);
        let payload_length = envelope.len() - payload_start;
        envelope.extend_from_slice(BEFORE_METADATA);
        envelope.extend_from_slice(b"{}");
        envelope.extend_from_slice(BEHIND_METADATA);
        Self {
            id: EventId(0),
            company,
            created,
            occurred: None,
            kind: kind.to_owned(),
            version: "1".to_owned(),
            envelope: envelope.into(),
            payload_start,
            payload_length,
            references: Bytes::new(),
            run,
        }
    }

    /// What the event speaks of.
    ///
    /// # Errors
    /// When the text in the log is not what was written there.
    pub fn references(&self) -> Result<Vec<Reference>, EnvelopeError> {
        read_references(&self.references).ok_or(EnvelopeError)
    }

    /// The JSON text of `affected`, the list of what the event speaks of with its links; `[]` when that is nothing. Snapshots
    /// and redirects have addresses of ours, which begin with `public_url` (no slash at its end) and the notification's id.
    ///
    /// # Errors
    /// As [`OutgoingEvent::references`].
    pub fn affected(&self, public_url: &str, notification_id: &str) -> Result<Vec<u8>, EnvelopeError> {
        Ok(affected(&self.references()?, &notification_address(public_url, notification_id)))
    }

    /// When it happened, as far as that is known.
    fn time(&self) -> Timestamp {
        self.occurred.unwrap_or(self.created)
    }

    /// The payload byte for byte as it was published.
    fn payload(&self) -> Result<Vec<u8>, EnvelopeError> {
        let escaped = self.parts()?.payload;
        let mut payload = Vec::with_capacity(escaped.len());
        unescape_into(&mut payload, escaped)?;
        Ok(payload)
    }

    /// The metadata as it was published.
    fn metadata(&self) -> Result<String, EnvelopeError> {
        let escaped = self.parts()?.metadata;
        let mut metadata = Vec::with_capacity(escaped.len());
        unescape_into(&mut metadata, escaped)?;
        String::from_utf8(metadata).map_err(|_| EnvelopeError)
    }

    fn parts(&self) -> Result<Parts<'_>, EnvelopeError> {
        let (before, rest) = self.envelope.split_at_checked(self.payload_start).ok_or(EnvelopeError)?;
        let head = before.strip_suffix(b"\"").ok_or(EnvelopeError)?;
        let (payload, rest) = rest.split_at_checked(self.payload_length).ok_or(EnvelopeError)?;
        let rest = rest.strip_prefix(BEFORE_METADATA).ok_or(EnvelopeError)?;
        let metadata = rest.strip_suffix(BEHIND_METADATA).ok_or(EnvelopeError)?;
        Ok(Parts { head, payload, metadata })
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
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::catalog::Catalog;
    use crate::domain::notification::NotificationKey;
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
            created: "2026-11-22T10:30:00.123456Z".parse().unwrap(),
            occurred: None,
            kind: "Claim.created".to_owned(),
            version: "1".to_owned(),
            envelope: envelope.into(),
            payload_start,
            payload_length,
            references: Bytes::new(),
            run: 0,
        }
    }

    fn origin() -> Origin {
        Origin {
            public_url: "https://events.example".into(),
            slug: "acme".to_owned(),
            notification_key: NotificationKey::derive(&[7; 32], CompanyId(7)),
            catalog: Arc::new(Catalog::load(None, false, crate::catalog::Validation::Off).unwrap()),
            rsa: None,
        }
    }

    fn form(profile: Profile, overrides: &Overrides) -> Result<Form, TargetError> {
        Form::new(SubscriptionId(12), &profile.knobs(overrides), &SigningKey::new(&[1; 32]), origin())
    }

    async fn body(event: &OutgoingEvent, form: BodyForm, payload_as: PayloadAs) -> Result<Bytes, BodyError> {
        let overrides = Overrides { body: Some(form), payload_as: Some(payload_as), ..Overrides::default() };
        self::form(Profile::Standard, &overrides).unwrap().content(event).await.map(|content| content.body)
    }

    #[tokio::test]
    async fn the_typed_body_holds_the_payload_byte_for_byte() {
        let event = event(r#"{ "a": "x\"y\\z", "n": 1.50 }"#, "{}");
        assert_eq!(
            body(&event, BodyForm::Typed, PayloadAs::String).await.unwrap(),
            r#"{"type":"Claim.created","timestamp":"2026-11-22T10:30:00.123456Z","data":{ "a": "x\"y\\z", "n": 1.50 }}"#
        );
        let event = OutgoingEvent { occurred: Some("2025-01-01T00:00:00Z".parse().unwrap()), ..event };
        assert!(
            body(&event, BodyForm::Typed, PayloadAs::String)
                .await
                .unwrap()
                .starts_with(br#"{"type":"Claim.created","timestamp":"2025-01-01T00:00:00.000000Z","#)
        );
    }

    #[tokio::test]
    async fn the_envelope_goes_out_as_it_lies_in_the_log() {
        let event = event(r#"{"a":"x\"y"}"#, r#"{"m":1}"#);
        let body = body(&event, BodyForm::Envelope, PayloadAs::String).await.unwrap();
        assert_eq!(body.as_ptr(), event.envelope.as_ptr());
        assert_eq!(body, event.envelope);
    }

    #[tokio::test]
    async fn the_envelope_with_objects_holds_json_where_the_strings_were() {
        let body = body(&event(r#"{"a":"x\"y"}"#, r#"{"m":[1]}"#), BodyForm::Envelope, PayloadAs::Object).await.unwrap();
        assert_eq!(
            body,
            r#"{"id":1042,"companyId":7,"type":"Claim.created","createdUtc":"2026-11-22T10:30:00.123456Z","payload":{"a":"x\"y"},"metadata":{"m":[1]}}"#
        );
    }

    #[tokio::test]
    async fn a_payload_of_any_kind_is_the_data_of_a_cloud_event() {
        for payload in ["[1, 2]", "null", "1.50", r#""{\"a\":1}""#, r#"{ "a" : "\u00e5" }"#] {
            let event = event(payload, "{}");
            let structured = body(&event, BodyForm::CloudEventsStructured, PayloadAs::String).await.unwrap();
            let expected = format!(
                concat!(
                    r#"{{"specversion":"1.0","id":"1042","source":"https://events.example/companies/acme","type":"Claim.created","#,
                    r#""time":"2026-11-22T10:30:00.123456Z","datacontenttype":"application/json","data":{}}}"#
                ),
                payload
            );
            assert_eq!(structured, expected);
            assert_eq!(body(&event, BodyForm::CloudEventsBatch, PayloadAs::String).await.unwrap(), format!("[{expected}]"));
            assert_eq!(body(&event, BodyForm::CloudEventsBinary, PayloadAs::String).await.unwrap(), payload);
            assert_eq!(body(&event, BodyForm::Event, PayloadAs::String).await.unwrap(), payload);
        }
    }

    #[tokio::test]
    async fn a_signature_in_the_body_is_over_the_text_of_its_payload_and_goes_without_saying_with_another_one() {
        let event = event(r#"{ "claimRef" : "C\u002d1" }"#, r#"{"user": {"id": "u-1"}, "x": 1}"#);
        let message = format!(
            r#"{{"details":{{"messageType":"event.Claim.created.v1","claimRef":"C-1"}},"messageId":"{}","timestamp":"2026-11-22T10:30:00.123456Z","user":{{"id":"u-1"}}}}"#,
            crate::domain::notification::message_id(&origin().notification_key, EventId(1042))
        );
        let signed = form(Profile::SignedEnvelope, &Overrides::default()).unwrap().content(&event).await.unwrap().body;
        let escaped = serde_json::to_string(&message).unwrap();
        let signature = SigningKey::new(&[1; 32]).sign_text(message.as_bytes());
        assert_eq!(signed, format!(r#"{{"payload":{message},"payloadAsString":{escaped},"signature":"{signature}"}}"#));
        let unsigned = body(&event, BodyForm::SignedEnvelope, PayloadAs::String).await.unwrap();
        assert_eq!(unsigned, format!(r#"{{"payload":{message},"payloadAsString":{escaped}}}"#));
    }

    #[test]
    fn a_signature_by_rsa_needs_the_companys_key() {
        let overrides = Overrides { signature: Some(SignatureForm::BodyRsaSha256), ..Overrides::default() };
        assert_eq!(form(Profile::SignedEnvelope, &overrides).err(), Some(TargetError::RsaKey));
    }

    #[test]
    fn what_is_affected_has_the_links_of_the_event_and_ours() {
        let references = br#"[{"referenceType":"contract","referenceId":"b75f","snapshot":{"contentType":"application/json","bytes":9}}]"#;
        let event = OutgoingEvent { references: Bytes::from_static(references), ..event("{}", "{}") };
        let affected = event.affected("https://events.example", "n-1").unwrap();
        assert_eq!(
            String::from_utf8(affected).unwrap(),
            r#"[{"referenceType":"contract","referenceId":"b75f","links":[{"contentType":"application/json","href":"https://events.example/api/public/v2/notifications/n-1/contracts/b75f"}]}]"#
        );
        assert_eq!(OutgoingEvent { references: Bytes::new(), ..event.clone() }.affected("x", "y").unwrap(), b"[]");
        assert_eq!(OutgoingEvent { references: Bytes::from_static(b"[{"), ..event }.affected("x", "y"), Err(EnvelopeError));
    }

    #[tokio::test]
    async fn an_envelope_of_another_layout_is_refused() {
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
            for form in BodyForm::ALL {
                let payload_as = PayloadAs::Object;
                assert_eq!(body(&event, *form, payload_as).await, Err(BodyError::Envelope(EnvelopeError)), "{form:?}");
            }
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
