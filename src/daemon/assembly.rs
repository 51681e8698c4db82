//! Putting store and services together, for the daemon and for commands that work on a stopped one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::deliverer::EngineDeliverer;
use super::master_key;
use super::origins::origins;
use super::{Seams, StartError};
use crate::catalog::{Catalog, Validation};
use crate::config::Config;
use crate::delivery::{Engine, EngineOptions, PermitLimits};
use crate::service::issuers::Issuers;
use crate::service::subscriptions::Deliverer;
use crate::service::{Foundations, Services};
use crate::store::disk::DataDirectory;
use crate::store::{FaultSink, Store, StoreOptions, StoreThreads};
use crate::telemetry::metrics::Metrics;
use crate::webhook::{Origins, Sender, SystemResolver, TrustedRoots};

/// Left behind by a daemon that ended because of its storage; the next start then reads everything from the disk.
const MARKER: &str = "storage-fault";

/// A store at work, and what services are to be put onto it.
#[derive(Debug)]
pub(super) struct Ground {
    store: Store,
    threads: StoreThreads,
    catalog: Arc<Catalog>,
    issuers: Arc<Issuers>,
    metrics: Arc<Metrics>,
    /// Holds the lock of the data directory for as long as anything runs on it.
    directory: Arc<DataDirectory>,
}

/// Store and services at work.
#[derive(Debug)]
pub(super) struct Assembly {
    pub services: Services,
    /// None when only a command has the store open.
    pub engine: Option<Engine>,
    /// Fetches the keys of external issuers; none when only a command has the store open.
    pub sender: Option<Sender>,
    threads: StoreThreads,
    _directory: Arc<DataDirectory>,
}

/// Who has the store open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The daemon, which delivers.
    Daemon,
    /// A command, which leaves that to the daemon.
    Command,
}

/// Attempts in flight to one host and port, as a part of all: two receivers that hang leave room for others.
const HOST_SHARE: usize = 2;

fn start_engine(
    config: &Config,
    seams: &Seams,
    ground: &Ground,
    sender: Sender,
    origins: Origins,
    shutdown: &CancellationToken,
) -> Result<Engine, StartError> {
    let all = config.delivery.concurrency_max;
    let options = EngineOptions {
        limits: PermitLimits { all, per_host: (all / HOST_SHARE).max(1) },
        origins,
        metrics: Arc::clone(&ground.metrics.delivery),
        faults: seams.faults,
        shutdown: shutdown.clone(),
    };
    Ok(Engine::start(ground.store.clone(), sender, options)?)
}

impl Ground {
    /// Opens the store and starts its threads.
    pub fn open(config: &Config, seams: &Seams) -> Result<Self, StartError> {
        let catalog_file = Some(config.catalog.file.as_path()).filter(|path| !path.as_os_str().is_empty());
        let catalog =
            Arc::new(Catalog::load(catalog_file, config.catalog.strict, Validation::parse(&config.catalog.validate).unwrap_or_default())?);
        let issuers = Arc::new(Issuers::load(&config.oauth.external_issuers, &config.egress_policy())?);
        let directory = Arc::new(DataDirectory::open(&config.data_dir)?);
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let master = master_key::load(&config.data_dir, credentials.as_deref(), config.environment)?;
        let marker = config.data_dir.join(MARKER);
        let is_distrusted = marker.exists();
        if is_distrusted {
            warn!("The last run ended with a fault of the storage; everything is read from the disk again and checked");
            directory.drop_page_cache().map_err(|source| StartError::Io { what: "the page cache", source })?;
        }
        let metrics = Arc::new(Metrics::new());
        let options = StoreOptions {
            retention: config.retention.span(),
            segment_bytes_max: config.log_store.segment_bytes_max,
            segment_age_max: std::time::Duration::from_secs_f64(config.log_store.segment_hours_max * 3600.0),
            queue_events_max: config.limits.queue_events_max,
            queue_bytes_max: config.limits.queue_bytes_max,
            metrics: Arc::clone(&metrics.store),
        };
        let on_fault = Arc::clone(&seams.on_fault);
        let marker_of_sink = marker.clone();
        let sink = FaultSink::new(move |fault| {
            leave_marker(&marker_of_sink, &fault.to_string());
            on_fault(fault);
        });
        let store = Store::open(directory.clone(), Arc::clone(&seams.clock), &master, options, seams.faults, sink)?;
        if is_distrusted {
            check_all(&store, &marker)?;
        }
        let threads = store.start()?;
        Ok(Self { store, threads, catalog, issuers, metrics, directory })
    }

    /// Writes what waits, and closes the store.
    pub fn close(self) {
        self.threads.stop();
    }
}

impl Assembly {
    /// Puts the services onto a store, and for the daemon starts the delivery engine. `config.public_url` is what
    /// receivers are told.
    pub fn start(ground: Ground, config: Config, seams: &Seams, role: Role) -> Result<Self, StartError> {
        let shutdown = CancellationToken::new();
        let origins = origins(ground.store.clone(), Arc::clone(&ground.catalog), &config.public_url);
        let started = match role {
            Role::Command => Ok(None),
            Role::Daemon => sender(&config, &ground.metrics).and_then(|sender| {
                let engine = start_engine(&config, seams, &ground, sender.clone(), origins.clone(), &shutdown)?;
                Ok(Some((sender, engine)))
            }),
        };
        let (sender, engine) = match started {
            Ok(started) => started.unzip(),
            Err(error) => {
                ground.close();
                return Err(error);
            }
        };
        let deliverer = engine.as_ref().map(|engine| Arc::new(EngineDeliverer(engine.handle())) as Arc<dyn Deliverer>);
        let Ground { store, threads, catalog, issuers, metrics, directory } = ground;
        let services = Services::new(Foundations {
            store,
            engine: deliverer,
            sender: sender.clone(),
            origins,
            catalog,
            issuers,
            config: Arc::new(ArcSwap::from_pointee(config)),
            clock: Arc::clone(&seams.clock),
            metrics,
            shutdown,
        });
        match services {
            Ok(services) => Ok(Self { services, engine, sender, threads, _directory: directory }),
            Err(error) => {
                if let Some(engine) = engine {
                    engine.stop();
                }
                threads.stop();
                Err(StartError::Io { what: "randomness", source: io::Error::other(error.to_string()) })
            }
        }
    }

    /// Ends the deliveries, writes what waits, and closes the store.
    pub fn close(self) {
        self.services.shutdown.cancel();
        if let Some(engine) = self.engine {
            engine.stop();
        }
        self.threads.stop();
    }
}

fn sender(config: &Config, metrics: &Metrics) -> Result<Sender, StartError> {
    let policy = Arc::new(ArcSwap::from_pointee(config.egress_policy()));
    let sender = Sender::new(policy, Arc::new(SystemResolver::default()), TrustedRoots::system())?;
    Ok(sender.counting(Arc::clone(&metrics.tokens)))
}

fn leave_marker(path: &Path, reason: &str) {
    let written = fs::write(path, format!("{reason}\n")).and_then(|()| fs::File::open(path)?.sync_all());
    if let Err(error) = written {
        error!(%error, "The marker of the fault could not be written: {error}");
    }
}

/// Every checksum of the store, after a fault of the storage.
fn check_all(store: &Store, marker: &Path) -> Result<(), StartError> {
    let report = store.verify().map_err(crate::store::OpenError::from)?;
    if !report.faults.is_empty() {
        return Err(StartError::Damaged { marker: marker.to_owned(), faults: report.faults });
    }
    info!(events = report.events, "All {} events are whole", report.events);
    fs::remove_file(marker).map_err(|source| StartError::Io { what: "the marker of the last fault", source })
}
