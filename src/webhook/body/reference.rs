//! What has changed, by reference: the receiver fetches the rest.

use bytes::Bytes;

use super::members::Members;
use super::{EnvelopeError, OutgoingEvent};
use crate::domain::notification;
use crate::domain::subscription::SubscriptionId;
use crate::domain::text;
use crate::webhook::origin::Origin;

/// The body. The payload itself is not in it.
pub(super) fn reference(event: &OutgoingEvent, subscription: SubscriptionId, origin: &Origin) -> Result<Bytes, EnvelopeError> {
    let notification = notification::encode(&origin.notification_key, event.id, subscription, event.run);
    let metadata = event.metadata()?;
    let metadata = Members::of(&metadata);
    let affected = event.affected(&origin.public_url, &notification)?;
    let mut out = Vec::with_capacity(affected.len() + 384);
    let mut member = |before: &str, text: &str| {
        out.extend_from_slice(before.as_bytes());
        text::escape_into(&mut out, text);
    };
    member("{\"eventType\":\"", &event.kind);
    member("\",\"eventTime\":\"", &event.time().to_string());
    member("\",\"eventId\":\"", &event.id.to_string());
    member("\",\"notificationId\":\"", &notification);
    member("\",\"accountReference\":\"", metadata.words("accountReference").as_deref().unwrap_or(&origin.slug));
    member("\",\"brokerReference\":\"", metadata.words("brokerReference").as_deref().unwrap_or_default());
    out.extend_from_slice(b"\",\"translations\":{\"eventType\":{");
    let labels = origin.catalog.find(&event.kind).map(|entry| &entry.labels);
    for (place, (locale, label)) in labels.into_iter().flatten().enumerate() {
        out.extend_from_slice(if place > 0 { b",\"" } else { b"\"" });
        text::escape_into(&mut out, locale);
        out.extend_from_slice(b"\":\"");
        text::escape_into(&mut out, label);
        out.push(b'"');
    }
    out.extend_from_slice(b"}},\"affected\":");
    out.extend_from_slice(&affected);
    out.push(b'}');
    Ok(out.into())
}
