//! Numbers of notifications: one event sent to one subscription in one run, as a UUID that only its store can read.
//!
//! The UUID is of version 8 (RFC 9562, 5.8), whose 122 free bits hold event, subscription, run and a check value, enciphered
//! by a Feistel network over two halves of 61 bits with HMAC-SHA-256 as round function. So it is the same over all
//! attempts, is read back without a table, tells a stranger nothing, and cannot be guessed.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::company::CompanyId;
use super::event::EventId;
use super::subscription::SubscriptionId;

/// What a notification id stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Notification {
    /// What is told of.
    pub event: EventId,
    /// Whom it is told to.
    pub subscription: SubscriptionId,
    /// 0 the delivery itself, n the replay with number n.
    pub run: u32,
}

/// The key under which the notification ids of one company are made and read.
///
/// Each company has its own: under another company's key an id is no id.
#[derive(Clone)]
pub struct NotificationKey(Hmac<Sha256>);

impl std::fmt::Debug for NotificationKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("NotificationKey(***)")
    }
}

const EVENT_BITS: u32 = 53;
const SUBSCRIPTION_BITS: u32 = 32;
const RUN_BITS: u32 = 24;
/// The rest is the check value, which is zero before enciphering.
const CHECK_BITS: u32 = 122 - EVENT_BITS - SUBSCRIPTION_BITS - RUN_BITS;

const HALF_BITS: u32 = 61;
/// As many as FF1 has (NIST SP 800-38G); four would do against who sees 2^30 ids (Luby, Rackoff 1988).
const ROUNDS: u8 = 10;

const VERSION: u128 = 8 << 76;
const VARIANT: u128 = 0b10 << 62;

/// Bytes of a UUID as text.
const TEXT_BYTES: usize = 36;

const fn low(bits: u32) -> u128 {
    (1 << bits) - 1
}

impl NotificationKey {
    /// The key of a company, derived from a secret of its store.
    #[must_use]
    pub fn derive(store_secret: &[u8; 32], company: CompanyId) -> Self {
        let derived = keyed(store_secret).chain_update(b"notification key\0").chain_update(company.0.to_be_bytes()).finalize();
        Self(keyed(&derived.into_bytes()))
    }

    fn round(&self, number: u8, half: u128) -> u128 {
        let mac = self.0.clone().chain_update([number]).chain_update(half.to_be_bytes()).finalize().into_bytes();
        mac.first_chunk().map_or(0, |first| u128::from(u64::from_be_bytes(*first))) & low(HALF_BITS)
    }

    fn encipher(&self, plain: u128) -> u128 {
        let (mut left, mut right) = (plain >> HALF_BITS, plain & low(HALF_BITS));
        for number in 0..ROUNDS {
            (left, right) = (right, left ^ self.round(number, right));
        }
        left << HALF_BITS | right
    }

    fn decipher(&self, enciphered: u128) -> u128 {
        let (mut left, mut right) = (enciphered >> HALF_BITS, enciphered & low(HALF_BITS));
        for number in (0..ROUNDS).rev() {
            (left, right) = (right ^ self.round(number, left), left);
        }
        left << HALF_BITS | right
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
    Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length")
}

/// The notification id: a UUID in lower case.
///
/// The event is one below 2^53, as all are; runs are told apart up to 2^24.
#[must_use]
pub fn encode(key: &NotificationKey, event: EventId, subscription: SubscriptionId, run: u32) -> String {
    let event = u128::from(event.0) & low(EVENT_BITS);
    let run = u128::from(run) & low(RUN_BITS);
    let plain = (event << SUBSCRIPTION_BITS | u128::from(subscription.0)) << RUN_BITS | run;
    uuid(key.encipher(plain << CHECK_BITS))
}

/// The UUID of version 8 with these 122 bits, in lower case.
fn uuid(bits: u128) -> String {
    let hex = format!("{:032x}", (bits >> 74) << 80 | VERSION | (bits >> 62 & low(12)) << 64 | VARIANT | bits & low(62));
    let mut text = String::with_capacity(TEXT_BYTES);
    for (place, digit) in hex.char_indices() {
        if matches!(place, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    text
}

/// The id of an event as a message, the same for all subscriptions and runs: a UUID of version 8 that nobody reads back, and
/// so is made of a single HMAC-SHA-256.
#[must_use]
pub fn message_id(key: &NotificationKey, event: EventId) -> String {
    let mac = key.0.clone().chain_update(b"message\0").chain_update(event.0.to_be_bytes()).finalize().into_bytes();
    uuid(mac.first_chunk().map_or(0, |first| u128::from_be_bytes(*first)) >> 6)
}

/// What a notification id stands for; none when the text is none that [`encode`] made under this key. Hexadecimal digits
/// may be in either case.
#[must_use]
pub fn decode(key: &NotificationKey, text: &str) -> Option<Notification> {
    let mut number: u128 = 0;
    for (place, byte) in text.bytes().enumerate() {
        match (place, char::from(byte).to_digit(16)) {
            (8 | 13 | 18 | 23, None) if byte == b'-' => {}
            (8 | 13 | 18 | 23, _) | (_, None) => return None,
            (_, Some(digit)) => number = number << 4 | u128::from(digit),
        }
    }
    if text.len() != TEXT_BYTES || number & 0xf << 76 != VERSION || number & 0b11 << 62 != VARIANT {
        return None;
    }
    let plain = key.decipher((number >> 80) << 74 | (number >> 64 & low(12)) << 62 | number & low(62));
    if plain & low(CHECK_BITS) != 0 {
        return None;
    }
    let field = |shift: u32, bits: u32| plain >> (CHECK_BITS + shift) & low(bits);
    Some(Notification {
        event: EventId(u64::try_from(field(RUN_BITS + SUBSCRIPTION_BITS, EVENT_BITS)).ok()?),
        subscription: SubscriptionId(u32::try_from(field(RUN_BITS, SUBSCRIPTION_BITS)).ok()?),
        run: u32::try_from(field(0, RUN_BITS)).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn key(company: u32) -> NotificationKey {
        NotificationKey::derive(&[7; 32], CompanyId(company))
    }

    #[test]
    fn an_id_never_changes_its_form() {
        // Receivers keep these: another text here means that links of yesterday lead nowhere.
        let id = encode(&key(1), EventId(1042), SubscriptionId(12), 0);
        assert_eq!(id, "7bdae3f7-8d24-8759-b31f-88f45010192f");
    }

    #[test]
    fn the_id_of_a_message_is_its_events_alone() {
        let id = message_id(&key(1), EventId(1042));
        assert_eq!(id, message_id(&key(1), EventId(1042)));
        assert_ne!(id, message_id(&key(2), EventId(1042)));
        assert_ne!(id, message_id(&key(1), EventId(1043)));
        assert_ne!(id, encode(&key(1), EventId(1042), SubscriptionId(1), 0));
    }

    #[test]
    fn the_runs_of_a_delivery_have_ids_of_their_own() {
        let ids: HashSet<String> = (0..100).map(|run| encode(&key(1), EventId(5), SubscriptionId(1), run)).collect();
        assert_eq!(ids.len(), 100);
    }

    #[test]
    fn texts_that_are_not_such_an_id_are_refused() {
        let good = encode(&key(1), EventId(5), SubscriptionId(1), 0);
        assert!(decode(&key(1), &good.to_uppercase()).is_some());
        let wrong = [
            String::new(),
            format!("{good}0"),
            good.replace('-', ""),
            good.replacen('-', "0", 1),
            good.replace("-8", "-4"),
            format!("{{{good}}}"),
            good.chars().rev().collect(),
            "00000000-0000-8000-8000-000000000000".to_owned(),
            "ß".repeat(18),
        ];
        for text in wrong {
            assert_eq!(decode(&key(1), &text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_id_is_read_back(event in 0_u64..1 << 53, subscription: u32, run in 0_u32..1 << 24, company: u32) {
            let text = encode(&key(company), EventId(event), SubscriptionId(subscription), run);
            let found = decode(&key(company), &text);
            prop_assert_eq!(found, Some(Notification { event: EventId(event), subscription: SubscriptionId(subscription), run }));
            let parts: Vec<usize> = text.split('-').map(str::len).collect();
            prop_assert_eq!(parts, [8, 4, 4, 4, 12]);
            prop_assert_eq!(text.as_bytes()[14], b'8');
            prop_assert!(matches!(text.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
        }

        #[test]
        fn a_changed_digit_or_another_company_makes_another_id(event in 1_u64..1 << 20, place in 0_usize..36, digit in 0_u32..16) {
            let id = encode(&key(1), EventId(event), SubscriptionId(1), 0);
            let mut changed: Vec<char> = id.chars().collect();
            changed[place] = char::from_digit(digit, 16).unwrap();
            let changed: String = changed.into_iter().collect();
            // What a stray text stands for by chance is an event that no log of this age has.
            let is_real = |found: Option<Notification>| found.is_some_and(|found| found.event.0 < 1 << 20);
            prop_assert!(changed == id || !is_real(decode(&key(1), &changed)));
            prop_assert!(!is_real(decode(&key(2), &id)));
        }
    }
}
