//! Power losses while the outcomes of deliveries are written: an attempt may be repeated, nothing owed is ever skipped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lutine::domain::clock::Clock;
use lutine::domain::cursor::Position;
use lutine::domain::event::EventId;
use lutine::domain::filter::TypeFilter;
use lutine::domain::profile::{Overrides, Profile};
use lutine::domain::subscription::{Auth, DeliveryId, Ordering, Secret, Subscription, Wishes};
use lutine::domain::time::Timestamp;
use lutine::store::disk::Disk;
use lutine::store::faults::Faults;
use lutine::store::{
    AttemptRow, DeadReason, DeadRow, DeliveryRow, DeliveryStateName, FaultSink, Outcomes, PositionRow, RetryRow, Store, StoreOptions,
};

use crate::disk::{Chance, SimDisk};
use crate::stage::{COMPANY, RETENTION, SimClock, actor, company, event, master, now_or_never, options};

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Delivered,
    Retry,
    Dead,
}

/// A delivery whose outcome was given to the store.
#[derive(Debug, Clone, Copy)]
struct Told {
    outcome: Outcome,
    attempts: u32,
    created: Timestamp,
}

pub fn wishes() -> Wishes {
    Wishes {
        name: "portal".to_owned(),
        url: "https://partner.example/".to_owned(),
        types: Vec::new(),
        filter: TypeFilter::default(),
        profile: Profile::Standard,
        overrides: Overrides::default(),
        auth: Auth::Bearer("token".to_owned()),
        headers: Vec::new(),
        ordering: Ordering::Parallel,
        ordering_key: None,
        max_in_flight: 1,
        rate_per_minute: 0,
    }
}

struct Sender {
    disk: SimDisk,
    clock: Arc<SimClock>,
    chance: Chance,
    faults: Faults,
    subscription: Arc<Subscription>,
    /// Every outcome that the store has acknowledged.
    told: BTreeMap<EventId, Told>,
    /// The outcome that the power loss hit.
    unknown: Option<(EventId, Told)>,
    /// What was created before this has been expired at some time. After a start whose clock is not believed the store
    /// may show such an event once more, but of its deliveries nothing is promised.
    expired: Timestamp,
    hits: BTreeMap<String, u64>,
}

impl Sender {
    fn new(seed: u64, faults: Faults) -> Self {
        let disk = SimDisk::default();
        disk.never_crash();
        let clock = Arc::new(SimClock::default());
        let store = open(&disk, &clock, faults).unwrap();
        let actor = actor();
        now_or_never(store.create_company(company("acme"), &actor)).unwrap().unwrap();
        let created = store.create_subscription(COMPANY, wishes(), Secret([seed as u8; 32]), Position::START, &actor);
        let subscription = now_or_never(created).unwrap().unwrap();
        Self {
            disk,
            clock,
            chance: Chance::new(seed),
            faults,
            subscription,
            told: BTreeMap::new(),
            unknown: None,
            expired: Timestamp::from_micros(0),
            hits: BTreeMap::new(),
        }
    }

    /// Opens the store, checks every promise, and works until the power goes.
    fn live_until_power_loss(&mut self) -> Result<(), String> {
        self.disk.never_crash();
        let store = open(&self.disk, &self.clock, self.faults)?;
        self.check(&store)?;
        self.disk.crash_after(1 + self.chance.below(400));
        for _ in 0..200 {
            self.clock.advance(Duration::from_micros(self.chance.below(20_000_000)));
            if !self.step(&store) {
                break;
            }
        }
        self.disk.crash_after(0);
        drop(store);
        self.disk.power_cycle(&mut self.chance);
        *self.hits.entry(self.disk.take_hit().unwrap_or_else(|| "nothing".to_owned())).or_default() += 1;
        Ok(())
    }

    /// One act; false when the power is gone.
    fn step(&mut self, store: &Store) -> bool {
        self.expired = self.expired.max(store.cutoff());
        match self.chance.below(12) {
            0..=2 => {
                self.disk.enter("publishing");
                let count = 1 + self.chance.below(3);
                for _ in 0..count {
                    drop(store.append(store.prepare(COMPANY, &event("claim.created", "{}", None))));
                }
                store.turn().is_ok()
            }
            3..=7 => self.send(store),
            8 => self.send_again(store),
            9 => {
                self.disk.enter("settling");
                store.settle_attempts().is_ok() && store.maintain().is_ok()
            }
            10 => {
                self.disk.enter("dropping");
                store.drop_expired().is_ok()
            }
            _ => {
                self.clock.advance(Duration::from_secs(600));
                true
            }
        }
    }

    /// The first attempt of the next event.
    fn send(&mut self, store: &Store) -> bool {
        let place = store.delivery_state().map(|state| state.positions.get(&self.subscription.id).cloned());
        let Ok(Some(place)) = place else { return false };
        let Ok(batch) = store.read_after(COMPANY, place.position, &TypeFilter::default(), 1) else { return false };
        let Some(event) = batch.events.first() else { return true };
        let outcome = [Outcome::Delivered, Outcome::Retry, Outcome::Dead][self.chance.below(3) as usize];
        let told = Told { outcome, attempts: 1, created: event.created };
        self.record(store, event.id, told, Some(event.position()))
    }

    /// A further attempt of something that is to be tried again.
    fn send_again(&mut self, store: &Store) -> bool {
        let Ok(state) = store.delivery_state() else { return false };
        let Some((id, row)) = state.retries.get(&(self.subscription.id, 0)).and_then(|rows| rows.first()).copied() else { return true };
        let outcome = [Outcome::Delivered, Outcome::Retry, Outcome::Dead][self.chance.below(3) as usize];
        self.record(store, id, Told { outcome, attempts: row.attempts + 1, created: row.created }, None)
    }

    fn record(&mut self, store: &Store, event: EventId, told: Told, position: Option<Position>) -> bool {
        let delivery = DeliveryId { subscription: self.subscription.id, event, run: 0 };
        let now = self.clock.now();
        let delivered = told.outcome == Outcome::Delivered;
        let attempt = AttemptRow {
            delivery,
            number: told.attempts,
            started: now,
            duration: Duration::from_millis(3),
            address: None,
            status: Some(if delivered { 200 } else { 500 }),
            error_class: None,
            error: None,
            excerpt: "x".repeat(self.chance.below(2_000) as usize),
            truncated: false,
            next_due: None,
            kind: "claim.created".to_owned(),
            event_created: told.created,
            delivered,
        };
        let row = match told.outcome {
            Outcome::Delivered => DeliveryRow::Settled,
            Outcome::Retry => DeliveryRow::Retry(RetryRow { attempts: told.attempts, due: now, created: told.created, key: None }),
            Outcome::Dead => DeliveryRow::Dead(DeadRow {
                attempts: told.attempts,
                at: now,
                created: told.created,
                reason: DeadReason::Exhausted,
                announced: true,
            }),
        };
        let place = position.map(|position| (self.subscription.id, Some(PositionRow { position, settled: Vec::new() })));
        let outcomes = Outcomes {
            attempts: vec![attempt],
            rows: vec![(delivery, row)],
            positions: place.into_iter().collect(),
            ..Outcomes::default()
        };
        self.disk.enter("recording");
        let is_done = store.record_outcomes(&outcomes).is_ok();
        if is_done {
            self.told.insert(event, told);
        } else {
            self.unknown = Some((event, told));
        }
        is_done
    }

    /// Every promise, after a start.
    fn check(&mut self, store: &Store) -> Result<(), String> {
        self.expired = self.expired.max(store.cutoff());
        let report = store.verify().map_err(|error| error.to_string())?;
        if !report.faults.is_empty() {
            return Err(report.faults.join("; "));
        }
        let state = store.delivery_state().map_err(|error| error.to_string())?;
        let position = state.positions.get(&self.subscription.id).ok_or("the position is lost")?.position;
        if let Some((event, told)) = self.unknown.take() {
            let is_known = self.told.contains_key(&event);
            let is_written = self.stands(store, event, told)?;
            let is_undone = if is_known { self.stands(store, event, self.told[&event])? } else { position.id < event };
            if is_written {
                self.told.insert(event, told);
            } else if !is_undone {
                return Err(format!("of event {event}, {told:?}, the position {} knows and nothing else", position.id));
            }
        }
        for (event, told) in &self.told {
            if told.created >= self.expired && (position.id < *event || !self.stands(store, *event, *told)?) {
                return Err(format!("event {event}, {told:?}, is forgotten"));
            }
        }
        let expired = self.expired;
        self.told.retain(|_, told| told.created >= expired);
        Ok(())
    }

    /// Whether the store tells of a delivery what it was told; of an expired one nothing is asked.
    fn stands(&self, store: &Store, event: EventId, told: Told) -> Result<bool, String> {
        if told.created < self.expired {
            return Ok(true);
        }
        let view = store.delivery(&self.subscription, event).map_err(|error| error.to_string())?;
        let state = match told.outcome {
            Outcome::Delivered => DeliveryStateName::Delivered,
            Outcome::Retry => DeliveryStateName::Pending,
            Outcome::Dead => DeliveryStateName::Dead,
        };
        let position = store.delivery_state().map_err(|error| error.to_string())?.positions[&self.subscription.id].position;
        Ok(position.id >= event
            && view.is_some_and(|view| {
                // One more when the power went between the two commits: that one is made again.
                let numbers: Vec<u32> = view.attempts.iter().map(|attempt| attempt.number).collect();
                let is_whole = [told.attempts, told.attempts + 1].iter().any(|last| numbers.iter().copied().eq(1..=*last));
                view.state == state && is_whole
            }))
    }
}

fn open(disk: &SimDisk, clock: &Arc<SimClock>, faults: Faults) -> Result<Store, String> {
    let options = StoreOptions { segment_bytes_max: 20_000, ..options() };
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let clock: Arc<dyn Clock> = Arc::clone(clock) as _;
    Store::open(disk, clock, &master(), options, faults, FaultSink::new(|_| {})).map_err(|error| format!("cannot be opened: {error}"))
}

/// Power losses until a promise is broken, at most so many.
fn run(losses: u64, faults: Faults) -> (BTreeMap<String, u64>, Result<(), String>) {
    let mut hits: BTreeMap<String, u64> = BTreeMap::new();
    for seed in 1..=losses.div_ceil(25) {
        let mut sender = Sender::new(seed, faults);
        let lived = (0..25).try_for_each(|_| sender.live_until_power_loss()).and_then(|()| sender.live_until_power_loss());
        for (hit, count) in sender.hits {
            *hits.entry(hit).or_default() += count;
        }
        if let Err(broken) = lived {
            return (hits, Err(format!("seed {seed}: {broken}")));
        }
    }
    (hits, Ok(()))
}

#[test]
fn no_power_loss_skips_what_is_owed() {
    assert!(RETENTION > Duration::from_secs(600));
    let (hits, lived) = run(crate::losses() / 5, Faults::default());
    assert_eq!(lived, Ok(()));
    for (hit, count) in &hits {
        println!("{count:6}  {hit}");
    }
    if crate::losses() >= 5_000 {
        for (name, least) in [
            ("recording: write to attempts", 20),
            ("recording: sync of attempts", 20),
            ("recording: sync of ledger", 20),
            ("recording: creation of attempts", 1),
            ("dropping: removal of attempts", 1),
        ] {
            let count: u64 = hits.iter().filter(|(hit, _)| hit.starts_with(name)).map(|(_, count)| count).sum();
            assert!(count >= least, "only {count} power losses hit `{name}`, not {least}");
        }
    }
}

#[test]
fn a_store_that_skips_what_is_owed_is_caught() {
    for faults in
        [Faults { position_before_outcome: true, ..Faults::default() }, Faults { retry_lost_at_restart: true, ..Faults::default() }]
    {
        let (hits, lived) = run(500, faults);
        let losses: u64 = hits.values().sum();
        println!("caught after {losses:3} power losses: {lived:?}");
        assert!(lived.is_err(), "not caught in {losses} power losses: {faults:?}");
    }
}
