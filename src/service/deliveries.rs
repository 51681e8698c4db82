//! Deliveries: what became of them, and what a person may do about it.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::cursors::{CursorError, CursorSealer, Expected};
use super::subscriptions::SubscriptionService;
use crate::domain::company::CompanyId;
use crate::domain::cursor::{Cursor, Direction, Position};
use crate::domain::event::EventId;
use crate::domain::filter::TypeFilter;
use crate::domain::subscription::{DeliveryId, Subscription};
use crate::domain::time::Timestamp;
use crate::store::{
    Actor, CloseState, ClosedRow, DeliveriesQuery, DeliveryRow, DeliveryStateName, DeliveryView, ReadError, RetryRow, Store,
    SubscriptionError,
};

/// Why a delivery was not retried or discarded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// There is none with this id.
    #[error("there is no such delivery")]
    Unknown,
    /// Its event is gone.
    #[error("the event of this delivery was removed by retention")]
    Expired,
    /// It is at its end.
    #[error("this delivery is {0} and cannot be {1}")]
    Ended(&'static str, &'static str),
    /// It was never attempted.
    #[error("this delivery waits for its first attempt; pause the subscription to hold it back, or delete it")]
    Waiting,
    /// It is behind another one.
    #[error("this delivery waits for an earlier event with the same value at the ordering key; retry or discard that one")]
    Held,
    /// It is being attempted.
    #[error("this delivery is being attempted at the moment; try again when the attempt has ended")]
    UnderWay,
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The ledger did not take it.
    #[error(transparent)]
    Store(#[from] SubscriptionError),
}

/// What a list of deliveries is asked for.
#[derive(Debug, Clone)]
pub struct DeliveriesRequest {
    /// Only in this state.
    pub state: Option<DeliveryStateName>,
    /// Only of these types.
    pub filter: TypeFilter,
    /// Where an earlier page ended.
    pub cursor: Option<String>,
    /// At most so many.
    pub limit: usize,
}

/// Deliveries, newest event first.
#[derive(Debug, Clone)]
pub struct DeliveryPage {
    /// Without their attempts.
    pub deliveries: Vec<DeliveryView>,
    /// Where to go on, when there is more.
    pub paging: Option<String>,
}

/// Why there is no page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeliveriesError {
    /// The cursor is none for this list.
    #[error(transparent)]
    Cursor(#[from] CursorError),
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// The use cases of deliveries.
#[derive(Debug)]
pub struct DeliveryService {
    store: Store,
    sealer: CursorSealer,
    subscriptions: Arc<SubscriptionService>,
}

impl DeliveryService {
    pub(super) fn new(store: Store, subscriptions: Arc<SubscriptionService>) -> Self {
        let sealer = CursorSealer::new(store.cursor_key(), store.epoch());
        Self { store, sealer, subscriptions }
    }

    /// One delivery with its attempts, also when its subscription was deleted. None when there is no such one.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn get(&self, company: CompanyId, id: DeliveryId) -> Result<Option<DeliveryView>, ReadError> {
        match self.living(company, id)? {
            Some((_, view)) => Ok(Some(view)),
            None => self.store.delivery_of_deleted(company, id),
        }
    }

    /// A delivery and its subscription.
    fn living(&self, company: CompanyId, id: DeliveryId) -> Result<Option<(Arc<Subscription>, DeliveryView)>, ReadError> {
        let Some(subscription) = self.subscriptions.get(company, id.subscription) else { return Ok(None) };
        Ok(self.store.delivery(&subscription, id.event)?.map(|view| (subscription, view)))
    }

    /// A page of a subscription's deliveries, newest event first.
    ///
    /// # Errors
    /// See [`DeliveriesError`].
    pub fn list(&self, subscription: &Subscription, request: &DeliveriesRequest) -> Result<DeliveryPage, DeliveriesError> {
        let company = subscription.company;
        let filter_hash = list_hash(subscription, request);
        let before = match &request.cursor {
            None => None,
            Some(text) => {
                let expected = Expected { company, direction: Direction::Descending, filter_hash };
                Some(self.sealer.open(text, &expected)?.position.id)
            }
        };
        let query = DeliveriesQuery { subscription, state: request.state, filter: &request.filter, before, limit: request.limit };
        let page = self.store.deliveries(&query)?;
        let cursor = |id: EventId| {
            let position = Position { created: Timestamp::default(), id };
            let epoch = self.sealer.epoch();
            self.sealer.seal(&Cursor { position, direction: Direction::Descending, epoch, company, filter_hash, tail: position })
        };
        Ok(DeliveryPage { deliveries: page.views, paging: page.next.map(cursor) })
    }

    /// Owes a delivery once more, now.
    ///
    /// # Errors
    /// See [`DeliveryError`].
    pub async fn retry(&self, company: CompanyId, id: DeliveryId, actor: &Actor) -> Result<(), DeliveryError> {
        let (subscription, view) = self.living(company, id)?.ok_or(DeliveryError::Unknown)?;
        match view.state {
            DeliveryStateName::Expired => return Err(DeliveryError::Expired),
            DeliveryStateName::Delivered => return Err(DeliveryError::Ended("delivered", "retried")),
            DeliveryStateName::Pending if view.is_held => return Err(DeliveryError::Held),
            DeliveryStateName::Pending if view.next_due.is_none() => return Err(DeliveryError::Waiting),
            DeliveryStateName::Pending | DeliveryStateName::Dead | DeliveryStateName::Cancelled => {}
        }
        let event = self.store.read_event(company, id.event)?.ok_or(DeliveryError::Expired)?;
        let attempts = view.attempts.iter().map(|attempt| attempt.number).max().unwrap_or(0);
        let row = RetryRow { attempts, due: self.store.now(), created: event.created, key: event.order_key(&subscription) };
        Ok(self.subscriptions.owe(id, row, actor, "delivery.retry").await?)
    }

    /// Gives a delivery up, with a reason. What it is then.
    ///
    /// # Errors
    /// See [`DeliveryError`].
    pub async fn discard(&self, company: CompanyId, id: DeliveryId, reason: &str, actor: &Actor) -> Result<DeliveryView, DeliveryError> {
        let (subscription, view) = self.living(company, id)?.ok_or(DeliveryError::Unknown)?;
        match view.state {
            DeliveryStateName::Expired => return Err(DeliveryError::Expired),
            DeliveryStateName::Delivered => return Err(DeliveryError::Ended("delivered", "discarded")),
            DeliveryStateName::Cancelled => return Err(DeliveryError::Ended("cancelled", "discarded")),
            DeliveryStateName::Pending if view.next_due.is_none() && !view.is_held => return Err(DeliveryError::Waiting),
            DeliveryStateName::Pending => {
                if !self.subscriptions.disown(id).await {
                    return Err(DeliveryError::UnderWay);
                }
            }
            DeliveryStateName::Dead => {}
        }
        let created = self.store.read_event(company, id.event)?.map_or_else(Timestamp::default, |event| event.created);
        let attempts = view.attempts.iter().map(|attempt| attempt.number).max().unwrap_or(0);
        let row = ClosedRow { state: CloseState::Cancelled, at: self.store.now(), created, reason: reason.to_owned(), attempts };
        self.store.write_rows(vec![(id, DeliveryRow::Closed(row))], Some(actor), "delivery.discard").await?;
        self.store.delivery(&subscription, id.event)?.ok_or(DeliveryError::Unknown)
    }
}

/// What a cursor of a list of deliveries is bound to.
fn list_hash(subscription: &Subscription, request: &DeliveriesRequest) -> u64 {
    let state = request.state.map_or("", DeliveryStateName::as_str);
    let text = format!("deliveries {} {state} {}", subscription.id, request.filter.canonical());
    Sha256::digest(text.as_bytes()).first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}
