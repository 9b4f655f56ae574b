//! What Tickets promises.

use turnstile_ticketing::Service;
use turnstile_ticketing::outcome::{Answer, Conflict};
use turnstile_ticketing::topics::{ORDERS, TICKET_COMMANDS, TICKETS};

use crate::said::{IN_TWO_MINUTES, order_created, order_ended, ticket_update};
use crate::world::World;

/// Tickets alone, with a ticket; what Orders says is said by the test.
fn tickets_with(ticket: &str) -> World {
    let mut world = World::of(&[Service::Tickets]);
    world.create_ticket(ticket);
    world
}

fn created(world: &mut World, order: &str) {
    world.event(ORDERS, order, &order_created(order, "t", IN_TWO_MINUTES));
}

fn ended(world: &mut World, kind: &str, order: &str) {
    world.event(ORDERS, order, &order_ended(kind, order, "t", 1));
}

#[test]
fn a_ticket_is_reserved_released_and_published_each_time() {
    for kind in ["cancelled", "failed"] {
        let mut world = tickets_with("t");
        created(&mut world, "o");
        assert_eq!(world.last(TICKETS, "t")["orderId"], "o");
        ended(&mut world, kind, "o");
        assert_eq!(world.last(TICKETS, "t").get("orderId"), None);
        assert_eq!(world.versions(TICKETS, "t"), [0, 1, 2]);
        assert_eq!(world.types(TICKETS, "t"), ["created", "updated", "updated"]);
    }
}

#[test]
fn only_an_owners_edit_names_the_user() {
    let mut world = tickets_with("t");
    world.command(TICKET_COMMANDS, "t", ticket_update("t", "owner"));
    created(&mut world, "o");
    let users: Vec<_> = world
        .of_key(TICKETS, "t")
        .iter()
        .map(|event| event.get("userId").cloned())
        .collect();
    assert_eq!(users, [Some("owner".into()), Some("owner".into()), None]);
}

#[test]
fn the_next_order_may_be_seen_before_the_last_ones_end() {
    let mut world = tickets_with("t");
    created(&mut world, "first");
    created(&mut world, "next");
    assert_eq!(world.holders("t"), ["first", "next"]);
    ended(&mut world, "cancelled", "first");
    assert_eq!(world.holders("t"), ["next"]);
    assert_eq!(world.last(TICKETS, "t")["orderId"], "next");
    assert_eq!(world.versions(TICKETS, "t"), [0, 1, 2, 3]);
}

#[test]
fn a_late_release_frees_only_its_own_reservation() {
    let mut world = tickets_with("t");
    created(&mut world, "next");
    ended(&mut world, "cancelled", "last");
    assert_eq!(world.last(TICKETS, "t")["orderId"], "next");
    assert_eq!(world.versions(TICKETS, "t"), [0, 1]);
}

#[test]
fn a_late_created_of_an_ended_order_reserves_nothing() {
    for kind in ["cancelled", "failed"] {
        let mut world = tickets_with("t");
        ended(&mut world, kind, "o");
        world.crash();
        created(&mut world, "o");
        assert!(world.holders("t").is_empty());
        assert_eq!(world.versions(TICKETS, "t"), [0]);
    }
}

#[test]
fn events_that_come_twice_change_a_ticket_once() {
    let mut world = tickets_with("t");
    for _ in 0..2 {
        created(&mut world, "o");
    }
    for _ in 0..2 {
        ended(&mut world, "cancelled", "o");
        created(&mut world, "o");
    }
    assert_eq!(world.versions(TICKETS, "t"), [0, 1, 2]);
}

#[test]
fn a_completed_order_keeps_its_ticket() {
    let mut world = tickets_with("t");
    created(&mut world, "o");
    ended(&mut world, "completed", "o");
    assert_eq!(world.holders("t"), ["o"]);
}

#[test]
fn a_completed_order_has_its_ticket_though_its_creation_is_read_late() {
    let mut world = tickets_with("t");
    ended(&mut world, "completed", "o");
    world.crash();
    created(&mut world, "o");
    ended(&mut world, "completed", "o");
    assert_eq!(world.holders("t"), ["o"]);
    assert_eq!(world.last(TICKETS, "t")["orderId"], "o");
    assert_eq!(world.versions(TICKETS, "t"), [0, 1]);
}

#[test]
fn an_order_seen_before_its_ticket_reserves_it_then() {
    let mut world = World::of(&[Service::Tickets]);
    created(&mut world, "a");
    created(&mut world, "b");
    created(&mut world, "b");
    ended(&mut world, "cancelled", "a");
    world.crash();
    world.create_ticket("t");
    assert_eq!(world.holders("t"), ["b"]);
    assert_eq!(world.versions(TICKETS, "t"), [0, 1]);
    assert_eq!(world.last(TICKETS, "t")["orderId"], "b");
    assert_eq!(world.rows("early-holders"), 0);
}

#[test]
fn a_ticket_is_edited_by_its_owner_while_it_is_not_reserved() {
    let mut world = tickets_with("t");
    let edit = |world: &mut World, ticket: &str, user: &str| {
        let command = world.command(TICKET_COMMANDS, ticket, ticket_update(ticket, user));
        world
            .tickets_answer(ticket, &command)
            .map(|answer| answer.status())
    };
    assert_eq!(edit(&mut world, "t", "owner"), Some(200));
    assert_eq!(edit(&mut world, "t", "other"), Some(403));
    assert_eq!(edit(&mut world, "none", "owner"), Some(404));
    created(&mut world, "o");
    assert_eq!(edit(&mut world, "t", "owner"), Some(409));
    ended(&mut world, "failed", "o");
    assert_eq!(edit(&mut world, "t", "owner"), Some(200));
    assert_eq!(world.versions(TICKETS, "t"), [0, 1, 2, 3, 4]);
}

#[test]
fn a_ticket_is_created_once() {
    let mut world = tickets_with("t");
    let again = world.create_ticket("t");
    let exists = Answer::Conflict(Conflict::TicketExists);
    assert_eq!(world.tickets_answer("t", &again), Some(exists));
    assert_eq!(world.versions(TICKETS, "t"), [0]);
}
