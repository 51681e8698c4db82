//! Where webhooks come from: what they tell of the daemon and of the company.

use std::fmt;
use std::sync::Arc;

use url::Url;

use super::rsa::RsaKey;
use crate::catalog::Catalog;
use crate::domain::company::CompanyId;
use crate::domain::notification::NotificationKey;

/// What the webhooks of one company tell of it and of the daemon.
#[derive(Clone)]
pub struct Origin {
    /// What links start with; no slash at its end.
    pub public_url: Arc<str>,
    /// What the company is called in addresses.
    pub slug: String,
    /// Makes the ids of its messages and notifications.
    pub notification_key: NotificationKey,
    /// What its event types are called in which language.
    pub catalog: Arc<Catalog>,
    /// Its RSA key; none before it was first needed.
    pub rsa: Option<Arc<RsaKey>>,
}

impl fmt::Debug for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Origin").field("public_url", &self.public_url).field("slug", &self.slug).finish_non_exhaustive()
    }
}

impl Origin {
    /// The attribute `source` of CloudEvents, as it is unless a subscription wants another.
    #[must_use]
    pub fn source(&self) -> String {
        format!("{}/companies/{}", self.public_url, self.slug)
    }

    /// The DNS name of the daemon, or its address: what receivers consent to (CloudEvents HTTP web hooks 1.0.2, 4.1.1).
    #[must_use]
    pub fn host(&self) -> Option<String> {
        Url::parse(&self.public_url).ok()?.host_str().map(str::to_owned)
    }
}

/// Tells the origin of each company as it is at the moment.
#[derive(Clone)]
pub struct Origins(Arc<dyn Fn(CompanyId) -> Origin + Send + Sync>);

impl fmt::Debug for Origins {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Origins").finish_non_exhaustive()
    }
}

impl Origins {
    /// Origins as this function tells them.
    #[must_use]
    pub fn new(of: impl Fn(CompanyId) -> Origin + Send + Sync + 'static) -> Self {
        Self(Arc::new(of))
    }

    /// The origin of a company.
    #[must_use]
    pub fn of(&self, company: CompanyId) -> Origin {
        (self.0)(company)
    }
}
