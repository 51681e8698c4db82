//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::{Path, PathBuf};

use toml_edit::{ImDocument, Item, TableLike, Value};

use super::keys::{self, KEYS};
use crate::domain::nearest::nearest;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file, when it is in one.
    pub file: Option<PathBuf>,
    /// Its line, counted from 1.
    pub line: Option<usize>,
    /// The key as it was written.
    pub key: Option<String>,
    /// What is wrong, in words.
    pub message: String,
}

impl Fault {
    pub(super) fn anywhere(key: &str, message: &str) -> Self {
        Self { file: None, line: None, key: (!key.is_empty()).then(|| key.to_owned()), message: message.to_owned() }
    }

    pub(super) fn in_variable(name: &str, message: &str) -> Self {
        Self::anywhere(name, message)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(formatter, "{}:", file.display())?;
            if let Some(line) = self.line {
                write!(formatter, "{line}:")?;
            }
            formatter.write_str(" ")?;
        }
        if let Some(key) = &self.key {
            write!(formatter, "{key}: ")?;
        }
        formatter.write_str(&self.message)
    }
}

/// Everything that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Faults(pub Vec<Fault>);

/// Walks a file.
struct Walk<'a> {
    path: &'a Path,
    text: &'a str,
    faults: &'a mut Vec<Fault>,
}

impl Walk<'_> {
    fn line(&self, offset: usize) -> usize {
        self.text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
    }

    fn fault(&mut self, offset: Option<usize>, key: &str, message: String) {
        let line = offset.map(|offset| self.line(offset));
        self.faults.push(Fault { file: Some(self.path.to_owned()), line, key: (!key.is_empty()).then(|| key.to_owned()), message });
    }
}

/// Reads a file, hands out every right setting with its line, and notes every wrong one.
pub(super) fn read_file(path: &Path, faults: &mut Vec<Fault>, mut take: impl FnMut(&'static str, Value, usize)) {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            let message = format!("the configuration cannot be read: {error}");
            faults.push(Fault { file: Some(path.to_owned()), line: None, key: None, message });
            return;
        }
    };
    let mut walk = Walk { path, text: &text, faults };
    match ImDocument::parse(text.as_str()) {
        Ok(document) => table(&mut walk, document.as_table(), "", &mut take),
        Err(error) => {
            let message = error.message().trim().replace('\n', ", ");
            walk.fault(error.span().map(|span| span.start), "", format!("this is not TOML: {message}"));
        }
    }
}

fn table(walk: &mut Walk<'_>, table: &dyn TableLike, prefix: &str, take: &mut impl FnMut(&'static str, Value, usize)) {
    for (name, item) in table.iter() {
        let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
        let offset = table.get_key_value(name).and_then(|(key, _)| key.span()).or_else(|| item.span()).map(|span| span.start);
        match (keys::find(&path), item) {
            (Some(key), Item::Value(value)) => match key.shape.refuse(value) {
                Some(reason) => walk.fault(offset, &path, reason),
                None => take(key.path, value.clone(), offset.map_or(1, |offset| walk.line(offset))),
            },
            // A list of tables may be written as one of values, or as [[name]] with its members below.
            (Some(key), Item::ArrayOfTables(tables)) if key.shape == keys::Shape::Issuers => {
                let value = Value::Array(tables.clone().into_array());
                match key.shape.refuse(&value) {
                    Some(reason) => walk.fault(offset, &path, reason),
                    None => take(key.path, value, offset.map_or(1, |offset| walk.line(offset))),
                }
            }
            (Some(_), _) => walk.fault(offset, &path, "is a setting, not a table".to_owned()),
            (None, item) => match item.as_table_like() {
                Some(inner) if keys::is_table(&path) => self::table(walk, inner, &path, take),
                _ if keys::is_table(&path) => walk.fault(offset, &path, format!("is a table: write [{path}] with its settings below")),
                _ => walk.fault(offset, &path, unknown(&path)),
            },
        }
    }
}

/// The words for a key that does not exist.
fn unknown(path: &str) -> String {
    let tables: Vec<&str> = KEYS.iter().filter_map(|key| key.path.rsplit_once('.').map(|(table, _)| table)).collect();
    let last = path.rsplit('.').next().unwrap_or(path);
    let by_name = || {
        let names = KEYS.iter().map(|key| key.path.rsplit('.').next().unwrap_or(key.path));
        let name = nearest(last, names)?;
        KEYS.iter().map(|key| key.path).find(|path| path.rsplit('.').next() == Some(name))
    };
    let close = nearest(path, KEYS.iter().map(|key| key.path).chain(tables)).or_else(by_name);
    match close {
        Some(close) => format!("there is no such key; did you mean {close}?"),
        None => "there is no such key".to_owned(),
    }
}
