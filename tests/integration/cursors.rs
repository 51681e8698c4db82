//! Cursors that readers keep on the daemon.

use std::time::Duration;

use serde_json::json;

use crate::support::daemon::TestDaemon;
use crate::support::http::{Answer, Client, Request, at, problem};
use crate::support::wait_until;

const EVENTS: &str = "/api/v1/events";
const CURSORS: &str = "/api/v1/cursors";

fn put(client: &mut Client, name: &str, body: &str) -> Answer {
    client.send(&Request::new("PUT", &format!("{CURSORS}/{name}")).body("application/json", body))
}

/// Keeps the cursor of a list under a name; the cursor.
#[track_caller]
fn keep(client: &mut Client, name: &str, query: &str) -> String {
    let cursor = client.get(&format!("{EVENTS}{query}")).expect(200).header("x-resume-cursor").unwrap().to_owned();
    let set = put(client, name, &json!({"cursor": cursor}).to_string()).expect(204);
    assert_eq!((set.text(), set.header("content-length")), ("", None));
    cursor
}

#[test]
fn a_cursor_is_kept_shown_with_its_lag_and_forgotten() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    for kind in ["claim.created", "policy.bound", "claim.updated"] {
        acme.publish(json!({"type": kind}).to_string());
        daemon.clock.advance(Duration::from_millis(1_500));
    }
    let cursor = keep(&mut acme, "portal", "?limit=1");
    let shown = acme.get(&format!("{CURSORS}/portal")).expect(200);
    let updated = shown.json()["updatedUtc"].as_str().unwrap().to_owned();
    let expected = format!(r#"{{"name":"portal","cursor":"{cursor}","updatedUtc":"{updated}","lag":{{"events":2,"seconds":3.0}}}}"#);
    assert_eq!(shown.text(), expected);
    assert_eq!(acme.get(CURSORS).expect(200).text(), format!(r#"{{"cursors":[{expected}]}}"#));
    keep(&mut acme, "portal", "?from=latest");
    assert_eq!(acme.get(&format!("{CURSORS}/portal")).json()["lag"], json!({"events": 0, "seconds": 0.0}));
    acme.delete(&format!("{CURSORS}/portal")).expect(204);
    let path = format!("{CURSORS}/portal");
    for gone in [acme.get(&path), acme.delete(&path)] {
        assert_eq!(gone.expect(404).problem(), problem("404 Not Found", "not_found", &path, "there is no cursor `portal`", ""));
    }
    assert_eq!(acme.get(CURSORS).expect(200).text(), r#"{"cursors":[]}"#);
}

#[test]
fn a_list_goes_on_from_a_named_cursor_and_does_not_move_it() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    for _ in 0..5 {
        acme.publish(r#"{"type":"a"}"#);
    }
    let cursor = keep(&mut acme, "portal", "?limit=2");
    for _ in 0..2 {
        assert_eq!(acme.ids("?consumer=portal"), [3, 4, 5]);
    }
    assert_eq!(acme.get(&format!("{CURSORS}/portal")).json()["cursor"], cursor.as_str());
    let page = acme.get(&format!("{EVENTS}?consumer=portal&limit=2")).expect(200);
    let next = page.header("x-paging-cursor").unwrap();
    let link = format!("<http://{}{EVENTS}?limit=2&cursor={next}>; rel=\"next\"", daemon.address());
    assert_eq!(page.header("link"), Some(link.as_str()));
    assert_eq!(acme.ids(&format!("?limit=2&cursor={next}")), [5]);
    let unknown = acme.get(&format!("{EVENTS}?consumer=nobody")).expect(404);
    assert_eq!(unknown.problem(), problem("404 Not Found", "not_found", EVENTS, "there is no cursor `nobody`", ""));
    // Whoever has caught up waits as with any cursor.
    keep(&mut acme, "portal", "?from=latest");
    assert_eq!(acme.get(&format!("{EVENTS}?consumer=portal&wait=1")).expect(200).text(), r#"{"events":[]}"#);
}

#[test]
fn a_poller_with_a_name_goes_on_after_a_restart() {
    let mut daemon = TestDaemon::start();
    let key = daemon.acme().key().to_owned();
    let mut seen = Vec::new();
    daemon.client(&key).publish(r#"{"type":"a"}"#);
    keep(&mut daemon.client(&key), "portal", "?from=oldest&limit=1");
    for round in 0..4 {
        let mut acme = daemon.client(&key);
        for _ in 0..3 {
            acme.publish(r#"{"type":"a"}"#);
        }
        let page = acme.get(&format!("{EVENTS}?consumer=portal&limit=2")).expect(200);
        seen.extend(page.json()["events"].as_array().unwrap().iter().map(|event| event["id"].as_u64().unwrap()));
        let body = json!({"cursor": page.header("x-resume-cursor").unwrap()}).to_string();
        put(&mut acme, "portal", &body).expect(204);
        daemon.restart();
        assert_eq!(seen.len(), 2 * (round + 1));
    }
    assert_eq!(seen, (2..=9).collect::<Vec<u64>>());
    assert_eq!(daemon.client(&key).get(&format!("{CURSORS}/portal")).json()["lag"]["events"], 4);
}

#[test]
fn a_cursor_that_names_its_types_brings_them_along() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    for kind in ["claim.created", "policy.bound", "claim.updated", "claim.closed", "policy.lapsed"] {
        acme.publish(json!({"type": kind}).to_string());
    }
    let page = acme.get(&format!("{EVENTS}?types=claim.*&limit=1")).expect(200);
    let cursor = page.header("x-resume-cursor").unwrap().to_owned();
    put(&mut acme, "bare", &json!({"cursor": cursor}).to_string()).expect(204);
    put(&mut acme, "claims", &json!({"cursor": cursor, "types": ["CLAIM.*"]}).to_string()).expect(204);
    assert_eq!(acme.ids("?consumer=claims"), [3, 4]);
    assert_eq!(acme.ids("?consumer=bare&types=claim.*"), [3, 4]);
    let page = acme.get(&format!("{EVENTS}?consumer=claims&limit=1")).expect(200);
    let next = page.header("x-paging-cursor").unwrap();
    let link = format!("<http://{}{EVENTS}?limit=1&types=claim.*&cursor={next}>; rel=\"next\"", daemon.address());
    assert_eq!(page.header("link"), Some(link.as_str()));
    // Only with its types the lag is that of the reader.
    assert_eq!(acme.get(&format!("{CURSORS}/claims")).json()["lag"]["events"], 2);
    assert_eq!(acme.get(&format!("{CURSORS}/bare")).json()["lag"]["events"], 4);
    assert_eq!(acme.get(&format!("{CURSORS}/claims")).json()["types"], json!(["CLAIM.*"]));
    for query in ["?consumer=bare", "?consumer=claims&types=policy.*"] {
        let refused = acme.get(&format!("{EVENTS}{query}")).expect(400);
        let detail = "the cursor belongs to another filter; it works only for the list that it came from";
        assert_eq!(refused.problem(), problem("400 Bad Request", "cursor_mismatch", EVENTS, detail, r#","mismatch":"filter""#));
    }
}

#[test]
fn what_is_no_cursor_of_this_log_is_refused() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    daemon.company("bolt");
    let mut bolt = daemon.client(&daemon.key("bolt", &["events:read"]));
    let path = format!("{CURSORS}/portal");
    let of = |client: &mut Client, query: &str, header: &str| {
        client.get(&format!("{EVENTS}{query}")).expect(200).header(header).unwrap().to_owned()
    };
    for _ in 0..2 {
        acme.publish(r#"{"type":"a"}"#);
    }
    let descending = of(&mut acme, "?order=desc&limit=1", "x-paging-cursor");
    let strange = of(&mut bolt, "", "x-resume-cursor");
    let own = of(&mut acme, "?types=a", "x-resume-cursor");
    let another = |what: &str| format!("the cursor belongs to another {what}; it works only for the list that it came from");
    let mismatch = |what: &str| format!(r#","mismatch":"{what}""#);
    let malformed = "the cursor is not one that this server made".to_owned();
    let no_type = "`a*` is neither a type (claim.created), a type with a version (claim.created@2), nor a prefix (claim.*)";
    for (body, code, pointer, detail, more) in [
        (json!({"cursor": "AA"}), "invalid_cursor", "/cursor", malformed, String::new()),
        (json!({"cursor": descending}), "cursor_mismatch", "/cursor", another("order"), mismatch("order")),
        (json!({"cursor": strange}), "cursor_mismatch", "/cursor", another("company"), mismatch("company")),
        (json!({"cursor": own, "types": ["b"]}), "cursor_mismatch", "/cursor", another("filter"), mismatch("filter")),
        (json!({"cursor": own, "types": ["a*"]}), "invalid_member", "/types", no_type.to_owned(), String::new()),
    ] {
        let refused = put(&mut acme, "portal", &body.to_string()).expect(400);
        let more = format!("{}{more}", at(pointer, &detail));
        assert_eq!(refused.problem(), problem("400 Bad Request", code, &path, &detail, &more), "{body}");
    }
    put(&mut acme, "portal", "{}").expect(400);
    put(&mut acme, "portal", r#"{"cursor":"AA","type":[]}"#).expect(400);
    put(&mut acme, "por%20tal", &json!({"cursor": own}).to_string()).expect(400);
    acme.get(&path).expect(404);
    // Another company has names of its own, and a key must be allowed to read.
    put(&mut acme, "portal", &json!({"cursor": own}).to_string()).expect(204);
    bolt.get(&path).expect(404);
    bolt.delete(&path).expect(404);
    let mut writer = daemon.client(&daemon.key("acme", &["events:write"]));
    put(&mut writer, "portal", &json!({"cursor": own}).to_string()).expect(403);
}

#[test]
fn a_company_has_a_thousand_cursors_at_most() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let cursor = keep(&mut acme, "n-0", "");
    let body = json!({"cursor": cursor}).to_string();
    for number in 1..1_000 {
        put(&mut acme, &format!("n-{number}"), &body).expect(204);
    }
    let path = format!("{CURSORS}/one-more");
    let detail = "a company has at most 1000 named cursors; delete one that is not used any more";
    assert_eq!(put(&mut acme, "one-more", &body).expect(409).problem(), problem("409 Conflict", "too_many_cursors", &path, detail, ""));
    // One that is there is set again, and one more fits after another has gone.
    put(&mut acme, "n-7", &body).expect(204);
    acme.delete(&format!("{CURSORS}/n-8")).expect(204);
    put(&mut acme, "one-more", &body).expect(204);
    assert_eq!(acme.get(CURSORS).expect(200).json()["cursors"].as_array().unwrap().len(), 1_000);
}

#[test]
fn a_named_cursor_behind_lost_events_says_so() {
    let daemon = TestDaemon::with(|config| {
        config.retention.days = 5.0 / 86_400.0;
        config.log_store.segment_bytes_max = 16 * 1024;
    });
    let mut acme = daemon.acme();
    keep(&mut acme, "portal", "");
    for _ in 0..20 {
        acme.publish_patiently(&json!({"type": "a", "payload": {"x": "x".repeat(2_000)}}).to_string());
    }
    daemon.wait_until_sealed();
    daemon.clock.advance(Duration::from_secs(6));
    let fresh = acme.publish(r#"{"type":"a"}"#);
    let check = |acme: &mut Client| {
        let gone = acme.get(&format!("{EVENTS}?consumer=portal")).expect(410).json();
        assert_eq!((gone["code"].as_str(), gone["reason"].as_str()), (Some("cursor_expired"), Some("retention")));
        let shown = acme.get(&format!("{CURSORS}/portal")).expect(200).json();
        assert_eq!((&shown["expired"], &shown["lostSeconds"]), (&json!("retention"), &gone["lostSeconds"]));
        gone["oldestCursor"].as_str().unwrap().to_owned()
    };
    check(&mut acme);
    wait_until("the drop of the old segment", || daemon.status()["segmentsSealed"] == 0);
    let oldest = check(&mut acme);
    put(&mut acme, "portal", &json!({"cursor": oldest}).to_string()).expect(204);
    assert_eq!(acme.ids("?consumer=portal"), [fresh]);
    assert_eq!(acme.get(&format!("{CURSORS}/portal")).json().get("expired"), None);
}
