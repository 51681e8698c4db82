//! Cursors as opaque text: positions that nobody but this store can make.
//!
//! Layout, before base64url: version, flags, store tag (4), epoch (4), company (4), filter hash (8), position (16),
//! with the descending flag the tail (16), MAC (16). Numbers are big-endian.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::domain::company::CompanyId;
use crate::domain::cursor::{Cursor, Direction, Position};
use crate::domain::event::EventId;
use crate::domain::filter::TypeFilter;
use crate::domain::time::Timestamp;

const VERSION: u8 = 1;
const DESCENDING: u8 = 1;
const MAC_BYTES: usize = 16;
const ASCENDING_BYTES: usize = 38;
const DESCENDING_BYTES: usize = ASCENDING_BYTES + 16;
const LONGEST: usize = DESCENDING_BYTES + MAC_BYTES;

/// Why a text is not a cursor for this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// Not a cursor, or one that somebody changed.
    #[error("the cursor is not one that this server made")]
    Malformed,
    /// Made for something else.
    #[error("the cursor belongs to another {0}; it works only for the list that it came from")]
    Mismatch(&'static str),
    /// Made before the store was restored from a backup.
    #[error("the log was restored from a backup after this cursor was made; start again and expect repeats")]
    Restored,
}

/// What the list that a cursor is presented to walks.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    /// Whose log.
    pub company: CompanyId,
    /// Which way.
    pub direction: Direction,
    /// See [`filter_hash`].
    pub filter_hash: u64,
}

/// The hash of a filter that its cursors carry; equal filters have equal hashes.
#[must_use]
pub fn filter_hash(filter: &TypeFilter) -> u64 {
    if filter.is_everything() {
        return 0;
    }
    let digest = Sha256::digest(filter.canonical().as_bytes());
    digest.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

/// Seals cursors and opens them again.
#[derive(Debug, Clone)]
pub struct CursorSealer {
    /// Keyed once; a clone of it costs no hashing.
    keyed: Hmac<Sha256>,
    /// Tells cursors of other stores from changed ones.
    store_tag: [u8; 4],
    epoch: u32,
}

/// Reads fixed fields from the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn position(&mut self) -> Option<Position> {
        let created = Timestamp::from_micros(u64::from_be_bytes(self.take()?));
        Some(Position { created, id: EventId(u64::from_be_bytes(self.take()?)) })
    }
}

impl CursorSealer {
    /// A sealer for one store under its key.
    #[must_use]
    pub fn new(key: &[u8; 32], epoch: u32) -> Self {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
        let keyed = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length");
        let tag = keyed.clone().chain_update(b"store").finalize().into_bytes();
        let store_tag = tag.first_chunk().copied().unwrap_or_default();
        Self { keyed, store_tag, epoch }
    }

    /// The life of the store that cursors are sealed for.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    fn mac(&self, fields: &[u8]) -> [u8; MAC_BYTES] {
        let full = self.keyed.clone().chain_update(fields).finalize().into_bytes();
        full.first_chunk().copied().unwrap_or_default()
    }

    /// The cursor as text.
    #[must_use]
    pub fn seal(&self, cursor: &Cursor) -> String {
        let mut bytes = [0; LONGEST];
        let mut length = 0;
        let mut put = |field: &[u8]| {
            if let Some(space) = bytes.get_mut(length..length + field.len()) {
                space.copy_from_slice(field);
            }
            length += field.len();
        };
        let is_descending = cursor.direction == Direction::Descending;
        put(&[VERSION, if is_descending { DESCENDING } else { 0 }]);
        put(&self.store_tag);
        put(&cursor.epoch.to_be_bytes());
        put(&cursor.company.0.to_be_bytes());
        put(&cursor.filter_hash.to_be_bytes());
        put(&cursor.position.created.as_micros().to_be_bytes());
        put(&cursor.position.id.0.to_be_bytes());
        if is_descending {
            put(&cursor.tail.created.as_micros().to_be_bytes());
            put(&cursor.tail.id.0.to_be_bytes());
        }
        let mac = self.mac(bytes.get(..length).unwrap_or_default());
        if let Some(space) = bytes.get_mut(length..length + MAC_BYTES) {
            space.copy_from_slice(&mac);
        }
        URL_SAFE_NO_PAD.encode(bytes.get(..length + MAC_BYTES).unwrap_or_default())
    }

    /// Reads a cursor that this store made, whatever list it was made for.
    ///
    /// # Errors
    /// See [`CursorError`]; a mismatch here means another store.
    pub fn read(&self, text: &str) -> Result<Cursor, CursorError> {
        let mut bytes = [0; LONGEST];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).map_err(|_| CursorError::Malformed)?;
        let fields_length = length.checked_sub(MAC_BYTES).ok_or(CursorError::Malformed)?;
        let (fields, rest) = bytes.split_at(fields_length);
        let mac = rest.get(..MAC_BYTES).unwrap_or_default();
        let cursor = parse(fields).ok_or(CursorError::Malformed)?;
        if fields.get(2..6) != Some(self.store_tag.as_slice()) {
            return Err(CursorError::Mismatch("store"));
        }
        if !bool::from(self.mac(fields).ct_eq(mac)) {
            return Err(CursorError::Malformed);
        }
        match cursor.epoch.cmp(&self.epoch) {
            std::cmp::Ordering::Equal => Ok(cursor),
            std::cmp::Ordering::Less => Err(CursorError::Restored),
            std::cmp::Ordering::Greater => Err(CursorError::Mismatch("store")),
        }
    }

    /// Reads a cursor for one list.
    ///
    /// # Errors
    /// See [`CursorError`].
    pub fn open(&self, text: &str, expected: &Expected) -> Result<Cursor, CursorError> {
        let cursor = self.read(text)?;
        if cursor.company != expected.company {
            return Err(CursorError::Mismatch("company"));
        }
        if cursor.direction != expected.direction {
            return Err(CursorError::Mismatch("order"));
        }
        if cursor.filter_hash != expected.filter_hash {
            return Err(CursorError::Mismatch("filter"));
        }
        Ok(cursor)
    }
}

fn parse(fields: &[u8]) -> Option<Cursor> {
    let length = fields.len();
    let mut fields = Fields(fields);
    let [version] = fields.take()?;
    let [flags] = fields.take()?;
    let direction = match (version, flags, length) {
        (VERSION, 0, ASCENDING_BYTES) => Direction::Ascending,
        (VERSION, DESCENDING, DESCENDING_BYTES) => Direction::Descending,
        _ => return None,
    };
    let _store_tag: [u8; 4] = fields.take()?;
    let epoch = u32::from_be_bytes(fields.take()?);
    let company = CompanyId(u32::from_be_bytes(fields.take()?));
    let filter_hash = u64::from_be_bytes(fields.take()?);
    let position = fields.position()?;
    let tail = if direction == Direction::Descending { fields.position()? } else { position };
    Some(Cursor { position, direction, epoch, company, filter_hash, tail })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(number: u64) -> Position {
        Position { created: Timestamp::from_micros(1_795_343_400_000_000 + number), id: EventId(number) }
    }

    fn cursor(direction: Direction) -> Cursor {
        let tail = if direction == Direction::Descending { position(99) } else { position(42) };
        Cursor { position: position(42), direction, epoch: 3, company: CompanyId(7), filter_hash: 5, tail }
    }

    fn sealer() -> CursorSealer {
        CursorSealer::new(&[9; 32], 3)
    }

    const EXPECTED: Expected = Expected { company: CompanyId(7), direction: Direction::Ascending, filter_hash: 5 };

    #[test]
    fn a_cursor_reads_back_in_both_directions() {
        for direction in [Direction::Ascending, Direction::Descending] {
            let text = sealer().seal(&cursor(direction));
            assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')));
            assert_eq!(sealer().open(&text, &Expected { direction, ..EXPECTED }), Ok(cursor(direction)));
        }
    }

    #[test]
    fn any_changed_character_is_refused() {
        let text = sealer().seal(&cursor(Direction::Ascending));
        for place in 0..text.len() {
            for letter in ['A', 'B', '_'] {
                let mut changed: Vec<char> = text.chars().collect();
                if changed[place] == letter {
                    continue;
                }
                changed[place] = letter;
                let changed: String = changed.into_iter().collect();
                assert!(sealer().open(&changed, &EXPECTED).is_err(), "{changed}");
            }
        }
        assert_eq!(sealer().open(&(text.clone() + "A"), &EXPECTED), Err(CursorError::Malformed));
        for broken in ["", "!", "AQ", &"A".repeat(200), &(text + "=")] {
            assert_eq!(sealer().open(broken, &EXPECTED), Err(CursorError::Malformed), "{broken}");
        }
    }

    #[test]
    fn a_cursor_of_another_list_is_a_mismatch() {
        let text = sealer().seal(&cursor(Direction::Ascending));
        let open = |expected: Expected| sealer().open(&text, &expected);
        assert_eq!(open(Expected { company: CompanyId(8), ..EXPECTED }), Err(CursorError::Mismatch("company")));
        assert_eq!(open(Expected { filter_hash: 6, ..EXPECTED }), Err(CursorError::Mismatch("filter")));
        assert_eq!(open(Expected { direction: Direction::Descending, ..EXPECTED }), Err(CursorError::Mismatch("order")));
        let elsewhere = CursorSealer::new(&[8; 32], 3);
        assert_eq!(elsewhere.open(&text, &EXPECTED), Err(CursorError::Mismatch("store")));
    }

    #[test]
    fn a_cursor_from_before_a_restore_says_so() {
        let text = sealer().seal(&cursor(Direction::Ascending));
        assert_eq!(CursorSealer::new(&[9; 32], 4).open(&text, &EXPECTED), Err(CursorError::Restored));
        assert_eq!(CursorSealer::new(&[9; 32], 2).open(&text, &EXPECTED), Err(CursorError::Mismatch("store")));
    }

    #[test]
    fn equal_filters_have_equal_hashes() {
        let hash = |list: &str| filter_hash(&TypeFilter::parse_list(list).unwrap());
        assert_eq!(hash("a,B.*"), hash("b.*,A"));
        assert_ne!(hash("a"), hash("b"));
        assert_eq!(filter_hash(&TypeFilter::default()), 0);
    }
}
