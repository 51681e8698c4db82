//! Access tokens for receivers: one for each subscription, fetched once however many deliveries wait for it.
//!
//! A token belongs to the URL of its receiver and to the credentials it was fetched with: a changed subscription has
//! none. It is sent to no other host, because redirects are followed nowhere. Neither it nor what it is fetched with is
//! ever part of an error.

mod assertion;
mod client;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::header::HeaderValue;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::warn;

use self::client::{AnswerError, Granted, TokenClient, take};
use super::answer;
use super::connect::Connector;
use super::trust::Trust;
use super::{Failure, Progress};
use crate::domain::egress::EgressPolicy;
use crate::domain::retry::ErrorClass;
use crate::domain::subscription::{ClientCredentials, SubscriptionId};
use crate::domain::time::Timestamp;
use crate::domain::token::{Pause, usable_for};
use crate::telemetry::metrics::{TokenMetrics, TokenOutcome};

pub use self::assertion::KeyError;
pub use self::client::ClientError;

/// How long one call to a token service may take, from resolving its name to the end of its answer.
const CALL: Duration = Duration::from_secs(10);
/// Subscriptions whose tokens are remembered while they have nothing to deliver, beside those that have.
const RESTING_MAX: usize = 16_384;

/// An access token, ready to be sent.
#[derive(Clone)]
pub(super) struct Token {
    /// The value of `Authorization`.
    pub authorization: HeaderValue,
    /// Counts the tokens of one source.
    number: u64,
    until: Timestamp,
}

/// What a token is fetched with, and for what.
pub(super) struct Grant {
    client: TokenClient,
    trust: Option<Arc<Trust>>,
    fingerprint: [u8; 32],
}

impl Grant {
    /// The token of whom; `url` is the receiver's.
    pub fn new(url: &str, credentials: &ClientCredentials, trust: Option<Arc<Trust>>) -> Result<Self, ClientError> {
        let client = TokenClient::new(credentials)?;
        let certificates = trust.as_ref().map(|trust| trust.digest()).unwrap_or_default();
        Ok(Self { client, fingerprint: client::fingerprint(url, credentials, certificates), trust })
    }
}

/// What is needed to call a token service.
#[derive(Clone)]
pub(super) struct Caller {
    pub connector: Connector,
    pub policy: Arc<EgressPolicy>,
    pub metrics: Option<Arc<TokenMetrics>>,
}

type Fetched = Result<Token, Failure>;
type Fetching = watch::Receiver<Option<Fetched>>;

#[derive(Default)]
struct State {
    token: Option<Token>,
    fetching: Option<Fetching>,
    /// Tokens fetched so far.
    count: u64,
    /// The token service fails.
    service: Pause,
    failure: Option<Failure>,
    /// The receiver refuses tokens that are new.
    receiver: Pause,
}

/// The token of one subscription.
pub(super) struct Source {
    grant: Arc<Grant>,
    subscription: SubscriptionId,
    state: Mutex<State>,
}

/// What an attempt that wants a token does next.
enum Step {
    Take(Fetched),
    Wait(Fetching),
    Fetch(watch::Sender<Option<Fetched>>, Fetching),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failure(error: impl Into<String>) -> Failure {
    Failure::new(ErrorClass::Token, error)
}

impl State {
    fn step(&mut self, now: Timestamp) -> Step {
        if let Some(token) = self.token.as_ref().filter(|token| now < token.until) {
            return Step::Take(Ok(token.clone()));
        }
        // One whose sender is gone was broken off with the runtime that it ran in.
        if let Some(fetching) = self.fetching.as_ref().filter(|fetching| fetching.has_changed().is_ok()) {
            return Step::Wait(fetching.clone());
        }
        if let Some(left) = self.service.left(now) {
            let last = self.failure.as_ref().map_or("", |failure| &failure.error);
            let seconds = left.as_secs() + 1;
            return Step::Take(Err(failure(format!("{last}; the token service is left alone for another {seconds} s"))));
        }
        let (sender, fetching) = watch::channel(None);
        self.token = None;
        self.fetching = Some(fetching.clone());
        Step::Fetch(sender, fetching)
    }
}

impl Source {
    /// The token, fetched if there is none that can be used. Ends in time only if the caller sees to it; the call that it
    /// started goes on for the others.
    pub async fn token(self: &Arc<Self>, caller: &Caller, now: Timestamp) -> Fetched {
        let step = lock(&self.state).step(now);
        let mut fetching = match step {
            Step::Take(taken) => return taken,
            Step::Wait(fetching) => fetching,
            Step::Fetch(sender, fetching) => {
                let (source, caller) = (Arc::clone(self), caller.clone());
                // Whoever waits may give up; the others still want it.
                tokio::spawn(async move {
                    let fetched = source.fetch(&caller, now).await;
                    sender.send_replace(Some(fetched));
                });
                fetching
            }
        };
        let fetched = fetching.wait_for(Option::is_some).await.ok().and_then(|fetched| fetched.clone());
        fetched.unwrap_or_else(|| Err(failure("the call to the token service was broken off")))
    }

    /// Another token than `refused`, which the receiver has answered with 401. None when the receiver refuses new ones as
    /// well and it is too early to try another.
    pub async fn another(self: &Arc<Self>, refused: &Token, caller: &Caller, now: Timestamp) -> Result<Option<Token>, Failure> {
        {
            let mut state = lock(&self.state);
            let is_newest = state.token.as_ref().is_some_and(|token| token.number == refused.number);
            if is_newest && state.receiver.left(now).is_some() {
                return Ok(None);
            }
            if is_newest {
                state.token = None;
            }
        }
        self.token(caller, now).await.map(Some)
    }

    /// The receiver refused a token that was fetched because it had refused the one before.
    pub fn refused_again(&self, now: Timestamp) {
        lock(&self.state).receiver.failed(now, chance());
    }

    /// The receiver took a token.
    pub fn taken(&self) {
        lock(&self.state).receiver.ended();
    }

    async fn fetch(&self, caller: &Caller, now: Timestamp) -> Fetched {
        let start = Instant::now();
        let end = timeout(CALL, self.grant.call(caller, now)).await;
        let late = || CallError::Connection(failure(format!("the token service had not answered after {} s", CALL.as_secs())));
        let end = end.unwrap_or_else(|_| Err(late()));
        if let Some(metrics) = &caller.metrics {
            metrics.count(end.as_ref().map_or_else(CallError::outcome, |_| TokenOutcome::Issued));
        }
        let mut state = lock(&self.state);
        state.fetching = None;
        match end {
            Ok(granted) => {
                state.count += 1;
                state.service.ended();
                state.failure = None;
                let until = now.after(usable_for(granted.expires_in));
                let token = Token { authorization: granted.authorization, number: state.count, until };
                state.token = Some(token.clone());
                Ok(token)
            }
            Err(error) => {
                let failure = failure(error.to_string());
                warn!(
                    subscription.id = %self.subscription,
                    "There is no access token for subscription {}: {}",
                    self.subscription,
                    failure.error
                );
                state.service.failed(now.after(start.elapsed()), chance());
                state.failure = Some(failure.clone());
                Err(failure)
            }
        }
    }
}

/// Why a call brought no token.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("{}", .0.error)]
    Connection(Failure),
    #[error(transparent)]
    Answer(#[from] AnswerError),
    #[error(transparent)]
    Assertion(#[from] KeyError),
}

impl CallError {
    fn outcome(&self) -> TokenOutcome {
        match self {
            Self::Connection(failure) if failure.class == ErrorClass::Egress => TokenOutcome::Denied,
            Self::Connection(_) | Self::Assertion(_) => TokenOutcome::Unavailable,
            Self::Answer(error) if error.is_unavailability() => TokenOutcome::Unavailable,
            Self::Answer(AnswerError::Refused { .. }) => TokenOutcome::Refused,
            Self::Answer(AnswerError::Malformed { .. }) => TokenOutcome::Malformed,
        }
    }
}

impl Grant {
    /// One call, on a connection of its own: tokens are seldom fetched.
    async fn call(&self, caller: &Caller, now: Timestamp) -> Result<Granted, CallError> {
        let connection = |failure: Failure| CallError::Connection(failure.about("the token service"));
        let endpoint = &self.client.endpoint;
        if endpoint.server_name.is_none() && !caller.policy.allow_http {
            let error = "the token service's URL begins with http:// and egress.allow_http is false";
            return Err(CallError::Connection(Failure::new(ErrorClass::Egress, error)));
        }
        let request = self.client.request(now)?;
        let tls = caller.connector.tls_for_tokens(self.trust.as_deref()).map_err(connection)?;
        let policy = Arc::clone(&caller.policy);
        let opened = caller.connector.connect(endpoint, &tls, policy, &mut Progress::default()).await;
        let mut opened = opened.map_err(connection)?;
        let sent = opened.send(request).await.map_err(|(error, _)| answer::failure(&error));
        let (head, body) = sent.map_err(connection)?.into_parts();
        let body = answer::read_whole(body, &mut opened).await.map_err(connection)?;
        if let Some(redirect) = answer::redirect_of(&head) {
            let error = format!("the token service answered {} and {redirect}; redirects are not followed", head.status.as_u16());
            return Err(CallError::Connection(Failure::new(ErrorClass::Protocol, error)));
        }
        Ok(take(head.status, &body)?)
    }
}

/// Chance for jitter; without randomness the jitter is the same every time, which harms nobody.
fn chance() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX / 2)
}

/// The tokens of all subscriptions. They outlive their targets, which go when a subscription has nothing to deliver.
#[derive(Clone, Default)]
pub(super) struct Tokens(Arc<Mutex<Sources>>);

struct Sources {
    by_subscription: HashMap<SubscriptionId, Arc<Source>>,
    /// With so many of them, those at rest are let go.
    sweep_at: usize,
}

impl Default for Sources {
    fn default() -> Self {
        Self { by_subscription: HashMap::new(), sweep_at: RESTING_MAX }
    }
}

impl Tokens {
    /// Where the token of a subscription comes from. One that was changed has another source than before.
    pub fn source(&self, subscription: SubscriptionId, grant: &Arc<Grant>) -> Arc<Source> {
        let mut sources = lock(&self.0);
        if let Some(known) = sources.by_subscription.get(&subscription).filter(|known| known.grant.fingerprint == grant.fingerprint) {
            return Arc::clone(known);
        }
        let source = Arc::new(Source { grant: Arc::clone(grant), subscription, state: Mutex::default() });
        if sources.by_subscription.len() >= sources.sweep_at {
            // Those that a target holds are found again by it; the others cost one call when they are wanted again.
            sources.by_subscription.retain(|_, source| Arc::strong_count(source) > 1);
            // Not before as many again have come: with many in use every sweep would find nothing.
            sources.sweep_at = RESTING_MAX.max(2 * sources.by_subscription.len());
        }
        sources.by_subscription.insert(subscription, Arc::clone(&source));
        source
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::subscription::{Credential, TokenMethod};

    fn grant() -> Arc<Grant> {
        let credentials = ClientCredentials {
            token_url: "https://id.example/token".to_owned(),
            client_id: "a".to_owned(),
            method: TokenMethod::Post,
            credential: Credential("b".to_owned()),
            scope: None,
            audience: None,
        };
        Arc::new(Grant::new("https://partner.example/", &credentials, None).unwrap())
    }

    #[test]
    fn tokens_that_rest_are_bounded_and_those_in_use_are_kept() {
        let (tokens, grant) = (Tokens::default(), grant());
        let used: Vec<_> = (0..10).map(|number| tokens.source(SubscriptionId(number), &grant)).collect();
        for number in 10..100_000 {
            tokens.source(SubscriptionId(number), &grant);
        }
        assert!(lock(&tokens.0).by_subscription.len() <= RESTING_MAX);
        for (number, source) in used.iter().enumerate() {
            assert!(Arc::ptr_eq(source, &tokens.source(SubscriptionId(number as u32), &grant)));
        }
    }

    #[test]
    fn a_call_that_was_broken_off_does_not_keep_others_waiting() {
        let mut state = State::default();
        let now = Timestamp::from_micros(1);
        let Step::Fetch(sender, _) = state.step(now) else { panic!("nothing was fetched") };
        assert!(matches!(state.step(now), Step::Wait(_)));
        drop(sender);
        assert!(matches!(state.step(now), Step::Fetch(..)));
    }
}
