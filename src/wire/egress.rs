//! What the egress policy does with a URL, as it is asked for and told.

use serde::{Deserialize, Serialize};

/// Body of `POST /api/v1/admin/egress/check`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EgressCheckBody {
    /// The URL.
    pub url: String,
    /// Whether to connect as well.
    #[serde(default)]
    pub connect: bool,
}

/// One address.
#[derive(Debug, Serialize)]
pub struct AddressShape {
    /// The address.
    pub address: String,
    /// Whether it may be sent to.
    pub allowed: bool,
    /// The rule that says so.
    pub rule: String,
}

/// A connection that was tried.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionShape {
    /// Whether it stood, with TLS agreed on.
    pub ok: bool,
    /// Where it led; absent when a proxy did not tell.
    pub address: Option<String>,
    /// The version of TLS.
    pub tls: Option<&'static str>,
    /// When the certificate expires.
    pub certificate_expires_utc: Option<String>,
    /// As in deliveries.
    pub error_class: Option<&'static str>,
    /// A sentence about what went wrong.
    pub error: Option<String>,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct EgressShape {
    /// The URL that was asked about.
    pub url: String,
    /// Whether webhooks and token calls would be sent there.
    pub allowed: bool,
    /// Why not.
    pub refusal: Option<String>,
    /// `direct` or `proxy`.
    pub way: Option<&'static str>,
    /// The proxy.
    pub proxy: Option<String>,
    /// The entry of `egress.proxy_bypass` that leads past it.
    pub bypass: Option<String>,
    /// Every address of the host; empty when only the proxy resolves it.
    pub addresses: Vec<AddressShape>,
    /// Only when one was asked for and allowed.
    pub connection: Option<ConnectionShape>,
}
