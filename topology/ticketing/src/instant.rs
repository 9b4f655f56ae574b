//! Times on the wire: ISO-8601, UTC, milliseconds, as JavaScript's `toISOString` writes them.

use chrono::{DateTime, SecondsFormat};
use turnstile_engine::TimestampMs;

/// The last millisecond of the year 9999: what four digits can say.
const LATEST: TimestampMs = TimestampMs(253_402_300_799_999);
/// The first millisecond of the year 0.
const EARLIEST: TimestampMs = TimestampMs(-62_167_219_200_000);

/// `2026-01-31T09:30:00.000Z`. A time beyond the years that four digits can say is
/// written as the nearest that they can.
#[must_use]
pub fn iso8601(time: TimestampMs) -> String {
    let TimestampMs(within) = time.clamp(EARLIEST, LATEST);
    let time = DateTime::from_timestamp_millis(within);
    let time = time.expect("years 0 to 9999 are within the calendar");
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// The time that `text` says, with `Z` or any other offset; fractions of a
/// millisecond are rounded up, so that nothing that waits for it comes early.
pub(crate) fn parse_iso8601(text: &str) -> Option<TimestampMs> {
    let time = DateTime::parse_from_rfc3339(text).ok()?;
    let rest = i64::from(time.timestamp_subsec_nanos() % 1_000_000 > 0);
    Some(TimestampMs(time.timestamp_millis().checked_add(rest)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc_and_read_with_any_offset() {
        let time = TimestampMs(1_769_851_800_007);
        assert_eq!(iso8601(time), "2026-01-31T09:30:00.007Z");
        for text in [
            "2026-01-31T09:30:00.007Z",
            "2026-01-31T10:30:00.007+01:00",
            "2026-01-31T09:30:00.0061Z",
        ] {
            assert_eq!(parse_iso8601(text), Some(time), "{text}");
        }
        for bad in [
            "",
            "2026-01-31",
            "tomorrow",
            "2026-02-31T09:30:00Z",
            "1769851800007",
        ] {
            assert_eq!(parse_iso8601(bad), None, "{bad}");
        }
    }

    #[test]
    fn no_time_is_beyond_writing() {
        assert_eq!(iso8601(TimestampMs(i64::MAX)), "9999-12-31T23:59:59.999Z");
        assert_eq!(iso8601(TimestampMs(i64::MIN)), "0000-01-01T00:00:00.000Z");
    }
}
