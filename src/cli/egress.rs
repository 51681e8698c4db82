//! `lutine egress`: where webhooks may go, and which rule decides.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::json;

use super::failure::Failure;
use super::output::{self, Format, Table};
use super::transport::{Connection, Request};

/// Resolving and connecting have their own limits below this.
const CHECK_TIMEOUT: Duration = Duration::from_secs(60);

/// Commands about outgoing connections.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say whether webhooks would go to a URL, and which rule decides
    Check(Check),
}

/// Options of `lutine egress check`.
#[derive(Debug, Args)]
#[command(after_help = "\
Asks the daemon's configuration on this machine. With a proxy, names are the proxy's to resolve, so no addresses are shown
for them. The exit code is 1 when nothing would be sent there, or when the connection fails.

Examples:
  lutine egress check https://partner.example/hooks
  lutine egress check https://partner.example/hooks --connect --output json")]
pub struct Check {
    /// The URL of a receiver or of a token service
    #[arg(value_name = "URL")]
    target: String,
    /// Also connect, agree on TLS, and say when the certificate expires; nothing is sent
    #[arg(long)]
    connect: bool,
}

#[derive(Debug, Deserialize)]
struct Address {
    address: String,
    allowed: bool,
    rule: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tried {
    ok: bool,
    address: Option<String>,
    tls: Option<String>,
    certificate_expires_utc: Option<String>,
    error_class: Option<String>,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Report {
    allowed: bool,
    refusal: Option<String>,
    way: Option<String>,
    proxy: Option<String>,
    bypass: Option<String>,
    addresses: Vec<Address>,
    connection: Option<Tried>,
}

impl Report {
    fn is_good(&self) -> bool {
        self.allowed && self.connection.as_ref().is_none_or(|tried| tried.ok)
    }

    /// Name and value, one a line.
    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![("verdict", if self.allowed { "allowed".to_owned() } else { "refused".to_owned() })];
        rows.extend(self.refusal.clone().map(|refusal| ("because", refusal)));
        let way = match (&self.way, &self.proxy, &self.bypass) {
            (_, Some(proxy), _) => Some(format!("through the proxy {proxy}, which resolves names")),
            (_, _, Some(entry)) => Some(format!("direct, past the proxy by the entry {entry}")),
            (Some(way), ..) => Some(way.clone()),
            _ => None,
        };
        rows.extend(way.map(|way| ("way", way)));
        for Address { address, allowed, rule } in &self.addresses {
            rows.push(("address", format!("{address} {}: {rule}", if *allowed { "allowed" } else { "refused" })));
        }
        rows.extend(self.connection.as_ref().map(|tried| ("connection", tried.text())));
        rows
    }
}

impl Tried {
    fn text(&self) -> String {
        let place = self.address.as_ref().map(|address| format!(" to {address}")).unwrap_or_default();
        if let Some(error) = &self.error {
            let class = self.error_class.as_deref().unwrap_or("error");
            return format!("failed{place} ({class}): {error}");
        }
        let tls = self.tls.as_ref().map_or_else(|| ", in the clear".to_owned(), |version| format!(", {version}"));
        let expires = self.certificate_expires_utc.as_ref().map(|time| format!(", the certificate expires {time}"));
        format!("stood{place}{tls}{}", expires.unwrap_or_default())
    }
}

impl Command {
    /// Does what the command says.
    pub async fn run(self, connection: &Connection, format: Format) -> Result<(), Failure> {
        let Self::Check(Check { target, connect }) = self;
        let request = Request::post_json("/api/v1/admin/egress/check", &json!({ "url": target, "connect": connect }));
        let answer = connection.call(request.within(CHECK_TIMEOUT)).await?.success()?;
        let report: Report = answer.json()?;
        match format {
            Format::Json => output::line(&answer.json_line()?)?,
            Format::Table => Table::of_pairs(&report.rows()).print()?,
        }
        if report.is_good() { Ok(()) } else { Err(Failure::Reported) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(value: serde_json::Value) -> Report {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn people_are_told_the_verdict_the_way_and_every_address() {
        let allowed = report(json!({
            "allowed": true, "refusal": null, "way": "direct", "proxy": null, "bypass": "*.internal",
            "addresses": [{"address": "10.20.1.1", "allowed": true, "rule": "it is in 10.20.0.0/16 of egress.allow"}],
            "connection": {"ok": true, "address": "10.20.1.1", "tls": "TLS 1.3", "certificateExpiresUtc": "2027-01-01T00:00:00.000000Z",
                "errorClass": null, "error": null},
        }));
        assert!(allowed.is_good());
        let rows: Vec<String> = allowed.rows().into_iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let expected = [
            "verdict: allowed",
            "way: direct, past the proxy by the entry *.internal",
            "address: 10.20.1.1 allowed: it is in 10.20.0.0/16 of egress.allow",
            "connection: stood to 10.20.1.1, TLS 1.3, the certificate expires 2027-01-01T00:00:00.000000Z",
        ];
        assert_eq!(rows, expected);
    }

    #[test]
    fn a_refusal_and_a_failed_connection_are_told_and_are_not_good() {
        let base = json!({"allowed": true, "refusal": null, "way": "proxy", "proxy": "http://p:1", "bypass": null, "addresses": [],
            "connection": {"ok": false, "address": null, "tls": null, "certificateExpiresUtc": null, "errorClass": "tls", "error": "no"}});
        let failed = report(base.clone());
        assert!(!failed.is_good());
        assert_eq!(failed.rows().last().unwrap().1, "failed (tls): no");
        let mut refused = base;
        refused["allowed"] = json!(false);
        refused["refusal"] = json!("it is private");
        refused["connection"] = json!(null);
        let refused = report(refused);
        assert!(!refused.is_good());
        assert_eq!(refused.rows()[..2], [("verdict", "refused".to_owned()), ("because", "it is private".to_owned())]);
    }
}
