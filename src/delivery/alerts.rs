//! What the daemon tells a company in its own log.

use serde_json::json;

use crate::domain::event::{EventId, EventVersion, NewEvent};
use crate::domain::subscription::{DeliveryId, SubscriptionId};
use crate::domain::time::Timestamp;

/// Something that a person should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alert {
    /// Deliveries became dead letters.
    Exhausted {
        /// To whom.
        subscription: SubscriptionId,
        /// What.
        deliveries: Vec<DeliveryId>,
        /// When the last of them died.
        died: Timestamp,
    },
    /// The receiver answered 410.
    Disabled {
        /// Which one's.
        subscription: SubscriptionId,
    },
    /// The receiver is not tried any more until a person resumes the subscription.
    Suspended {
        /// Which one's.
        subscription: SubscriptionId,
        /// The event whose last retry has failed; none when the receiver did not answer for days.
        exhausted: Option<EventId>,
    },
}

impl Alert {
    /// The event that tells of it; none when it cannot be told.
    #[must_use]
    pub fn to_event(&self) -> Option<NewEvent> {
        let (kind, payload, key) = match self {
            Self::Exhausted { subscription, deliveries, died } => {
                let events = deliveries.iter().map(|delivery| delivery.event);
                let (first, last) = (events.clone().min()?, events.max()?);
                let payload =
                    json!({"subscriptionId": subscription.0, "count": deliveries.len(), "firstEventId": first.0, "lastEventId": last.0});
                // A crash between the commit and its note in the ledger makes the daemon say it again, once. The time is
                // part of it because a delivery that is sent again by hand may die again.
                let key = format!("lutine.delivery.exhausted:{subscription}:{first}:{last}:{}:{}", deliveries.len(), died.as_micros());
                ("lutine.delivery.exhausted", payload, Some(key))
            }
            Self::Disabled { subscription } => ("lutine.subscription.disabled", json!({"subscriptionId": subscription.0}), None),
            Self::Suspended { subscription, exhausted } => {
                let payload = match exhausted {
                    Some(event) => json!({"subscriptionId": subscription.0, "eventId": event.0}),
                    None => json!({"subscriptionId": subscription.0}),
                };
                ("lutine.subscription.suspended", payload, None)
            }
        };
        Some(NewEvent {
            kind: kind.parse().ok()?,
            version: EventVersion::default(),
            payload: payload.to_string(),
            metadata: "{}".to_owned(),
            dedupe_key: key.and_then(|key| key.parse().ok()),
            references: None,
            occurred_at: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exhausted_deliveries_are_told_as_one_event() {
        let alert = Alert::Exhausted {
            subscription: SubscriptionId(12),
            deliveries: [(9, 0), (4, 2), (7, 0)]
                .map(|(event, run)| DeliveryId { subscription: SubscriptionId(12), event: EventId(event), run })
                .to_vec(),
            died: Timestamp::from_micros(5),
        };
        let event = alert.to_event().unwrap();
        assert_eq!(event.kind.as_str(), "lutine.delivery.exhausted");
        assert_eq!(event.payload, r#"{"count":3,"firstEventId":4,"lastEventId":9,"subscriptionId":12}"#);
        assert_eq!(event.dedupe_key.unwrap().as_str(), "lutine.delivery.exhausted:12:4:9:3:5");
    }
}
