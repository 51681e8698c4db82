//! What the store writes as records: minicbor with numbered fields, so that later versions can add fields.

use minicbor::{Decode, Encode};

/// The format of the store that this program writes; a newer one is refused. Since 2 the chunks of a sealed segment lie
/// before its database.
pub(super) const STORE_FORMAT: u32 = 2;

/// What a segment says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct SegmentMeta {
    #[n(0)]
    pub format: u32,
    #[n(1)]
    pub number: u64,
    #[n(2)]
    pub epoch: u32,
    /// Set when the segment was sealed.
    #[n(3)]
    pub summary: Option<SegmentSummary>,
    /// The newest event of the log when the segment was made: the segments before it end with it or later.
    #[n(4)]
    pub follows_id: u64,
}

/// The content of a sealed segment in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) struct SegmentSummary {
    #[n(0)]
    pub events: u64,
    #[n(1)]
    pub first_id: u64,
    #[n(2)]
    pub last_id: u64,
    #[n(3)]
    pub first_created_us: u64,
    #[n(4)]
    pub last_created_us: u64,
    /// A hash over the rows of `dedupe` and `names`, which no chunk's checksum covers.
    #[n(5)]
    pub index_hash: u64,
}

/// Where a segment is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub(super) enum FileState {
    /// The row is there, the file perhaps not.
    #[n(0)]
    Creating,
    /// Written to, or waiting to be sealed.
    #[n(1)]
    Open,
    /// Rewritten; the file is `N.sealed.redb`.
    #[n(2)]
    Sealed,
    /// Given up by retention; the file may still be there.
    #[n(3)]
    Dropping,
}

/// A row of the ledger's list of segments.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct FileRecord {
    #[n(0)]
    pub state: FileState,
    #[n(1)]
    pub summary: Option<SegmentSummary>,
}

/// A company as stored.
#[derive(Debug, Clone, Encode, Decode)]
pub(super) struct CompanyRecord {
    #[n(0)]
    pub slug: String,
    #[n(1)]
    pub country: Option<String>,
    #[n(2)]
    pub name: String,
    #[n(3)]
    pub created_us: u64,
}

/// A key as stored.
#[derive(Debug, Clone, Encode, Decode)]
pub(super) struct KeyRecord {
    #[n(0)]
    pub company: Option<u32>,
    #[n(1)]
    pub name: String,
    #[n(2)]
    pub scopes: Vec<String>,
    #[n(3)]
    pub rate_read: Option<u32>,
    #[n(4)]
    pub rate_write: Option<u32>,
    #[n(5)]
    pub rate_admin: Option<u32>,
    #[n(6)]
    pub expires_us: Option<u64>,
    #[n(7)]
    pub networks: Vec<String>,
    #[n(8)]
    pub type_prefixes: Vec<String>,
    #[cbor(n(9), with = "minicbor::bytes")]
    pub secret_hash: Vec<u8>,
    #[n(10)]
    pub created_us: u64,
    #[n(11)]
    pub revoked_us: Option<u64>,
    #[n(12)]
    pub last_used_us: Option<u64>,
}

/// A grant as stored within another record.
#[derive(Debug, Clone, Encode, Decode)]
pub(super) struct GrantRecord {
    #[n(0)]
    pub company: Option<u32>,
    #[n(1)]
    pub name: String,
    #[n(2)]
    pub scopes: Vec<String>,
    #[n(3)]
    pub rate_read: Option<u32>,
    #[n(4)]
    pub rate_write: Option<u32>,
    #[n(5)]
    pub rate_admin: Option<u32>,
    #[n(6)]
    pub expires_us: Option<u64>,
    #[n(7)]
    pub networks: Vec<String>,
    #[n(8)]
    pub type_prefixes: Vec<String>,
}

/// A client's secret as stored.
#[derive(Debug, Clone, Encode, Decode)]
pub(super) struct ClientSecretRecord {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub hash: Vec<u8>,
    #[n(1)]
    pub ends_us: Option<u64>,
}

/// A client's public key as stored.
#[derive(Debug, Clone, Encode, Decode)]
pub(super) struct ClientKeyRecord {
    #[n(0)]
    pub id: String,
    #[n(1)]
    pub kid: Option<String>,
    #[cbor(n(2), with = "minicbor::bytes")]
    pub spki: Vec<u8>,
    #[n(3)]
    pub x5t: Option<String>,
    #[n(4)]
    pub x5t_s256: Option<String>,
    #[n(5)]
    pub not_after_us: Option<u64>,
    #[n(6)]
    pub added_us: u64,
}

/// An OAuth client as stored.
#[derive(Debug, Clone, Encode, Decode)]
pub(super) struct ClientRecord {
    #[n(0)]
    pub company: u32,
    #[n(1)]
    pub grant: GrantRecord,
    /// Whether its assertions may name the token endpoint.
    #[n(2)]
    pub by_token_endpoint: bool,
    #[n(3)]
    pub secrets: Vec<ClientSecretRecord>,
    #[n(4)]
    pub keys: Vec<ClientKeyRecord>,
    #[n(5)]
    pub created_us: u64,
    #[n(6)]
    pub revoked_us: Option<u64>,
    #[n(7)]
    pub last_used_us: Option<u64>,
}

/// A key that signs access tokens, as stored.
#[derive(Debug, Clone, Encode, Decode)]
pub(super) struct TokenKeyRecord {
    #[n(0)]
    pub signs_from_us: u64,
    /// Nonce and ciphertext of the private key under the master key.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub sealed: Vec<u8>,
}

/// A row of the audit log.
#[derive(Debug, Clone, Encode, Decode)]
pub(super) struct AuditRecord {
    #[n(0)]
    pub at_us: u64,
    #[n(1)]
    pub actor: String,
    #[n(2)]
    pub request_id: Option<String>,
    #[n(3)]
    pub act: String,
    #[n(4)]
    pub object: String,
    #[n(5)]
    pub detail: String,
}

/// What retention has taken of one company.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) struct PurgedRecord {
    /// The greatest id that is gone.
    #[n(0)]
    pub last_id: u64,
    #[n(1)]
    pub last_created_us: u64,
}

/// Where a reader is that keeps its cursor here.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct NamedCursorRecord {
    #[n(0)]
    pub created_us: u64,
    #[n(1)]
    pub id: u64,
    #[n(2)]
    pub epoch: u32,
    #[n(3)]
    pub filter_hash: u64,
    /// The types that the reader asks for, when it said so.
    #[n(4)]
    pub types: Option<Vec<String>>,
    #[n(5)]
    pub updated_us: u64,
}

/// What a subscription changes of its profile; forms are numbered in the order of their domain's types.
#[derive(Debug, Clone, Default, Encode, Decode)]
pub(super) struct OverridesRecord {
    #[n(0)]
    pub body: Option<u8>,
    #[n(1)]
    pub content_type: Option<String>,
    #[n(2)]
    pub signature: Option<u8>,
    #[n(3)]
    pub signature_header: Option<String>,
    #[n(4)]
    pub success: Option<Vec<String>>,
    #[n(5)]
    pub lenient_success: Option<bool>,
    #[n(6)]
    pub retry_schedule_ms: Option<Vec<u64>>,
    #[n(7)]
    pub timeout_ms: Option<u64>,
    #[n(8)]
    pub payload_as: Option<u8>,
    #[n(9)]
    pub keep_response: Option<u8>,
    #[n(10)]
    pub handshake: Option<u8>,
    #[n(11)]
    pub cloud_events_source: Option<String>,
    #[n(12)]
    pub cloud_events_type_prefix: Option<String>,
    #[n(13)]
    pub on_exhausted: Option<u8>,
    #[n(14)]
    pub ca_bundle: Option<String>,
    #[n(15)]
    pub client_certificate: Option<String>,
}

/// How a receiver does.
#[derive(Debug, Clone, Encode, Decode)]
pub(super) enum HealthRecord {
    #[n(0)]
    Sound {
        /// In a row; `first_us` counts only with some.
        #[n(0)]
        failures: u32,
        #[n(1)]
        first_us: u64,
    },
    #[n(1)]
    Probing {
        #[n(0)]
        since_us: u64,
        #[n(1)]
        pause_us: u64,
        #[n(2)]
        next_us: u64,
    },
    #[n(2)]
    Recovering {
        #[n(0)]
        window: u16,
        #[n(1)]
        successes: u16,
    },
    #[n(3)]
    GivenUp,
}

/// A subscription as stored.
#[derive(Debug, Clone, Encode, Decode)]
pub(super) struct SubscriptionRecord {
    #[n(0)]
    pub company: u32,
    #[n(1)]
    pub name: String,
    #[n(2)]
    pub url: String,
    #[n(3)]
    pub types: Vec<String>,
    #[n(4)]
    pub profile: String,
    #[n(5)]
    pub overrides: OverridesRecord,
    /// Sealed: scheme and parts; none without authorization.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub auth: Option<Vec<u8>>,
    #[n(7)]
    pub headers: Vec<(String, String)>,
    #[n(8)]
    pub ordering: u8,
    #[n(9)]
    pub max_in_flight: u16,
    #[n(10)]
    pub rate_per_minute: u32,
    /// Sealed.
    #[cbor(n(11), with = "minicbor::bytes")]
    pub secret: Vec<u8>,
    #[n(12)]
    pub standing: u8,
    #[n(13)]
    pub health: HealthRecord,
    #[n(14)]
    pub created_us: u64,
    /// Counts the changes.
    #[n(15)]
    pub revision: u64,
    #[n(16)]
    pub ordering_key: Option<String>,
    /// Sealed.
    #[cbor(n(17), with = "minicbor::bytes")]
    pub previous: Option<Vec<u8>>,
    #[n(18)]
    pub previous_until_us: Option<u64>,
    /// What the receiver has consented to; 0 = as many as the sender likes.
    #[n(19)]
    pub consent_per_minute: Option<u32>,
    /// Sealed: the key of the client certificate, as PEM.
    #[cbor(n(20), with = "minicbor::bytes")]
    pub client_key: Option<Vec<u8>>,
    #[n(21)]
    pub resumes: Option<u32>,
}

/// How far a subscription is.
#[derive(Debug, Clone, Encode, Decode)]
pub(super) struct PositionRecord {
    #[n(0)]
    pub created_us: u64,
    #[n(1)]
    pub id: u64,
    /// Each as the distance to the one before, the first one to `id`.
    #[n(2)]
    pub settled: Vec<u64>,
}

/// What a replay sends.
#[derive(Debug, Clone, Encode, Decode)]
pub(super) struct ReplayRecord {
    #[n(0)]
    pub subscription: u32,
    #[n(1)]
    pub company: u32,
    #[n(2)]
    pub types: Vec<String>,
    #[n(3)]
    pub after_us: u64,
    #[n(4)]
    pub after_id: u64,
    #[n(5)]
    pub until_us: u64,
    #[n(6)]
    pub until_id: u64,
    /// Each as the distance to the one before.
    #[n(7)]
    pub events: Option<Vec<u64>>,
    #[n(8)]
    pub count: u64,
    #[n(9)]
    pub rate_per_minute: u32,
    #[n(10)]
    pub created_us: u64,
}

/// How far a replay is.
#[derive(Debug, Clone, Encode, Decode)]
pub(super) struct ReplayProgressRecord {
    #[n(0)]
    pub state: u8,
    #[n(1)]
    pub place: PositionRecord,
    #[n(2)]
    pub done: u64,
    #[n(3)]
    pub ended_us: Option<u64>,
}

/// A delivery that is to be tried again.
#[derive(Debug, Clone, Copy, Encode, Decode)]
pub(super) struct RetryRecord {
    #[n(0)]
    pub attempts: u32,
    #[n(1)]
    pub due_us: u64,
    #[n(2)]
    pub created_us: u64,
    /// The order that it belongs to: both halves of its hash.
    #[n(3)]
    pub key: Option<(u64, u64)>,
}

/// A dead letter.
#[derive(Debug, Clone, Copy, Encode, Decode)]
pub(super) struct DeadRecord {
    #[n(0)]
    pub attempts: u32,
    #[n(1)]
    pub at_us: u64,
    #[n(2)]
    pub created_us: u64,
    /// The receiver refused it; else its schedule is exhausted.
    #[n(3)]
    pub is_refused: bool,
    #[n(4)]
    pub announced: bool,
}

/// A delivery that ended without success.
#[derive(Debug, Clone, Encode, Decode)]
pub(super) struct ClosedRecord {
    /// Else it was cancelled.
    #[n(0)]
    pub is_expired: bool,
    #[n(1)]
    pub at_us: u64,
    #[n(2)]
    pub created_us: u64,
    #[n(3)]
    pub reason: String,
    #[n(4)]
    pub attempts: u32,
}

/// Deliveries that expired without an attempt.
#[derive(Debug, Clone, Copy, Encode, Decode)]
pub(super) struct ExpiredRecord {
    #[n(0)]
    pub last_id: u64,
    #[n(1)]
    pub count: u64,
    #[n(2)]
    pub at_us: u64,
}

/// One attempt.
#[derive(Debug, Clone, Encode, Decode)]
pub(super) struct AttemptRecord {
    #[n(0)]
    pub started_us: u64,
    #[n(1)]
    pub duration_us: u64,
    /// 4 or 16 bytes.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub address: Option<Vec<u8>>,
    #[n(3)]
    pub status: Option<u16>,
    #[n(4)]
    pub error_class: Option<String>,
    #[n(5)]
    pub error: Option<String>,
    #[n(6)]
    pub excerpt: String,
    #[n(7)]
    pub truncated: bool,
    #[n(8)]
    pub next_due_us: Option<u64>,
    #[n(9)]
    pub kind: String,
    #[n(10)]
    pub event_created_us: u64,
    #[n(11)]
    pub delivered: bool,
    /// The commit that it came with.
    #[n(12)]
    pub batch: Option<u64>,
}

/// Where a file of the attempt log is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub(super) enum AttemptFileState {
    /// The row is there, the file perhaps not.
    #[n(0)]
    Creating,
    /// Written to.
    #[n(1)]
    Open,
    /// Never to change again.
    #[n(2)]
    Closed,
    /// Given up by retention; the file may still be there.
    #[n(3)]
    Dropping,
}

/// What the attempts of a file span; none while it is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) struct AttemptSpan {
    #[n(0)]
    pub first_us: u64,
    #[n(1)]
    pub last_us: u64,
    #[n(2)]
    pub first_event: u64,
    #[n(3)]
    pub last_event: u64,
    /// Bytes of records written.
    #[n(4)]
    pub bytes: u64,
    /// The last commit.
    #[n(5)]
    pub batch: Option<u64>,
}

/// A row of the ledger's list of attempt files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) struct AttemptFileRecord {
    #[n(0)]
    pub state: AttemptFileState,
    /// Set when the file was closed.
    #[n(1)]
    pub span: Option<AttemptSpan>,
}

/// Writes a record into memory.
pub(super) fn encode<T: Encode<()>>(record: &T) -> Result<Vec<u8>, super::StorageFault> {
    minicbor::to_vec(record).map_err(|error| super::StorageFault::Record(error.to_string()))
}

/// Reads a record back.
pub(super) fn decode<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, super::StorageFault> {
    minicbor::decode(bytes).map_err(|error| super::StorageFault::Record(error.to_string()))
}
