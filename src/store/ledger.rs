//! The ledger: the small file of what changes. Every act is one transaction with its audit row.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use redb::{Builder, Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use tokio::sync::oneshot;

use super::disk::{Disk, OpenMode};
use super::live::existing;
use super::open::PanicWatch;
use super::records::{self, AuditRecord, STORE_FORMAT};
use super::{FaultSink, StorageFault};
use crate::domain::event::EventId;
use crate::domain::time::Timestamp;

/// Number of a segment → [`records::FileRecord`].
pub(super) const FILES: TableDefinition<u64, &[u8]> = TableDefinition::new("files");
/// Number of a company → [`records::CompanyRecord`].
pub(super) const COMPANIES: TableDefinition<u32, &[u8]> = TableDefinition::new("companies");
/// Key id → [`records::KeyRecord`].
pub(super) const KEYS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("keys");
/// Number of an act, counted from 1 → [`AuditRecord`].
pub(super) const AUDIT: TableDefinition<u64, &[u8]> = TableDefinition::new("audit");
/// Name of a secret → nonce and ciphertext under the master key.
pub(super) const SECRETS: TableDefinition<&str, &[u8]> = TableDefinition::new("secrets");
/// Name of a setting → number: [`FORMAT`], [`ACKNOWLEDGED`], `epoch`, `floor_id`, `floor_created_us`.
pub(super) const SETTINGS: TableDefinition<&str, u64> = TableDefinition::new("settings");
/// The format of the whole store.
pub(super) const FORMAT: &str = "format";
/// The newest event that was on disk at the last commit of the ledger: a log that ends before it is not this ledger's.
pub(super) const ACKNOWLEDGED: &str = "acknowledged_id";
/// Number of a company → [`records::PurgedRecord`].
pub(super) const PURGED: TableDefinition<u32, &[u8]> = TableDefinition::new("purged");

/// The ledger's path.
pub(super) const FILE_NAME: &str = "ledger.redb";
/// The path of a ledger that is being made.
const UNFINISHED_NAME: &str = "ledger.making";
const CACHE_BYTES: usize = 8 * 1024 * 1024;
/// Acts that may wait for the writer.
const QUEUE_MAX: usize = 1024;
/// Acts that share one commit.
const BATCH_MAX: usize = 256;

/// What is done after the commit.
type AfterCommit = Box<dyn FnOnce() + Send>;
/// An act: decides and writes inside the transaction. An `Err` is a fault of the storage, never a refusal.
type Act = Box<dyn FnOnce(&WriteTransaction) -> Result<AfterCommit, StorageFault> + Send>;

/// The ledger cannot take the act now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LedgerBusy {
    /// Too many acts wait.
    #[error("too many administrative acts are waiting")]
    Full,
    /// The writer has ended; whether the act was done is unknown.
    #[error("the store is closing; whether the act was done is unknown")]
    Ended,
}

/// Who commits acts.
#[derive(Debug)]
enum Writer {
    /// Whoever asks for them: the store has no threads yet.
    Caller,
    Thread(SyncSender<Act>, JoinHandle<()>, FaultSink),
    /// Nobody any more.
    Ended,
}

/// The file, and what its commits need.
#[derive(Debug)]
struct File {
    database: Database,
    /// The newest event that is on disk.
    tail: AtomicU64,
}

impl File {
    fn begin(&self) -> Result<WriteTransaction, StorageFault> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_quick_repair(true);
        Ok(transaction)
    }

    fn commit(&self, transaction: WriteTransaction) -> Result<(), StorageFault> {
        let tail = self.tail.load(Ordering::Acquire);
        {
            let mut settings = transaction.open_table(SETTINGS)?;
            let known = settings.get(ACKNOWLEDGED)?.map_or(0, |known| known.value());
            if tail > known {
                settings.insert(ACKNOWLEDGED, tail)?;
            }
        }
        Ok(transaction.commit()?)
    }
}

/// The ledger and its writer.
#[derive(Debug)]
pub(super) struct Ledger {
    file: Arc<File>,
    writer: Mutex<Writer>,
}

/// Refuses the format of a later version.
pub(super) fn known_format(format: Option<u64>) -> Result<(), StorageFault> {
    let found = u32::try_from(format.unwrap_or_default()).unwrap_or(u32::MAX);
    if found > STORE_FORMAT { Err(StorageFault::NewerFormat { found, known: STORE_FORMAT }) } else { Ok(()) }
}

impl Ledger {
    /// Refuses the ledger of a later version without changing a byte of it. One that was not closed properly has to be
    /// opened for writing first, and is refused then.
    pub fn check_format(disk: &dyn Disk) -> Result<(), StorageFault> {
        let storage = disk.open(FILE_NAME, OpenMode::ReadOnly)?;
        let Ok(database) = Builder::new().set_cache_size(CACHE_BYTES).open_read_only_with_backend(storage) else { return Ok(()) };
        let transaction = database.begin_read()?;
        let Some(settings) = existing(transaction.open_table(SETTINGS))? else { return Ok(()) };
        known_format(settings.get(FORMAT)?.map(|format| format.value()))
    }

    /// Opens the file, or makes it when there is none: under another name, so that one that a power loss has left half
    /// made is never taken for a ledger.
    pub fn open(disk: &dyn Disk) -> Result<Self, StorageFault> {
        let present = disk.list("")?;
        let is_present = |name: &str| present.iter().any(|present| present == name);
        if !is_present(FILE_NAME) {
            if is_present(UNFINISHED_NAME) {
                disk.remove(UNFINISHED_NAME)?;
            }
            let storage = disk.open(UNFINISHED_NAME, OpenMode::CreateNew)?;
            Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(storage)?.close()?;
            disk.rename(UNFINISHED_NAME, FILE_NAME)?;
            disk.sync_folder("")?;
        }
        let storage = disk.open(FILE_NAME, OpenMode::ReadWrite)?;
        let database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(storage)?;
        Ok(Self { file: Arc::new(File { database, tail: AtomicU64::new(0) }), writer: Mutex::new(Writer::Caller) })
    }

    /// Notes that the log has come so far; the next commit writes it down.
    pub fn note_tail(&self, id: EventId) {
        self.file.tail.fetch_max(id.0, Ordering::AcqRel);
    }

    /// Starts the writer's thread; until then acts run on the thread that asks for them.
    pub fn start(&self, faults: FaultSink) -> std::io::Result<()> {
        let (sender, receiver) = sync_channel::<Act>(QUEUE_MAX);
        let file = Arc::clone(&self.file);
        let sink = faults.clone();
        let thread = std::thread::Builder::new().name("ledger".to_owned()).spawn(move || {
            let _watch = PanicWatch { sink: &faults, thread: "ledger" };
            // What went wrong has been reported before anybody was told.
            let _ended = write_until_closed(&file, &receiver, &faults);
        })?;
        *self.writer() = Writer::Thread(sender, thread, sink);
        Ok(())
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the writer empty its queue, and ends it.
    pub fn stop(&self) {
        let writer = std::mem::replace(&mut *self.writer(), Writer::Ended);
        if let Writer::Thread(sender, thread, _) = writer {
            drop(sender);
            // A panic of the thread has been told to the sink; there is nothing left to do here.
            let _ended = thread.join();
        }
    }

    /// Runs an act on this thread and commits it; used at start, by the log's writer and by the simulation.
    pub fn write<T>(&self, act: impl FnOnce(&WriteTransaction) -> Result<T, StorageFault>) -> Result<T, StorageFault> {
        let transaction = self.file.begin()?;
        let value = act(&transaction)?;
        self.file.commit(transaction)?;
        Ok(value)
    }

    /// Hands an act to the writer; `then` runs after its commit, before the caller is told.
    pub fn submit<T: Send + 'static>(
        &self,
        act: impl FnOnce(&WriteTransaction) -> Result<T, StorageFault> + Send + 'static,
        then: impl FnOnce(&T) + Send + 'static,
    ) -> Result<oneshot::Receiver<T>, LedgerBusy> {
        let (sender, receiver) = oneshot::channel();
        let writer = self.writer();
        let sink = if let Writer::Thread(_, _, sink) = &*writer { Some(sink.clone()) } else { None };
        let act: Act = Box::new(move |transaction| {
            // Reported before the caller hears of it: nobody may be told "stored" after anybody was told of a fault.
            let value = act(transaction).inspect_err(|fault| {
                if let Some(sink) = &sink {
                    sink.report(fault);
                }
            })?;
            Ok(Box::new(move || {
                then(&value);
                // The caller may have gone away; the act is done all the same.
                let _told = sender.send(value);
            }))
        });
        match &*writer {
            Writer::Thread(sender, ..) => sender.try_send(act).map_err(|error| match error {
                TrySendError::Full(_) => LedgerBusy::Full,
                TrySendError::Disconnected(_) => LedgerBusy::Ended,
            })?,
            Writer::Ended => return Err(LedgerBusy::Ended),
            Writer::Caller => {
                drop(writer);
                let after = self.write(act).map_err(|_| LedgerBusy::Ended)?;
                after();
            }
        }
        Ok(receiver)
    }

    /// A view of the last commit.
    pub fn read(&self) -> Result<ReadTransaction, StorageFault> {
        Ok(self.file.database.begin_read()?)
    }
}

fn write_until_closed(file: &File, acts: &Receiver<Act>, faults: &FaultSink) -> Result<(), StorageFault> {
    while let Ok(first) = acts.recv() {
        // Nothing is acknowledged after a fault, whichever file it is in.
        if faults.has_failed() {
            return Ok(());
        }
        let transaction = file.begin().inspect_err(|fault| faults.report(fault))?;
        let mut after = vec![first(&transaction)?];
        while after.len() < BATCH_MAX
            && let Ok(act) = acts.try_recv()
        {
            after.push(act(&transaction)?);
        }
        file.commit(transaction).inspect_err(|fault| faults.report(fault))?;
        for step in after {
            step();
        }
    }
    Ok(())
}

/// Appends a row to the audit log, in the transaction of the act it tells of.
pub(super) fn record_act(
    transaction: &WriteTransaction,
    at: Timestamp,
    actor: &super::Actor,
    act: &str,
    object: &str,
    detail: &str,
) -> Result<(), StorageFault> {
    let mut audit = transaction.open_table(AUDIT)?;
    let number = audit.last()?.map_or(1, |(number, _)| number.value() + 1);
    let record = AuditRecord {
        at_us: at.as_micros(),
        actor: actor.name.clone(),
        request_id: actor.request_id.clone(),
        act: act.to_owned(),
        object: object.to_owned(),
        detail: detail.to_owned(),
    };
    audit.insert(number, records::encode(&record)?.as_slice())?;
    Ok(())
}
