//! What is told about deliveries: in the log of their company, in the daemon's, and about the health of receivers.

use std::sync::Arc;

use tracing::{error, info, warn};

use super::super::Alert;
use super::{ALERT_INTERVAL, Core, Unannounced};
use crate::domain::company::CompanyId;
use crate::domain::event::EventId;
use crate::domain::health::Health;
use crate::domain::subscription::{DeliveryId, Standing, Subscription, SubscriptionId};
use crate::domain::time::Timestamp;

impl Core {
    pub(super) fn announce_later(&mut self, delivery: DeliveryId, died: Timestamp, now: Timestamp) {
        let at = self.announced_at.get(&delivery.subscription).map_or(now, |last| last.after(ALERT_INTERVAL).max(now));
        let known = self.unannounced.entry(delivery.subscription).or_insert(Unannounced { deliveries: Vec::new(), died, at });
        known.deliveries.push(delivery);
        known.died = known.died.max(died);
    }

    /// The receiver wants nothing any more.
    pub(super) fn disable(&mut self, id: SubscriptionId, company: CompanyId) {
        let Some(receiver) = self.receivers.get_mut(&id) else { return };
        if receiver.subscription.standing == Standing::Active {
            receiver.subscription = Arc::new(Subscription { standing: Standing::Disabled, ..Subscription::clone(&receiver.subscription) });
            self.outcomes.receivers.push(receiver.note());
            warn!(subscription.id = %id, "The receiver of subscription {id} answered 410; the subscription is disabled");
            self.alerts.push((company, Alert::Disabled { subscription: id }));
        }
    }

    /// Writes down and tells when the receiver's health has changed in kind; `exhausted` is the event for which the
    /// subscription is given up.
    pub(super) fn note_health(&mut self, id: SubscriptionId, before: Health, exhausted: Option<EventId>) {
        let Some(receiver) = self.receivers.get_mut(&id) else { return };
        let after = receiver.health;
        if std::mem::discriminant(&before) == std::mem::discriminant(&after) {
            return;
        }
        receiver.subscription = Arc::new(Subscription { health: after, ..Subscription::clone(&receiver.subscription) });
        self.outcomes.receivers.push(receiver.note());
        let company = receiver.subscription.company;
        match after {
            Health::Probing { .. } => warn!(subscription.id = %id, "The receiver of subscription {id} fails; it is probed"),
            Health::GivenUp => {
                match exhausted {
                    Some(event) => error!(
                        subscription.id = %id,
                        event.id = %event,
                        "The last retry of event {event} to subscription {id} has failed; the subscription is suspended"
                    ),
                    None => error!(
                        subscription.id = %id,
                        "The receiver of subscription {id} did not answer for days; the subscription is suspended"
                    ),
                }
                self.metrics.suspended.inc();
                self.alerts.push((company, Alert::Suspended { subscription: id, exhausted }));
            }
            Health::Recovering { .. } => info!(subscription.id = %id, "The receiver of subscription {id} answers again"),
            Health::Sound { .. } => {}
        }
    }

    /// What is to be published about deliveries now.
    pub fn alerts(&mut self, now: Timestamp) -> Vec<(CompanyId, Alert)> {
        let mut alerts = std::mem::take(&mut self.alerts);
        let due: Vec<SubscriptionId> = self.unannounced.iter().filter(|(_, due)| due.at <= now).map(|(id, _)| *id).collect();
        for id in due {
            let Some(due) = self.unannounced.remove(&id) else { continue };
            let Some(subscription) = self.store.subscription(id) else { continue };
            self.announced_at.insert(id, now);
            alerts.push((subscription.company, Alert::Exhausted { subscription: id, deliveries: due.deliveries, died: due.died }));
        }
        self.announced_at.retain(|_, at| now.since(*at) < ALERT_INTERVAL);
        alerts
    }

    /// An alert is in the log.
    pub fn announced(&mut self, alert: &Alert, now: Timestamp) {
        if let Alert::Exhausted { deliveries, .. } = alert {
            self.outcomes.announced.extend(deliveries);
            self.note_outcome(now);
        }
    }

    /// An alert could not be put into the log; it is tried again.
    pub fn not_announced(&mut self, alert: Alert, now: Timestamp) {
        if let Alert::Exhausted { subscription, deliveries, died } = alert {
            let at = now.after(ALERT_INTERVAL);
            let known = self.unannounced.entry(subscription).or_insert(Unannounced { deliveries: Vec::new(), died, at });
            known.deliveries.extend(deliveries);
            known.died = known.died.max(died);
        }
    }
}
