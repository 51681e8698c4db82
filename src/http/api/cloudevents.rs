//! CloudEvents on `POST /api/v1/events`.

use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::response::Response;

use super::publish::{IDEMPOTENCY_KEY, refuse_counted, sizes, store_batch, store_one};
use crate::http::call::Call;
use crate::http::fault::Fault;
use crate::wire::cloudevents::{BATCHED, HEADER_PREFIX, STRUCTURED, is_json, parse_batch, parse_binary, parse_structured};

/// What the content types of CloudEvents begin with.
const FAMILY: &[u8] = b"application/cloudevents";
const CE_SPECVERSION: HeaderName = HeaderName::from_static("ce-specversion");
const CE_ID: HeaderName = HeaderName::from_static("ce-id");

/// Whether a call brings CloudEvents.
pub(super) fn is_meant(call: &Call) -> bool {
    let headers = call.headers();
    is_of_family(call) || headers.contains_key(&CE_SPECVERSION) || headers.contains_key(&CE_ID)
}

fn is_of_family(call: &Call) -> bool {
    let content_type = call.headers().get(CONTENT_TYPE).map(|value| value.as_bytes().trim_ascii());
    content_type.and_then(|value| value.get(..FAMILY.len())).is_some_and(|start| start.eq_ignore_ascii_case(FAMILY))
}

/// `POST /api/v1/events` with CloudEvents
pub(super) async fn publish(call: Call) -> Result<Response, Fault> {
    let company = call.company()?;
    call.query(&[])?;
    if call.header(&IDEMPOTENCY_KEY)?.is_some() {
        let detail = "a CloudEvent is known by its `source` and `id`; send no `Idempotency-Key`";
        return Err(Fault::bad_request("idempotency_key_on_cloudevent", detail));
    }
    let sizes = sizes(&call);
    if !is_of_family(&call) {
        let (call, body) = call.read_body(sizes.body_bytes_max, StatusCode::PAYLOAD_TOO_LARGE).await?;
        let content_type = call.header(&CONTENT_TYPE)?.unwrap_or_default();
        if !body.is_empty() && !is_json(content_type) {
            return Err(Fault::content_type("JSON in UTF-8, such as application/json: only such data can be kept"));
        }
        let headers =
            call.headers().iter().filter_map(|(name, value)| Some((name.as_str().strip_prefix(HEADER_PREFIX)?, value.as_bytes())));
        let event = parse_binary(headers, &body, &sizes.event);
        let event = refuse_counted(&call, event)?;
        return store_one(call, company, event).await;
    }
    let expected = format!("{STRUCTURED} or {BATCHED}");
    match call.media_type(&expected)?.as_str() {
        STRUCTURED => {
            let (call, body) = call.read_body(sizes.body_bytes_max, StatusCode::PAYLOAD_TOO_LARGE).await?;
            let event = refuse_counted(&call, parse_structured(&body, &sizes.event))?;
            store_one(call, company, event).await
        }
        BATCHED => {
            let (call, body) = call.read_body(sizes.batch_bytes_max, StatusCode::PAYLOAD_TOO_LARGE).await?;
            store_batch(call, company, parse_batch(&body, &sizes.event, sizes.batch_events_max)?).await
        }
        _ => Err(Fault::content_type(&expected)),
    }
}
