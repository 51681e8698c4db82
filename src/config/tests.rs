use std::fs;

use super::*;

fn load(text: &str, variables: &[(&str, &str)]) -> Result<Config, Faults> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    fs::write(&path, text).unwrap();
    let variables = variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    Config::load(Some(&path), variables, &Overrides::default())
}

fn faults(text: &str) -> Vec<(Option<usize>, String, String)> {
    let faults = load(text, &[]).unwrap_err().0;
    faults.into_iter().map(|fault| (fault.line, fault.key.unwrap_or_default(), fault.message)).collect()
}

fn one_fault(text: &str) -> (usize, String, String) {
    let mut all = faults(text);
    assert_eq!(all.len(), 1, "{all:?}");
    let (line, key, message) = all.remove(0);
    (line.unwrap(), key, message)
}

const DEVELOPMENT: &str = "environment = \"development\"\n";

#[test]
fn the_shipped_file_holds_every_key_at_its_development_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml");
    let config = Config::load(Some(&path), [], &Overrides::default()).unwrap();
    for (key, value, source) in config.effective() {
        assert!(source.contains("config.toml:"), "{key} is missing");
        if key != "environment" {
            assert_eq!(value, keys::find(key).unwrap().defaults[2], "{key}");
        }
    }
}

#[test]
fn every_typing_mistake_is_named_with_its_line_and_the_nearest_valid_name() {
    let at_two = |line: &str| one_fault(&format!("{DEVELOPMENT}{line}\n"));
    let (line, key, message) = at_two("data_dri = \"x\"");
    assert_eq!((line, key.as_str(), message.as_str()), (2, "data_dri", "there is no such key; did you mean data_dir?"));
    let (line, key, message) = one_fault(&format!("{DEVELOPMENT}[server]\nlisten = \"127.0.0.1:1\"\nbehind_poxy = true\n"));
    assert_eq!((line, key.as_str()), (4, "server.behind_poxy"));
    assert!(message.ends_with("did you mean server.behind_proxy?"));
    let (line, key, message) = one_fault(&format!("{DEVELOPMENT}\n[servre]\nlisten = \"127.0.0.1:1\"\n"));
    assert_eq!((line, key.as_str(), message.as_str()), (3, "servre", "there is no such key; did you mean server?"));
    let (_, key, message) = at_two("listen = \"127.0.0.1:1\"");
    assert_eq!((key.as_str(), message.as_str()), ("listen", "there is no such key; did you mean server.listen?"));
    let (line, _, message) = one_fault("environment = \"develpment\"\n");
    assert_eq!((line, message.ends_with("did you mean \"development\"?")), (1, true));
    assert_eq!(at_two("retention.days = \"7\"").2, "must be a number above 0 and at most 36500");
    assert_eq!(at_two("retention.days = 0").2, "must be a number above 0 and at most 36500");
    assert_eq!(at_two("limits.batch_events_max = 1.5").2, "must be a whole number from 1 to 10000");
    assert_eq!(at_two("limits.batch_events_max = 10001").2, "must be a whole number from 1 to 10000");
    assert_eq!(at_two("server.listen = \"localhost\"").1, "server.listen");
    assert_eq!(at_two("server.behind_proxy = \"yes\"").2, "must be true or false, without quotes");
    assert_eq!(at_two("public_url = \"events.insurer.example\"").1, "public_url");
    assert_eq!(at_two("server = 7").2, "is a table: write [server] with its settings below");
    assert_eq!(at_two("log.format = \"jsn\"").2, "must be one of \"json\", \"text\"; did you mean \"json\"?");
    assert_eq!(at_two("[data_dir]").2, "is a setting, not a table");
}

#[test]
fn what_is_not_toml_is_named_with_its_line() {
    for (text, line) in [("environment = \"development\"\nserver\n", 2), ("a = 1\n\na = 2\n", 3), ("environment = develop\n", 1)] {
        let (found, _, message) = one_fault(text);
        assert_eq!(found, line, "{text}");
        assert!(message.starts_with("this is not TOML"), "{message}");
    }
}

#[test]
fn all_faults_are_reported_at_once() {
    assert_eq!(faults("environment = \"x\"\ncolour = 1\n[limits]\nqueue_events_max = 0\n").len(), 3);
    let missing = Config::load(Some(Path::new("/nowhere/config.toml")), [], &Overrides::default()).unwrap_err();
    assert!(missing.to_string().starts_with("/nowhere/config.toml: the configuration cannot be read"));
}

#[test]
fn later_layers_win() {
    let text = format!("{DEVELOPMENT}data_dir = \"from-file\"\n[server]\nlisten = \"127.0.0.1:1\"\n");
    let config = load(&text, &[("LUTINE_SERVER__LISTEN", "127.0.0.1:2"), ("LUTINE_RETENTION__DAYS", "0.5"), ("HOME", "x")]).unwrap();
    assert_eq!((config.server.listen.port(), config.data_dir.to_str()), (2, Some("from-file")));
    assert_eq!(config.retention.span(), Duration::from_secs(43_200));
    let source = |path: &str| config.effective().into_iter().find(|(key, ..)| *key == path).unwrap().2;
    assert_eq!((source("server.listen").as_str(), source("log.filter").as_str()), ("LUTINE_SERVER__LISTEN", "default"));
    let overrides = Overrides { data_dir: Some("from-line".into()) };
    let config = Config::load(None, [("LUTINE_ENVIRONMENT".to_owned(), "development".to_owned())], &overrides).unwrap();
    assert_eq!(config.data_dir.to_str(), Some("from-line"));
}

#[test]
fn a_wrong_variable_is_named() {
    let refused = |name: &str, text: &str| load(DEVELOPMENT, &[(name, text)]).unwrap_err().to_string();
    assert_eq!(refused("LUTINE_SERVER__LISEN", "x"), "LUTINE_SERVER__LISEN: there is no such setting; did you mean LUTINE_SERVER__LISTEN?");
    assert!(
        refused("LUTINE_LIMITS__BATCH_EVENTS_MAX", "many").starts_with("LUTINE_LIMITS__BATCH_EVENTS_MAX: limits.batch_events_max must be")
    );
    assert!(load(DEVELOPMENT, &[("LUTINE_URL", "x"), ("LUTINE_API_KEY", "y")]).is_ok());
}

#[test]
fn production_in_the_clear_is_refused() {
    let refused = load("", &[]).unwrap_err().to_string();
    assert!(refused.contains("does not listen in the clear"), "{refused}");
    let config = load("server.behind_proxy = true\n", &[]).unwrap();
    assert_eq!((config.retention.days, config.rate_limits.read_per_minute, config.telemetry.metrics_open), (7.0, 6000, false));
}

const ISSUER: &str = "issuer = \"https://login.example\"\njwks_file = \"keys.json\"\n";

#[test]
fn an_external_issuer_is_a_table_of_its_own_or_stands_in_a_list() {
    let tables = format!(
        "{DEVELOPMENT}[[oauth.external_issuers]]\n{ISSUER}company = \"acme\"\nscopes = [\"events\"]\n\n[[oauth.external_issuers]]\nissuer = \"b\"\njwks_file = \"b.json\"\ncompany_claim = \"tenant\"\nscope_claim = \"roles\"\n"
    );
    let list = format!(
        "{DEVELOPMENT}oauth.external_issuers = [\n  {{ issuer = \"https://login.example\", jwks_file = \"keys.json\", company = \"acme\", scopes = [\"events\"] }},\n  {{ issuer = \"b\", jwks_file = \"b.json\", company_claim = \"tenant\", scope_claim = \"roles\" }},\n]\n"
    );
    let [tables, list] = [tables, list].map(|text| load(&text, &[]).unwrap().oauth.external_issuers);
    assert_eq!(tables, list);
    assert_eq!((tables.len(), tables[0].scope_claim.as_str(), tables[1].scope_claim.as_str()), (2, "scope", "roles"));
    assert_eq!(
        (tables[0].company.as_str(), tables[0].company_claim.as_str(), &tables[0].scopes[..]),
        ("acme", "", &["events".to_owned()][..])
    );
}

#[test]
fn every_mistake_in_an_external_issuer_is_named() {
    let with = |more: &str| one_fault(&format!("{DEVELOPMENT}\n[[oauth.external_issuers]]\n{ISSUER}{more}"));
    let (line, key, message) = with("compny = \"acme\"\n");
    assert_eq!((line, key.as_str()), (3, "oauth.external_issuers"));
    assert_eq!(message, "entry 1: there is no member compny; did you mean company?");
    assert_eq!(with("").2, "entry 1: needs either company or company_claim");
    assert_eq!(with("company = \"a\"\ncompany_claim = \"b\"\n").2, "entry 1: needs either company or company_claim");
    assert_eq!(with("company = 7\n").2, "entry 1: company must be a text in quotes");
    assert_eq!(with("company = \"a\"\nscopes = \"events\"\n").2, "entry 1: scopes must be a list such as [\"events:read\"]");
    assert!(with("company = \"a\"\nscopes = [\"event\"]\n").2.starts_with("entry 1: scopes: there is no scope `event`"));
    assert_eq!(with("company = \"a\"\nscope_claim = \"\"\n").2, "entry 1: scope_claim names a claim");
    let twice = format!("company = \"a\"\n[[oauth.external_issuers]]\n{ISSUER}company = \"b\"\n");
    assert_eq!(with(&twice).2, "entry 2: there is another one for the issuer \"https://login.example\"");
    assert_eq!(with("jwks_url = \"https://a/\"\ncompany = \"a\"\n").2, "entry 1: needs issuer, and either jwks_file or jwks_url");
    let missing = one_fault(&format!("{DEVELOPMENT}[[oauth.external_issuers]]\ncompany = \"a\"\n")).2;
    assert_eq!(missing, "entry 1: needs issuer, and either jwks_file or jwks_url");
    for text in ["oauth.external_issuers = 7", "oauth.external_issuers = [7]"] {
        assert_eq!(one_fault(&format!("{DEVELOPMENT}{text}\n")).1, "oauth.external_issuers");
    }
}
