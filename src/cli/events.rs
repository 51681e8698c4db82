//! `lutine event`: publishing and reading events.

use clap::{Args, Subcommand, ValueEnum};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::batch;
use super::companies;
use super::failure::Failure;
use super::options::{CompanyOption, checked, event_id, json_text, origin, type_list};
use super::output::{self, Format, Table, cut, note, printable};
use super::tail::Tail;
use super::transport::{Answer, Connection, Need, Request};
use crate::domain::event::{DedupeKey, EventType, EventVersion};
use crate::domain::time::Timestamp;

/// Where events are published and listed.
pub const PATH: &str = "/api/v1/events";
/// Characters of a payload in a table.
const PAYLOAD_WIDTH: usize = 72;

/// Commands about events.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Publish one event, or a file of them
    Publish(Publish),
    /// Show one event
    Get(Get),
    /// List events, a page at a time
    List(List),
    /// Follow the log and print events as they come, until Ctrl-C
    Tail(Tail),
}

/// Options of `lutine event publish`.
#[derive(Debug, Args)]
#[command(after_help = "\
Once it is done, the event is on disk. When there was no answer, repeat it with the same --dedupe-key: it is stored once.
A batch has one event a line: {\"type\":..., \"payload\":..., \"metadata\":..., \"dedupeKey\":..., \"version\":..., \"references\":...,
\"occurredAt\":...}; a line has at most 4 MiB, snapshots of references included.

Examples:
  lutine event publish --type claim.created --payload '{\"claimId\":\"c-1\"}' --dedupe-key c-1
  lutine event publish --type claim.created --payload @claim.json
  jq -c .claim export.json | lutine event publish --type claim.created --payload -
  lutine event publish --batch events.ndjson --company acme")]
pub struct Publish {
    /// Its type, such as claim.created
    #[arg(long = "type", value_name = "TYPE", value_parser = checked::<EventType>, required_unless_present = "batch")]
    kind: Option<String>,
    /// Its payload: JSON, @FILE, or - for standard input [default: {}]
    #[arg(long, value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
    payload: Option<String>,
    /// Its metadata: JSON, @FILE, or - for standard input [default: {}]
    #[arg(long, value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
    metadata: Option<String>,
    /// Your name for the event, at most 256 bytes: what is published twice with it is stored once
    #[arg(long, value_name = "KEY", value_parser = checked::<DedupeKey>)]
    dedupe_key: Option<String>,
    /// The version of its payload [default: 1]
    #[arg(long, value_parser = checked::<EventVersion>)]
    version: Option<String>,
    /// When it happened, an RFC 3339 date-time such as 2026-11-22T10:30:00Z
    #[arg(long, value_name = "TIME", value_parser = checked::<Timestamp>)]
    occurred_at: Option<String>,
    /// Publish every line of a file of JSON lines, or of standard input (-), and report the lines that are refused
    #[arg(long, value_name = "FILE|-", conflicts_with_all = ["kind", "payload", "metadata", "dedupe_key", "version", "occurred_at"])]
    batch: Option<String>,
    #[command(flatten)]
    company: CompanyOption,
}

/// Options of `lutine event get`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lutine event get 1042
  lutine event get 1042 --output json | jq -r .payload | jq .")]
pub struct Get {
    /// Its id, as publishing and listing tell it
    #[arg(value_parser = event_id)]
    id: u64,
    #[command(flatten)]
    company: CompanyOption,
}

/// Options of `lutine event list`.
#[derive(Debug, Args)]
#[command(after_help = "\
JSON has `pagingCursor` when there is more, and `resumeCursor`, from which to read on later.

Examples:
  lutine event list --order desc --limit 10
  lutine event list --types 'claim.*,policy.bound@2' --from 2026-11-22T00:00:00Z
  lutine event list --cursor CURSOR --output json")]
pub struct List {
    /// Only these types, separated by commas: claim.created, claim.* or claim.created@2
    #[arg(long, value_parser = type_list)]
    types: Option<String>,
    /// Where an earlier list ended
    #[arg(long, conflicts_with = "from")]
    cursor: Option<String>,
    /// Where to begin: oldest, latest, or an RFC 3339 date-time [default: oldest; latest with --order desc]
    #[arg(long, value_name = "oldest|latest|TIME", value_parser = origin)]
    from: Option<String>,
    /// At most so many events, 1 to 200 [default: 50]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=200))]
    limit: Option<u16>,
    /// Oldest first (asc) or newest first (desc) [default: asc]
    #[arg(long, value_name = "asc|desc", value_enum, hide_possible_values = true)]
    order: Option<Order>,
    #[command(flatten)]
    company: CompanyOption,
}

/// Which way a list goes.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Order {
    /// Oldest first.
    Asc,
    /// Newest first.
    Desc,
}

/// An envelope, as far as people look at it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    id: u64,
    company_id: u32,
    #[serde(rename = "type")]
    kind: String,
    created_utc: String,
    payload: String,
    metadata: String,
}

#[derive(Debug, Deserialize)]
struct Receipt {
    id: u64,
    #[serde(rename = "createdUtc")]
    created: String,
    #[serde(default)]
    duplicate: bool,
}

/// A page whose envelopes are kept as they came.
#[derive(Debug, Deserialize)]
pub struct Page {
    /// The envelopes, oldest or newest first.
    pub events: Vec<Box<RawValue>>,
}

impl Envelope {
    /// Reads one.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(text: &RawValue) -> Result<Self, Failure> {
        serde_json::from_str(text.get()).map_err(|error| Failure::caused("the answer holds an event that cannot be read", &error))
    }

    /// The event on one line, its payload cut.
    #[must_use]
    pub fn line(&self) -> String {
        let Self { id, kind, created_utc, payload, .. } = self;
        format!("{created_utc}  {id}  {kind}  {}", cut(&printable(payload), PAYLOAD_WIDTH))
    }
}

impl Command {
    /// What the command needs behind it.
    pub fn need(&self) -> Need {
        match self {
            Self::Tail(_) => Need::Daemon,
            Self::Publish(_) | Self::Get(_) | Self::List(_) => Need::Store,
        }
    }

    /// Does what the command says.
    pub async fn run(self, connection: &Connection, format: Format) -> Result<(), Failure> {
        match self {
            Self::Publish(publish) => publish.run(connection, format).await,
            Self::Get(get) => get.run(connection, format).await,
            Self::List(list) => list.run(connection, format).await,
            Self::Tail(tail) => tail.run(connection, format).await,
        }
    }
}

impl Publish {
    fn body(self) -> Result<(String, Vec<u8>), Failure> {
        if self.payload.as_deref() == Some("-") && self.metadata.as_deref() == Some("-") {
            return Err(Failure::Usage("standard input can be --payload or --metadata, not both".to_owned()));
        }
        let kind = self.kind.unwrap_or_default();
        let mut members = vec![("type", Value::from(kind.as_str()).to_string())];
        for (name, option, value) in [("payload", "--payload", self.payload), ("metadata", "--metadata", self.metadata)] {
            if let Some(value) = value {
                members.push((name, member_value(json_text(option, &value)?)));
            }
        }
        for (name, value) in [("dedupeKey", self.dedupe_key), ("version", self.version), ("occurredAt", self.occurred_at)] {
            members.extend(value.map(|value| (name, Value::from(value).to_string())));
        }
        let members: Vec<String> = members.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        Ok((kind, format!("{{{}}}", members.join(",")).into_bytes()))
    }

    async fn run(self, connection: &Connection, format: Format) -> Result<(), Failure> {
        let company = companies::chosen(connection, &self.company).await?;
        if let Some(file) = &self.batch {
            return batch::publish(connection, company.as_deref(), file, format).await;
        }
        let (kind, body) = self.body()?;
        let request = Request::post(PATH, "application/json", body).for_company(company.as_deref());
        print_receipt(&connection.call(request).await?.success()?, &kind, format)
    }
}

/// JSON text as a member of a publish request: the API keeps the source text of a value, but takes a string for text that
/// holds JSON and null for nothing, so these two are wrapped.
fn member_value(text: String) -> String {
    if text.starts_with('"') || text == "null" { Value::from(text).to_string() } else { text }
}

/// Prints what a publisher is told.
///
/// # Errors
/// When the answer is none of Lutine, or cannot be printed.
pub fn print_receipt(answer: &Answer, kind: &str, format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => output::line(&answer.json_line()?),
        Format::Table => {
            let Receipt { id, created, duplicate } = answer.json()?;
            output::line(&match duplicate {
                false => format!("published {kind} as event {id} at {created}"),
                true => format!("event {id} has this dedupe key since {created}; nothing was stored"),
            })
        }
    }
}

impl Get {
    async fn run(self, connection: &Connection, format: Format) -> Result<(), Failure> {
        let company = companies::chosen(connection, &self.company).await?;
        let request = Request::get(&format!("{PATH}/{}", self.id)).for_company(company.as_deref());
        let answer = connection.call(request).await?.success()?;
        match format {
            Format::Json => output::line(&answer.json_line()?),
            Format::Table => {
                let Envelope { id, company_id, kind, created_utc, payload, metadata } = answer.json()?;
                Table::of_pairs(&[
                    ("id", id.to_string()),
                    ("company", company_id.to_string()),
                    ("type", kind),
                    ("created", created_utc),
                    ("payload", payload),
                    ("metadata", metadata),
                ])
                .print()
            }
        }
    }
}

impl List {
    async fn run(self, connection: &Connection, format: Format) -> Result<(), Failure> {
        let company = companies::chosen(connection, &self.company).await?;
        let limit = self.limit.map(|limit| limit.to_string());
        let order = self.order.map(|order| match order {
            Order::Asc => "asc",
            Order::Desc => "desc",
        });
        let request = Request::get(PATH).query(&[
            ("types", self.types.as_deref()),
            ("cursor", self.cursor.as_deref()),
            ("from", self.from.as_deref()),
            ("limit", limit.as_deref()),
            ("order", order),
        ]);
        let answer = connection.call(request.for_company(company.as_deref())).await?.success()?;
        let page: Page = answer.json()?;
        let (paging, resume) = (answer.header("x-paging-cursor"), answer.header("x-resume-cursor"));
        match format {
            Format::Json => output::line(&page_json(&page, paging, resume)),
            Format::Table => {
                let mut table = Table::new(&["ID", "CREATED", "TYPE", "PAYLOAD"]);
                for event in &page.events {
                    let Envelope { id, kind, created_utc, payload, .. } = Envelope::read(event)?;
                    table.push([id.to_string(), created_utc, kind, cut(&printable(&payload), PAYLOAD_WIDTH)]);
                }
                table.print()?;
                match (paging, resume) {
                    (Some(cursor), _) => note(&format!("note: there is more behind --cursor {}", printable(cursor))),
                    (None, Some(cursor)) => note(&format!("note: that is all; what comes later is behind --cursor {}", printable(cursor))),
                    (None, None) => {}
                }
                Ok(())
            }
        }
    }
}

/// The page as the API gives it, and the cursors that it gives in headers.
fn page_json(page: &Page, paging: Option<&str>, resume: Option<&str>) -> String {
    let events: Vec<&str> = page.events.iter().map(|event| event.get()).collect();
    let mut cursors = Map::new();
    cursors.extend(paging.map(|cursor| ("pagingCursor".to_owned(), Value::from(cursor))));
    cursors.extend(resume.map(|cursor| ("resumeCursor".to_owned(), Value::from(cursor))));
    let members: String = cursors.iter().map(|(name, cursor)| format!(",\"{name}\":{cursor}")).collect();
    format!("{{\"events\":[{}]{members}}}", events.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(payload: &str) -> Publish {
        Publish {
            kind: Some("claim.created".to_owned()),
            payload: Some(payload.to_owned()),
            metadata: None,
            dedupe_key: Some("a \"key\"".to_owned()),
            version: None,
            occurred_at: None,
            batch: None,
            company: CompanyOption { company: None },
        }
    }

    #[test]
    fn a_payload_is_sent_in_its_own_text() {
        let (_, body) = publish("{ \"b\": 1.50, \"a\": 2 }\n").body().unwrap();
        let expected = r#"{"type":"claim.created","payload":{ "b": 1.50, "a": 2 },"dedupeKey":"a \"key\""}"#;
        assert_eq!(String::from_utf8(body).unwrap(), expected);
    }

    #[test]
    fn a_payload_that_is_a_string_or_null_is_wrapped() {
        assert_eq!(member_value("\"text\"".to_owned()), r#""\"text\"""#);
        assert_eq!(member_value("null".to_owned()), r#""null""#);
        assert_eq!(member_value("17".to_owned()), "17");
    }

    #[test]
    fn standard_input_is_read_for_one_option() {
        let both = Publish { metadata: Some("-".to_owned()), ..publish("-") };
        assert!(matches!(both.body(), Err(Failure::Usage(_))));
    }

    #[test]
    fn a_page_keeps_its_envelopes_and_gains_its_cursors() {
        let page: Page = serde_json::from_str(r#"{"events":[{"id":1,"payload":"{ }"},{"id":2}]}"#).unwrap();
        assert_eq!(page_json(&page, None, Some("abc")), r#"{"events":[{"id":1,"payload":"{ }"},{"id":2}],"resumeCursor":"abc"}"#);
    }
}
