//! How topologies are shown.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use turnstile_engine::{ErrorPolicy, Plan, PunctuationType, Store, Topology, TopologyBuilder};

use super::{Quiet, Send, Text, decode, keyed_source, partitions, source};

/// Letters about invoices that are not paid in time, with everything a topology can have.
fn reminders() -> Topology {
    let mut builder = TopologyBuilder::new();
    let invoices = builder.source(source("invoices", "ledger"));
    let payments = keyed_source("payments", "ledger-payments", "payments-by-invoice");
    let payments = builder.source(payments.on_error(ErrorPolicy::Stop));
    let open: Store<String, u64> = builder.store("open-invoices");
    let (late_outlet, late) = builder.outlet::<Text>("late");
    let (to_customer, by_customer) = builder.repartition("late-by-customer", "customers", decode);
    let debts: Store<String, u64> = builder.store("debts");
    let letters = builder.sink::<Text>("letters");
    builder
        .processor("ledger", || Quiet)
        .input(invoices)
        .input(payments)
        .store(open)
        .timers()
        .outlet(late_outlet)
        .done();
    builder
        .processor("reminder", || Quiet)
        .input(late)
        .sink(letters)
        .sink(to_customer)
        .done();
    builder
        .processor("customer", || Quiet)
        .input(by_customer)
        .store(debts)
        .punctuate(PunctuationType::WallClockTime, Duration::from_secs(90))
        .punctuate(PunctuationType::StreamTime, Duration::from_millis(1500))
        .sink(letters)
        .done();
    builder.build().expect("the topology is sound")
}

fn plan(payments: i32) -> Plan {
    let counts = partitions(&[("invoices", 2), ("payments", payments), ("letters", 1)]);
    Arc::new(reminders())
        .resolve("dunning", &counts)
        .expect("the topology fits the cluster")
}

#[test]
fn a_declaration_as_text() {
    insta::assert_snapshot!(reminders().describe_text(), @r"
    Topology

    Subtopology 0
      Source invoices (group ledger, on error: dead-letter)
        --> ledger
      Source payments (group ledger-payments, on error: stop)
        --> ledger
        --> topic payments-by-invoice-repartition (misplaced records, by their id)
      Processor ledger (stores: open-invoices; timers: ledger-timers)
        <-- topic invoices, topic payments
        --> reminder (late)
      Processor reminder
        <-- ledger
        --> topic letters
        --> topic late-by-customer-repartition
      Store open-invoices (changelog stores-changelog)
      Store ledger-timers (changelog stores-changelog)

    Subtopology 1
      Source late-by-customer-repartition (group customers, on error: dead-letter)
        --> customer
      Processor customer (stores: debts; punctuator: every 90s of wall-clock time; punctuator: every 1.5s of stream time)
        <-- topic late-by-customer-repartition
        --> topic letters
      Store debts (changelog stores-changelog)
    ");
}

#[test]
fn the_declaration_of_an_application_has_the_names_of_its_internal_topics() {
    let anonymous = reminders().describe_text();
    let text = reminders().describe_text_of("dunning");
    assert!(text.starts_with("Topology of dunning\n"), "{text}");
    for name in [
        "payments-by-invoice-repartition",
        "late-by-customer-repartition",
        "stores-changelog",
    ] {
        let named = text.matches(&format!("dunning-{name}")).count();
        assert_eq!(named, anonymous.matches(name).count(), "{name} in\n{text}");
    }
}

#[test]
fn a_plan_as_text() {
    insta::assert_snapshot!(plan(2).describe_text(), @r"
    Topology of dunning

    Subtopology 0 (2 tasks, 0_0 to 0_1)
      Commits with subtopology 1
      Source invoices (group ledger, on error: dead-letter)
        --> ledger
      Source payments (group ledger-payments, on error: stop)
        --> ledger
        --> topic dunning-payments-by-invoice-repartition (misplaced records, by their id)
      Source dunning-payments-by-invoice-repartition (group ledger-payments, on error: stop)
        --> ledger
      Processor ledger (stores: open-invoices; timers: ledger-timers)
        <-- topic invoices, topic payments, topic dunning-payments-by-invoice-repartition
        --> reminder (late)
      Processor reminder
        <-- ledger
        --> topic letters
        --> topic dunning-late-by-customer-repartition
      Store open-invoices (changelog dunning-stores-changelog)
      Store ledger-timers (changelog dunning-stores-changelog)
      Store ledger-timers-by-key (derived)

    Subtopology 1 (2 tasks, 1_0 to 1_1)
      Commits with subtopology 0
      Source dunning-late-by-customer-repartition (group customers, on error: dead-letter)
        --> customer
      Processor customer (stores: debts; punctuator: every 90s of wall-clock time; punctuator: every 1.5s of stream time)
        <-- topic dunning-late-by-customer-repartition
        --> topic letters
      Store debts (changelog dunning-stores-changelog)

    Topics
      dunning-dlq (dead-letters, 2 partitions)
      dunning-late-by-customer-repartition (repartition, 2 partitions)
      dunning-payments-by-invoice-repartition (repartition, 2 partitions)
      dunning-stores-changelog (changelog, 2 partitions)
      invoices (external, 2 partitions)
      letters (external, 1 partition)
      payments (external, 2 partitions)
    ");
}

#[test]
fn a_plan_that_rekeys_a_topic_as_text() {
    insta::assert_snapshot!(plan(1).describe_text(), @r"
    Topology of dunning

    Subtopology 0 (2 tasks, 0_0 to 0_1)
      Commits with subtopology 1, 2
      Source invoices (group ledger, on error: dead-letter)
        --> ledger
      Source dunning-payments-by-invoice-repartition (group ledger-payments, on error: stop)
        --> ledger
      Processor ledger (stores: open-invoices; timers: ledger-timers)
        <-- topic invoices, topic dunning-payments-by-invoice-repartition
        --> reminder (late)
      Processor reminder
        <-- ledger
        --> topic letters
        --> topic dunning-late-by-customer-repartition
      Store open-invoices (changelog dunning-stores-changelog)
      Store ledger-timers (changelog dunning-stores-changelog)
      Store ledger-timers-by-key (derived)

    Subtopology 1 (2 tasks, 1_0 to 1_1)
      Commits with subtopology 0, 2
      Source dunning-late-by-customer-repartition (group customers, on error: dead-letter)
        --> customer
      Processor customer (stores: debts; punctuator: every 90s of wall-clock time; punctuator: every 1.5s of stream time)
        <-- topic dunning-late-by-customer-repartition
        --> topic letters
      Store debts (changelog dunning-stores-changelog)

    Subtopology 2 (task 2_0)
      Commits with subtopology 0, 1
      Source payments (group ledger-payments, on error: stop)
        --> topic dunning-payments-by-invoice-repartition (all records, by their id)

    Topics
      dunning-dlq (dead-letters, 2 partitions)
      dunning-late-by-customer-repartition (repartition, 2 partitions)
      dunning-payments-by-invoice-repartition (repartition, 2 partitions)
      dunning-stores-changelog (changelog, 2 partitions)
      invoices (external, 2 partitions)
      letters (external, 1 partition)
      payments (external, 1 partition)
    ");
}

#[test]
fn a_plan_as_json() {
    let expected = json!({
        "application_id": "dunning",
        "subtopologies": [
            {
                "id": 0,
                "tasks": ["0_0", "0_1"],
                "sources": [
                    { "topic": "invoices", "group": "ledger", "on_error": "dead-letter", "rekeys": null, "to": ["ledger"] },
                    {
                        "topic": "dunning-payments-by-invoice-repartition",
                        "group": "ledger-payments",
                        "on_error": "stop",
                        "rekeys": null,
                        "to": ["ledger"],
                    },
                ],
                "processors": [
                    {
                        "name": "ledger",
                        "from": [{ "topic": "invoices" }, { "topic": "dunning-payments-by-invoice-repartition" }],
                        "stores": ["open-invoices"],
                        "timers": "ledger-timers",
                        "punctuators": [],
                        "forwards": [{ "outlet": "late", "to": ["reminder"] }],
                        "sends": [],
                    },
                    {
                        "name": "reminder",
                        "from": [{ "processor": "ledger" }],
                        "stores": [],
                        "timers": null,
                        "punctuators": [],
                        "forwards": [],
                        "sends": ["letters", "dunning-late-by-customer-repartition"],
                    },
                ],
                "stores": [
                    { "name": "open-invoices", "changelog": "dunning-stores-changelog" },
                    { "name": "ledger-timers", "changelog": "dunning-stores-changelog" },
                    { "name": "ledger-timers-by-key", "changelog": null },
                ],
            },
            {
                "id": 1,
                "tasks": ["1_0", "1_1"],
                "sources": [{
                    "topic": "dunning-late-by-customer-repartition",
                    "group": "customers",
                    "on_error": "dead-letter",
                    "rekeys": null,
                    "to": ["customer"],
                }],
                "processors": [{
                    "name": "customer",
                    "from": [{ "topic": "dunning-late-by-customer-repartition" }],
                    "stores": ["debts"],
                    "timers": null,
                    "punctuators": [
                        { "clock": "wall-clock", "every_ms": 90_000 },
                        { "clock": "stream", "every_ms": 1_500 },
                    ],
                    "forwards": [],
                    "sends": ["letters"],
                }],
                "stores": [{ "name": "debts", "changelog": "dunning-stores-changelog" }],
            },
            {
                "id": 2,
                "tasks": ["2_0"],
                "sources": [{
                    "topic": "payments",
                    "group": "ledger-payments",
                    "on_error": "stop",
                    "rekeys": { "records": "all", "through": "dunning-payments-by-invoice-repartition" },
                    "to": [],
                }],
                "processors": [],
                "stores": [],
            },
        ],
        "topics": [
            { "name": "dunning-dlq", "partitions": 2, "kind": "dead-letters" },
            { "name": "dunning-late-by-customer-repartition", "partitions": 2, "kind": "repartition" },
            { "name": "dunning-payments-by-invoice-repartition", "partitions": 2, "kind": "repartition" },
            { "name": "dunning-stores-changelog", "partitions": 2, "kind": "changelog" },
            { "name": "invoices", "partitions": 2, "kind": "external" },
            { "name": "letters", "partitions": 1, "kind": "external" },
            { "name": "payments", "partitions": 1, "kind": "external" },
        ],
    });
    // Compared as values: the order of keys in a text is up to the features of serde_json.
    assert_eq!(plan(1).describe_json(), expected);
}

#[test]
fn a_plan_as_dot() {
    insta::assert_snapshot!(plan(1).describe_dot(), @r#"
    digraph topology {
      rankdir=LR; ranksep=0.6; nodesep=0.35;
      node [fontname="Helvetica", fontsize=12, style=filled, fillcolor=white];
      edge [fontname="Helvetica", fontsize=10];
      "topic dunning-late-by-customer-repartition" [shape=box, fillcolor=lightgrey, label="dunning-late-by-customer-repartition\n2 partitions"];
      "topic dunning-payments-by-invoice-repartition" [shape=box, fillcolor=lightgrey, label="dunning-payments-by-invoice-repartition\n2 partitions"];
      "topic invoices" [shape=box, fillcolor=lightblue, label="invoices\n2 partitions"];
      "topic letters" [shape=box, fillcolor=lightblue, label="letters\n1 partition"];
      "topic payments" [shape=box, fillcolor=lightblue, label="payments\n1 partition"];
      subgraph cluster_0 {
        label="Subtopology 0, 2 tasks"; fontname="Helvetica"; style=rounded; color=grey;
        "processor ledger" [shape=ellipse, label="ledger"];
        "processor reminder" [shape=ellipse, label="reminder"];
        "store open-invoices" [shape=cylinder, fillcolor=lightyellow, label="open-invoices"];
        "store ledger-timers" [shape=cylinder, fillcolor=lightyellow, label="ledger-timers"];
      }
      subgraph cluster_1 {
        label="Subtopology 1, 2 tasks"; fontname="Helvetica"; style=rounded; color=grey;
        "processor customer" [shape=ellipse, label="customer\nevery 90s of wall-clock time\nevery 1.5s of stream time"];
        "store debts" [shape=cylinder, fillcolor=lightyellow, label="debts"];
      }
      subgraph cluster_2 {
        label="Subtopology 2, 1 task"; fontname="Helvetica"; style=rounded; color=grey;
        "re-key payments" [shape=ellipse, style=dashed, label="re-key"];
      }
      "topic invoices" -> "processor ledger" [label="ledger"];
      "topic dunning-payments-by-invoice-repartition" -> "processor ledger" [label="ledger-payments"];
      "processor ledger" -> "processor reminder" [label="late"];
      "processor ledger" -> "store open-invoices" [dir=none, style=dotted];
      "processor ledger" -> "store ledger-timers" [dir=none, style=dotted];
      "processor reminder" -> "topic dunning-late-by-customer-repartition";
      "processor reminder" -> "topic letters";
      "topic dunning-late-by-customer-repartition" -> "processor customer" [label="customers"];
      "processor customer" -> "topic letters";
      "processor customer" -> "store debts" [dir=none, style=dotted];
      "topic payments" -> "re-key payments" [label="ledger-payments"];
      "re-key payments" -> "topic dunning-payments-by-invoice-repartition";
    }
    "#);
}

#[test]
fn a_topic_that_is_read_directly_has_a_dashed_way_for_misplaced_records_in_dot() {
    let dot = plan(2).describe_dot();
    let from: Vec<&str> = dot
        .lines()
        .map(str::trim)
        .filter(|line| line.contains(r#""topic payments" ->"#))
        .collect();
    insta::assert_snapshot!(from.join("\n"), @r#"
    "topic payments" -> "processor ledger" [label="ledger-payments"];
    "topic payments" -> "topic dunning-payments-by-invoice-repartition" [style=dashed, label="misplaced"];
    "#);
}

#[test]
fn texts_of_foreign_names_are_quoted_in_dot() {
    let mut builder = TopologyBuilder::new();
    let stream = builder.source(source("topic", r#"a "quoted\ group"#));
    builder.processor("count", || Quiet).input(stream).done();
    let topology = Arc::new(builder.build().expect("the topology is sound"));
    let plan = topology
        .resolve("app", &partitions(&[("topic", 1)]))
        .expect("it fits");
    let dot = plan.describe_dot();
    let edge = r#""topic topic" -> "processor count" [label="a \"quoted\\ group"];"#;
    assert!(dot.lines().any(|line| line.trim() == edge), "{dot}");
}

/// A chain of two repartition topics behind sources with these policies.
fn chain(policies: [ErrorPolicy; 2]) -> Topology {
    let mut builder = TopologyBuilder::new();
    let (first, from_first) = builder.repartition("first", "chain", decode);
    let (second, from_second) = builder.repartition("second", "chain", decode);
    for (topic, policy) in ["a", "b"].into_iter().zip(policies) {
        let stream = builder.source(source(topic, "chain").on_error(policy));
        let send = builder.processor(topic, move || Send(first));
        send.input(stream).sink(first).done();
    }
    let pass = builder.processor("pass", move || Send(second));
    pass.input(from_first).sink(second).done();
    builder
        .processor("last", || Quiet)
        .input(from_second)
        .done();
    builder.build().expect("the topology is sound")
}

#[test]
fn a_repartition_topic_is_read_as_strictly_as_what_is_behind_it() {
    use ErrorPolicy::{DeadLetter, Stop};
    for (policies, stop) in [
        ([Stop, Stop], 4),
        ([Stop, DeadLetter], 1),
        ([DeadLetter, DeadLetter], 0),
    ] {
        let text = chain(policies).describe_text();
        assert_eq!(text.matches("on error: stop").count(), stop, "{text}");
    }
}

#[test]
fn instances_may_differ_in_how_they_handle_errors_and_how_often_they_punctuate() {
    let plan = |policy, interval, name: &str| {
        let mut builder = TopologyBuilder::new();
        let stream = builder.source(source("a", "g").on_error(policy));
        let processor = builder.processor(name, || Quiet).input(stream);
        let every = Duration::from_secs(interval);
        processor
            .punctuate(PunctuationType::WallClockTime, every)
            .done();
        let topology = Arc::new(builder.build().expect("the topology is sound"));
        let plan = topology.resolve("app", &partitions(&[("a", 4)]));
        plan.expect("it fits").fingerprint()
    };
    let one = plan(ErrorPolicy::Stop, 1, "p");
    assert_eq!(plan(ErrorPolicy::DeadLetter, 2, "p"), one);
    assert_ne!(plan(ErrorPolicy::Stop, 1, "q"), one);
}
