//! The binary as its operator meets it.

use rustix::process::Signal;
use serde_json::Value;

use crate::support::http::Client;
use crate::support::real::{RealDaemon, ask, data_dir, run};

#[test]
fn config_check_reports_every_mistake_with_its_line_and_the_nearest_key() {
    let (folder, data_dir) = data_dir();
    let path = folder.path().join("lutine.toml");
    std::fs::write(&path, "[server]\nlissten = \"127.0.0.1:0\"\n\n[retention]\ndays = 0\n").unwrap();
    let path = path.to_str().unwrap();
    let output = run(&data_dir, &["config", "check", "--config", path]);
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    for (start, hint) in [(format!("{path}:2: server.lissten: "), "did you mean"), (format!("{path}:5: retention.days: "), "above 0")] {
        let line = said.lines().find(|line| line.starts_with(&start));
        assert!(line.is_some_and(|line| line.contains(hint)), "{start} in {said}");
    }
    assert!(said.contains("server.listen") || said.contains("`listen`"), "{said}");
    assert_eq!(run(&data_dir, &["serve", "--config", path]).status.code(), Some(78));
}

#[test]
fn a_daemon_serves_stops_in_order_and_leaves_a_whole_store() {
    let (_folder, data_dir) = data_dir();
    let mut daemon = RealDaemon::start(&data_dir, &[]);
    ask(&data_dir, &["company", "create", "--slug", "acme"]);
    let made = ask(&data_dir, &["key", "create", "--company", "acme", "--scope", "events:write", "--scope", "events:read"]);
    let mut acme = Client::new(daemon.address, made["key"].as_str().unwrap());
    acme.publish(r#"{"type":"claim.created"}"#);
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().success());
    assert!(!data_dir.join("lutine.sock").exists());
    let report = ask(&data_dir, &["verify"]);
    assert_eq!((&report["ok"], &report["events"]), (&Value::from(true), &Value::from(1)), "{report}");
}

#[test]
fn a_second_daemon_on_the_same_directory_is_refused_and_harms_nothing() {
    let (_folder, data_dir) = data_dir();
    let daemon = RealDaemon::start(&data_dir, &[]);
    let second = run(&data_dir, &["serve"]);
    assert_eq!(second.status.code(), Some(1), "{}", String::from_utf8_lossy(&second.stderr));
    Client::new(daemon.address, "").get("/readyz").expect(200);
    ask(&data_dir, &["company", "create", "--slug", "acme"]);
}
