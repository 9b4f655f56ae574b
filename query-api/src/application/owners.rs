//! Which instance has a task, as this instance sees it.
//!
//! A trait, so that tests can connect instances without a broker.

use turnstile_engine::TaskId;
use turnstile_engine::runtime::{Cluster, Host, InstanceMetadata, StandbyReport};

/// What is known about the instances. All of it may be out of date.
pub trait Owners: Send + Sync {
    /// The instance that runs a task.
    fn owner(&self, task: TaskId) -> Option<Host>;

    /// The instances that keep a standby of a task, the freshest first.
    fn standbys(&self, task: TaskId) -> Vec<(Host, StandbyReport)>;

    /// All instances.
    fn instances(&self) -> Vec<InstanceMetadata>;
}

impl Owners for Cluster {
    fn owner(&self, task: TaskId) -> Option<Host> {
        self.owner(task)
    }

    fn standbys(&self, task: TaskId) -> Vec<(Host, StandbyReport)> {
        self.standbys(task)
    }

    fn instances(&self) -> Vec<InstanceMetadata> {
        self.instances()
    }
}
