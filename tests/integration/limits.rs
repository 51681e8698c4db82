//! Every limit of the contract at its value and above it, and every form that is refused, each answer as text.

use serde_json::{Value, json};

use crate::support::daemon::TestDaemon;
use crate::support::http::{Answer, Client, Request, at, problem};

const EVENTS: &str = "/api/v1/events";
const TEST: &str = "/api/v1/events/test";
const BATCH: &str = "/api/v1/events/batch";

fn bad(code: &str, detail: &str, more: &str) -> String {
    problem("400 Bad Request", code, EVENTS, detail, more)
}

#[track_caller]
fn refuses(client: &mut Client, body: impl Into<Vec<u8>>, expected: &str) {
    assert_eq!(client.post(EVENTS, body).expect(400).problem(), expected);
}

/// A JSON string of so many bytes.
fn text_of(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes - 2))
}

#[test]
fn a_payload_has_at_most_262_144_bytes_of_text() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let detail = "`payload` has 262145 bytes of text, 262144 are allowed";
    let expected = bad("payload_too_large", detail, &at("/payload", detail));
    for payload in [Value::from(text_of(262_144)).to_string(), "1".repeat(262_144)] {
        acme.publish(format!(r#"{{"type":"a","payload":{payload}}}"#));
    }
    for payload in [Value::from(text_of(262_145)).to_string(), "1".repeat(262_145)] {
        refuses(&mut acme, format!(r#"{{"type":"a","payload":{payload}}}"#), &expected);
    }
    let lengths: Vec<usize> = acme.list("").iter().map(|event| event["payload"].as_str().unwrap().len()).collect();
    assert_eq!(lengths, [262_144, 262_144]);
}

#[test]
fn metadata_has_at_most_65_536_bytes_of_text() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    acme.publish(format!(r#"{{"type":"a","metadata":{}}}"#, Value::from(text_of(65_536))));
    let detail = "`metadata` has 65537 bytes of text, 65536 are allowed";
    let body = format!(r#"{{"type":"a","metadata":{}}}"#, Value::from(text_of(65_537)));
    refuses(&mut acme, body, &bad("metadata_too_large", detail, &at("/metadata", detail)));
}

/// A body of so many bytes, within all other limits.
fn body_of(bytes: usize) -> String {
    let body = r#"{"type":"a"}"#;
    format!("{body}{}", " ".repeat(bytes - body.len()))
}

#[test]
fn a_body_has_at_most_524_288_bytes() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    acme.publish(body_of(524_288));
    let refused = acme.post(EVENTS, body_of(524_289)).expect(413);
    let detail = "the body has more than 524288 bytes";
    assert_eq!(refused.problem(), problem("413 Payload Too Large", "body_too_large", EVENTS, detail, ""));
}

#[test]
fn a_test_event_with_too_large_a_body_is_a_bad_request() {
    let daemon = TestDaemon::start();
    daemon.company("acme");
    let mut admin = daemon.client(&daemon.key("acme", &["admin"]));
    admin.post(TEST, body_of(524_288)).expect(202);
    let refused = admin.post(TEST, body_of(524_289)).expect(400);
    let detail = "the body has more than 524288 bytes";
    assert_eq!(refused.problem(), problem("400 Bad Request", "body_too_large", TEST, detail, ""));
}

#[test]
fn a_body_in_chunks_is_measured_too() {
    let daemon = TestDaemon::start();
    let acme = daemon.acme();
    let chunked = |bytes: usize| {
        let mut connection = crate::support::http::Connection::open(daemon.address());
        let head = format!(
            "POST {EVENTS} HTTP/1.1\r\nHost: a\r\nX-Api-Key: {}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
            acme.key()
        );
        connection.send(head.as_bytes());
        for part in body_of(bytes).as_bytes().chunks(10_000) {
            let mut chunk = format!("{:x}\r\n", part.len()).into_bytes();
            chunk.extend_from_slice(part);
            chunk.extend_from_slice(b"\r\n");
            if !connection.send(&chunk) {
                break;
            }
        }
        connection.send(b"0\r\n\r\n");
        connection.answer().expect("an answer")
    };
    chunked(524_288).expect(201);
    let refused = chunked(524_289).expect(413);
    let detail = "the body has more than 524288 bytes";
    assert_eq!(refused.problem(), problem("413 Payload Too Large", "body_too_large", EVENTS, detail, ""));
    assert_eq!(refused.header("connection"), Some("close"));
}

/// Sends only a head; the answer, and how long it took.
fn announce(daemon: &TestDaemon, key: &str, headers: &str) -> (Answer, std::time::Duration) {
    let mut connection = crate::support::http::Connection::open(daemon.address());
    let head = format!("POST {EVENTS} HTTP/1.1\r\nHost: a\r\nX-Api-Key: {key}\r\nContent-Type: application/json\r\n{headers}\r\n\r\n");
    let started = std::time::Instant::now();
    connection.send(head.as_bytes());
    (connection.answer().expect("an answer"), started.elapsed())
}

#[test]
fn ten_announced_gigabytes_are_refused_at_once() {
    let daemon = TestDaemon::start();
    let acme = daemon.acme();
    let (refused, took) = announce(&daemon, acme.key(), "Content-Length: 10737418240");
    refused.expect(413);
    assert!(took < std::time::Duration::from_secs(3), "{took:?}");
}

#[test]
fn who_asks_before_sending_too_large_a_body_is_not_told_to_go_on() {
    let daemon = TestDaemon::start();
    let acme = daemon.acme();
    let (refused, took) = announce(&daemon, acme.key(), "Content-Length: 16777217\r\nExpect: 100-continue");
    refused.expect(413);
    assert!(took < std::time::Duration::from_secs(3), "{took:?}");
    let (told, _) = announce(&daemon, acme.key(), "Content-Length: 524288\r\nExpect: 100-continue");
    told.expect(100);
}

#[test]
fn a_batch_has_at_most_4_mebibytes() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let body = |bytes: usize| format!("[]{}", " ".repeat(bytes - 2));
    assert_eq!(acme.post(BATCH, body(4_194_304)).expect(200).text(), r#"{"results":[]}"#);
    let refused = acme.post(BATCH, body(4_194_305)).expect(413);
    let detail = "the body has more than 4194304 bytes";
    assert_eq!(refused.problem(), problem("413 Payload Too Large", "body_too_large", BATCH, detail, ""));
}

#[test]
fn a_batch_has_at_most_1_000_events_in_both_forms() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let event = r#"{"type":"a"}"#;
    let array = |count: usize| Request::post(BATCH, format!("[{}]", vec![event; count].join(",")));
    let lines = |count: usize| Request::new("POST", BATCH).body("application/x-ndjson", vec![event; count].join("\n"));
    let expected = problem("413 Payload Too Large", "batch_too_large", BATCH, "a batch has at most 1000 events", "");
    for request in [array(1_001), lines(1_001)] {
        assert_eq!(acme.send(&request).expect(413).problem(), expected);
    }
    assert!(acme.ids("").is_empty());
    for request in [array(1_000), lines(1_000)] {
        assert_eq!(acme.send(&request).expect(200).json()["results"].as_array().unwrap().len(), 1_000);
    }
}

fn nested(depth: usize) -> String {
    "[".repeat(depth) + &"]".repeat(depth)
}

#[test]
fn json_is_at_most_64_levels_deep() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    for payload in [nested(64), Value::from(nested(64)).to_string()] {
        acme.publish(format!(r#"{{"type":"a","payload":{payload},"metadata":{payload}}}"#));
    }
    let too_deep = format!(r#"{{"type":"a","payload":{}}}"#, nested(65));
    refuses(&mut acme, too_deep, &bad("too_deep", "nested deeper than 64 levels at offset 86", r#","offset":86"#));
    let too_deep = format!(r#"{{"type":"a","metadata":"{}"}}"#, nested(65));
    let detail = "the text of `metadata`: nested deeper than 64 levels at offset 64";
    refuses(&mut acme, too_deep, &bad("too_deep", detail, &(at("/metadata", detail) + r#","offset":64"#)));
    // However deep, it costs no stack.
    refuses(&mut acme, "[".repeat(500_000), &bad("too_deep", "nested deeper than 64 levels at offset 65", r#","offset":65"#));
}

#[test]
fn a_dedupe_key_has_1_to_256_bytes() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    acme.publish(json!({"type": "a", "dedupeKey": "å".repeat(128)}).to_string());
    acme.publish(json!({"type": "a", "dedupeKey": "k"}).to_string());
    let detail = "a dedupe key is 1 to 256 bytes";
    for key in [String::new(), "å".repeat(128) + "k"] {
        let body = json!({"type": "a", "dedupeKey": key}).to_string();
        refuses(&mut acme, body, &bad("invalid_dedupe_key", detail, &at("/dedupeKey", detail)));
    }
}

#[test]
fn a_type_has_1_to_128_characters_of_its_alphabet() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    for kind in ["a".repeat(128), "9._-".to_owned()] {
        acme.publish(json!({"type": kind}).to_string());
    }
    let detail = "a type is 1 to 128 characters of A-Z, a-z, 0-9, '.', '_' and '-', and starts with a letter or a digit";
    for kind in ["a".repeat(129), String::new(), ".a".to_owned(), "claim created".to_owned(), "é".to_owned(), "a*".to_owned()] {
        refuses(&mut acme, json!({"type": kind}).to_string(), &bad("invalid_type", detail, &at("/type", detail)));
    }
}

#[test]
fn broken_json_is_refused_with_its_place() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let detail = "not JSON: expected a value at line 2, column 13 (offset 25)";
    refuses(&mut acme, "{\"type\":\"a\",\n \"payload\": }", &bad("invalid_json", detail, r#","offset":25"#));
    let detail = "not JSON: expected the end of the text at line 1, column 14 (offset 13)";
    refuses(&mut acme, r#"{"type":"a"} {}"#, &bad("invalid_json", detail, r#","offset":13"#));
    let detail = "the text of `payload`: not JSON: expected a member name in double quotes at line 1, column 2 (offset 1)";
    refuses(&mut acme, r#"{"type":"a","payload":"{"}"#, &bad("invalid_payload", detail, &(at("/payload", detail) + r#","offset":1"#)));
    let detail = "the text of `metadata`: not JSON: expected a value at line 1, column 1 (offset 0)";
    refuses(&mut acme, r#"{"type":"a","metadata":"x"}"#, &bad("invalid_metadata", detail, &(at("/metadata", detail) + r#","offset":0"#)));
    for body in [
        "",
        " ",
        "{",
        "{\"type\":\"a\"",
        "{\"type\":\"a\",}",
        "{'type':'a'}",
        "{\"type\":\"a\",\"payload\":01}",
        "{\"type\":\"a\",\"payload\":NaN}",
    ] {
        let code = acme.post(EVENTS, body).expect(400).json()["code"].clone();
        assert!(code == "invalid_json" || code == "not_an_object", "{body}: {code}");
    }
}

#[test]
fn bytes_that_are_not_utf_8_are_refused_with_their_offset() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let detail = "the body has bytes that are not UTF-8 at offset 9; it must be UTF-8 without a byte-order mark";
    for body in [b"{\"type\":\"\xff\"}".as_slice(), b"{\"type\":\"\xc0\xaf\"}", b"{\"type\":\"\xed\xa0\x80\"}", b"{\"type\":\"\xe2\x82"] {
        refuses(&mut acme, body, &bad("invalid_unicode", detail, r#","offset":9"#));
    }
}

#[test]
fn a_byte_order_mark_is_refused_wherever_it_stands() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let detail = "the body has a byte-order mark at offset 0; it must be UTF-8 without a byte-order mark";
    refuses(&mut acme, "\u{feff}{\"type\":\"a\"}", &bad("invalid_unicode", detail, r#","offset":0"#));
    let detail = "the text of `payload`: a byte-order mark at offset 0";
    let body = "{\"type\":\"a\",\"payload\":\"\u{feff}{}\"}";
    refuses(&mut acme, body, &bad("invalid_unicode", detail, &(at("/payload", detail) + r#","offset":0"#)));
}

#[test]
fn half_a_surrogate_pair_is_refused_at_any_level() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let body = r#"{"type":"a","payload":{"x":["\ud800"]}}"#;
    refuses(&mut acme, body, &bad("invalid_unicode", "half of a surrogate pair at offset 29", r#","offset":29"#));
    let body = r#"{"type":"a","metadata":{"\udc00":1}}"#;
    refuses(&mut acme, body, &bad("invalid_unicode", "half of a surrogate pair at offset 25", r#","offset":25"#));
    let detail = "the text of `payload`: half of a surrogate pair at offset 1";
    let body = r#"{"type":"a","payload":"\"\\ud800\\u0041\""}"#;
    refuses(&mut acme, body, &bad("invalid_unicode", detail, &(at("/payload", detail) + r#","offset":1"#)));
    acme.publish(r#"{"type":"a","payload":"\"\\ud83d\\ude00\""}"#);
}

#[test]
fn an_unknown_member_is_named_with_the_nearest() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    for (name, hint) in [("paylod", "; did you mean `payload`?"), ("dedupekey", "; did you mean `dedupeKey`?"), ("zzzzzzzz", "")] {
        let detail = format!("there is no member `{name}`{hint}");
        let expected = bad("unknown_member", &detail, &(at(&format!("/{name}"), &detail) + r#","offset":12"#));
        refuses(&mut acme, format!(r#"{{"type":"a","{name}":1}}"#), &expected);
    }
}

#[test]
fn a_repeated_member_is_refused_also_in_another_spelling() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let detail = "the member `type` is there twice";
    for second in ["type", r"typ\u0065"] {
        let expected = bad("repeated_member", detail, &(at("/type", detail) + r#","offset":12"#));
        refuses(&mut acme, format!(r#"{{"type":"a","{second}":"b"}}"#), &expected);
    }
}

#[test]
fn a_member_of_the_wrong_kind_is_refused_by_name() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let detail = "the member `type` is missing";
    for body in ["{}", r#"{"type":null}"#] {
        refuses(&mut acme, body, &bad("missing_member", detail, &at("/type", detail)));
    }
    for (member, code) in [
        ("type", "invalid_type"),
        ("dedupeKey", "invalid_dedupe_key"),
        ("version", "invalid_version"),
        ("occurredAt", "invalid_occurred_at"),
    ] {
        let detail = format!("`{member}` must be a string");
        let mut body = json!({"type": "a"});
        body[member] = json!(7);
        refuses(&mut acme, body.to_string(), &bad(code, &detail, &at(&format!("/{member}"), &detail)));
    }
    let detail = "not an RFC 3339 date-time such as 2026-11-22T10:30:00Z";
    for time in ["yesterday", "2026-11-22", "2026-02-30T10:30:00Z", "2026-11-22T10:30:00"] {
        let body = json!({"type": "a", "occurredAt": time}).to_string();
        refuses(&mut acme, body, &bad("invalid_occurred_at", detail, &at("/occurredAt", detail)));
    }
}

#[test]
fn an_event_has_at_most_100_references() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let body = |count: usize| {
        let references: Vec<Value> =
            (0..count).map(|number| json!({"referenceType": "contract", "referenceId": number.to_string()})).collect();
        json!({"type": "a", "references": references}).to_string()
    };
    acme.publish(body(100));
    let refused = acme.post(EVENTS, body(101)).expect(400).json();
    assert_eq!((&refused["code"], &refused["errors"][0]["pointer"]), (&json!("invalid_references"), &json!("/references")));
}

#[test]
fn another_content_type_is_refused() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let send = |acme: &mut Client, path: &str, kind: &str| acme.send(&Request::new("POST", path).body(kind, r#"{"type":"a"}"#));
    let expected = |path: &str, detail: &str| problem("415 Unsupported Media Type", "unsupported_content_type", path, detail, "");
    for kind in ["text/plain", "application/jsonx", "application/x-ndjson", ""] {
        let refused = send(&mut acme, EVENTS, kind).expect(415);
        assert_eq!(refused.problem(), expected(EVENTS, "the content type must be application/json"));
    }
    let refused = send(&mut acme, EVENTS, "application/json; charset=latin1").expect(415);
    assert_eq!(refused.problem(), expected(EVENTS, "the content type must be application/json in UTF-8"));
    let refused = acme.send(&Request::new("POST", EVENTS)).expect(415);
    assert_eq!(refused.problem(), expected(EVENTS, "the content type must be application/json"));
    let refused = send(&mut acme, BATCH, "text/csv").expect(415);
    assert_eq!(refused.problem(), expected(BATCH, "the content type must be application/x-ndjson or application/json"));
    for kind in
        ["application/json", "Application/JSON;charset=UTF-8", "application/json; charset=\"utf-8\"", "application/json ;Charset=utf8"]
    {
        send(&mut acme, EVENTS, kind).expect(201);
    }
}

#[test]
fn a_strict_catalogue_refuses_unknown_types_and_names_the_nearest() {
    let daemon = TestDaemon::with(|config| config.catalog.strict = true);
    let mut acme = daemon.acme();
    acme.publish(r#"{"type":"Claim.CREATED"}"#);
    let detail = "the type `claim.craeted` is not in the catalogue; did you mean `claim.created`?";
    refuses(&mut acme, r#"{"type":"claim.craeted"}"#, &bad("unknown_type", detail, &at("/type", detail)));
    let detail = "the type `qqqqqqqqqqqqqq` is not in the catalogue";
    refuses(&mut acme, r#"{"type":"qqqqqqqqqqqqqq"}"#, &bad("unknown_type", detail, &at("/type", detail)));
}

#[test]
fn a_refused_event_leaves_nothing_behind() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    acme.post(EVENTS, r#"{"type":"a","dedupeKey":"k","payload":"{"}"#).expect(400);
    assert!(acme.ids("").is_empty());
    assert_eq!(acme.publish(r#"{"type":"a","dedupeKey":"k"}"#), 1);
}

#[test]
fn a_test_event_takes_strings_that_hold_json() {
    let daemon = TestDaemon::start();
    daemon.company("acme");
    let mut admin = daemon.client(&daemon.key("acme", &["admin"]));
    let expected = |code: &str, detail: &str, more: &str| problem("400 Bad Request", code, TEST, detail, more);
    for (name, code) in [("payload", "invalid_payload"), ("metadata", "invalid_metadata")] {
        let detail = format!("`{name}` must be a string that holds JSON");
        let body = format!(r#"{{"type":"a","{name}":{{}}}}"#);
        assert_eq!(admin.post(TEST, body).expect(400).problem(), expected(code, &detail, &at(&format!("/{name}"), &detail)));
    }
    let detail = "the text of `payload`: not JSON: expected a value at line 1, column 1 (offset 0)";
    let refused = admin.post(TEST, r#"{"type":"a","payload":"hello"}"#).expect(400);
    assert_eq!(refused.problem(), expected("invalid_payload", detail, &(at("/payload", detail) + r#","offset":0"#)));
    let refused = admin.post(TEST, r#"{"type":"a","version":"2"}"#).expect(400).json();
    assert_eq!(refused["code"], "unknown_member");
}
