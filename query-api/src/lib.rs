//! The binary that runs the ticketing system: one instance, its HTTP API, its life cycle.
//!
//! The outermost of four crates: it knows configuration, signals and HTTP, and leaves
//! every decision about tickets and orders to the topology, with which it communicates
//! through commands and reads of stores.
//!
//! - [`command_line`], [`config`]: what is to be done, and how.
//! - [`lifecycle`]: start and stop, in numbered steps.
//! - [`application`]: what the routes need from the running topology.
//! - [`http`]: the routes.
//! - [`peers`]: what instances ask each other.
//! - [`token`]: bearer tokens for callers.
//! - [`demo`]: buyers who race for tickets, and the proof that none was sold twice.

pub mod application;
pub mod command_line;
pub mod config;
pub mod demo;
pub mod http;
pub mod instance;
pub mod lifecycle;
pub mod logging;
pub mod peers;
pub mod token;
