//! Strict order among the events that have the same value at the ordering key.
//!
//! Every open event of a lane that has a key stands in the queue of its key, in log order. Only the front of a queue may
//! be attempted, and only while no other of the queue is under way; the queues do not know of each other, so that a
//! stuck one holds up nobody else.
//!
//! What makes the order outlast a crash is what the ledger has of a queue. While its front has no row, none of its
//! events has one: they all lie above the position and are read again, in log order. When the front fails it gets a row,
//! and in the same commit every later event that was read gets a row without attempts (it is *held*), which lets the
//! position pass it; whatever is read later of a queue whose front has a row is held at once. So a row never stands
//! before an earlier event that has none, and the rows carry the key: order is the same before and after a restart.
//! Held and failed rows of a lane are bounded like all of its rows; with too many the lane reads no further.

use std::collections::{BTreeSet, HashMap};

use crate::domain::event::EventId;
use crate::domain::ordering::OrderKey;

/// The open events of one key.
#[derive(Debug, Default)]
struct Queue {
    open: BTreeSet<EventId>,
    /// Attempts under way; more than one only after another order was asked for.
    under_way: usize,
}

/// The open events of a lane that have a key.
#[derive(Debug, Default)]
pub(super) struct KeyQueues {
    queues: HashMap<OrderKey, Queue>,
    keys: HashMap<EventId, OrderKey>,
}

impl KeyQueues {
    /// Adds an open event.
    pub fn enter(&mut self, event: EventId, key: OrderKey) {
        if self.keys.insert(event, key).is_none() {
            self.queues.entry(key).or_default().open.insert(event);
        }
    }

    /// An event has ended. Who may be attempted now in its place.
    pub fn leave(&mut self, event: EventId) -> Option<EventId> {
        let key = self.keys.remove(&event)?;
        let queue = self.queues.get_mut(&key)?;
        queue.open.remove(&event);
        if queue.open.is_empty() {
            self.queues.remove(&key);
            return None;
        }
        self.free_front(key)
    }

    /// The key of an open event.
    pub fn key_of(&self, event: EventId) -> Option<OrderKey> {
        self.keys.get(&event).copied()
    }

    /// The first open event of a key.
    pub fn front(&self, key: OrderKey) -> Option<EventId> {
        self.queues.get(&key)?.open.first().copied()
    }

    /// The first open event of a key, unless another one is under way.
    pub fn free_front(&self, key: OrderKey) -> Option<EventId> {
        let queue = self.queues.get(&key)?;
        queue.open.first().copied().filter(|_| queue.under_way == 0)
    }

    /// The open events of a key that come after this one.
    pub fn behind(&self, event: EventId) -> Vec<EventId> {
        let queue = self.keys.get(&event).and_then(|key| self.queues.get(key));
        queue.map(|queue| queue.open.range(event..).skip(1).copied().collect()).unwrap_or_default()
    }

    /// Whether an event may be attempted, as far as its order goes.
    pub fn is_free(&self, event: EventId) -> bool {
        self.keys.get(&event).is_none_or(|key| self.free_front(*key) == Some(event))
    }

    /// An attempt starts.
    pub fn start(&mut self, event: EventId) {
        if let Some(queue) = self.keys.get(&event).and_then(|key| self.queues.get_mut(key)) {
            queue.under_way += 1;
        }
    }

    /// An attempt has ended; its event is still open.
    pub fn end(&mut self, event: EventId) {
        if let Some(queue) = self.keys.get(&event).and_then(|key| self.queues.get_mut(key)) {
            queue.under_way = queue.under_way.saturating_sub(1);
        }
    }
}
