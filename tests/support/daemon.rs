//! A daemon in this process: port 0, a directory of its own, a clock that the test moves.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use lutine::config::{Config, Overrides};
use lutine::daemon::{Daemon, Seams};
use lutine::store::faults::Faults;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::clock::TestClock;
use super::http::{Client, Request, SUBSCRIPTIONS};

/// To publish and to read.
pub const ALL_EVENTS: [&str; 2] = ["events:read", "events:write"];

/// To publish and to read, to subscribe, and to look after deliveries.
pub const ALL_HOOKS: [&str; 6] =
    ["events:read", "events:write", "subscriptions:read", "subscriptions:write", "deliveries:read", "deliveries:replay"];

pub struct TestDaemon {
    daemon: Option<Daemon>,
    config: Config,
    folder: TempDir,
    pub clock: Arc<TestClock>,
    fault: Arc<Mutex<Option<String>>>,
}

impl TestDaemon {
    /// A daemon with the settings of development.
    pub fn start() -> Self {
        Self::with(|_| {})
    }

    /// A daemon whose settings are changed first.
    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let variables = [("LUTINE_ENVIRONMENT", "development"), ("LUTINE_SERVER__LISTEN", "127.0.0.1:0")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let overrides = Overrides { data_dir: Some(folder.path().join("data")) };
        let mut config = Config::load(None, variables, &overrides).unwrap();
        change(&mut config);
        let mut daemon = Self { daemon: None, config, folder, clock: Arc::default(), fault: Arc::default() };
        daemon.run();
        daemon
    }

    fn run(&mut self) {
        let known = Arc::clone(&self.fault);
        let seams = Seams {
            clock: Arc::clone(&self.clock) as Arc<dyn lutine::domain::clock::Clock>,
            faults: Faults::default(),
            on_fault: Arc::new(move |fault| *known.lock().unwrap() = Some(fault.to_string())),
        };
        self.daemon = Some(Daemon::start(self.config.clone(), &seams).unwrap());
    }

    /// Ends the daemon in order; the directory stays.
    pub fn stop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop();
        }
    }

    /// Ends the daemon in order, and starts another on the same directory.
    pub fn restart(&mut self) {
        self.restart_with(|_| {});
    }

    /// As [`TestDaemon::restart`], with other settings.
    pub fn restart_with(&mut self, change: impl FnOnce(&mut Config)) {
        self.stop();
        change(&mut self.config);
        self.run();
    }

    /// Takes the daemon out, for a test that ends it from another thread.
    pub fn take(&mut self) -> Daemon {
        self.daemon.take().expect("the daemon runs")
    }

    pub fn address(&self) -> SocketAddr {
        self.daemon.as_ref().expect("the daemon runs").address()
    }

    pub fn data_dir(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    /// The administrator of the machine.
    pub fn local(&self) -> Client {
        Client::local(self.daemon.as_ref().expect("the daemon runs").socket().to_owned())
    }

    /// Somebody who calls with this key.
    pub fn client(&self, key: &str) -> Client {
        Client::new(self.address(), key)
    }

    /// Makes a company; its number.
    pub fn company(&self, slug: &str) -> u64 {
        let made = self.local().post("/api/v1/admin/companies", json!({"slug": slug}).to_string()).expect(201);
        made.id()
    }

    /// Makes a key with scopes for a company.
    pub fn key(&self, company: &str, scopes: &[&str]) -> String {
        self.key_of(&json!({"company": company, "scopes": scopes}))["key"].as_str().unwrap().to_owned()
    }

    /// Makes a key from the body of the call; the answer.
    pub fn key_of(&self, body: &Value) -> Value {
        self.local().post("/api/v1/admin/keys", body.to_string()).expect(201).json()
    }

    /// A system key.
    pub fn system_key(&self) -> String {
        self.key_of(&json!({"scopes": ["admin"]}))["key"].as_str().unwrap().to_owned()
    }

    /// The company `acme`, and a client that publishes and reads for it.
    pub fn acme(&self) -> Client {
        self.company("acme");
        self.client(&self.key("acme", &ALL_EVENTS))
    }

    /// The company `acme`, and a client that also subscribes for it and looks after its deliveries.
    pub fn subscriber(&self) -> Client {
        self.company("acme");
        self.client(&self.key("acme", &ALL_HOOKS))
    }

    /// Waits until `condition` holds while the clock goes on, 10 ms with each look.
    #[track_caller]
    pub fn wait(&self, what: &str, mut condition: impl FnMut() -> bool) {
        super::wait_until(what, || {
            let holds = condition();
            if !holds {
                self.clock.advance(std::time::Duration::from_millis(10));
            }
            holds
        });
    }

    /// Waits until the delivery engine has done whatever it can do at this time of the clock. `client` reads a subscription
    /// that the engine knows.
    #[track_caller]
    pub fn settle(&self, client: &mut Client) {
        super::wait_until("an engine with nothing to do", || {
            let attempts = self.metric("lutine_delivery_attempt_seconds_count");
            let turns = self.metric("lutine_delivery_turns_total");
            // The turn under way may have begun before what the test did last; the one after it has not.
            super::wait_until("two turns of the engine", || {
                // To be asked wakes it.
                client.get(SUBSCRIPTIONS).expect(200);
                self.metric("lutine_delivery_turns_total") >= turns + 2
            });
            // What ended meanwhile may have let something else begin.
            self.metric("lutine_delivery_attempts_in_flight") == 0 && self.metric("lutine_delivery_attempt_seconds_count") == attempts
        });
    }

    /// One of the metrics without labels.
    #[track_caller]
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.local().get("/metrics").expect(200);
        let line = text.text().lines().find_map(|line| line.strip_prefix(name).and_then(|rest| rest.strip_prefix(' ')));
        line.and_then(|value| value.parse::<f64>().ok()).unwrap_or_else(|| panic!("{name} in {}", text.text())) as u64
    }

    /// What the administrator reads in `GET /api/v1/admin/status`.
    pub fn status(&self) -> Value {
        self.local().get("/api/v1/admin/status").expect(200).json()
    }

    /// Waits until no segment waits to be sealed.
    pub fn wait_until_sealed(&self) {
        super::wait_until("sealing", || self.status()["segmentsWaiting"] == 0);
    }

    /// Reads the whole log for damage; the number of events.
    #[track_caller]
    pub fn verify(&self) -> u64 {
        let report = self.local().send(&Request::new("POST", "/api/v1/admin/verify")).expect(200).json();
        assert_eq!(report["ok"], true, "{report}");
        report["events"].as_u64().unwrap()
    }

    /// Files of the log, by name.
    pub fn log_files(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.data_dir().join("log")).unwrap();
        let mut names: Vec<String> = names.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Bytes that a folder of the data directory takes on disk.
    pub fn disk_bytes(&self, folder: &str) -> u64 {
        use std::os::unix::fs::MetadataExt;
        let files = std::fs::read_dir(Path::new(&self.data_dir()).join(folder)).unwrap();
        files.map(|entry| entry.unwrap().metadata().map_or(0, |file| file.blocks() * 512)).sum()
    }
}

impl Drop for TestDaemon {
    fn drop(&mut self) {
        self.stop();
        let fault = self.fault.lock().unwrap();
        if std::thread::panicking() {
            // The reason of the panic may well be this.
            if let Some(fault) = &*fault {
                eprintln!("the storage failed during the test: {fault}");
            }
        } else {
            assert_eq!(*fault, None, "the storage failed during the test");
        }
    }
}
