//! The same commands on a stopped daemon, on a running one, and over the network.

use std::process::Output;

use serde_json::{Value, json};

use crate::bare;
use crate::support::real::{RealDaemon, ask, data_dir, run};

fn story(ask: impl Fn(&[&str]) -> Value) {
    let company = ask(&["company", "create", "--slug", "acme", "--country", "dk", "--name", "Acme A/S"]);
    assert_eq!((&company["id"], &company["slug"]), (&json!(1), &json!("acme")));
    assert_eq!(ask(&["company", "list"])["companies"], json!([company]));

    let key = ask(&["key", "create", "--company", "acme", "--scope", "events:read", "--name", "reader"]);
    assert!(key["key"].as_str().is_some_and(|text| text.starts_with("evk_")), "{key}");
    let id = key["id"].as_str().unwrap();
    assert_eq!(ask(&["key", "revoke", id]), json!({"id": id, "revoked": true}));
    let keys = ask(&["key", "list"]);
    assert!(keys["keys"][0]["revokedUtc"].is_string() && keys["keys"][0].get("key").is_none(), "{keys}");

    let client = ask(&["client", "create", "--company", "acme", "--scope", "events:read", "--id", "core", "--name", "Core"]);
    assert!(client["secret"].as_str().is_some_and(|text| text.starts_with("evs_")), "{client}");
    let changed = ask(&["client", "change", "core", "--aud-policy", "token_endpoint", "--expires", "2099-01-31"]);
    assert_eq!((&changed["audPolicy"], &changed["expiresUtc"]), (&json!("token_endpoint"), &json!("2099-01-31T00:00:00.000000Z")));
    assert_eq!(ask(&["client", "change", "core", "--expires", "never"])["expiresUtc"], Value::Null);
    let rotated = ask(&["client", "rotate-secret", "core"]);
    assert!(rotated["previousExpiresUtc"].is_string() && rotated["secret"] != client["secret"], "{rotated}");
    let public_key = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/integration/oauth/keys/rsa.cert.pem");
    let key = ask(&["client", "add-key", "core", "--public-key", public_key, "--kid", "2026"]);
    assert_eq!((&key["kind"], &key["kid"]), (&json!("RSA"), &json!("2026")));
    let key = key["id"].as_str().unwrap();
    assert_eq!(ask(&["client", "remove-key", "core", key, "--company", "acme"]), json!({"id": "core", "key": key, "removed": true}));
    let keyed = ask(&["client", "create", "--scope", "events", "--public-key", public_key]);
    assert!(keyed.get("secret").is_none() && keyed["keys"][0]["id"] == key, "{keyed}");
    assert_eq!(ask(&["client", "revoke", "core"]), json!({"id": "core", "revoked": true}));
    let clients = ask(&["client", "list"]);
    assert!(clients["clients"][0]["revokedUtc"].is_string() && clients["clients"][0].get("secret").is_none(), "{clients}");

    let payload = r#"{ "claimId": "c-1", "amount": 1.50 }"#;
    let publish = ["event", "publish", "--type", "claim.created", "--payload", payload, "--dedupe-key", "c-1"];
    let first = ask(&publish);
    let again = ask(&publish);
    assert_eq!((&again["id"], &again["duplicate"]), (&first["id"], &json!(true)));
    let id = first["id"].to_string();
    assert_eq!(ask(&["event", "get", &id])["payload"], payload);
    ask(&["event", "publish", "--type", "policy.bound"]);
    let page = ask(&["event", "list", "--limit", "1"]);
    let cursor = page["pagingCursor"].as_str().unwrap();
    let rest = ask(&["event", "list", "--cursor", cursor]);
    assert_eq!(rest["events"][0]["type"], "policy.bound");
    assert!(rest.get("pagingCursor").is_none() && rest["resumeCursor"].is_string());

    let set = ["cursor", "set", "portal", "--cursor", cursor];
    assert_eq!(ask(&set), json!({"name": "portal", "set": true}));
    let shown = ask(&["cursor", "show", "portal"]);
    assert_eq!((&shown["cursor"], &shown["lag"]["events"]), (&json!(cursor), &json!(1)));
    assert_eq!(ask(&["cursor", "list"])["cursors"][0]["name"], "portal");
    assert_eq!(ask(&["cursor", "delete", "portal"]), json!({"name": "portal", "deleted": true}));
    assert_eq!(ask(&["cursor", "list"]), json!({"cursors": []}));
}

#[test]
fn everything_works_on_a_stopped_daemon() {
    let (_folder, data_dir) = data_dir();
    story(|arguments| ask(&data_dir, arguments));
}

#[test]
fn everything_works_on_a_running_daemon() {
    let (_folder, data_dir) = data_dir();
    let _daemon = RealDaemon::start(&data_dir, &[]);
    story(|arguments| ask(&data_dir, arguments));
}

#[test]
fn a_key_opens_the_daemon_over_the_network_and_decides_the_company() {
    let (_folder, data_dir) = data_dir();
    let daemon = RealDaemon::start(&data_dir, &[]);
    ask(&data_dir, &["company", "create", "--slug", "acme"]);
    ask(&data_dir, &["company", "create", "--slug", "other"]);
    let key = ask(&data_dir, &["key", "create", "--company", "other", "--scope", "events:read", "--scope", "events:write"]);
    let (url, key) = (format!("http://{}", daemon.address), key["key"].as_str().unwrap());
    let remote = |arguments: &[&str]| -> Output {
        bare(&[arguments, &["--output", "json"]].concat()).envs([("LUTINE_URL", url.as_str()), ("LUTINE_API_KEY", key)]).output().unwrap()
    };
    assert!(remote(&["event", "publish", "--type", "claim.created"]).status.success());
    let list: Value = serde_json::from_slice(&remote(&["event", "list"]).stdout).unwrap();
    assert_eq!(list["events"][0]["companyId"], 2);
    assert_eq!(remote(&["event", "list", "--company", "acme"]).status.code(), Some(2));
    let refused = remote(&["company", "list"]);
    assert_eq!(refused.status.code(), Some(1));
    let problem: Value = serde_json::from_slice(&refused.stderr).unwrap();
    assert_eq!(problem["status"], 403);
    assert_eq!(run(&data_dir, &["event", "list"]).status.code(), Some(2), "two companies, and none was named");
}
