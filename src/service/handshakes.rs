//! Consent of receivers (CloudEvents HTTP web hooks 1.0.2, section 4): asked for at creation and on demand, granted at
//! once by headers or later by a call of the receiver's.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::consent_token::ConsentTokens;
use super::subscriptions::{SubscriptionService, WishError};
use crate::domain::company::CompanyId;
use crate::domain::profile::Handshake;
use crate::domain::subscription::{Consent, RATE_PER_MINUTE_MAX, Subscription, SubscriptionId};
use crate::store::{Actor, SubscriptionChange, SubscriptionError};
use crate::webhook::{ConsentRequest, Target};

/// Where receivers consent later; the token follows.
const CALLBACK: &str = "/api/v1/webhooks/consent/";

/// How asking a receiver has ended.
#[derive(Debug)]
pub struct Verified {
    /// The subscription as it is now.
    pub subscription: Arc<Subscription>,
    /// Why the receiver has not consented, in words for the owner; none when it has, or need not.
    pub reason: Option<String>,
}

impl SubscriptionService {
    /// Asks the receiver of a subscription for its consent; until it gives it nothing is sent. None when there is no such
    /// subscription. One without a handshake is left as it is.
    ///
    /// # Errors
    /// See [`WishError`].
    pub async fn verify(&self, company: CompanyId, id: SubscriptionId, actor: &Actor) -> Result<Option<Verified>, WishError> {
        let Some(subscription) = self.get(company, id) else { return Ok(None) };
        if subscription.knobs().handshake == Handshake::None {
            return Ok(Some(Verified { subscription, reason: None }));
        }
        match self.apply(company, id, SubscriptionChange::AskAgain, actor).await? {
            None => Ok(None),
            Some(subscription) => self.ask(subscription, actor).await.map(Some),
        }
    }

    /// Asks, and writes down what the receiver consents to.
    pub(super) async fn ask(&self, subscription: Arc<Subscription>, actor: &Actor) -> Result<Verified, WishError> {
        let Some(sender) = self.sender() else {
            let reason = Some("only a running daemon asks receivers".to_owned());
            return Ok(Verified { subscription, reason });
        };
        let origin = self.origin(subscription.company);
        let rate = NonZeroU32::new(subscription.wishes.rate_per_minute).or(NonZeroU32::new(RATE_PER_MINUTE_MAX)).unwrap_or(NonZeroU32::MIN);
        let callback = format!("{}{CALLBACK}{}", origin.public_url, self.consent_tokens().of(&subscription));
        let target = Target::new(&subscription, origin)?;
        match sender.ask_consent(&target, &ConsentRequest { rate_per_minute: rate, callback }).await {
            Err(reason) => {
                // It may have consented by the callback meanwhile.
                let subscription = self.get(subscription.company, subscription.id).unwrap_or(subscription);
                let is_granted = subscription.consent.is_some();
                Ok(Verified { subscription, reason: (!is_granted).then_some(reason) })
            }
            Ok(consent) => {
                let subscription = self.grant(&subscription, consent, actor).await?.unwrap_or(subscription);
                Ok(Verified { subscription, reason: None })
            }
        }
    }

    async fn grant(&self, asked: &Subscription, consent: Consent, actor: &Actor) -> Result<Option<Arc<Subscription>>, WishError> {
        let change = SubscriptionChange::Consent { url: asked.wishes.url.clone(), consent };
        self.apply(asked.company, asked.id, change, actor).await
    }

    /// Takes the consent that a receiver gives by the address it was told; without a rate it is the one it was asked for.
    /// False when the token is none, or was made for another URL.
    ///
    /// # Errors
    /// When the ledger does not take it.
    pub async fn consent(&self, token: &str, rate: Option<Consent>, request_id: &str) -> Result<bool, SubscriptionError> {
        let found = ConsentTokens::names(token).and_then(|id| self.any(id));
        let Some(subscription) = found.filter(|subscription| self.consent_tokens().is_of(token, subscription)) else { return Ok(false) };
        if subscription.knobs().handshake == Handshake::None {
            return Ok(false);
        }
        let consent = rate.unwrap_or(Consent { rate_per_minute: subscription.wishes.rate_per_minute });
        if subscription.consent == Some(consent) {
            return Ok(true);
        }
        let actor = Actor { name: format!("receiver:{}", subscription.id), request_id: Some(request_id.to_owned()) };
        match self.grant(&subscription, consent, &actor).await {
            Ok(changed) => Ok(changed.is_some()),
            Err(WishError::Store(error)) => Err(error),
            Err(_) => Ok(false),
        }
    }
}
