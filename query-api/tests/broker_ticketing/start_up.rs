//! What stops an instance from starting, and what does not.

use std::process::Command;

use serde_json::json;
use turnstile_ticketing::topics::{EXPIRATION, ORDER_COMMANDS, ORDERS, PAYMENTS, TICKETS};

use crate::audit::Audit;
use crate::broker::Broker;
use crate::flow::{order, ticket, with_status};
use crate::instance::{Launch, state_dir};
use crate::record::text;

#[test]
fn without_a_way_to_know_callers_nothing_starts() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ticketing"));
    let output = command
        .env_clear()
        .output()
        .expect("the binary can be started");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("JWT_KEY") && said.contains("--dev-auth"),
        "{said}"
    );
}

#[test]
fn a_state_directory_is_for_one_process() {
    let broker = Broker::take();
    let first = Launch::new(&broker, "a").start();
    let taken = state_dir(&broker, "a").display().to_string();
    let mut second = Launch::new(&broker, "b").set("STATE_DIR", &taken).spawn();
    assert_eq!(second.exit().code(), Some(1));
    assert!(second.log().contains(&taken), "{}", second.log());
    ticket(&first.user("seller"), "Concert");
    first.stop();
}

/// Kafka takes the newcomer for the one that has come back, and fences the other, which is not
/// to be started again.
#[test]
fn of_two_instances_with_one_id_only_one_goes_on() {
    let broker = Broker::take();
    let mut first = Launch::new(&broker, "a").start();
    let elsewhere = broker.folder().join("elsewhere").display().to_string();
    let launch = Launch::new(&broker, "a").set("STATE_DIR", &elsewhere);
    let second = launch.start();
    assert_eq!(first.exit().code(), Some(2));
    assert!(first.log().contains("an id of its own"), "{}", first.log());
    ticket(&second.user("seller"), "Concert");
    second.stop();
}

#[test]
fn a_broker_that_cannot_be_reached_is_named() {
    let broker = Broker::take();
    let nowhere = "127.0.0.1:1";
    let launch = Launch::new(&broker, "a")
        .set("KAFKA_BROKERS", nowhere)
        .set("REQUEST_TIMEOUT", "3s");
    let mut instance = launch.spawn();
    assert_eq!(instance.exit().code(), Some(1));
    let log = instance.log();
    let error = log.lines().rfind(|line| line.starts_with("ticketing: "));
    let error = error.unwrap_or_else(|| panic!("no error stands at the end of\n{log}"));
    assert!(error.contains(nowhere), "{error}");
}

#[test]
fn more_replicas_than_brokers_name_the_setting() {
    let broker = Broker::take();
    let launch = Launch::new(&broker, "a").set("REPLICATION_FACTOR", "100");
    let mut instance = launch.spawn();
    // Other brokers may be about to start.
    assert_eq!(instance.exit().code(), Some(1));
    let log = instance.log();
    assert!(log.contains("replication factor"), "{log}");
    assert!(!log.contains("see KAFKA_BROKERS"), "{log}");
}

#[test]
fn topics_with_other_partition_counts_are_rekeyed() {
    let broker = Broker::with_partitions(|topic| match topic {
        ORDERS => 5,
        PAYMENTS => 3,
        EXPIRATION | ORDER_COMMANDS => 1,
        TICKETS => 2,
        _ => 4,
    });
    let instance = Launch::new(&broker, "a").set("ORDER_TTL", "3s").start();
    let (seller, buyer) = (instance.user("seller"), instance.user("buyer"));
    for number in 0..10 {
        let id = ticket(&seller, &format!("Row {number}"));
        let paid = text(&order(&buyer, &id), "id").to_owned();
        let token = if number % 2 == 0 {
            "tok_visa"
        } else {
            "tok_chargeDeclined"
        };
        let answer = buyer.post("/api/payments", &json!({"orderId": paid, "token": token}));
        if number % 2 == 0 {
            answer.ok(201);
            with_status(&buyer, &paid, "completed");
        } else {
            answer.problem(402);
            with_status(&buyer, &paid, "failed");
            let expired = order(&buyer, &id);
            with_status(&buyer, text(&expired, "id"), "cancelled");
        }
    }
    let audit = Audit::at_the_end(&broker);
    audit.sound();
    audit.drained();
    assert_eq!(audit.count("order.completed"), 5);
    assert_eq!(audit.count("expiration.expired"), 5);
    instance.stop();
}
