//! `lutine delivery`: how webhooks went, and what is done about those that did not arrive.

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::companies;
use super::failure::Failure;
use super::options::{CompanyOption, checked, type_list};
use super::output::{self, Format, Table, note, printable, progress};
use super::subscriptions;
use super::transport::{Connection, Request};
use crate::domain::subscription::DeliveryId;
use crate::domain::time::Timestamp;

/// Where single deliveries are.
const PATH: &str = "/api/v1/deliveries";

/// Commands about deliveries.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the deliveries of a subscription, newest first, a page at a time
    List(List),
    /// Show one delivery with all its attempts
    Show(Show),
    /// Send a delivery again, or all dead letters of a subscription
    Retry(Retry),
    /// Give a delivery up, or all dead letters of a subscription, with a reason
    Discard(Discard),
}

/// Options of `lutine delivery list`.
#[derive(Debug, Args)]
#[command(after_help = "\
JSON has `pagingCursor` when there is more.

Examples:
  lutine delivery list --subscription 12
  lutine delivery list --subscription 12 --state dead --output json")]
pub struct List {
    /// The subscription, by number
    #[arg(long, value_name = "ID", value_parser = subscriptions::id)]
    subscription: u32,
    /// Only those that ended so: pending, delivered, dead, expired or cancelled
    #[arg(long, value_name = "STATE", value_parser = ["pending", "delivered", "dead", "expired", "cancelled"], hide_possible_values = true)]
    state: Option<String>,
    /// Only these types, separated by commas: claim.created, claim.* or claim.created@2
    #[arg(long, value_parser = type_list)]
    types: Option<String>,
    /// Where an earlier list ended
    #[arg(long)]
    cursor: Option<String>,
    /// At most so many deliveries, 1 to 200 [default: 50]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=200))]
    limit: Option<u16>,
    #[command(flatten)]
    company: CompanyOption,
}

/// Options of `lutine delivery show`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lutine delivery show 12-1042
  lutine delivery show 12-1042 --output json | jq '.attempts[-1]'")]
pub struct Show {
    /// The subscription's number, a hyphen and the event's
    #[arg(value_parser = checked::<DeliveryId>)]
    id: String,
    #[command(flatten)]
    company: CompanyOption,
}

/// Options of `lutine delivery retry`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lutine delivery retry 12-1042
  lutine delivery retry --all --subscription 12
  lutine delivery retry --all --subscription 12 --types 'claim.*' --from 2026-11-22T10:00:00Z --reason 'they are back'")]
pub struct Retry {
    /// The subscription's number, a hyphen and the event's
    #[arg(value_parser = checked::<DeliveryId>, required_unless_present = "all")]
    id: Option<String>,
    #[command(flatten)]
    all: All,
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    company: CompanyOption,
}

/// Options of `lutine delivery discard`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lutine delivery discard 12-1042 --reason 'settled by telephone'
  lutine delivery discard --all --subscription 12 --to 2026-11-01T00:00:00Z --reason 'too old to matter'")]
pub struct Discard {
    /// The subscription's number, a hyphen and the event's
    #[arg(value_parser = checked::<DeliveryId>, required_unless_present = "all")]
    id: Option<String>,
    #[command(flatten)]
    all: All,
    /// Why, for whoever looks at it later
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    company: CompanyOption,
}

/// Which dead letters, in place of a single delivery.
#[derive(Debug, Args)]
struct All {
    /// Every dead letter of a subscription
    #[arg(long, alias = "all-dead", requires = "subscription", conflicts_with = "id")]
    all: bool,
    /// The subscription of --all, by number
    #[arg(long, value_name = "ID", value_parser = subscriptions::id, requires = "all")]
    subscription: Option<u32>,
    /// With --all: only these types, separated by commas: claim.created, claim.* or claim.created@2
    #[arg(long, value_parser = type_list, requires = "all")]
    types: Option<String>,
    /// With --all: only events from this time on, an RFC 3339 date-time
    #[arg(long, value_name = "TIME", value_parser = checked::<Timestamp>, requires = "all")]
    from: Option<String>,
    /// With --all: only events before this time, an RFC 3339 date-time
    #[arg(long, value_name = "TIME", value_parser = checked::<Timestamp>, requires = "all")]
    to: Option<String>,
}

/// A delivery as the API tells it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Delivery {
    id: String,
    subscription_id: u32,
    event_id: u64,
    #[serde(rename = "type")]
    kind: Option<String>,
    state: String,
    next_due_utc: Option<String>,
    reason: Option<String>,
    /// Not in lists.
    #[serde(default)]
    attempts: Vec<Attempt>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attempt {
    number: u32,
    started_utc: String,
    duration_ms: u64,
    address: Option<String>,
    status: Option<u16>,
    excerpt: Option<String>,
    truncated: bool,
    error_class: Option<String>,
    error: Option<String>,
    next_due_utc: Option<String>,
}

/// A page whose deliveries are kept as they came.
#[derive(Debug, Deserialize)]
struct Page {
    deliveries: Vec<Box<RawValue>>,
}

/// What was done with a part of the dead letters.
#[derive(Debug, Deserialize)]
struct Settled {
    count: u64,
    more: bool,
}

impl Command {
    /// Does what the command says.
    pub async fn run(self, connection: &Connection, format: Format) -> Result<(), Failure> {
        match self {
            Self::List(list) => list.run(connection, format).await,
            Self::Show(show) => show.run(connection, format).await,
            Self::Retry(retry) => retry.run(connection, format).await,
            Self::Discard(discard) => discard.run(connection, format).await,
        }
    }
}

fn read(delivery: &RawValue) -> Result<Delivery, Failure> {
    serde_json::from_str(delivery.get()).map_err(|error| Failure::caused("the answer holds a delivery that cannot be read", &error))
}

fn list_path(subscription: u32) -> String {
    format!("{}/{subscription}/deliveries", subscriptions::PATH)
}

impl List {
    async fn run(self, connection: &Connection, format: Format) -> Result<(), Failure> {
        let company = companies::chosen(connection, &self.company).await?;
        let limit = self.limit.map(|limit| limit.to_string());
        let request = Request::get(&list_path(self.subscription)).query(&[
            ("state", self.state.as_deref()),
            ("types", self.types.as_deref()),
            ("cursor", self.cursor.as_deref()),
            ("limit", limit.as_deref()),
        ]);
        let answer = connection.call(request.for_company(company.as_deref())).await?.success()?;
        let page: Page = answer.json()?;
        let paging = answer.header("x-paging-cursor");
        match format {
            Format::Json => {
                let deliveries: Vec<&str> = page.deliveries.iter().map(|delivery| delivery.get()).collect();
                let cursor = paging.map(|cursor| format!(",\"pagingCursor\":{}", json!(cursor))).unwrap_or_default();
                output::line(&format!("{{\"deliveries\":[{}]{cursor}}}", deliveries.join(",")))
            }
            Format::Table => {
                let mut table = Table::new(&["ID", "EVENT", "TYPE", "STATE", "NEXT ATTEMPT"]);
                for delivery in &page.deliveries {
                    let Delivery { id, event_id, kind, state, next_due_utc, .. } = read(delivery)?;
                    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
                    table.push([id, event_id.to_string(), or_none(kind), state, or_none(next_due_utc)]);
                }
                table.print()?;
                if let Some(cursor) = paging {
                    note(&format!("note: there is more behind --cursor {}", printable(cursor)));
                }
                Ok(())
            }
        }
    }
}

impl Show {
    async fn run(self, connection: &Connection, format: Format) -> Result<(), Failure> {
        let company = companies::chosen(connection, &self.company).await?;
        let request = Request::get(&format!("{PATH}/{}", self.id)).for_company(company.as_deref());
        let answer = connection.call(request).await?.success()?;
        match format {
            Format::Json => output::line(&answer.json_line()?),
            Format::Table => output::line(&answer.json::<Delivery>()?.text()),
        }
    }
}

impl Delivery {
    /// The delivery and its attempts on one page.
    fn text(&self) -> String {
        let state = match &self.reason {
            Some(reason) => format!("{}: {reason}", self.state),
            None => self.state.clone(),
        };
        let kind = self.kind.as_deref().unwrap_or("of a type that is no longer known");
        let mut pairs = vec![
            ("delivery", self.id.clone()),
            ("event", format!("{}  {kind}", self.event_id)),
            ("subscription", self.subscription_id.to_string()),
            ("state", state),
        ];
        pairs.extend(self.next_due_utc.clone().map(|due| ("next attempt", due)));
        if self.attempts.is_empty() {
            pairs.push(("attempts", "none".to_owned()));
        }
        let mut page = Table::of_pairs(&pairs).text();
        for attempt in &self.attempts {
            page.push_str("\n\n");
            page.push_str(&attempt.text());
        }
        page
    }
}

impl Attempt {
    fn text(&self) -> String {
        let end = match (self.status, &self.error_class) {
            (Some(status), None) => format!("{status}, delivered"),
            (Some(status), Some(class)) if class == "status" => status.to_string(),
            (Some(status), Some(class)) => format!("{status}, {class}"),
            (None, class) => class.clone().unwrap_or_else(|| "no answer".to_owned()),
        };
        let to = self.address.as_ref().map(|address| format!("  to {address}")).unwrap_or_default();
        let mut lines = vec![format!("attempt {}  {}  {} ms  {end}{to}", self.number, self.started_utc, self.duration_ms)];
        lines.extend(self.error.as_ref().map(|error| format!("  {error}")));
        lines.extend(self.next_due_utc.as_ref().map(|due| format!("  the next one was due at {due}")));
        let excerpt = self.excerpt.as_deref().unwrap_or_default();
        if !excerpt.is_empty() {
            lines.push("  the answer:".to_owned());
            lines.extend(excerpt.lines().map(|line| format!("    {line}")));
            if self.truncated {
                lines.push("    ... (the rest was not kept)".to_owned());
            }
        }
        lines.iter().map(|line| printable(line)).collect::<Vec<_>>().join("\n")
    }
}

impl All {
    fn body(&self, reason: Option<&str>) -> Value {
        let mut body = Map::new();
        let mut put = |name: &str, value: Option<Value>| body.extend(value.map(|value| (name.to_owned(), value)));
        put("types", self.types.as_ref().map(|types| types.split(',').collect::<Vec<_>>().into()));
        put("from", self.from.clone().map(Value::from));
        put("to", self.to.clone().map(Value::from));
        put("reason", reason.map(Value::from));
        Value::Object(body)
    }

    /// Does something with all of them, as many at a time as the daemon takes. How many, and whether some are left.
    async fn settle(
        &self,
        connection: &Connection,
        company: Option<&str>,
        act: &str,
        reason: Option<&str>,
    ) -> Result<(u64, bool), Failure> {
        let subscription = self.subscription.ok_or_else(|| Failure::Usage("--all needs --subscription".to_owned()))?;
        let path = format!("{}/{subscription}/{act}", subscriptions::PATH);
        let body = self.body(reason);
        let mut total = 0;
        loop {
            let answer = connection.call(Request::post_json(&path, &body).for_company(company)).await?.success()?;
            let Settled { count, more } = answer.json()?;
            total += count;
            progress(&format!("{total} ..."));
            if !more || count == 0 {
                progress("");
                return Ok((total, more));
            }
        }
    }
}

impl Retry {
    async fn run(self, connection: &Connection, format: Format) -> Result<(), Failure> {
        let company = companies::chosen(connection, &self.company).await?;
        let reason = self.reason.as_deref();
        let Some(id) = self.id else {
            let (count, has_more) = self.all.settle(connection, company.as_deref(), "retry", reason).await?;
            if has_more {
                note("note: as many deliveries wait as may; run the command again when some of them have ended");
            }
            return match format {
                Format::Json => output::line(&json!({"retried": count, "more": has_more}).to_string()),
                Format::Table => output::line(&format!("sent again: {count}")),
            };
        };
        let path = format!("{PATH}/{id}/retry");
        let request = reason.map_or_else(|| Request::act(&path), |reason| Request::post_json(&path, &json!({"reason": reason})));
        let answer = connection.call(request.for_company(company.as_deref())).await?.success()?;
        match format {
            Format::Json => output::line(&answer.json_line()?),
            Format::Table => output::line(&format!("delivery {id} is sent again; `lutine delivery show {id}` tells how it went")),
        }
    }
}

impl Discard {
    async fn run(self, connection: &Connection, format: Format) -> Result<(), Failure> {
        let company = companies::chosen(connection, &self.company).await?;
        let Some(id) = self.id else {
            let (count, has_more) = self.all.settle(connection, company.as_deref(), "discard", Some(&self.reason)).await?;
            return match format {
                Format::Json => output::line(&json!({"discarded": count, "more": has_more}).to_string()),
                Format::Table => output::line(&format!("given up: {count}")),
            };
        };
        let request = Request::post_json(&format!("{PATH}/{id}/discard"), &json!({"reason": self.reason}));
        let answer = connection.call(request.for_company(company.as_deref())).await?.success()?;
        match format {
            Format::Json => output::line(&answer.json_line()?),
            Format::Table => {
                let Delivery { id, state, .. } = answer.json()?;
                output::line(&format!("delivery {} is {}", printable(&id), printable(&state)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_one_page() {
        let text = r#"{"id":"12-1042","subscriptionId":12,"eventId":1042,"type":"claim.created","state":"dead","replay":null,
            "nextDueUtc":null,"reason":"the schedule is exhausted","attempts":[
            {"number":1,"startedUtc":"2026-11-22T10:30:00.000000Z","durationMs":12,"address":"127.0.0.1","status":500,
             "excerpt":"no\u001b[2J\nluck","truncated":true,"errorClass":"status","error":"the receiver answered 500",
             "nextDueUtc":"2026-11-22T10:30:05.000000Z"},
            {"number":2,"startedUtc":"2026-11-22T10:30:05.000000Z","durationMs":3,"address":null,"status":null,
             "excerpt":"","truncated":false,"errorClass":"connect","error":"refused","nextDueUtc":null}]}"#;
        let page = serde_json::from_str::<Delivery>(text).unwrap().text();
        let expected = "\
delivery      12-1042
event         1042  claim.created
subscription  12
state         dead: the schedule is exhausted

attempt 1  2026-11-22T10:30:00.000000Z  12 ms  500  to 127.0.0.1
  the receiver answered 500
  the next one was due at 2026-11-22T10:30:05.000000Z
  the answer:
    no\\u{1b}[2J
    luck
    ... (the rest was not kept)

attempt 2  2026-11-22T10:30:05.000000Z  3 ms  connect
  refused";
        assert_eq!(page, expected);
    }
}
