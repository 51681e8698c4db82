//! Who is not let in, what is not there, and what a query may not say, each answer as text.

use std::time::Duration;

use serde_json::json;

use crate::support::daemon::TestDaemon;
use crate::support::http::{Request, problem};

const EVENTS: &str = "/api/v1/events";

#[test]
fn a_call_without_a_key_is_told_where_to_put_it() {
    let daemon = TestDaemon::start();
    let detail = "send an API key in `X-Api-Key`, or an API key or an access token in `Authorization` as a bearer token";
    let mut nobody = daemon.client("");
    for request in [
        Request::get(EVENTS),
        Request::get(EVENTS).header("Authorization", "Basic YTpi"),
        Request::get(EVENTS).header("Authorization", "evk"),
    ] {
        let refused = nobody.send(&request).expect(401);
        assert_eq!(refused.problem(), problem("401 Unauthorized", "unauthorized", EVENTS, detail, ""));
        assert_eq!(refused.header("www-authenticate"), Some("Bearer realm=\"lutine\""));
    }
}

#[test]
fn a_wrong_key_is_refused_whatever_is_wrong_with_it() {
    let daemon = TestDaemon::start();
    let acme = daemon.acme();
    let other = TestDaemon::start();
    let stranger = other.acme();
    let mut tampered = acme.key().to_owned();
    tampered.replace_range(30..31, if tampered.as_bytes()[30] == b'x' { "y" } else { "x" });
    for (key, detail) in [
        ("nonsense", "the key is not well-formed; check that it was copied whole"),
        (tampered.as_str(), "the key is not well-formed; check that it was copied whole"),
        (&acme.key()[..acme.key().len() - 1], "the key is not well-formed; check that it was copied whole"),
        (stranger.key(), "the key is not known here"),
    ] {
        let refused = daemon.client(key).get(EVENTS).expect(401);
        assert_eq!(refused.problem(), problem("401 Unauthorized", "invalid_key", EVENTS, detail, ""));
        assert_eq!(refused.header("www-authenticate"), Some("Bearer realm=\"lutine\""));
    }
}

#[test]
fn a_key_works_in_both_headers_but_not_in_two_at_once() {
    let daemon = TestDaemon::start();
    let key = daemon.acme().key().to_owned();
    let mut nobody = daemon.client("");
    for (name, value) in
        [("X-Api-Key", key.clone()), ("Authorization", format!("Bearer {key}")), ("authorization", format!("bearer  {key} "))]
    {
        nobody.send(&Request::get(EVENTS).header(name, &value)).expect(200);
    }
    let detail = "send one API key or access token, in `X-Api-Key` or in `Authorization`, and only once";
    let bearer = format!("Bearer {key}");
    for (one, other) in [
        (("X-Api-Key", &key), ("Authorization", &bearer)),
        (("X-Api-Key", &key), ("X-Api-Key", &key)),
        (("Authorization", &bearer), ("Authorization", &bearer)),
    ] {
        let refused = nobody.send(&Request::get(EVENTS).header(one.0, one.1).header(other.0, other.1)).expect(400);
        assert_eq!(refused.problem(), problem("400 Bad Request", "ambiguous_credentials", EVENTS, detail, ""));
    }
}

#[test]
fn a_revoked_key_is_refused_from_the_next_request_on() {
    let daemon = TestDaemon::start();
    daemon.company("acme");
    let made = daemon.key_of(&json!({"company": "acme", "scopes": ["events:read"]}));
    let mut acme = daemon.client(made["key"].as_str().unwrap());
    acme.get(EVENTS).expect(200);
    let path = format!("/api/v1/admin/keys/{}", made["id"].as_str().unwrap());
    let revoked = daemon.local().send(&Request::new("DELETE", &path)).expect(204);
    assert_eq!(revoked.text(), "");
    let refused = acme.get(EVENTS).expect(401);
    assert_eq!(refused.problem(), problem("401 Unauthorized", "key_revoked", EVENTS, "the key was revoked", ""));
}

#[test]
fn a_key_expires_by_the_clock() {
    let daemon = TestDaemon::start();
    daemon.company("acme");
    let made = daemon.key_of(&json!({"company": "acme", "scopes": ["events:read"], "expires": "2026-11-22T10:31:00.123456Z"}));
    let mut acme = daemon.client(made["key"].as_str().unwrap());
    daemon.clock.advance(Duration::from_micros(59_999_999));
    acme.get(EVENTS).expect(200);
    daemon.clock.advance(Duration::from_micros(1));
    let refused = acme.get(EVENTS).expect(401);
    assert_eq!(refused.problem(), problem("401 Unauthorized", "key_expired", EVENTS, "the key has expired", ""));
}

#[test]
fn a_missing_scope_is_named() {
    let daemon = TestDaemon::start();
    daemon.company("acme");
    let mut reader = daemon.client(&daemon.key("acme", &["events:read"]));
    let refused = reader.post(EVENTS, r#"{"type":"a"}"#).expect(403);
    let detail = "this key lacks the scope `events:write`";
    assert_eq!(refused.problem(), problem("403 Forbidden", "insufficient_scope", EVENTS, detail, r#","scope":"events:write""#));
    assert!(reader.ids("").is_empty());
}

#[test]
fn a_key_is_refused_outside_its_networks() {
    let daemon = TestDaemon::start();
    daemon.company("acme");
    let key = |networks: &[&str]| {
        let made = daemon.key_of(&json!({"company": "acme", "scopes": ["events:read"], "networks": networks}));
        made["key"].as_str().unwrap().to_owned()
    };
    let refused = daemon.client(&key(&["10.0.0.0/8", "::1"])).get(EVENTS).expect(403);
    let detail = "this key may not be used from this address";
    assert_eq!(refused.problem(), problem("403 Forbidden", "network_not_allowed", EVENTS, detail, ""));
    daemon.client(&key(&["10.0.0.0/8", "127.0.0.1"])).get(EVENTS).expect(200);
    // Without a proxy in front, what a caller says of itself counts for nothing.
    let request = Request::get(EVENTS).header("X-Forwarded-For", "10.1.1.1");
    daemon.client(&key(&["10.0.0.0/8"])).send(&request).expect(403);
}

#[test]
fn behind_a_proxy_the_last_address_it_names_counts() {
    let daemon = TestDaemon::with(|config| config.server.behind_proxy = true);
    daemon.company("acme");
    let made = daemon.key_of(&json!({"company": "acme", "scopes": ["events:read"], "networks": ["10.0.0.0/8"]}));
    let mut acme = daemon.client(made["key"].as_str().unwrap());
    let mut from = |list: &str| acme.send(&Request::get(EVENTS).header("X-Forwarded-For", list)).status;
    assert_eq!(from("10.1.1.1"), 200);
    assert_eq!(from("192.0.2.1, 10.1.1.1"), 200);
    assert_eq!(from("10.1.1.1, 192.0.2.1"), 403);
    assert_eq!(from("nonsense"), 403);
}

#[test]
fn a_key_publishes_only_types_with_its_prefixes() {
    let daemon = TestDaemon::start();
    daemon.company("acme");
    let made = daemon.key_of(&json!({"company": "acme", "scopes": ["events:write"], "typePrefixes": ["Claim."]}));
    let mut acme = daemon.client(made["key"].as_str().unwrap());
    acme.publish(r#"{"type":"CLAIM.x"}"#);
    let refused = acme.post(EVENTS, r#"{"type":"policy.bound"}"#).expect(403);
    assert_eq!(refused.json()["code"], "type_not_allowed");
    let batch = acme.post("/api/v1/events/batch", r#"[{"type":"policy.bound"},{"type":"claim.y"}]"#).expect(200).json();
    assert_eq!((&batch["results"][0]["error"]["status"], &batch["results"][1]["id"]), (&json!(403), &json!(2)));
}

#[test]
fn a_system_key_reads_nothing_of_a_company() {
    let daemon = TestDaemon::start();
    let id = daemon.acme().publish(r#"{"type":"a"}"#);
    let mut system = daemon.client(&daemon.system_key());
    let detail = "a system key administers companies and reads nothing of them; use a key of the company";
    let calls = [
        Request::get(EVENTS),
        Request::get(&format!("{EVENTS}/{id}")),
        Request::get("/api/v1/events/sample?type=claim.created"),
        Request::post(EVENTS, r#"{"type":"a"}"#),
        Request::post("/api/v1/events/batch", r#"[{"type":"a"}]"#),
        Request::post("/api/v1/events/test", r#"{"type":"a"}"#),
    ];
    for call in calls {
        let refused = system.send(&call).expect(403);
        let problem = refused.problem();
        assert!(problem.contains(r#""code":"system_key""#) && problem.contains(detail), "{problem}");
    }
}

#[test]
fn an_unknown_an_expired_and_anothers_event_are_the_same_404() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    daemon.company("bolt");
    let mut bolt = daemon.client(&daemon.key("bolt", &["events:read"]));
    let id = acme.publish(r#"{"type":"a"}"#);
    let expected = |path: &str| problem("404 Not Found", "not_found", path, "there is no such event", "");
    let theirs = format!("{EVENTS}/{id}");
    assert_eq!(bolt.get(&theirs).expect(404).problem(), expected(&theirs));
    for unknown in ["/api/v1/events/0", "/api/v1/events/999", "/api/v1/events/9007199254740993", "/api/v1/events/99999999999999999999999"] {
        assert_eq!(acme.get(unknown).expect(404).problem(), expected(unknown));
    }
    daemon.clock.advance(Duration::from_secs(14 * 86_400 + 1));
    assert_eq!(acme.get(&theirs).expect(404).problem(), expected(&theirs));
}

#[test]
fn an_id_that_is_no_whole_number_is_refused() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    for id in ["x", "1.0", "-1", "+1", "1e3", "%31", "_1", "0x1"] {
        let path = format!("{EVENTS}/{id}");
        let refused = acme.get(&path).expect(400);
        assert_eq!(refused.problem(), problem("400 Bad Request", "invalid_id", &path, "an event's id is a whole number", ""));
    }
}

const CONSUMER: &str = "the parameter `consumer` is wrong: a cursor's name is 1 to 64 characters of A-Z, a-z, 0-9, '.', '_' and '-', and starts with a letter or a digit";

#[test]
fn a_parameter_that_is_wrong_is_named() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let limit = "the parameter `limit` must be a whole number from 1 to 200";
    let wait = "the parameter `wait` must be a whole number from 0 to 30";
    let order = "the parameter `order` must be `asc` or `desc`";
    let from = "the parameter `from` is wrong: it is `oldest`, `latest` or an RFC 3339 date-time such as 2026-11-22T10:30:00Z";
    let types = "the parameter `types` is wrong: `a*` is neither a type (claim.created), a type with a version (claim.created@2), nor a prefix (claim.*)";
    let many = format!("types={}", (0..101).map(|number| format!("t{number}")).collect::<Vec<_>>().join(","));
    let cases = [
        ("limit=0", "invalid_parameter", limit),
        ("limit=201", "invalid_parameter", limit),
        ("limit=", "invalid_parameter", limit),
        ("limit=%2B5", "invalid_parameter", limit),
        ("limit=99999999999999999999", "invalid_parameter", limit),
        ("wait=31", "invalid_parameter", wait),
        ("wait=-1", "invalid_parameter", wait),
        ("wait=1.5", "invalid_parameter", wait),
        ("order=ASC", "invalid_parameter", order),
        ("order=", "invalid_parameter", order),
        ("from=now", "invalid_parameter", from),
        ("from=2026-11-22", "invalid_parameter", from),
        ("types=a*", "invalid_parameter", types),
        (&many, "invalid_parameter", "the parameter `types` is wrong: a filter has at most 100 types"),
        ("limt=5", "unknown_parameter", "there is no parameter `limt` here; did you mean `limit`?"),
        ("Limit=5", "unknown_parameter", "there is no parameter `Limit` here; did you mean `limit`?"),
        ("consumers=a", "unknown_parameter", "there is no parameter `consumers` here; did you mean `consumer`?"),
        ("consumer=", "invalid_parameter", CONSUMER),
        ("consumer=a/b", "invalid_parameter", CONSUMER),
        ("consumer=a&from=oldest", "invalid_parameter", "the parameters `cursor`, `consumer` and `from` exclude each other"),
        ("consumer=a&cursor=AA", "invalid_parameter", "the parameters `cursor`, `consumer` and `from` exclude each other"),
        ("order=desc&consumer=a", "invalid_parameter", "the parameter `consumer` goes with `order=asc` only"),
        ("limit=5&limit=5", "repeated_parameter", "the parameter `limit` is there twice"),
        ("cursor=a&cursor=b", "repeated_parameter", "the parameter `cursor` is there twice"),
        ("types=a&types=b", "repeated_parameter", "the parameter `types` is there twice"),
        ("from=oldest&from=oldest", "repeated_parameter", "the parameter `from` is there twice"),
        ("order=asc&order=asc", "repeated_parameter", "the parameter `order` is there twice"),
        ("wait=0&%77ait=0", "repeated_parameter", "the parameter `wait` is there twice"),
        ("from=oldest&cursor=AA", "invalid_parameter", "the parameters `cursor`, `consumer` and `from` exclude each other"),
        ("order=desc&wait=1", "invalid_parameter", "the parameter `wait` goes with `order=asc` only"),
        ("cursor=AA", "invalid_cursor", "the cursor is not one that this server made"),
        ("cursor=", "invalid_cursor", "the cursor is not one that this server made"),
    ];
    for (query, code, detail) in cases {
        let refused = acme.get(&format!("{EVENTS}?{query}")).expect(400);
        assert_eq!(refused.problem(), problem("400 Bad Request", code, EVENTS, detail, ""), "{query}");
    }
    for query in ["limit=1", "limit=200", "wait=0", "order=asc", "order=desc", "from=latest", "from=2026-11-22T10:30:00%2B01:00"] {
        acme.get(&format!("{EVENTS}?{query}")).expect(200);
    }
}

#[test]
fn the_other_calls_refuse_unknown_parameters_too() {
    let daemon = TestDaemon::start();
    daemon.company("acme");
    let mut admin = daemon.client(&daemon.key("acme", &["admin"]));
    for path in ["/api/v1/events/1", "/api/v1/events/types", "/api/v1/events/sample", "/api/v1/admin/companies", "/api/v1/admin/keys"] {
        let refused = admin.get(&format!("{path}?x=1")).expect(400);
        assert_eq!(refused.problem(), problem("400 Bad Request", "unknown_parameter", path, "there is no parameter `x` here", ""));
    }
    for path in ["/api/v1/events", "/api/v1/events/test", "/api/v1/events/batch", "/api/v1/admin/keys"] {
        let refused = admin.post(&format!("{path}?x=1"), "{}").expect(400);
        assert_eq!(refused.problem(), problem("400 Bad Request", "unknown_parameter", path, "there is no parameter `x` here", ""));
    }
}

#[test]
fn a_sample_is_asked_for_by_type_and_count() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let path = "/api/v1/events/sample";
    let count = "the parameter `count` must be a whole number from 1 to 3";
    for (query, code, detail) in [
        ("", "missing_parameter", "the parameter `type` is missing"),
        ("?type=claim.craeted", "unknown_type", "the type `claim.craeted` is not in the catalogue; did you mean `claim.created`?"),
        ("?type=claim.created&count=0", "invalid_parameter", count),
        ("?type=claim.created&count=4", "invalid_parameter", count),
    ] {
        let refused = acme.get(&format!("{path}{query}")).expect(400);
        assert_eq!(refused.problem(), problem("400 Bad Request", code, path, detail, ""));
    }
    let samples = acme.get(&format!("{path}?type=CLAIM.created&count=3")).expect(200).json();
    let ids: Vec<u64> = samples.as_array().unwrap().iter().map(|sample| sample["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, [1_000_000, 1_000_001, 1_000_002]);
    let times: Vec<&str> = samples.as_array().unwrap().iter().map(|sample| sample["createdUtc"].as_str().unwrap()).collect();
    assert!(times[0] < times[1] && times[1] < times[2], "{times:?}");
    for sample in samples.as_array().unwrap() {
        assert_eq!((sample["type"].as_str(), sample["companyId"].as_u64()), (Some("claim.created"), Some(1)));
        serde_json::from_str::<serde_json::Value>(sample["payload"].as_str().unwrap()).unwrap();
    }
    assert_eq!(acme.get(&format!("{path}?type=claim.created")).expect(200).json().as_array().unwrap().len(), 1);
}

#[test]
fn the_types_of_the_catalogue_are_listed() {
    let daemon = TestDaemon::start();
    let types = daemon.acme().get("/api/v1/events/types").expect(200).json();
    let types = types["event_types"].as_array().unwrap();
    let created = types.iter().find(|entry| entry["name"] == "claim.created").unwrap();
    assert_eq!((created["label"].as_str(), created["description"].is_string()), (Some("Claim created"), true));
    assert!(types.len() >= 60);
}

#[test]
fn a_wrong_method_is_refused_with_those_that_are_right() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let detail = "this path does not know the method; `Allow` lists those it does";
    let cases = [
        ("DELETE", "/api/v1/events", vec!["GET", "HEAD", "POST"]),
        ("POST", "/api/v1/events/1", vec!["GET", "HEAD"]),
        ("PUT", "/api/v1/events/batch", vec!["POST"]),
        ("GET", "/api/v1/events/batch", vec!["POST"]),
        ("GET", "/api/v1/events/test", vec!["POST"]),
        ("PATCH", "/api/v1/admin/keys", vec!["GET", "HEAD", "POST"]),
        ("GET", "/api/v1/admin/keys/abc", vec!["DELETE"]),
        ("POST", "/healthz", vec!["GET", "HEAD"]),
        ("TRACE", "/api/v1/events", vec!["GET", "HEAD", "POST"]),
    ];
    for (method, path, allowed) in cases {
        let refused = acme.send(&Request::new(method, path)).expect(405);
        assert_eq!(refused.problem(), problem("405 Method Not Allowed", "method_not_allowed", path, detail, ""));
        let mut told: Vec<&str> = refused.header("allow").expect("Allow").split(',').map(str::trim).collect();
        told.sort_unstable();
        assert_eq!(told, allowed, "{method} {path}");
    }
}

#[test]
fn nothing_lies_at_an_unknown_path() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    for path in [
        "/",
        "/api",
        "/api/v1",
        "/api/v1/",
        "/api/v1/event",
        "/api/v1/events/",
        "/api/v1/events/1/x",
        "/API/v1/events",
        "/api/v1//events",
        "/api/v1/events/../admin/keys",
    ] {
        let refused = acme.get(path).expect(404);
        assert_eq!(refused.problem(), problem("404 Not Found", "not_found", path, "there is nothing at this path", ""));
    }
}

#[test]
fn every_answer_has_a_request_id_and_the_callers_is_kept() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let longest = "~".repeat(128);
    for id in ["a", "req-7!\"#", longest.as_str()] {
        for path in [EVENTS, "/api/v1/events/7", "/nowhere", "/healthz", "/api/v1/admin/keys"] {
            let answer = acme.send(&Request::get(path).header("X-Request-Id", id));
            assert_eq!(answer.header("x-request-id"), Some(id));
        }
    }
}

#[test]
fn a_request_id_that_cannot_be_kept_is_replaced() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let mut seen = std::collections::HashSet::new();
    for id in ["", "a b", "é", "a\tb", &"a".repeat(129)] {
        let answer = acme.send(&Request::get(EVENTS).header("X-Request-Id", id)).expect(200);
        let ours = answer.header("x-request-id").unwrap().to_owned();
        assert!(ours != id && !ours.is_empty() && ours.bytes().all(|byte| byte.is_ascii_graphic()), "{ours}");
        assert!(seen.insert(ours));
    }
}

#[test]
fn a_head_request_gets_the_head_of_the_answer() {
    let daemon = TestDaemon::start();
    let key = daemon.acme().key().to_owned();
    let mut connection = crate::support::http::Connection::open(daemon.address());
    connection.send(format!("HEAD {EVENTS} HTTP/1.1\r\nHost: a\r\nX-Api-Key: {key}\r\nConnection: close\r\n\r\n").as_bytes());
    let text = String::from_utf8(connection.rest()).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\n"), "{text}");
    assert_eq!(text.matches("\r\n\r\n").count(), 1);
}

#[test]
fn a_refusal_reaches_a_caller_who_is_still_sending() {
    let daemon = TestDaemon::start();
    daemon.company("acme");
    let reader = daemon.key("acme", &["events:read"]);
    let body = " ".repeat(4_000_000);
    for (path, key, status) in
        [(EVENTS, "", 401), (EVENTS, "nonsense", 401), (EVENTS, reader.as_str(), 403), ("/nowhere", "", 404), ("/healthz", "", 405)]
    {
        for _ in 0..20 {
            daemon.client(key).post(path, body.clone()).expect(status);
        }
    }
}
