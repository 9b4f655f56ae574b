//! Retries, and what happens when the application does not answer.

use super::*;

#[tokio::test]
async fn a_retry_names_the_same_ticket_and_order_and_payment() {
    let served = Served::new();
    let mut ids = Vec::new();
    for _ in 0..2 {
        let body = json!({"title": "Concert", "price": 1});
        let ticket = served
            .send_keyed("u", "POST", "/api/tickets", &body, Some("k"))
            .await;
        let body = json!({"ticketId": ticket.field("id")});
        let order = served
            .send_keyed("u", "POST", "/api/orders", &body, Some("k"))
            .await;
        let body = json!({"orderId": order.field("id"), "token": "tok_visa"});
        let payment = served
            .send_keyed("u", "POST", "/api/payments", &body, Some("k"))
            .await;
        assert_eq!([ticket.status, order.status, payment.status], [201; 3]);
        ids.push([ticket.field("id"), order.field("id"), payment.field("id")]);
    }
    assert_eq!(ids[0], ids[1]);
    let orders = served.get("u", "/api/orders").await.json();
    assert_eq!(orders["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn keys_belong_to_their_callers() {
    let served = Served::new();
    let body = json!({"title": "Concert", "price": 1});
    let mine = served
        .send_keyed("u", "POST", "/api/tickets", &body, Some("k"))
        .await;
    let other = served
        .send_keyed("v", "POST", "/api/tickets", &body, Some("k"))
        .await;
    assert_ne!(mine.field("id"), other.field("id"));
}

#[tokio::test]
async fn the_same_key_with_another_body_is_422() {
    let served = Served::new();
    let (one, other) = (served.ticket("A").await, served.ticket("B").await);
    let reused = problem(422, "idempotency-key-reused");
    for (path, body, other_body) in [
        (
            "/api/tickets",
            json!({"title": "A", "price": 1}),
            json!({"title": "A", "price": 2}),
        ),
        (
            "/api/orders",
            json!({"ticketId": one}),
            json!({"ticketId": other}),
        ),
    ] {
        assert_eq!(
            served
                .send_keyed("u", "POST", path, &body, Some("k"))
                .await
                .status,
            201
        );
        let reply = served
            .send_keyed("u", "POST", path, &other_body, Some("k"))
            .await;
        assert_eq!(reply.problem(), reused, "{path}");
        assert_eq!(
            served
                .send_keyed("u", "POST", path, &body, Some("k"))
                .await
                .status,
            201
        );
    }
    assert_eq!(served.order("v", &other).await.status, 201);
}

#[tokio::test]
async fn another_body_is_422_on_an_instance_that_remembers_no_keys() {
    let served = Served::new();
    let body = |price| json!({"title": "A", "price": price});
    let first = served
        .send_keyed("u", "POST", "/api/tickets", &body(1), Some("k"))
        .await;
    assert_eq!(first.status, 201);
    let registry = Registry::new();
    let measures = PeerMeasures::new(&registry).unwrap();
    let api = Api::new(served.instance.clone(), registry, measures, &config(64)).unwrap();
    let other = Served {
        router: router(api),
        ..served
    };
    let reply = other
        .send_keyed("u", "POST", "/api/tickets", &body(2), Some("k"))
        .await;
    assert_eq!(reply.problem(), problem(422, "idempotency-key-reused"));
    // The wrong body does not take the key from the right one.
    let again = other
        .send_keyed("u", "POST", "/api/tickets", &body(1), Some("k"))
        .await;
    assert_eq!((again.status, again.json()), (201, first.json()));
}

#[tokio::test]
async fn a_404_is_not_kept() {
    let served = Served::new();
    let body = json!({"orderId": "o", "token": "t"});
    for _ in 0..2 {
        let pay = served
            .send_keyed(
                "u",
                "POST",
                "/api/orders",
                &json!({"ticketId": "none"}),
                Some("k"),
            )
            .await;
        assert_eq!(pay.problem(), problem(404, "ticket-not-found"));
    }
    let ticket = served.ticket("A").await;
    let order = served
        .send_keyed(
            "u",
            "POST",
            "/api/orders",
            &json!({"ticketId": ticket}),
            Some("k"),
        )
        .await;
    assert_eq!(order.status, 201, "{body}");
}

#[tokio::test]
async fn keys_that_cannot_be_used_are_400() {
    let served = Served::new();
    let body = json!({"title": "A", "price": 1});
    for key in ["", "a b", &"k".repeat(256)] {
        let reply = served
            .send_keyed("u", "POST", "/api/tickets", &body, Some(key))
            .await;
        assert_eq!(
            reply.problem(),
            problem(400, "invalid-idempotency-key"),
            "{key:?}"
        );
    }
}

/// Whether the command is in the topic but nobody decides it, or nobody confirms that it is there.
#[tokio::test]
async fn without_an_outcome_in_time_504_names_the_key_to_ask_again_with() {
    for fault in [Fault::Deaf, Fault::Stalled] {
        let served = Served::new();
        served.application.plant(fault);
        let body = json!({"title": "A", "price": 1});
        let pending = served.send("u", "POST", "/api/tickets", &body).await;
        assert_eq!(pending.problem(), problem(504, "outcome-pending"));
        let key = pending.field("idempotencyKey");
        assert_eq!(pending.headers["idempotency-key"], key.as_str());

        served.application.plant(Fault::Healthy);
        served.application.run();
        let ticket = served
            .send_keyed("u", "POST", "/api/tickets", &body, Some(&key))
            .await;
        assert_eq!(ticket.status, 201);
        let tickets = served.get("", "/api/tickets").await.json();
        assert_eq!(tickets["items"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_command_that_cannot_be_written_is_503() {
    let served = Served::new();
    served.application.plant(Fault::Mute);
    let body = json!({"title": "A", "price": 1});
    let reply = served
        .send_keyed("u", "POST", "/api/tickets", &body, Some("k"))
        .await;
    assert_eq!(reply.problem(), problem(503, "unavailable"));
    assert!(reply.headers.contains_key(header::RETRY_AFTER));
    assert_eq!(reply.field("idempotencyKey"), "k");
    // It is not kept: the key is free for another body.
    served.application.plant(Fault::Healthy);
    let body = json!({"title": "B", "price": 1});
    assert_eq!(
        served
            .send_keyed("u", "POST", "/api/tickets", &body, Some("k"))
            .await
            .status,
        201
    );
}

#[tokio::test]
async fn a_503_names_the_key_wherever_it_comes_from() {
    let served = Served::new();
    served.application.plant(Fault::NotYet);
    let registry = Registry::new();
    let measures = PeerMeasures::new(&registry).unwrap();
    let instance = Arc::new(Instance::new(Service::ALL.into()));
    let api = Api::new(instance.clone(), registry, measures, &config(64)).unwrap();
    let starting = Served {
        router: router(api),
        instance,
        application: served.application.clone(),
    };
    for (served, what) in [(&served, "restoring"), (&starting, "starting")] {
        for (path, body) in [
            ("/api/tickets", json!({"title": "A", "price": 1})),
            ("/api/orders", json!({"ticketId": "t"})),
            ("/api/payments", json!({"orderId": "o", "token": "t"})),
        ] {
            let reply = served.send_keyed("u", "POST", path, &body, Some("k")).await;
            let expected = problem(503, "unavailable");
            assert_eq!(reply.problem(), expected, "{path} while {what}");
            assert_eq!(reply.field("idempotencyKey"), "k");
        }
    }
}

/// A buyer's order, and what pays it.
async fn ordered(served: &Served, token: &str) -> (String, Value) {
    let ticket = served.ticket("Concert").await;
    let order = served.order("buyer", &ticket).await.field("id");
    let payment = json!({"orderId": order, "token": token});
    (format!("/api/orders/{order}"), payment)
}

/// Its command is in the topic, and Payments may read it before it hears of the end.
#[tokio::test]
async fn a_payment_that_may_be_decided_is_not_refused_to_whoever_asks_again() {
    for given in [Some("k"), None] {
        let served = Served::new();
        let (order, payment) = ordered(&served, "tok_visa").await;
        let pay = async |key: Option<&str>| {
            served
                .send_keyed("buyer", "POST", "/api/payments", &payment, key)
                .await
        };
        let pending = problem(504, "outcome-pending");
        served.application.plant(Fault::Deaf);
        let first = pay(given).await;
        assert_eq!(first.problem(), pending);
        let key = first.field("idempotencyKey");

        let cancel = served.send("buyer", "DELETE", &order, &Value::Null).await;
        assert_eq!(cancel.problem(), pending);
        let status = async || served.get("buyer", &order).await.field("status");
        for _ in 0..10 {
            if status().await != "cancelled" {
                served.application.step(0);
            }
        }
        assert_eq!(status().await, "cancelled");
        assert_eq!(pay(Some(key.as_str())).await.problem(), pending);
        // An answer in between that says nothing about the first one does not change that.
        served.application.plant(Fault::NotYet);
        let unavailable = problem(503, "unavailable");
        assert_eq!(pay(Some(key.as_str())).await.problem(), unavailable);
        served.application.plant(Fault::Mute);
        assert_eq!(pay(Some(key.as_str())).await.problem(), unavailable);
        served.application.plant(Fault::Deaf);
        assert_eq!(pay(Some(key.as_str())).await.problem(), pending);

        served.application.plant(Fault::Healthy);
        served.application.run();
        let decided = problem(409, "order-not-payable");
        assert_eq!(pay(Some(key.as_str())).await.problem(), decided);
    }
}

#[tokio::test]
async fn a_payment_that_the_gateway_has_not_answered_is_not_refused_when_its_order_ends() {
    let served = Served::new();
    let (order, payment) = ordered(&served, "tok_timeout").await;
    let pay = async || {
        served
            .send_keyed("buyer", "POST", "/api/payments", &payment, Some("k"))
            .await
    };
    let pending = problem(504, "outcome-pending");
    assert_eq!(pay().await.problem(), pending);
    let cancel = served.send("buyer", "DELETE", &order, &Value::Null).await;
    assert_eq!(cancel.status, 204);
    assert_eq!(pay().await.problem(), pending);
    served.application.advance(Duration::from_secs(3));
    assert_eq!(pay().await.problem(), problem(402, "payment-declined"));
}

#[tokio::test]
async fn a_payment_that_is_refused_is_refused_again() {
    let served = Served::new();
    let (order, payment) = ordered(&served, "tok_visa").await;
    let (_, other) = ordered(&served, "tok_visa").await;
    let cancel = served.send("buyer", "DELETE", &order, &Value::Null).await;
    assert_eq!(cancel.status, 204);
    // A request that is not refused would wait for Payments in vain.
    served.application.plant(Fault::Deaf);
    for _ in 0..3 {
        let refused = served
            .send_keyed("buyer", "POST", "/api/payments", &payment, Some("k"))
            .await;
        assert_eq!(refused.problem(), problem(409, "order-not-payable"));
        // The key is bound to its body, as if Payments had refused it.
        let reused = served
            .send_keyed("buyer", "POST", "/api/payments", &other, Some("k"))
            .await;
        assert_eq!(reused.problem(), problem(422, "idempotency-key-reused"));
    }
}

#[tokio::test]
async fn a_task_that_is_on_its_way_is_waited_for_and_then_503() {
    let served = Served::new();
    served.application.plant(Fault::NotYet);
    let begun = tokio::time::Instant::now();
    let reply = served.get("", "/api/tickets/t").await;
    assert_eq!(reply.problem(), problem(503, "unavailable"));
    assert!(reply.headers.contains_key(header::RETRY_AFTER));
    assert!(begun.elapsed() >= RECOVERY_WAIT);
}

#[tokio::test]
async fn a_store_that_is_broken_is_500() {
    let served = Served::new();
    served.application.plant(Fault::Broken);
    assert_eq!(
        served.get("", "/api/tickets/t").await.problem(),
        problem(500, "internal")
    );
}

#[tokio::test]
async fn a_command_whose_outcome_cannot_be_read_is_504_and_names_the_key() {
    let served = Served::new();
    let ticket = served.ticket("Concert").await;
    served.application.plant(Fault::Deaf);
    let fails = async {
        while !served.application.anyone_waits() {
            tokio::task::yield_now().await;
        }
        served.application.plant(Fault::Broken);
    };
    let (reply, ()) = tokio::join!(served.order("u", &ticket), fails);
    assert_eq!(reply.problem(), problem(504, "outcome-pending"));
    let key = reply.field("idempotencyKey");
    assert_eq!(reply.headers["idempotency-key"], key);
    served.application.plant(Fault::Healthy);
    served.application.run();
    let body = json!({"ticketId": ticket});
    let again = served
        .send_keyed("u", "POST", "/api/orders", &body, Some(&key))
        .await;
    assert_eq!(again.status, 201, "{}", again.text);
}

#[tokio::test]
async fn a_command_that_may_be_written_is_504_and_one_that_is_not_is_503() {
    let served = Served::new();
    let body = json!({"title": "A", "price": 1});
    let post = async |key: Option<&str>| {
        served
            .send_keyed("u", "POST", "/api/tickets", &body, key)
            .await
    };
    served.application.plant(Fault::Mute);
    assert_eq!(post(None).await.problem(), problem(503, "unavailable"));
    served.application.plant(Fault::Unacknowledged);
    let unknown = post(None).await;
    assert_eq!(unknown.problem(), problem(504, "outcome-pending"));
    let key = unknown.field("idempotencyKey");
    served.application.plant(Fault::Healthy);
    let again = post(Some(&key)).await;
    assert_eq!(again.status, 201, "{}", again.text);
    let tickets = served.get("u", "/api/tickets").await.json();
    assert_eq!(tickets["items"].as_array().unwrap().len(), 1);
}
