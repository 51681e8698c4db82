//! The audit log: who did what.

use super::ledger::AUDIT;
use super::live::existing;
use super::records::{self, AuditRecord};
use super::{ReadError, StorageFault, Store};
use crate::domain::time::Timestamp;

/// One act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// Counted from 1, without gaps.
    pub number: u64,
    /// When it was done.
    pub at: Timestamp,
    /// Who did it: `key:{id}` or `local`.
    pub actor: String,
    /// The request it came with.
    pub request_id: Option<String>,
    /// What was done, such as `key.create`.
    pub act: String,
    /// What it was done to, such as `key:{id}`.
    pub object: String,
    /// More of it in words; never a secret.
    pub detail: String,
}

impl Store {
    /// The newest acts below number `before` (all when none), newest first, at most `limit`.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn audit(&self, before: Option<u64>, limit: usize) -> Result<Vec<AuditRow>, ReadError> {
        let rows = || -> Result<Vec<AuditRow>, StorageFault> {
            let transaction = self.inner.ledger.read()?;
            let Some(table) = existing(transaction.open_table(AUDIT))? else { return Ok(Vec::new()) };
            let mut rows = Vec::new();
            for row in table.range(..before.unwrap_or(u64::MAX))?.rev().take(limit) {
                let (number, record) = row?;
                let record: AuditRecord = records::decode(record.value())?;
                rows.push(AuditRow {
                    number: number.value(),
                    at: Timestamp::from_micros(record.at_us),
                    actor: record.actor,
                    request_id: record.request_id,
                    act: record.act,
                    object: record.object,
                    detail: record.detail,
                });
            }
            Ok(rows)
        };
        Ok(rows()?)
    }
}
