//! Periodic callbacks, on the wall clock and on stream time.

use std::sync::Arc;
use std::time::Duration;

use turnstile_engine::{
    Context, Partition, Processor, ProcessorError, PunctuationType, Sink, Source, TimestampMs,
    Topology, TopologyBuilder, TopologyFault, TopologyTestDriver,
};

use super::script::{Text, decode, sent};

/// Sends a line whenever it is called.
struct Metronome {
    out: Sink<Text>,
    /// How often it was called since its task was opened.
    calls: usize,
}

/// More calls than any test waits for: one that would never end fails instead.
const CALLS_MAX: usize = 100;

impl Processor for Metronome {
    type In = Text;

    fn process(&mut self, context: &mut Context<'_>, text: Text) -> Result<(), ProcessorError> {
        let timestamp = context.timestamp().min(TimestampMs(i64::MAX - 1));
        assert!(context.stream_time() >= Some(timestamp));
        match text.0.as_str() {
            "reject" => Err(ProcessorError::rejected("asked-to", "")),
            _ => Ok(()),
        }
        .and_then(|()| context.send(self.out, "", &text))
    }

    fn on_punctuate(
        &mut self,
        context: &mut Context<'_>,
        kind: PunctuationType,
    ) -> Result<(), ProcessorError> {
        self.calls += 1;
        assert!(self.calls < CALLS_MAX, "it is called without end");
        if kind == PunctuationType::StreamTime {
            assert_eq!(context.stream_time(), Some(context.timestamp()));
        } else {
            assert_eq!(context.timestamp(), context.now());
        }
        context.send(self.out, "", &Text(format!("{kind:?}")))
    }
}

fn topology(kind: PunctuationType, interval: Duration) -> Result<Topology, Vec<TopologyFault>> {
    let mut builder = TopologyBuilder::new();
    let ticks = builder.source(Source::new("ticks", "readers", decode));
    let out = builder.sink("out");
    builder
        .processor("metronome", move || Metronome { out, calls: 0 })
        .input(ticks)
        .sink(out)
        .punctuate(kind, interval)
        .done();
    builder.build().map_err(|faults| faults.0)
}

fn driver(kind: PunctuationType) -> TopologyTestDriver {
    let topology = topology(kind, Duration::from_millis(100)).expect("the topology is sound");
    TopologyTestDriver::new(Arc::new(topology), 1).expect("the topology fits its topics")
}

/// Lets time pass; what was sent meanwhile.
fn wait(driver: &mut TopologyTestDriver, ms: u64) -> Vec<String> {
    driver
        .advance(Duration::from_millis(ms))
        .expect("nothing stops the task");
    sent(driver)
}

/// A record `ms` milliseconds later on a clock that nothing else goes by.
fn record(driver: &mut TopologyTestDriver, ms: u64, value: &str) -> Vec<String> {
    driver.set_now(driver.now().plus(Duration::from_millis(ms)));
    driver.pipe_to("ticks", Partition(0), None, Some(value.as_bytes()), &[]);
    driver.run().expect("nothing stops the task");
    sent(driver)
}

/// A record of another time than the wall clock shows, not read yet.
fn record_of(driver: &mut TopologyTestDriver, timestamp: TimestampMs, value: &str) {
    let value = Some(value.as_bytes());
    driver.pipe_at("ticks", Partition(0), None, value, &[], timestamp);
}

const NOTHING: [&str; 0] = [];

#[test]
fn the_wall_clock_needs_no_records() {
    let mut driver = driver(PunctuationType::WallClockTime);
    assert_eq!(wait(&mut driver, 99), NOTHING);
    assert_eq!(wait(&mut driver, 1), ["WallClockTime"]);
    assert_eq!(wait(&mut driver, 99), NOTHING);
    assert_eq!(wait(&mut driver, 1), ["WallClockTime"]);
}

#[test]
fn lateness_does_not_add_up() {
    let mut driver = driver(PunctuationType::WallClockTime);
    assert_eq!(wait(&mut driver, 130), ["WallClockTime"]);
    assert_eq!(wait(&mut driver, 69), NOTHING);
    assert_eq!(wait(&mut driver, 1), ["WallClockTime"]);
}

#[test]
fn missed_intervals_are_one_call_and_the_next_comes_an_interval_later() {
    let mut driver = driver(PunctuationType::WallClockTime);
    assert_eq!(wait(&mut driver, 1_050), ["WallClockTime"]);
    assert_eq!(wait(&mut driver, 99), NOTHING);
    assert_eq!(wait(&mut driver, 1), ["WallClockTime"]);
}

#[test]
fn a_clock_that_is_set_back_silences_nobody() {
    let mut driver = driver(PunctuationType::WallClockTime);
    assert_eq!(wait(&mut driver, 100), ["WallClockTime"]);
    let hour_ms = 3_600_000;
    driver.set_now(TimestampMs(driver.now().0 - hour_ms));
    assert_eq!(wait(&mut driver, 0), NOTHING);
    assert_eq!(wait(&mut driver, 99), NOTHING);
    assert_eq!(wait(&mut driver, 1), ["WallClockTime"]);
    assert_eq!(wait(&mut driver, 99), NOTHING);
    assert_eq!(wait(&mut driver, 1), ["WallClockTime"]);
}

#[test]
fn stream_time_goes_by_records_alone() {
    let mut driver = driver(PunctuationType::StreamTime);
    assert_eq!(wait(&mut driver, 1_000), NOTHING);
    assert_eq!(record(&mut driver, 0, "first"), ["first"]);
    assert_eq!(wait(&mut driver, 50), NOTHING);
    assert_eq!(record(&mut driver, 49, "99 ms"), ["99 ms"]);
    assert_eq!(record(&mut driver, 1, "100 ms"), ["100 ms", "StreamTime"]);
    assert_eq!(wait(&mut driver, 1_000), NOTHING);
    let late = ["many intervals", "StreamTime"];
    assert_eq!(record(&mut driver, 0, "many intervals"), late);
    assert_eq!(record(&mut driver, 99, "99 ms"), ["99 ms"]);
    assert_eq!(record(&mut driver, 1, "100 ms"), ["100 ms", "StreamTime"]);
}

/// One record that is dated far ahead, and is nothing for this task, would end all intervals.
#[test]
fn stream_time_goes_by_records_that_are_processed() {
    let mut driver = driver(PunctuationType::StreamTime);
    record(&mut driver, 0, "first");
    let ahead = driver.now().plus(Duration::from_secs(3_600));
    record_of(&mut driver, ahead, "skip it");
    driver.pipe_at("ticks", Partition(0), None, Some(&[0xff]), &[], ahead);
    assert_eq!(wait(&mut driver, 0), NOTHING);
    assert_eq!(record(&mut driver, 99, "99 ms"), ["99 ms"]);
    assert_eq!(record(&mut driver, 1, "100 ms"), ["100 ms", "StreamTime"]);
}

#[test]
fn stream_time_never_goes_back() {
    let mut driver = driver(PunctuationType::StreamTime);
    record(&mut driver, 0, "first");
    record(&mut driver, 99, "second");
    driver.set_now(TimestampMs(5));
    assert_eq!(record(&mut driver, 0, "old"), ["old"]);
    // Due by the records, although the wall clock says otherwise.
    driver.set_now(driver.now().plus(Duration::from_secs(60)));
    record_of(&mut driver, TimestampMs(1_700_000_000_100), "third");
    driver.run().unwrap();
    let written = driver.all("out");
    let of = |value: &[u8]| {
        let mut found = written
            .iter()
            .filter(|record| record.value.as_deref() == Some(value));
        found.next_back().map(|record| record.timestamp)
    };
    assert_eq!(of(b"StreamTime"), of(b"third"));
    assert_eq!(sent(&mut driver), ["third", "StreamTime"]);
}

#[test]
fn the_greatest_timestamp_is_one_call_and_the_last() {
    let mut driver = driver(PunctuationType::StreamTime);
    assert_eq!(record(&mut driver, 0, "first"), ["first"]);
    for (value, called) in [("last", true), ("last again", false)] {
        record_of(&mut driver, TimestampMs(i64::MAX), value);
        driver.run().unwrap();
        let punctuation = called.then_some("StreamTime");
        let expected: Vec<&str> = [value].into_iter().chain(punctuation).collect();
        assert_eq!(sent(&mut driver), expected);
    }
}

#[test]
fn a_rejected_record_moves_stream_time_too() {
    let mut driver = driver(PunctuationType::StreamTime);
    record(&mut driver, 0, "first");
    assert_eq!(record(&mut driver, 100, "reject"), ["StreamTime"]);
}

#[test]
fn a_call_in_a_lost_transaction_comes_again() {
    for kind in [PunctuationType::WallClockTime, PunctuationType::StreamTime] {
        let mut driver = driver(kind);
        record(&mut driver, 0, "first");
        driver.set_now(driver.now().plus(Duration::from_millis(100)));
        driver.pipe("ticks", None, Some(b"second"));
        assert!(driver.step(0).unwrap());
        assert!(driver.fire_due().unwrap());
        driver.abort();
        driver.run().unwrap();
        assert_eq!(
            sent(&mut driver),
            ["second".to_owned(), format!("{kind:?}")]
        );
    }
}

#[test]
fn an_interval_begins_anew_with_the_task() {
    let mut driver = driver(PunctuationType::WallClockTime);
    assert_eq!(wait(&mut driver, 99), NOTHING);
    driver.crash_and_restore().unwrap();
    assert_eq!(wait(&mut driver, 99), NOTHING);
    assert_eq!(wait(&mut driver, 1), ["WallClockTime"]);
}

#[test]
fn an_interval_of_no_time_is_refused() {
    let intervals = [Duration::ZERO, Duration::from_micros(999)];
    for interval in intervals {
        assert_eq!(
            topology(PunctuationType::StreamTime, interval).err(),
            Some(vec![TopologyFault::NoInterval {
                processor: "metronome".to_owned()
            }])
        );
    }
}
