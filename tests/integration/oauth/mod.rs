//! The authorization server: clients, tokens, and what is refused.

mod assertions;
mod clients;
mod external;
mod grants;
mod tokens;

use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RsaEncoding,
    RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::support::daemon::TestDaemon;
use crate::support::http::{Answer, Client, Request};

pub const TOKEN: &str = "/oauth2/token";
pub const CLIENTS: &str = "/api/v1/admin/companies/acme/clients";
pub const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// The name of the authorization server in these tests.
pub const ISSUER: &str = "https://events.insurer.example";

pub const RSA: &str = include_str!("keys/rsa.pub.pem");
pub const RSA_CERTIFICATE: &str = include_str!("keys/rsa.cert.pem");
pub const P256: &str = include_str!("keys/p256.pub.pem");
pub const ED25519: &str = include_str!("keys/ed25519.pub.pem");

/// Signs with a private key of the tests, by the name of the algorithm.
pub fn sign(algorithm: &str, key: &str, message: &[u8]) -> Vec<u8> {
    let random = SystemRandom::new();
    let rsa = |encoding: &'static dyn RsaEncoding| {
        let pkcs8: &[u8] = match key {
            "rsa" => include_bytes!("keys/rsa.pkcs8"),
            "rsa-other" => include_bytes!("keys/rsa-other.pkcs8"),
            _ => panic!("{key} is no RSA key"),
        };
        let pair = RsaKeyPair::from_pkcs8(pkcs8).unwrap();
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(encoding, &random, message, &mut signature).unwrap();
        signature
    };
    match algorithm {
        "RS256" => rsa(&RSA_PKCS1_SHA256),
        "RS512" => rsa(&RSA_PKCS1_SHA512),
        "PS256" => rsa(&RSA_PSS_SHA256),
        "ES256" => {
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, include_bytes!("keys/p256.pkcs8")).unwrap();
            pair.sign(&random, message).unwrap().as_ref().to_vec()
        }
        "EdDSA" => Ed25519KeyPair::from_pkcs8(include_bytes!("keys/ed25519.pkcs8")).unwrap().sign(message).as_ref().to_vec(),
        _ => panic!("nobody signs with {algorithm}"),
    }
}

pub fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A JWT with this header and these claims, signed by `sign`.
pub fn jwt(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", base64url(header.to_string()), base64url(claims.to_string()));
    let signature = base64url(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

/// The DER of a PEM text.
pub fn der(pem: &str) -> Vec<u8> {
    let lines: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    STANDARD.decode(lines).unwrap()
}

/// SHA-1 over a certificate, base64url.
pub fn x5t(certificate: &str) -> String {
    base64url(digest(&SHA1_FOR_LEGACY_USE_ONLY, &der(certificate)))
}

/// A `jti` that no other assertion has.
pub fn fresh_jti() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("jti-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A form, encoded.
pub fn form(parameters: &[(&str, &str)]) -> String {
    let mut serializer = url::form_urlencoded::Serializer::new(String::new());
    serializer.extend_pairs(parameters);
    serializer.finish()
}

/// A request with a form.
pub fn post_form(path: &str, parameters: &[(&str, &str)]) -> Request {
    Request::new("POST", path).body("application/x-www-form-urlencoded", form(parameters))
}

/// `Authorization: Basic` with an id and a secret.
pub fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")))
}

/// A daemon whose authorization server is called [`ISSUER`], and the company `acme`.
pub fn daemon() -> TestDaemon {
    let daemon = TestDaemon::with(|config| {
        config.oauth.issuer = ISSUER.to_owned();
        config.public_url = ISSUER.to_owned();
    });
    daemon.company("acme");
    daemon
}

/// Makes a client of `acme`; the answer.
#[track_caller]
pub fn make_client(daemon: &TestDaemon, body: &Value) -> Value {
    daemon.local().post(CLIENTS, body.to_string()).expect(201).json()
}

/// Makes a client of `acme` with a public key; its id.
#[track_caller]
pub fn client_with_key(daemon: &TestDaemon, key: &str, more: &Value) -> String {
    let mut body = json!({"scopes": ["events:write", "events:read"], "keys": [{"publicKey": key}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    make_client(daemon, &body)["id"].as_str().unwrap().to_owned()
}

/// Makes a client of `acme` with a secret; its id and its secret.
#[track_caller]
pub fn client_with_secret(daemon: &TestDaemon, scopes: &[&str]) -> (String, String) {
    let made = make_client(daemon, &json!({"scopes": scopes}));
    (made["id"].as_str().unwrap().to_owned(), made["secret"].as_str().unwrap().to_owned())
}

/// Somebody without a key.
pub fn nobody(daemon: &TestDaemon) -> Client {
    daemon.client("")
}

/// Asks for a token with a secret.
#[track_caller]
pub fn ask_with_secret(daemon: &TestDaemon, id: &str, secret: &str) -> Answer {
    let request = post_form(TOKEN, &[("grant_type", "client_credentials")]).header("Authorization", &basic(id, secret));
    nobody(daemon).send(&request)
}

/// A token for a client with a secret.
#[track_caller]
pub fn token_of(daemon: &TestDaemon, id: &str, secret: &str) -> String {
    ask_with_secret(daemon, id, secret).expect(200).json()["access_token"].as_str().unwrap().to_owned()
}

/// Asks for a token with an assertion, as a form without `client_id`.
#[track_caller]
pub fn ask_with_assertion(daemon: &TestDaemon, path: &str, assertion: &str) -> Answer {
    let parameters = [("grant_type", "client_credentials"), ("client_assertion_type", ASSERTION_TYPE), ("client_assertion", assertion)];
    nobody(daemon).send(&post_form(path, &parameters))
}

/// A call with a bearer token.
pub fn with_token(request: Request, token: &str) -> Request {
    request.header("Authorization", &format!("Bearer {token}"))
}

/// The claims of a token, not verified.
pub fn claims_of(token: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

/// The header of a token.
pub fn head_of(token: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap()).unwrap()
}

/// Seconds since 1970 on the daemon's clock.
pub fn now(daemon: &TestDaemon) -> u64 {
    use lutine::domain::clock::Clock;
    daemon.clock.now().as_seconds()
}
