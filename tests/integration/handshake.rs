//! Receivers that are asked for their consent: at creation and on demand, at once or later, and never passed over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::daemon::TestDaemon;
use crate::support::http::{Client, Request, SUBSCRIPTIONS};
use crate::support::receiver::{Hook, Receiver, Reply};

const EVENT: &str = r#"{"type":"claim.created","payload":{"a":1}}"#;

fn wishes() -> Value {
    json!({"profile": "cloudevents", "auth": {"kind": "bearer", "token": "secret"}, "ratePerMinute": 300, "overrides": {"handshake": "options"}})
}

fn is_question(hook: &Hook) -> bool {
    hook.line.starts_with("OPTIONS ")
}

/// Answers questions with these header lines while `consents` holds, and webhooks with 204.
fn receiver(consents: &Arc<AtomicBool>, lines: &'static str) -> Receiver {
    let consents = Arc::clone(consents);
    Receiver::new(move |hook| match (is_question(hook), consents.load(Ordering::SeqCst)) {
        (true, true) => Reply::Full(200, lines, String::new()),
        (true, false) => Reply::Full(200, "Allow: POST\r\n", String::new()),
        (false, _) => Reply::Status(204),
    })
}

fn always() -> Arc<AtomicBool> {
    Arc::new(AtomicBool::new(true))
}

fn never() -> Arc<AtomicBool> {
    Arc::new(AtomicBool::new(false))
}

fn webhooks(receiver: &Receiver) -> Vec<Hook> {
    receiver.hooks().into_iter().filter(|hook| !is_question(hook)).collect()
}

fn questions(receiver: &Receiver) -> Vec<Hook> {
    receiver.hooks().into_iter().filter(is_question).collect()
}

/// The path of the callback that a receiver was told last.
fn callback(daemon: &TestDaemon, receiver: &Receiver) -> String {
    let questions = questions(receiver);
    let url = questions.last().unwrap().header("webhook-request-callback").to_owned();
    url.strip_prefix(&format!("http://{}", daemon.address())).unwrap().to_owned()
}

/// Publishes one event, and waits until a subscription that nothing holds back has it.
fn publish_and_settle(daemon: &TestDaemon, acme: &mut Client, other: &Receiver) {
    let before = other.count();
    acme.publish(EVENT);
    daemon.wait("the other webhook", || other.count() > before);
}

#[test]
fn a_receiver_that_consents_at_once_is_sent_to() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let receiver = receiver(&always(), "WebHook-Allowed-Origin: 127.0.0.1\r\nWebHook-Allowed-Rate: 120\r\n");
    let made = acme.subscribe(&receiver.url(), &wishes());
    assert_eq!((made["state"].as_str(), made["id"].as_u64()), (Some("active"), Some(1)));
    let [question] = questions(&receiver).try_into().unwrap();
    assert_eq!((question.line.as_str(), question.body.as_slice()), ("OPTIONS /hooks HTTP/1.1", &b""[..]));
    assert_eq!((question.header("webhook-request-origin"), question.header("webhook-request-rate")), ("127.0.0.1", "300"));
    let mut names: Vec<&str> = question.headers.keys().map(String::as_str).filter(|name| *name != "content-length").collect();
    names.sort_unstable();
    // No credentials, and nothing of an event.
    assert_eq!(names, ["host", "user-agent", "webhook-request-callback", "webhook-request-origin", "webhook-request-rate"]);
    acme.publish(EVENT);
    daemon.wait("the webhook", || webhooks(&receiver).len() == 1);
    let hook = webhooks(&receiver).remove(0);
    assert_eq!((hook.header("webhook-request-origin"), hook.header("authorization")), ("127.0.0.1", "Bearer secret"));
}

#[test]
fn without_consent_nothing_is_sent_until_it_comes_by_the_callback() {
    let mut daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let (receiver, other) = (receiver(&never(), ""), Receiver::willing());
    acme.subscribe(&other.url(), &json!({}));
    for (path, more) in [(1, "GET"), (2, "POST")] {
        let id = acme.subscribe(&receiver.url(), &wishes())["id"].as_u64().unwrap();
        assert_eq!(acme.subscription(id)["state"], "unverified");
        publish_and_settle(&daemon, &mut acme, &other);
        assert_eq!(webhooks(&receiver).len(), path - 1, "{more}");
        let callback = callback(&daemon, &receiver);
        // The question outlives the daemon: nothing about it is kept in memory.
        daemon.restart();
        acme = daemon.client(acme.key());
        let mut anybody = daemon.client("");
        let token = callback.rsplit('/').next().unwrap().to_owned();
        for wrong in ["x".to_owned(), token[1..].to_owned(), token.to_lowercase(), format!("{token}A")] {
            anybody.send(&Request::new(more, &format!("/api/v1/webhooks/consent/{wrong}"))).expect(404);
        }
        anybody.send(&Request::new(more, &callback).header("WebHook-Allowed-Rate", "none")).expect(400);
        assert_eq!(acme.subscription(id)["state"], "unverified");
        anybody.send(&Request::new(more, &callback).header("WebHook-Allowed-Rate", "*")).expect(204);
        assert_eq!(acme.subscription(id)["state"], "active");
        daemon.wait("the webhook", || webhooks(&receiver).len() == path);
        assert_eq!(webhooks(&receiver)[path - 1].header("webhook-request-origin"), "127.0.0.1");
        anybody.send(&Request::new(more, &callback)).expect(204);
        acme.delete(&format!("{SUBSCRIPTIONS}/{id}")).expect(204);
        anybody.send(&Request::new(more, &callback)).expect(404);
    }
}

#[test]
fn the_granted_rate_is_obeyed() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let receiver = receiver(&always(), "WebHook-Allowed-Origin: *\r\nWebHook-Allowed-Rate: 2\r\n");
    let other = Receiver::willing();
    acme.subscribe(&receiver.url(), &wishes());
    acme.subscribe(&other.url(), &json!({}));
    for _ in 0..3 {
        publish_and_settle(&daemon, &mut acme, &other);
    }
    // Two a minute are one every 30 s.
    daemon.wait("the first", || webhooks(&receiver).len() == 1);
    for count in 2..4 {
        publish_and_settle(&daemon, &mut acme, &other);
        assert_eq!(webhooks(&receiver).len(), count - 1);
        daemon.clock.advance(Duration::from_secs(30));
        daemon.wait("the next", || webhooks(&receiver).len() == count);
    }
}

#[test]
fn another_url_or_override_has_to_be_consented_to_anew() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let consents = never();
    let receiver = receiver(&consents, "WebHook-Allowed-Origin: *\r\nWebHook-Allowed-Rate: *\r\n");
    let path = format!("{SUBSCRIPTIONS}/1");
    acme.subscribe(&receiver.url(), &wishes());
    let old = callback(&daemon, &receiver);
    consents.store(true, Ordering::SeqCst);
    assert_eq!(acme.act(1, "verify").expect(200).json(), json!({"state": "active"}));
    assert_eq!(acme.patch(&path, json!({"ratePerMinute": 7}).to_string()).expect(200).json()["state"], "active");
    let moved = json!({"url": format!("{}/new", receiver.url())}).to_string();
    assert_eq!(acme.patch(&path, moved).expect(200).json()["state"], "unverified");
    daemon.client("").get(&old).expect(404);
    assert_eq!(acme.subscription(1)["state"], "unverified");
    assert_eq!(acme.act(1, "verify").expect(200).json(), json!({"state": "active"}));
    assert_eq!(questions(&receiver).last().unwrap().line, "OPTIONS /hooks/new HTTP/1.1");
    assert_eq!(acme.patch(&path, r#"{"overrides":{}}"#).expect(200).json()["state"], "active");
    assert_eq!(acme.patch(&path, r#"{"overrides":{"handshake":"options"}}"#).expect(200).json()["state"], "unverified");
}

#[test]
fn a_receiver_that_is_asked_again_may_refuse_and_the_owner_learns_why() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let consents = always();
    let (receiver, other) = (receiver(&consents, "WebHook-Allowed-Origin: 127.0.0.1\r\nWebHook-Allowed-Rate: 10\r\n"), Receiver::willing());
    acme.subscribe(&receiver.url(), &wishes());
    acme.subscribe(&other.url(), &json!({}));
    consents.store(false, Ordering::SeqCst);
    let answer = acme.act(1, "verify").expect(200).json();
    assert_eq!(answer, json!({"state": "unverified", "detail": "the receiver answered without one header WebHook-Allowed-Origin"}));
    publish_and_settle(&daemon, &mut acme, &other);
    assert_eq!(webhooks(&receiver).len(), 0);
    // A person may stand in for the receiver.
    assert_eq!(acme.act(1, "resume").expect(200).json()["state"], "active");
    daemon.wait("the webhook", || webhooks(&receiver).len() == 1);
    // Nobody is asked where no consent is wanted.
    assert_eq!(acme.act(2, "verify").expect(200).json(), json!({"state": "active"}));
    assert!(questions(&other).is_empty());
    acme.act(3, "verify").expect(404);
}

#[test]
fn a_receiver_that_cannot_be_asked_is_not_sent_to() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let gone = Receiver::willing().url();
    assert_eq!(acme.subscribe(&gone, &wishes())["state"], "unverified");
    let answer = acme.act(1, "verify").expect(200).json();
    assert_eq!((answer["state"].as_str(), answer["detail"].as_str()), (Some("unverified"), Some("the receiver refuses connections")));
}
