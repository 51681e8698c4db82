//! What watches the daemon: health, readiness, metrics.

use crate::support::daemon::TestDaemon;

#[test]
fn health_and_readiness_need_no_key_and_tell_nothing_else() {
    let daemon = TestDaemon::start();
    let mut nobody = daemon.client("");
    for (path, text) in [("/healthz", "ok\n"), ("/readyz", "ready\n")] {
        let answer = nobody.get(path).expect(200);
        assert_eq!((answer.text(), answer.header("content-type")), (text, Some("text/plain")));
    }
}

#[test]
fn every_metric_is_the_products_own() {
    let daemon = TestDaemon::start();
    let mut acme = daemon.acme();
    acme.publish(r#"{"type":"a","dedupeKey":"secret-key-of-a-customer"}"#);
    acme.get("/api/v1/events/77777").expect(404);
    let answer = daemon.client("").get("/metrics").expect(200);
    let text = answer.text();
    let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(samples.iter().all(|line| line.starts_with("lutine_")), "{text}");
    for expected in [
        "lutine_events_published_total{outcome=\"stored\"} 1",
        "lutine_http_requests_total{route=\"GET /api/v1/events/{id}\",status=\"404\"} 1",
        "lutine_tail_id 1",
    ] {
        assert!(samples.contains(&expected), "{expected} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
    // Neither paths with ids, nor keys, nor what customers send become labels.
    for secret in ["77777", "acme", "secret-key", acme.key()] {
        assert!(!text.contains(secret), "{secret} is in\n{text}");
    }
}

#[test]
fn closed_metrics_want_a_key_that_may_read_them() {
    let daemon = TestDaemon::with(|config| config.telemetry.metrics_open = false);
    daemon.company("acme");
    let refused = daemon.client("").get("/metrics").expect(401);
    assert_eq!(refused.header("www-authenticate"), Some("Bearer realm=\"lutine\""));
    for scope in ["events:read", "events:write", "subscriptions:read", "deliveries:read"] {
        let refused = daemon.client(&daemon.key("acme", &[scope])).get("/metrics").expect(403);
        assert_eq!(refused.json()["scope"], "metrics:read");
        assert_eq!(refused.header("x-ratelimit-policy"), Some("\"read\";q=0;w=60"));
    }
    for key in [daemon.key("acme", &["metrics:read"]), daemon.key("acme", &["admin"]), daemon.system_key()] {
        assert!(daemon.client(&key).get("/metrics").expect(200).text().contains("lutine_tail_id 0"));
    }
    daemon.local().get("/metrics").expect(200);
}

#[test]
fn closed_metrics_count_as_reading_and_say_so() {
    let daemon = TestDaemon::with(|config| {
        config.telemetry.metrics_open = false;
        config.rate_limits.read_per_minute = 1;
    });
    daemon.company("acme");
    let mut watcher = daemon.client(&daemon.key("acme", &["metrics:read"]));
    assert_eq!(watcher.get("/metrics").expect(200).header("x-ratelimit-remaining"), Some("0"));
    assert_eq!(watcher.get("/metrics").expect(429).header("retry-after"), Some("60"));
}
