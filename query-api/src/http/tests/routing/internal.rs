//! The route between instances: who is let in, what it answers, and what bounds it.

use turnstile_engine::Partition;
use turnstile_engine::runtime::{StoreRead, StoreRequest};

use super::*;
use crate::peers::wire::READ_PATH;
use crate::peers::{Fingerprint, ReadReply, ReadRequest, Refusal, Wait};

/// A read of a ticket by the form that instances use.
fn read_of(id: &str) -> ReadRequest {
    ReadRequest {
        request: StoreRequest {
            store: "tickets".to_owned(),
            partition: Partition(partition(id)),
            read: StoreRead::Keys(vec![id.as_bytes().to_vec()]),
        },
        wait: None,
        max_stale: None,
    }
}

fn internal() -> axum::http::request::Builder {
    Request::post(READ_PATH)
        .header(header::AUTHORIZATION, config(1).cluster_key.authorization())
        .header(wire::HOP_HEADER, wire::HOP)
}

/// The reply to a read that an instance asks for.
async fn reply(member: &Member, read: &ReadRequest) -> ReadReply {
    let request = internal().body(Body::from(wire::encode(read))).unwrap();
    let response = member.served.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let body = axum::body::to_bytes(response.into_body(), 1 << 20)
        .await
        .unwrap();
    wire::decode(&body).unwrap()
}

#[tokio::test]
async fn only_instances_read_rows() {
    let (_, a, _b) = two();
    let id = tickets(&a.served).await.remove(0);
    let read = read_of(&id);
    let body = || Body::from(wire::encode(&read));
    let token = config(1).cluster_key.authorization();
    let almost = token.to_str().unwrap();
    let almost = format!("{}x", &almost[..almost.len() - 1]);
    for authorization in [None, Some("Bearer the key of the tests"), Some(&almost)] {
        let mut request = Request::post(READ_PATH)
            .header("x-user-id", "admin")
            .header(wire::HOP_HEADER, wire::HOP);
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let refused = a.served.ask(request.body(body()).unwrap()).await;
        assert_eq!(refused.problem(), problem(401, "unauthenticated"));
    }
    assert!(matches!(reply(&a, &read).await, ReadReply::Answer(answer) if answer.rows.len() == 1));
    // Without saying that it comes from an instance, and with nonsense.
    let request = Request::post(READ_PATH).header(header::AUTHORIZATION, token);
    let refused = a.served.ask(request.body(body()).unwrap()).await;
    assert_eq!(refused.problem(), problem(400, "invalid-parameter"));
    let refused = a
        .served
        .ask(internal().body(Body::from("\x01")).unwrap())
        .await;
    assert_eq!(refused.problem(), problem(400, "invalid-body"));
}

#[tokio::test]
async fn a_token_of_a_client_does_not_open_the_internal_route() {
    let authentication = Authentication {
        jwt_key: Some("a key that nobody guesses, of 32 bytes".to_owned()),
        cluster_key: None,
        dev_auth: false,
    };
    let registry = Registry::new();
    let measures = PeerMeasures::new(&registry).unwrap();
    let config = ApiConfig {
        cluster_key: ClusterKey::new(&authentication, "ticketing"),
        authentication,
        ..config(1)
    };
    let instance = Arc::new(Instance::new(Service::ALL.into()));
    let router = router(Api::new(instance, registry, measures, &config).unwrap());
    let claims = jsonwebtoken::EncodingKey::from_secret(b"a key that nobody guesses, of 32 bytes");
    let token = jsonwebtoken::encode(
        &jsonwebtoken::Header::default(),
        &json!({"id": "u"}),
        &claims,
    );
    let ask = async |authorization: String, path: &str, method: &str| {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, authorization)
            .header(wire::HOP_HEADER, wire::HOP);
        let request = request
            .body(Body::from(wire::encode(&read_of("t"))))
            .unwrap();
        router
            .clone()
            .oneshot(request)
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    let token = format!("Bearer {}", token.unwrap());
    // The client is known, but it is not an instance.
    assert_eq!(ask(token.clone(), "/api/orders", "GET").await, 503);
    assert_eq!(ask(token, READ_PATH, "POST").await, 401);
    let instance = config
        .cluster_key
        .authorization()
        .to_str()
        .unwrap()
        .to_owned();
    assert_eq!(ask(instance.clone(), READ_PATH, "POST").await, 200);
    assert_eq!(ask(instance, "/api/orders", "GET").await, 401);
}

#[tokio::test]
async fn an_instance_that_waits_is_told_at_once() {
    let (_, a, b) = two();
    let id = tickets(&a.served).await.remove(1);
    let ReadReply::Answer(answer) = reply(&b, &read_of(&id)).await else {
        panic!("b has it");
    };
    let mut read = read_of(&id);
    let wait = |known| {
        Some(Wait {
            known,
            limit: 3 * LIMIT,
        })
    };
    // What differs from what is known is answered without waiting.
    for known in [None, Some(Fingerprint::of(b"another"))] {
        read.wait = wait(known);
        let reply = tokio::time::timeout(LIMIT, reply(&b, &read)).await;
        assert_eq!(reply.unwrap(), ReadReply::Answer(answer.clone()));
    }
    read.wait = wait(Fingerprint::of_row(&answer));
    let edit = async {
        eventually("b waits", || b.application().anyone_waits()).await;
        let edit = json!({"title": "Gala", "price": 2});
        let path = format!("/api/tickets/{id}");
        assert_eq!(
            a.served.send("seller", "PUT", &path, &edit).await.status,
            200
        );
    };
    let waited = tokio::time::timeout(LIMIT, reply(&b, &read));
    let (told, ()) = tokio::join!(waited, edit);
    let ReadReply::Answer(told) = told.expect("it is told") else {
        panic!("b has it");
    };
    assert_ne!(told, answer);
    // A waiting read is sent away when the task leaves, and when the instance ends.
    read.wait = wait(Fingerprint::of_row(&told));
    let leaves = async {
        eventually("b waits", || b.application().anyone_waits()).await;
        b.application().leave(1);
    };
    let waited = tokio::time::timeout(LIMIT, reply(&b, &read));
    let (gone, ()) = tokio::join!(waited, leaves);
    assert!(
        matches!(gone, Ok(ReadReply::Refusal(Refusal::NotHere(_)))),
        "{gone:?}"
    );
    b.application().own(1);
    let stops = async {
        eventually("b waits", || b.application().anyone_waits()).await;
        b.served.instance.set_stopping();
    };
    let waited = tokio::time::timeout(LIMIT, reply(&b, &read));
    let (stopped, ()) = tokio::join!(waited, stops);
    assert_eq!(stopped, Ok(ReadReply::Answer(told)));
    // Only one row can be watched.
    read.request.read = StoreRead::Keys(Vec::new());
    assert!(matches!(
        reply(&b, &read).await,
        ReadReply::Refusal(Refusal::Malformed(_))
    ));
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let (_, a, b) = two();
    let refusal = async |read: &ReadRequest| match reply(&a, read).await {
        ReadReply::Refusal(refusal) => refusal,
        ReadReply::Answer(answer) => panic!("{answer:?}"),
    };
    let mut read = read_of("t");
    for partition in [1, -1, 99] {
        read.request.partition = Partition(partition);
        assert!(matches!(refusal(&read).await, Refusal::NotHere(_)));
    }
    read.request.partition = Partition(0);
    for store in ["", "nothing", "tickets-index"] {
        let of = ReadRequest {
            request: StoreRequest {
                store: store.to_owned(),
                ..read.request.clone()
            },
            ..read.clone()
        };
        assert_eq!(refusal(&of).await, Refusal::UnknownStore(store.to_owned()));
    }
    a.application().plant(Fault::NotYet);
    assert!(matches!(refusal(&read).await, Refusal::NotYet(_)));
    a.application().plant(Fault::Broken);
    assert!(matches!(refusal(&read).await, Refusal::Failed(_)));
    // What fails there for as long as anybody waits fails here.
    b.application().believe(0, Some(a.host(&b)));
    let id = (0..)
        .map(|n: i32| n.to_string())
        .find(|id| partition(id) == 0);
    let path = format!("/api/tickets/{}", id.unwrap());
    assert_eq!(
        b.served.get("", &path).await.problem(),
        problem(500, "internal")
    );
    let metrics = b.served.get("", "/metrics").await.text;
    let failed = "ticketing_peer_requests_sent_total{result=\"failed\"} ";
    assert!(metrics.contains(failed), "{metrics}");
}

#[tokio::test]
async fn clients_who_fill_an_instance_do_not_keep_others_from_reading_there() {
    let world = World::new(&Service::ALL);
    let (a, b) = (
        Member::bounded(&world, "a", 1),
        Member::bounded(&world, "b", 1),
    );
    for partition in 0..PARTITIONS {
        give(&[&a, &b], partition, if partition < 2 { &a } else { &b });
    }
    let ids = tickets(&a.served).await;
    a.application().plant(Fault::Deaf);
    for partition in 0..PARTITIONS {
        give(&[&a, &b], partition, if partition < 2 { &a } else { &b });
    }
    // Both are full of requests that wait for the other.
    let edit = json!({"title": "Gala", "price": 2});
    let paths = [
        format!("/api/tickets/{}", ids[0]),
        format!("/api/tickets/{}", ids[2]),
    ];
    let (one, other, ()) = tokio::join!(
        a.served.send("seller", "PUT", &paths[1], &edit),
        b.served.send("seller", "PUT", &paths[0], &edit),
        async {
            let wait = || a.application().anyone_waits() && b.application().anyone_waits();
            eventually("both wait", wait).await;
            let full = a.served.get("", &paths[0]).await;
            assert_eq!(full.problem(), problem(503, "overloaded"));
            let read = reply(&a, &read_of(&ids[0])).await;
            assert!(matches!(read, ReadReply::Answer(_)), "{read:?}");
            world.run();
        }
    );
    assert_eq!(
        (one.status, other.status),
        (200, 200),
        "{} {}",
        one.text,
        other.text
    );
}

#[tokio::test]
async fn clients_who_take_all_connections_do_not_keep_others_from_reading_there() {
    let (_, a, mut b) = two();
    let id = tickets(&a.served).await.remove(1);
    b.kill();
    let (address, server) = listen(b.served.router.clone(), 2);
    (b.address, b.server) = (address, Some(server));
    give(&[&a, &b], 1, &b);
    let url = |path: &str| format!("http://{}{path}", b.address);
    // Each holds a connection on which it was answered.
    let mut holders = Vec::new();
    for _ in 0..2 {
        let holder = reqwest::Client::new();
        assert_eq!(
            holder
                .get(url("/health/live"))
                .send()
                .await
                .unwrap()
                .status(),
            200
        );
        holders.push(holder);
    }
    let late = reqwest::Client::new();
    let refused = late.get(url("/api/tickets")).send().await.unwrap();
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["connection"]),
        (503, &"close".parse().unwrap())
    );
    let shown = b.served.get("", "/metrics").await.text;
    let counted = "ticketing_http_refused_total{reason=\"connections\"} 1\n";
    assert!(shown.contains(counted), "{shown}");
    assert_eq!(
        late.get(url("/health/live")).send().await.unwrap().status(),
        200
    );
    let path = format!("/api/tickets/{id}");
    assert_eq!(a.served.get("", &path).await.status, 200);
    for holder in holders {
        assert_eq!(holder.get(url(&path)).send().await.unwrap().status(), 200);
    }
    // There is room again.
    let answered = async {
        while late.get(url(&path)).send().await.unwrap().status() != 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, answered)
        .await
        .expect("there is room");
}
