//! Counters of the daemon in the Prometheus text format.
//!
//! Handles are resolved once; counting is one addition. Nobody outside this module names the metrics library.

mod delivery;
mod store;
mod streams;
mod tokens;

use std::sync::{Arc, OnceLock};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

pub use self::delivery::DeliveryMetrics;
pub use self::store::StoreMetrics;
pub use self::streams::{StreamEnd, StreamMetrics};
pub use self::tokens::{TokenMetrics, TokenOutcome};

/// The content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// The statuses that are counted by number; others count as 0.
const STATUSES: [u16; 24] =
    [200, 201, 202, 204, 302, 304, 400, 401, 403, 404, 405, 408, 409, 410, 413, 415, 429, 500, 501, 502, 503, 504, 507, 0];

/// The requests of one route, counted by status.
#[derive(Debug)]
pub struct RouteCounters {
    route: &'static str,
    requests: Family<RouteLabels, Counter>,
    /// In the order of [`STATUSES`]; a series exists from its first request on.
    by_status: [OnceLock<Counter>; STATUSES.len()],
}

impl RouteCounters {
    /// Counts a request that was answered with `status`.
    pub fn count(&self, status: u16) {
        let place = STATUSES.iter().position(|known| *known == status).unwrap_or(STATUSES.len() - 1);
        if let Some(cell) = self.by_status.get(place) {
            let labels = RouteLabels { route: self.route, status: STATUSES.get(place).copied().unwrap_or(0) };
            cell.get_or_init(|| self.requests.get_or_create_owned(&labels)).inc();
        }
    }
}

/// How publications end.
#[derive(Debug, Clone)]
pub struct PublishCounters {
    /// A new event is in the log.
    pub stored: Counter,
    /// The dedupe key was there with the same content.
    pub duplicate: Counter,
    /// The dedupe key was there with other content.
    pub conflict: Counter,
    /// The request was wrong.
    pub refused: Counter,
    /// The commit queue was full.
    pub overloaded: Counter,
    /// The store failed.
    pub failed: Counter,
}

/// Why callers were not let in.
#[derive(Debug, Clone)]
pub struct RefusedCounters {
    /// No key.
    pub missing: Counter,
    /// Not a key, or not one that is known here.
    pub invalid: Counter,
    /// Revoked or expired.
    pub over: Counter,
    /// From an address that the key does not allow.
    pub network: Counter,
    /// Without the scope.
    pub scope: Counter,
    /// Too many calls.
    pub rate: Counter,
}

/// A request under way; it counts as such until this is dropped.
#[derive(Debug)]
pub struct InFlight<'a>(&'a Gauge);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RouteLabels, Counter>,
    in_flight: Gauge,
    connections: Gauge,
    /// How publications end.
    pub published: PublishCounters,
    /// Events that were published with a payload that violates its schema.
    pub schema_violations: Counter,
    /// Why callers were not let in.
    pub refused: RefusedCounters,
    /// What the store counts; it is handed to the store when that is opened.
    pub store: Arc<StoreMetrics>,
    /// What the delivery engine counts.
    pub delivery: Arc<DeliveryMetrics>,
    /// What is counted of calls to token services.
    pub tokens: Arc<TokenMetrics>,
    /// What is counted of streams.
    pub streams: Arc<StreamMetrics>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics at nothing; every name starts with `lutine_`.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("lutine");
        let requests = Family::<RouteLabels, Counter>::default();
        registry.register("http_requests", "Requests by route and status", requests.clone());
        let in_flight = Gauge::default();
        registry.register("http_requests_in_flight", "Requests under way", in_flight.clone());
        let connections = Gauge::default();
        registry.register("http_connections", "Open connections", connections.clone());
        let outcomes = Family::<OutcomeLabels, Counter>::default();
        registry.register("events_published", "Publications by outcome", outcomes.clone());
        let outcome = |outcome| outcomes.get_or_create_owned(&OutcomeLabels { outcome });
        let published = PublishCounters {
            stored: outcome("stored"),
            duplicate: outcome("duplicate"),
            conflict: outcome("conflict"),
            refused: outcome("refused"),
            overloaded: outcome("overloaded"),
            failed: outcome("failed"),
        };
        let schema_violations = Counter::default();
        let help = "Events published although their payload violates the schema of their type";
        registry.register("events_schema_violations", help, schema_violations.clone());
        let reasons = Family::<ReasonLabels, Counter>::default();
        registry.register("http_refused", "Callers that were not let in, by reason", reasons.clone());
        let reason = |reason| reasons.get_or_create_owned(&ReasonLabels { reason });
        let refused = RefusedCounters {
            missing: reason("missing"),
            invalid: reason("invalid"),
            over: reason("over"),
            network: reason("network"),
            scope: reason("scope"),
            rate: reason("rate"),
        };
        let store = Arc::new(StoreMetrics::default());
        store.register(&mut registry);
        let delivery = Arc::new(DeliveryMetrics::new(&mut registry));
        let tokens = Arc::new(TokenMetrics::new(&mut registry));
        let streams = Arc::new(StreamMetrics::new(&mut registry));
        Self { registry, requests, in_flight, connections, published, schema_violations, refused, store, delivery, tokens, streams }
    }

    /// The counters of one route, such as `GET /api/v1/events`.
    #[must_use]
    pub fn route(&self, route: &'static str) -> Arc<RouteCounters> {
        let by_status = std::array::from_fn(|_| OnceLock::new());
        Arc::new(RouteCounters { route, requests: self.requests.clone(), by_status })
    }

    /// Counts a request as under way.
    #[must_use]
    pub fn request(&self) -> InFlight<'_> {
        self.in_flight.inc();
        InFlight(&self.in_flight)
    }

    /// Counts a connection as open.
    #[must_use]
    pub fn connection(&self) -> InFlight<'_> {
        self.connections.inc();
        InFlight(&self.connections)
    }

    /// Everything as text for `/metrics`.
    ///
    /// # Errors
    /// When a metric cannot be written as text.
    pub fn render(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_route_and_status_under_our_name() {
        let metrics = Metrics::new();
        let route = metrics.route("GET /api/v1/events");
        route.count(200);
        route.count(200);
        route.count(418);
        let text = metrics.render().unwrap();
        assert!(text.contains("lutine_http_requests_total{route=\"GET /api/v1/events\",status=\"200\"} 2"), "{text}");
        assert!(text.contains("lutine_http_requests_total{route=\"GET /api/v1/events\",status=\"0\"} 1"), "{text}");
        assert!(text.lines().filter(|line| !line.starts_with('#')).all(|line| line.starts_with("lutine_")));
    }

    #[test]
    fn a_request_is_under_way_until_it_is_dropped() {
        let metrics = Metrics::new();
        let request = metrics.request();
        assert!(metrics.render().unwrap().contains("lutine_http_requests_in_flight 1"));
        drop(request);
        assert!(metrics.render().unwrap().contains("lutine_http_requests_in_flight 0"));
    }

    #[test]
    fn the_store_is_told_apart_by_its_names() {
        let metrics = Metrics::new();
        metrics.store.count_commit(3, std::time::Duration::from_millis(2));
        metrics.store.count_chunk_read();
        metrics.store.count_seal(std::time::Duration::from_millis(1500));
        metrics.store.show_tail(crate::domain::event::EventId(1042));
        let text = metrics.render().unwrap();
        for line in [
            "lutine_events_appended_total 3",
            "lutine_chunks_read_total 1",
            "lutine_commit_events_sum 3.0",
            "lutine_commit_seconds_count 1",
            "lutine_seal_seconds_sum 1.5",
            "lutine_seal_seconds_count 1",
            "lutine_tail_id 1042",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line} is not in\n{text}");
        }
    }
}
