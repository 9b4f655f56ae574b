//! Subtopologies that meet through an external topic commit apart, and lose nothing by it.

use std::sync::Arc;

use turnstile_engine::{
    Context, Processor, ProcessorError, Sink, Source, Store, SubtopologyId, TopologyBuilder,
    TopologyTestDriver,
};

use super::script::{Text, decode};

/// Counts what it reads, and passes it on.
struct Count {
    counts: Store<String, u64>,
    to: Option<Sink<Text>>,
}

impl Processor for Count {
    type In = Text;

    fn process(&mut self, context: &mut Context<'_>, text: Text) -> Result<(), ProcessorError> {
        let count = context.get(self.counts, &text.0)?.unwrap_or(0);
        context.put(self.counts, &text.0, &(count + 1))?;
        match self.to {
            Some(to) => context.send(to, "key", &text),
            None => Ok(()),
        }
    }
}

const FIRST: SubtopologyId = SubtopologyId(0);
const SECOND: SubtopologyId = SubtopologyId(1);

/// The first counts `in` and writes `between`, the second counts that.
fn driver() -> (TopologyTestDriver, [Store<String, u64>; 2]) {
    let mut builder = TopologyBuilder::new();
    let input = builder.source(Source::new("in", "first", decode));
    let between = builder.source(Source::new("between", "second", decode));
    let sink = builder.sink("between");
    let stores = [
        builder.store("first-counts"),
        builder.store("second-counts"),
    ];
    let [first, second] = stores;
    let of_first = builder.processor("first", move || Count {
        counts: first,
        to: Some(sink),
    });
    of_first.input(input).store(first).sink(sink).done();
    let of_second = builder.processor("second", move || Count {
        counts: second,
        to: None,
    });
    of_second.input(between).store(second).done();
    let topology = Arc::new(builder.build().expect("the topology has no fault"));
    let driver = TopologyTestDriver::new(topology, 1).expect("it fits its topics");
    (driver, stores)
}

fn counts(driver: &TopologyTestDriver, stores: [Store<String, u64>; 2]) -> [u64; 2] {
    stores.map(|store| {
        driver
            .entries(store)
            .into_iter()
            .map(|(_, count)| count)
            .sum()
    })
}

#[test]
fn a_commit_of_one_has_nothing_of_the_other() {
    let (mut driver, stores) = driver();
    driver.pipe("in", Some("key"), Some(b"one"));
    driver.pipe("between", Some("key"), Some(b"foreign"));
    while driver.step(0).unwrap() {}
    driver.begin_commit_of(FIRST);
    assert_eq!(counts(&driver, stores), [0, 0]);
    driver.finish_commit_of(SECOND);
    assert_eq!(counts(&driver, stores), [0, 0], "none of that has begun");
    driver.finish_commit_of(FIRST);
    assert_eq!(counts(&driver, stores), [1, 0]);
    driver.commit();
    assert_eq!(counts(&driver, stores), [1, 1]);
    driver.run().unwrap();
    assert_eq!(counts(&driver, stores), [1, 2]);
}

#[test]
fn two_commits_are_under_way_and_finish_in_any_order() {
    for (one, other) in [(FIRST, SECOND), (SECOND, FIRST)] {
        let (mut driver, stores) = driver();
        driver.pipe("in", Some("key"), Some(b"one"));
        driver.pipe("between", Some("key"), Some(b"foreign"));
        while driver.step(0).unwrap() {}
        driver.begin_commit_of(FIRST);
        driver.begin_commit_of(SECOND);
        driver.finish_commit_of(one);
        assert_eq!(counts(&driver, stores).iter().sum::<u64>(), 1);
        driver.finish_commit_of(other);
        assert_eq!(counts(&driver, stores), [1, 1]);
    }
}

#[test]
fn a_crash_takes_what_is_not_committed_of_each() {
    let (mut driver, stores) = driver();
    driver.pipe("in", Some("key"), Some(b"one"));
    assert!(driver.step(0).unwrap());
    driver.begin_commit_of(FIRST);
    driver.finish_commit_of(FIRST);
    assert!(driver.step(0).unwrap(), "what the first has sent");
    driver.begin_commit_of(SECOND);
    driver.crash_and_restore().unwrap();
    assert_eq!(counts(&driver, stores), [1, 0]);
    driver.run().unwrap();
    assert_eq!(counts(&driver, stores), [1, 1]);
}

#[test]
#[should_panic = "a commit is finished before the next one begins"]
fn one_commit_of_each_is_under_way_at_most() {
    let (mut driver, _) = driver();
    driver.begin_commit_of(FIRST);
    driver.begin_commit();
}
