//! A subscription made ready to be sent to: everything that is the same for all of its webhooks, worked out once.

use std::fmt::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request};

use super::body::OutgoingEvent;
use super::connection::Pool;
use super::endpoint::{Endpoint, UrlError};
use super::headers::{HeaderError, check_header_name, check_headers};
use super::signature::{self, SigningKey};
use crate::domain::profile::{Knobs, SignatureForm};
use crate::domain::subscription::{Auth, Subscription, SubscriptionId};
use crate::domain::time::Timestamp;

const AGENT: &str = concat!("lutine/", env!("CARGO_PKG_VERSION"));

static ID: HeaderName = HeaderName::from_static(signature::ID);
static TIMESTAMP: HeaderName = HeaderName::from_static(signature::TIMESTAMP);
static SIGNATURE: HeaderName = HeaderName::from_static(signature::SIGNATURE);
static EVENT_VERSION: HeaderName = HeaderName::from_static("event-version");

/// A subscription that nothing can be sent to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Its URL.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// One of its headers, or the one that it wants its signature in.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// Its content type.
    #[error("the content type holds characters that a header cannot")]
    ContentType,
    /// Its token, or its name and password.
    #[error("the token, name or password of auth holds characters that it cannot")]
    Auth,
}

/// What one subscription's webhooks have in common, and its connections. Built once, shared by its attempts; a changed
/// subscription is another target, which takes none of the old connections over.
pub struct Target {
    pub(super) subscription: SubscriptionId,
    pub(super) knobs: Knobs,
    pub(super) endpoint: Endpoint,
    pub(super) pool: Pool,
    key: SigningKey,
    /// The key before it, and the time from which it does not count any more.
    previous: Option<(SigningKey, Timestamp)>,
    /// All headers, with empty values in the places of those that differ from attempt to attempt.
    headers: HeaderMap,
    /// Where the signature over the body alone goes.
    body_signature: Option<HeaderName>,
}

impl fmt::Debug for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Target").field("subscription", &self.subscription).finish_non_exhaustive()
    }
}

fn authorization(auth: &Auth) -> Result<Option<HeaderValue>, TargetError> {
    let text = match auth {
        Auth::None => return Ok(None),
        Auth::OAuth2(_) => return Err(TargetError::Auth),
        Auth::Bearer(token) => format!("Bearer {token}"),
        Auth::Basic(name, _) if name.contains(':') => return Err(TargetError::Auth),
        Auth::Basic(name, password) => format!("Basic {}", STANDARD.encode(format!("{name}:{password}"))),
    };
    let mut value = HeaderValue::try_from(text).map_err(|_| TargetError::Auth)?;
    value.set_sensitive(true);
    Ok(Some(value))
}

impl Target {
    /// Works out what the webhooks of a subscription have in common.
    ///
    /// # Errors
    /// Names the first part that cannot be sent.
    pub fn new(subscription: &Subscription) -> Result<Self, TargetError> {
        let knobs = subscription.knobs();
        let endpoint = Endpoint::parse(&subscription.wishes.url)?;
        let mut headers = HeaderMap::with_capacity(subscription.wishes.headers.len() + 10);
        for (name, value) in check_headers(&subscription.wishes.headers)? {
            headers.insert(name, value);
        }
        headers.insert(HOST, endpoint.authority.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(CONTENT_TYPE, HeaderValue::from_str(&knobs.content_type).map_err(|_| TargetError::ContentType)?);
        if let Some(value) = authorization(&subscription.wishes.auth)? {
            headers.insert(AUTHORIZATION, value);
        }
        let empty = || HeaderValue::from_static("");
        headers.insert(&ID, empty());
        headers.insert(&TIMESTAMP, empty());
        if knobs.signature.is_in_standard_header() {
            headers.insert(&SIGNATURE, empty());
        }
        let body_signature = match knobs.signature {
            SignatureForm::HeaderHmac => Some(check_header_name(&knobs.signature_header)?),
            SignatureForm::Standard | SignatureForm::None | SignatureForm::BodyHmacSha256 | SignatureForm::BodyRsaSha256 => None,
        };
        if let Some(name) = &body_signature {
            headers.insert(name.clone(), empty());
        }
        let key = SigningKey::new(&subscription.secret.0);
        let previous = subscription.previous.as_ref().map(|previous| (SigningKey::new(&previous.secret.0), previous.until));
        Ok(Self { subscription: subscription.id, knobs, endpoint, pool: Pool::default(), key, previous, headers, body_signature })
    }

    /// The knobs that its answers are judged under.
    #[must_use]
    pub fn knobs(&self) -> &Knobs {
        &self.knobs
    }

    /// The request of one attempt.
    pub(super) fn request(&self, event: &OutgoingEvent, body: Bytes, now: Timestamp) -> Request<Full<Bytes>> {
        // `{id}.{timestamp}.`, then the signatures: one text that every value of a header is a part of.
        let mut text = String::with_capacity(192);
        // Writing to a text has no way to fail.
        let _ = write!(text, "evt_{}_{}", event.id, self.subscription);
        if event.run > 0 {
            let _ = write!(text, "_r{}", event.run);
        }
        let id_end = text.len();
        let _ = write!(text, ".{}.", now.as_seconds());
        let stamp_end = text.len();
        let mut signature_end = stamp_end;
        if self.knobs.signature.is_in_standard_header() {
            let stamp = text.clone();
            self.key.sign_onto(&mut text, &body);
            if let Some((key, _)) = self.previous.as_ref().filter(|(_, until)| now < *until) {
                // Both count: a receiver takes the one that it knows (Standard Webhooks 1.0.0, zero-downtime rotation).
                let mut signed = stamp;
                key.sign_onto(&mut signed, &body);
                text.push(' ');
                text.push_str(signed.get(stamp_end..).unwrap_or_default());
            }
            signature_end = text.len();
        }
        if self.body_signature.is_some() {
            self.key.sign_body_onto(&mut text, &body);
        }
        let text = Bytes::from(text);
        let mut headers = self.headers.clone();
        headers.insert(&ID, ascii(text.slice(..id_end)));
        headers.insert(&TIMESTAMP, ascii(text.slice(id_end + 1..stamp_end - 1)));
        if self.knobs.signature.is_in_standard_header() {
            headers.insert(&SIGNATURE, ascii(text.slice(stamp_end..signature_end)));
        }
        if let Some(name) = &self.body_signature {
            headers.insert(name.clone(), ascii(text.slice(signature_end..)));
        }
        if event.version != "1"
            && let Ok(version) = HeaderValue::from_str(&event.version)
        {
            headers.insert(&EVENT_VERSION, version);
        }
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.endpoint.path.clone();
        *request.headers_mut() = headers;
        request
    }
}

fn ascii(text: Bytes) -> HeaderValue {
    #[expect(clippy::expect_used, reason = "made of numbers, base64 and hexadecimal digits just before")]
    HeaderValue::from_maybe_shared(text).expect("visible ASCII")
}
