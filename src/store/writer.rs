//! The log's only writer: takes what waits, one transaction, commit, then tells.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redb::{Durability, WriteTransaction};
use tracing::{info, warn};

use super::answer::Wakes;
use super::chunk::{Chunk, ChunkBuilder};
use super::live::{LiveSegment, pack_commit};
use super::prepared::{DedupeEntry, DedupeMap, PreparedEvent, number_text};
use super::queue::{Caller, Outcomes, Waiting};
use super::seal::{chunk_target, insert_chunks};
use super::segment::Segment;
use super::tables::{CompanyTables, DEDUPE_LOG, NAMES};
use super::{AppendError, Inner, StorageFault};
use crate::domain::company::CompanyId;
use crate::domain::cursor::Position;
use crate::domain::event::{EventId, Receipt};
use crate::domain::time::Timestamp;

/// After so long without traffic an empty commit makes the next open instant.
const SETTLE_AFTER: Duration = Duration::from_secs(2);
/// Unsealed segments that may wait; with more, publishing is refused until one is sealed.
pub(super) const WAITING_MAX: usize = 2;

/// What the writer alone knows.
#[derive(Debug)]
pub(super) struct Writer {
    pub open: Arc<LiveSegment>,
    /// The newest event of the log.
    pub last: Position,
    /// When the open segment got its first event, in log time.
    pub opened: Option<Timestamp>,
    /// Commits since the last empty one.
    pub unsettled: bool,
    /// Stands in for the log as the source of ids when that bug is planted.
    pub counter: u64,
}

/// What is decided about one event before anything is written.
enum Decision {
    New(Receipt),
    Answer(Result<Receipt, AppendError>),
}

impl Writer {
    /// Writes everything in `waiting` in one transaction, makes it visible, and answers.
    pub fn commit(&mut self, inner: &Inner, waiting: Vec<Waiting>) -> Result<(), StorageFault> {
        if waiting.is_empty() {
            return Ok(());
        }
        let mut events = Vec::with_capacity(waiting.len());
        let mut callers = Vec::with_capacity(waiting.len());
        for one in waiting {
            callers.push(one.into_parts(&mut events));
        }
        let created = inner.now().max(self.last.created);
        let (decisions, dedupe) = self.decide(inner, &events, created)?;
        let answers = decisions.iter().map(Decision::answer).collect();
        let new: Vec<(&PreparedEvent, Receipt)> = events
            .iter()
            .zip(&decisions)
            .filter_map(|(event, decision)| match decision {
                Decision::New(receipt) => Some((event, *receipt)),
                Decision::Answer(_) => None,
            })
            .collect();
        if inner.faults.acknowledge_before_commit {
            tell(std::mem::take(&mut callers), Vec::clone(&answers));
        }
        if let Some((_, receipt)) = new.last() {
            let tail = Position { created, id: receipt.id };
            let started = Instant::now();
            let plan = self.write(inner, &new, &dedupe)?;
            inner.options.metrics.count_commit(new.len(), started.elapsed());
            self.publish(inner, plan, &dedupe, tail);
        }
        tell(callers, answers);
        Ok(())
    }

    /// Gives ids to what is new, and finds what is not.
    fn decide(&self, inner: &Inner, events: &[PreparedEvent], created: Timestamp) -> Result<(Vec<Decision>, DedupeMap), StorageFault> {
        let mut next = if inner.faults.ids_from_counter { self.counter } else { self.last.id.0 };
        let with_key = events.iter().filter(|event| event.dedupe.is_some()).count();
        let mut fresh = DedupeMap::with_capacity_and_hasher(with_key, Default::default());
        let mut decisions = Vec::with_capacity(events.len());
        let list = inner.segments.load();
        let cutoff = inner.cutoff_at(created);
        for event in events {
            let known = match event.dedupe {
                None => None,
                Some(dedupe) => match fresh.get(&dedupe.hash) {
                    Some(entry) => Some(*entry),
                    None => {
                        // The publisher's thread has asked the segments that were sealed then; what is left is asked here.
                        let mut found = None;
                        for segment in list.segments.iter().rev().take_while(|segment| segment.reads().number() >= event.asked_below) {
                            found = segment.reads().dedupe(dedupe.hash)?;
                            if found.is_some() {
                                break;
                            }
                        }
                        found.filter(|entry| entry.created >= cutoff)
                    }
                },
            };
            decisions.push(match (known, event.dedupe) {
                (Some(entry), Some(dedupe)) => Decision::Answer(super::duplicate_answer(&entry, dedupe.fingerprint)),
                _ => {
                    next += 1;
                    let receipt = Receipt { id: EventId(next), created, duplicate: false };
                    if let Some(dedupe) = event.dedupe {
                        fresh.insert(dedupe.hash, DedupeEntry { id: receipt.id, created, fingerprint: dedupe.fingerprint });
                    }
                    Decision::New(receipt)
                }
            });
        }
        Ok((decisions, fresh))
    }

    /// One transaction, on disk when this returns.
    fn write(&mut self, inner: &Inner, new: &[(&PreparedEvent, Receipt)], dedupe: &DedupeMap) -> Result<Plan, StorageFault> {
        let plan = Plan::of(&self.open, new);
        let mut transaction = self.open.database.begin_write()?;
        transaction.set_durability(Durability::Immediate).map_err(|error| StorageFault::Record(error.to_string()))?;
        for (company, chunks) in &plan.chunks {
            insert_chunks(&transaction, &CompanyTables::of(*company), chunks)?;
        }
        if !inner.faults.snapshots_in_another_transaction {
            insert_snapshots(&transaction, new)?;
        }
        if !plan.names.is_empty() {
            let mut names = transaction.open_table(NAMES)?;
            for (name, kind) in &plan.names {
                names.insert(*kind, name.as_ref())?;
            }
        }
        let packed = if dedupe.is_empty() { Vec::new() } else { pack_commit(dedupe) };
        let first_id = new.first().map_or(0, |(_, receipt)| receipt.id.0);
        if !packed.is_empty() && !inner.faults.dedupe_in_another_transaction {
            transaction.open_table(DEDUPE_LOG)?.insert(first_id, packed.as_slice())?;
        }
        transaction.commit()?;
        if !packed.is_empty() && inner.faults.dedupe_in_another_transaction {
            let transaction = self.open.database.begin_write()?;
            transaction.open_table(DEDUPE_LOG)?.insert(first_id, packed.as_slice())?;
            transaction.commit()?;
        }
        if inner.faults.snapshots_in_another_transaction {
            let transaction = self.open.database.begin_write()?;
            insert_snapshots(&transaction, new)?;
            transaction.commit()?;
        }
        Ok(plan)
    }

    /// Lets readers see what was committed.
    fn publish(&mut self, inner: &Inner, plan: Plan, dedupe: &DedupeMap, tail: Position) {
        {
            let mut index = self.open.index_mut();
            for (name, kind) in &plan.names {
                index.names.insert(*kind, name);
            }
            for (company, chunks) in &plan.chunks {
                for chunk in chunks {
                    index.add_chunk(*company, chunk);
                }
            }
            index.dedupe.extend(dedupe);
        }
        {
            let mut recent = inner.recent_mut();
            for (company, chunks) in plan.chunks {
                for chunk in chunks {
                    recent.push(company, chunk);
                }
            }
        }
        self.opened.get_or_insert(tail.created);
        self.unsettled = true;
        self.last = tail;
        self.counter = self.counter.max(tail.id.0);
        inner.ledger.note_tail(tail.id);
        inner.options.metrics.show_tail(tail.id);
        inner.tail.send_replace(tail);
    }

    /// Closes the open segment and opens the next one, when its size or its age says so.
    pub fn rotate_if_due(&mut self, inner: &Inner) -> Result<(), StorageFault> {
        let (bytes, events) = {
            let index = self.open.index();
            (index.stored_bytes, index.events)
        };
        if events == 0 {
            return Ok(());
        }
        let now = inner.now().max(self.last.created);
        let opened = self.opened.unwrap_or(self.last.created);
        let past_midnight = now.as_seconds() / 86_400 != opened.as_seconds() / 86_400;
        let too_old = now.since(opened) >= inner.options.segment_age_max;
        let all_expired = self.last.created < inner.cutoff_at(now);
        if !(bytes >= inner.options.segment_bytes_max || past_midnight || too_old || all_expired) {
            return Ok(());
        }
        let waiting = inner.segments.load().waiting().len();
        if waiting >= WAITING_MAX {
            // Publishing is refused meanwhile if the segment is full; an aged one simply goes on.
            let is_full = bytes >= inner.options.segment_bytes_max;
            if is_full && !inner.stalled.swap(true, std::sync::atomic::Ordering::AcqRel) {
                warn!(segment = self.open.number, waiting, "Publishing is refused until one of {waiting} waiting segments is sealed");
            }
            return Ok(());
        }
        self.rotate(inner)
    }

    fn rotate(&mut self, inner: &Inner) -> Result<(), StorageFault> {
        let number = self.open.number + 1;
        let next = inner.create_segment(number)?;
        if inner.faults.ids_from_counter {
            let counter = self.counter;
            inner.ledger.write(|transaction| {
                transaction.open_table(super::ledger::SETTINGS)?.insert("counter", counter)?;
                Ok(())
            })?;
        }
        let closed = std::mem::replace(&mut self.open, Arc::clone(&next));
        *inner.recent_mut() = super::recent::Recent::start(Arc::clone(&next), self.last);
        inner.change_segments(|list| list.segments.push(Segment::Live(Arc::clone(&next))));
        self.opened = None;
        self.unsettled = false;
        // It may have been set while the segment that made room was being taken over.
        inner.stalled.store(false, std::sync::atomic::Ordering::Release);
        info!(segment = closed.number, "Segment {} is closed, segment {number} is open", closed.number);
        inner.wake_maintenance();
        Ok(())
    }

    /// The empty commit after a pause in traffic.
    pub fn settle(&mut self) -> Result<(), StorageFault> {
        if std::mem::take(&mut self.unsettled) {
            self.open.settle()?;
        }
        Ok(())
    }

    /// How long the writer may wait for work before it must look around.
    pub fn patience(&self) -> Duration {
        if self.unsettled { SETTLE_AFTER } else { Duration::from_secs(10) }
    }
}

impl Decision {
    fn answer(&self) -> Result<Receipt, AppendError> {
        match self {
            Self::New(receipt) => Ok(*receipt),
            Self::Answer(answer) => answer.clone(),
        }
    }
}

/// What one transaction will add.
struct Plan {
    chunks: BTreeMap<CompanyId, Vec<Chunk>>,
    /// New names, in the order of their numbers.
    names: Vec<(Box<[u8]>, u32)>,
}

impl Plan {
    /// Cuts the new events into chunks, company by company, each in the order of its ids.
    fn of(open: &LiveSegment, new: &[(&PreparedEvent, Receipt)]) -> Self {
        let mut by_company: BTreeMap<CompanyId, Vec<&(&PreparedEvent, Receipt)>> = BTreeMap::new();
        for one in new {
            by_company.entry(one.0.company).or_default().push(one);
        }
        let index = open.index();
        let mut next_kind = index.names.next_number();
        let mut names: BTreeMap<Box<[u8]>, u32> = BTreeMap::new();
        let mut chunks = BTreeMap::new();
        let mut builder = ChunkBuilder::default();
        for (company, events) in by_company {
            let mut of_company = Vec::new();
            let mut rest: usize = events.iter().map(|(event, _)| event.chunk_bytes()).sum();
            let mut target = chunk_target(rest);
            for (event, receipt) in events {
                let known = index.names.number(&event.kind).or_else(|| names.get(&event.kind).copied());
                let kind = known.unwrap_or_else(|| {
                    names.insert(event.kind.clone(), next_kind);
                    next_kind += 1;
                    next_kind - 1
                });
                let mut digits = [0; 20];
                let id_text = number_text(receipt.id.0, &mut digits);
                let time_text = receipt.created.to_text();
                let entry = event.entry(receipt, kind, id_text, &time_text);
                if builder.first().is_some() && builder.length() + entry.bytes() > target {
                    of_company.extend(builder.finish(company));
                    target = chunk_target(rest);
                }
                rest = rest.saturating_sub(event.chunk_bytes());
                builder.push(&entry);
            }
            of_company.extend(builder.finish(company));
            chunks.insert(company, of_company);
        }
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort_unstable_by_key(|(_, kind)| *kind);
        Self { chunks, names }
    }
}

/// Writes the snapshots of new events, in the order of their ids.
fn insert_snapshots(transaction: &WriteTransaction, new: &[(&PreparedEvent, Receipt)]) -> Result<(), StorageFault> {
    for (event, receipt) in new {
        for snapshot in &event.snapshots {
            snapshot.insert(transaction, event.company, receipt.id)?;
        }
    }
    Ok(())
}

/// Hands each caller its answers.
fn tell(callers: Vec<Caller>, answers: Outcomes) {
    let mut answers = answers.into_iter();
    let mut wakes = Wakes::default();
    for caller in callers {
        // A caller that has gone away does not hear it; its events are stored all the same.
        match caller {
            Caller::One(sender) => {
                if let Some(answer) = answers.next() {
                    sender.answer(answer, &mut wakes);
                }
            }
            Caller::Group(count, sender) => {
                sender.answer(answers.by_ref().take(count).collect(), &mut wakes);
            }
        }
    }
    wakes.wake();
}
