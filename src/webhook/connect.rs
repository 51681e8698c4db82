//! From a receiver's URL to a connection that the policy allows.
//!
//! The policy decides about the address that is connected to, whether it stands in the URL or comes from a name, and
//! about the far end of the connected socket before the first byte is sent. Behind a proxy it decides about addresses that
//! stand in the URL; what a name means is the proxy's to decide there.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::Host;

use super::connection::{Connection, Open, Stream};
use super::endpoint::{Endpoint, refusal};
use super::resolve::Resolve;
use super::tls::{TrustedRoots, handshake_text};
use super::trust::Trust;
use super::tunnel;
use super::{Failure, Progress, Stage};
use crate::domain::egress::EgressPolicy;
use crate::domain::retry::ErrorClass;

/// How long all addresses of a host may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Addresses of one host that are tried.
const ADDRESSES_MAX: usize = 4;

/// What the kernel may take of an answer before it is read, in bytes. A receiver that sends without end is held up there
/// until its connection is closed, and costs no more memory.
const RECEIVE_BUFFER_BYTES: u32 = 64 * 1024;

/// Opens connections.
#[derive(Clone)]
pub(super) struct Connector {
    pub resolver: Arc<dyn Resolve>,
    /// The machine's.
    pub roots: TrustedRoots,
    /// What connections are made with that have no certificates of their own.
    pub tls: TlsConnector,
    pub open: Open,
}

fn unusable(error: rustls::Error) -> Failure {
    Failure::new(ErrorClass::Tls, format!("TLS cannot be set up: {error}"))
}

impl Connector {
    /// What a connection to a receiver is secured with.
    pub fn tls_for_receiver(&self, trust: Option<&Trust>) -> Result<TlsConnector, Failure> {
        trust.map_or_else(|| Ok(self.tls.clone()), |trust| trust.for_receiver(&self.roots).map_err(unusable))
    }

    /// What a connection to a receiver's token service is secured with.
    pub fn tls_for_tokens(&self, trust: Option<&Trust>) -> Result<TlsConnector, Failure> {
        trust.map_or_else(|| Ok(self.tls.clone()), |trust| trust.for_tokens(&self.roots).map_err(unusable))
    }

    /// Resolves, decides, connects, looks at the peer, and agrees on TLS; or has the proxy connect.
    pub async fn connect(
        &self,
        endpoint: &Endpoint,
        tls: &TlsConnector,
        policy: Arc<EgressPolicy>,
        progress: &mut Progress,
    ) -> Result<Connection, Failure> {
        let (stream, peer) = self.reach(endpoint, &policy, progress).await?;
        // Without it a webhook in two segments would wait for the acknowledgement of the first. It only costs time if it fails.
        let _ = stream.set_nodelay(true);
        let stream = match &endpoint.server_name {
            None => Stream::Plain(stream),
            Some(name) => {
                progress.stage = Stage::Securing;
                Stream::Tls(Box::new(secure(tls, stream, name.clone()).await?))
            }
        };
        Connection::begin(stream, peer, policy, &self.open)
            .await
            .map_err(|error| Failure::new(ErrorClass::Protocol, format!("HTTP did not begin: {error}")))
    }

    /// A stream to the endpoint and, unless a proxy leads there, the address at its other end.
    pub async fn reach(
        &self,
        endpoint: &Endpoint,
        policy: &EgressPolicy,
        progress: &mut Progress,
    ) -> Result<(TcpStream, Option<IpAddr>), Failure> {
        progress.stage = Stage::Resolving;
        if let Some(proxy) = endpoint.proxy(policy) {
            endpoint.decide_unresolved(policy).map_err(|(address, failure)| {
                progress.address = address;
                failure
            })?;
            progress.address = endpoint.literal();
            let addresses = self.resolve(&Host::parse(&proxy.host).map_err(|_| tunnel::no_host())?, proxy.port).await;
            progress.stage = Stage::Connecting;
            let of_proxy = |failure: Failure| failure.about("the proxy");
            let (stream, _) = dial(&addresses.map_err(of_proxy)?, &mut Progress::default()).await.map_err(of_proxy)?;
            return Ok((tunnel::open(stream, endpoint, proxy).await?, endpoint.literal()));
        }
        let addresses = self.resolve(&endpoint.host, endpoint.port).await?;
        for address in &addresses {
            decide(policy, address.ip(), progress)?;
        }
        progress.stage = Stage::Connecting;
        let (stream, peer) = dial(&addresses, progress).await?;
        if !addresses.iter().any(|address| address.ip() == peer) {
            return Err(Failure::new(ErrorClass::Egress, "the connection leads to another address than the one that was allowed"));
        }
        decide(policy, peer, progress)?;
        Ok((stream, Some(peer)))
    }

    /// The addresses of a host.
    pub async fn resolve(&self, host: &Host<impl AsRef<str>>, port: u16) -> Result<Vec<SocketAddr>, Failure> {
        let name = match host {
            Host::Ipv4(address) => return Ok(vec![(*address, port).into()]),
            Host::Ipv6(address) => return Ok(vec![(*address, port).into()]),
            Host::Domain(name) => name.as_ref(),
        };
        let found = self.resolver.resolve(name, port).await;
        let found = found.map_err(|error| Failure::new(ErrorClass::Dns, format!("the receiver's name cannot be resolved: {error}")))?;
        if found.is_empty() {
            return Err(Failure::new(ErrorClass::Dns, "the receiver's name has no address"));
        }
        // A resolver speaks of hosts; the port is the URL's.
        Ok(found.into_iter().map(|address| (address.ip(), port).into()).collect())
    }
}

/// Agrees on TLS.
pub(super) async fn secure(tls: &TlsConnector, stream: TcpStream, name: ServerName<'static>) -> Result<TlsStream<TcpStream>, Failure> {
    match timeout(HANDSHAKE, tls.connect(name, stream)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(Failure::new(ErrorClass::Tls, handshake_text(&error))),
        Err(_) => Err(Failure::new(ErrorClass::Timeout, format!("no agreement on TLS within {} s", HANDSHAKE.as_secs()))),
    }
}

fn decide(policy: &EgressPolicy, address: IpAddr, progress: &mut Progress) -> Result<(), Failure> {
    policy.decide(address).map_err(|denied| {
        progress.address = Some(address);
        Failure::new(ErrorClass::Egress, refusal(denied.rule))
    })
}

/// Connects to the first address that accepts; each gets an even share of the time that is left.
async fn dial(addresses: &[SocketAddr], progress: &mut Progress) -> Result<(TcpStream, IpAddr), Failure> {
    let end = Instant::now() + CONNECT;
    let count = addresses.len().min(ADDRESSES_MAX);
    let mut last = Failure::new(ErrorClass::Connect, "the receiver has no address to connect to");
    for (place, address) in addresses.iter().take(count).enumerate() {
        progress.address = Some(address.ip());
        let left = u32::try_from(count - place).unwrap_or(1);
        let share = end.saturating_duration_since(Instant::now()) / left;
        let stream = match timeout_at(Instant::now() + share, open(*address)).await {
            Ok(stream) => stream,
            Err(_) => {
                last = Failure::new(ErrorClass::Timeout, format!("the receiver accepted no connection within {} s", CONNECT.as_secs()));
                continue;
            }
        };
        match stream.and_then(|stream| stream.peer_addr().map(|peer| (stream, peer.ip()))) {
            Ok(connected) => return Ok(connected),
            Err(error) => last = Failure::new(ErrorClass::Connect, connect_text(&error)),
        }
    }
    Err(last)
}

async fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Before the connection is made, so that the receiver never learns of a larger one. Without it more is taken, no fault.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
    socket.connect(address).await
}

fn connect_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "the receiver refuses connections".to_owned(),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "the receiver cannot be reached from here".to_owned(),
        _ => format!("no connection to the receiver: {error}"),
    }
}
