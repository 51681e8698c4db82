//! Checks every checksum and invariant of a store.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::chunk::Chunk;
use super::prepared::{DedupeEntry, DedupeHash};
use super::segment::{Segment, SegmentReads};
use super::snapshots;
use super::tables::TypeKey;
use super::{StorageFault, Store};
use crate::domain::company::CompanyId;
use crate::domain::cursor::Position;
use crate::domain::event::EventId;
use crate::domain::time::Timestamp;

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VerifyReport {
    /// Segments looked at.
    pub segments: u64,
    /// Events read.
    pub events: u64,
    /// Chunks whose checksum was computed.
    pub chunks: u64,
    /// Snapshots whose checksum was computed.
    pub snapshots: u64,
    /// What is wrong, each with its segment.
    pub faults: Vec<String>,
}

impl Store {
    /// Reads the whole log: every chunk's and snapshot's checksum and place, the order of ids and times within each company and over the
    /// segments, and that every index leads to its events and knows all of them. And every attempt's checksum.
    ///
    /// # Errors
    /// When a file cannot be read at all. What is merely wrong is in the report.
    pub fn verify(&self) -> Result<VerifyReport, StorageFault> {
        let mut report = VerifyReport::default();
        let mut before = Position::START;
        let list = self.inner.segments.load_full();
        for segment in &list.segments {
            let number = segment.reads().number();
            report.segments += 1;
            if let Some((first, last)) = segment.reads().span() {
                if first <= before {
                    report.faults.push(format!("segment {number} starts with event {}, which is not above event {}", first.id, before.id));
                }
                before = last;
            }
            verify_segment(segment, &mut report)?;
        }
        report.faults.extend(self.inner.verify_attempts()?);
        Ok(report)
    }
}

fn verify_segment(segment: &Segment, report: &mut VerifyReport) -> Result<(), StorageFault> {
    let reads = segment.reads();
    let number = reads.number();
    // Taken before the events are read: a segment that is written to meanwhile has more events than these.
    let (companies, dedupe): (BTreeSet<CompanyId>, Vec<(DedupeHash, Option<DedupeEntry>)>) = match segment {
        Segment::Live(live) => {
            let index = live.index();
            (index.companies.keys().copied().collect(), index.dedupe.iter().map(|(hash, entry)| (*hash, Some(*entry))).collect())
        }
        Segment::Sealed(sealed) => (sealed.companies()?.into_iter().collect(), sealed.dedupe_rows()?),
    };
    let stored = reads.snapshot_keys()?;
    let mut found = Found { kinds: reads.kinds()?, times: HashMap::new(), snapshots: BTreeSet::new() };
    for company in companies {
        let chunks = verify_company(reads, company, &mut found, report)?;
        if let Segment::Sealed(sealed) = segment {
            if sealed.id_rows(company)? != chunks.ids {
                report.faults.push(format!("segment {number}: the index of ids of company {company} is not that of its chunks"));
            }
            if sealed.type_rows(company)? != chunks.types.into_iter().collect::<Vec<_>>() {
                report.faults.push(format!("segment {number}: the index of types of company {company} is not that of its chunks"));
            }
        }
    }
    for (id, reference) in stored {
        if !found.snapshots.contains(&(id, reference)) {
            report.faults.push(format!("segment {number}: there is a snapshot of reference {reference} of event {id}, which has none"));
        }
    }
    for (hash, entry) in &dedupe {
        let Some(entry) = entry else {
            report.faults.push(format!("segment {number}: the row of the dedupe key {hash:032x} is damaged"));
            continue;
        };
        if found.times.get(&entry.id) != Some(&entry.created) {
            report.faults.push(format!("segment {number}: a dedupe key leads to event {}, which is not there", entry.id));
        }
    }
    if let Segment::Sealed(sealed) = segment {
        let events = found.times.len() as u64;
        if events != sealed.summary.events {
            report.faults.push(format!("segment {number} holds {events} events, {} were sealed", sealed.summary.events));
        }
        if sealed.index_hash()? != sealed.summary.index_hash {
            report.faults.push(format!("segment {number}: the dedupe keys or the names of types are not those that were sealed"));
        }
        let mut below = None;
        for (hash, _) in &dedupe {
            if below >= Some(*hash) || !sealed.filter_knows(*hash) {
                report.faults.push(format!("segment {number}: the dedupe key {hash:032x} is not found where it lies"));
            }
            below = Some(*hash);
        }
    }
    Ok(())
}

/// What was found in one segment.
struct Found {
    /// The names of its kinds.
    kinds: Vec<(String, String)>,
    /// Its events and their times.
    times: HashMap<EventId, Timestamp>,
    /// The snapshots that its events have: event and reference.
    snapshots: BTreeSet<(EventId, u32)>,
}

/// What the indexes of one company must say.
#[derive(Default)]
struct ChunksFound {
    ids: Vec<(u64, u64)>,
    types: BTreeMap<TypeKey, u32>,
}

fn verify_company(
    segment: &dyn SegmentReads,
    company: CompanyId,
    found: &mut Found,
    report: &mut VerifyReport,
) -> Result<ChunksFound, StorageFault> {
    let number = segment.number();
    let mut chunks = ChunksFound::default();
    let mut last = Position::START;
    let mut seen = None;
    loop {
        let at = seen.map_or(Position::START, |(created, id)| Position { created: Timestamp::from_micros(created), id: EventId(id) });
        let keys = segment.keys_from(company, at, true, 64)?;
        let fresh: Vec<_> = keys.into_iter().filter(|key| seen.is_none_or(|seen| *key > seen)).collect();
        if fresh.is_empty() {
            return Ok(chunks);
        }
        for key in fresh {
            seen = Some(key);
            match segment.chunk(company, key) {
                Ok(Some(chunk)) => {
                    chunks.ids.push((key.1, key.0));
                    for record in chunk.records() {
                        *chunks.types.entry((record.kind, key.0, key.1)).or_default() += 1;
                    }
                    last = verify_chunk(segment, company, &chunk, last, found, report)?;
                }
                Ok(None) => report.faults.push(format!("segment {number}: the chunk of event {} is missing", key.1)),
                Err(StorageFault::Corrupt(corrupt)) => report.faults.push(corrupt.to_string()),
                Err(fault) => return Err(fault),
            }
        }
    }
}

fn verify_chunk(
    segment: &dyn SegmentReads,
    company: CompanyId,
    chunk: &Chunk,
    mut last: Position,
    found: &mut Found,
    report: &mut VerifyReport,
) -> Result<Position, StorageFault> {
    let number = segment.number();
    report.chunks += 1;
    for (place, record) in chunk.records().enumerate() {
        report.events += 1;
        let position = Position { created: record.created, id: record.id };
        if position <= last || record.created < last.created {
            report.faults.push(format!("segment {number}: event {} does not follow event {}", record.id, last.id));
        }
        let kind = found.kinds.get(record.kind as usize).map_or("", |(folded, _)| folded);
        let start = format!("{{\"id\":{},\"companyId\":{company},\"type\":\"{kind}\",", record.id);
        let envelope = chunk.envelopes(place, place);
        if !envelope.is_some_and(|text| text.get(..start.len()).is_some_and(|text| text.eq_ignore_ascii_case(start.as_bytes()))) {
            report.faults.push(format!("segment {number}: the envelope of event {} is not its own", record.id));
        }
        if found.times.insert(record.id, record.created).is_some() {
            report.faults.push(format!("segment {number}: event {} is there twice", record.id));
        }
        for mark in snapshots::marks(chunk, place)? {
            report.snapshots += 1;
            found.snapshots.insert((record.id, mark.reference));
            match segment.snapshot(company, record.id, mark.reference) {
                Ok(Some(snapshot)) if snapshot.hash == mark.hash => {}
                Ok(_) => report.faults.push(snapshots::corrupt(number, record.id, mark.reference).to_string()),
                Err(StorageFault::Corrupt(corrupt)) => report.faults.push(corrupt.to_string()),
                Err(fault) => return Err(fault),
            }
        }
        last = position;
    }
    let first_id = chunk.record(0).map(|first| first.id.0);
    if segment.key_of_id(company, last.id)?.map(|key| key.1) != first_id {
        report.faults.push(format!("segment {number}: the index does not lead to event {}", last.id));
    }
    Ok(last)
}
