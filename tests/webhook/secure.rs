//! Receivers behind TLS: certificates are verified, and there is no way around that.

use std::sync::Arc;

use lutine::domain::retry::{ErrorClass, Exchange};
use lutine::webhook::Report;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::support::*;

const VALID: &[u8] = include_bytes!("certificates/valid.pem");

fn acceptor(certificate: &[u8], versions: &[&'static rustls::SupportedProtocolVersion], protocols: &[&[u8]]) -> TlsAcceptor {
    let chain = CertificateDer::pem_slice_iter(certificate).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("certificates/receiver.key")).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

fn plain_acceptor(certificate: &[u8]) -> TlsAcceptor {
    acceptor(certificate, rustls::ALL_VERSIONS, &[])
}

fn url(receiver: &Receiver, host: &str) -> String {
    format!("https://{host}:{}/hooks", receiver.address.port())
}

async fn attempt(certificate: &[u8], host: &str) -> (Report, Receiver) {
    let receiver = Receiver::secured(vec![vec![Step::Read, write(OK), Step::Hang]], plain_acceptor(certificate)).await;
    (send(&sender(), &target(&url(&receiver, host))).await, receiver)
}

#[tokio::test]
async fn a_certificate_that_is_right_is_taken_for_its_name_and_its_address() {
    for host in ["receiver.test", "RECEIVER.test", "127.0.0.1"] {
        let (report, receiver) = attempt(VALID, host).await;
        assert_eq!(report.exchange, Exchange::Answered { status: 204, not_before: None }, "{host}: {report:?}");
        assert_eq!(receiver.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_certificate_that_is_wrong_in_any_way_is_refused_before_anything_is_sent() {
    let wrong = [
        (include_bytes!("certificates/expired.pem").as_slice(), "receiver.test", "the receiver's certificate has expired"),
        (include_bytes!("certificates/early.pem"), "receiver.test", "the receiver's certificate is not valid yet"),
        (include_bytes!("certificates/other-host.pem"), "receiver.test", "the receiver's certificate is for another host"),
        (VALID, "another.test", "the receiver's certificate is for another host"),
        (include_bytes!("certificates/self-signed.pem"), "receiver.test", "the receiver's certificate is not from a trusted authority"),
        (
            include_bytes!("certificates/self-made-authority.pem"),
            "receiver.test",
            "the receiver's certificate is not acceptable, as self-made ones often are not: CaUsedAsEndEntity",
        ),
    ];
    for (certificate, host, error) in wrong {
        let (report, receiver) = attempt(certificate, host).await;
        assert_eq!(report.exchange, Exchange::Failed(ErrorClass::Tls), "{error}: {report:?}");
        assert_eq!(report.error.unwrap(), error);
        assert_eq!((receiver.connections(), receiver.requests().len()), (1, 0));
    }
}

#[tokio::test]
async fn an_authority_of_the_system_does_not_know_the_tests_authority() {
    let receiver = Receiver::secured(vec![vec![Step::Read, write(OK)]], plain_acceptor(VALID)).await;
    let policy = Arc::new(arc_swap::ArcSwap::from_pointee(development()));
    let sender = lutine::webhook::Sender::new(policy, Arc::new(AlwaysHere), lutine::webhook::TrustedRoots::system()).unwrap();
    assert_eq!(send(&sender, &target(&url(&receiver, "receiver.test"))).await.exchange, Exchange::Failed(ErrorClass::Tls));
}

#[tokio::test]
async fn tls_1_2_is_taken_and_http_1_1_is_what_is_spoken() {
    for (versions, protocols) in [
        (&[&rustls::version::TLS12][..], &[b"http/1.1".as_slice()][..]),
        (&[&rustls::version::TLS13][..], &[b"h2".as_slice(), b"http/1.1"][..]),
    ] {
        let receiver = Receiver::secured(vec![vec![Step::Read, write(OK)]], acceptor(VALID, versions, protocols)).await;
        let report = send(&sender(), &target(&url(&receiver, "receiver.test"))).await;
        assert_eq!(report.exchange, Exchange::Answered { status: 204, not_before: None }, "{report:?}");
    }
    let receiver = Receiver::secured(vec![vec![Step::Read, write(OK)]], acceptor(VALID, rustls::ALL_VERSIONS, &[b"h2"])).await;
    let report = send(&sender(), &target(&url(&receiver, "receiver.test"))).await;
    assert_eq!(report.exchange, Exchange::Failed(ErrorClass::Tls), "{report:?}");
}

#[tokio::test]
async fn a_handshake_that_goes_wrong_is_told() {
    let alert = |description: u8| write([0x15, 3, 1, 0, 2, 2, description]);
    let cases = [
        ("only TLS 1.0", vec![Step::ReadBytes(5), alert(70), Step::Hang], ErrorClass::Tls, "no agreement on TLS"),
        ("a handshake failure", vec![Step::ReadBytes(5), alert(40), Step::Hang], ErrorClass::Tls, "no agreement on TLS"),
        ("HTTP instead", vec![write("HTTP/1.1 400 Plain\r\n\r\n"), Step::Hang], ErrorClass::Tls, "no agreement on TLS"),
        ("garbage", vec![write([0xff; 64]), Step::Hang], ErrorClass::Tls, "no agreement on TLS"),
        ("closes", vec![Step::ReadBytes(5)], ErrorClass::Tls, "broke during the TLS handshake"),
        ("resets", vec![Step::ReadBytes(5), Step::Reset], ErrorClass::Tls, "broke during the TLS handshake"),
        ("hangs", vec![Step::Hang], ErrorClass::Timeout, "there was no agreement on TLS"),
        ("drips", vec![Step::Drip(vec![0x16, 3, 3, 0x40].into_iter().chain([0; 99]).collect())], ErrorClass::Timeout, "agreement on TLS"),
    ];
    for (name, script, class, error) in cases {
        let receiver = Receiver::follows(vec![script]).await;
        let report = send(&sender(), &hurried(&url(&receiver, "receiver.test"), 400)).await;
        assert_eq!(report.exchange, Exchange::Failed(class), "{name}: {report:?}");
        assert!(report.error.as_ref().unwrap().contains(error), "{name}: {report:?}");
    }
}

#[tokio::test]
async fn connections_are_used_again_and_replaced_behind_tls_too() {
    let scripts =
        vec![vec![Step::Read, write(OK), Step::Read, write(OK), Step::Read, Step::Reset], vec![Step::Read, write(OK), Step::Hang]];
    let receiver = Receiver::secured(scripts, plain_acceptor(VALID)).await;
    let (sender, target) = (sender(), target(&url(&receiver, "receiver.test")));
    for _ in 0..3 {
        let report = send(&sender, &target).await;
        assert_eq!(report.exchange, Exchange::Answered { status: 204, not_before: None }, "{report:?}");
    }
    let connections: Vec<usize> = receiver.requests().iter().map(|request| request.connection).collect();
    assert_eq!(connections, [0, 0, 0, 1]);
}

#[tokio::test]
async fn a_body_that_ends_without_the_end_of_tls_is_broken_off() {
    let receiver = Receiver::secured(vec![vec![Step::Read, write("HTTP/1.1 200 OK\r\n\r\nhello")]], plain_acceptor(VALID)).await;
    let report = send(&sender(), &target(&url(&receiver, "receiver.test"))).await;
    assert_eq!((report.exchange, report.status), (Exchange::Failed(ErrorClass::Body), Some(200)));
    assert_eq!(report.excerpt, "hello");
}
