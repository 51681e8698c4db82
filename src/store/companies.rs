//! Companies in the ledger.

use std::collections::HashMap;
use std::sync::Arc;

use redb::ReadableTable;

use super::ledger::{COMPANIES, Ledger, record_act};
use super::live::existing;
use super::records::{self, CompanyRecord};
use super::{Actor, LedgerBusy, StorageFault, Store};
use crate::domain::company::{Company, CompanyId, NewCompany};
use crate::domain::time::Timestamp;

/// All companies at one moment.
#[derive(Debug, Clone, Default)]
pub struct Companies {
    by_id: HashMap<CompanyId, Arc<Company>>,
    by_slug: HashMap<String, Arc<Company>>,
}

impl Companies {
    /// The company with this number.
    #[must_use]
    pub fn by_id(&self, id: CompanyId) -> Option<&Arc<Company>> {
        self.by_id.get(&id)
    }

    /// The company with this slug.
    #[must_use]
    pub fn by_slug(&self, slug: &str) -> Option<&Arc<Company>> {
        self.by_slug.get(slug)
    }

    /// The company that somebody names by its number or its slug; a number wins over a slug of the same digits.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Arc<Company>> {
        let by_id = name.parse().ok().and_then(|number| self.by_id(CompanyId(number)));
        by_id.or_else(|| self.by_slug(name))
    }

    /// All of them, by number.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Company>> {
        let mut all: Vec<_> = self.by_id.values().cloned().collect();
        all.sort_by_key(|company| company.id);
        all
    }

    fn insert(&mut self, company: &Company) {
        let company = Arc::new(company.clone());
        self.by_slug.insert(company.slug.as_str().to_owned(), Arc::clone(&company));
        self.by_id.insert(company.id, company);
    }
}

/// Why a company was not created.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompanyError {
    /// Another one has the slug.
    #[error("there is already a company with the slug `{0}`")]
    SlugTaken(String),
    /// The ledger cannot take the act.
    #[error(transparent)]
    Busy(#[from] LedgerBusy),
}

fn read(id: u32, record: &[u8]) -> Result<Company, StorageFault> {
    let record: CompanyRecord = records::decode(record)?;
    let damaged = |error: &dyn std::fmt::Display| StorageFault::Record(format!("company {id}: {error}"));
    Ok(Company {
        id: CompanyId(id),
        slug: record.slug.parse().map_err(|error| damaged(&error))?,
        country: record.country.map(|country| country.parse()).transpose().map_err(|error| damaged(&error))?,
        name: record.name,
        created: Timestamp::from_micros(record.created_us),
    })
}

/// All companies of the ledger.
pub(super) fn load(ledger: &Ledger) -> Result<Companies, StorageFault> {
    let mut companies = Companies::default();
    let transaction = ledger.read()?;
    if let Some(table) = existing(transaction.open_table(COMPANIES))? {
        for row in table.iter()? {
            let (id, record) = row?;
            companies.insert(&read(id.value(), record.value())?);
        }
    }
    Ok(companies)
}

impl Store {
    /// All companies at this moment.
    #[must_use]
    pub fn companies(&self) -> Arc<Companies> {
        self.inner.companies.load_full()
    }

    /// Creates a company; it is on disk when this is done.
    ///
    /// # Errors
    /// See [`CompanyError`].
    pub async fn create_company(&self, new: NewCompany, actor: &Actor) -> Result<Company, CompanyError> {
        let (inner, actor, at) = (Arc::clone(&self.inner), actor.clone(), self.inner.now());
        let created = self.inner.ledger.submit(
            move |transaction| {
                let mut table = transaction.open_table(COMPANIES)?;
                for row in table.iter()? {
                    let record: CompanyRecord = records::decode(row?.1.value())?;
                    if record.slug == new.slug.as_str() {
                        return Ok(Err(CompanyError::SlugTaken(record.slug)));
                    }
                }
                let id = table.last()?.map_or(1, |(id, _)| id.value() + 1);
                let record = CompanyRecord {
                    slug: new.slug.as_str().to_owned(),
                    country: new.country.as_ref().map(|country| country.as_str().to_owned()),
                    name: new.name.clone(),
                    created_us: at.as_micros(),
                };
                table.insert(id, records::encode(&record)?.as_slice())?;
                drop(table);
                record_act(transaction, at, &actor, "company.create", &format!("company:{id}"), new.slug.as_str())?;
                Ok(Ok(Company { id: CompanyId(id), slug: new.slug, country: new.country, name: new.name, created: at }))
            },
            move |outcome: &Result<Company, CompanyError>| {
                if let Ok(company) = outcome {
                    let mut companies = Companies::clone(&inner.companies.load());
                    companies.insert(company);
                    inner.companies.store(Arc::new(companies));
                }
            },
        )?;
        created.await.map_err(|_| CompanyError::Busy(LedgerBusy::Ended))?
    }
}
