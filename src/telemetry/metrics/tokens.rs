//! What is counted of calls to receivers' token services.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::OutcomeLabels;

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenOutcome {
    /// With a token.
    Issued,
    /// The service refused the client.
    Refused,
    /// The answer held no token that can be sent.
    Malformed,
    /// There was no answer, or one that the service cannot serve now.
    Unavailable,
    /// The egress policy did not let it out.
    Denied,
}

impl TokenOutcome {
    const ALL: [Self; 5] = [Self::Issued, Self::Refused, Self::Malformed, Self::Unavailable, Self::Denied];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Refused => "refused",
            Self::Malformed => "malformed",
            Self::Unavailable => "unavailable",
            Self::Denied => "denied",
        }
    }
}

/// The counters, one for each outcome.
#[derive(Debug)]
pub struct TokenMetrics([Counter; TokenOutcome::ALL.len()]);

impl TokenMetrics {
    /// Counters at nothing, in `registry`.
    pub(super) fn new(registry: &mut Registry) -> Self {
        let requests = Family::<OutcomeLabels, Counter>::default();
        registry.register("token_requests", "Calls to token services of receivers, by outcome", requests.clone());
        Self(TokenOutcome::ALL.map(|outcome| requests.get_or_create_owned(&OutcomeLabels { outcome: outcome.as_str() })))
    }

    /// Counts a call.
    pub fn count(&self, outcome: TokenOutcome) {
        if let Some(counter) = TokenOutcome::ALL.iter().position(|known| *known == outcome).and_then(|place| self.0.get(place)) {
            counter.inc();
        }
    }
}
