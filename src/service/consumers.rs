//! Cursors that readers keep here under a name: setting, showing how far behind they are, forgetting.

use std::time::Duration;

use super::cursors::{CursorError, CursorSealer, Expected, filter_hash};
use crate::domain::company::CompanyId;
use crate::domain::cursor::{Cursor, CursorName, Direction};
use crate::domain::filter::{ParseTypeFilterError, TypeFilter};
use crate::domain::time::Timestamp;
use crate::store::{Actor, NamedCursor, NamedCursorError, ReadError, Store};

/// Why a cursor was not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetCursorError {
    /// The text is not a cursor of this company's log.
    #[error(transparent)]
    Cursor(#[from] CursorError),
    /// The types are no filter.
    #[error(transparent)]
    Types(#[from] ParseTypeFilterError),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] NamedCursorError),
}

/// How far a reader is behind the tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lag {
    /// Events that it has still to read, of its types when it named them.
    pub events: u64,
    /// The age of the oldest of them; zero when there is none.
    pub age: Duration,
}

/// Why a reader cannot go on from where it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// Retention has taken events that it had still to read; the time that they span.
    Retention(Duration),
    /// The log was restored from a backup after the cursor was made.
    Restored,
}

/// A named cursor as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumer {
    /// Its name.
    pub name: CursorName,
    /// The cursor as text, the same that was set.
    pub cursor: String,
    /// The types that it is for, when its reader named them.
    pub types: Option<Vec<String>>,
    /// When it was set.
    pub updated: Timestamp,
    /// How far behind it is.
    pub lag: Lag,
    /// Set when a read from it is refused.
    pub stale: Option<Stale>,
}

/// Where a reader goes on that names its cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continuation {
    /// The cursor as text.
    pub cursor: String,
    /// Its filter, when its reader named the types.
    pub filter: Option<TypeFilter>,
}

/// The use cases of named cursors.
#[derive(Debug)]
pub struct ConsumerService {
    store: Store,
    sealer: CursorSealer,
}

impl ConsumerService {
    pub(super) fn new(store: Store) -> Self {
        let sealer = CursorSealer::new(store.cursor_key(), store.epoch());
        Self { store, sealer }
    }

    /// Keeps a cursor of the company's log, ascending, under a name; with `types`, those of the list that it came from.
    ///
    /// # Errors
    /// See [`SetCursorError`].
    pub async fn set(&self, company: CompanyId, name: CursorName, text: &str, types: Option<Vec<String>>) -> Result<(), SetCursorError> {
        let cursor = self.sealer.read(text)?;
        let filter_hash = match &types {
            Some(types) => filter_hash(&TypeFilter::parse_types(types)?),
            None => cursor.filter_hash,
        };
        self.sealer.open(text, &Expected { company, direction: Direction::Ascending, filter_hash })?;
        let kept = NamedCursor { name, position: cursor.position, epoch: cursor.epoch, filter_hash, types, updated: self.store.now() };
        Ok(self.store.set_cursor(company, &kept).await?)
    }

    /// Forgets a cursor. False when there is none of this name.
    ///
    /// # Errors
    /// When the ledger cannot take the act.
    pub async fn forget(&self, company: CompanyId, name: &CursorName, actor: &Actor) -> Result<bool, NamedCursorError> {
        self.store.remove_cursor(company, name, actor).await
    }

    /// Where the reader of this name goes on; none when there is no such cursor.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn continuation(&self, company: CompanyId, name: &CursorName) -> Result<Option<Continuation>, ReadError> {
        let kept = self.store.cursor(company, name)?;
        Ok(kept.map(|kept| Continuation { cursor: self.seal(company, &kept), filter: filter_of(&kept) }))
    }

    /// The cursor of this name as it stands.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn get(&self, company: CompanyId, name: &CursorName) -> Result<Option<Consumer>, ReadError> {
        self.store.cursor(company, name)?.map(|kept| self.look(company, kept)).transpose()
    }

    /// All cursors of the company as they stand, by name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn list(&self, company: CompanyId) -> Result<Vec<Consumer>, ReadError> {
        self.store.cursors(company)?.into_iter().map(|kept| self.look(company, kept)).collect()
    }

    fn seal(&self, company: CompanyId, kept: &NamedCursor) -> String {
        let NamedCursor { position, epoch, filter_hash, .. } = *kept;
        self.sealer.seal(&Cursor { position, direction: Direction::Ascending, epoch, company, filter_hash, tail: position })
    }

    fn look(&self, company: CompanyId, kept: NamedCursor) -> Result<Consumer, ReadError> {
        let cursor = self.seal(company, &kept);
        // The filter of a cursor whose reader named no types is not known: everything counts.
        let filter = filter_of(&kept).unwrap_or_default();
        let counted = self.store.count_matching(company, kept.position, self.store.tail(), &filter)?;
        let now = self.store.now();
        let age = counted.first.map(|first| now.since(first.created)).unwrap_or_default();
        let stale = if kept.epoch == self.sealer.epoch() {
            self.store.lost_behind(company, kept.position)?.map(|lost| Stale::Retention(lost.span))
        } else {
            Some(Stale::Restored)
        };
        let lag = Lag { events: counted.count, age };
        Ok(Consumer { name: kept.name, cursor, types: kept.types, updated: kept.updated, lag, stale })
    }
}

fn filter_of(kept: &NamedCursor) -> Option<TypeFilter> {
    // Checked when the cursor was set.
    kept.types.as_ref().and_then(|types| TypeFilter::parse_types(types).ok())
}
