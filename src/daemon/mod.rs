//! The daemon: puts the parts together, runs them until a signal, and takes them apart again.

mod assembly;
mod clock;
mod deliverer;
mod listeners;
mod master_key;
mod offline;
mod origins;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tracing::{error, info, warn};

use self::assembly::{Assembly, Ground, Role};
pub use self::clock::SystemClock;
use self::listeners::Listeners;
pub use self::master_key::MasterKeyError;
pub use self::offline::Offline;
use crate::catalog::CatalogError;
use crate::config::{Config, Environment, LogFormat};
use crate::delivery::{Engine, EngineError, EngineHandle};
use crate::domain::clock::Clock;
use crate::http::{ConnectionLimits, Connections};
use crate::service::Services;
use crate::service::issuers::KeySetError;
use crate::store::disk::DataDirectoryError;
use crate::store::faults::Faults;
use crate::store::{OpenError, StorageFault, relay_answers};
use crate::telemetry::logs::{self, FilterError, Form};
use crate::webhook::{Sender, SenderError};

/// How long open connections may take to end after a signal.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(20);

/// The exit code after a fault of the storage (`EX_IOERR` of sysexits.h).
pub const EXIT_STORAGE_FAULT: i32 = 74;

/// What a test hands in instead of the real thing.
#[derive(Clone)]
pub struct Seams {
    /// Wall and monotonic time.
    pub clock: Arc<dyn Clock>,
    /// Planted bugs.
    pub faults: Faults,
    /// Called once when the storage fails.
    pub on_fault: Arc<dyn Fn(&StorageFault) + Send + Sync>,
}

impl std::fmt::Debug for Seams {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Seams").field("clock", &self.clock).field("faults", &self.faults).finish_non_exhaustive()
    }
}

impl Seams {
    /// The machine's clock, no planted bugs, and the end of the process when the storage fails: what is under way is
    /// then unknown to its callers, and only a new start can tell what is on disk.
    #[must_use]
    pub fn real() -> Self {
        Self { clock: Arc::new(SystemClock), faults: Faults::default(), on_fault: Arc::new(|_| std::process::exit(EXIT_STORAGE_FAULT)) }
    }
}

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log filter is wrong.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The catalogue's file is wrong.
    #[error("{0}")]
    Catalog(#[from] CatalogError),
    /// The keys of an external issuer cannot be used.
    #[error("oauth.external_issuers: {0}")]
    Issuers(#[from] KeySetError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DataDirectoryError),
    /// There is no master key.
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    /// The delivery engine does not start.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Webhooks cannot be sent.
    #[error(transparent)]
    Sender(#[from] SenderError),
    /// The store cannot be opened.
    #[error("the store cannot be opened: {0}")]
    Store(#[from] OpenError),
    /// After a fault of the storage, damage was found.
    #[error(
        "the last run ended with a fault of the storage, and the check found damage:\n{}\nRestore a backup, or remove {} to start all the same: what is damaged is then refused, the rest is served",
        .faults.join("\n"), .marker.display()
    )]
    Damaged {
        /// The file that makes the start check.
        marker: PathBuf,
        /// What is wrong.
        faults: Vec<String>,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address, or the path of the local socket.
        address: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// Something else that the operating system refuses.
    #[error("{what} cannot be had: {source}")]
    Io {
        /// What was asked for.
        what: &'static str,
        /// What the operating system says.
        source: io::Error,
    },
}

impl StartError {
    /// Whether the configuration must be changed, rather than the machine.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Filter(_) | Self::Catalog(_) | Self::Issuers(_))
    }
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    assembly: Assembly,
    address: SocketAddr,
    socket: PathBuf,
    threads: Vec<JoinHandle<()>>,
}

impl Daemon {
    /// Opens the store, binds the listeners, and starts to serve.
    ///
    /// # Errors
    /// See [`StartError`]; nothing runs then.
    pub fn start(config: Config, seams: &Seams) -> Result<Self, StartError> {
        let connection_limits = ConnectionLimits {
            connections_max: config.server.connections_max,
            header_read_timeout: Duration::from_secs(config.server.header_read_timeout_seconds),
            idle_timeout: Duration::from_secs(config.server.idle_timeout_seconds),
        };
        let runtimes = match config.server.http_runtimes {
            0 => std::thread::available_parallelism().map_or(1, |cores| cores.get().saturating_sub(1).max(1)),
            count => count,
        };
        // The store comes first: its lock tells a second daemon from the first before it takes the socket away.
        let ground = Ground::open(&config, seams)?;
        let listeners = match Listeners::bind(&config) {
            Ok(listeners) => listeners,
            Err(error) => {
                ground.close();
                return Err(error);
            }
        };
        let address = listeners.address;
        // Only now is known what receivers are told, so the engine starts behind the listeners.
        let mut config = config;
        if config.public_url.is_empty() {
            config.public_url = format!("http://{address}");
        }
        let assembly = match Assembly::start(ground, config, seams, Role::Daemon) {
            Ok(assembly) => assembly,
            Err(error) => {
                // What is left there if this fails is replaced at the next start.
                let _removed = std::fs::remove_file(&listeners.socket_path);
                return Err(error);
            }
        };
        let services = assembly.services.clone();
        let connections = Connections::new(&services, &connection_limits);
        let mut daemon = Self { assembly, address, socket: listeners.socket_path.clone(), threads: Vec::with_capacity(runtimes) };
        for number in 0..runtimes {
            let started = listeners.for_runtime(number).and_then(|(network, local)| {
                let (connections, services) = (connections.clone(), services.clone());
                let engine = daemon.assembly.engine.as_ref().map(Engine::handle);
                let sender = daemon.assembly.sender.clone();
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                std::thread::Builder::new().name(format!("http-{number}")).spawn(move || {
                    runtime.block_on(serve(&connections, &services, engine.as_ref(), sender.as_ref(), network, local));
                })
            });
            match started {
                Ok(thread) => daemon.threads.push(thread),
                Err(source) => {
                    daemon.stop();
                    return Err(StartError::Io { what: "a thread for HTTP", source });
                }
            }
        }
        Ok(daemon)
    }

    /// Where the daemon listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The path of the local socket.
    #[must_use]
    pub fn socket(&self) -> &std::path::Path {
        &self.socket
    }

    /// Ends in order: no new connections, requests under way are answered, what waits is written, the store is closed.
    pub fn stop(self) {
        self.assembly.services.shutdown.cancel();
        for thread in self.threads {
            // A panic of a thread has been reported by its hook; the others end all the same.
            let _ended = thread.join();
        }
        // Gone before the lock is, so that the next daemon's own socket is never taken away.
        if let Err(error) = std::fs::remove_file(&self.socket) {
            warn!(%error, "The local socket could not be removed: {error}");
        }
        self.assembly.close();
    }
}

/// What one HTTP thread does: accepts and serves, and with the local socket also looks after retention and the keys of
/// external issuers.
async fn serve(
    connections: &Connections,
    services: &Services,
    engine: Option<&EngineHandle>,
    sender: Option<&Sender>,
    network: std::net::TcpListener,
    local: Option<std::os::unix::net::UnixListener>,
) {
    tokio::spawn(relay_answers());
    let network = match TcpListener::from_std(network) {
        Ok(listener) => listener,
        Err(error) => {
            error!(%error, "A listener could not be used: {error}");
            services.shutdown.cancel();
            return;
        }
    };
    let local = local.and_then(|listener| UnixListener::from_std(listener).ok());
    match local {
        Some(local) => {
            tokio::join!(
                connections.accept_network(network),
                connections.accept_local(local),
                keep_retention(services, engine),
                keep_issuers(services, sender),
                services.streams.run(&services.shutdown)
            );
        }
        None => connections.accept_network(network).await,
    }
    let left = connections.drain(Instant::now() + DRAIN_TIME_MAX).await;
    if left > 0 {
        warn!(connections = left, "{left} connections did not end in {} s and were cut", DRAIN_TIME_MAX.as_secs());
    }
}

/// Drops expired segments, again and again; what is still owed of them expires first, with a record.
async fn keep_retention(services: &Services, engine: Option<&EngineHandle>) {
    loop {
        let wait = services.config.load().retention.purge_interval();
        tokio::select! {
            () = services.shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        // The same for both: what expires while the engine writes down is not to go without a record.
        let cutoff = services.store.cutoff();
        if let Some(engine) = engine {
            engine.expire(cutoff).await;
        }
        let store = services.store.clone();
        // A fault has been reported by the store itself, which ends the daemon.
        let _dropped = tokio::task::spawn_blocking(move || store.drop_expired_before(cutoff)).await;
    }
}

/// Fetches the keys of external issuers, again and again.
async fn keep_issuers(services: &Services, sender: Option<&Sender>) {
    let Some(sender) = sender else { return };
    tokio::select! {
        () = services.shutdown.cancelled() => {}
        () = services.issuers.keep_fetched(sender, services.clock.as_ref()) => {}
    }
}

/// Raises the limit of open files to what the operating system allows: each connection is one.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        warn!(%error, "The limit of open files could not be raised: {error}");
    }
}

/// Runs the daemon until SIGTERM or SIGINT; prints where it listens once it does.
///
/// # Errors
/// See [`StartError`].
pub fn run(config: Config) -> Result<(), StartError> {
    let form = match config.log.format {
        LogFormat::Json => Form::Json,
        LogFormat::Text => Form::Text,
    };
    logs::start(form, &config.log.filter)?;
    raise_file_limit();
    let environment = config.environment;
    let data_dir = config.data_dir.clone();
    let waiting = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let waiting = waiting.map_err(|source| StartError::Io { what: "a runtime", source })?;
    // Signals are caught before the start, so that one that comes early still ends the daemon in order.
    let signals = waiting.block_on(async { Ok((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)) });
    let (mut terminate, mut interrupt) = signals.map_err(|source| StartError::Io { what: "signals", source })?;
    let daemon = Daemon::start(config, &Seams::real())?;
    let address = daemon.address();
    if environment == Environment::Development {
        warn!("This is a development daemon: it speaks plain http, and `environment = \"production\"` is for real events");
    }
    info!(%address, data_dir = %data_dir.display(), version = env!("CARGO_PKG_VERSION"), "Listening on {address}, storing in {}", data_dir.display());
    let mut stdout = io::stdout();
    // Whoever started the daemon without standard output does not wait for this line.
    let _told = writeln!(stdout, "lutine listening on http://{address}").and_then(|()| stdout.flush());
    let shutdown = daemon.assembly.services.shutdown.clone();
    waiting.block_on(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = shutdown.cancelled() => {}
        }
    });
    info!("Stopping");
    daemon.stop();
    Ok(())
}
