//! Following the log with long polls, over restarts of the daemon.

use std::time::Duration;

use tokio::time::sleep;

use super::events::{PATH, Page};
use super::failure::Failure;
use super::output::note;
use super::transport::{Answer, Connection, Request};

/// The wait between two attempts while the daemon does not answer.
const RETRY_WAIT: Duration = Duration::from_secs(1);
/// The longest that a daemon may ask to wait with `Retry-After`.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(60);

/// What follows an answer.
#[derive(Debug)]
enum Next {
    /// Print the page and go on from its cursor.
    Page,
    /// Events are lost: go on where what is kept begins.
    Restart { oldest: String, lost_seconds: f64 },
    /// Ask again later.
    Wait { reason: String, time: Duration },
    /// Give up.
    End,
}

impl Next {
    fn after(answer: &Answer) -> Self {
        match answer.status {
            200 => Self::Page,
            410 => match answer.refused().problem.map(|problem| (problem.oldest_cursor, problem.lost_seconds)) {
                Some((Some(oldest), lost_seconds)) => Self::Restart { oldest, lost_seconds: lost_seconds.unwrap_or_default() },
                _ => Self::End,
            },
            429 | 502 | 503 | 504 => {
                let time = answer.retry_after().unwrap_or(RETRY_WAIT).clamp(RETRY_WAIT, RETRY_WAIT_MAX);
                let reason = answer.refused().problem.map_or_else(|| format!("status {}", answer.status), |problem| problem.detail);
                Self::Wait { reason, time }
            }
            _ => Self::End,
        }
    }
}

/// A reader of the log that goes on when the daemon is restarted, and says so.
#[derive(Debug)]
pub struct Follower<'a> {
    connection: &'a Connection,
    company: Option<String>,
    types: Option<String>,
    from: String,
    cursor: Option<String>,
}

impl<'a> Follower<'a> {
    /// A reader of a company's events of these types, from `oldest`, `latest` or a time on.
    #[must_use]
    pub fn new(connection: &'a Connection, company: Option<String>, types: Option<String>, from: &str) -> Self {
        Self { connection, company, types, from: from.to_owned(), cursor: None }
    }

    /// The page that follows the one before, which may be empty; waits until there is one.
    ///
    /// # Errors
    /// When the daemon refuses, or nobody has ever answered.
    pub async fn next(&mut self) -> Result<Page, Failure> {
        let mut is_interrupted = false;
        loop {
            let request = request(self.types.as_deref(), &self.from, self.cursor.as_deref());
            let next = match self.connection.call(request.for_company(self.company.as_deref())).await {
                Ok(answer) => (Next::after(&answer), Some(answer)),
                // A first call that nobody answers is more likely a wrong address than a restart.
                Err(Failure::Unreachable(reason)) if self.cursor.is_some() => (Next::Wait { reason, time: RETRY_WAIT }, None),
                Err(failure) => return Err(failure),
            };
            match next {
                (Next::Page, Some(answer)) => {
                    if is_interrupted {
                        note("note: the daemon answers again; going on where it stopped");
                    }
                    let page = answer.json()?;
                    self.cursor = answer.header("x-resume-cursor").map(str::to_owned).or(self.cursor.take());
                    if self.cursor.is_none() {
                        return Err(Failure::Failed("the answer has no X-Resume-Cursor, so it is not one of Lutine".to_owned()));
                    }
                    return Ok(page);
                }
                (Next::Restart { oldest, lost_seconds }, _) => {
                    note(&format!(
                        "warning: events of {lost_seconds} s were removed by retention before they were read; going on with the oldest kept"
                    ));
                    self.cursor = Some(oldest);
                }
                (Next::Wait { reason, time }, _) => {
                    if !is_interrupted {
                        note(&format!("note: {reason}; trying again"));
                        is_interrupted = true;
                    }
                    sleep(time).await;
                }
                (Next::End, Some(answer)) => return Err(Failure::Refused(Box::new(answer.refused()))),
                (Next::Page | Next::End, None) => return Err(Failure::Failed("there was no answer".to_owned())),
            }
        }
    }
}

fn request(types: Option<&str>, from: &str, cursor: Option<&str>) -> Request {
    let from = cursor.is_none().then_some(from);
    // The first page answers at once, so that a cursor is in hand before anything can break.
    let wait = if cursor.is_some() { "30" } else { "0" };
    Request::get(PATH).query(&[("types", types), ("cursor", cursor), ("from", from), ("limit", Some("200")), ("wait", Some(wait))])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&str, &str)], body: &'static str) -> Answer {
        Answer::of(status, headers, body)
    }

    #[test]
    fn a_daemon_that_stops_or_is_busy_is_asked_again() {
        for status in [429, 502, 503, 504] {
            assert!(matches!(Next::after(&answer(status, &[], "")), Next::Wait { time, .. } if time == RETRY_WAIT), "{status}");
        }
        let busy = Next::after(&answer(429, &[("retry-after", "7")], ""));
        assert!(matches!(busy, Next::Wait { time, .. } if time == Duration::from_secs(7)));
        let patient = Next::after(&answer(503, &[("retry-after", "86400")], ""));
        assert!(matches!(patient, Next::Wait { time, .. } if time == RETRY_WAIT_MAX));
    }

    #[test]
    fn a_reader_that_came_too_late_goes_on_with_the_oldest() {
        let body = r#"{"detail":"gone","code":"cursor_expired","oldestCursor":"abc","lostSeconds":61.5}"#;
        assert!(
            matches!(Next::after(&answer(410, &[], body)), Next::Restart { oldest, lost_seconds } if oldest == "abc" && lost_seconds == 61.5)
        );
        let restored = r#"{"detail":"restored","code":"cursor_expired","reason":"restored"}"#;
        assert!(matches!(Next::after(&answer(410, &[], restored)), Next::End));
    }

    #[test]
    fn a_refusal_ends_it() {
        for status in [400, 401, 403, 404, 500] {
            assert!(matches!(Next::after(&answer(status, &[], "")), Next::End), "{status}");
        }
    }
    #[test]
    fn the_first_request_asks_for_a_place_and_the_others_for_what_follows() {
        assert_eq!(request(None, "latest", None).path(), "/api/v1/events?from=latest&limit=200&wait=0");
        assert_eq!(request(None, "latest", Some("abc")).path(), "/api/v1/events?cursor=abc&limit=200&wait=30");
    }
}
