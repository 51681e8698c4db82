//! A client of server-sent events that shows every block as it came.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::PATIENCE;
use super::http::Request;

pub const STREAM: &str = "/api/v1/events/stream";

/// What stands between two empty lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Block {
    pub comment: Option<String>,
    pub id: Option<String>,
    pub event: Option<String>,
    pub data: Option<String>,
}

impl Block {
    fn read(text: &str) -> Self {
        let mut block = Self::default();
        for line in text.lines() {
            let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("a line of a block: {line:?}"));
            let place = match name {
                "" => &mut block.comment,
                "id" => &mut block.id,
                "event" => &mut block.event,
                "data" => &mut block.data,
                other => panic!("an unknown field {other:?}"),
            };
            assert_eq!(place.replace(value.to_owned()), None, "{text:?}");
        }
        block
    }

    /// The envelope.
    #[track_caller]
    pub fn envelope(&self) -> Value {
        serde_json::from_str(self.data.as_ref().expect("an event")).expect("an envelope")
    }

    /// The id of the event.
    #[track_caller]
    pub fn number(&self) -> u64 {
        self.envelope()["id"].as_u64().expect("an id")
    }
}

/// An open stream; dropping it cuts it.
pub struct EventStream {
    reader: BufReader<TcpStream>,
    /// The head of the answer, in lower case.
    pub head: String,
    /// Bytes of the current chunk that have not been read.
    chunk: usize,
    text: String,
    has_ended: bool,
}

impl EventStream {
    /// Opens a stream; `query` begins with a question mark or is empty.
    #[track_caller]
    pub fn open(address: SocketAddr, key: &str, query: &str, last_event_id: Option<&str>) -> Self {
        let mut request = Request::get(&format!("{STREAM}{query}")).header("X-Api-Key", key);
        if let Some(id) = last_event_id {
            request = request.header("Last-Event-ID", id);
        }
        let mut stream = TcpStream::connect(address).expect("the daemon accepts");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&request.bytes()).unwrap();
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(reader.read_line(&mut head).unwrap(), 0, "the head: {head}");
        }
        let head = head.to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200 ok\r\n"), "{head}");
        Self { reader, head, chunk: 0, text: String::new(), has_ended: false }
    }

    /// Reads some bytes of the body, at most `most`; 0 at its end, which must be in order.
    fn read_some(&mut self, most: usize) -> usize {
        if self.has_ended {
            return 0;
        }
        if self.chunk == 0 {
            let mut line = String::new();
            self.reader.read_line(&mut line).expect("the length of a chunk");
            self.chunk = usize::from_str_radix(line.trim_end(), 16).unwrap_or_else(|_| panic!("the length of a chunk: {line:?}"));
            self.has_ended = self.chunk == 0;
        }
        let mut bytes = vec![0; most.min(self.chunk)];
        self.reader.read_exact(&mut bytes).expect("the rest of a chunk");
        self.chunk -= bytes.len();
        if self.chunk == 0 {
            let mut end = [0; 2];
            self.reader.read_exact(&mut end).expect("the end of a chunk");
            assert_eq!(&end, b"\r\n");
        }
        self.text.push_str(std::str::from_utf8(&bytes).expect("the test reads at character borders"));
        bytes.len()
    }

    fn take_block(&mut self) -> Option<Block> {
        let end = self.text.find("\n\n")?;
        let block: String = self.text.drain(..end + 2).collect();
        Some(Block::read(block.trim_end()))
    }

    /// The next block; none when the stream has ended in order.
    #[track_caller]
    pub fn next(&mut self) -> Option<Block> {
        loop {
            if let Some(block) = self.take_block() {
                return Some(block);
            }
            if self.read_some(usize::MAX) == 0 {
                assert_eq!(self.text, "", "half a block at the end");
                return None;
            }
        }
    }

    /// The next event; comments and positions are passed over.
    #[track_caller]
    pub fn event(&mut self) -> Block {
        loop {
            let block = self.next().expect("an event before the end");
            if block.data.is_some() {
                return block;
            }
        }
    }

    /// Every block that is complete within the next `bytes` bytes, of text in ASCII; then the stream is cut.
    pub fn cut_after(mut self, bytes: usize) -> Vec<Block> {
        let mut left = bytes;
        while left > 0 {
            match self.read_some(left) {
                0 => break,
                count => left -= count,
            }
        }
        std::iter::from_fn(|| self.take_block()).collect()
    }

    /// The position that the stream opens with.
    #[track_caller]
    pub fn opening(&mut self) -> String {
        let comment = self.next().expect("the opening comment");
        assert_eq!(comment, Block { comment: Some("open".to_owned()), ..Block::default() });
        let block = self.next().expect("the opening position");
        let id = block.id.clone().expect("an id");
        assert_eq!(block, Block { id: Some(id.clone()), ..Block::default() });
        id
    }
}
