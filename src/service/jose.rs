//! JSON Web Tokens and public keys: what is read of them before anything in them is believed, and their verification.
//!
//! The algorithm is chosen by the key, never by the token alone: a token names one of four, and only keys of that
//! algorithm's family are asked. Nothing is ever fetched from where a token points to, and no key is taken out of one.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Validation};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate};
use x509_parser::public_key::PublicKey;

use crate::domain::time::Timestamp;

/// Bytes of a JWT at most.
pub const JWT_BYTES_MAX: usize = 16_384;
/// Bytes of a public key's text at most.
pub const KEY_TEXT_BYTES_MAX: usize = 16_384;
/// Bits of an RSA modulus: fewer are too weak, more cost too much to verify.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The algorithms that are accepted, as they are written on the wire (RFC 7518, 3.1; RFC 8037, 3.1).
pub const ALGORITHMS: [&str; 4] = ["RS256", "PS256", "ES256", "EdDSA"];

/// Why a token is not verified.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// Longer than [`JWT_BYTES_MAX`].
    #[error("the JWT has more than {JWT_BYTES_MAX} bytes")]
    Length,
    /// Not three parts of base64url, or not JSON in them, or a claim of the wrong type.
    #[error("the JWT cannot be read: it must be three parts of base64url, with a header and claims of the right types")]
    Malformed,
    /// None of [`ALGORITHMS`].
    #[error("the algorithm of the JWT must be RS256, PS256, ES256 or EdDSA")]
    Algorithm,
    /// A header that must be understood and is not (RFC 7515, 4.1.11).
    #[error("the JWT has critical headers, and none is known here")]
    Critical,
    /// No key of the algorithm's family.
    #[error("there is no key for the algorithm of the JWT")]
    NoKey,
    /// No key verifies it.
    #[error("the signature of the JWT is not by a key that is known here")]
    Signature,
}

/// The header of a token, not verified.
#[derive(Debug, Deserialize)]
pub struct Head {
    /// One of [`ALGORITHMS`], it is to be hoped.
    alg: String,
    /// What kind of token it says it is.
    pub typ: Option<String>,
    /// The name of its key.
    pub kid: Option<String>,
    /// SHA-1 of its certificate.
    pub x5t: Option<String>,
    /// SHA-256 of its certificate.
    #[serde(rename = "x5t#S256")]
    pub x5t_s256: Option<String>,
    crit: Option<IgnoredAny>,
}

impl Head {
    /// Whether the token names this algorithm.
    #[must_use]
    pub fn is_alg(&self, name: &str) -> bool {
        self.alg == name
    }
}

/// A token that was taken apart, not verified.
#[derive(Debug)]
pub struct Unverified<'a> {
    text: &'a str,
    /// Its header.
    pub head: Head,
    algorithm: Algorithm,
}

impl<'a> Unverified<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// See [`JwtError`].
    pub fn read(text: &'a str) -> Result<Self, JwtError> {
        if text.len() > JWT_BYTES_MAX {
            return Err(JwtError::Length);
        }
        let mut parts = text.split('.');
        let (Some(head), Some(_), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(JwtError::Malformed);
        };
        let head = URL_SAFE_NO_PAD.decode(head).map_err(|_| JwtError::Malformed)?;
        let head: Head = serde_json::from_slice(&head).map_err(|_| JwtError::Malformed)?;
        if head.crit.is_some() {
            return Err(JwtError::Critical);
        }
        let algorithm = match head.alg.as_str() {
            "RS256" => Algorithm::RS256,
            "PS256" => Algorithm::PS256,
            "ES256" => Algorithm::ES256,
            "EdDSA" => Algorithm::EdDSA,
            _ => return Err(JwtError::Algorithm),
        };
        Ok(Self { text, head, algorithm })
    }

    /// The claims, believed by nobody yet.
    ///
    /// # Errors
    /// `Malformed` when they are not what `T` is.
    pub fn claims<T: DeserializeOwned>(&self) -> Result<T, JwtError> {
        let claims = self.text.split('.').nth(1).unwrap_or_default();
        let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| JwtError::Malformed)?;
        serde_json::from_slice(&claims).map_err(|_| JwtError::Malformed)
    }

    /// Whether the header says `typ`, compared as a media type without its `application/` (RFC 7515, 4.1.9).
    #[must_use]
    pub fn is_of_type(&self, allowed: &[&str]) -> bool {
        match &self.head.typ {
            None => false,
            Some(given) => {
                let given = given.to_ascii_lowercase();
                let given = given.strip_prefix("application/").unwrap_or(&given);
                allowed.contains(&given)
            }
        }
    }

    /// The claims, when one of the keys verifies the token.
    ///
    /// # Errors
    /// `NoKey`, `Signature`, or `Malformed` when the claims are not what `T` is.
    pub fn verify<'k, T: DeserializeOwned>(&self, keys: impl IntoIterator<Item = &'k VerifyingKey>) -> Result<T, JwtError> {
        let mut validation = Validation::new(self.algorithm);
        // Times and audiences are judged by those who know the clock and the rules of the token.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        let mut refusal = JwtError::NoKey;
        for key in keys.into_iter().filter(|key| key.serves(self.algorithm)) {
            // The claims are read apart from the signature, so that a wrong claim is not told as a wrong signature.
            match jsonwebtoken::decode::<IgnoredAny>(self.text, &key.0, &validation) {
                Ok(_) => return self.claims(),
                Err(error) if matches!(error.kind(), ErrorKind::Json(_)) => return Err(JwtError::Malformed),
                Err(_) => refusal = JwtError::Signature,
            }
        }
        Err(refusal)
    }
}

/// A public key that verifies tokens.
#[derive(Debug, Clone)]
pub struct VerifyingKey(DecodingKey);

impl VerifyingKey {
    /// The key in a DER `SubjectPublicKeyInfo`; none when it is of no family that is accepted.
    #[must_use]
    pub fn from_spki(spki: &[u8]) -> Option<Self> {
        let is_a = |algorithm: &'static dyn VerificationAlgorithm| ParsedPublicKey::new(algorithm, spki).is_ok();
        if is_a(&RSA_PKCS1_2048_8192_SHA256) {
            let bits = match SubjectPublicKeyInfo::from_der(spki).ok()?.1.parsed().ok()? {
                PublicKey::RSA(key) => key.modulus.iter().skip_while(|byte| **byte == 0).count() * 8,
                _ => 0,
            };
            RSA_BITS.contains(&bits).then(|| Self(DecodingKey::from_rsa_der(spki)))
        } else if is_a(&ECDSA_P256_SHA256_FIXED) {
            Some(Self(DecodingKey::from_ec_der(spki)))
        } else if is_a(&ED25519) {
            Some(Self(DecodingKey::from_ed_der(spki)))
        } else {
            None
        }
    }

    /// A raw Ed25519 public key.
    #[must_use]
    pub fn from_ed25519(key: &[u8]) -> Self {
        Self(DecodingKey::from_ed_der(key))
    }

    /// A key of a JWK Set (RFC 7517); none when it is not for verifying, or of no family that is accepted.
    #[must_use]
    pub fn from_jwk(jwk: &jsonwebtoken::jwk::Jwk) -> Option<Self> {
        use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, PublicKeyUse};
        if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        let is_known = match &jwk.algorithm {
            AlgorithmParameters::RSA(key) => {
                RSA_BITS.contains(&(URL_SAFE_NO_PAD.decode(&key.n).ok()?.iter().skip_while(|byte| **byte == 0).count() * 8))
            }
            AlgorithmParameters::EllipticCurve(key) => key.curve == EllipticCurve::P256,
            AlgorithmParameters::OctetKeyPair(key) => key.curve == EllipticCurve::Ed25519,
            _ => false,
        };
        if is_known { DecodingKey::from_jwk(jwk).ok().map(Self) } else { None }
    }

    fn serves(&self, algorithm: Algorithm) -> bool {
        let family = match algorithm {
            Algorithm::RS256 | Algorithm::PS256 => AlgorithmFamily::Rsa,
            Algorithm::ES256 => AlgorithmFamily::Ec,
            Algorithm::EdDSA => AlgorithmFamily::Ed,
            _ => return false,
        };
        self.0.family() == family
    }

    /// The name of the family for people: `RSA`, `P-256` or `Ed25519`.
    #[must_use]
    pub fn family_name(&self) -> &'static str {
        match self.0.family() {
            AlgorithmFamily::Rsa => "RSA",
            AlgorithmFamily::Ec => "P-256",
            AlgorithmFamily::Ed => "Ed25519",
            AlgorithmFamily::Hmac => "none",
        }
    }
}

/// The claim `aud`: one audience, or several.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    /// A string.
    One(String),
    /// An array of strings.
    Several(Vec<String>),
}

impl Audience {
    /// All audiences that are named.
    #[must_use]
    pub fn all(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Several(several) => several,
        }
    }
}

/// A time of a claim: seconds since 1970, fractions allowed (RFC 7519, 2).
///
/// # Errors
/// `Malformed` before 1970 and after the year 9999.
pub fn time_of_claim(seconds: f64) -> Result<Timestamp, JwtError> {
    if !(0.0..253_402_300_800.0).contains(&seconds) {
        return Err(JwtError::Malformed);
    }
    // Within the bounds above the number of microseconds is below 2^58.
    Ok(Timestamp::from_micros((seconds * 1e6) as u64))
}

/// Base64url without padding.
#[must_use]
pub fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Why a text is not the public key of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyTextError {
    /// Longer than [`KEY_TEXT_BYTES_MAX`].
    #[error("the key has more than {KEY_TEXT_BYTES_MAX} bytes")]
    Length,
    /// The half that nobody else may see.
    #[error("this is a private key, which nobody else may see; give its public key, and use another pair from now on")]
    Private,
    /// Neither PEM nor base64.
    #[error("the key is neither PEM nor the base64 of DER")]
    Encoding,
    /// More than one block of PEM.
    #[error("the PEM text holds more than one key or certificate; give one at a time")]
    Several,
    /// Neither a certificate nor a public key.
    #[error("this is neither an X.509 certificate nor a public key (`SubjectPublicKeyInfo`)")]
    Content,
    /// A kind of key that is not accepted.
    #[error("the key must be RSA of 2048 to 8192 bits, ECDSA on P-256, or Ed25519")]
    Family,
}

/// A public key as somebody handed it in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyText {
    /// Base64url of the SHA-256 over the key.
    pub id: String,
    /// The key as a DER `SubjectPublicKeyInfo`.
    pub spki: Vec<u8>,
    /// SHA-1 and SHA-256 over the certificate it came in, and the end of that.
    pub certificate: Option<CertificateFacts>,
}

/// What is kept of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Base64url of the SHA-1 over it.
    pub x5t: String,
    /// Base64url of the SHA-256 over it.
    pub x5t_s256: String,
    /// When it ends.
    pub not_after: Timestamp,
}

impl KeyText {
    /// Reads a public key out of PEM (`PUBLIC KEY` or `CERTIFICATE`), or out of the base64 of the same in DER.
    ///
    /// # Errors
    /// See [`KeyTextError`].
    pub fn read(text: &str) -> Result<Self, KeyTextError> {
        const BEGIN: &str = "-----BEGIN ";
        if text.len() > KEY_TEXT_BYTES_MAX {
            return Err(KeyTextError::Length);
        }
        let der = match text.matches(BEGIN).count() {
            0 => {
                let packed: String = text.split_whitespace().collect();
                STANDARD.decode(packed).map_err(|_| KeyTextError::Encoding)?
            }
            1 => {
                let pem = x509_parser::pem::parse_x509_pem(text.as_bytes()).map_err(|_| KeyTextError::Encoding)?.1;
                match pem.label.as_str() {
                    label if label.contains("PRIVATE") => return Err(KeyTextError::Private),
                    "CERTIFICATE" | "PUBLIC KEY" => pem.contents,
                    _ => return Err(KeyTextError::Content),
                }
            }
            _ => return Err(KeyTextError::Several),
        };
        Self::read_der(&der)
    }

    fn read_der(der: &[u8]) -> Result<Self, KeyTextError> {
        let (spki, certificate) = match (X509Certificate::from_der(der), SubjectPublicKeyInfo::from_der(der)) {
            (Ok(([], certificate)), _) => {
                let facts = CertificateFacts {
                    // A name that the standard fixed long ago; nothing is secured by it.
                    x5t: base64url(digest(&SHA1_FOR_LEGACY_USE_ONLY, der).as_ref()),
                    x5t_s256: base64url(&Sha256::digest(der)),
                    not_after: time_of_certificate(certificate.validity().not_after.timestamp()),
                };
                (certificate.public_key().raw.to_vec(), Some(facts))
            }
            (_, Ok(([], spki))) => (spki.raw.to_vec(), None),
            _ => return Err(KeyTextError::Content),
        };
        if VerifyingKey::from_spki(&spki).is_none() {
            return Err(KeyTextError::Family);
        }
        Ok(Self { id: base64url(&Sha256::digest(&spki)), spki, certificate })
    }
}

fn time_of_certificate(seconds: i64) -> Timestamp {
    Timestamp::from_micros(u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000_000))
}

#[cfg(test)]
mod tests;
