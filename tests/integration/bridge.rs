//! The bridge: publish and receive in the terms of its clients.

use serde_json::{Value, json};

use crate::support::daemon::TestDaemon;
use crate::support::http::{Answer, Client, Connection, Request};
use crate::support::wait_until;

const SEND: &str = "/api/events/v1/dk/external/acme/send";
const RECEIVE: &str = "/api/events/v1/dk/external/acme/receive";
const JSON: &str = "application/json;charset=utf-8";
const CORRELATION: &str = "70c6d351-016f-4c9e-b1a9-d581fc3a596b";

/// A daemon with the Danish company `acme`, and a key of it.
fn danish(scopes: &[&str]) -> (TestDaemon, Client) {
    let daemon = TestDaemon::start();
    let client = acme_of(&daemon, scopes);
    (daemon, client)
}

fn acme_of(daemon: &TestDaemon, scopes: &[&str]) -> Client {
    daemon.local().post("/api/v1/admin/companies", r#"{"slug":"acme","country":"DK"}"#).expect(201);
    daemon.client(&daemon.key("acme", scopes))
}

fn object(kind: &str) -> String {
    format!(
        r#"{{ "eventType":"{kind}", "payloadVersion":"1.0.0", "correlationId":"{CORRELATION}", "timestamp":"2017-07-25T10:31:28.2519514Z", "payment":{{"uuid":"p-1","amount":1.50}} }}"#
    )
}

fn request(body: &str) -> Request {
    Request::new("POST", SEND).header("Event-Type", "payment_status_updated").body(JSON, body)
}

/// Sends with the key as a bearer token, as the clients do.
fn send(client: &mut Client, request: Request) -> Answer {
    let bearer = format!("Bearer {}", client.key());
    client.send(&request.header("Authorization", &bearer))
}

/// A refusal in the shape of Spring's error controller.
#[track_caller]
fn spring(answer: Answer, status: &str, message: &str, path: &str) {
    let (number, reason) = status.split_once(' ').unwrap();
    let answer = answer.expect(number.parse().unwrap());
    let message = Value::from(message);
    let expected = format!(
        r#"{{"timestamp":"2026-11-22T10:30:00.123+0000","status":{number},"error":"{reason}","message":{message},"path":"{path}"}}"#
    );
    assert_eq!((answer.text(), answer.header("content-type")), (expected.as_str(), Some(JSON)));
}

#[test]
fn an_object_is_sent_and_is_the_payload_behind_every_door() {
    let (daemon, mut acme) = danish(&["events", "events:read"]);
    let body = object("payment_status_updated");
    let sent = send(&mut acme, request(&format!("\n {body} ")));
    assert_eq!(sent.header("content-type"), Some("application/json"));
    assert_eq!(sent.expect(201).text(), r#"{"_id": 1}"#);
    let branded = body.replace("\"payment\"", "\"brand\":\"Direct\",\"payment\"");
    let other_case = Request::new("POST", SEND)
        .header("event-type", "Payment_Status_Updated")
        .body("application/json; charset=\"UTF8\"", branded.as_str());
    assert_eq!(send(&mut acme, other_case).expect(201).text(), r#"{"_id": 2}"#);
    // No key: a repeat is an event of its own.
    assert_eq!(send(&mut acme, request(&body)).expect(201).text(), r#"{"_id": 3}"#);
    let events = acme.list("?types=payment_status_updated@1.0.0");
    assert_eq!((&events[0]["payload"], &events[0]["metadata"]), (&Value::from(body), &Value::from("{}")));
    assert_eq!((&events[1]["payload"], &events[1]["metadata"]), (&Value::from(branded), &Value::from(r#"{"brand":"Direct"}"#)));
    assert_eq!(events.len(), 3);
    drop(daemon);
}

#[test]
fn every_spelling_of_a_time_that_is_seen_is_taken() {
    let (_daemon, mut acme) = danish(&["events"]);
    let body = object("payment_status_updated");
    for time in ["2017-07-25T10:31:28Z", "2020-04-28T18:43:38.004451447Z", "2018-04-04T15:33:58+02:00", "2018-04-04T15:33:58.1+0200"] {
        send(&mut acme, request(&body.replace("2017-07-25T10:31:28.2519514Z", time))).expect(201);
    }
    for time in ["yesterday", "2018-04-04", "2018-04-04T15:33:58", "2018-04-04T15:33:58.0123456789Z"] {
        let refused = send(&mut acme, request(&body.replace("2017-07-25T10:31:28.2519514Z", time))).expect(400);
        let expected = format!(
            r#"{{"message": "Incorrect payload, timestamp {time}: not an RFC 3339 date-time such as 2026-11-22T10:30:00Z", "valid": false}}"#
        );
        assert_eq!(refused.text(), expected);
    }
}

#[test]
fn an_incorrect_payload_is_answered_with_what_is_wrong() {
    let (_daemon, mut acme) = danish(&["events"]);
    let body = object("payment_status_updated");
    let correlation = format!(r#""correlationId":"{CORRELATION}", "#);
    let kind = "a type is 1 to 128 characters of A-Z, a-z, 0-9, '.', '_' and '-', and starts with a letter or a digit";
    for (body, event_type, reason) in [
        (body.replace(&correlation, ""), "payment_status_updated", "missing [correlationId]"),
        ("{}".to_owned(), "payment_status_updated", "missing [eventType, payloadVersion, correlationId, timestamp]"),
        (r#"{"eventType":null,"timestamp":"x"}"#.to_owned(), "x", "missing [eventType, payloadVersion, correlationId]"),
        ("{".to_owned(), "x", "not JSON: expected a member name in double quotes at line 1, column 2 (offset 1)"),
        ("[1]".to_owned(), "x", "not a JSON object"),
        (body.clone(), "claim_updated", "the header Event-Type says claim_updated, eventType says payment_status_updated"),
        (object("a b"), "a b", &format!("eventType a b: {kind}")),
        (object("lutine.x"), "lutine.x", "types that begin with `lutine.` are the daemon's own; `lutine.x` cannot be published"),
    ] {
        let request = Request::new("POST", SEND).header("Event-Type", event_type).body(JSON, body.as_str());
        let refused = send(&mut acme, request).expect(400);
        let expected = format!(r#"{{"message": {}, "valid": false}}"#, Value::from(format!("Incorrect payload, {reason}")));
        assert_eq!((refused.text(), refused.header("content-type")), (expected.as_str(), Some(JSON)), "{body}");
    }
    // Nothing of all that was stored.
    assert_eq!(send(&mut acme, request(&body)).expect(201).text(), r#"{"_id": 1}"#);
}

#[test]
fn without_its_header_a_publication_is_refused_as_the_framework_does() {
    let (_daemon, mut acme) = danish(&["events"]);
    let refused = send(&mut acme, Request::post(SEND, object("a"))).expect(400);
    let expected = format!(
        r#"{{"timestamp":"2026-11-22T10:30:00.123+0000","status":400,"error":"Bad Request","exception":"org.springframework.web.bind.ServletRequestBindingException","message":"Missing request header 'Event-Type' for method parameter of type String","path":"{SEND}"}}"#
    );
    assert_eq!((refused.text(), refused.header("content-type")), (expected.as_str(), Some(JSON)));
}

#[test]
fn credentials_are_refused_in_the_words_of_oauth() {
    let (daemon, mut acme) = danish(&["events"]);
    let full = "Full authentication is required to access this resource";
    for path in [SEND, RECEIVE] {
        let method = if path == SEND { "POST" } else { "GET" };
        let missing = daemon.client("").send(&Request::new(method, path)).expect(401);
        assert_eq!(missing.text(), format!(r#"{{"error":"unauthorized","error_description":"{full}"}}"#));
        let challenge = format!("Bearer realm=\"lutine\", error=\"unauthorized\", error_description=\"{full}\"");
        assert_eq!(missing.header("www-authenticate"), Some(challenge.as_str()));
        let wrong = daemon.client("").send(&Request::new(method, path).header("Authorization", "Bearer nothing")).expect(401);
        assert_eq!(wrong.text(), r#"{"error":"invalid_token","error_description":"Invalid access token"}"#);
        let challenge = "Bearer realm=\"lutine\", error=\"invalid_token\", error_description=\"Invalid access token\"";
        assert_eq!(wrong.header("www-authenticate"), Some(challenge));
        let mut other = daemon.client(&daemon.key("acme", &["subscriptions:read"]));
        let refused = send(&mut other, Request::new(method, path)).expect(403);
        let expected = r#"{"error":"insufficient_scope","error_description":"Insufficient scope for this resource","scope":"events"}"#;
        assert_eq!((refused.text(), refused.header("content-type")), (expected, Some(JSON)));
        assert_eq!(refused.header("www-authenticate"), Some("Bearer realm=\"lutine\", error=\"insufficient_scope\", scope=\"events\""));
    }
    let expires = lutine::domain::clock::Clock::now(daemon.clock.as_ref()).after(std::time::Duration::from_secs(60)).to_string();
    let short = daemon.key_of(&json!({"company": "acme", "scopes": ["events"], "expires": expires}));
    daemon.clock.advance(std::time::Duration::from_secs(60));
    let expired = send(&mut daemon.client(short["key"].as_str().unwrap()), Request::get(RECEIVE)).expect(401);
    assert_eq!(expired.text(), r#"{"error":"invalid_token","error_description":"Access token expired"}"#);
    // Each half of the bridge has a scope of its own as well.
    let mut writer = daemon.client(&daemon.key("acme", &["events:write"]));
    let mut reader = daemon.client(&daemon.key("acme", &["events:read"]));
    send(&mut writer, request(&object("payment_status_updated"))).expect(201);
    send(&mut writer, Request::get(RECEIVE)).expect(403);
    send(&mut reader, Request::get(RECEIVE)).expect(200);
    send(&mut reader, request(&object("payment_status_updated"))).expect(403);
    send(&mut acme, Request::get(RECEIVE)).expect(200);
}

#[test]
fn country_and_tenant_name_the_company() {
    let (daemon, mut acme) = danish(&["events"]);
    daemon.local().post("/api/v1/admin/companies", r#"{"slug":"bolt","country":"DK"}"#).expect(201);
    daemon.company("stateless");
    let at = |country: &str, tenant: &str, act: &str| format!("/api/events/v1/{country}/external/{tenant}/{act}");
    let body = object("payment_status_updated");
    let to = |path: &str| Request::new("POST", path).header("Event-Type", "payment_status_updated").body(JSON, body.as_str());
    send(&mut acme, to(&at("DK", "acme", "send"))).expect(201);
    for (country, tenant) in [("se", "acme"), ("dk", "nobody"), ("dk", "1"), ("dk", "stateless")] {
        let path = at(country, tenant, "send");
        spring(send(&mut acme, to(&path)), "404 Not Found", &format!("there is no tenant {tenant} in {country}"), &path);
        let path = at(country, tenant, "receive");
        spring(send(&mut acme, Request::get(&path)), "404 Not Found", &format!("there is no tenant {tenant} in {country}"), &path);
    }
    let strange = r#"{"error":"access_denied","error_description":"the token belongs to another tenant"}"#;
    assert_eq!(send(&mut acme, to(&at("dk", "bolt", "send"))).expect(403).text(), strange);
    assert_eq!(send(&mut acme, Request::get(&at("dk", "bolt", "receive"))).expect(403).text(), strange);
    let mut system = daemon.client(&daemon.system_key());
    assert_eq!(send(&mut system, to(SEND)).expect(403).text(), strange);
    // A key for some types publishes only those.
    let claims = daemon.key_of(&json!({"company": "acme", "scopes": ["events"], "typePrefixes": ["claim"]}));
    let refused = send(&mut daemon.client(claims["key"].as_str().unwrap()), to(SEND)).expect(403);
    let expected = r#"{"error":"access_denied","error_description":"this key may not publish events of type `payment_status_updated`"}"#;
    assert_eq!(refused.text(), expected);
}

#[test]
fn other_refusals_have_the_shape_of_the_framework() {
    let daemon = TestDaemon::with(|config| config.limits.body_bytes_max = 1_000);
    let mut acme = acme_of(&daemon, &["events"]);
    let text = Request::new("POST", SEND).header("Event-Type", "a").body("text/plain", "x");
    spring(send(&mut acme, text), "415 Unsupported Media Type", "the content type must be application/json", SEND);
    let latin = Request::new("POST", SEND).header("Event-Type", "a").body("application/json; charset=latin1", "{}");
    spring(send(&mut acme, latin), "415 Unsupported Media Type", "the content type must be application/json in UTF-8", SEND);
    spring(send(&mut acme, request(&"x".repeat(1_001))), "413 Payload Too Large", "the body has more than 1000 bytes", SEND);
    let unknown = Request::get(&format!("{RECEIVE}?lastEventID=1"));
    let hint = "there is no parameter `lastEventID` here; did you mean `lastEventId`?";
    spring(send(&mut acme, unknown), "400 Bad Request", hint, RECEIVE);
    let id = "the parameter `lastEventId` is wrong: it is the id of an event such as _122046";
    spring(send(&mut acme, Request::get(&format!("{RECEIVE}?lastEventId=x"))), "400 Bad Request", id, RECEIVE);
    let beyond = "there is no event _7 yet, the newest is _0";
    spring(send(&mut acme, Request::get(&format!("{RECEIVE}?lastEventId=_7"))), "400 Bad Request", beyond, RECEIVE);
    let few = daemon.key_of(&json!({"company": "acme", "scopes": ["events"], "rates": {"write": 1}}));
    let mut few = daemon.client(few["key"].as_str().unwrap());
    send(&mut few, request(&object("payment_status_updated"))).expect(201);
    let refused = send(&mut few, request(&object("payment_status_updated")));
    assert_eq!((refused.header("retry-after"), refused.header("x-ratelimit-limit")), (Some("60"), Some("1")));
    let message = "this key made its 1 calls of the bucket `write` in this minute; go on in 60 s";
    spring(refused, "429 Too Many Requests", message, SEND);
}

#[test]
fn a_receiver_gets_the_objects_unchanged_and_the_link_to_go_on() {
    let (daemon, mut acme) = danish(&["events", "events:write"]);
    let body = object("payment_status_updated");
    send(&mut acme, request(&body)).expect(201);
    acme.publish(r#"{"type":"policy.bound","payload":[1, "\u00e5"]}"#);
    let created = "2026-11-22T10:30:00.123456Z";
    let next = |query: &str| format!("http://{}{RECEIVE}?{query}", daemon.address());
    let page = send(&mut acme, Request::get(RECEIVE)).expect(200);
    let second = format!(r#"{{"id":"_2","type":"policy.bound","timestamp":"{created}","attributes":[1, "\u00e5"]}}"#);
    let expected = format!(
        r#"{{"links":{{"next":"{}"}},"meta":{{}},"data":[{{"id":"_1","type":"payment_status_updated","timestamp":"{created}","attributes":{body}}},{second}]}}"#,
        next("lastEventId=_2")
    );
    assert_eq!((page.text(), page.header("content-type")), (expected.as_str(), Some("application/json")));
    for after in ["_1", "1"] {
        let page = send(&mut acme, Request::get(&format!("{RECEIVE}?lastEventId={after}"))).expect(200);
        assert_eq!(page.text(), format!(r#"{{"links":{{"next":"{}"}},"meta":{{}},"data":[{second}]}}"#, next("lastEventId=_2")));
    }
    let page = send(&mut acme, Request::get(&format!("{RECEIVE}?types=policy.*&lastEventId=0"))).expect(200);
    assert_eq!(page.text(), format!(r#"{{"links":{{"next":"{}"}},"meta":{{}},"data":[{second}]}}"#, next("types=policy.*&lastEventId=_2")));
}

#[test]
fn a_receiver_follows_the_log_page_by_page_over_other_companies_and_segments() {
    let daemon = TestDaemon::with(|config| config.log_store.segment_bytes_max = 16 * 1024);
    let mut acme = acme_of(&daemon, &["events", "events:write"]);
    daemon.company("bolt");
    let mut bolt = daemon.client(&daemon.key("bolt", &["events:write"]));
    let mut published = Vec::new();
    for number in 0..120 {
        let body = json!({"type": "a", "payload": {"x": "x".repeat(number * 3)}}).to_string();
        if number % 3 == 0 {
            bolt.publish_patiently(&body);
        } else {
            published.push(acme.publish_patiently(&body));
        }
    }
    let ids = |page: &Value| {
        page["data"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap()[1..].parse().unwrap()).collect::<Vec<u64>>()
    };
    for _ in 0..2 {
        let (mut seen, mut target) = (Vec::new(), RECEIVE.to_owned());
        while seen.len() < published.len() {
            let page = send(&mut acme, Request::get(&target)).expect(200).json();
            assert!(ids(&page).len() <= 50);
            seen.extend(ids(&page));
            target = page["links"]["next"].as_str().unwrap().split_once(&daemon.address().to_string()).unwrap().1.to_owned();
        }
        assert_eq!(seen, published);
        // Every number is a place to go on from, also those of others.
        for after in 0..120 {
            let page = send(&mut acme, Request::get(&format!("{RECEIVE}?lastEventId=_{after}"))).expect(200).json();
            let expected: Vec<u64> = published.iter().copied().filter(|id| *id > after).take(50).collect();
            assert_eq!(ids(&page), expected, "after {after}");
        }
        daemon.wait_until_sealed();
    }
}

#[test]
fn a_receiver_that_has_everything_is_held_until_something_comes() {
    let (mut daemon, mut acme) = danish(&["events"]);
    send(&mut acme, request(&object("payment_status_updated"))).expect(201);
    let held = Request::get(&format!("{RECEIVE}?lastEventId=1")).header("Authorization", &format!("Bearer {}", acme.key())).bytes();
    let mut first = Connection::open(daemon.address());
    first.send(&held);
    let waits = |daemon: &TestDaemon| daemon.metric("lutine_http_requests_in_flight") == 2;
    wait_until("a held receiver", || waits(&daemon));
    send(&mut acme, request(&object("payment_status_updated"))).expect(201);
    assert_eq!(first.answer().unwrap().expect(200).json()["data"][0]["id"], "_2");
    // At the end of the hold, as at the end of the daemon: nothing, and the same link.
    let held = String::from_utf8(held).unwrap().replace("lastEventId=1", "lastEventId=2");
    let address = daemon.address();
    let mut second = Connection::open(address);
    second.send(held.as_bytes());
    wait_until("a held receiver", || waits(&daemon));
    daemon.stop();
    let expected = format!(r#"{{"links":{{"next":"http://{address}{RECEIVE}?lastEventId=_2"}},"meta":{{}},"data":[]}}"#);
    assert_eq!(second.answer().unwrap().expect(200).text(), expected);
}

#[test]
fn a_receiver_that_comes_too_late_is_told() {
    let daemon = TestDaemon::with(|config| config.retention.days = 5.0 / 86_400.0);
    let mut acme = acme_of(&daemon, &["events", "events:write"]);
    for _ in 0..2 {
        acme.publish(r#"{"type":"a"}"#);
    }
    daemon.clock.advance(std::time::Duration::from_secs(6));
    let fresh = acme.publish(r#"{"type":"a"}"#);
    let late = send(&mut acme, Request::get(&format!("{RECEIVE}?lastEventId=_1"))).expect(410).json();
    assert_eq!((&late["status"], &late["error"]), (&json!(410), &json!("Gone")));
    assert_eq!(late["message"], "events behind _1 have been removed by retention; without lastEventId you begin at the oldest kept");
    for query in ["", "?lastEventId=_2"] {
        let page = send(&mut acme, Request::get(&format!("{RECEIVE}{query}"))).expect(200).json();
        assert_eq!(page["data"][0]["id"], format!("_{fresh}"), "{query}");
    }
}
