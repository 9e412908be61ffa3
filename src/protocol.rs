//! Bytes to messages and back: PostgreSQL's frontend/backend protocol 3.
//!
//! Decoders borrow: a view holds slices of the body that it read, allocates
//! nothing, and never panics, whatever the bytes. Encoders append to a buffer
//! and write either a whole message or nothing. The module knows the form of
//! messages only; which message may come when is `session`'s and `backend`'s
//! to decide.
//!
//! Source: PostgreSQL manual, chapter "Frontend/Backend Protocol".
#![deny(clippy::wildcard_enum_match_arm)]

pub mod backend;
pub mod encode;
pub mod error;
pub mod frame;
pub mod frontend;
pub mod proxy;
mod read;
pub mod startup;
pub mod tag;

#[cfg(test)]
mod properties;
