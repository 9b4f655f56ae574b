//! What Orders promises.

use std::time::Duration;

use serde_json::{Value, json};
use turnstile_engine::partitioner::partition_of;
use turnstile_ticketing::Service;
use turnstile_ticketing::outcome::{Answer, Conflict};
use turnstile_ticketing::topics::{
    EXPIRATION, ORDER_COMMANDS, ORDERS, PAYMENTS, TICKET_COMMANDS, TICKETS,
};

use crate::said::{expired, order_cancel, order_create, payment, ticket_create, with_id};
use crate::world::World;

/// Orders alone, with a ticket; what the other services say is said by the test.
fn orders_with(tickets: &[&str]) -> World {
    let mut world = World::of(&[Service::Orders]);
    for ticket in tickets {
        ticket_said(&mut world, ticket, 0, "Concert");
    }
    world
}

fn ticket_said(world: &mut World, ticket: &str, version: u64, title: &str) {
    let kind = if version == 0 { "created" } else { "updated" };
    let event = json!({"type": format!("ticket.{kind}"), "id": ticket, "title": title,
        "price": 10.5, "userId": "owner", "version": version});
    world.event(TICKETS, ticket, &event);
}

fn status(world: &World, order: &str) -> String {
    let event = world.last(ORDERS, order);
    event
        .get("status")
        .and_then(Value::as_str)
        .unwrap_or("none")
        .to_owned()
}

#[test]
fn a_ticket_is_given_to_one_of_all_who_want_it() {
    let mut world = World::new();
    world.create_ticket("t");
    for order in 0..20 {
        let mut command = order_create("t", &format!("o{order}"));
        command["commandId"] = format!("c{order}").into();
        world.append(TICKET_COMMANDS, "t", &command);
    }
    world.run();
    assert_eq!(world.read(ORDERS).len(), 1);
    let answers = (0..20).filter_map(|order| world.reservation_answer("t", &format!("c{order}")));
    let statuses: Vec<u16> = answers.map(|answer| answer.status()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1);
    assert_eq!(statuses.iter().filter(|status| **status == 409).count(), 19);
    assert_eq!(world.holders("t"), [world.reserved_for("t").unwrap()]);
}

#[test]
fn a_ticket_is_not_given_to_an_order_that_its_topic_does_not_accept() {
    // `orders` accepts less than the topics of the hand-off.
    const LIMIT: usize = 64 << 10;
    let order = |order| with_id(order_create("t", order), order);
    // An order for a ticket that is listed.
    let mut world = World::limited(&Service::ALL, ORDERS, LIMIT);
    world.create_ticket("t");
    // More headers than are passed on at all.
    world.event_with_header(TICKET_COMMANDS, "t", &order("first"), 256 << 10);
    assert_eq!(world.types(ORDERS, "first"), ["created"]);
    world.event_with_header(
        ORDER_COMMANDS,
        "first",
        &with_id(order_cancel("first", "buyer"), "c"),
        256 << 10,
    );
    assert_eq!(world.types(ORDERS, "first"), ["created", "cancelled"]);
    world.event_with_header(TICKET_COMMANDS, "t", &order("second"), LIMIT);
    world.event_with_header(PAYMENTS, "second", &payment("failed", "second", "p"), LIMIT);
    assert_eq!(world.types(ORDERS, "second"), ["created", "failed"]);
    world.event_with_header(TICKET_COMMANDS, "t", &order("third"), 100);
    assert_eq!(world.reserved_for("t").as_deref(), Some("third"));
    assert_eq!(world.holders("t"), ["third"]);
    assert!(world.dead_letters().is_empty());
    // What fits is passed on.
    let last = world.driver.all(ORDERS).pop().unwrap();
    assert!(last.header("trace").is_some());

    // An order that waits for its ticket, which comes with the header.
    for bytes in [LIMIT, 256 << 10] {
        let mut world = World::limited(&[Service::Orders], ORDERS, LIMIT);
        world.create_ticket("t");
        world.event(TICKET_COMMANDS, "t", &order("o"));
        let ticket = json!({"type": "ticket.created", "id": "t", "title": "Concert",
            "price": 10.5, "userId": "owner", "version": 0});
        world.event_with_header(TICKETS, "t", &ticket, bytes);
        assert_eq!(world.types(ORDERS, "o"), ["created"]);
        assert_eq!(world.reserved_for("t").as_deref(), Some("o"));
        assert!(world.dead_letters().is_empty());
    }
}

#[test]
fn who_finds_too_many_waiting_for_an_announced_ticket_finds_it_reserved() {
    let mut world = World::of(&[Service::Orders]);
    world.create_ticket("t");
    let order = |order| world.order("t", &format!("o{order}"));
    let commands: Vec<String> = (0..65).map(order).collect();
    let answer = |world: &World, command: &str| world.reservation_answer("t", command);
    assert_eq!(answer(&world, &commands[0]), None);
    let reserved = Some(Answer::Conflict(Conflict::TicketReserved));
    assert_eq!(answer(&world, &commands[64]), reserved);
    ticket_said(&mut world, "t", 0, "Concert");
    assert_eq!(
        answer(&world, &commands[0]).map(|answer| answer.status()),
        Some(201)
    );
}

#[test]
fn a_ticket_stays_announced_when_those_who_waited_for_it_have_given_up() {
    let mut world = World::of(&[Service::Orders]);
    world.create_ticket("t");
    let first = world.order("t", "first");
    world.advance(Duration::from_hours(24));
    assert_eq!(
        world.reservation_answer("t", &first),
        Some(Answer::NotFound)
    );
    let second = world.order("t", "second");
    world.advance(Duration::from_hours(1));
    assert_eq!(world.reservation_answer("t", &second), None);
    ticket_said(&mut world, "t", 0, "Concert");
    assert_eq!(world.types(ORDERS, "second"), ["created"]);
}

#[test]
fn an_order_that_has_ended_leaves_no_more_than_the_documented_bytes() {
    const ORDERS: usize = 50;
    // docs/operating.md
    const DOCUMENTED: usize = 420;
    let id = |kind: char, number: usize| format!("{kind}0000000-0000-4000-a000-{number:012}");
    let mut world = World::new();
    for number in 0..ORDERS {
        world.create_ticket(&id('a', number));
    }
    world.advance(Duration::from_hours(48));
    let before = world.bytes();
    for number in 0..ORDERS {
        let order = id('b', number);
        world.order(&id('a', number), &order);
        match number % 3 {
            0 => drop(world.pay(&order, "tok_visa")),
            1 => drop(world.cancel(&order, "buyer")),
            _ => {}
        }
    }
    for _ in 0..48 {
        world.advance(Duration::from_hours(1));
    }
    let left = (world.bytes() - before) / ORDERS;
    assert!(left <= DOCUMENTED, "{left} bytes");
}

#[test]
fn an_order_that_is_cancelled_fails_or_expires_frees_its_ticket_at_once() {
    for how in ["cancelled", "failed", "expired"] {
        let mut world = orders_with(&["t"]);
        world.order("t", "first");
        match how {
            "cancelled" => drop(world.cancel("first", "buyer")),
            "failed" => world.event(PAYMENTS, "first", &payment("failed", "first", "p")),
            _ => world.event(EXPIRATION, "first", &expired("first")),
        }
        world.order("t", "second");
        assert_eq!(world.reserved_for("t").as_deref(), Some("second"), "{how}");
        assert_eq!(world.types(ORDERS, "second"), ["created"], "{how}");
    }
}

#[test]
fn a_release_ends_only_the_reservation_of_the_order_that_it_names() {
    let mut world = orders_with(&["t"]);
    world.order("t", "o");
    let released = world.driver.internal("released-repartition");
    for (order, left) in [("other", Some("o")), ("o", None)] {
        let event = json!({"type": "ticket.released", "orderId": order, "ticketId": "t"});
        world.event(&released, "t", &event);
        assert_eq!(world.reserved_for("t").as_deref(), left);
    }
}

#[test]
fn a_completed_order_keeps_its_ticket_for_ever() {
    let mut world = orders_with(&["t"]);
    world.order("t", "o");
    world.event(PAYMENTS, "o", &payment("succeeded", "o", "p"));
    world.event(EXPIRATION, "o", &expired("o"));
    world.advance(Duration::from_hours(48));
    let late = world.order("t", "late");
    let reserved = Answer::Conflict(Conflict::TicketReserved);
    assert_eq!(world.reservation_answer("t", &late), Some(reserved));
}

#[test]
fn an_order_lives_from_created_over_pending_to_completed() {
    let mut world = orders_with(&["t"]);
    world.order("t", "o");
    assert_eq!(status(&world, "o"), "created");
    world.event(PAYMENTS, "o", &payment("created", "o", "p"));
    assert_eq!(status(&world, "o"), "pending_payment");
    world.event(PAYMENTS, "o", &payment("succeeded", "o", "p"));
    assert_eq!(status(&world, "o"), "completed");
    assert_eq!(world.of_key(ORDERS, "o").len(), 3);
}

#[test]
fn the_events_of_an_order_have_no_version_gap_and_no_double_whatever_comes_twice() {
    let mut world = orders_with(&["t"]);
    world.order("t", "o");
    for kind in [
        "created",
        "created",
        "succeeded",
        "succeeded",
        "failed",
        "created",
    ] {
        world.event(PAYMENTS, "o", &payment(kind, "o", "p"));
        world.crash();
    }
    world.event(EXPIRATION, "o", &expired("o"));
    let events = world.of_key(ORDERS, "o");
    let kinds: Vec<_> = events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["order.created", "order.pending", "order.completed"]);
    let versions: Vec<_> = events
        .iter()
        .map(|event| event["version"].as_u64().unwrap())
        .collect();
    assert_eq!(versions, [0, 1, 2]);
}

#[test]
fn an_order_expires_a_time_after_it_was_made_not_after_it_was_asked_for() {
    let mut world = orders_with(&["t"]);
    let mut command = order_create("t", "o");
    command["commandId"] = "c".into();
    world.append(TICKET_COMMANDS, "t", &command);
    // The backlog takes an hour.
    world.advance(Duration::from_hours(1));
    assert_eq!(
        world.last(ORDERS, "o")["expiresAt"],
        "2026-01-31T10:32:00.000Z"
    );
}

#[test]
fn a_payment_that_succeeds_too_late_is_due_to_be_refunded_once() {
    for end in ["cancelled", "failed"] {
        let mut world = orders_with(&["t"]);
        world.order("t", "o");
        if end == "failed" {
            world.event(PAYMENTS, "o", &payment("failed", "o", "other"));
        } else {
            world.event(EXPIRATION, "o", &expired("o"));
        }
        for _ in 0..2 {
            world.event(PAYMENTS, "o", &payment("succeeded", "o", "p"));
        }
        let due = world.last(ORDERS, "o");
        assert_eq!(world.types(ORDERS, "o"), ["created", end, "refund_due"]);
        assert_eq!(
            (&due["paymentId"], &due["version"]),
            (&json!("p"), &json!(2))
        );
    }
}

#[test]
fn a_second_success_of_a_completed_order_is_a_refund_due() {
    let mut world = orders_with(&["t"]);
    world.order("t", "o");
    for paid in ["p", "p", "q", "q", "p"] {
        world.event(PAYMENTS, "o", &payment("succeeded", "o", paid));
    }
    assert_eq!(
        world.types(ORDERS, "o"),
        ["created", "completed", "refund_due"]
    );
    assert_eq!(world.last(ORDERS, "o")["paymentId"], "q");
    world.order("t", "other");
    assert_eq!(world.reserved_for("t").as_deref(), Some("o"));
}

#[test]
fn a_success_that_came_before_its_order_completes_it() {
    let mut world = orders_with(&["t"]);
    world.event(PAYMENTS, "o", &payment("created", "o", "p"));
    world.event(PAYMENTS, "o", &payment("succeeded", "o", "p"));
    world.event(PAYMENTS, "o", &payment("succeeded", "o", "q"));
    world.crash();
    world.advance(Duration::from_hours(23));
    world.order("t", "o");
    assert_eq!(
        world.types(ORDERS, "o"),
        ["created", "pending", "completed", "refund_due"]
    );
    assert_eq!(world.rows("parked-events"), 0);
    world.advance(Duration::from_hours(2));
    assert!(world.dead_letters().is_empty());
}

#[test]
fn what_came_before_its_order_counts_once_however_often_it_came() {
    let mut world = orders_with(&["t"]);
    for _ in 0..1_000 {
        world.append(PAYMENTS, "o", &payment("created", "o", "p"));
    }
    world.event(PAYMENTS, "o", &payment("succeeded", "o", "p"));
    assert!(world.dead_letters().is_empty());
    // The last repeat is kept for a day, too.
    world.advance(Duration::from_hours(23));
    world.event(PAYMENTS, "o", &payment("succeeded", "o", "p"));
    world.crash();
    world.advance(Duration::from_hours(23));
    assert_eq!(world.dead_letters().len(), 1);
    world.order("t", "o");
    assert_eq!(world.types(ORDERS, "o"), ["created", "completed"]);
    world.advance(Duration::from_hours(48));
    assert_eq!(world.dead_letters().len(), 1);
}

#[test]
fn whatever_came_before_its_order_happens_to_it_when_it_comes() {
    let paid = |kind| (PAYMENTS, payment(kind, "o", "p"));
    for ((topic, event), happens, holder) in [
        (paid("created"), "pending", Some("o")),
        (paid("succeeded"), "completed", Some("o")),
        (paid("failed"), "failed", None),
        ((EXPIRATION, expired("o")), "cancelled", None),
    ] {
        let mut world = orders_with(&["t"]);
        world.event(topic, "o", &event);
        world.crash();
        world.advance(Duration::from_hours(23));
        assert!(world.read(ORDERS).is_empty());
        world.order("t", "o");
        assert_eq!(world.types(ORDERS, "o"), ["created", happens]);
        assert_eq!(world.reserved_for("t").as_deref(), holder, "{happens}");
        assert_eq!(world.rows("parked-events"), 0, "{happens}");
        world.advance(Duration::from_hours(2));
        assert!(world.dead_letters().is_empty(), "{happens}");
    }
}

#[test]
fn an_event_whose_order_does_not_come_is_a_dead_letter_after_a_day() {
    let mut world = orders_with(&["t"]);
    world.event(PAYMENTS, "o", &payment("succeeded", "o", "p"));
    world.advance(Duration::from_hours(1));
    let value = br#"{"type":"expiration.expired","orderId":"o","more":1}"#;
    let headers = [("trace".to_owned(), Some(b"x".to_vec()))];
    let home = partition_of(b"o", 3);
    let (_, offset) = world
        .driver
        .pipe_to(EXPIRATION, home, None, Some(value), &headers);
    world.run();
    world.crash();
    world.advance(Duration::from_hours(23) - Duration::from_millis(1));
    assert_eq!(world.dead_letters().len(), 0);
    world.advance(Duration::from_millis(1));
    assert_eq!(world.dead_letters().len(), 1);
    world.advance(Duration::from_hours(1));
    let letters = world.dead_letters();
    assert_eq!(letters.len(), 2);
    let letter = &letters[1];
    let header = |name: &str| letter.header(&format!("__streams.errors.{name}")).unwrap();
    assert_eq!(
        (letter.key.as_deref(), letter.value.as_deref()),
        (None, Some(&value[..]))
    );
    assert_eq!(letter.header("trace").as_deref(), Some("x"));
    assert_eq!(header("topic"), EXPIRATION);
    assert_eq!(header("partition"), home.to_string());
    assert_eq!(header("offset"), offset.to_string());
    assert_eq!(header("exception"), "order_unknown");
    world.order("t", "o");
    assert_eq!(world.types(ORDERS, "o"), ["created"]);
}

#[test]
fn a_raw_order_whose_id_exists_changes_nothing_that_lasts() {
    let mut world = orders_with(&["a", "b"]);
    world.order("a", "o");
    // For another ticket, while the order lives.
    world.order("b", "o");
    assert_eq!(world.reserved_for("b"), None);
    // For the same ticket.
    world.order("a", "o");
    assert_eq!(world.reserved_for("a").as_deref(), Some("o"));
    // For another ticket, after the order was paid.
    world.event(PAYMENTS, "o", &payment("succeeded", "o", "p"));
    world.order("b", "o");
    assert_eq!(world.reserved_for("b"), None);
    assert_eq!(world.reserved_for("a").as_deref(), Some("o"));
    assert_eq!(world.types(ORDERS, "o"), ["created", "completed"]);
    // For the same ticket, after the order's end.
    world.order("b", "ended");
    world.cancel("ended", "buyer");
    world.order("b", "ended");
    assert_eq!(world.reserved_for("b"), None);
    assert_eq!(world.types(ORDERS, "ended"), ["created", "cancelled"]);
}

#[test]
fn a_ticket_can_be_ordered_as_soon_as_its_creation_was_answered() {
    let mut world = World::of(&[Service::Tickets, Service::Orders]);
    for (id, mut command) in [("c1", ticket_create("t")), ("c2", order_create("t", "o"))] {
        command["commandId"] = id.into();
        world.append(TICKET_COMMANDS, "t", &command);
    }
    world.run();
    let placed = world.reservation_answer("t", "c2").unwrap();
    assert_eq!(placed.status(), 201);

    // However long the catalog takes to learn of it.
    let mut world = World::of(&[Service::Orders]);
    world.command(TICKET_COMMANDS, "t", ticket_create("t"));
    let command = world.order("t", "o");
    world.crash();
    world.advance(Duration::from_hours(1));
    assert_eq!(world.reservation_answer("t", &command), None);
    ticket_said(&mut world, "t", 0, "Concert");
    assert_eq!(
        world.reservation_answer("t", &command).unwrap().status(),
        201
    );
    assert_eq!(world.types(ORDERS, "o"), ["created"]);
    assert_eq!(world.reserved_for("t").as_deref(), Some("o"));
}

#[test]
fn an_order_for_a_ticket_that_does_not_exist_is_a_404() {
    let mut world = World::new();
    let command = world.order("none", "o");
    assert_eq!(
        world.reservation_answer("none", &command),
        Some(Answer::NotFound)
    );
    // A creation that Tickets refuses announces nothing.
    let mut invalid = ticket_create("t");
    invalid["title"] = "".into();
    world.command(TICKET_COMMANDS, "t", invalid);
    let command = world.order("t", "o");
    assert_eq!(
        world.reservation_answer("t", &command),
        Some(Answer::NotFound)
    );
    // A foreign Tickets announces nothing either: its ticket may be on its way.
    let mut world = orders_with(&[]);
    let (gone, come) = (world.order("none", "o"), world.order("t", "p"));
    ticket_said(&mut world, "t", 0, "Concert");
    world.advance(Duration::from_secs(5));
    assert_eq!(
        world.reservation_answer("none", &gone),
        Some(Answer::NotFound)
    );
    assert_eq!(world.reservation_answer("t", &come).unwrap().status(), 201);
}

#[test]
fn the_catalog_takes_the_highest_version_gap_or_not() {
    let mut world = orders_with(&[]);
    ticket_said(&mut world, "t", 1, "one");
    ticket_said(&mut world, "t", 5, "five");
    ticket_said(&mut world, "t", 0, "zero");
    ticket_said(&mut world, "t", 3, "three");
    let terms = world.listed("t").unwrap().terms;
    assert_eq!((terms.title.as_str(), terms.version), ("five", 5));
}

#[test]
fn an_order_is_cancelled_by_its_buyer_until_it_has_ended() {
    let mut world = orders_with(&["t"]);
    world.order("t", "o");
    let cancel = |world: &mut World, order: &str, user: &str| {
        let command = world.cancel(order, user);
        world.cancel_answer(order, &command).unwrap().status()
    };
    assert_eq!(cancel(&mut world, "none", "buyer"), 404);
    assert_eq!(cancel(&mut world, "o", "other"), 403);
    world.event(PAYMENTS, "o", &payment("created", "o", "p"));
    assert_eq!(cancel(&mut world, "o", "buyer"), 204);
    assert_eq!(cancel(&mut world, "o", "buyer"), 409);
    assert_eq!(
        world.types(ORDERS, "o"),
        ["created", "pending", "cancelled"]
    );
}

#[test]
fn the_orders_of_a_user_are_indexed() {
    let mut world = orders_with(&["a", "b"]);
    world.order("a", "o1");
    world.order("b", "o2");
    world.order("a", "refused");
    assert_eq!(world.rows("orders-by-user"), 2);
}
