//! What people do to subscriptions and deliveries while the engine works.

use std::sync::Arc;

use tracing::error;

use super::super::flight::LaneId;
use super::super::lane::Lane;
use super::Core;
use super::replaying::cannot_be_sent_to;
use crate::domain::company::CompanyId;
use crate::domain::cursor::Position;
use crate::domain::subscription::{DeliveryId, LaneStatus, ReplayId, Subscription, SubscriptionId};
use crate::store::{DeliveryRow, RetryRow};

impl Core {
    /// A subscription was created, with a position row at `position`.
    pub fn created(&mut self, subscription: Arc<Subscription>, position: Position) {
        // It may be gone or another one already.
        let Some(subscription) = self.store.subscription(subscription.id) else { return };
        self.matcher.insert(&subscription);
        let position = if self.faults.subscription_from_commit { self.store.tail() } else { position };
        let id = LaneId::own(subscription.id);
        let mut lane = Lane::new(Arc::clone(&subscription), position);
        lane.has_row = true;
        self.insert(id, lane, subscription);
        self.dirty.insert(id);
    }

    /// A subscription was changed, paused or resumed.
    pub fn changed(&mut self, subscription: Arc<Subscription>) {
        // Of several changes at once the last one may be told first.
        let Some(subscription) = self.store.subscription(subscription.id) else { return };
        let id = subscription.id;
        self.matcher.insert(&subscription);
        self.rested.remove(&id);
        if let Some(receiver) = self.receivers.get_mut(&id) {
            if let Err(error) = receiver.change(&subscription, self.origins.of(subscription.company)) {
                cannot_be_sent_to(id, &error);
            }
            for run in &receiver.runs {
                if let Some(lane) = self.lanes.get_mut(&LaneId { subscription: id, run: *run }) {
                    lane.subscription = Arc::clone(&subscription);
                    lane.reread();
                }
            }
        }
        let own = LaneId::own(id);
        if !self.lanes.contains_key(&own) {
            // It was settled up to what was routed; from there on it is another one.
            self.insert(own, Lane::new(Arc::clone(&subscription), self.routed), subscription);
        }
        self.dirty.insert(own);
        self.run_all(id);
    }

    /// A subscription was deleted; the store has closed what was open.
    pub fn deleted(&mut self, company: CompanyId, id: SubscriptionId) {
        self.matcher.remove(company, id);
        self.rested.remove(&id);
        let runs = self.receivers.get(&id).map(|receiver| receiver.runs.clone()).unwrap_or_default();
        for id in runs.into_iter().map(|run| LaneId { subscription: id, run }) {
            let flights = self.lanes.get_mut(&id).map(|lane| std::mem::take(&mut lane.in_flight)).unwrap_or_default();
            for flight in flights.into_values() {
                self.give_back(flight.permit);
            }
            self.forget(id);
            self.dirty.remove(&id);
        }
        self.receivers.remove(&id);
        self.unannounced.remove(&id);
    }

    /// A delivery is owed by hand; the store has its row. It is written once more: an outcome that waits to be written
    /// may be older than the row.
    pub fn owed_by_hand(&mut self, delivery: DeliveryId, row: RetryRow) {
        let row = RetryRow { attempts: row.attempts.max(self.attempts_made(delivery)), ..row };
        self.owe_by_hand(delivery, row);
    }

    /// Dead letters are owed by hand; the store has put these rows in the places of theirs.
    pub fn revived(&mut self, rows: Vec<(DeliveryId, RetryRow)>) {
        for (delivery, row) in rows {
            self.owe_by_hand(delivery, row);
        }
    }

    fn owe_by_hand(&mut self, delivery: DeliveryId, row: RetryRow) {
        let id = LaneId::of(delivery);
        if !self.lanes.contains_key(&id) {
            let Some(subscription) = self.store.subscription(id.subscription) else { return };
            if id.run == 0 {
                self.insert(id, Lane::new(Arc::clone(&subscription), self.routed), subscription);
            } else {
                let replay = self.store.replay(ReplayId(id.run)).unwrap_or_default();
                self.restore_replay(id, replay.as_ref(), Vec::new());
            }
        }
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
        let id = LaneId::of(delivery);
        let is_discarded = self.lanes.get_mut(&id).is_some_and(|lane| lane.discard(delivery.event));
        if is_discarded {
            self.dirty.insert(id);
            self.run(id);
        }
        is_discarded
    }

    /// How a subscription's lane stands; none when it has nothing to do.
    pub fn status(&self, id: SubscriptionId) -> Option<LaneStatus> {
        let (lane, receiver) = (self.lanes.get(&LaneId::own(id))?, self.receivers.get(&id)?);
        Some(LaneStatus {
            position: lane.row().map_or(self.routed, |row| row.position),
            settled_above: lane.row().map_or(0, |row| row.settled.len()),
            owed: lane.owed.len(),
            owed_above: lane.owed_above(),
            oldest_owed: lane.owed.values().map(|row| row.created).min(),
            in_flight: lane.in_flight.len(),
            standing: receiver.subscription.standing,
            health: receiver.health,
        })
    }
}
