//! Views of a client's messages, borrowed from complete bodies.
//!
//! Names and texts are bytes without their zero byte, in the client's
//! encoding. Whether a parameter's format fits its count is left to the
//! server, which says so in its own words; the view answers `None`.
//!
//! Source: PostgreSQL manual, "Message Formats".

use std::fmt;
use std::ops::Range;

use super::error::{DecodeError, Fault};
use super::read::{Reader, only_text};
use crate::types::{Format, Oid};

/// Query: one text with any number of statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query<'a>(pub &'a [u8]);

impl<'a> Query<'a> {
    /// Reads a Query's body.
    ///
    /// # Errors
    /// A body that is not one terminated text.
    #[inline]
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        only_text(body, "Query").map(Self)
    }
}

/// Parse: prepares a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parse<'a> {
    /// The statement's name; empty for the unnamed one.
    pub name: &'a [u8],
    /// The statement's text.
    pub query: &'a [u8],
    types: &'a [u8],
}

impl<'a> Parse<'a> {
    /// Reads a Parse's body.
    ///
    /// # Errors
    /// A body of another form.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, "Parse");
        let name = reader.text()?;
        let query = reader.text()?;
        let count = reader.u16()?;
        let types = reader.numbers(count, 4)?;
        reader.end()?;
        Ok(Self { name, query, types })
    }

    /// The same with another text.
    #[must_use]
    pub const fn with_query<'b>(self, query: &'b [u8]) -> Parse<'b>
    where
        'a: 'b,
    {
        Parse { name: self.name, query, types: self.types }
    }

    /// The parameter types given, in order; fewer than there are parameters
    /// if the client leaves them to the server.
    pub fn param_types(&self) -> impl ExactSizeIterator<Item = Oid> + use<'a> {
        self.types.as_chunks::<4>().0.iter().map(|oid| Oid::new(u32::from_be_bytes(*oid)))
    }

    /// The parameter types as they crossed the wire, four bytes each.
    pub const fn raw_types(&self) -> &'a [u8] {
        self.types
    }
}

/// The formats of a Bind's parameters or results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Formats<'a>(&'a [u8]);

impl<'a> Formats<'a> {
    /// Format codes given: none (all text), one (for all), or one for each.
    pub const fn count(&self) -> usize {
        self.0.len() / 2
    }

    /// Format of the value at `index` of `values`; `None` if the codes don't
    /// fit the number of values, or the code is unknown.
    #[inline]
    pub fn of(&self, index: usize, values: usize) -> Option<Format> {
        let codes = self.0.as_chunks::<2>().0;
        let code = match codes {
            [] => return (index < values).then_some(Format::Text),
            [one] if index < values => one,
            _ if codes.len() == values => codes.get(index)?,
            _ => return None,
        };
        match u16::from_be_bytes(*code) {
            0 => Some(Format::Text),
            1 => Some(Format::Binary),
            _ => None,
        }
    }

    /// The codes as they crossed the wire, two bytes each.
    pub const fn raw(&self) -> &'a [u8] {
        self.0
    }
}

/// Bind: makes a portal of a statement and its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind<'a> {
    body: &'a [u8],
    head: BindHead<'a>,
    values: &'a [u8],
    result_formats: Formats<'a>,
}

/// What a Bind begins with; the values follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BindHead<'a> {
    portal: &'a [u8],
    statement: &'a [u8],
    formats: Formats<'a>,
    count: u16,
}

impl<'a> BindHead<'a> {
    #[inline]
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let portal = reader.text()?;
        let statement = reader.text()?;
        let codes = reader.u16()?;
        let formats = Formats(reader.numbers(codes, 2)?);
        let count = reader.u16()?;
        Ok(Self { portal, statement, formats, count })
    }

    const fn statement_span(&self) -> Range<usize> {
        // Both lengths were measured within one body, so the sums are too.
        let start = self.portal.len().saturating_add(1);
        start..start.saturating_add(self.statement.len())
    }
}

impl<'a> Bind<'a> {
    /// Reads a Bind's body, once through.
    ///
    /// # Errors
    /// A body of another form, or a value longer than what is left of it.
    #[inline]
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, "Bind");
        let head = BindHead::decode(&mut reader)?;
        let values = reader.rest();
        for _ in 0..head.count {
            reader.value()?;
        }
        let codes = reader.u16()?;
        let result_formats = Formats(reader.numbers(codes, 2)?);
        reader.end()?;
        Ok(Self { body, head, values, result_formats })
    }

    /// Reads what has arrived of a Bind's body that is too long to wait for.
    ///
    /// `None` until everything before the values is there.
    ///
    /// # Errors
    /// A value with a negative length among those that arrived.
    pub fn decode_prefix(prefix: &'a [u8]) -> Result<Option<BindPrefix<'a>>, DecodeError> {
        let mut reader = Reader::new(prefix, "Bind");
        let Some(head) = arrived(BindHead::decode(&mut reader))? else { return Ok(None) };
        let values = reader.rest();
        let mut complete = 0;
        while complete < head.count && arrived(reader.value())?.is_some() {
            complete += 1;
        }
        Ok(Some(BindPrefix { prefix, head, values, complete }))
    }

    /// The portal's name; empty for the unnamed one.
    pub const fn portal(&self) -> &'a [u8] {
        self.head.portal
    }

    /// The statement's name; empty for the unnamed one.
    pub const fn statement(&self) -> &'a [u8] {
        self.head.statement
    }

    /// Where the statement's name stands in the body, without its zero byte.
    pub const fn statement_span(&self) -> Range<usize> {
        self.head.statement_span()
    }

    /// The whole body.
    pub const fn body(&self) -> &'a [u8] {
        self.body
    }

    /// The parameters' formats.
    pub const fn formats(&self) -> Formats<'a> {
        self.head.formats
    }

    /// The results' formats.
    pub const fn result_formats(&self) -> Formats<'a> {
        self.result_formats
    }

    /// Number of parameters.
    pub fn count(&self) -> usize {
        usize::from(self.head.count)
    }

    /// The value at the zero-based `index`: `None` if there is none,
    /// `Some(None)` for NULL. Walks over those before it.
    #[inline]
    pub fn param(&self, index: usize) -> Option<Option<&'a [u8]>> {
        nth_value(self.values, self.count(), index)
    }

    /// The format of the value at the zero-based `index`; `None` if there is
    /// no such value or the codes don't say.
    #[inline]
    pub fn format_of(&self, index: usize) -> Option<Format> {
        self.head.formats.of(index, self.count())
    }

    /// All values in order, `None` for NULL.
    pub fn params(&self) -> impl Iterator<Item = Option<&'a [u8]>> + use<'a> {
        let mut reader = Reader::new(self.values, "Bind");
        (0..self.head.count).map_while(move |_| reader.value().ok())
    }
}

/// The beginning of a Bind's body, with the values that arrived whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindPrefix<'a> {
    prefix: &'a [u8],
    head: BindHead<'a>,
    values: &'a [u8],
    complete: u16,
}

impl<'a> BindPrefix<'a> {
    /// The portal's name; empty for the unnamed one.
    pub const fn portal(&self) -> &'a [u8] {
        self.head.portal
    }

    /// The statement's name; empty for the unnamed one.
    pub const fn statement(&self) -> &'a [u8] {
        self.head.statement
    }

    /// Where the statement's name stands in the body, without its zero byte.
    pub const fn statement_span(&self) -> Range<usize> {
        self.head.statement_span()
    }

    /// The bytes that were read.
    pub const fn prefix(&self) -> &'a [u8] {
        self.prefix
    }

    /// Number of parameters that the whole message has.
    pub fn count(&self) -> usize {
        usize::from(self.head.count)
    }

    /// Number of parameters that arrived whole.
    pub fn complete(&self) -> usize {
        usize::from(self.complete)
    }

    /// The value at the zero-based `index`: `None` if it did not arrive whole
    /// or there is none, `Some(None)` for NULL.
    pub fn param(&self, index: usize) -> Option<Option<&'a [u8]>> {
        nth_value(self.values, self.complete(), index)
    }

    /// The format of the value at the zero-based `index`; `None` if there is
    /// no such value or the codes don't say.
    pub fn format_of(&self, index: usize) -> Option<Format> {
        self.head.formats.of(index, self.count())
    }
}

/// `None` if the body merely ends too early.
fn arrived<T>(read: Result<T, DecodeError>) -> Result<Option<T>, DecodeError> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(error) => match error.fault() {
            Fault::Truncated | Fault::MissingNul => Ok(None),
            Fault::TrailingBytes | Fault::InvalidLength | Fault::UnknownCode => Err(error),
        },
    }
}

#[inline]
fn nth_value(values: &[u8], count: usize, index: usize) -> Option<Option<&[u8]>> {
    if index >= count {
        return None;
    }
    let mut reader = Reader::new(values, "Bind");
    for _ in 0..index {
        reader.value().ok()?;
    }
    reader.value().ok()
}

/// What Describe and Close name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A prepared statement.
    Statement,
    /// A portal.
    Portal,
}

impl Target {
    /// The byte on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Self::Statement => b'S',
            Self::Portal => b'P',
        }
    }

    fn decode<'a>(body: &'a [u8], part: &'static str) -> Result<(Self, &'a [u8]), DecodeError> {
        let mut reader = Reader::new(body, part);
        let kind = match reader.u8()? {
            b'S' => Self::Statement,
            b'P' => Self::Portal,
            _ => return Err(reader.fault(Fault::UnknownCode)),
        };
        let name = reader.text()?;
        reader.end()?;
        Ok((kind, name))
    }
}

/// Describe: asks for the form of a statement or a portal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Describe<'a> {
    /// What `name` names.
    pub kind: Target,
    /// Empty for the unnamed one.
    pub name: &'a [u8],
}

impl<'a> Describe<'a> {
    /// Reads a Describe's body.
    ///
    /// # Errors
    /// A body of another form, or a kind other than `S` and `P`.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        Target::decode(body, "Describe").map(|(kind, name)| Self { kind, name })
    }
}

/// Close: forgets a statement or a portal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close<'a> {
    /// What `name` names.
    pub kind: Target,
    /// Empty for the unnamed one.
    pub name: &'a [u8],
}

impl<'a> Close<'a> {
    /// Reads a Close's body.
    ///
    /// # Errors
    /// A body of another form, or a kind other than `S` and `P`.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        Target::decode(body, "Close").map(|(kind, name)| Self { kind, name })
    }
}

/// Execute: runs a portal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Execute<'a> {
    /// The portal's name; empty for the unnamed one.
    pub portal: &'a [u8],
    /// Most rows to return; no limit if zero or negative.
    pub max_rows: i32,
}

impl<'a> Execute<'a> {
    /// Reads an Execute's body.
    ///
    /// # Errors
    /// A body of another form.
    #[inline]
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, "Execute");
        let portal = reader.text()?;
        let max_rows = reader.i32()?;
        reader.end()?;
        Ok(Self { portal, max_rows })
    }
}

/// CopyFail: the client gives up, with its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyFail<'a>(pub &'a [u8]);

impl<'a> CopyFail<'a> {
    /// Reads a CopyFail's body.
    ///
    /// # Errors
    /// A body that is not one terminated text.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        only_text(body, "CopyFail").map(Self)
    }
}

/// PasswordMessage: a password as it is, or its MD5 digest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Password<'a>(pub &'a [u8]);

impl<'a> Password<'a> {
    /// Reads a PasswordMessage's body.
    ///
    /// # Errors
    /// A body that is not one terminated text.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        only_text(body, "PasswordMessage").map(Self)
    }
}

impl fmt::Debug for Password<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(redacted)")
    }
}

/// SASLInitialResponse: the mechanism chosen and its first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaslInitialResponse<'a> {
    /// The mechanism's name.
    pub mechanism: &'a [u8],
    /// The mechanism's first message, where the client sent one.
    pub data: Option<&'a [u8]>,
}

impl<'a> SaslInitialResponse<'a> {
    /// Reads a SASLInitialResponse's body.
    ///
    /// # Errors
    /// A body of another form.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, "SASLInitialResponse");
        let mechanism = reader.text()?;
        let data = reader.value()?;
        reader.end()?;
        Ok(Self { mechanism, data })
    }
}

/// SASLResponse: the mechanism's next message, which is the whole body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaslResponse<'a>(pub &'a [u8]);

impl<'a> SaslResponse<'a> {
    /// The view of a SASLResponse's body; every body is one.
    pub const fn decode(body: &'a [u8]) -> Self {
        Self(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BIND: &[u8] = b"p\0stmt\0\0\x02\0\0\0\x01\0\x02\xFF\xFF\xFF\xFF\0\0\0\x02ab\0\x01\0\x01";

    #[test]
    fn bind_gives_values_and_formats() {
        let bind = Bind::decode(BIND).unwrap();
        assert_eq!((bind.portal(), bind.statement()), (&b"p"[..], &b"stmt"[..]));
        assert_eq!(&BIND[bind.statement_span()], b"stmt");
        assert_eq!(bind.count(), 2);
        assert_eq!(bind.param(0), Some(None));
        assert_eq!(bind.param(1), Some(Some(&b"ab"[..])));
        assert_eq!(bind.param(2), None);
        assert_eq!(bind.format_of(0), Some(Format::Text));
        assert_eq!(bind.format_of(1), Some(Format::Binary));
        assert_eq!(bind.format_of(2), None);
        assert_eq!(bind.result_formats().of(7, 9), Some(Format::Binary));
        assert_eq!(bind.params().count(), 2);
    }

    #[test]
    fn bind_cut_anywhere_is_refused() {
        for end in 0..BIND.len() {
            assert!(Bind::decode(&BIND[..end]).is_err(), "cut at {end}");
        }
        let mut longer = BIND.to_vec();
        longer.push(0);
        assert_eq!(Bind::decode(&longer).unwrap_err().fault(), Fault::TrailingBytes);
    }

    #[test]
    fn bind_prefix_gives_what_arrived_whole() {
        let second_value_end = BIND.len() - 4;
        for end in 0..=BIND.len() {
            let prefix = Bind::decode_prefix(&BIND[..end]).unwrap();
            match prefix {
                None => assert!(end < 15, "cut at {end}"),
                Some(prefix) => {
                    assert!(end >= 15, "cut at {end}");
                    assert_eq!(prefix.count(), 2);
                    assert_eq!(prefix.param(0).is_some(), end >= 19, "cut at {end}");
                    assert_eq!(prefix.param(1).is_some(), end >= second_value_end);
                }
            }
        }
    }

    #[test]
    fn value_shorter_than_null_is_refused() {
        let body = b"\0\0\0\0\0\x01\xFF\xFF\xFF\xFE\0\0";
        assert_eq!(Bind::decode(body).unwrap_err().fault(), Fault::InvalidLength);
        assert!(Bind::decode_prefix(body).is_err());
    }

    #[test]
    fn format_that_the_codes_do_not_say_is_none() {
        let codes = Formats(b"\0\0\0\x01");
        assert_eq!(codes.of(0, 3), None, "two codes for three values");
        assert_eq!(Formats(b"\0\x02").of(0, 1), None, "an unknown code");
        assert_eq!(Formats(b"").of(4, 5), Some(Format::Text));
        assert_eq!(Formats(b"").of(5, 5), None);
        assert_eq!(Formats(b"\0\x01").of(4, 5), Some(Format::Binary));
    }

    #[test]
    fn query_with_a_zero_byte_inside_is_refused() {
        assert_eq!(Query::decode(b"select 1\0"), Ok(Query(b"select 1")));
        assert!(Query::decode(b"select\x001\0").is_err());
        assert!(Query::decode(b"select 1").is_err());
        assert!(Query::decode(b"").is_err());
    }

    #[test]
    fn parse_gives_types() {
        let parse = Parse::decode(b"s\0select $1\0\0\x01\0\0\0\x17").unwrap();
        assert_eq!((parse.name, parse.query), (&b"s"[..], &b"select $1"[..]));
        assert_eq!(parse.param_types().collect::<Vec<_>>(), [Oid::new(23)]);
        assert!(Parse::decode(b"s\0select $1\0\0\x02\0\0\0\x17").is_err());
    }

    #[test]
    fn describe_of_an_unknown_kind_is_refused() {
        assert_eq!(Describe::decode(b"Sx\0").unwrap().kind, Target::Statement);
        assert_eq!(Close::decode(b"P\0").unwrap().kind, Target::Portal);
        assert_eq!(Describe::decode(b"Qx\0").unwrap_err().fault(), Fault::UnknownCode);
    }

    #[test]
    fn password_is_not_printed() {
        let password = Password::decode(b"hunter2\0").unwrap();
        assert_eq!(format!("{password:?}"), "Password(redacted)");
    }
}
