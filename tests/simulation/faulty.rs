//! A disk that refuses one operation, and what the store makes of it.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lutine::domain::cursor::{Direction, Position};
use lutine::domain::event::EventId;
use lutine::domain::filter::TypeFilter;
use lutine::store::disk::{Disk, FileStorage, OpenMode};
use lutine::store::faults::Faults;
use lutine::store::{
    AppendError, CompanyError, FaultSink, LedgerBusy, PageOutcome, PageQuery, Start, StorageFault, Store, StoreOptions, StoreThreads,
};
use redb::StorageBackend;

use crate::disk::{Chance, SimDisk};
use crate::stage::{COMPANY, SimClock, Stage, actor, company, event, master, options};

/// How an operation ends that is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// With an input/output error.
    Error,
    /// With a panic of the thread; of operations on names only, because redb cannot be left while it holds its locks.
    Panic,
}

/// When an operation is refused, and of which files.
#[derive(Debug)]
struct Plan {
    /// What the names of the files contain.
    files: &'static str,
    refusal: Refusal,
    /// Writes, changes of length and syncs until the refused one; only that one is.
    left: AtomicU64,
}

impl Plan {
    /// Of an operation on a file's content.
    fn check(&self, name: &str) -> io::Result<()> {
        if self.refusal == Refusal::Panic { Ok(()) } else { self.check_name(name) }
    }

    fn check_name(&self, name: &str) -> io::Result<()> {
        let left = if name.contains(self.files) { self.left.fetch_sub(1, Ordering::AcqRel) } else { u64::MAX };
        match self.refusal {
            _ if left != 1 => Ok(()),
            Refusal::Error => Err(io::Error::from_raw_os_error(5)),
            Refusal::Panic => panic!("planted in the disk"),
        }
    }
}

#[derive(Debug, Clone)]
struct FaultyDisk {
    disk: SimDisk,
    plan: Arc<Plan>,
}

#[derive(Debug)]
struct FaultyFile {
    name: String,
    storage: FileStorage,
    plan: Arc<Plan>,
}

impl StorageBackend for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        self.storage.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.storage.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.plan.check(&self.name)?;
        self.storage.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.plan.check(&self.name)?;
        self.storage.sync_data()
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.plan.check(&self.name)?;
        self.storage.write(offset, bytes)
    }
}

impl Disk for FaultyDisk {
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<FileStorage> {
        let storage = self.disk.open(name, mode)?;
        Ok(FileStorage::new(FaultyFile { name: name.to_owned(), storage, plan: Arc::clone(&self.plan) }))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.disk.list(folder)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.plan.check_name(from)?;
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.plan.check_name(name)?;
        self.disk.remove(name)
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        self.plan.check_name(folder)?;
        self.disk.sync_folder(folder)
    }

    fn disk_bytes(&self, name: &str) -> io::Result<u64> {
        self.disk.disk_bytes(name)
    }
}

/// A store with its threads on a disk that is going to refuse an operation.
struct Faulty {
    disk: SimDisk,
    clock: Arc<SimClock>,
    store: Store,
    threads: StoreThreads,
    /// What the sink was told.
    told: Arc<Mutex<Vec<String>>>,
}

/// The value of a future; an error when it takes longer than anything here may.
fn wait<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), future).await.expect("a caller is left waiting") })
}

impl Faulty {
    /// `operations` are counted from the start of the threads on.
    fn start(files: &'static str, refusal: Refusal, operations: u64) -> Self {
        let disk = SimDisk::default();
        disk.never_crash();
        let clock = Arc::new(SimClock::default());
        let plan = Arc::new(Plan { files, refusal, left: AtomicU64::new(u64::MAX) });
        let faulty = FaultyDisk { disk: disk.clone(), plan: Arc::clone(&plan) };
        let told = Arc::new(Mutex::new(Vec::new()));
        let sink = {
            let told = Arc::clone(&told);
            FaultSink::new(move |fault: &StorageFault| told.lock().unwrap().push(fault.to_string()))
        };
        let options = StoreOptions { segment_bytes_max: 6_000, ..options() };
        let store = Store::open(Arc::new(faulty), clock.clone(), &master(), options, Faults::default(), sink).unwrap();
        let threads = store.start().unwrap();
        plan.left.store(operations, Ordering::Release);
        Self { disk, clock, store, threads, told }
    }

    fn append(&self, payload: &str) -> Result<EventId, AppendError> {
        let appending = self.store.append(self.store.prepare(COMPANY, &event("claim.created", payload, payload.get(..40))))?;
        Ok(wait(appending)?.id)
    }
}

/// Publishes until the disk refuses something, and holds the store to its promises then.
fn refuse(files: &'static str, refusal: Refusal, operations: u64, loses_what_was_not_synced: bool) -> bool {
    let faulty = Faulty::start(files, refusal, operations);
    let mut acknowledged = Vec::new();
    let mut was_refused = false;
    for number in 0..60 {
        let payload = format!("\"{number}{}\"", "x".repeat(400));
        match faulty.append(&payload) {
            Ok(id) => acknowledged.push((id, payload)),
            Err(AppendError::Overloaded { .. }) => std::thread::sleep(Duration::from_millis(1)),
            Err(AppendError::Unknown) => {
                was_refused = true;
                break;
            }
            Err(other) => panic!("operation {operations}: {other}"),
        }
        if number % 20 == 19 && wait(faulty.store.create_company(company(&format!("company-{number}")), &actor())).is_err() {
            was_refused = true;
            break;
        }
    }
    if was_refused {
        assert_eq!(faulty.append("1"), Err(AppendError::Unknown), "operation {operations}");
        assert!(!faulty.store.is_writable());
        let act = wait(faulty.store.create_company(company("after-the-fault"), &actor()));
        assert_eq!(act, Err(CompanyError::Busy(LedgerBusy::Ended)), "operation {operations}");
    }
    faulty.threads.stop();
    let told = faulty.told.lock().unwrap().clone();
    assert!(told.len() <= 1 && (told.len() == 1 || !was_refused), "operation {operations}: {told:?}");
    drop(faulty.store);
    if loses_what_was_not_synced {
        faulty.disk.power_cycle(&mut Chance::new(operations));
    }
    let store = Stage::open(Arc::new(faulty.disk.clone()), &faulty.clock).unwrap_or_else(|error| panic!("operation {operations}: {error}"));
    assert_eq!(store.verify().unwrap().faults, [""; 0], "operation {operations}");
    for (id, payload) in &acknowledged {
        let stored = store.stored_event(COMPANY, *id).unwrap();
        assert_eq!(stored.as_ref().map(|stored| &stored.payload), Some(payload), "operation {operations}, event {id}");
    }
    !told.is_empty()
}

/// Refuses each of the first operations on the files; how many refusals the store noticed.
fn refuse_each(files: &'static str, refusal: Refusal, operations: impl Iterator<Item = u64>) -> usize {
    operations.filter(|operation| refuse(files, refusal, *operation, operation % 2 == 0)).count()
}

#[test]
fn an_error_of_the_disk_ends_the_log_and_loses_nothing() {
    let noticed = refuse_each(".redb", Refusal::Error, (1..=60).chain((61..400).step_by(7)));
    assert!(noticed > 80, "only {noticed} refusals were noticed");
}

#[test]
fn an_error_while_sealing_ends_the_log_and_loses_nothing() {
    let noticed = refuse_each(".seal", Refusal::Error, (1..=60).step_by(3));
    assert!(noticed > 10, "only {noticed} refusals were noticed");
}

#[test]
fn an_error_of_the_ledger_ends_the_log_too() {
    let noticed = refuse_each("ledger", Refusal::Error, 1..=25);
    assert!(noticed > 15, "only {noticed} refusals were noticed");
}

#[test]
fn a_panic_leaves_nobody_waiting_and_is_told() {
    let noticed = refuse_each("log", Refusal::Panic, 1..=12);
    assert!(noticed > 8, "only {noticed} panics were noticed");
}

#[test]
fn whoever_waits_for_a_commit_that_fails_is_told_that_the_outcome_is_unknown() {
    let faulty = Faulty::start("log/", Refusal::Error, 40);
    let callers: Vec<_> = (0..8)
        .map(|caller| {
            let store = faulty.store.clone();
            std::thread::spawn(move || {
                (0..50)
                    .map(|number| {
                        let event = event("claim.created", &format!("\"{caller} {number}\""), None);
                        match store.append(store.prepare(COMPANY, &event)) {
                            Ok(appending) => wait(appending).map(|receipt| receipt.id),
                            Err(error) => Err(error),
                        }
                    })
                    .collect::<Vec<_>>()
            })
        })
        .collect();
    let answers: Vec<_> = callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect();
    assert!(answers.iter().all(|answer| matches!(answer, Ok(_) | Err(AppendError::Unknown | AppendError::Overloaded { .. }))));
    assert!(answers.contains(&Err(AppendError::Unknown)));
    faulty.threads.stop();
    assert_eq!(faulty.told.lock().unwrap().len(), 1);
}

#[test]
fn a_stopped_store_has_stored_what_it_took_and_takes_nothing_more() {
    let faulty = Faulty::start("log/", Refusal::Error, u64::MAX);
    let appending: Vec<_> = (0..500)
        .map(|number| faulty.store.append(faulty.store.prepare(COMPANY, &event("claim.created", &format!("{number}"), None))).unwrap())
        .collect();
    let store = faulty.store.clone();
    faulty.threads.stop();
    for (number, appending) in (1..).zip(appending) {
        assert_eq!(wait(appending).unwrap().id, EventId(number));
    }
    assert!(store.append(store.prepare(COMPANY, &event("claim.created", "{}", None))).is_err());
    assert_eq!(wait(store.create_company(company("too-late"), &actor())), Err(CompanyError::Busy(LedgerBusy::Ended)));
    assert_eq!(faulty.told.lock().unwrap().len(), 0);
}

#[test]
fn a_key_that_many_use_at_once_is_one_event_whatever_is_sealed_meanwhile() {
    let faulty = Faulty::start("log/", Refusal::Error, u64::MAX);
    let publish = |number: u64| loop {
        let event = event("claim.created", &format!("\"{number} {}\"", "z".repeat(300)), Some(&format!("key-{number}")));
        match faulty.store.append(faulty.store.prepare(COMPANY, &event)).map(wait) {
            Ok(answer) => break answer.unwrap(),
            Err(AppendError::Overloaded { .. }) => std::thread::sleep(Duration::from_millis(1)),
            Err(other) => panic!("{other}"),
        }
    };
    let answers: Vec<Vec<_>> = std::thread::scope(|scope| {
        let publishers: Vec<_> = (0..6)
            .map(|publisher| {
                // Close together, so that a key is asked for while its segment is closed, sealed and switched.
                scope.spawn(move || (0..400_u64).map(|number| publish(number + publisher % 3)).collect::<Vec<_>>())
            })
            .collect();
        publishers.into_iter().map(|publisher| publisher.join().unwrap()).collect()
    });
    let mut ids = std::collections::HashMap::new();
    let mut new = 0;
    for (publisher, answers) in (0..6).zip(answers) {
        for (number, receipt) in (publisher % 3..).zip(answers) {
            assert_eq!(*ids.entry(number).or_insert(receipt.id), receipt.id, "the key {number} stands for two events");
            new += u64::from(!receipt.duplicate);
        }
    }
    assert_eq!((new, faulty.store.tail().id.0), (402, 402));
    assert!(faulty.store.status().segments_sealed > 5);
    faulty.threads.stop();
    assert_eq!(faulty.store.verify().unwrap().faults, [""; 0]);
}

#[test]
fn a_reader_who_waits_for_the_tail_gets_every_event_once_whatever_the_writer_does() {
    let faulty = Faulty::start("log/", Refusal::Error, u64::MAX);
    let total = 3_000_u64;
    let read = Arc::new(AtomicUsize::new(0));
    let readers: Vec<_> = ["", "claim.*", "rare.event"]
        .into_iter()
        .map(|filter| {
            let (store, read) = (faulty.store.clone(), Arc::clone(&read));
            std::thread::spawn(move || {
                let filter = if filter.is_empty() { TypeFilter::default() } else { TypeFilter::parse_list(filter).unwrap() };
                let mut tail = store.watch_tail();
                let mut position = Position::START;
                let mut ids = Vec::new();
                while position.id.0 < total {
                    tail.borrow_and_update();
                    let query = PageQuery {
                        company: COMPANY,
                        start: Start::After(position),
                        direction: Direction::Ascending,
                        limit: 50,
                        filter: &filter,
                    };
                    let PageOutcome::Page(page) = store.page(&query).unwrap() else { panic!() };
                    ids.extend(crate::stage::ids_of(&page));
                    position = page.position;
                    if page.count == 0 && position.id.0 < total {
                        wait(tail.changed()).unwrap();
                    }
                }
                read.fetch_add(ids.len(), Ordering::AcqRel);
                ids
            })
        })
        .collect();
    let mut expected = [Vec::new(), Vec::new(), Vec::new()];
    let mut number = 0;
    while number < total {
        let kind = if number % 13 == 0 { "rare.event" } else { "claim.created" };
        let payload = format!("\"{}\"", "y".repeat((number % 300) as usize));
        match faulty.store.append(faulty.store.prepare(COMPANY, &event(kind, &payload, None))) {
            Ok(appending) if number % 5 == 4 => drop(wait(appending).unwrap()),
            Ok(_) => {}
            Err(AppendError::Overloaded { .. }) => {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            Err(other) => panic!("{other}"),
        }
        number += 1;
        expected[0].push(number);
        expected[if kind == "rare.event" { 2 } else { 1 }].push(number);
    }
    for (reader, expected) in readers.into_iter().zip(expected) {
        assert!(reader.join().unwrap() == expected, "events were skipped or seen twice");
    }
    assert_eq!(read.load(Ordering::Acquire) as u64, total * 2);
    faulty.threads.stop();
}
