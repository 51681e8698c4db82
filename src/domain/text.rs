//! JSON strings: escaping and its exact inverse.

use std::borrow::Cow;

/// How each byte is written inside a JSON string: 0 as it is, `u` as `\u00XX`, else behind a backslash.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which would refuse a wrong index")]
const ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = b'u';
        byte += 1;
    }
    table[0x08] = b'b';
    table[0x09] = b't';
    table[0x0a] = b'n';
    table[0x0c] = b'f';
    table[0x0d] = b'r';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
};

fn escape_of(byte: u8) -> u8 {
    ESCAPES.get(usize::from(byte)).copied().unwrap_or(0)
}

/// How many of the first bytes stand as they are between the quotes of a JSON string: no control characters, no
/// quotes, no backslashes.
///
/// Looks at eight bytes at a time (Mycroft's test for a zero byte, and for bytes below a bound, within a word).
#[must_use]
pub fn plain_length(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES << 7;
    let has_zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let mut length = 0;
    for word in bytes.chunks_exact(8) {
        let word = u64::from_le_bytes(word.try_into().unwrap_or_default());
        let below_space = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        let found = below_space | has_zero(word ^ (ONES * 0x22)) | has_zero(word ^ (ONES * 0x5c));
        if found != 0 {
            // The lowest mark is never a false one: borrows only run upwards.
            return length + (found.trailing_zeros() / 8) as usize;
        }
        length += 8;
    }
    let rest = bytes.get(length..).unwrap_or_default();
    length + rest.iter().position(|byte| escape_of(*byte) != 0).unwrap_or(rest.len())
}

/// Appends `text` as it stands between the quotes of a JSON string, in its shortest form (RFC 8259, 7).
pub fn escape_into(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    loop {
        let (plain, behind) = rest.split_at(plain_length(rest));
        out.extend_from_slice(plain);
        let Some((byte, behind)) = behind.split_first() else { return };
        match escape_of(*byte) {
            b'u' => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)]);
            }
            letter => out.extend_from_slice(&[b'\\', letter]),
        }
        rest = behind;
    }
}

/// The text whose escaped form is `escaped`; none when it is not the inside of a JSON string.
#[must_use]
pub fn unescape(escaped: &str) -> Option<Cow<'_, str>> {
    if !escaped.bytes().any(|byte| escape_of(byte) != 0) {
        return Some(Cow::Borrowed(escaped));
    }
    let mut quoted = String::with_capacity(escaped.len() + 2);
    quoted.push('"');
    quoted.push_str(escaped);
    quoted.push('"');
    serde_json::from_str::<String>(&quoted).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_escaped_reads_back_and_is_what_serde_json_writes(text in any::<String>()) {
            let mut escaped = Vec::new();
            escape_into(&mut escaped, &text);
            let escaped = String::from_utf8(escaped).unwrap();
            prop_assert_eq!(format!("\"{escaped}\""), serde_json::to_string(&text).unwrap());
            prop_assert_eq!(unescape(&escaped).unwrap(), text);
        }
    }

    proptest! {
        #[test]
        fn the_plain_length_ends_where_the_first_escape_is(bytes in proptest::collection::vec(any::<u8>(), 0..64), plain in 0..40_usize) {
            let bytes = [vec![b'x'; plain], bytes].concat();
            prop_assert_eq!(plain_length(&bytes), bytes.iter().position(|byte| escape_of(*byte) != 0).unwrap_or(bytes.len()));
        }
    }

    #[test]
    fn control_characters_are_escaped_one_by_one() {
        let all: String = (0..=0x21_u8).map(char::from).collect();
        let mut escaped = Vec::new();
        escape_into(&mut escaped, &all);
        assert_eq!(format!("\"{}\"", String::from_utf8(escaped).unwrap()), serde_json::to_string(&all).unwrap());
    }
}
