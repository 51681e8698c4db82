//! A sealed segment: dense chunks and sorted indexes in a file that never changes again.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};

use bytes::Bytes;
use redb::{AccessGuard, Builder, OwnedAccessGuard, ReadOnlyDatabase, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable};

use super::StorageFault;
use super::bloom::Bloom;
use super::chunk::Chunk;
use super::disk::{Disk, OpenMode};
use super::live::existing;
use super::prepared::{DedupeEntry, DedupeHash};
use super::records::{self, SegmentMeta, SegmentSummary};
use super::seal::{IndexHash, read_dedupe_row};
use super::segment::{KindName, KindNames, NewestOfKinds, SegmentReads, fetch_chunk};
use super::snapshots::{self, Snapshot};
use super::tables::{ChunkKey, CompanyTables, DEDUPE, DedupeRow, META, NAMES, SNAPSHOTS, TypeKey};
use crate::domain::company::CompanyId;
use crate::domain::cursor::Position;
use crate::domain::event::EventId;
use crate::domain::time::Timestamp;

/// redb's cache of one sealed file: room for its branch pages; the chunks come from the operating system's cache.
const CACHE_BYTES: usize = 1024 * 1024;

/// Sealed files that are open at the same time.
const OPEN_MAX: usize = 48;

/// The path of a sealed segment.
pub(super) fn file_name(number: u64) -> String {
    format!("log/{number}.sealed.redb")
}

/// The path of a sealed segment that is being written.
pub(super) fn unfinished_name(number: u64) -> String {
    format!("log/{number}.sealing")
}

/// What is open of a sealed file. It never changes, so one view of it and the tables once found serve all readers.
struct OpenFile {
    companies: RwLock<HashMap<CompanyId, Arc<CompanyReads>>>,
    dedupe: Option<ReadOnlyTable<u128, DedupeRow>>,
    transaction: ReadTransaction,
    /// Keeps the file open.
    _database: ReadOnlyDatabase,
    names: KindNames,
}

/// The tables of one company; none when it has no events in the file.
struct CompanyReads {
    events: Option<ReadOnlyTable<ChunkKey, &'static [u8]>>,
    ids: Option<ReadOnlyTable<u64, u64>>,
    types: Option<ReadOnlyTable<TypeKey, u32>>,
}

impl OpenFile {
    fn new(database: ReadOnlyDatabase) -> Result<Self, StorageFault> {
        let transaction = database.begin_read()?;
        let names = match existing(transaction.open_table(NAMES))? {
            Some(table) => KindNames::read(&table)?,
            None => KindNames::default(),
        };
        let dedupe = existing(transaction.open_table(DEDUPE))?;
        Ok(Self { companies: RwLock::default(), dedupe, transaction, _database: database, names })
    }

    fn company(&self, company: CompanyId) -> Result<Arc<CompanyReads>, StorageFault> {
        if let Some(reads) = self.companies.read().unwrap_or_else(PoisonError::into_inner).get(&company) {
            return Ok(Arc::clone(reads));
        }
        let tables = CompanyTables::of(company);
        let reads = Arc::new(CompanyReads {
            events: existing(self.transaction.open_table(tables.events()))?,
            ids: existing(self.transaction.open_table(tables.ids()))?,
            types: existing(self.transaction.open_table(tables.types()))?,
        });
        self.companies.write().unwrap_or_else(PoisonError::into_inner).insert(company, Arc::clone(&reads));
        Ok(reads)
    }
}

impl std::fmt::Debug for OpenFile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("OpenFile").field("names", &self.names).finish_non_exhaustive()
    }
}

/// Keeps the sealed files open that were opened last.
#[derive(Debug, Default)]
pub(super) struct OpenFiles(Mutex<VecDeque<Arc<OpenFile>>>);

impl OpenFiles {
    fn keep(&self, file: &Arc<OpenFile>) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.push_back(Arc::clone(file));
        let closed = if open.len() > OPEN_MAX { open.pop_front() } else { None };
        drop(open);
        drop(closed);
    }

    fn forget(&self, file: &Arc<OpenFile>) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|kept| !Arc::ptr_eq(kept, file));
    }
}

/// A sealed segment; its file is opened when it is first read from.
#[derive(Debug)]
pub(super) struct SealedSegment {
    number: u64,
    /// The newest event of the log when the segment was made.
    pub follows: EventId,
    disk: Arc<dyn Disk>,
    pub summary: SegmentSummary,
    filter: Bloom,
    file: Mutex<Weak<OpenFile>>,
    /// Set when retention has given the segment up: who still reads it goes on, although its name is gone.
    given_up: OnceLock<Arc<OpenFile>>,
    open_files: Arc<OpenFiles>,
}

/// A value of a sealed file that keeps its page in memory for as long as somebody sends it.
struct PageOwner(OwnedAccessGuard<&'static [u8]>);

impl AsRef<[u8]> for PageOwner {
    fn as_ref(&self) -> &[u8] {
        self.0.value()
    }
}

/// Opens a closed file for reading; one that its writer could not close is closed properly first.
pub(super) fn open_database(disk: &dyn Disk, name: &str) -> Result<ReadOnlyDatabase, StorageFault> {
    let read_only = || -> Result<_, StorageFault> {
        let storage = disk.open(name, OpenMode::ReadOnly)?;
        Ok(Builder::new().set_cache_size(CACHE_BYTES).open_read_only_with_backend(storage))
    };
    match read_only()? {
        Err(redb::DatabaseError::RepairAborted) => {
            let storage = disk.open(name, OpenMode::ReadWrite)?;
            Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(storage)?.close()?;
            Ok(read_only()??)
        }
        other => Ok(other?),
    }
}

impl SealedSegment {
    /// Reads what a sealed file says of itself, and its membership filter.
    pub fn open(disk: &Arc<dyn Disk>, number: u64, open_files: &Arc<OpenFiles>) -> Result<Self, StorageFault> {
        let database = open_database(disk.as_ref(), &file_name(number))?;
        let transaction = database.begin_read()?;
        let table = transaction.open_table(META)?;
        let missing = || StorageFault::MissingMeta { segment: number };
        let about: SegmentMeta = records::decode(table.get("about")?.ok_or_else(missing)?.value())?;
        if about.format > records::STORE_FORMAT {
            return Err(StorageFault::NewerFormat { found: about.format, known: records::STORE_FORMAT });
        }
        let summary = about.summary.filter(|_| about.number == number).ok_or_else(missing)?;
        let filter = table.get("filter")?.and_then(|bytes| Bloom::from_bytes(bytes.value())).ok_or_else(missing)?;
        Ok(Self {
            number,
            follows: EventId(about.follows_id),
            disk: Arc::clone(disk),
            summary,
            filter,
            file: Mutex::new(Weak::new()),
            given_up: OnceLock::new(),
            open_files: Arc::clone(open_files),
        })
    }

    fn file(&self) -> Result<Arc<OpenFile>, StorageFault> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = file.upgrade() {
            return Ok(open);
        }
        let database = open_database(self.disk.as_ref(), &file_name(self.number))?;
        let open = Arc::new(OpenFile::new(database)?);
        *file = Arc::downgrade(&open);
        self.open_files.keep(&open);
        Ok(open)
    }

    /// Gets the segment ready to lose its name: it stays open for those who read it now, and is closed after the last of
    /// them, so that its blocks are free then.
    pub fn give_up(&self) -> Result<(), StorageFault> {
        let file = self.file()?;
        self.open_files.forget(&file);
        // A second time changes nothing.
        let _set = self.given_up.set(file);
        Ok(())
    }

    /// All companies that have events here.
    pub fn companies(&self) -> Result<Vec<CompanyId>, StorageFault> {
        let file = self.file()?;
        let tables = file.transaction.list_tables()?;
        Ok(tables.filter_map(|table| redb::TableHandle::name(&table).strip_prefix("events/")?.parse().ok().map(CompanyId)).collect())
    }

    /// The newest event of a company here.
    pub fn last_of(&self, company: CompanyId) -> Result<Option<Position>, StorageFault> {
        let file = self.file()?;
        let reads = file.company(company)?;
        let Some(events) = &reads.events else { return Ok(None) };
        let Some((key, _)) = events.last()? else { return Ok(None) };
        let Some(chunk) = self.chunk(company, key.value())? else { return Ok(None) };
        Ok(chunk.record(chunk.count().saturating_sub(1)).map(|record| Position { created: record.created, id: record.id }))
    }

    /// Every dedupe row as it lies in the file; none in the place of a damaged one.
    pub fn dedupe_rows(&self) -> Result<Vec<(DedupeHash, Option<DedupeEntry>)>, StorageFault> {
        let file = self.file()?;
        let Some(table) = &file.dedupe else { return Ok(Vec::new()) };
        let rows = table.iter()?.map(|row| row.map(|(hash, value)| (hash.value(), read_dedupe_row(hash.value(), value.value()))));
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The hash over the dedupe rows and the names as they lie in the file.
    pub fn index_hash(&self) -> Result<u64, StorageFault> {
        let mut found = IndexHash::default();
        for (hash, entry) in self.dedupe_rows()? {
            if let Some(entry) = entry {
                found.take_dedupe(hash, &entry);
            }
        }
        for (kind, name) in self.file()?.names.iter() {
            found.take_name(kind, name);
        }
        Ok(found.finish())
    }

    /// Whether the membership filter knows a hash.
    pub fn filter_knows(&self, hash: DedupeHash) -> bool {
        self.filter.may_contain(hash)
    }

    /// A company's rows of `ids` as they lie in the file.
    pub fn id_rows(&self, company: CompanyId) -> Result<Vec<(u64, u64)>, StorageFault> {
        let file = self.file()?;
        let reads = file.company(company)?;
        let Some(table) = &reads.ids else { return Ok(Vec::new()) };
        Ok(table.iter()?.map(|row| row.map(|(id, created)| (id.value(), created.value()))).collect::<Result<_, _>>()?)
    }

    /// A company's rows of `types` as they lie in the file.
    pub fn type_rows(&self, company: CompanyId) -> Result<Vec<(TypeKey, u32)>, StorageFault> {
        let file = self.file()?;
        let reads = file.company(company)?;
        let Some(table) = &reads.types else { return Ok(Vec::new()) };
        Ok(table.iter()?.map(|row| row.map(|(key, count)| (key.value(), count.value()))).collect::<Result<_, _>>()?)
    }
}

/// Whether a position is that of an event, not a mere time before or behind all events of it.
fn is_of_an_event(position: Position) -> bool {
    position.id.0 > 0 && position.id.0 < u64::MAX
}

impl SegmentReads for SealedSegment {
    fn number(&self) -> u64 {
        self.number
    }

    fn chunk(&self, company: CompanyId, key: ChunkKey) -> Result<Option<Chunk>, StorageFault> {
        let file = self.file()?;
        let reads = file.company(company)?;
        let Some(events) = &reads.events else { return Ok(None) };
        let Some(row) = events.get_owned(key)? else { return Ok(None) };
        fetch_chunk(&file.transaction, self.number, company, key, Bytes::from_owner(PageOwner(row))).map(Some)
    }

    fn keys_from(&self, company: CompanyId, position: Position, ascending: bool, limit: usize) -> Result<Vec<ChunkKey>, StorageFault> {
        let file = self.file()?;
        let reads = file.company(company)?;
        let (Some(events), Some(ids)) = (&reads.events, &reads.ids) else { return Ok(Vec::new()) };
        let at = (position.created.as_micros(), position.id.0);
        // A step of the walk through `events` reads a whole chunk; through `ids`, whose order is the same, a few bytes. A
        // position that is no event's is found by its time.
        let start = match (ascending, is_of_an_event(position)) {
            (true, true) => ids.range(..=at.1)?.next_back().transpose()?.map_or(0, |row| row.0.value()),
            (true, false) => events.range(..=at)?.next_back().transpose()?.map_or(0, |row| row.0.value().1),
            (false, true) => at.1,
            (false, false) => events.range(at..)?.next().transpose()?.map_or(u64::MAX, |row| row.0.value().1),
        };
        let key = |row: Result<(AccessGuard<'_, u64>, AccessGuard<'_, u64>), redb::StorageError>| {
            row.map(|(id, created)| (created.value(), id.value()))
        };
        let keys: Result<Vec<ChunkKey>, _> = if ascending {
            ids.range(start..)?.take(limit).map(key).collect()
        } else {
            ids.range(..start)?.rev().take(limit).map(key).collect()
        };
        Ok(keys?)
    }

    fn typed_keys_from(
        &self,
        company: CompanyId,
        kinds: &[u32],
        position: Position,
        ascending: bool,
        limit: usize,
    ) -> Result<Vec<ChunkKey>, StorageFault> {
        let file = self.file()?;
        let reads = file.company(company)?;
        let Some(types) = &reads.types else { return Ok(Vec::new()) };
        let (created, id) = (position.created.as_micros(), position.id.0);
        // Ascending: what lies above the position is in the one chunk that may hold the position itself, or in later ones.
        let first = match &reads.events {
            Some(events) if ascending && !is_of_an_event(position) => {
                events.range(..=(created, id))?.next_back().transpose()?.map(|row| row.0.value())
            }
            Some(_) if ascending => match &reads.ids {
                Some(ids) => ids.range(..=id)?.next_back().transpose()?.map(|(id, created)| (created.value(), id.value())),
                None => None,
            },
            _ => None,
        };
        let (first_created, first_id) = first.unwrap_or_default();
        let mut keys = Vec::new();
        for kind in kinds.iter().copied() {
            let mut of_kind = |key: (u32, u64, u64)| keys.push((key.1, key.2));
            if ascending {
                for row in types.range((kind, first_created, first_id)..=(kind, u64::MAX, u64::MAX))?.take(limit) {
                    of_kind(row?.0.value());
                }
            } else {
                for row in types.range((kind, 0, 0)..(kind, created, id))?.rev().take(limit) {
                    of_kind(row?.0.value());
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

    fn key_of_id(&self, company: CompanyId, id: EventId) -> Result<Option<ChunkKey>, StorageFault> {
        let file = self.file()?;
        let reads = file.company(company)?;
        let Some(ids) = &reads.ids else { return Ok(None) };
        let Some(row) = ids.range(..=id.0)?.next_back() else { return Ok(None) };
        let (first_id, first_created) = row?;
        Ok(Some((first_created.value(), first_id.value())))
    }

    fn kinds_matching(&self, matches: &dyn Fn(&str, &str) -> bool) -> Result<Vec<u32>, StorageFault> {
        Ok(self.file()?.names.matching(matches))
    }

    fn kinds(&self) -> Result<Vec<(String, String)>, StorageFault> {
        Ok(self.file()?.names.all().to_vec())
    }

    fn kind_name(&self, kind: u32) -> Result<Option<KindName>, StorageFault> {
        Ok(self.file()?.names.shared(kind))
    }

    fn counts(&self, company: CompanyId, kinds: &[u32], after: Position, until: Position) -> Result<Vec<(ChunkKey, u64)>, StorageFault> {
        let file = self.file()?;
        let reads = file.company(company)?;
        let (Some(types), Some(events)) = (&reads.types, &reads.events) else { return Ok(Vec::new()) };
        let at = |position: Position| (position.created.as_micros(), position.id.0);
        let first = events.range(..=at(after))?.next_back().transpose()?.map_or((0, 0), |row| row.0.value());
        let until = at(until);
        let mut counts: BTreeMap<ChunkKey, u64> = BTreeMap::new();
        for kind in kinds.iter().copied() {
            for row in types.range((kind, first.0, first.1)..=(kind, until.0, until.1))? {
                let (key, count) = row?;
                let (_, created, id) = key.value();
                *counts.entry((created, id)).or_default() += u64::from(count.value());
            }
        }
        Ok(counts.into_iter().collect())
    }

    fn newest_of_kinds(&self) -> Result<NewestOfKinds, StorageFault> {
        let file = self.file()?;
        let mut newest = NewestOfKinds { chunks: Vec::new(), last: self.span().map_or(Position::START, |(_, last)| last) };
        for company in self.companies()? {
            let Some(types) = &file.company(company)?.types else { continue };
            // From kind to kind, whatever the number of chunks between them.
            let mut next = Some(0);
            while let Some(from) = next {
                let Some(row) = types.range((from, 0, 0)..)?.next() else { break };
                let kind = row?.0.value().0;
                if let Some(row) = types.range((kind, 0, 0)..=(kind, u64::MAX, u64::MAX))?.next_back() {
                    let (_, created, id) = row?.0.value();
                    newest.chunks.push((company, kind, (created, id)));
                }
                next = kind.checked_add(1);
            }
        }
        Ok(newest)
    }

    fn snapshot(&self, company: CompanyId, id: EventId, reference: u32) -> Result<Option<Snapshot>, StorageFault> {
        let file = self.file()?;
        let Some(table) = existing(file.transaction.open_table(SNAPSHOTS))? else { return Ok(None) };
        snapshots::read(&table, self.number, company, id, reference)
    }

    fn snapshot_keys(&self) -> Result<Vec<(EventId, u32)>, StorageFault> {
        let file = self.file()?;
        let Some(table) = existing(file.transaction.open_table(SNAPSHOTS))? else { return Ok(Vec::new()) };
        snapshots::keys(&table)
    }

    fn dedupe(&self, hash: DedupeHash) -> Result<Option<DedupeEntry>, StorageFault> {
        if !self.filter.may_contain(hash) {
            return Ok(None);
        }
        let file = self.file()?;
        let Some(table) = &file.dedupe else { return Ok(None) };
        let Some(row) = table.get(hash)? else { return Ok(None) };
        let damaged = || StorageFault::Record(format!("segment {}, a dedupe key of event {}", self.number, row.value().0));
        read_dedupe_row(hash, row.value()).ok_or_else(damaged).map(Some)
    }

    fn span(&self) -> Option<(Position, Position)> {
        let at = |created, id| Position { created: Timestamp::from_micros(created), id: EventId(id) };
        let summary = &self.summary;
        Some((at(summary.first_created_us, summary.first_id), at(summary.last_created_us, summary.last_id)))
    }
}
