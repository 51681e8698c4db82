//! What happens around every call: who calls, whether they may, how often, and what every answer carries.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, HeaderName};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use bytes::Bytes;

use super::call::{Call, Quota};
use super::fault::Fault;
use crate::domain::key::{Bucket, Grant, Principal};
use crate::domain::scope::Scope;
use crate::domain::time::Timestamp;
use crate::service::Services;
use crate::service::credentials::Credential;
use crate::service::rates::{Standing, WINDOW_SECONDS};
use crate::telemetry::metrics::RouteCounters;

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const RATE_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const RATE_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RATE_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const RATE_WINDOW: HeaderName = HeaderName::from_static("x-ratelimit-window");
const RATE_POLICY: HeaderName = HeaderName::from_static("x-ratelimit-policy");

/// The longest request id that is taken over from a caller, in characters.
const REQUEST_ID_LENGTH_MAX: usize = 128;

/// Where a request comes from; the connection puts it into the request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// Over the network, from this address.
    Address(IpAddr),
    /// Over the local socket, or from the command line that has the store open itself.
    Local,
}

/// Who may make a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Everybody.
    Open,
    /// The holder of a key with this scope; counted in this bucket.
    Key(Scope, Bucket),
    /// As `Key`, or the holder of a key with the scope `events`.
    Bridge(Scope, Bucket),
    /// As `Key` with `metrics:read`, or everybody when the configuration says so.
    Metrics,
    /// Whoever may open the local socket.
    Local,
}

/// Makes the answer to a refused call from the refusal, the path, the id of the request, and the time.
pub(super) type Render = fn(&Fault, &str, &str, Timestamp) -> Response;

/// One line of the table of routes.
#[derive(Debug)]
pub(super) struct Route {
    pub access: Access,
    pub render: Render,
    pub services: Services,
    pub counters: Arc<RouteCounters>,
}

/// The id of a request: the caller's when it is usable, else ours.
#[derive(Debug, Clone)]
pub(super) struct RequestId(HeaderValue);

impl RequestId {
    fn of(headers: &HeaderMap) -> Self {
        let usable =
            |value: &&HeaderValue| (1..=REQUEST_ID_LENGTH_MAX).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic);
        headers.get(&X_REQUEST_ID).filter(usable).map_or_else(Self::fresh, |value| Self(value.clone()))
    }

    /// An id that no other request of this process has, and hardly one of another process.
    fn fresh() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        static PREFIX: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
        let prefix = *PREFIX.get_or_init(|| {
            let mut bytes = [0; 8];
            // Without randomness ids still differ within the process, which is what they are for.
            let _filled = getrandom::fill(&mut bytes);
            u64::from_le_bytes(bytes)
        });
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0_u8; 24];
        for (place, digit) in text.iter_mut().enumerate() {
            // Eight digits of the prefix, sixteen of the number.
            let (word, shift) = if place < 8 { (prefix, 28 - 4 * place) } else { (number, 60 - 4 * (place - 8)) };
            *digit = HEX.get((word >> shift & 15) as usize).copied().unwrap_or(b'0');
        }
        Self(HeaderValue::from_maybe_shared(Bytes::copy_from_slice(&text)).unwrap_or_else(|_| HeaderValue::from_static("unknown")))
    }

    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

/// A call that nobody needs a key for.
#[derive(Debug)]
pub(super) struct OpenCall {
    pub services: Services,
    pub head: Parts,
    pub request_id: RequestId,
    pub body: Body,
}

/// Who was let in.
struct Admitted {
    principal: Principal,
    quota: Option<Quota>,
}

/// Runs a handler that needs no key.
pub(super) async fn open<H, F>(route: Arc<Route>, request: Request<Body>, handler: H) -> Response
where
    H: FnOnce(OpenCall) -> F,
    F: Future<Output = Result<Response, Fault>>,
{
    let request_id = RequestId::of(request.headers());
    let _in_flight = route.services.metrics.request();
    let (head, body) = request.into_parts();
    let uri = head.uri.clone();
    let now = route.services.clock.now();
    let admitted = match route.access {
        Access::Metrics if !route.services.config.load().telemetry.metrics_open => {
            admit(&route, &head, now, &[Scope::MetricsRead], Bucket::Read).map(|admitted| admitted.quota)
        }
        _ => Ok(None),
    };
    let (outcome, standing) = match admitted {
        Err(refused) => (Err(refused.fault), refused.standing),
        Ok(quota) => {
            let outcome = handler(OpenCall { services: route.services.clone(), head, body, request_id: request_id.clone() }).await;
            (outcome, quota.map(|quota| (quota.bucket, quota.standing(now))))
        }
    };
    let mut response = outcome.unwrap_or_else(|fault| fault.render(uri.path(), request_id.as_str()));
    let headers = response.headers_mut();
    headers.insert(X_REQUEST_ID, request_id.0);
    if let Some((bucket, standing)) = standing {
        tell_standing(headers, bucket, &standing);
    }
    route.counters.count(response.status().as_u16());
    response
}

/// Runs a handler for those whom its access lets in.
pub(super) async fn guarded<H, F>(route: Arc<Route>, request: Request<Body>, handler: H) -> Response
where
    H: FnOnce(Call) -> F,
    F: Future<Output = Result<Response, Fault>>,
{
    let services = &route.services;
    let _in_flight = services.metrics.request();
    let now = services.clock.now();
    let (head, body) = request.into_parts();
    let request_id = RequestId::of(&head.headers);
    let uri = head.uri.clone();
    let admitted = match route.access {
        Access::Key(scope, bucket) => admit(&route, &head, now, &[scope], bucket),
        Access::Bridge(scope, bucket) => admit(&route, &head, now, &[Scope::Events, scope], bucket),
        Access::Local if caller_of(&head) == Caller::Local => Ok(Admitted { principal: Principal::Local, quota: None }),
        Access::Local | Access::Open | Access::Metrics => Err(Box::new(Refused { fault: Fault::only_local(), standing: None })),
    };
    let (outcome, standing) = match admitted {
        Err(refused) => (Err(refused.fault), refused.standing),
        Ok(Admitted { principal, quota }) => {
            let call = Call::new(services.clone(), principal, quota.clone(), head, body, request_id.clone());
            let outcome = handler(call).await;
            (outcome, quota.map(|quota| (quota.bucket, quota.standing(now))))
        }
    };
    let mut response = outcome.unwrap_or_else(|fault| (route.render)(&fault, uri.path(), request_id.as_str(), now));
    let headers = response.headers_mut();
    headers.insert(X_REQUEST_ID, request_id.0);
    if let Some((bucket, standing)) = standing {
        tell_standing(headers, bucket, &standing);
    }
    route.counters.count(response.status().as_u16());
    response
}

/// A caller who was not let in, and how the bucket stands that the call would have counted in.
struct Refused {
    fault: Fault,
    standing: Option<(Bucket, Standing)>,
}

/// Where a request comes from.
pub(super) fn caller_of(head: &Parts) -> Caller {
    // A request without the mark of its connection is nobody's; no key allows the unspecified address by a network.
    head.extensions.get().copied().unwrap_or(Caller::Address(IpAddr::from([0, 0, 0, 0])))
}

/// Lets the caller in who has one of `scopes`, of which a refusal names the first.
fn admit(route: &Route, head: &Parts, now: Timestamp, scopes: &[Scope], bucket: Bucket) -> Result<Admitted, Box<Refused>> {
    let services = &route.services;
    let caller = caller_of(head);
    let address = match caller {
        Caller::Local => return Ok(Admitted { principal: Principal::Local, quota: None }),
        Caller::Address(address) => address,
    };
    let config = services.config.load();
    let limit = match bucket {
        Bucket::Read => config.rate_limits.read_per_minute,
        Bucket::Write => config.rate_limits.write_per_minute,
        Bucket::Admin => config.rate_limits.admin_per_minute,
    };
    let refused = &services.metrics.refused;
    let unknown = |fault: Fault| Box::new(Refused { fault, standing: Some((bucket, Standing::unused(limit, now))) });
    let credential = presented(&head.headers).map_err(|fault| {
        refused.missing.inc();
        unknown(fault)
    })?;
    let credential = authenticate(services, credential, now).map_err(|fault| {
        if matches!(fault.code, "invalid_key" | "invalid_token") {
            refused.invalid.inc()
        } else {
            refused.over.inc()
        };
        unknown(fault)
    })?;
    let grant = credential.grant();
    let limit = grant.and_then(|grant| grant.rates.of(bucket)).unwrap_or(limit);
    let quota = Quota { windows: Arc::clone(&credential.windows), bucket, limit };
    let known = |fault: Fault| Box::new(Refused { fault, standing: Some((bucket, quota.standing(now))) });
    if grant.is_some_and(|grant| !allows_caller(grant, address, config.server.behind_proxy, &head.headers)) {
        refused.network.inc();
        return Err(known(Fault::network(noun(&credential))));
    }
    if let Some(first) = scopes.first().filter(|_| !scopes.iter().any(|scope| credential.principal.allows(*scope))) {
        refused.scope.inc();
        return Err(known(Fault::scope(noun(&credential), *first)));
    }
    if let Err(fault) = quota.take(1, now) {
        refused.rate.inc();
        return Err(known(fault));
    }
    Ok(Admitted { principal: credential.principal.clone(), quota: Some(quota) })
}

/// What a caller of this kind calls its credential.
fn noun(credential: &Credential) -> &'static str {
    match credential.principal {
        Principal::Token(_) => "access token",
        Principal::Key(_) | Principal::Local => "key",
    }
}

/// A credential as it is sent.
#[derive(Debug, Clone, Copy)]
enum Presented<'a> {
    /// In `X-Api-Key`: a key.
    Key(&'a [u8]),
    /// In `Authorization`: a key or an access token.
    Bearer(&'a [u8]),
}

fn authenticate(services: &Services, presented: Presented<'_>, now: Timestamp) -> Result<Arc<Credential>, Fault> {
    match presented {
        // A JWT has two dots, a key none.
        Presented::Bearer(text) if text.contains(&b'.') => services.tokens.authenticate(text, now).map_err(Fault::from),
        Presented::Key(text) | Presented::Bearer(text) => services.keys.authenticate(text, now).map_err(Fault::from),
    }
}

/// The credential that a request carries.
fn presented(headers: &HeaderMap) -> Result<Presented<'_>, Fault> {
    let mut keys = headers.get_all(&X_API_KEY).iter();
    let mut authorizations = headers.get_all(AUTHORIZATION).iter();
    let (key, authorization) = (keys.next(), authorizations.next());
    if keys.next().is_some() || authorizations.next().is_some() {
        return Err(Fault::two_credentials());
    }
    match (key, authorization) {
        (None, None) => Err(Fault::missing_credentials()),
        (Some(_), Some(_)) => Err(Fault::two_credentials()),
        (Some(key), None) => Ok(Presented::Key(key.as_bytes())),
        // The name of the scheme is compared without case (RFC 9110, 11.1).
        (None, Some(authorization)) => match authorization.as_bytes().split_at_checked(7) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => Ok(Presented::Bearer(token.trim_ascii())),
            _ => Err(Fault::missing_credentials()),
        },
    }
}

/// Whether a grant may be used from where the request comes from. Behind a proxy that is what the proxy says last.
pub(super) fn allows_caller(grant: &Grant, address: IpAddr, behind_proxy: bool, headers: &HeaderMap) -> bool {
    if grant.networks.is_empty() {
        return true;
    }
    let forwarded = headers.get_all(&X_FORWARDED_FOR).iter().next_back().filter(|_| behind_proxy);
    let address = match forwarded {
        None => Some(address),
        Some(list) => list.to_str().ok().and_then(|list| list.rsplit(',').next()?.trim().parse().ok()),
    };
    address.is_some_and(|address| grant.allows_address(address))
}

fn tell_standing(headers: &mut HeaderMap, bucket: Bucket, standing: &Standing) {
    headers.insert(RATE_LIMIT, HeaderValue::from(standing.limit));
    headers.insert(RATE_REMAINING, HeaderValue::from(standing.remaining));
    headers.insert(RATE_RESET, HeaderValue::from(standing.reset));
    headers.insert(RATE_WINDOW, HeaderValue::from(WINDOW_SECONDS));
    let unlimited = match bucket {
        Bucket::Read => "\"read\";q=0;w=60",
        Bucket::Write => "\"write\";q=0;w=60",
        Bucket::Admin => "\"admin\";q=0;w=60",
    };
    let policy = match standing.limit {
        0 => Ok(HeaderValue::from_static(unlimited)),
        limit => HeaderValue::from_maybe_shared(Bytes::from(format!("\"{}\";q={limit};w={WINDOW_SECONDS}", bucket.as_str()))),
    };
    if let Ok(policy) = policy {
        headers.insert(RATE_POLICY, policy);
    }
}
