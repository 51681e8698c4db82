//! A subscription made ready to be sent to: everything that is the same for all of its webhooks, worked out once.

use std::fmt::{self, Write};
use std::sync::{Arc, OnceLock};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request};

use super::body::{BodyError, Content, Form, OutgoingEvent};
use super::connection::{Pool, RequestBody};
use super::endpoint::{Endpoint, UrlError};
use super::headers::{HeaderError, check_header_name, check_headers};
use super::origin::Origin;
use super::signature::{self, SigningKey};
use super::token::{ClientError, Grant, Source, Tokens};
use super::trust::{Trust, TrustError};
use crate::domain::profile::{BodyForm, Handshake, Knobs, SignatureForm};
use crate::domain::subscription::{Auth, Subscription, SubscriptionId};
use crate::domain::time::Timestamp;

pub(super) const AGENT: &str = concat!("lutine/", env!("CARGO_PKG_VERSION"));

static ID: HeaderName = HeaderName::from_static(signature::ID);
static TIMESTAMP: HeaderName = HeaderName::from_static(signature::TIMESTAMP);
static SIGNATURE: HeaderName = HeaderName::from_static(signature::SIGNATURE);
static EVENT_VERSION: HeaderName = HeaderName::from_static("event-version");
/// Who sends (CloudEvents HTTP web hooks 1.0.2, 4.1.1).
pub(super) static REQUEST_ORIGIN: HeaderName = HeaderName::from_static("webhook-request-origin");

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
    /// The company has no key for its signature.
    #[error("the company has no RSA key yet")]
    RsaKey,
    /// The receiver is to consent to a sender that has no name.
    #[error("public_url has no host, which the receiver could consent to")]
    Origin,
    /// What its access tokens are fetched with.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Its certificates.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// What one subscription's webhooks have in common, and its connections. Built once, shared by its attempts; a changed
/// subscription is another target, which takes none of the old connections over.
pub struct Target {
    pub(super) subscription: SubscriptionId,
    pub(super) knobs: Knobs,
    pub(super) endpoint: Endpoint,
    pub(super) pool: Pool,
    key: SigningKey,
    form: Form,
    /// The key before it, and the time from which it does not count any more.
    previous: Option<(SigningKey, Timestamp)>,
    /// All headers, with empty values in the places of those that differ from attempt to attempt.
    headers: HeaderMap,
    /// Where the signature over the body alone goes.
    body_signature: Option<HeaderName>,
    /// Its own certificates.
    pub(super) trust: Option<Arc<Trust>>,
    /// What its access tokens are fetched with.
    grant: Option<Arc<Grant>>,
    /// Where they come from.
    source: OnceLock<Arc<Source>>,
}

impl fmt::Debug for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Target").field("subscription", &self.subscription).finish_non_exhaustive()
    }
}

/// How the daemon names itself to receivers.
fn origin_value(origin: &Origin) -> Result<HeaderValue, TargetError> {
    origin.host().and_then(|host| HeaderValue::try_from(host).ok()).ok_or(TargetError::Origin)
}

fn authorization(auth: &Auth) -> Result<Option<HeaderValue>, TargetError> {
    let text = match auth {
        Auth::None | Auth::OAuth2(_) => return Ok(None),
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
    pub fn new(subscription: &Subscription, origin: Origin) -> Result<Self, TargetError> {
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
        if knobs.body == BodyForm::Reference && !headers.contains_key(ACCEPT) {
            headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        }
        if knobs.handshake == Handshake::Options && subscription.consent.is_some() {
            headers.insert(&REQUEST_ORIGIN, origin_value(&origin)?);
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
        let form = Form::new(subscription.id, &knobs, &key, origin)?;
        let previous = subscription.previous.as_ref().map(|previous| (SigningKey::new(&previous.secret.0), previous.until));
        let trust = Trust::of(&subscription.wishes.overrides)?;
        let grant = match &subscription.wishes.auth {
            Auth::OAuth2(credentials) => Some(Arc::new(Grant::new(&subscription.wishes.url, credentials, trust.clone())?)),
            Auth::None | Auth::Bearer(_) | Auth::Basic(..) => None,
        };
        Ok(Self {
            subscription: subscription.id,
            knobs,
            endpoint,
            pool: Pool::default(),
            key,
            previous,
            form,
            headers,
            body_signature,
            trust,
            grant,
            source: OnceLock::new(),
        })
    }

    /// Where its access tokens come from, if it wants any.
    pub(super) fn source(&self, tokens: &Tokens) -> Option<&Arc<Source>> {
        let grant = self.grant.as_ref()?;
        Some(self.source.get_or_init(|| tokens.source(self.subscription, grant)))
    }

    /// The value of `Authorization` that does not change from attempt to attempt.
    pub(super) fn authorization(&self) -> Option<&HeaderValue> {
        self.headers.get(AUTHORIZATION)
    }

    /// The knobs that its answers are judged under.
    #[must_use]
    pub fn knobs(&self) -> &Knobs {
        &self.knobs
    }

    /// How the daemon names itself to the receiver.
    pub(super) fn origin_value(&self) -> Result<HeaderValue, TargetError> {
        origin_value(self.form.origin())
    }

    /// The body that is sent of an event.
    ///
    /// # Errors
    /// When the event cannot be read, or not be signed.
    pub async fn body(&self, event: &OutgoingEvent) -> Result<Bytes, BodyError> {
        Ok(self.content(event).await?.body)
    }

    /// What is sent of an event.
    pub(super) async fn content(&self, event: &OutgoingEvent) -> Result<Content, BodyError> {
        self.form.content(event).await
    }

    /// The request of one attempt.
    pub(super) fn request(&self, event: &OutgoingEvent, content: &Content, now: Timestamp) -> Request<RequestBody> {
        let signed = content.signed.as_ref().unwrap_or(&content.body);
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
            self.key.sign_onto(&mut text, signed);
            if let Some((key, _)) = self.previous.as_ref().filter(|(_, until)| now < *until) {
                // Both count: a receiver takes the one that it knows (Standard Webhooks 1.0.0, zero-downtime rotation).
                let mut with_stamp = stamp;
                key.sign_onto(&mut with_stamp, signed);
                text.push(' ');
                text.push_str(with_stamp.get(stamp_end..).unwrap_or_default());
            }
            signature_end = text.len();
        }
        if self.body_signature.is_some() {
            self.key.sign_body_onto(&mut text, signed);
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
        for (name, value) in &content.headers {
            headers.insert(name, value.clone());
        }
        if event.version != "1"
            && let Ok(version) = HeaderValue::from_str(&event.version)
        {
            headers.insert(&EVENT_VERSION, version);
        }
        let mut request = Request::new(match content.pause {
            None => RequestBody::whole(content.body.clone()),
            Some(pause) => RequestBody::halting(content.body.clone(), pause),
        });
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
