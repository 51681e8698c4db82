//! Access tokens of issuers that the operator trusts besides the daemon itself.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lutine::config::ExternalIssuer;
use lutine::daemon::{Daemon, Seams};
use serde_json::{Value, json};

use super::{ED25519, ISSUER, P256, RSA, base64url, der, jwt, nobody, now, sign, with_token};
use crate::support::daemon::TestDaemon;
use crate::support::http::{Answer, Request};
use crate::support::receiver::{Receiver, Reply};
use crate::support::wait_until;

const LOGIN: &str = "https://login.insurer.example/realms/core";

fn settings(file: &Path, change: impl FnOnce(&mut ExternalIssuer)) -> ExternalIssuer {
    let mut settings = ExternalIssuer {
        issuer: LOGIN.to_owned(),
        audience: String::new(),
        jwks_file: file.to_owned(),
        jwks_url: String::new(),
        company: String::new(),
        company_claim: "tenant".to_owned(),
        scope_claim: "scope".to_owned(),
        scopes: Vec::new(),
    };
    change(&mut settings);
    settings
}

/// Public keys of the tests as a JWK Set knows them.
fn jwk(kid: &str, key: &str) -> Value {
    match key {
        "rsa" => {
            // A `SubjectPublicKeyInfo` of RSA-2048: the modulus ends 5 bytes before the end, which are those of 65537.
            let spki = der(RSA);
            let modulus = &spki[spki.len() - 5 - 256..spki.len() - 5];
            json!({"kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256", "n": base64url(modulus), "e": "AQAB"})
        }
        "p256" => {
            let spki = der(P256);
            let point = &spki[spki.len() - 64..];
            json!({"kty": "EC", "kid": kid, "crv": "P-256", "x": base64url(&point[..32]), "y": base64url(&point[32..])})
        }
        _ => json!({"kty": "OKP", "kid": kid, "crv": "Ed25519", "x": base64url(&der(ED25519)[12..])}),
    }
}

fn write(file: &Path, keys: &[Value]) {
    // Put in place at once, as an operator's tool does.
    let unfinished = file.with_extension("new");
    std::fs::write(&unfinished, json!({"keys": keys}).to_string()).unwrap();
    std::fs::rename(unfinished, file).unwrap();
}

struct Login {
    daemon: TestDaemon,
    file: std::path::PathBuf,
    _folder: tempfile::TempDir,
}

impl Login {
    fn with(keys: &[Value], change: impl FnOnce(&mut ExternalIssuer)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("jwks.json");
        write(&file, keys);
        let settings = settings(&file, change);
        let daemon = TestDaemon::with(|config| {
            config.oauth.issuer = ISSUER.to_owned();
            config.oauth.external_issuers = vec![settings];
        });
        daemon.company("acme");
        Self { daemon, file, _folder: folder }
    }

    fn claims(&self, more: &Value) -> Value {
        let now = now(&self.daemon);
        let mut claims = json!({
            "iss": LOGIN, "sub": "service-account", "azp": "portal", "aud": ["account", ISSUER], "tenant": "acme",
            "scope": "openid events:read events:write", "iat": now, "exp": now + 300
        });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        claims
    }

    fn token(&self, more: &Value) -> String {
        jwt(&json!({"alg": "RS256", "kid": "a", "typ": "JWT"}), &self.claims(more), |message| sign("RS256", "rsa", message))
    }

    fn get(&self, token: &str) -> Answer {
        nobody(&self.daemon).send(&with_token(Request::get("/api/v1/events"), token))
    }
}

fn detail(answer: &Answer) -> String {
    answer.json()["detail"].as_str().unwrap().to_owned()
}

#[test]
fn a_token_of_a_trusted_issuer_stands_for_a_client_of_the_company_it_names() {
    let login = Login::with(&[jwk("a", "rsa")], |_| {});
    let token = login.token(&json!({}));
    let publish = with_token(Request::post("/api/v1/events", r#"{"type":"a"}"#), &token);
    nobody(&login.daemon).send(&publish).expect(201);
    login.get(&token).expect(200);
    for company in [json!("acme"), json!(1), json!("1")] {
        login.get(&login.token(&json!({"tenant": company}))).expect(200);
    }
    // What it may not do it may not do: scopes that are not ours open nothing.
    let refused = nobody(&login.daemon).send(&with_token(Request::get("/api/v1/admin/keys"), &token)).expect(403).json();
    assert_eq!(refused["detail"], "this access token lacks the scope `admin`");
    let subscribe = Request::post("/api/v1/webhooks/subscriptions", r#"{"url":"http://127.0.0.1:9/","types":["a"],"profile":"standard"}"#);
    let token = login.token(&json!({"scope": ["subscriptions:write"]}));
    nobody(&login.daemon).send(&with_token(subscribe, &token)).expect(201);
}

#[test]
fn every_family_of_keys_verifies_and_what_cannot_be_used_is_passed_over() {
    let others = [
        json!({"kty": "oct", "kid": "o", "k": base64url("secret")}),
        json!({"kty": "EC", "kid": "q", "crv": "P-384", "x": "AA", "y": "AA"}),
        json!({"kty": "RSA", "kid": "w", "n": base64url([0xFF; 128]), "e": "AQAB"}),
        json!({"kty": "RSA", "kid": "e", "use": "enc", "n": base64url([0xFF; 256]), "e": "AQAB"}),
        json!({"kty": "unheard of"}),
        json!(7),
    ];
    let keys = [&others[..], &[jwk("a", "rsa"), jwk("b", "p256"), jwk("c", "ed25519")]].concat();
    let login = Login::with(&keys, |_| {});
    for (algorithm, kid, key) in [("RS256", "a", "rsa"), ("ES256", "b", "p256"), ("EdDSA", "c", "ed25519")] {
        for header in [json!({"alg": algorithm, "kid": kid}), json!({"alg": algorithm, "typ": "at+jwt"})] {
            let token = jwt(&header, &login.claims(&json!({})), |message| sign(algorithm, key, message));
            login.get(&token).expect(200);
        }
    }
    // The set says that this key is for RS256.
    let other = jwt(&json!({"alg": "PS256", "kid": "a"}), &login.claims(&json!({})), |message| sign("PS256", "rsa", message));
    login.get(&other).expect(401);
}

#[test]
fn every_foreign_token_that_is_wrong_is_refused_for_its_reason() {
    let login = Login::with(&[jwk("a", "rsa")], |_| {});
    let now = now(&login.daemon);
    let signature = "the access token cannot be verified: it is not well-formed, or not signed by a key that is known here";
    let claims = "the access token lacks a claim, or has one of the wrong type";
    let company = "the access token names no company that is known here";
    let audience = "the access token is for another audience";
    let secret = URL_SAFE_NO_PAD.decode(jwk("a", "rsa")["n"].as_str().unwrap()).unwrap();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &secret);
    let mac = jwt(&json!({"alg": "HS256", "kid": "a"}), &login.claims(&json!({})), |message| {
        aws_lc_rs::hmac::sign(&key, message).as_ref().to_vec()
    });
    let headed = |header: Value, key: &str| jwt(&header, &login.claims(&json!({})), |message| sign("RS256", key, message));
    let expired = "the access token has expired; fetch another";
    for (what, token, reason) in [
        (
            "another issuer",
            login.token(&json!({"iss": "https://login.insurer.example/realms/other"})),
            "the access token is of an issuer that is not known here",
        ),
        (
            "our own issuer, by a foreign key",
            login.token(&json!({"iss": ISSUER})),
            "this is not an access token: its `typ` must be `at+jwt`",
        ),
        ("another key", headed(json!({"alg": "RS256", "kid": "a"}), "rsa-other"), signature),
        ("an unknown key", headed(json!({"alg": "RS256", "kid": "b"}), "rsa"), signature),
        ("HS256 with the modulus", mac, signature),
        (
            "another kind of token",
            headed(json!({"alg": "RS256", "kid": "a", "typ": "logout+jwt"}), "rsa"),
            "this is not an access token: its `typ` must be `at+jwt`",
        ),
        ("an ID token", login.token(&json!({"aud": "portal"})), audience),
        ("no audience", login.token(&json!({"aud": null})), audience),
        ("an audience that is an object", login.token(&json!({"aud": {"a": ISSUER}})), audience),
        ("expired", login.token(&json!({"exp": now})), expired),
        ("no end", login.token(&json!({"exp": null})), claims),
        ("an end that is a text", login.token(&json!({"exp": "never"})), claims),
        ("not yet", login.token(&json!({"nbf": now + 61})), "the access token is not valid yet"),
        ("issued later", login.token(&json!({"iat": now + 61})), "the access token is not valid yet"),
        ("nobody", login.token(&json!({"azp": null, "sub": null})), claims),
        ("a client of control characters", login.token(&json!({"azp": "a\nb"})), claims),
        ("a client without end", login.token(&json!({"azp": "a".repeat(257)})), claims),
        ("no company", login.token(&json!({"tenant": null})), company),
        ("an unknown company", login.token(&json!({"tenant": "nobody"})), company),
        ("a list of companies", login.token(&json!({"tenant": ["acme"]})), company),
        ("a company of 1.0", login.token(&json!({"tenant": 1.0})), company),
    ] {
        let refused = login.get(&token);
        assert_eq!((refused.status, detail(&refused).as_str()), (401, reason), "{what}");
    }
    login.get(&login.token(&json!({}))).expect(200);
}

#[test]
fn the_operator_says_how_far_an_issuer_is_trusted() {
    let everything = json!({"scope": "admin events:read events:write", "tenant": null, "aud": "lutine"});
    let fixed = |settings: &mut ExternalIssuer| {
        settings.company = "acme".to_owned();
        settings.company_claim = String::new();
        settings.audience = "lutine".to_owned();
    };
    let login = Login::with(&[jwk("a", "rsa")], fixed);
    let token = login.token(&everything);
    login.get(&token).expect(200);
    // Without a word about it, nobody else's token administers.
    nobody(&login.daemon).send(&with_token(Request::get("/api/v1/admin/keys"), &token)).expect(403);
    let narrow = Login::with(&[jwk("a", "rsa")], |settings| {
        fixed(settings);
        settings.scopes = vec!["events:write".to_owned()];
    });
    narrow.get(&narrow.token(&everything)).expect(403);
    let wide = Login::with(&[jwk("a", "rsa")], |settings| {
        fixed(settings);
        settings.scopes = vec!["admin".to_owned()];
        settings.scope_claim = "roles".to_owned();
    });
    let administrators = wide.token(&json!({"roles": ["admin"], "scope": null, "tenant": null, "aud": "lutine"}));
    let made = nobody(&wide.daemon).send(&with_token(Request::post("/api/v1/admin/keys", r#"{"scopes":["admin"]}"#), &administrators));
    assert_eq!(made.expect(201).json()["companyId"], 1);
    let audit = wide.daemon.local().get("/api/v1/admin/audit?limit=1").json();
    assert_eq!(audit["audit"][0]["actor"], json!(format!("client:portal of {LOGIN}")));
}

#[test]
fn keys_that_the_file_gains_and_loses_are_gained_and_lost_without_a_restart() {
    let login = Login::with(&[jwk("a", "rsa")], |_| {});
    let old = login.token(&json!({"exp": now(&login.daemon) + 3600}));
    login.get(&old).expect(200);
    let claims = login.claims(&json!({"exp": now(&login.daemon) + 3600}));
    let new = jwt(&json!({"alg": "ES256", "kid": "b"}), &claims, |message| sign("ES256", "p256", message));
    login.get(&new).expect(401);
    write(&login.file, &[jwk("b", "p256")]);
    // A key that nobody knows makes the file be looked at, but not with every token.
    login.get(&new).expect(401);
    login.daemon.clock.advance(Duration::from_secs(5));
    login.get(&new).expect(200);
    login.get(&old).expect(401);
    // A file that became useless changes nothing.
    std::fs::write(&login.file, "{").unwrap();
    login.daemon.clock.advance(Duration::from_secs(61));
    login.get(&new).expect(200);
    write(&login.file, &[jwk("a", "rsa")]);
    login.daemon.clock.advance(Duration::from_secs(61));
    login.get(&new).expect(401);
    login.get(&old).expect(200);
}

#[test]
fn keys_are_fetched_at_the_start_and_again_when_a_token_names_another() {
    let keys = Arc::new(Mutex::new(json!({"keys": [jwk("a", "rsa")]}).to_string()));
    let served = Arc::clone(&keys);
    let server = Receiver::new(move |_| Reply::Full(200, "Content-Type: application/json\r\n", served.lock().unwrap().clone()));
    let url = server.url();
    let login = Login::with(&[jwk("b", "p256")], |settings| {
        settings.jwks_file = std::path::PathBuf::new();
        settings.jwks_url = url;
    });
    let old = login.token(&json!({"exp": now(&login.daemon) + 3600}));
    wait_until("the first keys", || login.get(&old).status == 200);
    assert_eq!(server.count(), 1);
    assert_eq!(server.hooks()[0].line, "GET /hooks HTTP/1.1");
    let claims = login.claims(&json!({"exp": now(&login.daemon) + 3600}));
    let new = jwt(&json!({"alg": "ES256", "kid": "b"}), &claims, |message| sign("ES256", "p256", message));
    *keys.lock().unwrap() = json!({"keys": [jwk("b", "p256")]}).to_string();
    // However many tokens name a key that nobody knows, keys are fetched again after half a minute and not before.
    for _ in 0..20 {
        login.get(&new).expect(401);
    }
    assert_eq!(server.count(), 1);
    login.daemon.clock.advance(Duration::from_secs(30));
    wait_until("the new keys", || login.get(&new).status == 200);
    assert_eq!(server.count(), 2);
    login.get(&old).expect(401);
    // A server that gives nothing of use changes nothing.
    *keys.lock().unwrap() = "{".to_owned();
    login.daemon.clock.advance(Duration::from_secs(30));
    login.get(&old).expect(401);
    wait_until("another look", || server.count() == 3);
    login.get(&new).expect(200);
}

#[test]
fn keys_come_only_from_where_the_operator_lets_things_be_sent() {
    let folder = tempfile::tempdir().unwrap();
    let overrides = lutine::config::Overrides { data_dir: Some(folder.path().join("data")) };
    let variables = [("LUTINE_ENVIRONMENT", "development"), ("LUTINE_SERVER__LISTEN", "127.0.0.1:0")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    for url in ["http://169.254.169.254/latest", "ftp://login.example/keys", "https://10.0.0.1/keys", "keys"] {
        let mut config = lutine::config::Config::load(None, variables.clone(), &overrides).unwrap();
        config.oauth.external_issuers = vec![settings(Path::new(""), |settings| settings.jwks_url = url.to_owned())];
        let refused = Daemon::start(config, &Seams::real()).unwrap_err();
        assert!(refused.is_configuration() && refused.to_string().contains("may not be fetched"), "{refused}");
    }
}

#[test]
fn a_daemon_starts_with_all_its_issuers_or_not_at_all() {
    let login = Login::with(&[jwk("a", "rsa")], |_| {});
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jwks.json");
    let many: Vec<Value> = (0..101).map(|_| json!({"kty": "oct"})).collect();
    for (content, reason) in [
        (None, "cannot be read"),
        (Some("{".to_owned()), "is not a JWK Set"),
        (Some(r#"{"keys":{}}"#.to_owned()), "is not a JWK Set"),
        (Some(r#"{"keys":[]}"#.to_owned()), "holds no public key"),
        (Some(json!({"keys": [{"kty": "oct", "k": "AA"}]}).to_string()), "holds no public key"),
        (Some(json!({"keys": many}).to_string()), "has more than"),
        (Some(format!("{{}}{}", " ".repeat(262_144))), "has more than"),
    ] {
        match content {
            None => drop(std::fs::remove_file(&file)),
            Some(content) => std::fs::write(&file, content).unwrap(),
        }
        let overrides = lutine::config::Overrides { data_dir: Some(folder.path().join("data")) };
        let variables = [("LUTINE_ENVIRONMENT", "development"), ("LUTINE_SERVER__LISTEN", "127.0.0.1:0")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut config = lutine::config::Config::load(None, variables, &overrides).unwrap();
        config.oauth.external_issuers = vec![settings(&file, |_| {})];
        let refused = Daemon::start(config, &Seams::real()).unwrap_err();
        assert!(refused.is_configuration() && refused.to_string().contains(reason), "{refused}");
    }
    drop(login);
}
