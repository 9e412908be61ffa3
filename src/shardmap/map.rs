//! The map itself: shards, nodes, keyspaces and where each table lives.
//!
//! It does not know how it is written down (`parse`, `print`) or what changed
//! since the epoch before (`diff`).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::types::{Consistency, Epoch, NodeId, Role, ShardId};

use super::key::Key;
use super::keyspace::{Keyspace, KeyspaceId};
use super::moving::MovingKeys;
use super::node::{Credentials, Endpoint, Node, Shard, Tls};

/// One epoch of a database's shard map; checked whole when it was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    pub(crate) epoch: Epoch,
    pub(crate) database: String,
    pub(crate) home: ShardId,
    pub(crate) shards: Vec<Shard>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) keyspaces: Vec<Keyspace>,
    /// Schema, then table.
    pub(crate) tables: BTreeMap<String, BTreeMap<String, Placement>>,
    /// Schemas whose tables all live on one shard, unless listed themselves.
    pub(crate) schemas: BTreeMap<String, ShardId>,
    pub(crate) consistency: Option<Consistency>,
    /// Levels of tables that have one of their own.
    pub(crate) levels: Levels,
    pub(crate) already_moved: bool,
    pub(crate) keys_for: KeysFor,
    /// What moves meanwhile; of a map that serves.
    pub(crate) moving: Option<Arc<MovingKeys>>,
}

/// What a map's keys are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeysFor {
    /// They say where rows are.
    Places,
    /// They tell which writes a read on a replica has to wait for, and place
    /// nothing: there is one shard.
    Marks,
}

/// How fresh reads of a table must be: by schema, then by table.
pub(crate) type Levels = BTreeMap<String, BTreeMap<String, Consistency>>;

/// Where a table's rows live, as a map stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// The other columns of a key of several stand in `rest`.
    Sharded {
        keyspace: KeyspaceId,
        column: String,
        rest: Vec<String>,
    },
    Reference,
    Single(ShardId),
}

/// Where a table's rows live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table<'a> {
    /// By the value of `column`.
    Sharded {
        /// The keyspace that places the value.
        keyspace: KeyspaceId,
        /// The key column, spelled as the catalog does.
        column: &'a str,
        /// The other columns, where a key has several.
        rest: &'a [String],
    },
    /// A copy on every shard.
    Reference,
    /// All on one shard.
    Single(ShardId),
}

impl Map {
    /// The map of one unsharded database: every statement goes to shard 1.
    ///
    /// Clients' own names and passwords, no TLS, the database of the same
    /// name; [`Map::with_backend`] changes that. Replicas past
    /// [`NODES_MAX`] nodes are left out.
    pub fn unsharded(database: &str, primary: Endpoint, replicas: Vec<Endpoint>) -> Self {
        let id = ShardId::new(1);
        let endpoints = std::iter::once(primary).chain(replicas).take(NODES_MAX);
        let nodes: Vec<Node> = (0..)
            .map(NodeId::new)
            .zip(endpoints)
            .map(|(node, endpoint)| {
                let role = if node.index() == 0 { Role::Primary } else { Role::Replica };
                Node { id: node, shard: id, role, endpoint }
            })
            .collect();
        let shard = Shard {
            id,
            name: "main".to_owned(),
            dbname: database.to_owned(),
            credentials: Credentials::CLIENT,
            tls: Tls::DISABLE,
            primary: NodeId::new(0),
            replicas: nodes.iter().skip(1).map(|node| node.id).collect(),
        };
        Self {
            epoch: Epoch::new(1),
            database: database.to_owned(),
            home: id,
            shards: vec![shard],
            nodes,
            keyspaces: Vec::new(),
            tables: BTreeMap::new(),
            schemas: BTreeMap::new(),
            consistency: None,
            levels: Levels::new(),
            already_moved: false,
            keys_for: KeysFor::Places,
            moving: None,
        }
    }

    /// This map with every shard's database, login and encryption replaced.
    #[must_use]
    pub fn with_backend(mut self, dbname: &str, credentials: Credentials, tls: Tls) -> Self {
        for shard in &mut self.shards {
            dbname.clone_into(&mut shard.dbname);
            shard.credentials = credentials.clone();
            shard.tls = tls.clone();
        }
        self
    }

    /// Version of the map; only grows.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// This map as epoch `epoch`.
    #[must_use]
    pub const fn with_epoch(mut self, epoch: Epoch) -> Self {
        self.epoch = epoch;
        self
    }

    /// The database that clients connect to.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The shard on which statements without tables always run.
    pub const fn home(&self) -> ShardId {
        self.home
    }

    /// All shards, in the order of the file; at least one.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The shard with the permanent number `id`.
    pub fn shard(&self, id: ShardId) -> Option<&Shard> {
        self.shards.iter().find(|shard| shard.id == id)
    }

    /// The shard called `name`.
    pub fn shard_named(&self, name: &str) -> Option<&Shard> {
        self.shards.iter().find(|shard| shard.name == name)
    }

    /// All nodes; a node's id is its index.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node `id`; `None` if it belongs to another map.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id.index())
    }

    /// Whether a statement's place can depend on its tables or keys. If not,
    /// everything goes to [`Map::home`], readable or not.
    pub fn is_sharded(&self) -> bool {
        self.shards.len() > 1 || (!self.keyspaces.is_empty() && self.keys_for == KeysFor::Places)
    }

    /// Whether keys are declared for the marks of reads and writes alone.
    pub fn marks_by_key(&self) -> bool {
        !self.keyspaces.is_empty() && self.keys_for == KeysFor::Marks
    }

    /// All keyspaces; a keyspace's id is its index.
    pub fn keyspaces(&self) -> &[Keyspace] {
        &self.keyspaces
    }

    /// The keyspace `id`; `None` if it belongs to another map.
    pub fn keyspace(&self, id: KeyspaceId) -> Option<&Keyspace> {
        self.keyspaces.get(id.index())
    }

    /// Where the table `schema.name` lives; `None` if the map doesn't say.
    ///
    /// Names are spelled as the catalog does (folded already); no schema means
    /// `public`. A caller with a search path asks for one schema after another.
    pub fn table(&self, schema: Option<&str>, name: &str) -> Option<Table<'_>> {
        let schema = schema.unwrap_or(DEFAULT_SCHEMA);
        if let Some(placement) = self.tables.get(schema).and_then(|tables| tables.get(name)) {
            return Some(placement.table());
        }
        self.schema_shard(schema).map(Table::Single)
    }

    /// The shard on which the schema is as a whole: a tenant's, or one that the
    /// map places by name.
    pub fn schema_shard(&self, schema: &str) -> Option<ShardId> {
        self.schemas.get(schema).copied().or_else(|| self.tenant_shard(schema))
    }

    /// The shard that owns the schema, if that is a tenant of a keyspace.
    pub fn tenant_shard(&self, schema: &str) -> Option<ShardId> {
        let keyspace = self.keyspaces.iter().find(|keyspace| keyspace.schemas.holds(schema))?;
        Some(keyspace.owner(&Key::Text(schema)))
    }

    /// Whether a keyspace's tenants are schemas.
    pub fn has_tenant_schemas(&self) -> bool {
        self.keyspaces.iter().any(Keyspace::is_of_schemas)
    }

    /// The shard that alone has the schema: a tenant's, or one that the map places
    /// by name and of which it lists no table elsewhere.
    pub fn sole_shard(&self, schema: &str) -> Option<ShardId> {
        let Some(shard) = self.schemas.get(schema) else { return self.tenant_shard(schema) };
        let mut listed = self.tables.get(schema).into_iter().flat_map(BTreeMap::values);
        listed.all(|place| *place == Placement::Single(*shard)).then_some(*shard)
    }

    /// Whether it places schemas by their names.
    pub fn has_single_schemas(&self) -> bool {
        !self.schemas.is_empty()
    }

    /// Every table of the map: schema, name, place; by schema and name.
    /// Tables that only a whole schema's entry covers are not listed.
    pub fn tables(&self) -> impl Iterator<Item = (&str, &str, Table<'_>)> {
        self.tables.iter().flat_map(|(schema, tables)| {
            tables.iter().map(|(name, place)| (schema.as_str(), name.as_str(), place.table()))
        })
    }

    /// Whether the table `schema.name` is listed by itself.
    pub fn lists(&self, schema: &str, name: &str) -> bool {
        self.tables.get(schema).is_some_and(|tables| tables.contains_key(name))
    }

    /// Whether any table called `name` is in the map, in whatever schema.
    pub fn has_table_named(&self, name: &str) -> bool {
        self.tables.values().any(|tables| tables.contains_key(name))
    }

    /// Schemas that live on one shard as a whole.
    pub fn single_schemas(&self) -> impl Iterator<Item = (&str, ShardId)> {
        self.schemas.iter().map(|(schema, shard)| (schema.as_str(), *shard))
    }

    /// Whether its nodes are those of `other`, by the same numbers, watched in
    /// the same way: what is known of them is known under both maps.
    pub fn watches_like(&self, other: &Self) -> bool {
        self.nodes == other.nodes
            && self.shards == other.shards
            && self.consistency == other.consistency
    }

    /// How fresh reads of this database must be, if the map says so.
    pub const fn consistency(&self) -> Option<Consistency> {
        self.consistency
    }

    /// The level of reads of `schema.table`, if it has one of its own.
    pub fn level_of(&self, schema: &str, table: &str) -> Option<Consistency> {
        self.levels.get(schema)?.get(table).copied()
    }

    /// Whether the operator says that the data already lies where this map
    /// says (`data = "already-moved"`).
    pub const fn data_already_moved(&self) -> bool {
        self.already_moved
    }
}

impl Placement {
    fn table(&self) -> Table<'_> {
        match self {
            Self::Sharded { keyspace, column, rest } => {
                Table::Sharded { keyspace: *keyspace, column, rest }
            }
            Self::Reference => Table::Reference,
            Self::Single(shard) => Table::Single(*shard),
        }
    }
}

/// Most shards a map may have.
pub const SHARDS_MAX: usize = 1024;
/// Most nodes a map may have.
pub const NODES_MAX: usize = 4096;
/// The schema of a table that is named without one.
pub(crate) const DEFAULT_SCHEMA: &str = "public";
