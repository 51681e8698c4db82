//! Profiles: how a subscription wants its webhooks, as a named set of knobs that can be changed one by one.

use std::time::Duration;

/// A named set of knobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Standard Webhooks: `{"type","timestamp","data"}` with their signature headers.
    Standard,
    /// The event's envelope, with a signature in one header beside the standard ones.
    Envelope,
}

/// What the body of a webhook is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyForm {
    /// `{"type","timestamp","data"}` (Standard Webhooks 1.0.0, payload structure).
    Typed,
    /// The envelope as the Events API serves it.
    Envelope,
}

/// How a webhook is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureForm {
    /// `webhook-id`, `webhook-timestamp` and `webhook-signature` (Standard Webhooks 1.0.0, `v1`).
    Standard,
    /// One header `sha256={hex}` over the body, and the standard ones.
    HeaderHmac,
    /// None; the id and the timestamp are sent all the same.
    None,
}

/// How a payload stands in an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadAs {
    /// As a string that holds JSON.
    String,
    /// As JSON.
    Object,
}

/// What is kept of a receiver's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepResponse {
    /// The first 16 KiB; once it is delivered, 2 KiB.
    Excerpt,
    /// Nothing but the status.
    None,
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
}

const fn seconds(list: &[u64]) -> &[u64] {
    list
}

/// Retries of `standard`: after 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h and 24 h.
const STANDARD_RETRIES: &[u64] = seconds(&[5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400]);
/// Retries of `envelope`.
const ENVELOPE_RETRIES: u32 = 10;

/// The wait before retry `number` (from 1) of an exponential schedule: 10 s × 3^(number − 1), at most 6 h.
fn exponential(number: u32) -> Duration {
    Duration::from_secs(3_u64.saturating_pow(number.saturating_sub(1)).saturating_mul(10).min(6 * 3600))
}

impl Profile {
    /// All profiles.
    pub const ALL: [Self; 2] = [Self::Standard, Self::Envelope];

    /// The profile as it is written on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Envelope => "envelope",
        }
    }

    /// The knobs of the profile with some of them changed.
    #[must_use]
    pub fn knobs(self, overrides: &Overrides) -> Knobs {
        let (body, signature, retry_schedule, timeout) = match self {
            Self::Standard => (
                BodyForm::Typed,
                SignatureForm::Standard,
                STANDARD_RETRIES.iter().copied().map(Duration::from_secs).collect(),
                Duration::from_secs(15),
            ),
            Self::Envelope => {
                (BodyForm::Envelope, SignatureForm::HeaderHmac, (1..=ENVELOPE_RETRIES).map(exponential).collect(), Duration::from_secs(10))
            }
        };
        let schedule = |list: &Vec<u64>| list.iter().copied().map(Duration::from_millis).collect();
        Knobs {
            body: overrides.body.unwrap_or(body),
            content_type: overrides.content_type.clone().unwrap_or_else(|| "application/json".to_owned()),
            signature: overrides.signature.unwrap_or(signature),
            signature_header: overrides.signature_header.clone().unwrap_or_else(|| "X-Signature".to_owned()),
            success: overrides.success.clone().unwrap_or_else(StatusSet::successful),
            lenient_success: overrides.lenient_success.unwrap_or(false),
            retry_schedule: overrides.retry_schedule_ms.as_ref().map_or(retry_schedule, schedule),
            timeout: overrides.timeout_ms.map_or(timeout, Duration::from_millis),
            payload_as: overrides.payload_as.unwrap_or(PayloadAs::String),
            keep_response: overrides.keep_response.unwrap_or(KeepResponse::Excerpt),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profiles_have_the_knobs_of_the_contract() {
        let standard = Profile::Standard.knobs(&Overrides::default());
        let seconds: Vec<u64> = standard.retry_schedule.iter().map(Duration::as_secs).collect();
        assert_eq!(seconds, [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400]);
        assert_eq!((standard.body, standard.timeout.as_secs()), (BodyForm::Typed, 15));
        let envelope = Profile::Envelope.knobs(&Overrides::default());
        let seconds: Vec<u64> = envelope.retry_schedule.iter().map(Duration::as_secs).collect();
        assert_eq!(seconds, [10, 30, 90, 270, 810, 2_430, 7_290, 21_600, 21_600, 21_600]);
        assert_eq!((envelope.signature, envelope.timeout.as_secs()), (SignatureForm::HeaderHmac, 10));
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
            }
        );
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
