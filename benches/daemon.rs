//! The real binary as a black box: started, asked through its command line, killed.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::http::Client;
use crate::process::Process;

const BINARY: &str = env!("CARGO_BIN_EXE_lutine");
/// What the daemon prints when it takes connections, before its address.
const READY: &str = "lutine listening on http://";
/// The longest that a start or a stop may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// The settings in which the daemons of a bench differ.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub segment_bytes_max: u64,
    pub segment_hours_max: f64,
}

impl Options {
    /// The daemon's own defaults.
    pub const DEFAULT: Self = Self { segment_bytes_max: 256 * 1024 * 1024, segment_hours_max: 24.0 };

    pub fn with_segments_of(segment_bytes_max: u64) -> Self {
        Self { segment_bytes_max, ..Self::DEFAULT }
    }
}

/// A running daemon; killed when dropped.
pub struct Daemon {
    child: Child,
    data_dir: PathBuf,
    pub address: SocketAddr,
    pub process: Process,
    /// From the start of the process to its ready line.
    pub ready_after: Duration,
    was_stopped: bool,
}

impl Daemon {
    /// # Panics
    /// With what the daemon wrote, when it does not get ready.
    pub fn start(data_dir: &Path, options: Options) -> Self {
        Self::try_start(data_dir, options).unwrap_or_else(|fault| panic!("the daemon did not get ready:\n{fault}"))
    }

    pub fn try_start(data_dir: &Path, options: Options) -> Result<Self, String> {
        let fault_file = data_dir.with_extension("stderr");
        let started = Instant::now();
        let mut child = lutine(data_dir, &["serve"])
            .env("LUTINE_LOG_STORE__SEGMENT_BYTES_MAX", options.segment_bytes_max.to_string())
            .env("LUTINE_LOG_STORE__SEGMENT_HOURS_MAX", format!("{:?}", options.segment_hours_max))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&fault_file).expect("a file for what the daemon says"))
            .spawn()
            .expect("the daemon's binary starts");
        let (sender, receiver) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        // Reads on after the ready line, so that the pipe never fills.
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if let Some(address) = line.trim().strip_prefix(READY) {
                    // Nobody listens any more when the start took too long.
                    let _ = sender.send((Instant::now(), address.parse::<SocketAddr>()));
                }
            }
        });
        let process = Process::new(child.id());
        match receiver.recv_timeout(PATIENCE) {
            Ok((at, address)) => {
                let address = address.expect("the ready line ends with an address");
                Ok(Self { child, data_dir: data_dir.to_owned(), address, process, ready_after: at - started, was_stopped: false })
            }
            Err(_) => {
                let _ = child.kill();
                let status = child.wait().expect("the daemon's status");
                Err(format!("{status}\n{}", std::fs::read_to_string(&fault_file).unwrap_or_default()))
            }
        }
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(mut self) {
        self.end_at_once();
    }

    /// SIGTERM, and waits for the orderly end.
    pub fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("the daemon runs");
        let asked = Instant::now();
        while asked.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().expect("the daemon's status") {
                self.was_stopped = true;
                assert!(status.success(), "SIGTERM ended the daemon with {status}");
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("SIGTERM did not end the daemon within {PATIENCE:?}");
    }

    /// Ends it in an orderly way and starts it again.
    pub fn restart(self, options: Options) -> Self {
        let data_dir = self.data_dir.clone();
        self.stop();
        Self::start(&data_dir, options)
    }

    /// Makes a company and a key that publishes, reads and subscribes for it.
    pub fn make_key(&self) -> String {
        ask(&self.data_dir, &["company", "create", "--slug", "bench", "--name", "Bench"]);
        let mut arguments = vec!["key", "create", "--company", "bench"];
        for scope in ["events:write", "events:read", "subscriptions:write", "subscriptions:read"] {
            arguments.extend(["--scope", scope]);
        }
        let made = ask(&self.data_dir, &arguments);
        made["key"].as_str().expect("`key create` prints the key").to_owned()
    }

    /// Makes a client of the company that [`Daemon::make_key`] makes, and fetches an access token for it.
    pub fn make_token(&self) -> String {
        let scopes = ["--scope", "events:write", "--scope", "events:read"];
        let made = ask(&self.data_dir, &[&["client", "create", "--company", "bench"], &scopes[..]].concat());
        let [id, secret] = ["id", "secret"].map(|member| made[member].as_str().expect("`client create` prints the client"));
        let form = format!("grant_type=client_credentials&client_id={id}&client_secret={secret}");
        let head = "POST /oauth2/token HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded";
        let request = format!("{head}\r\nContent-Length: {}\r\n\r\n{form}", form.len());
        let answer = Client::connect(self.address, "").send(request.as_bytes(), 200).body().into_owned();
        let answer: Value = serde_json::from_slice(&answer).expect("a token comes as JSON");
        answer["access_token"].as_str().expect("an access token").to_owned()
    }

    /// The sum of a metric over its labels, if the daemon has it. Counters end in `_total`, histograms have `_sum` and `_count`.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let mut client = Client::connect(self.address, "");
        let text = String::from_utf8_lossy(&client.get("/metrics").body()).into_owned();
        let samples = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let series_name = series.split('{').next()?;
            (series_name == name).then(|| value.parse::<f64>().ok())?
        });
        samples.reduce(|sum, value| sum + value)
    }

    pub fn log_files(&self) -> LogFiles {
        LogFiles::read(&self.data_dir)
    }

    /// Waits until sealing has caught up with the log; false when it has not within two minutes.
    pub fn wait_until_sealed(&self) -> bool {
        let asked = Instant::now();
        while self.log_files().is_sealing() {
            if asked.elapsed() > PATIENCE {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }

    fn end_at_once(&mut self) {
        if !self.was_stopped
            && let Ok(Some(status)) = self.child.try_wait()
        {
            let said = std::fs::read_to_string(self.data_dir.with_extension("stderr")).unwrap_or_default();
            eprintln!("the daemon had ended before it was asked to, with {status}:\n{said}");
        }
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end_at_once();
    }
}

/// The files of the event log: `N.redb` open or waiting for its seal, `N.sealed.redb`, and `N.sealing` in the making.
#[derive(Debug, Default)]
pub struct LogFiles {
    pub open: Vec<PathBuf>,
    pub sealed: Vec<PathBuf>,
    in_the_making: usize,
}

impl LogFiles {
    pub fn read(data_dir: &Path) -> Self {
        let mut files = Self::default();
        let Ok(entries) = data_dir.join("log").read_dir() else { return files };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match name.strip_suffix(".redb") {
                Some(stem) if stem.ends_with(".sealed") => files.sealed.push(path),
                Some(_) => files.open.push(path),
                None if name.ends_with(".sealing") => files.in_the_making += 1,
                None => {}
            }
        }
        files
    }

    pub fn is_sealing(&self) -> bool {
        self.open.len() > 1 || self.in_the_making > 0
    }
}

/// A command whose surroundings cannot change what it does: no other `LUTINE_` variables, no configuration file of the directory.
fn lutine(data_dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LUTINE_")) {
        command.env_remove(name);
    }
    command.args(arguments).arg("--data-dir").arg(data_dir).current_dir(data_dir.parent().expect("a directory inside the bench's own"));
    command.envs([
        ("LUTINE_ENVIRONMENT", "development"),
        ("LUTINE_SERVER__LISTEN", "127.0.0.1:0"),
        ("LUTINE_LOG__FILTER", "warn"),
        ("LUTINE_LOG__FORMAT", "text"),
        ("LUTINE_TELEMETRY__METRICS_OPEN", "true"),
        ("LUTINE_DELIVERY__PER_SUBSCRIPTION_MAX", "64"),
        ("LUTINE_RATE_LIMITS__READ_PER_MINUTE", "0"),
        ("LUTINE_RATE_LIMITS__WRITE_PER_MINUTE", "0"),
        ("LUTINE_RATE_LIMITS__ADMIN_PER_MINUTE", "0"),
    ]);
    command
}

fn ask(data_dir: &Path, arguments: &[&str]) -> Value {
    let output = lutine(data_dir, arguments).args(["--output", "json"]).output().expect("the command line starts");
    assert!(output.status.success(), "lutine {arguments:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("the command line prints JSON")
}
