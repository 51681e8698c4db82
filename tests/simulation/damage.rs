//! Damage behind every checksum: a row of an index that is not what was written.

use lutine::domain::reference::{NewReferences, NewSnapshot};
use lutine::store::disk::{Disk, OpenMode};
use redb::{Builder, ReadableTable, TableDefinition, WriteTransaction};

use crate::stage::{COMPANY, Stage, event};

const TYPES: TableDefinition<(u32, u64, u64), u32> = TableDefinition::new("types/1");
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
    let database = Builder::new().create_with_backend(disk.open("log/1.sealed.redb", OpenMode::ReadWrite).unwrap()).unwrap();
    let transaction = database.begin_write().unwrap();
    change(&transaction);
    transaction.commit().unwrap();
    database.close().unwrap();
    let opened = Stage::open(std::sync::Arc::new(disk), &clock).and_then(|store| Ok(store.verify()?.faults));
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
        let mut types = transaction.open_table(TYPES).unwrap();
        let key = types.first().unwrap().unwrap().0.value();
        types.remove(key).unwrap();
    });
    assert_found("a chunk in the index of types that is not there", |transaction| {
        transaction.open_table(TYPES).unwrap().insert((0, 5, 5), 1).unwrap();
    });
    assert_found("a wrong count in the index of types", |transaction| {
        let mut types = transaction.open_table(TYPES).unwrap();
        let (key, count) = types.last().unwrap().map(|(key, count)| (key.value(), count.value())).unwrap();
        types.insert(key, count + 1).unwrap();
    });
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
