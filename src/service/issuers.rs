//! Issuers of access tokens besides the daemon itself: whom the operator trusts, for which companies and how far.
//!
//! Their keys come from a JWK Set, in a file or fetched from where the operator says. A file is read again when it has
//! changed; what is fetched is fetched again every five minutes, and earlier when a token names a key that is not known.
//! A token that was verified with keys that are gone is verified again.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use serde_json::{Map, Value};
use tokio::sync::Notify;
use tracing::warn;

use super::jose::{JwtError, Unverified, VerifyingKey, time_of_claim};
use super::tokens::TokenRefusal;
use crate::config::ExternalIssuer;
use crate::domain::clock::Clock;
use crate::domain::egress::EgressPolicy;
use crate::domain::key::{Grant, RateOverrides, TokenHolder};
use crate::domain::scope::{Scope, ScopeSet};
use crate::domain::time::Timestamp;
use crate::store::Companies;
use crate::webhook::{FetchError, Sender, UrlError, check_url};

/// Bytes of a file with a JWK Set at most.
const FILE_BYTES_MAX: u64 = 262_144;
/// Keys of a JWK Set at most.
const KEYS_MAX: usize = 100;
/// How often a file is looked at, whether or not a token asks for a key that is not known.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// How often at most a token that names an unknown key makes the file be looked at.
const UNKNOWN_INTERVAL: Duration = Duration::from_secs(5);
/// How often keys are fetched.
const FETCH_INTERVAL: Duration = Duration::from_secs(300);
/// How often at most a token that names an unknown key makes keys be fetched.
const UNKNOWN_FETCH_INTERVAL: Duration = Duration::from_secs(30);
/// How long fetching may take.
const FETCH_TIME_MAX: Duration = Duration::from_secs(10);
/// How often it is seen whether keys must be fetched.
const FETCH_LOOK: Duration = Duration::from_secs(30);
/// How far the issuer's clock may be off.
const SKEW: Duration = Duration::from_secs(60);
/// What the header of a token may call it: many issuers write `JWT`, some nothing. That it is meant for us is said by `aud`.
const TYPES: [&str; 2] = ["at+jwt", "jwt"];
/// Bytes of a client's name at most.
const CLIENT_BYTES_MAX: usize = 256;

/// Why a JWK Set cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    /// The file cannot be read.
    #[error("the JWK Set {} cannot be read: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// It was not fetched.
    #[error("the JWK Set {url} cannot be fetched: {source}")]
    Fetch {
        /// Where it is.
        url: String,
        /// What went wrong.
        source: FetchError,
    },
    /// The URL may not be fetched.
    #[error("the JWK Set {url} may not be fetched: {source}")]
    Url {
        /// Where it is.
        url: String,
        /// Why not.
        source: UrlError,
    },
    /// It is too large.
    #[error("the JWK Set {0} has more than {FILE_BYTES_MAX} bytes or {KEYS_MAX} keys")]
    Size(String),
    /// It is no JWK Set.
    #[error("{0} is not a JWK Set: it must be JSON with a list `keys`")]
    Content(String),
    /// It holds no key that can be used.
    #[error("the JWK Set {0} holds no public key of RSA (2048 to 8192 bits), P-256 or Ed25519")]
    Empty(String),
}

/// The keys of an issuer at one moment.
#[derive(Debug, Default)]
pub struct KeySet(Vec<(Option<String>, Option<String>, VerifyingKey)>);

impl KeySet {
    fn read(path: &Path) -> Result<Self, KeySetError> {
        let failed = |source| KeySetError::Io { path: path.to_owned(), source };
        let mut text = Vec::new();
        File::open(path).map_err(failed)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(failed)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(KeySetError::Size(path.display().to_string()));
        }
        Self::parse(&text, &path.display().to_string())
    }

    /// `place` is where the text comes from.
    fn parse(text: &[u8], place: &str) -> Result<Self, KeySetError> {
        let wrong = || KeySetError::Content(place.to_owned());
        let set: Value = serde_json::from_slice(text).map_err(|_| wrong())?;
        let entries = set.get("keys").and_then(Value::as_array).ok_or_else(wrong)?;
        if entries.len() > KEYS_MAX {
            return Err(KeySetError::Size(place.to_owned()));
        }
        let keys: Vec<_> = entries.iter().filter_map(read_key).collect();
        if keys.is_empty() { Err(KeySetError::Empty(place.to_owned())) } else { Ok(Self(keys)) }
    }

    fn has(&self, kid: &str) -> bool {
        self.0.iter().any(|(known, ..)| known.as_deref() == Some(kid))
    }

    /// The keys that a token may be signed with: the one it names, or all when it names none.
    fn meant<'a>(&'a self, unverified: &'a Unverified<'_>) -> impl Iterator<Item = &'a VerifyingKey> {
        let head = &unverified.head;
        let is_named = move |kid: &Option<String>| head.kid.is_none() || *kid == head.kid;
        self.0
            .iter()
            .filter(move |(kid, algorithm, _)| is_named(kid) && algorithm.as_deref().is_none_or(|named| head.is_alg(named)))
            .map(|(_, _, key)| key)
    }
}

/// A key that can be used, with its name and the algorithm that it is for; others of the set are passed over (RFC 7517, 5).
fn read_key(entry: &Value) -> Option<(Option<String>, Option<String>, VerifyingKey)> {
    let text = |member: &str| entry.get(member).and_then(Value::as_str).map(str::to_owned);
    let jwk = serde_json::from_value(entry.clone()).ok()?;
    Some((text("kid"), text("alg"), VerifyingKey::from_jwk(&jwk)?))
}

/// When keys were looked at, and how it stood then.
#[derive(Debug)]
struct Look {
    at: Timestamp,
    /// Of a file.
    state: Option<FileState>,
    /// A token names a key that was not there.
    misses: bool,
}

/// What changes when a file does: when it was written, its length, and which file it is.
type FileState = (SystemTime, u64, u64);

/// One issuer.
#[derive(Debug)]
pub struct Issuer {
    settings: ExternalIssuer,
    /// The most that its tokens allow.
    scopes: ScopeSet,
    keys: ArcSwap<KeySet>,
    look: Mutex<Look>,
}

/// All issuers besides the daemon itself.
#[derive(Debug, Default)]
pub struct Issuers {
    all: Vec<Issuer>,
    /// Wakes whoever fetches.
    wanted: Notify,
}

impl Issuers {
    /// Reads the keys of every issuer that has them in a file.
    ///
    /// # Errors
    /// When a file cannot be used, or the policy refuses a URL: a daemon starts with all its issuers or not at all.
    pub fn load(settings: &[ExternalIssuer], policy: &EgressPolicy) -> Result<Self, KeySetError> {
        let issuers = settings.iter().map(|settings| {
            let scopes: ScopeSet = settings.scopes.iter().filter_map(|scope| scope.parse::<Scope>().ok()).collect();
            let everything_of_a_company = || Scope::ALL.into_iter().filter(|scope| *scope != Scope::Admin).collect();
            let scopes = if settings.scopes.is_empty() { everything_of_a_company() } else { scopes };
            let url = &settings.jwks_url;
            let (keys, state) = if url.is_empty() {
                let state = state_of(&settings.jwks_file);
                (KeySet::read(&settings.jwks_file)?, state)
            } else {
                check_url(url, policy).map_err(|source| KeySetError::Url { url: url.clone(), source })?;
                (KeySet::default(), None)
            };
            let look = Mutex::new(Look { at: Timestamp::default(), state, misses: false });
            Ok(Issuer { settings: settings.clone(), scopes, keys: ArcSwap::from_pointee(keys), look })
        });
        Ok(Self { all: issuers.collect::<Result<_, _>>()?, wanted: Notify::new() })
    }

    /// The issuer of this name with its keys, read again when that may help.
    pub(super) fn find(&self, name: &str, kid: Option<&str>, now: Timestamp) -> Option<(&Issuer, Arc<KeySet>)> {
        let issuer = self.all.iter().find(|issuer| issuer.settings.issuer == name)?;
        let keys = issuer.keys.load();
        let misses = keys.0.is_empty() || kid.is_some_and(|kid| !keys.has(kid));
        if !issuer.is_fetched() {
            issuer.look_again(if misses { UNKNOWN_INTERVAL } else { LOOK_INTERVAL }, now);
        } else if misses && issuer.miss(now) {
            self.wanted.notify_one();
        }
        Some((issuer, issuer.keys.load_full()))
    }

    /// Whether these are still an issuer's keys.
    pub(super) fn is_current(&self, keys: &Arc<KeySet>, now: Timestamp) -> bool {
        self.all.iter().any(|issuer| {
            if !issuer.is_fetched() {
                issuer.look_again(LOOK_INTERVAL, now);
            }
            Arc::ptr_eq(&issuer.keys.load_full(), keys)
        })
    }

    /// Fetches what is to be fetched, again and again. Ends at once when there is nothing, else never.
    pub async fn keep_fetched(&self, sender: &Sender, clock: &dyn Clock) {
        let fetched: Vec<&Issuer> = self.all.iter().filter(|issuer| issuer.is_fetched()).collect();
        while !fetched.is_empty() {
            for issuer in &fetched {
                if issuer.take_due(clock.now()) {
                    issuer.fetch(sender).await;
                }
            }
            // Woken or not, it is looked at again after a while: time may have passed without a token.
            let _woken = tokio::time::timeout(FETCH_LOOK, self.wanted.notified()).await;
        }
    }
}

fn state_of(path: &Path) -> Option<FileState> {
    let file = std::fs::metadata(path).ok()?;
    Some((file.modified().ok()?, file.len(), file.ino()))
}

impl Look {
    /// Whether the last look is `interval` past. A clock that was set back looks at once.
    fn is_past(&self, interval: Duration, now: Timestamp) -> bool {
        self.at > now || now.since(self.at) >= interval
    }
}

impl Issuer {
    fn is_fetched(&self) -> bool {
        !self.settings.jwks_url.is_empty()
    }

    /// Reads the file again if it has changed and the last look is `interval` past. Whatever is wrong with it then, the
    /// keys that are known go on.
    fn look_again(&self, interval: Duration, now: Timestamp) {
        // Whoever finds somebody looking takes what is known.
        let mut look = match self.look.try_lock() {
            Ok(look) => look,
            Err(TryLockError::Poisoned(poisoned)) => PoisonError::into_inner(poisoned),
            Err(TryLockError::WouldBlock) => return,
        };
        if !look.is_past(interval, now) {
            return;
        }
        let path = &self.settings.jwks_file;
        let state = state_of(path);
        let is_same = state == look.state && state.is_some();
        (look.at, look.state) = (now, state);
        if !is_same {
            self.take(KeySet::read(path));
        }
    }

    /// Notes that a key is missing; true when it is to be fetched now.
    fn miss(&self, now: Timestamp) -> bool {
        let mut look = self.look.lock().unwrap_or_else(PoisonError::into_inner);
        look.misses = true;
        look.is_past(UNKNOWN_FETCH_INTERVAL, now)
    }

    /// Whether keys must be fetched now; they count as looked at then.
    fn take_due(&self, now: Timestamp) -> bool {
        let mut look = self.look.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = look.is_past(if look.misses { UNKNOWN_FETCH_INTERVAL } else { FETCH_INTERVAL }, now);
        if is_due {
            (look.at, look.misses) = (now, false);
        }
        is_due
    }

    async fn fetch(&self, sender: &Sender) {
        let url = &self.settings.jwks_url;
        let fetched = sender.fetch(url, FETCH_TIME_MAX).await;
        let fetched = fetched.map_err(|source| KeySetError::Fetch { url: url.clone(), source });
        self.take(fetched.and_then(|text| KeySet::parse(&text, url)));
    }

    fn take(&self, keys: Result<KeySet, KeySetError>) {
        match keys {
            Ok(keys) => self.keys.store(Arc::new(keys)),
            Err(error) => {
                warn!(issuer = %self.settings.issuer, %error, "The keys of {} stay as they were: {error}", self.settings.issuer);
            }
        }
    }

    /// The holder of a token of this issuer, and when the token expires.
    ///
    /// `own` is the name of the daemon's own issuer, the audience where no other is configured.
    pub(super) fn verify(
        &self,
        unverified: &Unverified<'_>,
        keys: &KeySet,
        own: &str,
        companies: &Companies,
        now: Timestamp,
    ) -> Result<(TokenHolder, Timestamp), TokenRefusal> {
        if unverified.head.typ.is_some() && !unverified.is_of_type(&TYPES) {
            return Err(TokenRefusal::Type);
        }
        let claims: Map<String, Value> = unverified.verify(keys.meant(unverified)).map_err(|error| match error {
            JwtError::Malformed => TokenRefusal::Claims,
            _ => TokenRefusal::Signature,
        })?;
        let audience = if self.settings.audience.is_empty() { own } else { &self.settings.audience };
        if !texts(claims.get("aud")).any(|named| named == audience) {
            return Err(TokenRefusal::Audience);
        }
        let time = |claim: &str| match claims.get(claim) {
            None => Ok(None),
            Some(value) => {
                let seconds = value.as_f64().ok_or(TokenRefusal::Claims)?;
                time_of_claim(seconds).map(Some).map_err(|_| TokenRefusal::Claims)
            }
        };
        let expires = time("exp")?.ok_or(TokenRefusal::Claims)?;
        if expires <= now {
            return Err(TokenRefusal::Expired);
        }
        if [time("nbf")?, time("iat")?].into_iter().flatten().any(|start| start > now.after(SKEW)) {
            return Err(TokenRefusal::NotYet);
        }
        let client = ["client_id", "azp", "sub"].into_iter().find_map(|claim| claims.get(claim).and_then(Value::as_str));
        let is_name = |name: &&str| (1..=CLIENT_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
        let client = client.filter(is_name).ok_or(TokenRefusal::Claims)?;
        let company = match self.settings.company_claim.as_str() {
            "" => self.settings.company.clone(),
            claim => match claims.get(claim) {
                Some(Value::String(name)) => name.clone(),
                Some(Value::Number(number)) => number.to_string(),
                _ => return Err(TokenRefusal::Company),
            },
        };
        let company = companies.named(&company).ok_or(TokenRefusal::Company)?.id;
        let granted: ScopeSet = texts(claims.get(&self.settings.scope_claim))
            .flat_map(|text| text.split(' '))
            .filter_map(|scope| scope.parse::<Scope>().ok())
            .collect();
        let grant = Grant {
            company: Some(company),
            name: client.to_owned(),
            scopes: granted.shared_with(self.scopes),
            rates: RateOverrides::default(),
            expires: None,
            networks: Vec::new(),
            type_prefixes: Vec::new(),
        };
        Ok((TokenHolder { client: client.to_owned(), issuer: Some(self.settings.issuer.clone()), grant }, expires))
    }
}

/// The texts of a claim that is one text or a list of them.
fn texts(claim: Option<&Value>) -> impl Iterator<Item = &str> {
    let (one, several) = match claim {
        Some(Value::String(one)) => (Some(one.as_str()), &[][..]),
        Some(Value::Array(several)) => (None, several.as_slice()),
        _ => (None, &[][..]),
    };
    one.into_iter().chain(several.iter().filter_map(Value::as_str))
}
