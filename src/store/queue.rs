//! The commit queue: what waits for the next transaction, bounded by count and bytes.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use super::answer::{Answerer, Promise};
use super::prepared::PreparedEvent;
use super::{AppendError, StoreOptions};
use crate::domain::event::Receipt;
use crate::telemetry::metrics::StoreMetrics;

/// The answer to each event of a group, in its order.
pub(super) type Outcomes = Vec<Result<Receipt, AppendError>>;

/// One caller's events and where its answer goes.
#[derive(Debug)]
pub(super) enum Waiting {
    One(PreparedEvent, Answerer<Result<Receipt, AppendError>>),
    Group(Vec<PreparedEvent>, Answerer<Outcomes>),
}

impl Waiting {
    /// Takes the events out, and leaves where the answer goes.
    pub fn into_parts(self, events: &mut Vec<PreparedEvent>) -> Caller {
        match self {
            Self::One(event, sender) => {
                events.push(event);
                Caller::One(sender)
            }
            Self::Group(mut group, sender) => {
                let count = group.len();
                events.append(&mut group);
                Caller::Group(count, sender)
            }
        }
    }

    pub fn events(&self) -> &[PreparedEvent] {
        match self {
            Self::One(event, _) => std::slice::from_ref(event),
            Self::Group(events, _) => events,
        }
    }
}

/// Where an answer goes, and to how many events.
#[derive(Debug)]
pub(super) enum Caller {
    One(Answerer<Result<Receipt, AppendError>>),
    Group(usize, Answerer<Outcomes>),
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<Waiting>,
    events: usize,
    bytes: usize,
    closed: bool,
    /// Somebody other than a publisher wants the writer to look around.
    nudged: bool,
}

/// The queue.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    events_max: usize,
    bytes_max: usize,
    metrics: Arc<StoreMetrics>,
}

/// What the writer found.
pub(super) struct Batch {
    pub waiting: Vec<Waiting>,
    /// The queue is empty for good.
    pub closed: bool,
}

impl Queue {
    pub fn new(options: &StoreOptions) -> Self {
        Self {
            state: Mutex::default(),
            filled: Condvar::new(),
            events_max: options.queue_events_max,
            bytes_max: options.queue_bytes_max,
            metrics: Arc::clone(&options.metrics),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes events in, or refuses at once when there is no room.
    pub fn push(&self, waiting: Waiting) -> Result<(), AppendError> {
        let events = waiting.events().len();
        let bytes: usize = waiting.events().iter().map(PreparedEvent::bytes).sum();
        let mut state = self.state();
        if state.closed {
            return Err(AppendError::Unknown);
        }
        // A group that is larger than the whole queue is taken when nothing else waits.
        let is_full = state.events + events > self.events_max || state.bytes + bytes > self.bytes_max;
        if is_full && state.events > 0 {
            return Err(AppendError::Overloaded { retry_after_seconds: 1 });
        }
        state.events += events;
        state.bytes += bytes;
        state.waiting.push(waiting);
        self.metrics.show_queue(state.events, state.bytes);
        let was_empty = state.waiting.len() == 1;
        drop(state);
        if was_empty {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Everything that waits; waits itself for at most `patience` when nothing does.
    pub fn take(&self, patience: Duration) -> Batch {
        let mut state = self.state();
        if state.waiting.is_empty() && !state.closed && !state.nudged {
            state = self
                .filled
                .wait_timeout_while(state, patience, |state| state.waiting.is_empty() && !state.closed && !state.nudged)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        state.events = 0;
        state.bytes = 0;
        state.nudged = false;
        self.metrics.show_queue(0, 0);
        Batch { waiting: std::mem::take(&mut state.waiting), closed: state.closed }
    }

    /// Wakes the writer.
    pub fn nudge(&self) {
        self.state().nudged = true;
        self.filled.notify_one();
    }

    /// Nothing more is taken in.
    pub fn close(&self) {
        self.state().closed = true;
        self.filled.notify_one();
    }

    /// Events and bytes that wait.
    pub fn depth(&self) -> (usize, usize) {
        let state = self.state();
        (state.events, state.bytes)
    }
}

/// An event on its way to disk; done when its commit is.
#[derive(Debug)]
pub enum Appending {
    /// The answer is known already.
    Known(Option<Result<Receipt, AppendError>>),
    /// The writer has it.
    Queued(Queued),
}

/// An event that the writer has.
#[derive(Debug)]
pub struct Queued(pub(super) Promise<Result<Receipt, AppendError>>);

impl Future for Appending {
    type Output = Result<Receipt, AppendError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Known(answer) => Poll::Ready(answer.take().unwrap_or(Err(AppendError::Unknown))),
            Self::Queued(Queued(promise)) => Pin::new(promise).poll(context).map(|answer| answer.unwrap_or(Err(AppendError::Unknown))),
        }
    }
}

/// A group of events on its way to disk.
#[derive(Debug)]
pub struct AppendingAll {
    /// Answers that were known before, by place; the rest comes from the writer in order.
    pub(super) known: Vec<Option<Result<Receipt, AppendError>>>,
    pub(super) queued: Option<Promise<Outcomes>>,
}

impl AppendingAll {
    /// The answer to each event, in order.
    ///
    /// # Errors
    /// `Unknown` when the writer ended before it answered.
    pub async fn outcomes(self) -> Result<Vec<Result<Receipt, AppendError>>, AppendError> {
        let mut written = match self.queued {
            Some(queued) => queued.await.ok_or(AppendError::Unknown)?,
            None => Vec::new(),
        }
        .into_iter();
        Ok(self.known.into_iter().map(|known| known.or_else(|| written.next()).unwrap_or(Err(AppendError::Unknown))).collect())
    }
}
