//! Planted bugs: what the tests of durability must catch.

/// Switches that break a promise on purpose. All off unless a test harness sets them;
/// no configuration key or option reaches them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// Publishers are answered before the commit.
    pub acknowledge_before_commit: bool,
    /// The dedupe rows are written in a transaction of their own, after the events'.
    pub dedupe_in_another_transaction: bool,
    /// Ids come from a counter that is saved when a segment is closed, instead of from the log.
    pub ids_from_counter: bool,
    /// A sealed file takes the place of the original although it was never synced.
    pub switch_before_sync: bool,
}
