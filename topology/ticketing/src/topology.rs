//! The ticketing system as one topology: the page to read first.
//!
//! | keyed by | service | reads, by group | writes |
//! |---|---|---|---|
//! | ticket id | Tickets: creates, edits, reserves, releases | `tickets-orders`: `orders`, `ticket-commands` | `tickets` |
//! | ticket id | Orders: catalog and reservations | `orders-tickets`: `tickets`, `ticket-commands`, *released* | *placed* |
//! | order id | Orders: life cycle | `orders-payments`: `payments`, `order-commands`, *placed*; `orders-expiration`: `expiration` | `orders`, *released* |
//! | order id | Payments: copy of payable orders, charges, refunds | `payments-orders`: `orders`, `order-commands` | `payments` |
//! | order id | Expiration: timers | `expiration-orders`: `orders` | `expiration` |
//!
//! Each row is a subtopology; topics in italics are internal to the application.
//! Every record is brought to the partition of the id that its row is keyed by,
//! whatever its key is: the events of orders that Tickets reads by ticket id are
//! just the case in which most keys differ.
//!
//! A service that is run elsewhere is not declared here, and the others neither know
//! nor care: they meet it only through the documented topics.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use turnstile_engine::{Topology, TopologyBuilder, TopologyFaults};

use crate::expiration::{self, ExpirationStores};
use crate::orders::{self, OrdersConfig, OrdersStores};
use crate::payments::{self, Gateway, PaymentsConfig, PaymentsStores, SimulatedGateway};
use crate::sources::Sources;
use crate::tickets::{self, TicketsStores};

/// One of the four services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// Owns the tickets.
    Tickets,
    /// Reserves tickets for orders and leads the orders through their life cycle.
    Orders,
    /// Charges and refunds orders.
    Payments,
    /// Says when an order's time is over.
    Expiration,
}

/// A name that is not a service's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no service: there are tickets, orders, payments and expiration")]
pub struct UnknownService(String);

impl Service {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Tickets,
        Self::Orders,
        Self::Payments,
        Self::Expiration,
    ];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tickets => "tickets",
            Self::Orders => "orders",
            Self::Payments => "payments",
            Self::Expiration => "expiration",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Service {
    type Err = UnknownService;

    fn from_str(name: &str) -> Result<Self, UnknownService> {
        let service = Self::ALL
            .into_iter()
            .find(|service| service.as_str() == name);
        service.ok_or_else(|| UnknownService(name.to_owned()))
    }
}

/// What is run here, and how.
#[derive(Clone)]
pub struct TicketingConfig {
    /// The services that are run here; the others are run elsewhere.
    pub services: BTreeSet<Service>,
    /// How long an order waits for its payment.
    pub order_ttl: Duration,
    /// The payment gateway.
    pub gateway: Arc<dyn Gateway>,
    /// How long the gateway may take to answer before a charge counts as failed.
    pub charge_timeout: Duration,
    /// How long a command waits for an order or a foreign service's ticket that it has
    /// overtaken, before that counts as missing.
    pub arrival_wait: Duration,
    /// How long a foreign Orders has to ask for a refund for an order that has ended, before
    /// Payments refunds it unasked.
    pub refund_wait: Duration,
}

impl Default for TicketingConfig {
    fn default() -> Self {
        Self {
            services: Service::ALL.into(),
            order_ttl: Duration::from_mins(2),
            gateway: Arc::new(SimulatedGateway),
            charge_timeout: Duration::from_secs(2),
            arrival_wait: Duration::from_secs(5),
            refund_wait: Duration::from_mins(1),
        }
    }
}

/// The topology, and its stores by service.
#[derive(Clone)]
pub struct Ticketing {
    /// What to run.
    pub topology: Arc<Topology>,
    /// The stores of Tickets, where it is run here.
    pub tickets: Option<TicketsStores>,
    /// The stores of Orders, where it is run here.
    pub orders: Option<OrdersStores>,
    /// The stores of Payments, where it is run here.
    pub payments: Option<PaymentsStores>,
    /// The stores of Expiration, where it is run here.
    pub expiration: Option<ExpirationStores>,
}

/// Declares the services of `config`.
///
/// # Errors
///
/// When nothing is to be run, or the declaration is wrong.
pub fn topology(config: &TicketingConfig) -> Result<Ticketing, TopologyFaults> {
    let runs = |service| config.services.contains(&service);
    let mut builder = TopologyBuilder::new();
    let mut sources = Sources::default();

    let tickets = runs(Service::Tickets).then(|| tickets::declare(&mut builder, &mut sources));
    let orders = runs(Service::Orders).then(|| {
        // Our own Tickets announces its tickets; only those of a foreign one come unannounced.
        let ticket_wait = (!runs(Service::Tickets)).then_some(config.arrival_wait);
        let config = OrdersConfig {
            time_to_live: config.order_ttl,
            ticket_wait,
        };
        orders::declare(&mut builder, &mut sources, config)
    });
    let payments = runs(Service::Payments).then(|| {
        let config = PaymentsConfig {
            gateway: config.gateway.clone(),
            charge_timeout: config.charge_timeout,
            order_wait: config.arrival_wait,
            refund_wait: (!runs(Service::Orders)).then_some(config.refund_wait),
        };
        payments::declare(&mut builder, &mut sources, config)
    });
    let expiration =
        runs(Service::Expiration).then(|| expiration::declare(&mut builder, &mut sources));

    let topology = Arc::new(builder.build()?);
    Ok(Ticketing {
        topology,
        tickets,
        orders,
        payments,
        expiration,
    })
}
