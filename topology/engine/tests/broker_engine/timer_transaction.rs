//! What timers send is committed beside what is done for the records of others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use turnstile_engine::runtime::{CommitStep, Metrics, Streams, StreamsConfig, TopicSpec};
use turnstile_engine::{
    Context, Decoded, Encode, InputRecord, Processor, ProcessorError, Sink, Source, Timer,
    Topology, TopologyBuilder,
};
use turnstile_state::StateError;

use crate::LIMIT;
use crate::cluster::{Cluster, eventually};

const PARTITIONS: i32 = 1;
const TOPICS: [&str; 4] = ["words", "echoes", "alarms", "rings"];
/// Long enough for a commit of records to begin and be held up before an alarm rings.
const LATER: Duration = Duration::from_secs(3);

/// Where the commit is that is held up.
static PHASE: AtomicU8 = AtomicU8::new(FREE);
const FREE: u8 = 0;
/// The next commit is to be held up.
const AWAITED: u8 = 1;
/// All of its records are delivered, and it waits until it is set free.
const HELD_UP: u8 = 2;

fn is_in(phase: u8) -> bool {
    PHASE.load(Ordering::Relaxed) == phase
}

#[derive(Clone)]
struct Text(String);

impl Encode for Text {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0.as_bytes());
    }
}

/// Sends on what it gets.
struct Echo(Sink<Text>);

impl Processor for Echo {
    type In = Text;

    fn process(&mut self, context: &mut Context<'_>, word: Text) -> Result<(), ProcessorError> {
        context.send(self.0, &word.0, &word)
    }
}

/// Sends what it gets a while later.
struct Alarm(Sink<Text>);

impl Processor for Alarm {
    type In = Text;

    fn process(&mut self, context: &mut Context<'_>, name: Text) -> Result<(), ProcessorError> {
        context.schedule(name.0.as_bytes(), context.now().plus(LATER))
    }

    fn on_timer(&mut self, context: &mut Context<'_>, timer: Timer) -> Result<(), ProcessorError> {
        let name = Text(String::from_utf8_lossy(&timer.key).into_owned());
        context.send(self.0, &name.0, &name)
    }
}

/// Two components, which hear nothing of each other.
fn topology(name: impl Fn(&str) -> String) -> Arc<Topology> {
    let mut builder = TopologyBuilder::new();
    let decode = |record: &InputRecord<'_>| {
        let key = record.key.unwrap_or_default();
        Ok(Decoded::Message(Text(
            String::from_utf8_lossy(key).into_owned(),
        )))
    };
    let words = builder.source(Source::new(name("words"), name("words"), decode));
    let echoes = builder.sink(name("echoes"));
    let echo = builder.processor("echo", move || Echo(echoes));
    echo.input(words).sink(echoes).done();
    let alarms = builder.source(Source::new(name("alarms"), name("alarms"), decode));
    let rings = builder.sink(name("rings"));
    let alarm = builder.processor("alarm", move || Alarm(rings));
    alarm.input(alarms).sink(rings).timers().done();
    Arc::new(builder.build().expect("the topology is sound"))
}

fn start(cluster: &Cluster) -> Streams {
    let application = cluster.application();
    let name = |topic: &str| format!("{application}-{topic}");
    let mut config = StreamsConfig::new(&application, cluster.brokers(), "a", cluster.state("a"));
    config.on_commit_step = Some(hold_up);
    let topics = TOPICS.map(|topic| TopicSpec {
        name: name(topic),
        partitions: PARTITIONS,
    });
    let metrics = Metrics::new(&prometheus::Registry::new()).expect("the registry is new");
    let streams = Streams::start(topology(name), &topics, &config, metrics);
    let streams = streams.expect("the instance starts");
    eventually("the instance is ready", LIMIT, || {
        assert_eq!(streams.failure(), None);
        streams.status().ready
    });
    streams
}

#[test]
fn what_timers_send_does_not_wait_for_the_records_of_others() {
    let cluster = Cluster::new("alarms");
    let streams = start(&cluster);
    let name = |topic: &str| format!("{}-{topic}", cluster.application());
    let send = |topic: &str, key: &str| {
        cluster.send(&name(topic), key, "x");
        cluster.flush();
    };
    let both = |key: &str| vec![(key.to_owned(), key.to_owned())];

    send("alarms", "first");
    let group = name("alarms");
    eventually("the alarm is set", LIMIT, || cluster.lag(&group) == Some(0));
    PHASE.store(AWAITED, Ordering::Relaxed);
    send("words", "w1");
    eventually("a commit is held up", LIMIT, || is_in(HELD_UP));
    assert_eq!(cluster.read_committed(&name("rings"), 1), both("first"));
    assert!(is_in(HELD_UP), "the alarm has waited for the commit");

    // Who has fired commits in either transaction, one after the other.
    send("alarms", "second");
    PHASE.store(FREE, Ordering::Relaxed);
    assert_eq!(cluster.read_committed(&name("echoes"), 1), both("w1"));
    let rings = cluster.read_committed(&name("rings"), 2);
    assert_eq!(rings.get(1..), Some(both("second").as_slice()));
    for group in [name("words"), name("alarms")] {
        eventually("the lag is zero", LIMIT, || cluster.lag(&group) == Some(0));
    }
    streams.stop();
}

fn hold_up(step: CommitStep, _: &dyn Fn() -> Result<(), StateError>) {
    let ordering = Ordering::Relaxed;
    if step != CommitStep::PositionsJoined
        || PHASE
            .compare_exchange(AWAITED, HELD_UP, ordering, ordering)
            .is_err()
    {
        return;
    }
    eventually("it is set free", LIMIT, || is_in(FREE));
}
