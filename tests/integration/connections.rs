//! What a connection may do: slowly, wrongly, and at the end.

use std::time::{Duration, Instant};

use crate::support::daemon::TestDaemon;
use crate::support::http::{Connection, Request, problem};
use crate::support::{PATIENCE, wait_until};

const EVENTS: &str = "/api/v1/events";

/// The limits of time at their least: one second.
fn hasty() -> TestDaemon {
    TestDaemon::with(|config| {
        config.server.header_read_timeout_seconds = 1;
        config.server.body_read_timeout_seconds = 1;
        config.server.idle_timeout_seconds = 1;
    })
}

#[test]
fn a_head_that_trickles_in_is_cut_off() {
    let daemon = TestDaemon::with(|config| config.server.header_read_timeout_seconds = 1);
    let mut connection = Connection::open(daemon.address());
    let started = Instant::now();
    connection.send(b"GET /healthz HTTP/1.1\r\nX: ");
    // Slowly enough not to reach the limit of a head's bytes first.
    while connection.send(b"a") {
        assert!(started.elapsed() < PATIENCE, "the connection is still open");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(connection.rest().is_empty());
}

#[test]
fn a_connection_without_a_request_is_closed_after_a_while() {
    let daemon = hasty();
    let mut silent = Connection::open(daemon.address());
    let mut spoke = Connection::open(daemon.address());
    spoke.send(&Request::get("/healthz").bytes());
    spoke.answer().unwrap().expect(200);
    let started = Instant::now();
    assert!(spoke.rest().is_empty());
    assert!(started.elapsed() > Duration::from_millis(900), "{:?}", started.elapsed());
    assert!(silent.rest().is_empty());
}

#[test]
fn a_long_poll_outlives_the_idle_time() {
    let daemon = TestDaemon::with(|config| config.server.idle_timeout_seconds = 2);
    let mut acme = daemon.acme();
    acme.get(&format!("{EVENTS}?wait=3")).expect(200);
    // And the time between two requests counts from the end of the first.
    acme.get(EVENTS).expect(200);
}

#[test]
fn a_body_that_does_not_come_is_given_up() {
    let daemon = hasty();
    let key = daemon.acme().key().to_owned();
    let mut connection = Connection::open(daemon.address());
    let head =
        format!("POST {EVENTS} HTTP/1.1\r\nHost: a\r\nX-Api-Key: {key}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n");
    connection.send(format!("{head}{{\"type\":").as_bytes());
    let answer = connection.answer().expect("an answer").expect(408);
    let detail = "the body was not complete within 1 s";
    assert_eq!(answer.problem(), problem("408 Request Timeout", "body_timeout", EVENTS, detail, ""));
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(connection.rest().is_empty());
}

#[test]
fn a_request_under_way_at_the_stop_is_answered_and_its_event_is_kept() {
    let mut daemon = TestDaemon::start();
    let key = daemon.acme().key().to_owned();
    let request = Request::post(EVENTS, r#"{"type":"claim.created"}"#).header("X-Api-Key", &key).bytes();
    let (first, rest) = request.split_at(request.len() - 10);
    let mut connection = Connection::open(daemon.address());
    connection.send(first);
    let mut watcher = daemon.client("");
    wait_until("the request", || watcher.get("/metrics").text().contains("lutine_http_requests_in_flight 2\n"));
    let address = daemon.address();
    let running = daemon.take();
    std::thread::scope(|scope| {
        let stopping = scope.spawn(move || running.stop());
        wait_until("the end of the listener", || std::net::TcpStream::connect(address).is_err());
        assert!(!stopping.is_finished());
        connection.send(rest);
        let answer = connection.answer().expect("an answer").expect(201);
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(connection.rest().is_empty());
        stopping.join().unwrap();
    });
    daemon.restart();
    assert_eq!(daemon.client(&key).ids(""), [1]);
}

#[test]
fn idle_connections_end_at_the_stop() {
    let mut daemon = TestDaemon::start();
    let mut connections: Vec<Connection> = (0..5).map(|_| Connection::open(daemon.address())).collect();
    for connection in &mut connections {
        connection.send(&Request::get("/healthz").bytes());
        connection.answer().unwrap().expect(200);
    }
    let started = Instant::now();
    daemon.stop();
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(connections.iter_mut().all(|connection| connection.rest().is_empty()));
}

#[test]
fn requests_in_a_row_are_answered_in_order() {
    let daemon = TestDaemon::start();
    let mut connection = Connection::open(daemon.address());
    let two = [Request::get("/healthz").bytes(), Request::get("/nowhere").bytes()].concat();
    connection.send(&two);
    assert_eq!(connection.answer().unwrap().status, 200);
    assert_eq!(connection.answer().unwrap().status, 404);
}

/// Everything that comes back on a connection that gets these bytes.
fn told(daemon: &TestDaemon, bytes: &[u8]) -> String {
    let mut connection = Connection::open(daemon.address());
    connection.send(bytes);
    String::from_utf8_lossy(&connection.rest()).into_owned()
}

#[test]
fn a_request_of_two_minds_gets_no_second_answer() {
    let daemon = hasty();
    let second = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
    let post = "POST /healthz HTTP/1.1\r\nHost: a\r\n";
    let shapes = [
        format!("{post}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{second}"),
        format!("{post}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{second}"),
        format!("{post}Content-Length: 0\r\nContent-Length: {}\r\n\r\n{second}", second.len()),
        format!("{post}Content-Length: 0, {}\r\n\r\n{second}", second.len()),
        format!("{post}Content-Length: +0\r\n\r\n{second}"),
        format!("{post}Content-Length: -1\r\n\r\n{second}"),
        format!("{post}Content-Length: 0x0\r\n\r\n{second}"),
        format!("{post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{second}"),
        format!("{post}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{second}"),
        format!("{post}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{second}"),
        format!("{post}Content-Length : 0\r\n\r\n{second}"),
        format!("{post} Content-Length: 0\r\n\r\n{second}"),
        format!("{post}X: a\r\n b\r\n\r\n{second}"),
        format!("{post}X: a\rY: b\r\n\r\n{second}"),
        format!("{post}X: a\0b\r\n\r\n{second}"),
        format!("{post}: b\r\n\r\n{second}"),
        format!("POST /healthz HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{second}"),
        format!("{post}Transfer-Encoding: chunked\r\n\r\n5;\n\r\n{second}"),
        format!("{post}Transfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\n{second}"),
        format!("GET /healthz\r\n\r\n{second}"),
        format!("GET  /healthz HTTP/1.1\r\nHost: a\r\n\r\n{second}"),
        format!("GET /healthz HTTP/3.0\r\nHost: a\r\n\r\n{second}"),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0".to_owned(),
    ];
    for shape in shapes {
        let answer = told(&daemon, shape.as_bytes());
        assert!(answer.matches("HTTP/1.").count() <= 1 && !answer.contains(" 200 OK"), "{shape:?} got {answer:?}");
    }
}

#[test]
fn a_publication_with_two_lengths_is_the_last_of_its_connection() {
    let daemon = hasty();
    let mut acme = daemon.acme();
    let head = format!("POST {EVENTS} HTTP/1.1\r\nHost: a\r\nX-Api-Key: {}\r\nContent-Type: application/json\r\n", acme.key());
    let chunks = "c\r\n{\"type\":\"a\"}\r\n0\r\n\r\n";
    let second = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
    for lengths in ["Content-Length: 12\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 12"] {
        let answer = told(&daemon, format!("{head}{lengths}\r\n\r\n{chunks}{second}").as_bytes());
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "{answer:?}");
    }
    // With one of them alone the connection goes on.
    let answer = told(&daemon, format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}{second}").as_bytes());
    assert_eq!(answer.matches("HTTP/1.1 20").count(), 2, "{answer:?}");
    acme.get(EVENTS).expect(200);
}

#[test]
fn old_and_unusual_but_right_requests_are_answered() {
    let daemon = hasty();
    for request in [
        "GET /healthz HTTP/1.0\r\n\r\n",
        "GET http://events.example/healthz HTTP/1.1\r\nHost: events.example\r\n\r\n",
        "\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let answer = told(&daemon, request.as_bytes());
        assert!(answer.contains(" 200 OK\r\n") && answer.matches("HTTP/1.").count() == 1, "{request:?} got {answer:?}");
    }
}

#[test]
fn a_head_has_its_limits() {
    let daemon = hasty();
    let many: String = (0..65).map(|number| format!("X-{number}: a\r\n")).collect();
    for head in [many, format!("X: {}\r\n", "a".repeat(33_000))] {
        let answer = told(&daemon, format!("GET /healthz HTTP/1.1\r\n{head}\r\n").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer:?}");
    }
}

#[test]
fn open_connections_beyond_the_limit_wait_for_one_to_end() {
    let daemon = TestDaemon::with(|config| config.server.connections_max = 2);
    let mut held: Vec<Connection> = (0..2).map(|_| Connection::open(daemon.address())).collect();
    for connection in &mut held {
        connection.send(&Request::get("/healthz").bytes());
        connection.answer().unwrap().expect(200);
    }
    let mut third = Connection::open(daemon.address());
    third.send(&Request::get("/healthz").bytes());
    held.pop();
    third.answer().expect("an answer once there is room").expect(200);
}
