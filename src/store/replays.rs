//! Replays in the ledger: what a person wants to be sent once more, and how far that is.
//!
//! What is wanted lies in one row that never changes, how far it is in another one that is written with the outcomes of
//! its deliveries. Those have the number of the replay as their run in the tables of deliveries and attempts.

use std::sync::Arc;
use std::time::Duration;

use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use super::deliveries::{self, PositionRow, position_record};
use super::ledger::{SETTINGS, record_act};
use super::live::existing;
use super::records::{self, ReplayProgressRecord, ReplayRecord};
use super::subscriptions::SUBSCRIPTIONS;
use super::{Actor, LedgerBusy, ReadError, StorageFault, Store};
use crate::domain::company::CompanyId;
use crate::domain::cursor::Position;
use crate::domain::event::EventId;
use crate::domain::filter::TypeFilter;
use crate::domain::subscription::{ReplayId, SubscriptionId};
use crate::domain::time::Timestamp;

/// Number of a replay → [`ReplayRecord`].
const REPLAYS: TableDefinition<u32, &[u8]> = TableDefinition::new("replays");
/// Number of a replay → [`ReplayProgressRecord`].
const PROGRESS: TableDefinition<u32, &[u8]> = TableDefinition::new("replay_progress");
/// The setting with the greatest number that was ever given to a replay.
const LAST_NUMBER: &str = "last_replay";
/// Replays of one subscription that may run at the same time.
pub const RUNNING_MAX: usize = 16;
/// How long it is remembered how a replay ended.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Which events a replay sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Of which types.
    pub filter: TypeFilter,
    /// Only events above this.
    pub after: Position,
    /// The last one may be this.
    pub until: Position,
    /// Only these, ascending; none: all of the stretch.
    pub events: Option<Arc<[EventId]>>,
}

/// How a replay stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayState {
    /// Something is still to be sent.
    Running,
    /// Everything has ended.
    Done,
    /// A person ended it, or its subscription was deleted.
    Cancelled,
}

impl ReplayState {
    const ALL: [Self; 3] = [Self::Running, Self::Done, Self::Cancelled];

    /// The state as it is written on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// Its number: the run of its deliveries.
    pub id: ReplayId,
    /// To whom.
    pub subscription: SubscriptionId,
    /// Whose events.
    pub company: CompanyId,
    /// What.
    pub selection: Selection,
    /// How many events that were.
    pub count: u64,
    /// Attempts a minute at most, beside what the subscription allows; 0 = no further limit.
    pub rate_per_minute: u32,
    /// When it was asked for.
    pub created: Timestamp,
    /// How far it is.
    pub progress: ReplayProgress,
}

/// How far a replay is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayProgress {
    /// How it stands.
    pub state: ReplayState,
    /// Every event of it up to here is settled, as with a subscription.
    pub place: PositionRow,
    /// Deliveries that have ended.
    pub done: u64,
    /// When it ended.
    pub ended: Option<Timestamp>,
}

/// What a person wants to be sent once more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewReplay {
    /// To whom.
    pub subscription: SubscriptionId,
    /// What.
    pub selection: Selection,
    /// How many events that are.
    pub count: u64,
    /// See [`Replay::rate_per_minute`].
    pub rate_per_minute: u32,
}

/// Why a replay was not made or ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// There is no such subscription, or no such replay.
    #[error("there is no such replay")]
    Unknown,
    /// Too many run.
    #[error("{RUNNING_MAX} replays of this subscription are running; wait for one of them, or cancel it")]
    TooMany,
    /// It is at its end.
    #[error("this replay is {0} and cannot be cancelled")]
    Ended(&'static str),
    /// The ledger cannot take the act.
    #[error(transparent)]
    Busy(#[from] LedgerBusy),
}

impl Selection {
    /// Whether an event of this place and type belongs to it.
    #[must_use]
    pub fn has(&self, position: Position, folded: &str, version: &str) -> bool {
        let is_listed = self.events.as_ref().is_none_or(|events| events.binary_search(&position.id).is_ok());
        is_listed && position > self.after && position <= self.until && self.filter.matches(folded, version)
    }
}

fn place(created_us: u64, id: u64) -> Position {
    Position { created: Timestamp::from_micros(created_us), id: EventId(id) }
}

fn read(id: u32, record: &[u8], progress: &[u8]) -> Result<Replay, StorageFault> {
    let record: ReplayRecord = records::decode(record)?;
    let unknown = |what: &str| StorageFault::Record(format!("replay {id}: its {what} is not known"));
    let filter = TypeFilter::parse_types(&record.types).map_err(|_| unknown("filter"))?;
    let events = record.events.map(|steps| {
        let ids = steps.iter().scan(0_u64, |at, step| {
            *at = at.saturating_add(*step);
            Some(EventId(*at))
        });
        ids.collect()
    });
    Ok(Replay {
        id: ReplayId(id),
        subscription: SubscriptionId(record.subscription),
        company: CompanyId(record.company),
        selection: Selection {
            filter,
            after: place(record.after_us, record.after_id),
            until: place(record.until_us, record.until_id),
            events,
        },
        count: record.count,
        rate_per_minute: record.rate_per_minute,
        created: Timestamp::from_micros(record.created_us),
        progress: read_progress(id, progress)?,
    })
}

fn read_progress(id: u32, record: &[u8]) -> Result<ReplayProgress, StorageFault> {
    let record: ReplayProgressRecord = records::decode(record)?;
    let state = ReplayState::ALL.get(usize::from(record.state)).copied();
    Ok(ReplayProgress {
        state: state.ok_or_else(|| StorageFault::Record(format!("replay {id}: its state is not known")))?,
        place: deliveries::position_row(&record.place),
        done: record.done,
        ended: record.ended_us.map(Timestamp::from_micros),
    })
}

fn write_progress(transaction: &WriteTransaction, id: ReplayId, progress: &ReplayProgress) -> Result<(), StorageFault> {
    let state = ReplayState::ALL.iter().position(|known| *known == progress.state).unwrap_or_default();
    let record = ReplayProgressRecord {
        state: u8::try_from(state).unwrap_or_default(),
        place: position_record(&progress.place),
        done: progress.done,
        ended_us: progress.ended.map(Timestamp::as_micros),
    };
    transaction.open_table(PROGRESS)?.insert(id.0, records::encode(&record)?.as_slice())?;
    Ok(())
}

fn to_record(replay: &Replay) -> ReplayRecord {
    let Selection { filter, after, until, events } = &replay.selection;
    let canonical = filter.canonical();
    let steps = events.as_ref().map(|events| {
        let ids = events.iter().scan(0_u64, |at, event| Some(event.0 - std::mem::replace(at, event.0)));
        ids.collect()
    });
    ReplayRecord {
        subscription: replay.subscription.0,
        company: replay.company.0,
        types: canonical.split(',').filter(|entry| !entry.is_empty()).map(str::to_owned).collect(),
        after_us: after.created.as_micros(),
        after_id: after.id.0,
        until_us: until.created.as_micros(),
        until_id: until.id.0,
        events: steps,
        count: replay.count,
        rate_per_minute: replay.rate_per_minute,
        created_us: replay.created.as_micros(),
    }
}

/// How a replay stands in a transaction; none when there is none with this number.
pub(super) fn state_in(transaction: &WriteTransaction, id: ReplayId) -> Result<Option<ReplayState>, StorageFault> {
    let table = transaction.open_table(PROGRESS)?;
    let progress = table.get(id.0)?.map(|record| read_progress(id.0, record.value())).transpose()?;
    Ok(progress.map(|progress| progress.state))
}

/// Writes how far a replay is, by the one who sends; that a person has ended it stands.
pub(super) fn note_progress(transaction: &WriteTransaction, id: ReplayId, progress: &ReplayProgress) -> Result<(), StorageFault> {
    let known = {
        let table = transaction.open_table(PROGRESS)?;
        table.get(id.0)?.map(|record| read_progress(id.0, record.value())).transpose()?
    };
    match known {
        None => Ok(()),
        Some(known) if known.state == ReplayState::Running => write_progress(transaction, id, progress),
        Some(known) => write_progress(transaction, id, &ReplayProgress { state: known.state, ended: known.ended, ..progress.clone() }),
    }
}

/// Ends the replays of a subscription that is deleted.
pub(super) fn cancel_all(transaction: &WriteTransaction, subscription: SubscriptionId, at: Timestamp) -> Result<(), StorageFault> {
    let known = all(&transaction.open_table(REPLAYS)?, &transaction.open_table(PROGRESS)?)?;
    for replay in known {
        if replay.subscription == subscription && replay.progress.state == ReplayState::Running {
            let progress = ReplayProgress { state: ReplayState::Cancelled, ended: Some(at), ..replay.progress };
            write_progress(transaction, replay.id, &progress)?;
        }
    }
    Ok(())
}

/// Forgets replays that ended long ago.
pub(super) fn sweep(transaction: &WriteTransaction, now: Timestamp) -> Result<(), StorageFault> {
    let is_old = |ended: Option<Timestamp>| ended.is_some_and(|ended| now.since(ended) >= KEPT);
    let old: Vec<ReplayId> = all(&transaction.open_table(REPLAYS)?, &transaction.open_table(PROGRESS)?)?
        .into_iter()
        .filter(|replay| is_old(replay.progress.ended))
        .map(|replay| replay.id)
        .collect();
    for id in old {
        transaction.open_table(REPLAYS)?.remove(id.0)?;
        transaction.open_table(PROGRESS)?.remove(id.0)?;
    }
    Ok(())
}

fn all(
    replays: &impl ReadableTable<u32, &'static [u8]>,
    progress: &impl ReadableTable<u32, &'static [u8]>,
) -> Result<Vec<Replay>, StorageFault> {
    let mut found = Vec::new();
    for row in replays.iter()? {
        let (id, record) = row?;
        let Some(progress) = progress.get(id.value())? else { continue };
        found.push(read(id.value(), record.value(), progress.value())?);
    }
    Ok(found)
}

/// All replays that the ledger knows.
pub(super) fn load(transaction: &ReadTransaction) -> Result<Vec<Replay>, StorageFault> {
    match (existing(transaction.open_table(REPLAYS))?, existing(transaction.open_table(PROGRESS))?) {
        (Some(replays), Some(progress)) => all(&replays, &progress),
        _ => Ok(Vec::new()),
    }
}

/// The replays at one moment.
pub(super) struct ReplayRows {
    replays: Option<ReadOnlyTable<u32, &'static [u8]>>,
    progress: Option<ReadOnlyTable<u32, &'static [u8]>>,
}

impl ReplayRows {
    pub fn of(transaction: &ReadTransaction) -> Result<Self, StorageFault> {
        Ok(Self { replays: existing(transaction.open_table(REPLAYS))?, progress: existing(transaction.open_table(PROGRESS))? })
    }

    pub fn get(&self, id: ReplayId) -> Result<Option<Replay>, StorageFault> {
        let (Some(replays), Some(progress)) = (&self.replays, &self.progress) else { return Ok(None) };
        match (replays.get(id.0)?, progress.get(id.0)?) {
            (Some(record), Some(progress)) => read(id.0, record.value(), progress.value()).map(Some),
            _ => Ok(None),
        }
    }
}

impl Store {
    /// The replay with this number.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn replay(&self, id: ReplayId) -> Result<Option<Replay>, ReadError> {
        Ok(ReplayRows::of(&self.inner.ledger.read()?)?.get(id)?)
    }

    /// The replays of a company, newest first.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn replays_of(&self, company: CompanyId) -> Result<Vec<Replay>, ReadError> {
        let mut replays = load(&self.inner.ledger.read()?)?;
        replays.retain(|replay| replay.company == company);
        replays.reverse();
        Ok(replays)
    }

    /// Makes a replay; it is on disk when this is done.
    ///
    /// # Errors
    /// See [`ReplayError`].
    pub async fn create_replay(&self, company: CompanyId, new: NewReplay, actor: &Actor) -> Result<Replay, ReplayError> {
        let (actor, at) = (actor.clone(), self.inner.now());
        let created = self.inner.ledger.submit(
            move |transaction| {
                if transaction.open_table(SUBSCRIPTIONS)?.get(new.subscription.0)?.is_none() {
                    return Ok(Err(ReplayError::Unknown));
                }
                let known = all(&transaction.open_table(REPLAYS)?, &transaction.open_table(PROGRESS)?)?;
                let is_running =
                    |replay: &&Replay| replay.subscription == new.subscription && replay.progress.state == ReplayState::Running;
                if known.iter().filter(is_running).count() >= RUNNING_MAX {
                    return Ok(Err(ReplayError::TooMany));
                }
                let mut settings = transaction.open_table(SETTINGS)?;
                let next = settings.get(LAST_NUMBER)?.map_or(0, |last| last.value()) + 1;
                let id = u32::try_from(next).map_err(|_| StorageFault::Record("no number is left for a replay".to_owned()))?;
                settings.insert(LAST_NUMBER, next)?;
                drop(settings);
                let place = PositionRow { position: new.selection.after, settled: Vec::new() };
                let replay = Replay {
                    id: ReplayId(id),
                    subscription: new.subscription,
                    company,
                    selection: new.selection,
                    count: new.count,
                    rate_per_minute: new.rate_per_minute,
                    created: at,
                    progress: ReplayProgress { state: ReplayState::Running, place, done: 0, ended: None },
                };
                transaction.open_table(REPLAYS)?.insert(id, records::encode(&to_record(&replay))?.as_slice())?;
                write_progress(transaction, replay.id, &replay.progress)?;
                let detail = format!("replay {id}, {} events", replay.count);
                record_act(transaction, at, &actor, "subscription.replay", &format!("subscription:{}", replay.subscription), &detail)?;
                Ok(Ok(replay))
            },
            |_| {},
        )?;
        created.await.map_err(|_| ReplayError::Busy(LedgerBusy::Ended))?
    }

    /// Ends a replay: what it still owed is cancelled. It is on disk when this is done.
    ///
    /// # Errors
    /// See [`ReplayError`].
    pub async fn cancel_replay(&self, company: CompanyId, id: ReplayId, actor: &Actor) -> Result<SubscriptionId, ReplayError> {
        let (actor, at) = (actor.clone(), self.inner.now());
        let cancelled = self.inner.ledger.submit(
            move |transaction| {
                let replay = {
                    let (replays, progress) = (transaction.open_table(REPLAYS)?, transaction.open_table(PROGRESS)?);
                    match (replays.get(id.0)?, progress.get(id.0)?) {
                        (Some(record), Some(progress)) => Some(read(id.0, record.value(), progress.value())?),
                        _ => None,
                    }
                };
                let Some(replay) = replay.filter(|replay| replay.company == company) else { return Ok(Err(ReplayError::Unknown)) };
                if replay.progress.state != ReplayState::Running {
                    return Ok(Err(ReplayError::Ended(replay.progress.state.as_str())));
                }
                let reason = format!("replay {id} was cancelled");
                let open = deliveries::cancel_retries(transaction, replay.subscription, Some(id.0), &reason, at)?;
                let progress = ReplayProgress { state: ReplayState::Cancelled, ended: Some(at), ..replay.progress };
                write_progress(transaction, id, &progress)?;
                let detail = format!("replay {id}, {open} open deliveries");
                record_act(transaction, at, &actor, "replay.cancel", &format!("subscription:{}", replay.subscription), &detail)?;
                Ok(Ok(replay.subscription))
            },
            |_| {},
        )?;
        cancelled.await.map_err(|_| ReplayError::Busy(LedgerBusy::Ended))?
    }
}
