//! Power losses on a simulated disk, with an oracle of what was acknowledged.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod damage;
mod delivering;
mod disk;
mod engine;
mod faulty;
mod lifecycle;
mod obligations;
mod outage;
mod reading;
mod room;
mod sending;
mod stage;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use lutine::store::faults::Faults;

use self::world::World;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Power losses of one run: 5,000, or what `LUTINE_SIMULATION_LOSSES` says; `LUTINE_SIMULATION_SEED` is the first seed.
fn losses() -> u64 {
    number("LUTINE_SIMULATION_LOSSES").unwrap_or(5_000)
}

/// How a run ended: what its power losses hit, or after how many of them a promise was broken.
struct Run {
    losses: u64,
    hits: BTreeMap<String, u64>,
    broken: Option<String>,
}

/// Runs worlds until so many power losses have happened, on all cores; the first broken promise ends it.
fn run(losses: u64, faults: Faults) -> Run {
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get) as u64;
    let total = Arc::new(AtomicU64::new(0));
    let is_over = Arc::new(AtomicBool::new(false));
    let first = number("LUTINE_SIMULATION_SEED").unwrap_or(1);
    let workers: Vec<_> = (first..first + threads)
        .map(|first_seed| {
            let (total, is_over) = (Arc::clone(&total), Arc::clone(&is_over));
            std::thread::spawn(move || -> (BTreeMap<String, u64>, Option<String>) {
                let mut hits = BTreeMap::new();
                for seed in (first_seed..).step_by(threads as usize) {
                    let mut world = World::new(seed, faults);
                    for _ in 0..25 {
                        if is_over.load(Ordering::Acquire) || total.load(Ordering::Acquire) >= losses {
                            return (hits, None);
                        }
                        // A store that panics over what it finds on disk has broken its promise to open.
                        let lived = catch_unwind(AssertUnwindSafe(|| world.live_until_power_loss()));
                        match lived.unwrap_or_else(|_| Err("a panic inside the store".to_owned())) {
                            Ok(losses) => total.fetch_add(losses, Ordering::AcqRel),
                            Err(broken) => {
                                is_over.store(true, Ordering::Release);
                                return (hits, Some(format!("seed {seed}: {broken}")));
                            }
                        };
                    }
                    for (hit, count) in world.hits {
                        *hits.entry(hit).or_default() += count;
                    }
                }
                (hits, None)
            })
        })
        .collect();
    let mut run = Run { losses: 0, hits: BTreeMap::new(), broken: None };
    for worker in workers {
        let (hits, broken) = worker.join().unwrap();
        for (hit, count) in hits {
            *run.hits.entry(hit).or_default() += count;
        }
        run.broken = run.broken.or(broken);
    }
    run.losses = total.load(Ordering::Acquire);
    run
}

/// What must be hit in 5,000 power losses, and how often at least. A name stands for all that begin with it.
const CENSUS: [(&str, u64); 24] = [
    ("creating: ", 100),
    ("opening: ", 500),
    ("committing: write to open", 200),
    ("committing: length of open", 5),
    ("committing: sync of open", 100),
    ("rotating: ", 200),
    ("rotating: sync of ledger", 20),
    ("rotating: creation of open", 20),
    ("rotating: sync of open", 20),
    ("rotating: sync of log folder", 20),
    ("sealing: ", 400),
    ("sealing: creation of sealing", 20),
    ("sealing: write to sealing", 100),
    ("sealing: sync of sealing", 20),
    ("sealing: rename of sealing", 20),
    ("sealing: sync of log folder", 20),
    ("sealing: sync of ledger", 20),
    ("sealing: removal of open", 20),
    ("dropping: write to ledger", 10),
    ("dropping: sync of ledger", 10),
    ("dropping: removal of sealed", 10),
    ("dropping: sync of log folder", 10),
    ("acting: write to ledger", 50),
    ("acting: sync of ledger", 50),
];

#[test]
fn no_power_loss_costs_an_acknowledged_event() {
    let started = Instant::now();
    let run = run(losses(), Faults::default());
    assert_eq!(run.broken, None);
    println!("{} power losses in {:.1} s, nothing lost; they hit", run.losses, started.elapsed().as_secs_f64());
    for (hit, count) in &run.hits {
        println!("{count:6}  {hit}");
    }
    for (name, least) in CENSUS {
        let count: u64 = run.hits.iter().filter(|(hit, _)| hit.starts_with(name)).map(|(_, count)| count).sum();
        let least = if losses() < 5_000 { 0 } else { least };
        assert!(count >= least, "only {count} power losses hit `{name}`, not {least}");
    }
}

#[test]
fn the_planted_bugs_are_caught() {
    let planted = [
        ("acknowledges before the commit", Faults { acknowledge_before_commit: true, ..Faults::default() }),
        ("writes dedupe rows in another transaction", Faults { dedupe_in_another_transaction: true, ..Faults::default() }),
        ("writes snapshots in another transaction", Faults { snapshots_in_another_transaction: true, ..Faults::default() }),
        ("takes ids from a counter", Faults { ids_from_counter: true, ..Faults::default() }),
        ("switches to a sealed file before it is synced", Faults { switch_before_sync: true, ..Faults::default() }),
    ];
    for (bug, faults) in planted {
        let run = run(1_000, faults);
        let Some(broken) = run.broken else { panic!("not caught in {} power losses: a store that {bug}", run.losses) };
        println!("caught after {:4} power losses: a store that {bug} ({broken})", run.losses);
    }
}

#[test]
fn a_flipped_bit_is_reported_and_never_served() {
    let mut detected = 0;
    for seed in 1..=150 {
        let world = World::sealed(seed);
        match world.flip_and_read(seed) {
            Ok(was_detected) => detected += u64::from(was_detected),
            Err(wrong) => panic!("seed {seed}: {wrong}"),
        }
    }
    assert!(detected > 20, "only {detected} of 150 flips hit anything that matters");
}
