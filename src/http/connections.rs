//! The accept loop and what a connection may do: hyper speaks HTTP, this decides how long and how much.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use axum::routing::future::RouteFuture;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;
use tracing::{debug, warn};

use super::api::streams;
use super::gate::Caller;
use super::routes::router;
use super::timed::{Activity, PhaseLimits, TimedStream};
use crate::service::Services;
use crate::telemetry::metrics::Metrics;

/// The most headers of a request.
const HEADERS_MAX: usize = 64;
/// The most bytes of a request's head.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// What hyper buffers of a connection in each direction.
const BUFFER_BYTES_MAX: usize = 128 * 1024;
/// How often a connection is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The longest pause after the operating system refused a connection.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What connections may do.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Open ones; more wait until one ends.
    pub connections_max: usize,
    /// For the head of a request.
    pub header_read_timeout: Duration,
    /// Between two requests.
    pub idle_timeout: Duration,
}

/// Serves connections until told to stop. A clone serves the same routes.
#[derive(Debug, Clone)]
pub struct Connections {
    router: Router,
    metrics: Arc<Metrics>,
    permits: Arc<Semaphore>,
    /// Of the local socket, so that a crowd on the network does not keep the administrator out.
    local_permits: Arc<Semaphore>,
    limits: PhaseLimits,
    tasks: TaskTracker,
    /// No new connections, and no further request on open ones.
    shutdown: CancellationToken,
    /// Connections that are still open end at once.
    abort: CancellationToken,
}

impl Connections {
    /// Serves all routes; once the services' shutdown is cancelled, nothing new is begun.
    #[must_use]
    pub fn new(services: &Services, limits: &ConnectionLimits) -> Self {
        Self {
            router: router(services),
            metrics: Arc::clone(&services.metrics),
            permits: Arc::new(Semaphore::new(limits.connections_max)),
            local_permits: Arc::new(Semaphore::new(limits.connections_max)),
            limits: PhaseLimits { idle: limits.idle_timeout, head: limits.header_read_timeout },
            tasks: TaskTracker::new(),
            shutdown: services.shutdown.clone(),
            abort: CancellationToken::new(),
        }
    }

    /// Accepts connections over the network until shutdown.
    pub async fn accept_network(&self, listener: TcpListener) {
        self.accept(&self.permits, async || {
            let (stream, peer) = listener.accept().await?;
            // Answers are written whole; waiting for more would only delay them.
            stream.set_nodelay(true)?;
            Ok((stream, Caller::Address(peer.ip().to_canonical())))
        })
        .await;
    }

    /// Accepts connections on the local socket until shutdown.
    pub async fn accept_local(&self, listener: UnixListener) {
        self.accept(&self.local_permits, async || {
            let (stream, _) = listener.accept().await?;
            Ok((stream, Caller::Local))
        })
        .await;
    }

    async fn accept<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        permits: &Arc<Semaphore>,
        mut next: impl AsyncFnMut() -> io::Result<(S, Caller)>,
    ) {
        let mut pause = Duration::from_millis(5);
        // Shared by its tasks: what each of them holds, all that wait hold.
        let shared = Arc::new(self.clone());
        loop {
            let accepting = async {
                // The semaphore is never closed.
                let permit = Arc::clone(permits).acquire_owned().await.ok();
                (permit, next().await)
            };
            let (permit, accepted) = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return,
                accepted = accepting => accepted,
            };
            match accepted {
                Ok((stream, caller)) => {
                    pause = Duration::from_millis(5);
                    let connection = Arc::clone(&shared);
                    self.tasks.spawn(async move {
                        connection.serve(stream, caller).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    // Out of files, or a peer that went away in between: neither ends the daemon.
                    warn!(%error, "A connection could not be accepted: {error}");
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: S, caller: Caller) {
        let _counted = self.metrics.connection();
        let activity = Activity::new();
        let service = RequestService { router: self.router.clone(), caller, activity: Arc::clone(&activity) };
        let io = TokioIo::new(TimedStream::new(stream, Arc::clone(&activity)));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // hyper's own time-out would count the time between two requests as well.
            .header_read_timeout(None)
            .max_headers(HEADERS_MAX)
            .max_header_size(HEAD_BYTES_MAX)
            .max_buf_size(BUFFER_BYTES_MAX)
            .serve_connection(io, service);
        let mut connection = pin!(connection);
        let mut look = pin!(sleep(LOOK_INTERVAL));
        // First until shutdown, then until the end or until it is cut.
        let mut signal = &self.shutdown;
        loop {
            tokio::select! {
                biased;
                // First, so that an answer that the shutdown itself brings about says that it is the last one.
                () = signal.cancelled() => {
                    if self.abort.is_cancelled() {
                        return;
                    }
                    connection.as_mut().graceful_shutdown();
                    signal = &self.abort;
                }
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        debug!(%error, "A connection ended early: {error}");
                    }
                    return;
                }
                () = look.as_mut() => {
                    if activity.is_overdue(&self.limits) {
                        return;
                    }
                    look.as_mut().reset(Instant::now() + LOOK_INTERVAL);
                }
            }
        }
    }

    /// Waits until all connections have ended, at most until `deadline`; then ends those that are left. Their number.
    pub async fn drain(&self, deadline: Instant) -> usize {
        self.tasks.close();
        tokio::select! {
            () = self.tasks.wait() => 0,
            () = sleep_until(deadline) => {
                let left = self.tasks.len();
                self.abort.cancel();
                self.tasks.wait().await;
                left
            }
        }
    }
}

/// Hands each request of a connection to the routes.
#[derive(Debug, Clone)]
struct RequestService {
    router: Router,
    caller: Caller,
    activity: Arc<Activity>,
}

impl hyper::service::Service<Request<Incoming>> for RequestService {
    type Response = Response<WatchedBody>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        self.activity.begin();
        request.extensions_mut().insert(self.caller);
        if request.uri().path() == streams::PATH {
            request.extensions_mut().insert(Arc::clone(&self.activity));
        }
        // On the heap, so that a connection which only waits does not hold its room.
        Answering { route: Box::pin(self.router.clone().call(request)), activity: Arc::clone(&self.activity) }
    }
}

/// A request on its way through the routes.
struct Answering {
    route: Pin<Box<RouteFuture<Infallible>>>,
    activity: Arc<Activity>,
}

impl Future for Answering {
    type Output = Result<Response<WatchedBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let response = ready!(self.route.as_mut().poll(context))?;
        Poll::Ready(Ok(response.map(|body| WatchedBody { body, activity: Arc::clone(&self.activity) })))
    }
}

/// A body that tells when it has been handed over.
struct WatchedBody {
    body: Body,
    activity: Arc<Activity>,
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for WatchedBody {
    fn drop(&mut self) {
        self.activity.end();
    }
}
