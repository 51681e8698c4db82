//! What the delivery engine reads from the log.

use std::sync::Arc;

use bytes::Bytes;

use super::{ReadError, Store};
use crate::domain::company::CompanyId;
use crate::domain::cursor::Position;
use crate::domain::event::EventId;
use crate::domain::filter::TypeFilter;
use crate::domain::time::Timestamp;

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

/// Which types have events in a stretch of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KindsAfter {
    /// Company, type in lower case, version; each once.
    pub kinds: Vec<(CompanyId, Arc<str>, Arc<str>)>,
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

impl Store {
    /// The company's matching events above `position`, ascending, at most `limit` and about 4 MiB. What has expired is
    /// passed over.
    ///
    /// # Errors
    /// When the bytes on disk are damaged or cannot be read.
    pub fn read_after(&self, company: CompanyId, position: Position, filter: &TypeFilter, limit: usize) -> Result<LogBatch, ReadError> {
        let _ = (company, filter, limit);
        Ok(LogBatch { events: Vec::new(), reached: position, is_behind: false })
    }

    /// One event; none when it is unknown, expired, or another company's.
    ///
    /// # Errors
    /// As [`Store::read_after`].
    pub fn read_event(&self, company: CompanyId, id: EventId) -> Result<Option<LogEvent>, ReadError> {
        let _ = (company, id);
        Ok(None)
    }

    /// Which companies have events of which types above `position`. The work of one call is bounded: to be asked again
    /// from `reached` until that is the position asked about.
    ///
    /// # Errors
    /// As [`Store::read_after`].
    pub fn kinds_after(&self, position: Position) -> Result<KindsAfter, ReadError> {
        Ok(KindsAfter { kinds: Vec::new(), reached: position })
    }

    /// How many of the company's events above `after`, up to and with `until`, match; expired ones too while they are
    /// there.
    ///
    /// # Errors
    /// As [`Store::read_after`].
    pub fn count_matching(&self, company: CompanyId, after: Position, until: Position, filter: &TypeFilter) -> Result<Counted, ReadError> {
        let _ = (company, after, until, filter);
        Ok(Counted::default())
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
