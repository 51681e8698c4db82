//! Benches of the real daemon, against limits that are measured in the same run: a null HTTP server, a bare HTTP client
//! and an append-only file.
//!
//! `cargo bench` runs all of them, `cargo bench -- publish page` only some; see [`settings::USAGE`].
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::panic,
    reason = "a bench that meets the unexpected ends at once, with the place"
)]

mod bare;
mod clock;
mod daemon;
mod day;
mod disk;
mod groups;
mod helper;
mod histogram;
mod http;
mod insurance;
mod load;
mod null;
mod paced;
mod process;
mod report;
mod requests;
mod settings;
mod sick;
mod sink;
mod store;
mod streams;
mod subscriptions;

use std::process::ExitCode;

use groups::Bench;
use settings::{Group, Settings, USAGE};

fn main() -> ExitCode {
    if let Some(answer) = null::asked_for() {
        null::serve(&answer);
        return ExitCode::SUCCESS;
    }
    if let Some(count) = sick::asked_for() {
        sick::serve(count);
        return ExitCode::SUCCESS;
    }
    if sink::asked_for() {
        sink::serve();
        return ExitCode::SUCCESS;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --all-targets` runs this too, and without the option.
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let settings = match Settings::read(arguments.into_iter()) {
        Ok(settings) => settings,
        Err(fault) => {
            eprintln!("{fault}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    process::raise_file_limit();
    let mut bench = Bench::new(settings);
    report::print_machine(bench.root(), &bench.settings);
    for group in Group::ALL {
        if bench.settings.asks_for(group) {
            eprintln!("{} ...", group.name());
            match group {
                Group::Limits => groups::limits::run(&mut bench),
                Group::Page => groups::read::run_page(&mut bench),
                Group::Get => groups::read::run_get(&mut bench),
                Group::Bearer => groups::read::run_bearer(&mut bench),
                Group::Filtered => groups::read::run_filtered(&mut bench),
                Group::Publish => groups::publish::run(&mut bench),
                Group::Open => groups::open::run(&mut bench),
                Group::Seal => groups::seal::run(&mut bench),
                Group::Disk => groups::disk::run(&mut bench),
                Group::Deliver => groups::deliver::run(&mut bench),
                Group::Profiles => groups::deliver::run_profiles(&mut bench),
                Group::Fanout => groups::deliver::run_fanout(&mut bench),
                Group::Backlog => groups::deliver::run_backlog(&mut bench),
                Group::Order => groups::deliver::run_order(&mut bench),
                Group::Idle => groups::idle::run(&mut bench),
                Group::Sick => groups::sick::run(&mut bench),
                Group::Stream => groups::stream::run(&mut bench),
            }
        }
    }
    bench.report.summary();
    ExitCode::SUCCESS
}
