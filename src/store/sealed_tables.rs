//! The indexes of one company in a sealed segment, of any format.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};

use redb::{OwnedAccessGuard, ReadOnlyTable, ReadTransaction, ReadableTable, StorageError};

use super::StorageFault;
use super::live::existing;
use super::sealed::is_of_an_event;
use super::segment::{Listed, Place};
use super::tables::{ChunkKey, CompanyTables, ContentRow, KindRow, PlaceRow, TypeKey};
use crate::domain::company::CompanyId;
use crate::domain::cursor::Position;
use crate::domain::event::EventId;

/// What an index of chunks holds.
pub(super) enum Content {
    /// The first row of the chunk itself.
    Row(OwnedAccessGuard<&'static [u8]>),
    /// Where it lies in the file.
    Place(Place),
}

/// The chunks by time and id of their first events.
enum Chunks {
    /// Format 1: in the database.
    Rows(ReadOnlyTable<ChunkKey, &'static [u8]>),
    /// Before the database.
    Places(ReadOnlyTable<ChunkKey, PlaceRow>),
}

/// The chunks by the kinds that are in them.
enum Kinds {
    /// Format 1.
    Counted(ReadOnlyTable<TypeKey, u32>),
    /// With the last id.
    Ended(ReadOnlyTable<TypeKey, KindRow>),
}

/// A row of an index of kinds: the key, how many events, and the last of them where the index says it.
type KindEntry = (TypeKey, u32, Option<u64>);

impl Kinds {
    fn range<'a>(
        &'a self,
        range: impl RangeBounds<TypeKey> + 'a,
    ) -> Result<Box<dyn DoubleEndedIterator<Item = Result<KindEntry, StorageError>> + 'a>, StorageError> {
        Ok(match self {
            Self::Counted(table) => Box::new(table.range(range)?.map(|row| row.map(|(key, count)| (key.value(), count.value(), None)))),
            Self::Ended(table) => Box::new(table.range(range)?.map(|row| {
                let (key, row) = row?;
                let (count, last) = row.value();
                Ok((key.value(), count, Some(last)))
            })),
        })
    }
}

/// The tables of one company; none when it has no events in the file.
pub(super) struct CompanyReads {
    chunks: Option<Chunks>,
    ids: Option<ReadOnlyTable<u64, u64>>,
    kinds: Option<Kinds>,
}

fn listed(key: ChunkKey, row: PlaceRow) -> Listed {
    let (offset, length, events, published) = row;
    Listed { key, place: Some(Place { offset, length, events, published }) }
}

fn key_of(position: Position) -> ChunkKey {
    (position.created.as_micros(), position.id.0)
}

impl CompanyReads {
    pub fn open(transaction: &ReadTransaction, company: CompanyId) -> Result<Self, StorageFault> {
        let tables = CompanyTables::of(company);
        let ids = existing(transaction.open_table(tables.ids()))?;
        if let Some(chunks) = existing(transaction.open_table(tables.chunks()))? {
            let kinds = existing(transaction.open_table(tables.kinds()))?;
            return Ok(Self { chunks: Some(Chunks::Places(chunks)), ids, kinds: kinds.map(Kinds::Ended) });
        }
        let rows = existing(transaction.open_table(tables.events()))?;
        let types = existing(transaction.open_table(tables.types()))?;
        Ok(Self { chunks: rows.map(Chunks::Rows), ids, kinds: types.map(Kinds::Counted) })
    }

    pub fn content(&self, key: ChunkKey) -> Result<Option<Content>, StorageFault> {
        Ok(match &self.chunks {
            None => None,
            Some(Chunks::Rows(table)) => table.get_owned(key)?.map(Content::Row),
            Some(Chunks::Places(table)) => table.get(key)?.and_then(|row| listed(key, row.value()).place).map(Content::Place),
        })
    }

    /// The key of the chunk that may hold the first event above `at`, if there is one.
    fn key_at_or_below(&self, at: ChunkKey) -> Result<Option<ChunkKey>, StorageFault> {
        Ok(match &self.chunks {
            None => None,
            Some(Chunks::Rows(table)) => table.range(..=at)?.next_back().transpose()?.map(|row| row.0.value()),
            Some(Chunks::Places(table)) => table.range(..=at)?.next_back().transpose()?.map(|row| row.0.value()),
        })
    }

    pub fn last_key(&self) -> Result<Option<ChunkKey>, StorageFault> {
        self.key_at_or_below((u64::MAX, u64::MAX))
    }

    /// The key of the chunk that holds this event, if any does.
    pub fn key_of_id(&self, id: EventId) -> Result<Option<ChunkKey>, StorageFault> {
        let Some(ids) = &self.ids else { return Ok(None) };
        let row = ids.range(..=id.0)?.next_back().transpose()?;
        Ok(row.map(|(first_id, first_created)| (first_created.value(), first_id.value())))
    }

    pub fn keys_from(&self, position: Position, ascending: bool, limit: usize) -> Result<Vec<Listed>, StorageFault> {
        let at = key_of(position);
        let events = match &self.chunks {
            None => return Ok(Vec::new()),
            Some(Chunks::Rows(table)) => table,
            Some(Chunks::Places(table)) => {
                let start = if ascending { self.key_at_or_below(at)?.unwrap_or_default() } else { at };
                let mut found = Vec::with_capacity(limit);
                let mut take = |row: Result<(redb::AccessGuard<'_, ChunkKey>, redb::AccessGuard<'_, PlaceRow>), StorageError>| {
                    row.map(|(key, row)| found.push(listed(key.value(), row.value())))
                };
                if ascending {
                    table.range(start..)?.take(limit).try_for_each(&mut take)?;
                } else {
                    table.range(..start)?.rev().take(limit).try_for_each(&mut take)?;
                }
                return Ok(found);
            }
        };
        let Some(ids) = &self.ids else { return Ok(Vec::new()) };
        // A step of the walk through the chunks reads a whole one; through `ids`, whose order is the same, a few bytes. A
        // position that is no event's is found by its time.
        let start = match (ascending, is_of_an_event(position)) {
            (true, true) => ids.range(..=at.1)?.next_back().transpose()?.map_or(0, |row| row.0.value()),
            (true, false) => self.key_at_or_below(at)?.map_or(0, |key| key.1),
            (false, true) => at.1,
            (false, false) => events.range(at..)?.next().transpose()?.map_or(u64::MAX, |row| row.0.value().1),
        };
        let key = |row: Result<(redb::AccessGuard<'_, u64>, redb::AccessGuard<'_, u64>), StorageError>| {
            row.map(|(id, created)| Listed::keyed((created.value(), id.value())))
        };
        let keys: Result<Vec<Listed>, _> = if ascending {
            ids.range(start..)?.take(limit).map(key).collect()
        } else {
            ids.range(..start)?.rev().take(limit).map(key).collect()
        };
        Ok(keys?)
    }

    pub fn typed_keys_from(&self, kinds: &[u32], position: Position, ascending: bool, limit: usize) -> Result<Vec<ChunkKey>, StorageFault> {
        let Some(index) = &self.kinds else { return Ok(Vec::new()) };
        let (created, id) = key_of(position);
        // Ascending: what lies above the position is in the one chunk that may hold the position itself, or in later ones.
        let first = match &self.chunks {
            Some(Chunks::Rows(_)) if ascending && is_of_an_event(position) => self.key_of_id(position.id)?,
            Some(_) if ascending => self.key_at_or_below((created, id))?,
            _ => None,
        };
        let (first_created, first_id) = first.unwrap_or_default();
        let mut keys = Vec::new();
        for kind in kinds.iter().copied() {
            if ascending {
                // Ids ascend with time, so that an event's id tells what lies above it.
                let is_above = |last: Option<u64>| !is_of_an_event(position) || last.is_none_or(|last| last > id);
                let rows = index.range((kind, first_created, first_id)..=(kind, u64::MAX, u64::MAX))?;
                let above = rows.filter(|row| row.as_ref().map_or(true, |row| is_above(row.2)));
                for row in above.take(limit) {
                    let (_, created, id) = row?.0;
                    keys.push((created, id));
                }
            } else {
                for row in index.range((kind, 0, 0)..(kind, created, id))?.rev().take(limit) {
                    let (_, created, id) = row?.0;
                    keys.push((created, id));
                }
            }
        }
        keys.sort_unstable();
        keys.dedup();
        if !ascending {
            keys.reverse();
        }
        keys.truncate(limit);
        Ok(keys)
    }

    pub fn counts(&self, kinds: &[u32], after: Position, until: Position) -> Result<Vec<(ChunkKey, u64)>, StorageFault> {
        let Some(index) = &self.kinds else { return Ok(Vec::new()) };
        let first = self.key_at_or_below(key_of(after))?.unwrap_or_default();
        let until = key_of(until);
        let mut counts: BTreeMap<ChunkKey, u64> = BTreeMap::new();
        for kind in kinds.iter().copied() {
            for row in index.range((kind, first.0, first.1)..=(kind, until.0, until.1))? {
                let ((_, created, id), count, _) = row?;
                *counts.entry((created, id)).or_default() += u64::from(count);
            }
        }
        Ok(counts.into_iter().collect())
    }

    /// For each kind the newest chunk that holds it.
    pub fn newest_of_kinds(&self) -> Result<Vec<(u32, ChunkKey)>, StorageFault> {
        let Some(index) = &self.kinds else { return Ok(Vec::new()) };
        let mut newest = Vec::new();
        // From kind to kind, whatever the number of chunks between them.
        let mut next = Some(0);
        while let Some(from) = next {
            let Some(row) = index.range((Bound::Included((from, 0, 0)), Bound::Unbounded))?.next() else { break };
            let (kind, ..) = row?.0;
            if let Some(row) = index.range((kind, 0, 0)..=(kind, u64::MAX, u64::MAX))?.next_back() {
                let (_, created, id) = row?.0;
                newest.push((kind, (created, id)));
            }
            next = kind.checked_add(1);
        }
        Ok(newest)
    }

    /// The rows of `ids`.
    pub fn id_rows(&self) -> Result<Vec<(u64, u64)>, StorageFault> {
        let Some(table) = &self.ids else { return Ok(Vec::new()) };
        Ok(table.iter()?.map(|row| row.map(|(id, created)| (id.value(), created.value()))).collect::<Result<_, _>>()?)
    }

    /// Whether the index of kinds is this one, as far as the format has it.
    pub fn are_kinds(&self, kinds: &BTreeMap<TypeKey, KindRow>) -> Result<bool, StorageFault> {
        let mut expected = kinds.iter();
        if let Some(index) = &self.kinds {
            for row in index.range::<'_>(..)? {
                let (key, count, last) = row?;
                let is_expected =
                    |found: (&TypeKey, &KindRow)| (*found.0, found.1.0) == (key, count) && last.is_none_or(|last| last == found.1.1);
                if !expected.next().is_some_and(is_expected) {
                    return Ok(false);
                }
            }
        }
        Ok(expected.next().is_none())
    }

    /// Bytes, events, and events that are not the daemon's own, of each chunk; none where the format does not say.
    pub fn contents(&self) -> Result<Option<Vec<ContentRow>>, StorageFault> {
        let Some(Chunks::Places(table)) = &self.chunks else { return Ok(None) };
        let rows = table.iter()?.map(|row| {
            row.map(|(_, row)| {
                let (_, length, events, published) = row.value();
                (length, events, published)
            })
        });
        Ok(Some(rows.collect::<Result<_, _>>()?))
    }
}
