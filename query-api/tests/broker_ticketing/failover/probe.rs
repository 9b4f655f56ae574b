//! Watches from outside for how long keys cannot be read or written.
//!
//! A caller for each key asks again and again, each time another instance, as behind a
//! load balancer that does not know yet who is gone: where nobody listens it goes on to
//! the next. What counts is the longest time between two answers for one key.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::Method;
use serde_json::json;
use tokio::task::JoinHandle;
use turnstile_engine::partitioner::partition_of;
use uuid::Uuid;

use crate::broker::{PARTITIONS, RUNTIME};
use crate::client::{Answer, Client};
use crate::flow::ticket;
use crate::instance::Instance;

/// How many keys of each partition are watched.
const KEYS: usize = 3;
/// Between two questions about one key.
const GAP: Duration = Duration::from_millis(20);
/// A key that is not answered for longer never will be: all brokers are away for a minute
/// at most.
const PATIENCE: Duration = Duration::from_mins(4);
/// Who owns the tickets that are watched; nobody else touches them.
const OWNER: &str = "prober";

/// The instances that are asked.
#[derive(Clone, Default)]
pub(crate) struct Targets {
    clients: Arc<Mutex<Vec<Client>>>,
    turn: Arc<AtomicUsize>,
}

impl Targets {
    /// Asks these from now on.
    pub(crate) fn set(&self, instances: &[&Instance]) {
        let clients = instances.iter().map(|instance| instance.user(OWNER));
        *self.clients.lock() = clients.collect();
    }

    fn next(&self) -> Client {
        let clients = self.clients.lock();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        clients[turn % clients.len()].clone()
    }
}

/// What the callers saw.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    /// The longest time between two answers to reads of one key.
    pub(crate) reads: Duration,
    /// The same of commands.
    pub(crate) commands: Duration,
    /// Answers that said to come again: 503 with `Retry-After`.
    pub(crate) come_again: usize,
    /// Commands whose outcome did not come in time: 504 with the key to ask again with.
    pub(crate) pending: usize,
    /// All other answers that were no success.
    pub(crate) failures: Vec<String>,
}

/// The callers. They ask until they are told to stop.
pub(crate) struct Probe {
    targets: Targets,
    tickets: Vec<String>,
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    callers: Vec<JoinHandle<()>>,
}

impl Probe {
    /// Makes the tickets that are watched.
    pub(crate) fn new(instances: &[&Instance]) -> Self {
        let targets = Targets::default();
        targets.set(instances);
        let seller = instances[0].user(OWNER);
        let keys = KEYS * usize::try_from(PARTITIONS).expect("there are some");
        let mut by_partition = BTreeMap::<i32, Vec<String>>::new();
        while by_partition.values().map(Vec::len).sum::<usize>() < keys {
            let ticket = ticket(&seller, "Probe");
            let partition = partition_of(ticket.as_bytes(), PARTITIONS).0;
            let of_partition = by_partition.entry(partition).or_default();
            if of_partition.len() < KEYS {
                of_partition.push(ticket);
            }
        }
        Self {
            targets,
            tickets: by_partition.into_values().flatten().collect(),
            stop: Arc::default(),
            seen: Arc::default(),
            callers: Vec::new(),
        }
    }

    /// Who is asked.
    pub(crate) fn targets(&self) -> Targets {
        self.targets.clone()
    }

    /// Begins to ask.
    pub(crate) fn start(&mut self) {
        self.stop = Arc::default();
        self.seen = Arc::default();
        for ticket in &self.tickets {
            for is_command in [false, true] {
                let caller = Caller {
                    targets: self.targets.clone(),
                    path: format!("/api/tickets/{ticket}"),
                    is_command,
                    stop: self.stop.clone(),
                    seen: self.seen.clone(),
                };
                self.callers.push(RUNTIME.spawn(caller.ask()));
            }
        }
    }

    /// Ends the questions, after the last of them was answered, and says what was seen.
    pub(crate) fn finish(&mut self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        for caller in self.callers.drain(..) {
            RUNTIME
                .block_on(caller)
                .expect("every key is answered in the end");
        }
        self.seen.lock().clone()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Caller {
    targets: Targets,
    path: String,
    is_command: bool,
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
}

impl Caller {
    async fn ask(self) {
        let mut answered = Instant::now();
        let mut price = 1.0;
        while !self.stop.load(Ordering::Relaxed) {
            price += 0.5;
            let key = Uuid::new_v4().to_string();
            while !self.is_answered(price, &key).await {
                assert!(
                    answered.elapsed() < PATIENCE,
                    "no answer within {PATIENCE:?}: {} (a command: {})",
                    self.path,
                    self.is_command
                );
                tokio::time::sleep(GAP).await;
            }
            let between = answered.elapsed();
            answered = Instant::now();
            self.note_answer(between);
            tokio::time::sleep(GAP).await;
        }
    }

    fn note_answer(&self, between: Duration) {
        let mut seen = self.seen.lock();
        let longest = if self.is_command {
            &mut seen.commands
        } else {
            &mut seen.reads
        };
        *longest = between.max(*longest);
    }

    /// Asks one instance; false where it is to be asked again.
    async fn is_answered(&self, price: f64, key: &str) -> bool {
        let client = self.targets.next();
        let answer = if self.is_command {
            let body = json!({"title": "Probe", "price": price}).to_string();
            client
                .try_call(Method::PUT, &self.path, Some(body), Some(key))
                .await
        } else {
            client.try_call(Method::GET, &self.path, None, None).await
        };
        match answer {
            Ok(answer) if answer.status == 200 => true,
            Ok(answer) => {
                self.note_refusal(&answer);
                false
            }
            // Nobody listens there any more, or it ended while it answered.
            Err(_) => false,
        }
    }

    fn note_refusal(&self, answer: &Answer) {
        let mut seen = self.seen.lock();
        match answer.status {
            503 if answer.headers.contains_key("retry-after") => seen.come_again += 1,
            504 if self.is_command => seen.pending += 1,
            status => seen
                .failures
                .push(format!("{status} {}: {}", self.path, answer.text)),
        }
    }
}
