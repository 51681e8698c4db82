//! The engine without its surroundings: what is to be attempted, what came of it, what is to be written down.
//!
//! Nothing in here waits, sends, or writes. Time and chance are arguments, the log is read; so a test can run weeks of
//! outage in a moment.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info, warn};

use super::Alert;
use super::lane::{Flight, Lane, Pick};
use super::matcher::Matcher;
use super::permits::{self, NoRoom, Permit, PermitLimits, Permits};
use super::rate::Rate;
use crate::domain::company::CompanyId;
use crate::domain::cursor::Position;
use crate::domain::event::EventId;
use crate::domain::filter::OWN_PREFIX;
use crate::domain::health::Health;
use crate::domain::retry::{Exchange, Next, Verdict, after_failure, judge};
use crate::domain::subscription::{DeliveryId, LaneStatus, Standing, Subscription, SubscriptionId};
use crate::domain::time::Timestamp;
use crate::store::faults::Faults;
use crate::store::{
    AttemptRow, CloseState, ClosedRow, DeadReason, DeadRow, DeliveryRow, ExpiredRange, LogEvent, Outcomes, ReadError, RetryRow, Store,
};
use crate::telemetry::metrics::DeliveryMetrics;
use crate::webhook::{Report, Target};

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
    /// To whom.
    pub subscription: SubscriptionId,
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
    events: Vec<EventId>,
    /// When the last of them died.
    died: Timestamp,
    /// When they may be announced.
    at: Timestamp,
}

/// What is kept of a lane that has nothing to do, for its next event.
#[derive(Debug)]
struct Rested {
    /// Its connections.
    target: Arc<Target>,
    /// The attempts that it made of late; kept for a minute, they bound those that it may make.
    rate: Rate,
    /// Whether its receiver's last answer was a long one.
    is_heavy: bool,
    since: Timestamp,
}

/// The engine's state.
#[derive(Debug)]
pub struct Core {
    store: Store,
    faults: Faults,
    metrics: Arc<DeliveryMetrics>,
    lanes: BTreeMap<SubscriptionId, Lane>,
    /// Of lanes that are gone.
    rested: HashMap<SubscriptionId, Rested>,
    matcher: Matcher,
    /// Every event at or below it has woken the lanes that want it.
    routed: Position,
    /// As it was last written down.
    recorded_tail: Position,
    recorded_at: Timestamp,
    permits: Permits,
    runnable: VecDeque<SubscriptionId>,
    /// Those of receivers that have not proved to be well, which go on behind the others.
    runnable_aside: VecDeque<SubscriptionId>,
    is_runnable: HashSet<SubscriptionId>,
    /// The last step has left some of these to the next.
    has_more: bool,
    /// Lanes of slow receivers that wait until one of these gives a permit back; likewise of unproven ones, and by host.
    blocked_slow: VecDeque<SubscriptionId>,
    blocked_unproven: VecDeque<SubscriptionId>,
    blocked_hosts: HashMap<Arc<str>, VecDeque<SubscriptionId>>,
    is_blocked: HashSet<SubscriptionId>,
    /// Permits that came back since lanes were last let go on.
    freed: Vec<Permit>,
    timers: BTreeSet<(Timestamp, SubscriptionId)>,
    /// Lanes whose position is not what the ledger says.
    dirty: BTreeSet<SubscriptionId>,
    outcomes: Outcomes,
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
        metrics: Arc<DeliveryMetrics>,
        faults: Faults,
        now: Timestamp,
    ) -> Result<Self, ReadError> {
        let state = store.delivery_state()?;
        let mut core = Self {
            faults,
            metrics,
            lanes: BTreeMap::new(),
            rested: HashMap::new(),
            matcher: Matcher::default(),
            routed: state.settled_tail,
            recorded_tail: state.settled_tail,
            recorded_at: now,
            permits: Permits::new(limits),
            runnable: VecDeque::new(),
            runnable_aside: VecDeque::new(),
            has_more: false,
            is_runnable: HashSet::new(),
            blocked_slow: VecDeque::new(),
            blocked_unproven: VecDeque::new(),
            blocked_hosts: HashMap::new(),
            is_blocked: HashSet::new(),
            freed: Vec::new(),
            timers: BTreeSet::new(),
            dirty: BTreeSet::new(),
            outcomes: Outcomes::default(),
            waiting_since: None,
            unannounced: BTreeMap::new(),
            announced_at: HashMap::new(),
            alerts: Vec::new(),
            store,
        };
        let (mut positions, mut retries) = (state.positions, state.retries);
        for subscription in core.store.all_subscriptions() {
            core.matcher.insert(&subscription);
            let (row, owed) = (positions.remove(&subscription.id), retries.remove(&subscription.id).unwrap_or_default());
            let is_sound = matches!(subscription.health, Health::Sound { failing: None });
            if row.is_none() && owed.is_empty() && is_sound {
                continue;
            }
            let id = subscription.id;
            if let Some(mut lane) = core.lane(subscription, state.settled_tail) {
                lane.restore(row, owed);
                core.lanes.insert(id, lane);
                core.run(id);
            }
        }
        for (delivery, row) in state.unannounced {
            core.announce_later(delivery, row.at, now);
        }
        Ok(core)
    }

    fn lane(&mut self, subscription: Arc<Subscription>, position: Position) -> Option<Lane> {
        let rested = self.rested.remove(&subscription.id);
        // A lane rests only after a success.
        let (is_heavy, is_proven) = rested.as_ref().map_or((false, false), |rested| (rested.is_heavy, !rested.is_heavy));
        let rested = rested.map(|rested| Ok((rested.target, rested.rate)));
        let fresh = || Target::new(&subscription).map(|target| (Arc::new(target), Rate::default()));
        let (target, rate) = match rested.unwrap_or_else(fresh) {
            Ok(known) => known,
            Err(error) => {
                // It was checked when it was created; only a change of the rules can make it wrong.
                error!(subscription.id = %subscription.id, %error, "Subscription {} cannot be sent to: {error}", subscription.id);
                return None;
            }
        };
        let host = url::Url::parse(&subscription.wishes.url).ok();
        let host = host.and_then(|url| Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?))).unwrap_or_default();
        let mut lane = Lane::new(subscription, target, host.into(), position);
        lane.rate = rate;
        (lane.is_heavy, lane.is_proven) = (is_heavy, is_proven);
        Some(lane)
    }

    fn run(&mut self, id: SubscriptionId) {
        if self.is_runnable.insert(id) {
            let is_proven = self.lanes.get(&id).is_some_and(|lane| lane.is_proven);
            let queue = if is_proven { &mut self.runnable } else { &mut self.runnable_aside };
            queue.push_back(id);
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
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.is_behind = true;
        } else {
            let Some(subscription) = self.store.subscription(id) else { return };
            let Some(lane) = self.lane(subscription, before) else { return };
            self.lanes.insert(id, lane);
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
                    error!(subscription.id = %id, %error, "The log cannot be read for subscription {id}: {error}");
                    self.set_timer_at(id, now.after(READ_PAUSE));
                }
            }
            aside += starts.iter().skip(before).filter(|start| start.is_aside).count();
        }
        self.has_more = aside >= ASIDE_AT_ONCE && !self.permits.are_out();
        Ok(starts)
    }

    /// The next lane that may go on. One that waited for room and does not need it any more leaves it to the next.
    fn next_runnable(&mut self, aside_too: bool) -> Option<SubscriptionId> {
        loop {
            let next = self.runnable.pop_front();
            let next = if next.is_none() && aside_too { self.runnable_aside.pop_front() } else { next };
            if let Some(id) = next {
                self.is_runnable.remove(&id);
                return Some(id);
            }
            if !aside_too {
                return None;
            }
            let permit = self.freed.last()?;
            let mut next = match permit.standing {
                permits::Standing::Slow if self.permits.has_room_for_slow() => self.blocked_slow.pop_front(),
                permits::Standing::Unproven if self.permits.has_room_for_unproven() => self.blocked_unproven.pop_front(),
                _ => None,
            };
            if next.is_none() && self.permits.has_room_for_host(&permit.host) {
                next = self.blocked_hosts.get_mut(&permit.host).and_then(VecDeque::pop_front);
            }
            match next {
                Some(id) => {
                    self.is_blocked.remove(&id);
                    self.run(id);
                }
                None => {
                    if self.blocked_hosts.get(&permit.host).is_some_and(VecDeque::is_empty) {
                        self.blocked_hosts.remove(&permit.host);
                    }
                    self.freed.pop();
                }
            }
        }
    }

    /// A lane goes on when there is room again for its kind.
    fn block(&mut self, id: SubscriptionId, reason: NoRoom) {
        let Some(lane) = self.lanes.get(&id) else { return };
        match reason {
            NoRoom::All => self.run(id),
            // The end of an attempt of its own lets it go on.
            NoRoom::Share => {}
            NoRoom::Unproven if self.is_blocked.insert(id) => self.blocked_unproven.push_back(id),
            NoRoom::Slow if self.is_blocked.insert(id) => self.blocked_slow.push_back(id),
            NoRoom::Host if self.is_blocked.insert(id) => {
                self.blocked_hosts.entry(Arc::clone(&lane.host)).or_default().push_back(id);
            }
            NoRoom::Unproven | NoRoom::Slow | NoRoom::Host => {}
        }
    }

    /// Takes a permit back; lanes that wait for such a one go on at the next step.
    fn give_back(&mut self, permit: Permit) {
        self.permits.give_back(&permit);
        if !self.freed.contains(&permit) {
            self.freed.push(permit);
        }
    }

    /// Lets one lane read and start attempts.
    fn turn(&mut self, id: SubscriptionId, now: Timestamp, starts: &mut Vec<Start>) -> Result<Turn, ReadError> {
        let Some(lane) = self.lanes.get_mut(&id) else { return Ok(Turn::Done) };
        let mut outcome = Turn::Done;
        // One after the other, as long as nothing is known of them: none is to take the room of all.
        let turn_max = if lane.is_proven { TURN_MAX } else { 1 };
        for started in 0.. {
            let ahead = (usize::from(lane.subscription.in_flight_max()) * AHEAD).max(TURN_MAX);
            if let Some((position, room)) = lane.wants(ahead)
                && lane.waiting() < ahead / 2
            {
                // What has expired is not read any more; it is not passed without a record.
                let cutoff = self.store.cutoff();
                if position.created < cutoff && expire_unread(&self.store, lane, cutoff, now, &mut self.outcomes, &self.metrics)? {
                    self.waiting_since.get_or_insert(now);
                }
                let (position, room) = lane.wants(ahead).unwrap_or((position, room));
                let batch = self.store.read_after(lane.subscription.company, position, &lane.subscription.wishes.filter, room)?;
                lane.take(without_own(batch, id), self.faults.strict_passes_stuck);
                self.dirty.insert(id);
            }
            if started == turn_max {
                outcome = Turn::Again;
                break;
            }
            let Some(pick) = lane.pick(now) else {
                // Everything that was read may be settled, or of no interest.
                if lane.waiting() == 0 && lane.wants(ahead).is_some() {
                    outcome = Turn::Again;
                }
                break;
            };
            let permit = match self.permits.take(&lane.host, lane.in_flight.len(), lane.standing(now)) {
                Ok(permit) => permit,
                Err(reason) => {
                    lane.unpick(pick);
                    outcome = Turn::NoRoom(reason);
                    break;
                }
            };
            let (event, is_retry) = match pick {
                Pick::Fresh(event) => {
                    let is_retry = lane.owed.contains_key(&event.id);
                    (Some(event), is_retry)
                }
                Pick::Owed(event) => {
                    let found = match self.store.read_event(lane.subscription.company, event) {
                        Ok(found) => found,
                        Err(error) => {
                            self.permits.give_back(&permit);
                            lane.unpick(Pick::Owed(event));
                            return Err(error);
                        }
                    };
                    if found.is_none() {
                        self.permits.give_back(&permit);
                        let row = lane.owed.get(&event).copied();
                        lane.close(event);
                        if let Some(row) = row {
                            let closed = expired(&row, now);
                            self.outcomes.rows.push((DeliveryId { subscription: id, event }, DeliveryRow::Closed(closed)));
                            self.waiting_since.get_or_insert(now);
                        }
                        self.dirty.insert(id);
                        continue;
                    }
                    (found, true)
                }
            };
            let Some(event) = event else { continue };
            let number = lane.next_number(event.id);
            let (target, is_aside) = (Arc::clone(&lane.target), permit.standing != permits::Standing::Proven);
            starts.push(Start { subscription: id, target, event: event.clone(), number, is_aside });
            lane.start(Flight { event, number, started: now, permit, is_retry });
        }
        self.set_timer(id, now);
        Ok(outcome)
    }

    fn set_timer_at(&mut self, id: SubscriptionId, at: Timestamp) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        if let Some(before) = lane.timer.replace(at) {
            self.timers.remove(&(before, id));
        }
        self.timers.insert((at, id));
    }

    fn set_timer(&mut self, id: SubscriptionId, now: Timestamp) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let wakes_at = lane.wakes_at(now);
        if wakes_at == lane.timer {
            return;
        }
        if let Some(at) = wakes_at {
            self.set_timer_at(id, at);
        } else if let Some(before) = lane.timer.take() {
            self.timers.remove(&(before, id));
        }
    }

    /// When `step` would do something by the passing of time alone.
    pub fn wakes_at(&self, now: Timestamp) -> Option<Timestamp> {
        if self.has_more {
            return Some(now);
        }
        let timer = self.timers.first().map(|(at, _)| *at);
        let record = self.waiting_since.map(|since| since.after(RECORD_AFTER));
        let announce = self.unannounced.values().map(|due| due.at).min();
        let tail = (self.routed > self.recorded_tail || !self.dirty.is_empty()).then(|| self.recorded_at.after(TAIL_INTERVAL));
        [timer, record, announce, tail].into_iter().flatten().min().map(|at| at.max(now))
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
    pub fn finish(&mut self, id: SubscriptionId, event: EventId, report: Report, now: Timestamp, chance: u32) {
        let delivery = DeliveryId { subscription: id, event };
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let Some(flight) = lane.in_flight.remove(&event) else { return };
        self.give_back(flight.permit.clone());
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        self.metrics.attempt(&report.exchange, report.duration);
        let verdict = judge(&report.exchange, &lane.knobs);
        lane.is_heavy = report.truncated;
        lane.is_proven = verdict == Verdict::Delivered && !report.truncated;
        let mut attempt = attempt_row(delivery, &flight, report);
        attempt.delivered = verdict == Verdict::Delivered;
        if attempt.delivered {
            shorten(&mut attempt);
        }
        let company = lane.subscription.company;
        let health_before = lane.health;
        match verdict {
            Verdict::Delivered => {
                lane.health = lane.health.after_success(lane.subscription.in_flight_max());
                lane.close(event);
                if flight.is_retry {
                    self.outcomes.rows.push((delivery, DeliveryRow::Settled));
                }
                self.metrics.delivered(flight.event.created, now);
            }
            Verdict::Failed { not_before } => {
                // An attempt that began before the receiver was probed is no probe.
                if !matches!(lane.health, Health::Probing { next, .. } if flight.started < next) {
                    lane.health = lane.health.after_failure(now);
                }
                match after_failure(flight.number, not_before, &lane.knobs.retry_schedule, now, chance) {
                    Next::RetryAt(due) => {
                        let row = RetryRow { attempts: flight.number, due, created: flight.event.created };
                        attempt.next_due = Some(due);
                        self.outcomes.rows.push((delivery, DeliveryRow::Retry(row)));
                        lane.owe(flight.event, row, self.faults.strict_passes_stuck);
                    }
                    Next::Exhausted => self.bury(delivery, &flight, DeadReason::Exhausted, now),
                }
            }
            Verdict::Refused => self.bury(delivery, &flight, DeadReason::Refused, now),
            Verdict::Gone => {
                lane.give_back(flight);
                self.disable(id, company);
            }
        }
        self.outcomes.attempts.push(attempt);
        self.note_health(id, health_before);
        self.dirty.insert(id);
        self.note_outcome(now);
        self.run(id);
    }

    /// A delivery is dead.
    fn bury(&mut self, delivery: DeliveryId, flight: &Flight, reason: DeadReason, now: Timestamp) {
        let DeliveryId { subscription, event } = delivery;
        if let Some(lane) = self.lanes.get_mut(&subscription) {
            lane.close(event);
        }
        let row = DeadRow { attempts: flight.number, at: now, created: flight.event.created, reason, announced: false };
        self.outcomes.rows.push((delivery, DeliveryRow::Dead(row)));
        self.metrics.dead.inc();
        warn!(subscription.id = %subscription, event.id = %event, attempts = flight.number, "Delivery {delivery} is dead after {} attempts", flight.number);
        self.announce_later(delivery, now, now);
    }

    fn announce_later(&mut self, delivery: DeliveryId, died: Timestamp, now: Timestamp) {
        let at = self.announced_at.get(&delivery.subscription).map_or(now, |last| last.after(ALERT_INTERVAL).max(now));
        let known = self.unannounced.entry(delivery.subscription).or_insert(Unannounced { events: Vec::new(), died, at });
        known.events.push(delivery.event);
        known.died = known.died.max(died);
    }

    /// The receiver wants nothing any more.
    fn disable(&mut self, id: SubscriptionId, company: CompanyId) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        if lane.subscription.standing == Standing::Active {
            lane.subscription = Arc::new(Subscription { standing: Standing::Disabled, ..Subscription::clone(&lane.subscription) });
            self.outcomes.receivers.push((id, Standing::Disabled, lane.health));
            warn!(subscription.id = %id, "The receiver of subscription {id} answered 410; the subscription is disabled");
            self.alerts.push((company, Alert::Disabled { subscription: id }));
        }
    }

    /// Writes down and tells when the receiver's health has changed in kind.
    fn note_health(&mut self, id: SubscriptionId, before: Health) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let after = lane.health;
        if std::mem::discriminant(&before) == std::mem::discriminant(&after) {
            return;
        }
        self.outcomes.receivers.push((id, lane.subscription.standing, after));
        lane.subscription = Arc::new(Subscription { health: after, ..Subscription::clone(&lane.subscription) });
        let company = lane.subscription.company;
        match after {
            Health::Probing { .. } => warn!(subscription.id = %id, "The receiver of subscription {id} fails; it is probed"),
            Health::GivenUp => {
                error!(subscription.id = %id, "The receiver of subscription {id} did not answer for days; the subscription is suspended");
                self.alerts.push((company, Alert::Suspended { subscription: id }));
            }
            Health::Recovering { .. } => info!(subscription.id = %id, "The receiver of subscription {id} answers again"),
            Health::Sound { .. } => {}
        }
    }

    /// What is to be published about deliveries now.
    pub fn alerts(&mut self, now: Timestamp) -> Vec<(CompanyId, Alert)> {
        let mut alerts = std::mem::take(&mut self.alerts);
        let due: Vec<SubscriptionId> = self.unannounced.iter().filter(|(_, due)| due.at <= now).map(|(id, _)| *id).collect();
        for id in due {
            let Some(due) = self.unannounced.remove(&id) else { continue };
            let Some(subscription) = self.store.subscription(id) else { continue };
            self.announced_at.insert(id, now);
            alerts.push((subscription.company, Alert::Exhausted { subscription: id, events: due.events, died: due.died }));
        }
        self.announced_at.retain(|_, at| now.since(*at) < ALERT_INTERVAL);
        alerts
    }

    /// An alert is in the log.
    pub fn announced(&mut self, alert: &Alert, now: Timestamp) {
        if let Alert::Exhausted { subscription, events, .. } = alert {
            let deliveries = events.iter().map(|event| DeliveryId { subscription: *subscription, event: *event });
            self.outcomes.announced.extend(deliveries);
            self.note_outcome(now);
        }
    }

    /// An alert could not be put into the log; it is tried again.
    pub fn not_announced(&mut self, alert: Alert, now: Timestamp) {
        if let Alert::Exhausted { subscription, events, died } = alert {
            let at = now.after(ALERT_INTERVAL);
            let known = self.unannounced.entry(subscription).or_insert(Unannounced { events: Vec::new(), died, at });
            known.events.extend(events);
            known.died = known.died.max(died);
        }
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
        outcomes.settled_tail = Some(self.routed);
        for id in std::mem::take(&mut self.dirty) {
            let Some(lane) = self.lanes.get_mut(&id) else { continue };
            let row = lane.row();
            if row.is_some() || lane.has_row {
                lane.has_row = row.is_some();
                outcomes.positions.push((id, row));
            }
            if lane.is_idle() {
                if self.rested.len() < TARGETS_KEPT_MAX {
                    self.rested
                        .insert(id, Rested { target: Arc::clone(&lane.target), rate: lane.rate, is_heavy: lane.is_heavy, since: now });
                }
                self.forget(id);
            }
        }
        self.rested.retain(|_, rested| now.since(rested.since) < TARGET_KEPT);
        Some(outcomes)
    }

    fn forget(&mut self, id: SubscriptionId) {
        if let Some(at) = self.lanes.remove(&id).and_then(|lane| lane.timer) {
            self.timers.remove(&(at, id));
        }
    }

    /// A subscription was created, with a position row at `position`.
    pub fn created(&mut self, subscription: Arc<Subscription>, position: Position) {
        let id = subscription.id;
        // It may be gone or another one already.
        let Some(subscription) = self.store.subscription(id) else { return };
        self.matcher.insert(&subscription);
        let position = if self.faults.subscription_from_commit { self.store.tail() } else { position };
        if let Some(mut lane) = self.lane(subscription, position) {
            lane.has_row = true;
            self.lanes.insert(id, lane);
            self.dirty.insert(id);
            self.run(id);
        }
    }

    /// A subscription was changed, paused or resumed.
    pub fn changed(&mut self, subscription: Arc<Subscription>) {
        let id = subscription.id;
        // Of several changes at once the last one may be told first.
        let Some(mut subscription) = self.store.subscription(id) else { return };
        let pending = self.outcomes.receivers.iter().rev().find(|(of, ..)| *of == id);
        if let Some((_, standing, health)) = pending {
            // It will be written over what the store shows now.
            let is_disabled = *standing == Standing::Disabled && subscription.standing == Standing::Active;
            let standing = if is_disabled { Standing::Disabled } else { subscription.standing };
            subscription = Arc::new(Subscription { standing, health: *health, ..Subscription::clone(&subscription) });
        }
        self.matcher.insert(&subscription);
        self.rested.remove(&id);
        let Some(lane) = self.lanes.get_mut(&id) else {
            // It was settled up to what was routed; from there on it is another one.
            let routed = self.routed;
            if let Some(lane) = self.lane(subscription, routed) {
                self.lanes.insert(id, lane);
                self.dirty.insert(id);
                self.run(id);
            }
            return;
        };
        let is_other = lane.subscription.wishes != subscription.wishes || lane.subscription.secret != subscription.secret;
        if is_other {
            match Target::new(&subscription) {
                Ok(target) => {
                    lane.target = Arc::new(target);
                    (lane.is_heavy, lane.is_proven) = (false, false);
                }
                Err(error) => error!(subscription.id = %id, %error, "Subscription {id} cannot be sent to: {error}"),
            }
            lane.knobs = Arc::new(subscription.knobs());
            let host = url::Url::parse(&subscription.wishes.url).ok();
            lane.host =
                host.and_then(|url| Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?))).unwrap_or_default().into();
        }
        lane.health = subscription.health;
        lane.subscription = subscription;
        lane.reread();
        self.dirty.insert(id);
        self.run(id);
    }

    /// A subscription was deleted; the store has closed what was open.
    pub fn deleted(&mut self, company: CompanyId, id: SubscriptionId) {
        self.matcher.remove(company, id);
        self.rested.remove(&id);
        let flights = self.lanes.get_mut(&id).map(|lane| std::mem::take(&mut lane.in_flight)).unwrap_or_default();
        for flight in flights.into_values() {
            self.give_back(flight.permit);
        }
        self.forget(id);
        self.dirty.remove(&id);
        self.unannounced.remove(&id);
    }

    /// A delivery is owed by hand; the store has its row. It is written once more: an outcome that waits to be written
    /// may be older than the row.
    pub fn owed_by_hand(&mut self, delivery: DeliveryId, row: RetryRow) {
        let id = delivery.subscription;
        if !self.lanes.contains_key(&id) {
            let routed = self.routed;
            let Some(subscription) = self.store.subscription(id) else { return };
            let Some(lane) = self.lane(subscription, routed) else { return };
            self.lanes.insert(id, lane);
        }
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let row = lane.owe_by_hand(delivery.event, row);
        self.outcomes.rows.push((delivery, DeliveryRow::Retry(row)));
        self.note_outcome(row.due);
        self.dirty.insert(id);
        self.run(id);
    }

    /// A delivery is no longer owed. False when it was not owed, or is being attempted at the moment.
    pub fn discarded(&mut self, delivery: DeliveryId) -> bool {
        let id = delivery.subscription;
        let is_discarded = self.lanes.get_mut(&id).is_some_and(|lane| lane.discard(delivery.event));
        if is_discarded {
            self.dirty.insert(id);
            self.run(id);
        }
        is_discarded
    }

    /// Expires what is older than the cutoff and was not delivered, with a record of it.
    pub fn expire(&mut self, cutoff: Timestamp, now: Timestamp) -> Result<(), ReadError> {
        let ids: Vec<SubscriptionId> = self.lanes.keys().copied().collect();
        for id in ids {
            let Some(lane) = self.lanes.get_mut(&id) else { continue };
            let owed = lane.owed_before(cutoff);
            for (event, row) in &owed {
                lane.discard(*event);
                let closed = DeliveryRow::Closed(expired(row, now));
                self.outcomes.rows.push((DeliveryId { subscription: id, event: *event }, closed));
                self.metrics.expired.inc();
            }
            let has_range = expire_unread(&self.store, lane, cutoff, now, &mut self.outcomes, &self.metrics)?;
            if has_range || !owed.is_empty() {
                self.dirty.insert(id);
                self.waiting_since.get_or_insert(now);
                self.run(id);
            }
        }
        Ok(())
    }

    /// How a subscription's lane stands; none when it has nothing to do.
    pub fn status(&self, id: SubscriptionId) -> Option<LaneStatus> {
        let lane = self.lanes.get(&id)?;
        Some(LaneStatus {
            position: lane.row().map_or(self.routed, |row| row.position),
            settled_above: lane.row().map_or(0, |row| row.settled.len()),
            owed: lane.owed.len(),
            owed_above: lane.owed_above(),
            oldest_owed: lane.owed.values().map(|row| row.created).min(),
            in_flight: lane.in_flight.len(),
            standing: lane.subscription.standing,
            health: lane.health,
        })
    }
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

/// Passes what a lane never attempted and what has expired, with a record. Whether there was any.
fn expire_unread(
    store: &Store,
    lane: &mut Lane,
    cutoff: Timestamp,
    now: Timestamp,
    outcomes: &mut Outcomes,
    metrics: &DeliveryMetrics,
) -> Result<bool, ReadError> {
    if lane.position.created >= cutoff || lane.is_settled() {
        return Ok(false);
    }
    let id = lane.subscription.id;
    let until = Position { created: cutoff.before(Duration::from_micros(1)), id: EventId(u64::MAX) };
    let from = lane.position.max(lane.expired_to);
    let counted = store.count_matching(lane.subscription.company, from, until, &lane.subscription.wishes.filter)?;
    let (Some(first), Some(last)) = (counted.first, counted.last) else { return Ok(false) };
    let count = counted.count.saturating_sub(lane.taken_between(from, last));
    lane.pass_expired(last);
    if count > 0 {
        outcomes.expired.push((id, ExpiredRange { first: first.id, last: last.id, count, at: now }));
        metrics.expired.inc_by(count);
        warn!(subscription.id = %id, count, "{count} events expired before subscription {id} took them");
    }
    Ok(count > 0)
}

fn expired(row: &RetryRow, now: Timestamp) -> ClosedRow {
    ClosedRow {
        state: CloseState::Expired,
        at: now,
        created: row.created,
        reason: "the event was removed by retention".to_owned(),
        attempts: row.attempts,
    }
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
