//! Receivers that do what receivers should not, and what is written down about each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lutine::domain::retry::{ErrorClass, Exchange};
use lutine::domain::time::Timestamp;
use lutine::webhook::Report;

use crate::support::*;

/// What a hostile receiver's sender must report.
#[derive(Debug, Clone)]
struct Expected {
    exchange: Exchange,
    status: Option<u16>,
    /// What the sentence must hold; empty means that there is none.
    error: &'static str,
}

const fn failed(class: ErrorClass, error: &'static str) -> Expected {
    Expected { exchange: Exchange::Failed(class), status: None, error }
}

const fn after(status: u16, class: ErrorClass, error: &'static str) -> Expected {
    Expected { exchange: Exchange::Failed(class), status: Some(status), error }
}

const fn answered(status: u16, error: &'static str) -> Expected {
    Expected { exchange: Exchange::Answered { status, not_before: None }, status: Some(status), error }
}

/// The most that a receiver may get rid of in one attempt: what is read, and what the kernel's buffers of both sides take.
const WRITTEN_MAX: u64 = 24 * 1024 * 1024;
const TIMEOUT_MS: u64 = 400;

async fn attempt(script: Vec<Step>) -> (Report, Receiver) {
    let receiver = Receiver::follows(vec![script]).await;
    let start = Instant::now();
    let report = send(&sender(), &hurried(&receiver.url(), TIMEOUT_MS)).await;
    assert!(start.elapsed() < Duration::from_secs(4), "{report:?}");
    (report, receiver)
}

async fn check(name: &str, script: Vec<Step>, expected: Expected) -> Report {
    let (report, receiver) = attempt(script).await;
    assert_eq!((report.exchange.clone(), report.status), (expected.exchange, expected.status), "{name}: {report:?}");
    match &report.error {
        None => assert_eq!("", expected.error, "{name}"),
        Some(error) => assert!(!expected.error.is_empty() && error.contains(expected.error), "{name}: {error}"),
    }
    assert!(report.excerpt.len() <= 16_384, "{name}");
    assert!(receiver.written() <= WRITTEN_MAX, "{name}: {} bytes", receiver.written());
    assert_eq!(receiver.connections(), 1, "{name}");
    report
}

async fn all<const N: usize>(cases: [(&str, Vec<Step>, Expected); N]) {
    // Most of them only wait, so they wait together.
    let tasks = cases.map(|(name, script, expected)| {
        let name = name.to_owned();
        tokio::spawn(async move { check(&name, script, expected).await })
    });
    for task in tasks {
        task.await.unwrap();
    }
}

/// A receiver that reads the request and then writes `bytes`, and closes.
fn says(bytes: impl AsRef<[u8]>) -> Vec<Step> {
    vec![Step::Read, write(bytes)]
}

#[tokio::test]
async fn receivers_that_are_slow_cost_the_timeout_and_no_more() {
    use ErrorClass::Timeout;
    all([
        ("hangs after accept", vec![Step::Hang], failed(Timeout, "400ms passed while the receiver had not answered")),
        ("hangs after the request", vec![Step::Read, Step::Hang], failed(Timeout, "had not answered")),
        ("hangs within the head", vec![Step::Read, write("HTTP/1.1 200 OK\r\nContent-"), Step::Hang], failed(Timeout, "had not answered")),
        (
            "hangs after the head",
            vec![Step::Read, write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"), Step::Hang],
            after(200, Timeout, "had not finished its answer"),
        ),
        (
            "hangs within a body without length",
            vec![Step::Read, write("HTTP/1.1 200 OK\r\n\r\nhello"), Step::Hang],
            after(200, Timeout, "had not finished its answer"),
        ),
        (
            "hangs within a chunk",
            vec![Step::Read, write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"), Step::Hang],
            after(200, Timeout, "had not finished its answer"),
        ),
        (
            "hangs after a failure's head",
            vec![Step::Read, write("HTTP/1.1 500 No\r\nContent-Length: 10\r\n\r\n"), Step::Hang],
            answered(500, "the receiver answered 500"),
        ),
        (
            "drips its head",
            vec![Step::Read, Step::Drip(b"HTTP/1.1 200 OK\r\nServer: very slow indeed\r\n\r\n".to_vec())],
            failed(Timeout, ""),
        ),
        (
            "drips its body",
            vec![Step::Read, write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"), Step::Drip(vec![b'x'; 100])],
            after(200, Timeout, "had not finished"),
        ),
        ("drips provisional answers", vec![Step::Read, Step::Drip(b"HTTP/1.1 102 Processing\r\n\r\n".repeat(9))], failed(Timeout, "")),
    ]
    .map(|(name, script, expected)| {
        let error = if expected.error.is_empty() { "the time-out of 400ms passed" } else { expected.error };
        (name, script, Expected { error, ..expected })
    }))
    .await;
}

#[tokio::test]
async fn answers_without_end_are_cut_where_the_limits_are() {
    use ErrorClass::Protocol;
    let endless = 1_000_000;
    all([
        (
            "headers without end",
            vec![Step::Read, write("HTTP/1.1 200 OK\r\n"), Step::Repeat(b"X-A: b\r\n".to_vec(), endless)],
            failed(Protocol, "too large"),
        ),
        (
            "one header without end",
            vec![Step::Read, write("HTTP/1.1 200 OK\r\nX-A: "), Step::Repeat(vec![b'a'; 4096], endless)],
            failed(Protocol, "too large"),
        ),
        (
            "a status line without end",
            vec![Step::Read, write("HTTP/1.1 200 "), Step::Repeat(vec![b'a'; 4096], endless)],
            failed(Protocol, "too large"),
        ),
        (
            "101 headers",
            says(format!("HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n", "X-A: b\r\n".repeat(101))),
            failed(Protocol, "too large"),
        ),
        (
            "provisional answers without end",
            vec![Step::Read, Step::Repeat(b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n".repeat(100), endless)],
            failed(Protocol, "provisional answers without end"),
        ),
        (
            "chunks without end",
            vec![
                Step::Read,
                write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
                Step::Repeat([b"1000\r\n".as_slice(), &[b'x'; 4096], b"\r\n"].concat(), endless),
            ],
            answered(200, ""),
        ),
        (
            "chunks of one byte without end",
            vec![
                Step::Read,
                write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
                Step::Repeat(b"1\r\nx\r\n".repeat(1000), endless),
            ],
            answered(200, ""),
        ),
        (
            "a chunk extension without end",
            vec![Step::Read, write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;"), Step::Repeat(vec![b'a'; 4096], endless)],
            after(200, ErrorClass::Body, "broke off"),
        ),
        (
            "trailers without end",
            vec![
                Step::Read,
                write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"),
                Step::Repeat(b"X-A: b\r\n".repeat(100), endless),
            ],
            after(200, ErrorClass::Body, "broke off"),
        ),
        (
            "a body of 100 MB",
            vec![Step::Read, write("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n"), Step::Repeat(vec![b'x'; 10_000], 10_000)],
            answered(200, ""),
        ),
        (
            "a failure's body of 100 MB",
            vec![Step::Read, write("HTTP/1.1 500 No\r\nContent-Length: 100000000\r\n\r\n"), Step::Repeat(vec![b'x'; 10_000], 10_000)],
            answered(500, "answered 500"),
        ),
        (
            "a body without length or end",
            vec![Step::Read, write("HTTP/1.1 200 OK\r\n\r\n"), Step::Repeat(vec![0xff; 4096], endless)],
            answered(200, ""),
        ),
    ])
    .await;
}

#[tokio::test]
async fn connections_that_break_are_told_by_where_they_break() {
    use ErrorClass::{Body, Reset};
    all([
        ("closes at once", vec![], failed(Reset, "")),
        ("resets at once", vec![Step::Reset], failed(Reset, "")),
        ("closes within the request", vec![Step::ReadBytes(1)], failed(Reset, "")),
        ("resets within the request", vec![Step::ReadBytes(1), Step::Reset], failed(Reset, "")),
        ("closes after the request", vec![Step::Read], failed(Reset, "closed the connection before it answered")),
        ("resets after the request", vec![Step::Read, Step::Reset], failed(Reset, "")),
        ("closes within the status line", says("HTTP/1"), failed(Reset, "")),
        ("closes within the head", says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"), failed(Reset, "")),
        ("resets within the head", vec![Step::Read, write("HTTP/1.1 200 OK\r\n"), Step::Reset], failed(Reset, "")),
        ("closes before the body's end", says("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"), after(200, Body, "broke off")),
        (
            "resets before the body's end",
            vec![Step::Read, write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"), Step::Reset],
            after(200, Body, "broke off"),
        ),
        ("closes within a chunk", says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"), after(200, Body, "broke off")),
        ("closes before the last chunk", says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"), after(200, Body, "")),
        ("a chunk's size is garbage", says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n"), after(200, Body, "")),
        ("a failure breaks off", says("HTTP/1.1 502 No\r\nContent-Length: 10\r\n\r\nabc"), answered(502, "answered 502")),
        (
            "a refusal breaks off",
            vec![Step::ReadBytes(1), write("HTTP/1.1 413 No\r\nContent-Length: 10\r\n\r\n"), Step::Reset],
            answered(413, "answered 413"),
        ),
        ("gone breaks off", says("HTTP/1.1 410 Gone\r\nContent-Length: 1\r\n\r\n"), answered(410, "answered 410")),
    ]
    .map(|(name, script, expected)| {
        let any = match expected.exchange {
            Exchange::Failed(Reset) => "connection",
            _ => "broke off",
        };
        let error = if expected.error.is_empty() { any } else { expected.error };
        (name, script, Expected { error, ..expected })
    }))
    .await;
}

#[tokio::test]
async fn what_is_not_http_is_told_so() {
    use ErrorClass::Protocol;
    let no_http = "not HTTP/1.1";
    all([
        ("garbage", says([0xde, 0xad, 0xbe, 0xef, b'\r', b'\n', b'\r', b'\n']), failed(Protocol, no_http)),
        ("HTTP/0.9", says("<html>hello</html>"), failed(Protocol, no_http)),
        ("SSH", says("SSH-2.0-OpenSSH_9.2p1\r\n"), failed(Protocol, no_http)),
        ("HTTP/2 in the clear", says("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), failed(Protocol, no_http)),
        ("HTTP/3.0", says("HTTP/3.0 200 OK\r\n\r\n"), failed(Protocol, no_http)),
        ("TLS", says([0x15, 3, 1, 0, 2, 2, 70]), failed(Protocol, no_http)),
        ("status 000", says("HTTP/1.1 000 No\r\n\r\n"), failed(Protocol, no_http)),
        ("status 099", says("HTTP/1.1 099 No\r\n\r\n"), failed(Protocol, no_http)),
        ("status 20", says("HTTP/1.1 20 OK\r\n\r\n"), failed(Protocol, no_http)),
        ("status 2000", says("HTTP/1.1 2000 OK\r\n\r\n"), failed(Protocol, no_http)),
        ("status abc", says("HTTP/1.1 abc OK\r\n\r\n"), failed(Protocol, no_http)),
        ("status 999", says("HTTP/1.1 999 No\r\nContent-Length: 0\r\n\r\n"), answered(999, "answered 999")),
        ("status 600", says("HTTP/1.1 600 No\r\nContent-Length: 0\r\n\r\n"), answered(600, "answered 600")),
        ("a control character in a header", says(b"HTTP/1.1 200 OK\r\nX-A: \x01\r\n\r\n"), failed(Protocol, no_http)),
        ("a zero byte in a header", says(b"HTTP/1.1 200 OK\r\nX-A: a\0b\r\n\r\n"), failed(Protocol, no_http)),
        ("a space in a header's name", says("HTTP/1.1 200 OK\r\nX A: b\r\n\r\n"), failed(Protocol, no_http)),
        ("a folded header", says("HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\n\r\n"), failed(Protocol, no_http)),
        ("two lengths", says("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"), failed(Protocol, no_http)),
        ("a negative length", says("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"), failed(Protocol, no_http)),
        ("a reason with a zero byte", says(b"HTTP/1.1 200 O\0K\r\nContent-Length: 0\r\n\r\n"), failed(Protocol, no_http)),
        (
            "an upgrade nobody asked for",
            says("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
            answered(101, "101"),
        ),
    ])
    .await;
}

#[tokio::test]
async fn odd_but_lawful_answers_are_taken() {
    all([
        ("no length", says("HTTP/1.1 200 OK\r\n\r\nhello"), answered(200, "")),
        ("HTTP/1.0", says("HTTP/1.0 200 OK\r\n\r\nhello"), answered(200, "")),
        ("bare line feeds", says("HTTP/1.1 200 OK\nContent-Length: 0\n\n"), answered(200, "")),
        ("no reason", says("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"), answered(200, "")),
        ("204 with a body", says("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello"), answered(204, "")),
        ("204 in chunks", says("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), answered(204, "")),
        ("304 with a body", says("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello"), answered(304, "answered 304")),
        (
            "a few provisional answers",
            says("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 204 OK\r\n\r\n"),
            answered(204, ""),
        ),
        ("high bytes in a header", says(b"HTTP/1.1 200 OK\r\nX-A: \xff\xfe\r\nContent-Length: 0\r\n\r\n"), answered(200, "")),
        ("a header in the reason", says("HTTP/1.1 200 OK Content-Length: 9\r\nContent-Length: 0\r\n\r\n"), answered(200, "")),
        ("two answers", says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 500 No\r\n\r\n"), answered(200, "")),
        ("one length twice", says("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na"), answered(200, "")),
        (
            "length and chunks",
            says("HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"),
            answered(200, ""),
        ),
        (
            "an answer before the request is read",
            vec![write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), Step::Hang],
            answered(200, ""),
        ),
    ])
    .await;
}

#[tokio::test]
async fn redirects_are_told_and_never_followed() {
    let elsewhere = Receiver::answers(OK).await;
    let to = |location: &str| says(format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"));
    let follow = "redirects are not followed";
    all([
        ("to another receiver", to(&elsewhere.url()), answered(302, "answered 302 and points to 127.0.0.1; redirects are not followed")),
        ("to itself", to("/hooks"), answered(302, "another path of its host")),
        ("to metadata", to("http://169.254.169.254/latest/meta-data/"), answered(302, "points to 169.254.169.254")),
        ("to a file", to("file:///etc/passwd"), answered(302, follow)),
        ("to garbage", to("https://["), answered(302, "answered 302")),
        ("to nowhere", says("HTTP/1.1 301 Moved\r\nContent-Length: 0\r\n\r\n"), answered(301, "answered 301")),
        (
            "with the method kept",
            says("HTTP/1.1 308 Moved\r\nLocation: https://b.example/\r\nContent-Length: 0\r\n\r\n"),
            answered(308, "b.example"),
        ),
    ])
    .await;
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn nothing_is_decompressed() {
    // gzip of many zeros, as far as anybody looks at it.
    let bomb = [[0x1f_u8, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3].as_slice(), &[0; 90]].concat();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", bomb.len());
    let report = check("a gzip bomb", says([head.as_bytes(), &bomb].concat()), answered(200, "")).await;
    assert!(report.excerpt.starts_with('\u{1f}') && report.excerpt.len() < 110 && !report.truncated);
}

#[tokio::test]
async fn of_a_long_answer_the_beginning_is_kept() {
    let body = "å".repeat(40_000);
    let answer = format!("HTTP/1.1 500 No\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let report = check("a long answer", says(answer), answered(500, "500")).await;
    assert_eq!((report.excerpt, report.truncated), ("å".repeat(8_192), true));
    let exact = format!("HTTP/1.1 200 OK\r\nContent-Length: 16384\r\n\r\n{}", "x".repeat(16_384));
    let report = check("just fits", says(exact), answered(200, "")).await;
    assert_eq!((report.excerpt.len(), report.truncated), (16_384, false));
}

#[tokio::test]
async fn a_receiver_that_answers_before_it_has_read_a_long_request_is_believed() {
    let event = event_with(&format!("\"{}\"", "x".repeat(16 * 1024 * 1024)), "{}", "1");
    for (script, expected) in [
        (vec![Step::ReadBytes(100), write("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"), Step::Hang], 413),
        (vec![Step::ReadBytes(100), write("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno")], 413),
        (vec![Step::ReadBytes(100), write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), Step::Hang], 200),
    ] {
        let receiver = Receiver::follows(vec![script]).await;
        let report = sender().send(&target(&receiver.url()), &event, 1, now()).await;
        assert_eq!(report.exchange, Exchange::Answered { status: expected, not_before: None }, "{report:?}");
    }
    let receiver = Receiver::follows(vec![vec![Step::ReadBytes(100), Step::Reset]]).await;
    let report = sender().send(&target(&receiver.url()), &event, 1, now()).await;
    assert_eq!(report.exchange, Exchange::Failed(ErrorClass::Reset), "{report:?}");
}

#[tokio::test]
async fn a_receiver_that_never_reads_costs_the_timeout() {
    let event = event_with(&format!("\"{}\"", "x".repeat(16 * 1024 * 1024)), "{}", "1");
    let signal = Arc::new(tokio::sync::Notify::new());
    let receiver = Receiver::follows(vec![vec![Step::Wait(signal)]]).await;
    let report = sender().send(&hurried(&receiver.url(), TIMEOUT_MS), &event, 1, now()).await;
    assert_eq!(report.exchange, Exchange::Failed(ErrorClass::Timeout));
}

#[tokio::test]
async fn a_receiver_may_say_when_to_come_again() {
    let date: Timestamp = "2026-11-22T11:00:00Z".parse().unwrap();
    let dated = |form: &str| (form.to_owned(), Some(date));
    let asked = [
        dated("Sun, 22 Nov 2026 11:00:00 GMT"),
        dated("Sunday, 22-Nov-26 11:00:00 GMT"),
        dated("Sun Nov 22 11:00:00 2026"),
        ("soon".to_owned(), None),
        ("-5".to_owned(), None),
        (String::new(), None),
        ("1e3".to_owned(), None),
    ];
    for status in [429, 503] {
        for (form, expected) in &asked {
            let (report, _) = attempt(says(format!("HTTP/1.1 {status} No\r\nRetry-After: {form}\r\nContent-Length: 0\r\n\r\n"))).await;
            assert_eq!(report.exchange, Exchange::Answered { status, not_before: *expected }, "{form}");
        }
        let (report, _) = attempt(says(format!("HTTP/1.1 {status} No\r\nRetry-After: 120\r\nContent-Length: 9\r\n\r\n"))).await;
        let Exchange::Answered { not_before: Some(time), .. } = report.exchange else { panic!("{report:?}") };
        assert!((120..125).contains(&time.since(now()).as_secs()));
    }
    for status in [200, 302, 404, 413, 500] {
        let (report, _) = attempt(says(format!("HTTP/1.1 {status} X\r\nRetry-After: 120\r\nContent-Length: 0\r\n\r\n"))).await;
        assert_eq!(report.exchange, Exchange::Answered { status, not_before: None });
    }
}

#[tokio::test]
async fn names_that_do_not_resolve_and_ports_that_do_not_listen_are_told() {
    let names = Names::new([("empty.test", &[&[]]), ("here.test", &[&["127.0.0.1"]])]);
    let (sender, _) = sender_with(development(), names);
    let report = send(&sender, &target("http://unknown.test/")).await;
    assert_eq!((report.exchange, report.address), (Exchange::Failed(ErrorClass::Dns), None));
    assert_eq!(send(&sender, &target("http://empty.test/")).await.exchange, Exchange::Failed(ErrorClass::Dns));
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let report = send(&sender, &target(&format!("http://here.test:{}/", closed.port()))).await;
    assert_eq!((report.exchange, report.address), (Exchange::Failed(ErrorClass::Connect), Some(closed.ip())));
    assert_eq!(report.error.unwrap(), "the receiver refuses connections");
}

#[tokio::test]
async fn the_next_address_of_a_name_is_tried_when_one_refuses() {
    let receiver = Receiver::answers(OK).await;
    let (sender, _) = sender_with(development(), Names::new([("two.test", &[&["127.0.0.2", "127.0.0.1"]])]));
    let report = send(&sender, &target(&format!("http://two.test:{}/", receiver.address.port()))).await;
    assert_eq!(report.exchange, Exchange::Answered { status: 204, not_before: None });
    assert_eq!(report.address, Some(receiver.address.ip()));
}

#[tokio::test]
async fn a_name_server_that_is_silent_costs_the_timeout() {
    let (sender, _) = sender_with(development(), Arc::new(Silent));
    let report = send(&sender, &hurried("http://receiver.test/", 100)).await;
    assert_eq!(report.exchange, Exchange::Failed(ErrorClass::Timeout));
    assert_eq!(report.error.unwrap(), "the time-out of 100ms passed while the receiver's name was still being resolved");
}
