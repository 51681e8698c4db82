//! Every key of the configuration: its shape, its bounds and its defaults.

use std::net::SocketAddr;

use crate::domain::proxy::Bypass;

/// What a value must look like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Shape {
    /// Any text.
    Text,
    /// One of a few words.
    Word(&'static [&'static str]),
    /// An address and a port.
    Address,
    /// `http://` or `https://`, a host, no query, or empty for the default.
    BaseUrl,
    /// A whole number within bounds.
    Whole(i64, i64),
    /// A number, fractions allowed, above zero and at most so much.
    Fraction(f64),
    /// true or false.
    Flag,
    /// A list of networks.
    Networks,
    /// `http://`, a host and a port, or empty.
    Proxy,
    /// A list of hosts, `*.name` and networks.
    Hosts,
    /// A list of external issuers; see [`super::ExternalIssuer`].
    Issuers,
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    pub path: &'static str,
    pub shape: Shape,
    /// As TOML, in production, staging and development.
    pub defaults: [&'static str; 3],
}

const fn same(path: &'static str, shape: Shape, default: &'static str) -> Key {
    Key { path, shape, defaults: [default; 3] }
}

/// Names of the environments, in the order of [`Key::defaults`].
pub(super) const ENVIRONMENTS: [&str; 3] = ["production", "staging", "development"];

const YEAR_SECONDS: i64 = 31_536_000;

/// All keys, in the order of `config.toml`.
pub(super) const KEYS: &[Key] = &[
    same("environment", Shape::Word(&ENVIRONMENTS), "\"production\""),
    Key { path: "data_dir", shape: Shape::Text, defaults: ["\"/var/lib/lutine\"", "\"/var/lib/lutine\"", "\"./data\""] },
    same("public_url", Shape::BaseUrl, "\"\""),
    Key { path: "server.listen", shape: Shape::Address, defaults: ["\"0.0.0.0:8443\"", "\"0.0.0.0:8443\"", "\"127.0.0.1:8080\""] },
    same("server.behind_proxy", Shape::Flag, "false"),
    same("server.http_runtimes", Shape::Whole(0, 256), "0"),
    same("server.connections_max", Shape::Whole(1, 1_000_000), "20000"),
    same("server.header_read_timeout_seconds", Shape::Whole(1, 3600), "10"),
    same("server.body_read_timeout_seconds", Shape::Whole(1, 3600), "60"),
    same("server.idle_timeout_seconds", Shape::Whole(1, YEAR_SECONDS), "75"),
    Key { path: "retention.days", shape: Shape::Fraction(36_500.0), defaults: ["7", "14", "14"] },
    same("log_store.segment_bytes_max", Shape::Whole(65_536, 1_073_741_824), "268435456"),
    same("log_store.segment_hours_max", Shape::Fraction(24.0), "24"),
    same("limits.payload_bytes_max", Shape::Whole(1, 1_048_576), "262144"),
    same("limits.metadata_bytes_max", Shape::Whole(1, 1_048_576), "65536"),
    same("limits.body_bytes_max", Shape::Whole(1, 16_777_216), "524288"),
    same("limits.snapshot_bytes_max", Shape::Whole(1, 67_108_864), "8388608"),
    same("limits.snapshot_body_bytes_max", Shape::Whole(1, 67_108_864), "16777216"),
    same("limits.batch_bytes_max", Shape::Whole(1, 67_108_864), "4194304"),
    same("limits.batch_events_max", Shape::Whole(1, 10_000), "1000"),
    same("limits.queue_events_max", Shape::Whole(1, 1_000_000), "16384"),
    same("limits.queue_bytes_max", Shape::Whole(65_536, 1_073_741_824), "67108864"),
    same("streams.open_max", Shape::Whole(0, 1_000_000), "12000"),
    same("streams.comment_seconds", Shape::Whole(1, 3600), "15"),
    same("streams.stalled_seconds_max", Shape::Whole(1, 30), "20"),
    Key { path: "rate_limits.read_per_minute", shape: Shape::Whole(0, 4_000_000_000), defaults: ["6000", "6000", "0"] },
    Key { path: "rate_limits.write_per_minute", shape: Shape::Whole(0, 4_000_000_000), defaults: ["60000", "60000", "0"] },
    Key { path: "rate_limits.admin_per_minute", shape: Shape::Whole(0, 4_000_000_000), defaults: ["600", "600", "0"] },
    same("delivery.concurrency_max", Shape::Whole(1, 100_000), "512"),
    same("delivery.per_subscription_max", Shape::Whole(1, 1_000), "16"),
    same("delivery.private_excerpts", Shape::Flag, "false"),
    same("egress.allow", Shape::Networks, "[]"),
    same("egress.allow_public", Shape::Flag, "true"),
    Key { path: "egress.allow_http", shape: Shape::Flag, defaults: ["false", "false", "true"] },
    same("egress.proxy", Shape::Proxy, "\"\""),
    same("egress.proxy_bypass", Shape::Hosts, "[]"),
    same("egress.proxy_credentials_file", Shape::Text, "\"\""),
    same("oauth.issuer", Shape::BaseUrl, "\"\""),
    same("oauth.key_rotation_days", Shape::Fraction(3650.0), "30"),
    same("oauth.external_issuers", Shape::Issuers, "[]"),
    same("catalog.file", Shape::Text, "\"\""),
    same("catalog.strict", Shape::Flag, "false"),
    same("catalog.validate", Shape::Word(&["off", "warn", "reject"]), "\"off\""),
    Key { path: "telemetry.metrics_open", shape: Shape::Flag, defaults: ["false", "false", "true"] },
    same("log.format", Shape::Word(&["json", "text"]), "\"json\""),
    same("log.filter", Shape::Text, "\"info\""),
];

/// The key with this path.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Whether a path is that of a table.
pub(super) fn is_table(path: &str) -> bool {
    KEYS.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

impl Shape {
    /// What is wrong with a value, if anything is.
    pub fn refuse(self, value: &toml_edit::Value) -> Option<String> {
        let quoted = value.as_str();
        match self {
            Self::Text => quoted.is_none().then(|| "must be a text in quotes".to_owned()),
            Self::Networks => {
                let wrong = |entry: &toml_edit::Value| entry.as_str().is_none_or(|text| text.parse::<ipnet::IpNet>().is_err());
                let is_wrong = value.as_array().is_none_or(|entries| entries.iter().any(wrong));
                is_wrong.then(|| "must be a list of networks such as [\"10.20.0.0/16\"]".to_owned())
            }
            Self::Proxy => {
                let is_right = quoted.is_some_and(|text| text.is_empty() || super::egress::parse_proxy(text).is_some());
                let reason =
                    "must be an address such as \"http://proxy.internal:3128\"; its credentials go into egress.proxy_credentials_file";
                (!is_right).then(|| reason.to_owned())
            }
            Self::Hosts => match value.as_array() {
                None => Some("must be a list such as [\"*.internal\", \"10.0.0.0/8\"]".to_owned()),
                Some(entries) => entries.iter().find_map(|entry| match entry.as_str().map(str::parse::<Bypass>) {
                    Some(Ok(_)) => None,
                    Some(Err(error)) => Some(format!("is a list of hosts and networks; {error}")),
                    None => Some("must be a list of texts in quotes such as [\"*.internal\", \"10.0.0.0/8\"]".to_owned()),
                }),
            },
            Self::Issuers => super::issuers::refuse(value),
            Self::Flag => value.as_bool().is_none().then(|| "must be true or false, without quotes".to_owned()),
            Self::Word(words) => match quoted {
                Some(word) if words.contains(&word) => None,
                other => {
                    let hint = other.and_then(|word| crate::domain::nearest::nearest(word, words.iter().copied()));
                    let hint = hint.map(|word| format!("; did you mean \"{word}\"?")).unwrap_or_default();
                    Some(format!("must be one of \"{}\"{hint}", words.join("\", \"")))
                }
            },
            Self::Address => match quoted.map(str::parse::<SocketAddr>) {
                Some(Ok(_)) => None,
                _ => Some("must be an address and a port such as \"127.0.0.1:8080\" or \"[::1]:8080\"".to_owned()),
            },
            Self::BaseUrl => {
                let is_url = |text: &str| {
                    text.is_empty()
                        || url::Url::parse(text).is_ok_and(|url| {
                            matches!(url.scheme(), "http" | "https")
                                && url.has_host()
                                && url.query().is_none()
                                && url.fragment().is_none()
                                && url.username().is_empty()
                        })
                };
                let is_right = quoted.is_some_and(is_url);
                (!is_right).then(|| "must be an address such as \"https://events.insurer.example\"".to_owned())
            }
            Self::Whole(least, most) => match value.as_integer() {
                Some(number) if (least..=most).contains(&number) => None,
                _ => Some(format!("must be a whole number from {least} to {most}")),
            },
            Self::Fraction(most) => {
                let number = value.as_float().or_else(|| value.as_integer().map(|number| number as f64));
                match number {
                    Some(number) if number > 0.0 && number <= most => None,
                    _ => Some(format!("must be a number above 0 and at most {most}")),
                }
            }
        }
    }

    /// A value from an environment variable: as TOML where that fits, else as text.
    pub fn variable_value(self, text: &str) -> toml_edit::Value {
        match text.parse::<toml_edit::Value>() {
            Ok(value) if self.refuse(&value).is_none() => value,
            _ => toml_edit::Value::from(text).decorated("", ""),
        }
    }
}
