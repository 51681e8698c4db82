//! Chunks: runs of one company's events, as they lie in the log.
//!
//! ```text
//! header   32 bytes: format u8, codec u8, flags u16, count u32, length u32, body u32, extras u32, company u32, checksum u64
//! records  count × 40 bytes: id u64, created u64 (µs), kind u32, end u32, payload start u32, payload length u32, extra length u32, snapshots u32
//! body     the envelopes, already serialized and escaped, joined by commas
//! extras   what an event carries beyond its envelope, one after the other
//! ```
//! All numbers are little-endian; `end` counts from the start of the body, `payload start` from the start of the envelope. The
//! checksum is XXH3-64 of everything behind the header, seeded with the XXH3-64 of the 24 bytes before it.

use bytes::Bytes;
use twox_hash::XxHash3_64;

use super::tables::{ChunkKey, chunk_key};
use crate::domain::company::CompanyId;
use crate::domain::cursor::Position;
use crate::domain::event::EventId;
use crate::domain::time::Timestamp;

/// Bytes of a header.
pub(super) const HEADER_BYTES: usize = 32;
/// Bytes of a record.
pub(super) const RECORD_BYTES: usize = 40;
const FORMAT: u8 = 1;
const CODEC_PLAIN: u8 = 0;
/// The chunk holds at least one of the daemon's own events.
const FLAG_OWN: u16 = 1;

/// The longest value that fits a run of 2^k pages of 4,096 bytes beside redb's own bytes: a longer one takes the next
/// power of two, so that a value just over a boundary would waste half of its pages.
pub(super) const fn run_capacity(power: u32) -> usize {
    4096 * (1 << power) - 64
}

/// The longest chunk of more than one event. Larger ones make pages cheaper and single events dearer: a reader takes
/// whole chunks from the operating system's cache, and copying them is what a cold read costs.
pub(super) const CHUNK_BYTES_MAX: usize = run_capacity(2);

/// The longest value written as one row; longer chunks are continued in rows of `parts`.
const PART_POWER_MAX: u32 = 6;

/// Lengths into which a value of `length` bytes is cut, so that each nearly fills its run of pages.
pub(super) fn part_lengths(length: usize) -> Vec<usize> {
    let mut parts = Vec::new();
    let mut rest = length;
    while rest > 0 {
        let power = (0..=PART_POWER_MAX).rev().find(|power| rest >= run_capacity(*power) || *power == 0).unwrap_or(0);
        // A rest that fills most of a run is better off in one run than in many small ones.
        let fits = (0..=PART_POWER_MAX).find(|power| rest <= run_capacity(*power));
        let part = match fits {
            Some(fit) if rest * 8 > run_capacity(fit) * 7 || fit == 0 => rest,
            _ => run_capacity(power).min(rest),
        };
        parts.push(part);
        rest -= part;
    }
    parts
}

/// Why bytes are not a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The header says something impossible.
    #[error("the chunk's header is damaged")]
    Header,
    /// The format is newer than this program.
    #[error("the chunk has format {0}, which this version does not know")]
    Format(u8),
    /// The bytes are not those that were written.
    #[error("the chunk's checksum does not match its bytes")]
    Checksum,
    /// The chunk is another company's, or starts with another event.
    #[error("the chunk lies in the place of another one")]
    Misplaced,
    /// The snapshot of this reference, counted from 0, is not the one that was written with the event.
    #[error("the snapshot of its reference {0} is damaged, missing or in the place of another one")]
    Snapshot(u32),
}

impl ChunkError {
    /// What the fault's event is to what is damaged.
    pub(super) fn subject(self) -> &'static str {
        match self {
            Self::Snapshot(_) => "event",
            _ => "the chunk that starts with event",
        }
    }
}

/// One event inside a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub id: EventId,
    pub created: Timestamp,
    /// Number of the (type, version) pair in the segment's names.
    pub kind: u32,
    end: u32,
    payload_start: u32,
    payload_length: u32,
    extra_length: u32,
    /// How many snapshots the event has.
    pub snapshots: u32,
}

impl Record {
    /// Whether the event carries something beyond its envelope.
    pub fn has_extra(&self) -> bool {
        self.extra_length > 0
    }
}

/// A whole chunk in memory.
#[derive(Debug, Clone)]
pub(super) struct Chunk {
    bytes: Bytes,
    count: usize,
    body: usize,
    extras: usize,
    company: CompanyId,
    has_own: bool,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

fn checksum(bytes: &[u8]) -> Option<u64> {
    let seed = XxHash3_64::oneshot(bytes.get(..24)?);
    Some(XxHash3_64::oneshot_with_seed(seed, bytes.get(HEADER_BYTES..)?))
}

/// The whole length of the chunk whose first row begins with `start`.
pub(super) fn total_length(start: &[u8]) -> Result<usize, ChunkError> {
    let length = u32_at(start, 8).ok_or(ChunkError::Header)? as usize;
    if length < HEADER_BYTES { Err(ChunkError::Header) } else { Ok(length) }
}

impl Chunk {
    /// Reads a chunk that comes from disk, and checks every byte of it.
    pub fn read(bytes: Bytes) -> Result<Self, ChunkError> {
        let chunk = Self::parse(bytes)?;
        if u64_at(&chunk.bytes, 24) != checksum(&chunk.bytes) {
            return Err(ChunkError::Checksum);
        }
        Ok(chunk)
    }

    /// Takes bytes that a [`ChunkBuilder`] of this process made.
    fn parse(bytes: Bytes) -> Result<Self, ChunkError> {
        let format = *bytes.first().ok_or(ChunkError::Header)?;
        if format != FORMAT || bytes.get(1) != Some(&CODEC_PLAIN) {
            return Err(ChunkError::Format(format));
        }
        let flags = bytes.get(2..4).and_then(|two| two.try_into().ok()).map(u16::from_le_bytes).ok_or(ChunkError::Header)?;
        let count = u32_at(&bytes, 4).ok_or(ChunkError::Header)? as usize;
        let body = u32_at(&bytes, 12).ok_or(ChunkError::Header)? as usize;
        let extras = u32_at(&bytes, 16).ok_or(ChunkError::Header)? as usize;
        let company = CompanyId(u32_at(&bytes, 20).ok_or(ChunkError::Header)?);
        let fits = total_length(&bytes)? == bytes.len()
            && count > 0
            && count.checked_mul(RECORD_BYTES).and_then(|records| records.checked_add(HEADER_BYTES)) == Some(body)
            && body <= extras
            && extras <= bytes.len();
        if !fits {
            return Err(ChunkError::Header);
        }
        Ok(Self { bytes, count, body, extras, company, has_own: flags & FLAG_OWN != 0 })
    }

    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether the chunk is this company's and has this key: its checksum does not say where it lies.
    pub fn belongs_at(&self, company: CompanyId, key: ChunkKey) -> bool {
        self.company == company && self.record(0).is_some_and(|first| chunk_key(first.created, first.id) == key)
    }

    /// Whether one of the daemon's own events is in the chunk.
    pub fn has_own(&self) -> bool {
        self.has_own
    }

    /// The record of the event at `index`.
    pub fn record(&self, index: usize) -> Option<Record> {
        if index >= self.count {
            return None;
        }
        let at = HEADER_BYTES + index * RECORD_BYTES;
        Some(Record {
            id: EventId(u64_at(&self.bytes, at)?),
            created: Timestamp::from_micros(u64_at(&self.bytes, at + 8)?),
            kind: u32_at(&self.bytes, at + 16)?,
            end: u32_at(&self.bytes, at + 20)?,
            payload_start: u32_at(&self.bytes, at + 24)?,
            payload_length: u32_at(&self.bytes, at + 28)?,
            extra_length: u32_at(&self.bytes, at + 32)?,
            snapshots: u32_at(&self.bytes, at + 36)?,
        })
    }

    pub fn records(&self) -> impl DoubleEndedIterator<Item = Record> + '_ {
        (0..self.count).filter_map(|index| self.record(index))
    }

    fn start_of(&self, index: usize) -> Option<usize> {
        match index.checked_sub(1) {
            None => Some(0),
            Some(before) => Some(self.record(before)?.end as usize + 1),
        }
    }

    /// The envelopes of the events from `first` to `last` (inclusive), joined by commas.
    pub fn envelopes(&self, first: usize, last: usize) -> Option<Bytes> {
        let start = self.body + self.start_of(first)?;
        let end = self.body + self.record(last)?.end as usize;
        (start <= end && end <= self.extras).then(|| self.bytes.slice(start..end))
    }

    /// Where the escaped payload starts in the envelope of the event at `index`, and its length, if it lies in there.
    pub fn payload_place(&self, index: usize) -> Option<(usize, usize)> {
        let record = self.record(index)?;
        let (start, length) = (record.payload_start as usize, record.payload_length as usize);
        (start.checked_add(length)? <= self.envelopes(index, index)?.len()).then_some((start, length))
    }

    /// The escaped payload of the event at `index`, as it stands between the quotes of its envelope.
    pub fn escaped_payload(&self, index: usize) -> Option<Bytes> {
        let record = self.record(index)?;
        let envelope = self.envelopes(index, index)?;
        let start = record.payload_start as usize;
        let end = start.checked_add(record.payload_length as usize)?;
        (end <= envelope.len()).then(|| envelope.slice(start..end))
    }

    /// What the event at `index` carries beyond its envelope.
    pub fn extra(&self, index: usize) -> Option<Bytes> {
        let before: usize = self.records().take(index).map(|record| record.extra_length as usize).sum();
        let start = self.extras.checked_add(before)?;
        let end = start.checked_add(self.record(index)?.extra_length as usize)?;
        (end <= self.bytes.len()).then(|| self.bytes.slice(start..end))
    }

    /// The index of the event with this id, if it is here.
    pub fn place_of(&self, id: EventId) -> Option<usize> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.record(middle)?.id < id { low = middle + 1 } else { high = middle }
        }
        (self.record(low)?.id == id).then_some(low)
    }

    /// The index of the first event above a position, or the count when there is none.
    pub fn first_above(&self, position: Position) -> usize {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.record(middle).is_some_and(|record| (record.created, record.id) <= (position.created, position.id)) {
                low = middle + 1
            } else {
                high = middle
            }
        }
        low
    }
}

/// One event on its way into a chunk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    pub id: EventId,
    pub created: Timestamp,
    pub kind: u32,
    pub is_own: bool,
    /// The pieces of the envelope in order; together they are its JSON text.
    pub pieces: [&'a [u8]; 5],
    pub payload_start: u32,
    pub payload_length: u32,
    pub extra: &'a [u8],
    /// How many snapshots it has.
    pub snapshots: u32,
}

impl<'a> Entry<'a> {
    /// The event at `index` of a chunk, to be written into another one.
    pub fn of(record: &Record, kind: u32, is_own: bool, envelope: &'a [u8], extra: &'a [u8]) -> Self {
        Self {
            id: record.id,
            created: record.created,
            kind,
            is_own,
            pieces: [envelope, &[], &[], &[], &[]],
            payload_start: record.payload_start,
            payload_length: record.payload_length,
            extra,
            snapshots: record.snapshots,
        }
    }

    /// Bytes that the event adds to a chunk.
    pub fn bytes(&self) -> usize {
        RECORD_BYTES + self.pieces.iter().map(|piece| piece.len()).sum::<usize>() + self.extra.len() + 1
    }
}

/// Collects events into a chunk.
#[derive(Debug, Default)]
pub(super) struct ChunkBuilder {
    records: Vec<u8>,
    body: Vec<u8>,
    extras: Vec<u8>,
    count: u32,
    has_own: bool,
    first: Option<(Timestamp, EventId)>,
}

impl ChunkBuilder {
    /// Bytes of the chunk if it were finished now.
    pub fn length(&self) -> usize {
        HEADER_BYTES + self.records.len() + self.body.len() + self.extras.len()
    }

    /// Key of the chunk: time and id of its first event; none while it is empty.
    pub fn first(&self) -> Option<(Timestamp, EventId)> {
        self.first
    }

    pub fn push(&mut self, entry: &Entry<'_>) {
        if self.first.is_none() {
            self.first = Some((entry.created, entry.id));
        } else {
            self.body.push(b',');
        }
        for piece in entry.pieces {
            self.body.extend_from_slice(piece);
        }
        self.extras.extend_from_slice(entry.extra);
        let narrow = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
        let mut record = [0_u8; RECORD_BYTES];
        let fields: [&[u8]; 8] = [
            &entry.id.0.to_le_bytes(),
            &entry.created.as_micros().to_le_bytes(),
            &entry.kind.to_le_bytes(),
            &narrow(self.body.len()),
            &entry.payload_start.to_le_bytes(),
            &entry.payload_length.to_le_bytes(),
            &narrow(entry.extra.len()),
            &entry.snapshots.to_le_bytes(),
        ];
        for (place, byte) in record.iter_mut().zip(fields.into_iter().flatten()) {
            *place = *byte;
        }
        self.records.extend_from_slice(&record);
        self.count += 1;
        self.has_own |= entry.is_own;
    }

    /// The finished chunk of `company`; the builder is empty afterwards. None when nothing was pushed.
    pub fn finish(&mut self, company: CompanyId) -> Option<Chunk> {
        self.first.take()?;
        let length = self.length();
        let body = HEADER_BYTES + self.records.len();
        let extras = body + self.body.len();
        let narrow = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
        let mut bytes = Vec::with_capacity(length);
        bytes.extend_from_slice(&[FORMAT, CODEC_PLAIN]);
        bytes.extend_from_slice(&(if self.has_own { FLAG_OWN } else { 0 }).to_le_bytes());
        bytes.extend_from_slice(&self.count.to_le_bytes());
        for number in [length, body, extras] {
            bytes.extend_from_slice(&narrow(number));
        }
        bytes.extend_from_slice(&company.0.to_le_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.append(&mut self.records);
        bytes.append(&mut self.body);
        bytes.append(&mut self.extras);
        self.count = 0;
        self.has_own = false;
        let sum = checksum(&bytes).unwrap_or_default();
        if let Some(place) = bytes.get_mut(24..HEADER_BYTES) {
            place.copy_from_slice(&sum.to_le_bytes());
        }
        Chunk::parse(bytes.into()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: u64, text: &'static str) -> Entry<'static> {
        let envelope = text.as_bytes();
        Entry {
            id: EventId(id),
            created: Timestamp::from_micros(id * 10),
            kind: 3,
            is_own: false,
            pieces: [envelope, &[], &[], &[], &[]],
            payload_start: 1,
            payload_length: 2,
            extra: b"xy",
            snapshots: u32::try_from(id).unwrap(),
        }
    }

    fn chunk() -> Chunk {
        let mut builder = ChunkBuilder::default();
        for (id, text) in [(4, "{one}"), (5, "{second}"), (9, "{3}")] {
            builder.push(&entry(id, text));
        }
        builder.finish(CompanyId(7)).unwrap()
    }

    #[test]
    fn a_chunk_reads_back_what_was_pushed() {
        let chunk = Chunk::read(chunk().bytes().clone()).unwrap();
        assert_eq!(chunk.count(), 3);
        assert_eq!(chunk.envelopes(0, 2).unwrap(), "{one},{second},{3}");
        assert_eq!(chunk.envelopes(1, 1).unwrap(), "{second}");
        assert_eq!(chunk.escaped_payload(1).unwrap(), "se");
        assert_eq!(chunk.extra(2).unwrap(), "xy");
        assert_eq!(chunk.record(2).unwrap().snapshots, 9);
        assert_eq!(chunk.records().map(|record| record.id.0).collect::<Vec<_>>(), [4, 5, 9]);
        assert_eq!(
            [0, 4, 5, 8, 9].map(|id| chunk.first_above(Position { created: Timestamp::from_micros(id * 10), id: EventId(id) })),
            [0, 1, 2, 2, 3]
        );
        assert!(chunk.belongs_at(CompanyId(7), (40, 4)));
        assert!(!chunk.belongs_at(CompanyId(8), (40, 4)) && !chunk.belongs_at(CompanyId(7), (50, 5)));
        assert!(chunk.record(3).is_none() && chunk.envelopes(2, 3).is_none());
    }

    #[test]
    fn every_changed_bit_is_noticed() {
        let good = chunk().bytes().to_vec();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Chunk::read(bad.into()).is_err(), "bit {bit}");
        }
        for length in 0..good.len() {
            assert!(Chunk::read(good[..length].to_vec().into()).is_err(), "length {length}");
        }
    }

    #[test]
    fn parts_nearly_fill_their_runs_of_pages() {
        for length in [1, 4032, 4033, 9000, 16_320, 20_500, 262_000, 290_000, 600_000] {
            let parts = part_lengths(length);
            assert_eq!(parts.iter().sum::<usize>(), length);
            let pages: usize = parts.iter().map(|part| (part + 64).div_ceil(4096).next_power_of_two()).sum();
            assert!(pages * 4096 <= length + length / 6 + 4096, "{length}: {parts:?} takes {pages} pages");
            assert!(parts.iter().all(|part| *part <= run_capacity(PART_POWER_MAX)));
        }
    }
}
