//! Access tokens: what they say, what they open, and every way in which one is refused.

use std::time::Duration;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{
    CLIENTS, ISSUER, base64url, claims_of, client_with_secret, daemon, head_of, jwt, make_client, nobody, now, sign, token_of, with_token,
};
use crate::support::daemon::TestDaemon;
use crate::support::http::{Answer, Request};

fn get_events(daemon: &TestDaemon, token: &str) -> Answer {
    nobody(daemon).send(&with_token(Request::get("/api/v1/events"), token))
}

/// The code of the refusal; nothing when it is none.
fn code(answer: &Answer) -> String {
    if answer.status == 200 { String::new() } else { answer.json()["code"].as_str().unwrap().to_owned() }
}

fn published(daemon: &TestDaemon) -> Vec<Value> {
    nobody(daemon).get("/oauth2/jwks").expect(200).json()["keys"].as_array().unwrap().clone()
}

#[test]
fn a_token_says_what_rfc_9068_wants_and_is_verified_with_a_published_key() {
    let daemon = daemon();
    let (id, secret) = client_with_secret(&daemon, &["events:read", "events"]);
    let token = token_of(&daemon, &id, &secret);
    let now = now(&daemon);
    let claims = claims_of(&token);
    let jti = claims["jti"].as_str().unwrap();
    assert_eq!(
        claims,
        json!({"iss": ISSUER, "sub": id, "aud": ISSUER, "client_id": id, "scope": "events events:read", "company": 1, "jti": jti, "iat": now, "exp": now + 3600})
    );
    assert_ne!(claims_of(&token_of(&daemon, &id, &secret))["jti"], jti);
    let keys = published(&daemon);
    assert_eq!(keys.len(), 2);
    assert_eq!(head_of(&token), json!({"alg": "EdDSA", "typ": "at+jwt", "kid": keys[0]["kid"]}));
    let key = &keys[0];
    let members = ["kty", "crv", "use", "alg"].map(|member| key[member].as_str().unwrap());
    assert_eq!(members, ["OKP", "Ed25519", "sig", "EdDSA"]);
    let (message, signature) = token.rsplit_once('.').unwrap();
    let public = URL_SAFE_NO_PAD.decode(key["x"].as_str().unwrap()).unwrap();
    UnparsedPublicKey::new(&ED25519, public).verify(message.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
}

#[test]
fn a_token_stands_for_its_client_in_every_call() {
    let daemon = daemon();
    let (id, secret) = client_with_secret(&daemon, &["admin"]);
    let token = token_of(&daemon, &id, &secret);
    let mut client = nobody(&daemon);
    let made = client.send(&with_token(Request::post("/api/v1/admin/keys", r#"{"scopes":["events:read"]}"#), &token)).expect(201);
    assert_eq!(made.json()["companyId"], 1);
    let audit = daemon.local().get("/api/v1/admin/audit?limit=1").json();
    assert_eq!(audit["audit"][0]["actor"], json!(format!("client:{id}")));
    let event = client.send(&with_token(Request::post("/api/v1/events", r#"{"type":"a"}"#), &token)).expect(201).id();
    daemon.company("bolt");
    let bolt = daemon.local().post("/api/v1/admin/companies/bolt/clients", r#"{"id":"bolt","scopes":["admin"]}"#).expect(201).json();
    let foreign = token_of(&daemon, "bolt", bolt["secret"].as_str().unwrap());
    client.send(&with_token(Request::get(&format!("/api/v1/events/{event}")), &foreign)).expect(404);
    client.send(&with_token(Request::get("/api/v1/admin/config"), &foreign)).expect(403);
    client.send(&with_token(Request::get(CLIENTS), &foreign)).expect(404);
    // In the header of keys a token is no key.
    let as_key = client.send(&Request::get("/api/v1/events").header("X-Api-Key", &token));
    assert_eq!((as_key.status, code(&as_key).as_str()), (401, "invalid_key"));
}

#[test]
fn the_calls_of_all_tokens_of_a_client_count_together() {
    let daemon = daemon();
    let made = make_client(&daemon, &json!({"scopes": ["events:read"], "id": "core", "rates": {"read": 3}}));
    let secret = made["secret"].as_str().unwrap();
    let tokens = [token_of(&daemon, "core", secret), token_of(&daemon, "core", secret)];
    for (number, left) in [(0, "2"), (1, "1"), (0, "0")] {
        let answer = get_events(&daemon, &tokens[number]).expect(200);
        assert_eq!((answer.header("x-ratelimit-limit"), answer.header("x-ratelimit-remaining")), (Some("3"), Some(left)));
    }
    assert_eq!(code(&get_events(&daemon, &tokens[1]).expect(429)), "rate_limited");
    daemon.clock.advance(Duration::from_secs(60));
    get_events(&daemon, &tokens[1]).expect(200);
}

#[test]
fn a_token_ends_with_its_hour_also_when_it_is_remembered() {
    let daemon = daemon();
    let (id, secret) = client_with_secret(&daemon, &["events:read"]);
    let token = token_of(&daemon, &id, &secret);
    get_events(&daemon, &token).expect(200);
    daemon.clock.advance(Duration::from_secs(3599));
    get_events(&daemon, &token).expect(200);
    daemon.clock.advance(Duration::from_secs(1));
    for _ in 0..2 {
        let refused = get_events(&daemon, &token).expect(401);
        assert_eq!(code(&refused), "token_expired");
        assert_eq!(refused.header("www-authenticate"), Some("Bearer realm=\"lutine\", error=\"invalid_token\""));
    }
}

#[test]
fn live_tokens_of_a_revoked_client_are_refused_at_once_and_after_a_restart() {
    let mut daemon = daemon();
    let (id, secret) = client_with_secret(&daemon, &["events:read"]);
    let (other, other_secret) = client_with_secret(&daemon, &["events:read"]);
    let (remembered, unseen) = (token_of(&daemon, &id, &secret), token_of(&daemon, &id, &secret));
    let others = token_of(&daemon, &other, &other_secret);
    get_events(&daemon, &remembered).expect(200);
    daemon.local().delete(&format!("{CLIENTS}/{id}")).expect(204);
    for token in [&remembered, &unseen] {
        assert_eq!(code(&get_events(&daemon, token).expect(401)), "token_revoked");
    }
    get_events(&daemon, &others).expect(200);
    daemon.restart();
    assert_eq!(code(&get_events(&daemon, &remembered).expect(401)), "token_revoked");
    get_events(&daemon, &others).expect(200);
}

#[test]
fn live_tokens_follow_what_their_client_may() {
    let daemon = daemon();
    let (id, secret) = client_with_secret(&daemon, &["events:read", "events:write"]);
    let token = token_of(&daemon, &id, &secret);
    get_events(&daemon, &token).expect(200);
    let path = format!("{CLIENTS}/{id}");
    daemon.local().patch(&path, r#"{"scopes":["events:write","deliveries:read"]}"#).expect(200);
    assert_eq!(code(&get_events(&daemon, &token).expect(403)), "insufficient_scope");
    let mut client = nobody(&daemon);
    client.send(&with_token(Request::post("/api/v1/events", r#"{"type":"a"}"#), &token)).expect(201);
    // What the client may do only now, the older token may not.
    client.send(&with_token(Request::get("/api/v1/deliveries/1-1"), &token)).expect(403);
    daemon.local().patch(&path, r#"{"scopes":["events:read"],"expires":"2026-11-22T10:31:00Z"}"#).expect(200);
    get_events(&daemon, &token).expect(200);
    daemon.clock.advance(Duration::from_secs(60));
    assert_eq!(code(&get_events(&daemon, &token).expect(401)), "token_revoked");
}

#[test]
fn keys_rotate_and_each_is_published_long_before_it_signs() {
    const DAYS: u64 = 86_400;
    let mut daemon = daemon();
    let (id, secret) = client_with_secret(&daemon, &["events:read"]);
    let kids = |daemon: &TestDaemon| published(daemon).iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let first = kids(&daemon);
    let token = token_of(&daemon, &id, &secret);
    assert_eq!((first.len(), head_of(&token)["kid"].as_str()), (2, Some(first[0].as_str())));
    daemon.clock.advance(Duration::from_secs(30 * DAYS - 60));
    assert_eq!(kids(&daemon), first);
    let late = token_of(&daemon, &id, &secret);
    assert_eq!(head_of(&late)["kid"].as_str(), Some(first[0].as_str()));
    daemon.clock.advance(Duration::from_secs(60));
    let new = token_of(&daemon, &id, &secret);
    assert_eq!(head_of(&new)["kid"].as_str(), Some(first[1].as_str()));
    let second = kids(&daemon);
    assert_eq!((second.len(), &second[..2]), (3, &first[..]));
    // What the key before has signed lives on, across a restart too.
    daemon.restart();
    assert_eq!(kids(&daemon), second);
    for token in [&late, &new] {
        get_events(&daemon, token).expect(200);
    }
    assert_eq!(code(&get_events(&daemon, &token).expect(401)), "token_expired");
    daemon.clock.advance(Duration::from_secs(30 * DAYS));
    token_of(&daemon, &id, &secret);
    let third = kids(&daemon);
    assert_eq!((third.len(), &third[..2]), (3, &second[1..]));
    // A key that is gone verifies nothing.
    assert_eq!(code(&get_events(&daemon, &token).expect(401)), "invalid_token");
}

#[test]
fn the_keys_that_sign_lie_sealed() {
    let mut daemon = daemon();
    let (id, secret) = client_with_secret(&daemon, &["events:read"]);
    let token = token_of(&daemon, &id, &secret);
    let public: Vec<Vec<u8>> = published(&daemon).iter().map(|key| URL_SAFE_NO_PAD.decode(key["x"].as_str().unwrap()).unwrap()).collect();
    daemon.stop();
    // PKCS #8 as it is made holds the public key too: where that is not in the clear, the private key is not either.
    let ledger = std::fs::read(daemon.data_dir().join("ledger.redb")).unwrap();
    for key in &public {
        assert!(!ledger.windows(key.len()).any(|window| window == key), "a key is in the clear");
    }
    daemon.restart();
    get_events(&daemon, &token).expect(200);
}

#[test]
fn every_forged_or_stale_token_is_refused() {
    let daemon = daemon();
    let (id, secret) = client_with_secret(&daemon, &["events:read"]);
    let token = token_of(&daemon, &id, &secret);
    let [head, body, signature]: [&str; 3] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
    let kid = head_of(&token)["kid"].clone();
    let public = URL_SAFE_NO_PAD.decode(published(&daemon)[0]["x"].as_str().unwrap()).unwrap();
    let claims = claims_of(&token);
    let with = |more: Value| {
        let mut claims = claims.clone();
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        claims
    };
    let forged = |header: Value, claims: &Value| jwt(&header, claims, |message| sign("EdDSA", "ed25519", message));
    let mac = |secret: &[u8]| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        jwt(&json!({"alg": "HS256", "typ": "at+jwt", "kid": kid}), &claims, |message| hmac::sign(&key, message).as_ref().to_vec())
    };
    let relabelled = |header: Value| format!("{}.{body}.{signature}", base64url(header.to_string()));
    let mut flipped = URL_SAFE_NO_PAD.decode(signature).unwrap();
    flipped[10] ^= 1;
    let right_head = json!({"alg": "EdDSA", "typ": "at+jwt", "kid": kid});
    let table: Vec<(&str, String)> = vec![
        ("two dots and nothing", "..".to_owned()),
        ("two parts", format!("{head}.{body}")),
        ("four parts", format!("{token}.{signature}")),
        ("no signature", format!("{head}.{body}.")),
        ("half a signature", format!("{head}.{body}.{}", &signature[..40])),
        ("one bit of the signature", format!("{head}.{body}.{}", base64url(&flipped))),
        ("alg none", relabelled(json!({"alg": "none", "typ": "at+jwt", "kid": kid}))),
        ("alg none without a signature", format!("{}.{body}.", base64url(r#"{"alg":"none","typ":"at+jwt"}"#))),
        ("HS256 with the public key", mac(&public)),
        ("HS256 with the public key in base64url", mac(base64url(&public).as_bytes())),
        ("no typ", relabelled(json!({"alg": "EdDSA", "kid": kid}))),
        ("an ID token", forged(json!({"alg": "EdDSA", "typ": "JWT", "kid": kid}), &claims)),
        ("no kid", forged(json!({"alg": "EdDSA", "typ": "at+jwt"}), &claims)),
        ("another key under our name", forged(right_head.clone(), &claims)),
        ("another key under its own name", forged(json!({"alg": "EdDSA", "typ": "at+jwt", "kid": "mine"}), &claims)),
        ("a key in the header", {
            let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
            forged(json!({"alg": "EdDSA", "typ": "at+jwt", "jwk": jwk}), &claims)
        }),
        ("RS256 by anybody", jwt(&json!({"alg": "RS256", "typ": "at+jwt", "kid": kid}), &claims, |message| sign("RS256", "rsa", message))),
        ("critical headers", relabelled(json!({"alg": "EdDSA", "typ": "at+jwt", "kid": kid, "crit": ["exp"]}))),
        ("more scopes", format!("{head}.{}.{signature}", base64url(with(json!({"scope": "admin"})).to_string()))),
        ("another company", format!("{head}.{}.{signature}", base64url(with(json!({"company": 2})).to_string()))),
        ("a longer life", format!("{head}.{}.{signature}", base64url(with(json!({"exp": now(&daemon) + 99_999})).to_string()))),
        ("another issuer", forged(right_head.clone(), &with(json!({"iss": "https://elsewhere.example"})))),
        ("no issuer", forged(right_head.clone(), &json!({"sub": id}))),
        ("an issuer that is no text", forged(right_head.clone(), &with(json!({"iss": ["https://events.insurer.example"]})))),
        ("claims of no JSON", format!("{head}.{}.{signature}", base64url("{"))),
        ("two issuers", format!("{head}.{}.{signature}", base64url(format!(r#"{{"iss":"{ISSUER}","iss":"b"}}"#)))),
        ("20,000 bytes", format!("{head}.{}.{signature}", base64url("x".repeat(20_000)))),
        ("bytes above ASCII", format!("{head}.{body}.é")),
    ];
    for (what, token) in &table {
        let refused = get_events(&daemon, token);
        assert_eq!((refused.status, code(&refused).as_str()), (401, "invalid_token"), "{what}");
        assert_eq!(refused.header("www-authenticate"), Some("Bearer realm=\"lutine\", error=\"invalid_token\""), "{what}");
    }
    get_events(&daemon, &token).expect(200);
    assert_eq!(daemon.local().get("/metrics").text().lines().filter(|line| line.contains("reason=\"invalid\"")).count(), 1);
}

#[test]
fn a_token_of_another_name_of_this_server_is_refused() {
    let mut daemon = daemon();
    let (id, secret) = client_with_secret(&daemon, &["events:read"]);
    let token = token_of(&daemon, &id, &secret);
    daemon.restart_with(|config| config.oauth.issuer = "https://other.insurer.example".to_owned());
    let refused = get_events(&daemon, &token).expect(401).json();
    assert_eq!(
        (&refused["code"], &refused["detail"]),
        (&json!("invalid_token"), &json!("the access token is of an issuer that is not known here"))
    );
    daemon.restart_with(|config| config.oauth.issuer = ISSUER.to_owned());
    get_events(&daemon, &token).expect(200);
}

#[test]
fn a_token_from_a_clock_that_was_set_back_is_refused() {
    let daemon = daemon();
    let (id, secret) = client_with_secret(&daemon, &["events:read"]);
    daemon.clock.set_wall("2026-11-22T10:40:00Z");
    let token = token_of(&daemon, &id, &secret);
    daemon.clock.set_wall("2026-11-22T10:39:00Z");
    get_events(&daemon, &token).expect(200);
    let unseen = {
        daemon.clock.set_wall("2026-11-22T10:40:00Z");
        token_of(&daemon, &id, &secret)
    };
    daemon.clock.set_wall("2026-11-22T10:38:58Z");
    assert_eq!(get_events(&daemon, &unseen).expect(401).json()["detail"], "the access token is not valid yet");
}
