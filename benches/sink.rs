//! A receiver of webhooks: a hyper server on one current-thread runtime that notes which event came when and answers 204. It
//! is its own token service, at another path.
//!
//! It runs as a process of its own, so that it takes none of the daemon's time and none of the bench's.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::clock::now_ns;
use crate::helper::{Helper, greet};
use crate::http::Client;

const TOKEN_PATH: &str = "/token";
const ROLE_VARIABLE: &str = "LUTINE_BENCH_SINK";
/// How often it is asked how much has come.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// The longest that a number of webhooks is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running sink; ends when dropped.
pub struct Sink {
    pub address: SocketAddr,
    client: Client,
    _helper: Helper,
}

/// How much has come since the last [`Sink::take`].
#[derive(Debug, Clone, Copy)]
pub struct Received {
    pub count: u64,
    pub last_ns: u64,
}

/// One webhook that came, of the event with this number.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    pub event: u64,
    pub at_ns: u64,
}

/// A webhook as it came.
#[derive(Debug, Clone)]
pub struct Sample {
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

impl Sink {
    pub fn start() -> Self {
        let helper = Helper::start(ROLE_VARIABLE, "1");
        let address = helper.greeting.parse().expect("the sink prints its address");
        Self { address, client: Client::connect(address, ""), _helper: helper }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    pub fn token_url(&self) -> String {
        format!("http://{}{TOKEN_PATH}", self.address)
    }

    pub fn received(&mut self) -> Received {
        let body = self.client.get("/received").body().into_owned();
        let numbers: Vec<u64> = std::str::from_utf8(&body).unwrap().split(' ').map(|number| number.parse().unwrap()).collect();
        Received { count: numbers[0], last_ns: numbers[1] }
    }

    /// Waits until so many have come.
    pub fn wait_for(&mut self, count: u64) -> Received {
        let asked = Instant::now();
        loop {
            let received = self.received();
            if received.count >= count {
                return received;
            }
            assert!(asked.elapsed() < PATIENCE, "{} of {count} webhooks came within {PATIENCE:?}", received.count);
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// All that came since the last time.
    pub fn take(&mut self) -> Vec<Arrival> {
        let body = self.client.get("/take").body().into_owned();
        let arrival = |line: &str| {
            let (event, at) = line.split_once(' ').unwrap();
            Arrival { event: event.parse().unwrap(), at_ns: at.parse().unwrap() }
        };
        std::str::from_utf8(&body).unwrap().lines().map(arrival).collect()
    }

    /// The first webhook that ever came.
    pub fn sample(&mut self) -> Sample {
        let body = self.client.get("/sample").body().into_owned();
        let head_length = body.windows(2).position(|pair| pair == b"\n\n").expect("a webhook came before");
        let mut lines = std::str::from_utf8(&body[..head_length]).unwrap().lines();
        let path = lines.next().unwrap().to_owned();
        let headers = lines.map(|line| line.split_once(": ").unwrap()).map(|(name, value)| (name.to_owned(), value.to_owned()));
        Sample { path, headers: headers.collect(), body: Bytes::copy_from_slice(&body[head_length + 2..]) }
    }
}

/// What the sink knows.
#[derive(Default)]
struct Noted {
    arrivals: Vec<Arrival>,
    /// The first one, as [`Sink::sample`] reads it.
    sample: Vec<u8>,
}

/// Whether this process was started as the sink.
pub fn asked_for() -> bool {
    std::env::var_os(ROLE_VARIABLE).is_some()
}

/// Serves until the bench ends.
pub fn serve() {
    let noted = Arc::new(Mutex::new(Noted::default()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        greet(&listener.local_addr().unwrap().to_string());
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            stream.set_nodelay(true).unwrap();
            let noted = Arc::clone(&noted);
            tokio::spawn(async move {
                let service = service_fn(move |request| respond(request, Arc::clone(&noted)));
                // A client that goes away is no fault of the sink.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
}

async fn respond(request: Request<Incoming>, noted: Arc<Mutex<Noted>>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    if head.method != Method::POST {
        return Ok(Response::new(Full::new(answer(head.uri.path(), &mut noted.lock().unwrap()))));
    }
    if head.uri.path() == TOKEN_PATH {
        let token = "t".repeat(800);
        return Ok(Response::new(Full::new(format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":3600}}"#).into())));
    }
    // A sender that breaks off has not delivered.
    if let Ok(body) = body.collect().await {
        let mut noted = noted.lock().unwrap();
        if noted.sample.is_empty() {
            noted.sample = sample(head.uri.path(), &head.headers, &body.to_bytes());
        }
        noted.arrivals.push(Arrival { event: event_of(&head.headers), at_ns: now_ns() });
    }
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

fn answer(path: &str, noted: &mut Noted) -> Bytes {
    match path {
        "/received" => {
            let last_ns = noted.arrivals.last().map_or(0, |last| last.at_ns);
            format!("{} {last_ns}", noted.arrivals.len()).into()
        }
        "/take" => {
            let mut text = String::new();
            for Arrival { event, at_ns } in noted.arrivals.drain(..) {
                let _ = writeln!(text, "{event} {at_ns}");
            }
            text.into()
        }
        _ => noted.sample.clone().into(),
    }
}

fn sample(path: &str, headers: &HeaderMap, body: &[u8]) -> Vec<u8> {
    let mut text = format!("{path}\n");
    for (name, value) in headers {
        let _ = writeln!(text, "{name}: {}", value.to_str().unwrap());
    }
    text.push('\n');
    [text.as_bytes(), body].concat()
}

/// The number in `evt_{event}_{subscription}`.
fn event_of(headers: &HeaderMap) -> u64 {
    let id = headers.get("webhook-id").and_then(|id| id.to_str().ok()).expect("a webhook has an id");
    id.split('_').nth(1).and_then(|number| number.parse().ok()).expect("the number of an event")
}
