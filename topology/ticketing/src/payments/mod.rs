//! The Payments service, keyed by order id: it charges and refunds orders.
//!
//! It keeps a copy of each order, of which the highest version wins, and charges an
//! order at most once, through a [`Gateway`]. A payment that succeeded but that its order
//! could not accept comes back as `order.refund_due` and is refunded once. An Orders that
//! runs elsewhere may not know of refunds: then the money of an order that has ended is
//! refunded after a minute.

mod charges;
mod gateway;
mod payable;
mod service;

pub use charges::{ChargeEnd, MadeCharge, OrderCharges};
pub use gateway::{Charge, ChargeAnswer, Gateway, Settlement, SimulatedGateway};
pub use payable::PayableOrder;
pub use service::PaymentsStores;

pub(crate) use service::{PaymentsConfig, declare};
