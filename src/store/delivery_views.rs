//! Deliveries as people see them: put together from the rows of the ledger, the attempt log and the event log.

use std::collections::BTreeMap;

use super::attempts::AttemptRow;
use super::deliveries::{CloseState, DELETED, DeadReason, DeliveryRow, EventRun, RowKind, SubscriptionRows};
use super::outgoing::{Gatherer, LogEvent};
use super::page::{PageQuery, Start};
use super::replays::ReplayState;
use super::segment::Segment;
use super::{Inner, ReadError, StorageFault, Store};
use crate::domain::company::CompanyId;
use crate::domain::cursor::{Direction, Position};
use crate::domain::event::EventId;
use crate::domain::filter::TypeFilter;
use crate::domain::subscription::{DeliveryId, ReplayId, Subscription};
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
    /// Why it is dead, expired or cancelled, or what it waits for.
    pub reason: Option<String>,
    /// It is pending and waits until the earlier events of its order have ended.
    pub is_held: bool,
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
    /// Only of events and runs below these.
    pub before: Option<(EventId, u32)>,
    /// At most so many.
    pub limit: usize,
}

/// Deliveries, newest event first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeliveriesPage {
    /// Without their attempts. There may be fewer than asked for although more follow.
    pub views: Vec<DeliveryView>,
    /// Where to go on (`before`), if more may follow.
    pub next: Option<(EventId, u32)>,
}

/// A state, when the next attempt may be made, and why.
type Standing = (DeliveryStateName, Option<Timestamp>, Option<String>);

/// How much of a delivery is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Detail {
    /// Everything.
    Whole,
    /// No attempts.
    Listed,
}

/// Deliveries that are looked at for one page; a filter that takes little ends it early.
const EXAMINED_MAX: usize = 2_000;

const EXHAUSTED: &str = "the retry schedule is exhausted";
const REFUSED: &str = "the receiver refused it";
const HELD: &str = "it waits for an earlier event with the same value at the ordering key";
const EXPIRED: &str = "the event expired before it was delivered";

impl Inner {
    /// A delivery as it stands; `known` is its event if that has been read. Without a filter nothing is owed any more.
    fn view_of(
        &self,
        (company, id): (CompanyId, DeliveryId),
        filter: Option<&TypeFilter>,
        rows: &SubscriptionRows,
        known: Option<LogEvent>,
        detail: Detail,
    ) -> Result<Option<DeliveryView>, StorageFault> {
        let event = id.event;
        let known = if known.is_some() { known } else { self.any_event(company, event)? };
        let row = rows.row(event, id.run)?;
        let attempts = if row.is_some() && known.is_some() && detail == Detail::Listed { Vec::new() } else { self.attempts_of(id)? };
        let is_held = matches!(&row, Some(DeliveryRow::Retry(row)) if row.is_held());
        let cutoff = self.cutoff();
        let created_of_row = match &row {
            Some(DeliveryRow::Retry(row)) => Some(row.created),
            Some(DeliveryRow::Dead(row)) => Some(row.created),
            Some(DeliveryRow::Closed(row)) => Some(row.created),
            Some(DeliveryRow::Settled) | None => None,
        };
        let created = known.as_ref().map(|event| event.created).or(created_of_row);
        let is_visible = created.is_some_and(|created| created >= cutoff);
        let expired = |reason: &str| (DeliveryStateName::Expired, None, Some(reason.to_owned()));
        let standing = match row {
            Some(DeliveryRow::Closed(row)) if row.state == CloseState::Expired => Some(expired(&row.reason)),
            // Whoever sends has not come to write it down yet.
            Some(DeliveryRow::Retry(_)) if !is_visible => Some(expired(EXPIRED)),
            Some(_) if !is_visible => None,
            Some(DeliveryRow::Retry(row)) if row.is_held() => Some((DeliveryStateName::Pending, None, Some(HELD.to_owned()))),
            Some(DeliveryRow::Retry(row)) => Some((DeliveryStateName::Pending, Some(row.due), None)),
            Some(DeliveryRow::Dead(row)) => {
                let reason = match row.reason {
                    DeadReason::Exhausted => EXHAUSTED,
                    DeadReason::Refused => REFUSED,
                };
                Some((DeliveryStateName::Dead, None, Some(reason.to_owned())))
            }
            Some(DeliveryRow::Closed(row)) => Some((DeliveryStateName::Cancelled, None, Some(row.reason))),
            Some(DeliveryRow::Settled) | None => {
                let matches =
                    |event: &LogEvent| filter.is_some_and(|filter| filter.matches(&event.kind.to_ascii_lowercase(), &event.version));
                if is_visible && attempts.iter().any(|attempt| attempt.delivered) {
                    Some((DeliveryStateName::Delivered, None, None))
                } else if id.run > 0 {
                    standing_of_replay(rows, id, known.as_ref().filter(|_| is_visible), !attempts.is_empty())?
                } else if filter.is_none() && is_visible && !attempts.is_empty() {
                    // Its last outcome was not written down any more.
                    Some((DeliveryStateName::Cancelled, None, Some(DELETED.to_owned())))
                } else if rows.has_expired(event)? && known.as_ref().is_none_or(matches) {
                    Some(expired(EXPIRED))
                } else {
                    // What is settled without an attempt was never owed: it lies before the subscription's start, or
                    // an earlier filter did not take it.
                    let is_owed = |event: &LogEvent| matches(event) && !rows.is_settled(event.position());
                    let is_pending = is_visible && known.as_ref().is_some_and(is_owed);
                    is_pending.then_some((DeliveryStateName::Pending, None, None))
                }
            }
        };
        let Some((state, next_due, reason)) = standing else { return Ok(None) };
        let kind = known.map(|event| event.kind.to_string()).or_else(|| attempts.first().map(|attempt| attempt.kind.clone()));
        // The attempts of an event that nobody may read any more tell nothing either.
        let attempts = if is_visible && detail == Detail::Whole { attempts } else { Vec::new() };
        Ok(Some(DeliveryView { id, kind, state, attempts, next_due, reason, is_held }))
    }

    /// Events of the company below `before` that the subscription may still be owed, newest first, at most `limit`; and
    /// whether there are more of them.
    fn owed_below(
        &self,
        subscription: &Subscription,
        rows: &SubscriptionRows,
        before: EventId,
        limit: usize,
    ) -> Result<(Vec<LogEvent>, bool), StorageFault> {
        let floor = rows.place.position;
        let Some(above) = self.just_above(subscription.company, before)?.filter(|above| *above > floor) else {
            return Ok((Vec::new(), false));
        };
        let filter = &subscription.wishes.filter;
        let query =
            PageQuery { company: subscription.company, start: Start::After(above), direction: Direction::Descending, limit, filter };
        let mut owed = Gatherer::new(&query, above, self.cutoff()).down_to(floor);
        self.walk_down(&self.segments.load_full(), &query, &mut owed)?;
        Ok((owed.events, owed.more))
    }

    /// The place between the company's newest event below `before` and what follows it; none when there is no such event.
    fn just_above(&self, company: CompanyId, before: EventId) -> Result<Option<Position>, StorageFault> {
        let Some(last) = before.0.checked_sub(1).map(EventId) else { return Ok(None) };
        let list = self.segments.load_full();
        for segment in list.segments.iter().rev().map(Segment::reads) {
            if segment.span().is_none_or(|(first, _)| first.id > last) {
                continue;
            }
            let Some(key) = segment.key_of_id(company, last)? else { continue };
            let Some(chunk) = self.fetch(segment, company, key)? else { continue };
            let newest = chunk.records().rev().find(|record| record.id <= last);
            return Ok(newest.map(|record| Position { created: record.created, id: EventId(record.id.0 + 1) }));
        }
        Ok(None)
    }

    fn deliveries(&self, query: &DeliveriesQuery<'_>) -> Result<DeliveriesPage, StorageFault> {
        let rows = self.rows_of(query.subscription.id)?;
        let mut page = DeliveriesPage::default();
        let mut before = query.before.unwrap_or((EventId(u64::MAX), u32::MAX));
        let mut examined = 0;
        let step = query.limit.clamp(16, 200);
        loop {
            let Candidates { events, horizon } = self.candidates(query, &rows, before, step)?;
            for (place, known) in events.into_iter().rev().take_while(|(place, _)| Some(*place) >= horizon) {
                if page.views.len() >= query.limit || examined >= EXAMINED_MAX {
                    page.next = Some(before);
                    return Ok(page);
                }
                examined += 1;
                before = place;
                let (event, run) = place;
                let whose = (query.subscription.company, DeliveryId { subscription: query.subscription.id, event, run });
                let view = self.view_of(whose, Some(&query.subscription.wishes.filter), &rows, known, Detail::Listed)?;
                let Some(view) = view.filter(|view| query.state.is_none_or(|state| state == view.state)) else { continue };
                if query.filter == &TypeFilter::default() || self.is_of_type(query, &view)? {
                    page.views.push(view);
                }
            }
            if horizon.is_none() {
                return Ok(page);
            }
        }
    }

    /// Whether the event of a delivery passes the filter of a query; one that is gone passes no filter.
    fn is_of_type(&self, query: &DeliveriesQuery<'_>, view: &DeliveryView) -> Result<bool, StorageFault> {
        let event = self.any_event(query.subscription.company, view.id.event)?;
        Ok(event.is_some_and(|event| query.filter.matches(&event.kind.to_ascii_lowercase(), &event.version)))
    }

    /// What may belong on a page, from every place that knows of deliveries.
    fn candidates(
        &self,
        query: &DeliveriesQuery<'_>,
        rows: &SubscriptionRows,
        before: EventRun,
        step: usize,
    ) -> Result<Candidates, StorageFault> {
        use DeliveryStateName as Name;
        let mut found = Candidates::default();
        let wants = |states: &[Name]| query.state.is_none_or(|state| states.contains(&state));
        let of_rows = [
            (RowKind::Retry, wants(&[Name::Pending, Name::Expired])),
            (RowKind::Dead, wants(&[Name::Dead])),
            (RowKind::Closed, wants(&[Name::Cancelled, Name::Expired])),
        ];
        for (kind, is_wanted) in of_rows {
            if is_wanted {
                let events = rows.deliveries_below(kind, before, step)?;
                found.add(events.into_iter().map(|event| (event, None)), step);
            }
        }
        if wants(&[Name::Delivered]) {
            let events = self.attempted_below(query.subscription.id, before, step)?;
            found.add(events.into_iter().map(|event| (event, None)), step);
        }
        if wants(&[Name::Pending]) {
            // The delivery itself comes after its replays.
            let (event, run) = before;
            let before = if run > 0 { EventId(event.0.saturating_add(1)) } else { event };
            let (events, has_more) = self.owed_below(query.subscription, rows, before, step)?;
            // Large events end the list early.
            let step = if has_more { events.len() } else { step };
            found.add(events.into_iter().map(|event| ((event.id, 0), Some(event))), step);
        }
        Ok(found)
    }
}

/// How a delivery of a replay stands that has no row and did not arrive; none when it does not belong to it.
fn standing_of_replay(
    rows: &SubscriptionRows,
    id: DeliveryId,
    event: Option<&LogEvent>,
    was_attempted: bool,
) -> Result<Option<Standing>, StorageFault> {
    let Some(event) = event else { return Ok(None) };
    let Some(replay) = rows.replays.get(ReplayId(id.run))?.filter(|replay| replay.subscription == id.subscription) else { return Ok(None) };
    let place = &replay.progress.place;
    let is_settled = event.position() <= place.position || place.settled.binary_search(&event.id).is_ok();
    let is_open = !is_settled && replay.selection.has(event.position(), &event.kind.to_ascii_lowercase(), &event.version);
    Ok(match replay.progress.state {
        ReplayState::Running if is_open => Some((DeliveryStateName::Pending, None, None)),
        ReplayState::Cancelled if was_attempted => {
            Some((DeliveryStateName::Cancelled, None, Some(format!("replay {} was cancelled", replay.id))))
        }
        _ => None,
    })
}

/// Events that may belong on a page, from several lists that each end somewhere.
#[derive(Default)]
struct Candidates {
    events: BTreeMap<EventRun, Option<LogEvent>>,
    /// Down to this one no list has more; none when all lists have ended.
    horizon: Option<EventRun>,
}

impl Candidates {
    /// Adds a list, newest first, that was cut after `step` events.
    fn add(&mut self, list: impl Iterator<Item = (EventRun, Option<LogEvent>)>, step: usize) {
        let mut count = 0;
        let mut oldest = None;
        for (event, known) in list {
            let entry = self.events.entry(event).or_default();
            *entry = entry.take().or(known);
            count += 1;
            oldest = Some(event);
        }
        if count >= step {
            self.horizon = self.horizon.max(oldest);
        }
    }
}

impl Store {
    /// One delivery with its attempts; none when the event is unknown, was never owed to the subscription, or has
    /// expired after it was delivered, dead or cancelled.
    ///
    /// # Errors
    /// When the bytes on disk are damaged or cannot be read.
    pub fn delivery(&self, subscription: &Subscription, event: EventId) -> Result<Option<DeliveryView>, ReadError> {
        self.delivery_of(subscription, DeliveryId { subscription: subscription.id, event, run: 0 })
    }

    /// As [`Store::delivery`], also one of a replay.
    ///
    /// # Errors
    /// As [`Store::delivery`].
    pub fn delivery_of(&self, subscription: &Subscription, id: DeliveryId) -> Result<Option<DeliveryView>, ReadError> {
        let rows = self.inner.rows_of(subscription.id)?;
        let whose = (subscription.company, id);
        Ok(self.inner.view_of(whose, Some(&subscription.wishes.filter), &rows, None, Detail::Whole)?)
    }

    /// As [`Store::delivery`], of a subscription that was deleted: how what was owed to it has ended. The event says
    /// whose it was; when that is gone, so is the delivery.
    ///
    /// # Errors
    /// As [`Store::delivery`].
    pub fn delivery_of_deleted(&self, company: CompanyId, id: DeliveryId) -> Result<Option<DeliveryView>, ReadError> {
        let Some(event) = self.read_event(company, id.event)? else { return Ok(None) };
        if self.subscription(id.subscription).is_some() {
            return Ok(None);
        }
        let rows = self.inner.rows_of(id.subscription)?;
        Ok(self.inner.view_of((company, id), None, &rows, Some(event), Detail::Whole)?)
    }

    /// A page of deliveries, newest event first. What expired without an attempt is not in the list: nothing but the
    /// stretch is known of it.
    ///
    /// # Errors
    /// As [`Store::delivery`].
    pub fn deliveries(&self, query: &DeliveriesQuery<'_>) -> Result<DeliveriesPage, ReadError> {
        Ok(self.inner.deliveries(query)?)
    }
}
