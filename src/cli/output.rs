//! What commands print: aligned tables for people, one JSON object a line for programs.
//!
//! Results go to standard output, everything about them to standard error.

use std::io::{self, ErrorKind, IsTerminal, Write};

use clap::ValueEnum;

use super::failure::Failure;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns for people.
    Table,
    /// JSON with stable names for programs.
    Json,
}

impl Format {
    /// The one that was asked for, else what fits whoever reads standard output.
    #[must_use]
    pub fn chosen(asked: Option<Self>) -> Self {
        asked.unwrap_or(if io::stdout().is_terminal() { Self::Table } else { Self::Json })
    }
}

/// Prints a line of results, at once.
///
/// # Errors
/// When standard output takes nothing more.
pub fn line(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let done = stdout.write_all(text.as_bytes()).and_then(|()| stdout.write_all(b"\n")).and_then(|()| stdout.flush());
    done.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Failure::caused("the result cannot be written to standard output", &error),
    })
}

/// Prints a line about the results. When nobody takes it, nobody misses it.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Shows how far long work has come, when a person looks; each call overwrites the one before, an empty text the last.
pub fn progress(text: &str) {
    let mut stderr = io::stderr().lock();
    if stderr.is_terminal() {
        let _ = write!(stderr, "\r\x1b[K{text}");
        let _ = stderr.flush();
    }
}

/// The text with its control characters escaped: what others have written must not command a terminal.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars().flat_map(|letter| if letter.is_control() { letter.escape_default().collect() } else { vec![letter] }).collect()
}

/// At most `width` characters of the text, with a mark when it was cut.
#[must_use]
pub fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Rows under a head, every column as wide as its widest cell.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns and no rows.
    #[must_use]
    pub fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|name| (*name).to_owned()).collect()] }
    }

    /// A table of names and values, without a head.
    #[must_use]
    pub fn of_pairs(pairs: &[(&str, String)]) -> Self {
        let mut table = Self { rows: Vec::new() };
        for (name, value) in pairs {
            table.push([(*name).to_owned(), value.clone()]);
        }
        table
    }

    /// Adds a row below the others.
    pub fn push(&mut self, row: impl IntoIterator<Item = String>) {
        self.rows.push(row.into_iter().map(|cell| printable(&cell)).collect());
    }

    /// The lines of the table.
    #[must_use]
    pub fn text(&self) -> String {
        let mut widths: Vec<usize> = Vec::new();
        for row in &self.rows {
            widths.resize(widths.len().max(row.len()), 0);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        self.rows.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// Prints the table.
    ///
    /// # Errors
    /// As [`line`].
    pub fn print(&self) -> Result<(), Failure> {
        line(&self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_end_without_spaces() {
        let mut table = Table::new(&["ID", "NAME"]);
        table.push(["1".to_owned(), "Ærø".to_owned()]);
        table.push(["1000".to_owned(), String::new()]);
        assert_eq!(table.text(), "ID    NAME\n1     Ærø\n1000");
    }

    #[test]
    fn cells_cannot_command_the_terminal() {
        let mut table = Table::new(&["NAME"]);
        table.push(["a\u{1b}[31mb\nc".to_owned()]);
        assert_eq!(table.text(), "NAME\na\\u{1b}[31mb\\nc");
    }

    #[test]
    fn a_cut_text_says_so() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "ab…");
    }
}
