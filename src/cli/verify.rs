//! `lutine verify`: whether everything that was stored is still there, and right.

use std::time::Duration;

use clap::Args;
use serde::Deserialize;

use super::failure::Failure;
use super::output::{self, Format, printable, progress};
use super::transport::{Connection, Request};

/// A terabyte is read within this time.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(12 * 3600);

/// Options of `lutine verify`.
#[derive(Debug, Args)]
#[command(after_help = "\
The exit code is 1 when something is wrong. Nothing is changed.

Examples:
  lutine verify
  lutine verify --data-dir /var/lib/lutine --output json")]
pub struct Verify {}

#[derive(Debug, Deserialize)]
struct Report {
    ok: bool,
    segments: u64,
    chunks: u64,
    events: u64,
    faults: Vec<String>,
}

impl Verify {
    /// Has the store read and prints what was found.
    pub async fn run(self, connection: &Connection, format: Format) -> Result<(), Failure> {
        progress("reading the whole store ...");
        let answer =
            connection.call(Request::post("/api/v1/admin/verify", "application/json", b"{}".to_vec()).within(VERIFY_TIMEOUT)).await;
        progress("");
        let answer = answer?.success()?;
        let report: Report = answer.json()?;
        match format {
            Format::Json => output::line(&answer.json_line()?)?,
            Format::Table => {
                for fault in &report.faults {
                    output::line(&printable(fault))?;
                }
                output::line(&summary(&report))?;
            }
        }
        if report.ok { Ok(()) } else { Err(Failure::Reported) }
    }
}

fn summary(report: &Report) -> String {
    let Report { segments, chunks, events, .. } = report;
    let result = match report.faults.len() {
        0 if report.ok => "all is well".to_owned(),
        1 => "1 fault".to_owned(),
        faults => format!("{faults} faults"),
    };
    format!("{result}: read {events} events in {chunks} chunks of {segments} segments")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_says_how_much_was_read() {
        let mut report = Report { ok: true, segments: 1, chunks: 2, events: 30, faults: Vec::new() };
        assert_eq!(summary(&report), "all is well: read 30 events in 2 chunks of 1 segments");
        report.ok = false;
        report.faults.push("segment 1: broken".to_owned());
        assert_eq!(summary(&report), "1 fault: read 30 events in 2 chunks of 1 segments");
    }
}
