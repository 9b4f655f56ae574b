//! The id of a request: the one it came with in `x-request-id`, or else one of ours.
//!
//! An id that came with the request is kept if it is short and of visible ASCII characters: it is
//! logged, and passed on to other instances, whose connection would end if the head is too long.
//!
//! Ours are UUIDs of the random kind. They are drawn from a keyed hash of a counter, whose
//! keys the system gave the process at random: asking the system for each one would cost a
//! system call per request. They are names, not secrets.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use uuid::{Builder, Uuid};

use crate::peers::wire::REQUEST_ID_HEADER;

/// The header that carries the id, in both directions.
pub(super) const HEADER: HeaderName = HeaderName::from_static(REQUEST_ID_HEADER);

/// The longest id that is kept, in bytes.
const BYTES_MAX: usize = 128;

/// Generates our ids.
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

/// The id of a request with these headers.
pub(super) fn of(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(HEADER).filter(|name| is_kept(name));
    given.cloned().unwrap_or_else(made_up)
}

/// Whether an id that came with a request is kept.
fn is_kept(name: &HeaderValue) -> bool {
    let bytes = name.as_bytes();
    (1..=BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
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

    #[test]
    fn a_name_that_came_is_short_and_visible_or_is_not_kept() {
        let name = |came: &[u8]| {
            let came = HeaderValue::from_bytes(came).unwrap();
            of(&HeaderMap::from_iter([(HEADER, came)]))
        };
        for kept in [&b"m"[..], b"~!", &[b'm'; 128]] {
            assert_eq!(name(kept).as_bytes(), kept);
        }
        for other in [
            &b""[..],
            b"a b",
            b"a\tb",
            b"\xc3\xa9",
            &[b'm'; 129],
            &[b'm'; 70_000],
        ] {
            let name = name(other);
            assert!(Uuid::parse_str(name.to_str().unwrap()).is_ok(), "{name:?}");
        }
    }
}
