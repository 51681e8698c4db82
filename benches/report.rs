//! The tables: absolute figures, ratios, and what must be reached beside them.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::settings::Settings;

/// What a figure must reach.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    AtLeast(f64, &'static str),
    AtMost(f64, &'static str),
}

impl Target {
    fn is_reached_by(self, figure: f64) -> bool {
        match self {
            Self::AtLeast(bound, _) => figure >= bound,
            Self::AtMost(bound, _) => figure <= bound,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(bound, unit) => format!("≥ {bound}{unit}"),
            Self::AtMost(bound, unit) => format!("≤ {bound}{unit}"),
        }
    }
}

/// One line of a table.
#[derive(Debug, Default)]
pub struct Row {
    pub what: String,
    pub lutine: String,
    /// The same of the limit or of whatever it is compared with.
    pub limit: String,
    pub ratio: Option<f64>,
    /// The figure that is judged, and by what.
    pub judged: Option<(f64, Target)>,
}

impl Row {
    /// A figure alone.
    pub fn figure(what: impl Into<String>, lutine: impl Into<String>) -> Self {
        Self { what: what.into(), lutine: lutine.into(), ..Self::default() }
    }

    pub fn beside(self, limit: impl Into<String>, ratio: f64) -> Self {
        Self { limit: limit.into(), ratio: Some(ratio), ..self }
    }

    /// Judges the ratio.
    pub fn ratio_must(self, target: Target) -> Self {
        Self { judged: self.ratio.map(|ratio| (ratio, target)), ..self }
    }

    /// Judges another figure of the line.
    pub fn must(self, figure: f64, target: Target) -> Self {
        Self { judged: Some((figure, target)), ..self }
    }

    fn verdict(&self) -> &'static str {
        match self.judged {
            None => "",
            Some((figure, target)) if target.is_reached_by(figure) => "ok",
            Some(_) => "below",
        }
    }

    fn cells(&self) -> [String; 6] {
        [
            self.what.clone(),
            self.lutine.clone(),
            self.limit.clone(),
            self.ratio.map(|ratio| format!("{ratio:.3}")).unwrap_or_default(),
            self.judged.map(|(_, target)| target.text()).unwrap_or_default(),
            self.verdict().to_owned(),
        ]
    }
}

/// Collects the lines of a group, prints them as a table when the group ends, and a summary when all have ended.
#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
    judged: Vec<(String, &'static str)>,
}

impl Report {
    pub fn add(&mut self, row: Row) {
        let figure = if row.lutine.is_empty() { &row.limit } else { &row.lutine };
        eprintln!("  {}: {figure} {}", row.what, row.verdict());
        self.rows.push(row);
    }

    /// Prints the lines so far under a title.
    pub fn end_section(&mut self, title: &str) {
        if self.rows.is_empty() {
            return;
        }
        println!("\n## {title}\n");
        let head = ["measure", "lutine", "limit", "ratio", "must reach", "verdict"].map(str::to_owned);
        let lines: Vec<[String; 6]> = std::iter::once(head).chain(self.rows.iter().map(Row::cells)).collect();
        let widths: [usize; 6] = std::array::from_fn(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0));
        for (number, line) in lines.iter().enumerate() {
            let cells: Vec<String> = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            println!("| {} |", cells.join(" | "));
            if number == 0 {
                println!("|{}|", widths.map(|width| "-".repeat(width + 2)).join("|"));
            }
        }
        for row in self.rows.drain(..).filter(|row| row.judged.is_some()) {
            let [what, lutine, _, ratio, target, _] = row.cells();
            let verdict = row.verdict();
            self.judged.push((format!("{title}: {what}: {lutine} {ratio} (must reach {target})"), verdict));
        }
    }

    pub fn summary(&self) {
        let below: Vec<_> = self.judged.iter().filter(|(_, verdict)| *verdict != "ok").collect();
        println!("\n{} of {} figures reach what they must.", self.judged.len() - below.len(), self.judged.len());
        for (line, _) in below {
            println!("- below: {line}");
        }
    }
}

/// What the figures depend on.
pub fn print_machine(directory: &Path, settings: &Settings) {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let value = text.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(':'));
        value.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory: u64 = field(&read("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0);
    let compiler = Command::new("rustc").arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    let profile = if cfg!(debug_assertions) { "with debug assertions: the figures mean nothing" } else { "optimized" };
    println!("machine: {cores} cores ({}), {}", field(&read("/proc/cpuinfo"), "model name"), mebibytes(memory * 1024));
    println!("system: Linux {}, {}", read("/proc/sys/kernel/osrelease").trim(), file_system(directory));
    println!("build: {}, {profile}", String::from_utf8_lossy(&compiler).trim());
    println!(
        "run: {} events in the large store, {} in the small one; medians of {} rounds of {:?}; client and server share the cores",
        count(settings.events as f64),
        count(settings.events as f64 / 10.0),
        settings.rounds,
        settings.round,
    );
}

fn file_system(directory: &Path) -> String {
    let directory = directory.canonicalize().unwrap_or_default();
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let of_mount = |line: &str| {
        let mut fields = line.split(' ');
        let (device, place, kind) = (fields.next()?, fields.next()?, fields.next()?);
        directory.starts_with(place).then(|| (place.len(), format!("{kind} on {device}")))
    };
    mounts.lines().filter_map(of_mount).max().map(|(_, text)| text).unwrap_or_default()
}

/// A number with its thousands set apart.
pub fn count(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

pub fn per_second(rate: f64) -> String {
    format!("{}/s", count(rate))
}

pub fn micros(microseconds: f64) -> String {
    format!("{microseconds:.1} µs")
}

pub fn millis(duration: Duration) -> String {
    let milliseconds = duration.as_secs_f64() * 1e3;
    if milliseconds < 10.0 { format!("{milliseconds:.2} ms") } else { format!("{milliseconds:.0} ms") }
}

pub fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", count(bytes as f64 / 1_048_576.0))
}

/// Bytes per second as megabytes.
pub fn megabytes_per_second(rate: f64) -> String {
    format!("{:.0} MB/s", rate / 1e6)
}
