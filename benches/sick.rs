//! Receivers that do everything wrong, many of them in a process of their own.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use rustix::net::sockopt::{set_socket_linger, set_socket_send_buffer_size};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::helper::{Helper, greet};
use crate::process::Process;

const ROLE_VARIABLE: &str = "LUTINE_BENCH_SICK";
/// What they send at once. They share the machine with the daemon and are not to fill it with what nobody reads.
const PIECE: usize = 16 * 1024;

/// The last to be given processor time.
const NICENESS: i32 = 19;

/// What is wrong with a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Illness {
    /// Takes the request and never answers.
    Hangs,
    /// Resets the connection when the request comes.
    Resets,
    /// Answers 200 with a body that never ends.
    Endless,
    /// Answers 200 and 100 MB.
    Huge,
}

impl Illness {
    const ALL: [Self; 4] = [Self::Hangs, Self::Resets, Self::Endless, Self::Huge];

    fn head(self) -> Option<&'static [u8]> {
        match self {
            Self::Hangs | Self::Resets => None,
            Self::Endless => Some(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
            Self::Huge => Some(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n"),
        }
    }
}

/// Running sick receivers; they end when dropped.
pub struct Sick {
    pub addresses: Vec<SocketAddr>,
    helper: Helper,
}

impl Sick {
    /// So many of them, each illness as often as the others.
    pub fn start(count: usize) -> Self {
        let helper = Helper::start(ROLE_VARIABLE, count.to_string());
        let addresses = helper.greeting.split(' ').map(|address| address.parse().expect("the sick print their addresses")).collect();
        Self { addresses, helper }
    }

    pub fn process(&self) -> &Process {
        &self.helper.process
    }
}

/// How many sick receivers this process was started as.
pub fn asked_for() -> Option<usize> {
    std::env::var(ROLE_VARIABLE).ok()?.parse().ok()
}

/// Serves until the bench ends.
pub fn serve(count: usize) {
    // They stand for other people's machines: what they do has no claim to the time of this one.
    rustix::process::setpriority_process(None, NICENESS).expect("anybody may give way");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut addresses = Vec::with_capacity(count);
        for illness in Illness::ALL.into_iter().cycle().take(count) {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
            addresses.push(listener.local_addr().unwrap().to_string());
            tokio::spawn(async move {
                loop {
                    let (stream, _) = listener.accept().await.expect("a connection");
                    tokio::spawn(async move {
                        // The daemon ends what goes on for too long.
                        let _ = suffer(stream, illness).await;
                    });
                }
            });
        }
        greet(&addresses.join(" "));
        std::future::pending::<()>().await;
    });
}

async fn suffer(mut stream: TcpStream, illness: Illness) -> io::Result<()> {
    set_socket_send_buffer_size(&stream, PIECE)?;
    let mut request = vec![0; PIECE];
    if stream.read(&mut request).await? == 0 {
        return Ok(());
    }
    if illness == Illness::Resets {
        return Ok(set_socket_linger(&stream, Some(Duration::ZERO))?);
    }
    let Some(head) = illness.head() else {
        // Until the other side gives up.
        while stream.read(&mut request).await? > 0 {}
        return Ok(());
    };
    stream.write_all(head).await?;
    let piece = if illness == Illness::Endless { [b"4000\r\n".as_slice(), &[b'x'; PIECE], b"\r\n"].concat() } else { vec![b'x'; PIECE] };
    loop {
        stream.write_all(&piece).await?;
    }
}
