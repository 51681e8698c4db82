//! Options that every command takes, and where they lead: to a data directory of this machine, or over the network.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;
use url::Url;

use super::failure::Failure;
use super::output::Format;
use crate::catalog::{Catalog, Validation};
use crate::config::{self, Config, Fault, Faults, Overrides};
use crate::telemetry::logs;

/// Options that every command takes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Settings {
    /// The configuration [env: LUTINE_CONFIG] [default: ./config.toml, else /etc/lutine/config.toml, else built in]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the store lies, in place of what the configuration says
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// How results are printed, as a table or as json [default: table on a terminal, else json]
    #[arg(long, global = true, value_enum, value_name = "table|json", hide_possible_values = true)]
    pub output: Option<Format>,
    /// Work over the network with the daemon at this address [env: LUTINE_URL]
    #[arg(long, global = true, value_name = "URL", conflicts_with = "data_dir")]
    url: Option<String>,
    /// The key for --url [env: LUTINE_API_KEY, where other users cannot see it]
    #[arg(long, global = true, value_name = "KEY")]
    api_key: Option<String>,
}

/// Stands in for the options of the network in a command that works on this machine only: they are not shown in its help,
/// and [`Settings::demand_here`] refuses them by name.
#[derive(Debug, Default, Args)]
pub struct OnlyHere {
    #[arg(long, hide = true, value_name = "URL")]
    url: Option<String>,
    #[arg(long, hide = true, value_name = "KEY")]
    api_key: Option<String>,
}

/// Where a command works.
#[derive(Debug, PartialEq, Eq)]
pub enum Place {
    /// On this machine.
    Here,
    /// Over the network.
    Network {
        /// The address of the daemon.
        url: Url,
        /// With which key.
        api_key: String,
    },
}

impl Settings {
    /// The data directory that an option names.
    #[must_use]
    pub fn data_dir(&self) -> Option<&Path> {
        self.data_dir.as_deref()
    }

    /// The same for the command whose own `--url` is a receiver's and stands in the place of this one; `words` are those of
    /// the command line.
    ///
    /// # Errors
    /// When the daemon is named by option as well: the command must not work elsewhere than it was told.
    pub fn without_url(&self, words: impl IntoIterator<Item = OsString>) -> Result<Self, Failure> {
        let is_url = |word: &OsString| word == "--url" || word.as_encoded_bytes().starts_with(b"--url=");
        let names_both = words.into_iter().filter(is_url).count() > 1;
        if names_both || (self.api_key.is_some() && variable("LUTINE_URL").is_none()) {
            let text = "here --url is the receiver's: name the daemon with LUTINE_URL, and the key with LUTINE_API_KEY";
            return Err(Failure::Usage(text.to_owned()));
        }
        Ok(Self { url: None, ..self.clone() })
    }

    /// Refuses the options of the network, for commands that work on this machine only.
    ///
    /// # Errors
    /// When one of them was given.
    pub fn demand_here(&self, only_here: &OnlyHere, command: &str) -> Result<(), Failure> {
        let given = [&self.url, &self.api_key, &only_here.url, &only_here.api_key];
        match given.iter().any(|option| option.is_some()) {
            false => Ok(()),
            true => Err(Failure::Usage(format!("`lutine {command}` works on this machine only; it takes neither --url nor --api-key"))),
        }
    }

    /// Where to work. An option wins over a variable: whoever names a directory means this machine.
    ///
    /// # Errors
    /// When an address has no key, or is none.
    pub fn place(&self) -> Result<Place, Failure> {
        self.place_with(variable)
    }

    fn place_with(&self, variable: impl Fn(&str) -> Option<String>) -> Result<Place, Failure> {
        let is_here = self.data_dir.is_some() || self.config.is_some();
        let from_variable = || if is_here { None } else { variable("LUTINE_URL").map(|url| ("LUTINE_URL", url)) };
        let Some((source, url)) = self.url.clone().map(|url| ("--url", url)).or_else(from_variable) else {
            return match self.api_key {
                Some(_) => Err(Failure::Usage("--api-key is for work over the network: add --url".to_owned())),
                None => Ok(Place::Here),
            };
        };
        let is_address = |url: &Url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.query().is_none()
                && url.fragment().is_none()
                && url.username().is_empty()
        };
        let parsed = Url::parse(&url).ok().filter(is_address);
        let Some(url) = parsed else {
            let text = format!("{source} must be an address such as https://events.insurer.example, not `{url}`");
            return Err(Failure::Usage(text));
        };
        let api_key = self.api_key.clone().or_else(|| variable("LUTINE_API_KEY"));
        match api_key.map(|key| key.trim().to_owned()) {
            Some(api_key) if !api_key.is_empty() && api_key.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Ok(Place::Network { url, api_key })
            }
            Some(_) => Err(Failure::Usage("the API key holds characters that no key has; check that it was copied whole".to_owned())),
            None => Err(Failure::Usage(format!("{source} needs a key: add --api-key, or set LUTINE_API_KEY"))),
        }
    }

    /// The file that the configuration is read from, if there is one.
    #[must_use]
    pub fn config_file(&self) -> Option<PathBuf> {
        let named = self.config.clone().or_else(|| variable("LUTINE_CONFIG").map(PathBuf::from));
        config::find(named.as_deref())
    }

    /// The configuration, and what it leads to looked at as well: the catalogue's file and the log filter.
    ///
    /// # Errors
    /// With everything that is wrong.
    pub fn whole_config(&self) -> Result<Config, Failure> {
        let config = self.config()?;
        let faults = faults_behind(&config);
        if faults.is_empty() { Ok(config) } else { Err(Failure::Config(Faults(faults))) }
    }

    /// The configuration with all its layers.
    ///
    /// # Errors
    /// With everything that is wrong.
    pub fn config(&self) -> Result<Config, Failure> {
        let file = self.config_file();
        let variables = std::env::vars_os().map(|(name, value)| (text(name), text(value)));
        let overrides = Overrides { data_dir: self.data_dir.clone() };
        Config::load(file.as_deref(), variables, &overrides).map_err(|Faults(mut faults)| {
            let lacks_environment = faults.iter().any(|fault| fault.key.as_deref() == Some("server.behind_proxy"));
            if file.is_none() && lacks_environment {
                let message = "no configuration was found (./config.toml, /etc/lutine/config.toml); name one with --config";
                faults.push(Fault { file: None, line: None, key: None, message: message.to_owned() });
            }
            Failure::Config(Faults(faults))
        })
    }
}

/// What is wrong with the files and texts that the configuration leads to.
fn faults_behind(config: &Config) -> Vec<Fault> {
    let mut faults = Vec::new();
    if let Err(error) = logs::check_filter(&config.log.filter) {
        const KEY: &str = "log.filter";
        let source = config.effective().into_iter().find(|(key, ..)| *key == KEY).map(|(_, _, source)| source).unwrap_or_default();
        let place = source.rsplit_once(':').and_then(|(file, line)| Some((PathBuf::from(file), line.parse().ok()?)));
        let (file, line) = place.map_or((None, None), |(file, line)| (Some(file), Some(line)));
        let message = error.to_string();
        let message = message.strip_prefix("log.filter: ").unwrap_or(&message).to_owned();
        faults.push(Fault { file, line, key: Some(KEY.to_owned()), message });
    }
    let catalog_file = Some(config.catalog.file.as_path()).filter(|path| !path.as_os_str().is_empty());
    if let Err(error) = Catalog::load(catalog_file, config.catalog.strict, Validation::Off) {
        let in_file = |fault: crate::catalog::CatalogFault| Fault {
            file: Some(fault.file),
            line: Some(fault.line),
            key: None,
            message: fault.message,
        };
        faults.extend(error.0.into_iter().map(in_file));
    }
    faults
}

fn text(value: OsString) -> String {
    value.to_string_lossy().into_owned()
}

/// A variable of the environment; an empty one counts as not set.
fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(text).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(name: &str) -> Option<String> {
        match name {
            "LUTINE_URL" => Some("https://variable.example/lutine/".to_owned()),
            "LUTINE_API_KEY" => Some("evk_variable".to_owned()),
            _ => None,
        }
    }

    fn refusal(settings: &Settings) -> String {
        match settings.place_with(|_| None) {
            Err(Failure::Usage(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_option_wins_over_a_variable() {
        let from_variables = Settings::default().place_with(variables).unwrap();
        let url = Url::parse("https://variable.example/lutine/").unwrap();
        assert_eq!(from_variables, Place::Network { url, api_key: "evk_variable".to_owned() });
        let settings = Settings { url: Some("http://option.example".to_owned()), ..Settings::default() };
        let url = Url::parse("http://option.example").unwrap();
        assert_eq!(settings.place_with(variables).unwrap(), Place::Network { url, api_key: "evk_variable".to_owned() });
        let settings = Settings { data_dir: Some(PathBuf::from("here")), ..Settings::default() };
        assert_eq!(settings.place_with(variables).unwrap(), Place::Here);
    }

    #[test]
    fn an_address_needs_a_key_and_a_key_an_address() {
        let url = Some("https://events.example".to_owned());
        assert_eq!(
            refusal(&Settings { url: url.clone(), ..Settings::default() }),
            "--url needs a key: add --api-key, or set LUTINE_API_KEY"
        );
        assert!(refusal(&Settings { api_key: Some("evk_1".to_owned()), ..Settings::default() }).contains("add --url"));
        assert!(refusal(&Settings { url, api_key: Some("evk_1\r\nX: 1".to_owned()), ..Settings::default() }).contains("characters"));
    }

    #[test]
    fn what_is_no_address_is_named() {
        for url in ["events.example", "ftp://events.example", "https://events.example?a=1", "https://me@events.example"] {
            let settings = Settings { url: Some(url.to_owned()), api_key: Some("evk_1".to_owned()), ..Settings::default() };
            assert!(refusal(&settings).contains(url), "{url}");
        }
    }
}
