//! `lutine sink`: the built-in receiver, on a port of loopback.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use hyper::header::HeaderMap;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::failure::Failure;
use super::interruption::Interruption;
use super::output::{self, Format, note, printable};
use super::secret::WebhookSecret;
use super::settings::{OnlyHere, Settings};
use crate::daemon::SystemClock;
use crate::http::{Received, Sink, SinkAnswer, SinkRules, Verdict};
use crate::webhook::{PublicKey, Verifier};

/// Options of `lutine sink`.
#[derive(Debug, Args)]
#[command(after_help = "\
It prints one line for each webhook. With a secret or a public key, a webhook that does not verify is
answered 401, whatever --answer says; signatures may stand in headers or inside the body. Whoever asks
for consent by OPTIONS gets it.

Answers: a status such as 204, 429 (with Retry-After: 1) or 500; slow (waits longer than 15 s); drop
(closes the connection without an answer). Of a list the first is for the first attempt of each
webhook, and so on; the last one repeats.

Examples:
  lutine sink
  lutine sink --port 9000 --secret whsec_...
  lutine sink --public-key company.pem
  lutine sink --answer 500,500,204
  lutine sink --port 0 --count 1 --output json")]
pub struct SinkCommand {
    #[command(flatten)]
    only_here: OnlyHere,
    /// The port on 127.0.0.1, 0 for any free one
    #[arg(long, value_name = "N", default_value_t = 8081)]
    port: u16,
    /// A secret that signatures are checked with (repeatable)
    #[arg(long = "secret", value_name = "whsec_...", value_parser = str::parse::<WebhookSecret>)]
    secrets: Vec<WebhookSecret>,
    /// A file with a company's public key, for signatures by RSA inside the body (repeatable)
    #[arg(long = "public-key", value_name = "FILE")]
    public_keys: Vec<PathBuf>,
    /// What webhooks are answered: a status, slow or drop, or a list of them
    #[arg(long = "answer", value_name = "LIST", value_delimiter = ',', default_value = "204", value_parser = str::parse::<SinkAnswer>)]
    answers: Vec<SinkAnswer>,
    /// The wait before every answer, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    delay: u64,
    /// End after so many webhooks
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

impl SinkCommand {
    /// Receives until Ctrl-C, or until the count is full.
    pub async fn run(self, settings: &Settings) -> Result<(), Failure> {
        settings.demand_here(&self.only_here, "sink")?;
        let format = Format::chosen(settings.output);
        let keys = self.public_keys.iter().map(|file| public_key(file)).collect::<Result<Vec<_>, _>>()?;
        let mut interruption = Interruption::catch()?;
        let rules = SinkRules { answers: self.answers, delay: Duration::from_millis(self.delay) };
        let (sender, mut received) = mpsc::unbounded_channel();
        let sink = Sink::start(self.port, rules, Arc::new(SystemClock), sender).await;
        let sink = sink
            .map_err(|error| Failure::caused(&format!("port {} cannot be listened on (--port 0 takes any free one)", self.port), &error))?;
        self.secrets.into_iter().for_each(|secret| sink.trust(Verifier::Secret(secret.into_bytes())));
        keys.into_iter().for_each(|key| sink.trust(Verifier::PublicKey(key)));
        note(&format!("lutine sink listening on http://{}", sink.address()));
        let done = tokio::select! {
            () = interruption.wait() => Ok(()),
            done = print_all(&mut received, self.count.unwrap_or(u64::MAX), format) => done,
        };
        sink.close().await;
        done
    }
}

async fn print_all(received: &mut mpsc::UnboundedReceiver<Received>, count: u64, format: Format) -> Result<(), Failure> {
    for _ in 0..count {
        // The sink has the other end until it is closed.
        let Some(webhook) = received.recv().await else { break };
        output::line(&match format {
            Format::Table => text(&webhook),
            Format::Json => json(&webhook).to_string(),
        })?;
    }
    Ok(())
}

fn public_key(file: &Path) -> Result<PublicKey, Failure> {
    let failed = |error: &dyn std::error::Error| Failure::caused(&format!("--public-key {}", file.display()), error);
    let text = std::fs::read_to_string(file).map_err(|error| failed(&error))?;
    PublicKey::from_pem(&text).map_err(|error| failed(&error))
}

/// The type of the event in a webhook, whose name and place depend on the profile.
pub fn event_type(headers: &HeaderMap, body: &[u8]) -> Option<String> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    if let Some(kind) = header("event-type").or_else(|| header("ce-type")) {
        return Some(kind);
    }
    let body: Value = serde_json::from_slice(body).ok()?;
    let places = ["/type", "/eventType", "/payload/details/messageType", "/0/type"];
    places.iter().find_map(|place| body.pointer(place)?.as_str().map(str::to_owned))
}

fn text(webhook: &Received) -> String {
    let Received { at, id, attempt, headers, body, verdict, answer } = webhook;
    let verdict = match verdict {
        Verdict::Verified => "verified".to_owned(),
        Verdict::Refused(reason) => format!("NOT VERIFIED: {reason}"),
        Verdict::NoSecret => "no secret".to_owned(),
    };
    let or_none = |text: Option<&str>| printable(text.unwrap_or("-"));
    let repeat = if *attempt > 1 { format!("  (attempt {attempt})") } else { String::new() };
    let kind = or_none(event_type(headers, body).as_deref());
    format!("{at}  {}  {kind}  {verdict}  {} bytes  {answer}{repeat}", or_none(id.as_deref()), body.len())
}

fn json(webhook: &Received) -> Value {
    let Received { at, id, attempt, headers, body, verdict, answer } = webhook;
    let (verified, reason) = match verdict {
        Verdict::Verified => (Some(true), None),
        Verdict::Refused(reason) => (Some(false), Some(reason)),
        Verdict::NoSecret => (None, None),
    };
    json!({
        "time": at.to_string(), "id": id, "type": event_type(headers, body), "verified": verified, "reason": reason,
        "bytes": body.len(), "attempt": attempt, "answer": answer.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn webhook(verdict: Verdict) -> Received {
        Received {
            at: "2026-11-22T10:30:00.5Z".parse().unwrap(),
            id: Some("evt_1_2".to_owned()),
            attempt: 2,
            headers: Default::default(),
            body: Bytes::from_static(br#"{"type":"claim.created"}"#),
            verdict,
            answer: "204".parse().unwrap(),
        }
    }

    #[test]
    fn a_webhook_is_one_line() {
        let line = text(&webhook(Verdict::Verified));
        assert_eq!(line, "2026-11-22T10:30:00.500000Z  evt_1_2  claim.created  verified  24 bytes  204  (attempt 2)");
        let refused = webhook(Verdict::Refused("it is old".to_owned()));
        assert!(text(&refused).contains("  NOT VERIFIED: it is old  "));
        assert_eq!(json(&refused)["verified"], json!(false));
        assert_eq!(json(&webhook(Verdict::NoSecret))["verified"], Value::Null);
    }

    #[test]
    fn the_type_is_found_in_every_form_of_body() {
        let none = HeaderMap::new();
        for body in [
            &br#"{"eventType":"case_created"}"#[..],
            br#"{"type":"case_created"}"#,
            br#"[{"type":"case_created"}]"#,
            br#"{"payload":{"details":{"messageType":"case_created"}}}"#,
        ] {
            assert_eq!(event_type(&none, body).as_deref(), Some("case_created"));
        }
        for name in ["event-type", "ce-type"] {
            let headers = HeaderMap::from_iter([(name.parse().unwrap(), "case_created".parse().unwrap())]);
            assert_eq!(event_type(&headers, br#"{"type":"other"}"#).as_deref(), Some("case_created"));
        }
        assert_eq!(event_type(&none, b"[1]"), None);
        assert_eq!(event_type(&none, b"\xff"), None);
    }
}
