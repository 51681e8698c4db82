//! What is counted of streams.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabels {
    reason: &'static str,
}

/// Why a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamEnd {
    /// Its client went away.
    Client,
    /// Its client did not take what was sent.
    Slow,
    /// Its key was revoked, or has expired.
    Key,
    /// Retention took what it had still to read.
    Expired,
    /// The store could not be read.
    Failed,
    /// The daemon stops.
    Shutdown,
}

impl StreamEnd {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Slow => "slow",
            Self::Key => "key",
            Self::Expired => "expired",
            Self::Failed => "failed",
            Self::Shutdown => "shutdown",
        }
    }
}

/// The counters of streams.
#[derive(Debug)]
pub struct StreamMetrics {
    open: Gauge,
    events: Counter,
    ended: Family<EndLabels, Counter>,
    refused: Counter,
}

impl StreamMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Self { open: Gauge::default(), events: Counter::default(), ended: Family::default(), refused: Counter::default() };
        registry.register("streams_open", "Open streams", metrics.open.clone());
        registry.register("stream_events", "Events sent to streams", metrics.events.clone());
        registry.register("streams_ended", "Streams that ended, by reason", metrics.ended.clone());
        registry.register("streams_refused", "Streams that were refused because too many are open", metrics.refused.clone());
        metrics
    }

    /// Counts a stream as open, until [`StreamMetrics::end`].
    pub fn open(&self) {
        self.open.inc();
    }

    /// Counts a stream as ended.
    pub fn end(&self, reason: StreamEnd) {
        self.open.dec();
        self.ended.get_or_create_owned(&EndLabels { reason: reason.as_str() }).inc();
    }

    /// Counts events that were handed to one stream.
    pub fn send(&self, events: usize) {
        self.events.inc_by(events as u64);
    }

    /// Counts a stream that was not opened.
    pub fn refuse(&self) {
        self.refused.inc();
    }
}
