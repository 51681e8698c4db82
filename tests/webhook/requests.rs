//! What a receiver gets.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{HeaderMap, HeaderName};
use lutine::domain::profile::{BodyForm, KeepResponse, PayloadAs, Profile, SignatureForm, StatusSet};
use lutine::domain::retry::Exchange;
use lutine::domain::subscription::{Auth, Subscription};
use lutine::domain::time::Timestamp;
use lutine::webhook::{OutgoingEvent, Target, TargetError, VerifyError, verify};
use sha2::{Digest, Sha256};

use crate::support::*;

/// HMAC-SHA256 straight from RFC 2104, for a key of 32 bytes.
pub fn mac(message: &[u8]) -> Vec<u8> {
    let pad = |byte: u8| -> Vec<u8> { (0..64).map(|place| SECRET.get(place).copied().unwrap_or(0) ^ byte).collect() };
    let inner = Sha256::digest([pad(0x36), message.to_vec()].concat());
    Sha256::digest([pad(0x5c), inner.to_vec()].concat()).to_vec()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What one webhook looks like to its receiver.
pub async fn received(event: &OutgoingEvent, change: impl FnOnce(&mut Subscription)) -> Received {
    let receiver = Receiver::answers(OK).await;
    let mut subscription = subscription(&receiver.url());
    change(&mut subscription);
    let report = sender().send(&target_of(&subscription), event, 1, now()).await;
    assert_eq!(report.exchange, Exchange::Answered { status: 204, not_before: None }, "{report:?}");
    assert_eq!((report.error, report.address), (None, Some(receiver.address.ip())));
    let [request] = receiver.requests().try_into().unwrap();
    request
}

fn signed(request: &Received) -> HeaderMap {
    let pair = |(name, value): (&String, &String)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    request.headers.iter().map(pair).collect()
}

#[tokio::test]
async fn the_standard_profile_sends_a_typed_body_signed_as_standard_webhooks_says() {
    let request = received(&event(), |_| ()).await;
    let body = r#"{"type":"Claim.created","timestamp":"2026-11-22T10:30:00.123456Z","data":{"claim":"c-1","note":"say \"yes\"\n"}}"#;
    assert_eq!(String::from_utf8(request.body.clone()).unwrap(), body);
    assert_eq!(request.line, "POST /hooks HTTP/1.1");
    assert_eq!(request.header("content-type"), "application/json");
    assert_eq!(request.header("user-agent"), concat!("lutine/", env!("CARGO_PKG_VERSION")));
    assert_eq!(request.header("webhook-id"), "evt_1042_12");
    assert_eq!(request.header("webhook-timestamp"), "1795343405");
    let message = [b"evt_1042_12.1795343405.".as_slice(), body.as_bytes()].concat();
    assert_eq!(request.header("webhook-signature"), format!("v1,{}", STANDARD.encode(mac(&message))));
    let mut names: Vec<_> = request.headers.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-length", "content-type", "host", "user-agent", "webhook-id", "webhook-signature", "webhook-timestamp"]);
}

#[tokio::test]
async fn the_envelope_profile_sends_the_envelope_with_a_signature_over_the_body_beside_the_standard_one() {
    let event = event();
    let request = received(&event, |subscription| subscription.wishes.profile = Profile::Envelope).await;
    assert_eq!(request.body, event.envelope);
    assert_eq!(request.header("x-signature"), format!("sha256={}", hex(&mac(&event.envelope))));
    let message = [b"evt_1042_12.1795343405.".as_slice(), &event.envelope].concat();
    assert_eq!(request.header("webhook-signature"), format!("v1,{}", STANDARD.encode(mac(&message))));
}

#[tokio::test]
async fn the_signature_can_have_another_header_and_the_payload_can_be_an_object() {
    let request = received(&event_with(r#"{"a":"\\"}"#, r#"{"m":1}"#, "1"), |subscription| {
        subscription.wishes.profile = Profile::Envelope;
        subscription.wishes.overrides.signature_header = Some("X-Partner-Sign".to_owned());
        subscription.wishes.overrides.payload_as = Some(PayloadAs::Object);
        subscription.wishes.overrides.content_type = Some("application/vnd.partner+json".to_owned());
    })
    .await;
    let body = r#"{"id":1042,"companyId":7,"type":"Claim.created","createdUtc":"2026-11-22T10:30:00.123456Z","payload":{"a":"\\"},"metadata":{"m":1}}"#;
    assert_eq!(String::from_utf8(request.body.clone()).unwrap(), body);
    assert_eq!(request.header("x-partner-sign"), format!("sha256={}", hex(&mac(body.as_bytes()))));
    assert_eq!((request.header("x-signature"), request.header("content-type")), ("", "application/vnd.partner+json"));
}

#[tokio::test]
async fn without_a_signature_the_id_and_the_time_are_sent_all_the_same() {
    let request = received(&event(), |subscription| {
        subscription.wishes.overrides.signature = Some(SignatureForm::None);
        subscription.wishes.overrides.body = Some(BodyForm::Envelope);
    })
    .await;
    assert_eq!((request.header("webhook-id"), request.header("webhook-timestamp")), ("evt_1042_12", "1795343405"));
    assert!(!request.headers.contains_key("webhook-signature"));
}

#[tokio::test]
async fn a_version_that_is_not_1_is_named() {
    assert_eq!(received(&event_with("{}", "{}", "2.1"), |_| ()).await.header("event-version"), "2.1");
    assert!(!received(&event_with("{}", "{}", "1"), |_| ()).await.headers.contains_key("event-version"));
}

#[tokio::test]
async fn the_subscriptions_own_headers_and_its_authorization_are_sent() {
    let request = received(&event(), |subscription| {
        subscription.wishes.headers = vec![("X-Partner".to_owned(), "7".to_owned()), ("Accept".to_owned(), "application/json".to_owned())];
        subscription.wishes.auth = Auth::Basic("Aladdin".to_owned(), "open sesame".to_owned());
    })
    .await;
    assert_eq!((request.header("x-partner"), request.header("accept")), ("7", "application/json"));
    assert_eq!(request.header("authorization"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    let request = received(&event(), |subscription| subscription.wishes.auth = Auth::Bearer("abc.def".to_owned())).await;
    assert_eq!(request.header("authorization"), "Bearer abc.def");
}

#[tokio::test]
async fn the_url_keeps_its_path_and_query_and_the_host_its_port() {
    let receiver = Receiver::answers(OK).await;
    let port = receiver.address.port();
    send(&sender(), &target(&format!("http://Receiver.TEST:{port}/a%20b/?key=1&x={{}}"))).await;
    let [request] = receiver.requests().try_into().unwrap();
    assert_eq!(request.line, "POST /a%20b/?key=1&x={} HTTP/1.1");
    assert_eq!(request.header("host"), format!("receiver.test:{port}"));
}

#[test]
fn a_subscription_that_cannot_be_sent_to_is_refused() {
    let refused = |change: &dyn Fn(&mut Subscription)| {
        let mut subscription = subscription("https://receiver.test/");
        change(&mut subscription);
        Target::new(&subscription, origin()).err()
    };
    assert_eq!(refused(&|_| ()), None);
    assert!(matches!(refused(&|subscription| subscription.wishes.url = "ftp://a/".to_owned()), Some(TargetError::Url(_))));
    assert_eq!(refused(&|subscription| subscription.wishes.auth = Auth::Bearer("a\r\nb".to_owned())), Some(TargetError::Auth));
    assert_eq!(refused(&|subscription| subscription.wishes.auth = Auth::Basic("a:b".to_owned(), String::new())), Some(TargetError::Auth));
    let content_type = |subscription: &mut Subscription| subscription.wishes.overrides.content_type = Some("a\nb".to_owned());
    assert_eq!(refused(&content_type), Some(TargetError::ContentType));
    for name in ["Host", "Content-Length", "webhook-id", "X A"] {
        let header = |subscription: &mut Subscription| {
            subscription.wishes.profile = Profile::Envelope;
            subscription.wishes.overrides.signature_header = Some(name.to_owned());
        };
        assert!(matches!(refused(&header), Some(TargetError::Header(_))), "{name}");
        let header = |subscription: &mut Subscription| subscription.wishes.headers = vec![(name.to_owned(), "x".to_owned())];
        assert!(matches!(refused(&header), Some(TargetError::Header(_))), "{name}");
    }
}

#[test]
fn secrets_do_not_show_in_debug_output() {
    let mut subscription = subscription("https://receiver.test/?token=hush");
    subscription.wishes.auth = Auth::Bearer("hush".to_owned());
    assert!(!format!("{:?}", target_of(&subscription)).contains("hush"));
}

#[tokio::test]
async fn what_is_sent_verifies_until_it_is_changed_or_old() {
    let request = received(&event(), |_| ()).await;
    let headers = signed(&request);
    let at = |seconds: u64| Timestamp::from_micros((1_795_343_405 + seconds) * 1_000_000);
    let check = |body: &[u8], now| verify(&SECRET, &headers, body, now, Duration::from_secs(300));
    assert_eq!(check(&request.body, at(0)), Ok(()));
    assert_eq!(check(&request.body, at(301)), Err(VerifyError::Time(Duration::from_secs(301))));
    let mut changed = request.body.clone();
    changed[5] ^= 1;
    assert_eq!(check(&changed, at(0)), Err(VerifyError::Signature));
    assert_eq!(verify(&[0; 32], &headers, &request.body, at(0), Duration::from_secs(300)), Err(VerifyError::Signature));
}

#[tokio::test]
async fn of_an_answer_an_excerpt_is_kept_unless_the_subscription_wants_none() {
    let receiver = Receiver::answers("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nh\u{e5}i!").await;
    let report = send(&sender(), &target(&receiver.url())).await;
    assert_eq!((report.excerpt.as_str(), report.truncated, report.status), ("h\u{e5}i!", false, Some(200)));
    let mut subscription = subscription(&receiver.url());
    subscription.wishes.overrides.keep_response = Some(KeepResponse::None);
    let report = send(&sender(), &target_of(&subscription)).await;
    assert_eq!((report.excerpt.as_str(), report.truncated, report.status), ("", false, Some(200)));
}

#[tokio::test]
async fn a_success_outside_the_set_is_told_as_what_it_is() {
    let receiver = Receiver::answers("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let mut subscription = subscription(&receiver.url());
    subscription.wishes.overrides.success = Some(StatusSet::parse(["204"]).unwrap());
    let report = send(&sender(), &target_of(&subscription)).await;
    assert_eq!(report.exchange, Exchange::Answered { status: 200, not_before: None });
    assert_eq!(report.error.unwrap(), "the receiver answered 200");
}
