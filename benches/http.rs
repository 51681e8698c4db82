//! HTTP/1.1 as far as a client needs it that shares two cores with the server it measures: replies are framed, not understood.

use std::borrow::Cow;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// One reply as it comes in. Read into [`Reply::buffer`] until [`Reply::is_complete`].
#[derive(Debug, Default)]
pub struct Reply {
    buffer: Vec<u8>,
    head: Option<Head>,
}

#[derive(Debug, Clone, Copy)]
struct Head {
    status: u16,
    length: usize,
    framing: Framing,
}

#[derive(Debug, Clone, Copy)]
enum Framing {
    Sized(usize),
    /// Where the next chunk's size line begins, counted from the start of the reply.
    Chunked(usize),
}

impl Reply {
    /// Makes room for the next reply and keeps the memory of the last one.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.head = None;
    }

    pub fn buffer(&mut self) -> &mut Vec<u8> {
        if self.buffer.capacity() - self.buffer.len() < 4096 {
            self.buffer.reserve(32 * 1024);
        }
        &mut self.buffer
    }

    /// Whether the whole reply is in the buffer.
    pub fn is_complete(&mut self) -> bool {
        if self.head.is_none() {
            self.head = Head::parse(&self.buffer);
        }
        let Some(head) = &mut self.head else { return false };
        match &mut head.framing {
            Framing::Sized(bytes) => self.buffer.len() >= head.length + *bytes,
            Framing::Chunked(position) => advance_chunks(&self.buffer, position),
        }
    }

    pub fn status(&self) -> u16 {
        self.head.expect("the reply is complete").status
    }

    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let head = std::str::from_utf8(&self.buffer[..self.head?.length]).ok()?;
        head.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    pub fn body(&self) -> Cow<'_, [u8]> {
        let head = self.head.expect("the reply is complete");
        match head.framing {
            Framing::Sized(bytes) => Cow::Borrowed(&self.buffer[head.length..head.length + bytes]),
            Framing::Chunked(_) => Cow::Owned(join_chunks(&self.buffer[head.length..])),
        }
    }

    /// The reply's status and body for a person.
    pub fn describe(&self) -> String {
        format!("{}: {}", self.status(), String::from_utf8_lossy(&self.body()).chars().take(2000).collect::<String>())
    }
}

impl Head {
    fn parse(buffer: &[u8]) -> Option<Self> {
        let length = buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let status = std::str::from_utf8(&buffer[9..12]).ok()?.parse().ok()?;
        let mut framing = Framing::Sized(0);
        for line in buffer[..length].split(|byte| *byte == b'\n') {
            // Of all headers only two begin with these letters and matter here.
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"content-length") {
                framing = Framing::Sized(std::str::from_utf8(value).ok()?.parse().ok()?);
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                framing = Framing::Chunked(length);
            }
        }
        Some(Self { status, length, framing })
    }
}

/// Moves `position` over the complete chunks of `buffer` and tells whether the last one was among them.
fn advance_chunks(buffer: &[u8], position: &mut usize) -> bool {
    while let Some((data, size)) = chunk_at(buffer, *position) {
        let next = data + size + 2;
        if next > buffer.len() {
            return false;
        }
        if size == 0 {
            return true;
        }
        *position = next;
    }
    false
}

fn join_chunks(buffer: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(buffer.len());
    let mut position = 0;
    while let Some((data, size)) = chunk_at(buffer, position) {
        if size == 0 {
            break;
        }
        body.extend_from_slice(&buffer[data..data + size]);
        position = data + size + 2;
    }
    body
}

/// Where the data of the chunk at `position` begins, and its size.
fn chunk_at(buffer: &[u8], position: usize) -> Option<(usize, usize)> {
    let rest = buffer.get(position..)?;
    let end = rest.windows(2).take(32).position(|window| window == b"\r\n")?;
    let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?, 16).expect("a chunk's size in hexadecimal");
    Some((position + end + 2, size))
}

/// The bytes of a GET with the key; an empty key is not sent.
pub fn get(path: &str, key: &str) -> Vec<u8> {
    let credentials = match key {
        "" => String::new(),
        // A key has no dots, an access token has two.
        token if token.contains('.') => format!("Authorization: Bearer {token}\r\n"),
        key => format!("X-Api-Key: {key}\r\n"),
    };
    format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{credentials}\r\n").into_bytes()
}

/// The start of a POST with the key, up to and with the empty line.
pub fn post_head(path: &str, key: &str, content_type: &str, length: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Api-Key: {key}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"
    )
}

/// The bytes of a call with a body of JSON, which may be empty.
pub fn call(method: &str, path: &str, key: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Api-Key: {key}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// A connection for single calls outside the measured runs; ends the bench at any answer but the one that is expected.
pub struct Client {
    stream: TcpStream,
    key: String,
    reply: Reply,
}

impl Client {
    pub fn connect(address: SocketAddr, key: &str) -> Self {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self { stream, key: key.to_owned(), reply: Reply::default() }
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    pub fn get(&mut self, path: &str) -> &Reply {
        let request = get(path, &self.key);
        self.send(&request, 200)
    }

    /// Sends prepared bytes.
    pub fn send(&mut self, request: &[u8], status: u16) -> &Reply {
        self.stream.write_all(request).expect("a request is sent");
        self.reply.clear();
        while !self.reply.is_complete() {
            let buffer = self.reply.buffer();
            let filled = buffer.len();
            buffer.resize(buffer.capacity(), 0);
            let count = self.stream.read(&mut buffer[filled..]).expect("a reply within a minute");
            buffer.truncate(filled + count);
            assert!(count > 0, "{}: the server closed the connection", first_line(request));
        }
        assert!(self.reply.status() == status, "{} answered {}", first_line(request), self.reply.describe());
        &self.reply
    }
}

fn first_line(request: &[u8]) -> String {
    String::from_utf8_lossy(request).lines().next().unwrap_or_default().to_owned()
}
