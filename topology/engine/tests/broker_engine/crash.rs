//! A process that ends itself after a step of a commit, and the one that comes after it.
//!
//! While its commits are under way more words are counted, so that it loses a transaction
//! that has begun as well.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use turnstile_engine::runtime::CommitStep;
use turnstile_state::StateError;

use crate::application::{Counting, wait_until_more_is_counted};
use crate::cluster::{Cluster, eventually};

const LIMIT: Duration = Duration::from_secs(60);
const SIGABRT: i32 = 6;
const INSTANCE: &str = "a";
/// Enough that all partitions have some.
pub(crate) const WORDS: u64 = 16;
pub(crate) const PARTITIONS: i32 = 4;
const ROUNDS: u64 = 2_000;

// What the child is told.
const APPLICATION: &str = "CRASH_APPLICATION";
const FOLDER: &str = "CRASH_FOLDER";
const STEP: &str = "CRASH_STEP";
const TIME: &str = "CRASH_TIME";
const FLUSHED: &str = "CRASH_FLUSHED";

/// Where a child ends itself.
struct Crash {
    step: CommitStep,
    /// The how-manieth time that it does the step.
    time: u32,
    /// Whether its stores are on the disk then, or as they were at the start.
    flushed: bool,
}

#[test]
fn a_crash_with_the_changelog_sent_costs_nothing() {
    survives_crashes_after(CommitStep::ChangelogSent);
}

#[test]
fn a_crash_with_the_positions_joined_costs_nothing() {
    survives_crashes_after(CommitStep::PositionsJoined);
}

#[test]
fn a_crash_with_the_transaction_committed_costs_nothing() {
    survives_crashes_after(CommitStep::TransactionCommitted);
}

#[test]
fn a_crash_with_one_of_the_tasks_stored_costs_nothing() {
    survives_crashes_after(CommitStep::TaskStored);
}

#[test]
fn a_crash_with_all_tasks_stored_costs_nothing() {
    survives_crashes_after(CommitStep::AllStored);
}

/// Three processes crash one after the other while words come in; a last one counts the
/// rest. Every count came out once, and the stores hold the last of them.
fn survives_crashes_after(step: CommitStep) {
    let cluster = Cluster::new("crash");
    let words = format!("{}-words", cluster.application());
    cluster.create_topic(&words, PARTITIONS);
    let mut rounds = 0;
    let mut send_round = || {
        for word in 0..WORDS {
            cluster.send(&words, &format!("w{word}"), "x");
        }
        cluster.flush();
        rounds += 1;
        rounds
    };
    for (time, flushed) in [(5, true), (1, false), (2, true)] {
        let crash = Crash {
            step,
            time,
            flushed,
        };
        let mut child = start_child(&cluster, &crash);
        let ended = loop {
            if let Some(ended) = child.try_wait().expect("the child can be asked") {
                break ended;
            }
            send_round();
            std::thread::park_timeout(Duration::from_millis(50));
        };
        assert_eq!(ended.signal(), Some(SIGABRT), "the child ended by itself");
    }
    let rounds = send_round();

    let counting = Counting::start(&cluster, INSTANCE);
    assert_counted_once_each(&cluster, &counting, rounds);
    counting.stop();
}

/// Every count of every word came out once, in order, and the stores hold the last of them.
pub(crate) fn assert_counted_once_each(cluster: &Cluster, counting: &Counting, rounds: u64) {
    let expected: Vec<String> = (1..=rounds).map(|count| count.to_string()).collect();
    let total = expected.len() * usize::try_from(WORDS).expect("a small number");
    let mut counts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (word, count) in cluster.read_committed(&counting.counts(), total) {
        counts.entry(word).or_default().push(count);
    }
    for word in (0..WORDS).map(|word| format!("w{word}")) {
        assert_eq!(counts.remove(&word).as_ref(), Some(&expected), "{word}");
        assert_eq!(counting.stored(&word), Some(rounds), "{word}");
    }
}

/// What was sent in a transaction that nobody ends would be held back from all readers
/// until it times out, though the tasks themselves could be restored at once.
#[test]
fn what_a_lost_instance_had_sent_only_holds_nobody_up() {
    let cluster = Cluster::new("held-up");
    let counting = Counting::start(&cluster, INSTANCE);
    let child = Killed(
        command("crash::child_that_never_commits", &cluster)
            .spawn()
            .expect("the child starts"),
    );
    eventually("the child has its share", LIMIT, || counting.running() == 2);
    // More than an instance keeps to itself until it commits.
    for _ in 0..ROUNDS {
        for word in 0..WORDS {
            cluster.send(&counting.words(), &format!("w{word}"), "x");
        }
    }
    cluster.flush();
    eventually("both have sent counts", LIMIT, || {
        (0..PARTITIONS).all(|partition| cluster.end(&counting.counts(), partition).0 > 0)
    });
    drop(child);
    assert_counted_once_each(&cluster, &counting, ROUNDS);
    counting.stop();
}

/// A child process that is killed when this is dropped, however the test ends.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
#[ignore = "run as a child process, which is killed"]
fn child_that_never_commits() {
    let folder = PathBuf::from(told(FOLDER));
    let cluster = Cluster::of(&told(APPLICATION), &folder);
    let _counting = Counting::launch(&cluster, "b", |config| {
        // The broker would not end its transaction before either.
        config.commit_interval = Duration::from_mins(10);
    });
    eventually("the end", LIMIT * 2, || false);
}

fn start_child(cluster: &Cluster, crash: &Crash) -> Child {
    command("crash::child_of_the_crash_tests", cluster)
        .env(STEP, format!("{:?}", crash.step))
        .env(TIME, crash.time.to_string())
        .env(FLUSHED, crash.flushed.to_string())
        .spawn()
        .expect("the child starts")
}

/// Runs an ignored test of this program as a process of its own, on the same application.
fn command(test: &str, cluster: &Cluster) -> Command {
    let this_program = std::env::current_exe().expect("the path of this program");
    let mut command = Command::new(this_program);
    command
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(APPLICATION, cluster.application())
        .env(FOLDER, cluster.folder())
        .stdout(Stdio::null());
    command
}

#[test]
#[ignore = "run as a child process, which ends itself"]
fn child_of_the_crash_tests() {
    let folder = PathBuf::from(told(FOLDER));
    let cluster = Cluster::of(&told(APPLICATION), &folder);
    let _counting = Counting::launch(&cluster, INSTANCE, |config| {
        config.on_commit_step = Some(crash_when_it_is_time);
    });
    eventually("the crash", LIMIT, || false);
}

/// Ends the process with no chance to put anything in order.
fn crash_when_it_is_time(step: CommitStep, flush: &dyn Fn() -> Result<(), StateError>) {
    static TIMES: AtomicU32 = AtomicU32::new(0);
    if step == CommitStep::PositionsJoined {
        wait_until_more_is_counted(WORDS);
    }
    if format!("{step:?}") != told(STEP) {
        return;
    }
    let time: u32 = told(TIME).parse().expect("a number");
    if TIMES.fetch_add(1, Ordering::Relaxed) + 1 < time {
        return;
    }
    if told(FLUSHED) == "true" {
        flush().expect("the stores can be flushed");
    }
    std::process::abort();
}

fn told(name: &str) -> String {
    std::env::var(name).expect("the parent says it")
}
