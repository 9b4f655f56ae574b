//! The events of the documented topics: tolerant readers and exact writers.
//!
//! A reader asks only for the fields that something here needs, skips types that it does
//! not know, and says of everything else what is wrong with it. A writer writes exactly
//! what the wire contract lists.

mod expiration;
mod order;
mod payment;
mod ticket;

pub use expiration::ExpirationEvent;
pub use order::{OrderChange, OrderEvent};
pub use payment::{PaymentChange, PaymentEvent};
pub use ticket::{TicketChange, TicketEvent};

/// The reason under which records of unknown types are counted.
pub const UNKNOWN_TYPE: &str = "unknown_type";

/// The reason under which records are counted that this service does not need.
pub const NOT_NEEDED: &str = "not_needed";
