//! Sessions: counts the clicks of each visitor and, when a visitor has been quiet
//! for a minute, sends a summary.
//!
//! The topic `clicks` holds values such as `ada /prices`, under any key or none; the
//! topic `sessions` gets `{"visitor":"ada","clicks":3,"seconds":42}` under the key
//! `ada`. A session is a row of a store and a timer: neither a crash nor a move to
//! another machine loses it or ends it twice.
//!
//! `cargo run --release --locked --example sessions` shows the topology and runs it on
//! the test driver, which needs no Kafka. With `KAFKA_BROKERS=localhost:9092` in front
//! it runs on that cluster: write clicks to the topic, type the name of a visitor to see
//! what is kept of the session, and an empty line to stop.

use std::error::Error;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::spawn;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use turnstile_engine::driver::TopologyTestDriver;
use turnstile_engine::runtime::{Metrics, Streams, StreamsConfig, StreamsFailure, TopicSpec};
use turnstile_engine::{
    Codec, CodecError, Context, DecodeError, Decoded, Encode, InputRecord, Processor,
    ProcessorError, Registry, Sink, Source, Store, Timer, TimestampMs, Topology, TopologyBuilder,
    TopologyFaults,
};

/// How long a visitor is quiet before the session is over.
const QUIET: Duration = Duration::from_secs(60);

// 1. What comes in: a message, and how a record becomes one.

#[derive(Clone)]
struct Click {
    visitor: String,
}

fn decode_click(record: &InputRecord<'_>) -> Result<Decoded<Click>, DecodeError> {
    let text = record
        .value
        .and_then(|value| std::str::from_utf8(value).ok());
    match text.and_then(|text| text.split_once(' ')) {
        Some(("bot", _)) => Ok(Decoded::Skip("bot")),
        Some((visitor, _page)) => Ok(Decoded::Message(Click {
            visitor: visitor.to_owned(),
        })),
        // It goes to the topic of dead letters, and the next record is processed.
        None => Err(DecodeError {
            kind: "not-a-click",
            message: "expected a visitor and a page".to_owned(),
        }),
    }
}

// 2. What is kept: the rows of a store.

#[derive(Serialize, Deserialize)]
struct Session {
    clicks: u64,
    first: TimestampMs,
    last: TimestampMs,
}

impl Codec for Session {
    fn encode(&self, out: &mut Vec<u8>) {
        serde_json::to_writer(out, self).expect("a session is numbers only");
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        serde_json::from_slice(bytes).map_err(|error| CodecError {
            what: "session",
            why: error.to_string(),
        })
    }
}

// 3. What goes out.

#[derive(Serialize)]
struct Summary {
    visitor: String,
    clicks: u64,
    seconds: u64,
}

impl Encode for Summary {
    fn encode(&self, out: &mut Vec<u8>) {
        serde_json::to_writer(out, self).expect("a summary is a text and numbers");
    }
}

// 4. What happens: a processor, which holds nothing but handles.

struct Sessions {
    open: Store<String, Session>,
    summaries: Sink<Summary>,
}

impl Processor for Sessions {
    type In = Click;

    fn process(
        &mut self,
        context: &mut Context<'_>,
        Click { visitor }: Click,
    ) -> Result<(), ProcessorError> {
        // The click's own time: a backlog is processed faster than it was clicked.
        let clicked = context.timestamp();
        let open = context.get(self.open, &visitor)?;
        let (clicks, first) = open.map_or((0, clicked), |session| (session.clicks, session.first));
        context.put(
            self.open,
            &visitor,
            &Session {
                clicks: clicks + 1,
                first,
                last: clicked,
            },
        )?;
        // A visitor has one timer, by the wall clock: each click moves it.
        let quiet = context.now().plus(QUIET);
        context.schedule(visitor.as_bytes(), quiet)
    }

    fn on_timer(&mut self, context: &mut Context<'_>, timer: Timer) -> Result<(), ProcessorError> {
        let visitor = String::from_utf8_lossy(&timer.key).into_owned();
        let Some(Session {
            clicks,
            first,
            last,
        }) = context.get(self.open, &visitor)?
        else {
            return Ok(());
        };
        context.delete(self.open, &visitor)?;
        let seconds = last.since(first).as_secs();
        context.send(
            self.summaries,
            visitor.clone(),
            &Summary {
                visitor,
                clicks,
                seconds,
            },
        )
    }
}

// 5. What connects them.

struct Application {
    topology: Arc<Topology>,
    /// To ask for what is kept.
    open: Store<String, Session>,
}

fn application() -> Result<Application, TopologyFaults> {
    let mut builder = TopologyBuilder::new();
    // Clicks whose key is not their visitor reach the visitor's partition through
    // an internal topic, so that one task sees all clicks of a visitor.
    let by_visitor = |click: &Click| click.visitor.clone().into_bytes();
    let clicks =
        Source::new("clicks", "sessions", decode_click).keyed_by("clicks-by-visitor", by_visitor);
    let clicks = builder.source(clicks);
    let open = builder.store("open-sessions");
    let summaries = builder.sink("sessions");
    builder
        .processor("sessions", move || Sessions { open, summaries })
        .input(clicks)
        .store(open)
        .timers()
        .sink(summaries)
        .done();
    let topology = Arc::new(builder.build()?);
    Ok(Application { topology, open })
}

fn main() -> Result<(), Box<dyn Error>> {
    let application = application()?;
    println!("{}", application.topology.describe_text());
    match std::env::var("KAFKA_BROKERS") {
        Ok(brokers) => on_kafka(application, &brokers),
        Err(_) => on_the_test_driver(application),
    }
}

// 6. Where it runs: without Kafka, step by step and with a clock of its own …

fn on_the_test_driver(application: Application) -> Result<(), Box<dyn Error>> {
    let mut driver = TopologyTestDriver::new(application.topology, 4)?;
    for click in ["ada /", "bob /", "ada /prices", "ada /order"] {
        driver.pipe("clicks", None, Some(click.as_bytes()));
        driver.advance(Duration::from_secs(10))?;
    }
    driver.advance(QUIET)?;
    for summary in driver.take("sessions") {
        println!(
            "sessions: {} = {}",
            summary.key_text(),
            summary.value_text()
        );
    }
    Ok(())
}

// … or on a cluster, until an empty line.

fn on_kafka(application: Application, brokers: &str) -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .init();
    // An application id for the application, an instance id and a folder for each process.
    let state_dir = std::env::temp_dir().join("turnstile-sessions");
    let stores = state_dir.display().to_string();
    let config = StreamsConfig::new("sessions-example", brokers, "only", state_dir);
    // Missing topics are created.
    let topics = ["clicks", "sessions"].map(|name| TopicSpec {
        name: name.to_owned(),
        partitions: 4,
    });
    let metrics = Metrics::new(&Registry::new())?;
    let streams = Streams::start(application.topology, &topics, &config, metrics)?;
    // What ends it: an empty line, or the instance has stopped by itself.
    let (ended, end) = channel();
    let failed = ended.clone();
    streams.on_failure(move |reason| {
        // Nobody listens any more if it is already being stopped.
        failed.send(Some(reason.clone())).ok();
    });
    let queries = streams.queries();
    spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            let visitor = line.trim().to_owned();
            if visitor.is_empty() {
                break;
            }
            // Committed rows only. The key of a row's records says where the row is.
            match queries.get(application.open, &visitor, &visitor) {
                Ok(Some(session)) => println!("{visitor}: {} clicks", session.clicks),
                Ok(None) => println!("{visitor} has no open session"),
                Err(why) => println!("{why}"),
            }
        }
        ended.send(None).ok();
    });
    println!(
        "Its stores are in {stores}. A visitor shows the session, once it runs; an empty line stops it."
    );
    let failure = end.recv()?;
    // Everything is committed and closed, even if one thread has failed.
    streams.stop();
    // What happens next is up to whoever supervises the process.
    match failure {
        None => Ok(()),
        Some(StreamsFailure::Failed(reason) | StreamsFailure::Disk(reason)) => Err(reason.into()),
        // Starting it again changes nothing.
        Some(reason) => {
            eprintln!("{reason}");
            std::process::exit(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn driver() -> TopologyTestDriver {
        TopologyTestDriver::new(application().unwrap().topology, 4).unwrap()
    }

    fn click(driver: &mut TopologyTestDriver, key: Option<&str>, value: &str) {
        driver.pipe("clicks", key, Some(value.as_bytes()));
        driver.run().unwrap();
    }

    fn summaries(driver: &mut TopologyTestDriver) -> Vec<String> {
        driver
            .take("sessions")
            .iter()
            .map(|record| record.value_text())
            .collect()
    }

    #[test]
    fn a_session_ends_a_quiet_minute_after_its_last_click() {
        let mut driver = driver();
        click(&mut driver, Some("ada"), "ada /");
        driver.advance(Duration::from_secs(59)).unwrap();
        click(&mut driver, Some("ada"), "ada /prices");
        driver.advance(Duration::from_millis(59_999)).unwrap();
        assert!(summaries(&mut driver).is_empty());
        driver.advance(Duration::from_millis(1)).unwrap();
        assert_eq!(
            summaries(&mut driver),
            [r#"{"visitor":"ada","clicks":2,"seconds":59}"#]
        );
        click(&mut driver, Some("ada"), "ada /again");
        driver.advance(QUIET).unwrap();
        assert_eq!(
            summaries(&mut driver),
            [r#"{"visitor":"ada","clicks":1,"seconds":0}"#]
        );
    }

    #[test]
    fn clicks_under_any_key_meet_in_the_session_of_their_visitor() {
        let mut driver = driver();
        for key in [None, Some("ada"), Some("tablet"), Some("phone"), Some("tv")] {
            click(&mut driver, key, "ada /");
        }
        driver.advance(QUIET).unwrap();
        assert_eq!(
            summaries(&mut driver),
            [r#"{"visitor":"ada","clicks":5,"seconds":0}"#]
        );
    }

    #[test]
    fn a_crash_neither_loses_a_session_nor_counts_a_click_twice() {
        let mut driver = driver();
        click(&mut driver, Some("ada"), "ada /");
        driver.pipe("clicks", Some("ada"), Some(b"ada /prices"));
        assert!(
            driver.step(0).unwrap(),
            "the click is processed, but not committed"
        );
        driver.crash_and_restore().unwrap();
        driver.run().unwrap();
        driver.advance(QUIET).unwrap();
        assert_eq!(
            summaries(&mut driver),
            [r#"{"visitor":"ada","clicks":2,"seconds":0}"#]
        );
    }

    #[test]
    fn what_is_no_click_becomes_a_dead_letter_and_bots_are_passed_over() {
        let mut driver = driver();
        click(&mut driver, Some("ada"), "nonsense");
        click(&mut driver, Some("ada"), "bot /");
        driver.advance(QUIET).unwrap();
        assert!(summaries(&mut driver).is_empty());
        let dead_letters = driver.internal("dlq");
        let [dead] = &driver.take(&dead_letters)[..] else {
            panic!("there is one dead letter")
        };
        assert_eq!(dead.value_text(), "nonsense");
        assert_eq!(
            dead.header("__streams.errors.exception").as_deref(),
            Some("not-a-click")
        );
    }
}
