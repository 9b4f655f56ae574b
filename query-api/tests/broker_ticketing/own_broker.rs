//! A broker of one test, which may be stopped, paused and asked for a password.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

/// Where it begins to look for a free port.
const PORT: &str = "29092";

/// A broker of a test, which ends with this process at the latest.
pub(crate) struct OwnBroker {
    data: TempDir,
    port: String,
    /// Who may log in, where anybody has to: `NAME:PASSWORD`.
    user: Option<String>,
}

impl OwnBroker {
    pub(crate) fn start() -> Self {
        Self::with_user(None)
    }

    /// One with a second address, for clients that log in as this user.
    pub(crate) fn for_user(name_and_password: &str) -> Self {
        Self::with_user(Some(name_and_password.to_owned()))
    }

    fn with_user(user: Option<String>) -> Self {
        let data = TempDir::new().expect("a temporary folder can be made");
        let mut broker = Self {
            data,
            port: PORT.to_owned(),
            user,
        };
        broker.run();
        let address = broker.address();
        let (_, port) = address.rsplit_once(':').expect("an address has a port");
        broker.port = port.to_owned();
        broker
    }

    /// Where anybody may connect.
    pub(crate) fn address(&self) -> String {
        self.read("address")
    }

    /// Where one has to log in.
    pub(crate) fn address_for_users(&self) -> String {
        self.read("address.sasl")
    }

    fn read(&self, file: &str) -> String {
        let content = std::fs::read_to_string(self.data.path().join(file));
        let content = content.expect("a broker that runs has left it there");
        content.trim().to_owned()
    }

    fn script(&self, arguments: &[&str]) {
        script()
            .args(arguments)
            .arg("--data")
            .arg(self.data.path())
            .succeed();
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
        arguments.extend(self.user.iter().flat_map(|user| ["--user", user.as_str()]));
        self.script(&arguments);
    }

    pub(crate) fn stop(&self) {
        self.script(&["stop"]);
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &self.read("pid")])
            .status();
        assert!(sent.expect("kill can be run").success());
    }
}

fn script() -> Command {
    Command::new(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../scripts/kafka"))
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

impl Drop for OwnBroker {
    fn drop(&mut self) {
        self.stop();
    }
}
