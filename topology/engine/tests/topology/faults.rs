//! Every fault of a declaration is found, and all of them at once.

use std::sync::Arc;
use std::time::Duration;

use turnstile_engine::{PunctuationType, Store, TopologyBuilder, TopologyFault};

use super::{Quiet, Text, decode, keyed_source, partitions, source};

/// The faults of what `declare` adds to a sound topology.
fn faults_of(declare: impl FnOnce(&mut TopologyBuilder)) -> Vec<TopologyFault> {
    let mut builder = TopologyBuilder::new();
    let sound = builder.source(source("sound", "sound"));
    builder.processor("sound", || Quiet).input(sound).done();
    declare(&mut builder);
    builder
        .build()
        .err()
        .map_or_else(Vec::new, |faults| faults.0)
}

fn duplicate(kind: &'static str, name: &str) -> TopologyFault {
    TopologyFault::DuplicateName {
        kind,
        name: name.to_owned(),
    }
}

fn invalid(kind: &'static str, name: &str) -> TopologyFault {
    TopologyFault::InvalidName {
        kind,
        name: name.to_owned(),
    }
}

fn unread(stream: &str) -> TopologyFault {
    TopologyFault::Unread {
        stream: stream.to_owned(),
    }
}

#[test]
fn a_sound_topology_has_none() {
    assert_eq!(faults_of(|_| {}), []);
}

#[test]
fn two_processors_with_one_name_are_one_fault_whatever_their_timers() {
    let faults = faults_of(|builder| {
        let clicks = builder.source(source("clicks", "g"));
        builder
            .processor("count", || Quiet)
            .input(clicks)
            .timers()
            .done();
        builder
            .processor("count", || Quiet)
            .input(clicks)
            .timers()
            .done();
    });
    assert_eq!(faults, [duplicate("processors", "count")]);
}

/// All stores share one changelog, so it does not matter that no task has both of these.
#[test]
fn stores_of_different_subtopologies_have_different_tags() {
    let faults = faults_of(|builder| {
        for (topic, store) in [("clicks", "glbvs"), ("views", "yacxa")] {
            let stream = builder.source(source(topic, "g"));
            let store: Store<String, u64> = builder.store(store);
            let processor = builder.processor(topic, || Quiet);
            processor.input(stream).store(store).done();
        }
    });
    let same = TopologyFault::SameTag {
        first: "glbvs".to_owned(),
        second: "yacxa".to_owned(),
    };
    assert_eq!(faults, [same]);
}

#[test]
fn stores_have_names_of_their_own_also_beside_those_of_timers() {
    for taken in ["count-timers", "count-timers-by-key", "other"] {
        let faults = faults_of(|builder| {
            let clicks = builder.source(source("clicks", "g"));
            let store: Store<String, u64> = builder.store(taken);
            let other: Store<String, u64> = builder.store("other");
            builder
                .processor("count", || Quiet)
                .input(clicks)
                .store(store)
                .store(other)
                .timers()
                .done();
        });
        assert_eq!(faults, [duplicate("stores", taken)]);
    }
}

#[test]
fn repartition_topics_have_names_of_their_own_also_beside_those_of_keyed_sources() {
    let faults = faults_of(|builder| {
        let clicks = builder.source(keyed_source("clicks", "g", "by-user"));
        let (sink, users) = builder.repartition("by-user", "g", decode);
        builder
            .processor("split", || Quiet)
            .input(clicks)
            .sink(sink)
            .done();
        builder.processor("count", || Quiet).input(users).done();
    });
    assert_eq!(faults, [duplicate("repartition topics", "by-user")]);
}

#[test]
fn names_that_become_part_of_topics_are_made_for_that() {
    let faults = faults_of(|builder| {
        let clicks = builder.source(keyed_source("Any.Topic_is-fine", "any group", "by user"));
        let store: Store<String, u64> = builder.store("");
        let (sink, users) = builder.repartition("by_user", "g", decode);
        builder
            .processor("Split", || Quiet)
            .input(clicks)
            .store(store)
            .sink(sink)
            .timers()
            .done();
        builder.processor("count-2", || Quiet).input(users).done();
    });
    let expected = [
        invalid("processors", "Split"),
        invalid("stores", ""),
        invalid("repartition topics", "by_user"),
        invalid("repartition topics", "by user"),
    ];
    assert_eq!(faults, expected);
}

#[test]
fn topics_and_groups_outside_have_names_that_brokers_take() {
    let long = "t".repeat(250);
    let faults = faults_of(|builder| {
        for (n, topic) in ["", "a topic", ".", &long].into_iter().enumerate() {
            let stream = builder.source(source(topic, "any group"));
            let processor = builder.processor(format!("reads-{n}"), || Quiet);
            processor.input(stream).done();
        }
        let clicks = builder.source(source("Clicks.of_all-1", ""));
        let out = builder.sink::<Text>("out/there");
        let processor = builder.processor("writes", || Quiet);
        processor.input(clicks).sink(out).done();
    });
    let invalid = |topic: &str| TopologyFault::InvalidTopic {
        topic: topic.to_owned(),
    };
    let nowhere = TopologyFault::NoGroup {
        topic: "Clicks.of_all-1".to_owned(),
    };
    let names = ["", ".", "a topic", "out/there", &long];
    let expected: Vec<TopologyFault> = names.map(invalid).into_iter().chain([nowhere]).collect();
    assert_eq!(faults, expected);
}

#[test]
fn a_clock_punctuates_a_processor_for_one_reason() {
    use PunctuationType::{StreamTime, WallClockTime};
    let faults = faults_of(|builder| {
        let clicks = builder.source(source("clicks", "g"));
        let mut processor = builder.processor("count", || Quiet).input(clicks);
        for (kind, seconds) in [(WallClockTime, 1), (StreamTime, 1), (WallClockTime, 5)] {
            processor = processor.punctuate(kind, Duration::from_secs(seconds));
        }
        processor.done();
    });
    let twice = TopologyFault::DuplicatePunctuation {
        processor: "count".to_owned(),
        kind: WallClockTime,
    };
    assert_eq!(faults, [twice]);
}

/// Its index is that of something else here.
#[test]
fn what_another_builder_has_made_is_refused() {
    let mut other = TopologyBuilder::new();
    let stream = other.source(source("clicks", "g"));
    let (store, sink) = (other.store::<String, String>("s"), other.sink::<Text>("t"));
    let (outlet, _) = other.outlet::<Text>("o");
    let faults = faults_of(|builder| {
        let clicks = builder.source(source("clicks", "g"));
        builder
            .processor("count", || Quiet)
            .input(clicks)
            .input(stream)
            .store(store)
            .sink(sink)
            .outlet(outlet)
            .done();
    });
    let foreign = |kind| TopologyFault::ForeignHandle {
        processor: "count".to_owned(),
        kind,
    };
    assert_eq!(faults, ["stream", "store", "sink", "outlet"].map(foreign));
}

#[test]
fn a_processor_without_input_is_refused() {
    let faults = faults_of(|builder| builder.processor("idle", || Quiet).done());
    assert_eq!(
        faults,
        [TopologyFault::NoInput {
            processor: "idle".to_owned()
        }]
    );
}

#[test]
fn a_stream_flows_into_a_processor_once() {
    let faults = faults_of(|builder| {
        let clicks = builder.source(source("clicks", "g"));
        let views = builder.source(source("views", "g"));
        let (outlet, late) = builder.outlet::<Text>("late");
        builder
            .processor("count", || Quiet)
            .input(clicks)
            .input(views)
            .input(clicks)
            .input(clicks)
            .outlet(outlet)
            .done();
        builder
            .processor("report", || Quiet)
            .input(late)
            .input(late)
            .input(clicks)
            .done();
    });
    let twice = |processor: &str, stream: &str| TopologyFault::DuplicateInput {
        processor: processor.to_owned(),
        stream: stream.to_owned(),
    };
    assert_eq!(faults, [twice("count", "clicks"), twice("report", "late")]);
    assert_eq!(
        twice("count", "clicks").to_string(),
        "clicks flows into processor count more than once: give it once"
    );
}

#[test]
fn streams_that_nobody_reads_are_refused() {
    let faults = faults_of(|builder| {
        let clicks = builder.source(source("clicks", "g"));
        builder.source(source("lonely", "g"));
        let (outlet, _) = builder.outlet::<Text>("late");
        builder
            .processor("count", || Quiet)
            .input(clicks)
            .outlet(outlet)
            .done();
    });
    assert_eq!(faults, [unread("lonely"), unread("late")]);
}

#[test]
fn stores_and_sinks_that_nobody_uses_are_refused() {
    let faults = faults_of(|builder| {
        builder.store::<String, u64>("counts");
        builder.sink::<Text>("out");
        let (_, users) = builder.repartition("by-user", "g", decode);
        builder.processor("count", || Quiet).input(users).done();
    });
    let unused_sink = |topic: &str| TopologyFault::UnusedSink {
        topic: topic.to_owned(),
    };
    let expected = [
        TopologyFault::UnusedStore {
            store: "counts".to_owned(),
        },
        unused_sink("out"),
        unused_sink("by-user"),
    ];
    assert_eq!(faults, expected);
}

#[test]
fn an_outlet_belongs_to_one_processor() {
    for owners in [0, 2] {
        let faults = faults_of(|builder| {
            let clicks = builder.source(source("clicks", "g"));
            let (outlet, late) = builder.outlet::<Text>("late");
            for name in ["first", "second"].into_iter().take(owners) {
                builder
                    .processor(name, || Quiet)
                    .input(clicks)
                    .outlet(outlet)
                    .done();
            }
            builder
                .processor("report", || Quiet)
                .input(clicks)
                .input(late)
                .done();
        });
        assert_eq!(
            faults,
            [TopologyFault::OutletOwners {
                outlet: "late".to_owned(),
                owners
            }]
        );
    }
}

#[test]
fn a_circle_names_the_processors_on_it_and_no_others() {
    let faults = faults_of(|builder| {
        let clicks = builder.source(source("clicks", "g"));
        let (from_first, to_ping) = builder.outlet::<Text>("from-first");
        let (from_ping, to_pong) = builder.outlet::<Text>("from-ping");
        let (from_pong, back_to_ping) = builder.outlet::<Text>("from-pong");
        let (from_pong_on, to_last) = builder.outlet::<Text>("from-pong-on");
        builder
            .processor("first", || Quiet)
            .input(clicks)
            .outlet(from_first)
            .done();
        builder
            .processor("ping", || Quiet)
            .input(to_ping)
            .input(back_to_ping)
            .outlet(from_ping)
            .done();
        builder
            .processor("pong", || Quiet)
            .input(to_pong)
            .outlet(from_pong)
            .outlet(from_pong_on)
            .done();
        builder.processor("last", || Quiet).input(to_last).done();
    });
    assert_eq!(
        faults,
        [TopologyFault::Cycle {
            processors: "ping, pong".to_owned()
        }]
    );
}

#[test]
fn ways_that_part_and_meet_again_are_no_circle() {
    let faults = faults_of(|builder| {
        let clicks = builder.source(source("clicks", "g"));
        let (left_out, left) = builder.outlet::<Text>("left");
        let (right_out, right) = builder.outlet::<Text>("right");
        let (joined_out, joined) = builder.outlet::<Text>("joined");
        builder
            .processor("part", || Quiet)
            .input(clicks)
            .outlet(left_out)
            .outlet(right_out)
            .done();
        builder
            .processor("left", || Quiet)
            .input(left)
            .outlet(joined_out)
            .done();
        builder
            .processor("meet", || Quiet)
            .input(joined)
            .input(right)
            .done();
    });
    assert_eq!(faults, []);
}

#[test]
fn a_subtopology_reads_a_topic_once_in_a_group() {
    let faults = faults_of(|builder| {
        let once = builder.source(source("clicks", "g"));
        let twice = builder.source(source("clicks", "g"));
        let in_another_group = builder.source(source("clicks", "h"));
        builder
            .processor("count", || Quiet)
            .input(once)
            .input(in_another_group)
            .done();
        builder
            .processor("report", || Quiet)
            .input(twice)
            .input(in_another_group)
            .done();
    });
    let expected = TopologyFault::DuplicateSource {
        processors: "count, report".to_owned(),
        topic: "clicks".to_owned(),
        group: "g".to_owned(),
    };
    assert_eq!(faults, [expected]);
}

#[test]
fn a_repartition_topic_may_be_named_as_a_topic_is() {
    let faults = faults_of(|builder| {
        let clicks = builder.source(source("clicks", "g"));
        let (sink, again) = builder.repartition("clicks", "g", decode);
        builder
            .processor("split", || Quiet)
            .input(clicks)
            .sink(sink)
            .done();
        builder.processor("count", || Quiet).input(again).done();
    });
    assert_eq!(faults, []);
}

#[test]
fn subtopologies_do_not_split_a_topic_between_them() {
    let faults = faults_of(|builder| {
        for name in ["count", "report"] {
            let clicks = builder.source(source("clicks", "g"));
            builder.processor(name, || Quiet).input(clicks).done();
        }
    });
    let expected = TopologyFault::SplitTopic {
        first: "count".to_owned(),
        second: "report".to_owned(),
        topic: "clicks".to_owned(),
        group: "g".to_owned(),
    };
    assert_eq!(faults, [expected]);
}

#[test]
fn all_faults_are_told_at_once() {
    let mut builder = TopologyBuilder::new();
    builder.source(source("clicks", "g"));
    builder.store::<String, u64>("Counts");
    builder.outlet::<Text>("late");
    builder.sink::<Text>("out");
    builder.processor("idle", || Quiet).done();
    for name in ["twin", "twin"] {
        let clicks = builder.source(source("clicks", "g"));
        let (to_itself, itself) = builder.outlet::<Text>("itself");
        builder
            .processor(name, || Quiet)
            .input(clicks)
            .input(itself)
            .outlet(to_itself)
            .done();
    }
    let faults = builder.build().err().expect("it is full of faults");
    insta::assert_snapshot!(faults.to_string().replace("; ", "\n"), @r#"
    the topology has 10 fault(s)
    "Counts" cannot be one of the stores: make its name of a-z, 0-9 and -
    there are two processors named twin: rename one
    processor idle has no input: give it a stream or remove it
    nothing reads clicks: give it to a processor or remove it
    no processor uses store Counts: declare it at one or remove it
    no processor sends to topic out: declare the sink at one or remove it
    outlet late belongs to 0 processors: it has to be exactly one
    nothing reads late: give it to a processor or remove it
    processors twin, twin forward to each other in a circle: break it with a repartition topic
    two sources read topic clicks in group g, one for twin and one for twin: share one source or use two groups
    "#);
}

#[test]
fn a_cluster_has_to_have_all_topics_and_equal_counts_where_they_meet() {
    let mut builder = TopologyBuilder::new();
    let clicks = builder.source(source("clicks", "g"));
    let views = builder.source(source("views", "g"));
    let keyed = builder.source(keyed_source("purchases", "g", "purchases-by-user"));
    let users = builder.source(source("users", "g"));
    let (out, again) = (builder.sink::<Text>("out"), builder.sink::<Text>("out"));
    builder
        .processor("count", || Quiet)
        .input(clicks)
        .input(views)
        .input(keyed)
        .sink(out)
        .sink(again)
        .done();
    builder
        .processor("users", || Quiet)
        .input(users)
        .sink(out)
        .done();
    let topology = Arc::new(builder.build().expect("it is sound without a cluster"));

    let counts = partitions(&[("clicks", 4), ("views", 6), ("purchases", 8)]);
    let faults = topology
        .resolve("app", &counts)
        .err()
        .expect("it does not fit this cluster");
    let missing = |topic: &str| TopologyFault::MissingTopic {
        topic: topic.to_owned(),
    };
    let unequal = TopologyFault::NotCopartitioned {
        subtopology: 0,
        processors: "count".to_owned(),
        topics: "clicks 4, views 6".to_owned(),
    };
    assert_eq!(faults.0, [unequal, missing("users"), missing("out")]);
}
