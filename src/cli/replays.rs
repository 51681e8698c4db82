//! `lutine subscription replay` and `lutine replay`: what was sent before, once more.

use clap::{ArgGroup, Args, Subcommand};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::companies;
use super::failure::Failure;
use super::options::{CompanyOption, event_id, type_list};
use super::output::{self, Format, Table};
use super::subscriptions;
use super::transport::{Connection, Request};

/// Where replays are.
const PATH: &str = "/api/v1/replays";

/// Commands about replays.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List replays, newest first
    List(List),
    /// Show how far a replay is
    Show(Show),
    /// End a replay: what was sent stays sent, the rest is not sent
    Cancel(Cancel),
}

/// Options of `lutine subscription replay`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").args(["from", "to", "types", "state", "ids"]).required(true).multiple(true), after_help = "\
The stretch is from --from (with it) up to --to (without it). A cursor stands for the place behind the event that it
passed; that of a cancelled replay, which `lutine replay show` tells, lets another one go on there.

Examples:
  lutine subscription replay 12 --from 2026-11-22T10:00:00Z --to 2026-11-22T11:00:00Z --dry-run
  lutine subscription replay 12 --from 2026-11-22T10:00:00Z --types 'claim.*' --rate-per-minute 600
  lutine subscription replay 12 --state dead
  lutine subscription replay 12 --id 1042 --id 1043")]
pub struct Replay {
    /// The subscription, by number
    #[arg(value_parser = subscriptions::id)]
    id: u32,
    /// Where it begins: an RFC 3339 date-time or a cursor [default: the oldest event]
    #[arg(long, value_name = "TIME|CURSOR", conflicts_with = "ids")]
    from: Option<String>,
    /// Where it ends: an RFC 3339 date-time or a cursor [default: the newest event]
    #[arg(long, value_name = "TIME|CURSOR", conflicts_with = "ids")]
    to: Option<String>,
    /// Only these types, separated by commas: claim.created, claim.* or claim.created@2
    #[arg(long, value_parser = type_list, conflicts_with = "ids")]
    types: Option<String>,
    /// Only events whose delivery ended so: delivered, dead or cancelled
    #[arg(long, value_parser = ["delivered", "dead", "cancelled"], hide_possible_values = true, conflicts_with = "ids")]
    state: Option<String>,
    /// Exactly this event (repeatable)
    #[arg(id = "ids", long = "id", value_name = "ID", value_parser = event_id)]
    ids: Vec<u64>,
    /// Attempts a minute, within what the subscription allows
    #[arg(long, value_name = "N")]
    rate_per_minute: Option<u32>,
    /// Only tell how many events that would be
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    company: CompanyOption,
}

/// Options of `lutine replay list`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lutine replay list
  lutine replay list --subscription 12 --output json | jq '.replays[] | select(.state == \"running\")'")]
pub struct List {
    /// Only those of this subscription, by number
    #[arg(long, value_name = "ID", value_parser = subscriptions::id)]
    subscription: Option<u32>,
    #[command(flatten)]
    company: CompanyOption,
}

/// Options of `lutine replay show`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lutine replay show 3")]
pub struct Show {
    #[command(flatten)]
    named: Named,
}

/// Options of `lutine replay cancel`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lutine replay cancel 3")]
pub struct Cancel {
    #[command(flatten)]
    named: Named,
}

/// Which replay.
#[derive(Debug, Args)]
struct Named {
    /// Its number, as starting and listing tell it
    #[arg(value_parser = number)]
    id: u32,
    #[command(flatten)]
    company: CompanyOption,
}

fn number(text: &str) -> Result<u32, &'static str> {
    text.parse().map_err(|_| "the id of a replay is a whole number such as 3")
}

/// A replay as the API tells it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    replay_id: u32,
    subscription_id: u32,
    state: String,
    count: u64,
    done: u64,
    expired: u64,
    rate_per_minute: u32,
    created_utc: String,
    ended_utc: Option<String>,
    cursor: String,
}

#[derive(Debug, Deserialize)]
struct Listed {
    replays: Vec<Shown>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Started {
    replay_id: Option<u32>,
    count: u64,
}

impl Replay {
    fn body(&self) -> Value {
        let mut body = Map::new();
        let mut put = |name: &str, value: Option<Value>| body.extend(value.map(|value| (name.to_owned(), value)));
        put("from", self.from.clone().map(Value::from));
        put("to", self.to.clone().map(Value::from));
        put("types", self.types.as_ref().map(|types| types.split(',').collect::<Vec<_>>().into()));
        put("state", self.state.clone().map(Value::from));
        put("ids", (!self.ids.is_empty()).then(|| self.ids.clone().into()));
        put("ratePerMinute", self.rate_per_minute.map(Value::from));
        put("dryRun", self.dry_run.then_some(true.into()));
        Value::Object(body)
    }

    /// Starts it, or counts what it would send.
    pub async fn run(self, connection: &Connection, format: Format) -> Result<(), Failure> {
        let company = companies::chosen(connection, &self.company).await?;
        let request = Request::post_json(&format!("{}/{}/replay", subscriptions::PATH, self.id), &self.body());
        let answer = connection.call(request.for_company(company.as_deref())).await?.success()?;
        match format {
            Format::Json => output::line(&answer.json_line()?),
            Format::Table => match answer.json()? {
                Started { replay_id: Some(id), count } => {
                    output::line(&format!("replay {id} sends {count} events again; `lutine replay show {id}` tells how far it is"))
                }
                Started { replay_id: None, count } => output::line(&format!("it would send {count} events again")),
            },
        }
    }
}

impl Shown {
    fn print(&self) -> Result<(), Failure> {
        let rate = if self.rate_per_minute == 0 { "as the subscription allows".to_owned() } else { self.rate_per_minute.to_string() };
        let mut pairs = vec![
            ("replay", self.replay_id.to_string()),
            ("subscription", self.subscription_id.to_string()),
            ("state", self.state.clone()),
            ("ended", format!("{} of {}", self.done, self.count)),
            ("expired", self.expired.to_string()),
            ("rate a minute", rate),
            ("created", self.created_utc.clone()),
        ];
        pairs.extend(self.ended_utc.clone().map(|ended| ("over since", ended)));
        pairs.push(("cursor", self.cursor.clone()));
        Table::of_pairs(&pairs).print()
    }
}

impl Command {
    /// Does what the command says.
    pub async fn run(self, connection: &Connection, format: Format) -> Result<(), Failure> {
        let (request, company) = match &self {
            Self::List(List { subscription, company }) => {
                let subscription = subscription.map(|id| id.to_string());
                (Request::get(PATH).query(&[("subscription", subscription.as_deref())]), company)
            }
            Self::Show(Show { named }) => (Request::get(&format!("{PATH}/{}", named.id)), &named.company),
            Self::Cancel(Cancel { named }) => (Request::act(&format!("{PATH}/{}/cancel", named.id)), &named.company),
        };
        let company = companies::chosen(connection, company).await?;
        let answer = connection.call(request.for_company(company.as_deref())).await?.success()?;
        if format == Format::Json {
            return output::line(&answer.json_line()?);
        }
        match self {
            Self::List(_) => {
                let mut table = Table::new(&["ID", "SUBSCRIPTION", "STATE", "ENDED", "OF", "CREATED"]);
                for replay in answer.json::<Listed>()?.replays {
                    let Shown { replay_id, subscription_id, state, count, done, created_utc, .. } = replay;
                    table.push([
                        replay_id.to_string(),
                        subscription_id.to_string(),
                        state,
                        done.to_string(),
                        count.to_string(),
                        created_utc,
                    ]);
                }
                table.print()
            }
            Self::Show(_) => answer.json::<Shown>()?.print(),
            Self::Cancel(_) => {
                let Shown { replay_id, done, count, .. } = answer.json()?;
                output::line(&format!("replay {replay_id} is cancelled; {done} of {count} events have been sent"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        replay: Replay,
    }

    fn body(options: &[&str]) -> Option<Value> {
        let words = ["replay", "12"].iter().chain(options);
        Line::try_parse_from(words).ok().map(|line| line.replay.body())
    }

    #[test]
    fn what_was_said_is_sent_and_nothing_else() {
        assert_eq!(body(&["--state", "dead"]), Some(json!({"state": "dead"})));
        assert_eq!(body(&["--id", "7", "--id", "9", "--dry-run"]), Some(json!({"ids": [7, 9], "dryRun": true})));
        let stretch = ["--from", "2026-11-22T10:00:00Z", "--to", "abc", "--types", "claim.*,policy.bound", "--rate-per-minute", "60"];
        let expected = json!({"from": "2026-11-22T10:00:00Z", "to": "abc", "types": ["claim.*", "policy.bound"], "ratePerMinute": 60});
        assert_eq!(body(&stretch), Some(expected));
    }

    #[test]
    fn something_must_be_said_and_not_against_itself() {
        for options in [&[][..], &["--dry-run"], &["--id", "7", "--state", "dead"], &["--state", "pending"], &["--id", "x"]] {
            assert_eq!(body(options), None, "{options:?}");
        }
    }
}
