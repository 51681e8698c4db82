//! What lanes deal in: which one they are, what they may attempt, and what is under way.

use super::permits::Permit;
use super::rate::Rate;
use crate::domain::event::EventId;
use crate::domain::subscription::{DeliveryId, SubscriptionId};
use crate::domain::time::Timestamp;
use crate::store::{LogEvent, Replay, Selection};

/// An attempt under way.
#[derive(Debug)]
pub(super) struct Flight {
    pub event: LogEvent,
    /// Counted from 1.
    pub number: u32,
    pub started: Timestamp,
    pub permit: Permit,
    /// Whether the event was owed by a row before this attempt.
    pub is_retry: bool,
}

/// What a lane may do next.
#[derive(Debug)]
pub(super) enum Pick {
    /// Attempt the oldest event that waits.
    Fresh(LogEvent),
    /// Attempt an event whose content is to be read from the log: one that is owed, or has waited for others of its order.
    Stored(EventId),
}

/// Which lane: that of a subscription, or of one of its replays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LaneId {
    pub subscription: SubscriptionId,
    /// 0: the subscription's own.
    pub run: u32,
}

impl LaneId {
    /// The subscription's own lane.
    pub fn own(subscription: SubscriptionId) -> Self {
        Self { subscription, run: 0 }
    }

    /// The lane that a delivery belongs to.
    pub fn of(delivery: DeliveryId) -> Self {
        Self { subscription: delivery.subscription, run: delivery.run }
    }

    /// The delivery of an event by this lane.
    pub fn delivery(self, event: EventId) -> DeliveryId {
        DeliveryId { subscription: self.subscription, event, run: self.run }
    }
}

/// What a replay's lane sends, and how far that is.
#[derive(Debug)]
pub(super) struct Replaying {
    /// None: what a person wants of a replay that has ended.
    pub selection: Option<Selection>,
    /// Attempts a minute at most; 0 = no further limit.
    pub per_minute: u32,
    pub rate: Rate,
    /// Deliveries that have ended.
    pub done: u64,
    pub is_cancelled: bool,
}

impl Replaying {
    pub fn new(replay: Option<&Replay>) -> Self {
        Self {
            selection: replay.map(|replay| replay.selection.clone()),
            per_minute: replay.map_or(0, |replay| replay.rate_per_minute),
            rate: Rate::default(),
            done: replay.map_or(0, |replay| replay.progress.done),
            is_cancelled: false,
        }
    }

    /// The earliest time at which its own rate lets an attempt start.
    pub fn ready_at(&self) -> Timestamp {
        self.rate.ready_at(self.per_minute)
    }
}
