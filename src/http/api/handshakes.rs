//! The other side of a subscription: the consent of receivers, the key that they check signatures with, and what they make
//! of webhooks.

use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use axum::response::Response;
use serde_json::{Value, json};

use super::subscriptions::{named, unknown};
use crate::http::call::{Call, json};
use crate::http::fault::Fault;
use crate::http::gate::OpenCall;
use crate::service::checks::Checked;
use crate::webhook::parse_allowed_rate;

const ALLOWED_RATE: HeaderName = HeaderName::from_static("webhook-allowed-rate");

/// `POST /api/v1/webhooks/subscriptions/{id}/verify`
pub(in crate::http) async fn verify(call: Call) -> Result<Response, Fault> {
    call.query(&[])?;
    let subscription = named(&call)?;
    let (actor, services) = (call.actor(), call.services);
    let verified = services.subscriptions.verify(subscription.company, subscription.id, &actor).await?.ok_or_else(unknown)?;
    let state = verified.subscription.state();
    json(
        StatusCode::OK,
        &match verified.reason {
            None => json!({ "state": state }),
            Some(reason) => json!({ "state": state, "detail": reason }),
        },
    )
}

/// `POST /api/v1/webhooks/subscriptions/{id}/check`
pub(in crate::http) async fn check(call: Call) -> Result<Response, Fault> {
    call.query(&[])?;
    let subscription = named(&call)?;
    let checked = call.services.subscriptions.check_receiver(&subscription).await?;
    json(StatusCode::OK, &check_shape(&checked))
}

fn check_shape(checked: &[Checked]) -> Value {
    let case = |checked: &Checked| {
        let report = checked.report.as_ref();
        json!({
            "case": checked.case.as_str(),
            "passed": checked.passed,
            "meaning": checked.meaning,
            "status": report.and_then(|report| report.status),
            "error": report.and_then(|report| report.error.as_deref()),
            "durationMs": report.map(|report| u64::try_from(report.duration.as_millis()).unwrap_or(u64::MAX)),
        })
    };
    let passed = checked.iter().all(|checked| checked.passed != Some(false));
    json!({ "passed": passed, "cases": checked.iter().map(case).collect::<Vec<_>>() })
}

/// `GET` and `POST /api/v1/webhooks/consent/{token}`: the receiver itself, which knows the token from the question.
pub(in crate::http) async fn consent(call: OpenCall) -> Result<Response, Fault> {
    let token = call.head.uri.path().rsplit('/').next().unwrap_or_default();
    let wrong = |detail: &str| Fault::bad_request("invalid_header", detail.to_owned());
    let rate = match call.head.headers.get(&ALLOWED_RATE) {
        None => None,
        Some(value) => Some(parse_allowed_rate(value.to_str().unwrap_or_default()).map_err(wrong)?),
    };
    if !call.services.subscriptions.consent(token, rate, call.request_id.as_str()).await? {
        return Err(Fault::new(StatusCode::NOT_FOUND, "not_found", "no receiver is asked for its consent at this address"));
    }
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// `GET /api/v1/webhooks/public-key`
pub(in crate::http) async fn public_key(call: Call) -> Result<Response, Fault> {
    let company = call.company()?;
    call.query(&[])?;
    let (actor, services) = (call.actor(), call.services);
    let pem = services.subscriptions.public_key(company, &actor).await?;
    let mut response = Response::new(pem.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}
