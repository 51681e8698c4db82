//! Replays: lanes of their own beside that of their subscription, which never move its position.

use std::sync::Arc;

use tracing::error;

use super::super::flight::{LaneId, Replaying};
use super::super::lane::Lane;
use super::Core;
use crate::domain::cursor::Position;
use crate::domain::event::EventId;
use crate::domain::subscription::{ReplayId, SubscriptionId};
use crate::domain::time::Timestamp;
use crate::store::{LogBatch, ReadError, Replay, ReplayProgress, ReplayState, RetryRow, Store};

impl Core {
    /// A replay was asked for; the store has it.
    pub fn replay(&mut self, replay: &Replay) {
        let id = LaneId { subscription: replay.subscription, run: replay.id.0 };
        // It may be cancelled, done or deleted already.
        let is_running = matches!(self.store.replay(replay.id), Ok(Some(known)) if known.progress.state == ReplayState::Running);
        if is_running && !self.lanes.contains_key(&id) {
            self.restore_replay(id, Some(replay), Vec::new());
            self.dirty.insert(id);
        }
    }

    /// Takes a replay up where it is, with what it owes. Without a replay only that is sent.
    pub(super) fn restore_replay(&mut self, id: LaneId, replay: Option<&Replay>, owed: Vec<(EventId, RetryRow)>) {
        let Some(subscription) = self.store.subscription(id.subscription) else { return };
        let position = replay.map_or(Position::START, |replay| replay.progress.place.position);
        let mut lane = Lane::new(Arc::clone(&subscription), position);
        let is_running = replay.is_some_and(|replay| replay.progress.state == ReplayState::Running);
        lane.replay = Some(Replaying::new(replay));
        lane.restore(replay.filter(|_| is_running).map(|replay| replay.progress.place.clone()), owed);
        lane.is_behind = is_running;
        self.insert(id, lane, subscription);
    }

    /// A replay was cancelled; the store has closed what it owed. What is under way ends.
    pub fn replay_cancelled(&mut self, subscription: SubscriptionId, replay: ReplayId) {
        let id = LaneId { subscription, run: replay.0 };
        if let Some(replaying) = self.lanes.get_mut(&id).and_then(|lane| lane.replay.as_mut()) {
            replaying.is_cancelled = true;
            self.dirty.insert(id);
            self.note_outcome(self.recorded_at);
        }
    }

    /// What is to be written down of a replay, and whether its lane has nothing left to do.
    pub(super) fn progress(lane: &Lane, replaying: &Replaying, now: Timestamp) -> (ReplayProgress, bool) {
        let has_ended = lane.is_settled() && lane.owed.is_empty();
        let is_over = has_ended || (replaying.is_cancelled && lane.in_flight.is_empty());
        let state = if has_ended { ReplayState::Done } else { ReplayState::Running };
        let ended = has_ended.then_some(now);
        (ReplayProgress { state, place: lane.place(), done: replaying.done, ended }, is_over)
    }
}

/// The next events of a replay.
pub(super) fn read_replay(
    store: &Store,
    lane: &Lane,
    replaying: &Replaying,
    position: Position,
    room: usize,
) -> Result<LogBatch, ReadError> {
    let company = lane.subscription.company;
    let Some(selection) = &replaying.selection else {
        return Ok(LogBatch { events: Vec::new(), reached: position, is_behind: false });
    };
    let until = selection.until;
    let mut batch = match &selection.events {
        None => store.read_after(company, position, &selection.filter, room)?,
        Some(listed) => {
            let start = listed.partition_point(|event| *event <= position.id);
            let listed = listed.get(start..).unwrap_or_default();
            let mut batch = LogBatch { events: Vec::new(), reached: position, is_behind: listed.len() > room };
            for id in listed.iter().take(room) {
                // One that has expired is passed.
                batch.events.extend(store.read_event(company, *id)?);
                let created = batch.events.last().map_or(position.created, |event| event.created);
                batch.reached = Position { created, id: *id };
            }
            batch
        }
    };
    batch.events.retain(|event| event.position() <= until);
    if batch.reached >= until || !batch.is_behind {
        batch.reached = until.max(position);
        batch.is_behind = false;
    }
    Ok(batch)
}

/// Tells that a lane cannot be made.
pub(super) fn cannot_be_sent_to(id: SubscriptionId, error: &crate::webhook::TargetError) {
    // It was checked when it was created; only a change of the rules can make it wrong.
    error!(subscription.id = %id, %error, "Subscription {id} cannot be sent to: {error}");
}
