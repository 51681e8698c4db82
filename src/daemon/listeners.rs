//! The sockets that the daemon listens on.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use super::StartError;
use crate::config::Config;

/// Name of the local socket in the data directory.
pub(super) const SOCKET: &str = "lutine.sock";

/// Connections that may wait to be accepted; the operating system may allow fewer (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// Bound and not yet accepting.
#[derive(Debug)]
pub(super) struct Listeners {
    network: TcpListener,
    local: UnixListener,
    /// The address with the port that the operating system gave.
    pub address: SocketAddr,
    pub socket_path: PathBuf,
}

impl Listeners {
    /// Binds the configured address and the local socket. The caller holds the lock of the data directory, so that a
    /// socket that is there belongs to nobody.
    pub fn bind(config: &Config) -> Result<Self, StartError> {
        let listen = config.server.listen;
        let refused = |source| StartError::Listen { address: listen.to_string(), source };
        let network = TcpListener::bind(listen).map_err(refused)?;
        // The standard library asks for 128, which a burst of clients overflows.
        rustix::net::listen(&network, BACKLOG).map_err(|errno| refused(errno.into()))?;
        network.set_nonblocking(true).map_err(refused)?;
        let address = network.local_addr().map_err(refused)?;
        let socket_path = config.data_dir.join(SOCKET);
        let refused = |source| StartError::Listen { address: socket_path.display().to_string(), source };
        match fs::remove_file(&socket_path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(refused(error)),
            _ => {}
        }
        let local = UnixListener::bind(&socket_path).map_err(refused)?;
        // The data directory is open to its owner only, also before this.
        fs::set_permissions(&socket_path, fs::Permissions::from_mode(0o600)).map_err(refused)?;
        local.set_nonblocking(true).map_err(refused)?;
        Ok(Self { network, local, address, socket_path })
    }

    /// What the runtime with this number listens on: all share the network's socket, the first has the local one.
    pub fn for_runtime(&self, number: usize) -> io::Result<(TcpListener, Option<UnixListener>)> {
        let local = if number == 0 { Some(self.local.try_clone()?) } else { None };
        Ok((self.network.try_clone()?, local))
    }
}
