//! What the HTTP routes need of the running application: rows to read, changes to wait
//! for, commands to send.
//!
//! The seam is a trait so that the routes can be tested without a broker. Reads are of
//! committed state, and synchronous: a hash and a look into the store.

mod live;
#[cfg(test)]
pub(crate) mod memory;

pub use live::{LiveApplication, StartFailure};

use std::error::Error;
use std::future::Future;
use std::pin::Pin;

use thiserror::Error;
use turnstile_engine::Partition;
use turnstile_engine::runtime::InstanceStatus;
use turnstile_ticketing::Service;
use turnstile_ticketing::ids::{OrderId, TicketId, UserId};
use turnstile_ticketing::orders::{CatalogEntry, Order};
use turnstile_ticketing::outcome::{Outcome, OutcomeKey};
use turnstile_ticketing::tickets::Ticket;

/// A future of a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Keeps a watch alive; dropping it ends the watch.
pub type WatchGuard = Box<dyn Send>;

/// Who decides a command and keeps its outcome.
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

/// A row that somebody waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// The outcome of a command.
    Outcome(Decider, OutcomeKey),
    /// A ticket in the catalog of Orders.
    CatalogEntry(TicketId),
    /// The reservation of a ticket.
    Reservation(TicketId),
    /// An order.
    Order(OrderId),
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

/// Why a row cannot be read here and now.
#[derive(Debug, Error)]
pub enum Unavailable {
    /// Another instance owns it.
    #[error("partition {} is owned by another instance", .partition.0)]
    Elsewhere {
        /// The partition that it belongs to.
        partition: Partition,
    },
    /// It will be readable soon, here or elsewhere.
    #[error("{0}")]
    NotYet(String),
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
pub struct SendFailure(#[source] pub Box<dyn Error + Send + Sync>);

/// The running application.
pub trait Application: Send + Sync {
    /// What the instance says of itself.
    fn status(&self) -> InstanceStatus;

    /// The topology in words.
    fn topology(&self, form: TopologyForm) -> String;

    /// A ticket, as Tickets keeps it.
    ///
    /// # Errors
    ///
    /// When it cannot be read here and now; so with all reads.
    fn ticket(&self, id: &TicketId) -> Result<Option<Ticket>, Unavailable>;

    /// A ticket, as Orders knows it.
    ///
    /// # Errors
    ///
    /// See [`Self::ticket`].
    fn catalog_entry(&self, id: &TicketId) -> Result<Option<CatalogEntry>, Unavailable>;

    /// The order that a ticket is given to.
    ///
    /// # Errors
    ///
    /// See [`Self::ticket`].
    fn reservation(&self, id: &TicketId) -> Result<Option<OrderId>, Unavailable>;

    /// An order.
    ///
    /// # Errors
    ///
    /// See [`Self::ticket`].
    fn order(&self, id: &OrderId) -> Result<Option<Order>, Unavailable>;

    /// What became of a command.
    ///
    /// # Errors
    ///
    /// See [`Self::ticket`].
    fn outcome(&self, decider: Decider, key: &OutcomeKey) -> Result<Option<Outcome>, Unavailable>;

    /// How many partitions a list has.
    ///
    /// # Errors
    ///
    /// See [`Self::ticket`].
    fn partitions(&self, listing: Listing) -> Result<i32, Unavailable>;

    /// At most `limit` tickets of a partition, by id, from beyond `after`.
    ///
    /// # Errors
    ///
    /// See [`Self::ticket`].
    fn tickets_in(
        &self,
        partition: Partition,
        after: Option<&TicketId>,
        limit: usize,
    ) -> Result<Vec<Ticket>, Unavailable>;

    /// At most `limit` orders of a user in a partition, by id, from beyond `after`.
    ///
    /// # Errors
    ///
    /// See [`Self::ticket`].
    fn orders_in(
        &self,
        partition: Partition,
        user: &UserId,
        after: Option<&OrderId>,
        limit: usize,
    ) -> Result<Vec<Order>, Unavailable>;

    /// Whether the rows of `order` are kept where those of `ticket` are, as far as
    /// the numbers of partitions allow.
    fn are_neighbours(&self, ticket: &TicketId, order: &OrderId) -> bool;

    /// Calls `callback` once, when a commit has written `row`; it must not block.
    ///
    /// # Errors
    ///
    /// See [`Self::ticket`].
    fn watch(
        &self,
        row: &Row,
        callback: Box<dyn FnOnce() + Send>,
    ) -> Result<WatchGuard, Unavailable>;

    /// Writes a command, and returns when the brokers have it.
    fn send<'a>(
        &'a self,
        topic: &'static str,
        key: &'a str,
        command: Vec<u8>,
    ) -> BoxFuture<'a, Result<(), SendFailure>>;
}
