//! API keys, administered.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use axum::response::Response;
use ipnet::IpNet;

use super::companies::{check_name, wrong};
use crate::domain::company::CompanyId;
use crate::domain::key::{Grant, KeyId};
use crate::domain::scope::{Scope, ScopeSet};
use crate::domain::time::Timestamp;
use crate::http::call::{Call, json};
use crate::http::fault::Fault;
use crate::wire::admin::{KeyShape, NewKeyBody};

/// The most networks and type prefixes of one key.
const ENTRIES_MAX: usize = 100;

/// The company that a name stands for; a company's key knows only its own.
pub(super) fn named_company(call: &Call, name: &str) -> Result<CompanyId, Fault> {
    let own = call.principal.company();
    let company = call.services.companies.find(name).filter(|company| own.is_none_or(|own| own == company.id));
    company.map(|company| company.id).ok_or_else(|| Fault::no_such_company(name))
}

/// `POST /api/v1/admin/keys`
pub(in crate::http) async fn create(call: Call) -> Result<Response, Fault> {
    call.query(&[])?;
    let (call, body): (_, NewKeyBody) = call.read_json().await?;
    let company = match &body.company {
        Some(name) => Some(named_company(&call, &name.to_string())?),
        None => call.principal.company(),
    };
    let new = read_grant("key", &body, company, call.services.clock.now())?;
    let (key, text) = call.services.keys.create(new, &call.actor()).await?;
    json(StatusCode::CREATED, &KeyShape::fresh(&key, &text))
}

/// `GET /api/v1/admin/keys`
pub(in crate::http) async fn list(call: Call) -> Result<Response, Fault> {
    let query = call.query(&["company"])?;
    let company = match query.text("company") {
        Some(name) => Some(named_company(&call, name)?),
        None => call.principal.company(),
    };
    let keys = call.services.keys.list(company);
    let shapes: Vec<KeyShape<'_>> = keys.iter().map(|key| KeyShape::of(key)).collect();
    json(StatusCode::OK, &BTreeMap::from([("keys", shapes)]))
}

/// `DELETE /api/v1/admin/keys/{id}`
pub(in crate::http) async fn revoke(call: Call) -> Result<Response, Fault> {
    call.query(&[])?;
    let unknown = || Fault::new(StatusCode::NOT_FOUND, "not_found", "there is no such key");
    let id: KeyId = call.last_segment().parse().map_err(|_| unknown())?;
    call.services.keys.revoke(id, call.principal.company(), &call.actor()).await?.ok_or_else(unknown)?;
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// What a key or a client is to be granted.
pub(super) fn read_grant(noun: &str, body: &NewKeyBody, company: Option<CompanyId>, now: Timestamp) -> Result<Grant, Fault> {
    let scopes = read_scopes(noun, &body.scopes)?;
    if company.is_none()
        && let Some(scope) = scopes.iter().find(|scope| !matches!(scope, Scope::Admin | Scope::MetricsRead))
    {
        return Err(wrong(
            "/scopes",
            format!(
                "a key without a company is a system key, which may have `admin` and `metrics:read`, not `{scope}`; say for which company the key is"
            ),
        ));
    }
    if body.networks.len() > ENTRIES_MAX || body.type_prefixes.len() > ENTRIES_MAX {
        return Err(wrong("/networks", format!("a {noun} has at most {ENTRIES_MAX} networks and {ENTRIES_MAX} type prefixes")));
    }
    let expires = body.expires.as_ref().map(|text| read_expiry(noun, text, now)).transpose()?;
    let name = body.name.clone().unwrap_or_else(|| "unnamed".to_owned());
    check_name(&name)?;
    let networks = body.networks.iter().enumerate().map(|(place, text)| read_network(place, text)).collect::<Result<_, _>>()?;
    let type_prefixes = body.type_prefixes.iter().enumerate().map(|(place, text)| read_prefix(place, text)).collect::<Result<_, _>>()?;
    Ok(Grant { company, name, scopes, rates: body.rates.into(), expires, networks, type_prefixes })
}

/// The scopes of a list, at least one.
pub(super) fn read_scopes(noun: &str, texts: &[String]) -> Result<ScopeSet, Fault> {
    let mut scopes = ScopeSet::EMPTY;
    for (place, text) in texts.iter().enumerate() {
        let scope: Scope =
            text.parse().map_err(|error: crate::domain::scope::ParseScopeError| wrong(&format!("/scopes/{place}"), error.to_string()))?;
        scopes = scopes.with(scope);
    }
    if scopes.is_empty() { Err(wrong("/scopes", format!("a {noun} has at least one scope"))) } else { Ok(scopes) }
}

/// A time that is still to come.
pub(super) fn read_expiry(noun: &str, text: &str, now: Timestamp) -> Result<Timestamp, Fault> {
    let expires: Timestamp =
        text.parse().map_err(|error: crate::domain::time::ParseTimestampError| wrong("/expires", error.to_string()))?;
    if expires <= now { Err(wrong("/expires", format!("the {noun} would be expired already"))) } else { Ok(expires) }
}

fn read_network(place: usize, text: &str) -> Result<IpNet, Fault> {
    let one_address = || text.parse::<std::net::IpAddr>().ok().map(IpNet::from);
    let network = text.parse::<IpNet>().ok().or_else(one_address).map(|network| network.trunc());
    network.ok_or_else(|| wrong(&format!("/networks/{place}"), format!("`{text}` is neither a network such as 10.0.0.0/8 nor an address")))
}

fn read_prefix(place: usize, text: &str) -> Result<String, Fault> {
    let is_right = text.parse::<crate::domain::event::EventType>().is_ok();
    if is_right {
        return Ok(text.to_ascii_lowercase());
    }
    Err(wrong(
        &format!("/typePrefixes/{place}"),
        format!("`{text}` cannot be the start of a type, which has letters, digits, `.`, `_` and `-`"),
    ))
}
