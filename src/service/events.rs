//! Publishing and reading events.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::de::IgnoredAny;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::cursors::{CursorError, CursorSealer, Expected, filter_hash};
use crate::catalog::{Catalog, EventTypeEntry};
use crate::domain::clock::Clock;
use crate::domain::company::CompanyId;
use crate::domain::cursor::{Cursor, Direction, Position};
use crate::domain::event::{EventId, EventType, NewEvent, Receipt};
use crate::domain::filter::{OWN_PREFIX, TypeFilter};
use crate::domain::key::Principal;
use crate::domain::nearest::nearest;
use crate::domain::text::escape_into;
use crate::domain::time::Timestamp;
use crate::store::{AppendError, Page, PageOutcome, PageQuery, ReadError, Start, Store};

/// The rest that a waiting reader takes after a commit that brought it nothing, so that a busy log of others does not
/// keep it looking.
const PAUSE: Duration = Duration::from_millis(5);

/// More bytes of snapshots are hashed on a thread of their own, so that other callers do not wait for it.
const SNAPSHOT_BYTES_INLINE_MAX: usize = 512 * 1024;

/// The id of the first sample; the others follow.
const FIRST_SAMPLE_ID: u64 = 1_000_000;

/// Why an event was not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The catalogue is strict and does not know the type.
    #[error("the type `{kind}` is not in the catalogue{}", did_you_mean(.nearest.as_deref()))]
    UnknownType {
        /// The type as published.
        kind: String,
        /// What was probably meant.
        nearest: Option<String>,
    },
    /// The key may publish other types only.
    #[error("this key may not publish events of type `{kind}`")]
    TypeNotAllowed {
        /// The type as published.
        kind: String,
    },
    /// The type is one of those that the daemon speaks for itself with.
    #[error("types that begin with `{OWN_PREFIX}` are the daemon's own; `{kind}` cannot be published")]
    Reserved {
        /// The type as published.
        kind: String,
    },
    /// The store did not take it.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Why there is no sample.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// The catalogue does not know the type.
    #[error("the type `{kind}` is not in the catalogue{}", did_you_mean(.nearest.as_deref()))]
    UnknownType {
        /// The type as given.
        kind: String,
        /// What was probably meant.
        nearest: Option<String>,
    },
    /// The catalogue's sample is no JSON.
    #[error("the catalogue's sample of `{kind}` is not JSON")]
    Failed {
        /// The type.
        kind: String,
    },
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

/// Where a list without a cursor begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// At the oldest event kept.
    Oldest,
    /// At the tail.
    Latest,
    /// At this time, inclusive.
    Time(Timestamp),
}

/// What a reader asks for.
#[derive(Debug, Clone)]
pub struct PageRequest {
    /// Whose log.
    pub company: CompanyId,
    /// Which types.
    pub filter: TypeFilter,
    /// Which way.
    pub direction: Direction,
    /// At most so many events.
    pub limit: usize,
    /// Where an earlier page ended.
    pub cursor: Option<String>,
    /// Where to begin without a cursor; none: ascending at the oldest, descending at the tail.
    pub from: Option<Origin>,
}

/// Events in order and where to go on.
#[derive(Debug, Clone)]
pub struct EventPage {
    /// Together the envelopes, joined by commas.
    pub parts: Vec<Bytes>,
    /// How many there are.
    pub count: usize,
    /// The cursor of the next page, when there is more.
    pub paging: Option<Bytes>,
    /// The cursor from which an ascending reader goes on later.
    pub resume: Bytes,
}

/// Why there is no page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// The cursor is none for this list.
    #[error(transparent)]
    Cursor(#[from] CursorError),
    /// Events behind the cursor are gone.
    #[error("events behind the cursor have been removed by retention")]
    Expired {
        /// A cursor that reads everything that is kept.
        oldest: String,
        /// The time that the lost events span.
        lost: Duration,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// A [`PageRequest`] whose cursor has been opened.
struct Walk<'a> {
    request: &'a PageRequest,
    filter_hash: u64,
    start: Start,
    /// The tail that the first page of a descending list saw.
    tail: Option<Position>,
}

/// The use cases of events.
#[derive(Debug)]
pub struct EventService {
    store: Store,
    catalog: Arc<Catalog>,
    clock: Arc<dyn Clock>,
    sealer: CursorSealer,
}

impl EventService {
    pub(super) fn new(store: Store, catalog: Arc<Catalog>, clock: Arc<dyn Clock>) -> Self {
        let sealer = CursorSealer::new(store.cursor_key(), store.epoch());
        Self { store, catalog, clock, sealer }
    }

    /// Checks the type against the catalogue and the key, and gives it the catalogue's spelling.
    fn check(&self, principal: &Principal, event: &mut NewEvent) -> Result<(), PublishError> {
        let given = event.kind.as_str();
        if given.get(..OWN_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(OWN_PREFIX)) {
            return Err(PublishError::Reserved { kind: given.to_owned() });
        }
        match self.catalog.find(given) {
            Some(entry) if entry.name != given => {
                if let Ok(kind) = entry.name.parse::<EventType>() {
                    event.kind = kind;
                }
            }
            None if self.catalog.is_strict() => {
                let nearest = self.nearest_type(given);
                return Err(PublishError::UnknownType { kind: given.to_owned(), nearest });
            }
            _ => {}
        }
        match principal {
            Principal::Key(key) if !key.grant.type_prefixes.is_empty() && !key.may_publish(&event.kind.folded()) => {
                Err(PublishError::TypeNotAllowed { kind: event.kind.as_str().to_owned() })
            }
            _ => Ok(()),
        }
    }

    fn nearest_type(&self, given: &str) -> Option<String> {
        nearest(given, self.catalog.iter().map(|entry| entry.name.as_str())).map(str::to_owned)
    }

    /// Publishes one event; it is on disk when this is done.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub async fn publish(&self, company: CompanyId, principal: &Principal, mut event: NewEvent) -> Result<Receipt, PublishError> {
        self.check(principal, &mut event)?;
        Ok(self.append(company, &event).await?)
    }

    async fn append(&self, company: CompanyId, event: &NewEvent) -> Result<Receipt, AppendError> {
        let is_large = event.references.as_ref().is_some_and(|references| references.snapshot_bytes() > SNAPSHOT_BYTES_INLINE_MAX);
        let prepared = if is_large {
            let (store, event) = (self.store.clone(), event.clone());
            spawn_blocking(move || store.prepare(company, &event)).await.map_err(|_| AppendError::Unknown)?
        } else {
            self.store.prepare(company, event)
        };
        self.store.append(prepared)?.await
    }

    /// Publishes one event of a test; a dedupe key that was used before, whatever the content, gives the first event.
    ///
    /// # Errors
    /// See [`PublishError`]; there are no conflicts.
    pub async fn publish_test(&self, company: CompanyId, principal: &Principal, mut event: NewEvent) -> Result<Receipt, PublishError> {
        self.check(principal, &mut event)?;
        match self.append(company, &event).await {
            Err(AppendError::DedupeConflict { id }) => match self.created_of(company, id)? {
                Some(created) => Ok(Receipt { id, created, duplicate: true }),
                // It expired in between, and its key is free.
                None => Ok(self.append(company, &event).await?),
            },
            outcome => Ok(outcome?),
        }
    }

    fn created_of(&self, company: CompanyId, id: EventId) -> Result<Option<Timestamp>, AppendError> {
        #[derive(serde::Deserialize)]
        struct Created<'a> {
            #[serde(rename = "createdUtc")]
            created: &'a str,
        }
        let envelope = self.store.get(company, id)?;
        let created = envelope.and_then(|envelope| serde_json::from_slice::<Created<'_>>(&envelope).ok()?.created.parse().ok());
        Ok(created)
    }

    /// Publishes events in one commit; each has an outcome of its own.
    ///
    /// # Errors
    /// When the store took none of them.
    pub async fn publish_all(
        &self,
        company: CompanyId,
        principal: &Principal,
        events: Vec<NewEvent>,
    ) -> Result<Vec<Result<Receipt, PublishError>>, AppendError> {
        let mut prepared = Vec::with_capacity(events.len());
        let mut refusals = Vec::with_capacity(events.len());
        for mut event in events {
            let refusal = self.check(principal, &mut event).err();
            if refusal.is_none() {
                prepared.push(self.store.prepare(company, &event));
            }
            refusals.push(refusal);
        }
        let appended = if prepared.is_empty() { Vec::new() } else { self.store.append_all(prepared)?.outcomes().await? };
        let mut appended = appended.into_iter();
        let outcome = |refusal| match refusal {
            Some(refusal) => Err(refusal),
            None => appended.next().unwrap_or(Err(AppendError::Unknown)).map_err(PublishError::from),
        };
        Ok(refusals.into_iter().map(outcome).collect())
    }

    /// The envelope of one event; none when it is unknown, expired or another company's.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn get(&self, company: CompanyId, id: EventId) -> Result<Option<Bytes>, ReadError> {
        self.store.get(company, id)
    }

    /// One page of the log.
    ///
    /// # Errors
    /// See [`PageError`].
    pub fn page(&self, request: &PageRequest) -> Result<EventPage, PageError> {
        let walk = self.begin(request)?;
        let page = self.read(&walk, walk.start)?;
        Ok(self.seal(&walk, page))
    }

    /// One page of the log; when the reader has caught up, waits for the next event, at most `patience` and no longer
    /// than until `stop`.
    ///
    /// # Errors
    /// See [`PageError`].
    pub async fn wait(&self, request: &PageRequest, patience: Duration, stop: &CancellationToken) -> Result<EventPage, PageError> {
        let walk = self.begin(request)?;
        let deadline = Instant::now() + patience;
        let mut tail = self.store.watch_tail();
        tail.borrow_and_update();
        let mut page = self.read(&walk, walk.start)?;
        while page.count == 0 {
            let woken = tokio::select! {
                changed = timeout_at(deadline, tail.changed()) => matches!(changed, Ok(Ok(()))),
                () = stop.cancelled() => false,
            };
            if !woken {
                break;
            }
            tail.borrow_and_update();
            page = self.read(&walk, Start::After(page.position))?;
            if page.count == 0 {
                sleep(PAUSE).await;
            }
        }
        Ok(self.seal(&walk, page))
    }

    fn begin<'a>(&self, request: &'a PageRequest) -> Result<Walk<'a>, PageError> {
        let filter_hash = filter_hash(&request.filter);
        let (start, tail) = match (&request.cursor, request.from, request.direction) {
            (Some(text), _, direction) => {
                let cursor = self.sealer.open(text, &Expected { company: request.company, direction, filter_hash })?;
                (Start::After(cursor.position), Some(cursor.tail))
            }
            (None, Some(Origin::Oldest), _) | (None, None, Direction::Ascending) => (Start::Oldest, None),
            (None, Some(Origin::Latest), _) | (None, None, Direction::Descending) => (Start::Latest, None),
            (None, Some(Origin::Time(time)), _) => (Start::Time(time), None),
        };
        Ok(Walk { request, filter_hash, start, tail })
    }

    fn read(&self, walk: &Walk<'_>, start: Start) -> Result<Page, PageError> {
        let PageRequest { company, filter, direction, limit, .. } = walk.request;
        let query = PageQuery { company: *company, start, direction: *direction, limit: *limit, filter };
        match self.store.page(&query)? {
            PageOutcome::Page(page) => Ok(page),
            PageOutcome::Expired { oldest, lost } => {
                let oldest = self.seal_one(walk, Direction::Ascending, oldest, oldest);
                Err(PageError::Expired { oldest, lost })
            }
        }
    }

    fn seal_one(&self, walk: &Walk<'_>, direction: Direction, position: Position, tail: Position) -> String {
        let (company, filter_hash) = (walk.request.company, walk.filter_hash);
        self.sealer.seal(&Cursor { position, direction, epoch: self.sealer.epoch(), company, filter_hash, tail })
    }

    fn seal(&self, walk: &Walk<'_>, page: Page) -> EventPage {
        let (paging, resume) = match walk.request.direction {
            Direction::Ascending => {
                let resume = Bytes::from(self.seal_one(walk, Direction::Ascending, page.position, page.position));
                (page.more.then(|| resume.clone()), resume)
            }
            Direction::Descending => {
                let tail = walk.tail.unwrap_or(page.tail);
                let paging = page.more.then(|| self.seal_one(walk, Direction::Descending, page.position, tail).into());
                (paging, self.seal_one(walk, Direction::Ascending, tail, tail).into())
            }
        };
        EventPage { parts: page.parts, count: page.count, paging, resume }
    }

    /// The event types of the catalogue.
    pub fn types(&self) -> impl Iterator<Item = &EventTypeEntry> {
        self.catalog.iter()
    }

    /// `count` sample events of a type as JSON text, an array of envelopes.
    ///
    /// # Errors
    /// See [`SampleError`].
    pub fn sample(&self, company: CompanyId, kind: &str, count: u8) -> Result<Bytes, SampleError> {
        let Some(entry) = self.catalog.find(kind) else {
            return Err(SampleError::UnknownType { kind: kind.to_owned(), nearest: self.nearest_type(kind) });
        };
        let sample = sample_text(entry);
        if serde_json::from_str::<IgnoredAny>(sample).is_err() {
            return Err(SampleError::Failed { kind: entry.name.clone() });
        }
        let newest = self.clock.now();
        let mut out = vec![b'['];
        for number in 0..count {
            if number > 0 {
                out.push(b',');
            }
            let id = FIRST_SAMPLE_ID + u64::from(number);
            let created = newest.before(Duration::from_secs(u64::from(count - number)));
            out.extend_from_slice(format!(r#"{{"id":{id},"companyId":{company},"type":""#).as_bytes());
            escape_into(&mut out, &entry.name);
            out.extend_from_slice(format!(r#"","createdUtc":"{created}","payload":""#).as_bytes());
            escape_into(&mut out, sample);
            out.extend_from_slice(br#"","metadata":"{}"}"#);
        }
        out.push(b']');
        Ok(out.into())
    }
}

/// The sample payload of a type, JSON text.
fn sample_text(entry: &EventTypeEntry) -> &str {
    &entry.sample
}
