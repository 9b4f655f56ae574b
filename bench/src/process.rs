//! What a process has used so far, according to `/proc` on Linux.

use std::fs;

use crate::Outcome;

/// Ticks per second in `/proc/<pid>/stat`: 100 on every Linux, whatever the kernel's own rate.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time and memory of one process, without its children.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// In user and kernel mode, all threads.
    pub(crate) cpu_seconds: f64,
    /// Resident now, in MiB.
    pub(crate) rss_mb: f64,
}

impl Usage {
    /// The usage of a running process.
    pub(crate) fn of(pid: u32) -> Outcome<Self> {
        Self::parse(
            &fs::read_to_string(format!("/proc/{pid}/stat"))?,
            &fs::read_to_string(format!("/proc/{pid}/status"))?,
        )
        .ok_or_else(|| format!("/proc/{pid} is not as Linux writes it").into())
    }

    /// The usage of this process.
    pub(crate) fn own() -> Outcome<Self> {
        Self::of(std::process::id())
    }

    fn parse(stat: &str, status: &str) -> Option<Self> {
        // The name in brackets may contain anything, including spaces and brackets.
        let (_, fields) = stat.rsplit_once(')')?;
        let mut ticks = fields.split_whitespace().skip(11);
        let user: f64 = ticks.next()?.parse().ok()?;
        let kernel: f64 = ticks.next()?.parse().ok()?;
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: f64 = resident.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(Self {
            cpu_seconds: (user + kernel) / TICKS_PER_SECOND,
            rss_mb: kib / 1024.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_brackets_moves_no_field() {
        let stat = "17 (rdk:b) 9 9 (x) S 1 17 17 0 -1 4194560 900 0 0 0 250 50 0 0 20 0 9 0 1 2 3";
        let status = "Name:\tx\nVmPeak:\t 9000 kB\nVmRSS:\t    2048 kB\n";
        let usage = Usage::parse(stat, status).unwrap();
        assert!((usage.cpu_seconds - 3.0).abs() < 1e-9);
        assert!((usage.rss_mb - 2.0).abs() < 1e-9);
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(Usage::own().unwrap().rss_mb > 0.0);
    }
}
