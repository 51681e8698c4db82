use super::*;

/// Appendix A.4 of RFC 8037: an Ed25519 key and a text that it signed.
const RFC_8037_KEY: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
const RFC_8037_JWS: &str = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";

/// Appendix A.3.1 of RFC 7515: a P-256 key, and claims that it signed with ES256.
const RFC_7515_X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
const RFC_7515_Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";
const RFC_7515_JWS: &str = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";

#[derive(Debug, PartialEq, Deserialize)]
struct Joe {
    iss: String,
    exp: f64,
}

fn ed25519() -> VerifyingKey {
    VerifyingKey::from_ed25519(&URL_SAFE_NO_PAD.decode(RFC_8037_KEY).unwrap())
}

fn p256() -> VerifyingKey {
    let jwk = format!(r#"{{"kty":"EC","crv":"P-256","x":"{RFC_7515_X}","y":"{RFC_7515_Y}"}}"#);
    VerifyingKey::from_jwk(&serde_json::from_str(&jwk).unwrap()).unwrap()
}

#[test]
fn the_examples_of_the_standards_are_verified() {
    let joe: Joe = Unverified::read(RFC_7515_JWS).unwrap().verify([&ed25519(), &p256()]).unwrap();
    assert_eq!(joe, Joe { iss: "joe".to_owned(), exp: 1_300_819_380.0 });
    // This one signs a text that is no JSON: the signature is right, the claims are not.
    let refused = Unverified::read(RFC_8037_JWS).unwrap().verify::<Joe>([&ed25519()]);
    assert_eq!(refused, Err(JwtError::Malformed));
}

#[test]
fn every_changed_character_is_refused() {
    for place in 0..RFC_7515_JWS.len() {
        let mut changed = RFC_7515_JWS.as_bytes().to_vec();
        changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        let read = Unverified::read(&changed).and_then(|token| token.verify::<Joe>([&p256()]));
        assert!(read.is_err(), "{place}");
    }
}

#[test]
fn the_key_decides_which_algorithms_are_asked() {
    assert_eq!(Unverified::read(RFC_7515_JWS).unwrap().verify::<Joe>([&ed25519()]), Err(JwtError::NoKey));
    assert_eq!(Unverified::read(RFC_7515_JWS).unwrap().verify::<Joe>([]), Err(JwtError::NoKey));
}

#[test]
fn a_type_is_compared_as_a_media_type() {
    let typed = |typ: &str| {
        let head = base64url(format!(r#"{{"alg":"EdDSA","typ":"{typ}"}}"#).as_bytes());
        Unverified::read(&format!("{head}.e30.AA")).unwrap().is_of_type(&["at+jwt"])
    };
    assert!(typed("at+jwt") && typed("AT+JWT") && typed("application/at+jwt"));
    assert!(!typed("JWT") && !typed("at+jwt2") && !typed(""));
}

#[test]
fn times_are_seconds_with_fractions_within_all_years() {
    assert_eq!(time_of_claim(1.5), Ok(Timestamp::from_micros(1_500_000)));
    for wrong in [-1.0, 253_402_300_800.0, f64::NAN, f64::INFINITY] {
        assert_eq!(time_of_claim(wrong), Err(JwtError::Malformed), "{wrong}");
    }
}

#[test]
fn the_id_of_a_key_does_not_depend_on_how_it_is_written() {
    let der = "MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    let pem = format!("some words\n-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n");
    let read = KeyText::read(der).unwrap();
    assert_eq!(KeyText::read(&pem), Ok(read.clone()));
    assert_eq!(KeyText::read(&format!("  {} ", der.replace("YKxC", "\nYK xC"))), Ok(read.clone()));
    assert_eq!((VerifyingKey::from_spki(&read.spki).unwrap().family_name(), read.certificate), ("Ed25519", None));
}
