//! Problem documents (RFC 9457): how every refusal of the native API looks.

use serde::Serialize;
use serde_json::{Map, Value};

/// The content type of a problem document.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// A problem document.
#[derive(Debug, Serialize)]
pub struct Problem<'a> {
    /// `urn:lutine:problem:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status in words.
    pub title: &'a str,
    /// The HTTP status.
    pub status: u16,
    /// A sentence that the caller can act on.
    pub detail: &'a str,
    /// The path that was asked for.
    pub instance: &'a str,
    /// Stable name of the reason, in `snake_case`.
    pub code: &'a str,
    /// The id of the request, as in `X-Request-Id`.
    #[serde(rename = "requestId")]
    pub request_id: &'a str,
    /// The members of the request that are wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<ProblemError<'a>>,
    /// What only this kind of problem has.
    #[serde(flatten)]
    pub more: &'a Map<String, Value>,
}

/// One wrong member.
#[derive(Debug, Serialize)]
pub struct ProblemError<'a> {
    /// JSON pointer (RFC 6901) into the body.
    pub pointer: &'a str,
    /// What is wrong with it.
    pub detail: &'a str,
}

impl<'a> Problem<'a> {
    /// The `type` member for a code.
    #[must_use]
    pub fn kind_of(code: &str) -> String {
        format!("urn:lutine:problem:{code}")
    }
}
