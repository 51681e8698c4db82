//! Runs of the delivery engine: whatever happens to power and receivers, every obligation ends, and no limit is passed.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use lutine::store::faults::Faults;

use crate::engine::World;

/// Lives of one world.
const LIVES: u64 = 6;

struct Run {
    losses: u64,
    census: BTreeMap<String, u64>,
    broken: Option<String>,
}

/// Runs worlds until so many power losses have happened, on all cores; the first broken promise ends it.
fn run(losses: u64, faults: Faults) -> Run {
    let first = crate::number("LUTINE_SIMULATION_SEED").unwrap_or(1);
    let next = AtomicU64::new(first);
    let total = AtomicU64::new(0);
    let is_over = AtomicBool::new(false);
    let run = Mutex::new(Run { losses: 0, census: BTreeMap::new(), broken: None });
    let is_traced = std::env::var_os("LUTINE_SIMULATION_TRACE").is_some();
    let threads = if is_traced { 1 } else { std::thread::available_parallelism().map_or(2, std::num::NonZero::get) };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !is_over.load(Ordering::Acquire) && total.load(Ordering::Acquire) < losses {
                    let seed = next.fetch_add(1, Ordering::AcqRel);
                    let mut world = World::new(seed, faults);
                    let lived = catch_unwind(AssertUnwindSafe(|| world.live(LIVES)));
                    let broken = lived.unwrap_or_else(|_| Err("a panic".to_owned())).err();
                    total.fetch_add(world.losses, Ordering::AcqRel);
                    let mut run = run.lock().unwrap();
                    for (what, count) in &world.hits {
                        *run.census.entry(what.clone()).or_default() += count;
                    }
                    for (what, count) in &world.oracle.census {
                        *run.census.entry((*what).to_owned()).or_default() += count;
                    }
                    if let Some(broken) = broken {
                        is_over.store(true, Ordering::Release);
                        run.broken.get_or_insert(format!("seed {seed}: {broken}"));
                    }
                }
            });
        }
    });
    let mut run = run.into_inner().unwrap();
    run.losses = total.load(Ordering::Acquire);
    run
}

/// What must happen in 500 power losses, and how often at least. A name stands for all that begin with it.
const CENSUS: [(&str, u64); 39] = [
    ("publishing: ", 20),
    ("recording: write to attempts", 20),
    ("recording: sync of attempts", 5),
    ("recording: write to ledger", 20),
    ("recording: sync of ledger", 5),
    ("alerting: ", 2),
    ("acting: ", 10),
    ("power loss with an attempt under way", 50),
    ("power loss with outcomes on their way", 50),
    ("orderly restart", 50),
    ("segment dropped", 20),
    ("subscribed", 100),
    ("deleted", 50),
    ("deleted with an attempt under way", 2),
    ("paused", 100),
    ("resumed", 100),
    ("filter changed", 100),
    ("ordering changed", 50),
    ("retried by hand", 50),
    ("discarded", 2),
    ("dead letter discarded", 5),
    ("retried with all others", 50),
    ("suspended for an event told", 20),
    ("power loss between attempts and outcomes", 50),
    ("a person looks at a held one", 2),
    ("replay asked for", 100),
    ("replay done", 50),
    ("replayed", 500),
    ("replay cancelled", 20),
    ("answer 204", 1_000),
    ("answer 500", 1_000),
    ("answer 429", 500),
    ("no answer in time", 500),
    ("answer 410", 20),
    ("answer 413", 50),
    ("delivered", 1_000),
    ("exhausted", 500),
    ("refused", 20),
    ("expired", 100),
];

#[test]
fn every_obligation_ends_and_no_limit_is_passed() {
    let started = Instant::now();
    let losses = crate::losses() / 25;
    let run = run(losses, Faults::default());
    println!("{} power losses in {:.1} s", run.losses, started.elapsed().as_secs_f64());
    for (what, count) in &run.census {
        println!("{count:6}  {what}");
    }
    assert_eq!(run.broken, None);
    for (name, least) in CENSUS {
        let count: u64 = run.census.iter().filter(|(what, _)| what.starts_with(name)).map(|(_, count)| count).sum();
        let least = if losses < 200 { 0 } else { least * losses / 500 };
        assert!(count >= least, "only {count} times `{name}`, not {least}");
    }
}

#[test]
fn the_planted_bugs_of_deliveries_are_caught() {
    let planted = [
        ("writes positions before what they pass", Faults { position_before_outcome: true, ..Faults::default() }),
        ("forgets retries at a restart", Faults { retry_lost_at_restart: true, ..Faults::default() }),
        ("passes what blocks a strict order", Faults { strict_passes_stuck: true, ..Faults::default() }),
        ("forgets keys at a restart", Faults { key_order_lost_at_restart: true, ..Faults::default() }),
        ("starts subscriptions at the tail of their commit", Faults { subscription_from_commit: true, ..Faults::default() }),
    ];
    for (bug, faults) in planted {
        let run = run(1_000, faults);
        let Some(broken) = run.broken else { panic!("not caught in {} power losses: an engine that {bug}", run.losses) };
        println!("caught after {:4} power losses: an engine that {bug} ({broken})", run.losses);
    }
}
