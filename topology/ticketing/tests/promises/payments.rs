//! What Payments promises.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use turnstile_ticketing::ids::PaymentId;
use turnstile_ticketing::outcome::Answer;
use turnstile_ticketing::payments::{Charge, ChargeAnswer, Gateway, Settlement};
use turnstile_ticketing::topics::{EXPIRATION, ORDER_COMMANDS, ORDERS, PAYMENTS};
use turnstile_ticketing::{Service, TicketingConfig};

use crate::said::{
    IN_TWO_MINUTES, expired, order_created, order_ended, payment, payment_create, with_id,
};
use crate::world::{World, partitions};

/// Payments alone, with an order; what Orders says is said by the test.
fn payments_with(order: &str) -> World {
    let mut world = World::of(&[Service::Payments]);
    world.event(ORDERS, order, &order_created(order, "t", IN_TWO_MINUTES));
    world
}

fn status(world: &World, order: &str, command: &str) -> Option<u16> {
    world
        .payment_answer(order, command)
        .map(|answer| answer.status())
}

fn refund_due(order: &str, payment: &str, version: u64) -> serde_json::Value {
    json!({"type": "order.refund_due", "id": order, "paymentId": payment, "userId": "buyer",
        "version": version})
}

#[test]
fn a_payment_that_succeeds_is_created_and_succeeded() {
    let mut world = payments_with("o");
    let command = world.pay("o", "tok_visa");
    let Some(Answer::PaymentMade(id)) = world.payment_answer("o", &command) else {
        panic!("the payment was not made");
    };
    let events = world.of_key(PAYMENTS, "o");
    assert_eq!(world.types(PAYMENTS, "o"), ["created", "succeeded"]);
    assert_eq!(events[0]["id"], id.as_str());
    assert_eq!(events[0]["paymentId"], events[1]["paymentId"]);
}

/// A gateway that knows what it has charged.
#[derive(Default)]
struct Bank {
    charged: Mutex<Vec<PaymentId>>,
    refunded: Mutex<Vec<PaymentId>>,
}

impl Gateway for Bank {
    fn charge(&self, charge: &Charge) -> ChargeAnswer {
        if charge.token.as_str() == "tok_timeout" {
            return ChargeAnswer::Open;
        }
        self.charged
            .lock()
            .expect("nobody panics")
            .push(charge.payment_id.clone());
        ChargeAnswer::Succeeded
    }

    fn settle(&self, payment: &PaymentId) -> Settlement {
        if self
            .charged
            .lock()
            .expect("nobody panics")
            .contains(payment)
        {
            Settlement::Succeeded
        } else {
            Settlement::Failed
        }
    }

    fn has_succeeded(&self, payment: &PaymentId) -> bool {
        self.settle(payment) == Settlement::Succeeded
    }

    fn refund(&self, payment: &PaymentId) {
        self.refunded
            .lock()
            .expect("nobody panics")
            .push(payment.clone());
    }
}

#[test]
fn what_was_charged_in_a_transaction_that_was_lost_is_given_back_if_the_order_ends_meanwhile() {
    let bank = Arc::new(Bank::default());
    let config = TicketingConfig {
        gateway: bank.clone(),
        ..TicketingConfig::default()
    };
    // Of the first run nothing is left but what the gateway knows. In the second one Payments
    // hears of the end of the order before it comes to the command.
    for ends_before in [false, true] {
        let mut world = World::with(&config, &partitions(3));
        world.create_ticket("t");
        world.order("t", "o");
        if ends_before {
            world.cancel("o", "buyer");
        }
        let command = "99999999-0000-4000-a000-000000000000";
        let pay = with_id(payment_create("o", "tok_visa"), command);
        world.event(ORDER_COMMANDS, "o", &pay);
        assert_eq!(status(&world, "o", command), Some(201));
        let refunded = world.types(PAYMENTS, "o").contains(&"refunded".to_owned());
        assert_eq!(refunded, ends_before);
    }
    let charged = bank.charged.lock().unwrap().clone();
    assert_eq!(charged.len(), 1);
    assert_eq!(*bank.refunded.lock().unwrap(), charged);
}

#[test]
fn what_was_charged_in_a_transaction_that_was_lost_is_not_forgotten_where_the_order_is_unknown_then()
 {
    let bank = Arc::new(Bank::default());
    let config = TicketingConfig {
        gateway: bank.clone(),
        services: [Service::Payments].into(),
        ..TicketingConfig::default()
    };
    let created = order_created("o", "t", IN_TWO_MINUTES);
    let (first, second) = ("99999999-0000-4000-a000-000000000000", "88888888");
    let pay = |world: &mut World, id| {
        world.event(
            ORDER_COMMANDS,
            "o",
            &with_id(payment_create("o", "tok_visa"), id),
        );
    };
    let mut world = World::with(&config, &partitions(3));
    world.event(ORDERS, "o", &created);
    pay(&mut world, first);
    // All of it is lost, and then the order does not come in time.
    let mut world = World::with(&config, &partitions(3));
    pay(&mut world, first);
    world.advance(Duration::from_secs(5));
    assert_eq!(status(&world, "o", first), Some(201));
    assert_eq!(world.types(PAYMENTS, "o"), ["created", "succeeded"]);
    world.event(ORDERS, "o", &created);
    pay(&mut world, second);
    assert_eq!(status(&world, "o", second), Some(409));
    assert_eq!(bank.charged.lock().unwrap().len(), 1);
    // All of it is lost, and then another payment comes first: one of the two goes back.
    let mut world = World::with(&config, &partitions(3));
    world.event(ORDERS, "o", &created);
    pay(&mut world, second);
    pay(&mut world, first);
    let charged = bank.charged.lock().unwrap().clone();
    assert_eq!(charged.len(), 2);
    assert_eq!(*bank.refunded.lock().unwrap(), charged[..1]);
    for command in [first, second] {
        assert_eq!(status(&world, "o", command), Some(201));
    }
}

#[test]
fn which_of_two_charges_goes_back_is_known_when_both_have_ended() {
    let bank = Arc::new(Bank::default());
    let config = TicketingConfig {
        gateway: bank.clone(),
        services: [Service::Payments].into(),
        ..TicketingConfig::default()
    };
    let (lost, open) = ("99999999-0000-4000-a000-000000000000", "88888888");
    let begin = || {
        let mut world = World::with(&config, &partitions(3));
        world.event(ORDERS, "o", &order_created("o", "t", IN_TWO_MINUTES));
        world
    };
    let pay = |world: &mut World, id, token| {
        world.event(
            ORDER_COMMANDS,
            "o",
            &with_id(payment_create("o", token), id),
        );
    };
    pay(&mut begin(), lost, "tok_visa");
    let mut world = begin();
    pay(&mut world, open, "tok_timeout");
    pay(&mut world, lost, "tok_visa");
    world.crash();
    assert_eq!(world.types(PAYMENTS, "o"), ["created"]);
    assert_eq!(status(&world, "o", lost), None);
    world.advance(Duration::from_secs(2));
    assert_eq!(world.types(PAYMENTS, "o"), ["created", "failed"]);
    world.advance(Duration::from_secs(3));
    assert_eq!(
        world.types(PAYMENTS, "o")[2..],
        ["created", "succeeded", "refunded"]
    );
    assert_eq!(status(&world, "o", open), Some(402));
    assert_eq!(status(&world, "o", lost), Some(201));
    assert_eq!(
        *bank.refunded.lock().unwrap(),
        *bank.charged.lock().unwrap()
    );
    assert_eq!(world.rows("waiting-payments"), 0);
}

#[test]
fn no_money_moves_for_a_record_that_is_rejected() {
    // More than is passed on.
    const HEADER: usize = 256 << 10;
    let bank = Arc::new(Bank::default());
    let config = TicketingConfig {
        gateway: bank.clone(),
        services: [Service::Payments].into(),
        ..TicketingConfig::default()
    };
    let moved = || {
        let charged = bank.charged.lock().unwrap().len();
        (charged, bank.refunded.lock().unwrap().len())
    };
    let created = order_created("o", "t", IN_TWO_MINUTES);
    let pay = |order| with_id(payment_create(order, "tok_visa"), "c");
    let mut world = World::with(&config, &partitions(3));
    world.event(ORDERS, "o", &created);
    let due = refund_due("o", "p", 1);
    world.event_with_header(ORDER_COMMANDS, "o", &pay("o"), HEADER);
    world.event_with_header(ORDERS, "o", &due, HEADER);
    // Here the payment waits for the order, which comes with the header.
    world.event(ORDER_COMMANDS, "p", &pay("p"));
    let other = order_created("p", "t", IN_TWO_MINUTES);
    world.event_with_header(ORDERS, "p", &other, HEADER);
    assert_eq!(world.dead_letters().len(), 3);
    assert_eq!(moved(), (0, 0));
    assert!(world.read(PAYMENTS).is_empty());

    world.event(ORDER_COMMANDS, "o", &pay("o"));
    assert_eq!(status(&world, "o", "c"), Some(201));
    world.event(ORDERS, "o", &due);
    assert_eq!(moved(), (1, 1));
}

#[test]
fn the_money_of_an_order_that_is_completed_after_all_stays() {
    let ended = |kind, version| order_ended(kind, "o", "t", version);
    let (cancelled, completed) = (ended("cancelled", 1), ended("completed", 2));
    for events in [[&cancelled, &completed], [&completed, &cancelled]] {
        let mut world = payments_with("o");
        world.pay("o", "tok_visa");
        for event in events {
            world.event(ORDERS, "o", event);
        }
        world.advance(Duration::from_hours(1));
        assert_eq!(world.types(PAYMENTS, "o"), ["created", "succeeded"]);
    }
}

#[test]
fn where_orders_is_foreign_the_money_of_an_order_that_has_ended_goes_back() {
    for (kind, asks) in [("cancelled", false), ("failed", false), ("cancelled", true)] {
        let mut world = payments_with("o");
        world.pay("o", "tok_visa");
        let paid = world.last(PAYMENTS, "o")["paymentId"].clone();
        world.event(ORDERS, "o", &order_ended(kind, "o", "t", 1));
        if asks {
            let asked = paid.as_str().expect("it is text");
            world.event(ORDERS, "o", &refund_due("o", asked, 2));
        }
        world.advance(Duration::from_secs(59));
        assert_eq!(world.types(PAYMENTS, "o").len(), if asks { 3 } else { 2 });
        world.crash();
        world.advance(Duration::from_secs(1));
        world.event(ORDERS, "o", &order_ended(kind, "o", "t", 1));
        world.advance(Duration::from_hours(1));
        assert_eq!(
            world.types(PAYMENTS, "o"),
            ["created", "succeeded", "refunded"]
        );
        assert_eq!(world.last(PAYMENTS, "o")["paymentId"], paid);
    }
}

#[test]
fn what_was_not_paid_or_is_completed_is_not_given_back() {
    for (token, kind) in [
        ("tok_chargeDeclined", "failed"),
        ("tok_timeout", "cancelled"),
        ("tok_visa", "completed"),
    ] {
        let mut world = payments_with("o");
        world.pay("o", token);
        world.event(ORDERS, "o", &order_ended(kind, "o", "t", 1));
        world.advance(Duration::from_hours(1));
        assert!(
            !world.types(PAYMENTS, "o").contains(&"refunded".to_owned()),
            "{kind}"
        );
    }
}

#[test]
fn a_declined_payment_fails_its_order() {
    let mut world = World::new();
    world.create_ticket("t");
    world.order("t", "o");
    let command = world.pay("o", "tok_chargeDeclined");
    assert_eq!(status(&world, "o", &command), Some(402));
    assert_eq!(world.types(PAYMENTS, "o"), ["created", "failed"]);
    assert_eq!(world.types(ORDERS, "o"), ["created", "pending", "failed"]);
    assert_eq!(world.reserved_for("t"), None);
    assert!(world.holders("t").is_empty());
}

#[test]
fn a_gateway_that_does_not_answer_in_time_has_declined() {
    let mut world = World::new();
    world.create_ticket("t");
    world.order("t", "o");
    let slow = with_id(payment_create("o", "tok_timeout"), "slow");
    for _ in 0..2 {
        world.event(ORDER_COMMANDS, "o", &slow);
    }
    let again = world.pay("o", "tok_visa");
    assert_eq!(world.types(PAYMENTS, "o"), ["created"]);
    assert_eq!(status(&world, "o", "slow"), None);
    assert_eq!(status(&world, "o", &again), Some(409));
    world.crash();
    world.advance(Duration::from_secs(2));
    assert_eq!(status(&world, "o", "slow"), Some(402));
    assert_eq!(world.types(PAYMENTS, "o"), ["created", "failed"]);
    assert_eq!(world.types(ORDERS, "o"), ["created", "pending", "failed"]);
}

#[test]
fn an_order_is_payable_by_its_buyer_while_it_is_created_and_once() {
    let mut world = payments_with("o");
    let mut other = payment_create("o", "tok_visa");
    other["userId"] = "other".into();
    let other = world.command(ORDER_COMMANDS, "o", other);
    assert_eq!(status(&world, "o", &other), Some(403));
    let (first, second) = (world.pay("o", "tok_visa"), world.pay("o", "tok_visa"));
    assert_eq!(status(&world, "o", &first), Some(201));
    assert_eq!(status(&world, "o", &second), Some(409));
    for kind in ["completed", "cancelled", "failed"] {
        let mut world = payments_with("o");
        world.event(ORDERS, "o", &order_ended(kind, "o", "t", 1));
        let command = world.pay("o", "tok_visa");
        assert_eq!(status(&world, "o", &command), Some(409), "{kind}");
        assert!(world.read(PAYMENTS).is_empty());
    }
}

#[test]
fn an_order_can_be_paid_as_soon_as_it_was_answered() {
    let mut world = World::of(&[Service::Payments]);
    let command = world.pay("o", "tok_visa");
    world.crash();
    world.advance(Duration::from_secs(4));
    assert_eq!(status(&world, "o", &command), None);
    world.event(ORDERS, "o", &order_created("o", "t", IN_TWO_MINUTES));
    assert_eq!(status(&world, "o", &command), Some(201));
    assert_eq!(world.rows("waiting-payments"), 0);
}

#[test]
fn a_payment_of_an_order_that_does_not_exist_is_a_404() {
    let mut world = World::of(&[Service::Payments]);
    let command = world.pay("none", "tok_visa");
    world.advance(Duration::from_secs(5));
    assert_eq!(status(&world, "none", &command), Some(404));
    assert_eq!(world.rows("waiting-payments"), 0);
}

#[test]
fn the_copy_takes_the_highest_version_gap_or_not() {
    let created = order_created("o", "t", IN_TWO_MINUTES);
    let cancelled = order_ended("cancelled", "o", "t", 2);
    for events in [[&created, &cancelled], [&cancelled, &created]] {
        let mut world = World::of(&[Service::Payments]);
        for event in events {
            world.event(ORDERS, "o", event);
        }
        let command = world.pay("o", "tok_visa");
        assert_eq!(status(&world, "o", &command), Some(409));
    }
}

#[test]
fn an_order_known_only_as_pending_waits_for_its_buyer() {
    let mut world = World::of(&[Service::Payments]);
    let pending = json!({"type": "order.pending", "orderId": "o", "status": "pending_payment",
        "ticketId": "t", "version": 1});
    world.event(ORDERS, "o", &pending);
    let command = world.pay("o", "tok_visa");
    assert_eq!(status(&world, "o", &command), None);
    world.event(ORDERS, "o", &order_created("o", "t", IN_TWO_MINUTES));
    assert_eq!(status(&world, "o", &command), Some(409));
}

#[test]
fn what_is_due_is_refunded_exactly_once() {
    let mut world = World::of(&[Service::Payments]);
    for (payment, version) in [("p", 2), ("q", 3), ("p", 2), ("q", 3)] {
        world.event(ORDERS, "o", &refund_due("o", payment, version));
        world.crash();
    }
    assert_eq!(world.types(PAYMENTS, "o"), ["refunded", "refunded"]);
    let paid: Vec<_> = world
        .of_key(PAYMENTS, "o")
        .iter()
        .map(|event| event["paymentId"].clone())
        .collect();
    assert_eq!(paid, ["p", "q"]);
}

#[test]
fn what_is_due_is_refunded_though_a_higher_version_was_read_before() {
    for later in [refund_due("o", "q", 3), order_ended("failed", "o", "t", 3)] {
        let mut world = payments_with("o");
        world.event(ORDERS, "o", &later);
        world.crash();
        world.event(ORDERS, "o", &refund_due("o", "p", 2));
        let refunded = payment("refunded", "o", "p");
        assert_eq!(world.last(PAYMENTS, "o"), refunded, "{later}");
    }
}

#[test]
fn a_payment_for_an_order_that_is_no_longer_payable_is_never_lost() {
    let mut world = World::new();
    world.create_ticket("t");
    world.order("t", "o");
    world.event(EXPIRATION, "o", &expired("o"));
    world.event(PAYMENTS, "o", &payment("succeeded", "o", "late"));
    assert_eq!(
        world.types(ORDERS, "o"),
        ["created", "cancelled", "refund_due"]
    );
    assert_eq!(world.types(PAYMENTS, "o"), ["succeeded", "refunded"]);
    assert_eq!(world.last(PAYMENTS, "o")["paymentId"], "late");
}
