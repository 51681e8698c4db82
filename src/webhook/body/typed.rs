//! The body of Standard Webhooks.

use bytes::Bytes;

use super::{EnvelopeError, OutgoingEvent, unescape_into};
use crate::domain::text;

/// `{"type","timestamp","data"}` (Standard Webhooks 1.0.0, payload structure); `data` is the payload byte for byte.
pub(super) fn typed(event: &OutgoingEvent) -> Result<Bytes, EnvelopeError> {
    let payload = event.parts()?.payload;
    let mut out = Vec::with_capacity(payload.len() + event.kind.len() + 72);
    out.extend_from_slice(b"{\"type\":\"");
    text::escape_into(&mut out, &event.kind);
    out.extend_from_slice(b"\",\"timestamp\":\"");
    out.extend_from_slice(&event.time().to_text());
    out.extend_from_slice(b"\",\"data\":");
    unescape_into(&mut out, payload)?;
    out.push(b'}');
    Ok(out.into())
}
