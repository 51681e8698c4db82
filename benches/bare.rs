//! The limit of deliveries: a loop over bare hyper connections that posts one prepared webhook again and again.
//!
//! No log, no signature, no deadline, nothing noted. It runs in this process while the bench itself waits.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::{LocalSet, spawn_local};

use crate::process::Process;
use crate::sink::Sample;

/// What the loop brought.
#[derive(Debug, Clone, Copy)]
pub struct Bare {
    /// Posts per second.
    pub rate: f64,
    /// Processor time of the client per post, in microseconds.
    pub cpu_us: f64,
}

/// Posts for so long on so many connections.
pub fn run(address: SocketAddr, sample: &Sample, connections: usize, duration: Duration) -> Bare {
    let headers: HeaderMap = sample
        .headers
        .iter()
        .map(|(name, value)| {
            (HeaderName::try_from(name).expect("a header's name"), HeaderValue::try_from(value).expect("a header's value"))
        })
        .collect();
    let request = Rc::new((sample.path.clone(), headers, sample.body.clone()));
    let done = Rc::new(Cell::new(0_u64));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let process = Process::new(std::process::id());
    let (cpu_before, started) = (process.cpu(), Instant::now());
    LocalSet::new().block_on(&runtime, async {
        let posting: Vec<_> =
            (0..connections).map(|_| spawn_local(post(address, Rc::clone(&request), started + duration, Rc::clone(&done)))).collect();
        for task in posting {
            task.await.expect("a connection's task");
        }
    });
    let (elapsed, cpu, count) = (started.elapsed(), process.cpu() - cpu_before, done.get() as f64);
    Bare { rate: count / elapsed.as_secs_f64(), cpu_us: cpu.as_secs_f64() * 1e6 / count }
}

async fn post(address: SocketAddr, parts: Rc<(String, HeaderMap, Bytes)>, deadline: Instant, done: Rc<Cell<u64>>) {
    let stream = TcpStream::connect(address).await.expect("the sink listens");
    stream.set_nodelay(true).unwrap();
    let (mut requests, driver) = http1::handshake(TokioIo::new(stream)).await.expect("a connection");
    spawn_local(driver);
    let (path, headers, body) = &*parts;
    while Instant::now() < deadline {
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = path.parse().unwrap();
        *request.headers_mut() = headers.clone();
        let answer = requests.send_request(request).await.expect("an answer");
        assert!(answer.status() == 204, "the sink answered {}", answer.status());
        answer.into_body().collect().await.expect("the end of an answer");
        done.set(done.get() + 1);
    }
}
