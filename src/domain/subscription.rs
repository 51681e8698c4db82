//! Subscriptions: where and how a company's webhooks go.

use std::fmt;
use std::str::FromStr;

use super::company::CompanyId;
use super::cursor::Position;
use super::event::EventId;
use super::filter::TypeFilter;
use super::health::Health;
use super::profile::{Knobs, Overrides, Profile};
use super::time::Timestamp;

/// The number of a subscription, counted from 1, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(pub u32);

impl fmt::Display for SubscriptionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// One event owed to one subscription: `{subscription}-{event}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId {
    /// To whom.
    pub subscription: SubscriptionId,
    /// What.
    pub event: EventId,
}

/// A text that is not a delivery id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a delivery id is the subscription's number, a hyphen and the event's, such as 12-1042")]
pub struct ParseDeliveryIdError;

impl fmt::Display for DeliveryId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.subscription, self.event)
    }
}

impl FromStr for DeliveryId {
    type Err = ParseDeliveryIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let (subscription, event) = text.split_once('-').ok_or(ParseDeliveryIdError)?;
        if !is_number(subscription) || !is_number(event) {
            return Err(ParseDeliveryIdError);
        }
        let subscription = subscription.parse().map(SubscriptionId).map_err(|_| ParseDeliveryIdError)?;
        Ok(Self { subscription, event: event.parse().map(EventId).map_err(|_| ParseDeliveryIdError)? })
    }
}

/// In which order a subscription wants its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ordering {
    /// In none: several at a time, a failing one is passed.
    #[default]
    Parallel,
    /// One at a time in log order; a failing one blocks until it is delivered or dead.
    Strict,
}

impl Ordering {
    /// The ordering as it is written on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Parallel => "parallel",
            Self::Strict => "strict",
        }
    }
}

/// Whether a subscription is sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standing {
    /// It is.
    #[default]
    Active,
    /// A person paused it.
    Paused,
    /// The receiver answered 410.
    Disabled,
}

/// What the contract calls the state of a subscription: its standing, and while it is active its receiver's health.
#[must_use]
pub fn state_name(standing: Standing, health: Health) -> &'static str {
    match (standing, health) {
        (Standing::Paused, _) => "paused",
        (Standing::Disabled, _) => "disabled",
        (Standing::Active, Health::GivenUp) => "suspended",
        (Standing::Active, Health::Probing { .. }) => "probing",
        (Standing::Active, Health::Sound { .. } | Health::Recovering { .. }) => "active",
    }
}

/// How the daemon proves to a receiver who it is, beside the signature.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Auth {
    /// Not at all.
    #[default]
    None,
    /// `Authorization: Bearer` with this token.
    Bearer(String),
    /// `Authorization: Basic` (RFC 7617) with this name and password.
    Basic(String, String),
}

impl fmt::Debug for Auth {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::None => "None",
            Self::Bearer(_) => "Bearer(***)",
            Self::Basic(..) => "Basic(***)",
        })
    }
}

/// What somebody wants who creates or changes a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wishes {
    /// A name for people, at most 200 characters.
    pub name: String,
    /// Where to: an absolute `https` or `http` URL without user info and fragment.
    pub url: String,
    /// Which events; the entries as given.
    pub types: Vec<String>,
    /// The same as a filter.
    pub filter: TypeFilter,
    /// The named set of knobs.
    pub profile: Profile,
    /// What is changed of it.
    pub overrides: Overrides,
    /// How the daemon proves who it is.
    pub auth: Auth,
    /// Headers of every webhook.
    pub headers: Vec<(String, String)>,
    /// In which order.
    pub ordering: Ordering,
    /// Attempts in flight at most.
    pub max_in_flight: u16,
    /// Attempts a minute at most; 0 = unlimited.
    pub rate_per_minute: u32,
}

/// A subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Its number.
    pub id: SubscriptionId,
    /// Whose events.
    pub company: CompanyId,
    /// What its owner wants.
    pub wishes: Wishes,
    /// The key that webhooks are signed with.
    pub secret: Secret,
    /// Whether it is sent to.
    pub standing: Standing,
    /// How its receiver did when that was last written down.
    pub health: Health,
    /// When it was created.
    pub created: Timestamp,
}

/// How far the deliveries of one subscription are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneStatus {
    /// Every matching event at or below it is settled: delivered, dead, closed, or owed.
    pub position: Position,
    /// Events above the position that are settled.
    pub settled_above: usize,
    /// Events that wait for another attempt.
    pub owed: usize,
    /// Of these, events above the position that are not settled: they block it.
    pub owed_above: usize,
    /// When the oldest of them was created.
    pub oldest_owed: Option<Timestamp>,
    /// Attempts under way.
    pub in_flight: usize,
    /// Whether it is sent to.
    pub standing: Standing,
    /// How its receiver does.
    pub health: Health,
}

/// 32 bytes that only the daemon and the receiver know.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub [u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(***)")
    }
}

impl Subscription {
    /// Every knob at its value.
    #[must_use]
    pub fn knobs(&self) -> Knobs {
        self.wishes.profile.knobs(&self.wishes.overrides)
    }

    /// What the contract calls its state.
    #[must_use]
    pub fn state(&self) -> &'static str {
        state_name(self.standing, self.health)
    }

    /// Attempts that may be in flight at once.
    #[must_use]
    pub fn in_flight_max(&self) -> u16 {
        match self.wishes.ordering {
            Ordering::Parallel => self.wishes.max_in_flight.max(1),
            Ordering::Strict => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_id_reads_back_from_its_text() {
        let id = DeliveryId { subscription: SubscriptionId(12), event: EventId(1042) };
        assert_eq!(id.to_string(), "12-1042");
        assert_eq!("12-1042".parse(), Ok(id));
        for text in ["", "12", "12-", "-1042", "12-1042-1", "+1-2", "1-+2", "4294967296-1", "a-b"] {
            assert_eq!(text.parse::<DeliveryId>(), Err(ParseDeliveryIdError), "{text}");
        }
    }

    #[test]
    fn the_state_tells_the_receivers_health_only_while_the_subscription_is_active() {
        assert_eq!(state_name(Standing::Active, Health::default()), "active");
        assert_eq!(state_name(Standing::Active, Health::GivenUp), "suspended");
        assert_eq!(state_name(Standing::Paused, Health::GivenUp), "paused");
        assert_eq!(state_name(Standing::Disabled, Health::default()), "disabled");
    }
}
