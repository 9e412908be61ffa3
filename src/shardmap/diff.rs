//! What changed between two maps, and whether a wanted map may take effect.
//!
//! Addresses, credentials and weights may change at any time. Who owns which
//! rows may not: that is a move, unless the operator says that the data
//! already lies where the new map says.

use std::collections::BTreeSet;
use std::fmt;

use crate::types::{Epoch, ShardId, SlotId};

use super::key::Key;
use super::keyspace::Keyspace;
use super::map::{Map, Table};

/// One difference of ownership between two maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Consecutive slots change their shard.
    Slots {
        /// Name of the keyspace.
        keyspace: String,
        /// First slot.
        first: SlotId,
        /// Last slot, included.
        last: SlotId,
        /// Name of the shard that owned them.
        from: String,
        /// Name of the shard that shall own them.
        to: String,
    },
    /// A pinned tenant changes its shard; one not pinned is where its slot is.
    Tenant {
        /// Name of the keyspace.
        keyspace: String,
        /// The tenant's key.
        tenant: String,
        /// Name of the shard that held it.
        from: String,
        /// Name of the shard that shall hold it.
        to: String,
    },
    /// Anything else that says where rows are: a table, a schema, a keyspace's
    /// hash or type, a shard, home.
    Other(String),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slots { keyspace, first, last, from, to } => write!(
                f,
                "slots {}-{} of {keyspace} move from {from} to {to}",
                first.number(),
                last.number()
            ),
            Self::Tenant { keyspace, tenant, from, to } => {
                write!(f, "tenant {tenant} of {keyspace} moves from {from} to {to}")
            }
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// What to do with a wanted map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Adoption {
    /// Write it down and serve it; its epoch is set.
    Serve(Map),
    /// It says what the map in force says: nothing to do.
    Same,
    /// Keep the map in force.
    Keep {
        /// Why, and what to do; lower case, no full stop.
        reason: String,
    },
}

/// Decides whether `desired`, the operator's file, may replace `in_force`.
///
/// Its epoch becomes the file's, or the next one if the file's is not newer.
pub fn adopt(in_force: Option<&Map>, desired: Map) -> Adoption {
    let Some(current) = in_force else { return Adoption::Serve(desired) };
    if current.database() != desired.database() {
        return Adoption::Keep {
            reason: format!(
                "the file is for database {}, the map in force for {}",
                desired.database(),
                current.database()
            ),
        };
    }
    let same = Map { already_moved: current.already_moved, ..desired.clone() };
    if same.with_epoch(current.epoch()) == *current {
        return Adoption::Same;
    }
    let changes = current.diff(&desired);
    if !changes.is_empty() && desired.data_already_moved() && desired.epoch() < current.epoch() {
        // The word was meant for an earlier map; rows may have moved since.
        return Adoption::Keep {
            reason: format!(
                "the file says data = \"already-moved\" of epoch {}, but epoch {now} is in force, \
                 which has other owners: the map in force serves on; write epoch = {now} if the \
                 rows lie as the file says today, or take the word out",
                desired.epoch().number(),
                now = current.epoch().number()
            ),
        };
    }
    if !changes.is_empty() && !desired.data_already_moved() {
        let shown: Vec<String> =
            changes.iter().take(CHANGES_SHOWN).map(ToString::to_string).collect();
        let more = changes.len().saturating_sub(CHANGES_SHOWN);
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        return Adoption::Keep {
            reason: format!(
                "the file changes where rows live ({}{more}): the map in force serves on; \
                 see keyway plan, or write data = \"already-moved\" if the rows are there already",
                shown.join(", ")
            ),
        };
    }
    let Some(next) = current.epoch().number().checked_add(1) else {
        return Adoption::Keep {
            reason: "the map in force has the last possible epoch".to_owned(),
        };
    };
    let epoch = desired.epoch().max(Epoch::new(next));
    Adoption::Serve(desired.with_epoch(epoch))
}

impl Map {
    /// Whether every row belongs to the same shard under both maps.
    pub fn same_ownership(&self, other: &Self) -> bool {
        self.diff(other).is_empty()
    }

    /// The changes of ownership from this map to `new`.
    pub fn diff(&self, new: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        self.diff_shards(new, &mut changes);
        for old in &self.keyspaces {
            match new.keyspaces.iter().find(|keyspace| keyspace.name == old.name) {
                Some(found) => self.diff_keyspace(new, old, found, &mut changes),
                None => changes.push(Change::Other(format!("keyspace {} is removed", old.name))),
            }
        }
        self.diff_tables(new, &mut changes);
        changes
    }

    fn diff_shards(&self, new: &Self, changes: &mut Vec<Change>) {
        for shard in &self.shards {
            match new.shard(shard.id) {
                None if self.has_rows(shard.id) => {
                    changes.push(Change::Other(format!("shard {} is removed", shard.name)));
                }
                None => {}
                Some(found) if found.dbname != shard.dbname => {
                    let (name, from, to) = (&shard.name, &shard.dbname, &found.dbname);
                    let text = format!("shard {name} changes its database from {from} to {to}");
                    changes.push(Change::Other(text));
                }
                Some(_) => {}
            }
        }
        if self.home != new.home {
            let (from, to) = (self.shard_name(self.home), new.shard_name(new.home));
            changes.push(Change::Other(format!("home moves from {from} to {to}")));
        }
    }

    /// Whether any row has its only place on `shard`. One that has none may
    /// leave the map.
    fn has_rows(&self, shard: ShardId) -> bool {
        self.home == shard
            || self.keyspaces.iter().any(|keyspace| keyspace.shards().contains(&shard))
            || self.tables().any(|(_, _, place)| place == Table::Single(shard))
            || self.single_schemas().any(|(_, place)| place == shard)
    }

    fn diff_keyspace(&self, map: &Self, old: &Keyspace, new: &Keyspace, changes: &mut Vec<Change>) {
        let kind = |one: &Keyspace| (one.key_types().collect::<Vec<_>>(), one.hash, one.slots());
        if kind(old) != kind(new) || old.cut != new.cut || old.schemas != new.schemas {
            let text = format!(
                "keyspace {} changes its type, hash, number of slots, bounds, values or schemas",
                old.name
            );
            changes.push(Change::Other(text));
            return;
        }
        let mut run: Option<(u32, u32, _, _)> = None;
        let pairs = (0..).zip(old.owners.iter().zip(&new.owners));
        let moved = pairs.filter(|(_, (from, to))| from != to);
        let mut runs = Vec::new();
        for (slot, (from, to)) in moved {
            match &mut run {
                Some((_, last, f, t))
                    if *f == from && *t == to && last.checked_add(1) == Some(slot) =>
                {
                    *last = slot;
                }
                _ => runs.extend(run.replace((slot, slot, from, to))),
            }
        }
        for (first, last, from, to) in runs.into_iter().chain(run) {
            changes.push(Change::Slots {
                keyspace: old.name.clone(),
                first: SlotId::new(first),
                last: SlotId::new(last),
                from: self.shard_name(*from),
                to: map.shard_name(*to),
            });
        }
        let pinned: Vec<Key<'_>> = old.pins().chain(new.pins()).map(|(key, _)| key).collect();
        let mut seen = BTreeSet::new();
        for key in pinned {
            let (from, to) = (old.owner(&key), new.owner(&key));
            if from != to && seen.insert(key.to_string()) {
                changes.push(Change::Tenant {
                    keyspace: old.name.clone(),
                    tenant: key.to_string(),
                    from: self.shard_name(from),
                    to: map.shard_name(to),
                });
            }
        }
    }

    fn diff_tables(&self, new: &Self, changes: &mut Vec<Change>) {
        let names = |map: &Self| -> BTreeSet<(String, String)> {
            map.tables().map(|(schema, name, _)| (schema.to_owned(), name.to_owned())).collect()
        };
        for (schema, name) in names(self).union(&names(new)) {
            // A table new to the map has no rows that the router placed.
            let Some(old) = self.table(Some(schema), name) else { continue };
            let same = new
                .table(Some(schema), name)
                .is_some_and(|found| self.place(&old) == new.place(&found));
            if !same {
                changes.push(Change::Other(format!("table {schema}.{name} is placed otherwise")));
            }
        }
        for (schema, shard) in self.single_schemas() {
            if new.schemas.get(schema) != Some(&shard) {
                changes.push(Change::Other(format!("schema {schema} is placed otherwise")));
            }
        }
    }

    /// A place in words that mean the same in every map.
    fn place(&self, table: &Table<'_>) -> String {
        match table {
            Table::Sharded { keyspace, column, rest } => {
                let keyspace = self.keyspace(*keyspace).map_or("", Keyspace::name);
                let rest: Vec<String> = rest.iter().map(|column| format!(", {column}")).collect();
                format!("{keyspace} by {column}{}", rest.concat())
            }
            Table::Reference => "everywhere".to_owned(),
            Table::Single(shard) => format!("on {}", shard.number()),
        }
    }

    fn shard_name(&self, id: ShardId) -> String {
        self.shard(id).map_or_else(|| id.number().to_string(), |shard| shard.name.clone())
    }
}

/// A reason names at most so many changes.
const CHANGES_SHOWN: usize = 5;
