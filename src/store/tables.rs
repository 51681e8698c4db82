//! The tables of a segment: every key and value in one place.

use redb::TableDefinition;

use crate::domain::company::CompanyId;
use crate::domain::event::EventId;
use crate::domain::time::Timestamp;

/// Time (µs) and id of a chunk's first event.
pub(super) type ChunkKey = (u64, u64);

/// `(created µs, id)` of its first event → first row of a chunk. One table per company; written in key order only.
pub(super) type EventsTable<'a> = TableDefinition<'a, ChunkKey, &'static [u8]>;

/// First id of a chunk → time (µs) of its first event. One table per company, in sealed segments only: an open one has
/// its chunk list in memory.
pub(super) type IdsTable<'a> = TableDefinition<'a, u64, u64>;

/// Kind, and the key of a chunk that holds it.
pub(super) type TypeKey = (u32, u64, u64);

/// `(kind, created µs, id)` → number of events of that kind in the chunk with that key. One table per company, sealed only.
pub(super) type TypesTable<'a> = TableDefinition<'a, TypeKey, u32>;

/// `(first id, n)` → the n-th further row of a chunk that is longer than one row, counted from 1.
pub(super) const PARTS: TableDefinition<(u64, u32), &[u8]> = TableDefinition::new("parts");

/// Event, its reference counted from 0, part of the snapshot counted from 0.
pub(super) type SnapshotKey = (u64, u32, u32);

/// Event and reference → the snapshot, see [`super::snapshots`].
pub(super) const SNAPSHOTS: TableDefinition<SnapshotKey, &[u8]> = TableDefinition::new("snapshots");

/// First id of a commit → its dedupe keys, each 40 bytes (hash u128, id u64, created u64, fingerprint u64), and the XXH3-64
/// of them. Open segments only.
pub(super) const DEDUPE_LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("dedupe_log");

/// Id, created (µs), fingerprint of the content, and 32 bits of a hash over these and the key.
pub(super) type DedupeRow = (u64, u64, u64, u32);

/// Hash of (company, dedupe key) → where it was used. Sealed segments only.
pub(super) const DEDUPE: TableDefinition<u128, DedupeRow> = TableDefinition::new("dedupe");

/// Number of a kind → type as published, a zero byte, version.
pub(super) const NAMES: TableDefinition<u32, &[u8]> = TableDefinition::new("names");

/// `about` → a [`super::records::SegmentMeta`]; `filter` → the membership filter of `dedupe` (sealed only).
pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");

/// Bytes of one key in `dedupe_log`.
pub(super) const DEDUPE_ROW_BYTES: usize = 40;

/// Names of the tables that each company has for itself.
pub(super) struct CompanyTables {
    events: String,
    ids: String,
    types: String,
}

impl CompanyTables {
    pub fn of(company: CompanyId) -> Self {
        Self { events: format!("events/{company}"), ids: format!("ids/{company}"), types: format!("types/{company}") }
    }

    pub fn events(&self) -> EventsTable<'_> {
        TableDefinition::new(&self.events)
    }

    pub fn ids(&self) -> IdsTable<'_> {
        TableDefinition::new(&self.ids)
    }

    pub fn types(&self) -> TypesTable<'_> {
        TableDefinition::new(&self.types)
    }
}

/// The key of a chunk that starts with this event.
pub(super) fn chunk_key(created: Timestamp, id: EventId) -> ChunkKey {
    (created.as_micros(), id.0)
}
