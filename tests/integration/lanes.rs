//! Subscriptions over time: order, pauses, changes, restarts, retention, and receivers that are ill.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::daemon::TestDaemon;
use crate::support::http::{Client, Request, SUBSCRIPTIONS, problem};
use crate::support::receiver::{Receiver, Reply};
use crate::support::wait_until;

/// Publishes so many events of a type; their ids.
fn publish(acme: &mut Client, kind: &str, count: usize) -> Vec<u64> {
    let mut ids = Vec::new();
    for start in (0..count).step_by(500) {
        let events: Vec<Value> =
            (start..count.min(start + 500)).map(|number| json!({"type": kind, "payload": {"number": number}})).collect();
        let answer = acme.send_patiently(&Request::post("/api/v1/events/batch", json!(events).to_string())).expect(200).json();
        ids.extend(answer["results"].as_array().unwrap().iter().map(|result| result["id"].as_u64().unwrap()));
    }
    ids
}

fn sorted(mut events: Vec<u64>) -> Vec<u64> {
    events.sort_unstable();
    events
}

#[test]
fn what_is_published_during_a_pause_arrives_once_after_it() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let receiver = Receiver::willing();
    acme.subscribe(&receiver.url(), &json!({}));
    let mut events = publish(&mut acme, "a", 10);
    daemon.wait("the first ten", || receiver.count() == 10);
    acme.act(1, "pause").expect(200);
    events.extend(publish(&mut acme, "a", 1000));
    daemon.clock.advance(Duration::from_secs(60));
    daemon.settle(&mut acme);
    assert_eq!(receiver.count(), 10);
    assert_eq!(acme.subscription(1)["backlog"], json!({"events": 1000, "oldestSeconds": 60}));
    acme.act(1, "resume").expect(200);
    daemon.wait("all of them", || receiver.count() >= events.len());
    daemon.wait("no backlog", || acme.subscription(1)["backlog"] == json!({"events": 0, "oldestSeconds": 0}));
    assert_eq!(sorted(receiver.events()), events);
}

#[test]
fn strict_order_waits_for_the_failing_event_until_it_is_dead() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let receiver = Receiver::new(|hook| Reply::Status(if hook.event() == 3 { 500 } else { 204 }));
    acme.subscribe(&receiver.url(), &json!({"ordering": "strict", "overrides": {"retryScheduleSeconds": [100, 100]}}));
    publish(&mut acme, "a", 6);
    wait_until("the failing event", || receiver.count() == 3);
    daemon.settle(&mut acme);
    assert_eq!((receiver.events(), receiver.busiest()), (vec![1, 2, 3], 1));
    daemon.clock.advance(Duration::from_millis(200));
    wait_until("the record", || acme.delivery(1, 3)["nextDueUtc"] != Value::Null);
    assert_eq!(acme.subscription(1)["backlog"]["events"], 4);
    assert_eq!(acme.delivery_list(1, "?state=pending"), [6, 5, 4, 3]);
    for (attempts, count) in [(1, 4), (2, 8)] {
        daemon.wait("the record", || acme.delivery(1, 3)["attempts"].as_array().unwrap().len() == attempts);
        daemon.clock.advance(Duration::from_secs(111));
        wait_until("the next attempt", || receiver.count() == count);
    }
    assert_eq!(receiver.events(), [1, 2, 3, 3, 3, 4, 5, 6]);
    daemon.wait("the record", || acme.delivery_state(1, 6) == "delivered");
    assert_eq!(acme.delivery_state(1, 3), "dead");
    // A dead letter by hand does not block, and is counted beside what waits.
    acme.act(1, "pause").expect(200);
    acme.send(&Request::new("POST", "/api/v1/deliveries/1-3/retry")).expect(202);
    publish(&mut acme, "a", 2);
    assert_eq!(acme.subscription(1)["backlog"]["events"], 3);
}

#[test]
fn an_event_that_blocks_is_still_sent_when_the_filter_or_the_order_changes() {
    for change in [json!({"types": ["other"]}), json!({"ordering": "parallel"})] {
        let daemon = TestDaemon::start();
        let mut acme = daemon.subscriber();
        let receiver = Receiver::answers([500, 204]);
        acme.subscribe(&receiver.url(), &json!({"ordering": "strict", "overrides": {"retryScheduleSeconds": [10]}}));
        acme.publish(r#"{"type":"a"}"#);
        daemon.wait("the record", || acme.delivery(1, 1)["nextDueUtc"] != Value::Null);
        acme.patch(&format!("{SUBSCRIPTIONS}/1"), change.to_string()).expect(200);
        daemon.clock.advance(Duration::from_secs(12));
        wait_until("the second attempt", || receiver.count() == 2);
        daemon.wait("its end", || acme.delivery_state(1, 1) == "delivered");
    }
}

#[test]
fn a_new_filter_is_for_what_lies_above_the_position() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let receiver = Receiver::willing();
    acme.subscribe(&receiver.url(), &json!({"types": ["a"]}));
    acme.publish(r#"{"type":"b"}"#);
    acme.publish(r#"{"type":"a"}"#);
    daemon.wait("the first", || acme.delivery_state(1, 2) == "delivered");
    acme.act(1, "pause").expect(200);
    acme.publish(r#"{"type":"a"}"#);
    acme.publish(r#"{"type":"b"}"#);
    acme.patch(&format!("{SUBSCRIPTIONS}/1"), r#"{"types":["b"]}"#).expect(200);
    acme.act(1, "resume").expect(200);
    acme.publish(r#"{"type":"a"}"#);
    acme.publish(r#"{"type":"b"}"#);
    daemon.wait("the others", || receiver.count() == 3);
    daemon.settle(&mut acme);
    assert_eq!(sorted(receiver.events()), [2, 4, 6], "1 lies below the position, 3 and 5 are of the old filter");
    acme.get("/api/v1/deliveries/1-1").expect(404);
}

#[test]
fn a_new_url_is_for_the_next_attempt() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let (old, new) = (Receiver::answers([500]), Receiver::willing());
    acme.subscribe(&old.url(), &json!({"overrides": {"retryScheduleSeconds": [10]}}));
    acme.publish(r#"{"type":"a"}"#);
    daemon.wait("the record", || acme.delivery(1, 1)["nextDueUtc"] != Value::Null);
    acme.patch(&format!("{SUBSCRIPTIONS}/1"), json!({"url": new.url()}).to_string()).expect(200);
    daemon.clock.advance(Duration::from_secs(12));
    wait_until("the second attempt", || new.count() == 1);
    assert_eq!((old.count(), new.hooks()[0].id()), (1, "evt_1_1"));
}

#[test]
fn what_was_open_when_its_subscription_was_deleted_is_never_sent() {
    let mut daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let receiver = Receiver::answers([500]);
    acme.subscribe(&receiver.url(), &json!({"overrides": {"retryScheduleSeconds": [10]}}));
    publish(&mut acme, "a", 3);
    daemon.wait("the records", || (1..=3).all(|event| acme.delivery(1, event)["nextDueUtc"] != Value::Null));
    acme.delete(&format!("{SUBSCRIPTIONS}/1")).expect(204);
    daemon.restart();
    let mut acme = daemon.client(acme.key());
    let other = Receiver::willing();
    acme.subscribe(&other.url(), &json!({}));
    publish(&mut acme, "a", 1);
    daemon.clock.advance(Duration::from_secs(60));
    wait_until("the webhook of another subscription", || other.count() == 1);
    daemon.settle(&mut acme);
    assert_eq!(receiver.count(), 3);
    let cancelled = acme.delivery(1, 1);
    assert_eq!((&cancelled["state"], cancelled["attempts"].as_array().unwrap().len()), (&json!("cancelled"), 1));
    assert_eq!(cancelled["reason"], "the subscription was deleted");
    acme.send(&Request::new("POST", "/api/v1/deliveries/1-1/retry")).expect(404);
    for unknown in ["1-4", "1-9", "2-1"] {
        acme.get(&format!("/api/v1/deliveries/{unknown}")).expect(404);
    }
    daemon.company("bolt");
    daemon.client(&daemon.key("bolt", &["admin"])).get("/api/v1/deliveries/1-1").expect(404);
}

#[test]
fn a_rate_holds_also_when_every_event_comes_alone() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let receiver = Receiver::willing();
    acme.subscribe(&receiver.url(), &json!({"ratePerMinute": 6}));
    acme.publish(r#"{"type":"a"}"#);
    for count in 1..=3 {
        wait_until("a webhook", || receiver.count() == count);
        daemon.wait("nothing to do", || daemon.metric("lutine_delivery_lanes") == 0);
        acme.publish(r#"{"type":"a"}"#);
        daemon.settle(&mut acme);
        assert_eq!(receiver.count(), count, "an attempt too early");
        daemon.clock.advance(Duration::from_secs(10));
    }
    wait_until("the last webhook", || receiver.count() == 4);
}

#[test]
fn an_orderly_restart_loses_and_doubles_nothing_and_keeps_due_times() {
    let mut daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let fails = Arc::new(AtomicBool::new(true));
    let is_failing = Arc::clone(&fails);
    let (slow, failing) = (
        Receiver::new(|_| Reply::Slow(Duration::from_millis(3), 204)),
        Receiver::new(move |hook| Reply::Status(if is_failing.load(Ordering::SeqCst) && hook.event() % 3 == 0 { 500 } else { 204 })),
    );
    acme.subscribe(&slow.url(), &json!({"maxInFlight": 4}));
    acme.subscribe(&failing.url(), &json!({"overrides": {"retryScheduleSeconds": [1000, 1000]}}));
    let mut events = publish(&mut acme, "a", 600);
    wait_until("some of it", || slow.count() > 50 && failing.count() > 300);
    daemon.stop();
    let at_stop = slow.count();
    assert!(at_stop < events.len(), "the stop comes in the middle");
    daemon.restart();
    let mut acme = daemon.client(acme.key());
    let due = acme.delivery(2, 3)["nextDueUtc"].clone();
    let late = Receiver::willing();
    acme.subscribe(&late.url(), &json!({}));
    let fresh = publish(&mut acme, "a", 100);
    events.extend(&fresh);
    daemon.restart();
    let mut acme = daemon.client(acme.key());
    daemon.wait("everything else", || slow.count() >= events.len() && late.count() >= fresh.len() && failing.count() >= events.len());
    daemon.wait("the records", || acme.subscription(1)["backlog"]["events"] == 0 && acme.subscription(3)["backlog"]["events"] == 0);
    daemon.settle(&mut acme);
    assert_eq!((sorted(slow.events()), sorted(late.events()), sorted(failing.events())), (events.clone(), fresh, events.clone()));
    assert_eq!(acme.delivery(2, 3)["nextDueUtc"], due, "a restart keeps when a retry is due");
    fails.store(false, Ordering::SeqCst);
    daemon.clock.advance(Duration::from_secs(1101));
    let thirds = events.iter().filter(|event| *event % 3 == 0).count();
    daemon.wait("the retries", || failing.count() >= events.len() + thirds);
    daemon.wait("no backlog", || acme.subscription(2)["backlog"]["events"] == 0);
    assert_eq!(failing.count(), events.len() + thirds);
}

#[test]
fn what_a_paused_subscription_never_got_expires_with_a_record() {
    let daemon = TestDaemon::with(|config| {
        config.retention.days = 5.0 / 86_400.0;
        config.log_store.segment_bytes_max = 16 * 1024;
    });
    let mut acme = daemon.subscriber();
    let receiver = Receiver::answers([500, 204]);
    acme.subscribe(&receiver.url(), &json!({"overrides": {"retryScheduleSeconds": [1000]}}));
    acme.publish(r#"{"type":"a"}"#);
    daemon.wait("the record", || acme.delivery(1, 1)["nextDueUtc"] != Value::Null);
    acme.act(1, "pause").expect(200);
    let payload = "x".repeat(2_000);
    for _ in 0..60 {
        acme.publish_patiently(&json!({"type": "a", "payload": {"x": payload}}).to_string());
    }
    daemon.wait_until_sealed();
    assert_eq!(acme.subscription(1)["backlog"]["events"], 61);
    let before = daemon.disk_bytes("log");
    daemon.clock.advance(Duration::from_secs(6));
    wait_until("the drop of the sealed segments", || daemon.status()["segmentsSealed"] == 0);
    wait_until("the record", || acme.subscription(1)["backlog"]["events"] == 0);
    assert!(daemon.disk_bytes("log") < before);
    for event in [1, 2, 30, 61] {
        let delivery = acme.delivery(1, event);
        assert_eq!((&delivery["state"], &delivery["attempts"]), (&json!("expired"), &json!([])), "{event}");
        let path = format!("/api/v1/deliveries/1-{event}/retry");
        let refused = acme.send(&Request::new("POST", &path)).expect(410);
        assert_eq!(
            refused.problem(),
            problem("410 Gone", "event_expired", &path, "the event of this delivery was removed by retention", "")
        );
    }
    acme.get("/api/v1/deliveries/1-62").expect(404);
    assert_eq!(daemon.metric("lutine_deliveries_expired_total"), 61);
    acme.act(1, "resume").expect(200);
    let fresh = acme.publish(r#"{"type":"a"}"#);
    wait_until("the next event", || receiver.count() == 2);
    assert_eq!(receiver.events(), [1, fresh]);
}

#[test]
fn an_attempt_under_way_when_its_event_expires_is_counted_once_and_when_it_has_failed() {
    let daemon = TestDaemon::with(|config| config.retention.days = 5.0 / 86_400.0);
    let mut acme = daemon.subscriber();
    let receiver = Receiver::new(|hook| if hook.event() == 1 { Reply::Hang } else { Reply::Status(204) });
    acme.subscribe(&receiver.url(), &json!({"overrides": {"retryScheduleSeconds": [1000]}}));
    acme.subscribe(&receiver.url(), &json!({}));
    acme.act(2, "pause").expect(200);
    publish(&mut acme, "a", 5);
    daemon.wait("the others", || acme.delivery_list(1, "?state=delivered").len() == 4);
    daemon.clock.advance(Duration::from_secs(6));
    // The paused one is looked at behind the other.
    wait_until("the look for what has expired", || daemon.metric("lutine_deliveries_expired_total") >= 5);
    assert_eq!(daemon.metric("lutine_deliveries_expired_total"), 5);
    receiver.release();
    wait_until("the record", || daemon.metric("lutine_deliveries_expired_total") == 6);
    wait_until("the record on disk", || acme.get("/api/v1/deliveries/1-1").status == 200);
    assert_eq!(acme.delivery_state(1, 1), "expired");
    let fresh = acme.publish(r#"{"type":"a"}"#);
    daemon.wait("the next event", || acme.delivery_state(1, fresh) == "delivered");
    assert_eq!(daemon.metric("lutine_deliveries_expired_total"), 6);
}

#[test]
fn receivers_that_hang_do_not_hold_up_a_healthy_one() {
    let alone = {
        let daemon = TestDaemon::start();
        let mut acme = daemon.subscriber();
        let healthy = Receiver::willing();
        acme.subscribe(&healthy.url(), &json!({"types": ["b"]}));
        let started = Instant::now();
        publish(&mut acme, "b", 200);
        daemon.wait("all of it", || healthy.count() == 200);
        started.elapsed()
    };
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    // More than enough to take all of the daemon's 512 attempts before any of them is known to hang.
    let (healthy, hanging) = (Receiver::willing(), [(); 100].map(|()| Receiver::new(|_| Reply::Hang)));
    for receiver in &hanging {
        acme.subscribe(&receiver.url(), &json!({}));
    }
    acme.subscribe(&healthy.url(), &json!({"types": ["b"]}));
    publish(&mut acme, "a", 40);
    wait_until("all of them hanging", || hanging.iter().all(|receiver| receiver.count() > 0));
    let started = Instant::now();
    publish(&mut acme, "b", 200);
    let mut in_flight_max = 0;
    daemon.wait("all of it", || {
        in_flight_max = in_flight_max.max(daemon.metric("lutine_delivery_attempts_in_flight"));
        healthy.count() == 200
    });
    let beside = started.elapsed();
    println!("200 webhooks: alone {alone:?}, beside 100 that hang {beside:?}, {in_flight_max} in flight at most");
    assert!(beside < alone * 10 + Duration::from_secs(2), "{beside:?} beside, {alone:?} alone");
    let ended = daemon.metric("lutine_delivery_attempt_seconds_count");
    assert!(ended <= 200, "{} attempts that hang had to end first", ended - 200);
    assert!(in_flight_max <= 512, "{in_flight_max}");
    assert!(hanging.iter().all(|receiver| receiver.busiest() <= 16) && healthy.busiest() <= 16);
    hanging.iter().for_each(Receiver::release);
}

#[test]
fn a_long_answer_is_not_read_to_its_end() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let receiver = Receiver::new(|_| Reply::Long(100 * 1024 * 1024));
    acme.subscribe(&receiver.url(), &json!({"overrides": {"retryScheduleSeconds": []}}));
    acme.publish(r#"{"type":"a"}"#);
    daemon.wait("the end of it", || acme.delivery_state(1, 1) == "delivered");
    let attempt = daemon.client(&daemon.key("acme", &["admin"])).delivery(1, 1)["attempts"][0].clone();
    assert_eq!((&attempt["status"], &attempt["errorClass"], &attempt["truncated"]), (&json!(200), &Value::Null, &json!(true)));
    assert_eq!(attempt["excerpt"].as_str().unwrap().len(), 2 * 1024);
    assert!(receiver.written() < 16 * 1024 * 1024, "{}", receiver.written());
}

#[test]
fn of_an_answer_more_is_kept_when_it_tells_why_a_delivery_failed() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let receiver = Receiver::new(|hook| Reply::Full(if hook.number == 0 { 500 } else { 200 }, "", "ø".repeat(20_000)));
    acme.subscribe(&receiver.url(), &json!({"overrides": {"retryScheduleSeconds": [1]}}));
    acme.publish(r#"{"type":"a"}"#);
    daemon.wait("the second attempt", || acme.delivery_state(1, 1) == "delivered");
    let attempts = daemon.client(&daemon.key("acme", &["admin"])).delivery(1, 1)["attempts"].clone();
    let kept = |number: usize| {
        let attempt = &attempts[number];
        (attempt["status"].as_u64().unwrap(), attempt["excerpt"].as_str().unwrap().len(), attempt["truncated"].as_bool().unwrap())
    };
    assert_eq!((kept(0), kept(1)), ((500, 16 * 1024, true), (200, 2 * 1024, true)));
}

#[test]
fn a_receiver_that_fails_for_a_minute_is_probed_until_it_answers() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let status = Arc::new(AtomicU16::new(500));
    let answer = Arc::clone(&status);
    let receiver = Receiver::new(move |_| Reply::Status(answer.load(Ordering::SeqCst)));
    acme.subscribe(&receiver.url(), &json!({"overrides": {"retryScheduleSeconds": vec![5; 30]}}));
    let events = publish(&mut acme, "a", 5);
    let state = |acme: &mut Client| acme.subscription(1)["state"].as_str().unwrap().to_owned();
    // Rounds of five failures, half a minute in all: enough of them, in too little time.
    for round in 1..=6 {
        wait_until("a round", || receiver.count() == 5 * round && daemon.metric("lutine_delivery_attempts_in_flight") == 0);
        if round < 6 {
            daemon.clock.advance(Duration::from_millis(5_600));
        }
    }
    assert_eq!(state(&mut acme), "active");
    daemon.clock.advance(Duration::from_secs(40));
    wait_until("a failure after a minute", || receiver.count() > 30);
    daemon.wait("the probing", || state(&mut acme) == "probing");
    daemon.settle(&mut acme);
    let before = receiver.count();
    assert_eq!(acme.subscription(1)["backlog"]["events"], 5);
    let more = publish(&mut acme, "a", 3);
    assert_eq!(acme.subscription(1)["backlog"]["events"], 8);
    let mut count = before;
    for (least, most) in [(7, 4), (16, 5), (34, 7)] {
        daemon.clock.advance(Duration::from_secs(least));
        daemon.settle(&mut acme);
        assert_eq!(receiver.count(), count, "a probe after less than {least} s");
        daemon.clock.advance(Duration::from_secs(most));
        count += 1;
        wait_until("the probe", || receiver.count() == count);
        daemon.settle(&mut acme);
        assert_eq!(receiver.count(), count, "one at a time");
    }
    status.store(204, Ordering::SeqCst);
    daemon.clock.advance(Duration::from_secs(90));
    daemon.wait("the recovery", || state(&mut acme) == "active");
    daemon.wait("the rest", || acme.subscription(1)["backlog"]["events"] == 0);
    let delivered: HashSet<u64> = receiver.events().into_iter().collect();
    assert!(events.iter().chain(&more).all(|event| delivered.contains(event)));
    assert_eq!(acme.delivery_list(1, "?state=delivered").len(), 8);
}

#[test]
fn the_log_of_deliveries_is_filtered_and_paged_newest_first() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let receiver = Receiver::new(|hook| Reply::Status(if hook.event() % 2 == 0 { 413 } else { 204 }));
    acme.subscribe(&receiver.url(), &json!({}));
    acme.subscribe(&receiver.url(), &json!({"types": ["none"]}));
    // So that the events about dead letters come behind all of them.
    acme.act(1, "pause").expect(200);
    for kind in ["claim.a", "claim.b", "policy.a"] {
        publish(&mut acme, kind, 10);
    }
    acme.act(1, "resume").expect(200);
    daemon.wait("an end", || acme.delivery_list(1, "?state=delivered").len() == 15 && acme.delivery_list(1, "?state=dead").len() == 15);
    assert_eq!(acme.delivery_list(1, ""), (1..=30).rev().collect::<Vec<u64>>());
    assert_eq!(acme.delivery_list(1, "?types=claim.*&state=dead"), [20, 18, 16, 14, 12, 10, 8, 6, 4, 2]);
    assert_eq!(acme.delivery_list(1, "?types=POLICY.a&limit=3"), [30, 29, 28]);
    assert!(acme.delivery_list(1, "?state=pending").is_empty() && acme.delivery_list(2, "").is_empty());
    let list = format!("{SUBSCRIPTIONS}/1/deliveries");
    let (mut walked, mut query) = (Vec::new(), "?limit=7".to_owned());
    let mut cursors = Vec::new();
    loop {
        let page = acme.get(&format!("{list}{query}")).expect(200);
        walked.extend(page.json()["deliveries"].as_array().unwrap().iter().map(|one| one["eventId"].as_u64().unwrap()));
        let Some(cursor) = page.header("x-paging-cursor") else { break };
        cursors.push(cursor.to_owned());
        query = format!("?limit=7&cursor={cursor}");
    }
    assert_eq!(walked, (1..=30).rev().collect::<Vec<u64>>());
    let one = acme.get(&format!("{list}?limit=1")).expect(200);
    let shown = r#"{"deliveries":[{"id":"1-30","subscriptionId":1,"eventId":30,"type":"policy.a","state":"dead","replay":null,"nextDueUtc":null,"reason":"the receiver refused it"}]}"#;
    assert_eq!(one.text(), shown);
    let cursor = &cursors[0];
    let events = acme.get("/api/v1/events?limit=1&order=desc").expect(200).header("x-paging-cursor").unwrap().to_owned();
    for (path, wrong) in [
        (format!("{SUBSCRIPTIONS}/2/deliveries"), format!("?cursor={cursor}")),
        (list.clone(), format!("?state=dead&cursor={cursor}")),
        (list.clone(), format!("?types=claim.*&cursor={cursor}")),
        (list.clone(), format!("?cursor={events}")),
    ] {
        assert_eq!(acme.get(&format!("{path}{wrong}")).expect(400).json()["code"], "cursor_mismatch", "{path}{wrong}");
    }
    for (query, code) in [
        ("?cursor=x", "invalid_cursor"),
        ("?limit=201", "invalid_parameter"),
        ("?limit=0", "invalid_parameter"),
        ("?state=dade", "invalid_parameter"),
        ("?stat=dead", "unknown_parameter"),
        ("?types=a%20b", "invalid_parameter"),
        ("?state=dead&state=dead", "repeated_parameter"),
    ] {
        assert_eq!(acme.get(&format!("{list}{query}")).expect(400).json()["code"], code, "{query}");
    }
    for wrong in ["1", "1-", "1-x", "1-2-3", "-1", "1-1-r0", "1-1-r"] {
        assert_eq!(acme.get(&format!("/api/v1/deliveries/{wrong}")).expect(400).json()["code"], "invalid_id", "{wrong}");
    }
}

#[test]
fn addresses_and_answers_of_private_networks_are_for_administrators() {
    let mut daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let receiver = Receiver::new(|_| Reply::Full(500, "", "an inner secret".to_owned()));
    acme.subscribe(&receiver.url(), &json!({"overrides": {"retryScheduleSeconds": []}}));
    acme.publish(r#"{"type":"a"}"#);
    daemon.wait("the dead letter", || acme.delivery_state(1, 1) == "dead");
    let admin_key = daemon.key("acme", &["admin"]);
    let look = |client: &mut Client| {
        let attempt = client.delivery(1, 1)["attempts"][0].clone();
        (attempt["address"].clone(), attempt["excerpt"].clone())
    };
    assert_eq!(look(&mut acme), (Value::Null, Value::Null));
    assert_eq!(look(&mut daemon.client(&admin_key)), (json!("127.0.0.1"), json!("an inner secret")));
    let error = acme.delivery(1, 1)["attempts"][0]["error"].as_str().unwrap().to_owned();
    assert!(!error.contains("secret") && !error.contains("127.0.0.1"), "{error}");
    daemon.restart_with(|config| config.delivery.private_excerpts = true);
    assert_eq!(look(&mut daemon.client(acme.key())), (Value::Null, json!("an inner secret")));
}
