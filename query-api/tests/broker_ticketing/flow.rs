//! The whole flow over HTTP, and the events that come of it.

use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};
use turnstile_ticketing::topics::{EXPIRATION, ORDERS, PAYMENTS, TICKETS};

use crate::audit::Audit;
use crate::broker::Broker;
use crate::client::Client;
use crate::instance::{Instance, Launch};
use crate::record::text;
use crate::{eventually, pause};

/// Creates a ticket, and gives its id.
pub(crate) fn ticket(seller: &Client, title: &str) -> String {
    let body = json!({"title": title, "price": 10.5});
    text(&seller.post("/api/tickets", &body).ok(201), "id").to_owned()
}

/// Orders a ticket, and gives the order.
pub(crate) fn order(buyer: &Client, ticket: &str) -> Value {
    buyer
        .post("/api/orders", &json!({"ticketId": ticket}))
        .ok(201)
}

/// Waits until the order has this status, and gives it.
pub(crate) fn with_status(buyer: &Client, order: &str, status: &str) -> Value {
    eventually(&format!("{order} is {status}"), || {
        let order = buyer.get(&format!("/api/orders/{order}")).ok(200);
        (order["status"] == status).then_some(order)
    })
}

/// Waits until Tickets shows who holds the ticket.
fn shown(instance: &Instance, ticket: &str, holder: &str) -> Value {
    eventually(&format!("{ticket} shows {holder:?}"), || {
        let ticket = instance
            .client()
            .get(&format!("/api/tickets/{ticket}"))
            .ok(200);
        (text(&ticket, "orderId") == holder).then_some(ticket)
    })
}

#[test]
fn a_ticket_is_created_edited_ordered_and_paid() {
    let broker = Broker::take();
    let instance = Launch::new(&broker, "a").start();
    let (seller, buyer, other) = (
        instance.user("seller"),
        instance.user("buyer"),
        instance.user("other"),
    );

    let created = seller.post("/api/tickets", &json!({"title": "Concert", "price": 10.5}));
    let body = created.ok(201);
    let id = text(&body, "id").to_owned();
    let path = format!("/api/tickets/{id}");
    assert_eq!(
        body,
        json!({"id": id, "title": "Concert", "price": 10.5, "userId": "seller", "version": 0})
    );
    assert_eq!(created.headers["location"], path.as_str());
    assert_eq!(instance.client().get(&path).ok(200), body);

    let edit = json!({"title": "Concert, row 1", "price": 20});
    other.put(&path, &edit).problem(403);
    let edited = seller.put(&path, &edit).ok(200);
    assert_eq!(
        (&edited["version"], &edited["price"]),
        (&json!(1), &json!(20))
    );

    let placed = order(&buyer, &id);
    let order_id = text(&placed, "id").to_owned();
    let expires = text(&placed, "expiresAt").to_owned();
    assert_eq!(
        placed,
        json!({"id": order_id, "userId": "buyer", "status": "created", "expiresAt": expires,
            "version": 0, "ticket": {"id": id, "title": "Concert, row 1", "price": 20}})
    );
    other
        .post("/api/orders", &json!({"ticketId": id}))
        .problem(409);
    assert_eq!(shown(&instance, &id, &order_id)["version"], 2);
    seller.put(&path, &edit).problem(409);
    other.get(&format!("/api/orders/{order_id}")).problem(403);
    other
        .delete(&format!("/api/orders/{order_id}"))
        .problem(403);

    let pay = json!({"orderId": order_id, "token": "tok_visa"});
    other.post("/api/payments", &pay).problem(403);
    let payment = buyer.post("/api/payments", &pay).ok(201);
    let completed = with_status(&buyer, &order_id, "completed");
    assert_eq!(completed["version"], 2);
    buyer.post("/api/payments", &pay).problem(409);
    buyer
        .delete(&format!("/api/orders/{order_id}"))
        .problem(409);
    other
        .post("/api/orders", &json!({"ticketId": id}))
        .problem(409);

    broker.drain();
    let paid = text(&completed, "paymentId");
    assert!(!paid.is_empty());
    assert_eq!(
        broker.events(TICKETS, &id),
        [
            json!({"type": "ticket.created", "id": id, "title": "Concert", "price": 10.5, "userId": "seller", "version": 0}),
            json!({"type": "ticket.updated", "id": id, "title": "Concert, row 1", "price": 20, "userId": "seller", "version": 1}),
            json!({"type": "ticket.updated", "id": id, "title": "Concert, row 1", "price": 20, "version": 2, "orderId": order_id}),
        ]
    );
    assert_eq!(
        broker.events(ORDERS, &order_id),
        [
            json!({"type": "order.created", "id": order_id, "userId": "buyer", "ticketId": id, "price": 20,
                "status": "created", "expiresAt": expires, "version": 0}),
            json!({"type": "order.pending", "orderId": order_id, "status": "pending_payment", "ticketId": id, "version": 1}),
            json!({"type": "order.completed", "id": order_id, "ticketId": id, "userId": "buyer", "status": "completed", "version": 2}),
        ]
    );
    assert_eq!(
        broker.events(PAYMENTS, &order_id),
        [
            json!({"type": "payment.created", "id": payment["id"], "orderId": order_id, "paymentId": paid}),
            json!({"type": "payment.succeeded", "orderId": order_id, "paymentId": paid}),
        ]
    );
    assert_eq!(broker.read(EXPIRATION), []);
    assert_eq!(broker.dead_letters(), []);
    instance.stop();
}

#[test]
fn declined_cancelled_and_expired_orders_free_their_ticket() {
    let broker = Broker::take();
    let instance = Launch::new(&broker, "a").set("ORDER_TTL", "3s").start();
    let (seller, buyer) = (instance.user("seller"), instance.user("buyer"));
    let id = ticket(&seller, "Concert");

    let declined = text(&order(&buyer, &id), "id").to_owned();
    let pay = json!({"orderId": declined, "token": "tok_chargeDeclined"});
    buyer.post("/api/payments", &pay).problem(402);
    assert_eq!(with_status(&buyer, &declined, "failed")["version"], 2);

    // Its end was answered, so the ticket is free at once.
    let cancelled = text(&order(&buyer, &id), "id").to_owned();
    buyer.delete(&format!("/api/orders/{cancelled}")).ok(204);
    assert_eq!(with_status(&buyer, &cancelled, "cancelled")["version"], 1);
    let again = buyer.delete(&format!("/api/orders/{cancelled}"));
    again.problem(409);

    let expired = text(&order(&buyer, &id), "id").to_owned();
    assert_eq!(with_status(&buyer, &expired, "cancelled")["version"], 1);
    let pay = json!({"orderId": expired, "token": "tok_visa"});
    buyer.post("/api/payments", &pay).problem(409);
    let last = eventually("the ticket is free again", || {
        let answer = buyer.post("/api/orders", &json!({"ticketId": id}));
        (answer.status == 201).then(|| text(&answer.json(), "id").to_owned())
    });
    buyer.delete(&format!("/api/orders/{last}")).ok(204);

    broker.drain();
    let types = |topic: &str, key: &str| -> Vec<String> {
        let events = broker.events(topic, key).into_iter();
        events
            .map(|event| text(&event, "type").to_owned())
            .collect()
    };
    assert_eq!(
        types(ORDERS, &declined),
        ["order.created", "order.pending", "order.failed"]
    );
    assert_eq!(
        types(PAYMENTS, &declined),
        ["payment.created", "payment.failed"]
    );
    assert_eq!(
        types(ORDERS, &cancelled),
        ["order.created", "order.cancelled"]
    );
    assert_eq!(
        types(ORDERS, &expired),
        ["order.created", "order.cancelled"]
    );
    assert_eq!(
        broker.events(EXPIRATION, &expired),
        [json!({"type": "expiration.expired", "orderId": expired})]
    );
    let ended = |order: &str, status: &str, version: u64| {
        let mut event = broker.events(ORDERS, order).pop().expect("it ended");
        // The contract leaves it open.
        event
            .as_object_mut()
            .expect("it is an object")
            .remove("expiresAt");
        assert_eq!(
            event,
            json!({"type": format!("order.{status}"), "id": order, "ticketId": id, "userId": "buyer",
                "status": status, "version": version})
        );
    };
    ended(&declined, "failed", 2);
    ended(&cancelled, "cancelled", 1);
    ended(&expired, "cancelled", 1);
    let audit = Audit::at_the_end(&broker);
    audit.sound();
    audit.drained();
    // The timers of orders that have ended are gone.
    pause(Duration::from_secs(4));
    assert_eq!(broker.read(EXPIRATION).len(), 1);
    instance.stop();
}

#[test]
fn what_cannot_be_is_a_problem_document() {
    let broker = Broker::take();
    let instance = Launch::new(&broker, "a").start();
    let (nobody, buyer) = (instance.client(), instance.user("buyer"));
    let unknown = "00000000-0000-4000-a000-000000000000";

    nobody
        .post("/api/tickets", &json!({"title": "x", "price": 1}))
        .problem(401);
    nobody.get("/api/orders").problem(401);
    nobody
        .post(
            "/api/payments",
            &json!({"orderId": unknown, "token": "tok_visa"}),
        )
        .problem(401);
    nobody.get(&format!("/api/tickets/{unknown}")).problem(404);
    nobody.get("/api/nothing").problem(404);
    buyer
        .put(
            &format!("/api/tickets/{unknown}"),
            &json!({"title": "x", "price": 1}),
        )
        .problem(404);
    buyer.get(&format!("/api/orders/{unknown}")).problem(404);
    buyer.delete(&format!("/api/orders/{unknown}")).problem(404);
    buyer
        .post("/api/orders", &json!({"ticketId": unknown}))
        .problem(404);
    buyer
        .post(
            "/api/payments",
            &json!({"orderId": unknown, "token": "tok_visa"}),
        )
        .problem(404);
    for body in [
        json!({"title": "", "price": 1}),
        json!({"title": " ", "price": 1}),
        json!({"title": "x", "price": -0.01}),
        json!({"title": "x", "price": 1e300}),
        json!({"title": "x", "price": "1"}),
        json!({"title": "x".repeat(1_000), "price": 1}),
        json!({"title": "x"}),
        json!([1]),
    ] {
        buyer.post("/api/tickets", &body).problem(400);
    }
    for body in ["", "{", "{\"title\": \"x\", \"price\": 1", "null"] {
        buyer.post_text("/api/tickets", body).problem(400);
        buyer.post_text("/api/orders", body).problem(400);
        buyer.post_text("/api/payments", body).problem(400);
    }
    buyer
        .post("/api/orders", &json!({"ticketId": ""}))
        .problem(400);
    buyer
        .post("/api/orders", &json!({"ticketId": "x".repeat(10_000)}))
        .problem(400);
    buyer
        .post("/api/payments", &json!({"orderId": unknown, "token": ""}))
        .problem(400);
    let endless = json!({"title": "x".repeat(100_000), "price": 1});
    buyer.post("/api/tickets", &endless).problem(413);
    assert_eq!(Audit::of(&broker).tickets().len(), 0);
    assert_eq!(broker.dead_letters(), []);
    instance.stop();
}

#[test]
fn a_retry_with_its_key_gets_the_first_answer_also_after_a_restart() {
    let broker = Broker::take();
    let instance = Launch::new(&broker, "a").start();
    let (seller, buyer) = (instance.user("seller"), instance.user("buyer"));
    let draft = json!({"title": "Concert", "price": 10.5});
    let made = seller.post_again("/api/tickets", &draft, "k").ok(201);
    let of = |ticket: &Value| json!({"ticketId": ticket["id"]});
    let placed = buyer.post_again("/api/orders", &of(&made), "k").ok(201);
    let pay = json!({"orderId": placed["id"], "token": "tok_visa"});
    let paid = buyer.post_again("/api/payments", &pay, "k").ok(201);
    let cancelled = buyer.post_again(
        "/api/payments",
        &json!({"orderId": placed["id"], "token": "tok_other"}),
        "k",
    );
    cancelled.problem(422);

    let retry = |instance: &Instance| {
        let (seller, buyer) = (instance.user("seller"), instance.user("buyer"));
        assert_eq!(seller.post_again("/api/tickets", &draft, "k").ok(201), made);
        let again = buyer.post_again("/api/orders", &of(&made), "k").ok(201);
        assert_eq!(again["id"], placed["id"]);
        assert_eq!(buyer.post_again("/api/payments", &pay, "k").ok(201), paid);
        let other = json!({"title": "Another", "price": 10.5});
        seller.post_again("/api/tickets", &other, "k").problem(422);
        // Keys are scoped to their caller.
        buyer.post_again("/api/tickets", &other, "tickets").ok(201);
        seller.post_again("/api/tickets", &draft, "tickets").ok(201);
    };
    retry(&instance);
    instance.kill();
    let instance = Launch::new(&broker, "a").start();
    retry(&instance);

    broker.drain();
    let audit = Audit::of(&broker);
    audit.sound();
    assert_eq!(audit.count("ticket.created"), 3);
    assert_eq!(audit.count("order.created"), 1);
    assert_eq!(audit.count("payment.created"), 1);
    instance.stop();
}

#[test]
fn with_a_key_only_tokens_name_callers() {
    const KEY: &str = "a key that nobody guesses, of 32 bytes";
    let broker = Broker::take();
    let instance = Launch::new(&broker, "a")
        .set("JWT_KEY", KEY)
        .set("DEV_AUTH", "false")
        .start();
    let bearer = |key: &str, claims: &Value| {
        let token = encode(
            &Header::default(),
            claims,
            &EncodingKey::from_secret(key.as_bytes()),
        );
        let token = token.expect("claims can be signed");
        instance
            .client()
            .with("authorization", format!("Bearer {token}"))
    };
    let draft = json!({"title": "Concert", "price": 10.5});
    instance
        .user("seller")
        .post("/api/tickets", &draft)
        .problem(401);
    bearer(
        "another key, of at least 32 bytes",
        &json!({"id": "seller"}),
    )
    .post("/api/tickets", &draft)
    .problem(401);
    bearer(KEY, &json!({"id": "seller", "exp": 1}))
        .post("/api/tickets", &draft)
        .problem(401);
    let made = bearer(KEY, &json!({"sub": "seller"}))
        .post("/api/tickets", &draft)
        .ok(201);
    assert_eq!(made["userId"], "seller");
    let got = instance
        .client()
        .get(&format!("/api/tickets/{}", text(&made, "id")))
        .ok(200);
    assert_eq!(got, made);
    instance.stop();
}
