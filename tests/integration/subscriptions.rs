//! Subscriptions: making, showing, changing and deleting them, and every refusal as text.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::daemon::{ALL_HOOKS, TestDaemon};
use crate::support::http::{Request, SUBSCRIPTIONS, at, problem};
use crate::support::receiver::Receiver;

const URL: &str = "http://127.0.0.1:9/hooks";

fn body(more: &Value) -> String {
    let mut body = json!({"url": URL, "types": ["claim.*"], "profile": "standard"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body.to_string()
}

#[test]
fn a_new_subscription_is_shown_with_its_secret_once() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let made = acme.post(SUBSCRIPTIONS, body(&json!({}))).expect(201);
    let secret = made.json()["secret"].as_str().unwrap().to_owned();
    let shown = concat!(
        r#"{"id":1,"name":"http://127.0.0.1:9/hooks","url":"http://127.0.0.1:9/hooks","types":["claim.*"],"profile":"standard","#,
        r#""overrides":{},"auth":{"kind":"none"},"headers":{},"ordering":"parallel","orderingKey":null,"maxInFlight":16,"#,
        r#""ratePerMinute":0,"state":"active","createdUtc":"2026-11-22T10:30:00.123456Z","backlog":{"events":0,"oldestSeconds":0}"#
    );
    assert_eq!(made.text(), format!(r#"{shown},"secret":"{secret}"}}"#));
    assert_eq!(STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap().len(), 32);
    assert_eq!(acme.get(&format!("{SUBSCRIPTIONS}/1")).expect(200).text(), format!("{shown}}}"));
    assert_eq!(acme.get(SUBSCRIPTIONS).expect(200).text(), format!(r#"{{"subscriptions":[{shown}}}]}}"#));
    for answer in [acme.patch(&format!("{SUBSCRIPTIONS}/1"), "{}"), acme.act(1, "pause"), acme.act(1, "resume")] {
        assert!(!answer.expect(200).text().contains("whsec_"));
    }
    let other = acme.post(SUBSCRIPTIONS, body(&json!({}))).expect(201).json();
    assert_eq!(other["id"], 2);
    assert_ne!(other["secret"], secret.as_str());
}

#[test]
fn each_member_is_changed_alone_and_outlives_a_restart() {
    let mut daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    acme.subscribe(URL, &json!({"types": ["claim.*"]}));
    let mut expected = acme.subscription(1);
    for (member, value) in [
        ("name", json!("broker portal")),
        ("url", json!("https://partner.example/hooks?a=b")),
        ("types", json!(["policy.*", "claim.created@2"])),
        ("types", json!([])),
        ("profile", json!("envelope")),
        ("overrides", json!({"retryScheduleSeconds": [5, 0.5], "timeoutSeconds": 10, "successCodes": [204, "300-302"]})),
        ("headers", json!({"X-Partner": "7"})),
        ("ordering", json!("strict")),
        ("maxInFlight", json!(3)),
        ("ratePerMinute", json!(60)),
        ("overrides", json!({})),
        ("headers", json!({})),
    ] {
        let changed = acme.patch(&format!("{SUBSCRIPTIONS}/1"), json!({member: value}).to_string()).expect(200).json();
        expected[member] = value;
        assert_eq!(changed, expected, "{member}");
        assert_eq!(acme.subscription(1), expected, "{member}");
    }
    daemon.restart();
    assert_eq!(daemon.client(acme.key()).subscription(1), expected);
}

#[test]
fn a_masked_secret_is_kept_and_a_mask_for_nothing_is_refused() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let receiver = Receiver::willing();
    let made = acme.subscribe(&receiver.url(), &json!({"auth": {"kind": "bearer", "token": "t-1"}}));
    assert_eq!(made["auth"], json!({"kind": "bearer", "token": "***"}));
    let one = format!("{SUBSCRIPTIONS}/1");
    let change = |auth: Value| json!({ "auth": auth }).to_string();
    acme.patch(&one, change(json!({"kind": "bearer", "token": "***"}))).expect(200);
    acme.publish(r#"{"type":"a"}"#);
    daemon.wait("the first webhook", || receiver.count() == 1);
    acme.patch(&one, change(json!({"kind": "basic", "username": "u", "password": "p"}))).expect(200);
    acme.patch(&one, change(json!({"kind": "basic", "username": "v", "password": "***"}))).expect(200);
    acme.publish(r#"{"type":"a"}"#);
    daemon.wait("the second webhook", || receiver.count() == 2);
    let sent: Vec<String> = receiver.hooks().iter().map(|hook| hook.header("authorization").to_owned()).collect();
    assert_eq!(sent, ["Bearer t-1", &format!("Basic {}", STANDARD.encode("v:p"))]);

    let detail = "`***` stands for the secret that is kept, and there is none of this kind";
    let refused = acme.patch(&one, change(json!({"kind": "bearer", "token": "***"}))).expect(400);
    let expected = problem("400 Bad Request", "invalid_member", &one, detail, &at("/auth/token", detail));
    assert_eq!(refused.problem(), expected);
    let new = body(&json!({"auth": {"kind": "basic", "username": "u", "password": "***"}}));
    let refused = acme.post(SUBSCRIPTIONS, new).expect(400);
    assert_eq!(refused.problem(), problem("400 Bad Request", "invalid_member", SUBSCRIPTIONS, detail, &at("/auth/password", detail)));
}

#[test]
fn every_mistake_is_named_with_its_place() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    acme.subscribe(URL, &json!({}));
    let one = format!("{SUBSCRIPTIONS}/1");
    let whole = |range: &str| format!("must be a whole number from {range}");
    let of_types = r#"must be a list of types such as ["claim.*"]"#;
    let of_statuses = r#"must be a list of statuses and ranges such as [200, "202-204"]"#;
    let cases = [
        ("nmae", json!("x"), "/nmae", "there is no member `nmae`; did you mean `name`?".to_owned(), "unknown_member"),
        ("a/b~c", json!(1), "/a~1b~0c", "there is no member `a/b~c`".to_owned(), "unknown_member"),
        ("name", json!(7), "/name", "must be a text".to_owned(), "invalid_member"),
        ("name", json!(""), "/name", "a name is 1 to 200 characters without control characters".to_owned(), "invalid_member"),
        ("name", json!("é".repeat(201)), "/name", "a name is 1 to 200 characters without control characters".to_owned(), "invalid_member"),
        ("types", json!("claim.*"), "/types", of_types.to_owned(), "invalid_member"),
        ("types", json!(["a", 1]), "/types/1", "must be a text".to_owned(), "invalid_member"),
        (
            "profile",
            json!("standrad"),
            "/profile",
            "`standrad` is none of standard, envelope, signed-envelope, cloudevents, reference, bridge; did you mean `standard`?".to_owned(),
            "invalid_member",
        ),
        ("overrides", json!([]), "/overrides", "must be an object".to_owned(), "invalid_member"),
        (
            "overrides",
            json!({"timeOutSeconds": 1}),
            "/overrides/timeOutSeconds",
            "there is no member `timeOutSeconds`; did you mean `timeoutSeconds`?".to_owned(),
            "unknown_member",
        ),
        (
            "overrides",
            json!({"timeoutSeconds": 0.5}),
            "/overrides/timeoutSeconds",
            "must be a number of seconds from 1 to 60".to_owned(),
            "invalid_member",
        ),
        (
            "overrides",
            json!({"timeoutSeconds": 61}),
            "/overrides/timeoutSeconds",
            "must be a number of seconds from 1 to 60".to_owned(),
            "invalid_member",
        ),
        (
            "overrides",
            json!({"retryScheduleSeconds": [1, -1]}),
            "/overrides/retryScheduleSeconds/1",
            "must be a number of seconds from 0 to 604800".to_owned(),
            "invalid_member",
        ),
        (
            "overrides",
            json!({"retryScheduleSeconds": vec![1; 31]}),
            "/overrides/retryScheduleSeconds",
            "must be a list of at most 30 numbers of seconds".to_owned(),
            "invalid_member",
        ),
        ("overrides", json!({"successCodes": []}), "/overrides/successCodes", of_statuses.to_owned(), "invalid_member"),
        (
            "overrides",
            json!({"body": "envelop"}),
            "/overrides/body",
            "`envelop` is none of typed, envelope, signed-envelope, cloudevents-structured, cloudevents-binary, cloudevents-batch, reference, event; did you mean `envelope`?".to_owned(),
            "invalid_member",
        ),
        (
            "overrides",
            json!({"signature": "none "}),
            "/overrides/signature",
            "`none ` is none of standard, header-hmac, none, body-hmac-sha256, body-rsa-sha256; did you mean `none`?".to_owned(),
            "invalid_member",
        ),
        ("overrides", json!({"lenientSuccess": 1}), "/overrides/lenientSuccess", "must be true or false".to_owned(), "invalid_member"),
        (
            "overrides",
            json!({"contentType": "json"}),
            "/overrides/contentType",
            "must be a content type such as application/json".to_owned(),
            "invalid_member",
        ),
        ("auth", json!("none"), "/auth", "must be an object with a member `kind`".to_owned(), "invalid_member"),
        (
            "auth",
            json!({"kind": "baerer"}),
            "/auth/kind",
            "`baerer` is none of none, bearer, basic, oauth2_client_credentials; did you mean `bearer`?".to_owned(),
            "invalid_member",
        ),
        ("auth", json!({"kind": "bearer"}), "/auth/token", "the member `token` is missing".to_owned(), "missing_member"),
        (
            "auth",
            json!({"kind": "bearer", "tokn": "x"}),
            "/auth/tokn",
            "there is no member `tokn`; did you mean `token`?".to_owned(),
            "unknown_member",
        ),
        (
            "auth",
            json!({"kind": "bearer", "token": "a\nb"}),
            "/auth",
            "the token, name or password of auth holds characters that it cannot".to_owned(),
            "invalid_member",
        ),
        ("headers", json!([]), "/headers", "must be an object of header names and values".to_owned(), "invalid_member"),
        ("headers", json!({"A": 1}), "/headers/A", "must be a text".to_owned(), "invalid_member"),
        (
            "headers",
            json!({"Content-Type": "x"}),
            "/headers",
            "the header content-type is set by Lutine itself or belongs to the connection".to_owned(),
            "invalid_member",
        ),
        (
            "headers",
            json!({"webhook-id": "x"}),
            "/headers",
            "the header webhook-id is set by Lutine itself or belongs to the connection".to_owned(),
            "invalid_member",
        ),
        (
            "headers",
            json!({"X-A": "a\r\nb: c"}),
            "/headers",
            "the value of the header x-a must be at most 2048 characters of visible ASCII and spaces".to_owned(),
            "invalid_member",
        ),
        (
            "ordering",
            json!("key"),
            "/orderingKey",
            "the ordering `key` demands the member `orderingKey`, a JSON pointer such as /claim/id".to_owned(),
            "missing_member",
        ),
        (
            "ordering",
            json!("keys"),
            "/ordering",
            "`keys` is none of parallel, strict, key; did you mean `key`?".to_owned(),
            "invalid_member",
        ),
        (
            "overrides",
            json!({"signature": "body-hmac-sha256"}),
            "/overrides/signature",
            "the signature `body-hmac-sha256` stands in the body `signed-envelope`, not in `typed`".to_owned(),
            "invalid_member",
        ),
        (
            "overrides",
            json!({"handshake": "option"}),
            "/overrides/handshake",
            "`option` is none of none, options; did you mean `options`?".to_owned(),
            "invalid_member",
        ),
        (
            "orderingKey",
            json!("/a"),
            "/orderingKey",
            "goes with the ordering `key`, not with `parallel`".to_owned(),
            "invalid_member",
        ),
        ("maxInFlight", json!(0), "/maxInFlight", whole("1 to 16"), "invalid_member"),
        ("maxInFlight", json!(17), "/maxInFlight", whole("1 to 16"), "invalid_member"),
        ("maxInFlight", json!(1.5), "/maxInFlight", whole("1 to 16"), "invalid_member"),
        ("ratePerMinute", json!(-1), "/ratePerMinute", whole("0 to 6000000"), "invalid_member"),
    ];
    for (member, value, pointer, detail, code) in cases {
        for (path, answer) in [
            (SUBSCRIPTIONS, acme.post(SUBSCRIPTIONS, body(&json!({member: value})))),
            (one.as_str(), acme.patch(&one, json!({member: value}).to_string())),
        ] {
            let expected = problem("400 Bad Request", code, path, &detail, &at(pointer, &detail));
            assert_eq!(answer.expect(400).problem(), expected, "{member}: {value}");
        }
    }
    assert_eq!(acme.get(SUBSCRIPTIONS).json()["subscriptions"].as_array().unwrap().len(), 1, "a refusal leaves nothing behind");
}

#[test]
fn what_must_be_there_and_what_is_no_subscription_is_named() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    for missing in ["url", "types", "profile"] {
        let mut object: Value = serde_json::from_str(&body(&json!({}))).unwrap();
        object.as_object_mut().unwrap().remove(missing);
        let detail = format!("the member `{missing}` is missing");
        let expected = problem("400 Bad Request", "missing_member", SUBSCRIPTIONS, &detail, &at(&format!("/{missing}"), &detail));
        assert_eq!(acme.post(SUBSCRIPTIONS, object.to_string()).expect(400).problem(), expected);
    }
    let refused = acme.post(SUBSCRIPTIONS, "[]").expect(400);
    assert_eq!(refused.problem(), problem("400 Bad Request", "not_an_object", SUBSCRIPTIONS, "a subscription is a JSON object", ""));
    assert_eq!(acme.post(SUBSCRIPTIONS, "{").expect(400).json()["code"], "invalid_json");
    acme.post(SUBSCRIPTIONS, body(&json!({"name": "x".repeat(70_000)}))).expect(413);
    let plain = Request::new("POST", SUBSCRIPTIONS).body("text/plain", "{}");
    acme.send(&plain).expect(415);
    acme.subscribe(URL, &json!({}));
    let refused = acme.patch(&format!("{SUBSCRIPTIONS}/1"), r#"{"startFrom":"oldest"}"#).expect(400);
    assert_eq!(refused.json()["errors"][0]["pointer"], "/startFrom");
    assert_eq!(acme.get(&format!("{SUBSCRIPTIONS}?limit=1")).expect(400).json()["code"], "unknown_parameter");
}

/// What is said of a URL that is refused.
fn refusal_of(daemon: &TestDaemon, url: &str) -> Option<String> {
    let mut acme = daemon.client(&daemon.key("acme", &["subscriptions:write"]));
    let answer = acme.post(SUBSCRIPTIONS, body(&json!({ "url": url })));
    if answer.status == 201 {
        return None;
    }
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert_eq!(answer.expect(400).problem(), problem("400 Bad Request", "invalid_url", SUBSCRIPTIONS, &detail, &at("/url", &detail)));
    Some(detail)
}

#[test]
fn a_url_must_be_one_that_may_be_sent_to() {
    let daemon = TestDaemon::start();
    daemon.company("acme");
    let link_local = "it is link-local or a metadata service, which is never sent to";
    let private = "it is private and in none of the networks of egress.allow";
    let no_host = "it is not the address of one host";
    let denied = |address: &str, rule: &str| format!("{address} is not allowed: {rule}");
    for (url, detail) in [
        ("ftp://a.example/", "the URL must begin with https://".to_owned()),
        ("https://u:p@a.example/", "the URL holds a user name or a password; use auth instead".to_owned()),
        ("https://u@a.example/", "the URL holds a user name or a password; use auth instead".to_owned()),
        ("https://a.example/#x", "the URL has a fragment, which is never sent".to_owned()),
        ("https://a.example:0/", "the URL has port 0".to_owned()),
        ("https://a.example/a b", "the URL has white space, a control character or a backslash".to_owned()),
        ("https:\\\\a.example/", "the URL has white space, a control character or a backslash".to_owned()),
        (&format!("https://a.example/{}", "x".repeat(2100)), "the URL is longer than 2048 bytes".to_owned()),
        ("https://10.1.2.3/", denied("10.1.2.3", private)),
        ("https://192.168.0.1/", denied("192.168.0.1", private)),
        ("https://3232235521/", denied("192.168.0.1", private)),
        ("https://0xa9fea9fe/", denied("169.254.169.254", link_local)),
        ("http://169.254.169.254/latest/meta-data", denied("169.254.169.254", link_local)),
        ("https://[fd00:ec2::254]/", denied("fd00:ec2::254", link_local)),
        ("https://[::ffff:10.1.2.3]/", denied("::ffff:10.1.2.3", private)),
        ("https://0.0.0.0/", denied("0.0.0.0", no_host)),
        ("https://[fe80::1]/", denied("fe80::1", link_local)),
    ] {
        assert_eq!(refusal_of(&daemon, url), Some(detail), "{url}");
    }
    for relative in ["", "/hooks", "a.example/hooks"] {
        let detail = refusal_of(&daemon, relative).unwrap();
        assert!(detail.starts_with("the URL is not an absolute URL such as https://partner.example/hooks: "), "{detail}");
    }
    for right in [URL, "http://localhost:8080/x", "https://partner.example", "https://[2606:4700::1111]:8443/x?y=z", "http://[::1]/"] {
        assert_eq!(refusal_of(&daemon, right), None, "{right}");
    }
}

#[test]
fn plain_http_loopback_and_private_networks_are_the_operators_decision() {
    let daemon = TestDaemon::with(|config| config.egress.allow_http = false);
    daemon.company("acme");
    let detail = "the URL must begin with https://, because egress.allow_http is false";
    assert_eq!(refusal_of(&daemon, "http://partner.example/").as_deref(), Some(detail));

    // The first start makes the master key, which only a development daemon does by itself.
    let mut daemon = TestDaemon::start();
    daemon.restart_with(|config| {
        config.environment = lutine::config::Environment::Staging;
        config.server.behind_proxy = true;
        config.egress.allow = vec!["10.20.0.0/16".parse().unwrap()];
        config.egress.allow_public = false;
    });
    daemon.company("acme");
    let loopback = "127.0.0.1 is not allowed: it is loopback, which only a development daemon sends to";
    assert_eq!(refusal_of(&daemon, "https://127.0.0.1/").as_deref(), Some(loopback));
    let localhost = "the URL names this machine, which only a development daemon sends to";
    for name in ["https://localhost/", "https://LOCALHOST./", "https://a.localhost:1/"] {
        assert_eq!(refusal_of(&daemon, name).as_deref(), Some(localhost), "{name}");
    }
    let public = "8.8.8.8 is not allowed: it is public and egress.allow_public is false";
    assert_eq!(refusal_of(&daemon, "https://8.8.8.8/").as_deref(), Some(public));
    assert_eq!(refusal_of(&daemon, "https://10.20.1.1/"), None);
    assert!(refusal_of(&daemon, "https://10.21.1.1/").is_some());
}

#[test]
fn what_another_company_has_is_unknown_and_a_system_key_sees_nothing() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    acme.subscribe(URL, &json!({"overrides": {"retryScheduleSeconds": []}}));
    acme.publish(r#"{"type":"a"}"#);
    daemon.wait("the dead letter", || acme.delivery_state(1, 1) == "dead");
    daemon.company("bolt");
    let mut bolt = daemon.client(&daemon.key("bolt", &["admin"]));
    let mut system = daemon.client(&daemon.system_key());
    for (method, tail, body) in [
        ("GET", "", ""),
        ("PATCH", "", "{}"),
        ("DELETE", "", ""),
        ("POST", "/pause", ""),
        ("POST", "/resume", ""),
        ("POST", "/test", ""),
        ("GET", "/deliveries", ""),
    ] {
        let request = |id: u32| {
            let request = Request::new(method, &format!("{SUBSCRIPTIONS}/{id}{tail}"));
            if body.is_empty() { request } else { request.body("application/json", body) }
        };
        let path = |id: u32| format!("{SUBSCRIPTIONS}/{id}{tail}");
        for id in [1, 900] {
            let expected = problem("404 Not Found", "not_found", &path(id), "there is no such subscription", "");
            assert_eq!(bolt.send(&request(id)).expect(404).problem(), expected, "{method} {tail}");
        }
        assert_eq!(system.send(&request(1)).expect(403).json()["code"], "system_key");
    }
    for (method, tail) in [("GET", ""), ("POST", "/retry"), ("POST", "/discard")] {
        let mut request = Request::new(method, &format!("/api/v1/deliveries/1-1{tail}"));
        if tail == "/discard" {
            request = request.body("application/json", r#"{"reason":"x"}"#);
        }
        assert_eq!(bolt.send(&request).expect(404).json()["code"], "not_found");
        assert_eq!(system.send(&request).expect(403).json()["code"], "system_key");
    }
    for wrong in ["x", "-1", "1.5", "+1"] {
        let path = format!("{SUBSCRIPTIONS}/{wrong}");
        let expected = problem("400 Bad Request", "invalid_id", &path, "a subscription's id is a whole number", "");
        assert_eq!(acme.get(&path).expect(400).problem(), expected);
    }
    acme.get(&format!("{SUBSCRIPTIONS}/4294967297")).expect(404);
    assert_eq!(bolt.get(SUBSCRIPTIONS).expect(200).text(), r#"{"subscriptions":[]}"#);
    assert_eq!(acme.delivery_state(1, 1), "dead", "nothing was changed");
}

#[test]
fn a_test_event_goes_to_the_subscription_alone_whatever_its_filter() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let (mine, other) = (Receiver::willing(), Receiver::willing());
    acme.subscribe(&mine.url(), &json!({"types": ["claim.*"]}));
    acme.subscribe(&other.url(), &json!({}));
    let answer = acme.act(1, "test").expect(202);
    assert_eq!(answer.text(), r#"{"deliveryId":"1-1"}"#);
    daemon.wait("the test event", || acme.delivery_state(1, 1) == "delivered");
    assert_eq!(mine.hooks()[0].json()["data"], json!({"subscriptionId": 1, "test": true}));
    acme.publish(r#"{"type":"a"}"#);
    daemon.wait("an event", || other.count() == 1);
    assert_eq!((mine.count(), other.events()), (1, vec![2]));
}

#[test]
fn a_subscription_is_paused_resumed_and_deleted() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    acme.subscribe(URL, &json!({}));
    assert_eq!(acme.act(1, "pause").expect(200).json()["state"], "paused");
    assert_eq!(acme.act(1, "pause").expect(200).json()["state"], "paused");
    acme.publish(r#"{"type":"a"}"#);
    daemon.clock.advance(Duration::from_secs(7));
    let shown = acme.subscription(1);
    assert_eq!((&shown["state"], &shown["backlog"]), (&json!("paused"), &json!({"events": 1, "oldestSeconds": 7})));
    let deleted = acme.delete(&format!("{SUBSCRIPTIONS}/1")).expect(204);
    assert_eq!(deleted.text(), "");
    acme.delete(&format!("{SUBSCRIPTIONS}/1")).expect(404);
    acme.get(&format!("{SUBSCRIPTIONS}/1")).expect(404);
    assert_eq!(acme.subscribe(URL, &json!({}))["id"], 2, "no number is used twice");
    let audit = daemon.local().get("/api/v1/admin/audit").expect(200).json();
    let acts: Vec<String> =
        audit["audit"].as_array().unwrap().iter().map(|row| format!("{} {}", row["act"], row["object"]).replace('"', "")).collect();
    let acts: Vec<&str> = acts.iter().map(String::as_str).filter(|act| act.contains("subscription:1")).collect();
    let expected = ["subscription.delete", "subscription.pause", "subscription.pause", "subscription.create"];
    assert_eq!(acts, expected.map(|act| format!("{act} subscription:1")));
}

#[test]
fn a_subscription_starts_where_it_is_told() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    for _ in 0..3 {
        acme.publish(r#"{"type":"a"}"#);
    }
    let cursor = acme.get("/api/v1/events?limit=2&types=a").expect(200).header("x-paging-cursor").unwrap().to_owned();
    let receivers = [(); 4].map(|()| Receiver::willing());
    for (receiver, start) in receivers.iter().zip([json!(null), json!("tail"), json!("oldest"), json!(cursor)]) {
        acme.subscribe(&receiver.url(), &json!({ "startFrom": start }));
    }
    acme.publish(r#"{"type":"a"}"#);
    daemon.wait("all webhooks", || receivers.iter().map(Receiver::count).sum::<usize>() == 8);
    let mut events = receivers.each_ref().map(Receiver::events);
    events.iter_mut().for_each(|events| events.sort_unstable());
    assert_eq!(events, [vec![4], vec![4], vec![1, 2, 3, 4], vec![3, 4]]);

    daemon.company("bolt");
    let mut bolt = daemon.client(&daemon.key("bolt", &ALL_HOOKS));
    let theirs = "startFrom is `tail`, `oldest` or a cursor of the company: ";
    for start in [cursor.as_str(), "garbage", "Oldest"] {
        let refused = bolt.post(SUBSCRIPTIONS, body(&json!({"startFrom": start}))).expect(400);
        let detail = refused.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.starts_with(theirs), "{detail}");
        let expected = problem("400 Bad Request", "invalid_cursor", SUBSCRIPTIONS, &detail, &at("/startFrom", &detail));
        assert_eq!(refused.problem(), expected, "{start}");
    }
}
