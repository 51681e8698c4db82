//! Time that stands still until the test moves it.

use std::sync::Mutex;
use std::time::Duration;

use lutine::domain::clock::Clock;
use lutine::domain::time::Timestamp;

/// Where every test begins.
pub const START: &str = "2026-11-22T10:30:00.123456Z";

#[derive(Debug)]
pub struct TestClock {
    /// Wall time and monotonic time.
    now: Mutex<(Timestamp, Duration)>,
}

impl Default for TestClock {
    fn default() -> Self {
        Self { now: Mutex::new((START.parse().unwrap(), Duration::from_secs(1000))) }
    }
}

impl TestClock {
    pub fn advance(&self, span: Duration) {
        let mut now = self.now.lock().unwrap();
        *now = (now.0.after(span), now.1 + span);
    }

    /// Moves the wall clock alone, as somebody does who sets it wrong.
    pub fn set_wall(&self, time: &str) {
        self.now.lock().unwrap().0 = time.parse().unwrap();
    }

    /// The wall clock as RFC 3339.
    pub fn text(&self) -> String {
        self.now().to_string()
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        self.now.lock().unwrap().0
    }

    fn monotonic(&self) -> Duration {
        self.now.lock().unwrap().1
    }
}
