//! Lists, a page at a time.

use std::collections::BTreeSet;

use super::*;

/// All ids of a list, page by page, and how many pages there were.
async fn ids(served: &Served, user: &str, path: &str, limit: usize) -> (Vec<String>, usize) {
    let (mut ids, mut pages, mut cursor) = (Vec::new(), 0, String::new());
    loop {
        let reply = served
            .get(user, &format!("{path}?limit={limit}{cursor}"))
            .await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let page = reply.json();
        let items = page["items"].as_array().expect("a list");
        assert!(items.len() <= limit);
        ids.extend(
            items
                .iter()
                .map(|item| item["id"].as_str().expect("an id").to_owned()),
        );
        pages += 1;
        match page.get("next") {
            Some(next) => cursor = format!("&cursor={}", next.as_str().expect("a cursor")),
            None => return (ids, pages),
        }
    }
}

#[tokio::test]
async fn pages_hold_every_ticket_once_and_in_the_same_order() {
    let served = Served::new();
    let mut created = BTreeSet::new();
    for number in 0..23 {
        created.insert(served.ticket(&format!("Seat {number}")).await);
    }
    let (whole, pages) = ids(&served, "", "/api/tickets", 200).await;
    assert_eq!(
        (
            whole.iter().cloned().collect::<BTreeSet<_>>(),
            whole.len(),
            pages
        ),
        (created, 23, 1)
    );
    for limit in [1, 2, 5, 22, 23] {
        let (paged, pages) = ids(&served, "", "/api/tickets", limit).await;
        assert_eq!(paged, whole, "limit {limit}");
        assert_eq!(pages, 23_usize.div_ceil(limit), "limit {limit}");
    }
}

#[tokio::test]
async fn a_caller_sees_its_own_orders_only() {
    let served = Served::new();
    let mut mine = BTreeSet::new();
    for number in 0..10 {
        let ticket = served.ticket(&format!("Seat {number}")).await;
        let user = if number % 2 == 0 { "u-1" } else { "u-10" };
        let order = served.order(user, &ticket).await.field("id");
        if user == "u-1" {
            mine.insert(order);
        }
    }
    let (listed, _) = ids(&served, "u-1", "/api/orders", 2).await;
    assert_eq!(
        (listed.len(), listed.into_iter().collect::<BTreeSet<_>>()),
        (5, mine)
    );
    assert_eq!(
        served.get("nobody", "/api/orders").await.json(),
        json!({"items": []})
    );
}

#[tokio::test]
async fn wrong_parameters_are_400() {
    let served = Served::new();
    for query in [
        "limit=0",
        "limit=201",
        "limit=x",
        "cursor=zz",
        "cursor=016f00000000",
        "limit=1&limit=2",
    ] {
        let reply = served.get("", &format!("/api/tickets?{query}")).await;
        assert_eq!(
            reply.problem(),
            problem(400, "invalid-parameter"),
            "{query}"
        );
    }
}
