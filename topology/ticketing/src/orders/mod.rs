//! The Orders service, in two halves that hand work to each other.
//!
//! ```text
//!  by ticket id                        by order id
//!  ┌──────────────┐     placed         ┌────────────┐
//!  │ reservations │ ─────────────────► │ life cycle │ ──► order events
//!  │ (who gets a  │                    │ (what an   │
//!  │  ticket)     │ ◄───────────────── │  order is) │
//!  └──────────────┘     released       └────────────┘
//! ```
//!
//! The reservations are the single place where a ticket is given to an order; the
//! life cycle is the only producer of an order's events. An order exists once the
//! life cycle has read `placed`, shortly after its command was answered: whoever
//! reports an order created waits until the store of orders has it. A reservation
//! ends only by `released`, which names the order, so that a late one cannot free
//! what another order holds.

mod catalog;
mod hand_off;
mod life_cycle;
mod order;
mod parked;
mod reservations;
mod rules;
mod status;

pub use catalog::{AwaitedTicket, CatalogEntry, Given, ListedTerms, ListedTicket};
pub use order::{Order, OrderByUser, OrderedTicket};
pub use status::OrderStatus;

use std::time::Duration;

use turnstile_engine::{Store, TopologyBuilder};

use crate::ids::{OrderId, TicketId};
use crate::outcome::{Outcome, OutcomeKey};
use crate::sources::Sources;

/// The stores of Orders.
#[derive(Debug, Clone, Copy)]
pub struct OrdersStores {
    /// By ticket id: the tickets as Tickets last published them, and the order that each
    /// was given to.
    pub catalog: Store<TicketId, CatalogEntry>,
    /// By ticket id: the outcomes of `order.create`, except for orders that have their
    /// tickets: those outcomes are in the catalog.
    pub reservation_outcomes: Store<OutcomeKey, Outcome>,
    /// By order id: the orders.
    pub orders: Store<OrderId, Order>,
    /// By order id: which orders a user has.
    pub orders_by_user: Store<OrderByUser, ()>,
    /// By order id: the outcomes of `order.cancel`.
    pub outcomes: Store<OutcomeKey, Outcome>,
}

/// The configuration of Orders.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OrdersConfig {
    /// How long an order waits for its payment.
    pub(crate) time_to_live: Duration,
    /// How long an order for a ticket that nobody has announced waits for it; `None`: not
    /// at all.
    pub(crate) ticket_wait: Option<Duration>,
}

/// Declares the service.
pub(crate) fn declare(
    builder: &mut TopologyBuilder,
    sources: &mut Sources,
    config: OrdersConfig,
) -> OrdersStores {
    let (released_to, released) = hand_off::released(builder);
    let (placed_to, placed) = hand_off::placed(builder);
    let stores = OrdersStores {
        catalog: builder.store("catalog"),
        reservation_outcomes: builder.store("reservation-outcomes"),
        orders: builder.store("orders"),
        orders_by_user: builder.store("orders-by-user"),
        outcomes: builder.store("order-outcomes"),
    };
    reservations::declare(
        builder,
        sources,
        &stores,
        config.ticket_wait,
        released,
        placed_to,
    );
    life_cycle::declare(
        builder,
        sources,
        &stores,
        config.time_to_live,
        placed,
        released_to,
    );
    stores
}
