//! What is restored after a start, as a listener hears it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use turnstile_engine::runtime::{RestoreListener, StoreRestoration};
use turnstile_engine::{Codec, Offset, Partition};
use turnstile_state::{
    Backend, Batch, RocksBackend, RocksMemory, RocksOptions, StateDir, StoreId, StoreSpec,
    TaskDirName,
};

use crate::application::Counting;
use crate::cluster::{Cluster, eventually};

const LIMIT: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 4;
/// Stores with a changelog in each task.
const STORES: [&str; 2] = ["counter-timers", "counts"];

/// What was said of one store.
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

/// Remembers what it hears, by store and partition.
#[derive(Default)]
struct Recorder(Mutex<BTreeMap<(String, i32), Told>>);

impl Recorder {
    fn note(&self, store: &StoreRestoration, note: impl FnOnce(&mut Told)) {
        assert_eq!(store.task.partition, store.partition);
        assert!(
            store
                .changelog
                .ends_with(&format!("-{}-changelog", store.store))
        );
        let mut told = self.0.lock().expect("no callback panics");
        let key = (store.store.clone(), store.partition.0);
        note(told.entry(key).or_default());
    }

    fn told(&self) -> BTreeMap<(String, i32), Told> {
        self.0.lock().expect("no callback panics").clone()
    }
}

impl RestoreListener for Recorder {
    fn on_restore_start(&self, store: &StoreRestoration) {
        self.note(store, |told| told.starts.push((store.start, store.end)));
    }

    fn on_batch_restored(&self, store: &StoreRestoration, reached: Offset, records: u64) {
        self.note(store, |told| told.batches.push((reached, records)));
    }

    fn on_restore_end(&self, store: &StoreRestoration, total: u64) {
        self.note(store, |told| told.ends.push(total));
    }

    fn on_restore_suspended(&self, store: &StoreRestoration, total: u64) {
        self.note(store, |told| told.suspended.push(total));
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

fn changelog(cluster: &Cluster, store: &str) -> String {
    format!("{}-{store}-changelog", cluster.application())
}

fn all_stores() -> Vec<(String, i32)> {
    let partitions = |store: &'static str| (0..PARTITIONS).map(move |n| (store.to_owned(), n));
    STORES.into_iter().flat_map(partitions).collect()
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
    assert_eq!(told.keys().cloned().collect::<Vec<_>>(), all_stores());
    for ((store, partition), told) in &told {
        let end = cluster.end(&changelog(&cluster, store), *partition);
        assert_eq!(told.starts, [(Offset(0), end)], "{store} {partition}");
        assert_eq!(told.ends, [told.records()], "{store} {partition}");
        assert!(told.suspended.is_empty());
        assert!(told.batches.is_sorted());
        assert!(told.batches.iter().all(|(reached, _)| *reached <= end));
    }
    let records = |store: &str| -> u64 {
        let of_store = told.iter().filter(|((name, _), _)| name == store);
        of_store.map(|(_, told)| told.records()).sum()
    };
    let written = cluster.read_committed(&changelog(&cluster, "counts"), 30);
    assert_eq!(usize::try_from(records("counts")), Ok(written.len()));
    assert_eq!(records("counter-timers"), 0);
    counting.stop();

    let (counting, recorder) = start_heard(&cluster);
    let told = recorder.told();
    assert_eq!(told.keys().cloned().collect::<Vec<_>>(), all_stores());
    for told in told.values() {
        assert_eq!(told.starts.len(), 1);
        assert_eq!((&*told.batches, &*told.ends), (&[][..], &[0][..]));
    }
    counting.stop();
}

/// A changelog that cannot be read suspends the restore of its store.
#[test]
fn a_listener_hears_of_a_restore_that_does_not_end() {
    let cluster = Cluster::new("suspended");
    Counting::start(&cluster, "a").stop();
    cluster.lose_state("a");
    // No task writes a value without a format.
    cluster.send_to(&changelog(&cluster, "counts"), 2, "w1", "");
    cluster.flush();
    let recorder = Arc::new(Recorder::default());
    let listener = recorder.clone();
    let counting = Counting::launch(&cluster, "a", |config| {
        config.restore_listener = Some(listener);
    });
    let unreadable = ("counts".to_owned(), 2);
    eventually("the restore is suspended", LIMIT, || {
        let told = recorder.told();
        told.get(&unreadable)
            .is_some_and(|told| !told.suspended.is_empty())
    });
    counting.stop();
    let told = recorder.told();
    let unreadable = told.get(&unreadable).expect("it was told of");
    assert!(unreadable.ends.is_empty());
    assert!(unreadable.suspended.iter().all(|total| *total == 0));
    assert_eq!(unreadable.starts.len(), unreadable.suspended.len());
}

/// A store that holds more than its changelog is of another history: it is wiped and
/// restored, alone.
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
    for ((store, partition), told) in recorder.told() {
        let restored = told.records() > 0;
        let expected = store == "counts" && partition == ahead.0;
        assert_eq!(restored, expected, "{store} {partition}");
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
    let specs = ["counts", "counter-timers", "counter-timers-by-key"].map(|name| StoreSpec {
        name: name.to_owned(),
    });
    let options = RocksOptions::new(RocksMemory::new(8 << 20, 8 << 20));
    let backend =
        RocksBackend::open(&folder.task_path(&name), &specs, &options).expect("the task's stores");
    let mut batch = Batch::new();
    batch.put(COUNTS, word.as_bytes(), 999_u64.to_bytes());
    batch.set_changelog_offset(COUNTS, 1_000_000);
    backend.write(batch).expect("the store can be written");
    backend.flush().expect("the store can be flushed");
}
