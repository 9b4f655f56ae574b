//! Topics in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::record::{Header, OutputRecord};
use crate::{Offset, Partition, TimestampMs};

/// A record of a topic in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// The partition it is in.
    pub partition: Partition,
    /// Its offset there.
    pub offset: Offset,
    /// The key, unless null.
    pub key: Option<Vec<u8>>,
    /// The value, unless null.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Vec<Header>,
    /// Its time.
    pub timestamp: TimestampMs,
    /// Orders the records of a topic across its partitions.
    order: u64,
}

impl LogRecord {
    /// The key as text; empty when null.
    #[must_use]
    pub fn key_text(&self) -> String {
        self.key
            .as_deref()
            .map(String::from_utf8_lossy)
            .unwrap_or_default()
            .into_owned()
    }

    /// The value as text; empty when null.
    #[must_use]
    pub fn value_text(&self) -> String {
        self.value
            .as_deref()
            .map(String::from_utf8_lossy)
            .unwrap_or_default()
            .into_owned()
    }

    /// The value of a header as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().find(|(found, _)| found == name)?;
        value
            .as_deref()
            .map(|value| String::from_utf8_lossy(value).into_owned())
    }
}

#[derive(Default)]
struct Log {
    records: BTreeMap<Offset, LogRecord>,
    end: i64,
}

/// All topics.
pub(super) struct Logs {
    topics: BTreeMap<String, Vec<Log>>,
    /// Partitions that the open transaction has written to.
    written: BTreeSet<(Arc<str>, Partition)>,
    order: u64,
}

impl Logs {
    pub(super) fn new(topics: impl IntoIterator<Item = (String, i32)>) -> Self {
        let topics = topics
            .into_iter()
            .map(|(name, partitions)| (name, (0..partitions).map(|_| Log::default()).collect()))
            .collect();
        Self {
            topics,
            written: BTreeSet::new(),
            order: 0,
        }
    }

    pub(super) fn partitions(&self, topic: &str) -> i32 {
        let count = self.topics.get(topic).map(Vec::len);
        let count = count.unwrap_or_else(|| panic!("there is no topic {topic}"));
        i32::try_from(count).expect("a topic has few partitions")
    }

    pub(super) fn append(&mut self, record: OutputRecord) -> Offset {
        let OutputRecord {
            topic,
            partition,
            key,
            value,
            headers,
            timestamp,
        } = record;
        self.order += 1;
        let order = self.order;
        let log = self.log(&topic, partition);
        let offset = Offset(log.end);
        log.records.insert(
            offset,
            LogRecord {
                partition,
                offset,
                key,
                value,
                headers,
                timestamp,
                order,
            },
        );
        log.end += 1;
        self.written.insert((topic, partition));
        offset
    }

    pub(super) fn commit(&mut self, records: impl Iterator<Item = OutputRecord>) {
        for record in records {
            self.append(record);
        }
    }

    /// Every partition that was written to gets a marker, which takes an offset.
    pub(super) fn end_transaction(&mut self) {
        for (topic, partition) in std::mem::take(&mut self.written) {
            self.log(&topic, partition).end += 1;
        }
    }

    pub(super) fn first_from(
        &self,
        topic: &str,
        partition: Partition,
        from: Offset,
    ) -> Option<&LogRecord> {
        let log = self
            .topics
            .get(topic)?
            .get(usize::try_from(partition.0).ok()?)?;
        log.records.range(from..).next().map(|(_, record)| record)
    }

    pub(super) fn all(&self, topic: &str) -> Vec<LogRecord> {
        let logs = self
            .topics
            .get(topic)
            .unwrap_or_else(|| panic!("there is no topic {topic}"));
        let mut records: Vec<LogRecord> = logs
            .iter()
            .flat_map(|log| log.records.values().cloned())
            .collect();
        records.sort_by_key(|record| record.order);
        records
    }

    fn log(&mut self, topic: &str, partition: Partition) -> &mut Log {
        let log = self
            .topics
            .get_mut(topic)
            .zip(usize::try_from(partition.0).ok());
        let log = log.and_then(|(logs, index)| logs.get_mut(index));
        log.unwrap_or_else(|| panic!("there is no partition {topic}-{partition}"))
    }
}
