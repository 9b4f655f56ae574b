//! Orders per second, latency and memory, with more live orders, partitions or instances.
//!
//! For each number of live orders in turn, on the same instances:
//!
//! 1. Orders are placed until this many are live; nobody pays or cancels, and none expires.
//! 2. A burst: how fast a number of further orders become visible.
//! 3. A steady rate: how long each order takes from the command to its visible event.
//! 4. The memory of all instances together.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::Outcome;
use crate::instance::{Deployment, Instance, settle};
use crate::orders::Commands;
use crate::percentiles::Percentiles;
use crate::place::{Place, say};
use crate::process::Usage;
use crate::traffic::{EVENTS, OF_AN_ORDER, Traffic};

/// The most commands under way at once, so that the state of the client stays small.
const CHUNK: usize = 50_000;

/// `growth`.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) place: Place,
    /// What is varied, for whoever plots the lines: live, partitions or instances.
    #[arg(long, default_value = "live")]
    axis: String,
    /// Numbers of live orders, growing.
    #[arg(long, value_delimiter = ',', default_values_t = [10_000])]
    live: Vec<usize>,
    /// Partitions of the topics.
    #[arg(long, default_value_t = 4)]
    partitions: i32,
    /// Instances, all on this machine.
    #[arg(long, default_value_t = 1)]
    instances: usize,
    /// Copies of each task's stores beside the one in use, on other instances.
    #[arg(long, default_value_t = 0)]
    standbys: usize,
    /// Orders of the burst.
    #[arg(long, default_value_t = 20_000)]
    burst: usize,
    /// Orders a second of the steady rate.
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
    /// Orders at the steady rate.
    #[arg(long, default_value_t = 5000)]
    steady: usize,
}

#[derive(Serialize)]
struct Line<'a> {
    phase: &'static str,
    axis: &'a str,
    live: usize,
    partitions: i32,
    instances: usize,
    standbys: usize,
    orders_per_s: f64,
    app_cpu_s_per_1000: f64,
    broker_cpu_s_per_1000: f64,
    latency_ms: Percentiles,
    rss_mb: f64,
}

pub(crate) fn run(options: &Options) -> Outcome<()> {
    let brokers = options.place.brokers.as_str();
    let mut growing = Growing {
        instances: start(options)?,
        commands: Commands::to(brokers)?,
        traffic: Traffic::from_now(brokers, &EVENTS)?,
        orders: 0,
    };
    for live in &options.live {
        if *live < growing.orders {
            return Err(format!("{} orders live already, more than {live}", growing.orders).into());
        }
        say(&format!("placing orders until {live} live"));
        while growing.orders < *live {
            growing.place((*live - growing.orders).min(CHUNK))?;
        }
        let line = growing.measure(options, *live)?;
        println!("{}", serde_json::to_string(&line)?);
    }
    growing.instances.into_iter().try_for_each(Instance::stop)
}

fn start(options: &Options) -> Outcome<Vec<Instance>> {
    let deployment = Deployment {
        partitions: options.partitions,
        standbys: options.standbys,
    };
    let mut instances = Vec::new();
    for number in 0..options.instances {
        let id = format!("{number}");
        instances.push(Instance::ready(&options.place, &id, deployment)?);
    }
    settle(&instances)?;
    Ok(instances)
}

struct Growing {
    instances: Vec<Instance>,
    commands: Commands,
    traffic: Traffic,
    /// How many are live.
    orders: usize,
}

impl Growing {
    /// Places this many more orders, and waits until they are placed.
    fn place(&mut self, count: usize) -> Outcome<()> {
        let numbers = self.orders..self.orders + count;
        self.tickets(count)?;
        self.commands.orders(numbers, None)?;
        self.traffic.await_all(&OF_AN_ORDER, count)?;
        self.orders += count;
        Ok(())
    }

    /// Creates the tickets of the next orders.
    fn tickets(&self, count: usize) -> Outcome<()> {
        self.commands.tickets(self.orders..self.orders + count)?;
        self.traffic.await_all(&["ticket.created"], count)?;
        Ok(())
    }

    fn usage(&self) -> Outcome<Usage> {
        let mut sum = Usage {
            cpu_seconds: 0.0,
            rss_mb: 0.0,
        };
        for instance in &self.instances {
            let usage = instance.usage()?;
            sum.cpu_seconds += usage.cpu_seconds;
            sum.rss_mb += usage.rss_mb;
        }
        Ok(sum)
    }

    fn measure<'a>(&mut self, options: &'a Options, live: usize) -> Outcome<Line<'a>> {
        let (burst, steady) = (options.burst, options.steady);
        self.tickets(burst + steady)?;
        std::thread::sleep(Duration::from_secs(2));

        let before = self.usage()?.cpu_seconds;
        let broker = options.place.broker_cpu_seconds()?;
        self.commands
            .orders(self.orders..self.orders + burst, None)?;
        let span = self.traffic.await_all(&OF_AN_ORDER, burst)?;
        let span = span.ok_or("the burst has no orders")?;
        let cpu_seconds = self.usage()?.cpu_seconds - before;
        let broker_cpu_seconds = options.place.broker_cpu_seconds()? - broker;
        self.orders += burst;
        std::thread::sleep(Duration::from_secs(1));

        let numbers = self.orders..self.orders + steady;
        let (sent, seen) = std::thread::scope(|scope| {
            let sending = scope.spawn(|| self.commands.orders(numbers, Some(options.rate)));
            let seen = self.traffic.await_orders(self.orders, steady);
            let sent = sending.join().map_err(|_| "the sender panicked")?;
            Outcome::Ok((sent?, seen?))
        })?;
        // Later bursts wait for these too.
        self.orders += steady;
        let latencies = sent.iter().zip(&seen);
        let latencies = latencies.map(|(sent, seen)| seen.duration_since(*sent));
        let latency_ms = Percentiles::of(latencies.collect()).ok_or("nothing was sent")?;
        let per_1000 = 1000.0 / burst as f64;
        Ok(Line {
            phase: "growth",
            axis: &options.axis,
            live,
            partitions: options.partitions,
            instances: options.instances,
            standbys: options.standbys,
            orders_per_s: burst as f64 / span.seconds(),
            app_cpu_s_per_1000: cpu_seconds * per_1000,
            broker_cpu_s_per_1000: broker_cpu_seconds * per_1000,
            latency_ms,
            rss_mb: self.usage()?.rss_mb,
        })
    }
}
