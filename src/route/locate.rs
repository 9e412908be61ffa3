//! From a key's value to its shard: decode, hash, look up.

use crate::shardmap::{Key, KeyType, Map};
use crate::sql::literal::{Literal, LiteralKind, Literals};
use crate::types::{Format, Oid, ShardId};

use super::error::RouteError;
use super::template::{KeyPlace, KeySource, Param, Params, Shared, Sign};

/// Where the values of one execution stand.
#[derive(Clone, Copy)]
pub(crate) struct Values<'a> {
    pub(crate) text: &'a [u8],
    pub(crate) literals: &'a Literals,
    pub(crate) params: Option<&'a dyn Params>,
}

/// The one shard that owns every value of `sources`, and that is `single` if
/// the statement also needs that one.
///
/// # Errors
/// A value is missing, NULL or no key, or the values lie on several shards.
pub(crate) fn shard(
    sources: &[KeySource],
    single: Option<ShardId>,
    values: Values<'_>,
    map: &Map,
) -> Result<ShardId, RouteError> {
    let mut found = single;
    for source in sources {
        let owner = with_key(source, values, |key| {
            map.keyspace(source.keyspace).map(|keyspace| keyspace.owner(&key))
        })?
        .ok_or(RouteError::SeveralShards)?;
        if found.is_some_and(|other| other != owner) {
            return Err(RouteError::SeveralShards);
        }
        found = Some(owner);
    }
    found.ok_or(RouteError::SeveralShards)
}

/// Runs `then` on the key that `source` denotes.
pub(crate) fn with_key<T>(
    source: &KeySource,
    values: Values<'_>,
    then: impl FnOnce(Key<'_>) -> T,
) -> Result<T, RouteError> {
    match source.place {
        KeyPlace::Null => Err(RouteError::NullKey),
        KeyPlace::Literal(index) => {
            let literal = values
                .literals
                .get(index as usize)
                .ok_or(RouteError::BadLiteral { what: "a missing constant" })?;
            with_literal(source, literal, values.text, then)
        }
        KeyPlace::Param { index, shared } => {
            let number = u32::from(index) + 1;
            let param = values
                .params
                .and_then(|params| params.get(usize::from(index)))
                .ok_or(RouteError::MissingParam { number })?;
            Ok(then(param_key(source, param, shared, number)?))
        }
    }
}

fn with_literal<T>(
    source: &KeySource,
    literal: Literal,
    text: &[u8],
    then: impl FnOnce(Key<'_>) -> T,
) -> Result<T, RouteError> {
    let integer = matches!(source.key_type, KeyType::Int2 | KeyType::Int4 | KeyType::Int8);
    let what = match literal.kind {
        LiteralKind::Integer if integer => "",
        LiteralKind::Integer => "a number",
        LiteralKind::Numeric => "a number that is not written as plain digits",
        LiteralKind::Plain | LiteralKind::Escape | LiteralKind::Dollar => match source.sign {
            Sign::Plain => "",
            Sign::Minus => "a negated string",
        },
        LiteralKind::Bits | LiteralKind::HexBits => "a bit string",
        LiteralKind::Unicode => "a string with Unicode escapes",
        LiteralKind::National => "a national character string",
    };
    if !what.is_empty() {
        return Err(RouteError::BadLiteral { what });
    }
    let value = literal.value(text).ok_or(RouteError::BadLiteral { what: "an escaped string" })?;
    if source.sign == Sign::Minus {
        // `- 42` is a value like any other; digits alone can't hold i64::MIN.
        let mut signed = [b'-'; SIGNED_BYTES_MAX];
        let digits = value.as_bytes();
        let signed = signed
            .get_mut(..=digits.len())
            .ok_or(RouteError::BadLiteral { what: "a very long number" })?;
        if let Some(place) = signed.get_mut(1..) {
            place.copy_from_slice(digits);
        }
        let signed =
            std::str::from_utf8(signed).map_err(|_| RouteError::BadLiteral { what: "a number" })?;
        return Ok(then(checked(source, signed)?));
    }
    Ok(then(checked(source, &value)?))
}

/// A key in the range of the column and of the cast, if there is one.
fn checked<'a>(source: &KeySource, value: &'a str) -> Result<Key<'a>, RouteError> {
    if let Some(cast) = source.cast {
        Key::from_text(cast, value)?;
    }
    Ok(Key::from_text(source.key_type, value)?)
}

fn param_key<'a>(
    source: &KeySource,
    param: Param<'a>,
    shared: Shared,
    number: u32,
) -> Result<Key<'a>, RouteError> {
    let bytes = param.value.ok_or(RouteError::NullKey)?;
    let declared = param.oid;
    let text_key = matches!(source.key_type, KeyType::Text | KeyType::Varchar);
    let inferred = [Oid::new(0), UNKNOWN].contains(&declared);
    if inferred && shared == Shared::Elsewhere {
        // The server infers the type from the first use, which may be another
        // column's: eight bytes could be a float, a text a padded character.
        let uuid = source.key_type == KeyType::Uuid;
        if text_key || (param.format == Format::Binary && !uuid) {
            return Err(RouteError::AmbiguousParam { number, oid: declared });
        }
    }
    let oid = match source.cast {
        // `$1::int8` makes the parameter an int8 unless it was declared.
        Some(cast) if inferred => oid_of(cast),
        _ => declared,
    };
    let key = Key::from_param(source.key_type, param.format, oid, bytes)?;
    if let (Some(cast), Key::Int(value)) = (source.cast, key) {
        let fits = match cast {
            KeyType::Int2 => i16::try_from(value).is_ok(),
            KeyType::Int4 => i32::try_from(value).is_ok(),
            KeyType::Int8 | KeyType::Text | KeyType::Varchar | KeyType::Uuid => true,
        };
        if !fits {
            return Err(RouteError::BadKey(crate::shardmap::KeyError::OutOfRange(cast)));
        }
    }
    Ok(key)
}

const fn oid_of(key_type: KeyType) -> Oid {
    Oid::new(match key_type {
        KeyType::Int2 => 21,
        KeyType::Int4 => 23,
        KeyType::Int8 => 20,
        KeyType::Text => 25,
        KeyType::Varchar => 1043,
        KeyType::Uuid => 2950,
    })
}

const UNKNOWN: Oid = Oid::new(705);
/// A minus and more digits than any integer has.
const SIGNED_BYTES_MAX: usize = 24;
