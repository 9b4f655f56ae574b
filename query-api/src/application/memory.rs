//! The application without a broker, on the topology test driver: a command that is sent
//! is processed at once. Faults can be planted.

use parking_lot::Mutex;
use turnstile_engine::driver::TopologyTestDriver;
use turnstile_engine::partitioner::partition_of;
use turnstile_engine::runtime::InstanceStatus;
use turnstile_engine::{Codec, Partition, Store, TimestampMs};
use turnstile_ticketing::ids::{OrderId, TicketId, UserId};
use turnstile_ticketing::orders::{CatalogEntry, Order, OrderByUser, OrdersStores};
use turnstile_ticketing::outcome::{Outcome, OutcomeKey};
use turnstile_ticketing::tickets::{Ticket, TicketsStores};
use turnstile_ticketing::{Service, Ticketing, TicketingConfig, topology};

use super::{
    Application, BoxFuture, Decider, Listing, Row, SendFailure, TopologyForm, Unavailable,
    WatchGuard,
};

const PARTITIONS: i32 = 4;

/// What is wrong on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    Healthy,
    /// Another instance owns every partition.
    Elsewhere,
    /// Another instance owns this partition.
    PartitionElsewhere(i32),
    /// All tasks are on their way.
    NotYet,
    /// All stores are broken.
    Broken,
    /// Commands are written, and never decided.
    Deaf,
    /// One record is processed and committed each time that somebody waits for a row.
    Stepwise,
    /// Commands cannot be written.
    Mute,
    /// Reading panics.
    Panics,
}

pub(crate) struct MemoryApplication {
    driver: Mutex<TopologyTestDriver>,
    ticketing: Ticketing,
    fault: Mutex<Fault>,
}

impl MemoryApplication {
    pub(crate) fn new(services: &[Service]) -> Self {
        let services = services.iter().copied().collect();
        let config = TicketingConfig {
            services,
            ..TicketingConfig::default()
        };
        let ticketing = topology(&config).expect("the topology is right");
        let topics = turnstile_ticketing::topics::ALL.map(|name| (name.to_owned(), PARTITIONS));
        let driver = TopologyTestDriver::with_topics(ticketing.topology.clone(), topics);
        let mut driver = driver.expect("the topology fits its topics");
        driver.set_now(TimestampMs(1_700_000_000_000));
        Self {
            driver: Mutex::new(driver),
            ticketing,
            fault: Mutex::new(Fault::Healthy),
        }
    }

    pub(crate) fn plant(&self, fault: Fault) {
        *self.fault.lock() = fault;
    }

    /// Processes what a fault has left lying.
    pub(crate) fn run(&self) {
        self.driver
            .lock()
            .run()
            .expect("every record can be processed");
    }

    /// Lets time pass.
    pub(crate) fn advance(&self, time: std::time::Duration) {
        self.driver
            .lock()
            .advance(time)
            .expect("every record can be processed");
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

    fn look(&self, partition: Partition) -> Result<(), Unavailable> {
        match *self.fault.lock() {
            Fault::Elsewhere => Err(Unavailable::Elsewhere { partition }),
            Fault::PartitionElsewhere(elsewhere) if partition.0 == elsewhere => {
                Err(Unavailable::Elsewhere { partition })
            }
            Fault::NotYet => Err(Unavailable::NotYet("task 0_0 is restoring".to_owned())),
            Fault::Broken => Err(Unavailable::Failed("the disk is gone".into())),
            Fault::Panics => panic!("planted"),
            Fault::Healthy
            | Fault::Deaf
            | Fault::Stepwise
            | Fault::Mute
            | Fault::PartitionElsewhere(_) => Ok(()),
        }
    }

    fn get<K: Codec, V: Codec>(
        &self,
        store: Store<K, V>,
        partition_key: &str,
        key: &K,
    ) -> Result<Option<V>, Unavailable> {
        self.look(partition_of(partition_key.as_bytes(), PARTITIONS))?;
        Ok(self.driver.lock().get(store, partition_key, key))
    }

    /// Rows of a partition, by the id that they belong to.
    fn rows<K: Codec, V: Codec>(
        &self,
        store: Store<K, V>,
        partition: Partition,
        id: impl Fn(&K) -> String,
    ) -> Result<Vec<(K, V)>, Unavailable> {
        self.look(partition)?;
        let mut rows = self.driver.lock().entries(store);
        rows.retain(|(key, _)| partition_of(id(key).as_bytes(), PARTITIONS) == partition);
        Ok(rows)
    }
}

impl Application for MemoryApplication {
    fn status(&self) -> InstanceStatus {
        InstanceStatus {
            ready: true,
            problems: Vec::new(),
            tasks: Vec::new(),
        }
    }

    fn topology(&self, form: TopologyForm) -> String {
        format!("{form:?}")
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
        let payments = || {
            self.ticketing
                .payments
                .ok_or(Unavailable::NoService(Service::Payments))
        };
        let store = match decider {
            Decider::Tickets => self.tickets_stores()?.outcomes,
            Decider::Reservations => self.orders_stores()?.reservation_outcomes,
            Decider::LifeCycle => self.orders_stores()?.outcomes,
            Decider::Payments => payments()?.outcomes,
        };
        self.get(store, &key.key, key)
    }

    fn partitions(&self, _: Listing) -> Result<i32, Unavailable> {
        Ok(PARTITIONS)
    }

    fn tickets_in(
        &self,
        partition: Partition,
        after: Option<&TicketId>,
        limit: usize,
    ) -> Result<Vec<Ticket>, Unavailable> {
        let rows = self.rows(
            self.tickets_stores()?.tickets,
            partition,
            TicketId::to_string,
        )?;
        let beyond = rows
            .into_iter()
            .filter(|(id, _)| after.is_none_or(|after| id > after));
        Ok(beyond.take(limit).map(|(_, ticket)| ticket).collect())
    }

    fn orders_in(
        &self,
        partition: Partition,
        user: &UserId,
        after: Option<&OrderId>,
        limit: usize,
    ) -> Result<Vec<Order>, Unavailable> {
        let order_id = |row: &OrderByUser| row.order_id.to_string();
        let rows = self.rows(self.orders_stores()?.orders_by_user, partition, order_id)?;
        let wanted = |row: &OrderByUser| {
            row.user_id == *user && after.is_none_or(|after| row.order_id > *after)
        };
        let rows = rows.into_iter().filter(|(row, ())| wanted(row)).take(limit);
        rows.filter_map(|(row, ())| self.order(&row.order_id).transpose())
            .collect()
    }

    fn are_neighbours(&self, ticket: &TicketId, order: &OrderId) -> bool {
        let partition = |id: &str| partition_of(id.as_bytes(), PARTITIONS);
        partition(ticket.as_str()) == partition(order.as_str())
    }

    fn watch(
        &self,
        _: &Row,
        callback: Box<dyn FnOnce() + Send>,
    ) -> Result<WatchGuard, Unavailable> {
        if *self.fault.lock() == Fault::Stepwise {
            let mut driver = self.driver.lock();
            driver.step(0).expect("every record can be processed");
            driver.commit();
            callback();
            return Ok(Box::new(()));
        }
        // Nobody is told: routes have to look by themselves as well.
        Ok(Box::new(callback))
    }

    fn send<'a>(
        &'a self,
        topic: &'static str,
        key: &'a str,
        command: Vec<u8>,
    ) -> BoxFuture<'a, Result<(), SendFailure>> {
        let fault = *self.fault.lock();
        if fault == Fault::Mute {
            return Box::pin(async { Err(SendFailure("no broker".into())) });
        }
        self.driver.lock().pipe(topic, Some(key), Some(&command));
        if !matches!(fault, Fault::Deaf | Fault::Stepwise) {
            self.run();
        }
        Box::pin(async { Ok(()) })
    }
}
