//! What the links of notifications lead to.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use url::Url;

use crate::http::call::Call;
use crate::http::fault::Fault;
use crate::service::notifications::Linked;
use crate::store::Snapshot;

/// `GET /api/public/v2/notifications/{notificationId}/{plural}/{referenceId}`
pub(in crate::http) async fn get(call: Call) -> Result<Response, Fault> {
    let company = call.company()?;
    call.query(&[])?;
    let [notification_id, plural, reference] = call.last_segments().ok_or_else(Fault::no_such_path)?;
    let reference = percent_decode_str(reference).decode_utf8().map_err(|_| Fault::no_such_path())?;
    let linked = call.services.notifications.follow(company, notification_id, plural, &reference)?;
    match linked {
        Linked::Snapshot(snapshot) => snapshot_response(&call, snapshot),
        Linked::Elsewhere(href) => redirect_response(&href),
    }
}

fn snapshot_response(call: &Call, snapshot: Snapshot) -> Result<Response, Fault> {
    let unusable = |_| Fault::internal("a snapshot has a content type that no header can hold");
    // One link has one content for ever: any text would do that is the same each time.
    let etag = format!("\"{:016x}\"", snapshot.hash);
    let is_known = call.header(&IF_NONE_MATCH)?.is_some_and(|known| matches_etag(known, &etag));
    let mut response = Response::new(if is_known { Body::empty() } else { Body::from(snapshot.body) });
    let headers = response.headers_mut();
    if !is_known {
        headers.insert(CONTENT_TYPE, HeaderValue::from_str(&snapshot.content_type).map_err(unusable)?);
        // It is a publisher's: whatever it says it is, no browser runs it in our name.
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
    }
    headers.insert(ETAG, HeaderValue::from_maybe_shared(Bytes::from(etag)).map_err(|_| Fault::internal("no entity tag"))?);
    headers.insert(CACHE_CONTROL, IMMUTABLE);
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    Ok(response)
}

const IMMUTABLE: HeaderValue = HeaderValue::from_static("private, immutable");

fn redirect_response(href: &str) -> Result<Response, Fault> {
    // What is not ASCII is escaped by the rules of URLs; all else stays as published.
    let location = match href.is_ascii() {
        true => href.to_owned(),
        false => Url::parse(href).map_err(|error| Fault::internal(error.to_string()))?.into(),
    };
    let location = HeaderValue::from_maybe_shared(Bytes::from(location)).map_err(|error| Fault::internal(error.to_string()))?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::FOUND;
    response.headers_mut().insert(LOCATION, location);
    response.headers_mut().insert(CACHE_CONTROL, IMMUTABLE);
    Ok(response)
}

/// Whether `If-None-Match` names the entity tag, compared weakly (RFC 9110, 13.1.2).
fn matches_etag(known: &str, etag: &str) -> bool {
    let strong = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag) == etag;
    known.trim() == "*" || known.split(',').map(str::trim).any(strong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_tags_are_compared_weakly_and_in_lists() {
        for known in ["\"a\"", "W/\"a\"", "*", "\"x\", \"a\"", "\"x\",W/\"a\" "] {
            assert!(matches_etag(known, "\"a\""), "{known}");
        }
        for known in ["\"b\"", "a", "", "\"x\", \"aa\""] {
            assert!(!matches_etag(known, "\"a\""), "{known}");
        }
    }
}
