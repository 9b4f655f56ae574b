//! Several instances: each answers everything, wherever the rows are.
//! Their stores are parts of one test driver; they ask each other over HTTP.
//! Their stores are parts of one test driver; what they ask each other goes over HTTP.

mod everywhere;
mod internal;
mod lists;
mod standbys;

use std::net::TcpListener as StdListener;
use std::time::Instant;

use axum::Router as AxumRouter;
use prometheus::IntGauge;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use turnstile_engine::partitioner::partition_of;
use turnstile_engine::runtime::Host;

use super::*;
use crate::application::memory::{PARTITIONS, World};
use crate::http::server::{ServerConfig, serve};
use crate::peers::wire;

/// Longer than anything takes that has to happen.
const LIMIT: Duration = Duration::from_secs(20);

/// An instance that others can reach.
struct Member {
    name: &'static str,
    served: Served,
    address: String,
    server: Option<Runtime>,
}

/// Serves a router on its own threads, so that it can end as a process ends.
fn listen(router: AxumRouter, max_connections: usize) -> (String, Runtime) {
    let listener = StdListener::bind("127.0.0.1:0").expect("there is a free port");
    listener.set_nonblocking(true).expect("a socket");
    let address = listener.local_addr().expect("an address").to_string();
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("there are threads");
    runtime.spawn(async move {
        let config = ServerConfig {
            max_connections,
            idle_timeout: LIMIT,
            drain_timeout: Duration::ZERO,
        };
        let (_go_on, stop) = watch::channel(false);
        let listener = TcpListener::from_std(listener).expect("a socket");
        let open = IntGauge::new("open", "open").expect("a metric");
        serve(listener, router, config, open, stop).await
    });
    (address, runtime)
}

impl Member {
    fn new(world: &Arc<World>, name: &'static str) -> Self {
        Self::bounded(world, name, 64)
    }

    fn bounded(world: &Arc<World>, name: &'static str, max_requests: usize) -> Self {
        let config = ApiConfig {
            command_timeout: LIMIT,
            ..config(max_requests)
        };
        let served = Served::with(&Service::ALL, &config, |peers| {
            MemoryApplication::of(world, peers)
        });
        let (address, server) = listen(served.router.clone(), 64);
        Self {
            name,
            served,
            address,
            server: Some(server),
        }
    }

    /// How `of` sees this one.
    fn host(&self, of: &Self) -> Host {
        Host {
            instance: self.name.into(),
            address: Some(self.address.as_str().into()),
            is_local: self.name == of.name,
        }
    }

    fn application(&self) -> &MemoryApplication {
        &self.served.application
    }

    /// Ends as a killed process does.
    fn kill(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown_background();
        }
    }

    /// What it has counted.
    async fn counted(&self, line: &str) -> bool {
        let metrics = self.served.get("", "/metrics").await.text;
        metrics.lines().any(|found| found == line)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Makes `owner` run the tasks of a partition, and all members believe so.
fn give(members: &[&Member], partition: i32, owner: &Member) {
    for member in members {
        if member.name == owner.name {
            member.application().own(partition);
        } else {
            member.application().leave(partition);
        }
        let host = owner.host(member);
        member.application().believe(partition, Some(host));
    }
}

/// Two instances; the first has the even partitions.
fn two() -> (Arc<World>, Member, Member) {
    let world = World::new(&Service::ALL);
    let (a, b) = (Member::new(&world, "a"), Member::new(&world, "b"));
    for partition in 0..PARTITIONS {
        let owner = if partition % 2 == 0 { &a } else { &b };
        give(&[&a, &b], partition, owner);
    }
    (world, a, b)
}

fn partition(id: &str) -> i32 {
    partition_of(id.as_bytes(), PARTITIONS).0
}

/// Tickets of all partitions, one of each.
async fn tickets(served: &Served) -> Vec<String> {
    let mut found: Vec<Option<String>> = vec![None; 4];
    while found.iter().any(Option::is_none) {
        let id = served.ticket("Concert").await;
        let slot = usize::try_from(partition(&id)).expect("not negative");
        found[slot] = Some(id);
    }
    found.into_iter().flatten().collect()
}

/// Waits for what a thread of another instance does.
async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
