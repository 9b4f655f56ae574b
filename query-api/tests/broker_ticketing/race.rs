//! Many buyers for one ticket.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use turnstile_ticketing::topics::ORDERS;

use crate::audit::Audit;
use crate::broker::{Broker, RUNTIME};
use crate::instance::{Instance, Launch};
use crate::record::{kind, text};

const TICKETS: usize = 4;
const BUYERS: usize = 40;

/// All buyers at once want all tickets; gives the winner of each, and its order.
fn race(instance: &Instance, tickets: &[String]) -> Vec<(String, String)> {
    let calls = tickets.iter().flat_map(|ticket| {
        (0..BUYERS).map(move |buyer| {
            let client = instance.user(&format!("buyer-{buyer}"));
            let body = json!({"ticketId": ticket}).to_string();
            async move {
                let path = "/api/orders";
                let answer = client.try_call(Method::POST, path, Some(body), None);
                (ticket, buyer, answer.await.expect("it answers"))
            }
        })
    });
    let answers = RUNTIME.block_on(join_all(calls));
    let winners = tickets.iter().map(|ticket| {
        let mine = answers.iter().filter(|(of, _, _)| *of == ticket);
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
