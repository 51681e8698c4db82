//! CloudEvents that come in, in their three modes.

use serde_json::{Value, json};

use crate::support::daemon::TestDaemon;
use crate::support::http::{Answer, Client, Request, at, problem};

const EVENTS: &str = "/api/v1/events";
const STRUCTURED: &str = "application/cloudevents+json";
const BATCHED: &str = "application/cloudevents-batch+json";

fn post(client: &mut Client, content_type: &str, body: &str) -> Answer {
    client.send(&Request::new("POST", EVENTS).body(content_type, body))
}

fn binary(id: &str) -> Request {
    let request =
        Request::new("POST", EVENTS).header("ce-specversion", "1.0").header("ce-source", "/claims").header("ce-type", "claim.created");
    if id.is_empty() { request } else { request.header("CE-ID", id) }
}

fn structured(id: &str, more: &str) -> String {
    format!(r#"{{"specversion":"1.0","source":"/claims","type":"claim.created","id":"{id}"{more}}}"#)
}

#[test]
fn each_mode_publishes_and_keeps_the_data_byte_for_byte() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let data = r#"{ "claim" : {"amount":1.50 , "note":"\u00e5 / \/"} }"#;
    let first =
        post(&mut acme, "application/cloudevents+json; charset=UTF-8", &structured("1", &format!(r#","subject":"c/1","data": {data}"#)));
    assert_eq!(first.header("location"), Some("/api/v1/events/1"));
    let created = first.json()["createdUtc"].as_str().unwrap().to_owned();
    assert_eq!(first.expect(201).text(), format!(r#"{{"id":1,"createdUtc":"{created}"}}"#));
    acme.send(&binary("2").header("ce-subject", "c%2F1").body("application/vnd.acme+json", data)).expect(201);
    acme.send(&binary("3").header("ce-time", "2026-11-22T10:30:00Z")).expect(201);
    let batch =
        format!("[{},{}]", structured("4", &format!(r#","subject":"c/1","data":{data}"#)), structured("5", r#","data_base64":"MQ==""#));
    let answer = post(&mut acme, BATCHED, &batch).expect(200);
    assert_eq!(answer.text(), format!(r#"{{"results":[{{"id":4,"createdUtc":"{created}"}},{{"id":5,"createdUtc":"{created}"}}]}}"#));
    let events = acme.list("");
    let member = |place: usize, name: &str| events[place][name].as_str().unwrap().to_owned();
    for (place, id) in [(0, "1"), (1, "2"), (3, "4")] {
        assert_eq!(member(place, "payload"), data);
        assert_eq!(member(place, "metadata"), format!(r#"{{"id":"{id}","source":"/claims","subject":"c/1"}}"#));
    }
    assert_eq!((member(2, "payload").as_str(), member(4, "payload").as_str()), ("{}", "1"));
    assert!(events.iter().all(|event| event["type"] == "claim.created"));
}

#[test]
fn source_and_id_are_the_dedupe_key_in_every_mode() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let first = post(&mut acme, STRUCTURED, &structured("1", r#","data":{"a":1},"n":7"#)).expect(201).json();
    let same = acme.send(&binary("1").header("ce-n", "7").body("application/json", r#"{"a":1}"#)).expect(200).json();
    assert_eq!(same, json!({"id": first["id"], "createdUtc": first["createdUtc"], "duplicate": true}));
    let body = format!("[{},{}]", structured("1", r#","data":{"a":1},"n":7"#), structured("1", r#","data":{"a":2},"n":7"#));
    let results = post(&mut acme, BATCHED, &body).expect(200).json()["results"].clone();
    assert_eq!((&results[0]["duplicate"], &results[1]["error"]["code"]), (&Value::from(true), &Value::from("dedupe_conflict")));
    let conflict = post(&mut acme, STRUCTURED, &structured("1", r#","data":{"a":2}"#)).expect(409).json();
    assert_eq!((&conflict["code"], &conflict["id"]), (&Value::from("dedupe_conflict"), &first["id"]));
    // The same text as an own key of the native call.
    acme.post(EVENTS, r#"{"type":"x","dedupeKey":"/claims 1"}"#).expect(409);
    // Too long to be a key as it is, and a key all the same.
    let long = "x".repeat(300);
    let first = post(&mut acme, STRUCTURED, &structured(&long, "")).expect(201).id();
    assert_eq!(post(&mut acme, STRUCTURED, &structured(&long, "")).expect(200).id(), first);
    post(&mut acme, STRUCTURED, &structured(&format!("{long}y"), "")).expect(201);
}

#[test]
fn mistakes_are_named_where_they_are() {
    let daemon = TestDaemon::with(|config| config.limits.payload_bytes_max = 64);
    let mut acme = daemon.acme();
    let xml = "`datacontenttype` says that the data is not JSON in UTF-8, and only such data can be kept";
    let kind =
        "`type` cannot be kept: a type is 1 to 128 characters of A-Z, a-z, 0-9, '.', '_' and '-', and starts with a letter or a digit";
    let own = "types that begin with `lutine.` are the daemon's own; `lutine.x` cannot be published";
    let long = format!(r#","data":"{}""#, "x".repeat(63));
    for (body, code, pointer, detail, more) in [
        (structured("1", r#","specversion":"1.0""#), "repeated_member", "/specversion", "`specversion` is there twice", r#","offset":72"#),
        (r#"{"specversion":"1.0"}"#.to_owned(), "missing_member", "/id", "`id` is missing", ""),
        (structured("1", r#","data":"<a/>","datacontenttype":"text/xml""#), "unsupported_data_content_type", "/datacontenttype", xml, ""),
        (
            structured("1", r#","Data":1"#),
            "unknown_member",
            "/Data",
            "`Data` is no attribute: their names are lower-case letters and digits; did you mean `data`?",
            r#","offset":72"#,
        ),
        (structured("1", "").replace("claim.created", "claim/created"), "invalid_type", "/type", kind, ""),
        (structured("1", "").replace("claim.created", "lutine.x"), "reserved_type", "/type", own, ""),
        (structured("1", &long), "payload_too_large", "/data", "the data has 65 bytes of text, 64 are allowed", ""),
    ] {
        let refused = post(&mut acme, STRUCTURED, &body).expect(400);
        assert_eq!(
            refused.problem(),
            problem("400 Bad Request", code, EVENTS, detail, &format!("{}{more}", at(pointer, detail))),
            "{body}"
        );
    }
    let refused = |acme: &mut Client, request: &Request, status: &str, code: &str, detail: &str| {
        let number = status.split(' ').next().unwrap().parse().unwrap();
        let answer = acme.send(request).expect(number);
        assert_eq!(answer.problem(), problem(status, code, EVENTS, detail, ""));
    };
    let bad = "400 Bad Request";
    refused(&mut acme, &binary("").body("application/json", "1"), bad, "missing_member", "the header `ce-id` is missing");
    refused(&mut acme, &binary("1").header("ce-id", "1"), bad, "repeated_member", "the header `ce-id` is there twice");
    let time = "the header `ce-time` is not an RFC 3339 date-time such as 2026-11-22T10:30:00Z";
    refused(&mut acme, &binary("1").header("ce-time", "now"), bad, "invalid_occurred_at", time);
    let key = "a CloudEvent is known by its `source` and `id`; send no `Idempotency-Key`";
    refused(&mut acme, &binary("1").header("Idempotency-Key", "k"), bad, "idempotency_key_on_cloudevent", key);
    let unsupported = "415 Unsupported Media Type";
    let json = "the content type must be JSON in UTF-8, such as application/json: only such data can be kept";
    refused(&mut acme, &binary("1").body("text/plain", "hello"), unsupported, "unsupported_content_type", json);
    let forms = "the content type must be application/cloudevents+json or application/cloudevents-batch+json";
    let avro = Request::new("POST", EVENTS).body("application/cloudevents+avro", "x");
    refused(&mut acme, &avro, unsupported, "unsupported_content_type", forms);
    let broken = acme.send(&binary("1").body("application/json", "{\"a\":}")).expect(400).json();
    assert_eq!((&broken["code"], &broken["offset"]), (&Value::from("invalid_json"), &Value::from(5)));
    assert!(acme.ids("").is_empty());
}

#[test]
fn a_batch_of_cloudevents_is_a_batch() {
    let daemon = TestDaemon::with(|config| config.limits.batch_events_max = 3);
    daemon.company("acme");
    let key = daemon.key_of(&json!({"company": "acme", "scopes": ["events:write", "events:read"], "rates": {"write": 7}}));
    let mut acme = daemon.client(key["key"].as_str().unwrap());
    let batch = |ids: &[&str]| format!("[{}]", ids.iter().map(|id| structured(id, "")).collect::<Vec<_>>().join(","));
    let results = post(&mut acme, BATCHED, &format!("[{},7,{}]", structured("1", ""), structured("2", ""))).expect(200).json();
    assert_eq!(results["results"][1]["error"]["code"], "not_an_object");
    assert_eq!((&results["results"][0]["id"], &results["results"][2]["id"]), (&json!(1), &json!(2)));
    assert_eq!(post(&mut acme, BATCHED, &batch(&["3", "4", "5", "6"])).expect(413).json()["code"], "batch_too_large");
    assert_eq!(post(&mut acme, BATCHED, "{}").expect(400).json()["detail"], "a batch is a JSON array of CloudEvents");
    // Every event counts in the bucket: three, and one for each call that was refused, leave two.
    assert_eq!(post(&mut acme, BATCHED, &batch(&["3", "4", "5"])).expect(429).json()["code"], "rate_limited");
    assert_eq!(acme.ids(""), [1, 2]);
}
