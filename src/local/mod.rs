//! Real PostgreSQL servers on this machine, for development and tests.
//!
//! `keyway local` is the command line of this; tests start clusters by
//! [`LocalCluster::start`]. It knows shards and replicas by number, and nothing
//! of routing.

pub mod cli;

mod account;
mod cluster;
mod command;
mod describe;
mod error;
mod find;
mod guard;
mod mapfile;
mod node;
mod settings;
mod state;

pub use self::cluster::{AtEnd, LocalCluster, LocalOptions, NodeName};
pub use self::command::run;
pub use self::describe::{ClusterView, NodeView, ShardView};
pub use self::error::LocalError;
pub use self::find::{Installation, Version};
pub use self::guard::Guard;
pub use self::node::Stop;
pub use self::settings::Durability;
