//! What the ledger knows of deliveries: how far each subscription is, what is to be tried again, what has ended.
//!
//! A subscription without a position of its own is as far as `settled_tail`. What was delivered has no row: only the
//! attempt log tells of it.

use std::collections::{HashMap, HashSet};
use std::ops::Bound;
use std::time::Duration;

use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction};

use super::attempts::AttemptRow;
use super::ledger::SETTINGS;
use super::live::existing;
use super::records::{self, ClosedRecord, DeadRecord, ExpiredRecord, PositionRecord, RetryRecord};
use super::replays::{self, Replay, ReplayProgress, ReplayRows, ReplayState};
use super::subscriptions::{self, SUBSCRIPTIONS};
use super::{Inner, ReadError, StorageFault, Store};
use crate::domain::cursor::Position;
use crate::domain::event::EventId;
use crate::domain::health::Health;
use crate::domain::ordering::OrderKey;
use crate::domain::subscription::{DeliveryId, ReplayId, Standing, SubscriptionId};
use crate::domain::time::Timestamp;

/// Number of a subscription → [`PositionRecord`].
pub(super) const POSITIONS: TableDefinition<u32, &[u8]> = TableDefinition::new("positions");

/// An event, and the run that owes it.
pub type EventRun = (EventId, u32);

/// Subscription, event, run (0: the delivery itself).
type DeliveryKey = (u32, u64, u32);
type DeliveryTable = TableDefinition<'static, DeliveryKey, &'static [u8]>;

/// Delivery → [`RetryRecord`].
const RETRIES: DeliveryTable = TableDefinition::new("retries");
/// Delivery → [`DeadRecord`].
const DEAD_LETTERS: DeliveryTable = TableDefinition::new("dead_letters");
/// Delivery → [`ClosedRecord`].
const CLOSED: DeliveryTable = TableDefinition::new("closed");
/// Subscription, first event → [`ExpiredRecord`].
const EXPIRED: TableDefinition<(u32, u64), &[u8]> = TableDefinition::new("expired");
const TAIL_CREATED: &str = "settled_tail_created_us";
const TAIL_ID: &str = "settled_tail_id";
/// The last commit of the attempt log that the ledger knows the outcomes of.
pub(super) const ATTEMPT_BATCH: &str = "attempt_batch";

/// How far a subscription is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PositionRow {
    /// Every matching event up to here is settled: delivered, dead, closed, or owed by a retry.
    pub position: Position,
    /// Settled events above it, ascending, at most 4,096.
    pub settled: Vec<EventId>,
}

/// A delivery that is to be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryRow {
    /// Attempts made so far.
    pub attempts: u32,
    /// When the next one may be made.
    pub due: Timestamp,
    /// When the event was created.
    pub created: Timestamp,
    /// The order that the event belongs to, if its subscription wants its events in order by key.
    pub key: Option<OrderKey>,
}

impl RetryRow {
    /// Whether it was never attempted: it waits until the earlier events of its order have ended.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.attempts == 0 && self.key.is_some()
    }
}

/// Why a delivery is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadReason {
    /// Its schedule is exhausted.
    Exhausted,
    /// The receiver will never take it.
    Refused,
}

/// A dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadRow {
    /// Attempts made.
    pub attempts: u32,
    /// When it died.
    pub at: Timestamp,
    /// When the event was created.
    pub created: Timestamp,
    /// Why it died.
    pub reason: DeadReason,
    /// Whether the event that tells of it is in the log.
    pub announced: bool,
}

/// How a delivery ended that neither arrived nor died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseState {
    /// A person gave it up, or its subscription was deleted.
    Cancelled,
    /// Its event expired first.
    Expired,
}

/// A delivery that ended so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedRow {
    /// How it ended.
    pub state: CloseState,
    /// When.
    pub at: Timestamp,
    /// When the event was created.
    pub created: Timestamp,
    /// Why, in words.
    pub reason: String,
    /// Attempts made.
    pub attempts: u32,
}

/// Deliveries of one subscription that expired without an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpiredRange {
    /// The first event.
    pub first: EventId,
    /// The last one.
    pub last: EventId,
    /// How many of those between them were owed.
    pub count: u64,
    /// When they expired.
    pub at: Timestamp,
}

/// What becomes of a delivery. Whatever row it had before is replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryRow {
    /// It is tried again.
    Retry(RetryRow),
    /// It is dead.
    Dead(DeadRow),
    /// It ended otherwise.
    Closed(ClosedRow),
    /// It was delivered: no row is left.
    Settled,
}

/// How a receiver does, as far as the one knows who sends to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceiverNote {
    /// Whose.
    pub subscription: SubscriptionId,
    /// Of this only `Disabled` is taken, and only of a subscription that is active.
    pub standing: Standing,
    /// Its health.
    pub health: Health,
    /// See [`Subscription::resumes`](crate::domain::subscription::Subscription::resumes): with another number the note
    /// is too late.
    pub resumes: u32,
}

/// What came of a batch of attempts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcomes {
    /// The attempts themselves.
    pub attempts: Vec<AttemptRow>,
    /// What became of deliveries.
    pub rows: Vec<(DeliveryId, DeliveryRow)>,
    /// How far subscriptions are; none: as far as `settled_tail`.
    pub positions: Vec<(SubscriptionId, Option<PositionRow>)>,
    /// What expired without an attempt.
    pub expired: Vec<(SubscriptionId, ExpiredRange)>,
    /// How receivers do.
    pub receivers: Vec<ReceiverNote>,
    /// Dead letters whose announcement is in the log; those that are none any more are passed over.
    pub announced: Vec<DeliveryId>,
    /// How far replays are.
    pub replays: Vec<(ReplayId, ReplayProgress)>,
    /// How far all subscriptions without a position are.
    pub settled_tail: Option<Position>,
}

/// What the engine starts from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeliveryState {
    /// How far all subscriptions without a position are.
    pub settled_tail: Position,
    /// How far the others are.
    pub positions: HashMap<SubscriptionId, PositionRow>,
    /// What is to be tried again, by subscription and run.
    pub retries: HashMap<(SubscriptionId, u32), Vec<(EventId, RetryRow)>>,
    /// Replays that have not ended.
    pub replays: Vec<Replay>,
    /// Dead letters that nothing in the log tells of yet.
    pub unannounced: Vec<(DeliveryId, DeadRow)>,
    /// The attempts that a crash left in the attempt log only: the ledger knows nothing of them.
    pub unjudged: Vec<AttemptRow>,
}

fn key_of(id: DeliveryId) -> DeliveryKey {
    (id.subscription.0, id.event.0, id.run)
}

fn id_of(key: DeliveryKey) -> DeliveryId {
    DeliveryId { subscription: SubscriptionId(key.0), event: EventId(key.1), run: key.2 }
}

fn read_position(record: &[u8]) -> Result<PositionRow, StorageFault> {
    Ok(position_row(&records::decode(record)?))
}

pub(super) fn position_row(record: &PositionRecord) -> PositionRow {
    let steps = record.settled.iter().scan(record.id, |at, step| {
        *at = at.saturating_add(*step);
        Some(EventId(*at))
    });
    let settled = steps.collect();
    PositionRow { position: Position { created: Timestamp::from_micros(record.created_us), id: EventId(record.id) }, settled }
}

pub(super) fn position_record(row: &PositionRow) -> PositionRecord {
    let mut at = row.position.id.0;
    let settled = row.settled.iter().map(|event| {
        let step = event.0.saturating_sub(at);
        at = at.max(event.0);
        step
    });
    let settled = settled.collect();
    PositionRecord { created_us: row.position.created.as_micros(), id: row.position.id.0, settled }
}

fn read_retry(record: &[u8]) -> Result<RetryRow, StorageFault> {
    let record: RetryRecord = records::decode(record)?;
    Ok(RetryRow {
        attempts: record.attempts,
        due: Timestamp::from_micros(record.due_us),
        created: Timestamp::from_micros(record.created_us),
        key: record.key.map(|(high, low)| OrderKey(u128::from(high) << 64 | u128::from(low))),
    })
}

fn retry_record(row: &RetryRow) -> RetryRecord {
    RetryRecord {
        attempts: row.attempts,
        due_us: row.due.as_micros(),
        created_us: row.created.as_micros(),
        key: row.key.map(|OrderKey(hash)| ((hash >> 64) as u64, hash as u64)),
    }
}

fn read_dead(record: &[u8]) -> Result<DeadRow, StorageFault> {
    let record: DeadRecord = records::decode(record)?;
    Ok(DeadRow {
        attempts: record.attempts,
        at: Timestamp::from_micros(record.at_us),
        created: Timestamp::from_micros(record.created_us),
        reason: if record.is_refused { DeadReason::Refused } else { DeadReason::Exhausted },
        announced: record.announced,
    })
}

fn read_closed(record: &[u8]) -> Result<ClosedRow, StorageFault> {
    let record: ClosedRecord = records::decode(record)?;
    Ok(ClosedRow {
        state: if record.is_expired { CloseState::Expired } else { CloseState::Cancelled },
        at: Timestamp::from_micros(record.at_us),
        created: Timestamp::from_micros(record.created_us),
        reason: record.reason,
        attempts: record.attempts,
    })
}

fn dead_record(row: &DeadRow) -> DeadRecord {
    DeadRecord {
        attempts: row.attempts,
        at_us: row.at.as_micros(),
        created_us: row.created.as_micros(),
        is_refused: row.reason == DeadReason::Refused,
        announced: row.announced,
    }
}

fn closed_record(row: &ClosedRow) -> ClosedRecord {
    ClosedRecord {
        is_expired: row.state == CloseState::Expired,
        at_us: row.at.as_micros(),
        created_us: row.created.as_micros(),
        reason: row.reason.clone(),
        attempts: row.attempts,
    }
}

/// Writes how far a subscription is; none removes its row.
pub(super) fn write_position(transaction: &WriteTransaction, id: SubscriptionId, row: Option<&PositionRow>) -> Result<(), StorageFault> {
    let mut table = transaction.open_table(POSITIONS)?;
    match row {
        None => drop(table.remove(id.0)?),
        Some(row) => drop(table.insert(id.0, records::encode(&position_record(row))?.as_slice())?),
    }
    Ok(())
}

/// Why what was owed to a deleted subscription is cancelled.
pub(super) const DELETED: &str = "the subscription was deleted";

/// Closes what is owed to a subscription as cancelled, all of it or what one run owes; how many there were.
pub(super) fn cancel_retries(
    transaction: &WriteTransaction,
    id: SubscriptionId,
    run: Option<u32>,
    reason: &str,
    at: Timestamp,
) -> Result<usize, StorageFault> {
    let mut retries = transaction.open_table(RETRIES)?;
    let mut closed = transaction.open_table(CLOSED)?;
    let mut cancelled = 0;
    for row in retries.extract_from_if((id.0, 0, 0)..=(id.0, u64::MAX, u32::MAX), |key, _| run.is_none_or(|run| run == key.2))? {
        let (key, record) = row?;
        let row = read_retry(record.value())?;
        let record = ClosedRecord {
            is_expired: false,
            at_us: at.as_micros(),
            created_us: row.created.as_micros(),
            reason: reason.to_owned(),
            attempts: row.attempts,
        };
        closed.insert(key.value(), records::encode(&record)?.as_slice())?;
        cancelled += 1;
    }
    Ok(cancelled)
}

/// The three tables of which a delivery has a row in at most one.
pub(super) struct RowTables<'a> {
    retries: Table<'a, DeliveryKey, &'static [u8]>,
    dead: Table<'a, DeliveryKey, &'static [u8]>,
    closed: Table<'a, DeliveryKey, &'static [u8]>,
    keeps_retries: bool,
}

impl<'a> RowTables<'a> {
    pub fn open(transaction: &'a WriteTransaction, keeps_retries: bool) -> Result<Self, StorageFault> {
        Ok(Self {
            retries: transaction.open_table(RETRIES)?,
            dead: transaction.open_table(DEAD_LETTERS)?,
            closed: transaction.open_table(CLOSED)?,
            keeps_retries,
        })
    }

    pub fn write(&mut self, id: DeliveryId, row: &DeliveryRow) -> Result<(), StorageFault> {
        let key = key_of(id);
        self.retries.remove(key)?;
        self.dead.remove(key)?;
        self.closed.remove(key)?;
        match row {
            DeliveryRow::Retry(row) if self.keeps_retries => {
                self.retries.insert(key, records::encode(&retry_record(row))?.as_slice())?;
            }
            DeliveryRow::Retry(_) | DeliveryRow::Settled => {}
            DeliveryRow::Dead(row) => drop(self.dead.insert(key, records::encode(&dead_record(row))?.as_slice())?),
            DeliveryRow::Closed(row) => drop(self.closed.insert(key, records::encode(&closed_record(row))?.as_slice())?),
        }
        Ok(())
    }

    pub fn dead_row(&self, id: DeliveryId) -> Result<Option<DeadRow>, StorageFault> {
        self.dead.get(key_of(id))?.map(|record| read_dead(record.value())).transpose()
    }

    fn announce(&mut self, id: DeliveryId) -> Result<(), StorageFault> {
        let key = key_of(id);
        if let Some(row) = self.dead_row(id)? {
            let record = dead_record(&DeadRow { announced: true, ..row });
            self.dead.insert(key, records::encode(&record)?.as_slice())?;
        }
        Ok(())
    }
}

/// Those of `ids` whose subscription is still there.
pub(super) fn living(
    transaction: &WriteTransaction,
    ids: impl Iterator<Item = SubscriptionId>,
) -> Result<HashSet<SubscriptionId>, StorageFault> {
    let table = transaction.open_table(SUBSCRIPTIONS)?;
    let asked: HashSet<SubscriptionId> = ids.collect();
    let mut living = HashSet::with_capacity(asked.len());
    for id in asked {
        if table.get(id.0)?.is_some() {
            living.insert(id);
        }
    }
    Ok(living)
}

fn write_positions(transaction: &WriteTransaction, outcomes: &Outcomes) -> Result<(), StorageFault> {
    let living = living(transaction, outcomes.positions.iter().map(|(id, _)| *id))?;
    for (id, row) in outcomes.positions.iter().filter(|(id, _)| living.contains(id)) {
        write_position(transaction, *id, row.as_ref())?;
    }
    if let Some(tail) = outcomes.settled_tail {
        let mut settings = transaction.open_table(SETTINGS)?;
        settings.insert(TAIL_CREATED, tail.created.as_micros())?;
        settings.insert(TAIL_ID, tail.id.0)?;
    }
    Ok(())
}

fn write_outcomes(transaction: &WriteTransaction, outcomes: &Outcomes, keeps_retries: bool) -> Result<(), StorageFault> {
    let of_rows = outcomes.rows.iter().map(|(id, _)| id.subscription);
    let living = living(transaction, of_rows.chain(outcomes.expired.iter().map(|(id, _)| *id)))?;
    let mut tables = RowTables::open(transaction, keeps_retries)?;
    let mut cancelled: HashMap<u32, bool> = HashMap::new();
    for (id, row) in outcomes.rows.iter().filter(|(id, _)| living.contains(&id.subscription)) {
        // A person has ended the replay: nothing is owed by it any more.
        if id.run > 0 && matches!(row, DeliveryRow::Retry(_)) {
            let is_over = match cancelled.get(&id.run) {
                Some(known) => *known,
                None => replays::state_in(transaction, ReplayId(id.run))? == Some(ReplayState::Cancelled),
            };
            cancelled.insert(id.run, is_over);
            if is_over {
                continue;
            }
        }
        tables.write(*id, row)?;
    }
    for id in &outcomes.announced {
        tables.announce(*id)?;
    }
    drop(tables);
    for (id, progress) in &outcomes.replays {
        replays::note_progress(transaction, *id, progress)?;
    }
    let mut expired = transaction.open_table(EXPIRED)?;
    for (id, range) in outcomes.expired.iter().filter(|(id, _)| living.contains(id)) {
        let record = ExpiredRecord { last_id: range.last.0, count: range.count, at_us: range.at.as_micros() };
        expired.insert((id.0, range.first.0), records::encode(&record)?.as_slice())?;
    }
    Ok(())
}

fn settled_tail(transaction: &ReadTransaction) -> Result<Position, StorageFault> {
    let Some(settings) = existing(transaction.open_table(SETTINGS))? else { return Ok(Position::START) };
    let number = |name| -> Result<u64, StorageFault> { Ok(settings.get(name)?.map_or(0, |value| value.value())) };
    Ok(Position { created: Timestamp::from_micros(number(TAIL_CREATED)?), id: EventId(number(TAIL_ID)?) })
}

type DeliveryRows = Option<ReadOnlyTable<DeliveryKey, &'static [u8]>>;

/// The rows of one subscription at one moment.
pub(super) struct SubscriptionRows {
    subscription: SubscriptionId,
    retries: DeliveryRows,
    dead: DeliveryRows,
    closed: DeliveryRows,
    expired: Option<ReadOnlyTable<(u32, u64), &'static [u8]>>,
    pub replays: ReplayRows,
    /// How far it is.
    pub place: PositionRow,
}

/// The tables that a delivery may have its row in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowKind {
    Retry,
    Dead,
    Closed,
}

impl SubscriptionRows {
    fn of(transaction: &ReadTransaction, subscription: SubscriptionId) -> Result<Self, StorageFault> {
        let place = match existing(transaction.open_table(POSITIONS))? {
            Some(table) => table.get(subscription.0)?.map(|record| read_position(record.value())).transpose()?,
            None => None,
        };
        let place = match place {
            Some(place) => place,
            None => PositionRow { position: settled_tail(transaction)?, settled: Vec::new() },
        };
        Ok(Self {
            subscription,
            retries: existing(transaction.open_table(RETRIES))?,
            dead: existing(transaction.open_table(DEAD_LETTERS))?,
            closed: existing(transaction.open_table(CLOSED))?,
            expired: existing(transaction.open_table(EXPIRED))?,
            replays: ReplayRows::of(transaction)?,
            place,
        })
    }

    fn rows(&self, kind: RowKind) -> &DeliveryRows {
        match kind {
            RowKind::Retry => &self.retries,
            RowKind::Dead => &self.dead,
            RowKind::Closed => &self.closed,
        }
    }

    /// The row of the delivery of `event` by this run.
    pub fn row(&self, event: EventId, run: u32) -> Result<Option<DeliveryRow>, StorageFault> {
        let key = (self.subscription.0, event.0, run);
        for kind in [RowKind::Retry, RowKind::Dead, RowKind::Closed] {
            let Some(table) = self.rows(kind) else { continue };
            let Some(record) = table.get(key)? else { continue };
            return Ok(Some(match kind {
                RowKind::Retry => DeliveryRow::Retry(read_retry(record.value())?),
                RowKind::Dead => DeliveryRow::Dead(read_dead(record.value())?),
                RowKind::Closed => DeliveryRow::Closed(read_closed(record.value())?),
            }));
        }
        Ok(None)
    }

    /// Events and runs below `before` whose delivery has a row of this kind, newest first, at most `limit`.
    pub fn deliveries_below(&self, kind: RowKind, before: EventRun, limit: usize) -> Result<Vec<EventRun>, StorageFault> {
        let Some(table) = self.rows(kind) else { return Ok(Vec::new()) };
        let (event, run) = before;
        let rows = table.range((self.subscription.0, 0, 0)..(self.subscription.0, event.0, run))?.rev().take(limit);
        let place = |key: DeliveryKey| (EventId(key.1), key.2);
        Ok(rows.map(|row| row.map(|(key, _)| place(key.value()))).collect::<Result<_, _>>()?)
    }

    /// Dead letters by event above `after`, at most `limit`.
    pub fn dead_above(&self, after: EventRun, limit: usize) -> Result<Vec<DeliveryId>, StorageFault> {
        let Some(table) = &self.dead else { return Ok(Vec::new()) };
        let (event, run) = after;
        let above = (Bound::Excluded((self.subscription.0, event.0, run)), Bound::Included((self.subscription.0, u64::MAX, u32::MAX)));
        let rows = table.range::<DeliveryKey>(above)?.take(limit);
        Ok(rows.map(|row| row.map(|(key, _)| id_of(key.value()))).collect::<Result<_, _>>()?)
    }

    /// Whether an event is passed or settled.
    pub fn is_settled(&self, position: Position) -> bool {
        position <= self.place.position || self.place.settled.binary_search(&position.id).is_ok()
    }

    /// Whether an event lies in a stretch that expired without an attempt.
    pub fn has_expired(&self, event: EventId) -> Result<bool, StorageFault> {
        let Some(table) = &self.expired else { return Ok(false) };
        let Some(row) = table.range((self.subscription.0, 0)..=(self.subscription.0, event.0))?.next_back() else { return Ok(false) };
        let record: ExpiredRecord = records::decode(row?.1.value())?;
        Ok(event.0 <= record.last_id)
    }
}

/// How long it is remembered that a delivery expired.
const TOMBSTONE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Removes the rows of events up to `last`, which are purged, but those that tell for a while that something expired;
/// what is open all the same expires. At most `limit` rows; how many were removed.
pub(super) fn sweep(transaction: &WriteTransaction, last: EventId, now: Timestamp, limit: usize) -> Result<usize, StorageFault> {
    let is_old = |at_us: u64| now.since(Timestamp::from_micros(at_us)) >= TOMBSTONE;
    let mut swept = 0;
    let mut closed = transaction.open_table(CLOSED)?;
    let mut retries = transaction.open_table(RETRIES)?;
    for (key, record) in purged(&retries, last, limit, |_| Ok(true))? {
        let row = read_retry(&record)?;
        let record = ClosedRecord {
            is_expired: true,
            at_us: now.as_micros(),
            created_us: row.created.as_micros(),
            reason: "the event was purged".to_owned(),
            attempts: row.attempts,
        };
        closed.insert(key, records::encode(&record)?.as_slice())?;
        retries.remove(key)?;
        swept += 1;
    }
    let mut dead = transaction.open_table(DEAD_LETTERS)?;
    for (key, _) in purged(&dead, last, limit - swept, |_| Ok(true))? {
        dead.remove(key)?;
        swept += 1;
    }
    let goes = |record: &[u8]| records::decode(record).map(|row: ClosedRecord| !row.is_expired || is_old(row.at_us));
    for (key, _) in purged(&closed, last, limit - swept, goes)? {
        closed.remove(key)?;
        swept += 1;
    }
    let mut expired = transaction.open_table(EXPIRED)?;
    let mut old = Vec::new();
    for row in expired.iter()? {
        let (key, record) = row?;
        let record: ExpiredRecord = records::decode(record.value())?;
        if record.last_id <= last.0 && is_old(record.at_us) && swept + old.len() < limit {
            old.push(key.value());
        }
    }
    for key in old {
        expired.remove(key)?;
        swept += 1;
    }
    Ok(swept)
}

/// At most `limit` rows of events up to `last` that go, subscription by subscription.
fn purged(
    table: &Table<'_, DeliveryKey, &'static [u8]>,
    last: EventId,
    limit: usize,
    goes: impl Fn(&[u8]) -> Result<bool, StorageFault>,
) -> Result<Vec<(DeliveryKey, Vec<u8>)>, StorageFault> {
    let mut found = Vec::new();
    let mut next = Some(0);
    while let Some(from) = next {
        let Some(row) = table.range((from, 0, 0)..)?.next() else { break };
        let subscription = row?.0.value().0;
        for row in table.range((subscription, 0, 0)..=(subscription, last.0, u32::MAX))? {
            let (key, record) = row?;
            if found.len() >= limit {
                return Ok(found);
            }
            if goes(record.value())? {
                found.push((key.value(), record.value().to_vec()));
            }
        }
        next = subscription.checked_add(1);
    }
    Ok(found)
}

impl Inner {
    pub(super) fn rows_of(&self, subscription: SubscriptionId) -> Result<SubscriptionRows, StorageFault> {
        SubscriptionRows::of(&self.ledger.read()?, subscription)
    }

    fn delivery_state(&self) -> Result<DeliveryState, StorageFault> {
        let transaction = self.ledger.read()?;
        let unjudged = self.attempts.unjudged();
        let mut state = DeliveryState { settled_tail: settled_tail(&transaction)?, unjudged, ..DeliveryState::default() };
        if let Some(table) = existing(transaction.open_table(POSITIONS))? {
            for row in table.iter()? {
                let (id, record) = row?;
                state.positions.insert(SubscriptionId(id.value()), read_position(record.value())?);
            }
        }
        if let Some(table) = existing(transaction.open_table(RETRIES))? {
            for row in table.iter()? {
                let (key, record) = row?;
                let (subscription, event, run) = key.value();
                let rows = state.retries.entry((SubscriptionId(subscription), run)).or_default();
                rows.push((EventId(event), read_retry(record.value())?));
            }
        }
        state.replays = replays::load(&transaction)?;
        state.replays.retain(|replay| replay.progress.state == ReplayState::Running);
        if let Some(table) = existing(transaction.open_table(DEAD_LETTERS))? {
            let known = existing(transaction.open_table(SUBSCRIPTIONS))?;
            for row in table.iter()? {
                let (key, record) = row?;
                let row = read_dead(record.value())?;
                let is_known = |id: u32| -> Result<bool, StorageFault> {
                    Ok(match &known {
                        Some(known) => known.get(id)?.is_some(),
                        None => false,
                    })
                };
                if !row.announced && is_known(key.value().0)? {
                    state.unannounced.push((id_of(key.value()), row));
                }
            }
        }
        Ok(state)
    }

    fn record_outcomes(&self, outcomes: &Outcomes) -> Result<(), StorageFault> {
        let keeps_retries = !self.faults.retry_lost_at_restart;
        if self.faults.position_before_outcome {
            self.ledger.write(|transaction| write_positions(transaction, outcomes))?;
        }
        let batch = self.append_attempts(&outcomes.attempts)?;
        let changed = self.ledger.write(|transaction| {
            if let Some(batch) = batch {
                transaction.open_table(SETTINGS)?.insert(ATTEMPT_BATCH, batch)?;
            }
            write_outcomes(transaction, outcomes, keeps_retries)?;
            let mut changed = Vec::new();
            for note in &outcomes.receivers {
                changed.extend(subscriptions::note_health(transaction, &self.master, note)?);
            }
            if !self.faults.position_before_outcome {
                write_positions(transaction, outcomes)?;
            }
            Ok(changed)
        })?;
        self.show_changed(&changed);
        Ok(())
    }
}

impl Store {
    /// What the engine starts from.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn delivery_state(&self) -> Result<DeliveryState, ReadError> {
        Ok(self.inner.delivery_state()?)
    }

    /// Writes what came of a batch of attempts; it is on disk when this returns. First the attempts, then everything
    /// else in one commit: a crash in between repeats an attempt and never skips one. Rows of subscriptions that are
    /// gone are dropped. Blocks; to be called from one thread.
    ///
    /// # Errors
    /// A fault of the storage, which has been reported and ends the store.
    pub fn record_outcomes(&self, outcomes: &Outcomes) -> Result<(), StorageFault> {
        self.inner.record_outcomes(outcomes).inspect_err(|fault| self.inner.sink.report(fault))
    }
}
