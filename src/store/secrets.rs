//! Secrets at rest: sealed under the master key with AES-256-GCM-SIV (RFC 8452).

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

/// The key under which all secrets of a store lie; 32 bytes.
#[derive(Clone)]
pub struct MasterKey(Zeroizing<[u8; 32]>);

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("MasterKey(***)")
    }
}

/// Why a secret cannot be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The operating system gives no random bytes.
    #[error("the operating system gives no random bytes")]
    Random,
    /// The bytes were sealed under another master key, for another name, or were changed.
    #[error("the secret cannot be opened: the master key is not the one of this store, or the value was changed")]
    Sealed,
}

/// Bytes nobody can guess.
///
/// # Errors
/// When the operating system gives none.
pub fn random<const N: usize>() -> Result<[u8; N], SecretError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| SecretError::Random)?;
    Ok(bytes)
}

impl MasterKey {
    /// The key with these bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    fn cipher(&self) -> Result<LessSafeKey, SecretError> {
        UnboundKey::new(&AES_256_GCM_SIV, self.0.as_slice()).map(LessSafeKey::new).map_err(|_| SecretError::Sealed)
    }

    /// Nonce and ciphertext; bound to `name`, so that a value cannot be moved to another row.
    pub(super) fn seal(&self, name: &str, secret: &[u8]) -> Result<Vec<u8>, SecretError> {
        let nonce: [u8; NONCE_LEN] = random()?;
        let mut sealed = secret.to_vec();
        self.cipher()?
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(name.as_bytes()), &mut sealed)
            .map_err(|_| SecretError::Sealed)?;
        sealed.splice(0..0, nonce);
        Ok(sealed)
    }

    /// The secret that was sealed for `name`.
    pub(super) fn open(&self, name: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let (nonce, ciphertext) = sealed.split_at_checked(NONCE_LEN).ok_or(SecretError::Sealed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SecretError::Sealed)?;
        let mut opened = Zeroizing::new(ciphertext.to_vec());
        let length = self.cipher()?.open_in_place(nonce, Aad::from(name.as_bytes()), &mut opened).map_err(|_| SecretError::Sealed)?.len();
        opened.truncate(length);
        Ok(opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_only_under_its_key_and_its_name() {
        let key = MasterKey::new([7; 32]);
        let sealed = key.seal("pepper", b"secret").unwrap();
        assert_eq!(key.open("pepper", &sealed).unwrap().as_slice(), b"secret");
        assert_eq!(key.open("cursor", &sealed).unwrap_err(), SecretError::Sealed);
        assert_eq!(MasterKey::new([8; 32]).open("pepper", &sealed).unwrap_err(), SecretError::Sealed);
        for place in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            assert!(key.open("pepper", &changed).is_err());
        }
        assert!(key.open("pepper", &[]).is_err());
        assert_ne!(key.seal("pepper", b"secret").unwrap(), sealed);
    }
}
