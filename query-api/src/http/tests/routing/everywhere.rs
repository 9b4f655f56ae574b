//! Every instance answers everything, while owners come and go.

use super::*;

#[tokio::test]
async fn every_instance_answers_every_read_and_command() {
    let (_, a, b) = two();
    for (here, there) in [(&a.served, &b.served), (&b.served, &a.served)] {
        for ticket in tickets(here).await {
            let path = format!("/api/tickets/{ticket}");
            let read = here.get("", &path).await;
            assert_eq!(
                (read.status, &read.text),
                (200, &there.get("", &path).await.text)
            );
            let edit = json!({"title": "Gala", "price": 2});
            assert_eq!(there.send("seller", "PUT", &path, &edit).await.status, 200);

            let order = here.order("buyer", &ticket).await;
            assert_eq!(
                (order.status, order.json()["ticket"]["title"].clone()),
                (201, json!("Gala"))
            );
            let order = order.field("id");
            let path = format!("/api/orders/{order}");
            assert_eq!(there.get("buyer", &path).await.field("status"), "created");
            assert_eq!(
                there.get("other", &path).await.problem(),
                problem(403, "forbidden")
            );
            let taken = there.order("other", &ticket).await.problem();
            assert_eq!(taken, problem(409, "ticket-reserved"));
            let cancelled = there.send("buyer", "DELETE", &path, &Value::Null).await;
            assert_eq!(cancelled.status, 204);

            let order = there.order("buyer", &ticket).await.field("id");
            assert_eq!(here.pay("buyer", &order, "tok_visa").await.status, 201);
            let path = format!("/api/orders/{order}");
            assert_eq!(there.get("buyer", &path).await.field("status"), "completed");
        }
    }
    for path in ["/api/tickets", "/api/orders"] {
        let (one, other) = (
            a.served.get("buyer", path).await,
            b.served.get("buyer", path).await,
        );
        assert_eq!(one.json(), other.json());
        assert_eq!(one.status, 200);
    }
    let unknown = (0..)
        .map(|n: i32| n.to_string())
        .find(|id| partition(id) == 1);
    let unknown = format!("/api/tickets/{}", unknown.unwrap());
    assert_eq!(
        a.served.get("", &unknown).await.problem(),
        problem(404, "ticket-not-found")
    );
    let known = a.served.get("", "/cluster").await.json();
    assert_eq!(known["instances"][1]["address"], b.address);
}

#[tokio::test]
async fn a_command_is_answered_though_its_owner_changes_while_it_waits() {
    let (world, a, b) = two();
    let c = Member::new(&world, "c");
    let all = [&a, &b, &c];
    // Without the tasks it stays nobody's business where they are.
    a.application().plant(Fault::Deaf);
    (0..PARTITIONS).for_each(|partition| give(&all, partition, &b));
    let body = json!({"title": "Concert", "price": 1});
    let created = a.served.send("seller", "POST", "/api/tickets", &body);
    let changes = async {
        eventually("b is asked", || b.application().anyone_waits()).await;
        (0..PARTITIONS).for_each(|partition| give(&all, partition, &c));
        eventually("c is asked", || c.application().anyone_waits()).await;
        (0..PARTITIONS).for_each(|partition| give(&all, partition, &a));
        eventually("a looks itself", || a.application().anyone_waits()).await;
        world.run();
    };
    let (created, ()) = tokio::join!(created, changes);
    assert_eq!(created.status, 201, "{}", created.text);
}

#[tokio::test]
async fn a_command_is_answered_though_the_store_of_its_owner_fails_while_it_waits() {
    let (world, a, b) = two();
    let ticket = tickets(&a.served).await.remove(1);
    b.application().plant(Fault::Deaf);
    (0..PARTITIONS).for_each(|partition| give(&[&a, &b], partition, &b));
    let path = format!("/api/tickets/{ticket}");
    let edit = json!({"title": "Gala", "price": 2});
    let edited = a.served.send("seller", "PUT", &path, &edit);
    let changes = async {
        eventually("b is asked", || b.application().anyone_waits()).await;
        b.application().plant(Fault::Broken);
        let failed = "ticketing_peer_requests_sent_total{result=\"failed\"} ";
        let begun = Instant::now();
        while !a.served.get("", "/metrics").await.text.contains(failed) {
            assert!(begun.elapsed() < LIMIT, "b is not asked again");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        (0..PARTITIONS).for_each(|partition| give(&[&a, &b], partition, &a));
        world.run();
    };
    let (edited, ()) = tokio::join!(edited, changes);
    assert_eq!(edited.status, 200, "{}", edited.text);
}

#[tokio::test]
async fn a_read_waits_for_the_next_owner_of_a_dead_one() {
    let (_, a, mut b) = two();
    let id = tickets(&a.served).await.remove(1);
    let path = format!("/api/tickets/{id}");
    b.kill();
    let read = a.served.get("", &path);
    let failover = async {
        tokio::time::sleep(RECOVERY_WAIT / 3).await;
        give(&[&a], 1, &a);
    };
    let (read, ()) = tokio::join!(read, failover);
    assert_eq!(read.status, 200, "{}", read.text);
}

#[tokio::test]
async fn where_nobody_answers_it_is_503_after_a_bounded_time() {
    let (_, a, mut b) = two();
    let ids = tickets(&a.served).await;
    let (here, there) = (&ids[0], &ids[1]);
    b.kill();
    // One that accepts connections but does not answer.
    let mute = StdListener::bind("127.0.0.1:0").unwrap();
    let mute = mute.local_addr().map(|addr| (mute, addr)).unwrap();
    let unreachable = Host {
        instance: "u".into(),
        address: None,
        is_local: false,
    };
    let frozen = Host {
        address: Some(mute.1.to_string().into()),
        ..unreachable.clone()
    };
    let dead = b.host(&a);
    for owner in [Some(dead), Some(frozen), Some(unreachable), None] {
        a.application().believe(1, owner.clone());
        let begun = Instant::now();
        let path = format!("/api/tickets/{there}");
        let read = tokio::time::timeout(LIMIT, a.served.get("", &path)).await;
        let read = read.expect("it is bounded");
        assert_eq!(read.problem(), problem(503, "unavailable"), "{owner:?}");
        assert_eq!(read.headers[header::RETRY_AFTER], "1");
        assert!(begun.elapsed() >= RECOVERY_WAIT);
        assert!(
            read.field("detail").contains("partition 1"),
            "{}",
            read.text
        );
        let edit = json!({"title": "Gala", "price": 2});
        let edit = a
            .served
            .send_keyed("seller", "PUT", &path, &edit, Some("k"));
        let edit = tokio::time::timeout(LIMIT, edit)
            .await
            .expect("it is bounded");
        assert_eq!(edit.problem(), problem(503, "unavailable"));
        assert_eq!(edit.field("idempotencyKey"), "k");
        // Local rows are answered as usual.
        let path = format!("/api/tickets/{here}");
        assert_eq!(a.served.get("", &path).await.status, 200);
    }
    // Also where nobody could be asked.
    let metrics = a.served.get("", "/metrics").await.text;
    let counted = "ticketing_peer_requests_sent_total{result=\"no_address\"} ";
    assert!(metrics.contains(counted), "{metrics}");
    // The edits were not written.
    give(&[&a], 1, &a);
    let path = format!("/api/tickets/{there}");
    assert_eq!(a.served.get("", &path).await.field("version"), "0");
}

#[tokio::test]
async fn who_is_asked_never_asks_further() {
    let (_, a, b) = two();
    let id = tickets(&a.served).await.remove(1);
    // Each believes that the other has it, and neither does.
    give(&[&a], 1, &b);
    give(&[&b], 1, &a);
    b.application().leave(1);
    let sent = "ticketing_peer_requests_sent_total{result=\"not_here\"} ";
    let path = format!("/api/tickets/{id}");
    let read = a.served.get("", &path).await;
    assert_eq!(read.problem(), problem(503, "unavailable"));
    let asked = a.served.get("", "/metrics").await.text;
    assert!(asked.contains(sent), "{asked}");
    let asked = b.served.get("", "/metrics").await.text;
    assert!(!asked.contains(sent), "{asked}");

    // Nor is a request passed on that says it comes from an instance already.
    give(&[&a, &b], 1, &b);
    assert_eq!(a.served.get("", &path).await.status, 200);
    let request = Request::get(&path).header(wire::HOP_HEADER, wire::HOP);
    let hopped = a.served.ask(request.body(Body::empty()).unwrap()).await;
    assert_eq!(hopped.problem(), problem(503, "unavailable"));
}
