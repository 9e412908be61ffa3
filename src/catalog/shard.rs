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

impl ShardCatalog {
    /// A catalog of these schemas and search paths. What the server lists in
    /// no order of its own is put in one.
    pub fn new(
        mut schemas: BTreeMap<Box<str>, Schema>,
        mut search_paths: Vec<DefaultPath>,
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
        Self { schemas, search_paths }
    }

    /// The same, in the order that [`ShardCatalog::new`] makes.
    pub(super) fn ordered(self) -> Self {
        Self::new(self.schemas, self.search_paths)
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
        let own = |path: &&DefaultPath| path.role.as_deref() == Some(role);
        let all = |path: &&DefaultPath| path.role.is_none();
        let of = |choose: &dyn Fn(&&DefaultPath) -> bool, of_database: bool| {
            self.search_paths.iter().filter(|path| path.of_database == of_database).find(choose)
        };
        // The order in which the server applies them, the strongest first.
        let found = of(&own, true)
            .or_else(|| of(&own, false))
            .or_else(|| of(&all, true))
            .or_else(|| of(&all, false));
        found.map(|path| &*path.path)
    }

    /// Search paths that sessions begin with.
    pub(super) fn search_paths(&self) -> &[DefaultPath] {
        &self.search_paths
    }

    /// The fingerprint of all of it.
    pub fn fingerprint(&self) -> Fingerprint {
        // The text form leaves nothing out and has one order; a failure to
        // write it can't come from plain values.
        let text = serde_json::to_vec(self).unwrap_or_default();
        Fingerprint(xxh3_128(&text))
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
