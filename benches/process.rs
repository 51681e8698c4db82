//! What the kernel knows of a running process: processor time and memory.

use std::fs;
use std::time::Duration;

/// Raises the limit of open files of this process to what the operating system allows: each client of a stream is one.
pub fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).expect("a limit may be raised to its maximum");
}

/// Another process of this machine, known by its number.
#[derive(Debug, Clone, Copy)]
pub struct Process {
    pid: u32,
}

impl Process {
    pub fn new(pid: u32) -> Self {
        Self { pid }
    }

    /// User and system time of all threads so far.
    ///
    /// The living threads are known to the nanosecond, the ended ones (a finished seal) only through the total in ticks
    /// of 10 ms. Neither exceeds the truth, so the larger one is nearer to it.
    pub fn cpu(&self) -> Duration {
        self.cpu_by_thread().max(self.cpu_by_tick())
    }

    /// Resident memory now, in bytes.
    pub fn resident(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most resident memory since the last [`Process::reset_peak`], in bytes.
    pub fn resident_peak(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// Lets the kernel forget the peak of resident memory. Where that is not allowed, the peak is that of the whole life.
    pub fn reset_peak(&self) {
        let _ = fs::write(format!("/proc/{}/clear_refs", self.pid), "5");
    }

    fn cpu_by_thread(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid)).expect("the process runs");
        let nanoseconds = tasks
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
            .filter_map(|line| line.split(' ').next()?.parse::<u64>().ok())
            .sum();
        Duration::from_nanos(nanoseconds)
    }

    fn cpu_by_tick(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).expect("the process runs");
        // The name in parentheses may hold spaces; behind it utime and stime are the fields 14 and 15 of proc(5).
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }

    fn status(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("the process runs");
        let line = status.lines().find(|line| line.starts_with(field)).expect("a field of proc(5)");
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}
