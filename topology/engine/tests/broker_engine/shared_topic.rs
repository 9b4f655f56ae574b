//! One topic that two groups read, and one fetcher for both.

use std::sync::Arc;
use std::time::Duration;

use turnstile_engine::runtime::{Metrics, Streams, StreamsConfig, TopicSpec};
use turnstile_engine::{
    Context, Decoded, InputRecord, Processor, ProcessorError, Source, Store, Topology,
    TopologyBuilder,
};

use crate::cluster::{Cluster, eventually, has_assignment};

const LIMIT: Duration = Duration::from_secs(60);
const GROUPS: [&str; 2] = ["early", "late"];

/// Counts the records that it is given.
struct Tally(Store<String, u64>);

impl Processor for Tally {
    type In = String;

    fn process(&mut self, context: &mut Context<'_>, key: String) -> Result<(), ProcessorError> {
        let count = context.get(self.0, &key)?.unwrap_or(0);
        context.put(self.0, &key, &(count + 1))
    }
}

/// A running instance, in which each group counts what it reads of the topic.
struct Tallies {
    application: String,
    streams: Streams,
    stores: [Store<String, u64>; 2],
}

impl Tallies {
    fn start(cluster: &Cluster) -> Self {
        let application = cluster.application();
        let (topology, stores) = topology(&application);
        let state = cluster.state("a");
        let mut config = StreamsConfig::new(&application, cluster.brokers(), "a", state);
        config.session_timeout = Duration::from_secs(6);
        let topics = [TopicSpec {
            name: topic(&application),
            partitions: 1,
        }];
        let metrics = Metrics::new(&prometheus::Registry::new()).expect("the registry is new");
        let streams = Streams::start(topology, &topics, &config, metrics);
        Self {
            application,
            streams: streams.expect("the instance starts"),
            stores,
        }
    }

    fn send(&self, cluster: &Cluster, records: usize) {
        for _ in 0..records {
            cluster.send(&topic(&self.application), "k", "x");
        }
        cluster.flush();
    }

    /// How many records each group has counted; nothing while its task does not run here.
    fn counted(&self) -> [Option<u64>; 2] {
        let key = "k".to_owned();
        let queries = self.streams.queries();
        self.stores.map(|store| {
            let count = queries.get(store, &key, &key);
            count.ok().map(|count| count.unwrap_or(0))
        })
    }

    fn wait_for(&self, counted: [Option<u64>; 2]) {
        eventually(&format!("{counted:?} are counted"), LIMIT, || {
            assert_eq!(self.streams.failure(), None);
            self.counted() == counted
        });
    }
}

fn topic(application: &str) -> String {
    format!("{application}-events")
}

fn topology(application: &str) -> (Arc<Topology>, [Store<String, u64>; 2]) {
    let mut builder = TopologyBuilder::new();
    let stores = GROUPS.map(|group| {
        let decode = |record: &InputRecord<'_>| {
            let key = String::from_utf8_lossy(record.key.unwrap_or_default());
            Ok(Decoded::Message(key.into_owned()))
        };
        let source = Source::new(topic(application), format!("{application}-{group}"), decode);
        let source = builder.source(source);
        let store = builder.store(group);
        let processor = builder.processor(group, move || Tally(store));
        processor.input(source).store(store).done();
        store
    });
    let topology = builder.build().expect("the topology is sound");
    (Arc::new(topology), stores)
}

/// A group that lets the instance have its partition only later reads all that it has missed,
/// and the one that has read it by then gets nothing twice.
#[test]
fn a_group_that_begins_later_is_behind_and_none_counts_twice() {
    let cluster = Cluster::new("shared");
    cluster.create_topic(&topic(&cluster.application()), 1);
    let group = format!("{}-late", cluster.application());
    let foreign = cluster.member(&group, "0", &topic(&cluster.application()));
    eventually("the other member has the partition", LIMIT, || {
        foreign.poll(Duration::ZERO);
        has_assignment(&foreign)
    });
    let tallies = Tallies::start(&cluster);
    tallies.send(&cluster, 500);
    eventually("one group has counted", LIMIT, || {
        // Whoever holds the other one's partition takes part in its rebalances.
        foreign.poll(Duration::ZERO);
        tallies.counted() == [Some(500), None]
    });
    drop(foreign);
    tallies.wait_for([Some(500), Some(500)]);
    tallies.send(&cluster, 30);
    tallies.wait_for([Some(530), Some(530)]);
    for group in GROUPS {
        let group = format!("{}-{group}", tallies.application);
        eventually("the lag is zero", LIMIT, || cluster.lag(&group) == Some(0));
    }
    tallies.streams.stop();
}

/// Groups that have committed different positions go on from their own.
#[test]
fn each_group_goes_on_from_its_own_position() {
    let cluster = Cluster::new("positions");
    let tallies = Tallies::start(&cluster);
    tallies.send(&cluster, 100);
    tallies.wait_for([Some(100), Some(100)]);
    tallies.streams.stop();
    let application = cluster.application();
    let group = format!("{application}-late");
    eventually("the position can be moved", LIMIT, || {
        cluster.commit(&group, &topic(&application), 0, 40)
    });
    let tallies = Tallies::start(&cluster);
    tallies.wait_for([Some(100), Some(160)]);
    tallies.send(&cluster, 7);
    tallies.wait_for([Some(107), Some(167)]);
    tallies.streams.stop();
}
