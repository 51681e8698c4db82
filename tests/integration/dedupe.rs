//! One dedupe key is one event, whoever comes with it, and whenever.

use std::sync::Barrier;

use serde_json::json;

use crate::support::daemon::TestDaemon;
use crate::support::http::{Client, Request};

const EVENTS: &str = "/api/v1/events";
const BODY: &str = r#"{"type":"claim.created","payload":{"n":1},"dedupeKey":"k"}"#;
const OTHER: &str = r#"{"type":"claim.created","payload":{"n":2},"dedupeKey":"k"}"#;

/// Fifty callers at once with one key; status and id of each answer.
fn storm(daemon: &TestDaemon, key: &str) -> Vec<(u16, u64)> {
    let barrier = Barrier::new(50);
    let call = || {
        let mut client = daemon.client(key);
        barrier.wait();
        let answer = client.post(EVENTS, BODY);
        (answer.status, answer.id())
    };
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..50).map(|_| scope.spawn(call)).collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    })
}

fn fill(daemon: &TestDaemon, client: &mut Client) {
    let sealed = || daemon.status()["segmentsSealed"].as_u64().unwrap();
    let before = sealed();
    let filler = json!({"type": "filler", "payload": {"x": "x".repeat(5_000)}}).to_string();
    crate::support::wait_until("a sealed segment", || {
        client.publish_patiently(&filler);
        sealed() > before
    });
    daemon.wait_until_sealed();
}

#[test]
fn fifty_callers_with_one_key_get_one_event_before_and_after_sealing_and_restarts() {
    let mut daemon = TestDaemon::with(|config| config.log_store.segment_bytes_max = 32 * 1024);
    let mut acme = daemon.acme();
    let key = acme.key().to_owned();
    let answers = storm(&daemon, &key);
    assert_eq!(answers.iter().filter(|(status, _)| *status == 201).count(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|(status, _)| *status == 200).count(), 49, "{answers:?}");
    assert!(answers.iter().all(|(_, id)| *id == 1), "{answers:?}");
    let again = |daemon: &TestDaemon| {
        let answers = storm(daemon, &key);
        assert!(answers.iter().all(|answer| *answer == (200, 1)), "{answers:?}");
        let conflict = daemon.client(&key).post(EVENTS, OTHER).expect(409);
        assert_eq!(conflict.json()["id"], 1);
    };
    again(&daemon);
    daemon.restart();
    again(&daemon);
    fill(&daemon, &mut daemon.client(&key));
    again(&daemon);
    daemon.restart();
    again(&daemon);
    acme = daemon.client(&key);
    assert_eq!(acme.ids("?types=claim.created"), [1]);
    daemon.verify();
}

#[test]
fn keys_that_come_while_segments_are_sealed_are_never_taken_twice() {
    let daemon = TestDaemon::with(|config| config.log_store.segment_bytes_max = 16 * 1024);
    let key = daemon.acme().key().to_owned();
    let filler = "x".repeat(900);
    // Each of 8 callers publishes the same 150 keys, in its own order.
    let call = |caller: usize| {
        let mut client = daemon.client(&key);
        let mut ids = vec![0; 150];
        for step in 0..150 {
            let number = (step * (2 * caller + 7) + caller) % 150;
            let body = json!({"type": "a", "payload": {"n": number, "x": filler}, "dedupeKey": format!("k-{number}")}).to_string();
            let answer = client.send_patiently(&Request::post(EVENTS, body));
            assert!(matches!(answer.status, 200 | 201), "{answer:?}");
            ids[number] = answer.id();
        }
        ids
    };
    let all: Vec<Vec<u64>> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..8).map(|caller| scope.spawn(move || call(caller))).collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    let mut ids: Vec<u64> = (0..150).map(|number| all.iter().map(|ids| ids[number]).max().unwrap()).collect();
    for (number, id) in ids.iter().enumerate() {
        let given: Vec<u64> = all.iter().map(|ids| ids[number]).filter(|given| *given != 0).collect();
        assert!(given.iter().all(|given| given == id), "k-{number}: {given:?}");
    }
    ids.sort_unstable();
    ids.dedup();
    ids.retain(|id| *id != 0);
    daemon.wait_until_sealed();
    assert_eq!(daemon.verify(), ids.len() as u64);
    let listed: Vec<u64> = daemon.client(&key).walk("", 200).iter().map(|event| event["id"].as_u64().unwrap()).collect();
    assert_eq!(listed, ids);
}
