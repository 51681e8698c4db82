//! Where the demonstration plays: a directory that goes away, a daemon in this process, and the ways to it.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;
use url::Url;

use crate::cli::failure::Failure;
use crate::cli::output::note;
use crate::cli::transport::{Connection, DaemonConnection, Request};
use crate::config::{Config, Overrides};
use crate::daemon::{Daemon, Seams};

/// The company that everything belongs to.
pub const COMPANY: &str = "demo";
const SCOPES: [&str; 5] = ["events:read", "events:write", "subscriptions:read", "subscriptions:write", "deliveries:read"];

/// Bytes of the path of temporary files: the path of a socket, which lies below, has at most 107 (sun_path, unix(7)).
const PLACE_BYTES_MAX: usize = 64;

/// A directory that is removed when it is dropped.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn make() -> io::Result<Self> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let place = Some(std::env::temp_dir()).filter(|place| place.as_os_str().len() <= PLACE_BYTES_MAX);
        let path = place.unwrap_or_else(|| PathBuf::from("/tmp")).join(format!("lutine-demo-{:016x}", u64::from_ne_bytes(random)));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            note(&format!("warning: {} could not be removed: {error}", self.0.display()));
        }
    }
}

/// A daemon that runs in this process.
#[derive(Debug)]
pub struct Stage {
    daemon: Daemon,
    folder: Folder,
}

#[derive(Debug, Deserialize)]
struct Key {
    key: String,
}

impl Stage {
    /// Starts a development daemon on a free port of loopback.
    ///
    /// # Errors
    /// When there is no directory for it, or it does not start.
    pub fn set() -> Result<Self, Failure> {
        let folder = Folder::make().map_err(|error| Failure::caused("a temporary directory cannot be made", &error))?;
        // No file and no variable of the surroundings: the demonstration is the same everywhere.
        let variables =
            [("LUTINE_ENVIRONMENT", "development"), ("LUTINE_SERVER__LISTEN", "127.0.0.1:0"), ("LUTINE_SERVER__HTTP_RUNTIMES", "1")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let config = Config::load(None, variables, &Overrides { data_dir: Some(folder.0.clone()) }).map_err(Failure::Config)?;
        let path = folder.0.clone();
        let on_fault = Arc::new(move |fault: &crate::store::StorageFault| {
            note(&format!("error: the storage failed: {fault}"));
            let _removed = std::fs::remove_dir_all(&path);
            std::process::exit(1);
        });
        let daemon = Daemon::start(config, &Seams { on_fault, ..Seams::real() });
        let daemon = daemon.map_err(|error| Failure::not_started("the daemon has not started", &error))?;
        Ok(Self { daemon, folder })
    }

    /// The address of the daemon.
    pub fn url(&self) -> String {
        format!("http://{}", self.daemon.address())
    }

    /// Where it stores.
    pub fn data_dir(&self) -> &Path {
        &self.folder.0
    }

    /// Makes a company and a key as an administrator; the way to the daemon over the network, with that key.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub async fn enter(&self) -> Result<Connection, Failure> {
        let local = DaemonConnection::over_socket(self.data_dir())?;
        let local = local.map(Connection::Daemon).ok_or_else(|| Failure::Failed("the daemon is not on its local socket".to_owned()))?;
        let company = json!({"slug": COMPANY, "name": "Demonstration"});
        local.call(Request::post_json("/api/v1/admin/companies", &company)).await?.success()?;
        let key = json!({"company": COMPANY, "scopes": SCOPES, "name": "demonstration"});
        let answer = local.call(Request::post_json("/api/v1/admin/keys", &key)).await?.success()?;
        let Key { key } = answer.json()?;
        let url = Url::parse(&self.url()).map_err(|error| Failure::caused("the daemon has no address", &error))?;
        DaemonConnection::over_network(&url, key).map(Connection::Daemon)
    }

    /// Ends the daemon in order and removes what it stored.
    pub async fn clear(self) {
        let Self { daemon, folder } = self;
        // It waits for threads, while the connections to them are served here.
        let _ended = tokio::task::spawn_blocking(move || daemon.stop()).await;
        drop(folder);
    }
}
