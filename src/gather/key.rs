//! Sort keys: a value in Postgres's binary format becomes bytes whose plain
//! order is the server's order of that type.
//!
//! Only types are here whose order is the same on every server: no collation,
//! no setting and no version decides it. Text takes part under a collation that
//! compares bytes; who knows that is the caller.
//!
//! Source: the send functions and btree comparisons of PostgreSQL's types.

use crate::types::Oid;

/// How values of a type are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// Integers of 2, 4 and 8 bytes, dates, times and timestamps: their
    /// binary form is a signed integer of that many bytes.
    Signed(u8),
    /// An unsigned integer of four bytes.
    Unsigned,
    /// `float4`.
    Float4,
    /// `float8`.
    Float8,
    /// `numeric`.
    Numeric,
    /// Bytes as they are: `bool`, `uuid`, `bytea`.
    Bytes,
    /// Text: bytes as they are, under a collation that compares bytes.
    Text,
    /// `interval`.
    Interval,
}

impl KeyKind {
    /// The order of the type; `None` if it is not known for sure.
    pub const fn of(oid: Oid) -> Option<Self> {
        Some(match oid.number() {
            21 => Self::Signed(2),
            23 | 1082 => Self::Signed(4),
            20 | 1083 | 1114 | 1184 => Self::Signed(8),
            26 => Self::Unsigned,
            700 => Self::Float4,
            701 => Self::Float8,
            1700 => Self::Numeric,
            16 | 17 | 2950 => Self::Bytes,
            19 | 25 | 1043 => Self::Text,
            1186 => Self::Interval,
            _ => return None,
        })
    }
}

/// Direction of a sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// ASC.
    Ascending,
    /// DESC.
    Descending,
}

/// Where NULLs stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nulls {
    /// NULLS FIRST.
    First,
    /// NULLS LAST.
    Last,
}

/// Bytes that are no value of their type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadValue;

/// Appends `value` to `out`, so that the bytes of keys compare as their values
/// do. Each value ends itself, so that several stand one after the other.
///
/// # Errors
/// The bytes are no value of the type; `out` is left with a part of it.
pub fn append(
    kind: KeyKind,
    direction: Direction,
    nulls: Nulls,
    value: Option<&[u8]>,
    out: &mut Vec<u8>,
) -> Result<(), BadValue> {
    let (null, some) = match nulls {
        Nulls::First => (0, 1),
        Nulls::Last => (1, 0),
    };
    let Some(value) = value else {
        out.push(null);
        return Ok(());
    };
    out.push(some);
    let start = out.len();
    match kind {
        KeyKind::Signed(width) => signed(value, usize::from(width), out)?,
        KeyKind::Unsigned => out.extend_from_slice(&fixed::<4>(value)?),
        KeyKind::Float4 => {
            let number = f32::from_be_bytes(fixed::<4>(value)?);
            float(f64::from(number), out);
        }
        KeyKind::Float8 => float(f64::from_be_bytes(fixed::<8>(value)?), out),
        KeyKind::Numeric => numeric(value, out)?,
        KeyKind::Bytes | KeyKind::Text => bytes(value, out),
        KeyKind::Interval => interval(value, out)?,
    }
    if direction == Direction::Descending {
        out.iter_mut().skip(start).for_each(|byte| *byte = !*byte);
    }
    Ok(())
}

fn fixed<const N: usize>(value: &[u8]) -> Result<[u8; N], BadValue> {
    <[u8; N]>::try_from(value).map_err(|_| BadValue)
}

fn signed(value: &[u8], width: usize, out: &mut Vec<u8>) -> Result<(), BadValue> {
    let (first, rest) = value.split_first().filter(|_| value.len() == width).ok_or(BadValue)?;
    out.push(first ^ 0x80);
    out.extend_from_slice(rest);
    Ok(())
}

/// NaN is equal to itself and the greatest; both zeros are equal.
fn float(number: f64, out: &mut Vec<u8>) {
    let ordered = if number.is_nan() {
        u64::MAX
    } else if number == 0.0 {
        1 << 63
    } else {
        let bits = number.to_bits();
        if bits >> 63 == 0 { bits | 1 << 63 } else { !bits }
    };
    out.extend_from_slice(&ordered.to_be_bytes());
}

/// Zero bytes are marked, so that the end is smaller than any byte.
fn bytes(value: &[u8], out: &mut Vec<u8>) {
    for byte in value {
        out.push(*byte);
        if *byte == 0 {
            out.push(0xFF);
        }
    }
    out.extend_from_slice(&[0, 0]);
}

fn interval(value: &[u8], out: &mut Vec<u8>) -> Result<(), BadValue> {
    let (time, rest) = value.split_first_chunk::<8>().ok_or(BadValue)?;
    let (days, months) = rest.split_first_chunk::<4>().ok_or(BadValue)?;
    let days = i128::from(i32::from_be_bytes(*days));
    let months = i128::from(i32::from_be_bytes(fixed::<4>(months)?));
    // A month counts as 30 days, a day as 24 hours.
    let span = (months * 30 + days) * DAY_US + i128::from(i64::from_be_bytes(*time));
    let mut ordered = span.to_be_bytes();
    if let Some(first) = ordered.first_mut() {
        *first ^= 0x80;
    }
    out.extend_from_slice(&ordered);
    Ok(())
}

/// A class, then for finite numbers other than zero the weight of the first
/// digit and the digits (base 10,000) up to the last that is not zero. The
/// number of digits shown after the point plays no part.
fn numeric(value: &[u8], out: &mut Vec<u8>) -> Result<(), BadValue> {
    let (head, tail) = value.split_first_chunk::<8>().ok_or(BadValue)?;
    let [n0, n1, w0, w1, s0, s1, ..] = *head;
    let count = usize::from(u16::from_be_bytes([n0, n1]));
    let (digits, rest) = tail.as_chunks::<2>();
    if digits.len() != count || !rest.is_empty() {
        return Err(BadValue);
    }
    let negative = match u16::from_be_bytes([s0, s1]) {
        0x0000 => false,
        0x4000 => true,
        0xC000 => return special(out, 5),
        0xD000 => return special(out, 4),
        0xF000 => return special(out, 0),
        _ => return Err(BadValue),
    };
    let leading = digits.iter().take_while(|digit| **digit == [0, 0]).count();
    let digits = digits.get(leading..).unwrap_or_default();
    let trailing = digits.iter().rev().take_while(|digit| **digit == [0, 0]).count();
    let digits = digits.get(..digits.len() - trailing).unwrap_or_default();
    if digits.is_empty() {
        return special(out, 2);
    }
    out.push(if negative { 1 } else { 3 });
    let start = out.len();
    let leading = i32::try_from(leading).map_err(|_| BadValue)?;
    let weight = i32::from(i16::from_be_bytes([w0, w1])) - leading;
    let mut weight = weight.to_be_bytes();
    if let Some(first) = weight.first_mut() {
        *first ^= 0x80;
    }
    out.extend_from_slice(&weight);
    for digit in digits {
        let digit = u16::from_be_bytes(*digit);
        // One more, so that the end is smaller than any digit.
        out.extend_from_slice(&digit.saturating_add(1).to_be_bytes());
    }
    out.extend_from_slice(&[0, 0]);
    if negative {
        out.iter_mut().skip(start).for_each(|byte| *byte = !*byte);
    }
    Ok(())
}

fn special(out: &mut Vec<u8>, class: u8) -> Result<(), BadValue> {
    out.push(class);
    Ok(())
}

const DAY_US: i128 = 86_400_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kind: KeyKind, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        append(kind, Direction::Ascending, Nulls::Last, Some(value), &mut out).unwrap();
        out
    }

    /// Values in ascending order have keys in ascending order; equal values,
    /// given side by side, have equal keys.
    fn check(kind: KeyKind, groups: &[&[Vec<u8>]]) {
        let keys: Vec<Vec<Vec<u8>>> =
            groups.iter().map(|group| group.iter().map(|v| key(kind, v)).collect()).collect();
        for group in &keys {
            assert!(group.iter().all(|k| k == &group[0]), "{kind:?}: equal values differ");
        }
        for pair in keys.windows(2) {
            assert!(pair[0][0] < pair[1][0], "{kind:?}: {pair:?}");
        }
    }

    fn digits(sign: u16, weight: i16, scale: u16, digits: &[u16]) -> Vec<u8> {
        let mut out = u16::try_from(digits.len()).unwrap().to_be_bytes().to_vec();
        out.extend(weight.to_be_bytes());
        out.extend(sign.to_be_bytes());
        out.extend(scale.to_be_bytes());
        out.extend(digits.iter().flat_map(|d| d.to_be_bytes()));
        out
    }

    #[test]
    fn integers_and_floats_are_ordered_as_the_server_orders_them() {
        let ints = [i64::MIN, -7, -1, 0, 1, 256, i64::MAX].map(|i| vec![i.to_be_bytes().to_vec()]);
        check(KeyKind::Signed(8), &ints.each_ref().map(|g| &**g));
        let floats = [
            vec![f64::NEG_INFINITY],
            vec![-1e300],
            vec![-1.5],
            vec![-f64::MIN_POSITIVE],
            vec![-0.0, 0.0],
            vec![1e-300],
            vec![2.0],
            vec![f64::INFINITY],
            vec![f64::NAN, -f64::NAN],
        ]
        .map(|group| group.iter().map(|f| f.to_be_bytes().to_vec()).collect::<Vec<_>>());
        check(KeyKind::Float8, &floats.each_ref().map(|g| &**g));
    }

    #[test]
    fn numerics_are_ordered_by_value_not_by_scale() {
        let groups = [
            vec![digits(0xF000, 0, 0, &[])],
            vec![digits(0x4000, 1, 0, &[1, 5])],
            vec![digits(0x4000, 1, 0, &[1]), digits(0x4000, 1, 2, &[1, 0, 0])],
            vec![digits(0x4000, 0, 2, &[2, 5000])],
            vec![digits(0x4000, 0, 0, &[2])],
            vec![digits(0x4000, -1, 4, &[1])],
            vec![digits(0, 0, 0, &[]), digits(0, 0, 3, &[0])],
            vec![digits(0, -2, 8, &[9999])],
            vec![digits(0, -1, 4, &[1])],
            vec![digits(0, 0, 0, &[2]), digits(0, 0, 9, &[2, 0]), digits(0, 1, 0, &[0, 2])],
            vec![digits(0, 0, 4, &[2, 1])],
            vec![digits(0, 0, 0, &[10])],
            vec![digits(0, 1, 0, &[1])],
            vec![digits(0xD000, 0, 0, &[])],
            vec![digits(0xC000, 0, 0, &[])],
        ];
        check(KeyKind::Numeric, &groups.each_ref().map(|g| &**g));
    }

    #[test]
    fn bytes_and_texts_end_before_they_go_on() {
        let groups =
            [&b""[..], b"\0", b"\0\0", b"\0a", b"a", b"a\0", b"a\x01", b"ab", b"b", b"\xff"]
                .map(|b| vec![b.to_vec()]);
        check(KeyKind::Bytes, &groups.each_ref().map(|g| &**g));
    }

    #[test]
    fn intervals_count_thirty_days_a_month() {
        let interval = |months: i32, days: i32, us: i64| {
            [&us.to_be_bytes()[..], &days.to_be_bytes(), &months.to_be_bytes()].concat()
        };
        let groups = [
            vec![interval(-1, 0, 0)],
            vec![interval(0, 0, -1)],
            vec![interval(0, 0, 0), interval(1, -30, 0)],
            vec![interval(0, 29, 0)],
            vec![interval(1, 0, 0), interval(0, 30, 0), interval(0, 29, 86_400_000_000)],
            vec![interval(i32::MAX, i32::MAX, i64::MAX)],
        ];
        check(KeyKind::Interval, &groups.each_ref().map(|g| &**g));
    }

    #[test]
    fn direction_and_nulls_are_apart() {
        let cases = [
            (Direction::Ascending, Nulls::Last, ["1", "2", "null"]),
            (Direction::Ascending, Nulls::First, ["null", "1", "2"]),
            (Direction::Descending, Nulls::First, ["null", "2", "1"]),
            (Direction::Descending, Nulls::Last, ["2", "1", "null"]),
        ];
        for (direction, nulls, expected) in cases {
            let mut keys: Vec<(Vec<u8>, &str)> =
                [(Some(1_i32), "1"), (Some(2), "2"), (None, "null")]
                    .map(|(value, name)| {
                        let mut out = Vec::new();
                        let bytes = value.map(i32::to_be_bytes);
                        let value = bytes.as_ref().map(|b| &b[..]);
                        append(KeyKind::Signed(4), direction, nulls, value, &mut out).unwrap();
                        (out, name)
                    })
                    .into();
            keys.sort();
            assert_eq!(keys.iter().map(|(_, name)| *name).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn bytes_that_are_no_value_are_refused() {
        for (kind, value) in [
            (KeyKind::Signed(4), &b"abc"[..]),
            (KeyKind::Float8, b""),
            (KeyKind::Numeric, b"\0\x01\0\0\0\0\0\0"),
            (KeyKind::Numeric, b"\0\0\0\0\x12\x34\0\0"),
            (KeyKind::Interval, b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
        ] {
            let mut out = Vec::new();
            let appended = append(kind, Direction::Ascending, Nulls::Last, Some(value), &mut out);
            assert_eq!(appended, Err(BadValue), "{kind:?}");
        }
    }
}
