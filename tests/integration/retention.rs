//! What is older than the retention is gone: for readers at once, from disk soon.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::daemon::TestDaemon;
use crate::support::http::{Client, problem};
use crate::support::wait_until;

const EVENTS: &str = "/api/v1/events";

/// Five seconds, so that the daemon looks twice a second; time itself is the test's.
fn short() -> TestDaemon {
    TestDaemon::with(|config| {
        config.retention.days = 5.0 / 86_400.0;
        config.log_store.segment_bytes_max = 16 * 1024;
    })
}

/// Sixty events, 10 ms apart, each with a dedupe key; waits until all but the last of their segments are sealed.
fn publish_sixty(daemon: &TestDaemon, client: &mut Client) {
    for number in 1..=60 {
        client.publish_patiently(&event(number));
        daemon.clock.advance(Duration::from_millis(10));
    }
    daemon.wait_until_sealed();
}

fn event(number: u64) -> String {
    json!({"type": "a", "payload": {"x": "x".repeat(2_000)}, "dedupeKey": format!("k-{number}")}).to_string()
}

fn expire(daemon: &TestDaemon) {
    daemon.clock.advance(Duration::from_secs(6));
}

#[test]
fn an_expired_event_is_gone_at_once() {
    let daemon = short();
    let mut acme = daemon.acme();
    acme.publish(event(1));
    daemon.clock.advance(Duration::from_secs(5));
    acme.get("/api/v1/events/1").expect(200);
    assert_eq!(acme.ids(""), [1]);
    daemon.clock.advance(Duration::from_micros(1));
    acme.get("/api/v1/events/1").expect(404);
    assert!(acme.ids("").is_empty());
    assert!(acme.ids("?order=desc").is_empty());
}

#[test]
fn a_cursor_behind_lost_events_is_gone_and_the_answer_leads_to_the_oldest() {
    let daemon = short();
    let mut acme = daemon.acme();
    publish_sixty(&daemon, &mut acme);
    let page = acme.get(&format!("{EVENTS}?limit=10")).expect(200);
    let cursor = page.header("x-paging-cursor").unwrap().to_owned();
    expire(&daemon);
    let fresh = acme.publish(r#"{"type":"fresh"}"#);
    let check = |client: &mut Client| {
        let gone = client.get(&format!("{EVENTS}?cursor={cursor}")).expect(410);
        let oldest = gone.json()["oldestCursor"].as_str().expect("oldestCursor").to_owned();
        let more = format!(r#","lostSeconds":0.5,"oldestCursor":"{oldest}","reason":"retention""#);
        let detail = "events behind the cursor have been removed by retention";
        assert_eq!(gone.problem(), problem("410 Gone", "cursor_expired", EVENTS, detail, &more));
        assert_eq!(client.ids(&format!("?cursor={oldest}")), [fresh]);
    };
    check(&mut acme);
    wait_until("the drop of the sealed segments", || daemon.status()["segmentsSealed"] == 0);
    check(&mut acme);
}

#[test]
fn a_cursor_without_loss_goes_on_however_old_it_is() {
    let daemon = short();
    let mut acme = daemon.acme();
    publish_sixty(&daemon, &mut acme);
    let resume = acme.get(&format!("{EVENTS}?from=latest")).expect(200).header("x-resume-cursor").unwrap().to_owned();
    expire(&daemon);
    assert!(acme.ids(&format!("?cursor={resume}")).is_empty());
    let fresh = acme.publish(r#"{"type":"fresh"}"#);
    assert_eq!(acme.ids(&format!("?cursor={resume}")), [fresh]);
}

#[test]
fn a_company_that_lost_nothing_keeps_its_cursor() {
    let daemon = short();
    let mut acme = daemon.acme();
    daemon.company("bolt");
    let mut bolt = daemon.client(&daemon.key("bolt", &["events:read", "events:write"]));
    let cursor = bolt.get(EVENTS).expect(200).header("x-resume-cursor").unwrap().to_owned();
    publish_sixty(&daemon, &mut acme);
    expire(&daemon);
    let fresh = bolt.publish(r#"{"type":"fresh"}"#);
    wait_until("the drop of the sealed segments", || daemon.status()["segmentsSealed"] == 0);
    assert_eq!(bolt.ids(&format!("?cursor={cursor}")), [fresh]);
}

#[test]
fn files_and_their_space_are_given_back() {
    let daemon = short();
    let mut acme = daemon.acme();
    publish_sixty(&daemon, &mut acme);
    let before = (daemon.log_files(), daemon.disk_bytes("log"), daemon.status()["diskBytes"].as_u64().unwrap());
    assert!(before.0.iter().any(|name| name == "1.sealed.redb"), "{before:?}");
    expire(&daemon);
    // The open segment holds only expired events too: it is closed, sealed and dropped as well.
    wait_until("the drop of every old file", || {
        let files = daemon.log_files();
        files.len() == 1 && !before.0.contains(&files[0])
    });
    assert!(daemon.disk_bytes("log") < before.1, "{} of {}", daemon.disk_bytes("log"), before.1);
    assert!(daemon.status()["diskBytes"].as_u64().unwrap() < before.2);
    assert_eq!(daemon.verify(), 0);
}

#[test]
fn ids_go_on_after_everything_was_dropped_also_after_a_restart() {
    let mut daemon = short();
    let mut acme = daemon.acme();
    publish_sixty(&daemon, &mut acme);
    expire(&daemon);
    wait_until("the drop of every sealed file", || daemon.log_files().len() == 1 && daemon.status()["segmentsSealed"] == 0);
    daemon.restart();
    let mut acme = daemon.client(acme.key());
    assert_eq!(acme.publish(r#"{"type":"fresh"}"#), 61);
    assert_eq!(daemon.status()["lastEventId"], 61);
}

#[test]
fn a_dedupe_key_is_free_again_after_its_event_expired() {
    let daemon = short();
    let mut acme = daemon.acme();
    publish_sixty(&daemon, &mut acme);
    assert_eq!(acme.post(EVENTS, event(1)).expect(200).id(), 1);
    expire(&daemon);
    // One whose segment is sealed, and one in the open segment; at once, and once more after the drop.
    assert_eq!((acme.publish(event(1)), acme.publish(event(60))), (61, 62));
    wait_until("the drop of the sealed segments", || daemon.status()["segmentsSealed"] == 0);
    assert_eq!(acme.post(EVENTS, event(1)).expect(200).id(), 61);
    assert_eq!(acme.publish(event(2)), 63);
}

#[test]
fn a_part_of_a_segment_that_expired_is_invisible_before_its_file_goes() {
    let daemon = TestDaemon::with(|config| config.retention.days = 5.0 / 86_400.0);
    let mut acme = daemon.acme();
    for number in 1..=10 {
        acme.publish(event(number));
        daemon.clock.advance(Duration::from_secs(1));
    }
    let expected: Vec<u64> = (6..=10).collect();
    assert_eq!(acme.ids(""), expected);
    assert_eq!(acme.ids("?types=a"), expected);
    assert_eq!(acme.ids("?order=desc"), expected.iter().rev().copied().collect::<Vec<_>>());
    assert_eq!(acme.ids("?from=2026-11-22T10:30:00Z"), expected);
    let walked: Vec<Value> = acme.walk("", 1);
    assert_eq!(walked.len(), 5);
}
