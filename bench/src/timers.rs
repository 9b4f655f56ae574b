//! What many pending timers cost, and whether records still flow while many are due.
//!
//! 1. Many timers are set for tomorrow; memory before and after, beyond what RocksDB has in
//!    its block cache and write buffers, which are limited by configuration.
//! 2. Pings at a steady rate while nothing is due, then while many timers are due at once:
//!    the latency of each, from the command to its visible answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use rdkafka::Message;
use serde::Serialize;
use turnstile_engine::clock;

use crate::Outcome;
use crate::alarms::{ALARMS, Application, FIRED, PONGS};
use crate::orders::Commands;
use crate::percentiles::Percentiles;
use crate::place::{Place, say};
use crate::process::Usage;
use crate::reader::Reader;

/// How many timers one command sets.
const BATCH: usize = 100;
const DAY_MS: i64 = 86_400_000;
const MIB: f64 = 1_048_576.0;
/// After this long without an event, something is wrong.
const SILENCE: Duration = Duration::from_mins(2);

/// `timers`.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Timers that are pending and stay so.
    #[arg(long, default_value_t = 10_000_000)]
    pending: usize,
    /// Timers that are due at once.
    #[arg(long, default_value_t = 1_000_000)]
    due: usize,
    /// Partitions of the topics.
    #[arg(long, default_value_t = 4)]
    partitions: i32,
    /// Pings a second.
    #[arg(long, default_value_t = 200.0)]
    rate: f64,
    /// Seconds of pings while nothing is due.
    #[arg(long, default_value_t = 10.0)]
    quiet: f64,
    /// Seconds to wait until the stores are flushed, before memory is read.
    #[arg(long, default_value_t = 35.0)]
    settle: f64,
}

#[derive(Serialize)]
struct Line {
    phase: &'static str,
    timers_pending: usize,
    timers_set_per_s: f64,
    rss_without_timers_mb: f64,
    rss_with_timers_mb: f64,
    block_cache_and_write_buffers_mb: f64,
    rss_beyond_cache_mb: f64,
    rss_beyond_cache_grew_mb: f64,
    timers_due_at_once: usize,
    drained_in_s: f64,
    timers_fired_per_s: f64,
    record_p50_quiet_ms: f64,
    record_p99_quiet_ms: f64,
    record_p50_while_draining_ms: f64,
    record_p99_while_draining_ms: f64,
    records_while_draining: usize,
}

pub(crate) fn run(options: &Options) -> Outcome<()> {
    let brokers = options.place.brokers.as_str();
    let application = Application::ready(&options.place, options.partitions, None)?;
    let commands = Commands::to(brokers)?;
    let pongs = Reader::from_now(brokers, &[PONGS])?;
    // So that what every instance needs exists already.
    set(
        &application,
        &commands,
        "warm",
        BATCH * 100,
        clock::now().0 + DAY_MS,
    )?;
    application.drain(&commands, &pongs)?;
    sleep(Duration::from_secs_f64(options.settle));
    let without = Memory::of(&application)?;

    say(&format!("setting {} timers", options.pending));
    let begun = Instant::now();
    let tomorrow = clock::now().0 + DAY_MS;
    set(&application, &commands, "far", options.pending, tomorrow)?;
    application.drain(&commands, &pongs)?;
    let set_in = begun.elapsed();
    sleep(Duration::from_secs_f64(options.settle));
    let with = Memory::of(&application)?;

    say("pings while nothing is due");
    let pings = Pings {
        commands: &commands,
        pongs: &pongs,
        partitions: options.partitions,
        rate: options.rate,
        epoch: Instant::now(),
    };
    let quiet_until = Instant::now() + Duration::from_secs_f64(options.quiet);
    let quiet = pings.run(&|| Instant::now() >= quiet_until)?;

    say(&format!("{} timers due at once", options.due));
    let (drained_in, draining) = drain(options, &application, &pings)?;
    let draining_count = draining.len();
    let quiet = Percentiles::of(quiet).ok_or("no ping while nothing was due")?;
    let draining = Percentiles::of(draining).ok_or("no ping while timers were due")?;
    let line = Line {
        phase: "timers",
        timers_pending: options.pending,
        timers_set_per_s: options.pending as f64 / set_in.as_secs_f64(),
        rss_without_timers_mb: without.rss,
        rss_with_timers_mb: with.rss,
        block_cache_and_write_buffers_mb: with.cache,
        rss_beyond_cache_mb: with.beyond(),
        rss_beyond_cache_grew_mb: with.beyond() - without.beyond(),
        timers_due_at_once: options.due,
        drained_in_s: drained_in.as_secs_f64(),
        timers_fired_per_s: options.due as f64 / drained_in.as_secs_f64(),
        record_p50_quiet_ms: quiet.p50,
        record_p99_quiet_ms: quiet.p99,
        record_p50_while_draining_ms: draining.p50,
        record_p99_while_draining_ms: draining.p99,
        records_while_draining: draining_count,
    };
    println!("{}", serde_json::to_string(&line)?);
    application.stop();
    Ok(())
}

/// Memory of this process, in MiB.
struct Memory {
    rss: f64,
    /// Cached blocks of files, and writes that are not on disk yet.
    cache: f64,
}

impl Memory {
    fn of(application: &Application) -> Outcome<Self> {
        let blocks = application.gauge("turnstile_rocksdb_block_cache_bytes")?;
        let writes = application.gauge("turnstile_rocksdb_write_buffer_bytes")?;
        Ok(Self {
            rss: Usage::own()?.rss_mb,
            cache: (blocks + writes) / MIB,
        })
    }

    fn beyond(&self) -> f64 {
        self.rss - self.cache
    }
}

/// Sets a number of timers, spread over the day after `first`, or all at `first` for `due`.
fn set(
    application: &Application,
    commands: &Commands,
    base: &str,
    count: usize,
    first: i64,
) -> Outcome<()> {
    let spread = if base == "due" { 0 } else { DAY_MS };
    let mut left = count;
    for number in 0_i32.. {
        if left == 0 {
            break;
        }
        let batch = left.min(BATCH);
        left -= batch;
        let text = format!("timers {base}{number} {batch} {first} {spread}");
        commands.send_to(ALARMS, number % application.partitions, &text)?;
    }
    Ok(())
}

/// Has many timers fire at once, while pings run: how long that took from the first to the
/// last, and the latencies meanwhile.
fn drain(
    options: &Options,
    application: &Application,
    pings: &Pings<'_>,
) -> Outcome<(Duration, Vec<Duration>)> {
    let fired = Reader::from_now(&options.place.brokers, &[FIRED])?;
    fired.next(Duration::ZERO)?;
    // Enough time to set them all before; if it is not enough, they fire as they are set.
    let setting_ms = i64::try_from(options.due / 20)?;
    let due = clock::now().0 + setting_ms + 3000;
    set(application, pings.commands, "due", options.due, due)?;
    application.drain(pings.commands, pings.pongs)?;
    let late = clock::now().0 - due;
    if late > 0 {
        say(&format!(
            "the first timers were due {late} ms before the last was set"
        ));
    }
    sleep(Duration::from_millis(u64::try_from(-late).unwrap_or(0)));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let counting = scope.spawn(|| {
            let counted = count(&fired, options.due);
            done.store(true, Ordering::Relaxed);
            counted
        });
        let latencies = pings.run(&|| done.load(Ordering::Relaxed));
        let took = counting.join().map_err(|_| "the counter panicked")??;
        Ok((took, latencies?))
    })
}

/// Reads this many records: how long it took from the first to the last.
fn count(reader: &Reader, records: usize) -> Outcome<Duration> {
    let mut first = None;
    for _ in 0..records {
        let record = reader.next(SILENCE)?;
        record.ok_or("no timer fired for two minutes")?;
        first.get_or_insert_with(Instant::now);
    }
    Ok(first.ok_or("no timers were due")?.elapsed())
}

/// Commands that are answered at once, with the time of each.
struct Pings<'a> {
    commands: &'a Commands,
    pongs: &'a Reader,
    partitions: i32,
    rate: f64,
    epoch: Instant,
}

impl Pings<'_> {
    /// Sends pings at the rate until `done`, and waits for all answers.
    fn run(&self, done: &(dyn Fn() -> bool + Sync)) -> Outcome<Vec<Duration>> {
        let begun = Instant::now();
        let stopped = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| {
                let sent = self.send(begun, done);
                stopped.store(true, Ordering::Release);
                sent
            });
            let mut latencies = Vec::new();
            let mut silent_since = Instant::now();
            let mut sent = None;
            let mut sending = Some(sending);
            while sent.is_none_or(|sent| latencies.len() < sent) {
                if stopped.load(Ordering::Acquire)
                    && let Some(sending) = sending.take()
                {
                    sent = Some(sending.join().map_err(|_| "the sender panicked")??);
                }
                let Some(record) = self.pongs.next(Duration::from_millis(20))? else {
                    if silent_since.elapsed() > SILENCE {
                        return Err("no ping was answered for two minutes".into());
                    }
                    continue;
                };
                silent_since = Instant::now();
                let text = std::str::from_utf8(record.payload().unwrap_or_default())?;
                let sent_at = Duration::from_micros(text.parse()?);
                latencies.push(self.epoch.elapsed().saturating_sub(sent_at));
            }
            Ok(latencies)
        })
    }

    fn send(&self, begun: Instant, done: &(dyn Fn() -> bool + Sync)) -> Outcome<usize> {
        let mut sent = 0_i32;
        while !done() {
            let due = begun + Duration::from_secs_f64(f64::from(sent) / self.rate);
            sleep(due.saturating_duration_since(Instant::now()));
            let text = format!("ping {}", self.epoch.elapsed().as_micros());
            self.commands
                .send_to(ALARMS, sent % self.partitions, &text)?;
            sent += 1;
        }
        self.commands.flush()?;
        Ok(usize::try_from(sent)?)
    }
}
