//! A lane: what one subscription has to do. It exists only while there is something.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use super::flight::{Flight, Pick, Replaying};
use super::keys::KeyQueues;
use super::receiver::Receiver;
use crate::domain::cursor::Position;
use crate::domain::event::EventId;
use crate::domain::health::Health;
use crate::domain::ordering::OrderKey;
use crate::domain::subscription::{Ordering, Subscription};
use crate::domain::time::Timestamp;
use crate::store::{LogBatch, LogEvent, PositionRow, RetryRow};

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

#[derive(Debug)]
pub(super) struct Lane {
    /// Whose wishes it follows; how its receiver stands is that one's.
    pub subscription: Arc<Subscription>,
    /// What it sends, if it is a replay's.
    pub replay: Option<Replaying>,
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
    /// The open events that are in order by key.
    keys: KeyQueues,
    /// Events above the position that wait for others of their order; their content is read when it is wanted.
    parked: BTreeSet<EventId>,
    /// Those of them that may be attempted now.
    ready: VecDeque<EventId>,
    /// Rows of events that are held since they were last taken to be written down.
    held: Vec<(EventId, RetryRow)>,
    /// Owed events in the order in which they are due. Not the one that blocks a strict lane, and none that waits for
    /// others of its order.
    due: BTreeSet<(Timestamp, EventId)>,
    pub owed: BTreeMap<EventId, RetryRow>,
    pub in_flight: BTreeMap<EventId, Flight>,
    /// Alternates, so that neither fresh events nor retries starve.
    prefers_retry: bool,
    /// The ledger has a position row.
    pub has_row: bool,
    /// When the lane's timer is set, if it is.
    pub timer: Option<Timestamp>,
}

impl Lane {
    /// A lane at `position`; what lies above it is read from the log.
    pub fn new(subscription: Arc<Subscription>, position: Position) -> Self {
        Self {
            subscription,
            replay: None,
            position,
            expired_to: Position::START,
            read_to: position,
            is_behind: true,
            slots: BTreeMap::new(),
            settled_before: BTreeSet::new(),
            waiting: VecDeque::new(),
            keys: KeyQueues::default(),
            parked: BTreeSet::new(),
            ready: VecDeque::new(),
            held: Vec::new(),
            due: BTreeSet::new(),
            owed: BTreeMap::new(),
            in_flight: BTreeMap::new(),
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
        self.owed.extend(retries);
        self.line_up();
    }

    /// Lines up the open events anew: those that are owed or under way.
    fn line_up(&mut self) {
        self.keys = KeyQueues::default();
        if self.subscription.wishes.ordering == Ordering::Key {
            for (event, row) in self.owed.iter().filter(|(event, _)| !self.in_flight.contains_key(event)) {
                if let Some(key) = row.key {
                    self.keys.enter(*event, key);
                }
            }
            for (id, flight) in &self.in_flight {
                if let Some(key) = flight.event.order_key(&self.subscription) {
                    self.keys.enter(*id, key);
                    self.keys.start(*id);
                }
            }
        }
        let may_be = self.owed.iter().filter(|(event, _)| !self.in_flight.contains_key(event) && self.keys.is_free(**event));
        self.due = may_be.map(|(event, row)| (row.due, *event)).collect();
    }

    /// The order that an open event was lined up in.
    pub fn key_of(&self, event: EventId) -> Option<OrderKey> {
        self.keys.key_of(event)
    }

    fn is_strict(&self) -> bool {
        self.subscription.wishes.ordering == Ordering::Strict
    }

    /// Where the lane reads on, and how many events it has room for.
    pub fn wants(&self, receiver: &Receiver, ahead: usize) -> Option<(Position, usize)> {
        let is_stopped = !receiver.is_open() || self.is_cancelled() || self.slots.len() >= SLOTS_MAX || self.owed.len() >= RETRIES_MAX;
        if !self.is_behind || is_stopped || self.waiting() >= ahead {
            return None;
        }
        Some((self.read_to, ahead - self.waiting()))
    }

    /// Takes events that were read.
    pub fn take(&mut self, batch: LogBatch, now: Timestamp, passes_stuck: bool) {
        for event in batch.events {
            if self.slots.contains_key(&event.id) {
                continue;
            }
            let mut is_settled = self.settled_before.remove(&event.id);
            let is_under_way = self.in_flight.contains_key(&event.id);
            if let Some(row) = self.owed.get(&event.id).filter(|_| !is_under_way) {
                if self.is_strict() && !passes_stuck && !is_settled {
                    // It blocks the lane; its row says for how long.
                    self.due.remove(&(row.due, event.id));
                } else {
                    is_settled = true;
                }
            }
            self.slots.insert(event.id, Slot { created: event.created, is_settled });
            if !is_settled && !is_under_way {
                self.queue(event, now);
            }
        }
        self.read_to = self.read_to.max(batch.reached);
        self.is_behind = batch.is_behind;
        self.advance();
    }

    /// Lets an event that was read wait for its first attempt, in its place.
    fn queue(&mut self, event: LogEvent, now: Timestamp) {
        let Some(key) = event.order_key(&self.subscription) else { return self.waiting.push_back(event) };
        let id = event.id;
        let is_stuck = self.keys.front(key).is_some_and(|front| self.owed.contains_key(&front));
        self.keys.enter(id, key);
        if is_stuck {
            self.hold(id, event.created, now);
        } else if self.keys.is_free(id) {
            self.waiting.push_back(event);
        } else {
            self.parked.insert(id);
        }
    }

    /// Owes an event behind one of its order that failed, so that the position can pass it.
    fn hold(&mut self, event: EventId, created: Timestamp, now: Timestamp) {
        let row = RetryRow { attempts: 0, due: now, created, key: self.keys.key_of(event) };
        self.owed.insert(event, row);
        self.held.push((event, row));
        if self.keys.is_free(event) {
            self.due.insert((row.due, event));
        }
        self.settle(event);
    }

    /// The rows of events that are held since this was last asked for.
    pub fn take_held(&mut self) -> Vec<(EventId, RetryRow)> {
        std::mem::take(&mut self.held)
    }

    /// An event may be attempted, as far as its order goes.
    fn release(&mut self, event: Option<EventId>) {
        let Some(event) = event.filter(|event| !self.in_flight.contains_key(event)) else { return };
        if let Some(row) = self.owed.get(&event) {
            self.due.insert((row.due, event));
        } else if self.parked.remove(&event) {
            self.ready.push_back(event);
        }
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
        self.waiting.clear();
        self.parked.clear();
        self.ready.clear();
        // One that blocked stays owed by its row, and may never come back: neither its type nor the order may be
        // wanted any more.
        self.line_up();
        self.read_to = self.position;
        self.is_behind = true;
    }

    /// Whether it is a replay's that was cancelled.
    fn is_cancelled(&self) -> bool {
        self.replay.as_ref().is_some_and(|replay| replay.is_cancelled)
    }

    /// Nothing is left to do, to remember or to wait for.
    pub fn is_idle(&self, receiver: &Receiver) -> bool {
        self.is_settled() && self.owed.is_empty() && receiver.health == Health::default()
    }

    /// Every matching event that was routed is settled or owed by a row.
    pub fn is_settled(&self) -> bool {
        !self.is_behind && self.slots.is_empty() && self.settled_before.is_empty() && self.in_flight.is_empty()
    }

    /// The position as the ledger keeps it; none when `settled_tail` says it all.
    pub fn row(&self) -> Option<PositionRow> {
        (!self.is_settled()).then(|| self.place())
    }

    /// The position and what is settled above it.
    pub fn place(&self) -> PositionRow {
        let settled = self.slots.iter().filter(|(_, slot)| slot.is_settled).map(|(id, _)| *id);
        let mut settled: Vec<EventId> = settled.chain(self.settled_before.iter().copied()).collect();
        settled.sort_unstable();
        settled.dedup();
        PositionRow { position: self.position, settled }
    }

    /// Whether an event waits for its first attempt, or is the next of a strict lane, and may have it now.
    fn fresh_is_ready(&mut self, now: Timestamp) -> bool {
        while let Some(front) = self.ready.front().copied()
            && !self.keys.is_free(front)
        {
            self.ready.pop_front();
            self.parked.insert(front);
        }
        if !self.ready.is_empty() {
            return true;
        }
        // An earlier event of its order may be owed again by hand.
        while let Some(front) = self.waiting.front().map(|front| front.id)
            && !self.keys.is_free(front)
        {
            self.waiting.pop_front();
            self.parked.insert(front);
        }
        let Some(front) = self.waiting.front() else { return false };
        self.owed.get(&front.id).is_none_or(|row| row.due <= now)
    }

    /// The first owed event that is due.
    fn first_due(&mut self, now: Timestamp) -> Option<(Timestamp, EventId)> {
        // One that must wait for others of its order comes back when they have ended.
        while let Some((_, event)) = self.due.first().copied()
            && !self.keys.is_free(event)
        {
            self.due.pop_first();
        }
        self.due.first().filter(|(due, _)| *due <= now).copied()
    }

    /// What the lane may attempt now. The caller starts it, or gives it back.
    pub fn pick(&mut self, receiver: &Receiver, now: Timestamp) -> Option<Pick> {
        let is_too_early = |replay: &Replaying| replay.is_cancelled || replay.ready_at() > now;
        if !receiver.has_room(now) || self.replay.as_ref().is_some_and(is_too_early) {
            return None;
        }
        let retry = self.first_due(now);
        let fresh = self.fresh_is_ready(now);
        match retry {
            Some((due, event)) if self.prefers_retry || !fresh => {
                self.due.remove(&(due, event));
                self.prefers_retry = false;
                Some(Pick::Stored(event))
            }
            _ if fresh => {
                self.prefers_retry = true;
                self.ready.pop_front().map(Pick::Stored).or_else(|| self.waiting.pop_front().map(Pick::Fresh))
            }
            _ => None,
        }
    }

    /// Gives back what was picked and not started.
    pub fn unpick(&mut self, pick: Pick) {
        match pick {
            Pick::Fresh(event) => self.waiting.push_front(event),
            Pick::Stored(event) => match self.owed.get(&event) {
                Some(row) => drop(self.due.insert((row.due, event))),
                None => self.ready.push_front(event),
            },
        }
    }

    /// Notes an attempt that starts.
    pub fn start(&mut self, flight: Flight) {
        if let Some(replay) = &mut self.replay {
            replay.rate.count(replay.per_minute, flight.started);
        }
        self.keys.start(flight.event.id);
        self.in_flight.insert(flight.event.id, flight);
    }

    /// Takes back an attempt that has ended; its event is closed or owed next.
    pub fn land(&mut self, event: EventId) -> Option<Flight> {
        let flight = self.in_flight.remove(&event)?;
        self.keys.end(event);
        Some(flight)
    }

    /// The number of the next attempt of an event.
    pub fn next_number(&self, event: EventId) -> u32 {
        self.owed.get(&event).map_or(0, |row| row.attempts) + 1
    }

    /// A delivery has ended: delivered, dead, cancelled or expired. True when a row must go.
    pub fn close(&mut self, event: EventId) -> bool {
        if let Some(replay) = &mut self.replay {
            replay.done += 1;
        }
        self.end(event)
    }

    fn end(&mut self, event: EventId) -> bool {
        let had_row = self.owed.remove(&event).is_some_and(|row| {
            self.due.remove(&(row.due, event));
            true
        });
        let next = self.keys.leave(event);
        self.release(next);
        self.settle(event);
        had_row
    }

    /// An attempt has failed and is to be repeated.
    pub fn owe(&mut self, event: LogEvent, row: RetryRow, now: Timestamp, passes_stuck: bool) {
        let id = event.id;
        self.owed.insert(id, row);
        if self.is_strict() && !passes_stuck && self.is_open(id) {
            // Not settled: the position stays below it, and it is the next to be attempted.
            if self.slots.contains_key(&id) {
                self.put_back(event);
            } else {
                self.due.insert((row.due, id));
            }
            return;
        }
        self.settle(id);
        let Some(key) = self.keys.key_of(id) else {
            self.due.insert((row.due, id));
            return;
        };
        for later in self.keys.behind(id) {
            if !self.owed.contains_key(&later)
                && !self.in_flight.contains_key(&later)
                && let Some(created) = self.slots.get(&later).map(|slot| slot.created)
            {
                self.parked.remove(&later);
                self.ready.retain(|known| *known != later);
                self.waiting.retain(|known| known.id != later);
                self.hold(later, created, now);
            }
        }
        let next = self.keys.free_front(key);
        self.release(next);
    }

    /// When an event above the position that was read was created.
    pub fn created_of(&self, event: EventId) -> Option<Timestamp> {
        self.slots.get(&event).map(|slot| slot.created)
    }

    /// Whether an event keeps the position below it.
    fn is_open(&self, event: EventId) -> bool {
        match self.slots.get(&event) {
            Some(slot) => !slot.is_settled,
            None => event > self.position.id && !self.settled_before.contains(&event),
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
            row.key = row.key.or(before.key);
        } else if let Some(replay) = &mut self.replay {
            replay.done = replay.done.saturating_sub(1);
        }
        self.owed.insert(event, row);
        if self.in_flight.contains_key(&event) {
            return row;
        }
        if let Some(key) = row.key.filter(|_| self.subscription.wishes.ordering == Ordering::Key) {
            self.keys.enter(event, key);
        }
        if self.waiting.iter().all(|known| known.id != event) && self.keys.is_free(event) {
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

    /// Events above `from`, up to `to`, that are settled, under way or owed by a row; some may be of a filter that
    /// applied before.
    pub fn taken_between(&self, from: Position, to: Position) -> BTreeSet<EventId> {
        if to <= from {
            return BTreeSet::new();
        }
        let range = (Bound::Excluded(from.id), Bound::Included(to.id));
        let settled = self.slots.range(range).filter(|(_, slot)| slot.is_settled).map(|(event, _)| *event);
        let settled = settled.chain(self.settled_before.range(range).copied());
        let open = self.owed.range(range).map(|(event, _)| *event).chain(self.in_flight.range(range).map(|(event, _)| *event));
        settled.chain(open.filter(|event| self.is_open(*event))).collect()
    }

    /// Moves over events that have expired and were never attempted; `to` is the last of them.
    pub fn pass_expired(&mut self, to: Position) {
        let is_over = |event: &EventId, created: Timestamp| created <= to.created && *event <= to.id && !self.owed.contains_key(event);
        let waiting = self.waiting.iter().map(|event| (event.id, event.created));
        let parked = self.parked.iter().chain(&self.ready);
        let parked = parked.filter_map(|event| Some((*event, self.slots.get(event)?.created)));
        let expired = waiting.chain(parked).filter(|(event, created)| is_over(event, *created));
        let expired: BTreeSet<EventId> = expired.map(|(event, _)| event).collect();
        self.waiting.retain(|event| !expired.contains(&event.id));
        self.ready.retain(|event| !expired.contains(event));
        self.parked.retain(|event| !expired.contains(event));
        for event in expired {
            self.end(event);
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

    /// Events that were read and wait for their first attempt, and not for others of their order.
    pub fn waiting(&self) -> usize {
        self.waiting.len() + self.ready.len()
    }

    /// When the lane could start something that it cannot start now.
    pub fn wakes_at(&self, receiver: &Receiver, now: Timestamp) -> Option<Timestamp> {
        if !receiver.is_open() || self.is_cancelled() {
            return None;
        }
        let retry = self.due.first().map(|(due, _)| *due);
        let waiting = self.waiting.front().map(|front| self.owed.get(&front.id).map_or(now, |row| row.due));
        let fresh = self.ready.front().map(|_| now).or(waiting);
        let work = match (retry, fresh) {
            (Some(retry), Some(fresh)) => Some(retry.min(fresh)),
            (retry, fresh) => retry.or(fresh),
        }?;
        let slowed = self.replay.as_ref().map(Replaying::ready_at).unwrap_or_default();
        // What is ready now waits for room, which is not a matter of time.
        Some(work.max(receiver.ready_at()).max(slowed)).filter(|time| *time > now)
    }

    /// Owed events above the position that are not settled: those that block.
    pub fn owed_above(&self) -> usize {
        let is_settled = |event: &EventId| self.settled_before.contains(event) || self.slots.get(event).is_some_and(|slot| slot.is_settled);
        self.owed.keys().filter(|event| **event > self.position.id && !is_settled(event)).count()
    }
}
