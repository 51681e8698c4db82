//! Many subscriptions that share little room: whoever ends first or looks ill meanwhile, each gets everything.

use std::sync::Arc;
use std::time::Duration;

use lutine::delivery::PermitLimits;
use lutine::delivery::core::{Core, Start};
use lutine::domain::clock::Clock;
use lutine::domain::cursor::Position;
use lutine::domain::retry::Exchange;
use lutine::domain::subscription::{Secret, Wishes};
use lutine::domain::time::Timestamp;
use lutine::store::disk::Disk;
use lutine::store::faults::Faults;
use lutine::store::{FaultSink, Store};
use lutine::telemetry::metrics::Metrics;
use lutine::webhook::Report;

use crate::disk::{Chance, SimDisk};
use crate::stage::{COMPANY, SimClock, actor, company, event, master, now_or_never, options, origins};

const SUBSCRIPTIONS: u64 = 12;
/// Rounds of publishing; all of it is waited for after the last.
const ROUNDS: u64 = 3;

fn delivered() -> Report {
    Report {
        exchange: Exchange::Answered { status: 204, not_before: None },
        address: None,
        status: Some(204),
        excerpt: String::new(),
        truncated: false,
        error: None,
        duration: Duration::from_millis(1),
    }
}

struct Room {
    clock: Arc<SimClock>,
    store: Store,
    core: Core,
    chance: Chance,
    under_way: Vec<Start>,
    delivered: u64,
}

impl Room {
    fn new(seed: u64) -> Self {
        let disk = SimDisk::default();
        disk.never_crash();
        let clock = Arc::new(SimClock::default());
        let (disk, time): (Arc<dyn Disk>, Arc<dyn Clock>) = (Arc::new(disk), Arc::clone(&clock) as _);
        let store = Store::open(disk, time, &master(), options(), Faults::default(), FaultSink::new(|_| {})).unwrap();
        now_or_never(store.create_company(company("acme"), &actor())).unwrap().unwrap();
        let mut chance = Chance::new(seed);
        for _ in 0..SUBSCRIPTIONS {
            let url = format!("https://partner{}.example/", chance.below(1 + seed % 3));
            let wishes = Wishes { url, max_in_flight: 1 + chance.below(4) as u16, ..crate::sending::wishes() };
            now_or_never(store.create_subscription(COMPANY, wishes, Secret([7; 32]), Position::START, &actor())).unwrap().unwrap();
        }
        let all = 8 << (seed % 2);
        let limits = PermitLimits { all, per_host: all / 2 };
        let core = Core::new(store.clone(), limits, origins(), Metrics::new().delivery, Faults::default(), clock.now()).unwrap();
        Self { clock, store, core, chance, under_way: Vec::new(), delivered: 0 }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn step(&mut self) {
        let starts = self.core.step(self.now()).unwrap();
        self.under_way.extend(starts);
        if let Some(outcomes) = self.core.record(self.now(), self.chance.below(4) == 0) {
            self.store.record_outcomes(&outcomes).unwrap();
        }
    }

    /// Some attempts end, or only time passes; then the engine looks around.
    fn work(&mut self) {
        if self.chance.below(8) == 0 {
            self.clock.advance(Duration::from_millis(1_500));
        }
        for _ in 0..self.chance.below(4) {
            if self.under_way.is_empty() {
                break;
            }
            let place = self.chance.below(self.under_way.len() as u64) as usize;
            let start = self.under_way.swap_remove(place);
            self.core.finish(start.delivery, delivered(), self.now(), 0);
            self.delivered += 1;
        }
        self.step();
    }

    fn publish(&mut self, count: u64) {
        for _ in 0..count {
            drop(self.store.append(self.store.prepare(COMPANY, &event("claim.created", "{}", None))));
        }
        self.store.turn().unwrap();
    }
}

#[test]
fn nothing_waits_for_room_that_is_there() {
    for seed in 1..=60 {
        let mut room = Room::new(seed);
        let mut owed = 0;
        for _ in 0..ROUNDS {
            let count = 1 + room.chance.below(20);
            room.publish(count);
            owed += count * SUBSCRIPTIONS;
            for _ in 0..room.chance.below(100) {
                room.work();
            }
        }
        room.step();
        while !room.under_way.is_empty() {
            room.work();
        }
        assert_eq!(room.delivered, owed, "seed {seed}");
    }
}
