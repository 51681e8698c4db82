//! A machine whose clock is wrong: the log's time never goes back, and never leaps over the retention.

use std::time::Duration;

use crate::support::clock::START;
use crate::support::daemon::TestDaemon;

fn created(client: &mut crate::support::http::Client) -> String {
    let answer = client.post("/api/v1/events", r#"{"type":"a"}"#).expect(201).json();
    answer["createdUtc"].as_str().unwrap().to_owned()
}

#[test]
fn the_time_of_the_log_never_goes_back_also_after_a_restart() {
    let mut daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    assert_eq!(created(&mut acme), START);
    daemon.clock.set_wall("2026-11-22T09:00:00Z");
    assert_eq!(created(&mut acme), START);
    daemon.restart();
    let mut acme = daemon.client(acme.key());
    assert_eq!(created(&mut acme), START);
    assert_eq!(acme.ids(""), [1, 2, 3]);
    assert_eq!(acme.walk("", 1).len(), 3);
}

#[test]
fn a_clock_that_leaps_ahead_expires_nothing() {
    let mut daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    acme.publish(r#"{"type":"a"}"#);
    daemon.clock.set_wall("2027-01-22T10:30:00Z");
    daemon.clock.advance(Duration::from_secs(1));
    assert_eq!(acme.ids(""), [1]);
    assert!(created(&mut acme).starts_with("2026-11-22T"));
    assert_eq!(daemon.status()["clockInDoubt"], true);
    daemon.restart();
    let mut acme = daemon.client(acme.key());
    assert_eq!(acme.ids(""), [1, 2]);
    assert_eq!(daemon.status()["clockInDoubt"], true);
}
