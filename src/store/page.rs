//! Reading the log: pages in commit order, and single events.

use std::time::Duration;

use bytes::Bytes;

use super::chunk::{Chunk, Record};
use super::prepared::Extra;
use super::records;
use super::sealed::is_of_an_event;
use super::segment::{Fetched, Listed, Segment, SegmentList, SegmentReads};
use super::tables::ChunkKey;
use super::{Inner, ReadError, StorageFault, Store};
use crate::domain::company::CompanyId;
use crate::domain::cursor::{Direction, Position};
use crate::domain::event::EventId;
use crate::domain::filter::TypeFilter;
use crate::domain::text::unescape;
use crate::domain::time::Timestamp;

/// A page ends when it has so many bytes of envelopes, however few events they are.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Pieces beyond which a page is copied into one; each piece costs the socket an entry.
const PARTS_MAX: usize = 40;

/// Chunks that an index is asked for at once.
const CHUNKS_AHEAD: usize = 16;

/// Bytes of chunks that are read at once, if they are more than one.
const RUN_BYTES_MAX: u32 = 256 * 1024;

/// What a reader asks for.
#[derive(Debug, Clone)]
pub struct PageQuery<'a> {
    /// Whose log.
    pub company: CompanyId,
    /// Where to begin.
    pub start: Start,
    /// Which way.
    pub direction: Direction,
    /// At most so many events.
    pub limit: usize,
    /// Which types.
    pub filter: &'a TypeFilter,
}

/// Where a page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the oldest event kept.
    Oldest,
    /// At the tail: ascending after the newest event, descending with it.
    Latest,
    /// At the first event created at this time or later.
    Time(Timestamp),
    /// Behind the position of a cursor.
    After(Position),
}

/// The answer to a [`PageQuery`].
#[derive(Debug, Clone)]
pub enum PageOutcome {
    /// A page, perhaps empty.
    Page(Page),
    /// An event behind the cursor has been taken by retention.
    Expired {
        /// Where the oldest event kept comes next.
        oldest: Position,
        /// The time that the lost events span, from the cursor on.
        lost: Duration,
    },
}

/// Events in order.
#[derive(Debug, Clone)]
pub struct Page {
    /// Together the envelopes, joined by commas.
    pub parts: Vec<Bytes>,
    /// How many there are.
    pub count: usize,
    /// Where to go on.
    pub position: Position,
    /// Whether another matching event lies there.
    pub more: bool,
    /// The tail that this page saw.
    pub tail: Position,
}

/// One event as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its JSON text.
    pub envelope: Bytes,
    /// The payload, byte for byte as published.
    pub payload: String,
    /// The source text of its references.
    pub references: Option<String>,
    /// When it happened, as the publisher said.
    pub occurred_at: Option<Timestamp>,
}

/// What a walk over the log is for.
pub(super) trait Collects {
    /// The newest event taken (descending: the oldest), at first where the walk starts.
    fn position(&self) -> Position;

    fn is_ascending(&self) -> bool;

    /// Events created before this are invisible.
    fn cutoff(&self) -> Timestamp;

    /// How many more events it may take; 0 when it is full.
    fn room(&self) -> usize;

    /// Told of a chunk further on, not yet read, that starts at `first` and holds an event that matches: true when that is
    /// all that is left to know.
    fn knows_of(&mut self, first: Position) -> bool;

    /// Takes what it may of a chunk; true when it wants no more. `kinds` are those that match, none = all.
    fn take(&mut self, segment: &dyn SegmentReads, chunk: &Chunk, kinds: Option<&[u32]>) -> Result<bool, StorageFault>;
}

/// A page in the making.
struct Collector {
    ascending: bool,
    limit: usize,
    /// Events created before this are invisible.
    cutoff: Timestamp,
    parts: Vec<Bytes>,
    count: usize,
    bytes: usize,
    position: Position,
    more: bool,
}

/// The position of a chunk's first event.
fn start_of(key: ChunkKey) -> Position {
    Position { created: Timestamp::from_micros(key.0), id: EventId(key.1) }
}

/// How many of the listed chunks, at least one, are worth reading at once: those that lie side by side and hold, as far as
/// the index tells, what `page` has room for.
fn run_length(listed: &[Listed], page: &impl Collects) -> usize {
    let mut room = page.room() as u64;
    let (mut length, mut bytes, mut end) = (0, 0_u32, None);
    for (number, one) in listed.iter().enumerate() {
        let Some(place) = one.place else { break };
        let is_beside = match end {
            None => true,
            Some((start, end)) => place.offset == end || place.offset + u64::from(place.length) == start,
        };
        bytes = bytes.saturating_add(place.length);
        if !is_beside || room == 0 || (number > 0 && bytes > RUN_BYTES_MAX) {
            break;
        }
        length += 1;
        end = Some((place.offset, place.offset + u64::from(place.length)));
        // Of the chunk that holds the position only a part is wanted. Ids without gaps tell exactly which; with gaps it is a
        // guess, and a wrong one costs a second read.
        let position = page.position();
        let behind = if page.is_ascending() && start_of(one.key) <= position {
            position.id.0.saturating_sub(one.key.1).saturating_add(1)
        } else if !page.is_ascending() && number == 0 {
            u64::from(place.events).saturating_sub(position.id.0.saturating_sub(one.key.1))
        } else {
            0
        };
        room = room.saturating_sub(u64::from(place.published).saturating_sub(behind));
    }
    length.max(1)
}

pub(super) fn position_of(record: &Record) -> Position {
    Position { created: record.created, id: record.id }
}

impl Collects for Collector {
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
        if self.is_full() { 0 } else { self.limit - self.count }
    }

    fn knows_of(&mut self, first: Position) -> bool {
        let is_beyond = !self.ascending || first > self.position;
        self.more = self.is_full() && is_beyond && first.created >= self.cutoff;
        self.more
    }

    fn take(&mut self, _segment: &dyn SegmentReads, chunk: &Chunk, kinds: Option<&[u32]>) -> Result<bool, StorageFault> {
        if self.ascending { self.take_ascending(chunk, kinds) } else { self.take_descending(chunk, kinds) }
    }
}

impl Collector {
    fn is_full(&self) -> bool {
        self.count >= self.limit || self.bytes >= PAGE_BYTES_MAX
    }

    fn take_ascending(&mut self, chunk: &Chunk, kinds: Option<&[u32]>) -> Result<bool, StorageFault> {
        let mut run: Option<(usize, usize)> = None;
        let mut place = chunk.first_above(self.position);
        while let Some(record) = chunk.record(place) {
            let is_wanted = record.created >= self.cutoff
                && position_of(&record) > self.position
                && kinds.is_none_or(|kinds| kinds.binary_search(&record.kind).is_ok());
            if is_wanted {
                if self.is_full() {
                    self.more = true;
                    break;
                }
                if kinds.is_none() {
                    // Every further event of the chunk is wanted: all that fit are one piece.
                    let last = place.saturating_add(self.limit - self.count).min(chunk.count()) - 1;
                    self.count += last - place;
                    run = Some((place, last));
                    place = last;
                } else {
                    run = match run {
                        Some((first, last)) if last + 1 == place => Some((first, place)),
                        before => {
                            self.push_run(chunk, before)?;
                            Some((place, place))
                        }
                    };
                }
                self.count += 1;
                if let Some(record) = chunk.record(place) {
                    self.position = position_of(&record);
                }
            }
            place += 1;
        }
        self.push_run(chunk, run)?;
        Ok(self.more)
    }

    fn take_descending(&mut self, chunk: &Chunk, kinds: Option<&[u32]>) -> Result<bool, StorageFault> {
        for place in (0..chunk.count()).rev() {
            let Some(record) = chunk.record(place) else { continue };
            if position_of(&record) >= self.position || kinds.is_some_and(|kinds| kinds.binary_search(&record.kind).is_err()) {
                continue;
            }
            if record.created < self.cutoff {
                return Ok(true);
            }
            if self.is_full() {
                self.more = true;
                return Ok(true);
            }
            self.push_run(chunk, Some((place, place)))?;
            self.count += 1;
            self.position = position_of(&record);
        }
        Ok(false)
    }

    fn push_run(&mut self, chunk: &Chunk, run: Option<(usize, usize)>) -> Result<(), StorageFault> {
        let Some((first, last)) = run else { return Ok(()) };
        let piece = chunk.envelopes(first, last).ok_or_else(|| StorageFault::Record("an envelope lies outside its chunk".to_owned()))?;
        if !self.parts.is_empty() {
            self.parts.push(Bytes::from_static(b","));
        }
        self.bytes += piece.len();
        self.parts.push(piece);
        Ok(())
    }

    fn finish(self, tail: Position) -> Page {
        let parts = if self.parts.len() > PARTS_MAX {
            let mut whole = Vec::with_capacity(self.parts.iter().map(Bytes::len).sum());
            for part in &self.parts {
                whole.extend_from_slice(part);
            }
            vec![Bytes::from(whole)]
        } else {
            self.parts
        };
        Page { parts, count: self.count, position: self.position, more: self.more, tail }
    }
}

impl Inner {
    /// Where an ascending reader starts who wants everything kept.
    pub(super) fn oldest(&self, cutoff: Timestamp) -> Position {
        let below = Position { created: Timestamp::from_micros(cutoff.as_micros().saturating_sub(1)), id: EventId(u64::MAX) };
        // An empty stretch must not push the position past a tail that a clock stepping back would continue from.
        below.min(*self.tail.borrow())
    }

    /// The same of one company: above everything of it that retention has taken.
    pub(super) fn oldest_of(&self, company: CompanyId, cutoff: Timestamp) -> Position {
        self.oldest(cutoff).max(self.purged.load().get(&company).copied().unwrap_or(Position::START))
    }

    /// Whether something of the company above `position` is gone; the time up to which it is.
    pub(super) fn lost_above(
        &self,
        list: &SegmentList,
        company: CompanyId,
        position: Position,
        cutoff: Timestamp,
    ) -> Result<Option<Timestamp>, StorageFault> {
        let purged = self.purged.load().get(&company).copied().filter(|purged| *purged > position);
        let purged = purged.map(|purged| purged.created);
        if position.created >= cutoff {
            return Ok(purged);
        }
        // The newest segment that holds an expired event of the company holds its newest expired one.
        let unexpired = Position { created: cutoff, id: EventId(0) };
        for segment in list.segments.iter().rev().map(Segment::reads) {
            let Some((first, last)) = segment.span() else { continue };
            if last <= position {
                break;
            }
            if first.created >= cutoff {
                continue;
            }
            let Some(listed) = segment.keys_from(company, unexpired, false, 1)?.first().copied() else { continue };
            let Some(chunk) = self.fetch(segment, company, listed.key)? else { continue };
            let newest = chunk.records().rev().find(|record| record.created < cutoff);
            return Ok(newest.filter(|newest| position_of(newest) > position).map(|newest| newest.created).max(purged));
        }
        Ok(purged)
    }

    pub(super) fn fetch(&self, segment: &dyn SegmentReads, company: CompanyId, key: ChunkKey) -> Result<Option<Chunk>, StorageFault> {
        self.options.metrics.count_chunk_read();
        segment.chunk(company, key)
    }

    fn fetch_run(&self, segment: &dyn SegmentReads, company: CompanyId, run: &[Listed]) -> Vec<Fetched> {
        run.iter().for_each(|_| self.options.metrics.count_chunk_read());
        segment.run(company, run)
    }

    fn page(&self, query: &PageQuery<'_>) -> Result<PageOutcome, StorageFault> {
        let cutoff = self.cutoff();
        // In this order: the list holds everything up to the tail, and what retention takes from now on stays readable in
        // it, so that nothing can be lost between the check of the cursor and the walk.
        let tail = *self.tail.borrow();
        let list = self.segments.load_full();
        let ascending = query.direction == Direction::Ascending;
        let top = Position { created: Timestamp::from_micros(u64::MAX), id: EventId(u64::MAX) };
        let position = match query.start {
            Start::Oldest if ascending => self.oldest(cutoff),
            Start::Oldest => Position::START,
            Start::Latest if ascending => tail,
            Start::Latest => top,
            Start::Time(time) if ascending => {
                let before = Timestamp::from_micros(time.max(cutoff).as_micros().saturating_sub(1));
                Position { created: before, id: EventId(u64::MAX) }
            }
            Start::Time(time) => Position { created: time.after(Duration::from_micros(1)), id: EventId(0) },
            Start::After(position) => position,
        };
        if ascending
            && matches!(query.start, Start::After(_))
            && let Some(lost_until) = self.lost_above(&list, query.company, position, cutoff)?
        {
            let oldest = self.oldest_of(query.company, cutoff);
            return Ok(PageOutcome::Expired { oldest, lost: lost_until.since(position.created) });
        }
        let mut page = Collector { ascending, limit: query.limit, cutoff, parts: Vec::new(), count: 0, bytes: 0, position, more: false };
        if ascending {
            self.walk_up(&list, query, &mut page)?;
            if !page.more {
                // Up to the tail there is nothing else for this reader: what expires there is no loss of its.
                page.position = page.position.max(tail);
            }
        } else {
            self.walk_down(&list, query, &mut page)?;
        }
        Ok(PageOutcome::Page(page.finish(tail)))
    }

    pub(super) fn walk_up(&self, list: &SegmentList, query: &PageQuery<'_>, page: &mut impl Collects) -> Result<(), StorageFault> {
        let recent = self.recent().above(query.company, page.position(), query.limit.saturating_add(1));
        if let Some((segment, chunks)) = recent {
            let kinds = KindsOf::new(segment.as_ref(), query.filter);
            // A filter that takes little may want more chunks than were handed out; the store has them all.
            let was_cut = chunks.len() > query.limit;
            for chunk in &chunks {
                if page.take(segment.as_ref(), chunk, kinds.of(chunk)?)? {
                    return Ok(());
                }
            }
            if !was_cut {
                return Ok(());
            }
        }
        for segment in list.segments.iter().map(Segment::reads) {
            if segment.span().is_none_or(|(_, last)| last <= page.position()) {
                continue;
            }
            if self.walk_segment(segment, query, page)? {
                return Ok(());
            }
        }
        Ok(())
    }

    pub(super) fn walk_down(&self, list: &SegmentList, query: &PageQuery<'_>, page: &mut impl Collects) -> Result<(), StorageFault> {
        for segment in list.segments.iter().rev().map(Segment::reads) {
            if segment.span().is_none_or(|(first, last)| first >= page.position() || last.created < page.cutoff()) {
                continue;
            }
            if self.walk_segment(segment, query, page)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Walks one segment; true when the page is complete.
    fn walk_segment(&self, segment: &dyn SegmentReads, query: &PageQuery<'_>, page: &mut impl Collects) -> Result<bool, StorageFault> {
        let kinds = KindsOf::new(segment, query.filter);
        let is_narrow = !query.filter.is_everything();
        // The position of the walk runs ahead of the page's, which only events move.
        let mut at = page.position();
        let mut seen = None;
        loop {
            let mut listed = if is_narrow {
                let keys = segment.typed_keys_from(query.company, kinds.all()?, at, page.is_ascending(), CHUNKS_AHEAD)?;
                keys.into_iter().map(Listed::keyed).collect()
            } else {
                segment.keys_from(query.company, at, page.is_ascending(), CHUNKS_AHEAD)?
            };
            listed.retain(|listed| Some(listed.key) != seen);
            let Some(last) = listed.last().map(|listed| listed.key) else { return Ok(false) };
            let mut rest = listed.as_slice();
            // Ids ascend from chunk to chunk: what comes right before the next one lies wholly at or below the position.
            if let [_, next, ..] = rest
                && page.is_ascending()
                && is_of_an_event(page.position())
                && next.key.1 <= page.position().id.0 + 1
            {
                rest = rest.get(1..).unwrap_or_default();
            }
            while let Some(next) = rest.first() {
                // An index of types lists only chunks that hold a match.
                let holds_match = is_narrow || next.place.is_some_and(|place| place.published > 0);
                if page.room() == 0 && holds_match && page.knows_of(start_of(next.key)) {
                    return Ok(true);
                }
                let (run, further) = rest.split_at(run_length(rest, page));
                for fetched in self.fetch_run(segment, query.company, run) {
                    let Some(chunk) = fetched? else { continue };
                    if page.take(segment, &chunk, kinds.of(&chunk)?)? {
                        return Ok(true);
                    }
                }
                rest = further;
            }
            seen = Some(last);
            at = start_of(last);
        }
    }

    /// Where an event lies, expired or not: its segment, its chunk, its place in there.
    pub(super) fn locate(&self, company: CompanyId, id: EventId) -> Result<Option<(Segment, Chunk, usize)>, StorageFault> {
        let mut found = self.recent().holding(company, id).map(|(segment, chunk)| (Segment::Live(segment), chunk));
        if found.is_none() {
            let list = self.segments.load();
            let holds = |span: Option<(Position, Position)>| span.is_some_and(|(first, last)| first.id <= id && id <= last.id);
            if let Some(segment) = list.segments.iter().rev().find(|segment| holds(segment.reads().span()))
                && let Some(key) = segment.reads().key_of_id(company, id)?
            {
                found = self.fetch(segment.reads(), company, key)?.map(|chunk| (segment.clone(), chunk));
            }
        }
        let Some((segment, chunk)) = found else { return Ok(None) };
        Ok(chunk.place_of(id).map(|place| (segment, chunk, place)))
    }

    fn find(&self, company: CompanyId, id: EventId) -> Result<Option<(Chunk, usize)>, StorageFault> {
        let Some((_, chunk, place)) = self.locate(company, id)? else { return Ok(None) };
        let cutoff = self.cutoff();
        Ok(chunk.record(place).is_some_and(|record| record.created >= cutoff).then_some((chunk, place)))
    }
}

/// Which kinds of a segment pass a filter, asked for once and only if needed.
struct KindsOf<'a> {
    segment: &'a dyn SegmentReads,
    filter: &'a TypeFilter,
    matching: std::cell::OnceCell<Vec<u32>>,
}

impl<'a> KindsOf<'a> {
    fn new(segment: &'a dyn SegmentReads, filter: &'a TypeFilter) -> Self {
        Self { segment, filter, matching: std::cell::OnceCell::new() }
    }

    fn all(&self) -> Result<&[u32], StorageFault> {
        if let Some(kinds) = self.matching.get() {
            return Ok(kinds);
        }
        let kinds = self.segment.kinds_matching(&|folded, version| self.filter.matches(folded, version))?;
        Ok(self.matching.get_or_init(|| kinds))
    }

    /// The kinds that matter in a chunk; none when all of its events pass.
    fn of(&self, chunk: &Chunk) -> Result<Option<&[u32]>, StorageFault> {
        if self.filter.is_everything() && !chunk.has_own() { Ok(None) } else { self.all().map(Some) }
    }
}

impl Store {
    /// Reads a page; short, but it may read from disk.
    ///
    /// # Errors
    /// When the bytes on disk are damaged or cannot be read.
    pub fn page(&self, query: &PageQuery<'_>) -> Result<PageOutcome, ReadError> {
        Ok(self.inner.page(query)?)
    }

    /// The envelope of one event; none when it is unknown, expired, or another company's.
    ///
    /// # Errors
    /// As [`Store::page`].
    pub fn get(&self, company: CompanyId, id: EventId) -> Result<Option<Bytes>, ReadError> {
        Ok(self.inner.find(company, id)?.and_then(|(chunk, place)| chunk.envelopes(place, place)))
    }

    /// One event with everything that was published with it.
    ///
    /// # Errors
    /// As [`Store::page`].
    pub fn stored_event(&self, company: CompanyId, id: EventId) -> Result<Option<StoredEvent>, ReadError> {
        let Some((chunk, place)) = self.inner.find(company, id)? else { return Ok(None) };
        let damaged = || ReadError::Storage("an event lies outside its chunk".to_owned());
        let escaped = chunk.escaped_payload(place).ok_or_else(damaged)?;
        let escaped = std::str::from_utf8(&escaped).map_err(|_| damaged())?;
        let extra = chunk.extra(place).ok_or_else(damaged)?;
        let extra: Extra = if extra.is_empty() { Extra::default() } else { records::decode(&extra)? };
        Ok(Some(StoredEvent {
            payload: unescape(escaped).ok_or_else(damaged)?.into_owned(),
            envelope: chunk.envelopes(place, place).ok_or_else(damaged)?,
            references: extra.references,
            occurred_at: extra.occurred_us.map(Timestamp::from_micros),
        }))
    }
}
