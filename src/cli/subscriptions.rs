//! `lutine subscription`: where and how a company's webhooks go.

use std::str::FromStr;

use clap::{ArgGroup, Args, Subcommand};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::companies;
use super::failure::Failure;
use super::options::{CompanyOption, type_list};
use super::output::{self, Format, Table, cut, note};
use super::transport::{Answer, Connection, Request};

/// Where subscriptions are made and listed.
pub const PATH: &str = "/api/v1/webhooks/subscriptions";
/// Characters of a URL in a table.
const URL_WIDTH: usize = 60;
/// Characters of a list of types in a table.
const TYPES_WIDTH: usize = 40;

/// Commands about subscriptions.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a subscription; its secret is shown this once
    Create(Box<Create>),
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
    /// Send again what was sent before, or should have been
    Replay(super::replays::Replay),
    /// Sign with another secret, which is shown this once
    RotateSecret(RotateSecret),
    /// Delete a subscription with its deliveries
    Delete(Delete),
}

/// Options of `lutine subscription create`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("auth"), after_help = "\
Here --url is the receiver's. Over the network LUTINE_URL and LUTINE_API_KEY name daemon and key.

Overrides: body, contentType, signature, signatureHeader, successCodes, lenientSuccess,
retryScheduleSeconds, timeoutSeconds, payloadAs, keepResponse.

Examples:
  lutine subscription create --url https://partner.example/hooks
  lutine subscription create --url https://partner.example/hooks --types 'claim.*,policy.bound'
  lutine subscription create --url https://partner.example/hooks --profile envelope
  lutine subscription create --url https://partner.example/hooks --override timeoutSeconds=5 \\
    --override 'retryScheduleSeconds=[5,60,600]'
  lutine subscription create --url http://localhost:8081/ --name 'my sink' --start-from oldest")]
pub struct Create {
    /// Where to: https, or http where egress.allow_http allows it
    // It has the id of the option that names the daemon with every other command, and so takes its place.
    #[arg(id = "url", long = "url", value_name = "URL", required = true)]
    url: String,
    /// Only these types, separated by commas: claim.created, claim.* or claim.created@2 [default: all]
    #[arg(long, value_parser = types_or_all)]
    types: Option<String>,
    /// How webhooks look: standard (Standard Webhooks) or envelope (the event as it is read)
    #[arg(long, value_name = "standard|envelope", default_value = "standard")]
    profile: String,
    /// A name for people [default: the URL]
    #[arg(long)]
    name: Option<String>,
    /// Several at a time, one after the other in the order of the log, or that for each key [default: parallel]
    #[arg(long, value_name = "parallel|strict|key")]
    ordering: Option<String>,
    /// Where the key stands in a payload, as a JSON pointer such as /claim/id; with --ordering key
    #[arg(long, value_name = "POINTER")]
    ordering_key: Option<String>,
    /// Attempts that may be under way at once [default: as configured]
    #[arg(long, value_name = "N")]
    max_in_flight: Option<u16>,
    /// Attempts a minute, 0 for no limit [default: 0]
    #[arg(long, value_name = "N")]
    rate_per_minute: Option<u32>,
    /// A change of the profile (repeatable); the value is JSON or else text
    #[arg(long = "override", value_name = "MEMBER=VALUE", value_parser = str::parse::<Member>)]
    overrides: Vec<Member>,
    /// A header that every webhook carries (repeatable)
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Send `Authorization: Bearer` with this token
    #[arg(long, value_name = "TOKEN", group = "auth")]
    bearer: Option<String>,
    /// Send `Authorization: Basic` with this name and password
    #[arg(long, value_name = "NAME:PASSWORD", group = "auth", value_parser = name_and_password)]
    basic: Option<(String, String)>,
    /// Which event is the first: the next one (tail), the oldest that is kept, or the one behind a cursor [default: tail]
    #[arg(long, value_name = "tail|oldest|CURSOR")]
    start_from: Option<String>,
    #[command(flatten)]
    company: CompanyOption,
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

/// Options of `lutine subscription delete`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lutine subscription delete 12")]
pub struct Delete {
    #[command(flatten)]
    named: Named,
}

/// One `member=value`.
#[derive(Debug, Clone, PartialEq)]
struct Member {
    name: String,
    value: Value,
}

impl FromStr for Member {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once('=').ok_or("it is a member, = and a value, such as timeoutSeconds=10")?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        Ok(Self { name: name.trim().to_owned(), value })
    }
}

/// The number of a subscription.
pub fn id(text: &str) -> Result<u32, &'static str> {
    text.parse().map_err(|_| "the id of a subscription is a whole number such as 12")
}

fn types_or_all(text: &str) -> Result<String, String> {
    if text == "*" { Ok(text.to_owned()) } else { type_list(text).map_err(|error| error.to_string()) }
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("it is a name, a colon and a value, such as 'X-Partner: 7'")?;
    let (name, value) = (name.trim(), value.trim());
    crate::webhook::check_header(name, value).map_err(|error| error.to_string())?;
    Ok((name.to_owned(), value.to_owned()))
}

fn name_and_password(text: &str) -> Result<(String, String), &'static str> {
    let (name, password) = text.split_once(':').ok_or("it is a name, a colon and a password")?;
    Ok((name.to_owned(), password.to_owned()))
}

/// A subscription as the API tells it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Subscription {
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

    fn print(&self) -> Result<(), Failure> {
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
            Self::Replay(replay) => replay.run(connection, format).await,
            Self::RotateSecret(RotateSecret { overlap_seconds, named }) => named.rotate_secret(connection, overlap_seconds, format).await,
            Self::Delete(Delete { named }) => named.delete(connection, format).await,
        }
    }
}

impl Create {
    fn body(self) -> Result<Value, Failure> {
        let mut overrides = Map::new();
        for Member { name, value } in self.overrides {
            if overrides.insert(name.clone(), value).is_some() {
                return Err(Failure::Usage(format!("--override {name}=... was given twice")));
            }
        }
        let mut headers = Map::new();
        for (name, value) in self.headers {
            if headers.keys().any(|known| known.eq_ignore_ascii_case(&name)) {
                return Err(Failure::Usage(format!("--header '{name}: ...' was given twice")));
            }
            headers.insert(name, value.into());
        }
        let types: Vec<&str> =
            self.types.as_deref().filter(|types| *types != "*").map(|types| types.split(',').collect()).unwrap_or_default();
        let mut body = Map::new();
        let mut put = |name: &str, value: Option<Value>| body.extend(value.map(|value| (name.to_owned(), value)));
        put("url", Some(self.url.into()));
        put("types", Some(types.into()));
        put("profile", Some(self.profile.into()));
        put("name", self.name.map(Value::from));
        put("ordering", self.ordering.map(Value::from));
        put("orderingKey", self.ordering_key.map(Value::from));
        put("maxInFlight", self.max_in_flight.map(Value::from));
        put("ratePerMinute", self.rate_per_minute.map(Value::from));
        put("overrides", (!overrides.is_empty()).then_some(Value::Object(overrides)));
        put("headers", (!headers.is_empty()).then_some(Value::Object(headers)));
        put("auth", self.bearer.map(|token| json!({"kind": "bearer", "token": token})));
        put("auth", self.basic.map(|(username, password)| json!({"kind": "basic", "username": username, "password": password})));
        put("startFrom", self.start_from.map(Value::from));
        Ok(Value::Object(body))
    }

    async fn run(self, connection: &Connection, format: Format) -> Result<(), Failure> {
        let company = companies::chosen(connection, &self.company).await?;
        let request = Request::post_json(PATH, &self.body()?).for_company(company.as_deref());
        let answer = connection.call(request).await?.success()?;
        match format {
            Format::Json => output::line(&answer.json_line()?),
            Format::Table => {
                answer.json::<Subscription>()?.print()?;
                note("note: the secret is shown only now; give it to the receiver, which checks signatures with it");
                Ok(())
            }
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

    async fn delete(&self, connection: &Connection, format: Format) -> Result<(), Failure> {
        self.call(connection, Request::delete(&self.path(""))).await?;
        match format {
            Format::Json => output::line(&json!({"id": self.id, "deleted": true}).to_string()),
            Format::Table => output::line(&format!("subscription {} is deleted", self.id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: Command,
    }

    fn body(options: &[&str]) -> Result<Value, Failure> {
        let words = ["subscription", "create", "--url", "https://a.example/"];
        match Line::try_parse_from(words.iter().chain(options)).unwrap().command {
            Command::Create(create) => create.body(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_was_not_said_is_not_sent() {
        assert_eq!(body(&[]).unwrap(), json!({"url": "https://a.example/", "types": [], "profile": "standard"}));
    }

    #[test]
    fn everything_that_was_said_is_sent() {
        let options = [
            "--types",
            "claim.*,policy.bound@2",
            "--profile",
            "envelope",
            "--name",
            "n",
            "--ordering",
            "key",
            "--ordering-key",
            "/claim/id",
            "--max-in-flight",
            "4",
            "--rate-per-minute",
            "60",
            "--override",
            "retryScheduleSeconds=[0.3]",
            "--override",
            "contentType=text/plain",
            "--header",
            "X-Partner: 7:8",
            "--basic",
            "a:b:c",
            "--start-from",
            "oldest",
        ];
        let expected = json!({
            "url": "https://a.example/", "types": ["claim.*", "policy.bound@2"], "profile": "envelope", "name": "n", "ordering": "key",
            "orderingKey": "/claim/id",
            "maxInFlight": 4, "ratePerMinute": 60, "overrides": {"retryScheduleSeconds": [0.3], "contentType": "text/plain"},
            "headers": {"X-Partner": "7:8"}, "auth": {"kind": "basic", "username": "a", "password": "b:c"}, "startFrom": "oldest",
        });
        assert_eq!(body(&options).unwrap(), expected);
        assert_eq!(body(&["--bearer", "t"]).unwrap()["auth"], json!({"kind": "bearer", "token": "t"}));
    }

    #[test]
    fn what_is_said_twice_or_against_itself_is_refused() {
        assert!(matches!(body(&["--override", "a=1", "--override", "a=2"]), Err(Failure::Usage(_))));
        assert!(matches!(body(&["--header", "X-A: 1", "--header", "x-a: 2"]), Err(Failure::Usage(_))));
        let words = ["subscription", "create", "--url", "https://a.example/", "--bearer", "t", "--basic", "a:b"];
        assert!(Line::try_parse_from(words).is_err());
        assert!(header("Content-Length: 7").is_err() && header("X-A").is_err());
    }
}
