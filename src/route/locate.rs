//! From a key's value to its shard: decode, hash, look up.

use crate::cluster::{Mark, SlotMark};
use crate::shardmap::{
    Decimal, Key, KeyError, KeyType, Keyspace, Map, Rank, RowHash, Scratch, Touched,
};
use crate::sql::literal::{Literal, LiteralKind, Literals};
use crate::types::{Format, Oid, ShardId};

use super::composite;
use super::error::RouteError;
use super::template::{
    Bound, CastTo, Ends, Extent, Hint, Interval, KeyPlace, KeySource, Keyed, Param, Params, Reason,
    Role, Route, Several, Shared, Sign, Spread, Targets,
};

/// Where the values of one execution stand.
#[derive(Clone, Copy)]
pub(crate) struct Values<'a> {
    pub(crate) text: &'a [u8],
    pub(crate) literals: &'a Literals,
    pub(crate) params: Option<&'a dyn Params>,
}

/// Where rows with these keys lie; and the mark of the keys' slots, or of the
/// whole shard if they have many or rows without a key are touched.
///
/// # Errors
/// A value is missing or no key, a row's key is NULL, or the values lie on
/// several shards where only one will do.
pub(crate) fn route(keyed: &Keyed, values: Values<'_>, map: &Map) -> Result<Route, RouteError> {
    let mut found = keyed.single;
    let mut others: Vec<ShardId> = Vec::new();
    let mut fallback = None;
    let mut same = true;
    let mut scratch = Scratch::default();
    let mut touched = Touched::NONE;
    let more = keyed.single.is_some() || keyed.open.is_some() || !keyed.intervals.is_empty();
    let mut mark = more.then_some(Mark::Shard);
    for source in &keyed.sources {
        let keyspace = map.keyspace(source.keyspace).ok_or(RouteError::SeveralShards)?;
        fallback = fallback.or(Some(keyspace));
        let hinted = match &keyed.hint {
            Some(Hint::Key(text)) => keyspace.key_from_text(text, &mut scratch).ok(),
            Some(Hint::Shard) | None => None,
        };
        each_key(source, values, &mut |key| {
            same &= hinted.is_none_or(|hinted| hinted == key);
            let (owner, slot) = keyspace.place(&key);
            if map.has_moves() {
                touched = touched.with(map.touched(keyspace, &key, slot));
            }
            let own = Mark::slot(SlotMark::of(keyspace.spread(), slot));
            mark = Some(mark.map_or(own, |other| other.with(own)));
            join(&mut found, &mut others, owner);
        })?;
    }
    for interval in &keyed.intervals {
        let keyspace = map.keyspace(interval.keyspace).ok_or(RouteError::SeveralShards)?;
        fallback = fallback.or(Some(keyspace));
        for owner in owners_between(interval, values, keyspace)? {
            join(&mut found, &mut others, owner);
        }
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
            let mark = mark.unwrap_or(Mark::Shard);
            if map.has_moves() && !keyed.is_simple() {
                touched = touched.with(unnamed(found, map));
            }
            return Ok(Route { targets: one(found, fallback, map), reason, mark, touched });
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
        let (targets, reason) = (Targets::Shard(*only), Reason::Spread);
        let touched = touched.with(unnamed(Some(*only), map));
        return Ok(Route { targets, reason, mark: Mark::Shard, touched });
    }
    let targets = Targets::Several(Box::new(Several { shards: others.into(), why }));
    Ok(Route { targets, reason: Reason::Spread, mark: Mark::Shard, touched })
}

/// Enters the owner of a key.
fn join(found: &mut Option<ShardId>, others: &mut Vec<ShardId>, owner: ShardId) {
    match found {
        None => *found = Some(owner),
        Some(first) if *first != owner && !others.contains(&owner) => others.push(owner),
        Some(_) => {}
    }
}

/// The moves that a statement on `shard` may touch by keys that it does not
/// name.
fn unnamed(shard: Option<ShardId>, map: &Map) -> Touched {
    shard.map_or(Touched::NONE, |shard| map.touched_on(shard))
}

/// The shards of the keys in `interval`; none if an end is NULL.
fn owners_between(
    interval: &Interval,
    values: Values<'_>,
    keyspace: &Keyspace,
) -> Result<Vec<ShardId>, RouteError> {
    let Some((low, high)) = ends(interval, values)? else { return Ok(Vec::new()) };
    Ok(keyspace.owners_between(low, high))
}

/// The rank of an interval's end; `None` if it has none.
type End = Option<Rank>;

/// The ranks of an interval's ends, which belong to it; `None` if one is NULL.
pub(super) fn ends(
    interval: &Interval,
    values: Values<'_>,
) -> Result<Option<(End, End)>, RouteError> {
    let (low, high) = match (rank(&interval.low, values), rank(&interval.high, values)) {
        (Err(RouteError::NullKey), _) | (_, Err(RouteError::NullKey)) => return Ok(None),
        (low, high) => (low?, high?),
    };
    // Between whole numbers nothing lies.
    let strict = |bound: &Option<Bound>| bound.as_ref().is_some_and(|b| b.ends == Ends::Before);
    let stepped = |rank, step| match rank {
        Some(Rank::Number(value)) => i64::checked_add(value, step).map(Rank::Number).or(rank),
        Some(Rank::Uuid(_)) | None => rank,
    };
    let low = if strict(&interval.low) { stepped(low, 1) } else { low };
    let high = if strict(&interval.high) { stepped(high, -1) } else { high };
    Ok(Some((low, high)))
}

/// The rank of an interval's end; `None` where there is no end, or the value lies
/// between or beyond all keys.
fn rank(bound: &Option<Bound>, values: Values<'_>) -> Result<Option<Rank>, RouteError> {
    let Some(bound) = bound else { return Ok(None) };
    let mut found = None;
    one_key(&bound.source, values, &mut |key| found = Rank::of(&key))?;
    Ok(found)
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
        Extent::Row(hash) => composite::each(&source.parts, RowHash::new(hash), values, then),
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
            let bytes = param.value.ok_or(RouteError::NullKey)?;
            let oid = param_type(source, param, shared, number)?;
            from_bytes(source, param.format, oid, bytes, then)
        }
    }
}

fn with_literal(
    source: &KeySource,
    literal: Literal,
    text: &[u8],
    then: &mut dyn FnMut(Key<'_>),
) -> Result<(), RouteError> {
    let numbers = source.key_type.is_integer() || source.key_type == KeyType::Numeric;
    let to_integer = source.cast.is_some_and(|CastTo(cast)| cast.is_integer());
    let what = match literal.kind {
        LiteralKind::Integer | LiteralKind::Numeric if !numbers => "a number",
        LiteralKind::Integer => "",
        // A cast would round it.
        LiteralKind::Numeric if to_integer => "a number that is not written as plain digits",
        LiteralKind::Numeric => "",
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
    // Most keys are short integers; the digits alone can't hold i64::MIN.
    if literal.kind == LiteralKind::Integer
        && source.cast.is_none()
        && let Ok(digits) = value.parse::<i64>()
    {
        let integer = if source.sign == Sign::Minus { -digits } else { digits };
        return found(source, Key::from_integer(source.key_type, integer)?, then);
    }
    match literal.kind {
        LiteralKind::Integer | LiteralKind::Numeric => {
            let number = Decimal::parse(&value).ok_or(RouteError::BadLiteral {
                what: "a number that is not written as plain digits",
            })?;
            let number = if source.sign == Sign::Minus { number.negated() } else { number };
            if let Some(CastTo(cast)) = source.cast
                && Key::from_decimal(cast, number)?.is_none()
            {
                return Err(RouteError::BadKey(KeyError::OutOfRange(cast)));
            }
            found(source, Key::from_decimal(source.key_type, number)?, then)
        }
        _ => checked(source, &value, then),
    }
}

/// Runs `then` on the key that a string denotes, in the range of the column and
/// of the cast, if there is one.
pub(super) fn checked(
    source: &KeySource,
    value: &str,
    then: &mut dyn FnMut(Key<'_>),
) -> Result<(), RouteError> {
    let mut scratch = Scratch::default();
    match source.cast {
        None => {
            let key = Key::from_text(source.key_type, value, &mut scratch)?;
            found(source, Some(key), then)
        }
        // The cast makes a value of its own type first.
        Some(CastTo(cast)) => {
            let (format, oid) = (Format::Text, oid_of(cast));
            let bytes = value.as_bytes();
            let key = Key::from_param(source.key_type, format, oid, bytes, &mut scratch)?;
            found(source, key, then)
        }
    }
}

/// Runs `then` on the key in a parameter's bytes.
pub(super) fn from_bytes(
    source: &KeySource,
    format: Format,
    oid: Oid,
    bytes: &[u8],
    then: &mut dyn FnMut(Key<'_>),
) -> Result<(), RouteError> {
    let mut scratch = Scratch::default();
    let key = Key::from_param(source.key_type, format, oid, bytes, &mut scratch)?;
    if let (Some(CastTo(cast)), Some(Key::Int(value))) = (source.cast, key)
        && cast.is_integer()
        && Key::from_decimal(cast, value.into())?.is_none()
    {
        return Err(RouteError::BadKey(KeyError::OutOfRange(cast)));
    }
    found(source, key, then)
}

/// Runs `then` on the key, if a value equals one; a row's key must also be what
/// the column will hold.
fn found(
    source: &KeySource,
    key: Option<Key<'_>>,
    then: &mut dyn FnMut(Key<'_>),
) -> Result<(), RouteError> {
    let may_be_rounded = match key {
        None => true,
        Some(Key::Numeric(number)) => number.is_fractional(),
        Some(Key::Time(micros)) => micros % 1_000_000 != 0,
        Some(
            Key::Int(_) | Key::Text(_) | Key::Uuid(_) | Key::Date(_) | Key::Bytes(_) | Key::Row(_),
        ) => false,
    };
    match (source.role, key) {
        (Role::Row, _) if may_be_rounded => Err(RouteError::BadKey(KeyError::Fraction)),
        (_, Some(key)) => {
            then(key);
            Ok(())
        }
        (_, None) => Ok(()),
    }
}

/// The type by which a parameter's bytes are to be read.
fn param_type(
    source: &KeySource,
    param: Param<'_>,
    shared: Shared,
    number: u32,
) -> Result<Oid, RouteError> {
    let declared = param.oid;
    let inferred = [Oid::new(0), UNKNOWN].contains(&declared);
    // A float, which the other use may make of it, holds short integers exactly.
    let long = param.value.is_some_and(|bytes| bytes.len() > SHORT_BYTES_MAX);
    let ambiguous = source.is_ambiguous(param.format) || (long && source.key_type != KeyType::Uuid);
    if inferred && shared == Shared::Elsewhere && ambiguous {
        return Err(RouteError::AmbiguousParam { number, oid: declared });
    }
    match source.cast {
        // `$1::int8` makes the parameter an int8 unless it was declared.
        Some(CastTo(cast)) if inferred => Ok(oid_of(cast)),
        // A cast to an integer rounds a numeric.
        Some(CastTo(cast)) if declared == NUMERIC && cast.is_integer() => {
            Err(RouteError::AmbiguousParam { number, oid: declared })
        }
        _ => Ok(declared),
    }
}

impl KeySource {
    /// Whether a parameter whose type the server infers elsewhere could mean
    /// another value: eight bytes could be a float, a text a padded character, a
    /// date's text a timestamp's.
    pub(super) const fn is_ambiguous(&self, format: Format) -> bool {
        match self.key_type {
            KeyType::Int2 | KeyType::Int4 | KeyType::Int8 | KeyType::Numeric => {
                matches!(format, Format::Binary)
            }
            KeyType::Uuid => false,
            KeyType::Text
            | KeyType::Varchar
            | KeyType::Char
            | KeyType::Date
            | KeyType::Timestamptz
            | KeyType::Bytea => true,
        }
    }
}

pub(super) const fn oid_of(key_type: KeyType) -> Oid {
    Oid::new(match key_type {
        KeyType::Int2 => 21,
        KeyType::Int4 => 23,
        KeyType::Int8 => 20,
        KeyType::Text => 25,
        KeyType::Varchar => 1043,
        KeyType::Uuid => 2950,
        KeyType::Numeric => 1700,
        KeyType::Char => 1042,
        KeyType::Date => 1082,
        KeyType::Timestamptz => 1184,
        KeyType::Bytea => 17,
    })
}

pub(super) const UNKNOWN: Oid = Oid::new(705);
const NUMERIC: Oid = Oid::new(1700);
/// Integers of so many characters are exact in every float type.
const SHORT_BYTES_MAX: usize = 7;
