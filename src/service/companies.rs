//! Tenants: creating, listing, finding.

use std::sync::Arc;

use crate::domain::company::{Company, CompanyId, NewCompany};
use crate::store::{Actor, CompanyError, Store};

/// The use cases of companies.
#[derive(Debug)]
pub struct CompanyService {
    store: Store,
}

impl CompanyService {
    pub(super) fn new(store: Store) -> Self {
        Self { store }
    }

    /// Creates a company.
    ///
    /// # Errors
    /// See [`CompanyError`].
    pub async fn create(&self, new: NewCompany, actor: &Actor) -> Result<Company, CompanyError> {
        self.store.create_company(new, actor).await
    }

    /// All companies, by number.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Company>> {
        self.store.companies().all()
    }

    /// The company with this number.
    #[must_use]
    pub fn by_id(&self, id: CompanyId) -> Option<Arc<Company>> {
        self.store.companies().by_id(id).cloned()
    }

    /// The company with this slug.
    #[must_use]
    pub fn by_slug(&self, slug: &str) -> Option<Arc<Company>> {
        self.store.companies().by_slug(slug).cloned()
    }

    /// The company that somebody names by its number or its slug; a number wins over a slug of the same digits.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Arc<Company>> {
        self.store.companies().named(name).cloned()
    }
}
