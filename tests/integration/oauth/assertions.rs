//! `private_key_jwt`: what is accepted, and every way of being wrong.

use std::time::Duration;

use aws_lc_rs::hmac;
use serde_json::{Value, json};

use super::{
    ASSERTION_TYPE, ED25519, ISSUER, P256, RSA, RSA_CERTIFICATE, TOKEN, ask_with_assertion, base64url, client_with_key, daemon, der,
    fresh_jti, head_of, jwt, make_client, nobody, now, post_form, sign, token_of, with_token, x5t,
};
use crate::support::daemon::TestDaemon;
use crate::support::http::Request;

/// Claims that are right, but for what `more` says; a null takes a claim away.
fn claims(daemon: &TestDaemon, client: &str, more: &Value) -> Value {
    let now = now(daemon);
    let mut claims = json!({"iss": client, "sub": client, "aud": ISSUER, "jti": fresh_jti(), "iat": now, "exp": now + 60});
    let claims_object = claims.as_object_mut().unwrap();
    claims_object.extend(more.as_object().unwrap().clone());
    claims_object.retain(|_, value| !value.is_null());
    claims
}

/// An assertion that is right, but for what `more` says of its claims.
fn assertion(daemon: &TestDaemon, client: &str, algorithm: &str, key: &str, more: &Value) -> String {
    jwt(&json!({"alg": algorithm}), &claims(daemon, client, more), |message| sign(algorithm, key, message))
}

#[test]
fn four_algorithms_show_who_a_client_is() {
    let daemon = daemon();
    for (algorithm, key, public) in [("RS256", "rsa", RSA), ("PS256", "rsa", RSA), ("ES256", "p256", P256), ("EdDSA", "ed25519", ED25519)] {
        let client = client_with_key(&daemon, public, &json!({}));
        let answer = ask_with_assertion(&daemon, TOKEN, &assertion(&daemon, &client, algorithm, key, &json!({}))).expect(200);
        assert_eq!((&answer.json()["token_type"], answer.header("cache-control")), (&json!("Bearer"), Some("no-store")), "{algorithm}");
        let token = answer.json()["access_token"].as_str().unwrap().to_owned();
        nobody(&daemon).send(&with_token(Request::get("/api/v1/events"), &token)).expect(200);
    }
}

#[test]
fn a_public_key_comes_as_pem_as_a_certificate_or_as_base64_of_der() {
    let daemon = daemon();
    let der_text = |pem: &str| {
        let lines: Vec<&str> = pem.lines().filter(|line| !line.starts_with('-')).collect();
        lines.concat()
    };
    for text in [RSA.to_owned(), RSA_CERTIFICATE.to_owned(), der_text(RSA), der_text(RSA_CERTIFICATE)] {
        let client = client_with_key(&daemon, &text, &json!({}));
        ask_with_assertion(&daemon, TOKEN, &assertion(&daemon, &client, "RS256", "rsa", &json!({}))).expect(200);
    }
}

#[test]
fn a_client_as_the_vendor_wrote_it_gets_a_token_and_publishes() {
    let daemon = daemon();
    let client = client_with_key(&daemon, RSA_CERTIFICATE, &json!({"scopes": ["events", "events:write"], "audPolicy": "token_endpoint"}));
    let url = format!("{ISSUER}/connect/token");
    let vendors = |aud: &Value| {
        let thumbprint = x5t(RSA_CERTIFICATE);
        let header = json!({"alg": "RS256", "typ": "JWT", "kid": thumbprint, "x5t": thumbprint});
        let now = now(&daemon);
        let jti = format!("70c6d351-016f-4c9e-b1a9-{}", fresh_jti());
        let claims = json!({"aud": aud, "iss": client, "sub": client, "jti": jti, "iat": now, "nbf": now, "exp": now + 10});
        jwt(&header, &claims, |message| sign("RS256", "rsa", message))
    };
    let ask = |aud: &Value| {
        let assertion = vendors(aud);
        let parameters = [
            ("grant_type", "client_credentials"),
            ("client_assertion_type", ASSERTION_TYPE),
            ("client_assertion", &assertion),
            ("scope", "events events:write"),
        ];
        nobody(&daemon).send(&post_form("/connect/token", &parameters))
    };
    for aud in [json!([url]), json!(url)] {
        let answer = ask(&aud).expect(200).json();
        assert_eq!((&answer["expires_in"], &answer["scope"]), (&json!(3600), &json!("events events:write")));
        let publish = Request::post("/api/v1/events", r#"{"type":"payment_status_updated"}"#);
        nobody(&daemon).send(&with_token(publish, answer["access_token"].as_str().unwrap())).expect(201);
    }
    // Under the newer rule the same assertion is for nobody.
    let policy = |policy: &str| {
        let body = json!({"audPolicy": policy}).to_string();
        daemon.local().patch(&format!("{}/{client}", super::CLIENTS), body).expect(200);
    };
    policy("issuer");
    let refused = ask(&json!([url])).expect(401).json();
    let description = format!("the claim `aud` must be the issuer {ISSUER}, and nothing else");
    assert_eq!(refused, json!({"error": "invalid_client", "error_description": description}));
    ask(&json!([ISSUER])).expect(200);
    policy("token_endpoint");
    ask(&json!([format!("{ISSUER}/oauth2/token")])).expect(401);
}

#[test]
fn several_keys_live_at_once_and_one_that_was_removed_is_refused() {
    let daemon = daemon();
    let client = client_with_key(&daemon, RSA, &json!({}));
    let keys = format!("{}/{client}/keys", super::CLIENTS);
    let mut local = daemon.local();
    let added = local.post(&keys, json!({"publicKey": P256, "kid": "2027"}).to_string()).expect(201).json();
    let by = |algorithm: &str, key: &str, header: Value| {
        let assertion = jwt(&header, &claims(&daemon, &client, &json!({})), |message| sign(algorithm, key, message));
        ask_with_assertion(&daemon, TOKEN, &assertion).status
    };
    assert_eq!(by("RS256", "rsa", json!({"alg": "RS256"})), 200);
    assert_eq!(by("ES256", "p256", json!({"alg": "ES256", "kid": "2027"})), 200);
    assert_eq!(by("ES256", "p256", json!({"alg": "ES256", "kid": added["id"]})), 200);
    // A name that nobody has: the client's few keys are tried.
    assert_eq!(by("ES256", "p256", json!({"alg": "ES256", "kid": "unheard of"})), 200);
    // A name that another key has: that one is asked, and no other.
    assert_eq!(by("RS256", "rsa", json!({"alg": "RS256", "kid": "2027"})), 401);
    local.delete(&format!("{keys}/{}", added["id"].as_str().unwrap())).expect(204);
    assert_eq!(by("ES256", "p256", json!({"alg": "ES256", "kid": "2027"})), 401);
    assert_eq!(by("RS256", "rsa", json!({"alg": "RS256"})), 200);
}

#[test]
fn an_assertion_is_used_once_also_across_a_restart() {
    let mut daemon = daemon();
    let client = client_with_key(&daemon, ED25519, &json!({}));
    let other = client_with_key(&daemon, ED25519, &json!({}));
    let assertion = assertion(&daemon, &client, "EdDSA", "ed25519", &json!({"jti": "one", "exp": now(&daemon) + 600}));
    ask_with_assertion(&daemon, TOKEN, &assertion).expect(200);
    let replayed = "the assertion was used before; make a new one with its own `jti` for every request";
    for path in [TOKEN, "/connect/token"] {
        assert_eq!(ask_with_assertion(&daemon, path, &assertion).expect(401).json()["error_description"], replayed);
    }
    daemon.restart();
    assert_eq!(ask_with_assertion(&daemon, TOKEN, &assertion).expect(401).json()["error_description"], replayed);
    // The same `jti` in another assertion is the same; that of another client is another.
    let with =
        |client: &str, exp: u64| self::assertion(&daemon, client, "EdDSA", "ed25519", &json!({"jti": "one", "exp": now(&daemon) + exp}));
    ask_with_assertion(&daemon, TOKEN, &with(&client, 30)).expect(401);
    ask_with_assertion(&daemon, TOKEN, &with(&other, 30)).expect(200);
    // It is remembered until nobody would take the assertion any more, and then may be used again.
    daemon.clock.advance(Duration::from_secs(659));
    ask_with_assertion(&daemon, TOKEN, &with(&client, 30)).expect(401);
    daemon.clock.advance(Duration::from_secs(3));
    ask_with_assertion(&daemon, TOKEN, &assertion).expect(401);
    ask_with_assertion(&daemon, TOKEN, &with(&client, 30)).expect(200);
}

#[test]
fn an_assertion_that_is_refused_does_not_use_up_its_jti() {
    let daemon = daemon();
    let client = client_with_key(&daemon, ED25519, &json!({}));
    let with = |aud: &str| assertion(&daemon, &client, "EdDSA", "ed25519", &json!({"jti": "one", "aud": aud}));
    ask_with_assertion(&daemon, TOKEN, &with("https://elsewhere.example")).expect(401);
    ask_with_assertion(&daemon, TOKEN, &with(ISSUER)).expect(200);
}

/// What a forged assertion must be told.
const MALFORMED: &str = "the JWT cannot be read: it must be three parts of base64url, with a header and claims of the right types";
const ALGORITHM: &str = "the algorithm of the JWT must be RS256, PS256, ES256 or EdDSA";
const NO_KEY: &str = "there is no key for the algorithm of the JWT";
const SIGNATURE: &str = "the signature of the JWT is not by a key that is known here";
const CRITICAL: &str = "the JWT has critical headers, and none is known here";
const TYPE: &str = "the `typ` of an assertion is `JWT` or `client-authentication+jwt`";
const NAMES: &str = "the claims `iss` and `sub` of an assertion are both the id of the client";
const UNKNOWN: &str = "the client is not known here";
const AUDIENCE: &str = "the claim `aud` must be the issuer https://events.insurer.example, and nothing else";
const NOT_YET: &str = "the assertion is not valid yet: `nbf` or `iat` is ahead";
const LONG: &str = "the claim `exp` is more than 10 minutes ahead";
const JTI: &str = "the claim `jti` has 1 to 256 bytes";

#[test]
fn every_forged_or_stale_assertion_is_refused_for_its_reason() {
    let daemon = daemon();
    let client = client_with_key(&daemon, RSA, &json!({}));
    let elliptic = client_with_key(&daemon, P256, &json!({}));
    let secret_only = make_client(&daemon, &json!({"scopes": ["events:read"]}));
    let secret_client = secret_only["id"].as_str().unwrap();
    let revoked = client_with_key(&daemon, RSA, &json!({}));
    daemon.local().delete(&format!("{}/{revoked}", super::CLIENTS)).expect(204);
    let expired = client_with_key(&daemon, RSA, &json!({"expires": "2026-11-22T10:31:00Z"}));
    daemon.clock.advance(Duration::from_secs(120));
    let now = now(&daemon);

    let with = |more: Value| assertion(&daemon, &client, "RS256", "rsa", &more);
    let of = |client: &str| assertion(&daemon, client, "RS256", "rsa", &json!({}));
    let headed = |header: Value| jwt(&header, &claims(&daemon, &client, &json!({})), |message| sign("RS256", "rsa", message));
    let right = with(json!({}));
    let [head, body, signature]: [&str; 3] = right.split('.').collect::<Vec<_>>().try_into().unwrap();
    let raw = |head: &str, claims: &str| {
        let message = format!("{}.{}", base64url(head), base64url(claims));
        format!("{message}.{}", base64url(sign("RS256", "rsa", message.as_bytes())))
    };
    let mac = |secret: Vec<u8>| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let claims = claims(&daemon, &client, &json!({}));
        jwt(&json!({"alg": "HS256"}), &claims, |message| hmac::sign(&key, message).as_ref().to_vec())
    };
    let texted = claims(&daemon, &client, &json!({})).to_string();
    let unsigned = |algorithm: &str| format!("{}.{body}.", base64url(format!(r#"{{"alg":"{algorithm}"}}"#)));
    let own_token = {
        let (id, secret) = super::client_with_secret(&daemon, &["events:read"]);
        token_of(&daemon, &id, &secret)
    };
    assert_eq!(head_of(&own_token)["typ"], "at+jwt");
    let swapped = {
        let other = with(json!({"aud": "https://elsewhere.example"}));
        format!("{head}.{}.{signature}", other.split('.').nth(1).unwrap())
    };
    let other_key = jwt(&json!({"alg": "RS256"}), &claims(&daemon, &client, &json!({})), |message| sign("RS256", "rsa-other", message));
    let embedded = jwt(
        &json!({"alg": "EdDSA", "jwk": {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}}),
        &claims(&daemon, &client, &json!({})),
        |message| sign("EdDSA", "ed25519", message),
    );
    let pointed = jwt(
        &json!({"alg": "RS256", "jku": "https://evil.example/jwks", "x5u": "https://evil.example/cert", "kid": "../../etc/passwd"}),
        &claims(&daemon, &client, &json!({})),
        |message| sign("RS256", "rsa-other", message),
    );
    let by_512 = jwt(&json!({"alg": "RS512"}), &claims(&daemon, &client, &json!({})), |message| sign("RS512", "rsa", message));
    let mislabelled = jwt(&json!({"alg": "PS256"}), &claims(&daemon, &client, &json!({})), |message| sign("RS256", "rsa", message));
    let reversed = jwt(&json!({"alg": "ES256"}), &claims(&daemon, &elliptic, &json!({})), |message| {
        let mut signature = sign("ES256", "p256", message);
        signature.reverse();
        signature
    });
    let zeroes = jwt(&json!({"alg": "ES256"}), &claims(&daemon, &elliptic, &json!({})), |_| vec![0; 64]);

    let long_aud = format!("{ISSUER}{}", "a".repeat(5000));
    let table: Vec<(&str, String, &str)> = vec![
        ("nothing of a JWT", "abc".to_owned(), MALFORMED),
        ("two parts", format!("{head}.{body}"), MALFORMED),
        ("four parts", format!("{right}.{signature}"), MALFORMED),
        ("five parts, as if encrypted", format!("{head}.{head}.{body}.{body}.{signature}"), MALFORMED),
        ("empty parts", "..".to_owned(), MALFORMED),
        ("a header of no base64url", format!("{head}!.{body}.{signature}"), MALFORMED),
        ("a padded header", format!("{head}=.{body}.{signature}"), MALFORMED),
        ("claims of no base64url", format!("{head}.{body}*.{signature}"), MALFORMED),
        ("a header of no JSON", format!("{}.{body}.{signature}", base64url("alg")), MALFORMED),
        ("a header that is a list", format!("{}.{body}.{signature}", base64url("[]")), MALFORMED),
        ("a header without alg", format!("{}.{body}.{signature}", base64url("{}")), MALFORMED),
        ("an alg that is no text", format!("{}.{body}.{signature}", base64url(r#"{"alg":1}"#)), MALFORMED),
        ("two algs", raw(r#"{"alg":"RS256","alg":"none"}"#, &texted), MALFORMED),
        ("claims of no JSON", raw(r#"{"alg":"RS256"}"#, "{"), MALFORMED),
        ("claims that are a list", raw(r#"{"alg":"RS256"}"#, "[1]"), MALFORMED),
        ("an issuer that is no text", with(json!({"iss": 7})), MALFORMED),
        ("a jti that is a number", with(json!({"jti": 7})), MALFORMED),
        ("an exp that is a text", with(json!({"exp": (now + 60).to_string()})), MALFORMED),
        ("an exp before 1970", with(json!({"exp": -1})), MALFORMED),
        ("an exp beyond all years", with(json!({"exp": 1e18})), MALFORMED),
        ("an aud that is a number", with(json!({"aud": 7})), MALFORMED),
        ("a list of auds with a number", with(json!({"aud": [ISSUER, 7]})), MALFORMED),
        ("an aud that is an object", with(json!({"aud": {"a": ISSUER}})), MALFORMED),
        ("two subs", raw(r#"{"alg":"RS256"}"#, &texted.replacen('{', r#"{"sub":"other","#, 1)), MALFORMED),
        ("alg none", unsigned("none"), ALGORITHM),
        ("alg None", unsigned("None"), ALGORITHM),
        ("alg of nothing", unsigned(""), ALGORITHM),
        ("alg none with a signature", format!("{}.{body}.{signature}", base64url(r#"{"alg":"none"}"#)), ALGORITHM),
        ("HS256 with the PEM of the public key", mac(RSA.as_bytes().to_vec()), ALGORITHM),
        ("HS256 with the DER of the public key", mac(der(RSA)), ALGORITHM),
        ("HS256 with an empty secret", mac(Vec::new()), ALGORITHM),
        ("RS512", by_512, ALGORITHM),
        ("rs256", headed(json!({"alg": "rs256"})), ALGORITHM),
        ("an alg with a space", headed(json!({"alg": "RS256 "})), ALGORITHM),
        ("ES256 of a client with RSA", assertion(&daemon, &client, "ES256", "p256", &json!({})), NO_KEY),
        ("RS256 of a client with P-256", of(&elliptic), NO_KEY),
        ("a key in the header", embedded, NO_KEY),
        ("no signature", format!("{head}.{body}."), SIGNATURE),
        ("half a signature", format!("{head}.{body}.{}", &signature[..170]), SIGNATURE),
        ("a signature of no base64url", format!("{head}.{body}.{signature}*"), SIGNATURE),
        ("another key", other_key, SIGNATURE),
        ("another place of keys", pointed, SIGNATURE),
        ("claims of another assertion", swapped, SIGNATURE),
        ("RS256 called PS256", mislabelled, SIGNATURE),
        ("an ES256 signature turned around", reversed, SIGNATURE),
        ("an ES256 signature of zeroes", zeroes, SIGNATURE),
        ("critical headers", headed(json!({"alg": "RS256", "crit": ["b64"], "b64": false})), CRITICAL),
        ("an empty list of critical headers", headed(json!({"alg": "RS256", "crit": []})), CRITICAL),
        ("an access token for another purpose", headed(json!({"alg": "RS256", "typ": "at+jwt"})), TYPE),
        ("one of our own access tokens", own_token, TYPE),
        ("a logout token", headed(json!({"alg": "RS256", "typ": "logout+jwt"})), TYPE),
        ("no iss", with(json!({"iss": null})), NAMES),
        ("no sub", with(json!({"sub": null})), NAMES),
        ("iss and sub that differ", with(json!({"sub": elliptic})), NAMES),
        ("an unknown client", of("nobody"), UNKNOWN),
        ("a client of no form", of("a/../b"), UNKNOWN),
        ("a client of upper case", of(&client.to_uppercase()), UNKNOWN),
        ("a client without keys", of(secret_client), "the client has no public key here"),
        ("no aud", with(json!({"aud": null})), AUDIENCE),
        ("an empty list of auds", with(json!({"aud": []})), AUDIENCE),
        ("another server", with(json!({"aud": "https://elsewhere.example"})), AUDIENCE),
        ("us and another server", with(json!({"aud": [ISSUER, "https://elsewhere.example"]})), AUDIENCE),
        ("the token URL", with(json!({"aud": format!("{ISSUER}{TOKEN}")})), AUDIENCE),
        ("our name with a slash", with(json!({"aud": format!("{ISSUER}/")})), AUDIENCE),
        ("our name in capitals", with(json!({"aud": ISSUER.to_uppercase()})), AUDIENCE),
        ("our name and more", with(json!({"aud": long_aud})), AUDIENCE),
        ("no exp", with(json!({"exp": null})), "the claim `exp` is missing"),
        ("expired an hour ago", with(json!({"exp": now - 3600})), "the assertion has expired"),
        ("expired beyond the skew", with(json!({"exp": now - 60})), "the assertion has expired"),
        ("an exp of 0", with(json!({"exp": 0})), "the assertion has expired"),
        ("11 minutes and a second ahead", with(json!({"exp": now + 661})), LONG),
        ("a year ahead", with(json!({"exp": now + 31_536_000})), LONG),
        ("in milliseconds", with(json!({"exp": (now + 60) * 1000 / 8})), LONG),
        ("nbf ahead", with(json!({"nbf": now + 61})), NOT_YET),
        ("iat ahead", with(json!({"iat": now + 3600})), NOT_YET),
        ("no jti", with(json!({"jti": null})), "the claim `jti` is missing"),
        ("an empty jti", with(json!({"jti": ""})), JTI),
        ("a jti without end", with(json!({"jti": "j".repeat(257)})), JTI),
        ("a revoked client", of(&revoked), "the client was revoked"),
        ("an expired client", of(&expired), "the client has expired"),
        ("20,000 bytes", with(json!({"more": "m".repeat(20_000)})), "the JWT has more than 16384 bytes"),
    ];
    assert!(table.len() >= 60, "{}", table.len());
    for (what, assertion, reason) in table {
        let refused = ask_with_assertion(&daemon, TOKEN, &assertion);
        let told = reason.replace('"', "'");
        assert_eq!((refused.status, refused.json()), (401, json!({"error": "invalid_client", "error_description": told})), "{what}");
        assert_eq!((refused.header("cache-control"), refused.header("www-authenticate")), (Some("no-store"), None), "{what}");
    }
    // All of them failed for what was wrong with them: what is right still gets its token.
    ask_with_assertion(&daemon, TOKEN, &right).expect(200);
    for more in
        [json!({"exp": now + 660}), json!({"exp": now - 59}), json!({"nbf": now + 60, "iat": now + 60}), json!({"jti": "j".repeat(256)})]
    {
        ask_with_assertion(&daemon, TOKEN, &with(more)).expect(200);
    }
    for header in [json!({"alg": "RS256", "typ": "JWT"}), json!({"alg": "RS256", "typ": "application/client-authentication+jwt"})] {
        ask_with_assertion(&daemon, TOKEN, &headed(header)).expect(200);
    }
}
