//! Calls for machines that watch the daemon.

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::Response;

use super::fault::Fault;
use super::gate::OpenCall;
use crate::telemetry::metrics::CONTENT_TYPE as METRICS_TYPE;

fn plain(status: StatusCode, content_type: &'static str, text: impl Into<Body>) -> Response {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The process answers.
pub(super) async fn health(_: OpenCall) -> Result<Response, Fault> {
    Ok(plain(StatusCode::OK, "text/plain", "ok\n"))
}

/// The store is open and commits.
pub(super) async fn readiness(call: OpenCall) -> Result<Response, Fault> {
    let is_ready = call.services.store.is_writable() && !call.services.shutdown.is_cancelled();
    let (status, text) = if is_ready { (StatusCode::OK, "ready\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n") };
    Ok(plain(status, "text/plain", text))
}

/// Everything that is counted.
pub(super) async fn metrics(call: OpenCall) -> Result<Response, Fault> {
    let text = call.services.metrics.render().map_err(|error| Fault::internal(error.to_string()))?;
    Ok(plain(StatusCode::OK, METRICS_TYPE, text))
}
