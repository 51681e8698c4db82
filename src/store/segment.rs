//! What can be read from a segment, whatever state it is in.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use redb::{ReadTransaction, ReadableTable};

use super::chunk::{Chunk, ChunkError};
use super::live::{LiveSegment, existing, join_parts};
use super::prepared::{DedupeEntry, DedupeHash};
use super::sealed::SealedSegment;
use super::snapshots::Snapshot;
use super::tables::{ChunkKey, PARTS};
use super::{CorruptChunk, StorageFault};
use crate::domain::company::CompanyId;
use crate::domain::cursor::Position;
use crate::domain::event::EventId;

/// Reads that every segment answers.
pub(super) trait SegmentReads: Debug + Send + Sync {
    fn number(&self) -> u64;

    /// The chunk with this key, checked.
    fn chunk(&self, company: CompanyId, key: ChunkKey) -> Result<Option<Chunk>, StorageFault>;

    /// Keys of at most `limit` chunks. Ascending: from the chunk that may hold the first event above `position` upwards;
    /// descending: from the one that may hold the last event below it downwards.
    fn keys_from(&self, company: CompanyId, position: Position, ascending: bool, limit: usize) -> Result<Vec<ChunkKey>, StorageFault>;

    /// As [`SegmentReads::keys_from`], of chunks that hold one of `kinds`. Ascending, no key lies below the chunk that
    /// may hold `position` itself: a walk from key to key always moves on.
    fn typed_keys_from(
        &self,
        company: CompanyId,
        kinds: &[u32],
        position: Position,
        ascending: bool,
        limit: usize,
    ) -> Result<Vec<ChunkKey>, StorageFault>;

    /// The key of the chunk that holds `id`, if any does.
    fn key_of_id(&self, company: CompanyId, id: EventId) -> Result<Option<ChunkKey>, StorageFault>;

    /// The kinds whose folded type and version pass, ascending.
    fn kinds_matching(&self, matches: &dyn Fn(&str, &str) -> bool) -> Result<Vec<u32>, StorageFault>;

    /// Type in lower case and version of every kind, by number.
    fn kinds(&self) -> Result<Vec<(String, String)>, StorageFault>;

    /// How a kind is called.
    fn kind_name(&self, kind: u32) -> Result<Option<KindName>, StorageFault>;

    /// The company's chunks that hold one of `kinds`, from the one that may hold the first event above `after` to the one
    /// that may hold `until`, ascending, each with the number of all its events of these kinds.
    fn counts(&self, company: CompanyId, kinds: &[u32], after: Position, until: Position) -> Result<Vec<(ChunkKey, u64)>, StorageFault>;

    /// For every company and each of its kinds the newest chunk that holds it; and the newest event at that moment.
    fn newest_of_kinds(&self) -> Result<NewestOfKinds, StorageFault>;

    /// The snapshot of an event's reference, checked.
    fn snapshot(&self, company: CompanyId, id: EventId, reference: u32) -> Result<Option<Snapshot>, StorageFault>;

    /// Of every snapshot its event and its reference, ascending.
    fn snapshot_keys(&self) -> Result<Vec<(EventId, u32)>, StorageFault>;

    /// Where a dedupe key was used last.
    fn dedupe(&self, hash: DedupeHash) -> Result<Option<DedupeEntry>, StorageFault>;

    /// First and last event; none when the segment is empty.
    fn span(&self) -> Option<(Position, Position)>;
}

/// A segment of the list.
#[derive(Debug, Clone)]
pub(super) enum Segment {
    /// Written to, or waiting to be sealed.
    Live(Arc<LiveSegment>),
    /// Rewritten, never to change again.
    Sealed(Arc<SealedSegment>),
}

impl Segment {
    pub fn reads(&self) -> &dyn SegmentReads {
        match self {
            Self::Live(segment) => segment.as_ref(),
            Self::Sealed(segment) => segment.as_ref(),
        }
    }

    /// The newest event of the log when the segment was made.
    pub fn follows(&self) -> EventId {
        match self {
            Self::Live(segment) => segment.follows,
            Self::Sealed(segment) => segment.follows,
        }
    }
}

/// All segments, oldest first; swapped as a whole when one is added, sealed or dropped.
#[derive(Debug, Clone, Default)]
pub(super) struct SegmentList {
    pub segments: Vec<Segment>,
}

impl SegmentList {
    /// Segments with a smaller number are sealed or gone.
    pub fn sealed_below(&self) -> u64 {
        let first_live = self.segments.iter().find(|segment| matches!(segment, Segment::Live(_)));
        first_live.map_or(u64::MAX, |segment| segment.reads().number())
    }

    /// The newest event, or `floor` when it is newer.
    pub fn last(&self, floor: Position) -> Position {
        self.segments.iter().filter_map(|segment| segment.reads().span()).map(|(_, last)| last).fold(floor, Position::max)
    }

    pub fn sealed_count(&self) -> usize {
        self.segments.iter().filter(|segment| matches!(segment, Segment::Sealed(_))).count()
    }

    /// Unsealed segments that are no longer written to.
    pub fn waiting(&self) -> Vec<Arc<LiveSegment>> {
        let mut live: Vec<_> = self
            .segments
            .iter()
            .filter_map(|segment| match segment {
                Segment::Live(live) => Some(Arc::clone(live)),
                Segment::Sealed(_) => None,
            })
            .collect();
        live.pop();
        live
    }
}

/// See [`SegmentReads::newest_of_kinds`].
#[derive(Debug, Default)]
pub(super) struct NewestOfKinds {
    pub chunks: Vec<(CompanyId, u32, ChunkKey)>,
    pub last: Position,
}

/// How a kind is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KindName {
    /// The type as published.
    pub published: Arc<str>,
    /// The type in lower case.
    pub folded: Arc<str>,
    pub version: Arc<str>,
}

/// The names of a segment's kinds: a kind is a type in one spelling, with one version.
#[derive(Debug, Default)]
pub(super) struct KindNames {
    by_name: HashMap<Box<[u8]>, u32>,
    /// Type in lower case and version, by number.
    folded: Vec<(String, String)>,
    /// The same to be shared, by number.
    shared: Vec<Option<KindName>>,
}

impl KindNames {
    /// Reads the names of a segment; kinds are numbered from 0 without gaps.
    pub fn read(table: &impl ReadableTable<u32, &'static [u8]>) -> Result<Self, StorageFault> {
        let mut names = Self::default();
        for row in table.iter()? {
            let (kind, name) = row?;
            if kind.value() != names.next_number() {
                return Err(StorageFault::Record(format!("type number {} where {} follows", kind.value(), names.next_number())));
            }
            names.insert(kind.value(), name.value());
        }
        Ok(names)
    }

    /// Takes a name as it is stored: type, zero byte, version.
    pub fn insert(&mut self, kind: u32, name: &[u8]) {
        let mut halves = name.split(|byte| *byte == 0).map(|half| String::from_utf8_lossy(half).into_owned());
        let published = halves.next().unwrap_or_default();
        let (folded, version) = (published.to_ascii_lowercase(), halves.next().unwrap_or_default());
        let place = kind as usize;
        if self.folded.len() <= place {
            self.folded.resize(place + 1, Default::default());
            self.shared.resize(place + 1, None);
        }
        if let Some(entry) = self.shared.get_mut(place) {
            *entry =
                Some(KindName { published: published.as_str().into(), folded: folded.as_str().into(), version: version.as_str().into() });
        }
        if let Some(entry) = self.folded.get_mut(place) {
            *entry = (folded, version);
        }
        self.by_name.insert(name.into(), kind);
    }

    pub fn number(&self, name: &[u8]) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    pub fn next_number(&self) -> u32 {
        u32::try_from(self.folded.len()).unwrap_or(u32::MAX)
    }

    pub fn iter(&self) -> impl Iterator<Item = (u32, &[u8])> {
        self.by_name.iter().map(|(name, kind)| (*kind, name.as_ref()))
    }

    /// Type in lower case and version of a kind.
    pub fn folded(&self, kind: u32) -> Option<&(String, String)> {
        self.folded.get(kind as usize)
    }

    /// How a kind is called.
    pub fn shared(&self, kind: u32) -> Option<KindName> {
        self.shared.get(kind as usize)?.clone()
    }

    /// Type in lower case and version of every kind, by number.
    pub fn all(&self) -> &[(String, String)] {
        &self.folded
    }

    pub fn matching(&self, matches: &dyn Fn(&str, &str) -> bool) -> Vec<u32> {
        let numbered = self.folded.iter().zip(0_u32..);
        numbered.filter(|((folded, version), _)| matches(folded, version)).map(|(_, kind)| kind).collect()
    }
}

/// The whole chunk whose first row is given, with its further rows read, its checksum and its place checked.
pub(super) fn fetch_chunk(
    transaction: &ReadTransaction,
    segment: u64,
    company: CompanyId,
    key: ChunkKey,
    first_row: Bytes,
) -> Result<Chunk, StorageFault> {
    let corrupt = |reason| StorageFault::Corrupt(CorruptChunk { segment, first_id: key.1, reason });
    let whole = join_parts(first_row, |part| {
        let Some(parts) = existing(transaction.open_table(PARTS))? else { return Ok(None) };
        Ok(parts.get((key.1, part))?.map(|row| row.value().to_vec()))
    })?
    .map_err(corrupt)?;
    let chunk = Chunk::read(whole).map_err(corrupt)?;
    if chunk.belongs_at(company, key) { Ok(chunk) } else { Err(corrupt(ChunkError::Misplaced)) }
}
