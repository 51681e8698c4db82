//! Events that come in.

use axum::http::StatusCode;
use axum::http::header::HeaderName;
use axum::response::Response;
use tokio::task::spawn_blocking;

use super::cloudevents;
use crate::domain::company::CompanyId;
use crate::domain::event::{DedupeKey, EventLimits, NewEvent, Receipt};
use crate::http::call::{Call, json_text, located};
use crate::http::fault::Fault;
use crate::service::events::PublishError;
use crate::store::AppendError;
use crate::telemetry::metrics::PublishCounters;
use crate::wire::events::{receipt, results, test_receipt};
use crate::wire::publish::{
    BatchForm, Refusal, may_have_snapshots, parse_batch, parse_event, parse_event_beside_snapshots, parse_test_event,
};

pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What a batch may be sent as.
const BATCH_TYPES: &str = "application/x-ndjson or application/json";

/// The sizes that are in force.
pub(in crate::http) struct Sizes {
    pub event: EventLimits,
    pub body_bytes_max: usize,
    /// With snapshots.
    pub snapshot_body_bytes_max: usize,
    pub batch_bytes_max: usize,
    pub batch_events_max: usize,
}

pub(in crate::http) fn sizes(call: &Call) -> Sizes {
    let config = call.services.config.load();
    let limits = &config.limits;
    let event = EventLimits {
        payload_bytes_max: limits.payload_bytes_max,
        metadata_bytes_max: limits.metadata_bytes_max,
        snapshot_bytes_max: limits.snapshot_bytes_max,
        ..EventLimits::default()
    };
    Sizes {
        event,
        body_bytes_max: limits.body_bytes_max,
        snapshot_body_bytes_max: limits.snapshot_body_bytes_max,
        batch_bytes_max: limits.batch_bytes_max,
        batch_events_max: limits.batch_events_max,
    }
}

/// `POST /api/v1/events`
pub(in crate::http) async fn one(call: Call) -> Result<Response, Fault> {
    if cloudevents::is_meant(&call) {
        return cloudevents::publish(call).await;
    }
    let company = call.company()?;
    call.query(&[])?;
    call.require_json()?;
    let sizes = sizes(&call);
    let (call, body, _room) = call.read_large_body(sizes.body_bytes_max, may_have_snapshots, sizes.snapshot_body_bytes_max).await?;
    let parsed = if body.len() > sizes.body_bytes_max {
        // Long enough to be read on a thread of its own, so that other callers do not wait for it.
        let parse = move || parse_event_beside_snapshots(&body, &sizes.event, sizes.body_bytes_max);
        spawn_blocking(parse).await.map_err(|error| Fault::internal(error.to_string()))?
    } else {
        parse_event(&body, &sizes.event)
    };
    let event = refuse_counted(&call, parsed)?;
    let event = with_idempotency_key(&call, event)?;
    store_one(call, company, event).await
}

/// Publishes one event, and renders what its publisher is told.
pub(super) async fn store_one(call: Call, company: CompanyId, event: NewEvent) -> Result<Response, Fault> {
    let stored = call.services.events.publish(company, &call.principal, event).await;
    count(&call.services.metrics.published, &stored);
    let stored = stored?;
    let status = if stored.duplicate { StatusCode::OK } else { StatusCode::CREATED };
    Ok(located(json_text(status, receipt(&stored)), format!("/api/v1/events/{}", stored.id)))
}

/// `POST /api/v1/events/test`
pub(in crate::http) async fn test(call: Call) -> Result<Response, Fault> {
    let company = call.company()?;
    call.query(&[])?;
    call.require_json()?;
    let sizes = sizes(&call);
    let (call, body) = call.read_body(sizes.body_bytes_max, StatusCode::BAD_REQUEST).await?;
    let event = refuse_counted(&call, parse_test_event(&body, &sizes.event))?;
    let event = with_idempotency_key(&call, event)?;
    let stored = call.services.events.publish_test(company, &call.principal, event).await;
    count(&call.services.metrics.published, &stored);
    Ok(json_text(StatusCode::ACCEPTED, test_receipt(&stored?)))
}

/// `POST /api/v1/events/batch`
pub(in crate::http) async fn batch(call: Call) -> Result<Response, Fault> {
    let company = call.company()?;
    call.query(&[])?;
    if call.header(&IDEMPOTENCY_KEY)?.is_some() {
        return Err(Fault::bad_request("idempotency_key_on_batch", "a batch takes no `Idempotency-Key`; give each event a `dedupeKey`"));
    }
    let form = match call.media_type(BATCH_TYPES)?.as_str() {
        "application/x-ndjson" | "application/ndjson" => BatchForm::NdJson,
        "application/json" => BatchForm::JsonArray,
        _ => return Err(Fault::content_type(BATCH_TYPES)),
    };
    let sizes = sizes(&call);
    let (call, body) = call.read_body(sizes.batch_bytes_max, StatusCode::PAYLOAD_TOO_LARGE).await?;
    store_batch(call, company, parse_batch(&body, form, &sizes.event, sizes.batch_events_max)?).await
}

/// Publishes what is right of a batch, and renders what became of each.
pub(super) async fn store_batch(call: Call, company: CompanyId, items: Vec<Result<NewEvent, Refusal>>) -> Result<Response, Fault> {
    call.count_further(items.len().saturating_sub(1))?;
    let counters = &call.services.metrics.published;
    let mut events = Vec::with_capacity(items.len());
    let refusals: Vec<Option<Refusal>> = items
        .into_iter()
        .map(|item| match item {
            Ok(event) => {
                events.push(event);
                None
            }
            Err(refusal) => {
                counters.refused.inc();
                Some(refusal)
            }
        })
        .collect();
    let mut stored = call.services.events.publish_all(company, &call.principal, events).await?.into_iter();
    let outcome = |refusal: Option<Refusal>| match refusal {
        Some(refusal) => Err(Fault::from(refusal).into_item()),
        None => {
            let outcome = stored.next().unwrap_or(Err(PublishError::Append(AppendError::Unknown)));
            count(counters, &outcome);
            outcome.map_err(|error| Fault::from(error).into_item())
        }
    };
    let outcomes: Vec<_> = refusals.into_iter().map(outcome).collect();
    Ok(json_text(StatusCode::OK, results(&outcomes)))
}

pub(super) fn refuse_counted(call: &Call, parsed: Result<NewEvent, Refusal>) -> Result<NewEvent, Fault> {
    parsed.map_err(|refusal| {
        call.services.metrics.published.refused.inc();
        refusal.into()
    })
}

pub(in crate::http) fn count(counters: &PublishCounters, outcome: &Result<Receipt, PublishError>) {
    let counter = match outcome {
        Ok(receipt) if receipt.duplicate => &counters.duplicate,
        Ok(_) => &counters.stored,
        Err(
            PublishError::UnknownType { .. }
            | PublishError::TypeNotAllowed { .. }
            | PublishError::Reserved { .. }
            | PublishError::Schema { .. },
        ) => &counters.refused,
        Err(PublishError::Append(AppendError::DedupeConflict { .. })) => &counters.conflict,
        Err(PublishError::Append(AppendError::Overloaded { .. })) => &counters.overloaded,
        Err(PublishError::Append(AppendError::Unknown | AppendError::Read(_))) => &counters.failed,
    };
    counter.inc();
}

/// The event with the header's key, which may be quoted (RFC 8941, 3.3.3) or bare.
fn with_idempotency_key(call: &Call, event: NewEvent) -> Result<NewEvent, Fault> {
    let Some(text) = call.header(&IDEMPOTENCY_KEY)? else { return Ok(event) };
    let key: DedupeKey = unquoted(text)
        .parse()
        .map_err(|error| Fault::bad_request("invalid_dedupe_key", format!("the header `Idempotency-Key`: {error}")))?;
    match &event.dedupe_key {
        Some(other) if *other != key => {
            let detail = "`Idempotency-Key` and the member `dedupeKey` differ; send one of them";
            Err(Fault { pointer: Some("/dedupeKey".to_owned()), ..Fault::bad_request("dedupe_keys_differ", detail) })
        }
        _ => Ok(NewEvent { dedupe_key: Some(key), ..event }),
    }
}

fn unquoted(text: &str) -> String {
    let Some(inner) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return text.to_owned() };
    let mut key = String::with_capacity(inner.len());
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        // A backslash stands before a quote or another backslash.
        key.push(if letter == '\\' { letters.next().unwrap_or('\\') } else { letter });
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_key_is_the_bare_one() {
        for (given, key) in [("abc", "abc"), ("\"abc\"", "abc"), (r#""a\"b\\c""#, r#"a"b\c"#), ("\"\"", ""), ("\"", "\"")] {
            assert_eq!(unquoted(given), key);
        }
    }
}
