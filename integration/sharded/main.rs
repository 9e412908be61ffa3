//! Two shards with a replica each, the sample on them, and a router in front:
//! what an application sees that runs on a sharded database.
//!
//! `drivers` runs real clients; the other modules ask through the router and
//! then ask the shards themselves.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test: a panic fails it, and it reports"
)]

#[path = "../support/mod.rs"]
mod support;

mod client;
mod differential;
mod drivers;
mod guide;
mod keyway;
mod refusals;
mod replicas;
mod routes;
mod schema;
mod slots;
mod transactions;
mod world;
mod wrapped;
