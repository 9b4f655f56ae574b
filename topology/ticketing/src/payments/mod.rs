//! The Payments service, keyed by order id: it charges orders and gives money back.
//!
//! It keeps a copy of each order, of which the highest version wins, and charges an
//! order at most once, through a [`Gateway`]. A payment whose success its order could
//! not take comes back as `order.refund_due` and is refunded once. An Orders that is run
//! elsewhere may not know of refunds: then the money of an order that has ended goes back after a
//! minute.

mod charges;
mod gateway;
mod payable;
mod service;

pub use charges::{ChargeEnd, MadeCharge, OrderCharges};
pub use gateway::{Charge, ChargeAnswer, Gateway, Settlement, SimulatedGateway};
pub use payable::PayableOrder;
pub use service::PaymentsStores;

pub(crate) use service::{PaymentsConfig, declare};
