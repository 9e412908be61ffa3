//! What the console and the HTTP pages are made from, and what they may ask
//! the program to do.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::catalog::Catalog;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::engine::Operation;
use crate::engine::console::ConsoleReply;
use crate::engine::snapshot::EngineSnapshot;
use crate::mover::fleet::RouterRow;
use crate::mover::{Subject, Wish};
use crate::shardmap::{Map, Node};
use crate::store::moves::Stored;
use crate::types::{Epoch, Moment, NodeId, ShardId, SqlState};

/// Everything that can be shown, at one instant.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// What the engine's threads know.
    pub engine: EngineSnapshot,
    /// The databases, in the order of the configuration.
    pub databases: Vec<DatabaseView>,
    /// The settings in force.
    pub settings: Vec<SettingRow>,
    /// The moves, by their databases.
    pub moves: Vec<MoveView>,
    /// The routers, by their databases.
    pub routers: Vec<RouterView>,
    /// The instant.
    pub now: Moment,
    /// Whether new clients are taken.
    pub intake: Intake,
}

/// A move, as it was when the store was last looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoveView {
    /// The database.
    pub database: String,
    /// The move.
    pub stored: Stored,
}

/// A router, as its lease's row was when it was last looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterView {
    /// The database.
    pub database: String,
    /// Its row.
    pub row: RouterRow,
    /// It is the one that is asked.
    pub own: bool,
    /// Its lease has lapsed.
    pub lapsed: bool,
}

/// Whether new clients are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Intake {
    /// They are.
    #[default]
    Open,
    /// The router is shutting down.
    Draining,
}

/// One database that is served.
#[derive(Clone, Debug)]
pub struct DatabaseView {
    /// The map in force.
    pub map: Arc<Map>,
    /// What the monitor knows of its nodes.
    pub cluster: Arc<Cluster>,
    /// Why the operator's file is not what is served, if it isn't.
    pub kept_back: Option<String>,
    /// What is known of its shards' schemas.
    pub catalog: CatalogView,
}

/// What is known of the schemas of a database's shards.
#[derive(Clone, Debug, Default)]
pub struct CatalogView {
    /// The catalogs in force.
    pub catalog: Catalog,
    /// Why a shard can't be asked now.
    pub failures: BTreeMap<ShardId, String>,
    /// What does not fit the map, or differs between shards.
    pub warnings: Vec<String>,
}

impl DatabaseView {
    /// The name that clients use.
    pub fn name(&self) -> &str {
        self.map.database()
    }

    /// Name of the shard that `node` belongs to; empty if it belongs to none.
    pub(crate) fn shard_of(&self, node: &Node) -> &str {
        self.map.shard(node.shard).map_or("", |shard| shard.name.as_str())
    }

    /// `host:port` of `node`, or its number if the map has no such node.
    pub(crate) fn address_of(&self, node: NodeId) -> String {
        self.map
            .node(node)
            .map_or_else(|| node.index().to_string(), |node| node.endpoint.to_string())
    }
}

/// One setting in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingRow {
    /// Section and name, as `pool.size_max`.
    pub key: &'static str,
    /// The value as one would write it in the file; no password.
    pub value: String,
    /// The default in the same form; empty if there is none.
    pub default: String,
}

impl SettingRow {
    /// The rows for `config`, in the order of the manual page. Users are left
    /// out.
    pub fn of(config: &Config) -> Vec<Self> {
        let row = |(setting, value): (&'static crate::config::Setting, String)| Self {
            key: setting.path,
            value,
            default: (setting.default)(),
        };
        config.values().into_iter().map(row).collect()
    }
}

/// What an operator asks for that changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read the maps again.
    Reload,
    /// Begin a move.
    Move(MoveOrder),
    /// Tell a move what is wanted of it.
    Wish(u32, Wish),
    /// Name the primary of a shard.
    NamePrimary(PrimaryOrder),
    /// Disconnect this client; its transaction is rolled back.
    Kill(u64),
    /// Do this to a database, or to all.
    Operate(Operation, Option<String>),
    /// Wait until the connections of a database, or of all, that are to close
    /// have closed.
    WaitClose(Option<String>),
}

/// A move that an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoveOrder {
    /// What moves.
    pub subject: Subject,
    /// The keyspace, where there are several.
    pub keyspace: Option<String>,
    /// The name of the shard that it shall go to.
    pub target: String,
    /// The database, where there are several.
    pub database: Option<String>,
}

/// A shard's primary that an operator names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrimaryOrder {
    /// The shard's name.
    pub shard: String,
    /// The node, as `host:port` of the map.
    pub node: String,
    /// The database, where there are several.
    pub database: Option<String>,
}

impl Inputs {
    /// `host:port` of a node of `database`; its number if it is not known.
    pub(crate) fn address_of(&self, database: &str, node: NodeId) -> String {
        self.databases
            .iter()
            .find(|view| view.name() == database)
            .map_or_else(|| node.index().to_string(), |view| view.address_of(node))
    }
}

/// What came of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What was read again, and what came of it.
    Reloaded(Vec<Reloaded>),
    /// The move has this number.
    Moving(u32),
    /// The move has been told.
    Wished(Wish),
    /// The shard's primary is named.
    Named,
    /// The client is being disconnected.
    Killed,
    /// It is done.
    Operated(Operation),
    /// The connections have closed.
    Closed,
}

/// What a reload did for one database, or for the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// The database, or a word for the configuration.
    pub what: String,
    /// The epoch of the database's map in force afterwards.
    pub epoch: Option<Epoch>,
    /// What happened, in words: `unchanged`, `epoch 4 is in force`, or why the
    /// old map serves on.
    pub result: String,
}

/// Why a command is refused or failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The SQLSTATE.
    pub state: SqlState,
    /// What is wrong; lower case, no full stop.
    pub message: String,
    /// A way out.
    pub hint: Option<String>,
}

impl Refusal {
    /// The refusal to act on a client that is not there.
    pub fn no_client(id: u64) -> Self {
        Self {
            state: SqlState::new("42704"),
            message: format!("no client has the number {id}"),
            hint: Some("SHOW CLIENTS lists them".to_owned()),
        }
    }

    /// The refusal to act on a database that is not there.
    pub fn no_database(name: Option<&str>) -> Self {
        Self {
            state: SqlState::new("3D000"),
            message: match name {
                Some(name) => format!("database \"{name}\" does not exist"),
                None => "the router serves no database".to_owned(),
            },
            hint: Some("SHOW DATABASES lists them".to_owned()),
        }
    }
}

impl From<Refusal> for ConsoleReply {
    fn from(refusal: Refusal) -> Self {
        let Refusal { state, message, hint } = refusal;
        Self::Error { state, message, hint }
    }
}

/// A future of the program's that the console or a page waits for.
pub type Waiting<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where the inputs come from and who carries actions out.
///
/// The program implements it over the engine and the control plane; tests over
/// values.
pub trait Source: Send + Sync {
    /// A fresh snapshot of everything.
    fn inputs(&self) -> Waiting<'_, Inputs>;

    /// Does what `action` says.
    ///
    /// # Errors
    /// It was refused or failed; the router serves on as before.
    fn carry_out(&self, action: Action) -> Waiting<'_, Result<Outcome, Refusal>>;
}
