//! Rate limits: what every answer says of them, and what happens beyond them.

use std::time::Duration;

use serde_json::json;

use crate::support::daemon::{ALL_EVENTS, TestDaemon};
use crate::support::http::{Answer, Client, Request, problem};

const EVENTS: &str = "/api/v1/events";
const BATCH: &str = "/api/v1/events/batch";
/// The minute after the one in which every test begins.
const NEXT_MINUTE: &str = "1795343460";

fn limited() -> TestDaemon {
    TestDaemon::with(|config| {
        config.rate_limits.read_per_minute = 3;
        config.rate_limits.write_per_minute = 10;
        config.rate_limits.admin_per_minute = 2;
    })
}

/// Limit, what is left, the next window, its length and the policy, as an answer tells them.
fn standing(answer: &Answer) -> [&str; 5] {
    ["limit", "remaining", "reset", "window", "policy"].map(|name| {
        let name = format!("x-ratelimit-{name}");
        answer.header(&name).unwrap_or_else(|| panic!("{name} in {answer:?}"))
    })
}

fn read_standing(remaining: &str) -> [&str; 5] {
    ["3", remaining, NEXT_MINUTE, "60", "\"read\";q=3;w=60"]
}

#[test]
fn calls_count_down_and_the_one_too_many_is_refused_until_the_next_minute() {
    let daemon = limited();
    let mut acme = daemon.acme();
    for remaining in ["2", "1", "0"] {
        assert_eq!(standing(&acme.get(EVENTS).expect(200)), read_standing(remaining));
    }
    let refused = acme.get(EVENTS).expect(429);
    let detail = "this key made its 3 calls of the bucket `read` in this minute; go on in 60 s";
    assert_eq!(refused.problem(), problem("429 Too Many Requests", "rate_limited", EVENTS, detail, ""));
    assert_eq!(refused.header("retry-after"), Some("60"));
    assert_eq!(standing(&refused), read_standing("0"));
    daemon.clock.advance(Duration::from_secs(59));
    assert_eq!(acme.get(EVENTS).expect(429).header("retry-after"), Some("1"));
    daemon.clock.advance(Duration::from_secs(1));
    assert_eq!(standing(&acme.get(EVENTS).expect(200))[1..3], ["2", "1795343520"]);
}

#[test]
fn every_answer_of_a_counted_call_tells_how_its_bucket_stands() {
    let daemon = TestDaemon::with(|config| config.rate_limits.read_per_minute = 100);
    let mut acme = daemon.acme();
    let made = daemon.key_of(&json!({"company": "acme", "scopes": ["events:read"], "networks": ["10.0.0.0/8"]}));
    let elsewhere = made["key"].as_str().unwrap();
    acme.publish(r#"{"type":"a","dedupeKey":"k"}"#);
    let read = |remaining: &'static str| ["100", remaining, NEXT_MINUTE, "60", "\"read\";q=100;w=60"];
    let write = ["0", "0", NEXT_MINUTE, "60", "\"write\";q=0;w=60"];
    let admin = ["0", "0", NEXT_MINUTE, "60", "\"admin\";q=0;w=60"];
    let conflict = Request::post(EVENTS, r#"{"type":"b","dedupeKey":"k"}"#);
    for (request, status, expected) in [
        (Request::get(EVENTS).header("X-Api-Key", "nonsense"), 401, read("100")),
        (Request::get(EVENTS).header("X-Api-Key", elsewhere), 403, read("100")),
        (Request::get("/api/v1/events/99"), 404, read("99")),
        (Request::get("/api/v1/events/x"), 400, read("98")),
        (Request::get("/api/v1/events?limit=0"), 400, read("97")),
        (Request::post("/api/v1/events/test", "{}"), 403, write),
        (conflict, 409, write),
        (Request::post(EVENTS, r#"{"type":"a"}"#), 201, write),
        (Request::post(EVENTS, " ".repeat(524_289)), 413, write),
        (Request::new("POST", EVENTS).body("text/plain", ""), 415, write),
        (Request::get("/api/v1/admin/keys"), 403, admin),
    ] {
        let answer = acme.send(&request).expect(status);
        assert_eq!(standing(&answer), expected, "{request:?}");
    }
    let answer = daemon.client("").get(EVENTS).expect(401);
    assert_eq!(standing(&answer), read("100"));
}

#[test]
fn a_refused_caller_takes_nothing_from_the_bucket_of_the_key() {
    let daemon = limited();
    daemon.company("acme");
    let mut writer = daemon.client(&daemon.key("acme", &["events:write"]));
    for _ in 0..5 {
        assert_eq!(standing(&writer.get(EVENTS).expect(403))[1], "3");
    }
}

#[test]
fn the_buckets_are_apart_and_so_are_the_keys() {
    let daemon = limited();
    let mut acme = daemon.acme();
    let mut second = daemon.client(&daemon.key("acme", &["admin"]));
    for _ in 0..4 {
        acme.get(EVENTS);
    }
    acme.publish(r#"{"type":"a"}"#);
    assert_eq!(standing(&second.get(EVENTS).expect(200))[1], "2");
    assert_eq!(standing(&second.get("/api/v1/admin/keys").expect(200))[..2], ["2", "1"]);
    second.get("/api/v1/admin/keys").expect(200);
    second.get("/api/v1/admin/keys").expect(429);
}

#[test]
fn a_keys_own_rate_wins_and_zero_is_unlimited() {
    let daemon = limited();
    daemon.company("acme");
    let client = |rates: serde_json::Value| {
        let made = daemon.key_of(&json!({"company": "acme", "scopes": ALL_EVENTS, "rates": rates}));
        daemon.client(made["key"].as_str().unwrap())
    };
    let mut tight = client(json!({"read": 1}));
    assert_eq!(standing(&tight.get(EVENTS).expect(200)), ["1", "0", NEXT_MINUTE, "60", "\"read\";q=1;w=60"]);
    tight.get(EVENTS).expect(429);
    let mut free = client(json!({"read": 0}));
    for _ in 0..10 {
        assert_eq!(standing(&free.get(EVENTS).expect(200)), ["0", "0", NEXT_MINUTE, "60", "\"read\";q=0;w=60"]);
    }
    assert_eq!(standing(&free.post(EVENTS, r#"{"type":"a"}"#).expect(201))[0], "10");
}

fn batch(client: &mut Client, count: usize) -> Answer {
    client.post(BATCH, format!("[{}]", vec![r#"{"type":"a"}"#; count].join(",")))
}

#[test]
fn a_batch_counts_its_events() {
    let daemon = limited();
    let mut acme = daemon.acme();
    assert_eq!(standing(&batch(&mut acme, 4).expect(200))[1], "6");
    assert_eq!(standing(&batch(&mut acme, 6).expect(200))[1], "0");
    acme.post(EVENTS, r#"{"type":"a"}"#).expect(429);
}

#[test]
fn a_batch_that_does_not_fit_the_rest_of_the_minute_stores_nothing() {
    let daemon = limited();
    let mut acme = daemon.acme();
    let refused = batch(&mut acme, 11).expect(429);
    assert_eq!(refused.header("retry-after"), Some("60"));
    assert!(acme.ids("").is_empty());
    assert_eq!(standing(&batch(&mut acme, 9).expect(200))[1], "0");
}

#[test]
fn twenty_callers_at_once_share_one_bucket() {
    let daemon = TestDaemon::with(|config| config.rate_limits.read_per_minute = 7);
    let key = daemon.acme().key().to_owned();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..20).map(|_| scope.spawn(|| daemon.client(&key).get(EVENTS).status)).collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 7, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 13, "{statuses:?}");
}

#[test]
fn production_and_staging_have_limits_by_default() {
    // Read from the configuration, as a daemon outside development wants a proxy and a master key.
    for environment in ["production", "staging"] {
        let variables = [("LUTINE_ENVIRONMENT", environment), ("LUTINE_SERVER__BEHIND_PROXY", "true")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let rates = lutine::config::Config::load(None, variables, &lutine::config::Overrides::default()).unwrap().rate_limits;
        assert_eq!((rates.read_per_minute, rates.write_per_minute, rates.admin_per_minute), (6_000, 60_000, 600));
    }
}
