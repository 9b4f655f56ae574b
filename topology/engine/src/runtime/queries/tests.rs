mod claims;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use turnstile_state::{Batch, MemoryBackend};

use super::*;
use crate::{SubtopologyId, TopologyBuilder, quiet};

const ID: StoreId = StoreId(1);

/// The queries of an instance that owns all tasks of one topic with four partitions
/// or none of them; the store asked for is the second one.
struct Fixture {
    queries: Queries,
    rows: Store<String, u64>,
    backend: Arc<dyn Backend>,
}

fn fixture() -> Fixture {
    let (plan, stores) = quiet::plan(&[("topic", 4, &["others", "rows"])]);
    let backend = Arc::new(MemoryBackend::new(&plan.subtopologies[0].store_specs()));
    Fixture {
        queries: Queries::new(plan),
        rows: stores[1],
        backend,
    }
}

fn task_of(key: &str) -> TaskId {
    TaskId {
        subtopology: SubtopologyId(0),
        partition: partition_of(key.as_bytes(), 4),
    }
}

impl Fixture {
    fn run(&self, key: &str) {
        self.queries.set_running(task_of(key), self.backend.clone());
    }

    fn get(&self, key: &str) -> Result<Option<u64>, QueryError> {
        self.queries.get(self.rows, key, &key.to_owned())
    }

    fn commit(&self, key: &str, value: &[u8]) {
        let mut batch = Batch::new();
        batch.put(ID, key.as_bytes(), value);
        self.backend.write(batch).unwrap();
        let keys = [(ID, key.as_bytes().to_vec())];
        self.queries.tell(task_of(key), keys.into_iter());
    }

    /// A watch of `key` and how often it was told.
    fn watch(&self, key: &str) -> (Result<Watch, QueryError>, Arc<AtomicUsize>) {
        let told = Arc::new(AtomicUsize::new(0));
        let tell = told.clone();
        let watch = self
            .queries
            .watch(self.rows, key, &key.to_owned(), move || {
                tell.fetch_add(1, Ordering::Relaxed);
            });
        (watch, told)
    }
}

#[test]
fn only_a_running_task_of_this_instance_answers() {
    let fixture = fixture();
    assert!(matches!(
        fixture.get("a"),
        Err(QueryError::NotOwned { store, partition })
            if store == "rows" && partition == task_of("a").partition
    ));
    for status in [TaskStatus::Restoring, TaskStatus::Suspended] {
        fixture.queries.set_status(task_of("a"), status);
        assert!(matches!(
            fixture.get("a"),
            Err(QueryError::NotRunning { task, status: found })
                if task == task_of("a") && found == status
        ));
        assert!(fixture.watch("a").0.is_err());
    }
    fixture.run("a");
    assert_eq!(fixture.get("a").unwrap(), None);
    // While it waits here nobody else runs it; once it is lost somebody may.
    fixture
        .queries
        .set_status(task_of("a"), TaskStatus::Suspended);
    assert_eq!(fixture.get("a").unwrap(), None);
    fixture.queries.set_lost(task_of("a"));
    assert!(fixture.get("a").is_err());
    fixture.queries.set_status(task_of("a"), TaskStatus::Closed);
    assert!(matches!(fixture.get("a"), Err(QueryError::NotOwned { .. })));
    assert!(fixture.queries.present().is_empty());
}

#[test]
fn what_is_committed_is_read_from_its_own_store_and_partition() {
    let fixture = fixture();
    fixture.run("a");
    fixture.commit("a", &7_u64.to_bytes());
    fixture.commit("b", &8_u64.to_bytes());
    assert_eq!(fixture.get("a").unwrap(), Some(7));
    let Fixture { queries, rows, .. } = &fixture;
    assert_eq!(queries.partitions(*rows).unwrap(), 4);
    let partition = queries.partition_of(*rows, "a").unwrap();
    assert_eq!(partition, task_of("a").partition);
    let scan = |direction, limit| {
        let all = KeyRange::all();
        queries
            .scan(*rows, partition, &all, direction, limit)
            .unwrap()
    };
    let (a, b) = (("a".to_owned(), 7), ("b".to_owned(), 8));
    assert_eq!(scan(ScanDirection::Forward, 9), [a.clone(), b.clone()]);
    assert_eq!(scan(ScanDirection::Forward, 1), [a]);
    assert_eq!(scan(ScanDirection::Reverse, 1), [b]);
}

#[test]
fn an_unreadable_row_names_its_store() {
    let fixture = fixture();
    fixture.run("a");
    fixture.commit("a", b"short");
    assert!(matches!(
        fixture.get("a"),
        Err(QueryError::UnreadableRow { store, .. }) if store == "rows"
    ));
}

#[test]
fn a_store_of_another_topology_is_unknown() {
    let fixture = fixture();
    let foreign = TopologyBuilder::new().store::<String, u64>("rows");
    assert!(matches!(
        fixture.queries.get(foreign, "a", &"a".to_owned()),
        Err(QueryError::UnknownStore(_))
    ));
}

#[test]
fn a_watch_is_told_once_by_the_commit_that_writes_its_key() {
    let fixture = fixture();
    fixture.run("a");
    fixture.commit("a", &1_u64.to_bytes());
    assert!(!fixture.queries.anyone_waits());
    let (watch, told) = fixture.watch("a");
    let (other_watch, other_told) = fixture.watch("a");
    assert!(fixture.queries.anyone_waits());
    assert_eq!(told.load(Ordering::Relaxed), 0);
    // Another key, another store, another task.
    let key = || b"a".to_vec();
    let elsewhere = [(ID, b"b".to_vec()), (StoreId(0), key())];
    fixture.queries.tell(task_of("a"), elsewhere.into_iter());
    let next = TaskId {
        partition: Partition((task_of("a").partition.0 + 1) % 4),
        ..task_of("a")
    };
    fixture.queries.tell(next, [(ID, key())].into_iter());
    assert_eq!(told.load(Ordering::Relaxed), 0);
    fixture.commit("a", &2_u64.to_bytes());
    fixture.commit("a", &3_u64.to_bytes());
    for told in [told, other_told] {
        assert_eq!(told.load(Ordering::Relaxed), 1);
    }
    assert!(!fixture.queries.anyone_waits());
    drop((watch.unwrap(), other_watch.unwrap()));
}

#[test]
fn a_callback_may_look_at_what_was_committed_and_watch_again() {
    let fixture = Arc::new(fixture());
    fixture.run("a");
    let (looked, seen) = std::sync::mpsc::channel();
    let looking = fixture.clone();
    let watch = fixture
        .queries
        .watch(fixture.rows, "a", &"a".to_owned(), move || {
            let again = looking.watch("a").0;
            looked
                .send((looking.get("a").unwrap(), again.is_ok()))
                .unwrap();
        });
    fixture.commit("a", &5_u64.to_bytes());
    assert_eq!(seen.try_recv(), Ok((Some(5), true)));
    drop(watch.unwrap());
}

#[test]
fn a_dropped_watch_is_not_told_and_leaves_nothing() {
    let fixture = fixture();
    fixture.run("a");
    let (watch, told) = fixture.watch("a");
    let (other_watch, other_told) = fixture.watch("a");
    drop(watch.unwrap());
    assert!(fixture.queries.anyone_waits());
    fixture.commit("a", &1_u64.to_bytes());
    assert_eq!(told.load(Ordering::Relaxed), 0);
    assert_eq!(other_told.load(Ordering::Relaxed), 1);
    drop(other_watch.unwrap());
    drop(fixture.watch("a").0.unwrap());
    assert!(!fixture.queries.anyone_waits());
}

#[test]
fn who_waits_is_told_when_the_task_goes() {
    let fixture = fixture();
    let leave: [fn(&Queries, TaskId); 2] = [
        |queries, task| queries.set_status(task, TaskStatus::Closed),
        |queries, task| queries.set_lost(task),
    ];
    for leave in leave {
        fixture.run("a");
        let (watch, told) = fixture.watch("a");
        let watch = watch.unwrap();
        let next = TaskId {
            partition: Partition((task_of("a").partition.0 + 1) % 4),
            ..task_of("a")
        };
        leave(&fixture.queries, next);
        assert_eq!(told.load(Ordering::Relaxed), 0);
        leave(&fixture.queries, task_of("a"));
        assert_eq!(told.load(Ordering::Relaxed), 1);
        assert!(fixture.get("a").is_err());
        drop(watch);
    }
}

impl Fixture {
    fn request(&self, key: &str, read: StoreRead) -> StoreRequest {
        let partition = task_of(key).partition;
        self.queries.request(self.rows, partition, read).unwrap()
    }

    fn row(key: &str, value: u64) -> Entry {
        (key.as_bytes().into(), value.to_bytes().into())
    }
}

fn range(start: &str, direction: ScanDirection, limit: usize) -> RowRange {
    let mut range = KeyRange::all();
    range.start = std::ops::Bound::Included(start.as_bytes().to_vec());
    RowRange::new(range, direction, limit)
}

#[test]
fn who_is_cut_off_does_not_take_what_it_has_for_current() {
    let fixture = fixture();
    fixture.run("a");
    let now = Instant::now();
    let past = now.checked_sub(Duration::from_millis(1)).unwrap();
    fixture.queries.extend_lease(past);
    assert!(matches!(
        fixture.get("a"),
        Err(QueryError::NotRunning { task, .. }) if task == task_of("a")
    ));
    fixture
        .queries
        .extend_lease(now + Duration::from_secs(3_600));
    assert!(matches!(fixture.get("a"), Ok(None)));
    // A lease does not become shorter.
    fixture.queries.extend_lease(past);
    assert!(matches!(fixture.get("a"), Ok(None)));
}

#[test]
fn who_waits_for_a_key_hears_when_the_instance_is_cut_off() {
    let fixture = fixture();
    fixture.run("a");
    let (_watch, told) = fixture.watch("a");
    fixture.queries.tell_if_cut_off();
    assert_eq!(told.load(Ordering::Relaxed), 0);
    let past = Instant::now().checked_sub(Duration::from_millis(1));
    fixture.queries.extend_lease(past.unwrap());
    fixture.queries.tell_if_cut_off();
    assert_eq!(told.load(Ordering::Relaxed), 1);
}

#[test]
fn what_is_asked_for_in_bytes_is_what_is_asked_for_in_types() {
    let fixture = fixture();
    fixture.run("a");
    for (key, value) in [("a", 7), ("b", 8), ("c", 9_u64)] {
        fixture.commit(key, &value.to_bytes());
    }
    let answer = |read| {
        let request = fixture.request("a", read);
        assert_eq!(fixture.queries.task_of(&request).unwrap(), task_of("a"));
        let answer = fixture.queries.answer(&request, None).unwrap();
        assert_eq!(answer.stale, None);
        answer.rows
    };
    let keys = |keys: &[&str]| {
        let keys = keys.iter().map(|key| key.as_bytes().to_vec());
        StoreRead::Keys(keys.collect())
    };
    let [a, b, c] = [("a", 7), ("b", 8), ("c", 9)].map(|(key, value)| Fixture::row(key, value));
    assert_eq!(answer(keys(&[])), []);
    assert_eq!(answer(keys(&["c", "none", "a"])), [c.clone(), a]);
    let forward = StoreRead::Range(range("b", ScanDirection::Forward, 9));
    assert_eq!(answer(forward), [b.clone(), c.clone()]);
    let reverse = StoreRead::Range(range("b", ScanDirection::Reverse, 1));
    assert_eq!(answer(reverse), std::slice::from_ref(&c));

    // An index in the other store: a byte of its own, then the key. The first of its rows
    // is not there, and does not count for the limit.
    let mut batch = Batch::new();
    for key in ["xaa", "xb", "xc", "yb", "z"] {
        batch.put(StoreId(0), key.as_bytes(), &b""[..]);
    }
    fixture.backend.write(batch).unwrap();
    let indexed = |prefix_bytes, rows: &str| StoreRequest {
        store: "others".to_owned(),
        partition: task_of("a").partition,
        read: StoreRead::Indexed {
            range: RowRange::new(KeyRange::prefix(b"x"), ScanDirection::Forward, 2),
            prefix_bytes,
            rows: rows.to_owned(),
        },
    };
    let found = fixture.queries.answer(&indexed(1, "rows"), None).unwrap();
    assert_eq!(found.rows, [b, c]);
    let beyond = fixture.queries.answer(&indexed(99, "rows"), None).unwrap();
    assert_eq!(beyond.rows, []);
    assert!(matches!(
        fixture.queries.answer(&indexed(1, "none"), None),
        Err(QueryError::UnknownStore(store)) if store == "none"
    ));
}

#[test]
fn in_bytes_too_only_what_is_here_answers_and_is_watched() {
    let fixture = fixture();
    let request = fixture.request("a", StoreRead::Keys(vec![b"a".to_vec()]));
    let unknown = StoreRequest {
        store: "none".to_owned(),
        ..request.clone()
    };
    let Fixture { queries, .. } = &fixture;
    assert!(matches!(
        queries.answer(&unknown, None),
        Err(QueryError::UnknownStore(_))
    ));
    assert!(queries.task_of(&unknown).is_err());
    let watch = || queries.watch_key("rows", request.partition, b"a", || ());
    for partition in [request.partition, Partition(-1), Partition(4)] {
        let request = StoreRequest {
            partition,
            ..request.clone()
        };
        assert!(matches!(
            queries.answer(&request, Some(Duration::MAX)),
            Err(QueryError::NotOwned { .. })
        ));
    }
    assert!(watch().is_err());
    fixture.run("a");
    assert_eq!(queries.answer(&request, None).unwrap().rows, []);
    let told = Arc::new(AtomicUsize::new(0));
    let tell = told.clone();
    let watch = queries.watch_key("rows", request.partition, b"a", move || {
        tell.fetch_add(1, Ordering::Relaxed);
    });
    fixture.commit("b", &1_u64.to_bytes());
    assert_eq!(told.load(Ordering::Relaxed), 0);
    fixture.commit("a", &1_u64.to_bytes());
    assert_eq!(told.load(Ordering::Relaxed), 1);
    drop(watch.unwrap());
}

#[test]
fn a_standby_answers_who_bears_with_how_stale_it_is() {
    let fixture = fixture();
    let request = fixture.request("a", StoreRead::Keys(vec![b"a".to_vec()]));
    let (queries, task) = (&fixture.queries, task_of("a"));
    let ask = |max_stale| queries.answer(&request, max_stale);
    fixture.commit("a", &7_u64.to_bytes());
    queries.set_standby(task, fixture.backend.clone());
    // Not before it has caught up once.
    assert!(ask(Some(Duration::MAX)).is_err());
    let minute = Duration::from_secs(60);
    queries.standby_is_current(task, Instant::now().checked_sub(minute).unwrap());
    assert!(matches!(ask(None), Err(QueryError::NotOwned { .. })));
    assert!(ask(Some(minute / 2)).is_err());
    let answer = ask(Some(2 * minute)).unwrap();
    assert_eq!(answer.rows, [Fixture::row("a", 7)]);
    assert!(answer.stale.is_some_and(|stale| stale >= minute));
    // Nobody reads it as if it ran, or waits for it.
    assert!(fixture.get("a").is_err());
    assert!(fixture.watch("a").0.is_err());
    assert!(queries.present().is_empty());
    // What runs here comes first; a task on its way leaves it to the standby.
    fixture.run("a");
    assert_eq!(ask(Some(Duration::MAX)).unwrap().stale, None);
    queries.set_lost(task);
    assert!(ask(Some(Duration::MAX)).unwrap().stale.is_some());
    queries.standby_is_current(task, Instant::now());
    assert!(ask(Some(minute)).is_ok());
    queries.clear_standby(task);
    assert!(matches!(
        ask(Some(Duration::MAX)),
        Err(QueryError::NotRunning { .. })
    ));
}
