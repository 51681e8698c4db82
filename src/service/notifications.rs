//! What the links of notifications lead to: things as they were when their event happened.

use crate::domain::company::CompanyId;
use crate::domain::notification;
use crate::store::{Kept, ReadError, Snapshot, Store};
use crate::wire::references::read_references;

/// What a link leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Linked {
    /// The bytes of that time.
    Snapshot(Snapshot),
    /// The publisher has them, at this address.
    Elsewhere(String),
}

/// Why a link leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// No notification of this company has such a link.
    #[error("there is nothing behind this link")]
    Unknown,
    /// Retention has taken the event.
    #[error("the event of this link has been removed by retention")]
    Expired,
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// The use cases of notifications.
#[derive(Debug)]
pub struct NotificationService {
    store: Store,
}

impl NotificationService {
    pub(super) fn new(store: Store) -> Self {
        Self { store }
    }

    /// What lies behind a link of a company's notification. `plural` and `reference` are the last two segments of its
    /// path, unescaped.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub fn follow(&self, company: CompanyId, notification_id: &str, plural: &str, reference: &str) -> Result<Linked, LinkError> {
        // The key is the company's: what other companies were told is no notification here.
        let key = self.store.notification_key(company);
        let event = notification::decode(&key, notification_id).ok_or(LinkError::Unknown)?.event;
        let text = match self.store.references(company, event)? {
            Kept::Here(text) => text,
            Kept::Expired => return Err(LinkError::Expired),
            Kept::Unknown => return Err(LinkError::Unknown),
        };
        let references = read_references(&text).unwrap_or_default();
        let found = (0..).zip(&references).find(|(_, one)| one.has_address() && one.is_at(plural, reference));
        let (number, found) = found.ok_or(LinkError::Unknown)?;
        match found.redirect() {
            Some(link) => Ok(Linked::Elsewhere(link.href.as_str().to_owned())),
            // It was there a moment ago.
            None => self.store.snapshot(company, event, number)?.map(Linked::Snapshot).ok_or(LinkError::Expired),
        }
    }
}
