//! A store on the simulated disk that a test drives by hand: every commit, sealing and tick of the clock is its own.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use lutine::catalog::Catalog;
use lutine::domain::clock::Clock;
use lutine::domain::company::{CompanyId, NewCompany};
use lutine::domain::cursor::{Direction, Position};
use lutine::domain::event::{EventVersion, NewEvent, Receipt};
use lutine::domain::filter::TypeFilter;
use lutine::domain::key::{Grant, RateOverrides};
use lutine::domain::notification::NotificationKey;
use lutine::domain::scope::Scope;
use lutine::domain::time::Timestamp;
use lutine::store::disk::Disk;
use lutine::store::faults::Faults;
use lutine::store::{Actor, AppendError, FaultSink, MasterKey, OpenError, Page, PageOutcome, PageQuery, Start, Store, StoreOptions};
use lutine::webhook::{Origin, Origins};

use crate::disk::SimDisk;

pub const RETENTION: Duration = Duration::from_secs(3600);
/// A segment that is older is closed.
pub const SEGMENT_AGE: Duration = Duration::from_secs(600);
pub const COMPANY: CompanyId = CompanyId(1);

const SECOND: u64 = 1_000_000;

/// What no attempt of a simulation looks at: where webhooks come from.
pub fn origins() -> Origins {
    static CATALOG: LazyLock<Arc<Catalog>> =
        LazyLock::new(|| Arc::new(Catalog::load(None, false, lutine::catalog::Validation::Off).unwrap()));
    Origins::new(|company| Origin {
        public_url: "https://events.example".into(),
        slug: "acme".to_owned(),
        notification_key: NotificationKey::derive(&[1; 32], company),
        catalog: CATALOG.clone(),
        rsa: None,
    })
}

/// A clock that only the test moves.
#[derive(Debug)]
pub struct SimClock {
    /// Microseconds of the monotonic clock.
    monotonic: AtomicU64,
    /// How far the wall clock is ahead of it, in microseconds.
    ahead: AtomicU64,
}

impl Default for SimClock {
    fn default() -> Self {
        Self { monotonic: AtomicU64::new(100_000 * SECOND), ahead: AtomicU64::new(1_790_000_000 * SECOND) }
    }
}

impl SimClock {
    pub fn advance(&self, span: Duration) {
        self.monotonic.fetch_add(u64::try_from(span.as_micros()).unwrap(), Ordering::Relaxed);
    }

    /// Sets the wall clock ahead or back.
    pub fn step(&self, seconds: i64) {
        let span = seconds.unsigned_abs() * SECOND;
        if seconds < 0 {
            self.ahead.fetch_sub(span, Ordering::Relaxed)
        } else {
            self.ahead.fetch_add(span, Ordering::Relaxed)
        };
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.monotonic.load(Ordering::Relaxed) + self.ahead.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.monotonic.load(Ordering::Relaxed))
    }
}

/// The value of a future that is done at its first poll.
pub fn now_or_never<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

pub fn options() -> StoreOptions {
    StoreOptions {
        retention: RETENTION,
        segment_bytes_max: 64 * 1024 * 1024,
        segment_age_max: SEGMENT_AGE,
        queue_events_max: 1000,
        queue_bytes_max: 10_000_000,
        metrics: Arc::default(),
    }
}

pub fn master() -> MasterKey {
    MasterKey::new([9; 32])
}

pub fn event(kind: &str, payload: &str, key: Option<&str>) -> NewEvent {
    NewEvent {
        kind: kind.parse().unwrap(),
        version: EventVersion::default(),
        payload: payload.to_owned(),
        metadata: "{}".to_owned(),
        dedupe_key: key.map(|key| key.parse().unwrap()),
        references: None,
        occurred_at: None,
    }
}

pub fn company(slug: &str) -> NewCompany {
    NewCompany { slug: slug.parse().unwrap(), country: None, name: slug.to_owned() }
}

pub fn actor() -> Actor {
    Actor { name: "local".to_owned(), request_id: None }
}

pub fn new_key(name: &str) -> Grant {
    Grant {
        company: None,
        name: name.to_owned(),
        scopes: [Scope::EventsRead].into_iter().collect(),
        rates: RateOverrides::default(),
        expires: None,
        networks: Vec::new(),
        type_prefixes: Vec::new(),
    }
}

pub struct Stage {
    pub disk: SimDisk,
    pub clock: Arc<SimClock>,
    pub store: Store,
}

impl Stage {
    pub fn new() -> Self {
        let disk = SimDisk::default();
        disk.never_crash();
        let clock = Arc::new(SimClock::default());
        let store = Self::open(Arc::new(disk.clone()), &clock).unwrap();
        Self { disk, clock, store }
    }

    pub fn open(disk: Arc<dyn Disk>, clock: &Arc<SimClock>) -> Result<Store, OpenError> {
        Store::open(disk, Arc::clone(clock) as Arc<dyn Clock>, &master(), options(), Faults::default(), FaultSink::new(|_| {}))
    }

    /// Closes the store and opens it again.
    pub fn reopen(self) -> Result<Self, OpenError> {
        let Self { disk, clock, store } = self;
        drop(store);
        let store = Self::open(Arc::new(disk.clone()), &clock)?;
        Ok(Self { disk, clock, store })
    }

    /// Publishes events in one commit.
    pub fn publish_all(&self, events: &[(CompanyId, NewEvent)]) -> Vec<Result<Receipt, AppendError>> {
        let appending: Vec<_> = events.iter().map(|(company, event)| self.store.append(self.store.prepare(*company, event))).collect();
        self.store.turn().unwrap();
        appending.into_iter().map(|appending| now_or_never(appending?).unwrap()).collect()
    }

    pub fn publish(&self, kind: &str, payload: &str, key: Option<&str>) -> Result<Receipt, AppendError> {
        self.publish_all(&[(COMPANY, event(kind, payload, key))]).remove(0)
    }

    /// Closes the open segment by letting it grow old.
    pub fn rotate(&self) {
        self.clock.advance(SEGMENT_AGE);
        self.store.turn().unwrap();
    }

    /// Closes the open segment, and seals all that wait.
    pub fn seal(&self) {
        self.rotate();
        while self.store.maintain().unwrap() {}
    }

    pub fn page(&self, company: CompanyId, start: Start, direction: Direction, limit: usize, filter: &str) -> PageOutcome {
        let filter = if filter.is_empty() { TypeFilter::default() } else { TypeFilter::parse_list(filter).unwrap() };
        self.store.page(&PageQuery { company, start, direction, limit, filter: &filter }).unwrap()
    }

    /// The ids of everything that a reader gets who pages from `start` with pages of `limit`.
    pub fn read(&self, start: Start, direction: Direction, limit: usize, filter: &str) -> Vec<u64> {
        let mut ids = Vec::new();
        let mut start = start;
        loop {
            let PageOutcome::Page(page) = self.page(COMPANY, start, direction, limit, filter) else { panic!("the cursor has expired") };
            ids.extend(ids_of(&page));
            if !page.more {
                return ids;
            }
            assert_eq!(page.count, limit, "a page with more behind it is full");
            start = Start::After(page.position);
        }
    }

    pub fn read_up(&self, limit: usize, filter: &str) -> Vec<u64> {
        self.read(Start::Oldest, Direction::Ascending, limit, filter)
    }
}

/// The ids of a page's events, read from its text.
pub fn ids_of(page: &Page) -> Vec<u64> {
    let text: Vec<u8> = [b"[".as_slice(), &page.parts.concat(), b"]"].concat();
    let events: Vec<serde_json::Value> = serde_json::from_slice(&text).unwrap();
    assert_eq!(events.len(), page.count);
    events.iter().map(|event| event["id"].as_u64().unwrap()).collect()
}

pub fn after(receipt: &Receipt) -> Start {
    Start::After(Position { created: receipt.created, id: receipt.id })
}
