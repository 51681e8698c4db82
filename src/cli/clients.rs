//! `lutine client`: OAuth clients, their secrets and their public keys.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::companies;
use super::failure::Failure;
use super::keys::{network, type_prefix};
use super::options::{checked, company_name, expiry, rate};
use super::output::{self, Format, Table, note};
use super::transport::{Connection, Request};
use crate::domain::client::{AudPolicy, ClientId, check_kid};
use crate::domain::scope::Scope;

/// Commands about clients.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a client; its secret, if it gets one, is shown this once
    Create(Box<Create>),
    /// List clients, without their secrets
    List(List),
    /// Change what a client may do
    Change(Change),
    /// Revoke a client: it gets no tokens any more, and those it has are refused from then on
    Revoke(Named),
    /// Give a client a new secret; the one before is accepted for another day
    RotateSecret(Named),
    /// Add a public key to a client, which then may sign assertions with its private key
    AddKey(AddKey),
    /// Remove a public key of a client
    RemoveKey(RemoveKey),
}

/// Whose client it is.
#[derive(Debug, Args)]
pub struct Company {
    /// Its company, by number or slug; not needed when there is only one
    #[arg(long, value_name = "ID-OR-SLUG", value_parser = company_name)]
    company: Option<String>,
}

/// Options of `lutine client create`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lutine client create --company acme --scope events:write --name 'claims core'
  lutine client create --company acme --scope events --public-key partner.pem --aud-policy token_endpoint
  lutine client create --company acme --scope events:read --id acme-portal --expires 2027-01-31")]
pub struct Create {
    #[command(flatten)]
    company: Company,
    /// Its id, such as the one that it had elsewhere: 1 to 64 characters of A-Z, a-z, 0-9, - . _ [default: drawn]
    #[arg(long, value_parser = checked::<ClientId>)]
    id: Option<String>,
    /// What its tokens may allow (repeatable): events, events:read, events:write, subscriptions:read, subscriptions:write,
    /// deliveries:read, deliveries:replay, metrics:read, or admin for all of them
    #[arg(long = "scope", value_name = "SCOPE", required = true, value_parser = checked::<Scope>)]
    scopes: Vec<String>,
    /// A name for people
    #[arg(long)]
    name: Option<String>,
    /// A file with a public key or a certificate of the client (repeatable): PEM, or the base64 of DER
    #[arg(long = "public-key", value_name = "FILE")]
    public_keys: Vec<PathBuf>,
    /// Give it a secret too, although it has a public key
    #[arg(long)]
    with_secret: bool,
    /// What its assertions may name as their audience: issuer, or token_endpoint for the token URL too, as older libraries do
    #[arg(long, value_name = "POLICY", value_parser = checked::<AudPolicy>)]
    aud_policy: Option<String>,
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

/// Options of `lutine client list`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lutine client list
  lutine client list --company acme --output json")]
pub struct List {
    #[command(flatten)]
    company: Company,
}

/// Options of `lutine client change`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lutine client change acme-portal --aud-policy issuer
  lutine client change acme-portal --company acme --scope events:read --expires never")]
pub struct Change {
    /// Its id
    #[arg(value_parser = checked::<ClientId>)]
    id: String,
    #[command(flatten)]
    company: Company,
    /// A name for people
    #[arg(long)]
    name: Option<String>,
    /// What its tokens may allow (repeatable), in place of what they might; live tokens lose what is left out
    #[arg(long = "scope", value_name = "SCOPE", value_parser = checked::<Scope>)]
    scopes: Vec<String>,
    /// What its assertions may name as their audience: issuer or token_endpoint
    #[arg(long, value_name = "POLICY", value_parser = checked::<AudPolicy>)]
    aud_policy: Option<String>,
    /// From when on it is refused: a day, an RFC 3339 date-time, or never
    #[arg(long, value_name = "DATE", value_parser = expiry_or_never)]
    expires: Option<String>,
}

/// Options of commands about one client.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  lutine client revoke acme-portal --company acme")]
pub struct Named {
    /// Its id, as `lutine client list` shows it
    #[arg(value_parser = checked::<ClientId>)]
    id: String,
    #[command(flatten)]
    company: Company,
}

/// Options of `lutine client add-key`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lutine client add-key acme-portal --public-key new.pem
  lutine client add-key acme-portal --public-key new.pem --kid 2027-01")]
pub struct AddKey {
    /// Its id
    #[arg(value_parser = checked::<ClientId>)]
    id: String,
    #[command(flatten)]
    company: Company,
    /// A file with a public key or a certificate: PEM, or the base64 of DER
    #[arg(long, value_name = "FILE")]
    public_key: PathBuf,
    /// The name that the client calls it by; the thumbprints of a certificate are known anyway
    #[arg(long, value_parser = kid)]
    kid: Option<String>,
}

/// Options of `lutine client remove-key`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  lutine client remove-key acme-portal 47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU")]
pub struct RemoveKey {
    /// Its id
    #[arg(value_parser = checked::<ClientId>)]
    id: String,
    /// The id of the key, as `lutine client list --output json` shows it
    #[arg(value_parser = key_id)]
    key: String,
    #[command(flatten)]
    company: Company,
}

fn kid(text: &str) -> Result<String, &'static str> {
    check_kid(text).map(|()| text.to_owned())
}

fn key_id(text: &str) -> Result<String, &'static str> {
    let is_id = text.len() == 43 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if is_id { Ok(text.to_owned()) } else { Err("the id of a key is 43 characters of A-Z, a-z, 0-9, - and _") }
}

fn expiry_or_never(text: &str) -> Result<String, String> {
    if text == "never" { Ok(text.to_owned()) } else { expiry(text) }
}

/// A client as the API tells it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Client {
    id: String,
    /// Only in the answer to its creation.
    secret: Option<String>,
    company_id: u32,
    name: String,
    scopes: Vec<String>,
    aud_policy: String,
    has_secret: bool,
    keys: Vec<Key>,
    expires_utc: Option<String>,
    revoked_utc: Option<String>,
    last_used_utc: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Key {
    id: String,
    kind: String,
}

#[derive(Debug, Deserialize)]
struct Clients {
    clients: Vec<Client>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rotated {
    secret: String,
    previous_expires_utc: Option<String>,
}

impl Client {
    fn state(&self) -> String {
        match (&self.revoked_utc, &self.expires_utc) {
            (Some(revoked), _) => format!("revoked {revoked}"),
            (None, Some(expires)) => format!("expires {expires}"),
            (None, None) => "valid".to_owned(),
        }
    }

    /// How it shows who it is.
    fn credentials(&self) -> String {
        let secret = self.has_secret.then(|| "secret".to_owned());
        let keys = self.keys.iter().map(|key| format!("{} {}", key.kind, key.id));
        secret.into_iter().chain(keys).collect::<Vec<_>>().join(", ")
    }

    fn print(self) -> Result<(), Failure> {
        let mut pairs = vec![
            ("id", self.id.clone()),
            ("company", self.company_id.to_string()),
            ("name", self.name.clone()),
            ("scopes", self.scopes.join(", ")),
            ("credentials", self.credentials()),
            ("aud policy", self.aud_policy.clone()),
            ("state", self.state()),
        ];
        let is_fresh = self.secret.is_some();
        pairs.extend(self.secret.map(|secret| ("secret", secret)));
        Table::of_pairs(&pairs).print()?;
        if is_fresh {
            note("note: the secret is shown only now; Lutine keeps nothing that it could be read from");
        }
        Ok(())
    }
}

/// The text of a key in a file; that it is one is the daemon's to say.
fn read_key(path: &PathBuf) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| Failure::caused(&format!("the public key {} cannot be read", path.display()), &error))
}

impl Company {
    async fn path(&self, connection: &Connection) -> Result<String, Failure> {
        let company = match &self.company {
            Some(company) => company.clone(),
            None => companies::only(connection).await?,
        };
        Ok(format!("/api/v1/admin/companies/{company}/clients"))
    }
}

impl Command {
    /// Does what the command says.
    pub async fn run(self, connection: &Connection, format: Format) -> Result<(), Failure> {
        match self {
            Self::Create(create) => create.run(connection, format).await,
            Self::List(list) => list.run(connection, format).await,
            Self::Change(change) => change.run(connection, format).await,
            Self::Revoke(named) => named.revoke(connection, format).await,
            Self::RotateSecret(named) => named.rotate_secret(connection, format).await,
            Self::AddKey(add) => add.run(connection, format).await,
            Self::RemoveKey(remove) => remove.run(connection, format).await,
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
        let has_key = !self.public_keys.is_empty();
        let keys = self.public_keys.iter().map(|path| Ok(json!({"publicKey": read_key(path)?}))).collect::<Result<Vec<_>, Failure>>()?;
        let mut body = Map::new();
        body.extend(self.id.map(|id| ("id".to_owned(), id.into())));
        body.extend(self.name.map(|name| ("name".to_owned(), name.into())));
        body.insert("scopes".to_owned(), self.scopes.into());
        body.extend(self.aud_policy.map(|policy| ("audPolicy".to_owned(), policy.into())));
        body.insert("secret".to_owned(), (self.with_secret || !has_key).into());
        body.insert("keys".to_owned(), keys.into());
        body.insert("rates".to_owned(), rates.into());
        body.extend(self.expires.map(|expires| ("expires".to_owned(), expires.into())));
        body.insert("networks".to_owned(), self.networks.into());
        body.insert("typePrefixes".to_owned(), self.type_prefixes.into());
        Ok(Value::Object(body))
    }

    async fn run(self, connection: &Connection, format: Format) -> Result<(), Failure> {
        let path = self.company.path(connection).await?;
        let answer = connection.call(Request::post_json(&path, &self.body()?)).await?.success()?;
        match format {
            Format::Json => output::line(&answer.json_line()?),
            Format::Table => answer.json::<Client>()?.print(),
        }
    }
}

impl List {
    async fn run(self, connection: &Connection, format: Format) -> Result<(), Failure> {
        let path = self.company.path(connection).await?;
        let answer = connection.call(Request::get(&path)).await?.success()?;
        match format {
            Format::Json => output::line(&answer.json_line()?),
            Format::Table => {
                let mut table = Table::new(&["ID", "NAME", "SCOPES", "CREDENTIALS", "AUD POLICY", "STATE", "LAST TOKEN"]);
                for client in answer.json::<Clients>()?.clients {
                    let (state, keys) = (client.state(), client.keys.len());
                    let credentials = match (client.has_secret, keys) {
                        (true, 0) => "secret".to_owned(),
                        (true, keys) => format!("secret, {keys} keys"),
                        (false, 1) => "1 key".to_owned(),
                        (false, keys) => format!("{keys} keys"),
                    };
                    let last_used = client.last_used_utc.unwrap_or_else(|| "never".to_owned());
                    table.push([client.id, client.name, client.scopes.join(","), credentials, client.aud_policy, state, last_used]);
                }
                table.print()
            }
        }
    }
}

impl Change {
    fn body(&self) -> Result<Value, Failure> {
        let mut body = Map::new();
        body.extend(self.name.clone().map(|name| ("name".to_owned(), name.into())));
        if !self.scopes.is_empty() {
            body.insert("scopes".to_owned(), self.scopes.clone().into());
        }
        body.extend(self.aud_policy.clone().map(|policy| ("audPolicy".to_owned(), policy.into())));
        let expires = self.expires.as_deref().map(|expires| if expires == "never" { Value::Null } else { expires.into() });
        body.extend(expires.map(|expires| ("expires".to_owned(), expires)));
        if body.is_empty() {
            return Err(Failure::Usage("say what is to change: --name, --scope, --aud-policy or --expires".to_owned()));
        }
        Ok(Value::Object(body))
    }

    async fn run(self, connection: &Connection, format: Format) -> Result<(), Failure> {
        let body = self.body()?;
        let path = format!("{}/{}", self.company.path(connection).await?, self.id);
        let answer = connection.call(Request::patch_json(&path, &body)).await?.success()?;
        match format {
            Format::Json => output::line(&answer.json_line()?),
            Format::Table => answer.json::<Client>()?.print(),
        }
    }
}

impl Named {
    async fn revoke(self, connection: &Connection, format: Format) -> Result<(), Failure> {
        let path = format!("{}/{}", self.company.path(connection).await?, self.id);
        connection.call(Request::delete(&path)).await?.success()?;
        match format {
            Format::Json => output::line(&json!({"id": self.id, "revoked": true}).to_string()),
            Format::Table => output::line(&format!("client {} is revoked", self.id)),
        }
    }

    async fn rotate_secret(self, connection: &Connection, format: Format) -> Result<(), Failure> {
        let path = format!("{}/{}/rotate-secret", self.company.path(connection).await?, self.id);
        let answer = connection.call(Request::act(&path)).await?.success()?;
        match format {
            Format::Json => output::line(&answer.json_line()?),
            Format::Table => {
                let rotated: Rotated = answer.json()?;
                let mut pairs = vec![("id", self.id), ("secret", rotated.secret)];
                pairs.extend(rotated.previous_expires_utc.map(|ends| ("previous until", ends)));
                Table::of_pairs(&pairs).print()?;
                note("note: the secret is shown only now; Lutine keeps nothing that it could be read from");
                Ok(())
            }
        }
    }
}

impl AddKey {
    async fn run(self, connection: &Connection, format: Format) -> Result<(), Failure> {
        let mut body = Map::new();
        body.insert("publicKey".to_owned(), read_key(&self.public_key)?.into());
        body.extend(self.kid.map(|kid| ("kid".to_owned(), kid.into())));
        let path = format!("{}/{}/keys", self.company.path(connection).await?, self.id);
        let answer = connection.call(Request::post_json(&path, &Value::Object(body))).await?.success()?;
        match format {
            Format::Json => output::line(&answer.json_line()?),
            Format::Table => {
                let key: Key = answer.json()?;
                output::line(&format!("client {} has the {} key {}", self.id, key.kind, key.id))
            }
        }
    }
}

impl RemoveKey {
    async fn run(self, connection: &Connection, format: Format) -> Result<(), Failure> {
        let path = format!("{}/{}/keys/{}", self.company.path(connection).await?, self.id, self.key);
        connection.call(Request::delete(&path)).await?.success()?;
        match format {
            Format::Json => output::line(&json!({"id": self.id, "key": self.key, "removed": true}).to_string()),
            Format::Table => output::line(&format!("the key {} of client {} is removed", self.key, self.id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create() -> Create {
        Create {
            company: Company { company: Some("acme".to_owned()) },
            id: None,
            scopes: vec!["events:read".to_owned()],
            name: None,
            public_keys: Vec::new(),
            with_secret: false,
            aud_policy: None,
            rates: Vec::new(),
            expires: None,
            networks: Vec::new(),
            type_prefixes: Vec::new(),
        }
    }

    #[test]
    fn a_client_without_a_key_gets_a_secret() {
        let expected = json!({"scopes": ["events:read"], "secret": true, "keys": [], "rates": {}, "networks": [], "typePrefixes": []});
        assert_eq!(create().body().unwrap(), expected);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        std::fs::write(&path, "PEM").unwrap();
        let with_key = Create { public_keys: vec![path.clone()], ..create() }.body().unwrap();
        assert_eq!((&with_key["secret"], &with_key["keys"]), (&json!(false), &json!([{"publicKey": "PEM"}])));
        let with_both = Create { public_keys: vec![path], with_secret: true, ..create() }.body().unwrap();
        assert_eq!(with_both["secret"], true);
        let missing = Create { public_keys: vec![folder.path().join("none.pem")], ..create() };
        assert!(missing.body().is_err());
    }

    #[test]
    fn a_change_says_what_changes_and_never_is_null() {
        let change = Change {
            id: "a".to_owned(),
            company: Company { company: None },
            name: None,
            scopes: Vec::new(),
            aud_policy: None,
            expires: Some("never".to_owned()),
        };
        assert_eq!(change.body().unwrap(), json!({"expires": null}));
        assert!(matches!(Change { expires: None, ..change }.body(), Err(Failure::Usage(text)) if text.contains("--aud-policy")));
    }

    #[test]
    fn a_key_is_named_by_its_whole_id() {
        assert!(key_id("47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU").is_ok());
        assert!(key_id("47DEQpj8").is_err() && key_id(&"/".repeat(43)).is_err());
    }
}
