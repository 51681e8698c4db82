//! The API without a daemon: for commands that find none running on their data directory.

use std::sync::Arc;

use super::assembly::{Assembly, Ground, Role};
use super::{Seams, StartError};
use crate::config::Config;
use crate::http::{Direct, DirectReply};

/// A store opened by this process, and the API over it. The caller is the administrator.
#[derive(Debug)]
pub struct Offline {
    assembly: Assembly,
    api: Direct,
}

impl Offline {
    /// Opens the store of the configuration's data directory.
    ///
    /// # Errors
    /// See [`StartError`]; among them that a daemon has the directory.
    pub fn open(config: &Config) -> Result<Self, StartError> {
        let seams = Seams { on_fault: Arc::new(|_| {}), ..Seams::real() };
        let assembly = Assembly::start(Ground::open(config, &seams)?, config.clone(), &seams, Role::Command)?;
        let api = Direct::new(&assembly.services);
        Ok(Self { assembly, api })
    }

    /// Makes one call, as over the local socket.
    ///
    /// # Errors
    /// When method, path or headers cannot be sent, with the reason.
    pub async fn call(&self, method: &str, path_and_query: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Result<DirectReply, String> {
        self.api.call(method, path_and_query, headers, body).await
    }

    /// Writes what waits, and closes the store.
    pub fn close(self) {
        self.assembly.close();
    }
}
