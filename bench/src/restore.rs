//! How fast a task's stores are restored: rows and timers of one partition, from their
//! changelog, after the state directory was lost.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Args;
use serde::Serialize;
use turnstile_engine::Offset;
use turnstile_engine::clock;
use turnstile_engine::runtime::{ChangelogRestoration, RestoreListener};

use crate::Outcome;
use crate::alarms::{ALARMS, Application, PONGS};
use crate::orders::Commands;
use crate::place::{Place, say};
use crate::process::Usage;
use crate::reader::Reader;

const BATCH: usize = 100;
const DAY_MS: i64 = 86_400_000;

/// `restore`.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Records in the changelog: half of them rows, half of them timers.
    #[arg(long, default_value_t = 1_000_000)]
    records: usize,
}

#[derive(Serialize)]
struct Line {
    phase: &'static str,
    records: u64,
    seconds: f64,
    records_per_s: f64,
    app_cpu_s: f64,
    ready_s: f64,
}

/// When restoring began and ended, and how much was restored.
struct Listener {
    epoch: Instant,
    first_us: AtomicU64,
    last_us: AtomicU64,
    records: AtomicU64,
}

impl Listener {
    fn now_us(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

impl RestoreListener for Listener {
    fn on_restore_start(&self, _: &ChangelogRestoration) {
        self.first_us.fetch_min(self.now_us(), Ordering::Relaxed);
    }

    fn on_batch_restored(&self, _: &ChangelogRestoration, _: Offset, records: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
    }

    fn on_restore_end(&self, _: &ChangelogRestoration, _: u64) {
        self.last_us.fetch_max(self.now_us(), Ordering::Relaxed);
    }
}

pub(crate) fn run(options: &Options) -> Outcome<()> {
    let place = &options.place;
    say(&format!("writing {} records", options.records));
    let application = Application::ready(place, 1, None)?;
    let commands = Commands::to(&place.brokers)?;
    let pongs = Reader::from_now(&place.brokers, &[PONGS])?;
    let tomorrow = clock::now().0 + DAY_MS;
    for number in 0..options.records / BATCH {
        let text = if number % 2 == 0 {
            format!("rows r{number} {BATCH}")
        } else {
            format!("timers t{number} {BATCH} {tomorrow} {DAY_MS}")
        };
        commands.send_to(ALARMS, 0, &text)?;
    }
    application.drain(&commands, &pongs)?;
    application.stop();
    fs::remove_dir_all(&place.work)?;

    say("restoring");
    let cpu = Usage::own()?.cpu_seconds;
    let listener = Arc::new(Listener {
        epoch: Instant::now(),
        first_us: AtomicU64::new(u64::MAX),
        last_us: AtomicU64::new(0),
        records: AtomicU64::new(0),
    });
    let application = Application::ready(place, 1, Some(listener.clone()))?;
    let ready_s = listener.epoch.elapsed().as_secs_f64();
    let app_cpu_s = Usage::own()?.cpu_seconds - cpu;
    let first = listener.first_us.load(Ordering::Relaxed);
    let last = listener.last_us.load(Ordering::Relaxed);
    let seconds = last.checked_sub(first).ok_or("nothing was restored")? as f64 / 1e6;
    let records = listener.records.load(Ordering::Relaxed);
    if records < u64::try_from(options.records / BATCH * BATCH)? {
        return Err(format!("only {records} records were restored").into());
    }
    let line = Line {
        phase: "restore",
        records,
        seconds,
        records_per_s: records as f64 / seconds,
        app_cpu_s,
        ready_s,
    };
    println!("{}", serde_json::to_string(&line)?);
    application.stop();
    Ok(())
}
