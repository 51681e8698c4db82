//! What a key may do.

use std::fmt;
use std::str::FromStr;

/// One permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Scope {
    /// Publish and receive through the bridge.
    Events,
    /// Read events.
    EventsRead,
    /// Publish events.
    EventsWrite,
    /// Read subscriptions.
    SubscriptionsRead,
    /// Create and change subscriptions.
    SubscriptionsWrite,
    /// Read the delivery log.
    DeliveriesRead,
    /// Replay and retry deliveries.
    DeliveriesReplay,
    /// Read `/metrics`.
    MetricsRead,
    /// Everything within the key's company; for a system key, the administration of companies.
    Admin,
}

/// A text that names no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no scope `{text}`; the scopes are {}", Scope::ALL.map(Scope::as_str).join(", "))]
pub struct ParseScopeError {
    /// What was given.
    pub text: String,
}

impl Scope {
    /// All scopes, in the order in which they are listed to people.
    pub const ALL: [Self; 9] = [
        Self::Events,
        Self::EventsRead,
        Self::EventsWrite,
        Self::SubscriptionsRead,
        Self::SubscriptionsWrite,
        Self::DeliveriesRead,
        Self::DeliveriesReplay,
        Self::MetricsRead,
        Self::Admin,
    ];

    /// The scope as it is written on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::EventsRead => "events:read",
            Self::EventsWrite => "events:write",
            Self::SubscriptionsRead => "subscriptions:read",
            Self::SubscriptionsWrite => "subscriptions:write",
            Self::DeliveriesRead => "deliveries:read",
            Self::DeliveriesReplay => "deliveries:replay",
            Self::MetricsRead => "metrics:read",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = ParseScopeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or_else(|| ParseScopeError { text: text.to_owned() })
    }
}

/// The scopes of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScopeSet(u16);

impl ScopeSet {
    /// The set without any scope.
    pub const EMPTY: Self = Self(0);

    /// This set with `scope` in it.
    #[must_use]
    pub const fn with(self, scope: Scope) -> Self {
        Self(self.0 | 1 << scope as u8)
    }

    /// Whether the set allows `scope`; `admin` implies all others.
    #[must_use]
    pub const fn allows(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8 | 1 << Scope::Admin as u8) != 0
    }

    /// The scopes that were put in, without what they imply.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.0 & (1 << *scope as u8) != 0)
    }

    /// What this set and `other` both allow.
    #[must_use]
    pub fn shared_with(self, other: Self) -> Self {
        Scope::ALL.into_iter().filter(|scope| self.allows(*scope) && other.allows(*scope)).collect()
    }

    /// The scopes as one text with spaces between them (RFC 6749, 3.3).
    #[must_use]
    pub fn to_text(self) -> String {
        self.iter().map(Scope::as_str).collect::<Vec<_>>().join(" ")
    }

    /// Whether no scope is in the set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<Scope> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        scopes.into_iter().fold(Self::EMPTY, Self::with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scope_reads_back_from_its_text() {
        for scope in Scope::ALL {
            assert_eq!(scope.as_str().parse(), Ok(scope));
        }
        assert!("events:delete".parse::<Scope>().is_err());
    }

    #[test]
    fn two_sets_share_what_both_allow() {
        let admin = ScopeSet::EMPTY.with(Scope::Admin);
        let publisher: ScopeSet = [Scope::EventsWrite, Scope::Events].into_iter().collect();
        assert_eq!(admin.shared_with(publisher), publisher);
        assert_eq!(publisher.shared_with(ScopeSet::EMPTY.with(Scope::EventsRead)), ScopeSet::EMPTY);
        assert!(admin.shared_with(admin).allows(Scope::Admin));
        assert_eq!(publisher.to_text(), "events events:write");
    }

    #[test]
    fn admin_implies_every_scope_and_nothing_else_does() {
        let admin = ScopeSet::EMPTY.with(Scope::Admin);
        assert!(Scope::ALL.into_iter().all(|scope| admin.allows(scope)));
        let reader = ScopeSet::EMPTY.with(Scope::EventsRead);
        assert_eq!(Scope::ALL.into_iter().filter(|scope| reader.allows(*scope)).collect::<Vec<_>>(), [Scope::EventsRead]);
    }
}
