//! Names and their addresses.

use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::Semaphore;

/// What [`Resolve::resolve`] returns.
pub type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Finds the addresses of a host.
pub trait Resolve: Debug + Send + Sync {
    /// All addresses of `host`, in the order in which to try them.
    fn resolve(&self, host: &str, port: u16) -> Resolving;
}

/// Lookups at once; a lookup whose name server is silent holds a thread until the system gives up.
const LOOKUPS_MAX: usize = 64;

/// The operating system's resolver, which knows the operator's hosts file and name service switch.
#[derive(Debug, Clone)]
pub struct SystemResolver(Arc<Semaphore>);

impl Default for SystemResolver {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LOOKUPS_MAX)))
    }
}

impl Resolve for SystemResolver {
    fn resolve(&self, host: &str, port: u16) -> Resolving {
        let (host, lookups) = (host.to_owned(), self.0.clone());
        Box::pin(async move {
            let permit = lookups.acquire_owned().await.map_err(io::Error::other)?;
            let lookup = move || {
                // Moved here, because the thread stays in the lookup when nobody waits for its answer any more.
                let _permit = permit;
                (host.as_str(), port).to_socket_addrs().map(Iterator::collect)
            };
            tokio::task::spawn_blocking(lookup).await.map_err(io::Error::other)?
        })
    }
}
