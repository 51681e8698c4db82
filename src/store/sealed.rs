//! A sealed segment: dense chunks and sorted indexes in a file that never changes again.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};

use bytes::Bytes;
use redb::{Builder, OwnedAccessGuard, ReadOnlyDatabase, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable};

use super::bloom::Bloom;
use super::chunk::{Chunk, ChunkError};
use super::disk::{Disk, FileStorage, OpenMode};
use super::layout;
use super::live::existing;
use super::prepared::{DedupeEntry, DedupeHash};
use super::records::{self, SegmentMeta, SegmentSummary};
use super::seal::{IndexHash, read_dedupe_row};
use super::sealed_tables::{CompanyReads, Content};
use super::segment::{Fetched, KindName, KindNames, Listed, NewestOfKinds, Place, SegmentReads, check_chunk, fetch_chunk};
use super::snapshots::{self, Snapshot};
use super::tables::{CHUNKS_OF, ChunkKey, ContentRow, DEDUPE, DedupeRow, EVENTS_OF, KindRow, META, NAMES, SNAPSHOTS, TypeKey};
use super::{CorruptChunk, StorageFault};
use crate::domain::company::CompanyId;
use crate::domain::cursor::Position;
use crate::domain::event::EventId;
use crate::domain::time::Timestamp;

/// redb's cache of one sealed file: room for the branch pages of its indexes; everything else comes from the operating
/// system's cache. There may be as many of them as open files.
const CACHE_BYTES: usize = 256 * 1024;

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
    /// The whole file, of which the database is a part.
    storage: FileStorage,
    /// Where the chunks end that lie before the database; 0 when they lie in it.
    chunks_end: u64,
    companies: RwLock<HashMap<CompanyId, Arc<CompanyReads>>>,
    dedupe: Option<ReadOnlyTable<u128, DedupeRow>>,
    transaction: ReadTransaction,
    /// Keeps the file open.
    _database: ReadOnlyDatabase,
    names: KindNames,
}

impl OpenFile {
    fn new(database: ReadOnlyDatabase, storage: FileStorage, chunks_end: u64) -> Result<Self, StorageFault> {
        let transaction = database.begin_read()?;
        let names = match existing(transaction.open_table(NAMES))? {
            Some(table) => KindNames::read(&table)?,
            None => KindNames::default(),
        };
        let dedupe = existing(transaction.open_table(DEDUPE))?;
        Ok(Self { storage, chunks_end, companies: RwLock::default(), dedupe, transaction, _database: database, names })
    }

    fn company(&self, company: CompanyId) -> Result<Arc<CompanyReads>, StorageFault> {
        if let Some(reads) = self.companies.read().unwrap_or_else(PoisonError::into_inner).get(&company) {
            return Ok(Arc::clone(reads));
        }
        let reads = Arc::new(CompanyReads::open(&self.transaction, company)?);
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

/// Opens a closed database for reading; one that its writer could not close is closed properly first.
fn open_closed(open: impl Fn(OpenMode) -> std::io::Result<FileStorage>) -> Result<ReadOnlyDatabase, StorageFault> {
    let read_only = || -> Result<_, StorageFault> {
        Ok(Builder::new().set_cache_size(CACHE_BYTES).open_read_only_with_backend(open(OpenMode::ReadOnly)?))
    };
    match read_only()? {
        Err(redb::DatabaseError::RepairAborted) => {
            Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(open(OpenMode::ReadWrite)?)?.close()?;
            Ok(read_only()??)
        }
        other => Ok(other?),
    }
}

/// Opens a file that is a database and nothing else, and is closed.
pub(super) fn open_database(disk: &dyn Disk, name: &str) -> Result<ReadOnlyDatabase, StorageFault> {
    open_closed(|mode| disk.open(name, mode))
}

/// Opens a sealed file; its database, the file itself, and where the chunks end.
fn open_sealed(disk: &dyn Disk, number: u64) -> Result<(ReadOnlyDatabase, FileStorage, u64), StorageFault> {
    let name = file_name(number);
    let database = open_closed(|mode| layout::sealed_database(disk.open(&name, mode)?))?;
    let storage = disk.open(&name, OpenMode::ReadOnly)?;
    let chunks_end = layout::database_offset(&storage)?;
    Ok((database, storage, chunks_end))
}

impl SealedSegment {
    /// Reads what a sealed file says of itself, and its membership filter.
    pub fn open(disk: &Arc<dyn Disk>, number: u64, open_files: &Arc<OpenFiles>) -> Result<Self, StorageFault> {
        let name = file_name(number);
        let database = open_closed(|mode| layout::sealed_database(disk.open(&name, mode)?))?;
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
        let (database, storage, chunks_end) = open_sealed(self.disk.as_ref(), self.number)?;
        let open = Arc::new(OpenFile::new(database, storage, chunks_end)?);
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
        let company = |name: &str| name.strip_prefix(EVENTS_OF).or_else(|| name.strip_prefix(CHUNKS_OF))?.parse().ok().map(CompanyId);
        Ok(tables.filter_map(|table| company(redb::TableHandle::name(&table))).collect())
    }

    /// The newest event of a company here.
    pub fn last_of(&self, company: CompanyId) -> Result<Option<Position>, StorageFault> {
        let file = self.file()?;
        let reads = file.company(company)?;
        let Some(key) = reads.last_key()? else { return Ok(None) };
        let Some(chunk) = self.chunk(company, key)? else { return Ok(None) };
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
        reads.id_rows()
    }

    /// Whether a company's index of kinds is this one, as far as the file's format has it.
    pub fn are_kinds(&self, company: CompanyId, kinds: &BTreeMap<TypeKey, KindRow>) -> Result<bool, StorageFault> {
        self.file()?.company(company)?.are_kinds(kinds)
    }

    /// What a company's index says of each chunk: bytes, events, events that are not the daemon's own; none in a file that
    /// does not have it.
    pub fn contents(&self, company: CompanyId) -> Result<Option<Vec<ContentRow>>, StorageFault> {
        self.file()?.company(company)?.contents()
    }

    /// Reads chunks that lie side by side, at once; none where they do not, or where nobody knows where they lie.
    fn read_run(&self, company: CompanyId, listed: &[Listed]) -> Result<Option<Vec<Fetched>>, StorageFault> {
        let places = || listed.iter().filter_map(|listed| listed.place);
        let length: u64 = places().map(|place| u64::from(place.length)).sum();
        let start = places().map(|place| place.offset).min().unwrap_or_default();
        let end = places().map(|place| place.offset.saturating_add(u64::from(place.length))).max().unwrap_or_default();
        let file = self.file()?;
        if places().count() != listed.len() || start.checked_add(length) != Some(end) || end > file.chunks_end {
            return Ok(None);
        }
        let whole = Bytes::from(file.storage.read_bytes(start, usize::try_from(length).unwrap_or(usize::MAX))?);
        let mut chunks = Vec::with_capacity(listed.len());
        for (listed, place) in listed.iter().zip(places()) {
            let from = usize::try_from(place.offset - start).unwrap_or(usize::MAX);
            let bytes = whole.slice(from..from + place.length as usize);
            chunks.push(check_chunk(self.number, company, listed.key, bytes).map(Some));
        }
        Ok(Some(chunks))
    }

    fn read_at(&self, file: &OpenFile, company: CompanyId, key: ChunkKey, place: Place) -> Result<Chunk, StorageFault> {
        let end = place.offset.checked_add(u64::from(place.length)).filter(|end| *end <= file.chunks_end);
        let misplaced = StorageFault::Corrupt(CorruptChunk { segment: self.number, first_id: key.1, reason: ChunkError::Misplaced });
        end.ok_or(misplaced)?;
        let bytes = file.storage.read_bytes(place.offset, place.length as usize)?;
        check_chunk(self.number, company, key, Bytes::from(bytes))
    }
}

/// Whether a position is that of an event, not a mere time before or behind all events of it.
pub(super) fn is_of_an_event(position: Position) -> bool {
    position.id.0 > 0 && position.id.0 < u64::MAX
}

impl SegmentReads for SealedSegment {
    fn number(&self) -> u64 {
        self.number
    }

    fn chunk(&self, company: CompanyId, key: ChunkKey) -> Result<Option<Chunk>, StorageFault> {
        let file = self.file()?;
        let reads = file.company(company)?;
        match reads.content(key)? {
            None => Ok(None),
            Some(Content::Place(place)) => self.read_at(&file, company, key, place).map(Some),
            Some(Content::Row(row)) => {
                fetch_chunk(&file.transaction, self.number, company, key, Bytes::from_owner(PageOwner(row))).map(Some)
            }
        }
    }

    fn run(&self, company: CompanyId, listed: &[Listed]) -> Vec<Fetched> {
        match self.read_run(company, listed) {
            Ok(Some(chunks)) => chunks,
            Ok(None) => listed.iter().map(|listed| self.chunk(company, listed.key)).collect(),
            Err(fault) => vec![Err(fault)],
        }
    }

    fn keys_from(&self, company: CompanyId, position: Position, ascending: bool, limit: usize) -> Result<Vec<Listed>, StorageFault> {
        self.file()?.company(company)?.keys_from(position, ascending, limit)
    }

    fn typed_keys_from(
        &self,
        company: CompanyId,
        kinds: &[u32],
        position: Position,
        ascending: bool,
        limit: usize,
    ) -> Result<Vec<ChunkKey>, StorageFault> {
        self.file()?.company(company)?.typed_keys_from(kinds, position, ascending, limit)
    }

    fn key_of_id(&self, company: CompanyId, id: EventId) -> Result<Option<ChunkKey>, StorageFault> {
        self.file()?.company(company)?.key_of_id(id)
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
        self.file()?.company(company)?.counts(kinds, after, until)
    }

    fn newest_of_kinds(&self) -> Result<NewestOfKinds, StorageFault> {
        let file = self.file()?;
        let mut newest = NewestOfKinds { chunks: Vec::new(), last: self.span().map_or(Position::START, |(_, last)| last) };
        for company in self.companies()? {
            let of_company = file.company(company)?.newest_of_kinds()?;
            newest.chunks.extend(of_company.into_iter().map(|(kind, key)| (company, kind, key)));
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
