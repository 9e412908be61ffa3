//! The router as its operators and its clients' worst days know it: logins,
//! TLS, cancels, timeouts, pools, starts and stops, reloads, the console, bad
//! input, slow readers.
//!
//! One cluster for all tests; those that stop or damage servers start their
//! own. Each test starts the router that it needs.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic fails the test")]
#![allow(unreachable_pub, reason = "one crate")]
#![allow(clippy::disallowed_methods, reason = "deadlines of tests need a clock")]

#[path = "../support/mod.rs"]
mod support;

mod auth;
mod bad_input;
mod cancel;
mod certs;
mod console;
mod doors;
mod handover;
mod holds;
mod http;
mod life;
mod lookup;
mod modes;
mod notify;
mod operators;
mod pool;
mod proxy;
mod raw;
mod reload;
mod rules;
mod setup;
mod shapes;
mod slow;
mod threads;
mod timeouts;
mod tls;
mod wire;
