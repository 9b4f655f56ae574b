//! What became of a command, as the routes read and await it.
//!
//! An outcome is in one of two places: in the row that the command is about, while that row
//! is what the command made of it, or with the other outcomes of its decider. It may move
//! from the row to the others, but never back; so the row is read first, and a waiting
//! request watches both.

use std::str::FromStr;

use tokio::time::Instant;
use turnstile_engine::{Codec, Store};
use turnstile_ticketing::ids::{CommandId, OrderId, TicketId};
use turnstile_ticketing::orders::CatalogEntry;
use turnstile_ticketing::outcome::{Outcome, OutcomeKey};
use turnstile_ticketing::payments::OrderCharges;
use turnstile_ticketing::tickets::TicketEntry;

use super::{Decider, Patience, Rows, Unavailable};

/// A store of rows that keep outcomes.
struct Within<K, V> {
    store: Store<K, V>,
    outcome_of: fn(&V, &CommandId) -> Option<Outcome>,
}

/// # Errors
///
/// As with all reads of rows.
impl Rows {
    /// What became of a command.
    pub async fn outcome(
        &self,
        decider: Decider,
        key: &OutcomeKey,
        patience: Patience,
    ) -> Result<Option<Outcome>, Unavailable> {
        let within = match decider {
            Decider::Tickets => self.outcome_within(self.tickets()?, key, patience).await,
            Decider::Reservations => self.outcome_within(self.catalog()?, key, patience).await,
            Decider::Payments => self.outcome_within(self.charges()?, key, patience).await,
            Decider::LifeCycle => Ok(None),
        };
        if let Some(outcome) = within? {
            return Ok(Some(outcome));
        }
        let store = self.others(decider)?;
        let found = self.stores.get(store, &key.key, key, patience).await?;
        Ok(found.value)
    }

    /// What `find` finds in the outcome of a command, as soon as it finds something;
    /// `None` when the time is over.
    pub async fn await_outcome<T>(
        &self,
        decider: Decider,
        key: &OutcomeKey,
        deadline: Instant,
        find: impl Fn(Option<Outcome>) -> Option<T>,
    ) -> Result<Option<T>, Unavailable> {
        let store = self.others(decider)?;
        let others = self.stores.wait(store, &key.key, key, deadline, &find);
        match decider {
            Decider::Tickets => {
                let within = self.await_within(self.tickets()?, key, deadline, &find);
                first(within, others).await
            }
            Decider::Reservations => {
                let within = self.await_within(self.catalog()?, key, deadline, &find);
                first(within, others).await
            }
            Decider::Payments => {
                let within = self.await_within(self.charges()?, key, deadline, &find);
                first(within, others).await
            }
            Decider::LifeCycle => others.await,
        }
    }

    async fn outcome_within<K: Codec + FromStr, V: Codec>(
        &self,
        Within { store, outcome_of }: Within<K, V>,
        key: &OutcomeKey,
        patience: Patience,
    ) -> Result<Option<Outcome>, Unavailable> {
        let Ok(id) = key.key.parse() else {
            return Ok(None);
        };
        let row = self.stores.get(store, &key.key, &id, patience).await?;
        Ok(row.value.and_then(|row| outcome_of(&row, &key.command)))
    }

    async fn await_within<K: Codec + FromStr, V: Codec, T>(
        &self,
        Within { store, outcome_of }: Within<K, V>,
        key: &OutcomeKey,
        deadline: Instant,
        find: impl Fn(Option<Outcome>) -> Option<T>,
    ) -> Result<Option<T>, Unavailable> {
        let Ok(id) = key.key.parse() else {
            // No row has such an id: the outcome is with the others, if anywhere.
            return std::future::pending().await;
        };
        let find = |row: Option<V>| find(Some(outcome_of(&row?, &key.command)?));
        self.stores.wait(store, &key.key, &id, deadline, find).await
    }

    fn tickets(&self) -> Result<Within<TicketId, TicketEntry>, Unavailable> {
        Ok(Within {
            store: self.of_tickets()?.tickets,
            outcome_of: TicketEntry::outcome_of,
        })
    }

    fn catalog(&self) -> Result<Within<TicketId, CatalogEntry>, Unavailable> {
        Ok(Within {
            store: self.of_orders()?.catalog,
            outcome_of: CatalogEntry::outcome_of,
        })
    }

    fn charges(&self) -> Result<Within<OrderId, OrderCharges>, Unavailable> {
        Ok(Within {
            store: self.of_payments()?.charges,
            outcome_of: OrderCharges::outcome_of,
        })
    }

    /// The outcomes that are not in the row that they are about.
    fn others(&self, decider: Decider) -> Result<Store<OutcomeKey, Outcome>, Unavailable> {
        Ok(match decider {
            Decider::Tickets => self.of_tickets()?.outcomes,
            Decider::Reservations => self.of_orders()?.reservation_outcomes,
            Decider::LifeCycle => self.of_orders()?.outcomes,
            Decider::Payments => self.of_payments()?.outcomes,
        })
    }
}

/// What is found first in either of two places, both of which are watched until the same
/// deadline.
async fn first<T>(
    one: impl Future<Output = Result<Option<T>, Unavailable>>,
    other: impl Future<Output = Result<Option<T>, Unavailable>>,
) -> Result<Option<T>, Unavailable> {
    tokio::select! {
        found = one => found,
        found = other => found,
    }
}
