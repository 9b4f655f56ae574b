//! What a record does happens as a whole or not at all.

use turnstile_engine::record::Header;
use turnstile_engine::task::{Processed, TaskError};
use turnstile_engine::{ErrorPolicy, Partition, TopologyTestDriver};

use super::script::{committed, driver, pipe, sent};

/// Writes to every store, sends, sets and cancels timers, forwards, and then rejects.
const EVERYTHING_THEN_REJECT: &str = "add a 5; put t new; drop kept; send a lost; set soon 1; \
     set moved 1; unset cancelled; pass add a 7, send a lost, set soon 1, pass add a 9 + send a lost; reject";

/// Rows and timers that a later record may spoil.
const BEFORE: &str =
    "add a 1; put t old; put kept row; set moved 1000; set cancelled 1000; send a before";

#[test]
fn a_rejected_record_leaves_nothing_but_a_dead_letter() {
    let (mut with, handles) = driver(ErrorPolicy::DeadLetter);
    let (mut without, same_handles) = driver(ErrorPolicy::DeadLetter);
    for driver in [&mut with, &mut without] {
        pipe(driver, BEFORE);
        driver.run().unwrap();
    }
    pipe(&mut with, EVERYTHING_THEN_REJECT);
    with.run().unwrap();
    let letters = with.take(&with.internal("dlq"));
    assert_eq!(letters.len(), 1);
    assert_eq!(
        with.results("scripts")[1],
        Processed::DeadLettered("asked-to")
    );
    assert_eq!(sent(&mut with), ["main before"]);
    // The dead letter is all that sets the two apart, now and when the timers have fired.
    assert_eq!(
        with.entries(handles.sums),
        without.entries(same_handles.sums)
    );
    assert_eq!(
        with.entries(handles.texts),
        without.entries(same_handles.texts)
    );
    assert_eq!(with.timers("main"), without.timers("main"));
    assert_eq!(with.timers("left"), []);
    for driver in [&mut with, &mut without] {
        driver.advance(std::time::Duration::from_secs(1)).unwrap();
    }
    let fired = sent(&mut with);
    assert_eq!(
        fired,
        ["fired cancelled 0 ms late", "fired moved 0 ms late"]
    );
    assert_eq!(sent(&mut without)[1..], fired);
}

#[test]
fn a_record_rejected_in_the_transaction_of_its_predecessor_undoes_only_itself() {
    let (mut driver, handles) = driver(ErrorPolicy::DeadLetter);
    for script in [BEFORE, EVERYTHING_THEN_REJECT, "add a 100; send a after"] {
        pipe(&mut driver, script);
    }
    driver.run().unwrap();
    assert_eq!(
        driver.results("scripts"),
        [
            Processed::Done,
            Processed::DeadLettered("asked-to"),
            Processed::Done
        ]
    );
    assert_eq!(sent(&mut driver), ["main before", "main after"]);
    assert_eq!(driver.entries(handles.sums), [("a".to_owned(), 101)]);
    let texts = [("kept", "row"), ("t", "old")];
    assert_eq!(
        driver.entries(handles.texts),
        texts.map(|(key, value)| (key.to_owned(), value.to_owned()))
    );
    let keys: Vec<String> = driver
        .timers("main")
        .into_iter()
        .map(|(_, key)| key)
        .collect();
    assert_eq!(keys, ["cancelled", "moved"]);
}

#[test]
fn a_dead_letter_is_the_record_with_five_headers_more() {
    let (mut driver, _) = driver(ErrorPolicy::DeadLetter);
    let headers: Vec<Header> = vec![
        ("trace".to_owned(), Some(b"abc".to_vec())),
        ("null".to_owned(), None),
        ("trace".to_owned(), Some(vec![0xff])),
    ];
    let value = b"add a 1; reject \xf0\x9f\x98\x80";
    pipe(&mut driver, "add a 1");
    driver.pipe_to(
        "scripts",
        Partition(0),
        Some(b"a key"),
        Some(value),
        &headers,
    );
    let time = driver.now();
    driver.run().unwrap();
    let letters = driver.all(&driver.internal("dlq"));
    let [letter] = letters.as_slice() else {
        panic!("one dead letter: {letters:?}")
    };
    assert_eq!(letter.key.as_deref(), Some(b"a key".as_slice()));
    assert_eq!(letter.value.as_deref(), Some(value.as_slice()));
    assert_eq!(letter.timestamp, time);
    assert_eq!(letter.headers[..3], headers);
    let added: Vec<(&str, Option<&[u8]>)> = letter.headers[3..]
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_deref()))
        .collect();
    assert_eq!(
        added,
        [
            ("__streams.errors.topic", Some(b"scripts".as_slice())),
            ("__streams.errors.partition", Some(b"0")),
            ("__streams.errors.offset", Some(b"1")),
            ("__streams.errors.exception", Some(b"asked-to")),
            ("__streams.errors.message", Some(b"main")),
        ]
    );
}

#[test]
fn a_null_key_and_a_null_value_stay_null() {
    let (mut driver, _) = driver(ErrorPolicy::DeadLetter);
    driver.pipe("scripts", None, None);
    driver.run().unwrap();
    let letters = driver.all(&driver.internal("dlq"));
    assert_eq!(letters.len(), 1);
    assert_eq!((&letters[0].key, &letters[0].value), (&None, &None));
    assert_eq!(
        letters[0].header("__streams.errors.exception").as_deref(),
        Some("null-value")
    );
}

#[test]
fn what_is_skipped_leaves_nothing_at_all() {
    let (mut driver, handles) = driver(ErrorPolicy::DeadLetter);
    let untouched = committed(&driver, handles);
    pipe(&mut driver, "skip this");
    driver.run().unwrap();
    assert_eq!(driver.results("scripts"), [Processed::Skipped("asked-to")]);
    assert_eq!(committed(&driver, handles), untouched);
}

fn stop_at(driver: &mut TopologyTestDriver, kind: &str, offset: i64) {
    match driver.run() {
        Err(TaskError::Rejected {
            origin,
            kind: found,
            ..
        }) => {
            assert_eq!((&*origin.topic, origin.offset.0), ("scripts", offset));
            assert_eq!(found, kind);
        }
        other => panic!("the task goes on: {other:?}"),
    }
}

#[test]
fn a_source_that_must_not_lose_records_stops_before_the_record() {
    let (mut driver, handles) = driver(ErrorPolicy::Stop);
    pipe(&mut driver, "add a 1; send a one");
    pipe(&mut driver, EVERYTHING_THEN_REJECT);
    pipe(&mut driver, "add a 2; send a two");
    stop_at(&mut driver, "asked-to", 1);
    // What came before can be committed; the record itself is never passed.
    driver.commit();
    assert_eq!(sent(&mut driver), ["main one"]);
    assert_eq!(driver.entries(handles.sums), [("a".to_owned(), 1)]);
    assert_eq!(driver.timers("main"), []);
    assert!(driver.all(&driver.internal("dlq")).is_empty());
    stop_at(&mut driver, "asked-to", 1);
    driver.crash_and_restore().unwrap();
    stop_at(&mut driver, "asked-to", 1);
}

#[test]
fn an_unreadable_value_stops_such_a_source_too() {
    let (mut driver, _) = driver(ErrorPolicy::Stop);
    driver.pipe("scripts", None, Some(&[0xff]));
    stop_at(&mut driver, "not-text", 0);
}

#[test]
fn whoever_can_do_without_what_it_forwards_has_nothing_of_it_left() {
    let (mut driver, handles) = driver(ErrorPolicy::DeadLetter);
    pipe(&mut driver, BEFORE);
    driver.run().unwrap();
    pipe(
        &mut driver,
        "set m 1000; try pass add a 5, put t new, drop kept, send a lost, set l 1, unset moved, pass set n 1 + reject; add b 1",
    );
    driver.run().unwrap();
    assert_eq!(sent(&mut driver), ["main before", "main gave up"]);
    assert_eq!(
        driver.entries(handles.sums),
        [("a".to_owned(), 1), ("b".to_owned(), 1)]
    );
    let texts = [("kept", "row"), ("t", "old")];
    assert_eq!(
        driver.entries(handles.texts),
        texts.map(|(key, value)| (key.to_owned(), value.to_owned()))
    );
    assert_eq!(driver.timers("left"), []);
    assert_eq!(driver.timers("last"), []);
    driver.advance(std::time::Duration::from_secs(1)).unwrap();
    assert_eq!(
        sent(&mut driver).len(),
        3,
        "cancelled, m and moved have fired"
    );
    // What does not fail is kept, also by a crash.
    pipe(&mut driver, "try pass add a 5, set l 1000");
    driver.run().unwrap();
    driver.crash_and_restore().unwrap();
    // By both who read it.
    assert_eq!(driver.entries(handles.sums)[0], ("a".to_owned(), 11));
    assert_eq!(driver.timers("left").len(), 1);
}

#[test]
fn code_that_panics_stops_its_task_at_what_it_was_handling() {
    let (mut driver, handles) = driver(ErrorPolicy::DeadLetter);
    pipe(&mut driver, "add a 1");
    pipe(&mut driver, "add a 1; pass panic");
    let stopped = driver.run().unwrap_err();
    assert!(
        matches!(&stopped, TaskError::Panicked { at, message, .. } if at == "scripts-0@1" && message == "as the script says"),
        "{stopped}"
    );
    driver.crash_and_restore().unwrap();
    assert_eq!(driver.entries(handles.sums), []);
    let (mut driver, _) = self::driver(ErrorPolicy::DeadLetter);
    pipe(&mut driver, "on t panic; set t 1");
    driver.run().unwrap();
    let stopped = driver.advance(std::time::Duration::from_millis(1));
    assert_eq!(
        stopped.unwrap_err().to_string(),
        "task 0_0 stopped at the timer t of main: its code panicked: as the script says"
    );
}

#[test]
fn what_is_sent_is_dated_as_brokers_take_it() {
    for (ahead, is_kept) in [(30, true), (120, false)] {
        let (mut driver, _) = driver(ErrorPolicy::DeadLetter);
        let now = driver.now();
        let time = now.plus(std::time::Duration::from_mins(ahead));
        driver.set_now(time);
        for script in ["send a text", "reject"] {
            pipe(&mut driver, script);
        }
        driver.set_now(now);
        driver.run().unwrap();
        let expected = if is_kept { time } else { now };
        for topic in ["out".to_owned(), driver.internal("dlq")] {
            let records = driver.take(&topic);
            assert_eq!(records.len(), 1);
            assert_eq!(records[0].timestamp, expected);
        }
    }
}

#[test]
fn a_processor_sees_what_it_wrote_in_both_directions() {
    let (mut driver, _) = driver(ErrorPolicy::DeadLetter);
    pipe(&mut driver, "add b 1; add d 1");
    driver.run().unwrap();
    pipe(&mut driver, "ends; add a 1; add e 1; ends");
    driver.run().unwrap();
    assert_eq!(sent(&mut driver), ["main b to d", "main a to e"]);
}
