//! The thread that announces this instance and listens to the others.
//!
//! 1. Reads the topic from its start. What is there already was said some time ago. Until it has
//!    read that it says nothing: that would replace what the process before it said.
//! 2. Announces a change at once, but at most every 20 ms unless it is of the phase, which is waited
//!    for; and every second that it is alive, or four times a session if that is shorter.
//! 3. Removes instances that were silent for a day: any instance may write their tombstones, and a
//!    duplicate does no harm.
//! 4. At the end announces that it has stopped.
//!
//! A fault of the cluster ends nothing: the neighbours are heard later, and those that are not
//! heard of for too long count as gone. If it has not heard itself for long, because brokers were
//! away or a client is stuck on them, it starts over with new clients.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::announcement::Announcement;
use super::{Cluster, instances_topic};
use crate::runtime::StreamsConfig;
use crate::runtime::background::Background;
use crate::runtime::kafka::{
    ChangelogEvent, ChangelogReader, EndOffsets, EventProducer, KafkaFault, TopicPartition,
};
use crate::runtime::wake::Waker;
use crate::{Offset, Partition, clock};

/// The longest time between two signs of life.
const HEARTBEAT_MAX: Duration = Duration::from_secs(1);
/// The shortest time between two announcements.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The pause after a fault of the cluster.
const FAULT_PAUSE: Duration = Duration::from_millis(500);
/// The shortest time without hearing itself after which its clients are given up.
const DEAF_MIN: Duration = Duration::from_secs(20);
/// How long the last announcement may take.
const FAREWELL_LIMIT: Duration = Duration::from_secs(2);
/// Instances that are forgotten with one announcement.
const FORGOTTEN_AT_ONCE: usize = 4;
/// Announcements that are read in one turn.
const TURN: usize = 1_000;

/// Announces this instance and listens to the others, until the thread is dropped.
pub(crate) fn start(
    cluster: Cluster,
    config: &StreamsConfig,
    log_ends: &EndOffsets,
) -> Result<Background, MessengerFault> {
    // What could not be sent within a heartbeat is announced anew.
    let mut config = config.clone();
    config.request_timeout = config.request_timeout.min(Duration::from_secs(5));
    let waker = cluster.shared.news.clone();
    let mut messages = Messages {
        cluster,
        next: None,
        place: TopicPartition {
            topic: instances_topic(&config.application_id).into(),
            partition: Partition(0),
        },
        producer: EventProducer::of_repeatable(&config)?,
        log_ends: log_ends.within(config.request_timeout),
        heartbeat: HEARTBEAT_MAX.min(config.session_timeout / 4),
        has_heard_all: false,
        deaf_after: DEAF_MIN.max(config.session_timeout * 2),
        renewed: Instant::now(),
        listens_since: None,
        last: None,
        config,
    };
    Background::start("messenger", waker, move |stop| messages.exchange(stop))
        .map_err(MessengerFault::Thread)
}

/// Why the messenger could not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MessengerFault {
    #[error(transparent)]
    Producer(#[from] KafkaFault),
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}

struct Messages {
    cluster: Cluster,
    config: StreamsConfig,
    place: TopicPartition,
    producer: EventProducer,
    log_ends: EndOffsets,
    heartbeat: Duration,
    /// Up to where the others were heard; `None`: not at all yet.
    next: Option<Offset>,
    /// Whether everything that was there at the start has been read.
    has_heard_all: bool,
    /// If it does not hear itself for this long, it gets new clients.
    deaf_after: Duration,
    /// When it last got new clients.
    renewed: Instant,
    /// Since when everything is heard as it is said; `None`: there is more that was said before.
    listens_since: Option<Instant>,
    /// What was said last, and when.
    last: Option<(Announcement, Instant)>,
}

impl Messages {
    fn exchange(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            if let Err(fault) = self.exchange_until_fault(stop) {
                tracing::warn!(%fault, "cannot hear the other instances; trying again");
                self.listens_since = None;
                self.renew_if_deaf();
                self.announce_if_due();
                self.news().wait(FAULT_PAUSE);
            }
        }
        // 4.
        self.cluster.stop();
        if self.has_heard_all {
            self.say(self.cluster.announcement());
            self.producer.flush(FAREWELL_LIMIT);
        }
    }

    fn news(&self) -> &Waker {
        &self.cluster.shared.news
    }

    fn exchange_until_fault(&mut self, stop: &AtomicBool) -> Result<(), KafkaFault> {
        // 1.
        // The first time everything is read: the reader need not wait for the end.
        let early = match self.next {
            None => Some(self.read_on()?),
            Some(_) => None,
        };
        let end = self.log_ends.of(std::slice::from_ref(&self.place))?;
        let end = end.first().map_or(Offset(0), |(_, end)| *end);
        // Hearing it once is enough: what is read again would count as just said.
        self.next = self.next.filter(|next| *next <= end);
        let reader = match early {
            Some(reader) => reader,
            None => self.read_on()?,
        };
        while !stop.load(Ordering::Relaxed) {
            if self.is_deaf() {
                return Err(KafkaFault::Retriable {
                    action: "hear what it says itself",
                    reason: format!("nothing has come back for {:?}", self.deaf_after),
                });
            }
            let heard = self.listen(&reader, end)?;
            let reached = self.next.unwrap_or(Offset(0));
            let listens = self.listens_since.is_some();
            if !listens && (reached >= end || self.position(&reader)? >= end) {
                self.listens_since = Some(Instant::now());
                self.has_heard_all = true;
                self.cluster.set_complete();
            }
            // 2.
            let until_due = self.announce_if_due();
            if heard == 0 {
                reader.wait(until_due)?;
            }
        }
        Ok(())
    }

    /// Whether it keeps announcing, but has not heard itself for long.
    fn is_deaf(&self) -> bool {
        let heard = *self.cluster.shared.heard_itself.lock();
        self.has_heard_all && heard.max(self.renewed).elapsed() > self.deaf_after
    }

    /// Announces through another client if nothing came back of what was sent through this one.
    /// (The listening side gets a new client anyway.)
    fn renew_if_deaf(&mut self) {
        if !self.is_deaf() {
            return;
        }
        self.renewed = Instant::now();
        match EventProducer::of_repeatable(&self.config) {
            Ok(another) => self.producer = another,
            Err(fault) => tracing::error!(%fault, "there is no other producer for announcements"),
        }
    }

    fn read_on(&self) -> Result<ChangelogReader, KafkaFault> {
        let start = (self.place.clone(), self.next);
        ChangelogReader::start(&self.config, &[start], self.news().clone())
    }

    fn position(&self, reader: &ChangelogReader) -> Result<Offset, KafkaFault> {
        let positions = reader.positions()?;
        let here = positions.iter().find(|(place, _)| *place == self.place);
        Ok(here.map_or(Offset(0), |(_, offset)| *offset))
    }

    /// Takes in what was said; what was said before `end`, as of when it was said.
    fn listen(&mut self, reader: &ChangelogReader, end: Offset) -> Result<usize, KafkaFault> {
        let Self {
            cluster,
            place,
            next,
            last,
            ..
        } = self;
        reader.read(place, TURN, |event| -> Result<(), KafkaFault> {
            let ChangelogEvent::Record { offset, key, value } = event else {
                return Ok(());
            };
            *next = Some(Offset(offset.0 + 1));
            let Some(name) = key.and_then(|key| std::str::from_utf8(key).ok()) else {
                tracing::warn!(%offset, "an announcement without a name is skipped");
                return Ok(());
            };
            let said = match value.map(Announcement::decode).transpose() {
                Ok(said) => said,
                Err(error) => {
                    tracing::warn!(%offset, name, %error, "an announcement that cannot be read is skipped");
                    return Ok(());
                }
            };
            if said.is_none() && *name == *cluster.shared.own.name {
                // Another instance has taken this one for gone: it says at once that it is not.
                *last = None;
            }
            let now = Instant::now();
            let live = offset >= end;
            let age = said
                .as_ref()
                .filter(|_| !live)
                .map_or(Duration::ZERO, |said| clock::now().since(said.said));
            cluster.hear(name, said, now.checked_sub(age).unwrap_or(now), live);
            Ok(())
        })
    }

    /// Announces this instance if there is anything to say; returns how long there will be nothing.
    fn announce_if_due(&mut self) -> Duration {
        self.cluster.shared.queries.tell_if_cut_off();
        if !self.has_heard_all {
            return self.heartbeat;
        }
        let announcement = self.cluster.announcement();
        if let Some((last, at)) = &self.last {
            let same = Announcement {
                said: last.said,
                ..announcement.clone()
            } == *last;
            let pause = if same {
                self.heartbeat
            } else if announcement.phase != last.phase {
                Duration::ZERO
            } else {
                PAUSE_MIN
            };
            let left = pause.saturating_sub(at.elapsed());
            if !left.is_zero() {
                return left;
            }
        }
        self.say(announcement);
        // 3.
        self.forget_the_gone();
        self.heartbeat
    }

    fn forget_the_gone(&self) {
        let Some(since) = self.listens_since else {
            return;
        };
        let gone = self.cluster.to_forget(since).into_iter();
        for instance in gone.take(FORGOTTEN_AT_ONCE) {
            tracing::info!(%instance, "an instance was not heard of for a day, and is forgotten");
            let erased = self.producer.erase_unwatched(&self.place.topic, &instance);
            if let Err(error) = erased {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "could not forget an instance"
                );
            }
        }
    }

    fn say(&mut self, announcement: Announcement) {
        let said = self.producer.send_unwatched(
            &self.place.topic,
            &announcement.instance,
            &announcement.encode(),
        );
        if let Err(error) = said {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "could not announce"
            );
        }
        self.last = Some((announcement, Instant::now()));
    }
}
