//! What people decide about deliveries.

use super::deliveries::{CloseState, ClosedRow, DeliveryRow, EventRun, RetryRow, RowTables, living};
use super::ledger::{LedgerBusy, record_act};
use super::replays::{self, ReplayState};
use super::subscriptions::SubscriptionError;
use super::{Actor, ReadError, Store};
use crate::domain::ordering::OrderKey;
use crate::domain::subscription::{DeliveryId, ReplayId, SubscriptionId};

/// What a person wants to be done with dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadThen {
    /// They are owed again.
    Retry,
    /// They are given up.
    Discard,
}

impl Store {
    /// Writes what a person decided about a delivery, with its row in the audit log. Nothing is written of a subscription
    /// that is gone.
    ///
    /// # Errors
    /// `Busy` when the ledger cannot take the act.
    pub async fn write_row(
        &self,
        id: DeliveryId,
        row: DeliveryRow,
        actor: &Actor,
        act: &str,
        reason: &str,
    ) -> Result<(), SubscriptionError> {
        let keeps_retries = !self.inner.faults.retry_lost_at_restart;
        let (actor, act, reason, at) = (actor.clone(), act.to_owned(), reason.to_owned(), self.inner.now());
        let written = self.inner.ledger.submit(
            move |transaction| {
                if !living(transaction, [id.subscription].into_iter())?.is_empty() {
                    RowTables::open(transaction, keeps_retries)?.write(id, &row)?;
                    record_act(transaction, at, &actor, &act, &format!("delivery:{id}"), &reason)?;
                }
                Ok(())
            },
            |()| {},
        )?;
        written.await.map_err(|_| SubscriptionError::Busy(LedgerBusy::Ended))
    }

    /// Dead letters of a subscription, its own and those of its replays, by event above `after`, at most `limit`.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn dead_letters(&self, subscription: SubscriptionId, after: EventRun, limit: usize) -> Result<Vec<DeliveryId>, ReadError> {
        Ok(self.inner.rows_of(subscription)?.dead_above(after, limit)?)
    }

    /// Owes dead letters again, in the order of their keys, or gives them up: what is dead at the moment of the commit, each
    /// with the attempts that it had. The audit log has one row about all of them.
    ///
    /// # Errors
    /// `Busy` when the ledger cannot take the act.
    pub async fn settle_dead(
        &self,
        subscription: SubscriptionId,
        letters: Vec<(DeliveryId, Option<OrderKey>)>,
        then: DeadThen,
        reason: String,
        actor: &Actor,
    ) -> Result<Vec<(DeliveryId, RetryRow)>, SubscriptionError> {
        let (actor, at) = (actor.clone(), self.inner.now());
        let keeps_retries = !self.inner.faults.retry_lost_at_restart;
        let settled = self.inner.ledger.submit(
            move |transaction| {
                let mut settled = Vec::with_capacity(letters.len());
                if living(transaction, [subscription].into_iter())?.is_empty() {
                    return Ok(settled);
                }
                let mut tables = RowTables::open(transaction, keeps_retries)?;
                for (id, key) in letters {
                    let Some(dead) = tables.dead_row(id)? else { continue };
                    let row = RetryRow { attempts: dead.attempts, due: at, created: dead.created, key };
                    let written = match then {
                        DeadThen::Retry => {
                            let is_over = id.run > 0 && replays::state_in(transaction, ReplayId(id.run))? == Some(ReplayState::Cancelled);
                            if is_over {
                                continue;
                            }
                            DeliveryRow::Retry(row)
                        }
                        DeadThen::Discard => DeliveryRow::Closed(ClosedRow {
                            state: CloseState::Cancelled,
                            at,
                            created: dead.created,
                            reason: reason.clone(),
                            attempts: dead.attempts,
                        }),
                    };
                    tables.write(id, &written)?;
                    settled.push((id, row));
                }
                drop(tables);
                if !settled.is_empty() {
                    let act = match then {
                        DeadThen::Retry => "delivery.retry",
                        DeadThen::Discard => "delivery.discard",
                    };
                    let detail = format!("{reason} ({} deliveries)", settled.len());
                    record_act(transaction, at, &actor, act, &format!("subscription:{subscription}"), detail.trim())?;
                }
                Ok(settled)
            },
            |_| {},
        )?;
        settled.await.map_err(|_| SubscriptionError::Busy(LedgerBusy::Ended))
    }
}
