//! Checking webhooks as their receivers do, wherever the signature stands.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::body::compact;
use super::signature::{SIGNATURE, SigningKey, VerifyError, verify};
use crate::domain::time::Timestamp;

/// What a receiver holds to check webhooks with.
#[derive(Clone)]
pub enum Verifier {
    /// The decoded bytes behind `whsec_`: for signatures in headers, and for those inside the body by HMAC.
    Secret(Vec<u8>),
    /// The public half of a company's RSA key: for signatures inside the body.
    PublicKey(PublicKey),
}

impl fmt::Debug for Verifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Secret(_) => "Secret(***)",
            Self::PublicKey(_) => "PublicKey",
        })
    }
}

/// A public RSA key (`SubjectPublicKeyInfo`).
#[derive(Clone)]
pub struct PublicKey(Vec<u8>);

/// A text that is not a public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a public key is PEM that begins with -----BEGIN PUBLIC KEY-----, as GET /api/v1/webhooks/public-key answers it")]
pub struct ParsePublicKeyError;

impl PublicKey {
    /// Reads a key from PEM.
    ///
    /// # Errors
    /// When the text is not one.
    pub fn from_pem(text: &str) -> Result<Self, ParsePublicKeyError> {
        let text = text.trim().strip_prefix("-----BEGIN PUBLIC KEY-----").ok_or(ParsePublicKeyError)?;
        let text = text.strip_suffix("-----END PUBLIC KEY-----").ok_or(ParsePublicKeyError)?;
        let text: String = text.split_ascii_whitespace().collect();
        STANDARD.decode(text).map(Self).map_err(|_| ParsePublicKeyError)
    }
}

/// A message that bears its signature inside.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Signed<'a> {
    #[serde(borrow)]
    payload: &'a RawValue,
    #[serde(borrow)]
    payload_as_string: Cow<'a, str>,
    #[serde(borrow)]
    signature: Cow<'a, str>,
}

impl<'a> Signed<'a> {
    fn of(body: &'a [u8]) -> Result<Self, VerifyError> {
        serde_json::from_slice(body).map_err(|_| VerifyError::Unsigned)
    }

    fn check(&self, is_right: impl FnOnce(&[u8], &[u8]) -> bool) -> Result<(), VerifyError> {
        let signature = STANDARD.decode(self.signature.as_bytes()).map_err(|_| VerifyError::Signature)?;
        if !is_right(self.payload_as_string.as_bytes(), &signature) {
            return Err(VerifyError::Signature);
        }
        // The signature is over the text alone; whoever reads the other member must know that it says the same.
        if compact(self.payload.get()) == compact(&self.payload_as_string) { Ok(()) } else { Err(VerifyError::Payload) }
    }
}

impl Verifier {
    /// Checks a webhook; the tolerance is for the time that its headers tell, if they bear a signature.
    ///
    /// # Errors
    /// Says what is missing or does not match.
    pub fn check(&self, headers: &HeaderMap, body: &[u8], now: Timestamp, tolerance: Duration) -> Result<(), VerifyError> {
        match self {
            Self::Secret(secret) if headers.contains_key(SIGNATURE) => verify(secret, headers, body, now, tolerance),
            Self::Secret(secret) => Signed::of(body)?.check(|text, signature| SigningKey::new(secret).verifies(text, signature)),
            Self::PublicKey(PublicKey(key)) => Signed::of(body)?
                .check(|text, signature| UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key).verify(text, signature).is_ok()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::webhook::RsaKey;

    fn check(verifier: &Verifier, body: &str) -> Result<(), VerifyError> {
        verifier.check(&HeaderMap::new(), body.as_bytes(), Timestamp::default(), Duration::ZERO)
    }

    fn body(payload: &str, text: &str, signature: &str) -> String {
        format!(r#"{{"payload":{payload},"payloadAsString":{},"signature":"{signature}"}}"#, serde_json::to_string(text).unwrap())
    }

    #[test]
    fn a_signature_inside_the_body_is_over_the_text_and_the_payload_must_say_the_same() {
        let text = r#"{"a":"x\"y"}"#;
        let signature = SigningKey::new(b"secret").sign_text(text.as_bytes());
        let verifier = Verifier::Secret(b"secret".to_vec());
        assert_eq!(check(&verifier, &body(text, text, &signature)), Ok(()));
        assert_eq!(check(&verifier, &body(r#"{ "a" : "x\"y" }"#, text, &signature)), Ok(()));
        assert_eq!(check(&verifier, &body(r#"{"a":"z"}"#, text, &signature)), Err(VerifyError::Payload));
        assert_eq!(check(&verifier, &body(text, r#"{"a":"z"}"#, &signature)), Err(VerifyError::Signature));
        assert_eq!(check(&verifier, &body(text, text, "?")), Err(VerifyError::Signature));
        assert_eq!(check(&Verifier::Secret(b"other".to_vec()), &body(text, text, &signature)), Err(VerifyError::Signature));
        assert_eq!(check(&verifier, r#"{"type":"a"}"#), Err(VerifyError::Unsigned));
    }

    #[tokio::test]
    async fn a_public_key_checks_what_its_company_has_signed() {
        let key = Arc::new(RsaKey::generate().unwrap());
        let verifier = Verifier::PublicKey(PublicKey::from_pem(&key.public_pem().unwrap()).unwrap());
        let signature = key.sign(b"{}").await.unwrap();
        assert_eq!(check(&verifier, &body("{}", "{}", &signature)), Ok(()));
        assert_eq!(check(&verifier, &body("[]", "[]", &signature)), Err(VerifyError::Signature));
        assert!(PublicKey::from_pem("-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----").is_err());
    }
}
