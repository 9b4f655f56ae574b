//! The binary: understands its command line, and does what it says.
//!
//! Exit codes: 0 when it was stopped in order or has printed what was asked for, 1 when
//! it failed, 2 when the command line or the configuration is wrong.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use ticketing::command_line::{CommandLine, Task, configuration};
use ticketing::config::{Config, ConfigError, print::print};
use ticketing::{demo, http, lifecycle, logging};
use tokio::runtime::Runtime;
use turnstile_ticketing::topology;

/// How long the process waits at its end for what blocks, before it leaves it.
const LEAVE_BEHIND: Duration = Duration::from_millis(500);

const FAILURE: u8 = 1;
const BAD_CONFIGURATION: u8 = 2;

fn main() -> ExitCode {
    let mut command_line = match CommandLine::parse(std::env::args()) {
        Ok(command_line) => command_line,
        Err(error) => error.exit(),
    };
    let task = std::mem::replace(&mut command_line.task, Task::Run);
    match task {
        Task::PrintOpenApi => {
            println!("{}", http::openapi());
            ExitCode::SUCCESS
        }
        Task::Demo(arguments) => ended(
            in_runtime(demo::run(arguments))
                .map(ExitCode::from)
                .map_err(Into::into),
        ),
        Task::PrintConfig => match configuration(command_line) {
            Ok((layers, config)) => {
                print!("{}", print(&layers, &config));
                ExitCode::SUCCESS
            }
            Err(error) => refused(&error),
        },
        Task::PrintTopology => match configuration(command_line) {
            Ok((_, config)) => match topology(&config.ticketing()) {
                Ok(ticketing) => {
                    println!("{}", ticketing.topology.describe_text());
                    ExitCode::SUCCESS
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
    logging::start(&config.log_filter, config.log_format);
    ended(
        in_runtime(lifecycle::run(config))
            .map(|()| ExitCode::SUCCESS)
            .map_err(Into::into),
    )
}

fn in_runtime<T>(future: impl Future<Output = T>) -> T {
    let runtime = Runtime::new().expect("the system gives a process its threads");
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
    ExitCode::from(BAD_CONFIGURATION)
}

fn say(error: &dyn Error) {
    eprint!("ticketing: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        eprint!(": {cause}");
        source = cause.source();
    }
    eprintln!();
}
