//! A segment that is written to, or waits to be sealed: one redb file and its indexes in memory.
//!
//! The file is written in key order only. What a sealed segment looks up in sorted tables (chunks by id, chunks by type,
//! dedupe keys) is kept in memory here, and rebuilt from the file at start.

use std::collections::BTreeMap;
use std::sync::RwLock;

use bytes::{Bytes, BytesMut};
use redb::{Builder, Database, Durability, ReadableDatabase, ReadableTable, TableError};
use twox_hash::XxHash3_64;

use super::StorageFault;
use super::chunk::{self, Chunk, ChunkError};
use super::disk::{Disk, OpenMode};
use super::prepared::{DedupeEntry, DedupeHash, DedupeMap};
use super::records::{self, SegmentMeta};
use super::segment::{KindName, KindNames, NewestOfKinds, SegmentReads, fetch_chunk};
use super::snapshots::{self, Snapshot};
use super::tables::{ChunkKey, CompanyTables, DEDUPE_LOG, DEDUPE_ROW_BYTES, META, NAMES, SNAPSHOTS, chunk_key};
use crate::domain::company::CompanyId;
use crate::domain::cursor::Position;
use crate::domain::event::EventId;
use crate::domain::time::Timestamp;

/// redb's cache for the file that is written to.
const CACHE_BYTES: usize = 8 * 1024 * 1024;

/// The path of an unsealed segment.
pub(super) fn file_name(number: u64) -> String {
    format!("log/{number}.redb")
}

/// One company's part of the index.
#[derive(Debug, Default)]
pub(super) struct CompanyIndex {
    /// Keys of its chunks, ascending in both parts.
    pub chunks: Vec<ChunkKey>,
    /// For each kind the places in `chunks` that hold it, and how many events of it are there.
    pub kinds: BTreeMap<u32, Vec<(u32, u32)>>,
    /// Its newest event.
    pub last: Option<Position>,
}

/// What is kept in memory beside an unsealed file.
#[derive(Debug, Default)]
pub(super) struct LiveIndex {
    pub companies: BTreeMap<CompanyId, CompanyIndex>,
    pub names: KindNames,
    pub dedupe: DedupeMap,
    pub events: u64,
    /// First and last event of the segment.
    pub span: Option<(Position, Position)>,
    /// Bytes of chunks and snapshots written.
    pub stored_bytes: u64,
}

impl LiveIndex {
    /// Takes a chunk into the index; it must follow all of its company's chunks.
    pub fn add_chunk(&mut self, company: CompanyId, chunk: &Chunk) {
        let (Some(first), Some(last)) = (chunk.record(0), chunk.record(chunk.count().saturating_sub(1))) else { return };
        let index = self.companies.entry(company).or_default();
        let place = u32::try_from(index.chunks.len()).unwrap_or(u32::MAX);
        index.chunks.push(chunk_key(first.created, first.id));
        for (place_in_chunk, record) in chunk.records().enumerate() {
            if record.snapshots > 0 {
                // What cannot be read here is reported when it is read.
                let marks = snapshots::marks(chunk, place_in_chunk).unwrap_or_default();
                self.stored_bytes += marks.iter().map(|mark| u64::from(mark.bytes)).sum::<u64>();
            }
            let places = index.kinds.entry(record.kind).or_default();
            match places.last_mut() {
                Some((last, count)) if *last == place => *count += 1,
                _ => places.push((place, 1)),
            }
        }
        let position = |record: &chunk::Record| Position { created: record.created, id: record.id };
        index.last = Some(position(&last));
        self.events += chunk.count() as u64;
        self.stored_bytes += chunk.bytes().len() as u64;
        self.span = Some(match self.span {
            None => (position(&first), position(&last)),
            Some((start, end)) => (start.min(position(&first)), end.max(position(&last))),
        });
    }
}

/// An unsealed segment.
#[derive(Debug)]
pub(super) struct LiveSegment {
    pub number: u64,
    /// The newest event of the log when the segment was made.
    pub follows: EventId,
    pub database: Database,
    pub index: RwLock<LiveIndex>,
}

impl LiveSegment {
    /// Makes the file with its first commit, and syncs it and its folder. A leftover of the same name is replaced.
    pub fn create(disk: &dyn Disk, number: u64, epoch: u32, follows: EventId) -> Result<Self, StorageFault> {
        let name = file_name(number);
        if disk.list("log")?.iter().any(|existing| name.ends_with(&format!("/{existing}"))) {
            disk.remove(&name)?;
        }
        let storage = disk.open(&name, OpenMode::CreateNew)?;
        let database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(storage)?;
        let mut transaction = database.begin_write()?;
        transaction.set_quick_repair(true);
        let meta = SegmentMeta { format: records::STORE_FORMAT, number, epoch, summary: None, follows_id: follows.0 };
        transaction.open_table(META)?.insert("about", records::encode(&meta)?.as_slice())?;
        transaction.commit()?;
        disk.sync_folder("log")?;
        Ok(Self { number, follows, database, index: RwLock::default() })
    }

    /// Opens the file and rebuilds the index from it; every chunk's checksum is checked on the way. None when the file
    /// says that it is another one.
    pub fn open(disk: &dyn Disk, number: u64, epoch: u32) -> Result<Option<Self>, StorageFault> {
        let storage = disk.open(&file_name(number), OpenMode::ReadWrite)?;
        let database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(storage)?;
        let mut index = LiveIndex::default();
        let transaction = database.begin_read()?;
        let meta = transaction.open_table(META)?;
        let about = meta.get("about")?.ok_or(StorageFault::MissingMeta { segment: number })?;
        let about: SegmentMeta = records::decode(about.value())?;
        if about.format > records::STORE_FORMAT {
            return Err(StorageFault::NewerFormat { found: about.format, known: records::STORE_FORMAT });
        }
        if about.number != number || about.epoch > epoch {
            return Ok(None);
        }
        if let Some(names) = existing(transaction.open_table(NAMES))? {
            index.names = KindNames::read(&names)?;
        }
        if let Some(log) = existing(transaction.open_table(DEDUPE_LOG))? {
            for row in log.iter()? {
                let (first_id, rows) = row?;
                let damaged =
                    || StorageFault::Record(format!("segment {number}, the dedupe keys of the commit of event {}", first_id.value()));
                index.dedupe.extend(unpack_dedupe(rows.value()).ok_or_else(damaged)?);
            }
        }
        let companies: Vec<CompanyId> = transaction
            .list_tables()?
            .filter_map(|table| {
                let name = redb::TableHandle::name(&table).strip_prefix("events/")?.parse().ok()?;
                Some(CompanyId(name))
            })
            .collect();
        for company in companies {
            let tables = CompanyTables::of(company);
            let events = transaction.open_table(tables.events())?;
            for row in events.iter()? {
                let (key, first_row) = row?;
                let chunk = fetch_chunk(&transaction, number, company, key.value(), Bytes::copy_from_slice(first_row.value()))?;
                index.add_chunk(company, &chunk);
            }
        }
        drop(transaction);
        Ok(Some(Self { number, follows: EventId(about.follows_id), database, index: RwLock::new(index) }))
    }

    /// An empty commit that makes the next open instant, whatever happens until then.
    pub fn settle(&self) -> Result<(), StorageFault> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate).map_err(|error| StorageFault::Record(error.to_string()))?;
        transaction.set_quick_repair(true);
        transaction.commit()?;
        Ok(())
    }

    /// The index; a panic of another thread while it held the lock does not hide it.
    pub fn index(&self) -> std::sync::RwLockReadGuard<'_, LiveIndex> {
        self.index.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub fn index_mut(&self) -> std::sync::RwLockWriteGuard<'_, LiveIndex> {
        self.index.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl SegmentReads for LiveSegment {
    fn number(&self) -> u64 {
        self.number
    }

    fn chunk(&self, company: CompanyId, key: ChunkKey) -> Result<Option<Chunk>, StorageFault> {
        let transaction = self.database.begin_read()?;
        let tables = CompanyTables::of(company);
        let Some(events) = existing(transaction.open_table(tables.events()))? else { return Ok(None) };
        let Some(row) = events.get(key)? else { return Ok(None) };
        // Copied: a page that a slow client holds in an open segment could not be used again.
        fetch_chunk(&transaction, self.number, company, key, Bytes::copy_from_slice(row.value())).map(Some)
    }

    fn keys_from(&self, company: CompanyId, position: Position, ascending: bool, limit: usize) -> Result<Vec<ChunkKey>, StorageFault> {
        let index = self.index();
        let Some(company) = index.companies.get(&company) else { return Ok(Vec::new()) };
        let above = company.chunks.partition_point(|key| *key <= (position.created.as_micros(), position.id.0));
        Ok(if ascending {
            company.chunks.iter().skip(above.saturating_sub(1)).take(limit).copied().collect()
        } else {
            let below = company.chunks.partition_point(|key| *key < (position.created.as_micros(), position.id.0));
            company.chunks.iter().take(below).rev().take(limit).copied().collect()
        })
    }

    fn typed_keys_from(
        &self,
        company: CompanyId,
        kinds: &[u32],
        position: Position,
        ascending: bool,
        limit: usize,
    ) -> Result<Vec<ChunkKey>, StorageFault> {
        let index = self.index();
        let Some(company) = index.companies.get(&company) else { return Ok(Vec::new()) };
        let at = (position.created.as_micros(), position.id.0);
        // Ascending: what lies above the position is in the one chunk that may hold the position itself, or in later ones.
        let edge = if ascending {
            company.chunks.partition_point(|key| *key <= at).saturating_sub(1)
        } else {
            company.chunks.partition_point(|key| *key < at)
        };
        let mut places: Vec<u32> = Vec::new();
        for kind in kinds {
            let Some(of_kind) = company.kinds.get(kind) else { continue };
            let below = of_kind.partition_point(|(place, _)| (*place as usize) < edge);
            let of_kind = of_kind.iter().map(|(place, _)| *place);
            if ascending {
                places.extend(of_kind.skip(below).take(limit));
            } else {
                places.extend(of_kind.take(below).rev().take(limit));
            }
        }
        places.sort_unstable();
        places.dedup();
        if !ascending {
            places.reverse();
        }
        Ok(places.iter().take(limit).filter_map(|place| company.chunks.get(*place as usize).copied()).collect())
    }

    fn key_of_id(&self, company: CompanyId, id: EventId) -> Result<Option<ChunkKey>, StorageFault> {
        let index = self.index();
        let Some(company) = index.companies.get(&company) else { return Ok(None) };
        let after = company.chunks.partition_point(|key| key.1 <= id.0);
        Ok(after.checked_sub(1).and_then(|place| company.chunks.get(place).copied()))
    }

    fn kinds_matching(&self, matches: &dyn Fn(&str, &str) -> bool) -> Result<Vec<u32>, StorageFault> {
        Ok(self.index().names.matching(matches))
    }

    fn kinds(&self) -> Result<Vec<(String, String)>, StorageFault> {
        Ok(self.index().names.all().to_vec())
    }

    fn kind_name(&self, kind: u32) -> Result<Option<KindName>, StorageFault> {
        Ok(self.index().names.shared(kind))
    }

    fn counts(&self, company: CompanyId, kinds: &[u32], after: Position, until: Position) -> Result<Vec<(ChunkKey, u64)>, StorageFault> {
        let index = self.index();
        let Some(company) = index.companies.get(&company) else { return Ok(Vec::new()) };
        let at = |position: Position| (position.created.as_micros(), position.id.0);
        let first = company.chunks.partition_point(|key| *key <= at(after)).saturating_sub(1);
        let end = company.chunks.partition_point(|key| *key <= at(until));
        let mut counts: BTreeMap<u32, u64> = BTreeMap::new();
        for of_kind in kinds.iter().filter_map(|kind| company.kinds.get(kind)) {
            let below = of_kind.partition_point(|(place, _)| (*place as usize) < first);
            for (place, count) in of_kind.iter().skip(below).take_while(|(place, _)| (*place as usize) < end) {
                *counts.entry(*place).or_default() += u64::from(*count);
            }
        }
        Ok(counts.into_iter().filter_map(|(place, count)| Some((*company.chunks.get(place as usize)?, count))).collect())
    }

    fn newest_of_kinds(&self) -> Result<NewestOfKinds, StorageFault> {
        let index = self.index();
        let mut newest = NewestOfKinds { chunks: Vec::new(), last: index.span.map_or(Position::START, |(_, last)| last) };
        for (company, of_company) in &index.companies {
            for (kind, places) in &of_company.kinds {
                let key = places.last().and_then(|(place, _)| of_company.chunks.get(*place as usize));
                newest.chunks.extend(key.map(|key| (*company, *kind, *key)));
            }
        }
        Ok(newest)
    }

    fn snapshot(&self, company: CompanyId, id: EventId, reference: u32) -> Result<Option<Snapshot>, StorageFault> {
        let transaction = self.database.begin_read()?;
        let Some(table) = existing(transaction.open_table(SNAPSHOTS))? else { return Ok(None) };
        snapshots::read(&table, self.number, company, id, reference)
    }

    fn snapshot_keys(&self) -> Result<Vec<(EventId, u32)>, StorageFault> {
        let transaction = self.database.begin_read()?;
        let Some(table) = existing(transaction.open_table(SNAPSHOTS))? else { return Ok(Vec::new()) };
        snapshots::keys(&table)
    }

    fn dedupe(&self, hash: DedupeHash) -> Result<Option<DedupeEntry>, StorageFault> {
        Ok(self.index().dedupe.get(&hash).copied())
    }

    fn span(&self) -> Option<(Position, Position)> {
        self.index().span
    }
}

/// The table, or none when nothing was ever written to it.
pub(super) fn existing<T>(table: Result<T, TableError>) -> Result<Option<T>, StorageFault> {
    match table {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The bytes that stand for one dedupe key.
pub(super) fn pack_dedupe(out: &mut Vec<u8>, hash: DedupeHash, entry: &DedupeEntry) {
    out.extend_from_slice(&hash.to_le_bytes());
    out.extend_from_slice(&entry.id.0.to_le_bytes());
    out.extend_from_slice(&entry.created.as_micros().to_le_bytes());
    out.extend_from_slice(&entry.fingerprint.to_le_bytes());
}

/// A value of `dedupe_log`: the keys of one commit, and a checksum over them.
pub(super) fn pack_commit(dedupe: &DedupeMap) -> Vec<u8> {
    let mut packed = Vec::with_capacity(dedupe.len() * DEDUPE_ROW_BYTES + 8);
    for (hash, entry) in dedupe {
        pack_dedupe(&mut packed, *hash, entry);
    }
    let sum = XxHash3_64::oneshot(&packed);
    packed.extend_from_slice(&sum.to_le_bytes());
    packed
}

/// What a value of `dedupe_log` says, or none when it is damaged.
fn unpack_dedupe(packed: &[u8]) -> Option<Vec<(DedupeHash, DedupeEntry)>> {
    let (rows, sum) = packed.split_last_chunk::<8>()?;
    if XxHash3_64::oneshot(rows) != u64::from_le_bytes(*sum) {
        return None;
    }
    let (rows, rest) = rows.as_chunks::<DEDUPE_ROW_BYTES>();
    if rest.is_empty() { rows.iter().map(|row| unpack_row(row)).collect() } else { None }
}

fn unpack_row(packed: &[u8]) -> Option<(DedupeHash, DedupeEntry)> {
    let number = |at: usize| packed.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    let hash = packed.get(..16)?.try_into().ok().map(u128::from_le_bytes)?;
    let entry = DedupeEntry { id: EventId(number(16)?), created: Timestamp::from_micros(number(24)?), fingerprint: number(32)? };
    Some((hash, entry))
}

/// Joins the rows of a chunk that is longer than one.
pub(super) fn join_parts(
    first_row: Bytes,
    mut further: impl FnMut(u32) -> Result<Option<Vec<u8>>, StorageFault>,
) -> Result<Result<Bytes, ChunkError>, StorageFault> {
    let length = match chunk::total_length(&first_row) {
        Ok(length) => length,
        Err(error) => return Ok(Err(error)),
    };
    if length <= first_row.len() {
        return Ok(Ok(first_row));
    }
    let mut whole = BytesMut::from(first_row);
    let mut part = 1;
    while whole.len() < length {
        match further(part)? {
            Some(row) if !row.is_empty() => whole.extend_from_slice(&row),
            _ => return Ok(Err(ChunkError::Header)),
        }
        part += 1;
    }
    Ok(Ok(whole.freeze()))
}
