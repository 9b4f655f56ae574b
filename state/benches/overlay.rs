//! The writes of an open transaction: what each read and write of a processor costs.

use std::sync::Arc;

use divan::{AllocProfiler, Bencher, black_box};
use turnstile_state::{Backend, Batch, MemoryBackend, Overlay, StoreId, StoreSpec};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

/// About what a transaction of a busy task writes.
const WRITES: u32 = 2000;

const STORE: StoreId = StoreId(0);

fn main() {
    divan::main();
}

/// A key as long as a UUID, in an order that is not that of the numbers.
fn key(number: u32) -> Vec<u8> {
    let scattered = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{scattered:016x}-0000-4000-a000-{number:011}").into_bytes()
}

fn keys() -> Vec<Vec<u8>> {
    (0..WRITES).map(key).collect()
}

/// Rows that are committed already, under the same keys.
fn committed() -> Arc<dyn Backend> {
    let name = "rows".to_owned();
    let backend = MemoryBackend::new(&[StoreSpec { name }]);
    let mut batch = Batch::new();
    for key in keys() {
        batch.put(STORE, key, [7; 120]);
    }
    backend
        .write(batch)
        .expect("a memory backend takes any write");
    Arc::new(backend)
}

fn written(backend: &Arc<dyn Backend>, keys: &[Vec<u8>]) -> Overlay {
    let mut overlay = Overlay::new(backend.clone(), 1);
    for key in keys {
        overlay
            .put(STORE, key.clone(), [8; 120])
            .expect("the store is there");
    }
    overlay
}

#[divan::bench]
fn put(bencher: Bencher) {
    let (backend, keys) = (committed(), keys());
    bencher
        .counter(WRITES)
        .bench_local(|| written(&backend, &keys));
}

/// As a processor writes: under a savepoint, which is released when the record is done.
#[divan::bench]
fn put_under_a_savepoint(bencher: Bencher) {
    let (backend, keys) = (committed(), keys());
    bencher.counter(WRITES).bench_local(|| {
        let mut overlay = Overlay::new(backend.clone(), 1);
        for key in &keys {
            let savepoint = overlay.savepoint();
            overlay
                .put(STORE, key.clone(), [8; 120])
                .expect("the store is there");
            overlay.release(savepoint);
        }
        overlay
    });
}

#[divan::bench]
fn get_what_is_written(bencher: Bencher) {
    let (backend, keys) = (committed(), keys());
    let overlay = written(&backend, &keys);
    bencher.counter(WRITES).bench_local(|| {
        for key in &keys {
            black_box(overlay.get(STORE, key)).expect("the store is there");
        }
    });
}

/// Through the overlay to a backend in memory: what the overlay adds to a read of the backend.
#[divan::bench]
fn get_what_is_committed(bencher: Bencher) {
    let (backend, keys) = (committed(), keys());
    let overlay = written(&backend, &[]);
    bencher.counter(WRITES).bench_local(|| {
        for key in &keys {
            black_box(overlay.get(STORE, key)).expect("the store is there");
        }
    });
}

/// Under an open transaction that has written other keys.
#[divan::bench]
fn get_what_is_sealed(bencher: Bencher) {
    let (backend, keys) = (committed(), keys());
    let mut overlay = written(&backend, &keys);
    overlay.seal();
    for number in WRITES..2 * WRITES {
        overlay
            .put(STORE, key(number), [9; 120])
            .expect("the store is there");
    }
    bencher.counter(WRITES).bench_local(|| {
        for key in &keys {
            black_box(overlay.get(STORE, key)).expect("the store is there");
        }
    });
}

#[divan::bench]
fn take_batch(bencher: Bencher) {
    let (backend, keys) = (committed(), keys());
    bencher
        .counter(WRITES)
        .with_inputs(|| written(&backend, &keys))
        .bench_local_values(|mut overlay| {
            overlay.seal();
            overlay.take_batch()
        });
}
