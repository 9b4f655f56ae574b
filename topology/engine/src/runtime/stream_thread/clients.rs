//! The clients of a membership that has not joined yet.
//!
//! They connect, look for their coordinators and fence this member's predecessor while the thread
//! still waits for its turn to join. None of that makes it a member: it takes nobody's partitions,
//! and an instance that may not join can wait with them.

use std::mem;

use super::commit::Committers;
use super::{ThreadFault, ThreadSetup};
use crate::runtime::kafka::{
    FencingProducer, Fetcher, GroupConsumer, KafkaFault, Slots, TransactionalProducer,
};
use crate::runtime::restorer::Restorer;
use crate::runtime::transactions::Transaction;

/// The clients of one membership, on their way to the brokers.
pub(super) struct Clients {
    /// By transaction; none once the fence stands.
    producers: Vec<(Transaction, FencingProducer)>,
    pub(super) slots: Slots,
    // Fields are dropped in this order: the restorer holds clients of the groups.
    pub(super) restorer: Restorer,
    /// In the order of the groups.
    pub(super) consumers: Vec<GroupConsumer>,
    pub(super) fetcher: Fetcher,
}

impl Clients {
    /// Starts all clients; waits for none of them.
    pub(super) fn connect(setup: &ThreadSetup) -> Result<Self, ThreadFault> {
        let config = &setup.config;
        // First, since they take longest.
        let slots = Slots::default();
        let batch_bytes_max = setup.plan.record_bytes_max();
        let producers = Transaction::all(&setup.plan).into_iter().map(|of| {
            let id = of.id(&config.application_id, &config.instance_id, setup.number);
            let waker = setup.waker.clone();
            let producer =
                TransactionalProducer::begin(config, &id, batch_bytes_max, slots.clone(), waker)?;
            Ok((of, producer))
        });
        let producers = producers.collect::<Result<_, ThreadFault>>()?;
        let member = setup.member();
        let groups = setup.plan.subscriptions().into_keys();
        let consumers =
            groups.map(|group| GroupConsumer::connect(config, group, &member, setup.waker.clone()));
        let consumers = consumers.collect::<Result<_, _>>()?;
        let fetcher =
            Fetcher::connect(config, setup.plan.repartition_topics(), setup.waker.clone())?;
        let restorer = Restorer::start(
            config,
            setup.metrics.clone(),
            setup.ends.clone(),
            setup.waker.clone(),
        )?;
        Ok(Self {
            producers,
            slots,
            restorer,
            consumers,
            fetcher,
        })
    }
    /// Waits until this member's predecessor is fenced.
    pub(super) fn fence(&mut self) -> Result<Committers, ThreadFault> {
        let producers = mem::take(&mut self.producers).into_iter();
        // All of them, whatever happens to one: one that goes on fencing would fence its successor.
        let producers = producers.map(|(of, producer)| (of, producer.wait()));
        let producers: Vec<_> = producers.collect();
        let producers = producers
            .into_iter()
            .map(|(of, producer)| Ok((of, producer?)));
        let producers = producers.collect::<Result<Vec<_>, KafkaFault>>()?;
        Ok(Committers::new(producers))
    }
}
