//! Rows that a shard has and does not own: copies that arrive by a move, or
//! that one has left behind. A read over several shards leaves them out, by a
//! condition on the key of the rows that matter, so that it counts each once.
//!
//! Who owns a key is said by the map alone, which rows may be copied by its
//! moves. The condition names what a shard does not own, so shards without
//! such rows are sent the text as it is.

use std::fmt::Write as _;

use crate::route::error::RouteError;
use crate::route::splice::quoted;
use crate::shardmap::{Hash, Key, KeyType, Keyspace, KeyspaceId, Map, Moving, Portion, Scratch};
use crate::types::{ShardId, SlotId};

/// What one shard may have of rows that it does not own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign(Vec<(KeyspaceId, Form)>);

/// The rows of a move, as a condition on their key.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Form {
    /// What stands before, between and behind the places of the column.
    pieces: Vec<String>,
}

/// The column by which the rows of a query are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Anchor {
    pub(super) keyspace: KeyspaceId,
    /// As SQL text, qualified; a row of them where the key has several.
    pub(super) column: Box<str>,
}

/// A place for one more condition in the text of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) anchor: Anchor,
    /// Behind WHERE, or where it would stand.
    pub(super) at: usize,
    /// The end of the WHERE that is there.
    pub(super) end: Option<usize>,
}

impl Anchor {
    pub(super) fn new<'c>(
        keyspace: KeyspaceId,
        alias: &str,
        columns: impl Iterator<Item = &'c str>,
    ) -> Self {
        let columns: Vec<String> =
            columns.map(|column| format!("{}.{}", quoted(alias), quoted(column))).collect();
        let column = match &*columns {
            [only] => only.as_str().into(),
            several => format!("ROW({})", several.join(", ")).into(),
        };
        Self { keyspace, column }
    }
}

impl Foreign {
    /// What `shard` has and does not own by `map`; nothing if `None`. `other`
    /// is a map of the same ownership, whose moves count too.
    ///
    /// # Errors
    /// No server can tell which rows those are.
    pub fn of(map: &Map, other: &Map, shard: ShardId) -> Result<Option<Self>, RouteError> {
        let mut found = Vec::new();
        for moving in map.moves().chain(other.moves()) {
            let named = map.keyspaces().iter().find(|one| *one.name() == *moving.keyspace);
            let Some(keyspace) = named else { continue };
            let ends = moving.source == shard || moving.target == shard;
            if !ends || owner(keyspace, moving) == Some(shard) {
                continue;
            }
            let form = Form::of(keyspace, &moving.portion).ok_or_else(|| unfiltered(moving))?;
            let one = (keyspace.id(), form);
            if !found.contains(&one) {
                found.push(one);
            }
        }
        Ok((!found.is_empty()).then_some(Self(found)))
    }

    /// The condition that a row, whose key stands in `column`, is owned;
    /// `None` if the shard owns all rows of the keyspace.
    fn condition(&self, anchor: &Anchor) -> Option<String> {
        let forms = self.0.iter().filter(|(keyspace, _)| *keyspace == anchor.keyspace);
        let forms: Vec<String> =
            forms.map(|(_, form)| format!("({})", form.pieces.join(&anchor.column))).collect();
        (!forms.is_empty()).then(|| format!("(({}) IS NOT TRUE)", forms.join(" OR ")))
    }

    /// `text` with the condition behind it, which is a query without one or
    /// ends with its WHERE.
    pub(super) fn append(&self, text: &mut Vec<u8>, anchor: &Anchor, filtered: bool) {
        if let Some(condition) = self.condition(anchor) {
            text.extend_from_slice(if filtered { b" AND " } else { b" WHERE " });
            text.extend_from_slice(condition.as_bytes());
        }
    }
}

impl Gap {
    /// `text` without the rows that are not owned.
    pub(super) fn filled(&self, text: &[u8], foreign: &Foreign) -> Vec<u8> {
        let Some(condition) = foreign.condition(&self.anchor) else { return text.to_vec() };
        let (head, rest) = text.split_at(self.at.min(text.len()));
        let mut out = head.to_vec();
        match self.end.and_then(|end| rest.split_at_checked(end.saturating_sub(self.at))) {
            Some((filter, tail)) => {
                out.extend_from_slice(format!(" {condition} AND (").as_bytes());
                out.extend_from_slice(filter);
                // A comment at its end would swallow the parenthesis.
                out.extend_from_slice(b"\n)");
                out.extend_from_slice(tail);
            }
            None => {
                out.extend_from_slice(format!("\nWHERE {condition}\n").as_bytes());
                out.extend_from_slice(rest);
            }
        }
        out
    }
}

/// Who owns the rows of a move; all of them have one owner.
pub(super) fn owner(keyspace: &Keyspace, moving: &Moving) -> Option<ShardId> {
    match &moving.portion {
        Portion::Slots { first, .. } => keyspace.slot_owner(*first),
        Portion::Tenant(text) => {
            let mut scratch = Scratch::default();
            let key = keyspace.key_from_text(text, &mut scratch).ok()?;
            Some(keyspace.owner(&key))
        }
    }
}

/// True if rows of a move are about to be owned by a shard that may not have
/// all of them yet.
pub fn arrives(map: &Map, moving: &Moving) -> bool {
    let named = map.keyspaces().iter().find(|one| *one.name() == *moving.keyspace);
    named.and_then(|keyspace| owner(keyspace, moving)) == Some(moving.target)
}

impl Form {
    fn of(keyspace: &Keyspace, portion: &Portion) -> Option<Self> {
        let mut form = Self { pieces: vec![String::new()] };
        match portion {
            Portion::Tenant(key) => form.compare("=", key),
            Portion::Slots { first, last } => {
                form.slots(keyspace, *first, *last)?;
                let within = |key: &Key<'_>| (*first..=*last).contains(&keyspace.slot_of(key));
                for (key, _) in keyspace.pins().filter(|(key, _)| within(key)) {
                    form.text(" AND ");
                    form.compare("<>", &key.to_string());
                }
            }
        }
        Some(form)
    }

    fn text(&mut self, text: &str) {
        if let Some(last) = self.pieces.last_mut() {
            last.push_str(text);
        }
    }

    fn column(&mut self) {
        self.pieces.push(String::new());
    }

    fn compare(&mut self, operator: &str, value: &str) {
        self.column();
        let value = value.replace('\'', "''");
        self.text(&format!(" OPERATOR(pg_catalog.{operator}) '{value}'"));
    }

    fn slots(&mut self, keyspace: &Keyspace, first: SlotId, last: SlotId) -> Option<()> {
        match keyspace.hash() {
            Hash::Postgres => {
                let mask = keyspace.slots().saturating_sub(1);
                for (start, operator, slot) in [("((", ">=", first), (" AND (", "<=", last)] {
                    self.text(start);
                    self.hash(keyspace)?;
                    self.text(&format!(
                        " OPERATOR(pg_catalog.&) {mask}) OPERATOR(pg_catalog.{operator}) {}",
                        slot.number()
                    ));
                }
                self.text(")");
            }
            Hash::Range => self.bounds(keyspace, first, last),
            Hash::List => self.lists(keyspace, first, last),
            Hash::Partition | Hash::Xxh3 => return None,
        }
        Some(())
    }

    /// As servers of all versions compute it; `None` if not all do.
    fn hash(&mut self, keyspace: &Keyspace) -> Option<()> {
        let key_type = keyspace.key_type();
        let function = match keyspace.is_composite() {
            true => "hash_record_extended",
            false => key_type.server_hash()?,
        };
        self.text(&format!("pg_catalog.{function}("));
        self.column();
        if key_type == KeyType::Date && !keyspace.is_composite() {
            self.text(" OPERATOR(pg_catalog.-) '2000-01-01'::pg_catalog.date");
        }
        self.text(", 0)");
        Some(())
    }

    fn bounds(&mut self, keyspace: &Keyspace, first: SlotId, last: SlotId) {
        let bounds = keyspace.bounds();
        let bound = |index: u32| bounds.get(usize::try_from(index).ok()?).map(Key::to_string);
        self.column();
        self.text(" IS NOT NULL");
        if let Some(low) = first.number().checked_sub(1).and_then(bound) {
            self.text(" AND ");
            self.compare(">=", &low);
        }
        if let Some(high) = bound(last.number()) {
            self.text(" AND ");
            self.compare("<", &high);
        }
    }

    fn lists(&mut self, keyspace: &Keyspace, first: SlotId, last: SlotId) {
        let lists = keyspace.lists();
        let others = keyspace.slots().saturating_sub(1);
        self.text("(false");
        for (slot, keys) in (0..).map(SlotId::new).zip(&lists) {
            if (first..=last).contains(&slot) {
                for key in keys {
                    self.text(" OR ");
                    self.compare("=", &key.to_string());
                }
            }
        }
        if last.number() >= others {
            self.text(" OR (");
            self.column();
            self.text(" IS NOT NULL");
            for key in lists.iter().flatten() {
                self.text(" AND ");
                self.compare("<>", &key.to_string());
            }
            self.text(")");
        }
        self.text(")");
    }
}

fn unfiltered(moving: &Moving) -> RouteError {
    let mut construct = String::new();
    // A string never fails to grow.
    let _ = write!(
        construct,
        "a read that would see rows twice while move {} of slots that no server can compute is not finished",
        moving.id
    );
    super::several_shards(
        &construct,
        "fix the sharding key, or read again once SHOW MOVES does not list the move",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shardmap::{MoveId, Moves, Phase};

    fn map(keyspace: &str, portion: Portion, phase: Phase) -> Map {
        let head = "epoch = 1\ndatabase = \"app\"\nhome = \"a\"\n\
            [[shard]]\nnumber = 1\nname = \"a\"\nprimary = { host = \"h1\" }\n\
            [[shard]]\nnumber = 2\nname = \"b\"\nprimary = { host = \"h2\" }\n\
            [[keyspace]]\nname = \"k\"\n";
        let moving = Moving {
            id: MoveId::new(3),
            keyspace: "k".to_owned(),
            portion,
            source: ShardId::new(1),
            target: ShardId::new(2),
            phase,
        };
        let map = Map::parse(&format!("{head}{keyspace}"), "map.toml").unwrap();
        map.with_moves(Moves::new(vec![moving]).unwrap())
    }

    fn slots(first: u32, last: u32) -> Portion {
        Portion::Slots { first: SlotId::new(first), last: SlotId::new(last) }
    }

    fn condition(map: &Map, shard: u16) -> Option<String> {
        let foreign = Foreign::of(map, map, ShardId::new(shard)).unwrap()?;
        foreign.condition(&Anchor::new(map.keyspaces()[0].id(), "t", ["c"].into_iter()))
    }

    const HASHED: &str = "type = \"int8\"\nslots = 4\nranges = { a = [\"0-1\"], b = [\"2-3\"] }\n";

    #[test]
    fn a_shard_leaves_out_what_a_move_brings_until_the_map_gives_it_to_it() {
        let portion = || Portion::Tenant("it's".to_owned());
        let texts = "type = \"text\"\nslots = 1\nranges = { a = [\"0\"] }\n";
        let before = map(texts, portion(), Phase::Watched);
        let expected = "(((\"t\".\"c\" OPERATOR(pg_catalog.=) 'it''s')) IS NOT TRUE)";
        assert_eq!(condition(&before, 2).as_deref(), Some(expected));
        assert_eq!(condition(&before, 1), None);
        let pinned = format!("{texts}pins = {{ \"it's\" = \"b\" }}\n");
        for phase in [Phase::Held, Phase::Switched] {
            let after = map(&pinned, portion(), phase);
            assert_eq!(condition(&after, 1).as_deref(), Some(expected));
            assert_eq!(condition(&after, 2), None);
            assert!(arrives(&after, after.moves().next().unwrap()));
        }
    }

    #[test]
    fn a_range_of_slots_is_without_its_pinned_tenants() {
        let key = (0..).find(|key| {
            let map = map(HASHED, slots(0, 1), Phase::Watched);
            map.keyspaces()[0].slot_of(&Key::Int(*key)).number() == 1
        });
        let pins = format!("{HASHED}pins = {{ \"{}\" = \"b\" }}\n", key.unwrap());
        let found = condition(&map(&pins, slots(0, 1), Phase::Watched), 2).unwrap();
        assert!(found.contains("hashint8extended(\"t\".\"c\", 0) OPERATOR(pg_catalog.&) 3)"));
        let without = format!(" AND \"t\".\"c\" OPERATOR(pg_catalog.<>) '{}'", key.unwrap());
        assert!(found.contains(&without), "{found}");
    }

    #[test]
    fn a_key_of_several_columns_is_hashed_as_a_row() {
        let rows = HASHED.replacen("type = \"int8\"", "types = [\"date\", \"bytea\"]", 1);
        let map = map(&rows, slots(0, 0), Phase::Watched);
        let foreign = Foreign::of(&map, &map, ShardId::new(2)).unwrap().unwrap();
        let anchor = Anchor::new(map.keyspaces()[0].id(), "t", ["a", "b"].into_iter());
        let found = foreign.condition(&anchor).unwrap();
        let hash = "pg_catalog.hash_record_extended(ROW(\"t\".\"a\", \"t\".\"b\"), 0) ";
        assert!(found.contains(&format!("{hash}OPERATOR(pg_catalog.&) 3)")), "{found}");
    }

    #[test]
    fn slots_that_no_server_computes_can_not_be_left_out() {
        let keyspace = format!("hash = \"xxh3\"\n{HASHED}");
        let map = map(&keyspace, slots(0, 0), Phase::Watched);
        assert!(Foreign::of(&map, &map, ShardId::new(2)).is_err());
        assert_eq!(Foreign::of(&map, &map, ShardId::new(1)), Ok(None));
    }

    #[test]
    fn the_condition_stands_before_what_the_client_has_written() {
        let before = map(HASHED, Portion::Tenant("5".to_owned()), Phase::Watched);
        let foreign = Foreign::of(&before, &before, ShardId::new(2)).unwrap();
        let foreign = foreign.or(Foreign::of(&before, &before, ShardId::new(1)).unwrap()).unwrap();
        let anchor = Anchor::new(before.keyspaces()[0].id(), "t", ["c"].into_iter());
        let own = foreign.condition(&anchor).unwrap();
        let gap = |at, end| Gap { anchor: anchor.clone(), at, end };
        let text = b"SELECT a FROM t WHERE x OR y -- c\nLIMIT 1";
        let filled = gap(21, Some(33)).filled(text, &foreign);
        let expected = format!("SELECT a FROM t WHERE {own} AND ( x OR y -- c\n)\nLIMIT 1");
        assert_eq!(String::from_utf8(filled).unwrap(), expected);
        let filled = gap(15, None).filled(b"SELECT a FROM t LIMIT 1", &foreign);
        let expected = format!("SELECT a FROM t\nWHERE {own}\n LIMIT 1");
        assert_eq!(String::from_utf8(filled).unwrap(), expected);
    }
}
