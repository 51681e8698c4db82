//! What followers of the log read: streams, and receivers that know an event by its number.

use std::time::Duration;

use super::outgoing::{Gatherer, LogBatch};
use super::page::{PageQuery, Start, position_of};
use super::segment::{Segment, SegmentList};
use super::{Inner, ReadError, StorageFault, Store};
use crate::domain::company::CompanyId;
use crate::domain::cursor::{Direction, Position};
use crate::domain::event::EventId;
use crate::domain::filter::TypeFilter;
use crate::domain::time::Timestamp;

/// What retention has taken behind a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// Where the oldest event kept comes next.
    pub oldest: Position,
    /// The time that the lost events span, from the position on.
    pub span: Duration,
}

/// What lies above a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Followed {
    /// Events, perhaps none.
    Batch(LogBatch),
    /// Some of them are gone.
    Lost(Lost),
}

impl Inner {
    fn lost_behind(
        &self,
        list: &SegmentList,
        company: CompanyId,
        position: Position,
        cutoff: Timestamp,
    ) -> Result<Option<Lost>, StorageFault> {
        let lost_until = self.lost_above(list, company, position, cutoff)?;
        Ok(lost_until.map(|until| Lost { oldest: self.oldest_of(company, cutoff), span: until.since(position.created) }))
    }

    fn follow(&self, query: &PageQuery<'_>, position: Position, bytes_max: usize) -> Result<Followed, StorageFault> {
        // One moment for both: what expires or goes after the look at what is lost must not be passed over in silence.
        let (list, cutoff) = (self.segments.load_full(), self.cutoff());
        if let Some(lost) = self.lost_behind(&list, query.company, position, cutoff)? {
            return Ok(Followed::Lost(lost));
        }
        let tail = *self.tail.borrow();
        let mut batch = Gatherer::new(query, position, cutoff).within(bytes_max);
        self.walk_up(&list, query, &mut batch)?;
        Ok(Followed::Batch(batch.into_batch(tail)))
    }

    fn start_position(&self, company: CompanyId, start: Start) -> Position {
        match start {
            Start::Oldest => self.oldest_of(company, self.cutoff()),
            Start::Latest => *self.tail.borrow(),
            Start::Time(time) => {
                let before = Timestamp::from_micros(time.max(self.cutoff()).as_micros().saturating_sub(1));
                Position { created: before, id: EventId(u64::MAX) }.min(*self.tail.borrow())
            }
            Start::After(position) => position,
        }
    }

    fn position_of_id(&self, company: CompanyId, id: EventId) -> Result<Position, StorageFault> {
        let list = self.segments.load_full();
        for segment in list.segments.iter().rev().map(Segment::reads) {
            let Some((first, _)) = segment.span().filter(|(first, _)| first.id <= id) else { continue };
            // Nothing of the company up to the id in this segment: it goes on with the segment itself.
            let mut position = Position { created: first.created, id: EventId(first.id.0.saturating_sub(1)) };
            if let Some(key) = segment.key_of_id(company, id)?
                && let Some(chunk) = self.fetch(segment, company, key)?
                && let Some(record) = chunk.records().take_while(|record| record.id <= id).last()
            {
                position = position_of(&record);
            }
            return Ok(position);
        }
        // Older than everything kept: nothing of the company is lost unless it had later ones that are gone.
        let purged = self.purged.load().get(&company).copied();
        Ok(purged.filter(|purged| purged.id <= id).unwrap_or(Position { created: Timestamp::from_micros(0), id }))
    }
}

impl Store {
    /// What of the company has gone above `position`, if anything has.
    ///
    /// # Errors
    /// When the bytes on disk are damaged or cannot be read.
    pub fn lost_behind(&self, company: CompanyId, position: Position) -> Result<Option<Lost>, ReadError> {
        let inner = &self.inner;
        Ok(inner.lost_behind(&inner.segments.load_full(), company, position, inner.cutoff())?)
    }

    /// The company's matching events above `position`, ascending, at most `limit`, and no more once they have `bytes_max`
    /// bytes of envelopes.
    ///
    /// # Errors
    /// As [`Store::lost_behind`].
    pub fn follow(
        &self,
        company: CompanyId,
        position: Position,
        filter: &TypeFilter,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Followed, ReadError> {
        let query = PageQuery { company, start: Start::After(position), direction: Direction::Ascending, limit, filter };
        Ok(self.inner.follow(&query, position, bytes_max)?)
    }

    /// The position at which a follower of the company starts.
    #[must_use]
    pub fn start_position(&self, company: CompanyId, start: Start) -> Position {
        self.inner.start_position(company, start)
    }

    /// A position above which lie exactly the company's events with greater numbers than `id`, which needs not be one of
    /// the company's; it is at most the tail's.
    ///
    /// # Errors
    /// As [`Store::lost_behind`].
    pub fn position_of_id(&self, company: CompanyId, id: EventId) -> Result<Position, ReadError> {
        Ok(self.inner.position_of_id(company, id)?)
    }
}
