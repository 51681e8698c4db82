//! Events: what is published, and the rules of its parts.

use std::fmt;
use std::str::FromStr;

use super::reference::NewReferences;
use super::time::Timestamp;

/// The number of an event, unique in the whole daemon and rising in commit order; below 2^53.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EventId(pub u64);

impl fmt::Display for EventId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// The type of an event as published: `^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`.
///
/// Kept in the publisher's spelling; compared without case through [`EventType::folded`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EventType(String);

/// A text that is not an event type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a type is 1 to 128 characters of A-Z, a-z, 0-9, '.', '_' and '-', and starts with a letter or a digit")]
pub struct ParseEventTypeError;

impl EventType {
    /// The type as published.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The type in lower case, which is what filters and indexes compare.
    #[must_use]
    pub fn folded(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

impl FromStr for EventType {
    type Err = ParseEventTypeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let starts_well = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if starts_well && text.len() <= 128 && text.bytes().all(allowed) { Ok(Self(text.to_owned())) } else { Err(ParseEventTypeError) }
    }
}

/// The version of an event's payload: 1 to 32 characters of `A-Za-z0-9.-_`, `1` when none was given.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EventVersion(String);

/// A text that is not a version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a version is 1 to 32 characters of A-Z, a-z, 0-9, '.', '_' and '-', such as 1 or 1.0.0")]
pub struct ParseEventVersionError;

impl EventVersion {
    /// The version as published.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for EventVersion {
    fn default() -> Self {
        Self("1".to_owned())
    }
}

impl FromStr for EventVersion {
    type Err = ParseEventVersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if (1..=32).contains(&text.len()) && text.bytes().all(allowed) { Ok(Self(text.to_owned())) } else { Err(ParseEventVersionError) }
    }
}

/// The publisher's own name for an event, 1 to 256 bytes: two publications with one key are one event.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DedupeKey(String);

/// A text that cannot be a dedupe key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a dedupe key is 1 to 256 bytes")]
pub struct ParseDedupeKeyError;

impl DedupeKey {
    /// The longest key, in bytes of UTF-8.
    pub const BYTES_MAX: usize = 256;

    /// The key as published.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DedupeKey {
    type Err = ParseDedupeKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if (1..=Self::BYTES_MAX).contains(&text.len()) { Ok(Self(text.to_owned())) } else { Err(ParseDedupeKeyError) }
    }
}

/// An event that somebody wants to publish, every part within its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// Its type, in the spelling that is to be stored.
    pub kind: EventType,
    /// The version of its payload.
    pub version: EventVersion,
    /// The payload: JSON text, kept byte for byte.
    pub payload: String,
    /// The metadata: JSON text, kept byte for byte.
    pub metadata: String,
    /// Names the event among all of its company.
    pub dedupe_key: Option<DedupeKey>,
    /// What it speaks of, checked.
    pub references: Option<NewReferences>,
    /// When it happened, as the publisher says.
    pub occurred_at: Option<Timestamp>,
}

/// What the publisher is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The number of the event, the first one's when this is a duplicate.
    pub id: EventId,
    /// The time of its commit, the first one's when this is a duplicate.
    pub created: Timestamp,
    /// Whether an event with this dedupe key was there before.
    pub duplicate: bool,
}

/// The limits of one event, from the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventLimits {
    /// Longest payload, in bytes of text.
    pub payload_bytes_max: usize,
    /// Longest metadata, in bytes of text.
    pub metadata_bytes_max: usize,
    /// Longest snapshot of a reference, in bytes.
    pub snapshot_bytes_max: usize,
    /// Deepest nesting of payload, metadata and snapshots; the root container is 1.
    pub depth_max: usize,
}

impl Default for EventLimits {
    fn default() -> Self {
        Self { payload_bytes_max: 262_144, metadata_bytes_max: 65_536, snapshot_bytes_max: 8 * 1024 * 1024, depth_max: 64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_has_one_to_128_characters_and_starts_with_a_letter_or_digit() {
        for text in ["a", "claim.created", "Claim_Updated-2", "9", &"a".repeat(128)] {
            assert_eq!(text.parse::<EventType>().unwrap().as_str(), text);
        }
        for text in ["", ".a", "-a", "_a", "a b", "å", "a,b", "a*", &"a".repeat(129)] {
            assert_eq!(text.parse::<EventType>(), Err(ParseEventTypeError), "{text}");
        }
    }

    #[test]
    fn a_dedupe_key_is_measured_in_bytes() {
        assert!("å".repeat(128).parse::<DedupeKey>().is_ok());
        assert!("å".repeat(129).parse::<DedupeKey>().is_err());
        assert!("".parse::<DedupeKey>().is_err());
    }
}
