//! The built-in receiver: takes webhooks on loopback, checks their signatures, and answers as it is told.
//!
//! It is the other side of a subscription, for developers and for the demonstration; the daemon never starts one.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::domain::clock::Clock;
use crate::domain::time::Timestamp;
use crate::webhook::Verifier;

/// The largest body that is taken; the daemon's own are smaller.
pub const SINK_BODY_BYTES_MAX: usize = 1024 * 1024;
/// How far the time of a signature may be from now, as Standard Webhooks recommends.
const TOLERANCE: Duration = Duration::from_secs(300);
/// How long [`SinkAnswer::Slow`] waits: longer than the time-out of every profile.
const SLOW: Duration = Duration::from_secs(20);
/// Webhooks whose attempts are counted; of more the oldest are forgotten.
const COUNTED_MAX: usize = 10_000;
/// Open connections; more wait until one ends.
const CONNECTIONS_MAX: usize = 256;
/// For the head of a request, and for its body.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// For answers under way when the sink closes.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(2);

/// What a sink does with a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SinkAnswer {
    /// Answers with this status.
    Status(StatusCode),
    /// Answers 204 when every sender has given up.
    Slow,
    /// Closes the connection without an answer.
    Drop,
}

/// A text that is no answer of a sink.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither a status from 200 to 599 nor slow or drop")]
pub struct ParseSinkAnswerError(String);

impl FromStr for SinkAnswer {
    type Err = ParseSinkAnswerError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "slow" => Ok(Self::Slow),
            "drop" => Ok(Self::Drop),
            _ => {
                let status = text.parse().ok().filter(|status| (200..=599).contains(status));
                let status = status.and_then(|status| StatusCode::from_u16(status).ok());
                status.map(Self::Status).ok_or_else(|| ParseSinkAnswerError(text.to_owned()))
            }
        }
    }
}

impl fmt::Display for SinkAnswer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => status.as_u16().fmt(formatter),
            Self::Slow => formatter.write_str("slow"),
            Self::Drop => formatter.write_str("drop"),
        }
    }
}

/// How a sink behaves.
#[derive(Debug, Clone)]
pub struct SinkRules {
    /// The answer to the first, second, ... attempt of each webhook; the last one repeats. None at all is 204.
    pub answers: Vec<SinkAnswer>,
    /// The wait before every answer.
    pub delay: Duration,
}

impl SinkRules {
    fn answer(&self, attempt: u32) -> SinkAnswer {
        let turn = usize::try_from(attempt).unwrap_or(usize::MAX).saturating_sub(1);
        let told = self.answers.get(turn).or(self.answers.last()).copied();
        told.unwrap_or(SinkAnswer::Status(StatusCode::NO_CONTENT))
    }
}

/// What is known of a webhook's sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It holds one of the secrets.
    Verified,
    /// It does not, or somebody else has changed the webhook; with the reason.
    Refused(String),
    /// Nothing, as there is no secret to check with.
    NoSecret,
}

/// A webhook that has come in.
#[derive(Debug, Clone)]
pub struct Received {
    /// When its body was whole.
    pub at: Timestamp,
    /// Its `webhook-id`.
    pub id: Option<String>,
    /// How often it has come, from 1; always 1 without an id.
    pub attempt: u32,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body; empty when it was too large.
    pub body: Bytes,
    /// Who sent it.
    pub verdict: Verdict,
    /// What it is answered. A webhook of a stranger gets 401, whatever the rules say.
    pub answer: SinkAnswer,
}

/// How often each webhook has come.
#[derive(Debug, Default)]
struct Counts {
    attempts: HashMap<String, u32>,
    order: VecDeque<String>,
}

impl Counts {
    fn count(&mut self, id: &str) -> u32 {
        if let Some(attempts) = self.attempts.get_mut(id) {
            *attempts = attempts.saturating_add(1);
            return *attempts;
        }
        if self.order.len() == COUNTED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.attempts.remove(&oldest);
        }
        self.order.push_back(id.to_owned());
        self.attempts.insert(id.to_owned(), 1);
        1
    }
}

/// What all connections of a sink share.
#[derive(Debug)]
struct Desk {
    rules: SinkRules,
    verifiers: Mutex<Vec<Verifier>>,
    counts: Mutex<Counts>,
    clock: Arc<dyn Clock>,
    received: mpsc::UnboundedSender<Received>,
}

/// The connection is to be closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection is dropped, as the sink was told")]
struct Dropped;

impl Desk {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Dropped> {
        if request.method() == Method::OPTIONS {
            return Ok(consent(request.headers()));
        }
        if request.method() != Method::POST {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "this is a sink of webhooks; it takes POST\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return Ok(response);
        }
        let (head, body) = request.into_parts();
        let body = match timeout(READ_TIMEOUT, Limited::new(body, SINK_BODY_BYTES_MAX).collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(StatusCode::PAYLOAD_TOO_LARGE),
            // The sender has gone, or stopped sending: there is no webhook.
            Ok(Err(_)) | Err(_) => return Err(Dropped),
        };
        let answer = self.receive(head.headers, body);
        sleep(self.rules.delay).await;
        match answer {
            SinkAnswer::Status(status) => {
                let mut response = plain(status, "");
                if status == StatusCode::TOO_MANY_REQUESTS {
                    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                }
                Ok(response)
            }
            SinkAnswer::Slow => {
                sleep(SLOW).await;
                Ok(plain(StatusCode::NO_CONTENT, ""))
            }
            SinkAnswer::Drop => Err(Dropped),
        }
    }

    fn receive(&self, headers: HeaderMap, body: Result<Bytes, StatusCode>) -> SinkAnswer {
        let at = self.clock.now();
        let id = headers.get("webhook-id").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (body, verdict, refusal) = match body {
            Ok(body) => {
                let verdict = self.verdict(&headers, &body, at);
                let refusal = matches!(verdict, Verdict::Refused(_)).then_some(StatusCode::UNAUTHORIZED);
                (body, verdict, refusal)
            }
            Err(status) => {
                let reason = format!("the body is larger than {SINK_BODY_BYTES_MAX} bytes");
                (Bytes::new(), Verdict::Refused(reason), Some(status))
            }
        };
        let (attempt, answer) = match refusal {
            // Whoever is not known has no turn.
            Some(status) => (1, SinkAnswer::Status(status)),
            None => {
                let attempt = id.as_deref().map_or(1, |id| self.counts.lock().unwrap_or_else(PoisonError::into_inner).count(id));
                (attempt, self.rules.answer(attempt))
            }
        };
        // When nobody listens any more, the sink is about to close.
        let _told = self.received.send(Received { at, id, attempt, headers, body, verdict, answer });
        answer
    }

    fn verdict(&self, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Verdict {
        let verifiers = self.verifiers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut verdict = Verdict::NoSecret;
        for verifier in verifiers.iter() {
            match verifier.check(headers, body, now, TOLERANCE) {
                Ok(()) => return Verdict::Verified,
                Err(error) => verdict = Verdict::Refused(error.to_string()),
            }
        }
        verdict
    }
}

/// Consents to whoever asks to be let in (CloudEvents HTTP web hooks 1.0.2, 4.2).
fn consent(asked: &HeaderMap) -> Response<Full<Bytes>> {
    let mut response = plain(StatusCode::NO_CONTENT, "");
    let headers = response.headers_mut();
    headers.insert(ALLOW, HeaderValue::from_static("POST"));
    if let Some(origin) = asked.get("webhook-request-origin") {
        headers.insert("webhook-allowed-origin", origin.clone());
        headers.insert("webhook-allowed-rate", HeaderValue::from_static("*"));
    }
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}

/// A receiver that runs until it is closed or dropped; a dropped one cuts its connections.
#[derive(Debug)]
pub struct Sink {
    desk: Arc<Desk>,
    address: SocketAddr,
    tasks: TaskTracker,
    /// No new connections, and no further request on open ones.
    closing: CancellationToken,
    /// Nothing at all any more.
    abort: CancellationToken,
}

impl Sink {
    /// Starts a sink on a port of loopback, 0 for any free one. What it receives goes to `received` before it is answered.
    ///
    /// # Errors
    /// When the port cannot be listened on.
    pub async fn start(port: u16, rules: SinkRules, clock: Arc<dyn Clock>, received: mpsc::UnboundedSender<Received>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        let desk = Arc::new(Desk { rules, verifiers: Mutex::default(), counts: Mutex::default(), clock, received });
        let sink = Self { desk, address, tasks: TaskTracker::new(), closing: CancellationToken::new(), abort: CancellationToken::new() };
        sink.tasks.spawn(accept(listener, Arc::clone(&sink.desk), sink.tasks.clone(), sink.closing.clone(), sink.abort.clone()));
        Ok(sink)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Checks signatures with this, too.
    pub fn trust(&self, verifier: Verifier) {
        self.desk.verifiers.lock().unwrap_or_else(PoisonError::into_inner).push(verifier);
    }

    /// Takes nothing more; answers that are under way are sent, unless they take long.
    pub async fn close(self) {
        self.closing.cancel();
        self.tasks.close();
        // What is left is cut when the sink is dropped, which is here.
        let _all_ended = timeout(CLOSE_TIME_MAX, self.tasks.wait()).await;
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.closing.cancel();
        self.abort.cancel();
    }
}

async fn accept(listener: TcpListener, desk: Arc<Desk>, tasks: TaskTracker, closing: CancellationToken, abort: CancellationToken) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let next = async {
            // The semaphore is never closed.
            let permit = Arc::clone(&permits).acquire_owned().await.ok();
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            biased;
            () = closing.cancelled() => return,
            next = next => next,
        };
        match accepted {
            Ok((stream, _)) => {
                let (desk, closing, abort) = (Arc::clone(&desk), closing.clone(), abort.clone());
                tasks.spawn(async move {
                    serve(stream, &desk, &closing, &abort).await;
                    drop(permit);
                });
            }
            // Out of files, or a sender that went away in between.
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn serve(stream: TcpStream, desk: &Arc<Desk>, closing: &CancellationToken, abort: &CancellationToken) {
    let service = service_fn(|request| {
        let desk = Arc::clone(desk);
        async move { desk.answer(request).await }
    });
    let connection =
        http1::Builder::new().timer(TokioTimer::new()).header_read_timeout(READ_TIMEOUT).serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let mut signal = closing;
    loop {
        tokio::select! {
            biased;
            // How a connection ends is its sender's matter, or was asked for with `drop`.
            _ended = connection.as_mut() => return,
            () = signal.cancelled() => {
                if abort.is_cancelled() {
                    return;
                }
                connection.as_mut().graceful_shutdown();
                signal = abort;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_in_turn_and_the_last_one_repeats() {
        let status = |status| SinkAnswer::Status(StatusCode::from_u16(status).unwrap());
        let rules = SinkRules { answers: vec![status(500), SinkAnswer::Drop, status(204)], delay: Duration::ZERO };
        assert_eq!(
            [1, 2, 3, 4, u32::MAX].map(|attempt| rules.answer(attempt)),
            [status(500), SinkAnswer::Drop, status(204), status(204), status(204)]
        );
        assert_eq!(SinkRules { answers: Vec::new(), delay: Duration::ZERO }.answer(1), status(204));
    }

    #[test]
    fn an_answer_reads_back_from_its_text() {
        for text in ["204", "429", "599", "slow", "drop"] {
            assert_eq!(text.parse::<SinkAnswer>().unwrap().to_string(), text);
        }
        for text in ["", "100", "600", "-204", "Slow", "2xx"] {
            assert!(text.parse::<SinkAnswer>().is_err(), "{text}");
        }
    }

    #[test]
    fn webhooks_are_counted_one_by_one_and_the_oldest_forgotten() {
        let mut counts = Counts::default();
        assert_eq!([counts.count("a"), counts.count("b"), counts.count("a")], [1, 1, 2]);
        for number in 0..COUNTED_MAX {
            counts.count(&number.to_string());
        }
        assert_eq!(counts.attempts.len(), COUNTED_MAX);
        assert_eq!(counts.count("a"), 1);
    }
}
