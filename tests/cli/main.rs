//! The command line as a black box: the real binary, its output, and its exit codes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod demo;
mod receive;
mod round_trip;
mod subscriptions;
mod tail;
mod wrong;

#[path = "../support/mod.rs"]
mod support;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};

use serde_json::Value;

use self::support::{PATIENCE, wait_until};

/// The binary without a data directory, in an empty surrounding.
fn bare(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lutine"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LUTINE_")) {
        command.env_remove(name);
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// A command that goes on until it is told to stop; killed when dropped.
struct Running {
    child: Child,
    lines: Receiver<String>,
    notes: Receiver<String>,
}

/// Lines as they come, read on so that the pipe never fills.
fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let (lines, notes) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
        Self { child, lines, notes }
    }

    /// The next line on standard output.
    #[track_caller]
    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line on standard output")
    }

    /// The next line as JSON.
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.line()).expect("a line of JSON")
    }

    /// The next note on standard error that begins so; what stands behind it.
    #[track_caller]
    fn note(&self, start: &str) -> String {
        loop {
            let note = self.notes.recv_timeout(PATIENCE).expect("a line on standard error");
            if let Some(rest) = note.strip_prefix(start) {
                return rest.to_owned();
            }
        }
    }

    fn interrupt(&self) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::INT).expect("it runs");
    }

    /// Waits for the end.
    fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the end of the command", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}
