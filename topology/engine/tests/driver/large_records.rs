//! What is too large to be passed on is a dead letter, and never what stops an instance.

use std::collections::BTreeMap;

use turnstile_engine::record::Header;
use turnstile_engine::task::Processed;
use turnstile_engine::{ErrorPolicy, Partition, TopologyTestDriver};

use super::script::{driver, pipe, sent, topology};

const MIB: usize = 1 << 20;

const TOO_LARGE: Processed = Processed::DeadLettered("too-large");

#[test]
fn of_a_record_that_is_too_large_the_dead_letter_has_the_coordinates_alone() {
    let (mut driver, handles) = driver(ErrorPolicy::DeadLetter);
    pipe(&mut driver, "add a 1");
    driver.run().unwrap();
    let script = format!("send a {}", "x".repeat(16 * MIB));
    let headers: Vec<Header> = vec![("trace".to_owned(), Some(b"abc".to_vec()))];
    let value = Some(script.as_bytes());
    driver.pipe_to("scripts", Partition(0), Some(b"a key"), value, &headers);
    driver.run().unwrap();
    assert_eq!(driver.results("scripts"), [Processed::Done, TOO_LARGE]);
    assert_eq!(sent(&mut driver), [] as [&str; 0]);
    let letters = driver.take(&driver.internal("dlq"));
    let [letter] = letters.as_slice() else {
        panic!("one dead letter: {}", letters.len())
    };
    assert_eq!((&letter.key, &letter.value), (&None, &None));
    let header = |name: &str| letter.header(&format!("__streams.errors.{name}"));
    assert_eq!(header("topic").as_deref(), Some("scripts"));
    // The marker of a transaction lies between.
    assert_eq!(header("offset").as_deref(), Some("2"));
    // A header counts as twelve bytes more.
    let bytes = script.len() + "a key".len() + "trace".len() + "abc".len() + 12;
    assert_eq!(header("omitted"), Some(format!("{bytes} bytes")));
    assert_eq!(letter.header("trace"), None);
    assert_eq!(driver.entries(handles.sums), [("a".to_owned(), 1)]);
}

#[test]
fn headers_that_would_be_passed_on_are_bounded() {
    let (mut driver, _) = driver(ErrorPolicy::DeadLetter);
    let one = |bytes| vec![("h".to_owned(), Some(vec![b'x'; bytes]))];
    let nothing: Header = (String::new(), None);
    for (headers, expected) in [
        (one(255 << 10), Processed::Done),
        (one(256 << 10), TOO_LARGE),
        (vec![nothing; 30_000], TOO_LARGE),
    ] {
        let value = Some(b"send a text".as_slice());
        driver.pipe_to("scripts", Partition(0), None, value, &headers);
        driver.run().unwrap();
        assert_eq!(driver.results("scripts").last(), Some(&expected));
    }
    assert_eq!(sent(&mut driver), ["main text"]);
    let letters = driver.take(&driver.internal("dlq"));
    assert_eq!(letters.len(), 2);
    assert_eq!(letters[0].value_text(), "send a text");
    assert!(letters[0].header("h").is_some());
}

#[test]
fn what_is_sent_without_headers_has_to_fit_without_them() {
    let (topology, _) = topology(ErrorPolicy::DeadLetter);
    let counts = ["scripts", "out"].map(|topic| (topic.to_owned(), 1));
    let limits = BTreeMap::from([("out".to_owned(), 100)]);
    let driver = TopologyTestDriver::with_limits(topology, counts, &limits);
    let mut driver = driver.expect("the topology fits its topics");
    let too_long = format!("bare a {}", "x".repeat(100));
    for (script, header, expected) in [
        ("send a with", 50, Processed::Done),
        ("bare a without", 50, Processed::Done),
        ("send a text", 100, TOO_LARGE),
        ("bare a fits", 256 << 10, Processed::Done),
        (too_long.as_str(), 0, TOO_LARGE),
    ] {
        let headers: Vec<Header> = vec![("h".to_owned(), Some(vec![b'x'; header]))];
        let value = Some(script.as_bytes());
        driver.pipe_to("scripts", Partition(0), None, value, &headers);
        driver.run().unwrap();
        assert_eq!(
            driver.results("scripts").last(),
            Some(&expected),
            "{script}"
        );
    }
    let sent = driver.take("out").into_iter();
    let sent = sent.map(|record| (record.value_text(), record.header("h").is_some()));
    let expected = [
        ("main with", true),
        ("main without", false),
        ("main fits", false),
    ];
    let expected = expected.map(|(text, has_header)| (text.to_owned(), has_header));
    assert_eq!(sent.collect::<Vec<_>>(), expected);
}

#[test]
fn what_is_not_passed_on_may_be_of_any_size() {
    let (mut driver, handles) = driver(ErrorPolicy::Stop);
    let headers: Vec<Header> = vec![("h".to_owned(), Some(vec![b'x'; MIB]))];
    for (script, bytes, result) in [
        ("skip", 17 * MIB, Processed::Skipped("asked-to")),
        ("add a 1; drop", MIB, Processed::Done),
    ] {
        let script = format!("{script} {}", "x".repeat(bytes));
        let value = Some(script.as_bytes());
        driver.pipe_to("scripts", Partition(0), None, value, &headers);
        driver.run().unwrap();
        assert_eq!(driver.results("scripts").last(), Some(&result));
    }
    assert_eq!(driver.entries(handles.sums), [("a".to_owned(), 1)]);
}

#[test]
fn what_a_record_would_write_is_bounded_too() {
    let (mut driver, handles) = driver(ErrorPolicy::DeadLetter);
    let text = "x".repeat(9 * MIB);
    for write in ["send a", "put t"] {
        pipe(&mut driver, &format!("add a 1; twice {write} {text}"));
    }
    driver.run().unwrap();
    assert_eq!(driver.results("scripts"), [TOO_LARGE, TOO_LARGE]);
    assert_eq!(driver.entries(handles.sums), []);
    assert_eq!(sent(&mut driver), [] as [&str; 0]);
    assert_eq!(driver.take(&driver.internal("dlq")).len(), 2);
}

#[test]
fn the_description_of_a_fault_is_cut_off() {
    let (mut driver, _) = driver(ErrorPolicy::DeadLetter);
    let script = "\u{1f600}".repeat(1_000);
    pipe(&mut driver, &script);
    driver.run().unwrap();
    let letters = driver.take(&driver.internal("dlq"));
    assert_eq!(letters[0].value_text(), script);
    let message = letters[0].header("__streams.errors.message");
    assert_eq!(message, Some("\u{1f600}".repeat(256)));
}
