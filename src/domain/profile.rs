//! Profiles: how a subscription wants its webhooks, as a named set of knobs that can be changed one by one.

use std::fmt;
use std::time::Duration;

/// A choice whose values have names on the wire; records number the values in the order in which they stand here.
macro_rules! choice {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $value:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$doc])* $value,)+
        }

        impl $name {
            /// All values, in the order in which records number them.
            pub const ALL: &[Self] = &[$(Self::$value),+];

            /// The value as it is written on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $word,)+
                }
            }
        }
    };
}

choice! {
    /// A named set of knobs.
    Profile {
        /// Standard Webhooks: `{"type","timestamp","data"}` with their signature headers.
        Standard = "standard",
        /// The event's envelope, with a signature in one header beside the standard ones.
        Envelope = "envelope",
        /// A message with its own signature inside the body.
        SignedEnvelope = "signed-envelope",
        /// CloudEvents 1.0.2 over HTTP.
        CloudEvents = "cloudevents",
        /// What has changed, by reference; the receiver fetches it.
        Reference = "reference",
        /// The object as it was published through the bridge.
        Bridge = "bridge",
    }
}

choice! {
    /// What the body of a webhook is.
    BodyForm {
        /// `{"type","timestamp","data"}` (Standard Webhooks 1.0.0, payload structure).
        Typed = "typed",
        /// The envelope as the Events API serves it.
        Envelope = "envelope",
        /// `{"payload","payloadAsString","signature"}`.
        SignedEnvelope = "signed-envelope",
        /// One JSON object with attributes and `data` (CloudEvents JSON format 1.0.2, section 3).
        CloudEventsStructured = "cloudevents-structured",
        /// The payload, with the attributes in `ce-` headers (CloudEvents HTTP binding 1.0.2, section 3.1).
        CloudEventsBinary = "cloudevents-binary",
        /// An array of one structured event (CloudEvents JSON format 1.0.2, section 4).
        CloudEventsBatch = "cloudevents-batch",
        /// What has changed, by reference, without the payload.
        Reference = "reference",
        /// The payload as published.
        Event = "event",
    }
}

choice! {
    /// How a webhook is signed. Whatever it is, the id and the timestamp are sent as headers.
    SignatureForm {
        /// `webhook-id`, `webhook-timestamp` and `webhook-signature` (Standard Webhooks 1.0.0, `v1`).
        Standard = "standard",
        /// One header `sha256={hex}` over the body, and the standard ones.
        HeaderHmac = "header-hmac",
        /// None.
        None = "none",
        /// HMAC-SHA-256 over `payloadAsString`, inside the body.
        BodyHmacSha256 = "body-hmac-sha256",
        /// RSASSA-PKCS1-v1_5 with SHA-256 over `payloadAsString` (RFC 8017, 8.2), inside the body.
        BodyRsaSha256 = "body-rsa-sha256",
    }
}

impl SignatureForm {
    /// Whether the signature stands inside the body.
    #[must_use]
    pub const fn is_in_body(self) -> bool {
        matches!(self, Self::BodyHmacSha256 | Self::BodyRsaSha256)
    }

    /// Whether the headers of Standard Webhooks bear a signature.
    #[must_use]
    pub const fn is_in_standard_header(self) -> bool {
        matches!(self, Self::Standard | Self::HeaderHmac)
    }
}

choice! {
    /// How a payload stands in an envelope.
    PayloadAs {
        /// As a string that holds JSON.
        String = "string",
        /// As JSON.
        Object = "object",
    }
}

choice! {
    /// What is kept of a receiver's answer.
    KeepResponse {
        /// The first 16 KiB; once it is delivered, 2 KiB.
        Excerpt = "excerpt",
        /// Of a success nothing, of a failure the first 16 KiB.
        None = "none",
        /// The texts of `{"errors":[...]}`; of a failure that is no such body the first 16 KiB.
        Errors = "errors",
    }
}

choice! {
    /// Whether a receiver is asked for its consent before anything is sent to it.
    Handshake {
        /// It is not.
        None = "none",
        /// By `OPTIONS` (CloudEvents HTTP web hooks 1.0.2, section 4).
        Options = "options",
    }
}

choice! {
    /// What happens when the last retry of an event has failed.
    OnExhausted {
        /// The event becomes a dead letter; the next ones go on.
        DeadLetter = "dead-letter",
        /// The subscription stops with the event still owed, and waits for a person.
        Suspend = "suspend",
    }
}

/// A private key as PEM, which no debug output shows.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKeyPem(pub String);

impl fmt::Debug for PrivateKeyPem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PrivateKeyPem(***)")
    }
}

/// Statuses, as inclusive ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusSet(Vec<(u16, u16)>);

/// A text that is no status or range of statuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither a status from 100 to 599 nor a range such as 200-299")]
pub struct ParseStatusSetError(String);

impl StatusSet {
    /// The statuses from 200 to 299.
    #[must_use]
    pub fn successful() -> Self {
        Self(vec![(200, 299)])
    }

    /// Reads numbers and ranges.
    ///
    /// # Errors
    /// Names the first entry that is neither.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, ParseStatusSetError> {
        let parse = |entry: &'a str| {
            let number = |text: &str| text.trim().parse().ok().filter(|status| (100..=599).contains(status));
            let (first, last) = entry.split_once('-').unwrap_or((entry, entry));
            match (number(first), number(last)) {
                (Some(first), Some(last)) if first <= last => Ok((first, last)),
                _ => Err(ParseStatusSetError(entry.to_owned())),
            }
        };
        entries.into_iter().map(parse).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a status is in the set.
    #[must_use]
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&status))
    }

    /// Numbers and ranges, as [`StatusSet::parse`] takes them.
    #[must_use]
    pub fn to_entries(&self) -> Vec<String> {
        self.0.iter().map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") }).collect()
    }
}

/// What a subscription changes of its profile.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Overrides {
    /// See [`Knobs::body`].
    pub body: Option<BodyForm>,
    /// See [`Knobs::content_type`].
    pub content_type: Option<String>,
    /// See [`Knobs::signature`].
    pub signature: Option<SignatureForm>,
    /// See [`Knobs::signature_header`].
    pub signature_header: Option<String>,
    /// See [`Knobs::success`].
    pub success: Option<StatusSet>,
    /// See [`Knobs::lenient_success`].
    pub lenient_success: Option<bool>,
    /// See [`Knobs::retry_schedule`]; in milliseconds.
    pub retry_schedule_ms: Option<Vec<u64>>,
    /// See [`Knobs::timeout`]; in milliseconds.
    pub timeout_ms: Option<u64>,
    /// See [`Knobs::payload_as`].
    pub payload_as: Option<PayloadAs>,
    /// See [`Knobs::keep_response`].
    pub keep_response: Option<KeepResponse>,
    /// See [`Knobs::handshake`].
    pub handshake: Option<Handshake>,
    /// See [`Knobs::cloud_events_source`].
    pub cloud_events_source: Option<String>,
    /// See [`Knobs::cloud_events_type_prefix`].
    pub cloud_events_type_prefix: Option<String>,
    /// See [`Knobs::on_exhausted`].
    pub on_exhausted: Option<OnExhausted>,
    /// Certificates (PEM) that vouch for the receiver instead of the machine's.
    pub ca_bundle: Option<String>,
    /// The certificate chain (PEM) that the daemon shows to the receiver.
    pub client_certificate: Option<String>,
    /// The key of `client_certificate`.
    pub client_key: Option<PrivateKeyPem>,
}

/// Every knob at its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Knobs {
    /// What the body is.
    pub body: BodyForm,
    /// The `Content-Type`.
    pub content_type: String,
    /// How it is signed.
    pub signature: SignatureForm,
    /// The header of [`SignatureForm::HeaderHmac`].
    pub signature_header: String,
    /// Statuses that mean delivered.
    pub success: StatusSet,
    /// Every status from 200 to 299 means delivered, whatever `success` says.
    pub lenient_success: bool,
    /// The wait before each retry; their number is the number of retries.
    pub retry_schedule: Vec<Duration>,
    /// The deadline of one attempt, over resolving, connecting, sending and the whole answer.
    pub timeout: Duration,
    /// How the payload stands in an envelope.
    pub payload_as: PayloadAs,
    /// What is kept of an answer.
    pub keep_response: KeepResponse,
    /// Whether the receiver is asked first.
    pub handshake: Handshake,
    /// The attribute `source` of CloudEvents; none: the company's own.
    pub cloud_events_source: Option<String>,
    /// What stands before the event's type in the attribute `type` of CloudEvents.
    pub cloud_events_type_prefix: String,
    /// What happens when the last retry has failed.
    pub on_exhausted: OnExhausted,
}

/// Retries of `standard`: after 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h and 24 h.
const STANDARD_RETRIES: [u64; 9] = [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400];
/// Retries of `reference`: after 1, 5 and 15 min.
const REFERENCE_RETRIES: [u64; 3] = [60, 300, 900];

/// The waits before `count` retries of an exponential schedule: 10 s × 3^(number − 1), at most 6 h.
fn exponential(count: u32) -> Vec<Duration> {
    let wait = |number| Duration::from_secs(3_u64.saturating_pow(number).saturating_mul(10).min(6 * 3600));
    (0..count).map(wait).collect()
}

fn seconds(list: &[u64]) -> Vec<Duration> {
    list.iter().copied().map(Duration::from_secs).collect()
}

impl BodyForm {
    /// The `Content-Type` that goes with the body unless the subscription names another.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::CloudEventsStructured => "application/cloudevents+json; charset=utf-8",
            Self::CloudEventsBatch => "application/cloudevents-batch+json; charset=utf-8",
            Self::Event => "application/json;charset=utf-8",
            Self::Typed | Self::Envelope | Self::SignedEnvelope | Self::CloudEventsBinary | Self::Reference => "application/json",
        }
    }
}

impl Profile {
    /// Whether a subscription must say how it authorizes itself, even if it is not at all.
    #[must_use]
    pub const fn demands_auth(self) -> bool {
        matches!(self, Self::CloudEvents | Self::Bridge)
    }

    const fn body(self) -> BodyForm {
        match self {
            Self::Standard => BodyForm::Typed,
            Self::Envelope => BodyForm::Envelope,
            Self::SignedEnvelope => BodyForm::SignedEnvelope,
            Self::CloudEvents => BodyForm::CloudEventsStructured,
            Self::Reference => BodyForm::Reference,
            Self::Bridge => BodyForm::Event,
        }
    }

    const fn signature(self) -> SignatureForm {
        match self {
            Self::Envelope => SignatureForm::HeaderHmac,
            Self::SignedEnvelope => SignatureForm::BodyHmacSha256,
            Self::Standard | Self::CloudEvents | Self::Reference | Self::Bridge => SignatureForm::Standard,
        }
    }

    fn success(self) -> StatusSet {
        match self {
            Self::CloudEvents => StatusSet(vec![(200, 202), (204, 204)]),
            Self::Reference => StatusSet(vec![(204, 204)]),
            Self::Standard | Self::Envelope | Self::SignedEnvelope | Self::Bridge => StatusSet::successful(),
        }
    }

    fn retry_schedule(self) -> Vec<Duration> {
        match self {
            Self::Standard => seconds(&STANDARD_RETRIES),
            Self::Envelope => exponential(10),
            Self::SignedEnvelope => exponential(5),
            Self::CloudEvents | Self::Bridge => exponential(8),
            Self::Reference => seconds(&REFERENCE_RETRIES),
        }
    }

    const fn timeout(self) -> Duration {
        Duration::from_secs(if matches!(self, Self::Envelope) { 10 } else { 15 })
    }

    const fn keep_response(self) -> KeepResponse {
        match self {
            Self::CloudEvents => KeepResponse::None,
            Self::Reference => KeepResponse::Errors,
            Self::Standard | Self::Envelope | Self::SignedEnvelope | Self::Bridge => KeepResponse::Excerpt,
        }
    }

    /// The knobs of the profile with some of them changed.
    #[must_use]
    pub fn knobs(self, overrides: &Overrides) -> Knobs {
        let body = overrides.body.unwrap_or(self.body());
        let schedule = |list: &Vec<u64>| list.iter().copied().map(Duration::from_millis).collect();
        Knobs {
            body,
            content_type: overrides.content_type.clone().unwrap_or_else(|| body.content_type().to_owned()),
            signature: overrides.signature.unwrap_or(self.signature()),
            signature_header: overrides.signature_header.clone().unwrap_or_else(|| "X-Signature".to_owned()),
            success: overrides.success.clone().unwrap_or_else(|| self.success()),
            lenient_success: overrides.lenient_success.unwrap_or(false),
            retry_schedule: overrides.retry_schedule_ms.as_ref().map_or_else(|| self.retry_schedule(), schedule),
            timeout: overrides.timeout_ms.map_or(self.timeout(), Duration::from_millis),
            payload_as: overrides.payload_as.unwrap_or(PayloadAs::String),
            keep_response: overrides.keep_response.unwrap_or(self.keep_response()),
            handshake: overrides.handshake.unwrap_or(Handshake::None),
            cloud_events_source: overrides.cloud_events_source.clone(),
            cloud_events_type_prefix: overrides.cloud_events_type_prefix.clone().unwrap_or_default(),
            on_exhausted: overrides.on_exhausted.unwrap_or(OnExhausted::DeadLetter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(profile: Profile) -> Knobs {
        profile.knobs(&Overrides::default())
    }

    fn waits(profile: Profile) -> Vec<u64> {
        of(profile).retry_schedule.iter().map(Duration::as_secs).collect()
    }

    #[test]
    fn the_profiles_have_the_knobs_of_the_contract() {
        let row = |profile: Profile| {
            let knobs = of(profile);
            (
                knobs.body.as_str(),
                knobs.content_type,
                knobs.signature.as_str(),
                knobs.success.to_entries().join(" "),
                knobs.timeout.as_secs(),
                knobs.keep_response.as_str(),
            )
        };
        let json = || "application/json".to_owned();
        let ok = || "200-299".to_owned();
        let expected = [
            ("typed", json(), "standard", ok(), 15, "excerpt"),
            ("envelope", json(), "header-hmac", ok(), 10, "excerpt"),
            ("signed-envelope", json(), "body-hmac-sha256", ok(), 15, "excerpt"),
            (
                "cloudevents-structured",
                "application/cloudevents+json; charset=utf-8".to_owned(),
                "standard",
                "200-202 204".to_owned(),
                15,
                "none",
            ),
            ("reference", json(), "standard", "204".to_owned(), 15, "errors"),
            ("event", "application/json;charset=utf-8".to_owned(), "standard", ok(), 15, "excerpt"),
        ];
        for (profile, expected) in Profile::ALL.iter().zip(expected) {
            assert_eq!(row(*profile), expected);
        }
    }

    #[test]
    fn every_profile_has_the_retries_of_the_contract() {
        assert_eq!(waits(Profile::Standard), [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400]);
        assert_eq!(waits(Profile::Envelope), [10, 30, 90, 270, 810, 2_430, 7_290, 21_600, 21_600, 21_600]);
        assert_eq!(waits(Profile::SignedEnvelope), [10, 30, 90, 270, 810]);
        assert_eq!(waits(Profile::CloudEvents), [10, 30, 90, 270, 810, 2_430, 7_290, 21_600]);
        assert_eq!(waits(Profile::Bridge), waits(Profile::CloudEvents));
        assert_eq!(waits(Profile::Reference), [60, 300, 900]);
    }

    #[test]
    fn every_override_changes_its_knob() {
        let overrides = Overrides {
            body: Some(BodyForm::Envelope),
            content_type: Some("application/vnd.x+json".to_owned()),
            signature: Some(SignatureForm::None),
            signature_header: Some("X-Sign".to_owned()),
            success: Some(StatusSet::parse(["204"]).unwrap()),
            lenient_success: Some(true),
            retry_schedule_ms: Some(vec![100]),
            timeout_ms: Some(1000),
            payload_as: Some(PayloadAs::Object),
            keep_response: Some(KeepResponse::None),
            handshake: Some(Handshake::Options),
            cloud_events_source: Some("/s".to_owned()),
            cloud_events_type_prefix: Some("com.x.".to_owned()),
            on_exhausted: Some(OnExhausted::Suspend),
            ca_bundle: None,
            client_certificate: None,
            client_key: None,
        };
        let knobs = Profile::Standard.knobs(&overrides);
        assert_eq!(
            knobs,
            Knobs {
                body: BodyForm::Envelope,
                content_type: "application/vnd.x+json".to_owned(),
                signature: SignatureForm::None,
                signature_header: "X-Sign".to_owned(),
                success: StatusSet(vec![(204, 204)]),
                lenient_success: true,
                retry_schedule: vec![Duration::from_millis(100)],
                timeout: Duration::from_secs(1),
                payload_as: PayloadAs::Object,
                keep_response: KeepResponse::None,
                handshake: Handshake::Options,
                cloud_events_source: Some("/s".to_owned()),
                cloud_events_type_prefix: "com.x.".to_owned(),
                on_exhausted: OnExhausted::Suspend,
            }
        );
    }

    #[test]
    fn the_content_type_follows_the_body_unless_it_is_named() {
        let batch = Overrides { body: Some(BodyForm::CloudEventsBatch), ..Overrides::default() };
        assert_eq!(Profile::CloudEvents.knobs(&batch).content_type, "application/cloudevents-batch+json; charset=utf-8");
        let named = Overrides { content_type: Some("application/json".to_owned()), ..batch };
        assert_eq!(Profile::CloudEvents.knobs(&named).content_type, "application/json");
    }

    #[test]
    fn status_sets_hold_numbers_and_ranges() {
        let set = StatusSet::parse(["200-204", "409"]).unwrap();
        assert_eq!([199, 200, 204, 205, 409].map(|status| set.contains(status)), [false, true, true, false, true]);
        assert_eq!(StatusSet::parse(set.to_entries().iter().map(String::as_str)), Ok(set));
        for wrong in ["", "99", "600", "204-200", "2xx", "200-"] {
            assert!(StatusSet::parse([wrong]).is_err(), "{wrong}");
        }
    }
}
