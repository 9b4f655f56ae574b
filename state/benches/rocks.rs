//! The committed state on disk: one batch a commit, and reads of single rows.
//!
//! Buffers are drained, and files merged, by other threads; here only what the caller waits
//! for is measured.

use divan::{AllocProfiler, Bencher, black_box};
use tempfile::TempDir;
use turnstile_state::{
    Backend, Batch, RocksBackend, RocksMemory, RocksOptions, StoreId, StoreSpec,
};

/// Of Rust's allocations; RocksDB's own are not counted.
#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

/// About what a transaction of a busy task writes.
const WRITES: u32 = 2000;

fn main() {
    divan::main();
}

fn open() -> (RocksBackend, TempDir) {
    let folder = tempfile::tempdir().expect("the temporary folder can be written");
    let specs = ["rows", "by-key"].map(|name| StoreSpec {
        name: name.to_owned(),
    });
    let options = RocksOptions::new(RocksMemory::new(64 << 20, 64 << 20));
    let backend = RocksBackend::open(folder.path(), &specs, &options);
    (backend.expect("an empty folder can be opened"), folder)
}

fn key(number: u32) -> Vec<u8> {
    let scattered = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{scattered:016x}-0000-4000-a000-{number:011}").into_bytes()
}

/// Two stores, half of the writes each, and the changelog offset that they reach.
fn batch(from: u32) -> Batch {
    let mut batch = Batch::new();
    for number in from..from + WRITES {
        let store = if number % 2 == 0 { 0 } else { 1 };
        batch.put(StoreId(store), key(number), [7; 120]);
    }
    batch.set_changelog_offset(i64::from(from + WRITES));
    batch
}

#[divan::bench]
fn write_a_batch(bencher: Bencher) {
    let (backend, _folder) = open();
    let mut from = 0;
    bencher
        .counter(WRITES)
        .with_inputs(|| {
            from = (from + WRITES) % 1_000_000;
            batch(from)
        })
        .bench_local_values(|batch| backend.write(batch).expect("the disk can be written"));
}

/// From SST files, their blocks in the cache.
#[divan::bench(args = [true, false])]
fn get(bencher: Bencher, is_there: bool) {
    let (backend, _folder) = open();
    for from in (0..100_000).step_by(2000) {
        backend.write(batch(from)).expect("the disk can be written");
    }
    backend.flush().expect("the disk can be written");
    let first = if is_there { 0 } else { 1_000_000 };
    let keys: Vec<Vec<u8>> = (first..first + WRITES).map(|n| key(n * 2)).collect();
    bencher.counter(WRITES).bench_local(|| {
        for key in &keys {
            let row = black_box(backend.get(StoreId(0), key)).expect("the disk can be read");
            assert_eq!(row.is_some(), is_there);
        }
    });
}
