//! Addresses that are not to be sent to, in every spelling: nothing connects.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lutine::domain::egress::EgressPolicy;
use lutine::domain::retry::{ErrorClass, Exchange};
use lutine::webhook::{SystemResolver, Target, check_url};
use tokio::net::TcpListener;

use crate::support::*;

/// A listener on all addresses of this machine that only counts.
async fn counting() -> (u16, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // Not every machine has IPv6.
    let second = TcpListener::bind((Ipv6Addr::LOCALHOST, port)).await.ok();
    for listener in [Some(listener), second].into_iter().flatten() {
        let count = count.clone();
        tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    (port, count)
}

/// Spellings of an IPv4 address that some parser of URLs takes for it.
fn spellings(address: Ipv4Addr) -> Vec<String> {
    let [a, b, c, d] = address.octets();
    let all = u32::from(address);
    let (low24, low16) = (all & 0x00ff_ffff, all & 0xffff);
    let inverted = !all;
    let (high, low) = (all >> 16, all & 0xffff);
    let wide = |text: String, zero: char| -> String {
        let digit = |one: char| one.to_digit(10).and_then(|value| char::from_u32(u32::from(zero) + value));
        text.chars().map(|one| digit(one).unwrap_or(one)).collect()
    };
    let encoded: String = address.to_string().bytes().map(|byte| format!("%{byte:02x}")).collect();
    let mut found = vec![
        format!("{a}.{b}.{c}.{d}"),
        format!("{a}.{b}.{c}.{d}."),
        format!("{all}"),
        format!("{all}."),
        format!("0x{all:x}"),
        format!("0X{all:X}"),
        format!("0x{all:08x}"),
        format!("0x00000{all:08x}"),
        format!("0{all:o}"),
        format!("00000{all:o}"),
        format!("{a}.{low24}"),
        format!("{a}.{b}.{low16}"),
        format!("0x{a:x}.{low24}"),
        format!("0x{a:x}.0x{low24:x}"),
        format!("0{a:o}.0{low24:o}"),
        format!("{a}.0x{b:x}.{low16}"),
        format!("0x{a:x}.0x{b:x}.0x{c:x}.0x{d:x}"),
        format!("0x{a:02x}.0x{b:02x}.0x{c:02x}.0x{d:02x}"),
        format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
        format!("000{a:o}.000{b:o}.000{c:o}.000{d:o}"),
        format!("0x{a:x}.0{b:o}.{c}.0x{d:x}"),
        format!("{a}.{b}.0{c:o}.0x{d:X}"),
        wide(address.to_string(), '\u{ff10}'),
        wide(address.to_string(), '\u{1d7ce}'),
        wide(address.to_string(), '\u{1d7d8}'),
        wide(address.to_string(), '\u{1d7f6}'),
        address.to_string().replace('.', "\u{3002}"),
        address.to_string().replace('.', "\u{ff0e}"),
        address.to_string().replace('.', "\u{ff61}"),
        wide(address.to_string(), '\u{ff10}').replace('.', "\u{3002}"),
        encoded,
        format!("{a}%2e{b}%2E{c}%2e{d}"),
        format!("{a}.{b}.{c}.{d}\u{ad}"),
        format!("user@{address}"),
        format!("partner.example@{address}"),
        format!("partner.example:443@{address}"),
        format!("partner.example%40@{address}"),
        format!("[::ffff:{address}]"),
        format!("[::FFFF:{high:X}:{low:X}]"),
        format!("[0:0:0:0:0:ffff:{address}]"),
        format!("[0000:0000:0000:0000:0000:ffff:{high:04x}:{low:04x}]"),
        format!("[::{address}]"),
        format!("[64:ff9b::{address}]"),
        format!("[64:ff9b::{high:x}:{low:x}]"),
        format!("[64:ff9b:1::{address}]"),
        format!("[2002:{high:x}:{low:x}::1]"),
        format!("[2001:0:4136:e378:8000:63bf:{:x}:{:x}]", inverted >> 16, inverted & 0xffff),
        format!("[::ffff:{address}%25lo]"),
    ];
    // A second listener's way in: the same address behind a name.
    found.push(format!("{address}.nip.test"));
    found
}

fn denied() -> BTreeSet<String> {
    let addresses = [
        [127, 0, 0, 1],
        [127, 8, 9, 10],
        [0, 0, 0, 0],
        [169, 254, 169, 254],
        [10, 0, 0, 1],
        [172, 31, 255, 254],
        [192, 168, 1, 1],
        [100, 100, 100, 200],
    ];
    let mut found: BTreeSet<String> = addresses.into_iter().flat_map(|octets| spellings(octets.into())).collect();
    let others = [
        "localhost",
        "LOCALHOST",
        "LocalHost",
        "localhost.",
        "localhost..",
        "a.localhost",
        "\u{ff4c}ocalhost",
        "loc%61lhost",
        "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
        "[::1]",
        "[::]",
        "[0:0:0:0:0:0:0:1]",
        "[0000::0001]",
        "[::1%25lo]",
        "[::1%lo]",
        "[fe80::1]",
        "[fe80::1%25eth0]",
        "[fec0::1]",
        "[fc00::1]",
        "[fd00:ec2::254]",
        "[ff02::1]",
        "[2001:db8::1]",
        "127.1",
        "127.0.1",
        "0",
        "0x0",
        "00",
        "0.0",
        "127.000.000.001",
        "127.0.0.1.1",
        "127.0.0.256",
        "4294967295",
        "4294967296",
        "①②⑦.⓪.⓪.①",
        "any.name.at.all",
    ];
    found.extend(others.map(str::to_owned));
    found
}

#[tokio::test]
async fn no_spelling_of_a_denied_address_leads_to_a_connection() {
    let (port, count) = counting().await;
    let policy = EgressPolicy { allow_loopback: false, ..development() };
    let (sender, _) = sender_with(policy.clone(), Arc::new(AlwaysHere));
    let hosts = denied();
    assert!(hosts.len() >= 200, "only {} spellings", hosts.len());
    let (mut decided_at_once, mut decided_at_connecting) = (0, 0);
    for host in &hosts {
        let url = format!("http://{host}:{port}/");
        let at_creation = check_url(&url, &policy);
        let mut subscription = subscription(&url);
        subscription.wishes.overrides.timeout_ms = Some(2_000);
        if let Ok(target) = Target::new(&subscription, origin()) {
            let report = send(&sender, &target).await;
            assert_eq!(report.exchange, Exchange::Failed(ErrorClass::Egress), "{url}: {report:?}");
            decided_at_connecting += 1;
        } else {
            assert!(at_creation.is_err(), "{url}");
        }
        decided_at_once += usize::from(at_creation.is_err());
    }
    assert_eq!(count.load(Ordering::SeqCst), 0);
    assert!(decided_at_connecting >= 200, "only {decided_at_connecting} spellings came as far as connecting");
    // Only names that have to be resolved pass the check of the URL.
    assert!(hosts.len() - decided_at_once <= 12, "{} passed the check of the URL", hosts.len() - decided_at_once);
}

#[tokio::test]
async fn the_listener_does_count_when_loopback_is_allowed() {
    let (port, count) = counting().await;
    let sender = sender();
    for host in ["127.0.0.1", "0x7f.1", "[::ffff:127.0.0.1]", "localhost"] {
        send(&sender, &hurried(&format!("http://{host}:{port}/"), 50)).await;
    }
    // A connection that was made is accepted sooner or later; the counting task runs on this thread.
    tokio::time::timeout(Duration::from_secs(5), async {
        while count.load(Ordering::SeqCst) < 4 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_name_that_moves_to_a_denied_address_is_refused_from_then_on() {
    // Closes after each answer, so that every attempt has to connect.
    let receiver = Receiver::follows(vec![vec![Step::Read, write(OK)]]).await;
    let names = Names::new([("moves.test", &[&["127.0.0.1"], &["169.254.169.254"], &["10.0.0.1"], &["::ffff:10.0.0.1"]])]);
    let (sender, _) = sender_with(development(), names);
    let target = target(&format!("http://moves.test:{}/", receiver.address.port()));
    assert_eq!(send(&sender, &target).await.exchange, Exchange::Answered { status: 204, not_before: None });
    for _ in 0..4 {
        assert_eq!(send(&sender, &target).await.exchange, Exchange::Failed(ErrorClass::Egress));
    }
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn a_name_is_resolved_once_for_a_connection_so_that_a_second_answer_is_never_used() {
    let (port, count) = counting().await;
    let policy = EgressPolicy { allow_loopback: false, allow_public: false, ..development() };
    let names = Names::new([("rebinds.test", &[&["8.8.8.8"], &["127.0.0.1"], &["8.8.8.8", "127.0.0.1"], &["::1"]])]);
    let (sender, _) = sender_with(policy, names.clone());
    let target = target(&format!("http://rebinds.test:{port}/"));
    for expected in ["8.8.8.8", "127.0.0.1", "8.8.8.8", "::1"] {
        let report = send(&sender, &target).await;
        assert_eq!((report.exchange, report.address), (Exchange::Failed(ErrorClass::Egress), Some(expected.parse().unwrap())));
    }
    assert_eq!(count.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn one_denied_address_among_allowed_ones_refuses_them_all() {
    let allowed = Receiver::answers(OK).await;
    let port = allowed.address.port();
    let names = Names::new([
        ("mixed.test", &[&["127.0.0.1", "169.254.169.254"]]),
        ("mixed6.test", &[&["127.0.0.1", "::1", "fe80::1"]]),
        ("last.test", &[&["127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.1", "10.0.0.1"]]),
        ("good.test", &[&["127.0.0.1"]]),
    ]);
    let (sender, _) = sender_with(development(), names);
    for name in ["mixed.test", "mixed6.test", "last.test"] {
        let report = send(&sender, &target(&format!("http://{name}:{port}/"))).await;
        assert_eq!(report.exchange, Exchange::Failed(ErrorClass::Egress), "{name}");
    }
    assert_eq!(allowed.connections(), 0);
    let report = send(&sender, &target(&format!("http://good.test:{port}/"))).await;
    assert_eq!(report.exchange, Exchange::Answered { status: 204, not_before: None });
}

#[tokio::test]
async fn a_refusal_tells_the_rule_but_not_what_a_name_resolves_to() {
    let policy = EgressPolicy { allow_loopback: false, ..development() };
    let (sender, _) = sender_with(policy, Names::new([("inside.test", &[&["10.1.2.3"]])]));
    let report = send(&sender, &target("http://inside.test/")).await;
    let error = report.error.unwrap();
    assert!(error.contains("private") && !error.contains("10.1.2.3"), "{error}");
    assert_eq!(report.address, Some("10.1.2.3".parse().unwrap()));
}

#[tokio::test]
async fn without_leave_http_is_not_spoken() {
    let receiver = Receiver::answers(OK).await;
    let (sender, _) = sender_with(EgressPolicy { allow_http: false, ..development() }, Arc::new(AlwaysHere));
    let report = send(&sender, &target(&receiver.url())).await;
    assert_eq!(report.exchange, Exchange::Failed(ErrorClass::Egress));
    assert!(report.error.unwrap().contains("egress.allow_http"));
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn public_addresses_can_be_switched_off() {
    let (sender, _) = sender_with(EgressPolicy { allow_public: false, ..development() }, Arc::new(AlwaysHere));
    for url in ["http://8.8.8.8/", "http://[2606:4700::1111]/", "https://[::ffff:8.8.8.8]/"] {
        assert_eq!(send(&sender, &target(url)).await.exchange, Exchange::Failed(ErrorClass::Egress), "{url}");
    }
}

#[tokio::test]
async fn the_answers_of_a_resolver_cannot_change_the_port() {
    #[derive(Debug)]
    struct OtherPort(SocketAddr);
    impl lutine::webhook::Resolve for OtherPort {
        fn resolve(&self, _: &str, _: u16) -> lutine::webhook::Resolving {
            let address = self.0;
            Box::pin(async move { Ok(vec![address]) })
        }
    }
    let receiver = Receiver::answers(OK).await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (sender, _) = sender_with(development(), Arc::new(OtherPort(receiver.address)));
    let report = send(&sender, &target(&format!("http://a.test:{}/", closed.port()))).await;
    assert_eq!((report.exchange, receiver.connections()), (Exchange::Failed(ErrorClass::Connect), 0));
}

#[tokio::test]
async fn what_the_system_resolves_is_decided_too() {
    let (port, count) = counting().await;
    let url = format!("http://localhost:{port}/");
    let (sender, _) = sender_with(EgressPolicy { allow_loopback: false, ..development() }, Arc::new(SystemResolver::default()));
    assert_eq!(send(&sender, &target(&url)).await.exchange, Exchange::Failed(ErrorClass::Egress));
    assert_eq!(count.load(Ordering::SeqCst), 0);
    let receiver = Receiver::answers(OK).await;
    let (sender, _) = sender_with(development(), Arc::new(SystemResolver::default()));
    let report = send(&sender, &target(&format!("http://localhost:{}/", receiver.address.port()))).await;
    assert_eq!(report.exchange, Exchange::Answered { status: 204, not_before: None });
}
