//! JSON Schemas of payloads: compiled once, checked before an event is committed.

use std::fmt;
use std::sync::Arc;

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

/// The longest schema, in bytes of its text.
pub const SCHEMA_BYTES_MAX: usize = 262_144;
/// Violations that are told of one payload.
const VIOLATIONS_MAX: usize = 20;
/// The longest description of one violation, in characters; the rest is cut.
const DETAIL_LENGTH_MAX: usize = 300;
/// What the compiled form of one regular expression may take, in bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// What becomes of a payload that violates its schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Validation {
    /// Nothing: the schema is documentation.
    #[default]
    Off,
    /// It is published; a log line and a metric tell of it.
    Warn,
    /// It is refused.
    Reject,
}

impl Validation {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Off, Self::Warn, Self::Reject];

    /// The word of the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Warn => "warn",
            Self::Reject => "reject",
        }
    }

    /// What a word of the configuration means.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == word)
    }
}

/// One thing that a payload has and its schema does not allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Where in the payload: a JSON pointer (RFC 6901), empty for the whole.
    pub pointer: String,
    /// What is wrong there.
    pub detail: String,
}

/// The schema of one version of a type's payload. Clones share it.
#[derive(Clone)]
pub struct PayloadSchema {
    document: Arc<Value>,
    validator: Arc<Validator>,
}

impl fmt::Debug for PayloadSchema {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("PayloadSchema").field(&self.document).finish()
    }
}

impl PartialEq for PayloadSchema {
    fn eq(&self, other: &Self) -> bool {
        self.document == other.document
    }
}

impl Eq for PayloadSchema {}

impl PayloadSchema {
    /// Compiles a schema: JSON Schema of the draft that `$schema` names, 2020-12 without it. References stay within the
    /// schema; regular expressions are matched in linear time.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn compile(text: &str) -> Result<Self, String> {
        if text.len() > SCHEMA_BYTES_MAX {
            return Err(format!("the schema has more than {SCHEMA_BYTES_MAX} bytes"));
        }
        let document: Value = serde_json::from_str(text).map_err(|error| format!("the schema is not JSON: {error}"))?;
        let patterns = PatternOptions::regex().size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX);
        let validator = jsonschema::options().offline().with_pattern_options(patterns).should_validate_formats(true).build(&document);
        let validator = validator.map_err(|error| format!("the schema is wrong at `{}`: {error}", error.instance_path()))?;
        Ok(Self { document: Arc::new(document), validator: Arc::new(validator) })
    }

    /// The schema itself.
    #[must_use]
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// What a payload violates, at most some twenty of it; empty when it is right. `payload` is JSON text.
    #[must_use]
    pub fn violations(&self, payload: &str) -> Vec<Violation> {
        let payload: Value = match serde_json::from_str(payload) {
            Ok(payload) => payload,
            Err(error) => return vec![Violation { pointer: String::new(), detail: format!("not JSON: {error}") }],
        };
        if self.validator.is_valid(&payload) {
            return Vec::new();
        }
        let told = self.validator.iter_errors(&payload).take(VIOLATIONS_MAX);
        told.map(|error| Violation { pointer: error.instance_path().to_string(), detail: shortened(&error.to_string()) }).collect()
    }
}

fn shortened(detail: &str) -> String {
    match detail.char_indices().nth(DETAIL_LENGTH_MAX) {
        Some((end, _)) => format!("{} …", detail.get(..end).unwrap_or_default()),
        None => detail.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIM: &str = r##"{
        "type": "object", "required": ["claim"],
        "properties": {"claim": {"$ref": "#/$defs/claim"}, "at": {"type": "string", "format": "date-time"}},
        "$defs": {"claim": {"type": "object", "required": ["id"], "properties": {"id": {"type": "string", "pattern": "^C-[0-9]+$"}}}}
    }"##;

    fn pointers(payload: &str) -> Vec<String> {
        PayloadSchema::compile(CLAIM).unwrap().violations(payload).into_iter().map(|violation| violation.pointer).collect()
    }

    #[test]
    fn a_payload_is_told_what_is_wrong_and_where() {
        assert_eq!(pointers(r#"{"claim":{"id":"C-1"},"at":"2026-11-22T10:30:00Z"}"#), Vec::<String>::new());
        assert_eq!(pointers("{}"), [""]);
        assert_eq!(pointers(r#"{"claim":{"id":7}}"#), ["/claim/id"]);
        assert_eq!(pointers(r#"{"claim":{"id":"X"},"at":"yesterday"}"#), ["/at", "/claim/id"]);
        assert_eq!(pointers("[]"), [""]);
        let detail = &PayloadSchema::compile(CLAIM).unwrap().violations("{}")[0].detail;
        assert!(detail.contains("\"claim\" is a required property"), "{detail}");
    }

    #[test]
    fn what_is_told_has_an_end() {
        let schema = PayloadSchema::compile(r#"{"items": {"type": "string"}}"#).unwrap();
        let many = format!("[{}1]", "1,".repeat(100));
        assert_eq!(schema.violations(&many).len(), VIOLATIONS_MAX);
        let long = format!("[{}]", "1".repeat(300));
        assert!(schema.violations(&format!(r#"[["{long}"]]"#))[0].detail.chars().count() <= DETAIL_LENGTH_MAX + 2);
    }

    #[test]
    fn wrong_schemas_are_refused_in_words() {
        let refused = |text: &str| PayloadSchema::compile(text).unwrap_err();
        assert!(refused("{").starts_with("the schema is not JSON"));
        assert!(refused(r#"{"type": "strnig"}"#).starts_with("the schema is wrong at `/type`"));
        assert!(refused(r#"{"$ref": "https://schemas.example/claim.json"}"#).starts_with("the schema is wrong"));
        assert!(refused(r#"{"pattern": "(a"}"#).starts_with("the schema is wrong"));
        // What a linear-time engine cannot match.
        assert!(refused(r#"{"pattern": "(a)\\1"}"#).starts_with("the schema is wrong"));
        assert!(refused(&format!("{{\"title\":\"{}\"}}", "x".repeat(SCHEMA_BYTES_MAX))).contains("bytes"));
    }
}
