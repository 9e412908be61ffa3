//! Postgres's lexical rules: where each token of a text begins and ends.
//!
//! One walk serves both readers, the hot one that builds the normal form and
//! the cold one that lists tokens, so that they can't disagree. It assumes
//! `standard_conforming_strings = on` and knows no keyword. Where servers of
//! different versions read the same bytes differently (`\v`, `123abc`), it
//! refuses.
//!
//! Source: PostgreSQL manual, "Lexical Structure"; measured against servers.

use std::fmt;

use crate::types::SqlState;

use super::literal::LiteralKind;

/// Where the walk reports what it finds. Tokens come in the order of the text
/// and never overlap; blanks and comments come between them.
pub(crate) trait Sink {
    /// Whether it has a use for tokens and for single spaces between them; if
    /// not, most of them are passed over without a word.
    const HEARS_TOKENS: bool;

    /// Anything but a literal, copied as it stands.
    fn token(&mut self, kind: TokenKind, start: usize, end: usize);
    /// A constant, prefix and quotes included.
    fn literal(&mut self, kind: LiteralKind, start: usize, end: usize);
    /// White space and comments.
    fn blank(&mut self, start: usize, end: usize);
    /// A comment `/* keyway: … */`.
    fn hint(&mut self, start: usize, end: usize);
}

/// Tokens other than constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// Keyword or unquoted identifier.
    Word,
    /// `"…"`.
    Quoted,
    /// `U&"…"`.
    UnicodeQuoted,
    /// `$n`.
    Param,
    /// A run of operator characters, cut as the server cuts it.
    Operator,
    /// One of `( ) [ ] , ; .` or `:`; `::`, `:=` and `..` are one token.
    Punct,
}

/// Why a text has no tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanError {
    /// A string, quoted identifier or comment never ends.
    Unterminated {
        /// What it is.
        what: Unterminated,
        /// The byte where it starts.
        at: usize,
    },
    /// A byte that begins no token in any version.
    StrayByte {
        /// The byte's position.
        at: usize,
    },
    /// Letters that stick to a number or to `$n`.
    Junk {
        /// The token's first byte.
        at: usize,
    },
    /// Not UTF-8 from this byte on.
    NotUtf8 {
        /// The first bad byte.
        at: usize,
    },
    /// Longer than offsets can name.
    TooLong,
}

/// Tokens that need an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the words of the error message")]
pub enum Unterminated {
    String,
    DollarString,
    Identifier,
    Comment,
}

impl ScanError {
    /// The state a client sees; the server's own for the same fault.
    pub const fn sqlstate(&self) -> SqlState {
        match self {
            Self::Unterminated { .. } | Self::StrayByte { .. } | Self::Junk { .. } => {
                SqlState::new("42601")
            }
            Self::NotUtf8 { .. } => SqlState::new("22021"),
            Self::TooLong => SqlState::new("54000"),
        }
    }

    /// The byte offset of the fault, if it has one.
    pub const fn position(&self) -> Option<usize> {
        match self {
            Self::Unterminated { at, .. }
            | Self::StrayByte { at }
            | Self::Junk { at }
            | Self::NotUtf8 { at } => Some(*at),
            Self::TooLong => None,
        }
    }
}

impl fmt::Display for ScanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unterminated { what, at } => {
                let what = match what {
                    Unterminated::String => "quoted string",
                    Unterminated::DollarString => "dollar-quoted string",
                    Unterminated::Identifier => "quoted identifier",
                    Unterminated::Comment => "/* comment",
                };
                write!(f, "unterminated {what} that starts at byte {at}")
            }
            Self::StrayByte { at } => write!(f, "syntax error at byte {at}"),
            Self::Junk { at } => {
                write!(f, "trailing junk after a number or parameter at byte {at}")
            }
            Self::NotUtf8 { at } => write!(f, "invalid byte sequence for UTF-8 at byte {at}"),
            Self::TooLong => write!(f, "statement is longer than {TEXT_BYTES_MAX} bytes"),
        }
    }
}

impl std::error::Error for ScanError {}

/// Walks `text` and reports its tokens.
///
/// # Errors
/// The text has no tokens by the server's rules, or not by all versions' rules.
pub(crate) fn lex<S: Sink>(text: &[u8], sink: &mut S) -> Result<(), ScanError> {
    let mut i = 0;
    loop {
        if !S::HEARS_TOKENS {
            i = past_unheard(text, i);
        }
        let Some(&byte) = text.get(i) else { return Ok(()) };
        let start = i;
        match CLASS[usize::from(byte)] {
            Class::Word => i = word(text, start, sink)?,
            Class::Blank => i = blank(text, start, sink)?,
            Class::Punct => {
                i += match (byte, text.get(i + 1)) {
                    (b':', Some(b':' | b'=')) | (b'.', Some(b'.')) => 2,
                    _ => 1,
                };
                sink.token(TokenKind::Punct, start, i);
            }
            Class::Dot if text.get(i + 1).is_some_and(u8::is_ascii_digit) => {
                i = number(text, start)?.1;
                sink.literal(LiteralKind::Numeric, start, i);
            }
            Class::Dot => {
                i += if text.get(i + 1) == Some(&b'.') { 2 } else { 1 };
                sink.token(TokenKind::Punct, start, i);
            }
            Class::Digit => {
                let (kind, end) = number(text, start)?;
                i = end;
                sink.literal(kind, start, end);
            }
            Class::Quote => {
                i = quoted(text, start, start + 1, Backslash::Plain)?;
                sink.literal(LiteralKind::Plain, start, i);
            }
            Class::DoubleQuote => {
                i = identifier(text, start, start + 1)?;
                sink.token(TokenKind::Quoted, start, i);
            }
            Class::Operator => i = operator(text, start, sink)?,
            Class::Dollar => i = dollar(text, start, sink)?,
            Class::Stray => return Err(ScanError::StrayByte { at: start }),
        }
    }
}

/// Past words, punctuation, operators that can't begin a comment, and single
/// spaces between them: the start of the next token that may be anything else.
/// A space right at `from` is left to the sink, since it may follow a fold.
#[inline]
fn past_unheard(text: &[u8], from: usize) -> usize {
    let mut i = from;
    while let Some(byte) = text.get(i) {
        match UNHEARD[usize::from(*byte)] {
            Unheard::Word => {
                let end = run(text, i + 1, |byte| CONTINUES_WORD[usize::from(byte)]);
                // It may be the prefix of a constant or identifier.
                if matches!(text.get(end), Some(b'\'' | b'&')) {
                    return i;
                }
                i = end;
            }
            Unheard::Space => {
                let more = text.get(i + 1).is_some_and(|b| CLASS[usize::from(*b)] == Class::Blank);
                if i == from || more {
                    return i;
                }
                i += 1;
            }
            Unheard::Alone => i += 1,
            Unheard::Matters => return i,
        }
    }
    i
}

/// A word, or a constant or identifier whose prefix looks like one.
#[inline]
fn word(text: &[u8], start: usize, sink: &mut impl Sink) -> Result<usize, ScanError> {
    match (text[start], text.get(start + 1), text.get(start + 2)) {
        (first, Some(b'\''), _) => {
            let (kind, end) = match first.to_ascii_lowercase() {
                b'e' => (LiteralKind::Escape, quoted(text, start, start + 2, Backslash::Escapes)?),
                b'b' => (LiteralKind::Bits, bits(text, start)?),
                b'x' => (LiteralKind::HexBits, bits(text, start)?),
                b'n' => (LiteralKind::National, quoted(text, start, start + 2, Backslash::Plain)?),
                _ => return Ok(plain_word(text, start, sink)),
            };
            sink.literal(kind, start, end);
            Ok(end)
        }
        (b'u' | b'U', Some(b'&'), Some(b'\'')) => {
            let end = quoted(text, start, start + 3, Backslash::Plain)?;
            sink.literal(LiteralKind::Unicode, start, end);
            Ok(end)
        }
        (b'u' | b'U', Some(b'&'), Some(b'"')) => {
            let end = identifier(text, start, start + 3)?;
            sink.token(TokenKind::UnicodeQuoted, start, end);
            Ok(end)
        }
        _ => Ok(plain_word(text, start, sink)),
    }
}

#[inline]
fn plain_word(text: &[u8], start: usize, sink: &mut impl Sink) -> usize {
    let i = run(text, start + 1, |byte| CONTINUES_WORD[usize::from(byte)]);
    sink.token(TokenKind::Word, start, i);
    i
}

#[inline]
fn blank(text: &[u8], start: usize, sink: &mut impl Sink) -> Result<usize, ScanError> {
    let i = run(text, start + 1, |byte| CLASS[usize::from(byte)] == Class::Blank);
    sink.blank(start, i);
    Ok(i)
}

/// The end of the bytes from `start` that are alike.
#[inline]
fn run(text: &[u8], start: usize, alike: impl Fn(u8) -> bool) -> usize {
    let mut rest = text.get(start..).unwrap_or_default();
    // By fours: there are more bytes than anything else.
    while let Some(([a, b, c, d], more)) = rest.split_first_chunk() {
        let at = text.len() - rest.len();
        if !alike(*a) {
            return at;
        }
        if !alike(*b) {
            return at + 1;
        }
        if !alike(*c) {
            return at + 2;
        }
        if !alike(*d) {
            return at + 3;
        }
        rest = more;
    }
    let left = rest.iter().position(|byte| !alike(*byte)).unwrap_or(rest.len());
    text.len() - rest.len() + left
}

/// The kind and end of the number that starts at `start`.
#[inline]
fn number(text: &[u8], start: usize) -> Result<(LiteralKind, usize), ScanError> {
    // Plain digits, as nearly always.
    let end = run(text, start, |byte| byte.is_ascii_digit());
    match text.get(end) {
        Some(byte) if *byte == b'.' || CONTINUES_WORD[usize::from(*byte)] => {
            written_number(text, start)
        }
        Some(_) | None if end > start => Ok((LiteralKind::Integer, end)),
        Some(_) | None => written_number(text, start),
    }
}

/// A number in any notation.
fn written_number(text: &[u8], start: usize) -> Result<(LiteralKind, usize), ScanError> {
    let junk = ScanError::Junk { at: start };
    let radix_digit: Option<fn(&u8) -> bool> = match (text[start], text.get(start + 1)) {
        (b'0', Some(b'x' | b'X')) => Some(u8::is_ascii_hexdigit),
        (b'0', Some(b'o' | b'O')) => Some(|byte| (b'0'..=b'7').contains(byte)),
        (b'0', Some(b'b' | b'B')) => Some(|byte| matches!(byte, b'0' | b'1')),
        _ => None,
    };
    let mut kind = LiteralKind::Integer;
    let mut i = start;
    if let Some(is_digit) = radix_digit {
        kind = LiteralKind::Numeric;
        i = digits(text, start + 2, is_digit, Underscore::First).ok_or(junk)?;
    } else {
        if text[start] != b'.' {
            i = digits(text, start, u8::is_ascii_digit, Underscore::Between).ok_or(junk)?;
            if text[start..i].contains(&b'_') {
                kind = LiteralKind::Numeric;
            }
        }
        if text.get(i) == Some(&b'.') && text.get(i + 1) != Some(&b'.') {
            kind = LiteralKind::Numeric;
            i += 1;
            i = digits(text, i, u8::is_ascii_digit, Underscore::Between).unwrap_or(i);
        }
        if matches!(text.get(i), Some(b'e' | b'E')) {
            kind = LiteralKind::Numeric;
            i += 1;
            if matches!(text.get(i), Some(b'+' | b'-')) {
                i += 1;
            }
            i = digits(text, i, u8::is_ascii_digit, Underscore::Between).ok_or(junk)?;
        }
    }
    if text.get(i).is_some_and(|byte| CLASS[usize::from(*byte)] == Class::Word) {
        return Err(junk);
    }
    Ok((kind, i))
}

/// Where an underscore may stand among digits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Underscore {
    Between,
    First,
}

/// The end of the digits from `start`; `None` if there is none.
fn digits(
    text: &[u8],
    start: usize,
    is_digit: fn(&u8) -> bool,
    underscore: Underscore,
) -> Option<usize> {
    let mut i = start;
    loop {
        match text.get(i) {
            Some(byte) if is_digit(byte) => i += 1,
            Some(b'_')
                if (i > start || underscore == Underscore::First)
                    && text.get(i + 1).is_some_and(is_digit) =>
            {
                i += 2;
            }
            _ => return (i > start).then_some(i),
        }
    }
}

/// What a backslash means inside a string.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Backslash {
    Plain,
    Escapes,
}

/// The end of the string whose inside begins at `inside`, continuations on
/// later lines included.
fn quoted(
    text: &[u8],
    start: usize,
    inside: usize,
    backslash: Backslash,
) -> Result<usize, ScanError> {
    let mut i = inside;
    loop {
        i = run(text, i, |byte| byte != b'\'' && byte != b'\\');
        match text.get(i) {
            None => {
                return Err(ScanError::Unterminated { what: Unterminated::String, at: start });
            }
            Some(b'\'') if text.get(i + 1) == Some(&b'\'') => i += 2,
            Some(b'\'') => match continuation(text, i + 1) {
                Some(next) => i = next,
                None => return Ok(i + 1),
            },
            Some(b'\\') if backslash == Backslash::Escapes => i += 2,
            Some(_) => i += 1,
        }
    }
}

/// The end of the bit string that begins at `start`: a quote ends it, doubled or
/// not.
fn bits(text: &[u8], start: usize) -> Result<usize, ScanError> {
    let mut i = start + 2;
    loop {
        i = run(text, i, |byte| byte != b'\'');
        if i >= text.len() {
            return Err(ScanError::Unterminated { what: Unterminated::String, at: start });
        }
        match continuation(text, i + 1) {
            Some(next) => i = next,
            None => return Ok(i + 1),
        }
    }
}

/// Where a string that closed just before `after` goes on: past the next
/// quote, if only blanks and `--` comments with a line end lie between.
pub(crate) fn continuation(text: &[u8], after: usize) -> Option<usize> {
    let mut i = after;
    let mut line_ended = false;
    loop {
        match text.get(i)? {
            b'\n' | b'\r' => {
                line_ended = true;
                i += 1;
            }
            b' ' | b'\t' | b'\x0C' => i += 1,
            b'-' if text.get(i + 1) == Some(&b'-') => i = line_end(text, i),
            b'\'' if line_ended => return Some(i + 1),
            _ => return None,
        }
    }
}

fn line_end(text: &[u8], from: usize) -> usize {
    text[from..]
        .iter()
        .position(|byte| matches!(byte, b'\n' | b'\r'))
        .map_or(text.len(), |n| from + n)
}

fn identifier(text: &[u8], start: usize, inside: usize) -> Result<usize, ScanError> {
    let mut i = inside;
    loop {
        i = run(text, i, |byte| byte != b'"');
        match text.get(i) {
            None => {
                return Err(ScanError::Unterminated { what: Unterminated::Identifier, at: start });
            }
            Some(b'"') if text.get(i + 1) == Some(&b'"') => i += 2,
            Some(b'"') => return Ok(i + 1),
            Some(_) => i += 1,
        }
    }
}

/// An operator, or a comment that begins where one could.
fn operator(text: &[u8], start: usize, sink: &mut impl Sink) -> Result<usize, ScanError> {
    match (text[start], text.get(start + 1)) {
        (b'-', Some(b'-')) => {
            let end = line_end(text, start);
            sink.blank(start, end);
            return Ok(end);
        }
        (b'/', Some(b'*')) => {
            let end = comment(text, start)?;
            if is_hint(&text[start..end]) {
                sink.hint(start, end);
            } else {
                sink.blank(start, end);
            }
            return Ok(end);
        }
        _ => {}
    }
    let mut end = start + 1;
    while let Some(&byte) = text.get(end) {
        if CLASS[usize::from(byte)] != Class::Operator
            || matches!((byte, text.get(end + 1)), (b'-', Some(b'-')) | (b'/', Some(b'*')))
        {
            break;
        }
        end += 1;
    }
    // A longer operator may end in + or - only if it holds a character that no
    // operator of standard SQL has.
    if end - start > 1 && !text[start..end].iter().any(|byte| b"~!@#^&|`?%".contains(byte)) {
        while end - start > 1 && matches!(text[end - 1], b'+' | b'-') {
            end -= 1;
        }
    }
    sink.token(TokenKind::Operator, start, end);
    Ok(end)
}

/// The end of the comment at `start`; comments nest.
fn comment(text: &[u8], start: usize) -> Result<usize, ScanError> {
    let mut depth = 1_usize;
    let mut i = start + 2;
    while depth > 0 {
        match (text.get(i), text.get(i + 1)) {
            (Some(b'/'), Some(b'*')) => {
                depth += 1;
                i += 2;
            }
            (Some(b'*'), Some(b'/')) => {
                depth -= 1;
                i += 2;
            }
            (Some(_), _) => i += 1,
            (None, _) => {
                return Err(ScanError::Unterminated { what: Unterminated::Comment, at: start });
            }
        }
    }
    Ok(i)
}

fn is_hint(comment: &[u8]) -> bool {
    let inside = comment.get(2..).unwrap_or_default().trim_ascii_start();
    inside.get(..HINT_WORD.len()).is_some_and(|word| word.eq_ignore_ascii_case(HINT_WORD))
}

/// A parameter or a dollar-quoted string.
fn dollar(text: &[u8], start: usize, sink: &mut impl Sink) -> Result<usize, ScanError> {
    let mut i = start + 1;
    if text.get(i).is_some_and(u8::is_ascii_digit) {
        while text.get(i).is_some_and(u8::is_ascii_digit) {
            i += 1;
        }
        if text.get(i).is_some_and(|byte| CLASS[usize::from(*byte)] == Class::Word) {
            return Err(ScanError::Junk { at: start });
        }
        sink.token(TokenKind::Param, start, i);
        return Ok(i);
    }
    while text.get(i).is_some_and(|byte| *byte != b'$' && CONTINUES_WORD[usize::from(*byte)]) {
        i += 1;
    }
    if text.get(i) != Some(&b'$') {
        return Err(ScanError::StrayByte { at: start });
    }
    let tag = &text[start..=i];
    let mut from = i + 1;
    while let Some(n) = text[from..].iter().position(|byte| *byte == b'$') {
        if text[from + n..].starts_with(tag) {
            let end = from + n + tag.len();
            sink.literal(LiteralKind::Dollar, start, end);
            return Ok(end);
        }
        from += n + 1;
    }
    Err(ScanError::Unterminated { what: Unterminated::DollarString, at: start })
}

/// What a token that starts with a byte can be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Word,
    Blank,
    Punct,
    Dot,
    Digit,
    Quote,
    DoubleQuote,
    Operator,
    Dollar,
    Stray,
}

/// What a byte at a token's start means to [`past_unheard`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unheard {
    Word,
    Space,
    Alone,
    Matters,
}

/// The longest text whose offsets fit a span.
pub(crate) const TEXT_BYTES_MAX: usize = 1 << 30;
const HINT_WORD: &[u8] = b"keyway:";

const CLASS: [Class; 256] = {
    let mut table = [Class::Stray; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => Class::Word,
            b' ' | b'\t' | b'\n' | b'\r' | 0x0C => Class::Blank,
            b'(' | b')' | b'[' | b']' | b',' | b';' | b':' => Class::Punct,
            b'.' => Class::Dot,
            b'0'..=b'9' => Class::Digit,
            b'\'' => Class::Quote,
            b'"' => Class::DoubleQuote,
            b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'+' | b'-' | b'*'
            | b'/' | b'%' | b'<' | b'>' | b'=' => Class::Operator,
            b'$' => Class::Dollar,
            _ => Class::Stray,
        };
        byte += 1;
    }
    table
};

const UNHEARD: [Unheard; 256] = {
    let mut table = [Unheard::Matters; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match (CLASS[byte], byte as u8) {
            (Class::Word, _) => Unheard::Word,
            (Class::Blank, b' ') => Unheard::Space,
            // These two can open a comment, the third belongs to a prefix.
            (Class::Operator, b'-' | b'/' | b'&') => Unheard::Matters,
            (Class::Operator | Class::Punct, _) => Unheard::Alone,
            _ => Unheard::Matters,
        };
        byte += 1;
    }
    table
};

const CONTINUES_WORD: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(CLASS[byte], Class::Word | Class::Digit | Class::Dollar);
        byte += 1;
    }
    table
};
