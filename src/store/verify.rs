//! Checks every checksum and invariant of a store.

use std::collections::BTreeSet;

use super::chunk::Chunk;
use super::segment::{Segment, SegmentReads};
use super::{StorageFault, Store};
use crate::domain::company::CompanyId;
use crate::domain::cursor::Position;

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VerifyReport {
    /// Segments looked at.
    pub segments: u64,
    /// Events read.
    pub events: u64,
    /// Chunks whose checksum was computed.
    pub chunks: u64,
    /// What is wrong, each with its segment.
    pub faults: Vec<String>,
}

impl Store {
    /// Reads the whole log: every chunk's checksum, the order of ids and times within each company and over the segments, and
    /// that ids are found through the indexes.
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
            let events = report.events;
            let companies: BTreeSet<CompanyId> = match segment {
                Segment::Live(live) => live.index().companies.keys().copied().collect(),
                Segment::Sealed(sealed) => sealed.companies()?.into_iter().collect(),
            };
            for company in companies {
                verify_company(segment.reads(), company, &mut report)?;
            }
            if let Segment::Sealed(sealed) = segment {
                let found = report.events - events;
                if found != sealed.summary.events {
                    report.faults.push(format!("segment {number} holds {found} events, {} were sealed", sealed.summary.events));
                }
                sealed.dedupe_rows()?;
            }
        }
        Ok(report)
    }
}

fn verify_company(segment: &dyn SegmentReads, company: CompanyId, report: &mut VerifyReport) -> Result<(), StorageFault> {
    let mut last = Position::START;
    let mut seen = None;
    loop {
        let keys = segment.keys_from(company, Position { created: last.created, id: last.id }, true, 64)?;
        let fresh: Vec<_> = keys.into_iter().filter(|key| seen.is_none_or(|seen| *key > seen)).collect();
        if fresh.is_empty() {
            return Ok(());
        }
        for key in fresh {
            seen = Some(key);
            let number = segment.number();
            let chunk = match segment.chunk(company, key) {
                Ok(Some(chunk)) => chunk,
                Ok(None) => {
                    report.faults.push(format!("segment {number}: the chunk of event {} is missing", key.1));
                    continue;
                }
                Err(StorageFault::Corrupt(corrupt)) => {
                    report.faults.push(corrupt.to_string());
                    last =
                        Position { created: crate::domain::time::Timestamp::from_micros(key.0), id: crate::domain::event::EventId(key.1) };
                    continue;
                }
                Err(fault) => return Err(fault),
            };
            last = verify_chunk(segment, company, key.1, &chunk, last, report)?;
        }
    }
}

fn verify_chunk(
    segment: &dyn SegmentReads,
    company: CompanyId,
    first_id: u64,
    chunk: &Chunk,
    mut last: Position,
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
        let starts_right =
            chunk.envelopes(place, place).is_some_and(|text| text.starts_with(format!("{{\"id\":{},", record.id).as_bytes()));
        if !starts_right {
            report.faults.push(format!("segment {number}: the envelope of event {} is not its own", record.id));
        }
        last = position;
    }
    if segment.key_of_id(company, last.id)?.map(|key| key.1) != Some(first_id) {
        report.faults.push(format!("segment {number}: the index does not lead to event {}", last.id));
    }
    Ok(last)
}
