//! OAuth clients: making, changing, revoking them, and knowing them by their secrets.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::jose::KeyText;
use super::key_text;
use crate::domain::client::{AudPolicy, CLIENT_KEYS_MAX, Client, ClientId, ClientKey, ClientSecret};
use crate::domain::company::CompanyId;
use crate::domain::key::Grant;
use crate::domain::time::Timestamp;
use crate::store::{Actor, ClientError, NewClient, Store};

/// What every client's secret starts with, so that scanners find one that has leaked.
const SECRET_PREFIX: &str = "evs_";
/// How long the secret before the last one is accepted.
pub const OLD_SECRET_LIFE: Duration = Duration::from_secs(86_400);

/// Why a client is refused that named itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretRefusal {
    /// No client has this id and secret.
    #[error("the client or its secret is not known here")]
    Unknown,
    /// It was revoked.
    #[error("the client was revoked")]
    Revoked,
    /// Its time is over.
    #[error("the client has expired")]
    Expired,
}

/// Why a client was not made or changed.
#[derive(Debug, thiserror::Error)]
pub enum ClientServiceError {
    /// The operating system gives no random bytes.
    #[error("there is no randomness to make a secret from")]
    NoChance(#[from] getrandom::Error),
    /// The ledger refused it.
    #[error(transparent)]
    Ledger(#[from] ClientError),
}

/// A public key to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewClientKey {
    /// The key.
    pub key: KeyText,
    /// The name that the client calls it by.
    pub kid: Option<String>,
}

/// What somebody asks for who creates a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientWishes {
    /// Its id; none for one that is drawn.
    pub id: Option<ClientId>,
    /// Its company.
    pub company: CompanyId,
    /// What it may do.
    pub grant: Grant,
    /// Which audience its assertions may name.
    pub aud_policy: AudPolicy,
    /// Its first keys.
    pub keys: Vec<NewClientKey>,
    /// Whether it gets a secret.
    pub with_secret: bool,
}

/// What is changed of a client; what is none stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientChange {
    /// Its name.
    pub name: Option<String>,
    /// What it may do.
    pub scopes: Option<crate::domain::scope::ScopeSet>,
    /// When it expires; an inner none for never.
    pub expires: Option<Option<Timestamp>>,
    /// Which audience its assertions may name.
    pub aud_policy: Option<AudPolicy>,
}

/// The use cases of clients.
pub struct ClientService {
    store: Store,
}

impl fmt::Debug for ClientService {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ClientService").finish_non_exhaustive()
    }
}

/// The HMAC of a secret; bound to its client, so that a row of the ledger cannot stand for another client.
fn secret_hash(pepper: &[u8; 32], client: &str, secret: &str) -> [u8; 32] {
    key_text::hash(pepper, &Zeroizing::new(format!("client {client} {secret}")))
}

fn fresh_secret() -> Result<Zeroizing<String>, getrandom::Error> {
    let mut chance = Zeroizing::new([0; 32]);
    getrandom::fill(chance.as_mut())?;
    let number = Zeroizing::new(key_text::base62(&chance));
    let mut text = Zeroizing::new(String::with_capacity(64));
    text.push_str(SECRET_PREFIX);
    text.push_str(&number);
    let check = key_text::check_of(&text);
    text.push_str(std::str::from_utf8(&check).unwrap_or_default());
    Ok(text)
}

fn to_client_key(new: NewClientKey, added: Timestamp) -> ClientKey {
    let NewClientKey { key, kid } = new;
    let (x5t, x5t_s256, not_after) = match key.certificate {
        Some(facts) => (Some(facts.x5t), Some(facts.x5t_s256), Some(facts.not_after)),
        None => (None, None, None),
    };
    ClientKey { id: key.id, kid, spki: key.spki, x5t, x5t_s256, not_after, added }
}

fn add_key(keys: &mut Vec<ClientKey>, key: ClientKey) -> Result<(), ClientError> {
    if keys.len() >= CLIENT_KEYS_MAX {
        return Err(ClientError::TooManyKeys);
    }
    let is_same = |known: &ClientKey| known.id == key.id || key.kid.as_deref().is_some_and(|kid| known.is_named(kid));
    if keys.iter().any(is_same) {
        return Err(ClientError::KeyKnown);
    }
    keys.push(key);
    Ok(())
}

impl ClientService {
    pub(super) fn new(store: Store) -> Self {
        Self { store }
    }

    /// Makes a client; its secret, if it gets one, is in the answer and nowhere else.
    ///
    /// # Errors
    /// See [`ClientServiceError`].
    pub async fn create(
        &self,
        wishes: ClientWishes,
        now: Timestamp,
        actor: &Actor,
    ) -> Result<(Client, Option<Zeroizing<String>>), ClientServiceError> {
        let id = match wishes.id {
            Some(id) => id,
            None => {
                let mut chance = [0; 16];
                getrandom::fill(&mut chance)?;
                ClientId::from_chance(chance)
            }
        };
        let text = if wishes.with_secret { Some(fresh_secret()?) } else { None };
        let secret = text.as_ref().map(|text| ClientSecret { hash: secret_hash(self.store.pepper(), id.as_str(), text), ends: None });
        let mut keys = Vec::new();
        for key in wishes.keys {
            add_key(&mut keys, to_client_key(key, now))?;
        }
        let new = NewClient { id, grant: wishes.grant, company: wishes.company, aud_policy: wishes.aud_policy, secret, keys };
        Ok((self.store.create_client(new, actor).await?, text))
    }

    /// All clients of a company, oldest first.
    #[must_use]
    pub fn list(&self, company: CompanyId) -> Vec<Arc<Client>> {
        self.store.clients().of_company(company)
    }

    /// One client of a company.
    #[must_use]
    pub fn get(&self, company: CompanyId, id: &ClientId) -> Option<Arc<Client>> {
        self.store.clients().by_id(id.as_str()).filter(|client| client.company == company).cloned()
    }

    /// Changes what a client may do.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn change(&self, id: &ClientId, company: CompanyId, change: ClientChange, actor: &Actor) -> Result<Client, ClientError> {
        let apply = move |client: &mut Client, _: Timestamp| {
            if client.revoked.is_some() {
                return Err(ClientError::Revoked);
            }
            let before = client.clone();
            let mut words = Vec::new();
            if let Some(name) = change.name {
                words.push(format!("name {name}"));
                client.grant.name = name;
            }
            if let Some(scopes) = change.scopes {
                words.push(format!("scopes {}", scopes.to_text()));
                client.grant.scopes = scopes;
            }
            if let Some(expires) = change.expires {
                words.push(expires.map_or_else(|| "never expires".to_owned(), |expires| format!("expires {expires}")));
                client.grant.expires = expires;
            }
            if let Some(policy) = change.aud_policy {
                words.push(format!("audience policy {}", policy.as_str()));
                client.aud_policy = policy;
            }
            Ok((*client != before).then(|| words.join(", ")))
        };
        self.store.change_client(id, company, "client.change", actor, apply).await
    }

    /// Revokes a client from now on; a second time changes nothing. Its live tokens are refused from then on.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn revoke(&self, id: &ClientId, company: CompanyId, actor: &Actor) -> Result<Client, ClientError> {
        let apply = |client: &mut Client, at: Timestamp| {
            if client.revoked.is_some() {
                return Ok(None);
            }
            client.revoked = Some(at);
            Ok(Some(client.grant.name.clone()))
        };
        self.store.change_client(id, company, "client.revoke", actor, apply).await
    }

    /// Adds a public key; the client with it, and the key's id.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn add_key(
        &self,
        id: &ClientId,
        company: CompanyId,
        new: NewClientKey,
        actor: &Actor,
    ) -> Result<(Client, String), ClientError> {
        let key_id = new.key.id.clone();
        let apply = move |client: &mut Client, at: Timestamp| {
            if client.revoked.is_some() {
                return Err(ClientError::Revoked);
            }
            let key = to_client_key(new, at);
            let words = key.id.clone();
            add_key(&mut client.keys, key)?;
            Ok(Some(words))
        };
        Ok((self.store.change_client(id, company, "client.key.add", actor, apply).await?, key_id))
    }

    /// Removes a public key by its id or its `kid`; assertions that it signed are refused from then on.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn remove_key(&self, id: &ClientId, company: CompanyId, key: &str, actor: &Actor) -> Result<Client, ClientError> {
        let name = key.to_owned();
        let apply = move |client: &mut Client, _: Timestamp| {
            let Some(place) = client.keys.iter().position(|key| key.is_named(&name)) else { return Err(ClientError::NoSuchKey) };
            if client.keys.len() == 1 && client.secrets.is_empty() && client.revoked.is_none() {
                return Err(ClientError::LastKey);
            }
            let removed = client.keys.remove(place);
            Ok(Some(removed.id))
        };
        self.store.change_client(id, company, "client.key.remove", actor, apply).await
    }

    /// Gives a client a new secret, its first one where it had none. The one before is accepted for
    /// [`OLD_SECRET_LIFE`] more.
    ///
    /// # Errors
    /// See [`ClientServiceError`].
    pub async fn rotate_secret(
        &self,
        id: &ClientId,
        company: CompanyId,
        now: Timestamp,
        actor: &Actor,
    ) -> Result<(Zeroizing<String>, Option<Timestamp>), ClientServiceError> {
        let text = fresh_secret()?;
        let hash = secret_hash(self.store.pepper(), id.as_str(), &text);
        let ends = now.after(OLD_SECRET_LIFE);
        let apply = move |client: &mut Client, _: Timestamp| {
            if client.revoked.is_some() {
                return Err(ClientError::Revoked);
            }
            client.secrets.retain(|secret| secret.ends.is_none());
            for secret in &mut client.secrets {
                secret.ends = Some(ends);
            }
            client.secrets.push(ClientSecret { hash, ends: None });
            Ok(Some(String::new()))
        };
        let client = self.store.change_client(id, company, "client.rotate_secret", actor, apply).await?;
        Ok((text, (client.secrets.len() > 1).then_some(ends)))
    }

    /// The client with this id and secret. An unknown id costs as much time as a wrong secret.
    ///
    /// # Errors
    /// See [`SecretRefusal`].
    pub fn authenticate(&self, id: &str, secret: &str, now: Timestamp) -> Result<Arc<Client>, SecretRefusal> {
        let clients = self.store.clients();
        let client = clients.by_id(id);
        let presented = secret_hash(self.store.pepper(), id, secret);
        let current = client.map_or(&[][..], |client| &client.secrets);
        let mut is_right = presented.ct_eq(&[0; 32]);
        for secret in current.iter().filter(|secret| secret.ends.is_none_or(|ends| ends > now)) {
            is_right |= presented.ct_eq(&secret.hash);
        }
        let client = client.filter(|_| bool::from(is_right)).ok_or(SecretRefusal::Unknown)?;
        if client.revoked.is_some() {
            return Err(SecretRefusal::Revoked);
        }
        if client.is_over(now) { Err(SecretRefusal::Expired) } else { Ok(Arc::clone(client)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_long_and_needs_no_encoding_in_a_form() {
        let secret = fresh_secret().unwrap();
        assert!(secret.starts_with(SECRET_PREFIX) && secret.len() == 53, "{}", *secret);
        assert!(secret.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
        assert_ne!(*secret, *fresh_secret().unwrap());
    }

    #[test]
    fn the_hash_of_a_secret_is_its_clients_own() {
        assert_ne!(secret_hash(&[1; 32], "a", "s"), secret_hash(&[1; 32], "b", "s"));
        assert_ne!(secret_hash(&[1; 32], "a", "s"), secret_hash(&[2; 32], "a", "s"));
    }
}
