//! `[egress]`: where webhooks and token calls may go, and which way.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};
use url::Url;

use crate::domain::egress::EgressPolicy;
use crate::domain::proxy::{Bypass, Proxy, ProxyCredentials};

/// `[egress]`
#[derive(Debug, Clone, Deserialize)]
pub struct Egress {
    /// Private networks that receivers may sit in.
    pub allow: Vec<IpNet>,
    /// Whether public addresses may be sent to.
    pub allow_public: bool,
    /// Whether `http` may be used.
    pub allow_http: bool,
    /// Host and port of the proxy that connections go through; none: they are direct.
    #[serde(deserialize_with = "proxy")]
    pub proxy: Option<(String, u16)>,
    /// What is connected to without the proxy.
    #[serde(deserialize_with = "bypass")]
    pub proxy_bypass: Vec<Bypass>,
    /// A file with the proxy's `name:password`; empty = none.
    pub proxy_credentials_file: PathBuf,
    /// What the file holds.
    #[serde(skip)]
    pub proxy_credentials: Option<ProxyCredentials>,
}

impl Egress {
    /// The policy of outgoing connections.
    pub(super) fn policy(&self, allow_loopback: bool) -> EgressPolicy {
        let proxy = self.proxy.as_ref().map(|(host, port)| Proxy {
            host: host.clone(),
            port: *port,
            credentials: self.proxy_credentials.clone(),
            bypass: self.proxy_bypass.clone(),
        });
        let Self { allow_public, allow_http, .. } = *self;
        EgressPolicy { allow: self.allow.clone(), allow_public, allow_http, allow_loopback, proxy }
    }

    /// Reads the file of the credentials, if one is named; or says what is wrong with it.
    pub(super) fn read_credentials(&mut self) -> Result<(), String> {
        if self.proxy_credentials_file.as_os_str().is_empty() {
            return Ok(());
        }
        self.proxy_credentials = Some(read(&self.proxy_credentials_file)?);
        Ok(())
    }
}

fn read(path: &Path) -> Result<ProxyCredentials, String> {
    let limit = ProxyCredentials::BYTES_MAX as u64 + 2;
    let mut text = String::new();
    let file = fs::File::open(path).and_then(|file| file.take(limit).read_to_string(&mut text));
    file.map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    text.parse().map_err(|error| format!("{}: {error}", path.display()))
}

/// Host and port out of `http://host:port`; none when the text is something else.
pub(super) fn parse_proxy(text: &str) -> Option<(String, u16)> {
    let url = Url::parse(text).ok()?;
    let is_bare = url.scheme() == "http"
        && url.username().is_empty()
        && url.password().is_none()
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none();
    // A URL without a port has that of its scheme.
    let (host, port) = (url.host_str()?.to_owned(), url.port_or_known_default()?);
    (is_bare && port > 0).then_some((host, port))
}

fn proxy<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<(String, u16)>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    parse_proxy(&text).map(Some).ok_or_else(|| serde::de::Error::custom("egress.proxy is not such as http://proxy.internal:3128"))
}

fn bypass<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Bypass>, D::Error> {
    let entries = Vec::<String>::deserialize(deserializer)?;
    entries.iter().map(|entry| entry.parse().map_err(serde::de::Error::custom)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_a_host_and_a_port_and_nothing_else() {
        let parsed = |text| parse_proxy(text).map(|(host, port)| format!("{host} {port}"));
        assert_eq!(parsed("http://proxy.internal:3128").as_deref(), Some("proxy.internal 3128"));
        assert_eq!(parsed("http://10.1.1.1:8080/").as_deref(), Some("10.1.1.1 8080"));
        assert_eq!(parsed("http://[fd00::1]").as_deref(), Some("[fd00::1] 80"));
        for text in ["", "proxy:3128", "https://proxy:3128", "socks5://proxy:1", "http://a:b@proxy:1", "http://proxy:1/x", "http://proxy:0"]
        {
            assert_eq!(parsed(text), None, "{text}");
        }
    }
}
