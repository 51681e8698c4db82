//! Rate limits: calls per key, bucket and minute, in fixed windows of the wall clock.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::domain::key::Bucket;
use crate::domain::time::Timestamp;

/// Seconds of a window.
pub const WINDOW_SECONDS: u64 = 60;

/// Holders that are kept before those without calls in this minute are dropped.
const KEYS_KEPT: usize = 8_192;

/// How a bucket stands at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Calls per minute; 0 = unlimited.
    pub limit: u32,
    /// Calls that are left in this minute; 0 when unlimited.
    pub remaining: u32,
    /// When the next window begins, in Unix seconds.
    pub reset: u64,
}

impl Standing {
    /// A bucket from which nothing was taken.
    #[must_use]
    pub fn unused(limit: u32, now: Timestamp) -> Self {
        Self { limit, remaining: limit, reset: reset_after(now) }
    }
}

fn window_of(now: Timestamp) -> u64 {
    now.as_seconds() / WINDOW_SECONDS
}

fn reset_after(now: Timestamp) -> u64 {
    (window_of(now) + 1) * WINDOW_SECONDS
}

/// The counters of one key: per bucket the number of the window and the calls in it, packed into one word.
#[derive(Debug, Default)]
pub struct Windows {
    read: AtomicU64,
    write: AtomicU64,
    admin: AtomicU64,
}

impl Windows {
    fn word(&self, bucket: Bucket) -> &AtomicU64 {
        match bucket {
            Bucket::Read => &self.read,
            Bucket::Write => &self.write,
            Bucket::Admin => &self.admin,
        }
    }

    /// Takes `calls` from a bucket of `limit` (0 = unlimited). False when fewer are left; then none is taken.
    #[must_use]
    pub fn take(&self, bucket: Bucket, calls: u32, limit: u32, now: Timestamp) -> bool {
        if limit == 0 {
            return true;
        }
        let window = window_of(now);
        let next = |word| {
            let used = used_in(word, window).checked_add(calls).filter(|used| *used <= limit)?;
            Some(window << 32 | u64::from(used))
        };
        self.word(bucket).fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }

    /// How a bucket of `limit` stands.
    #[must_use]
    pub fn standing(&self, bucket: Bucket, limit: u32, now: Timestamp) -> Standing {
        let used = if limit == 0 { 0 } else { used_in(self.word(bucket).load(Ordering::Relaxed), window_of(now)) };
        Standing { limit, remaining: limit.saturating_sub(used), reset: reset_after(now) }
    }

    fn is_idle(&self, now: Timestamp) -> bool {
        [Bucket::Read, Bucket::Write, Bucket::Admin]
            .into_iter()
            .all(|bucket| used_in(self.word(bucket).load(Ordering::Relaxed), window_of(now)) == 0)
    }
}

/// The calls that a word counts in `window`; a word of another window counts none.
fn used_in(word: u64, window: u64) -> u32 {
    if word >> 32 == window { u32::try_from(word & u64::from(u32::MAX)).unwrap_or(u32::MAX) } else { 0 }
}

/// The counters of all holders that called lately, by what names them: the ids of keys, or of clients.
#[derive(Debug)]
pub struct Rates<K> {
    keys: RwLock<HashMap<K, Arc<Windows>>>,
}

impl<K> Default for Rates<K> {
    fn default() -> Self {
        Self { keys: RwLock::default() }
    }
}

impl<K: Eq + Hash> Rates<K> {
    /// The counters of a holder. Only holders that exist are asked for, which bounds how many there are.
    #[must_use]
    pub fn of<Q>(&self, key: &Q, now: Timestamp) -> Arc<Windows>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        if let Some(windows) = self.keys.read().unwrap_or_else(PoisonError::into_inner).get(key) {
            return Arc::clone(windows);
        }
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= KEYS_KEPT {
            // Counters that somebody holds stay, so that one key never has two sets of them.
            keys.retain(|_, windows| Arc::strong_count(windows) > 1 || !windows.is_idle(now));
        }
        Arc::clone(keys.entry(key.to_owned()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::key::KeyId;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn a_window_gives_its_limit_and_the_next_one_starts_afresh() {
        let windows = Windows::default();
        for left in (0..3).rev() {
            assert!(windows.take(Bucket::Read, 1, 3, at(60)));
            assert_eq!(windows.standing(Bucket::Read, 3, at(60)), Standing { limit: 3, remaining: left, reset: 120 });
        }
        assert!(!windows.take(Bucket::Read, 1, 3, at(119)));
        assert_eq!(windows.standing(Bucket::Read, 3, at(120)).remaining, 3);
        assert!(windows.take(Bucket::Read, 1, 3, at(120)));
    }

    #[test]
    fn buckets_are_counted_apart() {
        let windows = Windows::default();
        assert!(windows.take(Bucket::Read, 1, 1, at(0)));
        assert!(windows.take(Bucket::Write, 1, 1, at(0)));
        assert!(!windows.take(Bucket::Write, 1, 1, at(0)));
        assert!(windows.take(Bucket::Admin, 1, 1, at(0)));
    }

    #[test]
    fn a_batch_that_does_not_fit_takes_nothing() {
        let windows = Windows::default();
        assert!(windows.take(Bucket::Write, 6, 10, at(0)));
        assert!(!windows.take(Bucket::Write, 5, 10, at(0)));
        assert!(windows.take(Bucket::Write, 4, 10, at(0)));
        assert!(!windows.take(Bucket::Write, u32::MAX, 10, at(0)));
    }

    #[test]
    fn zero_is_unlimited() {
        let windows = Windows::default();
        assert!((0..100).all(|_| windows.take(Bucket::Read, 1000, 0, at(0))));
        assert_eq!(windows.standing(Bucket::Read, 0, at(61)), Standing { limit: 0, remaining: 0, reset: 120 });
    }

    #[test]
    fn one_key_has_one_set_of_counters() {
        let rates = Rates::default();
        let id: KeyId = "abcDEF012345".parse().unwrap();
        assert!(Arc::ptr_eq(&rates.of(&id, at(0)), &rates.of(&id, at(100))));
    }
}
