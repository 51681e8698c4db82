//! Holds the layers of `src`: who may use whom, and who alone may name which crate.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::string_slice, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};

/// Modules and their rows. A module uses modules of lower rows only; modules of one row do not know each other.
const ROWS: [(&str, u8); 11] = [
    ("cli", 6),
    ("daemon", 5),
    ("http", 4),
    ("service", 3),
    ("delivery", 3),
    ("store", 2),
    ("webhook", 2),
    ("config", 1),
    ("wire", 1),
    ("telemetry", 1),
    ("catalog", 1),
];

/// The lowest row: words and rules.
const DOMAIN: &str = "domain";

/// Paths of other crates, and the only modules that may name them.
const OWNERS: [(&str, &[&str]); 17] = [
    ("clap", &["cli"]),
    ("sd_notify", &["daemon"]),
    ("axum", &["http"]),
    ("askama", &["http"]),
    ("hyper::server", &["http"]),
    ("hyper_util::server", &["http"]),
    ("redb", &["store"]),
    ("reqwest", &["webhook", "cli"]),
    ("hyper_util::client", &["webhook", "cli"]),
    // Signatures of webhooks; cursors and API keys; ids of notifications.
    ("hmac", &["webhook", "service", "domain"]),
    // Access tokens and assertions, and the keys that verify them.
    ("jsonwebtoken", &["service"]),
    ("x509_parser", &["service", "webhook"]),
    ("figment", &["config"]),
    ("tracing_subscriber", &["telemetry"]),
    ("prometheus_client", &["telemetry"]),
    ("jsonschema", &["catalog"]),
    // The domain does no I/O and waits for nobody.
    ("tokio", &["cli", "daemon", "http", "service", "delivery", "store", "webhook", "config", "wire", "telemetry", "catalog"]),
];

/// A path of names in a source text, such as `crate::store::Store`, and the line it stands in.
#[derive(Debug, PartialEq, Eq)]
struct NamedPath {
    names: Vec<String>,
    line: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Name(String),
    Colons,
    Open,
    Close,
    Comma,
    Other,
}

/// Names and the signs that join them, each with its line; comments and texts are left out.
fn tokens(source: &str) -> Vec<(Token, usize)> {
    let mut found = Vec::new();
    let mut rest = source;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            _ if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            _ if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            _ if rest.starts_with("::") => 2,
            '"' => text_length(rest),
            'r' if raw_text_length(rest).is_some() => raw_text_length(rest).unwrap(),
            '\'' => character_length(rest),
            _ if first.is_alphanumeric() || first == '_' => {
                rest.find(|one: char| !one.is_alphanumeric() && one != '_').unwrap_or(rest.len())
            }
            _ => first.len_utf8(),
        };
        let (piece, after) = rest.split_at(length);
        let token = match first {
            _ if piece == "::" => Some(Token::Colons),
            '{' => Some(Token::Open),
            '}' => Some(Token::Close),
            ',' => Some(Token::Comma),
            _ if first.is_whitespace() || piece.starts_with("//") || piece.starts_with("/*") => None,
            'r' if piece.ends_with('"') || piece.ends_with('#') => Some(Token::Other),
            _ if first.is_alphanumeric() || first == '_' => Some(Token::Name(piece.to_owned())),
            _ => Some(Token::Other),
        };
        found.extend(token.map(|token| (token, line)));
        line += piece.matches('\n').count();
        rest = after;
    }
    found
}

fn text_length(rest: &str) -> usize {
    let mut escaped = false;
    for (place, one) in rest.char_indices().skip(1) {
        match one {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return place + 1,
            _ => {}
        }
    }
    rest.len()
}

fn raw_text_length(rest: &str) -> Option<usize> {
    let marks = rest[1..].chars().take_while(|one| *one == '#').count();
    let body = rest[1 + marks..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(marks));
    body.find(&end).map(|place| 2 + marks + place + end.len())
}

/// A character in quotes, or the quote of a lifetime.
fn character_length(rest: &str) -> usize {
    let mut characters = rest.char_indices().skip(1);
    match (characters.next(), characters.next()) {
        (Some((_, '\\')), _) => rest[2..].char_indices().skip(1).find(|(_, one)| *one == '\'').map_or(1, |(place, _)| place + 3),
        (Some(_), Some((end, '\''))) => end + 1,
        _ => 1,
    }
}

/// Every path in a source text, with the groups of `use` taken apart.
fn paths(source: &str) -> Vec<NamedPath> {
    let tokens = tokens(source);
    let mut found = Vec::new();
    let mut place = 0;
    while place < tokens.len() {
        if matches!(tokens[place].0, Token::Name(_)) {
            place = take_path(&tokens, place, &[], &mut found);
        } else {
            place += 1;
        }
    }
    found
}

/// Takes the path or the tree of paths that starts at `place`; returns the place behind it.
fn take_path(tokens: &[(Token, usize)], mut place: usize, before: &[String], found: &mut Vec<NamedPath>) -> usize {
    let mut names = before.to_vec();
    let line = tokens[place].1;
    while let Some((Token::Name(name), _)) = tokens.get(place) {
        names.push(name.clone());
        place += 1;
        if tokens.get(place).map(|(token, _)| token) != Some(&Token::Colons) {
            break;
        }
        place += 1;
        if tokens.get(place).map(|(token, _)| token) == Some(&Token::Open) {
            place += 1;
            while let Some((token, _)) = tokens.get(place) {
                match token {
                    Token::Close => return place + 1,
                    Token::Name(_) => place = take_path(tokens, place, &names, found),
                    _ => place += 1,
                }
            }
            return place;
        }
    }
    found.push(NamedPath { names, line });
    place
}

fn row(module: &str) -> Option<u8> {
    if module == DOMAIN { Some(0) } else { ROWS.iter().find(|(name, _)| *name == module).map(|(_, row)| *row) }
}

/// The module of `crate` that a path leads to from a file `depth` modules below the root.
fn module_of(path: &NamedPath, depth: usize) -> Option<&str> {
    let supers = path.names.iter().take_while(|name| *name == "super").count();
    let module = match path.names.first()?.as_str() {
        "crate" => path.names.get(1)?,
        "super" if supers >= depth => path.names.get(supers)?,
        _ => return None,
    };
    row(module).is_some().then_some(module.as_str())
}

/// What `source`, the file at `file` below `src`, does against the table: `file:line: rule`.
fn violations(file: &str, source: &str) -> Vec<String> {
    let parts: Vec<&str> = file.trim_end_matches(".rs").split('/').filter(|part| *part != "mod").collect();
    let Some(own) = parts.first().copied().filter(|part| !matches!(*part, "lib" | "main")) else { return Vec::new() };
    let Some(own_row) = row(own) else { return vec![format!("src/{file}:1: the module {own} has no row in tests/architecture.rs")] };
    let mut found = Vec::new();
    for path in paths(source) {
        let text = path.names.join("::");
        let line = path.line;
        if let Some(used) = module_of(&path, parts.len()).filter(|used| *used != own) {
            let used_row = row(used).unwrap();
            if used_row >= own_row {
                found.push(format!(
                    "src/{file}:{line}: `{text}`: {own} (row {own_row}) must not use {used} (row {used_row}); a module uses lower rows only"
                ));
            }
        }
        for (owned, owners) in OWNERS {
            let is_named = text == owned || text.strip_prefix(owned).is_some_and(|rest| rest.starts_with("::"));
            // Without a path behind it a name is a variable's, unless a `use` takes the crate as it is.
            let is_crate =
                || path.names.len() > 1 || source.lines().nth(line - 1).is_some_and(|line| line.trim_start().starts_with("use "));
            if is_named && !owners.contains(&own) && is_crate() {
                found.push(format!("src/{file}:{line}: `{text}`: only {} may name {owned}", owners.join(" and ")));
            }
        }
    }
    found
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_module_keeps_to_its_row_and_names_only_its_own_crates() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    files(&source, &mut all);
    all.sort();
    assert!(all.len() > 40, "only {} files of source were found", all.len());
    let mut found = Vec::new();
    for path in all {
        let name = path.strip_prefix(&source).unwrap().to_str().unwrap().to_owned();
        found.extend(violations(&name, &fs::read_to_string(path).unwrap()));
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn a_planted_violation_is_reported_with_its_line() {
    let planted = [
        ("store/page.rs", "\nuse crate::service::events;\n", "src/store/page.rs:2:", "row 3"),
        ("service/events.rs", "use crate::{\n    domain::event,\n    http::{fault::Fault},\n};", "src/service/events.rs:3:", "row 4"),
        ("wire/json.rs", "fn read() { crate::config::Config::default() }", "src/wire/json.rs:1:", "row 1"),
        ("domain/event.rs", "use super::super::store::Store;", "src/domain/event.rs:1:", "row 2"),
        ("http/routes.rs", "use redb::Database;", "src/http/routes.rs:1:", "only store"),
        ("store/queue.rs", "use hyper::{body::Body, server::conn::http1};", "src/store/queue.rs:1:", "hyper::server"),
        ("store/mod.rs", "#[derive(clap::Parser)]\nstruct A;", "src/store/mod.rs:1:", "only cli"),
        ("daemon/run.rs", "use axum;", "src/daemon/run.rs:1:", "only http"),
        ("domain/time.rs", "async fn wait() { tokio::time::sleep(x).await }", "src/domain/time.rs:1:", "tokio"),
        ("helpers/mod.rs", "", "src/helpers/mod.rs:1:", "no row"),
    ];
    for (file, source, place, rule) in planted {
        let found = violations(file, source);
        assert_eq!(found.len(), 1, "{file}: {found:?}");
        assert!(found[0].starts_with(place) && found[0].contains(rule), "{found:?}");
    }
}

#[test]
fn what_is_allowed_or_only_spoken_of_is_not_reported() {
    let allowed = [
        ("store/page.rs", "use crate::domain::event::EventId;\nuse super::chunk::{Chunk, Record};\nuse redb::Database;"),
        ("service/events.rs", "// crate::http::routes, and redb::Database\nlet text = \"crate::http\"; let raw = r#\"axum::Router\"#;"),
        ("http/mod.rs", "use crate::service::Services; use self::api::events; let quote = '\"'; let axum = 1; axum::serve();"),
        ("config/mod.rs", "/* crate::cli */ fn take<'a>(text: &'a str) -> char { '\\'' }"),
        ("store/live.rs", "let clap = true; if clap { store() }"),
        ("main.rs", "use lutine::cli; clap::Parser::parse();"),
    ];
    for (file, source) in allowed {
        assert_eq!(violations(file, source), Vec::<String>::new(), "{file}");
    }
}
