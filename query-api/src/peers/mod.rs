//! What instances ask each other: reads of store rows, over HTTP/2.
//!
//! The instance that a client asked authenticates and authorizes it, and writes commands
//! itself; only rows come from where they are. An instance that is asked by another
//! answers from its own stores and never asks further, so there is at most one hop.
//!
//! - [`wire`]: what is sent.
//! - [`key`]: how instances know each other.
//! - [`origin`]: on whose behalf an instance asks.
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
