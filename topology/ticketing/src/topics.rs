//! The topics and consumer groups of the wire contract.

/// Events of Tickets, keyed by ticket id.
pub const TICKETS: &str = "tickets";
/// Events of Orders, keyed by order id.
pub const ORDERS: &str = "orders";
/// Events of Payments, keyed by order id.
pub const PAYMENTS: &str = "payments";
/// Events of Expiration, keyed by order id.
pub const EXPIRATION: &str = "expiration";
/// Commands that the owner of a ticket id decides.
pub const TICKET_COMMANDS: &str = "ticket-commands";
/// Commands that the owner of an order id decides.
pub const ORDER_COMMANDS: &str = "order-commands";

/// All topics of the contract: the application creates those that are missing.
pub const ALL: [&str; 6] = [
    TICKETS,
    ORDERS,
    PAYMENTS,
    EXPIRATION,
    TICKET_COMMANDS,
    ORDER_COMMANDS,
];

/// Orders reads [`TICKETS`] to keep its catalog.
pub const ORDERS_TICKETS: &str = "orders-tickets";
/// Orders reads [`PAYMENTS`] to move its orders on.
pub const ORDERS_PAYMENTS: &str = "orders-payments";
/// Orders reads [`EXPIRATION`] to cancel what has expired.
pub const ORDERS_EXPIRATION: &str = "orders-expiration";
/// Tickets reads [`ORDERS`] to reserve and release.
pub const TICKETS_ORDERS: &str = "tickets-orders";
/// Payments reads [`ORDERS`] to keep its copy of what can be paid.
pub const PAYMENTS_ORDERS: &str = "payments-orders";
/// Expiration reads [`ORDERS`] to set and cancel timers.
pub const EXPIRATION_ORDERS: &str = "expiration-orders";
