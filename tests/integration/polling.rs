//! Long polls: who has caught up waits for the next event.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::daemon::TestDaemon;
use crate::support::http::{Connection, Request};
use crate::support::{PATIENCE, wait_until};

const EVENTS: &str = "/api/v1/events";

/// Waits until so many requests are under way; the one that asks is one of them.
fn wait_for_requests(daemon: &TestDaemon, count: usize) {
    let mut watcher = daemon.client("");
    let line = format!("lutine_http_requests_in_flight {}\n", count + 1);
    wait_until("requests under way", || watcher.get("/metrics").text().contains(&line));
}

#[test]
fn a_poll_returns_at_once_when_there_is_something() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    acme.publish(r#"{"type":"a"}"#);
    let started = Instant::now();
    assert_eq!(acme.ids("?wait=30"), [1]);
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_poll_returns_empty_after_its_time() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let started = Instant::now();
    let page = acme.get(&format!("{EVENTS}?wait=1")).expect(200);
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert_eq!(page.text(), r#"{"events":[]}"#);
    let resume = page.header("x-resume-cursor").unwrap().to_owned();
    acme.publish(r#"{"type":"a"}"#);
    assert_eq!(acme.ids(&format!("?cursor={resume}&wait=0")), [1]);
}

#[test]
fn a_poll_is_woken_by_the_next_event_that_matches() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    daemon.company("bolt");
    let mut bolt = daemon.client(&daemon.key("bolt", &["events:write"]));
    let key = acme.key().to_owned();
    std::thread::scope(|scope| {
        let started = Instant::now();
        let poll = scope.spawn(|| daemon.client(&key).get(&format!("{EVENTS}?types=claim.*&wait=30&from=latest")));
        wait_for_requests(&daemon, 1);
        // Neither another company's event nor one of another type ends the wait.
        bolt.publish(r#"{"type":"claim.created"}"#);
        acme.publish(r#"{"type":"policy.bound"}"#);
        assert!(!poll.is_finished());
        let id = acme.publish(r#"{"type":"claim.created"}"#);
        let page = poll.join().unwrap().expect(200);
        assert!(started.elapsed() < Duration::from_secs(20));
        assert_eq!(page.json()["events"][0]["id"], id);
        assert_eq!(page.json()["events"].as_array().unwrap().len(), 1);
    });
}

#[test]
fn polls_are_answered_at_once_when_the_daemon_stops() {
    let mut daemon = TestDaemon::start();
    let key = daemon.acme().key().to_owned();
    let mut polls: Vec<Connection> = (0..3).map(|_| Connection::open(daemon.address())).collect();
    let request = Request::get(&format!("{EVENTS}?wait=30")).header("X-Api-Key", &key).bytes();
    for poll in &mut polls {
        poll.send(&request);
    }
    wait_for_requests(&daemon, 3);
    let started = Instant::now();
    daemon.stop();
    assert!(started.elapsed() < Duration::from_secs(10));
    for poll in &mut polls {
        let answer = poll.answer().expect("an answer before the end").expect(200);
        assert_eq!((answer.text(), answer.header("connection")), (r#"{"events":[]}"#, Some("close")));
        assert!(answer.header("x-resume-cursor").is_some());
        assert!(poll.rest().is_empty());
    }
}

#[test]
fn a_poller_beside_sixteen_publishers_gets_every_event_once_and_in_order() {
    let daemon = TestDaemon::with(|config| config.log_store.segment_bytes_max = 32 * 1024);
    let key = daemon.acme().key().to_owned();
    const EACH: usize = 40;
    std::thread::scope(|scope| {
        let publishers: Vec<_> = (0..16)
            .map(|publisher| {
                let (daemon, key) = (&daemon, &key);
                scope.spawn(move || {
                    let mut client = daemon.client(key);
                    let publish = |number: usize| {
                        let payload = format!("{{ \"p\":{publisher}, \"n\":{number}.0 , \"x\":\"{}\"}}", "ø".repeat(number * 7 % 300));
                        (client.publish_patiently(&json!({"type": "a", "payload": payload}).to_string()), payload)
                    };
                    (0..EACH).map(publish).collect::<Vec<_>>()
                })
            })
            .collect();
        let poller = scope.spawn(|| {
            let mut client = daemon.client(&key);
            let mut seen = Vec::new();
            let mut query = "?wait=5&limit=17".to_owned();
            let started = Instant::now();
            while seen.len() < 16 * EACH {
                assert!(started.elapsed() < PATIENCE, "{} events", seen.len());
                let page = client.get(&format!("{EVENTS}{query}")).expect(200);
                for event in page.json()["events"].as_array().unwrap() {
                    seen.push((event["id"].as_u64().unwrap(), event["payload"].as_str().unwrap().to_owned()));
                }
                query = format!("?wait=5&limit=17&cursor={}", page.header("x-resume-cursor").unwrap());
            }
            seen
        });
        let mut published: Vec<(u64, String)> = publishers.into_iter().flat_map(|publisher| publisher.join().unwrap()).collect();
        published.sort();
        assert_eq!(poller.join().unwrap(), published);
    });
    daemon.wait_until_sealed();
    assert_eq!(daemon.verify(), 16 * EACH as u64);
}
