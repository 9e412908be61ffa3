//! Constants in a text: where they stand, and which value they denote.
//!
//! It does not know types: a number is its digits, a string its characters.

use std::borrow::Cow;

use super::lex::continuation;

/// The notation of a constant; each has its own byte in the normal form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum LiteralKind {
    /// Decimal digits.
    Integer = 1,
    /// Any other number: `1.5`, `1e3`, `0x1F`, `1_000`.
    Numeric = 2,
    /// `'…'`.
    Plain = 3,
    /// `E'…'`.
    Escape = 4,
    /// `B'…'`.
    Bits = 5,
    /// `X'…'`.
    HexBits = 6,
    /// `U&'…'`.
    Unicode = 7,
    /// `N'…'`, a `character` constant.
    National = 8,
    /// `$tag$…$tag$`.
    Dollar = 14,
}

impl LiteralKind {
    /// Whether the server takes it for a string of unknown type.
    pub const fn is_string(self) -> bool {
        matches!(self, Self::Plain | Self::Escape | Self::Unicode | Self::Dollar)
    }
}

/// One constant of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Literal {
    /// Its first byte, prefix included.
    pub start: u32,
    /// One past its last byte.
    pub end: u32,
    /// Its notation.
    pub kind: LiteralKind,
}

impl Literal {
    /// The bytes of `text` that it is written with.
    pub fn written(self, text: &[u8]) -> &[u8] {
        text.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// The value: the digits of a number, the characters of a string.
    ///
    /// `None` where the value isn't text, or its reading is left to the server:
    /// bit strings, `U&''`, national strings, escapes that aren't UTF-8.
    /// Allocates only for a string with escapes, doubled quotes or continuations.
    pub fn value(self, text: &[u8]) -> Option<Cow<'_, str>> {
        let written = std::str::from_utf8(self.written(text)).ok()?;
        match self.kind {
            LiteralKind::Integer | LiteralKind::Numeric => Some(Cow::Borrowed(written)),
            LiteralKind::Plain => {
                let inside = written.get(1..written.len().checked_sub(1)?)?;
                if inside.contains('\'') {
                    unquote(written.as_bytes(), 1, Escapes::Off).map(Cow::Owned)
                } else {
                    Some(Cow::Borrowed(inside))
                }
            }
            LiteralKind::Escape => unquote(written.as_bytes(), 2, Escapes::On).map(Cow::Owned),
            LiteralKind::Dollar => {
                let tag = written.get(1..)?.find('$')? + 2;
                written.get(tag..written.len().checked_sub(tag)?).map(Cow::Borrowed)
            }
            LiteralKind::Bits
            | LiteralKind::HexBits
            | LiteralKind::Unicode
            | LiteralKind::National => None,
        }
    }
}

/// The constants of one text, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Literals(Vec<Literal>);

impl Literals {
    /// The constant with this zero-based index.
    pub fn get(&self, index: usize) -> Option<Literal> {
        self.0.get(index).copied()
    }

    /// All of them.
    pub fn as_slice(&self) -> &[Literal] {
        &self.0
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the text has none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn push(&mut self, literal: Literal) {
        self.0.push(literal);
    }

    /// Gives back what an unusually long text made it allocate.
    pub(crate) fn shrink_to(&mut self, count: usize) {
        self.0.shrink_to(count);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Escapes {
    Off,
    On,
}

/// The value of a quoted string whose inside begins at `inside`.
fn unquote(written: &[u8], inside: usize, escapes: Escapes) -> Option<String> {
    let mut value = Vec::with_capacity(written.len());
    let mut i = inside;
    loop {
        match written.get(i)? {
            b'\'' if written.get(i + 1) == Some(&b'\'') => {
                value.push(b'\'');
                i += 2;
            }
            b'\'' => match continuation(written, i + 1) {
                Some(next) => i = next,
                None => break,
            },
            b'\\' if escapes == Escapes::On => i = escape(written, i + 1, &mut value)?,
            byte => {
                value.push(*byte);
                i += 1;
            }
        }
    }
    String::from_utf8(value).ok()
}

/// Decodes what follows a backslash; the position after it.
fn escape(written: &[u8], at: usize, value: &mut Vec<u8>) -> Option<usize> {
    let byte = *written.get(at)?;
    let plain = match byte {
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'0'..=b'7' => {
            let end = digits_end(written, at, 3, |digit| (b'0'..=b'7').contains(digit));
            let number = digits_value(written.get(at..end)?, 8)?;
            // The server keeps the low eight bits.
            value.push((number & 0xFF) as u8);
            return (number != 0).then_some(end);
        }
        b'x' if written.get(at + 1).is_some_and(u8::is_ascii_hexdigit) => {
            let end = digits_end(written, at + 1, 2, u8::is_ascii_hexdigit);
            let number = digits_value(written.get(at + 1..end)?, 16)?;
            value.push(u8::try_from(number).ok()?);
            return (number != 0).then_some(end);
        }
        b'u' | b'U' => {
            let count = if byte == b'u' { 4 } else { 8 };
            let end = digits_end(written, at + 1, count, u8::is_ascii_hexdigit);
            if end != at + 1 + count {
                return None;
            }
            // Surrogate pairs, which the server joins, are refused here.
            let character = char::from_u32(digits_value(written.get(at + 1..end)?, 16)?)?;
            value.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            return (character != '\0').then_some(end);
        }
        other => other,
    };
    value.push(plain);
    Some(at + 1)
}

fn digits_end(written: &[u8], from: usize, count: usize, is_digit: fn(&u8) -> bool) -> usize {
    let run = written.iter().skip(from).take(count).take_while(|digit| is_digit(digit)).count();
    from + run
}

fn digits_value(digits: &[u8], radix: u32) -> Option<u32> {
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(written: &str, kind: LiteralKind, value: Option<&str>) {
        let literal = Literal { start: 0, end: u32::try_from(written.len()).unwrap(), kind };
        assert_eq!(literal.value(written.as_bytes()).as_deref(), value, "{written}");
    }

    #[test]
    fn strings_denote_what_the_server_reads() {
        check("'it''s'", LiteralKind::Plain, Some("it's"));
        check("''", LiteralKind::Plain, Some(""));
        check("''''", LiteralKind::Plain, Some("'"));
        check("'a\\b'", LiteralKind::Plain, Some("a\\b"));
        check("'a'\n  'b'", LiteralKind::Plain, Some("ab"));
        check("'a' -- x\n'b'", LiteralKind::Plain, Some("ab"));
        check(r"E'a\n\t\\\'\x41\101\u00e9'", LiteralKind::Escape, Some("a\n\t\\'AAé"));
        check(r"e'\q'", LiteralKind::Escape, Some("q"));
        check("$$a'b$$", LiteralKind::Dollar, Some("a'b"));
        check("$t$a$$b$t$", LiteralKind::Dollar, Some("a$$b"));
        check("42", LiteralKind::Integer, Some("42"));
    }

    #[test]
    fn values_left_to_the_server_are_none() {
        check(r"E'\xff'", LiteralKind::Escape, None);
        check(r"E'\000'", LiteralKind::Escape, None);
        check(r"E'\ud83d\ude00'", LiteralKind::Escape, None);
        check("U&'a'", LiteralKind::Unicode, None);
        check("N'a'", LiteralKind::National, None);
        check("B'1'", LiteralKind::Bits, None);
    }
}
