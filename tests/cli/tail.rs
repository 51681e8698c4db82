//! `lutine event tail` over the death of its daemon.

use serde_json::Value;

use crate::Running;
use crate::support::real::{RealDaemon, ask, data_dir, lutine};

const EVENTS: usize = 5;

#[test]
fn a_tail_over_a_sigkill_loses_nothing_and_repeats_nothing() {
    let (_folder, data_dir) = data_dir();
    let daemon = RealDaemon::start(&data_dir, &[]);
    ask(&data_dir, &["company", "create", "--slug", "acme"]);
    let publish = || ask(&data_dir, &["event", "publish", "--type", "claim.created"])["id"].clone();
    let mut published: Vec<Value> = (0..EVENTS).map(|_| publish()).collect();
    let mut tail = Running::start(lutine(&data_dir, &["event", "tail", "--from", "oldest", "--output", "json"]));
    let mut seen: Vec<Value> = (0..EVENTS).map(|_| tail.json()["id"].clone()).collect();
    // Acknowledged just before the end: whether the tail has seen it by then is chance, that it sees it is not.
    published.push(publish());
    daemon.kill();
    // On a stopped daemon, while the tail asks in vain.
    published.push(publish());
    let daemon = RealDaemon::start(&data_dir, &[]);
    published.extend((0..EVENTS).map(|_| publish()));
    seen.extend((0..EVENTS + 2).map(|_| tail.json()["id"].clone()));
    assert_eq!(seen, published);
    tail.interrupt();
    assert!(tail.wait().success());
    assert!(tail.lines.recv().is_err(), "nothing comes twice");
    drop(daemon);
}
