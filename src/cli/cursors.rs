//! `lutine cursor`: where readers are that keep their cursor on the daemon.

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::companies;
use super::failure::Failure;
use super::options::{CompanyOption, checked, type_list};
use super::output::{self, Format, Table};
use super::transport::{Connection, Request};
use crate::domain::cursor::CursorName;

const PATH: &str = "/api/v1/cursors";

/// Commands about named cursors.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Keep a cursor under a name, in place of what was there
    Set(Set),
    /// Show a cursor, and how far behind it is
    Show(Named),
    /// List the cursors of a company
    List(List),
    /// Forget a cursor
    Delete(Delete),
}

/// Options of `lutine cursor set`.
#[derive(Debug, Args)]
#[command(after_help = "\
A reader goes on from it with GET /api/v1/events?consumer=NAME, which does not move it: set it again once the page is done.

Examples:
  lutine cursor set portal --cursor CURSOR
  lutine cursor set portal --cursor CURSOR --types 'claim.*' --company acme")]
pub struct Set {
    /// Its name: letters, digits, '.', '_' and '-'
    #[arg(value_parser = checked::<CursorName>)]
    name: String,
    /// The cursor, as a list of events gave it
    #[arg(long)]
    cursor: String,
    /// The types of that list, separated by commas: the reader need not name them again, and its lag counts only them
    #[arg(long, value_parser = type_list)]
    types: Option<String>,
    #[command(flatten)]
    company: CompanyOption,
}

/// Options of `lutine cursor show`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  lutine cursor show portal --output json | jq .lag")]
pub struct Named {
    /// Its name
    #[arg(value_parser = checked::<CursorName>)]
    name: String,
    #[command(flatten)]
    company: CompanyOption,
}

/// Options of `lutine cursor list`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  lutine cursor list --company acme")]
pub struct List {
    #[command(flatten)]
    company: CompanyOption,
}

/// Options of `lutine cursor delete`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  lutine cursor delete portal")]
pub struct Delete {
    #[command(flatten)]
    which: Named,
}

#[derive(Debug, Deserialize)]
struct Lag {
    events: u64,
    seconds: f64,
}

/// A cursor as the API tells it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cursor {
    name: String,
    cursor: String,
    types: Option<Vec<String>>,
    updated_utc: String,
    lag: Lag,
    expired: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Cursors {
    cursors: Vec<Cursor>,
}

impl Cursor {
    fn types(&self) -> String {
        self.types.as_ref().map(|types| types.join(",")).unwrap_or_default()
    }

    fn lag(&self) -> String {
        match &self.expired {
            Some(reason) => format!("expired ({reason})"),
            None => format!("{} events, {:.0} s", self.lag.events, self.lag.seconds),
        }
    }
}

impl Command {
    /// Does what the command says.
    pub async fn run(self, connection: &Connection, format: Format) -> Result<(), Failure> {
        match self {
            Self::Set(set) => set.run(connection, format).await,
            Self::Show(show) => show.show(connection, format).await,
            Self::List(list) => list.run(connection, format).await,
            Self::Delete(delete) => delete.which.delete(connection, format).await,
        }
    }
}

impl Set {
    async fn run(self, connection: &Connection, format: Format) -> Result<(), Failure> {
        let company = companies::chosen(connection, &self.company).await?;
        let mut body = Map::from_iter([("cursor".to_owned(), Value::from(self.cursor))]);
        body.extend(self.types.map(|types| ("types".to_owned(), types.split(',').map(str::trim).collect())));
        let request = Request::put_json(&format!("{PATH}/{}", self.name), &body.into()).for_company(company.as_deref());
        connection.call(request).await?.success()?;
        match format {
            Format::Json => output::line(&json!({"name": self.name, "set": true}).to_string()),
            Format::Table => output::line(&format!("cursor {} is set", self.name)),
        }
    }
}

impl Named {
    async fn request(&self, connection: &Connection, make: fn(&str) -> Request) -> Result<Request, Failure> {
        let company = companies::chosen(connection, &self.company).await?;
        Ok(make(&format!("{PATH}/{}", self.name)).for_company(company.as_deref()))
    }

    async fn show(self, connection: &Connection, format: Format) -> Result<(), Failure> {
        let answer = connection.call(self.request(connection, Request::get).await?).await?.success()?;
        match format {
            Format::Json => output::line(&answer.json_line()?),
            Format::Table => {
                let cursor: Cursor = answer.json()?;
                let (types, lag) = (cursor.types(), cursor.lag());
                let pairs =
                    [("name", cursor.name), ("types", types), ("set", cursor.updated_utc), ("behind", lag), ("cursor", cursor.cursor)];
                Table::of_pairs(&pairs).print()
            }
        }
    }

    async fn delete(self, connection: &Connection, format: Format) -> Result<(), Failure> {
        connection.call(self.request(connection, Request::delete).await?).await?.success()?;
        match format {
            Format::Json => output::line(&json!({"name": self.name, "deleted": true}).to_string()),
            Format::Table => output::line(&format!("cursor {} is deleted", self.name)),
        }
    }
}

impl List {
    async fn run(self, connection: &Connection, format: Format) -> Result<(), Failure> {
        let company = companies::chosen(connection, &self.company).await?;
        let answer = connection.call(Request::get(PATH).for_company(company.as_deref())).await?.success()?;
        match format {
            Format::Json => output::line(&answer.json_line()?),
            Format::Table => {
                let mut table = Table::new(&["NAME", "TYPES", "SET", "BEHIND"]);
                for cursor in answer.json::<Cursors>()?.cursors {
                    let (types, lag) = (cursor.types(), cursor.lag());
                    table.push([cursor.name, types, cursor.updated_utc, lag]);
                }
                table.print()
            }
        }
    }
}
