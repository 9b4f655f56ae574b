//! The ticketing system as a topology on the engine.
//!
//! Four services share six topics: Tickets, Orders, Payments and Expiration. Any of
//! them may be run elsewhere, by a foreign implementation. [`topology`](mod@topology)
//! is the page to read first; then, from the outside in:
//!
//! - [`topics`], [`events`] and [`commands`]: the wire contract.
//! - [`tickets`], [`orders`], [`payments`] and [`expiration`]: a service each. Its rules
//!   are pure functions of state and event; its processor applies them.
//! - [`outcome`] and [`outcomes`]: what became of a command, for whoever waits for it.
//!
//! Nothing here knows HTTP, Kafka's client or the system clock.

mod instant;
mod row;
mod sources;
mod ticket_terms;
mod timer_key;
mod waiting;
mod wire;

pub mod commands;
pub mod events;
pub mod expiration;
pub mod ids;
pub mod orders;
pub mod outcome;
pub mod outcomes;
pub mod payments;
pub mod price;
pub mod tickets;
pub mod topics;
pub mod topology;

pub use instant::iso8601;
pub use sources::UNREADABLE;
pub use ticket_terms::{InvalidTerms, MAX_PRICE, MAX_TITLE_CHARS, TicketDraft, TicketTerms};
pub use topology::{Service, Ticketing, TicketingConfig, topology};
