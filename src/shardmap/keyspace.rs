//! A keyspace: tables that share a key's type, hash and slots, and which
//! shard owns each slot.
//!
//! The checks are made where a map is built; here every slot has an owner.

use std::collections::BTreeMap;

use crate::types::{ShardId, SlotId};

use super::decimal::Decimal;
use super::hash::Hash;
use super::key::{Key, KeyType};

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
    pub(crate) hash: Hash,
    /// Owner of each slot; never empty.
    pub(crate) owners: Box<[ShardId]>,
    pub(crate) pins: Pins,
}

/// Tenants placed by name rather than by slot, by the kind of their key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pins {
    /// Integers, dates and points in time.
    pub(crate) ints: BTreeMap<i64, ShardId>,
    pub(crate) texts: BTreeMap<Box<str>, ShardId>,
    pub(crate) uuids: BTreeMap<[u8; 16], ShardId>,
    pub(crate) numbers: BTreeMap<Decimal, ShardId>,
    pub(crate) bytes: BTreeMap<Box<[u8]>, ShardId>,
}

impl Pins {
    /// Pins `key`; the shard that it was pinned to before.
    pub(crate) fn insert(&mut self, key: &Key<'_>, shard: ShardId) -> Option<ShardId> {
        match key {
            Key::Int(value) | Key::Time(value) => self.ints.insert(*value, shard),
            Key::Date(days) => self.ints.insert((*days).into(), shard),
            Key::Text(text) => self.texts.insert((*text).into(), shard),
            Key::Uuid(bytes) => self.uuids.insert(*bytes, shard),
            Key::Numeric(number) => self.numbers.insert(*number, shard),
            Key::Bytes(bytes) => self.bytes.insert((*bytes).into(), shard),
        }
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

    /// Type of the key columns.
    pub const fn key_type(&self) -> KeyType {
        self.key_type
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
        SlotId::new(self.hash.slot(key, self.slots()))
    }

    /// The shard that owns `slot`; `None` past the last slot.
    pub fn slot_owner(&self, slot: SlotId) -> Option<ShardId> {
        self.owners.get(usize::try_from(slot.number()).ok()?).copied()
    }

    /// The shard that holds `key`: its pin if it has one, else its slot's
    /// owner. Allocates nothing.
    pub fn owner(&self, key: &Key<'_>) -> ShardId {
        if let Some(shard) = self.pin_of(key) {
            return shard;
        }
        let slot = self.slot_of(key);
        let owner = self.slot_owner(slot);
        debug_assert!(owner.is_some(), "a slot of the keyspace has an owner");
        owner.or_else(|| self.owners.first().copied()).unwrap_or(ShardId::new(0))
    }

    /// The shard to which the tenant `key` is pinned.
    pub fn pin_of(&self, key: &Key<'_>) -> Option<ShardId> {
        match key {
            Key::Int(value) | Key::Time(value) => self.pins.ints.get(value).copied(),
            Key::Date(days) => self.pins.ints.get(&i64::from(*days)).copied(),
            Key::Text(text) => self.pins.texts.get(*text).copied(),
            Key::Uuid(bytes) => self.pins.uuids.get(bytes).copied(),
            Key::Numeric(number) => self.pins.numbers.get(number).copied(),
            Key::Bytes(bytes) => self.pins.bytes.get(*bytes).copied(),
        }
    }

    /// All pins, in the order of their keys.
    pub fn pins(&self) -> impl Iterator<Item = (Key<'_>, ShardId)> {
        let integer = |value| match self.key_type {
            KeyType::Date => Key::Date(i32::try_from(value).unwrap_or_default()),
            KeyType::Timestamptz => Key::Time(value),
            _ => Key::Int(value),
        };
        let ints = self.pins.ints.iter().map(move |(value, shard)| (integer(*value), *shard));
        let texts = self.pins.texts.iter().map(|(text, shard)| (Key::Text(text), *shard));
        let uuids = self.pins.uuids.iter().map(|(bytes, shard)| (Key::Uuid(*bytes), *shard));
        let numbers =
            self.pins.numbers.iter().map(|(number, shard)| (Key::Numeric(*number), *shard));
        let bytes = self.pins.bytes.iter().map(|(bytes, shard)| (Key::Bytes(bytes), *shard));
        ints.chain(texts).chain(uuids).chain(numbers).chain(bytes)
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
