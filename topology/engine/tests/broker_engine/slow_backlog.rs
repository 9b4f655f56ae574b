//! A backlog in many partitions, whose records take their time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use turnstile_engine::runtime::{CommitStep, Metrics, Streams, StreamsConfig, TopicSpec};
use turnstile_engine::{
    Context, Decoded, InputRecord, Processor, ProcessorError, Source, Store, TopologyBuilder,
};
use turnstile_state::StateError;

use crate::cluster::{Cluster, eventually};

const PARTITIONS: i32 = 32;
const RECORDS: usize = 6_400;

static PROCESSED: AtomicUsize = AtomicUsize::new(0);
/// How many records were processed when the first commit of any began.
static BEFORE_COMMIT: OnceLock<usize> = OnceLock::new();

fn note(step: CommitStep, _: &dyn Fn() -> Result<(), StateError>) {
    let processed = PROCESSED.load(Ordering::Relaxed);
    if step == CommitStep::ChangelogSent && processed > 0 {
        BEFORE_COMMIT.get_or_init(|| processed);
    }
}

struct Slow(Store<String, u64>);

impl Processor for Slow {
    type In = String;

    fn process(&mut self, context: &mut Context<'_>, key: String) -> Result<(), ProcessorError> {
        thread::sleep(Duration::from_millis(2));
        PROCESSED.fetch_add(1, Ordering::Relaxed);
        context.put(self.0, &key, &1)
    }
}

#[test]
fn commits_do_not_wait_for_a_turn_of_all_partitions() {
    let cluster = Cluster::new("slow-backlog");
    let application = cluster.application();
    let topic = format!("{application}-slow");
    cluster.create_topic(&topic, PARTITIONS);
    for record in 0..RECORDS {
        cluster.send(&topic, &format!("k{record}"), "slow");
    }
    cluster.flush();

    let mut builder = TopologyBuilder::new();
    let seen = builder.store("seen");
    let decode = |record: &InputRecord<'_>| {
        let key = String::from_utf8_lossy(record.key.unwrap_or_default());
        Ok(Decoded::Message(key.into_owned()))
    };
    let source = builder.source(Source::new(&*topic, format!("{topic}-group"), decode));
    builder
        .processor("slow", move || Slow(seen))
        .input(source)
        .store(seen)
        .done();
    let topology = builder.build().expect("the topology is sound");
    let mut config = StreamsConfig::new(&application, cluster.brokers(), "a", cluster.state("a"));
    config.session_timeout = Duration::from_secs(6);
    config.on_commit_step = Some(note);
    let topics = [TopicSpec {
        name: topic,
        partitions: PARTITIONS,
    }];
    let metrics = Metrics::new(&prometheus::Registry::new()).expect("the registry is new");
    let streams = Streams::start(Arc::new(topology), &topics, &config, metrics);
    let streams = streams.expect("the instance starts");
    eventually("a commit begins", Duration::from_secs(60), || {
        BEFORE_COMMIT.get().is_some()
    });
    let processed = *BEFORE_COMMIT.get().expect("it has begun");
    assert!(processed < RECORDS / 2, "{processed} were processed first");
    streams.stop();
}
