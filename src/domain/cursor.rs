//! Positions in the log and the cursors that carry them.

use std::fmt;
use std::str::FromStr;

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

/// The name under which a reader keeps its cursor here: `^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`, compared with case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CursorName(String);

/// A text that is no name of a cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a cursor's name is 1 to 64 characters of A-Z, a-z, 0-9, '.', '_' and '-', and starts with a letter or a digit")]
pub struct ParseCursorNameError;

impl CursorName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CursorName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for CursorName {
    type Err = ParseCursorNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let starts_well = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if starts_well && text.len() <= 64 && text.bytes().all(allowed) { Ok(Self(text.to_owned())) } else { Err(ParseCursorNameError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_to_64_characters_and_starts_with_a_letter_or_digit() {
        for text in ["a", "claims-portal", "9.b_C", &"a".repeat(64)] {
            assert_eq!(text.parse::<CursorName>().unwrap().as_str(), text);
        }
        for text in ["", ".a", "-a", "a b", "a/b", "å", "a%20b", &"a".repeat(65)] {
            assert_eq!(text.parse::<CursorName>(), Err(ParseCursorNameError), "{text}");
        }
    }
}
