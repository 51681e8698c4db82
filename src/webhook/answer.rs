//! What is taken from a receiver's answer.

use std::error::Error;
use std::io;
use std::time::{Duration, SystemTime};

use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::{Body, Incoming};
use hyper::header::{HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use hyper::http::response;
use url::Url;

use super::Failure;
use super::connection::{AnswerTooLong, Connection};
use super::tls::tls_error;
use crate::domain::retry::{ErrorClass, Exchange};
use crate::domain::time::Timestamp;

/// The most that is read of a body, in bytes.
pub(super) const READ_BYTES_MAX: usize = 64 * 1024;
/// The most that is kept of a body, in bytes.
pub(super) const EXCERPT_BYTES_MAX: usize = 16 * 1024;

/// The head of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub status: u16,
    /// The time before which the receiver wants no other attempt.
    pub not_before: Option<Timestamp>,
    /// Where a redirect leads to, for the owner of the receiver.
    redirect: Option<String>,
}

impl Head {
    /// Takes what matters; `now` is when it came.
    pub fn of(head: &response::Parts, now: Timestamp) -> Self {
        let asks_to_wait = matches!(head.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        Self {
            status: head.status.as_u16(),
            not_before: if asks_to_wait { retry_after(&head.headers, now) } else { None },
            redirect: head.status.is_redirection().then(|| redirect_text(&head.headers)).flatten(),
        }
    }

    /// The answer as the retry rules judge it.
    pub fn exchange(&self) -> Exchange {
        Exchange::Answered { status: self.status, not_before: self.not_before }
    }

    /// The answer in words.
    pub fn text(&self) -> String {
        match &self.redirect {
            Some(redirect) => format!("the receiver answered {} and {redirect}; redirects are not followed", self.status),
            None => format!("the receiver answered {}", self.status),
        }
    }
}

/// Where an answer leads to, if it is a redirect, in words.
pub(super) fn redirect_of(head: &response::Parts) -> Option<String> {
    let is_redirect = head.status.is_redirection();
    is_redirect.then(|| redirect_text(&head.headers).unwrap_or_else(|| "points nowhere".to_owned()))
}

/// The time that `Retry-After` asks for: a number of seconds, or a date in any of the three forms (RFC 9110, 10.2.3).
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Timestamp> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number that has no end is a wait that has no end; the retry rules bound it.
        return Some(now.after(Duration::from_secs(text.parse().unwrap_or(u64::MAX))));
    }
    let since = httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(Timestamp::default().after(since))
}

/// Names the host that a redirect leads to, and no more of it: a path may be a secret.
fn redirect_text(headers: &HeaderMap) -> Option<String> {
    let location = headers.get(LOCATION)?.to_str().ok()?;
    let url = match Url::parse(location) {
        Err(url::ParseError::RelativeUrlWithoutBase) if location.starts_with("//") => Url::parse(&format!("https:{location}")),
        Err(url::ParseError::RelativeUrlWithoutBase) => return Some("points to another path of its host".to_owned()),
        absolute => absolute,
    };
    Some(format!("points to {}", url.ok()?.host_str().unwrap_or("no host")))
}

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// At its end; another answer may follow on the connection.
    Whole,
    /// At the most that is read of it.
    Cut,
}

/// Reads a body until it has more than `bytes_max`, and keeps its beginning in `excerpt`.
pub(super) async fn read(mut body: Incoming, bytes_max: usize, connection: &mut Connection, excerpt: &mut Excerpt) -> Result<End, Failure> {
    let mut length = 0;
    while !body.is_end_stream() {
        let Some(frame) = connection.drive(body.frame()).await else { break };
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) if is_too_long(&error) => {
                excerpt.truncated = true;
                return Ok(End::Cut);
            }
            Err(_) => return Err(Failure::new(ErrorClass::Body, "the body of the answer broke off")),
        };
        let Ok(data) = frame.into_data() else { continue };
        length += data.len();
        excerpt.push(&data);
        if length > bytes_max {
            return Ok(End::Cut);
        }
    }
    Ok(End::Whole)
}

/// Reads a body that counts only as a whole.
pub(super) async fn read_whole(mut body: Incoming, connection: &mut Connection) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    while !body.is_end_stream() {
        let Some(frame) = connection.drive(body.frame()).await else { break };
        let frame = frame.map_err(|_| Failure::new(ErrorClass::Body, "the body of the receiver's answer broke off"))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > READ_BYTES_MAX {
            return Err(Failure::new(ErrorClass::Body, "the receiver's answer is larger than 64 KiB"));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// The beginning of a body.
#[derive(Debug, Default)]
pub(super) struct Excerpt {
    bytes: Vec<u8>,
    /// Whether the body has more than this.
    pub truncated: bool,
}

impl Excerpt {
    fn push(&mut self, data: &[u8]) {
        let space = EXCERPT_BYTES_MAX - self.bytes.len();
        match data.split_at_checked(space) {
            Some((fitting, rest)) => {
                self.bytes.extend_from_slice(fitting);
                self.truncated |= !rest.is_empty();
            }
            None => self.bytes.extend_from_slice(data),
        }
    }

    /// The excerpt as text of at most [`EXCERPT_BYTES_MAX`] bytes, and whether something is missing at its end. What is no
    /// UTF-8 becomes U+FFFD; a character that the cut went through is left out.
    pub fn into_text(self) -> (String, bool) {
        let mut text = String::with_capacity(self.bytes.len());
        let mut truncated = self.truncated;
        let mut chunks = self.bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            let is_cut = truncated && chunks.peek().is_none();
            if !chunk.invalid().is_empty() && !is_cut {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        if text.len() > EXCERPT_BYTES_MAX {
            let end = (0..=EXCERPT_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end));
            text.truncate(end.unwrap_or(0));
            truncated = true;
        }
        (text, truncated)
    }
}

/// The texts of `{"errors":["..."]}`; none when the body is not such a one, or names none. An entry that is no text is
/// told as JSON.
pub(super) fn errors(body: &str) -> Option<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<serde_json::Value>,
    }
    let Errors { errors } = serde_json::from_str(body).ok()?;
    let text = |entry: serde_json::Value| match entry {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    Some(errors.into_iter().map(text).collect::<Vec<_>>()).filter(|errors| !errors.is_empty())
}

/// The shortest credentials that are looked for in an excerpt; shorter ones stand in many a text by chance.
const CREDENTIALS_BYTES_MIN: usize = 8;

/// An excerpt without the credentials that the receiver was shown in `authorization`: it may have sent them back. What is
/// left of them where the excerpt was cut goes too.
pub(super) fn without_credentials(mut excerpt: String, authorization: &HeaderValue) -> String {
    let text = authorization.to_str().unwrap_or_default();
    let credentials = text.split_once(' ').map_or(text, |(_, credentials)| credentials);
    if credentials.len() < CREDENTIALS_BYTES_MIN {
        return excerpt;
    }
    if excerpt.contains(credentials) {
        excerpt = excerpt.replace(credentials, "***");
    }
    let lengths = (CREDENTIALS_BYTES_MIN..credentials.len()).rev();
    let cut = lengths.filter_map(|length| credentials.get(..length)).find(|begin| excerpt.ends_with(begin));
    match cut.and_then(|begin| excerpt.strip_suffix(begin)) {
        Some(rest) => format!("{rest}***"),
        None => excerpt,
    }
}

/// The error of a connection behind an error of hyper.
fn io_error(error: &hyper::Error) -> Option<&io::Error> {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref() {
            return Some(error);
        }
        source = cause.source();
    }
    None
}

fn is_too_long(error: &hyper::Error) -> bool {
    io_error(error).and_then(io::Error::get_ref).is_some_and(|inner| inner.is::<AnswerTooLong>())
}

/// Why there is no answer.
pub(super) fn failure(error: &hyper::Error) -> Failure {
    if error.is_parse_too_large() {
        return Failure::new(ErrorClass::Protocol, "the head of the answer is too large");
    }
    if error.is_parse() {
        return Failure::new(ErrorClass::Protocol, format!("the answer is not HTTP/1.1: {error}"));
    }
    if is_too_long(error) {
        return Failure::new(ErrorClass::Protocol, "the receiver sends provisional answers without end");
    }
    match io_error(error).map(|error| (error, tls_error(error))) {
        Some((_, Some(error))) => Failure::new(ErrorClass::Tls, format!("no agreement on TLS: {error}")),
        Some((error, None)) => Failure::new(ErrorClass::Reset, format!("the connection broke before an answer came: {error}")),
        None if error.is_incomplete_message() || error.is_canceled() || error.is_closed() || error.is_user() => {
            Failure::new(ErrorClass::Reset, "the receiver closed the connection before it answered")
        }
        None => Failure::new(ErrorClass::Protocol, format!("the answer is not HTTP/1.1: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-22T10:00:00Z".parse().unwrap()
    }

    fn asked(text: &'static str) -> Option<Timestamp> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_bytes(text.as_bytes()).unwrap());
        retry_after(&headers, now())
    }

    #[test]
    fn a_receiver_may_ask_for_time_in_seconds_or_with_a_date_in_three_forms() {
        assert_eq!(asked("120"), Some(now().after(Duration::from_secs(120))));
        assert_eq!(asked(" 0 "), Some(now()));
        let date = "2026-11-22T11:00:00Z".parse().ok();
        assert_eq!(asked("Sun, 22 Nov 2026 11:00:00 GMT"), date);
        assert_eq!(asked("Sunday, 22-Nov-26 11:00:00 GMT"), date);
        assert_eq!(asked("Sun Nov 22 11:00:00 2026"), date);
        assert!(asked("99999999999999999999999999") > date);
    }

    #[test]
    fn garbage_for_a_time_is_ignored() {
        for text in ["", "soon", "-1", "1.5", "+5", "5s", "5, 6", "0x10", "2026-11-22T11:00:00Z", "Sun, 22 Nov 2026 11:00:00 CET", "å"] {
            assert_eq!(asked(text), None, "{text}");
        }
    }

    #[test]
    fn a_redirect_is_told_by_its_host_alone() {
        let told = |location: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(LOCATION, HeaderValue::from_static(location));
            redirect_text(&headers)
        };
        assert_eq!(told("https://user:word@b.example:8/secret?x=y").unwrap(), "points to b.example");
        assert_eq!(told("http://169.254.169.254/latest/meta-data").unwrap(), "points to 169.254.169.254");
        assert_eq!(told("/secret").unwrap(), "points to another path of its host");
        assert_eq!(told("//c.example/x").unwrap(), "points to c.example");
        assert_eq!(told("mailto:a@b").unwrap(), "points to no host");
        assert_eq!(told("https://[/"), None);
    }

    #[test]
    fn the_errors_of_a_body_are_told_one_by_one() {
        let told = |body: &str| errors(body).map(|errors| errors.join("|"));
        assert_eq!(told(r#"{"errors":["a \"b\"",{"code":7}],"more":1}"#).as_deref(), Some(r#"a "b"|{"code":7}"#));
        for body in ["", "{}", "[]", r#"{"errors":[]}"#, r#"{"errors":"a"}"#, r#"{"errors":["a"]"#] {
            assert_eq!(told(body), None, "{body}");
        }
    }

    #[test]
    fn credentials_are_taken_out_of_an_excerpt_even_where_it_was_cut() {
        let told = |excerpt: &str| without_credentials(excerpt.to_owned(), &HeaderValue::from_static("Bearer 0123456789abcdef"));
        assert_eq!(told("no: 0123456789abcdef, 0123456789abcdef!"), "no: ***, ***!");
        assert_eq!(told("no: 0123456789ab"), "no: ***");
        assert_eq!(told("no: 0123456"), "no: 0123456");
        assert_eq!(told(""), "");
        assert_eq!(without_credentials("a b".to_owned(), &HeaderValue::from_static("Bearer a")), "a b");
    }

    #[test]
    fn an_excerpt_ends_between_characters() {
        let text = |pieces: &[&[u8]]| {
            let mut excerpt = Excerpt::default();
            for piece in pieces {
                excerpt.push(piece);
            }
            excerpt.into_text()
        };
        assert_eq!(text(&[b"abc"]), ("abc".to_owned(), false));
        assert_eq!(text(&[b"a\xffb", b"c"]), ("a\u{fffd}bc".to_owned(), false));
        assert_eq!(text(&[b"a", "å".as_bytes().get(..1).unwrap()]), ("a\u{fffd}".to_owned(), false));
        let (long, truncated) = text(&[b"x", "å".repeat(EXCERPT_BYTES_MAX).as_bytes()]);
        assert_eq!((long.len(), truncated), (EXCERPT_BYTES_MAX - 1, true));
        assert!(long.ends_with('å'));
        let (wild, truncated) = text(&[&[0xff; EXCERPT_BYTES_MAX]]);
        assert_eq!((wild.len(), truncated), (EXCERPT_BYTES_MAX / 3 * 3, true));
    }
}
