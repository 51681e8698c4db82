//! `private_key_jwt`: clients that show who they are with a token of their own (RFC 7523, 2.2 and 3).

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::jose::{Audience, JwtError, Unverified, VerifyingKey, time_of_claim};
use crate::domain::client::{AudPolicy, Client, ClientId};
use crate::domain::time::Timestamp;
use crate::store::{JtiUse, LedgerBusy, Store};

/// How far ahead an assertion may expire.
const LIFE_MAX: Duration = Duration::from_secs(600);
/// How far a client's clock may be off.
const SKEW: Duration = Duration::from_secs(60);
/// Bytes of a `jti` at most.
const JTI_BYTES_MAX: usize = 256;
/// What the header of an assertion may call it (RFC 10070); access tokens and other kinds are no assertions.
const TYPES: [&str; 2] = ["jwt", "client-authentication+jwt"];

/// Why an assertion is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssertionError {
    /// It is no token, or its signature is wrong.
    #[error(transparent)]
    Jwt(#[from] JwtError),
    /// Another kind of token.
    #[error("the `typ` of an assertion is `JWT` or `client-authentication+jwt`")]
    Type,
    /// Nobody, or two different ones.
    #[error("the claims `iss` and `sub` of an assertion are both the id of the client")]
    Names,
    /// No such client.
    #[error("the client is not known here")]
    UnknownClient,
    /// The client authenticates otherwise.
    #[error("the client has no public key here")]
    NoKeys,
    /// For somebody else.
    #[error("the claim `aud` must be {0}, and nothing else")]
    Audience(String),
    /// No end.
    #[error("the claim `exp` is missing")]
    NoExpiry,
    /// Its end is past.
    #[error("the assertion has expired")]
    Expired,
    /// Its end is too far ahead.
    #[error("the claim `exp` is more than {} minutes ahead", LIFE_MAX.as_secs() / 60)]
    TooLong,
    /// Its beginning is ahead.
    #[error("the assertion is not valid yet: `nbf` or `iat` is ahead")]
    NotYet,
    /// No `jti`.
    #[error("the claim `jti` is missing")]
    NoJti,
    /// A `jti` of no use.
    #[error("the claim `jti` has 1 to {JTI_BYTES_MAX} bytes")]
    Jti,
    /// Used before.
    #[error("the assertion was used before; make a new one with its own `jti` for every request")]
    Replayed,
    /// The client was revoked.
    #[error("the client was revoked")]
    Revoked,
    /// The client's time is over.
    #[error("the client has expired")]
    ClientExpired,
    /// So many assertions are remembered that this one could not be.
    #[error("too many assertions are remembered; try again in some minutes")]
    Full,
    /// The ledger cannot take the act.
    #[error(transparent)]
    Busy(#[from] LedgerBusy),
}

#[derive(Debug, Deserialize)]
struct Names {
    iss: Option<String>,
    sub: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Claims {
    aud: Option<Audience>,
    exp: Option<f64>,
    nbf: Option<f64>,
    iat: Option<f64>,
    jti: Option<String>,
}

/// What an assertion may be addressed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// The issuer.
    pub issuer: String,
    /// The URLs under which the token endpoint was called.
    pub endpoints: Vec<String>,
}

/// The client that an assertion is by. When this is done, its `jti` is used up on disk.
///
/// # Errors
/// See [`AssertionError`]. What is told of the claims is told to whoever holds the client's key.
pub(super) async fn authenticate(store: &Store, text: &str, addresses: &Addresses, now: Timestamp) -> Result<Arc<Client>, AssertionError> {
    let (client, jti, until) = check(store, text, addresses, now)?;
    match store.use_jti(&client.id, &jti, until, now).await? {
        JtiUse::Fresh => Ok(client),
        JtiUse::Replayed => Err(AssertionError::Replayed),
        JtiUse::Full => Err(AssertionError::Full),
    }
}

fn check(store: &Store, text: &str, addresses: &Addresses, now: Timestamp) -> Result<(Arc<Client>, String, Timestamp), AssertionError> {
    let unverified = Unverified::read(text)?;
    if unverified.head.typ.is_some() && !unverified.is_of_type(&TYPES) {
        return Err(AssertionError::Type);
    }
    let id = match unverified.claims::<Names>()? {
        Names { iss: Some(iss), sub: Some(sub) } if iss == sub => iss.parse::<ClientId>().map_err(|_| AssertionError::UnknownClient)?,
        _ => return Err(AssertionError::Names),
    };
    let client = store.clients().by_id(id.as_str()).cloned().ok_or(AssertionError::UnknownClient)?;
    let keys = keys_for(&client, &unverified);
    if keys.is_empty() {
        return Err(AssertionError::NoKeys);
    }
    let claims: Claims = unverified.verify(&keys)?;
    let (jti, until) = judge(&claims, client.aud_policy, addresses, now)?;
    if client.revoked.is_some() {
        return Err(AssertionError::Revoked);
    }
    if client.is_over(now) {
        return Err(AssertionError::ClientExpired);
    }
    Ok((client, jti, until))
}

/// The keys that a token may be signed with: those it names, and all of the client's few when it names none of them.
fn keys_for(client: &Client, unverified: &Unverified<'_>) -> Vec<VerifyingKey> {
    let head = &unverified.head;
    let is_meant = |key: &&crate::domain::client::ClientKey| {
        head.kid.as_deref().is_some_and(|kid| key.is_named(kid))
            || (head.x5t.is_some() && head.x5t == key.x5t)
            || (head.x5t_s256.is_some() && head.x5t_s256 == key.x5t_s256)
    };
    let meant: Vec<_> = client.keys.iter().filter(is_meant).collect();
    let chosen = if meant.is_empty() { client.keys.iter().collect() } else { meant };
    chosen.into_iter().filter_map(|key| VerifyingKey::from_spki(&key.spki)).collect()
}

/// Judges the claims of an assertion whose signature is right; its `jti`, and until when that must be remembered.
fn judge(claims: &Claims, policy: AudPolicy, addresses: &Addresses, now: Timestamp) -> Result<(String, Timestamp), AssertionError> {
    let expires = time_of_claim(claims.exp.ok_or(AssertionError::NoExpiry)?)?;
    if expires.after(SKEW) <= now {
        return Err(AssertionError::Expired);
    }
    if expires > now.after(LIFE_MAX + SKEW) {
        return Err(AssertionError::TooLong);
    }
    for start in [claims.nbf, claims.iat].into_iter().flatten() {
        if time_of_claim(start)? > now.after(SKEW) {
            return Err(AssertionError::NotYet);
        }
    }
    let is_ours =
        |audience: &String| *audience == addresses.issuer || (policy == AudPolicy::TokenEndpoint && addresses.endpoints.contains(audience));
    // An assertion that is also addressed to another server could be used by that one here.
    let named = claims.aud.as_ref().map_or(&[][..], Audience::all);
    if named.is_empty() || !named.iter().all(is_ours) {
        let allowed = match policy {
            AudPolicy::Issuer => format!("the issuer {}", addresses.issuer),
            AudPolicy::TokenEndpoint => format!("the issuer {} or the token URL", addresses.issuer),
        };
        return Err(AssertionError::Audience(allowed));
    }
    let jti = claims.jti.as_ref().ok_or(AssertionError::NoJti)?;
    if !(1..=JTI_BYTES_MAX).contains(&jti.len()) {
        return Err(AssertionError::Jti);
    }
    Ok((jti.clone(), expires.after(SKEW)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn addresses() -> Addresses {
        Addresses { issuer: "https://a".to_owned(), endpoints: vec!["https://a/oauth2/token".to_owned()] }
    }

    fn judged(claims: &str, policy: AudPolicy) -> Result<(String, Timestamp), AssertionError> {
        judge(&serde_json::from_str(claims).unwrap(), policy, &addresses(), at(1000))
    }

    #[test]
    fn an_assertion_lives_for_ten_minutes_and_clocks_may_be_off_by_one() {
        let with = |exp: &str| judged(&format!(r#"{{"aud":"https://a","jti":"1","exp":{exp}}}"#), AudPolicy::Issuer);
        assert_eq!(with("1010"), Ok(("1".to_owned(), at(1070))));
        assert_eq!(with("940.5").unwrap().1, Timestamp::from_micros(1_000_500_000));
        assert_eq!(with("940"), Err(AssertionError::Expired));
        assert!(with("1660").is_ok());
        assert_eq!(with("1660.5"), Err(AssertionError::TooLong));
        for wrong in ["-1", "1e300", "null"] {
            assert!(with(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_audience_must_be_ours() {
        let with = |aud: &str, policy| judged(&format!(r#"{{"aud":{aud},"jti":"1","exp":1010}}"#), policy).is_ok();
        for aud in [r#""https://a""#, r#"["https://a"]"#] {
            assert!(with(aud, AudPolicy::Issuer) && with(aud, AudPolicy::TokenEndpoint), "{aud}");
        }
        for aud in [r#""https://a/oauth2/token""#, r#"["https://a/oauth2/token"]"#, r#"["https://a","https://a/oauth2/token"]"#] {
            assert!(!with(aud, AudPolicy::Issuer) && with(aud, AudPolicy::TokenEndpoint), "{aud}");
        }
        for aud in
            ["null", "[]", r#""""#, r#""https://a/""#, r#"["https://a","https://b"]"#, r#""https://A""#, r#""https://a/connect/token""#]
        {
            assert!(!with(aud, AudPolicy::Issuer) && !with(aud, AudPolicy::TokenEndpoint), "{aud}");
        }
    }
}
