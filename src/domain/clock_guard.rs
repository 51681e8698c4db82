//! What the log takes as the time, when the machine's clock may be wrong.

use std::time::Duration;

use super::time::Timestamp;

/// How far the wall clock may run ahead of the monotonic clock before it is not believed.
pub const GAIN_MAX: Duration = Duration::from_secs(3600);

/// How long a disbelieved clock must be plausible again before it is believed.
pub const PROBATION: Duration = Duration::from_secs(24 * 3600);

/// Turns two clocks into one that never goes back and never leaps ahead.
#[derive(Debug, Clone)]
pub struct ClockGuard {
    /// The log's time and the monotonic time at the anchor.
    anchor: (Timestamp, Duration),
    /// The last time given out.
    last: Timestamp,
    /// Set while the wall clock is not believed: since when (monotonic) it has been plausible.
    doubt: Option<Option<Duration>>,
}

impl ClockGuard {
    /// A guard for a log whose last event is at `last`; `retention` is how long events are kept.
    ///
    /// A wall clock that is more than a retention past the last event is not believed: believing it would expire
    /// the whole log at once.
    #[must_use]
    pub fn new(wall: Timestamp, monotonic: Duration, last: Option<Timestamp>, retention: Duration) -> Self {
        match last {
            Some(last) if wall.since(last) > retention => Self { anchor: (last, monotonic), last, doubt: Some(None) },
            Some(last) => Self { anchor: (wall.max(last), monotonic), last, doubt: None },
            None => Self { anchor: (wall, monotonic), last: Timestamp::default(), doubt: None },
        }
    }

    /// The log's time now. It never goes back, and gains at most [`GAIN_MAX`] on the monotonic clock.
    pub fn read(&mut self, wall: Timestamp, monotonic: Duration) -> Timestamp {
        let expected = self.anchor.0.after(monotonic.saturating_sub(self.anchor.1));
        let is_plausible = wall <= expected.after(GAIN_MAX);
        self.doubt = match (self.doubt, is_plausible) {
            (None, true) => None,
            (_, false) => Some(None),
            (Some(since), true) => {
                let since = since.unwrap_or(monotonic);
                if monotonic.saturating_sub(since) >= PROBATION { None } else { Some(Some(since)) }
            }
        };
        let believed = if self.doubt.is_none() { wall } else { expected };
        self.last = self.last.max(believed);
        self.last
    }

    /// Whether the wall clock is not believed at the moment.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        self.doubt.is_some()
    }

    /// Believes the wall clock from now on, as the operator says.
    pub fn accept(&mut self, wall: Timestamp, monotonic: Duration) {
        self.anchor = (wall.max(self.last), monotonic);
        self.doubt = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

    fn start() -> Timestamp {
        "2026-11-22T10:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_clock_that_steps_back_does_not_take_the_log_with_it() {
        let mut guard = ClockGuard::new(start(), Duration::ZERO, None, WEEK);
        let before = guard.read(start().after(HOUR), HOUR);
        assert_eq!(guard.read(start(), HOUR * 2), before);
        assert!(!guard.is_in_doubt());
    }

    #[test]
    fn a_clock_that_leaps_ahead_is_not_believed_until_it_has_been_plausible_for_a_day() {
        let mut guard = ClockGuard::new(start(), Duration::ZERO, None, WEEK);
        assert_eq!(guard.read(start().after(HOUR * 5), HOUR), start().after(HOUR));
        assert!(guard.is_in_doubt());
        assert_eq!(guard.read(start().after(HOUR * 2), HOUR * 2), start().after(HOUR * 2));
        assert!(guard.is_in_doubt());
        guard.read(start().after(HOUR * 27), HOUR * 27);
        assert!(!guard.is_in_doubt());
    }

    #[test]
    fn a_gain_of_an_hour_is_allowed_once_and_not_again_and_again() {
        let mut guard = ClockGuard::new(start(), Duration::ZERO, None, WEEK);
        assert_eq!(guard.read(start().after(HOUR), Duration::ZERO), start().after(HOUR));
        guard.read(start().after(HOUR + Duration::from_secs(1)), Duration::ZERO);
        assert!(guard.is_in_doubt());
    }

    #[test]
    fn a_start_more_than_a_retention_after_the_last_event_goes_on_from_it_until_accepted() {
        let now = start().after(WEEK + HOUR);
        let mut guard = ClockGuard::new(now, Duration::ZERO, Some(start()), WEEK);
        assert_eq!(guard.read(now, HOUR), start().after(HOUR));
        assert!(guard.is_in_doubt());
        guard.accept(now, HOUR);
        assert_eq!(guard.read(now, HOUR), now);
        assert!(!guard.is_in_doubt());
    }
}
