//! What is written down, and what is forgotten after that.

use std::sync::Arc;

use super::super::flight::LaneId;
use super::super::lane::Lane;
use super::{Core, RECORD_AFTER, RECORD_AT, Rested, TAIL_INTERVAL, TARGET_KEPT, TARGETS_KEPT_MAX};
use crate::domain::health::Health;
use crate::domain::subscription::{ReplayId, SubscriptionId};
use crate::domain::time::Timestamp;
use crate::store::Outcomes;

impl Core {
    /// What is to be written down now, if it is time; `all` when it is in any case.
    pub fn record(&mut self, now: Timestamp, all: bool) -> Option<Outcomes> {
        let is_full = self.outcomes.attempts.len() >= RECORD_AT;
        let is_due = self.waiting_since.is_some_and(|since| now >= since.after(RECORD_AFTER));
        let has_moved = self.routed > self.recorded_tail || !self.dirty.is_empty();
        let tail_is_due = has_moved && now >= self.recorded_at.after(TAIL_INTERVAL);
        let has_something = self.waiting_since.is_some() || has_moved;
        if !(is_full || is_due || tail_is_due || (all && has_something)) {
            return None;
        }
        self.waiting_since = None;
        self.recorded_at = now;
        self.recorded_tail = self.routed;
        let mut outcomes = std::mem::take(&mut self.outcomes);
        self.handed_over = outcomes.attempts.iter().map(|attempt| (attempt.delivery, attempt.number)).collect();
        outcomes.settled_tail = Some(self.routed);
        for id in std::mem::take(&mut self.dirty) {
            let (Some(lane), Some(receiver)) = (self.lanes.get_mut(&id), self.receivers.get(&id.subscription)) else { continue };
            let is_over = match &lane.replay {
                Some(replaying) => {
                    let (progress, is_over) = Self::progress(lane, replaying, now);
                    outcomes.replays.push((ReplayId(id.run), progress));
                    is_over
                }
                None => {
                    let row = lane.row();
                    if row.is_some() || lane.has_row {
                        lane.has_row = row.is_some();
                        outcomes.positions.push((id.subscription, row));
                    }
                    lane.is_idle(receiver)
                }
            };
            if is_over {
                self.forget(id);
                self.rest(id.subscription, now);
            }
        }
        self.rested.retain(|_, rested| now.since(rested.since) < TARGET_KEPT);
        Some(outcomes)
    }

    /// Keeps a receiver without lanes for its next event; one that is not well keeps the subscription's own lane, so that
    /// it is known.
    pub(super) fn rest(&mut self, id: SubscriptionId, now: Timestamp) {
        let Some(receiver) = self.receivers.get(&id).filter(|receiver| receiver.runs.is_empty()) else { return };
        if receiver.health != Health::default() {
            let subscription = Arc::clone(&receiver.subscription);
            return self.insert(LaneId::own(id), Lane::new(Arc::clone(&subscription), self.routed), subscription);
        }
        let Some(receiver) = self.receivers.remove(&id) else { return };
        if self.rested.len() < TARGETS_KEPT_MAX {
            self.rested.insert(id, Rested { receiver, since: now });
        }
    }

    pub(super) fn forget(&mut self, id: LaneId) {
        if let Some(receiver) = self.receivers.get_mut(&id.subscription) {
            receiver.runs.remove(&id.run);
        }
        if let Some(at) = self.lanes.remove(&id).and_then(|lane| lane.timer) {
            self.timers.remove(&(at, id));
        }
    }
}
