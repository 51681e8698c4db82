//! Order by key, and subscriptions that stop rather than pass an event.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::daemon::TestDaemon;
use crate::support::http::{Client, Request};
use crate::support::receiver::{Hook, Receiver, Reply};
use crate::support::wait_until;

const KEYS: u64 = 10;
/// The key that fails.
const STUCK: &str = "c-3";

fn key(number: u64) -> String {
    format!("c-{}", number % KEYS)
}

/// Publishes events of ten keys in turn; their ids.
fn publish(acme: &mut Client, count: u64) -> Vec<u64> {
    let mut ids = Vec::new();
    let numbers: Vec<u64> = (0..count).collect();
    for part in numbers.chunks(500) {
        let events: Vec<Value> = part.iter().map(|number| json!({"type": "a", "payload": {"claim": {"id": key(*number)}}})).collect();
        let answer = acme.send_patiently(&Request::post("/api/v1/events/batch", json!(events).to_string())).expect(200).json();
        ids.extend(answer["results"].as_array().unwrap().iter().map(|result| result["id"].as_u64().unwrap()));
    }
    ids
}

fn key_of(hook: &Hook) -> String {
    hook.json()["data"]["claim"]["id"].as_str().unwrap_or_default().to_owned()
}

/// Events of a key in the order in which they came.
fn of_key(receiver: &Receiver, wanted: &str) -> Vec<u64> {
    receiver.hooks().iter().filter(|hook| key_of(hook) == wanted).map(Hook::event).collect()
}

/// A receiver that refuses one key until the switch is thrown.
fn stuck() -> (Arc<AtomicBool>, Receiver) {
    let heals = Arc::new(AtomicBool::new(false));
    let healed = Arc::clone(&heals);
    let receiver = Receiver::new(move |hook| {
        let is_stuck = key_of(hook) == STUCK && !healed.load(Ordering::SeqCst);
        Reply::Status(if is_stuck { 500 } else { 204 })
    });
    (heals, receiver)
}

#[test]
fn a_stuck_key_holds_up_its_own_events_and_nobody_elses() {
    let mut daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let (heals, receiver) = stuck();
    let wanted = json!({"ordering": "key", "orderingKey": "/claim/id", "overrides": {"retryScheduleSeconds": [100, 100]}});
    acme.subscribe(&receiver.url(), &wanted);
    acme.act(1, "pause").expect(200);
    let ids = publish(&mut acme, 1000);
    let mine: Vec<u64> = ids.iter().copied().filter(|id| key(*id - ids[0]) == STUCK).collect();
    acme.act(1, "resume").expect(200);
    daemon.wait("all others and one attempt", || receiver.count() == 901);
    daemon.wait("the records", || acme.delivery_state(1, *ids.last().unwrap()) == "delivered");
    assert_eq!(of_key(&receiver, STUCK), mine[..1]);
    let held = acme.delivery(1, mine[1]);
    assert_eq!((&held["state"], &held["nextDueUtc"], &held["attempts"]), (&json!("pending"), &Value::Null, &json!([])));
    assert!(held["reason"].as_str().unwrap().contains("earlier event"), "{held}");
    assert_eq!(acme.subscription(1)["backlog"]["events"], 100);
    let problem = acme.send(&Request::new("POST", &format!("/api/v1/deliveries/1-{}/retry", mine[1]))).expect(409).json();
    assert_eq!(problem["code"], "delivery_waiting");

    // One that is held may be given up; the others stay behind the first one.
    let discard = format!("/api/v1/deliveries/1-{}/discard", mine[5]);
    acme.post(&discard, r#"{"reason":"not needed"}"#).expect(200);
    daemon.restart();
    let mut acme = daemon.client(acme.key());
    let more = publish(&mut acme, 10);
    daemon.wait("the others of those", || receiver.count() == 910);
    assert_eq!(of_key(&receiver, STUCK), mine[..1]);
    heals.store(true, Ordering::SeqCst);
    daemon.clock.advance(Duration::from_secs(111));
    wait_until("everything", || receiver.count() == 910 + 100);
    let mut expected = mine.clone();
    expected.remove(5);
    expected.insert(0, mine[0]);
    expected.push(more[3]);
    assert_eq!(of_key(&receiver, STUCK), expected);
    for number in 0..KEYS {
        let mut events = of_key(&receiver, &key(number));
        events.dedup();
        assert!(events.is_sorted(), "{}: {events:?}", key(number));
    }
    daemon.wait("the records", || acme.subscription(1)["backlog"]["events"] == 0);
}

#[test]
fn a_dead_letter_lets_its_key_go_on_and_is_first_again_when_a_person_retries_it() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let receiver = Receiver::new(|hook| Reply::Status(if hook.number == 0 { 413 } else { 204 }));
    acme.subscribe(&receiver.url(), &json!({"ordering": "key", "orderingKey": "/k", "maxInFlight": 4}));
    acme.act(1, "pause").expect(200);
    for _ in 0..2 {
        acme.publish(r#"{"type":"a","payload":{"k":1}}"#);
    }
    acme.publish(r#"{"type":"a","payload":{"k":1.0}}"#);
    acme.act(1, "resume").expect(200);
    daemon.wait("the records", || acme.delivery_state(1, 3) == "delivered" && acme.delivery_state(1, 1) == "dead");
    assert_eq!(receiver.events(), [1, 2, 3]);
    acme.act(1, "pause").expect(200);
    let last = acme.publish(r#"{"type":"a","payload":{"k":1}}"#);
    acme.send(&Request::new("POST", "/api/v1/deliveries/1-1/retry")).expect(202);
    acme.act(1, "resume").expect(200);
    daemon.wait("the record", || acme.delivery_state(1, last) == "delivered");
    assert_eq!(receiver.events()[3..], [1, last]);
    assert_eq!(receiver.busiest(), 1);
    assert_eq!(acme.delivery(1, 1)["attempts"].as_array().unwrap().len(), 2);
}

#[test]
fn events_without_a_key_wait_for_nobody() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let receiver = Receiver::new(|hook| if hook.event() == 1 { Reply::Hang } else { Reply::Status(204) });
    acme.subscribe(&receiver.url(), &json!({"ordering": "key", "orderingKey": "/k"}));
    for payload in [json!({"k": "x"}), json!({"k": "x"}), json!({}), json!({"k": null}), json!({"k": ["x"]}), json!({"k": "y"})] {
        acme.publish(json!({"type": "a", "payload": payload}).to_string());
    }
    daemon.wait("all but one", || receiver.count() == 5);
    let mut events = receiver.events();
    events.sort_unstable();
    assert_eq!(events, [1, 3, 4, 5, 6]);
    receiver.release();
}

#[test]
fn a_subscription_may_stop_instead_of_passing_an_event() {
    let mut daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let receiver = Receiver::answers([204, 500, 500, 204]);
    let overrides = json!({"retryScheduleSeconds": [10], "onExhausted": "suspend"});
    acme.subscribe(&receiver.url(), &json!({"ordering": "strict", "overrides": overrides}));
    for _ in 0..3 {
        acme.publish(r#"{"type":"a"}"#);
    }
    daemon.wait("the record", || acme.delivery(1, 2)["nextDueUtc"] != Value::Null);
    daemon.clock.advance(Duration::from_secs(12));
    daemon.wait("the stop", || acme.subscription(1)["state"] == "suspended");
    daemon.wait("the event", || acme.list("?types=lutine.*").len() == 1);
    let told = acme.list("?types=lutine.*");
    assert_eq!(told[0]["type"], "lutine.subscription.suspended");
    assert_eq!(told[0]["payload"], r#"{"eventId":2,"subscriptionId":1}"#);
    assert_eq!(daemon.metric("lutine_subscriptions_suspended_total"), 1);
    assert_eq!(daemon.metric("lutine_deliveries_dead_total"), 0);
    daemon.restart();
    let mut acme = daemon.client(acme.key());
    assert_eq!(acme.subscription(1)["state"], "suspended");
    daemon.clock.advance(Duration::from_secs(600));
    daemon.wait("the event that is still owed", || acme.delivery_state(1, 2) == "pending");
    assert_eq!(receiver.events(), [1, 2, 2]);
    assert_eq!(acme.act(1, "resume").expect(200).json()["state"], "active");
    daemon.wait("the others", || acme.delivery_state(1, 3) == "delivered");
    assert_eq!(receiver.events(), [1, 2, 2, 2, 3]);
    assert_eq!(acme.delivery(1, 2)["attempts"].as_array().unwrap().len(), 3);
}

#[test]
fn a_receiver_that_answered_410_gets_the_event_again_with_the_next_number() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let receiver = Receiver::answers([410, 204]);
    acme.subscribe(&receiver.url(), &json!({}));
    acme.publish(r#"{"type":"a"}"#);
    daemon.wait("the record", || {
        acme.subscription(1)["state"] == "disabled" && !acme.delivery(1, 1)["attempts"].as_array().unwrap().is_empty()
    });
    assert_eq!(acme.delivery_state(1, 1), "pending");
    acme.act(1, "resume").expect(200);
    daemon.wait("the end", || acme.delivery_state(1, 1) == "delivered");
    let attempts: Vec<(u64, u64)> = acme.delivery(1, 1)["attempts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|attempt| (attempt["number"].as_u64().unwrap(), attempt["status"].as_u64().unwrap()))
        .collect();
    assert_eq!(attempts, [(1, 410), (2, 204)]);
}
