//! What the partners' own examples look like when their events are published here and delivered under their profiles,
//! and the key that signatures by RSA are checked with.

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lutine::domain::time::Timestamp;
use serde_json::{Value, json};

use crate::support::daemon::TestDaemon;
use crate::support::http::{Client, Request};
use crate::support::receiver::{Hook, Receiver, hmac};

/// Copies of the partners' examples.
const SIGNED_ENVELOPE: &str = include_str!("../samples/signed-envelope-claim_created.json");
const REFERENCE: &str = include_str!("../samples/reference-inquiry_created.json");
const SCALEPOINT: &str = include_str!("../samples/scalepoint-send.json");

fn sample(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// What one event looks like to a receiver under a profile; also the secret of its subscription.
fn delivered(daemon: &TestDaemon, acme: &mut Client, wishes: &Value, event: &Value) -> (Hook, String) {
    let receiver = Receiver::willing();
    let made = acme.subscribe(&receiver.url(), wishes);
    acme.publish(event.to_string());
    daemon.wait("the webhook", || receiver.count() == 1);
    (receiver.hooks().remove(0), made["secret"].as_str().unwrap().to_owned())
}

fn members(value: &Value) -> Vec<&String> {
    let mut names: Vec<_> = value.as_object().unwrap().keys().collect();
    names.sort();
    names
}

fn time(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

#[track_caller]
fn check_uuid(value: &Value) {
    let parts: Vec<usize> = value.as_str().unwrap().split('-').map(str::len).collect();
    assert_eq!(parts, [8, 4, 4, 4, 12], "{value}");
}

#[test]
fn the_example_of_a_signed_envelope_is_what_its_event_becomes() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let sample = sample(SIGNED_ENVELOPE);
    let details = &sample["payload"]["details"];
    let event = json!({
        "type": "claim.created", "occurredAt": sample["payload"]["timestamp"], "metadata": {"user": sample["payload"]["user"]},
        "payload": {"accountReference": details["accountReference"], "claimRef": details["claimRef"]},
    });
    let (hook, secret) = delivered(&daemon, &mut acme, &json!({"profile": "signed-envelope"}), &event);
    let body = hook.json();
    assert_eq!(members(&body), members(&sample));
    assert_eq!(members(&body["payload"]), members(&sample["payload"]));
    assert_eq!(&body["payload"]["details"], details);
    assert_eq!(body["payload"]["user"], sample["payload"]["user"]);
    assert_eq!(time(&body["payload"]["timestamp"]), time(&sample["payload"]["timestamp"]));
    check_uuid(&body["payload"]["messageId"]);
    let signed = body["payloadAsString"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(signed).unwrap(), body["payload"]);
    assert!(hook.text().starts_with(&format!(r#"{{"payload":{signed},"payloadAsString":"#)));
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    assert_eq!(body["signature"], STANDARD.encode(hmac(&key, signed.as_bytes())));
}

#[test]
fn the_example_of_a_reference_is_what_its_event_becomes() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let sample = sample(REFERENCE);
    let event = json!({
        "type": sample["eventType"], "occurredAt": sample["eventTime"], "references": sample["affected"],
        "metadata": {"accountReference": sample["accountReference"], "brokerReference": sample["brokerReference"]},
        "payload": {"not": "for the receiver"},
    });
    let (hook, secret) = delivered(&daemon, &mut acme, &json!({"profile": "reference"}), &event);
    hook.check_signature(&secret);
    assert_eq!((hook.header("accept"), hook.header("content-type")), ("application/json", "application/json"));
    let body = hook.json();
    assert_eq!(members(&body), members(&sample));
    for name in ["eventType", "accountReference", "brokerReference", "translations", "affected"] {
        assert_eq!(body[name], sample[name], "{name}");
    }
    assert_eq!(time(&body["eventTime"]), time(&sample["eventTime"]));
    assert_eq!(body["eventId"].as_str(), Some(hook.event().to_string().as_str()));
    check_uuid(&body["notificationId"]);
}

#[test]
fn the_example_of_the_bridge_goes_through_byte_for_byte() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let sample = sample(SCALEPOINT);
    let event = json!({"type": sample["eventType"], "version": sample["payloadVersion"], "payload": SCALEPOINT});
    let wishes = json!({"profile": "bridge", "auth": {"kind": "none"}});
    let (hook, secret) = delivered(&daemon, &mut acme, &wishes, &event);
    hook.check_signature(&secret);
    assert_eq!(hook.text(), SCALEPOINT);
    assert_eq!((hook.header("event-type"), hook.header("event-version")), ("payment_status_updated", "1.0.0"));
    assert_eq!(hook.header("content-type"), "application/json;charset=utf-8");
}

#[test]
fn a_message_keeps_its_id_over_its_retries_and_for_all_its_receivers() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let (failing, other) = (Receiver::answers([500, 204]), Receiver::willing());
    let wishes = json!({"profile": "signed-envelope", "overrides": {"retryScheduleSeconds": [0.05]}});
    acme.subscribe(&failing.url(), &wishes);
    acme.subscribe(&other.url(), &wishes);
    acme.publish(r#"{"type":"claim.created","payload":{}}"#);
    daemon.wait("all webhooks", || failing.count() == 2 && other.count() == 1);
    let ids: Vec<Value> = failing.hooks().iter().chain(&other.hooks()).map(|hook| hook.json()["payload"]["messageId"].clone()).collect();
    assert!(ids[0] == ids[1] && ids[1] == ids[2], "{ids:?}");
}

#[test]
fn signatures_by_rsa_are_checked_with_the_companys_public_key_which_stays_the_same() {
    let mut daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let answer = acme.get("/api/v1/webhooks/public-key").expect(200);
    assert_eq!(answer.header("content-type"), Some("text/plain"));
    let pem = answer.text().to_owned();
    assert!(pem.starts_with("-----BEGIN PUBLIC KEY-----\n") && pem.ends_with("\n-----END PUBLIC KEY-----\n"), "{pem}");
    daemon.company("other");
    let other = daemon.client(&daemon.key("other", &["admin"])).get("/api/v1/webhooks/public-key").expect(200).text().to_owned();
    assert_ne!(other, pem);
    daemon.client(&daemon.system_key()).get("/api/v1/webhooks/public-key").expect(403);
    daemon.restart();
    acme = daemon.client(acme.key());
    assert_eq!(acme.get("/api/v1/webhooks/public-key").expect(200).text(), pem);
    let wishes = json!({"profile": "signed-envelope", "overrides": {"signature": "body-rsa-sha256"}});
    let (hook, _) = delivered(&daemon, &mut acme, &wishes, &json!({"type": "claim.created", "payload": {"æ": 1.50}}));
    let body = hook.json();
    let public = STANDARD.decode(pem.lines().filter(|line| !line.starts_with('-')).collect::<String>()).unwrap();
    let signature = STANDARD.decode(body["signature"].as_str().unwrap()).unwrap();
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public);
    public.verify(body["payloadAsString"].as_str().unwrap().as_bytes(), &signature).unwrap();
    assert_eq!(hook.header("webhook-signature"), "");
}

#[test]
fn the_source_of_a_cloud_event_is_the_company_under_the_public_address() {
    let daemon = TestDaemon::with(|config| config.public_url = "https://events.insurer.example/lutine".to_owned());
    let mut acme = daemon.subscriber();
    let wishes = json!({"profile": "cloudevents", "auth": {"kind": "none"}, "overrides": {"cloudEventsTypePrefix": "com.insurer."}});
    let event =
        json!({"type": "claim.created", "payload": "{\"a\": [1.0]}", "references": [{"referenceType": "claim", "referenceId": "C-1"}]});
    let (hook, _) = delivered(&daemon, &mut acme, &wishes, &event);
    let created = acme.send(&Request::get(&format!("/api/v1/events/{}", hook.event()))).expect(200).json()["createdUtc"].clone();
    assert_eq!(
        hook.json(),
        json!({
            "specversion": "1.0", "id": hook.event().to_string(), "source": "https://events.insurer.example/lutine/companies/acme",
            "type": "com.insurer.claim.created", "subject": "claim/C-1", "time": created, "datacontenttype": "application/json",
            "data": {"a": [1.0]},
        })
    );
}

#[test]
fn what_a_receiver_of_references_objects_to_is_in_the_delivery_log() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let receiver = Receiver::new(|_| crate::support::receiver::Reply::Full(422, "", r#"{"errors":["unknown inquiry 567"]}"#.to_owned()));
    acme.subscribe(&receiver.url(), &json!({"profile": "reference"}));
    let event = acme.publish(r#"{"type":"inquiry_created","payload":{}}"#);
    daemon.wait("an attempt", || acme.delivery(1, event)["attempts"][0].is_object());
    let admin = daemon.client(&daemon.key("acme", &["admin"])).delivery(1, event);
    assert_eq!(admin["attempts"][0]["error"], "the receiver answered 422 with 1 error");
    assert_eq!(admin["attempts"][0]["excerpt"], "unknown inquiry 567");
}
