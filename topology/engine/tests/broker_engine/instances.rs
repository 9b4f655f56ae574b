//! Several instances: what they know of each other, and what it saves them.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::producer::Producer;
use turnstile_engine::partitioner::partition_of;
use turnstile_engine::runtime::{
    ChangelogRestoration, InstancePhase, RestoreListener, StreamsConfig,
};
use turnstile_engine::{Offset, Partition, TaskId};
use turnstile_state::{StateDir, TaskDirName};

use crate::application::{Counting, Release};
use crate::cluster::{Cluster, eventually};
use crate::crash::PARTITIONS;

const LIMIT: Duration = Duration::from_secs(90);
const WORDS: usize = 500;
const ROUNDS: usize = 12;

/// Counts the records that are restored before a task runs.
#[derive(Default)]
struct Restored(AtomicU64);

impl RestoreListener for Restored {
    fn on_batch_restored(&self, _: &ChangelogRestoration, _: Offset, records: u64) {
        self.0.fetch_add(records, Ordering::Relaxed);
    }
}

impl Restored {
    fn listener(self: &Arc<Self>) -> impl FnOnce(&mut StreamsConfig) + use<> {
        let listener = self.clone();
        |config| config.restore_listener = Some(listener)
    }

    fn records(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Writes every word several times, and waits until all are counted.
fn count_words(cluster: &Cluster, counting: &Counting, expected: usize) {
    for n in 0..WORDS * ROUNDS {
        cluster.send(&counting.words(), &format!("w{}", n % WORDS), "x");
        if n % WORDS == 0 {
            cluster.flush();
        }
    }
    cluster.read_committed(&counting.counts(), expected);
}

fn all_tasks() -> BTreeSet<TaskId> {
    ["0_0", "0_1", "0_2", "0_3"]
        .map(|task| task.parse().expect("a task id"))
        .into()
}

/// What is announced: every task once, with the address of who runs it.
#[test]
fn instances_know_where_every_task_runs() {
    let cluster = Cluster::new("known");
    let at = |address: &str| {
        let address = address.to_owned();
        |config: &mut StreamsConfig| config.advertised_address = Some(address)
    };
    let a = Counting::start_with(&cluster, "a", at("host-a:1"));
    let b = Counting::start_with(&cluster, "b", at("host-b:2"));
    for counting in [&a, &b] {
        let owner = |task: TaskId| counting.neighbours().owner(task);
        eventually("each runs two tasks, and everybody knows", LIMIT, || {
            let owners = all_tasks().into_iter().filter_map(owner);
            let owners: Vec<String> = owners
                .map(|host| host.address.expect("it was announced").to_string())
                .collect();
            owners == ["host-a:1", "host-a:1", "host-b:2", "host-b:2"]
        });
        let local: Vec<bool> = all_tasks()
            .into_iter()
            .filter_map(owner)
            .map(|host| host.is_local)
            .collect();
        assert_eq!(local.iter().filter(|local| **local).count(), 2);
    }
    b.stop();
    eventually("what has stopped owns nothing", LIMIT, || {
        let instances = a.neighbours().instances();
        let b = instances.iter().find(|of| of.instance == "b");
        b.is_none_or(|b| b.phase == InstancePhase::Stopped && b.tasks.is_empty())
    });
    a.stop();
}

/// The tasks of a lost instance are restored from where their standbys are.
#[test]
fn a_failover_restores_the_tail_only() {
    let cluster = Cluster::new("failover");
    let restored = Arc::new(Restored::default());
    let a = Counting::start(&cluster, "a");
    let b = Counting::start_with(&cluster, "b", restored.listener());
    eventually("each has tasks", LIMIT, || {
        a.running() == 2 && b.running() == 2
    });
    count_words(&cluster, &a, WORDS * ROUNDS);
    eventually(
        "each keeps up-to-date standbys of what the other runs",
        LIMIT,
        || {
            let instances = a.neighbours().instances();
            instances.len() == 2
                && instances.iter().all(|of| {
                    let here = of
                        .tasks
                        .iter()
                        .chain(of.standbys.iter().map(|standby| &standby.task));
                    here.copied().collect::<BTreeSet<TaskId>>() == all_tasks()
                        && of
                            .standbys
                            .iter()
                            .all(|standby| standby.records_behind == Some(0))
                })
        },
    );
    let before = restored.records();
    a.stop();
    eventually("the other has all tasks", LIMIT, || {
        b.running() == b.tasks()
    });
    let tail = restored.records() - before;
    println!(
        "{tail} records restored of {} in the changelog",
        WORDS * ROUNDS
    );
    assert!(tail < 100, "{tail} records were restored");
    for n in 0..WORDS {
        assert_eq!(b.stored(&format!("w{n}")), u64::try_from(ROUNDS).ok());
    }
    b.stop();
}

/// Without a standby all of it is restored: what the test above would show then.
#[test]
fn a_failover_without_standbys_restores_everything() {
    let cluster = Cluster::new("cold");
    let restored = Arc::new(Restored::default());
    let a = Counting::start_with(&cluster, "a", |config| config.num_standby_replicas = 0);
    let listener = restored.listener();
    let b = Counting::start_with(&cluster, "b", |config| {
        config.num_standby_replicas = 0;
        listener(config);
    });
    eventually("each has tasks", LIMIT, || {
        a.running() == 2 && b.running() == 2
    });
    count_words(&cluster, &a, WORDS * ROUNDS);
    let before = restored.records();
    a.stop();
    eventually("the other has all tasks", LIMIT, || {
        b.running() == b.tasks()
    });
    let all = restored.records() - before;
    assert!(all > 200, "only {all} records were restored");
    b.stop();
}

/// What is committed behind the pending transaction of somebody else cannot be seen yet: a standby
/// does not take itself for up to date without it.
#[test]
fn a_standby_is_stale_while_commits_cannot_be_seen() {
    const FRESH: Duration = Duration::from_secs(1);
    let cluster = Cluster::new("unseen");
    let a = Counting::start(&cluster, "a");
    let b = Counting::start(&cluster, "b");
    eventually("each has tasks", LIMIT, || {
        a.running() == 2 && b.running() == 2
    });
    let mut words = (0..WORDS).map(|n| format!("w{n}"));
    let word = words.find(|word| a.stored_here(word).is_ok());
    let word = word.expect("it runs the task of some");
    let count_it = || {
        cluster.send(&a.words(), &word, "x");
        cluster.flush();
    };
    let has = |count, max_stale| {
        let stored = b.stored_on_standby(&word, max_stale);
        stored.is_ok_and(|stored| stored == Some(count))
    };
    count_it();
    eventually("the standby has it", LIMIT, || has(1, FRESH));

    let changelog = format!("{}-stores-changelog", cluster.application());
    let partition = partition_of(word.as_bytes(), PARTITIONS);
    let pending = cluster.pending_transaction(&changelog, partition.0);
    count_it();
    eventually("it is counted", LIMIT, || a.stored(&word) == Some(2));
    let counted = Instant::now();
    eventually("what was fresh is not any more", LIMIT, || {
        counted.elapsed() > FRESH
    });
    while counted.elapsed() < 5 * FRESH {
        let answer = b.stored_on_standby(&word, FRESH);
        assert!(answer.is_err(), "{answer:?}");
        thread::park_timeout(Duration::from_millis(20));
    }
    assert!(has(1, LIMIT), "a patient reader has what was there before");

    pending
        .abort_transaction(LIMIT)
        .expect("the broker takes it");
    eventually("the standby has that too", LIMIT, || has(2, FRESH));
    b.stop();
    a.stop();
}

/// A standby whose folder holds what is not ours is left alone until that is gone, and keeps no
/// other from being followed.
#[test]
fn a_standby_that_cannot_be_opened_keeps_no_other_from_being_followed() {
    const FRESH: Duration = Duration::from_secs(3);
    let cluster = Cluster::new("foreign");
    // In the folder of the first task that the second instance keeps a standby of.
    let thesis = {
        let state = StateDir::lock(cluster.state("b"), &cluster.application());
        let state = state.expect("nobody has the state of an instance that is to start");
        let folder = state.task_path(&TaskDirName::new(0, 0));
        fs::create_dir(&folder).expect("a folder can be made");
        folder.join("thesis.txt")
    };
    fs::write(&thesis, "ten years of work").expect("a file can be written");
    let a = Counting::start(&cluster, "a");
    let b = Counting::start(&cluster, "b");
    eventually("each has tasks", LIMIT, || {
        a.running() == 2 && b.running() == 2
    });
    let word_in = |partition: Partition| {
        let mut words = (0..WORDS).map(|n| format!("w{n}"));
        let word = words.find(|word| partition_of(word.as_bytes(), PARTITIONS) == partition);
        word.expect("each partition has some")
    };
    let (left_alone, followed) = (word_in(Partition(0)), word_in(Partition(1)));
    let has = |word: &str, count| {
        let stored = b.stored_on_standby(word, FRESH);
        stored.is_ok_and(|stored| stored == Some(count))
    };
    for count in 1..=3 {
        for word in [&left_alone, &followed] {
            cluster.send(&a.words(), word, "x");
        }
        cluster.flush();
        eventually("the other is followed", LIMIT, || has(&followed, count));
        assert!(b.stored_on_standby(&left_alone, LIMIT).is_err());
    }
    assert!(thesis.exists(), "what is not ours is left alone");

    fs::remove_file(&thesis).expect("a file can be removed");
    eventually("it is tried again", LIMIT, || has(&left_alone, 3));
    b.stop();
    a.stop();
}

/// A new instance has restored what it is going to own before it takes it.
#[test]
fn a_new_instance_is_warm_when_it_joins() {
    let cluster = Cluster::new("warm");
    let a = Counting::start(&cluster, "a");
    count_words(&cluster, &a, WORDS * ROUNDS);
    let restored = Arc::new(Restored::default());
    let b = Counting::start_with(&cluster, "b", restored.listener());
    eventually("it has tasks", LIMIT, || b.running() == 2);
    let tail = restored.records();
    assert!(
        tail < 100,
        "{tail} records were restored after it had joined"
    );
    b.stop();
    a.stop();
}

/// One that is not to wait joins at once, and restores then.
#[test]
fn a_new_instance_joins_when_its_time_is_over() {
    let cluster = Cluster::new("in-time");
    let a = Counting::start(&cluster, "a");
    count_words(&cluster, &a, WORDS * ROUNDS);
    let restored = Arc::new(Restored::default());
    let listener = restored.listener();
    let b = Counting::start_with(&cluster, "b", |config| {
        config.warm_join_limit = Duration::ZERO;
        config.num_standby_replicas = 0;
        listener(config);
    });
    eventually("it has tasks", LIMIT, || b.running() == 2);
    let all = restored.records();
    assert!(all > 200, "only {all} records were restored");
    b.stop();
    a.stop();
}

/// An instance with another topology does not join those that are there.
#[test]
fn an_instance_of_another_release_waits_for_those_before_it() {
    let cluster = Cluster::new("releases");
    let old = Counting::start(&cluster, "a");
    let new = Counting::launch_release(&cluster, "b", Release::Tomorrow);
    eventually("it says why it waits", LIMIT, || {
        new.problems()
            .iter()
            .any(|problem| problem.contains("instance a runs another topology"))
    });
    cluster.send(&old.words(), "w1", "x");
    cluster.read_committed(&old.counts(), 1);
    assert_eq!((old.running(), new.running()), (4, 0));
    assert_eq!(old.problems(), [""; 0]);
    old.stop();
    new.wait_until_ready("b");
    assert_eq!(new.running(), 4);
    assert_eq!(new.stored("w1"), Some(1));
    new.stop();
}
