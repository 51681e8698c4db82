//! One healthy receiver beside many sick ones, all of which want every event.

use std::time::Duration;

use super::Bench;
use crate::daemon::{Daemon, Options};
use crate::http::Client;
use crate::paced::{Paced, Published, Seconds};
use crate::report::{Row, Target, mebibytes, micros};
use crate::sick::Sick;
use crate::sink::{Arrival, Sink};
use crate::subscriptions::subscribe;

const SICK: usize = 100;
/// Two thousand attempts a second to the sick, besides the repeats.
const PER_SECOND: u32 = 20;
const ALONE: Duration = Duration::from_secs(10);
const TOGETHER: Duration = Duration::from_secs(25);
/// By then the sick are known as such, and what hung at first has run into its time-out.
const SETTLED_AFTER: usize = 5 * PER_SECOND as usize;

pub fn run(bench: &mut Bench) {
    let mut sink = Sink::start();
    let daemon = Daemon::start(&bench.directory("sick"), Options::DEFAULT);
    let key = daemon.make_key();
    let mut client = Client::connect(daemon.address, &key);
    subscribe(&mut client, &sink.url(), None, 16);
    let (alone, arrivals, cpu_alone) = publish(&daemon, &key, &mut sink, ALONE);
    let healthy = Seconds::to_receive(&alone, &arrivals);
    let before = daemon.process.resident();

    let sick = Sick::start(SICK);
    for address in &sick.addresses {
        subscribe(&mut client, &format!("http://{address}/"), None, 16);
    }
    daemon.process.reset_peak();
    let (together, arrivals, cpu_together) = publish(&daemon, &key, &mut sink, TOGETHER);
    let (peak, after) = (daemon.process.resident_peak(), daemon.process.resident());
    let (first, settled) = together.split_at(SETTLED_AFTER);
    let report = &mut bench.report;
    report.add(Row::figure("healthy alone, accepted → received, p50 / p95 / p99", healthy.text()));
    for (what, part) in [("the first 5 s", first), ("after that", settled)] {
        let latency = Seconds::to_receive(part, &arrivals);
        let ratio = latency.quantile(0.99) / healthy.quantile(0.99);
        let row = Row::figure(format!("beside {SICK} sick, {what}, p50 / p95 / p99 (ratio: p99)"), latency.text());
        report.add(row.beside(healthy.text(), ratio));
    }
    let row = Row::figure("publish beside them, p50 / p95 / p99", Seconds::to_accept(&together).text());
    report.add(Row { limit: Seconds::to_accept(&alone).text(), ..row });
    report.add(Row { limit: micros(cpu_alone), ..Row::figure("server CPU per event, all its attempts counted in", micros(cpu_together)) });
    let grown = (peak.saturating_sub(before)) as f64 / 1_048_576.0;
    let row = Row::figure("resident at most / at the end", format!("{} / {}", mebibytes(peak), mebibytes(after)));
    report.add(Row { limit: mebibytes(before), ..row }.must(grown, Target::AtMost(64.0, " MiB more")));
    report.end_section("Sick (hanging, resetting, endless and 100 MB answers; limit: the healthy one alone)");
}

/// Publishes at the pace until the healthy receiver has all; the last figure is the server's time per event in microseconds.
fn publish(daemon: &Daemon, key: &str, sink: &mut Sink, duration: Duration) -> (Vec<Published>, Vec<Arrival>, f64) {
    sink.take();
    let cpu_before = daemon.process.cpu();
    let published = Paced::new(daemon, key, "claim.created", PER_SECOND, duration).run();
    sink.wait_for(published.len() as u64);
    let cpu = (daemon.process.cpu() - cpu_before).as_secs_f64() * 1e6 / published.len() as f64;
    (published, sink.take(), cpu)
}
