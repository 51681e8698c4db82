//! Whose turn it is: lanes that may go on, lanes that wait for room, and the times at which others wake up.

use std::collections::VecDeque;
use std::sync::Arc;

use super::super::flight::LaneId;
use super::super::permits::{NoRoom, Permit, Standing};
use super::{Core, RECORD_AFTER, TAIL_INTERVAL};
use crate::domain::time::Timestamp;

impl Core {
    /// The next lane that may go on. One that waited for room and does not need it any more leaves it to the next.
    pub(super) fn next_runnable(&mut self, aside_too: bool) -> Option<LaneId> {
        loop {
            let next = self.runnable.pop_front();
            let next = if next.is_none() && aside_too { self.runnable_aside.pop_front() } else { next };
            if let Some(id) = next {
                self.is_runnable.remove(&id);
                return Some(id);
            }
            if !aside_too {
                return None;
            }
            let permit = self.freed.last()?;
            let mut next = match permit.standing {
                Standing::Slow if self.permits.has_room_for_slow() => self.blocked_slow.pop_front(),
                Standing::Unproven if self.permits.has_room_for_unproven() => self.blocked_unproven.pop_front(),
                _ => None,
            };
            if next.is_none() && self.permits.has_room_for_host(&permit.host) {
                next = self.blocked_hosts.get_mut(&permit.host).and_then(VecDeque::pop_front);
            }
            match next {
                Some(id) => {
                    self.is_blocked.remove(&id);
                    self.run(id);
                }
                None => {
                    if self.blocked_hosts.get(&permit.host).is_some_and(VecDeque::is_empty) {
                        self.blocked_hosts.remove(&permit.host);
                    }
                    self.freed.pop();
                }
            }
        }
    }

    /// A lane goes on when there is room again for its kind.
    pub(super) fn block(&mut self, id: LaneId, reason: NoRoom) {
        let Some(receiver) = self.receivers.get(&id.subscription) else { return };
        match reason {
            NoRoom::All => self.run(id),
            // The end of an attempt of its own lets it go on.
            NoRoom::Share => {}
            NoRoom::Unproven if self.is_blocked.insert(id) => self.blocked_unproven.push_back(id),
            NoRoom::Slow if self.is_blocked.insert(id) => self.blocked_slow.push_back(id),
            NoRoom::Host if self.is_blocked.insert(id) => {
                self.blocked_hosts.entry(Arc::clone(&receiver.host)).or_default().push_back(id);
            }
            NoRoom::Unproven | NoRoom::Slow | NoRoom::Host => {}
        }
    }

    /// Takes a permit back; lanes that wait for such a one go on at the next step.
    pub(super) fn give_back(&mut self, permit: Permit) {
        self.permits.give_back(&permit);
        if !self.freed.contains(&permit) {
            self.freed.push(permit);
        }
    }

    pub(super) fn set_timer_at(&mut self, id: LaneId, at: Timestamp) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        if let Some(before) = lane.timer.replace(at) {
            self.timers.remove(&(before, id));
        }
        self.timers.insert((at, id));
    }

    pub(super) fn set_timer(&mut self, id: LaneId, now: Timestamp) {
        let (Some(lane), Some(receiver)) = (self.lanes.get_mut(&id), self.receivers.get(&id.subscription)) else { return };
        let wakes_at = lane.wakes_at(receiver, now);
        if wakes_at == lane.timer {
            return;
        }
        if let Some(at) = wakes_at {
            self.set_timer_at(id, at);
        } else if let Some(before) = lane.timer.take() {
            self.timers.remove(&(before, id));
        }
    }

    /// When `step` would do something by the passing of time alone.
    pub fn wakes_at(&self, now: Timestamp) -> Option<Timestamp> {
        if self.has_more {
            return Some(now);
        }
        let timer = self.timers.first().map(|(at, _)| *at);
        let record = self.waiting_since.map(|since| since.after(RECORD_AFTER));
        let announce = self.unannounced.values().map(|due| due.at).min();
        let tail = (self.routed > self.recorded_tail || !self.dirty.is_empty()).then(|| self.recorded_at.after(TAIL_INTERVAL));
        [timer, record, announce, tail].into_iter().flatten().min().map(|at| at.max(now))
    }
}
