//! The oracle of deliveries: what is owed to whom, what the receivers have seen, and what the engine must never do.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use lutine::delivery::core::Start;
use lutine::domain::company::CompanyId;
use lutine::domain::cursor::Position;
use lutine::domain::event::EventId;
use lutine::domain::filter::TypeFilter;
use lutine::domain::health::Health;
use lutine::domain::profile::OnExhausted;
use lutine::domain::retry::RETRY_AFTER_MAX;
use lutine::domain::subscription::{DeliveryId, Ordering, ReplayId, Standing, Subscription, SubscriptionId};
use lutine::domain::time::Timestamp;
use lutine::store::{DeliveryRow, DeliveryStateName, LogEvent, Outcomes, Replay, ReplayState, Store};

pub const IN_FLIGHT_MAX: usize = 16;
pub const TO_HOST_MAX: usize = 4;

/// What came of an attempt, as the receiver knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Taken,
    /// With the time before which it wants no other attempt.
    Failed(Option<Timestamp>),
    Refused,
    Gone,
}

/// An event of the log.
#[derive(Debug)]
struct Event {
    company: CompanyId,
    created: Timestamp,
    folded: String,
    /// Its values by ordering key.
    values: BTreeMap<&'static str, String>,
    /// The subscription that one of the daemon's own events speaks of.
    about: Option<u32>,
    /// It must end for these.
    must: BTreeSet<SubscriptionId>,
    /// These may get it: another filter wanted it.
    may: BTreeSet<SubscriptionId>,
}

/// A subscription.
#[derive(Debug)]
struct Party {
    subscription: Arc<Subscription>,
    /// Changed in the ledger, while nobody has told the engine yet.
    changing: Option<Arc<Subscription>>,
    schedule: Vec<Duration>,
    start: EventId,
    is_deleted: bool,
    /// Paused, or disabled by a 410.
    is_stopped: bool,
    /// In this order above this event.
    ordered_since: EventId,
    /// Failures in a row that the engine knows of.
    failures: u32,
    /// Of this life.
    starts: VecDeque<Timestamp>,
    alerted: Option<Timestamp>,
    /// Events that its dead letters were announced for: first and last.
    announced: Vec<(u64, u64)>,
}

/// A delivery.
#[derive(Debug, Default, Clone)]
struct Track {
    /// The number of the last attempt that counts, as the engine knows it.
    seen: u32,
    /// The same in the ledger.
    recorded: u32,
    due: Option<Timestamp>,
    recorded_due: Option<Timestamp>,
    /// The life in which the receiver took it.
    taken: Option<u32>,
    /// The ledger knows that it was taken.
    is_told: bool,
    is_dead: bool,
    is_recorded_dead: bool,
    /// The same, perhaps before it was retried by hand.
    was_dead: bool,
    /// How often the receiver refused or failed it.
    failures: u32,
    was_refused: bool,
    was_by_hand: bool,
    /// A person has retried it.
    by_hand: bool,
    is_cancelled: bool,
    /// A person has given it up, perhaps before it was retried.
    was_cancelled: bool,
    is_in_flight: bool,
    was_slow: bool,
}

/// A replay.
#[derive(Debug)]
struct Again {
    subscription: SubscriptionId,
    events: BTreeSet<EventId>,
    is_cancelled: bool,
}

#[derive(Debug, Default)]
pub struct Oracle {
    events: BTreeMap<EventId, Event>,
    parties: BTreeMap<SubscriptionId, Party>,
    tracks: BTreeMap<DeliveryId, Track>,
    replays: BTreeMap<u32, Again>,
    seen: BTreeMap<CompanyId, Position>,
    life: u32,
    /// Somebody has begun to delete it, and was not answered yet.
    pub unsure_deletion: Option<SubscriptionId>,
    /// The same of a delivery that is given up.
    pub unsure_discard: Option<DeliveryId>,
    pub census: BTreeMap<&'static str, u64>,
}

/// Tells what happens, for whoever looks for the reason of a broken promise: with `LUTINE_SIMULATION_TRACE` and one seed.
pub fn trace(what: impl FnOnce() -> String) {
    if std::env::var_os("LUTINE_SIMULATION_TRACE").is_some() {
        println!("| {}", what());
    }
}

fn host_of(subscription: &Subscription) -> &str {
    &subscription.wishes.url
}

impl Event {
    fn wanted(&self, id: SubscriptionId, company: CompanyId, filter: &TypeFilter) -> bool {
        self.company == company && self.about != Some(id.0) && filter.matches(&self.folded, "1")
    }
}

impl Oracle {
    pub fn count(&mut self, what: &'static str) {
        trace(|| what.to_owned());
        *self.census.entry(what).or_default() += 1;
    }

    /// Takes in what the log has.
    pub fn read_log(&mut self, store: &Store) -> Result<(), String> {
        let filters = [TypeFilter::default(), TypeFilter::parse_list("lutine.*").unwrap()];
        for company in [CompanyId(1), CompanyId(2)] {
            let after = self.seen.get(&company).copied().unwrap_or_default();
            for filter in &filters {
                let batch = store.read_after(company, after, filter, 10_000).map_err(|error| error.to_string())?;
                for event in &batch.events {
                    self.published(event);
                }
            }
        }
        Ok(())
    }

    fn published(&mut self, event: &LogEvent) {
        let text = std::str::from_utf8(event.escaped_payload()).unwrap();
        let payload: String = serde_json::from_str(&format!("\"{text}\"")).unwrap();
        let payload: serde_json::Value = serde_json::from_str(&payload).unwrap();
        let about = if event.is_own { payload["subscriptionId"].as_u64().map(|id| id as u32) } else { None };
        let folded = event.kind.to_ascii_lowercase();
        if folded == "lutine.delivery.exhausted"
            && let Some(party) = about.and_then(|id| self.parties.get_mut(&SubscriptionId(id)))
        {
            party.announced.push((payload["firstEventId"].as_u64().unwrap(), payload["lastEventId"].as_u64().unwrap()));
        }
        let values = ["/k", "/deep/j"].into_iter().filter_map(|pointer| Some((pointer, payload.pointer(pointer)?.to_string()))).collect();
        let mut known =
            Event { company: event.company, created: event.created, folded, values, about, must: BTreeSet::new(), may: BTreeSet::new() };
        for (id, party) in self.parties.iter().filter(|(_, party)| !party.is_deleted && party.start < event.id) {
            if known.wanted(*id, party.subscription.company, &party.subscription.wishes.filter) {
                known.must.insert(*id);
            }
        }
        trace(|| format!("published {} {} at {} for {:?}", event.id, known.folded, event.created, known.must));
        let seen = self.seen.entry(event.company).or_default();
        *seen = (*seen).max(event.position());
        self.events.insert(event.id, known);
    }

    /// A subscription is there, whose first event is the first one above `start`.
    pub fn subscribed(&mut self, subscription: Arc<Subscription>, start: EventId) {
        let id = subscription.id;
        for event in self.events.range_mut(start..).filter(|(event, _)| **event > start).map(|(_, event)| event) {
            if event.wanted(id, subscription.company, &subscription.wishes.filter) {
                event.must.insert(id);
            }
        }
        let schedule = subscription.knobs().retry_schedule;
        let party = Party {
            subscription,
            changing: None,
            schedule,
            start,
            is_deleted: false,
            is_stopped: false,
            ordered_since: EventId(0),
            failures: 0,
            starts: VecDeque::new(),
            alerted: None,
            announced: Vec::new(),
        };
        self.parties.insert(id, party);
    }

    /// A change is in the ledger.
    pub fn changing(&mut self, subscription: Arc<Subscription>) {
        if let Some(party) = self.parties.get_mut(&subscription.id) {
            party.changing = Some(subscription);
        }
    }

    /// A change has reached the engine.
    pub fn changed(&mut self, subscription: Arc<Subscription>) {
        trace(|| {
            format!(
                "changed {} {:?} {:?} {}",
                subscription.id,
                subscription.standing,
                subscription.wishes.ordering,
                subscription.wishes.filter.canonical()
            )
        });
        let Some(party) = self.parties.get_mut(&subscription.id) else { return };
        party.failures = 0;
        party.changing = None;
        party.is_stopped = is_stopped(&subscription);
        let before = &party.subscription.wishes;
        if (before.ordering, &before.ordering_key) != (subscription.wishes.ordering, &subscription.wishes.ordering_key) {
            party.ordered_since = self.events.keys().next_back().copied().unwrap_or(EventId(0));
        }
        let id = subscription.id;
        if party.subscription.wishes.filter != subscription.wishes.filter {
            for event in self.events.range_mut(party.start..).map(|(_, event)| event) {
                let is_wanted = event.wanted(id, subscription.company, &subscription.wishes.filter);
                if is_wanted || event.must.remove(&id) {
                    event.may.insert(id);
                }
            }
        }
        party.subscription = subscription;
    }

    /// It is gone, and is not told of anything.
    pub fn deleted(&mut self, id: SubscriptionId) {
        trace(|| format!("{id} is deleted"));
        self.unsure_deletion = None;
        if let Some(party) = self.parties.get_mut(&id) {
            party.is_deleted = true;
        }
        for event in self.events.values_mut() {
            if event.must.remove(&id) {
                event.may.insert(id);
            }
        }
        // Its attempts under way are nobody's any more.
        for (delivery, track) in &mut self.tracks {
            track.is_in_flight &= delivery.subscription != id;
        }
    }

    pub fn is_deleted(&self, id: SubscriptionId) -> bool {
        self.parties.get(&id).is_none_or(|party| party.is_deleted)
    }

    pub fn knows(&self, id: SubscriptionId) -> bool {
        self.parties.contains_key(&id)
    }

    /// A replay is in the ledger.
    pub fn replayed(&mut self, replay: &Replay) {
        if self.replays.contains_key(&replay.id.0) {
            return;
        }
        let has = |(id, event): (&EventId, &Event)| {
            let position = Position { created: event.created, id: *id };
            let is_its = event.company == replay.company && replay.selection.has(position, &event.folded, "1");
            (is_its && event.about != Some(replay.subscription.0)).then_some(*id)
        };
        let events: BTreeSet<EventId> = self.events.iter().filter_map(has).collect();
        trace(|| format!("replay {} of {} events to {}", replay.id, events.len(), replay.subscription));
        self.replays.insert(replay.id.0, Again { subscription: replay.subscription, events, is_cancelled: false });
    }

    /// A person has ended it.
    pub fn replay_cancelled(&mut self, id: ReplayId) {
        trace(|| format!("replay {id} is cancelled"));
        if let Some(again) = self.replays.get_mut(&id.0) {
            again.is_cancelled = true;
        }
    }

    /// What runs.
    pub fn running_replays(&self, store: &Store) -> Vec<ReplayId> {
        let is_running = |id: &ReplayId| store.replay(*id).unwrap().is_some_and(|replay| replay.progress.state == ReplayState::Running);
        self.replays.keys().map(|id| ReplayId(*id)).filter(is_running).collect()
    }

    /// Whether an event is owed to a subscription by itself, or by the replay that a delivery belongs to.
    fn owes(&self, delivery: DeliveryId, id: EventId, event: &Event) -> bool {
        match self.replays.get(&delivery.run) {
            Some(again) => again.events.contains(&id),
            None => event.must.contains(&delivery.subscription),
        }
    }

    /// A person wants it again.
    pub fn retried(&mut self, delivery: DeliveryId) {
        trace(|| format!("{delivery} is retried by hand"));
        let track = self.tracks.entry(delivery).or_default();
        track.by_hand = true;
        track.was_by_hand = true;
        track.due = None;
        track.recorded_due = None;
        track.is_dead = false;
        track.is_recorded_dead = false;
        track.is_cancelled = false;
    }

    /// A person gives it up.
    pub fn discarded(&mut self, delivery: DeliveryId) {
        trace(|| format!("{delivery} is discarded"));
        self.unsure_discard = Some(delivery);
        let track = self.tracks.entry(delivery).or_default();
        track.is_cancelled = true;
        track.was_cancelled = true;
    }

    fn in_flight(&self, wanted: impl Fn(&DeliveryId, &Track) -> bool) -> usize {
        self.tracks.iter().filter(|(id, track)| track.is_in_flight && wanted(id, track)).count()
    }

    /// An attempt starts.
    pub fn started(&mut self, start: &Start, now: Timestamp, cutoff: Timestamp) -> Result<(), String> {
        let delivery = start.delivery;
        trace(|| format!("{now} {delivery} attempt {} starts", start.number));
        let told = |what: String| Err(format!("{delivery}, attempt {}: {what}", start.number));
        let Some(event) = self.events.get(&delivery.event) else { return told("the log does not have the event".to_owned()) };
        let Some(party) = self.parties.get(&delivery.subscription) else { return told("nobody knows the subscription".to_owned()) };
        if party.is_deleted {
            return told("the subscription is deleted".to_owned());
        }
        if party.is_stopped && party.changing.is_none() {
            return told("the subscription is paused or disabled".to_owned());
        }
        let track = self.tracks.get(&delivery).cloned().unwrap_or_default();
        let will_want = party.changing.as_ref().is_some_and(|next| event.wanted(next.id, next.company, &next.wishes.filter));
        if let Some(again) = self.replays.get(&delivery.run) {
            let is_its = again.subscription == delivery.subscription && again.events.contains(&delivery.event);
            if !is_its || again.is_cancelled {
                return told(format!("it is not its replay's, or that is cancelled ({})", again.is_cancelled));
            }
        } else if !will_want
            && !event.must.contains(&delivery.subscription)
            && !event.may.contains(&delivery.subscription)
            && !track.by_hand
        {
            return told(format!("the subscription does not want {}", event.folded));
        }
        if track.is_in_flight {
            return told("it is under way already".to_owned());
        }
        if track.taken.is_some() && track.is_told && !track.by_hand {
            return told("it was delivered, and the ledger knows".to_owned());
        }
        if track.taken == Some(self.life) && !track.by_hand {
            return told("it was delivered in this life".to_owned());
        }
        if (track.is_dead || track.is_cancelled) && !track.by_hand {
            return told(format!("it is dead ({}) or cancelled ({})", track.is_dead, track.is_cancelled));
        }
        if let Some(due) = track.due.filter(|due| *due > now) {
            return told(format!("it is due at {due} and it is {now}"));
        }
        if start.number != track.seen + 1 {
            return told(format!("{} attempts were made", track.seen));
        }
        let wishes = &party.subscription.wishes;
        let is_settled = party.changing.is_none() && self.owes(delivery, delivery.event, event) && delivery.event > party.ordered_since;
        let value = |event: &Event| wishes.ordering_key.as_ref().and_then(|key| event.values.get(key.as_str()).cloned());
        let mine = value(event);
        let is_ordered = match wishes.ordering {
            Ordering::Parallel => false,
            Ordering::Strict => track.seen == 0,
            Ordering::Key => mine.is_some(),
        };
        if is_settled && is_ordered && track.taken.is_none() && !track.by_hand {
            let is_open = |id: EventId, earlier: &Event| {
                let track = self.tracks.get(&DeliveryId { event: id, ..delivery }).cloned().unwrap_or_default();
                let has_ended = track.taken.is_some() || track.is_dead || track.is_cancelled || track.by_hand;
                let is_of_key = wishes.ordering == Ordering::Strict || value(earlier) == mine;
                is_of_key && self.owes(delivery, id, earlier) && earlier.created >= cutoff && !has_ended
            };
            let earlier = self.events.range(..delivery.event).filter(|(id, _)| **id > party.ordered_since);
            if let Some((id, _)) = earlier.into_iter().find(|(id, event)| is_open(**id, event)) {
                return told(format!("event {id} comes first"));
            }
        }
        if is_settled && wishes.ordering == Ordering::Key && mine.is_some() {
            let of_lane = |id: &DeliveryId| (id.subscription, id.run) == (delivery.subscription, delivery.run);
            let under_way = |id: &DeliveryId, track: &Track| track.is_in_flight && of_lane(id);
            let others = self.tracks.iter().filter(|(id, track)| under_way(id, track) && id.event > party.ordered_since);
            if let Some((id, _)) = others.into_iter().find(|(id, _)| value(&self.events[&id.event]) == mine) {
                return told(format!("{id} has the same key and is under way"));
            }
        }
        let of_subscription = self.in_flight(|id, _| id.subscription == delivery.subscription);
        if of_subscription >= usize::from(party.subscription.in_flight_max()) && party.changing.is_none() {
            return told(format!("{of_subscription} are in flight to the subscription"));
        }
        let host = host_of(&party.subscription);
        let to_host = self.in_flight(|id, _| self.parties.get(&id.subscription).is_some_and(|party| host_of(&party.subscription) == host));
        if to_host >= TO_HOST_MAX || self.in_flight(|_, _| true) >= IN_FLIGHT_MAX {
            return told(format!("{to_host} are in flight to the host"));
        }
        let is_slow = party.failures >= 3;
        if is_slow && self.in_flight(|_, track| track.was_slow) >= IN_FLIGHT_MAX / 4 {
            return told("slow receivers have all of their share".to_owned());
        }
        let rate = party.subscription.wishes.rate_per_minute as usize;
        let party = self.parties.get_mut(&delivery.subscription).unwrap();
        if rate > 0 {
            while party.starts.front().is_some_and(|at| now.since(*at) >= Duration::from_secs(60)) {
                party.starts.pop_front();
            }
            party.starts.push_back(now);
            if party.starts.len() > rate + (rate / 60).max(1) {
                return told(format!("{} attempts in a minute", party.starts.len()));
            }
        }
        self.tracks.insert(delivery, Track { is_in_flight: true, was_slow: is_slow, ..track });
        Ok(())
    }

    /// An attempt has ended, and the engine knows.
    pub fn finished(&mut self, delivery: DeliveryId, number: u32, answer: Answer, now: Timestamp) {
        trace(|| format!("{now} {delivery} attempt {number} ends: {answer:?}"));
        let Some(party) = self.parties.get_mut(&delivery.subscription).filter(|party| !party.is_deleted) else { return };
        let track = self.tracks.entry(delivery).or_default();
        track.is_in_flight = false;
        track.seen = number;
        match answer {
            Answer::Taken => {
                party.failures = 0;
                track.taken = Some(self.life);
                track.is_told = false;
                track.by_hand = false;
            }
            Answer::Failed(not_before) => {
                party.failures += 1;
                track.failures += 1;
                match party.schedule.get(number as usize - 1) {
                    Some(wait) => {
                        let asked = not_before.map_or(now, |time| time.min(now.after(RETRY_AFTER_MAX)));
                        track.due = Some(now.after(wait.mul_f64(0.9)).max(asked));
                    }
                    None if party.subscription.knobs().on_exhausted == OnExhausted::Suspend && delivery.run == 0 => {
                        track.due = None;
                        party.is_stopped = true;
                    }
                    None => track.is_dead = true,
                }
            }
            Answer::Refused => {
                track.was_refused = true;
                track.is_dead = true;
            }
            Answer::Gone => {
                track.failures += 1;
                track.due = None;
                party.is_stopped = true;
            }
        }
    }

    /// What the ledger has for certain.
    pub fn recorded(&mut self, outcomes: &Outcomes) {
        trace(|| format!("recorded {:?} {:?} {:?} {:?}", outcomes.rows, outcomes.positions, outcomes.expired, outcomes.settled_tail));
        self.attempted(outcomes);
        for (delivery, row) in &outcomes.rows {
            if let DeliveryRow::Dead(_) = row {
                let track = self.tracks.entry(*delivery).or_default();
                track.is_recorded_dead = true;
                track.was_dead = true;
            }
        }
    }

    /// These attempts are on disk.
    fn attempted(&mut self, outcomes: &Outcomes) {
        for attempt in &outcomes.attempts {
            let track = self.tracks.entry(attempt.delivery).or_default();
            track.recorded = attempt.number;
            track.recorded_due = attempt.next_due;
            track.is_told |= attempt.delivered;
        }
    }

    /// The receiver took it, and the engine will never know.
    pub fn taken_unknown(&mut self, delivery: DeliveryId) {
        if !self.is_deleted(delivery.subscription) {
            self.tracks.entry(delivery).or_default().taken = Some(self.life);
        }
    }

    /// The engine has forgotten everything but the ledger. After a power loss `unsure` says what may be in it.
    pub fn restarted(&mut self, unsure: Option<&Outcomes>, store: &Store) -> Result<(), String> {
        self.life += 1;
        trace(|| format!("life {}", self.life));
        if let Some(unsure) = unsure {
            if is_written(unsure, store).map_err(|error| error.to_string())? {
                self.recorded(unsure);
            } else if are_attempted(unsure, store).map_err(|error| error.to_string())? {
                self.count("power loss between attempts and outcomes");
                self.attempted(unsure);
            }
        }
        for track in self.tracks.values_mut() {
            track.seen = track.recorded;
            track.due = track.recorded_due;
            track.is_dead = track.is_recorded_dead;
            track.is_in_flight = false;
        }
        if let Some(id) = self.unsure_discard.take()
            && let Some(subscription) = store.subscription(id.subscription)
        {
            let view = store.delivery_of(&subscription, id).map_err(|error| error.to_string())?;
            let is_cancelled = view.is_none_or(|view| view.state == DeliveryStateName::Cancelled);
            self.tracks.entry(id).or_default().is_cancelled = is_cancelled;
        }
        if let Some(id) = self.unsure_deletion.take().filter(|id| store.subscription(*id).is_none()) {
            self.deleted(id);
        }
        for (id, party) in &mut self.parties {
            party.failures = 0;
            party.starts.clear();
            party.alerted = None;
            match store.subscription(*id) {
                Some(subscription) => party.is_stopped = is_stopped(&subscription),
                None if party.is_deleted => {}
                None => return Err(format!("subscription {id} is lost")),
            }
        }
        Ok(())
    }

    /// The engine tells of dead letters.
    pub fn alerted(&mut self, id: SubscriptionId, now: Timestamp) -> Result<(), String> {
        let Some(party) = self.parties.get_mut(&id) else { return Ok(()) };
        let before = party.alerted.replace(now);
        if before.is_some_and(|before| now.since(before) < Duration::from_secs(60)) {
            return Err(format!("subscription {id} is told of twice in a minute"));
        }
        Ok(())
    }

    /// Every replay has ended, and with it each of its deliveries.
    fn check_replays(&mut self, store: &Store) -> Result<(), String> {
        let cutoff = store.cutoff();
        let (mut done, mut sent, mut cancelled) = (0, 0, 0);
        for (run, again) in &self.replays {
            // One that ended long ago is forgotten.
            let Some(replay) = store.replay(ReplayId(*run)).map_err(|error| error.to_string())? else { continue };
            let state = replay.progress.state;
            if self.is_deleted(again.subscription) || again.is_cancelled {
                if state == ReplayState::Running {
                    return Err(format!("replay {run} runs on"));
                }
                cancelled += 1;
                continue;
            }
            if state != ReplayState::Done {
                return Err(format!("replay {run} is {} in the end", state.as_str()));
            }
            done += 1;
            let subscription = store.subscription(again.subscription).ok_or_else(|| format!("replay {run} has no subscription"))?;
            for event in &again.events {
                let delivery = DeliveryId { subscription: again.subscription, event: *event, run: *run };
                let track = self.tracks.get(&delivery).cloned().unwrap_or_default();
                let view = store.delivery_of(&subscription, delivery).map_err(|error| error.to_string())?;
                let has_expired = self.events[event].created < cutoff;
                match view.map(|view| view.state) {
                    Some(DeliveryStateName::Delivered) if track.taken.is_some() => sent += 1,
                    Some(DeliveryStateName::Dead) if track.failures > 0 || track.was_refused => {}
                    Some(DeliveryStateName::Cancelled) if track.was_cancelled => {}
                    Some(DeliveryStateName::Expired) | None if has_expired => {}
                    other => return Err(format!("{delivery} is {other:?} in the end: {track:?}")),
                }
            }
        }
        for (what, count) in [("replay done", done), ("replayed", sent), ("replay cancelled", cancelled)] {
            *self.census.entry(what).or_default() += count;
        }
        Ok(())
    }

    /// Everything has come to rest: whatever was owed has ended, and the ledger tells how.
    pub fn check(&mut self, store: &Store) -> Result<(), String> {
        self.check_replays(store)?;
        let cutoff = store.cutoff();
        let mut counted: BTreeMap<&'static str, u64> = BTreeMap::new();
        for (id, event) in &self.events {
            for subscription in &event.must {
                let delivery = DeliveryId { subscription: *subscription, event: *id, run: 0 };
                let party = &self.parties[subscription];
                let known = store.subscription(*subscription).ok_or_else(|| format!("subscription {subscription} is lost"))?;
                let view = store.delivery(&known, *id).map_err(|error| error.to_string())?;
                let track = self.tracks.get(&delivery).cloned().unwrap_or_default();
                let state = view.as_ref().map(|view| view.state);
                let has_expired = event.created < cutoff;
                let full = party.schedule.len() + 1;
                let end = match state {
                    Some(DeliveryStateName::Delivered) if track.taken.is_some() => "delivered",
                    Some(DeliveryStateName::Dead) if track.was_refused => "refused",
                    Some(DeliveryStateName::Dead) if track.failures as usize >= full => "exhausted",
                    Some(DeliveryStateName::Dead) if track.was_by_hand && track.seen as usize >= full => "exhausted",
                    Some(DeliveryStateName::Expired) if has_expired => "expired",
                    Some(DeliveryStateName::Cancelled) if track.was_cancelled => "cancelled",
                    None if has_expired && (track.taken.is_some() || track.was_dead || track.was_cancelled) => "ended and purged",
                    _ => {
                        return Err(format!("{delivery} ({}, created {}) is {state:?} in the end: {track:?}", event.folded, event.created));
                    }
                };
                *counted.entry(end).or_default() += 1;
                if let Some(view) = view.filter(|view| view.state == DeliveryStateName::Dead)
                    && !party.announced.iter().any(|(first, last)| (*first..=*last).contains(&view.id.event.0))
                {
                    return Err(format!("nobody was told of the dead letter {delivery}"));
                }
            }
        }
        for (end, count) in counted {
            *self.census.entry(end).or_default() += count;
        }
        Ok(())
    }
}

fn is_stopped(subscription: &Subscription) -> bool {
    subscription.standing != Standing::Active || subscription.health == Health::GivenUp
}

/// Whether the attempts of a batch are in the attempt log.
fn are_attempted(outcomes: &Outcomes, store: &Store) -> Result<bool, lutine::store::ReadError> {
    match outcomes.attempts.first() {
        Some(attempt) => Ok(store.attempts_made(attempt.delivery)? >= attempt.number),
        None => Ok(false),
    }
}

/// Whether everything of a batch is in the ledger.
fn is_written(outcomes: &Outcomes, store: &Store) -> Result<bool, lutine::store::ReadError> {
    let state = store.delivery_state()?;
    let is_there = |id: &SubscriptionId| store.subscription(*id).is_some();
    if outcomes.settled_tail.is_some_and(|tail| tail != state.settled_tail) {
        return Ok(false);
    }
    for (id, row) in outcomes.positions.iter().filter(|(id, _)| is_there(id)) {
        if state.positions.get(id) != row.as_ref() {
            return Ok(false);
        }
    }
    for (id, progress) in &outcomes.replays {
        let known = store.replay(*id)?.map(|replay| replay.progress);
        if known.is_some_and(|known| (&known.place, known.done) != (&progress.place, progress.done)) {
            return Ok(false);
        }
    }
    let mut rows: BTreeMap<DeliveryId, &DeliveryRow> = BTreeMap::new();
    rows.extend(outcomes.rows.iter().map(|(id, row)| (*id, row)));
    for (id, row) in rows {
        let Some(subscription) = store.subscription(id.subscription) else { continue };
        // What a replay owes that was cancelled meanwhile is not written.
        let is_over = |replay: Replay| replay.progress.state == ReplayState::Cancelled;
        if id.run > 0 && store.replay(ReplayId(id.run))?.is_none_or(is_over) {
            continue;
        }
        let retry = state.retries.get(&(id.subscription, id.run)).and_then(|rows| rows.iter().find(|(event, _)| *event == id.event));
        let is_so = match row {
            DeliveryRow::Retry(row) => retry.is_some_and(|(_, known)| known == row),
            DeliveryRow::Dead(_) => store.delivery_of(&subscription, id)?.is_some_and(|view| view.state == DeliveryStateName::Dead),
            DeliveryRow::Settled | DeliveryRow::Closed(_) => retry.is_none(),
        };
        if !is_so {
            return Ok(false);
        }
    }
    Ok(true)
}
