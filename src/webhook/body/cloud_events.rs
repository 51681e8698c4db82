//! CloudEvents 1.0.2: the JSON format, and the HTTP binding with the attributes in headers.

use bytes::Bytes;
use hyper::header::{HeaderName, HeaderValue};

use super::{Content, EnvelopeError, OutgoingEvent, unescape_into};
use crate::domain::profile::Knobs;
use crate::domain::text;
use crate::webhook::origin::Origin;

static SPEC_VERSION: HeaderName = HeaderName::from_static("ce-specversion");
static ID: HeaderName = HeaderName::from_static("ce-id");
static SOURCE: HeaderName = HeaderName::from_static("ce-source");
static TYPE: HeaderName = HeaderName::from_static("ce-type");
static SUBJECT: HeaderName = HeaderName::from_static("ce-subject");
static TIME: HeaderName = HeaderName::from_static("ce-time");

/// The attributes that all events of one subscription share.
pub(super) struct Attributes {
    source: String,
    type_prefix: String,
}

/// `{referenceType}/{referenceId}` of the first reference.
fn subject(event: &OutgoingEvent) -> Result<Option<String>, EnvelopeError> {
    let references = event.references()?;
    Ok(references.first().map(|reference| format!("{}/{}", reference.kind.as_str(), reference.id.as_str())))
}

impl Attributes {
    pub fn of(knobs: &Knobs, origin: &Origin) -> Self {
        let source = knobs.cloud_events_source.clone().unwrap_or_else(|| origin.source());
        Self { source, type_prefix: knobs.cloud_events_type_prefix.clone() }
    }

    /// One JSON object (JSON format, section 3); `data` is the payload byte for byte.
    pub fn structured(&self, event: &OutgoingEvent) -> Result<Bytes, EnvelopeError> {
        let mut out = Vec::with_capacity(self.length(event));
        self.write(&mut out, event)?;
        Ok(out.into())
    }

    /// An array of one (JSON format, section 4).
    pub fn batch(&self, event: &OutgoingEvent) -> Result<Bytes, EnvelopeError> {
        let mut out = Vec::with_capacity(self.length(event) + 2);
        out.push(b'[');
        self.write(&mut out, event)?;
        out.push(b']');
        Ok(out.into())
    }

    /// The payload, with the attributes beside it (HTTP binding, section 3.1); `datacontenttype` is the `Content-Type`.
    pub fn binary(&self, event: &OutgoingEvent) -> Result<Content, EnvelopeError> {
        let time = event.time().to_text();
        let time = HeaderValue::from_bytes(&time).map_err(|_| EnvelopeError)?;
        let mut headers = vec![
            (SPEC_VERSION.clone(), HeaderValue::from_static("1.0")),
            (ID.clone(), HeaderValue::from(event.id.0)),
            (SOURCE.clone(), header_value(&[&self.source])?),
            (TYPE.clone(), header_value(&[&self.type_prefix, &event.kind])?),
            (TIME.clone(), time),
        ];
        if let Some(subject) = subject(event)? {
            headers.push((SUBJECT.clone(), header_value(&[&subject])?));
        }
        Ok(Content::with(event.payload()?.into(), headers))
    }

    fn length(&self, event: &OutgoingEvent) -> usize {
        event.envelope.len() + self.source.len() + self.type_prefix.len() + event.kind.len() + 256
    }

    fn write(&self, out: &mut Vec<u8>, event: &OutgoingEvent) -> Result<(), EnvelopeError> {
        out.extend_from_slice(b"{\"specversion\":\"1.0\",\"id\":\"");
        out.extend_from_slice(event.id.to_string().as_bytes());
        out.extend_from_slice(b"\",\"source\":\"");
        text::escape_into(out, &self.source);
        out.extend_from_slice(b"\",\"type\":\"");
        text::escape_into(out, &self.type_prefix);
        text::escape_into(out, &event.kind);
        if let Some(subject) = subject(event)? {
            out.extend_from_slice(b"\",\"subject\":\"");
            text::escape_into(out, &subject);
        }
        out.extend_from_slice(b"\",\"time\":\"");
        out.extend_from_slice(&event.time().to_text());
        out.extend_from_slice(b"\",\"datacontenttype\":\"application/json\",\"data\":");
        unescape_into(out, event.parts()?.payload)?;
        out.push(b'}');
        Ok(())
    }
}

/// An attribute as a header: space, quote, percent sign and everything but visible ASCII are percent-encoded as UTF-8
/// (HTTP binding, section 3.1.3.2).
fn header_value(pieces: &[&str]) -> Result<HeaderValue, EnvelopeError> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut value = Vec::with_capacity(pieces.iter().map(|piece| piece.len()).sum());
    for byte in pieces.iter().flat_map(|piece| piece.bytes()) {
        if byte.is_ascii_graphic() && !matches!(byte, b'"' | b'%') {
            value.push(byte);
        } else {
            let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
            value.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    HeaderValue::from_maybe_shared(Bytes::from(value)).map_err(|_| EnvelopeError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_encoded_as_the_binding_shows() {
        // The examples of section 3.1.3.2.
        assert_eq!(header_value(&["Euro \u{20ac} \u{1f600}"]).unwrap(), "Euro%20%E2%82%AC%20%F0%9F%98%80");
        assert_eq!(header_value(&["a\"%", "b~!"]).unwrap(), "a%22%25b~!");
        assert_eq!(header_value(&["\u{7f}\t"]).unwrap(), "%7F%09");
    }
}
