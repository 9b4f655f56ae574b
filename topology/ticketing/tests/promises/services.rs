//! The shape of the whole: groups, topics, and services that are run elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use turnstile_ticketing::topics::{EXPIRATION, ORDERS, PAYMENTS, TICKETS};
use turnstile_ticketing::{Service, topics};

use crate::world::World;

/// What each group reads of the contract's topics.
fn groups(world: &World) -> BTreeMap<String, BTreeSet<String>> {
    let plan = world.driver.plan();
    let read = plan.subscriptions().into_iter().map(|(group, read)| {
        let read = read.iter().map(ToString::to_string);
        (
            group.to_string(),
            read.filter(|topic| topics::ALL.contains(&topic.as_str()))
                .collect(),
        )
    });
    read.collect()
}

#[test]
fn there_are_exactly_the_six_documented_groups() {
    let expected = [
        ("expiration-orders", vec!["orders"]),
        ("orders-expiration", vec!["expiration"]),
        ("orders-payments", vec!["order-commands", "payments"]),
        ("orders-tickets", vec!["ticket-commands", "tickets"]),
        ("payments-orders", vec!["order-commands", "orders"]),
        ("tickets-orders", vec!["orders", "ticket-commands"]),
    ];
    let groups = groups(&World::new());
    let found: Vec<(&str, Vec<&str>)> = groups
        .iter()
        .map(|(group, read)| (group.as_str(), read.iter().map(String::as_str).collect()))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn each_service_runs_alone_in_its_own_groups() {
    for (service, expected) in [
        (Service::Tickets, vec!["tickets-orders"]),
        (
            Service::Orders,
            vec!["orders-expiration", "orders-payments", "orders-tickets"],
        ),
        (Service::Payments, vec!["payments-orders"]),
        (Service::Expiration, vec!["expiration-orders"]),
    ] {
        let world = World::of(&[service]);
        let found: Vec<String> = groups(&world).into_keys().collect();
        assert_eq!(found, expected, "{service}");
        assert_eq!(service.as_str().parse(), Ok(service));
    }
}

#[test]
fn internal_topics_are_named_after_the_application() {
    let world = World::new();
    for topic in world.driver.plan().internal_topics() {
        assert!(
            topic.name.starts_with(&world.driver.internal("")),
            "{}",
            topic.name
        );
        let ends = ["-changelog", "-repartition", "-dlq"];
        assert!(
            ends.iter().any(|end| topic.name.ends_with(end)),
            "{}",
            topic.name
        );
    }
}

#[test]
fn the_declaration_reads_like_the_contract() {
    insta::assert_snapshot!(World::new().ticketing.topology.describe_text());
}

#[test]
fn the_events_look_as_documented() {
    let mut world = World::new();
    world.create_ticket("t");
    world.order("t", "paid");
    world.pay("paid", "tok_visa");
    world.event(
        PAYMENTS,
        "paid",
        &crate::said::payment("succeeded", "paid", "second"),
    );
    for (order, end) in [
        ("declined", "pay"),
        ("cancelled", "cancel"),
        ("expired", "wait"),
    ] {
        world.create_ticket(&format!("for-{order}"));
        world.order(&format!("for-{order}"), order);
        match end {
            "pay" => drop(world.pay(order, "tok_chargeDeclined")),
            "cancel" => drop(world.cancel(order, "buyer")),
            _ => world.advance(std::time::Duration::from_mins(2)),
        }
    }
    let mut written = String::new();
    for topic in [TICKETS, ORDERS, PAYMENTS, EXPIRATION] {
        for record in world.driver.all(topic) {
            written += &format!("{topic} {}: {}\n", record.key_text(), record.value_text());
        }
    }
    insta::assert_snapshot!(written);
}
