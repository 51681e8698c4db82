//! The limits alone: what this machine's HTTP and disk give when nothing is stored. Needs no daemon.

use super::{Bench, Contestant, Series, contest};
use crate::disk;
use crate::load::Expect;
use crate::null::Null;
use crate::report::{Row, megabytes_per_second, micros, millis, per_second};
use crate::requests::{Batches, Gets, Keyed, Publish};

pub fn run(bench: &mut Bench) {
    let page = vec![b' '; 64 * 1024];
    let null = Null::start(bench.root(), &page);
    for connections in [1, 64, 256] {
        let publish = Contestant::new(null.address, &null.process, Expect::Status(201), || Publish::new("none"));
        let [series] = contest(&bench.settings, connections, [publish]);
        add(bench, &format!("null, publish at {connections}"), &series);
    }
    let batch = Contestant::new(null.address, &null.process, Expect::Status(201), || Batches::new("none", 100, Keyed::Half));
    let [series] = contest(&bench.settings, 16, [batch]);
    add(bench, "null, batch of 100 at 16", &series);
    let gets = Gets::in_order("none", ["/page".to_owned()]);
    let [series] = contest(&bench.settings, 32, [Contestant::new(null.address, &null.process, Expect::Status(200), || gets.clone())]);
    add(bench, "null, 64 KiB at 32", &series);
    for batch in [1, 32, 128] {
        let rate = disk::append_rate(bench.root(), batch, bench.settings.round);
        bench.report.add(limit(format!("append-only file, one fdatasync per {batch} KiB"), per_second(rate)));
    }
    let rate = disk::sequential_rate(bench.root(), 256 * 1024 * 1024);
    bench.report.add(limit("file of 256 MiB, one fdatasync".to_owned(), megabytes_per_second(rate)));
    bench.report.end_section("Limits of this machine");
}

fn add(bench: &mut Bench, what: &str, series: &Series) {
    bench.report.add(limit(format!("{what}, requests"), per_second(series.rate())));
    bench.report.add(limit(format!("{what}, server CPU"), micros(series.cpu_us())));
    let latencies = [0.5, 0.99].map(|share| millis(series.latency(share)));
    bench.report.add(limit(format!("{what}, p50 / p99"), latencies.join(" / ")));
}

fn limit(what: String, figure: String) -> Row {
    Row { what, limit: figure, ..Row::default() }
}
