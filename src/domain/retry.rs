//! What an answer means, and what follows it.

use std::fmt;
use std::time::Duration;

use super::profile::Knobs;
use super::time::Timestamp;

/// The longest wait that a receiver may ask for with `Retry-After`; a longer one is cut to this, so that a faulty
/// receiver cannot park its deliveries for good.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// Why an attempt failed, for people and for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The status is not one of success.
    Status,
    /// The deadline passed.
    Timeout,
    /// The name has no address.
    Dns,
    /// No connection.
    Connect,
    /// No agreement on TLS.
    Tls,
    /// The connection broke.
    Reset,
    /// The answer is not HTTP.
    Protocol,
    /// The address may not be sent to.
    Egress,
    /// The body of the answer broke off or is larger than what is read.
    Body,
    /// There is no access token to send with.
    Token,
}

impl ErrorClass {
    /// All classes.
    pub const ALL: [Self; 10] = [
        Self::Status,
        Self::Timeout,
        Self::Dns,
        Self::Connect,
        Self::Tls,
        Self::Reset,
        Self::Protocol,
        Self::Egress,
        Self::Body,
        Self::Token,
    ];

    /// The class as it is written on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Timeout => "timeout",
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Reset => "reset",
            Self::Protocol => "protocol",
            Self::Egress => "egress",
            Self::Body => "body",
            Self::Token => "token",
        }
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// What came of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exchange {
    /// A whole answer.
    Answered {
        /// Its status.
        status: u16,
        /// The time before which the receiver wants no other attempt, from its `Retry-After`.
        not_before: Option<Timestamp>,
    },
    /// None, for this reason.
    Failed(ErrorClass),
}

/// What an attempt means for its delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The receiver has it.
    Delivered,
    /// To be tried again, not before this time if there is one.
    Failed {
        /// From `Retry-After` of a 429 or 503.
        not_before: Option<Timestamp>,
    },
    /// The receiver will never take this body: 413 and 415.
    Refused,
    /// The receiver wants nothing any more: 410.
    Gone,
}

/// Judges one attempt under the knobs of its subscription.
#[must_use]
pub fn judge(exchange: &Exchange, knobs: &Knobs) -> Verdict {
    let Exchange::Answered { status, not_before } = exchange else { return Verdict::Failed { not_before: None } };
    let is_success = knobs.success.contains(*status) || (knobs.lenient_success && (200..=299).contains(status));
    match status {
        _ if is_success => Verdict::Delivered,
        410 => Verdict::Gone,
        413 | 415 => Verdict::Refused,
        429 | 503 => Verdict::Failed { not_before: *not_before },
        _ => Verdict::Failed { not_before: None },
    }
}

/// What follows a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Another attempt at this time.
    RetryAt(Timestamp),
    /// None: the schedule is exhausted.
    Exhausted,
}

/// The wait with a jitter of ±10 %; `chance` is evenly distributed over all of its values.
fn jittered(wait: Duration, chance: u32) -> Duration {
    let share = f64::from(chance) / f64::from(u32::MAX);
    wait.mul_f64(0.9 + 0.2 * share)
}

/// Decides what follows failed attempt number `attempt` (from 1).
///
/// The next attempt comes never earlier than the receiver asked for, nor than the schedule says; waiting for the
/// receiver uses up one retry like any other (RFC 9110, 10.2.3, bounded by [`RETRY_AFTER_MAX`]).
#[must_use]
pub fn after_failure(attempt: u32, not_before: Option<Timestamp>, schedule: &[Duration], now: Timestamp, chance: u32) -> Next {
    let place = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
    match schedule.get(place) {
        None => Next::Exhausted,
        Some(wait) => {
            let asked = not_before.map_or(now, |time| time.min(now.after(RETRY_AFTER_MAX)));
            Next::RetryAt(now.after(jittered(*wait, chance)).max(asked))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::profile::{Overrides, Profile, StatusSet};

    fn knobs() -> Knobs {
        Profile::Standard.knobs(&Overrides::default())
    }

    fn now() -> Timestamp {
        "2026-11-22T10:00:00Z".parse().unwrap()
    }

    fn answered(status: u16) -> Exchange {
        Exchange::Answered { status, not_before: Some(now().after(Duration::from_secs(60))) }
    }

    #[test]
    fn every_status_has_its_verdict() {
        let later = Some(now().after(Duration::from_secs(60)));
        let failed = Verdict::Failed { not_before: None };
        let expected = [
            (200, Verdict::Delivered),
            (204, Verdict::Delivered),
            (299, Verdict::Delivered),
            (301, failed),
            (302, failed),
            (304, failed),
            (400, failed),
            (401, failed),
            (404, failed),
            (408, failed),
            (410, Verdict::Gone),
            (413, Verdict::Refused),
            (415, Verdict::Refused),
            (429, Verdict::Failed { not_before: later }),
            (500, failed),
            (503, Verdict::Failed { not_before: later }),
            (504, failed),
        ];
        for (status, verdict) in expected {
            assert_eq!(judge(&answered(status), &knobs()), verdict, "{status}");
        }
        assert_eq!(judge(&Exchange::Failed(ErrorClass::Timeout), &knobs()), failed);
    }

    #[test]
    fn a_success_outside_the_set_is_a_failure_unless_lenient() {
        let narrow = Knobs { success: StatusSet::parse(["204"]).unwrap(), ..knobs() };
        assert_eq!(judge(&answered(200), &narrow), Verdict::Failed { not_before: None });
        assert_eq!(judge(&answered(200), &Knobs { lenient_success: true, ..narrow }), Verdict::Delivered);
        let odd = Knobs { success: StatusSet::parse(["410", "200-299"]).unwrap(), ..knobs() };
        assert_eq!(judge(&answered(410), &odd), Verdict::Delivered);
    }

    #[test]
    fn retries_follow_the_schedule_within_a_tenth_and_end_with_it() {
        let schedule = knobs().retry_schedule;
        for (place, wait) in schedule.iter().enumerate() {
            let attempt = u32::try_from(place).unwrap() + 1;
            let at = |chance| match after_failure(attempt, None, &schedule, now(), chance) {
                Next::RetryAt(time) => time.since(now()),
                Next::Exhausted => panic!("attempt {attempt}"),
            };
            assert_eq!(at(0), wait.mul_f64(0.9));
            assert_eq!(at(u32::MAX), wait.mul_f64(1.1));
        }
        assert_eq!(after_failure(10, None, &schedule, now(), 0), Next::Exhausted);
        assert_eq!(after_failure(1, None, &[], now(), 0), Next::Exhausted);
    }

    #[test]
    fn a_receiver_may_ask_for_more_time_but_not_for_less_and_not_for_more_than_a_day() {
        let schedule = [Duration::from_secs(100)];
        let after = |seconds| after_failure(1, Some(now().after(Duration::from_secs(seconds))), &schedule, now(), u32::MAX / 2);
        let wait = |next| match next {
            Next::RetryAt(time) => time.since(now()).as_secs(),
            Next::Exhausted => 0,
        };
        assert!((99..=100).contains(&wait(after(10))));
        assert_eq!(wait(after(500)), 500);
        assert_eq!(wait(after(1_000_000)), 86_400);
    }
}
