//! Clients: made, shown once, changed, revoked, and written down.

use std::time::Duration;

use serde_json::{Value, json};

use super::{CLIENTS, ED25519, P256, RSA_CERTIFICATE, TOKEN, ask_with_secret, daemon, make_client, nobody, post_form, token_of, x5t};
use crate::support::clock::START;
use crate::support::http::Request;

#[test]
fn a_secret_is_shown_once_and_is_nowhere_on_disk() {
    let mut daemon = daemon();
    let body = json!({
        "id": "claims-core", "name": "Claims core", "scopes": ["events:write", "events:read"], "rates": {"admin": 9},
        "expires": "2027-01-01T00:00:00Z", "networks": ["127.0.0.0/8"], "typePrefixes": ["Claim."]
    });
    let made = daemon.local().post(CLIENTS, body.to_string()).expect(201);
    let secret = made.json()["secret"].as_str().unwrap().to_owned();
    let rest = format!(
        r#""companyId":1,"name":"Claims core","scopes":["events:read","events:write"],"audPolicy":"issuer","hasSecret":true,"keys":[],"rates":{{"admin":9}},"expiresUtc":"2027-01-01T00:00:00.000000Z","networks":["127.0.0.0/8"],"typePrefixes":["claim."],"createdUtc":"{START}","revokedUtc":null,"lastUsedUtc":null}}"#
    );
    assert_eq!(made.text(), format!(r#"{{"id":"claims-core","secret":"{secret}",{rest}"#));
    let listed = format!(r#"{{"id":"claims-core",{rest}"#);
    assert_eq!(daemon.local().get(CLIENTS).expect(200).text(), format!(r#"{{"clients":[{listed}]}}"#));
    assert_eq!(daemon.local().get("/api/v1/admin/companies/1/clients/claims-core").expect(200).text(), listed);
    ask_with_secret(&daemon, "claims-core", &secret).expect(200);
    daemon.stop();
    let part = &secret.as_bytes()[4..40];
    let folders = [daemon.data_dir(), daemon.data_dir().join("log")];
    for path in folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap()).map(|entry| entry.unwrap().path()) {
        if path.is_file() {
            let content = std::fs::read(&path).unwrap();
            assert!(!content.windows(part.len()).any(|window| window == part), "{}", path.display());
        }
    }
    daemon.restart();
    ask_with_secret(&daemon, "claims-core", &secret).expect(200);
}

#[test]
fn a_key_is_shown_with_the_thumbprint_of_its_certificate() {
    let daemon = daemon();
    let made =
        make_client(&daemon, &json!({"scopes": ["events"], "keys": [{"publicKey": RSA_CERTIFICATE, "kid": "a"}, {"publicKey": ED25519}]}));
    assert!(made.get("secret").is_none() && made["hasSecret"] == false, "{made}");
    let keys = made["keys"].as_array().unwrap();
    let facts = |key: &Value| ["kind", "kid", "x5t"].map(|member| key[member].clone());
    assert_eq!(facts(&keys[0]), [json!("RSA"), json!("a"), json!(x5t(RSA_CERTIFICATE))]);
    assert!(keys[0]["notAfterUtc"].as_str().unwrap().starts_with("2036-"), "{made}");
    assert_eq!(facts(&keys[1]), [json!("Ed25519"), Value::Null, Value::Null]);
    assert_eq!(keys[1]["notAfterUtc"], Value::Null);
}

#[test]
fn a_wrong_client_is_refused_by_member() {
    let daemon = daemon();
    let refused = |body: &Value| daemon.local().post(CLIENTS, body.to_string()).expect(400).json();
    let many: Vec<Value> = (0..11).map(|_| json!({"publicKey": P256})).collect();
    for (member, value, pointer) in [
        ("scopes", json!([]), "/scopes"),
        ("scopes", json!(["events:read", "case_integration"]), "/scopes/1"),
        ("id", json!("a:b"), "/id"),
        ("id", json!(""), "/id"),
        ("name", json!("a\nb"), "/name"),
        ("audPolicy", json!("any"), "/audPolicy"),
        ("secret", json!(false), "/secret"),
        ("expires", json!("2026-11-22T10:30:00Z"), "/expires"),
        ("networks", json!(["10.0.0.0/33"]), "/networks/0"),
        ("typePrefixes", json!(["a b"]), "/typePrefixes/0"),
        ("keys", json!(many), "/keys"),
        ("keys", json!([{"publicKey": P256}, {"publicKey": "???"}]), "/keys/1/publicKey"),
        ("keys", json!([{"publicKey": P256, "kid": "a b"}]), "/keys/0/kid"),
    ] {
        let mut body = json!({"scopes": ["admin"]});
        body[member] = value;
        let refused = refused(&body);
        assert_eq!((&refused["code"], &refused["errors"][0]["pointer"]), (&json!("invalid_member"), &json!(pointer)), "{body}");
    }
    for body in [json!({"scopes": ["admin"], "secert": true}), json!({}), json!([])] {
        refused(&body);
    }
    assert_eq!(daemon.local().get(CLIENTS).text(), r#"{"clients":[]}"#);
}

#[test]
fn every_text_that_is_no_public_key_is_refused_with_what_it_is() {
    let daemon = daemon();
    let private = openssl_private_key();
    let both = format!("{P256}{ED25519}");
    let nobodys = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
    let half = &P256[..P256.len() - 40];
    let trailing = {
        use base64::Engine as _;
        let engine = base64::engine::general_purpose::STANDARD;
        engine.encode([super::der(P256), vec![0]].concat())
    };
    let family = "the key must be RSA of 2048 to 8192 bits, ECDSA on P-256, or Ed25519";
    let content = "this is neither an X.509 certificate nor a public key (`SubjectPublicKeyInfo`)";
    let encoding = "the key is neither PEM nor the base64 of DER";
    for (text, reason) in [
        ("", content),
        ("???", encoding),
        ("AAAA", content),
        (nobodys, content),
        (half, encoding),
        (trailing.as_str(), content),
        (private.as_str(), "this is a private key, which nobody else may see; give its public key, and use another pair from now on"),
        (both.as_str(), "the PEM text holds more than one key or certificate; give one at a time"),
        (&"A".repeat(16_385), "the key has more than 16384 bytes"),
        (include_str!("keys/rsa-weak.pub.pem"), family),
        (include_str!("keys/p384.pub.pem"), family),
        (include_str!("keys/ed448.pub.pem"), family),
    ] {
        let body = json!({"scopes": ["admin"], "keys": [{"publicKey": text}]});
        let refused = daemon.local().post(CLIENTS, body.to_string()).expect(400).json();
        assert_eq!(refused["errors"][0], json!({"pointer": "/keys/0/publicKey", "detail": reason}), "{text}");
    }
}

/// A private key as somebody hands it in by mistake.
fn openssl_private_key() -> String {
    use base64::Engine as _;
    let base64 = base64::engine::general_purpose::STANDARD.encode(include_bytes!("keys/ed25519.pkcs8"));
    format!("-----BEGIN PRIVATE KEY-----\n{base64}\n-----END PRIVATE KEY-----\n")
}

#[test]
fn an_id_is_one_clients_and_a_drawn_one_is_a_uuid() {
    let daemon = daemon();
    daemon.company("bolt");
    let drawn = make_client(&daemon, &json!({"scopes": ["events"]}));
    let id = drawn["id"].as_str().unwrap();
    assert!(id.len() == 36 && &id[14..15] == "4", "{id}");
    make_client(&daemon, &json!({"scopes": ["events"], "id": "core"}));
    for company in ["acme", "bolt"] {
        let path = format!("/api/v1/admin/companies/{company}/clients");
        let taken = daemon.local().post(&path, r#"{"scopes":["events"],"id":"core"}"#).expect(409).json();
        assert_eq!((&taken["code"], &taken["errors"][0]["pointer"]), (&json!("id_taken"), &json!("/id")));
    }
    daemon.local().post("/api/v1/admin/companies/nobody/clients", r#"{"scopes":["events"]}"#).expect(404);
}

#[test]
fn another_companys_client_looks_like_none() {
    let daemon = daemon();
    make_client(&daemon, &json!({"scopes": ["events"], "id": "core", "keys": [{"publicKey": P256}], "secret": true}));
    daemon.company("bolt");
    let mut bolt = daemon.client(&daemon.key("bolt", &["admin"]));
    let key = json!({"publicKey": ED25519}).to_string();
    for company in ["acme", "1", "bolt", "2"] {
        let one = format!("/api/v1/admin/companies/{company}/clients/core");
        bolt.get(&one).expect(404);
        bolt.patch(&one, r#"{"name":"mine"}"#).expect(404);
        bolt.delete(&one).expect(404);
        bolt.send(&Request::new("POST", &format!("{one}/rotate-secret"))).expect(404);
        bolt.post(&format!("{one}/keys"), key.clone()).expect(404);
    }
    bolt.get(CLIENTS).expect(404);
    bolt.post(CLIENTS, r#"{"scopes":["events"]}"#).expect(404);
    assert_eq!(bolt.get("/api/v1/admin/companies/bolt/clients").expect(200).text(), r#"{"clients":[]}"#);
    let core = daemon.local().get(&format!("{CLIENTS}/core")).expect(200).json();
    assert_eq!((&core["name"], &core["revokedUtc"], core["keys"].as_array().unwrap().len()), (&json!("unnamed"), &Value::Null, 1));
}

#[test]
fn a_rotated_secret_and_the_one_before_live_together_for_a_day() {
    let daemon = daemon();
    let made = make_client(&daemon, &json!({"scopes": ["events:read"], "id": "core"}));
    let first = made["secret"].as_str().unwrap();
    let rotate = || {
        let path = format!("{CLIENTS}/core/rotate-secret");
        daemon.local().send(&Request::new("POST", &path)).expect(200).json()
    };
    let status = |secret: &str| ask_with_secret(&daemon, "core", secret).status;
    let second = rotate();
    assert_eq!(second["previousExpiresUtc"], "2026-11-23T10:30:00.123456Z");
    let second = second["secret"].as_str().unwrap();
    assert_eq!((status(first), status(second)), (200, 200));
    daemon.clock.advance(Duration::from_secs(86_400));
    assert_eq!((status(first), status(second)), (401, 200));
    // Of three only two live, whatever their time.
    let third = rotate();
    let fourth = rotate();
    let (third, fourth) = (third["secret"].as_str().unwrap(), fourth["secret"].as_str().unwrap());
    assert_eq!((status(second), status(third), status(fourth)), (401, 200, 200));
    let keyed = make_client(&daemon, &json!({"scopes": ["events"], "id": "keyed", "keys": [{"publicKey": P256}]}));
    assert_eq!(keyed["hasSecret"], false);
    let added = daemon.local().send(&Request::new("POST", &format!("{CLIENTS}/keyed/rotate-secret"))).expect(200).json();
    assert_eq!(added["previousExpiresUtc"], Value::Null);
}

#[test]
fn keys_are_bounded_and_the_last_one_stays() {
    let daemon = daemon();
    make_client(&daemon, &json!({"scopes": ["events"], "id": "core", "keys": [{"publicKey": P256}]}));
    let keys = format!("{CLIENTS}/core/keys");
    let mut local = daemon.local();
    let mut add = |key: &str, kid: Option<&str>| {
        let answer = local.post(&keys, json!({"publicKey": key, "kid": kid}).to_string());
        (answer.status, answer.json()["code"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(add(P256, None), (409, "key_known".to_owned()));
    assert_eq!(add(ED25519, Some("a")).0, 201);
    assert_eq!(add(super::RSA, Some("a")), (409, "key_known".to_owned()));
    let shown = daemon.local().get(&format!("{CLIENTS}/core")).json();
    let ids: Vec<&str> = shown["keys"].as_array().unwrap().iter().map(|key| key["id"].as_str().unwrap()).collect();
    let mut local = daemon.local();
    local.delete(&format!("{keys}/{}", ids[0])).expect(204);
    assert_eq!(local.delete(&format!("{keys}/{}", ids[1])).expect(409).json()["code"], "last_key");
    assert_eq!(local.delete(&format!("{keys}/{}", ids[0])).expect(404).json()["code"], "not_found");
}

#[test]
fn what_is_changed_of_a_client_is_changed_and_the_rest_stays() {
    let daemon = daemon();
    make_client(&daemon, &json!({"scopes": ["events:read"], "id": "core", "name": "Core", "expires": "2027-01-01T00:00:00Z"}));
    let path = format!("{CLIENTS}/core");
    let change = |body: &str| {
        let shown = daemon.local().patch(&path, body).expect(200).json();
        ["name", "scopes", "audPolicy", "expiresUtc"].map(|member| shown[member].clone())
    };
    let expires = json!("2027-01-01T00:00:00.000000Z");
    assert_eq!(change("{}"), [json!("Core"), json!(["events:read"]), json!("issuer"), expires.clone()]);
    assert_eq!(
        change(r#"{"audPolicy":"token_endpoint","scopes":["events"]}"#),
        [json!("Core"), json!(["events"]), json!("token_endpoint"), expires]
    );
    assert_eq!(change(r#"{"expires":null,"name":"C"}"#), [json!("C"), json!(["events"]), json!("token_endpoint"), Value::Null]);
    for body in [r#"{"scopes":[]}"#, r#"{"audPolicy":"none"}"#, r#"{"expires":"2020-01-01T00:00:00Z"}"#, r#"{"name":""}"#, r#"{"id":"b"}"#]
    {
        daemon.local().patch(&path, body).expect(400);
    }
}

#[test]
fn a_revoked_client_stays_listed_and_changes_no_more() {
    let mut daemon = daemon();
    let made = make_client(&daemon, &json!({"scopes": ["events:read"], "id": "core"}));
    let secret = made["secret"].as_str().unwrap();
    let path = format!("{CLIENTS}/core");
    for _ in 0..2 {
        daemon.local().delete(&path).expect(204);
    }
    daemon.restart();
    assert_eq!(daemon.local().get(&path).expect(200).json()["revokedUtc"], START);
    assert_eq!(daemon.local().patch(&path, r#"{"name":"again"}"#).expect(409).json()["code"], "client_revoked");
    daemon.local().send(&Request::new("POST", &format!("{path}/rotate-secret"))).expect(409);
    daemon.local().post(&format!("{path}/keys"), json!({"publicKey": P256}).to_string()).expect(409);
    let refused = ask_with_secret(&daemon, "core", secret).expect(401).json();
    assert_eq!(refused["error_description"], "the client was revoked");
}

#[test]
fn each_act_is_written_down_without_a_secret() {
    let daemon = daemon();
    let made = make_client(&daemon, &json!({"scopes": ["events:read"], "id": "core"}));
    let secret = made["secret"].as_str().unwrap();
    token_of(&daemon, "core", secret);
    let mut local = daemon.local();
    let path = format!("{CLIENTS}/core");
    local.patch(&path, r#"{"name":"Core"}"#).expect(200);
    local.patch(&path, r#"{"name":"Core"}"#).expect(200);
    let rotated = local.send(&Request::new("POST", &format!("{path}/rotate-secret"))).expect(200).json();
    let key = local.post(&format!("{path}/keys"), json!({"publicKey": P256}).to_string()).expect(201).json();
    local.delete(&format!("{path}/keys/{}", key["id"].as_str().unwrap())).expect(204);
    local.delete(&path).expect(204);
    local.delete(&path).expect(204);
    let audit = local.get("/api/v1/admin/audit").expect(200);
    let acts: Vec<String> = audit.json()["audit"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| format!("{} {} {}", row["actor"].as_str().unwrap(), row["act"].as_str().unwrap(), row["object"].as_str().unwrap()))
        .collect();
    assert_eq!(
        acts,
        [
            "local client.revoke client:core",
            "local client.key.remove client:core",
            "local client.key.add client:core",
            "local client.rotate_secret client:core",
            "local client.change client:core",
            "lutine token_key.create token_key:2",
            "lutine token_key.create token_key:1",
            "local client.create client:core",
            "local company.create company:1",
        ]
    );
    for hidden in [secret, rotated["secret"].as_str().unwrap()] {
        assert!(!audit.text().contains(hidden));
    }
}

#[test]
fn the_list_says_when_each_client_last_got_a_token() {
    let daemon = daemon();
    let made = make_client(&daemon, &json!({"scopes": ["events:read"], "id": "core"}));
    daemon.clock.advance(Duration::from_secs(3600));
    token_of(&daemon, "core", made["secret"].as_str().unwrap());
    // The note is not waited for, but an act after it is.
    daemon.company("after");
    let used = daemon.local().get(&format!("{CLIENTS}/core")).json()["lastUsedUtc"].clone();
    assert_eq!(used, json!(daemon.clock.text()));
}

#[test]
fn a_client_is_held_to_its_networks_and_its_rate() {
    let daemon = daemon();
    let far = make_client(&daemon, &json!({"scopes": ["events:read"], "id": "far", "networks": ["10.0.0.0/8"]}));
    let refused = ask_with_secret(&daemon, "far", far["secret"].as_str().unwrap()).expect(400).json();
    assert_eq!(refused["error"], "unauthorized_client");
    let busy = make_client(&daemon, &json!({"scopes": ["events:read"], "id": "busy", "rates": {"admin": 2}}));
    let secret = busy["secret"].as_str().unwrap();
    for _ in 0..2 {
        ask_with_secret(&daemon, "busy", secret).expect(200);
    }
    let limited = ask_with_secret(&daemon, "busy", secret).expect(429);
    assert_eq!((&limited.json()["error"], limited.header("retry-after")), (&json!("temporarily_unavailable"), Some("60")));
    // Somebody who only guesses does not use up the client's rate.
    daemon.clock.advance(Duration::from_secs(60));
    for _ in 0..5 {
        ask_with_secret(&daemon, "busy", "evs_wrong").expect(401);
    }
    let by_post = [("grant_type", "client_credentials"), ("client_id", "busy"), ("client_secret", secret)];
    nobody(&daemon).send(&post_form(TOKEN, &by_post)).expect(200);
}
