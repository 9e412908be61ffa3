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
}

impl KeyType {
    /// The word that the map file uses, which is also the type's name in SQL.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Int2 => "int2",
            Self::Int4 => "int4",
            Self::Int8 => "int8",
            Self::Text => "text",
            Self::Varchar => "varchar",
            Self::Uuid => "uuid",
        }
    }

    /// Bytes of an integer's binary form; `None` for other types.
    const fn integer_width(self) -> Option<usize> {
        match self {
            Self::Int2 => Some(2),
            Self::Int4 => Some(4),
            Self::Int8 => Some(8),
            Self::Text | Self::Varchar | Self::Uuid => None,
        }
    }

    /// Whether a parameter of type `oid` compares with this type by the type's
    /// own equality. Zero and `unknown` take the column's type.
    fn accepts(self, oid: Oid) -> bool {
        if [UNSPECIFIED, UNKNOWN].contains(&oid) {
            return true;
        }
        match self {
            Self::Int2 | Self::Int4 | Self::Int8 => [INT2, INT4, INT8].contains(&oid),
            Self::Text | Self::Varchar => [TEXT, VARCHAR, NAME].contains(&oid),
            Self::Uuid => oid == UUID,
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
}

impl<'a> Key<'a> {
    /// The key that `text` denotes in a column of type `key_type`.
    ///
    /// # Errors
    /// What Postgres would not accept, what only some versions accept, and
    /// what lies outside the type's range. The statement can't be routed.
    pub fn from_text(key_type: KeyType, text: &'a str) -> Result<Self, KeyError> {
        match key_type {
            KeyType::Int2 | KeyType::Int4 | KeyType::Int8 => {
                in_range(key_type, parse_integer(key_type, text)?)
            }
            KeyType::Text | KeyType::Varchar => checked_text(key_type, text),
            KeyType::Uuid => parse_uuid(text).map(Self::Uuid),
        }
    }

    /// The key whose binary form, as a parameter of type `oid`, is `bytes`.
    ///
    /// An `oid` of zero or `unknown` means the column's own type.
    ///
    /// # Errors
    /// A parameter type that does not compare with the column by the column's
    /// equality, a wrong length, a value outside the column's range, text that
    /// is not UTF-8 or holds a NUL. The statement can't be routed.
    pub fn from_binary(key_type: KeyType, oid: Oid, bytes: &'a [u8]) -> Result<Self, KeyError> {
        if !key_type.accepts(oid) {
            return Err(KeyError::ParameterType { key_type, oid });
        }
        match key_type {
            KeyType::Int2 | KeyType::Int4 | KeyType::Int8 => {
                let value = integer_from(key_type, oid, bytes)?;
                in_range(key_type, value)
            }
            KeyType::Text | KeyType::Varchar => {
                let text = std::str::from_utf8(bytes).map_err(|_| KeyError::NotUtf8)?;
                fits_name(oid, text)?;
                checked_text(key_type, text)
            }
            KeyType::Uuid => {
                bytes.try_into().map(Self::Uuid).map_err(|_| KeyError::Length { len: bytes.len() })
            }
        }
    }

    /// The key in a bound parameter: `bytes` in `format`, declared as `oid`.
    ///
    /// # Errors
    /// As [`Key::from_text`] and [`Key::from_binary`].
    pub fn from_param(
        key_type: KeyType,
        format: Format,
        oid: Oid,
        bytes: &'a [u8],
    ) -> Result<Self, KeyError> {
        match format {
            Format::Binary => Self::from_binary(key_type, oid, bytes),
            Format::Text if key_type.accepts(oid) => {
                let text = std::str::from_utf8(bytes).map_err(|_| KeyError::NotUtf8)?;
                fits_name(oid, text)?;
                let key = Self::from_text(key_type, text)?;
                if let (Self::Int(value), Some(declared)) = (key, integer_type(oid)) {
                    // The server reads the text as the declared type first.
                    in_range(declared, value)?;
                }
                Ok(key)
            }
            Format::Text => Err(KeyError::ParameterType { key_type, oid }),
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
            Self::NotInteger(_) | Self::NotUuid => SqlState::new("22P02"),
            Self::OutOfRange(_) => SqlState::new("22003"),
            Self::Nul | Self::NotUtf8 => SqlState::new("22021"),
            Self::Length { .. } => SqlState::new("22P03"),
            Self::VersionDependent(_)
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
            Self::VersionDependent(key_type) => write!(
                f,
                "the sharding key is spelled in a way that only newer servers read as {key_type}"
            ),
            Self::OutOfRange(key_type) => {
                write!(f, "the sharding key is out of range for type {key_type}")
            }
            Self::NotUuid => f.write_str("the sharding key is not a valid uuid"),
            Self::Nul => f.write_str("the sharding key holds a NUL"),
            Self::NotUtf8 => f.write_str("the sharding key is not valid UTF-8"),
            Self::TrailingSpace => f.write_str(
                "the sharding key ends in a space, which a column of type varchar(n) may cut off",
            ),
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

/// What nearly every text is: a few digits and nothing else.
fn plain_integer(text: &str) -> Option<i64> {
    if text.is_empty() || text.len() > DIGITS_THAT_FIT {
        return None;
    }
    let mut value = 0;
    for byte in text.bytes() {
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
    if let Some(value) = plain_integer(text) {
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
        KeyType::Int8 | KeyType::Text | KeyType::Varchar | KeyType::Uuid => true,
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

/// A `name` parameter keeps its first 63 bytes only.
fn fits_name(oid: Oid, text: &str) -> Result<(), KeyError> {
    if oid == NAME && text.len() > NAME_BYTES_MAX {
        return Err(KeyError::NameTooLong { len: text.len() });
    }
    Ok(())
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

/// A big-endian integer of the parameter's width, or of the column's where
/// the parameter's type is left to the server.
fn integer_from(key_type: KeyType, oid: Oid, bytes: &[u8]) -> Result<i64, KeyError> {
    let declared = integer_type(oid).unwrap_or(key_type);
    let wrong = KeyError::Length { len: bytes.len() };
    if declared.integer_width() != Some(bytes.len()) {
        return Err(wrong);
    }
    match *bytes {
        [a, b] => Ok(i16::from_be_bytes([a, b]).into()),
        [a, b, c, d] => Ok(i32::from_be_bytes([a, b, c, d]).into()),
        [a, b, c, d, e, f, g, h] => Ok(i64::from_be_bytes([a, b, c, d, e, f, g, h])),
        _ => Err(wrong),
    }
}

fn integer_type(oid: Oid) -> Option<KeyType> {
    match oid {
        INT2 => Some(KeyType::Int2),
        INT4 => Some(KeyType::Int4),
        INT8 => Some(KeyType::Int8),
        _ => None,
    }
}

const UNSPECIFIED: Oid = Oid::new(0);
const NAME: Oid = Oid::new(19);
const INT8: Oid = Oid::new(20);
const INT2: Oid = Oid::new(21);
const INT4: Oid = Oid::new(23);
const TEXT: Oid = Oid::new(25);
const UNKNOWN: Oid = Oid::new(705);
const VARCHAR: Oid = Oid::new(1043);
const UUID: Oid = Oid::new(2950);
/// Longer names are cut by the server.
const NAME_BYTES_MAX: usize = 63;
