//! `lutine subscription`: where and how a company's webhooks go.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::companies;
use super::failure::Failure;
use super::options::CompanyOption;
use super::output::{self, Format, Table, cut, note};
use super::subscribe;
use super::transport::{Answer, Connection, Request};

/// Where subscriptions are made and listed.
pub const PATH: &str = "/api/v1/webhooks/subscriptions";
/// How long a receiver may take to consent: the longest time-out of an attempt, and some.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(75);
/// How long checking a receiver may take: twice that.
const CHECK_TIMEOUT: Duration = Duration::from_secs(150);
/// Characters of a URL in a table.
const URL_WIDTH: usize = 60;
/// Characters of a list of types in a table.
const TYPES_WIDTH: usize = 40;

/// Commands about subscriptions.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a subscription; its secret is shown this once
    Create(Box<subscribe::Create>),
    /// List subscriptions
    List(List),
    /// Show one subscription
    Show(Show),
    /// Stop sending; nothing is lost while the events are kept
    Pause(Pause),
    /// Send again, from where it stopped
    Resume(Resume),
    /// Send a test event to the receiver
    Test(Test),
    /// Ask the receiver for its consent (CloudEvents web hooks); until it gives it nothing is sent
    Verify(Verify),
    /// Try the receiver with good, repeated, tampered, old and slow webhooks, and explain its answers
    Check(Check),
    /// Send again what was sent before, or should have been
    Replay(super::replays::Replay),
    /// Sign with another secret, which is shown this once
    RotateSecret(RotateSecret),
    /// Delete a subscription with its deliveries
    Delete(Delete),
}

/// Options of `lutine subscription list`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lutine subscription list
  lutine subscription list --output json | jq '.subscriptions[] | select(.state != \"active\")'")]
pub struct List {
    #[command(flatten)]
    company: CompanyOption,
}

/// Which subscription.
#[derive(Debug, Args)]
struct Named {
    /// Its number, as creating and listing tell it
    #[arg(value_parser = id)]
    id: u32,
    #[command(flatten)]
    company: CompanyOption,
}

/// Options of `lutine subscription show`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lutine subscription show 12")]
pub struct Show {
    #[command(flatten)]
    named: Named,
}

/// Options of `lutine subscription pause`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lutine subscription pause 12")]
pub struct Pause {
    #[command(flatten)]
    named: Named,
}

/// Options of `lutine subscription resume`.
#[derive(Debug, Args)]
#[command(after_help = "\
It makes any state active: paused, probing, suspended or disabled.

Example:
  lutine subscription resume 12")]
pub struct Resume {
    #[command(flatten)]
    named: Named,
}

/// Options of `lutine subscription test`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lutine subscription test 12
  lutine delivery show $(lutine subscription test 12 --output json | jq -r .deliveryId)")]
pub struct Test {
    #[command(flatten)]
    named: Named,
}

/// Options of `lutine subscription rotate-secret`.
#[derive(Debug, Args)]
#[command(after_help = "\
While both secrets count, webhook-signature holds a signature with each. A signature that has a header or a member for
itself is made with the new secret alone.

Examples:
  lutine subscription rotate-secret 12
  lutine subscription rotate-secret 12 --overlap-seconds 0")]
pub struct RotateSecret {
    /// For how long the secret before counts, too, in seconds; 0 revokes it at once [default: 86400]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=604_800))]
    overlap_seconds: Option<u32>,
    #[command(flatten)]
    named: Named,
}

/// Options of `lutine subscription verify`.
#[derive(Debug, Args)]
#[command(after_help = "\
It is for subscriptions with the override handshake=options. The receiver consents by the headers
WebHook-Allowed-Origin and WebHook-Allowed-Rate, or later at the address it is told.

Example:
  lutine subscription verify 12")]
pub struct Verify {
    #[command(flatten)]
    named: Named,
}

/// Options of `lutine subscription check`.
#[derive(Debug, Args)]
#[command(after_help = "\
The webhooks are of the type lutine.subscription.test and stand in no log. The other cases are sent
only when the good one is taken. The exit code is 1 when the receiver fails a case.

Examples:
  lutine subscription check 12
  lutine subscription check 12 --output json | jq '.cases[] | select(.passed == false)'")]
pub struct Check {
    #[command(flatten)]
    named: Named,
}

/// Options of `lutine subscription delete`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lutine subscription delete 12")]
pub struct Delete {
    #[command(flatten)]
    named: Named,
}

/// The number of a subscription.
pub fn id(text: &str) -> Result<u32, &'static str> {
    text.parse().map_err(|_| "the id of a subscription is a whole number such as 12")
}

/// A subscription as the API tells it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Subscription {
    id: u32,
    name: String,
    url: String,
    types: Vec<String>,
    profile: String,
    overrides: Map<String, Value>,
    auth: Map<String, Value>,
    headers: Map<String, Value>,
    ordering: String,
    ordering_key: Option<String>,
    max_in_flight: u16,
    rate_per_minute: u32,
    state: String,
    created_utc: String,
    backlog: Backlog,
    /// Only in the answer to its creation.
    secret: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Backlog {
    events: u64,
    oldest_seconds: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rotated {
    secret: String,
    previous_expires_utc: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Subscriptions {
    subscriptions: Vec<Subscription>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tested {
    delivery_id: String,
}

#[derive(Debug, Deserialize)]
struct Verified {
    state: String,
    detail: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Checked {
    passed: bool,
    cases: Vec<CheckedCase>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CheckedCase {
    case: String,
    passed: Option<bool>,
    meaning: String,
    status: Option<u64>,
    error: Option<String>,
    duration_ms: Option<u64>,
}

impl Backlog {
    fn text(&self) -> String {
        match self.events {
            0 => "0".to_owned(),
            events => format!("{events}, the oldest since {} s", self.oldest_seconds),
        }
    }
}

impl Subscription {
    fn types(&self) -> String {
        if self.types.is_empty() { "all".to_owned() } else { self.types.join(",") }
    }

    fn order(&self) -> String {
        self.ordering_key.as_ref().map_or_else(|| self.ordering.clone(), |key| format!("{} {key}", self.ordering))
    }

    pub(super) fn print(&self) -> Result<(), Failure> {
        let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let members = |members: &Map<String, Value>, sign: &str| {
            let members: Vec<String> = members.iter().map(|(name, value)| format!("{name}{sign}{}", plain(value))).collect();
            if members.is_empty() { "-".to_owned() } else { members.join("; ") }
        };
        let rate = if self.rate_per_minute == 0 { "unlimited".to_owned() } else { self.rate_per_minute.to_string() };
        let mut pairs = vec![
            ("id", self.id.to_string()),
            ("name", self.name.clone()),
            ("state", self.state.clone()),
            ("url", self.url.clone()),
            ("types", self.types()),
            ("profile", self.profile.clone()),
            ("overrides", members(&self.overrides, "=")),
            ("auth", self.auth.get("kind").map(plain).unwrap_or_default()),
            ("headers", members(&self.headers, ": ")),
            ("ordering", format!("{}, {} in flight at most", self.order(), self.max_in_flight)),
            ("rate a minute", rate),
            ("created", self.created_utc.clone()),
            ("backlog", self.backlog.text()),
        ];
        pairs.extend(self.secret.clone().map(|secret| ("secret", secret)));
        Table::of_pairs(&pairs).print()
    }
}

impl Command {
    /// Does what the command says.
    pub async fn run(self, connection: &Connection, format: Format) -> Result<(), Failure> {
        match self {
            Self::Create(create) => create.run(connection, format).await,
            Self::List(List { company }) => list(connection, &company, format).await,
            Self::Show(Show { named }) => {
                let answer = named.call(connection, Request::get(&named.path(""))).await?;
                match format {
                    Format::Json => output::line(&answer.json_line()?),
                    Format::Table => answer.json::<Subscription>()?.print(),
                }
            }
            Self::Pause(Pause { named }) => named.act(connection, "pause", format).await,
            Self::Resume(Resume { named }) => named.act(connection, "resume", format).await,
            Self::Test(Test { named }) => named.test(connection, format).await,
            Self::Verify(Verify { named }) => named.verify(connection, format).await,
            Self::Check(Check { named }) => named.check(connection, format).await,
            Self::Replay(replay) => replay.run(connection, format).await,
            Self::RotateSecret(RotateSecret { overlap_seconds, named }) => named.rotate_secret(connection, overlap_seconds, format).await,
            Self::Delete(Delete { named }) => named.delete(connection, format).await,
        }
    }
}

async fn list(connection: &Connection, company: &CompanyOption, format: Format) -> Result<(), Failure> {
    let company = companies::chosen(connection, company).await?;
    let answer = connection.call(Request::get(PATH).for_company(company.as_deref())).await?.success()?;
    match format {
        Format::Json => output::line(&answer.json_line()?),
        Format::Table => {
            let mut table = Table::new(&["ID", "NAME", "STATE", "BACKLOG", "PROFILE", "TYPES", "URL"]);
            for subscription in answer.json::<Subscriptions>()?.subscriptions {
                let (types, url) = (cut(&subscription.types(), TYPES_WIDTH), cut(&subscription.url, URL_WIDTH));
                let Subscription { id, name, state, backlog, profile, .. } = subscription;
                table.push([id.to_string(), cut(&name, TYPES_WIDTH), state, backlog.events.to_string(), profile, types, url]);
            }
            table.print()
        }
    }
}

impl Named {
    fn path(&self, action: &str) -> String {
        format!("{PATH}/{}{action}", self.id)
    }

    async fn call(&self, connection: &Connection, request: Request) -> Result<Answer, Failure> {
        let company = companies::chosen(connection, &self.company).await?;
        connection.call(request.for_company(company.as_deref())).await?.success()
    }

    async fn act(&self, connection: &Connection, action: &str, format: Format) -> Result<(), Failure> {
        let answer = self.call(connection, Request::act(&self.path(&format!("/{action}")))).await?;
        match format {
            Format::Json => output::line(&answer.json_line()?),
            Format::Table => {
                let Subscription { id, state, backlog, .. } = answer.json()?;
                output::line(&format!("subscription {id} is {}; events waiting: {}", output::printable(&state), backlog.text()))
            }
        }
    }

    async fn test(&self, connection: &Connection, format: Format) -> Result<(), Failure> {
        let answer = self.call(connection, Request::act(&self.path("/test"))).await?;
        match format {
            Format::Json => output::line(&answer.json_line()?),
            Format::Table => {
                let Tested { delivery_id } = answer.json()?;
                let delivery_id = output::printable(&delivery_id);
                output::line(&format!("a test event is on its way; `lutine delivery show {delivery_id}` tells how it went"))
            }
        }
    }

    async fn rotate_secret(&self, connection: &Connection, overlap: Option<u32>, format: Format) -> Result<(), Failure> {
        let path = self.path("/rotate-secret");
        let request = overlap.map_or_else(|| Request::act(&path), |overlap| Request::post_json(&path, &json!({"overlapSeconds": overlap})));
        let answer = self.call(connection, request).await?;
        match format {
            Format::Json => output::line(&answer.json_line()?),
            Format::Table => {
                let Rotated { secret, previous_expires_utc } = answer.json()?;
                let until = previous_expires_utc.unwrap_or_else(|| "no longer".to_owned());
                Table::of_pairs(&[("secret", secret), ("the one before counts until", until)]).print()?;
                note("note: the secret is shown only now; give it to the receiver, which checks signatures with it");
                Ok(())
            }
        }
    }

    async fn verify(&self, connection: &Connection, format: Format) -> Result<(), Failure> {
        let answer = self.call(connection, Request::act(&self.path("/verify")).within(VERIFY_TIMEOUT)).await?;
        match format {
            Format::Json => output::line(&answer.json_line()?),
            Format::Table => {
                let Verified { state, detail } = answer.json()?;
                let reason = detail.map(|detail| format!(": {}", output::printable(&detail))).unwrap_or_default();
                output::line(&format!("subscription {} is {}{reason}", self.id, output::printable(&state)))
            }
        }
    }

    async fn check(&self, connection: &Connection, format: Format) -> Result<(), Failure> {
        let answer = self.call(connection, Request::act(&self.path("/check")).within(CHECK_TIMEOUT)).await?;
        let Checked { passed, cases } = answer.json()?;
        match format {
            Format::Json => output::line(&answer.json_line()?)?,
            Format::Table => {
                let mut table = Table::new(&["CASE", "RESULT", "ANSWER", "MS", "THE RECEIVER"]);
                for case in cases {
                    let result = match case.passed {
                        Some(true) => "ok",
                        Some(false) => "FAILED",
                        None => "-",
                    };
                    let or_none = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
                    let error = case.error.filter(|_| case.status.is_none()).map(|error| format!(" ({error})")).unwrap_or_default();
                    let meaning = format!("{}{error}", case.meaning);
                    table.push([case.case, result.to_owned(), or_none(case.status), or_none(case.duration_ms), meaning]);
                }
                table.print()?;
            }
        }
        if passed { Ok(()) } else { Err(Failure::Reported) }
    }

    async fn delete(&self, connection: &Connection, format: Format) -> Result<(), Failure> {
        self.call(connection, Request::delete(&self.path(""))).await?;
        match format {
            Format::Json => output::line(&json!({"id": self.id, "deleted": true}).to_string()),
            Format::Table => output::line(&format!("subscription {} is deleted", self.id)),
        }
    }
}
