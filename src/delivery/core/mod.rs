//! The engine without its surroundings: what is to be attempted, what came of it, what is to be written down.
//!
//! Nothing in here waits, sends, or writes. Time and chance are arguments, the log is read; so a test can run weeks of
//! outage in a moment.

mod announcing;
mod changes;
mod expiry;
mod late;
mod queue;
mod replaying;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, warn};

use self::expiry::{expire_unread, expired};
use self::replaying::{cannot_be_sent_to, read_replay};
use super::Alert;
use super::lane::{Flight, Lane, LaneId, Pick};
use super::matcher::Matcher;
use super::permits::{self, NoRoom, Permit, PermitLimits, Permits};
use super::receiver::Receiver;
use crate::domain::company::CompanyId;
use crate::domain::cursor::Position;
use crate::domain::filter::OWN_PREFIX;
use crate::domain::health::Health;
use crate::domain::profile::OnExhausted;
use crate::domain::retry::{Exchange, Next, Verdict, after_failure, judge};
use crate::domain::subscription::{DeliveryId, ReplayId, Subscription, SubscriptionId};
use crate::domain::time::Timestamp;
use crate::store::faults::Faults;
use crate::store::{AttemptRow, DeadReason, DeadRow, DeliveryRow, LogEvent, Outcomes, ReadError, Replay, RetryRow, Store};
use crate::telemetry::metrics::DeliveryMetrics;
use crate::webhook::{Origins, Report, Target};

/// Outcomes wait so long at most before they are written down.
pub const RECORD_AFTER: Duration = Duration::from_millis(100);
/// With so many of them they are written down at once.
const RECORD_AT: usize = 1_000;
/// How often the settled tail is written down when there are no outcomes.
const TAIL_INTERVAL: Duration = Duration::from_secs(10);
/// Attempts that one lane may start before the next lane has its turn.
const TURN_MAX: usize = 8;
/// Attempts in one step to receivers that have not proved to be well; those to others come before and between.
const ASIDE_AT_ONCE: usize = 16;
/// Events that a lane reads ahead of its attempts, as a multiple of those it may have in flight.
const AHEAD: usize = 2;
/// How long the connections of a lane that has nothing to do are kept for its next event.
const TARGET_KEPT: Duration = Duration::from_secs(60);
/// Lanes whose connections are kept.
const TARGETS_KEPT_MAX: usize = 1_024;
/// At most one event about exhausted deliveries in this time for each subscription.
const ALERT_INTERVAL: Duration = Duration::from_secs(60);
/// What is kept of the answer to a delivery that ended well, in bytes. Nobody has to find out why it did, and a receiver that
/// answers at length would fill the disk with it, event by event.
const DELIVERED_EXCERPT_BYTES_MAX: usize = 2 * 1024;
/// The pause of a lane after the log could not be read for it.
const READ_PAUSE: Duration = Duration::from_secs(1);

/// An attempt that is to be made.
#[derive(Debug)]
pub struct Start {
    /// Which one.
    pub delivery: DeliveryId,
    /// How.
    pub target: Arc<Target>,
    /// What.
    pub event: LogEvent,
    /// Which attempt it is, counted from 1.
    pub number: u32,
    /// Whether its receiver has not proved to be well: the attempt is to hold up no other.
    pub is_aside: bool,
}

/// Dead letters of one subscription that nothing in the log tells of yet.
#[derive(Debug, Clone)]
struct Unannounced {
    deliveries: Vec<DeliveryId>,
    /// When the last of them died.
    died: Timestamp,
    /// When they may be announced.
    at: Timestamp,
}

/// What is kept of a receiver without a lane, for its next event: its connections, and the attempts that were made of
/// late, which bound those that may be made.
#[derive(Debug)]
struct Rested {
    receiver: Receiver,
    since: Timestamp,
}

/// The engine's state.
#[derive(Debug)]
pub struct Core {
    store: Store,
    origins: Origins,
    faults: Faults,
    metrics: Arc<DeliveryMetrics>,
    lanes: BTreeMap<LaneId, Lane>,
    /// Those that have a lane.
    receivers: HashMap<SubscriptionId, Receiver>,
    /// Those whose lanes are gone.
    rested: HashMap<SubscriptionId, Rested>,
    matcher: Matcher,
    /// Every event at or below it has woken the lanes that want it.
    routed: Position,
    /// As it was last written down.
    recorded_tail: Position,
    recorded_at: Timestamp,
    permits: Permits,
    runnable: VecDeque<LaneId>,
    /// Those of receivers that have not proved to be well, which go on behind the others.
    runnable_aside: VecDeque<LaneId>,
    is_runnable: HashSet<LaneId>,
    /// The last step has left some of these to the next.
    has_more: bool,
    /// Lanes of slow receivers that wait until one of these gives a permit back; likewise of unproven ones, and by host.
    blocked_slow: VecDeque<LaneId>,
    blocked_unproven: VecDeque<LaneId>,
    blocked_hosts: HashMap<Arc<str>, VecDeque<LaneId>>,
    is_blocked: HashSet<LaneId>,
    /// Permits that came back since lanes were last let go on.
    freed: Vec<Permit>,
    timers: BTreeSet<(Timestamp, LaneId)>,
    /// Lanes whose position is not what the ledger says.
    dirty: BTreeSet<LaneId>,
    outcomes: Outcomes,
    /// The attempts of the outcomes that were handed over last, which may not be on disk yet.
    handed_over: Vec<(DeliveryId, u32)>,
    /// Since when outcomes wait to be written down.
    waiting_since: Option<Timestamp>,
    unannounced: BTreeMap<SubscriptionId, Unannounced>,
    announced_at: HashMap<SubscriptionId, Timestamp>,
    alerts: Vec<(CompanyId, Alert)>,
}

impl Core {
    /// Takes over where the ledger says that the last run ended.
    pub fn new(
        store: Store,
        limits: PermitLimits,
        origins: Origins,
        metrics: Arc<DeliveryMetrics>,
        faults: Faults,
        now: Timestamp,
    ) -> Result<Self, ReadError> {
        let state = store.delivery_state()?;
        let mut core = Self {
            origins,
            faults,
            metrics,
            lanes: BTreeMap::new(),
            receivers: HashMap::new(),
            rested: HashMap::new(),
            matcher: Matcher::default(),
            routed: state.settled_tail,
            recorded_tail: state.settled_tail,
            recorded_at: now,
            permits: Permits::new(limits),
            runnable: VecDeque::new(),
            runnable_aside: VecDeque::new(),
            is_runnable: HashSet::new(),
            has_more: false,
            blocked_slow: VecDeque::new(),
            blocked_unproven: VecDeque::new(),
            blocked_hosts: HashMap::new(),
            is_blocked: HashSet::new(),
            freed: Vec::new(),
            timers: BTreeSet::new(),
            dirty: BTreeSet::new(),
            outcomes: Outcomes::default(),
            handed_over: Vec::new(),
            waiting_since: None,
            unannounced: BTreeMap::new(),
            announced_at: HashMap::new(),
            alerts: Vec::new(),
            store,
        };
        let (mut positions, mut retries) = (state.positions, state.retries);
        let mut unjudged: BTreeMap<LaneId, Vec<AttemptRow>> = BTreeMap::new();
        for attempt in state.unjudged {
            unjudged.entry(LaneId::of(attempt.delivery)).or_default().push(attempt);
        }
        let mut replays: BTreeMap<LaneId, Replay> = state.replays.into_iter().map(|replay| (lane_of(&replay), replay)).collect();
        for subscription in core.store.all_subscriptions() {
            core.matcher.insert(&subscription);
            let (mut row, mut owed) = (positions.remove(&subscription.id), retries.remove(&(subscription.id, 0)).unwrap_or_default());
            if let Some(attempts) = unjudged.remove(&LaneId::own(subscription.id)) {
                core.judge_late(&subscription, &mut row, &mut owed, attempts, now)?;
            }
            if core.faults.key_order_lost_at_restart {
                owed.iter_mut().for_each(|(_, row)| row.key = None);
            }
            let is_sound = matches!(subscription.health, Health::Sound { failing: None });
            if row.is_none() && owed.is_empty() && is_sound {
                continue;
            }
            let mut lane = Lane::new(Arc::clone(&subscription), state.settled_tail);
            lane.restore(row, owed);
            core.insert(LaneId::own(subscription.id), lane, subscription);
        }
        let mut runs: BTreeSet<LaneId> =
            retries.keys().map(|(subscription, run)| LaneId { subscription: *subscription, run: *run }).collect();
        runs.extend(replays.keys().chain(unjudged.keys()).copied());
        for id in runs.into_iter().filter(|id| id.run > 0) {
            let Some(subscription) = core.store.subscription(id.subscription) else { continue };
            let mut owed = retries.remove(&(id.subscription, id.run)).unwrap_or_default();
            let mut replay = match replays.remove(&id) {
                Some(replay) => Some(replay),
                None => core.store.replay(ReplayId(id.run))?,
            };
            if let (Some(replay), Some(attempts)) = (&mut replay, unjudged.remove(&id)) {
                let mut row = Some(replay.progress.place.clone());
                replay.progress.done += core.judge_late(&subscription, &mut row, &mut owed, attempts, now)?;
                replay.progress.place = row.unwrap_or_default();
            }
            core.restore_replay(id, replay.as_ref(), owed);
            core.dirty.insert(id);
        }
        for (delivery, row) in state.unannounced {
            core.announce_later(delivery, row.at, now);
        }
        Ok(core)
    }

    /// Takes a lane in, with its receiver.
    fn insert(&mut self, id: LaneId, lane: Lane, subscription: Arc<Subscription>) {
        if !self.receivers.contains_key(&id.subscription) {
            let rested = self.rested.remove(&id.subscription).map(|rested| Ok(rested.receiver));
            let origin = || self.origins.of(subscription.company);
            match rested.unwrap_or_else(|| Receiver::new(Arc::clone(&subscription), origin())) {
                Ok(receiver) => drop(self.receivers.insert(id.subscription, receiver)),
                Err(error) => return cannot_be_sent_to(id.subscription, &error),
            }
        }
        if let Some(receiver) = self.receivers.get_mut(&id.subscription) {
            receiver.runs.insert(id.run);
            self.lanes.insert(id, lane);
            self.run(id);
        }
    }

    fn run(&mut self, id: LaneId) {
        if self.is_runnable.insert(id) {
            let is_proven = self.receivers.get(&id.subscription).is_some_and(|receiver| receiver.is_proven);
            let queue = if is_proven { &mut self.runnable } else { &mut self.runnable_aside };
            queue.push_back(id);
        }
    }

    /// Lets all lanes of a subscription go on.
    fn run_all(&mut self, subscription: SubscriptionId) {
        let runs = self.receivers.get(&subscription).map(|receiver| receiver.runs.clone()).unwrap_or_default();
        for run in runs {
            self.run(LaneId { subscription, run });
        }
    }

    fn note_outcome(&mut self, now: Timestamp) {
        self.waiting_since.get_or_insert(now);
    }

    /// Wakes the lanes that want what was published since.
    fn route(&mut self) -> Result<(), ReadError> {
        let tail = self.store.tail();
        if self.matcher.is_empty() {
            self.routed = self.routed.max(tail);
        }
        while self.routed < tail {
            let found = self.store.kinds_after(self.routed)?;
            let before = self.routed;
            for (company, folded, version) in found.kinds {
                for id in self.matcher.matching(company, &folded, &version) {
                    self.wake(id, before);
                }
            }
            if found.reached <= before {
                break;
            }
            self.routed = found.reached;
        }
        Ok(())
    }

    /// A lane has something above its position; one that did not exist was settled up to `before`.
    fn wake(&mut self, id: SubscriptionId, before: Position) {
        let id = LaneId::own(id);
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.is_behind = true;
        } else {
            let Some(subscription) = self.store.subscription(id.subscription) else { return };
            self.insert(id, Lane::new(Arc::clone(&subscription), before), subscription);
        }
        self.dirty.insert(id);
        self.run(id);
    }

    /// What may start now. Of the attempts to receivers that have not proved to be well, some may be left to the next step.
    pub fn step(&mut self, now: Timestamp) -> Result<Vec<Start>, ReadError> {
        self.route()?;
        while let Some((at, id)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, id));
            if let Some(lane) = self.lanes.get_mut(&id) {
                lane.timer = None;
            }
            self.run(id);
        }
        let mut starts = Vec::new();
        let mut aside = 0;
        // With all permits out the others keep their places in the queue.
        while !self.permits.are_out()
            && let Some(id) = self.next_runnable(aside < ASIDE_AT_ONCE)
        {
            let before = starts.len();
            match self.turn(id, now, &mut starts) {
                Ok(Turn::Again) => self.run(id),
                Ok(Turn::NoRoom(reason)) => self.block(id, reason),
                Ok(Turn::Done) => {}
                // What others have started goes on; the lane tries again.
                Err(error) => {
                    let subscription = id.subscription;
                    error!(subscription.id = %subscription, %error, "The log cannot be read for subscription {subscription}: {error}");
                    self.set_timer_at(id, now.after(READ_PAUSE));
                }
            }
            aside += starts.iter().skip(before).filter(|start| start.is_aside).count();
        }
        self.has_more = aside >= ASIDE_AT_ONCE && !self.permits.are_out();
        Ok(starts)
    }

    /// Lets one lane read and start attempts.
    fn turn(&mut self, id: LaneId, now: Timestamp, starts: &mut Vec<Start>) -> Result<Turn, ReadError> {
        let (Some(lane), Some(receiver)) = (self.lanes.get_mut(&id), self.receivers.get_mut(&id.subscription)) else {
            return Ok(Turn::Done);
        };
        let mut outcome = Turn::Done;
        // One after the other, as long as nothing is known of them: none is to take the room of all.
        let turn_max = if receiver.is_proven { TURN_MAX } else { 1 };
        for started in 0.. {
            let ahead = (usize::from(lane.subscription.in_flight_max()) * AHEAD).max(TURN_MAX);
            if let Some((position, room)) = lane.wants(receiver, ahead)
                && lane.waiting() < ahead / 2
            {
                // What has expired is not read any more; it is not passed without a record.
                let cutoff = self.store.cutoff();
                if position.created < cutoff && expire_unread(&self.store, lane, cutoff, now, &mut self.outcomes, &self.metrics)? {
                    self.waiting_since.get_or_insert(now);
                }
                let (position, room) = lane.wants(receiver, ahead).unwrap_or((position, room));
                let batch = match &lane.replay {
                    Some(replaying) => read_replay(&self.store, lane, replaying, position, room)?,
                    None => self.store.read_after(lane.subscription.company, position, &lane.subscription.wishes.filter, room)?,
                };
                lane.take(without_own(batch, id.subscription), now, self.faults.strict_passes_stuck);
                if note_held(lane, id, &mut self.outcomes) {
                    self.waiting_since.get_or_insert(now);
                }
                self.dirty.insert(id);
            }
            if started == turn_max {
                outcome = Turn::Again;
                break;
            }
            let Some(pick) = lane.pick(receiver, now) else {
                // Everything that was read may be settled, or of no interest.
                if lane.waiting() == 0 && lane.wants(receiver, ahead).is_some() {
                    outcome = Turn::Again;
                }
                break;
            };
            let permit = match self.permits.take(&receiver.host, receiver.in_flight(), receiver.standing(now)) {
                Ok(permit) => permit,
                Err(reason) => {
                    lane.unpick(pick);
                    outcome = Turn::NoRoom(reason);
                    break;
                }
            };
            let event = match pick {
                Pick::Fresh(event) => event,
                Pick::Stored(event) => {
                    let found = match self.store.read_event(lane.subscription.company, event) {
                        Ok(found) => found,
                        Err(error) => {
                            self.permits.give_back(&permit);
                            lane.unpick(Pick::Stored(event));
                            return Err(error);
                        }
                    };
                    match found {
                        Some(event) => event,
                        None => {
                            self.permits.give_back(&permit);
                            // One without a row has waited for others of its order.
                            let unattempted = |created| RetryRow { attempts: 0, due: now, created, key: None };
                            let row = lane.owed.get(&event).copied().or_else(|| lane.created_of(event).map(unattempted));
                            lane.close(event);
                            if let Some(row) = row {
                                let closed = DeliveryRow::Closed(expired(&row, now));
                                self.outcomes.rows.push((id.delivery(event), closed));
                                self.metrics.expired.inc();
                                self.waiting_since.get_or_insert(now);
                            }
                            self.dirty.insert(id);
                            continue;
                        }
                    }
                }
            };
            let is_retry = lane.owed.contains_key(&event.id);
            let number = lane.next_number(event.id);
            let delivery = id.delivery(event.id);
            let (target, is_aside) = (Arc::clone(&receiver.target), permit.standing != permits::Standing::Proven);
            starts.push(Start { delivery, target, event: event.clone(), number, is_aside });
            receiver.start(delivery, now);
            lane.start(Flight { event, number, started: now, permit, is_retry });
        }
        self.set_timer(id, now);
        Ok(outcome)
    }

    /// Whether the last step has left something to the next that may start at once.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.has_more
    }

    /// Whether anybody wants anything.
    #[must_use]
    pub fn has_subscriptions(&self) -> bool {
        !self.matcher.is_empty()
    }

    /// Subscriptions that have something to do.
    #[must_use]
    pub fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Attempts under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.permits.in_flight()
    }

    /// An attempt has ended.
    pub fn finish(&mut self, delivery: DeliveryId, report: Report, now: Timestamp, chance: u32) {
        let (id, event) = (LaneId::of(delivery), delivery.event);
        let Some(flight) = self.lanes.get_mut(&id).and_then(|lane| lane.land(event)) else { return };
        self.give_back(flight.permit.clone());
        let (Some(lane), Some(receiver)) = (self.lanes.get_mut(&id), self.receivers.get_mut(&id.subscription)) else { return };
        receiver.end(delivery, flight.started);
        self.metrics.attempt(&report.exchange, report.duration);
        let verdict = judge(&report.exchange, &receiver.knobs);
        receiver.is_heavy = report.truncated;
        receiver.is_proven = verdict == Verdict::Delivered && !report.truncated;
        let mut attempt = attempt_row(delivery, &flight, report);
        attempt.delivered = verdict == Verdict::Delivered;
        if attempt.delivered {
            shorten(&mut attempt);
        }
        let company = lane.subscription.company;
        let health_before = receiver.health;
        let mut exhausted = None;
        match verdict {
            Verdict::Delivered => {
                receiver.health = receiver.health.after_success(receiver.subscription.in_flight_max());
                let is_owed = lane.close(event);
                if flight.is_retry || is_owed {
                    self.outcomes.rows.push((delivery, DeliveryRow::Settled));
                }
                self.metrics.delivered(flight.event.created, now);
            }
            Verdict::Failed { not_before } => {
                // An attempt that began before the receiver was probed is no probe.
                if !matches!(receiver.health, Health::Probing { next, .. } if flight.started < next) {
                    receiver.health = receiver.health.after_failure(now);
                }
                match after_failure(flight.number, not_before, &receiver.knobs.retry_schedule, now, chance) {
                    Next::RetryAt(due) => {
                        attempt.next_due = Some(due);
                        self.owe(delivery, flight, due, now);
                    }
                    Next::Exhausted if receiver.knobs.on_exhausted == OnExhausted::Suspend && id.run == 0 => {
                        receiver.health = Health::GivenUp;
                        exhausted = Some(event);
                        self.owe(delivery, flight, now, now);
                    }
                    Next::Exhausted => self.bury(delivery, &flight, DeadReason::Exhausted, now),
                }
            }
            Verdict::Refused => self.bury(delivery, &flight, DeadReason::Refused, now),
            Verdict::Gone => {
                // It is still owed, and the next attempt has another number.
                self.owe(delivery, flight, now, now);
                self.disable(id.subscription, company);
            }
        }
        self.outcomes.attempts.push(attempt);
        self.note_health(id.subscription, health_before, exhausted);
        self.dirty.insert(id);
        self.note_outcome(now);
        self.run_next(id);
    }

    /// Lets the lanes of a subscription go on after an attempt; the one that made it comes last, so that they take turns.
    fn run_next(&mut self, id: LaneId) {
        let runs = self.receivers.get(&id.subscription).map(|receiver| &receiver.runs);
        if let Some(runs) = runs.filter(|runs| runs.len() > 1) {
            for run in runs.clone().into_iter().filter(|run| *run != id.run) {
                self.run(LaneId { run, ..id });
            }
        }
        self.run(id);
    }

    /// An attempt has failed, and the next one may be made at `due`.
    fn owe(&mut self, delivery: DeliveryId, flight: Flight, due: Timestamp, now: Timestamp) {
        let (id, event) = (LaneId::of(delivery), delivery.event);
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        if lane.replay.as_ref().is_some_and(|replay| replay.is_cancelled) {
            return;
        }
        let row = RetryRow { attempts: flight.number, due, created: flight.event.created, key: lane.key_of(event) };
        self.outcomes.rows.push((delivery, DeliveryRow::Retry(row)));
        lane.owe(flight.event, row, now, self.faults.strict_passes_stuck);
        note_held(lane, id, &mut self.outcomes);
    }

    /// A delivery is dead.
    fn bury(&mut self, delivery: DeliveryId, flight: &Flight, reason: DeadReason, now: Timestamp) {
        let DeliveryId { subscription, event, .. } = delivery;
        if let Some(lane) = self.lanes.get_mut(&LaneId::of(delivery)) {
            lane.close(event);
        }
        let row = DeadRow { attempts: flight.number, at: now, created: flight.event.created, reason, announced: false };
        self.outcomes.rows.push((delivery, DeliveryRow::Dead(row)));
        self.metrics.dead.inc();
        warn!(subscription.id = %subscription, event.id = %event, attempts = flight.number, "Delivery {delivery} is dead after {} attempts", flight.number);
        self.announce_later(delivery, now, now);
    }

    /// What is to be written down now, if it is time; `all` when it is in any case.
    pub fn record(&mut self, now: Timestamp, all: bool) -> Option<Outcomes> {
        let is_full = self.outcomes.attempts.len() >= RECORD_AT;
        let is_due = self.waiting_since.is_some_and(|since| now >= since.after(RECORD_AFTER));
        let has_moved = self.routed > self.recorded_tail || !self.dirty.is_empty();
        let tail_is_due = has_moved && now >= self.recorded_at.after(TAIL_INTERVAL);
        let has_something = self.waiting_since.is_some() || has_moved;
        if !(is_full || is_due || tail_is_due || (all && has_something)) {
            return None;
        }
        self.waiting_since = None;
        self.recorded_at = now;
        self.recorded_tail = self.routed;
        let mut outcomes = std::mem::take(&mut self.outcomes);
        self.handed_over = outcomes.attempts.iter().map(|attempt| (attempt.delivery, attempt.number)).collect();
        outcomes.settled_tail = Some(self.routed);
        for id in std::mem::take(&mut self.dirty) {
            let (Some(lane), Some(receiver)) = (self.lanes.get_mut(&id), self.receivers.get(&id.subscription)) else { continue };
            let is_over = match &lane.replay {
                Some(replaying) => {
                    let (progress, is_over) = Self::progress(lane, replaying, now);
                    outcomes.replays.push((ReplayId(id.run), progress));
                    is_over
                }
                None => {
                    let row = lane.row();
                    if row.is_some() || lane.has_row {
                        lane.has_row = row.is_some();
                        outcomes.positions.push((id.subscription, row));
                    }
                    lane.is_idle(receiver)
                }
            };
            if is_over {
                self.forget(id);
                self.rest(id.subscription, now);
            }
        }
        self.rested.retain(|_, rested| now.since(rested.since) < TARGET_KEPT);
        Some(outcomes)
    }

    /// Keeps a receiver without lanes for its next event, if it is well.
    fn rest(&mut self, id: SubscriptionId, now: Timestamp) {
        if !self.receivers.get(&id).is_some_and(|receiver| receiver.runs.is_empty()) {
            return;
        }
        let Some(receiver) = self.receivers.remove(&id) else { return };
        if receiver.health == Health::default() && self.rested.len() < TARGETS_KEPT_MAX {
            self.rested.insert(id, Rested { receiver, since: now });
        }
    }

    fn forget(&mut self, id: LaneId) {
        if let Some(receiver) = self.receivers.get_mut(&id.subscription) {
            receiver.runs.remove(&id.run);
        }
        if let Some(at) = self.lanes.remove(&id).and_then(|lane| lane.timer) {
            self.timers.remove(&(at, id));
        }
    }
}

fn lane_of(replay: &Replay) -> LaneId {
    LaneId { subscription: replay.subscription, run: replay.id.0 }
}

/// What came of a lane's turn.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// It has more to start; others first.
    Again,
    /// It has more to start; there is no room now.
    NoRoom(NoRoom),
    /// It has nothing to start now.
    Done,
}

/// Has the rows of events that are held written down; whether there are any.
fn note_held(lane: &mut Lane, id: LaneId, outcomes: &mut Outcomes) -> bool {
    let held = lane.take_held();
    outcomes.rows.extend(held.iter().map(|(event, row)| (id.delivery(*event), DeliveryRow::Retry(*row))));
    !held.is_empty()
}

/// The batch without the daemon's own events that speak of this subscription.
fn without_own(mut batch: crate::store::LogBatch, id: SubscriptionId) -> crate::store::LogBatch {
    let mark = format!(r#"\"subscriptionId\":{id}"#);
    batch.events.retain(|event| {
        let is_own = event.is_own && event.kind.to_ascii_lowercase().starts_with(OWN_PREFIX);
        !is_own || !speaks_of(event, &mark)
    });
    batch
}

fn speaks_of(event: &LogEvent, mark: &str) -> bool {
    let payload = event.envelope.get(event.payload_start..event.payload_start + event.payload_length).unwrap_or_default();
    let text = String::from_utf8_lossy(payload);
    // The number ends with the mark, or another member follows.
    text.match_indices(mark).any(|(at, _)| !text.as_bytes().get(at + mark.len()).is_some_and(u8::is_ascii_digit))
}

/// Cuts the excerpt of a success between two characters.
fn shorten(attempt: &mut AttemptRow) {
    if attempt.excerpt.len() > DELIVERED_EXCERPT_BYTES_MAX {
        let end = (0..=DELIVERED_EXCERPT_BYTES_MAX).rev().find(|end| attempt.excerpt.is_char_boundary(*end));
        attempt.excerpt.truncate(end.unwrap_or(0));
        // What is kept for long is not to hold the space of what was read.
        attempt.excerpt.shrink_to_fit();
        attempt.truncated = true;
    }
}

fn attempt_row(delivery: DeliveryId, flight: &Flight, report: Report) -> AttemptRow {
    let class = match &report.exchange {
        Exchange::Failed(class) => Some(*class),
        Exchange::Answered { .. } if report.error.is_some() => Some(crate::domain::retry::ErrorClass::Status),
        Exchange::Answered { .. } => None,
    };
    AttemptRow {
        delivery,
        number: flight.number,
        started: flight.started,
        duration: report.duration,
        address: report.address,
        status: report.status,
        error_class: class,
        error: report.error,
        excerpt: report.excerpt,
        truncated: report.truncated,
        next_due: None,
        kind: flight.event.kind.as_ref().to_owned(),
        event_created: flight.event.created,
        delivered: false,
    }
}
