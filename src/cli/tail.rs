//! `lutine event tail`: prints events as they come.

use clap::Args;
use serde_json::Value;

use super::companies;
use super::events::{Envelope, Page};
use super::failure::Failure;
use super::follow::Follower;
use super::interruption::Interruption;
use super::options::{CompanyOption, origin, type_list};
use super::output::{self, Format};
use super::transport::Connection;

/// Options of `lutine event tail`.
#[derive(Debug, Args)]
#[command(after_help = "\
It goes on when the daemon is restarted, and says so when events were removed by retention before it read them.

Examples:
  lutine event tail
  lutine event tail --types 'claim.*' --from oldest
  lutine event tail --output json | jq -r .payload")]
pub struct Tail {
    /// Only these types, separated by commas: claim.created, claim.* or claim.created@2
    #[arg(long, value_parser = type_list)]
    types: Option<String>,
    /// Where to begin: oldest, latest, or an RFC 3339 date-time
    #[arg(long, value_name = "oldest|latest|TIME", value_parser = origin, default_value = "latest")]
    from: String,
    #[command(flatten)]
    company: CompanyOption,
}

impl Tail {
    /// Prints events as they come, until Ctrl-C.
    pub async fn run(self, connection: &Connection, format: Format) -> Result<(), Failure> {
        let company = companies::chosen(connection, &self.company).await?;
        let mut interruption = Interruption::catch()?;
        tokio::select! {
            () = interruption.wait() => Ok(()),
            failure = self.follow(connection, company, format) => failure,
        }
    }

    async fn follow(&self, connection: &Connection, company: Option<String>, format: Format) -> Result<(), Failure> {
        let mut follower = Follower::new(connection, company, self.types.clone(), &self.from);
        loop {
            print(&follower.next().await?, format)?;
        }
    }
}

fn print(page: &Page, format: Format) -> Result<(), Failure> {
    for event in &page.events {
        match format {
            // An envelope has no line breaks of its own; should one have, it must still be one line.
            Format::Json if event.get().contains('\n') => {
                let value: Value = serde_json::from_str(event.get()).map_err(|error| Failure::caused("an event cannot be read", &error))?;
                output::line(&value.to_string())?;
            }
            Format::Json => output::line(event.get())?,
            Format::Table => output::line(&Envelope::read(event)?.line())?,
        }
    }
    Ok(())
}
