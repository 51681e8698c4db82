//! A lane: what one subscription has to do. It exists only while there is something.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use super::permits::{self, Permit};
use super::rate::Rate;
use crate::domain::cursor::Position;
use crate::domain::event::EventId;
use crate::domain::health::Health;
use crate::domain::profile::Knobs;
use crate::domain::subscription::{Ordering, Standing, Subscription};
use crate::domain::time::Timestamp;
use crate::store::{LogBatch, LogEvent, PositionRow, RetryRow};
use crate::webhook::Target;

/// Events above the position that may be known as settled or not; with more, the lane stops reading ahead.
pub(super) const SLOTS_MAX: usize = 4_096;
/// Events that may wait for a retry; with more, the lane stops reading ahead.
pub(super) const RETRIES_MAX: usize = 10_000;

/// An event above the position.
#[derive(Debug, Clone, Copy)]
struct Slot {
    created: Timestamp,
    is_settled: bool,
}

/// An attempt under way.
#[derive(Debug)]
pub(super) struct Flight {
    pub event: LogEvent,
    /// Counted from 1.
    pub number: u32,
    pub started: Timestamp,
    pub permit: Permit,
    /// Whether the event was owed by a row before this attempt.
    pub is_retry: bool,
}

/// What a lane may do next.
#[derive(Debug)]
pub(super) enum Pick {
    /// Attempt the oldest event that waits.
    Fresh(LogEvent),
    /// Attempt an event that is owed; its content is in the log.
    Owed(EventId),
}

#[derive(Debug)]
pub(super) struct Lane {
    pub subscription: Arc<Subscription>,
    pub target: Arc<Target>,
    pub knobs: Arc<Knobs>,
    pub host: Arc<str>,
    /// Every matching event at or below it is settled.
    pub position: Position,
    /// Of the events at or below it, only those under way have neither expired nor been settled.
    pub expired_to: Position,
    /// Every matching event at or below it is in `slots` or settled.
    read_to: Position,
    /// More may lie above `read_to`.
    pub is_behind: bool,
    slots: BTreeMap<EventId, Slot>,
    /// Settled above the position, and not read yet since the lane was made or another filter applied.
    settled_before: BTreeSet<EventId>,
    waiting: VecDeque<LogEvent>,
    /// Owed events in the order in which they are due. Not the one that blocks a strict lane.
    due: BTreeSet<(Timestamp, EventId)>,
    pub owed: BTreeMap<EventId, RetryRow>,
    pub in_flight: BTreeMap<EventId, Flight>,
    pub health: Health,
    pub rate: Rate,
    /// Whether the last answer was longer than what is kept of it: it cost more than an answer should.
    pub is_heavy: bool,
    /// Whether the last attempt that ended was one as it should be: a success with a short answer.
    pub is_proven: bool,
    /// Alternates, so that neither fresh events nor retries starve.
    prefers_retry: bool,
    /// The ledger has a position row.
    pub has_row: bool,
    /// When the lane's timer is set, if it is.
    pub timer: Option<Timestamp>,
}

impl Lane {
    /// A lane at `position`; what lies above it is read from the log.
    pub fn new(subscription: Arc<Subscription>, target: Arc<Target>, host: Arc<str>, position: Position) -> Self {
        let knobs = Arc::new(subscription.knobs());
        Self {
            health: subscription.health,
            knobs,
            subscription,
            target,
            host,
            position,
            expired_to: Position::START,
            read_to: position,
            is_behind: true,
            slots: BTreeMap::new(),
            settled_before: BTreeSet::new(),
            waiting: VecDeque::new(),
            due: BTreeSet::new(),
            owed: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            rate: Rate::default(),
            is_heavy: false,
            is_proven: false,
            prefers_retry: true,
            has_row: false,
            timer: None,
        }
    }

    /// Takes over what the ledger says at start.
    pub fn restore(&mut self, row: Option<PositionRow>, retries: Vec<(EventId, RetryRow)>) {
        if let Some(row) = row {
            self.position = row.position;
            self.read_to = row.position;
            self.settled_before = row.settled.into_iter().collect();
            self.has_row = true;
        }
        for (event, row) in retries {
            self.due.insert((row.due, event));
            self.owed.insert(event, row);
        }
    }

    fn is_strict(&self) -> bool {
        self.subscription.wishes.ordering == Ordering::Strict
    }

    /// Where the lane reads on, and how many events it has room for.
    pub fn wants(&self, ahead: usize) -> Option<(Position, usize)> {
        let is_stopped = self.subscription.standing != Standing::Active
            || self.health == Health::GivenUp
            || self.slots.len() >= SLOTS_MAX
            || self.owed.len() >= RETRIES_MAX;
        if !self.is_behind || is_stopped || self.waiting.len() >= ahead {
            return None;
        }
        Some((self.read_to, ahead - self.waiting.len()))
    }

    /// Takes events that were read.
    pub fn take(&mut self, batch: LogBatch, passes_stuck: bool) {
        for event in batch.events {
            if self.slots.contains_key(&event.id) {
                continue;
            }
            let mut is_settled = self.settled_before.remove(&event.id);
            if let Some(row) = self.owed.get(&event.id).filter(|_| !self.in_flight.contains_key(&event.id)) {
                if self.is_strict() && !passes_stuck && !is_settled {
                    // It blocks the lane; its row says for how long.
                    self.due.remove(&(row.due, event.id));
                } else {
                    is_settled = true;
                }
            }
            self.slots.insert(event.id, Slot { created: event.created, is_settled });
            if !is_settled && !self.in_flight.contains_key(&event.id) {
                self.waiting.push_back(event);
            }
        }
        self.read_to = self.read_to.max(batch.reached);
        self.is_behind = batch.is_behind;
        self.advance();
    }

    /// Moves the position over what is settled.
    fn advance(&mut self) {
        while let Some(first) = self.slots.first_entry()
            && first.get().is_settled
        {
            self.position = Position { created: first.get().created, id: *first.key() };
            first.remove();
        }
        if self.slots.is_empty() {
            self.position = self.position.max(self.read_to);
        }
        let passed = self.position.id;
        while self.settled_before.first().is_some_and(|id| *id <= passed) {
            self.settled_before.pop_first();
        }
    }

    fn settle(&mut self, event: EventId) {
        if let Some(slot) = self.slots.get_mut(&event) {
            slot.is_settled = true;
        } else if event > self.position.id {
            // It is not read again yet.
            self.settled_before.insert(event);
        }
        self.advance();
    }

    /// Forgets what was read and not attempted: another filter may apply to it, or nobody will attempt it for a while.
    pub fn reread(&mut self) {
        // A slot stands for everything below it, too: what is not read any more may not lie below one.
        let settled = std::mem::take(&mut self.slots).into_iter().filter(|(_, slot)| slot.is_settled);
        self.settled_before.extend(settled.map(|(id, _)| id));
        for event in self.waiting.drain(..) {
            // One that blocks stays owed by its row, and may never come back: neither its type nor the order may be
            // wanted any more.
            if let Some(row) = self.owed.get(&event.id) {
                self.due.insert((row.due, event.id));
            }
        }
        self.read_to = self.position;
        self.is_behind = true;
    }

    /// Nothing is left to do, to remember or to wait for.
    pub fn is_idle(&self) -> bool {
        self.is_settled() && self.owed.is_empty() && matches!(self.health, Health::Sound { failing: None })
    }

    /// Every matching event that was routed is settled or owed by a row.
    pub fn is_settled(&self) -> bool {
        !self.is_behind && self.slots.is_empty() && self.settled_before.is_empty() && self.in_flight.is_empty()
    }

    /// The position as the ledger keeps it; none when `settled_tail` says it all.
    pub fn row(&self) -> Option<PositionRow> {
        if self.is_settled() {
            return None;
        }
        let settled = self.slots.iter().filter(|(_, slot)| slot.is_settled).map(|(id, _)| *id);
        let mut settled: Vec<EventId> = settled.chain(self.settled_before.iter().copied()).collect();
        settled.sort_unstable();
        settled.dedup();
        Some(PositionRow { position: self.position, settled })
    }

    /// Attempts that may be in flight now.
    fn window(&self, now: Timestamp) -> usize {
        usize::from(self.health.window(self.subscription.in_flight_max(), now))
    }

    /// The front of the queue, unless it blocks until later.
    fn fresh_is_ready(&self, now: Timestamp) -> bool {
        let Some(front) = self.waiting.front() else { return false };
        self.owed.get(&front.id).is_none_or(|row| row.due <= now)
    }

    /// What the lane may attempt now. The caller starts it, or gives it back.
    pub fn pick(&mut self, now: Timestamp) -> Option<Pick> {
        let is_active = self.subscription.standing == Standing::Active;
        let per_minute = self.subscription.wishes.rate_per_minute;
        if !is_active || self.in_flight.len() >= self.window(now) || self.rate.ready_at(per_minute) > now {
            return None;
        }
        let retry = self.due.first().filter(|(due, _)| *due <= now).copied();
        let fresh = self.fresh_is_ready(now);
        match retry {
            Some((due, event)) if self.prefers_retry || !fresh => {
                self.due.remove(&(due, event));
                self.prefers_retry = false;
                Some(Pick::Owed(event))
            }
            _ if fresh => {
                self.prefers_retry = true;
                self.waiting.pop_front().map(Pick::Fresh)
            }
            _ => None,
        }
    }

    /// Gives back what was picked and not started.
    pub fn unpick(&mut self, pick: Pick) {
        match pick {
            Pick::Fresh(event) => self.waiting.push_front(event),
            Pick::Owed(event) => self.owe_again(event),
        }
    }

    fn owe_again(&mut self, event: EventId) {
        if let Some(row) = self.owed.get(&event) {
            self.due.insert((row.due, event));
        }
    }

    /// Notes an attempt that starts.
    pub fn start(&mut self, flight: Flight) {
        self.rate.count(self.subscription.wishes.rate_per_minute, flight.started);
        self.in_flight.insert(flight.event.id, flight);
    }

    /// The number of the next attempt of an event.
    pub fn next_number(&self, event: EventId) -> u32 {
        self.owed.get(&event).map_or(0, |row| row.attempts) + 1
    }

    /// An attempt has ended for good: delivered, dead or expired. True when a row must go.
    pub fn close(&mut self, event: EventId) -> bool {
        let had_row = self.owed.remove(&event).is_some_and(|row| {
            self.due.remove(&(row.due, event));
            true
        });
        self.settle(event);
        had_row
    }

    /// An attempt has failed and is to be repeated.
    pub fn owe(&mut self, event: LogEvent, row: RetryRow, passes_stuck: bool) {
        let id = event.id;
        let blocks = self.is_strict() && !passes_stuck && self.is_open(id);
        if blocks && self.slots.contains_key(&id) {
            // Not settled: the position stays below it, and it is the next to be attempted.
            self.put_back(event);
        } else {
            self.due.insert((row.due, id));
        }
        self.owed.insert(id, row);
        if !blocks {
            self.settle(id);
        }
    }

    /// Whether an event keeps the position below it.
    fn is_open(&self, event: EventId) -> bool {
        match self.slots.get(&event) {
            Some(slot) => !slot.is_settled,
            None => event > self.position.id && !self.settled_before.contains(&event),
        }
    }

    /// An attempt has ended without a verdict on its event, which is to be attempted as if it had not been.
    pub fn give_back(&mut self, flight: Flight) {
        let id = flight.event.id;
        if self.slots.get(&id).is_some_and(|slot| !slot.is_settled) {
            self.put_back(flight.event);
        } else {
            self.owe_again(id);
        }
    }

    /// An event waits again, in its place: of several in flight any may have come back before.
    fn put_back(&mut self, event: LogEvent) {
        let place = self.waiting.partition_point(|known| known.id < event.id);
        self.waiting.insert(place, event);
    }

    /// Owes an event by hand: attempted now, whatever became of it before. How it is owed from now on.
    pub fn owe_by_hand(&mut self, event: EventId, mut row: RetryRow) -> RetryRow {
        if let Some(before) = self.owed.get(&event) {
            self.due.remove(&(before.due, event));
            // Who has asked may not know of the last attempt yet.
            row.attempts = row.attempts.max(before.attempts);
        }
        self.owed.insert(event, row);
        if self.waiting.iter().all(|known| known.id != event) && !self.in_flight.contains_key(&event) {
            self.due.insert((row.due, event));
        }
        row
    }

    /// Stops owing an event by hand. False when nothing was owed, or an attempt is under way.
    pub fn discard(&mut self, event: EventId) -> bool {
        if self.in_flight.contains_key(&event) || !self.owed.contains_key(&event) {
            return false;
        }
        self.waiting.retain(|known| known.id != event);
        self.close(event);
        true
    }

    /// Events above `from`, up to `to`, that are settled, under way or owed by a row.
    pub fn taken_between(&self, from: Position, to: Position) -> u64 {
        if to <= from {
            return 0;
        }
        let range = (Bound::Excluded(from.id), Bound::Included(to.id));
        let settled = self.slots.range(range).filter(|(_, slot)| slot.is_settled).count() + self.settled_before.range(range).count();
        let owed = self.owed.range(range).map(|(event, _)| event).filter(|event| !self.in_flight.contains_key(event));
        let in_flight = self.in_flight.range(range).map(|(event, _)| event);
        (settled + in_flight.chain(owed).filter(|event| self.is_open(**event)).count()) as u64
    }

    /// Moves over events that have expired and were never attempted; `to` is the last of them.
    pub fn pass_expired(&mut self, to: Position) {
        let is_over = |event: &&LogEvent| event.created <= to.created && event.id <= to.id && !self.owed.contains_key(&event.id);
        let expired: BTreeSet<EventId> = self.waiting.iter().filter(is_over).map(|event| event.id).collect();
        self.waiting.retain(|event| !expired.contains(&event.id));
        for event in expired {
            self.settle(event);
        }
        if self.slots.is_empty() {
            self.read_to = self.read_to.max(to);
        }
        self.expired_to = self.expired_to.max(to);
        self.advance();
    }

    /// Owed events that were created before this.
    pub fn owed_before(&self, cutoff: Timestamp) -> Vec<(EventId, RetryRow)> {
        let is_over =
            |(event, row): (&EventId, &RetryRow)| (row.created < cutoff && !self.in_flight.contains_key(event)).then_some((*event, *row));
        self.owed.iter().filter_map(is_over).collect()
    }

    /// Events that were read and wait for their first attempt.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// When the lane could start something that it cannot start now.
    pub fn wakes_at(&self, now: Timestamp) -> Option<Timestamp> {
        if self.subscription.standing != Standing::Active || self.health == Health::GivenUp {
            return None;
        }
        let retry = self.due.first().map(|(due, _)| *due);
        let fresh = self.waiting.front().map(|front| self.owed.get(&front.id).map_or(now, |row| row.due));
        let work = match (retry, fresh) {
            (Some(retry), Some(fresh)) => Some(retry.min(fresh)),
            (retry, fresh) => retry.or(fresh),
        }?;
        let allowed = self.rate.ready_at(self.subscription.wishes.rate_per_minute);
        let probed = self.health.wakes_at().unwrap_or_default();
        // What is ready now waits for room, which is not a matter of time.
        Some(work.max(allowed).max(probed)).filter(|time| *time > now)
    }

    /// Owed events above the position that are not settled: those that block.
    pub fn owed_above(&self) -> usize {
        let is_settled = |event: &EventId| self.settled_before.contains(event) || self.slots.get(event).is_some_and(|slot| slot.is_settled);
        self.owed.keys().filter(|event| **event > self.position.id && !is_settled(event)).count()
    }

    /// What is known of its receiver: one that must not hold up others keeps an attempt waiting, fails or answers at length.
    pub fn standing(&self, now: Timestamp) -> permits::Standing {
        let is_hanging = || self.in_flight.values().any(|flight| now.since(flight.started) > std::time::Duration::from_secs(1));
        if self.is_heavy || self.health.is_slow() || is_hanging() {
            permits::Standing::Slow
        } else if self.is_proven {
            permits::Standing::Proven
        } else {
            permits::Standing::Unproven
        }
    }
}
