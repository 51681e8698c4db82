//! `lutine event tail`: follows the log with long polls, over restarts of the daemon.

use std::time::Duration;

use clap::Args;
use serde_json::Value;
use tokio::time::sleep;

use super::companies;
use super::events::{Envelope, PATH, Page};
use super::failure::Failure;
use super::options::{CompanyOption, origin, type_list};
use super::output::{self, Format, note};
use super::transport::{Answer, Connection, Request};

/// The wait between two attempts while the daemon does not answer.
const RETRY_WAIT: Duration = Duration::from_secs(1);
/// The longest that a daemon may ask to wait with `Retry-After`.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(60);

/// Options of `lutine event tail`.
#[derive(Debug, Args)]
#[command(after_help = "\
It goes on when the daemon is restarted, and says so when events were removed by retention before it read them.

Examples:
  lutine event tail
  lutine event tail --types 'claim.*' --from oldest
  lutine event tail --output json | jq -r .payload")]
pub struct Tail {
    /// Only these types, separated by commas: claim.created, claim.* or claim.created@2
    #[arg(long, value_parser = type_list)]
    types: Option<String>,
    /// Where to begin: oldest, latest, or an RFC 3339 date-time
    #[arg(long, value_name = "oldest|latest|TIME", value_parser = origin, default_value = "latest")]
    from: String,
    #[command(flatten)]
    company: CompanyOption,
}

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

impl Tail {
    /// Prints events as they come, until Ctrl-C.
    pub async fn run(self, connection: &Connection, format: Format) -> Result<(), Failure> {
        let company = companies::chosen(connection, &self.company).await?;
        tokio::select! {
            pressed = tokio::signal::ctrl_c() => pressed.map_err(|error| Failure::caused("Ctrl-C cannot be waited for", &error)),
            failure = self.follow(connection, company.as_deref(), format) => failure,
        }
    }

    async fn follow(&self, connection: &Connection, company: Option<&str>, format: Format) -> Result<(), Failure> {
        let mut cursor: Option<String> = None;
        let mut is_interrupted = false;
        loop {
            let next = match connection.call(self.request(cursor.as_deref()).for_company(company)).await {
                Ok(answer) => (Next::after(&answer), Some(answer)),
                // A first call that nobody answers is more likely a wrong address than a restart.
                Err(Failure::Unreachable(reason)) if cursor.is_some() => (Next::Wait { reason, time: RETRY_WAIT }, None),
                Err(failure) => return Err(failure),
            };
            match next {
                (Next::Page, Some(answer)) => {
                    if is_interrupted {
                        note("note: the daemon answers again; going on where it stopped");
                        is_interrupted = false;
                    }
                    print(&answer.json()?, format)?;
                    cursor = answer.header("x-resume-cursor").map(str::to_owned).or(cursor);
                    if cursor.is_none() {
                        return Err(Failure::Failed("the answer has no X-Resume-Cursor, so it is not one of Lutine".to_owned()));
                    }
                }
                (Next::Restart { oldest, lost_seconds }, _) => {
                    note(&format!(
                        "warning: events of {lost_seconds} s were removed by retention before they were read; going on with the oldest kept"
                    ));
                    cursor = Some(oldest);
                }
                (Next::Wait { reason, time }, _) => {
                    if !is_interrupted {
                        note(&format!("note: {reason}; trying again"));
                        is_interrupted = true;
                    }
                    sleep(time).await;
                }
                (Next::Page | Next::End, answer) => {
                    return answer.map_or(Ok(()), |answer| Err(Failure::Refused(Box::new(answer.refused()))));
                }
            }
        }
    }

    fn request(&self, cursor: Option<&str>) -> Request {
        let from = cursor.is_none().then_some(self.from.as_str());
        // The first page answers at once, so that a cursor is in hand before anything can break.
        let wait = if cursor.is_some() { "30" } else { "0" };
        let types = self.types.as_deref();
        Request::get(PATH).query(&[("types", types), ("cursor", cursor), ("from", from), ("limit", Some("200")), ("wait", Some(wait))])
    }
}

fn print(page: &Page, format: Format) -> Result<(), Failure> {
    for event in &page.events {
        match format {
            // An envelope has no line breaks of its own; should one have, it must still be one line.
            Format::Json if event.get().contains('\n') => {
                let value: Value = serde_json::from_str(event.get()).map_err(|error| Failure::caused("an event cannot be read", &error))?;
                output::line(&value.to_string())?;
            }
            Format::Json => output::line(event.get())?,
            Format::Table => output::line(&Envelope::read(event)?.line())?,
        }
    }
    Ok(())
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
        let tail = Tail { types: None, from: "latest".to_owned(), company: CompanyOption { company: None } };
        assert_eq!(tail.request(None).path(), "/api/v1/events?from=latest&limit=200&wait=0");
        assert_eq!(tail.request(Some("abc")).path(), "/api/v1/events?cursor=abc&limit=200&wait=30");
    }
}
