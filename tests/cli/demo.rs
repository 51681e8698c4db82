//! `lutine demo`: the first thing that a newcomer runs.

use serde_json::Value;

use crate::bare;

#[test]
fn the_demonstration_shows_all_of_it_on_one_page_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let output = bare(&["demo", "--output", "table"]).env("TMPDIR", folder.path()).current_dir(folder.path()).output().unwrap();
    let page = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}\n{page}", output.status);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(page.ends_with("\nAll of it happened.\n"), "{page}");
    assert_eq!(page.matches("  verified  ").count(), 13, "{page}");
    for words in ["not stored twice", "page 3: 7 8", "byte for byte", "204 (attempt 2)", "3 of 8 events", "with the same webhook-id"] {
        assert!(page.contains(words), "`{words}` is missing:\n{page}");
    }
    assert!(page.lines().count() <= 60, "{page}");
    let path = folder.path().to_str().unwrap();
    assert!(page.lines().filter(|line| !line.contains(path)).all(|line| line.chars().count() <= 100), "{page}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "something is left in {path}");
}

#[test]
fn the_demonstration_gives_the_same_facts_to_programs() {
    let output = bare(&["demo", "--output", "json"]).output().unwrap();
    assert!(output.status.success(), "{}", output.status);
    let facts: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(facts["ok"], true);
    assert_eq!(facts["missing"], serde_json::json!([]));
    assert_eq!(facts["webhooks"].as_array().unwrap().len(), 13);
    assert!(facts["webhooks"].as_array().unwrap().iter().all(|webhook| webhook["verified"] == true && webhook["unchanged"] == true));
    assert_eq!(facts["pages"], serde_json::json!([[1, 2, 3], [4, 5, 6], [7, 8]]));
    assert_eq!(facts["retry"]["statuses"], serde_json::json!([500, 204]));
    assert!(facts["retry"]["waitMs"].as_f64().unwrap() >= 270.0, "{facts}");
}

#[test]
fn the_demonstration_stores_nowhere_else() {
    let output = bare(&["demo", "--data-dir", "/nowhere"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
