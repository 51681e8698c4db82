//! Where webhooks go: the rules of a receiver's URL. One parser reads it, the URL standard's (WHATWG), so that the
//! address that is checked is the address that is connected to, however it is spelled.

use std::net::IpAddr;

use hyper::Uri;
use hyper::header::HeaderValue;
use rustls::pki_types::ServerName;
use url::{Host, Url};

use super::Failure;
use crate::domain::egress::{EgressDenied, EgressPolicy, Rule};
use crate::domain::proxy::Proxy;
use crate::domain::retry::ErrorClass;

/// The longest URL of a receiver, in bytes.
pub const URL_BYTES_MAX: usize = 2048;

/// Why a text cannot be the URL of a receiver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Longer than [`URL_BYTES_MAX`].
    #[error("the URL is longer than {URL_BYTES_MAX} bytes")]
    Length,
    /// Characters that parsers of URLs take differently.
    #[error("the URL has white space, a control character or a backslash")]
    Characters,
    /// Not an absolute URL.
    #[error("the URL is not an absolute URL such as https://partner.example/hooks: {0}")]
    Syntax(String),
    /// Neither `https` nor `http`.
    #[error("the URL must begin with https://")]
    Scheme,
    /// `http`, and the operator does not allow it.
    #[error("the URL must begin with https://, because egress.allow_http is false")]
    Plain,
    /// User name or password.
    #[error("the URL holds a user name or a password; use auth instead")]
    UserInfo,
    /// A fragment.
    #[error("the URL has a fragment, which is never sent")]
    Fragment,
    /// Port 0.
    #[error("the URL has port 0")]
    Port,
    /// An address that may not be sent to.
    #[error(transparent)]
    Egress(#[from] EgressDenied),
    /// The name of the own machine.
    #[error("the URL names this machine, which only a development daemon sends to")]
    Localhost,
}

/// A receiver's URL, taken apart for connecting and for the request line.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    pub host: Host,
    pub port: u16,
    /// The name that the certificate must bear; none means `http`.
    pub server_name: Option<ServerName<'static>>,
    /// The `Host` header.
    pub authority: HeaderValue,
    /// Path and query.
    pub path: Uri,
}

impl Endpoint {
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let url = parse(text)?;
        let syntax = |reason: &str| UrlError::Syntax(reason.to_owned());
        let host = url.host().ok_or_else(|| syntax("it has no host"))?.to_owned();
        let port = url.port_or_known_default().ok_or_else(|| syntax("it has no port"))?;
        let authority = url.port().map_or_else(|| host.to_string(), |port| format!("{host}:{port}"));
        let authority = HeaderValue::try_from(authority).map_err(|_| syntax("its host is no header value"))?;
        let path = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
        let path = Uri::try_from(path).map_err(|_| syntax("its path or query has characters that HTTP does not take"))?;
        let server_name = match &host {
            _ if url.scheme() == "http" => None,
            Host::Domain(name) => Some(ServerName::try_from(name.clone()).map_err(|_| syntax("its host is no name"))?),
            Host::Ipv4(address) => Some(IpAddr::from(*address).into()),
            Host::Ipv6(address) => Some(IpAddr::from(*address).into()),
        };
        Ok(Self { host, port, server_name, authority, path })
    }

    /// The address that stands in the URL itself, if it is not a name.
    pub fn literal(&self) -> Option<IpAddr> {
        literal(&self.host)
    }

    /// The proxy that leads there.
    pub fn proxy<'a>(&self, policy: &'a EgressPolicy) -> Option<&'a Proxy> {
        policy.proxy.as_ref().filter(|proxy| proxy.bypass_for(&self.host.to_string(), self.literal()).is_none())
    }

    /// Decides about what can be decided without resolving a name: all there is, when a proxy resolves it.
    pub fn decide_unresolved(&self, policy: &EgressPolicy) -> Result<(), (Option<IpAddr>, Failure)> {
        let refused = |error: String| Failure::new(ErrorClass::Egress, error);
        match (&self.host, self.literal()) {
            (_, Some(address)) => policy.decide(address).map_err(|denied| (Some(address), refused(refusal(denied.rule)))),
            (Host::Domain(name), None) if is_localhost(name) && !policy.allow_loopback => {
                Err((None, refused(UrlError::Localhost.to_string())))
            }
            _ => Ok(()),
        }
    }
}

fn literal(host: &Host<impl AsRef<str>>) -> Option<IpAddr> {
    match host {
        Host::Ipv4(address) => Some((*address).into()),
        Host::Ipv6(address) => Some((*address).into()),
        Host::Domain(_) => None,
    }
}

fn parse(text: &str) -> Result<Url, UrlError> {
    if text.len() > URL_BYTES_MAX {
        return Err(UrlError::Length);
    }
    if text.chars().any(|character| character.is_whitespace() || character.is_control() || character == '\\') {
        return Err(UrlError::Characters);
    }
    let url = Url::parse(text).map_err(|error| UrlError::Syntax(error.to_string()))?;
    if !matches!(url.scheme(), "https" | "http") {
        return Err(UrlError::Scheme);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(UrlError::UserInfo);
    }
    if url.fragment().is_some() {
        return Err(UrlError::Fragment);
    }
    if url.port() == Some(0) {
        return Err(UrlError::Port);
    }
    Ok(url)
}

/// Whether a name always means the own machine (RFC 6761, 6.3).
fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name == "localhost" || name.ends_with(".localhost")
}

/// Checks the URL of a subscription that is created or changed. A name is not resolved here: what it means is decided
/// at every connection.
///
/// # Errors
/// Says what is wrong with it.
pub fn check_url(text: &str, policy: &EgressPolicy) -> Result<(), UrlError> {
    let url = parse(text)?;
    let endpoint = Endpoint::parse(text)?;
    if url.scheme() == "http" && !policy.allow_http {
        return Err(UrlError::Plain);
    }
    match (&endpoint.host, endpoint.literal()) {
        (_, Some(address)) => Ok(policy.decide(address)?),
        (Host::Domain(name), None) if is_localhost(name) && !policy.allow_loopback => Err(UrlError::Localhost),
        _ => Ok(()),
    }
}

/// Why an endpoint's address is refused, in words that do not give away what a name resolves to.
pub(super) fn refusal(rule: Rule) -> String {
    format!("the receiver's address is not allowed: {rule}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> EgressPolicy {
        EgressPolicy { allow: vec!["10.20.0.0/16".parse().unwrap()], allow_public: true, ..EgressPolicy::default() }
    }

    #[test]
    fn takes_https_urls_of_allowed_hosts() {
        for url in [
            "https://partner.example/hooks?key=1",
            "https://partner.example",
            "HTTPS://Partner.Example:8443/%20a",
            "https://10.20.1.1/",
            "https://[2606:4700::1111]:444/",
            "https://bücher.example/ä?ö=|",
        ] {
            assert_eq!(check_url(url, &policy()), Ok(()), "{url}");
        }
        assert_eq!(check_url("http://127.0.0.1:1/", &EgressPolicy { allow_http: true, allow_loopback: true, ..policy() }), Ok(()));
        assert_eq!(check_url("https://localhost/", &EgressPolicy { allow_loopback: true, ..policy() }), Ok(()));
    }

    #[test]
    fn names_what_is_wrong_with_a_url() {
        let long = format!("https://a.example/{}", "x".repeat(URL_BYTES_MAX));
        let wrong = [
            (long.as_str(), UrlError::Length),
            ("https://a.example/ b", UrlError::Characters),
            (" https://a.example/", UrlError::Characters),
            ("https://a.exa\tmple/", UrlError::Characters),
            ("https:\\\\127.0.0.1\\", UrlError::Characters),
            ("ftp://a.example/", UrlError::Scheme),
            ("file:///etc/passwd", UrlError::Scheme),
            ("http://a.example/", UrlError::Plain),
            ("https://user@a.example/", UrlError::UserInfo),
            ("https://:word@a.example/", UrlError::UserInfo),
            ("https://a.example/#b", UrlError::Fragment),
            ("https://a.example:0/", UrlError::Port),
            ("https://localhost/", UrlError::Localhost),
            ("https://LOCALHOST./", UrlError::Localhost),
            ("https://a.localhost/", UrlError::Localhost),
        ];
        for (url, error) in wrong {
            assert_eq!(check_url(url, &policy()), Err(error), "{url}");
        }
        for url in ["", "/hooks", "https://", "https://a.example:70000/", "https://1.2.3.4.5.6.7/", "https://a b/", "https://[::1/"] {
            assert!(check_url(url, &policy()).is_err(), "{url}");
        }
        for url in ["https://127.1/", "https://0x7f000001/", "https://[::ffff:127.0.0.1]/", "https://169.254.169.254/latest"] {
            assert!(matches!(check_url(url, &policy()), Err(UrlError::Egress(_))), "{url}");
        }
    }

    #[test]
    fn the_request_names_host_port_path_and_query() {
        let endpoint = Endpoint::parse("https://Partner.Example:8443/a?b=c").unwrap();
        assert_eq!((endpoint.authority.to_str().unwrap(), endpoint.path.to_string().as_str()), ("partner.example:8443", "/a?b=c"));
        assert_eq!(Endpoint::parse("https://[::1]:443").unwrap().authority, "[::1]");
        assert_eq!(Endpoint::parse("http://a.example:443").unwrap().authority, "a.example:443");
    }
}
