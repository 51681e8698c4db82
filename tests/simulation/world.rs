//! One store on the simulated disk, and the oracle that remembers every promise it made.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use lutine::domain::clock::Clock;
use lutine::domain::company::CompanyId;
use lutine::domain::cursor::{Direction, Position};
use lutine::domain::event::{EventId, EventVersion, NewEvent, Receipt};
use lutine::domain::filter::TypeFilter;
use lutine::domain::key::KeyId;
use lutine::domain::reference::{NewReferences, NewSnapshot};
use lutine::domain::time::Timestamp;
use lutine::store::faults::Faults;
use lutine::store::{AppendError, FaultSink, PageOutcome, PageQuery, ReadError, Start, Store, StoreOptions};

use crate::disk::{Chance, SimDisk, Target};
use crate::stage::{RETENTION, SimClock, actor, company, master, new_key, now_or_never, options};

const KINDS: [&str; 3] = ["claim.created", "policy.bound", "rare.event"];

#[derive(Debug, Clone)]
struct Published {
    company: CompanyId,
    event: NewEvent,
}

pub struct World {
    disk: SimDisk,
    clock: Arc<SimClock>,
    chance: Chance,
    faults: Faults,
    seed: u64,
    published: u64,
    /// Every acknowledged event.
    acknowledged: BTreeMap<EventId, (Published, Timestamp)>,
    /// The first id of every acknowledged dedupe key.
    keys: BTreeMap<(CompanyId, String), EventId>,
    /// Events of the commit that the power loss hit: all of them are there, or none.
    unknown: Vec<Published>,
    /// The greatest id that anybody has seen.
    greatest: u64,
    companies: BTreeSet<String>,
    /// Every key whose creation was acknowledged, and what is known of its revocation.
    api_keys: BTreeMap<KeyId, Revocation>,
    /// The latest time that the log can have taken as now, and the monotonic time then.
    latest: (Timestamp, Duration),
    /// What each power loss hit.
    pub hits: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Revocation {
    Never,
    /// The power went before the answer.
    Perhaps,
    Acknowledged,
}

/// Operations that the power loss waits for in some of the lives, because chance alone hits them rarely.
const TARGETS: [&str; 16] = [
    "sealing: creation of sealing",
    "sealing: sync of sealing",
    "sealing: rename of sealing",
    "sealing: sync of log folder",
    "sealing: sync of ledger",
    "sealing: removal of open",
    "dropping: write to ledger",
    "dropping: sync of ledger",
    "dropping: removal of sealed",
    "dropping: sync of log folder",
    "rotating: sync of ledger",
    "rotating: creation of open",
    "rotating: sync of open",
    "rotating: sync of log folder",
    "committing: sync of open",
    "acting: sync of ledger",
];

impl World {
    pub fn new(seed: u64, faults: Faults) -> Self {
        Self {
            disk: SimDisk::default(),
            clock: Arc::default(),
            chance: Chance::new(seed),
            faults,
            seed,
            published: 0,
            acknowledged: BTreeMap::new(),
            keys: BTreeMap::new(),
            unknown: Vec::new(),
            greatest: 0,
            companies: BTreeSet::new(),
            api_keys: BTreeMap::new(),
            latest: Default::default(),
            hits: BTreeMap::new(),
        }
    }

    fn open(&self) -> Result<Store, String> {
        let options = StoreOptions { segment_bytes_max: 20_000, ..options() };
        let sink = FaultSink::new(|_| {});
        Store::open(Arc::new(self.disk.clone()), self.clock.clone(), &master(), options, self.faults, sink)
            .map_err(|error| error.to_string())
    }

    fn lose_power(&mut self) {
        self.disk.crash_after(0);
        self.disk.power_cycle(&mut self.chance);
        *self.hits.entry(self.disk.take_hit().unwrap_or_else(|| "nothing".to_owned())).or_default() += 1;
    }

    /// The latest time that the log can have taken as now: it follows the wall clock where it believes it, and goes on
    /// with the monotonic one where it does not.
    fn latest(&mut self) -> Timestamp {
        let (before, then) = self.latest;
        let now = self.clock.monotonic();
        self.latest = (before.after(now - then).max(self.clock.now()), now);
        self.latest.0
    }

    /// Opens the store, perhaps through further power losses, checks every promise, and works until the power goes.
    /// Returns the power losses.
    pub fn live_until_power_loss(&mut self) -> Result<u64, String> {
        let is_new = self.disk.names().is_empty();
        let nested = if is_new || self.chance.one_in(3) { 1 + self.chance.below(3) } else { 0 };
        for _ in 0..nested {
            self.disk.enter(if is_new { "creating" } else { "opening" });
            self.disk.crash_after(1 + self.chance.below(60));
            let opened = self.open();
            drop(opened);
            self.lose_power();
        }
        self.disk.never_crash();
        let store = self.open().map_err(|error| format!("cannot be opened: {error}"))?;
        self.check(&store)?;
        if self.chance.one_in(3) {
            let target = TARGETS[self.chance.below(TARGETS.len() as u64) as usize];
            self.disk.crash_at(Target { event: target.to_owned(), passing: self.chance.below(3) });
        } else {
            self.disk.crash_after(1 + self.chance.below(500));
        }
        // A bug that never syncs would never reach the operation at which the power goes.
        for _ in 0..60 {
            if self.step(&store)?.is_none() {
                break;
            }
        }
        self.disk.enter("closing");
        self.disk.crash_after(0);
        drop(store);
        self.lose_power();
        Ok(nested + 1)
    }

    /// One random act; none when the power is gone.
    fn step(&mut self, store: &Store) -> Result<Option<()>, String> {
        self.latest();
        self.clock.advance(Duration::from_micros(self.chance.below(20_000_000)));
        match self.chance.below(13) {
            0..=6 => self.publish(store),
            7 | 8 => {
                self.disk.enter("sealing");
                Ok(store.maintain().ok().map(|_| ()))
            }
            9 => {
                self.disk.enter("dropping");
                Ok(store.drop_expired().ok().map(|_| ()))
            }
            10 | 11 => {
                self.disk.enter("acting");
                self.act(store);
                Ok((!self.disk.is_dead()).then_some(()))
            }
            _ => {
                self.clock.advance(Duration::from_secs(600));
                if self.chance.one_in(6) {
                    self.clock.step(i64::try_from(self.chance.below(7_200)).unwrap() - 5_400);
                }
                Ok(Some(()))
            }
        }
    }

    /// Something that only the ledger knows.
    fn act(&mut self, store: &Store) {
        match self.chance.below(3) {
            0 => {
                let slug = format!("company-{}", self.companies.len());
                if let Some(Ok(_)) = now_or_never(store.create_company(company(&slug), &actor())) {
                    self.companies.insert(slug);
                }
            }
            1 => {
                let id: KeyId = format!("{:012}", self.chance.below(1_000_000_000)).parse().unwrap();
                if let Some(Ok(_)) = now_or_never(store.create_key(id, new_key("a key"), [7; 32], &actor())) {
                    self.api_keys.insert(id, Revocation::Never);
                }
            }
            _ => {
                let place = self.chance.below(self.api_keys.len() as u64 + 1) as usize;
                let Some((id, revocation)) = self.api_keys.iter_mut().nth(place) else { return };
                match now_or_never(store.revoke_key(*id, None, &actor())) {
                    Some(Ok(Some(_))) => *revocation = Revocation::Acknowledged,
                    _ if *revocation == Revocation::Never => *revocation = Revocation::Perhaps,
                    _ => {}
                }
            }
        }
    }

    /// What was acknowledged of the ledger's acts, and that nothing else was done.
    fn check_ledger(&self, store: &Store) -> Result<(), String> {
        let companies = store.companies();
        if let Some(slug) = self.companies.iter().find(|slug| companies.by_slug(slug).is_none()) {
            return Err(format!("the company {slug} is lost"));
        }
        let keys = store.keys();
        let mut acts = self.companies.len();
        for (id, revocation) in &self.api_keys {
            let key = keys.by_id(*id).ok_or_else(|| format!("the key {id} is lost"))?;
            acts += 1 + usize::from(*revocation == Revocation::Acknowledged);
            match (revocation, key.revoked.is_some()) {
                (Revocation::Acknowledged, false) => return Err(format!("the revocation of the key {id} is lost")),
                (Revocation::Never, true) => return Err(format!("nobody revoked the key {id}")),
                _ => {}
            }
        }
        let audit = store.audit(None, usize::MAX).map_err(|error| error.to_string())?;
        let is_whole = audit.iter().rev().zip(1..).all(|(row, number)| row.number == number);
        if is_whole && audit.len() >= acts { Ok(()) } else { Err(format!("{} rows of the audit log for {acts} acts", audit.len())) }
    }

    fn next_event(&mut self) -> Published {
        self.published += 1;
        let length = if self.chance.one_in(20) { 20_000 + self.chance.below(60_000) } else { self.chance.below(900) };
        let alphabet = ["abcdefghij", "klmnopqrst", "uvwxyzabcd"][(self.published % 3) as usize];
        let filler = alphabet.repeat(length as usize / 10 + 1);
        let mut payload = format!("{{\"n\":{},\"text\":\"{filler}\"}}", self.published);
        let mut dedupe_key = None;
        if self.chance.one_in(2) {
            let key = self.chance.below(200);
            dedupe_key = Some(format!("key-{key}").parse().unwrap());
            payload = format!("{{\"key\":{key}}}");
        }
        // Snapshots belong to the content, and so to the key.
        let references = payload.len().is_multiple_of(4).then(|| references(&payload));
        let event = NewEvent {
            kind: KINDS[self.chance.below(3) as usize].parse().unwrap(),
            version: EventVersion::default(),
            payload,
            metadata: "{}".to_owned(),
            dedupe_key,
            references,
            occurred_at: None,
        };
        // The content belongs to the key, so that a repeat is a duplicate and never a conflict.
        let kind = if event.dedupe_key.is_some() { "claim.created".parse().unwrap() } else { event.kind };
        Published { company: CompanyId(1 + self.chance.below(3) as u32), event: NewEvent { kind, ..event } }
    }

    fn publish(&mut self, store: &Store) -> Result<Option<()>, String> {
        let count = 1 + self.chance.below(6);
        let batch: Vec<Published> = (0..count).map(|_| self.next_event()).collect();
        let mut waiting = Vec::new();
        for published in &batch {
            match store.append(store.prepare(published.company, &published.event)) {
                Ok(appending) => waiting.push((published.clone(), Box::pin(appending))),
                Err(AppendError::Overloaded { .. }) => return Ok(store.maintain().ok().map(|_| ())),
                Err(_) => return Ok(None),
            }
        }
        self.disk.enter("committing");
        let outcome = store.turn();
        let mut unanswered = Vec::new();
        for (published, appending) in waiting {
            match now_or_never(appending) {
                Some(Ok(receipt)) => self.remember(published, receipt)?,
                Some(Err(AppendError::DedupeConflict { .. })) => return Err("a conflict although the content is the same".to_owned()),
                Some(Err(_)) | None => unanswered.push(published),
            }
        }
        if outcome.is_ok() {
            return if unanswered.is_empty() { Ok(Some(())) } else { Err("a commit without an answer".to_owned()) };
        }
        self.unknown = unanswered;
        Ok(None)
    }

    fn remember(&mut self, published: Published, receipt: Receipt) -> Result<(), String> {
        let key = published.event.dedupe_key.as_ref().map(|key| (published.company, key.as_str().to_owned()));
        let latest = self.latest();
        let live = |created: Timestamp| latest.since(created) < RETENTION;
        if let Some(key) = &key
            && let Some(first) = self.keys.get(key)
            && *first != receipt.id
            && self.acknowledged.get(first).is_some_and(|(_, created)| live(*created))
        {
            return Err(format!("the key {key:?} stands for event {first} and for event {}", receipt.id));
        }
        if receipt.duplicate {
            // The first event was stored by a commit whose answer was lost.
            self.acknowledged.entry(receipt.id).or_insert((published, receipt.created));
        } else {
            if receipt.id.0 <= self.greatest {
                return Err(format!("the id {} was given again", receipt.id));
            }
            self.greatest = receipt.id.0;
            self.acknowledged.insert(receipt.id, (published, receipt.created));
        }
        if let Some(key) = key {
            self.keys.insert(key, receipt.id);
        }
        Ok(())
    }

    /// Every promise, after a start.
    fn check(&mut self, store: &Store) -> Result<(), String> {
        let report = store.verify().map_err(|error| error.to_string())?;
        if !report.faults.is_empty() {
            return Err(report.faults.join("; "));
        }
        let cutoff = self.latest().before(RETENTION);
        let mut present: BTreeMap<EventId, (CompanyId, String)> = BTreeMap::new();
        let mut times: BTreeMap<EventId, Timestamp> = BTreeMap::new();
        for company in (1..=3).map(CompanyId) {
            let mut last = 0;
            for envelope in read_all(store, company, Start::Oldest, "").map_err(|error| error.to_string())? {
                let id = envelope["id"].as_u64().unwrap();
                if id <= last {
                    return Err(format!("event {id} is listed after event {last}"));
                }
                last = id;
                times.insert(EventId(id), envelope["createdUtc"].as_str().unwrap().parse().unwrap());
                present.insert(EventId(id), (company, envelope["payload"].as_str().unwrap().to_owned()));
            }
        }
        for (id, (published, created)) in &self.acknowledged {
            let found = present.get(id);
            if found.is_none() && *created >= cutoff {
                let (tail, latest, first) = (store.tail(), self.latest.0, present.keys().next());
                return Err(format!(
                    "the acknowledged event {id} of {created} is lost; {tail:?}, {latest} at the latest, {first:?} is there"
                ));
            }
            if times.get(id).is_some_and(|time| time != created) {
                return Err(format!("event {id} of {created} is listed with another time"));
            }
            if found.is_some_and(|(company, payload)| *company != published.company || *payload != published.event.payload) {
                return Err(format!("event {id} is not what was published"));
            }
            if found.is_some() && !has_its_snapshot(store, *id, published).map_err(|error| error.to_string())? {
                return Err(format!("the snapshot of event {id} is not what was published with it"));
            }
        }
        // Of the commit that the power loss hit all events are there, or none.
        let strangers: Vec<_> = present.iter().filter(|(id, _)| !self.acknowledged.contains_key(id)).collect();
        let unknown = std::mem::take(&mut self.unknown);
        let matching = |published: &Published| {
            strangers.iter().any(|(_, (company, payload))| *company == published.company && *payload == published.event.payload)
        };
        // An event whose key was known before leaves nothing behind by itself.
        let own: Vec<&Published> = unknown.iter().filter(|published| published.event.dedupe_key.is_none()).collect();
        let found = own.iter().filter(|published| matching(published)).count();
        if found != 0 && found != own.len() {
            return Err(format!("{found} of {} events of one commit are there", own.len()));
        }
        for (id, (company, payload)) in strangers {
            if !unknown.iter().any(|published| published.company == *company && published.event.payload == *payload) {
                return Err(format!("event {id} was never published"));
            }
            let published = unknown.iter().find(|published| published.event.payload == *payload && published.company == *company).unwrap();
            self.greatest = self.greatest.max(id.0);
            if let Some(key) = &published.event.dedupe_key {
                self.keys.insert((*company, key.as_str().to_owned()), *id);
            }
            self.acknowledged.insert(*id, (published.clone(), times[id]));
        }
        self.check_keys(store)?;
        self.check_ledger(store)
    }

    /// A few known keys must still stand for their first events.
    fn check_keys(&mut self, store: &Store) -> Result<(), String> {
        let keys: Vec<_> = self.keys.iter().map(|(key, id)| (key.clone(), *id)).collect();
        for ((company, key), id) in keys {
            let Some((published, created)) = self.acknowledged.get(&id).cloned() else { continue };
            if self.latest().since(created) + Duration::from_secs(60) >= RETENTION || !self.chance.one_in(4) {
                continue;
            }
            let appending = match store.append(store.prepare(company, &published.event)) {
                Ok(appending) => appending,
                Err(AppendError::Overloaded { .. }) => return Ok(()),
                Err(error) => return Err(error.to_string()),
            };
            store.turn().map_err(|error| error.to_string())?;
            match now_or_never(appending) {
                Some(Ok(receipt)) if receipt.id == id && receipt.duplicate => {}
                other => return Err(format!("the key {key} of event {id} now gives {other:?}")),
            }
        }
        Ok(())
    }

    /// A store with a few sealed segments, closed properly.
    pub fn sealed(seed: u64) -> Self {
        let mut world = Self::new(seed, Faults::default());
        world.disk.never_crash();
        let store = world.open().unwrap();
        for _ in 0..40 {
            world.clock.advance(Duration::from_micros(1_000_000));
            world.publish(&store).unwrap().unwrap();
            store.maintain().unwrap();
        }
        drop(store);
        world
    }

    /// Whether every dedupe key still stands for its event.
    fn knows_its_keys(&self, store: &Store, company: CompanyId) -> Result<bool, String> {
        for (key, id) in self.keys.iter().filter(|(key, _)| key.0 == company) {
            let (published, _) = &self.acknowledged[id];
            let Ok(mut appending) = store.append(store.prepare(company, &published.event)) else { return Ok(false) };
            store.turn().map_err(|error| error.to_string())?;
            match now_or_never(&mut appending) {
                Some(Ok(receipt)) if receipt.duplicate && receipt.id != *id => {
                    return Err(format!("the key {key:?} of event {id} was answered with event {}", receipt.id));
                }
                Some(Ok(receipt)) if receipt.duplicate => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Changes one bit of a file of the log, then reads everything. True when it was noticed; an error when wrong bytes were
    /// served.
    pub fn flip_and_read(&self, seed: u64) -> Result<bool, String> {
        let mut chance = Chance::new(seed ^ 0xf11b);
        let files: Vec<String> = self.disk.names().into_iter().filter(|name| name.starts_with("log/")).collect();
        let name = &files[chance.below(files.len() as u64) as usize];
        self.disk.flip(name, chance.next());
        // redb may refuse, or panic on, a damaged page of its own; both are noticed, neither serves anything.
        let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| -> Result<bool, String> {
            let Ok(store) = self.open() else { return Ok(true) };
            for company in (1..=3).map(CompanyId) {
                let listed = match read_all(&store, company, Start::Oldest, "") {
                    Ok(listed) => listed,
                    Err(_) => return Ok(true),
                };
                let mut count = 0;
                for envelope in listed {
                    let id = EventId(envelope["id"].as_u64().unwrap());
                    let right = self.acknowledged.get(&id).is_some_and(|(published, _)| {
                        published.company == company && published.event.payload == envelope["payload"].as_str().unwrap()
                    });
                    if !right {
                        return Err(format!("seed {}: event {id} was served with wrong bytes", self.seed));
                    }
                    let (published, _) = &self.acknowledged[&id];
                    match has_its_snapshot(&store, id, published) {
                        Ok(true) => {}
                        Ok(false) => return Err(format!("seed {}: a wrong snapshot of event {id} was served", self.seed)),
                        Err(_) => return Ok(true),
                    }
                    count += 1;
                }
                let expected = self.acknowledged.values().filter(|(published, _)| published.company == company).count();
                let of_kind = |kind: &str| {
                    let is_one = |published: &Published| published.company == company && published.event.kind.as_str() == kind;
                    self.acknowledged.values().filter(|(published, _)| is_one(published)).count()
                };
                let mut typed_right = true;
                for kind in KINDS {
                    match read_all(&store, company, Start::Oldest, kind) {
                        Ok(listed) => typed_right &= listed.len() == of_kind(kind) && listed.iter().all(|event| event["type"] == kind),
                        Err(_) => return Ok(true),
                    }
                }
                // Events or keys that are not found because an index is damaged: `verify` must say so.
                if (count != expected || !typed_right || !self.knows_its_keys(&store, company)?)
                    && store.verify().is_ok_and(|report| report.faults.is_empty())
                {
                    return Err(format!("company {company}: {count} of {expected} events, or a key, without a word from verify"));
                }
            }
            Ok(store.verify().map_or(true, |report| !report.faults.is_empty()))
        }));
        read.unwrap_or(Ok(true))
    }
}

/// A reference with a snapshot that follows from the payload; a few are longer than one row.
fn references(payload: &str) -> NewReferences {
    let body = payload.repeat(if payload.len() > 40_000 { 8 } else { 1 });
    let snapshot = NewSnapshot { reference: 0, content_type: "text/plain".parse().unwrap(), body: body.into() };
    NewReferences { text: "[{}]".to_owned(), snapshots: vec![snapshot] }
}

/// Whether the store has the snapshot that was published with an event, or none when none was.
fn has_its_snapshot(store: &Store, id: EventId, published: &Published) -> Result<bool, ReadError> {
    let expected = published.event.references.as_ref().map(|references| references.snapshots[0].body.clone());
    Ok(store.snapshot(published.company, id, 0)?.map(|snapshot| snapshot.body) == expected)
}

fn read_all(store: &Store, company: CompanyId, start: Start, filter: &str) -> Result<Vec<serde_json::Value>, ReadError> {
    let filter = if filter.is_empty() { TypeFilter::default() } else { TypeFilter::parse_list(filter).unwrap() };
    let mut start = start;
    let mut all = Vec::new();
    loop {
        let query = PageQuery { company, start, direction: Direction::Ascending, limit: 7, filter: &filter };
        let PageOutcome::Page(page) = store.page(&query)? else { return Ok(all) };
        let text: Vec<u8> = [b"[".as_slice(), &page.parts.concat(), b"]"].concat();
        let events: Vec<serde_json::Value> = serde_json::from_slice(&text).map_err(|error| ReadError::Storage(error.to_string()))?;
        assert_eq!(events.len(), page.count);
        all.extend(events);
        if !page.more {
            return Ok(all);
        }
        let position: Position = page.position;
        start = Start::After(position);
    }
}
