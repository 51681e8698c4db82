//! Streams of server-sent events.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::daemon::TestDaemon;
use crate::support::http::{Client, Request, problem};
use crate::support::sse::{Block, EventStream, STREAM};
use crate::support::wait_until;

const EVENTS: &str = "/api/v1/events";

fn open(daemon: &TestDaemon, key: &str, query: &str) -> EventStream {
    EventStream::open(daemon.address(), key, query, None)
}

/// The value of one of the counters of ends.
fn ended(daemon: &TestDaemon, reason: &str) -> bool {
    let text = daemon.local().get("/metrics").expect(200);
    text.text().contains(&format!("lutine_streams_ended_total{{reason=\"{reason}\"}} 1\n"))
}

#[test]
fn a_stream_brings_events_as_they_come() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    acme.publish(r#"{"type":"before"}"#);
    let mut stream = open(&daemon, acme.key(), "");
    for line in ["content-type: text/event-stream\r\n", "cache-control: no-store\r\n", "x-request-id: ", "x-ratelimit-limit: "] {
        assert!(stream.head.contains(line), "{line} is not in {}", stream.head);
    }
    stream.opening();
    let id = acme.publish("{\"type\":\"Custom.Type\",\"payload\":{\"a\":\n\"b\\nc\"}}");
    let envelope = acme.get(&format!("{EVENTS}/{id}")).expect(200).text().to_owned();
    let block = stream.next().unwrap();
    let cursor = block.id.clone().unwrap();
    let expected = Block { comment: None, id: Some(cursor.clone()), event: Some("Custom.Type".to_owned()), data: Some(envelope) };
    assert_eq!(block, expected);
    // An id is a cursor of the list.
    let next = acme.publish(r#"{"type":"after"}"#);
    assert_eq!(acme.ids(&format!("?cursor={cursor}")), [next]);
    assert_eq!(stream.event().number(), next);
    assert_eq!((daemon.metric("lutine_streams_open"), daemon.metric("lutine_stream_events_total")), (1, 2));
    drop(stream);
    wait_until("the end of the stream", || daemon.metric("lutine_streams_open") == 0);
    assert!(ended(&daemon, "client"));
}

#[test]
fn a_client_that_is_cut_a_hundred_times_misses_nothing_and_sees_nothing_twice() {
    let daemon = TestDaemon::with(|config| {
        config.log_store.segment_bytes_max = 128 * 1024;
        config.server.http_runtimes = 2;
    });
    let key = daemon.acme().key().to_owned();
    let mut seen = Vec::new();
    let (mut last, mut chance) = (None::<String>, 7_u64);
    let mut take = |last: &mut Option<String>, blocks: Vec<Block>| {
        for block in blocks {
            // As a browser does it: every id counts, only blocks with data are events.
            *last = block.id.clone().or(last.take());
            if block.data.is_some() {
                seen.push(block.number());
            }
        }
        seen.len()
    };
    let published = std::thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            let mut acme = daemon.client(&key);
            (0..1_500)
                .map(|number| acme.publish_patiently(&json!({"type": "a", "payload": "1".repeat(number % 700 + 1)}).to_string()))
                .collect::<Vec<u64>>()
        });
        for _ in 0..100 {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // All together less than what is published, so that there is always something to be cut.
            let bytes = (chance >> 33) as usize % 6_000;
            let stream = EventStream::open(daemon.address(), &key, "?from=oldest", last.as_deref());
            take(&mut last, stream.cut_after(bytes));
        }
        publisher.join().unwrap()
    });
    let mut stream = EventStream::open(daemon.address(), &key, "?from=oldest", last.as_deref());
    while take(&mut last, Vec::new()) < published.len() {
        let block = stream.next().unwrap();
        take(&mut last, vec![block]);
    }
    assert_eq!(seen, published);
}

#[test]
fn streams_far_behind_and_at_the_tail_get_everything_once_and_in_order() {
    let daemon = TestDaemon::with(|config| config.log_store.segment_bytes_max = 64 * 1024);
    let key = daemon.acme().key().to_owned();
    const EACH: usize = 100;
    for _ in 0..50 {
        daemon.client(&key).publish_patiently(&json!({"type": "a", "payload": {"x": "x".repeat(3_000)}}).to_string());
    }
    let mut far = open(&daemon, &key, "?from=oldest");
    let mut near: Vec<EventStream> = (0..20).map(|number| open(&daemon, &key, if number % 2 == 0 { "" } else { "?types=a,b" })).collect();
    let mut claims = open(&daemon, &key, "?types=claim.*");
    let mut published: Vec<(u64, String)> = std::thread::scope(|scope| {
        let publish = |publisher: usize| {
            let mut client = daemon.client(&key);
            let kind = ["a", "b", "claim.c"][publisher % 3];
            (0..EACH).map(move |_| (client.publish_patiently(&json!({"type": kind}).to_string()), kind.to_owned())).collect::<Vec<_>>()
        };
        let publishers: Vec<_> = (0..6).map(|publisher| scope.spawn(move || publish(publisher))).collect();
        publishers.into_iter().flat_map(|publisher| publisher.join().unwrap()).collect()
    });
    published.sort();
    let of = |kinds: &[&str]| published.iter().filter(|(_, kind)| kinds.contains(&kind.as_str())).map(|(id, _)| *id).collect::<Vec<_>>();
    let read = |stream: &mut EventStream, count: usize| (0..count).map(|_| stream.event().number()).collect::<Vec<_>>();
    for (number, stream) in near.iter_mut().enumerate() {
        let expected = of(if number % 2 == 0 { &["a", "b", "claim.c"] } else { &["a", "b"] });
        assert_eq!(read(stream, expected.len()), expected, "stream {number}");
    }
    assert_eq!(read(&mut claims, 2 * EACH), of(&["claim.c"]));
    let all: Vec<u64> = (1..=50).chain(of(&["a", "b", "claim.c"])).collect();
    assert_eq!(read(&mut far, all.len()), all);
}

#[test]
fn a_stream_begins_where_it_is_told_to() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let key = acme.key().to_owned();
    let mut times = Vec::new();
    for kind in ["claim.created", "policy.bound", "claim.updated", "policy.lapsed"] {
        acme.publish(json!({"type": kind}).to_string());
        times.push(acme.list("?order=desc&limit=1")[0]["createdUtc"].as_str().unwrap().to_owned());
        daemon.clock.advance(Duration::from_secs(1));
    }
    let cursor_after = |acme: &mut Client, count: usize, types: &str| {
        acme.get(&format!("{EVENTS}?limit={count}{types}")).expect(200).header("x-resume-cursor").unwrap().to_owned()
    };
    let (one, three) = (cursor_after(&mut acme, 1, ""), cursor_after(&mut acme, 3, ""));
    let claims = cursor_after(&mut acme, 1, "&types=claim.*");
    for (query, last_event_id, expected) in [
        ("?from=oldest", None, 1),
        (&*format!("?from={}", times[2]), None, 3),
        (&*format!("?cursor={one}"), None, 2),
        (&*format!("?cursor={one}"), Some(three.as_str()), 4),
        (&*format!("?cursor={one}"), Some(""), 2),
        ("?from=oldest", Some(three.as_str()), 4),
        ("", Some(one.as_str()), 2),
        (&*format!("?types=CLAIM.*&cursor={claims}"), None, 3),
    ] {
        let mut stream = EventStream::open(daemon.address(), &key, query, last_event_id);
        stream.opening();
        assert_eq!(stream.event().number(), expected, "{query} {last_event_id:?}");
    }
    let mut own = open(&daemon, &key, "?types=lutine.*");
    let mut latest = open(&daemon, &key, "?from=latest");
    let position = latest.opening();
    own.opening();
    let next = acme.publish(r#"{"type":"a"}"#);
    assert_eq!(latest.event().number(), next);
    // What the opening told is a position to go on from.
    assert_eq!(EventStream::open(daemon.address(), &key, "", Some(&position)).event().number(), next);
}

#[test]
fn what_cannot_be_streamed_is_refused_before_it_begins() {
    let daemon = TestDaemon::with(|config| config.streams.open_max = 1);
    let mut acme = daemon.acme();
    daemon.company("bolt");
    let mut bolt = daemon.client(&daemon.key("bolt", &["events:read"]));
    let strange = bolt.get(EVENTS).expect(200).header("x-resume-cursor").unwrap().to_owned();
    let detail = "the cursor belongs to another company; it works only for the list that it came from";
    for (query, code, detail, more) in [
        ("?limit=1", "unknown_parameter", "there is no parameter `limit` here", ""),
        (
            "?from=now",
            "invalid_parameter",
            "the parameter `from` is wrong: it is `oldest`, `latest` or an RFC 3339 date-time such as 2026-11-22T10:30:00Z",
            "",
        ),
        ("?from=oldest&cursor=a", "invalid_parameter", "the parameters `cursor` and `from` exclude each other", ""),
        ("?cursor=a", "invalid_cursor", "the cursor is not one that this server made", ""),
        (&format!("?cursor={strange}"), "cursor_mismatch", detail, r#","mismatch":"company""#),
    ] {
        let refused = acme.get(&format!("{STREAM}{query}")).expect(400);
        assert_eq!(refused.problem(), problem("400 Bad Request", code, STREAM, detail, more), "{query}");
    }
    let refused = acme.send(&Request::get(STREAM).header("Last-Event-ID", "nothing")).expect(400);
    assert_eq!(refused.json()["code"], "invalid_cursor");
    daemon.client(&daemon.key("acme", &["events:write"])).get(STREAM).expect(403);
    let stream = open(&daemon, acme.key(), "");
    let refused = acme.get(STREAM).expect(503);
    assert_eq!(refused.header("retry-after"), Some("10"));
    let detail = "as many streams are open as may be";
    assert_eq!(refused.problem(), problem("503 Service Unavailable", "too_many_streams", STREAM, detail, ""));
    assert_eq!(daemon.metric("lutine_streams_refused_total"), 1);
    drop(stream);
    wait_until("the end of the stream", || daemon.metric("lutine_streams_open") == 0);
    open(&daemon, acme.key(), "").opening();
}

#[test]
fn the_opening_counts_as_a_call_and_the_events_do_not() {
    let daemon = TestDaemon::start();
    daemon.company("acme");
    let key =
        daemon.key_of(&json!({"company": "acme", "scopes": ["events:read"], "rates": {"read": 2}}))["key"].as_str().unwrap().to_owned();
    let mut writer = daemon.client(&daemon.key("acme", &["events:write"]));
    let mut streams = [open(&daemon, &key, ""), open(&daemon, &key, "")];
    for _ in 0..5 {
        writer.publish(r#"{"type":"a"}"#);
    }
    for stream in &mut streams {
        assert_eq!((0..5).map(|_| stream.event().number()).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    }
    assert_eq!(daemon.client(&key).get(STREAM).expect(429).json()["code"], "rate_limited");
}

#[test]
fn a_waiting_stream_gets_comments_and_its_position_does_not_grow_old() {
    let daemon = TestDaemon::with(|config| config.streams.comment_seconds = 1);
    let mut acme = daemon.acme();
    let mut stream = open(&daemon, acme.key(), "?types=claim.*");
    let opening = stream.opening();
    let comment = Block { comment: Some("waiting".to_owned()), ..Block::default() };
    assert_eq!(stream.next(), Some(comment.clone()));
    // Nothing has happened: the client knows where it is.
    assert_eq!(stream.next(), Some(comment.clone()));
    acme.publish(r#"{"type":"policy.bound"}"#);
    let position = loop {
        let block = stream.next().unwrap();
        if block != comment {
            break block;
        }
    };
    let id = position.id.clone().unwrap();
    assert_eq!(position, Block { id: Some(id.clone()), ..Block::default() });
    assert_ne!(id, opening);
    let claim = acme.publish(r#"{"type":"claim.created"}"#);
    assert_eq!(acme.ids(&format!("?types=claim.*&cursor={id}")), [claim]);
    assert_eq!(stream.event().number(), claim);
}

#[test]
fn a_stream_ends_when_its_key_does() {
    let daemon = TestDaemon::start();
    daemon.company("acme");
    let made = daemon.key_of(&json!({"company": "acme", "scopes": ["events:read"]}));
    let expires = lutine::domain::clock::Clock::now(daemon.clock.as_ref()).after(Duration::from_secs(3_600)).to_string();
    let expiring = daemon.key_of(&json!({"company": "acme", "scopes": ["events:read"], "expires": expires}));
    let [mut revoked, mut expired] = [&made, &expiring].map(|key: &Value| open(&daemon, key["key"].as_str().unwrap(), ""));
    let mut other = open(&daemon, &daemon.key("acme", &["events:read"]), "");
    for stream in [&mut revoked, &mut expired, &mut other] {
        stream.opening();
    }
    let last = Block { comment: Some("the key was revoked or has expired".to_owned()), ..Block::default() };
    daemon.local().delete(&format!("/api/v1/admin/keys/{}", made["id"].as_str().unwrap())).expect(204);
    assert_eq!((revoked.next(), revoked.next()), (Some(last.clone()), None));
    daemon.clock.advance(Duration::from_secs(3_600));
    assert_eq!((expired.next(), expired.next()), (Some(last), None));
    daemon.client(&daemon.key("acme", &["events:write"])).publish(r#"{"type":"a"}"#);
    assert_eq!(other.event().number(), 1);
}

#[test]
fn streams_end_in_order_when_the_daemon_stops() {
    let mut daemon = TestDaemon::with(|config| config.server.http_runtimes = 2);
    let key = daemon.acme().key().to_owned();
    let mut streams: Vec<EventStream> = (0..8).map(|_| open(&daemon, &key, "")).collect();
    for stream in &mut streams {
        stream.opening();
    }
    let stopped = std::time::Instant::now();
    daemon.stop();
    assert!(stopped.elapsed() < Duration::from_secs(10));
    for mut stream in streams {
        let last = Block { comment: Some("the daemon stops; go on from the last id".to_owned()), ..Block::default() };
        assert_eq!((stream.next(), stream.next()), (Some(last), None));
    }
}

#[test]
fn a_client_that_takes_nothing_is_cut_off_and_told_so() {
    let daemon = TestDaemon::with(|config| config.streams.stalled_seconds_max = 1);
    let mut acme = daemon.acme();
    let mut stream = open(&daemon, acme.key(), "");
    let payload = "1".repeat(250_000);
    wait_until("the end of a slow stream", || {
        acme.publish_patiently(&json!({"type": "a", "payload": payload}).to_string());
        ended(&daemon, "slow") || daemon.metric("lutine_events_appended_total") > 400
    });
    assert!(ended(&daemon, "slow"));
    let sent = daemon.metric("lutine_stream_events_total");
    assert!(sent < daemon.metric("lutine_events_appended_total"), "{sent} events were sent to somebody who took none");
    // Whoever takes it after all reads whole events, and then why there are no more.
    let mut numbers = Vec::new();
    let last = loop {
        let block = stream.next().unwrap();
        match &block.data {
            Some(_) => numbers.push(block.number()),
            None => {
                if let Some(comment) = block.comment.filter(|comment| comment != "open") {
                    break comment;
                }
            }
        }
    };
    assert_eq!((last.as_str(), stream.next()), ("cut off: too slow; go on from the last id", None));
    assert_eq!(numbers, (1..=sent).collect::<Vec<u64>>());
}

#[test]
fn a_stream_that_retention_overtakes_is_told_what_is_left() {
    let daemon = TestDaemon::with(|config| config.retention.days = 5.0 / 86_400.0);
    let mut acme = daemon.acme();
    let key = acme.key().to_owned();
    let payload = "1".repeat(250_000);
    for _ in 0..80 {
        acme.publish_patiently(&json!({"type": "a", "payload": payload}).to_string());
    }
    let old = acme.get(&format!("{EVENTS}?limit=1")).expect(200).header("x-resume-cursor").unwrap().to_owned();
    let mut stream = open(&daemon, &key, "?from=oldest");
    stream.opening();
    assert_eq!(stream.event().number(), 1);
    daemon.clock.advance(Duration::from_secs(6));
    let fresh = acme.publish(r#"{"type":"a"}"#);
    let mut expected = 2;
    let last = loop {
        let block = stream.next().unwrap();
        match &block.data {
            Some(_) => assert_eq!(block.number(), expected),
            None => break block.comment.unwrap(),
        }
        expected += 1;
    };
    let start = "events behind this stream have been removed by retention; what is kept begins at cursor ";
    let oldest = last.strip_prefix(start).unwrap_or_else(|| panic!("{last}"));
    assert_eq!(stream.next(), None);
    assert_eq!(EventStream::open(daemon.address(), &key, "", Some(oldest)).event().number(), fresh);
    let gone = acme.get(&format!("{STREAM}?cursor={old}")).expect(410).json();
    assert_eq!((gone["code"].as_str(), gone["reason"].as_str()), (Some("cursor_expired"), Some("retention")));
    assert!(gone["oldestCursor"].is_string() && gone["lostSeconds"].is_number(), "{gone}");
}
