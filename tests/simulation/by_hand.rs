//! What people do while outcomes are on their way to the disk, step by step.

use std::sync::Arc;
use std::time::Duration;

use lutine::delivery::PermitLimits;
use lutine::delivery::core::{Core, Start};
use lutine::domain::clock::Clock;
use lutine::domain::cursor::Position;
use lutine::domain::event::EventId;
use lutine::domain::health::Health;
use lutine::domain::retry::Exchange;
use lutine::domain::subscription::{DeliveryId, Secret, Standing, Subscription};
use lutine::store::disk::Disk;
use lutine::store::faults::Faults;
use lutine::store::{DeliveryRow, FaultSink, RetryRow, Store, SubscriptionChange};
use lutine::telemetry::metrics::Metrics;
use lutine::webhook::Report;

use crate::disk::SimDisk;
use crate::engine::wishes;
use crate::stage::{COMPANY, SimClock, actor, company, event, master, now_or_never, options, origins};

/// One subscription and its receiver, whose answers the test gives.
struct Stage {
    clock: Arc<SimClock>,
    store: Store,
    core: Core,
    subscription: Arc<Subscription>,
}

fn answered(status: u16) -> Report {
    Report {
        exchange: Exchange::Answered { status, not_before: None },
        address: None,
        status: Some(status),
        excerpt: String::new(),
        truncated: false,
        error: (status >= 300).then(|| "no".to_owned()),
        duration: Duration::from_millis(5),
    }
}

impl Stage {
    /// With one event published.
    fn new(schedule_ms: &[u64]) -> Self {
        let clock: Arc<SimClock> = Arc::default();
        let disk = SimDisk::default();
        disk.never_crash();
        let (disk, time): (Arc<dyn Disk>, Arc<dyn Clock>) = (Arc::new(disk), Arc::clone(&clock) as _);
        let store = Store::open(disk, time, &master(), options(), Faults::default(), FaultSink::new(|_| {})).unwrap();
        now_or_never(store.create_company(company("acme"), &actor())).unwrap().unwrap();
        let limits = PermitLimits { all: 16, per_host: 16 };
        let mut core = Core::new(store.clone(), limits, origins(), Metrics::default().delivery, Faults::default(), store.now()).unwrap();
        let mut wishes = wishes(1, "https://h1.example/".to_owned());
        wishes.overrides.retry_schedule_ms = Some(schedule_ms.to_vec());
        let created = now_or_never(store.create_subscription(COMPANY, wishes, Secret([7; 32]), Position::START, &actor()));
        let created = created.unwrap().unwrap();
        core.created(Arc::clone(&created), Position::START);
        let stage = Self { clock, store, core, subscription: created };
        stage.publish();
        stage
    }

    fn publish(&self) {
        let appending = self.store.append(self.store.prepare(COMPANY, &event("claim.created", "{}", None))).unwrap();
        self.store.turn().unwrap();
        now_or_never(appending).unwrap().unwrap();
    }

    fn starts(&mut self) -> Vec<Start> {
        let now = self.clock.now();
        self.core.step(now).unwrap()
    }

    fn finish(&mut self, start: &Start, status: u16) {
        let now = self.clock.now();
        self.core.finish(start.delivery, answered(status), now, 0);
    }

    fn record(&mut self) {
        let now = self.clock.now();
        if let Some(outcomes) = self.core.record(now, true) {
            self.store.record_outcomes(&outcomes).unwrap();
        }
    }

    fn change(&self, change: SubscriptionChange) -> Arc<Subscription> {
        now_or_never(self.store.change_subscription(self.subscription.id, None, change, &actor())).unwrap().unwrap().unwrap()
    }

    /// As whoever reads the ledger sees it, a restart included.
    fn stands(&self) -> (Standing, Health) {
        let seen = self.store.subscription(self.subscription.id).unwrap();
        (seen.standing, seen.health)
    }

    fn row(&self, attempts: u32) -> RetryRow {
        RetryRow { attempts, due: self.store.now(), created: self.store.now(), key: None }
    }

    fn retry(&mut self, delivery: DeliveryId, row: RetryRow) {
        now_or_never(self.store.write_row(delivery, DeliveryRow::Retry(row), &actor(), "delivery.retry", "")).unwrap().unwrap();
        self.core.owed_by_hand(delivery, row);
    }
}

#[test]
fn a_resume_stands_whatever_waits_to_be_written() {
    // Before the outcomes are handed over, while they are on their way, and before the engine has heard of the resume.
    for moment in ["waiting", "on its way", "not told"] {
        let mut stage = Stage::new(&[1_000]);
        let start = stage.starts().remove(0);
        let on_its_way = if moment == "waiting" {
            stage.finish(&start, 410);
            None
        } else if moment == "on its way" {
            stage.finish(&start, 410);
            let now = stage.clock.now();
            stage.core.record(now, true)
        } else {
            None
        };
        let resumed = stage.change(SubscriptionChange::Resume);
        if moment == "not told" {
            stage.finish(&start, 410);
            stage.record();
        }
        if let Some(outcomes) = on_its_way {
            stage.store.record_outcomes(&outcomes).unwrap();
        }
        stage.core.changed(resumed);
        stage.record();
        assert_eq!(stage.stands(), (Standing::Active, Health::default()), "{moment}");
        stage.clock.advance(Duration::from_secs(2));
        let again = stage.starts();
        assert_eq!(again.iter().map(|start| start.number).collect::<Vec<_>>(), [2], "{moment}");
        // A 410 after the resume counts.
        stage.finish(&again[0], 410);
        stage.record();
        assert_eq!(stage.stands().0, Standing::Disabled, "{moment}");
    }
}

#[test]
fn a_retry_by_hand_takes_the_next_number_although_the_last_outcome_is_on_its_way() {
    for is_handed_over in [false, true] {
        let mut stage = Stage::new(&[]);
        let start = stage.starts().remove(0);
        stage.finish(&start, 500);
        let on_its_way = if is_handed_over {
            let now = stage.clock.now();
            stage.core.record(now, true)
        } else {
            None
        };
        // Who asks has seen no attempt: the delivery is dead, and nothing of it is on disk.
        let row = stage.row(0);
        stage.retry(start.delivery, row);
        if let Some(outcomes) = on_its_way {
            stage.store.record_outcomes(&outcomes).unwrap();
        }
        let again = stage.starts();
        assert_eq!(again.iter().map(|start| start.number).collect::<Vec<_>>(), [2], "handed over: {is_handed_over}");
        stage.finish(&again[0], 204);
        stage.record();
        assert_eq!(stage.store.attempts_made(start.delivery).unwrap(), 2);
        let view = stage.store.delivery(&stage.subscription, EventId(1)).unwrap().unwrap();
        assert_eq!(view.attempts.iter().map(|attempt| attempt.status).collect::<Vec<_>>(), [Some(500), Some(204)]);
        assert_eq!(stage.store.delivery_state().unwrap().retries.len(), 0);
    }
}

#[test]
fn a_changed_subscription_reads_on_past_what_is_settled_already() {
    let mut stage = Stage::new(&[1_000]);
    let hanging = stage.starts().remove(0);
    // More of them are settled above the position than one look into the log takes.
    for _ in 0..60 {
        stage.publish();
        let start = stage.starts().remove(0);
        stage.finish(&start, 204);
    }
    let change = stage.change(SubscriptionChange::Standing(Standing::Active));
    stage.core.changed(change);
    stage.publish();
    let started: Vec<EventId> = stage.starts().iter().map(|start| start.event.id).collect();
    assert_eq!(started, [EventId(62)]);
    assert_eq!(hanging.event.id, EventId(1));
}

#[test]
fn a_retry_by_hand_of_an_attempt_under_way_leaves_no_row_when_that_arrives() {
    let mut stage = Stage::new(&[1_000]);
    let first = stage.starts().remove(0);
    let row = stage.row(0);
    stage.retry(first.delivery, row);
    stage.record();
    stage.finish(&first, 204);
    stage.record();
    assert_eq!(stage.store.delivery_state().unwrap().retries.len(), 0);
    assert!(stage.starts().is_empty());
}
