//! A bank as a topology of three subtopologies.
//!
//! - `debit`, by the account that pays: opens accounts, holds the amount of a transfer
//!   back for a while under a timer, then sends the credit; a transfer that is
//!   cancelled in time is paid back.
//! - `credit`, by the account that receives, behind the repartition topic `credits`.
//! - `books`, by transfer, reads the outcomes as anybody can, so it commits apart from the others.
//!
//! Commands come at least once and into any partition. Whether a transfer was seen
//! before is decided by a row. Each ends in one outcome.
//!
//! | text | |
//! |---|---|
//! | `open ACCOUNT AMOUNT` | a deposit from outside, each once |
//! | `transfer FROM ID TO AMOUNT HOLD_MS` | |
//! | `cancel FROM ID` | |

use std::sync::Arc;
use std::time::Duration;

use turnstile_engine::{
    Context, DecodeError, Decoded, Encode, InputRecord, Processor, ProcessorError, Sink, Source,
    Store, Timer, Topology, TopologyBuilder,
};

/// Words parted by blanks.
#[derive(Clone)]
pub(crate) struct Text(pub(crate) String);

impl Encode for Text {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0.as_bytes());
    }
}

fn decode(record: &InputRecord<'_>) -> Result<Decoded<Text>, DecodeError> {
    let text = record
        .value
        .and_then(|value| std::str::from_utf8(value).ok());
    text.map(|text| Decoded::Message(Text(text.to_owned())))
        .ok_or_else(|| DecodeError {
            kind: "not-text",
            message: "a command is text".to_owned(),
        })
}

/// The stores and the sink of outcomes.
#[derive(Clone, Copy)]
pub(crate) struct Bank {
    /// What an account can pay from.
    pub(crate) balances: Store<String, u64>,
    /// By transfer: `TO AMOUNT FROM DEADLINE`.
    pub(crate) holds: Store<String, String>,
    /// Commands that were seen.
    pub(crate) seen: Store<String, ()>,
    /// What an account has received.
    pub(crate) received: Store<String, u64>,
    pub(crate) outcomes: Sink<Text>,
    /// How often the outcome of a transfer was entered.
    pub(crate) books: Store<String, u64>,
}

struct Debit {
    bank: Bank,
    credits: Sink<Text>,
}

fn malformed(text: &str) -> ProcessorError {
    ProcessorError::rejected("malformed", text)
}

fn amount(text: &str) -> Result<u64, ProcessorError> {
    text.parse().map_err(|_| malformed(text))
}

impl Debit {
    fn seen_before(&self, context: &mut Context<'_>, id: &str) -> Result<bool, ProcessorError> {
        let id = id.to_owned();
        let before = context.get(self.bank.seen, &id)?.is_some();
        context.put(self.bank.seen, &id, &())?;
        Ok(before)
    }

    fn pay_in(
        &self,
        context: &mut Context<'_>,
        account: &str,
        sum: u64,
    ) -> Result<(), ProcessorError> {
        let account = account.to_owned();
        let balance = context.get(self.bank.balances, &account)?.unwrap_or(0);
        context.put(self.bank.balances, &account, &(balance + sum))
    }

    fn end(
        &self,
        context: &mut Context<'_>,
        id: &str,
        outcome: &str,
    ) -> Result<(), ProcessorError> {
        context.send(self.bank.outcomes, id, &Text(format!("{id} {outcome}")))
    }

    fn transfer(
        &self,
        context: &mut Context<'_>,
        [from, id, to, sum, hold]: [&str; 5],
    ) -> Result<(), ProcessorError> {
        if self.seen_before(context, id)? {
            return Ok(());
        }
        let account = from.to_owned();
        let sum = amount(sum)?;
        let balance = context.get(self.bank.balances, &account)?.unwrap_or(0);
        // Written before it is known whether it stands: a rejection has to undo it.
        context.put(self.bank.balances, &account, &balance.wrapping_sub(sum))?;
        let deadline = context.now().plus(Duration::from_millis(amount(hold)?));
        context.schedule(id.as_bytes(), deadline)?;
        let row = format!("{to} {sum} {from} {deadline}");
        context.put(self.bank.holds, &id.to_owned(), &row)?;
        if balance < sum {
            return Err(ProcessorError::rejected("refused", id));
        }
        Ok(())
    }

    fn cancel(&self, context: &mut Context<'_>, id: &str) -> Result<(), ProcessorError> {
        let Some(hold) = context.get(self.bank.holds, &id.to_owned())? else {
            return Ok(());
        };
        let words: Vec<&str> = hold.split(' ').collect();
        let [_, sum, from, _] = words.as_slice() else {
            return Err(malformed(&hold));
        };
        context.delete(self.bank.holds, &id.to_owned())?;
        context.cancel(id.as_bytes())?;
        self.pay_in(context, from, amount(sum)?)?;
        self.end(context, id, "cancelled")
    }
}

impl Processor for Debit {
    type In = Text;

    fn process(&mut self, context: &mut Context<'_>, text: Text) -> Result<(), ProcessorError> {
        let words: Vec<&str> = text.0.split(' ').collect();
        match words.as_slice() {
            ["open", account, sum] => {
                if self.seen_before(context, &format!("open-{account}"))? {
                    return Ok(());
                }
                self.pay_in(context, account, amount(sum)?)
            }
            ["transfer", from, id, to, sum, hold] => {
                self.transfer(context, [from, id, to, sum, hold])
            }
            ["cancel", _, id] => self.cancel(context, id),
            _ => Err(malformed(&text.0)),
        }
    }

    fn on_timer(&mut self, context: &mut Context<'_>, timer: Timer) -> Result<(), ProcessorError> {
        let id = String::from_utf8_lossy(&timer.key).into_owned();
        let hold = context.get(self.bank.holds, &id)?;
        let hold = hold.ok_or_else(|| malformed("a timer without a hold"))?;
        let words: Vec<&str> = hold.split(' ').collect();
        let [to, sum, _, deadline] = words.as_slice() else {
            return Err(malformed(&hold));
        };
        context.delete(self.bank.holds, &id)?;
        // When it was to be, and the record's time says when it was.
        let credit = Text(format!("{to} {id} {sum} {deadline}"));
        context.send(self.credits, to, &credit)?;
        self.end(context, &id, "paid")
    }
}

struct Credit(Store<String, u64>);

impl Processor for Credit {
    type In = Text;

    fn process(&mut self, context: &mut Context<'_>, text: Text) -> Result<(), ProcessorError> {
        let words: Vec<&str> = text.0.split(' ').collect();
        let [to, _, sum, _] = words.as_slice() else {
            return Err(malformed(&text.0));
        };
        let account = (*to).to_owned();
        let before = context.get(self.0, &account)?.unwrap_or(0);
        context.put(self.0, &account, &(before + amount(sum)?))
    }
}

struct Books(Store<String, u64>);

impl Processor for Books {
    type In = Text;

    fn process(&mut self, context: &mut Context<'_>, text: Text) -> Result<(), ProcessorError> {
        let (id, _) = text.0.split_once(' ').ok_or_else(|| malformed(&text.0))?;
        let id = id.to_owned();
        let before = context.get(self.0, &id)?.unwrap_or(0);
        context.put(self.0, &id, &(before + 1))
    }
}

pub(crate) fn topology() -> (Arc<Topology>, Bank) {
    let mut builder = TopologyBuilder::new();
    let commands = builder.source(Source::new("commands", "debits", decode).keyed_by(
        "commands-by-account",
        |text: &Text| {
            let account = text.0.split(' ').nth(1).unwrap_or_default();
            account.as_bytes().to_vec()
        },
    ));
    let (credits, credited) = builder.repartition("credits", "credits", decode);
    let bank = Bank {
        balances: builder.store("balances"),
        holds: builder.store("holds"),
        seen: builder.store("seen"),
        received: builder.store("received"),
        outcomes: builder.sink("outcomes"),
        books: builder.store("books"),
    };
    let ended = builder.source(Source::new("outcomes", "books", decode));
    builder
        .processor("debit", move || Debit { bank, credits })
        .input(commands)
        .store(bank.balances)
        .store(bank.holds)
        .store(bank.seen)
        .sink(credits)
        .sink(bank.outcomes)
        .timers()
        .done();
    builder
        .processor("credit", move || Credit(bank.received))
        .input(credited)
        .store(bank.received)
        .done();
    builder
        .processor("books", move || Books(bank.books))
        .input(ended)
        .store(bank.books)
        .done();
    (
        Arc::new(builder.build().expect("the topology is sound")),
        bank,
    )
}
