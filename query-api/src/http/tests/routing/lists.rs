//! Lists of what several instances have.

use std::collections::BTreeSet;

use super::*;

/// The ids of a page.
fn ids(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().expect("a list");
    let id = |item: &Value| item["id"].as_str().expect("an id").to_owned();
    items.iter().map(id).collect()
}

#[tokio::test]
async fn lists_are_gathered_from_everywhere_in_one_order() {
    let (_, a, b) = two();
    let mut created = BTreeSet::new();
    for number in 0..23 {
        let ticket = a.served.ticket(&format!("Seat {number}")).await;
        assert_eq!(b.served.order("buyer", &ticket).await.status, 201);
        created.insert(ticket);
    }
    for path in ["/api/tickets", "/api/orders"] {
        let whole = a
            .served
            .get("buyer", &format!("{path}?limit=200"))
            .await
            .json();
        assert_eq!(ids(&whole).len(), 23);
        for limit in [1, 3, 22, 23] {
            let (mut paged, mut cursor) = (Vec::new(), String::new());
            for member in [&a, &b].into_iter().cycle() {
                let page = format!("{path}?limit={limit}{cursor}");
                let page = member.served.get("buyer", &page).await.json();
                paged.extend(ids(&page));
                match page["next"].as_str() {
                    Some(next) => cursor = format!("&cursor={next}"),
                    None => break,
                }
            }
            assert_eq!(paged, ids(&whole), "{path} {limit}");
        }
    }
}

#[tokio::test]
async fn a_list_names_what_is_missing_and_goes_on() {
    let (_, a, mut b) = two();
    for number in 0..23 {
        a.served.ticket(&format!("Seat {number}")).await;
    }
    let whole = ids(&a.served.get("", "/api/tickets?limit=200").await.json());
    b.application().leave(1);
    let partial = a.served.get("", "/api/tickets?limit=200").await;
    assert_eq!(partial.status, 200);
    assert_eq!(partial.json()["missingPartitions"], json!([1]));
    assert!(partial.json().get("next").is_none());
    let rest: Vec<String> = whole
        .iter()
        .filter(|id| partition(id) != 1)
        .cloned()
        .collect();
    assert_eq!(ids(&partial.json()), rest);
    b.kill();
    let partial = a.served.get("", "/api/tickets?limit=200").await.json();
    assert_eq!(partial["missingPartitions"], json!([1, 3]));
    // A page that is full before it gets there misses nothing; the next one continues after
    // what is missing.
    let first = whole.iter().filter(|id| partition(id) == 0).count();
    let full = a
        .served
        .get("", &format!("/api/tickets?limit={first}"))
        .await
        .json();
    assert_eq!(
        (ids(&full).len(), full.get("missingPartitions")),
        (first, None)
    );
    let next = full["next"].as_str().unwrap();
    let next = format!("/api/tickets?limit=1&cursor={next}");
    let next = a.served.get("", &next).await.json();
    assert_eq!(next["missingPartitions"], json!([1]));
    let after: Vec<String> = rest
        .iter()
        .filter(|id| partition(id) == 2)
        .cloned()
        .collect();
    assert_eq!(ids(&next), after[..1]);
    // If nothing is left but what is missing, there is no page.
    let last = after.last().unwrap();
    let cursor: String = b"\x01t\0\0\0\x02"
        .iter()
        .chain(last.as_bytes())
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let none = format!("/api/tickets?cursor={cursor}");
    let page = a.served.get("", &none).await;
    assert_eq!(page.json()["missingPartitions"], json!([3]));
    a.application().leave(0);
    a.application().leave(2);
    for path in ["/api/tickets", "/api/orders", &none] {
        let none = a.served.get("u", path).await;
        assert_eq!(none.problem(), problem(503, "unavailable"));
        assert!(none.headers.contains_key(header::RETRY_AFTER));
    }
}
