//! Signatures of RSA (RFC 8017, 8.2: RSASSA-PKCS1-v1_5) with SHA-256, under a key of 2048 bits.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// Characters of a line of PEM (RFC 7468, 2).
const PEM_LINE: usize = 64;

/// An RSA key of 2048 bits.
pub struct RsaKey {
    pair: KeyPair,
    /// Signatures that are made at once: each takes a processor for about a millisecond.
    turns: Semaphore,
}

impl fmt::Debug for RsaKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("RsaKey(***)")
    }
}

/// A key that could not be made or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RsaKeyError {
    /// The library made none.
    #[error("no RSA key could be made")]
    Make,
    /// The stored bytes are no key.
    #[error("the stored RSA key cannot be read")]
    Read,
}

impl RsaKey {
    fn new(pair: KeyPair) -> Self {
        let turns = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { pair, turns: Semaphore::new(turns) }
    }

    /// Makes a key. Takes some tenths of a second of a processor.
    ///
    /// # Errors
    /// When the library makes none.
    pub fn generate() -> Result<Self, RsaKeyError> {
        KeyPair::generate(KeySize::Rsa2048).map(Self::new).map_err(|_| RsaKeyError::Make)
    }

    /// Reads a key back from [`RsaKey::to_pkcs8`].
    ///
    /// # Errors
    /// When the bytes are no key.
    pub fn from_pkcs8(bytes: &[u8]) -> Result<Self, RsaKeyError> {
        KeyPair::from_pkcs8(bytes).map(Self::new).map_err(|_| RsaKeyError::Read)
    }

    /// The private key (PKCS #8, RFC 5208), to be sealed.
    ///
    /// # Errors
    /// When the library does not give it away.
    pub fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, RsaKeyError> {
        let bytes: Pkcs8V1Der<'_> = self.pair.as_der().map_err(|_| RsaKeyError::Make)?;
        Ok(Zeroizing::new(bytes.as_ref().to_vec()))
    }

    /// The public key as PEM (`SubjectPublicKeyInfo`, RFC 7468, 13), with a line end behind its last line.
    ///
    /// # Errors
    /// When the library does not give it away.
    pub fn public_pem(&self) -> Result<String, RsaKeyError> {
        let bytes: PublicKeyX509Der<'_> = self.pair.public_key().as_der().map_err(|_| RsaKeyError::Make)?;
        let text = STANDARD.encode(bytes.as_ref());
        let mut pem = String::from("-----BEGIN PUBLIC KEY-----\n");
        for (place, letter) in text.chars().enumerate() {
            if place > 0 && place % PEM_LINE == 0 {
                pem.push('\n');
            }
            pem.push(letter);
        }
        pem.push_str("\n-----END PUBLIC KEY-----\n");
        Ok(pem)
    }

    fn sign_now(&self, text: &[u8]) -> Option<String> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text, &mut signature).ok()?;
        Some(STANDARD.encode(signature))
    }

    /// The signature of a text in base64, made on a thread for such work. None when the library refuses.
    pub(super) async fn sign(self: &Arc<Self>, text: &[u8]) -> Option<String> {
        // The semaphore is never closed.
        let _turn = self.turns.acquire().await.ok()?;
        let (key, text) = (Arc::clone(self), text.to_vec());
        tokio::task::spawn_blocking(move || key.sign_now(&text)).await.ok()?
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

    use super::*;

    #[tokio::test]
    async fn a_key_reads_back_and_its_public_half_verifies_what_it_has_signed() {
        let made = RsaKey::generate().unwrap();
        let key = Arc::new(RsaKey::from_pkcs8(&made.to_pkcs8().unwrap()).unwrap());
        let pem = key.public_pem().unwrap();
        assert_eq!(pem, made.public_pem().unwrap());
        let lines: Vec<&str> = pem.lines().collect();
        assert!(lines[1..lines.len() - 1].iter().all(|line| line.len() <= 64) && lines[1].len() == 64);
        let public = STANDARD.decode(lines[1..lines.len() - 1].concat()).unwrap();
        let signature = STANDARD.decode(key.sign(b"text").await.unwrap()).unwrap();
        let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public);
        assert!(public.verify(b"text", &signature).is_ok() && public.verify(b"texts", &signature).is_err());
        assert_eq!(RsaKey::from_pkcs8(b"no key").unwrap_err(), RsaKeyError::Read);
    }
}
