//! Kills of a daemon that delivers in order by key while one key is stuck: the others pass, the stuck one keeps its order.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::deliveries::bound;
use crate::support::daemon::ALL_HOOKS;
use crate::support::http::{Client, Request};
use crate::support::real::{RealDaemon, ask, data_dir};
use crate::support::receiver::{Hook, Receiver, Reply};
use crate::support::wait_until;

const KEYS: u64 = 20;
const EVENTS: u64 = 1_000;
const STUCK: u64 = 7;
/// How many of the other events have arrived when the process is killed.
const KILLS_AT: [usize; 4] = [100, 350, 600, 900];

fn key_of(hook: &Hook) -> u64 {
    hook.json()["data"]["key"].as_u64().unwrap()
}

/// The events of a key in the order in which they first came.
fn firsts(hooks: &[Hook], key: u64) -> Vec<u64> {
    let mut seen = HashSet::new();
    hooks.iter().filter(|hook| key_of(hook) == key).map(Hook::event).filter(|event| seen.insert(*event)).collect()
}

#[test]
fn a_stuck_key_keeps_its_order_over_kills_and_the_others_pass() {
    let (_folder, data_dir) = data_dir();
    let heals = Arc::new(AtomicBool::new(false));
    let healed = Arc::clone(&heals);
    let receiver = Receiver::new(move |hook| {
        let is_stuck = key_of(hook) == STUCK && !healed.load(Ordering::SeqCst);
        // Slow enough that outcomes are written down between two kills.
        if is_stuck { Reply::Status(500) } else { Reply::Slow(Duration::from_millis(20), 204) }
    });
    let mut daemon = RealDaemon::start(&data_dir, &[]);
    ask(&data_dir, &["company", "create", "--slug", "acme"]);
    let scopes = ALL_HOOKS.iter().flat_map(|scope| ["--scope", scope]);
    let arguments: Vec<&str> = ["key", "create", "--company", "acme"].into_iter().chain(scopes).collect();
    let key = ask(&data_dir, &arguments)["key"].as_str().unwrap().to_owned();
    let mut client = Client::new(daemon.address, &key);
    // The stuck key is tried again every two seconds, for as long as the test may take.
    let overrides = json!({"retryScheduleSeconds": vec![2; 30]});
    client.subscribe(&receiver.url(), &json!({"ordering": "key", "orderingKey": "/key", "overrides": overrides}));
    client.act(1, "pause").expect(200);
    let mut ids: HashMap<u64, Vec<u64>> = HashMap::new();
    for number in (0..EVENTS).step_by(500) {
        let events: Vec<Value> = (number..number + 500).map(|number| json!({"type": "a", "payload": {"key": number % KEYS}})).collect();
        let answer = client.send_patiently(&Request::post("/api/v1/events/batch", json!(events).to_string())).expect(200).json();
        for (result, number) in answer["results"].as_array().unwrap().iter().zip(number..) {
            ids.entry(number % KEYS).or_default().push(result["id"].as_u64().unwrap());
        }
    }
    client.act(1, "resume").expect(200);

    let others =
        |receiver: &Receiver| receiver.hooks().iter().filter(|hook| key_of(hook) != STUCK).map(Hook::event).collect::<HashSet<u64>>().len();
    let mut kills = Vec::new();
    for count in KILLS_AT {
        wait_until("the others", || others(&receiver) >= count);
        daemon.kill();
        kills.push(Instant::now());
        daemon = RealDaemon::start(&data_dir, &[]);
    }
    let of_others = (EVENTS - EVENTS / KEYS) as usize;
    wait_until("all of the others", || others(&receiver) == of_others);
    assert_eq!(firsts(&receiver.hooks(), STUCK), ids[&STUCK][..1], "nothing passes what is stuck");
    // With what is held written down, once more.
    let mut client = Client::new(daemon.address, &key);
    let last = *ids[&STUCK].last().unwrap();
    wait_until("the record of what is held", || client.delivery(1, last)["reason"].is_string());
    daemon.kill();
    kills.push(Instant::now());
    heals.store(true, Ordering::SeqCst);
    let _daemon = RealDaemon::start(&data_dir, &[]);
    wait_until("everything", || firsts(&receiver.hooks(), STUCK).len() == ids[&STUCK].len());

    let hooks = receiver.hooks();
    for (key, ids) in &ids {
        assert_eq!(&firsts(&hooks, *key), ids, "key {key}");
    }
    let taken = hooks.iter().filter(|hook| key_of(hook) != STUCK).count();
    let repeats = taken - of_others;
    let bound = bound(&hooks, &kills);
    println!("{EVENTS} events of {KEYS} keys over {} kills: {repeats} repeats, at most {bound}", kills.len());
    assert!(repeats <= bound, "{repeats} repeats, at most {bound}");
}
