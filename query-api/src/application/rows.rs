//! The rows of the ticketing stores, as the routes read and await them.
//!
//! This module only knows which store a row is in, and by which key; [`Stores`] finds it.
//! Reads are of committed state. The rows of a service that does not run here cannot be
//! read.

use std::ops::Bound;

use tokio::time::Instant;
use turnstile_engine::runtime::{InstanceMetadata, RowRange, StoreRead};
use turnstile_engine::{Codec, Partition};
use turnstile_state::{KeyRange, ScanDirection};
use turnstile_ticketing::ids::{OrderId, TicketId, UserId};
use turnstile_ticketing::orders::{CatalogEntry, ListedTicket, Order, OrderByUser, OrdersStores};
use turnstile_ticketing::payments::PaymentsStores;
use turnstile_ticketing::tickets::{Ticket, TicketEntry, TicketsStores};
use turnstile_ticketing::{Service, Ticketing};

use super::{Found, Listing, Patience, Stores, Unavailable};

/// The rows of the application.
pub struct Rows {
    ticketing: Ticketing,
    pub(super) stores: Stores,
}

/// # Errors
///
/// All reads fail if a row cannot be read within the reader's patience, if its service
/// does not run here, or if its store is broken.
impl Rows {
    /// The rows of these stores.
    #[must_use]
    pub fn new(ticketing: Ticketing, stores: Stores) -> Self {
        Self { ticketing, stores }
    }

    /// Where they are read.
    #[must_use]
    pub fn stores(&self) -> &Stores {
        &self.stores
    }

    /// The instances of the application, as this one sees them.
    #[must_use]
    pub fn instances(&self) -> Vec<InstanceMetadata> {
        self.stores.owners().instances()
    }

    /// A ticket, as Tickets keeps it.
    pub async fn ticket(
        &self,
        id: &TicketId,
        patience: Patience,
    ) -> Result<Found<Option<Ticket>>, Unavailable> {
        let store = self.of_tickets()?.tickets;
        let entry = self.stores.get(store, id.as_str(), id, patience).await?;
        Ok(entry.map(|entry| entry.map(|entry| entry.ticket)))
    }

    /// An order.
    pub async fn order(
        &self,
        id: &OrderId,
        patience: Patience,
    ) -> Result<Found<Option<Order>>, Unavailable> {
        let store = self.of_orders()?.orders;
        self.stores.get(store, id.as_str(), id, patience).await
    }

    /// What `find` finds in a ticket as Orders knows it, and in the order it is given to, as soon
    /// as it finds something; `None` when the time is over. The other waits work the same way.
    pub async fn await_listed_ticket<T>(
        &self,
        id: &TicketId,
        deadline: Instant,
        find: impl Fn(Option<ListedTicket>) -> Option<T>,
    ) -> Result<Option<T>, Unavailable> {
        let store = self.of_orders()?.catalog;
        let find = |entry: Option<CatalogEntry>| find(entry.and_then(CatalogEntry::listed));
        self.stores
            .wait(store, id.as_str(), id, deadline, find)
            .await
    }

    /// Waits until Tickets knows that `order` has ended, and does not hold `ticket` any more.
    pub async fn await_end_at_ticket(
        &self,
        ticket: &TicketId,
        order: &OrderId,
        deadline: Instant,
    ) -> Result<Option<()>, Unavailable> {
        let store = self.of_tickets()?.ended_orders;
        self.stores
            .wait(store, ticket.as_str(), order, deadline, |ended| ended)
            .await
    }

    /// Waits for an order.
    pub async fn await_order<T>(
        &self,
        id: &OrderId,
        deadline: Instant,
        find: impl Fn(Option<Order>) -> Option<T>,
    ) -> Result<Option<T>, Unavailable> {
        let store = self.of_orders()?.orders;
        self.stores
            .wait(store, id.as_str(), id, deadline, find)
            .await
    }

    /// The number of partitions of a list.
    pub fn partitions(&self, listing: Listing) -> Result<i32, Unavailable> {
        match listing {
            Listing::Tickets => self.stores.partitions(self.of_tickets()?.tickets),
            Listing::Orders => self.stores.partitions(self.of_orders()?.orders_by_user),
        }
    }

    /// At most `limit` tickets of a partition, by id, starting after `after`.
    pub async fn tickets_in(
        &self,
        partition: Partition,
        after: Option<&TicketId>,
        limit: usize,
        patience: Patience,
    ) -> Result<Found<Vec<Ticket>>, Unavailable> {
        let mut range = KeyRange::all();
        if let Some(after) = after {
            range.start = Bound::Excluded(after.to_bytes());
        }
        let read = StoreRead::Range(RowRange::new(range, ScanDirection::Forward, limit));
        let store = self.of_tickets()?.tickets;
        let rows = self.stores.rows(store, partition, read, patience).await?;
        let tickets =
            |rows: Vec<(TicketId, TicketEntry)>| values(rows).map(|entry| entry.ticket).collect();
        Ok(rows.map(tickets))
    }

    /// At most `limit` orders of a user in a partition, by id, starting after `after`.
    pub async fn orders_in(
        &self,
        partition: Partition,
        user: &UserId,
        after: Option<&OrderId>,
        limit: usize,
        patience: Patience,
    ) -> Result<Found<Vec<Order>>, Unavailable> {
        let prefix = OrderByUser::prefix(user);
        let mut range = KeyRange::prefix(&prefix);
        if let Some(after) = after {
            let row = OrderByUser {
                user_id: user.clone(),
                order_id: after.clone(),
            };
            range.start = Bound::Excluded(row.to_bytes());
        }
        let stores = self.of_orders()?;
        let read = StoreRead::Indexed {
            range: RowRange::new(range, ScanDirection::Forward, limit),
            prefix_bytes: prefix.len(),
            rows: self.stores.queries().store_name(stores.orders),
        };
        let index = stores.orders_by_user;
        let rows = self.stores.rows(index, partition, read, patience).await?;
        Ok(rows.map(|rows: Vec<(OrderId, Order)>| values(rows).collect()))
    }

    /// Whether the rows of `order` are kept where those of `ticket` are, judging by the
    /// numbers of partitions.
    #[must_use]
    pub fn are_neighbours(&self, ticket: &TicketId, order: &OrderId) -> bool {
        let Ok(stores) = self.of_orders() else {
            return true;
        };
        let of_ticket = self.stores.partition_of(stores.catalog, ticket.as_str());
        let of_order = self.stores.partition_of(stores.orders, order.as_str());
        matches!((of_ticket, of_order), (Ok(ticket), Ok(order)) if ticket == order)
    }

    pub(super) fn of_tickets(&self) -> Result<&TicketsStores, Unavailable> {
        let tickets = self.ticketing.tickets.as_ref();
        tickets.ok_or(Unavailable::NoService(Service::Tickets))
    }

    pub(super) fn of_orders(&self) -> Result<&OrdersStores, Unavailable> {
        let orders = self.ticketing.orders.as_ref();
        orders.ok_or(Unavailable::NoService(Service::Orders))
    }

    pub(super) fn of_payments(&self) -> Result<&PaymentsStores, Unavailable> {
        let payments = self.ticketing.payments.as_ref();
        payments.ok_or(Unavailable::NoService(Service::Payments))
    }
}

fn values<K, V>(rows: Vec<(K, V)>) -> impl Iterator<Item = V> {
    rows.into_iter().map(|(_, value)| value)
}
