//! Opening a store: what is on disk is brought to where the last commits left it; and the threads that drive it.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use redb::{ReadableTable, WriteTransaction};
use tokio::sync::watch;
use tracing::info;

use super::disk::Disk;
use super::faults::Faults;
use super::ledger::{FILES, FORMAT, Ledger, PURGED, SECRETS, SETTINGS};
use super::live::{self, LiveSegment};
use super::queue::Queue;
use super::recent::Recent;
use super::records::{self, FileRecord, FileState, PurgedRecord, STORE_FORMAT, SegmentSummary};
use super::sealed::{self, OpenFiles, SealedSegment};
use super::secrets::{MasterKey, SecretError, random};
use super::segment::{Segment, SegmentList, SegmentReads};
use super::writer::Writer;
use super::{FaultSink, Inner, Maintenance, Secrets, StorageFault, Store, StoreOptions};
use crate::domain::clock::Clock;
use crate::domain::clock_guard::ClockGuard;
use crate::domain::company::CompanyId;
use crate::domain::cursor::Position;
use crate::domain::event::EventId;
use crate::domain::time::Timestamp;

/// Why a store was not opened. Nothing was changed on disk but what recovery always does.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageFault),
    /// The secrets cannot be opened.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A file that the ledger knows is not there.
    #[error("the file {name} is missing; the ledger says that it holds events or attempts. Put it back, or restore a backup")]
    MissingFile {
        /// Its path below the data directory.
        name: String,
    },
    /// There are files of a log, but no ledger.
    #[error("the data directory holds files of a log but no {}; put it back, or restore a backup", super::ledger::FILE_NAME)]
    MissingLedger,
    /// A file of the log is not the one that the ledger speaks of.
    #[error("the file {name} is not the one that the ledger speaks of: they disagree about its number, its store or its events")]
    WrongFile {
        /// Its path below the data directory.
        name: String,
    },
    /// The log has a file that is newer than the ledger.
    #[error(
        "the ledger does not know the file {name}, which is newer than all files it knows: the ledger is older than the log. Put the newer ledger back, or restore a backup"
    )]
    UnknownFile {
        /// Its path below the data directory.
        name: String,
    },
    /// The log, or a stretch of it, ends before an event that was acknowledged.
    #[error(
        "a stretch of the log ends with event {found}, but event {known} was acknowledged: a file of the log is older than the others. Put the newer one back, or restore a backup"
    )]
    LogTooShort {
        /// Last event of the log.
        found: u64,
        /// Last event that the ledger knows of.
        known: u64,
    },
    /// A thread could not be started.
    #[error("a thread could not be started: {0}")]
    Thread(#[source] std::io::Error),
}

/// The store's threads; ends them when asked to.
#[derive(Debug)]
pub struct StoreThreads {
    store: Store,
    log: JoinHandle<()>,
    maintenance: JoinHandle<()>,
}

fn named(transaction: &WriteTransaction, name: &str) -> Result<Option<u64>, StorageFault> {
    Ok(transaction.open_table(SETTINGS)?.get(name)?.map(|value| value.value()))
}

/// Writes a segment's row of the list.
pub(super) fn record_file(
    transaction: &WriteTransaction,
    number: u64,
    state: FileState,
    summary: Option<SegmentSummary>,
) -> Result<(), StorageFault> {
    let record = FileRecord { state, summary };
    transaction.open_table(FILES)?.insert(number, records::encode(&record)?.as_slice())?;
    Ok(())
}

/// A secret of the store; made when there is none yet.
fn secret<const N: usize>(
    transaction: &WriteTransaction,
    master: &MasterKey,
    name: &str,
) -> Result<Result<[u8; N], SecretError>, StorageFault> {
    let mut table = transaction.open_table(SECRETS)?;
    let stored = table.get(name)?.map(|sealed| sealed.value().to_vec());
    if let Some(sealed) = stored {
        let opened = master.open(name, &sealed);
        return Ok(opened.and_then(|bytes| bytes.as_slice().try_into().map_err(|_| SecretError::Sealed)));
    }
    let made: Result<([u8; N], Vec<u8>), SecretError> = random().and_then(|bytes| Ok((bytes, master.seal(name, &bytes)?)));
    match made {
        Ok((bytes, sealed)) => {
            table.insert(name, sealed.as_slice())?;
            Ok(Ok(bytes))
        }
        Err(error) => Ok(Err(error)),
    }
}

/// What the ledger says at start.
struct Known {
    epoch: u32,
    secrets: Result<Secrets, SecretError>,
    files: Vec<(u64, FileRecord)>,
    floor: Position,
    counter: u64,
    /// The log has held an event with this id at least.
    acknowledged: u64,
    purged: HashMap<CompanyId, Position>,
}

fn read_ledger(transaction: &WriteTransaction, master: &MasterKey) -> Result<Known, StorageFault> {
    let format = named(transaction, FORMAT)?;
    super::ledger::known_format(format)?;
    let mut settings = transaction.open_table(SETTINGS)?;
    if format.is_none() {
        settings.insert("epoch", 1)?;
    }
    // From now on there may be files that an older version cannot read.
    if format < Some(u64::from(STORE_FORMAT)) {
        settings.insert(FORMAT, u64::from(STORE_FORMAT))?;
    }
    drop(settings);
    let number = |name: &str| named(transaction, name).map(Option::unwrap_or_default);
    let secrets = match (
        secret(transaction, master, "cursor_key")?,
        secret(transaction, master, "pepper")?,
        secret(transaction, master, "dedupe_key")?,
    ) {
        (Ok(cursor_key), Ok(pepper), Ok(dedupe_key)) => Ok(Secrets { cursor_key, pepper, dedupe_key }),
        (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => Err(error),
    };
    let mut files = Vec::new();
    for row in transaction.open_table(FILES)?.iter()? {
        let (number, record) = row?;
        files.push((number.value(), records::decode(record.value())?));
    }
    let mut purged = HashMap::new();
    for row in transaction.open_table(PURGED)?.iter()? {
        let (company, record) = row?;
        let record: PurgedRecord = records::decode(record.value())?;
        let position = Position { created: Timestamp::from_micros(record.last_created_us), id: EventId(record.last_id) };
        purged.insert(CompanyId(company.value()), position);
    }
    Ok(Known {
        epoch: u32::try_from(number("epoch")?).unwrap_or(u32::MAX),
        secrets,
        files,
        floor: Position { created: Timestamp::from_micros(number("floor_created_us")?), id: EventId(number("floor_id")?) },
        counter: number("counter")?,
        acknowledged: number(super::ledger::ACKNOWLEDGED)?,
        purged,
    })
}

/// Opens every segment that the ledger lists, finishes what was half done, and removes what nothing points at.
fn open_segments(disk: &Arc<dyn Disk>, ledger: &Ledger, known: &Known, open_files: &Arc<OpenFiles>) -> Result<SegmentList, OpenError> {
    let present = disk.list("log").map_err(StorageFault::from)?;
    let is_present = |name: &str| present.iter().any(|file| name.strip_prefix("log/") == Some(file.as_str()));
    // A row is written before its file is made, so that a file beyond the last row can only come from a later ledger.
    let last = known.files.last().map_or(0, |(number, _)| *number);
    let number_of = |file: &str| file.strip_suffix(".redb").and_then(|stem| stem.trim_end_matches(".sealed").parse::<u64>().ok());
    if let Some(newer) = present.iter().find(|file| number_of(file).is_some_and(|number| number > last)) {
        return Err(OpenError::UnknownFile { name: format!("log/{newer}") });
    }
    let mut keep = Vec::new();
    let mut list = SegmentList::default();
    for (number, record) in &known.files {
        let (original, rewritten) = (live::file_name(*number), sealed::file_name(*number));
        match record.state {
            FileState::Creating => {
                // It was never written to: made anew, whatever the crash has left of it.
                let segment = LiveSegment::create(disk.as_ref(), *number, known.epoch, list.last(known.floor).id)?;
                ledger.write(|transaction| record_file(transaction, *number, FileState::Open, None))?;
                keep.push(original);
                list.segments.push(Segment::Live(Arc::new(segment)));
            }
            FileState::Open => {
                if !is_present(&original) {
                    return Err(OpenError::MissingFile { name: original });
                }
                let segment = LiveSegment::open(disk.as_ref(), *number, known.epoch)?
                    .ok_or_else(|| OpenError::WrongFile { name: original.clone() })?;
                list.segments.push(Segment::Live(Arc::new(segment)));
                keep.push(original);
            }
            FileState::Sealed => {
                if !is_present(&rewritten) {
                    return Err(OpenError::MissingFile { name: rewritten });
                }
                let segment = SealedSegment::open(disk, *number, open_files)?;
                if record.summary != Some(segment.summary) {
                    return Err(OpenError::WrongFile { name: rewritten });
                }
                list.segments.push(Segment::Sealed(Arc::new(segment)));
                keep.push(rewritten);
            }
            FileState::Dropping => {}
        }
    }
    let mut removed = false;
    for file in &present {
        let name = format!("log/{file}");
        let is_ours = name.ends_with(".redb") || name.ends_with(".sealing");
        if is_ours && !keep.contains(&name) {
            disk.remove(&name).map_err(StorageFault::from)?;
            removed = true;
        }
    }
    if removed {
        disk.sync_folder("log").map_err(StorageFault::from)?;
    }
    ledger.write(|transaction| {
        let mut files = transaction.open_table(FILES)?;
        for (number, record) in &known.files {
            if record.state == FileState::Dropping {
                files.remove(*number)?;
            }
        }
        Ok(())
    })?;
    Ok(list)
}

/// The newest event of the log; an error when an event that was acknowledged must lie behind the end of a segment.
fn check_length(list: &SegmentList, known: &Known) -> Result<Position, OpenError> {
    let mut last = known.floor;
    for segment in &list.segments {
        if last.id < segment.follows() {
            return Err(OpenError::LogTooShort { found: last.id.0, known: segment.follows().0 });
        }
        last = last.max(segment.reads().span().map_or(last, |(_, last)| last));
    }
    if last.id.0 < known.acknowledged {
        return Err(OpenError::LogTooShort { found: last.id.0, known: known.acknowledged });
    }
    Ok(last)
}

impl Inner {
    /// Makes the file of a new segment and takes it into the ledger's list.
    pub(super) fn create_segment(&self, number: u64) -> Result<Arc<LiveSegment>, StorageFault> {
        create_segment(self.disk.as_ref(), &self.ledger, number, self.epoch, self.tail.borrow().id)
    }
}

fn create_segment(disk: &dyn Disk, ledger: &Ledger, number: u64, epoch: u32, follows: EventId) -> Result<Arc<LiveSegment>, StorageFault> {
    ledger.write(|transaction| record_file(transaction, number, FileState::Creating, None))?;
    let segment = LiveSegment::create(disk, number, epoch, follows)?;
    ledger.write(|transaction| record_file(transaction, number, FileState::Open, None))?;
    Ok(Arc::new(segment))
}

impl Store {
    /// Opens the store on `disk`, or makes it when the disk is empty. Nothing runs yet: [`Store::start`] starts the
    /// threads; without them a test drives the store by [`Store::turn`] and [`Store::maintain`].
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        master: &MasterKey,
        options: StoreOptions,
        faults: Faults,
        sink: FaultSink,
    ) -> Result<Self, OpenError> {
        let has_ledger = disk.list("").map_err(StorageFault::from)?.iter().any(|name| name == super::ledger::FILE_NAME);
        let log = disk.list("log").map_err(StorageFault::from)?;
        if !has_ledger && log.iter().any(|name| name.ends_with(".redb")) {
            return Err(OpenError::MissingLedger);
        }
        if has_ledger {
            Ledger::check_format(disk.as_ref())?;
        }
        let ledger = Ledger::open(disk.as_ref())?;
        let known = ledger.write(|transaction| read_ledger(transaction, master))?;
        let secrets = known.secrets.clone()?;
        let open_files = Arc::new(OpenFiles::default());
        let mut list = open_segments(&disk, &ledger, &known, &open_files)?;
        let has_open = list.segments.last().is_some_and(|segment| matches!(segment, Segment::Live(_)));
        if !has_open {
            let number = known.files.last().map_or(1, |(number, _)| number + 1);
            list.segments.push(Segment::Live(create_segment(disk.as_ref(), &ledger, number, known.epoch, list.last(known.floor).id)?));
        }
        let last = check_length(&list, &known)?;
        ledger.note_tail(last.id);
        let Some(Segment::Live(open)) = list.segments.last() else {
            return Err(OpenError::MissingFile { name: live::file_name(0) });
        };
        let open = Arc::clone(open);
        let guard = ClockGuard::new(clock.now(), clock.monotonic(), (last != Position::START).then_some(last.created), options.retention);
        let rsa_keys = super::rsa_keys::load(&ledger, master)?;
        let companies = super::companies::load(&ledger)?;
        let keys = super::keys::load(&ledger)?;
        let clients = super::clients::load(&ledger)?;
        let token_keys = super::token_keys::load(&ledger, master)??;
        let subscriptions = super::subscriptions::load(&ledger, master)?;
        let attempts = super::attempts::open(disk.as_ref(), &ledger, known.epoch)?;
        let opened = open.span().map(|(first, _)| first.created);
        let counter = if faults.ids_from_counter { known.counter } else { last.id.0 };
        let inner = Inner {
            recent: RwLock::new(Recent::start(Arc::clone(&open), last)),
            writer: Mutex::new(Writer { open, last, opened, unsettled: false, counter }),
            queue: Queue::new(&options),
            disk,
            clock,
            guard: Mutex::new(guard),
            options,
            faults,
            sink,
            ledger,
            secrets,
            master: master.clone(),
            epoch: known.epoch,
            segments: ArcSwap::from_pointee(list),
            changing: Mutex::new(()),
            retiring: Mutex::new(()),
            open_files,
            stalled: AtomicBool::new(false),
            tail: watch::Sender::new(last),
            purged: ArcSwap::from_pointee(known.purged),
            companies: ArcSwap::from_pointee(companies),
            rsa_keys: RwLock::new(rsa_keys),
            keys: ArcSwap::from_pointee(keys),
            clients: ArcSwap::from_pointee(clients),
            token_keys: ArcSwap::from_pointee(token_keys),
            subscriptions: RwLock::new(subscriptions),
            attempts,
            maintenance: Mutex::new(Maintenance { due: true, closing: false }),
            maintenance_wake: Condvar::new(),
            last_seal: Mutex::new(None),
        };
        inner.show_segments(&inner.segments.load());
        inner.options.metrics.show_tail(last.id);
        Ok(Self { inner: Arc::new(inner) })
    }

    /// One turn of the log's writer: commits what waits, closes the open segment when that is due. For a store
    /// without threads.
    ///
    /// # Errors
    /// A fault of the storage; the store must not be used afterwards.
    pub fn turn(&self) -> Result<(), StorageFault> {
        let mut writer = self.inner.writer();
        let batch = self.inner.queue.take(std::time::Duration::ZERO);
        writer.commit(&self.inner, batch.waiting)?;
        writer.rotate_if_due(&self.inner)
    }

    /// One step of maintenance: seals one waiting segment. False when none waited. For a store without threads.
    ///
    /// # Errors
    /// A fault of the storage; the store must not be used afterwards.
    pub fn maintain(&self) -> Result<bool, StorageFault> {
        self.inner.seal_one()
    }

    /// Starts the store's threads.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start(&self) -> Result<StoreThreads, OpenError> {
        self.inner.ledger.start(self.inner.sink.clone()).map_err(OpenError::Thread)?;
        let inner = Arc::clone(&self.inner);
        let log =
            std::thread::Builder::new().name("log".to_owned()).spawn(move || write_until_closed(&inner)).map_err(OpenError::Thread)?;
        let inner = Arc::clone(&self.inner);
        let maintenance =
            std::thread::Builder::new().name("seal".to_owned()).spawn(move || seal_until_closed(&inner)).map_err(OpenError::Thread)?;
        Ok(StoreThreads { store: self.clone(), log, maintenance })
    }
}

/// Tells the sink when the thread that holds this panics; nothing it had begun can be trusted then.
pub(super) struct PanicWatch<'a> {
    pub sink: &'a FaultSink,
    pub thread: &'static str,
}

impl Drop for PanicWatch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.sink.report(&StorageFault::Panicked { thread: self.thread });
        }
    }
}

/// Closes the queue however the writer ends: whoever waits is told that the outcome is unknown, by dropping its sender.
struct QueueEnd<'a>(&'a Queue);

impl Drop for QueueEnd<'_> {
    fn drop(&mut self) {
        self.0.close();
        drop(self.0.take(std::time::Duration::ZERO));
    }
}

fn write_until_closed(inner: &Inner) {
    let _end = QueueEnd(&inner.queue);
    let _watch = PanicWatch { sink: &inner.sink, thread: "log" };
    let mut writer = inner.writer();
    loop {
        let batch = inner.queue.take(writer.patience());
        // Nothing is acknowledged after a fault, whichever file it is in.
        if inner.sink.has_failed() {
            return;
        }
        let is_idle = batch.waiting.is_empty();
        let step = writer
            .commit(inner, batch.waiting)
            .and_then(|()| if is_idle { writer.settle() } else { Ok(()) })
            .and_then(|()| writer.rotate_if_due(inner));
        if let Err(fault) = step {
            inner.sink.report(&fault);
            return;
        }
        if batch.closed && is_idle {
            return;
        }
    }
}

fn seal_until_closed(inner: &Inner) {
    let _watch = PanicWatch { sink: &inner.sink, thread: "seal" };
    // Sealing gives way to publishing and reading.
    let _nice = rustix::process::setpriority_process(None, 5);
    loop {
        {
            let mut state = inner.maintenance.lock().unwrap_or_else(PoisonError::into_inner);
            while !state.due && !state.closing {
                state = inner.maintenance_wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.closing {
                return;
            }
            state.due = false;
        }
        loop {
            if inner.sink.has_failed() || inner.maintenance.lock().unwrap_or_else(PoisonError::into_inner).closing {
                return;
            }
            match inner.seal_one() {
                Ok(true) => inner.queue.nudge(),
                Ok(false) => break,
                Err(fault) => {
                    inner.sink.report(&fault);
                    return;
                }
            }
        }
    }
}

impl StoreThreads {
    /// Empties the queues, commits, and ends the threads. A segment that is being sealed is finished first.
    pub fn stop(self) {
        let inner = &self.store.inner;
        inner.queue.close();
        // A panic of a thread has been reported by its hook; there is nothing left to do here.
        let _ended = self.log.join();
        inner.maintenance.lock().unwrap_or_else(PoisonError::into_inner).closing = true;
        inner.maintenance_wake.notify_all();
        let _ended = self.maintenance.join();
        inner.ledger.stop();
        // What goes wrong here has been reported.
        let _settled = self.store.settle_attempts();
        // The last act at all: the ledger learns how far the log has come.
        if !inner.sink.has_failed()
            && let Err(fault) = inner.ledger.write(|_| Ok(()))
        {
            inner.sink.report(&fault);
        }
        info!(tail = self.store.tail().id.0, "The store is closed");
    }
}
