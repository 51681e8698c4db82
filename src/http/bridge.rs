//! The bridge: publishing and receiving as the clients of an older events API do it, errors in its terms.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use url::form_urlencoded;

use super::api::publish::{count, sizes};
use super::call::{Call, json_text};
use super::fault::Fault;
use crate::domain::company::CompanyId;
use crate::domain::event::EventId;
use crate::domain::filter::TypeFilter;
use crate::domain::key::Principal;
use crate::domain::time::Timestamp;
use crate::service::events::PublishError;
use crate::wire::bridge::{self, ReceivedEvent};

const EVENT_TYPE: HeaderName = HeaderName::from_static("event-type");
/// How long a receiver that has everything is held.
const HOLD: Duration = Duration::from_secs(30);

/// The payload is refused; the detail begins with the words of all such refusals.
const INCORRECT_PAYLOAD: &str = "incorrect_payload";
/// The header that every publication has is not there.
const MISSING_EVENT_TYPE: &str = "missing_event_type";
/// What the clients' framework calls that.
const BINDING_EXCEPTION: &str = "org.springframework.web.bind.ServletRequestBindingException";

/// `POST /api/events/v1/{country}/external/{tenant}/send`
pub(super) async fn send(call: Call) -> Result<Response, Fault> {
    let company = company_of(&call)?;
    call.query(&[])?;
    call.require_json()?;
    let event_type = call
        .header(&EVENT_TYPE)?
        .map(str::to_owned)
        .ok_or_else(|| Fault::bad_request(MISSING_EVENT_TYPE, "Missing request header 'Event-Type' for method parameter of type String"))?;
    let sizes = sizes(&call);
    let (call, body) = call.read_body(sizes.body_bytes_max, StatusCode::PAYLOAD_TOO_LARGE).await?;
    let counters = &call.services.metrics.published;
    let event = bridge::parse_send(&body, &event_type, &sizes.event).map_err(|reason| {
        counters.refused.inc();
        incorrect(&reason)
    })?;
    let stored = call.services.events.publish(company, &call.principal, event).await;
    count(counters, &stored);
    let stored = stored.map_err(|error| match error {
        PublishError::UnknownType { .. } | PublishError::Reserved { .. } => incorrect(&error.to_string()),
        other => other.into(),
    })?;
    Ok(json_text(StatusCode::CREATED, bridge::sent(stored.id.0)))
}

/// `GET /api/events/v1/{country}/external/{tenant}/receive`
pub(super) async fn receive(call: Call) -> Result<Response, Fault> {
    let company = company_of(&call)?;
    let query = call.query(&["lastEventId", "types"])?;
    let after = query.parsed("lastEventId", read_id)?;
    let filter = query.parsed("types", |text| TypeFilter::parse_list(text).map_err(|error| error.to_string()))?;
    let types = query.text("types").map(str::to_owned);
    let services = &call.services;
    let events = services.receiving.receive(company, after, &filter.unwrap_or_default(), HOLD, &services.shutdown).await?;
    let last = events.last().map(|event| event.id).or(after);
    let next = next_link(&call, types.as_deref(), last);
    let received = events.iter().map(|event| ReceivedEvent {
        id: event.id.0,
        kind: &event.kind,
        created: event.created,
        escaped_payload: event.escaped_payload(),
    });
    let body = bridge::received(&next, received).map_err(|id| Fault::internal(format!("the payload of event {id} is damaged")))?;
    Ok(json_text(StatusCode::OK, body))
}

/// The number of an event with or without its underscore.
fn read_id(text: &str) -> Result<EventId, String> {
    let digits = text.strip_prefix('_').unwrap_or(text);
    let number = if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None };
    number.map(EventId).ok_or_else(|| "it is the id of an event such as _122046".to_owned())
}

/// Where the receiver goes on.
fn next_link(call: &Call, types: Option<&str>, last: Option<EventId>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(types.map(|types| ("types", types)));
    query.extend_pairs(last.map(|last| ("lastEventId", format!("_{last}"))));
    let (base, query) = (&call.services.config.load().public_url, query.finish());
    let mark = if query.is_empty() { "" } else { "?" };
    format!("{base}{}{mark}{query}", call.path())
}

/// The company that country and tenant stand for, which must be the caller's.
fn company_of(call: &Call) -> Result<CompanyId, Fault> {
    let (country, tenant) = (call.segment_after("v1"), call.segment_after("external"));
    let company = call.services.companies.by_slug(tenant);
    let company = company.filter(|company| company.country.as_ref().is_some_and(|own| own.as_str().eq_ignore_ascii_case(country)));
    let unknown = || Fault::new(StatusCode::NOT_FOUND, "no_such_company", format!("there is no tenant {tenant} in {country}"));
    let company = company.ok_or_else(unknown)?;
    match &call.principal {
        Principal::Local => Ok(company.id),
        other if other.company() == Some(company.id) => Ok(company.id),
        _ => Err(Fault::new(StatusCode::FORBIDDEN, "other_company", "the token belongs to another tenant")),
    }
}

fn incorrect(reason: &str) -> Fault {
    Fault::bad_request(INCORRECT_PAYLOAD, format!("Incorrect payload, {reason}"))
}

/// A refusal in the terms of the bridge's clients.
pub(super) fn render(fault: &Fault, path: &str, _request_id: &str, now: Timestamp) -> Response {
    let mut headers = HeaderMap::new();
    let body = match (fault.status, fault.code) {
        (_, INCORRECT_PAYLOAD) => bridge::incorrect(&fault.detail),
        (StatusCode::UNAUTHORIZED, code) => {
            let (error, description) = match code {
                "unauthorized" => ("unauthorized", "Full authentication is required to access this resource"),
                "key_expired" => ("invalid_token", "Access token expired"),
                _ => ("invalid_token", "Invalid access token"),
            };
            challenge(&mut headers, &format!("Bearer realm=\"lutine\", error=\"{error}\", error_description=\"{description}\""));
            bridge::credentials_error(error, description, None)
        }
        (StatusCode::FORBIDDEN, "insufficient_scope") => {
            let (description, scope) = ("Insufficient scope for this resource", "events");
            challenge(&mut headers, &format!("Bearer realm=\"lutine\", error=\"insufficient_scope\", scope=\"{scope}\""));
            bridge::credentials_error("insufficient_scope", description, Some(scope))
        }
        (StatusCode::FORBIDDEN, _) => bridge::credentials_error("access_denied", &fault.detail, None),
        (status, code) => {
            let exception = (code == MISSING_EVENT_TYPE).then_some(BINDING_EXCEPTION);
            let reason = status.canonical_reason().unwrap_or("Error");
            bridge::error(now, (status.as_u16(), reason), exception, &fault.detail, path)
        }
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = fault.status;
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json;charset=utf-8"));
    if let Some(seconds) = fault.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if fault.closes {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    *response.headers_mut() = headers;
    response
}

fn challenge(headers: &mut HeaderMap, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(WWW_AUTHENTICATE, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_an_underscore_or_none() {
        assert_eq!(read_id("_122046"), Ok(EventId(122_046)));
        assert_eq!(read_id("122046"), Ok(EventId(122_046)));
        for text in ["", "_", "__1", "-1", "+1", "1_", "x", "99999999999999999999999"] {
            assert!(read_id(text).is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn what_the_daemon_cannot_do_has_the_shape_of_the_framework() {
        use http_body_util::BodyExt;
        let now = "2026-11-22T10:30:00.123456Z".parse().unwrap();
        let busy = Fault { retry_after: Some(1), ..Fault::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "too much waits") };
        for (fault, status, reason) in [(busy, 503, "Service Unavailable"), (Fault::internal("broken"), 500, "Internal Server Error")] {
            let response = render(&fault, "/a", "r", now);
            assert_eq!(response.headers().get(RETRY_AFTER).is_some(), status == 503);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let expected = format!(
                r#"{{"timestamp":"2026-11-22T10:30:00.123+0000","status":{status},"error":"{reason}","message":"{}","path":"/a"}}"#,
                fault.detail
            );
            assert_eq!(body, expected.as_bytes());
        }
    }
}
