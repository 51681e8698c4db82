//! From a receiver's URL to a connection that the policy allows.
//!
//! The policy decides about the address that is connected to, whether it stands in the URL or comes from a name, and
//! about the far end of the connected socket before the first byte is sent.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use url::Host;

use super::connection::{Connection, Open, Stream};
use super::endpoint::{Endpoint, refusal};
use super::resolve::Resolve;
use super::tls::handshake_text;
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
    pub tls: TlsConnector,
    pub open: Open,
}

impl Connector {
    /// Resolves, decides, connects, looks at the peer, and agrees on TLS.
    pub async fn connect(&self, endpoint: &Endpoint, policy: Arc<EgressPolicy>, progress: &mut Progress) -> Result<Connection, Failure> {
        progress.stage = Stage::Resolving;
        let addresses = self.addresses(endpoint).await?;
        for address in &addresses {
            decide(&policy, address.ip(), progress)?;
        }
        progress.stage = Stage::Connecting;
        let (stream, peer) = dial(&addresses, progress).await?;
        if !addresses.iter().any(|address| address.ip() == peer) {
            return Err(Failure::new(ErrorClass::Egress, "the connection leads to another address than the one that was allowed"));
        }
        decide(&policy, peer, progress)?;
        // Without it a webhook in two segments would wait for the acknowledgement of the first. It only costs time if it fails.
        let _ = stream.set_nodelay(true);
        let stream = match &endpoint.server_name {
            None => Stream::Plain(stream),
            Some(name) => {
                progress.stage = Stage::Securing;
                self.secure(stream, name.clone()).await?
            }
        };
        Connection::begin(stream, peer, policy, &self.open)
            .await
            .map_err(|error| Failure::new(ErrorClass::Protocol, format!("HTTP did not begin: {error}")))
    }

    async fn addresses(&self, endpoint: &Endpoint) -> Result<Vec<SocketAddr>, Failure> {
        let name = match &endpoint.host {
            Host::Ipv4(address) => return Ok(vec![(*address, endpoint.port).into()]),
            Host::Ipv6(address) => return Ok(vec![(*address, endpoint.port).into()]),
            Host::Domain(name) => name,
        };
        let found = self.resolver.resolve(name, endpoint.port).await;
        let found = found.map_err(|error| Failure::new(ErrorClass::Dns, format!("the receiver's name cannot be resolved: {error}")))?;
        if found.is_empty() {
            return Err(Failure::new(ErrorClass::Dns, "the receiver's name has no address"));
        }
        // A resolver speaks of hosts; the port is the URL's.
        Ok(found.into_iter().map(|address| (address.ip(), endpoint.port).into()).collect())
    }

    async fn secure(&self, stream: TcpStream, name: ServerName<'static>) -> Result<Stream, Failure> {
        match timeout(HANDSHAKE, self.tls.connect(name, stream)).await {
            Ok(Ok(stream)) => Ok(Stream::Tls(Box::new(stream))),
            Ok(Err(error)) => Err(Failure::new(ErrorClass::Tls, handshake_text(&error))),
            Err(_) => Err(Failure::new(ErrorClass::Timeout, format!("no agreement on TLS within {} s", HANDSHAKE.as_secs()))),
        }
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
