//! What the HTTP routes need from the running application: rows to read, changes to wait
//! for, commands to send.
//!
//! - [`Rows`]: what is read, by name; [`Stores`]: where it is found, locally or elsewhere.
//! - [`Owners`]: which instance has which task.
//! - [`Application`]: the rest, as a trait so that the routes can be tested without a
//!   broker.

mod address;
mod answering;
mod found;
mod live;
#[cfg(test)]
pub(crate) mod memory;
mod missing;
mod outcomes;
mod owners;
mod rows;
mod stores;

pub use found::{Found, Patience, Staleness};
pub use live::{LiveApplication, StartFailure};
pub use owners::Owners;
pub use rows::Rows;
pub use stores::Stores;

use std::error::Error;
use std::future::Future;
use std::pin::Pin;

use thiserror::Error;
use turnstile_engine::Partition;
use turnstile_engine::runtime::InstanceStatus;
use turnstile_ticketing::Service;

/// A future of a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The processor that decides a command and keeps its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decider {
    /// Tickets: `ticket.create`, `ticket.update`.
    Tickets,
    /// Orders, by ticket: `order.create`.
    Reservations,
    /// Orders, by order: `order.cancel`.
    LifeCycle,
    /// Payments: `payment.create`.
    Payments,
}

/// A list that is read partition by partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// The tickets.
    Tickets,
    /// The orders, by user.
    Orders,
}

/// How the topology is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopologyForm {
    /// For people.
    Text,
    /// For programs.
    Json,
    /// For Graphviz.
    Dot,
}

/// Why there is no row to read.
#[derive(Debug, Error)]
pub enum Unavailable {
    /// No instance that has it answers at the moment.
    #[error("partition {} is not available at the moment: {why}", .partition.0)]
    NotYet {
        /// The partition that it belongs to.
        partition: Partition,
        /// Why not, for a person.
        why: String,
    },
    /// The service that keeps it is not run here.
    #[error("the service {0} is not run here")]
    NoService(Service),
    /// Reading failed.
    #[error("the store cannot be read")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

/// Why a command is not known to be written.
#[derive(Debug, Error)]
#[error("the command could not be written to Kafka")]
pub struct SendFailure {
    /// Whether it may be written all the same, or still be.
    pub may_be_written: bool,
    /// What the producer says.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

/// The running application.
pub trait Application: Send + Sync {
    /// What can be read.
    fn rows(&self) -> &Rows;

    /// What the instance says about itself.
    fn status(&self) -> InstanceStatus;

    /// The topology in words.
    fn topology(&self, form: TopologyForm) -> String;

    /// Writes a command, and returns when the brokers have it.
    fn send<'a>(
        &'a self,
        topic: &'static str,
        key: &'a str,
        command: Vec<u8>,
    ) -> BoxFuture<'a, Result<(), SendFailure>>;
}
