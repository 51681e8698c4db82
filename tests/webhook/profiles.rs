//! One request of every profile and of every other body, compared in full with what is written here by hand.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use lutine::domain::profile::{BodyForm, Handshake, KeepResponse, Profile, SignatureForm, StatusSet};
use lutine::domain::retry::Exchange;
use lutine::domain::subscription::{Auth, Consent, Subscription};
use lutine::webhook::{OutgoingEvent, TargetError};

use crate::requests::{hex, mac, received};
use crate::support::*;

const METADATA: &str = r#"{"user":{ "id":"u-1","originator":"ClientAPI" },"accountReference":"demopool","brokerReference":456}"#;
const REFERENCES: &str = r#"[{"referenceType":"inquiry","referenceId":"5 67\"","links":[{"contentType":"text/html","href":"https://app.example/inquiry/567"}],"snapshot":{"contentType":"application/json","bytes":9}},{"referenceType":"offer","referenceId":"1"}]"#;
/// The notification of event 1042 to subscription 12 under the tests' key, as another program works it out.
const NOTIFICATION: &str = "e12991c4-61f2-8c42-a5fb-c0f362776452";
/// The same in replay 3.
const NOTIFICATION_3: &str = "87b3dbd1-03e0-815e-b60a-f33e2fb08543";
/// Event 1042 as a message.
const MESSAGE: &str = "9c01fa4b-741d-8683-8e13-8204109aa518";
const AGENT: &str = concat!("lutine/", env!("CARGO_PKG_VERSION"));

/// An event with all that a body may tell of.
fn rich() -> OutgoingEvent {
    OutgoingEvent {
        kind: "Inquiry_created".to_owned(),
        references: Bytes::from_static(REFERENCES.as_bytes()),
        ..event_with(r#"{ "claimRef":"C-1", "note":"say \"yes\" \u00e5" }"#, METADATA, "1")
    }
}

/// Request line, headers by name, an empty line, the body; the port stands as `PORT`.
fn whole(request: &Received) -> String {
    let mut headers: Vec<_> = request.headers.iter().collect();
    headers.sort();
    let mut text = format!("{}\n", request.line);
    for (name, value) in headers {
        let value = if name == "host" { value.split(':').next().unwrap() } else { value };
        writeln!(text, "{name}: {value}").unwrap();
    }
    text + "\n" + std::str::from_utf8(&request.body).unwrap()
}

fn standard(body: &str) -> String {
    format!("v1,{}", STANDARD.encode(mac(&[b"evt_1042_12.1795343405.".as_slice(), body.as_bytes()].concat())))
}

async fn sent(event: &OutgoingEvent, change: impl FnOnce(&mut Subscription)) -> String {
    whole(&received(event, change).await)
}

fn profile(profile: Profile) -> impl FnOnce(&mut Subscription) {
    move |subscription| subscription.wishes.profile = profile
}

fn body_form(form: BodyForm) -> impl FnOnce(&mut Subscription) {
    move |subscription| {
        subscription.wishes.profile = Profile::CloudEvents;
        subscription.wishes.overrides.body = Some(form);
    }
}

const DATA: &str = r#"{ "claimRef":"C-1", "note":"say \"yes\" \u00e5" }"#;

#[tokio::test]
async fn standard_in_full() {
    let body = format!(r#"{{"type":"Inquiry_created","timestamp":"2026-11-22T10:30:00.123456Z","data":{DATA}}}"#);
    let expected = format!(
        "POST /hooks HTTP/1.1\ncontent-length: {}\ncontent-type: application/json\nhost: 127.0.0.1\nuser-agent: {AGENT}\nwebhook-id: evt_1042_12\nwebhook-signature: {}\nwebhook-timestamp: 1795343405\n\n{body}",
        body.len(),
        standard(&body)
    );
    assert_eq!(sent(&rich(), profile(Profile::Standard)).await, expected);
}

#[tokio::test]
async fn envelope_in_full() {
    let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    // The type in the envelope is the one that `event_with` writes there.
    let body = format!(
        r#"{{"id":1042,"companyId":7,"type":"Claim.created","createdUtc":"2026-11-22T10:30:00.123456Z","payload":"{}","metadata":"{}"}}"#,
        escaped(DATA),
        escaped(METADATA)
    );
    let expected = format!(
        "POST /hooks HTTP/1.1\ncontent-length: {}\ncontent-type: application/json\nhost: 127.0.0.1\nuser-agent: {AGENT}\nwebhook-id: evt_1042_12\nwebhook-signature: {}\nwebhook-timestamp: 1795343405\nx-signature: sha256={}\n\n{body}",
        body.len(),
        standard(&body),
        hex(&mac(body.as_bytes()))
    );
    assert_eq!(sent(&rich(), profile(Profile::Envelope)).await, expected);
}

/// The text that a signed envelope of the rich event signs.
fn message(version: &str) -> String {
    format!(
        r#"{{"details":{{"messageType":"event.Inquiry_created.v{version}","claimRef":"C-1","note":"say \"yes\" å"}},"messageId":"{MESSAGE}","timestamp":"2026-11-22T10:30:00.123456Z","user":{{"id":"u-1","originator":"ClientAPI"}}}}"#
    )
}

#[tokio::test]
async fn signed_envelope_in_full() {
    let message = message("1");
    let escaped = message.replace('\\', "\\\\").replace('"', "\\\"");
    let signature = STANDARD.encode(mac(message.as_bytes()));
    let body = format!(r#"{{"payload":{message},"payloadAsString":"{escaped}","signature":"{signature}"}}"#);
    let expected = format!(
        "POST /hooks HTTP/1.1\ncontent-length: {}\ncontent-type: application/json\nhost: 127.0.0.1\nuser-agent: {AGENT}\nwebhook-id: evt_1042_12\nwebhook-timestamp: 1795343405\n\n{body}",
        body.len()
    );
    assert_eq!(sent(&rich(), profile(Profile::SignedEnvelope)).await, expected);
}

#[tokio::test]
async fn signed_envelope_by_rsa_verifies_with_the_public_key() {
    use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

    let event = OutgoingEvent { version: "2.1.0".to_owned(), ..rich() };
    let request = received(&event, |subscription| {
        subscription.wishes.profile = Profile::SignedEnvelope;
        subscription.wishes.overrides.signature = Some(SignatureForm::BodyRsaSha256);
    })
    .await;
    let message = message("2");
    let escaped = message.replace('\\', "\\\\").replace('"', "\\\"");
    let body = std::str::from_utf8(&request.body).unwrap();
    let signature = body.strip_prefix(&format!(r#"{{"payload":{message},"payloadAsString":"{escaped}","signature":""#)).unwrap();
    let signature = STANDARD.decode(signature.strip_suffix("\"}").unwrap()).unwrap();
    let pem = origin().rsa.unwrap().public_pem().unwrap();
    let public = STANDARD.decode(pem.lines().filter(|line| !line.starts_with('-')).collect::<String>()).unwrap();
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public);
    public.verify(message.as_bytes(), &signature).unwrap();
    assert!(public.verify(&message.as_bytes()[1..], &signature).is_err());
    assert_eq!(request.header("event-version"), "2.1.0");
    assert!(!request.headers.contains_key("webhook-signature"));
}

/// One event in the JSON format.
fn cloud_event() -> String {
    format!(
        r#"{{"specversion":"1.0","id":"1042","source":"https://events.insurer.example:8443/lutine/companies/acme","type":"Inquiry_created","subject":"inquiry/5 67\"","time":"2026-11-22T10:30:00.123456Z","datacontenttype":"application/json","data":{DATA}}}"#
    )
}

#[tokio::test]
async fn cloud_events_in_full() {
    let body = cloud_event();
    let expected = format!(
        "POST /hooks HTTP/1.1\nauthorization: Bearer t\ncontent-length: {}\ncontent-type: application/cloudevents+json; charset=utf-8\nhost: 127.0.0.1\nuser-agent: {AGENT}\nwebhook-id: evt_1042_12\nwebhook-signature: {}\nwebhook-timestamp: 1795343405\n\n{body}",
        body.len(),
        standard(&body)
    );
    let bearer = |subscription: &mut Subscription| {
        subscription.wishes.profile = Profile::CloudEvents;
        subscription.wishes.auth = Auth::Bearer("t".to_owned());
    };
    assert_eq!(sent(&rich(), bearer).await, expected);
}

#[tokio::test]
async fn a_batch_of_cloud_events_in_full() {
    let body = format!("[{}]", cloud_event());
    let expected = format!(
        "POST /hooks HTTP/1.1\ncontent-length: {}\ncontent-type: application/cloudevents-batch+json; charset=utf-8\nhost: 127.0.0.1\nuser-agent: {AGENT}\nwebhook-id: evt_1042_12\nwebhook-signature: {}\nwebhook-timestamp: 1795343405\n\n{body}",
        body.len(),
        standard(&body)
    );
    assert_eq!(sent(&rich(), body_form(BodyForm::CloudEventsBatch)).await, expected);
}

#[tokio::test]
async fn binary_cloud_events_in_full() {
    let expected = format!(
        "POST /hooks HTTP/1.1\nce-id: 1042\nce-source: urn:broker\nce-specversion: 1.0\nce-subject: inquiry/5%2067%22\nce-time: 2026-11-22T10:30:00.123456Z\nce-type: com.insurer.Inquiry_created\ncontent-length: {}\ncontent-type: application/json\nevent-version: 2\nhost: 127.0.0.1\nuser-agent: {AGENT}\nwebhook-id: evt_1042_12\nwebhook-signature: {}\nwebhook-timestamp: 1795343405\n\n{DATA}",
        DATA.len(),
        standard(DATA)
    );
    let change = |subscription: &mut Subscription| {
        body_form(BodyForm::CloudEventsBinary)(subscription);
        subscription.wishes.overrides.cloud_events_source = Some("urn:broker".to_owned());
        subscription.wishes.overrides.cloud_events_type_prefix = Some("com.insurer.".to_owned());
    };
    assert_eq!(sent(&OutgoingEvent { version: "2".to_owned(), ..rich() }, change).await, expected);
}

fn reference_body(notification: &str) -> String {
    format!(
        concat!(
            r#"{{"eventType":"Inquiry_created","eventTime":"2026-11-22T10:30:00.123456Z","eventId":"1042","notificationId":"{0}","#,
            r#""accountReference":"demopool","brokerReference":"456","translations":{{"eventType":{{"de_DE":"Beratung erstellt"}}}},"#,
            r#""affected":[{{"referenceType":"inquiry","referenceId":"5 67\"","links":["#,
            r#"{{"contentType":"application/json","href":"https://events.insurer.example:8443/lutine/api/public/v2/notifications/{0}/inquiries/5%2067%22"}},"#,
            r#"{{"contentType":"text/html","href":"https://app.example/inquiry/567"}}]}},"#,
            r#"{{"referenceType":"offer","referenceId":"1","links":[]}}]}}"#
        ),
        notification
    )
}

#[tokio::test]
async fn references_in_full() {
    let body = reference_body(NOTIFICATION);
    let expected = format!(
        "POST /hooks HTTP/1.1\naccept: application/json\ncontent-length: {}\ncontent-type: application/json\nhost: 127.0.0.1\nuser-agent: {AGENT}\nwebhook-id: evt_1042_12\nwebhook-signature: {}\nwebhook-timestamp: 1795343405\n\n{body}",
        body.len(),
        standard(&body)
    );
    assert_eq!(sent(&rich(), profile(Profile::Reference)).await, expected);
}

#[tokio::test]
async fn a_replay_is_another_notification_of_the_same_message() {
    let event = OutgoingEvent { run: 3, ..rich() };
    let request = received(&event, profile(Profile::Reference)).await;
    assert_eq!(std::str::from_utf8(&request.body).unwrap(), reference_body(NOTIFICATION_3));
    assert_eq!(request.header("webhook-id"), "evt_1042_12_r3");
    let request = received(&event, profile(Profile::SignedEnvelope)).await;
    assert!(std::str::from_utf8(&request.body).unwrap().contains(MESSAGE));
}

#[tokio::test]
async fn without_metadata_a_reference_names_the_company_and_no_broker() {
    let event = OutgoingEvent { kind: "made.up".to_owned(), ..event_with("{}", "{}", "1") };
    let request = received(&event, profile(Profile::Reference)).await;
    let expected = format!(
        r#"{{"eventType":"made.up","eventTime":"2026-11-22T10:30:00.123456Z","eventId":"1042","notificationId":"{NOTIFICATION}","accountReference":"acme","brokerReference":"","translations":{{"eventType":{{}}}},"affected":[]}}"#
    );
    assert_eq!(String::from_utf8(request.body).unwrap(), expected);
    let own = |subscription: &mut Subscription| {
        subscription.wishes.profile = Profile::Reference;
        subscription.wishes.headers = vec![("Accept".to_owned(), "*/*".to_owned())];
    };
    assert_eq!(received(&event, own).await.header("accept"), "*/*");
}

#[tokio::test]
async fn the_bridge_in_full() {
    let expected = format!(
        "POST /hooks HTTP/1.1\ncontent-length: {}\ncontent-type: application/json;charset=utf-8\nevent-type: Inquiry_created\nhost: 127.0.0.1\nuser-agent: {AGENT}\nwebhook-id: evt_1042_12\nwebhook-signature: {}\nwebhook-timestamp: 1795343405\n\n{DATA}",
        DATA.len(),
        standard(DATA)
    );
    assert_eq!(sent(&rich(), profile(Profile::Bridge)).await, expected);
}

#[tokio::test]
async fn a_receiver_that_has_consented_is_told_who_sends() {
    let asked = |consent| {
        move |subscription: &mut Subscription| {
            subscription.wishes.profile = Profile::CloudEvents;
            subscription.wishes.overrides.handshake = Some(Handshake::Options);
            subscription.consent = consent;
        }
    };
    let consent = Some(Consent { rate_per_minute: 0 });
    assert_eq!(received(&rich(), asked(consent)).await.header("webhook-request-origin"), "events.insurer.example");
    assert!(!received(&rich(), asked(None)).await.headers.contains_key("webhook-request-origin"));
}

#[test]
fn a_sender_without_a_name_asks_nobody() {
    let mut subscription = subscription("https://receiver.test/");
    subscription.wishes.overrides.handshake = Some(Handshake::Options);
    subscription.consent = Some(Consent { rate_per_minute: 0 });
    let nameless = lutine::webhook::Origin { public_url: "".into(), ..origin() };
    assert_eq!(lutine::webhook::Target::new(&subscription, nameless).err(), Some(TargetError::Origin));
}

/// What is kept of an answer to a subscription of this profile.
async fn kept(answer: &str, change: impl FnOnce(&mut Subscription)) -> (String, Option<String>) {
    let receiver = Receiver::answers(answer).await;
    let mut subscription = subscription(&receiver.url());
    change(&mut subscription);
    let report = send(&sender(), &target_of(&subscription)).await;
    assert!(matches!(report.exchange, Exchange::Answered { .. }), "{report:?}");
    (report.excerpt, report.error)
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn of_a_failure_the_errors_are_kept_or_else_the_excerpt() {
    let errors = answer("422 Unprocessable Content", r#"{"errors":["unknown inquiry","no broker"]}"#);
    let (excerpt, error) = kept(&errors, profile(Profile::Reference)).await;
    assert_eq!((excerpt.as_str(), error.as_deref()), ("unknown inquiry\nno broker", Some("the receiver answered 422 with 2 errors")));
    let (excerpt, error) = kept(&answer("500 Oops", "oops"), profile(Profile::Reference)).await;
    assert_eq!((excerpt.as_str(), error.as_deref()), ("oops", Some("the receiver answered 500")));
    let (excerpt, error) = kept(&errors, profile(Profile::Standard)).await;
    assert_eq!((excerpt.as_str(), error.as_deref()), (r#"{"errors":["unknown inquiry","no broker"]}"#, Some("the receiver answered 422")));
}

#[tokio::test]
async fn of_a_success_the_profiles_keep_what_they_say() {
    let fine = answer("200 OK", "fine");
    assert_eq!(kept(&fine, profile(Profile::CloudEvents)).await, (String::new(), None));
    assert_eq!(kept(&fine, profile(Profile::Bridge)).await, ("fine".to_owned(), None));
    let lenient = |subscription: &mut Subscription| {
        subscription.wishes.profile = Profile::Reference;
        subscription.wishes.overrides.lenient_success = Some(true);
    };
    assert_eq!(kept(&fine, lenient).await, (String::new(), None));
    let strict = |subscription: &mut Subscription| {
        subscription.wishes.profile = Profile::CloudEvents;
        subscription.wishes.overrides.success = Some(StatusSet::parse(["204"]).unwrap());
        subscription.wishes.overrides.keep_response = Some(KeepResponse::None);
    };
    assert_eq!(kept(&fine, strict).await, ("fine".to_owned(), Some("the receiver answered 200".to_owned())));
}
