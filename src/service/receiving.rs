//! Receiving through the bridge: a reader that knows where it is by the number of an event.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::domain::company::CompanyId;
use crate::domain::event::EventId;
use crate::domain::filter::TypeFilter;
use crate::store::{Followed, LogEvent, ReadError, Start, Store};

/// Events of one answer.
const EVENTS_MAX: usize = 50;
/// An answer ends when it has so many bytes of envelopes.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// The rest after a commit that brought nothing.
const PAUSE: Duration = Duration::from_millis(5);

/// Why nothing can be received.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    /// The number is one that no event has yet.
    #[error("there is no event _{given} yet, the newest is _{newest}")]
    Beyond {
        /// What the reader says.
        given: EventId,
        /// The newest event of the log.
        newest: EventId,
    },
    /// Retention took events behind the number.
    #[error("events behind _{given} have been removed by retention; without lastEventId you begin at the oldest kept")]
    Lost {
        /// What the reader says.
        given: EventId,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// The use cases of receivers.
#[derive(Debug)]
pub struct ReceivingService {
    store: Store,
}

impl ReceivingService {
    pub(super) fn new(store: Store) -> Self {
        Self { store }
    }

    /// The company's events after the one with this number, or from the oldest kept on; when there are none yet, waits for
    /// the next one, at most `patience` and no longer than until `stop`.
    ///
    /// # Errors
    /// See [`ReceiveError`].
    pub async fn receive(
        &self,
        company: CompanyId,
        after: Option<EventId>,
        filter: &TypeFilter,
        patience: Duration,
        stop: &CancellationToken,
    ) -> Result<Vec<LogEvent>, ReceiveError> {
        let deadline = Instant::now() + patience;
        let mut tail = self.store.watch_tail();
        let newest = tail.borrow_and_update().id;
        let mut position = match after {
            None => self.store.start_position(company, Start::Oldest),
            Some(given) if given > newest => return Err(ReceiveError::Beyond { given, newest }),
            Some(id) => self.store.position_of_id(company, id)?,
        };
        loop {
            match self.store.follow(company, position, filter, EVENTS_MAX, BYTES_MAX)? {
                Followed::Batch(batch) if batch.events.is_empty() => position = batch.reached,
                Followed::Batch(batch) => return Ok(batch.events),
                Followed::Lost(_) => return Err(ReceiveError::Lost { given: after.unwrap_or_default() }),
            }
            let woken = tokio::select! {
                changed = timeout_at(deadline, tail.changed()) => matches!(changed, Ok(Ok(()))),
                () = stop.cancelled() => false,
            };
            if !woken {
                return Ok(Vec::new());
            }
            sleep(PAUSE).await;
            tail.borrow_and_update();
        }
    }
}
