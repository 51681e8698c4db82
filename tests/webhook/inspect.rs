//! What the operator is told about a URL, and about whoever answers there.

use std::net::Ipv4Addr;
use std::sync::Arc;

use lutine::domain::egress::{EgressPolicy, Grant, Rule};
use lutine::domain::proxy::Proxy;
use lutine::domain::retry::ErrorClass;
use lutine::webhook::{Tried, Way};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::support::*;

async fn secured(certificate: &[u8]) -> Receiver {
    let chain = vec![CertificateDer::from_pem_slice(certificate).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("certificates/receiver.key")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
    Receiver::secured(vec![vec![Step::Hang]], TlsAcceptor::from(Arc::new(config))).await
}

fn url(receiver: &Receiver) -> String {
    format!("https://receiver.test:{}/hooks", receiver.address.port())
}

#[tokio::test]
async fn a_connection_is_tried_when_asked_for_and_nothing_is_sent() {
    let receiver = secured(include_bytes!("certificates/valid.pem")).await;
    let found = sender().inspect(&url(&receiver), false).await;
    let here = Ipv4Addr::LOCALHOST.into();
    assert_eq!((found.refusal, found.way, found.tried), (None, Some(Way::Direct { bypass: None }), None));
    assert_eq!((found.addresses, receiver.connections()), (vec![(here, Ok(Grant::Loopback))], 0));
    let found = sender().inspect(&url(&receiver), true).await;
    let expires = "2120-01-01T00:00:00Z".parse().ok();
    assert_eq!(found.tried, Some(Tried::Connected { address: Some(here), tls: Some(("TLS 1.3", expires)) }));
    let expired = secured(include_bytes!("certificates/expired.pem")).await;
    let error = "the receiver's certificate has expired".to_owned();
    let failed = Tried::Failed { address: Some(here), class: ErrorClass::Tls, error };
    assert_eq!(sender().inspect(&url(&expired), true).await.tried, Some(failed));
    assert_eq!((receiver.requests().len(), expired.requests().len()), (0, 0));
}

#[tokio::test]
async fn one_refused_address_refuses_the_name_and_is_not_connected_to() {
    let names = Names::new([("mixed.test", &[&["127.0.0.1", "10.0.0.1"]]), ("nowhere.test", &[&[]])]);
    let (sender, _) = sender_with(development(), names);
    let found = sender.inspect("http://mixed.test/", true).await;
    let rule = "10.0.0.1 is not allowed: it is private and in none of the networks of egress.allow";
    assert_eq!((found.refusal.as_deref(), found.tried), (Some(rule), None));
    let verdicts: Vec<_> = found.addresses.into_iter().map(|(_, verdict)| verdict).collect();
    assert_eq!(verdicts, [Ok(Grant::Loopback), Err(Rule::Private)]);
    for (url, refusal) in [
        ("http://nowhere.test/", "the receiver's name has no address"),
        ("http://unknown.test/", "the receiver's name cannot be resolved: no such name"),
        ("http://a:b@mixed.test/", "the URL holds a user name or a password; use auth instead"),
    ] {
        assert_eq!(sender.inspect(url, true).await.refusal.as_deref(), Some(refusal), "{url}");
    }
}

#[tokio::test]
async fn the_way_is_told_and_names_behind_a_proxy_are_not_resolved() {
    let bypass = vec!["*.internal".parse().unwrap()];
    let proxy = Proxy { host: "proxy.test".to_owned(), port: 3128, credentials: None, bypass };
    let policy = EgressPolicy { proxy: Some(proxy), ..development() };
    let (sender, _) = sender_with(policy, Names::new([("a.internal", &[&["127.0.0.1"]])]));
    let found = sender.inspect("http://partner.test/", false).await;
    assert_eq!((found.refusal, found.way, found.addresses), (None, Some(Way::Proxy("proxy.test".to_owned(), 3128)), Vec::new()));
    let found = sender.inspect("http://a.internal/", false).await;
    assert_eq!(found.way, Some(Way::Direct { bypass: "*.internal".parse().ok() }));
    assert_eq!(found.addresses.len(), 1);
    assert!(sender.inspect("http://10.0.0.1/", false).await.refusal.is_some());
    let tried = sender.inspect("http://partner.test/", true).await.tried;
    let error = "the proxy's name cannot be resolved: no such name".to_owned();
    assert_eq!(tried, Some(Tried::Failed { address: None, class: ErrorClass::Dns, error }));
}
