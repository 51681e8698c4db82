//! The API without a connection: calls made by the process that has the store open itself.

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderValue;
use bytes::Bytes;
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::gate::Caller;
use super::routes::router;
use crate::service::Services;

/// The routes, to be called as the administrator calls them over the local socket.
#[derive(Debug, Clone)]
pub struct Direct {
    router: Router,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct DirectReply {
    /// The HTTP status.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl Direct {
    /// The routes over these services.
    #[must_use]
    pub fn new(services: &Services) -> Self {
        Self { router: router(services) }
    }

    /// Makes one call.
    ///
    /// # Errors
    /// When method, path or headers cannot be sent, with the reason.
    pub async fn call(&self, method: &str, path_and_query: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Result<DirectReply, String> {
        let mut request = Request::builder().method(method).uri(path_and_query).extension(Caller::Local);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body)).map_err(|error| error.to_string())?;
        let response = self.router.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
        let (head, body) = response.into_parts();
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
        Ok(DirectReply { status: head.status.as_u16(), headers, body })
    }
}
