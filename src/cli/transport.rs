//! How commands reach the daemon: over the network, over its local socket, or, when it does not run, by opening its store.
//!
//! All three take the same requests and give the same answers; nothing but this file knows which of them it is.

use std::fmt;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;
use url::form_urlencoded::Serializer;

use super::failure::{Failure, Refused};
use super::output::note;
use super::settings::{Place, Settings};
use crate::config::Config;
use crate::daemon::{Offline, StartError};
use crate::store::disk::DataDirectoryError;

/// The longest that a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest that an answer may take, unless a request says otherwise; above the 30 s of a long poll.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a data directory is looked at again that another process has: five seconds long.
pub const LOCK_TRIES: u32 = 50;
/// The wait between.
pub const LOCK_WAIT: Duration = Duration::from_millis(100);
/// The local socket, below the data directory.
const SOCKET_NAME: &str = "lutine.sock";
/// The file without which there is no store, below the data directory.
const LEDGER_NAME: &str = "ledger.redb";

/// Behind the words for a certificate that is not trusted.
const CA_HINT: &str = "; a certificate authority of your own is trusted when SSL_CERT_FILE names its file";

/// What a command needs behind its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// A store, which is made when there is none.
    AnyStore,
    /// A store that is there.
    Store,
    /// A daemon that runs.
    Daemon,
}

/// One call of the HTTP API.
#[derive(Debug)]
pub struct Request {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    timeout: Duration,
}

impl Request {
    fn new(method: &'static str, path: &str) -> Self {
        Self { method, path: path.to_owned(), headers: Vec::new(), body: Vec::new(), timeout: ANSWER_TIMEOUT }
    }

    /// Asks for something.
    #[must_use]
    pub fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    /// Removes something.
    #[must_use]
    pub fn delete(path: &str) -> Self {
        Self::new("DELETE", path)
    }

    /// Puts JSON in a place.
    #[must_use]
    pub fn put_json(path: &str, value: &Value) -> Self {
        Self { method: "PUT", ..Self::post_json(path, value) }
    }

    /// Does something, with a body.
    #[must_use]
    pub fn post(path: &str, content_type: &str, body: Vec<u8>) -> Self {
        Self { body, headers: vec![("content-type", content_type.to_owned())], ..Self::new("POST", path) }
    }

    /// Does something, with a JSON body.
    #[must_use]
    pub fn post_json(path: &str, body: &Value) -> Self {
        Self::post(path, "application/json", body.to_string().into_bytes())
    }

    /// Changes something, with a JSON body.
    #[must_use]
    pub fn patch_json(path: &str, body: &Value) -> Self {
        Self { method: "PATCH", ..Self::post_json(path, body) }
    }

    /// Does something that needs no words.
    #[must_use]
    pub fn act(path: &str) -> Self {
        Self::new("POST", path)
    }

    /// The path with its parameters.
    #[cfg(test)]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// With these parameters behind the path; those without a value are left out.
    #[must_use]
    pub fn query(mut self, parameters: &[(&str, Option<&str>)]) -> Self {
        let mut serializer = Serializer::new(String::new());
        for (name, value) in parameters {
            if let Some(value) = value {
                serializer.append_pair(name, value);
            }
        }
        let query = serializer.finish();
        if !query.is_empty() {
            self.path = format!("{}?{query}", self.path);
        }
        self
    }

    /// For this company, when the caller may choose.
    #[must_use]
    pub fn for_company(mut self, company: Option<&str>) -> Self {
        self.headers.extend(company.map(|company| ("lutine-company", company.to_owned())));
        self
    }

    /// With another patience than the usual one.
    #[must_use]
    pub fn within(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    headers: Vec<(String, String)>,
    body: Bytes,
}

impl Answer {
    /// An answer for tests.
    #[cfg(test)]
    pub fn of(status: u16, headers: &[(&str, &str)], body: &'static str) -> Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { status, headers, body: Bytes::from_static(body.as_bytes()) }
    }

    /// The value of a header, by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// How long `Retry-After` asks to wait.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.header("retry-after")?.parse().ok().map(Duration::from_secs)
    }

    /// The answer when it is a success.
    ///
    /// # Errors
    /// With the refusal when it is none.
    pub fn success(self) -> Result<Self, Failure> {
        if (200..300).contains(&self.status) { Ok(self) } else { Err(Failure::Refused(Box::new(self.refused()))) }
    }

    /// What is told about an answer that is not a success.
    #[must_use]
    pub fn refused(&self) -> Refused {
        Refused::new(self.status, &self.body)
    }

    /// The body as text on one line.
    ///
    /// # Errors
    /// When the body is not JSON, so not an answer of Lutine.
    pub fn json_line(&self) -> Result<String, Failure> {
        let text = std::str::from_utf8(&self.body).unwrap_or_default().trim();
        if text.starts_with(['{', '[']) && !text.contains('\n') { Ok(text.to_owned()) } else { Ok(self.json::<Value>()?.to_string()) }
    }

    /// The body, read as JSON.
    ///
    /// # Errors
    /// When it is not what was expected, so not an answer of Lutine.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        let reason = |error: serde_json::Error| Failure::Failed(format!("the answer is not one of Lutine, or of another version: {error}"));
        serde_json::from_slice(&self.body).map_err(reason)
    }
}

/// The way to a daemon or its store.
pub enum Connection {
    /// A daemon that runs.
    Daemon(DaemonConnection),
    /// The store of a daemon that does not run.
    Stopped(Offline),
}

/// The way to a daemon that runs.
#[derive(Debug)]
pub struct DaemonConnection {
    client: reqwest::Client,
    base: String,
    api_key: Option<String>,
    /// How people know it.
    name: String,
}

impl Connection {
    /// Finds the way that the options, the variables and the state of the daemon leave open.
    ///
    /// # Errors
    /// When there is none.
    pub async fn open(settings: &Settings, need: Need) -> Result<Self, Failure> {
        if let Place::Network { url, api_key } = settings.place()? {
            return DaemonConnection::over_network(&url, api_key).map(Self::Daemon);
        }
        // With a data directory in hand, a running daemon is reached even while its configuration is being mended.
        if let Some(data_dir) = settings.data_dir()
            && let Some(daemon) = DaemonConnection::over_socket(data_dir)?
        {
            return Ok(Self::Daemon(daemon));
        }
        let config = settings.config()?;
        let mut tries = 0;
        loop {
            if let Some(daemon) = DaemonConnection::over_socket(&config.data_dir)? {
                return Ok(Self::Daemon(daemon));
            }
            match Self::stopped(&config, need)? {
                Some(stopped) => return Ok(stopped),
                None if tries == LOCK_TRIES => {
                    let data_dir = config.data_dir.display();
                    return Err(Failure::Failed(format!("another lutine process uses {data_dir} and does not answer on its socket")));
                }
                None => {
                    tries += 1;
                    tokio::time::sleep(LOCK_WAIT).await;
                }
            }
        }
    }

    /// The store of a daemon that does not run; none while another process has it, which may be about to listen or to end.
    fn stopped(config: &Config, need: Need) -> Result<Option<Self>, Failure> {
        let data_dir = config.data_dir.display();
        let has_store = config.data_dir.join(LEDGER_NAME).exists();
        match need {
            Need::Daemon => {
                return Err(Failure::Failed(format!("no daemon runs on {data_dir}; start it with `lutine serve`")));
            }
            Need::Store if !has_store => {
                return Err(Failure::Failed(format!(
                    "there is no store in {data_dir}; name its directory with --data-dir, or make one with `lutine serve` or `lutine company create`"
                )));
            }
            Need::AnyStore | Need::Store => {}
        }
        let offline = match Offline::open(config) {
            Ok(offline) => offline,
            Err(StartError::Directory(DataDirectoryError::InUse(_))) => return Ok(None),
            Err(error) => {
                return Err(Failure::not_started(&format!("no daemon runs on {data_dir}, and its store cannot be opened"), &error));
            }
        };
        if !has_store {
            note(&format!("note: there was no store in {data_dir}; a new one was made"));
        }
        Ok(Some(Self::Stopped(offline)))
    }

    /// Whether the company of a request is the caller's to choose, because no key decides it.
    #[must_use]
    pub fn chooses_company(&self) -> bool {
        match self {
            Self::Daemon(daemon) => daemon.api_key.is_none(),
            Self::Stopped(_) => true,
        }
    }

    /// Sends a request and waits for the answer, whatever its status.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn call(&self, request: Request) -> Result<Answer, Failure> {
        match self {
            Self::Daemon(daemon) => daemon.call(request).await,
            Self::Stopped(offline) => {
                let headers: Vec<(&str, &str)> = request.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
                let reply = offline.call(request.method, &request.path, &headers, request.body).await;
                let reply = reply.map_err(|reason| Failure::Failed(format!("the request cannot be made: {reason}")))?;
                Ok(Answer { status: reply.status, headers: reply.headers, body: reply.body })
            }
        }
    }

    /// Lets go of the store, when it was opened.
    pub fn close(self) {
        match self {
            Self::Daemon(_) => {}
            Self::Stopped(offline) => offline.close(),
        }
    }
}

impl DaemonConnection {
    /// The daemon at an address.
    ///
    /// # Errors
    /// When there is no client for it.
    pub fn over_network(url: &Url, api_key: String) -> Result<Self, Failure> {
        let base = url.as_str().trim_end_matches('/').to_owned();
        let client = if url.scheme() == "https" {
            // A second installation is refused, which is as good: there is one already.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
            build(reqwest::Client::builder())?
        } else {
            build(without_certificates()?)?
        };
        Ok(Self { client, name: base.clone(), base, api_key: Some(api_key) })
    }

    /// The daemon that listens in this directory; none when nothing does.
    ///
    /// # Errors
    /// When the socket is there and may not be opened.
    pub fn over_socket(data_dir: &Path) -> Result<Option<Self>, Failure> {
        let path = data_dir.join(SOCKET_NAME);
        match UnixStream::connect(&path) {
            Ok(_) => {}
            // Nothing there, nobody behind it, or a path that no socket can have.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::InvalidInput) => {
                return Ok(None);
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return Err(Failure::Failed(format!(
                    "{} may not be opened by you; run the command as the user of the daemon, or use --url and --api-key",
                    path.display()
                )));
            }
            Err(error) => return Err(Failure::caused(&format!("{} cannot be opened", path.display()), &error)),
        }
        let client = build(without_certificates()?.unix_socket(PathBuf::from(&path)))?;
        let name = format!("the daemon on {}", data_dir.display());
        Ok(Some(Self { client, base: "http://localhost".to_owned(), api_key: None, name }))
    }

    /// How people know it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    async fn call(&self, request: Request) -> Result<Answer, Failure> {
        let method = reqwest::Method::from_bytes(request.method.as_bytes())
            .map_err(|error| Failure::caused("the request cannot be made", &error))?;
        let may_have_been_done = request.method != "GET";
        let mut builder = self.client.request(method, format!("{}{}", self.base, request.path)).timeout(request.timeout);
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        if let Some(api_key) = &self.api_key {
            builder = builder.header("x-api-key", api_key);
        }
        let lost = |error: reqwest::Error| self.lost(&error, may_have_been_done);
        let response = builder.body(request.body).send().await.map_err(lost)?;
        let status = response.status().as_u16();
        let text = |value: &reqwest::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = response.headers().iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
        let body = response.bytes().await.map_err(lost)?;
        Ok(Answer { status, headers, body })
    }

    fn lost(&self, error: &reqwest::Error, may_have_been_done: bool) -> Failure {
        if error.is_builder() {
            return Failure::caused("the request cannot be made", error);
        }
        let name = &self.name;
        if error.is_connect() {
            let mut text = format!("{name} cannot be reached: {}", innermost(error));
            if text.contains("UnknownIssuer") {
                text.push_str(CA_HINT);
            } else if text.contains("InvalidContentType") {
                text.push_str("; it does not speak TLS, so its address may begin with http:// instead");
            }
            return Failure::Unreachable(text);
        }
        let doubt = if may_have_been_done { "; it is unknown whether the request was carried out" } else { "" };
        let reason = if error.is_timeout() { "it took too long".to_owned() } else { innermost(error) };
        Failure::Unreachable(format!("{name} has not answered: {reason}{doubt}"))
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Daemon(daemon) => daemon.fmt(formatter),
            Self::Stopped(_) => formatter.write_str("Stopped"),
        }
    }
}

/// The cause of all causes, which says most about a broken connection.
fn innermost(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// A builder whose client never speaks TLS, so that it works where no certificates are installed.
fn without_certificates() -> Result<reqwest::ClientBuilder, Failure> {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::caused("the client cannot be made", &error))?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Ok(reqwest::Client::builder().tls_backend_preconfigured(tls))
}

fn build(builder: reqwest::ClientBuilder) -> Result<reqwest::Client, Failure> {
    let builder = builder.no_proxy().redirect(reqwest::redirect::Policy::none()).connect_timeout(CONNECT_TIMEOUT);
    let named = builder.user_agent(concat!("lutine/", env!("CARGO_PKG_VERSION")));
    named.build().map_err(|error| {
        let reason = innermost(&error);
        let hint = if reason.contains("CA certificates") { CA_HINT } else { "" };
        Failure::Failed(format!("the client cannot be made: {reason}{hint}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_escaped_and_those_without_a_value_left_out() {
        let request = Request::get("/api/v1/events").query(&[("types", Some("claim.*,a@2")), ("cursor", None), ("from", Some("a+b"))]);
        assert_eq!(request.path, "/api/v1/events?types=claim.*%2Ca%402&from=a%2Bb");
        assert_eq!(Request::get("/x").query(&[("types", None)]).path, "/x");
    }

    #[test]
    fn only_statuses_of_success_are_a_success() {
        let answer = |status| Answer::of(status, &[("Retry-After", "7")], "");
        assert!(answer(204).success().is_ok());
        assert!(matches!(answer(302).success(), Err(Failure::Refused(_))));
        assert_eq!(answer(429).retry_after(), Some(Duration::from_secs(7)));
    }
}
