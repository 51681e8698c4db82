//! Bytes on disk that are not those that were written: named, never served, and nothing else is lost.

use serde_json::{Value, json};

use crate::support::daemon::TestDaemon;
use crate::support::http::Request;

#[test]
fn a_damaged_chunk_is_named_and_everything_else_is_served() {
    let mut daemon = TestDaemon::with(|config| config.log_store.segment_bytes_max = 16 * 1024);
    let mut acme = daemon.acme();
    for number in 1..=40 {
        let payload = format!("\"marker-{number}-{}\"", "x".repeat(2_000));
        acme.publish_patiently(&json!({"type": "a", "payload": payload}).to_string());
    }
    daemon.wait_until_sealed();
    daemon.stop();
    let path = daemon.data_dir().join("log/1.sealed.redb");
    let mut content = std::fs::read(&path).unwrap();
    let place = content.windows(9).position(|window| window == b"marker-2-").expect("the second event is in the first segment");
    content[place + 20] ^= 1;
    std::fs::write(&path, content).unwrap();
    daemon.restart();

    let mut acme = daemon.client(acme.key());
    let damaged = acme.get("/api/v1/events/2").expect(500).json();
    assert_eq!((&damaged["code"], &damaged["segment"]), (&json!("corrupt"), &json!(1)), "{damaged}");
    let first = damaged["firstId"].as_u64().unwrap();
    assert!(first <= 2, "{damaged}");
    assert_eq!(acme.get("/api/v1/events").expect(500).json()["code"], "corrupt");
    assert_eq!(acme.get("/api/v1/events/40").expect(200).json()["id"], 40);
    let newest: Vec<u64> = acme.ids("?order=desc&limit=5");
    assert_eq!(newest, [40, 39, 38, 37, 36]);
    assert_eq!(acme.publish_patiently(r#"{"type":"a"}"#), 41);
    let report = daemon.local().send(&Request::new("POST", "/api/v1/admin/verify")).expect(200).json();
    assert_eq!(report["ok"], Value::from(false), "{report}");
}
