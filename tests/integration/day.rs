//! A day of an insurer's events goes in and comes out byte for byte.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::daemon::TestDaemon;
use crate::support::http::{Client, Request};

/// Payloads that a re-encoding would change.
const AWKWARD: [&str; 8] = [
    r#"{"amount":1.0,"rate":1e2,"tiny":1E-7,"big":12345678901234567890123,"neg":-0.0}"#,
    r#"{"a":1,"a":2,"A":3}"#,
    "{ \"spaced\" : [ 1 , 2 ,\t3 ] ,\n \"end\" : null }",
    "{\"escapes\":\"\\u00e6\\u2028\\ud83d\\ude00\\/\\b\",\"plain\":\"æ\u{2028}😀/\"}",
    r#"["an array at the top",true,false,null,"",0]"#,
    r#""just a string""#,
    r#"{"z":1,"m":2,"a":{"z":1,"b":2}}"#,
    r#"{"skade":"Vandskade på gulvet, \"køkken\""}"#,
];

/// Lines of our own, and those of the shared sample where the repository has it beside it.
fn lines() -> Vec<String> {
    let line = |number: usize| {
        let long = "the water ran from the ceiling ".repeat(if number % 250 == 249 { 8_000 } else { number % 40 });
        let awkward = AWKWARD.get(number % 30).map(|text| (*text).to_owned());
        let payload = awkward.unwrap_or_else(|| json!({"note": long}).to_string());
        let metadata = format!("{{ \"correlationId\": \"{number:032x}\",\"n\":{number}.00}}");
        json!({"type": "claim.created", "payload": payload, "metadata": metadata, "dedupeKey": format!("own-{number}")}).to_string()
    };
    let mut lines: Vec<String> = (0..300).map(line).collect();
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/samples/day.jsonl");
    if let Ok(text) = std::fs::read_to_string(sample) {
        lines.extend(text.lines().map(str::to_owned));
    }
    lines
}

/// Sends the lines in batches, each again while too much waits; their ids.
fn publish(client: &mut Client, lines: &[String]) -> Vec<u64> {
    let mut ids = Vec::new();
    for part in lines.chunks(50) {
        let request = Request::new("POST", "/api/v1/events/batch").body("application/x-ndjson", part.join("\n"));
        let answer = client.send_patiently(&request);
        for result in answer.expect(200).json()["results"].as_array().unwrap() {
            ids.push(result["id"].as_u64().unwrap_or_else(|| panic!("{result}")));
        }
    }
    ids
}

#[track_caller]
fn check(client: &mut Client, lines: &[String], ids: &[u64]) {
    let events = client.walk("", 200);
    assert_eq!(events.len(), lines.len());
    for ((event, line), id) in events.iter().zip(lines).zip(ids) {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(event["id"].as_u64(), Some(*id));
        for member in ["type", "payload", "metadata"] {
            assert_eq!(event[member].as_str(), line[member].as_str(), "{member} of {id}");
        }
    }
    for (event, id) in events.iter().zip(ids).step_by(97) {
        assert_eq!(client.get(&format!("/api/v1/events/{id}")).expect(200).json(), *event);
    }
}

#[test]
fn a_day_in_one_open_segment_is_read_back_byte_for_byte_also_after_a_restart() {
    let mut daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let lines = lines();
    let ids = publish(&mut acme, &lines);
    check(&mut acme, &lines, &ids);
    daemon.restart();
    let mut acme = daemon.client(acme.key());
    check(&mut acme, &lines, &ids);
    assert_eq!(publish(&mut acme, &lines), ids, "every line is a duplicate of itself");
    assert_eq!(daemon.verify(), lines.len() as u64);
}

#[test]
fn a_day_in_sealed_segments_is_read_back_byte_for_byte_also_after_a_restart() {
    let mut daemon = TestDaemon::with(|config| config.log_store.segment_bytes_max = 100_000);
    let mut acme = daemon.acme();
    let lines = lines();
    let ids = publish(&mut acme, &lines);
    daemon.wait_until_sealed();
    assert!(daemon.status()["segmentsSealed"].as_u64().unwrap() >= 5, "{}", daemon.status());
    check(&mut acme, &lines, &ids);
    daemon.restart();
    let mut acme = daemon.client(acme.key());
    check(&mut acme, &lines, &ids);
    assert_eq!(publish(&mut acme, &lines), ids, "every line is a duplicate of itself");
    assert_eq!(daemon.verify(), lines.len() as u64);
}
