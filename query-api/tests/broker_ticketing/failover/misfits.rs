//! What does not fit: a foreign member in a group, a topic that grew. It is said, and
//! nothing is written by two.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use turnstile_ticketing::topics;

use crate::broker::Broker;
use crate::failover::{CALM, SetOnDrop, launch, under_load};
use crate::{eventually, pause};

/// The value of a metric without labels.
fn metric(instance: &crate::instance::Instance, name: &str) -> f64 {
    let metrics = instance.client().get("/metrics").text;
    let line = metrics
        .lines()
        .find(|line| line.starts_with(&format!("{name} ")));
    let line = line.unwrap_or_else(|| panic!("there is no metric {name}"));
    let value = line.rsplit(' ').next().and_then(|value| value.parse().ok());
    value.expect("a metric has a number")
}

/// A member that reads `payments` in `orders-payments` as well, until it is told to leave.
fn foreign_member(addresses: &str, leave: &AtomicBool) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", addresses)
        .set("group.id", topics::ORDERS_PAYMENTS)
        .set("partition.assignment.strategy", "range")
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer can be made");
    consumer
        .subscribe(&[topics::PAYMENTS])
        .expect("the topic exists");
    while !leave.load(Ordering::Relaxed) {
        // What it reads it never commits.
        drop(consumer.poll(Duration::from_millis(100)));
    }
}

#[test]
fn a_foreign_member_in_a_group_is_noticed_and_nothing_is_written_by_two() {
    let broker = Broker::take();
    let instance = launch(&broker, "a").start();
    let all = instance.running();
    under_load(&broker, || {
        pause(CALM);
        let leave = AtomicBool::new(false);
        std::thread::scope(|threads| {
            let stop = SetOnDrop(&leave);
            threads.spawn(|| foreign_member(broker.addresses(), &leave));
            eventually("it says so", || {
                let health = instance.health()?;
                let said = health.status == 503 && health.text.contains("foreign member");
                (said && metric(&instance, "turnstile_tasks_held_in_part") > 0.0).then_some(())
            });
            assert!(
                instance.log().contains("foreign member"),
                "the log says nothing"
            );
            drop(stop);
        });
        eventually("all tasks run again", || {
            (instance.running() == all).then_some(())
        });
    });
    instance.stop();
}

#[test]
fn a_topic_that_grows_stops_the_instance_before_keys_are_split() {
    let broker = Broker::take();
    let mut instance = launch(&broker, "a").start();
    broker.enlarge(topics::TICKETS, 6);
    let status = instance.exit();
    assert_ne!(status.code(), Some(0));
    let log = instance.log();
    assert!(
        log.contains("topic tickets has got more partitions"),
        "{log}"
    );
    // Nor does it start again on what does not fit together.
    let mut again = launch(&broker, "a").spawn();
    assert_ne!(again.exit().code(), Some(0));
    assert!(again.log().contains("partition"), "{}", again.log());
}
