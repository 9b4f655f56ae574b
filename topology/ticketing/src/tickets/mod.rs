//! The Tickets service, keyed by ticket id: it owns the tickets.
//!
//! It creates and edits them by command, and learns from the events of orders who
//! holds them. Whether an order gets a ticket is not decided here but by the
//! reservations of Orders; a ticket may therefore see the next holder come before
//! the last one has gone, and keeps both.

mod rules;
mod service;
mod ticket;

pub use service::TicketsStores;
pub use ticket::{Ticket, TicketEntry};

pub(crate) use service::declare;
