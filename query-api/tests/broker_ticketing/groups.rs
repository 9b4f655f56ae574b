//! The consumer groups, as stock tools show them.

use std::collections::BTreeSet;

use serde_json::json;
use turnstile_ticketing::topics;

use crate::broker::{Broker, GROUPS, PARTITIONS};
use crate::eventually;
use crate::flow::{order, ticket};
use crate::instance::Launch;
use crate::record::text;

/// The command topics are read within a group of the service that decides them.
const COMMAND_READERS: [(&str, &str); 4] = [
    (topics::TICKETS_ORDERS, topics::TICKET_COMMANDS),
    (topics::ORDERS_TICKETS, topics::TICKET_COMMANDS),
    (topics::ORDERS_PAYMENTS, topics::ORDER_COMMANDS),
    (topics::PAYMENTS_ORDERS, topics::ORDER_COMMANDS),
];

#[test]
fn there_are_the_six_groups_of_the_contract_and_when_idle_they_have_no_lag() {
    let broker = Broker::take();
    let before = broker.groups();
    let instance = Launch::new(&broker, "a").start();
    let (seller, buyer) = (instance.user("seller"), instance.user("buyer"));
    for number in 0..20 {
        let ticket = ticket(&seller, &format!("Row {number}"));
        let order = order(&buyer, &ticket);
        let order = text(&order, "id");
        match number % 3 {
            0 => buyer
                .post(
                    "/api/payments",
                    &json!({"orderId": order, "token": "tok_visa"}),
                )
                .ok(201),
            1 => buyer.delete(&format!("/api/orders/{order}")).ok(204),
            _ => json!(null),
        };
    }
    for number in 0..20 {
        let expired = json!({"type": "expiration.expired", "orderId": format!("o{number}")});
        broker.send(topics::EXPIRATION, &format!("o{number}"), &expired);
    }
    broker.flush();

    let six: BTreeSet<String> = GROUPS
        .iter()
        .map(|(group, _)| (*group).to_owned())
        .collect();
    let added: BTreeSet<String> = broker.groups().difference(&before).cloned().collect();
    assert_eq!(added, six);
    for (group, topic) in GROUPS.into_iter().chain(COMMAND_READERS) {
        let what = format!("{group} has read all of {topic}");
        let mut last = Vec::new();
        eventually(&what, || {
            let lag = broker.lag(group);
            let lags: Vec<Option<i64>> = (0..PARTITIONS)
                .map(|partition| lag.get(&(topic.to_owned(), partition)).copied())
                .collect();
            if lags != last {
                println!("{group} {topic}: {lags:?}");
                last.clone_from(&lags);
            }
            lags.iter().all(|lag| *lag == Some(0)).then_some(())
        });
    }
    instance.stop();
}
