//! The way out: through the operator's HTTP proxy, or past it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// A proxy that opens tunnels with `CONNECT` (RFC 9110, 9.3.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What it is shown.
    pub credentials: Option<ProxyCredentials>,
    /// What is connected to without it.
    pub bypass: Vec<Bypass>,
}

/// `name:password`, which no debug output shows.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyCredentials(String);

/// A text that is no name and password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the proxy's credentials are one line `name:password` of at most {} visible characters", ProxyCredentials::BYTES_MAX)]
pub struct ParseProxyCredentialsError;

impl ProxyCredentials {
    /// The longest credentials, in bytes.
    pub const BYTES_MAX: usize = 1_024;

    /// Name, colon, password.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ProxyCredentials {
    type Err = ParseProxyCredentialsError;

    /// Takes one line, with or without its end.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let line = text.strip_suffix('\n').unwrap_or(text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        let is_right = line.len() <= Self::BYTES_MAX && line.contains(':') && !line.chars().any(char::is_control);
        if is_right { Ok(Self(line.to_owned())) } else { Err(ParseProxyCredentialsError) }
    }
}

impl fmt::Debug for ProxyCredentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ProxyCredentials(***)")
    }
}

/// What is connected to without the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bypass {
    /// The host of this name.
    Host(String),
    /// All hosts below this name: the entry `*.internal` holds `.internal`.
    Below(String),
    /// Addresses that stand in a URL themselves. A name is never resolved to find out: with a proxy that is the proxy's.
    Network(IpNet),
}

/// A text that is no entry of the list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither a host such as partner.internal, nor *.internal, nor a network such as 10.0.0.0/8")]
pub struct ParseBypassError(String);

fn is_name(text: &str) -> bool {
    let is_label = |label: &str| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    text.len() <= 253 && text.split('.').all(is_label)
}

impl FromStr for Bypass {
    type Err = ParseBypassError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        if let Ok(network) = bare.parse::<IpNet>() {
            return Ok(Self::Network(network.trunc()));
        }
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(Self::Network(address.into()));
        }
        let lower = text.to_ascii_lowercase();
        match lower.strip_prefix('*') {
            Some(rest) if rest.strip_prefix('.').is_some_and(is_name) => Ok(Self::Below(rest.to_owned())),
            None if is_name(&lower) => Ok(Self::Host(lower)),
            _ => Err(ParseBypassError(text.to_owned())),
        }
    }
}

impl fmt::Display for Bypass {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name) => formatter.write_str(name),
            Self::Below(name) => write!(formatter, "*{name}"),
            Self::Network(network) => network.fmt(formatter),
        }
    }
}

impl Bypass {
    fn covers(&self, host: &str, literal: Option<IpAddr>) -> bool {
        match (self, literal) {
            (Self::Network(network), Some(address)) => network.contains(&address.to_canonical()),
            (Self::Host(name), None) => host == name,
            (Self::Below(name), None) => host.len() > name.len() && host.ends_with(name.as_str()),
            _ => false,
        }
    }
}

impl Proxy {
    /// The entry of the list that lets a host be connected to directly, if one does; `literal` is its address when the
    /// host is one.
    #[must_use]
    pub fn bypass_for(&self, host: &str, literal: Option<IpAddr>) -> Option<&Bypass> {
        // A name with the root's dot is the same name.
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        self.bypass.iter().find(|entry| entry.covers(&host, literal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(bypass: &[&str]) -> Proxy {
        let bypass = bypass.iter().map(|entry| entry.parse().unwrap()).collect();
        Proxy { host: "proxy.internal".to_owned(), port: 3128, credentials: None, bypass }
    }

    fn bypasses(entry: &str, host: &str) -> bool {
        proxy(&[entry]).bypass_for(host, host.trim_matches(['[', ']']).parse().ok()).is_some()
    }

    #[test]
    fn names_and_networks_go_past_the_proxy() {
        let yes = [
            ("*.internal", "a.internal"),
            ("*.Internal", "A.B.INTERNAL."),
            ("partner.example", "Partner.Example"),
            ("10.0.0.0/8", "10.20.1.1"),
            ("10.0.0.5/8", "10.20.1.1"),
            ("10.0.0.0/8", "::ffff:10.20.1.1"),
            ("192.168.0.7", "192.168.0.7"),
            ("fd00::/8", "[fd00::1]"),
            ("[::1]", "::1"),
        ];
        for (entry, host) in yes {
            assert!(bypasses(entry, host), "{entry} {host}");
        }
        let no = [
            ("*.internal", "internal"),
            ("*.internal", "notinternal"),
            ("*.internal", "a.internal.example"),
            ("partner.example", "a.partner.example"),
            ("10.0.0.0/8", "11.0.0.1"),
            ("10.0.0.0/8", "10.example"),
            ("192.168.0.7", "192.168.0.8"),
        ];
        for (entry, host) in no {
            assert!(!bypasses(entry, host), "{entry} {host}");
        }
    }

    #[test]
    fn entries_read_back_from_their_text_and_wrong_ones_are_refused() {
        for text in ["*.internal", "partner.example", "10.0.0.0/8", "fd00::/8", "192.168.0.7/32"] {
            assert_eq!(text.parse::<Bypass>().unwrap().to_string(), text);
        }
        for text in ["", "*", "*.", "a.*", "http://a", "a/8", "a b", "a..b", "10.0.0.0/33", "*internal", "a:80"] {
            assert!(text.parse::<Bypass>().is_err(), "{text}");
        }
    }

    #[test]
    fn credentials_are_one_line_and_are_not_shown() {
        for text in ["name:pass:word", "name:pass:word\n", "name:pass:word\r\n"] {
            assert_eq!(text.parse::<ProxyCredentials>().unwrap().as_str(), "name:pass:word");
        }
        for text in ["", "name", "a:b\nc:d", "a:\0", &format!("a:{}", "x".repeat(ProxyCredentials::BYTES_MAX))] {
            assert!(text.parse::<ProxyCredentials>().is_err(), "{text}");
        }
        assert!(!format!("{:?}", "name:hush".parse::<ProxyCredentials>()).contains("hush"));
    }
}
