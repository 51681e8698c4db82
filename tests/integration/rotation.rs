//! Another secret while webhooks are under way.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::daemon::TestDaemon;
use crate::support::http::SUBSCRIPTIONS;
use crate::support::receiver::Receiver;

#[test]
fn a_receiver_that_knows_the_old_or_the_new_secret_verifies_every_webhook() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let receiver = Receiver::willing();
    let created = acme.subscribe(&receiver.url(), &json!({"overrides": {"signature": "header-hmac", "signatureHeader": "X-Signature"}}));
    let old = created["secret"].as_str().unwrap().to_owned();
    let (is_over, newest) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut new, mut first_of_new) = (String::new(), 0);
    std::thread::scope(|scope| {
        let mut publisher = daemon.client(acme.key());
        let (is_over, newest) = (&is_over, &newest);
        scope.spawn(move || {
            while !is_over.load(Ordering::SeqCst) {
                newest.store(publisher.publish_patiently(r#"{"type":"a"}"#), Ordering::SeqCst);
            }
        });
        daemon.wait("some load", || receiver.count() >= 50);
        let rotated = acme.act(1, "rotate-secret").expect(200).json();
        // Whatever is published from here on is sent after the answer.
        first_of_new = newest.load(Ordering::SeqCst) + 2;
        new = rotated["secret"].as_str().unwrap().to_owned();
        let until = newest.load(Ordering::SeqCst) + 100;
        daemon.wait("more load", || newest.load(Ordering::SeqCst) >= until);
        is_over.store(true, Ordering::SeqCst);
    });
    let total = newest.load(Ordering::SeqCst) as usize;
    daemon.wait("all of them", || receiver.count() == total);
    assert_ne!(old, new);
    for hook in receiver.hooks() {
        assert!(hook.is_signed_with(&old), "{} with the old secret", hook.id());
        assert!(hook.event() < first_of_new || hook.is_signed_with(&new), "{} with the new secret", hook.id());
    }
    assert_eq!(acme.delivery_list(1, "?state=dead"), [0_u64; 0]);

    // The one before stops counting after a day, and is forgotten.
    daemon.clock.advance(Duration::from_secs(24 * 3600));
    acme.publish(r#"{"type":"a"}"#);
    daemon.wait("the next one", || receiver.count() == total + 1);
    receiver.hooks()[total].check_signature(&new);
}

#[test]
fn a_secret_is_revoked_at_once_when_that_is_asked_for() {
    let mut daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let receiver = Receiver::willing();
    let first = acme.subscribe(&receiver.url(), &json!({}))["secret"].as_str().unwrap().to_owned();
    let path = format!("{SUBSCRIPTIONS}/1/rotate-secret");
    let rotated = acme.post(&path, r#"{"overlapSeconds":60}"#).expect(200).json();
    let second = rotated["secret"].as_str().unwrap().to_owned();
    daemon.restart();
    let mut acme = daemon.client(acme.key());
    acme.publish(r#"{"type":"a"}"#);
    daemon.wait("the first", || receiver.count() == 1);
    assert!(receiver.hooks()[0].is_signed_with(&first) && receiver.hooks()[0].is_signed_with(&second));
    let revoked = acme.post(&path, r#"{"overlapSeconds":0}"#).expect(200).json();
    assert_eq!(revoked["previousExpiresUtc"], Value::Null);
    acme.publish(r#"{"type":"a"}"#);
    daemon.wait("the second", || receiver.count() == 2);
    receiver.hooks()[1].check_signature(revoked["secret"].as_str().unwrap());
    acme.post(&path, r#"{"overlapSeconds":604801}"#).expect(400);
    acme.post(&path, r#"{"overlap":1}"#).expect(400);
    assert!(!acme.subscription(1).to_string().contains("whsec_"));
    let audit = daemon.local().get("/api/v1/admin/audit").expect(200).json();
    assert_eq!(audit["audit"][0]["act"], "subscription.rotate_secret");
}
