//! One attempt outward: body, signature, a connection that the policy allows, and an answer of bounded size.
//!
//! Nothing here retries by schedule, judges, or writes down: that is the engine's. Redirects are not followed, nothing is
//! decompressed, no proxy but the configuration's and no environment is asked, and certificates are always verified.

mod answer;
mod body;
mod connect;
mod connection;
mod endpoint;
mod fetch;
mod handshake;
mod headers;
mod inspect;
mod manner;
mod origin;
mod resolve;
mod rsa;
mod signature;
mod target;
mod tls;
mod token;
mod trust;
mod tunnel;
mod verifier;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::body::Body;
use hyper::header::{AUTHORIZATION, HeaderValue};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tracing::debug;

use self::answer::{EXCERPT_BYTES_MAX, End, Excerpt, Head, READ_BYTES_MAX};
use self::body::Content;
use self::connect::Connector;
use self::connection::{Connection, Open};
use self::token::{Caller, Source, Tokens};
use crate::domain::egress::EgressPolicy;
use crate::domain::profile::{KeepResponse, Knobs};
use crate::domain::retry::{ErrorClass, Exchange, Verdict, judge};
use crate::domain::time::Timestamp;
use crate::telemetry::metrics::TokenMetrics;

pub use self::body::{BodyError, EnvelopeError, OutgoingEvent};
pub use self::endpoint::{URL_BYTES_MAX, UrlError, check_url};
pub use self::fetch::{DOCUMENT_BYTES_MAX, FetchError};
pub use self::handshake::{ConsentRequest, parse_allowed_rate};
pub use self::headers::{HEADER_BYTES_MAX, HEADERS_MAX, HeaderError, check_header, check_header_name, check_headers};
pub use self::inspect::{Inspection, Tried, Way};
pub use self::manner::Manner;
pub use self::origin::{Origin, Origins};
pub use self::resolve::{Resolve, Resolving, SystemResolver};
pub use self::rsa::{RsaKey, RsaKeyError};
pub use self::signature::{VerifyError, verify};
pub use self::target::{Target, TargetError};
pub use self::tls::{RootsError, TrustedRoots};
pub use self::token::{ClientError, KeyError};
pub use self::trust::TrustError;
pub use self::verifier::{ParsePublicKeyError, PublicKey, Verifier};

/// Why nothing is sent in the clear.
const PLAIN_REFUSED: &str = "the receiver's URL begins with http:// and egress.allow_http is false";

/// What came of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What the retry rules judge.
    pub exchange: Exchange,
    /// Whom it went to, or would have gone to.
    pub address: Option<IpAddr>,
    /// The status of the answer, even if the attempt failed after it.
    pub status: Option<u16>,
    /// The beginning of the answer's body, at most 16 KiB.
    pub excerpt: String,
    /// Whether the body has more than the excerpt.
    pub truncated: bool,
    /// A sentence about what went wrong; none when it is delivered. It never names the address.
    pub error: Option<String>,
    /// How long it took.
    pub duration: Duration,
}

/// Why an attempt got no whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Failure {
    class: ErrorClass,
    error: String,
}

impl Failure {
    fn new(class: ErrorClass, error: impl Into<String>) -> Self {
        Self { class, error: error.into() }
    }

    /// The same about somebody else than the receiver, of whom the texts of connections speak.
    fn about(self, whom: &str) -> Self {
        Self { error: self.error.replace("the receiver", whom), ..self }
    }
}

/// What an attempt is waiting for.
#[derive(Debug, Clone, Copy, Default)]
enum Stage {
    Authorizing,
    #[default]
    Resolving,
    Connecting,
    Securing,
    Answering,
    Reading,
}

impl fmt::Display for Stage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Authorizing => "there was no access token yet",
            Self::Resolving => "the receiver's name was still being resolved",
            Self::Connecting => "the receiver had not accepted the connection",
            Self::Securing => "there was no agreement on TLS",
            Self::Answering => "the receiver had not answered",
            Self::Reading => "the receiver had not finished its answer",
        })
    }
}

/// How far an attempt got; what remains of it when its time is up.
#[derive(Debug, Default)]
struct Progress {
    stage: Stage,
    address: Option<IpAddr>,
    head: Option<Head>,
    excerpt: Excerpt,
    /// Access tokens that the receiver was shown.
    shown: Vec<HeaderValue>,
}

/// Sends webhooks. Clones share the policy and the count of open connections; the connections are their targets'.
#[derive(Clone)]
pub struct Sender {
    policy: Arc<ArcSwap<EgressPolicy>>,
    connector: Connector,
    tokens: Tokens,
    metrics: Option<Arc<TokenMetrics>>,
}

impl fmt::Debug for Sender {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Sender").field("resolver", &self.connector.resolver).finish_non_exhaustive()
    }
}

/// A sender that cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("TLS cannot be set up: {0}")]
pub struct SenderError(#[from] rustls::Error);

impl Sender {
    /// A sender that asks the policy of the moment before every connection and before every use of one.
    ///
    /// # Errors
    /// When the TLS library refuses its settings.
    pub fn new(policy: Arc<ArcSwap<EgressPolicy>>, resolver: Arc<dyn Resolve>, roots: TrustedRoots) -> Result<Self, SenderError> {
        let tls = TlsConnector::from(Arc::new(roots.config()?));
        let connector = Connector { resolver, roots, tls, open: Open::default() };
        Ok(Self { policy, connector, tokens: Tokens::default(), metrics: None })
    }

    /// The same sender, which counts its calls to token services.
    #[must_use]
    pub fn counting(self, metrics: Arc<TokenMetrics>) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    /// Makes attempt number `attempt` to deliver an event; `now` is what it is signed with.
    ///
    /// Takes at most the target's time-out, and a moment to put the connection away. May be dropped at any time; its
    /// connection is closed then.
    pub async fn send(&self, target: &Target, event: &OutgoingEvent, attempt: u32, now: Timestamp) -> Report {
        let report = self.attempt(target, event, Manner::Proper, now).await;
        debug!(
            subscription.id = %target.subscription,
            event.id = %event.id,
            attempt.number = attempt,
            status = report.status,
            duration_ms = report.duration.as_millis(),
            "Attempt {attempt} of event {} to subscription {} ended",
            event.id,
            target.subscription
        );
        report
    }

    /// Sends an event to see what its receiver makes of it; otherwise as [`Sender::send`].
    pub async fn try_out(&self, target: &Target, event: &OutgoingEvent, manner: Manner, now: Timestamp) -> Report {
        self.attempt(target, event, manner, now).await
    }

    async fn attempt(&self, target: &Target, event: &OutgoingEvent, manner: Manner, now: Timestamp) -> Report {
        let start = Instant::now();
        let limit = target.knobs.timeout;
        let mut progress = Progress::default();
        let end = timeout(limit, self.exchange(target, event, manner, now, start, &mut progress)).await;
        let end = end.unwrap_or_else(|_| {
            let class = if matches!(progress.stage, Stage::Authorizing) { ErrorClass::Token } else { ErrorClass::Timeout };
            Err(Failure::new(class, format!("the time-out of {limit:?} passed while {}", progress.stage)))
        });
        let duration = start.elapsed();
        let (end, connection) = match end {
            Ok(connection) => (Ok(()), connection),
            Err(failure) => (Err(failure), None),
        };
        if let Some(connection) = connection {
            // Behind the deadline: the answer is whole, whatever becomes of the connection.
            target.pool.keep(connection).await;
        }
        report(target, progress, end, duration)
    }

    /// Sends and takes the answer; returns the connection if another request can follow on it.
    async fn exchange(
        &self,
        target: &Target,
        event: &OutgoingEvent,
        manner: Manner,
        now: Timestamp,
        start: Instant,
        progress: &mut Progress,
    ) -> Result<Option<Connection>, Failure> {
        let policy = self.policy.load_full();
        if target.endpoint.server_name.is_none() && !policy.allow_http {
            return Err(Failure::new(ErrorClass::Egress, PLAIN_REFUSED));
        }
        let content = target.content(event).await.map_err(|error| Failure::new(ErrorClass::Body, error.to_string()))?;
        let content = manner.apply(content, target.knobs.signature);
        let content = content.ok_or_else(|| Failure::new(ErrorClass::Body, "the body has nothing in it that could be changed"))?;
        let sending = Sending { target, event, content, policy, now, start };
        match target.source(&self.tokens) {
            None => self.transmit(&sending, None, progress).await,
            Some(source) => self.transmit_with_token(&sending, source, progress).await,
        }
    }

    /// Sends with an access token, and once more with another one if the receiver answers 401 (RFC 6750, 3.1).
    async fn transmit_with_token(
        &self,
        sending: &Sending<'_>,
        source: &Arc<Source>,
        progress: &mut Progress,
    ) -> Result<Option<Connection>, Failure> {
        let caller = Caller { connector: self.connector.clone(), policy: Arc::clone(&sending.policy), metrics: self.metrics.clone() };
        progress.stage = Stage::Authorizing;
        let token = source.token(&caller, sending.now).await?;
        let connection = self.transmit(sending, Some(&token.authorization), progress).await?;
        let is_refused = |progress: &Progress| match &progress.head {
            Some(head) => head.status == 401 && judge(&head.exchange(), &sending.target.knobs) != Verdict::Delivered,
            None => false,
        };
        if !is_refused(progress) {
            source.taken();
            return Ok(connection);
        }
        progress.stage = Stage::Authorizing;
        let head = progress.head.take();
        let another = source.another(&token, &caller, sending.now()).await;
        let another =
            another.map_err(|failure| Failure { error: format!("the receiver answered 401, and {}", failure.error), ..failure })?;
        let Some(another) = another else {
            progress.head = head;
            return Ok(connection);
        };
        if let Some(connection) = connection {
            sending.target.pool.keep(connection).await;
        }
        progress.excerpt = Excerpt::default();
        let connection = self.transmit(sending, Some(&another.authorization), progress).await?;
        if is_refused(progress) {
            source.refused_again(sending.now());
        } else {
            source.taken();
        }
        Ok(connection)
    }

    /// Sends one request and takes the answer.
    async fn transmit(
        &self,
        sending: &Sending<'_>,
        authorization: Option<&HeaderValue>,
        progress: &mut Progress,
    ) -> Result<Option<Connection>, Failure> {
        let Sending { target, event, content, policy, now, .. } = sending;
        let build = || {
            let mut request = target.request(event, content, *now);
            if let Some(value) = authorization {
                request.headers_mut().insert(AUTHORIZATION, value.clone());
            }
            request
        };
        progress.shown.extend(authorization.cloned());
        let mut request = build();
        if let Some(mut connection) = target.pool.take(policy).await {
            progress.stage = Stage::Answering;
            progress.address = connection.address;
            match connection.send(request).await {
                Ok(answer) => return finish(connection, answer, sending.now(), &target.knobs, progress).await,
                Err((error, unsent)) => {
                    let failure = answer::failure(&error);
                    // A receiver may close an idle connection while a request is on its way to it; then nobody has read it.
                    let is_stale = unsent.is_some() || (failure.class == ErrorClass::Reset && connection.is_silent());
                    if !is_stale {
                        return Err(failure);
                    }
                    request = unsent.unwrap_or_else(build);
                }
            }
        }
        let tls = self.connector.tls_for_receiver(target.trust.as_deref())?;
        let mut connection = self.connector.connect(&target.endpoint, &tls, Arc::clone(policy), progress).await?;
        progress.stage = Stage::Answering;
        progress.address = connection.address;
        let answer = connection.send(request).await.map_err(|(error, _)| answer::failure(&error))?;
        finish(connection, answer, sending.now(), &target.knobs, progress).await
    }
}

/// What one attempt sends, once or twice.
struct Sending<'a> {
    target: &'a Target,
    event: &'a OutgoingEvent,
    content: Content,
    policy: Arc<EgressPolicy>,
    /// When the attempt began, by the clock ...
    now: Timestamp,
    /// ... and by the time that passes.
    start: Instant,
}

impl Sending<'_> {
    fn now(&self) -> Timestamp {
        self.now.after(self.start.elapsed())
    }
}

/// Takes an answer, and gives the connection back if another can follow on it.
async fn finish(
    mut connection: Connection,
    answer: hyper::Response<hyper::body::Incoming>,
    now: Timestamp,
    knobs: &Knobs,
    progress: &mut Progress,
) -> Result<Option<Connection>, Failure> {
    let (head, body) = answer.into_parts();
    let head = Head::of(&head, now);
    let answered = Exchange::Answered { status: head.status, not_before: head.not_before };
    // Of a refusal, and of an answer that says itself that it is too long, the rest changes nothing.
    let is_decided = judge(&answered, knobs) != Verdict::Delivered || body.size_hint().lower() > READ_BYTES_MAX as u64;
    let bytes_max = if is_decided { EXCERPT_BYTES_MAX } else { READ_BYTES_MAX };
    progress.head = Some(head);
    progress.stage = Stage::Reading;
    let end = answer::read(body, bytes_max, &mut connection, &mut progress.excerpt).await?;
    Ok((end == End::Whole).then_some(connection))
}

fn report(target: &Target, progress: Progress, end: Result<(), Failure>, duration: Duration) -> Report {
    let knobs = &target.knobs;
    let status = progress.head.as_ref().map(|head| head.status);
    let (exchange, error) = match (progress.head, end) {
        (Some(head), end) => {
            let answered = head.exchange();
            let is_delivered = judge(&answered, knobs) == Verdict::Delivered;
            match end {
                Ok(()) => (answered, (!is_delivered).then(|| head.text())),
                // Only a success needs its whole answer: a receiver that refuses has said all that matters with the status,
                // and often breaks off because it does not want to read the request.
                Err(_) if !is_delivered => (answered, Some(head.text())),
                Err(failure) => (Exchange::Failed(failure.class), Some(failure.error)),
            }
        }
        (None, Err(failure)) => (Exchange::Failed(failure.class), Some(failure.error)),
        (None, Ok(())) => (Exchange::Failed(ErrorClass::Protocol), Some("the receiver gave no answer".to_owned())),
    };
    let (excerpt, truncated, error) = kept(knobs.keep_response, progress.excerpt, error);
    let shown = progress.shown.iter().chain(target.authorization());
    let excerpt = shown.fold(excerpt, answer::without_credentials);
    Report { exchange, address: progress.address, status, excerpt, truncated, error, duration }
}

/// What is kept of an answer's body, and the sentence about a failure.
fn kept(keep: KeepResponse, excerpt: Excerpt, error: Option<String>) -> (String, bool, Option<String>) {
    if keep == KeepResponse::None && error.is_none() {
        return (String::new(), false, error);
    }
    let (text, truncated) = excerpt.into_text();
    if keep != KeepResponse::Errors {
        return (text, truncated, error);
    }
    match (answer::errors(&text), error) {
        (None, None) => (String::new(), false, None),
        (None, error) => (text, truncated, error),
        // What the receiver says stays in the excerpt, which not everybody may read.
        (Some(errors), error) => {
            let count = errors.len();
            let error = error.map(|error| format!("{error} with {count} {}", if count == 1 { "error" } else { "errors" }));
            (errors.join("\n"), false, error)
        }
    }
}
