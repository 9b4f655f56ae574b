use std::sync::atomic::{AtomicBool, Ordering};

use turnstile_state::{Batch, RocksMemory, StateError, StoreId};

use super::*;
use crate::quiet;

/// Stores of a topology with one store, in a folder of the test. Their changelog has records.
fn stores(folder: &std::path::Path) -> (TaskStores, TaskId) {
    stores_with(folder, || Ok(Offset(7)))
}

/// The same, where brokers say this of the end of the changelog.
fn stores_with(
    folder: &std::path::Path,
    log_end: impl Fn() -> Result<Offset, KafkaFault> + Send + Sync + 'static,
) -> (TaskStores, TaskId) {
    let (plan, _) = quiet::plan(&[("words", 1, &["counts"])]);
    let state_dir = Arc::new(StateDir::lock(folder, "app").unwrap());
    let rocks = RocksOptions::new(RocksMemory::new(8 << 20, 8 << 20));
    let task = plan.tasks()[0];
    let log_end: LogEnd = Arc::new(move |place| {
        assert!(place.topic.ends_with("-stores-changelog"));
        log_end()
    });
    (TaskStores::new(state_dir, plan, rocks, log_end), task)
}

/// Opens stores that nobody has open.
fn open(stores: &TaskStores, task: TaskId) -> Arc<dyn Backend> {
    let opened = stores.open(task, Duration::ZERO).unwrap();
    opened.expect("nobody has them open")
}

fn is_open(stores: &TaskStores, task: TaskId) -> bool {
    stores.open(task, Duration::ZERO).unwrap().is_none()
}

/// Whether a row that was written, flushed and noted is there when the stores are
/// opened `later`.
fn survives(later: Duration) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let (stores, task) = stores(folder.path());
    let backend = open(&stores, task);
    let mut batch = Batch::new();
    batch.put(StoreId(0), *b"row", *b"value");
    backend.write(batch).unwrap();
    backend.flush().unwrap();
    stores.note_kept(task, SystemTime::now() - later);
    drop(backend);
    let backend = open(&stores, task);
    backend.get(StoreId(0), b"row").unwrap().is_some()
}

fn open_ahead_and_wait(stores: &TaskStores, task: TaskId) {
    stores.open_ahead([task]);
    let mut state = stores.ahead.state.lock();
    while !state.waiting.is_empty() || !state.opening.is_empty() {
        stores.ahead.opened.wait(&mut state);
    }
}

#[test]
fn stores_that_were_opened_ahead_go_to_whoever_opens_them_and_to_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let (stores, task) = stores(folder.path());
    open_ahead_and_wait(&stores, task);
    assert!(stores.ahead.state.lock().open.contains_key(&task));
    let backend = open(&stores, task);
    assert!(is_open(&stores, task));
    // Somebody has them now.
    stores.open_ahead([task]);
    assert!(stores.ahead.state.lock().waiting.is_empty());
    drop(backend);
    drop(open(&stores, task));
}

#[test]
fn stores_that_were_opened_ahead_in_vain_are_closed() {
    let folder = tempfile::tempdir().unwrap();
    let (stores, task) = stores(folder.path());
    open_ahead_and_wait(&stores, task);
    let open_again = || stores.open_on_disk(task, Duration::ZERO).unwrap();
    assert!(open_again().is_none());
    stores.close_unclaimed();
    assert!(open_again().is_some());
}

#[test]
fn what_was_opened_ahead_is_wiped_like_the_rest_when_it_is_too_old() {
    let folder = tempfile::tempdir().unwrap();
    let (stores, task) = stores(folder.path());
    open_ahead_and_wait(&stores, task);
    let ahead = stores.ahead.state.lock().open[&task].clone();
    let mut batch = Batch::new();
    batch.put(StoreId(0), *b"row", *b"value");
    ahead.write(batch).unwrap();
    ahead.flush().unwrap();
    drop(ahead);
    stores.note_kept(task, SystemTime::now() - AGE_MAX * 2);
    let backend = open(&stores, task);
    assert_eq!(backend.get(StoreId(0), b"row").unwrap(), None);
}

#[test]
fn stores_that_may_have_missed_a_tombstone_are_not_used_again() {
    assert!(survives(Duration::ZERO));
    assert!(survives(AGE_MAX - Duration::from_secs(60)));
    assert!(!survives(AGE_MAX + Duration::from_secs(60)));
    assert!(AGE_MAX < TOMBSTONES_KEPT);
}

#[test]
fn stores_can_be_used_for_as_long_as_they_may_be_left_alone() {
    const MINUTE: Duration = Duration::from_secs(60);
    let folder = tempfile::tempdir().unwrap();
    let (stores, task) = stores(folder.path());
    let left = |stores: &TaskStores| stores.usable_until(task).duration_since(SystemTime::now());
    assert!(left(&stores).unwrap() > AGE_MAX - MINUTE, "there are none");
    let _backend = open(&stores, task);
    stores.note_kept(task, SystemTime::now() - AGE_MAX + MINUTE);
    assert!(left(&stores).is_ok_and(|left| left <= MINUTE));
    stores.note_kept(task, SystemTime::now() - AGE_MAX * 2);
    assert!(left(&stores).is_err());
}

#[test]
fn a_note_of_stores_that_are_gone_is_nothing() {
    for age in [Duration::ZERO, AGE_MAX * 2] {
        let folder = tempfile::tempdir().unwrap();
        let (stores, task) = stores(folder.path());
        fs::create_dir(stores.state_dir.task_path(&dir_name(task))).unwrap();
        stores.note_kept(task, SystemTime::now() - age);
        stores.wipe(task).unwrap();
        stores.note_kept(task, SystemTime::now() - age);
        drop(open(&stores, task));
    }
}

#[test]
fn a_note_beside_what_is_not_ours_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (stores, task) = stores(folder.path());
    let of_task = stores.state_dir.task_path(&dir_name(task));
    fs::create_dir(&of_task).unwrap();
    fs::write(of_task.join("thesis.txt"), "ten years of work").unwrap();
    stores.note_kept(task, SystemTime::now());
    let refused = stores.open(task, Duration::ZERO).map(drop).unwrap_err();
    let StoresFault::Task(TaskError::State { source, .. }) = refused else {
        panic!("{refused}");
    };
    assert!(
        matches!(source, StateError::ForeignFormat { .. }),
        "{source}"
    );
    assert!(stores.wipe(task).is_err());
    assert_eq!(fs::read_dir(&of_task).unwrap().count(), 2);
}

#[test]
fn stores_of_a_time_to_come_are_not_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let (stores, task) = stores(folder.path());
    let backend = open(&stores, task);
    for (ahead, is_too_old) in [(Duration::from_secs(60), false), (AGE_MAX * 3, true)] {
        stores.note_kept(task, SystemTime::now() + ahead);
        assert_eq!(stores.is_too_old(task), is_too_old, "{ahead:?}");
    }
    drop(backend);
}

#[test]
fn stores_without_a_note_are_as_old_as_their_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (stores, task) = stores(folder.path());
    assert_eq!(stores.age(task), None);
    drop(open(&stores, task));
    assert!(stores.age(task).is_some_and(|age| age < AGE_MAX));
    let of_task = File::open(stores.state_dir.task_path(&dir_name(task))).unwrap();
    of_task
        .set_modified(SystemTime::now() - AGE_MAX * 2)
        .unwrap();
    assert!(stores.age(task).is_some_and(|age| age > AGE_MAX));
}

/// Writes a row to stores, and brings it to disk.
fn write(backend: &Arc<dyn Backend>) -> Result<(), StateError> {
    let mut batch = Batch::new();
    batch.put(StoreId(0), *b"row", *b"value");
    backend.write(batch)?;
    backend.flush()
}

fn note_as_too_old(stores: &TaskStores, task: TaskId) {
    stores.note_kept(task, SystemTime::now() - AGE_MAX * 2);
}

#[test]
fn stores_that_nobody_has_opened_for_too_long_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let (stores, task) = stores(folder.path());
    // There are none.
    stores.remove_if_left(task);
    write(&open(&stores, task)).unwrap();
    for age in [Duration::ZERO, AGE_MAX - Duration::from_secs(60)] {
        stores.note_kept(task, SystemTime::now() - age);
        stores.remove_if_left(task);
        assert_eq!(stores.on_disk(), [task]);
    }
    note_as_too_old(&stores, task);
    stores.remove_if_left(task);
    assert!(stores.on_disk().is_empty());
    // They come back as those of a task that was never here.
    let backend = open(&stores, task);
    assert_eq!(backend.get(StoreId(0), b"row").unwrap(), None);
}

#[test]
fn stores_that_somebody_has_open_are_not_removed_however_old_their_note_is() {
    let folder = tempfile::tempdir().unwrap();
    let (stores, task) = stores(folder.path());
    let of_task = open(&stores, task);
    note_as_too_old(&stores, task);
    // A query may hold on to them for longer than their task.
    let of_query = of_task.clone();
    for backend in [of_task, of_query] {
        stores.remove_if_left(task);
        write(&backend).unwrap();
    }
    stores.remove_if_left(task);
    assert!(stores.on_disk().is_empty());
}

#[test]
fn stores_that_were_opened_ahead_are_not_removed_before_they_are_closed() {
    let folder = tempfile::tempdir().unwrap();
    let (stores, task) = stores(folder.path());
    open_ahead_and_wait(&stores, task);
    note_as_too_old(&stores, task);
    stores.remove_if_left(task);
    assert_eq!(stores.on_disk(), [task]);
    stores.close_unclaimed();
    stores.remove_if_left(task);
    assert!(stores.on_disk().is_empty());
}

#[test]
fn what_is_not_ours_is_not_removed_however_old_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (stores, task) = stores(folder.path());
    let of_task = stores.state_dir.task_path(&dir_name(task));
    fs::create_dir(&of_task).unwrap();
    fs::write(of_task.join("thesis.txt"), "ten years of work").unwrap();
    let time = SystemTime::now() - AGE_MAX * 2;
    File::open(&of_task).unwrap().set_modified(time).unwrap();
    assert!(stores.is_too_old(task));
    stores.remove_if_left(task);
    assert_eq!(fs::read_dir(&of_task).unwrap().count(), 1);
    note_as_too_old(&stores, task);
    stores.remove_if_left(task);
    assert_eq!(fs::read_dir(&of_task).unwrap().count(), 2);
}

#[test]
fn stores_can_be_opened_at_any_moment_of_their_removal() {
    let folder = tempfile::tempdir().unwrap();
    let (stores, task) = stores(folder.path());
    let removing = stores.clone();
    let done = &AtomicBool::new(false);
    thread::scope(|threads| {
        threads.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                removing.remove_if_left(task);
            }
        });
        // Whatever becomes of it, the other one ends.
        let used = (0..30).try_for_each(|_| -> Result<(), Box<dyn std::error::Error>> {
            let opened = stores.open(task, REMOVAL_PATIENCE)?;
            note_as_too_old(&stores, task);
            Ok(write(&opened.ok_or("somebody has kept them")?)?)
        });
        done.store(true, Ordering::Relaxed);
        used.unwrap();
    });
}

/// Each finds them too old, or wipes them, while others use them or do the same.
#[test]
fn stores_are_wiped_by_one_at_a_time_and_while_nobody_has_them_open() {
    let folder = tempfile::tempdir().unwrap();
    let (stores, task) = stores(folder.path());
    let used = |wipes: bool| {
        for _ in 0..20 {
            if wipes {
                stores.wipe(task).unwrap();
            }
            let Some(backend) = stores.open(task, REMOVAL_PATIENCE).unwrap() else {
                panic!("somebody has kept them");
            };
            note_as_too_old(&stores, task);
            write(&backend).unwrap();
        }
    };
    thread::scope(|threads| {
        for wipes in [true, true, false, false] {
            threads.spawn(move || used(wipes));
        }
    });
}

/// Stores that were brought to an offset of their changelog, and left for too long.
fn left_at(stores: &TaskStores, task: TaskId, offset: i64) {
    let backend = open(stores, task);
    let mut batch = Batch::new();
    batch.put(StoreId(0), *b"row", *b"value");
    batch.set_changelog_offset(offset);
    backend.write(batch).unwrap();
    backend.flush().unwrap();
    note_as_too_old(stores, task);
}

#[test]
fn stores_whose_changelog_holds_nothing_are_not_removed_however_old_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let (stores, task) = stores_with(folder.path(), || Ok(Offset(0)));
    left_at(&stores, task, 5);
    for _ in 0..2 {
        stores.remove_if_left(task);
        for refused in [
            stores.open(task, Duration::ZERO).map(drop),
            stores.wipe(task),
        ] {
            let refused = refused.unwrap_err();
            assert!(
                matches!(
                    refused,
                    StoresFault::Task(TaskError::ChangelogLost {
                        reached: Offset(5),
                        ..
                    })
                ),
                "{refused}"
            );
        }
    }
    stores.note_kept(task, SystemTime::now());
    let backend = open(&stores, task);
    assert!(backend.get(StoreId(0), b"row").unwrap().is_some());
}

#[test]
fn stores_are_not_removed_while_brokers_do_not_tell_whether_they_can_be_restored() {
    let folder = tempfile::tempdir().unwrap();
    let (stores, task) = stores_with(folder.path(), || Err(KafkaFault::timeout("ask")));
    // Those that hold nothing of their changelog can be removed without asking.
    write(&open(&stores, task)).unwrap();
    stores.wipe(task).unwrap();
    left_at(&stores, task, 5);
    stores.remove_if_left(task);
    let refused = stores.wipe(task).unwrap_err();
    assert!(matches!(refused, StoresFault::Kafka(_)), "{refused}");
    stores.note_kept(task, SystemTime::now());
    let backend = open(&stores, task);
    assert!(backend.get(StoreId(0), b"row").unwrap().is_some());
}
