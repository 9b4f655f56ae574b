//! Where a measurement takes place: the broker, the binary, the folders.

use std::path::PathBuf;

use clap::Args;

use crate::Outcome;
use crate::process::Usage;

/// What every measurement needs to know.
#[derive(Args)]
pub(crate) struct Place {
    /// The broker, which is of no other use meanwhile.
    #[arg(long, default_value = "localhost:9092")]
    pub(crate) brokers: String,
    /// Its process, whose CPU time is told; without it there is none in the lines.
    #[arg(long)]
    pub(crate) broker_pid: Option<u32>,
    /// The binary `ticketing`.
    #[arg(long, default_value = "ticketing")]
    pub(crate) ticketing: PathBuf,
    /// A folder for state, which may be thrown away afterwards.
    #[arg(long, default_value = "bench-state")]
    pub(crate) work: PathBuf,
    /// A folder for the logs of instances.
    #[arg(long, default_value = ".")]
    pub(crate) logs: PathBuf,
    /// Looks at the arguments and does nothing.
    #[arg(long)]
    pub(crate) check: bool,
}

impl Place {
    /// The CPU seconds of the broker so far; 0 if its process is not known.
    pub(crate) fn broker_cpu_seconds(&self) -> Outcome<f64> {
        match self.broker_pid {
            Some(pid) => Ok(Usage::of(pid)?.cpu_seconds),
            None => Ok(0.0),
        }
    }
}

/// Reports progress to a person.
pub(crate) fn say(text: &str) {
    eprintln!("turnstile-bench: {text}");
}
