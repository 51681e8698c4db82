//! Deliveries as they are shown.

use serde::Serialize;

/// A delivery; in lists without its attempts.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryShape {
    /// `{subscription}-{event}`, with `-r{n}` behind it when replay n owes it.
    pub id: String,
    /// To whom.
    pub subscription_id: u32,
    /// What.
    pub event_id: u64,
    /// The event's type, as far as it is known.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// `pending`, `delivered`, `dead`, `expired` or `cancelled`.
    pub state: &'static str,
    /// The replay that it belongs to, if it does.
    pub replay: Option<u32>,
    /// When the next attempt may be made.
    pub next_due_utc: Option<String>,
    /// Why it is dead, expired or cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The attempts, oldest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<Vec<AttemptShape>>,
}

/// One attempt.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AttemptShape {
    /// Counted from 1.
    pub number: u32,
    /// When it began.
    pub started_utc: String,
    /// How long it took.
    pub duration_ms: u64,
    /// Whom it went to; none for those who may not know, and when there was no address.
    pub address: Option<String>,
    /// The status of the answer.
    pub status: Option<u16>,
    /// The beginning of the answer's body; none for those who may not see it.
    pub excerpt: Option<String>,
    /// Whether the answer was longer.
    pub truncated: bool,
    /// What kind of failure; none on success.
    pub error_class: Option<&'static str>,
    /// The failure in a sentence.
    pub error: Option<String>,
    /// When the next attempt was due after this one.
    pub next_due_utc: Option<String>,
}
