//! Deliveries as people see them: put together from the rows of the ledger, the attempt log and the event log.

use super::attempts::AttemptRow;
use super::{ReadError, Store};
use crate::domain::event::EventId;
use crate::domain::filter::TypeFilter;
use crate::domain::subscription::{DeliveryId, Subscription};
use crate::domain::time::Timestamp;

/// How a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeliveryStateName {
    /// It is owed.
    Pending,
    /// The receiver has it.
    Delivered,
    /// Its attempts are used up, or the receiver refused it.
    Dead,
    /// Its event expired first.
    Expired,
    /// A person gave it up.
    Cancelled,
}

impl DeliveryStateName {
    /// All states.
    pub const ALL: [Self; 5] = [Self::Pending, Self::Delivered, Self::Dead, Self::Expired, Self::Cancelled];

    /// The state as it is written on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryView {
    /// Its id.
    pub id: DeliveryId,
    /// The type of its event as published; none when neither the event nor an attempt is left to tell.
    pub kind: Option<String>,
    /// How it stands.
    pub state: DeliveryStateName,
    /// Its attempts by number; empty in a list.
    pub attempts: Vec<AttemptRow>,
    /// When the next attempt may be made.
    pub next_due: Option<Timestamp>,
    /// Why it is dead, expired or cancelled.
    pub reason: Option<String>,
}

/// What a reader of the delivery log asks for.
#[derive(Debug, Clone)]
pub struct DeliveriesQuery<'a> {
    /// Whose deliveries.
    pub subscription: &'a Subscription,
    /// Only in this state.
    pub state: Option<DeliveryStateName>,
    /// Only of these types.
    pub filter: &'a TypeFilter,
    /// Only of events below this one.
    pub before: Option<EventId>,
    /// At most so many.
    pub limit: usize,
}

/// Deliveries, newest event first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeliveriesPage {
    /// Without their attempts. There may be fewer than asked for although more follow.
    pub views: Vec<DeliveryView>,
    /// Where to go on (`before`), if more may follow.
    pub next: Option<EventId>,
}

impl Store {
    /// One delivery with its attempts; none when the event is unknown, expired without being owed any more, or was
    /// never owed to the subscription.
    ///
    /// # Errors
    /// When the bytes on disk are damaged or cannot be read.
    pub fn delivery(&self, subscription: &Subscription, event: EventId) -> Result<Option<DeliveryView>, ReadError> {
        let id = DeliveryId { subscription: subscription.id, event };
        let _attempts = self.inner.attempts_of(id)?;
        Ok(None)
    }

    /// A page of deliveries, newest event first.
    ///
    /// # Errors
    /// As [`Store::delivery`].
    pub fn deliveries(&self, query: &DeliveriesQuery<'_>) -> Result<DeliveriesPage, ReadError> {
        let _ = query;
        Ok(DeliveriesPage::default())
    }
}
