//! What the tests share: a client that shows an answer as it came, a daemon in this process, and the real binary.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod clock;
pub mod daemon;
pub mod http;
pub mod real;
pub mod receiver;
pub mod sse;

use std::time::{Duration, Instant};

/// The longest that anything a test waits for may take before the test gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not within [`PATIENCE`].
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let asked = Instant::now();
    while !condition() {
        assert!(asked.elapsed() < PATIENCE, "{what} did not happen within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
