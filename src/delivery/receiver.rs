//! A receiver: what the lanes of one subscription share, its own and those of its replays.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::permits;
use super::rate::Rate;
use crate::domain::health::Health;
use crate::domain::profile::Knobs;
use crate::domain::subscription::{DeliveryId, Standing, Subscription};
use crate::domain::time::Timestamp;
use crate::store::ReceiverNote;
use crate::webhook::{Origin, Target, TargetError};

/// An attempt that lasts longer makes its receiver a slow one.
const HANGING: std::time::Duration = std::time::Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Receiver {
    pub subscription: Arc<Subscription>,
    /// Its connections.
    pub target: Arc<Target>,
    pub knobs: Arc<Knobs>,
    /// Host and port, for what is allowed in flight to them.
    pub host: Arc<str>,
    pub health: Health,
    /// The attempts that were made of late.
    pub rate: Rate,
    /// Whether the last answer was longer than what is kept of it: it cost more than an answer should.
    pub is_heavy: bool,
    /// Whether the last attempt that ended was one as it should be: a success with a short answer.
    pub is_proven: bool,
    /// The runs that have a lane.
    pub runs: BTreeSet<u32>,
    /// Attempts under way and when they began.
    flights: BTreeSet<(Timestamp, DeliveryId)>,
}

fn host_of(subscription: &Subscription) -> Arc<str> {
    let host = url::Url::parse(&subscription.wishes.url).ok();
    host.and_then(|url| Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?))).unwrap_or_default().into()
}

impl Receiver {
    /// The receiver of a subscription, before anything was sent to it; `origin` is what its webhooks tell of their company.
    pub fn new(subscription: Arc<Subscription>, origin: Origin) -> Result<Self, TargetError> {
        Ok(Self {
            target: Arc::new(Target::new(&subscription, origin)?),
            knobs: Arc::new(subscription.knobs()),
            host: host_of(&subscription),
            health: subscription.health,
            rate: Rate::default(),
            is_heavy: false,
            is_proven: false,
            runs: BTreeSet::new(),
            flights: BTreeSet::new(),
            subscription,
        })
    }

    /// Takes a change over. What is known of the receiver stays known unless a person has resumed the subscription: it may
    /// not be in the store yet.
    pub fn change(&mut self, subscription: &Arc<Subscription>, origin: Origin) -> Result<(), TargetError> {
        let before = Arc::clone(&self.subscription);
        if before.resumes == subscription.resumes {
            let is_disabled = before.standing == Standing::Disabled && subscription.standing == Standing::Active;
            let standing = if is_disabled { Standing::Disabled } else { subscription.standing };
            self.subscription = Arc::new(Subscription { standing, health: self.health, ..Subscription::clone(subscription) });
        } else {
            self.subscription = Arc::clone(subscription);
            self.health = subscription.health;
        }
        let is_same = before.wishes == subscription.wishes
            && before.secret == subscription.secret
            && before.previous == subscription.previous
            && before.consent == subscription.consent;
        if !is_same {
            self.knobs = Arc::new(subscription.knobs());
            self.host = host_of(subscription);
            (self.is_heavy, self.is_proven) = (false, false);
            self.target = Arc::new(Target::new(subscription, origin)?);
        }
        Ok(())
    }

    /// Whether anything may be sent to it, now or later without a person.
    pub fn is_open(&self) -> bool {
        self.subscription.standing == Standing::Active && self.health != Health::GivenUp
    }

    /// Whether one more attempt may start, as far as the receiver goes.
    pub fn has_room(&self, now: Timestamp) -> bool {
        let window = self.health.window(self.subscription.in_flight_max(), now);
        self.is_open() && self.flights.len() < usize::from(window) && self.rate.ready_at(self.subscription.rate_per_minute()) <= now
    }

    /// The earliest time at which its rate and its health let an attempt start.
    pub fn ready_at(&self) -> Timestamp {
        self.rate.ready_at(self.subscription.rate_per_minute()).max(self.health.wakes_at().unwrap_or_default())
    }

    /// Notes an attempt that starts.
    pub fn start(&mut self, delivery: DeliveryId, now: Timestamp) {
        self.rate.count(self.subscription.rate_per_minute(), now);
        self.flights.insert((now, delivery));
    }

    /// Notes an attempt that has ended.
    pub fn end(&mut self, delivery: DeliveryId, started: Timestamp) {
        self.flights.remove(&(started, delivery));
    }

    /// Attempts under way.
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// What is known of it: one that must not hold up others keeps an attempt waiting, fails or answers at length.
    pub fn standing(&self, now: Timestamp) -> permits::Standing {
        let is_hanging = || self.flights.first().is_some_and(|(started, _)| now.since(*started) > HANGING);
        if self.is_heavy || self.health.is_slow() || is_hanging() {
            permits::Standing::Slow
        } else if self.is_proven {
            permits::Standing::Proven
        } else {
            permits::Standing::Unproven
        }
    }

    /// How it does, to be written down.
    pub fn note(&self) -> ReceiverNote {
        let Subscription { id, standing, resumes, .. } = *self.subscription;
        ReceiverNote { subscription: id, standing, health: self.health, resumes }
    }
}
