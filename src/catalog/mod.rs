//! The catalogue: which event types there are, what they mean, and a sample of each.

mod file;
mod schema;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

pub use self::schema::{PayloadSchema, SCHEMA_BYTES_MAX, Validation, Violation};

/// What is known of one event type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventTypeEntry {
    /// The type in its own spelling.
    pub name: String,
    /// A short name for people.
    pub label: String,
    /// The label in other languages, by their locale such as `de_DE`.
    pub labels: BTreeMap<String, String>,
    /// A sentence for people.
    pub description: String,
    /// The version of its payload.
    pub version: String,
    /// Whether publishers should use another type.
    pub deprecated: bool,
    /// A sample payload: the text of a JSON object.
    pub sample: String,
    /// What becomes of payloads that violate their schema; none: what the configuration says for all types.
    pub validation: Option<Validation>,
    /// The schemas of payloads, by their version.
    pub schemas: BTreeMap<String, PayloadSchema>,
}

/// All known types.
#[derive(Debug, Clone)]
pub struct Catalog {
    /// By name in lower case.
    types: BTreeMap<String, EventTypeEntry>,
    strict: bool,
    validation: Validation,
}

/// One thing that is wrong with a catalogue file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogFault {
    /// The file.
    pub file: PathBuf,
    /// Its line, counted from 1.
    pub line: usize,
    /// What is wrong, in words.
    pub message: String,
}

impl fmt::Display for CatalogFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: {}", self.file.display(), self.line, self.message)
    }
}

/// Everything that is wrong with a catalogue file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct CatalogError(pub Vec<CatalogFault>);

const BUILTIN: &str = include_str!("builtin.toml");

impl Catalog {
    /// The built-in types, and those of a file, which may replace built-in ones. `strict` refuses types that are not
    /// here; `validation` is for types that do not say themselves what becomes of payloads that violate their schema.
    ///
    /// # Errors
    /// Everything that is wrong with the file, each with its line.
    pub fn load(file: Option<&Path>, strict: bool, validation: Validation) -> Result<Self, CatalogError> {
        let mut types = file::read(Path::new("built in"), BUILTIN)?;
        if let Some(path) = file {
            let text = std::fs::read_to_string(path).map_err(|error| {
                let message = format!("the catalogue cannot be read: {error}");
                CatalogError(vec![CatalogFault { file: path.to_owned(), line: 1, message }])
            })?;
            types.extend(file::read(path, &text)?);
        }
        Ok(Self { types, strict, validation })
    }

    /// The entry of a type, compared without case.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&EventTypeEntry> {
        self.types.get(&name.to_ascii_lowercase())
    }

    /// All entries, by name.
    pub fn iter(&self) -> impl Iterator<Item = &EventTypeEntry> {
        self.types.values()
    }

    /// The schema that payloads of this version of a type are held against, and what becomes of those that violate it;
    /// none when nothing is checked.
    #[must_use]
    pub fn schema_of<'a>(&self, entry: &'a EventTypeEntry, version: &str) -> Option<(&'a PayloadSchema, Validation)> {
        let validation = entry.validation.unwrap_or(self.validation);
        let schema = entry.schemas.get(version).filter(|_| validation != Validation::Off)?;
        Some((schema, validation))
    }

    /// Whether types that are not here are refused.
    #[must_use]
    pub fn is_strict(&self) -> bool {
        self.strict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Catalog, CatalogError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("types.toml");
        std::fs::write(&path, text).unwrap();
        Catalog::load(Some(&path), false, Validation::Off)
    }

    fn faults(text: &str) -> Vec<(usize, String)> {
        load(text).unwrap_err().0.into_iter().map(|fault| (fault.line, fault.message)).collect()
    }

    #[test]
    fn the_built_in_types_are_right_and_described() {
        let catalog = Catalog::load(None, false, Validation::Off).unwrap();
        assert!(catalog.iter().count() >= 60);
        assert!(catalog.iter().all(|entry| !entry.label.is_empty() && !entry.description.is_empty() && entry.sample.len() > 2));
        for name in ["claim.created", "CLAIM_UPDATED", "inquiryordered", "FileUploadEvent", "document.uploaded"] {
            assert!(catalog.find(name).is_some(), "{name}");
        }
        assert!(catalog.iter().all(|entry| entry.labels.contains_key("de_DE")));
        assert_eq!(catalog.find("inquiry_created").unwrap().labels["de_DE"], "Beratung erstellt");
        assert_eq!(catalog.find("fileuploadevent").unwrap().name, "FileUploadEvent");
        assert!(catalog.find("nothing.known").is_none());
    }

    #[test]
    fn a_file_adds_and_replaces() {
        let catalog = load("[[types]]\nname = \"Fleet.Moved\"\n[[types]]\nname = \"claim.created\"\nlabel = \"Ours\"\n").unwrap();
        assert_eq!(catalog.find("fleet.moved").unwrap().label, "Fleet.Moved");
        assert_eq!(catalog.find("claim.created").unwrap().label, "Ours");
    }

    #[test]
    fn labels_have_locales() {
        let catalog = load("[[types]]\nname = \"a\"\nlabels = { de_DE = \"Ä\", fr = \"B\" }\n").unwrap();
        let labels: Vec<_> = catalog.find("a").unwrap().labels.iter().map(|(locale, label)| (locale.as_str(), label.as_str())).collect();
        assert_eq!(labels, [("de_DE", "Ä"), ("fr", "B")]);
        let wrong = |labels: &str| faults(&format!("[[types]]\nname = \"a\"\nlabels = {labels}\n"));
        assert_eq!(wrong("\"x\""), [(3, "`labels` must be a table such as { de_DE = \"Schaden angelegt\" }".to_owned())]);
        for locale in ["german", "DE", "de-DE", "de_de", "de_", "d"] {
            assert_eq!(wrong(&format!("{{ {locale} = \"x\" }}")), [(3, format!("`{locale}` is no locale such as de or de_DE"))]);
        }
        assert_eq!(wrong("{ de = 1 }"), [(3, "the label in `de` must be a text".to_owned())]);
    }

    #[test]
    fn mistakes_are_named_with_their_line_all_at_once() {
        let text = "[[types]]\nname = \"a b\"\nlable = \"x\"\nsample = '[]'\ndeprecated = 1\n\n[[types]]\nversion = \"\"\n";
        let found = faults(text);
        assert_eq!(found.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [3, 2, 4, 5, 7, 7, 8]);
        assert_eq!(found[0].1, "there is no key `lable`; did you mean `label`?");
        assert_eq!(faults("[[types]]\nname = \"a\"\n[[types]]\nname = \"A\"\n")[0].0, 3);
        assert_eq!(faults("[types]\n")[0].1, "there is no key `types` here; types are written as [[types]]");
        assert!(faults("[[types]\n")[0].1.starts_with("this is not TOML"));
        assert!(Catalog::load(Some(Path::new("/nowhere.toml")), false, Validation::Off).is_err());
    }

    const SCHEMA: &str = r#"schema = '{"required": ["a"]}'"#;

    #[test]
    fn a_type_has_a_schema_for_each_version() {
        let text = format!(
            "[[types]]\nname = \"a\"\nsample = '{{\"a\": 1}}'\n{SCHEMA}\nvalidate = \"reject\"\n[[types.versions]]\nversion = \"2\"\nschema = '{{}}'\n\n\
             [[types]]\nname = \"b\"\nsample = '{{\"a\": 1}}'\n{SCHEMA}\n"
        );
        let catalog = load(&text).unwrap();
        let entry = catalog.find("a").unwrap();
        assert_eq!(entry.schemas.keys().collect::<Vec<_>>(), ["1", "2"]);
        let of = |name: &str, version: &str| {
            catalog.schema_of(catalog.find(name).unwrap(), version).map(|(schema, then)| (schema.violations("{}").len(), then))
        };
        assert_eq!(of("a", "1"), Some((1, Validation::Reject)));
        assert_eq!(of("a", "2"), Some((0, Validation::Reject)));
        assert_eq!(of("a", "3"), None);
        // What the configuration says counts for it, and that is `off` here.
        assert_eq!(of("b", "1"), None);
    }

    #[test]
    fn a_schema_may_lie_in_a_file_beside_the_catalogue() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("types.toml");
        std::fs::write(folder.path().join("a.json"), r#"{"required": ["a"]}"#).unwrap();
        std::fs::write(&path, "[[types]]\nname = \"a\"\nsample = '{\"a\": 1}'\nschema_file = \"a.json\"\n").unwrap();
        let catalog = Catalog::load(Some(&path), false, Validation::Warn).unwrap();
        assert_eq!(catalog.schema_of(catalog.find("a").unwrap(), "1").unwrap().1, Validation::Warn);
        std::fs::write(&path, "[[types]]\nname = \"a\"\nschema_file = \"b.json\"\n").unwrap();
        let fault = Catalog::load(Some(&path), false, Validation::Warn).unwrap_err().0.remove(0);
        assert!(fault.line == 3 && fault.message.starts_with("the schema `b.json` cannot be read"), "{fault}");
    }

    #[test]
    fn mistakes_in_schemas_are_named_with_their_line() {
        let one = |more: &str| faults(&format!("[[types]]\nname = \"a\"\n{more}\n"));
        assert_eq!(one("schema = '{\"type\": 1}'")[0].0, 3);
        assert_eq!(one(SCHEMA), [(3, "the sample of `a` violates its schema: \"a\" is a required property".to_owned())]);
        assert_eq!(one("schema = '{}'\nschema_file = \"x\"")[0], (4, "`schema` and `schema_file` exclude each other".to_owned()));
        assert_eq!(one("validate = \"maybe\"")[0], (3, "`validate` is one of off, warn, reject".to_owned()));
        assert_eq!(one("schema = '{}'\n[[types.versions]]\nversion = \"1\"\nschema = '{}'")[0].1, "the version `1` of `a` is there twice");
        assert_eq!(one("[[types.versions]]\nschema = '{}'")[0].1, "`version` is missing");
        assert_eq!(one("[[types.versions]]\nversion = \"2\"")[0].1, "`schema` or `schema_file` is missing");
        assert!(
            one("[[types.versions]]\nversion = \"2\"\nshcema = \"\"")
                .iter()
                .any(|(_, message)| message.ends_with("did you mean `schema`?"))
        );
    }
}
