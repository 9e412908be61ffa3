//! Dates and points in time in spellings that every setting of the server reads
//! alike: ISO 8601 with a year of four digits and, for a time, an offset.
//!
//! Source: PostgreSQL manual, "Date/Time Input"; the binary forms count days and
//! microseconds from 2000-01-01.

use std::fmt;

/// The days from 2000-01-01 to `YYYY-MM-DD`.
pub(super) fn parse_date(text: &str) -> Option<i32> {
    let text = text.trim_matches(' ');
    let [year, month, day] = *text.split('-').collect::<Vec<_>>() else { return None };
    let year = digits(year, 4)?;
    let (month, day) = (digits(month, 2)?, digits(day, 2)?);
    if year == 0 || !(1..=12).contains(&month) || day == 0 || day > month_days(year, month) {
        return None;
    }
    Some(days_before(year) + year_day(year, month) + day - 1)
}

/// The microseconds from 2000-01-01 00:00 UTC to `YYYY-MM-DD HH:MM:SS±HH:MM`.
pub(super) fn parse_time(text: &str) -> Option<i64> {
    let text = text.trim_matches(' ');
    let (date, time) = text.split_once([' ', 'T'])?;
    let days = parse_date(date)?;
    let (clock, offset) = if let Some(clock) = time.strip_suffix('Z') {
        (clock, 0)
    } else {
        let at = time.find(['+', '-'])?;
        let (clock, zone) = time.split_at_checked(at)?;
        (clock, parse_offset(zone)?)
    };
    let [hour, minute, second] = *clock.split(':').collect::<Vec<_>>() else { return None };
    let (second, fraction) = second.split_once('.').unwrap_or((second, "0"));
    if fraction.is_empty() || fraction.len() > 6 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let micros: i64 = format!("{fraction:0<6}").parse().ok()?;
    let (hour, minute, second) = (digits(hour, 2)?, digits(minute, 2)?, digits(second, 2)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = i64::from(days) * 86_400
        + i64::from(hour) * 3600
        + i64::from(minute) * 60
        + i64::from(second)
        - i64::from(offset);
    Some(seconds * 1_000_000 + micros)
}

/// Seconds of `+HH`, `+HH:MM` or `+HHMM`.
fn parse_offset(text: &str) -> Option<i32> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+')?),
    };
    let (hours, minutes) = match rest.split_once(':') {
        Some(parts) => parts,
        None if rest.len() == 4 => rest.split_at_checked(2)?,
        None => (rest, "00"),
    };
    let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
    (hours < 15 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

/// A number of exactly `count` digits.
fn digits(text: &str, count: usize) -> Option<i32> {
    let plain = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

const fn is_leap(year: i32) -> bool {
    (year % 4 == 0 && year % 100 != 0) || year % 400 == 0
}

fn month_days(year: i32, month: i32) -> i32 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days of the year before its `month`.
fn year_day(year: i32, month: i32) -> i32 {
    (1..month).map(|month| month_days(year, month)).sum()
}

/// Days from 2000-01-01 to the first of `year`.
const fn days_before(year: i32) -> i32 {
    let past = year - 1;
    past * 365 + past / 4 - past / 100 + past / 400 - 730_119
}

/// A date as ISO 8601 writes it.
pub(super) fn write_date(f: &mut fmt::Formatter<'_>, days: i64) -> fmt::Result {
    if !(i64::from(days_before(1))..i64::from(days_before(10_000))).contains(&days) {
        return write!(f, "{days} days from 2000-01-01");
    }
    // Not after the year that is looked for.
    let least = 2000 + days.div_euclid(if days < 0 { 365 } else { 366 });
    let mut year = i32::try_from(least).unwrap_or(1).max(1);
    while i64::from(days_before(year + 1)) <= days {
        year += 1;
    }
    let mut left = i32::try_from(days).unwrap_or_default() - days_before(year);
    let mut month = 1;
    while left >= month_days(year, month) {
        left -= month_days(year, month);
        month += 1;
    }
    write!(f, "{year:04}-{month:02}-{:02}", left + 1)
}

/// A point in time as ISO 8601 writes it, in UTC.
pub(super) fn write_time(f: &mut fmt::Formatter<'_>, micros: i64) -> fmt::Result {
    let seconds = micros.div_euclid(1_000_000);
    write_date(f, seconds.div_euclid(86_400))?;
    let clock = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    write!(f, " {hour:02}:{minute:02}:{second:02}")?;
    let fraction = micros.rem_euclid(1_000_000);
    if fraction != 0 {
        write!(f, ".{fraction:06}")?;
    }
    f.write_str("+00")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Shown(i64);

    impl fmt::Display for Shown {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write_date(f, self.0)
        }
    }

    #[test]
    fn days_are_counted_from_2000() {
        assert_eq!(parse_date("2000-01-01"), Some(0));
        assert_eq!(parse_date("1999-12-31"), Some(-1));
        assert_eq!(parse_date("2024-02-29"), Some(8825));
        for text in ["2023-02-29", "24-02-01", "2024-2-1", "02/01/2024", "today", "2024-13-01"] {
            assert_eq!(parse_date(text), None, "{text}");
        }
        for text in ["0001-01-01", "1582-10-15", "1999-12-31", "2000-02-29", "9999-12-31"] {
            let days = parse_date(text).unwrap();
            assert_eq!(Shown(days.into()).to_string(), text);
        }
    }

    #[test]
    fn times_need_an_offset() {
        assert_eq!(parse_time("2000-01-01 00:00:00Z"), Some(0));
        assert_eq!(parse_time("2000-01-01T01:00:00+01"), Some(0));
        assert_eq!(parse_time("2000-01-01 00:00:00.5-00:30"), Some(1_800_500_000));
        for text in [
            "2000-01-01 00:00:00",
            "2000-01-01",
            "2000-01-01 00:00Z",
            "2000-01-01 24:00:00Z",
            "2000-01-01 00:00:00 UTC",
            "now",
        ] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }
}
