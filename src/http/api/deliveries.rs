//! The delivery log.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use axum::http::header::{HeaderName, HeaderValue};
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;

use super::companies::wrong;
use super::subscriptions::named;
use crate::domain::egress::EgressPolicy;
use crate::domain::filter::TypeFilter;
use crate::domain::scope::Scope;
use crate::domain::subscription::DeliveryId;
use crate::http::call::{Call, json};
use crate::http::fault::Fault;
use crate::service::deliveries::{DeadLettersRequest, DeliveriesRequest};
use crate::store::{AttemptRow, DeadThen, DeliveryStateName, DeliveryView};
use crate::wire::deliveries::{AttemptShape, DeliveryShape};
use crate::wire::replays::{DeadLettersBody, parse_dead_letters, parse_reason};

const X_PAGING_CURSOR: HeaderName = HeaderName::from_static("x-paging-cursor");

/// The longest body that says what is to be done with dead letters, in bytes.
const BODY_BYTES_MAX: usize = 65_536;

const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: usize = 200;
/// The longest reason of a person, in characters.
const REASON_LENGTH_MAX: usize = 500;

/// What a caller may see of attempts.
#[derive(Debug, Clone, Copy)]
struct Sight {
    addresses: bool,
    private_excerpts: bool,
}

impl Sight {
    fn of(call: &Call) -> Self {
        let is_admin = call.principal.allows(Scope::Admin);
        Self { addresses: is_admin, private_excerpts: is_admin || call.services.config.load().delivery.private_excerpts }
    }

    fn shows_excerpt(self, attempt: &AttemptRow) -> bool {
        let public_only = EgressPolicy { allow_public: true, ..EgressPolicy::default() };
        let is_public = match attempt.address {
            Some(address) => public_only.decide(address).is_ok(),
            // What answered through a proxy may be anywhere.
            None => attempt.status.is_none(),
        };
        self.private_excerpts || is_public
    }
}

fn attempt_shape(attempt: &AttemptRow, sight: Sight) -> AttemptShape {
    AttemptShape {
        number: attempt.number,
        started_utc: attempt.started.to_string(),
        duration_ms: u64::try_from(attempt.duration.as_millis()).unwrap_or(u64::MAX),
        address: attempt.address.filter(|_| sight.addresses).map(|address| address.to_string()),
        status: attempt.status,
        excerpt: sight.shows_excerpt(attempt).then(|| attempt.excerpt.clone()),
        truncated: attempt.truncated,
        error_class: attempt.error_class.map(|class| class.as_str()),
        error: attempt.error.clone(),
        next_due_utc: attempt.next_due.map(|due| due.to_string()),
    }
}

fn shape(view: &DeliveryView, attempts: Option<Sight>) -> DeliveryShape {
    DeliveryShape {
        id: view.id.to_string(),
        subscription_id: view.id.subscription.0,
        event_id: view.id.event.0,
        kind: view.kind.clone(),
        state: view.state.as_str(),
        replay: Some(view.id.run).filter(|run| *run > 0),
        next_due_utc: view.next_due.map(|due| due.to_string()),
        reason: view.reason.clone(),
        attempts: attempts.map(|sight| view.attempts.iter().map(|attempt| attempt_shape(attempt, sight)).collect()),
    }
}

fn unknown() -> Fault {
    Fault::new(StatusCode::NOT_FOUND, "not_found", "there is no such delivery")
}

fn id_of(call: &Call) -> Result<DeliveryId, Fault> {
    let parse = |error: crate::domain::subscription::ParseDeliveryIdError| Fault::bad_request("invalid_id", error.to_string());
    call.segment_after("deliveries").parse().map_err(parse)
}

/// `GET /api/v1/webhooks/subscriptions/{id}/deliveries`
pub(in crate::http) async fn list(call: Call) -> Result<Response, Fault> {
    let subscription = named(&call)?;
    let query = call.query(&["state", "types", "cursor", "limit"])?;
    let states = DeliveryStateName::ALL.map(|state| (state.as_str(), state));
    let request = DeliveriesRequest {
        state: query.word("state", &states)?,
        filter: query.parsed("types", |text| TypeFilter::parse_list(text).map_err(|error| error.to_string()))?.unwrap_or_default(),
        cursor: query.text("cursor").map(str::to_owned),
        limit: query.number("limit", 1, LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT),
    };
    let page = call.services.deliveries.list(&subscription, &request)?;
    let shapes: Vec<DeliveryShape> = page.deliveries.iter().map(|view| shape(view, None)).collect();
    let mut response = json(StatusCode::OK, &BTreeMap::from([("deliveries", shapes)]))?;
    if let Some(cursor) = page.paging.and_then(|cursor| HeaderValue::try_from(cursor).ok()) {
        response.headers_mut().insert(X_PAGING_CURSOR, cursor);
    }
    Ok(response)
}

/// `GET /api/v1/deliveries/{id}`
pub(in crate::http) async fn get(call: Call) -> Result<Response, Fault> {
    let company = call.company()?;
    call.query(&[])?;
    let view = call.services.deliveries.get(company, id_of(&call)?)?.ok_or_else(unknown)?;
    json(StatusCode::OK, &shape(&view, Some(Sight::of(&call))))
}

/// `POST /api/v1/deliveries/{id}/retry`
pub(in crate::http) async fn retry(call: Call) -> Result<Response, Fault> {
    let company = call.company()?;
    call.query(&[])?;
    let id = id_of(&call)?;
    let (call, body) = call.read_optional_json(BODY_BYTES_MAX).await?;
    let reason = parse_reason(&body)?.unwrap_or_default();
    let (actor, services) = (call.actor(), call.services);
    services.deliveries.retry(company, id, &reason, &actor).await?;
    json(StatusCode::ACCEPTED, &json!({ "deliveryId": id.to_string() }))
}

async fn settle_dead(call: Call, then: DeadThen, status: StatusCode) -> Result<Response, Fault> {
    call.query(&[])?;
    let subscription = named(&call)?;
    let (call, body) = call.read_optional_json(BODY_BYTES_MAX).await?;
    let DeadLettersBody { from, to, filter, reason } = parse_dead_letters(&body, then == DeadThen::Discard)?;
    let request = DeadLettersRequest { from, to, filter, reason };
    let (actor, services) = (call.actor(), call.services);
    let settled = services.deliveries.settle_dead(&subscription, &request, then, &actor).await?;
    json(status, &json!({ "count": settled.count, "more": settled.has_more }))
}

/// `POST /api/v1/webhooks/subscriptions/{id}/retry`
pub(in crate::http) async fn retry_all(call: Call) -> Result<Response, Fault> {
    settle_dead(call, DeadThen::Retry, StatusCode::ACCEPTED).await
}

/// `POST /api/v1/webhooks/subscriptions/{id}/discard`
pub(in crate::http) async fn discard_all(call: Call) -> Result<Response, Fault> {
    settle_dead(call, DeadThen::Discard, StatusCode::OK).await
}

/// Body of a discard.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DiscardBody {
    reason: String,
}

/// `POST /api/v1/deliveries/{id}/discard`
pub(in crate::http) async fn discard(call: Call) -> Result<Response, Fault> {
    let company = call.company()?;
    call.query(&[])?;
    let id = id_of(&call)?;
    let (call, body): (_, DiscardBody) = call.read_json().await?;
    let is_right = (1..=REASON_LENGTH_MAX).contains(&body.reason.chars().count()) && !body.reason.chars().any(char::is_control);
    if !is_right {
        return Err(wrong("/reason", format!("a reason is 1 to {REASON_LENGTH_MAX} characters without control characters")));
    }
    let (actor, sight, services) = (call.actor(), Sight::of(&call), call.services);
    let view = services.deliveries.discard(company, id, &body.reason, &actor).await?;
    json(StatusCode::OK, &shape(&view, Some(sight)))
}
