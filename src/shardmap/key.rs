//! Sharding keys: which texts and bytes denote which value, by Postgres's own
//! rules of input and equality.
//!
//! Two spellings of one value give one key, and a spelling whose meaning
//! depends on the server's version, or that a column might store differently,
//! is refused: a wrong guess is a wrong shard.
//!
//! Source: PostgreSQL manual, "Numeric Types", "UUID Type", "Character Types".

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::types::{Format, Oid, SqlState};

use super::calendar;
use super::decimal::{DIGITS_MAX, Decimal};

/// Type of a key column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeyType {
    /// `smallint`.
    Int2,
    /// `integer`.
    Int4,
    /// `bigint`.
    Int8,
    /// `text`, or `varchar` without a length; deterministic collation.
    Text,
    /// `varchar(n)`; deterministic collation.
    Varchar,
    /// `uuid`.
    Uuid,
    /// `numeric`.
    Numeric,
    /// `character(n)`; deterministic collation.
    Char,
    /// `date`.
    Date,
    /// `timestamp with time zone`.
    Timestamptz,
    /// `bytea`.
    Bytea,
}

impl KeyType {
    /// All of them.
    pub(crate) const ALL: [Self; 11] = [
        Self::Int2,
        Self::Int4,
        Self::Int8,
        Self::Text,
        Self::Varchar,
        Self::Uuid,
        Self::Numeric,
        Self::Char,
        Self::Date,
        Self::Timestamptz,
        Self::Bytea,
    ];

    /// Whether values are ordered alike by every server, so that ranges of them
    /// mean the same everywhere.
    pub const fn is_ordered(self) -> bool {
        match self {
            Self::Int2 | Self::Int4 | Self::Int8 | Self::Uuid | Self::Date | Self::Timestamptz => {
                true
            }
            Self::Text | Self::Varchar | Self::Numeric | Self::Char | Self::Bytea => false,
        }
    }

    /// Whether it is an integer of any width.
    pub const fn is_integer(self) -> bool {
        self.integer_width().is_some()
    }

    /// The word that the map file uses, which is also the type's name in SQL.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Int2 => "int2",
            Self::Int4 => "int4",
            Self::Int8 => "int8",
            Self::Text => "text",
            Self::Varchar => "varchar",
            Self::Uuid => "uuid",
            Self::Numeric => "numeric",
            Self::Char => "char",
            Self::Date => "date",
            Self::Timestamptz => "timestamptz",
            Self::Bytea => "bytea",
        }
    }

    /// Bytes of an integer's binary form; `None` for other types.
    const fn integer_width(self) -> Option<usize> {
        match self {
            Self::Int2 => Some(2),
            Self::Int4 => Some(4),
            Self::Int8 => Some(8),
            Self::Text
            | Self::Varchar
            | Self::Uuid
            | Self::Numeric
            | Self::Char
            | Self::Date
            | Self::Timestamptz
            | Self::Bytea => None,
        }
    }

    /// Whether a parameter of type `oid` compares with this type by the type's
    /// own equality. Zero and `unknown` take the column's type.
    fn accepts(self, oid: Oid) -> bool {
        if [UNSPECIFIED, UNKNOWN].contains(&oid) {
            return true;
        }
        match self {
            Self::Int2 | Self::Int4 | Self::Int8 | Self::Numeric => {
                [INT2, INT4, INT8, NUMERIC].contains(&oid)
            }
            Self::Text | Self::Varchar => [TEXT, VARCHAR, NAME].contains(&oid),
            Self::Uuid => oid == UUID,
            Self::Char => [BPCHAR, TEXT, VARCHAR].contains(&oid),
            Self::Date => oid == DATE,
            Self::Timestamptz => oid == TIMESTAMPTZ,
            Self::Bytea => oid == BYTEA,
        }
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A value of the sharding key in canonical form: equal keys are equal values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key<'a> {
    /// An integer of any width.
    Int(i64),
    /// A text.
    Text(&'a str),
    /// A uuid.
    Uuid([u8; 16]),
    /// A number of any scale.
    Numeric(Decimal),
    /// A date, in days from 2000-01-01.
    Date(i32),
    /// A point in time, in microseconds from 2000-01-01 00:00 UTC.
    Time(i64),
    /// Bytes.
    Bytes(&'a [u8]),
    /// Several columns together, by their hash: the slot follows from that alone,
    /// so keys that share it always share their shard.
    Row(u64),
}

/// Where the bytes of a key go that its text only spells.
#[derive(Debug, Default)]
pub struct Scratch(Vec<u8>);

impl<'a> Key<'a> {
    /// The key that `text` denotes in a column of type `key_type`; `scratch` is
    /// only used for bytes.
    ///
    /// # Errors
    /// What Postgres would not accept, what only some versions or settings
    /// accept, and what lies outside the type's range. The statement can't be
    /// routed.
    pub fn from_text(
        key_type: KeyType,
        text: &'a str,
        scratch: &'a mut Scratch,
    ) -> Result<Self, KeyError> {
        match key_type {
            KeyType::Int2 | KeyType::Int4 | KeyType::Int8 => {
                in_range(key_type, parse_integer(key_type, text)?)
            }
            KeyType::Text | KeyType::Varchar => checked_text(key_type, text),
            KeyType::Char => checked_text(key_type, text.trim_end_matches(' ')),
            KeyType::Uuid => parse_uuid(text).map(Self::Uuid),
            KeyType::Numeric => Decimal::parse(text).map(Self::Numeric).ok_or(KeyError::NotNumeric),
            KeyType::Date => calendar::parse_date(text).map(Self::Date).ok_or(KeyError::NotDate),
            KeyType::Timestamptz => {
                calendar::parse_time(text).map(Self::Time).ok_or(KeyError::NotTime)
            }
            KeyType::Bytea => parse_bytes(text, &mut scratch.0).map(Self::Bytes),
        }
    }

    /// The key that equals `value`; `None` if no value of the column's type does.
    ///
    /// # Errors
    /// The type is not a number's.
    pub fn from_integer(key_type: KeyType, value: i64) -> Result<Option<Self>, KeyError> {
        if key_type.is_integer() {
            return Ok(in_range(key_type, value).ok());
        }
        Self::from_decimal(key_type, value.into())
    }

    /// As [`Key::from_integer`], for any number.
    ///
    /// # Errors
    /// The type is not a number's.
    pub fn from_decimal(key_type: KeyType, number: Decimal) -> Result<Option<Self>, KeyError> {
        match key_type {
            KeyType::Int2 | KeyType::Int4 | KeyType::Int8 => {
                Ok(number.to_integer().and_then(|value| in_range(key_type, value).ok()))
            }
            KeyType::Numeric => Ok(Some(Self::Numeric(number))),
            KeyType::Text
            | KeyType::Varchar
            | KeyType::Uuid
            | KeyType::Char
            | KeyType::Date
            | KeyType::Timestamptz
            | KeyType::Bytea => Err(KeyError::NotNumeric),
        }
    }

    /// The key in a bound parameter: `bytes` in `format`, declared as `oid`;
    /// `None` if no value of the column's type equals it. An `oid` of zero or
    /// `unknown` means the column's own type.
    ///
    /// # Errors
    /// A parameter type that does not compare with the column by the column's
    /// equality, a wrong length, a value that the parameter's type can't hold,
    /// text that is not UTF-8 or holds a NUL. The statement can't be routed.
    pub fn from_param(
        key_type: KeyType,
        format: Format,
        oid: Oid,
        bytes: &'a [u8],
        scratch: &'a mut Scratch,
    ) -> Result<Option<Self>, KeyError> {
        if !key_type.accepts(oid) {
            return Err(KeyError::ParameterType { key_type, oid });
        }
        if let Some(declared) = number_type(oid) {
            let number = match format {
                Format::Text => declared_number(declared, utf8(bytes)?)?,
                Format::Binary if declared == KeyType::Numeric => {
                    Decimal::from_binary(bytes).ok_or(KeyError::NotNumeric)?
                }
                Format::Binary => integer_from(declared, bytes)?.into(),
            };
            return Self::from_decimal(key_type, number);
        }
        match format {
            Format::Text => {
                let text = utf8(bytes)?;
                fits_type(key_type, oid, text)?;
                Self::from_text(key_type, text, scratch).map(Some)
            }
            Format::Binary => Self::from_binary(key_type, oid, bytes).map(Some),
        }
    }

    fn from_binary(key_type: KeyType, oid: Oid, bytes: &'a [u8]) -> Result<Self, KeyError> {
        let wrong = KeyError::Length { len: bytes.len() };
        match key_type {
            KeyType::Int2 | KeyType::Int4 | KeyType::Int8 => {
                in_range(key_type, integer_of_any_width(bytes)?)
            }
            KeyType::Text | KeyType::Varchar => {
                let text = utf8(bytes)?;
                fits_type(key_type, oid, text)?;
                checked_text(key_type, text)
            }
            KeyType::Char => {
                let text = utf8(bytes)?;
                fits_type(key_type, oid, text)?;
                checked_text(key_type, text.trim_end_matches(' '))
            }
            KeyType::Uuid => bytes.try_into().map(Self::Uuid).map_err(|_| wrong),
            KeyType::Numeric => {
                Decimal::from_binary(bytes).map(Self::Numeric).ok_or(KeyError::NotNumeric)
            }
            KeyType::Date => {
                bytes.try_into().map(|days| Self::Date(i32::from_be_bytes(days))).map_err(|_| wrong)
            }
            KeyType::Timestamptz => bytes
                .try_into()
                .map(|micros| Self::Time(i64::from_be_bytes(micros)))
                .map_err(|_| wrong),
            KeyType::Bytea => Ok(Self::Bytes(bytes)),
        }
    }
}

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(value) => write!(f, "{value}"),
            Self::Text(text) => f.write_str(text),
            Self::Uuid(bytes) => {
                for (i, byte) in bytes.iter().enumerate() {
                    if [4, 6, 8, 10].contains(&i) {
                        f.write_str("-")?;
                    }
                    write!(f, "{byte:02x}")?;
                }
                Ok(())
            }
            Self::Numeric(number) => number.fmt(f),
            Self::Date(days) => calendar::write_date(f, (*days).into()),
            Self::Time(micros) => calendar::write_time(f, *micros),
            Self::Bytes(bytes) => {
                f.write_str("\\x")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::Row(hash) => write!(f, "(row of hash {hash:016x})"),
        }
    }
}

/// Why a value is no usable key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// Not an integer in any version's spelling.
    NotInteger(KeyType),
    /// `0x1F`, `0o7`, `0b1` or `1_000`: servers before 16 refuse these.
    VersionDependent(KeyType),
    /// Outside the range of the type.
    OutOfRange(KeyType),
    /// Not a uuid in a spelling that Postgres reads.
    NotUuid,
    /// Not a number, or one of too many digits.
    NotNumeric,
    /// Not a date in ISO 8601.
    NotDate,
    /// Not a point in time in ISO 8601 with an offset.
    NotTime,
    /// Not bytes in hexadecimal, or in plain text without backslashes.
    NotBytes,
    /// A number with a fraction, which storing may round.
    Fraction,
    /// Not a row of as many columns as the key has.
    NotRow {
        /// How many it has.
        columns: usize,
    },
    /// A NUL in a text.
    Nul,
    /// Bytes that are not UTF-8.
    NotUtf8,
    /// A `varchar(n)` that ends in spaces: storing may cut them off.
    TrailingSpace,
    /// A `name` longer than a server keeps.
    NameTooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// A binary value of the wrong length.
    Length {
        /// Its length in bytes.
        len: usize,
    },
    /// A parameter type that is compared otherwise than the column.
    ParameterType {
        /// The column's type.
        key_type: KeyType,
        /// The parameter's.
        oid: Oid,
    },
}

impl KeyError {
    /// The state a client sees.
    pub const fn sqlstate(&self) -> SqlState {
        match self {
            Self::NotInteger(_)
            | Self::NotUuid
            | Self::NotNumeric
            | Self::NotBytes
            | Self::NotRow { .. } => SqlState::new("22P02"),
            Self::OutOfRange(_) => SqlState::new("22003"),
            Self::Nul | Self::NotUtf8 => SqlState::new("22021"),
            Self::Length { .. } => SqlState::new("22P03"),
            Self::VersionDependent(_)
            | Self::NotDate
            | Self::NotTime
            | Self::Fraction
            | Self::TrailingSpace
            | Self::NameTooLong { .. }
            | Self::ParameterType { .. } => SqlState::new("0A000"),
        }
    }

    /// The way out, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::VersionDependent(_) => {
                Some("write the number in plain decimal digits".to_owned())
            }
            Self::TrailingSpace => Some(
                "if the column has no length limit, declare the keyspace's type as text".to_owned(),
            ),
            Self::ParameterType { key_type, .. } => {
                Some(format!("bind the parameter as {key_type}, or leave its type unspecified"))
            }
            Self::NotDate => Some("write it as YYYY-MM-DD".to_owned()),
            Self::NotTime => Some("write it as YYYY-MM-DD HH:MM:SS+00".to_owned()),
            Self::NotBytes => Some("write it as '\\x' and hexadecimal digits".to_owned()),
            Self::Fraction => Some("write the key without digits after the point".to_owned()),
            Self::NotRow { .. } => Some("write it as a row is, '(eu,42)'".to_owned()),
            Self::NotNumeric => {
                Some(format!("write a plain number of at most {DIGITS_MAX} digits"))
            }
            Self::NotInteger(_)
            | Self::OutOfRange(_)
            | Self::NotUuid
            | Self::Nul
            | Self::NotUtf8
            | Self::NameTooLong { .. }
            | Self::Length { .. } => None,
        }
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInteger(key_type) => write!(f, "the sharding key is not a valid {key_type}"),
            Self::NotRow { columns } => {
                write!(f, "the sharding key is not a row of {columns} values, none of them null")
            }
            Self::VersionDependent(key_type) => write!(
                f,
                "the sharding key is spelled in a way that only newer servers read as {key_type}"
            ),
            Self::OutOfRange(key_type) => {
                write!(f, "the sharding key is out of range for type {key_type}")
            }
            Self::NotUuid => f.write_str("the sharding key is not a valid uuid"),
            Self::NotNumeric => {
                f.write_str("the sharding key is not a number that can be read here")
            }
            Self::NotDate => {
                f.write_str("the sharding key is not a date that every setting reads alike")
            }
            Self::NotTime => f.write_str(
                "the sharding key is not a point in time that every setting reads alike",
            ),
            Self::NotBytes => f.write_str("the sharding key is not bytes that can be read here"),
            Self::Fraction => {
                f.write_str("the sharding key has a fraction, which the column may round")
            }
            Self::Nul => f.write_str("the sharding key holds a NUL"),
            Self::NotUtf8 => f.write_str("the sharding key is not valid UTF-8"),
            Self::TrailingSpace => {
                f.write_str("the sharding key ends in a space, which its column may cut off")
            }
            Self::NameTooLong { len } => write!(
                f,
                "the sharding key is a name of {len} bytes, more than the {NAME_BYTES_MAX} that are kept"
            ),
            Self::Length { len } => {
                write!(f, "the sharding key's binary form has a wrong length of {len} bytes")
            }
            Self::ParameterType { key_type, oid } => write!(
                f,
                "the sharding key of type {key_type} is given as a parameter of type {}",
                oid.number()
            ),
        }
    }
}

impl std::error::Error for KeyError {}

impl KeyType {
    /// The server's function of this type's 64-bit hash with a seed; dates are
    /// hashed as days since 2000. `None` if not every version has one.
    pub(crate) const fn server_hash(self) -> Option<&'static str> {
        match self {
            Self::Int2 | Self::Int4 | Self::Int8 => Some("hashint8extended"),
            Self::Text | Self::Varchar => Some("hashtextextended"),
            Self::Char => Some("hashbpcharextended"),
            Self::Uuid => Some("uuid_hash_extended"),
            Self::Numeric => Some("hash_numeric_extended"),
            Self::Date => Some("hashint4extended"),
            Self::Timestamptz | Self::Bytea => None,
        }
    }
}

/// What nearly every text of a key is: the number of a few digits and nothing
/// else, if they are few enough to fit.
#[inline]
pub(crate) fn plain_integer(text: &[u8]) -> Option<i64> {
    if text.is_empty() || text.len() > DIGITS_THAT_FIT {
        return None;
    }
    let mut value = 0;
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    Some(value)
}

/// Any number of so many digits is in the range of 64 bits.
const DIGITS_THAT_FIT: usize = 18;

/// Blanks, a sign, decimal digits, blanks.
fn parse_integer(key_type: KeyType, text: &str) -> Result<i64, KeyError> {
    if let Some(value) = plain_integer(text.as_bytes()) {
        return Ok(value);
    }
    let text = text.trim_matches(is_blank);
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() {
        return Err(KeyError::NotInteger(key_type));
    }
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let based = digits.strip_prefix('0').is_some_and(|rest| {
            rest.starts_with(['x', 'X', 'o', 'O', 'b', 'B'])
                && rest.chars().skip(1).all(|c| c.is_ascii_hexdigit() || c == '_')
        });
        let grouped = digits.starts_with(|c: char| c.is_ascii_digit())
            && digits.chars().all(|c| c.is_ascii_digit() || c == '_');
        return Err(if based || grouped {
            KeyError::VersionDependent(key_type)
        } else {
            KeyError::NotInteger(key_type)
        });
    }
    // Nothing but a sign and digits is left, so only the range can fail.
    text.parse().map_err(|_| KeyError::OutOfRange(key_type))
}

/// The blanks of C's `isspace`, which Postgres skips around a number.
const fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\x0B' | '\x0C' | '\r')
}

fn in_range<'a>(key_type: KeyType, value: i64) -> Result<Key<'a>, KeyError> {
    let fits = match key_type {
        KeyType::Int2 => i16::try_from(value).is_ok(),
        KeyType::Int4 => i32::try_from(value).is_ok(),
        KeyType::Int8
        | KeyType::Text
        | KeyType::Varchar
        | KeyType::Uuid
        | KeyType::Numeric
        | KeyType::Char
        | KeyType::Date
        | KeyType::Timestamptz
        | KeyType::Bytea => true,
    };
    if fits { Ok(Key::Int(value)) } else { Err(KeyError::OutOfRange(key_type)) }
}

fn checked_text(key_type: KeyType, text: &str) -> Result<Key<'_>, KeyError> {
    if text.contains('\0') {
        return Err(KeyError::Nul);
    }
    if key_type == KeyType::Varchar && text.ends_with(' ') {
        return Err(KeyError::TrailingSpace);
    }
    Ok(Key::Text(text))
}

/// What a declared type would do to a text before it meets the column.
fn fits_type(key_type: KeyType, oid: Oid, text: &str) -> Result<(), KeyError> {
    // A `name` keeps its first 63 bytes only.
    if oid == NAME && text.len() > NAME_BYTES_MAX {
        return Err(KeyError::NameTooLong { len: text.len() });
    }
    // A `character` column loses its padding when a text is compared with it.
    if key_type == KeyType::Char && [TEXT, VARCHAR].contains(&oid) && text.ends_with(' ') {
        return Err(KeyError::TrailingSpace);
    }
    Ok(())
}

fn utf8(bytes: &[u8]) -> Result<&str, KeyError> {
    std::str::from_utf8(bytes).map_err(|_| KeyError::NotUtf8)
}

/// The number that `text` is as a value of the declared type.
fn declared_number(declared: KeyType, text: &str) -> Result<Decimal, KeyError> {
    if declared == KeyType::Numeric {
        return Decimal::parse(text).ok_or(KeyError::NotNumeric);
    }
    let value = parse_integer(declared, text)?;
    in_range(declared, value)?;
    Ok(value.into())
}

/// `\x…`, or plain text without a backslash.
fn parse_bytes<'a>(text: &str, bytes: &'a mut Vec<u8>) -> Result<&'a [u8], KeyError> {
    bytes.clear();
    match text.strip_prefix("\\x") {
        Some(digits) => {
            for pair in digits.as_bytes().chunks(2) {
                let [high, low] = pair else { return Err(KeyError::NotBytes) };
                let digit = |digit| hex_digit(digit).map_err(|_| KeyError::NotBytes);
                bytes.push((digit(*high)? << 4) | digit(*low)?);
            }
        }
        None if text.contains('\\') => return Err(KeyError::NotBytes),
        None => bytes.extend_from_slice(text.as_bytes()),
    }
    Ok(bytes)
}

/// 32 digits in groups of four that hyphens may part, perhaps in braces.
fn parse_uuid(text: &str) -> Result<[u8; 16], KeyError> {
    let mut rest = match text.strip_prefix('{') {
        Some(inner) => inner.strip_suffix('}').ok_or(KeyError::NotUuid)?.as_bytes(),
        None => text.as_bytes(),
    };
    let mut bytes = [0; 16];
    for (i, byte) in bytes.iter_mut().enumerate() {
        let [high, low, tail @ ..] = rest else { return Err(KeyError::NotUuid) };
        *byte = (hex_digit(*high)? << 4) | hex_digit(*low)?;
        rest = match tail {
            [b'-', after @ ..] if i % 2 == 1 && i < 15 => after,
            _ => tail,
        };
    }
    if rest.is_empty() { Ok(bytes) } else { Err(KeyError::NotUuid) }
}

const fn hex_digit(digit: u8) -> Result<u8, KeyError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(KeyError::NotUuid),
    }
}

/// A big-endian integer of the declared width.
fn integer_from(declared: KeyType, bytes: &[u8]) -> Result<i64, KeyError> {
    if declared.integer_width() != Some(bytes.len()) {
        return Err(KeyError::Length { len: bytes.len() });
    }
    integer_of_any_width(bytes)
}

/// A big-endian integer. The server infers the type of a parameter from what it
/// is compared with; if that is this column alone or other integers, its width
/// tells it.
fn integer_of_any_width(bytes: &[u8]) -> Result<i64, KeyError> {
    match *bytes {
        [a, b] => Ok(i16::from_be_bytes([a, b]).into()),
        [a, b, c, d] => Ok(i32::from_be_bytes([a, b, c, d]).into()),
        [a, b, c, d, e, f, g, h] => Ok(i64::from_be_bytes([a, b, c, d, e, f, g, h])),
        _ => Err(KeyError::Length { len: bytes.len() }),
    }
}

fn number_type(oid: Oid) -> Option<KeyType> {
    match oid {
        INT2 => Some(KeyType::Int2),
        INT4 => Some(KeyType::Int4),
        INT8 => Some(KeyType::Int8),
        NUMERIC => Some(KeyType::Numeric),
        _ => None,
    }
}

const UNSPECIFIED: Oid = Oid::new(0);
const BYTEA: Oid = Oid::new(17);
const NAME: Oid = Oid::new(19);
const INT8: Oid = Oid::new(20);
const INT2: Oid = Oid::new(21);
const INT4: Oid = Oid::new(23);
const TEXT: Oid = Oid::new(25);
const UNKNOWN: Oid = Oid::new(705);
const BPCHAR: Oid = Oid::new(1042);
const VARCHAR: Oid = Oid::new(1043);
const DATE: Oid = Oid::new(1082);
const TIMESTAMPTZ: Oid = Oid::new(1184);
const NUMERIC: Oid = Oid::new(1700);
const UUID: Oid = Oid::new(2950);
/// Longer names are cut by the server.
const NAME_BYTES_MAX: usize = 63;
