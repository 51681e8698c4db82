//! `[[oauth.external_issuers]]`: who else issues access tokens that are taken here.

use std::path::PathBuf;

use serde::Deserialize;

use crate::domain::nearest::nearest;
use crate::domain::scope::Scope;

/// One entry of `oauth.external_issuers`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ExternalIssuer {
    /// Its name, as its tokens have it in `iss`.
    pub issuer: String,
    /// What `aud` must name; empty = the daemon's own issuer.
    #[serde(default)]
    pub audience: String,
    /// The file with its public keys, a JWK Set; empty when they are fetched.
    #[serde(default)]
    pub jwks_file: PathBuf,
    /// Where its public keys are fetched; empty when they are in a file.
    #[serde(default)]
    pub jwks_url: String,
    /// The company of all its tokens, by slug or number; empty when a claim names it.
    #[serde(default)]
    pub company: String,
    /// The claim that names the company; empty when it is always the same.
    #[serde(default)]
    pub company_claim: String,
    /// The claim with its scopes: a text with spaces, or a list.
    #[serde(default = "scope_claim")]
    pub scope_claim: String,
    /// The most that its tokens allow; empty = everything but `admin`.
    #[serde(default)]
    pub scopes: Vec<String>,
}

fn scope_claim() -> String {
    "scope".to_owned()
}

/// Members of an entry that are texts.
const TEXTS: [&str; 7] = ["issuer", "audience", "jwks_file", "jwks_url", "company", "company_claim", "scope_claim"];

/// What is wrong with a list of issuers, if anything is.
pub(super) fn refuse(value: &toml_edit::Value) -> Option<String> {
    let Some(entries) = value.as_array() else {
        return Some("must be a list of tables: write [[oauth.external_issuers]] with the members of each below".to_owned());
    };
    let mut names = Vec::new();
    for (place, entry) in entries.iter().enumerate() {
        let number = place + 1;
        let Some(entry) = entry.as_inline_table() else { return Some(format!("entry {number} is not a table")) };
        if let Some(reason) = refuse_entry(entry) {
            return Some(format!("entry {number}: {reason}"));
        }
        let name = entry.get("issuer").and_then(toml_edit::Value::as_str).unwrap_or_default();
        if names.contains(&name) {
            return Some(format!("entry {number}: there is another one for the issuer \"{name}\""));
        }
        names.push(name);
    }
    None
}

fn refuse_entry(entry: &toml_edit::InlineTable) -> Option<String> {
    for (name, value) in entry {
        match name {
            "scopes" => {
                let scopes = value.as_array().map(|scopes| scopes.iter().map(|scope| scope.as_str().unwrap_or_default()));
                let Some(mut scopes) = scopes else { return Some("scopes must be a list such as [\"events:read\"]".to_owned()) };
                if let Some(error) = scopes.find_map(|scope| scope.parse::<Scope>().err()) {
                    return Some(format!("scopes: {error}"));
                }
            }
            name if TEXTS.contains(&name) => {
                if value.as_str().is_none() {
                    return Some(format!("{name} must be a text in quotes"));
                }
            }
            name => {
                let hint = nearest(name, TEXTS.into_iter().chain(["scopes"]));
                let hint = hint.map(|name| format!("; did you mean {name}?")).unwrap_or_default();
                return Some(format!("there is no member {name}{hint}"));
            }
        }
    }
    let has = |name: &str| entry.get(name).and_then(toml_edit::Value::as_str).is_some_and(|text| !text.is_empty());
    if !has("issuer") || has("jwks_file") == has("jwks_url") {
        return Some("needs issuer, and either jwks_file or jwks_url".to_owned());
    }
    if has("company") == has("company_claim") {
        return Some("needs either company or company_claim".to_owned());
    }
    if entry.contains_key("scope_claim") && !has("scope_claim") {
        return Some("scope_claim names a claim".to_owned());
    }
    None
}
