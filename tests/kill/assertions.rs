//! The real binary killed right after it took an assertion: that one is not taken again.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use crate::support::http::{Client, Request};
use crate::support::real::{RealDaemon, ask, data_dir};

const ISSUER: &str = "https://events.insurer.example";
const ROUNDS: usize = 10;

fn assertion(client: &str, jti: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({"iss": client, "sub": client, "aud": ISSUER, "jti": jti, "exp": now + 300});
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA"}"#), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let pair = Ed25519KeyPair::from_pkcs8(include_bytes!("../integration/oauth/keys/ed25519.pkcs8")).unwrap();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(pair.sign(message.as_bytes())))
}

/// The status, and what is said of an error.
fn send(daemon: &RealDaemon, assertion: &str) -> (u16, String) {
    let form = format!(
        "grant_type=client_credentials&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion={assertion}"
    );
    let request = Request::new("POST", "/oauth2/token").body("application/x-www-form-urlencoded", form);
    let answer = Client::new(daemon.address, "").send(&request);
    (answer.status, answer.json()["error_description"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn an_assertion_that_was_taken_is_not_taken_again_after_a_kill() {
    let (_folder, data_dir) = data_dir();
    let public_key = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/integration/oauth/keys/ed25519.pub.pem");
    ask(&data_dir, &["company", "create", "--slug", "acme"]);
    ask(&data_dir, &["client", "create", "--id", "core", "--scope", "events:read", "--public-key", public_key]);
    let start = || RealDaemon::start(&data_dir, &[("LUTINE_OAUTH__ISSUER", ISSUER)]);
    let mut daemon = start();
    for round in 0..ROUNDS {
        let taken = assertion("core", &format!("round {round}"));
        assert_eq!(send(&daemon, &taken).0, 200);
        daemon.kill();
        daemon = start();
        let (status, said) = send(&daemon, &taken);
        assert!(status == 401 && said.starts_with("the assertion was used before"), "{status} {said}");
    }
}
