//! `lutine sink` and `lutine listen`: webhooks on a developer's machine.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::support::http::{Answer, Connection, Request};
use crate::support::real::{RealDaemon, ask, data_dir, lutine};
use crate::{Running, bare};

const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const OTHER_SECRET: &str = "whsec_ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";
const BODY: &str = r#"{"type":"claim.created","timestamp":"2026-11-22T10:30:00Z","data":{}}"#;

/// A sink on a free port, and where it listens.
fn sink(arguments: &[&str]) -> (Running, SocketAddr) {
    let sink = Running::start(bare(&[&["sink", "--port", "0", "--output", "json"], arguments].concat()));
    let address = sink.note("lutine sink listening on http://").parse().unwrap();
    (sink, address)
}

/// A webhook as Standard Webhooks 1.0.0 has it, signed with another implementation than the binary's own.
fn webhook(id: &str, secret: &str, body: &str) -> Request {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{id}.{seconds}.{body}").as_bytes());
    Request::post("/hooks", body)
        .header("webhook-id", id)
        .header("webhook-timestamp", &seconds.to_string())
        .header("webhook-signature", &format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

fn send(address: SocketAddr, request: &Request) -> Option<Answer> {
    let mut connection = Connection::open(address);
    assert!(connection.send(&request.bytes()));
    connection.answer()
}

#[test]
fn a_sink_tells_a_right_signature_from_a_wrong_one() {
    let (mut sink, address) = sink(&["--secret", OTHER_SECRET, "--secret", SECRET, "--count", "4"]);
    assert_eq!(send(address, &webhook("evt_1_1", SECRET, BODY)).unwrap().status, 204);
    let first = sink.json();
    assert_eq!((&first["id"], &first["type"], &first["verified"]), (&json!("evt_1_1"), &json!("claim.created"), &json!(true)));
    assert_eq!((&first["bytes"], &first["answer"]), (&json!(BODY.len()), &json!("204")));

    let stranger = "whsec_QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=";
    assert_eq!(send(address, &webhook("evt_2_1", stranger, BODY)).unwrap().status, 401);
    let second = sink.json();
    assert_eq!((&second["verified"], &second["reason"]), (&json!(false), &json!("no signature of the webhook matches")));

    assert_eq!(send(address, &Request::post("/", BODY)).unwrap().status, 401);
    let unsigned = "the webhook has no signature, neither in the header webhook-signature nor inside its body";
    assert_eq!(sink.json()["reason"], unsigned);

    assert_eq!(send(address, &webhook("evt_3_1", OTHER_SECRET, BODY)).unwrap().status, 204);
    assert_eq!(sink.json()["verified"], true);
    assert!(sink.wait().success(), "it ends after --count");
}

#[test]
fn a_sink_without_a_secret_takes_everything_and_says_so() {
    let (sink, address) = sink(&[]);
    assert_eq!(send(address, &Request::post("/", "not JSON")).unwrap().status, 204);
    let line = sink.json();
    assert_eq!((&line["verified"], &line["type"], &line["id"]), (&Value::Null, &Value::Null, &Value::Null));
}

#[test]
fn a_sink_answers_in_turn_for_each_webhook() {
    let (sink, address) = sink(&["--answer", "500,429,drop,204"]);
    let statuses =
        |id: &str| -> Vec<Option<u16>> { (0..5).map(|_| send(address, &webhook(id, SECRET, BODY)).map(|answer| answer.status)).collect() };
    assert_eq!(statuses("evt_1_1"), [Some(500), Some(429), None, Some(204), Some(204)]);
    let second = send(address, &webhook("evt_2_1", SECRET, BODY)).unwrap();
    assert_eq!(second.status, 500);
    let again = send(address, &webhook("evt_2_1", SECRET, BODY)).unwrap();
    assert_eq!((again.status, again.header("retry-after")), (429, Some("1")));
    let attempts: Vec<Value> = (0..7).map(|_| sink.json()["attempt"].clone()).collect();
    assert_eq!(attempts, [1, 2, 3, 4, 5, 1, 2]);
}

#[test]
fn a_sink_refuses_what_is_no_webhook() {
    let (sink, address) = sink(&[]);
    assert_eq!(send(address, &Request::get("/")).unwrap().status, 405);
    let large = "x".repeat(1024 * 1024 + 1);
    assert_eq!(send(address, &webhook("evt_1_1", SECRET, &large)).unwrap().status, 413);
    let line = sink.json();
    assert_eq!((&line["answer"], &line["bytes"]), (&json!("413"), &json!(0)));
    sink.interrupt();
}

#[test]
fn ctrl_c_ends_a_sink_in_order() {
    let (mut sink, _) = sink(&[]);
    sink.interrupt();
    assert!(sink.wait().success());
}

#[test]
fn what_is_published_while_one_listens_is_forwarded_signed_over_a_restart() {
    let (_folder, data_dir) = data_dir();
    ask(&data_dir, &["company", "create", "--slug", "acme"]);
    let (sink, address) = sink(&["--secret", SECRET]);
    let daemon = RealDaemon::start(&data_dir, &[]);
    ask(&data_dir, &["trigger", "claim.created"]);
    let url = format!("http://{address}/hooks");
    let listen = ["listen", "--forward-to", &url, "--types", "claim.*", "--secret", SECRET, "--output", "json"];
    let mut listen = Running::start(lutine(&data_dir, &listen));
    listen.note("forwarding to ");
    ask(&data_dir, &["trigger", "policy.bound"]);
    let closed = ask(&data_dir, &["trigger", "claim.closed"]);
    let line = listen.json();
    assert_eq!((&line["id"], &line["type"], &line["status"]), (&closed["id"], &json!("claim.closed"), &json!(204)));
    daemon.kill();
    let daemon = RealDaemon::start(&data_dir, &[]);
    let settled = ask(&data_dir, &["trigger", "claim.settled"]);
    assert_eq!(listen.json()["id"], settled["id"]);
    for id in [&closed["id"], &settled["id"]] {
        let received = sink.json();
        assert_eq!((&received["id"], &received["verified"]), (&json!(format!("evt_{id}_0")), &json!(true)));
    }
    listen.interrupt();
    assert!(listen.wait().success());
    drop(daemon);
}

#[test]
fn nothing_is_forwarded_to_other_machines() {
    let (_folder, data_dir) = data_dir();
    ask(&data_dir, &["company", "create", "--slug", "acme"]);
    let _daemon = RealDaemon::start(&data_dir, &[]);
    for url in ["http://10.0.0.1/hooks", "https://8.8.8.8/hooks", "http://169.254.169.254/"] {
        let mut listen = Running::start(lutine(&data_dir, &["listen", "--forward-to", url]));
        assert_eq!(listen.wait().code(), Some(2), "{url}");
    }
}
