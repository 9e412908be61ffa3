//! What a router knows of the moves that are under way: whose rows move, from
//! where to where, and how far that has come. A map that serves has them with
//! it, so that a statement's keys are held against them where its shard is
//! found.
//!
//! It does not know how rows are moved, nor who decides; the phases are set by
//! whoever runs the move. Which shard owns a key is said by the map alone, also
//! in the middle of a move.
//!
//! Source: hazards 98 to 101 of `docs/hazards.md`.

use std::fmt;
use std::sync::Arc;

use crate::types::{ShardId, SlotId};

use super::key::{Key, Scratch};
use super::keyspace::{Keys, Keyspace, KeyspaceId};
use super::map::Map;

/// The number of a move; its objects in the databases are named by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MoveId(u32);

impl MoveId {
    /// The move with this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for MoveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One move, as far as it concerns a router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moving {
    /// The move.
    pub id: MoveId,
    /// Name of the keyspace.
    pub keyspace: String,
    /// Whose rows move.
    pub portion: Portion,
    /// The shard that they leave.
    pub source: ShardId,
    /// The shard that they go to.
    pub target: ShardId,
    /// How far it has come.
    pub phase: Phase,
}

impl Moving {
    /// The shard that has, or may have, rows of the keys that it does not own.
    pub const fn stranger(&self) -> ShardId {
        match self.phase {
            Phase::Watched | Phase::Held => self.target,
            Phase::Switched => self.source,
        }
    }
}

/// The part of a keyspace that moves together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Portion {
    /// One tenant: its key, spelled as a pin in the map file is.
    Tenant(String),
    /// Consecutive slots, without the tenants that are pinned.
    Slots {
        /// The first.
        first: SlotId,
        /// The last, included.
        last: SlotId,
    },
}

/// How far a move has come, as far as it concerns a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The fences are in place: they may refuse a write, and the target has rows
    /// that it does not own.
    Watched,
    /// The cutover is under way: what would begin to write the moving keys
    /// waits, and what has begun goes on to its end.
    Held,
    /// The map in force names the target. The source still has the rows.
    Switched,
}

/// The moves of one database. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moves(Arc<[Moving]>);

impl Moves {
    /// These moves; more than [`MOVES_MAX`] are not told apart, so nobody makes
    /// more. `None` if there are more, or one is there twice.
    pub fn new(moves: Vec<Moving>) -> Option<Self> {
        let twice = moves
            .iter()
            .enumerate()
            .any(|(at, one)| moves.iter().skip(at + 1).any(|o| o.id == one.id));
        (moves.len() <= MOVES_MAX && !twice).then(|| Self(moves.into()))
    }

    /// True if nothing moves.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Moving> {
        self.0.iter()
    }

    /// The move with this number.
    pub fn find(&self, id: MoveId) -> Option<&Moving> {
        self.0.iter().find(|moving| moving.id == id)
    }
}

/// Which of a map's moves a statement touches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Touched(u64);

impl Touched {
    /// None of them.
    pub const NONE: Self = Self(0);

    /// True if it touches none.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// What both touch.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    const fn bit(position: usize) -> Self {
        Self(1 << (position % MOVES_MAX))
    }

    const fn contains(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// The moves of a map, by what they are looked up with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MovingKeys {
    moves: Moves,
    tenants: Vec<(KeyspaceId, Keys<Touched>)>,
    slots: Vec<(KeyspaceId, SlotId, SlotId, Touched)>,
}

impl MovingKeys {
    /// The moves by the keyspaces of `map`; those of a keyspace that it does not
    /// have are left out.
    fn new(moves: Moves, map: &Map) -> Self {
        let (mut tenants, mut slots) = (Vec::new(), Vec::new());
        for (position, moving) in moves.iter().enumerate() {
            let named = map.keyspaces().iter().find(|keyspace| keyspace.name == moving.keyspace);
            let Some(keyspace) = named else { continue };
            match &moving.portion {
                Portion::Slots { first, last } => {
                    slots.push((keyspace.id(), *first, *last, Touched::bit(position)));
                }
                Portion::Tenant(text) => enter(&mut tenants, keyspace, text, position),
            }
        }
        Self { moves, tenants, slots }
    }

    fn touched(&self, keyspace: &Keyspace, key: &Key<'_>, slot: SlotId) -> Touched {
        let mut touched = Touched::NONE;
        for (id, keys) in &self.tenants {
            if *id == keyspace.id() {
                touched = touched.with(keys.get(key).unwrap_or_default());
            }
        }
        for (id, first, last, bit) in &self.slots {
            if *id == keyspace.id()
                && (*first..=*last).contains(&slot)
                && keyspace.pin_of(key).is_none()
            {
                touched = touched.with(*bit);
            }
        }
        touched
    }
}

fn enter(
    tenants: &mut Vec<(KeyspaceId, Keys<Touched>)>,
    keyspace: &Keyspace,
    text: &str,
    position: usize,
) {
    let mut scratch = Scratch::default();
    let Ok(key) = keyspace.key_from_text(text, &mut scratch) else { return };
    let at = match tenants.iter().position(|(id, _)| *id == keyspace.id()) {
        Some(at) => at,
        None => {
            tenants.push((keyspace.id(), Keys::default()));
            tenants.len().saturating_sub(1)
        }
    };
    if let Some((_, keys)) = tenants.get_mut(at) {
        keys.insert(&key, Touched::bit(position));
    }
}

impl Map {
    /// This map with the moves that are under way, in place of those that it
    /// had.
    #[must_use]
    pub fn with_moves(mut self, moves: Moves) -> Self {
        self.moving = None;
        if !moves.is_empty() {
            self.moving = Some(Arc::new(MovingKeys::new(moves, &self)));
        }
        self
    }

    /// True if any rows move.
    #[inline]
    pub const fn has_moves(&self) -> bool {
        self.moving.is_some()
    }

    /// The moves that are under way, to keep.
    pub fn all_moves(&self) -> Moves {
        self.moving.as_ref().map(|moving| moving.moves.clone()).unwrap_or_default()
    }

    /// The moves that are under way.
    pub fn moves(&self) -> impl Iterator<Item = &Moving> {
        self.moving.iter().flat_map(|moving| moving.moves.iter())
    }

    /// Which moves take the key `key`, whose slot is `slot`, along.
    #[inline]
    pub fn touched(&self, keyspace: &Keyspace, key: &Key<'_>, slot: SlotId) -> Touched {
        match &self.moving {
            None => Touched::NONE,
            Some(moving) => moving.touched(keyspace, key, slot),
        }
    }

    /// The moves that take rows from or to `shard`.
    pub fn touched_on(&self, shard: ShardId) -> Touched {
        let on = |moving: &Moving| moving.source == shard || moving.target == shard;
        let bits = self.moves().enumerate().filter(|(_, moving)| on(moving));
        bits.fold(Touched::NONE, |sum, (position, _)| sum.with(Touched::bit(position)))
    }

    /// The moves that `touched` names.
    pub fn moves_of(&self, touched: Touched) -> impl Iterator<Item = &Moving> {
        let named =
            move |(position, _): &(usize, &Moving)| touched.contains(Touched::bit(*position));
        self.moves().enumerate().filter(named).map(|(_, moving)| moving)
    }
}

/// Most moves of one database at a time.
pub const MOVES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "epoch = 1\ndatabase = \"app\"\nhome = \"a\"\n\
        [[shard]]\nnumber = 1\nname = \"a\"\nprimary = { host = \"h1\" }\n\
        [[shard]]\nnumber = 2\nname = \"b\"\nprimary = { host = \"h2\" }\n\
        [[keyspace]]\nname = \"k\"\ntype = \"int8\"\nslots = 4\n\
        ranges = { a = [\"0-1\"], b = [\"2-3\"] }\npins = { \"7\" = \"b\" }\n";

    fn moving(id: u32, portion: Portion) -> Moving {
        Moving {
            id: MoveId::new(id),
            keyspace: "k".to_owned(),
            portion,
            source: ShardId::new(1),
            target: ShardId::new(2),
            phase: Phase::Watched,
        }
    }

    fn map(moves: Vec<Moving>) -> Map {
        Map::parse(MAP, "map.toml").unwrap().with_moves(Moves::new(moves).unwrap())
    }

    fn ids(map: &Map, key: i64) -> Vec<u32> {
        let keyspace = &map.keyspaces()[0];
        let key = Key::Int(key);
        let touched = map.touched(keyspace, &key, keyspace.slot_of(&key));
        map.moves_of(touched).map(|moving| moving.id.number()).collect()
    }

    #[test]
    fn a_tenant_is_moved_by_its_own_move_and_by_that_of_its_slot() {
        let all = Portion::Slots { first: SlotId::new(0), last: SlotId::new(3) };
        let map = map(vec![moving(4, Portion::Tenant("42".to_owned())), moving(5, all)]);
        assert_eq!(ids(&map, 42), [4, 5]);
        assert_eq!(ids(&map, 43), [5]);
        assert_eq!(ids(&map, 7), [0_u32; 0], "a pinned tenant does not go with its slot");
    }

    #[test]
    fn moves_end_with_an_empty_set_and_belong_to_one_keyspace() {
        let mut other = moving(1, Portion::Tenant("42".to_owned()));
        other.keyspace = "another".to_owned();
        let map = map(vec![other]);
        assert_eq!(ids(&map, 42), [0_u32; 0]);
        assert!(map.has_moves());
        let map = map.with_moves(Moves::default());
        assert!(!map.has_moves());
        assert_eq!(map, Map::parse(MAP, "map.toml").unwrap());
    }

    #[test]
    fn both_ends_of_a_move_are_touched_by_what_names_no_key() {
        let map = map(vec![moving(3, Portion::Tenant("1".to_owned()))]);
        for shard in [1, 2] {
            assert!(!map.touched_on(ShardId::new(shard)).is_none());
        }
        assert!(map.touched_on(ShardId::new(3)).is_none());
    }

    #[test]
    fn a_move_is_there_once_and_there_are_not_more_than_can_be_told_apart() {
        let one = moving(1, Portion::Tenant("1".to_owned()));
        assert_eq!(Moves::new(vec![one.clone(), one.clone()]), None);
        let many = |count: usize| {
            Moves::new((0..).take(count).map(|id| moving(id, one.portion.clone())).collect())
        };
        assert!(many(MOVES_MAX).is_some() && many(MOVES_MAX + 1).is_none());
    }
}
