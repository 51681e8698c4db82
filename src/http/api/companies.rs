//! Companies, administered.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use axum::response::Response;

use crate::domain::company::NewCompany;
use crate::http::call::{Call, json};
use crate::http::fault::Fault;
use crate::wire::admin::{CompanyShape, NewCompanyBody};

/// The longest name for people, in characters.
const NAME_LENGTH_MAX: usize = 200;

/// A name for people.
pub(super) fn check_name(name: &str) -> Result<(), Fault> {
    let is_right = (1..=NAME_LENGTH_MAX).contains(&name.chars().count()) && !name.chars().any(char::is_control);
    if is_right {
        return Ok(());
    }
    Err(wrong("/name", format!("a name is 1 to {NAME_LENGTH_MAX} characters without control characters")))
}

/// A member that is not what it must be.
pub(super) fn wrong(pointer: &str, detail: impl Into<String>) -> Fault {
    Fault { pointer: Some(pointer.to_owned()), ..Fault::bad_request("invalid_member", detail) }
}

/// `POST /api/v1/admin/companies`
pub(in crate::http) async fn create(call: Call) -> Result<Response, Fault> {
    call.require_system()?;
    call.query(&[])?;
    let (call, body): (_, NewCompanyBody) = call.read_json().await?;
    let name = body.name.unwrap_or_else(|| body.slug.clone());
    let new = NewCompany {
        slug: body.slug.parse().map_err(|error: crate::domain::company::ParseSlugError| wrong("/slug", error.to_string()))?,
        country: body
            .country
            .map(|country| country.parse())
            .transpose()
            .map_err(|error: crate::domain::company::ParseCountryError| wrong("/country", error.to_string()))?,
        name,
    };
    check_name(&new.name)?;
    let company = call.services.companies.create(new, &call.actor()).await?;
    json(StatusCode::CREATED, &CompanyShape::from(&company))
}

/// `GET /api/v1/admin/companies`: all of them, for a company's key only its own.
pub(in crate::http) async fn list(call: Call) -> Result<Response, Fault> {
    call.query(&[])?;
    let own = call.principal.company();
    let companies = call.services.companies.list();
    let shapes: Vec<CompanyShape> =
        companies.iter().filter(|company| own.is_none_or(|own| own == company.id)).map(|company| company.as_ref().into()).collect();
    json(StatusCode::OK, &BTreeMap::from([("companies", shapes)]))
}
