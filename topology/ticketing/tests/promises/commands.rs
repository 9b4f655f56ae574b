//! What the rules of commands promise.

use std::time::Duration;

use serde_json::{Value, json};
use turnstile_engine::record::Encode;
use turnstile_ticketing::Service;
use turnstile_ticketing::commands::{Command, OrderCreate};
use turnstile_ticketing::outcome::{Answer, Outcome, Reply};
use turnstile_ticketing::topics::{
    EXPIRATION, ORDER_COMMANDS, ORDERS, PAYMENTS, TICKET_COMMANDS, TICKETS,
};

use crate::said::{
    IN_TWO_MINUTES, order_cancel, order_create, order_created, payment_create, ticket_create,
    ticket_update, with_id,
};
use crate::world::World;

#[test]
fn a_command_that_comes_twice_changes_nothing_and_keeps_its_outcome() {
    let mut world = World::new();
    let commands = [
        (TICKET_COMMANDS, "t", with_id(ticket_create("t"), "1")),
        (
            TICKET_COMMANDS,
            "t",
            with_id(ticket_update("t", "owner"), "2"),
        ),
        (TICKET_COMMANDS, "t", with_id(order_create("t", "o"), "3")),
        (
            ORDER_COMMANDS,
            "o",
            with_id(payment_create("o", "tok_visa"), "4"),
        ),
        (
            ORDER_COMMANDS,
            "o",
            with_id(order_cancel("o", "buyer"), "5"),
        ),
    ];
    let answers = |world: &World| {
        let tickets = ["1", "2"].map(|id| world.tickets_answer("t", id));
        let orders = [
            world.reservation_answer("t", "3"),
            world.cancel_answer("o", "5"),
        ];
        (tickets, orders, world.payment_answer("o", "4"))
    };
    for (topic, key, command) in &commands {
        world.event(topic, key, command);
        let (before, outcomes) = (said(&world), answers(&world));
        world.crash();
        world.advance(Duration::from_secs(10));
        world.event(topic, key, command);
        assert_eq!(said(&world), before, "{command}");
        assert_eq!(answers(&world), outcomes, "{command}");
    }
    let statuses = [200, 201, 201, 409, 201];
    let (tickets, orders, payment) = answers(&world);
    let all = tickets
        .into_iter()
        .rev()
        .chain([orders[0].clone(), orders[1].clone(), payment]);
    assert_eq!(
        all.map(|answer| answer.unwrap().status())
            .collect::<Vec<_>>(),
        statuses
    );
}

/// All events.
fn said(world: &World) -> [Vec<Value>; 4] {
    [TICKETS, ORDERS, PAYMENTS, EXPIRATION].map(|topic| world.read(topic))
}

/// Hours go by, in each of which something can be done more than once.
fn hours_later(world: &mut World, hours: u32) {
    for _ in 0..hours {
        world.advance(Duration::from_hours(1) - Duration::from_secs(1));
        world.advance(Duration::from_secs(1));
    }
}

#[test]
fn an_outcome_is_kept_for_a_day_and_forgotten_in_the_next() {
    let mut world = World::new();
    world.create_ticket("t");
    let command = world.command(TICKET_COMMANDS, "t", ticket_update("t", "owner"));
    world.order("t", "o");
    world.order("t", "refused");
    world.pay("o", "tok_visa");
    world.pay("o", "tok_visa");
    world.cancel("o", "buyer");
    hours_later(&mut world, 23);
    world.advance(Duration::from_hours(1) - Duration::from_millis(1));
    world.crash();
    assert!(world.tickets_answer("t", &command).is_some());
    hours_later(&mut world, 24);
    assert_eq!(world.tickets_answer("t", &command), None);
    for store in ["ticket", "reservation", "order", "payment"] {
        assert_eq!(world.rows(&format!("{store}-outcomes")), 0, "{store}");
    }
    for processor in ["reservations", "life-cycle", "payments", "expiration"] {
        assert_eq!(world.driver.timers(processor), [], "{processor}");
    }
}

#[test]
fn a_command_that_comes_again_within_a_day_changes_nothing_and_keeps_its_outcome() {
    let mut world = World::new();
    for ticket in ["held", "free"] {
        world.create_ticket(ticket);
    }
    world.order("held", "holder");
    // Each of them would be decided otherwise after a day.
    let commands = [
        (ORDER_COMMANDS, "later", payment_create("later", "tok_visa")),
        (TICKET_COMMANDS, "held", order_create("held", "refused")),
        (TICKET_COMMANDS, "free", order_create("free", "placed")),
        (ORDER_COMMANDS, "placed", order_cancel("placed", "buyer")),
    ];
    let commands = commands.map(|(topic, key, command)| (topic, key, with_id(command, "c")));
    let (payment, others) = commands.split_first().unwrap();
    let send = |world: &mut World, (topic, key, command): &(&str, &str, Value)| {
        world.event(topic, key, command);
    };
    send(&mut world, payment);
    world.advance(Duration::from_secs(5));
    others.iter().for_each(|command| send(&mut world, command));
    let statuses = |world: &World| {
        let status = |(topic, key, command): &(&str, &str, Value)| {
            world.status_of(topic, key, command).unwrap()
        };
        commands.iter().map(status).collect::<Vec<_>>()
    };
    assert_eq!(statuses(&world), [404, 409, 201, 204]);

    hours_later(&mut world, 23);
    world.advance(Duration::from_hours(1) - Duration::from_millis(1));
    world.crash();
    world.order("free", "later");
    assert_eq!(world.reserved_for("held"), None);
    let before = said(&world);
    for command in &commands {
        send(&mut world, command);
        assert_eq!(said(&world), before, "{command:?}");
    }
    assert_eq!(statuses(&world), [404, 409, 201, 204]);
}

#[test]
fn the_outcome_of_a_creation_is_the_ticket_as_it_was_created() {
    let mut world = World::new();
    let creation = with_id(ticket_create("t"), "creation");
    world.event(TICKET_COMMANDS, "t", &creation);
    let created = world.tickets_answer("t", "creation").unwrap();
    assert_eq!(created.status(), 201);
    let unchanged = |world: &mut World| {
        let versions = world.versions(TICKETS, "t");
        world.crash();
        world.event(TICKET_COMMANDS, "t", &creation);
        assert_eq!(world.tickets_answer("t", "creation").unwrap(), created);
        assert_eq!(world.versions(TICKETS, "t"), versions);
    };
    unchanged(&mut world);
    world.order("t", "o");
    unchanged(&mut world);
    world.cancel("o", "buyer");
    unchanged(&mut world);
    // A refused edit and one that is done.
    for user in ["other", "owner"] {
        let mut edit = ticket_update("t", user);
        edit["title"] = json!("edited");
        world.command(TICKET_COMMANDS, "t", edit);
        unchanged(&mut world);
    }
    assert_eq!(world.last(TICKETS, "t")["title"], "edited");
    assert_eq!(world.rows("ticket-outcomes"), 3);
}

#[test]
fn the_outcome_of_an_order_outlives_its_hold_on_the_ticket() {
    let mut world = World::new();
    let ticket = world.create_ticket("t");
    assert!(world.tickets_answer("t", &ticket).is_some());
    let first = with_id(order_create("t", "o"), "first");
    world.event(TICKET_COMMANDS, "t", &first);
    let holding = world.reservation_outcome("t", "first").unwrap();
    assert_eq!(holding.answer.status(), 201);

    world.cancel("o", "buyer");
    assert_eq!(world.reserved_for("t"), None);
    assert_eq!(world.reservation_outcome("t", "first").unwrap(), holding);
    world.crash();
    world.event(TICKET_COMMANDS, "t", &first);
    assert_eq!(world.reserved_for("t"), None);

    let second = world.order("t", "p");
    world.event(TICKET_COMMANDS, "t", &first);
    assert_eq!(world.reserved_for("t").as_deref(), Some("p"));
    assert_eq!(world.reservation_outcome("t", "first").unwrap(), holding);
    assert_eq!(
        world.reservation_answer("t", &second).unwrap().status(),
        201
    );
}

#[test]
fn many_outcomes_are_forgotten_some_at_a_time_and_younger_ones_are_kept() {
    const MANY: usize = 6_000;
    let mut world = World::new();
    for command in 0..MANY {
        let command = with_id(order_create("t", "o"), &format!("old-{command}"));
        world.append(TICKET_COMMANDS, "t", &command);
    }
    world.run();
    hours_later(&mut world, 12);
    world.event(
        TICKET_COMMANDS,
        "t",
        &with_id(order_create("t", "o"), "new"),
    );
    world.advance(Duration::from_hours(12));
    let left = |world: &World| world.rows("reservation-outcomes");
    let some = left(&world);
    assert!((2..=MANY).contains(&some), "{some} after one call");
    world.advance(Duration::from_secs(1));
    assert_eq!(left(&world), 1);
    assert!(world.reservation_answer("t", "new").is_some());
    hours_later(&mut world, 19);
    assert_eq!(left(&world), 0);
}

#[test]
fn outcomes_are_forgotten_though_the_clock_was_a_year_ahead_for_a_moment() {
    let mut world = World::new();
    world.create_ticket("t");
    let now = world.driver.now();
    world.advance(Duration::from_hours(365 * 24));
    world.advance(Duration::from_secs(1));
    world.driver.set_now(now);
    world.run();
    let refused = with_id(order_create("unknown", "o"), "refused");
    world.event(TICKET_COMMANDS, "unknown", &refused);
    assert_eq!(world.rows("reservation-outcomes"), 1);
    hours_later(&mut world, 49);
    assert_eq!(world.rows("reservation-outcomes"), 0);
}

/// What HTTP does for `POST /api/orders`: sends a command in an attempt of its own and
/// looks at the outcome.
fn attempt(world: &mut World, ticket: &str, order: &str, attempt: &str) -> Option<Outcome> {
    let command = placing(ticket, order, attempt);
    let mut value = Vec::new();
    command.encode(&mut value);
    world
        .driver
        .pipe(TICKET_COMMANDS, Some(ticket), Some(&value));
    world.run();
    world.reservation_outcome(ticket, command.id.as_str())
}

fn placing(ticket: &str, order: &str, attempt: &str) -> Command<OrderCreate> {
    Command {
        id: "key".parse().expect("not empty"),
        attempt: Some(attempt.parse().expect("not empty")),
        body: OrderCreate {
            order_id: order.parse().expect("not empty"),
            ticket_id: ticket.parse().expect("not empty"),
            user_id: "buyer".parse().expect("not empty"),
        },
    }
}

fn reply<'a>(outcome: &'a Outcome, order: &str, attempt: &str) -> Reply<'a> {
    let command = placing("t", order, attempt);
    outcome.reply_to(
        command.fingerprint(),
        command.attempt.as_ref().expect("given"),
    )
}

#[test]
fn a_404_is_not_kept_as_the_outcome_of_an_idempotency_key() {
    let mut world = World::new();
    let outcome = attempt(&mut world, "t", "o", "first").unwrap();
    assert_eq!(
        reply(&outcome, "o", "first"),
        Reply::Answer(&Answer::NotFound)
    );
    assert_eq!(reply(&outcome, "o", "second"), Reply::NotYet);
    world.create_ticket("t");
    // The same attempt, read again, changes nothing.
    let outcome = attempt(&mut world, "t", "o", "first").unwrap();
    assert_eq!(
        reply(&outcome, "o", "first"),
        Reply::Answer(&Answer::NotFound)
    );
    let outcome = attempt(&mut world, "t", "o", "second").unwrap();
    for attempt in ["first", "second"] {
        let placed = Answer::OrderPlaced("o".parse().unwrap());
        assert_eq!(reply(&outcome, "o", attempt), Reply::Answer(&placed));
    }
    assert_eq!(world.types(ORDERS, "o"), ["created"]);
}

/// The event with which Tickets publishes a ticket.
fn ticket_created() -> Value {
    json!({"type": "ticket.created", "id": "t", "title": "Concert", "price": 10.5,
        "userId": "owner", "version": 0})
}

#[test]
fn an_order_that_waits_for_its_ticket_gets_it_however_often_it_is_tried_again() {
    let mut world = World::of(&[Service::Orders]);
    world.create_ticket("t");
    for number in 0..100 {
        let outcome = attempt(&mut world, "t", "o", &number.to_string());
        assert_eq!(outcome, None, "attempt {number}");
    }
    // It has taken one place of those of the others.
    let others: Vec<_> = (0..63)
        .map(|number| world.order("t", &format!("other-{number}")))
        .collect();
    let answers = |world: &World| {
        let answer = |command: &String| world.reservation_answer("t", command);
        others.iter().filter_map(answer).collect::<Vec<_>>()
    };
    assert_eq!(answers(&world), []);
    // Now all places are taken, but it has one. If it asks for something else, that waits for the
    // outcome of what it has asked for.
    assert_eq!(attempt(&mut world, "t", "o", "again"), None);
    assert_eq!(attempt(&mut world, "t", "something-else", "100"), None);
    world.event(TICKETS, "t", &ticket_created());
    let outcome = world.reservation_outcome("t", "key").unwrap();
    let placed = Answer::OrderPlaced("o".parse().unwrap());
    assert_eq!(reply(&outcome, "o", "again"), Reply::Answer(&placed));
    assert_eq!(reply(&outcome, "something-else", "100"), Reply::OtherBody);
    assert_eq!(world.types(ORDERS, "o"), ["created"]);
    assert_eq!(answers(&world).len(), 63);
}

#[test]
fn a_payment_that_waits_for_its_order_is_made_however_often_it_is_tried_again() {
    let mut world = World::of(&[Service::Payments]);
    let pay = |attempt: usize| {
        let mut pay = with_id(payment_create("o", "tok_visa"), "key");
        pay["attemptId"] = attempt.to_string().into();
        pay
    };
    for number in 0..100 {
        world.event(ORDER_COMMANDS, "o", &pay(number));
    }
    assert_eq!(world.payment_answer("o", "key"), None);
    world.event(ORDERS, "o", &order_created("o", "t", IN_TWO_MINUTES));
    assert_eq!(world.payment_answer("o", "key").unwrap().status(), 201);
    assert_eq!(world.types(PAYMENTS, "o"), ["created", "succeeded"]);
}

#[test]
fn a_raw_command_that_met_a_404_changes_nothing_when_it_comes_again() {
    let mut world = World::new();
    world.event(TICKET_COMMANDS, "t", &with_id(order_create("t", "o"), "c"));
    world.create_ticket("t");
    world.event(TICKET_COMMANDS, "t", &with_id(order_create("t", "o"), "c"));
    assert_eq!(world.reservation_answer("t", "c"), Some(Answer::NotFound));
    assert!(world.read(ORDERS).is_empty());
}

#[test]
fn the_same_id_with_another_body_changes_nothing_and_is_told_apart() {
    let mut world = World::new();
    world.create_ticket("t");
    attempt(&mut world, "t", "o", "first");
    let outcome = attempt(&mut world, "t", "other", "second").unwrap();
    assert_eq!(reply(&outcome, "other", "second"), Reply::OtherBody);
    assert!(matches!(
        reply(&outcome, "o", "third"),
        Reply::Answer(Answer::OrderPlaced(_))
    ));
    assert_eq!(world.reserved_for("t").as_deref(), Some("o"));
    assert_eq!(world.read(ORDERS).len(), 1);
}

#[test]
fn a_command_that_asks_for_what_cannot_be_has_an_outcome_that_says_so() {
    let mut world = World::of(&[Service::Tickets]);
    for (field, value) in [
        ("title", json!("")),
        ("price", json!(-1)),
        ("price", json!(1e12)),
    ] {
        let mut command = ticket_create("t");
        command[field] = value;
        let id = world.command(TICKET_COMMANDS, "t", command);
        assert_eq!(world.tickets_answer("t", &id).unwrap().status(), 400);
    }
    assert!(world.read(TICKETS).is_empty());
    assert!(world.dead_letters().is_empty());
}

#[test]
fn ids_are_made_from_the_command_so_that_a_replay_repeats_itself() {
    let run = || {
        let mut world = World::new();
        world.create_ticket("t");
        world.order("t", "o");
        world.append(
            ORDER_COMMANDS,
            "o",
            &with_id(payment_create("o", "tok_visa"), "c"),
        );
        world.driver.step(0).unwrap();
        world.driver.step(1).unwrap();
        world.crash();
        world.run();
        world.read(PAYMENTS)
    };
    let first = run();
    assert_eq!(first.len(), 2);
    assert_eq!(first, run());
}
