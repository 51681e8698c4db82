//! Secrets of webhooks as people hold them: `whsec_` and base64 (Standard Webhooks 1.0.0).

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::failure::Failure;
use crate::domain::subscription::Secret;

const PREFIX: &str = "whsec_";

/// The key that webhooks are signed with.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(Vec<u8>);

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("WebhookSecret(***)")
    }
}

/// A text that is not a secret. It never repeats the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a secret is whsec_ and 24 to 64 bytes in base64, as `lutine subscription create` prints it")]
pub struct ParseSecretError;

impl FromStr for WebhookSecret {
    type Err = ParseSecretError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = text.trim().strip_prefix(PREFIX).and_then(|text| STANDARD.decode(text).ok());
        bytes.filter(|bytes| (24..=64).contains(&bytes.len())).map(Self).ok_or(ParseSecretError)
    }
}

impl WebhookSecret {
    /// A secret that nobody knows yet.
    ///
    /// # Errors
    /// When the operating system has no randomness.
    pub fn made() -> Result<Self, Failure> {
        let mut bytes = vec![0; 32];
        getrandom::fill(&mut bytes).map_err(|error| Failure::caused("a secret cannot be made", &error))?;
        Ok(Self(bytes))
    }

    /// The text that receivers are configured with.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{PREFIX}{}", STANDARD.encode(&self.0))
    }

    /// The bytes that sign.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The secret as a subscription has it, which is always 32 bytes long.
    ///
    /// # Errors
    /// When it has another length.
    pub fn to_subscription(&self) -> Result<Secret, Failure> {
        let wrong = |_| Failure::Usage(format!("a secret of Lutine has 32 bytes; this one has {}", self.0.len()));
        <[u8; 32]>::try_from(self.0.as_slice()).map(Secret).map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_reads_back_from_its_text() {
        let secret = WebhookSecret::made().unwrap();
        assert_eq!(secret.text().parse(), Ok(secret.clone()));
        assert!(secret.to_subscription().is_ok());
        for text in ["", "whsec_", "whsec_AAAA", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_?fKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"] {
            assert_eq!(text.parse::<WebhookSecret>(), Err(ParseSecretError), "{text}");
        }
        let short: WebhookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        assert!(matches!(short.to_subscription(), Err(Failure::Usage(text)) if text.ends_with("24")));
        assert_eq!(format!("{short:?}"), "WebhookSecret(***)");
    }
}
