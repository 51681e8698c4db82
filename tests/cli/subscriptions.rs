//! `lutine subscription` and `lutine delivery`, against the built-in receiver.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::http::Client;
use crate::support::real::{RealDaemon, ask, data_dir, run};
use crate::support::wait_until;
use crate::{Running, bare};

fn wait_for_state(data_dir: &Path, delivery: &str, state: &str) -> Value {
    let mut shown = Value::Null;
    wait_until(state, || {
        shown = ask(data_dir, &["delivery", "show", delivery]);
        shown["state"] == state
    });
    shown
}

#[test]
fn a_dead_letter_is_seen_retried_and_delivered() {
    let (_folder, data_dir) = data_dir();
    let _daemon = RealDaemon::start(&data_dir, &[]);
    ask(&data_dir, &["company", "create", "--slug", "acme"]);
    let sink = Running::start(bare(&["sink", "--port", "0", "--answer", "500,500,204", "--output", "json"]));
    let url = format!("http://{}/hooks", sink.note("lutine sink listening on http://"));
    let create = ["subscription", "create", "--url", &url, "--types", "claim.*", "--override", "retryScheduleSeconds=[0.05]"];
    let created = ask(&data_dir, &create);
    assert_eq!((&created["id"], &created["types"]), (&json!(1), &json!(["claim.*"])));
    assert!(created["secret"].as_str().unwrap().starts_with("whsec_"));
    ask(&data_dir, &["trigger", "policy.bound"]);
    let event = ask(&data_dir, &["trigger", "claim.created"])["id"].clone();
    let delivery = format!("1-{event}");

    let dead = wait_for_state(&data_dir, &delivery, "dead");
    let statuses: Vec<&Value> = dead["attempts"].as_array().unwrap().iter().map(|attempt| &attempt["status"]).collect();
    assert_eq!(statuses, [500, 500]);
    let page = run(&data_dir, &["delivery", "show", &delivery, "--output", "table"]);
    let page = String::from_utf8(page.stdout).unwrap();
    assert!(page.contains("attempt 2  ") && page.contains("state         dead: "), "{page}");
    let listed = ask(&data_dir, &["delivery", "list", "--subscription", "1", "--state", "dead"]);
    assert_eq!(listed["deliveries"].as_array().unwrap().len(), 1, "{listed}");

    let elsewhere = ask(&data_dir, &["delivery", "retry", "--all", "--subscription", "1", "--types", "policy.*"]);
    assert_eq!(elsewhere, json!({"retried": 0, "more": false}));
    let tally = ask(&data_dir, &["delivery", "retry", "--all", "--subscription", "1", "--reason", "they are back"]);
    assert_eq!(tally, json!({"retried": 1, "more": false}));
    wait_for_state(&data_dir, &delivery, "delivered");
    let ids: Vec<Value> = (0..3).map(|_| sink.json()["id"].clone()).collect();
    assert_eq!(ids, vec![json!(format!("evt_{event}_1")); 3]);
    assert_eq!(run(&data_dir, &["delivery", "retry", &delivery]).status.code(), Some(1), "it is delivered already");
}

#[test]
fn what_was_delivered_is_replayed_and_a_secret_rotated() {
    let (_folder, data_dir) = data_dir();
    let _daemon = RealDaemon::start(&data_dir, &[]);
    ask(&data_dir, &["company", "create", "--slug", "acme"]);
    let sink = Running::start(bare(&["sink", "--port", "0", "--output", "json"]));
    let url = format!("http://{}/hooks", sink.note("lutine sink listening on http://"));
    let created = ask(&data_dir, &["subscription", "create", "--url", &url, "--ordering", "key", "--ordering-key", "/claimId"]);
    assert_eq!((&created["ordering"], &created["orderingKey"]), (&json!("key"), &json!("/claimId")));
    let event = ask(&data_dir, &["trigger", "claim.created"])["id"].clone();
    assert_eq!(sink.json()["id"], json!(format!("evt_{event}_1")));
    wait_for_state(&data_dir, &format!("1-{event}"), "delivered");
    let number = event.to_string();
    assert_eq!(ask(&data_dir, &["subscription", "replay", "1", "--id", &number, "--dry-run"]), json!({"count": 1}));
    let started = ask(&data_dir, &["subscription", "replay", "1", "--types", "claim.*"]);
    assert_eq!(started, json!({"replayId": 1, "count": 1}));
    assert_eq!(sink.json()["id"], json!(format!("evt_{event}_1_r1")));
    wait_until("the end of the replay", || ask(&data_dir, &["replay", "show", "1"])["state"] == "done");
    let listed = ask(&data_dir, &["replay", "list", "--subscription", "1"]);
    assert_eq!((&listed["replays"][0]["replayId"], &listed["replays"][0]["done"]), (&json!(1), &json!(1)));
    assert_eq!(run(&data_dir, &["replay", "cancel", "1"]).status.code(), Some(1), "it is done");
    let shown = run(&data_dir, &["replay", "show", "1", "--output", "table"]);
    assert!(String::from_utf8(shown.stdout).unwrap().contains("1 of 1"));
    let rotated = ask(&data_dir, &["subscription", "rotate-secret", "1"]);
    assert!(rotated["secret"] != created["secret"] && rotated["previousExpiresUtc"].is_string(), "{rotated}");
    let revoked = ask(&data_dir, &["subscription", "rotate-secret", "1", "--overlap-seconds", "0"]);
    assert_eq!(revoked["previousExpiresUtc"], Value::Null);
}

#[test]
fn a_subscription_is_paused_resumed_tested_and_deleted() {
    let (_folder, data_dir) = data_dir();
    let _daemon = RealDaemon::start(&data_dir, &[]);
    ask(&data_dir, &["company", "create", "--slug", "acme"]);
    let sink = Running::start(bare(&["sink", "--port", "0", "--output", "json"]));
    let url = format!("http://{}/", sink.note("lutine sink listening on http://"));
    ask(&data_dir, &["subscription", "create", "--url", &url, "--name", "mine", "--bearer", "t0ken"]);
    assert_eq!(ask(&data_dir, &["subscription", "pause", "1"])["state"], "paused");
    ask(&data_dir, &["trigger", "claim.created"]);
    let shown = ask(&data_dir, &["subscription", "show", "1"]);
    assert_eq!((&shown["name"], &shown["backlog"]["events"]), (&json!("mine"), &json!(1)));
    assert!(!shown.to_string().contains("t0ken") && shown.get("secret").is_none(), "{shown}");
    assert_eq!(ask(&data_dir, &["subscription", "resume", "1"])["state"], "active");
    assert_eq!(sink.json()["type"], "claim.created");
    let test = ask(&data_dir, &["subscription", "test", "1"]);
    wait_for_state(&data_dir, test["deliveryId"].as_str().unwrap(), "delivered");
    assert_eq!(ask(&data_dir, &["subscription", "list"])["subscriptions"].as_array().unwrap().len(), 1);
    assert_eq!(ask(&data_dir, &["subscription", "delete", "1"]), json!({"id": 1, "deleted": true}));
    assert_eq!(run(&data_dir, &["subscription", "show", "1"]).status.code(), Some(1));
}

#[test]
fn the_receiver_and_the_daemon_are_not_taken_for_each_other() {
    let (_folder, data_dir) = data_dir();
    let daemon = RealDaemon::start(&data_dir, &[]);
    ask(&data_dir, &["company", "create", "--slug", "acme"]);
    let key = ask(&data_dir, &["key", "create", "--company", "acme", "--scope", "subscriptions:write", "--scope", "subscriptions:read"]);
    let (url, key) = (format!("http://{}", daemon.address), key["key"].as_str().unwrap());
    let create = ["subscription", "create", "--url", "http://127.0.0.1:9/hooks"];
    let both = bare(&[&["--url", url.as_str()], create.as_slice()].concat()).env("LUTINE_API_KEY", key).output().unwrap();
    assert_eq!(both.status.code(), Some(2), "{both:?}");
    let mut remote = bare(&[create.as_slice(), &["--output", "json"]].concat());
    let output = remote.envs([("LUTINE_URL", url.as_str()), ("LUTINE_API_KEY", key)]).output().unwrap();
    let created: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(created["url"], "http://127.0.0.1:9/hooks");
    let list = bare(&["subscription", "list", "--url", &url, "--api-key", key, "--output", "json"]).output().unwrap();
    assert!(list.status.success());
}

/// Asks and takes the exit code, which says how it went.
fn checked(data_dir: &Path, id: &str) -> (Option<i32>, Value) {
    let output = run(data_dir, &["subscription", "check", id, "--output", "json"]);
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}")))
}

fn outcomes(checked: &Value) -> Vec<(&str, Option<bool>)> {
    let cases = checked["cases"].as_array().unwrap();
    cases.iter().map(|case| (case["case"].as_str().unwrap(), case["passed"].as_bool())).collect()
}

#[test]
fn a_receiver_is_checked_and_its_answers_are_explained() {
    let (folder, data_dir) = data_dir();
    let daemon = RealDaemon::start(&data_dir, &[]);
    ask(&data_dir, &["company", "create", "--slug", "acme"]);
    // A receiver that takes everything.
    let careless = Running::start(bare(&["sink", "--port", "0", "--output", "json"]));
    let url = format!("http://{}/", careless.note("lutine sink listening on http://"));
    let subscribe = |url: &str, more: &[&str]| ask(&data_dir, &[&["subscription", "create", "--url", url], more].concat());
    subscribe(&url, &[]);
    let (code, answer) = checked(&data_dir, "1");
    assert_eq!((code, &answer["passed"]), (Some(1), &json!(false)));
    let [good, duplicate, slow] = ["good", "duplicate", "slow"].map(|case| (case, Some(true)));
    assert_eq!(outcomes(&answer), [good, duplicate, ("tampered", Some(false)), ("stale", Some(false)), slow]);
    let page = run(&data_dir, &["subscription", "check", "1", "--output", "table"]);
    let page = String::from_utf8(page.stdout).unwrap();
    assert!(page.contains("tampered   FAILED  204") && page.contains("it does not check the signature"), "{page}");

    // The same one again, told how to check each profile's signature.
    drop(careless);
    let profiles = [
        &[][..],
        &["--profile", "envelope"],
        &["--profile", "cloudevents", "--no-auth"],
        &["--profile", "cloudevents", "--no-auth", "--override", "body=cloudevents-binary"],
        &["--profile", "cloudevents", "--no-auth", "--override", "body=cloudevents-batch"],
        &["--profile", "reference"],
        &["--profile", "bridge", "--no-auth"],
        &["--profile", "signed-envelope"],
        &["--profile", "signed-envelope", "--override", "signature=body-rsa-sha256"],
        &["--override", "signature=none"],
    ];
    let made: Vec<Value> = profiles.iter().map(|more| subscribe(&url, more)).collect();
    let key = ask(&data_dir, &["key", "create", "--company", "acme", "--scope", "subscriptions:read"])["key"].clone();
    let pem = Client::new(daemon.address, key.as_str().unwrap()).get("/api/v1/webhooks/public-key").expect(200);
    let file = folder.path().join("acme.pem");
    std::fs::write(&file, pem.text()).unwrap();
    let port = url.trim_end_matches('/').rsplit(':').next().unwrap();
    let mut words = vec!["sink", "--port", port, "--output", "json", "--public-key", file.to_str().unwrap()];
    for one in made.iter().take(8) {
        words.extend(["--secret", one["secret"].as_str().unwrap()]);
    }
    let careful = Running::start(bare(&words));
    careful.note("lutine sink listening on http://");
    for (one, more) in made.iter().zip(profiles) {
        let (code, answer) = checked(&data_dir, &one["id"].to_string());
        let (tampered, stale) = match more.last() {
            // Nothing is checked, and a webhook without any signature is not let in.
            Some(&"signature=none") => {
                assert_eq!((code, outcomes(&answer)[0]), (Some(1), ("good", Some(false))), "{answer}");
                continue;
            }
            // The time of sending is not signed.
            Some(&"signed-envelope" | &"signature=body-rsa-sha256") => (Some(true), None),
            _ => (Some(true), Some(true)),
        };
        assert_eq!(outcomes(&answer), [good, duplicate, ("tampered", tampered), ("stale", stale), slow], "{more:?}: {answer}");
        assert_eq!(code, Some(0));
    }
}

#[test]
fn a_receiver_is_asked_for_its_consent() {
    let (_folder, data_dir) = data_dir();
    let _daemon = RealDaemon::start(&data_dir, &[]);
    ask(&data_dir, &["company", "create", "--slug", "acme"]);
    let sink = Running::start(bare(&["sink", "--port", "0", "--output", "json"]));
    let url = format!("http://{}/", sink.note("lutine sink listening on http://"));
    let create = |url: &str| {
        let options = ["--profile", "cloudevents", "--no-auth", "--override", "handshake=options"];
        ask(&data_dir, &[&["subscription", "create", "--url", url], &options[..]].concat())
    };
    assert_eq!(create(&url)["state"], "active");
    assert_eq!(create("http://127.0.0.1:9/")["state"], "unverified");
    assert_eq!(ask(&data_dir, &["subscription", "verify", "1"]), json!({"state": "active"}));
    let page = run(&data_dir, &["subscription", "verify", "2", "--output", "table"]);
    assert_eq!(String::from_utf8(page.stdout).unwrap(), "subscription 2 is unverified: the receiver refuses connections\n");
    let refused = run(&data_dir, &["subscription", "check", "2"]);
    assert!(String::from_utf8(refused.stderr).unwrap().contains("has not consented"));
}
