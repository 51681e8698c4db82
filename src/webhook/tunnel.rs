//! Through a proxy: a tunnel by `CONNECT` (RFC 9110, 9.3.6), for `https` and `http` alike.
//!
//! TLS is agreed on with the receiver, inside the tunnel; the proxy sees host and port, and nothing that is sent.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue, PROXY_AUTHORIZATION};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Failure;
use super::endpoint::Endpoint;
use crate::domain::proxy::Proxy;
use crate::domain::retry::ErrorClass;

/// How long a proxy may take to connect.
const TUNNEL: Duration = Duration::from_secs(10);
/// The longest head of its answer, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

fn failure(error: impl Into<String>) -> Failure {
    Failure::new(ErrorClass::Connect, error)
}

pub(super) fn no_host() -> Failure {
    failure("the proxy's name is no host")
}

fn request(endpoint: &Endpoint, proxy: &Proxy) -> Result<Request<Empty<Bytes>>, Failure> {
    let authority = format!("{}:{}", endpoint.host, endpoint.port);
    let unusable = || failure("the receiver's host cannot be asked for at a proxy");
    let mut request = Request::new(Empty::new());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = Uri::try_from(&authority).map_err(|_| unusable())?;
    request.headers_mut().insert(HOST, HeaderValue::try_from(authority).map_err(|_| unusable())?);
    if let Some(credentials) = &proxy.credentials {
        let text = format!("Basic {}", STANDARD.encode(credentials.as_str()));
        let mut value = HeaderValue::try_from(text).map_err(|_| failure("the proxy's credentials are no header value"))?;
        value.set_sensitive(true);
        request.headers_mut().insert(PROXY_AUTHORIZATION, value);
    }
    Ok(request)
}

/// Has the proxy at the other end of a stream connect to the endpoint.
pub(super) async fn open(stream: TcpStream, endpoint: &Endpoint, proxy: &Proxy) -> Result<TcpStream, Failure> {
    let request = request(endpoint, proxy)?;
    let opened = timeout(TUNNEL, exchange(stream, request)).await;
    let late = || Failure::new(ErrorClass::Timeout, format!("the proxy had not connected after {} s", TUNNEL.as_secs()));
    opened.unwrap_or_else(|_| Err(late()))
}

async fn exchange(stream: TcpStream, request: Request<Empty<Bytes>>) -> Result<TcpStream, Failure> {
    let broken = |error: hyper::Error| failure(format!("the proxy did not answer as one: {error}"));
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES_MAX);
    let (mut requests, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let mut connection = pin!(connection.with_upgrades());
    let mut has_ended = false;
    let answer = drive(connection.as_mut(), &mut has_ended, pin!(requests.send_request(request))).await.map_err(broken)?;
    match answer.status() {
        status if status.is_success() => {}
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => return Err(failure("the proxy wants other credentials: it answered 407")),
        status => return Err(failure(format!("the proxy did not connect to the receiver: it answered {}", status.as_u16()))),
    }
    let upgraded = drive(connection.as_mut(), &mut has_ended, pin!(hyper::upgrade::on(answer))).await.map_err(broken)?;
    let parts = upgraded.downcast::<TokioIo<TcpStream>>().map_err(|_| failure("the proxy opened no tunnel"))?;
    // Both TLS and HTTP begin with what is sent from here.
    if !parts.read_buf.is_empty() {
        return Err(failure("the proxy spoke first inside the tunnel"));
    }
    Ok(parts.io.into_inner())
}

/// Waits for something that only comes if the connection is driven meanwhile.
async fn drive<T>(
    mut connection: Pin<&mut impl Future<Output = hyper::Result<()>>>,
    has_ended: &mut bool,
    mut awaited: Pin<&mut impl Future<Output = T>>,
) -> T {
    poll_fn(|context| {
        if let Poll::Ready(value) = awaited.as_mut().poll(context) {
            return Poll::Ready(value);
        }
        if !*has_ended {
            // An error is told to whoever waits.
            *has_ended = connection.as_mut().poll(context).is_ready();
        }
        awaited.as_mut().poll(context)
    })
    .await
}
