//! This executable again, in another role and a process of its own, so that its processor time is its own.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

use crate::process::Process;

/// A running helper; ends when dropped.
pub struct Helper {
    child: Child,
    pub process: Process,
    /// What it printed when it was ready.
    pub greeting: String,
}

impl Helper {
    /// Starts the role that this variable stands for, and waits for its first line.
    pub fn start(variable: &str, value: impl AsRef<OsStr>) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this executable"))
            .env(variable, value)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the helper starts");
        let mut greeting = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut greeting).unwrap();
        let process = Process::new(child.id());
        Self { child, process, greeting: greeting.trim().to_owned() }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// For the helper: says that it is ready, and ends it when standard input closes, as it does when the bench ends in whatever way.
pub fn greet(greeting: &str) {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    println!("{greeting}");
    std::io::stdout().flush().unwrap();
}
