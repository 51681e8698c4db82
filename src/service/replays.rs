//! Replays: what was sent before, or should have been, once more.

use std::sync::Arc;
use std::time::Duration;

use super::cursors::{CursorError, CursorSealer, filter_hash};
use super::subscriptions::Deliverer;
use crate::domain::company::CompanyId;
use crate::domain::cursor::{Cursor, Direction, Position};
use crate::domain::event::EventId;
use crate::domain::filter::TypeFilter;
use crate::domain::subscription::{ReplayId, Subscription, SubscriptionId};
use crate::domain::time::Timestamp;
use crate::store::{Actor, Counted, DeliveriesQuery, DeliveryStateName, NewReplay, ReadError, Replay, ReplayError, Selection, Store};

/// The most events that a state may select.
const LISTED_MAX: usize = 10_000;
/// Deliveries are looked at in pages of this many, and at most in so many pages.
const PAGE_SIZE: usize = 200;
const PAGES_MAX: usize = 1_000;

/// An end of a stretch of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// A time: with the first events from it on, or the last ones before it.
    Time(Timestamp),
    /// A cursor of the company: behind the event that it passed, or up to that one.
    Cursor(String),
}

/// What is to be replayed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplayRequest {
    /// Where it begins; none: with the oldest event.
    pub from: Option<End>,
    /// Where it ends; none: with the newest one.
    pub to: Option<End>,
    /// Only these types, as far as the subscription takes them.
    pub filter: Option<TypeFilter>,
    /// Exactly these events.
    pub ids: Option<Vec<EventId>>,
    /// Only events whose delivery is in this state.
    pub state: Option<DeliveryStateName>,
    /// Attempts a minute at most; 0 = what the subscription allows.
    pub rate_per_minute: u32,
}

/// Why nothing is replayed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayRequestError {
    /// An end is no cursor of the company.
    #[error("{1}")]
    Cursor(&'static str, #[source] CursorError),
    /// An event is not there (any more).
    #[error("event {event} is unknown or was removed by retention")]
    NoSuchEvent {
        /// Its place among those that were asked for.
        place: usize,
        /// Which one.
        event: EventId,
    },
    /// An event is not one of the subscription's.
    #[error("event {event} is none that the subscription takes")]
    NotTaken {
        /// Its place among those that were asked for.
        place: usize,
        /// Which one.
        event: EventId,
    },
    /// A state selects too much.
    #[error(
        "more than {LISTED_MAX} deliveries are in this state, or too many were to be looked at; narrow the stretch with `from` and `to`"
    )]
    TooMany,
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The ledger did not take it.
    #[error(transparent)]
    Replay(#[from] ReplayError),
}

/// The use cases of replays.
#[derive(Debug)]
pub struct ReplayService {
    store: Store,
    sealer: CursorSealer,
    engine: Option<Arc<dyn Deliverer>>,
}

/// The place right before the first event that was created at or after `time`.
fn before(time: Timestamp) -> Position {
    match time.as_micros() {
        0 => Position::START,
        _ => Position { created: time.before(Duration::from_micros(1)), id: EventId(u64::MAX) },
    }
}

impl ReplayService {
    pub(super) fn new(store: Store, engine: Option<Arc<dyn Deliverer>>) -> Self {
        let sealer = CursorSealer::new(store.cursor_key(), store.epoch());
        Self { store, sealer, engine }
    }

    fn place(&self, company: CompanyId, end: &End, name: &'static str) -> Result<Position, ReplayRequestError> {
        match end {
            End::Time(time) => Ok(before(*time)),
            End::Cursor(text) => {
                let cursor = self.sealer.read(text).map_err(|error| ReplayRequestError::Cursor(name, error))?;
                let of_other = || ReplayRequestError::Cursor(name, CursorError::Mismatch("company"));
                if cursor.company == company { Ok(cursor.position) } else { Err(of_other()) }
            }
        }
    }

    /// What a request selects, and how many events that are. Takes as long as the deliveries of the stretch take to be
    /// looked at when it asks for a state; blocks.
    ///
    /// # Errors
    /// See [`ReplayRequestError`].
    pub fn select(&self, subscription: &Subscription, request: &ReplayRequest) -> Result<(Selection, u64), ReplayRequestError> {
        let own = &subscription.wishes.filter;
        if let Some(ids) = &request.ids {
            return self.select_named(subscription, ids);
        }
        let tail = self.store.tail();
        let after = request.from.as_ref().map_or(Ok(Position::START), |end| self.place(subscription.company, end, "/from"))?;
        let until = request.to.as_ref().map_or(Ok(tail), |end| self.place(subscription.company, end, "/to"))?.min(tail);
        let after = after.max(before(self.store.cutoff()));
        let wanted = request.filter.as_ref().map_or_else(|| Some(own.clone()), |filter| own.narrowed_to(filter));
        let counted = match &wanted {
            Some(filter) => self.store.count_matching(subscription.company, after, until, filter)?,
            None => Counted::default(),
        };
        // The ends are places of events, whatever they were asked for as.
        let (Some(filter), Some(first), Some(until)) = (wanted, counted.first, counted.last) else {
            let nothing = Selection { filter: own.clone(), after: Position::START, until: Position::START, events: Some([].into()) };
            return Ok((nothing, 0));
        };
        let after = Position { created: first.created, id: EventId(first.id.0.saturating_sub(1)) };
        let mut selection = Selection { filter, after, until, events: None };
        let Some(state) = request.state else { return Ok((selection, counted.count)) };
        let events = self.listed(subscription, state, &selection)?;
        let count = events.len() as u64;
        selection.events = Some(events.into());
        Ok((selection, count))
    }

    fn select_named(&self, subscription: &Subscription, ids: &[EventId]) -> Result<(Selection, u64), ReplayRequestError> {
        let filter = subscription.wishes.filter.clone();
        let (mut events, mut until) = (Vec::with_capacity(ids.len()), Position::START);
        for (place, id) in ids.iter().copied().enumerate() {
            let found = self.store.read_event(subscription.company, id)?;
            let event = found.ok_or(ReplayRequestError::NoSuchEvent { place, event: id })?;
            if !filter.matches(&event.kind.to_ascii_lowercase(), &event.version) {
                return Err(ReplayRequestError::NotTaken { place, event: id });
            }
            until = until.max(event.position());
            events.push(id);
        }
        events.sort_unstable();
        events.dedup();
        let count = events.len() as u64;
        Ok((Selection { filter, after: Position::START, until, events: Some(events.into()) }, count))
    }

    /// The events of a stretch whose own delivery is in a state, ascending.
    fn listed(
        &self,
        subscription: &Subscription,
        state: DeliveryStateName,
        selection: &Selection,
    ) -> Result<Vec<EventId>, ReplayRequestError> {
        let first = EventId(selection.after.id.0 + 1);
        let mut before = Some((EventId(selection.until.id.0 + 1), 0));
        let mut events = Vec::new();
        for _ in 0..PAGES_MAX {
            let query = DeliveriesQuery { subscription, state: Some(state), filter: &selection.filter, before, limit: PAGE_SIZE };
            let page = self.store.deliveries(&query)?;
            let is_over = page.views.last().is_some_and(|view| view.id.event < first);
            events.extend(page.views.iter().map(|view| view.id).filter(|id| id.run == 0 && id.event >= first).map(|id| id.event));
            if events.len() > LISTED_MAX {
                return Err(ReplayRequestError::TooMany);
            }
            before = page.next.filter(|(event, _)| *event >= first);
            if is_over || before.is_none() {
                events.reverse();
                return Ok(events);
            }
        }
        Err(ReplayRequestError::TooMany)
    }

    /// How many events a request selects.
    ///
    /// # Errors
    /// See [`ReplayRequestError`].
    pub fn count(&self, subscription: &Subscription, request: &ReplayRequest) -> Result<u64, ReplayRequestError> {
        Ok(self.select(subscription, request)?.1)
    }

    /// Sends once more what a request selects; it goes on after a restart.
    ///
    /// # Errors
    /// See [`ReplayRequestError`].
    pub async fn start(&self, subscription: &Subscription, request: &ReplayRequest, actor: &Actor) -> Result<Replay, ReplayRequestError> {
        let (selection, count) = self.select(subscription, request)?;
        let new = NewReplay { subscription: subscription.id, selection, count, rate_per_minute: request.rate_per_minute };
        let replay = self.store.create_replay(subscription.company, new, actor).await?;
        if let Some(engine) = &self.engine {
            engine.replay(replay.clone()).await;
        }
        Ok(replay)
    }

    /// The company's replay with this number.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn get(&self, company: CompanyId, id: ReplayId) -> Result<Option<Replay>, ReadError> {
        Ok(self.store.replay(id)?.filter(|replay| replay.company == company))
    }

    /// The company's replays, or those of one subscription, newest first.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn list(&self, company: CompanyId, subscription: Option<SubscriptionId>) -> Result<Vec<Replay>, ReadError> {
        let mut replays = self.store.replays_of(company)?;
        replays.retain(|replay| subscription.is_none_or(|id| id == replay.subscription));
        Ok(replays)
    }

    /// Ends a replay: what it has sent stays sent, what it owes is cancelled.
    ///
    /// # Errors
    /// See [`ReplayError`].
    pub async fn cancel(&self, company: CompanyId, id: ReplayId, actor: &Actor) -> Result<(), ReplayError> {
        let subscription = self.store.cancel_replay(company, id, actor).await?;
        if let Some(engine) = &self.engine {
            engine.replay_cancelled(subscription, id).await;
        }
        Ok(())
    }

    /// Where a replay is, as a cursor.
    #[must_use]
    pub fn cursor(&self, replay: &Replay) -> String {
        let position = replay.progress.place.position;
        // It works wherever the filter of a cursor does not matter.
        let filter_hash = filter_hash(&replay.selection.filter);
        self.sealer.seal(&Cursor {
            position,
            direction: Direction::Ascending,
            epoch: self.sealer.epoch(),
            company: replay.company,
            filter_hash,
            tail: position,
        })
    }
}
