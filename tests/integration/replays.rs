//! What was sent before, or should have been, once more: replays, and dead letters all at once.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::daemon::TestDaemon;
use crate::support::http::{Client, Request, SUBSCRIPTIONS};
use crate::support::receiver::{Hook, Receiver, Reply};
use crate::support::wait_until;

fn publish(acme: &mut Client, kind: &str, count: usize) {
    let events: Vec<Value> = (0..count).map(|number| json!({"type": kind, "payload": {"number": number}})).collect();
    acme.send_patiently(&Request::post("/api/v1/events/batch", json!(events).to_string())).expect(200);
}

fn replay(acme: &mut Client, body: &Value) -> Value {
    acme.post(&format!("{SUBSCRIPTIONS}/1/replay"), body.to_string()).expect(if body["dryRun"] == true { 200 } else { 202 }).json()
}

fn show(acme: &mut Client, id: u64) -> Value {
    acme.get(&format!("/api/v1/replays/{id}")).expect(200).json()
}

/// Events that came by a run, in the order of their ids.
fn of_run(receiver: &Receiver, run: &str) -> Vec<u64> {
    let mut events: Vec<u64> = receiver.hooks().iter().filter(|hook| hook.id().ends_with(run)).map(Hook::event).collect();
    events.sort_unstable();
    events
}

#[test]
fn a_window_is_counted_sent_again_cancelled_half_way_and_finished_later() {
    let mut daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let receiver = Receiver::willing();
    acme.subscribe(&receiver.url(), &json!({}));
    publish(&mut acme, "a", 100);
    daemon.clock.advance(Duration::from_secs(60));
    let from = acme.publish(r#"{"type":"a"}"#);
    let from_time = acme.get(&format!("/api/v1/events/{from}")).json()["createdUtc"].clone();
    publish(&mut acme, "a", 299);
    publish(&mut acme, "b", 10);
    daemon.clock.advance(Duration::from_secs(60));
    let behind = acme.publish(r#"{"type":"a"}"#);
    let to_time = acme.get(&format!("/api/v1/events/{behind}")).json()["createdUtc"].clone();
    daemon.wait("all of them", || receiver.count() == 411);
    daemon.wait("the records", || acme.subscription(1)["backlog"]["events"] == 0);

    let mut window = json!({"from": from_time, "to": to_time, "types": ["a"], "dryRun": true});
    assert_eq!(replay(&mut acme, &window), json!({"count": 300}));
    assert_eq!(receiver.count(), 411);
    window["dryRun"] = json!(false);
    window["ratePerMinute"] = json!(600);
    assert_eq!(replay(&mut acme, &window), json!({"replayId": 1, "count": 300}));
    // A second's worth of attempts, and no more while the clock stands still.
    wait_until("the first ten", || of_run(&receiver, "_r1").len() == 10);
    acme.publish(r#"{"type":"a"}"#);
    wait_until("the event beside the replay", || receiver.count() == 422);
    for count in (15..=150).step_by(5) {
        daemon.clock.advance(Duration::from_millis(500));
        wait_until("five more", || of_run(&receiver, "_r1").len() == count);
    }
    daemon.wait("the record", || show(&mut acme, 1)["done"].as_u64().unwrap() >= 150);
    assert_eq!(show(&mut acme, 1)["state"], "running");
    daemon.restart();
    let mut acme = daemon.client(acme.key());
    assert_eq!(acme.subscription(1)["backlog"]["events"], 0, "the position has not moved back");
    let sent = of_run(&receiver, "_r1").len();
    let cancelled = acme.send(&Request::new("POST", "/api/v1/replays/1/cancel")).expect(202).json();
    assert_eq!(cancelled["state"], "cancelled");
    daemon.clock.advance(Duration::from_secs(600));
    acme.send(&Request::new("POST", "/api/v1/replays/1/cancel")).expect(409);
    acme.publish(r#"{"type":"a"}"#);
    daemon.wait("the next event", || acme.delivery_state(1, behind + 2) == "delivered");
    let after = of_run(&receiver, "_r1").len();
    assert!(after < 300 && after - sent <= 26, "{sent} sent before, {after} after it was cancelled");

    // Another replay goes on where that one was, whatever was sent above its position.
    daemon.restart();
    let mut acme = daemon.client(acme.key());
    let shown = show(&mut acme, 1);
    assert_eq!(shown["state"], "cancelled");
    let rest = replay(&mut acme, &json!({"from": shown["cursor"], "to": to_time, "types": ["a"]}));
    assert_eq!(rest["replayId"], 2);
    daemon.wait("its end", || show(&mut acme, 2)["state"] == "done");
    let all: BTreeSet<u64> = of_run(&receiver, "_r1").into_iter().chain(of_run(&receiver, "_r2")).collect();
    assert_eq!(all.into_iter().collect::<Vec<_>>(), (from..from + 300).collect::<Vec<_>>());
    assert_eq!(show(&mut acme, 2)["done"], rest["count"]);
    assert_eq!(of_run(&receiver, "_1").len(), 413, "everything came once by itself");
    let listed = acme.get("/api/v1/replays?subscription=1").expect(200).json();
    let states: Vec<&Value> = listed["replays"].as_array().unwrap().iter().map(|replay| &replay["state"]).collect();
    assert_eq!(states, ["done", "cancelled"]);
}

#[test]
fn a_replayed_event_is_the_same_but_for_its_id_and_has_a_delivery_of_its_own() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let receiver = Receiver::new(|hook| Reply::Status(if hook.number == 1 { 500 } else { 204 }));
    acme.subscribe(&receiver.url(), &json!({"overrides": {"retryScheduleSeconds": [10]}}));
    acme.publish(r#"{"type":"a","payload":{ "x" : 1.50 }}"#);
    daemon.wait("the record", || acme.delivery_state(1, 1) == "delivered");
    assert_eq!(replay(&mut acme, &json!({"ids": [1]})), json!({"replayId": 1, "count": 1}));
    let again = |acme: &mut Client| acme.get("/api/v1/deliveries/1-1-r1").expect(200).json();
    daemon.wait("the record", || again(&mut acme)["nextDueUtc"] != Value::Null);
    assert_eq!((acme.delivery_state(1, 1).as_str(), &again(&mut acme)["replay"]), ("delivered", &json!(1)));
    daemon.clock.advance(Duration::from_secs(12));
    daemon.wait("its end", || again(&mut acme)["state"] == "delivered");
    let hooks = receiver.hooks();
    assert_eq!(hooks.iter().map(Hook::id).collect::<Vec<_>>(), ["evt_1_1", "evt_1_1_r1", "evt_1_1_r1"]);
    assert_eq!(hooks[0].body, hooks[2].body);
    let listed = acme.get(&format!("{SUBSCRIPTIONS}/1/deliveries")).expect(200).json();
    let ids: Vec<(&str, &Value)> =
        listed["deliveries"].as_array().unwrap().iter().map(|delivery| (delivery["id"].as_str().unwrap(), &delivery["replay"])).collect();
    assert_eq!(ids, [("1-1-r1", &json!(1)), ("1-1", &Value::Null)]);
    // Page by page.
    let first = acme.get(&format!("{SUBSCRIPTIONS}/1/deliveries?limit=1")).expect(200);
    let cursor = first.header("x-paging-cursor").unwrap().to_owned();
    let second = acme.get(&format!("{SUBSCRIPTIONS}/1/deliveries?limit=1&cursor={cursor}")).expect(200).json();
    assert_eq!((&first.json()["deliveries"][0]["id"], &second["deliveries"][0]["id"]), (&json!("1-1-r1"), &json!("1-1")));
    acme.get("/api/v1/deliveries/1-1-r2").expect(404);
}

#[test]
fn a_replay_waits_with_its_subscription_and_goes_with_it() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let receiver = Receiver::willing();
    acme.subscribe(&receiver.url(), &json!({"maxInFlight": 1}));
    publish(&mut acme, "a", 20);
    daemon.wait("all of them", || receiver.count() == 20);
    daemon.wait("the records", || acme.subscription(1)["backlog"]["events"] == 0);
    acme.act(1, "pause").expect(200);
    replay(&mut acme, &json!({"from": "2020-01-01T00:00:00Z"}));
    daemon.wait("nothing", || show(&mut acme, 1)["done"] == 0);
    acme.act(1, "resume").expect(200);
    daemon.wait("the end", || show(&mut acme, 1)["state"] == "done");
    assert_eq!((receiver.count(), receiver.busiest()), (40, 1));
    acme.act(1, "pause").expect(200);
    replay(&mut acme, &json!({"state": "delivered"}));
    acme.delete(&format!("{SUBSCRIPTIONS}/1")).expect(204);
    assert_eq!((show(&mut acme, 2)["state"].as_str(), show(&mut acme, 2)["count"].as_u64()), (Some("cancelled"), Some(20)));
    assert_eq!(receiver.count(), 40);
}

#[test]
fn what_cannot_be_replayed_is_told() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let receiver = Receiver::willing();
    acme.subscribe(&receiver.url(), &json!({"types": ["a"]}));
    acme.publish(r#"{"type":"a"}"#);
    acme.publish(r#"{"type":"b"}"#);
    let path = format!("{SUBSCRIPTIONS}/1/replay");
    let refused = |acme: &mut Client, body: Value| {
        let problem = acme.post(&path, body.to_string()).expect(400).json();
        (problem["code"].as_str().unwrap().to_owned(), problem["errors"][0]["pointer"].as_str().unwrap_or_default().to_owned())
    };
    for (body, code, pointer) in [
        (json!({}), "missing_member", ""),
        (json!({"ids": [1, 99]}), "unknown_event", "/ids/1"),
        (json!({"ids": [2]}), "invalid_member", "/ids/0"),
        (json!({"from": "yesterday"}), "invalid_cursor", "/from"),
        (json!({"satte": "dead"}), "unknown_member", "/satte"),
    ] {
        assert_eq!(refused(&mut acme, body.clone()), (code.to_owned(), pointer.to_owned()), "{body}");
    }
    assert_eq!(replay(&mut acme, &json!({"types": ["b"], "dryRun": true})), json!({"count": 0}));
    assert_eq!(replay(&mut acme, &json!({"types": ["*"], "dryRun": true})), json!({"count": 1}));
    acme.get("/api/v1/replays/7").expect(404);
    acme.get("/api/v1/replays/x").expect(400);
    daemon.clock.advance(Duration::from_secs(30 * 24 * 3600));
    assert_eq!(refused(&mut acme, json!({"ids": [1]})), ("unknown_event".to_owned(), "/ids/0".to_owned()));
    assert_eq!(replay(&mut acme, &json!({"from": "2020-01-01T00:00:00Z", "dryRun": true})), json!({"count": 0}));
}

#[test]
fn dead_letters_are_retried_and_discarded_all_at_once() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let receiver = Receiver::new(|hook| Reply::Status(if hook.number < 30 { 413 } else { 204 }));
    acme.subscribe(&receiver.url(), &json!({}));
    publish(&mut acme, "a", 10);
    publish(&mut acme, "b", 10);
    publish(&mut acme, "c", 10);
    daemon.wait("the dead letters", || acme.delivery_list(1, "?state=dead&limit=200").len() == 30);
    let path = |act: &str| format!("{SUBSCRIPTIONS}/1/{act}");
    acme.post(&path("discard"), "{}").expect(400);
    let discarded = acme.post(&path("discard"), r#"{"types":["a"],"reason":"too late"}"#).expect(200).json();
    assert_eq!(discarded, json!({"count": 10, "more": false}));
    assert_eq!(acme.delivery_list(1, "?state=cancelled").len(), 10);
    let retried = acme.post(&path("retry"), r#"{"types":["b"],"reason":"they are back"}"#).expect(202).json();
    assert_eq!(retried, json!({"count": 10, "more": false}));
    daemon.wait("those of type b", || acme.delivery_list(1, "?state=delivered").len() == 10);
    assert_eq!(acme.act(1, "retry").expect(202).json(), json!({"count": 10, "more": false}));
    daemon.wait("the others", || acme.delivery_list(1, "?state=delivered").len() == 20);
    assert_eq!(acme.act(1, "retry").expect(202).json(), json!({"count": 0, "more": false}));
    let audit = daemon.local().get("/api/v1/admin/audit").expect(200).json();
    let told: Vec<(&str, &str)> = audit["audit"]
        .as_array()
        .unwrap()
        .iter()
        .take(3)
        .map(|row| (row["act"].as_str().unwrap(), row["detail"].as_str().unwrap()))
        .collect();
    assert_eq!(
        told,
        [
            ("delivery.retry", "(10 deliveries)"),
            ("delivery.retry", "they are back (10 deliveries)"),
            ("delivery.discard", "too late (10 deliveries)"),
        ]
    );
}
