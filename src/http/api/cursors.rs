//! Named cursors: where readers are that keep it here.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::Response;

use crate::domain::cursor::CursorName;
use crate::http::call::{Call, json};
use crate::http::fault::Fault;
use crate::service::consumers::{Consumer, Stale};
use crate::wire::cursors::{CursorShape, LagShape, SetCursorBody};

/// `PUT /api/v1/cursors/{name}`
pub(in crate::http) async fn set(call: Call) -> Result<Response, Fault> {
    let company = call.company()?;
    call.query(&[])?;
    let name = named(&call)?;
    let (call, body): (_, SetCursorBody) = call.read_json().await?;
    call.services.consumers.set(company, name, &body.cursor, body.types).await?;
    Ok(no_content())
}

/// `GET /api/v1/cursors/{name}`
pub(in crate::http) async fn get(call: Call) -> Result<Response, Fault> {
    let company = call.company()?;
    call.query(&[])?;
    let name = named(&call)?;
    let consumer = call.services.consumers.get(company, &name)?.ok_or_else(|| Fault::no_such_cursor(name.as_str()))?;
    json(StatusCode::OK, &shape(&consumer))
}

/// `GET /api/v1/cursors`
pub(in crate::http) async fn list(call: Call) -> Result<Response, Fault> {
    let company = call.company()?;
    call.query(&[])?;
    let consumers = call.services.consumers.list(company)?;
    let shapes: Vec<CursorShape<'_>> = consumers.iter().map(shape).collect();
    json(StatusCode::OK, &BTreeMap::from([("cursors", shapes)]))
}

/// `DELETE /api/v1/cursors/{name}`
pub(in crate::http) async fn delete(call: Call) -> Result<Response, Fault> {
    let company = call.company()?;
    call.query(&[])?;
    let name = named(&call)?;
    if call.services.consumers.forget(company, &name, &call.actor()).await? {
        Ok(no_content())
    } else {
        Err(Fault::no_such_cursor(name.as_str()))
    }
}

/// The name at the end of the path.
fn named(call: &Call) -> Result<CursorName, Fault> {
    call.last_segment()
        .parse()
        .map_err(|error: crate::domain::cursor::ParseCursorNameError| Fault::bad_request("invalid_name", error.to_string()))
}

fn no_content() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

fn seconds(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e3).round() / 1e3
}

fn shape(consumer: &Consumer) -> CursorShape<'_> {
    let (expired, lost_seconds) = match consumer.stale {
        None => (None, None),
        Some(Stale::Retention(lost)) => (Some("retention"), Some(seconds(lost))),
        Some(Stale::Restored) => (Some("restored"), None),
    };
    CursorShape {
        name: consumer.name.as_str(),
        cursor: &consumer.cursor,
        types: consumer.types.as_deref(),
        updated_utc: consumer.updated.to_string(),
        lag: LagShape { events: consumer.lag.events, seconds: seconds(consumer.lag.age) },
        expired,
        lost_seconds,
    }
}
