//! The token endpoints as RFC 6749 says them, and as two vendors' clients know them.

use serde_json::{Value, json};

use super::{
    ASSERTION_TYPE, ISSUER, TOKEN, basic, claims_of, client_with_secret, daemon, form, make_client, nobody, post_form, with_token,
};
use crate::support::daemon::TestDaemon;
use crate::support::http::{Answer, Request};

const GRANT: (&str, &str) = ("grant_type", "client_credentials");
const NO_CLIENT: &str = "the client or its secret is not known here";

#[track_caller]
fn refused(answer: &Answer, status: u16, error: &str, description: &str) {
    assert_eq!((answer.status, answer.json()), (status, json!({"error": error, "error_description": description})));
    assert_eq!((answer.header("cache-control"), answer.header("pragma")), (Some("no-store"), Some("no-cache")));
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

#[test]
fn a_secret_is_sent_in_the_header_or_in_the_form() {
    let daemon = daemon();
    let (id, secret) = client_with_secret(&daemon, &["events:read", "events:write"]);
    let in_form = post_form(TOKEN, &[GRANT, ("client_id", &id), ("client_secret", &secret)]);
    let in_header = post_form(TOKEN, &[GRANT]).header("Authorization", &basic(&id, &secret));
    let in_both = post_form(TOKEN, &[GRANT, ("client_id", &id)]).header("Authorization", &basic(&id, &secret));
    let encoded = id.replace('-', "%2D");
    let form_encoded = post_form(TOKEN, &[GRANT]).header("Authorization", &basic(&encoded, &secret));
    let lower = post_form(TOKEN, &[GRANT]).header("authorization", &basic(&id, &secret).replace("Basic", "basic"));
    for request in [in_form, in_header, in_both, form_encoded, lower] {
        let answer = nobody(&daemon).send(&request).expect(200);
        let token = answer.json();
        assert_eq!(
            answer.text(),
            format!(
                r#"{{"access_token":"{}","token_type":"Bearer","expires_in":3600,"scope":"events:read events:write"}}"#,
                token["access_token"].as_str().unwrap()
            )
        );
        assert_eq!((answer.header("cache-control"), answer.header("pragma")), (Some("no-store"), Some("no-cache")));
    }
}

#[test]
fn every_wrong_request_is_told_what_is_wrong() {
    let daemon = daemon();
    let (id, secret) = client_with_secret(&daemon, &["events:read"]);
    let mut nobody = nobody(&daemon);
    let mut send = |parameters: &[(&str, &str)]| nobody.send(&post_form(TOKEN, parameters));
    let own = [("client_id", id.as_str()), ("client_secret", secret.as_str())];
    let with = |more: &[(&'static str, &'static str)]| [more, &[]].concat().into_iter().chain(own).collect::<Vec<_>>();
    refused(&send(&with(&[])), 400, "invalid_request", "the parameter grant_type is missing; it must be client_credentials");
    refused(
        &send(&with(&[("grant_type", "")])),
        400,
        "invalid_request",
        "the parameter grant_type is missing; it must be client_credentials",
    );
    for other in ["password", "authorization_code", "refresh_token", "Client_Credentials"] {
        refused(&send(&with(&[("grant_type", other)])), 400, "unsupported_grant_type", "the grant_type must be client_credentials");
    }
    refused(&send(&with(&[GRANT, GRANT])), 400, "invalid_request", "the parameter grant_type is there twice");
    refused(&send(&with(&[GRANT, ("scope", "events:write")])), 400, "invalid_scope", "the client may not have the scope events:write");
    let unknown = send(&with(&[GRANT, ("scope", "events:read \"x\\")]));
    assert_eq!((unknown.status, &unknown.json()["error"]), (400, &json!("invalid_scope")));
    let description = unknown.json()["error_description"].as_str().unwrap().to_owned();
    assert!(description.contains("'x/") && description.bytes().all(|byte| matches!(byte, 0x20..=0x7e) && byte != b'"' && byte != b'\\'));
    send(&with(&[GRANT, ("scope", "events:read"), ("resource", "https://a"), ("resource", "https://b")])).expect(200);
    send(&with(&[GRANT, ("scope", "")])).expect(200);

    let anonymous = "the client does not authenticate: send a secret or an assertion";
    refused(&send(&[GRANT]), 401, "invalid_client", anonymous);
    refused(&send(&[GRANT, ("client_id", &id)]), 401, "invalid_client", anonymous);
    refused(&send(&[GRANT, ("client_secret", &secret)]), 400, "invalid_request", "the parameter client_id is missing");
    refused(&send(&[GRANT, ("client_id", &id), ("client_secret", "wrong")]), 401, "invalid_client", NO_CLIENT);
    refused(&send(&[GRANT, ("client_id", "nobody"), ("client_secret", &secret)]), 401, "invalid_client", NO_CLIENT);
    let several = "the client authenticates in more than one way; one is enough";
    refused(&send(&with(&[GRANT, ("client_assertion", "a")])), 400, "invalid_request", several);
    let wrong_type = format!("the client_assertion_type must be {ASSERTION_TYPE}");
    refused(&send(&[GRANT, ("client_assertion", "a.b.c")]), 400, "invalid_request", &wrong_type);
    refused(&send(&[GRANT, ("client_assertion", "a.b.c"), ("client_assertion_type", "saml")]), 400, "invalid_request", &wrong_type);
    refused(&send(&[GRANT, ("client_assertion_type", ASSERTION_TYPE)]), 400, "invalid_request", "the client_assertion is missing");
}

#[test]
fn whoever_uses_the_header_is_told_what_is_understood_there() {
    let daemon = daemon();
    let (id, secret) = client_with_secret(&daemon, &["events:read"]);
    let (_, of_another) = client_with_secret(&daemon, &["events:read"]);
    let mut nobody = nobody(&daemon);
    let mut send = |header: &str| nobody.send(&post_form(TOKEN, &[GRANT]).header("Authorization", header));
    let wrong_header = "the header Authorization must be Basic with the id and the secret of a client";
    for (header, description) in [
        (basic(&id, "wrong"), NO_CLIENT),
        (basic(&id, ""), NO_CLIENT),
        (basic(&id, &of_another), NO_CLIENT),
        (basic("nobody", &secret), NO_CLIENT),
        (format!("Bearer {secret}"), wrong_header),
        ("Basic".to_owned(), wrong_header),
        ("Basic !!!".to_owned(), wrong_header),
        ("Basic bm9jb2xvbg==".to_owned(), wrong_header),
        ("Basic /////w==".to_owned(), wrong_header),
    ] {
        let answer = send(&header);
        refused(&answer, 401, "invalid_client", description);
        assert_eq!(answer.header("www-authenticate"), Some("Basic realm=\"lutine\""), "{header}");
    }
    let twice = post_form(TOKEN, &[GRANT]).header("Authorization", &basic(&id, &secret)).header("Authorization", &basic(&id, &secret));
    refused(&nobody.send(&twice), 400, "invalid_request", "the header Authorization is there twice");
    let other = post_form(TOKEN, &[GRANT, ("client_id", "other")]).header("Authorization", &basic(&id, &secret));
    refused(&nobody.send(&other), 401, "invalid_client", "the parameter client_id names another client");
}

#[test]
fn a_body_that_is_no_form_or_too_large_is_refused() {
    let daemon = daemon();
    let (id, secret) = client_with_secret(&daemon, &["events:read"]);
    let parameters = form(&[GRANT, ("client_id", &id), ("client_secret", &secret)]);
    let mut nobody = nobody(&daemon);
    let json = Request::post(TOKEN, r#"{"grant_type":"client_credentials"}"#);
    refused(&nobody.send(&json), 400, "invalid_request", "the content type must be application/x-www-form-urlencoded");
    let charset = Request::new("POST", TOKEN).body("application/x-www-form-urlencoded; charset=UTF-8", parameters.clone());
    nobody.send(&charset).expect(200);
    let large = Request::new("POST", TOKEN).body("application/x-www-form-urlencoded", format!("{parameters}&x={}", "x".repeat(40_000)));
    let answer = nobody.send(&large);
    refused(&answer, 413, "invalid_request", "the body has more than 32768 bytes");
    assert_eq!(answer.header("connection"), Some("close"));
    let not_text = Request::new("POST", TOKEN).body("application/x-www-form-urlencoded", b"grant_type=\xff\xfe&%zz=%".to_vec());
    assert_eq!(super::nobody(&daemon).send(&not_text).status, 400);
    super::nobody(&daemon).get(TOKEN).expect(405);
}

#[test]
fn one_vendors_clients_send_no_form_and_expect_a_400() {
    const PATH: &str = "/v1/oauth2/token";
    let daemon = daemon();
    let (id, secret) = client_with_secret(&daemon, &["events:write"]);
    let mut nobody = nobody(&daemon);
    let bare = Request::new("POST", PATH).header("Authorization", &basic(&id, &secret));
    let typed = Request::new("POST", PATH).body("application/x-www-form-urlencoded", "").header("Authorization", &basic(&id, &secret));
    let whole = post_form(PATH, &[GRANT]).header("Authorization", &basic(&id, &secret));
    for request in [bare, typed, whole] {
        let answer = nobody.send(&request).expect(200).json();
        assert_eq!((&answer["expires_in"], &answer["token_type"]), (&json!(3600), &json!("Bearer")));
    }
    for wrong in [basic(&id, "wrong"), basic("nobody", &secret), "Basic".to_owned()] {
        let answer = nobody.send(&Request::new("POST", PATH).header("Authorization", &wrong));
        assert_eq!((answer.status, answer.text()), (400, r#"{"error":"invalid_client"}"#), "{wrong}");
        assert_eq!((answer.header("cache-control"), answer.header("www-authenticate")), (Some("no-store"), None));
    }
    assert_eq!(nobody.send(&Request::new("POST", PATH)).text(), r#"{"error":"invalid_client"}"#);
    refused(
        &nobody.send(&post_form(PATH, &[("grant_type", "password")])),
        400,
        "unsupported_grant_type",
        "the grant_type must be client_credentials",
    );
    // Elsewhere a form without a grant type is wrong.
    let elsewhere = Request::new("POST", "/connect/token").header("Authorization", &basic(&id, &secret));
    assert_eq!(nobody.send(&elsewhere).expect(400).json()["error"], "invalid_request");
}

#[test]
fn another_vendors_clients_send_an_access_key_and_a_secret_key() {
    const PATH: &str = "/api/auth/v2/token";
    let daemon = daemon();
    let (id, secret) = client_with_secret(&daemon, &["events:read"]);
    let mut nobody = nobody(&daemon);
    let mut send = |body: &Value| nobody.post(PATH, body.to_string());
    let answer = send(&json!({"accessKey": id, "secretKey": secret})).expect(200);
    let token = answer.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(answer.text(), format!(r#"{{"access_token":"{token}","expires_in":14400}}"#));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let claims = claims_of(&token);
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 14_400);
    for wrong in [json!({"accessKey": id, "secretKey": "wrong"}), json!({"accessKey": "nobody", "secretKey": secret})] {
        let answer = send(&wrong);
        assert_eq!((answer.status, answer.json()), (401, json!({"error": NO_CLIENT})));
    }
    for wrong in [json!({"accessKey": id}), json!([]), json!({"accessKey": 1, "secretKey": secret})] {
        let answer = send(&wrong);
        assert_eq!((answer.status, answer.json()), (400, json!({"error": "the body must be a JSON object with accessKey and secretKey"})));
    }
    let as_form = nobody.send(&post_form(PATH, &[("accessKey", &id), ("secretKey", &secret)]));
    assert_eq!((as_form.status, as_form.json()), (415, json!({"error": "the content type must be application/json"})));
    nobody.send(&with_token(Request::get("/api/v1/events"), &token)).expect(200);
}

#[test]
fn the_metadata_say_where_and_how_tokens_are_fetched() {
    let daemon = TestDaemon::with(|config| {
        config.public_url = ISSUER.to_owned();
        config.oauth.issuer = "https://login.insurer.example".to_owned();
    });
    let answer = nobody(&daemon).get("/.well-known/oauth-authorization-server").expect(200);
    assert_eq!(answer.header("cache-control"), Some("public, max-age=300"));
    let scopes = r#"["events","events:read","events:write","subscriptions:read","subscriptions:write","deliveries:read","deliveries:replay","metrics:read","admin"]"#;
    assert_eq!(
        answer.text(),
        format!(
            r#"{{"issuer":"https://login.insurer.example","token_endpoint":"{ISSUER}/oauth2/token","jwks_uri":"{ISSUER}/oauth2/jwks","scopes_supported":{scopes},"response_types_supported":[],"grant_types_supported":["client_credentials"],"token_endpoint_auth_methods_supported":["client_secret_basic","client_secret_post","private_key_jwt"],"token_endpoint_auth_signing_alg_values_supported":["RS256","PS256","ES256","EdDSA"]}}"#
        )
    );
    // Without a name of its own the authorization server is called as the daemon is reached.
    let plain = TestDaemon::start();
    let metadata = nobody(&plain).get("/.well-known/oauth-authorization-server").expect(200).json();
    let url = format!("http://{}", plain.address());
    assert_eq!((&metadata["issuer"], &metadata["token_endpoint"]), (&json!(url), &json!(format!("{url}/oauth2/token"))));
}

#[test]
fn a_token_is_for_what_was_asked_and_never_for_more_than_the_client() {
    let daemon = daemon();
    let (id, secret) = client_with_secret(&daemon, &["admin"]);
    let ask = |scope: &str| {
        let parameters = [GRANT, ("client_id", id.as_str()), ("client_secret", secret.as_str()), ("scope", scope)];
        nobody(&daemon).send(&post_form(TOKEN, &parameters)).expect(200).json()
    };
    let narrow = ask("events:read");
    assert_eq!(narrow["scope"], "events:read");
    let mut client = nobody(&daemon);
    let token = narrow["access_token"].as_str().unwrap();
    client.send(&with_token(Request::get("/api/v1/events"), token)).expect(200);
    let problem = client.send(&with_token(Request::post("/api/v1/events", r#"{"type":"a"}"#), token)).expect(403).json();
    assert_eq!(
        (&problem["code"], &problem["detail"], &problem["scope"]),
        (&json!("insufficient_scope"), &json!("this access token lacks the scope `events:write`"), &json!("events:write"))
    );
    assert_eq!(ask("events:read  events:write")["scope"], "events:read events:write");
    assert_eq!(ask("admin")["scope"], "admin");
    let typed = make_client(&daemon, &json!({"scopes": ["events:write"], "id": "typed", "typePrefixes": ["claim."]}));
    let token = super::token_of(&daemon, "typed", typed["secret"].as_str().unwrap());
    client.send(&with_token(Request::post("/api/v1/events", r#"{"type":"claim.created"}"#), &token)).expect(201);
    let refused = client.send(&with_token(Request::post("/api/v1/events", r#"{"type":"policy.created"}"#), &token)).expect(403);
    assert_eq!(refused.json()["code"], "type_not_allowed");
}
