//! The text of an API key: `evk_<env>_<keyid>_<secret><check>`.
//!
//! The check lets scanners recognise a leaked key and lets typing errors be refused without a look-up.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::config::Environment;
use crate::domain::key::KeyId;

/// What every key starts with.
pub const PREFIX: &str = "evk_";
const SECRET_LENGTH: usize = 43;
const CHECK_LENGTH: usize = 6;
/// Characters of a key: prefix, environment, key id, secret and check with two underscores between.
pub const LENGTH: usize = 4 + 3 + 1 + KeyId::LENGTH + 1 + SECRET_LENGTH + CHECK_LENGTH;

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A text that is not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an API key of the form evk_<env>_<id>_<secret>")]
pub struct ParseKeyTextError;

/// A key as presented, well-formed; the secret has not been compared with anything.
#[derive(Clone, Copy)]
pub struct Presented<'a> {
    /// Which key it claims to be.
    pub id: KeyId,
    secret: &'a str,
}

impl Presented<'_> {
    /// The HMAC of the secret under the store's pepper, which is what the store keeps.
    #[must_use]
    pub fn secret_hash(&self, pepper: &[u8; 32]) -> [u8; 32] {
        hash(pepper, self.secret)
    }
}

/// HMAC-SHA-256 of a secret under the pepper.
pub(super) fn hash(pepper: &[u8; 32], secret: &str) -> [u8; 32] {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
    let keyed = Hmac::<Sha256>::new_from_slice(pepper).expect("HMAC takes keys of every length");
    keyed.chain_update(secret.as_bytes()).finalize().into_bytes().into()
}

/// Takes a key apart.
///
/// # Errors
/// When it does not have the form of a key, or its check does not fit.
pub fn parse(text: &str) -> Result<Presented<'_>, ParseKeyTextError> {
    let (body, check) = text.split_at_checked(LENGTH - CHECK_LENGTH).ok_or(ParseKeyTextError)?;
    let mut parts = body.strip_prefix(PREFIX).ok_or(ParseKeyTextError)?.split('_');
    let (environment, id, secret) = (parts.next(), parts.next(), parts.next());
    let (Some("dev" | "stg" | "prd"), Some(id), Some(secret), None) = (environment, id, secret, parts.next()) else {
        return Err(ParseKeyTextError);
    };
    let id = id.parse().map_err(|_| ParseKeyTextError)?;
    let is_secret = secret.len() == SECRET_LENGTH && secret.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_secret && check.as_bytes() == check_of(body) { Ok(Presented { id, secret }) } else { Err(ParseKeyTextError) }
}

/// A key just made; the text leaves the process once.
pub struct FreshKey {
    /// Its public part.
    pub id: KeyId,
    /// The whole key.
    pub text: Zeroizing<String>,
    /// What the store keeps of the secret.
    pub secret_hash: [u8; 32],
}

/// Makes a key from `chance`: 32 bytes for the secret, 32 for the id.
#[must_use]
pub fn make(environment: Environment, chance: &Zeroizing<[u8; 64]>, pepper: &[u8; 32]) -> Option<FreshKey> {
    let (secret, id) = chance.split_first_chunk::<32>()?;
    // Bytes of 248 and more would make some digits likelier than others.
    let id = id.iter().filter(|byte| **byte < 248).take(KeyId::LENGTH).map(|byte| digit(u32::from(byte % 62)));
    let id: KeyId = String::from_utf8(id.collect()).ok()?.parse().ok()?;
    let secret = Zeroizing::new(base62(secret));
    let environment = match environment {
        Environment::Development => "dev",
        Environment::Staging => "stg",
        Environment::Production => "prd",
    };
    let mut text = Zeroizing::new(String::with_capacity(LENGTH));
    for part in [PREFIX, environment, "_", id.as_str(), "_", secret.as_str()] {
        text.push_str(part);
    }
    let check = check_of(&text);
    text.push_str(std::str::from_utf8(&check).ok()?);
    Some(FreshKey { id, text, secret_hash: hash(pepper, &secret) })
}

fn digit(value: u32) -> u8 {
    usize::try_from(value).ok().and_then(|place| DIGITS.get(place)).copied().unwrap_or(b'0')
}

/// A 256-bit number in 43 digits, the highest first.
pub(super) fn base62(number: &[u8; 32]) -> String {
    let mut number = Zeroizing::new(*number);
    let mut digits = [b'0'; SECRET_LENGTH];
    for place in digits.iter_mut().rev() {
        let mut remainder = 0_u32;
        for byte in number.iter_mut() {
            let value = remainder << 8 | u32::from(*byte);
            *byte = u8::try_from(value / 62).unwrap_or(u8::MAX);
            remainder = value % 62;
        }
        *place = digit(remainder);
    }
    digits.iter().map(|byte| char::from(*byte)).collect()
}

/// The check of a text: its CRC-32 in 6 digits.
pub(super) fn check_of(body: &str) -> [u8; CHECK_LENGTH] {
    let mut value = crc32(body.as_bytes());
    let mut digits = [b'0'; CHECK_LENGTH];
    for place in digits.iter_mut().rev() {
        *place = digit(value % 62);
        value /= 62;
    }
    digits
}

/// CRC-32 as in IEEE 802.3 (reflected, polynomial `EDB88320`).
fn crc32(bytes: &[u8]) -> u32 {
    #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which would refuse a wrong index")]
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut value = byte as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 { value >> 1 ^ 0xEDB8_8320 } else { value >> 1 };
                bit += 1;
            }
            table[byte] = value;
            byte += 1;
        }
        table
    };
    let step = |sum: u32, byte: &u8| {
        let place = usize::from(sum.to_le_bytes()[0] ^ byte);
        TABLE.get(place).copied().unwrap_or(0) ^ sum >> 8
    };
    !bytes.iter().fold(u32::MAX, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh(byte: u8) -> FreshKey {
        make(Environment::Development, &Zeroizing::new([byte; 64]), &[1; 32]).unwrap()
    }

    #[test]
    fn crc_32_has_the_value_of_its_check_word() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(crc32(b""), 0);
    }

    #[test]
    fn a_secret_keeps_all_256_bits() {
        assert_eq!(base62(&[0; 32]), "0".repeat(43));
        let mut one = [0; 32];
        one[31] = 61;
        assert_eq!(base62(&one), "0".repeat(42) + "z");
        one[31] = 62;
        assert_eq!(base62(&one), "0".repeat(41) + "10");
        assert_eq!(base62(&[255; 32]).len(), 43);
        assert_ne!(base62(&[255; 32]), base62(&[254; 32]));
    }

    #[test]
    fn a_fresh_key_reads_back_and_has_the_same_hash() {
        let key = fresh(7);
        assert_eq!(key.text.len(), LENGTH);
        assert!(key.text.starts_with("evk_dev_"));
        let presented = parse(&key.text).unwrap();
        assert_eq!(presented.id, key.id);
        assert_eq!(presented.secret_hash(&[1; 32]), key.secret_hash);
        assert_ne!(presented.secret_hash(&[2; 32]), key.secret_hash);
    }

    #[test]
    fn every_changed_character_is_refused() {
        let key = fresh(9).text;
        for place in 0..key.len() {
            let mut changed: Vec<char> = key.chars().collect();
            changed[place] = if changed[place] == 'x' { 'y' } else { 'x' };
            let changed: String = changed.into_iter().collect();
            assert!(parse(&changed).is_err(), "{changed}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        let key = fresh(9).text;
        for text in ["", "evk_", "Bearer", key.get(..69).unwrap(), &(key.to_string() + "0"), &key.replace("dev", "tst"), &"å".repeat(35)] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn too_little_chance_makes_no_key() {
        assert!(make(Environment::Development, &Zeroizing::new([250; 64]), &[1; 32]).is_none());
    }
}
