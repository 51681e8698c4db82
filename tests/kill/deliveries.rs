//! Kills while webhooks are under way: every event arrives, order holds, and little arrives twice.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::daemon::ALL_HOOKS;
use crate::support::http::{Client, Request};
use crate::support::real::{RealDaemon, ask, data_dir};
use crate::support::receiver::{Hook, Receiver, Reply};
use crate::support::wait_until;

const KILLS: usize = 20;
/// Outcomes that are in memory only, for at most so long.
const RECORD_AFTER: Duration = Duration::from_millis(100);
/// And so many of one subscription are under way at most.
const IN_FLIGHT_MAX: usize = 16;

/// Publishes until the daemon goes away; the ids that were acknowledged.
fn publish(client: &mut Client, is_over: &AtomicBool) -> Vec<u64> {
    let mut ids = Vec::new();
    while !is_over.load(Ordering::SeqCst) {
        let events: Vec<Value> = (0..5).map(|number| json!({"type": "a", "payload": {"number": number}})).collect();
        let Some(answer) = client.try_send(&Request::post("/api/v1/events/batch", json!(events).to_string())) else { return ids };
        assert_eq!(answer.status, 200, "{answer:?}");
        ids.extend(answer.json()["results"].as_array().unwrap().iter().filter_map(|result| result["id"].as_u64()));
        std::thread::sleep(Duration::from_millis(2));
    }
    ids
}

/// The company `acme`, and a key that publishes and subscribes for it.
fn subscriber(data_dir: &Path) -> String {
    ask(data_dir, &["company", "create", "--slug", "acme"]);
    let scopes = ALL_HOOKS.iter().flat_map(|scope| ["--scope", scope]);
    let arguments: Vec<&str> = ["key", "create", "--company", "acme"].into_iter().chain(scopes).collect();
    ask(data_dir, &arguments)["key"].as_str().unwrap().to_owned()
}

/// How many different events have arrived.
fn distinct(receiver: &Receiver) -> usize {
    receiver.events().into_iter().collect::<HashSet<u64>>().len()
}

/// The webhooks that may come again after these kills: those under way, and those whose outcome was not on disk yet.
pub fn bound(hooks: &[Hook], kills: &[Instant]) -> usize {
    // The commit itself takes some time, too.
    let span = RECORD_AFTER * 2;
    let unrecorded = |kill: &Instant| hooks.iter().filter(|hook| hook.at <= *kill && *kill - hook.at <= span).count();
    kills.iter().map(|kill| IN_FLIGHT_MAX + unrecorded(kill)).sum()
}

/// How often a webhook came again although the receiver had said that it has it.
fn repeats(hooks: &[Hook], accepts: impl Fn(&Hook) -> bool) -> usize {
    let mut had = HashSet::new();
    hooks.iter().filter(|hook| if accepts(hook) { !had.insert(hook.event()) } else { had.contains(&hook.event()) }).count()
}

#[test]
fn twenty_kills_during_deliveries_lose_nothing_and_keep_the_order() {
    let (_folder, data_dir) = data_dir();
    let settings = [("LUTINE_LOG_STORE__SEGMENT_BYTES_MAX", "65536")];
    let steady = Receiver::willing();
    let failing = Receiver::new(|hook| Reply::Status(if hook.number % 2 == 0 { 500 } else { 204 }));
    let strict = Receiver::willing();
    let mut daemon = RealDaemon::start(&data_dir, &settings);
    let key = subscriber(&data_dir);
    let mut client = Client::new(daemon.address, &key);
    client.subscribe(&steady.url(), &json!({}));
    client.subscribe(&failing.url(), &json!({"overrides": {"retryScheduleSeconds": vec![0.2; 30]}}));
    client.subscribe(&strict.url(), &json!({"ordering": "strict"}));

    let (mut acknowledged, mut first_again, mut kills, mut killed_at) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..KILLS {
        let is_over = AtomicBool::new(false);
        let mut client = Client::new(daemon.address, &key);
        std::thread::scope(|scope| {
            let publisher = scope.spawn(|| publish(&mut client, &is_over));
            let target = distinct(&steady) + 20 + round * 53 % 300;
            wait_until("webhooks", || distinct(&steady) >= target);
            daemon.kill();
            killed_at.push(Instant::now());
            is_over.store(true, Ordering::SeqCst);
            acknowledged.extend(publisher.join().unwrap());
        });
        // What was on its way when the process died has arrived by now.
        std::thread::sleep(Duration::from_millis(30));
        kills.push(strict.count());
        let before = steady.count() + failing.count() + strict.count();
        daemon = RealDaemon::start(&data_dir, &settings);
        let ready = Instant::now();
        wait_until("a webhook after the start", || steady.count() + failing.count() + strict.count() > before);
        first_again.push(ready.elapsed());
    }

    let everywhere = || {
        [&steady, &failing, &strict].into_iter().all(|receiver| {
            let had: HashSet<u64> = receiver.events().into_iter().collect();
            acknowledged.iter().all(|event| had.contains(event))
        })
    };
    wait_until("every acknowledged event at every receiver", everywhere);
    let accepts = |hook: &Hook| hook.number % 2 == 1;
    wait_until("every acknowledged event taken by the one that fails", || {
        let had: HashSet<u64> = failing.hooks().iter().filter(|hook| accepts(hook)).map(Hook::event).collect();
        acknowledged.iter().all(|event| had.contains(event))
    });

    // In order but for the repeats behind a kill, which go on in order from where they begin.
    let events = strict.events();
    let back: Vec<usize> = (1..events.len()).filter(|place| events[*place] < events[*place - 1]).collect();
    assert!(back.iter().all(|place| kills.contains(place)), "back at {back:?}, kills at {kills:?}");
    let mut newest = 0;
    let same = (1..events.len()).filter(|place| events[*place] == events[*place - 1] && !kills.contains(place)).count();
    assert_eq!(same, 0, "an event twice in a row without a kill");
    for event in &events {
        assert!(*event <= newest + 1 || !acknowledged.contains(&(newest + 1)), "{event} came before {}", newest + 1);
        newest = newest.max(*event);
    }

    let mut report = HashMap::new();
    for (name, receiver, repeated) in [
        ("steady", &steady, repeats(&steady.hooks(), |_| true)),
        ("failing", &failing, repeats(&failing.hooks(), accepts)),
        ("strict", &strict, repeats(&strict.hooks(), |_| true)),
    ] {
        let bound = bound(&receiver.hooks(), &killed_at);
        report.insert(name, (receiver.count(), repeated, bound));
        assert!(repeated <= bound, "{name}: {repeated} repeats, at most {bound}");
    }
    let worst = first_again.iter().max().unwrap();
    println!("{} events acknowledged; webhooks, repeats over {KILLS} kills, bound: {report:?}", acknowledged.len());
    println!("first webhook after the ready line: {worst:?} at worst of {first_again:?}");
    assert!(*worst < Duration::from_secs(1), "{first_again:?}");
}

/// Webhooks that are answered before the rest is kept waiting.
const ANSWERED: usize = 300;
/// What was published during the pause.
const PAUSED: u64 = 1_000;

/// A receiver that answers so many webhooks, and then none until the gate is opened.
fn gated(gate: &Arc<AtomicBool>) -> Receiver {
    let gate = Arc::clone(gate);
    Receiver::new(move |hook| {
        wait_until("the gate", || hook.number < ANSWERED || gate.load(Ordering::SeqCst));
        Reply::Status(204)
    })
}

#[test]
fn a_kill_while_a_pause_is_made_up_for_repeats_only_what_was_in_flight() {
    let (_folder, data_dir) = data_dir();
    let gate = Arc::default();
    let (parallel, strict) = (gated(&gate), gated(&gate));
    let daemon = RealDaemon::start(&data_dir, &[]);
    let key = subscriber(&data_dir);
    let mut client = Client::new(daemon.address, &key);
    client.subscribe(&parallel.url(), &json!({"maxInFlight": IN_FLIGHT_MAX}));
    client.subscribe(&strict.url(), &json!({"ordering": "strict"}));
    for id in [1, 2] {
        client.act(id, "pause").expect(200);
    }
    let events: Vec<Value> = (0..PAUSED).map(|number| json!({"type": "a", "payload": {"number": number}})).collect();
    client.send(&Request::post("/api/v1/events/batch", json!(events).to_string())).expect(200);
    assert_eq!((parallel.count(), strict.count()), (0, 0), "sent during the pause");
    for id in [1, 2] {
        client.act(id, "resume").expect(200);
    }

    // In the middle of it, once what was answered is on disk: from then on only what waits at the gate is open.
    wait_until("all that may be in flight", || parallel.count() == ANSWERED + IN_FLIGHT_MAX && strict.count() == ANSWERED + 1);
    let in_flight: HashSet<u64> = parallel.hooks()[ANSWERED..].iter().map(Hook::event).collect();
    let answered: Vec<u64> = parallel.events()[..ANSWERED].to_vec();
    wait_until("the records", || {
        let is_settled = |client: &mut Client, id, event| client.delivery_state(id, event) == "delivered";
        answered.iter().all(|event| is_settled(&mut client, 1, *event)) && is_settled(&mut client, 2, ANSWERED as u64)
    });
    daemon.kill();
    gate.store(true, Ordering::SeqCst);

    let daemon = RealDaemon::start(&data_dir, &[]);
    let (parallel_total, strict_total) = (PAUSED as usize + in_flight.len(), PAUSED as usize + 1);
    wait_until("everything", || parallel.count() >= parallel_total && strict.count() >= strict_total);
    // Whatever would come twice comes before these.
    let mut client = Client::new(daemon.address, &key);
    let last = client.publish(r#"{"type":"a"}"#);
    for id in [1, 2] {
        wait_until("the last one", || client.delivery_state(id, last) == "delivered");
        wait_until("no backlog", || client.subscription(id)["backlog"]["events"] == 0);
    }
    let all: Vec<u64> = (1..=last).collect();
    let mut once = parallel.events();
    let mut repeated: HashSet<u64> = HashSet::new();
    let mut had = HashSet::new();
    once.retain(|event| had.insert(*event) || !repeated.insert(*event));
    once.sort_unstable();
    assert_eq!(once, all, "each event, and none more than twice");
    assert_eq!(repeated, in_flight, "only what was in flight is sent again");
    let blocked = ANSWERED as u64 + 1;
    let in_order: Vec<u64> = (1..=blocked).chain(blocked..=last).collect();
    assert_eq!(strict.events(), in_order);
    println!("{} of {PAUSED} were open at the kill, {} in flight", PAUSED as usize - ANSWERED, in_flight.len() + 1);
}
