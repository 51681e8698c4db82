//! What a crash has left half written: attempts that are in the attempt log, and whose outcomes are not in the ledger.

use std::sync::Arc;

use super::Core;
use crate::domain::event::EventId;
use crate::domain::subscription::Subscription;
use crate::domain::time::Timestamp;
use crate::store::{AttemptRow, DeliveryRow, PositionRow, ReadError, RetryRow};

impl Core {
    /// Brings what the ledger has of a subscription up to the attempts that were made: what was delivered is settled,
    /// everything else is owed, and its next attempt has the next number. How many have ended.
    pub(super) fn judge_late(
        &mut self,
        subscription: &Arc<Subscription>,
        row: &mut Option<PositionRow>,
        owed: &mut Vec<(EventId, RetryRow)>,
        attempts: Vec<AttemptRow>,
        now: Timestamp,
    ) -> Result<u64, ReadError> {
        let mut ended = 0;
        for attempt in attempts {
            let event = attempt.delivery.event;
            let known = owed.iter().position(|(owed, _)| *owed == event);
            let before = known.and_then(|place| owed.get(place)).map(|(_, row)| *row);
            let place = row.get_or_insert_with(|| PositionRow { position: self.routed, settled: Vec::new() });
            let is_open = event > place.position.id && place.settled.binary_search(&event).is_err();
            if !before.map_or(is_open, |before| before.attempts < attempt.number) {
                continue;
            }
            owed.retain(|(owed, _)| *owed != event);
            if attempt.delivered {
                if is_open && let Err(at) = place.settled.binary_search(&event) {
                    place.settled.insert(at, event);
                }
                ended += 1;
                self.outcomes.rows.push((attempt.delivery, DeliveryRow::Settled));
            } else {
                let key = match before {
                    Some(before) => before.key,
                    None => self.store.read_event(subscription.company, event)?.and_then(|event| event.order_key(subscription)),
                };
                let due = attempt.next_due.unwrap_or(now);
                let row = RetryRow { attempts: attempt.number, due, created: attempt.event_created, key };
                owed.push((event, row));
                self.outcomes.rows.push((attempt.delivery, DeliveryRow::Retry(row)));
            }
            self.note_outcome(now);
        }
        Ok(ended)
    }
}
