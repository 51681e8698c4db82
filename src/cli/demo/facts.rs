//! What happened in the demonstration, and what should have.

use serde::Serialize;

use crate::domain::filter::TypeFilter;

/// The types whose samples are published, in this order.
pub const EVENTS: [&str; 8] = [
    "client.created",
    "policy.quoted",
    "policy.bound",
    "claim.created",
    "claim.assigned",
    "claim.settled",
    "invoice.created",
    "invoice.paid",
];
/// The place in [`EVENTS`] of the one that is published twice.
pub const PUBLISHED_TWICE: usize = 3;
/// Events of a page when they are read back.
pub const PAGE_SIZE: usize = 3;

/// A subscription of the demonstration.
#[derive(Debug)]
pub struct Plan {
    pub name: &'static str,
    pub profile: &'static str,
    /// All, when there are none.
    pub types: &'static [&'static str],
    /// What its receiver answers each webhook at the first attempt, the second, and so on.
    pub answers: &'static [u16],
    /// The waits before its retries, in seconds, when they are not the profile's.
    pub retries: &'static [f64],
}

/// All subscriptions.
pub const PLANS: [Plan; 3] = [
    Plan { name: "claims", profile: "standard", types: &["claim.*"], answers: &[204], retries: &[] },
    Plan { name: "archive", profile: "envelope", types: &[], answers: &[204], retries: &[] },
    Plan { name: "accounting", profile: "standard", types: &["invoice.paid"], answers: &[500, 204], retries: &[0.3] },
];

impl Plan {
    /// Whether an event of this type is owed to the subscription.
    pub fn takes(&self, kind: &str) -> bool {
        // An empty filter takes everything but the daemon's own; a wrong one nothing, which is then missing.
        let filter = if self.types.is_empty() { Ok(TypeFilter::default()) } else { TypeFilter::parse_entries(self.types.iter().copied()) };
        filter.is_ok_and(|filter| filter.matches(&kind.to_ascii_lowercase(), "1"))
    }

    /// How many deliveries it should get.
    pub fn deliveries(&self) -> usize {
        EVENTS.iter().filter(|kind| self.takes(kind)).count()
    }

    /// How many webhooks these should take.
    pub fn webhooks(&self) -> usize {
        self.deliveries() * self.answers.len()
    }

    /// Its filter in words.
    pub fn types_text(&self) -> String {
        if self.types.is_empty() { "all".to_owned() } else { self.types.join(",") }
    }
}

/// Everything that happened.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// Whether it is all that should have.
    pub ok: bool,
    /// What is not as it should be, in sentences.
    pub missing: Vec<String>,
    pub daemon: String,
    pub data_dir: String,
    pub company: String,
    pub subscriptions: Vec<Subscribed>,
    pub published: Vec<Published>,
    pub duplicate: Option<Duplicate>,
    /// The ids of each page.
    pub pages: Vec<Vec<u64>>,
    /// Whether every event was read back with the payload that was published, byte for byte.
    pub read_back_unchanged: bool,
    pub webhooks: Vec<Webhook>,
    pub deliveries: Vec<Delivered>,
    pub retry: Option<Retried>,
    pub timings: Timings,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Subscribed {
    pub id: u32,
    pub name: &'static str,
    pub profile: &'static str,
    pub types: &'static [&'static str],
    pub url: String,
    pub receiver_answers: &'static [u16],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Published {
    pub id: u64,
    #[serde(rename = "type")]
    pub kind: String,
    pub created_utc: String,
}

/// What the second publication with one dedupe key was answered.
#[derive(Debug, Serialize)]
pub struct Duplicate {
    pub status: u16,
    pub id: u64,
    pub duplicate: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    pub webhook_id: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub subscription: &'static str,
    pub attempt: u32,
    pub verified: bool,
    /// Whether it holds what was published, byte for byte.
    pub unchanged: bool,
    pub answer: String,
    /// From the commit of the event to the arrival.
    pub after_ms: f64,
}

/// The delivery log of one subscription.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivered {
    pub subscription: &'static str,
    pub delivered: usize,
    pub other: usize,
}

/// The delivery whose receiver failed on purpose.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Retried {
    pub delivery_id: String,
    pub webhook_ids: Vec<String>,
    /// The status of each attempt in the delivery log.
    pub statuses: Vec<Option<u16>>,
    pub state: String,
    /// Between the first webhook and the last.
    pub wait_ms: f64,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Timings {
    pub start_ms: f64,
    pub publish_ms: f64,
    /// From the first publication on.
    pub first_webhook_ms: Option<f64>,
    pub last_webhook_ms: Option<f64>,
    pub total_ms: f64,
}

impl Facts {
    /// Compares what happened with what should have.
    pub fn judge(&mut self) {
        let mut missing = Vec::new();
        let mut demand = |holds: bool, sentence: String| {
            if !holds {
                missing.push(sentence);
            }
        };
        let kinds: Vec<&str> = self.published.iter().map(|event| event.kind.as_str()).collect();
        demand(kinds == EVENTS, format!("{} of {} events were published", kinds.len(), EVENTS.len()));
        let first = self.published.get(PUBLISHED_TWICE).map(|event| event.id);
        let is_known = self.duplicate.as_ref().is_some_and(|known| known.status == 200 && known.duplicate && Some(known.id) == first);
        demand(is_known, "an event that was published twice was not recognised by its dedupe key".to_owned());
        let ids: Vec<u64> = self.published.iter().map(|event| event.id).collect();
        demand(self.pages.concat() == ids, format!("reading back gave the events {:?}, not {ids:?}", self.pages.concat()));
        demand(self.pages.len() == EVENTS.len().div_ceil(PAGE_SIZE), format!("reading back took {} pages", self.pages.len()));
        demand(self.read_back_unchanged, "a payload was read back with other bytes than it was published with".to_owned());
        demand(self.subscriptions.len() == PLANS.len(), format!("there are {} subscriptions", self.subscriptions.len()));
        for (plan, subscribed) in PLANS.iter().zip(&self.subscriptions) {
            let name = plan.name;
            let expected: Vec<String> = self
                .published
                .iter()
                .filter(|event| plan.takes(&event.kind))
                .flat_map(|event| std::iter::repeat_n(format!("evt_{}_{}", event.id, subscribed.id), plan.answers.len()))
                .collect();
            let mut came: Vec<&Webhook> = self.webhooks.iter().filter(|webhook| webhook.subscription == name).collect();
            demand(
                came.len() == expected.len(),
                format!("the receiver of `{name}` got {} webhooks instead of {}", came.len(), expected.len()),
            );
            for id in expected.iter().filter(|id| !came.iter().any(|webhook| webhook.webhook_id == **id)) {
                demand(false, format!("the receiver of `{name}` never got {id}"));
            }
            came.retain(|webhook| !webhook.verified);
            demand(came.is_empty(), format!("the receiver of `{name}` could not verify {} webhooks", came.len()));
            let delivered = self.deliveries.iter().find(|delivered| delivered.subscription == name);
            let is_complete = delivered.is_some_and(|found| found.delivered == plan.deliveries() && found.other == 0);
            demand(is_complete, format!("the delivery log of `{name}` does not say `delivered` {} times", plan.deliveries()));
        }
        demand(self.webhooks.iter().all(|webhook| webhook.unchanged), "a webhook holds other bytes than were published".to_owned());
        let is_retried = self.retry.as_ref().is_some_and(|retry| {
            let same_id = retry.webhook_ids.windows(2).all(|pair| pair.first() == pair.last());
            same_id && retry.webhook_ids.len() == 2 && retry.statuses == [Some(500), Some(204)] && retry.state == "delivered"
        });
        demand(is_retried, "the forced failure was not followed by one retry with the same webhook-id".to_owned());
        self.ok = missing.is_empty();
        self.missing = missing;
    }

    /// Webhooks with a signature that is right.
    pub fn verified(&self) -> usize {
        self.webhooks.iter().filter(|webhook| webhook.verified).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        let published: Vec<Published> =
            (1..).zip(EVENTS).map(|(id, kind)| Published { id, kind: kind.to_owned(), created_utc: String::new() }).collect();
        let mut facts = Facts {
            duplicate: Some(Duplicate { status: 200, id: 4, duplicate: true }),
            pages: vec![vec![1, 2, 3], vec![4, 5, 6], vec![7, 8]],
            read_back_unchanged: true,
            retry: Some(Retried {
                delivery_id: "3-8".to_owned(),
                webhook_ids: vec!["evt_8_3".to_owned(); 2],
                statuses: vec![Some(500), Some(204)],
                state: "delivered".to_owned(),
                wait_ms: 300.0,
            }),
            ..Facts::default()
        };
        for (id, plan) in (1..).zip(&PLANS) {
            let Plan { name, profile, types, answers, .. } = *plan;
            facts.subscriptions.push(Subscribed { id, name, profile, types, url: String::new(), receiver_answers: answers });
            facts.deliveries.push(Delivered { subscription: name, delivered: plan.deliveries(), other: 0 });
            for event in published.iter().filter(|event| plan.takes(&event.kind)) {
                for (attempt, answer) in (1..).zip(answers) {
                    facts.webhooks.push(Webhook {
                        webhook_id: format!("evt_{}_{id}", event.id),
                        kind: event.kind.clone(),
                        subscription: name,
                        attempt,
                        verified: true,
                        unchanged: true,
                        answer: answer.to_string(),
                        after_ms: 1.0,
                    });
                }
            }
        }
        Facts { published, ..facts }
    }

    #[test]
    fn everything_in_its_place_is_all_right() {
        let mut facts = facts();
        facts.judge();
        assert_eq!((facts.ok, facts.missing), (true, Vec::<String>::new()));
        assert_eq!(PLANS.iter().map(Plan::webhooks).collect::<Vec<_>>(), [3, 8, 2]);
    }

    #[test]
    fn whatever_is_missing_is_named() {
        type Damage = fn(&mut Facts);
        let damages: [(Damage, &str); 9] = [
            (|facts| facts.published.truncate(7), "7 of 8"),
            (|facts| facts.duplicate = None, "dedupe key"),
            (|facts| facts.pages.swap(0, 1), "reading back"),
            (|facts| facts.read_back_unchanged = false, "read back with other bytes"),
            (|facts| drop(facts.webhooks.pop()), "`accounting` got 1 webhooks instead of 2"),
            (|facts| facts.webhooks[0].webhook_id = "evt_1_1".to_owned(), "never got evt_4_1"),
            (|facts| facts.webhooks[3].verified = false, "`archive` could not verify 1"),
            (|facts| facts.deliveries[2].other = 1, "delivery log of `accounting`"),
            (|facts| facts.retry.as_mut().unwrap().statuses = vec![Some(204)], "forced failure"),
        ];
        for (damage, words) in damages {
            let mut facts = facts();
            damage(&mut facts);
            facts.judge();
            assert!(!facts.ok && facts.missing.iter().any(|sentence| sentence.contains(words)), "{words}: {:?}", facts.missing);
        }
    }
}
