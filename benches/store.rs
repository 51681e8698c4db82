//! Stores with many events, filled once and read by several groups.

use std::path::{Path, PathBuf};

use crate::daemon::{Daemon, Options};
use crate::disk::allocated;
use crate::http::Client;
use crate::insurance::{Dice, SEED};
use crate::load::{Expect, Outcome, Run, Until};
use crate::requests::{Batches, Keyed};

/// Events of a page in the read benches.
pub const PAGE: u64 = 50;
/// Events of a page while a log is walked: the most that the API gives.
const STRIDE: u64 = 200;
/// About the fewest bytes that an event of 1 KiB takes in a chunk; with it, how many events the open segment may hold.
const STORED_EVENT_BYTES: u64 = 1_100;
/// Events per request and connections while a store is filled.
const FILL_BATCH: u64 = 100;
const FILL_CONNECTIONS: usize = 8;

/// A filled store and its daemon.
pub struct Store {
    pub directory: PathBuf,
    pub options: Options,
    pub key: String,
    pub daemon: Daemon,
    pub events: u64,
    /// The batches that filled it.
    pub filling: Outcome,
    pub seals: Option<Seals>,
    pub survey: Survey,
}

/// What sealing cost while the store was filled.
#[derive(Debug, Clone, Copy)]
pub struct Seals {
    pub count: f64,
    pub seconds: f64,
    /// Bytes of the sealed files on disk.
    pub bytes: u64,
}

/// Places in the sealed part of a log, collected by walking it.
pub struct Survey {
    /// Each has at least [`PAGE`] sealed events behind it.
    pub cursors: Vec<String>,
    pub ids: Vec<u64>,
    /// A cursor near the tail.
    last: Option<(u64, String)>,
}

/// The last [`PAGE`] events of a log.
pub struct Tail {
    /// The path of the page of them.
    pub page: String,
    pub ids: Vec<u64>,
}

impl Store {
    /// Starts a daemon and publishes so many keyed events of 1 KiB.
    pub fn fill(root: &Path, name: &str, events: u64, options: Options) -> Self {
        eprintln!("filling the {name} store with {events} events ...");
        let directory = root.join(name);
        std::fs::create_dir(&directory).expect("a directory for the store");
        let daemon = Daemon::start(&directory, options);
        let key = daemon.make_key();
        let filling = Run {
            address: daemon.address,
            process: &daemon.process,
            connections: FILL_CONNECTIONS,
            until: Until::Sent(events / FILL_BATCH),
            expect: Expect::BatchPatiently,
        }
        .go(Box::new(Batches::new(&key, FILL_BATCH, Keyed::All)));
        assert!(daemon.wait_until_sealed(), "sealing does not catch up");
        let seals = Seals::of(&daemon);
        let events = filling.requests * FILL_BATCH;
        let open_events_max = options.segment_bytes_max / STORED_EVENT_BYTES;
        let survey = Survey::walk(&mut Client::connect(daemon.address, &key), events, events.saturating_sub(open_events_max));
        Self { directory, options, key, daemon, events, filling, seals, survey }
    }

    /// Ends the daemon in some way and starts it anew.
    pub fn restart(self, end: impl FnOnce(Daemon)) -> Self {
        end(self.daemon);
        Self { daemon: Daemon::start(&self.directory, self.options), ..self }
    }

    /// Events per second while it was filled.
    pub fn filling_rate(&self) -> f64 {
        self.filling.rate() * FILL_BATCH as f64
    }

    pub fn client(&self) -> Client {
        Client::connect(self.daemon.address, &self.key)
    }

    /// The tail as it is now.
    pub fn tail(&self) -> Tail {
        let mut client = self.client();
        let (mut position, mut cursor) = self.survey.last.clone().expect("a log of more than one page");
        let mut behind = vec![(position, cursor.clone())];
        let total = loop {
            let page = Page::get(&mut client, &format!("/api/v1/events?limit={STRIDE}&cursor={cursor}"));
            position += page.ids.len() as u64;
            match page.next {
                Some(next) => cursor = next,
                None => break position,
            }
            behind.push((position, cursor.clone()));
        };
        let start = total - PAGE;
        let (position, cursor) = behind.into_iter().rev().find(|(position, _)| *position <= start).expect("a cursor before the last page");
        let cursor = match start - position {
            0 => cursor,
            step => Page::get(&mut client, &format!("/api/v1/events?limit={step}&cursor={cursor}")).next.expect("more events behind"),
        };
        let path = format!("/api/v1/events?limit={PAGE}&cursor={cursor}");
        let page = Page::get(&mut client, &path);
        assert!(page.ids.len() as u64 == PAGE && page.next.is_none(), "the last page is full and has no next one");
        Tail { page: path, ids: page.ids }
    }
}

impl Seals {
    /// None when the daemon does not measure it or has sealed nothing.
    pub fn of(daemon: &Daemon) -> Option<Self> {
        let count = daemon.metric("lutine_seal_seconds_count").filter(|count| *count > 0.0)?;
        let seconds = daemon.metric("lutine_seal_seconds_sum")?;
        let bytes = daemon.log_files().sealed.iter().map(|path| allocated(path)).sum();
        Some(Self { count, seconds, bytes })
    }

    pub fn rate(&self) -> f64 {
        self.bytes as f64 / self.seconds
    }
}

impl Survey {
    /// Reads the whole log once, which also proves that it lists as many events as were published.
    fn walk(client: &mut Client, events: u64, sealed: u64) -> Self {
        let keep_every = (events / STRIDE / 8_192).max(1);
        let mut dice = Dice::new(SEED);
        let mut survey = Self { cursors: Vec::new(), ids: Vec::new(), last: None };
        let (mut position, mut number) = (0, 0);
        let mut path = format!("/api/v1/events?limit={STRIDE}");
        loop {
            let page = Page::get(client, &path);
            position += page.ids.len() as u64;
            number += 1;
            let Some(cursor) = page.next else { break };
            path = format!("/api/v1/events?limit={STRIDE}&cursor={cursor}");
            if position + 2 * STRIDE < events {
                survey.last = Some((position, cursor.clone()));
            }
            if number % keep_every == 0 && position + PAGE <= sealed {
                survey.cursors.push(cursor);
                survey.ids.push(*dice.pick(&page.ids));
            }
        }
        assert_eq!(position, events, "the log lists as many events as were published");
        assert!(!survey.cursors.is_empty(), "a part of the log is sealed");
        survey
    }
}

/// A page, as far as the benches look into it.
pub struct Page {
    pub ids: Vec<u64>,
    pub next: Option<String>,
}

impl Page {
    pub fn get(client: &mut Client, path: &str) -> Self {
        let reply = client.get(path);
        let body = reply.body();
        let text = std::str::from_utf8(&body).expect("a page is UTF-8");
        // Within a payload, which is a JSON string, the quotes would be escaped.
        let ids = text.match_indices(r#"{"id":"#).map(|(at, mark)| {
            let digits = &text[at + mark.len()..];
            digits[..digits.find(',').expect("more members")].trim().parse().expect("an id is a number")
        });
        Self { ids: ids.collect(), next: reply.header("X-Paging-Cursor").map(str::to_owned) }
    }
}
