//! HTTP/1.1 as far as a test needs it: what is sent and what came back, byte for byte.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use serde_json::Value;

use super::PATIENCE;

pub const SUBSCRIPTIONS: &str = "/api/v1/webhooks/subscriptions";

/// An answer as it came.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case, in the order in which they came.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The only header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let value = values.next();
        assert_eq!(values.next(), None, "the header {name} is there twice");
        value
    }

    /// The answer itself, after a look at its status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self
    }

    /// The id in the answer to a publication.
    #[track_caller]
    pub fn id(&self) -> u64 {
        self.json()["id"].as_u64().unwrap_or_else(|| panic!("an id: {self:?}"))
    }

    /// The text of a problem document with its request id replaced by `…`, after a look at what all of them share.
    #[track_caller]
    pub fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let request_id = self.header("x-request-id").expect("a request id").to_owned();
        let member = format!(r#""requestId":"{request_id}""#);
        assert!(self.text().contains(&member), "{} does not name {request_id}", self.text());
        self.text().replace(&member, r#""requestId":"…""#)
    }
}

/// A problem document as [`Answer::problem`] shows it. `status` is such as `400 Bad Request`; `more` stands behind the request id.
pub fn problem(status: &str, code: &str, path: &str, detail: &str, more: &str) -> String {
    let (number, title) = status.split_once(' ').unwrap();
    let detail = Value::from(detail);
    format!(
        r#"{{"type":"urn:lutine:problem:{code}","title":"{title}","status":{number},"detail":{detail},"instance":"{path}","code":"{code}","requestId":"…"{more}}}"#
    )
}

/// The `errors` of a problem document, to be put behind the request id.
pub fn at(pointer: &str, detail: &str) -> String {
    format!(r#","errors":[{{"pointer":"{pointer}","detail":{}}}]"#, Value::from(detail))
}

/// A request in the making.
#[derive(Debug, Clone)]
pub struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl Request {
    pub fn new(method: &str, target: &str) -> Self {
        Self { method: method.to_owned(), target: target.to_owned(), headers: Vec::new(), body: None }
    }

    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// A POST of JSON.
    pub fn post(target: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::new("POST", target).body("application/json", body)
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn body(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self.header("Content-Type", content_type)
    }

    pub fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name))
    }

    /// The request as it is sent.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\nHost: lutine.test\r\n", self.method, self.target).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        if let Some(body) = &self.body {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        bytes
    }
}

trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

/// An open connection.
pub struct Connection {
    stream: BufReader<Box<dyn Stream>>,
}

impl Connection {
    pub fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the daemon accepts");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(Box::new(stream)) }
    }

    pub fn open_local(path: &std::path::Path) -> Self {
        let stream = UnixStream::connect(path).expect("the daemon accepts on its socket");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream: BufReader::new(Box::new(stream)) }
    }

    /// Sends bytes as they are; false when the peer has gone.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        let stream = self.stream.get_mut();
        stream.write_all(bytes).and_then(|()| stream.flush()).is_ok()
    }

    /// The next answer; none when the connection ended before one began.
    pub fn answer(&mut self) -> Option<Answer> {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => return None,
            Err(error) => panic!("no answer: {error}"),
        }
        let status = line.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no status line: {line:?}"));
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).expect("a whole head");
            let line = line.strip_suffix("\r\n").unwrap_or_else(|| panic!("a line of the head: {line:?}"));
            let Some((name, value)) = line.split_once(':') else {
                assert_eq!(line, "");
                break;
            };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut answer = Answer { status, headers, body: Vec::new() };
        if let Some(length) = answer.header("content-length") {
            answer.body = vec![0; length.parse().unwrap()];
            self.stream.read_exact(&mut answer.body).expect("a whole body");
        } else {
            assert!(matches!(status, 100 | 204 | 304), "an answer without a length: {answer:?}");
        }
        Some(answer)
    }

    /// Waits for the end; what came before it.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("the connection did not end: {error}"),
        }
        bytes
    }
}

/// Where a client connects to.
#[derive(Debug, Clone)]
enum Place {
    Network(SocketAddr),
    Local(PathBuf),
}

/// Somebody who calls, with a key or over the local socket, on one connection that is opened again when it ended.
pub struct Client {
    place: Place,
    key: String,
    connection: Option<Connection>,
}

impl Client {
    pub fn new(address: SocketAddr, key: &str) -> Self {
        Self { place: Place::Network(address), key: key.to_owned(), connection: None }
    }

    pub fn local(socket: PathBuf) -> Self {
        Self { place: Place::Local(socket), key: String::new(), connection: None }
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    /// The answer to a request; none when the connection ends instead.
    pub fn try_send(&mut self, request: &Request) -> Option<Answer> {
        let mut request = request.clone();
        if !self.key.is_empty() && !request.has("x-api-key") && !request.has("authorization") {
            request = request.header("X-Api-Key", &self.key);
        }
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => match &self.place {
                Place::Network(address) => Connection::open(*address),
                Place::Local(path) => Connection::open_local(path),
            },
        };
        let mut answer = None;
        if connection.send(&request.bytes()) || matches!(self.place, Place::Network(_)) {
            answer = connection.answer();
        }
        if answer.as_ref().is_some_and(|answer| answer.header("connection") != Some("close")) {
            self.connection = Some(connection);
        }
        answer
    }

    #[track_caller]
    pub fn send(&mut self, request: &Request) -> Answer {
        self.try_send(request).expect("an answer")
    }

    #[track_caller]
    pub fn get(&mut self, target: &str) -> Answer {
        self.send(&Request::get(target))
    }

    #[track_caller]
    pub fn post(&mut self, target: &str, body: impl Into<Vec<u8>>) -> Answer {
        self.send(&Request::post(target, body))
    }

    /// Publishes one event that must be new; its id.
    #[track_caller]
    pub fn publish(&mut self, body: impl Into<Vec<u8>>) -> u64 {
        self.post("/api/v1/events", body).expect(201).id()
    }

    /// The answer to a request that is sent again while the daemon says that too much waits.
    #[track_caller]
    pub fn send_patiently(&mut self, request: &Request) -> Answer {
        let mut answer = self.send(request);
        super::wait_until("room in the queue", || {
            if answer.status == 503 {
                assert_eq!(answer.json()["code"], "overloaded", "{answer:?}");
                answer = self.send(request);
            }
            answer.status != 503
        });
        answer
    }

    /// As [`Client::publish`], again while too much waits.
    #[track_caller]
    pub fn publish_patiently(&mut self, body: &str) -> u64 {
        self.send_patiently(&Request::post("/api/v1/events", body)).expect(201).id()
    }

    /// The events of a list.
    #[track_caller]
    pub fn list(&mut self, query: &str) -> Vec<Value> {
        let page = self.get(&format!("/api/v1/events{query}")).expect(200);
        page.json()["events"].as_array().expect("events").clone()
    }

    /// The ids of a list.
    #[track_caller]
    pub fn ids(&mut self, query: &str) -> Vec<u64> {
        self.list(query).iter().map(|event| event["id"].as_u64().unwrap()).collect()
    }

    /// Every event of the log through pages of `limit`, in order.
    #[track_caller]
    pub fn walk(&mut self, query: &str, limit: usize) -> Vec<Value> {
        let mut events = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let from = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
            let page = self.get(&format!("/api/v1/events?limit={limit}{query}{from}")).expect(200);
            events.extend(page.json()["events"].as_array().expect("events").iter().cloned());
            match page.header("x-paging-cursor") {
                Some(next) => cursor = Some(next.to_owned()),
                None => return events,
            }
        }
    }

    #[track_caller]
    pub fn patch(&mut self, target: &str, body: impl Into<Vec<u8>>) -> Answer {
        self.send(&Request::new("PATCH", target).body("application/json", body))
    }

    #[track_caller]
    pub fn delete(&mut self, target: &str) -> Answer {
        self.send(&Request::new("DELETE", target))
    }

    /// Makes a subscription to everything under the profile `standard`, but for what `more` says; the answer.
    #[track_caller]
    pub fn subscribe(&mut self, url: &str, more: &Value) -> Value {
        let mut body = serde_json::json!({"url": url, "types": ["*"], "profile": "standard"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.post(SUBSCRIPTIONS, body.to_string()).expect(201).json()
    }

    /// Calls a subscription's `act`, such as `pause`.
    #[track_caller]
    pub fn act(&mut self, subscription: u64, act: &str) -> Answer {
        self.send(&Request::new("POST", &format!("{SUBSCRIPTIONS}/{subscription}/{act}")))
    }

    /// A subscription as it is shown.
    #[track_caller]
    pub fn subscription(&mut self, id: u64) -> Value {
        self.get(&format!("{SUBSCRIPTIONS}/{id}")).expect(200).json()
    }

    /// A delivery with its attempts.
    #[track_caller]
    pub fn delivery(&mut self, subscription: u64, event: u64) -> Value {
        self.get(&format!("/api/v1/deliveries/{subscription}-{event}")).expect(200).json()
    }

    /// The state of a delivery.
    #[track_caller]
    pub fn delivery_state(&mut self, subscription: u64, event: u64) -> String {
        self.delivery(subscription, event)["state"].as_str().unwrap().to_owned()
    }

    /// The events of a subscription's list of deliveries.
    #[track_caller]
    pub fn delivery_list(&mut self, subscription: u64, query: &str) -> Vec<u64> {
        let page = self.get(&format!("{SUBSCRIPTIONS}/{subscription}/deliveries{query}")).expect(200).json();
        page["deliveries"].as_array().unwrap().iter().map(|delivery| delivery["eventId"].as_u64().unwrap()).collect()
    }
}
