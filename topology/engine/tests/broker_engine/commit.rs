//! What the tasks do while a commit is under way.

use std::sync::atomic::{AtomicU8, Ordering};

use turnstile_engine::runtime::CommitStep;
use turnstile_state::StateError;

use crate::LIMIT;
use crate::application::{Counting, wait_until_more_is_counted};
use crate::cluster::{Cluster, eventually};
use crate::crash::{PARTITIONS, WORDS, assert_counted_once_each};

/// With so many there are more words than the producer keeps outputs to itself between commits.
const ROUNDS: u64 = 100;

/// Where the commit is that is held up.
static PHASE: AtomicU8 = AtomicU8::new(FREE);
const FREE: u8 = 0;
/// The next commit is to be held up.
const AWAITED: u8 = 1;
/// All of its records are delivered, and it waits until more is processed.
const HELD_UP: u8 = 2;
/// More is processed, and it waits until it is set free.
const GONE_ON: u8 = 3;

fn is_in(phase: u8) -> bool {
    PHASE.load(Ordering::Relaxed) == phase
}

#[test]
fn the_tasks_go_on_while_a_commit_is_under_way_and_send_nothing() {
    let cluster = Cluster::new("overlap");
    let counting = Counting::start_with(&cluster, "a", |config| {
        config.on_commit_step = Some(hold_up);
    });
    let mut rounds = 0;
    let mut send_rounds = |number: u64| {
        for n in 0..number * WORDS {
            cluster.send(&counting.words(), &format!("w{}", n % WORDS), "x");
        }
        cluster.flush();
        rounds += number;
        rounds
    };
    let sent = || {
        let partitions = 0..PARTITIONS;
        let ends = partitions.map(|partition| cluster.end(&counting.counts(), partition).0);
        ends.sum::<i64>()
    };
    PHASE.store(AWAITED, Ordering::Relaxed);
    eventually("a commit is held up", LIMIT, || {
        send_rounds(1);
        is_in(HELD_UP)
    });
    let before = sent();
    let rounds = send_rounds(ROUNDS);
    eventually("the tasks have gone on", LIMIT, || is_in(GONE_ON));
    assert_eq!(sent(), before);
    PHASE.store(FREE, Ordering::Relaxed);
    assert_counted_once_each(&cluster, &counting, rounds);
    counting.stop();
}

fn hold_up(step: CommitStep, _: &dyn Fn() -> Result<(), StateError>) {
    let ordering = Ordering::Relaxed;
    if step != CommitStep::PositionsJoined
        || PHASE
            .compare_exchange(AWAITED, HELD_UP, ordering, ordering)
            .is_err()
    {
        return;
    }
    if wait_until_more_is_counted(ROUNDS * WORDS * 3 / 4) {
        PHASE.store(GONE_ON, ordering);
        eventually("it is set free", LIMIT / 2, || is_in(FREE));
    }
}
