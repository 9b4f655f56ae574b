//! The application on a Kafka cluster.

use std::ops::Bound;
use std::sync::Arc;

use parking_lot::RwLock;
use thiserror::Error;
use turnstile_engine::runtime::{
    EventProducer, InstanceStatus, Metrics, Queries, QueryError, SendError, StartError, Streams,
};
use turnstile_engine::{Codec, Partition, Plan, Store, TopologyFaults};
use turnstile_state::{KeyRange, ScanDirection};
use turnstile_ticketing::ids::{OrderId, TicketId, UserId};
use turnstile_ticketing::orders::{CatalogEntry, Order, OrderByUser, OrdersStores};
use turnstile_ticketing::outcome::{Outcome, OutcomeKey};
use turnstile_ticketing::payments::PaymentsStores;
use turnstile_ticketing::tickets::{Ticket, TicketsStores};
use turnstile_ticketing::{Service, Ticketing, topology};

use super::{
    Application, BoxFuture, Decider, Listing, Row, SendFailure, TopologyForm, Unavailable,
    WatchGuard,
};
use crate::config::Config;

/// Why the application does not start.
#[derive(Debug, Error)]
pub enum StartFailure {
    /// The topology is wrong.
    #[error(transparent)]
    Topology(#[from] TopologyFaults),
    /// The cluster cannot be reached, or is not what the application needs.
    #[error("the Kafka cluster at {brokers} cannot be used (see KAFKA_BROKERS)")]
    Cluster {
        /// The brokers that were to be asked.
        brokers: String,
        /// Why not.
        #[source]
        source: StartError,
    },
    /// The stream threads cannot run.
    #[error(transparent)]
    Streams(StartError),
    /// Commands cannot be written.
    #[error(transparent)]
    Producer(#[from] SendError),
}

/// The application on a Kafka cluster.
pub struct LiveApplication {
    /// Until they have stopped.
    streams: RwLock<Option<Streams>>,
    plan: Arc<Plan>,
    queries: Queries,
    producer: EventProducer,
    ticketing: Ticketing,
}

impl LiveApplication {
    /// Starts the stream threads; `on_failure` is told when they stop by themselves.
    /// Blocks while it talks to the cluster.
    ///
    /// # Errors
    ///
    /// When the topology, the cluster or the state directory does not allow it.
    pub fn start(
        config: &Config,
        metrics: Metrics,
        on_failure: impl Fn(&str) + Send + Sync + 'static,
    ) -> Result<Self, StartFailure> {
        let ticketing = topology(&config.ticketing())?;
        let streams_config = config.streams();
        let producer = EventProducer::new(&streams_config)?;
        let streams = Streams::start(
            ticketing.topology.clone(),
            &config.topics(),
            streams_config,
            metrics,
        );
        let streams = streams.map_err(|source| match source {
            StartError::Kafka(_) | StartError::Topics(_) => StartFailure::Cluster {
                brokers: config.kafka_brokers.clone(),
                source,
            },
            source => StartFailure::Streams(source),
        })?;
        streams.on_failure(on_failure);
        let (queries, plan) = (streams.queries(), streams.plan());
        Ok(Self {
            streams: RwLock::new(Some(streams)),
            plan,
            queries,
            producer,
            ticketing,
        })
    }

    /// Commits, closes the tasks and leaves the groups. Blocks until that is done.
    pub fn stop(&self) {
        let streams = self.streams.write().take();
        if let Some(streams) = streams {
            streams.stop();
        }
    }

    fn tickets_stores(&self) -> Result<&TicketsStores, Unavailable> {
        self.ticketing
            .tickets
            .as_ref()
            .ok_or(Unavailable::NoService(Service::Tickets))
    }

    fn orders_stores(&self) -> Result<&OrdersStores, Unavailable> {
        self.ticketing
            .orders
            .as_ref()
            .ok_or(Unavailable::NoService(Service::Orders))
    }

    fn payments_stores(&self) -> Result<&PaymentsStores, Unavailable> {
        self.ticketing
            .payments
            .as_ref()
            .ok_or(Unavailable::NoService(Service::Payments))
    }

    fn outcomes(&self, decider: Decider) -> Result<Store<OutcomeKey, Outcome>, Unavailable> {
        Ok(match decider {
            Decider::Tickets => self.tickets_stores()?.outcomes,
            Decider::Reservations => self.orders_stores()?.reservation_outcomes,
            Decider::LifeCycle => self.orders_stores()?.outcomes,
            Decider::Payments => self.payments_stores()?.outcomes,
        })
    }

    fn get<K: Codec, V: Codec>(
        &self,
        store: Store<K, V>,
        partition_key: &str,
        key: &K,
    ) -> Result<Option<V>, Unavailable> {
        self.queries
            .get(store, partition_key, key)
            .map_err(|error| self.unavailable(error))
    }

    /// A partition that nobody here has counts as another's only once this instance has
    /// settled: before, and in a rebalance, it may still be coming.
    fn unavailable(&self, error: QueryError) -> Unavailable {
        match error {
            QueryError::NotOwned { partition, .. } if self.status().ready => {
                Unavailable::Elsewhere { partition }
            }
            QueryError::NotOwned { .. } | QueryError::NotRunning { .. } => {
                Unavailable::NotYet(error.to_string())
            }
            QueryError::UnknownStore(_)
            | QueryError::State(_)
            | QueryError::UnreadableRow { .. } => Unavailable::Failed(Box::new(error)),
        }
    }

    fn watch_key<K: Codec, V>(
        &self,
        store: Store<K, V>,
        partition_key: &str,
        key: &K,
        callback: Box<dyn FnOnce() + Send>,
    ) -> Result<WatchGuard, Unavailable> {
        let watch = self.queries.watch(store, partition_key, key, callback);
        watch
            .map(|watch| Box::new(watch) as WatchGuard)
            .map_err(|error| self.unavailable(error))
    }
}

impl Application for LiveApplication {
    fn status(&self) -> InstanceStatus {
        match &*self.streams.read() {
            Some(streams) => streams.status(),
            None => {
                let problems = vec!["the stream threads have stopped".to_owned()];
                InstanceStatus {
                    ready: false,
                    problems,
                    tasks: Vec::new(),
                }
            }
        }
    }

    fn topology(&self, form: TopologyForm) -> String {
        match form {
            TopologyForm::Text => self.plan.describe_text(),
            TopologyForm::Json => self.plan.describe_json().to_string(),
            TopologyForm::Dot => self.plan.describe_dot(),
        }
    }

    fn ticket(&self, id: &TicketId) -> Result<Option<Ticket>, Unavailable> {
        self.get(self.tickets_stores()?.tickets, id.as_str(), id)
    }

    fn catalog_entry(&self, id: &TicketId) -> Result<Option<CatalogEntry>, Unavailable> {
        self.get(self.orders_stores()?.catalog, id.as_str(), id)
    }

    fn reservation(&self, id: &TicketId) -> Result<Option<OrderId>, Unavailable> {
        self.get(self.orders_stores()?.reservations, id.as_str(), id)
    }

    fn order(&self, id: &OrderId) -> Result<Option<Order>, Unavailable> {
        self.get(self.orders_stores()?.orders, id.as_str(), id)
    }

    fn outcome(&self, decider: Decider, key: &OutcomeKey) -> Result<Option<Outcome>, Unavailable> {
        self.get(self.outcomes(decider)?, &key.key, key)
    }

    fn partitions(&self, listing: Listing) -> Result<i32, Unavailable> {
        let partitions = match listing {
            Listing::Tickets => self.queries.partitions(self.tickets_stores()?.tickets),
            Listing::Orders => self
                .queries
                .partitions(self.orders_stores()?.orders_by_user),
        };
        partitions.map_err(|error| self.unavailable(error))
    }

    fn tickets_in(
        &self,
        partition: Partition,
        after: Option<&TicketId>,
        limit: usize,
    ) -> Result<Vec<Ticket>, Unavailable> {
        let mut range = KeyRange::all();
        if let Some(after) = after {
            range.start = Bound::Excluded(after.to_bytes());
        }
        let store = self.tickets_stores()?.tickets;
        let rows = self
            .queries
            .scan(store, partition, &range, ScanDirection::Forward, limit);
        let rows = rows.map_err(|error| self.unavailable(error))?;
        Ok(rows.into_iter().map(|(_, ticket)| ticket).collect())
    }

    fn orders_in(
        &self,
        partition: Partition,
        user: &UserId,
        after: Option<&OrderId>,
        limit: usize,
    ) -> Result<Vec<Order>, Unavailable> {
        let mut range = KeyRange::prefix(&OrderByUser::prefix(user));
        if let Some(after) = after {
            let row = OrderByUser {
                user_id: user.clone(),
                order_id: after.clone(),
            };
            range.start = Bound::Excluded(row.to_bytes());
        }
        let store = self.orders_stores()?.orders_by_user;
        let rows = self
            .queries
            .scan(store, partition, &range, ScanDirection::Forward, limit);
        let rows = rows.map_err(|error| self.unavailable(error))?;
        let orders = rows.into_iter().map(|(row, ())| self.order(&row.order_id));
        // Both stores change in one commit, so an order that is listed can be read.
        orders.filter_map(Result::transpose).collect()
    }

    fn are_neighbours(&self, ticket: &TicketId, order: &OrderId) -> bool {
        let Some(stores) = &self.ticketing.orders else {
            return true;
        };
        let of_ticket = self
            .queries
            .partition_of(stores.reservations, ticket.as_str());
        let of_order = self.queries.partition_of(stores.orders, order.as_str());
        matches!((of_ticket, of_order), (Ok(ticket), Ok(order)) if ticket == order)
    }

    fn watch(
        &self,
        row: &Row,
        callback: Box<dyn FnOnce() + Send>,
    ) -> Result<WatchGuard, Unavailable> {
        match row {
            Row::Outcome(decider, key) => {
                self.watch_key(self.outcomes(*decider)?, &key.key, key, callback)
            }
            Row::CatalogEntry(id) => {
                self.watch_key(self.orders_stores()?.catalog, id.as_str(), id, callback)
            }
            Row::Reservation(id) => self.watch_key(
                self.orders_stores()?.reservations,
                id.as_str(),
                id,
                callback,
            ),
            Row::Order(id) => {
                self.watch_key(self.orders_stores()?.orders, id.as_str(), id, callback)
            }
        }
    }

    fn send<'a>(
        &'a self,
        topic: &'static str,
        key: &'a str,
        command: Vec<u8>,
    ) -> BoxFuture<'a, Result<(), SendFailure>> {
        Box::pin(async move {
            let sent = self.producer.send(topic, key, command).await;
            sent.map_err(|error| SendFailure(Box::new(error)))
        })
    }
}
