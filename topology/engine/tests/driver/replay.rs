//! The same records in the same order give the same bytes.

use turnstile_engine::driver::LogRecord;
use turnstile_engine::{ErrorPolicy, TopologyTestDriver};

use super::script::topology;

/// All topics that the topology writes, byte by byte, after a run of many records.
fn bytes_of_a_run() -> Vec<(String, Vec<LogRecord>)> {
    let (topology, _) = topology(ErrorPolicy::DeadLetter);
    let mut driver = TopologyTestDriver::new(topology, 3).expect("the topology fits its topics");
    for n in 0_u64..600 {
        // Enough keys that no hash map would visit them twice in the same order.
        let key = format!("k{}", n * 7_919 % 97);
        let script = match n % 7 {
            0 => format!("set {key} {}; on {key} add {key} 1, send {key} {n}", n % 50),
            1 => format!(
                "pass add {key} {n}, send {key} {n}, set {key} {}, pass set {key} 9",
                n % 40
            ),
            2 => format!("unset {key}; put {key} {n}"),
            3 => format!("drop {key}; send {key} {n}; reject"),
            _ => format!("add {key} {n}; put {key} {n}; send {key} {n}; set {key} 9"),
        };
        driver.pipe("scripts", Some(&key), Some(script.as_bytes()));
        if n % 50 == 0 {
            driver
                .advance(std::time::Duration::from_millis(20))
                .expect("no script stops a task");
        }
    }
    driver
        .advance(std::time::Duration::from_secs(1))
        .expect("no script stops a task");
    let internal = driver.plan().internal_topics().into_iter();
    let topics = internal.map(|topic| topic.name).chain(["out".to_owned()]);
    topics
        .map(|topic| (topic.clone(), driver.all(&topic)))
        .collect()
}

#[test]
fn a_replay_repeats_outputs_and_changelogs_byte_by_byte() {
    let first = bytes_of_a_run();
    for (topic, records) in &first {
        assert!(!records.is_empty(), "nothing to compare in {topic}");
    }
    assert_eq!(bytes_of_a_run(), first);
}
