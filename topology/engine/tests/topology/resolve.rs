//! How a topology lies on a cluster.

use std::collections::BTreeSet;
use std::sync::Arc;

use turnstile_engine::driver::TopologyTestDriver;
use turnstile_engine::partitioner::partition_of;
use turnstile_engine::topology::{InternalTopic, InternalTopicKind};
use turnstile_engine::{Partition, Plan, Store, Topology, TopologyBuilder};

use super::{Quiet, Send, Text, decode, keyed_source, partitions, source};

/// Counts clicks and purchases by user: the purchases may be keyed by anything.
fn counting() -> Arc<Topology> {
    let mut builder = TopologyBuilder::new();
    let clicks = builder.source(source("clicks", "clicks-group"));
    let purchases = builder.source(keyed_source(
        "purchases",
        "purchases-group",
        "purchases-by-user",
    ));
    let store: Store<String, u64> = builder.store("counts");
    let (to_countries, by_country) = builder.repartition("by-country", "countries-group", decode);
    let countries = builder.source(source("countries", "countries-group"));
    let totals = builder.sink::<Text>("totals");
    builder
        .processor("count", || Quiet)
        .input(clicks)
        .input(purchases)
        .store(store)
        .timers()
        .sink(to_countries)
        .done();
    builder
        .processor("total", || Quiet)
        .input(by_country)
        .input(countries)
        .sink(totals)
        .done();
    Arc::new(builder.build().expect("the topology is sound"))
}

fn plan(topology: Arc<Topology>, counts: &[(&str, i32)]) -> Plan {
    topology
        .resolve("app", &partitions(counts))
        .expect("the topology fits the cluster")
}

/// What the description says of the source that reads `topic`.
fn source_of(plan: &Plan, subtopology: usize, topic: &str) -> serde_json::Value {
    let description = plan.describe_json();
    let sources = description.pointer(&format!("/subtopologies/{subtopology}/sources"));
    let sources = sources
        .and_then(|sources| sources.as_array())
        .expect("there is such a subtopology");
    sources
        .iter()
        .find(|source| source["topic"] == topic)
        .expect("it reads such a topic")
        .clone()
}

fn tasks(plan: &Plan) -> Vec<String> {
    plan.tasks().iter().map(ToString::to_string).collect()
}

/// What the description says of the partitions of `topic`.
fn partitions_of(plan: &Plan, topic: &str) -> serde_json::Value {
    let description = plan.describe_json();
    let topics = description
        .get("topics")
        .and_then(|topics| topics.as_array());
    let mut topics = topics.expect("topics are a list").iter();
    let known = topics.find(|known| known.get("name").is_some_and(|name| name == topic));
    known
        .and_then(|known| known.get("partitions"))
        .expect("the plan has the topic")
        .clone()
}

fn internal(name: &str, partitions: i32, kind: InternalTopicKind) -> InternalTopic {
    InternalTopic {
        name: format!("app-{name}"),
        partitions,
        kind,
    }
}

#[test]
fn a_keyed_source_with_the_count_of_its_partners_is_read_directly_and_checked() {
    let counts = [
        ("clicks", 2),
        ("purchases", 2),
        ("countries", 3),
        ("totals", 5),
    ];
    let plan = plan(counting(), &counts);
    assert_eq!(tasks(&plan), ["0_0", "0_1", "1_0", "1_1", "1_2"]);
    let read = source_of(&plan, 0, "purchases");
    assert_eq!(read["to"], serde_json::json!(["count"]));
    let through = "app-purchases-by-user-repartition";
    assert_eq!(
        read["rekeys"],
        serde_json::json!({ "records": "misplaced", "through": through })
    );
    let rekeyed = source_of(&plan, 0, through);
    assert_eq!(rekeyed["to"], serde_json::json!(["count"]));
    assert_eq!(rekeyed["group"], "purchases-group");
    let expected = [
        internal("by-country-repartition", 3, InternalTopicKind::Repartition),
        internal("dlq", 3, InternalTopicKind::DeadLetters),
        internal(
            "purchases-by-user-repartition",
            2,
            InternalTopicKind::Repartition,
        ),
        internal("stores-changelog", 2, InternalTopicKind::Changelog),
    ];
    assert_eq!(plan.internal_topics(), expected);
}

#[test]
fn a_keyed_source_with_another_count_is_rekeyed_by_a_subtopology_of_its_own_at_the_end() {
    let counts = [
        ("clicks", 2),
        ("purchases", 4),
        ("countries", 1),
        ("totals", 5),
    ];
    let plan = plan(counting(), &counts);
    assert_eq!(
        tasks(&plan),
        ["0_0", "0_1", "1_0", "2_0", "2_1", "2_2", "2_3"]
    );
    let through = "app-purchases-by-user-repartition";
    let read = source_of(&plan, 2, "purchases");
    assert_eq!(read["to"], serde_json::json!([]));
    assert_eq!(read["group"], "purchases-group");
    assert_eq!(
        read["rekeys"],
        serde_json::json!({ "records": "all", "through": through })
    );
    assert_eq!(
        source_of(&plan, 0, through)["to"],
        serde_json::json!(["count"])
    );
    let expected = [
        internal("by-country-repartition", 1, InternalTopicKind::Repartition),
        internal("dlq", 4, InternalTopicKind::DeadLetters),
        internal(
            through.trim_start_matches("app-"),
            2,
            InternalTopicKind::Repartition,
        ),
        internal("stores-changelog", 2, InternalTopicKind::Changelog),
    ];
    assert_eq!(plan.internal_topics(), expected);
}

#[test]
fn groups_read_the_topics_of_all_their_subtopologies() {
    let counts = [
        ("clicks", 2),
        ("purchases", 4),
        ("countries", 1),
        ("totals", 5),
    ];
    let subscriptions: Vec<String> = plan(counting(), &counts)
        .subscriptions()
        .iter()
        .map(|(group, topics)| {
            format!(
                "{group}: {}",
                topics
                    .iter()
                    .map(AsRef::as_ref)
                    .collect::<Vec<&str>>()
                    .join(", ")
            )
        })
        .collect();
    let expected = [
        "clicks-group: clicks",
        "countries-group: app-by-country-repartition, countries",
        "purchases-group: app-purchases-by-user-repartition, purchases",
    ];
    assert_eq!(subscriptions, expected);
}

#[test]
fn sinks_spread_records_over_all_partitions_of_their_topics() {
    let mut builder = TopologyBuilder::new();
    let clicks = builder.source(source("clicks", "g"));
    let (to_users, by_user) = builder.repartition("by-user", "g", decode);
    let users = builder.source(source("users", "g"));
    let out = builder.sink::<Text>("out");
    builder
        .processor("split", move || Send(to_users))
        .input(clicks)
        .sink(to_users)
        .done();
    builder
        .processor("count", move || Send(out))
        .input(by_user)
        .input(users)
        .sink(out)
        .done();
    let topology = Arc::new(builder.build().expect("the topology is sound"));
    let counts = [("clicks", 2), ("users", 3), ("out", 5)];
    let mut driver = TopologyTestDriver::with_topics(topology, partitions(&counts)).unwrap();
    for n in 0..20 {
        driver.pipe("clicks", None, Some(format!("user-{n}").as_bytes()));
    }
    driver.run().unwrap();
    // A repartition topic has as many as its reader has tasks, not as its writer.
    for (topic, count) in [
        (driver.internal("by-user-repartition"), 3),
        ("out".to_owned(), 5),
    ] {
        let records = driver.all(&topic);
        assert_eq!(records.len(), 20);
        for record in &records {
            assert_eq!(
                record.partition,
                partition_of(record.key_text().as_bytes(), count)
            );
        }
        let reached: BTreeSet<Partition> = records.iter().map(|record| record.partition).collect();
        assert_eq!(reached, (0..count).map(Partition).collect());
    }
}

#[test]
fn where_all_sources_are_keyed_the_largest_one_counts() {
    let mut builder = TopologyBuilder::new();
    let clicks = builder.source(keyed_source("clicks", "g", "clicks-by-user"));
    let views = builder.source(keyed_source("views", "g", "views-by-user"));
    builder
        .processor("count", || Quiet)
        .input(clicks)
        .input(views)
        .done();
    let topology = Arc::new(builder.build().expect("the topology is sound"));
    let plan = plan(topology, &[("clicks", 2), ("views", 3)]);
    assert_eq!(tasks(&plan), ["0_0", "0_1", "0_2", "1_0", "1_1"]);
    assert_eq!(source_of(&plan, 1, "clicks")["rekeys"]["records"], "all");
    assert_eq!(
        source_of(&plan, 0, "views")["rekeys"]["records"],
        "misplaced"
    );
    assert_eq!(partitions_of(&plan, "app-clicks-by-user-repartition"), 3);
}

#[test]
fn the_stores_of_all_subtopologies_share_a_changelog_with_the_partitions_of_the_largest() {
    let mut builder = TopologyBuilder::new();
    for (topic, has_store) in [("few", true), ("many", true), ("most", false)] {
        let stream = builder.source(source(topic, "g"));
        let store: Option<Store<String, u64>> =
            has_store.then(|| builder.store(format!("of-{topic}")));
        let processor = builder.processor(topic, || Quiet).input(stream);
        match store {
            Some(store) => processor.store(store).done(),
            None => processor.done(),
        }
    }
    let topology = Arc::new(builder.build().expect("the topology is sound"));
    let plan = plan(topology, &[("few", 2), ("many", 3), ("most", 5)]);
    let topics = plan.internal_topics().into_iter();
    let changelogs: Vec<InternalTopic> = topics
        .filter(|topic| topic.kind == InternalTopicKind::Changelog)
        .collect();
    let only = internal("stores-changelog", 3, InternalTopicKind::Changelog);
    assert_eq!(changelogs, [only]);
}

#[test]
fn what_reads_repartition_topics_only_has_as_many_tasks_as_their_largest_writer() {
    let mut builder = TopologyBuilder::new();
    // The readers come first, and in a chain: the order of declaration does not matter.
    let (to_last, last) = builder.repartition("to-last", "g", decode);
    let (to_middle, middle) = builder.repartition("to-middle", "g", decode);
    builder.processor("last", || Quiet).input(last).done();
    builder
        .processor("middle", || Quiet)
        .input(middle)
        .sink(to_last)
        .done();
    for (name, topic) in [("small", "few"), ("large", "many")] {
        let stream = builder.source(source(topic, "g"));
        builder
            .processor(name, || Quiet)
            .input(stream)
            .sink(to_middle)
            .done();
    }
    let topology = Arc::new(builder.build().expect("the topology is sound"));
    let plan = plan(topology, &[("few", 2), ("many", 3)]);
    assert_eq!(partitions_of(&plan, "app-to-middle-repartition"), 3);
    assert_eq!(partitions_of(&plan, "app-to-last-repartition"), 3);
    assert_eq!(plan.tasks().len(), 3 + 3 + 2 + 3);
}

#[test]
fn a_circle_of_repartition_topics_that_nothing_feeds_has_one_task() {
    let mut builder = TopologyBuilder::new();
    let (to_ping, ping) = builder.repartition("to-ping", "g", decode);
    let (to_pong, pong) = builder.repartition("to-pong", "g", decode);
    builder
        .processor("ping", || Quiet)
        .input(ping)
        .sink(to_pong)
        .done();
    builder
        .processor("pong", || Quiet)
        .input(pong)
        .sink(to_ping)
        .done();
    let topology = Arc::new(builder.build().expect("the topology is sound"));
    assert_eq!(tasks(&plan(topology, &[])), ["0_0", "1_0"]);
}

#[test]
fn shared_stores_sources_and_outlets_connect_and_repartition_topics_do_not() {
    let mut builder = TopologyBuilder::new();
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|topic| builder.source(source(topic, "g")));
    let store: Store<String, u64> = builder.store("shared");
    let (forward, forwarded) = builder.outlet::<Text>("forward");
    let (away, far) = builder.repartition("away", "g", decode);
    builder.processor("far", || Quiet).input(far).done();
    builder
        .processor("by-store", || Quiet)
        .input(a)
        .store(store)
        .done();
    builder.processor("other", || Quiet).input(d).done();
    builder.processor("by-source", || Quiet).input(c).done();
    builder
        .processor("hub", || Quiet)
        .input(b)
        .input(c)
        .store(store)
        .outlet(forward)
        .sink(away)
        .done();
    builder
        .processor("by-outlet", || Quiet)
        .input(forwarded)
        .done();
    let topology = Arc::new(builder.build().expect("the topology is sound"));
    let plan = plan(topology, &[("a", 1), ("b", 1), ("c", 1), ("d", 1)]);
    let description = plan.describe_json();
    let names = |subtopology: usize| -> Vec<&str> {
        let processors = description["subtopologies"][subtopology]["processors"]
            .as_array()
            .unwrap();
        processors
            .iter()
            .map(|processor| processor["name"].as_str().unwrap())
            .collect()
    };
    assert_eq!(names(0), ["far"]);
    assert_eq!(names(1), ["by-store", "by-source", "hub", "by-outlet"]);
    assert_eq!(names(2), ["other"]);
    assert_eq!(description["subtopologies"].as_array().unwrap().len(), 3);
}
