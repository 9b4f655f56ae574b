//! An instance: a child process, killed when it is dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::Method;
use serde_json::Value;

use crate::broker::{Broker, RUNTIME};
use crate::client::{Answer, Client};
use crate::eventually;

/// How many were started by this process.
static STARTED: AtomicUsize = AtomicUsize::new(0);

/// How much of its log an instance shows when its test fails, in lines.
const LOG_TAIL: usize = 60;

/// What an instance is started with.
pub(crate) struct Launch<'b> {
    broker: &'b Broker,
    id: String,
    settings: BTreeMap<&'static str, String>,
}

impl<'b> Launch<'b> {
    /// An instance by the id `id`, with a state directory by the same name.
    pub(crate) fn new(broker: &'b Broker, id: &str) -> Self {
        let settings = BTreeMap::from([
            ("KAFKA_BROKERS", broker.addresses().to_owned()),
            ("INSTANCE_ID", id.to_owned()),
            ("HTTP_ADDR", format!("127.0.0.1:{}", free_port())),
            ("STATE_DIR", state_dir(broker, id).display().to_string()),
            (
                "SESSION_TIMEOUT",
                format!("{}ms", broker.session_timeout().as_millis()),
            ),
            ("DEV_AUTH", "true".to_owned()),
            ("NO_COLOR", "1".to_owned()),
        ]);
        Self {
            broker,
            id: id.to_owned(),
            settings,
        }
    }

    pub(crate) fn set(mut self, variable: &'static str, value: &str) -> Self {
        self.settings.insert(variable, value.to_owned());
        self
    }

    /// Starts the process, and does not wait for it.
    pub(crate) fn spawn(self) -> Instance {
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let log = self
            .broker
            .folder()
            .join(format!("{}-{number}.log", self.id));
        let file = File::create(&log).expect("the log can be written");
        let errors = file.try_clone().expect("the log can be written");
        let base = format!("http://{}", self.settings["HTTP_ADDR"]);
        let mut command = Command::new(env!("CARGO_BIN_EXE_ticketing"));
        command.env_clear().envs(&self.settings);
        command.envs(std::env::var("RUST_LOG").map(|filter| ("RUST_LOG", filter)));
        command.stdin(Stdio::null()).stdout(file).stderr(errors);
        let child = command.spawn().expect("the binary can be started");
        Instance {
            id: self.id,
            child,
            log,
            client: Client::new(&base),
            over: false,
        }
    }

    /// Starts the process, and waits until it is ready.
    pub(crate) fn start(self) -> Instance {
        let mut instance = self.spawn();
        instance.wait_until_ready();
        instance
    }
}

/// An instance.
pub(crate) struct Instance {
    id: String,
    child: Child,
    log: PathBuf,
    client: Client,
    over: bool,
}

impl Instance {
    /// A caller who is nobody.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// A caller by name.
    pub(crate) fn user(&self, name: &str) -> Client {
        self.client.user(name)
    }

    /// What it says of itself, if it answers.
    pub(crate) fn health(&self) -> Option<Answer> {
        let answer = self
            .client
            .try_call(Method::GET, "/health/ready", None, None);
        RUNTIME.block_on(answer).ok()
    }

    /// Whether the process still lives.
    pub(crate) fn lives(&mut self) -> bool {
        let status = self.child.try_wait().expect("the child can be asked");
        status.is_none()
    }

    pub(crate) fn wait_until_ready(&mut self) {
        let what = format!("{} is ready", self.id);
        eventually(&what, || {
            assert!(self.lives(), "{} ended while it started", self.id);
            self.health().filter(|answer| answer.status == 200)
        });
    }

    /// The tasks that run here, while it is ready.
    pub(crate) fn running(&self) -> BTreeSet<String> {
        let Some(answer) = self.health().filter(|answer| answer.status == 200) else {
            return BTreeSet::new();
        };
        let health: Value = answer.json();
        let tasks = health["tasks"].as_array().expect("health lists tasks");
        let running = tasks.iter().filter(|task| task["status"] == "running");
        running
            .map(|task| task["task"].as_str().expect("a task has an id").to_owned())
            .collect()
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the child can be killed");
        self.wait();
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &pid])
            .status();
        assert!(sent.expect("kill can be run").success());
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it in order: SIGTERM, then exit code 0.
    pub(crate) fn stop(mut self) {
        self.signal("TERM");
        let status = self.exit();
        assert_eq!(status.code(), Some(0), "{}", self.log());
    }

    /// How it ended by itself.
    pub(crate) fn exit(&mut self) -> ExitStatus {
        let what = format!("{} ends", self.id);
        let status = eventually(&what, || {
            self.child.try_wait().expect("the child can be asked")
        });
        self.over = true;
        status
    }

    /// What it has said so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn wait(&mut self) {
        self.child.wait().expect("the child can be waited for");
        self.over = true;
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if std::thread::panicking() {
            if let Some(health) = self.health() {
                println!("{} says: {}", self.id, health.text);
            }
            let log = self.log();
            // Probes while it was waited for are not what one looks for.
            let lines = log.lines().filter(|line| !line.contains("/health/ready"));
            let lines: Vec<&str> = lines.collect();
            let tail = lines.len().saturating_sub(LOG_TAIL);
            println!("the end of the log of {}:", self.id);
            lines.iter().skip(tail).for_each(|line| println!("{line}"));
        }
        if !self.over {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// Where the instance by this id keeps its state.
pub(crate) fn state_dir(broker: &Broker, id: &str) -> PathBuf {
    broker.folder().join(format!("{id}-state"))
}

/// Deletes the state directory of an instance that does not run.
pub(crate) fn lose_state(broker: &Broker, id: &str) {
    std::fs::remove_dir_all(state_dir(broker, id)).expect("the state can be removed");
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    listener
        .local_addr()
        .expect("it is bound to an address")
        .port()
}
