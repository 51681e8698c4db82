//! The settings of the daemon: defaults, file, environment, command line, in this order.

mod egress;
mod faults;
mod issuers;
mod keys;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::Figment;
use figment::providers::{Format, Toml};
use serde::Deserialize;

pub use self::egress::Egress;
pub use self::faults::{Fault, Faults};
pub use self::issuers::ExternalIssuer;
use self::keys::{ENVIRONMENTS, KEYS};
use crate::domain::egress::EgressPolicy;
use crate::domain::nearest::nearest;

/// Where the daemon runs; decides the defaults, and whether it may listen in the clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// Real events.
    Production,
    /// A rehearsal.
    Staging,
    /// A developer's machine.
    Development,
}

impl Environment {
    /// The environment as it is written in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Production => "production",
            Self::Staging => "staging",
            Self::Development => "development",
        }
    }
}

/// All settings, with every default filled in.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    /// Where the daemon runs.
    pub environment: Environment,
    /// Where the store lies.
    pub data_dir: PathBuf,
    /// What links start with; never ends with a slash. Empty until the address is known, when none is configured.
    pub public_url: String,
    /// The listener.
    pub server: Server,
    /// How long events are kept.
    pub retention: Retention,
    /// The log's files.
    pub log_store: LogStore,
    /// What is refused as too large.
    pub limits: Limits,
    /// Followers of the log.
    pub streams: Streams,
    /// How often a key may call.
    pub rate_limits: RateLimits,
    /// The delivery engine.
    pub delivery: Delivery,
    /// Where webhooks may go.
    pub egress: Egress,
    /// Access tokens.
    pub oauth: OAuth,
    /// Event types.
    pub catalog: Catalog,
    /// Metrics.
    pub telemetry: Telemetry,
    /// The daemon's own log.
    pub log: Log,
    #[serde(skip)]
    sources: BTreeMap<&'static str, (String, String)>,
}

/// `[server]`
#[derive(Debug, Clone, Deserialize)]
pub struct Server {
    /// Address and port.
    pub listen: SocketAddr,
    /// A named proxy ends TLS in front of the daemon.
    pub behind_proxy: bool,
    /// Threads that serve HTTP; 0 = one less than there are cores.
    pub http_runtimes: usize,
    /// Open connections.
    pub connections_max: usize,
    /// Seconds for the head of a request.
    pub header_read_timeout_seconds: u64,
    /// Seconds for its body.
    pub body_read_timeout_seconds: u64,
    /// Seconds that a connection may wait for its next request.
    pub idle_timeout_seconds: u64,
}

/// `[retention]`
#[derive(Debug, Clone, Deserialize)]
pub struct Retention {
    /// Days, fractions allowed.
    pub days: f64,
}

/// `[log_store]`
#[derive(Debug, Clone, Deserialize)]
pub struct LogStore {
    /// Bytes of chunks after which a segment is closed.
    pub segment_bytes_max: u64,
    /// Hours after which a segment is closed, fractions allowed.
    pub segment_hours_max: f64,
}

/// `[limits]`
#[derive(Debug, Clone, Deserialize)]
pub struct Limits {
    /// Bytes of a payload's text.
    pub payload_bytes_max: usize,
    /// Bytes of a metadata's text.
    pub metadata_bytes_max: usize,
    /// Bytes of a request's body.
    pub body_bytes_max: usize,
    /// Bytes of the snapshot of a reference.
    pub snapshot_bytes_max: usize,
    /// Bytes of the body of a request with snapshots.
    pub snapshot_body_bytes_max: usize,
    /// Bytes of a batch's body.
    pub batch_bytes_max: usize,
    /// Events of a batch.
    pub batch_events_max: usize,
    /// Events that may wait for their commit.
    pub queue_events_max: usize,
    /// Bytes that may wait for their commit.
    pub queue_bytes_max: usize,
}

/// `[streams]`
#[derive(Debug, Clone, Deserialize)]
pub struct Streams {
    /// Open ones.
    pub open_max: usize,
    /// Seconds between two comments to a client that waits.
    pub comment_seconds: u32,
    /// Seconds that a client may take over what it was sent last.
    pub stalled_seconds_max: u32,
}

/// `[rate_limits]`: calls of one key in a minute; 0 = unlimited.
#[derive(Debug, Clone, Deserialize)]
pub struct RateLimits {
    /// Reading.
    pub read_per_minute: u32,
    /// Publishing.
    pub write_per_minute: u32,
    /// Administration.
    pub admin_per_minute: u32,
}

/// `[delivery]`
#[derive(Debug, Clone, Deserialize)]
pub struct Delivery {
    /// Attempts in flight, whole daemon.
    pub concurrency_max: usize,
    /// Attempts in flight to one subscription; also what a subscription gets that asks for nothing else.
    pub per_subscription_max: u16,
    /// Whether answers from private addresses are shown to others than administrators.
    pub private_excerpts: bool,
}

/// `[oauth]`
#[derive(Debug, Clone, Deserialize)]
pub struct OAuth {
    /// The name of the authorization server in its tokens; never ends with a slash. Empty: the public URL.
    pub issuer: String,
    /// Days that a key signs tokens, fractions allowed.
    pub key_rotation_days: f64,
    /// Who else issues tokens that are taken here.
    pub external_issuers: Vec<ExternalIssuer>,
}

/// `[catalog]`
#[derive(Debug, Clone, Deserialize)]
pub struct Catalog {
    /// A file with more event types; empty = none.
    pub file: PathBuf,
    /// Whether types that the catalogue does not know are refused.
    pub strict: bool,
    /// What becomes of payloads that violate the schema of their type: `off`, `warn` or `reject`.
    pub validate: String,
}

/// `[telemetry]`
#[derive(Debug, Clone, Deserialize)]
pub struct Telemetry {
    /// Whether `/metrics` is open to everybody.
    pub metrics_open: bool,
}

/// `[log]`
#[derive(Debug, Clone, Deserialize)]
pub struct Log {
    /// How lines are written.
    pub format: LogFormat,
    /// Which lines are written, such as `info` or `lutine=debug`.
    pub filter: String,
}

/// Forms of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Text for people.
    Text,
}

/// What the command line sets.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
}

impl Retention {
    /// How long events are kept.
    #[must_use]
    pub fn span(&self) -> Duration {
        Duration::from_secs_f64(self.days * 86_400.0)
    }

    /// How often expired segments are looked for: every hour, and at least ten times within the retention.
    #[must_use]
    pub fn purge_interval(&self) -> Duration {
        (self.span() / 10).clamp(Duration::from_millis(10), Duration::from_secs(3600))
    }
}

/// Variables that begin with `LUTINE_` and are no settings.
const OTHER_VARIABLES: [&str; 3] = ["LUTINE_CONFIG", "LUTINE_URL", "LUTINE_API_KEY"];

/// The file to read: the one that is named, else `./config.toml`, else `/etc/lutine/config.toml`, else none.
#[must_use]
pub fn find(named: Option<&Path>) -> Option<PathBuf> {
    match named {
        Some(path) => Some(path.to_owned()),
        None => ["config.toml", "/etc/lutine/config.toml"].into_iter().map(PathBuf::from).find(|path| path.exists()),
    }
}

/// A value and where it comes from.
struct Setting {
    value: toml_edit::Value,
    source: String,
}

impl Config {
    /// Reads all layers; every fault is reported at once.
    ///
    /// # Errors
    /// All that is wrong, each with its place.
    pub fn load(path: Option<&Path>, variables: impl IntoIterator<Item = (String, String)>, overrides: &Overrides) -> Result<Self, Faults> {
        let mut faults = Vec::new();
        let mut settings: BTreeMap<&'static str, Setting> = BTreeMap::new();
        if let Some(path) = path {
            faults::read_file(path, &mut faults, |key, value, line| {
                settings.insert(key, Setting { value, source: format!("{}:{line}", path.display()) });
            });
        }
        read_variables(variables, &mut faults, &mut settings);
        if let Some(data_dir) = &overrides.data_dir {
            let value = toml_edit::Value::from(data_dir.to_string_lossy().into_owned());
            settings.insert("data_dir", Setting { value, source: "--data-dir".to_owned() });
        }
        let environment = settings.get("environment").and_then(|setting| setting.value.as_str()).unwrap_or("production").to_owned();
        let place = ENVIRONMENTS.iter().position(|name| *name == environment).unwrap_or(0);
        let mut figment = Figment::new();
        let mut sources = BTreeMap::new();
        for key in KEYS {
            let default = key.defaults.get(place).copied().unwrap_or("\"\"");
            let (text, source) = match settings.get(key.path) {
                Some(setting) => (setting.value.clone().decorated("", "").to_string(), setting.source.clone()),
                None => (default.to_owned(), "default".to_owned()),
            };
            figment = figment.merge(Toml::string(&format!("{} = {text}", key.path)));
            sources.insert(key.path, (text, source));
        }
        let is_clear = settings.get("server.behind_proxy").and_then(|setting| setting.value.as_bool()) != Some(true);
        if environment != "development" && is_clear && faults.is_empty() {
            faults.push(Fault::anywhere(
                "server.behind_proxy",
                "outside development Lutine does not listen in the clear: put it behind a proxy that ends TLS and set server.behind_proxy = true",
            ));
        }
        if !faults.is_empty() {
            return Err(Faults(faults));
        }
        let mut config: Self =
            figment.extract().map_err(|error| Faults(error.into_iter().map(|error| Fault::anywhere("", &error.to_string())).collect()))?;
        if let Err(reason) = config.egress.read_credentials() {
            return Err(Faults(vec![Fault::anywhere("egress.proxy_credentials_file", &reason)]));
        }
        config.sources = sources;
        for url in [&mut config.public_url, &mut config.oauth.issuer] {
            while url.ends_with('/') {
                url.pop();
            }
        }
        Ok(config)
    }

    /// Where webhooks and token calls may go: to loopback only on a developer's machine.
    #[must_use]
    pub fn egress_policy(&self) -> EgressPolicy {
        self.egress.policy(self.environment == Environment::Development)
    }

    /// Every key with its value as TOML and where it comes from, in the order of `config.toml`.
    #[must_use]
    pub fn effective(&self) -> Vec<(&'static str, String, String)> {
        let row = |key: &keys::Key| self.sources.get(key.path).map(|(value, source)| (key.path, value.clone(), source.clone()));
        KEYS.iter().filter_map(row).collect()
    }
}

fn read_variables(
    variables: impl IntoIterator<Item = (String, String)>,
    faults: &mut Vec<Fault>,
    settings: &mut BTreeMap<&'static str, Setting>,
) {
    let name_of = |key: &keys::Key| format!("LUTINE_{}", key.path.to_uppercase().replace('.', "__"));
    for (name, text) in variables {
        if !name.starts_with("LUTINE_") || OTHER_VARIABLES.contains(&name.as_str()) {
            continue;
        }
        let Some(key) = KEYS.iter().find(|key| name_of(key) == name) else {
            let names: Vec<String> = KEYS.iter().map(name_of).collect();
            let hint = nearest(&name, names.iter().map(String::as_str)).map(|name| format!("; did you mean {name}?")).unwrap_or_default();
            faults.push(Fault::in_variable(&name, &format!("there is no such setting{hint}")));
            continue;
        };
        let value = key.shape.variable_value(&text);
        match key.shape.refuse(&value) {
            Some(reason) => faults.push(Fault::in_variable(&name, &format!("{} {reason}", key.path))),
            None => {
                settings.insert(key.path, Setting { value, source: name });
            }
        }
    }
}

#[cfg(test)]
mod tests;
