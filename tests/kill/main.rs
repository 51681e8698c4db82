//! The real binary, killed under load again and again: what was acknowledged is there, and nothing is there twice.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod assertions;
mod deliveries;
mod keyed;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::Signal;
use serde_json::{Value, json};

use self::support::http::{Client, Request};
use self::support::real::{RealDaemon, ask, data_dir};
use self::support::wait_until;

const KILLS: usize = 20;
const PUBLISHERS: usize = 16;
/// Small, so that segments are closed and sealed between two kills, and some are killed in the middle of it.
const SETTINGS: [(&str, &str); 1] = [("LUTINE_LOG_STORE__SEGMENT_BYTES_MAX", "65536")];

/// Somebody who publishes one event after the other; every second one names its events with a dedupe key.
struct Publisher {
    number: usize,
    published: usize,
    /// The event whose outcome is unknown: it is sent again when it has a key, else it is given up.
    unknown: Option<(usize, String)>,
    /// Payload and id of what was acknowledged.
    acknowledged: Vec<(String, u64)>,
}

impl Publisher {
    fn names_events(&self) -> bool {
        self.number.is_multiple_of(2)
    }

    /// The number and the payload of the next event; no two events have the same payload.
    fn next(&mut self) -> (usize, String) {
        if self.names_events()
            && let Some(event) = self.unknown.take()
        {
            return event;
        }
        self.published += 1;
        let filler = "ø".repeat((self.published * 37 + self.number * 11) % 900);
        (self.published, format!("{{ \"publisher\":{}, \"event\":{}.0 , \"filler\":\"{filler}\"}}", self.number, self.published))
    }

    /// Publishes until the daemon goes away.
    fn run(&mut self, address: SocketAddr, key: &str, is_over: &AtomicBool, count: &AtomicUsize) {
        let mut client = Client::new(address, key);
        while !is_over.load(Ordering::SeqCst) {
            let (number, payload) = self.next();
            let mut body = json!({"type": "claim.created", "payload": payload});
            if self.names_events() {
                body["dedupeKey"] = Value::from(format!("{}-{number}", self.number));
            }
            self.unknown = Some((number, payload.clone()));
            let Some(answer) = client.try_send(&Request::post("/api/v1/events", body.to_string())) else { return };
            match answer.status {
                201 | 200 => {
                    self.unknown = None;
                    self.acknowledged.push((payload, answer.id()));
                    count.fetch_add(1, Ordering::SeqCst);
                }
                503 => assert_eq!(answer.json()["code"], "overloaded", "{answer:?}"),
                _ => panic!("{answer:?}"),
            }
        }
    }
}

/// Lets the publishers work on a new process until `count` events were acknowledged, then kills it.
fn round(data_dir: &Path, key: &str, publishers: &mut [Publisher], count: usize) {
    let daemon = RealDaemon::start(data_dir, &SETTINGS);
    let (is_over, acknowledged) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for publisher in publishers {
            let (is_over, acknowledged, address) = (&is_over, &acknowledged, daemon.address);
            scope.spawn(move || publisher.run(address, key, is_over, acknowledged));
        }
        wait_until("the load", || acknowledged.load(Ordering::SeqCst) >= count);
        daemon.kill();
        is_over.store(true, Ordering::SeqCst);
    });
}

#[test]
fn twenty_kills_under_load_lose_nothing_that_was_acknowledged_and_double_nothing() {
    let (_folder, data_dir) = data_dir();
    let first = RealDaemon::start(&data_dir, &SETTINGS);
    ask(&data_dir, &["company", "create", "--slug", "acme"]);
    let made = ask(&data_dir, &["key", "create", "--company", "acme", "--scope", "events:write", "--scope", "events:read"]);
    let key = made["key"].as_str().unwrap();
    first.kill();

    let publisher = |number| Publisher { number, published: 0, unknown: None, acknowledged: Vec::new() };
    let mut publishers: Vec<Publisher> = (0..PUBLISHERS).map(publisher).collect();
    for number in 0..KILLS {
        round(&data_dir, key, &mut publishers, 20 + number * 61 % 400);
        if number % 5 == 4 {
            let report = ask(&data_dir, &["verify"]);
            assert_eq!(report["ok"], true, "{report}");
        }
    }

    let mut daemon = RealDaemon::start(&data_dir, &SETTINGS);
    let events = Client::new(daemon.address, key).walk("", 200);
    let mut ids = HashMap::new();
    let mut last = 0;
    for event in &events {
        let (id, payload) = (event["id"].as_u64().unwrap(), event["payload"].as_str().unwrap());
        assert!(id > last, "{id} follows {last}");
        last = id;
        // A payload is sent twice only under its dedupe key.
        assert!(ids.insert(payload, id).is_none(), "twice: {payload}");
    }
    let acknowledged: Vec<&(String, u64)> = publishers.iter().flat_map(|publisher| &publisher.acknowledged).collect();
    for (payload, id) in &acknowledged {
        assert_eq!(ids.get(payload.as_str()), Some(id), "acknowledged as {id}: {payload}");
    }
    let distinct: HashSet<u64> = acknowledged.iter().map(|(_, id)| *id).collect();
    assert_eq!(distinct.len(), acknowledged.len());
    let files = std::fs::read_dir(data_dir.join("log")).unwrap();
    let sealed = files.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".sealed.redb")).count();
    assert!(sealed >= 3, "only {sealed} segments were sealed");
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().success());
    let report = ask(&data_dir, &["verify"]);
    assert_eq!((&report["ok"], &report["events"]), (&json!(true), &json!(events.len())), "{report}");
}
