//! The rate of one subscription: attempts a minute, spread evenly.

use std::time::Duration;

use crate::domain::time::Timestamp;

/// When the next attempt may start.
///
/// A bucket of one second's worth of attempts (at least one), filled evenly: a burst after a pause is never more than
/// that (Turner 1986, the leaky bucket as a meter; here as the generic cell rate algorithm of ITU-T I.371).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rate {
    /// The time at which the bucket is full again.
    full_at: Timestamp,
}

impl Rate {
    fn interval(per_minute: u32) -> Duration {
        Duration::from_secs(60) / per_minute.max(1)
    }

    fn tolerance(per_minute: u32) -> Duration {
        Self::interval(per_minute) * (per_minute / 60).saturating_sub(1)
    }

    /// The earliest time of the next attempt; 0 a minute = unlimited.
    pub fn ready_at(&self, per_minute: u32) -> Timestamp {
        if per_minute == 0 { Timestamp::default() } else { self.full_at.before(Self::tolerance(per_minute)) }
    }

    /// Counts an attempt that starts now.
    pub fn count(&mut self, per_minute: u32, now: Timestamp) {
        if per_minute > 0 {
            self.full_at = self.full_at.max(now).after(Self::interval(per_minute));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(per_minute: u32, seconds: u64) -> u64 {
        let mut rate = Rate::default();
        let start = Timestamp::from_micros(1_795_000_000_000_000);
        let mut count = 0;
        for millisecond in 0..seconds * 1000 {
            let now = start.after(Duration::from_millis(millisecond));
            while rate.ready_at(per_minute) <= now && count < 1_000_000 {
                rate.count(per_minute, now);
                count += 1;
            }
        }
        count
    }

    #[test]
    fn so_many_attempts_start_and_a_second_of_burst() {
        assert_eq!(started(60, 60), 60);
        assert_eq!(started(6, 60), 6);
        let fast = started(6000, 60);
        assert!((6000..=6100).contains(&fast), "{fast}");
    }

    #[test]
    fn zero_is_unlimited() {
        let mut rate = Rate::default();
        rate.count(0, Timestamp::from_micros(5));
        assert_eq!(rate.ready_at(0), Timestamp::default());
    }
}
