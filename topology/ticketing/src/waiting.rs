//! Commands that wait, for a bounded time, for what they are about.
//!
//! A command and the event that makes it possible come through different topics, so
//! a command can overtake an event whose effect its sender has already seen. It then
//! waits for the event; what has not come by the deadline does not exist.
//!
//! Each attempt at a command waits by itself, and is answered when its own time is over. But
//! together they take one place of those there are: who tries again keeps nobody else out.

use std::collections::HashSet;

use turnstile_engine::TimestampMs;

use crate::commands::Command;
use crate::outcome::MAX_ATTEMPTS;
use crate::row::{Row, RowReader};

/// The most commands that wait for one ticket or order, however many attempts there are at each.
const MAX_WAITING: usize = 64;

/// An attempt at a command and how long it may wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WaitingCommand<B> {
    command: Command<B>,
    until: TimestampMs,
}

/// The commands that wait for one ticket or order, in order of arrival.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting<B> {
    commands: Vec<WaitingCommand<B>>,
}

impl<B: PartialEq> Waiting<B> {
    pub(crate) fn none() -> Self {
        Self {
            commands: Vec::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// Lets `command` wait too, unless too many others do; if it waits already, it keeps waiting.
    pub(crate) fn add(&mut self, command: &Command<B>, until: TimestampMs) -> bool
    where
        B: Clone,
    {
        if self
            .commands
            .iter()
            .any(|waiting| waiting.command == *command)
        {
            return true;
        }
        let waits = self.commands.iter().enumerate();
        let attempts = waits.filter(|(_, waiting)| waiting.command.id == command.id);
        let attempts: Vec<usize> = attempts.map(|(place, _)| place).collect();
        match attempts.as_slice() {
            [] if self.places() >= MAX_WAITING => return false,
            // As in an outcome, the latest attempts count; but the first one holds the place in
            // the order of arrival.
            [_, oldest, ..] if attempts.len() >= MAX_ATTEMPTS => {
                self.commands.remove(*oldest);
            }
            _ => {}
        }
        self.commands.push(WaitingCommand {
            command: command.clone(),
            until,
        });
        true
    }

    fn places(&self) -> usize {
        let ids = self.commands.iter().map(|waiting| &waiting.command.id);
        ids.collect::<HashSet<_>>().len()
    }

    /// All of them: what they wait for has come.
    pub(crate) fn into_commands(self) -> impl Iterator<Item = Command<B>> {
        self.commands.into_iter().map(|waiting| waiting.command)
    }

    /// Those that have waited long enough; the others go on waiting.
    pub(crate) fn take_due(&mut self, now: TimestampMs) -> Vec<Command<B>> {
        let due = self.commands.extract_if(.., |waiting| waiting.until <= now);
        due.map(|waiting| waiting.command).collect()
    }

    /// When the next one has waited long enough.
    pub(crate) fn next_deadline(&self) -> Option<TimestampMs> {
        self.commands.iter().map(|waiting| waiting.until).min()
    }
}

impl<B: Row> Row for WaitingCommand<B> {
    fn write(&self, out: &mut Vec<u8>) {
        self.command.write(out);
        self.until.write(out);
    }

    fn read(from: &mut RowReader<'_>) -> Result<Self, turnstile_engine::CodecError> {
        Ok(Self {
            command: Row::read(from)?,
            until: Row::read(from)?,
        })
    }
}

impl<B: Row> Row for Waiting<B> {
    fn write(&self, out: &mut Vec<u8>) {
        self.commands.write(out);
    }

    fn read(from: &mut RowReader<'_>) -> Result<Self, turnstile_engine::CodecError> {
        Ok(Self {
            commands: Row::read(from)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{AttemptId, CommandId};

    fn command(id: usize) -> Command<u64> {
        Command {
            id: CommandId::new(id.to_string()).unwrap(),
            attempt: None,
            body: 7,
        }
    }

    fn attempt(id: usize, attempt: usize) -> Command<u64> {
        Command {
            attempt: Some(AttemptId::new(attempt.to_string()).unwrap()),
            ..command(id)
        }
    }

    #[test]
    fn each_waits_its_own_time_and_only_so_many_wait() {
        let mut waiting = Waiting::none();
        assert!(waiting.add(&command(0), TimestampMs(20)));
        assert!(waiting.add(&command(1), TimestampMs(10)));
        assert!(waiting.add(&command(0), TimestampMs(99)));
        assert_eq!(waiting.next_deadline(), Some(TimestampMs(10)));
        assert_eq!(waiting.take_due(TimestampMs(19)), [command(1)]);
        assert_eq!(waiting.next_deadline(), Some(TimestampMs(20)));
        for id in 1..64 {
            assert!(waiting.add(&command(id), TimestampMs(30)));
        }
        assert!(!waiting.add(&command(64), TimestampMs(30)));
        assert_eq!(waiting.into_commands().count(), 64);
    }

    #[test]
    fn the_attempts_at_a_command_take_one_place_and_each_waits_its_own_time() {
        let mut waiting = Waiting::none();
        for number in 0..100 {
            assert!(waiting.add(&attempt(0, number), TimestampMs(10)));
        }
        for id in 1..64 {
            assert!(waiting.add(&command(id), TimestampMs(20)));
        }
        assert!(!waiting.add(&command(64), TimestampMs(20)));
        assert!(waiting.add(&attempt(0, 100), TimestampMs(30)));
        let other_body = Command {
            body: 8,
            ..attempt(0, 101)
        };
        assert!(waiting.add(&other_body, TimestampMs(30)));
        let first = std::iter::once(0);
        let due: Vec<_> = first.chain(87..100).map(|n| attempt(0, n)).collect();
        assert_eq!(waiting.take_due(TimestampMs(10)), due);
        assert_eq!(waiting.take_due(TimestampMs(20)).len(), 63);
        let left: Vec<_> = waiting.into_commands().collect();
        assert_eq!(left, [attempt(0, 100), other_body]);
    }
}
