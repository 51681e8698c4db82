//! OAuth clients: programs of a company that fetch access tokens with a secret or with a private key (RFC 6749, 2).

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use super::company::CompanyId;
use super::key::Grant;
use super::time::Timestamp;

/// Public keys that one client may have at a time: enough for several machines that rotate.
pub const CLIENT_KEYS_MAX: usize = 10;

/// The name of a client: 1 to 64 characters of `A-Z a-z 0-9 - . _`, so that it stands in paths, in forms and in front of
/// a colon as it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(String);

/// A text that is not the id of a client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the id of a client is 1 to 64 characters of A-Z, a-z, 0-9, - . and _, and starts with a letter or a digit")]
pub struct ParseClientIdError;

impl ClientId {
    /// Characters of an id at most.
    pub const LENGTH_MAX: usize = 64;

    /// The id made of 16 random bytes, in the form of a UUID of version 4 (RFC 9562, 5.4).
    #[must_use]
    pub fn from_chance(chance: [u8; 16]) -> Self {
        let number = u128::from_be_bytes(chance) & !(0xF000_u128 << 64 | 0xC000_u128 << 48) | 0x4000_u128 << 64 | 0x8000_u128 << 48;
        let part = |shift: u32, digits: u32| number >> shift & ((1 << (4 * digits)) - 1);
        Self(format!("{:08x}-{:04x}-{:04x}-{:04x}-{:012x}", part(96, 8), part(80, 4), part(64, 4), part(48, 4), part(0, 12)))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Borrow<str> for ClientId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClientId {
    type Err = ParseClientIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        let starts_well = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if starts_well && text.len() <= Self::LENGTH_MAX && text.bytes().all(is_allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseClientIdError)
        }
    }
}

/// Which audience a client's assertions may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AudPolicy {
    /// The issuer alone (RFC 10070).
    #[default]
    Issuer,
    /// The issuer, or the token URL that the client called, for clients of the older rule (RFC 7523, 3).
    TokenEndpoint,
}

/// A text that is no audience policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the audience policy is `issuer` or `token_endpoint`")]
pub struct ParseAudPolicyError;

impl AudPolicy {
    /// The policy as it is written on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Issuer => "issuer",
            Self::TokenEndpoint => "token_endpoint",
        }
    }
}

impl FromStr for AudPolicy {
    type Err = ParseAudPolicyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Issuer, Self::TokenEndpoint].into_iter().find(|policy| policy.as_str() == text).ok_or(ParseAudPolicyError)
    }
}

/// A name that a client gives one of its keys: 1 to 128 visible ASCII characters.
///
/// # Errors
/// With what is allowed.
pub fn check_kid(kid: &str) -> Result<(), &'static str> {
    let is_right = (1..=128).contains(&kid.len()) && kid.bytes().all(|byte| byte.is_ascii_graphic());
    if is_right { Ok(()) } else { Err("the `kid` of a key is 1 to 128 visible ASCII characters") }
}

/// A public key of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientKey {
    /// Base64url of the SHA-256 over the key: names it for good.
    pub id: String,
    /// The name that the client calls it by, if it has said one.
    pub kid: Option<String>,
    /// The key as a DER `SubjectPublicKeyInfo` (RFC 5280, 4.1.2.7).
    pub spki: Vec<u8>,
    /// SHA-1 over the certificate it came in, base64url (RFC 7515, 4.1.7).
    pub x5t: Option<String>,
    /// SHA-256 over the certificate it came in, base64url (RFC 7515, 4.1.8).
    pub x5t_s256: Option<String>,
    /// The end of the certificate it came in. For people: a key is pinned, no certificate is believed or doubted.
    pub not_after: Option<Timestamp>,
    /// When it was added.
    pub added: Timestamp,
}

impl ClientKey {
    /// Whether an assertion with this `kid` means this key. Clients often name a key by the thumbprint of its certificate.
    #[must_use]
    pub fn is_named(&self, kid: &str) -> bool {
        self.id == kid || [&self.kid, &self.x5t, &self.x5t_s256].into_iter().flatten().any(|name| name == kid)
    }
}

/// What the store keeps of a client's secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSecret {
    /// HMAC-SHA-256 of it under the pepper.
    pub hash: [u8; 32],
    /// From when on it is refused; none for the current one.
    pub ends: Option<Timestamp>,
}

/// An OAuth client, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Its id.
    pub id: ClientId,
    /// Its company.
    pub company: CompanyId,
    /// What its tokens may allow.
    pub grant: Grant,
    /// Which audience its assertions may name.
    pub aud_policy: AudPolicy,
    /// Its secrets: the current one, and after a rotation for a while the one before.
    pub secrets: Vec<ClientSecret>,
    /// Its public keys, at most [`CLIENT_KEYS_MAX`].
    pub keys: Vec<ClientKey>,
    /// When it was created.
    pub created: Timestamp,
    /// When it was revoked; from then on it gets no tokens, and those it has are refused.
    pub revoked: Option<Timestamp>,
    /// When it last got a token, to the hour.
    pub last_used: Option<Timestamp>,
}

impl Client {
    /// Whether the client is refused at `now`, because it was revoked or has expired.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.revoked.is_some() || self.grant.has_expired(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_stands_in_paths_and_in_front_of_a_colon() {
        for text in ["a", "9", "acme-claims.core_2", "70c6d351-016f-4c9e-b1a9-d581fc3a596b", &"a".repeat(64)] {
            assert_eq!(text.parse::<ClientId>().unwrap().as_str(), text);
        }
        for text in ["", "-a", ".", "a b", "a:b", "a/b", "ø", "a%20", &"a".repeat(65)] {
            assert_eq!(text.parse::<ClientId>(), Err(ParseClientIdError), "{text}");
        }
    }

    #[test]
    fn an_id_from_chance_is_a_uuid_of_version_4() {
        assert_eq!(ClientId::from_chance([0; 16]).as_str(), "00000000-0000-4000-8000-000000000000");
        assert_eq!(ClientId::from_chance([255; 16]).as_str(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        let counted: [u8; 16] = std::array::from_fn(|place| u8::try_from(place).unwrap());
        let id = ClientId::from_chance(counted);
        assert_eq!(id.as_str(), "00010203-0405-4607-8809-0a0b0c0d0e0f");
        assert_eq!(id.as_str().parse::<ClientId>(), Ok(id));
    }

    #[test]
    fn a_key_is_named_by_its_id_its_kid_or_a_thumbprint() {
        let key = ClientKey {
            id: "digest".to_owned(),
            kid: Some("2026-11".to_owned()),
            spki: Vec::new(),
            x5t: Some("sha1".to_owned()),
            x5t_s256: None,
            not_after: None,
            added: Timestamp::default(),
        };
        for name in ["digest", "2026-11", "sha1"] {
            assert!(key.is_named(name), "{name}");
        }
        assert!(!key.is_named("") && !key.is_named("other"));
    }

    #[test]
    fn policies_read_back_from_their_text() {
        for policy in [AudPolicy::Issuer, AudPolicy::TokenEndpoint] {
            assert_eq!(policy.as_str().parse(), Ok(policy));
        }
        assert_eq!("any".parse::<AudPolicy>(), Err(ParseAudPolicyError));
    }
}
