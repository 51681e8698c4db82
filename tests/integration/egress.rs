//! Where webhooks may go and with which tokens and certificates, as a customer and an operator meet it.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

use crate::support::daemon::TestDaemon;
use crate::support::http::{SUBSCRIPTIONS, at, problem};
use crate::support::real::{ask, data_dir, run};
use crate::support::receiver::{Receiver, Reply};

const CHECK: &str = "/api/v1/admin/egress/check";
const URL: &str = "https://partner.example/hooks";

fn auth(more: &Value) -> Value {
    let mut auth = json!({"kind": "oauth2_client_credentials", "tokenUrl": "https://id.example/token", "clientId": "lutine"});
    auth.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"url": URL, "types": ["claim.*"], "profile": "standard", "auth": auth})
}

#[test]
fn tokens_urls_and_keys_are_checked_when_a_subscription_is_made() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let metadata = "169.254.169.254 is not allowed: it is link-local or a metadata service, which is never sent to";
    let private = "10.0.0.1 is not allowed: it is private and in none of the networks of egress.allow";
    let key = "the private key is no PEM of PKCS#8, PKCS#1 or SEC1 without a password";
    for (more, code, pointer, detail) in [
        (json!({"clientSecret": "s", "tokenUrl": "http://0xa9fea9fe/"}), "invalid_url", "/auth/tokenUrl", metadata),
        (json!({"clientSecret": "s", "tokenUrl": "https://10.0.0.1/"}), "invalid_url", "/auth/tokenUrl", private),
        (json!({"clientSecret": "s", "tokenUrl": "ftp://a.example/"}), "invalid_url", "/auth/tokenUrl", "the URL must begin with https://"),
        (json!({"privateKey": "hush"}), "invalid_member", "/auth/privateKey", key),
    ] {
        let answer = acme.post(SUBSCRIPTIONS, auth(&more).to_string()).expect(400);
        assert_eq!(answer.problem(), problem("400 Bad Request", code, SUBSCRIPTIONS, detail, &at(pointer, detail)), "{more}");
    }
    for right in [json!({"clientSecret": "s"}), json!({"privateKey": KeyPair::generate().unwrap().serialize_pem()})] {
        let made = acme.post(SUBSCRIPTIONS, auth(&right).to_string()).expect(201).json();
        let secret = made["auth"].get("privateKey").or(made["auth"].get("clientSecret"));
        assert_eq!(secret.unwrap(), "***");
    }
    let daemon = TestDaemon::with(|config| config.egress.allow_http = false);
    let mut acme = daemon.subscriber();
    let detail = "the URL must begin with https://, because egress.allow_http is false";
    let answer = acme.post(SUBSCRIPTIONS, auth(&json!({"clientSecret": "s", "tokenUrl": "http://id.example/"})).to_string()).expect(400);
    assert_eq!(answer.problem(), problem("400 Bad Request", "invalid_url", SUBSCRIPTIONS, detail, &at("/auth/tokenUrl", detail)));
}

#[test]
fn a_kept_secret_does_not_go_to_another_token_service() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    acme.post(SUBSCRIPTIONS, auth(&json!({"clientSecret": "s"})).to_string()).expect(201);
    let change = |more: Value| json!({"auth": auth(&more)["auth"]}).to_string();
    acme.patch(&format!("{SUBSCRIPTIONS}/1"), change(json!({"clientSecret": "***", "scope": "a"}))).expect(200);
    let answer = acme.patch(&format!("{SUBSCRIPTIONS}/1"), change(json!({"clientSecret": "***", "tokenUrl": "https://other.example/"})));
    assert_eq!(answer.expect(400).json()["errors"][0]["pointer"], "/auth/clientSecret");
}

#[test]
fn certificates_are_checked_when_a_subscription_is_made() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let certificate = CertificateParams::new(vec!["lutine.test".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let (key, other) = (key.serialize_pem(), other.serialize_pem());
    for (overrides, pointer, detail) in [
        (json!({"caBundle": broken}), "/overrides/caBundle", "caBundle holds a certificate that cannot be read"),
        (
            json!({"clientCertificate": certificate, "clientKey": other}),
            "/overrides/clientKey",
            "clientKey does not belong to the first certificate of clientCertificate",
        ),
        (
            json!({"clientCertificate": broken, "clientKey": key}),
            "/overrides/clientCertificate",
            "clientCertificate begins with a certificate that cannot be read",
        ),
    ] {
        let body = json!({"url": URL, "types": ["*"], "profile": "standard", "overrides": overrides});
        let answer = acme.post(SUBSCRIPTIONS, body.to_string()).expect(400);
        assert_eq!(answer.problem(), problem("400 Bad Request", "invalid_member", SUBSCRIPTIONS, detail, &at(pointer, detail)));
    }
    let overrides = json!({"caBundle": certificate, "clientCertificate": certificate, "clientKey": key});
    let made = acme.post(SUBSCRIPTIONS, json!({"url": URL, "types": ["*"], "profile": "standard", "overrides": overrides}).to_string());
    assert_eq!(made.expect(201).json()["overrides"]["clientKey"], "***");
}

#[test]
fn an_outage_of_a_token_service_uses_up_retries_sends_nothing_and_ends_with_the_delivery() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.subscriber();
    let receiver = Receiver::willing();
    let service = Receiver::new(|call| match call.number {
        0 => Reply::Status(503),
        _ => Reply::Full(200, "", r#"{"access_token":"token-token","expires_in":3600}"#.to_owned()),
    });
    let auth = json!({"kind": "oauth2_client_credentials", "tokenUrl": service.url(), "clientId": "c", "clientSecret": "hush-hush"});
    let overrides = json!({"retryScheduleSeconds": [60, 60]});
    acme.subscribe(&receiver.url(), &json!({"types": ["claim.*"], "auth": auth, "overrides": overrides}));
    let event = acme.publish(r#"{"type":"claim.created"}"#);
    let attempts = |acme: &mut crate::support::http::Client| acme.delivery(1, event)["attempts"].as_array().unwrap().clone();
    daemon.wait("the first attempt", || attempts(&mut acme).len() == 1);
    let first = attempts(&mut acme)[0].clone();
    assert_eq!((&first["errorClass"], &first["status"]), (&json!("token"), &Value::Null), "{first}");
    assert_eq!(first["error"], "the token service answered 503");
    assert_eq!(receiver.count(), 0);
    daemon.clock.advance(Duration::from_secs(70));
    daemon.wait("the delivery", || acme.delivery_state(1, event) == "delivered");
    assert_eq!((service.count(), receiver.count()), (2, 1));
    assert_eq!(receiver.hooks()[0].header("authorization"), "Bearer token-token");
    assert_eq!(daemon.metric("lutine_token_requests_total{outcome=\"unavailable\"}"), 1);
    assert_eq!(daemon.metric("lutine_token_requests_total{outcome=\"issued\"}"), 1);
    let told = acme.get(&format!("/api/v1/deliveries/1-{event}")).expect(200);
    assert!(!told.text().contains("hush") && !told.text().contains("token-token"), "{}", told.text());
}

/// A proxy that leads every tunnel to `port` of this machine.
fn proxy_to(port: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        while let Ok((client, _)) = listener.accept() {
            std::thread::spawn(move || -> std::io::Result<()> {
                let mut head = BufReader::with_capacity(1, &client);
                let mut line = String::new();
                while head.read_line(&mut line)? > 2 {
                    line.clear();
                }
                let (mut receiver, mut there, mut back) =
                    (TcpStream::connect(("127.0.0.1", port))?, client.try_clone()?, client.try_clone()?);
                back.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
                let mut answers = receiver.try_clone()?;
                std::thread::spawn(move || std::io::copy(&mut answers, &mut back).ok());
                std::io::copy(&mut there, &mut receiver)?;
                Ok(())
            });
        }
    });
    own
}

#[test]
fn what_answered_through_a_proxy_is_shown_to_administrators_only() {
    let receiver = Receiver::new(|_| Reply::Full(500, "", "inside".to_owned()));
    let proxy = proxy_to(receiver.address.port());
    let daemon = TestDaemon::with(|config| config.egress.proxy = Some(("127.0.0.1".to_owned(), proxy)));
    let mut acme = daemon.subscriber();
    acme.subscribe("http://partner.example/hooks", &json!({"types": ["claim.*"]}));
    let event = acme.publish(r#"{"type":"claim.created"}"#);
    daemon.wait("an attempt", || acme.delivery(1, event)["attempts"].as_array().is_some_and(|attempts| attempts.len() == 1));
    let attempt = |client: &mut crate::support::http::Client| client.delivery(1, event)["attempts"][0].clone();
    let seen = attempt(&mut acme);
    assert_eq!((&seen["status"], &seen["excerpt"], &seen["address"]), (&json!(500), &Value::Null, &Value::Null), "{seen}");
    let mut admin = daemon.client(&daemon.key("acme", &["admin"]));
    assert_eq!(attempt(&mut admin)["excerpt"], "inside");
}

#[test]
fn the_operator_asks_which_rule_decides_and_nobody_else_does() {
    let receiver = Receiver::willing();
    let daemon = TestDaemon::with(|config| config.egress.allow = vec!["10.20.0.0/16".parse().unwrap()]);
    let mut local = daemon.local();
    let mut check = |url: &str, connect: bool| local.post(CHECK, json!({"url": url, "connect": connect}).to_string()).expect(200);
    let allowed = check("https://10.20.1.1/", false);
    let expected = concat!(
        r#"{"url":"https://10.20.1.1/","allowed":true,"refusal":null,"way":"direct","proxy":null,"bypass":null,"#,
        r#""addresses":[{"address":"10.20.1.1","allowed":true,"rule":"it is in 10.20.0.0/16 of egress.allow"}],"connection":null}"#
    );
    assert_eq!(allowed.text(), expected);
    let refused = check("https://169.254.169.254/", true).json();
    assert_eq!((&refused["allowed"], &refused["connection"]), (&json!(false), &Value::Null));
    let rule = "it is link-local or a metadata service, which is never sent to";
    assert_eq!(refused["addresses"], json!([{"address": "169.254.169.254", "allowed": false, "rule": rule}]));
    let reached = check(&receiver.url(), true).json();
    let expected =
        json!({"ok": true, "address": "127.0.0.1", "tls": null, "certificateExpiresUtc": null, "errorClass": null, "error": null});
    assert_eq!((&reached["allowed"], &reached["connection"]), (&json!(true), &expected));
    let clear = check(&receiver.url().replace("http:", "https:").replace(&receiver.address.port().to_string(), "1"), true).json();
    assert_eq!(clear["connection"]["errorClass"], "connect");
    assert_eq!(check("ftp://a.example/", false).json()["refusal"], "the URL must begin with https://");
    assert_eq!(receiver.count(), 0);
    let mut admin = daemon.client(&daemon.system_key());
    assert_eq!(admin.post(CHECK, "{}").expect(403).json()["code"], "only_local");
}

#[test]
fn the_command_tells_the_verdict_with_its_exit_code() {
    let (_folder, data_dir) = data_dir();
    ask(&data_dir, &["company", "create", "--slug", "acme"]);
    let allowed = ask(&data_dir, &["egress", "check", "https://8.8.8.8/hooks"]);
    assert_eq!((&allowed["allowed"], &allowed["way"]), (&json!(true), &json!("direct")));
    let refused = run(&data_dir, &["egress", "check", "https://10.0.0.1/hooks", "--output", "table"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stdout).unwrap();
    assert!(said.contains("verdict  refused") && said.contains("it is private and in none of the networks of egress.allow"), "{said}");
}

#[test]
fn a_proxy_that_is_written_wrongly_is_named_with_its_line() {
    let (folder, data_dir) = data_dir();
    let path = folder.path().join("lutine.toml");
    let text =
        "environment = \"development\"\n[egress]\nproxy = \"http://name:word@proxy:3128\"\nproxy_bypass = [\"*.internal\", \"a b\"]\n";
    std::fs::write(&path, text).unwrap();
    let output = run(&data_dir, &["config", "check", "--config", path.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains(":3: egress.proxy: must be an address such as"), "{said}");
    assert!(said.contains(":4: egress.proxy_bypass: ") && said.contains("`a b` is neither a host"), "{said}");
    let text = "environment = \"development\"\n[egress]\nproxy = \"http://proxy:3128\"\nproxy_credentials_file = \"nowhere\"\n";
    std::fs::write(&path, text).unwrap();
    let output = run(&data_dir, &["config", "check", "--config", path.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(78) && said.contains("egress.proxy_credentials_file: nowhere cannot be read"), "{said}");
}
