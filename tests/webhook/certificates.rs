//! Subscriptions that trust an authority of their own, and show a certificate of their own.

use std::sync::Arc;

use lutine::domain::profile::{Overrides, PrivateKeyPem};
use lutine::domain::retry::{ErrorClass, Exchange};
use lutine::domain::subscription::{Auth, ClientCredentials, Credential, TokenMethod};
use lutine::webhook::{Report, Target, TargetError, TrustError};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::support::*;

const DELIVERED: Exchange = Exchange::Answered { status: 204, not_before: None };

struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
struct Identity {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    fn sign(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> Identity {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        Identity { certificate: params.signed_by(&key, &self.0).unwrap(), key }
    }

    /// What a receiver with a certificate of this authority speaks TLS with; `clients`: only those may come.
    fn acceptor(&self, clients: Option<&Self>) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let identity = self.sign("receiver.test", ExtendedKeyUsagePurpose::ServerAuth);
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.0.der().clone()).unwrap();
                builder.with_client_cert_verifier(WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap())
            }
        };
        let key = PrivateKeyDer::try_from(identity.key.serialize_der()).unwrap();
        TlsAcceptor::from(Arc::new(builder.with_single_cert(vec![identity.certificate.der().clone()], key).unwrap()))
    }

    async fn receiver(&self, clients: Option<&Self>) -> Receiver {
        Receiver::secured(vec![vec![Step::Read, write(OK), Step::Hang]], self.acceptor(clients)).await
    }
}

fn url(receiver: &Receiver) -> String {
    format!("https://receiver.test:{}/hooks", receiver.address.port())
}

fn with(receiver: &Receiver, overrides: Overrides) -> Result<Target, TargetError> {
    let mut subscription = subscription(&url(receiver));
    subscription.wishes.overrides = Overrides { timeout_ms: Some(5_000), ..overrides };
    Target::new(&subscription, origin())
}

fn trusting(authority: &Authority) -> Overrides {
    Overrides { ca_bundle: Some(authority.pem()), ..Overrides::default() }
}

fn showing(identity: &Identity, overrides: Overrides) -> Overrides {
    let client_key = Some(PrivateKeyPem(identity.key.serialize_pem()));
    Overrides { client_certificate: Some(identity.certificate.pem()), client_key, ..overrides }
}

async fn attempt(receiver: &Receiver, overrides: Overrides) -> Report {
    send(&sender(), &with(receiver, overrides).unwrap()).await
}

#[tokio::test]
async fn an_own_authority_stands_in_for_those_of_the_machine() {
    let (own, other) = (Authority::new("own"), Authority::new("other"));
    let receiver = own.receiver(None).await;
    assert_eq!(attempt(&receiver, trusting(&own)).await.exchange, DELIVERED);
    let both = Overrides { ca_bundle: Some(format!("{}\n{}", other.pem(), own.pem())), ..Overrides::default() };
    assert_eq!(attempt(&receiver, both).await.exchange, DELIVERED);
    for overrides in [Overrides::default(), trusting(&other)] {
        let report = attempt(&receiver, overrides).await;
        assert_eq!(report.exchange, Exchange::Failed(ErrorClass::Tls));
        assert_eq!(report.error.as_deref(), Some("the receiver's certificate is not from a trusted authority"));
    }
    // The machine's authority, which other subscriptions trust, no longer counts for this one.
    let pem = include_str!("certificates/authority.pem");
    let machines = Overrides { ca_bundle: Some(pem.to_owned()), ..Overrides::default() };
    assert_eq!(attempt(&receiver, machines).await.exchange, Exchange::Failed(ErrorClass::Tls));
}

#[tokio::test]
async fn a_receiver_that_demands_a_certificate_is_shown_the_subscriptions() {
    let (own, clients) = (Authority::new("own"), Authority::new("clients"));
    let receiver = own.receiver(Some(&clients)).await;
    let identity = clients.sign("lutine", ExtendedKeyUsagePurpose::ClientAuth);
    assert_eq!(attempt(&receiver, showing(&identity, trusting(&own))).await.exchange, DELIVERED);
    let stranger = Authority::new("strangers").sign("lutine", ExtendedKeyUsagePurpose::ClientAuth);
    for overrides in [trusting(&own), showing(&stranger, trusting(&own))] {
        let report = attempt(&receiver, overrides).await;
        assert!(matches!(report.exchange, Exchange::Failed(ErrorClass::Tls | ErrorClass::Reset)), "{report:?}");
    }
    assert_eq!(receiver.requests().len(), 1);
}

#[tokio::test]
async fn a_certificate_can_be_shown_to_a_receiver_that_the_machine_trusts() {
    let clients = Authority::new("clients");
    let identity = clients.sign("lutine", ExtendedKeyUsagePurpose::ClientAuth);
    let mut roots = RootCertStore::empty();
    roots.add(clients.0.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let chain = vec![CertificateDer::from_pem_slice(include_bytes!("certificates/valid.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("certificates/receiver.key")).unwrap();
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let receiver = Receiver::secured(vec![vec![Step::Read, write(OK), Step::Hang]], acceptor).await;
    let report = attempt(&receiver, showing(&identity, Overrides::default())).await;
    assert_eq!(report.exchange, DELIVERED, "{report:?}");
}

#[tokio::test]
async fn the_token_service_may_be_of_the_own_authority_and_is_shown_no_certificate() {
    let (own, clients) = (Authority::new("own"), Authority::new("clients"));
    let receiver = own.receiver(Some(&clients)).await;
    let body = r#"{"access_token":"token","expires_in":60}"#;
    let granted = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let service = Receiver::secured(vec![vec![Step::Read, write(granted), Step::Hang]], own.acceptor(None)).await;
    let identity = clients.sign("lutine", ExtendedKeyUsagePurpose::ClientAuth);
    let mut subscription = subscription(&url(&receiver));
    subscription.wishes.auth = Auth::OAuth2(Box::new(ClientCredentials {
        token_url: url(&service),
        client_id: "lutine".to_owned(),
        method: TokenMethod::Post,
        credential: Credential("secret".to_owned()),
        scope: None,
        audience: None,
    }));
    subscription.wishes.overrides = showing(&identity, trusting(&own));
    let report = send(&sender(), &Target::new(&subscription, origin()).unwrap()).await;
    assert_eq!(report.exchange, DELIVERED, "{report:?}");
    assert_eq!(receiver.requests()[0].header("authorization"), "Bearer token");
    subscription.wishes.overrides = showing(&identity, Overrides::default());
    let report = send(&sender(), &Target::new(&subscription, origin()).unwrap()).await;
    assert_eq!(report.exchange, Exchange::Failed(ErrorClass::Token));
    assert_eq!(report.error.as_deref(), Some("the token service's certificate is not from a trusted authority"));
}

#[tokio::test]
async fn certificates_that_cannot_be_used_are_refused_by_the_member_that_is_wrong() {
    let authority = Authority::new("own");
    let receiver = Receiver::answers(OK).await;
    let (one, two) = (authority.sign("a", ExtendedKeyUsagePurpose::ClientAuth), authority.sign("b", ExtendedKeyUsagePurpose::ClientAuth));
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned();
    let trust = |overrides: Overrides| match with(&receiver, overrides) {
        Err(TargetError::Trust(error)) => error,
        other => panic!("{:?}", other.err()),
    };
    for bundle in ["".to_owned(), "secret".to_owned(), garbage.clone(), one.key.serialize_pem()] {
        let error = trust(Overrides { ca_bundle: Some(bundle.clone()), ..Overrides::default() });
        assert!(matches!(error, TrustError::CaBundle(_)), "{bundle}: {error}");
    }
    let crossed = Identity { certificate: one.certificate.clone(), key: two.key };
    let error = trust(showing(&crossed, Overrides::default()));
    assert_eq!(error.to_string(), "clientKey does not belong to the first certificate of clientCertificate");
    let identified = showing(&one, Overrides::default());
    for key in ["", "secret", garbage.as_str(), "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
        let error = trust(Overrides { client_key: Some(PrivateKeyPem(key.to_owned())), ..identified.clone() });
        assert!(matches!(error, TrustError::ClientKey(_)), "{key}: {error}");
    }
    for chain in ["", "secret", garbage.as_str()] {
        let error = trust(Overrides { client_certificate: Some(chain.to_owned()), ..identified.clone() });
        assert!(matches!(error, TrustError::ClientCertificate(_)), "{chain}: {error}");
    }
    let many = authority.pem().repeat(65);
    assert!(matches!(trust(Overrides { ca_bundle: Some(many), ..Overrides::default() }), TrustError::CaBundle(_)));
}
