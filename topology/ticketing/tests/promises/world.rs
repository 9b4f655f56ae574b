//! The services on a topology test driver, in the words of the promises.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::str::FromStr;
use std::time::Duration;

use crate::said::with_id;
use serde_json::Value;
use turnstile_engine::driver::{LogRecord, TopologyTestDriver};
use turnstile_engine::partitioner::partition_of;
use turnstile_engine::topology::InternalTopicKind;
use turnstile_engine::{Codec, Partition, Store, TimestampMs};
use turnstile_state::{ChangelogRecord, StoreTag};
use turnstile_ticketing::ids::{CommandId, OrderId, TicketId};
use turnstile_ticketing::orders::{CatalogEntry, ListedTicket};
use turnstile_ticketing::outcome::{Answer, Outcome, OutcomeKey};
use turnstile_ticketing::payments::OrderCharges;
use turnstile_ticketing::tickets::TicketEntry;
use turnstile_ticketing::{Service, Ticketing, TicketingConfig, topics, topology};

/// When every test begins: 2026-01-31T09:30:00Z.
pub(crate) const START: TimestampMs = TimestampMs(1_769_851_800_000);

/// The services of a test.
pub(crate) struct World {
    pub(crate) driver: TopologyTestDriver,
    pub(crate) ticketing: Ticketing,
    commands: usize,
}

/// How the row of what a command is about tells its outcome.
type OutcomeOf<V> = fn(&V, &CommandId) -> Option<Outcome>;

/// All topics with this many partitions.
pub(crate) fn partitions(count: i32) -> BTreeMap<String, i32> {
    topics::ALL
        .iter()
        .map(|topic| ((*topic).to_owned(), count))
        .collect()
}

impl World {
    /// All four services.
    pub(crate) fn new() -> Self {
        Self::of(&Service::ALL)
    }

    /// Some services; the others are foreign.
    pub(crate) fn of(services: &[Service]) -> Self {
        Self::on(services, &partitions(3))
    }

    /// Some services on topics with these partition counts.
    pub(crate) fn on(services: &[Service], partitions: &BTreeMap<String, i32>) -> Self {
        let config = TicketingConfig {
            services: services.iter().copied().collect(),
            ..TicketingConfig::default()
        };
        Self::with(&config, partitions)
    }

    /// What is configured so, on topics with these partition counts.
    pub(crate) fn with(config: &TicketingConfig, partitions: &BTreeMap<String, i32>) -> Self {
        Self::within(config, partitions, &BTreeMap::new())
    }

    /// Some services, where one topic accepts no larger records than this.
    pub(crate) fn limited(services: &[Service], topic: &str, record_bytes_max: usize) -> Self {
        let config = TicketingConfig {
            services: services.iter().copied().collect(),
            ..TicketingConfig::default()
        };
        let limits = BTreeMap::from([(topic.to_owned(), record_bytes_max)]);
        Self::within(&config, &partitions(3), &limits)
    }

    fn within(
        config: &TicketingConfig,
        partitions: &BTreeMap<String, i32>,
        record_bytes_max: &BTreeMap<String, usize>,
    ) -> Self {
        let ticketing = topology(config).expect("the declaration has no fault");
        let topics = ticketing.topology.external_topics();
        let counts = topics
            .into_iter()
            .map(|topic| (topic.to_owned(), partitions[topic]));
        let topology = ticketing.topology.clone();
        let driver = TopologyTestDriver::with_limits(topology, counts, record_bytes_max);
        let mut driver = driver.expect("the topology fits its topics");
        driver.set_now(START);
        Self {
            driver,
            ticketing,
            commands: 0,
        }
    }

    /// Appends a record, keyed as the contract says, and lets everything happen.
    pub(crate) fn event(&mut self, topic: &str, key: &str, value: &Value) {
        self.append(topic, key, value);
        self.run();
    }

    /// Lets everything happen that can.
    pub(crate) fn run(&mut self) {
        self.driver.commit();
        self.driver.run().expect("no task stops");
    }

    /// What is not committed is lost; everything else is restored from changelogs.
    pub(crate) fn crash(&mut self) {
        self.driver
            .crash_and_restore()
            .expect("changelogs can be replayed");
    }

    /// Appends a record.
    pub(crate) fn append(&mut self, topic: &str, key: &str, value: &Value) {
        self.driver
            .pipe(topic, Some(key), Some(value.to_string().as_bytes()));
    }

    /// Appends a record with a header of so many bytes, keyed as the contract says, and lets
    /// everything happen.
    pub(crate) fn event_with_header(
        &mut self,
        topic: &str,
        key: &str,
        value: &Value,
        bytes: usize,
    ) {
        let headers = [("trace".to_owned(), Some(vec![b'x'; bytes]))];
        let value = value.to_string();
        let (key, value) = (key.as_bytes(), value.as_bytes());
        let partition = partition_of(key, 3);
        self.driver
            .pipe_to(topic, partition, Some(key), Some(value), &headers);
        self.run();
    }

    /// Appends a record whose partition has nothing to do with its key.
    pub(crate) fn astray(&mut self, topic: &str, partition: i32, key: Option<&str>, value: &str) {
        self.driver.pipe_to(
            topic,
            Partition(partition),
            key.map(str::as_bytes),
            Some(value.as_bytes()),
            &[],
        );
        self.run();
    }

    /// Sends a command with an id of its own, lets everything happen, gives the id.
    pub(crate) fn command(&mut self, topic: &str, key: &str, value: Value) -> String {
        self.commands += 1;
        let id = format!("00000000-0000-4000-a000-{:012}", self.commands);
        self.event(topic, key, &with_id(value, &id));
        id
    }

    /// The time goes on, and everything that is due happens.
    pub(crate) fn advance(&mut self, duration: Duration) {
        self.driver.commit();
        self.driver.advance(duration).expect("no task stops");
    }

    /// What can be read of a topic.
    pub(crate) fn read(&self, topic: &str) -> Vec<Value> {
        let records = self.driver.all(topic).into_iter();
        records
            .filter_map(|record| serde_json::from_slice(&record.value?).ok())
            .collect()
    }

    /// The dead letters.
    pub(crate) fn dead_letters(&self) -> Vec<LogRecord> {
        self.driver.all(&self.driver.internal("dlq"))
    }

    /// The records of a topic under a key.
    pub(crate) fn of_key(&self, topic: &str, key: &str) -> Vec<Value> {
        let records = self.driver.all(topic).into_iter();
        let records = records.filter(|record| record.key.as_deref() == Some(key.as_bytes()));
        let values = records.filter_map(|record| record.value);
        values
            .map(|value| serde_json::from_slice(&value).expect("what is read is JSON"))
            .collect()
    }

    /// The types of the records of a topic under a key, without what is before the dot.
    pub(crate) fn types(&self, topic: &str, key: &str) -> Vec<String> {
        let kind = |value: Value| {
            let kind = value
                .get("type")
                .and_then(Value::as_str)
                .expect("every event has a type")
                .to_owned();
            kind.split_once('.')
                .map_or(kind.clone(), |(_, kind)| kind.to_owned())
        };
        self.of_key(topic, key).into_iter().map(kind).collect()
    }

    /// The last record of a topic under a key.
    pub(crate) fn last(&self, topic: &str, key: &str) -> Value {
        self.of_key(topic, key).pop().unwrap_or_default()
    }

    /// The answer that a command to Tickets has.
    pub(crate) fn tickets_answer(&self, ticket: &str, command: &str) -> Option<Answer> {
        let stores = self.ticketing.tickets.expect("Tickets is run here");
        let within = (stores.tickets, TicketEntry::outcome_of as OutcomeOf<_>);
        let outcome = self.outcome_in_either(within, stores.outcomes, ticket, command)?;
        Some(outcome.answer)
    }

    /// The answer that an `order.create` has.
    pub(crate) fn reservation_answer(&self, ticket: &str, command: &str) -> Option<Answer> {
        let outcome = self.reservation_outcome(ticket, command)?;
        Some(outcome.answer)
    }

    /// The outcome of an `order.create`.
    pub(crate) fn reservation_outcome(&self, ticket: &str, command: &str) -> Option<Outcome> {
        let stores = self.ticketing.orders.expect("Orders is run here");
        let within = (stores.catalog, CatalogEntry::outcome_of as OutcomeOf<_>);
        self.outcome_in_either(within, stores.reservation_outcomes, ticket, command)
    }

    /// The answer that an `order.cancel` has.
    pub(crate) fn cancel_answer(&self, order: &str, command: &str) -> Option<Answer> {
        let store = self.ticketing.orders.expect("Orders is run here").outcomes;
        Some(self.outcome(store, order, command)?.answer)
    }

    /// The answer that a `payment.create` has.
    pub(crate) fn payment_answer(&self, order: &str, command: &str) -> Option<Answer> {
        let stores = self.ticketing.payments.expect("Payments is run here");
        let within = (stores.charges, OrderCharges::outcome_of as OutcomeOf<_>);
        let outcome = self.outcome_in_either(within, stores.outcomes, order, command)?;
        Some(outcome.answer)
    }

    /// The status of the answer that a command has.
    pub(crate) fn status_of(&self, topic: &str, key: &str, command: &Value) -> Option<u16> {
        let text = |field: &str| command[field].as_str().expect("commands have it");
        let id = text("commandId");
        let answer = match (topic, text("type")) {
            (topics::TICKET_COMMANDS, "order.create") => self.reservation_answer(key, id),
            (topics::TICKET_COMMANDS, _) => self.tickets_answer(key, id),
            (_, "order.cancel") => self.cancel_answer(key, id),
            _ => self.payment_answer(key, id),
        };
        answer.map(|answer| answer.status())
    }

    /// The outcome of a command that lies in the row of what it is about or with the others, but
    /// in both places only until a `404` was decided anew.
    fn outcome_in_either<K: Codec + FromStr<Err: Debug>, V: Codec>(
        &self,
        (store, outcome_of): (Store<K, V>, OutcomeOf<V>),
        others: Store<OutcomeKey, Outcome>,
        key: &str,
        command: &str,
    ) -> Option<Outcome> {
        let id = key.parse().expect("ids are not empty");
        let row = self.driver.get(store, key, &id);
        let command_id = CommandId::new(command).expect("ids are not empty");
        let within = row.and_then(|row| outcome_of(&row, &command_id));
        let kept = self.outcome(others, key, command);
        let is_final = |outcome: &Outcome| !outcome.answer.is_retryable();
        assert!(
            within.is_none() || !kept.as_ref().is_some_and(is_final),
            "two outcomes of one command: {within:?} and {kept:?}"
        );
        within.or(kept)
    }

    fn outcome(
        &self,
        store: Store<OutcomeKey, Outcome>,
        key: &str,
        command: &str,
    ) -> Option<Outcome> {
        let command = CommandId::new(command).expect("ids are not empty");
        let key = OutcomeKey {
            key: key.to_owned(),
            command,
        };
        self.driver.get(store, &key.key, &key)
    }

    /// The order that a ticket was given to.
    pub(crate) fn reserved_for(&self, ticket: &str) -> Option<String> {
        let listed = self.listed(ticket)?;
        listed.given_to().map(ToString::to_string)
    }

    /// A ticket in the catalog of Orders.
    pub(crate) fn listed(&self, ticket: &str) -> Option<ListedTicket> {
        let catalog = self.ticketing.orders.expect("Orders is run here").catalog;
        let id = TicketId::new(ticket).expect("ids are not empty");
        self.driver.get(catalog, ticket, &id)?.listed()
    }

    /// The orders that Tickets sees on a ticket.
    pub(crate) fn holders(&self, ticket: &str) -> Vec<String> {
        let store = self.ticketing.tickets.expect("Tickets is run here").tickets;
        let id = TicketId::new(ticket).expect("ids are not empty");
        let entry = self.driver.get(store, ticket, &id);
        let holders = entry.map(|entry| entry.ticket.holders).unwrap_or_default();
        holders.iter().map(OrderId::to_string).collect()
    }

    /// How many rows a store has by its changelog, over all partitions.
    pub(crate) fn rows(&self, store: &str) -> usize {
        let rows = self.changelog_rows();
        let of_store = rows
            .into_iter()
            .filter(|((tag, ..), _)| *tag == StoreTag::of(store));
        let of_store: Vec<_> = of_store.collect();
        assert!(!of_store.is_empty(), "nobody ever wrote to {store}");
        of_store.iter().filter(|(_, value)| value.is_some()).count()
    }

    /// The bytes of the keys and values of all rows, by their changelogs.
    pub(crate) fn bytes(&self) -> usize {
        let rows = self.changelog_rows().into_iter();
        let bytes = rows.filter_map(|((_, _, key), value)| Some(key.len() + value?));
        bytes.sum()
    }

    /// The rows of all stores, and of each that was not deleted the bytes of its value.
    fn changelog_rows(&self) -> BTreeMap<(StoreTag, Partition, Vec<u8>), Option<usize>> {
        let mut rows = BTreeMap::new();
        let topics = self.driver.plan().internal_topics().into_iter();
        for topic in topics.filter(|topic| topic.kind == InternalTopicKind::Changelog) {
            for change in self.driver.all(&topic.name) {
                let record =
                    ChangelogRecord::decode(change.key.as_deref(), change.value.as_deref());
                let record = record.expect("tasks write readable changelogs");
                let place = (record.store, change.partition, record.key.to_vec());
                rows.insert(place, record.value.map(<[u8]>::len));
            }
        }
        rows
    }

    /// The versions of a ticket's events.
    pub(crate) fn versions(&self, topic: &str, key: &str) -> Vec<u64> {
        let version = |event: &Value| event["version"].as_u64().expect("events have versions");
        self.of_key(topic, key).iter().map(version).collect()
    }
}
