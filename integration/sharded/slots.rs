//! Slots are, value for value, what the running server computes, for both
//! hashes that a database can compute; the golden file of tests/ says so of
//! one version only.

use std::fmt::Write as _;

use keyway::shardmap::{Key, Map, Scratch};

use crate::client::Client;
use crate::world::{KEY_TYPES, hash_of, world};

/// Values of each type, besides the borders.
const VALUES_PER_TYPE: usize = 4_000;

#[test]
fn slots_of_the_postgres_hash_are_the_servers() {
    for key_type in KEY_TYPES {
        let values = values(key_type);
        let hash = hash_of(key_type, &format!("v::{key_type}"));
        let sql = format!(
            "SELECT {hash} & 4095, {hash} & 65535, {hash} & 1 \
             FROM unnest({}) WITH ORDINALITY AS u(v, n) ORDER BY n",
            array(&values)
        );
        compare(key_type, &values, &sql, "postgres", [4096, 65_536, 2]);
    }
}

#[test]
fn slots_of_the_partition_hash_are_the_servers() {
    let remainder = |modulus: u32, key_type: &str| {
        format!(
            "(SELECT r FROM generate_series(0, {}) r WHERE satisfies_hash_partition(\
             'parts_{key_type}'::regclass, {modulus}, r, v::{key_type}))",
            modulus - 1
        )
    };
    for key_type in KEY_TYPES {
        let mut values = values(key_type);
        values.truncate(900);
        let sql = format!(
            "SELECT {}, {}, {} FROM unnest({}) WITH ORDINALITY AS u(v, n) ORDER BY n",
            remainder(24, key_type),
            remainder(7, key_type),
            remainder(64, key_type),
            array(&values)
        );
        compare(key_type, &values, &sql, "partition", [24, 7, 64]);
    }
}

/// Asks the server for three slots of each value, and the map for the same.
fn compare(key_type: &str, values: &[String], sql: &str, hash: &str, slots: [u32; 3]) {
    let mut text = "epoch = 1\ndatabase = \"d\"\n[[shard]]\nnumber = 1\nname = \"s\"\n\
                    primary = { host = \"h\" }\n"
        .to_owned();
    for count in slots {
        let _ = write!(
            text,
            "[[keyspace]]\nname = \"k{count}\"\ntype = \"{key_type}\"\nhash = \"{hash}\"\n\
             slots = {count}\n"
        );
    }
    let map = Map::parse(&text, "test").unwrap();
    let said = Client::connect(&world().cluster.primary(2).url).run(sql);
    assert_eq!(said.lines().count(), values.len() + 1, "one line for each value, and a count");
    for (value, line) in values.iter().zip(said.lines()) {
        let mut scratch = Scratch::default();
        let key_type = map.keyspaces()[0].key_type();
        let key = Key::from_text(key_type, value, &mut scratch).unwrap();
        let ours: Vec<String> =
            map.keyspaces().iter().map(|k| k.slot_of(&key).number().to_string()).collect();
        assert_eq!(ours.join("|"), line, "{hash} of {value:?} as {key_type}");
    }
}

/// An SQL array of texts.
fn array(values: &[String]) -> String {
    let quoted: Vec<String> =
        values.iter().map(|v| format!("'{}'", v.replace('\'', "''"))).collect();
    format!("ARRAY[{}]", quoted.join(","))
}

fn values(key_type: &str) -> Vec<String> {
    let mut random = Random(0x5eed + key_type.len() as u64);
    let (mut all, bits): (Vec<String>, u32) = match key_type {
        "int2" => (ints(&[0, 1, -1, i64::from(i16::MIN), i64::from(i16::MAX)]), 16),
        "int4" => (ints(&[0, 1, -1, i64::from(i32::MIN), i64::from(i32::MAX), 1 << 16]), 32),
        "int8" => {
            (ints(&[0, 1, -1, i64::MIN, i64::MAX, 1 << 32, -(1 << 32), (1 << 32) - 1, 1 << 31]), 64)
        }
        _ => (Vec::new(), 0),
    };
    while all.len() < VALUES_PER_TYPE {
        let value = match key_type {
            "uuid" => format!(
                "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
                random.next() & 0xffff_ffff,
                random.next() & 0xffff,
                random.next() & 0xffff,
                random.next() & 0xffff,
                random.next() & 0xffff_ffff_ffff
            ),
            "text" | "varchar" => words(&mut random),
            _ => (random.next().cast_signed() >> (64 - bits)).to_string(),
        };
        all.push(value);
    }
    all
}

fn ints(values: &[i64]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

/// Up to 40 characters of several scripts; no space at the end.
fn words(random: &mut Random) -> String {
    let alphabet: Vec<char> = "abcXYZ 0189_-'\\\"%é ßñ\u{301}漢字🙂\u{7f}\t".chars().collect();
    let length = random.below(41);
    let mut out: String = (0..length).map(|_| alphabet[random.below(alphabet.len())]).collect();
    if out.ends_with(char::is_whitespace) {
        out.push('.');
    }
    out
}

/// Numbers that look random and are the same in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}
