//! The stores of the application, wherever their tasks run.
//!
//! A row is read
//! 1. locally, if its task runs here;
//! 2. otherwise on the instance that is announced to run it;
//! 3. otherwise, for a reader who accepts stale rows, from a standby: a local one, then
//!    those elsewhere, the freshest first.
//!
//! If none of them answers, all of this is repeated after a short pause, since the owner may
//! be changing, until the reader's patience is over. Local rows are read at once. So it is if the
//! store of the owner fails: its instance may end, and a standby can answer meanwhile.
//! A request that another instance made is never passed on.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};
use turnstile_engine::runtime::{Host, Queries, QueryError, StoreAnswer, StoreRead, StoreRequest};
use turnstile_engine::{Codec, CodecError, Partition, Store, TaskId};

use super::missing::{Missing, RETRY_PAUSE};
use super::{Found, Owners, Patience, Staleness, Unavailable};
use crate::peers::{Fingerprint, PeerFailure, Peers, ReadRequest, Refusal, Wait, origin};

/// How often a watched row is polled without a notification: a watch ends silently when
/// its task moves away.
pub(super) const WATCH_POLL: Duration = Duration::from_millis(250);

/// How long another instance may take to answer, not counting its wait for a change.
const PEER_TIMEOUT: Duration = Duration::from_secs(2);

/// The least time that it is given, however little patience is left.
const PEER_TIMEOUT_MIN: Duration = Duration::from_millis(250);

/// How long the owner may take to answer a reader who would take a standby's answer.
const AT_ONCE: Duration = Duration::from_millis(500);

/// How long another instance waits for a change before it is asked who has the row now.
const LONG_POLL: Duration = Duration::from_secs(2);

/// The stores of the application.
pub struct Stores {
    queries: Queries,
    owners: Arc<dyn Owners>,
    peers: Arc<Peers>,
}

impl Stores {
    /// Stores that `queries` reads locally and `peers` reads where `owners` says they are.
    #[must_use]
    pub fn new(queries: Queries, owners: Arc<dyn Owners>, peers: Arc<Peers>) -> Self {
        Self {
            queries,
            owners,
            peers,
        }
    }

    pub(super) fn queries(&self) -> &Queries {
        &self.queries
    }

    pub(super) fn owners(&self) -> &dyn Owners {
        self.owners.as_ref()
    }

    /// How many partitions a store has.
    pub(super) fn partitions<K, V>(&self, store: Store<K, V>) -> Result<i32, Unavailable> {
        self.queries.partitions(store).map_err(failed)
    }

    /// The partition that a partition key belongs to.
    pub(super) fn partition_of<K, V>(
        &self,
        store: Store<K, V>,
        partition_key: &str,
    ) -> Result<Partition, Unavailable> {
        let partition = self.queries.partition_of(store, partition_key);
        partition.map_err(failed)
    }

    /// The committed value of a key.
    pub(super) async fn get<K: Codec, V: Codec>(
        &self,
        store: Store<K, V>,
        partition_key: &str,
        key: &K,
        patience: Patience,
    ) -> Result<Found<Option<V>>, Unavailable> {
        match self.queries.get(store, partition_key, key) {
            Ok(value) => return Ok(Found::current(value)),
            Err(error) => Missing::of(error).or_give_up(patience.max_stale)?,
        };
        let request = self.request_of(store, partition_key, key)?;
        let answer = self.read(&request, patience).await?;
        answer.try_map(|answer| value_of(&request, &answer))
    }

    /// The rows of one partition that a read asks for.
    pub(super) async fn rows<K: Codec, V: Codec, I, R>(
        &self,
        store: Store<I, R>,
        partition: Partition,
        read: StoreRead,
        patience: Patience,
    ) -> Result<Found<Vec<(K, V)>>, Unavailable> {
        let request = self.queries.request(store, partition, read);
        let request = request.map_err(failed)?;
        let answer = self.read(&request, patience).await?;
        answer.try_map(|answer| {
            let rows = answer.rows.iter();
            rows.map(|(key, value)| Ok((K::decode(key)?, V::decode(value)?)))
                .collect::<Result<_, CodecError>>()
                .map_err(|source| unreadable(&request, source))
        })
    }

    /// What `find` finds in the value of a key, as soon as it finds something; `None` when the
    /// time is over.
    pub(super) async fn wait<K: Codec, V: Codec, T>(
        &self,
        store: Store<K, V>,
        partition_key: &str,
        key: &K,
        deadline: Instant,
        find: impl Fn(Option<V>) -> Option<T>,
    ) -> Result<Option<T>, Unavailable> {
        let mut elsewhere: Option<Elsewhere> = None;
        loop {
            let changed = Arc::new(Notify::new());
            let tell = changed.clone();
            // Watching comes before looking, so that no change falls between them. If the row
            // cannot be watched here, looking says why.
            let watch = self
                .queries
                .watch(store, partition_key, key, move || tell.notify_one());
            match self.queries.get(store, partition_key, key) {
                Ok(value) => {
                    if let Some(found) = find(value) {
                        return Ok(Some(found));
                    }
                    if Instant::now() >= deadline {
                        return Ok(None);
                    }
                    elsewhere = None;
                    let look_again = deadline.min(Instant::now() + WATCH_POLL);
                    // A notification and a time-out lead to the same.
                    timeout_at(look_again, changed.notified()).await.ok();
                }
                Err(error) => {
                    drop(watch);
                    Missing::of(error).or_give_up(None)?;
                    let row = match &mut elsewhere {
                        Some(row) => row,
                        none => none.insert(Elsewhere {
                            request: self.request_of(store, partition_key, key)?,
                            known: None,
                        }),
                    };
                    if let Some(answer) = self.look_elsewhere(row, deadline).await? {
                        let value = value_of(&row.request, &answer)?;
                        if let Some(found) = find(value) {
                            return Ok(Some(found));
                        }
                    }
                    if Instant::now() >= deadline {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// A row that has changed since it was last looked at, on the instance that has it;
    /// `None` if it has not changed, or cannot be read at the moment.
    async fn look_elsewhere(
        &self,
        row: &mut Elsewhere,
        deadline: Instant,
    ) -> Result<Option<StoreAnswer>, Unavailable> {
        let wait = row.known.map(|known| Wait {
            known,
            limit: LONG_POLL.min(deadline.saturating_duration_since(Instant::now())),
        });
        let task = self.queries.task_of(&row.request).map_err(failed)?;
        let limit = peer_timeout(deadline);
        let pause = match self.ask_owner(task, &row.request, wait, limit).await {
            Ok(answer) => {
                let known = Some(Fingerprint::of_row(&answer));
                if row.known != known {
                    row.known = known;
                    return Ok(Some(answer));
                }
                RETRY_PAUSE
            }
            Err(missing) => missing.map_or(RETRY_PAUSE, |missing| missing.pause()),
        };
        sleep_until(deadline.min(Instant::now() + pause)).await;
        Ok(None)
    }

    /// Reads, in the order that the module head gives.
    async fn read(
        &self,
        request: &StoreRequest,
        patience: Patience,
    ) -> Result<Found<StoreAnswer>, Unavailable> {
        let task = self.queries.task_of(request).map_err(failed)?;
        loop {
            // 1.
            let here = match look(&self.queries, request, None).await {
                Ok(answer) => return Ok(Found::current(answer)),
                Err(error) => Missing::of(error).or_give_up(patience.max_stale)?,
            };
            // 2.
            let limit = match patience.max_stale {
                Some(_) => AT_ONCE,
                None => peer_timeout(patience.deadline),
            };
            let there = match self.ask_owner(task, request, None, limit).await {
                Ok(answer) => return Ok(Found::current(answer)),
                Err(missing) => missing,
            };
            // 3.
            if let Some(max_stale) = patience.max_stale
                && let Some(found) = self.ask_standbys(task, request, max_stale).await
            {
                self.peers.measures().standby_read();
                return Ok(found);
            }
            let now = Instant::now();
            let missing = there.unwrap_or(here);
            if now >= patience.deadline {
                return Err(missing.unavailable(request.partition));
            }
            sleep_until(patience.deadline.min(now + missing.pause())).await;
        }
    }

    /// The answer of the instance that is announced to run a task, or why there is none;
    /// `None` if no instance is announced.
    async fn ask_owner(
        &self,
        task: TaskId,
        request: &StoreRequest,
        wait: Option<Wait>,
        limit: Duration,
    ) -> Result<StoreAnswer, Option<Missing>> {
        let owner = self.owners.owner(task);
        let owner = owner.filter(|owner| !owner.is_local).ok_or(None)?;
        let answer = self.ask(&owner, request, wait, None, limit).await;
        answer.map_err(Some)
    }

    /// The answer of the freshest standby that is fresh enough.
    async fn ask_standbys(
        &self,
        task: TaskId,
        request: &StoreRequest,
        max_stale: Duration,
    ) -> Option<Found<StoreAnswer>> {
        let standbys = self.owners.standbys(task);
        let found = |answer: StoreAnswer, records_behind| {
            let staleness = answer.stale.map(|age| Staleness {
                age,
                records_behind,
            });
            Some(Found {
                value: answer,
                staleness,
            })
        };
        if let Ok(answer) = look(&self.queries, request, Some(max_stale)).await {
            let own = standbys.iter().find(|(host, _)| host.is_local);
            let records_behind = own.and_then(|(_, report)| report.records_behind);
            return found(answer, records_behind);
        }
        for (host, report) in standbys.iter().filter(|(host, _)| !host.is_local) {
            let asked = self.ask(host, request, None, Some(max_stale), AT_ONCE);
            if let Ok(answer) = asked.await {
                return found(answer, report.records_behind);
            }
        }
        None
    }

    /// The answer of an instance, or why it has none.
    async fn ask(
        &self,
        host: &Host,
        request: &StoreRequest,
        wait: Option<Wait>,
        max_stale: Option<Duration>,
        limit: Duration,
    ) -> Result<StoreAnswer, Missing> {
        let instance = &host.instance;
        if !origin::may_ask() {
            return Err(Missing::NotYet(format!(
                "instance {instance} has it, and another instance asks already"
            )));
        }
        let Some(address) = &host.address else {
            self.peers.measures().sent("no_address", None);
            let why = format!("instance {instance} has no ADVERTISED_ADDR");
            return Err(Missing::NotYet(why));
        };
        let request = ReadRequest {
            request: request.clone(),
            wait,
            max_stale,
        };
        let answer = self.peers.read(address, &request, limit).await;
        answer.map_err(|failure| {
            tracing::debug!(
                %instance,
                %address,
                error = &failure as &dyn std::error::Error,
                "another instance has not answered"
            );
            let why = format!("instance {instance}: {failure}");
            match failure {
                PeerFailure::Refused(Refusal::Failed(_)) => Missing::Failed(why.into()),
                _ => Missing::NotYet(why),
            }
        })
    }

    fn request_of<K: Codec, V>(
        &self,
        store: Store<K, V>,
        partition_key: &str,
        key: &K,
    ) -> Result<StoreRequest, Unavailable> {
        let partition = self.partition_of(store, partition_key)?;
        let read = StoreRead::Keys(vec![key.to_bytes()]);
        self.queries.request(store, partition, read).map_err(failed)
    }
}

/// A row on another instance, and how it was when it was last looked at.
struct Elsewhere {
    request: StoreRequest,
    /// `None`: it was not looked at yet.
    known: Option<Option<Fingerprint>>,
}

/// How long another instance may take to answer a reader that waits until `deadline`.
fn peer_timeout(deadline: Instant) -> Duration {
    let left = deadline.saturating_duration_since(Instant::now());
    PEER_TIMEOUT.min(left.max(PEER_TIMEOUT_MIN))
}

/// What is stored here; many rows are read off the threads that serve requests.
pub(super) async fn look(
    queries: &Queries,
    request: &StoreRequest,
    max_stale: Option<Duration>,
) -> Result<StoreAnswer, QueryError> {
    match &request.read {
        StoreRead::Keys(keys) if keys.len() <= 1 => queries.answer(request, max_stale),
        StoreRead::Keys(_) | StoreRead::Range(_) | StoreRead::Indexed { .. } => {
            let (queries, request) = (queries.clone(), request.clone());
            let look = move || queries.answer(&request, max_stale);
            match tokio::task::spawn_blocking(look).await {
                Ok(answer) => answer,
                Err(ended) => match ended.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // The process ends, and with it whoever waits here.
                    Err(_) => std::future::pending().await,
                },
            }
        }
    }
}

fn value_of<V: Codec>(
    request: &StoreRequest,
    answer: &StoreAnswer,
) -> Result<Option<V>, Unavailable> {
    let value = answer.rows.first().map(|(_, value)| V::decode(value));
    value
        .transpose()
        .map_err(|source| unreadable(request, source))
}

fn unreadable(request: &StoreRequest, source: CodecError) -> Unavailable {
    let store = request.store.clone();
    failed(QueryError::UnreadableRow { store, source })
}

fn failed(error: QueryError) -> Unavailable {
    Unavailable::Failed(Box::new(error))
}
