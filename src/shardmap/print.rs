//! Writes a map down: in the canonical form of the file, which reads back as
//! the same map, and as sentences for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::types::{Role, ShardId};

use super::hash::Hash;
use super::key::Key;
use super::keyspace::Keyspace;
use super::map::{KeysFor, Map, Table};
use super::name::spelled;
use super::node::{Node, SecretRef, Shard};

impl Map {
    /// The map as a file; equal maps give equal texts, and parsing the text
    /// gives this map. A password that was given inline is left out.
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        self.write_toml(&mut out);
        out
    }

    /// One sentence for each shard: its nodes and what it owns.
    pub fn sentences(&self) -> Vec<(ShardId, String)> {
        self.shards.iter().map(|shard| (shard.id, self.sentence(shard))).collect()
    }

    fn write_toml(&self, out: &mut String) {
        // Writing to a string can't fail, so results are dropped here.
        let _ = writeln!(out, "epoch = {}", self.epoch.number());
        let _ = writeln!(out, "database = {}", quoted(&self.database));
        let _ = writeln!(out, "home = {}", quoted(self.name_of(self.home)));
        if let Some(consistency) = self.consistency {
            let _ = writeln!(out, "consistency = \"{consistency}\"");
        }
        if self.already_moved {
            let _ = writeln!(out, "data = \"already-moved\"");
        }
        if self.keys_for == KeysFor::Marks {
            let _ = writeln!(out, "keys = \"marks\"");
        }
        for shard in &self.shards {
            self.write_shard(out, shard);
        }
        for keyspace in &self.keyspaces {
            self.write_keyspace(out, keyspace);
        }
        self.write_tables(out);
        for (schema, tables) in &self.levels {
            for (table, level) in tables {
                let name = quoted(&spelled(&[schema, table]));
                let _ = writeln!(out, "\n[[reads]]\nconsistency = \"{level}\"\ntables = [{name}]");
            }
        }
    }

    fn write_shard(&self, out: &mut String, shard: &Shard) {
        let _ = writeln!(out, "\n[[shard]]\nnumber = {}", shard.id.number());
        let _ = writeln!(out, "name = {}", quoted(&shard.name));
        let _ = writeln!(out, "dbname = {}", quoted(&shard.dbname));
        if let Some(user) = &shard.credentials.user {
            let _ = writeln!(out, "user = {}", quoted(user));
        }
        match &shard.credentials.password {
            SecretRef::Env(name) => {
                let _ = writeln!(out, "password_env = {}", quoted(name));
            }
            SecretRef::File(path) => {
                let _ = writeln!(out, "password_file = {}", quoted(path));
            }
            SecretRef::Command(words) => {
                let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
                let _ = writeln!(out, "password_command = [{}]", words.join(", "));
            }
            SecretRef::Inline(_) | SecretRef::Client => {}
        }
        let _ = writeln!(out, "tls = \"{}\"", shard.tls.mode);
        if let Some(path) = &shard.tls.root_cert {
            let _ = writeln!(out, "tls_root_cert = {}", quoted(path));
        }
        if let Some(primary) = self.node(shard.primary) {
            let _ = writeln!(out, "primary = {}", inline_node(primary));
        }
        let replicas = shard.replicas.iter().filter_map(|id| self.node(*id));
        let replicas: Vec<String> = replicas.map(inline_node).collect();
        if !replicas.is_empty() {
            let _ = writeln!(out, "replicas = [\n  {},\n]", replicas.join(",\n  "));
        }
    }

    fn write_keyspace(&self, out: &mut String, keyspace: &Keyspace) {
        let _ = writeln!(out, "\n[[keyspace]]\nname = {}", quoted(keyspace.name()));
        if keyspace.is_composite() {
            let types: Vec<String> = keyspace.key_types().map(|one| quoted(one.name())).collect();
            let _ = writeln!(out, "types = [{}]", types.join(", "));
        } else {
            let _ = writeln!(out, "type = \"{}\"", keyspace.key_type());
        }
        if keyspace.is_of_schemas() {
            let patterns: Vec<String> =
                keyspace.schemas.iter().map(|pattern| quoted(&pattern.to_string())).collect();
            let _ = writeln!(out, "schemas = [{}]", patterns.join(", "));
        }
        let _ = writeln!(out, "hash = \"{}\"", keyspace.hash().name());
        let list = |keys: &[Key<'_>]| {
            let keys: Vec<String> = keys.iter().map(|key| quoted(&key.to_string())).collect();
            format!("[{}]", keys.join(", "))
        };
        match keyspace.hash() {
            Hash::Postgres | Hash::Partition | Hash::Xxh3 => {
                let _ = writeln!(out, "slots = {}", keyspace.slots());
            }
            Hash::Range => {
                let _ = writeln!(out, "bounds = {}", list(&keyspace.bounds()));
            }
            Hash::List => {
                let lists: Vec<String> = keyspace.lists().iter().map(|keys| list(keys)).collect();
                let _ = writeln!(out, "values = [{}]", lists.join(", "));
            }
        }
        let _ = writeln!(out, "[keyspace.ranges]");
        for (shard, ranges) in ranges_by_shard(keyspace) {
            let ranges: Vec<String> = ranges.iter().map(|range| quoted(range)).collect();
            let _ = writeln!(out, "{} = [{}]", quoted(self.name_of(shard)), ranges.join(", "));
        }
        let mut pins = keyspace.pins().peekable();
        if pins.peek().is_some() {
            let _ = writeln!(out, "[keyspace.pins]");
        }
        for (key, shard) in pins {
            let (key, shard) = (quoted(&key.to_string()), quoted(self.name_of(shard)));
            let _ = writeln!(out, "{key} = {shard}");
        }
    }

    fn write_tables(&self, out: &mut String) {
        let mut references = Vec::new();
        let mut singles: BTreeMap<ShardId, (Vec<String>, Vec<String>)> = BTreeMap::new();
        for (schema, name, place) in self.tables() {
            let name = quoted(&spelled(&[schema, name]));
            match place {
                Table::Sharded { keyspace, column, rest } => {
                    let keyspace = self.keyspace(keyspace).map_or("", Keyspace::name);
                    let (keyspace, column) = (quoted(keyspace), quoted(&spelled(&[column])));
                    let _ = writeln!(out, "\n[[table]]\nname = {name}\nkeyspace = {keyspace}");
                    let rest: Vec<String> =
                        rest.iter().map(|one| format!(", {}", quoted(&spelled(&[one])))).collect();
                    let _ = if rest.is_empty() {
                        writeln!(out, "key = {column}")
                    } else {
                        writeln!(out, "columns = [{column}{}]", rest.concat())
                    };
                }
                Table::Reference => references.push(name),
                Table::Single(shard) => singles.entry(shard).or_default().0.push(name),
            }
        }
        if !references.is_empty() {
            let _ = writeln!(out, "\n[reference]\ntables = [{}]", references.join(", "));
        }
        for (schema, shard) in self.single_schemas() {
            singles.entry(shard).or_default().1.push(quoted(&spelled(&[schema])));
        }
        for (shard, (tables, schemas)) in singles {
            let _ = writeln!(out, "\n[[single]]\nshard = {}", quoted(self.name_of(shard)));
            let _ = writeln!(out, "tables = [{}]", tables.join(", "));
            let _ = writeln!(out, "schemas = [{}]", schemas.join(", "));
        }
    }

    fn sentence(&self, shard: &Shard) -> String {
        let mut text = format!("shard {} ({})", shard.name, shard.id.number());
        if shard.id == self.home {
            text += ", home,";
        }
        if let Some(primary) = self.node(shard.primary) {
            let _ = write!(text, " on {}/{}", primary.endpoint, shard.dbname);
        }
        let replicas = shard.replicas.iter().filter_map(|id| self.node(*id));
        let replicas: Vec<String> = replicas.map(|node| node.endpoint.to_string()).collect();
        if !replicas.is_empty() {
            let _ = write!(text, " with replicas {}", replicas.join(", "));
        }
        let mut owned = Vec::new();
        for keyspace in &self.keyspaces {
            if let Some(ranges) = ranges_by_shard(keyspace).get(&shard.id) {
                let count = keyspace.owners.iter().filter(|owner| **owner == shard.id).count();
                let shown: Vec<&str> =
                    ranges.iter().take(RANGES_SHOWN).map(String::as_str).collect();
                let more = if ranges.len() > RANGES_SHOWN { ", …" } else { "" };
                let (slots, name) = (keyspace.slots(), keyspace.name());
                let shown = shown.join(", ");
                owned.push(format!("{count} of {slots} slots of {name} ({shown}{more})"));
            }
            let pins = keyspace.pins().filter(|(_, pinned)| *pinned == shard.id).count();
            if pins > 0 {
                owned.push(format!("{pins} pinned tenants of {}", keyspace.name()));
            }
        }
        if !owned.is_empty() {
            let _ = write!(text, " owns {}", owned.join(" and "));
        }
        text
    }

    fn name_of(&self, shard: ShardId) -> &str {
        self.shard(shard).map_or("", |shard| shard.name.as_str())
    }
}

fn ranges_by_shard(keyspace: &Keyspace) -> BTreeMap<ShardId, Vec<String>> {
    let mut shards: BTreeMap<ShardId, Vec<String>> = BTreeMap::new();
    for (first, last, shard) in keyspace.ranges() {
        let (first, last) = (first.number(), last.number());
        let text = if first == last { first.to_string() } else { format!("{first}-{last}") };
        shards.entry(shard).or_default().push(text);
    }
    shards
}

fn inline_node(node: &Node) -> String {
    let mut text = format!("{{ host = {}, port = {}", quoted(node.host()), node.port());
    if let Some(zone) = &node.endpoint.zone {
        let _ = write!(text, ", zone = {}", quoted(zone));
    }
    if node.role == Role::Replica {
        let _ = write!(text, ", weight = {}", node.endpoint.weight);
    }
    text + " }"
}

/// `text` as a TOML string on one line.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A sentence names at most so many ranges of slots.
const RANGES_SHOWN: usize = 8;
