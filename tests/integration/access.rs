//! Every call × every kind of key: who is let in, and who is told nothing.

use serde_json::json;

use crate::support::daemon::TestDaemon;
use crate::support::http::{Answer, Request};

/// Whose call it is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum For {
    /// Keys of a company.
    Company,
    /// Keys without a company.
    System,
    /// Both.
    Both,
    /// Nobody over the network.
    Local,
    /// Everybody.
    Open,
}

/// Every call as it stands in the table of routes, the scope it wants, whose it is, a target, a body, and what it
/// answers to whom it lets in.
const CALLS: &[(&str, &str, For, &str, &str, u16)] = &[
    ("GET /api/v1/events", "events:read", For::Company, "/api/v1/events", "", 200),
    ("GET /api/v1/events/{id}", "events:read", For::Company, "/api/v1/events/1", "", 200),
    ("GET /api/v1/events/sample", "events:read", For::Company, "/api/v1/events/sample?type=claim.created", "", 200),
    ("GET /api/v1/events/types", "events:read", For::Both, "/api/v1/events/types", "", 200),
    ("POST /api/v1/events", "events:write", For::Company, "/api/v1/events", r#"{"type":"a"}"#, 201),
    ("POST /api/v1/events/test", "admin", For::Company, "/api/v1/events/test", r#"{"type":"a"}"#, 202),
    ("POST /api/v1/events/batch", "events:write", For::Company, "/api/v1/events/batch", r#"[{"type":"a"}]"#, 200),
    ("GET /api/v1/cursors", "events:read", For::Company, "/api/v1/cursors", "", 200),
    ("GET /api/v1/cursors/{name}", "events:read", For::Company, "/api/v1/cursors/nobody", "", 404),
    ("PUT /api/v1/cursors/{name}", "events:read", For::Company, "/api/v1/cursors/nobody", r#"{"cursor":"AA"}"#, 400),
    ("DELETE /api/v1/cursors/{name}", "events:read", For::Company, "/api/v1/cursors/nobody", "", 404),
    // Asked for something that it refuses, because a stream does not end.
    ("GET /api/v1/events/stream", "events:read", For::Company, "/api/v1/events/stream?cursor=AA", "", 400),
    (
        "POST /api/v1/webhooks/subscriptions",
        "subscriptions:write",
        For::Company,
        "/api/v1/webhooks/subscriptions",
        r#"{"url":"http://127.0.0.1:9/","types":["none"],"profile":"standard"}"#,
        201,
    ),
    ("GET /api/v1/webhooks/subscriptions", "subscriptions:read", For::Company, "/api/v1/webhooks/subscriptions", "", 200),
    ("GET /api/v1/webhooks/subscriptions/{id}", "subscriptions:read", For::Company, "/api/v1/webhooks/subscriptions/900", "", 404),
    ("PATCH /api/v1/webhooks/subscriptions/{id}", "subscriptions:write", For::Company, "/api/v1/webhooks/subscriptions/900", "{}", 404),
    ("DELETE /api/v1/webhooks/subscriptions/{id}", "subscriptions:write", For::Company, "/api/v1/webhooks/subscriptions/900", "", 404),
    (
        "POST /api/v1/webhooks/subscriptions/{id}/pause",
        "subscriptions:write",
        For::Company,
        "/api/v1/webhooks/subscriptions/900/pause",
        "",
        404,
    ),
    (
        "POST /api/v1/webhooks/subscriptions/{id}/resume",
        "subscriptions:write",
        For::Company,
        "/api/v1/webhooks/subscriptions/900/resume",
        "",
        404,
    ),
    (
        "POST /api/v1/webhooks/subscriptions/{id}/test",
        "subscriptions:write",
        For::Company,
        "/api/v1/webhooks/subscriptions/900/test",
        "",
        404,
    ),
    (
        "POST /api/v1/webhooks/subscriptions/{id}/verify",
        "subscriptions:write",
        For::Company,
        "/api/v1/webhooks/subscriptions/900/verify",
        "",
        404,
    ),
    (
        "POST /api/v1/webhooks/subscriptions/{id}/check",
        "subscriptions:write",
        For::Company,
        "/api/v1/webhooks/subscriptions/900/check",
        "",
        404,
    ),
    ("GET /api/v1/webhooks/public-key", "subscriptions:read", For::Company, "/api/v1/webhooks/public-key", "", 200),
    ("GET /api/v1/webhooks/consent/{token}", "", For::Open, "/api/v1/webhooks/consent/none", "", 404),
    ("POST /api/v1/webhooks/consent/{token}", "", For::Open, "/api/v1/webhooks/consent/none", "", 404),
    (
        "GET /api/v1/webhooks/subscriptions/{id}/deliveries",
        "deliveries:read",
        For::Company,
        "/api/v1/webhooks/subscriptions/900/deliveries",
        "",
        404,
    ),
    (
        "POST /api/v1/webhooks/subscriptions/{id}/rotate-secret",
        "subscriptions:write",
        For::Company,
        "/api/v1/webhooks/subscriptions/900/rotate-secret",
        "",
        404,
    ),
    (
        "POST /api/v1/webhooks/subscriptions/{id}/replay",
        "deliveries:replay",
        For::Company,
        "/api/v1/webhooks/subscriptions/900/replay",
        r#"{"ids":[1]}"#,
        404,
    ),
    (
        "POST /api/v1/webhooks/subscriptions/{id}/retry",
        "deliveries:replay",
        For::Company,
        "/api/v1/webhooks/subscriptions/900/retry",
        "",
        404,
    ),
    (
        "POST /api/v1/webhooks/subscriptions/{id}/discard",
        "deliveries:replay",
        For::Company,
        "/api/v1/webhooks/subscriptions/900/discard",
        r#"{"reason":"x"}"#,
        404,
    ),
    ("GET /api/v1/replays", "deliveries:read", For::Company, "/api/v1/replays", "", 200),
    ("GET /api/v1/replays/{id}", "deliveries:read", For::Company, "/api/v1/replays/900", "", 404),
    ("POST /api/v1/replays/{id}/cancel", "deliveries:replay", For::Company, "/api/v1/replays/900/cancel", "", 404),
    ("GET /api/v1/deliveries/{id}", "deliveries:read", For::Company, "/api/v1/deliveries/900-1", "", 404),
    ("POST /api/v1/deliveries/{id}/retry", "deliveries:replay", For::Company, "/api/v1/deliveries/900-1/retry", "", 404),
    (
        "POST /api/v1/deliveries/{id}/discard",
        "deliveries:replay",
        For::Company,
        "/api/v1/deliveries/900-1/discard",
        r#"{"reason":"a"}"#,
        404,
    ),
    ("POST /api/v1/admin/companies", "admin", For::System, "/api/v1/admin/companies", r#"{"slug":"fresh"}"#, 201),
    ("GET /api/v1/admin/companies", "admin", For::Both, "/api/v1/admin/companies", "", 200),
    ("POST /api/v1/admin/keys", "admin", For::Both, "/api/v1/admin/keys", r#"{"scopes":["admin"]}"#, 201),
    ("GET /api/v1/admin/keys", "admin", For::Both, "/api/v1/admin/keys", "", 200),
    ("DELETE /api/v1/admin/keys/{id}", "admin", For::Both, "/api/v1/admin/keys/000000000000", "", 404),
    (
        "POST /api/v1/admin/companies/{id}/clients",
        "admin",
        For::Both,
        "/api/v1/admin/companies/acme/clients",
        r#"{"scopes":["admin"]}"#,
        201,
    ),
    ("GET /api/v1/admin/companies/{id}/clients", "admin", For::Both, "/api/v1/admin/companies/acme/clients", "", 200),
    ("GET /api/v1/admin/companies/{id}/clients/{client}", "admin", For::Both, "/api/v1/admin/companies/acme/clients/none", "", 404),
    ("PATCH /api/v1/admin/companies/{id}/clients/{client}", "admin", For::Both, "/api/v1/admin/companies/acme/clients/none", "{}", 404),
    ("DELETE /api/v1/admin/companies/{id}/clients/{client}", "admin", For::Both, "/api/v1/admin/companies/acme/clients/none", "", 404),
    (
        "POST /api/v1/admin/companies/{id}/clients/{client}/rotate-secret",
        "admin",
        For::Both,
        "/api/v1/admin/companies/acme/clients/none/rotate-secret",
        "",
        404,
    ),
    (
        "POST /api/v1/admin/companies/{id}/clients/{client}/keys",
        "admin",
        For::Both,
        "/api/v1/admin/companies/acme/clients/none/keys",
        r#"{"publicKey":"MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="}"#,
        404,
    ),
    (
        "DELETE /api/v1/admin/companies/{id}/clients/{client}/keys/{key}",
        "admin",
        For::Both,
        "/api/v1/admin/companies/acme/clients/none/keys/none",
        "",
        404,
    ),
    ("GET /api/v1/admin/config", "admin", For::System, "/api/v1/admin/config", "", 200),
    (
        "GET /api/public/v2/notifications/{notificationId}/{plural}/{referenceId}",
        "events:read",
        For::Company,
        "/api/public/v2/notifications/00000000-0000-8000-8000-000000000000/contracts/b",
        "",
        404,
    ),
    ("GET /api/v1/admin/audit", "admin", For::System, "/api/v1/admin/audit", "", 200),
    ("GET /api/v1/admin/status", "admin", For::System, "/api/v1/admin/status", "", 200),
    ("POST /api/v1/admin/verify", "admin", For::Local, "/api/v1/admin/verify", "", 200),
    ("POST /api/v1/admin/egress/check", "admin", For::Local, "/api/v1/admin/egress/check", r#"{"url":"https://8.8.8.8/"}"#, 200),
    ("POST /oauth2/token", "", For::Open, "/oauth2/token", "{}", 400),
    ("POST /connect/token", "", For::Open, "/connect/token", "{}", 400),
    ("POST /v1/oauth2/token", "", For::Open, "/v1/oauth2/token", "{}", 400),
    ("POST /api/auth/v2/token", "", For::Open, "/api/auth/v2/token", "{}", 400),
    ("GET /oauth2/jwks", "", For::Open, "/oauth2/jwks", "", 200),
    ("GET /.well-known/oauth-authorization-server", "", For::Open, "/.well-known/oauth-authorization-server", "", 200),
    ("GET /healthz", "", For::Open, "/healthz", "", 200),
    ("GET /readyz", "", For::Open, "/readyz", "", 200),
    ("GET /metrics", "metrics:read", For::Both, "/metrics", "", 200),
];

const SCOPES: [&str; 9] = [
    "events",
    "events:read",
    "events:write",
    "subscriptions:read",
    "subscriptions:write",
    "deliveries:read",
    "deliveries:replay",
    "metrics:read",
    "admin",
];

fn request(call: &str, target: &str, body: &str) -> Request {
    let request = Request::new(call.split(' ').next().unwrap(), target);
    if body.is_empty() { request } else { request.body("application/json", body) }
}

fn code(answer: &Answer) -> String {
    answer.json()["code"].as_str().unwrap_or_default().to_owned()
}

fn closed() -> TestDaemon {
    TestDaemon::with(|config| config.telemetry.metrics_open = false)
}

/// The code of an open call's refusal; the token paths speak RFC 6749, which has none.
fn code_of(call: &str) -> &'static str {
    if call.contains("/consent/") { "not_found" } else { "" }
}

/// Notifications answer with a list of errors, without codes.
fn as_told<'a>(call: &str, (status, code): (u16, &'a str)) -> (u16, &'a str) {
    if call.contains("/api/public/") { (status, "") } else { (status, code) }
}

#[test]
fn the_matrix_has_every_route() {
    let table = include_str!("../../src/http/routes.rs");
    let methods = ["\"GET /", "\"POST /", "\"PUT /", "\"PATCH /", "\"DELETE /"];
    let mut routes: Vec<&str> = table
        .lines()
        .filter_map(|line| methods.iter().find_map(|method| line.find(method)).and_then(|start| line[start + 1..].split('"').next()))
        .collect();
    // The bridge refuses in words of its own; `bridge.rs` holds every one of them.
    routes.retain(|route| !route.contains("/external/"));
    let mut calls: Vec<&str> = CALLS.iter().map(|call| call.0).collect();
    routes.sort_unstable();
    calls.sort_unstable();
    assert_eq!(routes, calls);
}

#[test]
fn each_scope_of_a_company_opens_its_calls_and_no_others() {
    let daemon = closed();
    daemon.acme().publish(r#"{"type":"a"}"#);
    for scope in SCOPES {
        let mut client = daemon.client(&daemon.key("acme", &[scope]));
        for (call, wanted, whose, target, body, status) in CALLS.iter().copied() {
            let answer = client.send(&request(call, target, body));
            let has_scope = scope == wanted || scope == "admin" || wanted.is_empty();
            let expected = match whose {
                For::Local => (403, "only_local"),
                _ if !has_scope => (403, "insufficient_scope"),
                For::System => (403, "needs_system_key"),
                For::Open if status >= 400 => (status, code_of(call)),
                _ if status == 400 => (status, "invalid_cursor"),
                _ if status >= 400 => (status, "not_found"),
                _ => (status, ""),
            };
            let told = if answer.status >= 400 { code(&answer) } else { String::new() };
            assert_eq!((answer.status, told.as_str()), as_told(call, expected), "{call} with {scope}");
        }
    }
}

#[test]
fn a_system_key_administers_and_does_nothing_else() {
    let daemon = closed();
    daemon.acme().publish(r#"{"type":"a"}"#);
    let metrics_only = daemon.key_of(&json!({"scopes": ["metrics:read"]}))["key"].as_str().unwrap().to_owned();
    for (key, is_admin) in [(daemon.system_key(), true), (metrics_only, false)] {
        let mut client = daemon.client(&key);
        for (call, wanted, whose, target, body, status) in CALLS.iter().copied() {
            let answer = client.send(&request(call, target, body));
            let has_scope = is_admin || matches!(wanted, "" | "metrics:read");
            let expected = match whose {
                For::Local => (403, "only_local"),
                _ if !has_scope => (403, "insufficient_scope"),
                For::Company => (403, "system_key"),
                For::Open if status >= 400 => (status, code_of(call)),
                _ if status == 400 => (status, "invalid_cursor"),
                _ if status >= 400 => (status, "not_found"),
                _ => (status, ""),
            };
            let told = if answer.status >= 400 { code(&answer) } else { String::new() };
            assert_eq!((answer.status, told.as_str()), as_told(call, expected), "{call}");
        }
    }
}

#[test]
fn nobody_is_let_in_without_a_key() {
    let daemon = closed();
    let mut nobody = daemon.client("");
    for (call, _, whose, target, body, status) in CALLS.iter().copied() {
        let answer = nobody.send(&request(call, target, body));
        let expected = match whose {
            For::Open => status,
            For::Local => 403,
            _ => 401,
        };
        assert_eq!(answer.status, expected, "{call}");
    }
}

#[test]
fn the_local_socket_is_for_everything_and_says_for_which_company() {
    let daemon = closed();
    daemon.acme().publish(r#"{"type":"a"}"#);
    let mut local = daemon.local();
    for (call, _, whose, target, body, status) in CALLS.iter().copied() {
        let plain = local.send(&request(call, target, body));
        if whose == For::Company {
            assert_eq!((plain.status, code(&plain).as_str()), as_told(call, (400, "no_company")), "{call}");
            let unknown = local.send(&request(call, target, body).header("Lutine-Company", "nobody"));
            assert_eq!((unknown.status, code(&unknown).as_str()), as_told(call, (404, "no_such_company")), "{call}");
            for name in ["acme", "1"] {
                assert_eq!(local.send(&request(call, target, body).header("Lutine-Company", name)).status, status, "{call}");
            }
        } else {
            assert_eq!(plain.status, status, "{call}");
        }
    }
}

#[test]
fn the_company_of_a_key_cannot_be_changed_by_a_header() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    daemon.company("bolt");
    daemon.client(&daemon.key("bolt", &["events:write"])).publish(r#"{"type":"a"}"#);
    let answer = acme.send(&Request::get("/api/v1/events").header("Lutine-Company", "bolt")).expect(200);
    assert_eq!(answer.text(), r#"{"events":[]}"#);
}

#[test]
fn what_another_company_has_looks_like_what_nobody_has() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    let event = acme.publish(r#"{"type":"a"}"#);
    let victim = daemon.key_of(&json!({"company": "acme", "scopes": ["events:read"]}));
    let victim_id = victim["id"].as_str().unwrap();
    daemon.company("bolt");
    let mut bolt = daemon.client(&daemon.key("bolt", &["admin"]));
    let new_key = |company: &str| json!({"company": company, "scopes": ["events:read"]}).to_string();
    let pairs = [
        (Request::get(&format!("/api/v1/events/{event}")), Request::get("/api/v1/events/2000")),
        (Request::new("DELETE", &format!("/api/v1/admin/keys/{victim_id}")), Request::new("DELETE", "/api/v1/admin/keys/zzzzzzzzzzzz")),
        (Request::get("/api/v1/admin/keys?company=acme"), Request::get("/api/v1/admin/keys?company=nope")),
        (Request::get("/api/v1/admin/keys?company=1"), Request::get("/api/v1/admin/keys?company=9")),
        (Request::post("/api/v1/admin/keys", new_key("acme")), Request::post("/api/v1/admin/keys", new_key("nope"))),
        (Request::post("/api/v1/admin/keys", new_key("1")), Request::post("/api/v1/admin/keys", new_key("9"))),
    ];
    let strip = |answer: &Answer| {
        let text = answer.problem();
        [victim_id, "zzzzzzzzzzzz", "acme", "nope", "`1`", "`9`", "/2000", &format!("/{event}")]
            .iter()
            .fold(text, |text, name| text.replace(name, "?"))
    };
    for (theirs, unknown) in pairs {
        let (theirs, unknown) = (bolt.send(&theirs).expect(404), bolt.send(&unknown).expect(404));
        assert_eq!(strip(&theirs), strip(&unknown));
    }
    daemon.client(victim["key"].as_str().unwrap()).get("/api/v1/events").expect(200);
}
