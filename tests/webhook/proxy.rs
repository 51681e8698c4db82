//! Through a proxy: what it sees, what it decides, and what is decided here all the same.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use lutine::domain::egress::EgressPolicy;
use lutine::domain::proxy::Proxy;
use lutine::domain::retry::{ErrorClass, Exchange};
use lutine::domain::subscription::{Auth, ClientCredentials, Credential, TokenMethod};
use lutine::webhook::{Sender, Target};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::support::*;

const DELIVERED: Exchange = Exchange::Answered { status: 204, not_before: None };

/// A proxy that leads every tunnel to this machine, and remembers the heads of requests.
struct Tunnels {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Tunnels {
    /// `answer` is what it says to `CONNECT`; after anything but a success it closes.
    async fn start(answer: &'static str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let tunnels = Self { port: listener.local_addr().unwrap().port(), heads: Arc::default() };
        let heads = tunnels.heads.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let heads = heads.clone();
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = stream.read_u8().await else { return };
                        head.push(byte);
                    }
                    let head = String::from_utf8(head).unwrap();
                    let port: u16 = head.split(' ').nth(1).and_then(|place| place.rsplit_once(':')).unwrap().1.parse().unwrap();
                    heads.lock().unwrap().push(head);
                    let _ = stream.write_all(answer.as_bytes()).await;
                    if answer.starts_with("HTTP/1.1 2") {
                        let mut receiver = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
                        let _ = copy_bidirectional(&mut stream, &mut receiver).await;
                    } else if answer.is_empty() {
                        let _ = stream.read_u8().await;
                    }
                });
            }
        });
        tunnels
    }

    async fn open() -> Self {
        Self::start("HTTP/1.1 200 Connection established\r\n\r\n").await
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    fn proxy(&self, bypass: &[&str]) -> Proxy {
        let bypass = bypass.iter().map(|entry| entry.parse().unwrap()).collect();
        Proxy { host: "127.0.0.1".to_owned(), port: self.port, credentials: "name:hush-hush".parse().ok(), bypass }
    }

    /// A sender behind the proxy that can resolve no name by itself.
    fn sender(&self, policy: EgressPolicy, bypass: &[&str]) -> Sender {
        sender_with(EgressPolicy { proxy: Some(self.proxy(bypass)), ..policy }, Names::new([])).0
    }
}

fn public() -> EgressPolicy {
    EgressPolicy { allow_public: true, allow_http: true, ..EgressPolicy::default() }
}

fn named(receiver: &Receiver, scheme: &str, host: &str) -> Target {
    target(&format!("{scheme}://{host}:{}/hooks", receiver.address.port()))
}

async fn secured() -> Receiver {
    let chain = vec![CertificateDer::from_pem_slice(include_bytes!("certificates/valid.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("certificates/receiver.key")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
    Receiver::secured(vec![vec![Step::Read, write(OK), Step::Read, write(OK), Step::Hang]], TlsAcceptor::from(Arc::new(config))).await
}

#[tokio::test]
async fn https_goes_through_a_tunnel_to_a_name_that_only_the_proxy_resolves() {
    let (receiver, tunnels) = (secured().await, Tunnels::open().await);
    let (sender, target) = (tunnels.sender(public(), &[]), named(&receiver, "https", "receiver.test"));
    for _ in 0..2 {
        let report = send(&sender, &target).await;
        assert_eq!((report.exchange, report.address), (DELIVERED, None));
    }
    let authority = format!("receiver.test:{}", receiver.address.port());
    let expected = format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\nproxy-authorization: Basic bmFtZTpodXNoLWh1c2g=\r\n\r\n");
    assert_eq!(tunnels.heads(), [expected]);
    assert!(receiver.requests().iter().all(|request| !request.headers.contains_key("proxy-authorization")));
}

#[tokio::test]
async fn the_receivers_certificate_is_verified_behind_the_proxy_too() {
    let (receiver, tunnels) = (secured().await, Tunnels::open().await);
    let report = send(&tunnels.sender(public(), &[]), &named(&receiver, "https", "another.test")).await;
    assert_eq!(report.exchange, Exchange::Failed(ErrorClass::Tls));
    assert_eq!(report.error.as_deref(), Some("the receiver's certificate is for another host"));
    assert!(receiver.requests().is_empty());
}

#[tokio::test]
async fn http_goes_through_a_tunnel_as_well() {
    let (receiver, tunnels) = (Receiver::answers(OK).await, Tunnels::open().await);
    let report = send(&tunnels.sender(public(), &[]), &named(&receiver, "http", "receiver.test")).await;
    assert_eq!((report.exchange, tunnels.heads().len()), (DELIVERED, 1));
    assert_eq!(receiver.requests()[0].line, "POST /hooks HTTP/1.1");
    assert_eq!(receiver.requests()[0].header("host"), format!("receiver.test:{}", receiver.address.port()));
}

#[tokio::test]
async fn what_the_list_names_goes_past_the_proxy_under_the_whole_policy() {
    let (receiver, tunnels) = (Receiver::answers(OK).await, Tunnels::open().await);
    let names = Names::new([("a.internal", &[&["127.0.0.1"]])]);
    let policy = |base: EgressPolicy| EgressPolicy { proxy: Some(tunnels.proxy(&["*.internal", "127.0.0.0/8"])), ..base };
    for host in ["a.internal", "127.0.0.1"] {
        let report = send(&sender_with(policy(development()), names.clone()).0, &named(&receiver, "http", host)).await;
        assert_eq!((report.exchange, report.address), (DELIVERED, Some(Ipv4Addr::LOCALHOST.into())), "{host}");
        let report = send(&sender_with(policy(public()), names.clone()).0, &named(&receiver, "http", host)).await;
        assert_eq!(report.exchange, Exchange::Failed(ErrorClass::Egress), "{host}");
    }
    assert_eq!((tunnels.heads().len(), receiver.requests().len()), (0, 2));
}

#[tokio::test]
async fn addresses_in_a_url_and_names_of_this_machine_are_refused_before_the_proxy_is_asked() {
    let tunnels = Tunnels::open().await;
    let sender = tunnels.sender(public(), &[]);
    for host in ["10.0.0.1", "127.1", "169.254.169.254", "[::ffff:10.0.0.1]", "localhost", "a.localhost."] {
        let report = send(&sender, &target(&format!("http://{host}/"))).await;
        assert_eq!(report.exchange, Exchange::Failed(ErrorClass::Egress), "{host}: {report:?}");
    }
    let closed = EgressPolicy { allow_http: false, ..public() };
    let report = send(&tunnels.sender(closed, &[]), &target("http://receiver.test/")).await;
    assert_eq!(report.exchange, Exchange::Failed(ErrorClass::Egress));
    assert!(tunnels.heads().is_empty());
}

#[tokio::test]
async fn a_proxy_that_does_not_connect_is_told_from_a_receiver_that_fails() {
    let cases = [
        ("HTTP/1.1 407 X\r\nContent-Length: 0\r\n\r\n", "the proxy wants other credentials: it answered 407"),
        ("HTTP/1.1 502 X\r\nContent-Length: 4\r\n\r\nhush", "the proxy did not connect to the receiver: it answered 502"),
        ("HTTP/1.1 302 X\r\nLocation: http://127.0.0.1/\r\n\r\n", "the proxy did not connect to the receiver: it answered 302"),
        ("garbage\r\n\r\n", "the proxy did not answer as one"),
        ("HTTP/1.1 200 X\r\n\r\nhello", "the proxy spoke first inside the tunnel"),
    ];
    let receiver = Receiver::answers(OK).await;
    for (answer, error) in cases {
        let tunnels = Tunnels::start(answer).await;
        let report = send(&tunnels.sender(public(), &[]), &named(&receiver, "http", "receiver.test")).await;
        assert_eq!(report.exchange, Exchange::Failed(ErrorClass::Connect), "{answer}: {report:?}");
        let told = report.error.unwrap();
        assert!(told.starts_with(error) && !told.contains("hush"), "{answer}: {told}");
    }
    let silent = Tunnels::start("").await;
    let mut subscription = subscription(&named_url(&receiver));
    subscription.wishes.overrides.timeout_ms = Some(300);
    let report = send(&silent.sender(public(), &[]), &Target::new(&subscription, origin()).unwrap()).await;
    assert_eq!(report.exchange, Exchange::Failed(ErrorClass::Timeout));
    let nobody = Tunnels { port: 1, heads: Arc::default() };
    let report = send(&nobody.sender(public(), &[]), &named(&receiver, "http", "receiver.test")).await;
    assert_eq!((report.exchange, report.error.as_deref()), (Exchange::Failed(ErrorClass::Connect), Some("the proxy refuses connections")));
    assert!(receiver.requests().is_empty());
}

fn named_url(receiver: &Receiver) -> String {
    format!("http://receiver.test:{}/hooks", receiver.address.port())
}

#[tokio::test]
async fn token_services_are_called_through_the_proxy_too() {
    let (receiver, tunnels) = (Receiver::answers(OK).await, Tunnels::open().await);
    let body = r#"{"access_token":"token"}"#;
    let service = Receiver::answers(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
    let mut subscription = subscription(&named_url(&receiver));
    subscription.wishes.auth = Auth::OAuth2(Box::new(ClientCredentials {
        token_url: format!("http://id.test:{}/token", service.address.port()),
        client_id: "lutine".to_owned(),
        method: TokenMethod::Post,
        credential: Credential("secret".to_owned()),
        scope: None,
        audience: None,
    }));
    let report = send(&tunnels.sender(public(), &[]), &Target::new(&subscription, origin()).unwrap()).await;
    assert_eq!(report.exchange, DELIVERED, "{report:?}");
    let asked: Vec<String> = tunnels.heads().iter().map(|head| head.split(':').next().unwrap().to_owned()).collect();
    assert_eq!(asked, ["CONNECT id.test", "CONNECT receiver.test"]);
}
