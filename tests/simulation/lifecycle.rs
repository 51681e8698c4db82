//! The life of files: opening what is not right, dropping what has expired.

use std::time::Duration;

use lutine::domain::cursor::Direction;
use lutine::store::{OpenError, PageOutcome, Start, StorageFault};
use redb::{Builder, Database, ReadableTable, TableDefinition};

use crate::stage::{COMPANY, RETENTION, SEGMENT_AGE, Stage, event};

const FILES: TableDefinition<u64, &[u8]> = TableDefinition::new("files");
const SETTINGS: TableDefinition<&str, u64> = TableDefinition::new("settings");

fn publish(stage: &Stage) -> u64 {
    stage.publish("claim.created", "{}", None).unwrap().id.0
}

/// Opens a file behind the store's back.
fn edit(stage: &Stage, name: &str, change: impl FnOnce(&Database)) {
    let storage = lutine::store::disk::Disk::open(&stage.disk, name, lutine::store::disk::OpenMode::ReadWrite).unwrap();
    let database = Builder::new().create_with_backend(storage).unwrap();
    change(&database);
    database.close().unwrap();
}

/// Closes the store, changes its files, and says how the next start ends.
fn start_after(stage: Stage, change: impl FnOnce(&Stage)) -> (Result<(), OpenError>, Stage) {
    let Stage { disk, clock, store } = stage;
    drop(store);
    let closed = Stage { store: Stage::new().store, disk, clock };
    change(&closed);
    let opened = Stage::open(std::sync::Arc::new(closed.disk.clone()), &closed.clock);
    (opened.map(drop), closed)
}

/// Ten sealed segments that have expired, and an open one that has not.
fn expired() -> Stage {
    let stage = Stage::new();
    for _ in 0..10 {
        publish(&stage);
        stage.seal();
    }
    stage.clock.advance(RETENTION);
    publish(&stage);
    stage
}

#[test]
fn retention_frees_the_blocks_of_what_it_drops() {
    let stage = expired();
    // Somebody has read from them, so that they are open.
    for id in 1..=10 {
        assert_eq!(stage.store.get(COMPANY, lutine::domain::event::EventId(id)).unwrap(), None);
    }
    assert_eq!(stage.store.drop_expired().unwrap().segments, 10);
    assert_eq!(stage.disk.open_without_a_name(), 0);
}

#[test]
fn who_asks_for_what_retention_drops_gets_an_answer() {
    for _ in 0..20 {
        let stage = Stage::new();
        for number in 0..8 {
            stage.publish("claim.created", "{}", Some(&format!("key-{number}"))).unwrap();
            stage.seal();
        }
        stage.clock.advance(RETENTION);
        publish(&stage);
        let stage = stage.reopen().unwrap();
        let is_over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for reader in 0..2 {
                let (stage, is_over) = (&stage, &is_over);
                scope.spawn(move || {
                    while !is_over.load(std::sync::atomic::Ordering::Acquire) {
                        // Looks for what was lost, and for the dedupe keys, in the segments that go.
                        if reader == 0 {
                            stage.page(COMPANY, Start::After(Default::default()), Direction::Ascending, 1, "");
                        } else {
                            for number in 0..8 {
                                let event = event("claim.created", "{}", Some(&format!("key-{number}")));
                                drop(stage.store.append(stage.store.prepare(COMPANY, &event)).unwrap());
                            }
                            stage.store.turn().unwrap();
                        }
                    }
                });
            }
            assert_eq!(stage.store.drop_expired().unwrap().segments, 8);
            is_over.store(true, std::sync::atomic::Ordering::Release);
        });
        assert_eq!(stage.disk.open_without_a_name(), 0);
    }
}

#[test]
fn retention_from_two_sides_drops_each_segment_once() {
    for _ in 0..10 {
        let stage = expired();
        let droppers: Vec<_> = (0..4)
            .map(|_| {
                let store = stage.store.clone();
                std::thread::spawn(move || store.drop_expired().map(|dropped| dropped.segments))
            })
            .collect();
        let dropped: usize = droppers.into_iter().map(|dropper| dropper.join().unwrap().unwrap()).sum();
        assert_eq!(dropped, 10);
        assert_eq!(stage.read_up(10, ""), [11]);
    }
}

#[test]
fn damage_in_what_has_expired_does_not_stop_retention() {
    let stage = Stage::new();
    stage.publish("claim.created", "\"the damaged one\"", None).unwrap();
    stage.seal();
    publish(&stage);
    let (opened, stage) = start_after(stage, |stage| {
        let mut content = stage.disk.content("log/1.sealed.redb");
        let place = content.windows(15).position(|window| window == b"the damaged one").unwrap();
        content[place] ^= 1;
        stage.disk.put("log/1.sealed.redb", content);
    });
    opened.unwrap();
    let stage = stage.reopen().unwrap();
    stage.clock.advance(RETENTION);
    assert_eq!(stage.store.drop_expired().unwrap().segments, 1);
    let PageOutcome::Expired { .. } = stage.page(COMPANY, Start::After(Default::default()), Direction::Ascending, 1, "") else {
        panic!("a loss is not kept secret")
    };
}

#[test]
fn ids_and_times_go_on_after_everything_has_expired() {
    let stage = Stage::new();
    for _ in 0..3 {
        publish(&stage);
    }
    stage.clock.advance(RETENTION + Duration::from_secs(1));
    // The open segment holds only what has expired: it is closed, sealed and dropped.
    for _ in 0..3 {
        stage.store.turn().unwrap();
        while stage.store.maintain().unwrap() {}
        stage.store.drop_expired().unwrap();
    }
    assert_eq!(stage.store.status().segments_sealed, 0);
    let stage = stage.reopen().unwrap();
    assert_eq!(stage.store.tail().id.0, 3);
    assert_eq!(publish(&stage), 4);
    assert_eq!(stage.read_up(10, ""), [4]);
}

#[test]
fn a_log_that_is_older_than_its_ledger_is_refused() {
    let stage = Stage::new();
    publish(&stage);
    let stage = stage.reopen().unwrap();
    let old = stage.disk.content("log/1.redb");
    publish(&stage);
    // The next segment knows what it follows.
    stage.rotate();
    publish(&stage);
    let (opened, _) = start_after(stage, |stage| stage.disk.put("log/1.redb", old));
    assert!(matches!(opened, Err(OpenError::LogTooShort { found: 1, known: 2 })), "{opened:?}");
    let stage = Stage::new();
    publish(&stage);
    let stage = stage.reopen().unwrap();
    let old = stage.disk.content("log/1.redb");
    publish(&stage);
    // Any act notes how far the log has come.
    crate::stage::now_or_never(stage.store.create_company(crate::stage::company("a-b"), &crate::stage::actor())).unwrap().unwrap();
    let (opened, _) = start_after(stage, |stage| stage.disk.put("log/1.redb", old));
    assert!(matches!(opened, Err(OpenError::LogTooShort { found: 1, known: 2 })), "{opened:?}");
}

#[test]
fn a_ledger_that_is_older_than_its_log_is_refused_and_no_file_is_removed() {
    let stage = Stage::new();
    publish(&stage);
    let stage = stage.reopen().unwrap();
    let old = stage.disk.content("ledger.redb");
    stage.rotate();
    publish(&stage);
    let (opened, stage) = start_after(stage, |stage| stage.disk.put("ledger.redb", old));
    assert!(matches!(&opened, Err(OpenError::UnknownFile { name }) if name == "log/2.redb"), "{opened:?}");
    assert_eq!(stage.disk.names(), ["ledger.redb", "log/1.redb", "log/2.redb"]);
}

#[test]
fn files_in_each_others_place_are_refused() {
    let stage = Stage::new();
    for _ in 0..3 {
        publish(&stage);
        stage.rotate();
    }
    let (opened, _) = start_after(stage, |stage| {
        let (first, second) = (stage.disk.content("log/1.redb"), stage.disk.content("log/2.redb"));
        stage.disk.put("log/1.redb", second);
        stage.disk.put("log/2.redb", first);
    });
    assert!(matches!(&opened, Err(OpenError::WrongFile { name }) if name == "log/1.redb"), "{opened:?}");
    let stage = Stage::new();
    for _ in 0..3 {
        publish(&stage);
        stage.seal();
    }
    let (opened, _) = start_after(stage, |stage| stage.disk.put("log/1.sealed.redb", stage.disk.content("log/2.sealed.redb")));
    assert!(opened.is_err());
}

#[test]
fn what_is_missing_is_named() {
    let sealed = || {
        let stage = Stage::new();
        publish(&stage);
        stage.seal();
        publish(&stage);
        stage
    };
    for missing in ["log/1.sealed.redb", "log/2.redb"] {
        let (opened, _) = start_after(sealed(), |stage| lutine::store::disk::Disk::remove(&stage.disk, missing).unwrap());
        assert!(matches!(&opened, Err(OpenError::MissingFile { name }) if name == missing), "{opened:?}");
    }
    let (opened, stage) = start_after(sealed(), |stage| lutine::store::disk::Disk::remove(&stage.disk, "ledger.redb").unwrap());
    assert!(matches!(&opened, Err(OpenError::MissingLedger)), "{opened:?}");
    assert_eq!(stage.disk.names(), ["log/1.sealed.redb", "log/2.redb"]);
}

#[test]
fn a_newer_store_is_refused_and_not_a_byte_of_it_is_changed() {
    let stage = Stage::new();
    publish(&stage);
    stage.seal();
    publish(&stage);
    let mut before = None;
    let (opened, stage) = start_after(stage, |stage| {
        edit(stage, "ledger.redb", |database| {
            let transaction = database.begin_write().unwrap();
            transaction.open_table(SETTINGS).unwrap().insert("format", 3).unwrap();
            transaction.commit().unwrap();
        });
        before = Some(stage.disk.everything());
    });
    assert!(matches!(opened, Err(OpenError::Storage(StorageFault::NewerFormat { found: 3, known: 2 }))), "{opened:?}");
    assert!(before.unwrap() == stage.disk.everything());
}

#[test]
fn several_closed_segments_are_sealed_after_a_start() {
    let stage = Stage::new();
    for _ in 0..3 {
        publish(&stage);
        stage.rotate();
    }
    assert_eq!(stage.store.status().segments_waiting, 2, "a third one may not wait");
    let stage = stage.reopen().unwrap();
    assert_eq!(stage.store.status().segments_waiting, 2);
    while stage.store.maintain().unwrap() {}
    assert_eq!(stage.store.status().segments_sealed, 2);
    assert_eq!(stage.read_up(10, ""), [1, 2, 3]);
    assert_eq!(publish(&stage), 4);
}

#[test]
fn a_key_means_its_event_in_whatever_segment_it_lies_until_it_expires() {
    let stage = Stage::new();
    let publish = |payload: &str| stage.publish("claim.created", payload, Some("k"));
    let first = publish("1").unwrap();
    for state in ["open", "waiting", "sealed"] {
        let again = publish("1").unwrap();
        assert_eq!((again.id, again.created, again.duplicate), (first.id, first.created, true), "{state}");
        assert!(publish("2").is_err(), "{state}");
        if state == "open" {
            stage.rotate();
        } else {
            while stage.store.maintain().unwrap() {}
        }
    }
    stage.clock.advance(RETENTION - SEGMENT_AGE + Duration::from_secs(1));
    // Expired but still there: the key is free, and stands for the new event from now on.
    let second = publish("2").unwrap();
    assert!(!second.duplicate && second.id > first.id);
    stage.seal();
    assert_eq!(publish("2").unwrap().id, second.id);
    stage.store.drop_expired().unwrap();
    let stage = stage.reopen().unwrap();
    assert_eq!(stage.publish("claim.created", "2", Some("k")).unwrap().id, second.id);
}

#[test]
fn no_row_of_a_dropped_segment_is_left() {
    let stage = expired();
    stage.store.drop_expired().unwrap();
    let (_, stage) = start_after(stage, |_| {});
    edit(&stage, "ledger.redb", |database| {
        let transaction = database.begin_write().unwrap();
        let numbers: Vec<u64> = transaction.open_table(FILES).unwrap().iter().unwrap().map(|row| row.unwrap().0.value()).collect();
        assert_eq!(numbers, [11]);
    });
}
