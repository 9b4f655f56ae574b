//! What a processor can send.

use std::sync::Arc;

use turnstile_engine::task::TaskError;
use turnstile_engine::{
    Context, Processor, ProcessorError, Sink, Source, Topology, TopologyBuilder, TopologyTestDriver,
};

use super::script::{Text, decode};

/// A key that is no text.
const KEY: [u8; 3] = [0xff, 0, 0xfe];

/// Sends each line on, and a tombstone for an empty one.
struct Compacted(Sink<Text>);

impl Processor for Compacted {
    type In = Text;

    fn process(&mut self, context: &mut Context<'_>, text: Text) -> Result<(), ProcessorError> {
        if text.0.is_empty() {
            context.send_tombstone(self.0, KEY)
        } else {
            context.send(self.0, KEY, &text)
        }
    }
}

fn topology(declares_sink: bool) -> Topology {
    let mut builder = TopologyBuilder::new();
    let lines = builder.source(Source::new("lines", "readers", decode));
    let out = builder.sink("out");
    let other = builder.processor("other", move || Compacted(out));
    other.input(lines).sink(out).done();
    let processor = builder.processor("compacted", move || Compacted(out));
    let processor = processor.input(lines);
    if declares_sink {
        processor.sink(out).done();
    } else {
        processor.done();
    }
    builder.build().expect("the topology is sound")
}

#[test]
fn a_tombstone_goes_where_the_record_went_that_it_removes() {
    let topology = Arc::new(topology(true));
    let mut driver = TopologyTestDriver::new(topology, 4).expect("it fits its topics");
    for line in ["a row", ""] {
        driver.pipe("lines", None, Some(line.as_bytes()));
        driver.run().expect("nothing stops the task");
    }
    let sent = driver.take("out");
    let values: Vec<Option<&[u8]>> = sent.iter().map(|record| record.value.as_deref()).collect();
    assert_eq!(values, [Some(&b"a row"[..]), Some(b"a row"), None, None]);
    let partition = turnstile_engine::partitioner::partition_of(&KEY, 4);
    for record in sent {
        assert_eq!(record.key.as_deref(), Some(&KEY[..]));
        assert_eq!(record.partition, partition);
    }
}

#[test]
fn a_tombstone_needs_a_declared_sink_too() {
    let topology = Arc::new(topology(false));
    let mut driver = TopologyTestDriver::new(topology, 1).expect("it fits its topics");
    driver.pipe("lines", None, Some(b""));
    let fault = driver.run().expect_err("a sink is not declared");
    let TaskError::Processor { source, .. } = fault else {
        panic!("{fault}");
    };
    let undeclared = matches!(source, ProcessorError::Undeclared { kind: "sink", .. });
    assert!(undeclared, "{source}");
}
