//! What a map file looks like: its sections and keys, each with the
//! description that the JSON Schema carries. Meaning is checked in `parse`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use super::hash::Hash;
use super::key::KeyType;
use super::node::TlsMode;

/// A shard map: which shard owns a key, where each shard's nodes are, and
/// which tables share a key.
#[derive(Debug, Default, JsonSchema)]
#[schemars(deny_unknown_fields, title = "Keyway shard map")]
pub(crate) struct File {
    /// Version of the map, from 1; only grows.
    #[schemars(with = "u64", range(min = 1))]
    pub(crate) epoch: Option<Spanned<i64>>,
    /// The database that clients connect to.
    #[schemars(with = "String")]
    pub(crate) database: Option<Spanned<String>>,
    /// Name of the shard on which statements without tables run. Needed with
    /// more than one shard.
    #[schemars(with = "Option<String>")]
    pub(crate) home: Option<Spanned<String>>,
    /// How fresh reads must be: primary, slot, session, any, or bounded(LAG)
    /// like bounded(500ms). The router's configuration decides if absent.
    #[schemars(
        with = "Option<String>",
        regex(pattern = r"^(primary|slot|session|any|bounded\(.*\))$")
    )]
    pub(crate) consistency: Option<Spanned<String>>,
    /// Says that the data already lies where this map says, so that a change
    /// of ownership may take effect without a move.
    #[schemars(with = "Option<DataState>")]
    pub(crate) data: Option<Spanned<String>>,
    /// What keys are for on one shard: with "marks" only to tell which writes
    /// a read on a replica has to wait for; nothing is placed or refused by them.
    #[schemars(with = "Option<KeysFor>")]
    pub(crate) keys: Option<Spanned<String>>,
    /// The data sets that own slots.
    #[schemars(with = "Vec<ShardEntry>", length(min = 1))]
    pub(crate) shard: Vec<Spanned<ShardEntry>>,
    /// Groups of co-located tables.
    #[schemars(with = "Vec<KeyspaceEntry>", default)]
    pub(crate) keyspace: Vec<Spanned<KeyspaceEntry>>,
    /// Tables and their key columns, one by one.
    #[schemars(with = "Vec<TableEntry>", default)]
    pub(crate) table: Vec<Spanned<TableEntry>>,
    /// Tables that share a key column's name.
    #[schemars(with = "Vec<RuleEntry>", default)]
    pub(crate) key_rule: Vec<Spanned<RuleEntry>>,
    /// Tables with a copy on every shard.
    #[schemars(with = "Option<ReferenceEntry>")]
    pub(crate) reference: Option<Spanned<ReferenceEntry>>,
    /// Tables and schemas that live on one shard.
    #[schemars(with = "Vec<SingleEntry>", default)]
    pub(crate) single: Vec<Spanned<SingleEntry>>,
    /// How fresh reads of certain tables must be.
    #[schemars(with = "Vec<ReadsEntry>", default)]
    pub(crate) reads: Vec<Spanned<ReadsEntry>>,
}

/// The words that `data` may have; only the schema needs the type.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "a description for the schema")]
pub(crate) enum DataState {
    #[schemars(rename = "already-moved")]
    AlreadyMoved,
}

/// The words that `keys` may have; only the schema needs the type.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "a description for the schema")]
pub(crate) enum KeysFor {
    #[schemars(rename = "marks")]
    Marks,
}

/// A data set: one primary and its replicas.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShardEntry {
    /// Permanent number, from 1; never reused for another data set.
    #[schemars(with = "u16", range(min = 1))]
    pub(crate) number: Spanned<i64>,
    /// The name that the rest of the file uses.
    #[schemars(with = "String", length(min = 1, max = 63))]
    pub(crate) name: Spanned<String>,
    /// The database's name on the nodes; as `database` if absent.
    #[schemars(with = "Option<String>")]
    pub(crate) dbname: Option<Spanned<String>>,
    /// Who the router logs in as; the client's own name if absent.
    #[schemars(with = "Option<String>")]
    pub(crate) user: Option<Spanned<String>>,
    /// The environment variable that holds the password. Without this,
    /// `password_file` and `password_command` the client's own password is
    /// used.
    #[schemars(with = "Option<String>")]
    pub(crate) password_env: Option<Spanned<String>>,
    /// The file that holds the password.
    #[schemars(with = "Option<String>")]
    pub(crate) password_file: Option<Spanned<String>>,
    /// The program that prints the password, with its arguments.
    #[schemars(with = "Option<Vec<String>>")]
    pub(crate) password_command: Option<Spanned<Vec<String>>>,
    /// How connections are encrypted; prefer if absent.
    #[schemars(with = "Option<TlsMode>")]
    pub(crate) tls: Option<Spanned<String>>,
    /// File with the root certificates to trust; the system's if absent.
    #[schemars(with = "Option<String>")]
    pub(crate) tls_root_cert: Option<Spanned<String>>,
    /// The node that takes writes.
    #[schemars(with = "PrimaryEntry")]
    pub(crate) primary: Spanned<PrimaryEntry>,
    /// The nodes that follow it.
    #[serde(default)]
    #[schemars(with = "Vec<ReplicaEntry>")]
    pub(crate) replicas: Vec<Spanned<ReplicaEntry>>,
}

/// The node that takes a shard's writes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PrimaryEntry {
    /// Host name, address, or absolute folder of a Unix socket.
    #[schemars(with = "String", length(min = 1, max = 255))]
    pub(crate) host: Spanned<String>,
    /// Port; 5432 if absent.
    #[schemars(with = "Option<u16>", range(min = 1))]
    pub(crate) port: Option<Spanned<i64>>,
    /// The zone it stands in.
    pub(crate) zone: Option<String>,
}

/// A node that follows a shard's primary.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReplicaEntry {
    /// Host name, address, or absolute folder of a Unix socket.
    #[schemars(with = "String", length(min = 1, max = 255))]
    pub(crate) host: Spanned<String>,
    /// Port; 5432 if absent.
    #[schemars(with = "Option<u16>", range(min = 1))]
    pub(crate) port: Option<Spanned<i64>>,
    /// The zone it stands in.
    pub(crate) zone: Option<String>,
    /// Share of reads among the shard's replicas; 1 if absent, 0 takes none.
    #[schemars(with = "Option<u16>", range(max = 1000))]
    pub(crate) weight: Option<Spanned<i64>>,
}

/// A group of co-located tables.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyspaceEntry {
    /// The name that tables refer to.
    #[schemars(with = "String", length(min = 1, max = 63))]
    pub(crate) name: Spanned<String>,
    /// Type of the key columns.
    #[serde(rename = "type")]
    #[schemars(with = "Option<KeyType>")]
    pub(crate) key_type: Option<Spanned<String>>,
    /// In place of `type`, where several columns together are the key: their
    /// types, in the order in which they make the hash. Never changes.
    #[schemars(with = "Option<Vec<KeyType>>", length(min = 2, max = 8))]
    pub(crate) types: Option<Spanned<Vec<Spanned<String>>>>,
    /// Schemas that are a tenant each, by their names, or by how their names
    /// begin, as `tenant_*`: the key is the schema's name, and the type text.
    #[schemars(with = "Option<Vec<String>>", length(min = 1))]
    pub(crate) schemas: Option<Spanned<Vec<Spanned<String>>>>,
    /// How keys become slots; postgres if absent. Never changes.
    #[schemars(with = "Option<Hash>")]
    pub(crate) hash: Option<Spanned<String>>,
    /// Number of slots; 4096 if absent. Never changes. A power of two for
    /// `postgres`; needed for `partition`.
    #[schemars(with = "Option<u32>", range(min = 1, max = 65536))]
    pub(crate) slots: Option<Spanned<i64>>,
    /// With `hash = "range"`: the first key of each slot but the first,
    /// ascending.
    #[schemars(with = "Option<Vec<String>>")]
    pub(crate) bounds: Option<Spanned<Vec<Spanned<String>>>>,
    /// With `hash = "list"`: the keys of each slot but the last, which has all
    /// others.
    #[schemars(with = "Option<Vec<Vec<String>>>")]
    pub(crate) values: Option<Spanned<Vec<Vec<Spanned<String>>>>>,
    /// Slots of each shard, by the shard's name: single ones ("7") and ranges
    /// ("0-2047"), both ends included. Every slot has exactly one owner. May
    /// be absent with one shard.
    #[schemars(with = "Option<BTreeMap<String, Vec<String>>>")]
    pub(crate) ranges: Option<Ranges>,
    /// Tenants placed on a shard whatever their slot says: key, then the
    /// shard's name.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub(crate) pins: BTreeMap<Spanned<String>, Spanned<String>>,
}

/// Slots of each shard, by the shard's name.
type Ranges = BTreeMap<Spanned<String>, Spanned<Vec<Spanned<String>>>>;

/// A table placed by its key column.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TableEntry {
    /// `schema.table`; `public` if there is no schema.
    #[schemars(with = "String")]
    pub(crate) name: Spanned<String>,
    /// The keyspace.
    #[schemars(with = "String")]
    pub(crate) keyspace: Spanned<String>,
    /// The column that holds the key.
    #[schemars(with = "Option<String>")]
    pub(crate) key: Option<Spanned<String>>,
    /// In place of `key`, in a keyspace with `types`: the columns, in their order.
    #[schemars(with = "Option<Vec<String>>", length(min = 2, max = 8))]
    pub(crate) columns: Option<Spanned<Vec<Spanned<String>>>>,
}

/// Tables that share the name of their key column.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RuleEntry {
    /// The keyspace.
    #[schemars(with = "String")]
    pub(crate) keyspace: Spanned<String>,
    /// The column that holds the key in each of the tables.
    #[schemars(with = "Option<String>")]
    pub(crate) column: Option<Spanned<String>>,
    /// In place of `column`, in a keyspace with `types`: the columns, in their
    /// order.
    #[schemars(with = "Option<Vec<String>>", length(min = 2, max = 8))]
    pub(crate) columns: Option<Spanned<Vec<Spanned<String>>>>,
    /// The tables, as `schema.table`.
    #[schemars(with = "Vec<String>")]
    pub(crate) tables: Option<Vec<Spanned<String>>>,
}

/// Tables with a copy on every shard.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReferenceEntry {
    /// The tables, as `schema.table`.
    #[schemars(with = "Vec<String>")]
    pub(crate) tables: Vec<Spanned<String>>,
}

/// Tables whose reads have a level of their own.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReadsEntry {
    /// The level, as for the whole map. A read of several tables has the
    /// strictest of theirs.
    #[schemars(with = "String", regex(pattern = r"^(primary|slot|session|any|bounded\(.*\))$"))]
    pub(crate) consistency: Spanned<String>,
    /// The tables, as `schema.table`.
    #[schemars(with = "Vec<String>")]
    pub(crate) tables: Vec<Spanned<String>>,
}

/// Tables and schemas that live on one shard.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SingleEntry {
    /// Name of the shard.
    #[schemars(with = "String")]
    pub(crate) shard: Spanned<String>,
    /// The tables, as `schema.table`.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub(crate) tables: Vec<Spanned<String>>,
    /// Schemas of which every table lives there, unless listed elsewhere.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub(crate) schemas: Vec<Spanned<String>>,
}
