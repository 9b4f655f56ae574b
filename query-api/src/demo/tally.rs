//! What has happened so far, and the line on the terminal that says so.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::time::interval;

/// How often the line is rewritten on a terminal.
const IN_PLACE: Duration = Duration::from_millis(100);

/// How often a line is printed elsewhere.
const LINE_BY_LINE: Duration = Duration::from_secs(2);

/// Counts of what has happened.
#[derive(Default)]
pub(super) struct Tally {
    tickets: AtomicUsize,
    won: AtomicUsize,
    lost: AtomicUsize,
    repeated: AtomicUsize,
    paid: AtomicUsize,
    declined: AtomicUsize,
    expired: AtomicUsize,
    answers: Mutex<Vec<Duration>>,
}

impl Tally {
    pub(super) fn ticket_created(&self) {
        self.tickets.fetch_add(1, Relaxed);
    }

    /// An order was requested, and won its ticket or did not.
    pub(super) fn order_answered(&self, won: bool, took: Duration, repeats: u32) {
        if won { &self.won } else { &self.lost }.fetch_add(1, Relaxed);
        self.repeated
            .fetch_add(usize::try_from(repeats).unwrap_or(usize::MAX), Relaxed);
        self.answers.lock().push(took);
    }

    pub(super) fn order_paid(&self) {
        self.paid.fetch_add(1, Relaxed);
    }

    pub(super) fn order_declined(&self) {
        self.declined.fetch_add(1, Relaxed);
    }

    pub(super) fn order_expired(&self) {
        self.expired.fetch_add(1, Relaxed);
    }

    pub(super) fn won(&self) -> usize {
        self.won.load(Relaxed)
    }

    pub(super) fn lost(&self) -> usize {
        self.lost.load(Relaxed)
    }

    pub(super) fn asked(&self) -> usize {
        self.won() + self.lost()
    }

    pub(super) fn repeated(&self) -> usize {
        self.repeated.load(Relaxed)
    }

    /// How long buyers waited for an order: the median and the 99th percentile.
    pub(super) fn answer_times(&self) -> (Duration, Duration) {
        let mut times = self.answers.lock().clone();
        times.sort_unstable();
        let at = |percent: usize| {
            times
                .get(times.len() * percent / 100)
                .copied()
                .unwrap_or_default()
        };
        (at(50), at(99))
    }

    fn line(&self, begun: Instant) -> String {
        format!(
            "{:>5.1} s   {} tickets   {} asked: {} won, {} too late   {} paid, {} declined, {} expired",
            begun.elapsed().as_secs_f32(),
            self.tickets.load(Relaxed),
            self.asked(),
            self.won(),
            self.lost(),
            self.paid.load(Relaxed),
            self.declined.load(Relaxed),
            self.expired.load(Relaxed),
        )
    }
}

/// Shows `tally` until `work` is done: in place on a terminal, otherwise a line now and then.
pub(super) async fn shown_while<T>(tally: &Tally, work: impl Future<Output = T>) -> T {
    let in_place = io::stdout().is_terminal();
    let begun = Instant::now();
    let mut ticks = interval(if in_place { IN_PLACE } else { LINE_BY_LINE });
    tokio::pin!(work);
    let result = loop {
        tokio::select! {
            result = &mut work => break result,
            _ = ticks.tick() => write_line(&tally.line(begun), in_place, false),
        }
    };
    write_line(&tally.line(begun), in_place, true);
    result
}

fn write_line(line: &str, in_place: bool, last: bool) {
    let mut out = io::stdout().lock();
    let written = match (in_place, last) {
        (true, false) => write!(out, "\r\x1b[2K{line}").and_then(|()| out.flush()),
        (true, true) => writeln!(out, "\r\x1b[2K{line}"),
        (false, _) => writeln!(out, "{line}"),
    };
    if written.is_err() {
        // Nobody is looking any more; the demo goes on for its exit code.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_half_and_of_nearly_all() {
        let tally = Tally::default();
        assert_eq!(tally.answer_times(), (Duration::ZERO, Duration::ZERO));
        for millis in (1..=100).rev() {
            tally.order_answered(millis == 1, Duration::from_millis(millis), 0);
        }
        assert_eq!(
            tally.answer_times(),
            (Duration::from_millis(51), Duration::from_millis(100))
        );
        assert_eq!((tally.won(), tally.lost(), tally.asked()), (1, 99, 100));
    }
}
