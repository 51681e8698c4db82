//! Power losses on a simulated disk, with an oracle of what was acknowledged.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

mod disk;
mod reading;
mod stage;
mod world;

use lutine::store::faults::Faults;

use self::world::World;

/// Power losses of one run: 5,000, or what `LUTINE_SIMULATION_LOSSES` says.
fn losses() -> u64 {
    std::env::var("LUTINE_SIMULATION_LOSSES").ok().and_then(|text| text.parse().ok()).unwrap_or(5_000)
}

/// Runs worlds until so many power losses have happened, on all cores; the first broken promise ends it.
fn run(losses: u64, faults: Faults) -> Result<u64, String> {
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get) as u64;
    let share = losses.div_ceil(threads);
    let workers: Vec<_> = (0..threads)
        .map(|thread| {
            std::thread::spawn(move || -> Result<u64, String> {
                let mut total = 0;
                let mut seed = thread + 1;
                while total < share {
                    let mut world = World::new(seed, faults);
                    for _ in 0..25 {
                        world.live_until_power_loss().map_err(|broken| format!("seed {seed}: {broken}"))?;
                        total += 1;
                    }
                    seed += threads;
                }
                Ok(total)
            })
        })
        .collect();
    let mut total = 0;
    for worker in workers {
        total += worker.join().map_err(|_| "a panic inside the store".to_owned())??;
    }
    Ok(total)
}

#[test]
fn no_power_loss_costs_an_acknowledged_event() {
    let total = run(losses(), Faults::default()).unwrap();
    println!("{total} power losses, nothing lost");
}

#[test]
fn the_planted_bugs_are_caught() {
    let planted = [
        Faults { acknowledge_before_commit: true, ..Faults::default() },
        Faults { dedupe_in_another_transaction: true, ..Faults::default() },
        Faults { ids_from_counter: true, ..Faults::default() },
        Faults { switch_before_sync: true, ..Faults::default() },
    ];
    for faults in planted {
        let caught = run(4_000, faults);
        println!("{faults:?}: {caught:?}");
        assert!(caught.is_err(), "not caught: {faults:?}");
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
