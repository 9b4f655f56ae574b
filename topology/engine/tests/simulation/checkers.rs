//! What has to hold of everything that is committed, one checker a property.

use std::collections::{BTreeMap, BTreeSet};

use super::world::World;

/// A property and who checks it.
pub(crate) type Checker = (&'static str, fn(&World) -> Result<(), String>);

/// After every action.
pub(crate) const ALWAYS: &[Checker] = &[
    ("money is conserved", money_is_conserved),
    (
        "no account receives more than was sent",
        nothing_from_nowhere,
    ),
    ("a transfer is paid once", paid_once),
    ("a hold has a timer, and a timer its hold", no_timer_lost),
    ("no timer fires early", none_early),
    (
        "nothing is in the books that was not told",
        nothing_invented,
    ),
];

/// When nothing is left to do.
pub(crate) const AT_THE_END: &[Checker] = &[
    ("every hold has ended", no_hold_left),
    ("every credit has arrived", all_arrived),
    ("every outcome is in the books", all_in_the_books),
    (
        "every transfer has an outcome that counts",
        every_transfer_ended,
    ),
];

fn held(world: &World) -> u64 {
    world.holds().iter().map(|(_, sum, _)| sum).sum()
}

fn credited(world: &World) -> u64 {
    world.credits().iter().map(|(_, sum, _, _)| sum).sum()
}

fn equal<T: PartialEq + std::fmt::Debug>(found: &T, expected: &T) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{found:?} is not {expected:?}"))
}

fn money_is_conserved(world: &World) -> Result<(), String> {
    let there = world.total_balance() + held(world) + credited(world);
    equal(&there, &world.total_opened())
}

fn nothing_from_nowhere(world: &World) -> Result<(), String> {
    if world.total_received() <= credited(world) {
        return Ok(());
    }
    Err(format!("{} of {}", world.total_received(), credited(world)))
}

fn paid_once(world: &World) -> Result<(), String> {
    let mut paid = BTreeSet::new();
    for (id, ..) in world.credits() {
        if !paid.insert(id.clone()) {
            return Err(format!("{id} twice"));
        }
    }
    Ok(())
}

fn no_timer_lost(world: &World) -> Result<(), String> {
    let timers: BTreeSet<(String, i64)> = world.timers().into_iter().collect();
    let holds = world
        .holds()
        .into_iter()
        .map(|(id, _, deadline)| (id, deadline));
    equal(&timers, &holds.collect())
}

fn none_early(world: &World) -> Result<(), String> {
    let credits = world.credits();
    match credits
        .iter()
        .find(|(_, _, deadline, time)| time < deadline)
    {
        None => Ok(()),
        Some(early) => Err(format!("{early:?}")),
    }
}

fn no_hold_left(world: &World) -> Result<(), String> {
    equal(&world.holds(), &Vec::new())
}

fn all_arrived(world: &World) -> Result<(), String> {
    equal(&world.total_received(), &credited(world))
}

fn nothing_invented(world: &World) -> Result<(), String> {
    let told = world.told();
    let books = world.books().into_iter();
    let mut invented = books.filter(|(id, times)| told.get(id).is_none_or(|told| times > told));
    match invented.next() {
        None => Ok(()),
        Some((id, times)) => Err(format!("{id} {times} times")),
    }
}

fn all_in_the_books(world: &World) -> Result<(), String> {
    equal(&world.books().into_iter().collect(), &world.told())
}

/// One outcome a transfer; a refusal leaves no trace, so a repeated command is decided anew.
fn every_transfer_ended(world: &World) -> Result<(), String> {
    let mut ends: BTreeMap<String, usize> = world.asked.keys().map(|id| (id.clone(), 0)).collect();
    let mut refused = BTreeSet::new();
    for (id, outcome) in world.outcomes() {
        if outcome == "refused" {
            refused.insert(id);
        } else if let Some(count) = ends.get_mut(&id) {
            *count += 1;
        } else {
            return Err(format!("{id} was never asked for, and {outcome}"));
        }
    }
    for (id, count) in ends {
        if count > 1 || (count == 0 && !refused.contains(&id)) {
            return Err(format!("{id} ended {count} times"));
        }
    }
    Ok(())
}
