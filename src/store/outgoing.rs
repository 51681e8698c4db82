//! What the delivery engine reads from the log.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::chunk::{Chunk, Record};
use super::page::{Collects, PageQuery, Start, position_of};
use super::prepared::BorrowedExtra;
use super::recent::KindsAbove;
use super::records;
use super::segment::{KindName, Segment, SegmentReads};
use super::tables::{ChunkKey, chunk_key};
use super::{Inner, ReadError, StorageFault, Store};
use crate::domain::company::CompanyId;
use crate::domain::cursor::{Direction, Position};
use crate::domain::event::EventId;
use crate::domain::filter::{OWN_PREFIX, TypeFilter};
use crate::domain::notification::NotificationKey;
use crate::domain::ordering::OrderKey;
use crate::domain::subscription::{Ordering, Subscription};
use crate::domain::text;
use crate::domain::time::Timestamp;

/// A batch ends when it has so many bytes of envelopes, however few events they are.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// An event as the log holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEvent {
    /// Its number.
    pub id: EventId,
    /// Whose it is.
    pub company: CompanyId,
    /// The time of its commit.
    pub created: Timestamp,
    /// Its type as published.
    pub kind: Arc<str>,
    /// The version of its payload.
    pub version: Arc<str>,
    /// Whether it is one of the daemon's own.
    pub is_own: bool,
    /// Its JSON text; shares the memory of its chunk.
    pub envelope: Bytes,
    /// Where in the envelope the escaped payload starts, behind its quote.
    pub payload_start: usize,
    /// How many bytes the escaped payload has.
    pub payload_length: usize,
    /// When it happened, if its publisher has said so.
    pub occurred: Option<Timestamp>,
    /// The JSON text of its references, without the bodies of snapshots; empty when it has none. Shares the memory of its
    /// chunk.
    pub references: Bytes,
}

impl LogEvent {
    /// Where it lies in the log.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { created: self.created, id: self.id }
    }

    /// The payload as it stands in the envelope, escaped.
    #[must_use]
    pub fn escaped_payload(&self) -> &[u8] {
        self.envelope.get(self.payload_start..self.payload_start.saturating_add(self.payload_length)).unwrap_or_default()
    }

    /// The order that it belongs to, if the subscription wants its events in order by key.
    #[must_use]
    pub fn order_key(&self, subscription: &Subscription) -> Option<OrderKey> {
        let wishes = &subscription.wishes;
        let pointer = wishes.ordering_key.as_ref().filter(|_| wishes.ordering == Ordering::Key)?;
        let payload = text::unescape(std::str::from_utf8(self.escaped_payload()).ok()?)?;
        OrderKey::of(pointer, &payload)
    }
}

/// Events in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogBatch {
    /// The events, ascending.
    pub events: Vec<LogEvent>,
    /// Every matching event up to here is in the batch or lay at or below the start.
    pub reached: Position,
    /// Whether more may lie above `reached`.
    pub is_behind: bool,
}

/// A type of a company's events: the company, the type in lower case, the version.
pub type CompanyKind = (CompanyId, Arc<str>, Arc<str>);

/// Which types have events in a stretch of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KindsAfter {
    /// Each once.
    pub kinds: Vec<CompanyKind>,
    /// Where the stretch ends; the position asked about when nothing lies above it.
    pub reached: Position,
}

/// How many events of a stretch match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    /// How many.
    pub count: u64,
    /// The first one.
    pub first: Option<Position>,
    /// The last one.
    pub last: Option<Position>,
}

/// Events in the making of a batch.
pub(super) struct Gatherer {
    company: CompanyId,
    ascending: bool,
    limit: usize,
    cutoff: Timestamp,
    /// Descending: what lies here or lower is not wanted.
    floor: Position,
    pub events: Vec<LogEvent>,
    bytes: usize,
    bytes_max: usize,
    position: Position,
    /// Another matching event was seen that did not fit.
    pub more: bool,
    /// Names of kinds by segment and number, once they were asked for.
    names: HashMap<(u64, u32), KindName>,
}

impl Gatherer {
    pub fn new(query: &PageQuery<'_>, position: Position, cutoff: Timestamp) -> Self {
        Self {
            company: query.company,
            ascending: query.direction == Direction::Ascending,
            limit: query.limit,
            cutoff,
            floor: Position::START,
            events: Vec::new(),
            bytes: 0,
            bytes_max: BATCH_BYTES_MAX,
            position,
            more: false,
            names: HashMap::new(),
        }
    }

    /// The same, but no more once it has so many bytes of envelopes.
    pub fn within(self, bytes_max: usize) -> Self {
        Self { bytes_max, ..self }
    }

    /// What was gathered upwards, when `tail` was the log's before the walk.
    pub fn into_batch(self, tail: Position) -> LogBatch {
        // Up to the tail that was there before the walk nothing else matches.
        let reached = if self.more { self.position } else { self.position.max(tail) };
        LogBatch { events: self.events, reached, is_behind: self.more }
    }

    /// The same, but nothing at or below `floor`.
    pub fn down_to(self, floor: Position) -> Self {
        Self { floor, ..self }
    }

    /// Takes the event at `place` if it may; true when there is no more to take.
    fn take_at(&mut self, segment: &dyn SegmentReads, chunk: &Chunk, place: usize, kinds: Option<&[u32]>) -> Result<bool, StorageFault> {
        let Some(record) = chunk.record(place) else { return Ok(false) };
        let position = position_of(&record);
        let is_behind = if self.ascending { position <= self.position } else { position >= self.position };
        if is_behind || kinds.is_some_and(|kinds| !kinds.contains(&record.kind)) {
            return Ok(false);
        }
        if record.created < self.cutoff || position <= self.floor {
            return Ok(!self.ascending);
        }
        if self.events.len() >= self.limit || self.bytes >= self.bytes_max {
            self.more = true;
            return Ok(true);
        }
        let key = (segment.number(), record.kind);
        let name = match self.names.get(&key) {
            Some(name) => name.clone(),
            None => {
                let name = name_of(segment, record.kind)?;
                self.names.insert(key, name.clone());
                name
            }
        };
        let event = log_event(self.company, chunk, place, &record, name)?;
        self.bytes += event.envelope.len() + event.references.len();
        self.events.push(event);
        self.position = position;
        Ok(false)
    }
}

impl Collects for Gatherer {
    fn position(&self) -> Position {
        self.position
    }

    fn is_ascending(&self) -> bool {
        self.ascending
    }

    fn cutoff(&self) -> Timestamp {
        self.cutoff
    }

    fn room(&self) -> usize {
        if self.bytes >= BATCH_BYTES_MAX { 0 } else { self.limit.saturating_sub(self.events.len()) }
    }

    fn knows_of(&mut self, first: Position) -> bool {
        let is_beyond = !self.ascending || first > self.position;
        self.more = self.room() == 0 && is_beyond && first.created >= self.cutoff && first > self.floor;
        self.more
    }

    fn take(&mut self, segment: &dyn SegmentReads, chunk: &Chunk, kinds: Option<&[u32]>) -> Result<bool, StorageFault> {
        if self.ascending {
            for place in chunk.first_above(self.position)..chunk.count() {
                if self.take_at(segment, chunk, place, kinds)? {
                    return Ok(true);
                }
            }
        } else {
            for place in (0..chunk.count()).rev() {
                if self.take_at(segment, chunk, place, kinds)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

fn name_of(segment: &dyn SegmentReads, kind: u32) -> Result<KindName, StorageFault> {
    let number = segment.number();
    segment.kind_name(kind)?.ok_or_else(|| StorageFault::Record(format!("segment {number}, the name of type number {kind}")))
}

fn log_event(company: CompanyId, chunk: &Chunk, place: usize, record: &Record, name: KindName) -> Result<LogEvent, StorageFault> {
    let damaged = || StorageFault::Record("an event lies outside its chunk".to_owned());
    let (payload_start, payload_length) = chunk.payload_place(place).ok_or_else(damaged)?;
    let (occurred, references) = extra_of(chunk, place, record)?;
    Ok(LogEvent {
        id: record.id,
        company,
        created: record.created,
        is_own: name.folded.starts_with(OWN_PREFIX),
        kind: name.published,
        version: name.version,
        envelope: chunk.envelopes(place, place).ok_or_else(damaged)?,
        payload_start,
        payload_length,
        occurred,
        references,
    })
}

/// When an event happened, and the text of its references where it lies in the chunk.
pub(super) fn extra_of(chunk: &Chunk, place: usize, record: &Record) -> Result<(Option<Timestamp>, Bytes), StorageFault> {
    if !record.has_extra() {
        return Ok((None, Bytes::new()));
    }
    let extra = chunk.extra(place).ok_or_else(|| StorageFault::Record("an event lies outside its chunk".to_owned()))?;
    let BorrowedExtra { references, occurred_us } = records::decode(&extra)?;
    let references = references.map_or_else(Bytes::new, |text| extra.slice_ref(text.as_bytes()));
    Ok((occurred_us.map(Timestamp::from_micros), references))
}

impl Counted {
    fn of(chunk: &Chunk, kinds: &[u32], after: Position, until: Position) -> Self {
        let mut counted = Self::default();
        for record in chunk.records().filter(|record| kinds.contains(&record.kind)) {
            let position = position_of(&record);
            if position > after && position <= until {
                counted.count += 1;
                counted.first.get_or_insert(position);
                counted.last = Some(position);
            }
        }
        counted
    }

    /// Adds what lies above.
    fn add(&mut self, above: Self) {
        self.count += above.count;
        self.first = self.first.or(above.first);
        self.last = above.last.or(self.last);
    }
}

impl Inner {
    fn read_after(&self, company: CompanyId, position: Position, filter: &TypeFilter, limit: usize) -> Result<LogBatch, StorageFault> {
        let tail = *self.tail.borrow();
        let query = PageQuery { company, start: Start::After(position), direction: Direction::Ascending, limit, filter };
        let mut batch = Gatherer::new(&query, position, self.cutoff());
        self.walk_up(&self.segments.load_full(), &query, &mut batch)?;
        Ok(batch.into_batch(tail))
    }

    /// An event that is in the log, expired or not.
    pub(super) fn any_event(&self, company: CompanyId, id: EventId) -> Result<Option<LogEvent>, StorageFault> {
        let Some((segment, chunk, place)) = self.locate(company, id)? else { return Ok(None) };
        let Some(record) = chunk.record(place) else { return Ok(None) };
        log_event(company, &chunk, place, &record, name_of(segment.reads(), record.kind)?).map(Some)
    }

    fn kinds_after(&self, position: Position) -> Result<KindsAfter, StorageFault> {
        let recent = self.recent().kinds_above(position);
        if let Some(KindsAbove { segment, kinds, reached }) = recent {
            return Ok(KindsAfter { kinds: name_kinds(segment.as_ref(), kinds)?, reached });
        }
        let list = self.segments.load_full();
        for segment in list.segments.iter().map(Segment::reads) {
            if segment.span().is_none_or(|(_, last)| last <= position) {
                continue;
            }
            let newest = segment.newest_of_kinds()?;
            let mut kinds = BTreeSet::new();
            // The one chunk of a company that lies on both sides of the position.
            let mut across: Option<(CompanyId, ChunkKey, Chunk)> = None;
            for (company, kind, key) in newest.chunks {
                if key > chunk_key(position.created, position.id) {
                    kinds.insert((company, kind));
                    continue;
                }
                if across.as_ref().is_none_or(|(of, at, _)| (*of, *at) != (company, key)) {
                    across = self.fetch(segment, company, key)?.map(|chunk| (company, key, chunk));
                }
                let Some((_, _, chunk)) = &across else { continue };
                if chunk.records().rev().take_while(|record| position_of(record) > position).any(|record| record.kind == kind) {
                    kinds.insert((company, kind));
                }
            }
            return Ok(KindsAfter { kinds: name_kinds(segment, kinds)?, reached: newest.last });
        }
        Ok(KindsAfter { kinds: Vec::new(), reached: position })
    }

    fn count_matching(&self, company: CompanyId, after: Position, until: Position, filter: &TypeFilter) -> Result<Counted, StorageFault> {
        let mut counted = Counted::default();
        if until <= after {
            return Ok(counted);
        }
        let list = self.segments.load_full();
        for segment in list.segments.iter().map(Segment::reads) {
            if segment.span().is_none_or(|(first, last)| last <= after || first > until) {
                continue;
            }
            let kinds = segment.kinds_matching(&|folded, version| filter.matches(folded, version))?;
            if kinds.is_empty() {
                continue;
            }
            let mut chunks = VecDeque::from(segment.counts(company, &kinds, after, until)?);
            let exactly = |key| -> Result<Counted, StorageFault> {
                let chunk = self.fetch(segment, company, key)?;
                Ok(chunk.map_or_else(Counted::default, |chunk| Counted::of(&chunk, &kinds, after, until)))
            };
            // What lies between two chunks that hold a match lies wholly inside.
            let mut below = Counted::default();
            while below.count == 0
                && let Some((key, _)) = chunks.pop_front()
            {
                below = exactly(key)?;
            }
            let mut above = Counted::default();
            while above.count == 0
                && let Some((key, _)) = chunks.pop_back()
            {
                above = exactly(key)?;
            }
            counted.add(below);
            counted.count += chunks.iter().map(|(_, count)| count).sum::<u64>();
            counted.add(above);
        }
        Ok(counted)
    }
}

fn name_kinds(segment: &dyn SegmentReads, kinds: BTreeSet<(CompanyId, u32)>) -> Result<Vec<CompanyKind>, StorageFault> {
    let mut named = Vec::with_capacity(kinds.len());
    let mut names: HashMap<u32, KindName> = HashMap::new();
    for (company, kind) in kinds {
        let name = match names.get(&kind) {
            Some(name) => name.clone(),
            None => {
                let name = name_of(segment, kind)?;
                names.insert(kind, name.clone());
                name
            }
        };
        named.push((company, name.folded, name.version));
    }
    // Spellings of one type are kinds of their own.
    named.sort_unstable();
    named.dedup();
    Ok(named)
}

impl Store {
    /// The company's matching events above `position`, ascending, at most `limit` and about 4 MiB. What has expired is
    /// passed over.
    ///
    /// # Errors
    /// When the bytes on disk are damaged or cannot be read.
    pub fn read_after(&self, company: CompanyId, position: Position, filter: &TypeFilter, limit: usize) -> Result<LogBatch, ReadError> {
        Ok(self.inner.read_after(company, position, filter, limit)?)
    }

    /// One event; none when it is unknown, expired, or another company's.
    ///
    /// # Errors
    /// As [`Store::read_after`].
    pub fn read_event(&self, company: CompanyId, id: EventId) -> Result<Option<LogEvent>, ReadError> {
        let cutoff = self.inner.cutoff();
        Ok(self.inner.any_event(company, id)?.filter(|event| event.created >= cutoff))
    }

    /// Whether an event is in the log, expired or not, and matches.
    ///
    /// # Errors
    /// As [`Store::read_after`].
    pub fn is_of_types(&self, company: CompanyId, id: EventId, filter: &TypeFilter) -> Result<bool, ReadError> {
        let event = self.inner.any_event(company, id)?;
        Ok(event.is_some_and(|event| filter.matches(&event.kind.to_ascii_lowercase(), &event.version)))
    }

    /// Which companies have events of which types above `position`. The work of one call is bounded: to be asked again
    /// from `reached` until that is the position asked about.
    ///
    /// # Errors
    /// As [`Store::read_after`].
    pub fn kinds_after(&self, position: Position) -> Result<KindsAfter, ReadError> {
        Ok(self.inner.kinds_after(position)?)
    }

    /// How many of the company's events above `after`, up to and with `until`, match; expired ones too while they are
    /// there.
    ///
    /// # Errors
    /// As [`Store::read_after`].
    pub fn count_matching(&self, company: CompanyId, after: Position, until: Position, filter: &TypeFilter) -> Result<Counted, ReadError> {
        Ok(self.inner.count_matching(company, after, until, filter)?)
    }

    /// The key of a company's notification ids; the same for as long as the store lives.
    #[must_use]
    pub fn notification_key(&self, company: CompanyId) -> NotificationKey {
        NotificationKey::derive(&self.inner.secrets.cursor_key, company)
    }

    /// The log's time: the machine's, unless that is not believed. It never goes back.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.inner.now()
    }

    /// Events created before this are expired.
    #[must_use]
    pub fn cutoff(&self) -> Timestamp {
        self.inner.cutoff()
    }
}
