//! Pages of the log: filters, order, cursors.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::clock::START;
use crate::support::daemon::TestDaemon;
use crate::support::http::{Client, Request, at, problem};

const EVENTS: &str = "/api/v1/events";

/// Publishes events of these types, a second apart.
fn publish_each(daemon: &TestDaemon, client: &mut Client, kinds: &[&str]) {
    for kind in kinds {
        let (kind, version) = kind.split_once('@').unwrap_or((kind, "1"));
        client.publish(json!({"type": kind, "version": version, "payload": {"n": version}}).to_string());
        daemon.clock.advance(Duration::from_secs(1));
    }
}

fn ids_of(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["id"].as_u64().unwrap()).collect()
}

#[test]
fn a_page_has_fifty_events_unless_told_otherwise() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let batch = vec![r#"{"type":"a"}"#; 250].join("\n");
    acme.send(&Request::new("POST", "/api/v1/events/batch").body("application/x-ndjson", batch)).expect(200);
    assert_eq!(acme.ids(""), (1..=50).collect::<Vec<_>>());
    assert_eq!(acme.ids("?limit=1"), [1]);
    assert_eq!(acme.ids("?limit=200"), (1..=200).collect::<Vec<_>>());
    assert_eq!(acme.ids("?order=desc&limit=3"), [250, 249, 248]);
}

#[test]
fn the_paging_cursor_is_there_only_when_there_is_more_and_the_resume_cursor_always() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let empty = acme.get(EVENTS).expect(200);
    assert_eq!(empty.text(), r#"{"events":[]}"#);
    assert_eq!((empty.header("x-paging-cursor"), empty.header("link")), (None, None));
    let resume = empty.header("x-resume-cursor").expect("a resume cursor").to_owned();
    publish_each(&daemon, &mut acme, &["a", "b", "c"]);
    assert_eq!(acme.ids(&format!("?cursor={resume}")), [1, 2, 3]);
    let exact = acme.get(&format!("{EVENTS}?limit=3")).expect(200);
    assert_eq!((exact.header("x-paging-cursor"), exact.header("link")), (None, None));
    let part = acme.get(&format!("{EVENTS}?limit=2")).expect(200);
    assert_eq!(part.header("x-paging-cursor"), part.header("x-resume-cursor"));
    assert_eq!(acme.ids(&format!("?cursor={}", part.header("x-paging-cursor").unwrap())), [3]);
    let rest = acme.get(&format!("{EVENTS}?cursor={}", exact.header("x-resume-cursor").unwrap())).expect(200);
    assert_eq!(rest.text(), r#"{"events":[]}"#);
    publish_each(&daemon, &mut acme, &["d"]);
    assert_eq!(acme.ids(&format!("?cursor={}", rest.header("x-resume-cursor").unwrap())), [4]);
}

#[test]
fn events_of_one_moment_are_told_apart() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    for id in 1..=5 {
        let resume = acme.get(EVENTS).expect(200).header("x-resume-cursor").unwrap().to_owned();
        acme.publish(r#"{"type":"a"}"#);
        assert_eq!(acme.ids(&format!("?cursor={resume}")), [id]);
    }
    assert!(acme.list("").iter().all(|event| event["createdUtc"] == START));
}

/// The target of the answer's `Link`, without scheme and address.
fn next(daemon: &TestDaemon, answer: &crate::support::http::Answer) -> String {
    let link = answer.header("link").expect("a link");
    let start = format!("<http://{}", daemon.address());
    let target = link.strip_prefix(start.as_str()).and_then(|rest| rest.strip_suffix(">; rel=\"next\""));
    target.unwrap_or_else(|| panic!("{link}")).to_owned()
}

#[test]
fn the_link_leads_on_through_the_same_list() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    publish_each(&daemon, &mut acme, &["a.x", "b", "a.y", "a.z"]);
    for query in ["types=a.*&limit=2", "limit=2&from=oldest&types=A.%2A", "%66rom=oldest&limit=2&types=a.*", "&&limit=2&types=a.*&"] {
        let first = acme.get(&format!("{EVENTS}?{query}")).expect(200);
        assert_eq!(ids_of(first.json()["events"].as_array().unwrap()), [1, 3]);
        let second = acme.get(&next(&daemon, &first)).expect(200);
        assert_eq!(ids_of(second.json()["events"].as_array().unwrap()), [4], "{query}");
    }
}

#[test]
fn the_link_starts_with_the_public_address() {
    let daemon = TestDaemon::with(|config| config.public_url = "https://events.insurer.example/lutine".to_owned());
    let mut acme = daemon.acme();
    publish_each(&daemon, &mut acme, &["a", "b"]);
    let page = acme.get(&format!("{EVENTS}?limit=1")).expect(200);
    let cursor = page.header("x-paging-cursor").unwrap();
    let expected = format!("<https://events.insurer.example/lutine/api/v1/events?limit=1&cursor={cursor}>; rel=\"next\"");
    assert_eq!(page.header("link"), Some(expected.as_str()));
}

#[test]
fn types_filter_without_case_by_prefix_and_by_version() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    publish_each(
        &daemon,
        &mut acme,
        &["claim.created", "claim.created@2", "Claim.Closed", "claim", "claims.created", "policy.bound@1.0.0"],
    );
    for (types, expected) in [
        ("claim.*", vec![1, 2, 3]),
        ("CLAIM.*", vec![1, 2, 3]),
        ("claim.created", vec![1, 2]),
        ("Claim.Created@2", vec![2]),
        ("claim.created@1", vec![1]),
        ("claim.*@2", vec![2]),
        ("claim.created@3", vec![]),
        ("claim,policy.bound@1.0.0", vec![4, 6]),
        ("claim,%20policy.bound", vec![4, 6]),
        ("nothing", vec![]),
    ] {
        assert_eq!(acme.ids(&format!("?types={types}")), expected, "{types}");
        let mut reversed = expected;
        reversed.reverse();
        assert_eq!(acme.ids(&format!("?order=desc&types={types}")), reversed, "{types}");
    }
}

#[test]
fn own_events_are_seen_only_by_those_who_name_them_and_published_by_nobody() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    publish_each(&daemon, &mut acme, &["a"]);
    let subscription = json!({"url": "http://127.0.0.1:9/", "types": ["nothing"], "profile": "standard"}).to_string();
    let mut admin = daemon.client(&daemon.key("acme", &["admin"]));
    admin.post("/api/v1/webhooks/subscriptions", subscription).expect(201);
    admin.post("/api/v1/webhooks/subscriptions/1/test", "").expect(202);
    publish_each(&daemon, &mut acme, &["b"]);
    assert_eq!(acme.ids(""), [1, 3]);
    assert_eq!(acme.ids("?order=desc"), [3, 1]);
    assert_eq!(acme.ids("?types=lutine.*"), [2]);
    assert_eq!(acme.ids("?types=lutine.subscription.test,a"), [1, 2]);
    assert_eq!(acme.get(&format!("{EVENTS}?limit=2")).header("x-paging-cursor"), None);
    let detail = "types that begin with `lutine.` are the daemon's own; `Lutine.Other` cannot be published";
    assert_eq!(
        acme.post(EVENTS, r#"{"type":"Lutine.Other"}"#).problem(),
        problem("400 Bad Request", "reserved_type", EVENTS, detail, &at("/type", detail))
    );
}

#[test]
fn a_list_starts_at_the_oldest_the_latest_or_a_time() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    publish_each(&daemon, &mut acme, &["a", "b", "c"]);
    for (from, expected) in [
        ("oldest", vec![1, 2, 3]),
        ("latest", vec![]),
        (START, vec![1, 2, 3]),
        ("2026-11-22T10:30:01.123456Z", vec![2, 3]),
        ("2026-11-22T10:30:01.123457Z", vec![3]),
        ("2026-11-22T11:30:02.123456%2B01:00", vec![3]),
        ("2026-11-22T11:30:02.123456+01:00", vec![3]),
        ("2026-11-22T10:30:03Z", vec![]),
        ("1990-01-01T00:00:00Z", vec![1, 2, 3]),
        ("2090-01-01T00:00:00Z", vec![]),
    ] {
        assert_eq!(acme.ids(&format!("?from={from}")), expected, "{from}");
    }
    let latest = acme.get(&format!("{EVENTS}?from=latest")).expect(200);
    publish_each(&daemon, &mut acme, &["d"]);
    assert_eq!(acme.ids(&format!("?cursor={}", latest.header("x-resume-cursor").unwrap())), [4]);
}

#[test]
fn a_descending_list_starts_at_a_time_inclusive() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    publish_each(&daemon, &mut acme, &["a", "b", "c"]);
    for (from, expected) in [
        ("latest", vec![3, 2, 1]),
        ("2026-11-22T10:30:01.123456Z", vec![2, 1]),
        ("2026-11-22T10:30:01.123455Z", vec![1]),
        ("oldest", vec![]),
    ] {
        assert_eq!(acme.ids(&format!("?order=desc&from={from}")), expected, "{from}");
    }
}

#[test]
fn a_cursor_of_another_list_is_refused() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    daemon.company("bolt");
    let mut bolt = daemon.client(&daemon.key("bolt", &["events:read"]));
    publish_each(&daemon, &mut acme, &["a", "b", "c"]);
    let mut cursor = |query: &str| acme.get(&format!("{EVENTS}?limit=1{query}")).header("x-paging-cursor").unwrap().to_owned();
    let (plain, filtered, descending) = (cursor(""), cursor("&types=a,b"), cursor("&order=desc"));
    let elsewhere = TestDaemon::start();
    let mut stranger = elsewhere.acme();
    publish_each(&elsewhere, &mut stranger, &["a", "b"]);
    let foreign = stranger.get(&format!("{EVENTS}?limit=1")).header("x-paging-cursor").unwrap().to_owned();
    for (client, query, what) in [
        (0, format!("cursor={plain}&types=a"), "filter"),
        (0, format!("cursor={filtered}"), "filter"),
        (0, format!("cursor={filtered}&types=a"), "filter"),
        (0, format!("cursor={plain}&order=desc"), "order"),
        (0, format!("cursor={descending}"), "order"),
        (0, format!("cursor={foreign}"), "store"),
        (1, format!("cursor={plain}"), "company"),
    ] {
        let client = if client == 0 { &mut acme } else { &mut bolt };
        let refused = client.get(&format!("{EVENTS}?{query}")).expect(400);
        let detail = format!("the cursor belongs to another {what}; it works only for the list that it came from");
        let more = format!(r#","mismatch":"{what}""#);
        assert_eq!(refused.problem(), problem("400 Bad Request", "cursor_mismatch", EVENTS, &detail, &more), "{query}");
    }
    // The same filter in another spelling and order, and another limit, are the same list.
    assert_eq!(acme.ids(&format!("?cursor={filtered}&types=B,%20a&limit=7")), [2]);
}

#[test]
fn a_changed_cursor_is_refused_whatever_is_changed() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    publish_each(&daemon, &mut acme, &["a", "b"]);
    let cursor = acme.get(&format!("{EVENTS}?limit=1")).header("x-paging-cursor").unwrap().to_owned();
    for place in 0..cursor.len() {
        let letter = if cursor.as_bytes()[place] == b'A' { "B" } else { "A" };
        let mut changed = cursor.clone();
        changed.replace_range(place..=place, letter);
        assert_eq!(acme.get(&format!("{EVENTS}?cursor={changed}")).status, 400, "{changed}");
    }
    for changed in [format!("{cursor}="), format!("{cursor}A"), cursor[1..].to_owned(), "A".repeat(10_000)] {
        let refused = acme.get(&format!("{EVENTS}?cursor={changed}")).expect(400);
        assert_eq!(refused.json()["code"], "invalid_cursor");
    }
}

#[test]
fn a_cursor_works_after_a_restart() {
    let mut daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    publish_each(&daemon, &mut acme, &["a", "b", "c"]);
    let cursor = acme.get(&format!("{EVENTS}?limit=1")).header("x-paging-cursor").unwrap().to_owned();
    daemon.restart();
    let mut acme = daemon.client(acme.key());
    assert_eq!(acme.ids(&format!("?cursor={cursor}")), [2, 3]);
}

#[test]
fn a_list_shows_only_the_companys_own_events() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    daemon.company("bolt");
    let mut bolt = daemon.client(&daemon.key("bolt", &["events:read", "events:write"]));
    for _ in 0..3 {
        acme.publish(r#"{"type":"a"}"#);
        bolt.publish(r#"{"type":"a"}"#);
    }
    assert_eq!((acme.ids(""), bolt.ids("")), (vec![1, 3, 5], vec![2, 4, 6]));
    assert_eq!(acme.ids("?order=desc&types=a"), [5, 3, 1]);
}

/// A log of two companies' events over several small segments, some of them sealed; the ids of the first company.
fn mixed_log(daemon: &TestDaemon, acme: &mut Client) -> Vec<u64> {
    daemon.company("bolt");
    let mut bolt = daemon.client(&daemon.key("bolt", &["events:write"]));
    let filler = "x".repeat(300);
    let mut ids = Vec::new();
    for number in 0..110 {
        let kind = ["claim.created", "policy.bound", "claim.closed"][number % 3];
        let event = json!({"type": kind, "payload": {"number": number, "filler": filler}}).to_string();
        if number % 10 == 0 {
            let body = format!("[{}]", vec![event; 5].join(","));
            let batch = acme.send_patiently(&Request::post("/api/v1/events/batch", body)).expect(200).json();
            ids.extend(batch["results"].as_array().unwrap().iter().map(|result| result["id"].as_u64().unwrap()));
        } else {
            ids.push(acme.publish_patiently(&event));
        }
        bolt.publish_patiently(r#"{"type":"claim.created"}"#);
        if number % 7 == 0 {
            daemon.clock.advance(Duration::from_millis(1));
        }
    }
    daemon.wait_until_sealed();
    assert!(daemon.status()["segmentsSealed"].as_u64().unwrap() >= 2, "{}", daemon.status());
    ids
}

#[test]
fn pages_of_every_size_give_every_event_once_in_order() {
    let daemon = TestDaemon::with(|config| config.log_store.segment_bytes_max = 16 * 1024);
    let mut acme = daemon.acme();
    let ids = mixed_log(&daemon, &mut acme);
    let reversed: Vec<u64> = ids.iter().rev().copied().collect();
    let claims: Vec<u64> = acme.walk("&types=claim.*", 200).iter().map(|event| event["id"].as_u64().unwrap()).collect();
    assert!(claims.len() > 50 && claims.len() < ids.len());
    let sizes = (1..=16).chain([31, 50, 77, 149, 150, 153, 154, 155, 200]);
    for limit in sizes {
        assert_eq!(ids_of(&acme.walk("", limit)), ids, "pages of {limit}");
        assert_eq!(ids_of(&acme.walk("&order=desc", limit)), reversed, "descending pages of {limit}");
        assert_eq!(ids_of(&acme.walk("&types=CLAIM.*", limit)), claims, "pages of {limit} claims");
    }
}

#[test]
fn a_descending_walk_sees_nothing_that_is_published_meanwhile_and_its_resume_cursor_misses_nothing() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    publish_each(&daemon, &mut acme, &["a"; 30]);
    let mut seen = Vec::new();
    let mut resumes = Vec::new();
    let mut query = "?order=desc&limit=7".to_owned();
    loop {
        let page = acme.get(&format!("{EVENTS}{query}")).expect(200);
        seen.extend(ids_of(page.json()["events"].as_array().unwrap()));
        resumes.push(page.header("x-resume-cursor").unwrap().to_owned());
        publish_each(&daemon, &mut acme, &["b", "a"]);
        match page.header("x-paging-cursor") {
            Some(cursor) => query = format!("?order=desc&limit=7&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, (1..=30).rev().collect::<Vec<_>>());
    for resume in resumes {
        assert_eq!(acme.ids(&format!("?cursor={resume}")), (31..=40).collect::<Vec<_>>());
    }
}

#[test]
fn a_page_ends_at_four_mebibytes_and_says_that_there_is_more() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let event = json!({"type": "a", "payload": format!("\"{}\"", "x".repeat(200_000))}).to_string();
    let ids: Vec<u64> = (0..30).map(|_| acme.publish(event.clone())).collect();
    let page = acme.get(&format!("{EVENTS}?limit=200")).expect(200);
    assert!(page.body.len() < 5 * 1024 * 1024 && page.header("x-paging-cursor").is_some());
    assert_eq!(ids_of(&acme.walk("", 200)), ids);
}
