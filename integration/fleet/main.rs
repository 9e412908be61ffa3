//! Several routers before the same shards: each has a lease on the home shard,
//! and a move waits for those that may still go by an older map.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test: a panic fails it, and it reports what it measures"
)]

#[path = "../support/mod.rs"]
mod support;

#[allow(dead_code, reason = "the moves' tests use all of it")]
#[path = "../moves/world.rs"]
mod world;

mod back;
mod found;
mod lapses;
mod stage;
mod stopped;
mod together;
