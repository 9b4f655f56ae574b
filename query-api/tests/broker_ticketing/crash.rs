//! `kill -9` under load: nothing is lost and nothing comes twice.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use uuid::Uuid;

use crate::audit::Audit;
use crate::broker::Broker;
use crate::instance::{Instance, Launch, lose_state};
use crate::load::Load;
use crate::record::text;
use crate::{outside, pause};

const TICKETS: usize = 1500;
const KILLS: usize = 6;

/// A moment from 1 to 4 s, another one each time.
pub(crate) fn a_while() -> Duration {
    let random = Uuid::new_v4().as_u64_pair().0;
    Duration::from_millis(1000 + random % 3000)
}

#[test]
fn killed_under_load_with_and_without_its_state_nothing_is_lost_or_doubled() {
    let broker = Broker::take();
    let launch = || Launch::new(&broker, "a").set("ORDER_TTL", "4s");
    let mut instance = launch().start();
    let never = AtomicBool::new(false);
    let (instance, tickets) = std::thread::scope(|threads| {
        let load = Load::new(&broker, "crash", TICKETS);
        let load = threads.spawn(|| load.send(Duration::from_millis(15), &never));
        let more = threads.spawn(|| load_from_outside(broker.addresses()));
        for kill in 0..KILLS {
            let after = a_while();
            pause(after);
            println!("kill {kill} after {after:?}");
            instance.kill();
            if kill % 2 == 1 {
                lose_state(&broker, "a");
            }
            // Some are killed again while they restore.
            instance = launch().spawn();
        }
        instance.wait_until_ready();
        more.join().expect("the load from outside is sent");
        (instance, load.join().expect("the load is sent"))
    });
    verify(&broker, &tickets);
    stores_agree(&instance, &Audit::of(&broker));
    instance.stop();
}

/// Races for some tickets, and orders, payments and cancellations, if there is a generator.
fn load_from_outside(addresses: &str) {
    let steps = [
        "tickets --n 400 --rate 200",
        "orders --n 400 --rate 200 --repeat 2",
        "pay --n 200 --rate 100 --decline-every 5 --repeat 2",
        "cancel --n 150 --from 150 --rate 100",
        "race --tickets 100 --contenders 4 --from 100 --rate 100",
    ];
    for step in steps {
        let step: Vec<&str> = step.split(' ').collect();
        if !outside::load(addresses, &step) {
            return;
        }
    }
}

/// Waits until every order has ended, and checks what is in the topics.
pub(crate) fn verify(broker: &Broker, tickets: &[String]) {
    let audit = Audit::at_the_end(broker);
    for kind in [
        "ticket.created",
        "order.created",
        "order.completed",
        "order.failed",
        "order.cancelled",
        "order.refund_due",
        "payment.failed",
        "expiration.expired",
    ] {
        println!("{kind}: {}", audit.count(kind));
    }
    audit.sound();
    audit.drained();
    // Every ticket was made, and given to somebody.
    let (made, wanted) = (audit.tickets(), audit.orders_by_ticket());
    for ticket in tickets {
        assert!(made.contains_key(ticket.as_str()), "{ticket} is lost");
        assert!(
            wanted.contains_key(ticket.as_str()),
            "{ticket} was given to nobody"
        );
    }
    assert_eq!(broker.dead_letters(), []);
    outside::check(broker, &["--drained", "--finished"]);
}

/// What the stores say is what the topics say.
pub(crate) fn stores_agree(instance: &Instance, audit: &Audit) {
    let nobody = instance.client();
    let listed = nobody.list("/api/tickets", 200);
    let published = audit.tickets();
    assert_eq!(listed.len(), published.len());
    for ticket in &listed {
        let event = published[text(ticket, "id")];
        assert_eq!(ticket["version"], event["version"], "{ticket} {event}");
        assert_eq!(
            text(ticket, "orderId"),
            text(event, "orderId"),
            "{ticket} {event}"
        );
    }
    let orders = audit.orders();
    let mut seen = 0;
    for buyer in ["buyer-0", "buyer-1", "buyer-2"] {
        for order in instance.user(buyer).list("/api/orders", 200) {
            let event = orders[text(&order, "id")];
            assert_eq!(order["version"], event["version"], "{order} {event}");
            seen += 1;
        }
    }
    let mine = orders.keys().filter(|order| order.starts_with("crash-"));
    assert_eq!(seen, mine.count());
}
