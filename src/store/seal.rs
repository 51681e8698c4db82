//! Sealing: a closed segment is rewritten in one pass into dense chunks and sorted indexes.

use std::collections::BTreeMap;
use std::sync::Arc;

use redb::{Builder, Database, ReadableDatabase, TableHandle, WriteTransaction};
use twox_hash::XxHash3_64;

use super::StorageFault;
use super::bloom::Bloom;
use super::chunk::{CHUNK_BYTES_MAX, Chunk, ChunkBuilder, Entry, HEADER_BYTES, part_lengths};
use super::disk::{Disk, FileStorage, OpenMode, Unsynced};
use super::faults::Faults;
use super::live::{self, LiveSegment};
use super::prepared::{DedupeEntry, DedupeHash};
use super::records::{self, SegmentMeta, SegmentSummary};
use super::sealed;
use super::segment::{SegmentReads, fetch_chunk};
use super::snapshots::{self, PreparedSnapshot, Snapshot};
use super::tables::{ChunkKey, CompanyTables, DEDUPE, DEDUPE_ROW_BYTES, DedupeRow, META, NAMES, PARTS, SNAPSHOTS, TypeKey, chunk_key};
use crate::domain::company::CompanyId;
use crate::domain::event::EventId;
use crate::domain::filter::OWN_PREFIX;
use crate::domain::time::Timestamp;

/// redb's cache for the file that is being written.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// Counts of events and snapshots and a hash over all of them, to compare original and copy.
#[derive(Debug, Default, PartialEq, Eq)]
struct Census {
    events: u64,
    snapshots: u64,
    hash: u64,
}

impl Census {
    fn take(&mut self, company: CompanyId, id: EventId, envelope: &[u8], extra: &[u8]) {
        // A sum does not depend on the order, which is by company in both files but by chunk in neither.
        let of_event = XxHash3_64::oneshot_with_seed(id.0 ^ u64::from(company.0).rotate_left(40), envelope);
        self.hash = self.hash.wrapping_add(of_event).wrapping_add(XxHash3_64::oneshot(extra));
        self.events += 1;
    }

    fn take_snapshot(&mut self, company: CompanyId, id: EventId, reference: u32, snapshot: &Snapshot) {
        let place = id.0 ^ u64::from(company.0).rotate_left(40) ^ u64::from(reference).rotate_left(20);
        self.hash = self.hash.wrapping_add(XxHash3_64::oneshot_with_seed(place, &snapshot.hash.to_le_bytes()));
        self.snapshots += 1;
    }

    fn take_chunk(&mut self, company: CompanyId, chunk: &Chunk) -> Option<()> {
        for (place, record) in chunk.records().enumerate() {
            self.take(company, record.id, &chunk.envelopes(place, place)?, &chunk.extra(place)?);
        }
        Some(())
    }
}

/// A hash over the rows of a sealed file that no chunk's checksum covers; their order does not matter.
#[derive(Debug, Default)]
pub(super) struct IndexHash(u64);

impl IndexHash {
    pub fn take_dedupe(&mut self, hash: DedupeHash, entry: &DedupeEntry) {
        self.0 = self.0.wrapping_add(row_hash(hash, entry));
    }

    pub fn take_name(&mut self, kind: u32, name: &[u8]) {
        self.0 = self.0.wrapping_add(XxHash3_64::oneshot_with_seed(u64::from(kind), name));
    }

    pub fn finish(self) -> u64 {
        self.0
    }
}

fn row_hash(hash: DedupeHash, entry: &DedupeEntry) -> u64 {
    let mut row = Vec::with_capacity(DEDUPE_ROW_BYTES);
    live::pack_dedupe(&mut row, hash, entry);
    XxHash3_64::oneshot(&row)
}

/// A row of `dedupe`; 32 bits of its hash lie in it, because a damaged one would answer a publisher with another event.
pub(super) fn dedupe_row(hash: DedupeHash, entry: &DedupeEntry) -> DedupeRow {
    (entry.id.0, entry.created.as_micros(), entry.fingerprint, (row_hash(hash, entry) & u64::from(u32::MAX)) as u32)
}

/// What a row of `dedupe` says, or none when it is damaged.
pub(super) fn read_dedupe_row(hash: DedupeHash, row: DedupeRow) -> Option<DedupeEntry> {
    let entry = DedupeEntry { id: EventId(row.0), created: Timestamp::from_micros(row.1), fingerprint: row.2 };
    (dedupe_row(hash, &entry) == row).then_some(entry)
}

/// Writes chunks into their company's table, each in as many rows as it needs; they follow all that is there.
pub(super) fn insert_chunks<'a>(
    transaction: &WriteTransaction,
    tables: &CompanyTables,
    chunks: impl IntoIterator<Item = &'a Chunk>,
) -> Result<(), StorageFault> {
    let mut events = transaction.open_table(tables.events())?;
    let mut cursor = events.upper_bound_mut(std::ops::Bound::<ChunkKey>::Unbounded)?;
    for chunk in chunks {
        let Some(first) = chunk.record(0) else { continue };
        let key = chunk_key(first.created, first.id);
        let bytes = chunk.bytes();
        if bytes.len() <= CHUNK_BYTES_MAX {
            cursor.insert_before(key, bytes.as_ref())?;
            continue;
        }
        let mut parts = transaction.open_table(PARTS)?;
        let mut start = 0;
        for (number, length) in (0_u32..).zip(part_lengths(bytes.len())) {
            let row = bytes.get(start..start + length).unwrap_or_default();
            if number == 0 {
                cursor.insert_before(key, row)?;
            } else {
                parts.insert((key.1, number), row)?;
            }
            start += length;
        }
    }
    cursor.close().map_err(StorageFault::from)
}

/// One company's part of a sealed file while it is written.
struct CompanyWriter<'a> {
    transaction: &'a WriteTransaction,
    company: CompanyId,
    tables: CompanyTables,
    builder: ChunkBuilder,
    kinds: BTreeMap<u32, u32>,
    /// Rows of `types`, collected because they are sorted by kind first.
    types: BTreeMap<TypeKey, u32>,
}

impl CompanyWriter<'_> {
    fn push(&mut self, entry: &Entry<'_>) -> Result<(), StorageFault> {
        if self.builder.first().is_some() && self.builder.length() + entry.bytes() > CHUNK_BYTES_MAX {
            self.flush()?;
        }
        self.builder.push(entry);
        *self.kinds.entry(entry.kind).or_default() += 1;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StorageFault> {
        let Some((created, id)) = self.builder.first() else { return Ok(()) };
        let Some(chunk) = self.builder.finish(self.company) else { return Ok(()) };
        let key = chunk_key(created, id);
        insert_chunks(self.transaction, &self.tables, [&chunk])?;
        self.transaction.open_table(self.tables.ids())?.insert(key.1, key.0)?;
        for (kind, count) in std::mem::take(&mut self.kinds) {
            self.types.insert((kind, key.0, key.1), count);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(), StorageFault> {
        self.flush()?;
        let mut table = self.transaction.open_table(self.tables.types())?;
        for (key, count) in &self.types {
            table.insert(*key, *count)?;
        }
        Ok(())
    }
}

/// Rewrites `segment` into the file `N.sealed.redb`, synced and renamed; the original stays.
///
/// Nothing points at the new file yet: whoever calls this switches the ledger's row afterwards.
pub(super) fn rewrite(disk: &Arc<dyn Disk>, segment: &LiveSegment, epoch: u32, faults: Faults) -> Result<SegmentSummary, StorageFault> {
    let number = segment.number;
    let unfinished = sealed::unfinished_name(number);
    for leftover in [unfinished.clone(), sealed::file_name(number)] {
        let present = disk.list("log")?.iter().any(|name| leftover.ends_with(&format!("/{name}")));
        if present {
            disk.remove(&leftover)?;
        }
    }
    let storage = disk.open(&unfinished, OpenMode::CreateNew)?;
    let storage = if faults.switch_before_sync { FileStorage::new(Unsynced(storage)) } else { storage };
    let database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(storage)?;
    let (summary, original) = copy(segment, &database, epoch)?;
    let copied = census(&database, number)?;
    if copied != original || original.events != summary.events {
        return Err(StorageFault::Miscounted { segment: number, original: original.events, copied: copied.events });
    }
    // Closing writes the state that lets the file be opened for reading only, and syncs it.
    database.close()?;
    disk.rename(&unfinished, &sealed::file_name(number))?;
    disk.sync_folder("log")?;
    Ok(summary)
}

fn copy(segment: &LiveSegment, database: &Database, epoch: u32) -> Result<(SegmentSummary, Census), StorageFault> {
    let index = segment.index();
    let (first, last) = index.span.ok_or(StorageFault::MissingMeta { segment: segment.number })?;
    let mut census = Census::default();
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    // Copied at last, so that they are written in the order of their keys.
    let mut snapshots = Vec::new();
    for (company, of_company) in &index.companies {
        let mut writer = CompanyWriter {
            transaction: &transaction,
            company: *company,
            tables: CompanyTables::of(*company),
            builder: ChunkBuilder::default(),
            kinds: BTreeMap::new(),
            types: BTreeMap::new(),
        };
        for key in &of_company.chunks {
            let damaged = || StorageFault::MissingMeta { segment: segment.number };
            let chunk = segment.chunk(*company, *key)?.ok_or_else(damaged)?;
            for (place, record) in chunk.records().enumerate() {
                let envelope = chunk.envelopes(place, place).ok_or_else(damaged)?;
                let extra = chunk.extra(place).ok_or_else(damaged)?;
                let is_own = index.names.folded(record.kind).is_some_and(|(folded, _)| folded.starts_with(OWN_PREFIX));
                census.take(*company, record.id, &envelope, &extra);
                writer.push(&Entry::of(&record, record.kind, is_own, &envelope, &extra))?;
                snapshots.extend(snapshots::marks(&chunk, place)?.iter().map(|mark| (record.id, mark.reference, *company)));
            }
        }
        writer.finish()?;
    }
    snapshots.sort_unstable();
    for (id, reference, company) in snapshots {
        let snapshot = segment.snapshot(company, id, reference)?.ok_or_else(|| snapshots::corrupt(segment.number, id, reference))?;
        census.take_snapshot(company, id, reference, &snapshot);
        PreparedSnapshot::copied(reference, &snapshot).insert(&transaction, company, id)?;
    }
    let mut index_hash = IndexHash::default();
    for (hash, entry) in &index.dedupe {
        index_hash.take_dedupe(*hash, entry);
    }
    for (kind, name) in index.names.iter() {
        index_hash.take_name(kind, name);
    }
    let summary = SegmentSummary {
        events: census.events,
        first_id: first.id.0,
        last_id: last.id.0,
        first_created_us: first.created.as_micros(),
        last_created_us: last.created.as_micros(),
        index_hash: index_hash.finish(),
    };
    let mut hashes: Vec<DedupeHash> = index.dedupe.keys().copied().collect();
    hashes.sort_unstable();
    {
        let mut dedupe = transaction.open_table(DEDUPE)?;
        let mut cursor = dedupe.upper_bound_mut(std::ops::Bound::<u128>::Unbounded)?;
        for hash in &hashes {
            if let Some(entry) = index.dedupe.get(hash) {
                cursor.insert_before(*hash, dedupe_row(*hash, entry))?;
            }
        }
        cursor.close()?;
        let mut names = transaction.open_table(NAMES)?;
        for (kind, name) in index.names.iter() {
            names.insert(kind, name)?;
        }
        let mut meta = transaction.open_table(META)?;
        let about = SegmentMeta {
            format: records::STORE_FORMAT,
            number: segment.number,
            epoch,
            summary: Some(summary),
            follows_id: segment.follows.0,
        };
        meta.insert("about", records::encode(&about)?.as_slice())?;
        meta.insert("filter", Bloom::of(hashes.iter().copied()).as_bytes())?;
    }
    transaction.commit()?;
    Ok((summary, census))
}

/// Counts and hashes what the new file holds, reading it back.
fn census(database: &Database, number: u64) -> Result<Census, StorageFault> {
    let mut census = Census::default();
    let transaction = database.begin_read()?;
    let names: Vec<String> = transaction.list_tables()?.map(|table| table.name().to_owned()).collect();
    for company in names.iter().filter_map(|name| name.strip_prefix("events/")?.parse().ok().map(CompanyId)) {
        let events = transaction.open_table(CompanyTables::of(company).events())?;
        for row in redb::ReadableTable::iter(&events)? {
            let (key, value) = row?;
            let chunk = fetch_chunk(&transaction, number, company, key.value(), bytes::Bytes::copy_from_slice(value.value()))?;
            census.take_chunk(company, &chunk).ok_or(StorageFault::MissingMeta { segment: number })?;
            for (place, record) in chunk.records().enumerate() {
                for mark in snapshots::marks(&chunk, place)? {
                    let damaged = || snapshots::corrupt(number, record.id, mark.reference);
                    let table = live::existing(transaction.open_table(SNAPSHOTS))?.ok_or_else(damaged)?;
                    let snapshot = snapshots::read(&table, number, company, record.id, mark.reference)?.ok_or_else(damaged)?;
                    census.take_snapshot(company, record.id, mark.reference, &snapshot);
                }
            }
        }
    }
    Ok(census)
}

/// Cuts a company's events of one commit into chunks: full ones first, and a rest that wastes little of its pages.
pub(super) fn chunk_target(rest: usize) -> usize {
    use super::chunk::run_capacity;
    let rest = rest + HEADER_BYTES;
    match rest {
        rest if rest > run_capacity(1) + run_capacity(0) => CHUNK_BYTES_MAX,
        rest if rest > run_capacity(1) => run_capacity(1),
        rest if rest > run_capacity(0) + run_capacity(0) / 2 => run_capacity(1),
        _ => run_capacity(0),
    }
}

/// The name under which an unsealed original lies.
pub(super) fn original_name(number: u64) -> String {
    live::file_name(number)
}
