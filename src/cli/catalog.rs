//! `lutine catalog check`: what is wrong with a catalogue of event types, or what is in it.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::config::{print_faults, print_report};
use super::failure::Failure;
use super::output::{Format, Table, note};
use super::settings::{OnlyHere, Settings};
use crate::catalog::{Catalog, CatalogFault, EventTypeEntry, Validation};
use crate::config::{Fault, Faults};

/// Commands about the catalogue.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Report every mistake of a catalogue's file at once, or every type and version that is known with it
    Check(Check),
}

/// Options of `lutine catalog check`.
#[derive(Debug, Args)]
#[command(after_help = "\
Samples are held against the schemas of their types. A mistake is reported as `file:line: message`, and the exit code is 78.

Examples:
  lutine catalog check
  lutine catalog check event-types.toml --output json")]
pub struct Check {
    /// The file; without it the one that the configuration names as `catalog.file`
    file: Option<PathBuf>,
    #[command(flatten)]
    only_here: OnlyHere,
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Report<'a> {
    ok: bool,
    types: Vec<Row<'a>>,
}

/// One type.
#[derive(Debug, Serialize)]
struct Row<'a> {
    name: &'a str,
    label: &'a str,
    version: &'a str,
    deprecated: bool,
    /// Versions whose payloads have a schema.
    schemas: Vec<&'a str>,
    /// What becomes of payloads that violate them.
    validate: &'static str,
}

impl Command {
    /// Does what the command says.
    pub fn run(self, settings: &Settings) -> Result<(), Failure> {
        let Self::Check(Check { file, only_here }) = self;
        settings.demand_here(&only_here, "catalog check")?;
        let format = Format::chosen(settings.output);
        let (file, validation) = match file {
            Some(file) => (Some(file), Validation::Off),
            None => {
                let catalog = settings.config()?.catalog;
                let validation = Validation::parse(&catalog.validate).unwrap_or_default();
                (Some(catalog.file).filter(|path| !path.as_os_str().is_empty()), validation)
            }
        };
        match Catalog::load(file.as_deref(), false, validation) {
            Ok(catalog) => print_types(&catalog, validation, format),
            Err(error) => {
                let fault =
                    |fault: CatalogFault| Fault { file: Some(fault.file), line: Some(fault.line), key: None, message: fault.message };
                print_faults(&Faults(error.0.into_iter().map(fault).collect()), format, settings.output.is_some())?;
                Err(Failure::ConfigReported)
            }
        }
    }
}

fn row(entry: &EventTypeEntry, validation: Validation) -> Row<'_> {
    Row {
        name: &entry.name,
        label: &entry.label,
        version: &entry.version,
        deprecated: entry.deprecated,
        schemas: entry.schemas.keys().map(String::as_str).collect(),
        validate: entry.validation.unwrap_or(validation).as_str(),
    }
}

fn print_types(catalog: &Catalog, validation: Validation, format: Format) -> Result<(), Failure> {
    let rows: Vec<Row<'_>> = catalog.iter().map(|entry| row(entry, validation)).collect();
    if format == Format::Json {
        return print_report(&Report { ok: true, types: rows });
    }
    let mut table = Table::new(&["TYPE", "VERSION", "SCHEMAS", "VALIDATE", "LABEL"]);
    for row in &rows {
        let schemas = if row.schemas.is_empty() { "-".to_owned() } else { row.schemas.join(", ") };
        let label = if row.deprecated { format!("{} (deprecated)", row.label) } else { row.label.to_owned() };
        table.push([row.name.to_owned(), row.version.to_owned(), schemas, row.validate.to_owned(), label]);
    }
    table.print()?;
    note(&format!("the catalogue is right: {} types", rows.len()));
    Ok(())
}
