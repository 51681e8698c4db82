//! The engine without its surroundings: what is to be attempted, what came of it, what is to be written down.
//!
//! Nothing in here waits, sends, or writes. Time and chance are arguments, the log is read; so a test can run weeks of
//! outage in a moment.

mod announcing;
mod changes;
mod expiry;
mod judging;
mod late;
mod queue;
mod recording;
mod replaying;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tracing::error;

use self::expiry::{expire_unread, expired};
use self::replaying::{cannot_be_sent_to, read_replay};
use super::Alert;
use super::flight::{Flight, LaneId, Pick};
use super::lane::Lane;
use super::matcher::Matcher;
use super::permits::{self, NoRoom, Permit, PermitLimits, Permits};
use super::receiver::Receiver;
use crate::domain::company::CompanyId;
use crate::domain::cursor::Position;
use crate::domain::filter::OWN_PREFIX;
use crate::domain::health::Health;
use crate::domain::subscription::{DeliveryId, ReplayId, Subscription, SubscriptionId};
use crate::domain::time::Timestamp;
use crate::store::faults::Faults;
use crate::store::{AttemptRow, DeliveryRow, LogEvent, Outcomes, ReadError, Replay, ReplayState, RetryRow, Store};
use crate::telemetry::metrics::DeliveryMetrics;
use crate::webhook::{Origins, Target};

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
                core.dirty.insert(LaneId::own(subscription.id));
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
            // What a cancelled one attempted last is told by the attempt log alone.
            if replay.as_ref().is_some_and(|replay| replay.progress.state == ReplayState::Cancelled) {
                continue;
            }
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
