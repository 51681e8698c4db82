//! The use cases of the daemon: what may be done, in which order, by whom.
//!
//! Nobody here knows a status code or a header; time is read from the clock that was handed in.

pub mod assertions;
pub mod checks;
pub mod clients;
pub mod companies;
mod consent_token;
pub mod consumers;
pub mod credentials;
pub mod cursors;
pub mod deliveries;
pub mod egress;
pub mod events;
pub mod handshakes;
pub mod issuers;
pub mod jose;
pub mod key_text;
pub mod keys;
pub mod notifications;
pub mod rates;
pub mod receiving;
pub mod replays;
pub mod signing_keys;
pub mod streams;
pub mod subscriptions;
pub mod tokens;

use std::ops::Deref;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::clients::ClientService;
use self::companies::CompanyService;
use self::consumers::ConsumerService;
use self::deliveries::DeliveryService;
use self::events::EventService;
use self::issuers::Issuers;
use self::keys::KeyService;
use self::notifications::NotificationService;
use self::receiving::ReceivingService;
use self::replays::ReplayService;
use self::streams::StreamService;
use self::subscriptions::{Deliverer, SubscriptionService};
use self::tokens::TokenService;
use crate::catalog::Catalog;
use crate::config::Config;
use crate::domain::clock::Clock;
use crate::store::Store;
use crate::telemetry::metrics::Metrics;
use crate::webhook::{Origins, Sender};

/// What the services are made of, handed in by the daemon.
#[derive(Debug)]
pub struct Foundations {
    /// The log and the ledger.
    pub store: Store,
    /// What webhooks tell of where they come from.
    pub origins: Origins,
    /// Sends webhooks; none when only the command line has the store open.
    pub sender: Option<Sender>,
    /// The event types that are known.
    pub catalog: Arc<Catalog>,
    /// Who issues access tokens besides the daemon itself.
    pub issuers: Arc<Issuers>,
    /// The settings in force; read at the start of each unit of work.
    pub config: Arc<ArcSwap<Config>>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The delivery engine; none when only the command line has the store open.
    pub engine: Option<Arc<dyn Deliverer>>,
    /// Cancelled when the daemon stops: whoever waits answers at once.
    pub shutdown: CancellationToken,
}

/// All use cases and what they are made of.
#[derive(Debug)]
pub struct Parts {
    /// What the services are made of.
    pub foundations: Foundations,
    /// Publishing and reading events.
    pub events: EventService,
    /// Followers of the log.
    pub streams: StreamService,
    /// Receiving through the bridge.
    pub receiving: ReceivingService,
    /// Cursors that readers keep here.
    pub consumers: ConsumerService,
    /// Tenants.
    pub companies: CompanyService,
    /// API keys.
    pub keys: KeyService,
    /// OAuth clients.
    pub clients: ClientService,
    /// Access tokens.
    pub tokens: TokenService,
    /// Subscriptions.
    pub subscriptions: Arc<SubscriptionService>,
    /// Deliveries.
    pub deliveries: DeliveryService,
    /// What links of notifications lead to.
    pub notifications: NotificationService,
    /// Room for bodies with snapshots, a permit each; who finds none waits.
    pub large_bodies: Arc<Semaphore>,
    /// Replays.
    pub replays: ReplayService,
}

/// Bodies with snapshots that are in memory at the same time, each at most `limits.snapshot_body_bytes_max`.
const LARGE_BODIES_MAX: usize = 8;

/// All use cases; a clone is another handle.
#[derive(Debug, Clone)]
pub struct Services(Arc<Parts>);

impl Services {
    /// Puts the use cases together.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn new(foundations: Foundations) -> Result<Self, getrandom::Error> {
        let store = &foundations.store;
        let (catalog, clock, metrics) = (&foundations.catalog, &foundations.clock, &foundations.metrics);
        let events = EventService::new(store.clone(), Arc::clone(catalog), Arc::clone(clock), Arc::clone(metrics));
        let streams = StreamService::new(store.clone(), Arc::clone(clock), Arc::clone(&metrics.streams));
        let receiving = ReceivingService::new(store.clone());
        let consumers = ConsumerService::new(store.clone());
        let companies = CompanyService::new(store.clone());
        let environment = foundations.config.load().environment;
        let keys = KeyService::new(store.clone(), environment)?;
        let clients = ClientService::new(store.clone());
        let tokens = TokenService::new(store.clone(), Arc::clone(&foundations.config), Arc::clone(&foundations.issuers))?;
        let subscriptions = Arc::new(SubscriptionService::new(&foundations));
        let deliveries = DeliveryService::new(store.clone(), Arc::clone(&subscriptions));
        let notifications = NotificationService::new(store.clone());
        let large_bodies = Arc::new(Semaphore::new(LARGE_BODIES_MAX));
        let replays = ReplayService::new(store.clone(), foundations.engine.clone());
        Ok(Self(Arc::new(Parts {
            events,
            streams,
            receiving,
            consumers,
            companies,
            keys,
            clients,
            tokens,
            subscriptions,
            deliveries,
            notifications,
            replays,
            large_bodies,
            foundations,
        })))
    }
}

impl Deref for Services {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Deref for Parts {
    type Target = Foundations;

    fn deref(&self) -> &Foundations {
        &self.foundations
    }
}
