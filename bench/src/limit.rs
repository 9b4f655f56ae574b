//! Orders through an instance, and through a bare loop on the same broker.
//!
//! 1. Tickets are created and drained, and some orders go through an instance. After it has
//!    stopped, a bare loop handles them over and over, so that neither of the two meets a broker
//!    whose hot code is still being compiled.
//! 2. Orders are preloaded.
//! 3. The instance starts; the clock runs from the first visible event to the last.
//! 4. What it wrote is counted and sampled, topic by topic, and which groups read it.
//! 5. A bare loop ([`BareLoop`]) does the same input and output, and nothing else. Its clock
//!    runs like that of the instance, and the same events are watched.
//!
//! The last four are a round. Of several rounds the median counts, since one differs from the
//! next by a third.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use clap::Args;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message, Offset};
use serde::Serialize;
use turnstile_ticketing::topics;

use crate::Outcome;
use crate::bare_loop::{BareLoop, Mirror};
use crate::instance::{Deployment, Instance};
use crate::orders::Commands;
use crate::place::{Place, say};
use crate::reader::{Reader, client, partitions};
use crate::topics::{TopicPartition, create, ends};
use crate::traffic::{EVENTS, OF_AN_ORDER, Traffic};
use crate::watch::Watch;

/// How many records of a topic are kept to be written again.
const SAMPLES: usize = 1000;

/// How often the bare loop handles the first orders before anything is measured.
const WARM_UP_ROUNDS: usize = 6;

/// The groups that read the commands.
pub(crate) const INPUT_GROUPS: [&str; 2] = [topics::ORDERS_TICKETS, topics::TICKETS_ORDERS];

/// The groups in which an instance reads.
pub(crate) const GROUPS: [&str; 6] = [
    topics::ORDERS_TICKETS,
    topics::ORDERS_PAYMENTS,
    topics::ORDERS_EXPIRATION,
    topics::TICKETS_ORDERS,
    topics::PAYMENTS_ORDERS,
    topics::EXPIRATION_ORDERS,
];

/// `limit`.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) place: Place,
    /// How many orders.
    #[arg(long, default_value_t = 100_000)]
    orders: usize,
    /// How many orders before that, of which nothing is told.
    #[arg(long, default_value_t = 50_000)]
    warm_up: usize,
    /// How many times the instance and the loop have their turns.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Partitions of the topics.
    #[arg(long, default_value_t = 4)]
    partitions: i32,
    /// Without the bare loop.
    #[arg(long)]
    engine_only: bool,
}

#[derive(Serialize)]
struct Line {
    phase: &'static str,
    who: &'static str,
    orders: usize,
    seconds: f64,
    orders_per_s: f64,
    app_cpu_s_per_1000: f64,
    broker_cpu_s_per_1000: f64,
    #[serde(flatten)]
    records: Records,
}

/// What goes in and out per order.
#[derive(Clone, Copy, Serialize)]
struct Records {
    consumed_per_order: f64,
    produced_per_order: f64,
    produced_bytes_per_order: f64,
}

/// What was measured for one of the two.
pub(crate) struct Measured {
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) broker_cpu_seconds: f64,
}

pub(crate) fn run(options: &Options) -> Outcome<()> {
    let Options {
        place,
        orders,
        warm_up,
        rounds,
        partitions,
        ..
    } = options;
    let (orders, warm_up, brokers) = (*orders, *warm_up, place.brokers.as_str());
    let tickets = warm_up + rounds * orders;
    say(&format!("{tickets} tickets, {warm_up} orders first"));
    let instance = Instance::ready(place, "a", Deployment::of(*partitions))?;
    let commands = Commands::to(brokers)?;
    let traffic = Traffic::from_now(brokers, &EVENTS)?;
    commands.tickets(0..tickets)?;
    traffic.await_all(&["ticket.created"], tickets)?;
    let before = ends(brokers)?;
    commands.orders(0..warm_up, None)?;
    traffic.await_all(&OF_AN_ORDER, warm_up)?;
    drop(traffic);
    instance.stop()?;
    if !options.engine_only {
        let mirrors = written(brokers, &before, &ends(brokers)?, warm_up)?;
        create_copies(brokers, &mirrors, *partitions)?;
        say(&format!(
            "the bare loop, {WARM_UP_ROUNDS} times, to warm the broker"
        ));
        for _ in 0..WARM_UP_ROUNDS {
            BareLoop::new(brokers, &before, mirrors.clone())?.run(place, warm_up)?;
        }
    }

    for number in 0..*rounds {
        let first = warm_up + number * orders;
        round(options, &commands, first..first + orders)?;
    }
    Ok(())
}

/// Has the instance, and then the loop, handle these orders.
fn round(options: &Options, commands: &Commands, orders: Range<usize>) -> Outcome<()> {
    let place = &options.place;
    let brokers = place.brokers.as_str();
    let number = orders.len();
    let before_orders = ends(brokers)?;
    commands.orders(orders, None)?;
    let before = ends(brokers)?;
    say("the instance");
    let engine = through_the_instance(options)?;
    let written = written(brokers, &before, &ends(brokers)?, number)?;
    let records = Records::of(&written);
    print("the instance", number, &engine, records)?;
    if options.engine_only {
        return Ok(());
    }

    say("the bare loop");
    let measured = BareLoop::new(brokers, &before_orders, written)?.run(place, number)?;
    print("a bare loop", number, &measured, records)
}

/// Creates the topics of the loop, which brokers have to check like those of the instance.
fn create_copies(brokers: &str, mirrors: &[Mirror], partitions: i32) -> Outcome<()> {
    let names = mirrors.iter().map(|mirror| mirror.name.as_str());
    let (compacted, others): (Vec<&str>, Vec<&str>) =
        names.partition(|name| name.ends_with("-changelog"));
    create(brokers, &compacted, partitions, "compact")?;
    create(brokers, &others, partitions, "delete")
}

fn through_the_instance(options: &Options) -> Outcome<Measured> {
    let place = &options.place;
    let watch = Watch::from_now(&place.brokers, &EVENTS, options.orders)?;
    let broker = place.broker_cpu_seconds()?;
    let instance = Instance::start(place, "a", Deployment::of(options.partitions))?;
    let measured = Measured {
        seconds: watch.seconds()?,
        cpu_seconds: instance.usage()?.cpu_seconds,
        broker_cpu_seconds: place.broker_cpu_seconds()? - broker,
    };
    instance.stop()?;
    Ok(measured)
}

/// What was written to each topic except that of the commands, sampled, and who reads it.
fn written(
    brokers: &str,
    before: &BTreeMap<TopicPartition, i64>,
    after: &BTreeMap<TopicPartition, i64>,
    orders: usize,
) -> Outcome<Vec<Mirror>> {
    let start = |partition| before.get(partition).copied().unwrap_or(0);
    let grown: BTreeMap<TopicPartition, i64> = after
        .iter()
        .filter(|((topic, _), _)| topic != topics::TICKET_COMMANDS)
        .filter(|(partition, end)| **end > start(partition))
        .map(|(partition, _)| (partition.clone(), start(partition)))
        .collect();
    let mut mirrors: BTreeMap<String, Mirror> = BTreeMap::new();
    for (topic, _) in grown.keys() {
        mirrors
            .entry(topic.clone())
            .or_insert_with(|| Mirror::new(topic));
    }
    Reader::to_ends(brokers, &grown, |record| {
        if let Some(mirror) = mirrors.get_mut(record.topic()) {
            mirror.add(record.key(), record.payload(), SAMPLES);
        }
    })?;
    for group in GROUPS {
        for topic in read_by(brokers, group, &grown)? {
            if let Some(mirror) = mirrors.get_mut(&topic) {
                mirror.groups.push(group);
            }
        }
    }
    let mut mirrors: Vec<Mirror> = mirrors.into_values().collect();
    for mirror in &mut mirrors {
        mirror.per_order = mirror.records as f64 / orders as f64;
    }
    // Heartbeats and the like have nothing to do with orders.
    mirrors.retain(|mirror| mirror.per_order >= 0.01);
    Ok(mirrors)
}

/// The topics among these in which a group has a position.
fn read_by(
    brokers: &str,
    group: &str,
    among: &BTreeMap<TopicPartition, i64>,
) -> Outcome<BTreeSet<String>> {
    let consumer: BaseConsumer = client(brokers).set("group.id", group).create()?;
    let committed = consumer.committed_offsets(partitions(among)?, Duration::from_secs(30))?;
    let read = committed.elements().into_iter();
    let read = read.filter(|partition| matches!(partition.offset(), Offset::Offset(_)));
    Ok(read.map(|partition| partition.topic().to_owned()).collect())
}

impl Records {
    fn of(written: &[Mirror]) -> Self {
        let sum = |value: &dyn Fn(&Mirror) -> f64| written.iter().map(value).sum();
        let read_again: f64 = sum(&|mirror| mirror.per_order * mirror.groups.len() as f64);
        Self {
            consumed_per_order: read_again + INPUT_GROUPS.len() as f64,
            produced_per_order: sum(&|mirror| mirror.per_order),
            produced_bytes_per_order: sum(&|mirror| mirror.per_order * mirror.mean_bytes()),
        }
    }
}

fn print(who: &'static str, orders: usize, measured: &Measured, records: Records) -> Outcome<()> {
    let per_1000 = |seconds: f64| seconds / orders as f64 * 1000.0;
    let line = Line {
        phase: "limit",
        who,
        orders,
        seconds: measured.seconds,
        orders_per_s: orders as f64 / measured.seconds,
        app_cpu_s_per_1000: per_1000(measured.cpu_seconds),
        broker_cpu_s_per_1000: per_1000(measured.broker_cpu_seconds),
        records,
    };
    println!("{}", serde_json::to_string(&line)?);
    Ok(())
}
