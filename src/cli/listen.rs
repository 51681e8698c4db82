//! `lutine listen`: forwards a company's events to a developer's own URL as signed webhooks, without a subscription.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use clap::Args;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::companies;
use super::failure::Failure;
use super::follow::Follower;
use super::interruption::Interruption;
use super::options::{CompanyOption, type_list};
use super::output::{self, Format, note, printable};
use super::secret::WebhookSecret;
use super::settings::Settings;
use super::transport::Connection;
use crate::catalog::{Catalog, Validation};
use crate::daemon::SystemClock;
use crate::domain::clock::Clock;
use crate::domain::company::CompanyId;
use crate::domain::egress::EgressPolicy;
use crate::domain::event::EventId;
use crate::domain::filter::TypeFilter;
use crate::domain::health::Health;
use crate::domain::nearest::nearest;
use crate::domain::notification::NotificationKey;
use crate::domain::profile::{Overrides, Profile};
use crate::domain::retry::Exchange;
use crate::domain::subscription::{Auth, Ordering, Standing, Subscription, SubscriptionId, Wishes};
use crate::domain::time::Timestamp;
use crate::webhook::{Origin, OutgoingEvent, Report, Sender, SystemResolver, Target, TrustedRoots, check_url};

/// Stands in `webhook-id` where others have the number of their subscription, which are counted from 1.
const SUBSCRIPTION: SubscriptionId = SubscriptionId(0);

/// Options of `lutine listen`.
#[derive(Debug, Args)]
#[command(after_help = "\
It forwards what is published from now on, one event after the other, each once, and goes on when the
daemon is restarted. The URL is on this machine, or in a network of egress.allow. What only the daemon
knows is a stand-in: references are empty, and ids and the source of CloudEvents are this command's own.

Examples:
  lutine listen --forward-to http://localhost:3000/webhooks
  lutine listen --forward-to http://localhost:3000/ --types 'claim.*' --secret whsec_...
  lutine listen --forward-to http://localhost:3000/ --profile cloudevents
  lutine listen --forward-to http://localhost:3000/ --url https://events.insurer.example")]
pub struct Listen {
    /// Where to
    #[arg(long, value_name = "URL")]
    forward_to: String,
    /// Only these types, separated by commas: claim.created, claim.* or claim.created@2
    #[arg(long, value_parser = type_list)]
    types: Option<String>,
    /// How webhooks look
    #[arg(long, value_name = "PROFILE", default_value = "standard", value_parser = profile)]
    profile: Profile,
    /// The secret to sign with [default: a new one, which is printed]
    #[arg(long, value_name = "whsec_...", value_parser = str::parse::<WebhookSecret>)]
    secret: Option<WebhookSecret>,
    #[command(flatten)]
    company: CompanyOption,
}

/// The members of an envelope that a webhook is made from.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    id: u64,
    company_id: u32,
    #[serde(rename = "type")]
    kind: String,
    created_utc: String,
    /// Its source text, quotes included.
    #[serde(borrow)]
    payload: &'a RawValue,
}

impl Listen {
    /// Forwards events as they come, until Ctrl-C.
    pub async fn run(self, connection: &Connection, settings: &Settings, format: Format) -> Result<(), Failure> {
        let policy = policy(settings);
        check_url(&self.forward_to, &policy).map_err(|error| Failure::Usage(format!("--forward-to: {error}")))?;
        let company = companies::chosen(connection, &self.company).await?;
        let is_made = self.secret.is_none();
        let secret = self.secret.map_or_else(WebhookSecret::made, Ok)?;
        let target = target(&self.forward_to, self.profile, &secret, company.as_deref())?;
        let sender = Sender::new(Arc::new(ArcSwap::from_pointee(policy)), Arc::new(SystemResolver::default()), TrustedRoots::system());
        let sender = sender.map_err(|error| Failure::caused("webhooks cannot be sent", &error))?;
        let mut interruption = Interruption::catch()?;
        let mut follower = Follower::new(connection, company, self.types, "latest");
        // The first page fixes where `now` is; only then may anybody rely on it.
        let first = follower.next().await?;
        note(&format!("forwarding to {}; Ctrl-C ends it", printable(&self.forward_to)));
        if is_made {
            note(&format!("signed with the secret {}", secret.text()));
        }
        let forwarding = async {
            let mut page = first;
            loop {
                for event in &page.events {
                    forward(&sender, &target, event, format).await?;
                }
                page = follower.next().await?;
            }
        };
        tokio::select! {
            () = interruption.wait() => Ok(()),
            failure = forwarding => failure,
        }
    }
}

/// The own machine in the clear, and what the configuration allows of private networks, if there is one.
fn policy(settings: &Settings) -> EgressPolicy {
    let allow = settings.config().map(|config| config.egress.allow).unwrap_or_default();
    EgressPolicy { allow, allow_http: true, allow_loopback: true, ..EgressPolicy::default() }
}

/// A profile by its name.
pub fn profile(text: &str) -> Result<Profile, String> {
    let names = || Profile::ALL.iter().map(|profile| profile.as_str());
    Profile::ALL.iter().copied().find(|profile| profile.as_str() == text).ok_or_else(|| {
        let hint = nearest(text, names()).map(|name| format!("; did you mean {name}?")).unwrap_or_default();
        format!("it is none of {}{hint}", names().collect::<Vec<_>>().join(", "))
    })
}

/// Where forwarded webhooks come from: this command.
fn origin(company: Option<&str>) -> Result<Origin, Failure> {
    let catalog = Catalog::load(None, false, Validation::Off).map_err(|error| Failure::Failed(error.to_string()))?;
    Ok(Origin {
        public_url: "http://localhost".into(),
        slug: company.unwrap_or("listen").to_owned(),
        notification_key: NotificationKey::derive(&[0; 32], CompanyId(0)),
        catalog: Arc::new(catalog),
        rsa: None,
    })
}

/// A subscription that no store knows.
fn target(url: &str, profile: Profile, secret: &WebhookSecret, company: Option<&str>) -> Result<Target, Failure> {
    let subscription = Subscription {
        id: SUBSCRIPTION,
        company: CompanyId(0),
        wishes: Wishes {
            name: "listen".to_owned(),
            url: url.to_owned(),
            types: Vec::new(),
            filter: TypeFilter::default(),
            profile,
            overrides: Overrides::default(),
            auth: Auth::None,
            headers: Vec::new(),
            ordering: Ordering::Strict,
            ordering_key: None,
            max_in_flight: 1,
            rate_per_minute: 0,
        },
        secret: secret.to_subscription()?,
        previous: None,
        consent: None,
        resumes: 0,
        standing: Standing::Active,
        health: Health::default(),
        created: Timestamp::default(),
    };
    Target::new(&subscription, origin(company)?).map_err(|error| Failure::Usage(format!("--forward-to: {error}")))
}

fn outgoing(event: &RawValue) -> Result<OutgoingEvent, Failure> {
    const MEMBER: &str = "\"payload\":";
    let unreadable = |reason: &str| Failure::Failed(format!("the answer holds an event that cannot be read: {reason}"));
    let text = event.get();
    let Envelope { id, company_id, kind, created_utc, payload } =
        serde_json::from_str(text).map_err(|error| unreadable(&error.to_string()))?;
    // No member before it holds text that could look like it: types have no quotes.
    let start = text.find(MEMBER).map(|place| place + MEMBER.len() + 1).ok_or_else(|| unreadable("it has no payload"))?;
    Ok(OutgoingEvent {
        run: 0,
        id: EventId(id),
        company: CompanyId(company_id),
        created: created_utc.parse().map_err(|_| unreadable("createdUtc is no time"))?,
        // Nor does it tell this.
        occurred: None,
        kind,
        // The envelope does not tell it.
        version: "1".to_owned(),
        envelope: Bytes::copy_from_slice(text.as_bytes()),
        payload_start: start,
        payload_length: payload.get().len().saturating_sub(2),
        // Nor these.
        references: Bytes::new(),
    })
}

async fn forward(sender: &Sender, target: &Target, event: &RawValue, format: Format) -> Result<(), Failure> {
    let event = outgoing(event)?;
    let report = sender.send(target, &event, 1, SystemClock.now()).await;
    output::line(&match format {
        Format::Table => text(&event, &report),
        Format::Json => json(&event, &report),
    })
}

fn text(event: &OutgoingEvent, report: &Report) -> String {
    let end = match (&report.exchange, &report.error) {
        (_, None) => format!("{}", report.status.unwrap_or_default()),
        (Exchange::Answered { status, .. }, Some(_)) => format!("{status}, which is not a success"),
        (Exchange::Failed(class), Some(error)) => format!("failed: {} ({})", printable(error), class.as_str()),
    };
    format!("{}  {}  {}  {} ms  {end}", event.created, event.id, printable(&event.kind), report.duration.as_millis())
}

fn json(event: &OutgoingEvent, report: &Report) -> String {
    let class = match report.exchange {
        Exchange::Failed(class) => Some(class.as_str()),
        Exchange::Answered { .. } => report.error.as_ref().map(|_| "status"),
    };
    let value = json!({
        "id": event.id.0, "type": event.kind, "createdUtc": event.created.to_string(),
        "webhookId": format!("evt_{}_{SUBSCRIPTION}", event.id), "status": report.status,
        "durationMs": u64::try_from(report.duration.as_millis()).unwrap_or(u64::MAX), "errorClass": class, "error": report.error,
    });
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_webhook_holds_the_payload_of_the_envelope_byte_for_byte() {
        let text = r#"{"id":7,"companyId":1,"type":"claim.created","createdUtc":"2026-11-22T10:30:00.123456Z","payload":"{ \"payload\":\"x\" }","metadata":"{}"}"#;
        let event = outgoing(&RawValue::from_string(text.to_owned()).unwrap()).unwrap();
        let secret = WebhookSecret::made().unwrap();
        for (profile, body) in [
            (Profile::Standard, r#"{"type":"claim.created","timestamp":"2026-11-22T10:30:00.123456Z","data":{ "payload":"x" }}"#),
            (Profile::Bridge, r#"{ "payload":"x" }"#),
            (
                Profile::CloudEvents,
                r#"{"specversion":"1.0","id":"7","source":"http://localhost/companies/acme","type":"claim.created","time":"2026-11-22T10:30:00.123456Z","datacontenttype":"application/json","data":{ "payload":"x" }}"#,
            ),
        ] {
            let target = target("http://localhost/", profile, &secret, Some("acme")).unwrap();
            assert_eq!(target.body(&event).await.unwrap(), body);
        }
        let foreign = RawValue::from_string(r#"{"id":7}"#.to_owned()).unwrap();
        assert!(matches!(outgoing(&foreign), Err(Failure::Failed(_))));
    }

    #[test]
    fn a_profile_is_known_by_its_name() {
        assert_eq!(profile("signed-envelope"), Ok(Profile::SignedEnvelope));
        assert!(profile("cloudevent").unwrap_err().ends_with("did you mean cloudevents?"));
    }

    #[test]
    fn the_own_machine_is_forwarded_to_and_no_other() {
        let policy = policy(&Settings::default());
        for url in ["http://localhost:3000/", "http://127.0.0.1/hooks", "https://[::1]:8443/"] {
            assert_eq!(check_url(url, &policy), Ok(()), "{url}");
        }
        for url in ["http://10.0.0.1/", "http://169.254.169.254/", "https://8.8.8.8/"] {
            assert!(check_url(url, &policy).is_err(), "{url}");
        }
    }
}
