//! `lutine serve`: the daemon itself.

use clap::Args;

use super::failure::Failure;
use super::output::Format;
use super::settings::{OnlyHere, Settings};
use super::transport::{DaemonConnection, LOCK_TRIES, LOCK_WAIT};
use crate::daemon::StartError;
use crate::store::disk::DataDirectoryError;

/// Options of `lutine serve`.
#[derive(Debug, Default, Args)]
#[command(after_help = "\
It reads its configuration, prints `lutine listening on ...` when it takes connections, and stops in order on SIGTERM.

Examples:
  lutine serve
  lutine serve --config /etc/lutine/config.toml
  LUTINE_ENVIRONMENT=development lutine serve --data-dir ./data")]
pub struct Serve {
    #[command(flatten)]
    only_here: OnlyHere,
    #[arg(long, hide = true, value_enum, value_name = "table|json")]
    output: Option<Format>,
}

impl Serve {
    /// Runs the daemon until it is told to stop.
    pub fn run(self, settings: &Settings) -> Result<(), Failure> {
        settings.demand_here(&self.only_here, "serve")?;
        if settings.output.or(self.output).is_some() {
            return Err(Failure::Usage("`lutine serve` prints no results, so it takes no --output; see log.format".to_owned()));
        }
        let config = settings.whole_config()?;
        let mut tries = 0;
        loop {
            match crate::daemon::run(config.clone()) {
                Ok(()) => return Ok(()),
                Err(StartError::Directory(DataDirectoryError::InUse(data_dir))) if tries < LOCK_TRIES => {
                    if let Some(daemon) = DaemonConnection::over_socket(&data_dir)? {
                        return Err(Failure::Failed(format!("{} runs already", daemon.name())));
                    }
                    // A command that found no daemon has the store open, and is soon done.
                    tries += 1;
                    std::thread::sleep(LOCK_WAIT);
                }
                Err(error) => return Err(Failure::not_started("the daemon has not started", &error)),
            }
        }
    }
}
