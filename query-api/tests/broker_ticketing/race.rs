//! Many buyers for one ticket.

use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;
use turnstile_ticketing::topics::ORDERS;

use crate::audit::Audit;
use crate::broker::{Broker, RUNTIME};
use crate::instance::{Instance, Launch};
use crate::record::{kind, text};

const TICKETS: usize = 4;
const BUYERS: usize = 40;

/// All buyers at once want all tickets; gives the winner of each, and its order.
fn race(instance: &Instance, tickets: &[String]) -> Vec<(String, String)> {
    let mut calls = JoinSet::new();
    for ticket in tickets {
        for buyer in 0..BUYERS {
            let client = instance.user(&format!("buyer-{buyer}"));
            let body = json!({"ticketId": ticket}).to_string();
            let ticket = ticket.clone();
            let call = async move {
                let answer = client.try_call(Method::POST, "/api/orders", Some(body), None);
                (ticket, buyer, answer.await.expect("it answers"))
            };
            calls.spawn_on(call, RUNTIME.handle());
        }
    }
    let answers = RUNTIME.block_on(calls.join_all());
    let winners = tickets.iter().map(|ticket| {
        let mine = answers.iter().filter(|(of, _, _)| of == ticket);
        let mut won = Vec::new();
        for (_, buyer, answer) in mine {
            if answer.status == 201 {
                let order = answer.json()["id"].as_str().expect("an id").to_owned();
                won.push((format!("buyer-{buyer}"), order));
            } else {
                answer.problem(409);
            }
        }
        assert_eq!(won.len(), 1, "{ticket} was won by {won:?}");
        won.remove(0)
    });
    winners.collect()
}

#[test]
fn of_many_buyers_exactly_one_gets_the_ticket() {
    let broker = Broker::take();
    let instance = Launch::new(&broker, "a").start();
    let seller = instance.user("seller");
    let tickets: Vec<String> = (0..TICKETS)
        .map(|number| {
            let body = json!({"title": format!("Row {number}"), "price": 10});
            let ticket = seller.post("/api/tickets", &body).ok(201);
            text(&ticket, "id").to_owned()
        })
        .collect();

    let winners = race(&instance, &tickets);
    for (buyer, order) in &winners {
        let cancelled = instance.user(buyer).delete(&format!("/api/orders/{order}"));
        cancelled.ok(204);
    }
    let second = race(&instance, &tickets);
    assert!(second.iter().all(|winner| !winners.contains(winner)));

    broker.drain();
    let audit = Audit::of(&broker);
    audit.sound();
    audit.drained();
    let created = broker.read(ORDERS);
    let created = created
        .iter()
        .filter(|record| kind(&record.json()) == "order.created");
    assert_eq!(created.count(), 2 * TICKETS);
    instance.stop();
}
