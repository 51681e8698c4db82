//! Webhooks that are not as they should be, to see what a receiver makes of them.

use std::time::Duration;

use bytes::Bytes;

use super::body::Content;
use crate::domain::profile::SignatureForm;

/// The wait between the two halves of a slow body.
const PAUSE: Duration = Duration::from_secs(1);

/// How a webhook is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// As it should be.
    Proper,
    /// With a digit of the body changed after it was signed.
    Tampered,
    /// With a pause of a second in the middle of the body.
    Slow,
}

/// The text with its last digit replaced by another one; none when it has no digit.
fn with_other_digit(text: &[u8]) -> Option<Vec<u8>> {
    let place = text.iter().rposition(u8::is_ascii_digit)?;
    let mut changed = text.to_vec();
    let digit = changed.get_mut(place)?;
    *digit = if *digit == b'9' { b'0' } else { *digit + 1 };
    Some(changed)
}

/// A body that bears its signature inside, with its message changed in both places.
fn with_other_message(body: &[u8]) -> Option<Vec<u8>> {
    const TEXT: &[u8] = b",\"payloadAsString\":\"";
    const SIGNATURE: &[u8] = b"\",\"signature\":\"";
    let find = |mark: &[u8]| body.windows(mark.len()).rposition(|window| window == mark);
    let (text, signature) = (find(TEXT)?, find(SIGNATURE)?);
    let message = with_other_digit(body.get(..text)?)?;
    let escaped = with_other_digit(body.get(text..signature)?)?;
    Some([&message, &escaped, body.get(signature..)?].concat())
}

impl Manner {
    /// The content as it is sent in this manner; none when there is nothing in it to change.
    pub(super) fn apply(self, content: Content, signature: SignatureForm) -> Option<Content> {
        match self {
            Self::Proper => Some(content),
            Self::Slow => Some(Content { pause: Some(PAUSE), ..content }),
            Self::Tampered if signature.is_in_body() => Some(Content { body: with_other_message(&content.body)?.into(), ..content }),
            Self::Tampered => {
                let body = Bytes::from(with_other_digit(&content.body)?);
                Some(Content { signed: Some(content.body), body, headers: content.headers, pause: None })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_digit_is_another_one() {
        assert_eq!(with_other_digit(br#"{"a":12,"b":true}"#).unwrap(), br#"{"a":13,"b":true}"#);
        assert_eq!(with_other_digit(b"[9]").unwrap(), b"[0]");
        assert_eq!(with_other_digit(b"{}"), None);
    }

    #[test]
    fn a_message_is_changed_in_both_places_and_keeps_its_signature() {
        let body = br#"{"payload":{"a":1,"b":"x"},"payloadAsString":"{\"a\":1,\"b\":\"x\"}","signature":"abc7="}"#;
        let changed = br#"{"payload":{"a":2,"b":"x"},"payloadAsString":"{\"a\":2,\"b\":\"x\"}","signature":"abc7="}"#;
        assert_eq!(with_other_message(body).unwrap(), changed);
        assert_eq!(with_other_message(br#"{"payload":{"a":1}}"#), None);
    }
}
