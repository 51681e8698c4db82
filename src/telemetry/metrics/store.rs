//! What the store counts. The store is told its metrics when it is opened and keeps the gauges at their values itself.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::domain::event::EventId;

/// The metrics of one store. Counters and gauges are one atomic operation each; the histograms take a lock, and are
/// touched once a commit or once a sealing, never once an event or once a chunk.
#[derive(Debug)]
pub struct StoreMetrics {
    /// Events that are on disk.
    events_appended: Counter,
    /// Chunks that readers took from a file, not from memory.
    chunks_read: Counter,
    commit_seconds: Histogram,
    commit_events: Histogram,
    seal_seconds: Histogram,
    queue_events: Gauge,
    queue_bytes: Gauge,
    segments_waiting: Gauge,
    segments_sealed: Gauge,
    tail: Gauge,
}

fn whole(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Default for StoreMetrics {
    fn default() -> Self {
        Self {
            events_appended: Counter::default(),
            chunks_read: Counter::default(),
            // From 125 µs to 4 s; 256 µs to 262 s; 1 to 8,192 events.
            commit_seconds: Histogram::new(exponential_buckets(0.000_125, 2.0, 16)),
            seal_seconds: Histogram::new(exponential_buckets(0.001, 4.0, 10)),
            commit_events: Histogram::new(exponential_buckets(1.0, 2.0, 14)),
            queue_events: Gauge::default(),
            queue_bytes: Gauge::default(),
            segments_waiting: Gauge::default(),
            segments_sealed: Gauge::default(),
            tail: Gauge::default(),
        }
    }
}

impl StoreMetrics {
    /// Counts a commit of `events` new events that took `span`.
    pub(crate) fn count_commit(&self, events: usize, span: Duration) {
        self.events_appended.inc_by(u64::try_from(events).unwrap_or(u64::MAX));
        self.commit_events.observe(f64::from(u32::try_from(events).unwrap_or(u32::MAX)));
        self.commit_seconds.observe(span.as_secs_f64());
    }

    /// Counts a chunk that a reader took from a file.
    pub(crate) fn count_chunk_read(&self) {
        self.chunks_read.inc();
    }

    /// How many chunks readers have taken from files.
    #[cfg(test)]
    pub(crate) fn chunks_read(&self) -> u64 {
        self.chunks_read.get()
    }

    /// Counts a sealing that took `span`.
    pub(crate) fn count_seal(&self, span: Duration) {
        self.seal_seconds.observe(span.as_secs_f64());
    }

    /// Says what waits for its commit.
    pub(crate) fn show_queue(&self, events: usize, bytes: usize) {
        self.queue_events.set(whole(events));
        self.queue_bytes.set(whole(bytes));
    }

    /// Says how many segments wait to be sealed, and how many are sealed.
    pub(crate) fn show_segments(&self, waiting: usize, sealed: usize) {
        self.segments_waiting.set(whole(waiting));
        self.segments_sealed.set(whole(sealed));
    }

    /// Says which event is the newest.
    pub(crate) fn show_tail(&self, id: EventId) {
        self.tail.set(i64::try_from(id.0).unwrap_or(i64::MAX));
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("events_appended", "Events that are on disk", self.events_appended.clone());
        registry.register("chunks_read", "Chunks that readers took from a file, not from memory", self.chunks_read.clone());
        registry.register("commit_seconds", "Time that a commit took", self.commit_seconds.clone());
        registry.register("commit_events", "New events of a commit", self.commit_events.clone());
        registry.register("seal_seconds", "Time that sealing a segment took", self.seal_seconds.clone());
        registry.register("queue_events", "Events that wait for their commit", self.queue_events.clone());
        registry.register("queue_bytes", "Bytes that wait for their commit", self.queue_bytes.clone());
        registry.register("segments_waiting", "Segments that wait to be sealed", self.segments_waiting.clone());
        registry.register("segments_sealed", "Sealed segments", self.segments_sealed.clone());
        registry.register("tail_id", "The newest event", self.tail.clone());
    }
}
