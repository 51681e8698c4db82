//! Which headers a subscription may add to its webhooks.

use std::str::FromStr;

use hyper::header::{HeaderName, HeaderValue};

/// The most headers of a subscription.
pub const HEADERS_MAX: usize = 32;
/// The longest value of a header, in bytes.
pub const HEADER_BYTES_MAX: usize = 2048;

/// Headers that are the daemon's own or speak of the connection (RFC 9110, 7.6.1).
const OWN: [&str; 19] = [
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "event-type",
    "event-version",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
];
/// Beginnings of such headers.
const OWN_PREFIXES: [&str; 3] = ["webhook-", "proxy-", "lutine-"];

/// Why a header cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// More than [`HEADERS_MAX`].
    #[error("there are more than {HEADERS_MAX} headers")]
    Count,
    /// Not a header name.
    #[error("`{0}` is not the name of a header")]
    Name(String),
    /// A name that the daemon keeps for itself.
    #[error("the header {0} is set by Lutine itself or belongs to the connection")]
    Own(String),
    /// One name twice.
    #[error("the header {0} is there twice")]
    Twice(String),
    /// Characters that headers cannot hold, or too many of them.
    #[error("the value of the header {0} must be at most {HEADER_BYTES_MAX} characters of visible ASCII and spaces")]
    Value(String),
}

/// Checks the name of a header that webhooks are to carry.
///
/// # Errors
/// Says why it cannot.
pub fn check_header_name(name: &str) -> Result<HeaderName, HeaderError> {
    let parsed = HeaderName::from_str(name).map_err(|_| HeaderError::Name(name.to_owned()))?;
    let lower = parsed.as_str();
    if OWN.contains(&lower) || OWN_PREFIXES.iter().any(|prefix| lower.starts_with(prefix)) {
        return Err(HeaderError::Own(lower.to_owned()));
    }
    Ok(parsed)
}

/// Checks one header that a subscription adds.
///
/// # Errors
/// Says why it cannot.
pub fn check_header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), HeaderError> {
    let name = check_header_name(name)?;
    let is_visible = value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    match HeaderValue::from_str(value) {
        Ok(parsed) if is_visible && value.len() <= HEADER_BYTES_MAX => Ok((name, parsed)),
        _ => Err(HeaderError::Value(name.as_str().to_owned())),
    }
}

/// Checks all headers that a subscription adds.
///
/// # Errors
/// Names the first that cannot be added.
pub fn check_headers(headers: &[(String, String)]) -> Result<Vec<(HeaderName, HeaderValue)>, HeaderError> {
    if headers.len() > HEADERS_MAX {
        return Err(HeaderError::Count);
    }
    let mut checked: Vec<(HeaderName, HeaderValue)> = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        let (name, value) = check_header(name, value)?;
        if checked.iter().any(|(known, _)| *known == name) {
            return Err(HeaderError::Twice(name.as_str().to_owned()));
        }
        checked.push((name, value));
    }
    Ok(checked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_ordinary_headers_and_refuses_those_of_the_daemon_and_the_connection() {
        assert!(check_header("X-Partner", "7").is_ok());
        assert!(check_header("Accept", "application/json").is_ok());
        for name in
            ["Host", "CONTENT-LENGTH", "Transfer-Encoding", "Webhook-Id", "webhook-signature", "Proxy-Authorization", "Authorization", "TE"]
        {
            assert!(matches!(check_header(name, "x"), Err(HeaderError::Own(_))), "{name}");
        }
        for name in ["", "a b", "a:b", "å", "a\r\nb", "x\0"] {
            assert!(matches!(check_header(name, "x"), Err(HeaderError::Name(_))), "{name}");
        }
        for value in ["a\r\nHost: b", "a\nb", "a\0", "å", "a\tb", &"a".repeat(HEADER_BYTES_MAX + 1)] {
            assert!(matches!(check_header("x-a", value), Err(HeaderError::Value(_))), "{value}");
        }
    }

    #[test]
    fn a_name_comes_once_and_there_is_an_end_to_them() {
        let header = |name: &str| (name.to_owned(), "x".to_owned());
        assert_eq!(check_headers(&[header("X-A"), header("x-a")]), Err(HeaderError::Twice("x-a".to_owned())));
        let many: Vec<_> = (0..=HEADERS_MAX).map(|number| header(&format!("x-{number}"))).collect();
        assert_eq!(check_headers(&many), Err(HeaderError::Count));
        assert_eq!(check_headers(&many[1..]).unwrap().len(), HEADERS_MAX);
    }
}
