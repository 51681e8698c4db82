//! JSON text as serializers write it: without white space between its parts, strings in their shortest form.

use crate::domain::text;

/// The same JSON, compact. Members keep their order and their repeats, numbers the way they are written; text that is no
/// JSON comes out as some other text that is none.
pub fn compact(json: &str) -> String {
    let mut out = Vec::with_capacity(json.len());
    let mut rest = json.as_bytes();
    while let Some(place) = rest.iter().position(|byte| *byte == b'"' || byte.is_ascii_whitespace()) {
        let (plain, behind) = rest.split_at(place);
        out.extend_from_slice(plain);
        rest = behind.get(1..).unwrap_or_default();
        if behind.first() == Some(&b'"') {
            let (inside, behind) = rest.split_at(string_length(rest));
            push_string(&mut out, inside);
            let (quote, behind) = behind.split_at(behind.len().min(1));
            out.extend_from_slice(quote);
            rest = behind;
        }
    }
    out.extend_from_slice(rest);
    // Only whole characters were left out or replaced.
    String::from_utf8(out).unwrap_or_default()
}

/// How many bytes the inside of a string has whose opening quote has been taken.
fn string_length(text: &[u8]) -> usize {
    let mut length = 0;
    loop {
        let rest = text.get(length..).unwrap_or_default();
        match rest.iter().position(|byte| matches!(byte, b'"' | b'\\')) {
            None => return text.len(),
            Some(place) if rest.get(place) == Some(&b'"') => return length + place,
            Some(place) => length = (length + place + 2).min(text.len()),
        }
    }
}

/// Appends a string without its closing quote.
fn push_string(out: &mut Vec<u8>, inside: &[u8]) {
    out.push(b'"');
    let text = if inside.contains(&b'\\') { std::str::from_utf8(inside).ok().and_then(text::unescape) } else { None };
    match text {
        Some(text) => text::escape_into(out, &text),
        None => out.extend_from_slice(inside),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn white_space_and_needless_escapes_go_and_numbers_stay() {
        let json = " { \"a b\" : [ 1.50 ,\n 1E5 ], \"\\u00e6\\/\\u000a\\ud83d\\ude00\" : \"x \\\" y\\\\\" , \"a b\":null } ";
        assert_eq!(compact(json), "{\"a b\":[1.50,1E5],\"æ/\\n😀\":\"x \\\" y\\\\\",\"a b\":null}");
        assert_eq!(compact("\"\""), "\"\"");
        for wrong in ["\"", "\"\\", "{\"a", "\"\\x\""] {
            assert!(serde_json::from_str::<Value>(&compact(wrong)).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn compact_text_is_what_a_serializer_writes(texts in proptest::collection::vec(any::<String>(), 0..6)) {
            let value = Value::from(texts);
            let written = value.to_string();
            prop_assert_eq!(compact(&serde_json::to_string_pretty(&value).unwrap()), written.clone());
            // All characters escaped that can be.
            let ascii: String = written.encode_utf16().map(|unit| match unit {
                0x20..0x7f => char::from(unit as u8).to_string(),
                _ => format!("\\u{unit:04x}"),
            }).collect();
            // JSON's own signs must stay; what serde_json writes outside ASCII is inside of strings.
            prop_assert_eq!(compact(&ascii), written);
        }
    }
}
