//! The attempt log: what was sent and what came of it.
//!
//! It lies in files that each take the attempts of a bounded stretch of time and never change after that, so that
//! retention unlinks them as it does the segments of the event log. Inside a file the attempts of one delivery lie
//! together. A file is made when there is something to write and no other is open.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use redb::{
    Builder, Database, ReadOnlyDatabase, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction,
};
use tracing::info;
use twox_hash::XxHash3_64;

use super::deliveries::{ATTEMPT_BATCH, EventRun};
use super::disk::{Disk, OpenMode};
use super::ledger::{Ledger, SETTINGS};
use super::live::existing;
use super::open::OpenError;
use super::records::{self, AttemptFileRecord, AttemptFileState, AttemptRecord, AttemptSpan, SegmentMeta};
use super::sealed::open_database;
use super::tables::META;
use super::{Inner, ReadError, StorageFault, Store};
use crate::domain::event::EventId;
use crate::domain::retry::ErrorClass;
use crate::domain::subscription::{DeliveryId, SubscriptionId};
use crate::domain::time::Timestamp;

/// Subscription, event, run (0: the delivery itself), number of the attempt.
type AttemptKey = (u32, u64, u32, u32);

/// Attempt → XXH3-64 of key and record, and the [`AttemptRecord`].
const ATTEMPTS: TableDefinition<AttemptKey, &[u8]> = TableDefinition::new("attempts");

/// Number of a file of the attempt log → [`AttemptFileRecord`].
const ATTEMPT_FILES: TableDefinition<u64, &[u8]> = TableDefinition::new("attempt_files");

/// redb's cache for the file that is written to.
const CACHE_BYTES: usize = 8 * 1024 * 1024;

/// Closed files that are open for reading at the same time.
const OPEN_MAX: usize = 16;

/// A file is closed after this share of what a segment of the event log may hold.
const SHARE_OF_SEGMENT: u64 = 4;

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptRow {
    /// Of which delivery.
    pub delivery: DeliveryId,
    /// Counted from 1; the same number again replaces it.
    pub number: u32,
    /// When it began.
    pub started: Timestamp,
    /// How long it took, to the last byte of the answer.
    pub duration: Duration,
    /// Where it went to, if it came so far.
    pub address: Option<IpAddr>,
    /// The status of the answer.
    pub status: Option<u16>,
    /// Why it failed; none on success.
    pub error_class: Option<ErrorClass>,
    /// The same in words.
    pub error: Option<String>,
    /// The beginning of the answer.
    pub excerpt: String,
    /// Whether the answer was longer.
    pub truncated: bool,
    /// When the next attempt may be made.
    pub next_due: Option<Timestamp>,
    /// The type of the event, as published.
    pub kind: String,
    /// When the event was created.
    pub event_created: Timestamp,
    /// Whether the receiver has it.
    pub delivered: bool,
}

fn file_name(number: u64) -> String {
    format!("attempts/{number}.redb")
}

fn key_of(row: &AttemptRow) -> AttemptKey {
    (row.delivery.subscription.0, row.delivery.event.0, row.delivery.run, row.number)
}

fn checksum(key: AttemptKey, record: &[u8]) -> u64 {
    let (subscription, event, run, number) = key;
    let seed = [u64::from(subscription), event, u64::from(run) << 32 | u64::from(number)];
    let seed = seed.iter().fold(0, |seed, part| XxHash3_64::oneshot_with_seed(seed, &part.to_le_bytes()));
    XxHash3_64::oneshot_with_seed(seed, record)
}

fn pack(row: &AttemptRow, batch: u64) -> Result<Vec<u8>, StorageFault> {
    let record = AttemptRecord {
        started_us: row.started.as_micros(),
        duration_us: u64::try_from(row.duration.as_micros()).unwrap_or(u64::MAX),
        address: row.address.map(|address| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        }),
        status: row.status,
        error_class: row.error_class.map(|class| class.as_str().to_owned()),
        error: row.error.clone(),
        excerpt: row.excerpt.clone(),
        truncated: row.truncated,
        next_due_us: row.next_due.map(Timestamp::as_micros),
        kind: row.kind.clone(),
        event_created_us: row.event_created.as_micros(),
        delivered: row.delivered,
        batch: Some(batch),
    };
    let record = records::encode(&record)?;
    let mut packed = checksum(key_of(row), &record).to_le_bytes().to_vec();
    packed.extend_from_slice(&record);
    Ok(packed)
}

fn unpack(file: u64, key: AttemptKey, packed: &[u8]) -> Result<AttemptRow, StorageFault> {
    let (subscription, event, run, number) = key;
    let delivery = DeliveryId { subscription: SubscriptionId(subscription), event: EventId(event), run };
    let damaged = || StorageFault::Record(format!("{}, attempt {number} of delivery {delivery}", file_name(file)));
    let (sum, record) = packed.split_first_chunk::<8>().ok_or_else(damaged)?;
    if u64::from_le_bytes(*sum) != checksum(key, record) {
        return Err(damaged());
    }
    let record: AttemptRecord = records::decode(record)?;
    let address = |bytes: Vec<u8>| {
        let v4 = <[u8; 4]>::try_from(bytes.as_slice()).map(IpAddr::from);
        v4.or_else(|_| <[u8; 16]>::try_from(bytes.as_slice()).map(IpAddr::from)).map_err(|_| damaged())
    };
    let class = |text: String| ErrorClass::ALL.into_iter().find(|class| class.as_str() == text).ok_or_else(damaged);
    Ok(AttemptRow {
        delivery,
        number,
        started: Timestamp::from_micros(record.started_us),
        duration: Duration::from_micros(record.duration_us),
        address: record.address.map(address).transpose()?,
        status: record.status,
        error_class: record.error_class.map(class).transpose()?,
        error: record.error,
        excerpt: record.excerpt,
        truncated: record.truncated,
        next_due: record.next_due_us.map(Timestamp::from_micros),
        kind: record.kind,
        event_created: Timestamp::from_micros(record.event_created_us),
        delivered: record.delivered,
    })
}

/// The span of `before` and more attempts.
fn widen(before: Option<AttemptSpan>, rows: &BTreeMap<AttemptKey, (Timestamp, Vec<u8>)>, batch: u64) -> Option<AttemptSpan> {
    rows.iter().fold(before, |span, (key, (started, packed))| {
        let (at, event, bytes) = (started.as_micros(), key.1, packed.len() as u64);
        Some(match span {
            None => AttemptSpan { first_us: at, last_us: at, first_event: event, last_event: event, bytes, batch: Some(batch) },
            Some(span) => AttemptSpan {
                first_us: span.first_us.min(at),
                last_us: span.last_us.max(at),
                first_event: span.first_event.min(event),
                last_event: span.last_event.max(event),
                bytes: span.bytes + bytes,
                batch: Some(batch),
            },
        })
    })
}

/// The file that is written to.
#[derive(Debug)]
struct OpenFile {
    number: u64,
    database: Database,
    span: Option<AttemptSpan>,
}

/// A file that never changes again.
#[derive(Debug, Clone, Copy)]
struct ClosedFile {
    number: u64,
    span: AttemptSpan,
}

#[derive(Debug, Default)]
struct Files {
    /// Oldest first.
    closed: Vec<ClosedFile>,
    open: Option<OpenFile>,
}

/// Closed files that were read last, oldest first.
#[derive(Default)]
struct Reading(VecDeque<(u64, Arc<ReadOnlyDatabase>)>);

impl std::fmt::Debug for Reading {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_list().entries(self.0.iter().map(|(number, _)| number)).finish()
    }
}

#[derive(Debug, Default)]
struct Writing {
    /// The open file has commits since the last empty one.
    is_unsettled: bool,
    /// The number of the last commit.
    batch: u64,
}

/// The files of the attempt log. Who reads holds the list; a file changes its state while nobody does.
#[derive(Debug, Default)]
pub(super) struct AttemptLog {
    files: RwLock<Files>,
    /// Held by whoever changes the files.
    writing: Mutex<Writing>,
    /// The attempts that the ledger did not come to know of.
    unjudged: Vec<AttemptRow>,
    reading: Mutex<Reading>,
}

impl AttemptLog {
    fn files(&self) -> RwLockReadGuard<'_, Files> {
        self.files.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn files_mut(&self) -> RwLockWriteGuard<'_, Files> {
        self.files.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reading(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A closed file, opened if it is not.
    fn read(&self, disk: &dyn Disk, number: u64) -> Result<Arc<ReadOnlyDatabase>, StorageFault> {
        let mut reading = self.reading();
        if let Some((_, database)) = reading.0.iter().find(|(open, _)| *open == number) {
            return Ok(Arc::clone(database));
        }
        let database = Arc::new(open_database(disk, &file_name(number))?);
        reading.0.push_back((number, Arc::clone(&database)));
        if reading.0.len() > OPEN_MAX {
            reading.0.pop_front();
        }
        Ok(database)
    }

    /// The attempts of the last commits, as they were found at the start, if the ledger does not know what came of them.
    pub fn unjudged(&self) -> Vec<AttemptRow> {
        self.unjudged.clone()
    }

    /// The paths of all files.
    pub fn names(&self) -> Vec<String> {
        let files = self.files();
        let open = files.open.iter().map(|file| file.number);
        files.closed.iter().map(|file| file.number).chain(open).map(file_name).collect()
    }
}

fn record_file(
    transaction: &WriteTransaction,
    number: u64,
    state: AttemptFileState,
    span: Option<AttemptSpan>,
) -> Result<(), StorageFault> {
    let record = AttemptFileRecord { state, span };
    transaction.open_table(ATTEMPT_FILES)?.insert(number, records::encode(&record)?.as_slice())?;
    Ok(())
}

fn forget_file(ledger: &Ledger, number: u64) -> Result<(), StorageFault> {
    ledger.write(|transaction| {
        transaction.open_table(ATTEMPT_FILES)?.remove(number)?;
        Ok(())
    })
}

fn is_present(disk: &dyn Disk, number: u64) -> Result<bool, StorageFault> {
    Ok(disk.list("attempts")?.iter().any(|file| file_name(number).strip_prefix("attempts/") == Some(file)))
}

/// Makes the file with its first commit, syncs it and its folder. What a crash has left under its name is replaced.
fn make_file(disk: &dyn Disk, number: u64, epoch: u32) -> Result<OpenFile, StorageFault> {
    let name = file_name(number);
    if is_present(disk, number)? {
        disk.remove(&name)?;
    }
    let storage = disk.open(&name, OpenMode::CreateNew)?;
    let database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(storage)?;
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    let about = SegmentMeta { format: records::STORE_FORMAT, number, epoch, summary: None, follows_id: 0 };
    transaction.open_table(META)?.insert("about", records::encode(&about)?.as_slice())?;
    transaction.open_table(ATTEMPTS)?;
    transaction.commit()?;
    disk.sync_folder("attempts")?;
    Ok(OpenFile { number, database, span: None })
}

/// Opens the file that was written to last; none when it says that it is another one.
fn reopen_file(disk: &dyn Disk, number: u64, epoch: u32) -> Result<Option<OpenFile>, StorageFault> {
    let storage = disk.open(&file_name(number), OpenMode::ReadWrite)?;
    let database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(storage)?;
    let (about, span) = {
        let transaction = database.begin_read()?;
        let Some(meta) = existing(transaction.open_table(META))? else { return Ok(None) };
        let about: Option<SegmentMeta> = meta.get("about")?.map(|about| records::decode(about.value())).transpose()?;
        let span: Option<AttemptSpan> = meta.get("span")?.map(|span| records::decode(span.value())).transpose()?;
        (about, span)
    };
    let Some(about) = about else { return Ok(None) };
    if about.format > records::STORE_FORMAT {
        return Err(StorageFault::NewerFormat { found: about.format, known: records::STORE_FORMAT });
    }
    Ok((about.number == number && about.epoch <= epoch).then_some(OpenFile { number, database, span }))
}

/// Brings the files to where the ledger's last commit left them.
pub(super) fn open(disk: &dyn Disk, ledger: &Ledger, epoch: u32) -> Result<AttemptLog, OpenError> {
    let mut known: Vec<(u64, AttemptFileRecord)> = Vec::new();
    {
        let transaction = ledger.read()?;
        if let Some(table) = existing(transaction.open_table(ATTEMPT_FILES))? {
            for row in table.iter().map_err(StorageFault::from)? {
                let (number, record) = row.map_err(StorageFault::from)?;
                known.push((number.value(), records::decode(record.value())?));
            }
        }
    }
    let present = disk.list("attempts").map_err(StorageFault::from)?;
    // As in the event log: a row is written before its file is made and removed after it.
    let last = known.last().map_or(0, |(number, _)| *number);
    let number_of = |file: &str| file.strip_suffix(".redb").and_then(|stem| stem.parse::<u64>().ok());
    if let Some(newer) = present.iter().find(|file| number_of(file).is_some_and(|number| number > last)) {
        return Err(OpenError::UnknownFile { name: format!("attempts/{newer}") });
    }
    let mut files = Files::default();
    let mut gone = Vec::new();
    for (number, record) in &known {
        let number = *number;
        let is_there = present.iter().any(|file| number_of(file) == Some(number));
        match (record.state, record.span) {
            (AttemptFileState::Creating, _) => {
                // It was never written to: whatever the crash has left of it goes.
                gone.push((number, is_there));
            }
            (AttemptFileState::Dropping, _) => gone.push((number, is_there)),
            (AttemptFileState::Open | AttemptFileState::Closed, _) if !is_there => {
                return Err(OpenError::MissingFile { name: file_name(number) });
            }
            (AttemptFileState::Closed, Some(span)) => files.closed.push(ClosedFile { number, span }),
            (AttemptFileState::Open | AttemptFileState::Closed, _) => {
                let file = reopen_file(disk, number, epoch)?.ok_or_else(|| OpenError::WrongFile { name: file_name(number) })?;
                files.open = Some(file);
            }
        }
    }
    for (number, is_there) in gone {
        if is_there {
            disk.remove(&file_name(number)).map_err(StorageFault::from)?;
            disk.sync_folder("attempts").map_err(StorageFault::from)?;
        }
        forget_file(ledger, number)?;
    }
    let leftovers = present.iter().filter(|file| number_of(file).is_some_and(|number| known.iter().all(|(known, _)| *known != number)));
    for file in leftovers {
        disk.remove(&format!("attempts/{file}")).map_err(StorageFault::from)?;
        disk.sync_folder("attempts").map_err(StorageFault::from)?;
    }
    let known = judged_batch(ledger)?;
    let mut unjudged = Vec::new();
    let mut batch = known;
    if let Some(OpenFile { number, database, span: Some(AttemptSpan { batch: Some(last), .. }) }) = &files.open
        && *last > known
    {
        batch = *last;
        unjudged = attempts_behind(*number, database, known)?;
        info!(attempts = unjudged.len(), "{} attempts were made whose outcomes were not written down any more", unjudged.len());
    }
    let writing = Mutex::new(Writing { is_unsettled: false, batch });
    Ok(AttemptLog { files: RwLock::new(files), writing, unjudged, ..AttemptLog::default() })
}

/// The last commit of attempts whose outcomes the ledger has.
fn judged_batch(ledger: &Ledger) -> Result<u64, StorageFault> {
    let transaction = ledger.read()?;
    let Some(settings) = existing(transaction.open_table(SETTINGS))? else { return Ok(0) };
    Ok(settings.get(ATTEMPT_BATCH)?.map_or(0, |batch| batch.value()))
}

/// The attempts of later commits: of several, when one crash came soon after the other.
fn attempts_behind(file: u64, database: &Database, batch: u64) -> Result<Vec<AttemptRow>, StorageFault> {
    let mut found = Vec::new();
    for row in database.begin_read()?.open_table(ATTEMPTS)?.iter()? {
        let (key, packed) = row?;
        let record = packed.value().get(size_of::<u64>()..).unwrap_or_default();
        // Damage is found and told by whoever reads the attempt.
        let of = records::decode::<AttemptRecord>(record).ok().and_then(|record| record.batch);
        if of.is_some_and(|of| of > batch) {
            found.extend(unpack(file, key.value(), packed.value()));
        }
    }
    Ok(found)
}

/// A file that may be read from.
struct ReadFile<'a> {
    inner: &'a Inner,
    number: u64,
    span: AttemptSpan,
    open: Option<&'a Database>,
}

/// A view of a file.
struct View {
    transaction: ReadTransaction,
    /// Keeps the file open.
    _closed: Option<Arc<ReadOnlyDatabase>>,
}

impl ReadFile<'_> {
    fn view(&self) -> Result<View, StorageFault> {
        if let Some(database) = self.open {
            return Ok(View { transaction: database.begin_read()?, _closed: None });
        }
        let database = self.inner.attempts.read(self.inner.disk.as_ref(), self.number)?;
        Ok(View { transaction: database.begin_read()?, _closed: Some(database) })
    }
}

impl View {
    fn attempts(&self) -> Result<ReadOnlyTable<AttemptKey, &'static [u8]>, StorageFault> {
        Ok(self.transaction.open_table(ATTEMPTS)?)
    }
}

impl Inner {
    /// Writes attempts; they are on disk when this returns.
    /// The number of their commit; none when there are none.
    pub(super) fn append_attempts(&self, attempts: &[AttemptRow]) -> Result<Option<u64>, StorageFault> {
        if attempts.is_empty() {
            return Ok(None);
        }
        let mut writing = self.attempts.writing();
        let batch = writing.batch + 1;
        self.close_file_if_due()?;
        if self.attempts.files().open.is_none() {
            self.open_next_file()?;
        }
        let mut rows = BTreeMap::new();
        for row in attempts {
            rows.insert(key_of(row), (row.started, pack(row, batch)?));
        }
        let span = {
            let files = self.attempts.files();
            let Some(file) = &files.open else { return Err(StorageFault::Record("no file of the attempt log is open".to_owned())) };
            let span = widen(file.span, &rows, batch);
            let transaction = file.database.begin_write()?;
            {
                let mut table = transaction.open_table(ATTEMPTS)?;
                for (key, (_, packed)) in &rows {
                    table.insert(*key, packed.as_slice())?;
                }
                if let Some(span) = &span {
                    transaction.open_table(META)?.insert("span", records::encode(span)?.as_slice())?;
                }
            }
            transaction.commit()?;
            span
        };
        if let Some(file) = &mut self.attempts.files_mut().open {
            file.span = span;
        }
        *writing = Writing { is_unsettled: true, batch };
        Ok(Some(batch))
    }

    fn open_next_file(&self) -> Result<(), StorageFault> {
        let number = self.attempts.files().closed.last().map_or(1, |file| file.number + 1);
        self.ledger.write(|transaction| record_file(transaction, number, AttemptFileState::Creating, None))?;
        let file = make_file(self.disk.as_ref(), number, self.epoch)?;
        self.ledger.write(|transaction| record_file(transaction, number, AttemptFileState::Open, None))?;
        self.attempts.files_mut().open = Some(file);
        Ok(())
    }

    /// Closes the open file when its size or its age says so, or when all of its attempts have expired.
    fn close_file_if_due(&self) -> Result<(), StorageFault> {
        let now = self.now();
        let is_due = match &self.attempts.files().open {
            Some(OpenFile { span: Some(span), .. }) => {
                let first = Timestamp::from_micros(span.first_us);
                span.bytes >= self.options.segment_bytes_max / SHARE_OF_SEGMENT
                    || now.as_seconds() / 86_400 != first.as_seconds() / 86_400
                    || now.since(first) >= self.options.segment_age_max
                    || Timestamp::from_micros(span.last_us) < self.cutoff()
            }
            _ => false,
        };
        if !is_due {
            return Ok(());
        }
        let mut files = self.attempts.files_mut();
        let Some(file) = files.open.take() else { return Ok(()) };
        let (number, span) = (file.number, file.span);
        file.database.close()?;
        self.ledger.write(|transaction| record_file(transaction, number, AttemptFileState::Closed, span))?;
        files.closed.extend(span.map(|span| ClosedFile { number, span }));
        info!(file = number, "File {number} of the attempt log is closed");
        Ok(())
    }

    /// Drops the files whose last attempt has expired. How many, and the bytes of disk given back.
    pub(super) fn drop_expired_attempts(&self) -> Result<(usize, u64), StorageFault> {
        let _writing = self.attempts.writing();
        self.close_file_if_due()?;
        let cutoff = self.cutoff().as_micros();
        let mut dropped = (0, 0);
        loop {
            let expired = self.attempts.files().closed.iter().find(|file| file.span.last_us < cutoff).copied();
            let Some(ClosedFile { number, span }) = expired else { return Ok(dropped) };
            let bytes = self.disk.disk_bytes(&file_name(number))?;
            self.ledger.write(|transaction| record_file(transaction, number, AttemptFileState::Dropping, Some(span)))?;
            {
                let mut files = self.attempts.files_mut();
                files.closed.retain(|file| file.number != number);
                self.attempts.reading().0.retain(|(open, _)| *open != number);
            }
            self.disk.remove(&file_name(number))?;
            self.disk.sync_folder("attempts")?;
            forget_file(&self.ledger, number)?;
            dropped = (dropped.0 + 1, dropped.1 + bytes);
            info!(file = number, "Retention dropped file {number} of the attempt log");
        }
    }

    /// Calls `take` with each file, newest first, until it says that it has enough.
    fn each_file(&self, mut take: impl FnMut(&ReadFile<'_>) -> Result<bool, StorageFault>) -> Result<(), StorageFault> {
        let files = self.attempts.files();
        if let Some(OpenFile { number, database, span: Some(span) }) = &files.open
            && take(&ReadFile { inner: self, number: *number, span: *span, open: Some(database) })?
        {
            return Ok(());
        }
        for ClosedFile { number, span } in files.closed.iter().rev().copied() {
            if take(&ReadFile { inner: self, number, span, open: None })? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// All attempts of a delivery that are left, by number.
    pub(super) fn attempts_of(&self, id: DeliveryId) -> Result<Vec<AttemptRow>, StorageFault> {
        let (subscription, event, run) = (id.subscription.0, id.event.0, id.run);
        let mut attempts: BTreeMap<u32, AttemptRow> = BTreeMap::new();
        self.each_file(|file| {
            if event < file.span.first_event || event > file.span.last_event {
                return Ok(false);
            }
            let view = file.view()?;
            for row in view.attempts()?.range((subscription, event, run, 0)..=(subscription, event, run, u32::MAX))? {
                let (key, packed) = row?;
                let attempt = unpack(file.number, key.value(), packed.value())?;
                // A newer file has the later word.
                attempts.entry(attempt.number).or_insert(attempt);
            }
            // The first attempt is in the oldest file that has any.
            Ok(attempts.contains_key(&1))
        })?;
        Ok(attempts.into_values().collect())
    }

    /// Events and runs below `before` of which the subscription has attempts, newest first, at most `limit`.
    pub(super) fn attempted_below(&self, id: SubscriptionId, before: EventRun, limit: usize) -> Result<Vec<EventRun>, StorageFault> {
        let mut found: BTreeSet<EventRun> = BTreeSet::new();
        // Files overlap in events: each is asked for what is newer than what would fall out anyway.
        self.each_file(|file| {
            let is_late = found.len() >= limit && found.first().is_some_and(|(oldest, _)| oldest.0 > file.span.last_event);
            if is_late || file.span.first_event > before.0.0 {
                return Ok(false);
            }
            let view = file.view()?;
            let table = view.attempts()?;
            let mut below = before;
            let mut taken = 0;
            while taken < limit && (found.len() < limit || found.first().is_some_and(|oldest| *oldest < below)) {
                let (event, run) = below;
                let Some(row) = table.range((id.0, 0, 0, 0)..(id.0, event.0, run, 0))?.next_back() else { break };
                let (_, event, run, _) = row?.0.value();
                below = (EventId(event), run);
                found.insert(below);
                if found.len() > limit {
                    found.pop_first();
                }
                taken += 1;
            }
            Ok(false)
        })?;
        Ok(found.into_iter().rev().collect())
    }

    /// Reads every attempt; what is damaged is named.
    pub(super) fn verify_attempts(&self) -> Result<Vec<String>, StorageFault> {
        let mut faults = Vec::new();
        self.each_file(|file| {
            let view = file.view()?;
            for row in view.attempts()?.iter()? {
                let (key, packed) = row?;
                if let Err(fault) = unpack(file.number, key.value(), packed.value()) {
                    faults.push(fault.to_string());
                }
            }
            Ok(false)
        })?;
        Ok(faults)
    }
}

impl Store {
    /// The greatest number that an attempt of a delivery has in the attempt log, 0 when it has none there.
    ///
    /// # Errors
    /// When the bytes on disk are damaged or cannot be read.
    pub fn attempts_made(&self, id: DeliveryId) -> Result<u32, ReadError> {
        Ok(self.inner.attempts_of(id)?.last().map_or(0, |attempt| attempt.number))
    }

    /// To be called when no outcomes have come for a while: an empty commit makes the next open instant.
    ///
    /// # Errors
    /// A fault of the storage, which has been reported and ends the store.
    pub fn settle_attempts(&self) -> Result<(), StorageFault> {
        let settle = || -> Result<(), StorageFault> {
            let mut writing = self.inner.attempts.writing();
            if std::mem::take(&mut writing.is_unsettled)
                && let Some(file) = &self.inner.attempts.files().open
            {
                let mut transaction = file.database.begin_write()?;
                transaction.set_quick_repair(true);
                transaction.commit()?;
            }
            Ok(())
        };
        settle().inspect_err(|fault| self.inner.sink.report(fault))
    }
}
