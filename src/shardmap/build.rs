//! Builds a map from its file and holds it to the rules: what is named exists,
//! what is numbered is unique, limits are kept. Slots are in `slots`, types and
//! columns of keys in `build::keys`.

mod keys;

use std::collections::{BTreeMap, BTreeSet};

use toml::Spanned;

use crate::document::{Problem, Source, nearest};
use crate::types::{Consistency, Epoch, NodeId, Role, ShardId};

use super::file::{File, KeyspaceEntry, PrimaryEntry, ReplicaEntry, ShardEntry};
use super::hash::Hash;
use super::key::{Key, KeyType, Scratch};
use super::keyspace::{Cut, Keys, Keyspace, KeyspaceId, Pins, Rank, spread};
use super::map::{DEFAULT_SCHEMA, KeysFor, Levels, Map, NODES_MAX, Placement, SHARDS_MAX};
use super::name::{identifier, table_name};
use super::node::{Credentials, Endpoint, Node, SecretRef, Shard, Tls, TlsMode};
use super::schemas::{Pattern, Schemas};
use super::slots;
use keys::KeyNames;

/// What has been read so far, and what is wrong with it.
pub(super) struct Builder<'a> {
    source: Source<'a>,
    problems: Vec<Problem>,
    shards: Vec<Shard>,
    nodes: Vec<Node>,
    keyspaces: Vec<Keyspace>,
    tables: BTreeMap<String, BTreeMap<String, Placement>>,
    schemas: BTreeMap<String, ShardId>,
    /// Names of shards and keyspaces whose own problems are reported, so that
    /// using them is not one more.
    broken: BTreeSet<String>,
}

impl<'a> Builder<'a> {
    pub(super) const fn new(source: Source<'a>) -> Self {
        Self {
            source,
            problems: Vec::new(),
            shards: Vec::new(),
            nodes: Vec::new(),
            keyspaces: Vec::new(),
            tables: BTreeMap::new(),
            schemas: BTreeMap::new(),
            broken: BTreeSet::new(),
        }
    }

    pub(super) fn build(mut self, file: &File) -> Result<Map, Vec<Problem>> {
        let epoch = self.epoch(file);
        let database = self.database(file);
        self.shards(file, &database);
        let home = self.home(file);
        self.keyspaces(file);
        self.placements(file);
        let consistency = self.consistency(file.consistency.as_ref());
        let levels = self.levels(file);
        let already_moved = self.already_moved(file);
        let keys_for = self.keys_for(file);
        match (epoch, home) {
            (Some(epoch), Some(home)) if self.problems.is_empty() => Ok(Map {
                epoch,
                database,
                home,
                shards: self.shards,
                nodes: self.nodes,
                keyspaces: self.keyspaces,
                tables: self.tables,
                schemas: self.schemas,
                consistency,
                levels,
                already_moved,
                keys_for,
                moving: None,
            }),
            _ => Err(self.problems),
        }
    }

    fn epoch(&mut self, file: &File) -> Option<Epoch> {
        let Some(found) = &file.epoch else {
            self.refuse(0, "the key epoch is missing: give the map a version, epoch = 1");
            return None;
        };
        match u64::try_from(*found.get_ref()) {
            Ok(number) if number > 0 => Some(Epoch::new(number)),
            _ => {
                self.refuse(found.span().start, "epoch must be 1 or more");
                None
            }
        }
    }

    fn database(&mut self, file: &File) -> String {
        match &file.database {
            Some(name) => {
                self.check_name("database", name);
                name.get_ref().clone()
            }
            None => {
                self.refuse(0, "the key database is missing: the name that clients connect to");
                String::new()
            }
        }
    }

    fn home(&mut self, file: &File) -> Option<ShardId> {
        match (&file.home, self.shards.as_slice()) {
            (Some(name), _) => self.shard_named(name),
            (None, [only]) => Some(only.id),
            (None, _) => {
                if !file.shard.is_empty() {
                    let reason = "the key home is missing: name the shard on which statements without tables run";
                    self.refuse(0, reason);
                }
                None
            }
        }
    }

    /// The levels of tables that have one of their own.
    fn levels(&mut self, file: &File) -> Levels {
        let mut levels = Levels::new();
        for entry in &file.reads {
            let level = self.consistency(Some(&entry.get_ref().consistency));
            for name in &entry.get_ref().tables {
                let at = name.span().start;
                let (schema, table) = match table_name(name.get_ref()) {
                    Ok((schema, table)) => {
                        (schema.unwrap_or_else(|| DEFAULT_SCHEMA.to_owned()), table)
                    }
                    Err(reason) => {
                        self.refuse(at, reason);
                        continue;
                    }
                };
                let tables = levels.entry(schema).or_default();
                if let Some(level) = level
                    && tables.insert(table, level).is_some()
                {
                    let name = name.get_ref();
                    self.refuse(at, format!("the table {name} has two levels of reads"));
                }
            }
        }
        levels
    }

    fn consistency(&mut self, found: Option<&Spanned<String>>) -> Option<Consistency> {
        let found = found?;
        found
            .get_ref()
            .parse()
            .map_err(|error| self.refuse(found.span().start, format!("consistency is {error}")))
            .ok()
    }

    fn already_moved(&mut self, file: &File) -> bool {
        match &file.data {
            None => false,
            Some(found) if found.get_ref() == "already-moved" => true,
            Some(found) => {
                let reason = "data can only be \"already-moved\", or be left out";
                self.refuse(found.span().start, reason);
                false
            }
        }
    }

    /// After the shards and keyspaces.
    fn keys_for(&mut self, file: &File) -> KeysFor {
        let Some(found) = &file.keys else { return KeysFor::Places };
        let wrong = if found.get_ref() != "marks" {
            Some("keys can only be \"marks\", or be left out")
        } else if file.shard.len() > 1 {
            Some("keys = \"marks\" is for one shard: with several, keys say where rows are")
        } else if file.keyspace.iter().any(|keyspace| keyspace.get_ref().schemas.is_some()) {
            Some("keys = \"marks\" is for key columns: a keyspace of schemas has none")
        } else {
            None
        };
        if let Some(reason) = wrong {
            self.refuse(found.span().start, reason);
        }
        KeysFor::Marks
    }

    fn shards(&mut self, file: &File, database: &str) {
        if file.shard.is_empty() {
            self.refuse(0, "the map has no shard: add a section [[shard]]");
        }
        for (index, entry) in file.shard.iter().enumerate() {
            if index == SHARDS_MAX {
                let reason = format!("the map has more than {SHARDS_MAX} shards");
                self.refuse(entry.span().start, reason);
                return;
            }
            self.shard(entry, database);
        }
    }

    fn shard(&mut self, entry: &Spanned<ShardEntry>, database: &str) {
        let at = entry.span().start;
        let entry = entry.get_ref();
        self.check_name("a shard's name", &entry.name);
        let name = entry.name.get_ref();
        if self.shards.iter().any(|shard| shard.name == *name) {
            self.refuse(entry.name.span().start, format!("two shards are called {name}"));
        }
        let number = match u16::try_from(*entry.number.get_ref()) {
            Ok(number) if number > 0 => number,
            _ => {
                self.refuse(entry.number.span().start, "a shard's number is from 1 to 65535");
                0
            }
        };
        let id = ShardId::new(number);
        if let Some(twin) = self.shards.iter().find(|shard| shard.id == id && number > 0) {
            let reason = format!("shards {} and {name} have the same number {number}", twin.name);
            self.refuse(entry.number.span().start, reason);
        }
        if let Some(dbname) = &entry.dbname {
            self.check_name("dbname", dbname);
        }
        let dbname = entry.dbname.as_ref().map_or(database, |dbname| dbname.get_ref()).to_owned();
        let credentials = self.credentials(entry);
        let tls = self.tls(entry);
        let Some(primary) = self.primary(id, &dbname, &entry.primary) else {
            self.broken.insert(name.clone());
            return;
        };
        let replicas =
            entry.replicas.iter().filter_map(|entry| self.replica(id, &dbname, entry)).collect();
        if self.nodes.len() == NODES_MAX {
            self.refuse(at, format!("the map has more than {NODES_MAX} nodes"));
        }
        let name = name.clone();
        self.shards.push(Shard { id, name, dbname, credentials, tls, primary, replicas });
    }

    fn credentials(&mut self, entry: &ShardEntry) -> Credentials {
        if let Some(user) = &entry.user {
            self.check_name("user", user);
        }
        let env = entry.password_env.as_ref().map(|name| {
            self.check_text("password_env", name);
            (name.span().start, SecretRef::Env(name.get_ref().clone()))
        });
        let file = entry.password_file.as_ref().map(|path| {
            self.check_text("password_file", path);
            (path.span().start, SecretRef::File(path.get_ref().clone()))
        });
        let command = entry.password_command.as_ref().map(|words| {
            let at = words.span().start;
            if words.get_ref().first().is_none_or(String::is_empty) {
                self.refuse(at, "password_command names no program");
            }
            (at, SecretRef::Command(words.get_ref().clone()))
        });
        let mut given = [env, file, command].into_iter().flatten();
        let first = given.next();
        if let Some((at, _)) = given.next() {
            let reason = "password_env, password_file, password_command: keep one of them";
            self.refuse(at, reason);
        }
        if let (None, Some((at, _))) = (&entry.user, &first) {
            self.refuse(*at, "a password is given without a user");
        }
        let password = first.map_or(SecretRef::Client, |(_, reference)| reference);
        let user = entry.user.as_ref().map(|user| user.get_ref().clone());
        Credentials { user, password }
    }

    fn tls(&mut self, entry: &ShardEntry) -> Tls {
        let mode = match entry.tls.as_ref().map(|tls| (tls.get_ref().as_str(), tls.span().start)) {
            None => TlsMode::default(),
            Some(("disable", _)) => TlsMode::Disable,
            Some(("prefer", _)) => TlsMode::Prefer,
            Some(("require", _)) => TlsMode::Require,
            Some(("verify-full", _)) => TlsMode::VerifyFull,
            Some((_, at)) => {
                self.refuse(at, "tls must be one of disable, prefer, require, verify-full");
                TlsMode::VerifyFull
            }
        };
        if let Some(path) = &entry.tls_root_cert {
            self.check_text("tls_root_cert", path);
            if mode != TlsMode::VerifyFull {
                let reason = format!(
                    "tls_root_cert has no effect with tls = \"{mode}\": write tls = \"verify-full\""
                );
                self.refuse(path.span().start, reason);
            }
        }
        Tls { mode, root_cert: entry.tls_root_cert.as_ref().map(|path| path.get_ref().clone()) }
    }

    fn primary(
        &mut self,
        shard: ShardId,
        dbname: &str,
        entry: &Spanned<PrimaryEntry>,
    ) -> Option<NodeId> {
        let PrimaryEntry { host, port, zone } = entry.get_ref();
        let endpoint = self.endpoint(host, port.as_ref(), zone.clone(), 1);
        self.add_node(shard, dbname, Role::Primary, endpoint, host.span().start)
    }

    fn replica(
        &mut self,
        shard: ShardId,
        dbname: &str,
        entry: &Spanned<ReplicaEntry>,
    ) -> Option<NodeId> {
        let ReplicaEntry { host, port, zone, weight } = entry.get_ref();
        let weight = weight.as_ref().map_or(Some(1), |weight| {
            let fits = u16::try_from(*weight.get_ref()).ok().filter(|weight| *weight <= WEIGHT_MAX);
            if fits.is_none() {
                self.refuse(weight.span().start, format!("a weight is from 0 to {WEIGHT_MAX}"));
            }
            fits
        });
        let endpoint = self.endpoint(host, port.as_ref(), zone.clone(), weight.unwrap_or(1));
        self.add_node(shard, dbname, Role::Replica, endpoint, host.span().start)
    }

    fn endpoint(
        &mut self,
        host: &Spanned<String>,
        port: Option<&Spanned<i64>>,
        zone: Option<String>,
        weight: u16,
    ) -> Endpoint {
        let text = host.get_ref();
        if text.is_empty() || text.len() > HOST_BYTES_MAX {
            let reason = format!("a host has from 1 to {HOST_BYTES_MAX} bytes");
            self.refuse(host.span().start, reason);
        } else if text.contains(|c: char| c.is_whitespace() || c.is_control() || c == ',') {
            self.refuse(
                host.span().start,
                "a host is one name, address, or folder, without blanks",
            );
        } else if !text.starts_with('/') && text.contains('/') {
            let reason = "the folder of a Unix socket must be an absolute path";
            self.refuse(host.span().start, reason);
        }
        let number = port.map_or(Ok(PORT_DEFAULT), |port| u16::try_from(*port.get_ref()));
        let number = number.ok().filter(|number| *number > 0);
        if let (None, Some(port)) = (number, port) {
            self.refuse(port.span().start, "a port is from 1 to 65535");
        }
        let port = number.unwrap_or(PORT_DEFAULT);
        Endpoint { host: text.clone(), port, zone, weight }
    }

    fn add_node(
        &mut self,
        shard: ShardId,
        dbname: &str,
        role: Role,
        endpoint: Endpoint,
        at: usize,
    ) -> Option<NodeId> {
        let here = |node: &Node| {
            node.endpoint.host == endpoint.host && node.endpoint.port == endpoint.port
        };
        for twin in self.nodes.iter().filter(|node| here(node)) {
            let other = self.shards.iter().find(|shard| shard.id == twin.shard);
            if other.is_none_or(|other| other.dbname == dbname) {
                let reason = match other {
                    Some(other) => format!(
                        "{endpoint} with database {dbname} is already a node of shard {}",
                        other.name
                    ),
                    None => format!("{endpoint} is already a node of this shard"),
                };
                self.problems.push(self.source.problem(at, reason));
                return None;
            }
        }
        let index =
            u16::try_from(self.nodes.len()).ok().filter(|_| self.nodes.len() < NODES_MAX)?;
        let id = NodeId::new(index);
        self.nodes.push(Node { id, shard, role, endpoint });
        Some(id)
    }

    fn keyspaces(&mut self, file: &File) {
        for entry in &file.keyspace {
            let at = entry.span().start;
            let Some(id) = u16::try_from(self.keyspaces.len())
                .ok()
                .filter(|_| self.keyspaces.len() < KEYSPACES_MAX)
            else {
                self.refuse(at, format!("the map has more than {KEYSPACES_MAX} keyspaces"));
                return;
            };
            if let Some(keyspace) = self.keyspace(KeyspaceId::new(id), at, entry.get_ref()) {
                self.keyspaces.push(keyspace);
            } else {
                self.broken.insert(entry.get_ref().name.get_ref().clone());
            }
        }
    }

    fn keyspace(&mut self, id: KeyspaceId, at: usize, entry: &KeyspaceEntry) -> Option<Keyspace> {
        self.check_name("a keyspace's name", &entry.name);
        let name = entry.name.get_ref().clone();
        if self.keyspaces.iter().any(|keyspace| keyspace.name == name) {
            self.refuse(entry.name.span().start, format!("two keyspaces are called {name}"));
        }
        let types = self.key_types(at, entry);
        let key_type = types.as_ref().map(|(first, _)| *first);
        let hash = self.hash(entry.hash.as_ref());
        if let (Some(hash), Some((_, more))) = (hash, &types)
            && !more.is_empty()
        {
            self.check_composite(hash, at, entry);
        }
        let cut = match (hash, key_type) {
            (Some(hash), Some(key_type)) => self.cut(hash, key_type, at, entry),
            (None, _) | (_, None) => None,
        };
        let slots = match &cut {
            None => None,
            Some(Cut::Hashed) => hash.and_then(|hash| self.slot_count(hash, at, entry)),
            Some(Cut::Bounds(bounds)) => u32::try_from(bounds.len() + 1).ok(),
            Some(Cut::Lists(_)) => {
                entry.values.as_ref().and_then(|v| u32::try_from(v.get_ref().len() + 1).ok())
            }
        };
        let pins = key_type.map(|key_type| self.pins(key_type, entry));
        let owners = slots.and_then(|slots| {
            let mut claims = Vec::new();
            for (shard, ranges) in entry.ranges.iter().flatten() {
                let shard = self.shard_named(shard);
                for range in ranges.get_ref() {
                    claims.push((shard?, range));
                }
            }
            if entry.ranges.is_none()
                && let [only] = self.shards.as_slice()
            {
                return Some(slots::all(slots, only.id));
            }
            let (source, shards) = (self.source, &self.shards);
            slots::owners(slots, at, &claims, shards, source)
                .map_err(|mut problems| self.problems.append(&mut problems))
                .ok()
        });
        let schemas = self.tenant_schemas(key_type, entry);
        let ((key_type, more_types), hash, owners) = (types?, hash?, owners?);
        let spread = spread(&name);
        let (pins, cut, schemas) = (pins?, cut?, schemas?);
        Some(Keyspace { id, name, key_type, more_types, hash, owners, pins, cut, spread, schemas })
    }

    /// The schemas that are a tenant each.
    fn tenant_schemas(
        &mut self,
        key_type: Option<KeyType>,
        entry: &KeyspaceEntry,
    ) -> Option<Schemas> {
        let Some(found) = &entry.schemas else { return Some(Schemas::default()) };
        let before = self.problems.len();
        if found.get_ref().is_empty() {
            self.refuse(found.span().start, "schemas is empty: name one, or leave it out");
        }
        if key_type.is_some_and(|key_type| key_type != KeyType::Text) {
            let reason = "a schema's name is the key: the type of a keyspace of schemas is text";
            let at = entry.key_type.as_ref().map_or(found.span().start, |found| found.span().start);
            self.refuse(at, reason);
        }
        let mut patterns: Vec<Pattern> = Vec::new();
        for text in found.get_ref() {
            let (at, shown) = (text.span().start, text.get_ref());
            match Pattern::parse(text.get_ref()) {
                Err(reason) => self.refuse(at, reason),
                Ok(pattern) => {
                    let known = self.keyspaces.iter().flat_map(|known| known.schemas.iter());
                    if known.chain(&patterns).any(|other| other.meets(&pattern)) {
                        self.refuse(
                            at,
                            format!("{shown:?} takes in schemas that are listed already"),
                        );
                    }
                    patterns.push(pattern);
                }
            }
        }
        (self.problems.len() == before).then(|| Schemas::new(patterns))
    }

    /// How keys become slots without a hash.
    fn cut(
        &mut self,
        hash: Hash,
        key_type: KeyType,
        at: usize,
        entry: &KeyspaceEntry,
    ) -> Option<Cut> {
        let wants = |name: &str| format!("{name} is missing: hash = \"{}\" needs it", hash.name());
        let wrong = |name: &str| format!("{name} has no effect with hash = \"{}\"", hash.name());
        let fields = [
            ("bounds", entry.bounds.as_ref().map(|found| found.span().start), hash == Hash::Range),
            ("values", entry.values.as_ref().map(|found| found.span().start), hash == Hash::List),
        ];
        for (name, place, wanted) in fields {
            match (place, wanted) {
                (None, true) => {
                    self.refuse(at, wants(name));
                    return None;
                }
                (Some(place), false) => self.refuse(place, wrong(name)),
                (Some(_), true) | (None, false) => {}
            }
        }
        match (hash, &entry.bounds, &entry.values) {
            (Hash::Range, Some(bounds), _) => self.bounds(key_type, bounds),
            (Hash::List, _, Some(values)) => self.lists(key_type, values.get_ref()),
            _ => Some(Cut::Hashed),
        }
        .filter(|_| {
            let slots = entry.slots.as_ref().filter(|_| matches!(hash, Hash::Range | Hash::List));
            if let Some(slots) = slots {
                self.refuse(slots.span().start, wrong("slots"));
            }
            slots.is_none()
        })
    }

    fn bounds(&mut self, key_type: KeyType, found: &Spanned<Vec<Spanned<String>>>) -> Option<Cut> {
        if !key_type.is_ordered() {
            let reason = format!("keys of type {key_type} have no order that all servers share");
            self.refuse(found.span().start, reason);
            return None;
        }
        if found.get_ref().len() >= usize::try_from(slots::SLOTS_MAX).unwrap_or(usize::MAX) {
            self.refuse(found.span().start, format!("more than {} slots", slots::SLOTS_MAX));
            return None;
        }
        let mut bounds: Vec<Rank> = Vec::new();
        for text in found.get_ref() {
            let mut scratch = Scratch::default();
            let key = Key::from_text(key_type, text.get_ref(), &mut scratch);
            match key.map(|key| Rank::of(&key)) {
                Err(error) => {
                    self.refuse(text.span().start, format!("{:?}: {error}", text.get_ref()));
                    return None;
                }
                Ok(Some(rank)) if bounds.last().is_none_or(|last| *last < rank) => {
                    bounds.push(rank)
                }
                Ok(_) => {
                    let reason =
                        format!("the bound {:?} is not above the one before", text.get_ref());
                    self.refuse(text.span().start, reason);
                    return None;
                }
            }
        }
        Some(Cut::Bounds(bounds.into()))
    }

    fn lists(&mut self, key_type: KeyType, found: &[Vec<Spanned<String>>]) -> Option<Cut> {
        let mut keys = Keys::default();
        let mut good = true;
        for (slot, list) in (0_u32..).zip(found) {
            for text in list {
                let mut scratch = Scratch::default();
                let problem = match Key::from_text(key_type, text.get_ref(), &mut scratch) {
                    Err(error) => Some(format!("{:?}: {error}", text.get_ref())),
                    Ok(key) => keys
                        .insert(&key, slot)
                        .map(|_| format!("the key {:?} is listed twice", text.get_ref())),
                };
                if let Some(problem) = problem {
                    self.refuse(text.span().start, problem);
                    good = false;
                }
            }
        }
        good.then_some(Cut::Lists(keys))
    }

    fn hash(&mut self, found: Option<&Spanned<String>>) -> Option<Hash> {
        let Some(found) = found else { return Some(Hash::default()) };
        let known = [Hash::Postgres, Hash::Partition, Hash::Xxh3, Hash::Range, Hash::List];
        let hash = known.into_iter().find(|known| known.name() == found.get_ref());
        if hash.is_none() {
            let names = known.map(Hash::name).join(", ");
            let reason = format!("{} is no hash: one of {names}", found.get_ref());
            self.refuse(found.span().start, reason);
        }
        hash
    }

    fn slot_count(&mut self, hash: Hash, at: usize, entry: &KeyspaceEntry) -> Option<u32> {
        let Some(found) = &entry.slots else {
            if hash == Hash::Partition {
                let reason = "slots is missing: with hash = \"partition\" it is the number of partitions (the modulus)";
                self.refuse(at, reason);
                return None;
            }
            return Some(slots::SLOTS_DEFAULT);
        };
        let count = u32::try_from(*found.get_ref())
            .ok()
            .filter(|count| (1..=slots::SLOTS_MAX).contains(count));
        let Some(count) = count else {
            let reason = format!("slots is from 1 to {}", slots::SLOTS_MAX);
            self.refuse(found.span().start, reason);
            return None;
        };
        if hash == Hash::Postgres && !count.is_power_of_two() {
            let reason = format!(
                "slots is {count}, but with hash = \"postgres\" it must be a power of two, such as {}",
                count.next_power_of_two().min(slots::SLOTS_MAX)
            );
            self.refuse(found.span().start, reason);
            return None;
        }
        Some(count)
    }

    fn pins(&mut self, key_type: KeyType, entry: &KeyspaceEntry) -> Pins {
        let mut pins = Pins::default();
        for (tenant, shard) in &entry.pins {
            let at = tenant.span().start;
            let Some(shard) = self.shard_named(shard) else { continue };
            let mut scratch = Scratch::default();
            let twice = match Key::from_text(key_type, tenant.get_ref(), &mut scratch) {
                Ok(key) => pins.insert(&key, shard).is_some(),
                Err(error) => {
                    self.refuse(at, format!("the pin {:?}: {error}", tenant.get_ref()));
                    false
                }
            };
            if twice {
                self.refuse(at, format!("the tenant {} is pinned twice", tenant.get_ref()));
            }
        }
        pins
    }

    fn placements(&mut self, file: &File) {
        for entry in &file.table {
            let at = entry.span().start;
            let entry = entry.get_ref();
            let key = KeyNames::new("key", entry.key.as_ref(), entry.columns.as_ref());
            let placement = self.sharded(&entry.keyspace, at, key);
            self.place(&entry.name, placement);
        }
        for rule in &file.key_rule {
            let at = rule.span().start;
            let rule = rule.get_ref();
            let key = KeyNames::new("column", rule.column.as_ref(), rule.columns.as_ref());
            let placement = self.sharded(&rule.keyspace, at, key);
            match &rule.tables {
                Some(tables) => {
                    for table in tables {
                        self.place(table, placement.clone());
                    }
                }
                None => {
                    let reason = "a rule without a list of tables is not supported yet: add tables = [\"schema.table\", ...]";
                    self.refuse(at, reason);
                }
            }
        }
        for table in file.reference.iter().flat_map(|entry| &entry.get_ref().tables) {
            self.place(table, Some(Placement::Reference));
        }
        for entry in &file.single {
            let entry = entry.get_ref();
            let shard = self.shard_named(&entry.shard);
            for table in &entry.tables {
                self.place(table, shard.map(Placement::Single));
            }
            for schema in &entry.schemas {
                self.place_schema(schema, shard);
            }
        }
    }

    /// Enters a table; without a placement only its name is checked, since
    /// the placement's problem is already reported.
    fn place(&mut self, name: &Spanned<String>, placement: Option<Placement>) {
        let at = name.span().start;
        let (schema, table) = match table_name(name.get_ref()) {
            Ok((schema, table)) => (schema.unwrap_or_else(|| DEFAULT_SCHEMA.to_owned()), table),
            Err(reason) => return self.refuse(at, reason),
        };
        if ["pg_catalog", "information_schema"].contains(&schema.as_str()) {
            return self.refuse(at, format!("tables of {schema} can't be placed by a map"));
        }
        let Some(placement) = placement else { return };
        if self.tables.entry(schema).or_default().insert(table, placement).is_some() {
            self.refuse(at, format!("the table {} is declared twice", name.get_ref()));
        }
    }

    fn place_schema(&mut self, name: &Spanned<String>, shard: Option<ShardId>) {
        let at = name.span().start;
        match identifier(name.get_ref()) {
            Err(reason) => self.refuse(at, reason),
            Ok(schema) => {
                let Some(shard) = shard else { return };
                let tenant = self.keyspaces.iter().find(|known| known.schemas.holds(&schema));
                if let Some(keyspace) = tenant {
                    let (schema, keyspace) = (name.get_ref(), &keyspace.name);
                    let reason = format!(
                        "the schema {schema} is a tenant of keyspace {keyspace}: place it by a pin"
                    );
                    return self.refuse(at, reason);
                }
                if self.schemas.insert(schema, shard).is_some() {
                    self.refuse(at, format!("the schema {} is declared twice", name.get_ref()));
                }
            }
        }
    }

    fn shard_named(&mut self, name: &Spanned<String>) -> Option<ShardId> {
        let wanted = name.get_ref();
        let found = self.shards.iter().find(|shard| shard.name == *wanted).map(|shard| shard.id);
        if found.is_none() && !self.broken.contains(wanted) {
            let names = self.shards.iter().map(|shard| shard.name.as_str());
            let reason = no_such("shard", wanted, names);
            self.refuse(name.span().start, reason);
        }
        found
    }

    fn check_name(&mut self, what: &str, name: &Spanned<String>) {
        let text = name.get_ref();
        if text.is_empty() || text.len() > NAME_BYTES_MAX || text.contains(char::is_control) {
            let reason =
                format!("{what} has from 1 to {NAME_BYTES_MAX} bytes and no control characters");
            self.refuse(name.span().start, reason);
        }
    }

    fn check_text(&mut self, what: &str, found: &Spanned<String>) {
        if found.get_ref().is_empty() || found.get_ref().contains('\0') {
            self.refuse(found.span().start, format!("{what} must not be empty"));
        }
    }

    fn refuse(&mut self, offset: usize, reason: impl Into<String>) {
        self.problems.push(self.source.problem(offset, reason));
    }
}

fn no_such<'k>(what: &str, wanted: &str, known: impl Iterator<Item = &'k str> + Clone) -> String {
    match nearest(wanted, known) {
        Some(meant) => format!("there is no {what} called {wanted}: did you mean {meant}?"),
        None => format!("there is no {what} called {wanted}"),
    }
}

const PORT_DEFAULT: u16 = 5432;
const WEIGHT_MAX: u16 = 1000;
const HOST_BYTES_MAX: usize = 255;
const KEYSPACES_MAX: usize = 256;
/// Postgres keeps no longer names.
const NAME_BYTES_MAX: usize = 63;
