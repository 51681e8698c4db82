//! The authorization server: token endpoints, and what clients must know of them.
//!
//! Everything here speaks as RFC 6749 says, never in problem documents.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, PRAGMA, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Serialize;
use url::form_urlencoded;

use super::body;
use super::call::{Quota, json, media_type};
use super::fault::Fault;
use super::gate::{Caller, OpenCall, allows_caller, caller_of};
use crate::domain::client::Client;
use crate::domain::key::Bucket;
use crate::domain::scope::{Scope, ScopeSet};
use crate::domain::time::Timestamp;
use crate::service::Services;
use crate::service::assertions::{Addresses, AssertionError};
use crate::service::jose::ALGORITHMS;
use crate::service::tokens::{ACCESS_KEY_TOKEN_LIFE, IssuedToken, TOKEN_LIFE, issuer};
use crate::wire::oauth::{AccessKeyBody, AccessKeyTokenShape, JwkShape, MetadataShape, OAuthErrorShape, TokenShape};

/// The path of the token endpoint; there are others for clients that know it under another name.
pub(super) const TOKEN: &str = "/oauth2/token";
/// The path under which a `grant_type` may be missing, and a wrong client is a 400.
const LENIENT_TOKEN: &str = "/v1/oauth2/token";
/// The path of the public keys.
pub(super) const JWKS: &str = "/oauth2/jwks";
/// How the assertion of a client is announced (RFC 7523, 2.2).
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const FORM: &str = "application/x-www-form-urlencoded";
/// Bytes of a request for a token at most.
const BODY_BYTES_MAX: usize = 32_768;
/// Seconds that metadata and keys may be kept; a key is published much longer before it signs.
const PUBLIC_MAX_AGE: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// Why no token is given.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    /// A code of RFC 6749, 5.2.
    error: &'static str,
    description: Cow<'static, str>,
    /// The client has tried `Authorization`, so that it is told what is understood there.
    challenges: bool,
    retry_after: Option<u64>,
    closes: bool,
}

impl Refusal {
    fn new(status: StatusCode, error: &'static str, description: impl Into<Cow<'static, str>>) -> Self {
        Self { status, error, description: description.into(), challenges: false, retry_after: None, closes: false }
    }

    fn request(description: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", description)
    }

    fn client(description: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_client", description)
    }

    /// The words of a description, in the characters that one may have (RFC 6749, 5.2).
    fn sentence(&self) -> String {
        let allowed = |one: char| match one {
            '"' => '\'',
            '\\' => '/',
            ' '..='~' => one,
            _ => '?',
        };
        self.description.chars().map(allowed).collect()
    }

    fn render(&self) -> Result<Response, Fault> {
        let sentence = self.sentence();
        self.finish(json(self.status, &OAuthErrorShape { error: self.error, error_description: Some(&sentence) })?)
    }

    /// As clients of the lenient path expect it: a wrong client is a 400 without words.
    fn render_lenient(&self) -> Result<Response, Fault> {
        if self.error == "invalid_client" {
            let answer = json(StatusCode::BAD_REQUEST, &OAuthErrorShape { error: self.error, error_description: None })?;
            return Ok(unstored(answer));
        }
        self.render()
    }

    fn finish(&self, mut response: Response) -> Result<Response, Fault> {
        let headers = response.headers_mut();
        if self.challenges {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"lutine\""));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.closes {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(unstored(response))
    }
}

/// What went wrong below, in the words of OAuth.
impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        let error = match fault.status.as_u16() {
            400..=499 if fault.status != StatusCode::TOO_MANY_REQUESTS => "invalid_request",
            429 | 503 => "temporarily_unavailable",
            _ => "server_error",
        };
        Self { retry_after: fault.retry_after, closes: fault.closes, ..Self::new(fault.status, error, fault.detail) }
    }
}

impl From<AssertionError> for Refusal {
    fn from(error: AssertionError) -> Self {
        match error {
            AssertionError::Busy(busy) => Fault::from(busy).into(),
            AssertionError::Full => {
                let full = Self::new(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", error.to_string());
                Self { retry_after: Some(60), ..full }
            }
            _ => Self::client(error.to_string()),
        }
    }
}

/// No store between here and the client may keep it (RFC 6749, 5.1).
fn unstored(mut response: Response) -> Response {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

/// The parameters of a form; those that nobody knows are passed over (RFC 6749, 3.2).
#[derive(Debug, Default)]
struct Form {
    grant_type: Option<String>,
    scope: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
    client_assertion: Option<String>,
    client_assertion_type: Option<String>,
}

impl Form {
    fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        let mut form = Self::default();
        for (name, value) in form_urlencoded::parse(bytes) {
            let place = match name.as_ref() {
                "grant_type" => &mut form.grant_type,
                "scope" => &mut form.scope,
                "client_id" => &mut form.client_id,
                "client_secret" => &mut form.client_secret,
                "client_assertion" => &mut form.client_assertion,
                "client_assertion_type" => &mut form.client_assertion_type,
                _ => continue,
            };
            if place.is_some() {
                return Err(Refusal::request(format!("the parameter {name} is there twice")));
            }
            // A parameter without a value counts as left out (RFC 6749, 3.2).
            *place = Some(value.into_owned()).filter(|value| !value.is_empty());
        }
        Ok(form)
    }
}

/// A request for a token, with its body read.
struct TokenCall {
    services: Services,
    head: Parts,
    bytes: Bytes,
    now: Timestamp,
}

async fn read(call: OpenCall) -> Result<TokenCall, Refusal> {
    let OpenCall { services, head, body, .. } = call;
    let time_max = Duration::from_secs(services.config.load().server.body_read_timeout_seconds);
    let bytes = body::read(body, &head.headers, BODY_BYTES_MAX, time_max, StatusCode::PAYLOAD_TOO_LARGE).await?;
    let now = services.clock.now();
    Ok(TokenCall { services, head, bytes, now })
}

/// `POST /oauth2/token`, `/connect/token` and `/v1/oauth2/token`
pub(super) async fn token(call: OpenCall) -> Result<Response, Fault> {
    let is_lenient = call.head.uri.path() == LENIENT_TOKEN;
    let refused = call.services.metrics.refused.clone();
    match grant(call, is_lenient).await {
        Ok(token) => {
            let shape = TokenShape {
                access_token: &token.text,
                token_type: "Bearer",
                expires_in: token.life.as_secs(),
                scope: token.scopes.to_text(),
            };
            Ok(unstored(json(StatusCode::OK, &shape)?))
        }
        Err(refusal) => {
            match refusal.error {
                "invalid_client" => refused.invalid.inc(),
                "temporarily_unavailable" => refused.rate.inc(),
                _ => 0,
            };
            if is_lenient { refusal.render_lenient() } else { refusal.render() }
        }
    }
}

async fn grant(call: OpenCall, is_lenient: bool) -> Result<IssuedToken, Refusal> {
    let call = read(call).await?;
    if !call.bytes.is_empty() && media_type(&call.head.headers, FORM)? != FORM {
        return Err(Refusal::request(format!("the content type must be {FORM}")));
    }
    let form = Form::read(&call.bytes)?;
    match form.grant_type.as_deref() {
        Some("client_credentials") => {}
        None if is_lenient => {}
        None => return Err(Refusal::request("the parameter grant_type is missing; it must be client_credentials")),
        Some(_) => {
            let description = "the grant_type must be client_credentials";
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "unsupported_grant_type", description));
        }
    }
    let client = authenticate(&call, &form).await?;
    let scopes = scopes(&client, form.scope.as_deref())?;
    issue(&call, &client, scopes, TOKEN_LIFE).await
}

/// The client that a request is by.
async fn authenticate(call: &TokenCall, form: &Form) -> Result<Arc<Client>, Refusal> {
    let basic = basic(&call.head.headers)?;
    let has_assertion = form.client_assertion.is_some() || form.client_assertion_type.is_some();
    let ways = [basic.is_some(), form.client_secret.is_some(), has_assertion];
    if ways.into_iter().filter(|way| *way).count() > 1 {
        return Err(Refusal::request("the client authenticates in more than one way; one is enough"));
    }
    let by_secret = |id: &str, secret: &str| {
        call.services.clients.authenticate(id, secret, call.now).map_err(|refusal| Refusal::client(refusal.to_string()))
    };
    if let Some((id, secret)) = basic {
        let client = by_secret(&id, &secret).map_err(|refusal| Refusal { challenges: true, ..refusal })?;
        return same_client(client, form.client_id.as_deref());
    }
    if has_assertion {
        if form.client_assertion_type.as_deref() != Some(ASSERTION_TYPE) {
            return Err(Refusal::request(format!("the client_assertion_type must be {ASSERTION_TYPE}")));
        }
        let assertion = form.client_assertion.as_deref().ok_or_else(|| Refusal::request("the client_assertion is missing"))?;
        let config = call.services.config.load_full();
        let (issuer, path) = (issuer(&config), call.head.uri.path());
        let endpoints = vec![format!("{}{path}", config.public_url), format!("{issuer}{path}")];
        let addresses = Addresses { issuer: issuer.to_owned(), endpoints };
        let client = call.services.tokens.authenticate_assertion(assertion, &addresses, call.now).await?;
        return same_client(client, form.client_id.as_deref());
    }
    match (&form.client_id, &form.client_secret) {
        (Some(id), Some(secret)) => by_secret(id, secret),
        (None, Some(_)) => Err(Refusal::request("the parameter client_id is missing")),
        _ => Err(Refusal::client("the client does not authenticate: send a secret or an assertion")),
    }
}

/// A `client_id` beside another way of authentication must agree with it.
fn same_client(client: Arc<Client>, named: Option<&str>) -> Result<Arc<Client>, Refusal> {
    if named.is_none_or(|named| named == client.id.as_str()) {
        return Ok(client);
    }
    Err(Refusal::client("the parameter client_id names another client"))
}

/// Id and secret out of `Authorization: Basic`, both form-encoded (RFC 6749, 2.3.1).
fn basic(headers: &HeaderMap) -> Result<Option<(String, String)>, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Refusal::request("the header Authorization is there twice"));
    }
    let wrong =
        || Refusal { challenges: true, ..Refusal::client("the header Authorization must be Basic with the id and the secret of a client") };
    let encoded = match value.as_bytes().split_at_checked(6) {
        Some((scheme, encoded)) if scheme.eq_ignore_ascii_case(b"basic ") => encoded.trim_ascii(),
        _ => return Err(wrong()),
    };
    let decoded = STANDARD.decode(encoded).map_err(|_| wrong())?;
    let decoded = String::from_utf8(decoded).map_err(|_| wrong())?;
    let (id, secret) = decoded.split_once(':').ok_or_else(wrong)?;
    // One name without `=` or `&`: the parser of forms then only undoes the encoding.
    let decode = |text: &str| {
        let plain = text.replace('=', "%3D").replace('&', "%26");
        form_urlencoded::parse(plain.as_bytes()).next().map(|(text, _)| text.into_owned()).unwrap_or_default()
    };
    Ok(Some((decode(id), decode(secret))))
}

/// What a token shall allow: what is asked for, else everything that the client may do.
fn scopes(client: &Client, asked: Option<&str>) -> Result<ScopeSet, Refusal> {
    let wrong = |description: String| Refusal::new(StatusCode::BAD_REQUEST, "invalid_scope", description);
    let Some(asked) = asked else { return Ok(client.grant.scopes) };
    let mut scopes = ScopeSet::EMPTY;
    for text in asked.split(' ').filter(|text| !text.is_empty()) {
        let scope: Scope = text.parse().map_err(|error: crate::domain::scope::ParseScopeError| wrong(error.to_string()))?;
        if !client.grant.scopes.allows(scope) {
            return Err(wrong(format!("the client may not have the scope {scope}")));
        }
        scopes = scopes.with(scope);
    }
    if scopes.is_empty() { Ok(client.grant.scopes) } else { Ok(scopes) }
}

/// Issues a token to a client that may have one from here and now.
async fn issue(call: &TokenCall, client: &Client, scopes: ScopeSet, life: Duration) -> Result<IssuedToken, Refusal> {
    let config = call.services.config.load_full();
    let address: Option<IpAddr> = match caller_of(&call.head) {
        Caller::Address(address) => Some(address),
        Caller::Local => None,
    };
    if address.is_some_and(|address| !allows_caller(&client.grant, address, config.server.behind_proxy, &call.head.headers)) {
        let description = "this client may not be used from this address";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "unauthorized_client", description));
    }
    let limit = client.grant.rates.of(Bucket::Admin).unwrap_or(config.rate_limits.admin_per_minute);
    let quota = Quota { windows: call.services.tokens.windows(client, call.now), bucket: Bucket::Admin, limit };
    quota.take(1, call.now)?;
    Ok(call.services.tokens.issue(client, scopes, life, call.now).await.map_err(Fault::from)?)
}

/// `POST /api/auth/v2/token`: an access key and a secret key, as JSON.
pub(super) async fn access_key_token(call: OpenCall) -> Result<Response, Fault> {
    let refused = call.services.metrics.refused.clone();
    match grant_by_access_key(call).await {
        Ok(token) => {
            let shape = AccessKeyTokenShape { access_token: &token.text, expires_in: token.life.as_secs() };
            Ok(unstored(json(StatusCode::OK, &shape)?))
        }
        Err(refusal) => {
            if refusal.error == "invalid_client" {
                refused.invalid.inc();
            }
            let sentence = refusal.sentence();
            refusal.finish(json(refusal.status, &OAuthErrorShape { error: &sentence, error_description: None })?)
        }
    }
}

async fn grant_by_access_key(call: OpenCall) -> Result<IssuedToken, Refusal> {
    const JSON: &str = "application/json";
    let call = read(call).await?;
    if media_type(&call.head.headers, JSON)? != JSON {
        return Err(Fault::content_type(JSON).into());
    }
    let body: AccessKeyBody =
        serde_json::from_slice(&call.bytes).map_err(|_| Refusal::request("the body must be a JSON object with accessKey and secretKey"))?;
    let authenticated = call.services.clients.authenticate(&body.access_key, &body.secret_key, call.now);
    let client = authenticated.map_err(|refusal| Refusal::client(refusal.to_string()))?;
    issue(&call, &client, client.grant.scopes, ACCESS_KEY_TOKEN_LIFE).await
}

fn public<T: Serialize>(value: &T) -> Result<Response, Fault> {
    let mut response = json(StatusCode::OK, value)?;
    response.headers_mut().insert(CACHE_CONTROL, PUBLIC_MAX_AGE);
    debug_assert!(response.headers().contains_key(CONTENT_TYPE));
    Ok(response)
}

/// `GET /.well-known/oauth-authorization-server`
pub(super) async fn metadata(call: OpenCall) -> Result<Response, Fault> {
    let config = call.services.config.load();
    public(&MetadataShape {
        issuer: issuer(&config),
        token_endpoint: format!("{}{TOKEN}", config.public_url),
        jwks_uri: format!("{}{JWKS}", config.public_url),
        scopes_supported: Scope::ALL.map(Scope::as_str).to_vec(),
        response_types_supported: [],
        grant_types_supported: ["client_credentials"],
        token_endpoint_auth_methods_supported: ["client_secret_basic", "client_secret_post", "private_key_jwt"],
        token_endpoint_auth_signing_alg_values_supported: ALGORITHMS,
    })
}

/// `GET /oauth2/jwks`
pub(super) async fn jwks(call: OpenCall) -> Result<Response, Fault> {
    let keys = call.services.tokens.published_keys(call.services.clock.now()).await?;
    let shapes: Vec<JwkShape<'_>> = keys.iter().map(|key| JwkShape::ed25519(&key.kid, &key.x)).collect();
    public(&std::collections::BTreeMap::from([("keys", shapes)]))
}
