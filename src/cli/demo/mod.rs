//! `lutine demo`: everything that Lutine does, once, on the newcomer's own machine.

mod facts;
mod page;
mod stage;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use self::facts::{Delivered, Duplicate, EVENTS, Facts, PAGE_SIZE, PLANS, PUBLISHED_TWICE, Plan, Published, Retried, Subscribed, Webhook};
use self::stage::{COMPANY, Stage};
use super::failure::Failure;
use super::interruption::Interruption;
use super::output::{self, Format};
use super::secret::WebhookSecret;
use super::settings::{OnlyHere, Settings};
use super::sink::event_type;
use super::transport::{Connection, Request};
use super::{events, subscriptions};
use crate::daemon::SystemClock;
use crate::domain::time::Timestamp;
use crate::http::{Received, Sink, SinkRules, Verdict};
use crate::webhook::Verifier;

/// How long after the first publication everything must have arrived.
const DEADLINE: Duration = Duration::from_secs(8);
/// The longest that all of it may take, should the daemon not answer.
const TIME_MAX: Duration = Duration::from_secs(30);
/// Between two looks at the delivery log.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Options of `lutine demo`.
#[derive(Debug, Args)]
#[command(after_help = "\
It needs no configuration, sends nothing outside this machine, and leaves nothing behind. The exit
code is 0 only if every event and webhook arrived, unchanged, verified and in the right number.

Examples:
  lutine demo
  lutine demo --output json | jq .timings")]
pub struct Demo {
    #[command(flatten)]
    only_here: OnlyHere,
}

impl Demo {
    /// Plays it, and takes everything apart again, whatever came of it.
    pub async fn run(self, settings: &Settings) -> Result<(), Failure> {
        settings.demand_here(&self.only_here, "demo")?;
        if settings.data_dir().is_some() {
            return Err(Failure::Usage("`lutine demo` stores in a temporary directory; leave --data-dir out".to_owned()));
        }
        let format = Format::chosen(settings.output);
        let mut interruption = Interruption::catch()?;
        let start = Instant::now();
        let stage = Stage::set()?;
        let done = tokio::select! {
            done = timeout(TIME_MAX, play(&stage, start, format)) => {
                done.unwrap_or_else(|_| Err(Failure::Failed(format!("the demonstration was given up after {} s", TIME_MAX.as_secs()))))
            }
            () = interruption.wait() => Err(Failure::Failed("interrupted".to_owned())),
        };
        stage.clear().await;
        // Its success is a statement about what happened, which nobody has read to the end.
        done.map_err(|failure| if matches!(failure, Failure::OutputClosed) { Failure::Reported } else { failure })
    }
}

/// A subscription and the receiver behind it.
struct Receiver {
    plan: &'static Plan,
    sink: Sink,
    received: mpsc::UnboundedReceiver<Received>,
    id: u32,
}

/// A sample of the catalogue, which is published as it is.
#[derive(Debug, Deserialize)]
struct Sample {
    payload: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Receipt {
    id: u64,
    created_utc: String,
    #[serde(default)]
    duplicate: bool,
}

#[derive(Debug, Deserialize)]
struct Envelope {
    id: u64,
    payload: String,
}

#[derive(Debug, Deserialize)]
struct Created {
    id: u32,
    secret: String,
}

#[derive(Debug, Deserialize)]
struct Deliveries {
    deliveries: Vec<Delivery>,
}

#[derive(Debug, Deserialize)]
struct Delivery {
    id: String,
    state: String,
    #[serde(default)]
    attempts: Vec<Attempt>,
}

#[derive(Debug, Deserialize)]
struct Attempt {
    status: Option<u16>,
}

/// A webhook of the profile `standard`.
#[derive(Debug, Deserialize)]
struct Typed<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
}

/// What was published, by the id of the event.
#[derive(Debug, Default)]
struct Originals {
    payloads: HashMap<u64, String>,
    created: HashMap<u64, Timestamp>,
    /// The JSON text that the API serves.
    envelopes: HashMap<u64, String>,
}

fn since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}

async fn play(stage: &Stage, start: Instant, format: Format) -> Result<(), Failure> {
    let mut facts =
        Facts { daemon: stage.url(), data_dir: stage.data_dir().display().to_string(), company: COMPANY.to_owned(), ..Facts::default() };
    let tell = |section: String| if format == Format::Table { output::line(&section) } else { Ok(()) };
    tell(page::TITLE.to_owned())?;
    let connection = stage.enter().await?;
    facts.timings.start_ms = since(start);
    tell(page::started(&facts))?;

    let mut receivers = Vec::new();
    for plan in &PLANS {
        receivers.push(subscribe(&connection, plan, &mut facts).await?);
    }
    tell(page::subscribed(&facts))?;

    let (first, first_at) = (Instant::now(), crate::domain::clock::Clock::now(&SystemClock));
    let mut originals = publish(&connection, &mut facts).await?;
    facts.timings.publish_ms = since(first);
    tell(page::published(&facts))?;

    read_back(&connection, &mut originals, &mut facts).await?;
    tell(page::read_back(&facts))?;

    let deadline = first + DEADLINE;
    let received = receive(&mut receivers, deadline).await;
    look_up(&connection, &receivers, deadline, &mut facts).await?;
    take_down(received, &mut receivers, &originals, first_at, &mut facts);
    tell(page::received(&facts))?;

    for receiver in receivers {
        receiver.sink.close().await;
    }
    facts.timings.total_ms = since(start);
    facts.judge();
    tell(page::summary(&facts))?;
    tell(page::verdict(&facts))?;
    if format == Format::Json {
        let text = serde_json::to_string(&facts).map_err(|error| Failure::caused("the facts cannot be printed", &error))?;
        output::line(&text)?;
    }
    if facts.ok { Ok(()) } else { Err(Failure::Reported) }
}

/// Starts a receiver and subscribes it.
async fn subscribe(connection: &Connection, plan: &'static Plan, facts: &mut Facts) -> Result<Receiver, Failure> {
    let answers = plan.answers.iter().map(|status| status.to_string().parse()).collect::<Result<_, _>>();
    let answers = answers.map_err(|error: crate::http::ParseSinkAnswerError| Failure::caused("the receiver cannot be told", &error))?;
    let (sender, received) = mpsc::unbounded_channel();
    let sink = Sink::start(0, SinkRules { answers, delay: Duration::ZERO }, Arc::new(SystemClock), sender).await;
    let sink = sink.map_err(|error| Failure::caused("a receiver cannot be started", &error))?;
    let url = format!("http://{}/{}", sink.address(), plan.name);
    let mut body = json!({"name": plan.name, "url": url, "types": plan.types, "profile": plan.profile});
    if let (Some(body), false) = (body.as_object_mut(), plan.retries.is_empty()) {
        body.insert("overrides".to_owned(), json!({"retryScheduleSeconds": plan.retries}));
    }
    let answer = connection.call(Request::post_json(subscriptions::PATH, &body)).await?.success()?;
    let Created { id, secret } = answer.json()?;
    let secret: WebhookSecret = secret.parse().map_err(|error| Failure::caused("the secret cannot be read", &error))?;
    sink.trust(Verifier::Secret(secret.into_bytes()));
    let Plan { name, profile, types, answers, .. } = *plan;
    facts.subscriptions.push(Subscribed { id, name, profile, types, url, receiver_answers: answers });
    Ok(Receiver { plan, sink, received, id })
}

/// Publishes a sample of every type, and one of them again.
async fn publish(connection: &Connection, facts: &mut Facts) -> Result<Originals, Failure> {
    let mut originals = Originals::default();
    let body = |place: usize, kind: &str, payload: &str| json!({"type": kind, "payload": payload, "dedupeKey": format!("demo-{place}")});
    let mut again = Value::Null;
    for (place, kind) in EVENTS.into_iter().enumerate() {
        let request = Request::get(&format!("{}/sample", events::PATH)).query(&[("type", Some(kind))]);
        let sample = connection.call(request).await?.success()?.json::<Vec<Sample>>()?.into_iter().next();
        let Sample { payload } = sample.ok_or_else(|| Failure::Failed(format!("the catalogue has no sample of {kind}")))?;
        let body = body(place, kind, &payload);
        let receipt: Receipt = connection.call(Request::post_json(events::PATH, &body)).await?.success()?.json()?;
        if place == PUBLISHED_TWICE {
            again = body;
        }
        originals.payloads.insert(receipt.id, payload);
        originals.created.extend(receipt.created_utc.parse().map(|created| (receipt.id, created)));
        facts.published.push(Published { id: receipt.id, kind: kind.to_owned(), created_utc: receipt.created_utc });
    }
    let answer = connection.call(Request::post_json(events::PATH, &again)).await?.success()?;
    let Receipt { id, duplicate, .. } = answer.json()?;
    facts.duplicate = Some(Duplicate { status: answer.status, id, duplicate });
    Ok(originals)
}

/// Reads the log from its beginning to its end, a page at a time.
async fn read_back(connection: &Connection, originals: &mut Originals, facts: &mut Facts) -> Result<(), Failure> {
    let limit = PAGE_SIZE.to_string();
    let mut cursor: Option<String> = None;
    facts.read_back_unchanged = true;
    // One page for every event would be too many already.
    for _ in 0..=EVENTS.len() {
        let request = Request::get(events::PATH).query(&[("limit", Some(&limit)), ("cursor", cursor.as_deref())]);
        let answer = connection.call(request).await?.success()?;
        let mut ids = Vec::new();
        for event in answer.json::<events::Page>()?.events {
            let read = serde_json::from_str(event.get());
            let Envelope { id, payload } = read.map_err(|error| Failure::caused("an event cannot be read", &error))?;
            facts.read_back_unchanged &= originals.payloads.get(&id) == Some(&payload);
            originals.envelopes.insert(id, event.get().to_owned());
            ids.push(id);
        }
        facts.pages.push(ids);
        cursor = answer.header("x-paging-cursor").map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    Ok(())
}

/// Waits until every receiver has what it should get; what is not there at the deadline is missing.
async fn receive(receivers: &mut [Receiver], deadline: Instant) -> Vec<(&'static str, u32, Received)> {
    let mut all = Vec::new();
    for receiver in receivers {
        for _ in 0..receiver.plan.webhooks() {
            let Ok(Some(received)) = timeout_at(deadline, receiver.received.recv()).await else { break };
            all.push((receiver.plan.name, receiver.id, received));
        }
    }
    all
}

/// Asks the delivery log, which is written behind the answers, until it tells the end of everything.
async fn look_up(connection: &Connection, receivers: &[Receiver], deadline: Instant, facts: &mut Facts) -> Result<(), Failure> {
    for receiver in receivers {
        let path = format!("{}/{}/deliveries", subscriptions::PATH, receiver.id);
        let (deliveries, delivered) = loop {
            let Deliveries { deliveries } = connection.call(Request::get(&path)).await?.success()?.json()?;
            let delivered = deliveries.iter().filter(|delivery| delivery.state == "delivered").count();
            let is_over = delivered == deliveries.len() && delivered == receiver.plan.deliveries();
            if is_over || Instant::now() >= deadline {
                break (deliveries, delivered);
            }
            sleep(LOOK_INTERVAL).await;
        };
        facts.deliveries.push(Delivered { subscription: receiver.plan.name, delivered, other: deliveries.len() - delivered });
        if !receiver.plan.retries.is_empty()
            && let Some(Delivery { id, .. }) = deliveries.first()
        {
            let answer = connection.call(Request::get(&format!("/api/v1/deliveries/{id}"))).await?.success()?;
            let Delivery { id, state, attempts } = answer.json()?;
            let statuses = attempts.iter().map(|attempt| attempt.status).collect();
            facts.retry = Some(Retried { delivery_id: id, webhook_ids: Vec::new(), statuses, state, wait_ms: 0.0 });
        }
    }
    Ok(())
}

/// Writes down what the receivers got, also what nobody expected.
fn take_down(
    mut all: Vec<(&'static str, u32, Received)>,
    receivers: &mut [Receiver],
    originals: &Originals,
    first_at: Timestamp,
    facts: &mut Facts,
) {
    for receiver in receivers {
        while let Ok(received) = receiver.received.try_recv() {
            all.push((receiver.plan.name, receiver.id, received));
        }
    }
    all.sort_by_key(|(_, _, received)| received.at);
    let span = |later: Timestamp, earlier: Timestamp| later.since(earlier).as_secs_f64() * 1000.0;
    facts.timings.first_webhook_ms = all.first().map(|(_, _, received)| span(received.at, first_at));
    facts.timings.last_webhook_ms = all.last().map(|(_, _, received)| span(received.at, first_at));
    let failing = PLANS.iter().find(|plan| !plan.retries.is_empty()).map(|plan| plan.name);
    let tries: Vec<&Received> = all.iter().filter(|(name, ..)| Some(*name) == failing).map(|(_, _, received)| received).collect();
    if let (Some(retry), Some(first), Some(last)) = (&mut facts.retry, tries.first(), tries.last()) {
        retry.webhook_ids = tries.iter().filter_map(|received| received.id.clone()).collect();
        retry.wait_ms = span(last.at, first.at);
    }
    for (name, subscription, received) in all {
        let id = received.id.clone().unwrap_or_else(|| "-".to_owned());
        let event = event_of(&id, subscription);
        facts.webhooks.push(Webhook {
            kind: event_type(&received.headers, &received.body).unwrap_or_else(|| "-".to_owned()),
            subscription: name,
            attempt: received.attempt,
            verified: received.verdict == Verdict::Verified,
            unchanged: event.is_some_and(|event| is_unchanged(event, &received.body, originals)),
            answer: received.answer.to_string(),
            after_ms: event.and_then(|event| originals.created.get(&event)).map_or(0.0, |created| span(received.at, *created)),
            webhook_id: id,
        });
    }
}

/// The number of the event in `evt_{event}_{subscription}`.
fn event_of(webhook_id: &str, subscription: u32) -> Option<u64> {
    webhook_id.strip_prefix("evt_")?.strip_suffix(&format!("_{subscription}"))?.parse().ok()
}

/// Whether a webhook holds the payload, or is the envelope, that the log has of its event.
fn is_unchanged(event: u64, body: &[u8], originals: &Originals) -> bool {
    let is_envelope = originals.envelopes.get(&event).is_some_and(|envelope| envelope.as_bytes() == body);
    let holds_payload = || {
        let typed = serde_json::from_slice::<Typed<'_>>(body).ok();
        typed.is_some_and(|typed| originals.payloads.get(&event).is_some_and(|payload| payload == typed.data.get()))
    };
    is_envelope || holds_payload()
}
