//! Declaring topologies: what is refused, how they lie on a cluster, how they are shown.

mod describe;
mod faults;
mod resolve;

use std::collections::BTreeMap;

use turnstile_engine::processor::{Context, Processor, ProcessorError};
use turnstile_engine::record::{Encode, InputRecord};
use turnstile_engine::{DecodeError, Decoded, Sink, Source};

/// A message that is text, keyed by itself.
#[derive(Clone)]
struct Text(String);

impl Encode for Text {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0.as_bytes());
    }
}

/// A processor of which only the connections matter.
struct Quiet;

impl Processor for Quiet {
    type In = Text;

    fn process(&mut self, _: &mut Context<'_>, _: Text) -> Result<(), ProcessorError> {
        Ok(())
    }
}

/// A processor that sends every message to a sink, keyed by itself.
struct Send(Sink<Text>);

impl Processor for Send {
    type In = Text;

    fn process(&mut self, context: &mut Context<'_>, text: Text) -> Result<(), ProcessorError> {
        context.send(self.0, text.0.clone(), &text)
    }
}

fn decode(record: &InputRecord<'_>) -> Result<Decoded<Text>, DecodeError> {
    let text = String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
    Ok(Decoded::Message(Text(text)))
}

fn source(topic: &str, group: &str) -> Source<Text> {
    Source::new(topic, group, decode)
}

fn keyed_source(topic: &str, group: &str, repartition: &str) -> Source<Text> {
    source(topic, group).keyed_by(repartition, |text: &Text| text.0.clone().into_bytes())
}

fn partitions(counts: &[(&str, i32)]) -> BTreeMap<String, i32> {
    counts
        .iter()
        .map(|(topic, count)| ((*topic).to_owned(), *count))
        .collect()
}
