//! One GET of a document that the operator has named, under the same policy as webhooks.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::header::{ACCEPT, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, StatusCode};
use tokio::time::timeout;

use super::connection::RequestBody;
use super::endpoint::Endpoint;
use super::{Progress, Sender, answer};

/// The most that is read of a document, in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 64 * 1024;

/// Why a document was not fetched, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FetchError(String);

impl FetchError {
    fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl Sender {
    /// The document at `url`. Redirects are not followed, and nothing but a 200 counts.
    ///
    /// # Errors
    /// When there is none of at most [`DOCUMENT_BYTES_MAX`] bytes within `time_max`, or the policy does not allow its
    /// address.
    pub async fn fetch(&self, url: &str, time_max: Duration) -> Result<Vec<u8>, FetchError> {
        match timeout(time_max, self.get(url)).await {
            Ok(fetched) => fetched,
            Err(_) => Err(FetchError(format!("it was not there within {time_max:?}"))),
        }
    }

    async fn get(&self, url: &str) -> Result<Vec<u8>, FetchError> {
        let endpoint = Endpoint::parse(url).map_err(|error| FetchError::new(error.to_string()))?;
        let policy = self.policy.load_full();
        if endpoint.server_name.is_none() && !policy.allow_http {
            return Err(FetchError::new("the URL begins with http:// and egress.allow_http is false"));
        }
        let mut request = Request::new(RequestBody::whole(Bytes::new()));
        *request.uri_mut() = endpoint.path.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, endpoint.authority.clone());
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("lutine/", env!("CARGO_PKG_VERSION"))));
        let tls = self.connector.tls_for_tokens(None).map_err(|failure| FetchError(failure.error))?;
        let connected = self.connector.connect(&endpoint, &tls, policy, &mut Progress::default()).await;
        let mut connection = connected.map_err(|failure| FetchError(failure.error))?;
        let answer = connection.send(request).await.map_err(|(error, _)| FetchError(answer::failure(&error).error))?;
        if answer.status() != StatusCode::OK {
            return Err(FetchError(format!("the answer is {}, not 200", answer.status().as_u16())));
        }
        let mut body = answer.into_body();
        let mut document = Vec::new();
        while let Some(frame) = connection.drive(body.frame()).await {
            let frame = frame.map_err(|_| FetchError::new("the answer broke off, or is too long"))?;
            let Ok(data) = frame.into_data() else { continue };
            if document.len() + data.len() > DOCUMENT_BYTES_MAX {
                return Err(FetchError(format!("it has more than {DOCUMENT_BYTES_MAX} bytes")));
            }
            document.extend_from_slice(&data);
        }
        Ok(document)
    }
}
