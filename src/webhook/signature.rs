//! Signatures of Standard Webhooks 1.0.0, made and checked.

use std::fmt::{self, Write};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use hyper::header::HeaderMap;
use sha2::Sha256;

use crate::domain::time::Timestamp;

/// Names the delivery, the same over all of its attempts.
pub(super) const ID: &str = "webhook-id";
/// When the attempt was made, in seconds since 1970.
pub(super) const TIMESTAMP: &str = "webhook-timestamp";
/// `v1,{base64}`, several of them with spaces between.
pub(super) const SIGNATURE: &str = "webhook-signature";

/// A secret ready to sign with: the hash has taken in the key once, and is cloned for every signature.
#[derive(Clone)]
pub(super) struct SigningKey(Hmac<Sha256>);

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SigningKey(***)")
    }
}

impl SigningKey {
    pub fn new(secret: &[u8]) -> Self {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of every length (RFC 2104)")]
        Self(Hmac::new_from_slice(secret).expect("a key of any length"))
    }

    fn over(&self, pieces: [&[u8]; 2]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        for piece in pieces {
            mac.update(piece);
        }
        mac
    }

    /// Appends to `text`, which is `{id}.{timestamp}.`, `v1,` and the base64 of the MAC over that and the body.
    pub fn sign_onto(&self, text: &mut String, body: &[u8]) {
        let mac = self.over([text.as_bytes(), body]).finalize().into_bytes();
        text.push_str("v1,");
        STANDARD.encode_string(mac, text);
    }

    /// Whether this is the MAC over a text; takes as long for wrong ones as for right ones.
    pub fn verifies(&self, text: &[u8], signature: &[u8]) -> bool {
        self.over([&[], text]).verify_slice(signature).is_ok()
    }

    /// The base64 of the MAC over a text.
    pub fn sign_text(&self, text: &[u8]) -> String {
        STANDARD.encode(self.over([&[], text]).finalize().into_bytes())
    }

    /// Appends `sha256=` and the MAC over the body alone, in hexadecimal digits.
    pub fn sign_body_onto(&self, text: &mut String, body: &[u8]) {
        text.push_str("sha256=");
        for byte in self.over([&[], body]).finalize().into_bytes() {
            for nibble in [byte >> 4, byte & 15] {
                text.extend(char::from_digit(u32::from(nibble), 16));
            }
        }
    }
}

/// Why a webhook is not to be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// One of the three headers is missing or not text.
    #[error("the header {0} is missing")]
    Missing(&'static str),
    /// The timestamp is not a number of seconds.
    #[error("the header webhook-timestamp is not a number of seconds")]
    Timestamp,
    /// The timestamp is too far from now, in either direction.
    #[error("the webhook was signed {} too long ago or ahead", seconds_text(.0))]
    Time(Duration),
    /// No signature matches.
    #[error("no signature of the webhook matches")]
    Signature,
    /// Neither headers nor body bear a signature.
    #[error("the webhook has no signature, neither in the header webhook-signature nor inside its body")]
    Unsigned,
    /// What is signed inside the body is not what its other member says.
    #[error("payloadAsString is signed, but payload says something else")]
    Payload,
}

fn seconds_text(span: &Duration) -> String {
    format!("{} s", span.as_secs())
}

/// Checks a webhook as its receiver does; `secret` are the decoded bytes behind `whsec_`.
///
/// # Errors
/// Says what is missing or does not match.
pub fn verify(secret: &[u8], headers: &HeaderMap, body: &[u8], now: Timestamp, tolerance: Duration) -> Result<(), VerifyError> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).ok_or(VerifyError::Missing(name));
    let (id, timestamp, signatures) = (header(ID)?, header(TIMESTAMP)?, header(SIGNATURE)?);
    let seconds: u64 = timestamp.parse().map_err(|_| VerifyError::Timestamp)?;
    let distance = Duration::from_secs(seconds.abs_diff(now.as_seconds()));
    if distance > tolerance {
        return Err(VerifyError::Time(distance));
    }
    let mut stamp = String::with_capacity(id.len() + timestamp.len() + 2);
    // Writing to a text has no way to fail.
    let _ = write!(stamp, "{id}.{timestamp}.");
    let mac = SigningKey::new(secret).over([stamp.as_bytes(), body]);
    let matches = |signature: &str| {
        let expected = signature.strip_prefix("v1,").and_then(|text| STANDARD.decode(text).ok());
        expected.is_some_and(|expected| mac.clone().verify_slice(&expected).is_ok())
    };
    if signatures.split(' ').any(matches) { Ok(()) } else { Err(VerifyError::Signature) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks libraries.
    const SECRET: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNED: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn secret() -> Vec<u8> {
        STANDARD.decode(SECRET).unwrap()
    }

    fn headers(signature: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ID, "msg_p5jXN8AQM9LWM0D4loKWxJek".parse().unwrap());
        headers.insert(TIMESTAMP, "1614265330".parse().unwrap());
        headers.insert(SIGNATURE, signature.parse().unwrap());
        headers
    }

    fn check(headers: &HeaderMap, body: &[u8], second: u64) -> Result<(), VerifyError> {
        verify(&secret(), headers, body, Timestamp::from_micros(second * 1_000_000), Duration::from_secs(300))
    }

    #[test]
    fn signs_the_published_example() {
        let stamp = "msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.";
        let mut text = stamp.to_owned();
        SigningKey::new(&secret()).sign_onto(&mut text, BODY);
        assert_eq!(text, format!("{stamp}{SIGNED}"));
    }

    #[test]
    fn signs_a_body_as_rfc_4231_says() {
        let mut text = String::new();
        SigningKey::new(b"Jefe").sign_body_onto(&mut text, b"what do ya want for nothing?");
        assert_eq!(text, "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    #[test]
    fn takes_one_matching_signature_among_others() {
        for signatures in [SIGNED.to_owned(), format!("v1a,AAAA v1,AAAA {SIGNED}"), format!("v2,{SIGNED} {SIGNED} v1,")] {
            assert_eq!(check(&headers(&signatures), BODY, 1_614_265_330), Ok(()), "{signatures}");
        }
    }

    #[test]
    fn refuses_what_is_old_new_changed_or_unsigned() {
        let good = headers(SIGNED);
        assert_eq!(check(&good, BODY, 1_614_265_630), Ok(()));
        assert_eq!(check(&good, BODY, 1_614_265_631), Err(VerifyError::Time(Duration::from_secs(301))));
        assert_eq!(check(&good, BODY, 1_614_265_029), Err(VerifyError::Time(Duration::from_secs(301))));
        assert_eq!(check(&good, br#"{"test": 2432232315}"#, 1_614_265_330), Err(VerifyError::Signature));
        for signature in ["", "v1,", "v1", "v2,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ"]
        {
            assert_eq!(check(&headers(signature), BODY, 1_614_265_330), Err(VerifyError::Signature), "{signature}");
        }
        for name in [ID, TIMESTAMP, SIGNATURE] {
            let mut headers = good.clone();
            headers.remove(name);
            assert_eq!(check(&headers, BODY, 1_614_265_330), Err(VerifyError::Missing(name)));
        }
        let mut headers = good;
        headers.insert(TIMESTAMP, "soon".parse().unwrap());
        assert_eq!(check(&headers, BODY, 1_614_265_330), Err(VerifyError::Timestamp));
    }
}
