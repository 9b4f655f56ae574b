//! Where records enter a topology: topic, group, decoder and error policy.

use std::sync::Arc;

use thiserror::Error;

use crate::record::InputRecord;

/// The result of decoding a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded<T> {
    /// A message for the processors.
    Message(T),
    /// Nothing for this application: it is counted under this reason and skipped.
    Skip(&'static str),
}

/// A record that cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct DecodeError {
    /// The class of the fault, for counting and for the dead letter's header `exception`.
    pub kind: &'static str,
    /// What is wrong with the record, for humans.
    pub message: String,
}

/// What happens to a record that cannot be decoded, that a processor rejects, or that is too large
/// to be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ErrorPolicy {
    /// It becomes a dead letter, in the transaction that moves past it: a record of the topic
    /// `<application id>-dlq` with its original key, value and headers, plus headers that say where
    /// it was read and what was wrong with it ([`DeadLetter`](crate::record::DeadLetter)). It is
    /// counted in `turnstile_records_dead_lettered_total`, which should be monitored: a faulty
    /// decoder turns a whole topic into dead letters.
    #[default]
    DeadLetter,
    /// The instance stops before the record, with all its threads, and does so again after each
    /// start until the record can be processed or its group's offset is set past it.
    Stop,
}

pub(crate) type Decoder<T> =
    Arc<dyn Fn(&InputRecord<'_>) -> Result<Decoded<T>, DecodeError> + Send + Sync>;
pub(crate) type IdOf<T> = Arc<dyn Fn(&T) -> Vec<u8> + Send + Sync>;

/// The declaration of a source node.
pub struct Source<T> {
    pub(crate) topic: String,
    pub(crate) group: String,
    pub(crate) decode: Decoder<T>,
    pub(crate) keyed_by: Option<KeyedBy<T>>,
    pub(crate) policy: ErrorPolicy,
}

pub(crate) struct KeyedBy<T> {
    pub(crate) id_of: IdOf<T>,
    pub(crate) repartition: String,
}

impl<T> Source<T> {
    /// Reads `topic` as a member of the consumer group `group`.
    ///
    /// `decode` turns each record into a message, skips it, or says what is wrong with it.
    ///
    /// Brokers see the group under exactly this name: use the application id, unless group names
    /// are prescribed. Two applications in one group each get part of the topic. A group without
    /// committed offsets starts at the beginning of the topic.
    ///
    /// Records are processed in the partition they are in: all rows of a key are in one store only
    /// if all its records are in one partition. This holds if all producers partition by murmur2 of
    /// this key, as Java's do by default, and those of librdkafka with
    /// `partitioner=murmur2_random`. If you cannot be sure of that, use [`Source::keyed_by`].
    pub fn new(
        topic: impl Into<String>,
        group: impl Into<String>,
        decode: impl Fn(&InputRecord<'_>) -> Result<Decoded<T>, DecodeError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            topic: topic.into(),
            group: group.into(),
            decode: Arc::new(decode),
            keyed_by: None,
            policy: ErrorPolicy::default(),
        }
    }

    /// Brings every record to the partition of its id, regardless of its key.
    ///
    /// A record that is in another partition than murmur2 of `id_of` its message goes, unchanged
    /// but for its key, through the internal topic `<application id>-<repartition>-repartition`. If
    /// the topic has a different number of partitions than the sources it meets, all its records
    /// do.
    ///
    /// `decode` is called again there, on a record whose key is the id. Of two records with one id,
    /// one that takes this detour can be overtaken by one that is already in the right partition.
    #[must_use]
    pub fn keyed_by(
        mut self,
        repartition: impl Into<String>,
        id_of: impl Fn(&T) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        self.keyed_by = Some(KeyedBy {
            id_of: Arc::new(id_of),
            repartition: repartition.into(),
        });
        self
    }

    /// What happens to records that cannot be processed; the default is dead letters.
    #[must_use]
    pub fn on_error(mut self, policy: ErrorPolicy) -> Self {
        self.policy = policy;
        self
    }
}
