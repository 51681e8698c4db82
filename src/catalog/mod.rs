//! The catalogue: which event types there are, what they mean, and a sample of each.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml_edit::{ImDocument, Item, TableLike};

use crate::domain::event::{EventType, EventVersion};
use crate::domain::nearest::nearest;

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
}

/// All known types.
#[derive(Debug, Clone)]
pub struct Catalog {
    /// By name in lower case.
    types: BTreeMap<String, EventTypeEntry>,
    strict: bool,
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

const MEMBERS: [&str; 7] = ["name", "label", "labels", "description", "version", "deprecated", "sample"];
const BUILTIN: &str = include_str!("builtin.toml");

impl Catalog {
    /// The built-in types, and those of a file, which may replace built-in ones.
    ///
    /// # Errors
    /// Everything that is wrong with the file, each with its line.
    pub fn load(file: Option<&Path>, strict: bool) -> Result<Self, CatalogError> {
        let mut types = read(Path::new("built in"), BUILTIN)?;
        if let Some(path) = file {
            let text = std::fs::read_to_string(path).map_err(|error| {
                let message = format!("the catalogue cannot be read: {error}");
                CatalogError(vec![CatalogFault { file: path.to_owned(), line: 1, message }])
            })?;
            types.extend(read(path, &text)?);
        }
        Ok(Self { types, strict })
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

    /// Whether types that are not here are refused.
    #[must_use]
    pub fn is_strict(&self) -> bool {
        self.strict
    }
}

fn read(path: &Path, text: &str) -> Result<BTreeMap<String, EventTypeEntry>, CatalogError> {
    let mut faults = Vec::new();
    let mut fault = |offset: Option<usize>, message: String| {
        let line = text.as_bytes().iter().take(offset.unwrap_or(0)).filter(|byte| **byte == b'\n').count() + 1;
        faults.push(CatalogFault { file: path.to_owned(), line, message });
    };
    let mut types = BTreeMap::new();
    match ImDocument::parse(text) {
        Err(error) => {
            fault(error.span().map(|span| span.start), format!("this is not TOML: {}", error.message().trim().replace('\n', ", ")));
        }
        Ok(document) => {
            for (name, item) in document.iter() {
                match item {
                    Item::ArrayOfTables(tables) if name == "types" => {
                        for table in tables {
                            let offset = table.span().map(|span| span.start);
                            if let Some(entry) = read_entry(table, offset, &mut fault) {
                                let folded = entry.name.to_ascii_lowercase();
                                if types.contains_key(&folded) {
                                    fault(offset, format!("the type `{}` is there twice", entry.name));
                                }
                                types.insert(folded, entry);
                            }
                        }
                    }
                    item => {
                        fault(item.span().map(|span| span.start), format!("there is no key `{name}` here; types are written as [[types]]"))
                    }
                }
            }
        }
    }
    if faults.is_empty() { Ok(types) } else { Err(CatalogError(faults)) }
}

/// One `[[types]]`; none when something is wrong with it.
fn read_entry(table: &dyn TableLike, offset: Option<usize>, fault: &mut impl FnMut(Option<usize>, String)) -> Option<EventTypeEntry> {
    let place = |name: &str| table.get_key_value(name).and_then(|(key, _)| key.span()).map(|span| span.start).or(offset);
    let mut is_right = true;
    let mut refuse = |at: Option<usize>, message: String| {
        is_right = false;
        fault(at, message);
    };
    for (name, _) in table.iter().filter(|(name, _)| !MEMBERS.contains(name)) {
        let hint = nearest(name, MEMBERS).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
        refuse(place(name), format!("there is no key `{name}`{hint}"));
    }
    let mut text = |name: &str, default: Option<&str>| match table.get(name) {
        None => match default {
            Some(default) => default.to_owned(),
            None => {
                refuse(offset, format!("`{name}` is missing"));
                String::new()
            }
        },
        Some(item) => item.as_str().map(str::to_owned).unwrap_or_else(|| {
            refuse(place(name), format!("`{name}` must be a text"));
            String::new()
        }),
    };
    let name = text("name", None);
    let label = text("label", Some(&name));
    let description = text("description", Some(""));
    let version = text("version", Some("1"));
    let sample = text("sample", Some("{}"));
    if let Err(error) = name.parse::<EventType>() {
        refuse(place("name"), error.to_string());
    }
    if let Err(error) = version.parse::<EventVersion>() {
        refuse(place("version"), error.to_string());
    }
    if let Err(error) = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&sample) {
        refuse(place("sample"), format!("the sample of `{name}` is not a JSON object: {error}"));
    }
    let deprecated = table.get("deprecated").map(Item::as_bool);
    if deprecated == Some(None) {
        refuse(place("deprecated"), "`deprecated` must be true or false".to_owned());
    }
    let labels = read_labels(table.get("labels"), place("labels"), &mut refuse);
    is_right.then_some(EventTypeEntry {
        name,
        label,
        labels,
        description,
        version,
        deprecated: deprecated.flatten().unwrap_or(false),
        sample,
    })
}

/// `labels = { de_DE = "Schaden angelegt" }`
fn read_labels(item: Option<&Item>, offset: Option<usize>, refuse: &mut impl FnMut(Option<usize>, String)) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let Some(item) = item else { return labels };
    let Some(table) = item.as_table_like() else {
        refuse(offset, "`labels` must be a table such as { de_DE = \"Schaden angelegt\" }".to_owned());
        return labels;
    };
    for (locale, label) in table.iter() {
        match label.as_str().filter(|label| !label.is_empty()) {
            Some(label) if is_locale(locale) => drop(labels.insert(locale.to_owned(), label.to_owned())),
            Some(_) => refuse(offset, format!("`{locale}` is no locale such as de or de_DE")),
            None => refuse(offset, format!("the label in `{locale}` must be a text")),
        }
    }
    labels
}

/// A language of two or three letters (ISO 639), and perhaps a country behind it (ISO 3166): `de`, `de_DE`.
fn is_locale(text: &str) -> bool {
    let (language, country) = text.split_once('_').map_or((text, None), |(language, country)| (language, Some(country)));
    let is_country = |country: &str| country.len() == 2 && country.bytes().all(|byte| byte.is_ascii_uppercase());
    (2..=3).contains(&language.len()) && language.bytes().all(|byte| byte.is_ascii_lowercase()) && country.is_none_or(is_country)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Catalog, CatalogError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("types.toml");
        std::fs::write(&path, text).unwrap();
        Catalog::load(Some(&path), false)
    }

    fn faults(text: &str) -> Vec<(usize, String)> {
        load(text).unwrap_err().0.into_iter().map(|fault| (fault.line, fault.message)).collect()
    }

    #[test]
    fn the_built_in_types_are_right_and_described() {
        let catalog = Catalog::load(None, false).unwrap();
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
        assert!(Catalog::load(Some(Path::new("/nowhere.toml")), false).is_err());
    }
}
