//! The file of the catalogue: TOML with one `[[types]]` for each type.

use std::collections::BTreeMap;
use std::path::Path;

use toml_edit::{ImDocument, Item, TableLike};

use super::{CatalogError, CatalogFault, EventTypeEntry, PayloadSchema, Validation};
use crate::domain::event::{EventType, EventVersion};
use crate::domain::nearest::nearest;

const MEMBERS: [&str; 11] =
    ["name", "label", "labels", "description", "version", "deprecated", "sample", "schema", "schema_file", "validate", "versions"];
const VERSION_MEMBERS: [&str; 3] = ["version", "schema", "schema_file"];

/// The types of a catalogue file with this text.
///
/// # Errors
/// Everything that is wrong with it, each with its line.
pub(super) fn read(path: &Path, text: &str) -> Result<BTreeMap<String, EventTypeEntry>, CatalogError> {
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
                            if let Some(entry) = read_entry(path, table, offset, &mut fault) {
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
fn read_entry(
    path: &Path,
    table: &dyn TableLike,
    offset: Option<usize>,
    fault: &mut impl FnMut(Option<usize>, String),
) -> Option<EventTypeEntry> {
    let place = |name: &str| place_of(table, name, offset);
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
    let validation = table.get("validate").map(|item| item.as_str().and_then(Validation::parse));
    if validation == Some(None) {
        refuse(place("validate"), "`validate` is one of off, warn, reject".to_owned());
    }
    let mut schemas = BTreeMap::new();
    let sample_schema = read_schema(path, table, offset, &mut refuse);
    if let Some((at, schema)) = sample_schema {
        if let Some(violation) = schema.violations(&sample).first() {
            let pointer = if violation.pointer.is_empty() { String::new() } else { format!(" at `{}`", violation.pointer) };
            refuse(at, format!("the sample of `{name}` violates its schema{pointer}: {}", violation.detail));
        }
        schemas.insert(version.clone(), schema);
    }
    read_versions(path, table, &name, &mut schemas, &mut refuse);
    let labels = read_labels(table.get("labels"), place("labels"), &mut refuse);
    is_right.then_some(EventTypeEntry {
        name,
        label,
        labels,
        description,
        version,
        deprecated: deprecated.flatten().unwrap_or(false),
        sample,
        validation: validation.flatten(),
        schemas,
    })
}

/// Where a key stands in the file; without it where its table does.
fn place_of(table: &dyn TableLike, name: &str, offset: Option<usize>) -> Option<usize> {
    table.get_key_value(name).and_then(|(key, _)| key.span()).map(|span| span.start).or(offset)
}

/// `schema = '...'`, or `schema_file = "..."` with a path from the catalogue's folder; where it stands, and what it is.
fn read_schema(
    path: &Path,
    table: &dyn TableLike,
    offset: Option<usize>,
    refuse: &mut impl FnMut(Option<usize>, String),
) -> Option<(Option<usize>, PayloadSchema)> {
    let at = |name: &str| place_of(table, name, offset);
    let (name, item) = match (table.get("schema"), table.get("schema_file")) {
        (None, None) => return None,
        (Some(_), Some(_)) => {
            refuse(at("schema_file"), "`schema` and `schema_file` exclude each other".to_owned());
            return None;
        }
        (Some(item), None) => ("schema", item),
        (None, Some(item)) => ("schema_file", item),
    };
    let Some(given) = item.as_str() else {
        refuse(at(name), format!("`{name}` must be a text"));
        return None;
    };
    let text = if name == "schema" {
        Ok(given.to_owned())
    } else {
        let file = path.parent().unwrap_or(Path::new("")).join(given);
        std::fs::read_to_string(file).map_err(|error| format!("the schema `{given}` cannot be read: {error}"))
    };
    match text.and_then(|text| PayloadSchema::compile(&text)) {
        Ok(schema) => Some((at(name), schema)),
        Err(message) => {
            refuse(at(name), message);
            None
        }
    }
}

/// `[[types.versions]]`: the schemas of further versions.
fn read_versions(
    path: &Path,
    table: &dyn TableLike,
    type_name: &str,
    schemas: &mut BTreeMap<String, PayloadSchema>,
    refuse: &mut impl FnMut(Option<usize>, String),
) {
    let Some(item) = table.get("versions") else { return };
    let Some(versions) = item.as_array_of_tables() else {
        refuse(place_of(table, "versions", None), "`versions` are written as [[types.versions]]".to_owned());
        return;
    };
    for table in versions {
        let offset = table.span().map(|span| span.start);
        for (name, _) in table.iter().filter(|(name, _)| !VERSION_MEMBERS.contains(name)) {
            let hint = nearest(name, VERSION_MEMBERS).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
            refuse(place_of(table, name, offset), format!("there is no key `{name}`{hint}"));
        }
        let Some(version) = table.get("version").and_then(Item::as_str) else {
            refuse(offset, "`version` is missing".to_owned());
            continue;
        };
        if let Err(error) = version.parse::<EventVersion>() {
            refuse(place_of(table, "version", offset), error.to_string());
        }
        if table.get("schema").is_none() && table.get("schema_file").is_none() {
            refuse(offset, "`schema` or `schema_file` is missing".to_owned());
        }
        if let Some((_, schema)) = read_schema(path, table, offset, refuse)
            && schemas.insert(version.to_owned(), schema).is_some()
        {
            refuse(offset, format!("the version `{version}` of `{type_name}` is there twice"));
        }
    }
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
