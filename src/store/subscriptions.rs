//! Subscriptions in the ledger. Their secrets lie sealed under the master key.
//!
//! A number is never used again: what is still written about a subscription that is gone finds none.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::deliveries::{self, PositionRow};
use super::ledger::{COMPANIES, Ledger, SETTINGS, record_act};
use super::live::existing;
use super::records::{self, HealthRecord, OverridesRecord, SubscriptionRecord};
use super::secrets::{MasterKey, SecretError};
use super::{Actor, Inner, LedgerBusy, StorageFault, Store};
use crate::domain::company::CompanyId;
use crate::domain::cursor::Position;
use crate::domain::filter::TypeFilter;
use crate::domain::health::Health;
use crate::domain::profile::{BodyForm, KeepResponse, Overrides, PayloadAs, Profile, SignatureForm, StatusSet};
use crate::domain::subscription::{Auth, Ordering, Secret, Standing, Subscription, SubscriptionId, Wishes};
use crate::domain::time::Timestamp;

/// Number of a subscription → [`SubscriptionRecord`].
pub(super) const SUBSCRIPTIONS: TableDefinition<u32, &[u8]> = TableDefinition::new("subscriptions");
/// The setting with the greatest number that was ever given to a subscription.
const LAST_NUMBER: &str = "last_subscription";

/// Why something was not done to a subscription or its deliveries.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubscriptionError {
    /// The company does not exist.
    #[error("there is no company {0}")]
    NoSuchCompany(CompanyId),
    /// Its secrets cannot be sealed.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The ledger cannot take the act.
    #[error(transparent)]
    Busy(#[from] LedgerBusy),
}

/// What is changed of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubscriptionChange {
    /// What its owner wants.
    Wishes(Box<Wishes>),
    /// Whether it is sent to.
    Standing(Standing),
    /// It is sent to again, and its receiver counts as sound.
    Resume,
}

/// All subscriptions at this moment. Changed in place: a copy for each of a hundred thousand would cost too much.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    by_id: HashMap<SubscriptionId, Kept>,
    of_company: HashMap<CompanyId, BTreeSet<SubscriptionId>>,
}

#[derive(Debug, Clone)]
struct Kept {
    subscription: Arc<Subscription>,
    /// Counts the changes, so that two that were committed one after the other are seen in that order.
    revision: u64,
}

impl Subscriptions {
    fn add(&mut self, subscription: Arc<Subscription>, revision: u64) {
        self.of_company.entry(subscription.company).or_default().insert(subscription.id);
        self.by_id.insert(subscription.id, Kept { subscription, revision });
    }

    /// Takes a change, unless a later one is known or the subscription is gone.
    fn change(&mut self, subscription: &Arc<Subscription>, revision: u64) {
        if let Some(kept) = self.by_id.get_mut(&subscription.id)
            && kept.revision < revision
        {
            *kept = Kept { subscription: Arc::clone(subscription), revision };
        }
    }

    fn remove(&mut self, id: SubscriptionId) {
        let Some(gone) = self.by_id.remove(&id) else { return };
        let company = gone.subscription.company;
        if let Some(ids) = self.of_company.get_mut(&company) {
            ids.remove(&id);
            if ids.is_empty() {
                self.of_company.remove(&company);
            }
        }
    }
}

const fn body_code(form: BodyForm) -> u8 {
    match form {
        BodyForm::Typed => 0,
        BodyForm::Envelope => 1,
    }
}

const fn body_of(code: u8) -> Option<BodyForm> {
    match code {
        0 => Some(BodyForm::Typed),
        1 => Some(BodyForm::Envelope),
        _ => None,
    }
}

const fn signature_code(form: SignatureForm) -> u8 {
    match form {
        SignatureForm::Standard => 0,
        SignatureForm::HeaderHmac => 1,
        SignatureForm::None => 2,
    }
}

const fn signature_of(code: u8) -> Option<SignatureForm> {
    match code {
        0 => Some(SignatureForm::Standard),
        1 => Some(SignatureForm::HeaderHmac),
        2 => Some(SignatureForm::None),
        _ => None,
    }
}

const fn payload_code(form: PayloadAs) -> u8 {
    match form {
        PayloadAs::String => 0,
        PayloadAs::Object => 1,
    }
}

const fn payload_of(code: u8) -> Option<PayloadAs> {
    match code {
        0 => Some(PayloadAs::String),
        1 => Some(PayloadAs::Object),
        _ => None,
    }
}

const fn keep_code(form: KeepResponse) -> u8 {
    match form {
        KeepResponse::Excerpt => 0,
        KeepResponse::None => 1,
    }
}

const fn keep_of(code: u8) -> Option<KeepResponse> {
    match code {
        0 => Some(KeepResponse::Excerpt),
        1 => Some(KeepResponse::None),
        _ => None,
    }
}

const fn standing_code(standing: Standing) -> u8 {
    match standing {
        Standing::Active => 0,
        Standing::Paused => 1,
        Standing::Disabled => 2,
    }
}

const fn standing_of(code: u8) -> Option<Standing> {
    match code {
        0 => Some(Standing::Active),
        1 => Some(Standing::Paused),
        2 => Some(Standing::Disabled),
        _ => None,
    }
}

const fn ordering_of(code: u8) -> Option<Ordering> {
    match code {
        0 => Some(Ordering::Parallel),
        1 => Some(Ordering::Strict),
        _ => None,
    }
}

fn micros(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

fn health_record(health: Health) -> HealthRecord {
    match health {
        Health::Sound { failing: None } => HealthRecord::Sound { failures: 0, first_us: 0 },
        Health::Sound { failing: Some((failures, first)) } => HealthRecord::Sound { failures, first_us: first.as_micros() },
        Health::Probing { since, pause, next } => {
            HealthRecord::Probing { since_us: since.as_micros(), pause_us: micros(pause), next_us: next.as_micros() }
        }
        Health::Recovering { window, successes } => HealthRecord::Recovering { window, successes },
        Health::GivenUp => HealthRecord::GivenUp,
    }
}

fn health_of(record: &HealthRecord) -> Health {
    match *record {
        HealthRecord::Sound { failures: 0, .. } => Health::Sound { failing: None },
        HealthRecord::Sound { failures, first_us } => Health::Sound { failing: Some((failures, Timestamp::from_micros(first_us))) },
        HealthRecord::Probing { since_us, pause_us, next_us } => Health::Probing {
            since: Timestamp::from_micros(since_us),
            pause: std::time::Duration::from_micros(pause_us),
            next: Timestamp::from_micros(next_us),
        },
        HealthRecord::Recovering { window, successes } => Health::Recovering { window, successes },
        HealthRecord::GivenUp => Health::GivenUp,
    }
}

fn overrides_record(overrides: &Overrides) -> OverridesRecord {
    OverridesRecord {
        body: overrides.body.map(body_code),
        content_type: overrides.content_type.clone(),
        signature: overrides.signature.map(signature_code),
        signature_header: overrides.signature_header.clone(),
        success: overrides.success.as_ref().map(StatusSet::to_entries),
        lenient_success: overrides.lenient_success,
        retry_schedule_ms: overrides.retry_schedule_ms.clone(),
        timeout_ms: overrides.timeout_ms,
        payload_as: overrides.payload_as.map(payload_code),
        keep_response: overrides.keep_response.map(keep_code),
    }
}

/// None when a value is not one that this version knows.
fn overrides_of(record: OverridesRecord) -> Option<Overrides> {
    fn known<C, T>(code: Option<C>, read: impl FnOnce(C) -> Option<T>) -> Option<Option<T>> {
        code.map_or(Some(None), |code| read(code).map(Some))
    }
    Some(Overrides {
        body: known(record.body, body_of)?,
        content_type: record.content_type,
        signature: known(record.signature, signature_of)?,
        signature_header: record.signature_header,
        success: known(record.success, |entries| StatusSet::parse(entries.iter().map(String::as_str)).ok())?,
        lenient_success: record.lenient_success,
        retry_schedule_ms: record.retry_schedule_ms,
        timeout_ms: record.timeout_ms,
        payload_as: known(record.payload_as, payload_of)?,
        keep_response: known(record.keep_response, keep_of)?,
    })
}

/// The names under which the secrets of a subscription are sealed.
fn secret_names(id: SubscriptionId) -> (String, String) {
    (format!("subscription:{id}:secret"), format!("subscription:{id}:auth"))
}

/// Scheme and parts of an authorization, to be sealed as one.
fn auth_parts(auth: &Auth) -> Vec<String> {
    match auth {
        Auth::None => Vec::new(),
        Auth::Bearer(token) => vec!["bearer".to_owned(), token.clone()],
        Auth::Basic(name, password) => vec!["basic".to_owned(), name.clone(), password.clone()],
    }
}

fn auth_of(parts: &[String]) -> Option<Auth> {
    match parts {
        [] => Some(Auth::None),
        [scheme, token] if scheme == "bearer" => Some(Auth::Bearer(token.clone())),
        [scheme, name, password] if scheme == "basic" => Some(Auth::Basic(name.clone(), password.clone())),
        _ => None,
    }
}

fn to_record(
    master: &MasterKey,
    subscription: &Subscription,
    revision: u64,
) -> Result<Result<SubscriptionRecord, SecretError>, StorageFault> {
    let wishes = &subscription.wishes;
    let (secret_name, auth_name) = secret_names(subscription.id);
    let auth = match auth_parts(&wishes.auth).as_slice() {
        [] => Ok(None),
        parts => master.seal(&auth_name, &records::encode(&parts.to_vec())?).map(Some),
    };
    let (secret, auth) = match (master.seal(&secret_name, &subscription.secret.0), auth) {
        (Ok(secret), Ok(auth)) => (secret, auth),
        (Err(error), _) | (_, Err(error)) => return Ok(Err(error)),
    };
    Ok(Ok(SubscriptionRecord {
        company: subscription.company.0,
        name: wishes.name.clone(),
        url: wishes.url.clone(),
        types: wishes.types.clone(),
        profile: wishes.profile.as_str().to_owned(),
        overrides: overrides_record(&wishes.overrides),
        auth,
        headers: wishes.headers.clone(),
        ordering: match wishes.ordering {
            Ordering::Parallel => 0,
            Ordering::Strict => 1,
        },
        max_in_flight: wishes.max_in_flight,
        rate_per_minute: wishes.rate_per_minute,
        secret,
        standing: standing_code(subscription.standing),
        health: health_record(subscription.health),
        created_us: subscription.created.as_micros(),
        revision,
    }))
}

fn read(master: &MasterKey, id: SubscriptionId, record: &[u8]) -> Result<(Subscription, u64), StorageFault> {
    let record: SubscriptionRecord = records::decode(record)?;
    let damaged = |what: &str| StorageFault::Record(format!("subscription {id}: {what}"));
    let (secret_name, auth_name) = secret_names(id);
    let sealed = |error: SecretError| damaged(&error.to_string());
    let secret = master.open(&secret_name, &record.secret).map_err(sealed)?;
    let auth: Vec<String> = match &record.auth {
        None => Vec::new(),
        Some(auth) => records::decode(&master.open(&auth_name, auth).map_err(sealed)?)?,
    };
    let filter = TypeFilter::parse_types(&record.types).map_err(|error| damaged(&error.to_string()))?;
    let profile = Profile::ALL.into_iter().find(|profile| profile.as_str() == record.profile);
    let subscription = Subscription {
        id,
        company: CompanyId(record.company),
        wishes: Wishes {
            name: record.name,
            url: record.url,
            types: record.types,
            filter,
            profile: profile.ok_or_else(|| damaged("its profile is not known"))?,
            overrides: overrides_of(record.overrides).ok_or_else(|| damaged("an override is not known"))?,
            auth: auth_of(&auth).ok_or_else(|| damaged("its authorization is not known"))?,
            headers: record.headers,
            ordering: ordering_of(record.ordering).ok_or_else(|| damaged("its ordering is not known"))?,
            max_in_flight: record.max_in_flight,
            rate_per_minute: record.rate_per_minute,
        },
        secret: Secret(secret.as_slice().try_into().map_err(|_| damaged("its secret has another length"))?),
        standing: standing_of(record.standing).ok_or_else(|| damaged("its standing is not known"))?,
        health: health_of(&record.health),
        created: Timestamp::from_micros(record.created_us),
    };
    Ok((subscription, record.revision))
}

/// All subscriptions of the ledger.
pub(super) fn load(ledger: &Ledger, master: &MasterKey) -> Result<Subscriptions, StorageFault> {
    let mut subscriptions = Subscriptions::default();
    let transaction = ledger.read()?;
    if let Some(table) = existing(transaction.open_table(SUBSCRIPTIONS))? {
        for row in table.iter()? {
            let (id, record) = row?;
            let (subscription, revision) = read(master, SubscriptionId(id.value()), record.value())?;
            subscriptions.add(Arc::new(subscription), revision);
        }
    }
    Ok(subscriptions)
}

/// A subscription as it is to be seen once its transaction is committed.
pub(super) type Changed = (Arc<Subscription>, u64);

/// Changes a subscription in a transaction; none when it is not there, or not one of `company` and that is given.
fn change(
    transaction: &WriteTransaction,
    master: &MasterKey,
    id: SubscriptionId,
    company: Option<CompanyId>,
    change: impl FnOnce(&mut Subscription),
) -> Result<Result<Option<Changed>, SecretError>, StorageFault> {
    let mut table = transaction.open_table(SUBSCRIPTIONS)?;
    let stored = table.get(id.0)?.map(|record| record.value().to_vec());
    let Some(stored) = stored else { return Ok(Ok(None)) };
    let (mut subscription, revision) = read(master, id, &stored)?;
    if company.is_some_and(|company| company != subscription.company) {
        return Ok(Ok(None));
    }
    change(&mut subscription);
    let revision = revision + 1;
    match to_record(master, &subscription, revision)? {
        Ok(record) => {
            table.insert(id.0, records::encode(&record)?.as_slice())?;
            Ok(Ok(Some((Arc::new(subscription), revision))))
        }
        Err(error) => Ok(Err(error)),
    }
}

/// Writes down how a receiver does. Of the standing only `Disabled` is taken, and only while the subscription is
/// active: whoever reports this may not know yet that a person has paused it.
///
/// The sealed secrets are left as they are.
pub(super) fn note_health(
    transaction: &WriteTransaction,
    master: &MasterKey,
    id: SubscriptionId,
    standing: Standing,
    health: Health,
) -> Result<Option<Changed>, StorageFault> {
    let mut table = transaction.open_table(SUBSCRIPTIONS)?;
    let stored = table.get(id.0)?.map(|record| record.value().to_vec());
    let Some(stored) = stored else { return Ok(None) };
    let mut record: SubscriptionRecord = records::decode(&stored)?;
    if standing == Standing::Disabled && record.standing == standing_code(Standing::Active) {
        record.standing = standing_code(Standing::Disabled);
    }
    record.health = health_record(health);
    record.revision += 1;
    let stored = records::encode(&record)?;
    table.insert(id.0, stored.as_slice())?;
    let (subscription, revision) = read(master, id, &stored)?;
    Ok(Some((Arc::new(subscription), revision)))
}

/// A number that no subscription has had.
fn next_number(transaction: &WriteTransaction) -> Result<SubscriptionId, StorageFault> {
    let mut settings = transaction.open_table(SETTINGS)?;
    let last = settings.get(LAST_NUMBER)?.map_or(0, |last| last.value());
    let next = u32::try_from(last + 1).map_err(|_| StorageFault::Record("no number is left for a subscription".to_owned()))?;
    settings.insert(LAST_NUMBER, u64::from(next))?;
    Ok(SubscriptionId(next))
}

impl Inner {
    fn subscriptions(&self) -> std::sync::RwLockReadGuard<'_, Subscriptions> {
        self.subscriptions.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn subscriptions_mut(&self) -> std::sync::RwLockWriteGuard<'_, Subscriptions> {
        self.subscriptions.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Shows changes that are committed.
    pub(super) fn show_changed<'a>(&self, changed: impl IntoIterator<Item = &'a Changed>) {
        let mut subscriptions = self.subscriptions_mut();
        for (subscription, revision) in changed {
            subscriptions.change(subscription, *revision);
        }
    }
}

impl Store {
    /// The subscription with this number.
    #[must_use]
    pub fn subscription(&self, id: SubscriptionId) -> Option<Arc<Subscription>> {
        self.inner.subscriptions().by_id.get(&id).map(|kept| Arc::clone(&kept.subscription))
    }

    /// The subscriptions of a company, by number.
    #[must_use]
    pub fn subscriptions_of(&self, company: CompanyId) -> Vec<Arc<Subscription>> {
        let subscriptions = self.inner.subscriptions();
        let ids = subscriptions.of_company.get(&company).into_iter().flatten();
        ids.filter_map(|id| subscriptions.by_id.get(id)).map(|kept| Arc::clone(&kept.subscription)).collect()
    }

    /// All subscriptions, by number.
    #[must_use]
    pub fn all_subscriptions(&self) -> Vec<Arc<Subscription>> {
        let mut all: Vec<_> = self.inner.subscriptions().by_id.values().map(|kept| Arc::clone(&kept.subscription)).collect();
        all.sort_unstable_by_key(|subscription| subscription.id);
        all
    }

    /// Creates a subscription whose first event is the first one above `start`; with its position it is on disk when
    /// this is done.
    ///
    /// # Errors
    /// See [`SubscriptionError`].
    pub async fn create_subscription(
        &self,
        company: CompanyId,
        wishes: Wishes,
        secret: Secret,
        start: Position,
        actor: &Actor,
    ) -> Result<Arc<Subscription>, SubscriptionError> {
        let (inner, actor, at) = (Arc::clone(&self.inner), actor.clone(), self.inner.now());
        let master = inner.master.clone();
        let created = self.inner.ledger.submit(
            move |transaction| {
                if transaction.open_table(COMPANIES)?.get(company.0)?.is_none() {
                    return Ok(Err(SubscriptionError::NoSuchCompany(company)));
                }
                let id = next_number(transaction)?;
                let subscription =
                    Subscription { id, company, wishes, secret, standing: Standing::Active, health: Health::default(), created: at };
                let record = match to_record(&master, &subscription, 0)? {
                    Ok(record) => record,
                    Err(error) => return Ok(Err(error.into())),
                };
                transaction.open_table(SUBSCRIPTIONS)?.insert(id.0, records::encode(&record)?.as_slice())?;
                deliveries::write_position(transaction, id, Some(&PositionRow { position: start, settled: Vec::new() }))?;
                record_act(transaction, at, &actor, "subscription.create", &format!("subscription:{id}"), &subscription.wishes.name)?;
                Ok(Ok(Arc::new(subscription)))
            },
            move |outcome: &Result<Arc<Subscription>, SubscriptionError>| {
                if let Ok(subscription) = outcome {
                    inner.subscriptions_mut().add(Arc::clone(subscription), 0);
                }
            },
        )?;
        created.await.map_err(|_| SubscriptionError::Busy(LedgerBusy::Ended))?
    }

    /// Changes a subscription; it is on disk when this is done. None when there is no such subscription, or when it is
    /// not one of `company` and that is given.
    ///
    /// # Errors
    /// See [`SubscriptionError`].
    pub async fn change_subscription(
        &self,
        id: SubscriptionId,
        company: Option<CompanyId>,
        wanted: SubscriptionChange,
        actor: &Actor,
    ) -> Result<Option<Arc<Subscription>>, SubscriptionError> {
        let (inner, actor, at) = (Arc::clone(&self.inner), actor.clone(), self.inner.now());
        let master = inner.master.clone();
        let act = match &wanted {
            SubscriptionChange::Wishes(_) => "subscription.change",
            SubscriptionChange::Standing(Standing::Active) | SubscriptionChange::Resume => "subscription.resume",
            SubscriptionChange::Standing(Standing::Paused) => "subscription.pause",
            SubscriptionChange::Standing(Standing::Disabled) => "subscription.disable",
        };
        let changed = self.inner.ledger.submit(
            move |transaction| {
                let apply = |subscription: &mut Subscription| match wanted {
                    SubscriptionChange::Wishes(wishes) => subscription.wishes = *wishes,
                    SubscriptionChange::Standing(standing) => subscription.standing = standing,
                    SubscriptionChange::Resume => {
                        subscription.standing = Standing::Active;
                        subscription.health = Health::default();
                    }
                };
                let changed = change(transaction, &master, id, company, apply)?;
                if let Ok(Some((subscription, _))) = &changed {
                    record_act(transaction, at, &actor, act, &format!("subscription:{id}"), &subscription.wishes.name)?;
                }
                Ok(changed)
            },
            move |outcome: &Result<Option<Changed>, SecretError>| {
                if let Ok(changed) = outcome {
                    inner.show_changed(changed);
                }
            },
        )?;
        let changed = changed.await.map_err(|_| SubscriptionError::Busy(LedgerBusy::Ended))??;
        Ok(changed.map(|(subscription, _)| subscription))
    }

    /// Deletes a subscription. What it was still owed is closed as cancelled; its dead letters and what is closed stay
    /// in the ledger until their events are purged, its attempts until their files are. False when there is no such
    /// subscription, or when it is not one of `company` and that is given.
    ///
    /// # Errors
    /// See [`SubscriptionError`].
    pub async fn delete_subscription(
        &self,
        id: SubscriptionId,
        company: Option<CompanyId>,
        actor: &Actor,
    ) -> Result<bool, SubscriptionError> {
        let (inner, actor, at) = (Arc::clone(&self.inner), actor.clone(), self.inner.now());
        let deleted = self.inner.ledger.submit(
            move |transaction| {
                let mut table = transaction.open_table(SUBSCRIPTIONS)?;
                let stored: Option<SubscriptionRecord> = table.get(id.0)?.map(|record| records::decode(record.value())).transpose()?;
                let Some(stored) = stored.filter(|stored| company.is_none_or(|company| company.0 == stored.company)) else {
                    return Ok(false);
                };
                table.remove(id.0)?;
                drop(table);
                deliveries::write_position(transaction, id, None)?;
                let cancelled = deliveries::cancel_retries(transaction, id, at)?;
                let detail = format!("{}, {cancelled} open deliveries", stored.name);
                record_act(transaction, at, &actor, "subscription.delete", &format!("subscription:{id}"), &detail)?;
                Ok(true)
            },
            move |deleted: &bool| {
                if *deleted {
                    inner.subscriptions_mut().remove(id);
                }
            },
        )?;
        deleted.await.map_err(|_| SubscriptionError::Busy(LedgerBusy::Ended))
    }
}
