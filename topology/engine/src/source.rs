//! Where records enter a topology: topic, group, decoder and error policy.

use std::sync::Arc;

use thiserror::Error;

use crate::record::InputRecord;

/// What a decoder made of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded<T> {
    /// A message for the processors.
    Message(T),
    /// Nothing for this application: it is counted under this reason and passed over.
    Skip(&'static str),
}

/// A record that cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct DecodeError {
    /// The class of the fault, for counting and for the header `exception` of the dead letter.
    pub kind: &'static str,
    /// What is wrong with the record, for a person.
    pub message: String,
}

/// What happens to a record that cannot be decoded or that a processor rejects, or that is too
/// large to be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ErrorPolicy {
    /// It becomes a dead letter, in the transaction that passes it: a record of the topic
    /// `<application id>-dlq` with its key, value and headers as they were, and headers that tell
    /// where it was read and what was wrong with it ([`DeadLetter`](crate::record::DeadLetter)). It is
    /// counted in `turnstile_records_dead_lettered_total`, which is to be watched: a decoder with a
    /// fault makes dead letters of a whole topic.
    #[default]
    DeadLetter,
    /// The instance stops, all its threads, before the record, and again after each start until
    /// the record can be processed or its group is set past it.
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
    /// `decode` turns each record into a message, passes it over, or says what is wrong with it.
    ///
    /// The group is named to brokers as it is: take the application id, unless groups are given
    /// to you. Two applications in one group each get a part of the topic. A group that has read
    /// nothing yet begins at the start of the topic.
    ///
    /// Records are processed where they lie: rows of one key are in one store only if its records
    /// are in one partition. That is so where all producers partition by murmur2 of this key, as
    /// Java's do by default, those of librdkafka with `partitioner=murmur2_random`. Where you do
    /// not know it, use [`Source::keyed_by`].
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

    /// Brings every record to the partition of its id, whatever its key says.
    ///
    /// A record that lies in another partition than murmur2 of `id_of` its message
    /// goes, unchanged but for its key, through the internal topic
    /// `<application id>-<repartition>-repartition`. Where the topic has another
    /// number of partitions than the sources it meets, all its records do.
    ///
    /// `decode` is called again there, of a record whose key is the id. Of two records of one id,
    /// one that goes that way can be overtaken by one that lies where it belongs.
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

    /// What happens to records that cannot be processed; dead letters where not set.
    #[must_use]
    pub fn on_error(mut self, policy: ErrorPolicy) -> Self {
        self.policy = policy;
        self
    }
}
