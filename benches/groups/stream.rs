//! Many open streams: what one costs, and how long an event takes to reach all of them.

use std::time::{Duration, Instant};

use super::{Bench, Contestant, contest, median};
use crate::daemon::{Daemon, Options};
use crate::http::{Client, post_head};
use crate::load::Expect;
use crate::report::{Row, Target, count, micros, millis, per_second};
use crate::requests::Publish;
use crate::streams::Streams;

/// Connections that publish what the streams do not want.
const CONNECTIONS: usize = 64;
/// Events that are sent to all streams, one after the other.
const EVENTS: usize = 20;
const KIND: &str = "stream.event";

pub fn run(bench: &mut Bench) {
    let many = bench.settings.streams;
    let bare = Daemon::start(&bench.directory("streams0"), Options::DEFAULT);
    let bare_key = bare.make_key();
    let full = Daemon::start(&bench.directory("streams"), Options::DEFAULT);
    let key = full.make_key();
    let mut client = Client::connect(full.address, &key);
    // The store's own memory is there before it is measured what streams add.
    let other = r#"{"type":"other.event","payload":{}}"#;
    let other = post_head("/api/v1/events", &key, "application/json", other.len()) + other;
    for _ in 0..200 {
        client.send(other.as_bytes(), 201);
    }
    let before = full.process.resident();
    let started = Instant::now();
    let streams = Streams::open(full.address, &key, KIND, many);
    let opened = started.elapsed();
    let name = count(many as f64);
    bench.report.add(Row::figure(format!("{name} streams opened, in {}", millis(opened)), per_second(many as f64 / opened.as_secs_f64())));
    let each = full.process.resident().saturating_sub(before) as f64 / many as f64 / 1024.0;
    let row = Row::figure(format!("resident, each of {name} streams"), format!("{each:.1} KiB"));
    bench.report.add(row.must(each, Target::AtMost(20.0, " KiB")));

    let body = format!(r#"{{"type":"{KIND}","payload":{{"text":"{}"}}}}"#, "x".repeat(900));
    let request = post_head("/api/v1/events", &key, "application/json", body.len()) + &body;
    let cpu_before = full.process.cpu();
    let mut last: Vec<f64> = Vec::with_capacity(EVENTS);
    for number in 1..=EVENTS {
        let began = Instant::now();
        client.send(request.as_bytes(), 201);
        streams.wait_for((number * many) as u64);
        last.push(began.elapsed().as_secs_f64());
    }
    let cpu = full.process.cpu() - cpu_before;
    let worst = last.iter().copied().fold(0.0, f64::max);
    let text = [median(last.iter().copied()), worst].map(|seconds| millis(Duration::from_secs_f64(seconds))).join(" / ");
    let row = Row::figure(format!("sent → read by the last of {name} streams, p50 / worst of {EVENTS}"), text);
    bench.report.add(row.must(worst, Target::AtMost(1.0, " s")));
    let per_event = cpu.as_secs_f64() * 1e6 / (EVENTS * many) as f64;
    bench.report.add(Row::figure("the same, server CPU per event and stream", micros(per_event)));
    let each = full.process.resident().saturating_sub(before) as f64 / many as f64 / 1024.0;
    let row = Row::figure(format!("resident after these events, each of {name} streams"), format!("{each:.1} KiB"));
    bench.report.add(row.must(each, Target::AtMost(20.0, " KiB")));

    let published = Expect::Status(201);
    let [none, thousands] = contest(
        &bench.settings,
        CONNECTIONS,
        [Contestant::daemon(&bare, published, || Publish::new(&bare_key)), Contestant::daemon(&full, published, || Publish::new(&key))],
    );
    let what = format!("publish at {CONNECTIONS} beside {name} streams that want nothing of it, of none");
    let row = Row::figure(what, per_second(thousands.rate())).beside(per_second(none.rate()), thousands.rate_to(&none));
    bench.report.add(row.ratio_must(Target::AtLeast(0.85, "")));
    assert_eq!(streams.open_ones(), many, "no stream has ended meanwhile");
    bench.report.end_section("Streams (limit: a daemon without any)");
}
