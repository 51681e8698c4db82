//! An event made ready for the log by its publisher's thread, so that the writer only copies.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use minicbor::{Decode, Encode};
use siphasher::sip128::{Hasher128, SipHasher24};

use super::chunk::Entry;
use super::snapshots::{PreparedSnapshot, SnapshotMark};
use crate::domain::company::CompanyId;
use crate::domain::event::{EventId, NewEvent, Receipt};
use crate::domain::filter::OWN_PREFIX;
use crate::domain::text::escape_into;
use crate::domain::time::Timestamp;

/// 128 bits that stand for (company, dedupe key); equal ones are the same key.
pub(super) type DedupeHash = u128;

/// Dedupe keys by their hashes. These are keyed hashes already, which nobody outside can steer: they are not hashed again.
pub(super) type DedupeMap = HashMap<DedupeHash, DedupeEntry, BuildHasherDefault<LowHalf>>;

/// Takes the lower 64 bits of a [`DedupeHash`] as they are.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LowHalf(u64);

impl Hasher for LowHalf {
    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            self.0 = part.iter().rev().fold(self.0, |sum, byte| sum.rotate_left(8) ^ u64::from(*byte));
        }
    }

    fn write_u128(&mut self, hash: u128) {
        self.0 = low_half(hash);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Where a dedupe key was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DedupeEntry {
    pub id: EventId,
    pub created: Timestamp,
    /// 64 bits that stand for the content.
    pub fingerprint: u64,
}

/// The dedupe key of an event and what it must stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dedupe {
    pub hash: DedupeHash,
    pub fingerprint: u64,
}

/// What an event carries beyond its envelope.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub(super) struct Extra {
    #[n(0)]
    pub references: Option<String>,
    #[n(1)]
    pub occurred_us: Option<u64>,
    /// In the order of their references.
    #[n(2)]
    pub snapshots: Option<Vec<SnapshotMark>>,
}

/// An [`Extra`] where it lies.
#[derive(Debug, Decode)]
pub(super) struct BorrowedExtra<'a> {
    #[b(0)]
    pub references: Option<&'a str>,
    #[n(1)]
    pub occurred_us: Option<u64>,
}

/// An event that waits for its id and its time.
#[derive(Debug, Clone)]
pub struct PreparedEvent {
    pub(super) company: CompanyId,
    /// Type as published, a zero byte, version.
    pub(super) kind: Box<[u8]>,
    pub(super) is_own: bool,
    /// The envelope without id and time: up to `split` what stands between them, then what follows the time.
    text: Vec<u8>,
    split: usize,
    payload_length: u32,
    extra: Vec<u8>,
    pub(super) snapshots: Vec<PreparedSnapshot>,
    pub(super) dedupe: Option<Dedupe>,
    /// Sealed segments below this number have been asked for the key, and have not got it.
    pub(super) asked_below: u64,
}

const BEFORE_ID: &[u8] = b"{\"id\":";
const BEFORE_PAYLOAD: &[u8] = b"\",\"payload\":\"";

/// Hashes with SipHash-2-4-128 under the store's dedupe key (Aumasson, Bernstein: SipHash, 2012).
fn keyed(key: &[u8; 16], parts: &[&[u8]]) -> u128 {
    let mut hasher = SipHasher24::new_with_key(key);
    for part in parts {
        hasher.write_u64(part.len() as u64);
        hasher.write(part);
    }
    hasher.finish128().as_u128()
}

impl PreparedEvent {
    /// Escapes and hashes; `dedupe_key` is the store's secret.
    pub(super) fn new(company: CompanyId, event: &NewEvent, dedupe_key: &[u8; 16]) -> Self {
        let kind_text = event.kind.as_str();
        let mut text = Vec::with_capacity(event.payload.len() + event.payload.len() / 4 + event.metadata.len() * 5 / 4 + 192);
        text.extend_from_slice(b",\"companyId\":");
        push_number(&mut text, u64::from(company.0));
        text.extend_from_slice(b",\"type\":\"");
        text.extend_from_slice(kind_text.as_bytes());
        text.extend_from_slice(b"\",\"createdUtc\":\"");
        let split = text.len();
        text.extend_from_slice(BEFORE_PAYLOAD);
        let payload_start = text.len();
        escape_into(&mut text, &event.payload);
        let payload_length = text.len() - payload_start;
        text.extend_from_slice(b"\",\"metadata\":\"");
        escape_into(&mut text, &event.metadata);
        text.extend_from_slice(b"\"}");
        let folded = event.kind.folded();
        let version = event.version.as_str().as_bytes();
        let occurred_us = event.occurred_at.map(Timestamp::as_micros);
        let references = event.references.as_ref();
        let snapshots = references.map(|references| references.snapshots.as_slice()).unwrap_or_default();
        let dedupe = event.dedupe_key.as_ref().map(|key| {
            let occurred = occurred_us.map_or([0xff; 8], u64::to_le_bytes);
            let mut content = vec![
                folded.as_bytes(),
                version,
                event.payload.as_bytes(),
                event.metadata.as_bytes(),
                references.map(|references| references.text.as_bytes()).unwrap_or_default(),
                &occurred,
            ];
            // Their places and content types stand in the text.
            content.extend(snapshots.iter().map(|snapshot| snapshot.body.as_ref()));
            Dedupe {
                hash: keyed(dedupe_key, &[&company.0.to_le_bytes(), key.as_str().as_bytes()]),
                fingerprint: low_half(keyed(dedupe_key, &content)),
            }
        });
        let snapshots: Vec<_> = snapshots.iter().map(PreparedSnapshot::new).collect();
        let mut extra = Vec::new();
        if references.is_some() || occurred_us.is_some() {
            let marks = (!snapshots.is_empty()).then(|| snapshots.iter().map(|snapshot| snapshot.mark).collect());
            let record = Extra { references: references.map(|references| references.text.clone()), occurred_us, snapshots: marks };
            // Encoding into memory has no way to fail; an empty extra would only lose what is beyond the envelope.
            if minicbor::encode(&record, &mut extra).is_err() {
                extra.clear();
            }
        }
        let kind = [kind_text.as_bytes(), b"\0", version].concat().into_boxed_slice();
        Self {
            company,
            kind,
            is_own: folded.starts_with(OWN_PREFIX),
            text,
            split,
            payload_length: u32::try_from(payload_length).unwrap_or(u32::MAX),
            extra,
            snapshots,
            dedupe,
            asked_below: 0,
        }
    }

    /// Bytes that the event takes in the commit queue.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.chunk_bytes() + self.snapshots.iter().map(PreparedSnapshot::bytes).sum::<usize>()
    }

    /// Bytes that the event takes in a chunk, and a few more.
    pub(super) fn chunk_bytes(&self) -> usize {
        self.text.len() + self.extra.len() + 96
    }

    /// The event as it goes into a chunk; `id_text` and `time_text` must be those of `id` and `created`.
    pub(super) fn entry<'a>(&'a self, receipt: &Receipt, kind: u32, id_text: &'a [u8], time_text: &'a [u8]) -> Entry<'a> {
        let (middle, tail) = self.text.split_at_checked(self.split).unwrap_or_default();
        let payload_start = BEFORE_ID.len() + id_text.len() + middle.len() + time_text.len() + BEFORE_PAYLOAD.len();
        Entry {
            id: receipt.id,
            created: receipt.created,
            kind,
            is_own: self.is_own,
            pieces: [BEFORE_ID, id_text, middle, time_text, tail],
            payload_start: u32::try_from(payload_start).unwrap_or(u32::MAX),
            payload_length: self.payload_length,
            extra: &self.extra,
            snapshots: u32::try_from(self.snapshots.len()).unwrap_or(u32::MAX),
        }
    }
}

fn low_half(wide: u128) -> u64 {
    (wide & u128::from(u64::MAX)) as u64
}

/// Appends a number in decimal digits.
pub(super) fn push_number(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0_u8; 20];
    let text = number_text(number, &mut digits);
    out.extend_from_slice(text);
}

/// The decimal digits of a number.
pub(super) fn number_text(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut start = digits.len();
    for place in digits.iter_mut().rev() {
        *place = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        start -= 1;
        if number == 0 {
            break;
        }
    }
    digits.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::domain::event::EventVersion;
    use crate::domain::reference::{NewReferences, NewSnapshot};
    use crate::store::chunk::ChunkBuilder;

    fn event(payload: &str) -> NewEvent {
        NewEvent {
            kind: "Claim.Created".parse().unwrap(),
            version: EventVersion::default(),
            payload: payload.to_owned(),
            metadata: "{}".to_owned(),
            dedupe_key: Some("k".parse().unwrap()),
            references: None,
            occurred_at: None,
        }
    }

    #[test]
    fn the_envelope_is_what_the_contract_shows() {
        let prepared = PreparedEvent::new(CompanyId(7), &event("{\"clientId\":\"c-1\"}"), &[0; 16]);
        let receipt = Receipt { id: EventId(1042), created: "2026-11-22T10:30:00.123456Z".parse().unwrap(), duplicate: false };
        let mut builder = ChunkBuilder::default();
        builder.push(&prepared.entry(&receipt, 0, b"1042", &receipt.created.to_text()));
        let chunk = builder.finish(CompanyId(7)).unwrap();
        assert_eq!(
            chunk.envelopes(0, 0).unwrap(),
            r#"{"id":1042,"companyId":7,"type":"Claim.Created","createdUtc":"2026-11-22T10:30:00.123456Z","payload":"{\"clientId\":\"c-1\"}","metadata":"{}"}"#
        );
        assert_eq!(chunk.escaped_payload(0).unwrap(), r#"{\"clientId\":\"c-1\"}"#);
    }

    #[test]
    fn the_fingerprint_covers_the_content_and_the_hash_the_company() {
        let dedupe = |company, event: &NewEvent| PreparedEvent::new(CompanyId(company), event, &[1; 16]).dedupe.unwrap();
        let first = dedupe(7, &event("{}"));
        assert_eq!(first, dedupe(7, &NewEvent { kind: "claim.CREATED".parse().unwrap(), ..event("{}") }));
        assert_ne!(first.hash, dedupe(8, &event("{}")).hash);
        let changed = [
            NewEvent { version: "2".parse().unwrap(), ..event("{}") },
            NewEvent { metadata: "{ }".to_owned(), ..event("{}") },
            NewEvent { occurred_at: Some(Timestamp::from_micros(1)), ..event("{}") },
            NewEvent { references: Some(NewReferences::plain("[]")), ..event("{}") },
            event("{ }"),
        ];
        for other in changed {
            assert_ne!(first.fingerprint, dedupe(7, &other).fingerprint);
            assert_eq!(first.hash, dedupe(7, &other).hash);
        }
    }

    #[test]
    fn the_fingerprint_covers_snapshots_and_the_queue_counts_them() {
        let with = |bodies: &[&'static [u8]]| {
            let snapshots = (0..).zip(bodies).map(|(reference, body)| NewSnapshot {
                reference,
                content_type: "a/b".parse().unwrap(),
                body: Bytes::from_static(body),
            });
            let references = NewReferences { text: "[]".to_owned(), snapshots: snapshots.collect() };
            PreparedEvent::new(CompanyId(7), &NewEvent { references: Some(references), ..event("{}") }, &[1; 16])
        };
        let fingerprint = |bodies: &[&'static [u8]]| with(bodies).dedupe.unwrap().fingerprint;
        assert_eq!(fingerprint(&[b"ab", b"c"]), fingerprint(&[b"ab", b"c"]));
        for other in [[b"ab".as_slice(), b"d"].as_slice(), &[b"a", b"bc"], &[b"ab"], &[b"ab", b"c", b""], &[]] {
            assert_ne!(fingerprint(&[b"ab", b"c"]), fingerprint(other), "{other:?}");
        }
        assert!(with(&[&[0; 5000]]).bytes() >= with(&[&[]]).bytes() + 5000);
        assert!(with(&[&[0; 5000]]).chunk_bytes() < 1000);
    }

    #[test]
    fn numbers_are_written_in_decimal() {
        for number in [0, 9, 10, 1042, u64::MAX] {
            assert_eq!(number_text(number, &mut [0; 20]), number.to_string().as_bytes());
        }
    }
}
