//! One call on its way to a handler.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::OwnedSemaphorePermit;

use super::body::{self, Growth};
use super::fault::Fault;
use super::gate::RequestId;
use super::query::Query;
use crate::domain::company::CompanyId;
use crate::domain::key::{Bucket, Principal};
use crate::domain::time::Timestamp;
use crate::service::Services;
use crate::service::rates::{Standing, Windows};
use crate::store::Actor;

/// For which company a call on the local socket is made.
const LUTINE_COMPANY: HeaderName = HeaderName::from_static("lutine-company");

/// The longest body of an administrative call, in bytes.
const ADMIN_BODY_BYTES_MAX: usize = 65_536;

/// What a key may still do in this minute.
#[derive(Debug, Clone)]
pub(super) struct Quota {
    pub windows: Arc<Windows>,
    pub bucket: Bucket,
    /// 0 = unlimited.
    pub limit: u32,
}

impl Quota {
    pub fn standing(&self, now: Timestamp) -> Standing {
        self.windows.standing(self.bucket, self.limit, now)
    }

    /// Counts `calls`, or refuses all of them.
    pub fn take(&self, calls: u32, now: Timestamp) -> Result<(), Fault> {
        if self.windows.take(self.bucket, calls, self.limit, now) {
            return Ok(());
        }
        let seconds = self.standing(now).reset.saturating_sub(now.as_seconds()).max(1);
        Err(Fault::rate(self.bucket.as_str(), self.limit, seconds))
    }
}

/// A call by somebody who was let in.
#[derive(Debug)]
pub(super) struct Call {
    pub services: Services,
    pub principal: Principal,
    quota: Option<Quota>,
    head: Parts,
    body: Body,
    request_id: RequestId,
}

impl Call {
    pub fn new(services: Services, principal: Principal, quota: Option<Quota>, head: Parts, body: Body, request_id: RequestId) -> Self {
        Self { services, principal, quota, head, body, request_id }
    }

    /// The company that the call is for.
    pub fn company(&self) -> Result<CompanyId, Fault> {
        match &self.principal {
            Principal::Key(key) => key.grant.company.ok_or_else(Fault::system_key),
            Principal::Token(holder) => holder.grant.company.ok_or_else(Fault::system_key),
            Principal::Local => {
                let name = self.header(&LUTINE_COMPANY)?.ok_or_else(Fault::names_no_company)?;
                let company = self.services.companies.find(name).ok_or_else(|| Fault::no_such_company(name))?;
                Ok(company.id)
            }
        }
    }

    /// Refuses keys of companies.
    pub fn require_system(&self) -> Result<(), Fault> {
        if self.principal.company().is_some() { Err(Fault::needs_system_key()) } else { Ok(()) }
    }

    /// Who acts, for the audit log.
    pub fn actor(&self) -> Actor {
        Actor { name: self.principal.audit_name(), request_id: Some(self.request_id.as_str().to_owned()) }
    }

    /// Counts more calls than the one that was counted when this one was let in.
    pub fn count_further(&self, calls: usize) -> Result<(), Fault> {
        let calls = u32::try_from(calls).unwrap_or(u32::MAX);
        match &self.quota {
            Some(quota) if calls > 0 => quota.take(calls, self.services.clock.now()).inspect_err(|_| {
                self.services.metrics.refused.rate.inc();
            }),
            _ => Ok(()),
        }
    }

    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// What the connection has put into the request.
    pub fn extension<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.head.extensions.get()
    }

    pub fn query(&self, allowed: &[&str]) -> Result<Query<'_>, Fault> {
        Query::read(self.head.uri.query(), allowed)
    }

    /// The query as it was sent.
    pub fn query_text(&self) -> &str {
        self.head.uri.query().unwrap_or_default()
    }

    pub fn path(&self) -> &str {
        self.head.uri.path()
    }

    /// What follows this segment of the path, up to the next slash.
    pub fn segment_after(&self, name: &str) -> &str {
        let mut segments = self.head.uri.path().split('/').skip_while(|segment| *segment != name);
        segments.nth(1).unwrap_or_default()
    }

    /// The segment of the path at this place, counted between slashes from 0, which is the empty one before the first.
    pub fn segment(&self, place: usize) -> &str {
        self.head.uri.path().split('/').nth(place).unwrap_or_default()
    }

    /// What stands behind the last slash of the path.
    pub fn last_segment(&self) -> &str {
        self.head.uri.path().rsplit('/').next().unwrap_or_default()
    }

    /// The last segments of the path, as they were sent; none when it has fewer.
    pub fn last_segments<const N: usize>(&self) -> Option<[&str; N]> {
        let mut segments = self.head.uri.path().rsplit('/');
        let mut last = [""; N];
        for place in last.iter_mut().rev() {
            *place = segments.next()?;
        }
        Some(last)
    }

    /// The text of a header that may be there once.
    pub fn header(&self, name: &HeaderName) -> Result<Option<&str>, Fault> {
        let mut values = self.head.headers.get_all(name).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(Fault::bad_request("repeated_header", format!("the header `{name}` is there twice")));
        }
        match std::str::from_utf8(value.as_bytes()) {
            Ok(text) => Ok(Some(text.trim())),
            Err(_) => Err(Fault::bad_request("invalid_header", format!("the header `{name}` is not UTF-8"))),
        }
    }

    /// The media type in lower case, without parameters. A charset other than UTF-8 is refused.
    pub fn media_type(&self, expected: &str) -> Result<String, Fault> {
        media_type(&self.head.headers, expected)
    }

    /// Refuses a body that is not JSON.
    pub fn require_json(&self) -> Result<(), Fault> {
        const JSON: &str = "application/json";
        if self.media_type(JSON)? == JSON { Ok(()) } else { Err(Fault::content_type(JSON)) }
    }

    /// The body and the rest of the call.
    pub async fn read_body(mut self, bytes_max: usize, too_large: StatusCode) -> Result<(Self, Bytes), Fault> {
        let body = std::mem::take(&mut self.body);
        let time_max = Duration::from_secs(self.services.config.load().server.body_read_timeout_seconds);
        let bytes = body::read(body, &self.head.headers, bytes_max, time_max, too_large).await?;
        Ok((self, bytes))
    }

    /// The body and the rest of the call, where the body may be a large one. As long as the permit lives it has its place
    /// in memory.
    pub async fn read_large_body(
        mut self,
        bytes_max: usize,
        may_grow: fn(&[u8]) -> bool,
        grown_bytes_max: usize,
    ) -> Result<(Self, Bytes, Option<OwnedSemaphorePermit>), Fault> {
        let body = std::mem::take(&mut self.body);
        let time_max = Duration::from_secs(self.services.config.load().server.body_read_timeout_seconds);
        let growth = Growth { bytes_max: grown_bytes_max, may_grow, room: &self.services.large_bodies };
        let (bytes, permit) = body::read_growing(body, &self.head.headers, bytes_max, growth, time_max).await?;
        Ok((self, bytes, permit))
    }

    /// The body of a call that may come without one: JSON, or nothing.
    pub async fn read_optional_json(self, bytes_max: usize) -> Result<(Self, Bytes), Fault> {
        let is_said = self.head.headers.contains_key(CONTENT_TYPE);
        if is_said {
            self.require_json()?;
        }
        let (call, bytes) = self.read_body(bytes_max, StatusCode::PAYLOAD_TOO_LARGE).await?;
        if is_said || bytes.is_empty() { Ok((call, bytes)) } else { Err(Fault::content_type("application/json")) }
    }

    /// The body of an administrative call.
    pub async fn read_json<T: DeserializeOwned>(self) -> Result<(Self, T), Fault> {
        self.require_json()?;
        let (call, bytes) = self.read_body(ADMIN_BODY_BYTES_MAX, StatusCode::PAYLOAD_TOO_LARGE).await?;
        let value = serde_json::from_slice(&bytes).map_err(|error| {
            let code = if error.is_data() { "invalid_member" } else { "invalid_json" };
            Fault::bad_request(code, error.to_string())
        })?;
        Ok((call, value))
    }
}

/// The media type in lower case, without parameters. A charset other than UTF-8 is refused.
pub(super) fn media_type(headers: &HeaderMap, expected: &str) -> Result<String, Fault> {
    let refused = || Fault::content_type(expected);
    let value = headers.get(CONTENT_TYPE).ok_or_else(refused)?.to_str().map_err(|_| refused())?;
    let mut parts = value.split(';');
    let media_type = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
    for parameter in parts {
        let (name, text) = parameter.split_once('=').unwrap_or((parameter, ""));
        let text = text.trim().trim_matches('"');
        if name.trim().eq_ignore_ascii_case("charset") && !text.eq_ignore_ascii_case("utf-8") && !text.eq_ignore_ascii_case("utf8") {
            return Err(Fault::content_type(&format!("{expected} in UTF-8")));
        }
    }
    Ok(media_type)
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Headers that an answer gets at most; a map that grows is filled twice.
const HEADERS_EXPECTED: usize = 12;

/// An answer of JSON text.
pub(super) fn json_text(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let mut headers = HeaderMap::with_capacity(HEADERS_EXPECTED);
    headers.insert(CONTENT_TYPE, JSON);
    *response.headers_mut() = headers;
    response
}

/// An answer of JSON.
pub(super) fn json<T: Serialize>(status: StatusCode, value: &T) -> Result<Response, Fault> {
    let text = serde_json::to_vec(value).map_err(|error| Fault::internal(error.to_string()))?;
    Ok(json_text(status, text))
}

/// Adds where the new thing can be read.
pub(super) fn located(mut response: Response, path: String) -> Response {
    if let Ok(location) = HeaderValue::from_maybe_shared(Bytes::from(path)) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}
