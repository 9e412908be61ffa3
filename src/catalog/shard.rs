//! One shard's schemas, and the fingerprint that tells whether two shards have
//! the same.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::relation::{Relation, RelationKind, is_default, list};

/// Everything that is known of one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardCatalog {
    /// Its schemas by name, the server's own left out.
    #[serde(default)]
    schemas: BTreeMap<Box<str>, Schema>,
    /// Search paths that sessions begin with.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    search_paths: Vec<DefaultPath>,
    /// Modes that transactions begin with, where they are not the server's own
    /// defaults.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    modes: Vec<DefaultMode>,
}

/// One schema.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    /// Whether every role may look into it. One that may not has it left out
    /// of its search path by the server.
    #[serde(default, skip_serializing_if = "is_default")]
    pub open: bool,
    /// Its relations by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub relations: BTreeMap<Box<str>, Relation>,
    /// Its functions by name; several of one name take other arguments.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub functions: BTreeMap<Box<str>, Vec<Function>>,
    /// Its enums by name, with their labels in order.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub enums: BTreeMap<Box<str>, Vec<Box<str>>>,
}

/// One function, aggregate or procedure.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Function {
    /// How many arguments it takes.
    pub arguments: u16,
    /// What it is.
    #[serde(default, skip_serializing_if = "is_default")]
    pub kind: FunctionKind,
    /// What its owner promises of it; of an aggregate, the most volatile of
    /// the functions that make it.
    pub volatility: Volatility,
    /// The language it is written in.
    pub language: Box<str>,
    /// Whether its text names something that changes the session's state.
    #[serde(default, skip_serializing_if = "is_default")]
    pub touches_session: bool,
}

/// What can be called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the manual's words")]
pub enum FunctionKind {
    #[default]
    Function,
    Procedure,
    Aggregate,
    Window,
}

/// What a function may do, by its owner's promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Volatility {
    /// The same result for the same arguments, for ever.
    Immutable,
    /// The same within a statement; changes nothing.
    Stable,
    /// Anything.
    Volatile,
}

/// A search path that sessions begin with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DefaultPath {
    /// The role it is set for; `None`: for all that have none of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Box<str>>,
    /// Whether it is set for this database alone, which comes first.
    #[serde(default, skip_serializing_if = "is_default")]
    pub of_database: bool,
    /// The setting's value.
    pub path: Box<str>,
}

/// A mode that transactions begin with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DefaultMode {
    /// The role it is set for; `None`: for all that have none of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Box<str>>,
    /// Whether it is set for this database alone, which comes first.
    #[serde(default, skip_serializing_if = "is_default")]
    pub of_database: bool,
    /// The setting's name.
    pub name: Box<str>,
    /// Its value.
    pub value: Box<str>,
}

impl ShardCatalog {
    /// A catalog of these schemas, search paths and modes. What the server lists
    /// in no order of its own is put in one.
    pub fn new(
        mut schemas: BTreeMap<Box<str>, Schema>,
        mut search_paths: Vec<DefaultPath>,
        mut modes: Vec<DefaultMode>,
    ) -> Self {
        for schema in schemas.values_mut() {
            for relation in schema.relations.values_mut() {
                relation.keys.sort_unstable();
                relation.foreign_keys.sort_unstable();
                relation.foreign_keys.dedup();
                relation.parents.sort_unstable();
                relation.triggers.sort_unstable();
                relation.rules.sort_unstable();
                if let Some(view) = &mut relation.view {
                    view.reads.sort_unstable();
                }
            }
            schema.functions.values_mut().for_each(|list| list.sort_unstable());
        }
        search_paths.sort_unstable();
        modes.sort_unstable();
        Self { schemas, search_paths, modes }
    }

    /// The same, in the order that [`ShardCatalog::new`] makes.
    pub(super) fn ordered(self) -> Self {
        Self::new(self.schemas, self.search_paths, self.modes)
    }

    /// The relation `schema.name`.
    pub fn relation(&self, schema: &str, name: &str) -> Option<&Relation> {
        self.schemas.get(schema)?.relations.get(name)
    }

    /// The functions `schema.name`.
    pub fn functions(&self, schema: &str, name: &str) -> &[Function] {
        let found = self.schemas.get(schema).and_then(|schema| schema.functions.get(name));
        found.map_or(&[], Vec::as_slice)
    }

    /// The schema called `name`.
    pub fn schema(&self, name: &str) -> Option<&Schema> {
        self.schemas.get(name)
    }

    /// Its schemas, by name.
    pub fn schemas(&self) -> impl Iterator<Item = (&str, &Schema)> {
        self.schemas.iter().map(|(name, schema)| (&**name, schema))
    }

    /// Every relation with its schema and name, in that order.
    pub fn relations(&self) -> impl Iterator<Item = (&str, &str, &Relation)> {
        self.schemas().flat_map(|(schema, content)| {
            content.relations.iter().map(move |(name, relation)| (schema, &**name, relation))
        })
    }

    /// How many relations are of a kind that `counts` accepts.
    pub fn count(&self, counts: impl Fn(RelationKind) -> bool) -> usize {
        self.relations().filter(|(.., relation)| counts(relation.kind)).count()
    }

    /// The search path that a session of `role` begins with; `None` if it is
    /// not known.
    pub fn search_path(&self, role: &str) -> Option<&str> {
        let of = |path: &DefaultPath| strength(path.role.as_deref(), path.of_database, role);
        let found = self.search_paths.iter().filter_map(|path| Some((of(path)?, path)));
        found.max_by_key(|(strength, _)| *strength).map(|(_, path)| &*path.path)
    }

    /// The value of the setting `name`, one of the modes that transactions begin
    /// with, in a session of `role`; `None` if it is the server's own default.
    pub fn mode(&self, name: &str, role: &str) -> Option<&str> {
        let of = |mode: &DefaultMode| strength(mode.role.as_deref(), mode.of_database, role);
        let named = self.modes.iter().filter(|mode| &*mode.name == name);
        let found = named.filter_map(|mode| Some((of(mode)?, mode)));
        found.max_by_key(|(strength, _)| *strength).map(|(_, mode)| &*mode.value)
    }

    /// Search paths that sessions begin with.
    pub(super) fn search_paths(&self) -> &[DefaultPath] {
        &self.search_paths
    }

    /// Modes that transactions begin with.
    pub(super) fn modes(&self) -> &[DefaultMode] {
        &self.modes
    }

    /// The fingerprint of all of it.
    pub fn fingerprint(&self) -> Fingerprint {
        // The text form leaves nothing out and has one order; a failure to
        // write it can't come from plain values.
        let text = serde_json::to_vec(self).unwrap_or_default();
        Fingerprint(xxh3_128(&text))
    }
}

/// In which order the server applies what is set for a role and for a database,
/// the strongest last; `None` if it is for another role.
fn strength(of_role: Option<&str>, of_database: bool, role: &str) -> Option<u8> {
    match (of_role, of_database) {
        (Some(own), _) if own != role => None,
        (None, false) => Some(0),
        (None, true) => Some(1),
        (Some(_), false) => Some(2),
        (Some(_), true) => Some(3),
    }
}

/// 128 bits that stand for a schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub(super) u128);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
