//! Plans whose processors do nothing, for tests of what is around them.

use std::sync::Arc;

use crate::topology::Plan;
use crate::{
    Context, Decoded, InputRecord, Processor, ProcessorError, Source, Store, TopologyBuilder,
};

struct Quiet;

impl Processor for Quiet {
    type In = ();

    fn process(&mut self, _: &mut Context<'_>, (): ()) -> Result<(), ProcessorError> {
        Ok(())
    }
}

/// The plan of an application `app` that has, for each topic with its partition count, a
/// subtopology with these stores; and the stores, in their order.
pub(crate) fn plan(topics: &[(&str, i32, &[&str])]) -> (Arc<Plan>, Vec<Store<String, u64>>) {
    let mut builder = TopologyBuilder::new();
    let mut all = Vec::new();
    for (topic, _, names) in topics {
        let decode = |_: &InputRecord<'_>| Ok(Decoded::Message(()));
        let source = builder.source(Source::new(*topic, "group", decode));
        let stores = names.iter().map(|name| builder.store(*name));
        let stores: Vec<Store<String, u64>> = stores.collect();
        let mut processor = builder.processor(*topic, || Quiet).input(source);
        for store in &stores {
            processor = processor.store(*store);
        }
        processor.done();
        all.extend(stores);
    }
    let topology = Arc::new(builder.build().unwrap());
    let counts = topics.iter();
    let counts = counts.map(|(topic, partitions, _)| ((*topic).to_owned(), *partitions));
    let plan = topology.resolve("app", &counts.collect()).unwrap();
    (Arc::new(plan), all)
}
