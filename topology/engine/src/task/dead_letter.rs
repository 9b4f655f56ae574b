//! Dead letters: records that could not be processed, with where they came from.

use crate::Partition;
use crate::record::{DeadLetter, Header, OutputRecord};
use crate::topology::SubtopologyPlan;

/// The record, key and value unchanged, with headers that say what happened to it.
pub(super) fn of(plan: &SubtopologyPlan, letter: DeadLetter) -> OutputRecord {
    let header = |name: &str, value: String| -> Header {
        (format!("__streams.errors.{name}"), Some(value.into_bytes()))
    };
    let DeadLetter {
        origin,
        key,
        value,
        mut headers,
        timestamp,
        kind,
        message,
    } = letter;
    headers.extend([
        header("topic", origin.topic.to_string()),
        header("partition", origin.partition.to_string()),
        header("offset", origin.offset.to_string()),
        header("exception", kind.to_owned()),
        header("message", message),
    ]);
    let partition = Partition(origin.partition.0 % plan.dead_letter_partitions);
    OutputRecord {
        topic: plan.dead_letters.clone(),
        partition,
        key,
        value,
        headers,
        timestamp,
    }
}
