//! The call to a token service: what is asked, and what is taken from the answer (RFC 6749, 4.4).

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use url::form_urlencoded::{Serializer, byte_serialize};

use super::assertion::{AssertionKey, KeyError};
use crate::domain::subscription::{ClientCredentials, TokenMethod};
use crate::domain::time::Timestamp;
use crate::webhook::connection::RequestBody;
use crate::webhook::endpoint::{Endpoint, UrlError};
use crate::webhook::target::AGENT;

/// The longest access token, in bytes: receivers seldom take longer headers.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// The type of a client assertion that is a JWT (RFC 7523, 2.2).
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// Errors of token services that may be shown (RFC 6749, 5.2; RFC 8707, 2; RFC 7009, 2.2.1). Nothing else is: whatever
/// a service writes may hold what it was sent.
const ERRORS: [&str; 10] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "invalid_target",
    "access_denied",
    "server_error",
    "temporarily_unavailable",
];

/// Credentials that no token can be asked for with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The token service's URL.
    #[error("of the token service, {0}")]
    Url(#[from] UrlError),
    /// The private key.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// What is in an answer of a token service.
pub(super) struct Granted {
    /// `Bearer` and the token.
    pub authorization: HeaderValue,
    pub expires_in: Option<Duration>,
}

/// Why an answer holds no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum AnswerError {
    /// The service says no.
    #[error("the token service answered {status}{}", error.map(|error| format!(": {error}")).unwrap_or_default())]
    Refused { status: u16, error: Option<&'static str> },
    /// The service says yes, but not how it must be said.
    #[error("the token service answered {status}, but {reason}")]
    Malformed { status: u16, reason: &'static str },
}

impl AnswerError {
    /// Whether the service may say something else before anybody changes anything.
    pub const fn is_unavailability(&self) -> bool {
        matches!(self, Self::Refused { status: 429 | 500..=599, .. })
    }
}

/// A client at its token service.
pub(super) struct TokenClient {
    pub endpoint: Endpoint,
    url: String,
    client_id: String,
    proof: Proof,
    /// Grant type, scope and audience.
    form: String,
}

enum Proof {
    /// The whole header.
    Basic(HeaderValue),
    /// Id and secret as parameters.
    Post(String),
    Assertion(AssertionKey),
}

/// Seconds as a number or as the text of one; anything else is no statement.
fn seconds(value: &Value) -> Option<Duration> {
    let seconds = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    // A number without end is a life without end; the rules of tokens bound it.
    (seconds >= 0.0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

impl TokenClient {
    pub fn new(credentials: &ClientCredentials) -> Result<Self, ClientError> {
        let endpoint = Endpoint::parse(&credentials.token_url)?;
        let (id, secret) = (&credentials.client_id, &credentials.credential.0);
        let proof = match credentials.method {
            TokenMethod::Basic => {
                // Both are encoded as in a form, so that a colon of the id is told from the one between them (RFC 6749, 2.3.1).
                let encode = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
                let text = format!("Basic {}", STANDARD.encode(format!("{}:{}", encode(id), encode(secret))));
                #[expect(clippy::expect_used, reason = "base64 is visible ASCII")]
                let mut value = HeaderValue::try_from(text).expect("visible ASCII");
                value.set_sensitive(true);
                Proof::Basic(value)
            }
            TokenMethod::Post => {
                Proof::Post(Serializer::new(String::new()).append_pair("client_id", id).append_pair("client_secret", secret).finish())
            }
            TokenMethod::PrivateKeyJwt => Proof::Assertion(AssertionKey::parse(secret)?),
        };
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        for (name, value) in [("scope", &credentials.scope), ("audience", &credentials.audience)] {
            if let Some(value) = value {
                form.append_pair(name, value);
            }
        }
        Ok(Self { endpoint, url: credentials.token_url.clone(), client_id: id.clone(), proof, form: form.finish() })
    }

    /// One request for a token, made at `now`.
    pub fn request(&self, now: Timestamp) -> Result<Request<RequestBody>, KeyError> {
        let proof = match &self.proof {
            Proof::Basic(_) => String::new(),
            Proof::Post(parameters) => format!("&{parameters}"),
            Proof::Assertion(key) => {
                let assertion = key.assert(&self.client_id, &self.url, now)?;
                let mut parameters = Serializer::new(String::new());
                parameters.append_pair("client_id", &self.client_id);
                parameters.append_pair("client_assertion_type", ASSERTION_TYPE);
                parameters.append_pair("client_assertion", &assertion);
                format!("&{}", parameters.finish())
            }
        };
        let form = format!("{}{proof}", self.form);
        let mut request = Request::new(RequestBody::whole(Bytes::from(form)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.endpoint.path.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, self.endpoint.authority.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        if let Proof::Basic(value) = &self.proof {
            headers.insert(AUTHORIZATION, value.clone());
        }
        Ok(request)
    }
}

/// Takes the token out of an answer, whatever content type it claims to be.
pub(super) fn take(status: StatusCode, body: &[u8]) -> Result<Granted, AnswerError> {
    if !status.is_success() {
        let named = serde_json::from_slice::<Value>(body).ok();
        let named = named.as_ref().and_then(|body| body.get("error")).and_then(Value::as_str);
        let error = named.and_then(|named| ERRORS.into_iter().find(|known| *known == named));
        return Err(AnswerError::Refused { status: status.as_u16(), error });
    }
    let malformed = |reason| AnswerError::Malformed { status: status.as_u16(), reason };
    let answer: Map<String, Value> = serde_json::from_slice(body).map_err(|_| malformed("what it sent is no JSON object"))?;
    let token = answer.get("access_token").and_then(Value::as_str).unwrap_or_default();
    if token.is_empty() {
        return Err(malformed("there is no access_token in it"));
    }
    if token.len() > TOKEN_BYTES_MAX {
        return Err(malformed("the access_token is longer than 8 KiB"));
    }
    // RFC 6749, A.12, without the space, which would end it in the header.
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(malformed("the access_token holds characters that none may have"));
    }
    // Required (RFC 6749, 5.1), but left out by some; another type would be used in another way.
    if answer.get("token_type").is_some_and(|kind| !kind.as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("bearer"))) {
        return Err(malformed("the token_type is not Bearer"));
    }
    let mut authorization =
        HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| malformed("the access_token is no header value"))?;
    authorization.set_sensitive(true);
    Ok(Granted { authorization, expires_in: answer.get("expires_in").and_then(seconds) })
}

/// Tells credentials, and where their tokens go, from all others.
pub(super) fn fingerprint(url: &str, credentials: &ClientCredentials, certificates: [u8; 32]) -> [u8; 32] {
    let method = credentials.method.as_str();
    let optional = |text: &Option<String>| text.as_ref().map_or_else(String::new, |text| format!("={text}"));
    let (scope, audience) = (optional(&credentials.scope), optional(&credentials.audience));
    let parts = [url, &credentials.token_url, &credentials.client_id, method, &credentials.credential.0, &scope, &audience];
    let mut digest = Sha256::new_with_prefix(certificates);
    for part in parts {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::domain::subscription::Credential;

    fn credentials(method: TokenMethod) -> ClientCredentials {
        ClientCredentials {
            token_url: "https://id.example/token?x=1".to_owned(),
            client_id: "a:b é".to_owned(),
            method,
            credential: Credential("s+&:".to_owned()),
            scope: Some("read write".to_owned()),
            audience: None,
        }
    }

    async fn form(request: Request<RequestBody>) -> String {
        String::from_utf8(request.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    fn now() -> Timestamp {
        "2026-11-22T10:00:00Z".parse().unwrap()
    }

    #[tokio::test]
    async fn id_and_secret_go_into_a_header_encoded_as_in_a_form() {
        let request = TokenClient::new(&credentials(TokenMethod::Basic)).unwrap().request(now()).unwrap();
        let header = request.headers()[AUTHORIZATION].to_str().unwrap().strip_prefix("Basic ").unwrap().to_owned();
        assert_eq!(String::from_utf8(STANDARD.decode(header).unwrap()).unwrap(), "a%3Ab+%C3%A9:s%2B%26%3A");
        assert_eq!(request.headers()[CONTENT_TYPE], "application/x-www-form-urlencoded");
        assert_eq!((request.method(), request.uri().to_string().as_str()), (&Method::POST, "/token?x=1"));
        assert_eq!(form(request).await, "grant_type=client_credentials&scope=read+write");
    }

    #[tokio::test]
    async fn or_into_the_form() {
        let request = TokenClient::new(&ClientCredentials { audience: Some("x".to_owned()), ..credentials(TokenMethod::Post) }).unwrap();
        let request = request.request(now()).unwrap();
        assert!(!request.headers().contains_key(AUTHORIZATION));
        let expected = "grant_type=client_credentials&scope=read+write&audience=x&client_id=a%3Ab+%C3%A9&client_secret=s%2B%26%3A";
        assert_eq!(form(request).await, expected);
    }

    fn taken(body: &str) -> Result<(String, Option<u64>), AnswerError> {
        let granted = take(StatusCode::OK, body.as_bytes())?;
        Ok((granted.authorization.to_str().unwrap().to_owned(), granted.expires_in.map(|life| life.as_secs())))
    }

    #[test]
    fn a_token_is_taken_with_what_is_said_of_its_life() {
        let expected = [
            (r#"{"access_token":"a.b-c","token_type":"bearer","expires_in":3600,"scope":"x","more":[1]}"#, Some(3600)),
            (r#"{"access_token":"a.b-c","token_type":"Bearer","expires_in":"60"}"#, Some(60)),
            (r#"{"access_token":"a.b-c","expires_in":1.5}"#, Some(1)),
            (r#"{"access_token":"a.b-c","expires_in":1e300}"#, Some(u64::MAX)),
            (r#"{"access_token":"a.b-c","expires_in":-1}"#, None),
            (r#"{"access_token":"a.b-c","expires_in":"soon"}"#, None),
            (r#"{"access_token":"a.b-c","expires_in":[1]}"#, None),
            (r#"{"access_token":"a.b-c"}"#, None),
        ];
        for (body, life) in expected {
            assert_eq!(taken(body), Ok(("Bearer a.b-c".to_owned(), life)), "{body}");
        }
    }

    #[test]
    fn whatever_is_no_token_is_refused_and_not_repeated() {
        let long = format!(r#"{{"access_token":"{}"}}"#, "x".repeat(TOKEN_BYTES_MAX + 1));
        let wrong = [
            ("", "no JSON object"),
            ("<html>hush</html>", "no JSON object"),
            (r#"["hush","bearer",60]"#, "no JSON object"),
            (r#""hush""#, "no JSON object"),
            (r#"{"access_token":"#, "no JSON object"),
            ("{}", "no access_token"),
            (r#"{"access_token":""}"#, "no access_token"),
            (r#"{"access_token":null}"#, "no access_token"),
            (r#"{"access_token":["hush"]}"#, "no access_token"),
            (r#"{"access_token":"hush\r\nX-Evil: 1"}"#, "characters"),
            (r#"{"access_token":"hush hush"}"#, "characters"),
            (r#"{"access_token":"hush\u0000"}"#, "characters"),
            (r#"{"access_token":"hüsh"}"#, "characters"),
            (&long, "longer"),
            (r#"{"access_token":"hush","token_type":"mac"}"#, "token_type"),
            (r#"{"access_token":"hush","token_type":7}"#, "token_type"),
        ];
        for (body, reason) in wrong {
            let error = taken(body).unwrap_err();
            assert!(error.to_string().contains(reason) && !error.to_string().contains("hush"), "{body}: {error}");
            assert!(!error.is_unavailability());
        }
    }

    #[test]
    fn a_refusal_is_told_by_its_code_if_that_is_a_known_one() {
        let told = |status: u16, body: &str| take(StatusCode::from_u16(status).unwrap(), body.as_bytes()).err().unwrap();
        let refused = told(401, r#"{"error":"invalid_client","error_description":"hush"}"#);
        assert_eq!(refused.to_string(), "the token service answered 401: invalid_client");
        assert_eq!(told(400, r#"{"error":"hush"}"#).to_string(), "the token service answered 400");
        assert_eq!(told(503, "hush").to_string(), "the token service answered 503");
        assert!(told(503, "").is_unavailability() && told(429, "").is_unavailability() && !refused.is_unavailability());
    }

    #[test]
    fn every_part_tells_credentials_apart() {
        let base = credentials(TokenMethod::Basic);
        let print = |credentials: &ClientCredentials| fingerprint("https://a.example/", credentials, [0; 32]);
        let change = |change: fn(&mut ClientCredentials)| {
            let mut changed = base.clone();
            change(&mut changed);
            print(&changed)
        };
        let all = [
            print(&base),
            change(|one| one.token_url.push('x')),
            change(|one| one.client_id.push('x')),
            change(|one| one.method = TokenMethod::Post),
            change(|one| one.credential.0.push('x')),
            change(|one| one.scope = None),
            change(|one| one.scope = Some(String::new())),
            change(|one| one.audience = one.scope.take()),
            fingerprint("https://b.example/", &base, [0; 32]),
            fingerprint("https://a.example/", &base, [1; 32]),
        ];
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }
}
