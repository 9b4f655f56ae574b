//! Watches orders from a separate process, so that it takes no CPU of the process measured.
//!
//! Watching affects what is watched: on a busy machine both are slower. What is compared is
//! watched in the same way.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use clap::Args;

use crate::Outcome;
use crate::traffic::{OF_AN_ORDER, Traffic};

/// What it prints when it has begun to read.
const READY: &str = "ready";

/// `watch`: the other process.
#[derive(Args)]
pub(crate) struct Options {
    #[arg(long)]
    brokers: String,
    #[arg(long)]
    orders: usize,
    topics: Vec<String>,
}

/// Says that it reads, then how many seconds passed between the first event and the last.
pub(crate) fn run(options: &Options) -> Outcome<()> {
    let traffic = Traffic::from_now(&options.brokers, &options.topics)?;
    println!("{READY}");
    let span = traffic.await_all(&OF_AN_ORDER, options.orders)?;
    println!("{}", span.ok_or("there are no orders")?.seconds());
    Ok(())
}

/// The process that watches; it is killed when it is dropped.
pub(crate) struct Watch {
    process: Child,
    said: BufReader<ChildStdout>,
}

impl Watch {
    /// Watches what this many orders produce in these topics from now on.
    pub(crate) fn from_now(
        brokers: &str,
        topics: &[impl AsRef<OsStr>],
        orders: usize,
    ) -> Outcome<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["watch", "--brokers", brokers])
            .args(["--orders", &orders.to_string()])
            .args(topics)
            .stdout(Stdio::piped())
            .spawn()?;
        let said = process.stdout.take().ok_or("who watches has no output")?;
        let mut watch = Self {
            process,
            said: BufReader::new(said),
        };
        if watch.line()? != READY {
            return Err("who watches does not read".into());
        }
        Ok(watch)
    }

    /// Waits until everything was seen; returns the seconds from the first event to the last.
    pub(crate) fn seconds(mut self) -> Outcome<f64> {
        let seconds = self.line()?;
        let seconds = seconds.parse();
        Ok(seconds.map_err(|_| "who watches did not see all orders")?)
    }

    fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
