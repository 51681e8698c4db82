//! What arrives at receivers, byte for byte, and what follows from what they answer.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::daemon::TestDaemon;
use crate::support::http::{Client, Request, SUBSCRIPTIONS};
use crate::support::receiver::{Receiver, Reply, hmac};
use crate::support::{PATIENCE, wait_until};

/// Publishes the events of a day, ours and those of the shared sample where it is there; lines by their ids.
fn publish_day(acme: &mut Client) -> HashMap<u64, Value> {
    let own = |number: u32| {
        let payload = format!("{{ \"æ\":[{number}.00,\"\\u2028\"] ,\"a\":1,\"a\":2 }}");
        let kind = ["claim.created", "Claim.Note.added", "policy.bound", "claims.other"][number as usize % 4];
        json!({"type": kind, "payload": payload, "version": (number % 3 + 1).to_string()}).to_string()
    };
    let mut lines: Vec<String> = (0..60).map(own).collect();
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/samples/day.jsonl");
    if let Ok(text) = std::fs::read_to_string(sample) {
        lines.extend(text.lines().map(str::to_owned));
    }
    let mut events = HashMap::new();
    for part in lines.chunks(50) {
        let request = Request::new("POST", "/api/v1/events/batch").body("application/x-ndjson", part.join("\n"));
        let answer = acme.send_patiently(&request).expect(200).json();
        for (result, line) in answer["results"].as_array().unwrap().iter().zip(part) {
            events.insert(result["id"].as_u64().unwrap(), serde_json::from_str(line).unwrap());
        }
    }
    events
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_day_arrives_filtered_once_signed_and_byte_for_byte() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let (typed, enveloped) = (Receiver::willing(), Receiver::willing());
    let claims = json!({"types": ["claim.*"], "headers": {"X-Partner": "7"}});
    let typed_secret = acme.subscribe(&typed.url(), &claims)["secret"].as_str().unwrap().to_owned();
    let enveloped_secret =
        acme.subscribe(&enveloped.url(), &json!({"types": ["*"], "profile": "envelope"}))["secret"].as_str().unwrap().to_owned();
    let events = publish_day(&mut acme);
    let is_claim = |line: &Value| line["type"].as_str().unwrap().to_ascii_lowercase().starts_with("claim.");
    let claims = events.values().filter(|line| is_claim(line)).count();
    assert!(claims > 20 && claims < events.len());
    daemon.wait("every webhook", || typed.count() >= claims && enveloped.count() >= events.len());
    daemon.wait("an end", || (1..=2).all(|id| acme.subscription(id)["backlog"]["events"] == 0));

    let mut seen: HashMap<u64, String> = HashMap::new();
    for hook in typed.hooks() {
        let (event, line) = (hook.event(), &events[&hook.event()]);
        assert!(seen.insert(event, String::new()).is_none(), "{event} came twice");
        assert_eq!(hook.id(), format!("evt_{event}_1"));
        hook.check_signature(&typed_secret);
        assert_eq!(hook.header("content-type"), "application/json");
        assert_eq!(hook.header("x-partner"), "7");
        assert_eq!(hook.line, "POST /hooks HTTP/1.1");
        let version = line["version"].as_str().unwrap_or("1");
        assert_eq!(hook.header("event-version"), if version == "1" { "" } else { version });
        let created = acme.get(&format!("/api/v1/events/{event}")).expect(200).json()["createdUtc"].as_str().unwrap().to_owned();
        let (kind, payload) = (line["type"].as_str().unwrap(), line["payload"].as_str().unwrap());
        assert_eq!(hook.text(), format!(r#"{{"type":"{kind}","timestamp":"{created}","data":{payload}}}"#));
        let headers = hook.headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let now = hook.header("webhook-timestamp").parse::<u64>().unwrap();
        assert_eq!(now, daemon_seconds(hook.header("webhook-timestamp")));
        let secret = base64_of(&typed_secret);
        let at = lutine::domain::time::Timestamp::from_micros(now * 1_000_000);
        lutine::webhook::verify(&secret, &headers, &hook.body, at, Duration::from_secs(1)).unwrap();
    }
    assert_eq!(seen.len(), claims);
    assert!(seen.keys().all(|event| is_claim(&events[event])));

    let mut seen = HashMap::new();
    for hook in enveloped.hooks() {
        assert!(seen.insert(hook.event(), ()).is_none());
        hook.check_signature(&enveloped_secret);
        assert_eq!(hook.header("x-signature"), format!("sha256={}", hex(&hmac(&base64_of(&enveloped_secret), &hook.body))));
        assert_eq!(hook.text(), acme.get(&format!("/api/v1/events/{}", hook.event())).expect(200).text());
    }
    assert_eq!(seen.len(), events.len());
}

fn base64_of(secret: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap()
}

fn daemon_seconds(text: &str) -> u64 {
    assert!(text.bytes().all(|byte| byte.is_ascii_digit()), "{text}");
    text.parse().unwrap()
}

/// How many microseconds lie between two times of the API.
fn micros_between(from: &Value, to: &Value) -> i64 {
    let micros = |time: &Value| {
        let time: lutine::domain::time::Timestamp = time.as_str().unwrap_or_else(|| panic!("{time}")).parse().unwrap();
        i64::try_from(time.as_micros()).unwrap()
    };
    micros(to) - micros(from)
}

/// Advances the clock a little, so that what happened is written down, and waits for the delivery's attempts.
fn after_attempts(daemon: &TestDaemon, acme: &mut Client, id: (u64, u64), count: usize) -> Value {
    wait_until("an attempt on record", || {
        daemon.clock.advance(Duration::from_millis(20));
        let delivery = acme.delivery(id.0, id.1);
        // The attempts come first, what follows from them is written down behind them.
        let follows = delivery["state"] != "pending" || delivery["nextDueUtc"] == delivery["attempts"][count - 1]["nextDueUtc"];
        delivery["attempts"].as_array().unwrap().len() >= count && follows
    });
    acme.delivery(id.0, id.1)
}

#[test]
fn a_failed_delivery_is_sent_again_when_it_is_due_and_not_before() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let receiver = Receiver::answers([500, 503, 204]);
    acme.subscribe(&receiver.url(), &json!({"overrides": {"retryScheduleSeconds": [5, 300]}}));
    acme.publish(r#"{"type":"a"}"#);
    for (number, wait) in [(1, 5), (2, 300)] {
        let delivery = after_attempts(&daemon, &mut acme, (1, 1), number);
        let attempt = &delivery["attempts"][number - 1];
        assert_eq!(delivery["state"], "pending");
        assert_eq!(delivery["nextDueUtc"], attempt["nextDueUtc"]);
        let after = micros_between(&attempt["startedUtc"], &attempt["nextDueUtc"]);
        // The clock went on by at most a second while the attempt was written down.
        let (least, most) = (wait * 900_000, wait * 1_100_000 + 1_000_000);
        assert!((least..=most).contains(&after), "{after} µs after attempt {number}");
        let left = micros_between(&json!(daemon.clock.text()), &delivery["nextDueUtc"]);
        daemon.clock.advance(Duration::from_micros(left as u64 - 1));
        daemon.settle(&mut acme);
        assert_eq!(receiver.count(), number, "a microsecond too early");
        daemon.clock.advance(Duration::from_micros(1));
        wait_until("the next attempt", || receiver.count() == number + 1);
    }
    let delivery = after_attempts(&daemon, &mut acme, (1, 1), 3);
    assert_eq!((&delivery["state"], &delivery["nextDueUtc"]), (&json!("delivered"), &Value::Null));
    let told: Vec<String> = delivery["attempts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|attempt| format!("{} {} {}", attempt["number"], attempt["status"], attempt["errorClass"]))
        .collect();
    assert_eq!(told, [r#"1 500 "status""#, r#"2 503 "status""#, "3 204 null"]);
    let hooks = receiver.hooks();
    assert!(hooks.iter().all(|hook| hook.id() == "evt_1_1"));
    let stamps: Vec<u64> = hooks.iter().map(|hook| hook.header("webhook-timestamp").parse().unwrap()).collect();
    assert!(stamps[0] < stamps[1] && stamps[1] < stamps[2], "{stamps:?}");
}

/// The events of one type in the company's log.
fn told(acme: &mut Client, kind: &str) -> Vec<Value> {
    let events = acme.list(&format!("?types={kind}&limit=200"));
    events.iter().map(|event| serde_json::from_str(event["payload"].as_str().unwrap()).unwrap()).collect()
}

#[test]
fn dead_letters_are_told_once_a_minute_to_everybody_but_the_receiver_they_speak_of() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let (failing, watching) = (Receiver::answers([500]), Receiver::willing());
    let every = json!({"types": ["a", "lutine.*"], "overrides": {"retryScheduleSeconds": []}});
    acme.subscribe(&failing.url(), &every);
    acme.subscribe(&watching.url(), &json!({"types": ["lutine.*"]}));
    acme.publish(r#"{"type":"a"}"#);
    wait_until("the first attempt", || failing.count() == 1);
    daemon.wait("the first event", || told(&mut acme, "lutine.delivery.exhausted").len() == 1);
    for _ in 0..20 {
        acme.publish(r#"{"type":"a"}"#);
    }
    wait_until("all attempts", || failing.count() == 21);
    daemon.clock.advance(Duration::from_secs(30));
    daemon.wait("the last dead letter", || acme.delivery_list(1, "?state=dead&limit=200").len() == 21);
    assert_eq!(told(&mut acme, "lutine.delivery.exhausted").len(), 1, "one a minute");
    daemon.clock.advance(Duration::from_secs(31));
    wait_until("the second event", || told(&mut acme, "lutine.delivery.exhausted").len() == 2);
    let events = told(&mut acme, "lutine.delivery.exhausted");
    assert_eq!(events[0], json!({"subscriptionId": 1, "count": 1, "firstEventId": 1, "lastEventId": 1}));
    assert_eq!(events[1], json!({"subscriptionId": 1, "count": 20, "firstEventId": 3, "lastEventId": 22}));
    daemon.wait("both told", || watching.count() == 2);
    daemon.clock.advance(Duration::from_secs(300));
    daemon.settle(&mut acme);
    // Behind whatever the daemon would have published.
    acme.publish(r#"{"type":"a"}"#);
    wait_until("one more attempt", || failing.count() > 21);
    daemon.settle(&mut acme);
    assert_eq!(failing.count(), 22, "never the receiver that failed");
    assert!(acme.list("").iter().all(|event| event["type"] == "a"), "own events are seen only by those who ask for them");
}

#[test]
fn a_dead_letter_is_sent_again_by_hand_and_its_numbers_go_on() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let receiver = Receiver::answers([500, 500, 500, 204]);
    acme.subscribe(&receiver.url(), &json!({"overrides": {"retryScheduleSeconds": [0]}}));
    acme.publish(r#"{"type":"a"}"#);
    daemon.wait("the dead letter", || acme.delivery_state(1, 1) == "dead");
    assert_eq!(acme.delivery(1, 1)["reason"], "the retry schedule is exhausted");
    let retry = Request::new("POST", "/api/v1/deliveries/1-1/retry");
    assert_eq!(acme.send(&retry).expect(202).text(), r#"{"deliveryId":"1-1"}"#);
    daemon.wait("the third attempt", || receiver.count() == 3);
    daemon.wait("the dead letter again", || acme.delivery_state(1, 1) == "dead" && acme.delivery(1, 1)["attempts"][2] != Value::Null);
    daemon.clock.advance(Duration::from_secs(61));
    daemon.wait("the second event", || told(&mut acme, "lutine.delivery.exhausted").len() == 2);
    acme.send(&retry).expect(202);
    daemon.wait("the end", || acme.delivery_state(1, 1) == "delivered");
    let delivery = acme.delivery(1, 1);
    let numbers: Vec<&Value> = delivery["attempts"].as_array().unwrap().iter().map(|attempt| &attempt["number"]).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    assert!(receiver.hooks().iter().all(|hook| hook.id() == "evt_1_1"));
    let refused = acme.send(&retry).expect(409);
    assert_eq!(
        (refused.json()["code"].as_str(), refused.json()["detail"].as_str()),
        (Some("delivery_ended"), Some("this delivery is delivered and cannot be retried"))
    );
}

fn discard(id: &str) -> Request {
    Request::post(&format!("/api/v1/deliveries/{id}/discard"), r#"{"reason":"a wrong claim"}"#)
}

#[test]
fn what_is_discarded_is_cancelled_for_good_with_a_row_in_the_audit() {
    let mut daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let receiver = Receiver::answers([500]);
    acme.subscribe(&receiver.url(), &json!({"overrides": {"retryScheduleSeconds": [0, 60]}}));
    acme.publish(r#"{"type":"a"}"#);
    let attempts = after_attempts(&daemon, &mut acme, (1, 1), 2);
    assert_eq!(attempts["state"], "pending");
    for wrong in [r#"{"reason":""}"#, r#"{"reason":"a\nb"}"#, "{}", r#"{"reason":"x","more":1}"#] {
        acme.send(&Request::post("/api/v1/deliveries/1-1/discard", wrong)).expect(400);
    }
    let answer = acme.send(&discard("1-1")).expect(200).json();
    assert_eq!((&answer["state"], &answer["reason"], &answer["nextDueUtc"]), (&json!("cancelled"), &json!("a wrong claim"), &Value::Null));
    assert_eq!(answer["attempts"].as_array().unwrap().len(), 2);
    acme.send(&discard("1-1")).expect(409);
    daemon.clock.advance(Duration::from_secs(300));
    daemon.settle(&mut acme);
    daemon.restart();
    let mut acme = daemon.client(acme.key());
    daemon.clock.advance(Duration::from_secs(300));
    daemon.settle(&mut acme);
    assert_eq!((receiver.count(), acme.delivery_state(1, 1)), (2, "cancelled".to_owned()));
    assert_eq!(acme.subscription(1)["backlog"]["events"], 0);
    acme.send(&Request::new("POST", "/api/v1/deliveries/1-1/retry")).expect(202);
    daemon.wait("the attempt by hand", || receiver.count() == 3);
    let audit = daemon.local().get("/api/v1/admin/audit").expect(200).json();
    let rows: Vec<String> =
        audit["audit"].as_array().unwrap().iter().map(|row| format!("{} {} {}", row["act"], row["object"], row["detail"])).collect();
    assert!(rows.contains(&r#""delivery.discard" "delivery:1-1" "a wrong claim""#.to_owned()), "{rows:#?}");
    assert!(rows.contains(&r#""delivery.retry" "delivery:1-1" """#.to_owned()), "{rows:#?}");
}

#[test]
fn a_decision_by_hand_is_not_undone_by_an_outcome_that_waits_to_be_written() {
    let mut daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let receiver = Receiver::answers([500]);
    acme.subscribe(&receiver.url(), &json!({"overrides": {"retryScheduleSeconds": [1, 60]}}));
    acme.publish(r#"{"type":"a"}"#);
    after_attempts(&daemon, &mut acme, (1, 1), 1);
    daemon.clock.advance(Duration::from_secs(2));
    wait_until("the second attempt", || receiver.count() == 2);
    // The clock stands still, so the outcome of the second attempt is not on record yet.
    wait_until("the end of the attempt", || acme.send(&discard("1-1")).status == 200);
    daemon.clock.advance(Duration::from_millis(200));
    wait_until("the record", || acme.delivery(1, 1)["attempts"].as_array().unwrap().len() == 2);
    assert_eq!(acme.delivery_state(1, 1), "cancelled");
    daemon.restart();
    let mut acme = daemon.client(acme.key());
    daemon.clock.advance(Duration::from_secs(100));
    daemon.settle(&mut acme);
    assert_eq!((receiver.count(), acme.delivery_state(1, 1)), (2, "cancelled".to_owned()));
}

#[test]
fn a_receiver_that_is_gone_disables_its_subscription_and_loses_nothing() {
    let mut daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let receiver = Receiver::answers([410, 204]);
    acme.subscribe(&receiver.url(), &json!({"maxInFlight": 1}));
    acme.publish(r#"{"type":"a"}"#);
    daemon.wait("the end of it", || acme.subscription(1)["state"] == "disabled");
    daemon.wait("the event", || told(&mut acme, "lutine.subscription.disabled") == [json!({"subscriptionId": 1})]);
    for _ in 0..3 {
        acme.publish(r#"{"type":"a"}"#);
    }
    daemon.restart();
    let mut acme = daemon.client(acme.key());
    daemon.clock.advance(Duration::from_secs(3600));
    daemon.settle(&mut acme);
    assert_eq!(receiver.count(), 1);
    let shown = acme.subscription(1);
    assert_eq!((&shown["state"], &shown["backlog"]["events"]), (&json!("disabled"), &json!(4)));
    assert_eq!(acme.act(1, "resume").expect(200).json()["state"], "active");
    daemon.wait("everything", || receiver.count() == 5);
    // The second event is the one that tells of it.
    assert_eq!(receiver.events(), [1, 1, 3, 4, 5], "all of it in the order of one at a time");
}

#[test]
fn a_change_does_not_undo_a_410_that_waits_to_be_written() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let receiver = Receiver::answers([410, 204]);
    acme.subscribe(&receiver.url(), &json!({}));
    acme.publish(r#"{"type":"a"}"#);
    wait_until("the 410", || receiver.count() == 1 && daemon.metric("lutine_delivery_attempts_in_flight") == 0);
    // The clock stands still, so nothing is on record.
    acme.patch(&format!("{SUBSCRIPTIONS}/1"), r#"{"name":"b"}"#).expect(200);
    daemon.settle(&mut acme);
    assert_eq!(receiver.count(), 1);
    daemon.wait("the record", || acme.subscription(1)["state"] == "disabled");
    acme.act(1, "resume").expect(200);
    daemon.wait("what waited", || receiver.count() > 1);
    assert_eq!(acme.subscription(1)["name"], "b");
}

#[test]
fn a_body_that_a_receiver_never_takes_is_dead_at_once() {
    for status in [413, 415] {
        let daemon = TestDaemon::start();
        let mut acme = daemon.subscriber();
        let receiver = Receiver::answers([status]);
        acme.subscribe(&receiver.url(), &json!({}));
        acme.publish(r#"{"type":"a"}"#);
        daemon.wait("the dead letter", || acme.delivery_state(1, 1) == "dead");
        let delivery = acme.delivery(1, 1);
        assert_eq!((delivery["attempts"].as_array().unwrap().len(), &delivery["reason"]), (1, &json!("the receiver refused it")));
    }
}

#[test]
fn a_receiver_says_when_to_come_back_but_not_earlier_than_the_schedule() {
    // The status, its Retry-After, and the seconds after which the next attempt is due, jitter aside.
    for (status, lines, least, most) in [
        (429, "Retry-After: 120\r\n", 120, 121),
        (503, "Retry-After: 120\r\n", 120, 121),
        (503, "Retry-After: Sun, 22 Nov 2026 11:30:00 GMT\r\n", 3598, 3601),
        (503, "Retry-After: 1\r\n", 9, 12),
        (429, "Retry-After: 999999999\r\n", 86_400, 86_401),
        (429, "Retry-After: soon\r\n", 9, 12),
        (500, "Retry-After: 120\r\n", 9, 12),
    ] {
        let daemon = TestDaemon::start();
        let mut acme = daemon.subscriber();
        let receiver = Receiver::new(move |_| Reply::Full(status, lines, String::new()));
        acme.subscribe(&receiver.url(), &json!({"overrides": {"retryScheduleSeconds": [10]}}));
        acme.publish(r#"{"type":"a"}"#);
        let attempt = after_attempts(&daemon, &mut acme, (1, 1), 1)["attempts"][0].clone();
        let wait = micros_between(&attempt["startedUtc"], &attempt["nextDueUtc"]);
        assert!((least * 1_000_000..=most * 1_000_000).contains(&wait), "{status} {lines} {wait}");
        // It has used up the only retry.
        daemon.clock.advance(Duration::from_micros(wait as u64));
        daemon.wait("the dead letter", || acme.delivery_state(1, 1) == "dead");
        assert_eq!(receiver.count(), 2);
    }
}

#[test]
fn a_redirect_is_a_failure_and_never_followed() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let elsewhere = Receiver::willing();
    let lines: &'static str = Box::leak(format!("Location: {}?token=secret\r\n", elsewhere.url()).into_boxed_str());
    for (number, status) in [301, 302, 303, 307, 308].into_iter().enumerate() {
        let receiver = Receiver::new(move |_| Reply::Full(status, lines, String::new()));
        let id = acme.subscribe(&receiver.url(), &json!({"overrides": {"retryScheduleSeconds": []}}))["id"].as_u64().unwrap();
        let event = acme.publish(r#"{"type":"a"}"#);
        daemon.wait("the dead letter", || acme.delivery_state(id, event) == "dead");
        let attempt = acme.delivery(id, event)["attempts"][0].clone();
        assert_eq!((&attempt["status"], &attempt["errorClass"]), (&json!(status), &json!("status")));
        let error = attempt["error"].as_str().unwrap();
        assert!(error.contains("127.0.0.1") && !error.contains("secret"), "{error}");
        assert_eq!(receiver.count(), 1, "{number}");
        acme.delete(&format!("{SUBSCRIPTIONS}/{id}")).expect(204);
    }
    assert_eq!(elsewhere.count(), 0);
}

#[test]
fn which_statuses_are_success_is_the_subscribers_decision() {
    let success = |codes: Value, lenient: bool| json!({"successCodes": codes, "lenientSuccess": lenient, "retryScheduleSeconds": []});
    for (status, overrides, state) in [
        (200, success(json!([204]), false), "dead"),
        (202, success(json!([204]), true), "delivered"),
        (204, success(json!([204]), false), "delivered"),
        (404, success(json!(["400-404"]), false), "delivered"),
        (410, success(json!([204, 410]), false), "delivered"),
        (299, json!({"retryScheduleSeconds": []}), "delivered"),
        (300, json!({"retryScheduleSeconds": [], "lenientSuccess": true}), "dead"),
        (400, json!({"retryScheduleSeconds": []}), "dead"),
    ] {
        let daemon = TestDaemon::start();
        let mut acme = daemon.subscriber();
        let receiver = Receiver::answers([status]);
        acme.subscribe(&receiver.url(), &json!({ "overrides": overrides }));
        acme.publish(r#"{"type":"a"}"#);
        daemon.wait("the end", || acme.delivery_state(1, 1) != "pending");
        assert_eq!(
            (acme.delivery_state(1, 1).as_str(), acme.subscription(1)["state"].as_str()),
            (state, Some("active")),
            "{status} {overrides}"
        );
    }
}

#[test]
fn a_receiver_that_hangs_or_is_not_there_fails_with_its_own_class() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let hanging = Receiver::new(|_| Reply::Hang);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let overrides = json!({"overrides": {"retryScheduleSeconds": [], "timeoutSeconds": 1}});
    acme.subscribe(&hanging.url(), &overrides);
    acme.subscribe(&format!("http://{closed}/"), &overrides);
    acme.subscribe("http://nowhere.invalid/", &overrides);
    acme.publish(r#"{"type":"a"}"#);
    for (id, class) in [(1, json!(["timeout"])), (2, json!(["connect"])), (3, json!(["dns", "timeout"]))] {
        daemon.wait("the dead letter", || acme.delivery_state(id, 1) == "dead");
        let attempt = acme.delivery(id, 1)["attempts"][0].clone();
        assert!(class.as_array().unwrap().contains(&attempt["errorClass"]), "{attempt}");
        assert_eq!(attempt["status"], Value::Null);
    }
    let duration = acme.delivery(1, 1)["attempts"][0]["durationMs"].as_u64().unwrap();
    assert!((1000..PATIENCE.as_millis() as u64 / 10).contains(&duration), "{duration} ms");
}
