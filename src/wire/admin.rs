//! Requests and answers of the administration.

use serde::{Deserialize, Serialize};

use crate::domain::company::Company;
use crate::domain::key::{ApiKey, RateOverrides};

/// Body of `POST /api/v1/admin/companies`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewCompanyBody {
    /// See [`crate::domain::company::Slug`].
    pub slug: String,
    /// Two letters.
    pub country: Option<String>,
    /// The name for people.
    pub name: Option<String>,
}

/// A company as it is listed.
#[derive(Debug, Serialize)]
pub struct CompanyShape {
    id: u32,
    slug: String,
    country: Option<String>,
    name: String,
    #[serde(rename = "createdUtc")]
    created: String,
}

impl From<&Company> for CompanyShape {
    fn from(company: &Company) -> Self {
        Self {
            id: company.id.0,
            slug: company.slug.as_str().to_owned(),
            country: company.country.as_ref().map(|country| country.as_str().to_owned()),
            name: company.name.clone(),
            created: company.created.to_string(),
        }
    }
}

/// A company named by its number or its slug.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum CompanyName {
    /// Its number.
    Id(u32),
    /// Its slug, or its number as text.
    Text(String),
}

impl std::fmt::Display for CompanyName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => id.fmt(formatter),
            Self::Text(text) => text.fmt(formatter),
        }
    }
}

/// Calls per minute and bucket; 0 = unlimited, absent = as configured.
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RatesShape {
    /// Reading.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read: Option<u32>,
    /// Publishing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write: Option<u32>,
    /// Administration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<u32>,
}

impl From<RatesShape> for RateOverrides {
    fn from(shape: RatesShape) -> Self {
        Self { read: shape.read, write: shape.write, admin: shape.admin }
    }
}

/// Body of `POST /api/v1/admin/keys`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NewKeyBody {
    /// The company it acts for; absent: the caller's, for a system caller a system key.
    pub company: Option<CompanyName>,
    /// A name for people.
    pub name: Option<String>,
    /// What it may do.
    pub scopes: Vec<String>,
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

/// A key as it is listed; the secret is only in the answer to its creation.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyShape<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    company_id: Option<u32>,
    name: &'a str,
    scopes: Vec<&'static str>,
    rates: RatesShape,
    expires_utc: Option<String>,
    networks: Vec<String>,
    type_prefixes: &'a [String],
    created_utc: String,
    revoked_utc: Option<String>,
    last_used_utc: Option<String>,
}

impl<'a> KeyShape<'a> {
    /// The key without its text.
    #[must_use]
    pub fn of(key: &'a ApiKey) -> Self {
        let grant = &key.grant;
        Self {
            id: key.id.as_str(),
            key: None,
            company_id: grant.company.map(|company| company.0),
            name: &grant.name,
            scopes: grant.scopes.iter().map(crate::domain::scope::Scope::as_str).collect(),
            rates: RatesShape { read: grant.rates.read, write: grant.rates.write, admin: grant.rates.admin },
            expires_utc: grant.expires.map(|time| time.to_string()),
            networks: grant.networks.iter().map(ToString::to_string).collect(),
            type_prefixes: &grant.type_prefixes,
            created_utc: key.created.to_string(),
            revoked_utc: key.revoked.map(|time| time.to_string()),
            last_used_utc: key.last_used.map(|time| time.to_string()),
        }
    }

    /// The key with its text, which is shown this once.
    #[must_use]
    pub fn fresh(key: &'a ApiKey, text: &'a str) -> Self {
        Self { key: Some(text), ..Self::of(key) }
    }
}

/// One setting in force.
#[derive(Debug, Serialize)]
pub struct SettingShape {
    /// Its path, such as `server.listen`.
    pub key: &'static str,
    /// Its value as TOML.
    pub value: String,
    /// `default`, a file with its line, a variable, or an option.
    pub source: String,
}

/// One act of the audit log.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditShape {
    /// Counted from 1.
    pub number: u64,
    /// When.
    pub at_utc: String,
    /// Who.
    pub actor: String,
    /// The request it came with.
    pub request_id: Option<String>,
    /// What, such as `key.create`.
    pub act: String,
    /// To what, such as `key:abc`.
    pub object: String,
    /// More of it.
    pub detail: String,
}

/// How the daemon stands.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusShape {
    /// The program's version.
    pub version: &'static str,
    /// The environment it runs in.
    pub environment: &'static str,
    /// Id of the newest event; 0 when there is none.
    pub last_event_id: u64,
    /// When it was created.
    pub last_event_utc: Option<String>,
    /// Files that are sealed.
    pub segments_sealed: usize,
    /// Files that wait to be sealed.
    pub segments_waiting: usize,
    /// Bytes on disk, log and ledger.
    pub disk_bytes: u64,
    /// Events that wait for their commit.
    pub queue_events: usize,
    /// Bytes that wait for their commit.
    pub queue_bytes: usize,
    /// Whether the machine's clock is not believed.
    pub clock_in_doubt: bool,
    /// How long the last sealing took, in milliseconds.
    pub last_seal_ms: Option<u64>,
    /// How long events are kept, in seconds.
    pub retention_seconds: u64,
}

/// What a verification found.
#[derive(Debug, Serialize)]
pub struct VerifyShape {
    /// Whether nothing is wrong.
    pub ok: bool,
    /// Segments looked at.
    pub segments: u64,
    /// Chunks whose checksum was computed.
    pub chunks: u64,
    /// Snapshots whose checksum was computed.
    pub snapshots: u64,
    /// Events read.
    pub events: u64,
    /// What is wrong.
    pub faults: Vec<String>,
}
