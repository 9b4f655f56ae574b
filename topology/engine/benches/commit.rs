//! What a task does for each record and for each commit: context, overlay, timers,
//! changelog records, the batch for the stores.
//!
//! On the topology test driver, so on stores and topics in memory: its own bookkeeping
//! is in the figures, Kafka and the disk are not.

use std::sync::Arc;
use std::time::Duration;

use divan::{AllocProfiler, Bencher};
use turnstile_engine::{
    Context, DecodeError, Decoded, Encode, InputRecord, Processor, ProcessorError, Sink, Source,
    Store, Timer, TopologyBuilder, TopologyTestDriver,
};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

/// About what a transaction of a busy task reads.
const RECORDS: u32 = 1000;

const MINUTE: Duration = Duration::from_mins(1);

fn main() {
    divan::main();
}

#[derive(Clone)]
struct Text(String);

impl Encode for Text {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0.as_bytes());
    }
}

fn decode(record: &InputRecord<'_>) -> Result<Decoded<Text>, DecodeError> {
    let key = record.key.unwrap_or_default();
    Ok(Decoded::Message(Text(
        String::from_utf8_lossy(key).into_owned(),
    )))
}

/// Reads and writes one row, sets one timer and sends one record for each that it gets.
struct Keeper {
    rows: Store<String, String>,
    sink: Sink<Text>,
}

impl Processor for Keeper {
    type In = Text;

    fn process(
        &mut self,
        context: &mut Context<'_>,
        Text(key): Text,
    ) -> Result<(), ProcessorError> {
        let row = context.get(self.rows, &key)?.unwrap_or_default();
        context.put(self.rows, &key, &format!("{}{key}", row.len()))?;
        context.schedule(key.as_bytes(), context.now().plus(MINUTE))?;
        context.send(self.sink, key.clone(), &Text(key))
    }

    fn on_timer(&mut self, _: &mut Context<'_>, _: Timer) -> Result<(), ProcessorError> {
        Ok(())
    }
}

/// A driver to which the records have come.
fn driver() -> TopologyTestDriver {
    let mut builder = TopologyBuilder::new();
    let stream = builder.source(Source::new("in", "group", decode));
    let rows = builder.store("rows");
    let sink = builder.sink("out");
    builder
        .processor("keeper", move || Keeper { rows, sink })
        .input(stream)
        .store(rows)
        .timers()
        .sink(sink)
        .done();
    let topology = Arc::new(builder.build().expect("the declaration has no fault"));
    let mut driver = TopologyTestDriver::new(topology, 1).expect("the topology fits its topics");
    for number in 0..RECORDS {
        let key = format!("{number:08x}-0000-4000-a000-000000000000");
        driver.pipe("in", Some(&key), Some(b"x"));
    }
    driver
}

fn process_all(driver: &mut TopologyTestDriver) {
    while driver.step(0).expect("no task stops") {}
}

#[divan::bench(sample_count = 50, sample_size = 1)]
fn process(bencher: Bencher) {
    bencher
        .counter(RECORDS)
        .with_inputs(driver)
        .bench_local_values(|mut driver| {
            process_all(&mut driver);
            driver
        });
}

#[divan::bench(sample_count = 50, sample_size = 1)]
fn commit(bencher: Bencher) {
    bencher
        .counter(RECORDS)
        .with_inputs(|| {
            let mut driver = driver();
            process_all(&mut driver);
            driver
        })
        .bench_local_values(|mut driver| {
            driver.commit();
            driver
        });
}
