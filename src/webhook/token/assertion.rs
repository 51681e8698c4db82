//! The signed assertion that proves to a token service who asks (RFC 7523, 2.2; OpenID Connect Core 1.0, 9).

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use sha2::{Digest, Sha256};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::RSAPublicKey;

use crate::domain::time::Timestamp;

/// How long an assertion counts, in seconds: it is used at once.
const LIFETIME_SECONDS: u64 = 120;

/// A key that cannot sign assertions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No private key, or an encrypted one.
    #[error("the private key is no PEM of PKCS#8, PKCS#1 or SEC1 without a password")]
    Pem,
    /// Of another kind.
    #[error("the private key is none of RSA from 2048 bits, P-256 and Ed25519")]
    Kind,
    /// The library did not sign.
    #[error("the assertion could not be signed")]
    Signing,
}

enum Key {
    Rsa(Box<RsaKeyPair>),
    P256(Box<EcdsaKeyPair>),
    Ed25519(Box<Ed25519KeyPair>),
}

/// A private key that signs assertions.
pub(super) struct AssertionKey {
    key: Key,
    /// Algorithm and key id, encoded.
    header: String,
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Key {
    fn parse(pem: &str) -> Result<Self, KeyError> {
        let rsa = |pair: RsaKeyPair| Self::Rsa(Box::new(pair));
        let p256 = |pair: EcdsaKeyPair| Self::P256(Box::new(pair));
        match PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyError::Pem)? {
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()).map(rsa),
            PrivateKeyDer::Sec1(der) => {
                EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_sec1_der()).map(p256)
            }
            PrivateKeyDer::Pkcs8(der) => {
                let der = der.secret_pkcs8_der();
                Ed25519KeyPair::from_pkcs8_maybe_unchecked(der)
                    .map(|pair| Self::Ed25519(Box::new(pair)))
                    .or_else(|_| EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).map(p256))
                    .or_else(|_| RsaKeyPair::from_pkcs8(der).map(rsa))
            }
            _ => return Err(KeyError::Pem),
        }
        .map_err(|_| KeyError::Kind)
    }

    const fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS256",
            Self::P256(_) => "ES256",
            Self::Ed25519(_) => "EdDSA",
        }
    }

    /// The SHA-256 of the public key's required members in the order of their names (RFC 7638, 3; RFC 8037, 2).
    fn thumbprint(&self) -> Result<String, KeyError> {
        let members = match self {
            Self::Rsa(pair) => {
                let (_, public) = RSAPublicKey::from_der(pair.public_key().as_ref()).map_err(|_| KeyError::Kind)?;
                // DER sets a zero before a number whose first bit is one; JWK does not (RFC 7518, 6.3.1.1).
                let number = |bytes: &[u8]| encode(bytes.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<u8>>());
                format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, number(public.exponent), number(public.modulus))
            }
            Self::P256(pair) => {
                // A point in the open: 4, then 32 bytes each of x and y (SEC 1, 2.3.3).
                let point = pair.public_key().as_ref().split_first().map(|(_, point)| point).unwrap_or_default();
                let (x, y) = point.split_at_checked(32).ok_or(KeyError::Kind)?;
                format!(r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#, encode(x), encode(y))
            }
            Self::Ed25519(pair) => format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, encode(pair.public_key())),
        };
        Ok(encode(Sha256::digest(members)))
    }

    fn sign(&self, message: &[u8]) -> Result<String, KeyError> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).map_err(|_| KeyError::Signing)?;
                Ok(encode(signature))
            }
            Self::P256(pair) => Ok(encode(pair.sign(&random, message).map_err(|_| KeyError::Signing)?)),
            Self::Ed25519(pair) => Ok(encode(pair.sign(message))),
        }
    }
}

impl AssertionKey {
    /// Reads a private key; what it is decides the algorithm: RS256, ES256 or EdDSA (RFC 7518, 3.1; RFC 8037, 3.1).
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn parse(pem: &str) -> Result<Self, KeyError> {
        let key = Key::parse(pem)?;
        let header = json!({ "alg": key.algorithm(), "kid": key.thumbprint()?, "typ": "JWT" });
        Ok(Self { header: encode(header.to_string()), key })
    }

    /// An assertion of `client` for the token service at `audience`, made at `now` and good for two minutes.
    ///
    /// # Errors
    /// When there is no randomness, or the library does not sign.
    pub fn assert(&self, client: &str, audience: &str, now: Timestamp) -> Result<String, KeyError> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|_| KeyError::Signing)?;
        let issued = now.as_seconds();
        let claims = json!({
            "iss": client,
            "sub": client,
            "aud": audience,
            "jti": encode(id),
            "iat": issued,
            "exp": issued + LIFETIME_SECONDS,
        });
        let mut assertion = format!("{}.{}", self.header, encode(claims.to_string()));
        let signature = self.key.sign(assertion.as_bytes())?;
        assertion.push('.');
        assertion.push_str(&signature);
        Ok(assertion)
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer, EcPrivateKeyRfc5915Der, Pkcs8V1Der};
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING, ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
        VerificationAlgorithm,
    };
    use base64::engine::general_purpose::STANDARD;
    use serde_json::Value;

    use super::*;

    fn now() -> Timestamp {
        "2026-11-22T10:00:00Z".parse().unwrap()
    }

    fn pem(label: &str, der: &[u8]) -> String {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
    }

    fn ed25519(seed: &[u8]) -> String {
        let prefix = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        pem("PRIVATE KEY", &[&prefix, seed].concat())
    }

    fn rsa() -> RsaKeyPair {
        RsaKeyPair::generate(KeySize::Rsa2048).unwrap()
    }

    fn p256() -> EcdsaKeyPair {
        EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()
    }

    fn check(key: &AssertionKey, algorithm: &str, public: &[u8], verification: &'static dyn VerificationAlgorithm) {
        let assertion = key.assert("partner", "https://id.example/token", now()).unwrap();
        let (message, signature) = assertion.rsplit_once('.').unwrap();
        let (header, claims) = message.split_once('.').unwrap();
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
        UnparsedPublicKey::new(verification, public).verify(message.as_bytes(), &decode(signature)).unwrap();
        let header: Value = serde_json::from_slice(&decode(header)).unwrap();
        assert_eq!((header["alg"].as_str(), header["typ"].as_str()), (Some(algorithm), Some("JWT")));
        assert_eq!(header["kid"].as_str().unwrap().len(), 43);
        let claims: Value = serde_json::from_slice(&decode(claims)).unwrap();
        let (issued, expires) = (now().as_seconds(), now().as_seconds() + 120);
        let expected =
            json!({"iss":"partner","sub":"partner","aud":"https://id.example/token","iat":issued,"exp":expires,"jti":claims["jti"]});
        assert_eq!(claims, expected);
        assert_eq!(claims["jti"].as_str().unwrap().len(), 22);
    }

    #[test]
    fn each_kind_of_key_signs_with_its_algorithm_for_two_minutes() {
        let pair = rsa();
        let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
        let key = AssertionKey::parse(&pem("PRIVATE KEY", der.as_ref())).unwrap();
        check(&key, "RS256", pair.public_key().as_ref(), &RSA_PKCS1_2048_8192_SHA256);
        let pair = p256();
        let sec1 = AsDer::<EcPrivateKeyRfc5915Der<'_>>::as_der(&pair.private_key()).unwrap();
        for key in [pem("PRIVATE KEY", pair.to_pkcs8v1().unwrap().as_ref()), pem("EC PRIVATE KEY", sec1.as_ref())] {
            check(&AssertionKey::parse(&key).unwrap(), "ES256", pair.public_key().as_ref(), &ECDSA_P256_SHA256_FIXED);
        }
        let pair = Ed25519KeyPair::generate().unwrap();
        let key = AssertionKey::parse(&pem("PRIVATE KEY", pair.to_pkcs8v1().unwrap().as_ref())).unwrap();
        check(&key, "EdDSA", pair.public_key().as_ref(), &ED25519);
    }

    #[test]
    fn the_key_id_is_the_thumbprint() {
        // RFC 8037, A.1 and A.3.
        let seed = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
        let thumbprint = Key::parse(&ed25519(&seed)).unwrap().thumbprint().unwrap();
        assert_eq!(thumbprint, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        let members = |key: &Key| key.thumbprint().unwrap();
        let (rsa, p256) = (rsa(), p256());
        assert_ne!(members(&Key::Rsa(Box::new(rsa))), members(&Key::P256(Box::new(p256))));
    }

    #[test]
    fn no_assertion_is_made_twice() {
        let key = AssertionKey::parse(&ed25519(&[7; 32])).unwrap();
        let assert = || key.assert("a", "b", now()).unwrap();
        assert_ne!(assert(), assert());
    }

    #[test]
    fn other_keys_are_refused() {
        let parse = |pem: &str| AssertionKey::parse(pem).err();
        for text in ["", "secret", "-----BEGIN PRIVATE KEY-----\n", &pem("ENCRYPTED PRIVATE KEY", &[0; 64]), &pem("PUBLIC KEY", &[0; 64])] {
            assert_eq!(parse(text), Some(KeyError::Pem), "{text}");
        }
        let p384 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        assert_eq!(parse(&pem("PRIVATE KEY", p384.to_pkcs8v1().unwrap().as_ref())), Some(KeyError::Kind));
        assert_eq!(parse(&pem("RSA PRIVATE KEY", &[0; 64])), Some(KeyError::Kind));
        assert_eq!(parse(&pem("EC PRIVATE KEY", &[0; 64])), Some(KeyError::Kind));
    }
}
