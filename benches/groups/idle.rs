//! Many subscriptions that want nothing of what is published, and a hundred among them that want all of it.

use std::time::Duration;

use super::{Bench, Contestant, contest, median};
use crate::daemon::{Daemon, Options};
use crate::http::Client;
use crate::load::{Expect, Run, Until};
use crate::paced::{Paced, Published, Seconds};
use crate::report::{Row, Target, count, mebibytes, micros, millis, per_second};
use crate::requests::Publish;
use crate::sink::Sink;
use crate::subscriptions::{Idle, subscribe};

/// Connections that publish, and that create subscriptions.
const CONNECTIONS: usize = 64;
const MATCHING: usize = 100;
const MATCHING_TYPE: &str = "matching.event";
/// Events for the matching ones: a few thousand deliveries per second.
const PER_SECOND: u32 = 40;
const PACED: Duration = Duration::from_secs(3);

pub fn run(bench: &mut Bench) {
    let many = bench.settings.subscriptions;
    let (bare, bare_key) = fill(bench, 0);
    let (few, few_key) = fill(bench, 100);
    let (full, full_key) = fill(bench, many);
    let published = Expect::Status(201);
    let [none, hundred, thousands] = contest(
        &bench.settings,
        CONNECTIONS,
        [
            Contestant::daemon(&bare, published, || Publish::new(&bare_key)),
            Contestant::daemon(&few, published, || Publish::new(&few_key)),
            Contestant::daemon(&full, published, || Publish::new(&full_key)),
        ],
    );
    for (subscriptions, series) in [(100, &hundred), (many, &thousands)] {
        let what = format!("publish at {CONNECTIONS}, {} idle subscriptions, of none", count(subscriptions as f64));
        let row = Row::figure(what, per_second(series.rate())).beside(per_second(none.rate()), series.rate_to(&none));
        bench.report.add(row.ratio_must(Target::AtLeast(0.9, "")));
    }
    drop(few);
    among_them(bench, &bare, &bare_key, full, &full_key);
    bench.report.end_section("Idle subscriptions (limit: a daemon without any)");
}

/// A daemon with so many idle subscriptions.
fn fill(bench: &mut Bench, subscriptions: u64) -> (Daemon, String) {
    let daemon = Daemon::start(&bench.directory(&format!("idle{subscriptions}")), Options::DEFAULT);
    let key = daemon.make_key();
    if subscriptions > 0 {
        let created = Run {
            address: daemon.address,
            process: &daemon.process,
            connections: CONNECTIONS,
            until: Until::Sent(subscriptions),
            expect: Expect::Status(201),
        }
        .go(Box::new(Idle::new(&key)));
        let what =
            format!("{} subscriptions created at {CONNECTIONS} connections, in {}", count(subscriptions as f64), millis(created.elapsed));
        bench.report.add(Row::figure(what, per_second(created.rate())));
    }
    (daemon, key)
}

/// Adds those that match, starts anew, and publishes to them.
fn among_them(bench: &mut Bench, bare: &Daemon, bare_key: &str, full: Daemon, key: &str) {
    let mut sink = Sink::start();
    let mut client = Client::connect(full.address, key);
    for _ in 0..MATCHING {
        subscribe(&mut client, &sink.url(), Some(MATCHING_TYPE), 16);
    }
    drop(client);
    let full = full.restart(Options::DEFAULT);
    let all = format!("{} subscriptions", count((bench.settings.subscriptions + MATCHING as u64) as f64));
    let ready_after = full.ready_after;
    let row = Row::figure(format!("ready after SIGTERM, {all}"), millis(ready_after));
    bench.report.add(row.must(ready_after.as_secs_f64(), Target::AtMost(5.0, " s")));
    std::thread::sleep(Duration::from_secs(1));
    bench.report.add(Row::figure(format!("resident after the start, {all}"), mebibytes(full.process.resident())));

    let (mut alone, mut beside): (Vec<Published>, Vec<Published>) = (Vec::new(), Vec::new());
    let (mut ratios, mut cpu) = (Vec::new(), Duration::ZERO);
    for _ in 0..bench.settings.rounds.min(3) {
        sink.take();
        let of_none = Paced::new(bare, bare_key, MATCHING_TYPE, PER_SECOND, PACED).run();
        let cpu_before = full.process.cpu();
        let of_all = Paced::new(&full, key, MATCHING_TYPE, PER_SECOND, PACED).run();
        sink.wait_for((of_all.len() * MATCHING) as u64);
        cpu += full.process.cpu() - cpu_before;
        ratios.push(Seconds::to_accept(&of_all).quantile(0.99) / Seconds::to_accept(&of_none).quantile(0.99));
        alone.extend(of_none);
        beside.extend(of_all);
    }
    let row = Row::figure(format!("publish {PER_SECOND}/s to {MATCHING} of {all}, p50 / p95 / p99"), Seconds::to_accept(&beside).text());
    bench.report.add(row.beside(Seconds::to_accept(&alone).text(), median(ratios.into_iter())).ratio_must(Target::AtMost(1.5, " × p99")));
    let per_delivery = cpu.as_secs_f64() * 1e6 / (beside.len() * MATCHING) as f64;
    bench.report.add(Row::figure("the same, server CPU per delivery", micros(per_delivery)));
    let resident = full.process.resident();
    let row = Row::figure(format!("resident at the end, {all}"), mebibytes(resident));
    bench.report.add(row.must(resident as f64 / 1_048_576.0, Target::AtMost(600.0, " MiB")));
}
