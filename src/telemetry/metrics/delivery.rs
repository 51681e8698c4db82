//! What the delivery engine counts.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::domain::retry::{ErrorClass, Exchange};
use crate::domain::time::Timestamp;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassLabels {
    class: &'static str,
}

/// The counters of the delivery engine.
#[derive(Debug)]
pub struct DeliveryMetrics {
    /// Answers by the hundred of their status, in the order 1xx to 5xx, then what lies outside.
    answered: [Counter; 6],
    /// In the order of [`ErrorClass::ALL`].
    failed: [Counter; ErrorClass::ALL.len()],
    attempt_seconds: Histogram,
    latency_seconds: Histogram,
    /// Deliveries that ended well.
    pub delivered: Counter,
    /// Deliveries that are dead.
    pub dead: Counter,
    /// Deliveries whose event expired first.
    pub expired: Counter,
    /// Subscriptions that stopped and wait for a person.
    pub suspended: Counter,
    /// Turns of the engine; in each it starts what may start, and hands over what is to be written down.
    pub turns: Counter,
    /// Attempts under way.
    pub in_flight: Gauge,
    /// Subscriptions that have something to do.
    pub lanes: Gauge,
}

impl DeliveryMetrics {
    /// Counters at nothing, in `registry`.
    pub(super) fn new(registry: &mut Registry) -> Self {
        let attempts = Family::<ClassLabels, Counter>::default();
        registry.register("delivery_attempts", "Attempts by what came of them", attempts.clone());
        let of = |class: &'static str| attempts.get_or_create_owned(&ClassLabels { class });
        let attempt_seconds = Histogram::new(exponential_buckets(0.001, 2.0, 16));
        registry.register("delivery_attempt_seconds", "Time that an attempt took", attempt_seconds.clone());
        let latency_seconds = Histogram::new(exponential_buckets(0.001, 2.0, 24));
        registry.register("delivery_latency_seconds", "Time from the commit of an event to its delivery", latency_seconds.clone());
        let metrics = Self {
            answered: ["1xx", "2xx", "3xx", "4xx", "5xx", "other"].map(of),
            failed: ErrorClass::ALL.map(|class| of(class.as_str())),
            attempt_seconds,
            latency_seconds,
            delivered: Counter::default(),
            dead: Counter::default(),
            expired: Counter::default(),
            suspended: Counter::default(),
            turns: Counter::default(),
            in_flight: Gauge::default(),
            lanes: Gauge::default(),
        };
        registry.register("deliveries_delivered", "Deliveries that ended well", metrics.delivered.clone());
        registry.register("deliveries_dead", "Deliveries that became dead letters", metrics.dead.clone());
        registry.register("deliveries_expired", "Deliveries whose event expired first", metrics.expired.clone());
        registry.register("subscriptions_suspended", "Subscriptions that stopped and wait for a person", metrics.suspended.clone());
        registry.register("delivery_turns", "Turns of the engine, each a look at everything that may start", metrics.turns.clone());
        registry.register("delivery_attempts_in_flight", "Attempts under way", metrics.in_flight.clone());
        registry.register("delivery_lanes", "Subscriptions that have something to do", metrics.lanes.clone());
        metrics
    }

    /// Counts an attempt.
    pub fn attempt(&self, exchange: &Exchange, duration: Duration) {
        let counter = match exchange {
            Exchange::Answered { status, .. } => self.answered.get(usize::from(status / 100).wrapping_sub(1)).or(self.answered.last()),
            Exchange::Failed(class) => ErrorClass::ALL.iter().position(|known| known == class).and_then(|place| self.failed.get(place)),
        };
        if let Some(counter) = counter {
            counter.inc();
        }
        self.attempt_seconds.observe(duration.as_secs_f64());
    }

    /// Counts a delivery that ended well.
    pub fn delivered(&self, created: Timestamp, now: Timestamp) {
        self.delivered.inc();
        self.latency_seconds.observe(now.since(created).as_secs_f64());
    }
}
