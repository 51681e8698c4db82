//! The daemon itself: settings, audit log, how it stands.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use axum::response::Response;
use tokio::task::spawn_blocking;

use crate::http::call::{Call, json};
use crate::http::fault::Fault;
use crate::wire::admin::{AuditShape, SettingShape, StatusShape, VerifyShape};

const AUDIT_LIMIT_DEFAULT: usize = 50;
const AUDIT_LIMIT_MAX: usize = 500;

/// `GET /api/v1/admin/config`
pub(in crate::http) async fn config(call: Call) -> Result<Response, Fault> {
    call.require_system()?;
    call.query(&[])?;
    let effective = call.services.config.load().effective();
    let settings: Vec<_> = effective.into_iter().map(|(key, value, source)| SettingShape { key, value, source }).collect();
    json(StatusCode::OK, &BTreeMap::from([("config", settings)]))
}

/// `GET /api/v1/admin/audit`
pub(in crate::http) async fn audit(call: Call) -> Result<Response, Fault> {
    call.require_system()?;
    let query = call.query(&["before", "limit"])?;
    let before = query.number("before", 1, u64::MAX)?;
    let limit = query.number("limit", 1, AUDIT_LIMIT_MAX)?.unwrap_or(AUDIT_LIMIT_DEFAULT);
    let rows = call.services.store.audit(before, limit)?;
    let shape = |row: crate::store::AuditRow| AuditShape {
        number: row.number,
        at_utc: row.at.to_string(),
        actor: row.actor,
        request_id: row.request_id,
        act: row.act,
        object: row.object,
        detail: row.detail,
    };
    json(StatusCode::OK, &BTreeMap::from([("audit", rows.into_iter().map(shape).collect::<Vec<_>>())]))
}

/// `GET /api/v1/admin/status`
pub(in crate::http) async fn status(call: Call) -> Result<Response, Fault> {
    call.require_system()?;
    call.query(&[])?;
    let config = call.services.config.load();
    let status = call.services.store.status();
    let has_events = status.tail.id.0 > 0;
    json(
        StatusCode::OK,
        &StatusShape {
            version: env!("CARGO_PKG_VERSION"),
            environment: config.environment.as_str(),
            last_event_id: status.tail.id.0,
            last_event_utc: has_events.then(|| status.tail.created.to_string()),
            segments_sealed: status.segments_sealed,
            segments_waiting: status.segments_waiting,
            disk_bytes: status.disk_bytes,
            queue_events: status.queue_events,
            queue_bytes: status.queue_bytes,
            clock_in_doubt: status.clock_in_doubt,
            last_seal_ms: status.last_seal.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
            retention_seconds: config.retention.span().as_secs(),
        },
    )
}

/// `POST /api/v1/admin/verify`: reads the whole log, on a thread of its own.
pub(in crate::http) async fn verify(call: Call) -> Result<Response, Fault> {
    call.query(&[])?;
    let store = call.services.store.clone();
    let report = spawn_blocking(move || store.verify()).await.map_err(|error| Fault::internal(error.to_string()))?;
    let report = report.map_err(|fault| Fault::internal(fault.to_string()))?;
    json(
        StatusCode::OK,
        &VerifyShape {
            ok: report.faults.is_empty(),
            segments: report.segments,
            chunks: report.chunks,
            snapshots: report.snapshots,
            events: report.events,
            faults: report.faults,
        },
    )
}
