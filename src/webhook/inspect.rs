//! What the policy says about a URL, for the operator; and, when asked, whether somebody answers there.

use std::net::IpAddr;
use std::time::Duration;

use rustls::ProtocolVersion;
use tokio::time::timeout;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::endpoint::{Endpoint, UrlError, check_url};
use super::{Failure, Progress, Sender, connect};
use crate::domain::egress::{EgressPolicy, Grant, Rule};
use crate::domain::proxy::Bypass;
use crate::domain::retry::ErrorClass;
use crate::domain::time::Timestamp;

/// How long an inspection may take to resolve, and again to connect.
const PATIENCE: Duration = Duration::from_secs(15);

/// Which way a connection takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// Straight; `bypass` is the entry that lets it past the proxy, if there is a proxy.
    Direct {
        /// The entry.
        bypass: Option<Bypass>,
    },
    /// Through the proxy with this host and port.
    Proxy(String, u16),
}

/// What came of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tried {
    /// It stands.
    Connected {
        /// To where; a proxy does not tell.
        address: Option<IpAddr>,
        /// The version of TLS, and when the certificate expires; none for `http`.
        tls: Option<(&'static str, Option<Timestamp>)>,
    },
    /// It failed.
    Failed {
        /// Where to.
        address: Option<IpAddr>,
        /// The class of the error.
        class: ErrorClass,
        /// A sentence about it.
        error: String,
    },
}

/// What an inspection found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// Why nothing would be sent there; none when it would.
    pub refusal: Option<String>,
    /// Which way; none when the URL is none.
    pub way: Option<Way>,
    /// Every address with what allows or refuses it; empty when only a proxy resolves the name.
    pub addresses: Vec<(IpAddr, Result<Grant, Rule>)>,
    /// What came of a connection, if one was wanted and allowed.
    pub tried: Option<Tried>,
}

fn verdict(policy: &EgressPolicy, address: IpAddr) -> (IpAddr, Result<Grant, Rule>) {
    (address, policy.grant(address).map_err(|denied| denied.rule))
}

fn failed(failure: Failure, address: Option<IpAddr>) -> Tried {
    Tried::Failed { address, class: failure.class, error: failure.error }
}

fn version(version: Option<ProtocolVersion>) -> &'static str {
    match version {
        Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
        Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
        _ => "TLS",
    }
}

/// When a certificate expires.
fn expiry(der: &[u8]) -> Option<Timestamp> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    Some(Timestamp::from_micros(seconds.checked_mul(1_000_000)?))
}

impl Sender {
    /// Says what the policy of the moment does with a URL; with `connect` it also connects and agrees on TLS, and sends
    /// nothing. Takes at most half a minute.
    pub async fn inspect(&self, url: &str, connect: bool) -> Inspection {
        let policy = self.policy.load_full();
        let nothing = |refusal: String| Inspection { refusal: Some(refusal), way: None, addresses: Vec::new(), tried: None };
        let endpoint = match Endpoint::parse(url) {
            Ok(endpoint) => endpoint,
            Err(error) => return nothing(error.to_string()),
        };
        let proxy = endpoint.proxy(&policy);
        let host = endpoint.host.to_string();
        let way = match proxy {
            Some(proxy) => Way::Proxy(proxy.host.clone(), proxy.port),
            None => Way::Direct { bypass: policy.proxy.as_ref().and_then(|proxy| proxy.bypass_for(&host, endpoint.literal())).cloned() },
        };
        let mut addresses: Vec<_> = endpoint.literal().into_iter().map(|address| verdict(&policy, address)).collect();
        let mut refusal = check_url(url, &policy).err().map(|error: UrlError| error.to_string());
        if refusal.is_none() && addresses.is_empty() && proxy.is_none() {
            let resolved = timeout(PATIENCE, self.connector.resolve(&endpoint.host, endpoint.port)).await;
            match resolved {
                Ok(Ok(found)) => addresses = found.iter().map(|address| verdict(&policy, address.ip())).collect(),
                Ok(Err(failure)) => refusal = Some(failure.error),
                Err(_) => refusal = Some(format!("the receiver's name was not resolved within {} s", PATIENCE.as_secs())),
            }
            let refused = addresses.iter().find_map(|(address, verdict)| verdict.err().map(|rule| (address, rule)));
            refusal = refusal.or_else(|| refused.map(|(address, rule)| format!("{address} is not allowed: {rule}")));
        }
        let tried = if connect && refusal.is_none() { Some(self.try_connection(&endpoint, &policy).await) } else { None };
        Inspection { refusal, way: Some(way), addresses, tried }
    }

    async fn try_connection(&self, endpoint: &Endpoint, policy: &EgressPolicy) -> Tried {
        let mut progress = Progress::default();
        match timeout(PATIENCE, self.connection(endpoint, policy, &mut progress)).await {
            Ok(Ok(tried)) => tried,
            Ok(Err(failure)) => failed(failure, progress.address),
            Err(_) => {
                let error = format!("{} s passed while {}", PATIENCE.as_secs(), progress.stage);
                failed(Failure::new(ErrorClass::Timeout, error), progress.address)
            }
        }
    }

    async fn connection(&self, endpoint: &Endpoint, policy: &EgressPolicy, progress: &mut Progress) -> Result<Tried, Failure> {
        let (stream, address) = self.connector.reach(endpoint, policy, progress).await?;
        let Some(name) = &endpoint.server_name else { return Ok(Tried::Connected { address, tls: None }) };
        let stream = connect::secure(&self.connector.tls, stream, name.clone()).await?;
        let (_, session) = stream.get_ref();
        let certificate = session.peer_certificates().and_then(|chain| chain.first());
        let expires = certificate.and_then(|certificate| expiry(certificate));
        Ok(Tried::Connected { address, tls: Some((version(session.protocol_version()), expires)) })
    }
}
