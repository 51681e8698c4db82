//! Scripted receivers, and a sender that may reach them.

use std::collections::HashMap;
use std::fmt::Debug;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use lutine::catalog::Catalog;
use lutine::domain::company::CompanyId;
use lutine::domain::egress::EgressPolicy;
use lutine::domain::event::EventId;
use lutine::domain::filter::TypeFilter;
use lutine::domain::health::Health;
use lutine::domain::notification::NotificationKey;
use lutine::domain::profile::{Overrides, Profile};
use lutine::domain::subscription::{Auth, Ordering as DeliveryOrdering, Secret, Standing, Subscription, SubscriptionId, Wishes};
use lutine::domain::text::escape_into;
use lutine::domain::time::Timestamp;
use lutine::webhook::{Origin, OutgoingEvent, Report, Resolve, Resolving, RsaKey, Sender, Target, TrustedRoots};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

pub const OK: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

/// What a receiver does with a connection, one step after the other; behind the last one it closes.
#[derive(Debug, Clone)]
pub enum Step {
    /// Reads a whole request.
    Read,
    /// Reads so many bytes.
    ReadBytes(usize),
    /// Writes this.
    Write(Vec<u8>),
    /// Writes this again and again for as long as somebody takes it, at most so many times.
    Repeat(Vec<u8>, usize),
    /// Writes this byte by byte with pauses.
    Drip(Vec<u8>),
    /// Does nothing until the other side closes.
    Hang,
    /// Closes with RST.
    Reset,
    /// Waits until the test says so.
    Wait(Arc<tokio::sync::Notify>),
}

pub fn write(bytes: impl AsRef<[u8]>) -> Step {
    Step::Write(bytes.as_ref().to_vec())
}

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    pub line: String,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
    /// Number of the connection, from 0.
    pub connection: usize,
}

impl Received {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

#[derive(Debug, Default)]
struct Seen {
    connections: AtomicUsize,
    /// Bytes that the receiver could write.
    written: AtomicU64,
    requests: Mutex<Vec<Received>>,
}

/// A receiver on loopback.
#[derive(Debug, Clone)]
pub struct Receiver {
    pub address: SocketAddr,
    seen: Arc<Seen>,
}

impl Receiver {
    /// Follows the scripts, one for each connection; the last one also for all that come after.
    pub async fn follows(scripts: Vec<Vec<Step>>) -> Self {
        Self::listen(scripts, None).await
    }

    /// The same behind TLS.
    pub async fn secured(scripts: Vec<Vec<Step>>, acceptor: TlsAcceptor) -> Self {
        Self::listen(scripts, Some(acceptor)).await
    }

    /// Answers every request of every connection alike.
    pub async fn answers(answer: impl AsRef<[u8]>) -> Self {
        let script = (0..64).flat_map(|_| [Step::Read, write(answer.as_ref())]).collect();
        Self::follows(vec![script]).await
    }

    /// Answers every request as the function says.
    pub async fn decides(decide: impl Fn(&Received) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let receiver = Self { address: listener.local_addr().unwrap(), seen: Arc::default() };
        let (seen, decide) = (receiver.seen.clone(), Arc::new(decide));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let number = seen.connections.fetch_add(1, Ordering::SeqCst);
                let (seen, decide) = (seen.clone(), decide.clone());
                tokio::spawn(async move {
                    stream.set_nodelay(true).unwrap();
                    while let Ok(request) = read_request(&mut stream).await {
                        let answer = decide(&request);
                        seen.requests.lock().unwrap().push(Received { connection: number, ..request });
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
        receiver
    }

    async fn listen(scripts: Vec<Vec<Step>>, acceptor: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let receiver = Self { address: listener.local_addr().unwrap(), seen: Arc::default() };
        let seen = receiver.seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = seen.connections.fetch_add(1, Ordering::SeqCst);
                let script = scripts.get(number).or(scripts.last()).cloned().unwrap_or_default();
                let (seen, acceptor) = (seen.clone(), acceptor.clone());
                tokio::spawn(async move {
                    stream.set_nodelay(true).unwrap();
                    if script.iter().any(|step| matches!(step, Step::Reset)) {
                        stream.set_zero_linger().unwrap();
                    }
                    // Whatever the sender breaks off is the sender's matter.
                    let _ = match acceptor {
                        None => run(stream, script, number, &seen).await,
                        Some(acceptor) => match acceptor.accept(stream).await {
                            Ok(stream) => run(stream, script, number, &seen).await,
                            Err(error) => Err(error),
                        },
                    };
                });
            }
        });
        receiver
    }

    pub fn url(&self) -> String {
        format!("http://{}/hooks", self.address)
    }

    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    pub fn written(&self) -> u64 {
        self.seen.written.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> Vec<Received> {
        self.seen.requests.lock().unwrap().clone()
    }
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Received> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap().to_owned();
    let mut headers = HashMap::new();
    for (name, value) in lines.map(|line| line.split_once(": ").unwrap()) {
        assert!(headers.insert(name.to_owned(), value.to_owned()).is_none(), "{name} twice");
    }
    let length: usize = headers["content-length"].parse().unwrap();
    let mut body = bytes[end + 4..].to_vec();
    while body.len() < length {
        if stream.read_buf(&mut body).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    assert_eq!(body.len(), length, "more than one request at once");
    Ok(Received { line, headers, body, connection: 0 })
}

async fn run(mut stream: impl AsyncRead + AsyncWrite + Unpin, script: Vec<Step>, number: usize, seen: &Seen) -> io::Result<()> {
    let wrote = |length: usize| seen.written.fetch_add(length as u64, Ordering::SeqCst);
    for step in script {
        match step {
            Step::Read => {
                let request = read_request(&mut stream).await?;
                seen.requests.lock().unwrap().push(Received { connection: number, ..request });
            }
            Step::ReadBytes(count) => {
                let mut bytes = vec![0; count];
                stream.read_exact(&mut bytes).await?;
            }
            Step::Write(bytes) => {
                stream.write_all(&bytes).await?;
                stream.flush().await?;
                wrote(bytes.len());
            }
            Step::Repeat(bytes, times) => {
                for _ in 0..times {
                    stream.write_all(&bytes).await?;
                    wrote(bytes.len());
                }
                stream.flush().await?;
            }
            Step::Drip(bytes) => {
                for byte in bytes {
                    stream.write_all(&[byte]).await?;
                    stream.flush().await?;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            Step::Hang => {
                let mut bytes = vec![0; 65_536];
                while stream.read(&mut bytes).await? > 0 {}
            }
            Step::Wait(signal) => signal.notified().await,
            Step::Reset => return Ok(()),
        }
    }
    Ok(())
}

/// Names and their addresses, as the test says; each name's answers in turn, the last one for ever.
#[derive(Debug, Default)]
pub struct Names(pub Mutex<HashMap<String, Vec<Vec<IpAddr>>>>);

impl Names {
    pub fn new<const N: usize>(names: [(&str, &[&[&str]]); N]) -> Arc<Self> {
        let parse = |answers: &[&[&str]]| answers.iter().map(|answer| answer.iter().map(|text| text.parse().unwrap()).collect()).collect();
        Arc::new(Self(Mutex::new(names.into_iter().map(|(name, answers)| (name.to_owned(), parse(answers))).collect())))
    }
}

impl Resolve for Names {
    fn resolve(&self, host: &str, port: u16) -> Resolving {
        let mut names = self.0.lock().unwrap();
        let answer = match names.get_mut(host) {
            None => Err(io::Error::other("no such name")),
            Some(answers) if answers.len() > 1 => Ok(answers.remove(0)),
            Some(answers) => Ok(answers[0].clone()),
        };
        Box::pin(async move { answer.map(|addresses| addresses.into_iter().map(|address| (address, port).into()).collect()) })
    }
}

/// A resolver that never answers.
#[derive(Debug)]
pub struct Silent;

impl Resolve for Silent {
    fn resolve(&self, _: &str, _: u16) -> Resolving {
        Box::pin(std::future::pending())
    }
}

/// Every name is this machine.
#[derive(Debug)]
pub struct AlwaysHere;

impl Resolve for AlwaysHere {
    fn resolve(&self, _: &str, port: u16) -> Resolving {
        Box::pin(async move { Ok(vec![(Ipv4Addr::LOCALHOST, port).into()]) })
    }
}

pub fn development() -> EgressPolicy {
    EgressPolicy { allow_public: true, allow_http: true, allow_loopback: true, ..EgressPolicy::default() }
}

pub fn authority() -> TrustedRoots {
    TrustedRoots::none().with_pem(include_bytes!("certificates/authority.pem")).unwrap()
}

pub fn sender_with(policy: EgressPolicy, resolver: Arc<dyn Resolve>) -> (Sender, Arc<ArcSwap<EgressPolicy>>) {
    let policy = Arc::new(ArcSwap::from_pointee(policy));
    (Sender::new(policy.clone(), resolver, authority()).unwrap(), policy)
}

pub fn sender() -> Sender {
    sender_with(development(), Arc::new(AlwaysHere)).0
}

pub const SECRET: [u8; 32] = *b"0123456789abcdef0123456789abcdef";

pub fn now() -> Timestamp {
    "2026-11-22T10:30:05.9Z".parse().unwrap()
}

pub fn subscription(url: &str) -> Subscription {
    Subscription {
        id: SubscriptionId(12),
        company: CompanyId(7),
        wishes: Wishes {
            name: "broker portal".to_owned(),
            url: url.to_owned(),
            types: vec!["*".to_owned()],
            filter: TypeFilter::default(),
            profile: Profile::Standard,
            overrides: Overrides { timeout_ms: Some(5_000), ..Overrides::default() },
            auth: Auth::None,
            headers: Vec::new(),
            ordering: DeliveryOrdering::Parallel,
            ordering_key: None,
            max_in_flight: 16,
            rate_per_minute: 0,
        },
        secret: Secret(SECRET),
        previous: None,
        consent: None,
        resumes: 0,
        standing: Standing::Active,
        health: Health::default(),
        created: now(),
    }
}

/// What the webhooks of the tests' company tell of it; its key is made once, as that takes long.
pub fn origin() -> Origin {
    static KEY: LazyLock<Arc<RsaKey>> = LazyLock::new(|| Arc::new(RsaKey::generate().unwrap()));
    Origin {
        public_url: "https://events.insurer.example:8443/lutine".into(),
        slug: "acme".to_owned(),
        notification_key: NotificationKey::derive(&[7; 32], CompanyId(7)),
        catalog: Arc::new(Catalog::load(None, false, lutine::catalog::Validation::Off).unwrap()),
        rsa: Some(KEY.clone()),
    }
}

pub fn target_of(subscription: &Subscription) -> Target {
    Target::new(subscription, origin()).unwrap()
}

pub fn target(url: &str) -> Target {
    target_of(&subscription(url))
}

/// A target whose attempts end soon.
pub fn hurried(url: &str, timeout_ms: u64) -> Target {
    let mut subscription = subscription(url);
    subscription.wishes.overrides.timeout_ms = Some(timeout_ms);
    target_of(&subscription)
}

pub fn event_with(payload: &str, metadata: &str, version: &str) -> OutgoingEvent {
    let created = "2026-11-22T10:30:00.123456Z";
    let mut envelope = format!(r#"{{"id":1042,"companyId":7,"type":"Claim.created","createdUtc":"{created}","payload":""#).into_bytes();
    let payload_start = envelope.len();
    escape_into(&mut envelope, payload);
    let payload_length = envelope.len() - payload_start;
    envelope.extend_from_slice(br#"","metadata":""#);
    escape_into(&mut envelope, metadata);
    envelope.extend_from_slice(br#""}"#);
    OutgoingEvent {
        run: 0,
        id: EventId(1042),
        company: CompanyId(7),
        created: created.parse().unwrap(),
        occurred: None,
        kind: "Claim.created".to_owned(),
        version: version.to_owned(),
        envelope: Bytes::from(envelope),
        payload_start,
        payload_length,
        references: Bytes::new(),
    }
}

pub fn event() -> OutgoingEvent {
    event_with(r#"{"claim":"c-1","note":"say \"yes\"\n"}"#, "{}", "1")
}

pub async fn send(sender: &Sender, target: &Target) -> Report {
    sender.send(target, &event(), 1, now()).await
}
