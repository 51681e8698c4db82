//! The delivery engine as the services see it.

use std::sync::Arc;

use crate::delivery::EngineHandle;
use crate::domain::company::CompanyId;
use crate::domain::cursor::Position;
use crate::domain::subscription::{DeliveryId, LaneStatus, ReplayId, Subscription, SubscriptionId};
use crate::service::subscriptions::{Deliverer, Telling};
use crate::store::{Replay, RetryRow};

/// Hands on what the services tell.
#[derive(Debug)]
pub(super) struct EngineDeliverer(pub EngineHandle);

impl Deliverer for EngineDeliverer {
    fn created(&self, subscription: Arc<Subscription>, position: Position) -> Telling<'_, ()> {
        Box::pin(self.0.created(subscription, position))
    }

    fn changed(&self, subscription: Arc<Subscription>) -> Telling<'_, ()> {
        Box::pin(self.0.changed(subscription))
    }

    fn deleted(&self, company: CompanyId, id: SubscriptionId) -> Telling<'_, ()> {
        Box::pin(self.0.deleted(company, id))
    }

    fn owed(&self, delivery: DeliveryId, row: RetryRow) -> Telling<'_, ()> {
        Box::pin(self.0.owed(delivery, row))
    }

    fn revived(&self, rows: Vec<(DeliveryId, RetryRow)>) -> Telling<'_, ()> {
        Box::pin(self.0.revived(rows))
    }

    fn replay(&self, replay: Replay) -> Telling<'_, ()> {
        Box::pin(self.0.replay(replay))
    }

    fn replay_cancelled(&self, subscription: SubscriptionId, replay: ReplayId) -> Telling<'_, ()> {
        Box::pin(self.0.replay_cancelled(subscription, replay))
    }

    fn discard(&self, delivery: DeliveryId) -> Telling<'_, bool> {
        Box::pin(self.0.discard(delivery))
    }

    fn status(&self, id: SubscriptionId) -> Telling<'_, Option<LaneStatus>> {
        Box::pin(self.0.status(id))
    }
}
