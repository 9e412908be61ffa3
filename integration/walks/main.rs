//! The walks of docs/walks.md, and what they stand on: schemas that are made,
//! maps that are proposed, leftovers that are found.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test: a panic fails it, and it reports what it did"
)]

#[path = "../support/mod.rs"]
mod support;

mod clients;
mod page;
mod schema;
