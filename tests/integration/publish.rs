//! One event comes in and is read again.

use serde_json::{Value, json};

use crate::support::clock::START;
use crate::support::daemon::TestDaemon;
use crate::support::http::{Request, at, problem};

const EVENTS: &str = "/api/v1/events";

#[test]
fn an_event_is_stored_and_its_answer_says_where() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let answer = acme.post(EVENTS, r#"{"type":"claim.created"}"#).expect(201);
    assert_eq!(answer.text(), format!(r#"{{"id":1,"createdUtc":"{START}"}}"#));
    assert_eq!(answer.header("location"), Some("/api/v1/events/1"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let envelope = format!(r#"{{"id":1,"companyId":1,"type":"claim.created","createdUtc":"{START}","payload":"{{}}","metadata":"{{}}"}}"#);
    assert_eq!(acme.get("/api/v1/events/1").expect(200).text(), envelope);
    assert_eq!(acme.get(EVENTS).expect(200).text(), format!(r#"{{"events":[{envelope}]}}"#));
}

#[test]
fn a_string_payload_comes_back_byte_for_byte() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let texts = [
        r#"{"amount":1.0,"rate":1e2,"tiny":1E-7,"big":12345678901234567890123,"neg":-0.0}"#,
        r#"{"a":1,"a":2,"A":3}"#,
        " \t\r\n{ \"spaced\" : [ 1 , 2 ,\t3 ] ,\n \"end\" : null }\n",
        "{\"escapes\":\"\\u00e6\\u2028\\ud83d\\ude00\\/\\b\\u0000\",\"plain\":\"æ\u{2028}\u{7f}\u{feff}😀/\"}",
        r#""just a string""#,
        "0",
        "[]",
    ];
    for text in texts {
        let id = acme.publish(json!({"type": "claim.created", "payload": text, "metadata": text}).to_string());
        let event = acme.get(&format!("/api/v1/events/{id}")).expect(200).json();
        assert_eq!(event["payload"].as_str(), Some(text));
        assert_eq!(event["metadata"].as_str(), Some(text));
    }
}

#[test]
fn another_value_keeps_its_source_text() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let sources = [r#"{ "n" : 1.00 , "n":2, "u":"\u00e6\ud83d\ude00" }"#, "[ 1e400,\n -0.0 ]", "12345678901234567890123", "true", "{}"];
    for source in sources {
        let id = acme.publish(format!("{{\"type\":\"a\",\"payload\":\t{source} ,\"metadata\": {source}\n}}"));
        let event = acme.get(&format!("/api/v1/events/{id}")).expect(200).json();
        assert_eq!(event["payload"].as_str(), Some(source));
        assert_eq!(event["metadata"].as_str(), Some(source));
    }
}

#[test]
fn a_payload_of_null_is_an_empty_object() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let body = r#"{"type":"a","payload":null,"metadata":null,"dedupeKey":null,"version":null,"references":null,"occurredAt":null}"#;
    let id = acme.publish(body);
    let event = acme.get(&format!("/api/v1/events/{id}")).expect(200).json();
    assert_eq!((event["payload"].as_str(), event["metadata"].as_str()), (Some("{}"), Some("{}")));
}

#[test]
fn a_repeat_answers_with_the_first_event() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let body = r#"{"type":"claim.created","payload":{"n":1},"dedupeKey":"k-1"}"#;
    acme.post(EVENTS, body).expect(201);
    daemon.clock.advance(std::time::Duration::from_secs(60));
    let repeat = acme.post(EVENTS, body).expect(200);
    assert_eq!(repeat.text(), format!(r#"{{"id":1,"createdUtc":"{START}","duplicate":true}}"#));
    assert_eq!(repeat.header("location"), Some("/api/v1/events/1"));
    assert_eq!(acme.ids(""), [1]);
}

#[test]
fn the_same_key_with_other_content_is_a_conflict() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    acme.publish(r#"{"type":"claim.created","payload":{"n":1},"dedupeKey":"k-1"}"#);
    let conflict = acme.post(EVENTS, r#"{"type":"claim.created","payload":{"n":2},"dedupeKey":"k-1"}"#).expect(409);
    let detail = "the dedupe key was used before, by event 1 with other content";
    assert_eq!(conflict.problem(), problem("409 Conflict", "dedupe_conflict", EVENTS, detail, r#","id":1"#));
    assert_eq!(acme.ids(""), [1]);
}

#[test]
fn every_part_of_the_content_is_in_the_fingerprint_and_the_case_of_the_type_is_not() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let whole = json!({
        "type": "fleet.moved", "version": "2", "payload": "{\"n\":1}", "metadata": "{\"m\":1}", "dedupeKey": "k",
        "references": [{"referenceType": "contract", "referenceId": "b75f"}], "occurredAt": "2026-11-22T10:00:00Z"
    });
    acme.publish(whole.to_string());
    let mut with = |member: &str, value: Value| {
        let mut changed = whole.clone();
        changed[member] = value;
        acme.post(EVENTS, changed.to_string()).status
    };
    assert_eq!(with("type", json!("Fleet.MOVED")), 200);
    assert_eq!(with("occurredAt", json!("2026-11-22T11:00:00+01:00")), 200);
    assert_eq!(with("type", json!("fleet.moved2")), 409);
    assert_eq!(with("version", json!("3")), 409);
    assert_eq!(with("version", Value::Null), 409);
    assert_eq!(with("payload", json!("{\"n\": 1}")), 409);
    assert_eq!(with("metadata", json!("{\"m\":2}")), 409);
    assert_eq!(with("references", json!([{"referenceType": "contract", "referenceId": "b75e"}])), 409);
    assert_eq!(with("references", Value::Null), 409);
    assert_eq!(with("occurredAt", json!("2026-11-22T10:00:00.000001Z")), 409);
    assert_eq!(with("occurredAt", Value::Null), 409);
}

#[test]
fn the_parts_of_the_content_cannot_flow_into_each_other() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    acme.publish(r#"{"type":"a","payload":"12","metadata":"3","dedupeKey":"k"}"#);
    acme.post(EVENTS, r#"{"type":"a","payload":"1","metadata":"23","dedupeKey":"k"}"#).expect(409);
}

#[test]
fn a_string_and_a_value_of_the_same_text_are_the_same_content() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    acme.publish(r#"{"type":"a","payload":{"n": 1},"dedupeKey":"k"}"#);
    acme.post(EVENTS, r#"{"type":"a","payload":"{\"n\": 1}","dedupeKey":"k"}"#).expect(200);
}

#[test]
fn a_dedupe_key_is_the_companys_own() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    daemon.company("bolt");
    let mut bolt = daemon.client(&daemon.key("bolt", &["events:write"]));
    let body = r#"{"type":"a","dedupeKey":"k"}"#;
    assert_eq!((acme.publish(body), bolt.publish(body)), (1, 2));
}

#[test]
fn the_idempotency_key_is_the_dedupe_key_quoted_or_bare() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let with = |key: &str, body: &str| Request::post(EVENTS, body).header("Idempotency-Key", key);
    acme.send(&with("order-7", r#"{"type":"a"}"#)).expect(201);
    acme.send(&with("\"order-7\"", r#"{"type":"a"}"#)).expect(200);
    acme.send(&with("order-7", r#"{"type":"a","dedupeKey":"order-7"}"#)).expect(200);
    acme.post(EVENTS, r#"{"type":"a","dedupeKey":"order-7"}"#).expect(200);
    assert_eq!(acme.ids(""), [1]);
}

#[test]
fn two_different_dedupe_keys_are_refused() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let refused = acme.send(&Request::post(EVENTS, r#"{"type":"a","dedupeKey":"k-2"}"#).header("Idempotency-Key", "k-1")).expect(400);
    let detail = "`Idempotency-Key` and the member `dedupeKey` differ; send one of them";
    assert_eq!(refused.problem(), problem("400 Bad Request", "dedupe_keys_differ", EVENTS, detail, &at("/dedupeKey", detail)));
}

#[test]
fn an_idempotency_key_that_is_empty_too_long_or_there_twice_is_refused() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let longest = "k".repeat(256);
    acme.send(&Request::post(EVENTS, r#"{"type":"a"}"#).header("Idempotency-Key", &longest)).expect(201);
    for key in ["", "\"\"", &format!("{longest}k")] {
        let refused = acme.send(&Request::post(EVENTS, r#"{"type":"a"}"#).header("Idempotency-Key", key)).expect(400);
        let detail = "the header `Idempotency-Key`: a dedupe key is 1 to 256 bytes";
        assert_eq!(refused.problem(), problem("400 Bad Request", "invalid_dedupe_key", EVENTS, detail, ""));
    }
    let twice = Request::post(EVENTS, r#"{"type":"a"}"#).header("Idempotency-Key", "a").header("Idempotency-Key", "a");
    let detail = "the header `idempotency-key` is there twice";
    assert_eq!(acme.send(&twice).expect(400).problem(), problem("400 Bad Request", "repeated_header", EVENTS, detail, ""));
}

#[test]
fn an_idempotency_key_on_a_batch_is_refused() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let refused = acme.send(&Request::post("/api/v1/events/batch", r#"[{"type":"a"}]"#).header("Idempotency-Key", "k")).expect(400);
    let detail = "a batch takes no `Idempotency-Key`; give each event a `dedupeKey`";
    assert_eq!(refused.problem(), problem("400 Bad Request", "idempotency_key_on_batch", "/api/v1/events/batch", detail, ""));
    assert!(acme.ids("").is_empty());
}

#[test]
fn a_type_is_kept_as_published_and_the_catalogues_spelling_wins() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    for kind in ["Fleet.MOVED", "fleet.moved", "CLAIM.Created", "fileuploadevent"] {
        acme.publish(json!({"type": kind}).to_string());
    }
    let kinds: Vec<Value> = acme.list("").iter().map(|event| event["type"].clone()).collect();
    assert_eq!(kinds, ["Fleet.MOVED", "fleet.moved", "claim.created", "FileUploadEvent"]);
    assert_eq!(acme.ids("?types=FLEET.moved"), [1, 2]);
    assert_eq!(acme.ids("?types=Claim.CREATED"), [3]);
}

#[test]
fn a_batch_answers_for_each_event_in_order() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let batch = concat!(
        r#"{"type":"a","dedupeKey":"k"}"#,
        "\n",
        r#"{"typ":"a"}"#,
        "\r\n",
        "\n",
        r#"{"type":"a","dedupeKey":"k"}"#,
        "\n",
        r#"{"type":"a","payload":7,"dedupeKey":"k"}"#,
        "\n",
        r#"{"type":"b"}"#,
    );
    let answer = acme.send(&Request::new("POST", "/api/v1/events/batch").body("application/x-ndjson", batch)).expect(200);
    let expected = [
        format!(r#"{{"id":1,"createdUtc":"{START}"}}"#),
        r#"{"error":{"code":"unknown_member","status":400,"detail":"there is no member `typ`; did you mean `type`?","pointer":"/typ"}}"#
            .to_owned(),
        format!(r#"{{"id":1,"createdUtc":"{START}","duplicate":true}}"#),
        r#"{"error":{"code":"dedupe_conflict","status":409,"detail":"the dedupe key was used before, by event 1 with other content"}}"#
            .to_owned(),
        format!(r#"{{"id":2,"createdUtc":"{START}"}}"#),
    ];
    assert_eq!(answer.text(), format!(r#"{{"results":[{}]}}"#, expected.join(",")));
    assert_eq!(acme.ids(""), [1, 2]);
}

#[test]
fn a_bad_event_in_an_array_does_not_stop_the_others() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let deep = format!("{}{}", "[".repeat(65), "]".repeat(65));
    let bad = [
        (format!(r#"{{"type":"x","payload":{deep}}}"#), "too_deep"),
        (r#"{"type":"x","payload":{"s":"]\"[","half":"\ud800"}}"#.to_owned(), "invalid_unicode"),
        ("7".to_owned(), "not_an_object"),
        (r#"{"type":"x","payload":"{"}"#.to_owned(), "invalid_payload"),
    ];
    for (body, code) in bad {
        let batch = format!(r#"[{{"type":"a"}}, {body} ,{{"type":"b"}}]"#);
        let answer = acme.post("/api/v1/events/batch", batch).expect(200);
        let results = answer.json();
        assert_eq!(results["results"][1]["error"]["code"], code, "{results}");
        assert!(results["results"][0]["id"].is_u64() && results["results"][2]["id"].is_u64(), "{results}");
    }
    assert_eq!(acme.list("").len(), 8);
}

#[test]
fn a_test_event_is_normalized_and_its_repeat_gets_the_same_answer() {
    let daemon = TestDaemon::start();
    daemon.company("acme");
    let mut admin = daemon.client(&daemon.key("acme", &["admin"]));
    let test = |admin: &mut crate::support::http::Client, payload: &str| {
        admin.post("/api/v1/events/test", json!({"type": "a", "payload": payload, "dedupeKey": "k"}).to_string())
    };
    let first = test(&mut admin, "{ \"b\" : 1.0,\n \"a\" : \" x \" }").expect(202);
    assert_eq!(first.text(), format!(r#"{{"id":1,"createdUtc":"{START}"}}"#));
    daemon.clock.advance(std::time::Duration::from_secs(5));
    assert_eq!(test(&mut admin, r#"{"other":true}"#).expect(202).text(), first.text());
    assert_eq!(admin.get("/api/v1/events/1").json()["payload"], r#"{"b":1.0,"a":" x "}"#);
    assert_eq!(admin.list("").len(), 1);
}
