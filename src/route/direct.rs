//! The shortest way from a statement to its shard: one key, an integer that is
//! written as plain digits or bound in the column's own type. Nearly all keyed
//! statements are such.
//!
//! It only ever says what [`super::locate`] would say, and leaves to that
//! whatever needs a second look: other types, casts, signs within a text,
//! values near or beyond a type's ends, errors.

use crate::cluster::{Mark, SlotMark};
use crate::shardmap::{Key, KeyType, Map, Touched, plain_integer};
use crate::sql::literal::LiteralKind;
use crate::types::{Format, Oid};

use super::locate::Values;
use super::template::{Extent, KeyPlace, KeySource, Keyed, Reason, Route, Shared, Sign, Targets};

/// Where rows with the one key lie; `None` if that takes longer to say.
#[inline]
pub(super) fn route(keyed: &Keyed, values: Values<'_>, map: &Map) -> Option<Route> {
    let [source] = &*keyed.sources else { return None };
    if !keyed.is_simple() || keyed.single.is_some() || source.extent != Extent::One {
        return None;
    }
    let key = Key::Int(integer(source, values)?);
    let keyspace = map.keyspace(source.keyspace)?;
    let (owner, slot) = keyspace.place(&key);
    let touched = if map.has_moves() { map.touched(keyspace, &key, slot) } else { Touched::NONE };
    let mark = Mark::slot(SlotMark::of(keyspace.spread(), slot));
    Some(Route { targets: Targets::Shard(owner), reason: Reason::Key, mark, touched })
}

/// The value of an integer key.
#[inline]
fn integer(source: &KeySource, values: Values<'_>) -> Option<i64> {
    if source.cast.is_some() {
        return None;
    }
    let value = match (source.place, source.sign) {
        (KeyPlace::Literal(index), sign) => {
            let literal = values.literals.get(usize::try_from(index).ok()?)?;
            if literal.kind != LiteralKind::Integer {
                return None;
            }
            let value = plain_integer(literal.written(values.text))?;
            if sign == Sign::Minus { -value } else { value }
        }
        (KeyPlace::Param { index, shared: Shared::KeyOnly }, Sign::Plain) => {
            let param = values.params?.get(usize::from(index))?;
            let value = param.value?;
            match (param.format, param.oid) {
                (Format::Text, INFERRED | INT8) => plain_integer(value)?,
                (Format::Binary, INFERRED | INT8) if value.len() == 8 => {
                    i64::from_be_bytes(*value.first_chunk()?)
                }
                (Format::Binary, INFERRED | INT4) if value.len() == 4 => {
                    i32::from_be_bytes(*value.first_chunk()?).into()
                }
                (Format::Text | Format::Binary, _) => return None,
            }
        }
        (KeyPlace::Param { .. } | KeyPlace::Null, _) => return None,
    };
    let fits = match source.key_type {
        KeyType::Int8 => true,
        KeyType::Int4 => i32::try_from(value).is_ok(),
        KeyType::Int2
        | KeyType::Text
        | KeyType::Varchar
        | KeyType::Uuid
        | KeyType::Numeric
        | KeyType::Char
        | KeyType::Date
        | KeyType::Timestamptz
        | KeyType::Bytea => false,
    };
    fits.then_some(value)
}

/// The server takes the column's type.
const INFERRED: Oid = Oid::new(0);
const INT8: Oid = Oid::new(20);
const INT4: Oid = Oid::new(23);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::route::locate;
    use crate::route::template::Plan;
    use crate::route::{Param, Planner, PlannerLimits, SearchPath, World};

    /// Two shards with a table `t` each of its key's types.
    fn map() -> Map {
        let shard = |number, name| {
            format!(
                "[[shard]]\nnumber = {number}\nname = \"{name}\"\nuser = \"u\"\ntls = \"disable\"\n\
                 primary = {{ host = \"127.0.0.1\", port = {number} }}\n"
            )
        };
        let keyspace = |kind| {
            format!(
                "[[keyspace]]\nname = \"{kind}\"\ntype = \"{kind}\"\nslots = 16\n\
                 ranges = {{ one = [\"0-7\"], two = [\"8-15\"] }}\npins = {{ \"77\" = \"two\" }}\n\
                 [[key_rule]]\nkeyspace = \"{kind}\"\ncolumn = \"k\"\ntables = [\"public.{kind}_t\"]\n"
            )
        };
        let kinds = ["int8", "int4", "int2", "text"].map(keyspace).concat();
        let text = format!(
            "epoch = 1\ndatabase = \"d\"\nhome = \"one\"\n{}{}{kinds}",
            shard(1, "one"),
            shard(2, "two")
        );
        Map::parse(&text, "map").unwrap()
    }

    /// Whether the short way was taken; what it says is what the long one says.
    fn is_short(map: &Map, text: &str, params: &[Param<'_>]) -> bool {
        let path = SearchPath::default();
        let mut planner = Planner::new(1, PlannerLimits::default());
        let Ok(template) = planner.plan(text.as_bytes(), &World::of_map(map, &path)) else {
            return false;
        };
        let Plan::Keyed(keyed) = &template.plan else { return false };
        let params = params.to_vec();
        let values =
            Values { text: text.as_bytes(), literals: planner.literals(), params: Some(&params) };
        match route(keyed, values, map) {
            Some(short) => {
                assert_eq!(locate::route(keyed, values, map), Ok(short), "{text} {params:?}");
                true
            }
            None => false,
        }
    }

    #[test]
    fn the_usual_keys_take_the_short_way() {
        let map = map();
        let param = |value, format, oid| Param { value: Some(value), format, oid: Oid::new(oid) };
        for text in [
            "select v from int8_t where k = 42",
            "select v from int8_t where k = -42 and v > 3",
            "select v from int4_t where k = 77",
            "update int8_t set v = 1 where k = 999999999999999999",
            "insert into int8_t (k, v) values (5, 6)",
        ] {
            assert!(is_short(&map, text, &[]), "{text}");
        }
        let bound = "select v from int8_t where k = $1";
        for (value, format, oid) in [
            (&b"42"[..], Format::Text, 0),
            (b"42", Format::Text, 20),
            (b"\0\0\0\0\0\0\0\x2a", Format::Binary, 0),
            (b"\xff\xff\xff\xff\xff\xff\xff\x2a", Format::Binary, 20),
            (b"\0\0\0\x2a", Format::Binary, 23),
        ] {
            assert!(is_short(&map, bound, &[param(value, format, oid)]), "{value:?} {oid}");
        }
    }

    #[test]
    fn what_needs_a_second_look_takes_the_long_way() {
        let map = map();
        for text in [
            "select v from int8_t where k = 9999999999999999999",
            "select v from int4_t where k = 3000000000",
            "select v from int2_t where k = 1",
            "select v from text_t where k = '1'",
            "select v from int8_t where k = 1.0",
            "select v from int8_t where k = '1'",
            "select v from int8_t where k = 1::int4",
            "select v from int8_t where k in (1, 2)",
            "select v from int8_t where k = null",
            "/* keyway: key=1 */ select v from int8_t where k = 1",
        ] {
            assert!(!is_short(&map, text, &[]), "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_short_way_never_says_anything_else(
            table in prop_oneof![Just("int8_t"), Just("int4_t")],
            number in prop_oneof![any::<i64>(), -100_i64..100, any::<i32>().prop_map(i64::from)],
            bytes in prop::collection::vec(any::<u8>(), 0..10),
            oid in prop_oneof![Just(0), Just(20), Just(21), Just(23), Just(25), Just(705), Just(1700)],
        ) {
            let map = map();
            is_short(&map, &format!("select v from {table} where k = {number}"), &[]);
            let text = format!("select v from {table} where k = $1");
            let oid = Oid::new(oid);
            let written = number.to_string();
            for (value, format) in [
                (written.as_bytes(), Format::Text),
                (&bytes, Format::Text),
                (&bytes, Format::Binary),
                (&number.to_be_bytes(), Format::Binary),
            ] {
                is_short(&map, &text, &[Param { value: Some(value), format, oid }]);
                is_short(&map, &text, &[Param { value: None, format, oid }]);
            }
        }
    }
}
