//! Access tokens for receivers: fetched once, renewed once, and nothing goes without one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use lutine::domain::egress::EgressPolicy;
use lutine::domain::retry::{ErrorClass, Exchange};
use lutine::domain::subscription::{Auth, ClientCredentials, Credential, Subscription, TokenMethod};
use lutine::webhook::{Report, Sender, Target, check_url};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::support::*;

const DELIVERED: Exchange = Exchange::Answered { status: 204, not_before: None };
const UNAUTHORIZED: Exchange = Exchange::Answered { status: 401, not_before: None };
const NO_TOKEN: Exchange = Exchange::Failed(ErrorClass::Token);
const REFUSAL: &str = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";

fn json(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn granted(token: &str) -> String {
    json(200, &format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":3600}}"#))
}

/// A token service that issues `token-0`, `token-1` and so on.
async fn service() -> Receiver {
    let count = AtomicUsize::new(0);
    Receiver::decides(move |_| granted(&format!("token-{}", count.fetch_add(1, Ordering::SeqCst)))).await
}

fn credentials(token_url: &str) -> ClientCredentials {
    ClientCredentials {
        token_url: token_url.to_owned(),
        client_id: "lutine".to_owned(),
        method: TokenMethod::Basic,
        credential: Credential("hush-hush-hush".to_owned()),
        scope: Some("hooks".to_owned()),
        audience: None,
    }
}

fn authorized(url: &str, token_url: &str) -> Subscription {
    let mut subscription = subscription(url);
    subscription.wishes.auth = Auth::OAuth2(Box::new(credentials(token_url)));
    subscription
}

fn authorized_target(receiver: &Receiver, service: &Receiver) -> Target {
    Target::new(&authorized(&receiver.url(), &service.url()), origin()).unwrap()
}

async fn send_after(sender: &Sender, target: &Target, seconds: u64) -> Report {
    sender.send(target, &event(), 1, now().after(Duration::from_secs(seconds))).await
}

fn shown(receiver: &Receiver) -> Vec<String> {
    receiver.requests().iter().map(|request| request.header("authorization").to_owned()).collect()
}

#[tokio::test]
async fn two_thousand_deliveries_need_one_token() {
    let (receiver, service) = (Receiver::answers(OK).await, service().await);
    let (sender, target) = (sender(), Arc::new(authorized_target(&receiver, &service)));
    let mut lanes = JoinSet::new();
    for _ in 0..20 {
        let (sender, target) = (sender.clone(), Arc::clone(&target));
        lanes.spawn(async move {
            for _ in 0..100 {
                assert_eq!(send(&sender, &target).await.exchange, DELIVERED);
            }
        });
    }
    while let Some(lane) = lanes.join_next().await {
        lane.unwrap();
    }
    assert_eq!(service.requests().len(), 1);
    let shown = shown(&receiver);
    assert!(shown.len() >= 2000 && shown.iter().all(|value| value == "Bearer token-0"), "{} requests", shown.len());
    let asked = &service.requests()[0];
    assert_eq!((asked.line.as_str(), asked.body.as_slice()), ("POST /hooks HTTP/1.1", &b"grant_type=client_credentials&scope=hooks"[..]));
    assert_eq!(asked.header("authorization"), format!("Basic {}", STANDARD.encode("lutine:hush-hush-hush")));
}

#[tokio::test]
async fn fifty_attempts_that_begin_together_wait_for_one_call() {
    let signal = Arc::new(Notify::new());
    let service = Receiver::follows(vec![vec![Step::Read, Step::Wait(signal.clone()), write(granted("token"))]]).await;
    let receiver = Receiver::answers(OK).await;
    let (sender, target) = (sender(), Arc::new(authorized_target(&receiver, &service)));
    let mut attempts = JoinSet::new();
    for _ in 0..50 {
        let (sender, target) = (sender.clone(), Arc::clone(&target));
        attempts.spawn(async move { send(&sender, &target).await.exchange });
    }
    while service.requests().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(receiver.connections(), 0, "something was sent before there was a token");
    signal.notify_one();
    while let Some(exchange) = attempts.join_next().await {
        assert_eq!(exchange.unwrap(), DELIVERED);
    }
    assert_eq!((service.connections(), receiver.requests().len()), (1, 50));
}

#[tokio::test]
async fn a_refused_token_is_renewed_once_and_the_webhook_sent_once_more() {
    let receiver = Receiver::follows(vec![vec![Step::Read, write(REFUSAL), Step::Read, write(OK), Step::Read, write(OK)]]).await;
    let service = service().await;
    let (sender, target) = (sender(), authorized_target(&receiver, &service));
    for _ in 0..2 {
        let report = send(&sender, &target).await;
        assert_eq!((report.exchange, report.status, report.error), (DELIVERED, Some(204), None));
    }
    assert_eq!(shown(&receiver), ["Bearer token-0", "Bearer token-1", "Bearer token-1"]);
    assert_eq!(service.requests().len(), 2);
    let requests = receiver.requests();
    assert_eq!(requests[0].header("webhook-id"), requests[1].header("webhook-id"));
    assert_eq!(requests[0].body, requests[1].body);
    assert_eq!(requests[2].connection, 0, "the connection was not used again");
}

#[tokio::test]
async fn a_second_401_is_a_failure_and_new_tokens_are_then_not_tried_all_the_time() {
    let (receiver, service) = (Receiver::answers(REFUSAL).await, service().await);
    let (sender, target) = (sender(), authorized_target(&receiver, &service));
    let report = send(&sender, &target).await;
    assert_eq!((report.exchange, report.status), (UNAUTHORIZED, Some(401)));
    assert_eq!(report.error.as_deref(), Some("the receiver answered 401"));
    assert_eq!((receiver.requests().len(), service.requests().len()), (2, 2));
    // At once: only what the first attempt left.
    assert_eq!(send(&sender, &target).await.exchange, UNAUTHORIZED);
    assert_eq!((receiver.requests().len(), service.requests().len()), (3, 2));
    // A moment later it may be renewed again.
    assert_eq!(send_after(&sender, &target, 5).await.exchange, UNAUTHORIZED);
    assert_eq!((receiver.requests().len(), service.requests().len()), (5, 3));
}

#[tokio::test]
async fn attempts_that_are_refused_together_renew_the_token_together() {
    let receiver = Receiver::decides(|request| {
        if request.header("authorization") == "Bearer token-0" { REFUSAL } else { "HTTP/1.1 204 X\r\n\r\n" }.to_owned()
    })
    .await;
    let service = service().await;
    let (sender, target) = (sender(), Arc::new(authorized_target(&receiver, &service)));
    let mut attempts = JoinSet::new();
    for _ in 0..16 {
        let (sender, target) = (sender.clone(), Arc::clone(&target));
        attempts.spawn(async move { send(&sender, &target).await.exchange });
    }
    while let Some(exchange) = attempts.join_next().await {
        assert_eq!(exchange.unwrap(), DELIVERED);
    }
    assert_eq!(service.requests().len(), 2);
}

#[tokio::test]
async fn a_token_that_is_about_to_expire_is_not_sent_any_more() {
    let (receiver, service) = (Receiver::answers(OK).await, service().await);
    let (sender, target) = (sender(), authorized_target(&receiver, &service));
    for seconds in [0, 3539, 3540, 3541] {
        assert_eq!(send_after(&sender, &target, seconds).await.exchange, DELIVERED);
    }
    assert_eq!(shown(&receiver), ["Bearer token-0", "Bearer token-0", "Bearer token-1", "Bearer token-1"]);
}

#[tokio::test]
async fn an_outage_of_the_token_service_sends_nothing_asks_seldom_and_ends_by_itself() {
    let down = json(503, "hush");
    let service =
        Receiver::follows(vec![vec![Step::Read, write(&down)], vec![Step::Read], vec![Step::Read, write(granted("token"))]]).await;
    let receiver = Receiver::answers(OK).await;
    let (sender, target) = (sender(), authorized_target(&receiver, &service));
    let report = send(&sender, &target).await;
    assert_eq!((report.exchange, report.status), (NO_TOKEN, None));
    assert_eq!(report.error.as_deref(), Some("the token service answered 503"));
    for _ in 0..10 {
        let report = send(&sender, &target).await;
        assert_eq!(report.exchange, NO_TOKEN);
        // The pause is about a second, and told in whole ones, rounded up.
        let left_alone = report
            .error
            .as_deref()
            .and_then(|error| error.strip_prefix("the token service answered 503; the token service is left alone for another "));
        assert!(matches!(left_alone, Some("1 s" | "2 s")), "{report:?}");
    }
    assert_eq!(service.connections(), 1);
    let report = send_after(&sender, &target, 3).await;
    assert_eq!(report.exchange, NO_TOKEN);
    assert!(report.error.as_ref().unwrap().contains("the token service closed the connection"), "{report:?}");
    assert_eq!(service.connections(), 2);
    // The second pause is longer than the first.
    assert_eq!(send_after(&sender, &target, 4).await.exchange, NO_TOKEN);
    assert_eq!((service.connections(), receiver.connections()), (2, 0));
    assert_eq!(send_after(&sender, &target, 10).await.exchange, DELIVERED);
    assert_eq!((service.connections(), receiver.requests().len()), (3, 1));
}

#[tokio::test]
async fn a_webhook_is_not_sent_again_without_another_token() {
    let service = Receiver::follows(vec![
        vec![Step::Read, write(granted("token"))],
        vec![Step::Read, write(json(400, r#"{"error":"invalid_client"}"#))],
    ]);
    let (receiver, service) = (Receiver::answers(REFUSAL).await, service.await);
    let report = send(&sender(), &authorized_target(&receiver, &service)).await;
    assert_eq!((report.exchange, receiver.requests().len()), (NO_TOKEN, 1));
    assert_eq!(report.error.as_deref(), Some("the receiver answered 401, and the token service answered 400: invalid_client"));
}

#[tokio::test]
async fn a_slow_token_service_costs_an_attempt_its_own_time_and_no_second_call() {
    let signal = Arc::new(Notify::new());
    let service = Receiver::follows(vec![vec![Step::Read, Step::Wait(signal.clone()), write(granted("token"))]]).await;
    let receiver = Receiver::answers(OK).await;
    let mut subscription = authorized(&receiver.url(), &service.url());
    subscription.wishes.overrides.timeout_ms = Some(200);
    let (sender, hurried) = (sender(), Target::new(&subscription, origin()).unwrap());
    let report = send(&sender, &hurried).await;
    assert_eq!(report.exchange, NO_TOKEN);
    assert_eq!(report.error.as_deref(), Some("the time-out of 200ms passed while there was no access token yet"));
    signal.notify_one();
    assert_eq!(send(&sender, &hurried).await.exchange, DELIVERED);
    assert_eq!((service.connections(), receiver.requests().len()), (1, 1));
}

#[tokio::test]
async fn redirects_of_a_token_service_are_not_followed() {
    let thief = service().await;
    for status in [301, 302, 303, 307, 308] {
        let answer = format!("HTTP/1.1 {status} X\r\nLocation: {}?secret\r\nContent-Length: 0\r\n\r\n", thief.url());
        let (service, receiver) = (Receiver::answers(answer).await, Receiver::answers(OK).await);
        let report = send(&sender(), &authorized_target(&receiver, &service)).await;
        assert_eq!(report.exchange, NO_TOKEN);
        let expected = format!("the token service answered {status} and points to 127.0.0.1; redirects are not followed");
        assert_eq!((report.error, receiver.connections()), (Some(expected), 0));
    }
    assert_eq!(thief.connections(), 0);
}

#[tokio::test]
async fn hostile_answers_of_a_token_service_bring_no_token_and_nothing_is_sent() {
    let ok = |body: &str| vec![Step::Read, write(json(200, body)), Step::Hang];
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    let endless = vec![Step::Read, write(head), Step::Repeat(format!("1000\r\n{}\r\n", "x".repeat(4096)).into_bytes(), 100_000)];
    let cases = [
        ("not JSON", ok("<html>hush</html>"), "no JSON object"),
        ("no object", ok(r#"["hush","bearer",60]"#), "no JSON object"),
        ("no token", ok(r#"{"token":"hush"}"#), "no access_token"),
        ("a number", ok(r#"{"access_token":7}"#), "no access_token"),
        ("a line break", ok(r#"{"access_token":"hush\r\nX-Evil: 1"}"#), "characters that none may have"),
        ("a nul", ok(r#"{"access_token":"hush\u0000"}"#), "characters that none may have"),
        ("not ASCII", ok(r#"{"access_token":"hüsh"}"#), "characters that none may have"),
        ("too long", ok(&format!(r#"{{"access_token":"{}"}}"#, "x".repeat(9000))), "longer than 8 KiB"),
        ("another type", ok(r#"{"access_token":"hush","token_type":"mac"}"#), "token_type is not Bearer"),
        ("nested without end", ok(&format!(r#"{{"a":{}"#, "[".repeat(60_000))), "no JSON object"),
        ("huge", endless, "larger than 64 KiB"),
        ("declared huge", vec![Step::Read, write("HTTP/1.1 200 OK\r\nContent-Length: 9000000000\r\n\r\n{")], "broke off"),
        ("not HTTP", vec![Step::Read, write("hush\r\n\r\n")], "is not HTTP/1.1"),
        ("closes", vec![Step::Read], "the token service closed the connection"),
        ("resets", vec![Step::Read, Step::Reset], "the connection broke"),
        ("a huge head", vec![Step::Read, Step::Repeat(b"HTTP/1.1 200 OK\r\nX-A: b\r\n".repeat(4096), 10), Step::Hang], ""),
        ("drips", vec![Step::Read, Step::Drip(json(200, r#"{"access_token":"hush"}"#).into_bytes())], "no access token yet"),
        ("hangs", vec![Step::Read, Step::Hang], "no access token yet"),
    ];
    for (name, script, error) in cases {
        let (service, receiver) = (Receiver::follows(vec![script]).await, Receiver::answers(OK).await);
        let mut subscription = authorized(&receiver.url(), &service.url());
        subscription.wishes.overrides.timeout_ms = Some(if error.ends_with("yet") { 300 } else { 5_000 });
        let report = send(&sender(), &Target::new(&subscription, origin()).unwrap()).await;
        assert_eq!(report.exchange, NO_TOKEN, "{name}: {report:?}");
        let told = report.error.as_deref().unwrap();
        assert!(told.contains(error) && !told.contains("hush") && !told.contains("receiver"), "{name}: {told}");
        assert_eq!((receiver.connections(), report.excerpt.as_str()), (0, ""), "{name}");
        assert!(service.written() < 8_000_000, "{name}: {} bytes were taken", service.written());
    }
}

#[tokio::test]
async fn token_services_keep_to_the_same_policy_as_receivers() {
    let names = Names::new([
        ("inside.test", &[&["10.1.1.1"]]),
        ("mixed.test", &[&["127.0.0.1", "169.254.169.254"]]),
        ("rebinds.test", &[&["192.168.1.1"]]),
    ]);
    let receiver = Receiver::answers(OK).await;
    let refused =
        ["http://inside.test/", "http://mixed.test/", "http://rebinds.test/", "http://169.254.169.254/latest", "http://[fd00:ec2::254]/"];
    for url in refused {
        let (sender, _) = sender_with(development(), names.clone());
        let report = send(&sender, &Target::new(&authorized(&receiver.url(), url), origin()).unwrap()).await;
        assert_eq!(report.exchange, NO_TOKEN, "{url}: {report:?}");
        let told = report.error.unwrap();
        assert!(told.starts_with("the token service's address is not allowed: it is "), "{url}: {told}");
        assert!(!told.contains("10.1.1.1") && !told.contains("169.254"), "{told}");
    }
    let (sender, policy) = sender_with(development(), Arc::new(AlwaysHere));
    policy.store(Arc::new(EgressPolicy { allow_http: false, ..development() }));
    let report = send(&sender, &Target::new(&authorized("https://partner.test/", &service().await.url()), origin()).unwrap()).await;
    let expected = "the token service's URL begins with http:// and egress.allow_http is false";
    assert_eq!((report.exchange, report.error.as_deref()), (NO_TOKEN, Some(expected)));
    assert_eq!(receiver.connections(), 0);
}

#[test]
fn no_spelling_of_a_forbidden_address_gets_past_the_check() {
    let policy = EgressPolicy { allow_public: true, allow_http: true, ..EgressPolicy::default() };
    let spellings = [
        "http://127.1/token",
        "http://2130706433/token",
        "http://0x7f.1/token",
        "http://0177.0.0.1/token",
        "http://[::1]/token",
        "http://[::ffff:127.0.0.1]/token",
        "http://[::ffff:7f00:1]/token",
        "http://127.0.0.1./token",
        "http://localhost/token",
        "http://LOCALHOST./token",
        "http://a.localhost/token",
        "http://①②⑦.0.0.1/token",
        "http://169.254.169.254/token",
        "http://0xa9fea9fe/token",
        "http://[64:ff9b::a9fe:a9fe]/token",
        "http://[2002:7f00:1::]/token",
        "http://10.0.0.1/token",
        "http://0/token",
        "http://user@8.8.8.8/token",
        "http://8.8.8.8\\@127.0.0.1/token",
        "file:///etc/passwd",
        "gopher://8.8.8.8/",
    ];
    for url in spellings {
        assert!(check_url(url, &policy).is_err(), "{url}");
    }
    assert!(check_url("http://8.8.8.8/token", &policy).is_ok());
}

#[tokio::test]
async fn a_changed_subscription_has_another_token_and_one_that_rested_has_the_same() {
    let (receiver, other, service) = (Receiver::answers(OK).await, Receiver::answers(OK).await, service().await);
    let sender = sender();
    // A target that went and came again.
    for _ in 0..2 {
        assert_eq!(send(&sender, &authorized_target(&receiver, &service)).await.exchange, DELIVERED);
    }
    assert_eq!(shown(&receiver), ["Bearer token-0", "Bearer token-0"]);
    assert_eq!(send(&sender, &authorized_target(&other, &service)).await.exchange, DELIVERED);
    assert_eq!(shown(&other), ["Bearer token-1"]);
    let mut changed = authorized(&other.url(), &service.url());
    changed.wishes.auth =
        Auth::OAuth2(Box::new(ClientCredentials { credential: Credential("other".to_owned()), ..credentials(&service.url()) }));
    assert_eq!(send(&sender, &Target::new(&changed, origin()).unwrap()).await.exchange, DELIVERED);
    assert_eq!(shown(&other), ["Bearer token-1", "Bearer token-2"]);
}

#[tokio::test]
async fn a_receiver_that_sends_the_token_back_does_not_get_it_into_the_delivery_log() {
    let receiver = Receiver::decides(|request| json(500, &format!("who is {}?", request.header("authorization")))).await;
    let service = Receiver::answers(granted("abcdefghijklmnop")).await;
    let target = authorized_target(&receiver, &service);
    let report = send(&sender(), &target).await;
    assert_eq!(report.excerpt, "who is Bearer ***?");
    assert!(!format!("{target:?}{report:?}").contains("abcdefgh"));
    let mut fixed = subscription(&receiver.url());
    fixed.wishes.auth = Auth::Bearer("abcdefghijklmnop".to_owned());
    assert_eq!(send(&sender(), &Target::new(&fixed, origin()).unwrap()).await.excerpt, "who is Bearer ***?");
}

#[tokio::test]
async fn a_private_key_signs_what_is_sent_instead_of_a_secret() {
    let (receiver, service) = (Receiver::answers(OK).await, service().await);
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let mut subscription = authorized(&receiver.url(), &service.url());
    let method = TokenMethod::PrivateKeyJwt;
    subscription.wishes.auth =
        Auth::OAuth2(Box::new(ClientCredentials { method, credential: Credential(key.clone()), ..credentials(&service.url()) }));
    assert_eq!(send(&sender(), &Target::new(&subscription, origin()).unwrap()).await.exchange, DELIVERED);
    let asked = &service.requests()[0];
    assert_eq!(asked.header("authorization"), "");
    let form: std::collections::HashMap<String, String> = url::form_urlencoded::parse(&asked.body).into_owned().collect();
    assert_eq!((form["grant_type"].as_str(), form["client_id"].as_str()), ("client_credentials", "lutine"));
    assert_eq!(form["client_assertion_type"], "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
    let claims = form["client_assertion"].split('.').nth(1).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    assert_eq!((claims["aud"].as_str(), claims["sub"].as_str()), (Some(service.url().as_str()), Some("lutine")));
    for wrong in ["", "secret", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
        let credential = Credential(wrong.to_owned());
        subscription.wishes.auth = Auth::OAuth2(Box::new(ClientCredentials { method, credential, ..credentials(&service.url()) }));
        assert!(Target::new(&subscription, origin()).is_err(), "{wrong}");
    }
}
