//! Subscriptions in the ledger. Their secrets lie sealed under the master key.
//!
//! A number is never used again: what is still written about a subscription that is gone finds none.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::deliveries::{self, PositionRow, ReceiverNote};
use super::ledger::{COMPANIES, Ledger, SETTINGS, record_act};
use super::live::existing;
use super::records::{self, HealthRecord, OverridesRecord, SubscriptionRecord};
use super::replays;
use super::secrets::{MasterKey, SecretError};
use super::{Actor, Inner, LedgerBusy, StorageFault, Store};
use crate::domain::company::CompanyId;
use crate::domain::cursor::Position;
use crate::domain::filter::TypeFilter;
use crate::domain::health::Health;
use crate::domain::profile::{
    BodyForm, Handshake, KeepResponse, OnExhausted, Overrides, PayloadAs, PrivateKeyPem, Profile, SignatureForm, StatusSet,
};
use crate::domain::subscription::{
    Auth, ClientCredentials, Consent, Credential, Ordering, OrderingKey, PreviousSecret, Secret, Standing, Subscription, SubscriptionId,
    TokenMethod, Wishes,
};
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
    /// Its receiver is asked for consent again.
    AskAgain,
    /// Its receiver has consented.
    Consent {
        /// Where it was asked; at another URL the consent means nothing.
        url: String,
        /// To what.
        consent: Consent,
    },
    /// It signs with this secret, and until this time with the one before as well.
    Rotate {
        /// The new one.
        secret: Secret,
        /// When the one before stops counting; a time that has come means at once.
        until: Timestamp,
    },
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

/// The number of a value in a record: its place among all values of its type.
fn code<T: PartialEq>(all: &[T], value: &T) -> u8 {
    all.iter().position(|known| known == value).and_then(|place| u8::try_from(place).ok()).unwrap_or(u8::MAX)
}

/// The value with this number; none when this version does not know it.
fn value<T: Copy>(all: &[T], code: u8) -> Option<T> {
    all.get(usize::from(code)).copied()
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
        body: overrides.body.map(|form| code(BodyForm::ALL, &form)),
        content_type: overrides.content_type.clone(),
        signature: overrides.signature.map(|form| code(SignatureForm::ALL, &form)),
        signature_header: overrides.signature_header.clone(),
        success: overrides.success.as_ref().map(StatusSet::to_entries),
        lenient_success: overrides.lenient_success,
        retry_schedule_ms: overrides.retry_schedule_ms.clone(),
        timeout_ms: overrides.timeout_ms,
        payload_as: overrides.payload_as.map(|form| code(PayloadAs::ALL, &form)),
        keep_response: overrides.keep_response.map(|keep| code(KeepResponse::ALL, &keep)),
        handshake: overrides.handshake.map(|handshake| code(Handshake::ALL, &handshake)),
        cloud_events_source: overrides.cloud_events_source.clone(),
        cloud_events_type_prefix: overrides.cloud_events_type_prefix.clone(),
        on_exhausted: overrides.on_exhausted.map(|then| code(OnExhausted::ALL, &then)),
        ca_bundle: overrides.ca_bundle.clone(),
        client_certificate: overrides.client_certificate.clone(),
    }
}

/// None when a value is not one that this version knows.
fn overrides_of(record: OverridesRecord, client_key: Option<String>) -> Option<Overrides> {
    fn known<C, T>(code: Option<C>, read: impl FnOnce(C) -> Option<T>) -> Option<Option<T>> {
        code.map_or(Some(None), |code| read(code).map(Some))
    }
    Some(Overrides {
        body: known(record.body, |code| value(BodyForm::ALL, code))?,
        content_type: record.content_type,
        signature: known(record.signature, |code| value(SignatureForm::ALL, code))?,
        signature_header: record.signature_header,
        success: known(record.success, |entries| StatusSet::parse(entries.iter().map(String::as_str)).ok())?,
        lenient_success: record.lenient_success,
        retry_schedule_ms: record.retry_schedule_ms,
        timeout_ms: record.timeout_ms,
        payload_as: known(record.payload_as, |code| value(PayloadAs::ALL, code))?,
        keep_response: known(record.keep_response, |code| value(KeepResponse::ALL, code))?,
        handshake: known(record.handshake, |code| value(Handshake::ALL, code))?,
        cloud_events_source: record.cloud_events_source,
        cloud_events_type_prefix: record.cloud_events_type_prefix,
        on_exhausted: known(record.on_exhausted, |code| value(OnExhausted::ALL, code))?,
        ca_bundle: record.ca_bundle,
        client_certificate: record.client_certificate,
        client_key: client_key.map(PrivateKeyPem),
    })
}

/// The secrets of a subscription, each sealed under a name of its own.
#[derive(Clone, Copy)]
enum SecretName {
    /// The key of its signatures.
    Signing,
    /// The key before it.
    Previous,
    /// Its authorization at the receiver.
    Auth,
    /// The key of its client certificate.
    ClientKey,
}

impl SecretName {
    fn of(self, id: SubscriptionId) -> String {
        let name = match self {
            Self::Signing => "secret",
            Self::Previous => "previous",
            Self::Auth => "auth",
            Self::ClientKey => "client-key",
        };
        format!("subscription:{id}:{name}")
    }
}

/// Scheme and parts of an authorization, to be sealed as one; an optional part that is missing is empty.
fn auth_parts(auth: &Auth) -> Vec<String> {
    match auth {
        Auth::None => Vec::new(),
        Auth::Bearer(token) => vec!["bearer".to_owned(), token.clone()],
        Auth::Basic(name, password) => vec!["basic".to_owned(), name.clone(), password.clone()],
        Auth::OAuth2(client) => vec![
            "oauth2".to_owned(),
            client.token_url.clone(),
            client.client_id.clone(),
            client.method.as_str().to_owned(),
            client.credential.0.clone(),
            client.scope.clone().unwrap_or_default(),
            client.audience.clone().unwrap_or_default(),
        ],
    }
}

fn auth_of(parts: &[String]) -> Option<Auth> {
    match parts {
        [] => Some(Auth::None),
        [scheme, token] if scheme == "bearer" => Some(Auth::Bearer(token.clone())),
        [scheme, name, password] if scheme == "basic" => Some(Auth::Basic(name.clone(), password.clone())),
        [scheme, token_url, client_id, method, credential, scope, audience] if scheme == "oauth2" => {
            let optional = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
            Some(Auth::OAuth2(Box::new(ClientCredentials {
                token_url: token_url.clone(),
                client_id: client_id.clone(),
                method: TokenMethod::ALL.into_iter().find(|known| known.as_str() == method)?,
                credential: Credential(credential.clone()),
                scope: optional(scope),
                audience: optional(audience),
            })))
        }
        _ => None,
    }
}

fn to_record(
    master: &MasterKey,
    subscription: &Subscription,
    revision: u64,
) -> Result<Result<SubscriptionRecord, SecretError>, StorageFault> {
    let wishes = &subscription.wishes;
    let auth = match auth_parts(&wishes.auth).as_slice() {
        [] => None,
        parts => Some(records::encode(&parts.to_vec())?),
    };
    let seal = |name: SecretName, secret: &[u8]| master.seal(&name.of(subscription.id), secret);
    let seal_all = || -> Result<_, SecretError> {
        let previous = subscription.previous.as_ref();
        let client_key = wishes.overrides.client_key.as_ref();
        Ok((
            seal(SecretName::Signing, &subscription.secret.0)?,
            previous.map(|previous| seal(SecretName::Previous, &previous.secret.0)).transpose()?,
            auth.map(|auth| seal(SecretName::Auth, &auth)).transpose()?,
            client_key.map(|key| seal(SecretName::ClientKey, key.0.as_bytes())).transpose()?,
        ))
    };
    let (secret, previous, auth, client_key) = match seal_all() {
        Ok(sealed) => sealed,
        Err(error) => return Ok(Err(error)),
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
        ordering: code(&Ordering::ALL, &wishes.ordering),
        max_in_flight: wishes.max_in_flight,
        rate_per_minute: wishes.rate_per_minute,
        secret,
        standing: code(&Standing::ALL, &subscription.standing),
        health: health_record(subscription.health),
        created_us: subscription.created.as_micros(),
        revision,
        ordering_key: wishes.ordering_key.as_ref().map(|key| key.as_str().to_owned()),
        previous,
        previous_until_us: subscription.previous.as_ref().map(|previous| previous.until.as_micros()),
        consent_per_minute: subscription.consent.map(|consent| consent.rate_per_minute),
        client_key,
        resumes: Some(subscription.resumes),
    }))
}

/// The 32 bytes of a key.
fn key_of(bytes: &[u8]) -> Option<Secret> {
    bytes.try_into().map(Secret).ok()
}

fn read(master: &MasterKey, id: SubscriptionId, record: &[u8]) -> Result<(Subscription, u64), StorageFault> {
    let record: SubscriptionRecord = records::decode(record)?;
    let damaged = |what: &str| StorageFault::Record(format!("subscription {id}: {what}"));
    let unknown = |what: &str| damaged(&format!("its {what} is not known"));
    let open = |name: SecretName, sealed: &[u8]| master.open(&name.of(id), sealed).map_err(|error| damaged(&error.to_string()));
    let secret = key_of(&open(SecretName::Signing, &record.secret)?).ok_or_else(|| damaged("its secret has another length"))?;
    let previous = match (&record.previous, record.previous_until_us) {
        (Some(sealed), Some(until)) => {
            let secret = key_of(&open(SecretName::Previous, sealed)?).ok_or_else(|| damaged("its secret before has another length"))?;
            Some(PreviousSecret { secret, until: Timestamp::from_micros(until) })
        }
        _ => None,
    };
    let auth: Vec<String> = match &record.auth {
        None => Vec::new(),
        Some(auth) => records::decode(&open(SecretName::Auth, auth)?)?,
    };
    let client_key = match &record.client_key {
        None => None,
        Some(key) => Some(String::from_utf8(open(SecretName::ClientKey, key)?.to_vec()).map_err(|_| damaged("its client key is no text"))?),
    };
    let filter = TypeFilter::parse_types(&record.types).map_err(|error| damaged(&error.to_string()))?;
    let profile = Profile::ALL.iter().copied().find(|profile| profile.as_str() == record.profile);
    let ordering_key = record.ordering_key.map(|key| key.parse::<OrderingKey>()).transpose();
    let subscription = Subscription {
        id,
        company: CompanyId(record.company),
        wishes: Wishes {
            name: record.name,
            url: record.url,
            types: record.types,
            filter,
            profile: profile.ok_or_else(|| unknown("profile"))?,
            overrides: overrides_of(record.overrides, client_key).ok_or_else(|| damaged("an override is not known"))?,
            auth: auth_of(&auth).ok_or_else(|| unknown("authorization"))?,
            headers: record.headers,
            ordering: value(&Ordering::ALL, record.ordering).ok_or_else(|| unknown("ordering"))?,
            ordering_key: ordering_key.map_err(|_| unknown("ordering key"))?,
            max_in_flight: record.max_in_flight,
            rate_per_minute: record.rate_per_minute,
        },
        secret,
        previous,
        consent: record.consent_per_minute.map(|rate_per_minute| Consent { rate_per_minute }),
        standing: value(&Standing::ALL, record.standing).ok_or_else(|| unknown("standing"))?,
        health: health_of(&record.health),
        resumes: record.resumes.unwrap_or_default(),
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

/// Writes down how a receiver does, unless a person has resumed the subscription since. Of the standing only `Disabled`
/// is taken, and only while the subscription is active: whoever reports this may not know yet that a person has paused
/// it.
///
/// The sealed secrets are left as they are.
pub(super) fn note_health(
    transaction: &WriteTransaction,
    master: &MasterKey,
    note: &ReceiverNote,
) -> Result<Option<Changed>, StorageFault> {
    let ReceiverNote { subscription: id, standing, health, resumes } = *note;
    let mut table = transaction.open_table(SUBSCRIPTIONS)?;
    let stored = table.get(id.0)?.map(|record| record.value().to_vec());
    let Some(stored) = stored else { return Ok(None) };
    let mut record: SubscriptionRecord = records::decode(&stored)?;
    if record.resumes.unwrap_or_default() != resumes {
        return Ok(None);
    }
    if standing == Standing::Disabled && record.standing == code(&Standing::ALL, &Standing::Active) {
        record.standing = code(&Standing::ALL, &Standing::Disabled);
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
    /// Removes secrets that were replaced and do not count any more.
    pub(super) fn forget_secrets(&self) -> Result<(), StorageFault> {
        let now = self.now();
        let is_over = |subscription: &Subscription| subscription.previous.as_ref().is_some_and(|previous| previous.until <= now);
        let ids: Vec<SubscriptionId> = {
            let subscriptions = self.subscriptions();
            subscriptions.by_id.values().filter(|kept| is_over(&kept.subscription)).map(|kept| kept.subscription.id).collect()
        };
        if ids.is_empty() {
            return Ok(());
        }
        let changed = self.ledger.write(|transaction| {
            let mut changed = Vec::with_capacity(ids.len());
            for id in &ids {
                let forget = |subscription: &mut Subscription| {
                    if is_over(subscription) {
                        subscription.previous = None;
                    }
                };
                // One that cannot be sealed anew keeps its old record until another time.
                changed.extend(change(transaction, &self.master, *id, None, forget)?.unwrap_or_default());
            }
            Ok(changed)
        })?;
        self.show_changed(&changed);
        Ok(())
    }

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
                let standing = Subscription::first_standing(&wishes);
                let (previous, consent, health, resumes) = (None, None, Health::default(), 0);
                let subscription = Subscription { id, company, wishes, secret, previous, consent, standing, health, resumes, created: at };
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
            SubscriptionChange::Standing(Standing::Unverified) | SubscriptionChange::AskAgain => "subscription.verify",
            SubscriptionChange::Consent { .. } => "subscription.consent",
            SubscriptionChange::Rotate { .. } => "subscription.rotate_secret",
        };
        let changed = self.inner.ledger.submit(
            move |transaction| {
                let apply = |subscription: &mut Subscription| match wanted {
                    SubscriptionChange::Wishes(wishes) => subscription.take_wishes(*wishes),
                    SubscriptionChange::Standing(standing) => subscription.standing = standing,
                    SubscriptionChange::Resume => subscription.resume(),
                    SubscriptionChange::AskAgain => subscription.forget_consent(),
                    SubscriptionChange::Consent { url, consent } => subscription.take_consent(&url, consent),
                    SubscriptionChange::Rotate { secret, until } => {
                        let before = std::mem::replace(&mut subscription.secret, secret);
                        subscription.previous = (until > at).then_some(PreviousSecret { secret: before, until });
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
                let cancelled = deliveries::cancel_retries(transaction, id, None, deliveries::DELETED, at)?;
                replays::cancel_all(transaction, id, at)?;
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
