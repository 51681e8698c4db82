//! A connection's stream that knows what it waits for, so that nobody can hold a connection for nothing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Between two requests.
const IDLE: u8 = 0;
/// The first bytes of a request have come, its head is not complete.
const HEAD: u8 = 1;
/// A request is being answered.
const BUSY: u8 = 2;

/// The longest that a peer may take nothing of what is sent to it.
const WRITE_STALL_MAX: Duration = Duration::from_secs(30);

/// What a connection is doing, and since when.
#[derive(Debug)]
pub(super) struct Activity {
    started: Instant,
    phase: AtomicU8,
    /// Milliseconds after `started`.
    since: AtomicU64,
    /// Milliseconds after `started` since when the peer takes nothing, plus one; 0 = it does.
    stalled: AtomicU64,
    /// Bytes that have been written.
    written: AtomicU64,
    /// The task wants to be woken when more has been written.
    wants_wake: AtomicBool,
}

/// How long each phase may last.
#[derive(Debug, Clone, Copy)]
pub(super) struct PhaseLimits {
    pub idle: Duration,
    pub head: Duration,
}

impl Activity {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            phase: AtomicU8::new(IDLE),
            since: AtomicU64::new(0),
            stalled: AtomicU64::new(0),
            written: AtomicU64::new(0),
            wants_wake: AtomicBool::new(false),
        })
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn enter(&self, phase: u8) {
        self.phase.store(phase, Ordering::Relaxed);
        self.since.store(self.elapsed(), Ordering::Relaxed);
    }

    /// A request's head is complete.
    pub fn begin(&self) {
        self.phase.store(BUSY, Ordering::Relaxed);
    }

    /// Its answer has been handed over.
    pub fn end(&self) {
        self.enter(IDLE);
    }

    /// Whether the connection has held still for too long.
    pub fn is_overdue(&self, limits: &PhaseLimits) -> bool {
        let now = self.elapsed();
        let lasts = |since: u64| Duration::from_millis(now.saturating_sub(since));
        let since = self.since.load(Ordering::Relaxed);
        let is_over = match self.phase.load(Ordering::Relaxed) {
            IDLE => lasts(since) > limits.idle,
            HEAD => lasts(since) > limits.head,
            _ => false,
        };
        let stalled = self.stalled.load(Ordering::Relaxed);
        is_over || (stalled > 0 && lasts(stalled - 1) > WRITE_STALL_MAX)
    }

    /// Bytes that the operating system has taken.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Wakes the connection's task when it has written more.
    pub fn wake_at_write(&self) {
        self.wants_wake.store(true, Ordering::Relaxed);
    }

    fn note_write(&self, context: &Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(outcome) = &written {
            self.written.fetch_add(outcome.as_ref().map_or(0, |count| *count as u64), Ordering::Relaxed);
            // Body and stream are polled by the same task.
            if self.wants_wake.swap(false, Ordering::Relaxed) {
                context.waker().wake_by_ref();
            }
            if self.stalled.load(Ordering::Relaxed) > 0 {
                self.stalled.store(0, Ordering::Relaxed);
            }
        } else if self.stalled.load(Ordering::Relaxed) == 0 {
            self.stalled.store(self.elapsed() + 1, Ordering::Relaxed);
        }
        written
    }
}

/// The stream.
#[derive(Debug)]
pub(super) struct TimedStream<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S> TimedStream<S> {
    pub fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before && self.activity.phase.load(Ordering::Relaxed) == IDLE {
            self.activity.enter(HEAD);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.activity.note_write(context, written)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, pieces: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.activity.note_write(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
