//! The routes of the contract and their errors.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use turnstile_ticketing::ids::TicketId;

use super::*;

#[tokio::test]
async fn a_ticket_is_created_read_and_edited() {
    let served = Served::new();
    let body = json!({"title": "Concert", "price": 10.5});
    let created = served.send("seller", "POST", "/api/tickets", &body).await;
    assert_eq!(created.status, 201);
    let id = created.field("id");
    assert_eq!(
        created.headers[header::LOCATION],
        format!("/api/tickets/{id}")
    );
    let path = format!("/api/tickets/{id}");
    let expected =
        json!({"id": id, "title": "Concert", "price": 10.5, "userId": "seller", "version": 0});
    assert_eq!(created.json(), expected);
    assert_eq!(served.get("", &path).await.json(), expected);

    let edited = served
        .send(
            "seller",
            "PUT",
            &path,
            &json!({"title": "Gala", "price": 12}),
        )
        .await;
    let expected =
        json!({"id": id, "title": "Gala", "price": 12, "userId": "seller", "version": 1});
    assert_eq!((edited.status, edited.json()), (200, expected.clone()));
    assert_eq!(served.get("", &path).await.json(), expected);
    // The edit reaches the next order too.
    let order = served.order("buyer", &id).await;
    assert_eq!(
        order.json()["ticket"],
        json!({"id": id, "title": "Gala", "price": 12})
    );
}

#[tokio::test]
async fn what_a_ticket_cannot_be_is_400() {
    let served = Served::new();
    for body in [
        json!({"title": "", "price": 1}),
        json!({"title": " ", "price": 1}),
        json!({"title": "x".repeat(201), "price": 1}),
        json!({"title": "a", "price": -1}),
        json!({"title": "a", "price": 1_000_000_001}),
    ] {
        let reply = served.send("seller", "POST", "/api/tickets", &body).await;
        assert_eq!(reply.problem(), problem(400, "invalid-value"), "{body}");
    }
    for body in [
        json!({}),
        json!({"title": "a"}),
        json!({"title": "a", "price": "1"}),
        json!([]),
        json!(["Concert", 10.5]),
        json!("Concert"),
    ] {
        let reply = served.send("seller", "POST", "/api/tickets", &body).await;
        assert_eq!(reply.problem(), problem(400, "invalid-body"), "{body}");
    }
    let truncated = Request::post("/api/tickets")
        .header("x-user-id", "u")
        .body(Body::from("{\"title"));
    assert_eq!(
        served.ask(truncated.unwrap()).await.problem(),
        problem(400, "invalid-body")
    );
    let empty = served.send("u", "POST", "/api/orders", &Value::Null).await;
    assert_eq!(empty.problem(), problem(400, "invalid-body"));
}

#[tokio::test]
async fn editing_has_its_errors() {
    let served = Served::new();
    let id = served.ticket("Concert").await;
    let (path, body) = (
        format!("/api/tickets/{id}"),
        json!({"title": "Gala", "price": 1}),
    );
    let edit = async |user: &str, path: &str| served.send(user, "PUT", path, &body).await.problem();
    assert_eq!(edit("", &path).await, problem(401, "unauthenticated"));
    assert_eq!(edit("other", &path).await, problem(403, "forbidden"));
    assert_eq!(
        edit("seller", "/api/tickets/none").await,
        problem(404, "ticket-not-found")
    );
    assert_eq!(served.order("buyer", &id).await.status, 201);
    assert_eq!(edit("seller", &path).await, problem(409, "ticket-reserved"));
    let ticket = served.get("", &path).await;
    assert_eq!(
        (ticket.field("title"), ticket.field("version")),
        ("Concert".to_owned(), "1".to_owned())
    );
    assert!(ticket.json().get("orderId").is_some());
}

#[tokio::test]
async fn an_order_is_made_read_and_cancelled() {
    let served = Served::new();
    let ticket = served.ticket("Concert").await;
    let order = served.order("buyer", &ticket).await;
    assert_eq!(order.status, 201);
    let id = order.field("id");
    let expected = json!({
        "id": id, "userId": "buyer", "status": "created", "version": 0,
        "expiresAt": "2023-11-14T22:15:20.000Z",
        "ticket": {"id": ticket, "title": "Concert", "price": 10.5},
    });
    assert_eq!(order.json(), expected);
    let path = format!("/api/orders/{id}");
    assert_eq!(served.get("buyer", &path).await.json(), expected);
    assert_eq!(
        served.order("other", &ticket).await.problem(),
        problem(409, "ticket-reserved")
    );

    let cancelled = served.send("buyer", "DELETE", &path, &Value::Null).await;
    assert_eq!((cancelled.status, cancelled.text.as_str()), (204, ""));
    assert_eq!(
        served.get("buyer", &path).await.field("status"),
        "cancelled"
    );
    assert_eq!(served.order("other", &ticket).await.status, 201);
}

#[tokio::test]
async fn orders_have_their_errors() {
    let served = Served::new();
    let ticket = served.ticket("Concert").await;
    assert_eq!(
        served.order("", &ticket).await.problem(),
        problem(401, "unauthenticated")
    );
    assert_eq!(
        served.order("buyer", "none").await.problem(),
        problem(404, "ticket-not-found")
    );
    assert_eq!(
        served.order("buyer", "").await.problem(),
        problem(400, "invalid-value")
    );
    for body in [json!({}), json!([ticket])] {
        let reply = served.send("buyer", "POST", "/api/orders", &body).await;
        assert_eq!(reply.problem(), problem(400, "invalid-body"), "{body}");
    }
    let id = served.order("buyer", &ticket).await.field("id");
    let path = format!("/api/orders/{id}");
    for (method, user, path, expected) in [
        ("GET", "", path.as_str(), problem(401, "unauthenticated")),
        ("GET", "other", &path, problem(403, "forbidden")),
        (
            "GET",
            "buyer",
            "/api/orders/none",
            problem(404, "order-not-found"),
        ),
        ("GET", "", "/api/orders", problem(401, "unauthenticated")),
        ("DELETE", "", &path, problem(401, "unauthenticated")),
        ("DELETE", "other", &path, problem(403, "forbidden")),
        (
            "DELETE",
            "buyer",
            "/api/orders/none",
            problem(404, "order-not-found"),
        ),
    ] {
        let reply = served.send(user, method, path, &Value::Null).await;
        assert_eq!(reply.problem(), expected, "{method} {user} {path}");
    }
    assert_eq!(
        served
            .send("buyer", "DELETE", &path, &Value::Null)
            .await
            .status,
        204
    );
    let again = served.send("buyer", "DELETE", &path, &Value::Null).await;
    assert_eq!(again.problem(), problem(409, "order-finished"));
}

#[tokio::test]
async fn an_order_expires() {
    let served = Served::new();
    let ticket = served.ticket("Concert").await;
    let path = format!(
        "/api/orders/{}",
        served.order("buyer", &ticket).await.field("id")
    );
    served.application.advance(Duration::from_secs(121));
    assert_eq!(
        served.get("buyer", &path).await.field("status"),
        "cancelled"
    );
}

#[tokio::test]
async fn an_order_is_paid_once() {
    let served = Served::new();
    let ticket = served.ticket("Concert").await;
    let id = served.order("buyer", &ticket).await.field("id");
    let paid = served.pay("buyer", &id, "tok_visa").await;
    assert_eq!(paid.status, 201);
    assert_eq!(paid.json(), json!({"id": paid.field("id")}));
    let order = served
        .get("buyer", &format!("/api/orders/{id}"))
        .await
        .json();
    assert_eq!(order["status"], "completed");
    assert!(order["paymentId"].is_string(), "{order}");
    assert_eq!(
        served.pay("buyer", &id, "tok_visa").await.problem(),
        problem(409, "order-not-payable")
    );
    assert_eq!(
        served.pay("other", &id, "tok_visa").await.problem(),
        problem(403, "forbidden")
    );
}

#[tokio::test]
async fn a_declined_payment_is_402_and_frees_the_ticket() {
    let served = Served::new();
    let ticket = served.ticket("Concert").await;
    let id = served.order("buyer", &ticket).await.field("id");
    let declined = served.pay("buyer", &id, "tok_chargeDeclined").await;
    assert_eq!(declined.problem(), problem(402, "payment-declined"));
    assert_eq!(
        served
            .get("buyer", &format!("/api/orders/{id}"))
            .await
            .field("status"),
        "failed"
    );
    assert_eq!(served.order("other", &ticket).await.status, 201);
}

#[tokio::test]
async fn payments_have_their_errors() {
    let served = Served::new();
    let ticket = served.ticket("Concert").await;
    let id = served.order("buyer", &ticket).await.field("id");
    assert_eq!(
        served.pay("", &id, "t").await.problem(),
        problem(401, "unauthenticated")
    );
    assert_eq!(
        served.pay("other", &id, "t").await.problem(),
        problem(403, "forbidden")
    );
    assert_eq!(
        served.pay("buyer", &id, "").await.problem(),
        problem(400, "invalid-value")
    );
    assert_eq!(
        served.pay("buyer", "", "t").await.problem(),
        problem(400, "invalid-value")
    );
    for body in [json!({"orderId": id}), json!([id, "tok_visa"])] {
        let reply = served.send("buyer", "POST", "/api/payments", &body).await;
        assert_eq!(reply.problem(), problem(400, "invalid-body"), "{body}");
    }
    let cancelled = served
        .send(
            "buyer",
            "DELETE",
            &format!("/api/orders/{id}"),
            &Value::Null,
        )
        .await;
    assert_eq!(cancelled.status, 204);
    assert_eq!(
        served.pay("buyer", &id, "t").await.problem(),
        problem(409, "order-not-payable")
    );
}

#[tokio::test]
async fn an_order_that_ended_is_not_charged_though_payments_does_not_know_yet() {
    let served = Served::new();
    let ticket = served.ticket("Concert").await;
    let id = served.order("buyer", &ticket).await.field("id");
    assert_eq!(
        served
            .send(
                "buyer",
                "DELETE",
                &format!("/api/orders/{id}"),
                &Value::Null
            )
            .await
            .status,
        204
    );
    served.application.plant(Fault::Deaf);
    assert_eq!(
        served.pay("buyer", &id, "t").await.problem(),
        problem(409, "order-not-payable")
    );
}

/// Payments learns of orders later than Orders, and gives up on one after some seconds.
#[tokio::test]
async fn an_order_that_only_payments_does_not_know_is_503_and_not_404() {
    let served = Served::new();
    let ticket = served.ticket("Concert").await;
    let pay = async |order: &str, meanwhile: &dyn Fn()| {
        let paid = served.pay("buyer", order, "tok_visa");
        let given_up = async {
            while !served.application.anyone_waits() {
                tokio::task::yield_now().await;
            }
            served.application.run();
            served.application.advance(Duration::from_secs(6));
            meanwhile();
            served.application.run();
        };
        tokio::join!(paid, given_up).0
    };
    served.application.plant(Fault::Deaf);
    let missing = problem(404, "order-not-found");
    assert_eq!(pay("none", &|| {}).await.problem(), missing);
    let make = |user: &str, order: &str| {
        let command = json!({"type": "order.create", "commandId": order, "orderId": order,
            "ticketId": ticket, "userId": user});
        let topic = turnstile_ticketing::topics::TICKET_COMMANDS;
        served
            .application
            .pipe(topic, &ticket, &command.to_string());
    };
    let unknown_yet = pay("o", &|| make("buyer", "o")).await;
    assert_eq!(unknown_yet.problem(), problem(503, "unavailable"));
    assert!(unknown_yet.headers.contains_key("idempotency-key"));
    served.application.plant(Fault::Healthy);
    assert_eq!(served.pay("buyer", "o", "tok_visa").await.status, 201);
}

#[tokio::test]
async fn the_write_routes_of_a_service_that_runs_elsewhere_are_404() {
    let served = Served::of(&[Service::Expiration], 64);
    for (method, path) in [
        ("POST", "/api/tickets"),
        ("PUT", "/api/tickets/t"),
        ("POST", "/api/orders"),
        ("DELETE", "/api/orders/o"),
        ("POST", "/api/payments"),
        ("GET", "/api/orders/o"),
        ("GET", "/api/tickets/t"),
    ] {
        let missing = problem(404, "route-not-found");
        let reply = served.send("user", method, path, &Value::Null).await;
        assert_eq!(reply.problem(), missing, "{method} {path}");
        // Whatever else is wrong with the request.
        if method != "GET" {
            let request = Request::builder().method(method).uri(path);
            let request = request.header("idempotency-key", "");
            let reply = served.ask(request.body(Body::from("{")).unwrap()).await;
            assert_eq!(reply.problem(), missing, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_ticket_can_be_written_where_orders_runs_elsewhere() {
    let served = Served::of(&[Service::Tickets], 64);
    let id = served.ticket("Concert").await;
    assert_eq!(
        served.get("", &format!("/api/tickets/{id}")).await.status,
        200
    );
}

#[tokio::test]
async fn an_answer_comes_only_when_its_effects_can_be_read() {
    // Whichever of the services hears of something first.
    for seed in 0..32 {
        let served = Served::new();
        served.application.plant(Fault::Deaf);
        let (mut done, mut choice) = (pin!(effects_can_be_read(&served)), seed);
        // The committed state is looked at before anything else.
        while !poll_fn(|context| Poll::Ready(done.as_mut().poll(context).is_ready())).await {
            if served.application.anyone_waits() {
                served.application.step(choice);
                choice = choice.wrapping_mul(31).wrapping_add(7) >> 2;
            }
            tokio::task::yield_now().await;
        }
    }
}

async fn effects_can_be_read(served: &Served) {
    let ticket = served.ticket("Concert").await;
    let id = TicketId::new(ticket.as_str()).unwrap();
    let catalog = |version| {
        let listed = served.application.listed_ticket(&id).unwrap();
        assert_eq!(listed.terms.version, version);
    };
    let ticket_path = format!("/api/tickets/{ticket}");
    let edit = async |title: &str| {
        let edit = json!({"title": title, "price": 1});
        served.send("seller", "PUT", &ticket_path, &edit).await
    };
    catalog(0);
    assert_eq!(edit("Gala").await.status, 200);
    catalog(1);

    // To be ordered, and to be edited.
    let is_free = async |title: &str| {
        let listed = served.application.listed_ticket(&id).unwrap();
        assert!(listed.given.is_none());
        let shown = served.get("", &ticket_path).await.json();
        assert_eq!(shown.get("orderId"), None);
        assert_eq!(edit(title).await.status, 200);
    };
    let order = served.order("buyer", &ticket).await.field("id");
    let path = format!("/api/orders/{order}");
    let cancelled = served.send("buyer", "DELETE", &path, &Value::Null).await;
    assert_eq!(cancelled.status, 204);
    is_free("Matinee").await;

    let order = served.order("buyer", &ticket).await.field("id");
    let declined = served.pay("buyer", &order, "tok_chargeDeclined").await;
    assert_eq!(declined.status, 402);
    is_free("Soiree").await;
    let status = async |order: &str| {
        let path = format!("/api/orders/{order}");
        served.get("buyer", &path).await.field("status")
    };
    assert_eq!(status(&order).await, "failed");

    let order = served.order("buyer", &ticket).await.field("id");
    assert_eq!(status(&order).await, "created");
    assert_eq!(served.pay("buyer", &order, "tok_visa").await.status, 201);
    assert_eq!(status(&order).await, "completed");
}
