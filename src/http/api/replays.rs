//! Replays.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use super::subscriptions::named;
use crate::domain::subscription::{ReplayId, SubscriptionId};
use crate::http::call::{Call, json};
use crate::http::fault::Fault;
use crate::service::Services;
use crate::service::replays::{End, ReplayRequest};
use crate::store::{DeliveryStateName, Replay, ReplayState};
use crate::wire::replays::{Bound, ReplayBody, ReplayShape, ReplayedState, parse_replay};

/// The longest body that says what is to be replayed, in bytes.
const BODY_BYTES_MAX: usize = 262_144;

fn unknown() -> Fault {
    Fault::new(StatusCode::NOT_FOUND, "not_found", "there is no such replay")
}

fn request(body: &ReplayBody) -> ReplayRequest {
    let end = |bound: &Bound| match bound {
        Bound::Time(time) => End::Time(*time),
        Bound::Cursor(text) => End::Cursor(text.clone()),
    };
    ReplayRequest {
        from: body.from.as_ref().map(end),
        to: body.to.as_ref().map(end),
        filter: body.filter.clone(),
        ids: body.ids.clone(),
        state: body.state.map(|state| match state {
            ReplayedState::Delivered => DeliveryStateName::Delivered,
            ReplayedState::Dead => DeliveryStateName::Dead,
            ReplayedState::Cancelled => DeliveryStateName::Cancelled,
        }),
        rate_per_minute: body.rate_per_minute,
    }
}

fn shape(services: &Services, replay: &Replay) -> ReplayShape {
    let progress = &replay.progress;
    let is_done = progress.state == ReplayState::Done;
    ReplayShape {
        replay_id: replay.id.0,
        subscription_id: replay.subscription.0,
        state: progress.state.as_str(),
        count: replay.count,
        done: progress.done,
        expired: if is_done { replay.count.saturating_sub(progress.done) } else { 0 },
        rate_per_minute: replay.rate_per_minute,
        created_utc: replay.created.to_string(),
        ended_utc: progress.ended.map(|ended| ended.to_string()),
        cursor: services.replays.cursor(replay),
    }
}

fn id_of(call: &Call) -> Result<ReplayId, Fault> {
    let text = call.segment_after("replays");
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Fault::bad_request("invalid_id", "a replay's id is a whole number"));
    }
    text.parse().map(ReplayId).map_err(|_| unknown())
}

/// `POST /api/v1/webhooks/subscriptions/{id}/replay`
pub(in crate::http) async fn start(call: Call) -> Result<Response, Fault> {
    call.query(&[])?;
    call.require_json()?;
    let subscription = named(&call)?;
    let (call, body) = call.read_body(BODY_BYTES_MAX, StatusCode::PAYLOAD_TOO_LARGE).await?;
    let body = parse_replay(&body)?;
    let request = request(&body);
    let (actor, services) = (call.actor(), call.services);
    if body.dry_run {
        return json(StatusCode::OK, &json!({ "count": services.replays.count(&subscription, &request)? }));
    }
    let replay = services.replays.start(&subscription, &request, &actor).await?;
    json(StatusCode::ACCEPTED, &json!({ "replayId": replay.id.0, "count": replay.count }))
}

/// `GET /api/v1/replays`
pub(in crate::http) async fn list(call: Call) -> Result<Response, Fault> {
    let company = call.company()?;
    let query = call.query(&["subscription"])?;
    let subscription = query.number("subscription", 1, u32::MAX)?.map(SubscriptionId);
    let replays = call.services.replays.list(company, subscription)?;
    let shapes: Vec<ReplayShape> = replays.iter().map(|replay| shape(&call.services, replay)).collect();
    json(StatusCode::OK, &BTreeMap::from([("replays", shapes)]))
}

/// `GET /api/v1/replays/{id}`
pub(in crate::http) async fn get(call: Call) -> Result<Response, Fault> {
    let company = call.company()?;
    call.query(&[])?;
    let replay = call.services.replays.get(company, id_of(&call)?)?.ok_or_else(unknown)?;
    json(StatusCode::OK, &shape(&call.services, &replay))
}

/// `POST /api/v1/replays/{id}/cancel`
pub(in crate::http) async fn cancel(call: Call) -> Result<Response, Fault> {
    let company = call.company()?;
    call.query(&[])?;
    let id = id_of(&call)?;
    let (actor, services) = (call.actor(), call.services);
    services.replays.cancel(company, id, &actor).await?;
    let replay = services.replays.get(company, id)?.ok_or_else(unknown)?;
    json(StatusCode::ACCEPTED, &shape(&services, &replay))
}
