//! What opening and destroying a task does to directories of all kinds.

mod fixture;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use fixture::{open, options, specs};
use turnstile_state::{Backend, Batch, KeyRange, RocksBackend, ScanDirection, StateError, StoreId};

const A: StoreId = StoreId(0);
const B: StoreId = StoreId(1);

fn write_and_flush(backend: &RocksBackend, store: StoreId, value: &[u8]) {
    let mut batch = Batch::new();
    batch.put(store, *b"k", value);
    batch.set_changelog_offset(5);
    backend.write(batch).expect("write");
    backend.flush().expect("flush");
}

fn table_files(task: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(task.join("db")).expect("the database directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "sst"))
        .collect()
}

#[test]
fn a_missing_directory_is_created_with_its_parents() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state").join("0_0");
    write_and_flush(&open(&path).unwrap(), A, b"v");
    assert_eq!(
        open(&path).unwrap().get(A, b"k").unwrap().as_deref(),
        Some(&b"v"[..])
    );
}

#[test]
fn a_foreign_directory_is_neither_opened_nor_destroyed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("thesis.txt");
    fs::write(&file, "ten years of work").unwrap();
    assert!(matches!(
        open(directory.path()),
        Err(StateError::ForeignFormat { .. })
    ));
    let error = RocksBackend::destroy(directory.path()).unwrap_err();
    assert!(matches!(error, StateError::ForeignFormat { .. }), "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "ten years of work");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_newer_format_is_refused_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()).unwrap());
    fs::write(directory.path().join("FORMAT"), "turnstile-task 3\na\nb\n").unwrap();
    for error in [
        open(directory.path()).err(),
        RocksBackend::destroy(directory.path()).err(),
    ] {
        assert!(
            matches!(
                error,
                Some(StateError::NewerFormat {
                    found: 3,
                    supported: 2,
                    ..
                })
            ),
            "{error:?}"
        );
    }
    assert!(directory.path().join("db").exists());
}

#[test]
fn an_older_format_is_wiped_and_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()).unwrap());
    fs::write(directory.path().join("FORMAT"), "turnstile-task 1\na\nb\n").unwrap();
    let error = open(directory.path()).unwrap_err();
    assert!(
        matches!(
            error,
            StateError::OlderFormat {
                found: 1,
                expected: 2,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.is_mended_by_wiping());
    RocksBackend::destroy(directory.path()).unwrap();
    assert_eq!(
        open(directory.path()).unwrap().changelog_offset().unwrap(),
        None
    );
}

#[test]
fn stores_added_or_removed_are_reported() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()).unwrap());
    for names in [&["a"][..], &["a", "b", "c"], &["a", "c"]] {
        let error = RocksBackend::open(directory.path(), &specs(names), &options()).unwrap_err();
        assert!(error.is_mended_by_wiping());
        let StateError::DifferentStores {
            expected, found, ..
        } = error
        else {
            panic!("{error}");
        };
        assert_eq!(expected, names);
        assert_eq!(found, ["a", "b"]);
    }
    RocksBackend::destroy(directory.path()).unwrap();
    RocksBackend::open(directory.path(), &specs(&["a", "c"]), &options()).unwrap();
}

#[test]
fn the_order_of_stores_may_change() {
    let directory = tempfile::tempdir().unwrap();
    write_and_flush(&open(directory.path()).unwrap(), A, b"of a");
    let swapped = RocksBackend::open(directory.path(), &specs(&["b", "a"]), &options()).unwrap();
    assert_eq!(swapped.get(B, b"k").unwrap().as_deref(), Some(&b"of a"[..]));
    assert_eq!(swapped.get(A, b"k").unwrap(), None);
    assert_eq!(swapped.changelog_offset().unwrap(), Some(5));
}

#[test]
fn store_names_are_checked() {
    let directory = tempfile::tempdir().unwrap();
    for names in [&[""][..], &["A"], &["a_b"], &["a\nb"], &["a", "b", "a"]] {
        let error = RocksBackend::open(directory.path(), &specs(names), &options()).unwrap_err();
        assert!(
            matches!(error, StateError::InvalidName { .. }),
            "{names:?}: {error}"
        );
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_task_is_open_once() {
    let directory = tempfile::tempdir().unwrap();
    let _first = open(directory.path()).unwrap();
    let error = open(directory.path()).unwrap_err();
    assert!(matches!(error, StateError::RocksDb { .. }), "{error}");
}

#[test]
fn a_creation_that_a_crash_cut_short_is_completed() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("FORMAT"), "turnstile-task 2\na\nb\n").unwrap();
    let backend = open(directory.path()).unwrap();
    assert_eq!(backend.changelog_offset().unwrap(), None);
}

#[test]
fn a_lost_table_is_found_when_opening() {
    let directory = tempfile::tempdir().unwrap();
    write_and_flush(&open(directory.path()).unwrap(), A, b"v");
    let lost = table_files(directory.path()).into_iter().next().unwrap();
    fs::remove_file(lost).unwrap();
    let error = open(directory.path()).unwrap_err();
    assert!(matches!(error, StateError::Corrupted { .. }), "{error:?}");
    assert!(error.is_mended_by_wiping());
}

#[test]
fn a_lost_manifest_is_a_fault_of_the_database_and_not_of_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("0_0");
    write_and_flush(&open(&path).unwrap(), A, b"v");
    let current = fs::read_to_string(path.join("db").join("CURRENT")).unwrap();
    fs::remove_file(path.join("db").join(current.trim())).unwrap();
    let error = open(&path).unwrap_err();
    assert!(matches!(error, StateError::Corrupted { .. }), "{error}");
    assert!(error.is_mended_by_wiping());
}

#[test]
fn what_a_task_has_reached_is_told_whatever_its_stores_are() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("0_0");
    assert_eq!(RocksBackend::reached(&path).unwrap(), None);
    drop(open(&path).unwrap());
    assert_eq!(RocksBackend::reached(&path).unwrap(), None);
    write_and_flush(&open(&path).unwrap(), A, b"v");
    assert_eq!(RocksBackend::reached(&path).unwrap(), Some(5));
    assert_eq!(open(&path).unwrap().changelog_offset().unwrap(), Some(5));
    RocksBackend::destroy(&path).unwrap();
    assert_eq!(RocksBackend::reached(&path).unwrap(), None);
}

#[test]
fn flipped_bytes_are_found_when_reading() {
    let directory = tempfile::tempdir().unwrap();
    write_and_flush(&open(directory.path()).unwrap(), A, &[b'v'; 100]);
    for path in table_files(directory.path()) {
        // The first block of a table holds entries; their checksum is at its end.
        let mut content = fs::read(&path).unwrap();
        content[1] ^= 0xff;
        fs::write(&path, content).unwrap();
    }
    let error = match open(directory.path()) {
        Err(error) => error,
        Ok(backend) => backend.get(A, b"k").unwrap_err(),
    };
    assert!(matches!(error, StateError::Corrupted { .. }), "{error:?}");
}

#[test]
fn a_destroyed_task_is_gone_and_can_be_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("0_0");
    write_and_flush(&open(&path).unwrap(), A, b"v");
    RocksBackend::destroy(&path).unwrap();
    assert!(!path.exists());
    RocksBackend::destroy(&path).unwrap();
    assert_eq!(open(&path).unwrap().get(A, b"k").unwrap(), None);
}

#[test]
fn what_a_cut_short_destruction_left_opens_empty() {
    let directory = tempfile::tempdir().unwrap();
    write_and_flush(&open(directory.path()).unwrap(), A, b"v");
    let discarded = directory.path().join("db.discarded");
    fs::rename(directory.path().join("db"), &discarded).unwrap();
    let backend = open(directory.path()).unwrap();
    assert_eq!(backend.get(A, b"k").unwrap(), None);
    assert!(!discarded.exists());
}

/// RocksDB takes a file in by a second name: a crash, or a disk that does not let go of the first
/// one, leaves both.
#[test]
fn a_file_that_was_taken_in_is_not_written_again_under_its_first_name() {
    let directory = tempfile::tempdir().unwrap();
    write_and_flush(&open(directory.path()).unwrap(), A, b"of the database");
    let table = table_files(directory.path()).into_iter().next().unwrap();
    let first_name = directory.path().join("db").join("drained.sst");
    let before = fs::read(&table).unwrap();
    fs::hard_link(&table, &first_name).unwrap();
    let backend = open(directory.path()).unwrap();
    assert!(!first_name.exists());
    fs::hard_link(&table, &first_name).unwrap();
    write_and_flush(&backend, B, b"another file");
    assert_eq!(fs::read(&table).unwrap(), before);
    for (store, value) in [(A, &b"of the database"[..]), (B, b"another file")] {
        assert_eq!(backend.get(store, b"k").unwrap().as_deref(), Some(value));
    }
}

/// The age of its stores is told by that of its directory.
#[test]
fn a_flush_leaves_the_directory_of_the_task_as_old_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let backend = open(directory.path()).unwrap();
    let modified = || fs::metadata(directory.path()).unwrap().modified().unwrap();
    let before = modified();
    thread::sleep(Duration::from_millis(20));
    write_and_flush(&backend, A, b"v");
    assert_eq!(modified(), before);
}

#[test]
fn what_cannot_be_drained_is_kept_and_drained_later() {
    let directory = tempfile::tempdir().unwrap();
    let backend = open(directory.path()).unwrap();
    let in_the_way = directory.path().join("db").join("drained.sst");
    fs::create_dir(&in_the_way).unwrap();
    let write = |key: &[u8], next_offset| {
        let mut batch = Batch::new();
        batch.put(A, key, *b"v");
        batch.set_changelog_offset(next_offset);
        backend.write(batch).unwrap();
    };
    write(b"first", 1);
    let error = backend.flush().unwrap_err();
    assert!(matches!(error, StateError::Io { .. }), "{error:?}");
    write(b"second", 2);
    let error = backend.flush().unwrap_err();
    assert!(matches!(error, StateError::Io { .. }), "{error:?}");
    backend.begin_flush().unwrap();
    let keys = |backend: &RocksBackend| {
        let scan = backend.scan(A, &KeyRange::all(), ScanDirection::Forward);
        let entries = scan.unwrap().map(|entry| entry.unwrap().0.into_vec());
        entries.collect::<Vec<_>>()
    };
    let both = [b"first".to_vec(), b"second".to_vec()];
    assert_eq!(keys(&backend), both);
    fs::remove_dir(&in_the_way).unwrap();
    backend.flush().unwrap();
    drop(backend);
    let backend = open(directory.path()).unwrap();
    assert_eq!(keys(&backend), both);
    assert_eq!(backend.changelog_offset().unwrap(), Some(2));
}

#[test]
fn what_is_closed_while_it_is_drained_can_be_opened_at_once() {
    let directory = tempfile::tempdir().unwrap();
    for turn in 0..20_u64 {
        let backend = open(directory.path()).unwrap();
        for row in 0..500_u64 {
            let mut batch = Batch::new();
            batch.put(A, row.to_be_bytes(), turn.to_be_bytes());
            backend.write(batch).unwrap();
        }
        backend.begin_flush().unwrap();
        drop(backend);
        let backend = open(directory.path()).unwrap();
        let row = backend.get(A, &499_u64.to_be_bytes()).unwrap();
        assert_eq!(row.as_deref(), Some(&turn.to_be_bytes()[..]));
    }
}

/// A process may be killed at any moment of a destruction: seen from another thread, the files
/// are marked for as long as there are any.
#[test]
fn what_is_being_destroyed_is_marked_to_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("0_0");
    let marker = path.join("FORMAT");
    drop(open(&path).unwrap());
    // In whatever order the file system lists them: many come after the marker.
    let add_files = |name: &str| {
        for number in 0..2_000 {
            fs::write(path.join(format!("{name}-{number}")), "").unwrap();
        }
    };
    add_files("before");
    let content = fs::read(&marker).unwrap();
    fs::remove_file(&marker).unwrap();
    fs::write(&marker, content).unwrap();
    add_files("after");
    let is_destroyed = AtomicBool::new(false);
    thread::scope(|threads| {
        threads.spawn(|| {
            while !is_destroyed.load(Ordering::Relaxed) {
                // In this order: what is found afterwards was there before.
                let is_marked = marker.exists();
                let holds_more = fs::read_dir(&path).is_ok_and(|entries| {
                    let mut names = entries.flatten().map(|entry| entry.file_name());
                    names.any(|name| name != "FORMAT")
                });
                assert!(is_marked || !holds_more, "there are files and no marker");
            }
        });
        let destroyed = RocksBackend::destroy(&path);
        is_destroyed.store(true, Ordering::Relaxed);
        destroyed.unwrap();
    });
    assert!(!path.exists());
}

#[test]
fn a_small_store_is_counted_and_larger_ones_share_what_the_database_counts() {
    let directory = tempfile::tempdir().unwrap();
    let specs = specs(&["short", "long", "few", "none"]);
    let [short, long, few] = [0, 1, 2].map(StoreId);
    let backend = RocksBackend::open(directory.path(), &specs, &options()).unwrap();
    let mut batch = Batch::new();
    for row in 0..6_000_u64 {
        // Digits that hardly compress.
        let digits = row.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
        batch.put(short, row.to_be_bytes(), digits);
        if row < 2_000 {
            let value: Vec<u8> = (0..40)
                .flat_map(|turn| digits.map(|d| d.wrapping_add(turn)))
                .collect();
            batch.put(long, row.to_be_bytes(), value);
        }
        if row < 10 {
            batch.put(few, row.to_be_bytes(), digits);
        }
    }
    backend.write(batch).unwrap();
    backend.flush().unwrap();
    let keys: Vec<u64> = backend
        .stats()
        .unwrap()
        .iter()
        .map(|stats| stats.keys)
        .collect();
    let [short, long, few, none] = keys.try_into().unwrap();
    assert!((5_000..7_000).contains(&short), "{short}");
    // RocksDB counts the offset's row too.
    assert!((7_999..=8_001).contains(&(short + long)), "{short} {long}");
    assert_eq!([few, none], [10, 0]);
}

#[test]
fn memory_is_shared_and_measured() {
    let directory = tempfile::tempdir().unwrap();
    let options = options();
    let [first, second] = ["0_0", "0_1"].map(|task| {
        let path = directory.path().join(task);
        RocksBackend::open(&path, &specs(&["a", "b"]), &options).unwrap()
    });
    let memory = options.memory;
    assert_eq!(memory.block_cache_capacity_bytes(), 8 << 20);
    let mut used = memory.write_buffer_usage_bytes();
    for backend in [&first, &second] {
        let mut batch = Batch::new();
        batch.put(A, *b"k", vec![1; 1 << 20]);
        backend.write(batch).unwrap();
        let now = memory.write_buffer_usage_bytes();
        assert!(now >= used + (1 << 20), "{used} then {now}");
        used = now;
    }
    let cached = memory.block_cache_usage_bytes();
    first.flush().unwrap();
    assert!(memory.write_buffer_usage_bytes() <= used - (1 << 20));
    first.get(A, b"k").unwrap();
    assert!(memory.block_cache_usage_bytes() >= cached + (1 << 20));
    used = memory.write_buffer_usage_bytes();
    drop((first, second));
    assert!(memory.write_buffer_usage_bytes() < used);
}
