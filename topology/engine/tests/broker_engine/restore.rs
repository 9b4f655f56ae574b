//! What is restored after a start, as a listener hears it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::producer::Producer;
use turnstile_engine::runtime::{ChangelogRestoration, RestoreListener};
use turnstile_engine::{Codec, Offset, Partition};
use turnstile_state::{
    Backend, Batch, RocksBackend, RocksMemory, RocksOptions, StateDir, StateError, StoreId,
    StoreSpec, TaskDirName,
};

use crate::application::{Counting, Release};
use crate::cluster::{Cluster, eventually};

const LIMIT: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 4;
/// The stores of each task that its changelog holds.
const STORES: [&str; 2] = ["counts", "counter-timers"];

/// What was said of one task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Told {
    starts: Vec<(Offset, Offset)>,
    /// Offsets reached, and records.
    batches: Vec<(Offset, u64)>,
    ends: Vec<u64>,
    suspended: Vec<u64>,
}

impl Told {
    fn records(&self) -> u64 {
        self.batches.iter().map(|(_, records)| records).sum()
    }
}

/// Remembers what it hears, by partition.
#[derive(Default)]
struct Recorder(Mutex<BTreeMap<i32, Told>>);

impl Recorder {
    fn note(&self, of: &ChangelogRestoration, note: impl FnOnce(&mut Told)) {
        assert_eq!(of.task.partition, of.partition);
        assert!(of.changelog.ends_with("-stores-changelog"));
        assert_eq!(of.stores, STORES);
        let mut told = self.0.lock().expect("no callback panics");
        note(told.entry(of.partition.0).or_default());
    }

    fn told(&self) -> BTreeMap<i32, Told> {
        self.0.lock().expect("no callback panics").clone()
    }
}

impl RestoreListener for Recorder {
    fn on_restore_start(&self, of: &ChangelogRestoration) {
        self.note(of, |told| told.starts.push((of.start, of.end)));
    }

    fn on_batch_restored(&self, of: &ChangelogRestoration, reached: Offset, records: u64) {
        self.note(of, |told| told.batches.push((reached, records)));
    }

    fn on_restore_end(&self, of: &ChangelogRestoration, total: u64) {
        self.note(of, |told| told.ends.push(total));
    }

    fn on_restore_suspended(&self, of: &ChangelogRestoration, total: u64) {
        self.note(of, |told| told.suspended.push(total));
    }
}

fn start_heard(cluster: &Cluster) -> (Counting, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    let listener = recorder.clone();
    let counting = Counting::start_with(cluster, "a", |config| {
        config.restore_listener = Some(listener);
    });
    (counting, recorder)
}

fn changelog(cluster: &Cluster) -> String {
    format!("{}-stores-changelog", cluster.application())
}

fn all_partitions() -> Vec<i32> {
    (0..PARTITIONS).collect()
}

/// A lost state is restored record by record; a kept one not at all, and both are told.
#[test]
fn a_listener_hears_every_record_that_is_restored() {
    let cluster = Cluster::new("listener");
    let counting = Counting::start(&cluster, "a");
    for n in 0..500 {
        cluster.send(&counting.words(), &format!("w{}", n % 30), "x");
        if n % 100 == 0 {
            cluster.flush();
        }
    }
    cluster.read_committed(&counting.counts(), 500);
    counting.stop();

    cluster.lose_state("a");
    let (counting, recorder) = start_heard(&cluster);
    let told = recorder.told();
    assert_eq!(told.keys().copied().collect::<Vec<_>>(), all_partitions());
    for (partition, told) in &told {
        let end = cluster.end(&changelog(&cluster), *partition);
        assert_eq!(told.starts, [(Offset(0), end)], "{partition}");
        assert_eq!(told.ends, [told.records()], "{partition}");
        assert!(told.suspended.is_empty());
        assert!(told.batches.is_sorted());
        assert!(told.batches.iter().all(|(reached, _)| *reached <= end));
    }
    let records: u64 = told.values().map(Told::records).sum();
    let written = cluster.read_committed(&changelog(&cluster), 30);
    assert_eq!(usize::try_from(records), Ok(written.len()));
    counting.stop();

    let (counting, recorder) = start_heard(&cluster);
    let told = recorder.told();
    assert_eq!(told.keys().copied().collect::<Vec<_>>(), all_partitions());
    for told in told.values() {
        assert_eq!(told.starts.len(), 1);
        assert_eq!((&*told.batches, &*told.ends), (&[][..], &[0][..]));
    }
    counting.stop();
}

/// A changelog that cannot be read suspends the restore of its task, and stops the instance
/// with the place: to restore from scratch would come to the same record.
#[test]
fn a_listener_hears_of_a_restore_that_does_not_end() {
    let cluster = Cluster::new("suspended");
    Counting::start(&cluster, "a").stop();
    cluster.lose_state("a");
    // No task writes a value without a format.
    cluster.send_to(&changelog(&cluster), 2, "a tag and a key", "");
    cluster.flush();
    let recorder = Arc::new(Recorder::default());
    let listener = recorder.clone();
    let counting = Counting::launch(&cluster, "a", |config| {
        config.restore_listener = Some(listener);
    });
    let unreadable = 2;
    eventually("the restore is suspended", LIMIT, || {
        let told = recorder.told();
        told.get(&unreadable)
            .is_some_and(|told| !told.suspended.is_empty())
    });
    let reason = counting.why_it_stops();
    let place = format!("{}-2@", changelog(&cluster));
    assert!(reason.contains(&place), "{reason}");
    counting.stop();
    let told = recorder.told();
    let unreadable = told.get(&unreadable).expect("it was told of");
    assert!(unreadable.ends.is_empty());
    assert!(unreadable.suspended.iter().all(|total| *total == 0));
    assert_eq!(unreadable.starts.len(), unreadable.suspended.len());
}

/// Holds up whoever restores another partition than the first that is restored, until it is let go.
struct Gate {
    first: OnceLock<Partition>,
    open: AtomicBool,
}

impl RestoreListener for Gate {
    fn on_batch_restored(&self, of: &ChangelogRestoration, _: Offset, _: u64) {
        let held_up = *self.first.get_or_init(|| of.partition) != of.partition;
        let begun = Instant::now();
        while held_up && !self.open.load(Ordering::Relaxed) && begun.elapsed() < LIMIT {
            thread::park_timeout(Duration::from_millis(5));
        }
    }
}

/// Who is restored runs while others are still read.
#[test]
fn a_restored_task_does_not_wait_for_others() {
    let cluster = Cluster::new("one-by-one");
    let counting = Counting::start(&cluster, "a");
    for n in 0..40 {
        cluster.send(&counting.words(), &format!("w{n}"), "x");
    }
    cluster.read_committed(&counting.counts(), 40);
    counting.stop();

    cluster.lose_state("a");
    let gate = Arc::new(Gate {
        first: OnceLock::new(),
        open: AtomicBool::new(false),
    });
    let listener = gate.clone();
    let counting = Counting::launch(&cluster, "a", |config| {
        config.restore_listener = Some(listener);
    });
    eventually("the first one runs", LIMIT / 2, || counting.running() == 1);
    assert!(!counting.problems().is_empty(), "the others wait");
    gate.open.store(true, Ordering::Relaxed);
    counting.wait_until_ready("a");
    assert_eq!(counting.stored("w7"), Some(1));
    counting.stop();
}

/// A transaction that does not end, on one partition of the changelog, holds up the tasks of that
/// partition and no others.
#[test]
fn a_pending_transaction_holds_up_one_partition() {
    let cluster = Cluster::new("pending");
    Counting::start(&cluster, "a").stop();
    let pending = cluster.pending_transaction(&changelog(&cluster), 1);
    let counting = Counting::launch(&cluster, "a", |_| {});
    eventually("all others run", LIMIT, || counting.running() == 3);
    let end = cluster.end(&changelog(&cluster), 1);
    pending
        .abort_transaction(LIMIT)
        .expect("the broker takes it");
    counting.wait_until_ready("a");
    assert!(cluster.end(&changelog(&cluster), 1) > end);
    counting.stop();
}

/// A transaction that does not end, on one position of a group, holds up the task that goes on from
/// there and no others. It is not taken for brokers that do not answer.
#[test]
fn a_pending_position_holds_up_one_task() {
    const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
    let cluster = Cluster::new("pending-position");
    let counting = Counting::start(&cluster, "a");
    let (group, topic) = (counting.group("words"), counting.words());
    counting.stop();
    eventually("the group has no members", LIMIT, || {
        cluster.commit(&group, &topic, 1, 0)
    });
    let pending = cluster.pending_position(&group, &topic, 1);
    let counting = Counting::launch(&cluster, "a", |config| {
        config.request_timeout = REQUEST_TIMEOUT;
    });
    eventually("all others run", LIMIT, || counting.running() == 3);
    let since = Instant::now();
    eventually("no answer would be waited for as long", LIMIT, || {
        since.elapsed() > REQUEST_TIMEOUT * 3 / 2
    });
    assert_eq!(counting.running(), 3);
    pending
        .abort_transaction(LIMIT)
        .expect("the broker takes it");
    counting.wait_until_ready("a");
    assert!(counting.rejoins() < 1.0, "it has joined anew");
    counting.stop();
}

/// A task that goes elsewhere while it waits to be restored takes its stores from nobody.
#[test]
fn a_restore_that_is_called_off_lets_go_of_the_stores() {
    let cluster = Cluster::new("called-off");
    Counting::start(&cluster, "a").stop();
    // Of two instances the second one gets it.
    let waits = TaskDirName::new(0, 3);
    let pending = cluster.pending_transaction(&changelog(&cluster), 3);
    let launch = |instance| {
        Counting::launch(&cluster, instance, |config| {
            config.num_standby_replicas = 0;
            config.warm_join_limit = Duration::from_secs(1);
        })
    };
    let first = launch("a");
    eventually("all others run", LIMIT, || first.running() == 3);
    let stores = cluster.state("a").join(waits.to_string());
    assert!(open(&stores).is_err(), "they are in use");
    let second = launch("b");
    eventually("the tasks are shared", LIMIT, || {
        (first.running(), second.running()) == (2, 1)
    });
    eventually("the stores are let go of", LIMIT, || open(&stores).is_ok());
    pending
        .abort_transaction(LIMIT)
        .expect("the broker takes it");
    second.wait_until_ready("b");
    assert_eq!((first.running(), second.running()), (2, 2));
    first.stop();
    second.stop();
}

/// Opens the stores of a task, which nobody else may have open.
fn open(stores: &Path) -> Result<RocksBackend, StateError> {
    let specs = ["counts", "counter-timers", "counter-timers-by-key"].map(|name| StoreSpec {
        name: name.to_owned(),
    });
    let options = RocksOptions::new(RocksMemory::new(8 << 20, 8 << 20));
    RocksBackend::open(stores, &specs, &options)
}

/// A release whose tasks have other stores: those on disk are wiped as they are opened, and no task
/// waits for another's.
#[test]
fn stores_of_another_release_are_restored_without_a_new_membership() {
    let cluster = Cluster::new("release");
    let counting = Counting::start(&cluster, "a");
    for n in 0..20 {
        cluster.send(&counting.words(), &format!("w{n}"), "x");
    }
    cluster.read_committed(&counting.counts(), 20);
    counting.stop();
    // The stores of timers are named after their processor.
    let counting = Counting::launch_release(&cluster, "a", Release::Tomorrow);
    counting.wait_until_ready("a");
    assert_eq!(counting.stored("w3"), Some(1));
    assert!(counting.rejoins() < 1.0, "it has joined anew");
    counting.stop();
}

/// Stores that hold more than their changelog are of another history: they are wiped and
/// restored, and no others.
#[test]
fn a_store_ahead_of_its_changelog_is_restored_from_it() {
    let cluster = Cluster::new("ahead");
    let counting = Counting::start(&cluster, "a");
    for n in 0..300 {
        cluster.send(&counting.words(), &format!("w{}", n % 30), "x");
    }
    cluster.read_committed(&counting.counts(), 300);
    counting.stop();

    let word = "w7";
    let ahead = turnstile_engine::partitioner::partition_of(word.as_bytes(), PARTITIONS);
    put_ahead(&cluster, ahead, word);
    let (counting, recorder) = start_heard(&cluster);
    for n in 0..30 {
        assert_eq!(counting.stored(&format!("w{n}")), Some(10));
    }
    for (partition, told) in recorder.told() {
        let restored = told.records() > 0;
        assert_eq!(restored, partition == ahead.0, "{partition}");
        if partition == ahead.0 {
            assert_eq!(
                told.starts.first().map(|(start, _)| *start),
                Some(Offset(0))
            );
        }
    }
    for n in 0..30 {
        cluster.send(&counting.words(), &format!("w{n}"), "x");
    }
    let counts = cluster.read_committed(&counting.counts(), 330);
    let last: Vec<_> = counts.iter().filter(|(_, count)| count == "11").collect();
    assert_eq!((last.len(), counts.len()), (30, 330));
    counting.stop();
}

/// Gives the store of one task a count that never was, at an offset that its changelog
/// has not reached.
fn put_ahead(cluster: &Cluster, partition: Partition, word: &str) {
    const COUNTS: StoreId = StoreId(0);
    let folder = StateDir::lock(cluster.state("a"), &cluster.application())
        .expect("nobody holds the stopped instance's state");
    let name = TaskDirName::new(0, u32::try_from(partition.0).expect("not negative"));
    let backend = open(&folder.task_path(&name)).expect("the task's stores");
    let mut batch = Batch::new();
    batch.put(COUNTS, word.as_bytes(), 999_u64.to_bytes());
    batch.set_changelog_offset(1_000_000);
    backend.write(batch).expect("the store can be written");
    backend.flush().expect("the store can be flushed");
}
