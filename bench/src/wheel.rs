//! The timer wheel alone, with any number of timers: `turnstile-bench-wheel 1000000`.
//!
//! Prints a line of JSON: inserts and cancels per second, and memory. The wheel is not part of
//! the engine's public interface, and does not become so for a benchmark: its files are compiled
//! in here again, which is why this is a separate binary.

mod process;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use turnstile_engine::TimestampMs;

use self::process::Usage;
use self::timer::wheel::TimerWheel;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

mod ids {
    pub(crate) use turnstile_engine::TimestampMs;
}

#[path = "../../topology/engine/src/timer"]
#[allow(
    dead_code,
    reason = "the engine uses more of the wheel than is measured"
)]
mod timer {
    pub(crate) mod slots;
    pub(crate) mod tick;
    pub(crate) mod wheel;
}

/// Timers are spread over an hour.
const SPAN_MS: u64 = 3_600_000;

#[derive(Serialize)]
struct Line {
    phase: &'static str,
    timers: usize,
    inserts_per_s: f64,
    cancels_per_s: f64,
    bytes_a_timer: f64,
    cpu_s: f64,
}

fn main() -> ExitCode {
    let count = std::env::args().nth(1).and_then(|count| count.parse().ok());
    let Some(count) = count.filter(|count| *count > 0) else {
        eprintln!("turnstile-bench-wheel: takes a number of timers");
        return ExitCode::from(2);
    };
    match measure(count).and_then(|line| Ok(serde_json::to_string(&line)?)) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("turnstile-bench-wheel: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(count: usize) -> Outcome<Line> {
    let start = 1_700_000_000_000;
    let timers: Vec<(TimestampMs, Arc<[u8]>)> = (0..count as u64)
        .map(|number| {
            let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
            let after = i64::try_from(scattered % SPAN_MS)?;
            let key = format!("{number:08x}-0000-4000-a000-000000000000");
            Ok((TimestampMs(start + after), Arc::from(key.into_bytes())))
        })
        .collect::<Outcome<_>>()?;
    let empty = Usage::own()?.rss_mb;
    let begun = Instant::now();
    let mut wheel = TimerWheel::new(TimestampMs(start));
    for (deadline, key) in &timers {
        wheel.insert(*deadline, key.clone());
    }
    let inserted = begun.elapsed();
    let full = Usage::own()?.rss_mb;
    let begun = Instant::now();
    for (_, key) in &timers {
        if !wheel.cancel(key) {
            return Err("the wheel has lost a timer".into());
        }
    }
    let cancelled = begun.elapsed();
    Ok(Line {
        phase: "wheel",
        timers: count,
        inserts_per_s: count as f64 / inserted.as_secs_f64(),
        cancels_per_s: count as f64 / cancelled.as_secs_f64(),
        bytes_a_timer: (full - empty) * 1_048_576.0 / count as f64,
        cpu_s: Usage::own()?.cpu_seconds,
    })
}
