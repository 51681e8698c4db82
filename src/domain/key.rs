//! API keys and who stands behind a request.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;

use super::company::CompanyId;
use super::scope::{Scope, ScopeSet};
use super::time::Timestamp;

/// The public part of an API key: 12 characters of `0-9A-Za-z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; KeyId::LENGTH]);

/// A text that is not a key id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a key id is 12 letters and digits")]
pub struct ParseKeyIdError;

impl KeyId {
    /// Characters of a key id.
    pub const LENGTH: usize = 12;

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for KeyId {
    type Err = ParseKeyIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes: [u8; Self::LENGTH] = text.as_bytes().try_into().map_err(|_| ParseKeyIdError)?;
        if bytes.iter().all(u8::is_ascii_alphanumeric) { Ok(Self(bytes)) } else { Err(ParseKeyIdError) }
    }
}

/// The families of calls that are counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bucket {
    /// Reading.
    Read,
    /// Publishing.
    Write,
    /// Administration.
    Admin,
}

impl Bucket {
    /// The bucket as it is written on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

/// Calls per minute that one key may make, where they differ from the configuration; 0 = unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateOverrides {
    /// Of the bucket `read`.
    pub read: Option<u32>,
    /// Of the bucket `write`.
    pub write: Option<u32>,
    /// Of the bucket `admin`.
    pub admin: Option<u32>,
}

impl RateOverrides {
    /// The override of `bucket`, if there is one.
    #[must_use]
    pub const fn of(&self, bucket: Bucket) -> Option<u32> {
        match bucket {
            Bucket::Read => self.read,
            Bucket::Write => self.write,
            Bucket::Admin => self.admin,
        }
    }
}

/// What the holder of a key or of a token may do: what somebody asks for who creates a key or a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The company it acts for; none makes a system key.
    pub company: Option<CompanyId>,
    /// A name for people, at most 200 characters.
    pub name: String,
    /// What it may do; never empty for a key or a client.
    pub scopes: ScopeSet,
    /// Its own rates.
    pub rates: RateOverrides,
    /// From when on it is refused.
    pub expires: Option<Timestamp>,
    /// The networks it may come from; empty = any.
    pub networks: Vec<IpNet>,
    /// What the types it publishes must start with, in lower case; empty = any.
    pub type_prefixes: Vec<String>,
}

impl Grant {
    /// Whether the time of the grant is over at `now`.
    #[must_use]
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// Whether events of this type (in lower case) may be published.
    #[must_use]
    pub fn may_publish(&self, folded: &str) -> bool {
        let prefixes = &self.type_prefixes;
        prefixes.is_empty() || prefixes.iter().any(|prefix| folded.starts_with(prefix.as_str()))
    }

    /// Whether the grant may be used from this address.
    #[must_use]
    pub fn allows_address(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.is_empty() || self.networks.iter().any(|network| network.contains(&address))
    }
}

/// An API key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its public part.
    pub id: KeyId,
    /// What it was created with.
    pub grant: Grant,
    /// HMAC-SHA-256 of the secret under the pepper.
    pub secret_hash: [u8; 32],
    /// When it was created.
    pub created: Timestamp,
    /// When it was revoked; from then on it is refused.
    pub revoked: Option<Timestamp>,
    /// When it was last used, to the hour.
    pub last_used: Option<Timestamp>,
}

impl ApiKey {
    /// Whether the key is refused at `now`, because it was revoked or has expired.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.revoked.is_some() || self.grant.has_expired(now)
    }
}

/// The holder of an access token that was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenHolder {
    /// The id of the OAuth client.
    pub client: String,
    /// Who issued the token, when it was not this daemon.
    pub issuer: Option<String>,
    /// What the token allows: never more than its client.
    pub grant: Grant,
}

/// Who makes a request.
#[derive(Debug, Clone)]
pub enum Principal {
    /// The holder of an API key.
    Key(Arc<ApiKey>),
    /// The holder of an access token.
    Token(Arc<TokenHolder>),
    /// Whoever may open the local socket: the administrator of the machine.
    Local,
}

impl Principal {
    /// What the principal may do; none for the local administrator, who may do everything.
    #[must_use]
    pub fn grant(&self) -> Option<&Grant> {
        match self {
            Self::Key(key) => Some(&key.grant),
            Self::Token(holder) => Some(&holder.grant),
            Self::Local => None,
        }
    }

    /// The company the principal acts for; none for system keys and the local administrator.
    #[must_use]
    pub fn company(&self) -> Option<CompanyId> {
        self.grant().and_then(|grant| grant.company)
    }

    /// Whether the principal may do what `scope` names.
    #[must_use]
    pub fn allows(&self, scope: Scope) -> bool {
        self.grant().is_none_or(|grant| grant.scopes.allows(scope))
    }

    /// The OAuth client that the principal is, if it came with a token.
    #[must_use]
    pub fn client(&self) -> Option<&str> {
        match self {
            Self::Token(holder) => Some(&holder.client),
            Self::Key(_) | Self::Local => None,
        }
    }

    /// How the audit log names the principal: `key:{id}`, `client:{id}`, `client:{id} of {issuer}` or `local`.
    #[must_use]
    pub fn audit_name(&self) -> String {
        match self {
            Self::Key(key) => format!("key:{}", key.id),
            Self::Token(holder) => match &holder.issuer {
                None => format!("client:{}", holder.client),
                Some(issuer) => format!("client:{} of {issuer}", holder.client),
            },
            Self::Local => "local".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_id_is_twelve_letters_and_digits() {
        assert_eq!("abcDEF012345".parse::<KeyId>().unwrap().as_str(), "abcDEF012345");
        for text in ["", "abcDEF01234", "abcDEF0123456", "abcDEF01234_"] {
            assert_eq!(text.parse::<KeyId>(), Err(ParseKeyIdError));
        }
    }
}
