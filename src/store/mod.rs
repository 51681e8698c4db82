//! The store: an append-only log of events in segments, and a ledger of what changes.
//!
//! The interface is whole operations. Whoever is told "stored" is told after the commit is on disk; an error of
//! the storage ends the store, and the outcome of what was under way is unknown to its callers.

mod answer;
mod attempts;
mod audit;
mod bloom;
mod by_hand;
mod chunk;
mod clients;
mod companies;
mod cursors;
mod dedupe;
mod deliveries;
mod delivery_views;
pub mod disk;
pub mod faults;
mod follow;
mod keys;
mod layout;
mod ledger;
mod live;
mod open;
mod outgoing;
mod page;
mod prepared;
mod queue;
mod recent;
mod records;
mod replays;
mod retention;
mod rsa_keys;
mod seal;
mod sealed;
mod sealed_tables;
mod secrets;
mod segment;
mod snapshots;
mod subscriptions;
mod tables;
#[cfg(test)]
mod tests;
mod token_keys;
mod verify;
mod writer;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tracing::error;

pub use self::answer::relay_answers;
pub use self::attempts::AttemptRow;
pub use self::audit::AuditRow;
pub use self::by_hand::DeadThen;
pub use self::chunk::ChunkError;
pub use self::clients::{ClientError, Clients, JtiUse, NewClient};
pub use self::companies::{Companies, CompanyError};
pub use self::cursors::{CURSORS_MAX, NamedCursor, NamedCursorError};
pub use self::deliveries::{
    CloseState, ClosedRow, DeadReason, DeadRow, DeliveryRow, DeliveryState, EventRun, ExpiredRange, Outcomes, PositionRow, ReceiverNote,
    RetryRow,
};
pub use self::delivery_views::{DeliveriesPage, DeliveriesQuery, DeliveryStateName, DeliveryView};
pub use self::follow::{Followed, Lost};
pub use self::keys::{KeyError, Keys};
pub use self::layout::sealed_database;
pub use self::ledger::LedgerBusy;
pub use self::open::{OpenError, StoreThreads};
pub use self::outgoing::{CompanyKind, Counted, KindsAfter, LogBatch, LogEvent};
pub use self::page::{Page, PageOutcome, PageQuery, Start, StoredEvent};
pub use self::prepared::PreparedEvent;
pub use self::queue::{Appending, AppendingAll};
pub use self::replays::{NewReplay, Replay, ReplayError, ReplayProgress, ReplayState, Selection};
pub use self::retention::Dropped;
pub use self::rsa_keys::RsaKeyBytes;
pub use self::secrets::{MasterKey, SecretError, random};
pub use self::snapshots::{Kept, Snapshot};
pub use self::subscriptions::{SubscriptionChange, SubscriptionError};
pub use self::token_keys::{Rotation, TokenKey, TokenKeyError};
pub use self::verify::VerifyReport;

use self::attempts::AttemptLog;
use self::disk::Disk;
use self::faults::Faults;
use self::ledger::Ledger;
use self::live::LiveSegment;
use self::prepared::DedupeEntry;
use self::queue::{Queue, Waiting};
use self::recent::Recent;
use self::sealed::OpenFiles;
use self::segment::{Segment, SegmentList};
use self::subscriptions::Subscriptions;
use self::writer::Writer;
use crate::domain::clock::Clock;
use crate::domain::clock_guard::ClockGuard;
use crate::domain::company::CompanyId;
use crate::domain::cursor::Position;
use crate::domain::event::{EventId, NewEvent, Receipt};
use crate::domain::time::Timestamp;
use crate::telemetry::metrics::StoreMetrics;

/// A chunk, or a snapshot, whose bytes are not those that were written. Nothing is deleted because of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("segment {segment}, {} {first_id}: {reason}", reason.subject())]
pub struct CorruptChunk {
    /// The segment it lies in.
    pub segment: u64,
    /// The first event of the chunk; of a snapshot its event.
    pub first_id: u64,
    /// What is wrong with it.
    pub reason: ChunkError,
}

/// The storage did not do what it must.
#[derive(Debug, thiserror::Error)]
pub enum StorageFault {
    /// redb or the disk below it failed.
    #[error("the database failed: {0}")]
    Database(#[source] Box<redb::Error>),
    /// The operating system refused a file operation.
    #[error("a file operation failed: {0}")]
    File(#[from] std::io::Error),
    /// A chunk is damaged.
    #[error("damaged data: {0}")]
    Corrupt(CorruptChunk),
    /// A record cannot be read or written.
    #[error("a record is damaged: {0}")]
    Record(String),
    /// A segment does not say what it is.
    #[error("segment {segment} does not say what it is")]
    MissingMeta {
        /// Its number.
        segment: u64,
    },
    /// A sealed copy does not hold what its original does.
    #[error("sealing segment {segment} copied {copied} of {original} events")]
    Miscounted {
        /// Its number.
        segment: u64,
        /// Events of the original.
        original: u64,
        /// Events of the copy.
        copied: u64,
    },
    /// A thread of the store panicked.
    #[error("the store's thread `{thread}` panicked")]
    Panicked {
        /// Its name.
        thread: &'static str,
    },
    /// The store was written by a later version.
    #[error("the store has format {found}, this version knows formats up to {known}; use the version of Lutine that wrote it")]
    NewerFormat {
        /// Format of the store.
        found: u32,
        /// Newest format known here.
        known: u32,
    },
}

macro_rules! database_faults {
    ($($error:ty),*) => {$(
        impl From<$error> for StorageFault {
            fn from(error: $error) -> Self {
                Self::Database(Box::new(error.into()))
            }
        }
    )*};
}
database_faults!(redb::DatabaseError, redb::TransactionError, redb::TableError, redb::StorageError, redb::CommitError);

impl From<redb::CursorError> for StorageFault {
    fn from(error: redb::CursorError) -> Self {
        match error {
            redb::CursorError::Storage(storage) => storage.into(),
            other => Self::Record(other.to_string()),
        }
    }
}

/// Why an event was not stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Too much waits for its commit.
    #[error("too many events are waiting for their commit")]
    Overloaded {
        /// When to try again.
        retry_after_seconds: u64,
    },
    /// The dedupe key was used with other content.
    #[error("the dedupe key was used before, by event {id} with other content")]
    DedupeConflict {
        /// The event that has the key.
        id: EventId,
    },
    /// The store ended before it answered: whether the event is stored is unknown. A repeat with the dedupe key is safe.
    #[error("the store ended before it answered; whether the event is stored is unknown")]
    Unknown,
    /// A sealed segment could not be asked for the dedupe key.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why something could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The bytes on disk are not those that were written.
    #[error("damaged data: {0}")]
    Corrupt(CorruptChunk),
    /// The storage failed.
    #[error("the store cannot be read: {0}")]
    Storage(String),
}

impl From<StorageFault> for ReadError {
    fn from(fault: StorageFault) -> Self {
        match fault {
            StorageFault::Corrupt(corrupt) => Self::Corrupt(corrupt),
            other => Self::Storage(other.to_string()),
        }
    }
}

/// Who does something, for the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// `key:{id}` or `local`.
    pub name: String,
    /// The request it came with.
    pub request_id: Option<String>,
}

/// What a store is told when it is opened.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// How long events are kept.
    pub retention: Duration,
    /// A segment is closed when so many bytes of chunks and snapshots are in it.
    pub segment_bytes_max: u64,
    /// A segment is closed when its first event is so old, and at UTC midnight.
    pub segment_age_max: Duration,
    /// Events that may wait for their commit.
    pub queue_events_max: usize,
    /// Bytes that may wait for their commit.
    pub queue_bytes_max: usize,
    /// Where the store counts what it does.
    pub metrics: Arc<StoreMetrics>,
}

/// Where a fault of the storage is reported to; called at most once, from one of the store's threads.
#[derive(Clone)]
pub struct FaultSink {
    failed: Arc<AtomicBool>,
    then: Arc<dyn Fn(&StorageFault) + Send + Sync>,
}

impl fmt::Debug for FaultSink {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FaultSink").field("failed", &self.failed).finish_non_exhaustive()
    }
}

impl FaultSink {
    /// A sink that calls `then` once.
    pub fn new(then: impl Fn(&StorageFault) + Send + Sync + 'static) -> Self {
        Self { failed: Arc::default(), then: Arc::new(then) }
    }

    fn report(&self, fault: &StorageFault) {
        if !self.failed.swap(true, Ordering::AcqRel) {
            error!(error = %fault, "The storage failed, the store ends: {fault}");
            (self.then)(fault);
        }
    }

    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }
}

/// Secrets of a store that its callers need.
#[derive(Debug, Clone)]
struct Secrets {
    cursor_key: [u8; 32],
    pepper: [u8; 32],
    dedupe_key: [u8; 16],
}

/// How the store stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreStatus {
    /// The newest event.
    pub tail: Position,
    /// Sealed segments.
    pub segments_sealed: usize,
    /// Segments that are closed and wait to be sealed.
    pub segments_waiting: usize,
    /// Bytes that the segments, the attempt log and the ledger take on disk.
    pub disk_bytes: u64,
    /// Events that wait for their commit.
    pub queue_events: usize,
    /// Bytes that wait for their commit.
    pub queue_bytes: usize,
    /// Whether the machine's clock is not believed.
    pub clock_in_doubt: bool,
    /// How long the last sealing took; none before the first one.
    pub last_seal: Option<Duration>,
}

#[derive(Debug)]
struct Inner {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    guard: Mutex<ClockGuard>,
    options: StoreOptions,
    faults: Faults,
    sink: FaultSink,
    ledger: Ledger,
    secrets: Secrets,
    /// Seals the secrets of subscriptions.
    master: MasterKey,
    epoch: u32,
    segments: ArcSwap<SegmentList>,
    /// Held while the list is changed, so that no change is lost.
    changing: Mutex<()>,
    /// Held by whoever drops expired segments.
    retiring: Mutex<()>,
    open_files: Arc<OpenFiles>,
    queue: Queue,
    /// Set while publishing is refused because too many segments wait to be sealed.
    stalled: AtomicBool,
    recent: RwLock<Recent>,
    tail: watch::Sender<Position>,
    purged: ArcSwap<HashMap<CompanyId, Position>>,
    companies: ArcSwap<Companies>,
    keys: ArcSwap<Keys>,
    clients: ArcSwap<Clients>,
    token_keys: ArcSwap<Vec<Arc<TokenKey>>>,
    subscriptions: RwLock<Subscriptions>,
    rsa_keys: RwLock<HashMap<CompanyId, RsaKeyBytes>>,
    attempts: AttemptLog,
    writer: Mutex<Writer>,
    maintenance: Mutex<Maintenance>,
    maintenance_wake: Condvar,
    last_seal: Mutex<Option<Duration>>,
}

#[derive(Debug, Default)]
struct Maintenance {
    due: bool,
    closing: bool,
}

impl Inner {
    /// The log's time.
    fn now(&self) -> Timestamp {
        let mut guard = self.guard.lock().unwrap_or_else(PoisonError::into_inner);
        let was_in_doubt = guard.is_in_doubt();
        let now = guard.read(self.clock.now(), self.clock.monotonic());
        if guard.is_in_doubt() && !was_in_doubt {
            error!(wall = %self.clock.now(), log = %now, "The clock has leapt ahead and is not believed; the log goes on from its own time");
        }
        now
    }

    /// Events created before this are expired.
    fn cutoff_at(&self, now: Timestamp) -> Timestamp {
        now.before(self.options.retention)
    }

    fn cutoff(&self) -> Timestamp {
        self.cutoff_at(self.now().max(self.tail.borrow().created))
    }

    fn change_segments(&self, change: impl FnOnce(&mut SegmentList)) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list = SegmentList::clone(&self.segments.load());
        change(&mut list);
        self.show_segments(&list);
        self.segments.store(Arc::new(list));
    }

    fn show_segments(&self, list: &SegmentList) {
        let sealed = list.sealed_count();
        self.options.metrics.show_segments((list.segments.len() - sealed).saturating_sub(1), sealed);
    }

    fn recent_mut(&self) -> std::sync::RwLockWriteGuard<'_, Recent> {
        self.recent.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn recent(&self) -> std::sync::RwLockReadGuard<'_, Recent> {
        self.recent.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> std::sync::MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_maintenance(&self) {
        self.maintenance.lock().unwrap_or_else(PoisonError::into_inner).due = true;
        self.maintenance_wake.notify_all();
    }

    /// Seals the oldest waiting segment. False when none waits.
    fn seal_one(&self) -> Result<bool, StorageFault> {
        let Some(segment) = self.segments.load().waiting().into_iter().next() else { return Ok(false) };
        let started = Instant::now();
        self.seal(&segment)?;
        self.stalled.store(false, Ordering::Release);
        let took = started.elapsed();
        self.options.metrics.count_seal(took);
        *self.last_seal.lock().unwrap_or_else(PoisonError::into_inner) = Some(took);
        Ok(true)
    }

    fn seal(&self, segment: &Arc<LiveSegment>) -> Result<(), StorageFault> {
        let number = segment.number;
        segment.settle()?;
        let summary = seal::rewrite(&self.disk, segment, self.epoch, self.faults)?;
        self.ledger.write(|transaction| open::record_file(transaction, number, records::FileState::Sealed, Some(summary)))?;
        let sealed = Arc::new(sealed::SealedSegment::open(&self.disk, number, &self.open_files)?);
        self.change_segments(|list| {
            for entry in &mut list.segments {
                if entry.reads().number() == number {
                    *entry = Segment::Sealed(Arc::clone(&sealed));
                }
            }
        });
        self.disk.remove(&seal::original_name(number))?;
        self.disk.sync_folder("log")?;
        tracing::info!(segment = number, events = summary.events, "Segment {number} is sealed");
        Ok(())
    }
}

/// The answer to an event whose dedupe key is in use.
fn duplicate_answer(entry: &DedupeEntry, fingerprint: u64) -> Result<Receipt, AppendError> {
    if entry.fingerprint == fingerprint {
        Ok(Receipt { id: entry.id, created: entry.created, duplicate: true })
    } else {
        Err(AppendError::DedupeConflict { id: entry.id })
    }
}

/// The store. A clone is another handle to the same one.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

impl Store {
    /// Makes an event ready for the log; costs CPU only.
    #[must_use]
    pub fn prepare(&self, company: CompanyId, event: &NewEvent) -> PreparedEvent {
        PreparedEvent::new(company, event, &self.inner.secrets.dedupe_key)
    }

    /// Queues an event for the next commit; the future is done when it is on disk.
    ///
    /// # Errors
    /// `Overloaded` at once when the queue is full, and what reading a sealed segment may say.
    pub fn append(&self, mut event: PreparedEvent) -> Result<Appending, AppendError> {
        self.admit()?;
        if let Some(answer) = self.ask_sealed(&mut event)? {
            return Ok(Appending::Known(Some(answer)));
        }
        let (sender, receiver) = answer::promise();
        self.inner.queue.push(Waiting::One(event, sender))?;
        Ok(Appending::Queued(queue::Queued(receiver)))
    }

    /// Queues events of one caller for one commit, all or none.
    ///
    /// # Errors
    /// As [`Store::append`].
    pub fn append_all(&self, events: Vec<PreparedEvent>) -> Result<AppendingAll, AppendError> {
        self.admit()?;
        let mut known = Vec::with_capacity(events.len());
        let mut rest = Vec::with_capacity(events.len());
        for mut event in events {
            let answer = self.ask_sealed(&mut event)?;
            if answer.is_none() {
                rest.push(event);
            }
            known.push(answer);
        }
        if rest.is_empty() {
            return Ok(AppendingAll { known, queued: None });
        }
        let (sender, receiver) = answer::promise();
        self.inner.queue.push(Waiting::Group(rest, sender))?;
        Ok(AppendingAll { known, queued: Some(receiver) })
    }

    fn admit(&self) -> Result<(), AppendError> {
        if self.inner.sink.has_failed() {
            return Err(AppendError::Unknown);
        }
        if self.inner.stalled.load(Ordering::Acquire) { Err(AppendError::Overloaded { retry_after_seconds: 1 }) } else { Ok(()) }
    }

    /// Asks the sealed segments, newest first, whether they know the dedupe key.
    fn ask_sealed(&self, event: &mut PreparedEvent) -> Result<Option<Result<Receipt, AppendError>>, AppendError> {
        let Some(dedupe) = event.dedupe else { return Ok(None) };
        let list = self.inner.segments.load();
        for segment in list.segments.iter().rev() {
            let Segment::Sealed(sealed) = segment else { continue };
            let found = segment::SegmentReads::dedupe(sealed.as_ref(), dedupe.hash).map_err(ReadError::from)?;
            if let Some(entry) = found {
                if entry.created >= self.inner.cutoff() {
                    return Ok(Some(duplicate_answer(&entry, dedupe.fingerprint)));
                }
                break;
            }
        }
        event.asked_below = list.sealed_below();
        Ok(None)
    }

    /// The newest event of the whole log.
    #[must_use]
    pub fn tail(&self) -> Position {
        *self.inner.tail.borrow()
    }

    /// Tells of every new tail.
    #[must_use]
    pub fn watch_tail(&self) -> watch::Receiver<Position> {
        self.inner.tail.subscribe()
    }

    /// The life of this store; a restore begins a new one.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.inner.epoch
    }

    /// The key under which cursors are sealed.
    #[must_use]
    pub fn cursor_key(&self) -> &[u8; 32] {
        &self.inner.secrets.cursor_key
    }

    /// The key under which API keys are hashed.
    #[must_use]
    pub fn pepper(&self) -> &[u8; 32] {
        &self.inner.secrets.pepper
    }

    /// Whether the store commits.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        !self.inner.sink.has_failed()
    }

    /// How the store stands.
    #[must_use]
    pub fn status(&self) -> StoreStatus {
        let list = self.inner.segments.load();
        let (queue_events, queue_bytes) = self.inner.queue.depth();
        let files = list.segments.iter().map(|segment| match segment {
            Segment::Live(live) => live::file_name(live.number),
            Segment::Sealed(_) => sealed::file_name(segment.reads().number()),
        });
        let others = self.inner.attempts.names().into_iter().chain([ledger::FILE_NAME.to_owned()]);
        let disk_bytes = files.chain(others).filter_map(|name| self.inner.disk.disk_bytes(&name).ok()).sum();
        StoreStatus {
            tail: self.tail(),
            segments_sealed: list.sealed_count(),
            segments_waiting: list.waiting().len(),
            disk_bytes,
            queue_events,
            queue_bytes,
            clock_in_doubt: self.inner.guard.lock().unwrap_or_else(PoisonError::into_inner).is_in_doubt(),
            last_seal: *self.inner.last_seal.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }
}
