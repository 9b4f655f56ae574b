//! The checker and the load generator from outside, where the environment names them.

use std::process::Command;

use crate::broker::Broker;

/// A program of the environment, ready for its arguments. Its path may have spaces.
fn command(variable: &str) -> Option<Command> {
    let program = std::env::var_os(variable)?;
    (!program.is_empty()).then(|| Command::new(program))
}

/// Has `TURNSTILE_CHECK` check the topics; says so where there is none.
pub(crate) fn check(broker: &Broker, arguments: &[&str]) {
    let Some(mut check) = command("TURNSTILE_CHECK") else {
        println!("TURNSTILE_CHECK is not set: only the own checks are made");
        return;
    };
    check
        .args(["--brokers", broker.addresses()])
        .args(arguments);
    run(check);
}

/// Has `TURNSTILE_LOAD` send commands; false where there is none.
pub(crate) fn load(addresses: &str, arguments: &[&str]) -> bool {
    let Some(mut load) = command("TURNSTILE_LOAD") else {
        println!("TURNSTILE_LOAD is not set: only the own load is sent");
        return false;
    };
    load.args(arguments).args(["--brokers", addresses]);
    run(load);
    true
}

fn run(mut command: Command) {
    let output = command.output().expect("the command can be run");
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{}", said.trim_end());
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {complained}");
}
