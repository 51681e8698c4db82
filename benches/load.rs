//! The load generator: a closed loop on one thread. Every connection sends its next request when it has the whole reply to the last.
//!
//! Client and server share the machine's cores, so the client does as little as it can: prepared bytes out, a framed reply in.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use crate::histogram::Histogram;
use crate::http::Reply;
use crate::process::Process;

/// A source of requests; all connections of a run share one.
pub trait Requests {
    /// Appends the bytes of the next request.
    fn write_next(&mut self, out: &mut Vec<u8>);
}

/// When a run ends. Requests under way are waited for.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    Elapsed(Duration),
    Sent(u64),
    /// The server went away, as it does when it is killed.
    Disconnected,
}

/// Which replies are good. Any other one ends the bench with its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    Status(u16),
    /// 200, and no item of the batch was refused.
    Batch,
    /// As `Batch`, but the request is sent again after a 503, as its `Retry-After` asks for. Needs dedupe keys.
    BatchPatiently,
}

/// One run against one server.
pub struct Run<'a> {
    pub address: SocketAddr,
    pub process: &'a Process,
    pub connections: usize,
    pub until: Until,
    pub expect: Expect,
}

/// What a run brought.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub requests: u64,
    /// Replies of 503 that were followed by a repeat.
    pub refused: u64,
    pub elapsed: Duration,
    pub latencies: Histogram,
    pub server_cpu: Duration,
}

impl Outcome {
    /// Requests per second.
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }

    /// Processor time of the server per request, in microseconds.
    pub fn cpu_us(&self) -> f64 {
        self.server_cpu.as_secs_f64() * 1e6 / self.requests.max(1) as f64
    }
}

struct Shared {
    requests: RefCell<Box<dyn Requests>>,
    latencies: RefCell<Histogram>,
    done: Cell<u64>,
    refused: Cell<u64>,
    /// How many more may be sent.
    left: Cell<u64>,
    deadline: Cell<Option<Instant>>,
    until: Until,
    expect: Expect,
}

impl Run<'_> {
    /// Connects, then runs; only the running is measured.
    pub fn go(&self, requests: Box<dyn Requests>) -> Outcome {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let shared = Rc::new(Shared {
            requests: RefCell::new(requests),
            latencies: RefCell::default(),
            done: Cell::new(0),
            refused: Cell::new(0),
            left: Cell::new(if let Until::Sent(count) = self.until { count } else { u64::MAX }),
            deadline: Cell::new(None),
            until: self.until,
            expect: self.expect,
        });
        let tasks = LocalSet::new();
        let (elapsed, server_cpu) = tasks.block_on(&runtime, async {
            let mut streams = Vec::with_capacity(self.connections);
            for _ in 0..self.connections {
                let stream = TcpStream::connect(self.address).await.expect("the server listens");
                stream.set_nodelay(true).unwrap();
                streams.push(stream);
            }
            let cpu_before = self.process.cpu();
            let started = Instant::now();
            if let Until::Elapsed(duration) = self.until {
                shared.deadline.set(Some(started + duration));
            }
            let running: Vec<_> =
                streams.into_iter().map(|stream| tokio::task::spawn_local(connection(stream, Rc::clone(&shared)))).collect();
            for task in running {
                match (task.await.expect("a connection's task"), self.until) {
                    (Ok(()), _) | (Err(_), Until::Disconnected) => {}
                    (Err(error), _) => panic!("a connection to {} failed: {error}", self.address),
                }
            }
            // A killed process has no figures any more, and nobody asks for them.
            let gone = matches!(self.until, Until::Disconnected);
            let cpu = if gone { Duration::ZERO } else { self.process.cpu() - cpu_before };
            (started.elapsed(), cpu)
        });
        let latencies = shared.latencies.take();
        Outcome { requests: shared.done.get(), refused: shared.refused.get(), elapsed, latencies, server_cpu }
    }
}

async fn connection(mut stream: TcpStream, shared: Rc<Shared>) -> io::Result<()> {
    let mut request = Vec::new();
    let mut reply = Reply::default();
    let mut sent_at = Instant::now();
    while shared.deadline.get().is_none_or(|deadline| sent_at < deadline) && shared.left.get() > 0 {
        shared.left.set(shared.left.get() - 1);
        request.clear();
        shared.requests.borrow_mut().write_next(&mut request);
        loop {
            exchange(&mut stream, &request, &mut reply).await?;
            if !(shared.expect == Expect::BatchPatiently && reply.status() == 503) {
                break;
            }
            shared.refused.set(shared.refused.get() + 1);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        shared.expect.check(&reply);
        let now = Instant::now();
        shared.latencies.borrow_mut().record(now - sent_at);
        shared.done.set(shared.done.get() + 1);
        sent_at = now;
    }
    // A run that waits for the end of the server has no other end.
    debug_assert!(!matches!(shared.until, Until::Disconnected));
    Ok(())
}

async fn exchange(stream: &mut TcpStream, request: &[u8], reply: &mut Reply) -> io::Result<()> {
    stream.write_all(request).await?;
    reply.clear();
    while !reply.is_complete() {
        if stream.read_buf(reply.buffer()).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

impl Expect {
    fn check(self, reply: &Reply) {
        let good = match self {
            Self::Status(status) => reply.status() == status,
            Self::Batch | Self::BatchPatiently => {
                reply.status() == 200 && !std::str::from_utf8(&reply.body()).unwrap().contains("\"error\"")
            }
        };
        assert!(good, "expected {self:?}, got {}", reply.describe());
    }
}
