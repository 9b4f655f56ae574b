//! Whether the others can ask this instance for the rows that it has.
//!
//! Without an address they cannot: they answer 503 for its keys. It is not ready then, so that
//! somebody notices. If none has an address, the first one by instance id stays ready, because
//! if none were, nothing would be answered at all.

use turnstile_engine::runtime::{InstanceMetadata, InstancePhase, InstanceStatus};

/// What is wrong, for humans, if any of the instances that are `alive` needs an address of `own`.
fn missing(own: &str, alive: &[InstanceMetadata]) -> Option<String> {
    let mut others = alive
        .iter()
        .filter(|of| of.instance != own && of.phase != InstancePhase::Stopped);
    let other = others.find(|of| of.address.is_some() || *of.instance < *own)?;
    Some(format!(
        "instance {} cannot reach this one, and answers 503 for its keys: set ADVERTISED_ADDR to a host:port at which the others can",
        other.instance
    ))
}

/// The status of the instance `own`, which has no address, among all that are alive.
pub(super) fn checked(
    mut status: InstanceStatus,
    own: &str,
    alive: &[InstanceMetadata],
) -> InstanceStatus {
    if let Some(problem) = missing(own, alive) {
        status.ready = false;
        status.problems.push(problem);
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(name: &str, address: Option<&str>) -> InstanceMetadata {
        InstanceMetadata {
            instance: name.to_owned(),
            address: address.map(str::to_owned),
            phase: InstancePhase::Running,
            heard_ms_ago: 0,
            tasks: Vec::new(),
            standbys: Vec::new(),
            fits: true,
        }
    }

    #[test]
    fn an_instance_that_others_cannot_reach_is_not_ready() {
        let is_ready = |own: &str, alive: &[InstanceMetadata]| {
            let status = InstanceStatus {
                ready: true,
                problems: Vec::new(),
                tasks: Vec::new(),
            };
            let status = checked(status, own, alive);
            assert_eq!(status.ready, status.problems.is_empty());
            status.ready
        };
        let at = |name| instance(name, Some("host:1"));
        let nowhere = |name| instance(name, None);
        assert!(is_ready("a", &[nowhere("a")]));
        assert!(is_ready("a", &[]));
        assert!(!is_ready("b", &[at("a"), nowhere("b")]));
        assert!(!is_ready("a", &[nowhere("a"), at("b")]));
        // Of several, one stays ready.
        let all = [nowhere("a"), nowhere("b"), nowhere("c")];
        let ready = ["a", "b", "c"].map(|own| is_ready(own, &all));
        assert_eq!(ready, [true, false, false]);
        // One that has stopped asks nobody.
        let stopped = InstanceMetadata {
            phase: InstancePhase::Stopped,
            ..at("b")
        };
        assert!(is_ready("a", &[nowhere("a"), stopped]));
    }
}
