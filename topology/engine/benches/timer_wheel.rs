//! The timer wheel alone: insert, cancel, advance.
//!
//! The wheel is no part of the public interface, and stays none for a benchmark: its
//! files are compiled in here once more.

use std::sync::Arc;

use divan::{AllocProfiler, Bencher};
use turnstile_engine::TimestampMs;

use self::timer::wheel::TimerWheel;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

mod ids {
    pub(crate) use turnstile_engine::TimestampMs;
}

#[path = "../src/timer"]
#[allow(
    dead_code,
    unused_imports,
    reason = "the engine uses more of the wheel than is measured, and its tests are not run here"
)]
mod timer {
    pub(crate) mod slots;
    pub(crate) mod tick;
    pub(crate) mod wheel;
}

const START: i64 = 1_700_000_000_000;
/// Orders live for two minutes.
const SPAN_MS: i64 = 120_000;
const TIMERS: u32 = 10_000;

fn main() {
    divan::main();
}

/// Keys and deadlines, scattered over the span.
fn timers() -> Vec<(TimestampMs, Arc<[u8]>)> {
    let one = |number: u32| {
        let after = i64::from(number.wrapping_mul(2_654_435_761)) % SPAN_MS;
        let key = format!("{number:08x}-0000-4000-a000-000000000000");
        (TimestampMs(START + after), Arc::from(key.into_bytes()))
    };
    (0..TIMERS).map(one).collect()
}

fn filled(timers: &[(TimestampMs, Arc<[u8]>)]) -> TimerWheel<Arc<[u8]>> {
    let mut wheel = TimerWheel::new(TimestampMs(START));
    for (deadline, key) in timers {
        wheel.insert(*deadline, key.clone());
    }
    wheel
}

#[divan::bench]
fn insert(bencher: Bencher) {
    let timers = timers();
    bencher.counter(TIMERS).bench_local(|| filled(&timers));
}

#[divan::bench]
fn cancel(bencher: Bencher) {
    let timers = timers();
    bencher
        .counter(TIMERS)
        .with_inputs(|| filled(&timers))
        .bench_local_values(|mut wheel| {
            for (_, key) in &timers {
                assert!(wheel.cancel(key));
            }
            wheel
        });
}

/// Through the whole span in steps of this many milliseconds; everything fires.
#[divan::bench(args = [1, 100])]
fn advance(bencher: Bencher, step_ms: i64) {
    let timers = timers();
    bencher
        .counter(TIMERS)
        .with_inputs(|| (filled(&timers), Vec::with_capacity(timers.len())))
        .bench_local_values(|(mut wheel, mut fired)| {
            let mut now = START;
            while wheel.len() > 0 {
                now += step_ms;
                wheel.advance(TimestampMs(now), usize::MAX, &mut fired);
            }
            assert_eq!(fired.len(), timers.len());
            (wheel, fired)
        });
}
