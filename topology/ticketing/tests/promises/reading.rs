//! What is read, and what becomes a dead letter.

use std::time::Duration;

use serde_json::{Value, json};
use turnstile_ticketing::topics::{
    self, EXPIRATION, ORDER_COMMANDS, ORDERS, PAYMENTS, TICKET_COMMANDS, TICKETS,
};
use turnstile_ticketing::{Service, iso8601};

use crate::said::{
    IN_TWO_MINUTES, expired, order_cancel, order_create, order_created, order_ended, payment,
    payment_create, ticket_create, ticket_update, with_id,
};
use crate::world::World;

/// Appends a value that cannot be read, and sees that it is a dead letter, unchanged, that says
/// where it was and why.
fn buried(world: &mut World, topic: &str, value: Option<&[u8]>, kind: &str) {
    let before = world.dead_letters().len();
    let place = world.driver.pipe(topic, Some("key"), value);
    world.run();
    let letters = world.dead_letters();
    let said = value.map(String::from_utf8_lossy);
    assert_eq!(letters.len(), before + 1, "{topic} {kind} {said:?}");
    let letter = letters.last().expect("there is one");
    assert_eq!(
        (letter.key.as_deref(), letter.value.as_deref()),
        (Some(&b"key"[..]), value)
    );
    let header = |name: &str| {
        let header = letter.header(&format!("__streams.errors.{name}"));
        header.expect("dead letters say where they were")
    };
    assert_eq!(header("topic"), topic);
    assert_eq!(header("partition"), place.0.to_string());
    assert_eq!(header("offset"), place.1.to_string());
    assert_eq!(header("exception"), kind, "{topic} {said:?}");
    assert!(!header("message").is_empty());
}

#[test]
fn every_bad_value_is_one_dead_letter_unchanged_and_says_where_it_was() {
    let good = [
        (
            TICKETS,
            json!({"type": "ticket.created", "id": "x", "title": "a", "price": 1, "userId": "u", "version": 0}),
        ),
        (ORDERS, order_created("x", "t", IN_TWO_MINUTES)),
        (PAYMENTS, payment("succeeded", "x", "p")),
        (EXPIRATION, expired("x")),
        (TICKET_COMMANDS, ticket_create("x")),
        (ORDER_COMMANDS, order_cancel("x", "u")),
    ];
    for (topic, good) in good {
        let whole = good.to_string();
        let mut incomplete = good.clone();
        let fields = incomplete.as_object_mut().unwrap();
        fields.retain(|name, _| name == "type");
        let mut wrong = good.clone();
        for name in ["id", "orderId"] {
            if wrong.get(name).is_some() {
                wrong[name] = 7.into();
            }
        }
        let no_type = json!({"id": "x", "orderId": "x"});
        let bad: [(Option<Vec<u8>>, &str); 9] = [
            (None, "null_value"),
            (Some(Vec::new()), "not_json"),
            (
                Some(whole.as_bytes()[..whole.len() - 1].to_vec()),
                "not_json",
            ),
            (Some(b"nonsense".to_vec()), "not_json"),
            (Some(b"\xff\xfe".to_vec()), "not_json"),
            (Some(b"[1]".to_vec()), "not_object"),
            (Some(no_type.to_string().into_bytes()), "missing_field"),
            (Some(incomplete.to_string().into_bytes()), "missing_field"),
            (Some(wrong.to_string().into_bytes()), "wrong_type"),
        ];
        let mut world = World::new();
        for (value, kind) in &bad {
            buried(&mut world, topic, value.as_deref(), kind);
        }
        let mine = world.driver.all(topic).len();
        assert_eq!(mine, bad.len(), "nothing came of them");
    }
}

/// Every event and command with all of its fields, and which of them it may lack.
fn whole_messages() -> Vec<(&'static str, Value, &'static [&'static str])> {
    let ticket = |kind: &str| {
        json!({"type": kind, "id": "t", "title": "a", "price": 1, "userId": "u", "orderId": "o",
            "version": 0})
    };
    let pending = json!({"type": "order.pending", "orderId": "o", "status": "pending_payment",
        "ticketId": "t", "version": 1});
    let cancelled = json!({"type": "order.cancelled", "id": "o", "ticketId": "t", "userId": "u",
        "status": "cancelled", "expiresAt": IN_TWO_MINUTES, "version": 1});
    let refund_due = json!({"type": "order.refund_due", "id": "o", "paymentId": "p",
        "userId": "u", "version": 2});
    let begun = json!({"type": "payment.created", "id": "i", "orderId": "o", "paymentId": "p"});
    let ended = |kind: &str| order_ended(kind, "o", "t", 1);
    let command = |command: Value| with_id(command, "c");
    vec![
        (TICKETS, ticket("ticket.created"), &["userId", "orderId"]),
        (TICKETS, ticket("ticket.updated"), &["userId", "orderId"]),
        (ORDERS, order_created("o", "t", IN_TWO_MINUTES), &["status"]),
        (ORDERS, pending, &["status"]),
        (ORDERS, ended("completed"), &["userId", "status"]),
        (ORDERS, cancelled, &["userId", "status", "expiresAt"]),
        (ORDERS, ended("failed"), &["userId", "status"]),
        (ORDERS, refund_due, &["userId"]),
        (PAYMENTS, begun, &["id"]),
        (PAYMENTS, payment("succeeded", "o", "p"), &[]),
        (PAYMENTS, payment("failed", "o", "p"), &[]),
        (PAYMENTS, payment("refunded", "o", "p"), &[]),
        (EXPIRATION, expired("o"), &[]),
        (TICKET_COMMANDS, command(ticket_create("t")), &[]),
        (TICKET_COMMANDS, command(ticket_update("t", "u")), &[]),
        (TICKET_COMMANDS, command(order_create("t", "o")), &[]),
        (ORDER_COMMANDS, command(order_cancel("o", "u")), &[]),
        (ORDER_COMMANDS, command(payment_create("o", "x")), &[]),
    ]
}

#[test]
fn a_message_that_lacks_one_field_which_it_has_to_have_is_a_dead_letter() {
    for (topic, whole, may_lack) in whole_messages() {
        let mut world = World::new();
        let fields = whole.as_object().unwrap();
        let needed = fields
            .keys()
            .filter(|name| !may_lack.contains(&name.as_str()));
        for name in needed {
            let mut lacking = fields.clone();
            lacking.remove(name);
            let lacking = Value::from(lacking).to_string();
            buried(&mut world, topic, Some(lacking.as_bytes()), "missing_field");
        }
        for of in topics::ALL {
            let own = world.driver.all(of).len();
            let letters = world.dead_letters().len();
            assert_eq!(own, if of == topic { letters } else { 0 }, "{whole}");
        }
    }
}

#[test]
fn a_field_that_a_message_may_lack_is_no_fault_whatever_it_is() {
    for (topic, whole, may_lack) in whole_messages() {
        let done = |message: &Value| {
            let mut world = World::new();
            world.event(topic, "key", message);
            assert!(world.dead_letters().is_empty(), "{message}");
            world.driver.results(topic)
        };
        let expected = done(&whole);
        for name in may_lack {
            let mut without = whole.clone();
            without.as_object_mut().unwrap().remove(*name);
            assert_eq!(done(&without), expected, "{without}");
            for unusable in [json!(null), json!(7), json!(""), json!("soon"), json!([{}])] {
                without[*name] = unusable;
                assert_eq!(done(&without), expected, "{without}");
            }
        }
    }
}

#[test]
fn an_id_is_any_text_that_is_not_empty() {
    let (ascii, wide) = ("x".repeat(512), "é".repeat(256));
    for id in ["a/b", " ", "two words", "\"\\\n\0", "Ж🎟", &ascii, &wide] {
        let mut world = World::new();
        for (topic, command) in [
            (TICKET_COMMANDS, ticket_create(id)),
            (TICKET_COMMANDS, order_create(id, id)),
            (ORDER_COMMANDS, payment_create(id, "tok_visa")),
            (ORDER_COMMANDS, order_cancel(id, id)),
        ] {
            let mut command = with_id(command, id);
            command["userId"] = id.into();
            world.event(topic, id, &command);
        }
        world.event(EXPIRATION, id, &expired(id));
        world.event(PAYMENTS, id, &payment("succeeded", id, id));
        world.crash();
        assert_eq!(
            world.types(ORDERS, id),
            ["created", "pending", "completed", "refund_due"]
        );
        assert_eq!(world.last(PAYMENTS, id)["paymentId"], id);
        assert_eq!(world.last(TICKETS, id)["orderId"], id);
        assert_eq!(world.reserved_for(id).as_deref(), Some(id));
        let statuses = [
            world.tickets_answer(id, id),
            world.reservation_answer(id, id),
            world.payment_answer(id, id),
            world.cancel_answer(id, id),
        ];
        let statuses = statuses.map(|answer| answer.map(|answer| answer.status()));
        assert_eq!(statuses, [Some(201), Some(201), Some(201), Some(409)]);
        assert!(world.dead_letters().is_empty(), "{id}");
    }
    for id in [String::new(), ascii + "x"] {
        let value = expired(&id).to_string();
        let mut world = World::new();
        buried(
            &mut world,
            EXPIRATION,
            Some(value.as_bytes()),
            "invalid_field",
        );
    }
}

#[test]
fn a_title_that_was_cut_inside_an_emoji_is_read() {
    let cut = |event: Value| event.to_string().replace("Concert", r"cut \ud83d");
    let mut world = World::new();
    world.astray(
        TICKET_COMMANDS,
        0,
        None,
        &cut(with_id(ticket_create("t"), "c")),
    );
    assert_eq!(world.last(TICKETS, "t")["title"], "cut \u{fffd}");
    let foreign = json!({"type": "ticket.created", "id": "foreign", "title": "Concert",
        "price": 1, "userId": "u", "version": 0});
    world.astray(TICKETS, 0, None, &cut(foreign));
    let title = |ticket: &str| world.listed(ticket).unwrap().terms.title;
    assert_eq!(title("t"), title("foreign"));
    assert!(world.dead_letters().is_empty());
    // Two ids that differ in their halves would be one.
    let value = br#"{"type":"expiration.expired","orderId":"cut \ud83d"}"#;
    buried(&mut world, EXPIRATION, Some(value), "invalid_field");
}

#[test]
fn an_order_expires_at_a_time_of_iso_8601_that_has_an_offset() {
    for expires_at in [
        "2026-01-31T09:32Z",
        "2026-01-31T10:32:00,000+01",
        "20260131T040200-0530",
    ] {
        let mut world = World::of(&[Service::Expiration]);
        world.event(ORDERS, "o", &order_created("o", "t", expires_at));
        world.advance(Duration::from_millis(119_999));
        assert!(world.read(EXPIRATION).is_empty(), "{expires_at}");
        world.advance(Duration::from_millis(1));
        assert_eq!(world.types(EXPIRATION, "o"), ["expired"], "{expires_at}");
    }
    let value = order_created("o", "t", "2026-01-31T09:32:00").to_string();
    let value = Some(value.as_bytes());
    buried(&mut World::new(), ORDERS, value, "invalid_field");
}

#[test]
fn an_order_may_expire_in_any_year() {
    let mut world = World::of(&[Service::Expiration]);
    // The latest time that JavaScript knows, and what is written of it.
    let latest = order_created("o", "t", "+275760-09-13T00:00:00.000Z");
    world.event(ORDERS, "o", &latest);
    let timers = world.driver.timers("expiration");
    let deadlines: Vec<_> = timers.into_iter().map(|(deadline, _)| deadline).collect();
    let [deadline] = deadlines.as_slice() else {
        panic!("one timer: {deadlines:?}");
    };
    assert_eq!(iso8601(*deadline), "9999-12-31T23:59:59.999Z");
    assert!(world.read(EXPIRATION).is_empty());
    let long_ago = order_created("p", "t", "-000001-01-01T00:00:00.000Z");
    world.event(ORDERS, "p", &long_ago);
    assert_eq!(world.types(EXPIRATION, "p"), ["expired"]);
    assert!(world.dead_letters().is_empty());
}

#[test]
fn unknown_types_and_fields_are_ignored() {
    let mut world = World::new();
    for topic in topics::ALL {
        world.event(
            topic,
            "x",
            &json!({"type": "something.new", "id": 7, "price": "much"}),
        );
    }
    assert!(world.dead_letters().is_empty());
    assert!(topics::ALL.iter().all(|topic| world.read(topic).len() == 1));
    let mut command = ticket_create("t");
    command["new"] = json!({"nested": [1, 2, {"type": "x"}]});
    let command = world.command(TICKET_COMMANDS, "t", command);
    assert_eq!(world.tickets_answer("t", &command).unwrap().status(), 201);
}
