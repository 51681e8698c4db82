//! Planted bugs: what the tests of durability must catch.

/// Switches that break a promise on purpose. All off unless a test harness sets them;
/// no configuration key or option reaches them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// Publishers are answered before the commit.
    pub acknowledge_before_commit: bool,
    /// The dedupe rows are written in a transaction of their own, after the events'.
    pub dedupe_in_another_transaction: bool,
    /// The snapshots are written in a transaction of their own, after their events.
    pub snapshots_in_another_transaction: bool,
    /// Ids come from a counter that is saved when a segment is closed, instead of from the log.
    pub ids_from_counter: bool,
    /// A sealed file takes the place of the original although it was never synced.
    pub switch_before_sync: bool,
    /// Positions are committed before the attempts and the retries of what they pass.
    pub position_before_outcome: bool,
    /// Retries are kept in memory only.
    pub retry_lost_at_restart: bool,
    /// In a strictly ordered subscription the events behind one that waits for its retry are sent all the same.
    pub strict_passes_stuck: bool,
    /// A new subscription starts at the tail of its commit instead of the last event that was routed without it.
    pub subscription_from_commit: bool,
}
