//! What is done about the errors that a client reports by itself.
//!
//! It recovers from most of them: those are logged. The others end the membership, or the instance.
//!
//! An authentication failure is reported both if credentials are refused and if a broker goes down
//! during the handshake. The former persists, the latter does not.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::client_log;
use super::fault::KafkaFault;

const ACTION: &str = "consume";

/// An authentication that fails for this long is refused. The client reports it twice a minute.
const REFUSED: Duration = Duration::from_secs(60);
/// After this long without a failure it has not persisted.
const FORGOTTEN: Duration = Duration::from_secs(45);

/// What one client has reported.
#[derive(Default)]
pub(super) struct ClientErrors {
    authentication: Mutex<Option<Failing>>,
}

/// An authentication that fails again and again.
#[derive(Clone, Copy)]
struct Failing {
    since: Instant,
    last: Instant,
}

impl ClientErrors {
    /// What has to be done, if anything, about an error of a client that reads for `reader`, a
    /// group or a topic.
    pub(super) fn fault_of(&self, reader: &str, error: &KafkaError) -> Option<KafkaFault> {
        self.fault_at(Instant::now(), reader, error)
    }

    fn fault_at(&self, now: Instant, reader: &str, error: &KafkaError) -> Option<KafkaFault> {
        let fault = KafkaFault::of(ACTION, error).of_what(reader);
        if let KafkaError::MessageConsumptionFatal(_) = error {
            return Some(match fault {
                KafkaFault::Retriable { action, reason } => KafkaFault::Fenced { action, reason },
                fault => fault,
            });
        }
        let code = error.rdkafka_error_code();
        let is_mended = match fault {
            KafkaFault::Fatal { .. } if code == Some(RDKafkaErrorCode::Authentication) => {
                !self.is_refused(now)
            }
            KafkaFault::Fatal { .. } | KafkaFault::Misconfigured { .. } => false,
            KafkaFault::Fenced { .. } | KafkaFault::Retriable { .. } => {
                code != Some(RDKafkaErrorCode::PollExceeded)
            }
        };
        if !is_mended {
            return Some(fault);
        }
        client_log::mended(reader, error);
        None
    }

    /// Takes in a failed authentication; returns whether they have gone on for too long.
    fn is_refused(&self, now: Instant) -> bool {
        let failing = &mut *self.authentication.lock();
        let since = failing
            .filter(|failing| now.saturating_duration_since(failing.last) < FORGOTTEN)
            .map_or(now, |failing| failing.since);
        *failing = Some(Failing { since, last: now });
        now.saturating_duration_since(since) >= REFUSED
    }
}

#[cfg(test)]
mod tests {
    use RDKafkaErrorCode as Code;

    use super::*;

    fn fault(code: Code) -> Option<KafkaFault> {
        ClientErrors::default().fault_of("group", &KafkaError::MessageConsumption(code))
    }

    #[test]
    fn what_the_client_mends_by_itself_ends_no_membership() {
        for mended in [
            Code::AllBrokersDown,
            Code::BrokerTransportFailure,
            Code::UnknownTopicOrPartition,
        ] {
            assert_eq!(fault(mended), None, "{mended}");
        }
        for lasting in [
            Code::TopicAuthorizationFailed,
            Code::GroupAuthorizationFailed,
        ] {
            let Some(KafkaFault::Fatal { reason, .. }) = fault(lasting) else {
                panic!("{lasting} is not mended");
            };
            assert!(reason.starts_with("group: "), "{reason}");
        }
        assert!(fault(Code::PollExceeded).is_some());
    }

    #[test]
    fn an_authentication_that_goes_on_failing_is_refused() {
        let begun = Instant::now();
        // The seconds at which it fails; whether that is a refusal in the end.
        for (fails, is_refused) in [
            (&[0][..], false),
            (&[0, 1, 2, 30], false),
            (&[0, 30, 60], true),
            (&[0, 50, 100, 150], false),
            (&[0, 50, 80, 109], false),
            (&[0, 50, 80, 111], true),
        ] {
            let errors = ClientErrors::default();
            let error = KafkaError::MessageConsumption(Code::Authentication);
            let faults = fails.iter().map(|second| {
                let now = begun + Duration::from_secs(*second);
                errors.fault_at(now, "group", &error)
            });
            let faults: Vec<_> = faults.collect();
            let refused = faults.iter().map(Option::is_some);
            let expected = (1..=fails.len()).map(|number| is_refused && number == fails.len());
            assert_eq!(
                Vec::from_iter(refused),
                Vec::from_iter(expected),
                "{fails:?}"
            );
        }
    }
}
