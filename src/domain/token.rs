//! How long an access token is used, and how long a token service that fails is left alone.

use std::time::Duration;

use super::time::Timestamp;

/// How long a token lives whose service does not say so (RFC 6749, 5.1: `expires_in` is only recommended).
pub const LIFETIME_DEFAULT: Duration = Duration::from_secs(300);
/// The longest that a token is believed to live, whatever its service says.
pub const LIFETIME_MAX: Duration = Duration::from_secs(24 * 3600);
/// The shortest that a token is believed to live: a service that says less is not asked more often than that. Its tokens
/// are then refused by the receiver at worst, and fetched anew.
pub const LIFETIME_MIN: Duration = Duration::from_secs(10);
/// A token is not used any more so long before it expires.
pub const MARGIN: Duration = Duration::from_secs(60);
/// The longest pause after a failure, without its jitter.
pub const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How long a token is used from the moment in which it was asked for: until [`MARGIN`] before it expires, or for half
/// of its life when that is shorter than two margins.
#[must_use]
pub fn usable_for(expires_in: Option<Duration>) -> Duration {
    let lifetime = expires_in.unwrap_or(LIFETIME_DEFAULT).clamp(LIFETIME_MIN, LIFETIME_MAX);
    lifetime - MARGIN.min(lifetime / 2)
}

/// The pause after so many failures in a row (from 1): 1 s, doubled each time, at most [`PAUSE_MAX`], with a jitter of
/// ±10 %. `chance` is evenly distributed over all of its values.
#[must_use]
pub fn pause_after(failures: u32, chance: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let wait = Duration::from_secs(1 << doublings).min(PAUSE_MAX);
    let share = f64::from(chance) / f64::from(u32::MAX);
    wait.mul_f64(0.9 + 0.2 * share)
}

/// What fails again and again is left alone for a while after each failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pause {
    failures: u32,
    until: Timestamp,
}

impl Pause {
    /// It failed at `now`.
    pub fn failed(&mut self, now: Timestamp, chance: u32) {
        self.failures = self.failures.saturating_add(1);
        self.until = now.after(pause_after(self.failures, chance));
    }

    /// It went well.
    pub fn ended(&mut self) {
        *self = Self::default();
    }

    /// How long it is still left alone at `now`; none when it may be tried.
    #[must_use]
    pub fn left(&self, now: Timestamp) -> Option<Duration> {
        let left = self.until.since(now);
        // A clock that was put back must not make a pause longer than a pause is.
        (self.failures > 0 && !left.is_zero() && left <= PAUSE_MAX.mul_f64(1.1)).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn now() -> Timestamp {
        "2026-11-22T10:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_token_is_used_until_a_minute_before_it_expires_or_for_half_of_a_short_life() {
        let expected = [
            (Some(3600), 3540),
            (Some(120), 60),
            (Some(119), 59),
            (Some(60), 30),
            (Some(10), 5),
            (Some(0), 5),
            (None, 240),
            (Some(86_400), 86_340),
            (Some(u64::MAX), 86_340),
        ];
        for (expires_in, used) in expected {
            assert_eq!(usable_for(expires_in.map(seconds)).as_secs(), used, "{expires_in:?}");
        }
    }

    #[test]
    fn pauses_double_from_a_second_to_a_minute_within_a_tenth() {
        let expected = [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 32), (7, 60), (8, 60), (u32::MAX, 60)];
        for (failures, wait) in expected {
            assert_eq!(pause_after(failures, 0), seconds(wait).mul_f64(0.9), "{failures}");
            assert_eq!(pause_after(failures, u32::MAX), seconds(wait).mul_f64(1.1), "{failures}");
        }
    }

    #[test]
    fn a_pause_is_over_in_time_and_forgotten_after_a_success() {
        let mut pause = Pause::default();
        assert_eq!(pause.left(now()), None);
        pause.failed(now(), u32::MAX / 2);
        assert!(pause.left(now()).is_some_and(|left| left <= seconds(1) && left > seconds(1).mul_f64(0.99)), "{pause:?}");
        assert_eq!(pause.left(now().after(seconds(1))), None);
        pause.failed(now().after(seconds(1)), u32::MAX / 2);
        assert!(pause.left(now().after(seconds(2))).is_some());
        pause.ended();
        assert_eq!(pause, Pause::default());
    }

    #[test]
    fn a_clock_that_goes_back_does_not_prolong_a_pause() {
        let mut pause = Pause::default();
        pause.failed(now().after(seconds(3600)), 0);
        assert_eq!(pause.left(now()), None);
    }
}
