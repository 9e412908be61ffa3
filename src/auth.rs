//! Logging in, on both sides of the router, as machines without sockets.
//!
//! Messages go in, steps come out; randomness is an argument and the slow
//! derivation of a key is handed to the caller as a request, so that no login
//! can hold up a thread that serves queries. `rules` decides what a connection
//! is asked for, the exchanges whether a peer knows what it is asked.
//!
//! Source: PostgreSQL manual, "SASL Authentication"; RFC 5802, RFC 7677.
#![deny(clippy::wildcard_enum_match_arm)]

pub mod client;
pub mod md5;
pub mod rules;
pub mod scram;
pub mod server;
pub mod verifier;

#[cfg(test)]
mod tests;

pub use client::{
    Borrowed, Cleartext, ClientError, ClientExchange, ClientPolicy, ClientStep, Credentials,
};
pub use md5::Md5Hash;
pub use scram::{DeriveRequest, Nonce, SaltedPassword};
pub use server::{Account, Binding, Login, ServerError, ServerExchange, ServerStep};
pub use verifier::{ScramKeys, StoredPassword, Verifier, VerifierError};

/// The longest nonce accepted from a peer, its own and ours together.
pub const NONCE_LEN_MAX: usize = 512;
/// The longest salt accepted from a peer or a stored verifier.
pub const SALT_LEN_MAX: usize = 256;
/// The most iterations that a stored verifier may ask for.
pub const ITERATIONS_MAX: u32 = 1_000_000;
/// Iterations that PostgreSQL uses unless told otherwise.
pub const ITERATIONS_DEFAULT: u32 = 4096;
