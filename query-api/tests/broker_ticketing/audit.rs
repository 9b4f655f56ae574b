//! The main promises of the contract, checked on nothing but the committed records.
//!
//! - Versions have no gap, no event comes twice, no step is one that the life of an
//!   order does not have.
//! - A ticket has at most one order that holds it, at any time by the broker's stamps.
//! - Drained (nothing is in flight): tickets show who holds them, every payment has its
//!   outcome and every refund that is due is made.
//! - Finished (all time is over): every order has ended.
//!
//! Each check says what it found; [`Audit::sound`] and the others fail on anything.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use turnstile_engine::TimestampMs;
use turnstile_ticketing::iso8601;
use turnstile_ticketing::topics::{EXPIRATION, ORDERS, PAYMENTS, TICKETS};

use crate::broker::Broker;
use crate::eventually;
use crate::record::{Record, kind, order_of, text};

/// An event, and when the broker appended it.
type Stamped = (Value, i64);

/// The events by what they are about.
#[derive(Default)]
pub(crate) struct Audit {
    tickets: BTreeMap<String, Vec<Stamped>>,
    orders: BTreeMap<String, Vec<Stamped>>,
    payments: BTreeMap<String, Vec<Stamped>>,
    expirations: BTreeMap<String, Vec<Stamped>>,
}

/// The time for which an order holds its ticket; it has no end while it does.
struct Hold<'a> {
    from: i64,
    to: Option<i64>,
    order: &'a str,
}

fn is_final(kind: &str) -> bool {
    matches!(kind, "order.completed" | "order.cancelled" | "order.failed")
}

fn gives_back(kind: &str) -> bool {
    matches!(kind, "order.cancelled" | "order.failed")
}

fn count(events: &[Stamped], name: &str) -> usize {
    events
        .iter()
        .filter(|(event, _)| kind(event) == name)
        .count()
}

/// The payments that events of this type name.
fn payments_in<'a>(events: &'a [Stamped], name: &str) -> Vec<&'a str> {
    let mut payments: Vec<_> = events
        .iter()
        .filter(|(event, _)| kind(event) == name)
        .map(|(event, _)| text(event, "paymentId"))
        .collect();
    payments.sort_unstable();
    payments
}

fn without_gap(events: &[Stamped]) -> bool {
    let versions = events.iter().map(|(event, _)| event["version"].as_u64());
    versions.eq((0..).take(events.len()).map(Some))
}

impl Audit {
    /// Reads the documented topics.
    pub(crate) fn of(broker: &Broker) -> Self {
        let topics = [TICKETS, ORDERS, PAYMENTS, EXPIRATION];
        Self::from_records(topics.into_iter().flat_map(|topic| broker.read(topic)))
    }

    /// Reads the documented topics when every order has ended and nothing is in flight.
    pub(crate) fn at_the_end(broker: &Broker) -> Self {
        let mut last = usize::MAX;
        eventually("every order has ended", || {
            let left = Self::of(broker).faults_when_finished().len();
            if left != last {
                println!("{left} orders have not ended");
                last = left;
            }
            (left == 0).then_some(())
        });
        broker.drain();
        Self::of(broker)
    }

    fn from_records(records: impl IntoIterator<Item = Record>) -> Self {
        let mut audit = Self::default();
        for record in records {
            let event = record.json();
            let (of, id) = match record.topic.as_str() {
                TICKETS => (&mut audit.tickets, text(&event, "id")),
                ORDERS => (&mut audit.orders, order_of(&event)),
                PAYMENTS => (&mut audit.payments, text(&event, "orderId")),
                _ => (&mut audit.expirations, text(&event, "orderId")),
            };
            let events = of.entry(id.to_owned()).or_default();
            events.push((event, record.appended_ms));
        }
        audit
    }

    /// Fails on what may not be at any time.
    pub(crate) fn sound(&self) {
        fail(&self.faults());
    }

    /// Fails on what may not be when nothing is in flight.
    pub(crate) fn drained(&self) {
        fail(&self.faults_when_drained());
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (order, events) in &self.orders {
            Self::check_life(order, events, &mut faults);
        }
        for (ticket, events) in &self.tickets {
            if !without_gap(events) {
                faults.push(format!("ticket {ticket}: versions have a gap"));
            }
            let first = events.first().map(|(event, _)| kind(event));
            if first != Some("ticket.created") || count(events, "ticket.created") != 1 {
                faults.push(format!("ticket {ticket}: not created once"));
            }
        }
        for (ticket, holds) in self.holds() {
            for pair in holds.windows(2) {
                if let [before, after] = pair
                    && before.to.is_none_or(|to| after.from < to)
                {
                    let (one, other) = (before.order, after.order);
                    faults.push(format!(
                        "ticket {ticket}: held by {one} and {other} at once"
                    ));
                }
            }
        }
        self.check_payments(&mut faults);
        self.check_expirations(&mut faults);
        faults
    }

    fn check_life(order: &str, events: &[Stamped], faults: &mut Vec<String>) {
        if !without_gap(events) {
            faults.push(format!("order {order}: versions have a gap"));
        }
        let mut last = "";
        for (event, _) in events {
            let kind = kind(event);
            let legal = match kind {
                "order.created" => last.is_empty(),
                "order.pending" => last == "order.created",
                "order.refund_due" => is_final(last),
                _ if is_final(kind) => matches!(last, "order.created" | "order.pending"),
                _ => false,
            };
            if !legal {
                faults.push(format!("order {order}: {kind} after {last:?}"));
            }
            if kind != "order.refund_due" {
                last = kind;
            }
        }
        let mut refunds = payments_in(events, "order.refund_due");
        let all = refunds.len();
        refunds.dedup();
        if refunds.len() != all {
            faults.push(format!("order {order}: a refund is due twice"));
        }
    }

    fn check_payments(&self, faults: &mut Vec<String>) {
        for (order, events) in &self.payments {
            let said: BTreeSet<_> = events
                .iter()
                .map(|(event, _)| (kind(event), text(event, "paymentId")))
                .collect();
            if said.len() != events.len() {
                faults.push(format!("payment of {order}: an event came twice"));
            }
            let results = count(events, "payment.succeeded") + count(events, "payment.failed");
            if results > count(events, "payment.created") {
                faults.push(format!("payment of {order}: an outcome without a payment"));
            }
        }
    }

    fn check_expirations(&self, faults: &mut Vec<String>) {
        for (order, events) in &self.expirations {
            if events.len() > 1 {
                faults.push(format!("order {order}: expired {} times", events.len()));
            }
            let created = self.orders.get(order).and_then(|events| events.first());
            let Some((created, _)) = created else {
                continue;
            };
            let due = text(created, "expiresAt");
            // The broker's clock and the instance's are the same, but for rounding.
            let early = |at: &i64| iso8601(TimestampMs(at + 1)).as_str() < due;
            if events.iter().any(|(_, at)| early(at)) {
                faults.push(format!("order {order}: expired early"));
            }
        }
    }

    /// Who held each ticket, in order.
    fn holds(&self) -> BTreeMap<&str, Vec<Hold<'_>>> {
        let mut holds: BTreeMap<&str, Vec<Hold<'_>>> = BTreeMap::new();
        for (order, events) in &self.orders {
            let Some((created, from)) = events.first() else {
                continue;
            };
            let end = events.iter().find(|(event, _)| gives_back(kind(event)));
            let hold = Hold {
                from: *from,
                to: end.map(|(_, at)| *at),
                order,
            };
            holds
                .entry(text(created, "ticketId"))
                .or_default()
                .push(hold);
        }
        for holds in holds.values_mut() {
            holds.sort_by_key(|hold| (hold.from, hold.to.unwrap_or(i64::MAX)));
        }
        holds
    }

    fn faults_when_drained(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let holds = self.holds();
        for (ticket, events) in &self.tickets {
            let holds = holds.get(ticket.as_str()).map_or(&[][..], Vec::as_slice);
            let holders = holds.iter().filter(|hold| hold.to.is_none());
            let holders: Vec<&str> = holders.map(|hold| hold.order).collect();
            let shown = events
                .last()
                .map_or("", |(event, _)| text(event, "orderId"));
            let shown = if shown.is_empty() {
                vec![]
            } else {
                vec![shown]
            };
            if shown != holders {
                faults.push(format!(
                    "ticket {ticket}: shows {shown:?}, held by {holders:?}"
                ));
            }
        }
        for (order, events) in &self.payments {
            let succeeded = count(events, "payment.succeeded");
            if succeeded + count(events, "payment.failed") != count(events, "payment.created") {
                faults.push(format!("payment of {order}: not one outcome each"));
            }
            let of_order = self.orders.get(order).map_or(&[][..], Vec::as_slice);
            let due = payments_in(of_order, "order.refund_due");
            if count(of_order, "order.completed") + due.len() != succeeded {
                faults.push(format!("payment of {order}: a success is lost"));
            }
            if due != payments_in(events, "payment.refunded") {
                faults.push(format!("payment of {order}: a refund is lost, or not due"));
            }
        }
        faults
    }

    fn faults_when_finished(&self) -> Vec<String> {
        let ended = |events: &[Stamped]| events.iter().any(|(event, _)| is_final(kind(event)));
        let unfinished = self.orders.iter().filter(|(_, events)| !ended(events));
        unfinished
            .map(|(order, _)| format!("order {order}: has not ended"))
            .collect()
    }

    /// How many events of this type there are.
    pub(crate) fn count(&self, name: &str) -> usize {
        let all = [
            &self.tickets,
            &self.orders,
            &self.payments,
            &self.expirations,
        ];
        let events = all.into_iter().flat_map(BTreeMap::values);
        events.map(|events| count(events, name)).sum()
    }

    /// The tickets, each with its last event.
    pub(crate) fn tickets(&self) -> BTreeMap<&str, &Value> {
        Self::latest(&self.tickets)
    }

    /// The orders, each with its last event.
    pub(crate) fn orders(&self) -> BTreeMap<&str, &Value> {
        Self::latest(&self.orders)
    }

    /// The orders that were created for each ticket.
    pub(crate) fn orders_by_ticket(&self) -> BTreeMap<&str, Vec<&str>> {
        let holds = self.holds().into_iter();
        holds
            .map(|(ticket, holds)| (ticket, holds.iter().map(|hold| hold.order).collect()))
            .collect()
    }

    fn latest(of: &BTreeMap<String, Vec<Stamped>>) -> BTreeMap<&str, &Value> {
        of.iter()
            .filter_map(|(id, events)| Some((id.as_str(), &events.last()?.0)))
            .collect()
    }
}

#[track_caller]
fn fail(faults: &[String]) {
    faults.iter().take(20).for_each(|fault| println!("{fault}"));
    assert!(faults.is_empty(), "{} faults", faults.len());
}

/// That each check can fail.
mod planted {
    use serde_json::json;

    use super::*;

    /// Events with their topics, a millisecond after one another.
    fn audit(events: &[(&str, Value)]) -> Audit {
        let records = events.iter().zip(1_769_851_800_000..);
        Audit::from_records(records.map(|((topic, event), appended_ms)| Record {
            topic: (*topic).to_owned(),
            value: Some(event.to_string().into_bytes()),
            appended_ms,
            ..Record::default()
        }))
    }

    /// A ticket that was sold once, after an order of it had expired.
    fn sale() -> Vec<(&'static str, Value)> {
        let order = |order: &str, name: &str, version: u64| {
            let event = json!({"type": format!("order.{name}"), "id": order, "ticketId": "t",
                "expiresAt": "2026-01-31T09:30:00.003Z", "version": version});
            (ORDERS, event)
        };
        let ticket = |name: &str, holder: Option<&str>, version: u64| {
            let event = json!({"type": format!("ticket.{name}"), "id": "t", "orderId": holder,
                "version": version});
            (TICKETS, event)
        };
        let payment = |name: &str, payment: &str| {
            let event =
                json!({"type": format!("payment.{name}"), "orderId": "o2", "paymentId": payment});
            (PAYMENTS, event)
        };
        vec![
            ticket("created", None, 0),
            order("o1", "created", 0),
            ticket("updated", Some("o1"), 1),
            (
                EXPIRATION,
                json!({"type": "expiration.expired", "orderId": "o1"}),
            ),
            order("o1", "cancelled", 1),
            ticket("updated", None, 2),
            order("o2", "created", 0),
            ticket("updated", Some("o2"), 3),
            payment("created", "p1"),
            payment("succeeded", "p1"),
            order("o2", "completed", 1),
            payment("created", "p2"),
            payment("succeeded", "p2"),
            (
                ORDERS,
                json!({"type": "order.refund_due", "id": "o2", "paymentId": "p2", "version": 2}),
            ),
            payment("refunded", "p2"),
        ]
    }

    fn faults(events: &[(&str, Value)]) -> String {
        let audit = audit(events);
        let all = [
            audit.faults(),
            audit.faults_when_drained(),
            audit.faults_when_finished(),
        ];
        all.concat().join("; ")
    }

    #[test]
    fn a_sound_sale_has_no_fault() {
        assert_eq!(faults(&sale()), "");
    }

    #[test]
    fn what_is_missing_is_found() {
        let found = [
            (
                0,
                "ticket t: versions have a gap; ticket t: not created once",
            ),
            (2, "ticket t: versions have a gap"),
            (
                4,
                "ticket t: held by o1 and o2 at once; ticket t: shows [\"o2\"], held by [\"o1\", \"o2\"]; order o1: has not ended",
            ),
            (7, "ticket t: shows [], held by [\"o2\"]"),
            (
                8,
                "payment of o2: an outcome without a payment; payment of o2: not one outcome each",
            ),
            (
                9,
                "payment of o2: not one outcome each; payment of o2: a success is lost",
            ),
            (
                10,
                "order o2: versions have a gap; order o2: order.refund_due after \"order.created\"; payment of o2: a success is lost; order o2: has not ended",
            ),
            (
                13,
                "payment of o2: a success is lost; payment of o2: a refund is lost, or not due",
            ),
            (14, "payment of o2: a refund is lost, or not due"),
        ];
        for (missing, expected) in found {
            let mut events = sale();
            events.remove(missing);
            assert_eq!(faults(&events), expected, "{missing}");
        }
    }

    #[test]
    fn what_comes_twice_is_found() {
        let found = [
            (3, "order o1: expired 2 times"),
            (
                4,
                "order o1: versions have a gap; order o1: order.cancelled after \"order.cancelled\"",
            ),
            (9, "payment of o2: an event came twice"),
            (13, "order o2: a refund is due twice"),
        ];
        for (twice, expected) in found {
            let mut events = sale();
            events.insert(twice, events[twice].clone());
            assert!(
                faults(&events).contains(expected),
                "{twice}: {}",
                faults(&events)
            );
        }
    }

    #[test]
    fn what_comes_too_early_is_found() {
        let mut events = sale();
        let expired = events.remove(3);
        events.insert(0, expired);
        assert_eq!(faults(&events), "order o1: expired early");
        let mut events = sale();
        events.swap(4, 6);
        assert_eq!(faults(&events), "ticket t: held by o1 and o2 at once");
    }
}
