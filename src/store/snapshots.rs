//! Snapshots: the bytes behind a reference as they were when its event happened, stored with the event and never changed.
//!
//! ```text
//! header   32 bytes: format u8, codec u8, content type length u16, length u32, reference u32, company u32, event u64, checksum u64
//! content type, body
//! ```
//! All numbers are little-endian. The hash of the content is the XXH3-64 of the body, seeded with that of the content type; it
//! stands in the event's chunk as well. The checksum is the XXH3-64 of the first 24 bytes of the header and that hash, so that
//! a snapshot in the place of another one is noticed. A snapshot that is longer than one row is cut as chunks are.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use minicbor::{Decode, Encode};
use redb::{ReadableTable, WriteTransaction};
use twox_hash::XxHash3_64;

use super::chunk::{Chunk, ChunkError, part_lengths};
use super::prepared::Extra;
use super::records;
use super::tables::{SNAPSHOTS, SnapshotKey};
use super::{CorruptChunk, Inner, ReadError, StorageFault, Store};
use crate::domain::company::CompanyId;
use crate::domain::event::EventId;
use crate::domain::reference::NewSnapshot;

const HEADER_BYTES: usize = 32;
/// Where in the header the checksum stands.
const SUM_AT: usize = 24;
const FORMAT: u8 = 1;
const CODEC_PLAIN: u8 = 0;

/// What an event's chunk says of one of its snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) struct SnapshotMark {
    /// The place of its reference, counted from 0.
    #[n(0)]
    pub reference: u32,
    /// Bytes of its body.
    #[n(1)]
    pub bytes: u32,
    /// The hash of content type and body.
    #[n(2)]
    pub hash: u64,
}

/// A snapshot that waits for the id of its event.
#[derive(Debug, Clone)]
pub(super) struct PreparedSnapshot {
    pub mark: SnapshotMark,
    content_type: Box<[u8]>,
    body: Bytes,
}

/// A snapshot as it was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// What the bytes are.
    pub content_type: String,
    /// The bytes.
    pub body: Bytes,
    /// 64 bits that stand for both.
    pub hash: u64,
}

/// What the store has of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept<T> {
    /// It is there.
    Here(T),
    /// Retention has reached it.
    Expired,
    /// It never was there, or is another company's.
    Unknown,
}

fn content_hash(content_type: &[u8], body: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot(content_type), body)
}

/// The header up to its checksum.
fn header(company: CompanyId, id: EventId, reference: u32, content_type: usize, body: usize) -> [u8; SUM_AT] {
    let mut header = [0; SUM_AT];
    let length = HEADER_BYTES + content_type + body;
    let fields: [&[u8]; 6] = [
        &[FORMAT, CODEC_PLAIN],
        &u16::try_from(content_type).unwrap_or(u16::MAX).to_le_bytes(),
        &u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes(),
        &reference.to_le_bytes(),
        &company.0.to_le_bytes(),
        &id.0.to_le_bytes(),
    ];
    for (place, byte) in header.iter_mut().zip(fields.into_iter().flatten()) {
        *place = *byte;
    }
    header
}

fn checksum(header: &[u8; SUM_AT], content_hash: u64) -> u64 {
    let mut covered = [0; SUM_AT + 8];
    for (place, byte) in covered.iter_mut().zip(header.iter().chain(&content_hash.to_le_bytes())) {
        *place = *byte;
    }
    XxHash3_64::oneshot(&covered)
}

impl PreparedSnapshot {
    pub fn new(snapshot: &NewSnapshot) -> Self {
        let content_type = snapshot.content_type.as_str().as_bytes();
        let mark = SnapshotMark {
            reference: snapshot.reference,
            bytes: u32::try_from(snapshot.body.len()).unwrap_or(u32::MAX),
            hash: content_hash(content_type, &snapshot.body),
        };
        Self { mark, content_type: content_type.into(), body: snapshot.body.clone() }
    }

    /// A snapshot that is copied into another file.
    pub fn copied(reference: u32, snapshot: &Snapshot) -> Self {
        let bytes = u32::try_from(snapshot.body.len()).unwrap_or(u32::MAX);
        let mark = SnapshotMark { reference, bytes, hash: snapshot.hash };
        Self { mark, content_type: snapshot.content_type.as_bytes().into(), body: snapshot.body.clone() }
    }

    /// Bytes that it takes in the commit queue and on disk.
    pub fn bytes(&self) -> usize {
        HEADER_BYTES + self.content_type.len() + self.body.len()
    }

    /// Writes it behind all that the transaction has written.
    pub fn insert(&self, transaction: &WriteTransaction, company: CompanyId, id: EventId) -> Result<(), StorageFault> {
        let header = header(company, id, self.mark.reference, self.content_type.len(), self.body.len());
        let sum = checksum(&header, self.mark.hash);
        // The first row is the longest, and always has room for all that comes before the body.
        let before = [header.as_slice(), &sum.to_le_bytes(), &self.content_type].concat();
        let mut table = transaction.open_table(SNAPSHOTS)?;
        let mut start = 0;
        for (number, length) in (0_u32..).zip(part_lengths(self.bytes())) {
            let end = start + length;
            let of_body = self.body.get(start.saturating_sub(before.len())..end.saturating_sub(before.len())).unwrap_or_default();
            let row = if start == 0 { Cow::Owned([before.as_slice(), of_body].concat()) } else { Cow::Borrowed(of_body) };
            table.insert((id.0, self.mark.reference, number), row.as_ref())?;
            start = end;
        }
        Ok(())
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

/// Reads a snapshot that comes from disk, and checks every byte of it and its place.
fn parse(bytes: &Bytes, company: CompanyId, id: EventId, reference: u32) -> Option<Snapshot> {
    let found: &[u8; SUM_AT] = bytes.first_chunk()?;
    let sum = bytes.get(SUM_AT..HEADER_BYTES)?.try_into().ok().map(u64::from_le_bytes)?;
    let content_type_length = usize::from(found.get(2..4)?.try_into().ok().map(u16::from_le_bytes)?);
    let body_at = HEADER_BYTES + content_type_length;
    let body_length = bytes.len().checked_sub(body_at)?;
    let content_type = bytes.get(HEADER_BYTES..body_at)?;
    let body = bytes.slice(body_at..);
    let hash = content_hash(content_type, &body);
    let is_whole = *found == header(company, id, reference, content_type_length, body_length) && sum == checksum(found, hash);
    let content_type = std::str::from_utf8(content_type).ok()?.to_owned();
    is_whole.then_some(Snapshot { content_type, body, hash })
}

/// The snapshot that this table has of an event; none when it has none.
pub(super) fn read(
    table: &impl ReadableTable<SnapshotKey, &'static [u8]>,
    segment: u64,
    company: CompanyId,
    id: EventId,
    reference: u32,
) -> Result<Option<Snapshot>, StorageFault> {
    let damaged = || corrupt(segment, id, reference);
    let Some(first) = table.get((id.0, reference, 0))? else { return Ok(None) };
    let length = u32_at(first.value(), 4).ok_or_else(damaged)? as usize;
    // Nothing is set aside for a length that nothing vouches for yet.
    let mut whole = BytesMut::from(first.value());
    drop(first);
    let mut part = 1;
    while whole.len() < length {
        match table.get((id.0, reference, part))? {
            Some(row) if !row.value().is_empty() => whole.extend_from_slice(row.value()),
            _ => return Err(damaged()),
        }
        part += 1;
    }
    parse(&whole.freeze(), company, id, reference).ok_or_else(damaged).map(Some)
}

/// Of every snapshot in this table its event and its reference, ascending.
pub(super) fn keys(table: &impl ReadableTable<SnapshotKey, &'static [u8]>) -> Result<Vec<(EventId, u32)>, StorageFault> {
    let mut keys = Vec::new();
    let mut next = Some((0, 0, 0));
    // From snapshot to snapshot, whatever the number of their parts.
    while let Some(from) = next {
        let Some(row) = table.range(from..)?.next() else { break };
        let (id, reference, _) = row?.0.value();
        keys.push((EventId(id), reference));
        next = reference.checked_add(1).map(|reference| (id, reference, 0)).or_else(|| Some((id.checked_add(1)?, 0, 0)));
    }
    Ok(keys)
}

/// The fault of a snapshot that is not what was written.
pub(super) fn corrupt(segment: u64, id: EventId, reference: u32) -> StorageFault {
    StorageFault::Corrupt(CorruptChunk { segment, first_id: id.0, reason: ChunkError::Snapshot(reference) })
}

/// What the event at `place` of a chunk says of its snapshots.
pub(super) fn marks(chunk: &Chunk, place: usize) -> Result<Vec<SnapshotMark>, StorageFault> {
    if chunk.record(place).is_none_or(|record| record.snapshots == 0) {
        return Ok(Vec::new());
    }
    let extra = chunk.extra(place).ok_or_else(|| StorageFault::Record("an event lies outside its chunk".to_owned()))?;
    let extra: Extra = records::decode(&extra)?;
    Ok(extra.snapshots.unwrap_or_default())
}

impl Inner {
    fn references(&self, company: CompanyId, id: EventId) -> Result<Kept<Bytes>, StorageFault> {
        let Some((_, chunk, place)) = self.locate(company, id)? else {
            let is_purged = self.purged.load().get(&company).is_some_and(|purged| id <= purged.id);
            return Ok(if is_purged { Kept::Expired } else { Kept::Unknown });
        };
        match chunk.record(place) {
            None => Ok(Kept::Unknown),
            Some(record) if record.created < self.cutoff() => Ok(Kept::Expired),
            Some(record) => super::outgoing::extra_of(&chunk, place, &record).map(|(_, references)| Kept::Here(references)),
        }
    }

    fn snapshot(&self, company: CompanyId, id: EventId, reference: u32) -> Result<Option<Snapshot>, StorageFault> {
        let Some((segment, chunk, place)) = self.locate(company, id)? else { return Ok(None) };
        let is_kept = chunk.record(place).is_some_and(|record| record.created >= self.cutoff());
        let mark = marks(&chunk, place)?.into_iter().find(|mark| mark.reference == reference);
        let Some(mark) = mark.filter(|_| is_kept) else { return Ok(None) };
        let damaged = || corrupt(segment.reads().number(), id, reference);
        let found = segment.reads().snapshot(company, id, reference)?.ok_or_else(damaged)?;
        if found.hash == mark.hash { Ok(Some(found)) } else { Err(damaged()) }
    }
}

impl Store {
    /// The JSON text of an event's references, without the bodies of snapshots; empty when it has none.
    ///
    /// # Errors
    /// When the bytes on disk are damaged or cannot be read.
    pub fn references(&self, company: CompanyId, id: EventId) -> Result<Kept<Bytes>, ReadError> {
        Ok(self.inner.references(company, id)?)
    }

    /// The snapshot of an event's reference, counted from 0; none when it has none, or the event is expired, unknown or
    /// another company's.
    ///
    /// # Errors
    /// As [`Store::references`].
    pub fn snapshot(&self, company: CompanyId, id: EventId, reference: u32) -> Result<Option<Snapshot>, ReadError> {
        Ok(self.inner.snapshot(company, id, reference)?)
    }
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;
    use redb::{Database, ReadableDatabase};

    use super::*;

    const COMPANY: CompanyId = CompanyId(7);
    const ID: EventId = EventId(1042);

    fn snapshot(reference: u32, body: Vec<u8>) -> PreparedSnapshot {
        PreparedSnapshot::new(&NewSnapshot { reference, content_type: "application/json".parse().unwrap(), body: body.into() })
    }

    fn written(snapshots: &[PreparedSnapshot]) -> Database {
        let database = redb::Builder::new().create_with_backend(InMemoryBackend::new()).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(SNAPSHOTS).unwrap();
        for snapshot in snapshots {
            snapshot.insert(&transaction, COMPANY, ID).unwrap();
        }
        transaction.commit().unwrap();
        database
    }

    fn read_from(database: &Database, company: CompanyId, id: EventId, reference: u32) -> Result<Option<Snapshot>, StorageFault> {
        let table = database.begin_read().unwrap().open_table(SNAPSHOTS).unwrap();
        read(&table, 1, company, id, reference)
    }

    #[test]
    fn a_snapshot_of_any_length_reads_back() {
        for length in [0, 1, 3_900, 3_984, 3_985, 4_096, 262_031, 262_032, 262_033, 300_000, 8 * 1024 * 1024] {
            let body: Vec<u8> = (0..length).map(|place: usize| (place % 251) as u8).collect();
            let database = written(&[snapshot(3, body.clone())]);
            let found = read_from(&database, COMPANY, ID, 3).unwrap().unwrap();
            assert!(found.body == body, "{length}");
            assert_eq!(found.content_type, "application/json");
            assert!(read_from(&database, COMPANY, ID, 2).unwrap().is_none());
        }
    }

    #[test]
    fn every_changed_bit_and_every_other_place_is_noticed() {
        let one = snapshot(0, b"{\"a\":1}".to_vec());
        let database = written(std::slice::from_ref(&one));
        let row = {
            let table = database.begin_read().unwrap().open_table(SNAPSHOTS).unwrap();
            table.get((ID.0, 0, 0)).unwrap().unwrap().value().to_vec()
        };
        let good = Bytes::from(row.clone());
        assert_eq!(parse(&good, COMPANY, ID, 0).unwrap().hash, one.mark.hash);
        assert!(parse(&good, CompanyId(8), ID, 0).is_none());
        assert!(parse(&good, COMPANY, EventId(1043), 0).is_none());
        assert!(parse(&good, COMPANY, ID, 1).is_none());
        for bit in 0..row.len() * 8 {
            let mut bad = row.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&bad.into(), COMPANY, ID, 0).is_none(), "bit {bit}");
        }
        for length in 0..row.len() {
            assert!(parse(&good.slice(..length), COMPANY, ID, 0).is_none(), "length {length}");
        }
    }

    #[test]
    fn a_lost_part_is_noticed() {
        let database = written(&[snapshot(0, vec![7; 600_000])]);
        for part in 0..3 {
            let transaction = database.begin_write().unwrap();
            let row = transaction.open_table(SNAPSHOTS).unwrap().remove((ID.0, 0, part)).unwrap().map(|row| row.value().to_vec());
            transaction.commit().unwrap();
            let found = read_from(&database, COMPANY, ID, 0);
            // Without its first row it is not there; that the event says otherwise is noticed by whoever asks for it.
            assert!(if part == 0 { found.unwrap().is_none() } else { found.is_err() }, "part {part}");
            let transaction = database.begin_write().unwrap();
            transaction.open_table(SNAPSHOTS).unwrap().insert((ID.0, 0, part), row.unwrap().as_slice()).unwrap();
            transaction.commit().unwrap();
        }
        assert!(read_from(&database, COMPANY, ID, 0).unwrap().is_some());
    }
}
