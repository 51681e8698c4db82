//! The real binary as a black box: started, asked through its command line, ended by signals.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{PATIENCE, wait_until};

const READY: &str = "lutine listening on http://";

/// The binary whose surroundings cannot change what it does: no other `LUTINE_` variables, no configuration of the directory.
pub fn lutine(data_dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lutine"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LUTINE_")) {
        command.env_remove(name);
    }
    command.args(arguments).arg("--data-dir").arg(data_dir).current_dir(data_dir.parent().expect("a directory of the test"));
    command.envs([
        ("LUTINE_ENVIRONMENT", "development"),
        ("LUTINE_SERVER__LISTEN", "127.0.0.1:0"),
        ("LUTINE_LOG__FILTER", "warn"),
        ("LUTINE_LOG__FORMAT", "text"),
    ]);
    command
}

/// Runs a command to its end.
pub fn run(data_dir: &Path, arguments: &[&str]) -> Output {
    lutine(data_dir, arguments).stdin(Stdio::null()).output().expect("the binary starts")
}

/// The JSON that a command prints, which must end well.
#[track_caller]
pub fn ask(data_dir: &Path, arguments: &[&str]) -> Value {
    let output = run(data_dir, &[arguments, &["--output", "json"]].concat());
    assert!(output.status.success(), "lutine {arguments:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("the command prints JSON")
}

/// A running binary; killed when dropped.
pub struct RealDaemon {
    child: Child,
    pub address: SocketAddr,
}

impl RealDaemon {
    /// Starts the binary on a data directory with variables, and waits for its ready line.
    ///
    /// # Panics
    /// With what the daemon wrote, when it does not get ready.
    pub fn start(data_dir: &Path, variables: &[(&str, &str)]) -> Self {
        let said = data_dir.with_extension("stderr");
        let mut child = lutine(data_dir, &["serve"])
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&said).unwrap())
            .spawn()
            .expect("the binary starts");
        let (sender, receiver) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        // Reads on after the ready line, so that the pipe never fills.
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if let Some(address) = line.trim().strip_prefix(READY) {
                    let _heard = sender.send(address.parse());
                }
            }
        });
        match receiver.recv_timeout(PATIENCE) {
            Ok(address) => Self { child, address: address.expect("the ready line ends with an address") },
            Err(_) => {
                let _killed = child.kill();
                let status = child.wait().unwrap();
                panic!("the daemon did not get ready: {status}\n{}", std::fs::read_to_string(said).unwrap_or_default());
            }
        }
    }

    /// SIGKILL, and the end of it.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the daemon runs");
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the end of the daemon", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for RealDaemon {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// A directory of its own, and the data directory in it.
pub fn data_dir() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    (folder, data_dir)
}
