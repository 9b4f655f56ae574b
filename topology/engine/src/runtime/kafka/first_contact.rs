//! The first request to a cluster, and why it is not answered.
//!
//! A call that is not answered says no more than that. What stands between client and brokers, such
//! as a refused password or an unknown host name, the client reports elsewhere: as errors of its
//! own, to whoever polls it. So if the answer takes long, another client is listened to.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::admin::Admin;
use super::client_log;
use super::fault::KafkaFault;
use super::settings;
use crate::runtime::StreamsConfig;

/// After this time an answer takes long.
const SOON: Duration = Duration::from_secs(3);
/// How long a client is listened to, unless it reports all brokers down before.
const LISTENING: Duration = Duration::from_secs(3);

/// What a client complains about.
#[derive(Default)]
struct Complaints(Mutex<Vec<(Option<Code>, String)>>);

impl ClientContext for Complaints {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        client_log::log(level, facility, line);
        // About brokers that hang up it says no more than this.
        if facility == "FAIL" {
            let (_thread, line) = line.split_once("]: ").unwrap_or(("", line));
            self.0.lock().push((None, line.to_owned()));
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client_log::error(&error, reason);
        let complaint = (error.rdkafka_error_code(), reason.to_owned());
        self.0.lock().push(complaint);
    }
}

impl ConsumerContext for Complaints {}

impl Complaints {
    /// Whether no broker is left to complain of, and any was complained of.
    fn are_complete(&self) -> bool {
        let complaints = self.0.lock();
        let mut summaries = complaints.iter().map(|(code, _)| is_summary(*code));
        // If they hang up, that all are down is reported before the cause.
        summaries.clone().any(|is| is) && summaries.any(|is| !is)
    }

    /// The most informative complaint.
    fn most_telling(&self) -> Option<String> {
        let complaints = self.0.lock();
        let complaints = complaints.iter().filter(|(code, _)| !is_summary(*code));
        let most_telling = complaints.min_by_key(|(code, _)| match code {
            Some(Code::Authentication | Code::SaslAuthenticationFailed | Code::SSL) => 0,
            Some(Code::Resolve) => 1,
            Some(_) => 2,
            None => 3,
        });
        most_telling.map(|(_, reason)| reason.clone())
    }
}

fn is_summary(code: Option<Code>) -> bool {
    code == Some(Code::AllBrokersDown)
}

/// The partition counts of all topics, as the first thing that a cluster is asked for; if it does
/// not answer, with what a client reports about it.
pub(crate) fn partition_counts(
    admin: &Admin,
    config: &StreamsConfig,
) -> Result<BTreeMap<String, i32>, KafkaFault> {
    let soon = admin.partition_counts_within(SOON);
    if soon.is_ok() {
        return soon;
    }
    let complaint = listen(config)?;
    admin.partition_counts().map_err(|fault| match complaint {
        Some(complaint) => fault.explained_by(&complaint),
        None => fault,
    })
}

/// What a client that tries to reach the brokers reports, if it has trouble with it.
fn listen(config: &StreamsConfig) -> Result<Option<String>, KafkaFault> {
    let mut client = settings::with_user_properties(settings::client(config, "check"), config);
    client.set_log_level(RDKafkaLogLevel::Info);
    let client: BaseConsumer<Complaints> = client
        .create_with_context(Complaints::default())
        .map_err(|error| KafkaFault::of("create a client", &error))?;
    let complaints = client.client().context().clone();
    let begun = Instant::now();
    while begun.elapsed() < LISTENING && !complaints.are_complete() {
        // What it returns was reported to the context as well.
        drop(client.poll(Duration::from_millis(100)));
    }
    Ok(complaints.most_telling())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(complaints: &[(Code, &str)]) -> Complaints {
        let all = Complaints::default();
        for (code, reason) in complaints {
            all.error(KafkaError::Global(*code), reason);
        }
        all
    }

    #[test]
    fn what_is_refused_tells_more_than_what_is_away() {
        let complaints = said(&[
            (Code::BrokerTransportFailure, "a: connection refused"),
            (Code::Resolve, "b: unknown"),
            (Code::Authentication, "c: wrong password"),
            (Code::AllBrokersDown, "3/3 brokers are down"),
        ]);
        assert!(complaints.are_complete());
        let told = complaints.most_telling();
        assert_eq!(told.as_deref(), Some("c: wrong password"));
    }

    #[test]
    fn of_a_broker_that_hangs_up_the_log_is_all_there_is() {
        let complaints = said(&[(Code::AllBrokersDown, "0/1 brokers are down")]);
        let line = "[thrd:a:9092/bootstrap]: a:9092/bootstrap: Disconnected";
        complaints.log(RDKafkaLogLevel::Info, "FAIL", line);
        assert!(complaints.are_complete());
        let told = complaints.most_telling();
        assert_eq!(told.as_deref(), Some("a:9092/bootstrap: Disconnected"));
    }

    #[test]
    fn that_all_are_down_explains_nothing() {
        let complaints = said(&[(Code::AllBrokersDown, "1/1 brokers are down")]);
        assert_eq!(complaints.most_telling(), None);
        assert!(!complaints.are_complete());
        assert!(!said(&[(Code::SSL, "no certificate")]).are_complete());
    }
}
