//! The use cases of the daemon: what may be done, in which order, by whom.
//!
//! Nobody here knows a status code or a header; time is read from the clock that was handed in.

pub mod companies;
pub mod consumers;
pub mod cursors;
pub mod deliveries;
pub mod events;
pub mod key_text;
pub mod keys;
pub mod rates;
pub mod receiving;
pub mod streams;
pub mod subscriptions;

use std::ops::Deref;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use self::companies::CompanyService;
use self::consumers::ConsumerService;
use self::deliveries::DeliveryService;
use self::events::EventService;
use self::keys::KeyService;
use self::receiving::ReceivingService;
use self::streams::StreamService;
use self::subscriptions::{Deliverer, SubscriptionService};
use crate::catalog::Catalog;
use crate::config::Config;
use crate::domain::clock::Clock;
use crate::store::Store;
use crate::telemetry::metrics::Metrics;

/// What the services are made of, handed in by the daemon.
#[derive(Debug)]
pub struct Foundations {
    /// The log and the ledger.
    pub store: Store,
    /// The event types that are known.
    pub catalog: Arc<Catalog>,
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
    /// Subscriptions.
    pub subscriptions: Arc<SubscriptionService>,
    /// Deliveries.
    pub deliveries: DeliveryService,
}

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
        let events = EventService::new(store.clone(), Arc::clone(&foundations.catalog), Arc::clone(&foundations.clock));
        let streams = StreamService::new(store.clone(), Arc::clone(&foundations.clock), Arc::clone(&foundations.metrics.streams));
        let receiving = ReceivingService::new(store.clone());
        let consumers = ConsumerService::new(store.clone());
        let companies = CompanyService::new(store.clone());
        let environment = foundations.config.load().environment;
        let keys = KeyService::new(store.clone(), environment)?;
        let subscriptions = Arc::new(SubscriptionService::new(store.clone(), Arc::clone(&foundations.config), foundations.engine.clone()));
        let deliveries = DeliveryService::new(store.clone(), Arc::clone(&subscriptions));
        Ok(Self(Arc::new(Parts { events, streams, receiving, consumers, companies, keys, subscriptions, deliveries, foundations })))
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
