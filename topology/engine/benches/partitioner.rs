//! The partition of a key: asked for every record that is read and sent.

use divan::{AllocProfiler, Bencher, black_box};
use turnstile_engine::partitioner::partition_of;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

const KEYS: u32 = 1000;

fn main() {
    divan::main();
}

/// Ids such as `t-17`, ObjectIds and UUIDs have these lengths.
#[divan::bench(args = [8, 24, 36])]
fn partition(bencher: Bencher, bytes: usize) {
    let keys: Vec<Vec<u8>> = (0..KEYS)
        .map(|number| format!("{number:0bytes$}").into_bytes())
        .collect();
    bencher.counter(KEYS).bench_local(|| {
        for key in &keys {
            black_box(partition_of(black_box(key), 16));
        }
    });
}
