//! Connections to receivers. Whoever sends on one drives it, in its own task; a target keeps those that are idle.
//!
//! A connection belongs to one target and to the policy it was opened under. Nobody else's webhook travels over it, and
//! when the operator changes the policy it is not used again.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_rustls::client::TlsStream;

use crate::domain::egress::EgressPolicy;

/// The longest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// The most that is read ahead of what is taken, in bytes.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// All that is read for one request, in bytes: provisional answers, head, body and what wraps its pieces. It bounds
/// receivers that send little of what counts and much of what does not.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Connections of the daemon above which an idle one is closed instead of kept.
const OPEN_KEPT_MAX: usize = 1024;
/// How long an idle connection is kept, at least; at most twice as long.
const IDLE: Duration = Duration::from_secs(30);
/// How long a receiver that has answered may go on reading the request.
const READY: Duration = Duration::from_millis(50);

/// How many connections are open.
#[derive(Debug, Clone, Default)]
pub(super) struct Open(Arc<AtomicUsize>);

/// Counts one connection for as long as it lives.
struct Counted(Open);

impl Counted {
    fn new(open: &Open) -> Self {
        open.0.fetch_add(1, Ordering::Relaxed);
        Self(open.clone())
    }

    fn open(&self) -> usize {
        self.0.0.load(Ordering::Relaxed)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// More bytes than one answer may have.
#[derive(Debug, thiserror::Error)]
#[error("the answer has more than {ANSWER_BYTES_MAX} bytes around its body")]
pub(super) struct AnswerTooLong;

/// The bytes of a connection, as hyper sees them.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A stream that counts what is read for one request, and ends it when that is too much.
struct Metered {
    stream: Stream,
    read: Arc<AtomicUsize>,
}

impl AsyncRead for Metered {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read.load(Ordering::Relaxed) > ANSWER_BYTES_MAX {
            return Poll::Ready(Err(io::Error::other(AnswerTooLong)));
        }
        let before = buffer.filled().len();
        let polled = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        };
        self.read.fetch_add(buffer.filled().len() - before, Ordering::Relaxed);
        polled
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// What a request sends: a text as it is, or with a pause in the middle of it.
pub(super) struct RequestBody {
    rest: Bytes,
    pause: Option<Pause>,
}

/// A wait, and what comes before it.
struct Pause {
    first: Bytes,
    length: Duration,
    /// Begins when the first part has been taken.
    wait: Option<Pin<Box<Sleep>>>,
}

impl RequestBody {
    /// All at once.
    pub fn whole(text: Bytes) -> Self {
        Self { rest: text, pause: None }
    }

    /// Its first half, and the second one so much later.
    pub fn halting(mut text: Bytes, length: Duration) -> Self {
        let first = text.split_to(text.len() / 2);
        Self { rest: text, pause: Some(Pause { first, length, wait: None }) }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(pause) = &mut self.pause {
            if !pause.first.is_empty() {
                pause.wait = Some(Box::pin(sleep(pause.length)));
                return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut pause.first)))));
            }
            if pause.wait.as_mut().is_some_and(|wait| wait.as_mut().poll(context).is_pending()) {
                return Poll::Pending;
            }
            self.pause = None;
        }
        let rest = std::mem::take(&mut self.rest);
        Poll::Ready((!rest.is_empty()).then(|| Ok(Frame::data(rest))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.pause.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.pause.as_ref().map_or(0, |pause| pause.first.len());
        SizeHint::with_exact((first + self.rest.len()) as u64)
    }
}

/// A connection to a receiver. Dropping it closes it.
pub(super) struct Connection {
    requests: SendRequest<RequestBody>,
    driver: Box<http1::Connection<TokioIo<Metered>, RequestBody>>,
    has_ended: bool,
    /// Whom it leads to; a proxy does not tell.
    pub address: Option<IpAddr>,
    policy: Arc<EgressPolicy>,
    read: Arc<AtomicUsize>,
    used: Instant,
    /// The runtime that watches the socket.
    home: runtime::Id,
    counted: Counted,
}

impl Connection {
    /// Begins HTTP on a stream that has been checked.
    pub async fn begin(stream: Stream, address: Option<IpAddr>, policy: Arc<EgressPolicy>, open: &Open) -> hyper::Result<Self> {
        let read = Arc::new(AtomicUsize::new(0));
        let io = TokioIo::new(Metered { stream, read: read.clone() });
        let mut builder = http1::Builder::new();
        builder.max_header_size(HEAD_BYTES_MAX).max_buf_size(BUFFER_BYTES_MAX);
        let (requests, driver) = builder.handshake(io).await?;
        let counted = Counted::new(open);
        let (driver, used, home) = (Box::new(driver), Instant::now(), runtime::Handle::current().id());
        Ok(Self { requests, driver, has_ended: false, address, policy, read, used, home, counted })
    }

    fn poll_driver(&mut self, context: &mut Context<'_>) {
        if !self.has_ended {
            // An error is told to whoever waits for the answer.
            self.has_ended = Pin::new(&mut self.driver).poll(context).is_ready();
        }
    }

    /// Waits for something that only comes if the connection is driven meanwhile.
    pub async fn drive<T>(&mut self, awaited: impl Future<Output = T>) -> T {
        let mut awaited = std::pin::pin!(awaited);
        poll_fn(|context| {
            self.poll_driver(context);
            awaited.as_mut().poll(context)
        })
        .await
    }

    /// Sends one request and waits for the head of its answer. With an error comes the request back, if nothing of it
    /// was sent.
    pub async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, (hyper::Error, Option<Request<RequestBody>>)> {
        self.read.store(0, Ordering::Relaxed);
        let answer = self.requests.try_send_request(request);
        self.drive(answer).await.map_err(|mut error| {
            let request = error.take_message();
            (error.into_error(), request)
        })
    }

    /// Whether the receiver has said nothing since the last request began.
    pub fn is_silent(&self) -> bool {
        self.read.load(Ordering::Relaxed) == 0
    }

    /// Whether another request can follow at once, as far as is known here.
    fn is_ready(&mut self, context: &mut Context<'_>) -> bool {
        self.poll_driver(context);
        !self.has_ended && self.requests.is_ready()
    }

    /// Whether another request can follow. A receiver may answer before it has read the request; it is not waited for
    /// long.
    async fn becomes_ready(&mut self) -> bool {
        if self.requests.is_ready() {
            return true;
        }
        let is_ready = async {
            poll_fn(|context| {
                self.poll_driver(context);
                self.requests.poll_ready(context)
            })
            .await
            .is_ok()
        };
        timeout(READY, is_ready).await.unwrap_or(false)
    }
}

#[derive(Default)]
struct Idle {
    connections: Vec<Connection>,
    /// Whether a task is there that closes what has been idle for long.
    is_swept: bool,
}

/// The idle connections of one target; the most recently used one goes first.
#[derive(Default)]
pub(super) struct Pool(Arc<Mutex<Idle>>);

fn lock(idle: &Mutex<Idle>) -> MutexGuard<'_, Idle> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// Takes a connection that this policy opened and that looks alive. One of another runtime is closed: what comes on it
    /// would be told to that one first, which may have other things to do.
    pub async fn take(&self, policy: &Arc<EgressPolicy>) -> Option<Connection> {
        poll_fn(|context| {
            let home = runtime::Handle::current().id();
            let mut idle = lock(&self.0);
            while let Some(mut connection) = idle.connections.pop() {
                let is_ours = Arc::ptr_eq(&connection.policy, policy) && connection.home == home;
                if is_ours && connection.is_ready(context) {
                    return Poll::Ready(Some(connection));
                }
            }
            Poll::Ready(None)
        })
        .await
    }

    /// Keeps a connection whose answer was read to its end.
    pub async fn keep(&self, mut connection: Connection) {
        if connection.counted.open() > OPEN_KEPT_MAX || !connection.becomes_ready().await {
            return;
        }
        connection.used = Instant::now();
        let mut idle = lock(&self.0);
        idle.connections.push(connection);
        if !idle.is_swept {
            idle.is_swept = true;
            tokio::spawn(sweep(Arc::downgrade(&self.0)));
        }
    }
}

/// Closes connections that have been idle for long or that their receivers have closed, until none is left.
async fn sweep(pool: Weak<Mutex<Idle>>) {
    loop {
        sleep(IDLE).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut idle = lock(&pool);
        let mut context = Context::from_waker(Waker::noop());
        idle.connections.retain_mut(|connection| connection.used.elapsed() < IDLE && connection.is_ready(&mut context));
        if idle.connections.is_empty() {
            idle.is_swept = false;
            return;
        }
    }
}
