//! Starting: after SIGKILL under load with many events stored, and memory when idle.

use std::time::{Duration, Instant};

use super::{Bench, median};
use crate::daemon::{Daemon, LogFiles};
use crate::disk::allocated;
use crate::load::{Expect, Run, Until};
use crate::report::{Row, Target, count, mebibytes, millis};
use crate::requests::Publish;
use crate::store::Store;

/// How often the daemon is killed.
const KILLS: usize = 6;
/// The longest that the right moment for a kill is waited for.
const MOMENT_PATIENCE: Duration = Duration::from_secs(30);
/// How long an idle daemon is left alone before its memory is read.
const REST: Duration = Duration::from_secs(3);

/// When the daemon is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// A seal is under way, and goes on after the start.
    Sealing,
    /// The open segment, which is what a start must look through, is nearly full.
    NearlyFull,
}

impl Moment {
    fn has_come(self, files: &LogFiles, segment_bytes_max: u64) -> bool {
        match self {
            Self::Sealing => files.is_sealing(),
            Self::NearlyFull => {
                !files.is_sealing() && files.open.iter().map(|path| allocated(path)).sum::<u64>() * 10 > segment_bytes_max * 9
            }
        }
    }
}

pub fn run(bench: &mut Bench) {
    bench.prepare(false);
    let events = count(bench.large().events as f64);
    for moment in [Moment::Sealing, Moment::NearlyFull] {
        let (mut times, mut met) = (Vec::new(), 0);
        for _ in 0..KILLS / 2 {
            bench.restart_large(|store| {
                let (store, was_met) = kill_under_load(store, moment);
                times.push(store.daemon.ready_after);
                met += usize::from(was_met);
                store
            });
            // The first page is there at once.
            bench.large().client().get("/api/v1/events");
        }
        let worst = times.iter().max().copied().unwrap_or_default();
        let middle = Duration::from_secs_f64(median(times.iter().map(Duration::as_secs_f64)));
        let what = match moment {
            Moment::Sealing => "sealing under way",
            Moment::NearlyFull => "open segment nearly full",
        };
        let what = format!("ready after SIGKILL, {events} events, {what} ({met} of {}), median / worst", times.len());
        let row = Row::figure(what, format!("{} / {}", millis(middle), millis(worst)));
        bench.report.add(row.must(worst.as_secs_f64(), Target::AtMost(1.0, " s")));
    }
    assert!(bench.large().daemon.wait_until_sealed(), "sealing does not catch up");
    bench.restart_large(|store| store.restart(Daemon::stop));
    std::thread::sleep(REST);
    let daemon = &bench.large().daemon;
    let (ready_after, resident) = (daemon.ready_after, daemon.process.resident());
    bench.report.add(Row::figure(format!("ready after SIGTERM, {events} events"), millis(ready_after)));
    let row = Row::figure(format!("resident when idle after the start, {events} events"), mebibytes(resident));
    bench.report.add(row.must(resident as f64 / 1_048_576.0, Target::AtMost(60.0, " MiB")));
    bench.report.end_section("Open (page cache warm)");
}

/// Kills the daemon while 64 connections publish; the second value tells whether the moment came.
fn kill_under_load(store: Store, moment: Moment) -> (Store, bool) {
    let (address, process, key) = (store.daemon.address, store.daemon.process, store.key.clone());
    let publishing = std::thread::spawn(move || {
        Run { address, process: &process, connections: 64, until: Until::Disconnected, expect: Expect::Status(201) }
            .go(Box::new(Publish::new(&key)))
    });
    let started = Instant::now();
    let mut was_met = false;
    while !was_met && started.elapsed() < MOMENT_PATIENCE {
        assert!(!publishing.is_finished(), "publishing ended before the daemon was killed");
        std::thread::sleep(Duration::from_millis(1));
        // The load runs for a moment at least, so that the kill meets it.
        let is_running = started.elapsed() > Duration::from_millis(300);
        was_met = is_running && moment.has_come(&store.daemon.log_files(), store.options.segment_bytes_max);
    }
    let store = store.restart(Daemon::kill);
    publishing.join().expect("publishing goes on until the kill");
    (store, was_met)
}
