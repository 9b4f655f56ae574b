//! A thread that has lost a group commits nothing more for the tasks that read in it.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use turnstile_engine::runtime::CommitStep;
use turnstile_state::StateError;

use crate::LIMIT;
use crate::application::Counting;
use crate::cluster::{Cluster, eventually, has_assignment};
use crate::crash::{WORDS, assert_counted_once_each};

/// Whether the next commit is held up before its positions join, and is.
static PHASE: AtomicU8 = AtomicU8::new(FREE);
const FREE: u8 = 0;
const AWAITED: u8 = 1;
const HELD_UP: u8 = 2;

/// The steps that were reached since a commit was held up.
static STEPS: Mutex<Vec<CommitStep>> = Mutex::new(Vec::new());

/// The group that is lost has nothing to read, so no position of it has moved.
#[test]
fn who_has_lost_a_group_without_records_commits_nothing() {
    let cluster = Cluster::new("fence");
    let counting = Counting::start_with(&cluster, "a", |config| {
        config.on_commit_step = Some(hold_up);
    });
    send(&cluster, &counting);
    assert_counted_once_each(&cluster, &counting, 1);
    PHASE.store(AWAITED, Ordering::Relaxed);
    send(&cluster, &counting);
    eventually("a commit is held up", LIMIT, || is_in(HELD_UP));
    let usurper = cluster.usurper(&counting.group("resets"), "a-0", &counting.resets());
    eventually("the group is lost", LIMIT, || {
        usurper.poll(Duration::ZERO);
        has_assignment(&usurper)
    });
    PHASE.store(FREE, Ordering::Relaxed);
    eventually("another step is reached", LIMIT, || STEPS.lock().len() > 1);
    assert_eq!(
        STEPS.lock().get(1),
        Some(&CommitStep::ChangelogSent),
        "the commit that was held up has gone on instead of a new one"
    );
    assert_counted_once_each(&cluster, &counting, 2);
    counting.stop();
}

fn send(cluster: &Cluster, counting: &Counting) {
    for n in 0..WORDS {
        cluster.send(&counting.words(), &format!("w{n}"), "x");
    }
    cluster.flush();
}

fn is_in(phase: u8) -> bool {
    PHASE.load(Ordering::Relaxed) == phase
}

fn hold_up(step: CommitStep, _: &dyn Fn() -> Result<(), StateError>) {
    let ordering = Ordering::Relaxed;
    if !is_in(AWAITED) {
        STEPS.lock().push(step);
        return;
    }
    if step == CommitStep::ChangelogSent {
        PHASE.store(HELD_UP, ordering);
        *STEPS.lock() = vec![step];
        eventually("it is set free", LIMIT, || is_in(FREE));
    }
}
