//! `lutine trigger`: a sample of the catalogue, published.

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::companies;
use super::events::print_receipt;
use super::failure::Failure;
use super::options::{CompanyOption, checked};
use super::output::Format;
use super::pointer::Change;
use super::transport::{Connection, Request};
use crate::domain::event::EventType;

/// Options of `lutine trigger`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lutine trigger claim.created
  lutine trigger claim.created --set /claimId=c-17 --set /amount=1500 --company acme")]
pub struct Trigger {
    /// A type that the catalogue knows, such as claim.created
    #[arg(value_name = "TYPE", value_parser = checked::<EventType>)]
    kind: String,
    /// A change of the sample (repeatable): a JSON pointer into the payload, and a value that is JSON or else text
    #[arg(long = "set", value_name = "POINTER=VALUE", value_parser = str::parse::<Change>)]
    changes: Vec<Change>,
    #[command(flatten)]
    company: CompanyOption,
}

/// A sample as the API gives it.
#[derive(Debug, Deserialize)]
struct Sample {
    #[serde(rename = "type")]
    kind: String,
    payload: String,
}

impl Trigger {
    /// Publishes the sample and prints the receipt.
    pub async fn run(self, connection: &Connection, format: Format) -> Result<(), Failure> {
        let company = companies::chosen(connection, &self.company).await?;
        let request = Request::get("/api/v1/events/sample").query(&[("type", Some(&self.kind)), ("count", Some("1"))]);
        let answer = connection.call(request.for_company(company.as_deref())).await?.success()?;
        let sample = answer.json::<Vec<Sample>>()?.into_iter().next();
        let Sample { kind, payload } = sample.ok_or_else(|| Failure::Failed(format!("there is no sample of {}", self.kind)))?;
        let payload = changed(payload, &self.changes)?;
        let request = Request::post_json("/api/v1/events", &json!({"type": kind, "payload": payload}));
        let answer = connection.call(request.for_company(company.as_deref())).await?.success()?;
        print_receipt(&answer, &kind, format)
    }
}

/// The sample's own text when nothing is changed.
fn changed(payload: String, changes: &[Change]) -> Result<String, Failure> {
    if changes.is_empty() {
        return Ok(payload);
    }
    let mut value: Value = serde_json::from_str(&payload).map_err(|error| Failure::caused("the sample is not JSON", &error))?;
    for change in changes {
        change.apply(&mut value).map_err(|error| Failure::Failed(format!("--set: {error}")))?;
    }
    Ok(value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_that_is_not_changed_keeps_its_text() {
        assert_eq!(changed("{ \"b\": 1.50, \"a\": 2 }".to_owned(), &[]).unwrap(), "{ \"b\": 1.50, \"a\": 2 }");
        assert_eq!(changed("{\"a\":2}".to_owned(), &["/a=3".parse().unwrap()]).unwrap(), "{\"a\":3}");
    }
}
