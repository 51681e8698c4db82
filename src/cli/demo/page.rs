//! The demonstration on one page of text, section by section.

use super::facts::{EVENTS, Facts, PAGE_SIZE, PLANS, PUBLISHED_TWICE};
use crate::cli::output::Table;

const INDENT: &str = "   ";

/// The first line.
pub const TITLE: &str = "Lutine demo: a daemon and three receivers, on this machine only, in a temporary directory.";

fn section(head: &str, body: &str) -> String {
    let lines = body.lines().map(|line| if line.is_empty() { String::new() } else { format!("{INDENT}{line}") });
    let lines = lines.collect::<Vec<_>>().join("\n");
    format!("\n{head}\n{lines}")
}

fn milliseconds(span: f64) -> String {
    if span < 10.0 { format!("{span:.1} ms") } else { format!("{span:.0} ms") }
}

/// Daemon, company and key.
pub fn started(facts: &Facts) -> String {
    let Facts { daemon, data_dir, company, timings, .. } = facts;
    let start = milliseconds(timings.start_ms);
    let body = format!("{daemon}, up after {start}, stores in {data_dir}\ncompany `{company}`, with an API key for everything below");
    section("1. Start", &body)
}

/// The subscriptions.
pub fn subscribed(facts: &Facts) -> String {
    let mut table = Table::new(&["ID", "NAME", "PROFILE", "TYPES", "ITS RECEIVER ANSWERS"]);
    for (plan, subscribed) in PLANS.iter().zip(&facts.subscriptions) {
        let answers = match (plan.answers, plan.retries) {
            ([first, second], [wait]) => format!("{first} once, then {second}; retry after {wait} s"),
            (answers, _) => answers.iter().map(u16::to_string).collect::<Vec<_>>().join(", "),
        };
        table.push([subscribed.id.to_string(), plan.name.to_owned(), plan.profile.to_owned(), plan.types_text(), answers]);
    }
    section("2. Subscribe", &table.text())
}

/// The publications.
pub fn published(facts: &Facts) -> String {
    let mut table = Table::new(&["EVENT", "TYPE", "ON DISK AT"]);
    for event in &facts.published {
        table.push([event.id.to_string(), event.kind.clone(), event.created_utc.clone()]);
    }
    let mut body = table.text();
    if let (Some(known), Some(event)) = (&facts.duplicate, facts.published.get(PUBLISHED_TWICE)) {
        let verdict = if known.duplicate { "not stored twice" } else { "STORED AGAIN" };
        body.push_str(&format!("\nagain {} with its dedupe key: status {}, event {}, {verdict}", event.kind, known.status, known.id));
    }
    section("3. Publish samples of the catalogue; each is on disk before it is answered", &body)
}

/// The pages.
pub fn read_back(facts: &Facts) -> String {
    let list = |page: &Vec<u64>| page.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
    let pages: Vec<String> = (1..).zip(&facts.pages).map(|(number, page): (u32, _)| format!("page {number}: {}", list(page))).collect();
    let verdict = if facts.read_back_unchanged { "every payload is byte for byte what was published" } else { "A PAYLOAD HAS CHANGED" };
    section(&format!("4. Read them back by cursor, {PAGE_SIZE} a page"), &format!("{}\n{verdict}", pages.join("   ")))
}

/// The webhooks.
pub fn received(facts: &Facts) -> String {
    let mut table = Table::new(&["WEBHOOK-ID", "TYPE", "SUBSCRIPTION", "SIGNATURE", "AFTER", "ANSWER"]);
    for webhook in &facts.webhooks {
        let signature = if webhook.verified { "verified" } else { "NOT VERIFIED" };
        let answer = if webhook.attempt > 1 { format!("{} (attempt {})", webhook.answer, webhook.attempt) } else { webhook.answer.clone() };
        table.push([
            webhook.webhook_id.clone(),
            webhook.kind.clone(),
            webhook.subscription.to_owned(),
            signature.to_owned(),
            milliseconds(webhook.after_ms),
            answer,
        ]);
    }
    let is_unchanged = facts.webhooks.iter().all(|webhook| webhook.unchanged);
    let verdict = if is_unchanged { "every one holds byte for byte what was published" } else { "A WEBHOOK HOLDS SOMETHING ELSE" };
    section("5. Receive; every signature is checked with the secret of its subscription", &format!("{}\n{verdict}", table.text()))
}

/// What the webhooks show, and the sum of it all.
pub fn summary(facts: &Facts) -> String {
    let mut lines = Vec::new();
    for delivered in &facts.deliveries {
        let types = PLANS.iter().find(|plan| plan.name == delivered.subscription).map(|plan| plan.types_text()).unwrap_or_default();
        let all = delivered.delivered + delivered.other;
        lines.push(format!(
            "the filter: `{}` asked for {types} and was owed {all} of {} events; {} delivered",
            delivered.subscription,
            EVENTS.len(),
            delivered.delivered
        ));
    }
    if let Some(retry) = &facts.retry {
        let statuses: Vec<String> =
            retry.statuses.iter().map(|status| status.map_or("none".to_owned(), |status| status.to_string())).collect();
        lines.push(format!(
            "the retry: {} was sent again after {}, with the same webhook-id; answers {}",
            retry.webhook_ids.first().map_or("-", String::as_str),
            milliseconds(retry.wait_ms),
            statuses.join(", then ")
        ));
    }
    let Facts { published, pages, webhooks, timings, .. } = facts;
    let deliveries: usize = facts.deliveries.iter().map(|delivered| delivered.delivered).sum();
    lines.push(String::new());
    lines.push(format!(
        "{} events published, {} read back, {deliveries} deliveries in {} webhooks, {} signatures verified",
        published.len(),
        pages.iter().map(Vec::len).sum::<usize>(),
        webhooks.len(),
        facts.verified()
    ));
    let span = |span: Option<f64>| span.map_or_else(|| "never".to_owned(), milliseconds);
    lines.push(format!(
        "published in {}, first webhook after {}, last after {}, {:.1} s in all",
        milliseconds(timings.publish_ms),
        span(timings.first_webhook_ms),
        span(timings.last_webhook_ms),
        timings.total_ms / 1000.0
    ));
    section("6. What it comes to", &lines.join("\n"))
}

/// The last lines.
pub fn verdict(facts: &Facts) -> String {
    if facts.ok {
        return "\nAll of it happened.".to_owned();
    }
    let sentences: String = facts.missing.iter().map(|sentence| format!("\n{INDENT}{sentence}")).collect();
    format!("\nNot all of it happened:{sentences}")
}
