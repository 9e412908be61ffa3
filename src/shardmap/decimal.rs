//! Exact decimal numbers, as far as keys need them: parse, compare, and the
//! digits that the server hashes.
//!
//! A number has at most `DIGITS_MAX` digits and no NaN or infinity; what has
//! more is refused. Equal numbers are equal values, whatever their scale.
//!
//! Source: PostgreSQL manual, "Arbitrary Precision Numbers"; the binary form as
//! the server sends it.

use std::fmt;

/// `±digits × 10^exponent`, without zeros at the digits' end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decimal {
    negative: bool,
    digits: u128,
    exponent: i16,
}

impl Decimal {
    /// The number that `text` spells: blanks, a sign, digits, a point, an
    /// exponent. `None` if it is none, or longer than numbers here may be.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim_matches(|c| matches!(c, ' ' | '\t' | '\n' | '\x0B' | '\x0C' | '\r'));
        let negative = text.starts_with('-');
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let (number, exponent) = match unsigned.split_once(['e', 'E']) {
            None => (unsigned, 0),
            Some((number, exponent)) => {
                let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
                let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
                if !plain {
                    return None;
                }
                (number, exponent.parse::<i16>().ok()?)
            }
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let mut digits = 0_u128;
        let mut dropped = 0_i16;
        let mut zeros = 0_u32;
        let scale = i16::try_from(fraction.len()).ok()?;
        // Zeros at the end wait until another digit follows.
        for byte in whole.bytes().chain(fraction.bytes()) {
            if !byte.is_ascii_digit() {
                return None;
            }
            if byte == b'0' {
                zeros += 1;
                continue;
            }
            digits = digits.checked_mul(10_u128.checked_pow(zeros + 1)?)?;
            digits = digits.checked_add(u128::from(byte - b'0'))?;
            zeros = 0;
        }
        if digits == 0 {
            return Some(Self { negative: false, digits: 0, exponent: 0 });
        }
        dropped = dropped.checked_add(i16::try_from(zeros).ok()?)?;
        let exponent = exponent.checked_sub(scale)?.checked_add(dropped)?;
        (digits < LIMIT).then_some(Self { negative, digits, exponent })
    }

    /// The number in the binary form of a parameter.
    pub fn from_binary(bytes: &[u8]) -> Option<Self> {
        let mut words = bytes.chunks_exact(2).map(|pair| match *pair {
            [high, low] => i16::from_be_bytes([high, low]),
            _ => 0,
        });
        let count = words.next()?;
        let (weight, sign, _scale) = (words.next()?, words.next()?, words.next()?);
        if usize::try_from(count).ok()?.checked_mul(2)?.checked_add(8)? != bytes.len() {
            return None;
        }
        let negative = match sign {
            0 => false,
            0x4000 => true,
            _ => return None,
        };
        let mut digits = 0_u128;
        for word in words {
            let word = u128::try_from(word).ok().filter(|word| *word < 10_000)?;
            digits = digits.checked_mul(10_000)?.checked_add(word)?;
        }
        let last = i32::from(weight) - (i32::from(count) - 1);
        let exponent = i16::try_from(last.checked_mul(4)?).ok()?;
        Self { negative, digits, exponent }.shortened()
    }

    /// Moves zeros at the end into the exponent.
    fn shortened(mut self) -> Option<Self> {
        if self.digits == 0 {
            return Some(Self { negative: false, digits: 0, exponent: 0 });
        }
        while self.digits.is_multiple_of(10) {
            self.digits /= 10;
            self.exponent = self.exponent.checked_add(1)?;
        }
        (self.digits < LIMIT).then_some(self)
    }

    /// The integer that it is, if it is one of 64 bits.
    pub fn to_integer(self) -> Option<i64> {
        let scale = 10_i128.checked_pow(u32::try_from(self.exponent).ok()?)?;
        let value = i128::try_from(self.digits).ok()?.checked_mul(scale)?;
        i64::try_from(if self.negative { -value } else { value }).ok()
    }

    /// Whether it has digits after the point.
    pub const fn is_fractional(self) -> bool {
        self.exponent < 0
    }

    /// The same number with the other sign.
    #[must_use]
    pub const fn negated(self) -> Self {
        Self { negative: !self.negative && self.digits != 0, ..self }
    }

    /// The digits to the base 10,000, least first and without zeros at either
    /// end, and the power of the greatest; none for zero.
    pub(super) fn groups(self) -> (Vec<u16>, i32) {
        let shift = self.exponent.rem_euclid(4);
        // Below 10^38: the digits were checked to be fewer than that allows.
        let mut rest = self.digits * 10_u128.pow(u32::from(shift.unsigned_abs()));
        let mut power = i32::from(self.exponent - shift) / 4;
        let mut groups: Vec<u16> = Vec::new();
        while rest > 0 {
            let group = u16::try_from(rest % 10_000).unwrap_or_default();
            rest /= 10_000;
            if group == 0 && groups.is_empty() {
                power += 1;
            } else {
                groups.push(group);
            }
        }
        let count = i32::try_from(groups.len()).unwrap_or_default();
        (groups, power + count - 1)
    }
}

impl From<i64> for Decimal {
    fn from(value: i64) -> Self {
        let whole = Self { negative: value < 0, digits: value.unsigned_abs().into(), exponent: 0 };
        whole.shortened().unwrap_or(whole)
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.negative { "-" } else { "" };
        if (0..=40).contains(&self.exponent) {
            let zeros = usize::from(self.exponent.unsigned_abs());
            return write!(f, "{sign}{}{}", self.digits, "0".repeat(zeros));
        }
        write!(f, "{sign}{}e{}", self.digits, self.exponent)
    }
}

/// Most digits of a number.
pub(super) const DIGITS_MAX: u32 = 34;
const LIMIT: u128 = 10_u128.pow(DIGITS_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_number_are_equal() {
        let one = Decimal::parse("1500").unwrap();
        for text in ["1500.00", "+1500", "1.5e3", "15E2", " 1500. ", "0001500"] {
            assert_eq!(Decimal::parse(text), Some(one), "{text}");
        }
        assert_eq!(Decimal::parse("-0"), Decimal::parse("0.000"));
        assert_eq!(Decimal::parse("0.10"), Decimal::parse(".1"));
        for text in ["", ".", "-", "NaN", "Infinity", "1e", "1_000", "0x1F", "1 2", "--1"] {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
        assert_eq!(Decimal::parse(&"9".repeat(35)), None);
        assert!(Decimal::parse(&"9".repeat(34)).is_some());
    }

    #[test]
    fn only_whole_numbers_are_integers() {
        let integer = |text| Decimal::parse(text).unwrap().to_integer();
        assert_eq!(integer("42.0"), Some(42));
        assert_eq!(integer("-9223372036854775808"), Some(i64::MIN));
        assert_eq!(integer("9223372036854775808"), None);
        assert_eq!(integer("1e2"), Some(100));
        assert_eq!(integer("0.5"), None);
    }
}
