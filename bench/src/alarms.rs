//! A small application on the engine, with any number of rows and timers.
//!
//! One command creates many of them, so that the engine is measured and not the path of
//! the commands. Its topic is `alarms`; the commands are
//!
//! - `timers <base> <count> <first deadline, ms> <spread, ms>`: sets timers, which are
//!   reported in the topic `fired` when they are due;
//! - `rows <base> <count>`: writes rows;
//! - `ping <text>`: answers the text in the topic `pongs`.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use turnstile_engine::runtime::{Metrics, RestoreListener, Streams, StreamsConfig, TopicSpec};
use turnstile_engine::{
    Context, DecodeError, Decoded, Encode, InputRecord, Processor, ProcessorError, Registry, Sink,
    Source, Store, Timer, TimestampMs, TopologyBuilder,
};

use crate::Outcome;
use crate::orders::Commands;
use crate::place::Place;
use crate::reader::Reader;

/// The topic of the commands.
pub(crate) const ALARMS: &str = "alarms";
/// The topic of the answers to pings.
pub(crate) const PONGS: &str = "pongs";
/// The topic of the timers that fired.
pub(crate) const FIRED: &str = "fired";

const APPLICATION_ID: &str = "alarms";

/// How long an instance may take to be ready, and to answer a ping that is queued behind much work.
const LIMIT: Duration = Duration::from_mins(60);

#[derive(Clone)]
enum Command {
    Timers {
        base: String,
        count: u32,
        first: i64,
        spread: i64,
    },
    Rows {
        base: String,
        count: u32,
    },
    Ping(String),
}

fn parse(text: &str) -> Option<Command> {
    let mut words = text.split(' ');
    let command = match words.next()? {
        "timers" => Command::Timers {
            base: words.next()?.to_owned(),
            count: words.next()?.parse().ok()?,
            first: words.next()?.parse().ok()?,
            spread: words.next()?.parse().ok()?,
        },
        "rows" => Command::Rows {
            base: words.next()?.to_owned(),
            count: words.next()?.parse().ok()?,
        },
        "ping" => Command::Ping(words.next()?.to_owned()),
        _ => return None,
    };
    Some(command)
}

fn decode(record: &InputRecord<'_>) -> Result<Decoded<Command>, DecodeError> {
    let text = record
        .value
        .and_then(|value| std::str::from_utf8(value).ok());
    let command = text.and_then(parse);
    command.map(Decoded::Message).ok_or_else(|| DecodeError {
        kind: "not-a-command",
        message: "expected timers, rows or ping".to_owned(),
    })
}

struct Text(String);

impl Encode for Text {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0.as_bytes());
    }
}

/// A key as long as a UUID.
fn key(base: &str, number: u32) -> String {
    format!("{base:>12}-0000-4000-a000-{number:08}")
}

struct Alarms {
    rows: Store<String, String>,
    pongs: Sink<Text>,
    fired: Sink<Text>,
}

impl Processor for Alarms {
    type In = Command;

    fn process(
        &mut self,
        context: &mut Context<'_>,
        command: Command,
    ) -> Result<(), ProcessorError> {
        match command {
            Command::Timers {
                base,
                count,
                first,
                spread,
            } => {
                for number in 0..count {
                    let after = spread * i64::from(number) / i64::from(count);
                    let deadline = TimestampMs(first + after);
                    context.schedule(key(&base, number).as_bytes(), deadline)?;
                }
                Ok(())
            }
            Command::Rows { base, count } => {
                for number in 0..count {
                    let key = key(&base, number);
                    context.put(self.rows, &key, &key.repeat(3))?;
                }
                Ok(())
            }
            Command::Ping(text) => context.send(self.pongs, text.clone(), &Text(text)),
        }
    }

    fn on_timer(&mut self, context: &mut Context<'_>, timer: Timer) -> Result<(), ProcessorError> {
        let key = String::from_utf8_lossy(&timer.key).into_owned();
        context.send(self.fired, key.clone(), &Text(key))
    }
}

/// The application, running in this process.
pub(crate) struct Application {
    streams: Streams,
    registry: Registry,
    /// The partitions of its topic of commands.
    pub(crate) partitions: i32,
}

impl Application {
    /// Starts it and waits until it is ready.
    pub(crate) fn ready(
        place: &Place,
        partitions: i32,
        restore_listener: Option<Arc<dyn RestoreListener>>,
    ) -> Outcome<Self> {
        let mut builder = TopologyBuilder::new();
        let commands = builder.source(Source::new(ALARMS, "alarms", decode));
        let rows = builder.store("rows");
        let pongs = builder.sink(PONGS);
        let fired = builder.sink(FIRED);
        builder
            .processor("alarms", move || Alarms { rows, pongs, fired })
            .input(commands)
            .store(rows)
            .timers()
            .sink(pongs)
            .sink(fired)
            .done();
        let topology = Arc::new(builder.build()?);
        let topics = [ALARMS, PONGS, FIRED].map(|name| TopicSpec {
            name: name.to_owned(),
            partitions,
        });
        let mut config = StreamsConfig::new(APPLICATION_ID, &place.brokers, "only", &place.work);
        config.restore_listener = restore_listener;
        let registry = Registry::new();
        let metrics = Metrics::new(&registry)?;
        let streams = Streams::start(topology, &topics, &config, metrics)?;
        let begun = Instant::now();
        while !streams.status().ready {
            if let Some(reason) = streams.failure() {
                return Err(reason.into());
            }
            if begun.elapsed() > LIMIT {
                return Err("the application was not ready in time".into());
            }
            sleep(Duration::from_millis(5));
        }
        Ok(Self {
            streams,
            registry,
            partitions,
        })
    }

    /// The value of one of its gauges.
    pub(crate) fn gauge(&self, name: &str) -> Outcome<f64> {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let metric = family.and_then(|family| family.get_metric().first());
        let metric = metric.ok_or_else(|| format!("there is no metric {name}"))?;
        Ok(metric.get_gauge().get_value())
    }

    /// Waits until everything that was sent before is committed: a ping to each partition
    /// is answered.
    pub(crate) fn drain(&self, commands: &Commands, pongs: &Reader) -> Outcome<()> {
        commands.flush()?;
        for partition in 0..self.partitions {
            commands.send_to(ALARMS, partition, "ping drain")?;
        }
        let mut missing = self.partitions;
        let begun = Instant::now();
        while missing > 0 {
            if let Some(reason) = self.streams.failure() {
                return Err(reason.into());
            }
            if begun.elapsed() > LIMIT {
                return Err("the application did not get through its work in time".into());
            }
            if pongs.next(Duration::from_millis(100))?.is_some() {
                missing -= 1;
            }
        }
        Ok(())
    }

    /// Commits, flushes and closes.
    pub(crate) fn stop(self) {
        self.streams.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_as_they_are_written() {
        let Some(Command::Timers {
            base,
            count,
            first,
            spread,
        }) = parse("timers b 100 17 3")
        else {
            panic!("these are timers");
        };
        assert_eq!((base.as_str(), count, first, spread), ("b", 100, 17, 3));
        assert!(matches!(
            parse("rows b 7"),
            Some(Command::Rows { count: 7, .. })
        ));
        assert!(matches!(parse("ping x"), Some(Command::Ping(text)) if text == "x"));
        assert!(parse("rows b").is_none());
    }
}
