//! `lutine config check`: what is wrong with the configuration, or what it comes to.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::failure::{Failure, FaultShape};
use super::output::{self, Format, Table, note};
use super::settings::{OnlyHere, Settings};
use crate::config::Faults;

/// Commands about the configuration.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Report every mistake of the configuration at once, or every value in force and where it comes from
    Check(Check),
}

/// Options of `lutine config check`.
#[derive(Debug, Args)]
#[command(after_help = "\
A mistake is reported as `file:line: key: message`, and the exit code is 78.

Examples:
  lutine config check
  lutine config check --config /etc/lutine/config.toml --output json")]
pub struct Check {
    #[command(flatten)]
    only_here: OnlyHere,
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Report<'a> {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<Vec<Row<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    faults: Option<Vec<FaultShape<'a>>>,
}

/// One setting.
#[derive(Debug, Serialize)]
struct Row<'a> {
    key: &'a str,
    value: &'a str,
    source: &'a str,
}

impl Command {
    /// Does what the command says.
    pub fn run(self, settings: &Settings) -> Result<(), Failure> {
        let Self::Check(Check { only_here }) = self;
        settings.demand_here(&only_here, "config check")?;
        let format = Format::chosen(settings.output);
        match settings.whole_config() {
            Ok(config) => print_settings(&config.effective(), format),
            Err(Failure::Config(faults)) => {
                print_faults(&faults, format, settings.output.is_some())?;
                Err(Failure::ConfigReported)
            }
            Err(failure) => Err(failure),
        }
    }
}

fn print_settings<'a>(effective: &'a [(&'static str, String, String)], format: Format) -> Result<(), Failure> {
    match format {
        Format::Table => {
            let mut table = Table::new(&["KEY", "VALUE", "SOURCE"]);
            for (key, value, source) in effective {
                table.push([(*key).to_owned(), value.clone(), source.clone()]);
            }
            table.print()
        }
        Format::Json => {
            let row = |(key, value, source): &'a (&'static str, String, String)| Row { key, value, source };
            print_report(&Report { ok: true, config: Some(effective.iter().map(row).collect()), faults: None })
        }
    }
}

/// Faults go to people on standard error and to programs on standard output; to both, when nobody said who looks.
pub(super) fn print_faults(faults: &Faults, format: Format, was_asked: bool) -> Result<(), Failure> {
    if format == Format::Table || !was_asked {
        note(&faults.to_string());
    }
    match format {
        Format::Table => Ok(()),
        Format::Json => print_report(&Report { ok: false, config: None, faults: Some(faults.0.iter().map(FaultShape::from).collect()) }),
    }
}

pub(super) fn print_report(report: &impl Serialize) -> Result<(), Failure> {
    output::line(&serde_json::to_string(report).map_err(|error| Failure::caused("the report cannot be printed", &error))?)
}
