//! `lutine subscription create`.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{ArgGroup, Args};
use serde_json::{Map, Value, json};

use super::companies;
use super::failure::Failure;
use super::options::{CompanyOption, type_list};
use super::output::{self, Format, note};
use super::subscriptions::{PATH, Subscription};
use super::transport::{Connection, Request};

/// Options of `lutine subscription create`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("auth"), after_help = "\
Here --url is the receiver's. Over the network LUTINE_URL and LUTINE_API_KEY name daemon and key.

Profiles: standard (Standard Webhooks), envelope (the event as it is read), signed-envelope (signed inside
the body), cloudevents (CloudEvents 1.0.2), reference (what has changed, without the payload), bridge (the
payload as it is). cloudevents and bridge want to know how to authorize: --bearer, --basic, the --oauth2-...
options, or --no-auth.

Overrides: body, contentType, signature, signatureHeader, successCodes, lenientSuccess,
retryScheduleSeconds, timeoutSeconds, handshake, cloudEventsSource, cloudEventsTypePrefix, payloadAs,
keepResponse, onExhausted, caBundle, clientCertificate, clientKey.

Examples:
  lutine subscription create --url https://partner.example/hooks
  lutine subscription create --url https://partner.example/hooks --types 'claim.*,policy.bound'
  lutine subscription create --url https://partner.example/hooks --profile envelope
  lutine subscription create --url https://partner.example/hooks --override timeoutSeconds=5 \\
    --override 'retryScheduleSeconds=[5,60,600]'
  lutine subscription create --url https://partner.example/hooks --profile cloudevents --no-auth \\
    --override handshake=options
  lutine subscription create --url https://partner.example/hooks --profile bridge --override caBundle=@ca.pem \\
    --oauth2-token-url https://id.partner.example/token --oauth2-client-id lutine --oauth2-client-secret ...
  lutine subscription create --url http://localhost:8081/ --name 'my sink' --start-from oldest")]
pub struct Create {
    /// Where to: https, or http where egress.allow_http allows it
    // It has the id of the option that names the daemon with every other command, and so takes its place.
    #[arg(id = "url", long = "url", value_name = "URL", required = true)]
    url: String,
    /// Only these types, separated by commas: claim.created, claim.* or claim.created@2 [default: all]
    #[arg(long, value_parser = types_or_all)]
    types: Option<String>,
    /// How webhooks look: standard, envelope, signed-envelope, cloudevents, reference or bridge
    #[arg(long, value_name = "PROFILE", default_value = "standard")]
    profile: String,
    /// A name for people [default: the URL]
    #[arg(long)]
    name: Option<String>,
    /// Several at a time, or one after the other in the order of the log, all or those with one key [default: parallel]
    #[arg(long, value_name = "parallel|strict|key")]
    ordering: Option<String>,
    /// Where in the payload that key stands: a JSON pointer such as /claim/id
    #[arg(long, value_name = "POINTER")]
    ordering_key: Option<String>,
    /// Attempts that may be under way at once [default: as configured]
    #[arg(long, value_name = "N")]
    max_in_flight: Option<u16>,
    /// Attempts a minute, 0 for no limit [default: 0]
    #[arg(long, value_name = "N")]
    rate_per_minute: Option<u32>,
    /// A change of the profile (repeatable); the value is JSON or else text, or @ and the name of a file with the text
    #[arg(long = "override", value_name = "MEMBER=VALUE", value_parser = str::parse::<Member>)]
    overrides: Vec<Member>,
    /// A header that every webhook carries (repeatable)
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Send `Authorization: Bearer` with this token
    #[arg(long, value_name = "TOKEN", group = "auth")]
    bearer: Option<String>,
    /// Send `Authorization: Basic` with this name and password
    #[arg(long, value_name = "NAME:PASSWORD", group = "auth", value_parser = name_and_password)]
    basic: Option<(String, String)>,
    /// Send no authorization, and mean it
    #[arg(long, group = "auth")]
    no_auth: bool,
    #[command(flatten)]
    oauth2: OAuth2Options,
    /// Which event is the first: the next one (tail), the oldest that is kept, or the one behind a cursor [default: tail]
    #[arg(long, value_name = "tail|oldest|CURSOR")]
    start_from: Option<String>,
    #[command(flatten)]
    company: CompanyOption,
}

/// How access tokens for the receiver are fetched.
#[derive(Debug, Args)]
struct OAuth2Options {
    /// Send `Authorization: Bearer` with access tokens from here
    #[arg(long, value_name = "URL", group = "auth", requires = "oauth2_client_id")]
    oauth2_token_url: Option<String>,
    /// The client's name at the token service
    #[arg(long, value_name = "ID", requires = "oauth2_token_url")]
    oauth2_client_id: Option<String>,
    /// The client's secret
    #[arg(long, value_name = "SECRET", requires = "oauth2_token_url", conflicts_with = "oauth2_private_key")]
    oauth2_client_secret: Option<String>,
    /// A file with the client's private key (PEM)
    #[arg(long, value_name = "FILE", requires = "oauth2_token_url")]
    oauth2_private_key: Option<PathBuf>,
    /// How the client proves who it is [default: client_secret_basic, with a private key private_key_jwt]
    #[arg(long, value_name = "client_secret_basic|client_secret_post|private_key_jwt", requires = "oauth2_token_url")]
    oauth2_method: Option<String>,
    /// What access is asked for
    #[arg(long, value_name = "SCOPE", requires = "oauth2_token_url")]
    oauth2_scope: Option<String>,
    /// For whom the tokens are, where the token service wants that
    #[arg(long, value_name = "AUDIENCE", requires = "oauth2_token_url")]
    oauth2_audience: Option<String>,
}

impl OAuth2Options {
    fn auth(self) -> Result<Option<Value>, Failure> {
        let Some(token_url) = self.oauth2_token_url else { return Ok(None) };
        let key = self.oauth2_private_key.map(|file| read_file(&file)).transpose()?;
        let mut auth = Map::from_iter([("kind".to_owned(), "oauth2_client_credentials".into()), ("tokenUrl".to_owned(), token_url.into())]);
        let members = [
            ("clientId", self.oauth2_client_id),
            ("clientSecret", self.oauth2_client_secret),
            ("privateKey", key),
            ("method", self.oauth2_method),
            ("scope", self.oauth2_scope),
            ("audience", self.oauth2_audience),
        ];
        auth.extend(members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into()))));
        Ok(Some(auth.into()))
    }
}

fn read_file(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| Failure::caused(&format!("{} cannot be read", path.display()), &error))
}

/// One `member=value`.
#[derive(Debug, Clone, PartialEq)]
struct Member {
    name: String,
    value: Value,
}

impl FromStr for Member {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once('=').ok_or("it is a member, = and a value, such as timeoutSeconds=10")?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        Ok(Self { name: name.trim().to_owned(), value })
    }
}

fn types_or_all(text: &str) -> Result<String, String> {
    if text == "*" { Ok(text.to_owned()) } else { type_list(text).map_err(|error| error.to_string()) }
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("it is a name, a colon and a value, such as 'X-Partner: 7'")?;
    let (name, value) = (name.trim(), value.trim());
    crate::webhook::check_header(name, value).map_err(|error| error.to_string())?;
    Ok((name.to_owned(), value.to_owned()))
}

fn name_and_password(text: &str) -> Result<(String, String), &'static str> {
    let (name, password) = text.split_once(':').ok_or("it is a name, a colon and a password")?;
    Ok((name.to_owned(), password.to_owned()))
}

impl Create {
    fn body(self) -> Result<Value, Failure> {
        let mut overrides = Map::new();
        for Member { name, value } in self.overrides {
            let file = value.as_str().and_then(|text| text.strip_prefix('@'));
            let value = file.map(|file| read_file(Path::new(file)).map(Value::from)).transpose()?.unwrap_or(value);
            if overrides.insert(name.clone(), value).is_some() {
                return Err(Failure::Usage(format!("--override {name}=... was given twice")));
            }
        }
        let mut headers = Map::new();
        for (name, value) in self.headers {
            if headers.keys().any(|known| known.eq_ignore_ascii_case(&name)) {
                return Err(Failure::Usage(format!("--header '{name}: ...' was given twice")));
            }
            headers.insert(name, value.into());
        }
        let oauth2 = self.oauth2.auth()?;
        let types: Vec<&str> =
            self.types.as_deref().filter(|types| *types != "*").map(|types| types.split(',').collect()).unwrap_or_default();
        let mut body = Map::new();
        let mut put = |name: &str, value: Option<Value>| body.extend(value.map(|value| (name.to_owned(), value)));
        put("url", Some(self.url.into()));
        put("types", Some(types.into()));
        put("profile", Some(self.profile.into()));
        put("name", self.name.map(Value::from));
        put("ordering", self.ordering.map(Value::from));
        put("orderingKey", self.ordering_key.map(Value::from));
        put("maxInFlight", self.max_in_flight.map(Value::from));
        put("ratePerMinute", self.rate_per_minute.map(Value::from));
        put("overrides", (!overrides.is_empty()).then_some(Value::Object(overrides)));
        put("headers", (!headers.is_empty()).then_some(Value::Object(headers)));
        put("auth", self.bearer.map(|token| json!({"kind": "bearer", "token": token})));
        put("auth", self.basic.map(|(username, password)| json!({"kind": "basic", "username": username, "password": password})));
        put("auth", self.no_auth.then(|| json!({"kind": "none"})));
        put("auth", oauth2);
        put("startFrom", self.start_from.map(Value::from));
        Ok(Value::Object(body))
    }

    /// Creates the subscription, and shows it with its secret.
    pub async fn run(self, connection: &Connection, format: Format) -> Result<(), Failure> {
        let company = companies::chosen(connection, &self.company).await?;
        let request = Request::post_json(PATH, &self.body()?).for_company(company.as_deref());
        let answer = connection.call(request).await?.success()?;
        match format {
            Format::Json => output::line(&answer.json_line()?),
            Format::Table => {
                answer.json::<Subscription>()?.print()?;
                note("note: the secret is shown only now; give it to the receiver, which checks signatures with it");
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        create: Create,
    }

    fn body(options: &[&str]) -> Result<Value, Failure> {
        Line::try_parse_from(["create", "--url", "https://a.example/"].iter().chain(options)).unwrap().create.body()
    }

    #[test]
    fn what_was_not_said_is_not_sent() {
        assert_eq!(body(&[]).unwrap(), json!({"url": "https://a.example/", "types": [], "profile": "standard"}));
    }

    #[test]
    fn everything_that_was_said_is_sent() {
        let options = [
            "--types",
            "claim.*,policy.bound@2",
            "--profile",
            "envelope",
            "--name",
            "n",
            "--ordering",
            "key",
            "--ordering-key",
            "/claim/id",
            "--max-in-flight",
            "4",
            "--rate-per-minute",
            "60",
            "--override",
            "retryScheduleSeconds=[0.3]",
            "--override",
            "contentType=text/plain",
            "--header",
            "X-Partner: 7:8",
            "--basic",
            "a:b:c",
            "--start-from",
            "oldest",
        ];
        let expected = json!({
            "url": "https://a.example/", "types": ["claim.*", "policy.bound@2"], "profile": "envelope", "name": "n", "ordering": "key", "orderingKey": "/claim/id",
            "maxInFlight": 4, "ratePerMinute": 60, "overrides": {"retryScheduleSeconds": [0.3], "contentType": "text/plain"},
            "headers": {"X-Partner": "7:8"}, "auth": {"kind": "basic", "username": "a", "password": "b:c"}, "startFrom": "oldest",
        });
        assert_eq!(body(&options).unwrap(), expected);
        assert_eq!(body(&["--bearer", "t"]).unwrap()["auth"], json!({"kind": "bearer", "token": "t"}));
    }

    #[test]
    fn what_is_said_twice_or_against_itself_is_refused() {
        assert!(matches!(body(&["--override", "a=1", "--override", "a=2"]), Err(Failure::Usage(_))));
        assert!(matches!(body(&["--header", "X-A: 1", "--header", "x-a: 2"]), Err(Failure::Usage(_))));
        let words = ["create", "--url", "https://a.example/", "--bearer", "t", "--basic", "a:b"];
        assert!(Line::try_parse_from(words).is_err());
        assert!(header("Content-Length: 7").is_err() && header("X-A").is_err());
    }

    #[test]
    fn authorization_is_by_one_way_and_secrets_may_lie_in_files() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key.pem");
        std::fs::write(&file, "PEM").unwrap();
        let file = file.to_str().unwrap();
        assert_eq!(body(&["--no-auth"]).unwrap()["auth"], json!({"kind": "none"}));
        let client = ["--oauth2-token-url", "https://id.example/", "--oauth2-client-id", "c"];
        let secret =
            [&client[..], &["--oauth2-client-secret", "s", "--oauth2-scope", "a b", "--oauth2-method", "client_secret_post"]].concat();
        assert_eq!(
            body(&secret).unwrap()["auth"],
            json!({"kind": "oauth2_client_credentials", "tokenUrl": "https://id.example/", "clientId": "c", "clientSecret": "s", "scope": "a b", "method": "client_secret_post"})
        );
        let key = [&client[..], &["--oauth2-private-key", file]].concat();
        assert_eq!(body(&key).unwrap()["auth"]["privateKey"], "PEM");
        let bundle = format!("caBundle=@{file}");
        assert_eq!(body(&["--override", &bundle]).unwrap()["overrides"], json!({"caBundle": "PEM"}));
        assert!(matches!(body(&["--override", "caBundle=@/nowhere/ca.pem"]), Err(Failure::Failed(_))));
        let words = ["create", "--url", "https://a.example/"];
        for wrong in [&["--no-auth", "--bearer", "t"][..], &client[2..], &[&client[..], &["--no-auth"]].concat()] {
            assert!(Line::try_parse_from(words.iter().chain(wrong)).is_err(), "{wrong:?}");
        }
    }
}
