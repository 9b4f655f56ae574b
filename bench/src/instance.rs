//! An instance of the ticketing system, as a process.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::place::Place;
use crate::process::Usage;

/// How long it may take to become ready, and to end.
const LIMIT: Duration = Duration::from_mins(5);

/// What the instances of one application have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deployment {
    /// Partitions of the topics.
    pub(crate) partitions: i32,
    /// Further copies of each task's stores.
    pub(crate) standbys: usize,
}

impl Deployment {
    /// The deployment of one instance.
    pub(crate) fn of(partitions: i32) -> Self {
        Self {
            partitions,
            standbys: 0,
        }
    }
}

/// A running instance; it is killed when it is dropped.
pub(crate) struct Instance {
    process: Child,
    address: String,
}

impl Instance {
    /// Starts it, with its own state in the folder of the measurement.
    pub(crate) fn start(place: &Place, id: &str, deployment: Deployment) -> Outcome<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        fs::create_dir_all(&place.logs)?;
        let log_path = place.logs.join(format!("instance-{id}.log"));
        let log = File::options().create(true).append(true).open(log_path)?;
        let process = Command::new(&place.ticketing)
            .arg("--dev-auth")
            .env("KAFKA_BROKERS", &place.brokers)
            .env("INSTANCE_ID", id)
            .env("STATE_DIR", place.work.join(id))
            .env("HTTP_ADDR", &address)
            .env("ADVERTISED_ADDR", &address)
            .env("CLUSTER_KEY", "0123456789abcdef0123456789abcdef")
            .env("PARTITIONS", deployment.partitions.to_string())
            .env("NUM_STANDBY_REPLICAS", deployment.standbys.to_string())
            .env("ORDER_TTL", "24h")
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", place.ticketing.display()))?;
        Ok(Self { process, address })
    }

    /// Starts one and waits until it is ready.
    pub(crate) fn ready(place: &Place, id: &str, deployment: Deployment) -> Outcome<Self> {
        let mut instance = Self::start(place, id, deployment)?;
        let begun = Instant::now();
        while !instance.is_ready() {
            if let Some(status) = instance.process.try_wait()? {
                return Err(format!("instance {id} ended before it was ready: {status}").into());
            }
            if begun.elapsed() > LIMIT {
                return Err(format!("instance {id} was not ready in time").into());
            }
            sleep(Duration::from_millis(50));
        }
        Ok(instance)
    }

    /// Whether every task that it owns runs.
    pub(crate) fn is_ready(&self) -> bool {
        let asked = || -> std::io::Result<bool> {
            let mut stream = TcpStream::connect(&self.address)?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            write!(
                stream,
                "GET /health/ready HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
            )?;
            let mut answer = [0; 12];
            stream.read_exact(&mut answer)?;
            Ok(answer.ends_with(b" 200"))
        };
        asked().unwrap_or(false)
    }

    /// What it has used so far.
    pub(crate) fn usage(&self) -> Outcome<Usage> {
        Usage::of(self.process.id())
    }

    /// Stops it in an orderly way.
    pub(crate) fn stop(mut self) -> Outcome<()> {
        let pid = self.process.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status()?;
        let begun = Instant::now();
        while self.process.try_wait()?.is_none() {
            if begun.elapsed() > LIMIT {
                return Err("an instance did not stop in time".into());
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        if self.process.kill().is_ok() {
            self.process.wait().ok();
        }
    }
}

/// Waits until all of them have been ready at once for some seconds: while they join, each takes
/// partitions from those before it.
pub(crate) fn settle(instances: &[Instance]) -> Outcome<()> {
    let begun = Instant::now();
    let mut ready = 0;
    while ready < 20 {
        if begun.elapsed() > LIMIT {
            return Err("the instances were not all ready in time".into());
        }
        ready = if instances.iter().all(Instance::is_ready) {
            ready + 1
        } else {
            0
        };
        sleep(Duration::from_millis(100));
    }
    Ok(())
}
