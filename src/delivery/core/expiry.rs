//! The end of what retention takes before it was delivered: never without a record.

use std::time::Duration;

use tracing::warn;

use super::super::flight::LaneId;
use super::super::lane::Lane;
use super::Core;
use crate::domain::cursor::Position;
use crate::domain::event::EventId;
use crate::domain::time::Timestamp;
use crate::store::{CloseState, ClosedRow, DeliveryRow, ExpiredRange, Outcomes, ReadError, RetryRow, Store};
use crate::telemetry::metrics::DeliveryMetrics;

impl Core {
    /// Expires what is older than the cutoff and was not delivered, with a record of it.
    pub fn expire(&mut self, cutoff: Timestamp, now: Timestamp) -> Result<(), ReadError> {
        let ids: Vec<LaneId> = self.lanes.keys().copied().collect();
        for id in ids {
            let Some(lane) = self.lanes.get_mut(&id) else { continue };
            let owed = lane.owed_before(cutoff);
            for (event, row) in &owed {
                lane.discard(*event);
                let closed = DeliveryRow::Closed(expired(row, now));
                self.outcomes.rows.push((id.delivery(*event), closed));
                self.metrics.expired.inc();
            }
            let has_range = expire_unread(&self.store, lane, cutoff, now, &mut self.outcomes, &self.metrics)?;
            if has_range || !owed.is_empty() {
                self.dirty.insert(id);
                self.waiting_since.get_or_insert(now);
                self.run(id);
            }
        }
        Ok(())
    }
}

/// Passes what a lane never attempted and what has expired, with a record. Whether there was any.
pub(super) fn expire_unread(
    store: &Store,
    lane: &mut Lane,
    cutoff: Timestamp,
    now: Timestamp,
    outcomes: &mut Outcomes,
    metrics: &DeliveryMetrics,
) -> Result<bool, ReadError> {
    // What a replay never attempted is not owed by it: the event went its own way.
    if lane.position.created >= cutoff || lane.is_settled() || lane.replay.is_some() {
        return Ok(false);
    }
    let id = lane.subscription.id;
    let until = Position { created: cutoff.before(Duration::from_micros(1)), id: EventId(u64::MAX) };
    let from = lane.position.max(lane.expired_to);
    let counted = store.count_matching(lane.subscription.company, from, until, &lane.subscription.wishes.filter)?;
    let (Some(first), Some(last)) = (counted.first, counted.last) else { return Ok(false) };
    let mut count = counted.count;
    for event in lane.taken_between(from, last) {
        let is_counted = store.is_of_types(lane.subscription.company, event, &lane.subscription.wishes.filter)?;
        count = count.saturating_sub(u64::from(is_counted));
    }
    lane.pass_expired(last);
    if count > 0 {
        outcomes.expired.push((id, ExpiredRange { first: first.id, last: last.id, count, at: now }));
        metrics.expired.inc_by(count);
        warn!(subscription.id = %id, count, "{count} events expired before subscription {id} took them");
    }
    Ok(count > 0)
}

pub(super) fn expired(row: &RetryRow, now: Timestamp) -> ClosedRow {
    ClosedRow {
        state: CloseState::Expired,
        at: now,
        created: row.created,
        reason: "the event was removed by retention".to_owned(),
        attempts: row.attempts,
    }
}
