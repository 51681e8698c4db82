//! Requests and answers about named cursors.

use serde::{Deserialize, Serialize};

/// Body of `PUT /api/v1/cursors/{name}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetCursorBody {
    /// The cursor, as a list gave it.
    pub cursor: String,
    /// The types of that list.
    pub types: Option<Vec<String>>,
}

/// How far a reader is behind.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct LagShape {
    /// Events that it has still to read.
    pub events: u64,
    /// Age of the oldest of them, to the millisecond.
    pub seconds: f64,
}

/// A named cursor as it is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CursorShape<'a> {
    /// Its name.
    pub name: &'a str,
    /// The cursor.
    pub cursor: &'a str,
    /// The types that it is for, when its reader named them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub types: Option<&'a [String]>,
    /// When it was set.
    pub updated_utc: String,
    /// How far behind it is.
    pub lag: LagShape,
    /// Why a read from it is refused with 410: `retention` or `restored`; absent when it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expired: Option<&'static str>,
    /// With `retention`, the seconds that the lost events span.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost_seconds: Option<f64>,
}
