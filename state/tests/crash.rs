//! Without a write-ahead log, a crash still leaves one committed point.

mod fixture;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fixture::{options, specs};
use turnstile_state::{Backend, Batch, KeyRange, RocksBackend, ScanDirection, StoreId};

const A: StoreId = StoreId(0);
const B: StoreId = StoreId(1);

/// Says to the child process where its database is.
const DIRECTORY: &str = "CRASH_TEST_DIRECTORY";

/// More than the parent ever lets the child write.
const CHILD_BATCHES: u64 = 1_000_000;

/// The child reports this often.
const REPORT_EVERY: u64 = 500;

/// A database that flushes by itself all the time.
fn open(path: &Path) -> RocksBackend {
    let mut options = options();
    options.buffer_bytes_max = 64 * 1024;
    RocksBackend::open(path, &specs(&["a", "b"]), &options).expect("the database opens")
}

/// Batch `number` adds a small row to a, a large one to b, and moves the offset.
fn write(backend: &RocksBackend, number: u64) {
    let key = number.to_be_bytes();
    let mut batch = Batch::new();
    batch.put(A, key, *b"small");
    batch.put(B, key, [7; 500]);
    let next_offset = i64::try_from(number + 1).expect("a small number");
    batch.set_changelog_offset(next_offset);
    backend.write(batch).expect("write");
}

fn rows(backend: &RocksBackend, store: StoreId) -> Vec<u64> {
    let scan = backend.scan(store, &KeyRange::all(), ScanDirection::Forward);
    scan.expect("scan")
        .map(|entry| {
            let (key, _) = entry.expect("an entry");
            u64::from_be_bytes(key.as_ref().try_into().expect("a key of eight bytes"))
        })
        .collect()
}

/// Checks that the stores and the offset are those after one batch, and says after
/// how many.
fn committed_batches(backend: &RocksBackend) -> u64 {
    let offset = backend.changelog_offset().expect("offset");
    let batches = offset.map_or(0, |offset| u64::try_from(offset).expect("never negative"));
    let expected: Vec<u64> = (0..batches).collect();
    assert!(
        rows(backend, A) == expected,
        "a is not as of its offset {batches}"
    );
    assert!(
        rows(backend, B) == expected,
        "b is not as of its offset {batches}"
    );
    batches
}

#[test]
fn what_was_flushed_survives_and_nothing_is_torn() {
    let directory = tempfile::tempdir().unwrap();
    let backend = fixture::open(directory.path()).unwrap();
    (0..10).for_each(|number| write(&backend, number));
    backend.flush().unwrap();
    (10..20).for_each(|number| write(&backend, number));
    // Closing does not flush, so this is a crash as far as the data goes.
    drop(backend);
    let backend = fixture::open(directory.path()).unwrap();
    assert_eq!(committed_batches(&backend), 10);
}

#[test]
fn flushes_of_its_own_take_all_stores_along() {
    let directory = tempfile::tempdir().unwrap();
    let backend = open(directory.path());
    // The large rows of b fill its buffer many times, those of a never do.
    (0..2_000).for_each(|number| write(&backend, number));
    drop(backend);
    let kept = committed_batches(&open(directory.path()));
    assert!(kept > 0, "no flush happened, so nothing was tested");
    assert!(kept < 2_000, "closing flushed, so nothing was tested");
}

#[test]
fn a_killed_process_leaves_a_committed_point() {
    let directory = tempfile::tempdir().unwrap();
    let mut continued_at = 0;
    for reports in [3, 1, 5] {
        kill_child_after(directory.path(), reports);
        let kept = committed_batches(&open(directory.path()));
        assert!(kept > continued_at, "{kept} batches after {continued_at}");
        continued_at = kept;
    }
}

fn kill_child_after(directory: &Path, reports: usize) {
    let this_test = std::env::current_exe().expect("the path of this test");
    let mut child = Command::new(this_test)
        .args([
            "--exact",
            "child_of_the_kill_test",
            "--ignored",
            "--nocapture",
        ])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the child starts");
    let stdout = child.stdout.take().expect("a piped output");
    let lines = BufReader::new(stdout)
        .lines()
        .map(|line| line.expect("a line"));
    let seen = lines
        .filter(|line| line.contains("batches written"))
        .take(reports)
        .count();
    child.kill().expect("the child runs");
    child.wait().expect("the child ends");
    assert_eq!(seen, reports, "the child ended by itself");
}

#[test]
#[ignore = "run as a child process, which is killed"]
fn child_of_the_kill_test() {
    let directory = PathBuf::from(std::env::var_os(DIRECTORY).unwrap());
    let backend = open(&directory);
    let start = committed_batches(&backend);
    for number in start..start + CHILD_BATCHES {
        write(&backend, number);
        if (number + 1 - start).is_multiple_of(REPORT_EVERY) {
            println!("{} batches written", number + 1);
        }
    }
}
