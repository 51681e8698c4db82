//! Verified credentials, and the memory of those that were verified before.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use siphasher::sip128::SipHasher24;

use super::rates::Windows;
use crate::domain::key::{Grant, Principal};

/// Credentials of one kind that are remembered as verified.
const REMEMBERED_MAX: usize = 4_096;

/// The holder of a verified credential and what counts its calls.
#[derive(Debug)]
pub struct Credential {
    /// Who makes a request.
    pub principal: Principal,
    /// Its counters.
    pub windows: Arc<Windows>,
}

impl Credential {
    /// What it allows; every credential has a grant.
    #[must_use]
    pub fn grant(&self) -> Option<&Grant> {
        self.principal.grant()
    }
}

/// What stands for a text: its 128-bit hash under a key of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Tag(u128);

/// What was verified before, by the hash of its text; the texts are not kept.
pub(super) struct Remembered<T> {
    hasher: SipHasher24,
    entries: RwLock<HashMap<Tag, T>>,
}

impl<T> fmt::Debug for Remembered<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Remembered").finish_non_exhaustive()
    }
}

impl<T: Clone> Remembered<T> {
    /// Nothing yet.
    pub fn new() -> Result<Self, getrandom::Error> {
        let mut key = [0; 16];
        getrandom::fill(&mut key)?;
        Ok(Self { hasher: SipHasher24::new_with_key(&key), entries: RwLock::default() })
    }

    /// What stands for this text.
    pub fn tag(&self, text: &[u8]) -> Tag {
        Tag(self.hasher.hash(text).as_u128())
    }

    /// What is remembered of a text.
    pub fn get(&self, tag: Tag) -> Option<T> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).get(&tag).cloned()
    }

    /// Remembers a text that was verified. When too many are, all are verified again: that is rare, and costs no list of
    /// who came last.
    pub fn put(&self, tag: Tag, entry: T) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= REMEMBERED_MAX && !entries.contains_key(&tag) {
            entries.clear();
        }
        entries.insert(tag, entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded() {
        let remembered = Remembered::new().unwrap();
        for number in 0..REMEMBERED_MAX {
            remembered.put(remembered.tag(&number.to_le_bytes()), number);
        }
        let first = remembered.tag(&0_usize.to_le_bytes());
        assert_eq!(remembered.get(first), Some(0));
        remembered.put(first, 7);
        assert_eq!((remembered.get(first), remembered.entries.read().unwrap().len()), (Some(7), REMEMBERED_MAX));
        remembered.put(remembered.tag(b"one more"), 8);
        assert_eq!((remembered.get(first), remembered.entries.read().unwrap().len()), (None, 1));
    }
}
