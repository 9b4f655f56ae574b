//! The properties of each kind of client.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use super::fault::KafkaFault;
use super::known_brokers::reported;
use crate::runtime::StreamsConfig;

/// Which records a reader sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// Those of committed transactions only.
    ReadCommitted,
    /// All of them.
    ReadUncommitted,
}

/// What every client needs; the user's own properties win over ours.
pub(super) fn client(config: &StreamsConfig, name: &str) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", &config.brokers)
        .set(
            "client.id",
            format!("{}-{}-{name}", config.application_id, config.instance_id),
        )
        .set("allow.auto.create.topics", "false")
        .set("socket.nagle.disable", "true")
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "2000")
        .set("enable.metrics.push", "false")
        .set("topic.metadata.refresh.interval.ms", "10000")
        .set("topic.metadata.refresh.fast.interval.ms", "50")
        .set_log_level(RDKafkaLogLevel::Warning);
    client
}

/// Whether the client accepts the user's properties.
pub(crate) fn check_properties(config: &StreamsConfig) -> Result<(), KafkaFault> {
    let client = with_user_properties(client(config, "check"), config);
    let taken = client.create_native_config();
    taken
        .map(drop)
        .map_err(|error| KafkaFault::of("use its properties", &error))
}

/// Adds the user's properties.
pub(super) fn with_user_properties(
    mut client: ClientConfig,
    config: &StreamsConfig,
) -> ClientConfig {
    for (name, value) in &config.kafka_properties {
        client.set(name, value);
    }
    client
}

/// A static member of a group, which fetches nothing.
pub(super) fn member(config: &StreamsConfig, group: &str, member: &str) -> ClientConfig {
    let session = config.session_timeout;
    let mut client = client(config, group);
    client
        .set("group.id", group)
        .set("group.instance.id", member)
        .set("session.timeout.ms", session.as_millis().to_string())
        // The client accepts no longer session than this.
        .set(
            "max.poll.interval.ms",
            session.max(Duration::from_mins(5)).as_millis().to_string(),
        )
        .set(
            "heartbeat.interval.ms",
            (session.as_millis() / 4).max(1).to_string(),
        )
        .set("partition.assignment.strategy", "range")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest");
    let mut client = reported(with_user_properties(client, config));
    // With racks, the assignor distributes each group by where the replicas of its own topics are:
    // two groups would give a partition to two members, and no task would have both.
    client.remove("client.rack");
    client
}

/// A reader outside any group, of logs that are read to their ends. The limit on what is read ahead
/// applies to each partition.
pub(super) fn reader(config: &StreamsConfig, name: &str, isolation: Isolation) -> ClientConfig {
    let mut client = ungrouped(config, name, isolation);
    client
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "50")
        // Of a topic that was just made, the first fetch often fails.
        .set("fetch.error.backoff.ms", "20")
        .set("fetch.queue.backoff.ms", "2")
        .set("queued.max.messages.kbytes", "2048");
    reported(with_user_properties(client, config))
}

/// When a fetch is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fetches {
    /// With the first record that is there.
    AtOnce,
    /// With what has come within a tenth of a commit interval, or sooner with 64 KiB.
    Together,
}

/// The reader of a stream thread: of many partitions, for as long as the thread lives. The limits
/// apply to each partition. They are small, since with a backlog all are full at once, and records
/// take several times more memory than on the wire. A partition that is added while a fetch of
/// others waits for records is fetched when that is over, so it waits for no longer than a commit
/// interval.
pub(super) fn fetcher(config: &StreamsConfig, name: &str, fetches: Fetches) -> ClientConfig {
    let mut client = ungrouped(config, name, Isolation::ReadCommitted);
    let (wait, least_bytes) = match fetches {
        Fetches::AtOnce => (Duration::from_millis(100), "1"),
        Fetches::Together => (config.commit_interval / 10, "65536"),
    };
    let wait = wait.as_millis().clamp(1, 100);
    client
        .set("fetch.wait.max.ms", wait.to_string())
        .set("fetch.min.bytes", least_bytes)
        .set("auto.offset.reset", "error")
        .set("fetch.queue.backoff.ms", "5")
        .set("fetch.message.max.bytes", "131072")
        .set("queued.min.messages", "1000")
        .set("queued.max.messages.kbytes", "128");
    reported(with_user_properties(client, config))
}

/// A reader outside all groups still has to name one, and brokers require permission for it.
pub(super) fn unused_group(config: &StreamsConfig) -> String {
    format!("{}-unused", config.application_id)
}

fn ungrouped(config: &StreamsConfig, name: &str, isolation: Isolation) -> ClientConfig {
    let mut client = client(config, name);
    client
        .set("group.id", unused_group(config))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .set("check.crcs", "false")
        .set(
            "isolation.level",
            match isolation {
                Isolation::ReadCommitted => "read_committed",
                Isolation::ReadUncommitted => "read_uncommitted",
            },
        );
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(commit_interval: Duration) -> StreamsConfig {
        let mut config = StreamsConfig::new("app", "localhost:9092", "a", "state");
        config.commit_interval = commit_interval;
        config
    }

    #[test]
    fn a_fetch_waits_for_a_tenth_of_a_commit_interval_at_most() {
        for (interval_ms, wait) in [(100, "10"), (1_000, "100"), (30_000, "100"), (5, "1")] {
            let config = config(Duration::from_millis(interval_ms));
            let together = fetcher(&config, "f", Fetches::Together);
            assert_eq!(together.get("fetch.wait.max.ms"), Some(wait));
            assert_ne!(together.get("fetch.min.bytes"), Some("1"));
        }
        let at_once = fetcher(&config(Duration::from_secs(1)), "f", Fetches::AtOnce);
        assert_eq!(at_once.get("fetch.min.bytes"), Some("1"));
    }

    #[test]
    fn the_properties_of_a_user_win() {
        let mut config = config(Duration::from_millis(100));
        let (name, own, theirs) = ("fetch.wait.max.ms", "10", "7");
        assert_eq!(
            fetcher(&config, "f", Fetches::Together).get(name),
            Some(own)
        );
        config
            .kafka_properties
            .insert(name.to_owned(), theirs.to_owned());
        assert_eq!(
            fetcher(&config, "f", Fetches::Together).get(name),
            Some(theirs)
        );
        assert_eq!(
            reader(&config, "r", Isolation::ReadCommitted).get(name),
            Some(theirs)
        );
    }

    #[test]
    fn a_rack_is_for_those_that_fetch_and_not_for_members() {
        let mut config = config(Duration::from_millis(100));
        for (name, value) in [("client.rack", "a"), ("security.protocol", "ssl")] {
            config
                .kafka_properties
                .insert(name.to_owned(), value.to_owned());
        }
        let fetching = [
            fetcher(&config, "f", Fetches::AtOnce),
            fetcher(&config, "f", Fetches::Together),
            reader(&config, "r", Isolation::ReadCommitted),
        ];
        for client in fetching {
            assert_eq!(client.get("client.rack"), Some("a"));
        }
        let member = member(&config, "group", "a-0");
        assert_eq!(member.get("client.rack"), None);
        assert_eq!(member.get("security.protocol"), Some("ssl"));
        assert_eq!(member.get("group.instance.id"), Some("a-0"));
    }
}
