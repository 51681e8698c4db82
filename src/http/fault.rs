//! Refusals: every status of an error and its code stand here, and nowhere else.

use axum::body::Body;
use axum::http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde_json::{Map, Value, json};

use crate::catalog::Violation;
use crate::domain::scope::Scope;
use crate::service::checks::CheckError;
use crate::service::clients::ClientServiceError;
use crate::service::consumers::SetCursorError;
use crate::service::cursors::CursorError;
use crate::service::deliveries::{DeliveriesError, DeliveryError};
use crate::service::events::{PageError, PublishError, SampleError};
use crate::service::keys::{AuthenticateError, CreateKeyError};
use crate::service::notifications::LinkError;
use crate::service::receiving::ReceiveError;
use crate::service::replays::ReplayRequestError;
use crate::service::signing_keys::SigningKeyError;
use crate::service::streams::OpenStreamError;
use crate::service::subscriptions::{TestError, WishError};
use crate::service::tokens::{IssueError, TokenRefusal};
use crate::store::{
    AppendError, ClientError as StoredClientError, CompanyError, KeyError, LedgerBusy, NamedCursorError, ReadError, ReplayError,
    SubscriptionError, TokenKeyError,
};
use crate::webhook::{ClientError, TargetError, TrustError};
use crate::wire::events::ItemError;
use crate::wire::problem::{self, Problem, ProblemError};
use crate::wire::publish::Refusal;

/// Below this path errors are `{"errors":["..."]}`.
const NOTIFICATIONS: &str = "/api/public/v2/";

/// Why a call is refused.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fault {
    pub status: StatusCode,
    /// Stable, in `snake_case`.
    pub code: &'static str,
    /// A sentence that the caller can act on.
    pub detail: String,
    /// JSON pointer to the member that is wrong.
    pub pointer: Option<String>,
    /// Members that only this kind of problem has.
    pub more: Map<String, Value>,
    /// Seconds after which a repeat makes sense.
    pub retry_after: Option<u64>,
    /// The connection ends with the answer: part of the request was not read.
    pub closes: bool,
}

impl Fault {
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), pointer: None, more: Map::new(), retry_after: None, closes: false }
    }

    pub fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    fn after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// The same answer for what is unknown, expired and somebody else's.
    pub fn no_such_event() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is no such event")
    }

    pub fn no_such_cursor(name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("there is no cursor `{name}`"))
    }

    pub fn no_such_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path")
    }

    pub fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path does not know the method; `Allow` lists those it does")
    }

    pub fn missing_credentials() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "send an API key in `X-Api-Key`, or an API key or an access token in `Authorization` as a bearer token",
        )
    }

    pub fn two_credentials() -> Self {
        Self::bad_request("ambiguous_credentials", "send one API key or access token, in `X-Api-Key` or in `Authorization`, and only once")
    }

    /// `noun` is what the caller came with: a key or an access token.
    pub fn network(noun: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "network_not_allowed", format!("this {noun} may not be used from this address"))
    }

    pub fn scope(noun: &str, scope: Scope) -> Self {
        let detail = format!("this {noun} lacks the scope `{scope}`");
        Self::new(StatusCode::FORBIDDEN, "insufficient_scope", detail).with("scope", scope.as_str())
    }

    pub fn system_key() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "system_key",
            "a system key administers companies and reads nothing of them; use a key of the company",
        )
    }

    pub fn needs_system_key() -> Self {
        Self::new(StatusCode::FORBIDDEN, "needs_system_key", "this is for system keys, those made without a company")
    }

    pub fn only_local() -> Self {
        Self::new(StatusCode::FORBIDDEN, "only_local", "this call is answered on the daemon's local socket only")
    }

    pub fn needs_connection() -> Self {
        Self::bad_request("needs_connection", "a stream needs a connection to the daemon")
    }

    pub fn names_no_company() -> Self {
        Self::bad_request("no_company", "on the local socket the header `Lutine-Company` says for which company, by number or slug")
    }

    pub fn no_such_company(name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "no_such_company", format!("there is no company `{name}`"))
    }

    pub fn rate(bucket: &str, limit: u32, seconds: u64) -> Self {
        let detail = format!("this key made its {limit} calls of the bucket `{bucket}` in this minute; go on in {seconds} s");
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail).after(seconds)
    }

    pub fn too_large(status: StatusCode, bytes_max: usize) -> Self {
        let detail = format!("the body has more than {bytes_max} bytes");
        Self { closes: true, ..Self::new(status, "body_too_large", detail) }
    }

    pub fn no_room_for_body() -> Self {
        let detail = "too many bodies with snapshots are being read";
        let fault = Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail).after(1);
        Self { closes: true, ..fault }
    }

    pub fn body_timeout(seconds: u64) -> Self {
        let detail = format!("the body was not complete within {seconds} s");
        Self { closes: true, ..Self::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", detail) }
    }

    pub fn body_broken() -> Self {
        Self { closes: true, ..Self::bad_request("body_incomplete", "the body ended before it was complete") }
    }

    pub fn content_type(expected: &str) -> Self {
        let detail = format!("the content type must be {expected}");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_content_type", detail)
    }

    pub fn internal(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    /// The answer in the form of the path's family: a problem document whose id is the request's, or a list of errors.
    pub fn render(&self, path: &str, request_id: &str) -> Response {
        let (content_type, body) = if path.starts_with(NOTIFICATIONS) {
            ("application/json", serde_json::to_vec(&json!({"errors": [self.detail]})))
        } else {
            (problem::CONTENT_TYPE, self.problem(path, request_id))
        };
        let mut response = Response::new(Body::from(body.unwrap_or_default()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            // What is wrong with a token is told in the words of RFC 6750, 3.1.
            let challenge = match self.code {
                "invalid_token" | "token_expired" | "token_revoked" => "Bearer realm=\"lutine\", error=\"invalid_token\"",
                _ => "Bearer realm=\"lutine\"",
            };
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if self.closes {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        // axum adds the methods when it is the one that answers; a handler's own 405 has none.
        debug_assert!(!headers.contains_key(ALLOW));
        response
    }

    fn problem(&self, path: &str, request_id: &str) -> serde_json::Result<Vec<u8>> {
        // Where several members are wrong, the refusal lists them itself.
        let pointer = self.pointer.iter().filter(|_| !self.more.contains_key("errors"));
        let errors = pointer.map(|pointer| ProblemError { pointer, detail: &self.detail }).collect();
        let problem = Problem {
            kind: Problem::kind_of(self.code),
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            instance: path,
            code: self.code,
            request_id,
            errors,
            more: &self.more,
        };
        serde_json::to_vec(&problem)
    }

    /// The refusal as one of a batch's results.
    pub fn into_item(self) -> ItemError {
        ItemError { code: self.code, status: self.status.as_u16(), detail: self.detail, pointer: self.pointer }
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.code {
            "batch_too_large" | "body_too_large" => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        };
        let fault = Self { pointer: refusal.pointer, ..Self::new(status, refusal.code, refusal.detail) };
        match refusal.offset {
            Some(offset) => fault.with("offset", offset),
            None => fault,
        }
    }
}

impl From<ReadError> for Fault {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Corrupt(corrupt) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "corrupt", error.to_string())
                .with("segment", corrupt.segment)
                .with("firstId", corrupt.first_id),
            ReadError::Storage(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "storage_failed", "the store cannot be read"),
        }
    }
}

impl From<AppendError> for Fault {
    fn from(error: AppendError) -> Self {
        let detail = error.to_string();
        match error {
            AppendError::Overloaded { retry_after_seconds } => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail).after(retry_after_seconds)
            }
            AppendError::DedupeConflict { id } => Self::new(StatusCode::CONFLICT, "dedupe_conflict", detail).with("id", id.0),
            AppendError::Unknown => {
                let detail = format!("{detail}; send it again with the same dedupe key");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "outcome_unknown", detail).after(1)
            }
            AppendError::Read(error) => error.into(),
        }
    }
}

impl From<PublishError> for Fault {
    fn from(error: PublishError) -> Self {
        let detail = error.to_string();
        let of_type = |fault: Self| Self { pointer: Some("/type".to_owned()), ..fault };
        match error {
            PublishError::UnknownType { .. } => of_type(Self::bad_request("unknown_type", detail)),
            PublishError::TypeNotAllowed { .. } => of_type(Self::new(StatusCode::FORBIDDEN, "type_not_allowed", detail)),
            PublishError::Reserved { .. } => of_type(Self::bad_request("reserved_type", detail)),
            PublishError::Schema { violations, .. } => {
                let at = |violation: &Violation| format!("/payload{}", violation.pointer);
                let errors: Vec<Value> =
                    violations.iter().map(|violation| json!({"pointer": at(violation), "detail": violation.detail})).collect();
                Self { pointer: violations.first().map(at), ..Self::bad_request("schema_violation", detail).with("errors", errors) }
            }
            PublishError::Append(error) => error.into(),
        }
    }
}

impl From<CursorError> for Fault {
    fn from(error: CursorError) -> Self {
        let detail = error.to_string();
        match error {
            CursorError::Malformed => Self::bad_request("invalid_cursor", detail),
            CursorError::Mismatch(what) => Self::bad_request("cursor_mismatch", detail).with("mismatch", what),
            CursorError::Restored => Self::new(StatusCode::GONE, "cursor_expired", detail).with("reason", "restored"),
        }
    }
}

impl From<NamedCursorError> for Fault {
    fn from(error: NamedCursorError) -> Self {
        match error {
            NamedCursorError::TooMany => Self::new(StatusCode::CONFLICT, "too_many_cursors", error.to_string()),
            NamedCursorError::Busy(busy) => busy.into(),
        }
    }
}

impl From<SetCursorError> for Fault {
    fn from(error: SetCursorError) -> Self {
        let at = |pointer: &str, fault: Self| Self { pointer: Some(pointer.to_owned()), ..fault };
        match error {
            SetCursorError::Cursor(error) => at("/cursor", error.into()),
            SetCursorError::Types(error) => at("/types", Self::bad_request("invalid_member", error.to_string())),
            SetCursorError::Store(error) => error.into(),
        }
    }
}

impl From<PageError> for Fault {
    fn from(error: PageError) -> Self {
        let detail = error.to_string();
        match error {
            PageError::Cursor(error) => error.into(),
            PageError::Read(error) => error.into(),
            PageError::Expired { oldest, lost } => Self::new(StatusCode::GONE, "cursor_expired", detail)
                .with("reason", "retention")
                .with("oldestCursor", oldest)
                .with("lostSeconds", json!((lost.as_secs_f64() * 1e3).round() / 1e3)),
        }
    }
}

impl From<OpenStreamError> for Fault {
    fn from(error: OpenStreamError) -> Self {
        let detail = error.to_string();
        match error {
            OpenStreamError::TooMany => Self::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_streams", detail).after(10),
            OpenStreamError::Page(error) => error.into(),
        }
    }
}

impl From<ReceiveError> for Fault {
    fn from(error: ReceiveError) -> Self {
        let detail = error.to_string();
        match error {
            ReceiveError::Beyond { .. } => Self::bad_request("invalid_parameter", detail),
            ReceiveError::Lost { .. } => Self::new(StatusCode::GONE, "cursor_expired", detail),
            ReceiveError::Read(error) => error.into(),
        }
    }
}

impl From<SampleError> for Fault {
    fn from(error: SampleError) -> Self {
        let detail = error.to_string();
        match error {
            SampleError::UnknownType { .. } => Self::bad_request("unknown_type", detail),
            SampleError::Failed { .. } => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "sample_failed", detail),
        }
    }
}

impl From<AuthenticateError> for Fault {
    fn from(error: AuthenticateError) -> Self {
        let code = match error {
            AuthenticateError::Malformed | AuthenticateError::Unknown => "invalid_key",
            AuthenticateError::Revoked => "key_revoked",
            AuthenticateError::Expired => "key_expired",
        };
        Self::new(StatusCode::UNAUTHORIZED, code, error.to_string())
    }
}

impl From<TokenRefusal> for Fault {
    fn from(error: TokenRefusal) -> Self {
        let code = match error {
            TokenRefusal::Expired => "token_expired",
            TokenRefusal::Revoked | TokenRefusal::ClientExpired => "token_revoked",
            _ => "invalid_token",
        };
        Self::new(StatusCode::UNAUTHORIZED, code, error.to_string())
    }
}

impl From<StoredClientError> for Fault {
    fn from(error: StoredClientError) -> Self {
        let detail = error.to_string();
        match error {
            StoredClientError::NoSuchCompany(company) => Self::no_such_company(&company.to_string()),
            StoredClientError::IdTaken(_) => {
                Self { pointer: Some("/id".to_owned()), ..Self::new(StatusCode::CONFLICT, "id_taken", detail) }
            }
            StoredClientError::NoSuchClient | StoredClientError::NoSuchKey => Self::new(StatusCode::NOT_FOUND, "not_found", detail),
            StoredClientError::Revoked => Self::new(StatusCode::CONFLICT, "client_revoked", detail),
            StoredClientError::TooManyKeys => Self::new(StatusCode::CONFLICT, "too_many_keys", detail),
            StoredClientError::KeyKnown => Self::new(StatusCode::CONFLICT, "key_known", detail),
            StoredClientError::LastKey => Self::new(StatusCode::CONFLICT, "last_key", detail),
            StoredClientError::Busy(busy) => busy.into(),
        }
    }
}

impl From<ClientServiceError> for Fault {
    fn from(error: ClientServiceError) -> Self {
        match error {
            ClientServiceError::NoChance(_) => Self::internal(error.to_string()),
            ClientServiceError::Ledger(error) => error.into(),
        }
    }
}

impl From<IssueError> for Fault {
    fn from(error: IssueError) -> Self {
        match error {
            IssueError::Keys(TokenKeyError::Busy(busy)) => busy.into(),
            _ => Self::internal(error.to_string()),
        }
    }
}

impl From<LedgerBusy> for Fault {
    fn from(error: LedgerBusy) -> Self {
        let code = match error {
            LedgerBusy::Full => "overloaded",
            LedgerBusy::Ended => "outcome_unknown",
        };
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, error.to_string()).after(1)
    }
}

impl From<CompanyError> for Fault {
    fn from(error: CompanyError) -> Self {
        match error {
            CompanyError::SlugTaken(_) => {
                Self { pointer: Some("/slug".to_owned()), ..Self::new(StatusCode::CONFLICT, "slug_taken", error.to_string()) }
            }
            CompanyError::Busy(busy) => busy.into(),
        }
    }
}

impl From<KeyError> for Fault {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::NoSuchCompany(company) => Self::no_such_company(&company.to_string()),
            KeyError::IdTaken => Self::internal(error.to_string()),
            KeyError::Busy(busy) => busy.into(),
        }
    }
}

impl From<SubscriptionError> for Fault {
    fn from(error: SubscriptionError) -> Self {
        match error {
            SubscriptionError::NoSuchCompany(company) => Self::no_such_company(&company.to_string()),
            SubscriptionError::Secret(error) => Self::internal(error.to_string()),
            SubscriptionError::Busy(busy) => busy.into(),
        }
    }
}

impl From<WishError> for Fault {
    fn from(error: WishError) -> Self {
        let detail = error.to_string();
        let at = |pointer: &str, code| Self { pointer: Some(pointer.to_owned()), ..Self::bad_request(code, detail.clone()) };
        match error {
            WishError::Url(_) | WishError::Target(TargetError::Url(_)) => at("/url", "invalid_url"),
            WishError::Target(TargetError::Header(_)) => at("/headers", "invalid_member"),
            WishError::Target(TargetError::ContentType) => at("/overrides/contentType", "invalid_member"),
            WishError::Target(TargetError::Auth) => at("/auth", "invalid_member"),
            WishError::Target(TargetError::Origin) => at("/overrides/handshake", "invalid_member"),
            WishError::Target(TargetError::RsaKey) | WishError::Key(_) => Self::internal(detail),
            WishError::TokenUrl(_) | WishError::Target(TargetError::Client(ClientError::Url(_))) => at("/auth/tokenUrl", "invalid_url"),
            WishError::Target(TargetError::Client(ClientError::Key(_))) => at("/auth/privateKey", "invalid_member"),
            WishError::Target(TargetError::Trust(TrustError::CaBundle(_))) => at("/overrides/caBundle", "invalid_member"),
            WishError::Target(TargetError::Trust(TrustError::ClientCertificate(_))) => at("/overrides/clientCertificate", "invalid_member"),
            WishError::Target(TargetError::Trust(TrustError::ClientKey(_))) => at("/overrides/clientKey", "invalid_member"),
            WishError::Start(_) => at("/startFrom", "invalid_cursor"),
            WishError::Store(error) => error.into(),
        }
    }
}

impl From<CheckError> for Fault {
    fn from(error: CheckError) -> Self {
        let detail = error.to_string();
        match error {
            CheckError::Unverified => Self::new(StatusCode::CONFLICT, "unverified", detail),
            CheckError::NoSender => Self::new(StatusCode::CONFLICT, "no_daemon", detail),
            CheckError::Wish(error) => error.into(),
        }
    }
}

impl From<SigningKeyError> for Fault {
    fn from(error: SigningKeyError) -> Self {
        match error {
            SigningKeyError::Key(error) => Self::internal(error.to_string()),
            SigningKeyError::Store(error) => error.into(),
        }
    }
}

impl From<TestError> for Fault {
    fn from(error: TestError) -> Self {
        match error {
            TestError::Append(error) => error.into(),
            TestError::Store(error) => error.into(),
        }
    }
}

impl From<DeliveryError> for Fault {
    fn from(error: DeliveryError) -> Self {
        let detail = error.to_string();
        match error {
            DeliveryError::Unknown => Self::new(StatusCode::NOT_FOUND, "not_found", detail),
            DeliveryError::Expired => Self::new(StatusCode::GONE, "event_expired", detail),
            DeliveryError::ReplayCancelled => Self::new(StatusCode::CONFLICT, "replay_ended", detail),
            DeliveryError::Ended(..) => Self::new(StatusCode::CONFLICT, "delivery_ended", detail),
            DeliveryError::Waiting | DeliveryError::Held => Self::new(StatusCode::CONFLICT, "delivery_waiting", detail),
            DeliveryError::UnderWay => Self::new(StatusCode::CONFLICT, "delivery_under_way", detail).after(1),
            DeliveryError::Read(error) => error.into(),
            DeliveryError::Store(error) => error.into(),
        }
    }
}

impl From<ReplayError> for Fault {
    fn from(error: ReplayError) -> Self {
        let detail = error.to_string();
        match error {
            ReplayError::Unknown => Self::new(StatusCode::NOT_FOUND, "not_found", detail),
            ReplayError::TooMany => Self::new(StatusCode::CONFLICT, "too_many_replays", detail),
            ReplayError::Ended(_) => Self::new(StatusCode::CONFLICT, "replay_ended", detail),
            ReplayError::Busy(error) => error.into(),
        }
    }
}

impl From<ReplayRequestError> for Fault {
    fn from(error: ReplayRequestError) -> Self {
        let detail = error.to_string();
        let at = |pointer: String, code| Self { pointer: Some(pointer), ..Self::bad_request(code, detail.clone()) };
        match error {
            ReplayRequestError::Cursor(pointer, error) => Self { pointer: Some(pointer.to_owned()), ..error.into() },
            ReplayRequestError::NoSuchEvent { place, .. } => at(format!("/ids/{place}"), "unknown_event"),
            ReplayRequestError::NotTaken { place, .. } => at(format!("/ids/{place}"), "invalid_member"),
            ReplayRequestError::TooMany => at("/state".to_owned(), "too_many_deliveries"),
            ReplayRequestError::Read(error) => error.into(),
            ReplayRequestError::Replay(error) => error.into(),
        }
    }
}

impl From<DeliveriesError> for Fault {
    fn from(error: DeliveriesError) -> Self {
        match error {
            DeliveriesError::Cursor(error) => error.into(),
            DeliveriesError::Read(error) => error.into(),
        }
    }
}

impl From<LinkError> for Fault {
    fn from(error: LinkError) -> Self {
        let detail = error.to_string();
        match error {
            LinkError::Unknown => Self::new(StatusCode::NOT_FOUND, "not_found", detail),
            LinkError::Expired => Self::new(StatusCode::GONE, "event_expired", detail),
            LinkError::Read(error) => error.into(),
        }
    }
}

impl From<CreateKeyError> for Fault {
    fn from(error: CreateKeyError) -> Self {
        match error {
            CreateKeyError::NoChance(_) => Self::internal(error.to_string()),
            CreateKeyError::Ledger(error) => error.into(),
        }
    }
}
