//! One relation as the catalogs describe it: a table, a view or a sequence.
//!
//! Facts only. A field that is left out of the text form has its plainest
//! value, so that a written catalog stays readable.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::shard::Volatility;

/// A relation's full name, spelled as the catalog does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelationName {
    /// The schema.
    pub schema: Box<str>,
    /// The name in it.
    pub name: Box<str>,
}

impl RelationName {
    /// Whether it is the name `schema.name`.
    pub fn is(&self, schema: &str, name: &str) -> bool {
        *self.schema == *schema && *self.name == *name
    }
}

impl fmt::Display for RelationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// One relation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relation {
    /// What it is.
    pub kind: RelationKind,
    /// Whether replicas have it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub persistence: Persistence,
    /// Its columns in their order, without dropped ones.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<Column>,
    /// Primary key and unique indexes over plain columns and all rows.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<Key>,
    /// Foreign keys from this table to others.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub foreign_keys: Vec<ForeignKey>,
    /// What it is a partition of, or inherits from.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<RelationName>,
    /// Whether it is a partition of its parent.
    #[serde(default, skip_serializing_if = "is_default")]
    pub partition: bool,
    /// Triggers that users made and that are not disabled.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub triggers: Vec<Box<str>>,
    /// Rules besides the one that makes a view.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Box<str>>,
    /// Whether row security is enabled.
    #[serde(default, skip_serializing_if = "is_default")]
    pub row_security: bool,
    /// Whether a default, constraint or policy calls a volatile function that
    /// is not the server's own, and which may therefore do anything.
    #[serde(default, skip_serializing_if = "is_default")]
    pub calls_volatile: bool,
    /// What it reads, if it is a view.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<View>,
}

impl Relation {
    /// The column called `name`.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| *column.name == *name)
    }
}

/// What a relation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the manual's words")]
pub enum RelationKind {
    Table,
    PartitionedTable,
    View,
    MaterializedView,
    ForeignTable,
    Sequence,
}

impl RelationKind {
    /// The kind in words.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::PartitionedTable => "partitioned table",
            Self::View => "view",
            Self::MaterializedView => "materialized view",
            Self::ForeignTable => "foreign table",
            Self::Sequence => "sequence",
        }
    }
}

/// Where a relation's rows last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Persistence {
    /// On the primary and its replicas.
    #[default]
    Permanent,
    /// On the primary alone: no replica can read it.
    Unlogged,
    /// In one session alone.
    Temporary,
}

/// One column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Its name.
    pub name: Box<str>,
    /// Its type, with the schema unless that is `pg_catalog`.
    #[serde(rename = "type")]
    pub type_name: Box<str>,
    /// The type under a domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Box<str>>,
    /// Whether the type, or the one under its domain, is an enum.
    #[serde(default, skip_serializing_if = "is_default")]
    pub is_enum: bool,
    /// The first number in the type's parentheses, of `varchar(n)`, `char(n)`,
    /// `numeric(n, …)` and `timestamptz(n)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u32>,
    /// Whether NULL is refused, by the column or by its domain.
    #[serde(default, skip_serializing_if = "is_default")]
    pub not_null: bool,
    /// Whether it has a default of its own or of its domain.
    #[serde(default, skip_serializing_if = "is_default")]
    pub default: bool,
    /// Whether the server computes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generated: Option<Generated>,
    /// Whether the server numbers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// Whether its collation takes different texts for equal.
    #[serde(default, skip_serializing_if = "is_default")]
    pub nondeterministic: bool,
}

impl Column {
    /// The type whose equality and hash its values have: the one under the
    /// domain, if it is of a domain.
    pub fn base_type(&self) -> &str {
        self.base.as_deref().unwrap_or(&self.type_name)
    }
}

/// How a generated column comes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Generated {
    /// When a row is written.
    Stored,
    /// When a row is read.
    Virtual,
}

/// Who numbers an identity column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Identity {
    /// The server alone.
    Always,
    /// The server, unless the statement does.
    ByDefault,
}

/// A primary key or a unique index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Its columns.
    pub columns: Vec<Box<str>>,
    /// Whether it is the primary key.
    #[serde(default, skip_serializing_if = "is_default")]
    pub primary: bool,
}

/// A foreign key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForeignKey {
    /// Columns of the table that has it.
    pub columns: Vec<Box<str>>,
    /// The table that is referenced.
    pub references: RelationName,
    /// Columns there, in the order of `columns`.
    pub referenced: Vec<Box<str>>,
    /// What deleting the referenced row does.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_delete: Action,
    /// What changing the referenced columns does.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_update: Action,
}

/// What a foreign key does when the referenced row goes or changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Refuses, at once or at the end.
    #[default]
    Refuse,
    /// Deletes or changes the referencing rows.
    Cascade,
    /// Sets their columns to NULL.
    SetNull,
    /// Sets their columns to the defaults.
    SetDefault,
}

impl Action {
    /// Whether it writes the referencing table.
    pub const fn writes(self) -> bool {
        match self {
            Self::Refuse => false,
            Self::Cascade | Self::SetNull | Self::SetDefault => true,
        }
    }
}

/// What a view reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct View {
    /// Every relation that its definition names, at whatever depth.
    #[serde(default, deserialize_with = "list")]
    pub reads: Vec<RelationName>,
    /// Whether it is one SELECT over one relation, each of whose rows gives at
    /// most one row: no join, grouping, aggregate, window, DISTINCT, LIMIT,
    /// set operation, subquery, sample, lock or set-returning function.
    #[serde(default, skip_serializing_if = "is_default")]
    pub simple: bool,
    /// Of a simple view: for each column, the column of the relation that it
    /// shows unchanged.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<Option<Box<str>>>,
    /// The most volatile function in its definition.
    pub volatility: Volatility,
    /// Whether the view is a security barrier.
    #[serde(default, skip_serializing_if = "is_default")]
    pub barrier: bool,
    /// A hash of its definition's text.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub definition: Box<str>,
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A list; null is an empty one, as a server's aggregate over nothing is.
pub(super) fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::<Vec<T>>::deserialize(deserializer).map(Option::unwrap_or_default)
}
