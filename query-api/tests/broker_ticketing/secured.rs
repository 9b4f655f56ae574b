//! Brokers that want to know who connects, and allow him what is in `docs/operating.md`.

use turnstile_ticketing::topics;

use crate::broker::{Broker, GROUPS, PARTITIONS};
use crate::flow::{order, ticket};
use crate::instance::Launch;
use crate::own_broker::OwnBroker;

const USER: &str = "ticketing";
const PASSWORD: &str = "let-me-in";

fn properties(password: &str) -> String {
    format!(
        "security.protocol=sasl_plaintext,sasl.mechanisms=PLAIN,sasl.username={USER},sasl.password={password}"
    )
}

/// What principals need, row by row.
fn allow_what_is_documented(kafka: &OwnBroker) {
    const TOPIC: [&str; 10] = [
        "--operation",
        "Read",
        "--operation",
        "Write",
        "--operation",
        "Create",
        "--operation",
        "Describe",
        "--operation",
        "DescribeConfigs",
    ];
    const PREFIX: [&str; 2] = ["--resource-pattern-type", "prefixed"];
    let documented = topics::ALL.iter().flat_map(|topic| ["--topic", *topic]);
    kafka.allow(USER, &Vec::from_iter(documented.chain(TOPIC)));
    let internal = ["--topic", "ticketing-"].into_iter().chain(PREFIX);
    kafka.allow(USER, &Vec::from_iter(internal.chain(TOPIC)));
    let groups = GROUPS.iter().flat_map(|(group, _)| ["--group", *group]);
    kafka.allow(USER, &Vec::from_iter(groups.chain(["--operation", "Read"])));
    kafka.allow(
        USER,
        &["--group", "ticketing-unused", "--operation", "Describe"],
    );
    let transactions = ["--transactional-id", "ticketing-", "--operation", "Write"];
    kafka.allow(
        USER,
        &Vec::from_iter(transactions.into_iter().chain(PREFIX)),
    );
}

/// What an instance says at the end that cannot start.
fn refusal(launch: Launch<'_>) -> String {
    let mut instance = launch.set("REQUEST_TIMEOUT", "3s").spawn();
    assert_eq!(instance.exit().code(), Some(1));
    let log = instance.log();
    let error = log.lines().last().unwrap_or_default();
    assert!(!log.contains("let-me-"), "it tells a password: {log}");
    error.to_owned()
}

#[test]
fn who_logs_in_and_has_the_documented_rights_may_work_and_outlives_a_restart_of_the_broker() {
    let kafka = OwnBroker::for_user(&format!("{USER}:{PASSWORD}"));
    let broker = Broker::at(kafka.address(), |_| PARTITIONS);
    let address = kafka.address_for_users();
    let launch = |properties: &str| {
        let launch = Launch::new(&broker, "a").set("KAFKA_BROKERS", &address);
        launch.set("KAFKA_PROPERTIES", properties)
    };

    // What is wrong is told, and where it is set.
    let unknown = refusal(launch(&properties("let-me-out")));
    assert!(unknown.contains("Authentication failed"), "{unknown}");
    assert!(unknown.contains("KAFKA_PROPERTIES"), "{unknown}");
    let silent = refusal(launch(""));
    assert!(silent.contains("Disconnected"), "{silent}");
    assert!(silent.contains("KAFKA_PROPERTIES"), "{silent}");

    allow_what_is_documented(&kafka);
    let mut instance = launch(&properties(PASSWORD)).start();
    let (seller, buyer) = (instance.user("seller"), instance.user("buyer"));
    order(&buyer, &ticket(&seller, "Matinee"));
    // Clients that greet the broker as it goes down take that for a refusal.
    kafka.stop();
    kafka.run();
    instance.wait_until_ready();
    order(&buyer, &ticket(&seller, "Soiree"));
    let log = instance.log();
    assert!(!log.contains("uthorization"), "{log}");
    instance.stop();
}

#[test]
fn a_right_that_is_missing_is_told_with_what_it_is_of() {
    let kafka = OwnBroker::for_user(&format!("{USER}:{PASSWORD}"));
    let broker = Broker::at(kafka.address(), |_| PARTITIONS);
    let address = kafka.address_for_users();
    allow_what_is_documented(&kafka);
    kafka.deny(USER, &["--group", "orders-tickets", "--operation", "Read"]);
    let launch = Launch::new(&broker, "a").set("KAFKA_BROKERS", &address);
    let said = refusal(launch.set("KAFKA_PROPERTIES", &properties(PASSWORD)));
    assert!(said.contains("orders-tickets: "), "{said}");
    assert!(said.contains("GroupAuthorizationFailed"), "{said}");
}
