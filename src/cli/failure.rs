//! Why a command did not do what it was asked, how that is said, and with which exit code.

use std::error::Error;
use std::fmt::Write as _;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use super::output::{self, printable};
use crate::config::{Fault, Faults};
use crate::daemon::StartError;

/// The wrong usage that clap does not see; the same code as clap's.
const EXIT_USAGE: u8 = 2;
/// `EX_CONFIG` of `sysexits.h`.
const EXIT_CONFIG: u8 = 78;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub enum Failure {
    /// The options do not fit together.
    Usage(String),
    /// The configuration is wrong.
    Config(Faults),
    /// What the configuration leads to is wrong.
    BehindConfig(String),
    /// The daemon, or the store, refused the request.
    Refused(Box<Refused>),
    /// There was no answer.
    Unreachable(String),
    /// Anything else.
    Failed(String),
    /// The command has said itself what is wrong.
    Reported,
    /// The command has said itself what is wrong with the configuration.
    ConfigReported,
    /// Whoever read the output has gone, for example `head`: nothing is left to do.
    OutputClosed,
}

/// An answer that is not a success.
#[derive(Debug)]
pub struct Refused {
    /// The HTTP status.
    pub status: u16,
    /// The body when it is a problem document.
    pub problem: Option<Problem>,
    body: String,
}

/// The members of a problem document that are told to people.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// The sentence that says what is wrong.
    pub detail: String,
    /// The stable name of the reason.
    pub code: String,
    /// The id under which the daemon's log knows the request.
    #[serde(default)]
    pub request_id: String,
    #[serde(default)]
    errors: Vec<ProblemError>,
    /// With `cursor_expired`: where everything that is kept begins.
    pub oldest_cursor: Option<String>,
    /// With `cursor_expired`: the time that the lost events span.
    pub lost_seconds: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct ProblemError {
    #[serde(default)]
    pointer: String,
    detail: String,
}

impl Refused {
    /// Reads the body of an answer that is not a success.
    #[must_use]
    pub fn new(status: u16, body: &[u8]) -> Self {
        let body = String::from_utf8_lossy(body).into_owned();
        Self { status, problem: serde_json::from_str(&body).ok(), body }
    }

    fn text(&self) -> String {
        let Some(problem) = &self.problem else {
            let start: String = self.body.trim().chars().take(200).collect();
            let body = if start.is_empty() { "it has no body".to_owned() } else { format!("it begins with: {}", printable(&start)) };
            return format!("the answer has status {} and is not one of Lutine; {body}", self.status);
        };
        // A single wrong member has the same words as the whole.
        let (same, other): (Vec<_>, Vec<_>) = problem.errors.iter().partition(|error| error.detail == problem.detail);
        let mut marks = vec![printable(&problem.code)];
        marks.extend(same.iter().filter(|error| !error.pointer.is_empty()).map(|error| format!("at {}", printable(&error.pointer))));
        if !problem.request_id.is_empty() {
            marks.push(format!("request {}", printable(&problem.request_id)));
        }
        let mut text = format!("{} ({})", printable(&problem.detail), marks.join(", "));
        for error in other {
            let _ = write!(text, "\n  {}: {}", printable(&error.pointer), printable(&error.detail));
        }
        text
    }

    /// The problem document as it came.
    fn json(&self) -> String {
        if self.problem.is_some() {
            return self.body.trim().replace(['\r', '\n'], " ");
        }
        json_text(&FailureShape { code: "foreign_answer", detail: &self.text(), status: Some(self.status), faults: Vec::new() })
    }
}

/// One fault of the configuration as JSON.
#[derive(Debug, Serialize)]
pub struct FaultShape<'a> {
    file: Option<String>,
    line: Option<usize>,
    key: Option<&'a str>,
    message: &'a str,
}

impl<'a> From<&'a Fault> for FaultShape<'a> {
    fn from(fault: &'a Fault) -> Self {
        let file = fault.file.as_ref().map(|file| file.display().to_string());
        Self { file, line: fault.line, key: fault.key.as_deref(), message: &fault.message }
    }
}

/// A failure as JSON, with the two members that people look for in a problem document.
#[derive(Debug, Serialize)]
struct FailureShape<'a> {
    code: &'a str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    faults: Vec<FaultShape<'a>>,
}

impl Failure {
    /// A failure that keeps the words of its cause.
    pub fn caused(what: &str, error: &dyn Error) -> Self {
        Self::Failed(format!("{what}: {}", chain(error)))
    }

    /// The daemon, or the store, was not started.
    pub fn not_started(what: &str, error: &StartError) -> Self {
        let text = format!("{what}: {}", chain(error));
        if error.is_configuration() { Self::BehindConfig(text) } else { Self::Failed(text) }
    }

    /// Says on standard error what is wrong, for people or as one JSON object, and with which code the process ends.
    pub fn report(&self, as_json: bool) -> ExitCode {
        let is_told = matches!(self, Self::Reported | Self::ConfigReported | Self::OutputClosed);
        if !is_told {
            output::note(&if as_json { self.json() } else { self.text() });
        }
        match self {
            Self::OutputClosed => ExitCode::SUCCESS,
            Self::Usage(_) => ExitCode::from(EXIT_USAGE),
            Self::Config(_) | Self::BehindConfig(_) | Self::ConfigReported => ExitCode::from(EXIT_CONFIG),
            Self::Refused(_) | Self::Unreachable(_) | Self::Failed(_) | Self::Reported => ExitCode::FAILURE,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Config(faults) => faults.0.iter().map(|fault| format!("error: {fault}")).collect::<Vec<_>>().join("\n"),
            Self::Refused(refused) => format!("error: {}", refused.text()),
            Self::Usage(text) | Self::BehindConfig(text) | Self::Unreachable(text) | Self::Failed(text) => format!("error: {text}"),
            Self::Reported | Self::ConfigReported | Self::OutputClosed => String::new(),
        }
    }

    fn json(&self) -> String {
        let shape = |code, detail| json_text(&FailureShape { code, detail, status: None, faults: Vec::new() });
        match self {
            Self::Config(faults) => {
                let faults = faults.0.iter().map(FaultShape::from).collect();
                json_text(&FailureShape { code: "invalid_config", detail: "the configuration is wrong", status: None, faults })
            }
            Self::Refused(refused) => refused.json(),
            Self::Usage(text) => shape("usage", text),
            Self::BehindConfig(text) => shape("invalid_config", text),
            Self::Unreachable(text) => shape("unreachable", text),
            Self::Failed(text) => shape("failed", text),
            Self::Reported | Self::ConfigReported | Self::OutputClosed => String::new(),
        }
    }
}

fn json_text(shape: &FailureShape<'_>) -> String {
    // Texts and numbers always have a form in JSON.
    serde_json::to_string(shape).unwrap_or_default()
}

/// An error and its causes in one line, without saying anything twice.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            let _ = write!(text, ": {more}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_sentence_with_its_code_and_request_and_a_line_for_each_wrong_member() {
        let body = br#"{"type":"urn:lutine:problem:invalid_payload","title":"Bad Request","status":400,"detail":"the payload is not JSON",
            "instance":"/api/v1/events","code":"invalid_payload","requestId":"r-1","errors":[{"pointer":"/payload","detail":"expected a value"}]}"#;
        let text = Refused::new(400, body).text();
        assert_eq!(text, "the payload is not JSON (invalid_payload, request r-1)\n  /payload: expected a value");
        let body = br#"{"detail":"a slug is short","code":"invalid_member","errors":[{"pointer":"/slug","detail":"a slug is short"}]}"#;
        assert_eq!(Refused::new(400, body).text(), "a slug is short (invalid_member, at /slug)");
    }

    #[test]
    fn an_answer_of_somebody_else_is_told_as_such() {
        let refused = Refused::new(502, b"<html>\x1b[2J");
        assert_eq!(refused.text(), "the answer has status 502 and is not one of Lutine; it begins with: <html>\\u{1b}[2J");
        assert!(refused.json().starts_with(r#"{"code":"foreign_answer","detail":"the answer has status 502"#));
        assert_eq!(Refused::new(504, b" ").text(), "the answer has status 504 and is not one of Lutine; it has no body");
    }

    #[test]
    fn a_chain_says_nothing_twice() {
        #[derive(Debug, thiserror::Error)]
        #[error("{text}")]
        struct Outer {
            text: &'static str,
            source: std::fmt::Error,
        }
        let inner = std::fmt::Error.to_string();
        assert_eq!(chain(&Outer { text: "writing", source: std::fmt::Error }), format!("writing: {inner}"));
        let text: &'static str = Box::leak(format!("writing: {inner}").into_boxed_str());
        assert_eq!(chain(&Outer { text, source: std::fmt::Error }), text);
    }

    #[test]
    fn every_fault_of_the_configuration_has_a_line_of_its_own() {
        let fault =
            |key: &str| Fault { file: Some("c.toml".into()), line: Some(3), key: Some(key.to_owned()), message: "is wrong".to_owned() };
        let failure = Failure::Config(Faults(vec![fault("a"), fault("b")]));
        assert_eq!(failure.text(), "error: c.toml:3: a: is wrong\nerror: c.toml:3: b: is wrong");
        let first = r#"{"file":"c.toml","line":3,"key":"a","message":"is wrong"}"#;
        assert!(
            failure.json().starts_with(&format!(r#"{{"code":"invalid_config","detail":"the configuration is wrong","faults":[{first},"#))
        );
        assert_eq!(Failure::Usage("no".to_owned()).json(), r#"{"code":"usage","detail":"no"}"#);
    }
}
