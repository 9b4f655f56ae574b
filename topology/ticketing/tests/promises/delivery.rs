//! What foreign services really do, and ours live with.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use turnstile_engine::partitioner::partition_of;
use turnstile_ticketing::Service;
use turnstile_ticketing::topics::{
    self, EXPIRATION, ORDER_COMMANDS, ORDERS, PAYMENTS, TICKET_COMMANDS, TICKETS,
};

use crate::said::{
    IN_TWO_MINUTES, expired, order_cancel, order_create, order_created, payment, payment_create,
    ticket_create, with_id,
};
use crate::world::{World, partitions};

#[test]
fn an_order_is_under_id_or_under_order_id() {
    for field in ["id", "orderId"] {
        let mut world = World::of(&[Service::Tickets, Service::Payments, Service::Expiration]);
        world.create_ticket("t");
        let said = |mut event: Value| {
            let order = event["id"].take();
            event[field] = order;
            event
        };
        world.event(ORDERS, "o", &said(order_created("o", "t", IN_TWO_MINUTES)));
        assert_eq!(world.holders("t"), ["o"], "{field}");
        assert_eq!(world.driver.timers("expiration").len(), 1, "{field}");
        let command = world.pay("o", "tok_visa");
        assert_eq!(
            world.payment_answer("o", &command).unwrap().status(),
            201,
            "{field}"
        );
        let mut ended = json!({"type": "order.failed", "ticketId": "t", "version": 1});
        ended[field] = "o".into();
        world.event(ORDERS, "o", &ended);
        assert!(world.holders("t").is_empty(), "{field}");
        assert_eq!(world.driver.timers("expiration").len(), 0, "{field}");
    }
}

#[test]
fn in_payments_and_expiration_id_is_not_the_orders() {
    let mut world = World::of(&[Service::Orders]);
    let ticket = json!({"type": "ticket.created", "id": "t", "title": "a", "price": 1,
        "userId": "owner", "version": 0});
    world.event(TICKETS, "t", &ticket);
    world.order("t", "o");
    let mut created = payment("created", "o", "p");
    created["id"] = "payment".into();
    world.event(PAYMENTS, "o", &created);
    let mut time = expired("o");
    time["id"] = "timer".into();
    world.event(EXPIRATION, "o", &time);
    assert_eq!(
        world.types(ORDERS, "o"),
        ["created", "pending", "cancelled"]
    );
}

/// Plays a sale in which every record comes in every partition, under wrong keys or none.
fn sale_with_wrong_keys(world: &mut World, key: Option<&str>, partition: impl Fn(&str) -> i32) {
    let id = |command: Value, id: &str| with_id(command, id).to_string();
    let say = |world: &mut World, topic: &str, value: String| {
        world.astray(topic, partition(topic), key, &value);
    };
    say(world, TICKET_COMMANDS, id(ticket_create("t"), "1"));
    say(world, TICKET_COMMANDS, id(order_create("t", "o"), "2"));
    say(
        world,
        ORDER_COMMANDS,
        id(payment_create("o", "tok_visa"), "3"),
    );
    say(
        world,
        ORDERS,
        order_created("foreign", "t", IN_TWO_MINUTES).to_string(),
    );
    say(
        world,
        PAYMENTS,
        payment("succeeded", "o", "second").to_string(),
    );
    say(world, EXPIRATION, expired("o").to_string());
    say(world, ORDER_COMMANDS, id(order_cancel("o", "buyer"), "4"));
}

fn sale_went_well(world: &World) {
    assert_eq!(
        world.types(ORDERS, "o"),
        ["created", "pending", "completed", "refund_due"]
    );
    let refunded = world.last(PAYMENTS, "o");
    assert_eq!(
        (refunded.get("type"), refunded.get("paymentId")),
        (Some(&json!("payment.refunded")), Some(&json!("second")))
    );
    assert_eq!(world.holders("t"), ["o", "foreign"]);
    assert_eq!(world.reserved_for("t").as_deref(), Some("o"));
    assert_eq!(
        world.cancel_answer("o", "4").map(|answer| answer.status()),
        Some(409)
    );
    assert_eq!(world.versions(TICKETS, "t"), [0, 1, 2]);
    assert_eq!(world.driver.timers("expiration").len(), 1);
    assert!(world.dead_letters().is_empty());
}

#[test]
fn records_with_missing_or_wrong_keys_reach_the_owner_of_their_id() {
    for partition in 0..3 {
        for key in [None, Some("wrong")] {
            let mut world = World::new();
            sale_with_wrong_keys(&mut world, key, |_| partition);
            sale_went_well(&world);
        }
    }
}

#[test]
fn topics_may_have_different_numbers_of_partitions() {
    for odd in topics::ALL {
        let mut counts: BTreeMap<String, i32> = partitions(3);
        counts.insert(odd.to_owned(), 5);
        let mut world = World::on(&Service::ALL, &counts);
        let wrong = |topic: &str| partition_of(b"wrong", counts[topic]).0;
        sale_with_wrong_keys(&mut world, Some("wrong"), wrong);
        sale_went_well(&world);
    }
}

#[test]
fn what_is_written_lies_in_the_partition_of_its_key_by_murmur2() {
    let mut world = World::new();
    for n in 0..20 {
        world.create_ticket(&format!("t{n}"));
        world.order(&format!("t{n}"), &format!("o{n}"));
        world.pay(&format!("o{n}"), "tok_visa");
    }
    let mut seen = 0;
    for topic in [TICKETS, ORDERS, PAYMENTS] {
        for record in world.driver.all(topic) {
            assert_eq!(
                record.partition,
                partition_of(record.key.as_deref().unwrap(), 3)
            );
            seen += 1;
        }
    }
    assert_eq!(seen, 20 * (2 + 3 + 2));
}

#[test]
fn prices_pass_from_the_command_to_the_charge_digit_for_digit() {
    for price in ["0.1", "10.50", "9007199254740993", "0.30000000000000004"] {
        let mut world = World::new();
        let mut command = ticket_create("t").to_string();
        command = command
            .replace("10.5", price)
            .replace('{', "{\"commandId\":\"c\",");
        let valid = !price.starts_with("9007");
        world.astray(TICKET_COMMANDS, 0, None, &command);
        world.order("t", "o");
        for topic in [TICKETS, ORDERS] {
            for record in world.driver.all(topic) {
                let text = record.value_text();
                assert!(text.contains(&format!("\"price\":{price},")), "{text}");
            }
        }
        assert_eq!(world.read(ORDERS).len(), usize::from(valid), "{price}");
    }
}
