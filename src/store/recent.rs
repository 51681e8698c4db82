//! The newest chunks of the open segment as shared bytes: what pollers at the tail read.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use super::chunk::Chunk;
use super::live::LiveSegment;
use crate::domain::company::CompanyId;
use crate::domain::cursor::Position;

/// Events that are kept at most.
const EVENTS_MAX: usize = 4096;
/// Bytes that are kept at most.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// The newest chunks of all companies, bounded by events and bytes.
#[derive(Debug, Default)]
pub(super) struct Recent {
    segment: Option<Arc<LiveSegment>>,
    companies: HashMap<CompanyId, VecDeque<Chunk>>,
    /// Companies in the order of their chunks, oldest first.
    order: VecDeque<CompanyId>,
    /// For each company the newest event that is no longer here; for the others `before`.
    forgotten: HashMap<CompanyId, Position>,
    /// The tail when the segment was opened, and then the newest event of any company that is no longer here.
    forgotten_of_any: Position,
    /// The tail when the segment was opened.
    before: Position,
    events: usize,
    bytes: usize,
}

/// See [`Recent::kinds_above`].
#[derive(Debug)]
pub(super) struct KindsAbove {
    /// The segment that the kinds are numbered in.
    pub segment: Arc<LiveSegment>,
    pub kinds: BTreeSet<(CompanyId, u32)>,
    /// The newest event.
    pub reached: Position,
}

impl Recent {
    /// Starts anew with a segment that is open from now on; `before` is the tail at this moment.
    pub fn start(segment: Arc<LiveSegment>, before: Position) -> Self {
        Self { segment: Some(segment), forgotten_of_any: before, before, ..Self::default() }
    }

    pub fn push(&mut self, company: CompanyId, chunk: Chunk) {
        self.events += chunk.count();
        self.bytes += chunk.bytes().len();
        self.companies.entry(company).or_default().push_back(chunk);
        self.order.push_back(company);
        while self.events > EVENTS_MAX || self.bytes > BYTES_MAX {
            let Some(company) = self.order.pop_front() else { return };
            let Some(chunk) = self.companies.get_mut(&company).and_then(VecDeque::pop_front) else { return };
            self.events -= chunk.count();
            self.bytes -= chunk.bytes().len();
            if let Some(last) = chunk.record(chunk.count().saturating_sub(1)) {
                let last = Position { created: last.created, id: last.id };
                self.forgotten.insert(company, last);
                self.forgotten_of_any = self.forgotten_of_any.max(last);
            }
        }
    }

    /// The company's chunks that hold everything above `position`, or none when some of it is not here any more.
    pub fn above(&self, company: CompanyId, position: Position, limit: usize) -> Option<(Arc<LiveSegment>, Vec<Chunk>)> {
        let segment = self.segment.as_ref()?;
        if position < *self.forgotten.get(&company).unwrap_or(&self.before) {
            return None;
        }
        let Some(chunks) = self.companies.get(&company) else { return Some((Arc::clone(segment), Vec::new())) };
        let from = chunks.partition_point(|chunk| {
            chunk.record(chunk.count().saturating_sub(1)).is_some_and(|last| (last.created, last.id) <= (position.created, position.id))
        });
        Some((Arc::clone(segment), chunks.iter().skip(from).take(limit).cloned().collect()))
    }

    /// Which companies have events of which kinds above `position`, and the newest of them, or none when some of what
    /// lies there is not here any more.
    pub fn kinds_above(&self, position: Position) -> Option<KindsAbove> {
        let segment = self.segment.as_ref()?;
        if position < self.forgotten_of_any {
            return None;
        }
        let mut kinds = BTreeSet::new();
        let mut reached = position;
        let mut seen: HashMap<CompanyId, usize> = HashMap::new();
        for company in self.order.iter().rev() {
            let chunks = self.companies.get(company)?;
            let place = seen.entry(*company).or_default();
            *place += 1;
            let chunk = chunks.get(chunks.len().checked_sub(*place)?)?;
            let last = chunk.record(chunk.count().saturating_sub(1))?;
            // The chunks of one commit have one time, and their ids lie between each other's.
            if last.created < position.created {
                break;
            }
            for record in chunk.records().rev() {
                let at = Position { created: record.created, id: record.id };
                if at <= position {
                    break;
                }
                kinds.insert((*company, record.kind));
                reached = reached.max(at);
            }
        }
        Some(KindsAbove { segment: Arc::clone(segment), kinds, reached })
    }

    /// The chunk that may hold an event, if it is still here, and the segment it belongs to.
    pub fn holding(&self, company: CompanyId, id: crate::domain::event::EventId) -> Option<(Arc<LiveSegment>, Chunk)> {
        let chunks = self.companies.get(&company)?;
        let after = chunks.partition_point(|chunk| chunk.record(0).is_some_and(|first| first.id <= id));
        Some((Arc::clone(self.segment.as_ref()?), chunks.get(after.checked_sub(1)?)?.clone()))
    }
}
