//! The ledger: the small file of what changes. Every act is one transaction with its audit row.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use redb::{Builder, Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use tokio::sync::oneshot;

use super::disk::{Disk, OpenMode};
use super::records::{self, AuditRecord};
use super::{FaultSink, StorageFault};
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
/// Name of a setting → number: `format`, `epoch`, `floor_id`, `floor_created_us`.
pub(super) const SETTINGS: TableDefinition<&str, u64> = TableDefinition::new("settings");
/// Number of a company → [`records::PurgedRecord`].
pub(super) const PURGED: TableDefinition<u32, &[u8]> = TableDefinition::new("purged");

/// The ledger's path.
pub(super) const FILE_NAME: &str = "ledger.redb";
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

/// The file and its writer.
#[derive(Debug)]
pub(super) struct Ledger {
    database: Arc<Database>,
    writer: Mutex<Option<(SyncSender<Act>, JoinHandle<()>)>>,
}

impl Ledger {
    /// Opens the file, or makes it when there is none.
    pub fn open(disk: &dyn Disk) -> Result<Self, StorageFault> {
        let exists = disk.list("")?.iter().any(|name| name == FILE_NAME);
        let storage = disk.open(FILE_NAME, if exists { OpenMode::ReadWrite } else { OpenMode::CreateNew })?;
        let database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(storage)?;
        if !exists {
            disk.sync_folder("")?;
        }
        Ok(Self { database: Arc::new(database), writer: Mutex::new(None) })
    }

    /// Starts the writer's thread; until then acts run on the thread that asks for them.
    pub fn start(&self, faults: FaultSink) -> std::io::Result<()> {
        let (sender, receiver) = sync_channel::<Act>(QUEUE_MAX);
        let database = Arc::clone(&self.database);
        let thread = std::thread::Builder::new().name("ledger".to_owned()).spawn(move || {
            if let Err(fault) = write_until_closed(&database, &receiver) {
                faults.report(&fault);
            }
        })?;
        *self.writer.lock().unwrap_or_else(PoisonError::into_inner) = Some((sender, thread));
        Ok(())
    }

    /// Lets the writer empty its queue, and ends it.
    pub fn stop(&self) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((sender, thread)) = writer {
            drop(sender);
            // A panic of the thread has been reported by its hook; there is nothing left to do here.
            let _ended = thread.join();
        }
    }

    /// Runs an act on this thread and commits it; used at start, by the log's writer and by the simulation.
    pub fn write<T>(&self, act: impl FnOnce(&WriteTransaction) -> Result<T, StorageFault>) -> Result<T, StorageFault> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_quick_repair(true);
        let value = act(&transaction)?;
        transaction.commit()?;
        Ok(value)
    }

    /// Hands an act to the writer; `then` runs after its commit, before the caller is told.
    pub fn submit<T: Send + 'static>(
        &self,
        act: impl FnOnce(&WriteTransaction) -> Result<T, StorageFault> + Send + 'static,
        then: impl FnOnce(&T) + Send + 'static,
    ) -> Result<oneshot::Receiver<T>, LedgerBusy> {
        let (sender, receiver) = oneshot::channel();
        let act: Act = Box::new(move |transaction| {
            let value = act(transaction)?;
            Ok(Box::new(move || {
                then(&value);
                // The caller may have gone away; the act is done all the same.
                let _told = sender.send(value);
            }))
        });
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        match writer.as_ref() {
            Some((writer, _)) => writer.try_send(act).map_err(|error| match error {
                TrySendError::Full(_) => LedgerBusy::Full,
                TrySendError::Disconnected(_) => LedgerBusy::Ended,
            })?,
            None => {
                drop(writer);
                let after = self.write(act).map_err(|_| LedgerBusy::Ended)?;
                after();
            }
        }
        Ok(receiver)
    }

    /// A view of the last commit.
    pub fn read(&self) -> Result<ReadTransaction, StorageFault> {
        Ok(self.database.begin_read()?)
    }
}

fn write_until_closed(database: &Database, acts: &Receiver<Act>) -> Result<(), StorageFault> {
    while let Ok(first) = acts.recv() {
        let mut transaction = database.begin_write()?;
        transaction.set_quick_repair(true);
        let mut after = vec![first(&transaction)?];
        while after.len() < BATCH_MAX
            && let Ok(act) = acts.try_recv()
        {
            after.push(act(&transaction)?);
        }
        transaction.commit()?;
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
