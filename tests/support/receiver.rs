//! Receivers of webhooks that answer as the test says, and remember what came.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::PATIENCE;

/// A webhook as it came.
#[derive(Debug, Clone)]
pub struct Hook {
    /// Counted from 0, over all connections, in the order of arrival.
    pub number: usize,
    pub line: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
    pub at: Instant,
}

impl Hook {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// `webhook-id`
    pub fn id(&self) -> &str {
        self.header("webhook-id")
    }

    /// The event's number, out of `webhook-id`.
    pub fn event(&self) -> u64 {
        let number = self.id().split('_').nth(1).and_then(|text| text.parse().ok());
        number.unwrap_or_else(|| panic!("a webhook-id: {self:?}"))
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    /// The signature of Standard Webhooks with a secret, by nothing but SHA-256.
    fn signature(&self, secret: &str) -> String {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").expect("a secret")).unwrap();
        let stamp = format!("{}.{}.", self.id(), self.header("webhook-timestamp"));
        format!("v1,{}", STANDARD.encode(hmac(&key, &[stamp.as_bytes(), &self.body].concat())))
    }

    /// Checks that the one signature is made with this secret.
    #[track_caller]
    pub fn check_signature(&self, secret: &str) {
        assert_eq!(self.header("webhook-signature"), self.signature(secret), "{}", self.id());
    }

    /// Whether one of the signatures is made with this secret.
    pub fn is_signed_with(&self, secret: &str) -> bool {
        self.header("webhook-signature").split(' ').any(|signature| signature == self.signature(secret))
    }
}

/// HMAC-SHA-256 as RFC 2104 writes it down, so that the tests do not check the daemon with the daemon's own library.
pub fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0_u8; 64];
    block[..key.len()].copy_from_slice(key);
    let pad = |byte: u8| block.map(|known| known ^ byte);
    let inner = Sha256::digest([&pad(0x36)[..], message].concat());
    Sha256::digest([&pad(0x5c)[..], &inner[..]].concat()).into()
}

/// What a receiver does with a webhook.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Answers with this status and no body.
    Status(u16),
    /// Answers with a status, header lines and a body.
    Full(u16, &'static str, String),
    /// Waits so long, then answers with this status.
    Slow(Duration, u16),
    /// Does not answer until the receiver is released, then breaks off.
    Hang,
    /// Answers 200 with so many bytes.
    Long(usize),
}

#[derive(Default)]
struct Shared {
    hooks: Mutex<Vec<Hook>>,
    count: AtomicUsize,
    busy: AtomicUsize,
    busiest: AtomicUsize,
    written: AtomicU64,
    is_over: AtomicBool,
    released: Mutex<bool>,
    on_release: Condvar,
}

impl Shared {
    fn wait_for_release(&self) {
        let released = self.released.lock().unwrap();
        let _released = self.on_release.wait_timeout_while(released, PATIENCE, |released| !*released).unwrap();
    }
}

type Script = dyn Fn(&Hook) -> Reply + Send + Sync;

/// A receiver on loopback; it ends when it is dropped.
pub struct Receiver {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl Receiver {
    /// Asks `script` what to do with each webhook.
    pub fn new(script: impl Fn(&Hook) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let receiver = Self { address: listener.local_addr().unwrap(), shared: Arc::default() };
        let (shared, script) = (Arc::clone(&receiver.shared), Arc::new(script) as Arc<Script>);
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if shared.is_over.load(Ordering::SeqCst) {
                    return;
                }
                let (shared, script) = (Arc::clone(&shared), Arc::clone(&script));
                // Whatever the sender breaks off is the sender's matter.
                std::thread::spawn(move || serve(&stream, &shared, &*script).ok());
            }
        });
        receiver
    }

    /// Answers every webhook with 204.
    pub fn willing() -> Self {
        Self::new(|_| Reply::Status(204))
    }

    /// Answers with these statuses in turn, the last one for ever.
    pub fn answers<const N: usize>(statuses: [u16; N]) -> Self {
        Self::new(move |hook| Reply::Status(statuses[hook.number.min(N - 1)]))
    }

    pub fn url(&self) -> String {
        format!("http://{}/hooks", self.address)
    }

    pub fn hooks(&self) -> Vec<Hook> {
        self.shared.hooks.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.shared.hooks.lock().unwrap().len()
    }

    /// The numbers of the events in the order in which they came.
    pub fn events(&self) -> Vec<u64> {
        self.shared.hooks.lock().unwrap().iter().map(Hook::event).collect()
    }

    /// The most webhooks that were here at once.
    pub fn busiest(&self) -> usize {
        self.shared.busiest.load(Ordering::SeqCst)
    }

    /// Bytes of bodies that the sender took.
    pub fn written(&self) -> u64 {
        self.shared.written.load(Ordering::SeqCst)
    }

    /// Lets go what hangs.
    pub fn release(&self) {
        *self.shared.released.lock().unwrap() = true;
        self.shared.on_release.notify_all();
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.release();
        self.shared.is_over.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _woken = TcpStream::connect(self.address);
    }
}

fn read_hook(stream: &mut BufReader<&TcpStream>, shared: &Shared) -> std::io::Result<Option<Hook>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut headers = HashMap::new();
    loop {
        let mut header = String::new();
        stream.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        assert!(headers.insert(name.to_ascii_lowercase(), value.to_owned()).is_none(), "{name} twice");
    }
    let mut body = vec![0; headers.get("content-length").map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body)?;
    let mut hooks = shared.hooks.lock().unwrap();
    let number = shared.count.fetch_add(1, Ordering::SeqCst);
    let hook = Hook { number, line: line.trim_end().to_owned(), headers, body, at: Instant::now() };
    hooks.push(hook.clone());
    Ok(Some(hook))
}

fn serve(stream: &TcpStream, shared: &Shared, script: &Script) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    while let Some(hook) = read_hook(&mut reader, shared)? {
        let busy = shared.busy.fetch_add(1, Ordering::SeqCst) + 1;
        shared.busiest.fetch_max(busy, Ordering::SeqCst);
        let reply = script(&hook);
        if let Reply::Slow(time, _) = reply {
            std::thread::sleep(time);
        }
        if matches!(reply, Reply::Hang) {
            shared.wait_for_release();
        }
        shared.busy.fetch_sub(1, Ordering::SeqCst);
        match reply {
            Reply::Status(204) | Reply::Slow(_, 204) => writer.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?,
            Reply::Status(status) | Reply::Slow(_, status) => {
                writer.write_all(format!("HTTP/1.1 {status} Status\r\nContent-Length: 0\r\n\r\n").as_bytes())?;
            }
            Reply::Full(status, lines, body) => {
                let head = format!("HTTP/1.1 {status} Status\r\n{lines}Content-Length: {}\r\n\r\n", body.len());
                writer.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice())?;
            }
            Reply::Hang => return Ok(()),
            Reply::Long(length) => {
                writer.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes())?;
                let part = [b'x'; 65_536];
                for _ in 0..length / part.len() {
                    writer.write_all(&part)?;
                    shared.written.fetch_add(part.len() as u64, Ordering::SeqCst);
                }
            }
        }
    }
    Ok(())
}
