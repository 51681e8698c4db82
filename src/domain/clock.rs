//! The two clocks a daemon needs, as a trait so that a test can move them.

use std::fmt::Debug;
use std::time::Duration;

use super::time::Timestamp;

/// Wall time and monotonic time.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The wall clock, UTC; it may jump in both directions.
    fn now(&self) -> Timestamp;

    /// Time since an arbitrary start that never goes back.
    fn monotonic(&self) -> Duration;
}
