//! Durable publishing of 1 KiB with everything on, against the null server and the append-only file.

use std::path::Path;

use super::{Bench, Contestant, Series, add_against_null, contest, median};
use crate::daemon::{Daemon, Options};
use crate::disk::{self, allocated};
use crate::load::Expect;
use crate::null::Null;
use crate::report::{Report, Row, Target, count, mebibytes, micros, millis, per_second};
use crate::requests::{Batches, Keyed, Publish};
use crate::settings::Settings;

const PUBLISHED: Expect = Expect::Status(201);
/// Small enough that a few seconds of publishing seal several of them.
const SMALL_SEGMENT: u64 = 32 * 1024 * 1024;
/// Events per request of the batch bench.
const BATCH: u64 = 100;

pub fn run(bench: &mut Bench) {
    let null = Null::start(bench.root(), b"{}");
    at_default_segments(bench, &null);
    while_sealing(bench, &null);
    with_many_stored(bench);
    bench.report.end_section("Publish (1 KiB, durable, a dedupe key on half; limit: null server)");
}

fn at_default_segments(bench: &mut Bench, null: &Null) {
    let directory = bench.directory("publish");
    let daemon = Daemon::start(&directory, Options::DEFAULT);
    let key = daemon.make_key();
    for connections in [1, 64, 256] {
        let [limit, lutine] = against_null(&bench.settings, connections, null, &daemon, &key);
        let what = if connections == 1 { "1 connection".to_owned() } else { format!("{connections} connections") };
        add_lines(&mut bench.report, &what, connections, [&lutine, &limit]);
        // Half of the connections wait for the running commit, the other half fill the next one.
        let batch = (connections / 2).max(1);
        let file = append_rate(&bench.settings, bench.root(), batch);
        let row = Row::figure(format!("{what}, of an append-only file, one fdatasync per {batch} KiB"), per_second(lutine.rate()));
        bench.report.add(row.beside(per_second(file), lutine.rate() / file));
    }
    let batches = || Batches::new(&key, BATCH, Keyed::Half);
    let [limit, lutine] = contest(
        &bench.settings,
        16,
        [Contestant::new(null.address, &null.process, PUBLISHED, batches), Contestant::daemon(&daemon, Expect::Batch, batches)],
    );
    let scale = BATCH as f64;
    let row = Row::figure("batches of 100 at 16 connections, events", per_second(lutine.rate() * scale));
    bench.report.add(row.beside(per_second(limit.rate() * scale), lutine.rate_to(&limit)));
    let row = Row::figure("batches of 100 at 16 connections, server CPU per event", micros(lutine.cpu_us() / scale));
    bench.report.add(row.beside(micros(limit.cpu_us() / scale), lutine.cpu_to(&limit)));
    discard(daemon, &directory);
}

fn while_sealing(bench: &mut Bench, null: &Null) {
    let directory = bench.directory("sealing");
    let daemon = Daemon::start(&directory, Options::with_segments_of(SMALL_SEGMENT));
    let key = daemon.make_key();
    daemon.process.reset_peak();
    for connections in [64, 256] {
        let [limit, lutine] = against_null(&bench.settings, connections, null, &daemon, &key);
        let what = format!("{connections} connections, sealing");
        add_lines(&mut bench.report, &what, connections, [&lutine, &limit]);
    }
    add_peak(&mut bench.report, "resident at most, sealing", daemon.process.resident_peak());
    assert!(daemon.wait_until_sealed(), "sealing does not catch up");
    let sealed = daemon.log_files().sealed;
    let bytes = sealed.iter().map(|path| allocated(path)).sum();
    let row = Row::figure("segments sealed meanwhile", format!("{} ({})", sealed.len(), mebibytes(bytes)));
    bench.report.add(row.must(sealed.len() as f64, Target::AtLeast(3.0, "")));
    discard(daemon, &directory);
}

fn with_many_stored(bench: &mut Bench) {
    bench.prepare(false);
    let directory = bench.directory("empty");
    let large = bench.large();
    let daemon = Daemon::start(&directory, large.options);
    let key = daemon.make_key();
    large.daemon.process.reset_peak();
    let mut rows = Vec::new();
    for connections in [64, 256] {
        let [empty, stored] = contest(
            &bench.settings,
            connections,
            [
                Contestant::daemon(&daemon, PUBLISHED, || Publish::new(&key)),
                Contestant::daemon(&large.daemon, PUBLISHED, || Publish::new(&large.key)),
            ],
        );
        let stored_events = count(large.events as f64);
        let row =
            Row::figure(format!("{connections} connections, {stored_events} keyed events stored, of empty"), per_second(stored.rate()));
        rows.push(row.beside(per_second(empty.rate()), stored.rate_to(&empty)).ratio_must(Target::AtLeast(0.9, "")));
    }
    for row in rows {
        bench.report.add(row);
    }
    let peak = bench.large().daemon.process.resident_peak();
    add_peak(&mut bench.report, "resident at most, the large store", peak);
    discard(daemon, &directory);
}

/// Null server and daemon in turn, with the same requests.
fn against_null(settings: &Settings, connections: usize, null: &Null, daemon: &Daemon, key: &str) -> [Series; 2] {
    let requests = || Publish::new(key);
    contest(
        settings,
        connections,
        [Contestant::new(null.address, &null.process, PUBLISHED, requests), Contestant::daemon(daemon, PUBLISHED, requests)],
    )
}

/// The lines of one number of connections, judged where it has something to reach.
fn add_lines(report: &mut Report, what: &str, connections: usize, [lutine, limit]: [&Series; 2]) {
    let (rate, cpu, spread) = match connections {
        1 => (0.12, None, None),
        64 => (0.28, None, Some(8.0)),
        _ => (0.45, Some(Target::AtMost(2.5, "")), None),
    };
    add_against_null(report, what, [lutine, limit], Some(Target::AtLeast(rate, "")), cpu);
    let [ours, theirs] = [lutine, limit].map(|series| [0.5, 0.99].map(|share| millis(series.latency(share))).join(" / "));
    let row = Row { limit: theirs, ..Row::figure(format!("{what}, p50 / p99"), format!("{ours} ({:.1} ×)", lutine.p99_to_p50())) };
    report.add(match spread {
        Some(most) => row.must(lutine.p99_to_p50(), Target::AtMost(most, " × p50")),
        None => row,
    });
}

fn add_peak(report: &mut Report, what: &str, peak: u64) {
    report.add(Row::figure(what, mebibytes(peak)).must(peak as f64 / 1_048_576.0, Target::AtMost(150.0, " MiB")));
}

fn append_rate(settings: &Settings, directory: &Path, batch: usize) -> f64 {
    median((0..settings.rounds).map(|_| disk::append_rate(directory, batch, settings.round / 3)))
}

/// Gives the disk back before the next measurement needs it.
fn discard(daemon: Daemon, directory: &Path) {
    daemon.kill();
    std::fs::remove_dir_all(directory).expect("the store goes away");
}
