//! Webhooks to one receiver that is never in the way, against a bare client loop that posts the same bytes to it.

use std::time::Duration;

use serde_json::json;

use super::{Bench, median};
use crate::bare::{self, Bare};
use crate::clock::{now_ns, seconds_between};
use crate::daemon::{Daemon, Options};
use crate::http::Client;
use crate::load::{Expect, Requests, Run, Until};
use crate::paced::{Paced, Seconds};
use crate::report::{Report, Row, Target, count, mebibytes, micros, per_second};
use crate::requests::{Batches, Keyed, ORDER_POINTER, Ordered};
use crate::sink::{Sample, Sink};
use crate::subscriptions::{act, set_in_flight, set_order, subscribe, subscribe_as, subscribe_authorized};

/// Events per request, and connections that publish.
const BATCH: u64 = 100;
const PUBLISHERS: usize = 4;
/// Until everything that came of a drain is written down.
const REST: Duration = Duration::from_millis(200);
/// Every figure of a drain against the bare loop.
const SHARE: Target = Target::AtLeast(0.55, "");
/// Every profile but signatures by RSA against the bare loop.
const PROFILE_SHARE: Target = Target::AtLeast(0.5, "");
const CPU: Target = Target::AtMost(60.0, " µs");

/// A daemon with one receiver.
struct Scene {
    sink: Sink,
    daemon: Daemon,
    key: String,
    client: Client,
}

/// Deliveries in one round, beside the bare loop.
#[derive(Debug, Clone, Copy)]
struct Round {
    /// Deliveries per second, from the first request on.
    rate: f64,
    /// Deliveries per second after the last event was accepted.
    drain_rate: f64,
    cpu_us: f64,
    bare: Bare,
}

impl Scene {
    fn new(bench: &Bench, name: &str) -> Self {
        let directory = bench.directory(name);
        let daemon = Daemon::start(&directory, Options::DEFAULT);
        let key = daemon.make_key();
        let client = Client::connect(daemon.address, &key);
        Self { sink: Sink::start(), daemon, key, client }
    }

    fn subscribe(&mut self, in_flight: usize) -> u64 {
        subscribe(&mut self.client, &self.sink.url(), None, in_flight)
    }

    /// Publishes so many events as fast as it goes.
    fn publish(&self, events: u64) {
        self.publish_as(events, &|| Box::new(Batches::new(&self.key, BATCH, Keyed::All)));
    }

    fn publish_as(&self, events: u64, requests: &dyn Fn() -> Box<dyn Requests>) {
        Run {
            address: self.daemon.address,
            process: &self.daemon.process,
            connections: PUBLISHERS,
            until: Until::Sent(events / BATCH),
            expect: Expect::BatchPatiently,
        }
        .go(requests());
    }

    /// Delivers some, so that connections are open and code is warm; returns one of them.
    fn warm_up(&mut self, per_event: u64) -> Sample {
        self.publish(1_000);
        self.sink.wait_for(1_000 * per_event);
        self.sink.sample()
    }

    /// Publishes while it delivers, until all has come.
    fn round(&mut self, events: u64, per_event: u64, bare: Bare) -> Round {
        self.sink.take();
        let deliveries = events * per_event;
        let (cpu_before, started) = (self.daemon.process.cpu(), now_ns());
        self.publish(events);
        let (accepted, early) = (now_ns(), self.sink.received().count);
        let end = self.sink.wait_for(deliveries);
        std::thread::sleep(REST);
        let cpu = self.daemon.process.cpu() - cpu_before;
        Round {
            rate: end.count as f64 / seconds_between(started, end.last_ns),
            drain_rate: (end.count - early) as f64 / seconds_between(accepted, end.last_ns),
            cpu_us: cpu.as_secs_f64() * 1e6 / end.count as f64,
            bare,
        }
    }
}

fn of(rounds: &[Round], figure: impl Fn(&Round) -> f64) -> f64 {
    median(rounds.iter().map(figure))
}

fn add_rate(report: &mut Report, what: &str, rounds: &[Round], figure: impl Fn(&Round) -> f64, must: Option<Target>) {
    let ratio = of(rounds, |round| figure(round) / round.bare.rate);
    let row = Row::figure(what, per_second(of(rounds, figure))).beside(per_second(of(rounds, |round| round.bare.rate)), ratio);
    report.add(if let Some(target) = must { row.ratio_must(target) } else { row });
}

/// One fast receiver.
pub fn run(bench: &mut Bench) {
    let (rounds, events) = (bench.settings.rounds, bench.settings.deliveries);
    let mut scene = Scene::new(bench, "deliver");
    scene.publish(1_000);
    let cpu_before = scene.daemon.process.cpu();
    scene.publish(events);
    let publish_us = (scene.daemon.process.cpu() - cpu_before).as_secs_f64() * 1e6 / events as f64;
    let id = scene.subscribe(16);
    let sample = scene.warm_up(1);
    for (in_flight, rounds) in [(16, rounds), (64, rounds.min(3))] {
        set_in_flight(&mut scene.client, id, in_flight);
        let mut brought = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            let bare = bare::run(scene.sink.address, &sample, in_flight, bench.settings.round);
            brought.push(scene.round(events, 1, bare));
        }
        let report = &mut bench.report;
        let what = format!("{in_flight} in flight");
        add_rate(report, &format!("{what}, while {PUBLISHERS} connections publish and after"), &brought, |round| round.rate, None);
        add_rate(report, &format!("{what}, after they have published"), &brought, |round| round.drain_rate, Some(SHARE));
        let cpu = of(&brought, |round| round.cpu_us);
        report.add(Row::figure(format!("{what}, server CPU per event, published and delivered"), micros(cpu)));
        let bare = of(&brought, |round| round.bare.cpu_us);
        let row = Row::figure(format!("{what}, server CPU per event, without that of publishing alone"), micros(cpu - publish_us));
        report.add(row.beside(micros(bare), (cpu - publish_us) / bare).must(cpu - publish_us, CPU));
    }
    for (per_second, most) in [(50, None), (200, Some(Target::AtMost(1.0, " ms"))), (1_000, None)] {
        scene.sink.take();
        let cpu_before = scene.daemon.process.cpu();
        let published = Paced::new(&scene.daemon, &scene.key, "claim.created", per_second, Duration::from_secs(4)).run();
        scene.sink.wait_for(published.len() as u64);
        std::thread::sleep(REST);
        let cpu = (scene.daemon.process.cpu() - cpu_before).as_secs_f64() * 1e6 / published.len() as f64;
        let arrivals = scene.sink.take();
        let latency = Seconds::to_receive(&published, &arrivals);
        let row = Row::figure(format!("paced {per_second}/s, accepted → received, p50 / p95 / p99"), latency.text());
        bench.report.add(if let Some(most) = most { row.must(latency.quantile(0.5) * 1e3, most) } else { row });
        let publishing = Seconds::to_accept(&published).text();
        bench.report.add(Row::figure(format!("paced {per_second}/s, publish, p50 / p95 / p99"), publishing));
        bench.report.add(Row::figure(format!("paced {per_second}/s, server CPU per event, published and delivered"), micros(cpu)));
    }
    bench.report.add(Row::figure("resident at the end", mebibytes(scene.daemon.process.resident())));
    run_authorized(bench);
    bench.report.end_section("Deliver (1 KiB to one receiver; limit: bare hyper client to the same)");
}

/// The same to a receiver that wants an access token of 800 bytes; the bare loop sends one as well.
fn run_authorized(bench: &mut Bench) {
    let (rounds, events) = (bench.settings.rounds.min(3), bench.settings.deliveries);
    let mut scene = Scene::new(bench, "authorized");
    subscribe_authorized(&mut scene.client, &scene.sink.url(), &scene.sink.token_url(), 16);
    let sample = scene.warm_up(1);
    let mut brought = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let bare = bare::run(scene.sink.address, &sample, 16, bench.settings.round);
        brought.push(scene.round(events, 1, bare));
    }
    let report = &mut bench.report;
    add_rate(report, "OAuth2, 16 in flight, after they have published", &brought, |round| round.drain_rate, Some(SHARE));
    let cpu = of(&brought, |round| round.cpu_us);
    report.add(Row::figure("OAuth2, 16 in flight, server CPU per event, published and delivered", micros(cpu)));
}

/// Every profile and every other body to one fast receiver.
pub fn run_profiles(bench: &mut Bench) {
    const IN_FLIGHT: usize = 64;
    let none = json!({"kind": "none"});
    let profiles = [
        ("standard", json!({}), Some(PROFILE_SHARE)),
        ("envelope", json!({"profile": "envelope"}), Some(PROFILE_SHARE)),
        ("signed-envelope", json!({"profile": "signed-envelope"}), Some(PROFILE_SHARE)),
        ("signed-envelope, RSA", json!({"profile": "signed-envelope", "overrides": {"signature": "body-rsa-sha256"}}), None),
        ("cloudevents, structured", json!({"profile": "cloudevents", "auth": none}), Some(PROFILE_SHARE)),
        (
            "cloudevents, binary",
            json!({"profile": "cloudevents", "auth": none, "overrides": {"body": "cloudevents-binary"}}),
            Some(PROFILE_SHARE),
        ),
        (
            "cloudevents, batch",
            json!({"profile": "cloudevents", "auth": none, "overrides": {"body": "cloudevents-batch"}}),
            Some(PROFILE_SHARE),
        ),
        ("reference", json!({"profile": "reference"}), Some(PROFILE_SHARE)),
        ("bridge", json!({"profile": "bridge", "auth": none}), Some(PROFILE_SHARE)),
    ];
    let (rounds, events) = (bench.settings.rounds.min(3), bench.settings.deliveries);
    for (place, (name, wishes, must)) in profiles.into_iter().enumerate() {
        let mut scene = Scene::new(bench, &format!("profile{place}"));
        subscribe_as(&mut scene.client, &scene.sink.url(), &wishes, IN_FLIGHT);
        let sample = scene.warm_up(1);
        let mut brought = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            let bare = bare::run(scene.sink.address, &sample, IN_FLIGHT, bench.settings.round);
            brought.push(scene.round(events, 1, bare));
        }
        let report = &mut bench.report;
        add_rate(report, name, &brought, |round| round.drain_rate, must);
        let (cpu, bare) = (of(&brought, |round| round.cpu_us), of(&brought, |round| round.bare.cpu_us));
        let row = Row::figure(format!("{name}, server CPU per event, published and delivered"), micros(cpu));
        report.add(row.beside(micros(bare), cpu / bare));
    }
    bench.report.end_section("Profiles (1 KiB to one receiver, 64 in flight; limit: bare hyper client that posts the same)");
}

/// One event to many subscriptions.
pub fn run_fanout(bench: &mut Bench) {
    let rounds = bench.settings.rounds.min(3);
    for subscriptions in [10, 100] {
        let mut scene = Scene::new(bench, &format!("fanout{subscriptions}"));
        for _ in 0..subscriptions {
            scene.subscribe(16);
        }
        let sample = scene.warm_up(subscriptions);
        let events = (bench.settings.deliveries / subscriptions).next_multiple_of(BATCH);
        let mut brought = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            let bare = bare::run(scene.sink.address, &sample, 64, bench.settings.round);
            brought.push(scene.round(events, subscriptions, bare));
        }
        let report = &mut bench.report;
        let what = format!("{} events to {subscriptions} subscriptions", count(events as f64));
        add_rate(report, &format!("{what}, deliveries"), &brought, |round| round.rate, None);
        let (cpu, bare) = (of(&brought, |round| round.cpu_us), of(&brought, |round| round.bare.cpu_us));
        let row = Row::figure(format!("{what}, server CPU per delivery"), micros(cpu)).beside(micros(bare), cpu / bare);
        report.add(row.must(cpu, CPU));
        report.add(Row::figure(format!("{what}, resident at the end"), mebibytes(scene.daemon.process.resident())));
    }
    bench.report.end_section("Fan-out (1 KiB to many subscriptions at one receiver; limit: 64 bare hyper connections)");
}

/// Order by key beside no order: the same events, of many keys and of few, after a pause.
pub fn run_order(bench: &mut Bench) {
    let (rounds, events) = (bench.settings.rounds.min(3), bench.settings.deliveries);
    for values in [10_000, 100] {
        let mut scene = Scene::new(bench, &format!("order{values}"));
        let id = scene.subscribe(16);
        scene.warm_up(1);
        let mut rates = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            for (rates, pointer) in rates.iter_mut().zip([None, Some(ORDER_POINTER)]) {
                set_order(&mut scene.client, id, pointer);
                act(&mut scene.client, id, "pause");
                scene.sink.take();
                scene.publish_as(events, &|| Box::new(Ordered::new(&scene.key, BATCH, values)));
                std::thread::sleep(REST);
                let resumed = now_ns();
                act(&mut scene.client, id, "resume");
                let end = scene.sink.wait_for(events);
                std::thread::sleep(REST);
                rates.push(end.count as f64 / seconds_between(resumed, end.last_ns));
            }
        }
        let [parallel, keyed] = rates.map(|rates| median(rates.into_iter()));
        let what = format!("{} events of {} keys in order by key, 16 in flight", count(events as f64), count(values as f64));
        let row = Row::figure(what, per_second(keyed)).beside(per_second(parallel), keyed / parallel);
        bench.report.add(if values == 10_000 { row.ratio_must(Target::AtLeast(0.5, "")) } else { row });
    }
    bench.report.end_section("Order by key (1 KiB to one receiver; limit: the same in no order)");
}

/// What was published while a subscription was paused.
pub fn run_backlog(bench: &mut Bench) {
    let (rounds, events) = (bench.settings.rounds, bench.settings.deliveries);
    let mut scene = Scene::new(bench, "backlog");
    let id = scene.subscribe(16);
    let sample = scene.warm_up(1);
    let mut brought = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let bare = bare::run(scene.sink.address, &sample, 16, bench.settings.round);
        act(&mut scene.client, id, "pause");
        scene.sink.take();
        scene.publish(events);
        std::thread::sleep(REST);
        let (cpu_before, resumed) = (scene.daemon.process.cpu(), now_ns());
        act(&mut scene.client, id, "resume");
        let end = scene.sink.wait_for(events);
        std::thread::sleep(REST);
        let cpu = scene.daemon.process.cpu() - cpu_before;
        let rate = end.count as f64 / seconds_between(resumed, end.last_ns);
        brought.push(Round { rate, drain_rate: rate, cpu_us: cpu.as_secs_f64() * 1e6 / end.count as f64, bare });
    }
    let report = &mut bench.report;
    let what = format!("{} events after a pause, 16 in flight", count(events as f64));
    add_rate(report, &what, &brought, |round| round.rate, Some(SHARE));
    let (cpu, bare) = (of(&brought, |round| round.cpu_us), of(&brought, |round| round.bare.cpu_us));
    let row = Row::figure(format!("{what}, server CPU per delivery"), micros(cpu)).beside(micros(bare), cpu / bare);
    report.add(row.must(cpu, CPU));
    report.add(Row::figure("resident at the end", mebibytes(scene.daemon.process.resident())));
    bench.report.end_section("Backlog (1 KiB to one receiver; limit: bare hyper client to the same)");
}
