//! The envelope of the Events API.

use bytes::Bytes;

use super::{EnvelopeError, OutgoingEvent, unescape_into};

/// The envelope with payload and metadata as JSON instead of strings that hold it.
pub(super) fn opened(event: &OutgoingEvent) -> Result<Bytes, EnvelopeError> {
    let parts = event.parts()?;
    let mut out = Vec::with_capacity(event.envelope.len());
    out.extend_from_slice(parts.head);
    unescape_into(&mut out, parts.payload)?;
    out.extend_from_slice(b",\"metadata\":");
    unescape_into(&mut out, parts.metadata)?;
    out.push(b'}');
    Ok(out.into())
}
