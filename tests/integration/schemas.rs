//! Payloads held against the JSON Schemas of the catalogue.

use serde_json::{Value, json};

use crate::support::daemon::TestDaemon;
use crate::support::http::Request;
use crate::support::real::{data_dir, run};

const TYPES: &str = r#"
[[types]]
name = "fleet.moved"
sample = '{"vehicle": {"id": "V-1"}, "km": 3}'
validate = "reject"
schema = '''{"type": "object", "required": ["vehicle", "km"],
  "properties": {"km": {"type": "integer"}, "vehicle": {"type": "object", "required": ["id"]}}}'''

[[types.versions]]
version = "2"
schema = '{"required": ["miles"]}'

[[types]]
name = "fleet.parked"
sample = '{"at": "P-1"}'
schema = '{"required": ["at"]}'
"#;

fn daemon(validate: &str) -> (tempfile::TempDir, TestDaemon) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("types.toml");
    std::fs::write(&path, TYPES).unwrap();
    let daemon = TestDaemon::with(|config| {
        config.catalog.file = path;
        config.catalog.validate = validate.to_owned();
    });
    (folder, daemon)
}

fn publish(body: &Value) -> Request {
    Request::post("/api/v1/events", body.to_string())
}

#[test]
fn a_payload_that_violates_its_schema_is_refused_with_a_pointer_to_each_place() {
    let (_folder, daemon) = daemon("off");
    let mut acme = daemon.acme();
    let refused = acme.send(&publish(&json!({"type": "Fleet.Moved", "payload": {"vehicle": {}, "km": "3"}}))).expect(400).json();
    assert_eq!((&refused["code"], &refused["title"]), (&json!("schema_violation"), &json!("Bad Request")));
    assert_eq!(
        refused["errors"],
        json!([
            {"pointer": "/payload/km", "detail": "\"3\" is not of type \"integer\""},
            {"pointer": "/payload/vehicle", "detail": "\"id\" is a required property"},
        ])
    );
    assert_eq!(
        refused["detail"],
        "the payload violates the schema of `fleet.moved`, version 1: \"3\" is not of type \"integer\", and 1 more"
    );
    // The text of a payload that is a string counts, not the string.
    acme.send(&publish(&json!({"type": "fleet.moved", "payload": "{\"vehicle\": {\"id\": 1}, \"km\": 3}"}))).expect(201);
    assert_eq!(acme.get("/api/v1/events").expect(200).json()["events"].as_array().unwrap().len(), 1);
}

#[test]
fn every_version_has_its_own_schema_and_one_without_is_not_checked() {
    let (_folder, daemon) = daemon("off");
    let mut acme = daemon.acme();
    let of = |version: &str, payload: Value| publish(&json!({"type": "fleet.moved", "version": version, "payload": payload}));
    acme.send(&of("2", json!({"km": 3}))).expect(400);
    acme.send(&of("2", json!({"miles": 2}))).expect(201);
    acme.send(&of("3", json!({}))).expect(201);
}

#[test]
fn one_bad_payload_of_a_batch_does_not_stop_the_others() {
    let (_folder, daemon) = daemon("off");
    let mut acme = daemon.acme();
    let batch = json!([{"type": "fleet.moved", "payload": {}}, {"type": "fleet.moved", "payload": {"vehicle": {"id": 1}, "km": 3}}]);
    let answer = acme.send(&Request::post("/api/v1/events/batch", batch.to_string())).expect(200).json();
    assert_eq!(answer["results"][0]["error"]["code"], "schema_violation");
    assert_eq!(answer["results"][0]["error"]["pointer"], "/payload");
    assert!(answer["results"][1]["id"].is_u64(), "{answer}");
}

#[test]
fn the_configuration_decides_for_types_that_do_not_say_it_themselves() {
    let parked = publish(&json!({"type": "fleet.parked", "payload": {}}));
    let violations = |daemon: &TestDaemon| {
        let text = daemon.client("").get("/metrics").expect(200).text().to_owned();
        let line = text.lines().find(|line| line.starts_with("lutine_events_schema_violations_total")).map(str::to_owned);
        line.unwrap().rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    for (validate, status, counted) in [("off", 201, 0), ("warn", 201, 1), ("reject", 400, 0)] {
        let (_folder, daemon) = daemon(validate);
        daemon.acme().send(&parked).expect(status);
        assert_eq!(violations(&daemon), counted, "{validate}");
    }
}

#[test]
fn the_list_of_types_shows_the_schema() {
    let (_folder, daemon) = daemon("off");
    let types = daemon.acme().get("/api/v1/events/types").expect(200).json();
    let find = |name: &str| types["event_types"].as_array().unwrap().iter().find(|entry| entry["name"] == name).unwrap().clone();
    assert_eq!(find("fleet.parked")["schema"], json!({"required": ["at"]}));
    assert_eq!(find("claim.created").get("schema"), None);
}

#[test]
fn catalog_check_reports_every_mistake_or_what_is_known() {
    let (folder, data_dir) = data_dir();
    let path = folder.path().join("types.toml");
    let path = path.to_str().unwrap();
    std::fs::write(path, TYPES).unwrap();
    let output = run(&data_dir, &["catalog", "check", path, "--output", "json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let moved = report["types"].as_array().unwrap().iter().find(|entry| entry["name"] == "fleet.moved").unwrap();
    assert_eq!((&moved["schemas"], &moved["validate"]), (&json!(["1", "2"]), &json!("reject")));
    std::fs::write(path, "[[types]]\nname = \"a\"\nschmea = '{}'\n\n[[types]]\nname = \"b\"\nschema = '{'\n").unwrap();
    let output = run(&data_dir, &["catalog", "check", path, "--output", "table"]);
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(&format!("{path}:3: there is no key `schmea`; did you mean `schema`?")), "{said}");
    assert!(said.contains(&format!("{path}:7: the schema is not JSON")), "{said}");
}
