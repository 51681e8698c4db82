//! Damage that the file's own checksums know nothing of: a row that is not what was written.

use std::sync::Arc;
use std::time::Duration;

use lutine::delivery::PermitLimits;
use lutine::delivery::core::Core;
use lutine::domain::clock::Clock;
use lutine::domain::company::CompanyId;
use lutine::domain::cursor::Position;
use lutine::domain::reference::{NewReferences, NewSnapshot};
use lutine::domain::subscription::{Secret, SubscriptionId, Wishes};
use lutine::store::disk::{Disk, OpenMode};
use lutine::store::faults::Faults;
use lutine::store::sealed_database;
use lutine::telemetry::metrics::Metrics;
use redb::{Builder, ReadableTable, StorageBackend, TableDefinition, WriteTransaction};

use crate::sending::wishes;
use crate::stage::{COMPANY, Stage, actor, company, event, now_or_never, origins};

const CHUNKS: TableDefinition<(u64, u64), (u64, u32, u32, u32)> = TableDefinition::new("chunks/1");
const KINDS: TableDefinition<(u32, u64, u64), (u32, u64)> = TableDefinition::new("kinds/1");
const IDS: TableDefinition<u64, u64> = TableDefinition::new("ids/1");
const DEDUPE: TableDefinition<u128, (u64, u64, u64, u32)> = TableDefinition::new("dedupe");
const NAMES: TableDefinition<u32, &[u8]> = TableDefinition::new("names");
const SNAPSHOTS: TableDefinition<(u64, u32, u32), &[u8]> = TableDefinition::new("snapshots");
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");

/// What the store finds wrong after its only sealed segment was changed behind its back.
fn faults_after(change: impl FnOnce(&WriteTransaction)) -> Vec<String> {
    let stage = Stage::new();
    for number in 0..30 {
        let kind = ["claim.created", "policy.bound"][number % 2];
        let key = format!("key-{number}");
        let mut event = event(kind, &format!("\"{}\"", "x".repeat(2_000)), Some(&key));
        if number % 7 == 6 {
            let body = format!("snapshot {number:02}").into();
            let snapshot = NewSnapshot { reference: 0, content_type: "text/plain".parse().unwrap(), body };
            event.references = Some(NewReferences { text: "[{}]".to_owned(), snapshots: vec![snapshot] });
        }
        stage.publish_all(&[(COMPANY, event)]).remove(0).unwrap();
    }
    stage.seal();
    assert_eq!(stage.store.verify().unwrap().faults, [""; 0]);
    let Stage { disk, clock, store } = stage;
    drop(store);
    let storage = sealed_database(disk.open("log/1.sealed.redb", OpenMode::ReadWrite).unwrap()).unwrap();
    let database = Builder::new().create_with_backend(storage).unwrap();
    let transaction = database.begin_write().unwrap();
    change(&transaction);
    transaction.commit().unwrap();
    database.close().unwrap();
    let opened = Stage::open(Arc::new(disk), &clock).and_then(|store| Ok(store.verify()?.faults));
    opened.unwrap_or_else(|error| vec![error.to_string()])
}

fn assert_found(what: &str, change: impl FnOnce(&WriteTransaction)) {
    let faults = faults_after(change);
    assert!(!faults.is_empty(), "nobody noticed: {what}");
    println!("{what}: {}", faults[0]);
}

#[test]
fn verify_finds_a_wrong_row_in_every_index_of_a_sealed_segment() {
    assert_eq!(faults_after(|_| {}), [""; 0]);
    assert_found("a chunk that the index of types does not know", |transaction| {
        let mut kinds = transaction.open_table(KINDS).unwrap();
        let key = kinds.first().unwrap().unwrap().0.value();
        kinds.remove(key).unwrap();
    });
    assert_found("a chunk in the index of types that is not there", |transaction| {
        transaction.open_table(KINDS).unwrap().insert((0, 5, 5), (1, 5)).unwrap();
    });
    assert_found("a wrong count in the index of types", |transaction| {
        let mut kinds = transaction.open_table(KINDS).unwrap();
        let (key, row) = kinds.last().unwrap().map(|(key, row)| (key.value(), row.value())).unwrap();
        kinds.insert(key, (row.0 + 1, row.1)).unwrap();
    });
    assert_found("a wrong last event in the index of types", |transaction| {
        let mut kinds = transaction.open_table(KINDS).unwrap();
        let (key, row) = kinds.last().unwrap().map(|(key, row)| (key.value(), row.value())).unwrap();
        kinds.insert(key, (row.0, row.1 - 1)).unwrap();
    });
    for (what, change) in [
        ("a chunk that the index of chunks does not know", None),
        ("a chunk in the place of another", Some((8_000, 0, 0, 0))),
        ("a chunk far behind the end of the file", Some((u64::MAX - 1, 0, 0, 0))),
        ("a wrong length of a chunk", Some((0, u32::MAX / 2, 0, 0))),
        ("a wrong number of events", Some((0, 0, 1, 0))),
        ("a wrong number of published events", Some((0, 0, 0, 1))),
    ] {
        assert_found(what, |transaction| {
            let mut chunks = transaction.open_table(CHUNKS).unwrap();
            let (key, row) = chunks.first().unwrap().map(|(key, row)| (key.value(), row.value())).unwrap();
            chunks.remove(key).unwrap();
            if let Some(more) = change {
                chunks.insert(key, (row.0.saturating_add(more.0), row.1 + more.1, row.2 + more.2, row.3 + more.3)).unwrap();
            }
        });
    }
    assert_found("a chunk that the index of ids does not know", |transaction| {
        let mut ids = transaction.open_table(IDS).unwrap();
        let id = ids.last().unwrap().unwrap().0.value();
        ids.remove(id).unwrap();
    });
    assert_found("a dedupe key that is gone", |transaction| {
        let mut dedupe = transaction.open_table(DEDUPE).unwrap();
        let hash = dedupe.first().unwrap().unwrap().0.value();
        dedupe.remove(hash).unwrap();
    });
    assert_found("a dedupe key that leads to another event", |transaction| {
        let mut dedupe = transaction.open_table(DEDUPE).unwrap();
        let (hash, row) = dedupe.first().unwrap().map(|(hash, row)| (hash.value(), row.value())).unwrap();
        dedupe.insert(hash, (row.0 % 30 + 1, row.1, row.2, row.3)).unwrap();
    });
    assert_found("a dedupe key under another hash", |transaction| {
        let mut dedupe = transaction.open_table(DEDUPE).unwrap();
        let (hash, row) = dedupe.first().unwrap().map(|(hash, row)| (hash.value(), row.value())).unwrap();
        dedupe.remove(hash).unwrap();
        dedupe.insert(hash ^ 1, row).unwrap();
    });
    assert_found("another name for a type", |transaction| {
        transaction.open_table(NAMES).unwrap().insert(0, b"claim.closed\x001".as_slice()).unwrap();
    });
    assert_found("another version of a type", |transaction| {
        transaction.open_table(NAMES).unwrap().insert(0, b"claim.created\x002".as_slice()).unwrap();
    });
    assert_found("a number of a type that is out of all proportion", |transaction| {
        transaction.open_table(NAMES).unwrap().insert(u32::MAX, b"claim.created\x001".as_slice()).unwrap();
    });
    assert_found("a snapshot that is gone", |transaction| {
        transaction.open_table(SNAPSHOTS).unwrap().remove((7, 0, 0)).unwrap();
    });
    assert_found("a snapshot that no event has", |transaction| {
        transaction.open_table(SNAPSHOTS).unwrap().insert((8, 0, 0), b"x".as_slice()).unwrap();
    });
    assert_found("the snapshot of another event", |transaction| {
        let mut snapshots = transaction.open_table(SNAPSHOTS).unwrap();
        let other = snapshots.get((14, 0, 0)).unwrap().unwrap().value().to_vec();
        snapshots.insert((7, 0, 0), other.as_slice()).unwrap();
    });
    assert_found("a snapshot with another byte", |transaction| {
        let mut snapshots = transaction.open_table(SNAPSHOTS).unwrap();
        let mut row = snapshots.get((7, 0, 0)).unwrap().unwrap().value().to_vec();
        *row.last_mut().unwrap() ^= 1;
        snapshots.insert((7, 0, 0), row.as_slice()).unwrap();
    });
    assert_found("an empty filter", |transaction| {
        let mut meta = transaction.open_table(META).unwrap();
        let length = meta.get("filter").unwrap().unwrap().value().len();
        meta.insert("filter", vec![0; length].as_slice()).unwrap();
    });
}

#[test]
fn a_chunk_that_cannot_be_read_stops_nobody_but_those_who_are_owed_it() {
    let stage = Stage::new();
    let other = CompanyId(COMPANY.0 + 1);
    for slug in ["acme", "bolt"] {
        now_or_never(stage.store.create_company(company(slug), &actor())).unwrap().unwrap();
    }
    // Whoever has its turn before or behind the one that cannot be read for.
    for owner in [COMPANY, other, COMPANY] {
        let wishes = Wishes { max_in_flight: 2, ..wishes() };
        now_or_never(stage.store.create_subscription(owner, wishes, Secret([7; 32]), Position::START, &actor())).unwrap().unwrap();
    }
    for owner in [COMPANY, other] {
        stage.publish_all(&[(owner, event("claim.created", "{}", None))]).remove(0).unwrap();
    }
    stage.seal();
    let Stage { disk, clock, store } = stage;
    drop(store);
    let file = disk.open("log/1.sealed.redb", OpenMode::ReadWrite).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read(0, &mut bytes).unwrap();
    let mark = format!("\"companyId\":{other}");
    let place = bytes.windows(mark.len()).position(|window| window == mark.as_bytes()).unwrap();
    file.write(place as u64, b"'").unwrap();
    file.sync_data().unwrap();
    drop(file);

    let store = Stage::open(Arc::new(disk), &clock).unwrap();
    let limits = PermitLimits { all: 8, per_host: 8 };
    let mut core = Core::new(store.clone(), limits, origins(), Metrics::new().delivery, Faults::default(), clock.now()).unwrap();
    let starts = core.step(clock.now()).unwrap();
    let subscriptions: Vec<u32> = starts.iter().map(|start| start.delivery.subscription.0).collect();
    assert_eq!(subscriptions, [1, 3], "the attempts of the others start");
    assert_eq!(core.in_flight(), 2);
    // It is tried again, and again nobody else minds.
    clock.advance(Duration::from_secs(2));
    store.append(store.prepare(COMPANY, &event("claim.created", "{}", None))).map(drop).unwrap();
    store.turn().unwrap();
    assert_eq!(core.step(clock.now()).unwrap().len(), 2);
    let status = core.status(SubscriptionId(2)).unwrap();
    assert_eq!((status.position, status.in_flight), (Position::START, 0), "what cannot be read is still owed");
}
