//! The durable timers against a plain map of deadlines, through commits, aborts,
//! failed records, and crashes with a replay of a compacted changelog.

use std::collections::{BTreeMap, HashSet};

use proptest::collection::vec;
use proptest::prelude::*;
use turnstile_state::{Backend, Entry, MemoryBackend, StoreSpec};

use super::*;

const ROWS: StoreId = StoreId(0);
const BY_KEY: StoreId = StoreId(1);

/// Keys that are prefixes of each other, one of them the first there can be.
const KEYS: [&[u8]; 8] = [b"", b"\0", b"a", b"a\0", b"a\0\0", b"ab", b"b", b"\xff\xff"];

#[derive(Debug, Clone)]
enum Change {
    /// The deadline is relative to the clock.
    Schedule(usize, i64),
    Cancel(usize),
}

#[derive(Debug, Clone)]
enum Step {
    Record {
        changes: Vec<Change>,
        fails: bool,
    },
    MoveClock(i64),
    TakeDue(usize),
    /// Seals the transaction, unless another is sealed and has yet to be committed.
    Seal,
    Commit,
    Abort,
    /// Restores from a copy of the state that is some records behind, or from
    /// nothing, with a compacted changelog.
    Crash {
        behind: usize,
        compacted: u64,
    },
}

fn change() -> impl Strategy<Value = Change> {
    let span = prop_oneof![8 => -20..100_i64, 1 => 0..100_000_i64, 1 => Just(i64::MIN), 1 => Just(i64::MAX)];
    prop_oneof![
        3 => (0..KEYS.len(), span).prop_map(|(key, span)| Change::Schedule(key, span)),
        1 => (0..KEYS.len()).prop_map(Change::Cancel),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (vec(change(), 1..5), prop::bool::weighted(0.25))
            .prop_map(|(changes, fails)| Step::Record { changes, fails }),
        4 => prop_oneof![4 => 0..60_i64, 1 => -60..0_i64].prop_map(Step::MoveClock),
        6 => (0..5_usize).prop_map(Step::TakeDue),
        2 => Just(Step::Seal),
        3 => Just(Step::Commit),
        1 => Just(Step::Abort),
        1 => (0..40_usize, any::<u64>()).prop_map(|(behind, compacted)| Step::Crash { behind, compacted }),
    ]
}

type Deadlines = BTreeMap<&'static [u8], i64>;

/// A record of the changelog of the rows.
type Record = (Vec<u8>, Option<Vec<u8>>);

struct Task {
    near_limit: usize,
    clock: i64,
    backend: Arc<MemoryBackend>,
    overlay: Overlay,
    timers: Timers,
    changelog: Vec<Record>,
    /// What should be pending for the open transaction, and after an abort.
    pending: Deadlines,
    committed: Deadlines,
    /// With the transaction that is yet to be committed.
    sealed: Option<Deadlines>,
}

fn new_backend() -> Arc<MemoryBackend> {
    let spec = |name: &str| StoreSpec {
        name: name.to_owned(),
    };
    Arc::new(MemoryBackend::new(&[spec("timers"), spec("timers-by-key")]))
}

fn entries(backend: &MemoryBackend, store: StoreId) -> Vec<Entry> {
    let scan = backend.scan(store, &KeyRange::all(), ScanDirection::Forward);
    scan.expect("the store exists")
        .map(|entry| entry.expect("memory is readable"))
        .collect()
}

/// What compaction may leave of `tail` after `copied`; the bits of `choice` say what it does of what it may.
///
/// Records that have a later one of the same row go, and deletes of which nothing earlier is left.
fn compact(copied: &[Record], tail: &[Record], choice: u64) -> Vec<Record> {
    let spared = |position: &usize| (choice >> (position % 64)) & 1 == 0;
    let mut later = HashSet::new();
    let mut left: Vec<_> = tail
        .iter()
        .enumerate()
        .rev()
        .filter(|(position, (row, _))| later.insert(row) || spared(position))
        .collect();
    left.reverse();
    let mut earlier: HashSet<_> = copied.iter().map(|(row, _)| row).collect();
    left.retain(|(position, (row, value))| {
        let stays = value.is_some() || earlier.contains(row) || spared(position);
        if stays {
            earlier.insert(row);
        }
        stays
    });
    left.into_iter().map(|(_, record)| record.clone()).collect()
}

impl Task {
    fn new(near_limit: usize) -> Self {
        let backend = new_backend();
        Self {
            near_limit,
            clock: 1000,
            overlay: Overlay::new(backend.clone(), 2),
            backend,
            timers: Timers::new(ROWS, BY_KEY, near_limit),
            changelog: Vec::new(),
            pending: Deadlines::new(),
            committed: Deadlines::new(),
            sealed: None,
        }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Record { changes, fails } => self.record(changes, fails),
            Step::MoveClock(span) => self.clock += span,
            Step::TakeDue(limit) => self.take_due(limit),
            Step::Seal => self.seal(),
            Step::Commit => self.commit(),
            Step::Abort => {
                self.overlay.clear();
                self.timers.reload();
                self.sealed = None;
                self.pending = self.committed.clone();
            }
            Step::Crash { behind, compacted } => self.crash(behind, compacted),
        }
    }

    fn record(&mut self, changes: Vec<Change>, fails: bool) {
        let before = self.pending.clone();
        let savepoint = self.overlay.savepoint();
        for change in changes {
            match change {
                Change::Schedule(key, span) => {
                    let deadline = self.clock.saturating_add(span);
                    let scheduled =
                        self.timers
                            .schedule(&mut self.overlay, KEYS[key], TimestampMs(deadline));
                    scheduled.expect("memory is writable");
                    self.pending.insert(KEYS[key], deadline.max(0));
                }
                Change::Cancel(key) => {
                    let cancelled = self
                        .timers
                        .cancel(&mut self.overlay, KEYS[key])
                        .expect("memory is writable");
                    assert_eq!(cancelled, self.pending.remove(KEYS[key]).is_some());
                }
            }
            self.check_index();
        }
        if fails {
            self.overlay.rollback_to(savepoint);
            self.timers.undo_from(0);
            self.pending = before;
        } else {
            self.overlay.release(savepoint);
            self.timers.keep();
        }
    }

    /// What fires is all that is due and nothing else, in order: never early, none lost, none twice.
    fn take_due(&mut self, limit: usize) {
        let mut expected: Vec<_> = self
            .pending
            .iter()
            .map(|(key, deadline)| (*deadline, *key))
            .collect();
        expected.retain(|(deadline, _)| *deadline <= self.clock);
        expected.sort_unstable();
        expected.truncate(limit);
        let due = self
            .timers
            .take_due(&mut self.overlay, TimestampMs(self.clock), limit);
        let due = due.expect("memory is readable");
        let due: Vec<_> = due
            .iter()
            .map(|timer| (timer.deadline.0, timer.key.as_slice()))
            .collect();
        assert_eq!(due, expected);
        for (_, key) in expected {
            self.pending.remove(key);
        }
    }

    fn seal(&mut self) {
        if self.sealed.is_none() {
            self.overlay.seal();
            self.sealed = Some(self.pending.clone());
        }
    }

    fn commit(&mut self) {
        self.seal();
        let changes = self.overlay.changes(ROWS);
        self.changelog
            .extend(changes.map(|(row, value)| (row.to_vec(), value.map(<[u8]>::to_vec))));
        self.backend
            .write(self.overlay.take_batch())
            .expect("memory is writable");
        self.committed = self.sealed.take().expect("one is sealed");
    }

    fn crash(&mut self, behind: usize, compacted: u64) {
        let restored = new_backend();
        let (copied, tail) = self
            .changelog
            .split_at(self.changelog.len().saturating_sub(behind));
        let mut batch = Batch::new();
        for (row, value) in copied.iter().chain(&compact(copied, tail, compacted)) {
            self.timers
                .apply_changelog(&mut batch, row, value.as_deref())
                .expect("a row was written");
        }
        restored.write(batch).expect("memory is writable");
        for store in [ROWS, BY_KEY] {
            assert_eq!(entries(&restored, store), entries(&self.backend, store));
        }
        self.overlay = Overlay::new(restored.clone(), 2);
        self.backend = restored;
        self.timers = Timers::new(ROWS, BY_KEY, self.near_limit);
        self.sealed = None;
        self.pending = self.committed.clone();
    }

    fn check_index(&self) {
        for key in KEYS {
            let deadline = self
                .timers
                .deadline_of(&self.overlay, key)
                .expect("memory is readable");
            assert_eq!(
                deadline.map(|deadline| deadline.0),
                self.pending.get(key).copied()
            );
        }
    }

    /// Holds between records.
    fn check(&self) {
        self.check_index();
        let next = self.timers.next_deadline().map_or(i64::MAX, |next| next.0);
        assert!(self.pending.values().all(|deadline| next <= *deadline));
        let earliest = self.pending.values().min().copied();
        let due_by = self.timers.due_by().map(|due_by| due_by.0);
        assert!(due_by.is_none() || earliest.is_some() && earliest <= due_by);
        assert!(self.timers.wheel.len() <= 2 * self.near_limit);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn timers_are_a_map_of_deadlines(near_limit in 1..6_usize, steps in vec(step(), 1..80)) {
        let mut task = Task::new(near_limit);
        for step in steps {
            task.run(step);
            task.check();
        }
        task.clock = i64::MAX;
        task.take_due(usize::MAX);
        prop_assert_eq!(task.timers.next_deadline(), None);
    }
}
