//! Subscriptions: where and how a company's webhooks go.

use std::fmt;
use std::str::FromStr;

use super::company::CompanyId;
use super::cursor::Position;
use super::event::EventId;
use super::filter::TypeFilter;
use super::health::Health;
use super::profile::{Handshake, Knobs, Overrides, Profile};
use super::time::Timestamp;

/// The number of a subscription, counted from 1, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(pub u32);

impl fmt::Display for SubscriptionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// The number of a replay, counted from 1 over all subscriptions, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplayId(pub u32);

impl fmt::Display for ReplayId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// One event owed to one subscription: `{subscription}-{event}`, and once more by replay n: `{subscription}-{event}-r{n}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId {
    /// To whom.
    pub subscription: SubscriptionId,
    /// What.
    pub event: EventId,
    /// By which replay; 0 = by none.
    pub run: u32,
}

/// A text that is not a delivery id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a delivery id is the subscription's number, a hyphen and the event's, such as 12-1042, and -r7 behind it when replay 7 owes it")]
pub struct ParseDeliveryIdError;

impl fmt::Display for DeliveryId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.subscription, self.event)?;
        if self.run > 0 { write!(formatter, "-r{}", self.run) } else { Ok(()) }
    }
}

impl FromStr for DeliveryId {
    type Err = ParseDeliveryIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let (subscription, rest) = text.split_once('-').ok_or(ParseDeliveryIdError)?;
        let (event, run) = rest.split_once("-r").unwrap_or((rest, "0"));
        let is_first = run == "0" && rest == event;
        if !is_number(subscription) || !is_number(event) || !is_number(run) || (run.starts_with('0') && !is_first) {
            return Err(ParseDeliveryIdError);
        }
        let run = run.parse().map_err(|_| ParseDeliveryIdError)?;
        let subscription = subscription.parse().map(SubscriptionId).map_err(|_| ParseDeliveryIdError)?;
        Ok(Self { subscription, event: event.parse().map(EventId).map_err(|_| ParseDeliveryIdError)?, run })
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
    /// Strict among the events that have the same value at the ordering key; the others pass.
    Key,
}

impl Ordering {
    /// All orderings, in the order in which records number them.
    pub const ALL: [Self; 3] = [Self::Parallel, Self::Strict, Self::Key];

    /// The ordering as it is written on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Parallel => "parallel",
            Self::Strict => "strict",
            Self::Key => "key",
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
    /// The receiver has not consented yet.
    Unverified,
}

impl Standing {
    /// All standings, in the order in which records number them.
    pub const ALL: [Self; 4] = [Self::Active, Self::Paused, Self::Disabled, Self::Unverified];
}

/// What the contract calls the state of a subscription: its standing, and while it is active its receiver's health.
#[must_use]
pub fn state_name(standing: Standing, health: Health) -> &'static str {
    match (standing, health) {
        (Standing::Paused, _) => "paused",
        (Standing::Disabled, _) => "disabled",
        (Standing::Unverified, _) => "unverified",
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
    /// `Authorization: Bearer` with an access token that is fetched for the purpose (RFC 6749, 4.4).
    OAuth2(Box<ClientCredentials>),
}

/// How an access token for a receiver is fetched (RFC 6749, 4.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCredentials {
    /// The token endpoint: an URL under the same rules as the receiver's.
    pub token_url: String,
    /// Who asks.
    pub client_id: String,
    /// How it proves that.
    pub method: TokenMethod,
    /// With what.
    pub credential: Credential,
    /// The parameter `scope`.
    pub scope: Option<String>,
    /// The parameter `audience`, which some authorization servers want.
    pub audience: Option<String>,
}

/// How a client proves at a token endpoint who it is (RFC 6749, 2.3.1; RFC 7523, 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenMethod {
    /// Id and secret as `Authorization: Basic`.
    Basic,
    /// Id and secret as parameters.
    Post,
    /// An assertion signed with a private key.
    PrivateKeyJwt,
}

impl TokenMethod {
    /// All methods.
    pub const ALL: [Self; 3] = [Self::Basic, Self::Post, Self::PrivateKeyJwt];

    /// The method as it is written on the wire (RFC 7591, `token_endpoint_auth_method`).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Basic => "client_secret_basic",
            Self::Post => "client_secret_post",
            Self::PrivateKeyJwt => "private_key_jwt",
        }
    }
}

/// A client's secret, or its private key as PEM. No debug output shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential(pub String);

impl fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Credential(***)")
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::None => "None",
            Self::Bearer(_) => "Bearer(***)",
            Self::Basic(..) => "Basic(***)",
            Self::OAuth2(_) => "OAuth2(***)",
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
    /// What events of one order have in common; only with [`Ordering::Key`].
    pub ordering_key: Option<OrderingKey>,
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
    /// The key before it, which they are signed with as well for a while.
    pub previous: Option<PreviousSecret>,
    /// What the receiver has consented to.
    pub consent: Option<Consent>,
    /// Whether it is sent to.
    pub standing: Standing,
    /// How its receiver did when that was last written down.
    pub health: Health,
    /// How often a person has resumed it: what is reported of its receiver from before that does not count any more.
    pub resumes: u32,
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

/// A key that has been replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviousSecret {
    /// The key.
    pub secret: Secret,
    /// When it stops counting.
    pub until: Timestamp,
}

/// The most attempts a minute that a subscription may ask for.
pub const RATE_PER_MINUTE_MAX: u32 = 6_000_000;

/// What a receiver has consented to (CloudEvents HTTP web hooks 1.0.2, section 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consent {
    /// Requests a minute at most; 0 = as many as the sender likes.
    pub rate_per_minute: u32,
}

/// Where in a payload the value stands that events of one order have in common: a JSON pointer (RFC 6901).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderingKey(String);

/// A text that is not an ordering key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an ordering key is a JSON pointer of at most {} bytes such as /claim/id", OrderingKey::BYTES_MAX)]
pub struct ParseOrderingKeyError;

impl OrderingKey {
    /// The longest pointer, in bytes.
    pub const BYTES_MAX: usize = 256;

    /// The pointer.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for OrderingKey {
    type Err = ParseOrderingKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // A tilde stands only before 0 and 1 (RFC 6901, section 3).
        let is_escaped = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        if text.starts_with('/') && text.len() <= Self::BYTES_MAX && is_escaped {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseOrderingKeyError)
        }
    }
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
            Ordering::Parallel | Ordering::Key => self.wishes.max_in_flight.max(1),
            Ordering::Strict => 1,
        }
    }

    /// Attempts that may be started in a minute: what its owner wants and its receiver has consented to; 0 = unlimited.
    #[must_use]
    pub fn rate_per_minute(&self) -> u32 {
        let limits = [self.wishes.rate_per_minute, self.consent.map_or(0, |consent| consent.rate_per_minute)];
        limits.into_iter().filter(|limit| *limit > 0).min().unwrap_or(0)
    }

    /// Takes what its owner wants from now on. What the receiver has consented to counts only for the URL that it was
    /// asked at.
    pub fn take_wishes(&mut self, wishes: Wishes) {
        let (before, now) = (self.knobs().handshake, wishes.profile.knobs(&wishes.overrides).handshake);
        let is_other = now != before || (now == Handshake::Options && wishes.url != self.wishes.url);
        self.wishes = wishes;
        if is_other {
            self.consent = None;
            match (now, self.standing) {
                (Handshake::Options, Standing::Active) => self.standing = Standing::Unverified,
                (Handshake::None, Standing::Unverified) => self.standing = Standing::Active,
                _ => {}
            }
        }
    }

    /// Forgets what the receiver has consented to, because it is asked again.
    pub fn forget_consent(&mut self) {
        self.consent = None;
        if self.knobs().handshake == Handshake::Options && self.standing == Standing::Active {
            self.standing = Standing::Unverified;
        }
    }

    /// Takes the consent of a receiver that was asked at this URL. What a person has stopped stays so.
    pub fn take_consent(&mut self, url: &str, consent: Consent) {
        if self.wishes.url == url && self.knobs().handshake == Handshake::Options {
            self.consent = Some(consent);
            if self.standing == Standing::Unverified {
                self.standing = Standing::Active;
            }
        }
    }

    /// Is sent to again because a person says so, who may stand in for the receiver's consent. One that was stopped
    /// before the receiver had consented waits for that first.
    pub fn resume(&mut self) {
        let waits = self.knobs().handshake == Handshake::Options && self.consent.is_none();
        let is_stopped = matches!(self.standing, Standing::Paused | Standing::Disabled);
        self.standing = if waits && is_stopped { Standing::Unverified } else { Standing::Active };
        self.health = Health::default();
        self.resumes = self.resumes.wrapping_add(1);
    }

    /// The standing that it has before anything was sent: unverified when its receiver must consent first.
    #[must_use]
    pub fn first_standing(wishes: &Wishes) -> Standing {
        match wishes.profile.knobs(&wishes.overrides).handshake {
            Handshake::Options => Standing::Unverified,
            Handshake::None => Standing::Active,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_id_reads_back_from_its_text() {
        let id = DeliveryId { subscription: SubscriptionId(12), event: EventId(1042), run: 0 };
        for (text, id) in [("12-1042", id), ("12-1042-r7", DeliveryId { run: 7, ..id })] {
            assert_eq!(id.to_string(), text);
            assert_eq!(text.parse(), Ok(id));
        }
        for text in [
            "",
            "12",
            "12-",
            "-1042",
            "12-1042-1",
            "+1-2",
            "1-+2",
            "4294967296-1",
            "a-b",
            "1-2-r",
            "1-2-r0",
            "1-2-r07",
            "1-2-r4294967296",
            "1-2-r7-r7",
            "1-2-R7",
        ] {
            assert_eq!(text.parse::<DeliveryId>(), Err(ParseDeliveryIdError), "{text}");
        }
    }

    #[test]
    fn an_ordering_key_is_a_json_pointer() {
        for text in ["/claim/id", "/", "/a~0b/~1", "/0"] {
            assert_eq!(text.parse::<OrderingKey>().unwrap().as_str(), text);
        }
        for text in ["", "claim/id", "/a~2", "/a~", &format!("/{}", "x".repeat(OrderingKey::BYTES_MAX))] {
            assert_eq!(text.parse::<OrderingKey>(), Err(ParseOrderingKeyError), "{text}");
        }
    }

    fn subscription(handshake: Handshake) -> Subscription {
        Subscription {
            id: SubscriptionId(1),
            company: CompanyId(1),
            wishes: Wishes {
                name: "a".to_owned(),
                url: "https://a.example/".to_owned(),
                types: Vec::new(),
                filter: TypeFilter::default(),
                profile: Profile::CloudEvents,
                overrides: Overrides { handshake: Some(handshake), ..Overrides::default() },
                auth: Auth::None,
                headers: Vec::new(),
                ordering: Ordering::Parallel,
                ordering_key: None,
                max_in_flight: 4,
                rate_per_minute: 100,
            },
            secret: Secret([0; 32]),
            previous: None,
            consent: None,
            standing: if handshake == Handshake::Options { Standing::Unverified } else { Standing::Active },
            health: Health::default(),
            resumes: 0,
            created: Timestamp::default(),
        }
    }

    const RATE: Consent = Consent { rate_per_minute: 60 };

    #[test]
    fn a_consent_counts_for_the_url_that_was_asked_and_bounds_the_rate() {
        let mut one = subscription(Handshake::Options);
        one.take_consent("https://b.example/", RATE);
        assert_eq!((one.standing, one.consent, one.rate_per_minute()), (Standing::Unverified, None, 100));
        one.take_consent("https://a.example/", RATE);
        assert_eq!((one.standing, one.consent, one.rate_per_minute()), (Standing::Active, Some(RATE), 60));
        one.take_wishes(Wishes { rate_per_minute: 0, ..one.wishes.clone() });
        assert_eq!((one.standing, one.rate_per_minute()), (Standing::Active, 60));
        one.take_wishes(Wishes { url: "https://b.example/".to_owned(), ..one.wishes.clone() });
        assert_eq!((one.standing, one.consent), (Standing::Unverified, None));
        one.take_wishes(subscription(Handshake::None).wishes);
        assert_eq!(one.standing, Standing::Active);
        one.take_consent("https://a.example/", RATE);
        assert_eq!(one.consent, None);
        one.take_wishes(subscription(Handshake::Options).wishes);
        assert_eq!(one.standing, Standing::Unverified);
    }

    #[test]
    fn a_pause_outlives_a_consent_and_a_person_may_stand_in_for_it() {
        let mut one = Subscription { standing: Standing::Paused, ..subscription(Handshake::Options) };
        one.resume();
        assert_eq!(one.standing, Standing::Unverified);
        one.resume();
        assert_eq!(one.standing, Standing::Active);
        one.resume();
        assert_eq!(one.standing, Standing::Active);
        one.standing = Standing::Paused;
        one.take_consent("https://a.example/", RATE);
        assert_eq!(one.standing, Standing::Paused);
        one.resume();
        assert_eq!(one.standing, Standing::Active);
        one.forget_consent();
        assert_eq!((one.standing, one.consent), (Standing::Unverified, None));
    }

    #[test]
    fn the_state_tells_the_receivers_health_only_while_the_subscription_is_active() {
        assert_eq!(state_name(Standing::Active, Health::default()), "active");
        assert_eq!(state_name(Standing::Active, Health::GivenUp), "suspended");
        assert_eq!(state_name(Standing::Paused, Health::GivenUp), "paused");
        assert_eq!(state_name(Standing::Disabled, Health::default()), "disabled");
        assert_eq!(state_name(Standing::Unverified, Health::GivenUp), "unverified");
    }
}
