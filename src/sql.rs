//! Statement text: how Postgres reads it, and what each statement is.
//!
//! `scan` has the lexical rules and makes the normal form that plans are cached
//! by; `classify` tells kinds and effects by leading keywords; `parse` reads a
//! statement into a `tree`, of which `shape` keeps the tables and conditions that
//! routing decides on. Nothing here knows the map or a shard.

pub(crate) mod classify;
pub(crate) mod functions;
pub(crate) mod lex;
pub mod literal;
pub(crate) mod parse;
pub mod reading;
pub mod scan;
pub(crate) mod session_words;
pub(crate) mod shape;
pub mod statement;
pub(crate) mod token;
pub(crate) mod tree;
