use std::sync::atomic::{AtomicUsize, Ordering};

use turnstile_state::{Backend, Entry, MemoryBackend, StoreSpec, StoreStats};

use super::*;

const ROWS: StoreId = StoreId(0);
const BY_KEY: StoreId = StoreId(1);

/// A memory backend that counts the entries that scans read.
struct CountingBackend {
    memory: MemoryBackend,
    entries_read: AtomicUsize,
}

impl Backend for CountingBackend {
    fn get(&self, store: StoreId, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        self.memory.get(store, key)
    }

    fn scan<'a>(
        &'a self,
        store: StoreId,
        range: &KeyRange,
        direction: ScanDirection,
    ) -> Result<Box<dyn Iterator<Item = Result<Entry, StateError>> + 'a>, StateError> {
        let entries = self.memory.scan(store, range, direction)?;
        Ok(Box::new(entries.inspect(|_| {
            self.entries_read.fetch_add(1, Ordering::Relaxed);
        })))
    }

    fn write(&self, batch: Batch) -> Result<(), StateError> {
        self.memory.write(batch)
    }

    fn changelog_offset(&self) -> Result<Option<i64>, StateError> {
        self.memory.changelog_offset()
    }

    fn flush(&self) -> Result<(), StateError> {
        self.memory.flush()
    }

    fn stats(&self) -> Result<Vec<StoreStats>, StateError> {
        self.memory.stats()
    }
}

struct Task {
    backend: Arc<CountingBackend>,
    overlay: Overlay,
    timers: Timers,
}

impl Task {
    fn new(near_limit: usize) -> Self {
        let specs = ["timers", "timers-by-key"].map(|name| StoreSpec {
            name: name.to_owned(),
        });
        let memory = MemoryBackend::new(&specs);
        let backend = Arc::new(CountingBackend {
            memory,
            entries_read: AtomicUsize::new(0),
        });
        let overlay = Overlay::new(backend.clone(), specs.len());
        Self {
            backend,
            overlay,
            timers: Timers::new(ROWS, BY_KEY, near_limit),
        }
    }

    fn schedule(&mut self, key: &str, deadline: i64) {
        self.timers
            .schedule(&mut self.overlay, key.as_bytes(), TimestampMs(deadline))
            .unwrap();
    }

    fn cancel(&mut self, key: &str) -> bool {
        self.timers
            .cancel(&mut self.overlay, key.as_bytes())
            .unwrap()
    }

    fn take_due(&mut self, now: i64, limit: usize) -> Vec<(i64, String)> {
        let due = self
            .timers
            .take_due(&mut self.overlay, TimestampMs(now), limit)
            .unwrap();
        due.into_iter()
            .map(|timer| (timer.deadline.0, String::from_utf8(timer.key).unwrap()))
            .collect()
    }

    fn commit(&mut self) {
        self.overlay.seal();
        self.backend.write(self.overlay.take_batch()).unwrap();
    }
}

fn fired(timers: &[(i64, &str)]) -> Vec<(i64, String)> {
    timers
        .iter()
        .map(|(deadline, key)| (*deadline, (*key).to_owned()))
        .collect()
}

#[test]
fn a_timer_fires_at_its_deadline_and_once() {
    let mut task = Task::new(10);
    task.schedule("order", 120_000);
    assert_eq!(task.take_due(119_999, 10), []);
    assert_eq!(task.take_due(120_000, 10), fired(&[(120_000, "order")]));
    assert_eq!(task.take_due(120_000, 10), []);
    assert!(!task.cancel("order"));
    assert_eq!(task.timers.next_deadline(), None);
}

#[test]
fn a_second_schedule_moves_a_timer_both_ways() {
    let mut task = Task::new(10);
    task.schedule("later", 10);
    task.schedule("sooner", 1000);
    assert_eq!(task.take_due(5, 10), []);
    task.schedule("later", 1000);
    task.schedule("sooner", 10);
    assert_eq!(task.take_due(10, 10), fired(&[(10, "sooner")]));
    assert_eq!(task.take_due(1000, 10), fired(&[(1000, "later")]));
}

#[test]
fn scheduling_at_the_same_time_again_writes_nothing() {
    let mut task = Task::new(10);
    task.schedule("order", 10);
    task.commit();
    task.schedule("order", 10);
    assert!(task.overlay.is_empty());
    assert_eq!(task.take_due(10, 10), fired(&[(10, "order")]));
}

#[test]
fn a_deadline_before_the_epoch_is_the_epoch() {
    let mut task = Task::new(10);
    task.schedule("old", -5);
    assert_eq!(
        task.timers.deadline_of(&task.overlay, b"old").unwrap(),
        Some(TimestampMs(0))
    );
    assert_eq!(task.take_due(-1, 10), []);
    assert_eq!(task.take_due(0, 10), fired(&[(0, "old")]));
}

#[test]
fn an_undone_record_leaves_timers_as_they_were() {
    let mut task = Task::new(10);
    task.schedule("kept", 10);
    task.schedule("moved", 20);
    assert_eq!(task.take_due(0, 10), []);

    let record = task.overlay.savepoint();
    assert!(task.cancel("kept"));
    task.schedule("moved", 1);
    task.schedule("new", 2);
    task.overlay.rollback_to(record);
    task.timers.undo_from(0);

    assert_eq!(
        task.take_due(100, 10),
        fired(&[(10, "kept"), (20, "moved")])
    );
}

#[test]
fn an_aborted_transaction_brings_fired_timers_back() {
    let mut task = Task::new(10);
    task.schedule("order", 10);
    task.commit();
    assert_eq!(task.take_due(10, 10), fired(&[(10, "order")]));
    task.overlay.clear();
    task.timers.reload();
    assert_eq!(task.take_due(10, 10), fired(&[(10, "order")]));
}

#[test]
fn an_abort_in_the_middle_of_a_record_forgets_it() {
    let mut task = Task::new(10);
    assert_eq!(task.take_due(0, 10), []);
    task.schedule("order", 10);
    task.overlay.clear();
    task.timers.reload();
    assert_eq!(task.take_due(10, 10), []);
}

#[test]
fn timers_that_an_abort_brought_back_survive_that_the_wheel_is_forgotten() {
    let mut task = Task::new(3);
    for (key, deadline) in [("a", 5), ("b", 20), ("c", 50)] {
        task.schedule(key, deadline);
    }
    task.commit();
    assert_eq!(task.take_due(20, 10), fired(&[(5, "a"), (20, "b")]));
    task.overlay.clear();
    task.timers.reload();
    assert_eq!(task.take_due(0, 10), []);
    for key in ["d", "e", "f", "g"] {
        task.schedule(key, 30);
    }
    task.timers.keep();
    assert_eq!(task.timers.wheel.len(), 0);
    assert_eq!(task.take_due(29, 10), fired(&[(5, "a"), (20, "b")]));
}

#[test]
fn many_timers_of_one_moment_are_loaded_and_fired_in_bounded_portions() {
    let mut task = Task::new(8);
    for number in 0..1000 {
        task.schedule(&format!("{number:04}"), 50);
        task.timers.keep();
        assert!(task.timers.wheel.len() <= 16);
    }
    task.commit();
    task.timers.reload();
    for number in 0..1000 {
        assert_eq!(task.take_due(50, 1), [(50, format!("{number:04}"))]);
        assert!(task.timers.wheel.len() <= 8);
    }
    assert_eq!(task.take_due(50, 1), []);
}

#[test]
fn a_scan_does_not_meet_what_has_fired_again() {
    let mut task = Task::new(8);
    for number in 0..1000 {
        task.schedule(&format!("{number}"), number);
    }
    task.commit();
    task.timers.reload();
    // The rows stay in the backend, under the deletes of the open transaction.
    for now in 0..1000 {
        assert_eq!(task.take_due(now, 10).len(), 1);
    }
    let scans = 1000 / 8 + 1;
    assert!(task.backend.entries_read.load(Ordering::Relaxed) <= 1000 + scans);
}

#[test]
fn too_many_near_timers_are_left_to_the_store_and_still_fire() {
    let mut task = Task::new(4);
    // With nothing pending, the frontier is behind everything: all of these are near.
    assert_eq!(task.take_due(0, 10), []);
    for number in 0..100 {
        task.schedule(&format!("{number:02}"), 1000 - number);
        task.timers.keep();
        assert!(task.timers.wheel.len() <= 8);
        assert!(
            task.timers
                .next_deadline()
                .is_some_and(|next| next.0 <= 1000 - number)
        );
    }
    let all = task.take_due(1000, 1000);
    assert_eq!(all.len(), 100);
    assert!(all.is_sorted());
}

#[test]
fn a_sleeper_that_follows_next_deadline_fires_every_timer_in_its_millisecond() {
    let mut task = Task::new(2);
    let deadlines = [7, 5000, 5000, 5000, 5001, 86_400_000, 1_700_000_000_000];
    for (number, deadline) in deadlines.into_iter().enumerate() {
        task.schedule(&number.to_string(), deadline);
    }
    task.timers.keep();
    let mut fired = Vec::new();
    let mut calls = 0;
    while let Some(TimestampMs(now)) = task.timers.next_deadline() {
        for (deadline, _) in task.take_due(now, 1) {
            assert_eq!(deadline, now);
            fired.push(deadline);
        }
        calls += 1;
        assert!(calls < 100, "the sleeper gets nowhere");
    }
    assert_eq!(fired, deadlines);
}

#[test]
fn what_was_not_loaded_yet_is_not_taken_for_overdue() {
    let mut task = Task::new(4);
    assert_eq!(task.timers.due_by(), None);
    task.schedule("order", 120_000);
    task.commit();
    task.timers.reload();
    assert_eq!(task.timers.next_deadline(), Some(TimestampMs(0)));
    assert_eq!(task.timers.due_by(), None);
    assert_eq!(task.take_due(119_999, 10), []);
    let due_by = task.timers.due_by().unwrap();
    assert!((120_000..120_064).contains(&due_by.0), "{due_by:?}");
}

#[test]
fn a_changelog_record_that_is_no_row_is_an_error() {
    let task = Task::new(1);
    let mut batch = Batch::new();
    let applied = task.timers.apply_changelog(&mut batch, b"short", None);
    assert!(matches!(applied, Err(StateError::Codec(_))));
    assert!(batch.is_empty());
}
