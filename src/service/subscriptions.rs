//! Subscriptions: creating, changing, pausing, deleting, and what they have not had yet.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Foundations;
use super::consent_token::ConsentTokens;
use super::cursors::{CursorError, CursorSealer};
use super::signing_keys::SigningKeyError;
use crate::config::Config;
use crate::domain::company::CompanyId;
use crate::domain::cursor::Position;
use crate::domain::event::{EventId, EventVersion, NewEvent};
use crate::domain::profile::SignatureForm;
use crate::domain::subscription::{Auth, DeliveryId, LaneStatus, ReplayId, Secret, Standing, Subscription, SubscriptionId, Wishes};
use crate::domain::time::Timestamp;
use crate::store::{Actor, AppendError, ReadError, Replay, RetryRow, SecretError, Store, SubscriptionChange, SubscriptionError, random};
use crate::webhook::{Origin, Origins, RsaKeyError, Sender, Target, TargetError, UrlError, check_url};

/// What is told or asked, when it is done.
pub type Telling<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The delivery engine, as far as its users need it. What it is told is in the ledger already.
pub trait Deliverer: Debug + Send + Sync {
    /// A subscription was created, with a position row at `position`.
    fn created(&self, subscription: Arc<Subscription>, position: Position) -> Telling<'_, ()>;
    /// A subscription was changed, paused or resumed.
    fn changed(&self, subscription: Arc<Subscription>) -> Telling<'_, ()>;
    /// A subscription was deleted.
    fn deleted(&self, company: CompanyId, id: SubscriptionId) -> Telling<'_, ()>;
    /// A delivery is owed by hand.
    fn owed(&self, delivery: DeliveryId, row: RetryRow) -> Telling<'_, ()>;
    /// Dead letters are owed by hand.
    fn revived(&self, rows: Vec<(DeliveryId, RetryRow)>) -> Telling<'_, ()>;
    /// A replay was asked for.
    fn replay(&self, replay: Replay) -> Telling<'_, ()>;
    /// A replay was cancelled.
    fn replay_cancelled(&self, subscription: SubscriptionId, replay: ReplayId) -> Telling<'_, ()>;
    /// Stops owing a delivery; false when it is not owed, or is being attempted at the moment.
    fn discard(&self, delivery: DeliveryId) -> Telling<'_, bool>;
    /// How a lane stands; none when it has nothing to do.
    fn status(&self, id: SubscriptionId) -> Telling<'_, Option<LaneStatus>>;
}

/// Why a subscription was not created or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WishError {
    /// The URL is wrong, or may not be sent to.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The token service's URL is wrong, or may not be sent to.
    #[error(transparent)]
    TokenUrl(UrlError),
    /// Something else cannot be sent.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Where it is to start is no cursor.
    #[error("startFrom is `tail`, `oldest` or a cursor of the company: {0}")]
    Start(#[source] CursorError),
    /// The company's key for its signature is not there.
    #[error(transparent)]
    Key(RsaKeyError),
    /// The ledger did not take it.
    #[error(transparent)]
    Store(#[from] SubscriptionError),
}

impl From<SigningKeyError> for WishError {
    fn from(error: SigningKeyError) -> Self {
        match error {
            SigningKeyError::Key(error) => Self::Key(error),
            SigningKeyError::Store(error) => Self::Store(error),
        }
    }
}

impl From<SecretError> for WishError {
    fn from(error: SecretError) -> Self {
        Self::Store(SubscriptionError::Secret(error))
    }
}

/// What a subscription has not had yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Events.
    pub events: u64,
    /// When the oldest of them was created.
    pub oldest: Option<Timestamp>,
}

/// The secret of webhooks as text: `whsec_` and base64 (Standard Webhooks 1.0.0, signature scheme).
#[must_use]
pub fn secret_text(secret: &Secret) -> String {
    format!("whsec_{}", STANDARD.encode(secret.0))
}

/// The use cases of subscriptions.
#[derive(Debug)]
pub struct SubscriptionService {
    store: Store,
    config: Arc<ArcSwap<Config>>,
    sealer: CursorSealer,
    tokens: ConsentTokens,
    origins: Origins,
    /// None when only the command line has the store open: it sends nothing.
    sender: Option<Sender>,
    /// None when only the command line has the store open: the engine reads the ledger when it starts.
    engine: Option<Arc<dyn Deliverer>>,
}

impl SubscriptionService {
    pub(super) fn new(foundations: &Foundations) -> Self {
        let store = foundations.store.clone();
        Self {
            sealer: CursorSealer::new(store.cursor_key(), store.epoch()),
            tokens: ConsentTokens::new(store.cursor_key()),
            origins: foundations.origins.clone(),
            sender: foundations.sender.clone(),
            config: Arc::clone(&foundations.config),
            engine: foundations.engine.clone(),
            store,
        }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn sender(&self) -> Option<&Sender> {
        self.sender.as_ref()
    }

    pub(super) fn consent_tokens(&self) -> &ConsentTokens {
        &self.tokens
    }

    /// What the webhooks of a company tell of it.
    pub(super) fn origin(&self, company: CompanyId) -> Origin {
        self.origins.of(company)
    }

    /// The subscription with this number, whosever it is.
    pub(super) fn any(&self, id: SubscriptionId) -> Option<Arc<Subscription>> {
        self.store.subscription(id)
    }

    /// Refuses what could not be sent to, before anything is written but a key that it needs.
    async fn check(&self, company: CompanyId, wishes: &Wishes, actor: &Actor) -> Result<(), WishError> {
        let policy = self.config.load().egress_policy();
        check_url(&wishes.url, &policy)?;
        if let Auth::OAuth2(credentials) = &wishes.auth {
            check_url(&credentials.token_url, &policy).map_err(WishError::TokenUrl)?;
        }
        let trial = Subscription {
            id: SubscriptionId(0),
            company,
            wishes: wishes.clone(),
            secret: Secret([0; 32]),
            previous: None,
            consent: None,
            resumes: 0,
            standing: Standing::Active,
            health: crate::domain::health::Health::default(),
            created: Timestamp::default(),
        };
        let is_signed_by_rsa = trial.knobs().signature == SignatureForm::BodyRsaSha256;
        if is_signed_by_rsa {
            self.need_rsa_key(company, actor).await?;
        }
        Target::new(&trial, self.origin(company))?;
        Ok(())
    }

    fn start(&self, company: CompanyId, start_from: Option<&str>) -> Result<Position, CursorError> {
        match start_from {
            None | Some("tail") => Ok(self.store.tail()),
            Some("oldest") => Ok(Position::START),
            Some(text) => {
                let cursor = self.sealer.read(text)?;
                if cursor.company == company { Ok(cursor.position) } else { Err(CursorError::Mismatch("company")) }
            }
        }
    }

    /// Creates a subscription; its first event is the first one above where it starts.
    ///
    /// # Errors
    /// See [`WishError`].
    pub async fn create(
        &self,
        company: CompanyId,
        wishes: Wishes,
        start_from: Option<&str>,
        actor: &Actor,
    ) -> Result<Arc<Subscription>, WishError> {
        self.check(company, &wishes, actor).await?;
        // Noted before the commit: what is published meanwhile is the subscription's already.
        let start = self.start(company, start_from).map_err(WishError::Start)?;
        let secret = Secret(random()?);
        let subscription = self.store.create_subscription(company, wishes, secret, start, actor).await?;
        if let Some(engine) = &self.engine {
            engine.created(Arc::clone(&subscription), start).await;
        }
        if subscription.standing == Standing::Unverified {
            return Ok(self.ask(subscription, actor).await?.subscription);
        }
        Ok(subscription)
    }

    /// The subscription with this number, if it is the company's.
    #[must_use]
    pub fn get(&self, company: CompanyId, id: SubscriptionId) -> Option<Arc<Subscription>> {
        self.store.subscription(id).filter(|subscription| subscription.company == company)
    }

    /// All of a company, by number.
    #[must_use]
    pub fn list(&self, company: CompanyId) -> Vec<Arc<Subscription>> {
        self.store.subscriptions_of(company)
    }

    /// Changes what its owner wants. None when there is no such subscription.
    ///
    /// # Errors
    /// See [`WishError`].
    pub async fn change(
        &self,
        company: CompanyId,
        id: SubscriptionId,
        wishes: Wishes,
        actor: &Actor,
    ) -> Result<Option<Arc<Subscription>>, WishError> {
        self.check(company, &wishes, actor).await?;
        self.apply(company, id, SubscriptionChange::Wishes(Box::new(wishes)), actor).await
    }

    /// Stops sending; nothing is lost meanwhile. None when there is no such subscription.
    ///
    /// # Errors
    /// See [`WishError`].
    pub async fn pause(&self, company: CompanyId, id: SubscriptionId, actor: &Actor) -> Result<Option<Arc<Subscription>>, WishError> {
        self.apply(company, id, SubscriptionChange::Standing(Standing::Paused), actor).await
    }

    /// Sends again, whatever stopped it. None when there is no such subscription.
    ///
    /// # Errors
    /// See [`WishError`].
    pub async fn resume(&self, company: CompanyId, id: SubscriptionId, actor: &Actor) -> Result<Option<Arc<Subscription>>, WishError> {
        self.apply(company, id, SubscriptionChange::Resume, actor).await
    }

    pub(super) async fn apply(
        &self,
        company: CompanyId,
        id: SubscriptionId,
        change: SubscriptionChange,
        actor: &Actor,
    ) -> Result<Option<Arc<Subscription>>, WishError> {
        let changed = self.store.change_subscription(id, Some(company), change, actor).await?;
        if let (Some(engine), Some(subscription)) = (&self.engine, &changed) {
            engine.changed(Arc::clone(subscription)).await;
        }
        Ok(changed)
    }

    /// Gives a subscription another secret. For `overlap` from now on its webhooks are signed with the one before, too.
    /// None when there is no such subscription.
    ///
    /// # Errors
    /// See [`WishError`].
    pub async fn rotate_secret(
        &self,
        company: CompanyId,
        id: SubscriptionId,
        overlap: Duration,
        actor: &Actor,
    ) -> Result<Option<Arc<Subscription>>, WishError> {
        let rotated = SubscriptionChange::Rotate { secret: Secret(random()?), until: self.store.now().after(overlap) };
        self.apply(company, id, rotated, actor).await
    }

    /// Deletes a subscription. False when there is no such one.
    ///
    /// # Errors
    /// See [`WishError`].
    pub async fn delete(&self, company: CompanyId, id: SubscriptionId, actor: &Actor) -> Result<bool, WishError> {
        let is_deleted = self.store.delete_subscription(id, Some(company), actor).await?;
        if let (Some(engine), true) = (&self.engine, is_deleted) {
            engine.deleted(company, id).await;
        }
        Ok(is_deleted)
    }

    /// Publishes a test event and owes it to this subscription alone.
    ///
    /// # Errors
    /// What publishing and the ledger may say.
    pub async fn test(&self, subscription: &Subscription, actor: &Actor) -> Result<DeliveryId, TestError> {
        let payload = format!(r#"{{"subscriptionId":{},"test":true}}"#, subscription.id);
        let kind = "lutine.subscription.test".parse().map_err(|_| TestError::Append(AppendError::Unknown))?;
        let event = NewEvent {
            kind,
            version: EventVersion::default(),
            payload,
            metadata: "{}".to_owned(),
            dedupe_key: None,
            references: None,
            occurred_at: None,
        };
        let receipt = self.store.append(self.store.prepare(subscription.company, &event))?.await?;
        let delivery = DeliveryId { subscription: subscription.id, event: receipt.id, run: 0 };
        let row = RetryRow { attempts: 0, due: self.store.now(), created: receipt.created, key: None };
        self.owe(delivery, row, actor, "subscription.test", "").await?;
        Ok(delivery)
    }

    /// Owes a delivery by hand: in the ledger first.
    pub(super) async fn owe(
        &self,
        delivery: DeliveryId,
        row: RetryRow,
        actor: &Actor,
        act: &str,
        reason: &str,
    ) -> Result<(), SubscriptionError> {
        self.store.write_row(delivery, crate::store::DeliveryRow::Retry(row), actor, act, reason).await?;
        if let Some(engine) = &self.engine {
            engine.owed(delivery, row).await;
        }
        Ok(())
    }

    /// Tells the engine of dead letters that are owed again.
    pub(super) async fn revived(&self, rows: Vec<(DeliveryId, RetryRow)>) {
        if let Some(engine) = &self.engine {
            engine.revived(rows).await;
        }
    }

    /// How many deliveries a subscription is owed by rows.
    pub(super) async fn owed(&self, id: SubscriptionId) -> Result<usize, ReadError> {
        Ok(self.lane(id).await?.map_or(0, |lane| lane.owed))
    }

    /// Stops owing a delivery in the engine; true when it is not owed there (any more).
    pub(super) async fn disown(&self, delivery: DeliveryId) -> bool {
        match &self.engine {
            Some(engine) => engine.discard(delivery).await,
            None => true,
        }
    }

    async fn lane(&self, id: SubscriptionId) -> Result<Option<LaneStatus>, ReadError> {
        if let Some(engine) = &self.engine {
            return Ok(engine.status(id).await);
        }
        let mut state = self.store.delivery_state()?;
        let Some(subscription) = self.store.subscription(id) else { return Ok(None) };
        let retries = state.retries.remove(&(id, 0)).unwrap_or_default();
        let row = state.positions.remove(&id);
        let position = row.as_ref().map_or(state.settled_tail, |row| row.position);
        let is_settled = |event: &EventId| row.as_ref().is_some_and(|row| row.settled.contains(event));
        let owed_above = retries.iter().filter(|(event, _)| *event > position.id && !is_settled(event)).count();
        Ok(Some(LaneStatus {
            position,
            settled_above: row.as_ref().map_or(0, |row| row.settled.len()),
            owed: retries.len(),
            owed_above,
            oldest_owed: retries.iter().map(|(_, row)| row.created).min(),
            in_flight: 0,
            standing: subscription.standing,
            health: subscription.health,
        }))
    }

    /// What a subscription has not had yet: events above its position, and those that wait for another attempt.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn backlog(&self, subscription: &Subscription) -> Result<Backlog, ReadError> {
        let Some(lane) = self.lane(subscription.id).await? else { return Ok(Backlog::default()) };
        let top = Position { created: Timestamp::from_micros(u64::MAX), id: EventId(u64::MAX) };
        let above = self.store.count_matching(subscription.company, lane.position, top, &subscription.wishes.filter)?;
        // An event that blocks a strictly ordered subscription is owed and lies above the position.
        let events = (above.count + lane.owed as u64).saturating_sub((lane.settled_above + lane.owed_above) as u64);
        let oldest = [lane.oldest_owed, above.first.map(|first| first.created)].into_iter().flatten().min();
        Ok(Backlog { events, oldest: oldest.filter(|_| events > 0) })
    }
}

/// Why a test event was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TestError {
    /// It was not published.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The ledger did not take it.
    #[error(transparent)]
    Store(#[from] SubscriptionError),
}
