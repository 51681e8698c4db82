//! One healthy receiver beside many sick ones, all of which want every event.
//!
//! The same processes run, and the same subscriptions exist, when the healthy one is measured alone: what is published
//! then is of a type that the sick do not want.

use std::time::{Duration, Instant};

use super::Bench;
use crate::daemon::{Daemon, Options};
use crate::http::Client;
use crate::paced::{Paced, Published, Seconds};
use crate::report::{Row, Target, mebibytes, micros};
use crate::sick::Sick;
use crate::sink::{Arrival, Sink};
use crate::subscriptions::{act, subscribe};

const SICK: usize = 100;
/// Two thousand attempts a second to the sick, besides the repeats.
const PER_SECOND: u32 = 20;
/// Before it and after it, so that a machine that becomes slower is none of the daemon's doing.
const ALONE: Duration = Duration::from_secs(15);
const TOGETHER: Duration = Duration::from_secs(30);
/// By then the sick are known as such, and what hung at first has run into its time-out.
const SETTLED_AFTER: usize = 5 * PER_SECOND as usize;
const WANTED_BY_ALL: &str = "claim.created";
const WANTED_BY_ONE: &str = "policy.bound";
/// The longest that the last attempts to the sick may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was published and what arrived.
struct Run {
    published: Vec<Published>,
    arrivals: Vec<Arrival>,
}

impl Run {
    /// Publishes at the pace until the healthy receiver has all.
    fn new(daemon: &Daemon, key: &str, sink: &mut Sink, kind: &str, duration: Duration) -> Self {
        sink.take();
        let published = Paced::new(daemon, key, kind, PER_SECOND, duration).run();
        sink.wait_for(published.len() as u64);
        Self { published, arrivals: sink.take() }
    }

    fn to_receive(&self) -> Seconds {
        Seconds::to_receive(&self.published, &self.arrivals)
    }
}

pub fn run(bench: &mut Bench) {
    let (mut sink, sick) = (Sink::start(), Sick::start(SICK));
    let daemon = Daemon::start(&bench.directory("sick"), Options::DEFAULT);
    let key = daemon.make_key();
    let mut client = Client::connect(daemon.address, &key);
    let mut subscribe_sick = |addresses: &[_]| -> Vec<u64> {
        let one = |address| subscribe(&mut client, &format!("http://{address}/"), Some(WANTED_BY_ALL), 16);
        addresses.iter().map(one).collect()
    };
    // The healthy one is neither the first nor the last to have its turn.
    let (first, second) = sick.addresses.split_at(SICK / 2);
    let mut ids = subscribe_sick(first);
    subscribe(&mut Client::connect(daemon.address, &key), &sink.url(), None, 16);
    ids.extend(subscribe_sick(second));

    let cpu = || (daemon.process.cpu(), sick.process().cpu());
    let mut alone = Run::new(&daemon, &key, &mut sink, WANTED_BY_ONE, ALONE);
    let (before, cpu_before) = (daemon.process.resident(), cpu());
    daemon.process.reset_peak();
    let together = Run::new(&daemon, &key, &mut sink, WANTED_BY_ALL, TOGETHER);
    let (peak, after, cpu_after) = (daemon.process.resident_peak(), daemon.process.resident(), cpu());
    for id in ids {
        act(&mut client, id, "pause");
    }
    let paused = Instant::now();
    while daemon.metric("lutine_delivery_attempts_in_flight") != Some(0.0) {
        assert!(paused.elapsed() < PATIENCE, "attempts to paused subscriptions go on for more than {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    let rest = Run::new(&daemon, &key, &mut sink, WANTED_BY_ONE, ALONE);
    alone.published.extend(rest.published);
    alone.arrivals.extend(rest.arrivals);

    let healthy = alone.to_receive();
    let report = &mut bench.report;
    report.add(Row::figure("healthy alone, accepted → received, p50 / p95 / p99", healthy.text()));
    let (first, settled) = together.published.split_at(SETTLED_AFTER);
    for (what, part) in [("the first 5 s", first), ("after that", settled)] {
        let latency = Seconds::to_receive(part, &together.arrivals);
        let ratio = latency.quantile(0.99) / healthy.quantile(0.99);
        let row = Row::figure(format!("beside {SICK} sick, {what}, p50 / p95 / p99 (ratio: p99)"), latency.text());
        report.add(row.beside(healthy.text(), ratio));
    }
    let row = Row::figure("publish beside them, p50 / p95 / p99", Seconds::to_accept(&together.published).text());
    report.add(Row { limit: Seconds::to_accept(&alone.published).text(), ..row });
    let per_event = |cpu: Duration| micros(cpu.as_secs_f64() * 1e6 / together.published.len() as f64);
    report.add(Row::figure("server CPU per event, all its attempts counted in", per_event(cpu_after.0 - cpu_before.0)));
    report.add(Row::figure("CPU of the sick receivers per event", per_event(cpu_after.1 - cpu_before.1)));
    let grown = (peak.saturating_sub(before)) as f64 / 1_048_576.0;
    let row = Row::figure("resident at most / at the end", format!("{} / {}", mebibytes(peak), mebibytes(after)));
    report.add(Row { limit: mebibytes(before), ..row }.must(grown, Target::AtMost(64.0, " MiB more")));
    report.end_section("Sick (hanging, resetting, endless and 100 MB answers; limit: the healthy one alone)");
}
