//! Access tokens: JWTs as RFC 9068 says, signed with Ed25519 by keys that rotate.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::assertions::{self, Addresses, AssertionError};
use super::credentials::{Credential, Remembered};
use super::issuers::{Issuers, KeySet};
use super::jose::{Audience, JwtError, Unverified, VerifyingKey, base64url, time_of_claim};
use super::rates::{Rates, Windows};
use crate::config::Config;
use crate::domain::client::Client;
use crate::domain::key::{Grant, Principal, TokenHolder};
use crate::domain::scope::{Scope, ScopeSet};
use crate::domain::time::Timestamp;
use crate::store::{Rotation, Store, TokenKey, TokenKeyError};

/// How long a token lives.
pub const TOKEN_LIFE: Duration = Duration::from_secs(3600);
/// How long one lives that was fetched with an access key and a secret key.
pub const ACCESS_KEY_TOKEN_LIFE: Duration = Duration::from_secs(14_400);
/// How far the clock may have been set back since a token was issued.
const SKEW: Duration = Duration::from_secs(60);
/// How long a key signs at least: of those that must be kept because of what they have signed there are a few then.
const PERIOD_MIN: Duration = Duration::from_secs(3600);
/// What the header of an access token calls it (RFC 9068, 2.1).
const TYPE: &str = "at+jwt";

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// It is no token, or not signed by a key that is known here.
    #[error("the access token cannot be verified: it is not well-formed, or not signed by a key that is known here")]
    Signature,
    /// It is another kind of token.
    #[error("this is not an access token: its `typ` must be `at+jwt`")]
    Type,
    /// Of somebody whose tokens are not taken here.
    #[error("the access token is of an issuer that is not known here")]
    Issuer,
    /// For somebody else.
    #[error("the access token is for another audience")]
    Audience,
    /// A claim is missing or wrong.
    #[error("the access token lacks a claim, or has one of the wrong type")]
    Claims,
    /// Its time is over.
    #[error("the access token has expired; fetch another")]
    Expired,
    /// Its time is ahead.
    #[error("the access token is not valid yet")]
    NotYet,
    /// The client is gone.
    #[error("the client of the access token is not known here")]
    UnknownClient,
    /// The client was revoked.
    #[error("the client of the access token was revoked")]
    Revoked,
    /// The client's time is over.
    #[error("the client of the access token has expired")]
    ClientExpired,
    /// It names no company that is there.
    #[error("the access token names no company that is known here")]
    Company,
}

/// Why no token was issued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The operating system gives no random bytes.
    #[error("there is no randomness to make a token from")]
    NoChance,
    /// The token could not be signed.
    #[error("the access token cannot be signed")]
    Signing,
    /// The keys could not be renewed.
    #[error(transparent)]
    Keys(#[from] TokenKeyError),
}

/// A token that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedToken {
    /// The token.
    pub text: String,
    /// How long it lives.
    pub life: Duration,
    /// What it allows.
    pub scopes: ScopeSet,
}

/// A published key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedKey {
    /// Its name: its thumbprint (RFC 7638).
    pub kid: String,
    /// The public key, base64url.
    pub x: String,
}

#[derive(Debug, Serialize)]
struct OwnClaims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    client_id: &'a str,
    scope: String,
    company: u32,
    jti: String,
    iat: u64,
    exp: u64,
}

#[derive(Debug, Deserialize)]
struct Issuer {
    iss: Option<String>,
}

#[derive(Debug, Deserialize)]
struct PresentedClaims {
    sub: String,
    aud: Audience,
    client_id: String,
    scope: String,
    company: u32,
    iat: f64,
    exp: f64,
}

/// One key that signs and verifies.
struct ReadyKey {
    signs_from: Timestamp,
    published: PublishedKey,
    encoding: EncodingKey,
    verifying: VerifyingKey,
}

/// The store's keys, made ready.
struct ReadyKeys {
    /// What they were made of.
    basis: Arc<Vec<Arc<TokenKey>>>,
    keys: Vec<ReadyKey>,
}

/// What a verified token hangs on besides its time: when that changes, the token is verified again.
#[derive(Debug, Clone)]
enum Basis {
    Client(Arc<Client>),
    Issuer(Arc<KeySet>),
}

#[derive(Debug, Clone)]
struct Verified {
    credential: Arc<Credential>,
    expires: Timestamp,
    basis: Basis,
}

/// The use cases of access tokens.
pub struct TokenService {
    store: Store,
    config: Arc<ArcSwap<Config>>,
    issuers: Arc<Issuers>,
    rates: Rates<String>,
    ready: ArcSwap<ReadyKeys>,
    verified: Remembered<Verified>,
}

impl fmt::Debug for TokenService {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TokenService").field("issuers", &self.issuers).finish_non_exhaustive()
    }
}

/// The issuer of the tokens: what is configured, else where the daemon is reached.
#[must_use]
pub fn issuer(config: &Config) -> &str {
    if config.oauth.issuer.is_empty() { &config.public_url } else { &config.oauth.issuer }
}

fn make_ready(key: &TokenKey) -> Option<ReadyKey> {
    let pair = Ed25519KeyPair::from_pkcs8(&key.pkcs8).ok()?;
    let public = pair.public_key().as_ref();
    let x = base64url(public);
    // The members in this order and without spaces: RFC 7638, 3 and RFC 8037, 2.
    let kid = base64url(&Sha256::digest(format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#)));
    Some(ReadyKey {
        signs_from: key.signs_from,
        published: PublishedKey { kid, x },
        encoding: EncodingKey::from_ed_der(&key.pkcs8),
        verifying: VerifyingKey::from_ed25519(public),
    })
}

impl ReadyKeys {
    fn of(basis: Arc<Vec<Arc<TokenKey>>>) -> Self {
        Self { keys: basis.iter().filter_map(|key| make_ready(key)).collect(), basis }
    }
}

impl TokenService {
    pub(super) fn new(store: Store, config: Arc<ArcSwap<Config>>, issuers: Arc<Issuers>) -> Result<Self, getrandom::Error> {
        let ready = ArcSwap::from_pointee(ReadyKeys::of(store.token_keys()));
        Ok(Self { store, config, issuers, rates: Rates::default(), ready, verified: Remembered::new()? })
    }

    fn ready(&self) -> Arc<ReadyKeys> {
        let (ready, basis) = (self.ready.load_full(), self.store.token_keys());
        if Arc::ptr_eq(&ready.basis, &basis) {
            return ready;
        }
        let ready = Arc::new(ReadyKeys::of(basis));
        self.ready.store(Arc::clone(&ready));
        ready
    }

    /// Sees to it that one key signs and the next one is published.
    async fn settle_keys(&self, now: Timestamp) -> Result<(), IssueError> {
        if Rotation::is_settled(&self.store.token_keys(), now) {
            return Ok(());
        }
        let period = Duration::from_secs_f64(self.config.load().oauth.key_rotation_days * 86_400.0).max(PERIOD_MIN);
        let rotation = Rotation { period, kept: ACCESS_KEY_TOKEN_LIFE + SKEW };
        let fresh = || -> Result<Zeroizing<Vec<u8>>, IssueError> {
            let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| IssueError::NoChance)?;
            Ok(Zeroizing::new(pkcs8.as_ref().to_vec()))
        };
        self.store.renew_token_keys([fresh()?, fresh()?], rotation, now).await?;
        Ok(())
    }

    /// The keys that verify tokens, among them the one that is to sign next.
    ///
    /// # Errors
    /// When they could not be renewed.
    pub async fn published_keys(&self, now: Timestamp) -> Result<Vec<PublishedKey>, IssueError> {
        self.settle_keys(now).await?;
        Ok(self.ready().keys.iter().map(|key| key.published.clone()).collect())
    }

    /// Issues a token to a client that has shown who it is. `scopes` are within the client's.
    ///
    /// # Errors
    /// See [`IssueError`].
    pub async fn issue(&self, client: &Client, scopes: ScopeSet, life: Duration, now: Timestamp) -> Result<IssuedToken, IssueError> {
        self.settle_keys(now).await?;
        let ready = self.ready();
        let mut signing = ready.keys.iter().rev().skip_while(|key| key.signs_from > now);
        let key = signing.next().or(ready.keys.first()).ok_or(IssueError::Signing)?;
        let mut chance = [0; 16];
        getrandom::fill(&mut chance).map_err(|_| IssueError::NoChance)?;
        let config = self.config.load();
        let issuer = issuer(&config);
        let claims = OwnClaims {
            iss: issuer,
            sub: client.id.as_str(),
            aud: issuer,
            client_id: client.id.as_str(),
            scope: scopes.to_text(),
            company: client.company.0,
            jti: base64url(&chance),
            iat: now.as_seconds(),
            exp: now.as_seconds().saturating_add(life.as_secs()),
        };
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(TYPE.to_owned());
        header.kid = Some(key.published.kid.clone());
        let text = jsonwebtoken::encode(&header, &claims, &key.encoding).map_err(|_| IssueError::Signing)?;
        self.store.touch_client(client, now);
        Ok(IssuedToken { text, life, scopes })
    }

    /// The client that an assertion is by; see [`AssertionError`].
    ///
    /// # Errors
    /// See [`AssertionError`].
    pub async fn authenticate_assertion(&self, text: &str, addresses: &Addresses, now: Timestamp) -> Result<Arc<Client>, AssertionError> {
        assertions::authenticate(&self.store, text, addresses, now).await
    }

    /// What counts the calls of a client.
    #[must_use]
    pub fn windows(&self, client: &Client, now: Timestamp) -> Arc<Windows> {
        self.rates.of(client.id.as_str(), now)
    }

    /// Who holds this token.
    ///
    /// # Errors
    /// See [`TokenRefusal`].
    pub fn authenticate(&self, text: &[u8], now: Timestamp) -> Result<Arc<Credential>, TokenRefusal> {
        let tag = self.verified.tag(text);
        let verified = match self.verified.get(tag) {
            Some(verified) if self.still_stands(&verified.basis, now) => verified,
            _ => {
                let verified = self.verify(text, now)?;
                self.verified.put(tag, verified.clone());
                verified
            }
        };
        if let Basis::Client(client) = &verified.basis
            && client.grant.has_expired(now)
        {
            return Err(TokenRefusal::ClientExpired);
        }
        if verified.expires <= now { Err(TokenRefusal::Expired) } else { Ok(verified.credential) }
    }

    fn still_stands(&self, basis: &Basis, now: Timestamp) -> bool {
        match basis {
            Basis::Client(client) => self.store.clients().by_id(client.id.as_str()).is_some_and(|known| Arc::ptr_eq(known, client)),
            Basis::Issuer(keys) => self.issuers.is_current(keys, now),
        }
    }

    fn verify(&self, text: &[u8], now: Timestamp) -> Result<Verified, TokenRefusal> {
        let text = std::str::from_utf8(text).map_err(|_| TokenRefusal::Signature)?;
        let unverified = Unverified::read(text).map_err(|_| TokenRefusal::Signature)?;
        let named = unverified.claims::<Issuer>().map_err(|_| TokenRefusal::Signature)?.iss;
        let config = self.config.load();
        let own = issuer(&config);
        match named {
            Some(named) if named == own => self.verify_own(&unverified, own, now),
            Some(named) => self.verify_foreign(&unverified, &named, own, now),
            None => Err(TokenRefusal::Issuer),
        }
    }

    fn verify_own(&self, unverified: &Unverified<'_>, issuer: &str, now: Timestamp) -> Result<Verified, TokenRefusal> {
        if !unverified.is_of_type(&[TYPE]) {
            return Err(TokenRefusal::Type);
        }
        let ready = self.ready();
        let keys = ready.keys.iter().filter(|key| unverified.head.kid.as_ref() == Some(&key.published.kid));
        let claims: PresentedClaims = unverified.verify(keys.map(|key| &key.verifying)).map_err(|error| match error {
            JwtError::Malformed => TokenRefusal::Claims,
            _ => TokenRefusal::Signature,
        })?;
        if !claims.aud.all().iter().any(|audience| audience == issuer) {
            return Err(TokenRefusal::Audience);
        }
        let expires = time_of_claim(claims.exp).map_err(|_| TokenRefusal::Claims)?;
        if expires <= now {
            return Err(TokenRefusal::Expired);
        }
        if time_of_claim(claims.iat).map_err(|_| TokenRefusal::Claims)? > now.after(SKEW) {
            return Err(TokenRefusal::NotYet);
        }
        let client = self.store.clients().by_id(&claims.client_id).cloned().ok_or(TokenRefusal::UnknownClient)?;
        if claims.sub != claims.client_id || client.company.0 != claims.company {
            return Err(TokenRefusal::Claims);
        }
        if client.revoked.is_some() {
            return Err(TokenRefusal::Revoked);
        }
        if client.is_over(now) {
            return Err(TokenRefusal::ClientExpired);
        }
        let scopes: ScopeSet = claims.scope.split(' ').filter_map(|scope| scope.parse::<Scope>().ok()).collect();
        // A client that may do less than when the token was issued does less with it.
        let grant = Grant { scopes: scopes.shared_with(client.grant.scopes), ..client.grant.clone() };
        let holder = TokenHolder { client: claims.client_id, issuer: None, grant };
        let windows = self.rates.of(client.id.as_str(), now);
        let credential = Arc::new(Credential { principal: Principal::Token(Arc::new(holder)), windows });
        Ok(Verified { credential, expires, basis: Basis::Client(client) })
    }

    fn verify_foreign(&self, unverified: &Unverified<'_>, named: &str, own: &str, now: Timestamp) -> Result<Verified, TokenRefusal> {
        let (issuer, keys) = self.issuers.find(named, unverified.head.kid.as_deref(), now).ok_or(TokenRefusal::Issuer)?;
        let (holder, expires) = issuer.verify(unverified, &keys, own, &self.store.companies(), now)?;
        // The ids of clients cannot hold a space, so that no foreign client is ever taken for one of ours.
        let name = format!("{named} {}", holder.client);
        let windows = self.rates.of(name.as_str(), now);
        let credential = Arc::new(Credential { principal: Principal::Token(Arc::new(holder)), windows });
        Ok(Verified { credential, expires, basis: Basis::Issuer(keys) })
    }
}
