//! From text to types; every complaint names where the text was set.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use turnstile_ticketing::Service;

use super::setting::{self, Setting};
use super::{Authentication, Config, ConfigError, Layers, LogFormat, pieces};

const MIB: usize = 1 << 20;

/// The most commits that a request waits for one after the other: for a payment, those of Payments,
/// of Orders, and of the ticket that a decline frees.
const COMMITS_OF_A_WRITE: u32 = 3;

impl Config {
    /// The effective configuration by `layers`, whether or not callers can be authenticated.
    ///
    /// # Errors
    ///
    /// The first value that is wrong.
    pub fn read(layers: &Layers) -> Result<Self, ConfigError> {
        let from = Reader { layers };
        let instance_id = match from.optional(&setting::INSTANCE_ID, name)? {
            Some(id) => id,
            None => host_name().ok_or(ConfigError::NoInstanceId)?,
        };
        let command_timeout = from.read(&setting::COMMAND_TIMEOUT, |text| {
            duration(text, "100ms", "10m")
        })?;
        Ok(Self {
            kafka_brokers: from.read(&setting::KAFKA_BROKERS, brokers)?,
            kafka_properties: from.read(&setting::KAFKA_PROPERTIES, |text| {
                properties(text, layers.is_table(&setting::KAFKA_PROPERTIES))
            })?,
            application_id: from.read(&setting::APPLICATION_ID, name)?,
            instance_id,
            http_addr: from.read(&setting::HTTP_ADDR, address)?,
            advertised_addr: from.optional(&setting::ADVERTISED_ADDR, reachable)?,
            state_dir: from.read(&setting::STATE_DIR, non_empty)?.into(),
            services: from.read(&setting::SERVICES, services)?,
            partitions: from.read(&setting::PARTITIONS, |text| number(text, 1..=10_000))?,
            replication_factor: from
                .read(&setting::REPLICATION_FACTOR, |text| number(text, 1..=100))?,
            num_stream_threads: from
                .read(&setting::NUM_STREAM_THREADS, |text| number(text, 1..=256))?,
            num_standby_replicas: from
                .read(&setting::NUM_STANDBY_REPLICAS, |text| number(text, 0..=16))?,
            warm_join_limit: from.read(&setting::WARM_JOIN_LIMIT, |text| {
                duration(text, "0s", "365d")
            })?,
            commit_interval: from.read(&setting::COMMIT_INTERVAL, |text| {
                let interval = duration(text, "1ms", "10m")?;
                is_short_enough(interval, command_timeout)
            })?,
            order_ttl: from.read(&setting::ORDER_TTL, |text| duration(text, "1ms", "365d"))?,
            session_timeout: from.read(&setting::SESSION_TIMEOUT, |text| {
                duration(text, "1s", "30m")
            })?,
            request_timeout: from.read(&setting::REQUEST_TIMEOUT, |text| {
                duration(text, "1s", "15m")
            })?,
            flush_interval: from.read(&setting::FLUSH_INTERVAL, |text| {
                duration(text, "100ms", "1h")
            })?,
            block_cache_bytes: from.read(&setting::BLOCK_CACHE, |text| size(text, MIB))?,
            write_buffer_bytes: from.read(&setting::WRITE_BUFFERS, |text| size(text, 4 * MIB))?,
            uncommitted_bytes_max: from.read(&setting::UNCOMMITTED_MAX, |text| size(text, MIB))?,
            command_timeout,
            drain_timeout: from
                .read(&setting::DRAIN_TIMEOUT, |text| duration(text, "0s", "10m"))?,
            max_requests: from.read(&setting::MAX_REQUESTS, |text| number(text, 1..=1_000_000))?,
            max_connections: from.read(&setting::MAX_CONNECTIONS, |text| {
                number(text, 1..=1_000_000)
            })?,
            authentication: Authentication {
                jwt_key: from.optional(&setting::JWT_KEY, |text| Ok(text.to_owned()))?,
                cluster_key: from.optional(&setting::CLUSTER_KEY, |text| Ok(text.to_owned()))?,
                dev_auth: from.read(&setting::DEV_AUTH, boolean)?,
            },
            log_format: from.read(&setting::LOG_FORMAT, log_format)?,
            log_filter: from.read(&setting::RUST_LOG, log_filter)?,
        })
    }

    /// Checks that callers can be authenticated: without that nothing is served.
    ///
    /// # Errors
    ///
    /// [`ConfigError::NoAuthentication`].
    pub fn require_authentication(&self) -> Result<(), ConfigError> {
        if self.authentication.jwt_key.is_none() && !self.authentication.dev_auth {
            return Err(ConfigError::NoAuthentication);
        }
        Ok(())
    }
}

struct Reader<'a> {
    layers: &'a Layers,
}

impl Reader<'_> {
    fn read<T>(
        &self,
        setting: &Setting,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        let (value, origin) = self.layers.value(setting);
        parse(value).map_err(|why| ConfigError::InvalidValue {
            said_by: origin.of(setting),
            value: if setting.secret {
                "(secret)".to_owned()
            } else {
                value.to_owned()
            },
            why,
        })
    }

    /// `None` if it is not set.
    fn optional<T>(
        &self,
        setting: &Setting,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        if self.layers.value(setting).0.is_empty() {
            return Ok(None);
        }
        self.read(setting, parse).map(Some)
    }
}

fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name.or_else(|| std::env::var("HOSTNAME").ok())?;
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

fn non_empty(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        Err("it must not be empty".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

/// What can be a part of a topic's name.
fn name(text: &str) -> Result<String, String> {
    if text.len() > 100 || !is_name(text) {
        return Err("it takes 1 to 100 letters, digits, dots, hyphens and underscores".to_owned());
    }
    Ok(text.to_owned())
}

fn is_name(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !text.is_empty() && text.bytes().all(legal)
}

fn address(text: &str) -> Result<String, String> {
    let port = text
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty())
        .map(|(_, port)| port);
    match port.map(u16::from_str) {
        Some(Ok(_)) => Ok(text.to_owned()),
        _ => Err("it takes host:port, as 127.0.0.1:8080".to_owned()),
    }
}

/// An address that others can connect to.
fn reachable(text: &str) -> Result<String, String> {
    let address = address(text)?;
    let (host, port) = address.rsplit_once(':').unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_wildcard = host.parse().is_ok_and(|ip: IpAddr| ip.is_unspecified());
    if is_wildcard || port.parse() == Ok(0_u16) {
        return Err("it takes the host:port at which other instances reach this one".to_owned());
    }
    Ok(address)
}

fn brokers(text: &str) -> Result<String, String> {
    for broker in text.split(',') {
        address(broker.trim()).map_err(|_| "it takes host:port, comma-separated".to_owned())?;
    }
    Ok(text.to_owned())
}

/// A piece without `=` belongs to the value before it: such values can have commas that are
/// not escaped. What cannot be a name is refused: an unknown name would be shown in the error,
/// and this may be a part of a password. Blanks around a value are removed, unless
/// `as_they_are` says that they are part of it.
fn properties(text: &str, as_they_are: bool) -> Result<BTreeMap<String, String>, String> {
    let mut properties: BTreeMap<String, String> = BTreeMap::new();
    let mut last: Option<String> = None;
    let said = pieces::split(text).into_iter();
    for piece in said.filter(|piece| !piece.trim().is_empty()) {
        match (piece.split_once('='), &last) {
            (Some((key, value)), _) if is_name(key.trim()) => {
                let value = if as_they_are { value } else { value.trim() };
                properties.insert(key.trim().to_owned(), value.to_owned());
                last = Some(key.trim().to_owned());
            }
            (None, Some(key)) => {
                let value = properties.entry(key.clone()).or_default();
                value.push(',');
                value.push_str(&piece);
            }
            _ => return Err("it takes k=v, comma-separated".to_owned()),
        }
    }
    Ok(properties)
}

fn services(text: &str) -> Result<BTreeSet<Service>, String> {
    let names = text
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    let services: Result<BTreeSet<_>, _> = names.map(Service::from_str).collect();
    let services = services.map_err(|unknown| unknown.to_string())?;
    if services.is_empty() {
        return Err("it takes at least one of tickets, orders, payments, expiration".to_owned());
    }
    Ok(services)
}

fn number<T>(text: &str, range: RangeInclusive<T>) -> Result<T, String>
where
    T: FromStr + PartialOrd + std::fmt::Display,
{
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| {
        format!(
            "it takes a number from {} to {}",
            range.start(),
            range.end()
        )
    })
}

fn duration(text: &str, min: &str, max: &str) -> Result<Duration, String> {
    let parse = |text| humantime::parse_duration(text).ok();
    let within = |duration: &Duration| {
        parse(min).is_some_and(|min| min <= *duration)
            && parse(max).is_some_and(|max| *duration <= max)
    };
    parse(text)
        .filter(within)
        .ok_or_else(|| format!("it takes a duration from {min} to {max}, as 120s or 100ms"))
}

/// The interval, if a request does not give up before what it waits for is committed.
fn is_short_enough(interval: Duration, command_timeout: Duration) -> Result<Duration, String> {
    let least = interval * COMMITS_OF_A_WRITE;
    if least <= command_timeout {
        return Ok(interval);
    }
    Err(format!(
        "a write waits for up to {COMMITS_OF_A_WRITE} commits, so with a COMMAND_TIMEOUT of {} all would be answered 504 under load: lower it, or raise COMMAND_TIMEOUT to {} or more",
        humantime::format_duration(command_timeout),
        humantime::format_duration(least),
    ))
}

fn size(text: &str, min: usize) -> Result<usize, String> {
    let size = text
        .parse::<ByteSize>()
        .ok()
        .and_then(|size| usize::try_from(size.as_u64()).ok());
    let least = ByteSize::b(u64::try_from(min).unwrap_or(u64::MAX));
    size.filter(|size| *size >= min)
        .ok_or_else(|| format!("it takes a size of at least {least}, as 64MiB"))
}

fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err("it takes true or false".to_owned()),
    }
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("it takes text or json".to_owned()),
    }
}

fn log_filter(text: &str) -> Result<String, String> {
    let filter = tracing_subscriber::EnvFilter::builder().parse(text);
    filter
        .map(|_| text.to_owned())
        .map_err(|error| format!("{error}; it takes for example info,ticketing=debug"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(flags: &[(&'static str, &str)]) -> Layers {
        let flags = flags
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        Layers {
            flags,
            ..Layers::default()
        }
    }

    fn refusal(name: &'static str, value: &str) -> String {
        Config::read(&layers(&[(name, value)]))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn the_defaults_are_those_of_the_table() {
        let config = Config::read(&Layers::default()).unwrap();
        assert_eq!(config.kafka_brokers, "localhost:9092");
        let bound = "127.0.0.1:8080".parse().unwrap();
        assert_eq!(config.advertised(bound).as_deref(), Some("127.0.0.1:8080"));
        assert_eq!(config.warm_join_limit, Duration::from_secs(600));
        assert_eq!(config.streams().num_standby_replicas, 1);
        assert_eq!(config.commit_interval, Duration::from_millis(100));
        assert_eq!(config.order_ttl, Duration::from_secs(120));
        assert_eq!(config.block_cache_bytes, 64 << 20);
        assert_eq!(config.services, Service::ALL.into());
        assert!(!config.instance_id.is_empty());
        assert_eq!(config.topics().len(), 6);
    }

    #[test]
    fn what_is_set_is_in_force() {
        let config = Config::read(&layers(&[
            ("order-ttl", "1500ms"),
            ("services", "orders, tickets"),
            ("block-cache", "1GiB"),
            (
                "kafka-properties",
                "debug=broker,topic,sasl.mechanism=PLAIN",
            ),
            ("http-addr", "[::1]:80"),
        ]))
        .unwrap();
        assert_eq!(config.order_ttl, Duration::from_millis(1500));
        assert_eq!(config.services, [Service::Tickets, Service::Orders].into());
        assert_eq!(config.streams().block_cache_bytes, 1 << 30);
        assert_eq!(config.kafka_properties["debug"], "broker,topic");
        assert_eq!(config.kafka_properties["sasl.mechanism"], "PLAIN");
        let bound = "[::1]:80".parse().unwrap();
        assert_eq!(config.advertised(bound).as_deref(), Some("[::1]:80"));
    }

    #[test]
    fn a_property_may_have_commas() {
        let config = Config::read(&layers(&[(
            "kafka-properties",
            r"sasl.oauthbearer.extensions=a=1\,b=2,sasl.password=p\\,debug=broker,topic,ssl.ca.location=C:\ca",
        )]));
        let properties = config.unwrap().kafka_properties;
        assert_eq!(properties["sasl.oauthbearer.extensions"], "a=1,b=2");
        assert_eq!(properties["sasl.password"], r"p\");
        assert_eq!(properties["debug"], "broker,topic");
        assert_eq!(properties["ssl.ca.location"], r"C:\ca");
        assert_eq!(properties.len(), 4);
    }

    #[test]
    fn what_does_not_exist_is_told_before_the_answer_is_given_up() {
        for (timeout, wait) in [("1s", 500), ("60s", 5_000)] {
            let config = Config::read(&layers(&[("command-timeout", timeout)])).unwrap();
            let waits = config.ticketing().arrival_wait;
            assert_eq!(waits, Duration::from_millis(wait));
        }
    }

    #[test]
    fn an_interval_of_commits_that_writes_cannot_wait_for_is_refused() {
        let read = |interval: &str, timeout: &str| {
            let flags = [("commit-interval", interval), ("command-timeout", timeout)];
            Config::read(&layers(&flags)).map(|config| config.commit_interval)
        };
        for (interval, timeout) in [("3s", "10s"), ("100ms", "300ms"), ("200s", "10m")] {
            assert!(read(interval, timeout).is_ok(), "{interval}");
        }
        assert_eq!(
            read("30s", "10s").unwrap_err().to_string(),
            "--commit-interval is \"30s\": a write waits for up to 3 commits, so with a COMMAND_TIMEOUT of 10s all would be answered 504 under load: lower it, or raise COMMAND_TIMEOUT to 1m 30s or more"
        );
        let short = refusal("command-timeout", "200ms");
        assert!(
            short.starts_with("the default of COMMIT_INTERVAL is \"100ms\": "),
            "{short}"
        );
    }

    #[test]
    fn what_is_advertised_can_be_reached() {
        let advertised = |http: &str, said: &str, bound: &str| {
            let config = Config::read(&layers(&[("http-addr", http), ("advertised-addr", said)]));
            config.unwrap().advertised(bound.parse().unwrap())
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            advertised("localhost:0", "", "127.0.0.1:4711"),
            some("localhost:4711")
        );
        for wildcard in ["0.0.0.0:8080", "[::]:8080"] {
            assert_eq!(advertised(wildcard, "", wildcard), None);
            assert_eq!(advertised(wildcard, "a:80", wildcard), some("a:80"));
            assert!(refusal("advertised-addr", wildcard).contains("reach this one"));
        }
        assert!(refusal("advertised-addr", "a:0").contains("reach this one"));
        let mut config = Config::read(&layers(&[("warm-join-limit", "5s")])).unwrap();
        config.advertised_addr = some("a:80");
        let streams = config.streams();
        assert_eq!(streams.advertised_address, some("a:80"));
        assert_eq!(streams.warm_join_limit, Duration::from_secs(5));
    }

    #[test]
    fn complaints_say_what_to_change() {
        for (name, value, complaint) in [
            (
                "partitions",
                "0",
                "--partitions is \"0\": it takes a number from 1 to 10000",
            ),
            (
                "order-ttl",
                "120",
                "--order-ttl is \"120\": it takes a duration from 1ms to 365d, as 120s or 100ms",
            ),
            (
                "block-cache",
                "lots",
                "--block-cache is \"lots\": it takes a size of at least 1.0 MiB, as 64MiB",
            ),
            (
                "http-addr",
                "8080",
                "--http-addr is \"8080\": it takes host:port, as 127.0.0.1:8080",
            ),
            (
                "application-id",
                "a/b",
                "--application-id is \"a/b\": it takes 1 to 100 letters, digits, dots, hyphens and underscores",
            ),
            (
                "log-format",
                "xml",
                "--log-format is \"xml\": it takes text or json",
            ),
            (
                "services",
                ",",
                "--services is \",\": it takes at least one of tickets, orders, payments, expiration",
            ),
        ] {
            assert_eq!(refusal(name, value), complaint);
        }
        assert!(refusal("services", "tickets,refunds").contains("refunds"));
        assert!(refusal("kafka-properties", "nonsense").contains("k=v"));
    }

    #[test]
    fn a_secret_is_not_in_the_complaint_about_it() {
        for secret in [
            "hunter2",
            r"hunter2\,a=b",
            "=hunter2",
            "a=b,=hunter2",
            "a=b,$hunter2=",
        ] {
            assert_eq!(
                refusal("kafka-properties", secret),
                "--kafka-properties is \"(secret)\": it takes k=v, comma-separated"
            );
        }
    }

    #[test]
    fn without_a_key_only_dev_auth_serves() {
        let ready = |flags: &[(&'static str, &str)]| {
            Config::read(&layers(flags))
                .unwrap()
                .require_authentication()
                .is_ok()
        };
        assert!(!ready(&[]));
        assert!(ready(&[("dev-auth", "true")]));
        assert!(ready(&[("jwt-key", "0123456789abcdef")]));
    }

    #[test]
    fn a_key_is_not_in_the_debug_output() {
        for key in ["jwt-key", "cluster-key"] {
            let config = Config::read(&layers(&[(key, "0123456789abcdef")])).unwrap();
            assert!(!format!("{config:?}").contains("0123456789abcdef"));
        }
    }
}
