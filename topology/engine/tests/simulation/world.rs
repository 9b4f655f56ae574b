//! The bank, its customers, and what befalls them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use turnstile_engine::driver::LogRecord;
use turnstile_engine::{Partition, SubtopologyId, TimestampMs, TopologyTestDriver};

use super::bank::{self, Bank};
use super::random::Random;

const PARTITIONS: i32 = 3;
const ACCOUNTS: u64 = 6;
/// What is paid in where an account is opened.
const OPENING: u64 = 1_000;

/// A transfer that somebody asked for.
pub(crate) struct Transfer {
    pub(crate) from: u64,
    command: String,
}

pub(crate) struct World {
    driver: TopologyTestDriver,
    pub(crate) bank: Bank,
    /// By id.
    pub(crate) asked: BTreeMap<String, Transfer>,
}

impl World {
    pub(crate) fn new() -> Self {
        let (topology, bank) = bank::topology();
        let mut driver =
            TopologyTestDriver::new(topology, PARTITIONS).expect("the topology fits its topics");
        for account in 0..ACCOUNTS {
            let command = format!("open a{account} {OPENING}");
            driver.pipe(
                "commands",
                Some(&format!("a{account}")),
                Some(command.as_bytes()),
            );
        }
        Self {
            driver,
            bank,
            asked: BTreeMap::new(),
        }
    }

    /// One of the things that happen.
    pub(crate) fn act(&mut self, random: &mut Random) {
        match random.below(100) {
            0..20 => self.ask_for_transfer(random),
            20..24 => self.repeat_a_command(random),
            24..28 => self.cancel_a_transfer(random),
            28..68 => {
                let choice = usize::try_from(random.below(64)).expect("it is below 64");
                self.driver.step(choice).expect("no command stops a task");
            }
            68..76 => drop(self.driver.fire_due().expect("no timer stops a task")),
            76..78 => self.driver.commit(),
            78..80 => {
                self.driver.finish_commit();
                self.driver.begin_commit();
            }
            80..83 => {
                let subtopology = self.any_subtopology(random);
                self.driver.finish_commit_of(subtopology);
                self.driver.begin_commit_of(subtopology);
            }
            83..85 => self.driver.finish_commit_of(self.any_subtopology(random)),
            85 => self.driver.finish_commit(),
            86..89 => self.driver.abort(),
            89..92 => self.crash(),
            92..98 => self.move_clock(i64::try_from(random.below(80)).expect("it is below 80")),
            98 => self.move_clock(5_000),
            _ => self.move_clock(-300),
        }
    }

    /// Everything is processed, and all timers fire.
    pub(crate) fn finish(&mut self) {
        for _ in 0..3 {
            let advanced = self.driver.advance(Duration::from_secs(3_600));
            advanced.expect("no command or timer stops a task");
        }
    }

    fn any_subtopology(&self, random: &mut Random) -> SubtopologyId {
        let subtopologies = self.driver.plan().tasks().into_iter();
        let subtopologies: BTreeSet<_> = subtopologies.map(|task| task.subtopology).collect();
        let count = u64::try_from(subtopologies.len()).expect("they are few");
        let chosen = usize::try_from(random.below(count)).expect("they are few");
        let chosen = subtopologies.into_iter().nth(chosen);
        chosen.expect("it is below their number")
    }

    fn ask_for_transfer(&mut self, random: &mut Random) {
        let (from, to) = (random.below(ACCOUNTS), random.below(ACCOUNTS));
        let id = format!("t{}", self.asked.len());
        // Now and then more than there is: that is refused.
        let (sum, hold) = (random.below(500), random.below(200));
        let command = format!("transfer a{from} {id} a{to} {sum} {hold}");
        self.say(random, from, &command);
        self.asked.insert(id, Transfer { from, command });
    }

    fn any_transfer(&self, random: &mut Random) -> Option<(String, u64, String)> {
        let count = u64::try_from(self.asked.len()).expect("they are few");
        let chosen = random.below(count.max(1));
        let chosen = usize::try_from(chosen).expect("they are few");
        let (id, transfer) = self.asked.iter().nth(chosen)?;
        Some((id.clone(), transfer.from, transfer.command.clone()))
    }

    fn repeat_a_command(&mut self, random: &mut Random) {
        if let Some((_, from, command)) = self.any_transfer(random) {
            self.say(random, from, &command);
        }
    }

    fn cancel_a_transfer(&mut self, random: &mut Random) {
        if let Some((id, from, _)) = self.any_transfer(random) {
            self.say(random, from, &format!("cancel a{from} {id}"));
        }
    }

    /// Appends a command, often where it does not belong.
    fn say(&mut self, random: &mut Random, from: u64, command: &str) {
        let value = Some(command.as_bytes());
        if random.below(2) == 0 {
            self.driver
                .pipe("commands", Some(&format!("a{from}")), value);
        } else {
            let partition = i32::try_from(random.below(3)).expect("it is below 3");
            self.driver.pipe_to(
                "commands",
                Partition(partition % PARTITIONS),
                None,
                value,
                &[],
            );
        }
    }

    /// What is committed stays as it is.
    fn crash(&mut self) {
        let before = (self.rows(), self.timers());
        self.driver
            .crash_and_restore()
            .expect("changelogs are readable");
        assert_eq!(
            (self.rows(), self.timers()),
            before,
            "a crash changed what is committed"
        );
    }

    fn move_clock(&mut self, ms: i64) {
        let TimestampMs(now) = self.driver.now();
        self.driver.set_now(TimestampMs(now + ms));
    }

    fn rows(&self) -> Vec<(String, String)> {
        let numbers = [self.bank.balances, self.bank.received, self.bank.books]
            .into_iter()
            .flat_map(|store| self.driver.entries(store))
            .map(|(key, number)| (key, number.to_string()));
        numbers
            .chain(self.driver.entries(self.bank.holds))
            .collect()
    }

    pub(crate) fn total_balance(&self) -> u64 {
        self.driver
            .entries(self.bank.balances)
            .iter()
            .map(|(_, sum)| sum)
            .sum()
    }

    pub(crate) fn total_received(&self) -> u64 {
        self.driver
            .entries(self.bank.received)
            .iter()
            .map(|(_, sum)| sum)
            .sum()
    }

    /// What has been paid in from outside.
    pub(crate) fn total_opened(&self) -> u64 {
        let seen = self.driver.entries(self.bank.seen);
        let opened = seen.iter().filter(|(id, ())| id.starts_with("open-"));
        opened.map(|_| OPENING).sum()
    }

    /// The pending holds: transfer, amount, deadline.
    pub(crate) fn holds(&self) -> Vec<(String, u64, i64)> {
        let holds = self.driver.entries(self.bank.holds).into_iter();
        holds
            .map(|(id, row)| (id, number(&row, 1), signed(&row, 3)))
            .collect()
    }

    /// The pending timers: transfer, deadline.
    pub(crate) fn timers(&self) -> Vec<(String, i64)> {
        let timers = self.driver.timers("debit").into_iter();
        timers.map(|(deadline, id)| (id, deadline.0)).collect()
    }

    /// The credits on their way or there: transfer, amount, deadline, time.
    pub(crate) fn credits(&self) -> Vec<(String, u64, i64, i64)> {
        let credits = self
            .driver
            .all(&self.driver.internal("credits-repartition"));
        let of = |record: &LogRecord| {
            let text = record.value_text();
            (
                word(&text, 1),
                number(&text, 2),
                signed(&text, 3),
                record.timestamp.0,
            )
        };
        credits.iter().map(of).collect()
    }

    /// How often the outcome of each transfer is in the books.
    pub(crate) fn books(&self) -> Vec<(String, u64)> {
        self.driver.entries(self.bank.books)
    }

    /// How often the outcome of each transfer was told.
    pub(crate) fn told(&self) -> BTreeMap<String, u64> {
        let mut told = BTreeMap::new();
        for record in self.driver.all("outcomes") {
            *told.entry(word(&record.value_text(), 0)).or_default() += 1;
        }
        told
    }

    /// How transfers ended: `paid`, `cancelled`, or `refused`.
    pub(crate) fn outcomes(&self) -> Vec<(String, String)> {
        let outcomes = self.driver.all("outcomes");
        let ended = outcomes.iter().map(|record| {
            let text = record.value_text();
            (word(&text, 0), word(&text, 1))
        });
        let letters = self.driver.all(&self.driver.internal("dlq"));
        let refused = letters.iter().map(|letter| {
            let kind = letter.header("__streams.errors.exception");
            (word(&letter.value_text(), 2), kind.unwrap_or_default())
        });
        ended.chain(refused).collect()
    }
}

fn word(text: &str, index: usize) -> String {
    text.split(' ').nth(index).unwrap_or_default().to_owned()
}

fn number(text: &str, index: usize) -> u64 {
    word(text, index)
        .parse()
        .expect("the bank writes numbers there")
}

fn signed(text: &str, index: usize) -> i64 {
    word(text, index)
        .parse()
        .expect("the bank writes numbers there")
}
