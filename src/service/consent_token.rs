//! The secret part of the address at which a receiver may consent later. It needs no table: it names the subscription
//! and is bound to its URL by a MAC.
//!
//! Layout, before base64url: version, subscription (4, big-endian), MAC (16).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::domain::subscription::{Subscription, SubscriptionId};

const VERSION: u8 = 1;
const MAC_BYTES: usize = 16;
const HEAD_BYTES: usize = 5;

/// Makes and checks such tokens.
#[derive(Debug, Clone)]
pub(super) struct ConsentTokens(Hmac<Sha256>);

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
    Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length")
}

impl ConsentTokens {
    /// Tokens of one store, under a key that is derived from this one.
    pub fn new(store_key: &[u8; 32]) -> Self {
        Self(keyed(&keyed(store_key).chain_update(b"consent token\0").finalize().into_bytes()))
    }

    fn bytes(&self, subscription: &Subscription) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + MAC_BYTES);
        bytes.push(VERSION);
        bytes.extend_from_slice(&subscription.id.0.to_be_bytes());
        let company = subscription.company.0.to_be_bytes();
        let mac = self.0.clone().chain_update(&bytes).chain_update(company).chain_update(&subscription.wishes.url).finalize().into_bytes();
        bytes.extend(mac.into_iter().take(MAC_BYTES));
        bytes
    }

    /// The token of a subscription as it is now.
    pub fn of(&self, subscription: &Subscription) -> String {
        URL_SAFE_NO_PAD.encode(self.bytes(subscription))
    }

    /// The subscription that a text names, if it has the form of a token; it is to be checked.
    pub fn names(text: &str) -> Option<SubscriptionId> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok().filter(|bytes| bytes.len() == HEAD_BYTES + MAC_BYTES)?;
        let (version, rest) = bytes.split_first()?;
        rest.first_chunk().filter(|_| *version == VERSION).map(|id| SubscriptionId(u32::from_be_bytes(*id)))
    }

    /// Whether a text is the token of this subscription as it is now.
    pub fn is_of(&self, text: &str, subscription: &Subscription) -> bool {
        let bytes = URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
        bytes.ct_eq(&self.bytes(subscription)).into()
    }
}
