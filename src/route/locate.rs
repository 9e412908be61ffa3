//! From a key's value to its shard: decode, hash, look up.

use crate::shardmap::{Key, KeyType, Keyspace, Map};
use crate::sql::literal::{Literal, LiteralKind, Literals};
use crate::types::{Format, Oid, ShardId};

use super::error::RouteError;
use super::template::{
    CastTo, Extent, Hint, KeyPlace, KeySource, Keyed, Param, Params, Reason, Role, Route, Several,
    Shared, Sign, Spread, Targets,
};

/// Where the values of one execution stand.
#[derive(Clone, Copy)]
pub(crate) struct Values<'a> {
    pub(crate) text: &'a [u8],
    pub(crate) literals: &'a Literals,
    pub(crate) params: Option<&'a dyn Params>,
}

/// Where rows with these keys lie.
///
/// # Errors
/// A value is missing or no key, a row's key is NULL, or the values lie on
/// several shards where only one will do.
pub(crate) fn route(keyed: &Keyed, values: Values<'_>, map: &Map) -> Result<Route, RouteError> {
    let mut found = keyed.single;
    let mut others: Vec<ShardId> = Vec::new();
    let mut fallback = None;
    let mut same = true;
    for source in &keyed.sources {
        let keyspace = map.keyspace(source.keyspace).ok_or(RouteError::SeveralShards)?;
        fallback = fallback.or(Some(keyspace));
        let hinted = match &keyed.hint {
            Some(Hint::Key(text)) => Key::from_text(source.key_type, text).ok(),
            Some(Hint::Shard) | None => None,
        };
        each_key(source, values, &mut |key| {
            same &= hinted.is_none_or(|hinted| hinted == key);
            let owner = keyspace.owner(&key);
            match found {
                None => found = Some(owner),
                Some(first) if first != owner && !others.contains(&owner) => others.push(owner),
                Some(_) => {}
            }
        })?;
    }
    if keyed.hint.is_some() && (!same || !others.is_empty()) {
        let reason = "the statement itself names another key or shard".into();
        return Err(RouteError::BadHint { reason });
    }
    let why = match &keyed.open {
        Some(open) => {
            others.extend_from_slice(&open.shards);
            open.why.clone()
        }
        None if others.is_empty() => {
            let reason = match (&keyed.hint, found) {
                (Some(_), _) => Reason::Hint,
                (None, Some(_)) => Reason::Key,
                (None, None) => Reason::Nothing,
            };
            return Ok(Route { targets: one(found, fallback, map), reason });
        }
        None => RouteError::SeveralShards,
    };
    if keyed.spread == Spread::OneShard {
        return Err(why);
    }
    others.extend(found);
    others.sort_unstable();
    others.dedup();
    if let [only] = &*others {
        return Ok(Route { targets: Targets::Shard(*only), reason: Reason::Spread });
    }
    let targets = Targets::Several(Box::new(Several { shards: others.into(), why }));
    Ok(Route { targets, reason: Reason::Spread })
}

/// The one shard, or one that has the tables if no row can matter.
fn one(found: Option<ShardId>, keyspace: Option<&Keyspace>, map: &Map) -> Targets {
    let home = map.home();
    if let Some(shard) = found {
        return Targets::Shard(shard);
    }
    let shards = keyspace.map(Keyspace::shards).unwrap_or_default();
    match shards.first() {
        Some(_) if shards.contains(&home) => Targets::AnyShard,
        Some(first) => Targets::Shard(*first),
        None => Targets::Home,
    }
}

/// Runs `then` on each key that `source` denotes; on none if no key can be
/// equal to its value.
///
/// # Errors
/// As [`route`].
pub(crate) fn each_key(
    source: &KeySource,
    values: Values<'_>,
    then: &mut dyn FnMut(Key<'_>),
) -> Result<(), RouteError> {
    let found = match source.extent {
        Extent::One => one_key(source, values, then),
        Extent::Array => super::array::each(source, values, then),
    };
    match (found, source.role) {
        // NULL, or a value that the column's type can't hold, equals no key.
        (Err(RouteError::NullKey), Role::Filter) => Ok(()),
        (found, Role::Filter | Role::Row) => found,
    }
}

fn one_key(
    source: &KeySource,
    values: Values<'_>,
    then: &mut dyn FnMut(Key<'_>),
) -> Result<(), RouteError> {
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
            then(param_key(source, param, shared, number)?);
            Ok(())
        }
    }
}

fn with_literal(
    source: &KeySource,
    literal: Literal,
    text: &[u8],
    then: &mut dyn FnMut(Key<'_>),
) -> Result<(), RouteError> {
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
        then(checked(source, signed)?);
        return Ok(());
    }
    then(checked(source, &value)?);
    Ok(())
}

/// A key in the range of the column and of the cast, if there is one.
pub(super) fn checked<'a>(source: &KeySource, value: &'a str) -> Result<Key<'a>, RouteError> {
    if let Some(CastTo(cast)) = source.cast {
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
        Some(CastTo(cast)) if inferred => oid_of(cast),
        _ => declared,
    };
    let key = Key::from_param(source.key_type, param.format, oid, bytes)?;
    fits_cast(source, key)?;
    Ok(key)
}

/// Refuses an integer that the cast's type can't hold.
pub(super) fn fits_cast(source: &KeySource, key: Key<'_>) -> Result<(), RouteError> {
    if let (Some(CastTo(cast)), Key::Int(value)) = (source.cast, key) {
        let fits = match cast {
            KeyType::Int2 => i16::try_from(value).is_ok(),
            KeyType::Int4 => i32::try_from(value).is_ok(),
            KeyType::Int8 | KeyType::Text | KeyType::Varchar | KeyType::Uuid => true,
        };
        if !fits {
            return Err(RouteError::BadKey(crate::shardmap::KeyError::OutOfRange(cast)));
        }
    }
    Ok(())
}

pub(super) const fn oid_of(key_type: KeyType) -> Oid {
    Oid::new(match key_type {
        KeyType::Int2 => 21,
        KeyType::Int4 => 23,
        KeyType::Int8 => 20,
        KeyType::Text => 25,
        KeyType::Varchar => 1043,
        KeyType::Uuid => 2950,
    })
}

pub(super) const UNKNOWN: Oid = Oid::new(705);
/// A minus and more digits than any integer has.
const SIGNED_BYTES_MAX: usize = 24;
