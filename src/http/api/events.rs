//! Events that are read.

use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{HeaderName, HeaderValue, LINK};
use axum::response::Response;
use bytes::Bytes;
use url::form_urlencoded;

use crate::catalog::PayloadSchema;
use crate::domain::cursor::{CursorName, Direction};
use crate::domain::event::EventId;
use crate::domain::filter::TypeFilter;
use crate::http::body::Pieces;
use crate::http::call::{Call, json, json_text};
use crate::http::fault::Fault;
use crate::service::events::{EventPage, Origin, PageRequest};
use crate::wire::events::{EventTypeShape, EventTypes, PAGE_PREFIX, PAGE_SUFFIX};

const X_PAGING_CURSOR: HeaderName = HeaderName::from_static("x-paging-cursor");
const X_RESUME_CURSOR: HeaderName = HeaderName::from_static("x-resume-cursor");

const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: usize = 200;
/// The longest that a caller who has caught up may wait for the next event, in seconds.
const WAIT_SECONDS_MAX: u64 = 30;
const SAMPLES_MAX: u8 = 3;

/// `GET /api/v1/events`
pub(in crate::http) async fn list(call: Call) -> Result<Response, Fault> {
    let (request, wait) = read_request(&call)?;
    let events = &call.services.events;
    let page = match wait {
        Some(patience) => events.wait(&request, patience, &call.services.shutdown).await?,
        None => events.page(&request)?,
    };
    Ok(render(&call, &request.filter, page))
}

/// `GET /api/v1/events/{id}`
pub(in crate::http) async fn get(call: Call) -> Result<Response, Fault> {
    let company = call.company()?;
    call.query(&[])?;
    let text = call.last_segment();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Fault::bad_request("invalid_id", "an event's id is a whole number"));
    }
    // A number that is too large for an id is the id of no event.
    let id = text.parse().map(EventId).map_err(|_| Fault::no_such_event())?;
    let envelope = call.services.events.get(company, id)?.ok_or_else(Fault::no_such_event)?;
    Ok(json_text(StatusCode::OK, envelope))
}

/// `GET /api/v1/events/sample`
pub(in crate::http) async fn sample(call: Call) -> Result<Response, Fault> {
    let company = call.company()?;
    let query = call.query(&["type", "count"])?;
    let count = query.number("count", 1, SAMPLES_MAX)?.unwrap_or(1);
    let kind = query.text("type").ok_or_else(|| Fault::bad_request("missing_parameter", "the parameter `type` is missing"))?;
    Ok(json_text(StatusCode::OK, call.services.events.sample(company, kind, count)?))
}

/// `GET /api/v1/events/types`
pub(in crate::http) async fn types(call: Call) -> Result<Response, Fault> {
    call.query(&[])?;
    let event_types = call
        .services
        .events
        .types()
        .map(|entry| EventTypeShape {
            name: &entry.name,
            label: &entry.label,
            description: &entry.description,
            version: &entry.version,
            deprecated: entry.deprecated,
            schema: entry.schemas.get(&entry.version).map(PayloadSchema::document),
        })
        .collect();
    json(StatusCode::OK, &EventTypes { event_types })
}

/// What a list is asked for, and how long its caller waits when there is nothing.
fn read_request(call: &Call) -> Result<(PageRequest, Option<Duration>), Fault> {
    let company = call.company()?;
    let query = call.query(&["types", "cursor", "consumer", "limit", "from", "order", "wait"])?;
    let filter = query.parsed("types", |text| TypeFilter::parse_list(text).map_err(|error| error.to_string()))?;
    let limit = query.number("limit", 1, LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT);
    let wait = query.number("wait", 0, WAIT_SECONDS_MAX)?;
    let directions = [("asc", Direction::Ascending), ("desc", Direction::Descending)];
    let direction = query.word("order", &directions)?.unwrap_or(Direction::Ascending);
    let from = query.parsed("from", parse_origin)?;
    let consumer = query.parsed("consumer", |text| text.parse::<CursorName>().map_err(|error| error.to_string()))?;
    let cursor = query.text("cursor").map(str::to_owned);
    if usize::from(cursor.is_some()) + usize::from(from.is_some()) + usize::from(consumer.is_some()) > 1 {
        return Err(Fault::bad_request("invalid_parameter", "the parameters `cursor`, `consumer` and `from` exclude each other"));
    }
    if direction == Direction::Descending && wait.is_some() {
        return Err(Fault::bad_request("invalid_parameter", "the parameter `wait` goes with `order=asc` only"));
    }
    if direction == Direction::Descending && consumer.is_some() {
        return Err(Fault::bad_request("invalid_parameter", "the parameter `consumer` goes with `order=asc` only"));
    }
    let (cursor, filter) = match consumer {
        None => (cursor, filter),
        Some(name) => {
            let kept = call.services.consumers.continuation(company, &name)?;
            let kept = kept.ok_or_else(|| Fault::no_such_cursor(name.as_str()))?;
            (Some(kept.cursor), filter.or(kept.filter))
        }
    };
    let request = PageRequest { company, filter: filter.unwrap_or_default(), direction, limit, cursor, from };
    Ok((request, wait.filter(|seconds| *seconds > 0).map(Duration::from_secs)))
}

pub(super) fn parse_origin(text: &str) -> Result<Origin, String> {
    match text {
        "oldest" => Ok(Origin::Oldest),
        "latest" => Ok(Origin::Latest),
        // In a query a plus is a space, and many forget to escape the one of an offset.
        time => time
            .replace(' ', "+")
            .parse()
            .map(Origin::Time)
            .map_err(|_| "it is `oldest`, `latest` or an RFC 3339 date-time such as 2026-11-22T10:30:00Z".to_owned()),
    }
}

fn render(call: &Call, filter: &TypeFilter, page: EventPage) -> Response {
    let mut pieces = Vec::with_capacity(page.parts.len() + 2);
    pieces.push(Bytes::from_static(PAGE_PREFIX));
    pieces.extend(page.parts);
    pieces.push(Bytes::from_static(PAGE_SUFFIX));
    let mut response = json_text(StatusCode::OK, Body::new(Pieces::of(pieces)));
    let headers = response.headers_mut();
    if let Some(cursor) = page.paging {
        if let Ok(link) = HeaderValue::from_maybe_shared(Bytes::from(next_link(call, filter, &cursor))) {
            headers.insert(LINK, link);
        }
        if let Ok(cursor) = HeaderValue::from_maybe_shared(cursor) {
            headers.insert(X_PAGING_CURSOR, cursor);
        }
    }
    if let Ok(cursor) = HeaderValue::from_maybe_shared(page.resume) {
        headers.insert(X_RESUME_CURSOR, cursor);
    }
    response
}

/// The same list from `cursor` on, as a link (RFC 8288).
fn next_link(call: &Call, filter: &TypeFilter, cursor: &[u8]) -> Vec<u8> {
    let config = call.services.config.load();
    let mut link = Vec::with_capacity(256);
    link.extend_from_slice(b"<");
    link.extend_from_slice(config.public_url.as_bytes());
    link.extend_from_slice(b"/api/v1/events?");
    let mut names_types = false;
    for pair in call.query_text().split('&') {
        // A name may be written with escapes.
        let Some((name, _)) = form_urlencoded::parse(pair.as_bytes()).next() else { continue };
        if !matches!(name.as_ref(), "cursor" | "from" | "consumer") {
            names_types |= name == "types";
            link.extend_from_slice(pair.as_bytes());
            link.push(b'&');
        }
    }
    if !names_types && !filter.is_everything() {
        // The types that the named cursor brought along.
        let types = form_urlencoded::byte_serialize(filter.canonical().as_bytes()).collect::<String>();
        link.extend_from_slice(format!("types={types}&").as_bytes());
    }
    link.extend_from_slice(b"cursor=");
    link.extend_from_slice(cursor);
    link.extend_from_slice(b">; rel=\"next\"");
    link
}
