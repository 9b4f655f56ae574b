//! Records reach the task that owns their id, whatever their key and partition say.

use std::sync::Arc;

use turnstile_engine::partitioner::partition_of;
use turnstile_engine::record::Header;
use turnstile_engine::task::{Processed, TaskError};
use turnstile_engine::{
    Context, Decoded, ErrorPolicy, InputRecord, Partition, Processor, ProcessorError, Source,
    Store, TopologyBuilder, TopologyTestDriver,
};

use super::script::{Text, decode};

/// Remembers of each message under its first word, which is its id, the rest, and
/// the key of the record.
struct Remember(Store<String, String>);

impl Processor for Remember {
    type In = Text;

    fn process(&mut self, context: &mut Context<'_>, text: Text) -> Result<(), ProcessorError> {
        let (id, rest) = text.0.split_once(' ').unwrap_or((&text.0, ""));
        if rest == "reject" {
            return Err(ProcessorError::rejected("asked-to", "by the record"));
        }
        let row = id.to_owned();
        let before = context.get(self.0, &row)?.unwrap_or_default();
        let key = String::from_utf8_lossy(context.key().unwrap_or(b"null")).into_owned();
        context.put(self.0, &row, &format!("{before}[{rest} by {key}]"))
    }
}

const PARTITIONS: i32 = 4;

struct Fixture {
    driver: TopologyTestDriver,
    rows: Store<String, String>,
}

/// `placed` decides how many tasks there are; `events` has `partitions` partitions.
fn fixture(partitions: i32, policy: ErrorPolicy) -> Fixture {
    let mut builder = TopologyBuilder::new();
    let id_of = |text: &Text| {
        let id = text.0.split(' ').next().unwrap_or_default();
        id.as_bytes().to_vec()
    };
    let events = builder.source(
        Source::new("events", "readers", decode)
            .keyed_by("events-by-id", id_of)
            .on_error(policy),
    );
    let placed = builder.source(Source::new("placed", "readers", |_: &InputRecord<'_>| {
        Ok(Decoded::<Text>::Skip("not read"))
    }));
    let rows = builder.store("rows");
    builder
        .processor("remember", move || Remember(rows))
        .input(events)
        .input(placed)
        .store(rows)
        .done();
    let topology = builder.build().expect("the topology is sound");
    let counts = [("events", partitions), ("placed", PARTITIONS)];
    let counts = counts.map(|(topic, count)| (topic.to_owned(), count));
    let driver = TopologyTestDriver::with_topics(Arc::new(topology), counts)
        .expect("the topology fits its topics");
    Fixture { driver, rows }
}

impl Fixture {
    /// The row of `id` in the task that owns it.
    fn row(&self, id: &str) -> Option<String> {
        self.driver.get(self.rows, id, &id.to_owned())
    }
}

fn headers() -> Vec<Header> {
    vec![
        ("trace".to_owned(), Some(b"1".to_vec())),
        ("null".to_owned(), None),
    ]
}

#[test]
fn every_record_reaches_the_task_of_its_id() {
    let Fixture { mut driver, rows } = fixture(PARTITIONS, ErrorPolicy::DeadLetter);
    for n in 0..40 {
        let id = format!("id-{n}");
        let value = format!("{id} v");
        for partition in 0..PARTITIONS {
            driver.pipe_to(
                "events",
                Partition(partition),
                Some(b"foreign"),
                Some(value.as_bytes()),
                &[],
            );
        }
        driver.pipe("events", None, Some(value.as_bytes()));
    }
    driver.run().unwrap();
    let fixture = Fixture { driver, rows };
    for n in 0..40 {
        let id = format!("id-{n}");
        let row = fixture.row(&id).expect("the task of the id has its row");
        let direct = if partition_of(id.as_bytes(), PARTITIONS) == Partition(0) {
            "v by null"
        } else {
            "v by foreign"
        };
        assert_eq!(row.matches("[v by ").count(), 5, "{row}");
        assert!(row.contains(direct), "{row}");
    }
    // And no other task has one.
    assert_eq!(fixture.driver.entries(rows).len(), 40);
}

#[test]
fn a_record_that_is_at_home_takes_no_detour() {
    let mut fixture = fixture(PARTITIONS, ErrorPolicy::DeadLetter);
    fixture.driver.pipe("events", Some("a"), Some(b"a v"));
    fixture.driver.run().unwrap();
    assert_eq!(fixture.row("a").as_deref(), Some("[v by a]"));
    assert_eq!(fixture.driver.results("events"), [Processed::Done]);
    let detour = fixture.driver.internal("events-by-id-repartition");
    assert!(fixture.driver.all(&detour).is_empty());
}

#[test]
fn a_detour_changes_the_key_and_nothing_else() {
    let mut fixture = fixture(PARTITIONS, ErrorPolicy::DeadLetter);
    let home = partition_of(b"a", PARTITIONS);
    let elsewhere = Partition((home.0 + 1) % PARTITIONS);
    let driver = &mut fixture.driver;
    driver.pipe_to("events", elsewhere, Some(b"key"), Some(b"a v"), &headers());
    let time = driver.now();
    driver.set_now(time.plus(std::time::Duration::from_secs(9)));
    driver.run().unwrap();
    assert_eq!(driver.results("events"), [Processed::Rekeyed]);
    let detour = driver.all(&driver.internal("events-by-id-repartition"));
    assert_eq!(detour.len(), 1);
    assert_eq!(detour[0].partition, home);
    assert_eq!(detour[0].key_text(), "a");
    assert_eq!(detour[0].value_text(), "a v");
    assert_eq!(detour[0].headers, headers());
    assert_eq!(detour[0].timestamp, time);
    assert_eq!(fixture.row("a").as_deref(), Some("[v by a]"));
}

#[test]
fn with_another_partition_count_all_records_take_the_detour() {
    for partitions in [1, 3, 7] {
        let mut fixture = fixture(partitions, ErrorPolicy::DeadLetter);
        for n in 0..20 {
            let id = format!("id-{n}");
            fixture
                .driver
                .pipe("events", Some(&id), Some(format!("{id} 1").as_bytes()));
            fixture
                .driver
                .pipe("events", Some(&id), Some(format!("{id} 2").as_bytes()));
        }
        fixture.driver.run().unwrap();
        assert_eq!(fixture.driver.results("events"), [Processed::Rekeyed; 40]);
        for n in 0..20 {
            let id = format!("id-{n}");
            // In their order: that of one id is kept.
            let row = format!("[1 by {id}][2 by {id}]");
            assert_eq!(fixture.row(&id), Some(row), "{partitions} partitions");
        }
    }
}

#[test]
fn what_cannot_be_read_becomes_a_dead_letter_where_it_is() {
    for partitions in [PARTITIONS, 3] {
        let mut fixture = fixture(partitions, ErrorPolicy::DeadLetter);
        let driver = &mut fixture.driver;
        driver.pipe_to(
            "events",
            Partition(2),
            Some(b"a"),
            Some(&[0xff]),
            &headers(),
        );
        driver.pipe_to("events", Partition(1), None, None, &[]);
        driver.pipe_to("events", Partition(0), None, Some(b"skip"), &[]);
        driver.run().unwrap();
        let mut letters = driver.all(&driver.internal("dlq"));
        letters.sort_by_key(|letter| letter.partition);
        let [null, unreadable] = letters.as_slice() else {
            panic!("two dead letters: {letters:?}")
        };
        assert_eq!(unreadable.partition, Partition(2));
        assert_eq!(unreadable.key_text(), "a");
        assert_eq!(unreadable.value.as_deref(), Some([0xff].as_slice()));
        assert_eq!(unreadable.headers[..2], headers());
        let origin = |name| unreadable.header(&format!("__streams.errors.{name}"));
        assert_eq!(origin("topic").as_deref(), Some("events"));
        assert_eq!(origin("partition").as_deref(), Some("2"));
        assert_eq!(
            (null.partition, &null.key, &null.value),
            (Partition(1), &None, &None)
        );
        assert!(
            driver
                .all(&driver.internal("events-by-id-repartition"))
                .is_empty()
        );
        assert!(
            driver
                .results("events")
                .contains(&Processed::Skipped("asked-to"))
        );
    }
}

#[test]
fn a_record_may_be_rejected_behind_the_detour() {
    let mut fixture = fixture(3, ErrorPolicy::DeadLetter);
    fixture
        .driver
        .pipe("events", Some("key"), Some(b"a reject"));
    fixture.driver.run().unwrap();
    let letters = fixture.driver.all(&fixture.driver.internal("dlq"));
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].value_text(), "a reject");
    assert_eq!(
        letters[0].header("__streams.errors.topic"),
        Some(fixture.driver.internal("events-by-id-repartition"))
    );
}

#[test]
fn the_error_policy_holds_before_and_behind_the_detour() {
    for (partitions, value) in [
        (3, b"a reject".as_slice()),
        (3, &[0xff]),
        (PARTITIONS, &[0xff]),
    ] {
        let mut fixture = fixture(partitions, ErrorPolicy::Stop);
        fixture.driver.pipe("events", Some("key"), Some(value));
        let ended = fixture.driver.run();
        assert!(
            matches!(ended, Err(TaskError::Rejected { .. })),
            "{ended:?}"
        );
        assert!(
            fixture
                .driver
                .all(&fixture.driver.internal("dlq"))
                .is_empty()
        );
    }
}

#[test]
fn a_record_that_is_too_large_under_its_id_is_a_dead_letter_where_it_was_read() {
    let Fixture { mut driver, .. } = fixture(PARTITIONS, ErrorPolicy::DeadLetter);
    let id = "x".repeat(9 << 20);
    let home = partition_of(id.as_bytes(), PARTITIONS);
    let elsewhere = Partition((home.0 + 1) % PARTITIONS);
    driver.pipe_to("events", elsewhere, None, Some(id.as_bytes()), &[]);
    driver.run().unwrap();
    assert_eq!(
        driver.results("events"),
        [Processed::DeadLettered("too-large")]
    );
    assert_eq!(
        driver
            .all(&driver.internal("events-by-id-repartition"))
            .len(),
        0
    );
    let letters = driver.take(&driver.internal("dlq"));
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].value.as_deref(), Some(id.as_bytes()));
    assert_eq!(
        letters[0].header("__streams.errors.topic").as_deref(),
        Some("events")
    );
}
