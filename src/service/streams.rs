//! Streams: followers of the log that stay. What many of them want is read and written out once.
//!
//! Streams of one company with one filter are a group. A single task reads what is new for a group after each commit and
//! keeps it for a while as ready bytes; streams that are near the tail take slices of these. One that is further back
//! reads the store itself, a little at a time, as its client takes it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::cursors::{CursorSealer, Expected, filter_hash};
use super::events::{Origin, PageError};
use crate::domain::clock::Clock;
use crate::domain::company::CompanyId;
use crate::domain::cursor::{Cursor, Direction, Position};
use crate::domain::filter::TypeFilter;
use crate::domain::key::Principal;
use crate::domain::time::Timestamp;
use crate::store::{Clients, Followed, Keys, LogBatch, ReadError, Start, Store};
use crate::telemetry::metrics::{StreamEnd, StreamMetrics};
use crate::wire::sse;

/// Events and bytes of envelopes that are written out for a group at once.
const FEED_EVENTS_MAX: usize = 256;
const FEED_BYTES_MAX: usize = 64 * 1024;
/// The same for a stream that reads the store itself.
const OWN_EVENTS_MAX: usize = 64;
const OWN_BYTES_MAX: usize = 16 * 1024;
/// Bytes that are kept ready for all groups together.
const KEPT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The rest after a commit, so that a busy log does not keep the task looking.
const PAUSE: Duration = Duration::from_millis(5);
/// Groups that are fed before others of the same thread have their turn.
const GROUPS_AT_ONCE: usize = 16;
/// How often streams are looked at: whether their key is over, and whether they are to be woken.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Why a stream was not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenStreamError {
    /// As many are open as may be.
    #[error("as many streams are open as may be")]
    TooMany,
    /// It cannot begin where it is to begin.
    #[error(transparent)]
    Page(#[from] PageError),
}

/// What a stream is asked for.
#[derive(Debug, Clone)]
pub struct StreamRequest {
    /// Whose log.
    pub company: CompanyId,
    /// Which types.
    pub filter: TypeFilter,
    /// Where an earlier stream or list ended.
    pub cursor: Option<String>,
    /// Where to begin without a cursor; none: at the tail.
    pub from: Option<Origin>,
}

/// What comes next in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamItem {
    /// Blocks of events.
    Events(Bytes),
    /// Nothing more, and why, for its client.
    End(String),
}

/// Ready blocks of consecutive events of a group.
#[derive(Debug)]
struct Blocks {
    /// The position of each event and where its block ends.
    ends: Vec<(Position, usize)>,
    bytes: Bytes,
}

impl Blocks {
    fn last(&self) -> Position {
        self.ends.last().map_or(Position::START, |(position, _)| *position)
    }

    /// What lies above `position`, and how many events that is.
    fn above(&self, position: Position) -> (Bytes, usize) {
        let passed = self.ends.partition_point(|(at, _)| *at <= position);
        let from = passed.checked_sub(1).and_then(|place| self.ends.get(place)).map_or(0, |(_, end)| *end);
        (self.bytes.slice(from.min(self.bytes.len())..), self.ends.len() - passed)
    }
}

/// Streams that want the same.
#[derive(Debug)]
struct Group {
    company: CompanyId,
    filter: TypeFilter,
    filter_hash: u64,
    state: Mutex<GroupState>,
}

#[derive(Debug)]
struct GroupState {
    /// Everything that matches above `floor`, up to and with `head`.
    kept: VecDeque<Blocks>,
    floor: Position,
    head: Position,
    seats: HashMap<u64, Arc<Seat>>,
}

/// One stream, as its group knows it.
#[derive(Debug)]
struct Seat {
    principal: Principal,
    waker: Mutex<Option<Waker>>,
    /// When it is to be woken whatever happens, in milliseconds after the start of the service.
    due_ms: AtomicU64,
    /// See [`Seat::end`].
    ended: AtomicU8,
}

const OPEN: u8 = 0;
const KEY_OVER: u8 = 1;
const STOPPING: u8 = 2;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seat {
    fn wake(&self) {
        let waker = lock(&self.waker).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn register(&self, context: &Context<'_>) {
        let mut waker = lock(&self.waker);
        match &mut *waker {
            Some(known) => known.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
    }

    fn end(&self, reason: u8) {
        self.ended.store(reason, Ordering::Release);
        self.wake();
    }
}

impl Group {
    fn wake_all(&self) {
        for seat in lock(&self.state).seats.values() {
            seat.wake();
        }
    }

    /// Lets the streams read the store themselves up to `position`.
    fn skip_to(&self, position: Position) {
        let mut state = lock(&self.state);
        state.kept.clear();
        state.floor = position.max(state.head);
        state.head = state.floor;
    }
}

#[derive(Debug, Default)]
struct State {
    groups: HashMap<CompanyId, HashMap<String, Arc<Group>>>,
    /// Every group has what matches up to here.
    reached: Position,
    open: usize,
    next_seat: u64,
    is_stopping: bool,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    clock: Arc<dyn Clock>,
    sealer: CursorSealer,
    metrics: Arc<StreamMetrics>,
    state: Mutex<State>,
    started: Instant,
    /// Told when the first stream is opened.
    first: Notify,
}

/// The use cases of streams.
#[derive(Debug, Clone)]
pub struct StreamService(Arc<Shared>);

impl Shared {
    fn seal(&self, group: &Group, position: Position) -> String {
        let (company, filter_hash) = (group.company, group.filter_hash);
        let epoch = self.sealer.epoch();
        self.sealer.seal(&Cursor { position, direction: Direction::Ascending, epoch, company, filter_hash, tail: position })
    }

    fn write_out(&self, group: &Group, batch: &LogBatch) -> Blocks {
        let bytes: usize = batch.events.iter().map(|event| event.envelope.len() + 256).sum();
        let mut out = Vec::with_capacity(bytes);
        let mut ends = Vec::with_capacity(batch.events.len());
        for event in &batch.events {
            sse::event(&mut out, &self.seal(group, event.position()), &event.kind, &event.envelope);
            ends.push((event.position(), out.len()));
        }
        out.shrink_to_fit();
        Blocks { ends, bytes: out.into() }
    }

    fn groups(&self) -> Vec<Arc<Group>> {
        lock(&self.state).groups.values().flat_map(HashMap::values).cloned().collect()
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }

    /// Ends the streams whose key is over, and wakes those that are due.
    fn look(&self) {
        let (keys, clients) = (self.store.keys(), self.store.clients());
        let (now, millis) = (self.clock.now(), self.millis(Instant::now()));
        for group in self.groups() {
            for seat in lock(&group.state).seats.values() {
                if is_over(&seat.principal, &keys, &clients, now) {
                    seat.end(KEY_OVER);
                } else if seat.due_ms.load(Ordering::Relaxed) <= millis {
                    seat.due_ms.store(u64::MAX, Ordering::Relaxed);
                    seat.wake();
                }
            }
        }
    }

    fn stop(&self) {
        lock(&self.state).is_stopping = true;
        for group in self.groups() {
            for seat in lock(&group.state).seats.values() {
                seat.end(STOPPING);
            }
        }
    }

    fn leave(&self, group: &Group, seat: u64) {
        let mut state = lock(&self.state);
        state.open -= 1;
        let is_empty = {
            let mut of_group = lock(&group.state);
            of_group.seats.remove(&seat);
            of_group.seats.is_empty()
        };
        // Nobody can have joined in between: that takes the same lock.
        if is_empty && let Some(of_company) = state.groups.get_mut(&group.company) {
            of_company.remove(&group.filter.canonical());
            if of_company.is_empty() {
                state.groups.remove(&group.company);
            }
        }
    }
}

fn is_over(principal: &Principal, keys: &Keys, clients: &Clients, now: Timestamp) -> bool {
    match principal {
        Principal::Local => false,
        // Clients of other issuers are not known here; their tokens were good when the stream was opened.
        Principal::Token(holder) if holder.issuer.is_some() => false,
        Principal::Token(holder) => clients.by_id(&holder.client).is_none_or(|client| client.is_over(now)),
        Principal::Key(key) => keys.by_id(key.id).is_none_or(|key| key.is_over(now)),
    }
}

impl StreamService {
    pub(super) fn new(store: Store, clock: Arc<dyn Clock>, metrics: Arc<StreamMetrics>) -> Self {
        let sealer = CursorSealer::new(store.cursor_key(), store.epoch());
        Self(Arc::new(Shared { store, clock, sealer, metrics, state: Mutex::default(), started: Instant::now(), first: Notify::new() }))
    }

    /// Opens a stream when fewer than `open_max` are open.
    ///
    /// # Errors
    /// See [`OpenStreamError`].
    pub fn open(&self, request: StreamRequest, principal: Principal, open_max: usize) -> Result<Stream, OpenStreamError> {
        let shared = &self.0;
        let StreamRequest { company, filter, cursor, from } = request;
        let filter_hash = filter_hash(&filter);
        let start = match (cursor, from) {
            (Some(text), _) => {
                let expected = Expected { company, direction: Direction::Ascending, filter_hash };
                Start::After(shared.sealer.open(&text, &expected).map_err(PageError::from)?.position)
            }
            (None, Some(Origin::Oldest)) => Start::Oldest,
            (None, Some(Origin::Time(time))) => Start::Time(time),
            (None, Some(Origin::Latest) | None) => Start::Latest,
        };
        let position = shared.store.start_position(company, start);
        let fresh = Group {
            company,
            filter,
            filter_hash,
            state: Mutex::new(GroupState { kept: VecDeque::new(), floor: position, head: position, seats: HashMap::new() }),
        };
        // Whoever brings no cursor has lost nothing, even if the oldest event has expired since.
        let lost =
            if matches!(start, Start::After(_)) { shared.store.lost_behind(company, position).map_err(PageError::from)? } else { None };
        if let Some(lost) = lost {
            let oldest = shared.seal(&fresh, lost.oldest);
            return Err(PageError::Expired { oldest, lost: lost.span }.into());
        }
        let seat = Arc::new(Seat { principal, waker: Mutex::default(), due_ms: AtomicU64::new(u64::MAX), ended: AtomicU8::new(OPEN) });
        let mut state = lock(&shared.state);
        if state.open >= open_max {
            shared.metrics.refuse();
            return Err(OpenStreamError::TooMany);
        }
        if state.is_stopping {
            seat.end(STOPPING);
        }
        let number = state.next_seat;
        let (is_first, tail) = (state.open == 0, shared.store.tail());
        if is_first {
            // Nobody has looked since the last stream ended.
            state.reached = tail;
        }
        let group = state.groups.entry(company).or_default().entry(fresh.filter.canonical()).or_insert_with(|| {
            // What is committed from now on is above what the task has reached, and comes to this group too.
            let mut of_group = lock(&fresh.state);
            (of_group.floor, of_group.head) = (tail, tail);
            drop(of_group);
            Arc::new(fresh)
        });
        let group = Arc::clone(group);
        lock(&group.state).seats.insert(number, Arc::clone(&seat));
        state.next_seat += 1;
        state.open += 1;
        drop(state);
        shared.metrics.open();
        if is_first {
            shared.first.notify_one();
        }
        Ok(Stream { shared: Arc::clone(shared), group, seat, number, position, told: position, end: StreamEnd::Client })
    }

    /// Feeds the streams until `stop`; then ends them all. To be run once.
    pub async fn run(&self, stop: &CancellationToken) {
        let shared = &self.0;
        let mut feeder = Feeder { shared, order: VecDeque::new(), bytes: 0 };
        let mut tail = shared.store.watch_tail();
        let mut look = interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_idle = lock(&shared.state).open == 0;
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = shared.first.notified(), if is_idle => {}
                _ = look.tick(), if !is_idle => shared.look(),
                changed = tail.changed(), if !is_idle => {
                    if changed.is_err() {
                        break;
                    }
                    feeder.feed_all().await;
                    sleep(PAUSE).await;
                }
            }
        }
        shared.stop();
    }
}

/// Reads what is new and keeps it ready.
struct Feeder<'a> {
    shared: &'a Shared,
    /// What is kept, oldest first: whose it is, and its bytes.
    order: VecDeque<(Weak<Group>, usize)>,
    bytes: usize,
}

impl Feeder<'_> {
    /// Brings every group up to the tail.
    async fn feed_all(&mut self) {
        loop {
            let reached = lock(&self.shared.state).reached;
            let after = match self.shared.store.kinds_after(reached) {
                Ok(after) => after,
                Err(error) => return self.give_up(&error),
            };
            if after.reached == reached {
                return;
            }
            let mut behind: Vec<Arc<Group>> = Vec::new();
            {
                let state = lock(&self.shared.state);
                for of_kind in after.kinds.chunk_by(|one, next| one.0 == next.0) {
                    let of_company = of_kind.first().and_then(|(company, ..)| state.groups.get(company));
                    let wants = |group: &&Arc<Group>| of_kind.iter().any(|(_, folded, version)| group.filter.matches(folded, version));
                    behind.extend(of_company.into_iter().flat_map(HashMap::values).filter(wants).cloned());
                }
            }
            for (number, group) in behind.iter().enumerate() {
                self.feed(group).await;
                if number % GROUPS_AT_ONCE == GROUPS_AT_ONCE - 1 {
                    yield_now().await;
                }
            }
            let mut state = lock(&self.shared.state);
            state.reached = state.reached.max(after.reached);
        }
    }

    async fn feed(&mut self, group: &Arc<Group>) {
        loop {
            let head = lock(&group.state).head;
            let batch = match self.shared.store.follow(group.company, head, &group.filter, FEED_EVENTS_MAX, FEED_BYTES_MAX) {
                Ok(Followed::Batch(batch)) => batch,
                // Each stream is told for itself.
                Ok(Followed::Lost(_)) | Err(_) => {
                    group.skip_to(self.shared.store.tail());
                    return group.wake_all();
                }
            };
            let blocks = self.shared.write_out(group, &batch);
            let bytes = blocks.bytes.len() + blocks.ends.len() * size_of::<(Position, usize)>();
            {
                let mut state = lock(&group.state);
                state.head = batch.reached;
                if !blocks.ends.is_empty() {
                    state.kept.push_back(blocks);
                    self.order.push_back((Arc::downgrade(group), bytes));
                    self.bytes += bytes;
                }
            }
            group.wake_all();
            self.forget();
            if !batch.is_behind {
                return;
            }
            // Its streams take their part before more is put on top.
            yield_now().await;
        }
    }

    /// Drops the oldest of what is kept until the rest fits.
    fn forget(&mut self) {
        while self.bytes > KEPT_BYTES_MAX
            && let Some((group, bytes)) = self.order.pop_front()
        {
            self.bytes -= bytes;
            let Some(group) = group.upgrade() else { continue };
            let mut state = lock(&group.state);
            if let Some(blocks) = state.kept.pop_front() {
                state.floor = state.floor.max(blocks.last());
            }
        }
    }

    /// Lets every stream find out for itself what cannot be read.
    fn give_up(&self, error: &ReadError) {
        warn!(%error, "What is new for streams cannot be read: {error}");
        let tail = self.shared.store.tail();
        lock(&self.shared.state).reached = tail;
        for group in self.shared.groups() {
            group.skip_to(tail);
            group.wake_all();
        }
    }
}

/// A follower of the log that stays.
#[derive(Debug)]
pub struct Stream {
    shared: Arc<Shared>,
    group: Arc<Group>,
    seat: Arc<Seat>,
    number: u64,
    /// Everything up to here has been given out.
    position: Position,
    /// The last position that the client was told.
    told: Position,
    /// What it is counted as when it is dropped.
    end: StreamEnd,
}

impl Stream {
    /// Where the stream begins, for its client to remember.
    #[must_use]
    pub fn opening(&self) -> Bytes {
        let mut out = Vec::new();
        sse::comment(&mut out, "open");
        sse::position(&mut out, &self.shared.seal(&self.group, self.position));
        out.into()
    }

    /// Whether `deadline` has come; if not, the task that asks for what comes next is woken within a second after it.
    #[must_use]
    pub fn is_due(&self, deadline: Instant) -> bool {
        if Instant::now() >= deadline {
            return true;
        }
        self.seat.due_ms.store(self.shared.millis(deadline), Ordering::Relaxed);
        false
    }

    /// Whether the stream is to end, whatever is left of it; if not, the task is woken when it is.
    pub fn poll_over(&self, context: &Context<'_>) -> bool {
        self.seat.register(context);
        self.seat.ended.load(Ordering::Acquire) != OPEN
    }

    /// What comes next; when nothing does yet, the task is woken once it may.
    pub fn poll_next(&mut self, context: &Context<'_>) -> Poll<StreamItem> {
        self.seat.register(context);
        match self.seat.ended.load(Ordering::Acquire) {
            OPEN => {}
            KEY_OVER => return self.ends(StreamEnd::Key, "the key was revoked or has expired"),
            _ => return self.ends(StreamEnd::Shutdown, "the daemon stops; go on from the last id"),
        }
        loop {
            let found = {
                let state = lock(&self.group.state);
                if self.position >= state.floor {
                    let place = state.kept.partition_point(|blocks| blocks.last() <= self.position);
                    Some(state.kept.get(place).map(|blocks| (blocks.above(self.position), blocks.last())))
                } else {
                    None
                }
            };
            match found {
                Some(None) => return Poll::Pending,
                Some(Some(((bytes, events), last))) => {
                    (self.position, self.told) = (last, last);
                    self.shared.metrics.send(events);
                    return Poll::Ready(StreamItem::Events(bytes));
                }
                None => {
                    if let Some(item) = self.read_store() {
                        return Poll::Ready(item);
                    }
                }
            }
        }
    }

    /// The next events from the store; none when the stream has come up to what its group keeps.
    fn read_store(&mut self) -> Option<StreamItem> {
        let Group { company, filter, .. } = self.group.as_ref();
        match self.shared.store.follow(*company, self.position, filter, OWN_EVENTS_MAX, OWN_BYTES_MAX) {
            Ok(Followed::Batch(batch)) => {
                self.position = batch.reached;
                if batch.events.is_empty() {
                    return None;
                }
                let blocks = self.shared.write_out(&self.group, &batch);
                self.told = blocks.last();
                self.shared.metrics.send(blocks.ends.len());
                Some(StreamItem::Events(blocks.bytes))
            }
            Ok(Followed::Lost(lost)) => {
                self.end = StreamEnd::Expired;
                let oldest = self.shared.seal(&self.group, lost.oldest);
                Some(StreamItem::End(format!(
                    "events behind this stream have been removed by retention; what is kept begins at cursor {oldest}"
                )))
            }
            Err(error) => {
                self.end = StreamEnd::Failed;
                Some(StreamItem::End(format!("the log cannot be read: {error}")))
            }
        }
    }

    fn ends(&mut self, end: StreamEnd, why: &str) -> Poll<StreamItem> {
        self.end = end;
        Poll::Ready(StreamItem::End(why.to_owned()))
    }

    /// Says that its client does not take what it is sent.
    pub fn end_slow(&mut self) {
        self.end = StreamEnd::Slow;
    }

    /// A comment for a client that waits, and where it is when that has changed without an event: events of others do not
    /// let its position grow old.
    pub fn waiting(&mut self) -> Bytes {
        let mut out = Vec::new();
        sse::comment(&mut out, "waiting");
        // Asked before the group is: what it keeps then is at least what is up to there.
        let reached = lock(&self.shared.state).reached;
        {
            let state = lock(&self.group.state);
            let has_all = self.position >= state.floor && state.kept.back().is_none_or(|blocks| blocks.last() <= self.position);
            if has_all {
                self.position = self.position.max(reached);
            }
        }
        if self.position != self.told {
            self.told = self.position;
            sse::position(&mut out, &self.shared.seal(&self.group, self.position));
        }
        out.into()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.leave(&self.group, self.number);
        self.shared.metrics.end(self.end);
    }
}
