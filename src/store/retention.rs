//! Retention: whole segments go when every event in them has expired.

use std::collections::HashMap;
use std::sync::PoisonError;

use tracing::{info, warn};

use super::ledger::{FILES, PURGED, SETTINGS};
use super::records::{self, FileState, PurgedRecord};
use super::sealed;
use super::segment::{Segment, SegmentReads};
use super::{Inner, StorageFault, Store, deliveries, open, replays};
use crate::domain::company::CompanyId;
use crate::domain::cursor::Position;
use crate::domain::time::Timestamp;

/// Rows of deliveries that one commit removes at most.
const SWEPT_MAX: usize = 20_000;

/// What one pass of retention took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dropped {
    /// Segments that are gone.
    pub segments: usize,
    /// Events that were in them.
    pub events: u64,
    /// Files of the attempt log that are gone.
    pub attempt_files: usize,
    /// Bytes of disk given back.
    pub disk_bytes: u64,
}

impl Inner {
    fn drop_expired(&self, until: Timestamp) -> Result<Dropped, StorageFault> {
        // One at a time: two would remove the same file, and the second one would find it gone.
        let _retiring = self.retiring.lock().unwrap_or_else(PoisonError::into_inner);
        let cutoff = self.cutoff().min(until);
        let mut dropped = Dropped::default();
        loop {
            let list = self.segments.load_full();
            // Only the oldest may go, so that the log never has a hole.
            let Some(Segment::Sealed(oldest)) = list.segments.first() else { break };
            let Some((_, last)) = oldest.span().filter(|(_, last)| last.created < cutoff) else { break };
            let number = oldest.number();
            let name = sealed::file_name(number);
            let mut purged: HashMap<CompanyId, Position> = HashMap::new();
            for company in oldest.companies()? {
                match oldest.last_of(company) {
                    Ok(Some(of_company)) => drop(purged.insert(company, of_company)),
                    Ok(None) => {}
                    // Damage does not keep a segment for ever; what is lost is reported rather too often.
                    Err(StorageFault::Corrupt(corrupt)) => {
                        warn!(segment = number, "Retention finds damaged data: {corrupt}");
                        purged.insert(company, last);
                    }
                    Err(fault) => return Err(fault),
                }
            }
            let bytes = self.disk.disk_bytes(&name)?;
            let events = oldest.summary.events;
            let mut swept = 0;
            let now = self.now();
            self.ledger.write(|transaction| {
                let mut table = transaction.open_table(PURGED)?;
                for (company, last) in &purged {
                    let record = PurgedRecord { last_id: last.id.0, last_created_us: last.created.as_micros() };
                    table.insert(company.0, records::encode(&record)?.as_slice())?;
                }
                // The log may be empty afterwards: ids and times go on from here.
                let mut settings = transaction.open_table(SETTINGS)?;
                settings.insert("floor_id", last.id.0)?;
                settings.insert("floor_created_us", last.created.as_micros())?;
                drop(settings);
                swept = deliveries::sweep(transaction, last.id, now, SWEPT_MAX)?;
                replays::sweep(transaction, now)?;
                open::record_file(transaction, number, FileState::Dropping, Some(oldest.summary))
            })?;
            self.purged.rcu(|known| {
                let mut known = HashMap::clone(known);
                known.extend(purged.iter().map(|(company, last)| (*company, *last)));
                known
            });
            // Many rows are removed in many commits; what a crash leaves behind goes with the next segment.
            while swept >= SWEPT_MAX {
                swept = self.ledger.write(|transaction| deliveries::sweep(transaction, last.id, now, SWEPT_MAX))?;
            }
            oldest.give_up()?;
            self.change_segments(|list| list.segments.retain(|segment| segment.reads().number() != number));
            self.disk.remove(&name)?;
            self.disk.sync_folder("log")?;
            self.ledger.write(|transaction| {
                transaction.open_table(FILES)?.remove(number)?;
                Ok(())
            })?;
            dropped.segments += 1;
            dropped.events += events;
            dropped.disk_bytes += bytes;
            info!(segment = number, events, "Retention dropped segment {number} with {events} events");
        }
        self.forget_secrets()?;
        let (files, bytes) = self.drop_expired_attempts()?;
        dropped.attempt_files = files;
        dropped.disk_bytes += bytes;
        Ok(dropped)
    }
}

impl Store {
    /// Drops what has expired; see [`Store::drop_expired_before`].
    ///
    /// # Errors
    /// A fault of the storage, which has been reported and ends the store.
    pub fn drop_expired(&self) -> Result<Dropped, StorageFault> {
        self.drop_expired_before(self.cutoff())
    }

    /// Drops the segments that hold only events that were created before `until` and have expired, with what the ledger
    /// says of their deliveries, the files of attempts that have expired, and secrets that were replaced long
    /// enough ago. Whoever sends has written down before what
    /// expires until then; what expires in the meantime is the next call's. The open segment is closed when it holds nothing
    /// else, and goes once it is sealed.
    ///
    /// # Errors
    /// A fault of the storage, which has been reported and ends the store.
    pub fn drop_expired_before(&self, until: Timestamp) -> Result<Dropped, StorageFault> {
        let dropped = self.inner.drop_expired(until).inspect_err(|fault| self.inner.sink.report(fault))?;
        self.inner.queue.nudge();
        Ok(dropped)
    }

    /// Believes the machine's clock from now on, as the operator says.
    pub fn accept_clock(&self) {
        let inner = &self.inner;
        inner.guard.lock().unwrap_or_else(PoisonError::into_inner).accept(inner.clock.now(), inner.clock.monotonic());
    }

    /// What retention has not reached yet: number, last event and bytes on disk of each sealed segment, oldest first.
    #[must_use]
    pub fn sealed_segments(&self) -> Vec<(u64, Position, u64)> {
        let list = self.inner.segments.load();
        let sealed = list.segments.iter().filter(|segment| matches!(segment, Segment::Sealed(_)));
        sealed
            .filter_map(|segment| {
                let number = segment.reads().number();
                let (_, last) = segment.reads().span()?;
                Some((number, last, self.inner.disk.disk_bytes(&sealed::file_name(number)).ok()?))
            })
            .collect()
    }
}
