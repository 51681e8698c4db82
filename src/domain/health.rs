//! The health of a receiver, as far as it can be told from its answers.

use std::time::Duration;

use super::time::Timestamp;

/// Failures in a row before a receiver is probed instead of sent to.
pub const FAILURES_MIN: u32 = 20;
/// The span over which they must have come.
pub const FAILING_MIN: Duration = Duration::from_secs(60);
/// The wait before the first probe; it doubles with every one that fails.
pub const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// The longest wait between two probes.
pub const PAUSE_MAX: Duration = Duration::from_secs(900);
/// A receiver that has been probed for so long without an answer is given up until a person resumes it.
pub const PROBING_MAX: Duration = Duration::from_secs(5 * 24 * 3600);

/// How a receiver does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It is sent to as much as its subscription allows.
    Sound {
        /// Failures in a row, and the time of the first.
        failing: Option<(u32, Timestamp)>,
    },
    /// It fails: one event at a time is tried, with growing pauses.
    Probing {
        /// Since when.
        since: Timestamp,
        /// The pause after the last probe.
        pause: Duration,
        /// When the next one may be sent.
        next: Timestamp,
    },
    /// It answers again: the attempts in flight may double with each round of successes.
    Recovering {
        /// Attempts that may be in flight.
        window: u16,
        /// Successes since the window was last widened.
        successes: u16,
    },
    /// It was given up; only a person resumes it.
    GivenUp,
}

impl Default for Health {
    fn default() -> Self {
        Self::Sound { failing: None }
    }
}

impl Health {
    /// After an answer of success; `most` is what the subscription allows in flight.
    #[must_use]
    pub fn after_success(self, most: u16) -> Self {
        match self {
            Self::Sound { .. } => Self::default(),
            Self::Probing { .. } => Self::Recovering { window: 1, successes: 0 }.widened(most),
            Self::GivenUp => Self::GivenUp,
            Self::Recovering { window, successes } => Self::Recovering { window, successes: successes.saturating_add(1) }.widened(most),
        }
    }

    /// Twice the window once each of its attempts has succeeded; sound again when that is all the subscription allows.
    fn widened(self, most: u16) -> Self {
        match self {
            Self::Recovering { window, successes } => {
                let (window, successes) = if successes >= window { (window.saturating_mul(2), 0) } else { (window, successes) };
                if window >= most { Self::default() } else { Self::Recovering { window, successes } }
            }
            other => other,
        }
    }

    /// After a failed attempt.
    #[must_use]
    pub fn after_failure(self, now: Timestamp) -> Self {
        let probing = |since, pause| Self::Probing { since, pause, next: now.after(pause) };
        match self {
            Self::Sound { failing } => {
                let (count, first) = failing.map_or((1, now), |(count, first)| (count.saturating_add(1), first));
                if count >= FAILURES_MIN && now.since(first) >= FAILING_MIN {
                    probing(now, FIRST_PAUSE)
                } else {
                    Self::Sound { failing: Some((count, first)) }
                }
            }
            Self::Recovering { .. } => probing(now, FIRST_PAUSE),
            // No probe: it was under way when the probing began, and says nothing new.
            Self::Probing { next, .. } if now < next => self,
            Self::Probing { since, .. } if now.since(since) >= PROBING_MAX => Self::GivenUp,
            Self::Probing { since, pause, .. } => probing(since, (pause * 2).min(PAUSE_MAX)),
            Self::GivenUp => Self::GivenUp,
        }
    }

    /// How many attempts may be in flight now; `most` is what the subscription allows.
    #[must_use]
    pub fn window(self, most: u16, now: Timestamp) -> u16 {
        match self {
            Self::Sound { .. } => most,
            Self::Probing { next, .. } => u16::from(next <= now),
            Self::Recovering { window, .. } => window.min(most),
            Self::GivenUp => 0,
        }
    }

    /// When the window may change by itself.
    #[must_use]
    pub fn wakes_at(self) -> Option<Timestamp> {
        match self {
            Self::Probing { next, .. } => Some(next),
            _ => None,
        }
    }

    /// Whether the receiver has failed three times in a row or is probed: it must not hold up others.
    #[must_use]
    pub fn is_slow(self) -> bool {
        match self {
            Self::Sound { failing } => failing.is_some_and(|(count, _)| count >= 3),
            Self::Probing { .. } | Self::GivenUp => true,
            Self::Recovering { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros((1_795_000_000 + seconds) * 1_000_000)
    }

    fn failing(count: u32, over_seconds: u64) -> Health {
        (0..count)
            .fold(Health::default(), |health, number| health.after_failure(at(u64::from(number) * over_seconds / u64::from(count - 1))))
    }

    #[test]
    fn twenty_failures_over_a_minute_begin_the_probing_and_fewer_or_faster_ones_do_not() {
        assert!(matches!(failing(20, 60), Health::Probing { .. }));
        assert!(matches!(failing(19, 600), Health::Sound { .. }));
        assert!(matches!(failing(50, 59), Health::Sound { .. }));
        assert!(failing(3, 2).is_slow());
        assert!(!failing(2, 2).is_slow());
    }

    #[test]
    fn probes_come_after_ten_seconds_and_then_ever_more_rarely() {
        let mut health = failing(20, 60);
        let mut now = at(60);
        assert_eq!(health.window(16, now), 0);
        for pause in [10, 20, 40, 80, 160, 320, 640, 900, 900] {
            assert_eq!(health.wakes_at(), Some(now.after(Duration::from_secs(pause))));
            now = now.after(Duration::from_secs(pause));
            assert_eq!(health.window(16, now), 1);
            health = health.after_failure(now);
        }
    }

    #[test]
    fn attempts_that_were_under_way_when_the_probing_began_do_not_put_off_the_first_probe() {
        let health = failing(20, 60).after_failure(at(60)).after_failure(at(69));
        assert_eq!(health.wakes_at(), Some(at(70)));
    }

    #[test]
    fn a_receiver_that_answers_again_starts_slowly() {
        let mut health = failing(20, 60).after_success(8);
        let mut windows = vec![health.window(8, at(99))];
        for _ in 0..7 {
            health = health.after_success(8);
            windows.push(health.window(8, at(99)));
        }
        assert_eq!(windows, [1, 2, 2, 4, 4, 4, 4, 8]);
        assert_eq!(health, Health::default());
        let relapsed = Health::Recovering { window: 4, successes: 1 }.after_failure(at(0));
        assert_eq!(relapsed.wakes_at(), Some(at(10)));
    }

    #[test]
    fn a_receiver_is_given_up_after_five_days_of_probing() {
        let health = Health::Probing { since: at(0), pause: PAUSE_MAX, next: at(0) };
        assert!(matches!(health.after_failure(at(5 * 86_400 - 1)), Health::Probing { .. }));
        let given_up = health.after_failure(at(5 * 86_400));
        assert_eq!((given_up, given_up.window(16, at(u32::MAX.into()))), (Health::GivenUp, 0));
        assert_eq!(given_up.after_success(16), Health::GivenUp, "an attempt that was under way ends well");
    }
}
