//! A keyspace: tables that share a key's type, hash and slots, and which
//! shard owns each slot.
//!
//! The checks are made where a map is built; here every slot has an owner.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

use crate::types::{ShardId, SlotId};

use super::decimal::Decimal;
use super::hash::{Hash, RowHash};
use super::key::{Key, KeyError, KeyType, Scratch};
use super::row;
use super::schemas::Schemas;

/// A keyspace's position in its map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyspaceId(u16);

impl KeyspaceId {
    /// The keyspace at position `index`.
    pub(crate) const fn new(index: u16) -> Self {
        Self(index)
    }

    /// Position in the map, usable as an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A group of co-located tables: one key type, hash and slot table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyspace {
    pub(crate) id: KeyspaceId,
    pub(crate) name: String,
    pub(crate) key_type: KeyType,
    /// The types of the other columns, where a key has several.
    pub(crate) more_types: Box<[KeyType]>,
    pub(crate) hash: Hash,
    /// Owner of each slot; never empty.
    pub(crate) owners: Box<[ShardId]>,
    pub(crate) pins: Pins,
    pub(crate) cut: Cut,
    pub(crate) spread: u32,
    /// The schemas that are its tenants, if they have one each.
    pub(crate) schemas: Schemas,
}

/// A number made of a keyspace's name.
pub(crate) fn spread(name: &str) -> u32 {
    let bits = xxh3_64(name.as_bytes()).to_le_bytes();
    u32::from_le_bytes([bits[0], bits[1], bits[2], bits[3]])
}

/// Which slot a key has, where no hash says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The hash says it.
    Hashed,
    /// The first key of each slot but the first, ascending.
    Bounds(Box<[Rank]>),
    /// The slots of the keys that are listed.
    Lists(Keys<u32>),
}

/// A key's place in its type's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Of an integer, a date or a point in time.
    Number(i64),
    /// Of a uuid.
    Uuid([u8; 16]),
}

impl Rank {
    /// The key's rank; `None` if its type has no order that all servers share.
    pub fn of(key: &Key<'_>) -> Option<Self> {
        match key {
            Key::Int(value) | Key::Time(value) => Some(Self::Number(*value)),
            Key::Date(days) => Some(Self::Number((*days).into())),
            Key::Uuid(bytes) => Some(Self::Uuid(*bytes)),
            Key::Text(_) | Key::Numeric(_) | Key::Bytes(_) | Key::Row(_) => None,
        }
    }
}

/// Tenants placed by name rather than by slot.
pub(crate) type Pins = Keys<ShardId>;

/// What is known of single keys, by the kind of the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keys<T> {
    /// Integers, dates and points in time.
    ints: BTreeMap<i64, T>,
    texts: BTreeMap<Box<str>, T>,
    uuids: BTreeMap<[u8; 16], T>,
    numbers: BTreeMap<Decimal, T>,
    bytes: BTreeMap<Box<[u8]>, T>,
}

impl<T> Default for Keys<T> {
    fn default() -> Self {
        Self {
            ints: BTreeMap::new(),
            texts: BTreeMap::new(),
            uuids: BTreeMap::new(),
            numbers: BTreeMap::new(),
            bytes: BTreeMap::new(),
        }
    }
}

impl<T: Copy> Keys<T> {
    /// Enters `key`; what was there before.
    pub(crate) fn insert(&mut self, key: &Key<'_>, what: T) -> Option<T> {
        match key {
            Key::Int(value) | Key::Time(value) => self.ints.insert(*value, what),
            Key::Date(days) => self.ints.insert((*days).into(), what),
            Key::Text(text) => self.texts.insert((*text).into(), what),
            Key::Uuid(bytes) => self.uuids.insert(*bytes, what),
            Key::Numeric(number) => self.numbers.insert(*number, what),
            Key::Bytes(bytes) => self.bytes.insert((*bytes).into(), what),
            // A hash names no single key.
            Key::Row(_) => None,
        }
    }

    /// Takes `key` out; what was there.
    pub(super) fn remove(&mut self, key: &Key<'_>) -> Option<T> {
        match key {
            Key::Int(value) | Key::Time(value) => self.ints.remove(value),
            Key::Date(days) => self.ints.remove(&i64::from(*days)),
            Key::Text(text) => self.texts.remove(*text),
            Key::Uuid(bytes) => self.uuids.remove(bytes),
            Key::Numeric(number) => self.numbers.remove(number),
            Key::Bytes(bytes) => self.bytes.remove(*bytes),
            Key::Row(_) => None,
        }
    }

    /// What is known of `key`.
    pub(crate) fn get(&self, key: &Key<'_>) -> Option<T> {
        match key {
            Key::Int(value) | Key::Time(value) => self.ints.get(value).copied(),
            Key::Date(days) => self.ints.get(&i64::from(*days)).copied(),
            Key::Text(text) => self.texts.get(*text).copied(),
            Key::Uuid(bytes) => self.uuids.get(bytes).copied(),
            Key::Numeric(number) => self.numbers.get(number).copied(),
            Key::Bytes(bytes) => self.bytes.get(*bytes).copied(),
            Key::Row(_) => None,
        }
    }

    /// All of them, in the order of their keys, which are of type `key_type`.
    fn iter(&self, key_type: KeyType) -> impl Iterator<Item = (Key<'_>, T)> {
        let integer = move |value| match key_type {
            KeyType::Date => Key::Date(i32::try_from(value).unwrap_or_default()),
            KeyType::Timestamptz => Key::Time(value),
            _ => Key::Int(value),
        };
        let ints = self.ints.iter().map(move |(value, what)| (integer(*value), *what));
        let texts = self.texts.iter().map(|(text, what)| (Key::Text(text), *what));
        let uuids = self.uuids.iter().map(|(bytes, what)| (Key::Uuid(*bytes), *what));
        let numbers = self.numbers.iter().map(|(number, what)| (Key::Numeric(*number), *what));
        let bytes = self.bytes.iter().map(|(bytes, what)| (Key::Bytes(bytes), *what));
        ints.chain(texts).chain(uuids).chain(numbers).chain(bytes)
    }
}

impl Keyspace {
    /// Position in the map.
    pub const fn id(&self) -> KeyspaceId {
        self.id
    }

    /// The name in the map.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A number made of its name, the same in every map that has it.
    pub const fn spread(&self) -> u32 {
        self.spread
    }

    /// Type of the key column; of the first one, where a key has several.
    pub const fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// The types of the columns that make a key, in their order.
    pub fn key_types(&self) -> impl Iterator<Item = KeyType> + Clone {
        std::iter::once(self.key_type).chain(self.more_types.iter().copied())
    }

    /// Whether several columns together are the key.
    pub const fn is_composite(&self) -> bool {
        !self.more_types.is_empty()
    }

    /// The key that `text` denotes: a value of the column's type or, of several
    /// columns, a row as the server writes it, `(eu,42)`. `scratch` is used for
    /// bytes only.
    ///
    /// # Errors
    /// As [`Key::from_text`], for any of the columns.
    pub fn key_from_text<'k>(
        &self,
        text: &'k str,
        scratch: &'k mut Scratch,
    ) -> Result<Key<'k>, KeyError> {
        if !self.is_composite() {
            return Key::from_text(self.key_type, text, scratch);
        }
        let mut hash = RowHash::new(self.hash);
        for (key_type, text) in self.key_types().zip(self.row(text)?) {
            hash = hash.with(&Key::from_text(key_type, &text, &mut Scratch::default())?);
        }
        Ok(hash.key())
    }

    /// The columns of the key that `text` denotes, each as its canonical text.
    ///
    /// # Errors
    /// As [`Keyspace::key_from_text`].
    pub fn columns_from_text(&self, text: &str) -> Result<Vec<String>, KeyError> {
        let texts = if self.is_composite() { self.row(text)? } else { vec![text.to_owned()] };
        let column = |(key_type, text): (KeyType, &String)| {
            Ok(Key::from_text(key_type, text, &mut Scratch::default())?.to_string())
        };
        self.key_types().zip(&texts).map(column).collect()
    }

    /// The values of a row's text, one for each column of the key.
    fn row(&self, text: &str) -> Result<Vec<String>, KeyError> {
        let columns = self.more_types.len() + 1;
        row::fields(text)
            .filter(|fields| fields.len() == columns)
            .ok_or(KeyError::NotRow { columns })
    }

    /// Whether each of its tenants is a schema, whose name is the key.
    pub const fn is_of_schemas(&self) -> bool {
        !self.schemas.is_empty()
    }

    /// How keys become slots.
    pub const fn hash(&self) -> Hash {
        self.hash
    }

    /// Number of slots, at least 1.
    pub fn slots(&self) -> u32 {
        u32::try_from(self.owners.len()).unwrap_or(u32::MAX)
    }

    /// The slot of `key`, whether or not the tenant is pinned elsewhere.
    /// Allocates nothing.
    pub fn slot_of(&self, key: &Key<'_>) -> SlotId {
        match &self.cut {
            Cut::Hashed => SlotId::new(self.hash.slot(key, self.slots())),
            Cut::Bounds(bounds) => {
                let rank = Rank::of(key);
                let slot = bounds.partition_point(|bound| Some(*bound) <= rank);
                SlotId::new(u32::try_from(slot).unwrap_or_default())
            }
            Cut::Lists(lists) => {
                SlotId::new(lists.get(key).unwrap_or(self.slots().saturating_sub(1)))
            }
        }
    }

    /// Whether it has the same name and gives every key the same slot, whoever
    /// owns that.
    pub fn cuts_like(&self, other: &Self) -> bool {
        self.name == other.name
            && self.key_type == other.key_type
            && self.more_types == other.more_types
            && self.hash == other.hash
            && self.slots() == other.slots()
            && self.cut == other.cut
            && self.schemas == other.schemas
    }

    /// Whether keys between two keys lie on few shards.
    pub const fn is_ranged(&self) -> bool {
        matches!(self.cut, Cut::Bounds(_))
    }

    /// The shards of all keys of `ranks`, both ends included; those of every key
    /// if the keyspace isn't cut by bounds.
    pub fn owners_between(&self, low: Option<Rank>, high: Option<Rank>) -> Vec<ShardId> {
        let Cut::Bounds(bounds) = &self.cut else { return self.shards() };
        if let (Some(low), Some(high)) = (low, high)
            && low > high
        {
            return Vec::new();
        }
        let slot = |rank| bounds.partition_point(|bound| *bound <= rank);
        let first = low.map_or(0, slot);
        let last = high.map_or(bounds.len(), slot);
        let mut shards: Vec<ShardId> = self.owners.get(first..=last).unwrap_or_default().to_vec();
        let pinned = self.pins().filter(|(key, _)| {
            let rank = Rank::of(key);
            low.is_none_or(|low| rank >= Some(low)) && high.is_none_or(|high| rank <= Some(high))
        });
        shards.extend(pinned.map(|(_, shard)| shard));
        shards.sort_unstable();
        shards.dedup();
        shards
    }

    /// The first key of each slot but the first, for a keyspace by range.
    pub(crate) fn bounds(&self) -> Vec<Key<'_>> {
        let Cut::Bounds(bounds) = &self.cut else { return Vec::new() };
        let key = |rank: &Rank| match (rank, self.key_type) {
            (Rank::Uuid(bytes), _) => Key::Uuid(*bytes),
            (Rank::Number(value), KeyType::Date) => {
                Key::Date(i32::try_from(*value).unwrap_or_default())
            }
            (Rank::Number(value), KeyType::Timestamptz) => Key::Time(*value),
            (Rank::Number(value), _) => Key::Int(*value),
        };
        bounds.iter().map(key).collect()
    }

    /// The keys of each slot but the last, for a keyspace by list.
    pub(crate) fn lists(&self) -> Vec<Vec<Key<'_>>> {
        let Cut::Lists(keys) = &self.cut else { return Vec::new() };
        let count = self.owners.len().saturating_sub(1);
        let mut lists: Vec<Vec<Key<'_>>> = (0..count).map(|_| Vec::new()).collect();
        for (key, slot) in keys.iter(self.key_type) {
            if let Some(list) = usize::try_from(slot).ok().and_then(|slot| lists.get_mut(slot)) {
                list.push(key);
            }
        }
        lists
    }

    /// The shard that owns `slot`; `None` past the last slot.
    pub fn slot_owner(&self, slot: SlotId) -> Option<ShardId> {
        self.owners.get(usize::try_from(slot.number()).ok()?).copied()
    }

    /// The shard that holds `key`: its pin if it has one, else its slot's
    /// owner. Allocates nothing.
    pub fn owner(&self, key: &Key<'_>) -> ShardId {
        self.place(key).0
    }

    /// The shard that holds `key`, and the key's slot, which says nothing of
    /// the shard if the tenant is pinned. Allocates nothing.
    pub fn place(&self, key: &Key<'_>) -> (ShardId, SlotId) {
        let slot = self.slot_of(key);
        if let Some(shard) = self.pin_of(key) {
            return (shard, slot);
        }
        let owner = self.slot_owner(slot);
        debug_assert!(owner.is_some(), "a slot of the keyspace has an owner");
        (owner.or_else(|| self.owners.first().copied()).unwrap_or(ShardId::new(0)), slot)
    }

    /// The shard to which the tenant `key` is pinned.
    pub fn pin_of(&self, key: &Key<'_>) -> Option<ShardId> {
        self.pins.get(key)
    }

    /// All pins, in the order of their keys.
    pub fn pins(&self) -> impl Iterator<Item = (Key<'_>, ShardId)> {
        self.pins.iter(self.key_type)
    }

    /// The shards that hold rows of this keyspace, each once, ascending.
    pub fn shards(&self) -> Vec<ShardId> {
        let mut shards: Vec<ShardId> = self.owners.to_vec();
        shards.extend(self.pins().map(|(_, shard)| shard));
        shards.sort_unstable();
        shards.dedup();
        shards
    }

    /// Runs of consecutive slots with one owner: first slot, last slot, owner.
    pub fn ranges(&self) -> Vec<(SlotId, SlotId, ShardId)> {
        let mut ranges: Vec<(SlotId, SlotId, ShardId)> = Vec::new();
        for (slot, owner) in (0..).map(SlotId::new).zip(&self.owners) {
            match ranges.last_mut() {
                Some((_, last, shard)) if shard == owner => *last = slot,
                _ => ranges.push((slot, slot, *owner)),
            }
        }
        ranges
    }
}
