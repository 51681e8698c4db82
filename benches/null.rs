//! The HTTP limit: a hyper server on one current-thread runtime that reads the body and answers, and does nothing else.
//!
//! It runs as a process of its own (this executable again), so that its processor time is its own.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::helper::{Helper, greet};
use crate::process::Process;

/// Names the file with the answer to a GET; its presence makes this executable the server.
const ANSWER_VARIABLE: &str = "LUTINE_BENCH_NULL_ANSWER";
/// What a publish answers.
const RECEIPT: &[u8] = br#"{"id":1042,"createdUtc":"2026-11-22T10:30:00.123456Z"}"#;

/// A running null server; ends when dropped.
pub struct Null {
    pub address: SocketAddr,
    pub process: Process,
    /// Ends it.
    _helper: Helper,
}

impl Null {
    /// Starts a server that answers every GET with `answer`, which goes through a file of the directory.
    pub fn start(directory: &Path, answer: &[u8]) -> Self {
        let file = directory.join("null-answer");
        std::fs::write(&file, answer).expect("the null server's answer is written");
        let helper = Helper::start(ANSWER_VARIABLE, &file);
        let address = helper.greeting.parse().expect("the null server prints its address");
        Self { address, process: helper.process, _helper: helper }
    }
}

/// The file of the answer, if this process was started as the null server.
pub fn asked_for() -> Option<PathBuf> {
    std::env::var_os(ANSWER_VARIABLE).map(PathBuf::from)
}

/// Serves until the bench ends.
pub fn serve(answer_file: &Path) {
    let answer = Bytes::from(std::fs::read(answer_file).expect("the null server's answer is read"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        greet(&listener.local_addr().unwrap().to_string());
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            stream.set_nodelay(true).unwrap();
            let answer = answer.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| respond(request, answer.clone()));
                // A client that goes away is no fault of the server.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
}

async fn respond(request: Request<Incoming>, answer: Bytes) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, body) = if request.method() == Method::POST {
        let received = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
        std::hint::black_box(received.ok());
        (StatusCode::CREATED, Bytes::from_static(RECEIPT))
    } else {
        (StatusCode::OK, answer)
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
