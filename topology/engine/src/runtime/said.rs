//! What was logged recently: a line that differs from an earlier one only in numbers is not
//! repeated for a while.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long a line is not repeated.
const QUIET: Duration = Duration::from_secs(10);
/// Beyond this many different lines the memory starts over.
const LINES_MAX: usize = 1_000;

static SAID: LazyLock<Mutex<HashMap<String, Instant>>> = LazyLock::new(Mutex::default);

/// Whether `line` was not logged for a while; it then counts as logged.
pub(crate) fn is_new(line: &str) -> bool {
    let now = Instant::now();
    let gist: String = line
        .chars()
        .filter(|letter| !letter.is_ascii_digit())
        .collect();
    let mut said = SAID.lock();
    if said
        .get(&gist)
        .is_some_and(|last| now.duration_since(*last) < QUIET)
    {
        return false;
    }
    if said.len() >= LINES_MAX {
        said.clear();
    }
    said.insert(gist, now);
    true
}

#[cfg(test)]
mod tests {
    use super::is_new;

    #[test]
    fn a_line_that_differs_in_numbers_only_is_said_once() {
        assert!(is_new("broker 1 is down after 10 ms"));
        assert!(!is_new("broker 2 is down after 400 ms"));
        assert!(is_new("broker 1 is up"));
    }
}
