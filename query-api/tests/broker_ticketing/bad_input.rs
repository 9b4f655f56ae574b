//! Bad input of every kind, on every topic that others can write to.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use turnstile_ticketing::topics::{
    self, EXPIRATION, ORDER_COMMANDS, ORDERS, PAYMENTS, TICKET_COMMANDS, TICKETS,
};

use crate::audit::Audit;
use crate::broker::Broker;
use crate::flow::{order, ticket, with_status};
use crate::instance::Launch;
use crate::metrics::Samples;
use crate::record::{Record, text};

type Bytes = Vec<u8>;

/// For each topic a value that is right, as far as one record can be.
fn right(topic: &str) -> Value {
    match topic {
        TICKETS => {
            json!({"type": "ticket.created", "id": "x", "title": "a", "price": 1, "userId": "u", "version": 0})
        }
        ORDERS => {
            json!({"type": "order.created", "id": "x", "userId": "u", "ticketId": "t", "price": 1,
            "status": "created", "expiresAt": "2026-01-31T09:30:00.000Z", "version": 0})
        }
        PAYMENTS => json!({"type": "payment.succeeded", "orderId": "x", "paymentId": "p"}),
        EXPIRATION => json!({"type": "expiration.expired", "orderId": "x"}),
        TICKET_COMMANDS => {
            json!({"type": "order.create", "commandId": "c", "orderId": "x", "ticketId": "t", "userId": "u"})
        }
        ORDER_COMMANDS => {
            json!({"type": "payment.create", "commandId": "c", "orderId": "x", "userId": "u", "token": "t"})
        }
        _ => unreachable!("the contract has no topic {topic}"),
    }
}

/// Values that nobody can read, each with what is to be said of it.
fn bad(topic: &str) -> Vec<(Option<Bytes>, &'static str)> {
    let right = right(topic);
    let with = |change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
        let mut value = right.clone();
        change(value.as_object_mut().expect("events are objects"));
        Some(value.to_string().into_bytes())
    };
    let ids = |value: Value| {
        with(&move |fields| {
            let names = fields
                .iter()
                .filter(|(name, _)| matches!(name.as_str(), "id" | "orderId"));
            let names: Vec<String> = names.map(|(name, _)| name.clone()).collect();
            for name in names {
                fields.insert(name, value.clone());
            }
        })
    };
    let whole = right.to_string().into_bytes();
    let cut = |at: usize| Some(whole.iter().copied().take(at).collect::<Bytes>());
    vec![
        (None, "null_value"),
        (Some(Vec::new()), "not_json"),
        (cut(whole.len() - 1), "not_json"),
        (cut(whole.len() / 2), "not_json"),
        (Some(b"nonsense".to_vec()), "not_json"),
        (Some(b"\xff\xfe\x00".to_vec()), "not_json"),
        (Some(vec![b'['; 5_000]), "not_object"),
        (Some(b"[1]".to_vec()), "not_object"),
        (Some(b"\"text\"".to_vec()), "not_object"),
        (Some(b"null".to_vec()), "not_object"),
        (with(&|fields| drop(fields.remove("type"))), "missing_field"),
        (
            with(&|fields| fields.retain(|name, _| name == "type")),
            "missing_field",
        ),
        (
            with(&|fields| drop(fields.insert("type".into(), json!(7)))),
            "wrong_type",
        ),
        (ids(json!(7)), "wrong_type"),
        (ids(json!({"nested": "x"})), "wrong_type"),
        (ids(json!("")), "invalid_field"),
        (ids(json!("x".repeat(100_000))), "invalid_field"),
    ]
}

/// What was said: topic, key, value, and the fault that is to be found in it.
type Letter<'a> = (&'a str, Option<&'a [u8]>, Option<Bytes>, &'a str);

#[test]
fn bad_input_becomes_dead_letters_and_stops_nothing() {
    let broker = Broker::take();
    let mut instance = Launch::new(&broker, "a").start();
    let (seller, buyer) = (instance.user("seller"), instance.user("buyer"));
    // What happened while it started was not the input's fault.
    let rejoins = Samples::of(&instance).sum("turnstile_rejoins_total", &[]);
    let keys: [Option<&[u8]>; 3] = [None, Some(b"foreign"), Some(b"\xff\x00")];
    let unknown = json!({"type": "something.new", "id": 7, "price": "much"}).to_string();

    let mut said: Vec<Letter<'_>> = Vec::new();
    let mut sold = Vec::new();
    for topic in topics::ALL {
        for (number, (value, kind)) in bad(topic).into_iter().enumerate() {
            let key = keys[number % keys.len()];
            broker.append(topic, None, key, value.as_deref());
            said.push((topic, key, value, kind));
        }
        broker.append(topic, None, None, Some(unknown.as_bytes()));
        // The good ones between them are seen as if nothing had been.
        let ticket = ticket(&seller, topic);
        let order = text(&order(&buyer, &ticket), "id").to_owned();
        let pay = json!({"orderId": order, "token": "tok_visa"});
        buyer.post("/api/payments", &pay).ok(201);
        sold.push(order);
    }
    for order in &sold {
        with_status(&buyer, order, "completed");
    }
    broker.drain();

    // Where each lies that is to be a dead letter.
    let mut expected: BTreeMap<(String, String, String), (Record, &str)> = BTreeMap::new();
    for topic in topics::ALL {
        for record in broker.read(topic) {
            let mine = said.iter().find(|(of, key, value, _)| {
                *of == topic && record.key.as_deref() == *key && record.value == *value
            });
            if let Some((_, _, _, kind)) = mine {
                let place = (
                    topic.to_owned(),
                    record.partition.to_string(),
                    record.offset.to_string(),
                );
                expected.insert(place, (record, kind));
            }
        }
    }
    assert_eq!(expected.len(), said.len());
    let letters = broker.dead_letters();
    for letter in &letters {
        let header = |name: &str| {
            let value = letter.header(&format!("__streams.errors.{name}"));
            value.expect("a dead letter says where it was").to_owned()
        };
        let place = (header("topic"), header("partition"), header("offset"));
        let (record, kind) = expected
            .remove(&place)
            .unwrap_or_else(|| panic!("{place:?} is a dead letter twice, or should not be"));
        assert_eq!(
            (&letter.key, &letter.value),
            (&record.key, &record.value),
            "{place:?}"
        );
        assert_eq!(header("exception"), kind, "{place:?}");
        assert!(!header("message").is_empty());
    }
    assert!(
        expected.is_empty(),
        "without a dead letter: {:?}",
        expected.keys()
    );

    let samples = Samples::of(&instance);
    let counted = samples.sum("turnstile_records_dead_lettered_total", &[]);
    assert_eq!(counted, letters.len() as f64);
    for topic in topics::ALL {
        let labels = [
            format!("topic=\"{topic}\""),
            "reason=\"unknown_type\"".to_owned(),
        ];
        let labels = labels.each_ref().map(String::as_str);
        assert!(
            samples.sum("turnstile_records_dropped_total", &labels) >= 1.0,
            "{topic}"
        );
    }
    assert_eq!(samples.sum("turnstile_rejoins_total", &[]), rejoins);
    assert!(instance.lives());
    assert_eq!(instance.health().map(|health| health.status), Some(200));
    instance.stop();
}

/// A record that is nearly as long as the broker takes: with what is said of it, its
/// dead letter is longer still.
#[test]
fn the_longest_records_stop_nothing() {
    let broker = Broker::take();
    let instance = Launch::new(&broker, "a").start();
    let (seller, buyer) = (instance.user("seller"), instance.user("buyer"));
    let longest = random_text(1_048_000);
    for topic in topics::ALL {
        broker.append(topic, None, Some(b"key"), Some(&longest));
    }
    broker.flush();
    let order = order(&buyer, &ticket(&seller, "Concert"));
    let pay = json!({"orderId": order["id"], "token": "tok_visa"});
    buyer.post("/api/payments", &pay).ok(201);
    broker.drain();
    let letters = broker.dead_letters();
    assert_eq!(letters.len(), topics::ALL.len());
    assert!(
        letters
            .iter()
            .all(|letter| letter.value.as_deref() == Some(&longest))
    );
    Audit::of(&broker).tickets();
    instance.stop();
}

/// Text that does not compress.
fn random_text(length: usize) -> Bytes {
    let mut text = Vec::new();
    while text.len() < length {
        text.extend_from_slice(uuid::Uuid::new_v4().as_bytes());
    }
    text.truncate(length);
    text
}
