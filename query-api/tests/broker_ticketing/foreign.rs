//! Services that are run elsewhere, by other software: keys are missing or wrong,
//! partitions are random, everything is said twice.

use std::time::Duration;

use serde_json::{Value, json};
use turnstile_ticketing::topics::{EXPIRATION, ORDERS, PAYMENTS, TICKETS};

use crate::broker::{Broker, PARTITIONS};
use crate::eventually;
use crate::flow::{order, ticket, with_status};
use crate::instance::{Instance, Launch};
use crate::record::{kind, text};

/// Says something twice, in partitions that have nothing to do with it.
fn say(broker: &Broker, topic: &str, event: &Value, number: usize) {
    let value = event.to_string();
    for (time, key) in [None, Some(&b"wrong"[..])].into_iter().enumerate() {
        let partition = i32::try_from(number + time).expect("tests are short") % PARTITIONS;
        broker.append(topic, Some(partition), key, Some(value.as_bytes()));
    }
}

/// Waits until the ticket's events end with this holder, by version.
fn held(instance: &Instance, ticket: &str, holder: &str, version: u64) {
    eventually(&format!("{ticket} is held by {holder:?}"), || {
        let ticket = instance
            .client()
            .get(&format!("/api/tickets/{ticket}"))
            .ok(200);
        let now = (text(&ticket, "orderId"), ticket["version"].as_u64());
        (now == (holder, Some(version))).then_some(())
    });
}

#[test]
fn foreign_payments_with_null_keys_complete_and_fail_orders() {
    let broker = Broker::take();
    let instance = Launch::new(&broker, "a")
        .set("SERVICES", "tickets,orders,expiration")
        .start();
    let (seller, buyer) = (instance.user("seller"), instance.user("buyer"));
    let payment = |name: &str, order: &str| {
        let mut event = json!({"type": format!("payment.{name}"), "orderId": order, "paymentId": format!("p-{order}")});
        if name == "created" {
            event["id"] = "of the payment".into();
        }
        event
    };
    let mut sales = Vec::new();
    for number in 0..12 {
        let ticket = ticket(&seller, &format!("Row {number}"));
        let order = text(&order(&buyer, &ticket), "id").to_owned();
        let names = match number % 4 {
            0 => ["created", "succeeded"],
            1 => ["created", "failed"],
            2 => ["succeeded", "created"],
            _ => {
                buyer.delete(&format!("/api/orders/{order}")).ok(204);
                ["created", "succeeded"]
            }
        };
        for (step, name) in names.into_iter().enumerate() {
            say(&broker, PAYMENTS, &payment(name, &order), number + step);
        }
        sales.push((number, ticket, order));
    }
    broker.flush();
    for (number, ticket, order) in &sales {
        match number % 4 {
            1 => {
                with_status(&buyer, order, "failed");
                held(&instance, ticket, "", 2);
            }
            3 => {
                eventually("the refund is due", || {
                    let order = buyer.get(&format!("/api/orders/{order}")).ok(200);
                    (order["refundDue"] == true && order["status"] == "cancelled").then_some(())
                });
                held(&instance, ticket, "", 2);
            }
            _ => {
                with_status(&buyer, order, "completed");
                held(&instance, ticket, order, 1);
            }
        }
    }
    broker.drain();
    for (number, _, order) in &sales {
        let events = broker.events(ORDERS, order);
        let last = events.last().expect("it was created");
        let versions: Vec<_> = events
            .iter()
            .filter_map(|event| event["version"].as_u64())
            .collect();
        assert_eq!(
            versions,
            (0..).take(events.len()).collect::<Vec<_>>(),
            "{events:?}"
        );
        let end = [
            "order.completed",
            "order.failed",
            "order.completed",
            "order.refund_due",
        ];
        assert_eq!(kind(last), end[number % 4]);
        let once = events.iter().filter(|event| kind(event) == kind(last));
        assert_eq!(once.count(), 1);
    }
    // The route of a service that is not run here.
    let pay = json!({"orderId": "o", "token": "tok_visa"});
    buyer.post("/api/payments", &pay).problem(404);
    assert_eq!(broker.dead_letters(), []);
    instance.stop();
}

#[test]
fn foreign_orders_with_null_keys_reserve_expire_and_are_paid() {
    let broker = Broker::take();
    let instance = Launch::new(&broker, "a")
        .set("SERVICES", "tickets,payments,expiration")
        .start();
    let (seller, buyer) = (instance.user("seller"), instance.user("buyer"));
    let in_six_seconds = turnstile_engine::clock::now().plus(Duration::from_secs(6));
    let expires_at = turnstile_ticketing::iso8601(in_six_seconds);
    let mut sales = Vec::new();
    for number in 0..9 {
        let ticket = ticket(&seller, &format!("Row {number}"));
        let order = format!("5f0c{number:020x}");
        // Half of them name the order as the contract's `order.pending` does.
        let id = if number % 2 == 0 { "id" } else { "orderId" };
        let mut created = json!({"type": "order.created", "userId": "buyer", "ticketId": ticket, "price": 10.5,
            "status": "created", "expiresAt": expires_at, "version": 0});
        created[id] = order.clone().into();
        say(&broker, ORDERS, &created, number);
        sales.push((number, ticket, order));
    }
    broker.flush();
    for (number, ticket, order) in &sales {
        held(&instance, ticket, order, 1);
        let end = |name: &str| {
            json!({"type": format!("order.{name}"), "id": order, "ticketId": ticket, "userId": "buyer",
                "status": name, "version": 1})
        };
        match number % 3 {
            0 => {
                let pay = json!({"orderId": order, "token": "tok_visa"});
                buyer.post("/api/payments", &pay).ok(201);
                say(&broker, ORDERS, &end("completed"), *number);
            }
            1 => say(&broker, ORDERS, &end("cancelled"), *number),
            _ => {}
        }
    }
    broker.flush();
    for (number, ticket, order) in &sales {
        if number % 3 == 1 {
            held(&instance, ticket, "", 2);
        } else {
            held(&instance, ticket, order, 1);
        }
        if number % 3 == 2 {
            eventually("it expires", || {
                let expired = broker.events(EXPIRATION, order);
                (expired == [json!({"type": "expiration.expired", "orderId": order})]).then_some(())
            });
        }
    }
    broker.drain();
    assert_eq!(broker.read(EXPIRATION).len(), 3);
    assert_eq!(broker.read(PAYMENTS).len(), 6);
    assert_eq!(broker.read(TICKETS).len(), 9 + 9 + 3);
    assert_eq!(broker.dead_letters(), []);
    instance.stop();
}
