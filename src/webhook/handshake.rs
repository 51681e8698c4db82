//! Asking a receiver for its consent (CloudEvents HTTP web hooks 1.0.2, section 4), without a word of an event and
//! without any credentials.

use std::num::NonZeroU32;

use bytes::Bytes;
use hyper::header::{HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request};
use tokio::time::timeout;

use super::connection::RequestBody;
use super::target::{AGENT, REQUEST_ORIGIN};
use super::{Failure, Progress, Sender, Stage, Target, answer};
use crate::domain::retry::ErrorClass;
use crate::domain::subscription::Consent;

static REQUEST_RATE: HeaderName = HeaderName::from_static("webhook-request-rate");
static REQUEST_CALLBACK: HeaderName = HeaderName::from_static("webhook-request-callback");
static ALLOWED_ORIGIN: HeaderName = HeaderName::from_static("webhook-allowed-origin");
static ALLOWED_RATE: HeaderName = HeaderName::from_static("webhook-allowed-rate");

/// What a receiver is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsentRequest {
    /// Requests a minute.
    pub rate_per_minute: NonZeroU32,
    /// Where it may consent later.
    pub callback: String,
}

/// Reads what a receiver allows: requests a minute, or `*` for as many as the sender likes, which is 0.
///
/// # Errors
/// Says that it is neither.
pub fn parse_allowed_rate(text: &str) -> Result<Consent, &'static str> {
    let rate = if text.trim() == "*" { Some(0) } else { text.trim().parse::<NonZeroU32>().ok().map(NonZeroU32::get) };
    rate.map(|rate_per_minute| Consent { rate_per_minute }).ok_or("WebHook-Allowed-Rate is neither a positive number nor `*`")
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?.trim();
    values.next().is_none().then_some(value)
}

/// Whether the headers of an answer consent to `origin`. The status says nothing about it (section 4.2).
fn consent(headers: &HeaderMap, origin: &HeaderValue) -> Result<Consent, String> {
    let Some(allowed) = single(headers, &ALLOWED_ORIGIN) else {
        return Err("the receiver answered without one header WebHook-Allowed-Origin".to_owned());
    };
    if allowed != "*" && allowed.as_bytes() != origin.as_bytes() {
        return Err("the receiver's WebHook-Allowed-Origin is neither this daemon's name nor `*`".to_owned());
    }
    // It was asked for, so that it must be there.
    let rate = single(headers, &ALLOWED_RATE).ok_or("the receiver answered without one header WebHook-Allowed-Rate")?;
    Ok(parse_allowed_rate(rate)?)
}

impl Sender {
    /// Asks the receiver for its consent; takes at most the target's time-out.
    ///
    /// # Errors
    /// Says why there is none.
    pub async fn ask_consent(&self, target: &Target, asked: &ConsentRequest) -> Result<Consent, String> {
        let mut progress = Progress::default();
        let limit = target.knobs.timeout;
        match timeout(limit, self.ask(target, asked, &mut progress)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("the time-out of {limit:?} passed while {}", progress.stage)),
        }
    }

    async fn ask(&self, target: &Target, asked: &ConsentRequest, progress: &mut Progress) -> Result<Consent, String> {
        let origin = target.origin_value().map_err(|error| error.to_string())?;
        let callback = HeaderValue::from_str(&asked.callback).map_err(|_| "public_url holds characters that a header cannot")?;
        let mut headers = HeaderMap::with_capacity(6);
        headers.insert(HOST, target.endpoint.authority.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(&REQUEST_ORIGIN, origin.clone());
        headers.insert(&REQUEST_RATE, HeaderValue::from(asked.rate_per_minute.get()));
        headers.insert(&REQUEST_CALLBACK, callback);
        let mut request = Request::new(RequestBody::whole(Bytes::new()));
        *request.method_mut() = Method::OPTIONS;
        *request.uri_mut() = target.endpoint.path.clone();
        *request.headers_mut() = headers;
        let refused = |failure: Failure| failure.error;
        let policy = self.policy.load_full();
        if target.endpoint.server_name.is_none() && !policy.allow_http {
            return Err(refused(Failure::new(ErrorClass::Egress, super::PLAIN_REFUSED)));
        }
        let tls = self.connector.tls_for_receiver(target.trust.as_deref()).map_err(refused)?;
        let mut connection = self.connector.connect(&target.endpoint, &tls, policy, progress).await.map_err(refused)?;
        progress.stage = Stage::Answering;
        let answer = connection.send(request).await.map_err(|(error, _)| refused(answer::failure(&error)))?;
        consent(answer.headers(), &origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(headers: &[(&HeaderName, &str)]) -> Result<u32, String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        consent(&map, &HeaderValue::from_static("events.example")).map(|consent| consent.rate_per_minute)
    }

    #[test]
    fn only_the_two_headers_consent() {
        let both = |origin: &str, rate: &str| answer(&[(&ALLOWED_ORIGIN, origin), (&ALLOWED_RATE, rate)]);
        assert_eq!(both("events.example", "120"), Ok(120));
        assert_eq!(both("*", "*"), Ok(0));
        for origin in ["other.example", "events.example.", "EVENTS.example", "https://events.example", "events.example, *", ""] {
            assert!(both(origin, "120").unwrap_err().contains("WebHook-Allowed-Origin"), "{origin}");
        }
        for rate in ["0", "-1", "1.5", "many", "", "99999999999"] {
            assert!(both("*", rate).unwrap_err().contains("WebHook-Allowed-Rate"), "{rate}");
        }
        assert!(answer(&[(&ALLOWED_RATE, "*")]).is_err());
        assert!(answer(&[(&ALLOWED_ORIGIN, "*")]).is_err());
        assert!(answer(&[(&ALLOWED_ORIGIN, "*"), (&ALLOWED_ORIGIN, "*"), (&ALLOWED_RATE, "*")]).is_err());
    }
}
