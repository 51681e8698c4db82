//! Three days without an answer from a thousand receivers, without a disk that fails: what the engine decides alone.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lutine::delivery::PermitLimits;
use lutine::delivery::core::Core;
use lutine::domain::clock::Clock;
use lutine::domain::cursor::Position;
use lutine::domain::retry::{ErrorClass, Exchange};
use lutine::domain::subscription::{DeliveryId, Ordering, Secret, SubscriptionId};
use lutine::domain::time::Timestamp;
use lutine::store::disk::Disk;
use lutine::store::faults::Faults;
use lutine::store::{DeliveryRow, FaultSink, Store, StoreOptions};
use lutine::telemetry::metrics::Metrics;
use lutine::webhook::Report;

use crate::disk::{Chance, SimDisk};
use crate::engine::wishes;
use crate::stage::{COMPANY, SimClock, actor, company, event, master, now_or_never, options, origins};

const SUBSCRIPTIONS: u64 = 1_000;
const EVENTS: u64 = 3_000;
const OUTAGE: Duration = Duration::from_secs(72 * 3600);
const RATE: u32 = 60;

struct Outage {
    clock: Arc<SimClock>,
    store: Store,
    core: Core,
    chance: Chance,
    /// When an attempt ends, of which delivery.
    flights: BinaryHeap<Reverse<(Timestamp, DeliveryId)>>,
    is_over: bool,
    taken: BTreeMap<DeliveryId, u32>,
    dead: u64,
    attempts: u64,
    /// Attempts of each subscription in the current minute after the outage, and the most there were in any.
    minute: (u64, BTreeMap<SubscriptionId, u32>),
    peak: u32,
}

impl Outage {
    fn new() -> Self {
        let clock: Arc<SimClock> = Arc::default();
        let disk = SimDisk::default();
        disk.never_crash();
        let options = StoreOptions { retention: Duration::from_secs(30 * 86_400), ..options() };
        let (disk, time): (Arc<dyn Disk>, Arc<dyn Clock>) = (Arc::new(disk), Arc::clone(&clock) as _);
        let store = Store::open(disk, time, &master(), options, Faults::default(), FaultSink::new(|_| {})).unwrap();
        now_or_never(store.create_company(company("acme"), &actor())).unwrap().unwrap();
        let limits = PermitLimits { all: 256, per_host: 64 };
        let metrics = Metrics::default().delivery;
        let mut core = Core::new(store.clone(), limits, origins(), metrics, Faults::default(), store.now()).unwrap();
        for number in 0..SUBSCRIPTIONS {
            let mut wishes = wishes(number, format!("https://h{}.example/", number % 100));
            wishes.rate_per_minute = RATE;
            // Nine in ten have retries that outlast the outage; one in ten wants order.
            wishes.overrides.retry_schedule_ms = Some(if number % 10 == 1 { vec![5_000] } else { vec![86_400_000; 5] });
            wishes.ordering = if number % 10 == 2 { Ordering::Strict } else { Ordering::Parallel };
            let kind = format!("kind{}", number % 50);
            (wishes.filter, wishes.types) = (lutine::domain::filter::TypeFilter::parse_list(&kind).unwrap(), vec![kind]);
            let created = now_or_never(store.create_subscription(COMPANY, wishes, Secret([7; 32]), Position::START, &actor()));
            core.created(created.unwrap().unwrap(), Position::START);
        }
        Self {
            clock,
            store,
            core,
            chance: Chance::new(1),
            flights: BinaryHeap::new(),
            is_over: false,
            taken: BTreeMap::new(),
            dead: 0,
            attempts: 0,
            minute: Default::default(),
            peak: 0,
        }
    }

    /// Lets time pass; what is to be written down is, once an hour.
    fn run(&mut self, span: Duration) {
        let until = self.clock.now().after(span);
        let mut record_at = self.clock.now().after(Duration::from_secs(3600));
        loop {
            let now = self.clock.now();
            for start in self.core.step(now).unwrap() {
                self.attempts += 1;
                if self.is_over {
                    self.count(start.delivery.subscription, now);
                }
                let lasts = Duration::from_millis(if self.is_over { 20 } else { 1_000 } + self.chance.below(100));
                let delivery = start.delivery;
                self.flights.push(Reverse((now.after(lasts), delivery)));
            }
            for (_, alert) in self.core.alerts(now) {
                self.core.announced(&alert, now);
            }
            if now >= record_at {
                record_at = now.after(Duration::from_secs(3600));
                self.record();
            }
            let ends = self.flights.peek().map(|Reverse((at, _))| *at);
            // Only what starts attempts is waited for: the disk has an hour.
            let wakes = self.core.wakes_at(now).map(|at| at.max(now.after(Duration::from_millis(100))));
            let next = [ends, wakes].into_iter().flatten().min().filter(|next| *next <= until).unwrap_or(until);
            self.clock.advance(next.since(now));
            if next >= until && ends.is_none_or(|ends| ends > until) {
                break;
            }
            self.end_attempts();
        }
        self.record();
    }

    fn count(&mut self, id: SubscriptionId, now: Timestamp) {
        let minute = now.as_seconds() / 60;
        if self.minute.0 != minute {
            self.minute = (minute, BTreeMap::new());
        }
        let count = self.minute.1.entry(id).or_default();
        *count += 1;
        self.peak = self.peak.max(*count);
    }

    fn end_attempts(&mut self) {
        let now = self.clock.now();
        while let Some(Reverse((ends, delivery))) = self.flights.peek().copied()
            && ends <= now
        {
            self.flights.pop();
            let exchange =
                if self.is_over { Exchange::Answered { status: 204, not_before: None } } else { Exchange::Failed(ErrorClass::Connect) };
            if self.is_over {
                *self.taken.entry(delivery).or_default() += 1;
            }
            let duration = Duration::from_millis(20);
            let report = Report { exchange, address: None, status: None, excerpt: String::new(), truncated: false, error: None, duration };
            let chance = self.chance.next() as u32;
            self.core.finish(delivery, report, now, chance);
        }
    }

    fn record(&mut self) {
        if let Some(outcomes) = self.core.record(self.clock.now(), true) {
            self.dead += outcomes.rows.iter().filter(|(_, row)| matches!(row, DeliveryRow::Dead(_))).count() as u64;
            self.store.record_outcomes(&outcomes).unwrap();
        }
    }
}

#[test]
fn a_thousand_receivers_are_down_for_three_days_and_nothing_is_lost() {
    let started = Instant::now();
    let mut outage = Outage::new();
    let begun = outage.clock.now();
    for batch in 0..72 {
        for number in 0..EVENTS / 72 {
            let kind = format!("kind{}", (batch * 7 + number) % 50);
            drop(outage.store.append(outage.store.prepare(COMPANY, &event(&kind, "{}", None))).unwrap());
        }
        outage.store.turn().unwrap();
        outage.run(OUTAGE / 72);
    }
    let published = outage.store.tail().id.0;
    assert!(published > 2_900, "{published}");
    let during = outage.attempts;
    outage.is_over = true;
    outage.run(Duration::from_secs(6 * 86_400));
    let spent = outage.clock.now().since(begun);
    // Twenty want each kind.
    let owed = published * SUBSCRIPTIONS / 50;
    let ended = outage.taken.len() as u64 + outage.dead;
    println!(
        "{owed} deliveries of {published} events: {} taken, {} dead; {during} attempts during the outage, {} after it, at most {} in a \
         minute to one receiver at a rate of {RATE}; {:.1} days in {:.1} s, {:.0}:1",
        outage.taken.len(),
        outage.dead,
        outage.attempts - during,
        outage.peak,
        spent.as_secs_f64() / 86_400.0,
        started.elapsed().as_secs_f64(),
        spent.as_secs_f64() / started.elapsed().as_secs_f64()
    );
    assert!(outage.taken.values().all(|count| *count == 1), "something arrived twice");
    assert!(outage.dead > 0 && ended == owed, "{ended} of {owed} have ended");
    assert!(outage.peak <= 2 * RATE, "{} attempts in a minute", outage.peak);
    assert_eq!(outage.core.in_flight(), 0);
}
