//! `lutine serve`: the daemon itself.

use clap::Args;

use super::failure::Failure;
use super::output::Format;
use super::settings::{OnlyHere, Settings};

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
        crate::daemon::run(config).map_err(|error| Failure::not_started("the daemon has not started", &error))
    }
}
