//! Three instances on one broker: each answers every read and command for every key.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use turnstile_engine::partitioner::partition_of;

use crate::audit::Audit;
use crate::broker::{Broker, PARTITIONS};
use crate::client::Client;
use crate::eventually;
use crate::flow::{order, ticket};
use crate::instance::{Instance, Launch};
use crate::record::text;

/// Waits until these have all tasks among them, each has some, and all know it.
pub(crate) fn share(instances: &[&Instance], all: &BTreeSet<String>) {
    eventually("the tasks are shared, and all know it", || {
        let running: Vec<_> = instances.iter().map(|of| of.running()).collect();
        let count: usize = running.iter().map(BTreeSet::len).sum();
        let union: BTreeSet<_> = running.iter().flatten().cloned().collect();
        let shared = union == *all && count == all.len() && running.iter().all(|of| !of.is_empty());
        let known = || {
            instances
                .iter()
                .all(|of| claims(of) == running_by_size(&running))
        };
        (shared && known()).then_some(())
    });
}

fn running_by_size(running: &[BTreeSet<String>]) -> BTreeSet<BTreeSet<String>> {
    running.iter().cloned().collect()
}

/// Which tasks run together, as an instance sees it.
fn claims(instance: &Instance) -> BTreeSet<BTreeSet<String>> {
    let cluster = instance.client().get("/cluster").ok(200);
    let instances = cluster["instances"].as_array().expect("it is a list");
    let tasks = |of: &Value| -> BTreeSet<String> {
        let tasks = of["tasks"].as_array().expect("it is a list");
        let name = |task: &Value| task.as_str().expect("a task has an id").to_owned();
        tasks.iter().map(name).collect()
    };
    instances.iter().map(tasks).collect()
}

/// Tickets of all partitions, at least one of each.
fn tickets(seller: &Client) -> Vec<String> {
    let mut tickets = Vec::new();
    let mut partitions = BTreeSet::new();
    while partitions.len() < usize::try_from(PARTITIONS).expect("it is positive") {
        let ticket = ticket(seller, "Concert");
        partitions.insert(partition_of(ticket.as_bytes(), PARTITIONS));
        tickets.push(ticket);
    }
    tickets
}

/// What everybody answers, which is the same.
#[track_caller]
fn same(instances: &[&Instance], caller: &str, path: &str) -> Value {
    let mut answers = instances.iter().map(|of| of.user(caller).get(path).ok(200));
    let first = answers.next().expect("there are instances");
    answers.for_each(|answer| assert_eq!(answer, first, "{path}"));
    first
}

#[test]
fn every_instance_answers_everything_and_the_others_go_on_when_one_is_killed() {
    let broker = Broker::take();
    let a = Launch::new(&broker, "a").start();
    let all = a.running();
    let b = Launch::new(&broker, "b").start();
    let c = Launch::new(&broker, "c").start();
    share(&[&a, &b, &c], &all);

    let instances = [&a, &b, &c];
    let mut sold = Vec::new();
    let mut free = Vec::new();
    for (here, there, third) in [(&a, &b, &c), (&b, &c, &a), (&c, &a, &b)] {
        for ticket in tickets(&here.user("seller")) {
            let path = format!("/api/tickets/{ticket}");
            same(&instances, "nobody", &path);
            let edit = json!({"title": "Gala", "price": 20});
            third.user("seller").put(&path, &edit).ok(200);
            assert_eq!(same(&instances, "nobody", &path)["title"], "Gala");

            let placed = order(&there.user("buyer"), &ticket);
            let path = format!("/api/orders/{}", text(&placed, "id"));
            assert_eq!(same(&instances, "buyer", &path), placed);
            here.user("other").get(&path).problem(403);
            let taken = json!({"ticketId": ticket});
            third.user("other").post("/api/orders", &taken).problem(409);
            third.user("buyer").delete(&path).ok(204);
            assert_eq!(same(&instances, "buyer", &path)["status"], "cancelled");
            free.push(ticket);
        }
        for ticket in tickets(&here.user("seller")) {
            let placed = order(&third.user("buyer"), &ticket);
            let pay = json!({"orderId": placed["id"], "token": "tok_visa"});
            let paid = there
                .user("buyer")
                .post_again("/api/payments", &pay, &ticket);
            // A retry elsewhere is the same payment.
            let again = here
                .user("buyer")
                .post_again("/api/payments", &pay, &ticket);
            assert_eq!(paid.ok(201), again.ok(201));
            let path = format!("/api/orders/{}", text(&placed, "id"));
            assert_eq!(same(&instances, "buyer", &path)["status"], "completed");
            sold.push(ticket);
        }
    }
    broker.drain();
    for path in ["/api/tickets?limit=200", "/api/orders?limit=200"] {
        let list = same(&instances, "buyer", path);
        let items = list["items"].as_array().expect("it is a list");
        assert_eq!(items.len(), sold.len() + free.len(), "{list}");
    }

    c.kill();
    let rest = [&a, &b];
    for ticket in sold.iter().chain(&free) {
        let path = format!("/api/tickets/{ticket}");
        for instance in rest {
            eventually(&format!("{path} is back"), || {
                let answer = instance.client().get(&path);
                if answer.status == 503 {
                    answer.problem(503);
                    assert_eq!(answer.headers["retry-after"], "1");
                    return None;
                }
                Some(answer.ok(200))
            });
        }
    }
    share(&rest, &all);
    for (ticket, instance) in free.iter().zip(rest.into_iter().cycle()) {
        let placed = order(&instance.user("late"), ticket);
        let path = format!("/api/orders/{}", text(&placed, "id"));
        assert_eq!(same(&rest, "late", &path), placed);
    }
    // Tickets hears of the orders a moment later, between the answers of two instances perhaps.
    broker.drain();
    for path in ["/api/tickets?limit=200", "/api/orders?limit=200"] {
        let list = same(&rest, "buyer", path);
        assert!(list.get("missingPartitions").is_none(), "{list}");
    }
    let audit = Audit::of(&broker);
    audit.sound();
    audit.drained();
    assert_eq!(audit.count("order.completed"), sold.len());
    assert_eq!(audit.count("order.cancelled"), free.len());
    a.stop();
    b.stop();
}

#[test]
fn rows_are_read_by_instances_with_the_same_key_only() {
    let broker = Broker::take();
    let launch = |id, key| Launch::new(&broker, id).set("CLUSTER_KEY", key);
    let a = launch("a", "one key").start();
    let all = a.running();
    let b = launch("b", "another key").start();
    share(&[&a, &b], &all);
    let missing = a.client().get("/api/tickets").ok(200);
    let missing = missing["missingPartitions"].as_array().map(Vec::len);
    assert!(missing.is_some_and(|missing| missing > 0));
    assert!(a.log().contains("CLUSTER_KEY"), "{}", a.log());
    assert!(!a.log().contains("one key"));
    b.stop();
    let b = launch("b", "one key").start();
    share(&[&a, &b], &all);
    let whole = a.client().get("/api/tickets").ok(200);
    assert!(whole.get("missingPartitions").is_none(), "{whole}");
    a.stop();
    b.stop();
}
