//! `lutine company`: tenants, and which one of them a command works for.

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::failure::Failure;
use super::options::{CompanyOption, checked};
use super::output::{self, Format, Table};
use super::transport::{Connection, Need, Request};
use crate::domain::company::{Country, Slug};

const PATH: &str = "/api/v1/admin/companies";

/// Commands about companies.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a company
    Create(Create),
    /// List all companies
    List(List),
}

/// Options of `lutine company create`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lutine company create --slug acme
  lutine company create --slug acme-dk --country dk --name 'Acme Forsikring A/S'")]
pub struct Create {
    /// Its short name in commands and paths: 1 to 64 characters of a-z, 0-9 and -
    #[arg(long, value_parser = checked::<Slug>)]
    slug: String,
    /// Its country, two letters such as dk
    #[arg(long, value_name = "CC", value_parser = checked::<Country>)]
    country: Option<String>,
    /// Its name for people [default: the slug]
    #[arg(long)]
    name: Option<String>,
}

/// Options of `lutine company list`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lutine company list
  lutine company list --output json")]
pub struct List {}

/// A company as the API tells it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Company {
    id: u32,
    slug: String,
    country: Option<String>,
    name: String,
    created_utc: String,
}

#[derive(Debug, Deserialize)]
struct Companies {
    companies: Vec<Company>,
}

impl Command {
    /// What the command needs behind it.
    pub fn need(&self) -> Need {
        match self {
            Self::Create(_) => Need::AnyStore,
            Self::List(_) => Need::Store,
        }
    }

    /// Does what the command says.
    pub async fn run(self, connection: &Connection, format: Format) -> Result<(), Failure> {
        match self {
            Self::Create(create) => create.run(connection, format).await,
            Self::List(List {}) => list(connection, format).await,
        }
    }
}

impl Create {
    async fn run(self, connection: &Connection, format: Format) -> Result<(), Failure> {
        let mut body = Map::new();
        body.insert("slug".to_owned(), self.slug.into());
        body.extend(self.country.map(|country| ("country".to_owned(), country.into())));
        body.extend(self.name.map(|name| ("name".to_owned(), name.into())));
        let answer = connection.call(Request::post_json(PATH, &Value::Object(body))).await?.success()?;
        match format {
            Format::Json => output::line(&answer.json_line()?),
            Format::Table => print(&[answer.json()?]),
        }
    }
}

async fn list(connection: &Connection, format: Format) -> Result<(), Failure> {
    let answer = connection.call(Request::get(PATH)).await?.success()?;
    match format {
        Format::Json => output::line(&answer.json_line()?),
        Format::Table => print(&answer.json::<Companies>()?.companies),
    }
}

fn print(companies: &[Company]) -> Result<(), Failure> {
    let mut table = Table::new(&["ID", "SLUG", "COUNTRY", "NAME", "CREATED"]);
    for Company { id, slug, country, name, created_utc } in companies {
        let country = country.clone().unwrap_or_else(|| "-".to_owned());
        table.push([id.to_string(), slug.clone(), country, name.clone(), created_utc.clone()]);
    }
    table.print()
}

/// The company that a command on events works for; none when the key decides.
///
/// # Errors
/// When it was named and the key decides, or not named and there is not exactly one.
pub async fn chosen(connection: &Connection, option: &CompanyOption) -> Result<Option<String>, Failure> {
    match (&option.company, connection.chooses_company()) {
        (None, false) => Ok(None),
        (Some(_), false) => Err(Failure::Usage("over the network the key decides the company: leave --company out".to_owned())),
        (Some(name), true) => Ok(Some(name.clone())),
        (None, true) => only(connection).await.map(Some),
    }
}

/// The number of the only company that the caller can see.
///
/// # Errors
/// When there is not exactly one.
pub async fn only(connection: &Connection) -> Result<String, Failure> {
    let answer = connection.call(Request::get(PATH)).await?.success()?;
    only_one(&answer.json::<Companies>()?.companies)
}

fn only_one(companies: &[Company]) -> Result<String, Failure> {
    const NAMED_MAX: usize = 10;
    match companies {
        [] => Err(Failure::Failed("there is no company yet; create one with `lutine company create --slug ...`".to_owned())),
        [company] => Ok(company.id.to_string()),
        companies => {
            let mut slugs: Vec<&str> = companies.iter().take(NAMED_MAX).map(|company| company.slug.as_str()).collect();
            if companies.len() > NAMED_MAX {
                slugs.push("...");
            }
            Err(Failure::Usage(format!("there are {} companies; name one with --company: {}", companies.len(), slugs.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn company(id: u32, slug: &str) -> Company {
        Company { id, slug: slug.to_owned(), country: None, name: slug.to_owned(), created_utc: String::new() }
    }

    #[test]
    fn a_company_need_not_be_named_when_there_is_only_one() {
        assert_eq!(only_one(&[company(7, "acme")]).unwrap(), "7");
        assert!(matches!(only_one(&[]), Err(Failure::Failed(text)) if text.contains("company create")));
        let several = only_one(&[company(7, "acme"), company(8, "bench")]);
        assert!(matches!(several, Err(Failure::Usage(text)) if text.ends_with("--company: acme, bench")));
    }
}
