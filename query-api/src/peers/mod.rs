//! What instances ask each other: reads of store rows, over HTTP/2.
//!
//! The instance that a client asked authenticates it, authorizes, and writes commands
//! itself; only rows come from where they are. An instance that is asked by another
//! answers from its own stores and never asks further, so there is one hop at most.
//!
//! - [`wire`]: what is sent.
//! - [`key`]: how instances know each other.
//! - [`origin`]: on whose behalf one asks.
//! - [`client`]: the side that asks; the other is `http::internal`.
//! - [`measures`]: what is counted.

pub mod client;
pub mod key;
pub mod measures;
pub mod origin;
pub mod wire;

pub use client::{PeerFailure, Peers};
pub use key::ClusterKey;
pub use measures::PeerMeasures;
pub use wire::{Fingerprint, ReadReply, ReadRequest, Refusal, Wait};
