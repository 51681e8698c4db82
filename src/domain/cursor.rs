//! Positions in the log and the cursors that carry them.

use super::company::CompanyId;
use super::event::EventId;
use super::time::Timestamp;

/// A place in the log, between the event it names and the next one.
///
/// The order of positions is the order of commits: `created` never goes back and ids rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// The commit time of the event just passed.
    pub created: Timestamp,
    /// The number of the event just passed, 0 before the first one.
    pub id: EventId,
}

impl Position {
    /// Before every event.
    pub const START: Self = Self { created: Timestamp::from_micros(0), id: EventId(0) };
}

/// The way a list walks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Oldest first: the next event is the first one above the position.
    Ascending,
    /// Newest first: the next event is the first one below the position.
    Descending,
}

/// What a cursor says, before it is sealed into opaque text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Where to go on.
    pub position: Position,
    /// Which way.
    pub direction: Direction,
    /// The life of the store it belongs to; a restore begins a new one.
    pub epoch: u32,
    /// Whose log it walks.
    pub company: CompanyId,
    /// A hash of the filter it was made with.
    pub filter_hash: u64,
    /// For a descending list: the tail that its first page saw, where an ascending reader goes on.
    pub tail: Position,
}
