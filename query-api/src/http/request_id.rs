//! The name of a request: the one it came with in `x-request-id`, or else one of ours.
//!
//! Ours are UUIDs of the random kind. They are drawn from a keyed hash of a counter, whose
//! keys the system gave the process at random: asking the system for each request would
//! cost a system call each. They are names, not secrets.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use uuid::{Builder, Uuid};

use crate::peers::wire::REQUEST_ID_HEADER;

/// The header that names a request, in both directions.
pub(super) const HEADER: HeaderName = HeaderName::from_static(REQUEST_ID_HEADER);

/// Where our names come from.
struct Names {
    halves: [RandomState; 2],
    next: AtomicU64,
}

static NAMES: LazyLock<Names> = LazyLock::new(|| Names {
    halves: [RandomState::new(), RandomState::new()],
    next: AtomicU64::new(0),
});

impl Names {
    fn next(&self) -> Uuid {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let [high, low] = &self.halves;
        let random = u128::from(high.hash_one(number)) << 64 | u128::from(low.hash_one(number));
        Builder::from_random_bytes(random.to_be_bytes()).into_uuid()
    }
}

/// The name of a request with these headers.
pub(super) fn of(headers: &HeaderMap) -> HeaderValue {
    headers.get(HEADER).cloned().unwrap_or_else(made_up)
}

fn made_up() -> HeaderValue {
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    let text = NAMES.next().hyphenated().encode_lower(&mut text);
    HeaderValue::from_str(text).expect("a UUID can be in a header")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_name_that_came_is_kept_and_others_are_uuids_that_differ() {
        let mut headers = HeaderMap::new();
        let names: BTreeSet<_> = (0..1000)
            .map(|_| of(&headers).to_str().unwrap().to_owned())
            .collect();
        assert_eq!(names.len(), 1000);
        for name in names {
            assert_eq!(Uuid::parse_str(&name).unwrap().get_version_num(), 4);
        }
        headers.insert(HEADER, HeaderValue::from_static("mine"));
        assert_eq!(of(&headers), "mine");
    }
}
