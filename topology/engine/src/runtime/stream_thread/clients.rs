//! The clients of one membership, before it is one.
//!
//! They connect, look for their coordinators and fence whoever was this member before,
//! while the thread still waits for its turn to join. None of that makes it a member: it
//! takes nobody's partitions, and an instance that may not join can wait with them.

use super::{ThreadFault, ThreadSetup};
use crate::runtime::fence::transactional_id;
use crate::runtime::kafka::{FencingProducer, GroupConsumer, TransactionalProducer};
use crate::runtime::restorer::Restorer;

/// The clients of one membership, on their way to the brokers.
pub(super) struct Clients {
    pub(super) producer: FencingProducer,
    // Fields are dropped in this order: the restorer holds clients of the groups.
    pub(super) restorer: Restorer,
    /// In the order of the groups.
    pub(super) consumers: Vec<GroupConsumer>,
}

impl Clients {
    /// Starts all clients; waits for none of them.
    pub(super) fn connect(setup: &ThreadSetup) -> Result<Self, ThreadFault> {
        let config = &setup.config;
        let transactional_id =
            transactional_id(&config.application_id, &config.instance_id, setup.number);
        // First, since it has the longest way.
        let producer =
            TransactionalProducer::begin(config, &transactional_id, setup.waker.clone())?;
        let member = setup.member();
        let groups = setup.plan.subscriptions().into_keys();
        let consumers =
            groups.map(|group| GroupConsumer::connect(config, group, &member, setup.waker.clone()));
        let consumers = consumers.collect::<Result<_, _>>()?;
        let restorer = Restorer::start(config, setup.metrics.clone(), setup.waker.clone())?;
        Ok(Self {
            producer,
            restorer,
            consumers,
        })
    }
}
