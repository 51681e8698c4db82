//! Checking a receiver: it is sent webhooks as they should be and as they should not, and its answers are explained.
//! None of it stands in a log, and no answer changes the subscription.

use std::time::Duration;

use super::subscriptions::{SubscriptionService, WishError};
use crate::domain::profile::Knobs;
use crate::domain::retry::{Exchange, Verdict, judge};
use crate::domain::subscription::{Standing, Subscription};
use crate::domain::time::Timestamp;
use crate::webhook::{Manner, OutgoingEvent, Report, Sender, Target};

/// The age of a webhook that is signed but old; receivers are told to take at most five minutes (Standard Webhooks 1.0.0).
const STALE: Duration = Duration::from_secs(3600);
/// The type of the webhooks.
const KIND: &str = "lutine.subscription.test";

/// One webhook to a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// As it should be.
    Good,
    /// The same once more.
    Duplicate,
    /// Changed after it was signed.
    Tampered,
    /// Signed an hour ago.
    Stale,
    /// With a pause in the middle of the body.
    Slow,
}

impl Case {
    /// The case as it is written on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Duplicate => "duplicate",
            Self::Tampered => "tampered",
            Self::Stale => "stale",
            Self::Slow => "slow",
        }
    }

    /// Why a receiver with these knobs is not sent this.
    fn is_pointless(self, knobs: &Knobs) -> Option<&'static str> {
        match self {
            Self::Tampered if !knobs.signature.is_in_body() && !knobs.signature.is_in_standard_header() => {
                Some("nothing is signed, so that nobody can tell a changed webhook")
            }
            Self::Stale if !knobs.signature.is_in_standard_header() => {
                Some("the signature does not cover the time of sending, so that nobody can tell an old webhook")
            }
            _ => None,
        }
    }

    /// Whether the answer is as it should be, and what it means.
    fn judge(self, report: &Report, knobs: &Knobs) -> (bool, &'static str) {
        let is_delivered = judge(&report.exchange, knobs) == Verdict::Delivered;
        let is_refused = matches!(report.exchange, Exchange::Answered { status: 400..=499, .. }) && !is_delivered;
        match self {
            Self::Good if is_delivered => (true, "takes a webhook that is as it should be"),
            Self::Good => (false, "does not take a webhook that is as it should be"),
            Self::Duplicate if is_delivered => (true, "answers a repeat like the first one"),
            Self::Duplicate => (false, "does not take a repeat: it would be repeated again and again"),
            Self::Slow if is_delivered => (true, "waits for a body that comes in two parts"),
            Self::Slow => (false, "does not wait for a body that comes in two parts"),
            Self::Tampered if is_refused => (true, "refuses a webhook that was changed after it was signed"),
            Self::Tampered if is_delivered => (false, "takes a webhook that was changed: it does not check the signature"),
            Self::Tampered => (false, "fails over a webhook that was changed, instead of refusing it with 400 or 401"),
            Self::Stale if is_refused => (true, "refuses a webhook that was signed an hour ago"),
            Self::Stale if is_delivered => {
                (false, "takes a webhook that was signed an hour ago: an old one can be sent again by strangers")
            }
            Self::Stale => (false, "fails over a webhook that was signed an hour ago, instead of refusing it with 400 or 401"),
        }
    }
}

/// What came of one case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Which one.
    pub case: Case,
    /// Whether the receiver did as it should; none when it was not sent.
    pub passed: Option<bool>,
    /// What that means, in words that follow the receiver's name, or why it was not sent.
    pub meaning: &'static str,
    /// What came of sending; none when it was not sent.
    pub report: Option<Report>,
}

/// Why a receiver was not checked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// It has not consented.
    #[error("the receiver has not consented to be sent anything; ask it with `verify`")]
    Unverified,
    /// Nobody sends.
    #[error("only a running daemon checks receivers")]
    NoSender,
    /// It cannot be sent to.
    #[error(transparent)]
    Wish(#[from] WishError),
}

/// A receiver that is being checked.
struct Trial<'a> {
    sender: &'a Sender,
    target: Target,
    subscription: &'a Subscription,
    knobs: Knobs,
    now: Timestamp,
}

impl Trial<'_> {
    fn event(&self, place: u32) -> OutgoingEvent {
        let Subscription { id, company, .. } = self.subscription;
        // Told apart from those of an earlier check by the second in place of a replay's number.
        let run = u32::try_from(self.now.as_seconds()).unwrap_or(u32::MAX).wrapping_mul(8).wrapping_add(place);
        OutgoingEvent::trial(*company, KIND, &format!(r#"{{"subscriptionId":{id},"test":true}}"#), self.now, run)
    }

    async fn check(&self, case: Case) -> Checked {
        if let Some(meaning) = case.is_pointless(&self.knobs) {
            return Checked { case, passed: None, meaning, report: None };
        }
        let (place, manner, now) = match case {
            Case::Good | Case::Duplicate => (1, Manner::Proper, self.now),
            Case::Tampered => (2, Manner::Tampered, self.now),
            Case::Stale => (3, Manner::Proper, self.now.before(STALE)),
            Case::Slow => (4, Manner::Slow, self.now),
        };
        let report = self.sender.try_out(&self.target, &self.event(place), manner, now).await;
        let (passed, meaning) = case.judge(&report, &self.knobs);
        Checked { case, passed: Some(passed), meaning, report: Some(report) }
    }
}

impl SubscriptionService {
    /// Sends the receiver of a subscription the cases of its profile. The others are sent only when the good one is taken;
    /// all together take at most twice the time-out.
    ///
    /// # Errors
    /// See [`CheckError`].
    pub async fn check_receiver(&self, subscription: &Subscription) -> Result<Vec<Checked>, CheckError> {
        if subscription.standing == Standing::Unverified {
            return Err(CheckError::Unverified);
        }
        let sender = self.sender().ok_or(CheckError::NoSender)?;
        let target = Target::new(subscription, self.origin(subscription.company)).map_err(WishError::from)?;
        let trial = Trial { sender, target, subscription, knobs: subscription.knobs(), now: self.store().now() };
        let good = trial.check(Case::Good).await;
        if good.passed != Some(true) {
            let others = [Case::Duplicate, Case::Tampered, Case::Stale, Case::Slow];
            let unsent = |case| Checked { case, passed: None, meaning: "is not tried while the good one is not taken", report: None };
            return Ok([good].into_iter().chain(others.map(unsent)).collect());
        }
        let others =
            tokio::join!(trial.check(Case::Duplicate), trial.check(Case::Tampered), trial.check(Case::Stale), trial.check(Case::Slow));
        Ok(vec![good, others.0, others.1, others.2, others.3])
    }
}
