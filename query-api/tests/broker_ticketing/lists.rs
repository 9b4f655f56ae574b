//! Lists, read page by page.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::broker::Broker;
use crate::flow::{order, ticket};
use crate::instance::Launch;
use crate::record::text;

#[test]
fn pages_have_every_item_once() {
    let broker = Broker::take();
    let instance = Launch::new(&broker, "a").start();
    let seller = instance.user("seller");
    let tickets: BTreeSet<String> = (0..11)
        .map(|n| ticket(&seller, &format!("Row {n}")))
        .collect();
    let (one, other) = (instance.user("one"), instance.user("other"));
    let ordered = |caller: &crate::client::Client, from: usize, count: usize| -> BTreeSet<String> {
        let tickets = tickets.iter().skip(from).take(count);
        tickets
            .map(|ticket| text(&order(caller, ticket), "id").to_owned())
            .collect()
    };
    let (of_one, of_other) = (ordered(&one, 0, 7), ordered(&other, 7, 2));

    let ids = |items: Vec<Value>| -> BTreeSet<String> {
        let count = items.len();
        let ids: BTreeSet<_> = items
            .iter()
            .map(|item| text(item, "id").to_owned())
            .collect();
        assert_eq!(ids.len(), count, "an item comes twice");
        ids
    };
    for limit in [1, 2, 3, 200] {
        assert_eq!(ids(instance.client().list("/api/tickets", limit)), tickets);
        assert_eq!(ids(one.list("/api/orders", limit)), of_one);
        assert_eq!(ids(other.list("/api/orders", limit)), of_other);
        assert_eq!(
            instance.user("third").list("/api/orders", limit),
            Vec::<Value>::new()
        );
    }
    for query in [
        "limit=0",
        "limit=x",
        "limit=1000000",
        "cursor=x",
        "cursor=00",
    ] {
        instance
            .client()
            .get(&format!("/api/tickets?{query}"))
            .problem(400);
        one.get(&format!("/api/orders?{query}")).problem(400);
    }
    instance.stop();
}
