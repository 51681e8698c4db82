//! What the authorization server says (RFC 6749, RFC 7517, RFC 8414).

use serde::{Deserialize, Serialize};

/// Answer of a token endpoint (RFC 6749, 5.1).
#[derive(Debug, Serialize)]
pub struct TokenShape<'a> {
    /// The token.
    pub access_token: &'a str,
    /// Always `Bearer`.
    pub token_type: &'static str,
    /// Seconds.
    pub expires_in: u64,
    /// What it allows.
    pub scope: String,
}

/// Answer of `/api/auth/v2/token`.
#[derive(Debug, Serialize)]
pub struct AccessKeyTokenShape<'a> {
    /// The token.
    pub access_token: &'a str,
    /// Seconds.
    pub expires_in: u64,
}

/// Body of `/api/auth/v2/token`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessKeyBody {
    /// The client's id.
    pub access_key: String,
    /// Its secret.
    pub secret_key: String,
}

/// A refusal (RFC 6749, 5.2).
#[derive(Debug, Serialize)]
pub struct OAuthErrorShape<'a> {
    /// The code.
    pub error: &'a str,
    /// A sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_description: Option<&'a str>,
}

/// What the server can do (RFC 8414, 2).
#[derive(Debug, Serialize)]
pub struct MetadataShape<'a> {
    /// Its name in tokens.
    pub issuer: &'a str,
    /// Where tokens are fetched.
    pub token_endpoint: String,
    /// Where its public keys are.
    pub jwks_uri: String,
    /// The scopes there are.
    pub scopes_supported: Vec<&'static str>,
    /// None: there is no authorization endpoint.
    pub response_types_supported: [&'static str; 0],
    /// What a token may be asked for with.
    pub grant_types_supported: [&'static str; 1],
    /// How clients show who they are.
    pub token_endpoint_auth_methods_supported: [&'static str; 3],
    /// What assertions may be signed with.
    pub token_endpoint_auth_signing_alg_values_supported: [&'static str; 4],
}

/// A public key that verifies tokens (RFC 7517; RFC 8037, 2).
#[derive(Debug, Serialize)]
pub struct JwkShape<'a> {
    kty: &'static str,
    crv: &'static str,
    #[serde(rename = "use")]
    usage: &'static str,
    alg: &'static str,
    kid: &'a str,
    x: &'a str,
}

impl<'a> JwkShape<'a> {
    /// An Ed25519 key.
    #[must_use]
    pub fn ed25519(kid: &'a str, x: &'a str) -> Self {
        Self { kty: "OKP", crv: "Ed25519", usage: "sig", alg: "EdDSA", kid, x }
    }
}
