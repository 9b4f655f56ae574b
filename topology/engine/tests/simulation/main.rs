//! A bank, simulated: random interleavings of records, commits (also such that tasks go on
//! while one is under way), aborts, crashes and clock jumps, of which each run repeats exactly by its seed.
//!
//! `SIMULATION_SEED` runs one seed, and `SIMULATION_RUNS` tells how many there are
//! otherwise. A failure names its seed.

mod bank;
mod checkers;
mod random;
mod world;

use std::env;
use std::thread;

use self::checkers::{ALWAYS, AT_THE_END};
use self::random::Random;
use self::world::World;

/// What happens in one run, before everything is processed to its end.
const ACTIONS: usize = 500;

fn number_from(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

/// Names the seed when the run that it stands for panics.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("run it again with SIMULATION_SEED={}", self.0);
        }
    }
}

fn simulate(seed: u64) {
    let named = Seed(seed);
    let mut random = Random::new(seed);
    let mut world = World::new();
    let check = |world: &World, checkers: &[checkers::Checker]| {
        for (property, checker) in checkers {
            if let Err(fault) = checker(world) {
                panic!("seed {}: {property}: {fault}", named.0);
            }
        }
    };
    for _ in 0..ACTIONS {
        world.act(&mut random);
        check(&world, ALWAYS);
    }
    world.finish();
    check(&world, ALWAYS);
    check(&world, AT_THE_END);
}

#[test]
fn a_bank_loses_nothing() {
    match number_from("SIMULATION_SEED") {
        Some(seed) => simulate(seed),
        None => (0..number_from("SIMULATION_RUNS").unwrap_or(150)).for_each(simulate),
    }
}

#[test]
fn a_seed_repeats_itself() {
    let run = |seed| {
        let mut random = Random::new(seed);
        let mut world = World::new();
        (0..ACTIONS).for_each(|_| world.act(&mut random));
        world.finish();
        (world.credits(), world.outcomes())
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}
