//! Reading: pages of 50, single events and filtered pages, against a null server that returns the same bytes.

use super::{Bench, Contestant, add_against_null, contest};
use crate::daemon::{Daemon, Options};
use crate::http::{Client, call};
use crate::load::Expect;
use crate::null::Null;
use crate::report::{Row, Target, count, micros, millis, per_second};
use crate::requests::{Gets, RARE_EVERY, RARE_TYPE};
use crate::store::{PAGE, Page, Store};

const FOUND: Expect = Expect::Status(200);
const CONNECTIONS: usize = 32;

/// What the tail and the random places must reach against the null server.
struct Targets {
    tail: f64,
    random: f64,
}

pub fn run_page(bench: &mut Bench) {
    bench.prepare(true);
    let random = |store: &Store| {
        let paths = store.survey.cursors.iter().map(|cursor| format!("/api/v1/events?limit={PAGE}&cursor={cursor}"));
        paths.collect::<Vec<_>>()
    };
    let tail = vec![bench.large().tail().page];
    compare(bench, "page of 50", tail, random, Targets { tail: 0.75, random: 0.45 });
    bench.report.end_section("Page of 50 (32 connections; limit: null server returning the same bytes)");
}

pub fn run_get(bench: &mut Bench) {
    bench.prepare(true);
    let path = |id: &u64| format!("/api/v1/events/{id}");
    let random = |store: &Store| store.survey.ids.iter().map(path).collect::<Vec<_>>();
    let tail = bench.large().tail().ids.iter().map(path).collect();
    compare(bench, "get by id", tail, random, Targets { tail: 0.6, random: 0.25 });
    bench.report.end_section("Get by id (32 connections; limit: null server returning the same bytes)");
}

fn compare(bench: &mut Bench, what: &str, tail: Vec<String>, random: impl Fn(&Store) -> Vec<String>, targets: Targets) {
    let large = bench.large();
    let bytes = large.client().get(&tail[0]).body().into_owned();
    let null = Null::start(bench.root(), &bytes);
    let gets = Gets::in_order(&large.key, tail);
    let [limit, lutine] = contest(
        &bench.settings,
        CONNECTIONS,
        [Contestant::new(null.address, &null.process, FOUND, || gets.clone()), Contestant::daemon(&large.daemon, FOUND, || gets.clone())],
    );
    let at_least = Some(Target::AtLeast(targets.tail, ""));
    let title = format!("{what} at the tail ({} bytes)", count(bytes.len() as f64));
    add_against_null(&mut bench.report, &title, [&lutine, &limit], at_least, None);

    let (large, small) = (bench.large(), bench.small());
    let (large_paths, small_paths) = (random(large), random(small));
    let bytes = large.client().get(&large_paths[large_paths.len() / 2]).body().into_owned();
    let null = Null::start(bench.root(), &bytes);
    let large_gets = Gets::shuffled(&large.key, large_paths);
    let small_gets = Gets::shuffled(&small.key, small_paths);
    let [limit, of_large, of_small] = contest(
        &bench.settings,
        CONNECTIONS,
        [
            Contestant::new(null.address, &null.process, FOUND, || large_gets.clone()),
            Contestant::daemon(&large.daemon, FOUND, || large_gets.clone()),
            Contestant::daemon(&small.daemon, FOUND, || small_gets.clone()),
        ],
    );
    let events = [large, small].map(|store| count(store.events as f64));
    let at_least = Some(Target::AtLeast(targets.random, ""));
    let title = format!("{what} at random over {} sealed events", events[0]);
    add_against_null(&mut bench.report, &title, [&of_large, &limit], at_least, None);
    let row = Row::figure(format!("{what} at random, of the same over {} sealed events", events[1]), per_second(of_large.rate()));
    let row = row.beside(per_second(of_small.rate()), of_large.rate_to(&of_small));
    bench.report.add(row.ratio_must(Target::AtLeast(0.75, "")));
}

pub fn run_bearer(bench: &mut Bench) {
    let daemon = Daemon::start(&bench.directory("bearer"), Options::DEFAULT);
    let (key, token) = (daemon.make_key(), daemon.make_token());
    let mut client = Client::connect(daemon.address, &key);
    client.send(&call("POST", "/api/v1/events", &key, r#"{"type":"claim.created","payload":{"claimId":"c-1"}}"#), 201);
    let by = |credential: &str| Gets::in_order(credential, ["/api/v1/events/1".to_owned()]);
    let (by_key, by_token) = (by(&key), by(&token));
    let [by_key, by_token] = contest(
        &bench.settings,
        CONNECTIONS,
        [Contestant::daemon(&daemon, FOUND, || by_key.clone()), Contestant::daemon(&daemon, FOUND, || by_token.clone())],
    );
    let row = Row::figure("get by id with an access token, server CPU".to_owned(), micros(by_token.cpu_us()));
    let row = row.beside(micros(by_key.cpu_us()), by_token.cpu_to(&by_key));
    bench.report.add(row.ratio_must(Target::AtMost(1.15, "")));
    let row = Row::figure("get by id with an access token, requests".to_owned(), per_second(by_token.rate()));
    bench.report.add(row.beside(per_second(by_key.rate()), by_token.rate_to(&by_key)));
    bench.report.end_section("Access token (32 connections; limit: the same with an API key)");
}

pub fn run_filtered(bench: &mut Bench) {
    bench.prepare(false);
    let large = bench.large();
    let mut client = large.client();
    let rare = large.events / RARE_EVERY;
    let limit = (rare / 3).clamp(1, 10);
    // A cursor holds for its filter only, so these are collected under it.
    let mut paths = vec![format!("/api/v1/events?types={RARE_TYPE}&limit={limit}")];
    let mut next = Page::get(&mut client, &format!("/api/v1/events?types={RARE_TYPE}&limit=1")).next;
    while let Some(cursor) = next.filter(|_| (paths.len() as u64) + limit <= rare) {
        next = Page::get(&mut client, &format!("/api/v1/events?types={RARE_TYPE}&limit=1&cursor={cursor}")).next;
        paths.push(format!("/api/v1/events?types={RARE_TYPE}&limit={limit}&cursor={cursor}"));
    }
    let chunks_before = large.daemon.metric("lutine_chunks_read_total");
    let mut events = 0;
    for path in &paths {
        let found = Page::get(&mut client, path).ids.len() as u64;
        assert_eq!(found, limit, "{path} returns a full page");
        events += found;
    }
    let chunks = large.daemon.metric("lutine_chunks_read_total").zip(chunks_before).map(|(after, before)| after - before);
    let bytes = client.get(&paths[0]).body().into_owned();
    let null = Null::start(bench.root(), &bytes);
    let gets = Gets::shuffled(&large.key, paths);
    let [null_series, lutine] = contest(
        &bench.settings,
        1,
        [Contestant::new(null.address, &null.process, FOUND, || gets.clone()), Contestant::daemon(&large.daemon, FOUND, || gets.clone())],
    );
    let title = format!("page of {limit} of a type that is 1 in {}", count(RARE_EVERY as f64));
    add_against_null(&mut bench.report, &title, [&lutine, &null_series], None, None);
    let [ours, theirs] = [&lutine, &null_series].map(|series| [0.5, 0.99].map(|share| millis(series.latency(share))).join(" / "));
    bench.report.add(Row { limit: theirs, ..Row::figure(format!("{title}, p50 / p99"), ours) });
    bench.report.add(Row::figure(format!("{title}, server CPU per event"), micros(lutine.cpu_us() / limit as f64)));
    let what = format!("{title}, chunks read per event");
    bench.report.add(match chunks {
        Some(chunks) => {
            let per_event = chunks / events as f64;
            Row::figure(what, format!("{per_event:.2}")).must(per_event, Target::AtMost(1.0, ""))
        }
        None => Row::figure(what, "not counted by the daemon"),
    });
    bench.report.end_section("Filtered page (1 connection; limit: null server returning the same bytes)");
}
