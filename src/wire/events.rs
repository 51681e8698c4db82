//! Answers of the Events API that are not read from the log.

use serde::Serialize;

use crate::domain::event::Receipt;
use crate::domain::text::escape_into;

/// What encloses the envelopes of a page.
pub const PAGE_PREFIX: &[u8] = b"{\"events\":[";
/// See [`PAGE_PREFIX`].
pub const PAGE_SUFFIX: &[u8] = b"]}";

/// Appends `"id":1042,"createdUtc":"…"`, and `"duplicate":true` where it is one.
fn receipt_members(out: &mut Vec<u8>, receipt: &Receipt) {
    out.extend_from_slice(b"\"id\":");
    out.extend_from_slice(receipt.id.0.to_string().as_bytes());
    out.extend_from_slice(b",\"createdUtc\":\"");
    out.extend_from_slice(&receipt.created.to_text());
    out.push(b'"');
    if receipt.duplicate {
        out.extend_from_slice(b",\"duplicate\":true");
    }
}

/// The answer to a publication.
#[must_use]
pub fn receipt(receipt: &Receipt) -> Vec<u8> {
    let mut out = Vec::with_capacity(96);
    out.push(b'{');
    receipt_members(&mut out, receipt);
    out.push(b'}');
    out
}

/// The answer to a publication of the test call, which is the same for the first one and for repeats.
#[must_use]
pub fn test_receipt(first: &Receipt) -> Vec<u8> {
    receipt(&Receipt { duplicate: false, ..*first })
}

/// Why one event of a batch was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemError {
    /// Stable name of the reason.
    pub code: &'static str,
    /// The status that the event would have got by itself.
    pub status: u16,
    /// A sentence.
    pub detail: String,
    /// JSON pointer into the event.
    pub pointer: Option<String>,
}

/// The answer to a batch: an object for each event, in order.
#[must_use]
pub fn results(outcomes: &[Result<Receipt, ItemError>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + outcomes.len() * 64);
    out.extend_from_slice(b"{\"results\":[");
    for (place, outcome) in outcomes.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        match outcome {
            Ok(receipt) => {
                out.push(b'{');
                receipt_members(&mut out, receipt);
                out.push(b'}');
            }
            Err(error) => {
                out.extend_from_slice(b"{\"error\":{\"code\":\"");
                out.extend_from_slice(error.code.as_bytes());
                out.extend_from_slice(format!("\",\"status\":{},\"detail\":\"", error.status).as_bytes());
                escape_into(&mut out, &error.detail);
                out.push(b'"');
                if let Some(pointer) = &error.pointer {
                    out.extend_from_slice(b",\"pointer\":\"");
                    escape_into(&mut out, pointer);
                    out.push(b'"');
                }
                out.extend_from_slice(b"}}");
            }
        }
    }
    out.extend_from_slice(b"]}");
    out
}

/// `{"event_types":[…]}`
#[derive(Debug, Serialize)]
pub struct EventTypes<'a> {
    /// In the order of their names.
    pub event_types: Vec<EventTypeShape<'a>>,
}

/// A type of the catalogue.
#[derive(Debug, Serialize)]
pub struct EventTypeShape<'a> {
    /// The type in the catalogue's spelling.
    pub name: &'a str,
    /// A short name for people.
    pub label: &'a str,
    /// A sentence for people.
    pub description: &'a str,
    /// The version of its payload.
    pub version: &'a str,
    /// Whether publishers should use another type.
    pub deprecated: bool,
    /// The JSON Schema of the payload in this version, where the catalogue has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<&'a serde_json::Value>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::EventId;

    fn first() -> Receipt {
        Receipt { id: EventId(1042), created: "2026-11-22T10:30:00.123456Z".parse().unwrap(), duplicate: false }
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn receipts_are_what_the_contract_shows() {
        assert_eq!(text(receipt(&first())), r#"{"id":1042,"createdUtc":"2026-11-22T10:30:00.123456Z"}"#);
        let repeat = Receipt { duplicate: true, ..first() };
        assert_eq!(text(receipt(&repeat)), r#"{"id":1042,"createdUtc":"2026-11-22T10:30:00.123456Z","duplicate":true}"#);
        assert_eq!(text(test_receipt(&repeat)), text(receipt(&first())));
    }

    #[test]
    fn a_batch_answers_in_order_and_names_what_is_wrong() {
        let error = ItemError { code: "invalid_type", status: 400, detail: "say \"type\"".to_owned(), pointer: Some("/type".to_owned()) };
        assert_eq!(
            text(results(&[Ok(first()), Err(error)])),
            r#"{"results":[{"id":1042,"createdUtc":"2026-11-22T10:30:00.123456Z"},{"error":{"code":"invalid_type","status":400,"detail":"say \"type\"","pointer":"/type"}}]}"#
        );
        assert_eq!(text(results(&[])), r#"{"results":[]}"#);
    }
}
