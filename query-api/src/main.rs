//! The binary: parses its command line, and does what it says.
//!
//! Exit codes: 0 when it was stopped in an orderly way or has printed what was asked for, 1 when
//! it failed, 2 when its command line or configuration is wrong, so that it would fail again, 3
//! when the disk of its state directory is full or fails, which others should take over from.

use std::error::Error;
use std::io::{self, ErrorKind, Write};
use std::num::NonZero;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use ticketing::command_line::{CommandLine, Task, configuration};
use ticketing::config::{Config, ConfigError, LogFormat, print::print};
use ticketing::token::token;
use ticketing::{demo, http, lifecycle, logging};
use tokio::runtime::Builder;
use turnstile_engine::clock;
use turnstile_ticketing::topology;

/// For RocksDB and librdkafka too. Many small rows live long beside many short-lived allocations;
/// the C library's allocator fragments this, and then searches the fragments.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How long the process waits at its end for blocking work, before it abandons it.
const LEAVE_BEHIND: Duration = Duration::from_millis(500);

const FAILURE: u8 = 1;
const WRONG: u8 = 2;
const DISK: u8 = 3;

fn main() -> ExitCode {
    let mut command_line = match CommandLine::parse(std::env::args()) {
        Ok(command_line) => command_line,
        Err(error) => error.exit(),
    };
    let task = std::mem::replace(&mut command_line.task, Task::Run);
    match task {
        Task::PrintOpenApi => show(&http::openapi()),
        Task::Token(arguments) => match token(&arguments, clock::now()) {
            Ok(token) => show(&token),
            Err(error) => ended(Err(error.into())),
        },
        Task::Demo(arguments) => ended(
            in_runtime(workers(0), demo::run(arguments))
                .map(ExitCode::from)
                .map_err(Into::into),
        ),
        Task::PrintConfig => match configuration(command_line) {
            Ok((layers, config)) => show(print(&layers, &config).trim_end()),
            Err(error) => refused(&error),
        },
        Task::PrintTopology => match configuration(command_line) {
            Ok((_, config)) => match topology(&config.ticketing()) {
                Ok(ticketing) => {
                    let text = ticketing.topology.describe_text_of(&config.application_id);
                    show(text.trim_end())
                }
                Err(faults) => ended(Err(faults.into())),
            },
            Err(error) => refused(&error),
        },
        Task::Run => {
            let config = configuration(command_line)
                .and_then(|(_, config)| config.require_authentication().map(|()| config));
            match config {
                Ok(config) => run(config),
                Err(error) => refused(&error),
            }
        }
    }
}

fn run(config: Config) -> ExitCode {
    let format = config.log_format;
    logging::start(&config.log_filter, format);
    let workers = workers(config.num_stream_threads);
    match (in_runtime(workers, lifecycle::run(config)), format) {
        (Ok(()), _) => ExitCode::SUCCESS,
        (Err(error), format) => {
            match format {
                LogFormat::Text => say(&error),
                LogFormat::Json => {
                    tracing::error!(error = with_causes(&error), "the instance has failed");
                }
            }
            ExitCode::from(if error.is_of_disk() {
                DISK
            } else if error.is_lasting() {
                WRONG
            } else {
                FAILURE
            })
        }
    }
}

/// How many threads answer requests: each stream thread is left a core. More would only
/// contend with them, which shows in the slowest answers.
fn workers(stream_threads: usize) -> usize {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    cores.saturating_sub(stream_threads).max(1)
}

fn in_runtime<T>(workers: usize, future: impl Future<Output = T>) -> T {
    let runtime = Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
        .expect("the system gives a process its threads");
    let result = runtime.block_on(future);
    runtime.shutdown_timeout(LEAVE_BEHIND);
    result
}

fn ended(result: Result<ExitCode, Box<dyn Error>>) -> ExitCode {
    result.unwrap_or_else(|error| {
        say(error.as_ref());
        ExitCode::from(FAILURE)
    })
}

fn refused(error: &ConfigError) -> ExitCode {
    say(error);
    ExitCode::from(WRONG)
}

/// Prints what was asked for; a reader that has read enough may close the pipe.
fn show(text: &str) -> ExitCode {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => ended(Err(error.into())),
        _ => ExitCode::SUCCESS,
    }
}

fn say(error: &dyn Error) {
    eprintln!("ticketing: {}", with_causes(error));
}

fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
