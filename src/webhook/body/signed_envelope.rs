//! A message that bears its signature inside: `{"payload","payloadAsString","signature"}`.
//!
//! `payloadAsString` is the text that is signed, and `payload` is the same text as JSON, so that a receiver finds both
//! equal whichever of them it checks.

use std::sync::Arc;

use bytes::Bytes;

use super::compact::compact;
use super::members::Members;
use super::{BodyError, EnvelopeError, OutgoingEvent};
use crate::domain::notification::message_id;
use crate::domain::text;
use crate::webhook::origin::Origin;
use crate::webhook::rsa::RsaKey;
use crate::webhook::signature::SigningKey;

/// Who signs inside the body.
pub(super) enum BodySigner {
    Hmac(SigningKey),
    Rsa(Arc<RsaKey>),
}

/// The member of `details` that is ours.
const MESSAGE_TYPE: &str = "messageType";

/// The body; without a signer it has no member `signature`.
pub(super) async fn signed(event: &OutgoingEvent, origin: &Origin, signer: Option<&BodySigner>) -> Result<Bytes, BodyError> {
    let message = message(event, origin)?;
    let signature = match signer {
        None => None,
        Some(BodySigner::Hmac(key)) => Some(key.sign_text(message.as_bytes())),
        Some(BodySigner::Rsa(key)) => Some(key.sign(message.as_bytes()).await.ok_or(BodyError::Signature)?),
    };
    let mut out = Vec::with_capacity(message.len() * 5 / 2 + 400);
    out.extend_from_slice(b"{\"payload\":");
    out.extend_from_slice(message.as_bytes());
    out.extend_from_slice(b",\"payloadAsString\":\"");
    text::escape_into(&mut out, &message);
    out.push(b'"');
    if let Some(signature) = signature {
        out.extend_from_slice(b",\"signature\":\"");
        out.extend_from_slice(signature.as_bytes());
        out.push(b'"');
    }
    out.push(b'}');
    Ok(out.into())
}

/// The text of `payload`, compact: as a receiver's own serializer writes it.
fn message(event: &OutgoingEvent, origin: &Origin) -> Result<String, EnvelopeError> {
    let payload = compact(&String::from_utf8(event.payload()?).map_err(|_| EnvelopeError)?);
    let mut out = Vec::with_capacity(payload.len() + 256);
    out.extend_from_slice(b"{\"details\":{\"messageType\":\"event.");
    text::escape_into(&mut out, &event.kind);
    out.extend_from_slice(b".v");
    text::escape_into(&mut out, event.version.split('.').next().unwrap_or_default());
    out.push(b'"');
    details(&mut out, &payload);
    out.extend_from_slice(b"},\"messageId\":\"");
    out.extend_from_slice(message_id(&origin.notification_key, event.id).as_bytes());
    out.extend_from_slice(b"\",\"timestamp\":\"");
    out.extend_from_slice(&event.time().to_text());
    out.push(b'"');
    let metadata = event.metadata()?;
    if let Some(user) = Members::of(&metadata).get("user") {
        out.extend_from_slice(b",\"user\":");
        out.extend_from_slice(compact(user).as_bytes());
    }
    out.push(b'}');
    String::from_utf8(out).map_err(|_| EnvelopeError)
}

/// Appends the members of the compact payload behind ours, each with its comma; what is no object becomes the member `data`.
fn details(out: &mut Vec<u8>, payload: &str) {
    let Some(inside) = payload.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
        out.extend_from_slice(b",\"data\":");
        out.extend_from_slice(payload.as_bytes());
        return;
    };
    // Twice the same name would be read as the second one, or refused.
    if !payload.contains(MESSAGE_TYPE) {
        if !inside.is_empty() {
            out.push(b',');
            out.extend_from_slice(inside.as_bytes());
        }
        return;
    }
    for (name, value) in Members::of(payload).0.iter().filter(|(name, _)| name != MESSAGE_TYPE) {
        out.extend_from_slice(b",\"");
        text::escape_into(out, name);
        out.extend_from_slice(b"\":");
        out.extend_from_slice(value.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn details_of(payload: &str) -> String {
        let mut out = Vec::new();
        details(&mut out, payload);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_members_of_an_object_follow_ours_and_anything_else_is_data() {
        assert_eq!(details_of("{}"), "");
        assert_eq!(details_of(r#"{"a":1.50,"b":{"c":[]}}"#), r#","a":1.50,"b":{"c":[]}"#);
        assert_eq!(details_of("[1]"), r#","data":[1]"#);
        assert_eq!(details_of("null"), r#","data":null"#);
        assert_eq!(details_of(r#""{}""#), r#","data":"{}""#);
    }

    #[test]
    fn a_message_type_of_the_payload_does_not_stand_beside_ours() {
        assert_eq!(details_of(r#"{"messageType":"x","a":1}"#), r#","a":1"#);
        assert_eq!(details_of(&compact(r#"{"a":1,"\u006dessageType":"x","b":"messageType"}"#)), r#","a":1,"b":"messageType""#);
        assert_eq!(details_of(r#"{"a":{"messageType":"x"}}"#), r#","a":{"messageType":"x"}"#);
    }
}
