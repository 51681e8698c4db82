//! Cursors that readers keep here under a name, in the ledger.

use redb::{ReadableTable, TableDefinition};

use super::ledger::record_act;
use super::live::existing;
use super::records::{self, NamedCursorRecord};
use super::{Actor, LedgerBusy, ReadError, StorageFault, Store};
use crate::domain::company::CompanyId;
use crate::domain::cursor::{CursorName, Position};
use crate::domain::event::EventId;
use crate::domain::time::Timestamp;

/// Number of a company, name of a cursor → [`NamedCursorRecord`].
const CURSORS: TableDefinition<(u32, &[u8]), &[u8]> = TableDefinition::new("cursors");

/// The most named cursors of one company.
pub const CURSORS_MAX: usize = 1_000;

/// Where a reader is that keeps its cursor here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedCursor {
    /// Unique in its company.
    pub name: CursorName,
    /// Where the reader goes on.
    pub position: Position,
    /// The life of the store that the position belongs to.
    pub epoch: u32,
    /// The hash of the filter that the cursor was made with.
    pub filter_hash: u64,
    /// The types of that filter, when the reader named them.
    pub types: Option<Vec<String>>,
    /// When it was set.
    pub updated: Timestamp,
}

/// Why a named cursor was not set or removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NamedCursorError {
    /// The company has as many as it may.
    #[error("a company has at most {CURSORS_MAX} named cursors; delete one that is not used any more")]
    TooMany,
    /// The ledger cannot take the act.
    #[error(transparent)]
    Busy(#[from] LedgerBusy),
}

fn read(name: &[u8], record: &[u8]) -> Result<NamedCursor, StorageFault> {
    let damaged = || StorageFault::Record(format!("the cursor {}", String::from_utf8_lossy(name)));
    let name = std::str::from_utf8(name).ok().and_then(|name| name.parse().ok()).ok_or_else(damaged)?;
    let record: NamedCursorRecord = records::decode(record)?;
    Ok(NamedCursor {
        name,
        position: Position { created: Timestamp::from_micros(record.created_us), id: EventId(record.id) },
        epoch: record.epoch,
        filter_hash: record.filter_hash,
        types: record.types,
        updated: Timestamp::from_micros(record.updated_us),
    })
}

/// All names of one company.
fn names_of(company: CompanyId) -> std::ops::Range<(u32, &'static [u8])> {
    (company.0, [].as_slice())..(company.0.saturating_add(1), [].as_slice())
}

impl Store {
    /// Keeps a cursor under its name, in place of what was there; it is on disk when this is done.
    ///
    /// # Errors
    /// See [`NamedCursorError`].
    pub async fn set_cursor(&self, company: CompanyId, cursor: &NamedCursor) -> Result<(), NamedCursorError> {
        let name = cursor.name.clone();
        let record = NamedCursorRecord {
            created_us: cursor.position.created.as_micros(),
            id: cursor.position.id.0,
            epoch: cursor.epoch,
            filter_hash: cursor.filter_hash,
            types: cursor.types.clone(),
            updated_us: cursor.updated.as_micros(),
        };
        let set = self.inner.ledger.submit(
            move |transaction| {
                let mut table = transaction.open_table(CURSORS)?;
                let key = (company.0, name.as_str().as_bytes());
                let is_new = table.get(key)?.is_none();
                if is_new && table.range(names_of(company))?.count() >= CURSORS_MAX {
                    return Ok(Err(NamedCursorError::TooMany));
                }
                table.insert(key, records::encode(&record)?.as_slice())?;
                Ok(Ok(()))
            },
            |_| {},
        )?;
        set.await.map_err(|_| NamedCursorError::Busy(LedgerBusy::Ended))?
    }

    /// Forgets a cursor. False when there is none of this name.
    ///
    /// # Errors
    /// `Busy` when the ledger cannot take the act.
    pub async fn remove_cursor(&self, company: CompanyId, name: &CursorName, actor: &Actor) -> Result<bool, NamedCursorError> {
        let (name, actor, at) = (name.clone(), actor.clone(), self.inner.now());
        let removed = self.inner.ledger.submit(
            move |transaction| {
                let mut table = transaction.open_table(CURSORS)?;
                let was_there = table.remove((company.0, name.as_str().as_bytes()))?.is_some();
                drop(table);
                if was_there {
                    record_act(transaction, at, &actor, "cursor.delete", &format!("company:{company}"), name.as_str())?;
                }
                Ok(was_there)
            },
            |_| {},
        )?;
        removed.await.map_err(|_| NamedCursorError::Busy(LedgerBusy::Ended))
    }

    /// The cursor with this name.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn cursor(&self, company: CompanyId, name: &CursorName) -> Result<Option<NamedCursor>, ReadError> {
        let read_one = || {
            let transaction = self.inner.ledger.read()?;
            let Some(table) = existing(transaction.open_table(CURSORS))? else { return Ok(None) };
            let key = name.as_str().as_bytes();
            table.get((company.0, key))?.map(|record| read(key, record.value())).transpose()
        };
        read_one().map_err(|fault: StorageFault| fault.into())
    }

    /// All cursors of a company, by name.
    ///
    /// # Errors
    /// As [`Store::cursor`].
    pub fn cursors(&self, company: CompanyId) -> Result<Vec<NamedCursor>, ReadError> {
        let read_all = || {
            let transaction = self.inner.ledger.read()?;
            let Some(table) = existing(transaction.open_table(CURSORS))? else { return Ok(Vec::new()) };
            let mut all = Vec::new();
            for row in table.range(names_of(company))? {
                let (key, record) = row?;
                all.push(read(key.value().1, record.value())?);
            }
            Ok(all)
        };
        read_all().map_err(|fault: StorageFault| fault.into())
    }
}
