//! The command line: what people and scripts of the operator type.
//!
//! `serve` is the daemon. Every other command but `config check` speaks the HTTP API through [`transport`], so that it does
//! the same over the network, over the local socket, and on a daemon that does not run.

mod batch;
mod catalog;
mod clients;
mod companies;
mod config;
mod cursors;
mod deliveries;
mod demo;
mod egress;
mod events;
mod failure;
mod follow;
mod interruption;
mod keys;
mod listen;
mod options;
mod output;
mod pointer;
mod replays;
mod secret;
mod serve;
mod settings;
mod sink;
mod subscribe;
mod subscriptions;
mod tail;
mod transport;
mod trigger;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::failure::Failure;
use self::output::Format;
use self::settings::Settings;
use self::transport::{Connection, Need};

/// An events appliance for insurers: a durable log with a REST API, in one daemon with one data directory
#[derive(Debug, Parser)]
#[command(name = "lutine", version, max_term_width = 110, after_help = EXAMPLES)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: Settings,
}

const EXAMPLES: &str = "\
Without a command, `lutine` is `lutine serve`.

Examples:
  lutine demo
  lutine serve
  lutine company create --slug acme --country dk
  lutine key create --company acme --scope events:write --scope events:read
  lutine event publish --type claim.created --payload '{\"claimId\":\"c-1\"}'
  lutine event tail --types 'claim.*'
  lutine subscription create --url https://partner.example/hooks --types 'claim.*'

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 78 wrong configuration.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon until it is told to stop
    Serve(serve::Serve),
    /// See all of it work, on this machine, in a second: publish, page, deliver, fail, retry
    Demo(demo::Demo),
    /// Create and list companies, the tenants of a daemon
    #[command(subcommand)]
    Company(companies::Command),
    /// Create, list and revoke API keys
    #[command(subcommand)]
    Key(keys::Command),
    /// Create, change and revoke OAuth clients, which fetch access tokens with a secret or a private key
    #[command(subcommand)]
    Client(clients::Command),
    /// Publish and read events
    #[command(subcommand)]
    Event(events::Command),
    /// Keep the cursors of readers under a name, and see how far behind they are
    #[command(subcommand)]
    Cursor(cursors::Command),
    /// Create subscriptions, and see and change how their webhooks go
    #[command(subcommand)]
    Subscription(subscriptions::Command),
    /// See how webhooks went, send them again, or give them up
    #[command(subcommand)]
    Delivery(deliveries::Command),
    /// See where webhooks may go, and which rule decides
    #[command(subcommand)]
    Egress(egress::Command),
    /// See how far replays are, and end them; `lutine subscription replay` starts one
    #[command(subcommand)]
    Replay(replays::Command),
    /// Publish a sample of an event type from the catalogue
    Trigger(trigger::Trigger),
    /// Forward events to a URL of your own as signed webhooks, without a subscription
    Listen(listen::Listen),
    /// Receive webhooks: check their signatures, print them, and answer as told
    Sink(sink::SinkCommand),
    /// Check the configuration
    #[command(subcommand)]
    Config(config::Command),
    /// Check the catalogue of event types
    #[command(subcommand)]
    Catalog(catalog::Command),
    /// Read the whole store and check every checksum and the order of events
    Verify(verify::Verify),
}

/// Reads the command line, does what it says, and tells how it went.
#[must_use]
pub fn main() -> ExitCode {
    let CommandLine { command, settings } = CommandLine::parse();
    let as_json = settings.output == Some(Format::Json);
    match run(command.unwrap_or(Command::Serve(serve::Serve::default())), &settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(as_json),
    }
}

fn run(command: Command, settings: &Settings) -> Result<(), Failure> {
    match command {
        Command::Serve(serve) => serve.run(settings),
        Command::Config(command) => command.run(settings),
        Command::Catalog(command) => command.run(settings),
        Command::Sink(sink) => wait_for(sink.run(settings)),
        Command::Demo(demo) => wait_for(demo.run(settings)),
        command => wait_for(run_connected(command, settings)),
    }
}

fn wait_for(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::caused("the command cannot start", &error))?.block_on(command)
}

async fn run_connected(command: Command, settings: &Settings) -> Result<(), Failure> {
    let need = match &command {
        Command::Company(command) => command.need(),
        Command::Event(command) => command.need(),
        Command::Listen(_) => Need::Daemon,
        _ => Need::Store,
    };
    let connection = match &command {
        Command::Subscription(subscriptions::Command::Create(_)) => {
            Connection::open(&settings.without_url(std::env::args_os())?, need).await?
        }
        _ => Connection::open(settings, need).await?,
    };
    let format = Format::chosen(settings.output);
    let done = match command {
        Command::Company(command) => command.run(&connection, format).await,
        Command::Key(command) => command.run(&connection, format).await,
        Command::Client(command) => command.run(&connection, format).await,
        Command::Event(command) => command.run(&connection, format).await,
        Command::Cursor(command) => command.run(&connection, format).await,
        Command::Subscription(command) => command.run(&connection, format).await,
        Command::Delivery(command) => command.run(&connection, format).await,
        Command::Egress(command) => command.run(&connection, format).await,
        Command::Replay(command) => command.run(&connection, format).await,
        Command::Trigger(trigger) => trigger.run(&connection, format).await,
        Command::Verify(verify) => verify.run(&connection, format).await,
        Command::Listen(listen) => listen.run(&connection, settings, format).await,
        Command::Serve(_) | Command::Config(_) | Command::Catalog(_) | Command::Sink(_) | Command::Demo(_) => Ok(()),
    };
    connection.close();
    done
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_tree_of_commands_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn every_command_that_does_something_shows_examples() {
        fn visit(command: &clap::Command) {
            if !command.has_subcommands() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Example"), "`{}` shows no example", command.get_name());
            }
            command.get_subcommands().for_each(visit);
        }
        visit(&CommandLine::command());
    }

    #[test]
    fn options_that_a_command_refuses_are_not_in_its_help() {
        let mut command = CommandLine::command();
        command.build();
        let help = |command: &clap::Command| command.clone().render_long_help().to_string();
        let serve = help(command.find_subcommand("serve").unwrap());
        assert!(serve.contains("--data-dir") && !["--url", "--api-key", "--output"].iter().any(|option| serve.contains(option)), "{serve}");
        let check = help(command.find_subcommand("config").unwrap().find_subcommand("check").unwrap());
        assert!(check.contains("--output") && !["--url", "--api-key"].iter().any(|option| check.contains(option)), "{check}");
        for words in [["lutine", "serve", "--url", "https://a"], ["lutine", "--url", "https://a", "serve"]] {
            let CommandLine { command, settings } = CommandLine::try_parse_from(words).unwrap();
            assert!(matches!(run(command.unwrap(), &settings), Err(Failure::Usage(text)) if text.contains("this machine only")));
        }
    }

    #[test]
    fn options_of_every_command_stand_before_and_behind_it() {
        for words in [["lutine", "--data-dir", "d", "company", "list"], ["lutine", "company", "list", "--data-dir", "d"]] {
            let line = CommandLine::try_parse_from(words).unwrap();
            assert_eq!(line.settings.data_dir(), Some(std::path::Path::new("d")));
        }
        assert!(CommandLine::try_parse_from(["lutine", "--data-dir", "d"]).unwrap().command.is_none());
    }
}
