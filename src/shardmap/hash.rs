//! Hashes of keys, value for value what Postgres computes.
//!
//! Postgres hashes with Bob Jenkins's lookup3 (2006, public domain), started
//! with its own constant; the extended functions return 64 bits and take a
//! seed. Integers of all widths hash alike, so that `int4` and `int8` columns
//! of equal value share a slot. `tests/golden/hash` holds values that a server
//! computed.
//!
//! Source: PostgreSQL's documentation of hash functions and partitioning;
//! values checked against servers.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::decimal::Decimal;
use super::key::Key;

/// How a keyspace turns a key into a slot; never changes once data exists.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Hash {
    /// `hash<type>extended(key, 0) & (slots - 1)`: any shard can compute it in
    /// SQL. Slots are a power of two.
    #[default]
    Postgres,
    /// What `PARTITION BY HASH` computes for a table with `slots` partitions:
    /// the slot is the remainder.
    Partition,
    /// XXH3 (64 bits, seed 0) over the key's canonical bytes, modulo `slots`.
    /// No database can compute it.
    Xxh3,
    /// No hash: `bounds` cut the keys, in their order, into slots.
    Range,
    /// No hash: `values` lists the keys of each slot; the last slot has all
    /// others.
    List,
}

impl Hash {
    /// The slot of `key` among `slots`, which is at least 1.
    ///
    /// For [`Hash::Postgres`] `slots` must be a power of two, which the map's
    /// checks guarantee. Allocates nothing.
    pub(crate) fn slot(self, key: &Key<'_>, slots: u32) -> u32 {
        let slots = u64::from(slots.max(1));
        debug_assert!(
            self != Self::Postgres || slots.is_power_of_two(),
            "slots are a power of two"
        );
        let slot = match self {
            Self::Postgres => extended(key, 0) & (slots - 1),
            Self::Partition => partition(key) % slots,
            Self::Xxh3 => canonical(key) % slots,
            // The keyspace knows.
            Self::Range | Self::List => 0,
        };
        low(slot)
    }

    /// Whether keys of several columns have a hash of this kind: one that every
    /// server computes of a row.
    pub(crate) const fn takes_rows(self) -> bool {
        match self {
            Self::Postgres | Self::Partition => true,
            Self::Xxh3 | Self::Range | Self::List => false,
        }
    }

    /// The word that the map file uses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Partition => "partition",
            Self::Xxh3 => "xxh3",
            Self::Range => "range",
            Self::List => "list",
        }
    }
}

/// The hash of a key of several columns, from the first to the last: of
/// [`Hash::Postgres`] what `hash_record_extended(ROW(…), 0)` returns, of
/// [`Hash::Partition`] the row hash of a table partitioned by those columns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowHash {
    hash: Hash,
    state: u64,
}

impl RowHash {
    /// The hash before the first column; `hash` takes rows.
    pub(crate) fn new(hash: Hash) -> Self {
        debug_assert!(hash.takes_rows(), "a row has such a hash");
        Self { hash, state: 0 }
    }

    /// The hash with one more column.
    #[must_use]
    pub(crate) fn with(self, key: &Key<'_>) -> Self {
        let state = match self.hash {
            Hash::Postgres => self.state.wrapping_mul(31).wrapping_add(extended(key, 0)),
            Hash::Partition => combine(self.state, extended(key, PARTITION_SEED)),
            // No map has such a keyspace.
            Hash::Xxh3 | Hash::Range | Hash::List => self.state,
        };
        Self { state, ..self }
    }

    /// The key.
    pub(crate) const fn key(self) -> Key<'static> {
        Key::Row(self.state)
    }
}

/// Postgres's 64-bit combining step.
const fn combine(before: u64, hash: u64) -> u64 {
    before ^ hash.wrapping_add(COMBINE).wrapping_add(before << 54).wrapping_add(before >> 7)
}

/// What `hash<type>extended(key, seed)` returns.
fn extended(key: &Key<'_>, seed: u64) -> u64 {
    match key {
        Key::Int(value) => hash_integer(*value, seed),
        Key::Text(text) => hash_bytes(text.as_bytes(), seed),
        Key::Uuid(bytes) => hash_bytes(bytes, seed),
        Key::Numeric(number) => hash_numeric(*number, seed),
        Key::Date(days) => hash_integer((*days).into(), seed),
        Key::Time(micros) => hash_integer(*micros, seed),
        Key::Bytes(bytes) => hash_bytes(bytes, seed),
        Key::Row(hash) => *hash,
    }
}

/// The row hash of a table partitioned by one column.
fn partition(key: &Key<'_>) -> u64 {
    match key {
        Key::Row(hash) => *hash,
        Key::Int(_)
        | Key::Text(_)
        | Key::Uuid(_)
        | Key::Numeric(_)
        | Key::Date(_)
        | Key::Time(_)
        | Key::Bytes(_) => combine(0, extended(key, PARTITION_SEED)),
    }
}

/// XXH3 over the binary forms of int8, text, uuid, date, timestamptz and bytea,
/// and over a numeric's shortest spelling.
fn canonical(key: &Key<'_>) -> u64 {
    match key {
        Key::Int(value) => xxh3_64(&value.to_be_bytes()),
        Key::Text(text) => xxh3_64(text.as_bytes()),
        Key::Uuid(bytes) => xxh3_64(bytes),
        Key::Numeric(number) => xxh3_64(number.to_string().as_bytes()),
        Key::Date(days) => xxh3_64(&days.to_be_bytes()),
        Key::Time(micros) => xxh3_64(&micros.to_be_bytes()),
        Key::Bytes(bytes) => xxh3_64(bytes),
        // No map has such a keyspace.
        Key::Row(hash) => *hash,
    }
}

/// Folds the high half into the low one so that a value hashes the same at
/// every width: the high half of a small number is its sign, and drops out.
fn hash_integer(value: i64, seed: u64) -> u64 {
    let bits = value.cast_unsigned();
    let high = low(bits >> 32);
    let folded = low(bits) ^ if value >= 0 { high } else { !high };
    let mut state = State::new(4, seed);
    state.a = state.a.wrapping_add(folded);
    state.finish()
}

/// The digits to the base 10,000, without zeros at either end, and their power;
/// the sign doesn't count.
fn hash_numeric(number: Decimal, seed: u64) -> u64 {
    let (groups, power) = number.groups();
    if groups.is_empty() {
        return seed.wrapping_sub(1);
    }
    let bytes: Vec<u8> = groups.iter().rev().flat_map(|group| group.to_le_bytes()).collect();
    hash_bytes(&bytes, seed) ^ i64::from(power).cast_unsigned()
}

/// lookup3 over bytes, read as little-endian words.
fn hash_bytes(bytes: &[u8], seed: u64) -> u64 {
    // Postgres counts lengths in 32 bits, and a key is below 1 GiB.
    let mut state = State::new(low(bytes.len() as u64), seed);
    let (blocks, tail) = bytes.as_chunks::<12>();
    for block in blocks {
        state.add(block);
        state.mix();
    }
    state.add_tail(tail);
    state.finish()
}

/// The three words that lookup3 stirs.
struct State {
    a: u32,
    b: u32,
    c: u32,
}

impl State {
    fn new(len: u32, seed: u64) -> Self {
        let start = GOLDEN_RATIO.wrapping_add(len).wrapping_add(START);
        let mut state = Self { a: start, b: start, c: start };
        if seed != 0 {
            state.a = state.a.wrapping_add(low(seed >> 32));
            state.b = state.b.wrapping_add(low(seed));
            state.mix();
        }
        state
    }

    fn add(&mut self, block: &[u8; 12]) {
        let [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3] = *block;
        self.a = self.a.wrapping_add(u32::from_le_bytes([a0, a1, a2, a3]));
        self.b = self.b.wrapping_add(u32::from_le_bytes([b0, b1, b2, b3]));
        self.c = self.c.wrapping_add(u32::from_le_bytes([c0, c1, c2, c3]));
    }

    /// The last, incomplete block. The third word's low byte stays free: it
    /// stood for the length in the original, so its bytes move up by one.
    fn add_tail(&mut self, tail: &[u8]) {
        let mut padded = [0; 12];
        let (head, last) = tail.split_at(tail.len().min(8));
        for (to, from) in padded.iter_mut().zip(head) {
            *to = *from;
        }
        for (to, from) in padded.iter_mut().skip(9).zip(last) {
            *to = *from;
        }
        self.add(&padded);
    }

    fn mix(&mut self) {
        let Self { a, b, c } = self;
        stir(a, c, b, 4);
        stir(b, a, c, 6);
        stir(c, b, a, 8);
        stir(a, c, b, 16);
        stir(b, a, c, 19);
        stir(c, b, a, 4);
    }

    fn finish(self) -> u64 {
        let Self { mut a, mut b, mut c } = self;
        settle(&mut c, b, 14);
        settle(&mut a, c, 11);
        settle(&mut b, a, 25);
        settle(&mut c, b, 16);
        settle(&mut a, c, 4);
        settle(&mut b, a, 14);
        settle(&mut c, b, 24);
        (u64::from(b) << 32) | u64::from(c)
    }
}

/// One step of the mixing: `x` takes in `y`, which takes in `z`.
const fn stir(x: &mut u32, y: &mut u32, z: &u32, turn: u32) {
    *x = x.wrapping_sub(*y) ^ y.rotate_left(turn);
    *y = y.wrapping_add(*z);
}

/// One step of the ending: `x` takes in `y`.
const fn settle(x: &mut u32, y: u32, turn: u32) {
    *x = (*x ^ y).wrapping_sub(y.rotate_left(turn));
}

/// The low 32 bits.
const fn low(value: u64) -> u32 {
    (value & 0xFFFF_FFFF) as u32
}

/// lookup3's arbitrary start, and Postgres's addition to it.
const GOLDEN_RATIO: u32 = 0x9E37_79B9;
const START: u32 = 3_923_095;
/// The seed with which Postgres hashes partition keys.
const PARTITION_SEED: u64 = 0x7A5B_2236_7996_DCFD;
/// The constant of that step.
const COMBINE: u64 = 0x49A0_F4DD_15E5_A8E3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_every_width_hash_alike() {
        // Folding keeps the low half of every int4, negative ones too.
        for value in [i32::MIN, -1, 0, 1, i32::MAX] {
            let mut state = State::new(4, 0);
            state.a = state.a.wrapping_add(value.cast_unsigned());
            assert_eq!(hash_integer(value.into(), 0), state.finish(), "{value}");
        }
    }

    #[test]
    fn slot_is_below_the_number_of_slots() {
        for slots in [1, 2, 4096, 65_536] {
            for hash in [Hash::Postgres, Hash::Partition, Hash::Xxh3] {
                for value in [-1, 0, 1, i64::MIN, i64::MAX] {
                    assert!(hash.slot(&Key::Int(value), slots) < slots);
                }
            }
        }
        assert!(Hash::Partition.slot(&Key::Text("x"), 7) < 7);
    }
}
