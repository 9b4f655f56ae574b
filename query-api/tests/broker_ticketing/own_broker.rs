//! A broker of one test, or several, which may be stopped, paused and asked for a password.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Where it begins to look for a free port.
const PORT: &str = "29092";

/// A broker of a test, or several, which end with this process at the latest.
pub(crate) struct OwnBroker {
    data: TempDir,
    port: String,
    /// What else it is started with.
    options: Vec<String>,
}

impl OwnBroker {
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// One with a second address, for clients that log in as this user: `NAME:PASSWORD`.
    pub(crate) fn for_user(name_and_password: &str) -> Self {
        Self::with(&["--user", name_and_password])
    }

    /// Three, each with a replica of everything.
    pub(crate) fn three() -> Self {
        Self::with(&["--nodes", "3"])
    }

    fn with(options: &[&str]) -> Self {
        let mut broker = Self {
            data: TempDir::new().expect("a temporary folder can be made"),
            port: PORT.to_owned(),
            options: options.iter().copied().map(str::to_owned).collect(),
        };
        broker.run();
        let addresses = broker.address();
        let first = addresses.split(',').next().unwrap_or_default();
        let (_, port) = first.rsplit_once(':').expect("an address has a port");
        broker.port = port.to_owned();
        broker
    }

    /// Where anybody may connect.
    pub(crate) fn address(&self) -> String {
        read(self.data.path(), "address")
    }

    /// Where one has to log in.
    pub(crate) fn address_for_users(&self) -> String {
        read(self.data.path(), "address.sasl")
    }

    /// Lets a user do something, as Kafka's own tool takes it.
    pub(crate) fn allow(&self, user: &str, what: &[&str]) {
        self.add_rule("--allow-principal", user, what);
    }

    /// Forbids a user what he is allowed else.
    pub(crate) fn deny(&self, user: &str, what: &[&str]) {
        self.add_rule("--deny-principal", user, what);
    }

    fn add_rule(&self, rule: &str, user: &str, what: &[&str]) {
        script()
            .env("KAFKA_BROKERS", self.address())
            .args(["tool", "acls", "--add", rule, &format!("User:{user}")])
            .args(what)
            .succeed();
    }

    /// Starts it at the same addresses again.
    pub(crate) fn run(&self) {
        let owner = std::process::id().to_string();
        let mut arguments = vec!["start", "--port", &self.port, "--for", &owner];
        arguments.extend(self.options.iter().map(String::as_str));
        tell(self.data.path(), &arguments);
    }

    pub(crate) fn stop(&self) {
        tell(self.data.path(), &["stop"]);
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.data.path(), name);
    }

    /// Cuts off the later half of a partition's log, by the name of its folder. The broker does not run, and was killed.
    pub(crate) fn lose_end(&self, partition: &str) {
        let segment = "00000000000000000000.log";
        let path = self.data.path().join("log").join(partition).join(segment);
        let segment = File::options().write(true).open(path);
        let segment = segment.expect("the log has one segment");
        let length = segment.metadata().expect("a file has a length").len();
        assert!(length > 0, "{partition} is empty");
        segment.set_len(length / 2).expect("a file can be cut");
    }

    /// One of several, from 1 on.
    pub(crate) fn node(&self, number: usize) -> Node {
        Node(self.data.path().join(number.to_string()))
    }
}

impl Drop for OwnBroker {
    fn drop(&mut self) {
        tell(self.data.path(), &["stop", "--delete"]);
    }
}

/// One of several brokers.
pub(crate) struct Node(PathBuf);

impl Node {
    /// Starts it at the same address again.
    pub(crate) fn run(&self) {
        tell(&self.0, &["start"]);
    }

    pub(crate) fn stop(&self) {
        tell(&self.0, &["stop"]);
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(&self.0, name);
    }
}

/// Has the script do something with the broker whose data lies here.
fn tell(data: &Path, arguments: &[&str]) {
    script().args(arguments).arg("--data").arg(data).succeed();
}

fn signal(data: &Path, name: &str) {
    let sent = Command::new("kill")
        .args([&format!("-{name}"), &read(data, "pid")])
        .status();
    assert!(sent.expect("kill can be run").success());
}

fn read(data: &Path, file: &str) -> String {
    let content = std::fs::read_to_string(data.join(file));
    let content = content.expect("a broker that runs has left it there");
    content.trim().to_owned()
}

/// Tests run in the folder of their package.
fn script() -> Command {
    Command::new("../scripts/kafka")
}

/// What is to succeed, or to say why not.
trait Succeed {
    fn succeed(&mut self);
}

impl Succeed for Command {
    fn succeed(&mut self) {
        let output = self.output().expect("the script can be run");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
