//! Wrong usage and wrong configuration, and how they are told.

use serde_json::Value;

use crate::bare;

#[test]
fn wrong_usage_ends_with_2() {
    let wrong: [&[&str]; 16] = [
        &["frobnicate"],
        &["company", "create"],
        &["company", "create", "--slug", "No Slug"],
        &["event", "publish", "--type", "a b"],
        &["event", "list", "--limit", "201"],
        &["event", "list", "--cursor", "x", "--from", "oldest"],
        &["subscription", "create"],
        &["subscription", "create", "--url", "http://a/", "--bearer", "t", "--basic", "a:b"],
        &["subscription", "show", "twelve"],
        &["delivery", "show", "12"],
        &["delivery", "retry", "--all"],
        &["subscription", "replay", "12"],
        &["subscription", "replay", "12", "--id", "7", "--state", "dead"],
        &["delivery", "discard", "12-1"],
        &["sink", "--answer", "maybe"],
        &["listen", "--forward-to", "http://localhost/", "--secret", "hunter2"],
    ];
    for arguments in wrong {
        let output = bare(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty() && output.stderr.starts_with(b"error: "), "{arguments:?}: {output:?}");
    }
}

#[test]
fn every_mistake_of_a_configuration_has_its_line_and_the_nearest_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    std::fs::write(&file, "environment = \"development\"\n\n[server]\nlisten = \"nowhere\"\n\n[retention]\ndaus = 3\n").unwrap();
    let path = file.to_str().unwrap();
    let output = bare(&["config", "check", "--config", path, "--output", "table"]).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains(&format!("{path}:4: ")) && text.contains("server.listen"), "{text}");
    assert!(text.contains(&format!("{path}:7: ")) && text.contains("retention.days"), "{text}");
    let output = bare(&["config", "check", "--config", path, "--output", "json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let lines: Vec<&Value> = report["faults"].as_array().unwrap().iter().map(|fault| &fault["line"]).collect();
    assert_eq!((&report["ok"], lines.len()), (&Value::Bool(false), 2), "{report}");
    assert!(lines.contains(&&Value::from(4)) && lines.contains(&&Value::from(7)), "{report}");
    let serve = bare(&["serve", "--config", path]).output().unwrap();
    assert_eq!(serve.status.code(), Some(78));
}

#[test]
fn a_right_configuration_is_shown_with_its_sources() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    std::fs::write(&file, "environment = \"development\"\n").unwrap();
    let output = bare(&["config", "check", "--config", file.to_str().unwrap(), "--output", "json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ok"], true);
}

#[test]
fn a_command_without_a_daemon_says_how_to_get_one() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let arguments = ["event", "list", "--data-dir", data_dir.to_str().unwrap(), "--output", "json"];
    let output = bare(&arguments).env("LUTINE_ENVIRONMENT", "development").current_dir(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let failure: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert!(failure["detail"].as_str().unwrap().contains("lutine company create"), "{failure}");
}
