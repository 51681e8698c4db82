//! More comes than can be committed: refused at once, with nothing lost.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::json;

use crate::support::daemon::TestDaemon;
use crate::support::http::problem;
use crate::support::wait_until;

const EVENTS: &str = "/api/v1/events";

/// Publishes from 24 threads until one was refused; every payload that was acknowledged, by id.
fn press(daemon: &TestDaemon, key: &str, payload_bytes: usize) -> BTreeMap<u64, String> {
    let stored = Mutex::new(BTreeMap::new());
    let mut round = 0;
    wait_until("a refusal", || {
        round += 1;
        let refused: usize = std::thread::scope(|scope| {
            let publish = |thread: usize| {
                let mut client = daemon.client(key);
                let mut refused = 0;
                for number in 0..5 {
                    let payload = format!("\"{round}-{thread}-{number}-{}\"", "x".repeat(payload_bytes));
                    let answer = client.post(EVENTS, json!({"type": "a", "payload": payload}).to_string());
                    if answer.status == 201 {
                        stored.lock().unwrap().insert(answer.id(), payload);
                    } else {
                        let detail = "too many events are waiting for their commit";
                        assert_eq!(answer.problem(), problem("503 Service Unavailable", "overloaded", EVENTS, detail, ""));
                        assert_eq!(answer.header("retry-after"), Some("1"));
                        refused += 1;
                    }
                }
                refused
            };
            let threads: Vec<_> = (0..24).map(|thread| scope.spawn(move || publish(thread))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        refused > 0
    });
    stored.into_inner().unwrap()
}

fn check(daemon: &TestDaemon, key: &str, stored: &BTreeMap<u64, String>) {
    let listed: BTreeMap<u64, String> = daemon
        .client(key)
        .walk("", 200)
        .iter()
        .map(|event| (event["id"].as_u64().unwrap(), event["payload"].as_str().unwrap().to_owned()))
        .collect();
    assert!(listed == *stored, "{} listed, {} acknowledged", listed.len(), stored.len());
}

#[test]
fn a_full_queue_of_events_refuses_and_loses_nothing() {
    let daemon = TestDaemon::with(|config| config.limits.queue_events_max = 1);
    let key = daemon.acme().key().to_owned();
    let stored = press(&daemon, &key, 10);
    check(&daemon, &key, &stored);
}

#[test]
fn a_full_queue_of_bytes_refuses_and_loses_nothing() {
    let daemon = TestDaemon::with(|config| config.limits.queue_bytes_max = 65_536);
    let key = daemon.acme().key().to_owned();
    let stored = press(&daemon, &key, 40_000);
    check(&daemon, &key, &stored);
}

#[test]
fn what_is_larger_than_the_whole_queue_is_taken_when_nothing_else_waits() {
    let daemon = TestDaemon::with(|config| (config.limits.queue_events_max, config.limits.queue_bytes_max) = (1, 1));
    let mut acme = daemon.acme();
    let batch = acme.post("/api/v1/events/batch", format!("[{}]", vec![r#"{"type":"a"}"#; 20].join(","))).expect(200).json();
    assert_eq!(batch["results"][19]["id"], 20);
}
