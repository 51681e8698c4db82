//! The delivery engine on the simulated disk, with a clock that only the test moves and receivers that act by chance.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lutine::delivery::core::{Core, Start};
use lutine::delivery::{Alert, PermitLimits};
use lutine::domain::clock::Clock;
use lutine::domain::company::CompanyId;
use lutine::domain::cursor::Position;
use lutine::domain::event::EventId;
use lutine::domain::filter::TypeFilter;
use lutine::domain::health::Health;
use lutine::domain::profile::{OnExhausted, Overrides, Profile};
use lutine::domain::retry::{ErrorClass, Exchange};
use lutine::domain::subscription::{Auth, DeliveryId, Ordering, ReplayId, Secret, Standing, Subscription, SubscriptionId, Wishes};
use lutine::domain::time::Timestamp;
use lutine::store::disk::Disk;
use lutine::store::faults::Faults;
use lutine::store::{
    CloseState, ClosedRow, DeadThen, DeliveryRow, DeliveryStateName, DeliveryView, FaultSink, LogEvent, NewReplay, Outcomes, Replay,
    ReplayError, ReplayState, RetryRow, Selection, Store, StoreOptions, SubscriptionChange,
};
use lutine::telemetry::metrics::Metrics;
use lutine::webhook::Report;

use crate::disk::{Chance, SimDisk};
use crate::obligations::{Answer, IN_FLIGHT_MAX, Oracle, TO_HOST_MAX};
use crate::stage::{SimClock, actor, company, event, master, now_or_never, options, origins};

const KINDS: [&str; 4] = ["claim.created", "claim.note.added", "policy.bound", "Claim.Closed"];
const FILTERS: [&str; 7] = ["", "", "claim.*", "claim.created", "policy.bound,claim.note.*", "lutine.*", "claim.*,lutine.*"];
const HOSTS: u64 = 5;
const SUBSCRIPTIONS_MAX: usize = 12;

pub fn wishes(number: u64, url: String) -> Wishes {
    Wishes {
        name: number.to_string(),
        url,
        types: Vec::new(),
        filter: TypeFilter::default(),
        profile: Profile::Standard,
        overrides: Overrides::default(),
        auth: Auth::None,
        headers: Vec::new(),
        ordering: Ordering::Parallel,
        ordering_key: None,
        max_in_flight: 4,
        rate_per_minute: 0,
    }
}

fn filter(list: &str) -> TypeFilter {
    if list.is_empty() { TypeFilter::default() } else { TypeFilter::parse_list(list).unwrap() }
}

fn types(list: &str) -> Vec<String> {
    list.split(',').filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
}

/// What a receiver does for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Healthy,
    Failing,
    Hanging,
    Busy,
    Mixed,
}

/// Why a life has ended.
pub enum Stop {
    PowerGone,
    Broken(String),
}

impl From<String> for Stop {
    fn from(broken: String) -> Self {
        Self::Broken(broken)
    }
}

type Lived<T = ()> = Result<T, Stop>;

/// An attempt under way.
#[derive(Debug)]
struct Flight {
    ends: Timestamp,
    delivery: DeliveryId,
    number: u32,
    started: Timestamp,
    answer: Answer,
    status: Option<u16>,
}

/// The engine between two starts.
pub struct Life {
    pub store: Store,
    pub core: Core,
    flights: Vec<Flight>,
    /// Outcomes on their way to the disk, and when they arrive there.
    batch: Option<(Timestamp, Outcomes)>,
}

pub struct World {
    pub disk: SimDisk,
    pub clock: Arc<SimClock>,
    chance: Chance,
    faults: Faults,
    retention: Duration,
    moods: [Mood; HOSTS as usize],
    names: u64,
    /// Where the subscription starts that was made last.
    start: EventId,
    pub oracle: Oracle,
    pub losses: u64,
    pub hits: BTreeMap<String, u64>,
}

fn report(exchange: Exchange, status: Option<u16>, duration: Duration) -> Report {
    Report { exchange, address: None, status, excerpt: String::new(), truncated: false, error: None, duration }
}

impl World {
    pub fn new(seed: u64, faults: Faults) -> Self {
        let disk = SimDisk::default();
        disk.never_crash();
        let mut chance = Chance::new(seed);
        let retention = Duration::from_secs(if chance.one_in(3) { 30 * 86_400 } else { 7_200 });
        let world = Self {
            disk,
            clock: Arc::default(),
            chance,
            faults,
            retention,
            moods: [Mood::Healthy; HOSTS as usize],
            names: 0,
            start: EventId(0),
            oracle: Oracle::default(),
            losses: 0,
            hits: BTreeMap::new(),
        };
        let store = world.open().unwrap();
        for slug in ["acme", "bolt"] {
            now_or_never(store.create_company(company(slug), &actor())).unwrap().unwrap();
        }
        world
    }

    fn open(&self) -> Result<Store, String> {
        let options = StoreOptions { retention: self.retention, segment_bytes_max: 60_000, ..options() };
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as _;
        Store::open(disk, clock, &master(), options, self.faults, FaultSink::new(|_| {}))
            .map_err(|error| format!("cannot be opened: {error}"))
    }

    fn start(&mut self, unsure: Option<&Outcomes>) -> Lived<Life> {
        let store = self.open()?;
        self.adopt(&store);
        self.oracle.restarted(unsure, &store)?;
        self.oracle.read_log(&store)?;
        let limits = PermitLimits { all: IN_FLIGHT_MAX, per_host: TO_HOST_MAX };
        let core = Core::new(store.clone(), limits, origins(), Metrics::default().delivery, self.faults, store.now())
            .map_err(|error| error.to_string())?;
        Ok(Life { store, core, flights: Vec::new(), batch: None })
    }

    /// What the power loss left of an act that nobody was answered for: a subscription made, changed or gone.
    fn adopt(&mut self, store: &Store) {
        for subscription in store.all_subscriptions() {
            if !self.oracle.knows(subscription.id) {
                self.oracle.subscribed(Arc::clone(&subscription), self.start);
            }
            self.oracle.changed(subscription);
        }
        for company in [CompanyId(1), CompanyId(2)] {
            for replay in store.replays_of(company).unwrap() {
                self.oracle.replayed(&replay);
                if replay.progress.state == ReplayState::Cancelled {
                    self.oracle.replay_cancelled(replay.id);
                }
            }
        }
    }

    /// One world: lives until the power goes or the daemon is stopped, then everything comes to rest and is checked.
    pub fn live(&mut self, lives: u64) -> Result<(), String> {
        let mut unsure = None;
        for _ in 0..lives {
            self.disk.never_crash();
            let mut life = match self.start(unsure.as_ref()) {
                Ok(life) => life,
                Err(Stop::Broken(broken)) => return Err(broken),
                Err(Stop::PowerGone) => return Err("the power went without being told to".to_owned()),
            };
            let is_orderly = self.chance.one_in(4);
            if !is_orderly {
                let operations = if self.chance.one_in(2) { 1_200 } else { 300 };
                self.disk.crash_after(1 + self.chance.below(operations));
            }
            let mut lived = Ok(());
            for _ in 0..60 {
                lived = self.act(&mut life);
                if lived.is_err() {
                    break;
                }
            }
            if lived.is_ok() && is_orderly {
                lived = self.stop(&mut life);
            }
            match lived {
                Err(Stop::Broken(broken)) => return Err(broken),
                Ok(()) if is_orderly => {
                    self.oracle.count("orderly restart");
                    unsure = None;
                }
                Ok(()) | Err(Stop::PowerGone) => unsure = self.lose_power(life),
            }
        }
        self.rest(unsure.as_ref())
    }

    /// The power goes; what was on its way to the disk may be there.
    fn lose_power(&mut self, life: Life) -> Option<Outcomes> {
        for flight in &life.flights {
            self.oracle.count("power loss with an attempt under way");
            if flight.answer == Answer::Taken && self.chance.one_in(2) {
                self.oracle.taken_unknown(flight.delivery);
            }
        }
        if life.batch.is_some() {
            self.oracle.count("power loss with outcomes on their way");
        }
        self.disk.crash_after(0);
        let batch = life.batch.map(|(_, outcomes)| outcomes);
        drop((life.core, life.store));
        self.disk.power_cycle(&mut self.chance);
        let hit = self.disk.take_hit().unwrap_or_else(|| "nothing".to_owned());
        *self.hits.entry(hit).or_default() += 1;
        self.losses += 1;
        batch
    }

    /// An orderly stop: what is under way ends, everything is written down.
    fn stop(&mut self, life: &mut Life) -> Lived {
        while !life.flights.is_empty() || life.batch.is_some() {
            let ends = life.flights.iter().map(|flight| flight.ends);
            let next = ends.chain(life.batch.as_ref().map(|(at, _)| *at)).min().unwrap();
            self.move_to(next);
            self.end_attempts(life);
            self.commit(life, false)?;
            self.record(life, false)?;
        }
        self.flush(life)
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn move_to(&self, time: Timestamp) {
        self.clock.advance(time.since(self.now()));
    }

    /// A failed call is the power's fault, or the store's.
    fn done<T, E: std::fmt::Display>(&self, result: Result<T, E>) -> Lived<T> {
        match result {
            Ok(value) if !self.disk.is_dead() => Ok(value),
            _ if self.disk.is_dead() => Err(Stop::PowerGone),
            Ok(value) => Ok(value),
            Err(error) => Err(Stop::Broken(error.to_string())),
        }
    }

    /// The answer to an act of the ledger.
    fn answered<T, E: std::fmt::Display>(&self, result: Option<Result<T, E>>) -> Lived<T> {
        match result {
            Some(result) => self.done(result),
            None if self.disk.is_dead() => Err(Stop::PowerGone),
            None => Err(Stop::Broken("an act was not answered".to_owned())),
        }
    }

    /// Everything that happens until `span` has passed.
    fn run(&mut self, life: &mut Life, span: Duration) -> Lived {
        let until = self.now().after(span);
        loop {
            self.look(life)?;
            let next = self.next(life).filter(|next| *next <= until);
            self.move_to(next.unwrap_or(until));
            self.end_attempts(life);
            self.commit(life, false)?;
            if next.is_none() {
                return self.look(life);
            }
        }
    }

    /// When something happens next.
    fn next(&self, life: &Life) -> Option<Timestamp> {
        let ends = life.flights.iter().map(|flight| flight.ends);
        // While a batch is on its way no other one is written.
        let wakes = life.core.wakes_at(self.now()).filter(|at| life.batch.is_none() || *at > self.now());
        ends.chain(life.batch.as_ref().map(|(at, _)| *at)).chain(wakes).min()
    }

    /// One round of the engine.
    fn look(&mut self, life: &mut Life) -> Lived {
        self.disk.enter("engine");
        let now = self.now();
        let starts = self.done(life.core.step(now))?;
        for start in starts {
            self.begin(life, &start, now)?;
        }
        self.alert(life)?;
        self.record(life, false)
    }

    fn alert(&mut self, life: &mut Life) -> Lived {
        let now = self.now();
        for (company, alert) in life.core.alerts(now) {
            match &alert {
                Alert::Exhausted { subscription, .. } => {
                    self.oracle.alerted(*subscription, now)?;
                    self.oracle.count("exhausted told");
                }
                Alert::Disabled { .. } => self.oracle.count("disabled told"),
                Alert::Suspended { exhausted: Some(_), .. } => self.oracle.count("suspended for an event told"),
                Alert::Suspended { .. } => self.oracle.count("suspended told"),
            }
            if self.chance.one_in(20) {
                life.core.not_announced(alert, now);
                continue;
            }
            let Some(event) = alert.to_event() else { continue };
            self.disk.enter("alerting");
            let appending = match life.store.append(life.store.prepare(company, &event)) {
                Ok(appending) => appending,
                // Too many segments wait.
                Err(_) if !self.disk.is_dead() => {
                    life.core.not_announced(alert, now);
                    continue;
                }
                Err(_) => return Err(Stop::PowerGone),
            };
            self.done(life.store.turn())?;
            self.answered(now_or_never(appending))?;
            self.oracle.read_log(&life.store)?;
            life.core.announced(&alert, now);
        }
        Ok(())
    }

    fn begin(&mut self, life: &mut Life, start: &Start, now: Timestamp) -> Lived {
        let delivery = start.delivery;
        self.oracle.started(start, now, life.store.cutoff())?;
        let subscription = life.store.subscription(start.delivery.subscription);
        let url = subscription.map_or(String::new(), |subscription| subscription.wishes.url.clone());
        let host = url.bytes().find(u8::is_ascii_digit).map_or(0, |digit| usize::from(digit - b'0'));
        let mood = match self.moods[host] {
            Mood::Mixed => [Mood::Healthy, Mood::Healthy, Mood::Failing, Mood::Hanging, Mood::Busy][self.chance.below(5) as usize],
            mood => mood,
        };
        let is_odd = self.moods[host] != Mood::Healthy && self.chance.one_in(25);
        let short = Duration::from_millis(1 + self.chance.below(400));
        let (answer, status, lasts) = match mood {
            _ if is_odd && self.chance.one_in(3) => (Answer::Gone, Some(410), short),
            _ if is_odd => (Answer::Refused, Some(413), short),
            Mood::Healthy | Mood::Mixed => {
                let lasts = if self.chance.one_in(20) { Duration::from_secs(3) } else { short };
                (Answer::Taken, Some(204), lasts)
            }
            Mood::Failing => (Answer::Failed(None), Some(500), short),
            Mood::Hanging => (Answer::Failed(None), None, Duration::from_secs(15)),
            Mood::Busy => (Answer::Failed(Some(now.after(Duration::from_secs(self.chance.below(120))))), Some(429), short),
        };
        life.flights.push(Flight { ends: now.after(lasts), delivery, number: start.number, started: now, answer, status });
        Ok(())
    }

    fn end_attempts(&mut self, life: &mut Life) {
        let now = self.now();
        let (mut ended, going): (Vec<_>, Vec<_>) = life.flights.drain(..).partition(|flight| flight.ends <= now);
        life.flights = going;
        while !ended.is_empty() {
            let flight = ended.swap_remove(self.chance.below(ended.len() as u64) as usize);
            let exchange = match (flight.answer, flight.status) {
                (Answer::Failed(not_before), Some(status)) => Exchange::Answered { status, not_before },
                (_, Some(status)) => Exchange::Answered { status, not_before: None },
                (_, None) => Exchange::Failed(ErrorClass::Timeout),
            };
            self.oracle.count(match flight.answer {
                Answer::Taken => "answer 204",
                Answer::Failed(None) if flight.status.is_none() => "no answer in time",
                Answer::Failed(None) => "answer 500",
                Answer::Failed(Some(_)) => "answer 429",
                Answer::Refused => "answer 413",
                Answer::Gone => "answer 410",
            });
            let report = report(exchange, flight.status, now.since(flight.started));
            self.oracle.finished(flight.delivery, flight.number, flight.answer, now);
            let chance = self.chance.next() as u32;
            life.core.finish(flight.delivery, report, now, chance);
        }
    }

    /// Hands over what is to be written down; it is on disk a while later.
    fn record(&mut self, life: &mut Life, all: bool) -> Lived {
        if life.batch.is_none()
            && let Some(outcomes) = life.core.record(self.now(), all)
        {
            let delay = if self.chance.one_in(8) { self.chance.below(500) } else { 0 };
            life.batch = Some((self.now().after(Duration::from_millis(delay)), outcomes));
            self.commit(life, false)?;
        }
        Ok(())
    }

    fn commit(&mut self, life: &mut Life, now: bool) -> Lived {
        if life.batch.as_ref().is_some_and(|(at, _)| now || *at <= self.now())
            && let Some((_, outcomes)) = &life.batch
        {
            self.disk.enter("recording");
            self.done(life.store.record_outcomes(outcomes))?;
            self.oracle.recorded(outcomes);
            life.batch = None;
        }
        Ok(())
    }

    /// Everything is on disk.
    fn flush(&mut self, life: &mut Life) -> Lived {
        self.commit(life, true)?;
        self.record(life, true)?;
        self.commit(life, true)
    }

    /// One random act.
    fn act(&mut self, life: &mut Life) -> Lived {
        match self.chance.below(50) {
            0..=10 => {
                let count = 1 + self.chance.below(6);
                self.publish(life, count)
            }
            11 => self.publish(life, 40),
            12..=17 => {
                let span = Duration::from_millis(self.chance.below(20_000));
                self.run(life, span)
            }
            18..=20 => {
                let span = Duration::from_secs(self.chance.below(300));
                self.run(life, span)
            }
            21 => {
                let span = Duration::from_secs(600 + self.chance.below(3_000));
                self.run(life, span)
            }
            22..=24 => {
                let moods = [Mood::Healthy, Mood::Healthy, Mood::Failing, Mood::Hanging, Mood::Busy, Mood::Mixed];
                self.moods[self.chance.below(HOSTS) as usize] = moods[self.chance.below(6) as usize];
                Ok(())
            }
            25..=27 => self.subscribe(life),
            28 => self.delete(life),
            29 | 30 => self.change(life, "paused", |_, _| SubscriptionChange::Standing(Standing::Paused)),
            31..=33 => self.change(life, "resumed", |_, _| SubscriptionChange::Resume),
            34 | 35 => self.change(life, "filter changed", |world, subscription| {
                let list = FILTERS[world.chance.below(FILTERS.len() as u64) as usize];
                SubscriptionChange::Wishes(Box::new(Wishes { filter: filter(list), types: types(list), ..subscription.wishes.clone() }))
            }),
            36 => self.change(life, "ordering changed", |world, subscription| {
                let mut wishes = subscription.wishes.clone();
                while wishes.ordering == subscription.wishes.ordering && wishes.ordering_key == subscription.wishes.ordering_key {
                    world.order(&mut wishes);
                }
                SubscriptionChange::Wishes(Box::new(wishes))
            }),
            37 | 38 => self.retry(life),
            39 => self.discard(life),
            40 | 41 => {
                self.disk.enter("sealing");
                self.done(life.store.settle_attempts())?;
                self.done(life.store.maintain()).map(drop)
            }
            42 | 43 => self.replay(life),
            44 => self.cancel_replay(life),
            45 => self.retry_all(life),
            46 | 47 => self.retry(life),
            _ => self.expire(life),
        }
    }

    fn publish(&mut self, life: &mut Life, count: u64) -> Lived {
        self.disk.enter("publishing");
        let mut appending = Vec::new();
        for _ in 0..count {
            let company = CompanyId(1 + u32::from(self.chance.one_in(4)));
            let key = match self.chance.below(5) {
                0 => String::new(),
                value => format!("\"k\":{value},"),
            };
            let payload = format!("{{{key}\"deep\":{{\"j\":\"{}\"}}}}", self.chance.below(3));
            let event = event(KINDS[self.chance.below(4) as usize], &payload, None);
            match life.store.append(life.store.prepare(company, &event)) {
                Ok(one) => appending.push(one),
                // Too many segments wait.
                Err(_) if !self.disk.is_dead() => break,
                Err(_) => return Err(Stop::PowerGone),
            }
        }
        self.done(life.store.turn())?;
        for one in appending {
            self.answered(now_or_never(one))?;
        }
        self.oracle.read_log(&life.store)?;
        if self.chance.one_in(2) { self.look(life) } else { Ok(()) }
    }

    /// Others go on between the two halves of an act.
    fn meanwhile(&mut self, life: &mut Life) -> Lived {
        match self.chance.below(4) {
            0 => self.publish(life, 2),
            1 => self.run(life, Duration::from_millis(30)),
            _ => Ok(()),
        }
    }

    /// Some order.
    fn order(&mut self, wishes: &mut Wishes) {
        wishes.ordering = [Ordering::Parallel, Ordering::Strict, Ordering::Key][self.chance.below(3) as usize];
        let pointer = if self.chance.one_in(3) { "/deep/j" } else { "/k" };
        wishes.ordering_key = (wishes.ordering == Ordering::Key).then(|| pointer.parse().unwrap());
    }

    fn subscribe(&mut self, life: &mut Life) -> Lived {
        if life.store.all_subscriptions().len() >= SUBSCRIPTIONS_MAX {
            return Ok(());
        }
        self.names += 1;
        let schedules: [&[u64]; 4] = [&[5_000, 60_000, 600_000], &[], &[1_000; 9], &[2_000, 3_000]];
        let mut wishes = wishes(self.names, format!("https://h{}.example/", self.chance.below(HOSTS)));
        let list = FILTERS[self.chance.below(FILTERS.len() as u64) as usize];
        (wishes.filter, wishes.types) = (filter(list), types(list));
        wishes.overrides.retry_schedule_ms = Some(schedules[self.chance.below(4) as usize].to_vec());
        wishes.overrides.on_exhausted = self.chance.one_in(5).then_some(OnExhausted::Suspend);
        self.order(&mut wishes);
        wishes.max_in_flight = [1, 2, 4, 16][self.chance.below(4) as usize];
        wishes.rate_per_minute = [0, 0, 0, 6, 60, 300][self.chance.below(6) as usize];
        let company = CompanyId(1 + u32::from(self.chance.one_in(4)));
        let start = life.store.tail();
        self.start = start.id;
        self.meanwhile(life)?;
        self.disk.enter("acting");
        let created = now_or_never(life.store.create_subscription(company, wishes, Secret([7; 32]), start, &actor()));
        let subscription = self.answered(created)?;
        self.oracle.subscribed(Arc::clone(&subscription), start.id);
        self.meanwhile(life)?;
        life.core.created(subscription, start);
        self.oracle.count("subscribed");
        Ok(())
    }

    fn any(&mut self, life: &Life) -> Option<Arc<Subscription>> {
        let all = life.store.all_subscriptions();
        if all.is_empty() { None } else { Some(Arc::clone(&all[self.chance.below(all.len() as u64) as usize])) }
    }

    fn delete(&mut self, life: &mut Life) -> Lived {
        let Some(subscription) = self.any(life) else { return Ok(()) };
        self.disk.enter("acting");
        self.oracle.unsure_deletion = Some(subscription.id);
        let deleted = now_or_never(life.store.delete_subscription(subscription.id, None, &actor()));
        self.answered(deleted)?;
        self.meanwhile(life)?;
        let under_way = life.flights.iter().any(|flight| flight.delivery.subscription == subscription.id);
        self.oracle.count(if under_way { "deleted with an attempt under way" } else { "deleted" });
        self.oracle.deleted(subscription.id);
        life.core.deleted(subscription.company, subscription.id);
        Ok(())
    }

    fn change(
        &mut self,
        life: &mut Life,
        name: &'static str,
        change: impl FnOnce(&mut Self, &Subscription) -> SubscriptionChange,
    ) -> Lived {
        let Some(subscription) = self.any(life) else { return Ok(()) };
        let change = change(self, &subscription);
        self.disk.enter("acting");
        let changed = now_or_never(life.store.change_subscription(subscription.id, None, change, &actor()));
        let changed = self.answered(changed)?;
        if let Some(subscription) = &changed {
            self.oracle.changing(Arc::clone(subscription));
        }

        self.meanwhile(life)?;
        if let Some(subscription) = changed.filter(|changed| !self.oracle.is_deleted(changed.id)) {
            self.oracle.changed(Arc::clone(&subscription));
            life.core.changed(subscription);
            self.oracle.count(name);
        }
        Ok(())
    }

    /// A delivery that a person may do something about, and how many attempts are known of it.
    fn any_delivery(&mut self, life: &Life) -> Lived<Option<(DeliveryId, DeliveryStateName, u32)>> {
        let Some(subscription) = self.any(life) else { return Ok(None) };
        let state = [DeliveryStateName::Pending, DeliveryStateName::Dead, DeliveryStateName::Cancelled][self.chance.below(3) as usize];
        let everything = TypeFilter::default();
        let query = lutine::store::DeliveriesQuery {
            subscription: &subscription,
            state: Some(state),
            filter: &everything,
            before: None,
            limit: 20,
        };
        let page = self.done(life.store.deliveries(&query))?;
        let is_open = |view: &&DeliveryView| view.state != DeliveryStateName::Pending || view.next_due.is_some() || view.is_held;
        let open: Vec<_> = page.views.iter().filter(is_open).collect();
        if open.is_empty() {
            return Ok(None);
        }
        let id = open[self.chance.below(open.len() as u64) as usize].id;
        let Some(view) = self.done(life.store.delivery_of(&subscription, id))? else { return Ok(None) };
        if view.is_held {
            self.oracle.count("a person looks at a held one");
        }
        Ok(Some((id, view.state, view.attempts.iter().map(|attempt| attempt.number).max().unwrap_or(0))))
    }

    fn company_of(life: &Life, id: SubscriptionId) -> CompanyId {
        life.store.subscription(id).map_or(CompanyId(1), |subscription| subscription.company)
    }

    fn retry(&mut self, life: &mut Life) -> Lived {
        let Some((id, _, attempts)) = self.any_delivery(life)? else { return Ok(()) };
        let is_over = |replay: Replay| replay.progress.state == ReplayState::Cancelled;
        if id.run > 0 && self.done(life.store.replay(ReplayId(id.run)))?.is_none_or(is_over) {
            return Ok(());
        }
        let Some(event) = self.done(life.store.read_event(Self::company_of(life, id.subscription), id.event))? else { return Ok(()) };
        let Some(subscription) = life.store.subscription(id.subscription) else { return Ok(()) };
        let row = RetryRow { attempts, due: life.store.now(), created: event.created, key: event.order_key(&subscription) };
        self.disk.enter("acting");
        // Whether or not the power goes, a person has wanted it.
        self.oracle.retried(id);
        let written = now_or_never(life.store.write_row(id, DeliveryRow::Retry(row), &actor(), "delivery.retry", ""));
        self.answered(written)?;
        self.oracle.retried(id);
        life.core.owed_by_hand(id, row);
        self.oracle.count("retried by hand");
        Ok(())
    }

    fn discard(&mut self, life: &mut Life) -> Lived {
        let Some((id, state, attempts)) = self.any_delivery(life)? else { return Ok(()) };
        let is_free = match state {
            // An earlier outcome must not be written after that it is discarded.
            DeliveryStateName::Pending => {
                let is_free = life.core.discarded(id);
                self.flush(life)?;
                is_free
            }
            DeliveryStateName::Dead => true,
            _ => false,
        };
        if !is_free {
            self.oracle.count("not discarded");
            return Ok(());
        }
        self.oracle.discarded(id);
        let created = self.done(life.store.read_event(Self::company_of(life, id.subscription), id.event))?;
        let created = created.map_or_else(Timestamp::default, |event| event.created);
        let row = ClosedRow { state: CloseState::Cancelled, at: life.store.now(), created, reason: "enough".to_owned(), attempts };
        self.disk.enter("acting");
        let written = now_or_never(life.store.write_row(id, DeliveryRow::Closed(row), &actor(), "delivery.discard", "enough"));
        self.answered(written)?;
        self.oracle.unsure_discard = None;
        self.oracle.count(if state == DeliveryStateName::Dead { "dead letter discarded" } else { "discarded" });
        Ok(())
    }

    fn replay(&mut self, life: &mut Life) -> Lived {
        let Some(subscription) = self.any(life) else { return Ok(()) };
        let company = subscription.company;
        let everything = TypeFilter::default();
        let kept = self.done(life.store.read_after(company, Position::START, &everything, 400))?.events;
        if kept.is_empty() {
            return Ok(());
        }
        let places = [self.chance.below(kept.len() as u64), self.chance.below(kept.len() as u64)].map(|place| place as usize);
        let (first, last) = (places[0].min(places[1]), places[0].max(places[1]));
        let stretch = &kept[first..=last.min(first + 60)];
        let (Some(above), Some(until)) = (stretch.first(), stretch.last()) else { return Ok(()) };
        let after = Position { created: above.created, id: EventId(above.id.0 - 1) };
        let filter = &subscription.wishes.filter;
        let is_wanted = |event: &&LogEvent| filter.matches(&event.kind.to_ascii_lowercase(), &event.version);
        let listed: Arc<[EventId]> = stretch.iter().filter(is_wanted).map(|event| event.id).collect();
        let count = listed.len() as u64;
        let events = self.chance.one_in(3).then_some(listed);
        let selection = Selection { filter: filter.clone(), after, until: until.position(), events };
        let rate_per_minute = if self.chance.one_in(4) { 30 } else { 0 };
        let new = NewReplay { subscription: subscription.id, selection, count, rate_per_minute };
        self.disk.enter("acting");
        let created = now_or_never(life.store.create_replay(company, new, &actor()));
        let replay = match created {
            Some(Err(ReplayError::TooMany)) => return Ok(()),
            created => self.answered(created)?,
        };
        self.oracle.replayed(&replay);
        self.meanwhile(life)?;
        life.core.replay(&replay);
        self.oracle.count("replay asked for");
        Ok(())
    }

    fn cancel_replay(&mut self, life: &mut Life) -> Lived {
        let running = self.oracle.running_replays(&life.store);
        if running.is_empty() {
            return Ok(());
        }
        let id = running[self.chance.below(running.len() as u64) as usize];
        let Some(replay) = self.done(life.store.replay(id))? else { return Ok(()) };
        self.disk.enter("acting");
        let cancelled = now_or_never(life.store.cancel_replay(replay.company, id, &actor()));
        let subscription = self.answered(cancelled)?;
        // Others go on between the two halves of an act, as far as they know.
        self.run(life, Duration::from_millis(30))?;
        life.core.replay_cancelled(subscription, id);
        self.oracle.replay_cancelled(id);
        Ok(())
    }

    fn retry_all(&mut self, life: &mut Life) -> Lived {
        let Some(subscription) = self.any(life) else { return Ok(()) };
        let mut letters = Vec::new();
        for id in self.done(life.store.dead_letters(subscription.id, (EventId(0), 0), 50))? {
            if let Some(event) = self.done(life.store.read_event(subscription.company, id.event))? {
                letters.push((id, event.order_key(&subscription)));
            }
        }
        for (id, _) in &letters {
            self.oracle.retried(*id);
        }
        self.disk.enter("acting");
        let actor = actor();
        let settled = life.store.settle_dead(subscription.id, letters, DeadThen::Retry, "all".to_owned(), &actor);
        let settled = self.answered(now_or_never(settled))?;
        for _ in &settled {
            self.oracle.count("retried with all others");
        }
        for (id, _) in &settled {
            self.oracle.retried(*id);
        }
        life.core.revived(settled);
        Ok(())
    }

    fn expire(&mut self, life: &mut Life) -> Lived {
        let (cutoff, now) = (life.store.cutoff(), self.now());
        self.done(life.core.expire(cutoff, now))?;
        self.flush(life)?;
        self.disk.enter("dropping");
        let dropped = self.done(life.store.drop_expired())?;
        if dropped.segments > 0 {
            self.oracle.count("segment dropped");
        }
        Ok(())
    }

    /// Receivers do well, nobody is paused, and time goes on until nothing happens any more.
    fn rest(&mut self, unsure: Option<&Outcomes>) -> Result<(), String> {
        self.disk.never_crash();
        self.moods = [Mood::Healthy; HOSTS as usize];
        let rested = self.start(unsure).and_then(|mut life| {
            for subscription in life.store.all_subscriptions() {
                if subscription.standing != Standing::Active || subscription.health == Health::GivenUp {
                    let resume = SubscriptionChange::Resume;
                    let changed = now_or_never(life.store.change_subscription(subscription.id, None, resume, &actor()));
                    let changed = self.answered(changed)?.unwrap();
                    self.oracle.changed(Arc::clone(&changed));
                    life.core.changed(changed);
                }
            }
            self.run_until_quiet(&mut life)?;
            for kind in KINDS {
                for company in [CompanyId(1), CompanyId(2)] {
                    drop(self.done(life.store.append(life.store.prepare(company, &event(kind, "{}", None))))?);
                }
            }
            self.done(life.store.turn())?;
            self.oracle.read_log(&life.store)?;
            self.run_until_quiet(&mut life)?;
            self.oracle.check(&life.store)?;
            for subscription in life.store.all_subscriptions() {
                // A receiver that has failed is watched until it has taken enough.
                if life.core.status(subscription.id).is_some_and(|lane| lane.health == Health::default()) {
                    return Err(Stop::Broken(format!("subscription {} has a lane and nothing to do", subscription.id)));
                }
            }
            Ok(())
        });
        match rested {
            Ok(()) => Ok(()),
            Err(Stop::Broken(broken)) => Err(format!("at rest: {broken}")),
            Err(Stop::PowerGone) => Err("the power went without being told to".to_owned()),
        }
    }

    fn run_until_quiet(&mut self, life: &mut Life) -> Lived {
        for _ in 0..200 {
            self.run(life, Duration::from_secs(300))?;
            self.expire(life)?;
            self.done(life.store.turn())?;
            while self.done(life.store.maintain())? {}
            if self.next(life).is_none() {
                return Ok(());
            }
        }
        Err(Stop::Broken(format!("no rest: {:?}", self.next(life))))
    }
}
