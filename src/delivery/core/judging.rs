//! What an attempt that has ended means for its delivery and for its receiver.

use tracing::warn;

use super::super::flight::{Flight, LaneId};
use super::{Core, note_held};
use crate::domain::health::Health;
use crate::domain::profile::OnExhausted;
use crate::domain::retry::{ErrorClass, Exchange, Next, Verdict, after_failure, judge};
use crate::domain::subscription::DeliveryId;
use crate::domain::time::Timestamp;
use crate::store::{AttemptRow, DeadReason, DeadRow, DeliveryRow, RetryRow};
use crate::webhook::Report;

/// What is kept of the answer to a delivery that ended well, in bytes. Nobody has to find out why it did, and a receiver that
/// answers at length would fill the disk with it, event by event.
const DELIVERED_EXCERPT_BYTES_MAX: usize = 2 * 1024;

impl Core {
    /// An attempt has ended.
    pub fn finish(&mut self, delivery: DeliveryId, report: Report, now: Timestamp, chance: u32) {
        let (id, event) = (LaneId::of(delivery), delivery.event);
        let Some(flight) = self.lanes.get_mut(&id).and_then(|lane| lane.land(event)) else { return };
        self.give_back(flight.permit.clone());
        let (Some(lane), Some(receiver)) = (self.lanes.get_mut(&id), self.receivers.get_mut(&id.subscription)) else { return };
        receiver.end(delivery, flight.started);
        self.metrics.attempt(&report.exchange, report.duration);
        let verdict = judge(&report.exchange, &receiver.knobs);
        receiver.is_heavy = report.truncated;
        receiver.is_proven = verdict == Verdict::Delivered && !report.truncated;
        let mut attempt = attempt_row(delivery, &flight, report);
        attempt.delivered = verdict == Verdict::Delivered;
        if attempt.delivered {
            shorten(&mut attempt);
        }
        let company = lane.subscription.company;
        let health_before = receiver.health;
        let mut exhausted = None;
        match verdict {
            Verdict::Delivered => {
                receiver.health = receiver.health.after_success(receiver.subscription.in_flight_max());
                let is_owed = lane.close(event);
                if flight.is_retry || is_owed {
                    self.outcomes.rows.push((delivery, DeliveryRow::Settled));
                }
                self.metrics.delivered(flight.event.created, now);
            }
            Verdict::Failed { not_before } => {
                // An attempt that began before the receiver was probed is no probe.
                if !matches!(receiver.health, Health::Probing { next, .. } if flight.started < next) {
                    receiver.health = receiver.health.after_failure(now);
                }
                match after_failure(flight.number, not_before, &receiver.knobs.retry_schedule, now, chance) {
                    Next::RetryAt(due) => {
                        attempt.next_due = Some(due);
                        self.owe(delivery, flight, due, now);
                    }
                    Next::Exhausted if receiver.knobs.on_exhausted == OnExhausted::Suspend && id.run == 0 => {
                        receiver.health = Health::GivenUp;
                        exhausted = Some(event);
                        self.owe(delivery, flight, now, now);
                    }
                    Next::Exhausted => self.bury(delivery, &flight, DeadReason::Exhausted, now),
                }
            }
            Verdict::Refused => self.bury(delivery, &flight, DeadReason::Refused, now),
            Verdict::Gone => {
                // It is still owed, and the next attempt has another number.
                self.owe(delivery, flight, now, now);
                self.disable(id.subscription, company);
            }
        }
        self.outcomes.attempts.push(attempt);
        self.note_health(id.subscription, health_before, exhausted);
        self.dirty.insert(id);
        // Its health may be all that the subscription's own lane is still there for.
        self.dirty.insert(LaneId::own(id.subscription));
        self.note_outcome(now);
        self.run_next(id);
    }

    /// Lets the lanes of a subscription go on after an attempt; the one that made it comes last, so that they take turns.
    pub(super) fn run_next(&mut self, id: LaneId) {
        let runs = self.receivers.get(&id.subscription).map(|receiver| &receiver.runs);
        if let Some(runs) = runs.filter(|runs| runs.len() > 1) {
            for run in runs.clone().into_iter().filter(|run| *run != id.run) {
                self.run(LaneId { run, ..id });
            }
        }
        self.run(id);
    }

    /// An attempt has failed, and the next one may be made at `due`.
    pub(super) fn owe(&mut self, delivery: DeliveryId, flight: Flight, due: Timestamp, now: Timestamp) {
        let (id, event) = (LaneId::of(delivery), delivery.event);
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        if lane.replay.as_ref().is_some_and(|replay| replay.is_cancelled) {
            return;
        }
        let row = RetryRow { attempts: flight.number, due, created: flight.event.created, key: lane.key_of(event) };
        self.outcomes.rows.push((delivery, DeliveryRow::Retry(row)));
        lane.owe(flight.event, row, now, self.faults.strict_passes_stuck);
        note_held(lane, id, &mut self.outcomes);
    }

    /// A delivery is dead.
    pub(super) fn bury(&mut self, delivery: DeliveryId, flight: &Flight, reason: DeadReason, now: Timestamp) {
        let DeliveryId { subscription, event, .. } = delivery;
        if let Some(lane) = self.lanes.get_mut(&LaneId::of(delivery)) {
            lane.close(event);
        }
        let row = DeadRow { attempts: flight.number, at: now, created: flight.event.created, reason, announced: false };
        self.outcomes.rows.push((delivery, DeliveryRow::Dead(row)));
        self.metrics.dead.inc();
        warn!(subscription.id = %subscription, event.id = %event, attempts = flight.number, "Delivery {delivery} is dead after {} attempts", flight.number);
        self.announce_later(delivery, now, now);
    }
}

/// Cuts the excerpt of a success between two characters.
fn shorten(attempt: &mut AttemptRow) {
    if attempt.excerpt.len() > DELIVERED_EXCERPT_BYTES_MAX {
        let end = (0..=DELIVERED_EXCERPT_BYTES_MAX).rev().find(|end| attempt.excerpt.is_char_boundary(*end));
        attempt.excerpt.truncate(end.unwrap_or(0));
        // What is kept for long is not to hold the space of what was read.
        attempt.excerpt.shrink_to_fit();
        attempt.truncated = true;
    }
}

fn attempt_row(delivery: DeliveryId, flight: &Flight, report: Report) -> AttemptRow {
    let class = match &report.exchange {
        Exchange::Failed(class) => Some(*class),
        Exchange::Answered { .. } if report.error.is_some() => Some(ErrorClass::Status),
        Exchange::Answered { .. } => None,
    };
    AttemptRow {
        delivery,
        number: flight.number,
        started: flight.started,
        duration: report.duration,
        address: report.address,
        status: report.status,
        error_class: class,
        error: report.error,
        excerpt: report.excerpt,
        truncated: report.truncated,
        next_due: None,
        kind: flight.event.kind.as_ref().to_owned(),
        event_created: flight.event.created,
        delivered: false,
    }
}
