//! The demo: buyers race for tickets, and nobody gets what somebody else has.
//!
//! 1. A seller creates tickets.
//! 2. All buyers ask for each of them at once; one wins. In turn, a winner pays, is
//!    declined, or lets the order expire.
//! 3. Tickets that are free again are raced for again, until each is paid.
//! 4. Every order and every ticket is read back, and judged from outside.
//!
//! It is a client like any other: all that it knows comes from HTTP answers.

mod client;
mod proof;
mod race;
mod tally;

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table};
use thiserror::Error;

use client::Client;
use proof::Violation;
use race::Race;
use tally::Tally;

/// What is to be played.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// A running instance.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub url: String,
    /// How many tickets there are.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub tickets: u32,
    /// How many buyers want each of them.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub buyers: u32,
    /// How many requests are under way at once.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub concurrency: u32,
    /// How long to wait for an order to expire; longer than the instance's ORDER_TTL.
    #[arg(long, default_value = "5m", value_parser = humantime::parse_duration)]
    pub patience: Duration,
    /// Signs bearer tokens with this key, instead of sending X-User-Id.
    #[arg(long, env = "JWT_KEY", hide_env_values = true)]
    pub jwt_key: Option<String>,
}

/// Why the demo did not get to its end.
#[derive(Debug, Error)]
pub enum DemoError {
    /// There was no answer.
    #[error("{method} {url} got no answer")]
    NoAnswer {
        /// The method.
        method: &'static str,
        /// The address.
        url: String,
        /// Why not.
        #[source]
        source: reqwest::Error,
    },
    /// The answer was not an expected one.
    #[error("{what} was answered {status}: {body}")]
    UnexpectedAnswer {
        /// What was asked.
        what: &'static str,
        /// The HTTP status.
        status: u16,
        /// The answer.
        body: String,
    },
    /// Something did not happen in time.
    #[error("{what} did not happen within {}", humantime::format_duration(*.waited))]
    TooLate {
        /// What did not happen.
        what: String,
        /// How long the demo waited for it.
        waited: Duration,
    },
    /// Bearer tokens cannot be made.
    #[error("bearer tokens cannot be made with this key")]
    Token(#[from] jsonwebtoken::errors::Error),
    /// A part of the demo panicked.
    #[error("a part of the demo panicked")]
    Panicked(#[from] tokio::task::JoinError),
}

/// Plays the demo; the exit code is 0 if no ticket was sold twice and all went as it should.
///
/// # Errors
///
/// When it does not get to its end.
pub async fn run(args: DemoArgs) -> Result<u8, DemoError> {
    println!(
        "{} buyers race for {} tickets at {}",
        args.buyers, args.tickets, args.url
    );
    let tally = Arc::new(Tally::default());
    // An empty variable counts as not set.
    let key = args.jwt_key.as_deref().filter(|key| !key.is_empty());
    let client = Client::new(&args.url, key)?;
    let race = Race::new(client, tally.clone(), args);
    let played = tally::shown_while(&tally, race.play()).await?;
    let violations = proof::violations(&played);
    println!("{}", table(&tally, &played));
    Ok(verdict(&played, &violations))
}

fn table(tally: &Tally, played: &race::Played) -> Table {
    let mut table = Table::new();
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(["what happened", "how often"]);
    let (typical, slowest) = tally.answer_times();
    let count = |status: &str| {
        played
            .orders
            .iter()
            .filter(|order| order.status == status)
            .count()
    };
    let rows = [
        ("tickets created", played.tickets.len().to_string()),
        ("orders asked for", tally.asked().to_string()),
        ("  won the ticket", tally.won().to_string()),
        ("  came too late (409)", tally.lost().to_string()),
        (
            "  asked again after 503 or 504",
            tally.repeated().to_string(),
        ),
        ("orders paid", count("completed").to_string()),
        ("orders declined", count("failed").to_string()),
        ("orders expired", count("cancelled").to_string()),
        (
            "answer to an order, median",
            format!("{} ms", typical.as_millis()),
        ),
        (
            "answer to an order, 99 of 100",
            format!("{} ms", slowest.as_millis()),
        ),
    ];
    for (what, often) in rows {
        table.add_row([
            Cell::new(what),
            Cell::new(often).set_alignment(CellAlignment::Right),
        ]);
    }
    table
}

fn verdict(played: &race::Played, violations: &[Violation]) -> u8 {
    if violations.is_empty() {
        println!(
            "No ticket was sold twice: {} orders for {} tickets were read back, and each ticket \
             has exactly one order that holds it, the one that the ticket itself names.",
            played.orders.len(),
            played.tickets.len(),
        );
        return 0;
    }
    for violation in violations {
        println!("WRONG: {violation}");
    }
    1
}
