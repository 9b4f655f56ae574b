//! Timers that are pending when an instance stops.

use std::collections::BTreeSet;
use std::time::Duration;

use turnstile_ticketing::topics::EXPIRATION;

use crate::audit::Audit;
use crate::broker::Broker;
use crate::flow::{order, ticket};
use crate::instance::{Instance, Launch, lose_state};
use crate::pause;
use crate::record::text;

/// Makes some orders that nobody pays.
fn orders(instance: &Instance, count: usize) -> Vec<String> {
    let (seller, buyer) = (instance.user("seller"), instance.user("buyer"));
    let numbers = 0..count;
    let tickets = numbers.map(|number| ticket(&seller, &format!("Row {number}")));
    tickets
        .map(|ticket| text(&order(&buyer, &ticket), "id").to_owned())
        .collect()
}

#[test]
fn pending_timers_fire_after_a_restart_late_rather_than_never_none_early_none_twice() {
    let broker = Broker::take();
    let launch = || Launch::new(&broker, "a").set("ORDER_TTL", "8s");

    // The time of the first ones is over before an instance with empty hands comes back.
    let instance = launch().start();
    let late = orders(&instance, 12);
    instance.kill();
    pause(Duration::from_secs(9));
    assert_eq!(broker.read(EXPIRATION), [], "nobody was there to fire them");
    lose_state(&broker, "a");

    // That of the second ones is over after the instance is back.
    let instance = launch().start();
    let in_time = orders(&instance, 12);
    instance.stop();
    let instance = launch().start();
    let audit = Audit::at_the_end(&broker);
    audit.sound();
    audit.drained();
    let expired: BTreeSet<String> = broker
        .read(EXPIRATION)
        .iter()
        .map(|record| record.key_text())
        .collect();
    assert_eq!(expired, late.into_iter().chain(in_time).collect());
    instance.stop();
}
