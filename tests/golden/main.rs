//! Stores of every released format must stay readable. `store-1.tar.gz` was written by format 1.
//!
//! The script below made it, and is run anew each time. To pack what it writes (only for a new format, beside the old
//! files): `LUTINE_GOLDEN_OUT=tests/golden/store-2.tar.gz cargo test --test golden`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lutine::domain::clock::Clock;
use lutine::domain::company::{CompanyId, NewCompany};
use lutine::domain::cursor::Direction;
use lutine::domain::event::{EventId, NewEvent};
use lutine::domain::filter::TypeFilter;
use lutine::domain::key::{KeyId, NewKey, RateOverrides};
use lutine::domain::reference::NewReferences;
use lutine::domain::scope::Scope;
use lutine::domain::time::Timestamp;
use lutine::store::disk::DataDirectory;
use lutine::store::faults::Faults;
use lutine::store::{
    Actor, FaultSink, MasterKey, OpenError, PageOutcome, PageQuery, SecretError, Start, StorageFault, Store, StoreOptions,
};
use redb::{Builder, TableDefinition};

const MASTER: [u8; 32] = *b"the master key of golden stores!";
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A clock that stands where it is set, in microseconds.
#[derive(Debug)]
struct StillClock(AtomicU64);

impl Clock for StillClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}

fn clock(text: &str) -> Arc<StillClock> {
    Arc::new(StillClock(AtomicU64::new(text.parse::<Timestamp>().unwrap().as_micros())))
}

fn open_with(root: &Path, clock: Arc<StillClock>, master: [u8; 32]) -> Result<Store, OpenError> {
    let options = StoreOptions {
        retention: DAY * 365,
        segment_bytes_max: 64 * 1024 * 1024,
        segment_age_max: DAY,
        queue_events_max: 1_000,
        queue_bytes_max: 64 * 1024 * 1024,
        metrics: Arc::default(),
    };
    let disk = Arc::new(DataDirectory::open(root).unwrap());
    Store::open(disk, clock, &MasterKey::new(master), options, Faults::default(), FaultSink::new(|_| {}))
}

fn open(root: &Path) -> Store {
    open_with(root, clock("2026-12-01T12:00:00Z"), MASTER).unwrap()
}

/// One event of the script.
struct Line {
    company: u32,
    kind: &'static str,
    version: &'static str,
    payload: String,
    key: Option<&'static str>,
    references: Option<&'static str>,
}

fn line(company: u32, kind: &'static str, payload: impl Into<String>) -> Line {
    Line { company, kind, version: "1", payload: payload.into(), key: None, references: None }
}

/// The events of the store, day by day; each day ends with its segment sealed, but the last.
fn script() -> [Vec<Line>; 3] {
    let references = Some(r#"[{"rel":"claim","href":"https://core.example/claims/4711"}]"#);
    [
        vec![
            Line { key: Some("policy-1"), ..line(1, "policy.bound", r#"{"policyNumber":"P-1","premium":1200.50}"#) },
            Line { references, version: "2.1", ..line(1, "Claim.Created", "{\"text\":\"\\u0000 å 😀 \\\"quoted\\\"\"}") },
            line(2, "claim.created", "{}"),
            line(1, "document.attached", format!("{{\"scan\":\"{}\"}}", "AZ".repeat(30_000))),
            line(1, "lutine.test", "{}"),
        ],
        vec![
            Line { key: Some("policy-1"), ..line(2, "policy.bound", r#"{"policyNumber":"P-1"}"#) },
            line(1, "claim.created", " { \"spaces\" : true } "),
        ],
        vec![Line { key: Some("policy-2"), ..line(1, "policy.bound", r#"{"policyNumber":"P-2"}"#) }, line(2, "claim.closed", "[]")],
    ]
}

fn event(line: &Line) -> NewEvent {
    NewEvent {
        kind: line.kind.parse().unwrap(),
        version: line.version.parse().unwrap(),
        payload: line.payload.clone(),
        metadata: "{\"source\":\"golden\"}".to_owned(),
        dedupe_key: line.key.map(|key| key.parse().unwrap()),
        references: line.references.map(NewReferences::plain),
        occurred_at: line.references.map(|_| "2026-11-01T00:00:00Z".parse().unwrap()),
    }
}

fn wait<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn key_id(number: u8) -> KeyId {
    format!("goldenKey00{number}").parse().unwrap()
}

/// Makes the store below `root`.
fn write(root: &Path) {
    let clock = clock("2026-11-22T10:30:00.123456Z");
    let store = open_with(root, clock.clone(), MASTER).unwrap();
    let actor = Actor { name: "local".to_owned(), request_id: Some("req-1".to_owned()) };
    for (slug, country) in [("acme-insurance", Some("de")), ("nordic-life", None)] {
        let new =
            NewCompany { slug: slug.parse().unwrap(), country: country.map(|country| country.parse().unwrap()), name: slug.to_owned() };
        wait(store.create_company(new, &actor)).unwrap();
    }
    for number in [1, 2] {
        let new = NewKey {
            company: Some(CompanyId(u32::from(number))),
            name: format!("key {number}"),
            scopes: [Scope::EventsRead, Scope::EventsWrite].into_iter().collect(),
            rates: RateOverrides { read: Some(100), write: None, admin: None },
            expires: Some("2027-11-22T00:00:00Z".parse().unwrap()),
            networks: vec!["10.0.0.0/8".parse().unwrap()],
            type_prefixes: vec!["claim.".to_owned()],
        };
        wait(store.create_key(key_id(number), new, [number; 32], &actor)).unwrap();
    }
    wait(store.revoke_key(key_id(2), None, &actor)).unwrap().unwrap();
    for day in script() {
        let appending: Vec<_> =
            day.iter().map(|line| store.append(store.prepare(CompanyId(line.company), &event(line))).unwrap()).collect();
        store.turn().unwrap();
        for appending in appending {
            assert!(!wait(appending).unwrap().duplicate);
        }
        if store.tail().id.0 < 8 {
            clock.0.fetch_add(DAY.as_micros() as u64, Ordering::Relaxed);
            store.turn().unwrap();
            assert!(store.maintain().unwrap());
        }
    }
}

/// Everything that a store made by the script must answer.
fn check(root: &Path) {
    let store = open(root);
    assert_eq!(store.tail().id, EventId(9));
    assert_eq!((store.epoch(), store.status().segments_sealed, store.status().segments_waiting), (1, 2, 0));
    let report = store.verify().unwrap();
    assert_eq!((report.segments, report.events, report.faults), (3, 9, Vec::new()));
    let mut of_company: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for (id, line) in (1..).zip(script().into_iter().flatten()) {
        let (company, id) = (CompanyId(line.company), EventId(id));
        let stored = store.stored_event(company, id).unwrap().unwrap();
        assert_eq!(stored.payload, line.payload);
        assert_eq!(stored.references.as_deref(), line.references);
        assert_eq!(stored.occurred_at, event(&line).occurred_at);
        let envelope: serde_json::Value = serde_json::from_slice(&stored.envelope).unwrap();
        assert_eq!(envelope["id"], id.0);
        assert_eq!(envelope["companyId"], line.company);
        assert_eq!(envelope["type"], line.kind);
        assert_eq!(envelope["payload"], line.payload.as_str());
        assert_eq!(envelope["metadata"], "{\"source\":\"golden\"}");
        let day = if id.0 < 6 { 22 } else { 23 + u64::from(id.0 > 7) };
        assert_eq!(envelope["createdUtc"], format!("2026-11-{day}T10:30:00.123456Z"));
        if !line.kind.starts_with("lutine.") {
            of_company.entry(line.company).or_default().push(id.0);
        }
        if line.key.is_some() {
            let repeated = wait(async {
                let appending = store.append(store.prepare(company, &event(&line))).unwrap();
                store.turn().unwrap();
                appending.await.unwrap()
            });
            assert_eq!((repeated.id, repeated.duplicate), (id, true));
        }
    }
    for (company, ids) in of_company {
        assert_eq!(read(&store, company, &TypeFilter::default()), ids);
    }
    assert_eq!(read(&store, 1, &TypeFilter::parse_list("claim.*").unwrap()), [2, 7]);
    assert_eq!(read(&store, 1, &TypeFilter::parse_list("lutine.*,claim.created@2.1").unwrap()), [2, 5]);
    check_ledger(&store);
}

fn read(store: &Store, company: u32, filter: &TypeFilter) -> Vec<u64> {
    let query = PageQuery { company: CompanyId(company), start: Start::Oldest, direction: Direction::Ascending, limit: 100, filter };
    let PageOutcome::Page(page) = store.page(&query).unwrap() else { return Vec::new() };
    let text = [b"[".as_slice(), &page.parts.concat(), b"]"].concat();
    let events: Vec<serde_json::Value> = serde_json::from_slice(&text).unwrap();
    events.iter().map(|event| event["id"].as_u64().unwrap()).collect()
}

fn check_ledger(store: &Store) {
    let companies: Vec<_> = store.companies().all().iter().map(|company| (company.id.0, company.slug.as_str().to_owned())).collect();
    assert_eq!(companies, [(1, "acme-insurance".to_owned()), (2, "nordic-life".to_owned())]);
    assert_eq!(store.companies().by_slug("acme-insurance").unwrap().country.as_ref().unwrap().as_str(), "de");
    for number in [1, 2] {
        let key = store.keys().by_id(key_id(number)).cloned().unwrap();
        assert_eq!(key.secret_hash, [number; 32]);
        assert_eq!(key.revoked.is_some(), number == 2);
        assert_eq!(key.grant.company, Some(CompanyId(u32::from(number))));
        assert_eq!(key.grant.rates.read, Some(100));
        assert!(key.grant.scopes.allows(Scope::EventsWrite) && !key.grant.scopes.allows(Scope::Admin));
        assert_eq!(key.grant.networks[0].to_string(), "10.0.0.0/8");
        assert_eq!(key.grant.type_prefixes, ["claim."]);
    }
    let acts: Vec<_> = store.audit(None, 10).unwrap().into_iter().map(|row| (row.number, row.act, row.object)).collect();
    let act = |number, act: &str, object: &str| (number, act.to_owned(), object.to_owned());
    assert_eq!(
        acts,
        [
            act(5, "key.revoke", "key:goldenKey002"),
            act(4, "key.create", "key:goldenKey002"),
            act(3, "key.create", "key:goldenKey001"),
            act(2, "company.create", "company:2"),
            act(1, "company.create", "company:1"),
        ]
    );
}

fn tar(arguments: &[&str], folder: &Path) {
    let done = Command::new("tar").args(arguments).current_dir(folder).status().unwrap();
    assert!(done.success());
}

/// The store of format 1, unpacked.
fn unpacked() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/store-1.tar.gz");
    tar(&["-xzf", packed.to_str().unwrap()], folder.path());
    folder
}

fn contents(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let databases = [root.to_owned(), root.join("log")].into_iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    databases
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "redb"))
        .map(|path| (path.display().to_string(), fs::read(&path).unwrap()))
        .collect()
}

#[test]
fn a_store_of_format_1_answers_as_it_did() {
    check(unpacked().path());
}

#[test]
fn what_is_written_today_answers_the_same() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    if let Some(packed) = std::env::var_os("LUTINE_GOLDEN_OUT") {
        let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join(packed);
        tar(&["--sparse", "--exclude=lutine.lock", "-czf", packed.to_str().unwrap(), "ledger.redb", "log"], folder.path());
    }
    check(folder.path());
}

#[test]
fn another_master_key_is_refused_in_words() {
    let folder = unpacked();
    let refused = open_with(folder.path(), clock("2026-12-01T12:00:00Z"), [1; 32]).unwrap_err();
    assert!(matches!(refused, OpenError::Secret(SecretError::Sealed)));
    assert_eq!(refused.to_string(), "the secret cannot be opened: the master key is not the one of this store, or the value was changed");
    // Nothing was made in its place: the right one still opens everything.
    check(folder.path());
}

#[test]
fn a_newer_format_is_refused_in_words_and_nothing_is_changed() {
    let folder = unpacked();
    let database = Builder::new().create(folder.path().join("ledger.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(TableDefinition::<&str, u64>::new("settings")).unwrap().insert("format", 2).unwrap();
    transaction.commit().unwrap();
    database.close().unwrap();
    let before = contents(folder.path());
    let refused = open_with(folder.path(), clock("2026-12-01T12:00:00Z"), MASTER).unwrap_err();
    assert!(matches!(refused, OpenError::Storage(StorageFault::NewerFormat { found: 2, known: 1 })));
    assert_eq!(refused.to_string(), "the store has format 2, this version knows formats up to 1; use the version of Lutine that wrote it");
    assert!(before == contents(folder.path()));
}
