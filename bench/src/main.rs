//! Measures the engine on a real Kafka: what the comparison with a peer does not show.
//!
//! - `limit`: how fast orders go through an instance, and how fast a bare loop is that
//!   only reads, parses and writes as many records: the ceiling of this client and broker.
//! - `timers`: what millions of pending timers cost, and whether records still flow while a
//!   million timers are due at once.
//! - `restore`: how fast a task's stores are restored from their changelog.
//! - `growth`: orders per second, latency and memory with more live orders, partitions and
//!   instances.
//!
//! Each prints lines of JSON on stdout; `./dev bench` starts a fresh broker for each run,
//! keeps the lines and makes tables and plots of them. Nothing here judges a figure.

mod alarms;
mod bare_loop;
mod growth;
mod instance;
mod limit;
mod orders;
mod percentiles;
mod place;
mod process;
mod reader;
mod restore;
mod timers;
mod topics;
mod traffic;
mod watch;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// As in the ticketing system: `timers` and `restore` run the engine in this process.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What ends a measurement early.
type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Measures the engine on a real Kafka.
#[derive(Parser)]
struct CommandLine {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Orders through an instance, and through a bare loop.
    Limit(limit::Options),
    /// Millions of pending timers, and a million due at once.
    Timers(timers::Options),
    /// A task's stores from their changelog.
    Restore(restore::Options),
    /// Orders with more of what there is.
    Growth(growth::Options),
    /// What another measurement starts beside what it measures.
    #[command(hide = true)]
    Watch(watch::Options),
}

impl What {
    /// Whether only the arguments were to be checked.
    fn is_check(&self) -> bool {
        match self {
            Self::Limit(options) => options.place.check,
            Self::Timers(options) => options.place.check,
            Self::Restore(options) => options.place.check,
            Self::Growth(options) => options.place.check,
            Self::Watch(_) => false,
        }
    }

    fn run(&self) -> Outcome<()> {
        match self {
            Self::Limit(options) => limit::run(options),
            Self::Timers(options) => timers::run(options),
            Self::Restore(options) => restore::run(options),
            Self::Growth(options) => growth::run(options),
            Self::Watch(options) => watch::run(options),
        }
    }
}

fn main() -> ExitCode {
    let CommandLine { what } = CommandLine::parse();
    if what.is_check() {
        return ExitCode::SUCCESS;
    }
    match what.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("turnstile-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
