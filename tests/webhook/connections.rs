//! Connections that are used again, and those that must not be.

use std::sync::Arc;

use lutine::domain::retry::{ErrorClass, Exchange};
use tokio::sync::Notify;

use crate::support::*;

const DELIVERED: Exchange = Exchange::Answered { status: 204, not_before: None };

fn of_connections(receiver: &Receiver) -> Vec<usize> {
    receiver.requests().iter().map(|request| request.connection).collect()
}

#[tokio::test]
async fn webhooks_of_one_target_share_a_connection() {
    let receiver = Receiver::answers(OK).await;
    let (sender, target) = (sender(), target(&receiver.url()));
    for _ in 0..20 {
        assert_eq!(send(&sender, &target).await.exchange, DELIVERED);
    }
    assert_eq!(of_connections(&receiver), [0; 20]);
}

#[tokio::test]
async fn no_other_target_gets_the_connection_of_one() {
    let receiver = Receiver::answers(OK).await;
    let sender = sender();
    let (first, second) = (target(&receiver.url()), target(&receiver.url()));
    for target in [&first, &second, &first, &second] {
        assert_eq!(send(&sender, target).await.exchange, DELIVERED);
    }
    assert_eq!(of_connections(&receiver), [0, 1, 0, 1]);
}

#[tokio::test]
async fn dropping_a_target_closes_its_connections() {
    let receiver = Receiver::follows(vec![vec![Step::Read, write(OK), Step::Hang]]).await;
    let target = target(&receiver.url());
    send(&sender(), &target).await;
    let port = format!(":{:04X}", receiver.address.port());
    // State 01 is ESTABLISHED (proc_net_tcp).
    let is_established = || {
        let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let mut fields = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        fields.any(|fields| fields[2].ends_with(&port) && fields[3] == "01")
    };
    assert!(is_established());
    drop(target);
    assert!(!is_established());
}

#[tokio::test]
async fn a_connection_that_the_receiver_closed_while_idle_is_not_used_again() {
    let receiver = Receiver::follows(vec![vec![Step::Read, write(OK)], vec![Step::Read, write(OK), Step::Hang]]).await;
    let (sender, target) = (sender(), target(&receiver.url()));
    assert_eq!(send(&sender, &target).await.exchange, DELIVERED);
    assert_eq!(send(&sender, &target).await.exchange, DELIVERED);
    assert_eq!(of_connections(&receiver), [0, 1]);
}

#[tokio::test]
async fn a_reset_instead_of_a_second_answer_costs_no_attempt() {
    let scripts = vec![
        vec![Step::Read, write(OK), Step::ReadBytes(1), Step::Reset],
        vec![Step::Read, write(OK), Step::Read, Step::Reset],
        vec![Step::Read, write(OK), Step::Hang],
    ];
    let receiver = Receiver::follows(scripts).await;
    let (sender, target) = (sender(), target(&receiver.url()));
    for _ in 0..3 {
        let report = send(&sender, &target).await;
        assert_eq!(report.exchange, DELIVERED, "{report:?}");
    }
    assert_eq!(of_connections(&receiver), [0, 1, 1, 2]);
}

#[tokio::test]
async fn a_close_instead_of_a_second_answer_costs_no_attempt() {
    let scripts = vec![vec![Step::Read, write(OK), Step::Read], vec![Step::Read, write(OK), Step::Hang]];
    let receiver = Receiver::follows(scripts).await;
    let (sender, target) = (sender(), target(&receiver.url()));
    for _ in 0..2 {
        assert_eq!(send(&sender, &target).await.exchange, DELIVERED);
    }
    assert_eq!(of_connections(&receiver), [0, 0, 1]);
}

#[tokio::test]
async fn a_stale_connection_is_replaced_once_and_not_for_ever() {
    let scripts = vec![vec![Step::Read, write(OK), Step::Read, Step::Reset], vec![Step::Read, Step::Reset]];
    let receiver = Receiver::follows(scripts).await;
    let (sender, target) = (sender(), target(&receiver.url()));
    assert_eq!(send(&sender, &target).await.exchange, DELIVERED);
    assert_eq!(send(&sender, &target).await.exchange, Exchange::Failed(ErrorClass::Reset));
    assert_eq!(receiver.connections(), 2);
}

#[tokio::test]
async fn an_answer_that_breaks_off_on_a_used_connection_is_a_failure() {
    let scripts = vec![vec![Step::Read, write(OK), Step::Read, write("HTTP/1.1 2"), Step::Reset], vec![Step::Read, write(OK)]];
    let receiver = Receiver::follows(scripts).await;
    let (sender, target) = (sender(), target(&receiver.url()));
    assert_eq!(send(&sender, &target).await.exchange, DELIVERED);
    assert_eq!(send(&sender, &target).await.exchange, Exchange::Failed(ErrorClass::Reset));
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn an_answer_nobody_asked_for_is_not_taken_for_the_next_one() {
    let twice = [OK, OK].concat();
    let scripts = vec![
        vec![Step::Read, write(&twice), Step::Hang],
        vec![Step::Read, write("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"), Step::Hang],
    ];
    let receiver = Receiver::follows(scripts).await;
    let (sender, target) = (sender(), target(&receiver.url()));
    assert_eq!(send(&sender, &target).await.exchange, DELIVERED);
    assert_eq!(send(&sender, &target).await.exchange, Exchange::Answered { status: 500, not_before: None });
    assert_eq!(of_connections(&receiver), [0, 1]);
}

#[tokio::test]
async fn a_connection_is_not_used_again_when_the_receiver_says_so_or_its_answer_was_cut() {
    let long = [b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n".as_slice(), &[b'x'; 100_000]].concat();
    for answer in [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".as_slice(),
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        &long,
    ] {
        let receiver = Receiver::follows(vec![vec![Step::Read, write(answer), Step::Hang]]).await;
        let (sender, target) = (sender(), target(&receiver.url()));
        for _ in 0..2 {
            assert_eq!(send(&sender, &target).await.exchange, Exchange::Answered { status: 200, not_before: None });
        }
        assert_eq!(of_connections(&receiver), [0, 1]);
    }
}

#[tokio::test]
async fn another_policy_ends_the_connections_of_the_old_one() {
    let receiver = Receiver::answers(OK).await;
    let (sender, policy) = sender_with(development(), Arc::new(AlwaysHere));
    let target = target(&receiver.url());
    assert_eq!(send(&sender, &target).await.exchange, DELIVERED);
    policy.store(Arc::new(development()));
    assert_eq!(send(&sender, &target).await.exchange, DELIVERED);
    assert_eq!(of_connections(&receiver), [0, 1]);
    let mut strict = development();
    strict.allow_loopback = false;
    policy.store(Arc::new(strict));
    assert_eq!(send(&sender, &target).await.exchange, Exchange::Failed(ErrorClass::Egress));
    let mut secure = development();
    secure.allow_http = false;
    policy.store(Arc::new(secure));
    assert_eq!(send(&sender, &target).await.exchange, Exchange::Failed(ErrorClass::Egress));
    assert_eq!((receiver.connections(), receiver.requests().len()), (2, 2));
}

#[tokio::test]
async fn attempts_at_the_same_time_have_a_connection_each_and_leave_them_for_others() {
    let signal = Arc::new(Notify::new());
    let receiver =
        Receiver::follows(vec![vec![Step::Read, Step::Wait(signal.clone()), write(OK), Step::Read, write(OK), Step::Hang]]).await;
    let (sender, target) = (sender(), target(&receiver.url()));
    let together = async || tokio::join!(send(&sender, &target), send(&sender, &target), send(&sender, &target));
    let release = async {
        while receiver.requests().len() < 3 {
            tokio::task::yield_now().await;
        }
        for _ in 0..3 {
            signal.notify_one();
        }
    };
    let (reports, ()) = tokio::join!(together(), release);
    assert_eq!([reports.0.exchange, reports.1.exchange, reports.2.exchange], [DELIVERED, DELIVERED, DELIVERED]);
    let reports = together().await;
    assert_eq!([reports.0.exchange, reports.1.exchange, reports.2.exchange], [DELIVERED, DELIVERED, DELIVERED]);
    assert_eq!((receiver.connections(), receiver.requests().len()), (3, 6));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_attempts_on_several_threads_lose_nothing_to_connections_that_close_between_them() {
    // Each connection takes 64 requests and then closes.
    let receiver = Receiver::answers(OK).await;
    let (sender, target) = (sender(), Arc::new(target(&receiver.url())));
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (sender, target) = (sender.clone(), target.clone());
            tokio::spawn(async move {
                for _ in 0..200 {
                    let report = send(&sender, &target).await;
                    assert_eq!(report.exchange, DELIVERED, "{report:?}");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert!((1_600 / 64..100).contains(&receiver.connections()), "{} connections", receiver.connections());
}
