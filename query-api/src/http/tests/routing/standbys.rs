//! Reads that standbys answer.

use super::*;

#[tokio::test]
async fn a_standby_answers_only_who_bears_with_it() {
    let (world, a, mut b) = two();
    let c = Member::new(&world, "c");
    let id = tickets(&a.served).await.remove(1);
    let order = a.served.order("buyer", &id).await.field("id");
    let paths = [format!("/api/tickets/{id}"), format!("/api/orders/{order}")];
    assert_eq!(partition(&order), 1);
    let get = async |path: &str, cache_control: &str| {
        let mut request = Request::get(path).header("x-user-id", "buyer");
        if !cache_control.is_empty() {
            request = request.header(header::CACHE_CONTROL, cache_control);
        }
        a.served.ask(request.body(Body::empty()).unwrap()).await
    };
    // The owner answers at once, whoever follows it.
    a.application().follow(1, Duration::ZERO);
    let read = get(&paths[0], "max-stale").await;
    assert_eq!((read.status, read.headers.get(header::AGE)), (200, None));

    b.kill();
    a.application().follow(1, Duration::from_secs(7));
    c.application().follow(1, Duration::from_secs(3));
    a.application()
        .believe_in_standbys(1, vec![(c.host(&a), Some(12)), (a.host(&a), Some(34))]);
    for path in &paths {
        assert_eq!(get(path, "").await.problem(), problem(503, "unavailable"));
        let none = get(path, "max-stale=2").await;
        assert_eq!(none.problem(), problem(503, "unavailable"));
        // The local one, if it is fresh enough, else the one elsewhere.
        for (cache_control, behind, ages) in [
            ("max-stale", "34", ["8", "9", "10"]),
            ("max-stale=60", "34", ["8", "9", "10"]),
            ("max-stale=6", "12", ["4", "5", "6"]),
        ] {
            let read = get(path, cache_control).await;
            assert_eq!(read.status, 200, "{path} {cache_control}: {}", read.text);
            let age = read.headers[header::AGE].to_str().unwrap().to_owned();
            assert!(
                ages.contains(&age.as_str()),
                "{path} {cache_control}: {age}"
            );
            assert_eq!(read.headers["x-records-behind"], behind);
        }
    }
    assert!(a.counted("ticketing_standby_reads_total 6").await);
    // What nobody knows is not said.
    a.application()
        .believe_in_standbys(1, vec![(c.host(&a), None), (a.host(&a), None)]);
    for cache_control in ["max-stale", "max-stale=6"] {
        let read = get(&paths[0], cache_control).await;
        assert!(read.headers.contains_key(header::AGE));
        assert!(!read.headers.contains_key("x-records-behind"));
    }
    a.application()
        .believe_in_standbys(1, vec![(c.host(&a), Some(12)), (a.host(&a), Some(34))]);
    // The caller's rights do not depend on who answers.
    let request = Request::get(&paths[1])
        .header("x-user-id", "other")
        .header(header::CACHE_CONTROL, "max-stale");
    let other = a.served.ask(request.body(Body::empty()).unwrap()).await;
    assert_eq!(other.problem(), problem(403, "forbidden"));
    // A list is as stale as its stalest part.
    let list = get("/api/tickets", "max-stale=6").await;
    assert_eq!(list.json()["missingPartitions"], json!([3]));
    assert!(list.headers.contains_key(header::AGE));
    assert_eq!(list.headers["x-records-behind"], "12");
    let list = get("/api/tickets", "").await;
    assert_eq!(list.json()["missingPartitions"], json!([1, 3]));
    assert!(!list.headers.contains_key(header::AGE));
}

#[tokio::test]
async fn a_standby_answers_where_the_store_of_the_owner_fails() {
    let (world, a, b) = two();
    let c = Member::new(&world, "c");
    let ids = tickets(&a.served).await;
    c.application().follow(0, Duration::ZERO);
    c.application().follow(1, Duration::ZERO);
    let standbys = |of: &Member| vec![(c.host(of), Some(1))];
    a.application().believe_in_standbys(1, standbys(&a));
    b.application().plant(Fault::Broken);
    // Of one that fails here too.
    a.application().plant(Fault::Broken);
    a.application().leave(1);
    a.application().believe_in_standbys(0, standbys(&a));
    for id in [&ids[0], &ids[1]] {
        let path = format!("/api/tickets/{id}");
        assert_eq!(
            a.served.get("", &path).await.problem(),
            problem(500, "internal")
        );
        let request = Request::get(&path).header(header::CACHE_CONTROL, "max-stale");
        let read = a.served.ask(request.body(Body::empty()).unwrap()).await;
        assert_eq!(read.status, 200, "{}", read.text);
        assert!(read.headers.contains_key(header::AGE));
    }
}
