//! What people do to subscriptions and deliveries while the engine works.

use std::sync::Arc;

use tracing::error;

use super::Core;
use crate::domain::company::CompanyId;
use crate::domain::cursor::Position;
use crate::domain::subscription::{DeliveryId, LaneStatus, Standing, Subscription, SubscriptionId};
use crate::store::{DeliveryRow, RetryRow};
use crate::webhook::Target;

impl Core {
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
        let keys = |subscription: &Subscription| (subscription.secret.clone(), subscription.previous.clone());
        let is_other = lane.subscription.wishes != subscription.wishes || keys(&lane.subscription) != keys(&subscription);
        if is_other {
            match Target::new(&subscription) {
                Ok(target) => lane.target = Arc::new(target),
                Err(error) => error!(subscription.id = %id, %error, "Subscription {id} cannot be sent to: {error}"),
            }
            lane.knobs = Arc::new(subscription.knobs());
            let host = url::Url::parse(&subscription.wishes.url).ok();
            lane.host =
                host.and_then(|url| Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?))).unwrap_or_default().into();
        }
        if lane.subscription.resumes == subscription.resumes {
            // What the lane knows of its receiver may not be in the store yet.
            let is_disabled = lane.subscription.standing == Standing::Disabled && subscription.standing == Standing::Active;
            let standing = if is_disabled { Standing::Disabled } else { subscription.standing };
            subscription = Arc::new(Subscription { standing, health: lane.health, ..Subscription::clone(&subscription) });
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
    pub fn owed_by_hand(&mut self, delivery: DeliveryId, mut row: RetryRow) {
        let id = delivery.subscription;
        if !self.lanes.contains_key(&id) {
            let routed = self.routed;
            let Some(subscription) = self.store.subscription(id) else { return };
            let Some(lane) = self.lane(subscription, routed) else { return };
            self.lanes.insert(id, lane);
        }
        row.attempts = row.attempts.max(self.attempts_made(delivery));
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let row = lane.owe_by_hand(delivery.event, row);
        self.outcomes.rows.push((delivery, DeliveryRow::Retry(row)));
        self.note_outcome(row.due);
        self.dirty.insert(id);
        self.run(id);
    }

    /// The greatest number that an attempt of a delivery has had: on disk, on its way there, or not even that.
    fn attempts_made(&self, delivery: DeliveryId) -> u32 {
        let stored = self.store.attempts_made(delivery).unwrap_or_else(|error| {
            error!(%error, "The attempts of delivery {delivery} cannot be read: {error}");
            0
        });
        let waiting = self.outcomes.attempts.iter().map(|attempt| (attempt.delivery, attempt.number));
        let known = waiting.chain(self.handed_over.iter().copied()).filter(|(id, _)| *id == delivery);
        known.map(|(_, number)| number).max().unwrap_or_default().max(stored)
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
