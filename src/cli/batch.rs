//! `lutine event publish --batch`: a file of JSON lines, sent in pieces that the API takes.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::failure::Failure;
use super::output::{self, Format, note, printable, progress};
use super::transport::{Answer, Connection, Request};

const PATH: &str = "/api/v1/events/batch";
/// Lines of one request.
const LINES_MAX: usize = 1000;
/// Bytes of one request stay below this.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// How often in a row a request is repeated because the daemon is busy.
const REPEATS_MAX: u32 = 20;
/// The longest that is waited before a repeat.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// One event of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    /// Counted from 1.
    number: u64,
    bytes: Vec<u8>,
}

/// A line that was not published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Refusal {
    line: u64,
    code: String,
    detail: String,
    /// JSON pointer into the line.
    pointer: Option<String>,
}

impl Refusal {
    fn of(line: u64, code: &str, detail: &str) -> Self {
        Self { line, code: code.to_owned(), detail: detail.to_owned(), pointer: None }
    }

    fn text(&self) -> String {
        let Self { line, code, detail, pointer } = self;
        let place = pointer.as_deref().map(|pointer| format!(", at {pointer}")).unwrap_or_default();
        printable(&format!("line {line}: {detail} ({code}{place})"))
    }
}

/// Cuts what is read into pieces.
struct Pieces<R> {
    reader: R,
    number: u64,
    /// Read already, but the piece before it was full.
    pending: Option<Line>,
}

/// Lines that fit into one request, and those on the way to them that fit into none.
#[derive(Debug, Default, PartialEq, Eq)]
struct Piece {
    lines: Vec<Line>,
    refused: Vec<Refusal>,
}

impl<R: BufRead> Pieces<R> {
    fn new(reader: R) -> Self {
        Self { reader, number: 0, pending: None }
    }

    /// The next piece; none at the end.
    fn next(&mut self) -> io::Result<Option<Piece>> {
        let mut piece = Piece::default();
        let mut size = 0;
        while piece.lines.len() < LINES_MAX && piece.refused.len() < LINES_MAX {
            let line = match self.pending.take() {
                Some(line) => Some(Ok(line)),
                None => self.line()?,
            };
            match line {
                None if piece.lines.is_empty() && piece.refused.is_empty() => return Ok(None),
                None => break,
                Some(Err(refusal)) => piece.refused.push(refusal),
                Some(Ok(line)) if size + line.bytes.len() + 1 >= BYTES_MAX => {
                    self.pending = Some(line);
                    break;
                }
                Some(Ok(line)) => {
                    size += line.bytes.len() + 1;
                    piece.lines.push(line);
                }
            }
        }
        Ok(Some(piece))
    }

    /// The next line that is not empty.
    fn line(&mut self) -> io::Result<Option<Result<Line, Refusal>>> {
        loop {
            let mut bytes = Vec::new();
            let limit = u64::try_from(BYTES_MAX).unwrap_or(u64::MAX);
            if (&mut self.reader).take(limit).read_until(b'\n', &mut bytes)? == 0 {
                return Ok(None);
            }
            self.number += 1;
            let number = self.number;
            if bytes.last() == Some(&b'\n') {
                bytes.pop();
            } else if bytes.len() == BYTES_MAX {
                self.skip_line()?;
            }
            if bytes.len() + 1 >= BYTES_MAX {
                return Ok(Some(Err(Refusal::of(number, "too_large", "the line is longer than the 4 MiB of a request"))));
            }
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
            if number == 1 && bytes.starts_with(b"\xef\xbb\xbf") {
                bytes.drain(..3);
            }
            if bytes.trim_ascii().is_empty() {
                continue;
            }
            // One such line would have the whole request refused.
            return Ok(Some(match std::str::from_utf8(&bytes) {
                Ok(_) => Ok(Line { number, bytes }),
                Err(error) => Err(Refusal::of(number, "invalid_unicode", &format!("the line is not UTF-8: {error}"))),
            }));
        }
    }

    fn skip_line(&mut self) -> io::Result<()> {
        loop {
            let buffer = self.reader.fill_buf()?;
            let (length, is_end) = match buffer.iter().position(|byte| *byte == b'\n') {
                Some(place) => (place + 1, true),
                None => (buffer.len(), buffer.is_empty()),
            };
            self.reader.consume(length);
            if is_end {
                return Ok(());
            }
        }
    }
}

/// What the API says about one line.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Outcome {
    Refused {
        error: OutcomeError,
    },
    Published {
        #[serde(rename = "id")]
        _id: u64,
        #[serde(default)]
        duplicate: bool,
    },
}

#[derive(Debug, Deserialize)]
struct OutcomeError {
    code: String,
    detail: String,
    pointer: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Outcomes {
    results: Vec<Outcome>,
}

/// How far it has come.
#[derive(Debug, Default, Serialize)]
struct Tally {
    published: u64,
    duplicates: u64,
    refused: u64,
    refusals: Vec<Refusal>,
    /// Refusals of the piece under way, which have not been told.
    #[serde(skip)]
    fresh: Vec<Refusal>,
    /// All lines up to this one have been decided.
    #[serde(skip)]
    last_line: u64,
}

/// Refusals that the JSON summary names one by one; a wrong file must not fill the memory.
const REFUSALS_MAX: usize = 100_000;

impl Tally {
    fn refuse(&mut self, refusal: Refusal) {
        self.fresh.push(refusal);
    }

    /// Tells the refusals of a piece in the order of its lines.
    fn tell(&mut self, format: Format) {
        self.fresh.sort_by_key(|refusal| refusal.line);
        for refusal in std::mem::take(&mut self.fresh) {
            self.refused += 1;
            match format {
                Format::Table => {
                    progress("");
                    note(&refusal.text());
                }
                Format::Json if self.refusals.len() < REFUSALS_MAX => self.refusals.push(refusal),
                Format::Json => {}
            }
        }
    }

    fn take(&mut self, lines: &[Line], answer: &Answer) -> Result<(), Failure> {
        let Outcomes { results } = answer.json()?;
        if results.len() != lines.len() {
            let text = format!("{} lines were sent and {} answered; the daemon may have another version", lines.len(), results.len());
            return Err(Failure::Failed(text));
        }
        for (line, outcome) in lines.iter().zip(results) {
            match outcome {
                Outcome::Published { duplicate, .. } => {
                    self.published += u64::from(!duplicate);
                    self.duplicates += u64::from(duplicate);
                }
                Outcome::Refused { error: OutcomeError { code, detail, pointer } } => {
                    self.refuse(Refusal { line: line.number, code, detail, pointer });
                }
            }
        }
        Ok(())
    }

    fn print(&self, format: Format) -> Result<(), Failure> {
        match format {
            Format::Table => output::line(&self.text()),
            Format::Json => {
                let text = serde_json::to_string(self).map_err(|error| Failure::caused("the summary cannot be printed", &error))?;
                output::line(&text)
            }
        }
    }

    fn text(&self) -> String {
        let Self { published, duplicates, refused, .. } = self;
        format!("published {published}, known already {duplicates}, refused {refused}")
    }

    /// Says from where on the file has to be published again.
    fn tell_stop(&self) {
        let last_line = self.last_line;
        if last_line > 0 {
            note(&format!("stopped behind line {last_line}: {} so far", self.text()));
            note("publish the lines behind it again; those that have a dedupe key are not stored twice");
        }
    }
}

/// Publishes every line of a file, or of standard input, and prints how many were taken and which were refused.
///
/// # Errors
/// When a line was refused, or the daemon does not go on.
pub async fn publish(connection: &Connection, company: Option<&str>, file: &str, format: Format) -> Result<(), Failure> {
    let reader: Box<dyn Read> = match file {
        "-" => Box::new(io::stdin().lock()),
        path => Box::new(File::open(path).map_err(|error| Failure::caused(&format!("the file {path} cannot be opened"), &error))?),
    };
    let mut pieces = Pieces::new(BufReader::with_capacity(256 * 1024, reader));
    let mut tally = Tally::default();
    let done = publish_all(connection, company, &mut pieces, &mut tally, format).await;
    progress("");
    match done {
        Ok(()) => tally.print(format)?,
        Err(failure) => {
            tally.tell_stop();
            return Err(failure);
        }
    }
    if tally.refused > 0 { Err(Failure::Reported) } else { Ok(()) }
}

async fn publish_all<R: BufRead>(
    connection: &Connection,
    company: Option<&str>,
    pieces: &mut Pieces<R>,
    tally: &mut Tally,
    format: Format,
) -> Result<(), Failure> {
    while let Some(piece) = pieces.next().map_err(|error| Failure::caused("the events cannot be read", &error))? {
        let last = piece.refused.last().map_or(0, |refusal| refusal.line);
        piece.refused.into_iter().for_each(|refusal| tally.refuse(refusal));
        let sent = send(connection, company, piece.lines, tally).await;
        tally.tell(format);
        sent?;
        tally.last_line = tally.last_line.max(last);
        progress(&format!("{} lines ...", tally.last_line));
    }
    Ok(())
}

/// Sends lines in one request; in several, when the daemon takes less at a time.
async fn send(connection: &Connection, company: Option<&str>, lines: Vec<Line>, tally: &mut Tally) -> Result<(), Failure> {
    let mut waiting = VecDeque::from([lines]);
    while let Some(mut lines) = waiting.pop_front() {
        let Some(last) = lines.last().map(|line| line.number) else { continue };
        let answer = repeat(connection, company, &lines).await?;
        match lines.as_slice() {
            [_, _, ..] if is_too_much(&answer, lines.len()) => {
                let rest = lines.split_off(lines.len() / 2);
                waiting.push_front(rest);
                waiting.push_front(lines);
                continue;
            }
            [line] if answer.status == 413 => {
                let problem = answer.refused().problem;
                let detail = problem.map_or_else(|| "the line is too large".to_owned(), |problem| problem.detail);
                tally.refuse(Refusal::of(line.number, "too_large", &detail));
            }
            _ => tally.take(&lines, &answer.success()?)?,
        }
        tally.last_line = tally.last_line.max(last);
    }
    Ok(())
}

/// Whether so many lines are more than the daemon takes in one request, now or ever.
fn is_too_much(answer: &Answer, lines: usize) -> bool {
    let limit = || answer.header("x-ratelimit-limit")?.parse::<usize>().ok();
    match answer.status {
        413 => true,
        429 => limit().is_some_and(|limit| limit > 0 && limit < lines),
        _ => false,
    }
}

/// Whether the daemon has taken nothing and will take it later.
fn is_busy(answer: &Answer) -> bool {
    match answer.status {
        429 => true,
        503 => answer.refused().problem.is_some_and(|problem| problem.code == "overloaded"),
        _ => false,
    }
}

/// Sends one request, again while the daemon says that it is busy.
async fn repeat(connection: &Connection, company: Option<&str>, lines: &[Line]) -> Result<Answer, Failure> {
    let body: Vec<u8> = lines.iter().flat_map(|line| line.bytes.iter().copied().chain([b'\n'])).collect();
    let mut repeats = 0;
    loop {
        let request = Request::post(PATH, "application/x-ndjson", body.clone()).for_company(company);
        let answer = connection.call(request).await?;
        if !is_busy(&answer) || is_too_much(&answer, lines.len()) || repeats == REPEATS_MAX {
            return Ok(answer);
        }
        repeats += 1;
        let wait = answer.retry_after().unwrap_or(Duration::from_secs(1)).clamp(Duration::from_millis(100), WAIT_MAX);
        progress(&format!("the daemon asks to wait {} s ...", wait.as_secs_f64()));
        sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &[u8]) -> Vec<Piece> {
        let mut pieces = Pieces::new(BufReader::with_capacity(1024, text));
        std::iter::from_fn(|| pieces.next().unwrap()).collect()
    }

    fn numbers(piece: &Piece) -> Vec<u64> {
        piece.lines.iter().map(|line| line.number).collect()
    }

    #[test]
    fn empty_lines_count_and_are_not_sent() {
        let pieces = pieces(b"\xef\xbb\xbf{\"a\":1}\r\n\n  \n{\"b\":2}");
        assert_eq!(pieces.len(), 1);
        assert_eq!(numbers(&pieces[0]), [1, 4]);
        assert_eq!(pieces[0].lines[0].bytes, b"{\"a\":1}");
        assert_eq!(pieces[0].lines[1].bytes, b"{\"b\":2}");
    }

    #[test]
    fn a_piece_has_at_most_a_thousand_lines() {
        let pieces = pieces("{}\n".repeat(2001).as_bytes());
        assert_eq!(pieces.iter().map(|piece| piece.lines.len()).collect::<Vec<_>>(), [1000, 1000, 1]);
        assert_eq!(numbers(&pieces[2]), [2001]);
    }

    #[test]
    fn a_piece_stays_below_four_mebibytes() {
        let line = format!("{}\n", "x".repeat(BYTES_MAX / 3));
        let pieces = pieces(line.repeat(5).as_bytes());
        assert_eq!(pieces.iter().map(numbers).collect::<Vec<_>>(), [vec![1, 2], vec![3, 4], vec![5]]);
        let size = |piece: &Piece| piece.lines.iter().map(|line| line.bytes.len() + 1).sum::<usize>();
        assert!(pieces.iter().all(|piece| size(piece) < BYTES_MAX));
    }

    #[test]
    fn a_line_too_long_for_any_request_is_refused_and_the_next_one_sent() {
        let text = format!("{}\n{{}}\n", "x".repeat(BYTES_MAX + 5000));
        let pieces = pieces(text.as_bytes());
        assert_eq!(pieces.len(), 1);
        assert_eq!(numbers(&pieces[0]), [2]);
        assert_eq!((pieces[0].refused[0].line, pieces[0].refused[0].code.as_str()), (1, "too_large"));
    }

    #[test]
    fn the_longest_line_that_fits_is_sent() {
        let fits = "x".repeat(BYTES_MAX - 2);
        let all = pieces(fits.as_bytes());
        assert_eq!(all.iter().map(numbers).collect::<Vec<_>>(), [vec![1]]);
        let too_long = format!("{fits}x\n{{}}");
        let all = pieces(too_long.as_bytes());
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].refused[0].line, numbers(&all[0])), (1, vec![2]));
    }

    #[test]
    fn a_line_that_is_not_utf_8_does_not_take_the_others_with_it() {
        let pieces = pieces(b"{}\n\xff\n{}\n");
        assert_eq!(numbers(&pieces[0]), [1, 3]);
        assert_eq!((pieces[0].refused[0].line, pieces[0].refused[0].code.as_str()), (2, "invalid_unicode"));
    }

    #[test]
    fn answers_are_counted_line_by_line() {
        let lines: Vec<Line> = (7..10).map(|number| Line { number, bytes: Vec::new() }).collect();
        let body = r#"{"results":[{"id":1,"createdUtc":"t"},{"id":1,"createdUtc":"t","duplicate":true},
            {"error":{"code":"invalid_json","detail":"not JSON","pointer":"/type"}}]}"#;
        let mut tally = Tally::default();
        tally.take(&lines, &Answer::of(200, &[], body)).unwrap();
        tally.refuse(Refusal::of(8, "invalid_unicode", "not UTF-8"));
        tally.tell(Format::Json);
        assert_eq!((tally.published, tally.duplicates, tally.refused), (1, 1, 2));
        let texts: Vec<String> = tally.refusals.iter().map(Refusal::text).collect();
        assert_eq!(texts, ["line 8: not UTF-8 (invalid_unicode)", "line 9: not JSON (invalid_json, at /type)"]);
        assert!(tally.take(&lines[1..], &Answer::of(200, &[], body)).is_err());
    }

    #[test]
    fn a_request_is_cut_when_the_daemon_never_takes_so_much_and_repeated_when_it_does_later() {
        let limited = |limit| Answer::of(429, &[("x-ratelimit-limit", limit)], "");
        assert!(is_too_much(&Answer::of(413, &[], ""), 1000));
        assert!(is_too_much(&limited("999"), 1000) && !is_too_much(&limited("1000"), 1000));
        assert!(is_busy(&limited("1000")));
        assert!(is_busy(&Answer::of(503, &[], r#"{"code":"overloaded","detail":"full"}"#)));
        // Whether these were stored is unknown: a repeat could store them twice.
        assert!(!is_busy(&Answer::of(503, &[], r#"{"code":"outcome_unknown","detail":"stopped"}"#)));
        assert!(!is_busy(&Answer::of(503, &[], "")));
    }
}
