//! Keyway: a sharding router and read/write splitter for PostgreSQL.
//!
//! `ARCHITECTURE.md` has the layers, the code map and the life of a statement.

pub mod admin;
pub mod app;
pub mod auth;
pub mod backend;
pub mod catalog;
pub mod cluster;
pub mod config;
pub mod control;
pub mod document;
pub mod engine;
pub mod gather;
pub mod health;
pub mod local;
pub mod mover;
pub mod net;
pub mod pool;
pub mod protocol;
pub mod route;
pub mod session;
pub mod shardmap;
pub mod sql;
pub mod store;
pub mod types;
