//! The binary on a real Kafka, at `KAFKA_BROKERS`, and what happens when it is killed.
//!
//! The names of groups and topics are fixed by the contract, so two tests cannot share a
//! broker at the same time, and no prefix keeps them apart. Each test takes the broker
//! for itself: it begins with fresh topics and without groups, and removes them at its
//! end ([`broker::Broker`]). So the tests run on any broker, near or far, but one after
//! the other: `--test-threads=1`, or in any case a lock. A broker on which the topics of
//! the contract lie already, and not from here, is refused: they may be somebody's.
//!
//! The instances are processes ([`instance::Instance`]), each with a state directory of
//! the test, killed when the test ends. What they did is checked from outside: on the
//! committed records of the topics ([`audit`]), over HTTP, and, where `TURNSTILE_CHECK`
//! is set to a program, by that. With `TURNSTILE_LOAD`, a program too, the load of the
//! crash tests comes in part from there.

#![expect(
    clippy::indexing_slicing,
    reason = "a test that looks for what is not there has failed"
)]

mod audit;
mod bad_input;
mod broker;
mod client;
mod crash;
mod failover;
mod flow;
mod foreign;
mod groups;
mod instance;
mod instances;
mod lists;
mod load;
mod metrics;
mod outside;
mod own_broker;
mod race;
mod record;
mod routing;
mod secured;
mod start_up;
mod timers;

use std::time::{Duration, Instant};

/// How long anything may take that is to happen at all.
pub(crate) const LIMIT: Duration = Duration::from_mins(2);

/// Waits until `find` finds something.
pub(crate) fn eventually<T>(what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(begun.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        pause(Duration::from_millis(50));
    }
}

/// Lets time pass, where that is what the test is about.
pub(crate) fn pause(duration: Duration) {
    std::thread::sleep(duration);
}
