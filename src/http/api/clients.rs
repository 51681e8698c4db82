//! OAuth clients, administered. `/api/v1/admin/companies/{company}/clients/{client}/keys/{key}`

use std::collections::BTreeMap;

use axum::http::StatusCode;
use axum::response::Response;

use super::companies::{check_name, wrong};
use super::keys::{named_company, read_expiry, read_grant, read_scopes};
use crate::domain::client::{AudPolicy, CLIENT_KEYS_MAX, Client, ClientId, ClientKey, ParseAudPolicyError, ParseClientIdError, check_kid};
use crate::domain::company::CompanyId;
use crate::http::call::{Call, json};
use crate::http::fault::Fault;
use crate::service::clients::{ClientChange, ClientWishes, NewClientKey};
use crate::service::jose::{KeyText, VerifyingKey};
use crate::wire::clients::{ClientChangeBody, ClientKeyShape, ClientShape, NewClientBody, NewClientKeyBody, RotatedSecretShape};

/// Places of names in the path, counted between slashes.
const COMPANY: usize = 5;
const CLIENT: usize = 7;
const KEY: usize = 9;

fn company(call: &Call) -> Result<CompanyId, Fault> {
    named_company(call, call.segment(COMPANY))
}

fn no_such_client() -> Fault {
    Fault::new(StatusCode::NOT_FOUND, "not_found", "there is no such client")
}

fn client_id(call: &Call) -> Result<ClientId, Fault> {
    call.segment(CLIENT).parse().map_err(|_| no_such_client())
}

fn kind_of(key: &ClientKey) -> &'static str {
    VerifyingKey::from_spki(&key.spki).map_or("unknown", |key| key.family_name())
}

fn shape(client: &Client) -> ClientShape<'_> {
    ClientShape::of(client, kind_of)
}

fn empty() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

fn read_policy(text: Option<&String>) -> Result<Option<AudPolicy>, Fault> {
    text.map(|text| text.parse()).transpose().map_err(|error: ParseAudPolicyError| wrong("/audPolicy", error.to_string()))
}

/// `at` is the JSON pointer to the object.
fn read_key(body: NewClientKeyBody, at: &str) -> Result<NewClientKey, Fault> {
    if let Some(kid) = &body.kid {
        check_kid(kid).map_err(|reason| wrong(&format!("{at}/kid"), reason))?;
    }
    let key = KeyText::read(&body.public_key).map_err(|error| wrong(&format!("{at}/publicKey"), error.to_string()))?;
    Ok(NewClientKey { key, kid: body.kid })
}

/// `POST /api/v1/admin/companies/{company}/clients`
pub(in crate::http) async fn create(call: Call) -> Result<Response, Fault> {
    call.query(&[])?;
    let company = company(&call)?;
    let (call, mut body): (_, NewClientBody) = call.read_json().await?;
    let now = call.services.clock.now();
    let grant = read_grant("client", &body.take_grant(), Some(company), now)?;
    let id = body.id.map(|id| id.parse()).transpose().map_err(|error: ParseClientIdError| wrong("/id", error.to_string()))?;
    let aud_policy = read_policy(body.aud_policy.as_ref())?.unwrap_or_default();
    if body.keys.len() > CLIENT_KEYS_MAX {
        return Err(wrong("/keys", format!("a client has at most {CLIENT_KEYS_MAX} keys")));
    }
    let with_secret = body.secret.unwrap_or(body.keys.is_empty());
    if !with_secret && body.keys.is_empty() {
        return Err(wrong("/secret", "a client has a secret, a public key, or both"));
    }
    let keys = body.keys.into_iter().enumerate().map(|(place, key)| read_key(key, &format!("/keys/{place}"))).collect::<Result<_, _>>()?;
    let wishes = ClientWishes { id, company, grant, aud_policy, keys, with_secret };
    let (client, secret) = call.services.clients.create(wishes, now, &call.actor()).await?;
    json(StatusCode::CREATED, &shape(&client).with_secret(secret.as_ref().map(|secret| secret.as_str())))
}

/// `GET /api/v1/admin/companies/{company}/clients`
pub(in crate::http) async fn list(call: Call) -> Result<Response, Fault> {
    call.query(&[])?;
    let clients = call.services.clients.list(company(&call)?);
    let shapes: Vec<ClientShape<'_>> = clients.iter().map(|client| shape(client)).collect();
    json(StatusCode::OK, &BTreeMap::from([("clients", shapes)]))
}

/// `GET /api/v1/admin/companies/{company}/clients/{client}`
pub(in crate::http) async fn get(call: Call) -> Result<Response, Fault> {
    call.query(&[])?;
    let client = call.services.clients.get(company(&call)?, &client_id(&call)?).ok_or_else(no_such_client)?;
    json(StatusCode::OK, &shape(&client))
}

/// `PATCH /api/v1/admin/companies/{company}/clients/{client}`
pub(in crate::http) async fn change(call: Call) -> Result<Response, Fault> {
    call.query(&[])?;
    let (company, id) = (company(&call)?, client_id(&call)?);
    let (call, body): (_, ClientChangeBody) = call.read_json().await?;
    if let Some(name) = &body.name {
        check_name(name)?;
    }
    let now = call.services.clock.now();
    let expires = match &body.expires {
        None => None,
        Some(None) => Some(None),
        Some(Some(text)) => Some(Some(read_expiry("client", text, now)?)),
    };
    let change = ClientChange {
        scopes: body.scopes.as_ref().map(|scopes| read_scopes("client", scopes)).transpose()?,
        aud_policy: read_policy(body.aud_policy.as_ref())?,
        name: body.name,
        expires,
    };
    let client = call.services.clients.change(&id, company, change, &call.actor()).await?;
    json(StatusCode::OK, &shape(&client))
}

/// `DELETE /api/v1/admin/companies/{company}/clients/{client}`: revokes it.
pub(in crate::http) async fn revoke(call: Call) -> Result<Response, Fault> {
    call.query(&[])?;
    call.services.clients.revoke(&client_id(&call)?, company(&call)?, &call.actor()).await?;
    Ok(empty())
}

/// `POST /api/v1/admin/companies/{company}/clients/{client}/rotate-secret`
pub(in crate::http) async fn rotate_secret(call: Call) -> Result<Response, Fault> {
    call.query(&[])?;
    let now = call.services.clock.now();
    let (secret, ends) = call.services.clients.rotate_secret(&client_id(&call)?, company(&call)?, now, &call.actor()).await?;
    json(StatusCode::OK, &RotatedSecretShape { secret: &secret, previous_expires_utc: ends.map(|ends| ends.to_string()) })
}

/// `POST /api/v1/admin/companies/{company}/clients/{client}/keys`
pub(in crate::http) async fn add_key(call: Call) -> Result<Response, Fault> {
    call.query(&[])?;
    let (company, id) = (company(&call)?, client_id(&call)?);
    let (call, body): (_, NewClientKeyBody) = call.read_json().await?;
    let key = read_key(body, "")?;
    let (client, key_id) = call.services.clients.add_key(&id, company, key, &call.actor()).await?;
    let key = client.keys.iter().find(|key| key.id == key_id).ok_or_else(|| Fault::internal("the key was not added"))?;
    json(StatusCode::CREATED, &ClientKeyShape::of(key, kind_of(key)))
}

/// `DELETE /api/v1/admin/companies/{company}/clients/{client}/keys/{key}`
pub(in crate::http) async fn remove_key(call: Call) -> Result<Response, Fault> {
    call.query(&[])?;
    call.services.clients.remove_key(&client_id(&call)?, company(&call)?, call.segment(KEY), &call.actor()).await?;
    Ok(empty())
}
