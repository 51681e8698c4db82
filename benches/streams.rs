//! Clients of many streams on one thread: they count what they read and keep nothing of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::http::get;

/// The longest that anything may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Connections that are made at the same time; what a request under way costs is not what is measured.
const AT_ONCE: usize = 16;
/// What stands once in every event.
const MARK: &[u8] = b"\ndata: ";

#[derive(Default)]
struct Counts {
    open: AtomicUsize,
    events: AtomicU64,
}

/// Open streams; they end with this process.
pub struct Streams {
    counts: Arc<Counts>,
}

impl Streams {
    /// Opens so many streams of a type; all of them are open when this is done.
    pub fn open(address: SocketAddr, key: &str, kind: &str, many: usize) -> Self {
        let counts = Arc::new(Counts::default());
        let (shared, request) = (Arc::clone(&counts), get(&format!("/api/v1/events/stream?types={kind}"), key));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let room = Arc::new(Semaphore::new(AT_ONCE));
                let request: Arc<[u8]> = request.into();
                for _ in 0..many {
                    let permit = Arc::clone(&room).acquire_owned().await.expect("it is never closed");
                    let (counts, request) = (Arc::clone(&shared), Arc::clone(&request));
                    tokio::spawn(async move {
                        let mut stream = TcpStream::connect(address).await.expect("the daemon listens");
                        stream.write_all(&request).await.expect("a request is sent");
                        let mut buffer = Vec::with_capacity(4096);
                        while !buffer.ends_with(b"\n\n\r\n") || !buffer.windows(4).any(|window| window == b"\nid:") {
                            assert!(stream.read_buf(&mut buffer).await.expect("a stream") > 0, "{}", String::from_utf8_lossy(&buffer));
                        }
                        assert!(buffer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&buffer));
                        counts.open.fetch_add(1, Ordering::Relaxed);
                        drop(permit);
                        loop {
                            buffer.clear();
                            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                                break;
                            }
                            let events = buffer.windows(MARK.len()).filter(|window| *window == MARK).count();
                            counts.events.fetch_add(events as u64, Ordering::Relaxed);
                        }
                        counts.open.fetch_sub(1, Ordering::Relaxed);
                    });
                }
                std::future::pending::<()>().await;
            });
        });
        let streams = Self { counts };
        streams.wait("all streams are open", || streams.open_ones() == many);
        streams
    }

    pub fn open_ones(&self) -> usize {
        self.counts.open.load(Ordering::Relaxed)
    }

    /// Waits until all streams together have read so many events.
    pub fn wait_for(&self, events: u64) {
        self.wait("the events have come", || self.counts.events.load(Ordering::Relaxed) >= events);
    }

    fn wait(&self, what: &str, condition: impl Fn() -> bool) {
        let asked = Instant::now();
        while !condition() {
            let (open, events) = (self.open_ones(), self.counts.events.load(Ordering::Relaxed));
            assert!(asked.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}; {open} are open, {events} events have come");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
