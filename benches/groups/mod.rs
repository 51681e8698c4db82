//! The groups of measurements, and what they share.

pub mod deliver;
pub mod disk;
pub mod idle;
pub mod limits;
pub mod open;
pub mod publish;
pub mod read;
pub mod seal;
pub mod sick;
pub mod stream;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::daemon::{Daemon, Options};
use crate::load::{Expect, Outcome, Requests, Run, Until};
use crate::process::Process;
use crate::report::{Report, Row, Target, micros, per_second};
use crate::settings::Settings;
use crate::store::Store;

/// A run of the benches: its settings, its results, and the stores that several groups read.
pub struct Bench {
    pub settings: Settings,
    pub report: Report,
    large: Option<Store>,
    small: Option<Store>,
    // Last, so that the daemons have ended when their directory goes.
    root: TempDir,
}

impl Bench {
    /// Everything lies below Cargo's own directory, which is on a real disk where `/tmp` may not be.
    pub fn new(settings: Settings) -> Self {
        let root = tempfile::Builder::new().prefix("bench-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory for the bench");
        Self { settings, report: Report::default(), large: None, small: None, root }
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// A new directory of this name.
    pub fn directory(&self, name: &str) -> PathBuf {
        let directory = self.root().join(name);
        std::fs::create_dir(&directory).expect("a directory of the bench");
        directory
    }

    /// Fills the stores when they are first needed.
    pub fn prepare(&mut self, small_too: bool) {
        let (events, options) = (self.settings.events, self.stored_options());
        if self.large.is_none() {
            self.large = Some(Store::fill(self.root.path(), "large", events, options));
        }
        if small_too && self.small.is_none() {
            self.small = Some(Store::fill(self.root.path(), "small", events / 10, options));
        }
    }

    pub fn large(&self) -> &Store {
        self.large.as_ref().expect("prepared")
    }

    pub fn small(&self) -> &Store {
        self.small.as_ref().expect("prepared")
    }

    /// Lends the large store to a group that restarts its daemon.
    pub fn restart_large(&mut self, restart: impl FnOnce(Store) -> Store) {
        self.large = self.large.take().map(restart);
    }

    /// Segments of which even the small store seals some, and never larger ones than the default.
    fn stored_options(&self) -> Options {
        let small_bytes = self.settings.events / 10 * 1_250;
        Options::with_segments_of((small_bytes / 3).clamp(4 * 1024 * 1024, Options::DEFAULT.segment_bytes_max))
    }
}

/// A server under load, in turn with others.
pub struct Contestant<'a> {
    pub address: SocketAddr,
    pub process: &'a Process,
    pub expect: Expect,
    pub requests: Box<dyn Fn() -> Box<dyn Requests> + 'a>,
}

impl<'a> Contestant<'a> {
    pub fn new<R: Requests + 'static>(address: SocketAddr, process: &'a Process, expect: Expect, requests: impl Fn() -> R + 'a) -> Self {
        Self { address, process, expect, requests: Box::new(move || Box::new(requests())) }
    }

    pub fn daemon<R: Requests + 'static>(daemon: &'a Daemon, expect: Expect, requests: impl Fn() -> R + 'a) -> Self {
        Self::new(daemon.address, &daemon.process, expect, requests)
    }

    fn run(&self, connections: usize, duration: Duration) -> Outcome {
        let until = Until::Elapsed(duration);
        Run { address: self.address, process: self.process, connections, until, expect: self.expect }.go((self.requests)())
    }
}

/// What one contestant brought in all rounds.
pub struct Series(Vec<Outcome>);

/// Runs the contestants in turn, round by round, so that whatever else the machine does meets all of them.
pub fn contest<const N: usize>(settings: &Settings, connections: usize, contestants: [Contestant<'_>; N]) -> [Series; N] {
    for contestant in &contestants {
        contestant.run(connections, settings.round / 4);
    }
    let mut series = [(); N].map(|()| Series(Vec::with_capacity(settings.rounds)));
    for _ in 0..settings.rounds {
        for (contestant, series) in contestants.iter().zip(&mut series) {
            series.0.push(contestant.run(connections, settings.round));
        }
    }
    series
}

impl Series {
    /// Requests per second.
    pub fn rate(&self) -> f64 {
        median(self.0.iter().map(Outcome::rate))
    }

    pub fn cpu_us(&self) -> f64 {
        median(self.0.iter().map(Outcome::cpu_us))
    }

    pub fn latency(&self, share: f64) -> Duration {
        Duration::from_secs_f64(median(self.0.iter().map(|outcome| outcome.latencies.quantile(share).as_secs_f64())))
    }

    pub fn p99_to_p50(&self) -> f64 {
        median(self.0.iter().map(|outcome| {
            let [half, most] = [0.5, 0.99].map(|share| outcome.latencies.quantile(share).as_secs_f64());
            most / half.max(1e-9)
        }))
    }

    /// The median of the ratios round by round, which a slow minute of the machine moves less than the ratio of medians.
    pub fn rate_to(&self, other: &Self) -> f64 {
        self.ratio(other, Outcome::rate)
    }

    pub fn cpu_to(&self, other: &Self) -> f64 {
        self.ratio(other, Outcome::cpu_us)
    }

    fn ratio(&self, other: &Self, figure: impl Fn(&Outcome) -> f64) -> f64 {
        median(self.0.iter().zip(&other.0).map(|(own, other)| figure(own) / figure(other)))
    }
}

/// Lines for throughput and processor time against the null server.
fn add_against_null(report: &mut Report, what: &str, [lutine, null]: [&Series; 2], rate_must: Option<Target>, cpu_must: Option<Target>) {
    let rate = Row::figure(format!("{what}, requests"), per_second(lutine.rate())).beside(per_second(null.rate()), lutine.rate_to(null));
    let cpu = Row::figure(format!("{what}, server CPU"), micros(lutine.cpu_us())).beside(micros(null.cpu_us()), lutine.cpu_to(null));
    for (row, must) in [(rate, rate_must), (cpu, cpu_must)] {
        report.add(if let Some(target) = must { row.ratio_must(target) } else { row });
    }
}

pub fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    if figures.len().is_multiple_of(2) { f64::midpoint(figures[middle - 1], figures[middle]) } else { figures[middle] }
}
