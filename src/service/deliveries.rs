//! Deliveries: what became of them, and what a person may do about it.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::cursors::{CursorError, CursorSealer, Expected};
use super::subscriptions::SubscriptionService;
use crate::domain::company::CompanyId;
use crate::domain::cursor::{Cursor, Direction, Position};
use crate::domain::event::EventId;
use crate::domain::filter::TypeFilter;
use crate::domain::subscription::{DeliveryId, ReplayId, Subscription};
use crate::domain::time::Timestamp;
use crate::store::{
    Actor, CloseState, ClosedRow, DeadThen, DeliveriesQuery, DeliveryRow, DeliveryStateName, DeliveryView, ReadError, ReplayState,
    RetryRow, Store, SubscriptionError,
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
    /// Its replay was cancelled.
    #[error("the replay of this delivery was cancelled; replay the event again")]
    ReplayCancelled,
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

/// The most dead letters that are retried or discarded at once.
pub const BULK_MAX: usize = 10_000;
/// Dead letters that are looked at in one go, and in how many goes at most.
const DEAD_PAGE_SIZE: usize = 1_000;
const DEAD_PAGES_MAX: usize = 100;

/// Which dead letters are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLettersRequest {
    /// Only of events created from this time on.
    pub from: Option<Timestamp>,
    /// Only of events created before this time.
    pub to: Option<Timestamp>,
    /// Only of these types.
    pub filter: Option<TypeFilter>,
    /// Why, for the audit log.
    pub reason: Option<String>,
}

/// What was done with dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadLettersSettled {
    /// How many.
    pub count: u64,
    /// Whether there may be more, to be asked for again.
    pub has_more: bool,
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
        Ok(self.store.delivery_of(&subscription, id)?.map(|view| (subscription, view)))
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
                let place = self.sealer.open(text, &expected)?.position;
                Some((place.id, u32::try_from(place.created.as_micros()).unwrap_or(u32::MAX)))
            }
        };
        let query = DeliveriesQuery { subscription, state: request.state, filter: &request.filter, before, limit: request.limit };
        let page = self.store.deliveries(&query)?;
        let cursor = |(id, run): (EventId, u32)| {
            // Of a delivery the place is event and run.
            let position = Position { created: Timestamp::from_micros(run.into()), id };
            let epoch = self.sealer.epoch();
            self.sealer.seal(&Cursor { position, direction: Direction::Descending, epoch, company, filter_hash, tail: position })
        };
        Ok(DeliveryPage { deliveries: page.views, paging: page.next.map(cursor) })
    }

    /// Owes a delivery once more, now.
    ///
    /// # Errors
    /// See [`DeliveryError`].
    pub async fn retry(&self, company: CompanyId, id: DeliveryId, reason: &str, actor: &Actor) -> Result<(), DeliveryError> {
        let (subscription, view) = self.living(company, id)?.ok_or(DeliveryError::Unknown)?;
        match view.state {
            DeliveryStateName::Expired => return Err(DeliveryError::Expired),
            DeliveryStateName::Delivered => return Err(DeliveryError::Ended("delivered", "retried")),
            DeliveryStateName::Pending if view.is_held => return Err(DeliveryError::Held),
            DeliveryStateName::Pending if view.next_due.is_none() => return Err(DeliveryError::Waiting),
            DeliveryStateName::Pending | DeliveryStateName::Dead | DeliveryStateName::Cancelled => {}
        }
        if id.run > 0 {
            let replay = self.store.replay(ReplayId(id.run))?;
            if replay.is_none_or(|replay| replay.progress.state == ReplayState::Cancelled) {
                return Err(DeliveryError::ReplayCancelled);
            }
        }
        let event = self.store.read_event(company, id.event)?.ok_or(DeliveryError::Expired)?;
        let attempts = view.attempts.iter().map(|attempt| attempt.number).max().unwrap_or(0);
        let row = RetryRow { attempts, due: self.store.now(), created: event.created, key: event.order_key(&subscription) };
        Ok(self.subscriptions.owe(id, row, actor, "delivery.retry", reason).await?)
    }

    /// Retries or discards the dead letters of a subscription that a request selects, at most [`BULK_MAX`] of them.
    ///
    /// # Errors
    /// See [`DeliveryError`].
    pub async fn settle_dead(
        &self,
        subscription: &Subscription,
        request: &DeadLettersRequest,
        then: DeadThen,
        actor: &Actor,
    ) -> Result<DeadLettersSettled, DeliveryError> {
        let room = match then {
            // What is owed is in memory.
            DeadThen::Retry => BULK_MAX.saturating_sub(self.subscriptions.owed(subscription.id).await?),
            DeadThen::Discard => BULK_MAX,
        };
        let (mut letters, mut after, mut has_more) = (Vec::new(), (EventId(0), 0), false);
        for page in 0.. {
            let found = self.store.dead_letters(subscription.id, after, DEAD_PAGE_SIZE)?;
            let Some(last) = found.last() else { break };
            after = (last.event, last.run);
            for id in found {
                if letters.len() >= room || page >= DEAD_PAGES_MAX {
                    has_more = true;
                    break;
                }
                // One that has expired is not seen any more.
                let Some(event) = self.store.read_event(subscription.company, id.event)? else { continue };
                let is_wanted =
                    request.filter.as_ref().is_none_or(|filter| filter.matches(&event.kind.to_ascii_lowercase(), &event.version))
                        && request.from.is_none_or(|from| event.created >= from)
                        && request.to.is_none_or(|to| event.created < to);
                if is_wanted {
                    letters.push((id, event.order_key(subscription)));
                }
            }
            if has_more {
                break;
            }
        }
        let reason = request.reason.clone().unwrap_or_default();
        let settled = self.store.settle_dead(subscription.id, letters, then, reason, actor).await?;
        let count = settled.len() as u64;
        if then == DeadThen::Retry {
            self.subscriptions.revived(settled).await;
        }
        Ok(DeadLettersSettled { count, has_more })
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
        self.store.write_row(id, DeliveryRow::Closed(row), actor, "delivery.discard", reason).await?;
        self.store.delivery_of(&subscription, id)?.ok_or(DeliveryError::Unknown)
    }
}

/// What a cursor of a list of deliveries is bound to.
fn list_hash(subscription: &Subscription, request: &DeliveriesRequest) -> u64 {
    let state = request.state.map_or("", DeliveryStateName::as_str);
    let text = format!("deliveries {} {state} {}", subscription.id, request.filter.canonical());
    Sha256::digest(text.as_bytes()).first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}
