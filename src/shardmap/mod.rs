//! The shard map: which shard owns a key, where each shard's nodes are, and
//! which tables share a key.
//!
//! Everything here is a value: a map is read from a text, checked whole, and
//! never changes; another epoch is another map. It does not know files, nodes'
//! health, or SQL. `docs/shard-map.md` describes the format.

mod balance;
mod build;
mod calendar;
mod decimal;
mod diff;
mod file;
mod hash;
mod key;
mod keyspace;
mod map;
mod moved;
mod moving;
mod name;
mod node;
mod parse;
mod print;
mod row;
mod schemas;
mod slots;

pub use self::balance::{Balance, Hop, Piece};
pub use self::decimal::Decimal;
pub use self::diff::{Adoption, Change, adopt};
pub use self::hash::Hash;
pub(crate) use self::hash::RowHash;
pub(crate) use self::key::plain_integer;
pub use self::key::{Key, KeyError, KeyType, Scratch};
pub use self::keyspace::{Keyspace, KeyspaceId, Rank};
pub use self::map::{Map, NODES_MAX, SHARDS_MAX, Table};
pub use self::moving::{MOVES_MAX, MoveId, Moves, Moving, Phase, Portion, Touched};
pub use self::node::{Credentials, Endpoint, Node, SecretRef, Shard, Tls, TlsMode};
pub use self::parse::{FILE_BYTES_MAX, PROBLEMS_MAX, schema};
pub use crate::document::Problem;
