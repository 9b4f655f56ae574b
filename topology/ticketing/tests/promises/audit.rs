//! The invariants of the wire contract, checked from outside: on nothing but what lies
//! in the topics, and at the end on what the stores say about the same.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use turnstile_engine::driver::LogRecord;
use turnstile_engine::{Offset, Partition};
use turnstile_ticketing::price::{Amount, Price};
use turnstile_ticketing::topics::{EXPIRATION, ORDERS, PAYMENTS, TICKETS};

use crate::world::World;

/// A record that the test repeated or made up: no word of our services.
pub(crate) type Planted = BTreeSet<(&'static str, Partition, Offset)>;

/// What our services said about the orders, tickets and payments.
pub(crate) struct Audit {
    orders: BTreeMap<String, Vec<Value>>,
    tickets: BTreeMap<String, Vec<Value>>,
    payments: BTreeMap<String, Vec<Value>>,
    /// Of each order: the payments that succeeded, whoever said so.
    succeeded: BTreeMap<String, BTreeSet<String>>,
    /// Of each ticket: the orders that hold it.
    holders: BTreeMap<String, String>,
}

fn text<'v>(event: &'v Value, field: &str) -> &'v str {
    event.get(field).and_then(Value::as_str).unwrap_or("")
}

fn kind(event: &Value) -> &str {
    text(event, "type")
}

fn read(record: &LogRecord) -> Value {
    serde_json::from_slice(record.value.as_deref().unwrap_or(b"null")).expect("events are JSON")
}

fn price(event: &Value) -> Price {
    let amount = Amount::from_json(&event["price"].to_string()).expect("prices are numbers");
    Price::try_from(amount).expect("prices are at least 0")
}

fn versions(events: &[Value]) -> Vec<u64> {
    events
        .iter()
        .filter_map(|event| event.get("version")?.as_u64())
        .collect()
}

fn is_final(kind: &str) -> bool {
    matches!(kind, "order.completed" | "order.cancelled" | "order.failed")
}

impl Audit {
    /// Checks what holds at any time.
    pub(crate) fn of(world: &World, planted: &Planted) -> Self {
        let said = |topic: &'static str| {
            let records = world.driver.all(topic).into_iter();
            records
                .filter(move |record| !planted.contains(&(topic, record.partition, record.offset)))
        };
        let mut audit = Self {
            orders: BTreeMap::new(),
            tickets: BTreeMap::new(),
            payments: BTreeMap::new(),
            succeeded: BTreeMap::new(),
            holders: BTreeMap::new(),
        };
        for record in said(ORDERS) {
            audit.order_event(read(&record), &record);
        }
        for record in said(TICKETS) {
            let event = read(&record);
            audit
                .tickets
                .entry(text(&event, "id").to_owned())
                .or_default()
                .push(event);
        }
        for record in said(PAYMENTS) {
            let event = read(&record);
            audit
                .payments
                .entry(text(&event, "orderId").to_owned())
                .or_default()
                .push(event);
        }
        for event in world
            .read(PAYMENTS)
            .iter()
            .filter(|event| kind(event) == "payment.succeeded")
        {
            let paid = audit
                .succeeded
                .entry(text(event, "orderId").to_owned())
                .or_default();
            paid.insert(text(event, "paymentId").to_owned());
        }
        audit.check_orders();
        audit.check_tickets();
        audit.check_payments();
        audit.check_expirations(said(EXPIRATION));
        audit
    }

    /// The orders in the order of their events: at most one holds a ticket at any time.
    fn order_event(&mut self, event: Value, record: &LogRecord) {
        let order = if kind(&event) == "order.pending" {
            "orderId"
        } else {
            "id"
        };
        let order = text(&event, order).to_owned();
        assert_eq!(record.key_text(), order);
        let ticket = text(&event, "ticketId").to_owned();
        match kind(&event) {
            "order.created" => {
                let before = self.holders.insert(ticket, order.clone());
                assert_eq!(
                    before, None,
                    "a ticket was given to {order} and another order"
                );
            }
            "order.cancelled" | "order.failed" => {
                assert_eq!(self.holders.remove(&ticket), Some(order.clone()));
            }
            _ => {}
        }
        self.orders.entry(order).or_default().push(event);
    }

    fn check_orders(&self) {
        for (order, events) in &self.orders {
            assert_eq!(
                versions(events),
                (0..events.len() as u64).collect::<Vec<_>>(),
                "{order}"
            );
            let mut last = "";
            let mut refunds = BTreeSet::new();
            for event in events {
                let legal = match kind(event) {
                    "order.created" => last.is_empty(),
                    "order.pending" => last == "order.created",
                    "order.refund_due" => {
                        assert!(is_final(last), "{order}: refund due after {last}");
                        assert!(
                            refunds.insert(text(event, "paymentId")),
                            "{order}: refunded twice"
                        );
                        continue;
                    }
                    _ => matches!(last, "order.created" | "order.pending"),
                };
                assert!(legal, "{order}: {} after {last:?}", kind(event));
                last = kind(event);
            }
        }
    }

    fn check_tickets(&self) {
        for (ticket, events) in &self.tickets {
            assert_eq!(
                versions(events),
                (0..events.len() as u64).collect::<Vec<_>>(),
                "{ticket}"
            );
            let created = events
                .iter()
                .filter(|event| kind(event) == "ticket.created")
                .count();
            assert_eq!(
                (created, events.first().map(kind)),
                (1, Some("ticket.created"))
            );
        }
    }

    fn check_payments(&self) {
        for (order, events) in &self.payments {
            let of = |name: &str| events.iter().filter(|event| kind(event) == name).count();
            assert!(of("payment.created") <= 1, "{order} was charged twice");
            let results = of("payment.succeeded") + of("payment.failed");
            assert!(results <= of("payment.created"), "{order}");
            let said: BTreeSet<_> = events
                .iter()
                .map(|event| (kind(event), text(event, "paymentId")))
                .collect();
            assert_eq!(
                said.len(),
                events.len(),
                "{order}: a payment event came twice"
            );
        }
    }

    fn check_expirations(&self, expirations: impl Iterator<Item = LogRecord>) {
        let mut expired = BTreeSet::new();
        for record in expirations {
            let order = text(&read(&record), "orderId").to_owned();
            let created = self.orders.get(&order).and_then(|events| events.first());
            let created = created.expect("what expires was created");
            let not_before = turnstile_ticketing::iso8601(record.timestamp);
            assert!(
                text(created, "expiresAt") <= not_before.as_str(),
                "{order} expired early"
            );
            assert!(expired.insert(order.clone()), "{order} expired twice");
        }
    }

    fn is_live(events: &[Value]) -> bool {
        !events.iter().any(|event| is_final(kind(event)))
    }

    /// Checks what holds when nothing is in flight.
    pub(crate) fn drained(&self, world: &World) {
        for (ticket, events) in &self.tickets {
            let holder = self.holders.get(ticket).map(String::as_str);
            let shown = events
                .last()
                .and_then(|event| event.get("orderId")?.as_str());
            assert_eq!(
                shown, holder,
                "{ticket} shows another order than the one that holds it"
            );
            assert_eq!(
                world.holders(ticket),
                holder.into_iter().collect::<Vec<_>>(),
                "{ticket}"
            );
            assert_eq!(world.reserved_for(ticket).as_deref(), holder, "{ticket}");
            let terms = world.listed(ticket).expect("it was published").terms;
            let last = events.last().expect("it was published");
            let version = versions(events).pop().expect("it has a version");
            assert!(
                terms.covers(version, text(last, "title"), price(last)),
                "{ticket}: {terms:?} is not {last}"
            );
        }
        for (order, events) in &self.orders {
            let of = |name: &'static str| events.iter().filter(move |event| kind(event) == name);
            let paid = self.succeeded.get(order).map_or(0, BTreeSet::len);
            let taken = of("order.completed").count() + of("order.refund_due").count();
            assert_eq!(taken, paid, "{order}: a payment was lost");
            let due: BTreeSet<_> = of("order.refund_due")
                .map(|event| text(event, "paymentId"))
                .collect();
            let payments = self.payments.get(order).map_or(&[][..], Vec::as_slice);
            let refunded = payments
                .iter()
                .filter(|event| kind(event) == "payment.refunded");
            let refunded: BTreeSet<_> = refunded.map(|event| text(event, "paymentId")).collect();
            assert_eq!(refunded, due, "{order}: not refunded what was due");
            let copies = world
                .ticketing
                .payments
                .expect("Payments is run")
                .payable_orders;
            let id = order.parse().expect("ids are not empty");
            let copy = world
                .driver
                .get(copies, order, &id)
                .expect("it was published");
            assert_eq!(Some(&copy.version), versions(events).last(), "{order}");
        }
        let live = self
            .orders
            .values()
            .filter(|events| Self::is_live(events))
            .count();
        assert_eq!(
            world.driver.timers("expiration").len(),
            live,
            "a timer for each live order"
        );
    }

    /// Checks what holds when the time of all orders and charges is over.
    pub(crate) fn finished(&self) {
        for (order, events) in &self.orders {
            assert!(!Self::is_live(events), "{order} has not ended");
        }
        for (order, events) in &self.payments {
            let of = |name: &str| events.iter().filter(|event| kind(event) == name).count();
            let results = of("payment.succeeded") + of("payment.failed");
            assert_eq!(
                results,
                of("payment.created"),
                "{order}: a charge has no result"
            );
        }
    }

    /// The orders that were created.
    pub(crate) fn orders(&self) -> BTreeSet<&str> {
        self.orders.keys().map(String::as_str).collect()
    }
}
