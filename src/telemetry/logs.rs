//! The daemon's own log, on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;

/// Forms of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One JSON object a line.
    Json,
    /// Text for people.
    Text,
}

/// A filter that is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("log.filter: `{filter}` is not a filter such as \"info\" or \"info,lutine::store=debug\": {reason}")]
pub struct FilterError {
    filter: String,
    reason: String,
}

fn read_filter(filter: &str) -> Result<EnvFilter, FilterError> {
    EnvFilter::builder().parse(filter).map_err(|error| FilterError { filter: filter.to_owned(), reason: error.to_string() })
}

/// Says whether a filter is understood.
///
/// # Errors
/// When it is not.
pub fn check_filter(filter: &str) -> Result<(), FilterError> {
    read_filter(filter).map(|_| ())
}

/// Starts writing the log. A second call in one process changes nothing.
///
/// # Errors
/// When the filter is not understood.
pub fn start(form: Form, filter: &str) -> Result<(), FilterError> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(read_filter(filter)?)
        .with_writer(std::io::stderr)
        .with_timer(SystemTime)
        .with_ansi(std::io::stderr().is_terminal());
    // Whoever came first keeps the log: in a test there are many daemons in one process.
    let _was_first = match form {
        Form::Json => builder.json().flatten_event(true).try_init(),
        Form::Text => builder.try_init(),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_filter_is_named() {
        assert!(check_filter("info,lutine::store=debug").is_ok());
        let refused = check_filter("lutine=loud").unwrap_err().to_string();
        assert!(refused.starts_with("log.filter: `lutine=loud` is not a filter"), "{refused}");
    }
}
