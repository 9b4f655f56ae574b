//! What a task sees of a record that skips its repartition topic.

use std::sync::Arc;

use turnstile_state::MemoryBackend;

use super::{Cause, Processed, Task, TaskStatus};
use crate::partitioner::partition_of;
use crate::record::{Encode, OutputRecord};
use crate::topology::{Plan, Sink};
use crate::{
    Context, Decoded, InputRecord, Offset, Partition, Processor, ProcessorError, Source,
    SubtopologyId, TaskId, TimestampMs, TopologyBuilder,
};

const NOW: TimestampMs = TimestampMs(0);

#[derive(Clone)]
struct Text(String);

impl Encode for Text {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0.as_bytes());
    }
}

/// Sends the key of each record, and where it was read under which key.
struct Tell(Sink<Text>);

impl Processor for Tell {
    type In = Text;

    fn process(&mut self, context: &mut Context<'_>, _: Text) -> Result<(), ProcessorError> {
        let text =
            |key: Option<&[u8]>| String::from_utf8_lossy(key.unwrap_or(b"none")).into_owned();
        let (key, before) = (text(context.key()), text(context.origin_key()));
        let origin = context.origin().expect("a record is processed");
        let told = Text(format!("{key} was {before} at {origin}"));
        context.send(self.0, "told", &told)
    }
}

/// One subtopology over two partitions of `events`, whose values are their ids.
fn plan() -> Arc<Plan> {
    let decode = |record: &InputRecord<'_>| {
        let value = record.value.unwrap_or_default();
        Ok(Decoded::Message(Text(
            String::from_utf8_lossy(value).into_owned(),
        )))
    };
    let mut builder = TopologyBuilder::new();
    let events = Source::new("events", "readers", decode);
    let events =
        builder.source(events.keyed_by("by-id", |text: &Text| text.0.clone().into_bytes()));
    let out = builder.sink("out");
    let tell = builder.processor("tell", move || Tell(out));
    tell.input(events).sink(out).done();
    let topology = Arc::new(builder.build().unwrap());
    let counts = [("events".to_owned(), 2), ("out".to_owned(), 1)];
    Arc::new(topology.resolve("app", &counts.into()).unwrap())
}

fn task(plan: &Plan, partition: Partition) -> Task {
    let id = TaskId {
        subtopology: SubtopologyId(0),
        partition,
    };
    let of = plan.subtopology(id.subtopology).unwrap();
    let backend = Arc::new(MemoryBackend::new(&of.store_specs()));
    let mut task = Task::new(id, plan.topology.clone(), of.clone(), backend);
    task.become_status(TaskStatus::Restoring);
    task.start(NOW);
    task
}

fn source(task: &Task, topic: &str) -> usize {
    let mut sources = task.plan().sources.iter();
    sources.position(|source| &*source.topic == topic).unwrap()
}

fn sent(task: &mut Task) -> OutputRecord {
    let mut sent = Vec::new();
    task.take_outputs_into(&mut sent);
    assert_eq!(sent.len(), 1);
    sent.remove(0)
}

#[test]
fn a_record_that_skips_its_topic_is_known_by_where_it_was_read_and_under_which_key() {
    const BY_ID: &str = "app-by-id-repartition";
    let plan = plan();
    let home = partition_of(b"id", 2);
    let elsewhere = Partition(1 - home.0);
    for key in [None, Some(b"wrong".as_slice())] {
        let mut reader = task(&plan, elsewhere);
        let mut owner = task(&plan, home);
        let record = InputRecord {
            key,
            value: Some(b"id"),
            headers: &[],
            timestamp: NOW,
            offset: Offset(5),
            decoded: None,
        };
        let events = source(&reader, "events");
        let processed = reader.process(events, &record, NOW).unwrap();
        assert_eq!(processed, Processed::Rekeyed);
        let rekeyed = sent(&mut reader);
        assert_eq!((&*rekeyed.topic, rekeyed.partition), (BY_ID, home));

        let origin = reader.origin(events, record.offset);
        let cause = Cause {
            origin: &origin,
            key,
        };
        let by_id = source(&owner, BY_ID);
        let processed = owner.take_over(by_id, &rekeyed, cause, NOW).unwrap();
        assert_eq!(processed, Some(Processed::Done));
        let before = key.map_or("none", |_| "wrong");
        let told = format!("id was {before} at events-{elsewhere}@5");
        assert_eq!(sent(&mut owner).value, Some(told.into_bytes()));

        // Through the topic, what it was before is not known.
        let through = InputRecord {
            key: rekeyed.key.as_deref(),
            offset: Offset(0),
            ..record
        };
        owner.process(by_id, &through, NOW).unwrap();
        let told = format!("id was id at {BY_ID}-{home}@0");
        assert_eq!(sent(&mut owner).value, Some(told.into_bytes()));
    }
}
