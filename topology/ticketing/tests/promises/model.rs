//! All promises at once, under whatever order of records, duplicates and crashes.
//!
//! A random sale runs step by step: any task may take its next record at any time,
//! commits and crashes come anywhere, subtopologies that no repartition topic joins
//! commit apart, every record may come again, and foreign payments come out of nowhere. The audit looks at the topics during and after it.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;
use turnstile_engine::SubtopologyId;
use turnstile_ticketing::Service;
use turnstile_ticketing::topics::{
    EXPIRATION, ORDER_COMMANDS, ORDERS, PAYMENTS, TICKET_COMMANDS, TICKETS,
};

use crate::audit::{Audit, Planted};
use crate::said::{
    order_cancel, order_create, payment, payment_create, ticket_create, ticket_update, with_id,
};
use crate::world::World;

const EVENT_TOPICS: [&str; 4] = [TICKETS, ORDERS, PAYMENTS, EXPIRATION];

#[derive(Debug, Clone)]
enum Act {
    CreateTicket(u8),
    EditTicket(u8),
    Order {
        ticket: u8,
        order: u8,
    },
    Cancel(u8),
    Pay {
        order: u8,
        token: &'static str,
    },
    /// A payment that another service made, or said to have made.
    ForeignPayment {
        order: u8,
        kind: &'static str,
    },
    /// A command that was sent before is sent again.
    SendAgain(Index),
    /// An event comes again.
    ComeAgain(Index, Index),
    /// So many records are processed, each by any task.
    Work(Vec<usize>),
    Commit,
    /// Those that commit with a subtopology begin to, without the others.
    BeginCommitOf(Index),
    FinishCommitOf(Index),
    Abort,
    Crash,
    Wait(u64),
}

fn act() -> impl Strategy<Value = Act> {
    let ticket = 0..3_u8;
    let order = 0..6_u8;
    let token = prop::sample::select(vec!["tok_visa", "tok_chargeDeclined", "tok_timeout"]);
    let kind = prop::sample::select(vec!["created", "succeeded", "failed"]);
    prop_oneof![
        2 => ticket.clone().prop_map(Act::CreateTicket),
        1 => ticket.clone().prop_map(Act::EditTicket),
        6 => (ticket, order.clone()).prop_map(|(ticket, order)| Act::Order { ticket, order }),
        2 => order.clone().prop_map(Act::Cancel),
        3 => (order.clone(), token).prop_map(|(order, token)| Act::Pay { order, token }),
        1 => (order, kind).prop_map(|(order, kind)| Act::ForeignPayment { order, kind }),
        1 => any::<Index>().prop_map(Act::SendAgain),
        2 => any::<(Index, Index)>().prop_map(|(topic, record)| Act::ComeAgain(topic, record)),
        12 => prop::collection::vec(any::<usize>(), 1..12).prop_map(Act::Work),
        3 => Just(Act::Commit),
        4 => any::<Index>().prop_map(Act::BeginCommitOf),
        2 => any::<Index>().prop_map(Act::FinishCommitOf),
        1 => Just(Act::Abort),
        1 => Just(Act::Crash),
        1 => (1..90_u64).prop_map(Act::Wait),
    ]
}

/// A sale, and what the test itself put into the topics of events.
struct Sale {
    world: World,
    planted: Planted,
    sent: Vec<(&'static str, String, Value)>,
    foreign: usize,
}

impl Sale {
    fn send(&mut self, topic: &'static str, key: String, command: Value) {
        let command = with_id(command, &format!("command-{}", self.sent.len()));
        self.world.append(topic, &key, &command);
        self.sent.push((topic, key, command));
    }

    fn plant(&mut self, topic: &'static str, key: &str, value: &[u8]) {
        let (partition, offset) = self.world.driver.pipe(topic, Some(key), Some(value));
        self.planted.insert((topic, partition, offset));
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::CreateTicket(ticket) => {
                let ticket = format!("t{ticket}");
                self.send(TICKET_COMMANDS, ticket.clone(), ticket_create(&ticket));
            }
            Act::EditTicket(ticket) => {
                let ticket = format!("t{ticket}");
                self.send(
                    TICKET_COMMANDS,
                    ticket.clone(),
                    ticket_update(&ticket, "owner"),
                );
            }
            Act::Order { ticket, order } => {
                let ticket = format!("t{ticket}");
                let command = order_create(&ticket, &format!("o{order}"));
                self.send(TICKET_COMMANDS, ticket, command);
            }
            Act::Cancel(order) => {
                let order = format!("o{order}");
                self.send(ORDER_COMMANDS, order.clone(), order_cancel(&order, "buyer"));
            }
            Act::Pay { order, token } => {
                let order = format!("o{order}");
                self.send(ORDER_COMMANDS, order.clone(), payment_create(&order, token));
            }
            Act::ForeignPayment { order, kind } => {
                self.foreign += 1;
                let order = format!("o{order}");
                let event = payment(kind, &order, &format!("foreign-{}", self.foreign));
                self.plant(PAYMENTS, &order, event.to_string().as_bytes());
            }
            Act::SendAgain(index) if !self.sent.is_empty() => {
                let (topic, key, command) = index.get(&self.sent).clone();
                self.world.append(topic, &key, &command);
            }
            Act::ComeAgain(topic, index) => {
                let topic = *topic.get(&EVENT_TOPICS);
                let records = self.world.driver.all(topic);
                if !records.is_empty() {
                    let record = index.get(&records).clone();
                    self.plant(topic, &record.key_text(), record.value_text().as_bytes());
                }
            }
            Act::Work(choices) => {
                for choice in choices {
                    self.world.driver.step(choice).expect("no task stops");
                }
            }
            Act::Wait(seconds) => {
                let later = self.world.driver.now().plus(Duration::from_secs(seconds));
                self.world.driver.set_now(later);
                self.world.driver.fire_due().expect("no task stops");
            }
            Act::Commit => self.world.driver.commit(),
            Act::BeginCommitOf(index) => {
                let subtopology = self.subtopology(index);
                self.world.driver.finish_commit_of(subtopology);
                self.world.driver.begin_commit_of(subtopology);
            }
            Act::FinishCommitOf(index) => {
                self.world.driver.finish_commit_of(self.subtopology(index));
            }
            Act::Abort => self.world.driver.abort(),
            Act::Crash => self.world.crash(),
            Act::SendAgain(_) => {}
        }
    }

    fn subtopology(&self, index: Index) -> SubtopologyId {
        index.get(&self.world.driver.plan().tasks()).subtopology
    }
}

proptest! {
    #[test]
    fn the_promises_hold_under_any_order_of_records_duplicates_and_crashes(
        acts in prop::collection::vec(act(), 1..120),
    ) {
        let (world, planted) = (World::of(&Service::ALL), Planted::new());
        let mut sale = Sale { world, planted, sent: Vec::new(), foreign: 0 };
        for act in acts {
            sale.act(act);
        }
        Audit::of(&sale.world, &sale.planted);

        sale.world.run();
        Audit::of(&sale.world, &sale.planted).drained(&sale.world);

        // The charges are answered, and nobody waits for an order any more.
        sale.world.advance(Duration::from_secs(5));
        Audit::of(&sale.world, &sale.planted).drained(&sale.world);
        for (topic, key, command) in &sale.sent {
            let status = sale.world.status_of(topic, key, command);
            prop_assert!(status.is_some(), "no outcome of {command}");
        }

        sale.world.advance(Duration::from_mins(2));
        let audit = Audit::of(&sale.world, &sale.planted);
        audit.drained(&sale.world);
        audit.finished();

        // A day later nothing is left but what has to stay, and nothing was lost.
        sale.world.advance(Duration::from_hours(25));
        for processor in ["tickets", "reservations", "life-cycle", "payments", "expiration"] {
            prop_assert_eq!(sale.world.driver.timers(processor), []);
        }
        let orders = audit.orders();
        let lost = sale.planted.iter().filter_map(|(topic, partition, offset)| {
            let records = sale.world.driver.all(topic).into_iter();
            let mut same = records.filter(|r| r.partition == *partition && r.offset == *offset);
            let record = same.next().expect("it was planted");
            let parks = [PAYMENTS, EXPIRATION].contains(topic);
            let refunded = record.value_text().contains("payment.refunded");
            let is_lost = parks && !refunded && !orders.contains(record.key_text().as_str());
            is_lost.then(|| record.value_text())
        });
        // What comes twice is lost once.
        let lost: BTreeSet<String> = lost.collect();
        prop_assert_eq!(sale.world.dead_letters().len(), lost.len());
    }
}
