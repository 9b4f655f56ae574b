//! Health, metrics, topology, the API's shape, and requests that go nowhere.

use std::collections::BTreeMap;

use super::*;

#[tokio::test]
async fn an_instance_lives_before_it_is_ready() {
    let served = Served::new();
    let instance = Arc::new(Instance::new(Service::ALL.into()));
    let registry = Registry::new();
    let measures = PeerMeasures::new(&registry).unwrap();
    let api = Api::new(instance.clone(), registry, measures, &config(1)).unwrap();
    let starting = Served {
        router: router(api),
        instance: instance.clone(),
        ..served
    };
    assert_eq!(starting.get("", "/health/live").await.status, 200);
    let ready = starting.get("", "/health/ready").await;
    assert_eq!(ready.status, 503);
    assert_eq!(
        ready.json()["problems"],
        json!(["the instance is starting"])
    );
    instance.set_waiting_for("what it needs".to_owned());
    let ready = starting.get("", "/health/ready").await;
    assert_eq!(
        ready.json()["problems"],
        json!(["the instance is starting: waiting for what it needs"])
    );
    assert_eq!(
        starting.get("", "/api/tickets/t").await.problem(),
        problem(503, "unavailable")
    );
    assert_eq!(
        starting.get("", "/topology").await.problem(),
        problem(503, "unavailable")
    );

    instance.set_running(starting.application.clone());
    assert_eq!(starting.get("", "/health/ready").await.status, 200);
    instance.set_stopping();
    let stopping = starting.get("", "/health/ready").await;
    assert_eq!(
        (stopping.status, stopping.json()["ready"].clone()),
        (503, json!(false))
    );
    // Requests that are under way can still read.
    assert_eq!(
        starting.get("", "/api/tickets/t").await.problem(),
        problem(404, "ticket-not-found")
    );
    instance.set_failed("gone".to_owned());
    assert_eq!(starting.get("", "/health/ready").await.status, 503);
    assert_eq!(starting.get("", "/health/live").await.status, 200);
}

#[tokio::test]
async fn requests_and_commands_are_counted_by_route_and_result() {
    let served = Served::new();
    let ticket = served.ticket("Concert").await;
    served.get("", &format!("/api/tickets/{ticket}")).await;
    served.order("u", "none").await;
    served.get("", "/wp-login.php").await;
    let metrics = served.get("", "/metrics").await.text;
    for line in [
        "ticketing_http_requests_total{method=\"GET\",route=\"/api/tickets/{id}\",status=\"200\"} 1",
        "ticketing_http_requests_total{method=\"POST\",route=\"/api/tickets\",status=\"201\"} 1",
        "ticketing_http_requests_total{method=\"GET\",route=\"none\",status=\"404\"} 1",
        "ticketing_http_request_duration_seconds_count{method=\"POST\",route=\"/api/tickets\"} 1",
        "ticketing_commands_total{command=\"ticket.create\",result=\"ok\"} 1",
        "ticketing_commands_total{command=\"order.create\",result=\"ticket-not-found\"} 1",
        "ticketing_http_requests_in_flight 1",
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line} is in\n{metrics}"
        );
    }
    assert!(!metrics.contains(&ticket));
}

#[tokio::test]
async fn who_gives_up_is_counted_as_not_answered() {
    let served = Served::new();
    served.application.plant(Fault::Deaf);
    let body = json!({"title": "A", "price": 1});
    let asked = served.send("u", "POST", "/api/tickets", &body);
    let given_up = tokio::time::timeout(Duration::from_millis(20), asked).await;
    assert!(given_up.is_err());
    let metrics = served.get("", "/metrics").await.text;
    for line in [
        "ticketing_http_requests_total{method=\"POST\",route=\"/api/tickets\",status=\"499\"} 1",
        "ticketing_http_request_duration_seconds_count{method=\"POST\",route=\"/api/tickets\"} 1",
        "ticketing_commands_total{command=\"ticket.create\",result=\"abandoned\"} 1",
        "ticketing_command_duration_seconds_count{command=\"ticket.create\"} 1",
        "ticketing_http_requests_in_flight 1",
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line} is in\n{metrics}"
        );
    }
}

#[tokio::test]
async fn the_topology_comes_in_the_form_that_is_asked_for() {
    let served = Served::new();
    for (accept, content_type, body) in [
        ("*/*", "text/plain; charset=utf-8", "Text"),
        ("application/json", "application/json", "Json"),
        (
            "text/vnd.graphviz",
            "text/vnd.graphviz; charset=utf-8",
            "Dot",
        ),
    ] {
        let request = Request::get("/topology")
            .header(header::ACCEPT, accept)
            .body(Body::empty());
        let reply = served.ask(request.unwrap()).await;
        assert_eq!(reply.headers[header::CONTENT_TYPE], content_type);
        assert_eq!(reply.text, body);
    }
}

#[tokio::test]
async fn what_goes_nowhere_is_a_problem_too() {
    let served = Served::new();
    assert_eq!(
        served.get("", "/nothing").await.problem(),
        problem(404, "route-not-found")
    );
    let wrong = served
        .send("u", "PATCH", "/api/tickets", &Value::Null)
        .await;
    assert_eq!(wrong.problem(), problem(405, "method-not-allowed"));
    assert_eq!(
        served.get("", "/api/tickets/%ff").await.problem(),
        problem(400, "invalid-parameter")
    );
    let long = format!("/api/tickets/{}", "x".repeat(513));
    assert_eq!(
        served.get("", &long).await.problem(),
        problem(400, "invalid-parameter")
    );
    let large = json!({"title": "x".repeat(20_000), "price": 1});
    let large = served.send("u", "POST", "/api/tickets", &large).await;
    assert_eq!(large.problem(), problem(413, "body-too-large"));
}

#[tokio::test]
async fn a_route_that_panics_is_500() {
    let served = Served::new();
    served.application.plant(Fault::Panics);
    assert_eq!(
        served.get("", "/api/tickets/t").await.problem(),
        problem(500, "internal")
    );
}

#[tokio::test]
async fn too_many_requests_at_once_are_503_and_probes_still_answered() {
    let served = Served::of(&Service::ALL, 1);
    served.application.plant(Fault::Deaf);
    let body = json!({"title": "A", "price": 1});
    let (first, second, probe) = tokio::join!(
        served.send("u", "POST", "/api/tickets", &body),
        async {
            tokio::task::yield_now().await;
            served.get("", "/api/tickets/t").await
        },
        served.get("", "/health/ready"),
    );
    assert_eq!(first.problem(), problem(504, "outcome-pending"));
    assert_eq!(second.problem(), problem(503, "overloaded"));
    let shown = served.get("", "/metrics").await.text;
    let refused = "ticketing_http_refused_total{reason=\"requests\"} 1\n";
    assert!(shown.contains(refused), "{shown}");
    assert_eq!(probe.status, 200);
    assert_eq!(
        served.get("", "/api/tickets/t").await.problem(),
        problem(404, "ticket-not-found")
    );
}

#[tokio::test]
async fn every_answer_has_a_request_id_and_a_given_one_is_kept() {
    let served = Served::new();
    assert!(
        served
            .get("", "/health/live")
            .await
            .headers
            .contains_key("x-request-id")
    );
    let request = Request::get("/health/live")
        .header("x-request-id", "mine")
        .body(Body::empty());
    assert_eq!(
        served.ask(request.unwrap()).await.headers["x-request-id"],
        "mine"
    );
}

#[tokio::test]
async fn the_openapi_document_has_every_route() {
    let served = Served::new();
    let document = served.get("", "/openapi.json").await.json();
    let mut routes = BTreeMap::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let methods: Vec<_> = item.as_object().unwrap().keys().cloned().collect();
        routes.insert(path.as_str(), methods);
    }
    let expected = BTreeMap::from([
        ("/api/tickets", vec!["get", "post"]),
        ("/api/tickets/{id}", vec!["get", "put"]),
        ("/api/orders", vec!["get", "post"]),
        ("/api/orders/{id}", vec!["delete", "get"]),
        ("/api/payments", vec!["post"]),
        ("/health/live", vec!["get"]),
        ("/health/ready", vec!["get"]),
        ("/metrics", vec!["get"]),
        ("/topology", vec!["get"]),
        ("/cluster", vec!["get"]),
        ("/openapi.json", vec!["get"]),
    ]);
    let expected: BTreeMap<_, Vec<String>> = expected
        .into_iter()
        .map(|(path, methods)| (path, methods.into_iter().map(str::to_owned).collect()))
        .collect();
    assert_eq!(routes, expected);
    assert_eq!(
        document["components"]["securitySchemes"]["bearer"]["scheme"],
        "bearer"
    );
}

#[tokio::test]
async fn the_openapi_document_says_how_requests_fail() {
    let elsewhere = Served::of(&[Service::Expiration], 64);
    let served = Served::new();
    let document = served.get("", "/openapi.json").await.json();
    let long = "x".repeat(513);
    for (served, method, route, status) in [
        (&served, "get", "/api/tickets/{id}", 400),
        (&served, "get", "/api/orders/{id}", 400),
        (&elsewhere, "post", "/api/tickets", 404),
    ] {
        let path = route.replace("{id}", &long);
        let body = json!({"title": "A", "price": 1});
        let reply = served.send("u", &method.to_uppercase(), &path, &body).await;
        assert_eq!(reply.status, status, "{method} {route}");
        let responses = &document["paths"][route][method]["responses"];
        assert!(
            responses[status.to_string()].is_object(),
            "{method} {route}"
        );
    }
    let responses = &document["paths"]["/api/tickets"]["post"]["responses"];
    assert!(responses["409"].is_object());
}

#[test]
fn the_openapi_document_is_as_it_was_reviewed() {
    insta::assert_snapshot!(crate::http::openapi());
}
