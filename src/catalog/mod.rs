//! What the shards' schemas hold, as an immutable snapshot: relations with
//! their columns and keys, views, functions, and who may look where.
//!
//! It knows what a catalog says, not what the shard map makes of it, and not
//! how it was asked for. Names stand for everything: two shards with the same
//! schema have the same [`Fingerprint`], whatever their OIDs, which
//! [`Translation`] knows.
//!
//! Source: PostgreSQL manual, "System Catalogs".

#![deny(clippy::wildcard_enum_match_arm)]

mod compare;
mod file;
mod numbers;
mod relation;
mod shard;
mod snapshot;

pub use compare::differences;
pub use file::{FileError, parse, print};
pub use numbers::{Form, Numbers, OwnType, Translation};
pub use relation::{
    Action, Column, ForeignKey, Generated, Identity, Key, Persistence, Relation, RelationKind,
    RelationName, View,
};
pub use shard::{
    DefaultMode, DefaultPath, Fingerprint, Function, FunctionKind, Schema, ShardCatalog, Volatility,
};
pub use snapshot::Catalog;

#[cfg(test)]
mod tests;
