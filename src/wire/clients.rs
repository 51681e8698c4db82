//! OAuth clients as they are administered.

use serde::{Deserialize, Deserializer, Serialize};

use super::admin::{NewKeyBody, RatesShape};
use crate::domain::client::{Client, ClientKey};
use crate::domain::scope::Scope;

/// Body of `POST /api/v1/admin/companies/{id}/clients`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NewClientBody {
    /// Its id; absent: one is drawn.
    pub id: Option<String>,
    /// A name for people.
    pub name: Option<String>,
    /// What its tokens may allow.
    pub scopes: Vec<String>,
    /// `issuer` or `token_endpoint`.
    pub aud_policy: Option<String>,
    /// Whether it gets a secret; absent: when it gets no key.
    pub secret: Option<bool>,
    /// Its first public keys.
    #[serde(default)]
    pub keys: Vec<NewClientKeyBody>,
    /// Its own rates.
    #[serde(default)]
    pub rates: RatesShape,
    /// RFC 3339.
    pub expires: Option<String>,
    /// Networks such as `10.0.0.0/8`.
    #[serde(default)]
    pub networks: Vec<String>,
    /// What the types it publishes must start with.
    #[serde(default)]
    pub type_prefixes: Vec<String>,
}

impl NewClientBody {
    /// What a client has in common with a key; taken out of this one.
    #[must_use]
    pub fn take_grant(&mut self) -> NewKeyBody {
        NewKeyBody {
            company: None,
            name: self.name.take(),
            scopes: std::mem::take(&mut self.scopes),
            rates: self.rates,
            expires: self.expires.take(),
            networks: std::mem::take(&mut self.networks),
            type_prefixes: std::mem::take(&mut self.type_prefixes),
        }
    }
}

/// Body of `POST .../clients/{client}/keys`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NewClientKeyBody {
    /// PEM of a public key or a certificate, or the base64 of either in DER.
    pub public_key: String,
    /// The name that the client calls it by.
    pub kid: Option<String>,
}

/// Body of `PATCH .../clients/{client}`; what is absent stays.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ClientChangeBody {
    /// A name for people.
    pub name: Option<String>,
    /// What its tokens may allow.
    pub scopes: Option<Vec<String>>,
    /// RFC 3339, or null for never.
    #[serde(default, deserialize_with = "present")]
    pub expires: Option<Option<String>>,
    /// `issuer` or `token_endpoint`.
    pub aud_policy: Option<String>,
}

/// Tells null from absent.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A client's key as it is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientKeyShape<'a> {
    id: &'a str,
    kid: Option<&'a str>,
    /// `RSA`, `P-256` or `Ed25519`.
    kind: &'static str,
    x5t: Option<&'a str>,
    not_after_utc: Option<String>,
    added_utc: String,
}

impl<'a> ClientKeyShape<'a> {
    /// The key, with the name of its kind.
    #[must_use]
    pub fn of(key: &'a ClientKey, kind: &'static str) -> Self {
        Self {
            id: &key.id,
            kid: key.kid.as_deref(),
            kind,
            x5t: key.x5t.as_deref(),
            not_after_utc: key.not_after.map(|time| time.to_string()),
            added_utc: key.added.to_string(),
        }
    }
}

/// A client as it is listed; the secret is only in the answer to its creation.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientShape<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<&'a str>,
    company_id: u32,
    name: &'a str,
    scopes: Vec<&'static str>,
    aud_policy: &'static str,
    has_secret: bool,
    keys: Vec<ClientKeyShape<'a>>,
    rates: RatesShape,
    expires_utc: Option<String>,
    networks: Vec<String>,
    type_prefixes: &'a [String],
    created_utc: String,
    revoked_utc: Option<String>,
    last_used_utc: Option<String>,
}

impl<'a> ClientShape<'a> {
    /// The client without its secret; `kind_of` names the kind of a key.
    #[must_use]
    pub fn of(client: &'a Client, kind_of: impl Fn(&ClientKey) -> &'static str) -> Self {
        let grant = &client.grant;
        Self {
            id: client.id.as_str(),
            secret: None,
            company_id: client.company.0,
            name: &grant.name,
            scopes: grant.scopes.iter().map(Scope::as_str).collect(),
            aud_policy: client.aud_policy.as_str(),
            has_secret: !client.secrets.is_empty(),
            keys: client.keys.iter().map(|key| ClientKeyShape::of(key, kind_of(key))).collect(),
            rates: RatesShape { read: grant.rates.read, write: grant.rates.write, admin: grant.rates.admin },
            expires_utc: grant.expires.map(|time| time.to_string()),
            networks: grant.networks.iter().map(ToString::to_string).collect(),
            type_prefixes: &grant.type_prefixes,
            created_utc: client.created.to_string(),
            revoked_utc: client.revoked.map(|time| time.to_string()),
            last_used_utc: client.last_used.map(|time| time.to_string()),
        }
    }

    /// The client with its secret, which is shown this once.
    #[must_use]
    pub fn with_secret(self, secret: Option<&'a str>) -> Self {
        Self { secret, ..self }
    }
}

/// Answer to `POST .../clients/{client}/rotate-secret`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RotatedSecretShape<'a> {
    /// The new secret.
    pub secret: &'a str,
    /// When the one before is refused; null when there was none.
    pub previous_expires_utc: Option<String>,
}
