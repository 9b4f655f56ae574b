//! A processor that goes round in a circle, through a repartition topic of its own.

use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::Duration;

use turnstile_engine::runtime::{Metrics, Streams, StreamsConfig, TopicSpec};
use turnstile_engine::{
    Context, Decoded, Encode, InputRecord, Processor, ProcessorError, Sink, Source, Store,
    Topology, TopologyBuilder,
};

use crate::cluster::{Cluster, eventually};

const LIMIT: Duration = Duration::from_secs(60);
const KEY: &str = "k";

#[derive(Clone)]
enum Said {
    Go,
    Stop,
    Round,
}

impl Encode for Said {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(match self {
            Self::Go => b"go",
            Self::Stop => b"stop",
            Self::Round => b"round",
        });
    }
}

/// Goes round from one record on until another is read; counts the rounds.
struct Circle {
    rounds: Store<String, u64>,
    stopped: Store<String, u64>,
    again: Sink<Said>,
}

impl Processor for Circle {
    type In = Said;

    fn process(&mut self, context: &mut Context<'_>, said: Said) -> Result<(), ProcessorError> {
        let key = KEY.to_owned();
        match said {
            Said::Stop => return context.put(self.stopped, &key, &1),
            Said::Go => {}
            Said::Round => {
                let rounds = context.get(self.rounds, &key)?.unwrap_or(0);
                context.put(self.rounds, &key, &(rounds + 1))?;
                if context.get(self.stopped, &key)?.is_some() {
                    return context.put(self.stopped, &key, &2);
                }
            }
        }
        context.send(self.again, KEY, &Said::Round)
    }
}

fn topology(words: &str) -> (Arc<Topology>, [Store<String, u64>; 2]) {
    let mut builder = TopologyBuilder::new();
    let decode = |record: &InputRecord<'_>| {
        Ok(match record.value {
            Some(b"go") => Decoded::Message(Said::Go),
            Some(b"stop") => Decoded::Message(Said::Stop),
            Some(b"round") => Decoded::Message(Said::Round),
            _ => Decoded::Skip("unknown"),
        })
    };
    let group = format!("{words}-group");
    let [rounds, stopped] = ["rounds", "stopped"].map(|name| builder.store(name));
    let input = builder.source(Source::new(words, &*group, decode));
    let (again, back) = builder.repartition("again", group, decode);
    builder
        .processor("circle", move || Circle {
            rounds,
            stopped,
            again,
        })
        .input(input)
        .input(back)
        .store(rounds)
        .store(stopped)
        .sink(again)
        .done();
    let topology = builder.build().expect("the topology is sound");
    (Arc::new(topology), [rounds, stopped])
}

/// Each round is processed at once, as the topic is skipped; but commits and other records have
/// their turn.
#[test]
fn a_circle_does_not_keep_commits_and_other_records_out() {
    let cluster = Cluster::new("circle");
    let application = cluster.application();
    let words = format!("{application}-words");
    let (topology, [rounds, stopped]) = topology(&words);
    let mut config = StreamsConfig::new(&application, cluster.brokers(), "a", cluster.state("a"));
    config.session_timeout = Duration::from_secs(6);
    let topics = [TopicSpec {
        name: words.clone(),
        partitions: 1,
    }];
    let metrics = Metrics::new(&prometheus::Registry::new()).expect("the registry is new");
    let streams = Streams::start(topology, &topics, &config, metrics);
    // Not dropped if this fails: a thread that goes round for ever would be waited for.
    let streams = ManuallyDrop::new(streams.expect("the instance starts"));
    let committed = |store| {
        let found = streams.queries().get(store, KEY, &KEY.to_owned());
        found.ok().flatten()
    };
    cluster.send(&words, KEY, "go");
    cluster.flush();
    eventually("rounds are committed", LIMIT, || {
        assert_eq!(streams.failure(), None);
        committed(rounds) > Some(2_000)
    });
    cluster.send(&words, KEY, "stop");
    cluster.flush();
    eventually("it has stopped", LIMIT, || committed(stopped) == Some(2));
    ManuallyDrop::into_inner(streams).stop();
}
