//! The requests that the benches send, prepared beforehand as far as possible.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::day::Day;
use crate::http::{get, post_head};
use crate::insurance::{Dice, SEED, payload};
use crate::load::Requests;

/// The type that one event in [`RARE_EVERY`] of a stored log has.
pub const RARE_TYPE: &str = "subrogation.opened";
pub const RARE_EVERY: u64 = 10_000;

/// How many different payloads there are.
const PAYLOADS: usize = 128;
const TYPES: [&str; 8] = [
    "claim.created",
    "claim.updated",
    "claim.closed",
    "policy.bound",
    "policy.renewed",
    "document.uploaded",
    "client.created",
    "payment_status_updated",
];
/// A dedupe key of the width of all keys, filled in for each request.
const KEY_PLACE: &str = "bench-000000-000000000000";
/// Distinguishes the keys of one source from those of all others.
static SOURCES: AtomicU64 = AtomicU64::new(0);

/// Bytes with at most one place for a dedupe key.
struct Template {
    bytes: Vec<u8>,
    key_at: Option<usize>,
}

impl Template {
    fn new(text: String) -> Self {
        Self { key_at: text.find(KEY_PLACE), bytes: text.into_bytes() }
    }

    fn write(&self, source: u64, number: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        if let Some(at) = self.key_at {
            let digits = start + at + "bench-".len();
            write_digits(&mut out[digits..digits + 6], source);
            write_digits(&mut out[digits + 7..digits + 19], number);
        }
    }
}

/// Formatting would cost the client more than the rest of the request.
fn write_digits(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// How many events carry a dedupe key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keyed {
    Half,
    All,
}

fn event(number: usize, event_type: &str, keyed: Keyed, dice: &mut Dice) -> String {
    let payload = payload(dice);
    if keyed == Keyed::All || number % 2 == 1 {
        format!(r#"{{"type":"{event_type}","dedupeKey":"{KEY_PLACE}","payload":{payload}}}"#)
    } else {
        format!(r#"{{"type":"{event_type}","payload":{payload}}}"#)
    }
}

/// Single events of 1 KiB, a dedupe key on half of them.
pub struct Publish {
    templates: Vec<Template>,
    source: u64,
    next: u64,
}

impl Publish {
    pub fn new(key: &str) -> Self {
        let mut dice = Dice::new(SEED);
        let templates = (0..PAYLOADS)
            .map(|number| {
                let body = event(number, TYPES[number % TYPES.len()], Keyed::Half, &mut dice);
                Template::new(post_head("/api/v1/events", key, "application/json", body.len()) + &body)
            })
            .collect();
        Self { templates, source: SOURCES.fetch_add(1, Ordering::Relaxed), next: 0 }
    }
}

impl Requests for Publish {
    fn write_next(&mut self, out: &mut Vec<u8>) {
        let template = &self.templates[self.next as usize % self.templates.len()];
        template.write(self.source, self.next, out);
        self.next += 1;
    }
}

/// Batches of events of 1 KiB; one event in [`RARE_EVERY`] has the type [`RARE_TYPE`].
pub struct Batches {
    lines: Vec<Template>,
    rare: Template,
    key: String,
    size: u64,
    source: u64,
    next: u64,
    body: Vec<u8>,
}

impl Batches {
    pub fn new(key: &str, size: u64, keyed: Keyed) -> Self {
        let mut dice = Dice::new(SEED);
        let mut line = |number: usize, event_type: &str| Template::new(event(number, event_type, keyed, &mut dice) + "\n");
        let lines = (0..PAYLOADS).map(|number| line(number, TYPES[number % TYPES.len()])).collect();
        let rare = line(1, RARE_TYPE);
        let source = SOURCES.fetch_add(1, Ordering::Relaxed);
        Self { lines, rare, key: key.to_owned(), size, source, next: 0, body: Vec::new() }
    }
}

impl Requests for Batches {
    fn write_next(&mut self, out: &mut Vec<u8>) {
        self.body.clear();
        for number in self.next..self.next + self.size {
            let is_rare = number % RARE_EVERY == RARE_EVERY / 2;
            let line = if is_rare { &self.rare } else { &self.lines[number as usize % self.lines.len()] };
            line.write(self.source, number, &mut self.body);
        }
        self.next += self.size;
        write_batch(&self.key, &self.body, out);
    }
}

/// Where the value stands that [`Ordered`] gives its events.
pub const ORDER_POINTER: &str = "/order";
/// A value of the width of all.
const ORDER_PLACE: &str = "o-00000000";

/// Batches of events of 1 KiB that have one of so many values each at [`ORDER_POINTER`], in turn.
pub struct Ordered {
    lines: Vec<Vec<u8>>,
    order_at: Vec<usize>,
    values: u64,
    key: String,
    size: u64,
    next: u64,
    body: Vec<u8>,
}

impl Ordered {
    pub fn new(key: &str, size: u64, values: u64) -> Self {
        let mut dice = Dice::new(SEED);
        let line = |number: usize| {
            let payload = payload(&mut dice).replacen('{', &format!(r#"{{"order":"{ORDER_PLACE}","#), 1);
            format!("{{\"type\":\"{}\",\"payload\":{payload}}}\n", TYPES[number % TYPES.len()])
        };
        let lines: Vec<String> = (0..PAYLOADS).map(line).collect();
        let order_at = lines.iter().map(|line| line.find(ORDER_PLACE).expect("a place for the value") + "o-".len()).collect();
        let lines = lines.into_iter().map(String::into_bytes).collect();
        Self { lines, order_at, values, key: key.to_owned(), size, next: 0, body: Vec::new() }
    }
}

impl Requests for Ordered {
    fn write_next(&mut self, out: &mut Vec<u8>) {
        self.body.clear();
        for number in self.next..self.next + self.size {
            let place = number as usize % self.lines.len();
            let at = self.body.len() + self.order_at[place];
            self.body.extend_from_slice(&self.lines[place]);
            write_digits(&mut self.body[at..at + 8], number % self.values);
        }
        self.next += self.size;
        write_batch(&self.key, &self.body, out);
    }
}

/// Batches of a day's mixture; `kept` counts what was sent.
pub struct DayBatches {
    day: Day,
    key: String,
    size: usize,
    kept: Rc<RefCell<Kept>>,
}

/// Bytes that the publishers gave to keep.
#[derive(Debug, Default, Clone, Copy)]
pub struct Kept {
    pub events: u64,
    pub payload_bytes: u64,
    pub metadata_bytes: u64,
}

impl DayBatches {
    pub fn new(key: &str, size: usize, kept: Rc<RefCell<Kept>>) -> Self {
        Self { day: Day::default(), key: key.to_owned(), size, kept }
    }
}

impl Requests for DayBatches {
    fn write_next(&mut self, out: &mut Vec<u8>) {
        let mut kept = self.kept.borrow_mut();
        let mut body = String::new();
        for event in self.day.by_ref().take(self.size) {
            body.push_str(&event.line);
            body.push('\n');
            kept.events += 1;
            kept.payload_bytes += event.payload_bytes;
            kept.metadata_bytes += event.metadata_bytes;
        }
        write_batch(&self.key, body.as_bytes(), out);
    }
}

fn write_batch(key: &str, body: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(post_head("/api/v1/events/batch", key, "application/x-ndjson", body.len()).as_bytes());
    out.extend_from_slice(body);
}

/// GETs in turn; a new round of the same list goes on where the last one stopped.
#[derive(Clone)]
pub struct Gets {
    requests: Arc<Vec<Vec<u8>>>,
    next: Arc<AtomicU64>,
}

impl Gets {
    /// In the order given.
    pub fn in_order(key: &str, paths: impl IntoIterator<Item = String>) -> Self {
        let requests: Vec<Vec<u8>> = paths.into_iter().map(|path| get(&path, key)).collect();
        assert!(!requests.is_empty(), "there is something to get");
        Self { requests: Arc::new(requests), next: Arc::default() }
    }

    /// In random order, the same in every run.
    pub fn shuffled(key: &str, paths: impl IntoIterator<Item = String>) -> Self {
        let mut paths: Vec<String> = paths.into_iter().collect();
        Dice::new(SEED).shuffle(&mut paths);
        Self::in_order(key, paths)
    }
}

impl Requests for Gets {
    fn write_next(&mut self, out: &mut Vec<u8>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        out.extend_from_slice(&self.requests[number as usize % self.requests.len()]);
    }
}
