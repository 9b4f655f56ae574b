//! Errors of the Kafka client, named by the remedy.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::types::RDKafkaConfRes;
use thiserror::Error;

/// A failed call to the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KafkaFault {
    /// Somebody newer has taken over: drop all tasks and join anew.
    #[error("fenced while trying to {action}: {reason}")]
    Fenced {
        /// What was tried.
        action: &'static str,
        /// What the client says.
        reason: String,
    },
    /// The cluster did not do it this time, or nobody knows whether it did: drop
    /// what is uncommitted and join anew with fresh clients.
    #[error("could not {action}: {reason}")]
    Retriable {
        /// What was tried.
        action: &'static str,
        /// What the client says.
        reason: String,
    },
    /// Brokers reject what is configured: stop, and do not start again before that is changed.
    #[error("could not {action}: {reason}")]
    Misconfigured {
        /// What was tried.
        action: &'static str,
        /// What the client says, and what to change.
        reason: String,
    },
    /// It will not work next time either: stop.
    #[error("could not {action}: {reason}")]
    Fatal {
        /// What was tried.
        action: &'static str,
        /// What the client says, and what to change.
        reason: String,
    },
}

impl KafkaFault {
    pub(super) fn of(action: &'static str, error: &KafkaError) -> Self {
        let reason = match error {
            KafkaError::Transaction(error) => error.string(),
            KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, _, property, _) => {
                format!("kafka_properties: librdkafka has no property {property}")
            }
            // Without the value, which may be a secret.
            KafkaError::ClientConfig(_, _, property, _) => {
                format!("kafka_properties: librdkafka does not take this value for {property}")
            }
            error => match error.rdkafka_error_code() {
                Some(Code::InvalidSessionTimeout) => format!(
                    "{error}: set the session timeout within the brokers' group.min.session.timeout.ms and group.max.session.timeout.ms"
                ),
                Some(Code::InvalidTransactionTimeout) => format!(
                    "{error}: set the commit interval so that it and 10 s are within the brokers' transaction.max.timeout.ms"
                ),
                _ => error.to_string(),
            },
        };
        if let KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) = error {
            return Self::Fatal { action, reason };
        }
        match error.rdkafka_error_code() {
            Some(
                Code::Fenced
                | Code::FencedInstanceId
                | Code::ProducerFenced
                | Code::InvalidProducerEpoch
                | Code::TransactionCoordinatorFenced
                | Code::UnknownMemberId
                | Code::IllegalGeneration
                | Code::RebalanceInProgress
                | Code::AssignmentLost,
            ) => Self::Fenced { action, reason },
            Some(
                Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::TransactionalIdAuthorizationFailed
                | Code::InconsistentGroupProtocol
                | Code::Authentication
                | Code::SaslAuthenticationFailed
                | Code::MessageSizeTooLarge
                | Code::InvalidTimestamp
                | Code::InvalidRecord,
            ) => Self::Fatal { action, reason },
            Some(Code::InvalidSessionTimeout | Code::InvalidTransactionTimeout) => {
                Self::Misconfigured { action, reason }
            }
            _ => Self::Retriable { action, reason },
        }
    }

    /// The same, naming the partition.
    pub(super) fn at(self, topic: &str, partition: i32) -> Self {
        self.of_what(&format!("{topic}-{partition}"))
    }

    /// The same, naming which of several it is about.
    pub(super) fn of_what(mut self, what: &str) -> Self {
        let reason = self.reason_mut();
        *reason = format!("{what}: {reason}");
        self
    }

    /// The same, with what stands between client and brokers.
    pub(super) fn explained_by(mut self, complaint: &str) -> Self {
        let reason = self.reason_mut();
        *reason = format!("{reason}; the client says: {complaint}");
        self
    }

    fn reason_mut(&mut self) -> &mut String {
        let (Self::Fenced { reason, .. }
        | Self::Retriable { reason, .. }
        | Self::Misconfigured { reason, .. }
        | Self::Fatal { reason, .. }) = self;
        reason
    }

    pub(crate) fn timeout(action: &'static str) -> Self {
        Self::Retriable {
            action,
            reason: "no answer within the request time-out".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(code: Code) -> KafkaFault {
        KafkaFault::of("try", &KafkaError::Global(code))
    }

    #[test]
    fn whoever_was_replaced_joins_anew() {
        for code in [
            Code::Fenced,
            Code::FencedInstanceId,
            Code::ProducerFenced,
            Code::InvalidProducerEpoch,
            Code::TransactionCoordinatorFenced,
            Code::UnknownMemberId,
            Code::IllegalGeneration,
            Code::RebalanceInProgress,
            Code::AssignmentLost,
        ] {
            assert!(matches!(fault(code), KafkaFault::Fenced { .. }), "{code:?}");
        }
    }

    #[test]
    fn what_no_repetition_mends_is_fatal() {
        for code in [
            Code::TopicAuthorizationFailed,
            Code::GroupAuthorizationFailed,
            Code::ClusterAuthorizationFailed,
            Code::TransactionalIdAuthorizationFailed,
            Code::InconsistentGroupProtocol,
            Code::Authentication,
            Code::InvalidTimestamp,
        ] {
            assert!(matches!(fault(code), KafkaFault::Fatal { .. }), "{code:?}");
        }
    }

    #[test]
    fn what_brokers_do_not_take_names_the_setting() {
        for (code, setting) in [
            (Code::InvalidSessionTimeout, "session timeout"),
            (Code::InvalidTransactionTimeout, "commit interval"),
        ] {
            let KafkaFault::Misconfigured { reason, .. } = fault(code) else {
                panic!("it is of the configuration: {code:?}");
            };
            assert!(reason.contains(setting), "{reason}");
        }
    }

    #[test]
    fn whatever_else_happens_is_tried_again() {
        for code in [
            Code::OperationTimedOut,
            Code::AllBrokersDown,
            Code::MessageTimedOut,
            Code::NotCoordinator,
            Code::CoordinatorLoadInProgress,
            Code::UnknownTopicOrPartition,
            Code::ConcurrentTransactions,
            Code::Fatal,
        ] {
            assert!(
                matches!(fault(code), KafkaFault::Retriable { .. }),
                "{code:?}"
            );
        }
        let without_code = KafkaFault::of("try", &KafkaError::Canceled);
        assert!(matches!(without_code, KafkaFault::Retriable { .. }));
        assert!(matches!(
            KafkaFault::timeout("try"),
            KafkaFault::Retriable { .. }
        ));
    }

    #[test]
    fn a_property_that_is_wrong_is_named_without_its_value() {
        for (property, complaint) in [
            ("no.such.property", "has no property no.such.property"),
            ("security.protocol", "this value for security.protocol"),
        ] {
            let refused: Result<rdkafka::producer::BaseProducer, _> = rdkafka::ClientConfig::new()
                .set(property, "hunter2")
                .create();
            let Err(error) = refused else {
                panic!("librdkafka takes {property}")
            };
            let KafkaFault::Fatal { reason, .. } = KafkaFault::of("try", &error) else {
                panic!("it would be wrong next time too");
            };
            assert!(reason.starts_with("kafka_properties: "), "{reason}");
            assert!(reason.ends_with(complaint), "{reason}");
        }
    }
}
