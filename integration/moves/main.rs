//! Moves between real servers, with writers that go on writing.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test: a panic fails it, and it reports what it measures"
)]

#[path = "../support/mod.rs"]
mod support;

mod between;
mod changes;
mod crowd;
mod faults;
mod measured;
mod pinned;
mod reads;
mod refusals;
mod replicas;
mod routed;
mod soak;
mod throttled;
mod waits;
mod whole;
mod world;
mod writers;
