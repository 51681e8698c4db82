//! What the store writes as records: minicbor with numbered fields, so that later versions can add fields.

use minicbor::{Decode, Encode};

/// The format of the store that this program writes; a newer one is refused.
pub(super) const STORE_FORMAT: u32 = 1;

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

/// Writes a record into memory.
pub(super) fn encode<T: Encode<()>>(record: &T) -> Result<Vec<u8>, super::StorageFault> {
    minicbor::to_vec(record).map_err(|error| super::StorageFault::Record(error.to_string()))
}

/// Reads a record back.
pub(super) fn decode<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, super::StorageFault> {
    minicbor::decode(bytes).map_err(|error| super::StorageFault::Record(error.to_string()))
}
