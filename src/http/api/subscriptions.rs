//! Subscriptions: where and how webhooks go.

use axum::http::StatusCode;
use axum::response::Response;
use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use crate::domain::subscription::{Subscription, SubscriptionId};
use crate::http::call::{Call, json};
use crate::http::fault::Fault;
use crate::service::Services;
use crate::service::subscriptions::secret_text;
use crate::wire::replays::parse_rotation;
use crate::wire::subscriptions::{BacklogShape, SubscriptionShape, parse_change, parse_new};

/// The longest body that describes a subscription, in bytes.
const BODY_BYTES_MAX: usize = 65_536;

pub(super) fn unknown() -> Fault {
    Fault::new(StatusCode::NOT_FOUND, "not_found", "there is no such subscription")
}

/// The subscription that the path names; the same answer for what is unknown and what is another company's.
pub(super) fn named(call: &Call) -> Result<std::sync::Arc<Subscription>, Fault> {
    let company = call.company()?;
    // `…/subscriptions/{id}` and `…/subscriptions/{id}/act`
    let text = call.segment_after("subscriptions");
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Fault::bad_request("invalid_id", "a subscription's id is a whole number"));
    }
    let id = text.parse().map(SubscriptionId).map_err(|_| unknown())?;
    call.services.subscriptions.get(company, id).ok_or_else(unknown)
}

async fn shape(services: &Services, subscription: &Subscription) -> Result<SubscriptionShape, Fault> {
    let backlog = services.subscriptions.backlog(subscription).await?;
    let now = services.clock.now();
    let oldest_seconds = backlog.oldest.map_or(0, |oldest| now.since(oldest).as_secs());
    Ok(SubscriptionShape::of(subscription, BacklogShape { events: backlog.events, oldest_seconds }))
}

/// `POST /api/v1/webhooks/subscriptions`
pub(in crate::http) async fn create(call: Call) -> Result<Response, Fault> {
    let company = call.company()?;
    call.query(&[])?;
    call.require_json()?;
    let in_flight_max = call.services.config.load().delivery.per_subscription_max;
    let (call, body) = call.read_body(BODY_BYTES_MAX, StatusCode::PAYLOAD_TOO_LARGE).await?;
    let new = parse_new(&body, in_flight_max)?;
    let (actor, services) = (call.actor(), call.services);
    let subscription = services.subscriptions.create(company, new.wishes, new.start_from.as_deref(), &actor).await?;
    json(StatusCode::CREATED, &SubscriptionShape::fresh(&subscription, secret_text(&subscription.secret)))
}

/// `GET /api/v1/webhooks/subscriptions`
pub(in crate::http) async fn list(call: Call) -> Result<Response, Fault> {
    let company = call.company()?;
    call.query(&[])?;
    let services = call.services;
    let mut shapes = Vec::new();
    for subscription in services.subscriptions.list(company) {
        shapes.push(shape(&services, &subscription).await?);
    }
    json(StatusCode::OK, &BTreeMap::from([("subscriptions", shapes)]))
}

/// `GET /api/v1/webhooks/subscriptions/{id}`
pub(in crate::http) async fn get(call: Call) -> Result<Response, Fault> {
    call.query(&[])?;
    let subscription = named(&call)?;
    let services = call.services;
    json(StatusCode::OK, &shape(&services, &subscription).await?)
}

/// `PATCH /api/v1/webhooks/subscriptions/{id}`
pub(in crate::http) async fn change(call: Call) -> Result<Response, Fault> {
    call.query(&[])?;
    call.require_json()?;
    let subscription = named(&call)?;
    let in_flight_max = call.services.config.load().delivery.per_subscription_max;
    let (call, body) = call.read_body(BODY_BYTES_MAX, StatusCode::PAYLOAD_TOO_LARGE).await?;
    let wishes = parse_change(&body, &subscription.wishes, in_flight_max)?;
    let (actor, services) = (call.actor(), call.services);
    let changed = services.subscriptions.change(subscription.company, subscription.id, wishes, &actor).await?;
    json(StatusCode::OK, &shape(&services, &*changed.ok_or_else(unknown)?).await?)
}

/// `DELETE /api/v1/webhooks/subscriptions/{id}`
pub(in crate::http) async fn delete(call: Call) -> Result<Response, Fault> {
    call.query(&[])?;
    let subscription = named(&call)?;
    let (actor, services) = (call.actor(), call.services);
    if !services.subscriptions.delete(subscription.company, subscription.id, &actor).await? {
        return Err(unknown());
    }
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// `POST /api/v1/webhooks/subscriptions/{id}/pause`
pub(in crate::http) async fn pause(call: Call) -> Result<Response, Fault> {
    call.query(&[])?;
    let subscription = named(&call)?;
    let (actor, services) = (call.actor(), call.services);
    let changed = services.subscriptions.pause(subscription.company, subscription.id, &actor).await?;
    json(StatusCode::OK, &shape(&services, &*changed.ok_or_else(unknown)?).await?)
}

/// `POST /api/v1/webhooks/subscriptions/{id}/resume`
pub(in crate::http) async fn resume(call: Call) -> Result<Response, Fault> {
    call.query(&[])?;
    let subscription = named(&call)?;
    let (actor, services) = (call.actor(), call.services);
    let changed = services.subscriptions.resume(subscription.company, subscription.id, &actor).await?;
    json(StatusCode::OK, &shape(&services, &*changed.ok_or_else(unknown)?).await?)
}

/// `POST /api/v1/webhooks/subscriptions/{id}/rotate-secret`
pub(in crate::http) async fn rotate(call: Call) -> Result<Response, Fault> {
    call.query(&[])?;
    let subscription = named(&call)?;
    let (call, body) = call.read_optional_json(BODY_BYTES_MAX).await?;
    let overlap = Duration::from_secs(parse_rotation(&body)?);
    let (actor, services) = (call.actor(), call.services);
    let rotated = services.subscriptions.rotate_secret(subscription.company, subscription.id, overlap, &actor).await?;
    let rotated = rotated.ok_or_else(unknown)?;
    let expires = rotated.previous.as_ref().map(|previous| previous.until.to_string());
    json(StatusCode::OK, &json!({ "secret": secret_text(&rotated.secret), "previousExpiresUtc": expires }))
}

/// `POST /api/v1/webhooks/subscriptions/{id}/test`
pub(in crate::http) async fn test(call: Call) -> Result<Response, Fault> {
    call.query(&[])?;
    let subscription = named(&call)?;
    let (actor, services) = (call.actor(), call.services);
    let delivery = services.subscriptions.test(&subscription, &actor).await?;
    json(StatusCode::ACCEPTED, &json!({ "deliveryId": delivery.to_string() }))
}
