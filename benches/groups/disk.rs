//! Bytes on disk per payload byte after a day's mixture, all of it sealed, everything in the data directory counted.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Bench;
use crate::daemon::{Daemon, Options};
use crate::disk::allocated;
use crate::load::{Expect, Run, Until};
use crate::report::{Row, Target, count, mebibytes, per_second};
use crate::requests::{DayBatches, Kept};

/// Events per request: well below the limit of 4 MiB even with two payloads of the largest size.
const BATCH: usize = 100;
/// Small enough that the open segment is a small part of the default day.
const SEGMENT_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Two seconds: the last segment is closed by its age, with nothing more to wait for.
const SHORT_SEGMENT_HOURS: f64 = 2.0 / 3600.0;
/// How long the seal of the last segment is waited for.
const SEAL_PATIENCE: Duration = Duration::from_secs(30);

pub fn run(bench: &mut Bench) {
    let directory = bench.directory("day");
    let options = Options::with_segments_of(SEGMENT_BYTES_MAX);
    let daemon = Daemon::start(&directory, options);
    let key = daemon.make_key();
    let kept = Rc::new(RefCell::new(Kept::default()));
    let outcome = Run {
        address: daemon.address,
        process: &daemon.process,
        connections: 4,
        until: Until::Sent(bench.settings.day_events / BATCH as u64),
        expect: Expect::BatchPatiently,
    }
    .go(Box::new(DayBatches::new(&key, BATCH, Rc::clone(&kept))));
    assert!(daemon.wait_until_sealed(), "sealing does not catch up");
    daemon.stop();
    let all_sealed = seal_the_rest(&directory, options);

    let kept = *kept.borrow();
    let (stored, payloads) = (allocated(&directory), kept.payload_bytes as f64);
    let note = if all_sealed { "" } else { " (the last segment is still open)" };
    let title = format!("a day of {} events, {} of payload", count(kept.events as f64), mebibytes(kept.payload_bytes));
    bench.report.add(Row::figure(format!("{title}: published"), per_second(outcome.rate() * BATCH as f64)));
    let row = Row::figure(format!("{title}: data directory{note}"), mebibytes(stored))
        .beside(mebibytes(kept.payload_bytes), stored as f64 / payloads);
    bench.report.add(row.ratio_must(Target::AtMost(1.5, "")));
    let given = kept.payload_bytes + kept.metadata_bytes;
    let row = Row::figure("the same, metadata counted as payload", mebibytes(stored));
    bench.report.add(row.beside(mebibytes(given), stored as f64 / given as f64));
    bench.report.end_section("Disk (limit: the payload's own bytes)");
    std::fs::remove_dir_all(&directory).expect("the store goes away");
}

/// Starts the daemon with segments that live for seconds, until the last one with events is sealed. False when that is not seen.
fn seal_the_rest(directory: &Path, options: Options) -> bool {
    let sealed_before = crate::daemon::LogFiles::read(directory).sealed.len();
    let daemon = match Daemon::try_start(directory, Options { segment_hours_max: SHORT_SEGMENT_HOURS, ..options }) {
        Ok(daemon) => daemon,
        Err(fault) => {
            eprintln!("  no daemon with short segments: {fault}");
            return false;
        }
    };
    let started = Instant::now();
    while daemon.log_files().sealed.len() == sealed_before && started.elapsed() < SEAL_PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
    }
    let is_sealed = daemon.log_files().sealed.len() > sealed_before && daemon.wait_until_sealed();
    daemon.stop();
    is_sealed
}
