//! Times on the wire: ISO-8601, UTC, milliseconds, as JavaScript's `toISOString` writes them.

use std::borrow::Cow;

use chrono::{DateTime, SecondsFormat};
use turnstile_engine::TimestampMs;

/// The last millisecond of the year 9999: the latest that four digits can express.
const LATEST: TimestampMs = TimestampMs(253_402_300_799_999);
/// The first millisecond of the year 0.
const EARLIEST: TimestampMs = TimestampMs(-62_167_219_200_000);

const DAY_MS: i64 = 86_400_000;
/// After so many years, the calendar repeats itself.
const CYCLE_YEARS: i64 = 400;
const CYCLE_DAYS: i64 = 146_097;

/// `2026-01-31T09:30:00.000Z`. A time outside the years that four digits can express is
/// written as the nearest one inside.
#[must_use]
pub fn iso8601(time: TimestampMs) -> String {
    let TimestampMs(within) = time.clamp(EARLIEST, LATEST);
    let time = DateTime::from_timestamp_millis(within);
    let time = time.expect("years 0 to 9999 are within the calendar");
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// The time in `text`, with `Z` or any other offset; fractions of a millisecond are
/// rounded up, so that nothing that waits for it comes early.
///
/// Seconds, separators and the minutes of the offset may be omitted, but not the offset
/// itself: without it nobody knows whose clock it is. A year may have a sign and six digits, and
/// the end of a day is `24:00`. A time that [`iso8601`] cannot write is read as the nearest one
/// that it can.
pub(crate) fn parse_iso8601(text: &str) -> Option<TimestampMs> {
    let (time, days) = match DateTime::parse_from_rfc3339(text) {
        Ok(time) => (time, 0),
        Err(_) => {
            let (text, days) = in_full(text)?;
            (DateTime::parse_from_rfc3339(&text).ok()?, days)
        }
    };
    let rest = i64::from(time.timestamp_subsec_nanos() % 1_000_000 > 0);
    let millis = time.timestamp_millis() + rest + days * DAY_MS;
    Some(TimestampMs(millis).clamp(EARLIEST, LATEST))
}

/// `text` as RFC 3339, with everything filled in that ISO-8601 allows to be omitted, and by how
/// many days it is later: RFC 3339 knows fewer years, and only the beginning of a day.
fn in_full(text: &str) -> Option<(String, i64)> {
    if !text.is_ascii() {
        return None;
    }
    let (date, time) = text.split_once('T')?;
    let (clock, offset) = time.split_at(time.find(['Z', '+', '-'])?);
    let (clock, fraction) = clock.split_at(clock.find(['.', ',']).unwrap_or(clock.len()));
    let (date, days_of_year) = with_four_digits(date)?;
    let date = separated(&date, '-', &[4, 6]);
    let mut clock = separated(clock, ':', &[2, 4]);
    if clock.len() == "09:30".len() && fraction.is_empty() {
        clock += ":00";
    }
    let mut offset = separated(offset, ':', &[3]);
    if offset.len() == "+01".len() {
        offset += ":00";
    }
    let fraction = fraction.replace(',', ".");
    let is_over = clock == "24:00:00" && fraction.bytes().all(|digit| b".0".contains(&digit));
    if is_over {
        "00:00:00".clone_into(&mut clock);
    }
    let days = days_of_year + i64::from(is_over);
    Some((format!("{date}T{clock}{fraction}{offset}"), days))
}

/// A date whose year may have a sign and six digits, as the same date in the year of four digits
/// that has the same days, and how many days are between the two.
fn with_four_digits(date: &str) -> Option<(Cow<'_, str>, i64)> {
    let Some(unsigned) = date.strip_prefix(['+', '-']) else {
        return Some((date.into(), 0));
    };
    let (digits, month_and_day) = unsigned.split_at_checked(6)?;
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let year = match (date.starts_with('-'), digits.parse::<i64>().ok()?) {
        // There is one year 0, and it has no minus.
        (true, 0) => return None,
        (true, year) => -year,
        (false, year) => year,
    };
    let same = 2000 + year.rem_euclid(CYCLE_YEARS);
    let days = (year - same) / CYCLE_YEARS * CYCLE_DAYS;
    Some((format!("{same}{month_and_day}").into(), days))
}

/// The digits with `separator` before those at `places`, unless it is there already.
fn separated(digits: &str, separator: char, places: &[usize]) -> String {
    let mut separated = digits.to_owned();
    if !digits.contains(separator) {
        let within = places.iter().rev().filter(|place| **place < digits.len());
        within.for_each(|place| separated.insert(*place, separator));
    }
    separated
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
    fn what_iso_8601_lets_leave_out_may_be_left_out() {
        let time = TimestampMs(1_769_851_920_000);
        for text in [
            "2026-01-31T09:32Z",
            "2026-01-31T10:32+01",
            "2026-01-31T10:32:00+0100",
            "2026-01-31T04:02:00.000-0530",
            "2026-01-31T09:31:59,9991Z",
            "20260131T093200Z",
            "20260131T0932Z",
            "20260131T093200.000+0000",
            "20260131T103200,0+01",
        ] {
            assert_eq!(parse_iso8601(text), Some(time), "{text}");
        }
        for bad in [
            "20260131",
            "T",
            "TZ",
            "2026-1-31T09:32Z",
            "2026131T0932Z",
            "20260131T932Z",
            "20260231T0932Z",
            "2026-01-31T09:32:Z",
            "2026-01-31T09:32.5Z",
            "2026-01-31T09Z",
            "2026-01-31T09:32+1",
            "2026-01-31T09:32+001",
            "202éT0932Z",
        ] {
            assert_eq!(parse_iso8601(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_year_may_have_a_sign_and_six_digits() {
        let time = TimestampMs(1_769_851_920_000);
        for (text, expected) in [
            ("+002026-01-31T09:32:00.000Z", time),
            ("+0020260131T0932Z", time),
            ("+275760-09-13T00:00:00.000Z", LATEST),
            ("+999999-12-31T24:00-23", LATEST),
            (
                "+010000-01-01T00:30:00+01:00",
                TimestampMs(LATEST.0 - 1_799_999),
            ),
            ("9999-12-31T23:59:59.9999Z", LATEST),
            ("9999-12-31T23:59:59-01:00", LATEST),
            (
                "-000001-12-31T23:30:00-01:00",
                TimestampMs(EARLIEST.0 + 1_800_000),
            ),
            ("-000001-01-01T00:00:00.000Z", EARLIEST),
            ("-271821-04-20T00:00:00.000Z", EARLIEST),
            ("0000-01-01T00:00:00+01:00", EARLIEST),
            ("+000000-01-01T00:00:00.000Z", EARLIEST),
        ] {
            assert_eq!(parse_iso8601(text), Some(expected), "{text}");
        }
        for bad in [
            "-000000-01-01T00:00:00.000Z",
            "+2026-01-31T09:32:00.000Z",
            "+12345-01-31T09:32:00.000Z",
            "+275760-02-30T00:00:00.000Z",
            "+275759-02-29T00:00:00.000Z",
            "+2757+0-01-01T00:00:00.000Z",
            "++75760-01-01T00:00:00.000Z",
            "+275760T00:00:00.000Z",
            "275760-09-13T00:00:00.000Z",
        ] {
            assert_eq!(parse_iso8601(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_end_of_a_day_is_the_beginning_of_the_next() {
        let midnight = parse_iso8601("2026-02-01T00:00:00.000Z");
        for text in [
            "2026-01-31T24:00:00Z",
            "2026-01-31T24:00:00.000Z",
            "2026-01-31T24:00Z",
            "20260131T240000,0+0000",
            "2026-01-31T24:00:00-00:00",
        ] {
            assert_eq!(parse_iso8601(text), midnight, "{text}");
        }
        for bad in [
            "2026-01-31T24:00:01Z",
            "2026-01-31T24:00:00.001Z",
            "2026-01-31T24:01Z",
            "2026-01-31T25:00Z",
        ] {
            assert_eq!(parse_iso8601(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_time_without_an_offset_is_refused_for_nobody_knows_whose_clock_it_is() {
        for text in [
            "2026-01-31T09:32:00.000",
            "2026-01-31T09:32",
            "20260131T093200",
        ] {
            assert_eq!(parse_iso8601(text), None, "{text}");
            assert!(parse_iso8601(&format!("{text}Z")).is_some(), "{text}");
        }
    }

    #[test]
    fn no_time_is_beyond_writing() {
        assert_eq!(iso8601(TimestampMs(i64::MAX)), "9999-12-31T23:59:59.999Z");
        assert_eq!(iso8601(TimestampMs(i64::MIN)), "0000-01-01T00:00:00.000Z");
    }
}
