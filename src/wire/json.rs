//! A strict scanner of JSON text (RFC 8259): checks everything, builds nothing.

use std::borrow::Cow;

use crate::domain::text::plain_length;

/// What is wrong with a text, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ScanError {
    pub kind: ScanErrorKind,
    /// Bytes from the start of the text.
    pub offset: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScanErrorKind {
    /// Not JSON; what was expected.
    Syntax(&'static str),
    /// A byte-order mark, or half of a surrogate pair.
    Unicode(&'static str),
    /// Nested deeper than allowed.
    Depth,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Boolean,
    Number,
    String { has_escapes: bool },
    Array,
    Object,
}

/// A value inside a text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value<'a> {
    pub kind: Kind,
    /// Its source, without white space around it.
    pub source: &'a str,
    pub offset: usize,
}

impl<'a> Value<'a> {
    /// The decoded text of a string; none for other values.
    pub fn text(&self) -> Option<Cow<'a, str>> {
        let Kind::String { has_escapes } = self.kind else { return None };
        let inner = self.source.get(1..self.source.len().checked_sub(1)?)?;
        Some(if has_escapes { Cow::Owned(decode(inner)) } else { Cow::Borrowed(inner) })
    }
}

/// Decodes a string whose escapes have been checked.
fn decode(escaped: &str) -> String {
    let mut text = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some((plain, behind)) = rest.split_once('\\') {
        text.push_str(plain);
        let mut letters = behind.chars();
        rest = match letters.next() {
            Some('u') => {
                let (unit, behind) = code_unit(letters.as_str());
                let (letter, behind) = if (0xd800..0xdc00).contains(&unit) {
                    let (low, behind) = code_unit(behind.get(2..).unwrap_or_default());
                    (0x1_0000 + ((unit - 0xd800) << 10) + (low.wrapping_sub(0xdc00) & 0x3ff), behind)
                } else {
                    (unit, behind)
                };
                text.push(char::from_u32(letter).unwrap_or(char::REPLACEMENT_CHARACTER));
                behind
            }
            Some(letter) => {
                text.push(match letter {
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    other => other,
                });
                letters.as_str()
            }
            None => "",
        };
    }
    text.push_str(rest);
    text
}

fn code_unit(text: &str) -> (u32, &str) {
    let (digits, rest) = text.split_at_checked(4).unwrap_or((text, ""));
    (u32::from_str_radix(digits, 16).unwrap_or(0xfffd), rest)
}

/// Walks a text.
#[derive(Debug)]
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    depth_max: usize,
}

impl<'a> Scanner<'a> {
    pub fn new(text: &'a str, depth_max: usize) -> Self {
        Self { text, at: 0, depth_max }
    }

    pub fn offset(&self) -> usize {
        self.at
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn error<T>(&self, kind: ScanErrorKind) -> Result<T, ScanError> {
        Err(ScanError { kind, offset: self.at })
    }

    fn expected<T>(&self, what: &'static str) -> Result<T, ScanError> {
        if self.text.get(self.at..).is_some_and(|rest| rest.starts_with('\u{feff}')) {
            return self.error(ScanErrorKind::Unicode("a byte-order mark"));
        }
        self.error(ScanErrorKind::Syntax(what))
    }

    pub fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Takes `byte` after white space, if it is next.
    pub fn take(&mut self, byte: u8) -> bool {
        self.skip_space();
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// Takes `byte`, which must be next.
    pub fn require(&mut self, byte: u8, what: &'static str) -> Result<(), ScanError> {
        if self.take(byte) { Ok(()) } else { self.expected(what) }
    }

    /// Nothing but white space is left.
    pub fn end(&mut self) -> Result<(), ScanError> {
        self.skip_space();
        if self.at == self.text.len() { Ok(()) } else { self.expected("the end of the text") }
    }

    /// The next value; its nesting counts from `depth`, the number of containers around it.
    pub fn value(&mut self, depth: usize) -> Result<Value<'a>, ScanError> {
        self.skip_space();
        let start = self.at;
        let kind = match self.peek() {
            Some(b'"') => Kind::String { has_escapes: self.string()? },
            Some(b'{') => {
                self.object(depth + 1)?;
                Kind::Object
            }
            Some(b'[') => {
                self.array(depth + 1)?;
                Kind::Array
            }
            Some(b't') => self.word("true", Kind::Boolean)?,
            Some(b'f') => self.word("false", Kind::Boolean)?,
            Some(b'n') => self.word("null", Kind::Null)?,
            Some(b'-' | b'0'..=b'9') => {
                self.number()?;
                Kind::Number
            }
            _ => return self.expected("a value"),
        };
        Ok(Value { kind, source: self.text.get(start..self.at).unwrap_or_default(), offset: start })
    }

    /// As [`Scanner::value`], with room for `more` levels beyond the deepest one allowed.
    pub fn deeper_value(&mut self, depth: usize, more: usize) -> Result<Value<'a>, ScanError> {
        let depth_max = self.depth_max;
        self.depth_max = depth_max.saturating_add(more);
        let value = self.value(depth);
        self.depth_max = depth_max;
        value
    }

    /// Passes over the value at `start` by its brackets and strings alone, however deep it is. None when it does not end.
    pub fn pass_over(&mut self, start: usize) -> Option<&'a str> {
        self.at = start;
        let (mut depth, mut in_string, mut is_escaped) = (0_usize, false, false);
        for (place, byte) in self.text.bytes().enumerate().skip(start) {
            if in_string {
                in_string = is_escaped || byte != b'"';
                is_escaped = !is_escaped && byte == b'\\';
            } else {
                match byte {
                    b'"' => in_string = true,
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth = depth.checked_sub(1)?,
                    _ => {}
                }
            }
            if depth == 0 && !in_string {
                self.at = place + 1;
                return self.text.get(start..self.at);
            }
        }
        None
    }

    fn word(&mut self, word: &'static str, kind: Kind) -> Result<Kind, ScanError> {
        if self.text.get(self.at..).is_some_and(|rest| rest.starts_with(word)) {
            self.at += word.len();
            Ok(kind)
        } else {
            self.expected("true, false or null")
        }
    }

    fn open(&mut self, depth: usize) -> Result<(), ScanError> {
        if depth > self.depth_max {
            return self.error(ScanErrorKind::Depth);
        }
        self.at += 1;
        Ok(())
    }

    fn object(&mut self, depth: usize) -> Result<(), ScanError> {
        self.open(depth)?;
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return self.expected("a member name in double quotes");
            }
            self.string()?;
            self.require(b':', "`:`")?;
            self.value(depth)?;
            if !self.take(b',') {
                return self.require(b'}', "`,` or `}`");
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<(), ScanError> {
        self.open(depth)?;
        if self.take(b']') {
            return Ok(());
        }
        loop {
            self.value(depth)?;
            if !self.take(b',') {
                return self.require(b']', "`,` or `]`");
            }
        }
    }

    fn digits(&mut self) -> Result<(), ScanError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { self.expected("a digit") } else { Ok(()) }
    }

    fn number(&mut self) -> Result<(), ScanError> {
        self.at += usize::from(self.peek() == Some(b'-'));
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        Ok(())
    }

    /// A string; says whether it has escapes.
    pub fn string(&mut self) -> Result<bool, ScanError> {
        self.at += 1;
        let bytes = self.text.as_bytes();
        let mut has_escapes = false;
        loop {
            let rest = bytes.get(self.at..).unwrap_or_default();
            self.at += plain_length(rest);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(has_escapes);
                }
                Some(b'\\') => {
                    has_escapes = true;
                    self.escape()?;
                }
                Some(_) => return self.expected("no control character inside a string"),
                None => return self.expected("the end of the string"),
            }
        }
    }

    fn escape(&mut self) -> Result<(), ScanError> {
        let start = self.at;
        match self.text.as_bytes().get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => {
                let unit = self.unit()?;
                let lone = ScanError { kind: ScanErrorKind::Unicode("half of a surrogate pair"), offset: start };
                match unit {
                    0xdc00..=0xdfff => return Err(lone),
                    0xd800..=0xdbff => {
                        let follows = self.text.as_bytes().get(self.at..self.at + 2) == Some(b"\\u");
                        if !follows || !(0xdc00..=0xdfff).contains(&self.unit()?) {
                            return Err(lone);
                        }
                    }
                    _ => {}
                }
            }
            _ => return self.expected("an escape that JSON knows"),
        }
        Ok(())
    }

    /// The four hexadecimal digits of `\uXXXX`.
    fn unit(&mut self) -> Result<u32, ScanError> {
        let digits = self.text.get(self.at + 2..self.at + 6).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let Some(digits) = digits else { return self.expected("four hexadecimal digits") };
        self.at += 6;
        Ok(u32::from_str_radix(digits, 16).unwrap_or(0))
    }
}

/// The members of an object or the elements of an array, one after the other; nothing is kept.
///
/// The text must have been checked: what cannot be read ends it.
#[derive(Debug)]
pub(super) struct Inside<'a> {
    scanner: Scanner<'a>,
    close: u8,
    is_first: bool,
    /// Where the container starts in the text that offsets count from.
    base: usize,
}

impl<'a> Inside<'a> {
    fn new(container: &Value<'a>, open: u8, close: u8, base: usize) -> Option<Self> {
        let mut scanner = Scanner::new(container.source, usize::MAX);
        scanner.take(open).then_some(Self { scanner, close, is_first: true, base: base + container.offset })
    }

    /// Of an array; none for other values. `base` is what the value's own offset counts from, and is added to those of the
    /// elements.
    pub fn array(value: &Value<'a>, base: usize) -> Option<Self> {
        Self::new(value, b'[', b']', base)
    }

    /// Of an object; none for other values. For `base` see [`Inside::array`].
    pub fn object(value: &Value<'a>, base: usize) -> Option<Self> {
        Self::new(value, b'{', b'}', base)
    }

    fn begins(&mut self) -> bool {
        let is_first = std::mem::replace(&mut self.is_first, false);
        if is_first { !self.scanner.take(self.close) } else { self.scanner.take(b',') }
    }

    fn value(&mut self) -> Option<Value<'a>> {
        let value = self.scanner.value(0).ok()?;
        Some(Value { offset: self.base + value.offset, ..value })
    }

    /// The next element of an array.
    pub fn element(&mut self) -> Option<Value<'a>> {
        if self.begins() { self.value() } else { None }
    }

    /// The next member of an object: its name and its value.
    pub fn member(&mut self) -> Option<(Value<'a>, Value<'a>)> {
        if !self.begins() {
            return None;
        }
        let name = self.value()?;
        self.scanner.take(b':');
        Some((name, self.value()?))
    }
}

/// Checks a whole text.
pub(super) fn check(text: &str, depth_max: usize) -> Result<(), ScanError> {
    let mut scanner = Scanner::new(text, depth_max);
    scanner.value(0)?;
    scanner.end()
}

/// The text without white space outside its strings; it must be JSON.
pub(super) fn normalize(text: &str) -> String {
    let mut normal = String::with_capacity(text.len());
    let mut in_string = false;
    let mut is_escaped = false;
    for letter in text.chars() {
        if in_string {
            in_string = is_escaped || letter != '"';
            is_escaped = !is_escaped && letter == '\\';
            normal.push(letter);
        } else if !matches!(letter, ' ' | '\t' | '\n' | '\r') {
            in_string = letter == '"';
            normal.push(letter);
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    fn same_as_serde(text: &str) {
        let ours = check(text, 64);
        let theirs = serde_json::from_str::<Box<RawValue>>(text).is_ok();
        match ours {
            Err(ScanError { kind: ScanErrorKind::Depth | ScanErrorKind::Unicode(_), .. }) => {}
            other => assert_eq!(other.is_ok(), theirs, "{text:?}: {other:?}"),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn takes_what_serde_json_takes(text in r#"[\[\]{},:"\\ 0-9eE.+\-truefalsnu/bd\n]{0,24}"#) {
            same_as_serde(&text);
        }

        #[test]
        fn takes_strings_that_serde_json_takes(inner in r#"(\\u[0-9a-dA-D]{4}|\\["\\/bfnrt]|[a-zåß😀 ]|\\x|"){0,12}"#) {
            let text = format!("\"{inner}\"");
            same_as_serde(&text);
            if check(&text, 64).is_ok() {
                let value = Scanner::new(&text, 64).value(0).unwrap();
                prop_assert_eq!(value.text().unwrap().into_owned(), serde_json::from_str::<String>(&text).unwrap());
            }
        }
    }

    #[test]
    fn containers_are_walked_with_the_places_of_what_is_inside() {
        let text = r#"  { "a" : [ 1 , {"b":[ ]} ], "c\u0041":"x" } "#;
        let whole = Scanner::new(text, 64).value(0).unwrap();
        let mut object = Inside::object(&whole, 100).unwrap();
        let (name, array) = object.member().unwrap();
        assert_eq!((name.text().unwrap().as_ref(), name.offset, array.offset), ("a", 104, 110));
        let (name, value) = object.member().unwrap();
        assert_eq!((name.text().unwrap().as_ref(), value.source), ("cA", "\"x\""));
        assert!(object.member().is_none());
        assert!(Inside::object(&array, 0).is_none() && Inside::array(&whole, 0).is_none());
        let mut elements = Inside::array(&array, 0).unwrap();
        let sources: Vec<_> = std::iter::from_fn(|| elements.element()).map(|element| (element.source, element.offset)).collect();
        assert_eq!(sources, [("1", 112), ("{\"b\":[ ]}", 116)]);
    }

    #[test]
    fn depth_is_counted_from_the_root_container() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(check(&nested(64), 64).is_ok());
        assert_eq!(check(&nested(65), 64), Err(ScanError { kind: ScanErrorKind::Depth, offset: 64 }));
        assert_eq!(check(&"[".repeat(1_000_000), 64).unwrap_err().kind, ScanErrorKind::Depth);
    }

    #[test]
    fn half_a_surrogate_pair_is_found_at_any_level() {
        for text in [r#"["\ud800"]"#, r#"{"\udc00":1}"#, r#""\ud800\ud800""#, r#""\ud83d\n""#] {
            assert!(matches!(check(text, 64).unwrap_err().kind, ScanErrorKind::Unicode(_)), "{text}");
        }
        assert!(check(r#""\ud83d\ude00""#, 64).is_ok());
    }

    #[test]
    fn normalizing_keeps_strings_and_numbers() {
        assert_eq!(normalize(" { \"a b\" : [ 1.0 ,\n 1e5, \"x \\\" y\" ] } "), r#"{"a b":[1.0,1e5,"x \" y"]}"#);
    }
}
