//! References and snapshots: what is published, what the links of notifications answer, and for how long.

use std::sync::Arc;
use std::time::Duration;

use lutine::domain::clock::Clock;
use lutine::domain::company::CompanyId;
use lutine::domain::event::EventId;
use lutine::domain::notification::{NotificationKey, encode};
use lutine::domain::subscription::SubscriptionId;
use lutine::store::disk::DataDirectory;
use lutine::store::faults::Faults;
use lutine::store::{FaultSink, MasterKey, Store, StoreOptions};
use serde_json::{Value, json};

use crate::support::daemon::{ALL_EVENTS, TestDaemon};
use crate::support::http::{Answer, Client, Request, at, problem};
use crate::support::wait_until;

const EVENTS: &str = "/api/v1/events";
const BATCH: &str = "/api/v1/events/batch";

/// The key of a company's notification ids, read from the daemon's store; the daemon is restarted.
fn notification_key(daemon: &mut TestDaemon, company: u32) -> NotificationKey {
    daemon.stop();
    let master = std::fs::read(daemon.data_dir().join("master.key")).unwrap();
    let text = String::from_utf8(master).unwrap();
    let digits: Vec<u8> = (0..32).map(|place| u8::from_str_radix(&text[place * 2..place * 2 + 2], 16).unwrap()).collect();
    let disk = Arc::new(DataDirectory::open(&daemon.data_dir()).unwrap());
    let options = StoreOptions {
        retention: Duration::from_secs(14 * 86_400),
        segment_bytes_max: 1 << 30,
        segment_age_max: Duration::from_secs(86_400),
        queue_events_max: 1,
        queue_bytes_max: 1,
        metrics: Arc::default(),
    };
    let clock = Arc::clone(&daemon.clock) as Arc<dyn Clock>;
    let master = MasterKey::new(digits.try_into().unwrap());
    let store = Store::open(disk, clock, &master, options, Faults::default(), FaultSink::new(|_| {})).unwrap();
    let key = store.notification_key(CompanyId(company));
    drop(store);
    daemon.restart();
    key
}

fn link(key: &NotificationKey, event: u64, path: &str) -> String {
    format!("/api/public/v2/notifications/{}{path}", encode(key, EventId(event), SubscriptionId(3), 0))
}

#[track_caller]
fn errors(answer: &Answer, status: u16) -> String {
    assert_eq!((answer.status, answer.header("content-type")), (status, Some("application/json")), "{answer:?}");
    let body = answer.json();
    let errors = body["errors"].as_array().unwrap();
    assert_eq!((errors.len(), body.as_object().unwrap().len()), (1, 1));
    errors[0].as_str().unwrap().to_owned()
}

fn contract(body: &Value) -> Value {
    json!({"referenceType": "contract", "referenceId": "b 7/5", "snapshot": {"contentType": "application/json", "body": body}})
}

/// A policy of the company, as it is now.
fn publish_contract(client: &mut Client, state: &str) -> u64 {
    client.publish(json!({"type": "contract_created", "references": [contract(&json!({"state": state}))]}).to_string())
}

#[test]
fn a_link_answers_with_the_bytes_of_the_events_time() {
    let mut daemon = TestDaemon::start();
    let acme = daemon.acme();
    let key = notification_key(&mut daemon, 1);
    let mut acme = daemon.client(acme.key());
    let exact = r#"{"type":"a","references":[{"referenceType":"contract","referenceId":"b 7/5",
        "snapshot":{"contentType":"application/json","body":{ "state" : "new", "n":1.50 }}},
        {"referenceType":"file","referenceId":"scan","snapshot":{"contentType":"image/png; x=1","body":"AP8Q","encoding":"base64"}},
        {"referenceType":"claim","referenceId":"1","snapshot":{"body":"\u00e5\n","contentType":"text/plain"}}]}"#;
    let event = acme.publish(exact);
    // The source changes; what was told does not.
    let later = publish_contract(&mut acme, "cancelled");
    let check = |client: &mut Client| {
        let first = client.get(&link(&key, event, "/contracts/b%207%2F5")).expect(200);
        assert_eq!(first.text(), r#"{ "state" : "new", "n":1.50 }"#);
        assert_eq!(first.header("content-type"), Some("application/json"));
        assert_eq!(first.header("cache-control"), Some("private, immutable"));
        assert_eq!(first.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(client.get(&link(&key, later, "/contracts/b%207%2f5")).expect(200).text(), r#"{"state":"cancelled"}"#);
        let scan = client.get(&link(&key, event, "/files/scan")).expect(200);
        assert_eq!((scan.body.as_slice(), scan.header("content-type")), ([0, 255, 16].as_slice(), Some("image/png; x=1")));
        assert_eq!(client.get(&link(&key, event, "/references/1")).expect(200).text(), "å\n");
        let tag = first.header("etag").unwrap().to_owned();
        assert_ne!(Some(tag.as_str()), scan.header("etag"));
        let known = client.send(&Request::get(&link(&key, event, "/contracts/b%207%2F5")).header("If-None-Match", &tag)).expect(304);
        assert_eq!((known.body.len(), known.header("etag")), (0, Some(tag.as_str())));
        let other = Request::get(&link(&key, event, "/files/scan")).header("If-None-Match", &tag);
        client.send(&other).expect(200);
        tag
    };
    let tag = check(&mut acme);
    daemon.restart();
    let mut acme = daemon.client(acme.key());
    assert_eq!(check(&mut acme), tag);
    // The next day's first event closes the segment.
    daemon.clock.advance(Duration::from_secs(86_400));
    acme.publish(r#"{"type":"a"}"#);
    wait_until("the sealing of the first segment", || daemon.status()["segmentsSealed"] == 1);
    assert_eq!(check(&mut acme), tag);
    let report = daemon.local().send(&Request::new("POST", "/api/v1/admin/verify")).expect(200).json();
    assert_eq!((&report["ok"], &report["snapshots"]), (&json!(true), &json!(4)));
    // The log's readers see nothing of it.
    assert!(!acme.get(&format!("{EVENTS}/{event}")).expect(200).text().contains("snapshot"));
}

#[test]
fn whatever_is_not_behind_a_link_is_not_found_and_says_so_in_a_list() {
    let mut daemon = TestDaemon::start();
    let acme = daemon.acme();
    daemon.company("bolt");
    let (bolt, writer) = (daemon.key("bolt", &ALL_EVENTS), daemon.key("acme", &["events:write"]));
    let key = notification_key(&mut daemon, 1);
    let mut acme = daemon.client(acme.key());
    let claim = json!({"referenceType": "claim", "referenceId": "1", "links": [{"contentType": "a/b", "href": "https://a.example/"}]});
    let body = json!({"type": "a", "references": [contract(&json!(1)), claim]});
    let event = acme.publish(body.to_string());
    let good = link(&key, event, "/contracts/b%207%2F5");
    acme.get(&good).expect(200);
    let mut missing = |path: &str| errors(&acme.get(path), 404);
    for path in ["/references/b%207%2F5", "/contracts/b", "/references/1", "/contracts/b%25207", "/Contracts/b%207%2F5"] {
        assert_eq!(missing(&link(&key, event, path)), "there is nothing behind this link", "{path}");
    }
    missing(&link(&key, event + 1, "/contracts/b%207%2F5"));
    missing("/api/public/v2/notifications/47/contracts/b%207%2F5");
    missing(&format!("{good}/x"));
    missing("/api/public/v2/notifications");
    missing(&link(&key, event, "/contracts/%FF"));
    // Another company's key does not even know the notification.
    assert_eq!(errors(&daemon.client(&bolt).get(&good), 404), "there is nothing behind this link");
    let mut nobody = daemon.client("");
    let refused = nobody.get(&good);
    assert!(errors(&refused, 401).contains("API key"));
    assert!(refused.header("www-authenticate").is_some());
    assert!(errors(&daemon.client(&writer).get(&good), 403).contains("events:read"));
    errors(&daemon.client(acme.key()).send(&Request::new("POST", &good)), 405);
    errors(&daemon.client(acme.key()).get(&format!("{good}?x=1")), 400);
}

#[test]
fn a_link_with_redirect_leads_on_to_its_own_address() {
    let mut daemon = TestDaemon::start();
    let acme = daemon.acme();
    let key = notification_key(&mut daemon, 1);
    let mut acme = daemon.client(acme.key());
    let links = json!([{"contentType": "a/b", "href": "https://a.example/1"},
        {"contentType": "a/b", "href": "https://a.example/2?q=x#f", "redirect": true}]);
    let other = json!([{"contentType": "a/b", "href": "https://a.example/ä", "redirect": true}]);
    let body = json!({"type": "a", "references": [{"referenceType": "offer", "referenceId": "7", "links": links},
        {"referenceType": "offer", "referenceId": "8", "links": other}]});
    let event = acme.publish(body.to_string());
    let moved = acme.get(&link(&key, event, "/offers/7")).expect(302);
    assert_eq!((moved.header("location"), moved.body.len()), (Some("https://a.example/2?q=x#f"), 0));
    assert_eq!(acme.get(&link(&key, event, "/offers/8")).expect(302).header("location"), Some("https://a.example/%C3%A4"));
}

#[test]
fn after_retention_a_link_is_gone() {
    let mut daemon = TestDaemon::with(|config| {
        config.retention.days = 5.0 / 86_400.0;
        config.log_store.segment_bytes_max = 16 * 1024;
    });
    let acme = daemon.acme();
    let key = notification_key(&mut daemon, 1);
    let mut acme = daemon.client(acme.key());
    let event = acme.publish(json!({"type": "a", "references": [contract(&json!("x".repeat(300_000)))]}).to_string());
    let path = link(&key, event, "/contracts/b%207%2F5");
    assert_eq!(acme.get(&path).expect(200).body.len(), 300_000);
    // By its snapshot alone the segment is full.
    acme.publish(r#"{"type":"a"}"#);
    wait_until("the sealing of the first segment", || daemon.status()["segmentsSealed"] == 1);
    let before = daemon.disk_bytes("log");
    daemon.clock.advance(Duration::from_secs(6));
    let gone = "the event of this link has been removed by retention";
    assert_eq!(errors(&acme.get(&path), 410), gone);
    wait_until("the drop of the sealed segment", || daemon.status()["segmentsSealed"] == 0);
    assert_eq!(errors(&acme.get(&path), 410), gone);
    assert!(daemon.disk_bytes("log") + 300_000 < before);
    daemon.restart();
    assert_eq!(errors(&daemon.client(acme.key()).get(&path), 410), gone);
}

/// A publication whose body has so many bytes, most of them in a snapshot of `snapshot` bytes and in white space behind it.
fn body_of(bytes: usize, snapshot: usize) -> String {
    let text = "s".repeat(snapshot);
    let body = format!(
        r#"{{"type":"a","references":[{{"referenceType":"file","referenceId":"1","snapshot":{{"contentType":"text/plain","body":"{text}"}}}}]}}"#
    );
    format!("{body}{}", " ".repeat(bytes - body.len()))
}

#[test]
fn a_snapshot_has_at_most_8_mebibytes_and_a_body_with_snapshots_16() {
    let mut daemon = TestDaemon::start();
    let acme = daemon.acme();
    let key = notification_key(&mut daemon, 1);
    let mut acme = daemon.client(acme.key());
    const MAX: usize = 8 * 1024 * 1024;
    let event = acme.publish(body_of(MAX + 200, MAX));
    let read = acme.get(&link(&key, event, "/files/1")).expect(200);
    assert!(read.body == "s".repeat(MAX).into_bytes());
    let pointer = "/references/0/snapshot/body";
    let detail = format!("the snapshot has {} bytes, {MAX} are allowed", MAX + 1);
    let refused = acme.post(EVENTS, body_of(MAX + 200, MAX + 1)).expect(400);
    assert_eq!((&refused.json()["code"], &refused.json()["detail"]), (&json!("snapshot_too_large"), &json!(detail)));
    assert_eq!(refused.json()["errors"][0]["pointer"], pointer);
    // Two of the largest snapshots, and a body of exactly 16 MiB, which is more by nothing but the text around them.
    let two = |bytes: usize| {
        let snapshot = |number: u32, bytes: usize| {
            let text = "s".repeat(bytes);
            format!(r#"{{"referenceType":"file","referenceId":"{number}","snapshot":{{"contentType":"a/b","body":"{text}"}}}}"#)
        };
        let around = format!(r#"{{"type":"a","references":[{},{}]}}"#, snapshot(1, 0), snapshot(2, 0)).len();
        let (first, second) = (MAX - around, bytes - MAX);
        format!(r#"{{"type":"a","references":[{},{}]}}"#, snapshot(1, first), snapshot(2, second))
    };
    assert_eq!(two(2 * MAX).len(), 2 * MAX);
    let event = acme.publish(two(2 * MAX));
    assert_eq!(acme.get(&link(&key, event, "/files/2")).expect(200).body.len(), MAX);
    let refused = acme.post(EVENTS, format!("{} ", two(2 * MAX))).expect(413);
    let detail = format!("the body has more than {} bytes", 2 * MAX);
    assert_eq!(refused.problem(), problem("413 Payload Too Large", "body_too_large", EVENTS, &detail, ""));
}

#[test]
fn what_lies_beside_snapshots_has_at_most_524_288_bytes() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let snapshot_text = r#"{"contentType":"text/plain","body":""}"#.len();
    let body = |rest: usize| body_of(rest + snapshot_text + 1_000_000, 1_000_000);
    acme.publish(body(524_288));
    let refused = acme.post(EVENTS, body(524_289)).expect(413);
    let detail = "the body has more than 524288 bytes beside its snapshots";
    assert_eq!(refused.problem(), problem("413 Payload Too Large", "body_too_large", EVENTS, detail, ""));
    // The word alone does not make room.
    let pretends = format!(r#"{{"type":"a","payload":{{"snapshot":"{}"}}}}"#, "x".repeat(600_000));
    assert_eq!(acme.post(EVENTS, pretends.clone()).expect(400).json()["code"], "payload_too_large");
    let pretends = format!(r#"{{"type":"a","metadata":{{"snapshot":1}},"dedupeKey":"k"}}{}"#, " ".repeat(524_288));
    assert_eq!(acme.post(EVENTS, pretends).expect(413).json()["detail"], detail);
    assert_eq!(acme.ids("").len(), 1);
}

#[test]
fn a_large_body_without_snapshots_is_refused_before_it_is_whole() {
    let daemon = TestDaemon::start();
    let acme = daemon.acme();
    let mut connection = crate::support::http::Connection::open(daemon.address());
    let head = format!(
        "POST {EVENTS} HTTP/1.1\r\nHost: a\r\nX-Api-Key: {}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
        acme.key()
    );
    connection.send(head.as_bytes());
    let part = " ".repeat(100_000);
    let mut sent = 0;
    // It ends only when the daemon has heard enough.
    while connection.send(format!("{:x}\r\n{part}\r\n", part.len()).as_bytes()) {
        sent += part.len();
        if sent > 40_000_000 {
            break;
        }
    }
    assert!(sent <= 40_000_000, "the daemon took {sent} bytes");
}

#[test]
fn the_dedupe_key_covers_snapshots() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let body = |snapshot: Value| {
        json!({"type": "a", "dedupeKey": "k", "references": [{"referenceType": "file", "referenceId": "1", "snapshot": snapshot}]})
            .to_string()
    };
    let first = acme.publish(body(json!({"contentType": "text/plain", "body": "one"})));
    // The same bytes, written otherwise.
    let repeat = body(json!({"body": "b25l", "encoding": "base64", "contentType": "text/plain"}));
    assert_eq!(acme.post(EVENTS, repeat).expect(200).id(), first);
    for other in [json!({"contentType": "text/plain", "body": "two"}), json!({"contentType": "text/html", "body": "one"})] {
        assert_eq!(acme.post(EVENTS, body(other)).expect(409).json()["code"], "dedupe_conflict");
    }
}

#[test]
fn a_batch_takes_snapshots_and_refuses_each_event_for_itself() {
    let mut daemon = TestDaemon::start();
    let acme = daemon.acme();
    let key = notification_key(&mut daemon, 1);
    let mut acme = daemon.client(acme.key());
    let good = json!({"type": "a", "references": [contract(&json!("x".repeat(700_000)))]}).to_string();
    let bad = r#"{"type":"a","references":[{"referenceType":"c","referenceId":"1"},{"referenceType":"c","referenceId":"2","links":[
        {"contentType":"a/b","href":"https://a.example/"},{"contentType":"a/b","href":"nowhere"}]}]}"#
        .replace('\n', "");
    let lines = format!("{good}\n{bad}\n{good}");
    let answer = acme.send(&Request::new("POST", BATCH).body("application/x-ndjson", lines)).expect(200).json();
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results[1]["error"]["pointer"], "/references/1/links/1/href");
    for place in [0, 2] {
        let path = link(&key, results[place]["id"].as_u64().unwrap(), "/contracts/b%207%2F5");
        assert_eq!(acme.get(&path).expect(200).body.len(), 700_000);
    }
    let too_many = vec![good; 6].join("\n");
    acme.send(&Request::new("POST", BATCH).body("application/x-ndjson", too_many)).expect(413);
}

#[test]
fn a_wrong_reference_is_named_with_its_pointer() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let body = r#"{"type":"a","references":[{"referenceType":"c","referenceId":"1","links":[{"contentType":"a/b","href":"https://a.example/"},{"contentType":"a/b"}]}]}"#;
    let detail = "`href` is missing";
    let offset = body.find(r#"{"contentType":"a/b"}"#).unwrap();
    let more = format!(r#"{},"offset":{offset}"#, at("/references/0/links/1/href", detail));
    let expected = problem("400 Bad Request", "invalid_references", EVENTS, detail, &more);
    assert_eq!(acme.post(EVENTS, body).expect(400).problem(), expected);
    assert!(acme.ids("").is_empty());
}

#[test]
fn a_damaged_snapshot_is_told_and_never_served() {
    let mut daemon = TestDaemon::start();
    let acme = daemon.acme();
    let key = notification_key(&mut daemon, 1);
    let mut acme = daemon.client(acme.key());
    let event = publish_contract(&mut acme, "quite unmistakable");
    daemon.stop();
    let path = daemon.data_dir().join("log/1.redb");
    let mut bytes = std::fs::read(&path).unwrap();
    let place = bytes.windows(18).position(|window| window == b"quite unmistakable").unwrap();
    bytes[place] = b'Q';
    std::fs::write(&path, bytes).unwrap();
    daemon.restart();
    let mut acme = daemon.client(acme.key());
    let told = errors(&acme.get(&link(&key, event, "/contracts/b%207%2F5")), 500);
    assert_eq!(
        told,
        format!(
            "damaged data: segment 1, event {event}: the snapshot of its reference 0 is damaged, missing or in the place of another one"
        )
    );
    acme.get(&format!("{EVENTS}/{event}")).expect(200);
    let report = daemon.local().send(&Request::new("POST", "/api/v1/admin/verify")).expect(200).json();
    assert_eq!((&report["ok"], report["faults"].as_array().unwrap().len()), (&json!(false), 1));
}
