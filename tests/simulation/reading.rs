//! Reading: pages over segments of every state, with filters, at every limit.

use std::time::Duration;

use lutine::domain::company::CompanyId;
use lutine::domain::cursor::Direction;
use lutine::domain::reference::NewReferences;
use lutine::store::{PageOutcome, Start};

use crate::disk::Chance;
use crate::stage::{COMPANY, RETENTION, Stage, after, event, ids_of};

/// A log of some hundred events in two sealed, one waiting and one open segment; the ids of company 1 with their types.
fn long_log(seed: u64, kinds: usize) -> (Stage, Vec<(u64, String)>) {
    let stage = Stage::new();
    let mut chance = Chance::new(seed);
    let mut written = Vec::new();
    for part in 0..4 {
        for _ in 0..12 {
            if chance.one_in(3) {
                stage.clock.advance(Duration::from_micros(1));
            }
            let batch: Vec<_> = (0..1 + chance.below(5))
                .map(|_| {
                    let company = if chance.one_in(4) { CompanyId(2) } else { COMPANY };
                    let own = chance.one_in(12);
                    let kind = if own { "lutine.test".to_owned() } else { format!("claim.kind{}", chance.below(kinds as u64)) };
                    let filler = "x".repeat(chance.below(3000) as usize);
                    (company, event(&kind, &format!("\"{filler}\""), None))
                })
                .collect();
            for ((company, event), receipt) in batch.iter().zip(stage.publish_all(&batch)) {
                if *company == COMPANY {
                    written.push((receipt.unwrap().id.0, event.kind.as_str().to_owned()));
                }
            }
        }
        match part {
            0 | 1 => stage.seal(),
            2 => stage.rotate(),
            _ => {}
        }
    }
    (stage, written)
}

fn ids<'a>(written: impl IntoIterator<Item = &'a (u64, String)>) -> Vec<u64> {
    written.into_iter().map(|(id, _)| *id).collect()
}

#[test]
fn pages_of_every_size_hold_the_same_events() {
    let (stage, written) = long_log(1, 12);
    let public = ids(written.iter().filter(|(_, kind)| kind != "lutine.test"));
    let mut downwards = public.clone();
    downwards.reverse();
    for limit in [1, 2, 3, 7, 50, public.len() - 1, public.len(), public.len() + 1, usize::MAX] {
        assert_eq!(stage.read_up(limit, ""), public, "limit {limit}");
        assert_eq!(stage.read(Start::Latest, Direction::Descending, limit, ""), downwards, "limit {limit}");
    }
}

#[test]
fn a_filter_of_many_types_ends_and_misses_nothing() {
    for kinds in [1, 3, 8, 9, 40] {
        let (stage, written) = long_log(2, kinds);
        let wanted = ids(written.iter().filter(|(_, kind)| kind.starts_with("claim.")));
        let mut downwards = wanted.clone();
        downwards.reverse();
        for limit in [1, 4, 1000] {
            assert_eq!(stage.read_up(limit, "claim.*"), wanted, "{kinds} kinds, limit {limit}");
            assert_eq!(stage.read(Start::Latest, Direction::Descending, limit, "claim.*"), downwards, "{kinds} kinds, limit {limit}");
        }
    }
}

#[test]
fn a_filter_finds_each_type_and_own_events_only_when_asked() {
    let (stage, written) = long_log(3, 5);
    for filter in ["claim.kind0", "claim.kind3,claim.kind4", "lutine.*", "lutine.test,claim.kind1"] {
        let wanted = ids(written.iter().filter(|(_, kind)| filter.split(',').any(|entry| kind.starts_with(entry.trim_end_matches('*')))));
        for limit in [1, 5, 1000] {
            assert_eq!(stage.read_up(limit, filter), wanted, "{filter}");
        }
    }
}

#[test]
fn a_page_says_more_only_when_another_event_lies_there() {
    let stage = Stage::new();
    for number in 0..6 {
        stage.publish(if number % 2 == 0 { "claim.created" } else { "lutine.test" }, "{}", None).unwrap();
    }
    for direction in [Direction::Ascending, Direction::Descending] {
        let start = if direction == Direction::Ascending { Start::Oldest } else { Start::Latest };
        for (limit, more) in [(2, true), (3, false), (4, false)] {
            let PageOutcome::Page(page) = stage.page(COMPANY, start, direction, limit, "") else { panic!() };
            assert_eq!((page.count, page.more), (limit.min(3), more), "{direction:?} {limit}");
        }
    }
}

#[test]
fn a_time_starts_a_reader_at_the_first_event_of_that_microsecond() {
    let stage = Stage::new();
    let first = stage.publish("claim.created", "1", None).unwrap();
    stage.clock.advance(Duration::from_micros(1));
    let second = stage.publish_all(&[(COMPANY, event("claim.created", "2", None)), (COMPANY, event("claim.created", "3", None))]);
    let time = second[0].as_ref().unwrap().created;
    assert_eq!(stage.read(Start::Time(time), Direction::Ascending, 1, ""), [2, 3]);
    assert_eq!(stage.read(Start::Time(time), Direction::Descending, 1, ""), [3, 2, 1]);
    assert_eq!(stage.read(Start::Time(first.created), Direction::Descending, 1, ""), [1]);
}

#[test]
fn a_cursor_expires_when_an_event_behind_it_has_expired_and_not_before() {
    let stage = Stage::new();
    let first = stage.publish("claim.created", "1", None).unwrap();
    stage.clock.advance(Duration::from_secs(60));
    let second = stage.publish("claim.created", "2", None).unwrap();
    for _ in 0..30 {
        stage.publish("claim.created", &"3".repeat(16_000), None).unwrap();
    }
    stage.clock.advance(Duration::from_secs(60));
    stage.publish_all(&[(CompanyId(2), event("claim.created", "4", None))]).remove(0).unwrap();
    let expired = |start| match stage.page(COMPANY, start, Direction::Ascending, 10, "") {
        PageOutcome::Page(page) => Err(ids_of(&page)),
        PageOutcome::Expired { lost, .. } => Ok(lost),
    };
    stage.clock.advance(RETENTION - Duration::from_secs(70));
    // The first event has expired: who has not read it is told, who has goes on with the second.
    assert_eq!(expired(Start::After(Default::default())).unwrap(), first.created.since(Default::default()));
    assert!(expired(after(&first)).unwrap_err().starts_with(&[2]));
    stage.clock.advance(Duration::from_secs(30));
    // Now all of company 1 have expired.
    assert_eq!(expired(after(&first)).unwrap(), second.created.since(first.created));
    let last = stage.store.tail();
    assert_eq!(expired(Start::After(last)).unwrap_err(), [0; 0]);
}

#[test]
fn a_reader_who_has_caught_up_never_loses_anything_however_rare_its_types_are() {
    let stage = Stage::new();
    let rare = stage.publish("rare.event", "{}", None).unwrap();
    let mut start = after(&rare);
    for _ in 0..20 {
        stage.clock.advance(Duration::from_secs(600));
        stage.publish("claim.created", "{}", None).unwrap();
        let PageOutcome::Page(page) = stage.page(COMPANY, start, Direction::Ascending, 10, "rare.event") else {
            panic!("a reader who has read everything is told that it lost something")
        };
        assert_eq!((page.count, page.more), (0, false));
        start = Start::After(page.position);
        stage.seal();
        stage.store.drop_expired().unwrap();
    }
    let last = stage.publish("rare.event", "{}", None).unwrap();
    let PageOutcome::Page(page) = stage.page(COMPANY, start, Direction::Ascending, 10, "rare.event") else { panic!() };
    assert_eq!(ids_of(&page), [last.id.0]);
}

#[test]
fn an_event_comes_back_byte_for_byte_however_much_it_escapes() {
    let stage = Stage::new();
    let payloads = ["\u{1}".repeat(262_144), "\"\\/\n".repeat(65_536), "\u{7f}å😀".repeat(30_000), "{}".to_owned()];
    let mut receipts = Vec::new();
    for payload in &payloads {
        let mut event = event("claim.created", payload, None);
        event.references = Some(NewReferences::plain(format!("[\"{}\"]", "r".repeat(5000))));
        event.metadata = "\u{1}".repeat(65_536);
        receipts.push(stage.publish_all(&[(COMPANY, event)]).remove(0).unwrap());
    }
    let check = |stage: &Stage| {
        for (payload, receipt) in payloads.iter().zip(&receipts) {
            let stored = stage.store.stored_event(COMPANY, receipt.id).unwrap().unwrap();
            assert!(stored.payload == *payload, "event {}", receipt.id);
            assert_eq!(stored.references.unwrap().len(), 5004);
            let envelope: serde_json::Value = serde_json::from_slice(&stored.envelope).unwrap();
            assert!(envelope["payload"] == payload.as_str());
            assert_eq!(envelope["metadata"].as_str().unwrap().len(), 65_536);
        }
    };
    check(&stage);
    let stage = stage.reopen().unwrap();
    check(&stage);
    stage.seal();
    check(&stage);
    assert_eq!(stage.store.verify().unwrap().faults, [""; 0]);
    assert_eq!(stage.store.stored_event(CompanyId(2), receipts[0].id).unwrap(), None);
}
