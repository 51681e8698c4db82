//! What the egress policy does with a URL.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::Config;
use crate::webhook::{Inspection, Sender, SenderError, SystemResolver, TrustedRoots};

/// Asks the policy in force about a URL as a delivery would; with `connect` it also connects, and sends nothing.
///
/// # Errors
/// When the TLS library refuses its settings.
pub async fn inspect(config: &Config, url: &str, connect: bool) -> Result<Inspection, SenderError> {
    let policy = Arc::new(ArcSwap::from_pointee(config.egress_policy()));
    // Reads the machine's certificates, which may take a moment.
    let roots = tokio::task::spawn_blocking(TrustedRoots::system).await.unwrap_or_else(|_| TrustedRoots::none());
    let sender = Sender::new(policy, Arc::new(SystemResolver::default()), roots)?;
    Ok(sender.inspect(url, connect).await)
}
