//! `lutine key`: API keys.

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::failure::Failure;
use super::options::{checked, company_name, expiry, rate};
use super::output::{self, Format, Table, note};
use super::transport::{Connection, Request};
use crate::domain::event::EventType;
use crate::domain::key::KeyId;
use crate::domain::scope::Scope;

const PATH: &str = "/api/v1/admin/keys";

/// Commands about keys.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a key; its secret is shown this once
    Create(Create),
    /// List keys, without their secrets
    List(List),
    /// Revoke a key: it is refused from then on
    Revoke(Revoke),
}

/// Options of `lutine key create`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lutine key create --company acme --scope events:write --scope events:read
  lutine key create --company acme --scope events:write --type-prefix claim. --network 10.20.0.0/16
  lutine key create --company acme --scope events:read --rate read=600 --expires 2027-01-31
  lutine key create --scope admin --name deployment")]
pub struct Create {
    /// The company it acts for, by number or slug; without one it is a system key, which administers companies
    #[arg(long, value_name = "ID-OR-SLUG", value_parser = company_name)]
    company: Option<String>,
    /// What it may do (repeatable): events, events:read, events:write, subscriptions:read, subscriptions:write,
    /// deliveries:read, deliveries:replay, metrics:read, or admin for all of them
    #[arg(long = "scope", value_name = "SCOPE", required = true, value_parser = checked::<Scope>)]
    scopes: Vec<String>,
    /// A name for people
    #[arg(long)]
    name: Option<String>,
    /// Calls a minute in place of the configured ones (repeatable): read=N, write=N or admin=N, 0 for no limit
    #[arg(long = "rate", value_name = "BUCKET=N", value_parser = rate)]
    rates: Vec<(&'static str, u32)>,
    /// From when on it is refused: a day such as 2027-01-31 (its first moment, UTC) or an RFC 3339 date-time
    #[arg(long, value_name = "DATE", value_parser = expiry)]
    expires: Option<String>,
    /// A network that it may be used from (repeatable); any when there is none
    #[arg(long = "network", value_name = "CIDR", value_parser = network)]
    networks: Vec<String>,
    /// What the types that it publishes start with (repeatable); anything when there is none
    #[arg(long = "type-prefix", value_name = "PREFIX", value_parser = type_prefix)]
    type_prefixes: Vec<String>,
}

/// Options of `lutine key list`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lutine key list
  lutine key list --company acme --output json")]
pub struct List {
    /// Only keys of this company, by number or slug
    #[arg(long, value_name = "ID-OR-SLUG", value_parser = company_name)]
    company: Option<String>,
}

/// Options of `lutine key revoke`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  lutine key revoke abcDEF012345")]
pub struct Revoke {
    /// Its id, as `lutine key list` shows it: the part behind evk_..._, not the whole key
    #[arg(value_parser = checked::<KeyId>)]
    id: String,
}

/// A network or an address.
pub(super) fn network(text: &str) -> Result<String, String> {
    let is_network = text.parse::<ipnet::IpNet>().is_ok() || text.parse::<std::net::IpAddr>().is_ok();
    if is_network { Ok(text.to_owned()) } else { Err("it is a network such as 10.20.0.0/16 or 2001:db8::/32, or one address".to_owned()) }
}

/// What types may start with.
pub(super) fn type_prefix(text: &str) -> Result<String, String> {
    let is_prefix = text.parse::<EventType>().is_ok();
    let wrong = || "it is what types start with, such as claim. : letters, digits, '.', '_' and '-', without *".to_owned();
    if is_prefix { Ok(text.to_owned()) } else { Err(wrong()) }
}

/// A key as the API tells it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Key {
    id: String,
    /// The whole text; only in the answer to its creation.
    key: Option<String>,
    company_id: Option<u32>,
    name: String,
    scopes: Vec<String>,
    expires_utc: Option<String>,
    revoked_utc: Option<String>,
    last_used_utc: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Keys {
    keys: Vec<Key>,
}

impl Key {
    fn company(&self) -> String {
        self.company_id.map_or_else(|| "system".to_owned(), |id| id.to_string())
    }
}

impl Command {
    /// Does what the command says.
    pub async fn run(self, connection: &Connection, format: Format) -> Result<(), Failure> {
        match self {
            Self::Create(create) => create.run(connection, format).await,
            Self::List(list) => list.run(connection, format).await,
            Self::Revoke(revoke) => revoke.run(connection, format).await,
        }
    }
}

impl Create {
    fn body(self) -> Result<Value, Failure> {
        let mut rates = Map::new();
        for (bucket, number) in self.rates {
            if rates.insert(bucket.to_owned(), number.into()).is_some() {
                return Err(Failure::Usage(format!("--rate {bucket}=... was given twice")));
            }
        }
        let mut body = Map::new();
        body.extend(self.company.map(|company| ("company".to_owned(), company.into())));
        body.extend(self.name.map(|name| ("name".to_owned(), name.into())));
        body.insert("scopes".to_owned(), self.scopes.into());
        body.insert("rates".to_owned(), rates.into());
        body.extend(self.expires.map(|expires| ("expires".to_owned(), expires.into())));
        body.insert("networks".to_owned(), self.networks.into());
        body.insert("typePrefixes".to_owned(), self.type_prefixes.into());
        Ok(Value::Object(body))
    }

    async fn run(self, connection: &Connection, format: Format) -> Result<(), Failure> {
        let answer = connection.call(Request::post_json(PATH, &self.body()?)).await?.success()?;
        match format {
            Format::Json => output::line(&answer.json_line()?),
            Format::Table => {
                let key: Key = answer.json()?;
                let mut pairs = vec![("id", key.id.clone()), ("company", key.company()), ("scopes", key.scopes.join(", "))];
                pairs.extend(key.expires_utc.clone().map(|expires| ("expires", expires)));
                pairs.push(("key", key.key.unwrap_or_default()));
                Table::of_pairs(&pairs).print()?;
                note("note: the key is shown only now; Lutine keeps nothing that it could be read from");
                Ok(())
            }
        }
    }
}

impl List {
    async fn run(self, connection: &Connection, format: Format) -> Result<(), Failure> {
        let request = Request::get(PATH).query(&[("company", self.company.as_deref())]);
        let answer = connection.call(request).await?.success()?;
        match format {
            Format::Json => output::line(&answer.json_line()?),
            Format::Table => {
                let mut table = Table::new(&["ID", "COMPANY", "NAME", "SCOPES", "STATE", "LAST USED"]);
                for key in answer.json::<Keys>()?.keys {
                    let state = match (&key.revoked_utc, &key.expires_utc) {
                        (Some(revoked), _) => format!("revoked {revoked}"),
                        (None, Some(expires)) => format!("expires {expires}"),
                        (None, None) => "valid".to_owned(),
                    };
                    let last_used = key.last_used_utc.clone().unwrap_or_else(|| "never".to_owned());
                    let company = key.company();
                    table.push([key.id, company, key.name, key.scopes.join(","), state, last_used]);
                }
                table.print()
            }
        }
    }
}

impl Revoke {
    async fn run(self, connection: &Connection, format: Format) -> Result<(), Failure> {
        connection.call(Request::delete(&format!("{PATH}/{}", self.id))).await?.success()?;
        match format {
            Format::Json => output::line(&json!({"id": self.id, "revoked": true}).to_string()),
            Format::Table => output::line(&format!("key {} is revoked", self.id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create() -> Create {
        Create {
            company: Some("acme".to_owned()),
            scopes: vec!["events:read".to_owned()],
            name: None,
            rates: vec![("write", 600)],
            expires: None,
            networks: vec!["10.0.0.0/8".to_owned()],
            type_prefixes: Vec::new(),
        }
    }

    #[test]
    fn what_was_not_said_is_not_sent() {
        let expected =
            json!({"company": "acme", "scopes": ["events:read"], "rates": {"write": 600}, "networks": ["10.0.0.0/8"], "typePrefixes": []});
        assert_eq!(create().body().unwrap(), expected);
    }

    #[test]
    fn networks_and_prefixes_are_checked_before_anything_is_sent() {
        for text in ["10.20.0.0/16", "2001:db8::/32", "10.20.0.7"] {
            assert!(network(text).is_ok(), "{text}");
        }
        for text in ["", "10.20", "10.0.0.0/33", "localhost"] {
            assert!(network(text).unwrap_err().contains("10.20.0.0/16"), "{text}");
        }
        assert!(type_prefix("claim.").is_ok());
        assert!(type_prefix("claim.*").is_err());
    }

    #[test]
    fn a_bucket_has_one_rate() {
        let twice = Create { rates: vec![("write", 600), ("write", 0)], ..create() };
        assert!(matches!(twice.body(), Err(Failure::Usage(text)) if text.contains("write")));
    }
}
