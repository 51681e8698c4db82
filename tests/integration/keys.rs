//! Companies and keys: made, shown once, listed, revoked, and written down.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::clock::START;
use crate::support::daemon::TestDaemon;
use crate::support::http::{Request, at, problem};

const KEYS: &str = "/api/v1/admin/keys";
const COMPANIES: &str = "/api/v1/admin/companies";

#[test]
fn a_company_is_made_and_listed() {
    let daemon = TestDaemon::start();
    let mut local = daemon.local();
    let body = r#"{"slug":"acme-dk","country":"dk","name":"Acme Forsikring A/S"}"#;
    let made = local.post(COMPANIES, body).expect(201);
    let expected = format!(r#"{{"id":1,"slug":"acme-dk","country":"dk","name":"Acme Forsikring A/S","createdUtc":"{START}"}}"#);
    assert_eq!(made.text(), expected);
    assert_eq!(local.get(COMPANIES).expect(200).text(), format!(r#"{{"companies":[{expected}]}}"#));
    let taken = local.post(COMPANIES, r#"{"slug":"acme-dk"}"#).expect(409);
    assert_eq!(taken.json()["code"], "slug_taken");
}

#[test]
fn a_wrong_company_is_refused_by_member() {
    let daemon = TestDaemon::start();
    let mut local = daemon.local();
    for (body, pointer) in [
        (r#"{"slug":"Acme"}"#, "/slug"),
        (r#"{"slug":""}"#, "/slug"),
        (r#"{"slug":"a","country":"denmark"}"#, "/country"),
        (r#"{"slug":"a","name":""}"#, "/name"),
    ] {
        let refused = local.post(COMPANIES, body).expect(400).json();
        assert_eq!((&refused["code"], &refused["errors"][0]["pointer"]), (&json!("invalid_member"), &json!(pointer)), "{body}");
    }
    for body in ["{", "[]", r#"{"name":"a"}"#, r#"{"slug":"a","slog":"b"}"#, r#"{"slug":"a","slug":"b"}"#] {
        local.post(COMPANIES, body).expect(400);
    }
    assert_eq!(local.get(COMPANIES).text(), r#"{"companies":[]}"#);
}

#[test]
fn a_key_is_shown_once() {
    let daemon = TestDaemon::start();
    daemon.company("acme");
    let body = json!({
        "company": "acme", "name": "portal", "scopes": ["events:write", "events:read"], "rates": {"read": 5}, "expires": "2027-01-01T00:00:00Z",
        "networks": ["10.1.2.3/8", "192.0.2.1"], "typePrefixes": ["Claim."]
    });
    let made = daemon.local().post(KEYS, body.to_string()).expect(201);
    let (id, key) = (made.json()["id"].as_str().unwrap().to_owned(), made.json()["key"].as_str().unwrap().to_owned());
    let rest = format!(
        r#""companyId":1,"name":"portal","scopes":["events:read","events:write"],"rates":{{"read":5}},"expiresUtc":"2027-01-01T00:00:00.000000Z","networks":["10.0.0.0/8","192.0.2.1/32"],"typePrefixes":["claim."],"createdUtc":"{START}","revokedUtc":null,"lastUsedUtc":null}}"#
    );
    assert_eq!(made.text(), format!(r#"{{"id":"{id}","key":"{key}",{rest}"#));
    assert_eq!(daemon.local().get(KEYS).expect(200).text(), format!(r#"{{"keys":[{{"id":"{id}",{rest}]}}"#));
    assert!(key.starts_with(&format!("evk_dev_{id}_")), "{key}");
}

#[test]
fn neither_the_key_nor_its_secret_is_anywhere_on_disk() {
    let mut daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    acme.publish(r#"{"type":"a"}"#);
    daemon.stop();
    let secret = acme.key().rsplit('_').next().unwrap().as_bytes()[..20].to_vec();
    for entry in std::fs::read_dir(daemon.data_dir()).unwrap().chain(std::fs::read_dir(daemon.data_dir().join("log")).unwrap()) {
        let path = entry.unwrap().path();
        if path.is_file() {
            let content = std::fs::read(&path).unwrap();
            assert!(!content.windows(secret.len()).any(|window| window == secret), "{}", path.display());
        }
    }
}

#[test]
fn a_wrong_key_is_refused_by_member() {
    let daemon = TestDaemon::start();
    daemon.company("acme");
    let many: Vec<String> = (0..101).map(|number| format!("10.0.0.{number}")).collect();
    for (member, value, pointer) in [
        ("scopes", json!([]), "/scopes"),
        ("scopes", json!(["events:read", "events:delete"]), "/scopes/1"),
        ("networks", json!(["10.0.0.0/33"]), "/networks/0"),
        ("networks", json!(many), "/networks"),
        ("typePrefixes", json!(["claim.", "a b"]), "/typePrefixes/1"),
        ("expires", json!("2026-11-22T10:30:00Z"), "/expires"),
        ("expires", json!("soon"), "/expires"),
        ("name", json!("a\nb"), "/name"),
    ] {
        let mut body = json!({"company": "acme", "scopes": ["admin"]});
        body[member] = value;
        let refused = daemon.local().post(KEYS, body.to_string()).expect(400).json();
        assert_eq!((&refused["code"], &refused["errors"][0]["pointer"]), (&json!("invalid_member"), &json!(pointer)), "{body}");
    }
    assert_eq!(daemon.local().get(KEYS).text(), r#"{"keys":[]}"#);
}

#[test]
fn a_system_key_may_only_administer_and_measure() {
    let daemon = TestDaemon::start();
    let detail = "a key without a company is a system key, which may have `admin` and `metrics:read`, not `events:read`; say for which company the key is";
    let refused = daemon.local().post(KEYS, r#"{"scopes":["events:read"]}"#).expect(400);
    assert_eq!(refused.problem(), problem("400 Bad Request", "invalid_member", KEYS, detail, &at("/scopes", detail)));
}

#[test]
fn a_system_key_administers_over_the_network() {
    let daemon = TestDaemon::start();
    let mut system = daemon.client(&daemon.system_key());
    system.post(COMPANIES, r#"{"slug":"acme"}"#).expect(201);
    let made = system.post(KEYS, r#"{"company":1,"scopes":["events:write"]}"#).expect(201).json();
    let mut acme = daemon.client(made["key"].as_str().unwrap());
    acme.publish(r#"{"type":"a"}"#);
    system.send(&Request::new("DELETE", &format!("{KEYS}/{}", made["id"].as_str().unwrap()))).expect(204);
    acme.post("/api/v1/events", r#"{"type":"a"}"#).expect(401);
}

#[test]
fn a_companys_administrator_makes_keys_for_it_and_sees_no_others() {
    let daemon = TestDaemon::start();
    daemon.company("acme");
    daemon.company("bolt");
    daemon.key("bolt", &["admin"]);
    daemon.system_key();
    let mut admin = daemon.client(&daemon.key("acme", &["admin"]));
    let made = admin.post(KEYS, r#"{"scopes":["events:read"],"name":"made by acme"}"#).expect(201).json();
    assert_eq!(made["companyId"], 1);
    let keys = admin.get(KEYS).expect(200).json();
    assert!(keys["keys"].as_array().unwrap().iter().all(|key| key["companyId"] == 1), "{keys}");
    assert_eq!(keys["keys"].as_array().unwrap().len(), 2);
    let companies = admin.get(COMPANIES).expect(200).json();
    assert_eq!((companies["companies"].as_array().unwrap().len(), &companies["companies"][0]["slug"]), (1, &json!("acme")));
    // A company of null is its own, never none.
    let made = admin.post(KEYS, r#"{"company":null,"scopes":["admin"]}"#).expect(201).json();
    assert_eq!(made["companyId"], 1);
}

#[test]
fn the_list_of_keys_says_when_each_was_used_and_revoked() {
    let mut daemon = TestDaemon::start();
    daemon.company("acme");
    let made = daemon.key_of(&json!({"company": "acme", "scopes": ["events:read"]}));
    let key_row = |daemon: &TestDaemon| daemon.local().get(KEYS).expect(200).json()["keys"][0].clone();
    daemon.clock.advance(Duration::from_secs(3600));
    let used = daemon.clock.text();
    daemon.client(made["key"].as_str().unwrap()).get("/api/v1/events").expect(200);
    assert_eq!(key_row(&daemon)["lastUsedUtc"], Value::from(used.clone()));
    daemon.clock.advance(Duration::from_secs(3600));
    let revoked = daemon.clock.text();
    daemon.local().send(&Request::new("DELETE", &format!("{KEYS}/{}", made["id"].as_str().unwrap()))).expect(204);
    daemon.restart();
    let row = key_row(&daemon);
    assert_eq!((&row["lastUsedUtc"], &row["revokedUtc"]), (&json!(used), &json!(revoked)));
    daemon.client(made["key"].as_str().unwrap()).get("/api/v1/events").expect(401);
}

#[test]
fn each_act_of_administration_is_written_down() {
    let daemon = TestDaemon::start();
    let mut local = daemon.local();
    let request = |target: &str, body: &str, id: &str| Request::post(target, body).header("X-Request-Id", id);
    local.send(&request(COMPANIES, r#"{"slug":"acme"}"#, "r-1")).expect(201);
    let made = local.send(&request(KEYS, r#"{"company":"acme","scopes":["admin"]}"#, "r-2")).expect(201).json();
    let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    let second = daemon.client(key).send(&request(KEYS, r#"{"scopes":["events:read"]}"#, "r-3")).expect(201).json();
    let path = format!("{KEYS}/{}", second["id"].as_str().unwrap());
    daemon.client(key).send(&Request::new("DELETE", &path).header("X-Request-Id", "r-4")).expect(204);
    // What is refused is not an act.
    local.post(COMPANIES, r#"{"slug":"acme"}"#).expect(409);
    let audit = local.get("/api/v1/admin/audit").expect(200);
    let rows: Vec<[String; 4]> = audit.json()["audit"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| ["actor", "requestId", "act", "object"].map(|member| row[member].as_str().unwrap_or_default().to_owned()))
        .collect();
    let (actor, first, second) = (format!("key:{id}"), format!("key:{id}"), format!("key:{}", second["id"].as_str().unwrap()));
    assert_eq!(
        rows,
        [
            [actor.as_str(), "r-4", "key.revoke", second.as_str()],
            [actor.as_str(), "r-3", "key.create", second.as_str()],
            ["local", "r-2", "key.create", first.as_str()],
            ["local", "r-1", "company.create", "company:1"],
        ]
    );
    assert!(!audit.text().contains(key), "a secret in the audit log");
    let older = local.get("/api/v1/admin/audit?limit=1&before=3").expect(200).json();
    assert_eq!((older["audit"].as_array().unwrap().len(), &older["audit"][0]["number"]), (1, &json!(2)));
}

#[test]
fn the_status_says_how_the_daemon_stands() {
    let daemon = TestDaemon::start();
    let empty = daemon.status();
    assert_eq!((&empty["lastEventId"], &empty["lastEventUtc"]), (&json!(0), &Value::Null));
    daemon.acme().publish(r#"{"type":"a"}"#);
    let status = daemon.status();
    assert_eq!((&status["lastEventId"], &status["lastEventUtc"]), (&json!(1), &json!(START)));
    assert_eq!((&status["environment"], &status["retentionSeconds"]), (&json!("development"), &json!(14 * 86_400)));
    assert_eq!((&status["clockInDoubt"], &status["segmentsSealed"]), (&json!(false), &json!(0)));
    assert!(status["diskBytes"].as_u64().unwrap() > 0);
}

#[test]
fn the_configuration_is_told_with_the_source_of_each_value() {
    let daemon = TestDaemon::start();
    let config = daemon.local().get("/api/v1/admin/config").expect(200).json();
    let row = |key: &str| config["config"].as_array().unwrap().iter().find(|row| row["key"] == key).unwrap().clone();
    assert_eq!(row("environment"), json!({"key": "environment", "value": "\"development\"", "source": "LUTINE_ENVIRONMENT"}));
    assert_eq!(row("limits.payload_bytes_max"), json!({"key": "limits.payload_bytes_max", "value": "262144", "source": "default"}));
    assert_eq!(row("data_dir")["source"], "--data-dir");
}
