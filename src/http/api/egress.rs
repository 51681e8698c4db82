//! Where the daemon may send, for its operator.

use axum::http::StatusCode;
use axum::response::Response;

use crate::http::call::{Call, json};
use crate::http::fault::Fault;
use crate::service::egress::inspect;
use crate::webhook::{Inspection, Tried, Way};
use crate::wire::egress::{AddressShape, ConnectionShape, EgressCheckBody, EgressShape};

/// `POST /api/v1/admin/egress/check`: what the policy does with a URL.
pub(in crate::http) async fn check(call: Call) -> Result<Response, Fault> {
    call.query(&[])?;
    let (call, body) = call.read_json::<EgressCheckBody>().await?;
    let config = call.services.config.load_full();
    let found = inspect(&config, &body.url, body.connect).await.map_err(|error| Fault::internal(error.to_string()))?;
    json(StatusCode::OK, &shape(body.url, found))
}

fn shape(url: String, found: Inspection) -> EgressShape {
    let address = |(address, verdict): (std::net::IpAddr, Result<_, _>)| match verdict {
        Ok(grant) => AddressShape { address: address.to_string(), allowed: true, rule: format!("{grant}") },
        Err(rule) => AddressShape { address: address.to_string(), allowed: false, rule: format!("{rule}") },
    };
    let (way, proxy, bypass) = match found.way {
        None => (None, None, None),
        Some(Way::Direct { bypass }) => (Some("direct"), None, bypass.map(|entry| entry.to_string())),
        Some(Way::Proxy(host, port)) => (Some("proxy"), Some(format!("http://{host}:{port}")), None),
    };
    EgressShape {
        url,
        allowed: found.refusal.is_none(),
        refusal: found.refusal,
        way,
        proxy,
        bypass,
        addresses: found.addresses.into_iter().map(address).collect(),
        connection: found.tried.map(connection),
    }
}

fn connection(tried: Tried) -> ConnectionShape {
    match tried {
        Tried::Connected { address, tls } => ConnectionShape {
            ok: true,
            address: address.map(|address| address.to_string()),
            tls: tls.map(|(version, _)| version),
            certificate_expires_utc: tls.and_then(|(_, expires)| expires).map(|time| time.to_string()),
            ..ConnectionShape::default()
        },
        Tried::Failed { address, class, error } => ConnectionShape {
            address: address.map(|address| address.to_string()),
            error_class: Some(class.as_str()),
            error: Some(error),
            ..ConnectionShape::default()
        },
    }
}
